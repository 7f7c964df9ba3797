//! Errands on the control thread, off the path of requests: what configuration needs from somewhere
//! else before requests do, fetched as it falls due.
//!
//! What is due, and what is kept, is for a keeper of `pointsman-gateway` to say; this is the loop around
//! it, with a client of its own.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Instant};

use pointsman_gateway::{clock, config::snapshot::Snapshot};
use tokio::sync::Notify;

use crate::http_client::{Dialer, HttpClient};

/// Who says what is due, and keeps what comes of it.
pub(crate) trait Keeper: Default + 'static {
    /// Something to fetch.
    type Errand: 'static;
    /// What came of it.
    type Outcome;

    /// Takes in what a configuration wants, right before it is published.
    fn adopt(&mut self, snapshot: &Snapshot, now: Instant);
    /// The next errand that is due.
    fn poll(&mut self, now: Instant) -> Option<Self::Errand>;
    /// Runs it.
    fn perform(errand: &Self::Errand, client: &HttpClient) -> impl Future<Output = Self::Outcome>;
    /// Takes its outcome.
    fn on_outcome(&mut self, errand: &Self::Errand, outcome: Self::Outcome, now: Instant);
    /// When to poll again.
    fn next_deadline(&self, now: Instant) -> Option<Instant>;
}

/// A keeper, and the means to run its errands.
#[derive(Default)]
pub(crate) struct Errands<K> {
    keeper: RefCell<K>,
    changed: Notify,
    came_back: Notify,
}

impl<K: Keeper> Errands<K> {
    /// To be called with every configuration, right before it is published.
    pub(crate) fn adopt(&self, snapshot: &Snapshot) {
        self.keeper.borrow_mut().adopt(snapshot, clock::now());
        self.changed.notify_one();
    }

    /// What `look` makes of the keeper, which may have been changed by it.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut K) -> T) -> T {
        let seen = look(&mut self.keeper.borrow_mut());
        self.changed.notify_one();
        seen
    }

    /// Ends when an errand has come back since this was asked last. For one asker.
    pub(crate) async fn came_back(&self) {
        self.came_back.notified().await;
    }

    /// Runs errands as they fall due.
    pub(crate) async fn run(self: Rc<Self>, dialer: Arc<Dialer>) {
        let client = Rc::new(HttpClient::new(dialer));
        loop {
            loop {
                let errand = self.keeper.borrow_mut().poll(clock::now());
                let Some(errand) = errand else { break };
                let (errands, client) = (Rc::clone(&self), Rc::clone(&client));
                tokio::task::spawn_local(async move {
                    let outcome = K::perform(&errand, &client).await;
                    let mut keeper = errands.keeper.borrow_mut();
                    keeper.on_outcome(&errand, outcome, clock::now());
                    drop(keeper);
                    errands.changed.notify_one();
                    errands.came_back.notify_one();
                });
            }
            client.sweep();
            let deadline = self.keeper.borrow().next_deadline(clock::now());
            let due = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = due => {}
            }
        }
    }
}
