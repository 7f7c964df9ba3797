//! Attempts at members whose circuit is half open.

use super::{Ask, Pool};
use crate::health::HalfOpen;
use crate::picker::Stage;
use crate::{Availability, TargetId, Trial};

impl Pool {
    /// A member of the first `stages` to be tried in place of the one that they offer: one whose circuit asks for it,
    /// that nothing else keeps out, and whose turn comes no later. Only a request's first attempt may be a trial, so that it has not
    /// used up its retries.
    #[inline]
    pub(super) fn trial(
        &self,
        stages: usize,
        ask: &Ask<'_>,
        availability: &Availability,
    ) -> Option<(usize, Trial)> {
        if availability.half_open().is_empty() || !ask.tried.is_empty() {
            return None;
        }
        let no_later = || self.stages[..stages].iter().flat_map(Stage::members);
        self.claim_trial(no_later, availability)
    }

    /// The first of `members` whose circuit asks to be tried and that nothing else keeps out.
    #[cold]
    pub(super) fn claim_trial<M: Iterator<Item = usize>>(
        &self,
        members: impl Fn() -> M,
        availability: &Availability,
    ) -> Option<(usize, Trial)> {
        for asking in availability.half_open() {
            let fits = |&member: &usize| self.fits_trial(member, asking.guard, availability);
            if !asking.is_claimed()
                && let Some(member) = members().find(fits)
                && let Some(trial) = HalfOpen::claim(asking)
            {
                return Some((member, trial));
            }
        }
        None
    }

    /// Whether nothing but the circuit `tried` keeps a member out.
    pub(super) fn fits_trial(
        &self,
        member: usize,
        tried: TargetId,
        availability: &Availability,
    ) -> bool {
        let Some(guards) = &self.guards else {
            return false;
        };
        let mut others = guards[member].iter().filter(|guard| **guard != tried);
        guards[member].contains(&tried)
            && self.members[member].gate.usable(availability)
            && others.all(|&guard| availability.usable(guard))
    }
}
