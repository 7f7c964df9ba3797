//! Interleaved weighted round robin over members whose verdicts may change between any two picks.
//!
//! Picture the classic walk: a level starts at the largest weight, everybody of at least that weight
//! gets one turn (a *lap*), the level is lowered by the common divisor, and after the lowest level it
//! starts over. One whole walk is a *cycle* of sum(weights) / divisor turns, in which each member has
//! exactly its weight's number of them. The position in that cycle is all the state there is: one
//! number, shared by all threads, so that the proportions are those of the process and not of a
//! thread.
//!
//! Members who cannot be picked are walked past and their turns are used up. So whoever remains keeps
//! its exact proportion to the others who remain, instead of the neighbour of a dead member inheriting
//! a double share.
//!
//! The cycle is never written out: with members sorted by weight, those who take part in a lap are a
//! prefix, and all laps between two adjacent distinct weights look the same. Memory is linear in the
//! members and a pick examines each at most once, also for weights of 1 and 4,000,000,000.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use super::census::{Eligible, Tested};
use super::{Candidate, greatest_common_divisor};
use crate::sync::AtomicU64;

#[derive(Debug)]
pub(crate) struct RoundRobin {
    /// Heaviest first: by rank.
    members: Box<[u32]>,
    /// At least one; starts and widths both ascend.
    segments: Box<[Segment]>,
    /// Turns in one cycle; at least 1.
    cycle: u64,
    cursor: Cursor,
}

/// Equal laps in a row.
#[derive(Debug)]
struct Segment {
    /// The position of its first turn in the cycle.
    start: u64,
    /// Turns per lap: the ranks below this take part.
    width: usize,
}

/// Always below the cycle. On its own cache line: it is the only word of a pool that is written to,
/// and what is read beside it should stay cached.
#[derive(Debug)]
#[repr(align(64))]
struct Cursor(AtomicU64);

impl RoundRobin {
    /// `candidates` are at least one, heaviest first.
    pub(super) fn new(candidates: &[Candidate<'_>], start: u64) -> Self {
        let divisor = u64::from(greatest_common_divisor(candidates));
        let weight = |rank: usize| {
            candidates
                .get(rank)
                .map_or(0, |candidate| u64::from(candidate.weight) / divisor)
        };
        let mut segments = Vec::new();
        let mut cycle = 0;
        for width in 1..=candidates.len() {
            let laps = weight(width - 1) - weight(width);
            if laps > 0 {
                segments.push(Segment {
                    start: cycle,
                    width,
                });
                cycle += laps * width as u64;
            }
        }
        Self {
            members: candidates
                .iter()
                .map(|candidate| candidate.member as u32)
                .collect(),
            segments: segments.into(),
            cycle,
            cursor: Cursor(AtomicU64::new(start % cycle)),
        }
    }

    pub(super) fn members(&self) -> &[u32] {
        &self.members
    }

    /// The next in turn, and the position from which on it was looked for.
    pub(super) fn pick(&self, eligible: &impl Eligible) -> Option<(usize, u64)> {
        // Relaxed: the position guards no other memory. A position that comes round again between the
        // load and the exchange is no danger either, since the next turn follows from it alone.
        let mut position = self.cursor.0.load(Ordering::Relaxed);
        loop {
            let turn = self.walk(position, eligible)?;
            let next = if turn.position + 1 == self.cycle {
                0
            } else {
                turn.position + 1
            };
            match self.cursor.0.compare_exchange_weak(
                position,
                next,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some((self.member(turn.rank), position)),
                Err(moved) => position = moved,
            }
        }
    }

    /// Whom a pick takes that finds the cycle at `position`. Moves nothing on.
    pub(super) fn at(&self, position: u64, eligible: &impl Eligible) -> Option<usize> {
        let turn = self.walk(position % self.cycle, eligible)?;
        Some(self.member(turn.rank))
    }

    /// Starts with the member whose turn it was `then`, among those that are still here, and about as
    /// far into the cycle as it was.
    pub(super) fn resume(&mut self, then: &Self, successor: impl Fn(usize) -> Option<usize>) {
        let here: HashSet<u32> = self.members.iter().copied().collect();
        let successor = |member| successor(member).filter(|&now| here.contains(&(now as u32)));
        let position = then.cursor.0.load(Ordering::Relaxed);
        let stays = Tested(|rank| successor(then.member(rank)).is_some());
        let Some(turn) = then.walk(position, &stays) else {
            return;
        };
        let expected = successor(then.member(turn.rank));
        let scaled = u128::from(turn.position) * u128::from(self.cycle) / u128::from(then.cycle);
        let is_next = Tested(|rank| Some(self.member(rank)) == expected);
        if let Some(turn) = self.walk(scaled as u64, &is_next) {
            self.cursor.0 = AtomicU64::new(turn.position);
        }
    }

    fn member(&self, rank: usize) -> usize {
        self.members[rank] as usize
    }

    /// The first turn of an eligible member at or after `from`, round the cycle if need be.
    fn walk(&self, from: u64, eligible: &impl Eligible) -> Option<Turn> {
        let at = self
            .segments
            .partition_point(|segment| segment.start <= from)
            - 1;
        let Segment { start, width } = self.segments[at];
        let rank = ((from - start) % width as u64) as usize;
        let lap = from - rank as u64;
        let turn = |lap: u64, rank: usize| Turn {
            position: lap + rank as u64,
            rank,
        };

        if let Some(rank) = eligible.lowest(rank..width) {
            return Some(turn(lap, rank));
        }
        // Nobody in the rest of this lap. All laps to come begin with the heaviest, so the lowest
        // eligible rank has the first turn in the first lap wide enough for it.
        let lowest = eligible
            .lowest(0..rank)
            .or_else(|| eligible.lowest(width..self.members.len()))?;
        let next_lap = lap + width as u64;
        let end = self
            .segments
            .get(at + 1)
            .map_or(self.cycle, |next| next.start);
        if lowest < width && next_lap < end {
            return Some(turn(next_lap, lowest));
        }
        let (earlier, later) = self.segments.split_at(at + 1);
        let wide_enough = |segments: &[Segment]| {
            let narrow = segments.partition_point(|segment| segment.width <= lowest);
            segments
                .get(narrow)
                .map(|segment| turn(segment.start, lowest))
        };
        wide_enough(later).or_else(|| wide_enough(earlier))
    }
}

struct Turn {
    position: u64,
    rank: usize,
}
