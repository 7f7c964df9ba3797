//! So much in so many seconds. Pure arithmetic: a count and the time go in, a count comes out.
//!
//! A *fixed* window begins with the first use of its key and forgets everything at its end, so up to
//! twice the limit fits into one length around that end. A *sliding* one is estimated from two
//! neighbouring windows, taking the use of the one before as spread evenly (APISIX 3.18).

use std::time::Duration;

use super::table::{Counter, share};

/// A limit and how long it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    limit: u64,
    /// Microseconds, at least one.
    length: u64,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Fixed,
    Sliding,
}

/// What became of a use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// It was within the limit.
    pub is_within: bool,
    /// What is left.
    pub remaining: u64,
    /// The window ends so soon.
    pub reset: Duration,
}

/// What was used under one key. Times in microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count {
    started: u64,
    ends: u64,
    spent: u64,
    /// In the window before, for sliding ones.
    before: u64,
    used: u8,
}

impl Counter for Count {
    fn ends(&self) -> u64 {
        self.ends
    }

    fn used(&self) -> u8 {
        self.used
    }
}

impl Window {
    /// `limit` in each window of so many seconds.
    pub fn fixed(limit: u64, seconds: u64) -> Self {
        Self::new(limit, seconds, Kind::Fixed)
    }

    /// About `limit` in any so many seconds.
    pub fn sliding(limit: u64, seconds: u64) -> Self {
        Self::new(limit, seconds, Kind::Sliding)
    }

    fn new(limit: u64, seconds: u64, kind: Kind) -> Self {
        Self {
            limit,
            length: seconds.saturating_mul(1_000_000).clamp(1, LENGTH_MAX),
            kind,
        }
    }

    pub(super) fn take(&self, count: Option<Count>, cost: u64, now: u64) -> (Count, Spent) {
        let mut count = self.current(count, now);
        let is_within = match self.kind {
            Kind::Fixed => count.spent.saturating_add(cost) <= self.limit,
            Kind::Sliding => self.has_room(&count, now),
        };
        if is_within {
            count.spent = count.spent.saturating_add(cost);
        }
        self.settled(count, is_within, now)
    }

    pub(super) fn look(&self, count: Option<Count>, now: u64) -> (Count, Spent) {
        let count = self.current(count, now);
        let is_within = self.has_room(&count, now);
        self.settled(count, is_within, now)
    }

    pub(super) fn charge(&self, count: Option<Count>, cost: u64, now: u64) -> (Count, Spent) {
        let mut count = self.current(count, now);
        count.spent = count.spent.saturating_add(cost);
        let is_within = count.spent <= self.limit;
        self.settled(count, is_within, now)
    }

    /// The count of the window that `now` is in.
    fn current(&self, count: Option<Count>, now: u64) -> Count {
        let new = Count {
            started: now,
            ends: now.saturating_add(self.length),
            spent: 0,
            before: 0,
            used: 0,
        };
        let Some(mut count) = count else { return new };
        match self.kind {
            // Its end was set at its beginning, whatever length a template has come to since.
            Kind::Fixed => count,
            Kind::Sliding => {
                let passed = now.saturating_sub(count.started) / self.length;
                match passed {
                    0 => return count,
                    1 => count.before = count.spent,
                    _ => return new,
                }
                count.started = count.started.saturating_add(self.length);
                count.spent = 0;
                count
            }
        }
    }

    /// Whether the estimate at `now` is below the limit.
    fn has_room(&self, count: &Count, now: u64) -> bool {
        let length = u128::from(self.length);
        let used = u128::from(count.spent) * length + self.still_there(count, now);
        used < u128::from(self.limit) * length
    }

    /// What is left at `now`: whole units only.
    fn left(&self, count: &Count, now: u64) -> u64 {
        let still = self
            .still_there(count, now)
            .div_ceil(u128::from(self.length));
        let still = u64::try_from(still).unwrap_or(u64::MAX);
        (self.limit.saturating_sub(count.spent)).saturating_sub(still)
    }

    /// What of the window before is still held against this one, times the length.
    fn still_there(&self, count: &Count, now: u64) -> u128 {
        if self.kind == Kind::Fixed {
            return 0;
        }
        let passed = now.saturating_sub(count.started).min(self.length);
        u128::from(count.before.min(self.limit)) * u128::from(self.length - passed)
    }

    fn settled(&self, mut count: Count, is_within: bool, now: u64) -> (Count, Spent) {
        let left = self.left(&count, now);
        count.used = share(self.limit.saturating_sub(left), self.limit);
        let end = match self.kind {
            Kind::Fixed => count.ends,
            Kind::Sliding => {
                let end = count.started.saturating_add(self.length);
                count.ends = end.saturating_add(self.length);
                end
            }
        };
        let spent = Spent {
            is_within,
            remaining: if is_within { left } else { 0 },
            reset: Duration::from_micros(end.saturating_sub(now)),
        };
        (count, spent)
    }
}

/// A thousand years: no sum of a few of these leaves its type.
const LENGTH_MAX: u64 = 1_000 * 366 * 86_400 * 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    /// Takes one at each of `at` (milliseconds), and says what was left or that it was too much.
    fn check(window: Window, at: &[u64], expected: &[Option<u64>]) {
        let mut count = None;
        let mut found = Vec::new();
        for now in at.iter().map(|ms| ms * 1_000) {
            let (next, spent) = window.take(count.filter(|c: &Count| c.ends > now), 1, now);
            count = Some(next);
            found.push(spent.is_within.then_some(spent.remaining));
        }
        assert_eq!(found, expected, "{window:?} {at:?}");
    }

    #[test]
    fn a_fixed_window_begins_with_its_first_use() {
        check(
            Window::fixed(2, 1),
            &[500, 900, 1499, 1500, 1501, 1502],
            &[Some(1), Some(0), None, Some(1), Some(0), None],
        );
    }

    /// Four at the end of a window keep the next one from having four more at once.
    #[test]
    fn a_sliding_window_remembers_the_one_before() {
        check(
            Window::sliding(4, 1),
            &[0, 900, 901, 902, 903, 1000, 1001, 1250, 1251, 1501, 1751],
            &[
                Some(3),
                Some(2),
                Some(1),
                Some(0),
                None,
                None,
                Some(0),
                None,
                Some(0),
                Some(0),
                Some(0),
            ],
        );
        check(
            Window::sliding(2, 1),
            &[0, 1, 2500, 2501],
            &[Some(1), Some(0), Some(1), Some(0)],
        );
    }

    #[test]
    fn costs_are_taken_whole_or_charged_anyhow() {
        let window = Window::fixed(10, 60);
        let (count, spent) = window.take(None, 8, 0);
        assert_eq!((spent.is_within, spent.remaining), (true, 2));
        let (count, spent) = window.take(Some(count), 3, SECOND);
        assert_eq!((spent.is_within, spent.remaining), (false, 0));
        let (count, spent) = window.look(Some(count), SECOND);
        assert_eq!((spent.is_within, spent.remaining), (true, 2));
        assert_eq!(spent.reset, Duration::from_secs(59));
        let (count, _) = window.charge(Some(count), 100, SECOND);
        let (_, spent) = window.look(Some(count), SECOND);
        assert!(!spent.is_within);
    }

    #[test]
    fn numbers_of_any_size_are_no_trouble() {
        for window in [
            Window::fixed(u64::MAX, u64::MAX),
            Window::sliding(u64::MAX, u64::MAX),
        ] {
            let (count, _) = window.charge(None, u64::MAX, u64::MAX);
            let (_, spent) = window.take(Some(count), u64::MAX, u64::MAX);
            assert_eq!(spent.remaining, 0);
        }
    }
}
