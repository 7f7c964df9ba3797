//! The prober: performs probes as they fall due, and takes in what traffic tells.
//!
//! One loop on the thread of health that starts what is due, and a task for each probe under way. A task
//! hands its outcome in by itself, which publishes what it changes; the loop is woken only if it would
//! sleep too long now.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use pointsman_balance::{Probe, ProbeOutcome};
use pointsman_gateway::{
    clock,
    gateway::State,
    ports::LocalFuture,
    upstream::{driver::SharedHealth, health::ProbeSpec},
};

use crate::{
    health_thread::{Signals, Watched},
    http_client::Dialer,
    probe::{self, Shelf, Stage},
};

/// How a probe is performed.
pub(crate) type PerformProbe =
    for<'a> fn(&'a Dialer, &'a ProbeSpec, &'a Stage) -> LocalFuture<'a, ProbeOutcome>;

/// What the loop and the probes share.
pub(crate) struct Prober {
    health: Arc<SharedHealth>,
    dialer: Arc<Dialer>,
    perform: PerformProbe,
    state: Arc<State>,
    signals: Arc<Signals>,
    /// Never borrowed while anything is awaited.
    shelf: RefCell<Shelf>,
    /// When the loop looks again by itself.
    looks_at: Cell<Instant>,
}

impl Prober {
    /// A prober of what `health` says is due. Others tell it by `signals` that this may be
    /// something else now.
    pub(crate) fn new(
        health: Arc<SharedHealth>,
        (dialer, perform): (Arc<Dialer>, PerformProbe),
        state: Arc<State>,
        signals: Arc<Signals>,
    ) -> Rc<Self> {
        Rc::new(Self {
            health,
            dialer,
            perform,
            state,
            signals,
            shelf: RefCell::new(Shelf::new()),
            looks_at: Cell::new(clock::now()),
        })
    }

    /// Probes for ever.
    pub(crate) async fn keep_probing(self: Rc<Self>) {
        loop {
            self.health.lock().tick(clock::now(), &self.state);
            if self.signals.take_targets_changed() {
                self.close_of_gone();
            }
            let started = self.start_due();
            let reported = poll_fn(|cx| self.state.evidence().poll_take(cx));
            tokio::select! {
                () = self.signals.health_changed.notified() => {}
                () = self.rest(started) => {}
                reports = reported => {
                    for report in reports {
                        let mut health = self.health.lock();
                        health.on_evidence(report, clock::now(), &self.state);
                    }
                    // Whatever comes in, the others on this thread get their turn.
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Closes the connections of targets that are gone, or asked something else now.
    fn close_of_gone(&self) {
        let mut shelf = self.shelf.borrow_mut();
        if shelf.is_empty() {
            return;
        }
        let health = self.health.lock();
        shelf.retain(|target, spec| {
            let report = health.monitor().report(target);
            report.is_some_and(|report| **report.probe == *spec)
        });
    }

    /// Starts what is due.
    fn start_due(self: &Rc<Self>) -> Started {
        for _ in 0..BATCH {
            let began = clock::now();
            let due = self.health.lock().poll_probe(began);
            let Some(due) = due else {
                return Started::All;
            };
            let watched = Watched(Arc::clone(&self.signals));
            let probe = Rc::clone(self).probe(due, began);
            tokio::task::spawn_local(async move {
                probe.await;
                drop(watched);
            });
        }
        Started::Some
    }

    /// Waits until there may be something to start.
    async fn rest(&self, started: Started) {
        match started {
            Started::Some => {
                self.looks_at.set(clock::now());
                tokio::task::yield_now().await;
            }
            Started::All => {
                let idle = clock::now() + IDLE;
                let deadline = self.health.lock().next_deadline();
                let until = deadline.map_or(idle, |deadline| deadline.min(idle));
                self.looks_at.set(until);
                tokio::time::sleep_until(until.into()).await;
            }
        }
    }

    async fn probe(self: Rc<Self>, due: Probe<Arc<ProbeSpec>>, began: Instant) {
        let target = due.ticket.target();
        let left = self.shelf.borrow_mut().take(target, &due.probe);
        // A recovery is proven by new connections.
        let left = left.filter(|_| self.health.lock().is_probed_well(target, &due.probe));
        let stage = Stage::new(due.timeout).with(left);
        let mut performed = (self.perform)(&self.dialer, &due.probe, &stage);
        let known = probe::in_time(performed.as_mut(), &stage, began, due.answer_within);
        let Some((outcome, known)) = known.await else {
            return;
        };
        let mut health = self.health.lock();
        health.on_probe(due.ticket, outcome, known, &self.state);
        if (health.next_deadline()).is_some_and(|deadline| deadline < self.looks_at.get()) {
            self.signals.health_changed.notify_one();
        }
        // Not of one that went or changed meanwhile: nobody would close it.
        let connection = stage.take_connection();
        let connection = connection.filter(|_| health.is_probed_well(target, &due.probe));
        drop(health);
        if let Some(connection) = connection {
            let mut shelf = self.shelf.borrow_mut();
            shelf.keep(target, &due.probe, connection);
        }
    }
}

/// How many of the probes that are due have been started.
#[derive(Clone, Copy)]
enum Started {
    All,
    Some,
}

/// Probes that are started in one go. Then those under way get their turn: they end while others
/// begin, and not all are under way at once only because all are due at once.
const BATCH: usize = 64;
/// The longest sleep.
const IDLE: Duration = Duration::from_secs(3600);
