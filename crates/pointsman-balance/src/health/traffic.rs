//! What traffic tells the monitor: outcomes of requests, waits that were asked for, failing circuits.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

use super::availability::Comeback;
use super::guard::{CircuitState, GuardReport, GuardSpec, Tally, Trial};
use super::monitor::{Change, Monitor};
use super::policy::{Passive, ProbeOutcome};
use super::state::Status;
use crate::TargetId;

impl<P: Clone + Eq + Hash> Monitor<P> {
    /// Takes the outcome of a request that went to a target and began at `began`, under the passive
    /// checks of whoever sent it. Returns the change if the target's status is another now.
    ///
    /// A success that began before the latest failure has no effect, nor has anything about a target
    /// that is not watched any more.
    pub fn on_traffic(
        &mut self,
        target: TargetId,
        outcome: ProbeOutcome,
        passive: &Passive,
        began: Instant,
        now: Instant,
    ) -> Option<Change> {
        let signal = passive.signal(outcome)?;
        let watched = self.targets.get_mut(&target)?;
        let from = watched.apply(Some(signal), &passive.limits, outcome, began, now);
        let interval = watched.interval();
        let change = self.settle(target, from)?;
        // The next probe was dated by what the target was before.
        if change.usable_changed {
            self.schedule.hasten(target, interval, now);
        }
        Some(change)
    }

    /// The guard for `spec`, made if there is none: usable and closed, then, unless it takes the place of a
    /// circuit of the same key that is not. Equal specifications share one. The availability that knows it must be published before a pool that uses it.
    ///
    /// Keeps it until the second [`sweep_guards`](Self::sweep_guards) from now, so that a configuration is
    /// compiled between two of those.
    pub fn guard(&mut self, spec: GuardSpec, now: Instant) -> (TargetId, Option<Arc<Tally>>) {
        let id = match self.guards.find(&spec) {
            Some(id) => id,
            None => {
                let id = self.issue();
                self.guards.add(id, spec, now);
                // Membership has changed, and the ids that may be asked for.
                self.publish([(id, true)]);
                self.inherit_circuit(id, now);
                id
            }
        };
        (id, self.guards.tally(id))
    }

    /// Opens the circuits that take the place of others, with other settings, if those were opened since
    /// they were asked for. To be called before the configuration that has them is in force.
    pub fn inherit_circuits(&mut self, now: Instant) {
        for heir in self.guards.heirs() {
            self.inherit_circuit(heir, now);
        }
    }

    fn inherit_circuit(&mut self, heir: TargetId, now: Instant) {
        if let Some(before) = self.guards.inheritance(heir) {
            // Another setting is no reason to go back to who fails.
            self.with_guard(heir, |guards| guards.inherit(heir, before, now));
            self.inherited.push(heir);
        }
    }

    /// Forgets the guards that nobody asked for since the last call, and the gates that nobody has. Their last verdict stays visible.
    pub fn sweep_guards(&mut self) {
        let unwanted = self.guards.sweep();
        self.sweep_gates();
        self.settle_gates(unwanted);
        self.forget_comebacks();
    }

    /// Keeps members behind `guard` out until then; a deadline only ever moves further away. Returns the
    /// change if they could be picked before.
    pub fn cool_down(&mut self, guard: TargetId, until: Instant, now: Instant) -> Option<Change> {
        self.with_guard(guard, |guards| guards.cool_down(guard, until, now))
    }

    /// Opens the circuit of `guard`, if it is closed. Returns the change if members behind it could be
    /// picked before.
    pub fn trip(&mut self, guard: TargetId, now: Instant) -> Option<Change> {
        self.with_guard(guard, |guards| guards.trip(guard, now))
    }

    /// Takes the outcome of a trial: as many successes as its circuit needs close it, a failure opens it
    /// again for longer. A trial of an earlier period has no effect, and nothing but trials decides: an
    /// attempt that was made because nobody was usable may be much older than this period.
    pub fn on_trial(&mut self, trial: &Trial, succeeded: bool, now: Instant) -> Option<Change> {
        self.with_guard(trial.guard(), |guards| {
            guards.on_trial(trial, succeeded, now);
        })
    }

    /// Ends the cool-downs and opens the circuits to trials whose time has come. Returns the guards
    /// whose members may be picked again.
    pub fn tick(&mut self, now: Instant) -> Vec<Change> {
        let ended = self.guards.tick(now);
        let mut changes = Vec::new();
        for guard in ended {
            changes.extend(self.settle_guard(guard));
            self.expect_guard(guard);
            self.settle_gates([guard]);
        }
        changes
    }

    /// Where a guard stands; `None` if there is no such guard any more.
    #[must_use]
    pub fn guard_report(&self, guard: TargetId) -> Option<GuardReport> {
        self.guards.report(guard)
    }

    pub(super) fn with_guard(
        &mut self,
        guard: TargetId,
        change: impl FnOnce(&mut super::guard::Guards),
    ) -> Option<Change> {
        change(&mut self.guards);
        let change = self.settle_guard(guard);
        self.expect_guard(guard);
        self.settle_gates([guard]);
        change
    }

    /// Publishes the verdict of a guard, if it is another than was published.
    fn settle_guard(&mut self, guard: TargetId) -> Option<Change> {
        let usable = self.guards.usable(guard);
        if self.guards.report(guard).is_none() || self.availability.usable(guard) == usable {
            return None;
        }
        self.publish([(guard, usable)]);
        let status = |usable| match usable {
            true => Status::Healthy,
            false => Status::Unhealthy,
        };
        Some(Change {
            target: guard,
            from: status(!usable),
            to: status(usable),
            usable_changed: true,
        })
    }

    /// Publishes when members behind a guard may be picked again.
    fn expect_guard(&mut self, guard: TargetId) {
        let Some(report) = self.guards.report(guard) else {
            return;
        };
        let opens = match report.circuit {
            CircuitState::Open(until) => Some(until),
            CircuitState::Closed | CircuitState::HalfOpen => None,
        };
        let at = report.cools_until.max(opens);
        if at != self.guards.expected(guard) {
            self.guards.expect(guard, at);
            let comeback = at.map(Comeback::At);
            self.writable().expect(guard, comeback);
        }
    }
}
