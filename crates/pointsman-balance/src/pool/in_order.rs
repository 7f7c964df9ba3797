//! A pick where the request itself says who suits it best.
//!
//! Weights and priorities have no say here: the order does. Everything else is as in
//! [`Pool::pick`]: the verdicts in force, what was tried, trials of half-open circuits, and the one
//! rule for the case that nobody is usable.

use super::{Ask, Exhausted, Picked, Pool};
use crate::{Availability, Trial};

impl Pool {
    /// Picks the first member of `order` that is usable and untried. Members that are not in it are not
    /// offered; numbers that no member has are passed over. Lock-free; does not allocate.
    ///
    /// Unusable members are offered, in the same order, iff no member of the whole pool is usable
    /// (fail-open); neither `order` nor what was tried enters that test.
    ///
    /// # Errors
    ///
    /// If everything in `order` that may be offered was tried, or nothing in it may be.
    pub fn pick_in_order(
        &self,
        order: &[usize],
        ask: &Ask<'_>,
        availability: &Availability,
    ) -> Result<Picked, Exhausted> {
        let untried = |member: usize| member < self.len() && !ask.tried.contains(member);
        let usable = |member: usize| member < self.len() && self.usable(member, availability);
        let picked = |member, failed_open, trial: Option<Trial>| Picked {
            member,
            epoch: availability.epoch(),
            failed_open,
            trial_of: trial.as_ref().map(Trial::guard),
            trial,
            hold: self.offer(member).hold,
            decision: None,
        };
        let may_try = self.may_try(ask, availability);
        let trial = |members: &[usize]| {
            let claim = |&member: &usize| Some((member, self.claim(member, availability)?));
            members.iter().find_map(claim)
        };
        let offer = (order.iter()).position(|&member| untried(member) && usable(member));
        if let Some(at) = offer {
            // As in `pick`: only the first attempt of a request may be a trial, and only of a member
            // whose turn would have come before the one on offer.
            if may_try && let Some((member, trial)) = trial(&order[..at]) {
                return Ok(picked(member, false, Some(trial)));
            }
            return Ok(picked(order[at], false, None));
        }
        let fails_open = !self.any_usable(availability);
        if fails_open
            && may_try
            && let Some((member, trial)) = trial(order)
        {
            return Ok(picked(member, true, Some(trial)));
        }
        if fails_open && let Some(&member) = order.iter().find(|&&member| untried(member)) {
            return Ok(picked(member, true, None));
        }
        let may_be_offered =
            |&member: &usize| usable(member) || (fails_open && member < self.len());
        Err(if order.iter().any(may_be_offered) {
            Exhausted::AllTried
        } else {
            Exhausted::NothingToPick
        })
    }
}
