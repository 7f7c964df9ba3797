//! What workers saw of targets, on its way to the owner of all health.
//!
//! Workers report what can change a verdict, and nothing else: a healthy target's successes stay where
//! they are. The owner is one task; whatever it makes of a report is published to all workers alike.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Instant,
};

use pointsman_balance::{Passive, ProbeOutcome, TargetId, Trial};

/// One report.
#[derive(Debug)]
pub enum Evidence {
    /// A request to a target ended like this.
    Request {
        /// Where it went.
        target: TargetId,
        /// How it ended.
        outcome: ProbeOutcome,
        /// What that means to whoever sent it.
        passive: Arc<Passive>,
        /// When it was sent.
        began: Instant,
    },
    /// Somebody asked to be left alone.
    CoolDown {
        /// Who.
        guard: TargetId,
        /// Until when.
        until: Instant,
        /// For the log.
        cause: &'static str,
    },
    /// Too many attempts failed.
    Trip {
        /// Whose.
        guard: TargetId,
    },
    /// A request at a half-open circuit has ended.
    Trial {
        /// Whose circuit.
        guard: TargetId,
        /// Whether it may close.
        succeeded: bool,
        /// The right to the attempt, given back once this has been looked at. `None`: nobody better
        /// was there.
        trial: Option<Trial>,
    },
}

/// Reports that wait for the owner. Bounded: what comes when it is full is lost, and counted.
#[derive(Debug, Default)]
pub struct EvidenceQueue {
    waiting: Mutex<Waiting>,
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    reports: Vec<Evidence>,
    owner: Option<Waker>,
}

impl EvidenceQueue {
    /// Hands in a report. Returns at once.
    pub fn push(&self, report: Evidence) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.reports.len() >= WAITING_MAX {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.reports.push(report);
        let owner = waiting.owner.take();
        drop(waiting);
        if let Some(owner) = owner {
            owner.wake();
        }
    }

    /// All reports there are, once there are any. For the one owner.
    pub fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Vec<Evidence>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.reports.is_empty() {
            waiting.owner = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(std::mem::take(&mut waiting.reports))
    }

    /// How many reports were lost.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// More failures than this in the time that the owner takes to look say nothing new.
const WAITING_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_arrive_in_order_and_a_full_queue_counts() {
        let mut monitor = pointsman_balance::Monitor::<u8>::new();
        let spec = pointsman_balance::GuardSpec {
            key: String::new(),
            breaker: None,
        };
        let (guard, _) = monitor.guard(spec, crate::clock::now());
        let queue = EvidenceQueue::default();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(queue.poll_take(&mut cx).is_pending());
        for _ in 0..WAITING_MAX + 3 {
            queue.push(Evidence::Trip { guard });
        }
        assert_eq!(queue.lost(), 3);
        let Poll::Ready(reports) = queue.poll_take(&mut cx) else {
            panic!("reports wait");
        };
        assert_eq!(reports.len(), WAITING_MAX);
        assert!(queue.poll_take(&mut cx).is_pending());
    }
}
