//! Attempts at members whose circuit is half open.

use super::{Ask, Pool};
use crate::{Availability, Trial};

impl Pool {
    /// A member of the first `stages` to be tried in place of the one that they offer: one whose gate asks for
    /// it, and whose turn comes no later. Only a request's first attempt may be a trial, so that it has not
    /// used up its retries.
    #[inline]
    pub(super) fn trial(
        &self,
        stages: usize,
        ask: &Ask<'_>,
        availability: &Availability,
    ) -> Option<(usize, Trial)> {
        if self.may_try(ask, availability) {
            self.trial_in(stages, availability)
        } else {
            None
        }
    }

    /// Whether a pick needs to look for trials at all.
    #[inline]
    pub(super) fn may_try(&self, ask: &Ask<'_>, availability: &Availability) -> bool {
        !self.gates.is_empty() && availability.has_asking() && ask.tried.is_empty()
    }

    fn trial_in(&self, stages: usize, availability: &Availability) -> Option<(usize, Trial)> {
        let mut asking = self.stages[..stages]
            .iter()
            .flat_map(|stage| stage.asking(availability));
        asking.find_map(|member| Some((member, self.claim(member, availability)?)))
    }

    /// The trial of a member, if its gate asks for one and nobody has it.
    pub(super) fn claim(&self, member: usize, availability: &Availability) -> Option<Trial> {
        availability.claim(self.gate(member)?.id())
    }
}
