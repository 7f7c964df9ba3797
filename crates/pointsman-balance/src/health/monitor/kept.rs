//! Health that outlives a process: what to write down, and how to take it in again.
//!
//! Ids, epochs and points in time mean nothing to another process, so what is kept of a target goes
//! by its definition: whoever keeps it turns that into a name that is the same after a restart. How
//! old is too old is the keeper's decision as well, for only it has a clock that both processes share.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

use super::{Monitor, Report};
use crate::TargetId;
use crate::health::effort;
use crate::health::state::State;
use crate::health::{CircuitState, Counters, GuardReport, GuardSpec, Policy, ProbeOutcome, Status};

/// What an earlier process knew about a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Its status.
    pub status: Status,
    /// The outcomes counted then.
    pub counters: Counters,
    /// The last outcome of a probe and when it was reported, as a time of this process.
    pub last: Option<(ProbeOutcome, Instant)>,
}

impl<P: Clone + Eq + Hash> Monitor<P> {
    /// Everything that is watched, by ascending id.
    #[must_use]
    pub fn export(&self) -> Vec<(TargetId, Report<'_, P>)> {
        let mut ids: Vec<TargetId> = self.targets.keys().copied().collect();
        ids.sort_unstable();
        let reported = |id| self.report(id).map(|report| (id, report));
        ids.into_iter().filter_map(reported).collect()
    }

    /// Gives targets the state that `known` tells of their definition, and returns those that took
    /// one. Meant for the first [`reconcile`](Self::reconcile) of a process, before any probe: a
    /// target that has evidence or a verdict of its own keeps that, however it looked before. All
    /// that is taken in is due for a probe as a new target is, at once.
    pub fn restore(&mut self, known: impl FnMut(&P, &Policy) -> Option<Kept>) -> Vec<TargetId> {
        let all: Vec<TargetId> = self.targets.keys().copied().collect();
        self.restore_those(&all, known)
    }

    /// The same for some, such as the addresses that [`regroup`](Self::regroup) found new.
    pub fn restore_those(
        &mut self,
        some: &[TargetId],
        mut known: impl FnMut(&P, &Policy) -> Option<Kept>,
    ) -> Vec<TargetId> {
        effort::spend(some.len());
        let mut restored = Vec::new();
        for &id in some {
            let Some(target) = self.targets.get_mut(&id) else {
                continue;
            };
            let untouched = target.last.is_none() && target.state == State::with_verdict(true);
            let definition = &target.definition;
            let kept = untouched
                .then(|| known(&definition.probe, &definition.policy))
                .flatten();
            if let Some(kept) = kept {
                target.state = State {
                    status: kept.status,
                    counters: kept.counters,
                };
                target.last = kept.last;
                // No attempt of this process began before.
                target.failed_at = (!kept.status.usable())
                    .then_some(kept.last)
                    .flatten()
                    .map(|(_, at)| at);
                restored.push(id);
            }
        }
        restored.sort_unstable();
        for &target in &restored {
            self.settle(target, Status::Healthy);
        }
        restored
    }

    /// Every guard and where it stands, by ascending id.
    #[must_use]
    pub fn export_guards(&self) -> Vec<(TargetId, Arc<GuardSpec>, GuardReport)> {
        let stands = |(id, spec)| Some((id, spec, self.guards.report(id)?));
        self.guards.specs().into_iter().filter_map(stands).collect()
    }

    /// Puts guards where `known` says that they stood, and returns those that went there. A guard that
    /// is not as at the start stays where it is. A circuit whose time has come asks for trials with
    /// the next [`tick`](Self::tick); how many of its trials had failed is not kept.
    pub fn restore_guards(
        &mut self,
        mut known: impl FnMut(&GuardSpec) -> Option<GuardReport>,
        now: Instant,
    ) -> Vec<TargetId> {
        let mut restored = Vec::new();
        for (id, spec, report) in self.export_guards() {
            if report.is_as_at_the_start()
                && let Some(kept) = known(&spec)
            {
                self.with_guard(id, |guards| guards.restore(id, kept, now));
                restored.push(id);
            }
        }
        restored
    }
}

impl GuardReport {
    /// Whether it keeps nobody out: neither cooling down nor open nor on trial.
    #[must_use]
    pub fn is_as_at_the_start(&self) -> bool {
        self.cools_until.is_none() && self.circuit == CircuitState::Closed
    }
}
