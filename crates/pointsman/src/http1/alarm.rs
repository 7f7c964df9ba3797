//! A deadline that mostly moves away before it is reached.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use pointsman_gateway::clock;
use tokio::time::Sleep;

/// One timer for all the waits of a connection.
///
/// Setting a timer costs more than looking at the clock. So a deadline that moves away leaves the
/// timer alone; when the timer fires it is set again for the rest.
#[derive(Default)]
pub(crate) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Ready once `due` has passed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due.into())));
        if sleep.deadline().into_std() > due {
            sleep.as_mut().reset(due.into());
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if due <= clock::now() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due.into());
        }
        Poll::Pending
    }
}

/// How long nothing has moved.
///
/// Progress is only noted; the clock is read when there is nothing to do but wait.
pub(crate) struct Stall {
    alarm: Alarm,
    since: Instant,
    moved: bool,
}

impl Stall {
    /// Nothing has moved since `now`.
    pub(crate) fn since(now: Instant) -> Self {
        Self {
            alarm: Alarm::default(),
            since: now,
            moved: false,
        }
    }

    /// Something moved.
    pub(crate) fn progress(&mut self) {
        self.moved = true;
    }

    /// Ready when nothing has moved for `limit`. Call it when there is nothing to do but wait.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, limit: std::time::Duration) -> Poll<()> {
        if std::mem::take(&mut self.moved) {
            self.since = clock::now();
        }
        self.alarm.poll(cx, self.since + limit)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn deadlines_may_move_both_ways() {
        let start = tokio::time::Instant::now().into_std();
        let mut alarm = Alarm::default();
        let mut at = |due: u64| {
            let due = start + Duration::from_secs(due);
            let mut cx = Context::from_waker(std::task::Waker::noop());
            alarm.poll(&mut cx, due)
        };
        assert!(at(60).is_pending());
        assert!(at(90).is_pending());
        assert!(at(1).is_pending());
    }
}
