//! A leaky bucket: requests at an even rate, and some ahead of it. Pure arithmetic.
//!
//! A request that comes ahead of the rate fills the bucket by one, and what is in there runs out at
//! the rate. As long as no more than the burst is in there, the request may go once it would have
//! been its turn; else it is one too many, and leaves no trace (as `lua-resty-limit-traffic`).

use std::time::Duration;

use super::table::Counter;

/// How many requests a second, and how many of them ahead of their time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    rate: f64,
    burst: f64,
}

/// What came ahead of the rate under one key. Times in microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    last: u64,
    ends: u64,
    excess: f64,
    is_full: bool,
}

impl Counter for Bucket {
    fn ends(&self) -> u64 {
        self.ends
    }

    fn used(&self) -> u8 {
        if self.is_full { u8::MAX } else { 0 }
    }
}

impl Rate {
    /// `rate` requests a second, of which `burst` may come early.
    pub fn new(rate: f64, burst: f64) -> Self {
        Self {
            rate: rate.max(RATE_MIN),
            burst: burst.max(0.0),
        }
    }

    /// Requests a second, and how many of them early.
    pub(super) fn numbers(&self) -> (f64, f64) {
        (self.rate, self.burst)
    }

    pub(super) fn pour(&self, bucket: Option<Bucket>, now: u64) -> (Bucket, Option<Duration>) {
        let excess = bucket.map_or(0.0, |bucket| {
            let passed = Duration::from_micros(now.saturating_sub(bucket.last)).as_secs_f64();
            (bucket.excess - self.rate * passed + 1.0).max(0.0)
        });
        if let Some(full) = bucket.filter(|_| excess > self.burst) {
            return (full, None);
        }
        let wait = excess / self.rate;
        let emptied = Duration::from_secs_f64((wait + 1.0 / self.rate).min(WAIT_MAX));
        let emptied = u64::try_from(emptied.as_micros()).unwrap_or(u64::MAX);
        let bucket = Bucket {
            last: now,
            ends: now.saturating_add(emptied).saturating_add(1),
            excess,
            is_full: excess + 1.0 > self.burst,
        };
        (bucket, Some(Duration::from_secs_f64(wait.min(WAIT_MAX))))
    }
}

/// One request in some thirty years.
const RATE_MIN: f64 = 1e-9;
/// Some thirty years, in seconds.
const WAIT_MAX: f64 = 1e9;

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks at each of `at` (milliseconds), and says how long to wait (milliseconds).
    fn check(rate: Rate, at: &[u64], expected: &[Option<u128>]) {
        let mut bucket = None;
        let mut found = Vec::new();
        for now in at.iter().map(|ms| ms * 1_000) {
            let (next, wait) = rate.pour(bucket.filter(|b: &Bucket| b.ends > now), now);
            bucket = Some(next);
            found.push(wait.map(|wait| wait.as_millis()));
        }
        assert_eq!(found, expected, "{rate:?} {at:?}");
    }

    #[test]
    fn what_comes_too_early_waits_or_is_refused() {
        check(
            Rate::new(1.0, 0.0),
            &[0, 1, 999, 1000, 1001, 2000],
            &[Some(0), None, None, Some(0), None, Some(0)],
        );
        check(
            Rate::new(2.0, 2.0),
            &[0, 0, 0, 0, 500, 5000],
            &[Some(0), Some(500), Some(1000), None, Some(1000), Some(0)],
        );
        check(Rate::new(1e-300, 0.0), &[0, 1], &[Some(0), None]);
        check(Rate::new(f64::MAX, f64::MAX), &[0, 0], &[Some(0), Some(0)]);
    }
}
