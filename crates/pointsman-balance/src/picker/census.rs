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
    /// The ranks behind the bits of all words: word by word, inside a word from the lowest bit up.
    ranks: Box<[u32]>,
}

/// Bits of one word of verdicts, each of which stands for one member. Members with a target in common
/// have the same bit in different words.
#[derive(Debug)]
struct Word {
    index: usize,
    bits: u64,
    /// Where its part of the ranks begins.
    ranks: usize,
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
        for (rank, targets) in (0..).zip(row) {
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
        let mut start = 0;
        let words = bits
            .chunk_by(|a, b| (a.0, a.1) == (b.0, b.1))
            .map(|word| {
                let ranks = start;
                start += word.len();
                Word {
                    index: word[0].0,
                    bits: word.iter().fold(0, |bits, &(_, _, bit, _)| bits | bit),
                    ranks,
                }
            })
            .collect();
        Self {
            unchecked: unchecked.into(),
            words,
            ranks: bits.into_iter().map(|(.., rank)| rank).collect(),
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
            let mut usable = availability.usable_among(word.index, word.bits);
            if few.len + usable.count_ones() as usize > FEW {
                return None;
            }
            while usable != 0 {
                let lower = (usable & usable.wrapping_neg()) - 1;
                usable &= usable - 1;
                few.push(self.ranks[word.ranks + (word.bits & lower).count_ones() as usize]);
            }
        }
        Some(few)
    }
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
