//! One verdict for a member that its targets do not decide about alone.
//!
//! A *gate* stands for targets and guards together: it is usable iff any of its targets is (or it has none)
//! and all of its guards are. It has an id among those of targets, and its verdict is worked out and
//! published with those of its parts. So a pick asks for one bit, whether a member has guards or not.
//!
//! A gate that is shut by nothing but one half-open circuit *asks for a trial*; that is published, too.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use super::availability::Availability;
use super::effort;
use super::monitor::Monitor;
use crate::TargetId;

/// What stands before a member with guards. [`Monitor::gate`] makes one.
#[derive(Debug, PartialEq, Eq)]
pub struct Gate {
    id: TargetId,
    parts: Parts,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Parts {
    targets: Box<[TargetId]>,
    guards: Box<[TargetId]>,
}

/// All gates of a process.
#[derive(Debug, Default)]
pub(super) struct Gates {
    by_parts: HashMap<Parts, Arc<Gate>>,
    by_id: HashMap<TargetId, Arc<Gate>>,
    /// The gates that a target, a group or a guard is part of.
    of: HashMap<TargetId, BTreeSet<TargetId>>,
}

impl Gate {
    /// Where its verdict stands.
    #[must_use]
    pub const fn id(&self) -> TargetId {
        self.id
    }

    /// Its id as a row of one, as members without guards have their targets.
    pub(crate) const fn verdict(&self) -> &[TargetId] {
        std::slice::from_ref(&self.id)
    }

    /// Any of these must be usable, if there are any.
    #[must_use]
    pub const fn targets(&self) -> &[TargetId] {
        &self.parts.targets
    }

    /// All of these must be usable.
    #[must_use]
    pub const fn guards(&self) -> &[TargetId] {
        &self.parts.guards
    }

    fn has_usable_target(&self, availability: &Availability) -> bool {
        let mut targets = self.parts.targets.iter();
        targets.len() == 0 || targets.any(|&target| availability.usable(target))
    }

    /// The guards that are not usable.
    fn shut(&self, availability: &Availability) -> impl Iterator<Item = TargetId> {
        let guards = self.parts.guards.iter().copied();
        guards.filter(|&guard| !availability.usable(guard))
    }

    pub(super) fn usable(&self, availability: &Availability) -> bool {
        self.has_usable_target(availability) && self.shut(availability).next().is_none()
    }

    /// The one guard that keeps it shut, if nothing else does.
    fn shut_by(&self, availability: &Availability) -> Option<TargetId> {
        let mut shut = self.shut(availability);
        let only = shut.next()?;
        (shut.next().is_none() && self.has_usable_target(availability)).then_some(only)
    }
}

impl Gates {
    fn add(&mut self, gate: &Arc<Gate>) {
        for &part in gate.targets().iter().chain(gate.guards()) {
            self.of.entry(part).or_default().insert(gate.id);
        }
        self.by_parts.insert(gate.parts.clone(), Arc::clone(gate));
        self.by_id.insert(gate.id, Arc::clone(gate));
    }

    /// Forgets the gates that no pool has, and returns those.
    fn sweep(&mut self) -> Vec<Arc<Gate>> {
        // Both maps have it, and only their owner could give out another.
        let is_used = |gate: &Arc<Gate>| Arc::strong_count(gate) > 2;
        let unused: Vec<Arc<Gate>> = (self.by_id.values())
            .filter(|gate| !is_used(gate))
            .cloned()
            .collect();
        for gate in &unused {
            self.by_id.remove(&gate.id);
            self.by_parts.remove(&gate.parts);
            for part in gate.targets().iter().chain(gate.guards()) {
                if let Some(gates) = self.of.get_mut(part) {
                    gates.remove(&gate.id);
                    if gates.is_empty() {
                        self.of.remove(part);
                    }
                }
            }
        }
        unused
    }

    fn of(&self, part: TargetId) -> impl Iterator<Item = TargetId> {
        self.of.get(&part).into_iter().flatten().copied()
    }
}

impl<P: Clone + Eq + Hash> Monitor<P> {
    /// The gate of members that have these `targets` and `guards`, made if there is none: equal ones are
    /// one. The availability that knows it must be published before a pool that uses it.
    ///
    /// It is kept as long as somebody has it, and its verdict follows those of its parts as long as it is
    /// kept: pools of an old configuration see the truth, too.
    ///
    /// # Panics
    ///
    /// After four billion targets in the life of the process.
    pub fn gate(&mut self, targets: &[TargetId], guards: Vec<TargetId>) -> Arc<Gate> {
        let parts = Parts {
            targets: targets.into(),
            guards: guards.into(),
        };
        if let Some(gate) = self.gates.by_parts.get(&parts) {
            return Arc::clone(gate);
        }
        let id = self.issue();
        let gate = Arc::new(Gate { id, parts });
        self.gates.add(&gate);
        // Membership has changed, and the ids that may be asked for.
        self.publish([(id, gate.usable(&self.availability))]);
        self.settle_gate(id);
        gate
    }

    pub(super) fn sweep_gates(&mut self) {
        for gate in self.gates.sweep() {
            // Nobody can make its trial any more, and every pick would go on looking for one that is asked for.
            if self.availability.asks(gate.id).is_some() {
                let usable = self.availability.usable(gate.id);
                self.writable().settle_gate(gate.id, usable, None);
            }
        }
    }

    /// Publishes what has become of the gates that `parts` belong to.
    pub(super) fn settle_gates(&mut self, parts: impl IntoIterator<Item = TargetId>) {
        let parts = parts.into_iter();
        let concerned: BTreeSet<TargetId> = parts.flat_map(|part| self.gates.of(part)).collect();
        for gate in concerned {
            self.settle_gate(gate);
        }
    }

    fn settle_gate(&mut self, id: TargetId) {
        effort::spend(1);
        let Some(gate) = self.gates.by_id.get(&id) else {
            return;
        };
        let before = &self.availability;
        let usable = gate.usable(before);
        let asks = gate
            .shut_by(before)
            .and_then(|guard| self.guards.half_open(guard));
        let is_same = match (&asks, before.asks(id)) {
            (Some(now), Some(before)) => now.is(before),
            (None, None) => true,
            _ => false,
        };
        if before.usable(id) != usable || !is_same {
            let availability = self.writable();
            availability.settle_gate(id, usable, asks);
        }
    }
}
