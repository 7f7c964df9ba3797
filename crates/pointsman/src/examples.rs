//! The vectors of examples, for balancing by meaning: made here, off the path of requests.
//!
//! What is due, and what is kept, is for the [`Keeper`] to say; this is the loop around it, on the
//! control thread, with a client of its own.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use pointsman_gateway::{clock, config::snapshot::Snapshot, semantic::keeper::Keeper};
use tokio::sync::Notify;

use crate::http_client::{Dialer, HttpClient};

/// All vectors of examples, and the means to make them.
#[derive(Default)]
pub(crate) struct Examples {
    keeper: RefCell<Keeper>,
    changed: Notify,
}

impl Examples {
    /// To be called with every configuration, right before it is published.
    pub(crate) fn adopt(&self, snapshot: &Snapshot) {
        self.keeper.borrow_mut().adopt(snapshot, clock::now());
        self.changed.notify_one();
    }

    /// Makes vectors as they fall due.
    pub(crate) async fn keep(self: Rc<Self>, dialer: Arc<Dialer>) {
        let client = Rc::new(HttpClient::new(dialer));
        loop {
            loop {
                let batch = self.keeper.borrow_mut().poll_batch(clock::now());
                let Some(batch) = batch else { break };
                let (examples, client) = (Rc::clone(&self), Rc::clone(&client));
                tokio::task::spawn_local(async move {
                    let outcome = batch.perform(&*client).await;
                    let mut keeper = examples.keeper.borrow_mut();
                    keeper.on_outcome(&batch, outcome, clock::now());
                    examples.changed.notify_one();
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
