//! The quicker of two members drawn at random, by a moving average of their response times.
//!
//! Two and not all, because everybody reads the same averages: the quickest of all would get every
//! request until its average tells what that did to it. The averages fade with time, so a member that
//! nobody has asked for long gets another chance; one that was never asked is the quickest.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::census::Eligible;
use super::{Candidate, Offer};
use crate::decision::{Decision, Drawn};
use crate::load::Gauge;
use crate::sync::AtomicU64;

#[derive(Debug)]
pub(crate) struct Ewma {
    /// By rank.
    members: Box<[u32]>,
    gauges: Box<[Arc<Gauge>]>,
    dice: Dice,
}

/// A position in the sequence of SplitMix64, which each pick moves on. On its own cache line, as it is
/// written by every pick.
#[derive(Debug)]
#[repr(align(64))]
struct Dice(AtomicU64);

/// The random numbers of one pick.
struct Throw(u64);

impl Ewma {
    /// `candidates` are at least one; `gauges` are those of all members.
    pub(super) fn new(candidates: &[Candidate<'_>], gauges: &[Arc<Gauge>], start: u64) -> Self {
        let members: Box<[u32]> = candidates
            .iter()
            .map(|candidate| candidate.member as u32)
            .collect();
        Self {
            gauges: by_rank(&members, gauges),
            members,
            dice: Dice(AtomicU64::new(start)),
        }
    }

    pub(super) fn members(&self) -> &[u32] {
        &self.members
    }

    pub(super) fn share(&mut self, gauges: &[Arc<Gauge>]) {
        self.gauges = by_rank(&self.members, gauges);
    }

    pub(super) fn pick(&self, eligible: &impl Eligible, now: Duration) -> Option<Offer> {
        let (one, other) = self.draw(eligible)?;
        let latency = |rank: usize| self.gauges[rank].latency(now);
        let rank = match other {
            Some(other) if latency(other) < latency(one) => other,
            _ => one,
        };
        Some(self.offer(rank))
    }

    /// The same, and says what it read.
    #[cold]
    pub(super) fn pick_noted(&self, eligible: &impl Eligible, now: Duration) -> Option<Offer> {
        let (one, other) = self.draw(eligible)?;
        let drawn = |rank: usize| Drawn {
            member: self.members[rank] as usize,
            latency: self.gauges[rank].latency(now),
        };
        let (first, second) = (drawn(one), other.map(drawn));
        let rank = match other {
            Some(other) if quicker(first, second) != first.member => other,
            _ => one,
        };
        Some(Offer {
            decision: Some(Decision::Drawn {
                one: first,
                other: second,
            }),
            ..self.offer(rank)
        })
    }

    /// Whom a pick takes that draws these two. Counts nothing. `None` if they cannot have been drawn.
    pub(super) fn at(
        &self,
        one: Drawn,
        other: Option<Drawn>,
        eligible: &impl Eligible,
    ) -> Option<usize> {
        let is_eligible = |drawn: Drawn| {
            let mut ranks = self.members.iter();
            let rank = ranks.position(|&member| member as usize == drawn.member);
            rank.is_some_and(|rank| eligible.contains(rank))
        };
        let can_be = match other {
            Some(other) => is_eligible(other) && other.member != one.member,
            None => {
                let ranks = 0..self.members.len();
                ranks.filter(|&rank| eligible.contains(rank)).count() == 1
            }
        };
        (is_eligible(one) && can_be).then(|| quicker(one, other))
    }

    fn offer(&self, rank: usize) -> Offer {
        Offer {
            member: self.members[rank] as usize,
            hold: Some(self.gauges[rank].hold()),
            decision: None,
        }
    }

    #[inline]
    fn draw(&self, eligible: &impl Eligible) -> Option<(usize, Option<usize>)> {
        let mut throw = self.dice.throw();
        match eligible.few() {
            Some(few) => throw.two_of(few.len(), |at| few[at] as usize),
            None => self.two(eligible, &mut throw),
        }
    }

    /// Two who are eligible, or the only one.
    fn two(&self, eligible: &impl Eligible, throw: &mut Throw) -> Option<(usize, Option<usize>)> {
        let mut one = None;
        for _ in 0..DRAWS {
            let rank = throw.below(self.members.len());
            if one != Some(rank) && eligible.contains(rank) {
                if let Some(one) = one {
                    return Some((one, Some(rank)));
                }
                one = Some(rank);
            }
        }
        // Few are eligible: find out who, and draw among those.
        let ranks = || (0..self.members.len()).filter(|&rank| eligible.contains(rank));
        throw.two_of(ranks().count(), |at| ranks().nth(at).unwrap_or_default())
    }
}

/// Which of the two is taken.
fn quicker(one: Drawn, other: Option<Drawn>) -> usize {
    match other {
        Some(other) if other.latency < one.latency => other.member,
        _ => one.member,
    }
}

impl Dice {
    fn throw(&self) -> Throw {
        Throw(self.0.fetch_add(STEP, Ordering::Relaxed))
    }
}

impl Throw {
    /// A number below `end`, each as likely as any other but for a part in some 10^14.
    fn below(&mut self, end: usize) -> usize {
        let mut bits = self.0;
        // Another odd step than that between picks, so that a pick does not draw what the next will.
        self.0 = self.0.wrapping_add(STEP_INSIDE);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        ((u128::from(bits) * end as u128) >> u64::BITS) as usize
    }

    /// Two different ones of `count`, or the only one.
    fn two_of(
        &mut self,
        count: usize,
        nth: impl Fn(usize) -> usize,
    ) -> Option<(usize, Option<usize>)> {
        if count == 0 {
            return None;
        }
        let one = self.below(count);
        let other = (count > 1).then(|| (one + 1 + self.below(count - 1)) % count);
        Some((nth(one), other.map(nth)))
    }
}

fn by_rank(members: &[u32], gauges: &[Arc<Gauge>]) -> Box<[Arc<Gauge>]> {
    let gauge = |&member: &u32| Arc::clone(&gauges[member as usize]);
    members.iter().map(gauge).collect()
}

/// How often a member is drawn before all are looked at. With half of them eligible, hardly ever.
const DRAWS: usize = 12;

/// 2^64 divided by the golden ratio, as SplitMix64 has it.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// 2^64 divided by the square root of 3, made odd.
const STEP_INSIDE: u64 = 0x93cd_3a2c_8198_e269;
