//! What is known here of a window that is counted elsewhere, between two times that it is asked about.
//!
//! What is used meanwhile is counted here and told there later, so several gateways together may let as
//! many more pass as they do within one interval. Pure arithmetic.

use std::time::Duration;

use super::{
    Spent,
    table::{Counter, share},
};

/// What is known. Times in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Synced {
    /// What was left when it was last asked about.
    left: u64,
    /// What has been used here since, and is not told yet.
    own: u64,
    /// When the window ends.
    resets: u64,
    /// From then on what is left must be asked about anew.
    known_until: u64,
    /// Somebody is going to tell.
    is_told: bool,
    used: u8,
}

/// What a request that wants one more may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// What became of its use.
    pub spent: Spent,
    /// It is the first since the last time, so whoever asked has to see that it is told.
    pub tells: bool,
}

impl Counter for Synced {
    fn ends(&self) -> u64 {
        self.resets
    }

    fn used(&self) -> u8 {
        self.used
    }
}

impl Synced {
    /// After an answer from there. What was used since it was asked for is still to be told.
    pub(super) fn learn(
        before: Option<Self>,
        spent: &Spent,
        limit: u64,
        known_for: Option<Duration>,
        now: u64,
    ) -> Self {
        let after = |duration: Duration| {
            now.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
        };
        let resets = after(spent.reset);
        Self {
            left: spent.remaining,
            own: before.map_or(0, |before| before.own),
            resets,
            known_until: known_for.map_or(resets, |known| after(known).min(resets)),
            is_told: before.is_some_and(|before| before.is_told),
            used: share(limit.saturating_sub(spent.remaining), limit),
        }
    }

    /// Uses one up, if it is known whether there is one left.
    pub(super) fn take(self, now: u64) -> (Self, Option<Local>) {
        if now >= self.known_until {
            return (self, None);
        }
        let mut synced = self;
        let is_within = self.own < self.left;
        if is_within {
            synced.own += 1;
            synced.is_told = true;
        }
        let spent = Spent {
            is_within,
            remaining: self.left.saturating_sub(synced.own),
            reset: Duration::from_micros(self.resets.saturating_sub(now)),
        };
        let tells = is_within && !self.is_told;
        (synced, Some(Local { spent, tells }))
    }

    /// What is to be told, which from now on is told.
    pub(super) fn tell(self) -> (Self, u64) {
        let synced = Self {
            left: self.left.saturating_sub(self.own),
            own: 0,
            is_told: self.own > 0,
            ..self
        };
        (synced, self.own)
    }

    /// It could not be told.
    pub(super) fn untold(self, cost: u64) -> Self {
        Self {
            left: self.left.saturating_add(cost),
            own: self.own.saturating_add(cost),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn spent(remaining: u64) -> Spent {
        Spent {
            is_within: true,
            remaining,
            reset: Duration::from_secs(10),
        }
    }

    #[test]
    fn what_is_used_here_is_told_once() {
        let known = Synced::learn(None, &spent(3), 5, None, 0);
        let (known, first) = known.take(SECOND);
        let first = first.expect("known");
        assert!(first.tells && first.spent.is_within);
        assert_eq!(first.spent.remaining, 2);
        assert_eq!(first.spent.reset, Duration::from_secs(9));
        let (known, second) = known.take(SECOND);
        assert!(second.is_some_and(|second| !second.tells && second.spent.remaining == 1));
        let (known, cost) = known.tell();
        assert_eq!(cost, 2);
        // It is on its way, and one more is used meanwhile.
        let (known, third) = known.take(SECOND);
        assert!(third.is_some_and(|third| !third.tells && third.spent.is_within));
        let (_, fourth) = known.take(SECOND);
        assert!(fourth.is_some_and(|fourth| !fourth.spent.is_within));
        let back = known.untold(cost);
        assert_eq!(back.tell().1, 3);
        // Others have used some: what was used here meanwhile still goes off what is left there.
        let known = Synced::learn(Some(known), &spent(1), 5, None, SECOND);
        let (known, last) = known.take(SECOND);
        assert!(last.is_some_and(|last| !last.spent.is_within));
        let (known, cost) = known.tell();
        assert_eq!(cost, 1);
        let (known, cost) = known.tell();
        assert_eq!((cost, known.is_told), (0, false));
    }

    #[test]
    fn what_is_known_goes_out_of_date() {
        let interval = Some(Duration::from_secs(1));
        let known = Synced::learn(None, &spent(3), 5, interval, 0);
        assert!(known.take(SECOND - 1).1.is_some());
        assert!(known.take(SECOND).1.is_none());
        let known = Synced::learn(None, &spent(3), 5, None, 0);
        assert!(known.take(10 * SECOND - 1).1.is_some());
        assert!(known.take(10 * SECOND).1.is_none());
    }
}
