//! Which members one request has already used up.
//!
//! Owned by the request, not shared and not related to health: a tried member is as healthy as it
//! was. Pools of up to 128 members cost no allocation, which covers nearly all there are.

use std::collections::BTreeSet;

/// The members of a pool that one request must not be given again.
#[derive(Debug, Clone, Default)]
pub struct Tried {
    low: u128,
    /// A set rather than more bits, so that the memory follows the number of marks and not the
    /// largest of them.
    high: BTreeSet<usize>,
    /// Those of them that could never be asked.
    unable: BTreeSet<usize>,
}

impl Tried {
    /// Nothing tried yet. Does not allocate.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            low: 0,
            high: BTreeSet::new(),
            unable: BTreeSet::new(),
        }
    }

    /// Marks a member that cannot be asked at all. It is none for this request: not in the way of trials, and no
    /// reason to turn the request away while it is usable and the others are not.
    pub fn rule_out(&mut self, member: usize) {
        self.mark(member);
        self.unable.insert(member);
    }

    /// Whether the member cannot be asked at all.
    #[must_use]
    pub fn is_unable(&self, member: usize) -> bool {
        self.unable.contains(&member)
    }

    /// Whether there are members that cannot be asked at all.
    #[must_use]
    pub fn has_unable(&self) -> bool {
        !self.unable.is_empty()
    }

    /// Marks a member as tried. Marking it again changes nothing.
    pub fn mark(&mut self, member: usize) {
        if member < LOW {
            self.low |= 1 << member;
        } else {
            self.high.insert(member);
        }
    }

    /// Whether the member was marked.
    #[must_use]
    #[inline]
    pub fn contains(&self, member: usize) -> bool {
        if member < LOW {
            self.low >> member & 1 == 1
        } else {
            self.high.contains(&member)
        }
    }

    /// How many different members were marked, those that cannot be asked among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.low.count_ones() as usize + self.high.len()
    }

    /// Whether no member was marked but those that cannot be asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.unable.len() == self.len()
    }
}

/// Members below this are bits.
const LOW: usize = u128::BITS as usize;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_a_set_on_both_sides_of_the_inline_limit() {
        let mut tried = Tried::new();
        assert!(tried.is_empty());
        for member in [0, 63, 64, 127, 128, 5_000, usize::MAX, 127, 128] {
            tried.mark(member);
        }
        assert_eq!(tried.len(), 7);
        assert!(!tried.is_empty());
        for member in [0, 63, 64, 127, 128, 5_000, usize::MAX] {
            assert!(tried.contains(member), "{member}");
        }
        for member in [1, 62, 65, 126, 129, 4_999, 1 << 32] {
            assert!(!tried.contains(member), "{member}");
        }
    }

    #[test]
    fn a_high_mark_alone_is_not_empty() {
        let mut tried = Tried::new();
        tried.mark(128);
        assert!(!tried.is_empty());
        assert!(!tried.contains(0));
    }
}
