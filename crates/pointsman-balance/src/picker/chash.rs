//! Consistent hashing with exactly the ring APISIX 3.18 builds, so that a migration moves no session.
//!
//! Each member owns 160 points per unit of weight, chained CRC-32 sums that depend on its name alone; a
//! key belongs to the owner of the first point at or after the key's own CRC-32. Health never changes
//! the ring: whoever cannot be picked is walked past, so keys of the others stay where they are, and
//! come back when the owner does.

use super::census::Eligible;
use super::crc32::{Crc32, crc32};
use super::{Candidate, greatest_common_divisor};

/// A hash ring, without the points that decide nothing.
#[derive(Debug)]
pub(crate) struct Ring {
    /// By rank.
    members: Box<[u32]>,
    /// Ascending.
    spans: Box<[Span]>,
    /// Where in `spans` to look for an owner, by the upper bits of a hash.
    index: Index,
}

/// A stretch of the ring that belongs to one member.
///
/// Points of one member in a row are one span: only the last of them can be the first at or after a key
/// that another's point is not. With weights like 1000 and 1 that turns 160,160 points into some 320
/// spans, and walking past the heavy member into one step.
#[derive(Debug)]
struct Span {
    /// The last point, which is inside.
    last: u32,
    rank: u32,
}

impl Ring {
    /// How many points these members need.
    pub(super) fn points(candidates: &[Candidate<'_>]) -> u64 {
        let divisor = greatest_common_divisor(candidates);
        candidates
            .iter()
            .map(|candidate| points_of(candidate, divisor))
            .sum()
    }

    /// `candidates` are at least one, heaviest first, then by name.
    pub(super) fn new(candidates: &[Candidate<'_>]) -> Self {
        let divisor = greatest_common_divisor(candidates);
        // Where two members have the same point, the earlier has it: the order of candidates follows
        // from weights and names, so that the order of the configuration decides nothing.
        let mut points = Vec::with_capacity(Self::points(candidates) as usize);
        for (order, candidate) in candidates.iter().enumerate() {
            let own = chain(candidate.name).take(points_of(candidate, divisor) as usize);
            points.extend(own.map(|point| (point, order)));
        }
        points.sort_unstable();
        let spans: Box<[Span]> = points
            .chunk_by(|(_, a), (_, b)| a == b)
            .filter_map(<[_]>::last)
            .map(|&(last, order)| Span {
                last,
                rank: order as u32,
            })
            .collect();
        Self {
            members: candidates
                .iter()
                .map(|candidate| candidate.member as u32)
                .collect(),
            index: Index::new(&spans),
            spans,
        }
    }

    pub(super) fn members(&self) -> &[u32] {
        &self.members
    }

    pub(super) fn pick(&self, key: &[u8], eligible: &impl Eligible) -> Option<usize> {
        if let Some(rank) = eligible.only() {
            return Some(self.members[rank] as usize);
        }
        self.owner(hash_of(key), eligible)
    }

    /// The same for a key of that hash.
    pub(super) fn owner(&self, hash: u32, eligible: &impl Eligible) -> Option<usize> {
        let owner = self.index.owner(&self.spans, hash);
        let (before, after) = self.spans.split_at(owner);
        let mut successors = after.iter().chain(before).map(|span| span.rank as usize);

        let mut rank = successors.next()?;
        if !eligible.contains(rank) {
            // There are hundreds of spans to a member: find out first whether walking them can end.
            eligible.lowest(0..self.members.len())?;
            rank = successors.find(|&rank| eligible.contains(rank))?;
        }
        Some(self.members[rank] as usize)
    }
}

/// By which a key belongs to a member.
pub(super) fn hash_of(key: &[u8]) -> u32 {
    crc32(key)
}

/// Hashes are spread evenly, so their upper bits say within a few spans where one belongs; a search
/// through all of them is a row of cache misses.
#[derive(Debug)]
struct Index {
    /// How many bits of a hash are left out: 1 to 32.
    shift: u32,
    /// By upper bits: the first span that ends there or later. One more at the end.
    first: Box<[u32]>,
}

impl Index {
    fn new(spans: &[Span]) -> Self {
        // One entry for one to two spans: half as much memory as the spans take, at most.
        let bits = spans.len().max(1).ilog2();
        let shift = u32::BITS - bits;
        let mut first = Vec::with_capacity((1 << bits) + 1);
        let mut span = 0;
        for upper in 0..=1_u64 << bits {
            while spans
                .get(span)
                .is_some_and(|span| u64::from(span.last) < upper << shift)
            {
                span += 1;
            }
            first.push(span as u32);
        }
        Self {
            shift,
            first: first.into(),
        }
    }

    /// The first span that ends at `hash` or later; the number of spans if none does.
    #[inline]
    fn owner(&self, spans: &[Span], hash: u32) -> usize {
        let upper = (u64::from(hash) >> self.shift) as usize;
        let (from, to) = (self.first[upper] as usize, self.first[upper + 1] as usize);
        from + spans[from..to].partition_point(|span| span.last < hash)
    }
}

const POINTS_PER_WEIGHT: u64 = 160;

fn points_of(candidate: &Candidate<'_>, divisor: u32) -> u64 {
    POINTS_PER_WEIGHT * u64::from(candidate.weight / divisor)
}

/// The points of a name, without end: each is the sum over the name and the point before it.
fn chain(name: &str) -> impl Iterator<Item = u32> {
    // APISIX joins host and port with a zero byte here.
    let prefix = Crc32::new().with(name.bytes().map(|byte| if byte == b':' { 0 } else { byte }));
    let next = move |point: u32| prefix.with(point.to_le_bytes()).finish();
    std::iter::successors(Some(next(0)), move |&point| Some(next(point)))
}

#[cfg(test)]
mod tests {
    use super::super::census::Tested;
    use super::*;

    #[test]
    fn the_first_points_are_those_of_apisix() {
        let first = |name| chain(name).take(3).collect::<Vec<_>>();
        assert_eq!(first("openai"), [0x27cd_a4fa, 0xcb39_bbed, 0xc8e1_ba6c]);
        assert_eq!(
            first("127.0.0.1:1980"),
            [0xe71d_cbbf, 0xfef4_f715, 0x1a84_f2e5]
        );
    }

    #[test]
    fn spans_pick_like_the_points_they_stand_for() {
        let candidates = [("a", 7), ("b", 1), ("c", 3)].map(|(name, weight)| Candidate {
            member: usize::from(name.as_bytes()[0] - b'a'),
            name,
            weight,
        });
        let mut points: Vec<(u32, usize)> = Vec::new();
        for candidate in &candidates {
            let own = chain(candidate.name).take(160 * candidate.weight as usize);
            points.extend(own.map(|point| (point, candidate.member)));
        }
        points.sort_unstable();
        assert_eq!(points.len() as u64, Ring::points(&candidates));

        let ring = Ring::new(&candidates);
        assert!(ring.spans.len() < points.len());
        for number in 0..2_000_u32 {
            let key = number.to_string();
            let at = points.partition_point(|&(point, _)| point < crc32(key.as_bytes()));
            let walk = || points.iter().cycle().skip(at).map(|&(_, member)| member);
            for down in 0..3 {
                let expected = walk().find(|&member| member != down);
                let up = Tested(|member| member != down);
                assert_eq!(ring.pick(key.as_bytes(), &up), expected);
            }
            assert_eq!(ring.pick(key.as_bytes(), &Tested(|_| true)), walk().next());
        }
    }

    #[test]
    fn a_ring_of_ineligible_members_offers_nobody() {
        let ring = Ring::new(&[Candidate {
            member: 0,
            name: "a",
            weight: 1,
        }]);
        assert_eq!(ring.pick(b"key", &Tested(|_| false)), None);
    }
}
