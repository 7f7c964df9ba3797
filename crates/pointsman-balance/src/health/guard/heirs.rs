//! Circuits that take the place of others: those of the same key with other settings.

use std::time::Instant;

use super::{Circuit, CircuitState, GuardReport, Guards};
use crate::TargetId;

impl Guards {
    /// Where the circuit stands that `id` takes the place of, with other settings; `None`: there is none, or
    /// it is closed, or `id` is not.
    pub(in super::super) fn inheritance(&self, id: TargetId) -> Option<GuardReport> {
        let heir = self.by_id.get(&id)?;
        let before = self.report(heir.heir_of?)?;
        let is_news = matches!(heir.circuit, Circuit::Closed);
        (is_news && before.circuit != CircuitState::Closed).then_some(before)
    }

    /// Those that take the place of others and are not in force yet.
    pub(in super::super) fn heirs(&self) -> Vec<TargetId> {
        let heirs = self
            .by_id
            .iter()
            .filter(|(_, guard)| guard.heir_of.is_some());
        let mut heirs: Vec<TargetId> = heirs.map(|(&id, _)| id).collect();
        heirs.sort_unstable();
        heirs
    }

    /// Puts it where the circuit `before` stood that it takes the place of. How often trials of that failed in
    /// a row goes on, too, so that the next wait is no shorter for a change of settings.
    pub(in super::super) fn inherit(&mut self, id: TargetId, before: GuardReport, now: Instant) {
        let heir_of = self.by_id.get(&id).and_then(|heir| heir.heir_of);
        let before_it = heir_of.and_then(|before| self.by_id.get(&before));
        let had_failed = before_it.map_or(0, |guard| guard.circuit.failed());
        self.restore(id, before, now);
        if let Some(guard) = self.by_id.get_mut(&id)
            && let Circuit::Open { failed, .. } | Circuit::HalfOpen { failed, .. } =
                &mut guard.circuit
        {
            *failed = had_failed;
        }
    }
}

impl Circuit {
    /// How many trials in a row failed before.
    const fn failed(&self) -> u32 {
        match self {
            Self::Closed => 0,
            Self::Open { failed, .. } | Self::HalfOpen { failed, .. } => *failed,
        }
    }
}
