//! What a worker does beside its requests, and nobody waits for: bounded, and dropped when it is too much.
//!
//! Whoever has such work hands it over and goes on; one task of the worker runs it. It ends with the
//! worker, finished or not.

use std::cell::Cell;

use pointsman_gateway::ports::LocalFuture;
use tokio::{
    sync::mpsc::{self, Receiver, Sender},
    task::JoinSet,
};

/// A piece of work.
type Work = LocalFuture<'static, ()>;

/// Takes work in.
pub(crate) struct Background {
    queue: Sender<Work>,
    dropped: Cell<u64>,
}

impl Background {
    /// One, and what runs its work until it is gone.
    pub(crate) fn new() -> (Self, impl Future<Output = ()>) {
        let (queue, work) = mpsc::channel(WAITING_MAX);
        let background = Self {
            queue,
            dropped: Cell::new(0),
        };
        (background, run(work))
    }

    /// Has `work` done, unless there is too much already.
    pub(crate) fn add(&self, work: Work) -> bool {
        if self.queue.try_send(work).is_ok() {
            return true;
        }
        let dropped = self.dropped.get() + 1;
        self.dropped.set(dropped);
        // Whoever is flooded needs no line for each.
        if dropped.is_power_of_two() {
            tracing::warn!(
                dropped,
                "too much goes on beside requests on this worker: copies of requests are dropped"
            );
        }
        false
    }
}

async fn run(mut work: Receiver<Work>) {
    let mut under_way = JoinSet::new();
    loop {
        let (is_full, is_idle) = (under_way.len() >= UNDER_WAY_MAX, under_way.is_empty());
        tokio::select! {
            next = work.recv(), if !is_full => match next {
                Some(next) => {
                    under_way.spawn_local(next);
                }
                None => return,
            },
            _ = under_way.join_next(), if !is_idle => {}
        }
    }
}

/// Pieces of work at a time.
const UNDER_WAY_MAX: usize = 48;
/// Pieces of work that may wait.
const WAITING_MAX: usize = 16;
