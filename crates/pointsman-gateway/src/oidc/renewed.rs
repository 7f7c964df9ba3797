//! A value from elsewhere that many requests want and one of them fetches.
//!
//! Whoever finds it missing or stale fetches it inside his own request, on his own worker's
//! connections; the others, on whatever worker, wait for what he brings. If he leaves before that, the
//! next of them takes over. Nobody waits longer than he says, and a failure is an outcome like any
//! other: those who waited do not try once more one after the other.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

use arc_swap::ArcSwapOption;

use crate::ports::LocalFuture;

/// A value, and who is fetching it.
pub(super) struct Renewed<T> {
    newest: ArcSwapOption<T>,
    flight: Mutex<Flight>,
}

#[derive(Default)]
struct Flight {
    is_led: bool,
    waiting: Vec<Waker>,
}

/// What somebody who asks comes to.
enum Turn<'a, T> {
    /// He is the one to fetch it.
    Lead(Lead<'a>),
    /// Somebody else has.
    Landed(Arc<T>),
}

/// The right to fetch; whoever waits goes on when it is given back, with or without an outcome.
struct Lead<'a>(&'a Mutex<Flight>);

impl<T> Default for Renewed<T> {
    fn default() -> Self {
        Self {
            newest: ArcSwapOption::empty(),
            flight: Mutex::default(),
        }
    }
}

impl<T> Renewed<T> {
    /// What was fetched last.
    pub(super) fn newest(&self) -> Option<Arc<T>> {
        self.newest.load_full()
    }

    /// Whether somebody is fetching it.
    pub(super) fn is_under_way(&self) -> bool {
        lock(&self.flight).is_led
    }

    /// Another one than `seen`: what `fetch` brings, or somebody who was faster. `None` if `limit` ends
    /// before that.
    pub(super) async fn renew(
        &self,
        seen: Option<&Arc<T>>,
        limit: LocalFuture<'_, ()>,
        fetch: impl Future<Output = T>,
    ) -> Option<Arc<T>> {
        match self.turn(seen, limit).await? {
            Turn::Landed(value) => Some(value),
            Turn::Lead(lead) => {
                let value = Arc::new(fetch.await);
                self.newest.store(Some(Arc::clone(&value)));
                drop(lead);
                Some(value)
            }
        }
    }

    async fn turn(
        &self,
        seen: Option<&Arc<T>>,
        mut limit: LocalFuture<'_, ()>,
    ) -> Option<Turn<'_, T>> {
        std::future::poll_fn(|cx| {
            let mut flight = lock(&self.flight);
            // Looked at under the lock: what has landed was there before its flight ended.
            let landed = self.newest().filter(|newest| {
                let is_seen = |seen: &Arc<T>| Arc::ptr_eq(seen, newest);
                !seen.is_some_and(is_seen)
            });
            if let Some(value) = landed {
                return Poll::Ready(Some(Turn::Landed(value)));
            }
            if !flight.is_led {
                flight.is_led = true;
                return Poll::Ready(Some(Turn::Lead(Lead(&self.flight))));
            }
            // A handler is polled again for whatever arrives meanwhile.
            if !flight.waiting.iter().any(|one| one.will_wake(cx.waker())) {
                flight.waiting.push(cx.waker().clone());
            }
            drop(flight);
            limit.as_mut().poll(cx).map(|()| None)
        })
        .await
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let waiting = {
            let mut flight = lock(self.0);
            flight.is_led = false;
            std::mem::take(&mut flight.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

fn lock(flight: &Mutex<Flight>) -> MutexGuard<'_, Flight> {
    flight.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{future::pending, pin::pin, task::Context};

    use super::*;

    fn never() -> LocalFuture<'static, ()> {
        Box::pin(pending())
    }

    /// What `future` has come to by now.
    fn look<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    #[test]
    fn one_fetches_and_all_have_it() {
        let value = Renewed::default();
        let (send, receive) = (Renewed::<u8>::default(), pending::<u8>());
        let mut first = pin!(send.renew(None, never(), receive));
        assert!(look(first.as_mut()).is_none());
        assert!(send.is_under_way());

        let mut first = pin!(value.renew(None, never(), async { 1 }));
        assert_eq!(look(first.as_mut()).flatten().as_deref(), Some(&1));
        let mut late = pin!(value.renew(None, never(), async { 2 }));
        let late = look(late.as_mut()).flatten().expect("there already");
        assert_eq!(*late, 1);
        let mut anew = pin!(value.renew(Some(&late), never(), async { 3 }));
        assert_eq!(look(anew.as_mut()).flatten().as_deref(), Some(&3));
        let mut behind = pin!(value.renew(Some(&late), never(), async { 4 }));
        assert_eq!(look(behind.as_mut()).flatten().as_deref(), Some(&3));
        assert_eq!(value.newest().as_deref(), Some(&3));
        assert!(!value.is_under_way());
    }

    #[test]
    fn who_leaves_is_replaced_and_nobody_waits_for_ever() {
        let value = Renewed::default();
        let mut gone = Box::pin(value.renew(None, never(), pending()));
        assert!(look(gone.as_mut()).is_none());
        let mut next = pin!(value.renew(None, never(), async { 2 }));
        assert!(look(next.as_mut()).is_none(), "somebody is at it");
        let mut hasty = pin!(value.renew(None, Box::pin(async {}), async { 3 }));
        assert_eq!(look(hasty.as_mut()), Some(None), "his time is up");
        drop(gone);
        assert_eq!(look(next.as_mut()).flatten().as_deref(), Some(&2));
    }
}
