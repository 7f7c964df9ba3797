//! The owner of the health state: what is due, what a probe said, what everybody may know.
//!
//! Not a task but what a task calls. The program runs one loop, on the control thread: it asks
//! for probes that are due, performs them, hands the results in, and sleeps until the next
//! deadline. A verdict is public as soon as the call that brought the result returns.

use std::{collections::HashMap, sync::Arc, time::Instant};

use pointsman_balance::{Change, Monitor, Probe, ProbeOutcome, TargetId, Ticket};

use crate::{
    gateway::State,
    upstream::health::{Checker, ProbeSpec, ReportName},
};

/// All targets that are checked, wherever they are configured.
#[derive(Default)]
pub struct Health {
    monitor: Monitor<ProbeSpec>,
    /// Whose traffic each target decides about, for the log.
    users: HashMap<TargetId, Vec<ReportName>>,
}

impl Health {
    /// No targets yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Settles which targets exist, and returns those of each checker, in the same order. Equal
    /// ones keep their state.
    pub fn reconcile(&mut self, checkers: &[&Checker], now: Instant) -> Vec<Vec<TargetId>> {
        let probes = || checkers.iter().flat_map(|checker| &checker.probes);
        let wanted = probes().map(|planned| planned.wanted.clone()).collect();
        let mut ids = self.monitor.reconcile(wanted, now).into_iter();
        self.users.clear();
        let mut settled = Vec::with_capacity(checkers.len());
        for checker in checkers {
            let targets: Vec<TargetId> = ids.by_ref().take(checker.probes.len()).collect();
            for target in &targets {
                let users = self.users.entry(*target).or_default();
                if users.last() != Some(&checker.report) {
                    users.push(checker.report.clone());
                }
            }
            settled.push(targets);
        }
        settled
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
        let users = self.users_of(change.target);
        let (from, to) = (change.from.as_str(), change.to.as_str());
        if change.usable_changed {
            tracing::warn!(target, users, from, to, cause = ?outcome, "health verdict changed");
        } else {
            tracing::info!(target, users, from, to, cause = ?outcome, "health state changed");
        }
    }

    /// The resources and instances that a target decides about; the first few when there are many.
    fn users_of(&self, target: TargetId) -> String {
        let users = self.users.get(&target).map_or(&[][..], Vec::as_slice);
        let mut text = users
            .iter()
            .take(USERS_NAMED)
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        if users.len() > USERS_NAMED {
            text.push_str(&format!(" and {} more", users.len() - USERS_NAMED));
        }
        text
    }
}

/// A line of the log names no more users of a target than this.
const USERS_NAMED: usize = 8;
