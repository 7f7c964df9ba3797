//! Attempts at members whose circuit is half open.

use super::{Ask, Pool};
use crate::{Availability, Trial, decision::Source, picker::Stage};

impl Pool {
    /// A member of the first `stages` to be tried in place of the one that they offer: one whose gate asks for
    /// it, and whose turn comes no later. Only a request's first attempt may be a trial, so that it has not
    /// used up its retries. On a hash ring it must be the one that the key belongs to (I-20): nobody else's
    /// sessions move.
    #[inline]
    pub(super) fn trial(
        &self,
        stages: usize,
        ask: &Ask<'_>,
        source: impl Source,
        availability: &Availability,
    ) -> Option<(usize, Trial)> {
        if self.may_try(ask, availability) {
            self.trial_in(stages, ask, source, availability)
        } else {
            None
        }
    }

    /// Whether a pick needs to look for trials at all.
    #[inline]
    pub(super) fn may_try(&self, ask: &Ask<'_>, availability: &Availability) -> bool {
        !self.gates.is_empty() && availability.has_asking() && ask.tried.is_empty()
    }

    fn trial_in(
        &self,
        stages: usize,
        ask: &Ask<'_>,
        source: impl Source,
        availability: &Availability,
    ) -> Option<(usize, Trial)> {
        self.stages[..stages].iter().find_map(|stage| {
            let mut asking = (stage.asking(availability))
                .filter(|member| !ask.tried.contains(*member))
                .peekable();
            asking.peek()?;
            if stage.is_ring() {
                let owner = self.owner(stage, ask, source, availability)?;
                return Some((owner, self.claim(owner, availability)?));
            }
            asking.find_map(|member| Some((member, self.claim(member, availability)?)))
        })
    }

    /// Whom a key belongs to if those who ask for trials count as usable.
    fn owner(
        &self,
        stage: &Stage,
        ask: &Ask<'_>,
        source: impl Source,
        availability: &Availability,
    ) -> Option<usize> {
        let may_own = |member| {
            !ask.tried.contains(member)
                && (self.usable(member, availability) || self.asks(member, availability))
        };
        Some(stage.pick(ask, source, may_own)?.member)
    }

    /// Whether a member's gate asks for a trial that may be had.
    fn asks(&self, member: usize, availability: &Availability) -> bool {
        self.gate(member).is_some_and(|gate| {
            let (word, bit) = Availability::place(gate.id());
            availability.asking_among(word, bit) != 0
        })
    }

    /// The trial of a member, if its gate asks for one and nobody has it.
    pub(super) fn claim(&self, member: usize, availability: &Availability) -> Option<Trial> {
        availability.claim(self.gate(member)?.id())
    }
}
