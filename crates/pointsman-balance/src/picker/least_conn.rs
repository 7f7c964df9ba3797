//! The member with the least to do for its weight.
//!
//! The score of a member is (1 + requests under way) / weight: its share of the work if it got this one,
//! too. The lowest wins; among equals it is the next in turn, so that an idle pool is used evenly. Scores
//! are compared by cross-multiplying whole numbers, exactly.
//!
//! A pick reads the counters as they are and then counts itself only if the winner's has not changed
//! meanwhile; otherwise it looks again. So two picks at the same moment do not take the same idle member.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::census::Eligible;
use super::{Candidate, Offer};
use crate::load::Gauge;

#[derive(Debug)]
pub(crate) struct LeastConn {
    /// Heaviest first: by rank.
    members: Box<[u32]>,
    seats: Box<[Seat]>,
    next: Next,
}

#[derive(Debug)]
struct Seat {
    gauge: Arc<Gauge>,
    /// At least 1.
    weight: u32,
}

/// The rank that is first among equals. On its own cache line, as it is written by every pick.
#[derive(Debug)]
#[repr(align(64))]
struct Next(AtomicUsize);

/// The best found so far.
#[derive(Debug, Clone, Copy)]
struct Best {
    rank: usize,
    in_flight: u32,
    weight: u32,
}

impl LeastConn {
    /// `candidates` are at least one, heaviest first; `gauges` are those of all members.
    pub(super) fn new(candidates: &[Candidate<'_>], gauges: &[Arc<Gauge>], start: u64) -> Self {
        let seat = |candidate: &Candidate<'_>| Seat {
            gauge: Arc::clone(&gauges[candidate.member]),
            weight: candidate.weight,
        };
        Self {
            members: candidates
                .iter()
                .map(|candidate| candidate.member as u32)
                .collect(),
            seats: candidates.iter().map(seat).collect(),
            next: Next(AtomicUsize::new((start % candidates.len() as u64) as usize)),
        }
    }

    pub(super) fn members(&self) -> &[u32] {
        &self.members
    }

    pub(super) fn share(&mut self, gauges: &[Arc<Gauge>]) {
        for (seat, &member) in self.seats.iter_mut().zip(&self.members) {
            seat.gauge = Arc::clone(&gauges[member as usize]);
        }
    }

    pub(super) fn pick(&self, eligible: &impl Eligible) -> Option<Offer> {
        loop {
            let first = self.next.0.load(Ordering::Relaxed);
            let best = match eligible.few() {
                Some(few) => self.best_of(few, first),
                None => self.best(eligible, first),
            }?;
            // A failure means that another pick or release came to its end: somebody always gets on.
            let Some(hold) = self.seats[best.rank].gauge.hold_if(best.in_flight) else {
                continue;
            };
            let next = best.rank + 1;
            let next = if next == self.seats.len() { 0 } else { next };
            self.next.0.store(next, Ordering::Relaxed);
            return Some(Offer {
                member: self.members[best.rank] as usize,
                hold: Some(hold),
            });
        }
    }

    /// Looks at one after the other, `first` first. Only who would be the best is tested.
    fn best(&self, eligible: &impl Eligible, first: usize) -> Option<Best> {
        let heaviest = self.seats[0].weight;
        let mut best = Best::NOBODY;
        for ranks in [first..self.seats.len(), 0..first] {
            for (rank, seat) in ranks.clone().zip(&self.seats[ranks]) {
                let candidate = seat.candidate(rank);
                if candidate.is_below(&best) && eligible.contains(rank) {
                    best = candidate;
                    // Nobody can have less to do for more weight.
                    if best.in_flight == 0 && best.weight == heaviest {
                        return Some(best);
                    }
                }
            }
        }
        (best.weight > 0).then_some(best)
    }

    /// The same among `few`, whose order does not matter.
    fn best_of(&self, few: &[u32], first: usize) -> Option<Best> {
        let turn = |rank: usize| (rank < first, rank);
        few.iter()
            .map(|&rank| self.seats[rank as usize].candidate(rank as usize))
            .reduce(|best, other| {
                let is_equal = !best.is_below(&other);
                if other.is_below(&best) || (is_equal && turn(other.rank) < turn(best.rank)) {
                    other
                } else {
                    best
                }
            })
    }
}

impl Seat {
    #[inline]
    fn candidate(&self, rank: usize) -> Best {
        Best {
            rank,
            in_flight: self.gauge.in_flight(),
            weight: self.weight,
        }
    }
}

impl Best {
    /// Every other score is lower.
    const NOBODY: Self = Self {
        rank: 0,
        in_flight: 0,
        weight: 0,
    };

    /// Whether its score is lower.
    #[inline]
    fn is_below(&self, other: &Self) -> bool {
        let product =
            |one: &Self, other: &Self| (1 + u64::from(one.in_flight)) * u64::from(other.weight);
        product(self, other) < product(other, self)
    }
}
