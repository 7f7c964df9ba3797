//! Counters in Redis, for one worker: one connection for each server, shared by all requests.
//!
//! Requests are written one behind the other and answered in that order, so none waits for a connection
//! that another has. A server is connected to, and again when a connection has broken, by a task of its
//! own; while that finds nobody, requests are told so at once rather than each waiting in turn.

mod link;
mod server;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use pointsman_gateway::{
    clock,
    limits::remote::{Call, Server},
    ports::{Counters, LocalFuture, Unanswered},
};
use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use self::server::Connected;

/// One worker's connections to servers of counters.
pub(crate) struct RedisCounters {
    servers: RefCell<FxHashMap<Arc<Server>, Rc<Connected>>>,
    /// PEM of roots beside the system's.
    roots: Option<Arc<[u8]>>,
    pending: Rc<Pending>,
}

/// What is still to be done though nobody waits for it.
#[derive(Default)]
struct Pending {
    count: Cell<usize>,
    none: Notify,
}

/// One of them, until it is dropped.
struct OfPending(Rc<Pending>);

impl RedisCounters {
    /// Trusts the system's roots, or those of the file at `roots`.
    pub(crate) fn new(roots: Option<&str>) -> Self {
        // Whether it can be read has been looked at where targets' roots are.
        let roots = roots.and_then(|path| std::fs::read(path).ok());
        Self {
            servers: RefCell::default(),
            roots: roots.map(Arc::from),
            pending: Rc::default(),
        }
    }

    /// Closes connections that nobody uses any longer.
    pub(crate) fn sweep(&self) {
        let now = clock::now();
        let mut servers = self.servers.borrow_mut();
        servers.retain(|_, server| server.is_wanted(now));
    }

    /// Waits for what nobody waits for, for a moment: places of requests that have just ended.
    pub(crate) async fn settle(&self) {
        let settled = async {
            while self.pending.count.get() > 0 {
                self.pending.none.notified().await;
            }
        };
        let _ = tokio::time::timeout(SETTLE, settled).await;
    }

    fn connected(&self, server: &Arc<Server>) -> Rc<Connected> {
        if let Some(found) = self.servers.borrow().get(server) {
            return Rc::clone(found);
        }
        let made = Connected::new(Arc::clone(server), self.roots.clone());
        let made = Rc::new(made);
        let mut servers = self.servers.borrow_mut();
        servers.insert(Arc::clone(server), Rc::clone(&made));
        made
    }
}

impl Counters for RedisCounters {
    fn run(
        &self,
        server: &Arc<Server>,
        call: Call,
    ) -> LocalFuture<'static, Result<Vec<i64>, Unanswered>> {
        let server = self.connected(server);
        Box::pin(async move { server.run(&call).await })
    }

    fn send(&self, server: &Arc<Server>, call: Call) {
        if self.pending.count.get() >= PENDING_MAX {
            // It will expire.
            return;
        }
        let (server, pending) = (self.connected(server), OfPending::new(&self.pending));
        tokio::task::spawn_local(async move {
            let _pending = pending;
            for pause in AGAIN {
                if server.run(&call).await.is_ok() {
                    return;
                }
                tokio::time::sleep(pause).await;
            }
        });
    }

    // Not pending: what sleeps between two reports must not use up what places are given back by.
    fn later(&self, work: LocalFuture<'static, ()>) {
        tokio::task::spawn_local(work);
    }
}

impl OfPending {
    fn new(pending: &Rc<Pending>) -> Self {
        pending.count.set(pending.count.get() + 1);
        Self(Rc::clone(pending))
    }
}

impl Drop for OfPending {
    fn drop(&mut self) {
        let left = self.0.count.get().saturating_sub(1);
        self.0.count.set(left);
        if left == 0 {
            self.0.none.notify_one();
        }
    }
}

/// How long the end of a worker may take for that.
const SETTLE: Duration = Duration::from_secs(2);
/// What may be pending at a time.
const PENDING_MAX: usize = 10_000;
/// When to try again: for about a minute.
const AGAIN: [Duration; 6] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(8),
    Duration::from_secs(16),
    Duration::from_secs(32),
];
