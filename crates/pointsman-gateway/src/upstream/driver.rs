//! The owner of the health state: what is due, what a probe said, what everybody may know.
//!
//! Not a task but what a task calls. The program runs one loop, on the control thread: it asks
//! for probes that are due, performs them, hands the results in, and sleeps until the next
//! deadline. A verdict is public as soon as the call that brought the result returns.

use std::{sync::Arc, time::Instant};

use pointsman_balance::{Change, Monitor, Probe, ProbeOutcome, TargetId, Ticket};

use crate::{
    gateway::State,
    upstream::health::{Assigned, Planned, ProbeSpec},
};

/// All targets that are checked, wherever they are configured.
#[derive(Default)]
pub struct Health {
    monitor: Monitor<ProbeSpec>,
}

impl Health {
    /// No targets yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Settles which targets exist. Equal ones keep their state; the answer says which target
    /// judges which member.
    pub fn reconcile(&mut self, planned: &[Planned], now: Instant) -> (Assigned, Vec<TargetId>) {
        let wanted = planned.iter().map(|plan| plan.wanted.clone()).collect();
        let ids = self.monitor.reconcile(wanted, now);
        let mut assigned = Assigned::default();
        for (plan, id) in planned.iter().zip(&ids) {
            assigned.note(&plan.owner, &plan.member, *id);
        }
        (assigned, ids)
    }

    /// The verdicts as they are now.
    pub fn availability(&self) -> Arc<pointsman_balance::Availability> {
        self.monitor.availability()
    }

    /// The next probe that is due.
    pub fn poll_probe(&mut self, now: Instant) -> Option<Probe<ProbeSpec>> {
        self.monitor.poll_probe(now)
    }

    /// When to ask again.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.monitor.next_deadline()
    }

    /// Takes a probe's result; publishes when it changed who may be picked.
    pub fn on_probe(&mut self, ticket: Ticket, outcome: ProbeOutcome, now: Instant, state: &State) {
        let Some(change) = self.monitor.on_probe(ticket, outcome, now) else {
            return;
        };
        if change.usable_changed {
            state.publish_availability(self.monitor.availability());
        }
        self.tell(&change, outcome);
    }

    /// The monitor, to look at.
    pub fn monitor(&self) -> &Monitor<ProbeSpec> {
        &self.monitor
    }

    fn tell(&self, change: &Change, outcome: ProbeOutcome) {
        let Some(report) = self.monitor.report(change.target) else {
            return;
        };
        let target = format!("{}:{}", report.probe.host, report.probe.port);
        let (from, to) = (change.from.as_str(), change.to.as_str());
        if change.usable_changed {
            tracing::warn!(target, from, to, cause = ?outcome, "health verdict changed");
        } else {
            tracing::info!(target, from, to, cause = ?outcome, "health state changed");
        }
    }
}
