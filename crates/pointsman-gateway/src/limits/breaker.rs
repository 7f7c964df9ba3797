//! A breaker: after so many failures it is open for a while, each time for twice as long. Pure arithmetic.
//!
//! It counts failures until enough successes have come, and each multiple of the threshold opens it
//! (APISIX 3.18's `api-breaker`). While it is open nothing is counted, since nothing is asked; then
//! everybody may ask again.

use std::time::Duration;

use super::table::{Counter, share};

/// When a breaker opens, and when it forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaking {
    /// Failures after which it opens, at least 1.
    pub failures: u64,
    /// Successes after which it forgets all failures, at least 1.
    pub successes: u64,
    /// It is open for no longer than this at a time.
    pub longest: Duration,
}

/// What was seen under one key. Times in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Breaker {
    failures: u64,
    successes: u64,
    open_until: u64,
    /// How much of its threshold is used up.
    used: u8,
}

impl Counter for Breaker {
    /// Failures are remembered until there were successes.
    fn ends(&self) -> u64 {
        if self.failures == 0 { 0 } else { u64::MAX }
    }

    fn used(&self) -> u8 {
        self.used
    }
}

impl Breaker {
    pub(super) fn is_open(&self, now: u64) -> bool {
        now < self.open_until
    }
}

impl Breaking {
    pub(super) fn fail(&self, breaker: Option<Breaker>, now: u64) -> Breaker {
        let before = breaker.unwrap_or_default();
        let failures = before.failures.saturating_add(1);
        let over = failures % self.failures.max(1);
        let mut breaker = Breaker {
            failures,
            successes: 0,
            used: share(over, self.failures),
            ..before
        };
        if over == 0 {
            let open = self.open_for(failures / self.failures.max(1));
            let open = u64::try_from(open.as_micros()).unwrap_or(u64::MAX);
            breaker.open_until = now.saturating_add(open);
            breaker.used = u8::MAX;
        }
        breaker
    }

    /// What is left after a success; nothing was to be counted without failures.
    pub(super) fn succeed(&self, breaker: Option<Breaker>) -> Breaker {
        let Some(mut breaker) = breaker else {
            return Breaker::default();
        };
        breaker.successes += 1;
        if breaker.successes >= self.successes {
            return Breaker::default();
        }
        breaker
    }

    /// How long it is open the `time`th time since there were successes.
    fn open_for(&self, time: u64) -> Duration {
        let doublings = u32::try_from(time).unwrap_or(u32::MAX);
        let seconds = 2u64.checked_pow(doublings).unwrap_or(u64::MAX);
        Duration::from_secs(seconds).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;
    const BREAKING: Breaking = Breaking {
        failures: 3,
        successes: 2,
        longest: Duration::from_secs(5),
    };

    fn failed(times: usize, mut breaker: Option<Breaker>, now: u64) -> Option<Breaker> {
        for _ in 0..times {
            breaker = Some(BREAKING.fail(breaker, now));
        }
        breaker
    }

    /// G-185 to G-187
    #[test]
    fn each_time_it_is_open_for_twice_as_long() {
        let is_open = |breaker: Option<Breaker>, now| breaker.is_some_and(|one| one.is_open(now));
        let mut breaker = failed(2, None, 0);
        assert!(!is_open(breaker, 0));
        let mut now = 0;
        for seconds in [2, 4, 5, 5] {
            let missing = if seconds == 2 { 1 } else { 3 };
            breaker = failed(missing, breaker, now);
            assert!(is_open(breaker, now + seconds * SECOND - 1), "{seconds}");
            assert!(!is_open(breaker, now + seconds * SECOND), "{seconds}");
            now += seconds * SECOND;
        }
        // However often: no overflow.
        breaker = failed(1000, breaker, u64::MAX);
        assert!(!is_open(breaker, u64::MAX));
    }

    #[test]
    fn successes_in_a_row_make_it_forget() {
        let mut breaker = failed(5, None, 0);
        breaker = Some(BREAKING.succeed(breaker));
        breaker = failed(1, breaker, 0);
        // The sixth failure: the success before it is gone.
        assert!(breaker.is_some_and(|one| one.is_open(3 * SECOND)));
        breaker = Some(BREAKING.succeed(breaker));
        assert_eq!(breaker.map(|one| one.ends()), Some(u64::MAX));
        breaker = Some(BREAKING.succeed(breaker));
        assert_eq!(breaker.map(|one| one.ends()), Some(0));
        assert!(!breaker.is_some_and(|one| one.is_open(0)));
    }
}
