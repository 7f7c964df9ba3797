//! The member with the least to do for its weight.
//!
//! The score of a member is (1 + requests under way) / weight: its share of the work if it got this one,
//! too. The lowest wins; among equals it is the next in turn, so that an idle pool is used evenly. Scores
//! are compared by cross-multiplying whole numbers, exactly.
//!
//! A pick reads the counters as they are and then counts itself only if the winner's has not changed
//! meanwhile; otherwise it looks again. So two picks at the same moment do not take the same idle member.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::census::{Eligible, Ranks, Usable, ones};
use super::{Candidate, Offer};
use crate::decision::{Decision, NOTED_MAX};
use crate::load::{Gauge, Hold};
use crate::sync::AtomicUsize;

#[derive(Debug)]
pub(crate) struct LeastConn {
    /// By rank.
    members: Box<[u32]>,
    /// By rank: so that usable ones are found by words of verdicts.
    seats: Box<[Seat]>,
    /// Heaviest first, then by name: as loads go by weight, a search that begins there seldom finds anybody better.
    by_weight: Box<[Seat]>,
    next: Next,
}

#[derive(Debug)]
struct Seat {
    gauge: Arc<Gauge>,
    /// At least 1.
    weight: u32,
    /// Its place in the other order.
    place: u16,
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
    /// It stands here out of turn, and whoever has as little to do takes its place.
    is_bound: bool,
}

/// A score, ready to be compared with many.
#[derive(Debug, Clone, Copy)]
struct Bound {
    requests: u64,
    weight: u64,
    /// 1 if an equal score will do.
    slack: u64,
}

impl LeastConn {
    /// `candidates` are at least one, in any order; `gauges` are those of all members.
    pub(super) fn new(candidates: &[Candidate<'_>], gauges: &[Arc<Gauge>], start: u64) -> Self {
        let mut heaviest_first: Vec<u16> = (0..candidates.len()).map(|rank| rank as u16).collect();
        heaviest_first.sort_by_key(|&rank| {
            let candidate = &candidates[usize::from(rank)];
            (Reverse(candidate.weight), candidate.name)
        });
        let mut places = vec![0; candidates.len()];
        for (place, &rank) in (0..).zip(&heaviest_first) {
            places[usize::from(rank)] = place;
        }
        let seat = |rank: usize, place: u16| Seat {
            gauge: Arc::clone(&gauges[candidates[rank].member]),
            weight: candidates[rank].weight,
            place,
        };
        let heavy = heaviest_first.iter().map(|&rank| seat(rank.into(), rank));
        let seats = (0..).zip(&places).map(|(rank, &place)| seat(rank, place));
        Self {
            members: candidates
                .iter()
                .map(|candidate| candidate.member as u32)
                .collect(),
            seats: seats.collect(),
            by_weight: heavy.collect(),
            next: Next(AtomicUsize::new((start % candidates.len() as u64) as usize)),
        }
    }

    pub(super) fn members(&self) -> &[u32] {
        &self.members
    }

    pub(super) fn share(&mut self, gauges: &[Arc<Gauge>]) {
        for (seat, &member) in self.seats.iter_mut().zip(&self.members) {
            seat.gauge = Arc::clone(&gauges[member as usize]);
            self.by_weight[usize::from(seat.place)].gauge = Arc::clone(&seat.gauge);
        }
    }

    pub(super) fn pick(&self, eligible: &impl Eligible) -> Option<Offer> {
        loop {
            let first = self.next.0.load(Ordering::Relaxed);
            let best = match (eligible.few(), eligible.usable()) {
                (Some(few), _) => self.best_of(few, first),
                (None, Some(usable)) if usable.lacks_many() => {
                    self.best_usable(usable, eligible, first)
                }
                (None, _) => self.best(eligible, first),
            }?;
            // A failure means that another pick or release came to its end: somebody always gets on.
            if let Some(hold) = self.take(best) {
                return Some(self.offer(best, hold));
            }
        }
    }

    /// The same, by counts that are written down first: in the order of weights, which is the same in every
    /// process.
    #[cold]
    pub(super) fn pick_noted(&self, eligible: &impl Eligible) -> Option<Offer> {
        if self.seats.len() > NOTED_MAX {
            return self.pick(eligible);
        }
        loop {
            let first = self.next.0.load(Ordering::Relaxed);
            let first = usize::from(self.seats[first].place);
            let counts: Box<[u32]> = (self.by_weight.iter())
                .map(|seat| seat.gauge.in_flight())
                .collect();
            let best = self.best_by_weight(eligible, first, |place, _| counts[place])?;
            if let Some(hold) = self.take(best) {
                let first = first as u32;
                return Some(Offer {
                    decision: Some(Decision::InFlight { first, counts }),
                    ..self.offer(best, hold)
                });
            }
        }
    }

    /// Whom a pick takes that finds these `counts`, and `first` first among equals. Counts nothing.
    pub(super) fn at(&self, first: u32, counts: &[u32], eligible: &impl Eligible) -> Option<usize> {
        let first = first as usize;
        if counts.len() != self.by_weight.len() || first >= counts.len() {
            return None;
        }
        let best = self.best_by_weight(eligible, first, |place, _| counts[place])?;
        Some(self.members[best.rank] as usize)
    }

    /// Members in the order of [`Decision::InFlight`].
    pub(super) fn by_weight(&self) -> impl Iterator<Item = u32> {
        let places = self.by_weight.iter();
        places.map(|seat| self.members[usize::from(seat.place)])
    }

    /// Counts one more for `best`, unless its count has changed since.
    #[inline]
    fn take(&self, best: Best) -> Option<Hold> {
        let hold = self.seats[best.rank].gauge.hold_if(best.in_flight)?;
        let next = best.rank + 1;
        let next = if next == self.seats.len() { 0 } else { next };
        self.next.0.store(next, Ordering::Relaxed);
        Some(hold)
    }

    fn offer(&self, best: Best, hold: Hold) -> Offer {
        Offer {
            member: self.members[best.rank] as usize,
            hold: Some(hold),
            decision: None,
        }
    }

    /// Looks at one after the other, `first` first. Only who would be the best is tested.
    fn best(&self, eligible: &impl Eligible, first: usize) -> Option<Best> {
        let first = usize::from(self.seats[first].place);
        self.best_by_weight(eligible, first, |_, seat| seat.gauge.in_flight())
    }

    /// The same, from a place in the order of weights, by counts that are given.
    #[inline]
    fn best_by_weight(
        &self,
        eligible: &impl Eligible,
        first: usize,
        in_flight: impl Fn(usize, &Seat) -> u32,
    ) -> Option<Best> {
        let mut best = Best::NOBODY;
        let mut bound = best.bound();
        for places in [first..self.by_weight.len(), 0..first] {
            let start = places.start;
            for (at, seat) in self.by_weight[places].iter().enumerate() {
                let in_flight = in_flight(start + at, seat);
                if bound.is_above(in_flight, seat.weight) {
                    let rank = usize::from(seat.place);
                    if eligible.contains(rank) {
                        best = seat.with(rank, in_flight);
                        if self.is_unbeatable(&best) {
                            return Some(best);
                        }
                        bound = best.bound();
                    }
                }
            }
        }
        best.is_anybody()
    }

    /// The same among those who are usable, by words of verdicts: so that those who are not, and have
    /// nothing to do, are not looked at.
    fn best_usable(
        &self,
        usable: Usable<'_>,
        eligible: &impl Eligible,
        first: usize,
    ) -> Option<Best> {
        let mut best = self.bound(eligible);
        for ranks in [first..self.seats.len(), 0..first] {
            for ranks in usable.among(ranks) {
                best = match ranks {
                    Ranks::All(ranks) => self.best_in(ranks, eligible, best),
                    Ranks::Some(ranks, bits) => {
                        let ranks = ones(bits).map(|bit| usize::from(ranks[bit as usize]));
                        self.best_in(ranks, eligible, best)
                    }
                };
                if self.is_unbeatable(&best) {
                    return Some(best);
                }
            }
        }
        best.is_anybody()
    }

    /// Somebody heavy to begin with, as a bound: this order knows no weights.
    fn bound(&self, eligible: &impl Eligible) -> Best {
        let mut heaviest = self.by_weight.iter().map(|seat| usize::from(seat.place));
        let heavy = heaviest.find(|&rank| eligible.contains(rank));
        heavy.map_or(Best::NOBODY, |rank| Best {
            is_bound: true,
            ..self.seats[rank].candidate(rank)
        })
    }

    /// The better one of `best` and the best among `ranks`.
    #[inline]
    fn best_in(
        &self,
        ranks: impl Iterator<Item = usize>,
        eligible: &impl Eligible,
        mut best: Best,
    ) -> Best {
        let mut bound = best.bound();
        for rank in ranks {
            let seat = &self.seats[rank];
            let in_flight = seat.gauge.in_flight();
            if bound.is_above(in_flight, seat.weight) && eligible.contains(rank) {
                best = seat.with(rank, in_flight);
                if self.is_unbeatable(&best) {
                    break;
                }
                bound = best.bound();
            }
        }
        best
    }

    /// Whether nobody can have less to do for more weight.
    fn is_unbeatable(&self, best: &Best) -> bool {
        best.in_flight == 0 && best.weight == self.by_weight[0].weight && !best.is_bound
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
        self.with(rank, self.gauge.in_flight())
    }

    #[inline]
    fn with(&self, rank: usize, in_flight: u32) -> Best {
        Best {
            rank,
            in_flight,
            weight: self.weight,
            is_bound: false,
        }
    }
}

impl Best {
    /// Every other score is lower.
    const NOBODY: Self = Self {
        rank: 0,
        in_flight: 0,
        weight: 0,
        is_bound: false,
    };

    /// It, as what others must be below.
    fn bound(&self) -> Bound {
        Bound {
            requests: 1 + u64::from(self.in_flight),
            weight: u64::from(self.weight),
            slack: u64::from(self.is_bound),
        }
    }

    /// Others may have picked a bound meanwhile, so that nobody seemed to have as little to do. Then its count
    /// is found to have changed.
    fn is_anybody(self) -> Option<Self> {
        (self.weight > 0).then_some(self)
    }

    /// Whether its score is lower.
    #[inline]
    fn is_below(&self, other: &Self) -> bool {
        self.score(other) < other.score(self)
    }

    /// Its score times both weights. Below 2^64 by at least 2^32.
    #[inline]
    fn score(&self, other: &Self) -> u64 {
        (1 + u64::from(self.in_flight)) * u64::from(other.weight)
    }
}

impl Bound {
    /// Whether a member of that load and weight takes its place.
    #[inline]
    fn is_above(self, in_flight: u32, weight: u32) -> bool {
        (1 + u64::from(in_flight)) * self.weight < self.requests * u64::from(weight) + self.slack
    }
}
