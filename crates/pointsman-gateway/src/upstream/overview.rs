//! What is known of all that is checked, at one moment: a copy, to be looked at while health goes on.
//!
//! Reports and metrics about thousands of targets take milliseconds to write. Verdicts must not wait for
//! that, so what they need is copied while health is locked, and the rest is done without it.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use pointsman_balance::{Availability, Counters, GuardReport, ProbeOutcome, Status, TargetId};

use super::health::{ProbeSpec, ReportName};

/// The copy.
pub struct Overview {
    /// The verdicts.
    pub availability: Arc<Availability>,
    /// What is probed, by ascending id.
    pub targets: Vec<Target>,
    /// What keeps members out because of their own traffic, by ascending id.
    pub guards: Vec<Guard>,
    /// How often verdicts changed, by `host:port` or the name of a guard, and whether that may be picked
    /// since.
    pub(super) changes: BTreeMap<(String, bool), u64>,
}

/// What is known of one target.
pub struct Target {
    /// Its id.
    pub id: TargetId,
    /// Its status.
    pub status: Status,
    /// The outcomes counted at present.
    pub counters: Counters,
    /// The last outcome of a probe and when it was known.
    pub last: Option<(ProbeOutcome, Instant)>,
    /// What is probed.
    pub probe: Arc<ProbeSpec>,
    /// When it is probed next; `None` while that is under way.
    pub next_probe: Option<Instant>,
    /// The resources and instances whose traffic it decides about.
    pub used_by: Arc<[ReportName]>,
    /// The names behind which it stands.
    pub groups: Vec<TargetId>,
}

/// What is known of one guard.
pub struct Guard {
    /// Its id.
    pub id: TargetId,
    /// What the log calls it.
    pub name: Arc<str>,
    /// Where it stands.
    pub report: GuardReport,
}

impl Overview {
    /// What is known of `target`; `None` if it is not watched any more.
    pub fn target(&self, target: TargetId) -> Option<&Target> {
        let place = self.targets.binary_search_by_key(&target, |seen| seen.id);
        place.ok().map(|place| &self.targets[place])
    }

    /// How often verdicts changed; everything that is watched is there from the start.
    pub fn changes(&self) -> BTreeMap<(String, bool), u64> {
        let mut counts = self.changes.clone();
        let watched = self.targets.iter().map(|target| target.probe.address());
        for name in watched.chain(self.guards.iter().map(|guard| guard.name.to_string())) {
            counts.entry((name.clone(), true)).or_default();
            counts.entry((name, false)).or_default();
        }
        counts
    }
}
