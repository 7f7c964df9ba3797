//! Which members of a row are usable, told by words of verdicts instead of one by one.
//!
//! When few are usable, nearly all that a picker looks at is down, and looking at each would cost several
//! times what the rest of the pick does. Where the members' bits stand follows from configuration and is
//! worked out once; what they say is read anew at each pick, so a census is as fresh as its verdicts.

use std::ops::Range;

use crate::{Availability, TargetId};

/// Where the verdicts of a row of members stand. The index of a member in its row is its *rank*.
#[derive(Debug)]
pub(crate) struct Census {
    /// The ranks without targets.
    unchecked: Box<[u32]>,
    words: Box<[Word]>,
    /// The ranks behind the bits of all words: word by word, each from its lowest bit to its highest. What
    /// is between bits means nothing.
    ranks: Box<[u16]>,
    /// Whether each rank has one verdict at most.
    is_one_each: bool,
    /// By rank, if ranks ascend with the places of their verdicts, after those without any: its bit.
    bits: Box<[u8]>,
}

/// Bits of one word of verdicts, each of which stands for one member. Members with a target in common
/// have the same bit in different words.
#[derive(Debug)]
struct Word {
    index: usize,
    bits: u64,
    lowest: u32,
    /// Where its part of the ranks begins.
    ranks: usize,
    /// How many bits it has.
    len: usize,
}

/// All usable members of a row, if they are few: at most [`FEW`] ranks.
#[derive(Debug)]
pub(crate) struct Few {
    ranks: [u32; FEW],
    len: usize,
}

/// Beyond this, one look at member after member soon finds one, and costs less than writing them down.
const FEW: usize = 8;

impl Census {
    /// `row` gives each rank's targets. A member is usable iff any of its targets is, or it has none.
    pub(crate) fn new<'a>(row: impl Iterator<Item = &'a [TargetId]>) -> Self {
        let mut unchecked = Vec::new();
        let mut bits = Vec::new();
        let mut members = 0;
        for (rank, targets) in (0..).zip(row) {
            members += 1;
            if targets.is_empty() {
                unchecked.push(rank);
            }
            bits.extend(
                targets
                    .iter()
                    .map(|target| (Availability::place(*target), rank)),
            );
        }
        bits.sort_unstable();
        bits.dedup();
        // How many members before it have the same bit: each of those needs a word of its own.
        let mut bits: Vec<_> = bits
            .chunk_by(|(a, _), (b, _)| a == b)
            .flat_map(|sharers| (0_usize..).zip(sharers))
            .map(|(before, &((word, bit), rank))| (word, before, bit, rank))
            .collect();
        bits.sort_unstable();
        let mut ranks = Vec::new();
        let words: Box<[Word]> = bits
            .chunk_by(|a, b| (a.0, a.1) == (b.0, b.1))
            .map(|word| {
                let word = word.iter().map(|&(index, _, bit, rank)| (index, bit, rank));
                Word::new(word, &mut ranks)
            })
            .collect();
        let in_order = unchecked
            .iter()
            .copied()
            .chain(bits.iter().map(|bit| bit.3));
        let is_ordered = (0..)
            .zip(in_order.clone())
            .all(|(place, rank)| place == rank);
        let bit_of = |&(.., bit, _): &(usize, usize, u64, u32)| bit.trailing_zeros() as u8;
        let by_rank = unchecked.iter().map(|_| 0).chain(bits.iter().map(bit_of));
        Self {
            is_one_each: in_order.count() == members,
            bits: by_rank.filter(|_| is_ordered).collect(),
            unchecked: unchecked.into(),
            words,
            ranks: ranks.into(),
        }
    }

    /// Whether any member is usable.
    pub(crate) fn any(&self, availability: &Availability) -> bool {
        !self.unchecked.is_empty()
            || self
                .words
                .iter()
                .any(|word| availability.usable_among(word.index, word.bits) != 0)
    }

    /// Whether all targets of all members are usable: all members are then, though members may be also
    /// when this is not so.
    pub(crate) fn all_targets(&self, availability: &Availability) -> bool {
        (self.words.iter())
            .all(|word| availability.usable_among(word.index, word.bits) == word.bits)
    }

    /// Whether no member has several targets, so that what holds of all targets holds of all members.
    pub(crate) const fn is_one_each(&self) -> bool {
        self.is_one_each
    }

    /// The ranks whose gates ask for trials that may be had.
    pub(crate) fn asking(&self, availability: &Availability) -> impl Iterator<Item = usize> {
        self.words.iter().flat_map(move |word| {
            let asking = availability.asking_among(word.index, word.bits);
            ones(asking).map(|bit| self.rank(word, bit))
        })
    }

    /// Who is usable, in the order of ranks; `None` if ranks do not stand in the order of their verdicts.
    pub(super) fn usable<'a>(&'a self, availability: &'a Availability) -> Option<Usable<'a>> {
        (!self.bits.is_empty()).then_some(Usable {
            census: self,
            availability,
        })
    }

    #[inline]
    fn rank(&self, word: &Word, bit: u32) -> usize {
        usize::from(self.ranks[word.ranks + (bit - word.lowest) as usize])
    }

    /// Who is usable; `None` if they are more than a few.
    #[inline]
    pub(crate) fn few(&self, availability: &Availability) -> Option<Few> {
        if self.unchecked.len() > FEW {
            return None;
        }
        let mut few = Few {
            ranks: [0; FEW],
            len: 0,
        };
        for &rank in &self.unchecked {
            few.push(rank);
        }
        for word in &self.words {
            let usable = availability.usable_among(word.index, word.bits);
            if few.len + usable.count_ones() as usize > FEW {
                return None;
            }
            for bit in ones(usable) {
                few.push(self.rank(word, bit) as u32);
            }
        }
        Some(few)
    }
}

impl Word {
    /// Of bits of one word, ascending, and the ranks behind them, which are added to `ranks`.
    fn new(word: impl Iterator<Item = (usize, u64, u32)>, ranks: &mut Vec<u16>) -> Self {
        let start = ranks.len();
        let mut made = Self {
            index: 0,
            bits: 0,
            lowest: 0,
            ranks: start,
            len: 0,
        };
        for (index, bit, rank) in word {
            if made.bits == 0 {
                made.lowest = bit.trailing_zeros();
            }
            made.index = index;
            made.bits |= bit;
            made.len += 1;
            ranks.resize(start + (bit.trailing_zeros() - made.lowest) as usize, 0);
            ranks.push(rank as u16);
        }
        made
    }
}

/// The usable members of a row whose ranks stand in the order of their verdicts.
#[derive(Clone, Copy)]
pub(super) struct Usable<'a> {
    census: &'a Census,
    availability: &'a Availability,
}

/// Ranks that are usable.
pub(super) enum Ranks<'a> {
    /// All of a range.
    All(Range<usize>),
    /// Those of a row whose bit is set.
    Some(&'a [u16], u64),
}

impl<'a> Usable<'a> {
    /// Whether over a quarter of them are not usable: too many to look at each.
    pub(super) fn lacks_many(self) -> bool {
        let (mut all, mut usable) = (self.census.unchecked.len() as u32, 0);
        for word in &self.census.words {
            all += word.bits.count_ones();
            let up = self.availability.usable_among(word.index, word.bits);
            usable += up.count_ones();
        }
        usable += self.census.unchecked.len() as u32;
        (all - usable) * 4 > all
    }

    /// The usable ones among `ranks`, in ascending order.
    #[inline]
    pub(super) fn among(self, ranks: Range<usize>) -> impl Iterator<Item = Ranks<'a>> {
        let Self {
            census,
            availability,
        } = self;
        let unchecked = ranks.start..census.unchecked.len().min(ranks.end);
        let mut first = census.unchecked.len();
        let words = census.words.iter().filter_map(move |word| {
            let row = first..first + word.len;
            first = row.end;
            let (start, end) = (row.start.max(ranks.start), row.end.min(ranks.end));
            if start >= end {
                return None;
            }
            let mut bits = word.bits;
            if start > row.start {
                bits &= u64::MAX << census.bits[start];
            }
            if end < row.end {
                bits &= !(u64::MAX << census.bits[end]);
            }
            let usable = availability.usable_among(word.index, bits);
            Some(if usable == bits {
                Ranks::All(start..end)
            } else {
                Ranks::Some(&census.ranks[word.ranks..], usable >> word.lowest)
            })
        });
        let unchecked = (unchecked.start < unchecked.end).then_some(Ranks::All(unchecked));
        unchecked.into_iter().chain(words)
    }
}

/// The places of the bits that are set, from the lowest up.
#[inline]
pub(super) fn ones(mut bits: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let place = bits.trailing_zeros();
        let is_any = bits != 0;
        bits &= bits.wrapping_sub(1);
        is_any.then_some(place)
    })
}

impl Few {
    /// The caller has made sure that there is room.
    fn push(&mut self, rank: u32) {
        if !self.ranks().contains(&rank) {
            self.ranks[self.len] = rank;
            self.len += 1;
        }
    }

    /// In no particular order, each once.
    pub(crate) fn ranks(&self) -> &[u32] {
        &self.ranks[..self.len]
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(usize) -> bool) {
        let mut kept = 0;
        for at in 0..self.len {
            if keep(self.ranks[at] as usize) {
                self.ranks[kept] = self.ranks[at];
                kept += 1;
            }
        }
        self.len = kept;
    }
}

/// Who may be offered by one pick, as ranks.
pub(super) trait Eligible {
    fn contains(&self, rank: usize) -> bool;

    /// The lowest one inside `ranks`.
    fn lowest(&self, ranks: Range<usize>) -> Option<usize>;

    /// The one there is, if it is known that there is no other.
    fn only(&self) -> Option<usize> {
        None
    }

    /// All of them in no particular order, if they are known to be few.
    fn few(&self) -> Option<&[u32]> {
        None
    }

    /// Those among whom all of them are.
    fn usable(&self) -> Option<Usable<'_>> {
        None
    }
}

/// Whoever passes a test, tried rank by rank.
pub(super) struct Tested<F>(pub(super) F);

impl<F: Fn(usize) -> bool> Eligible for Tested<F> {
    #[inline]
    fn contains(&self, rank: usize) -> bool {
        self.0(rank)
    }

    #[inline]
    fn lowest(&self, mut ranks: Range<usize>) -> Option<usize> {
        ranks.find(|&rank| self.0(rank))
    }
}

/// Whoever is usable and passes a test.
pub(super) struct Many<'a, F> {
    pub(super) census: &'a Census,
    pub(super) availability: &'a Availability,
    /// Says no to all who are not usable.
    pub(super) test: Tested<F>,
}

impl<F: Fn(usize) -> bool> Eligible for Many<'_, F> {
    #[inline]
    fn contains(&self, rank: usize) -> bool {
        self.test.contains(rank)
    }

    #[inline]
    fn lowest(&self, ranks: Range<usize>) -> Option<usize> {
        self.test.lowest(ranks)
    }

    #[inline]
    fn usable(&self) -> Option<Usable<'_>> {
        self.census.usable(self.availability)
    }
}

impl Eligible for Few {
    fn contains(&self, rank: usize) -> bool {
        self.ranks().contains(&(rank as u32))
    }

    fn lowest(&self, ranks: Range<usize>) -> Option<usize> {
        let all = self.ranks().iter().map(|&rank| rank as usize);
        all.filter(|rank| ranks.contains(rank)).min()
    }

    fn only(&self) -> Option<usize> {
        match self.ranks() {
            [only] => Some(*only as usize),
            _ => None,
        }
    }

    fn few(&self) -> Option<&[u32]> {
        Some(self.ranks())
    }
}
