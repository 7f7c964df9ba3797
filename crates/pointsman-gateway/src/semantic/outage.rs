//! Whether the embeddings endpoint is worth a call, as all who ask it see it.
//!
//! The first request that meets a failure says so, and from then on none asks until a retry in the
//! background has an answer. When that is made, and how long it waits, is for the
//! [`Keeper`](super::keeper::Keeper) to say.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::clock;

/// The times are milliseconds since the start of the process, and one; 0 stands for never.
#[derive(Default)]
pub(super) struct Outage {
    since: AtomicU64,
    ended: AtomicU64,
    /// A request has had its vector since this was last asked.
    proof: AtomicBool,
}

impl Outage {
    pub(super) fn is_on(&self) -> bool {
        self.since.load(Ordering::Relaxed) != 0
    }

    /// A call that began at `began` has failed. Returns whether that is news: what began before the
    /// last outage was over belongs to that one.
    pub(super) fn begin(&self, began: Instant, now: Instant) -> bool {
        if stamp(began) < self.ended.load(Ordering::Relaxed) {
            return false;
        }
        let exchanged =
            self.since
                .compare_exchange(0, stamp(now), Ordering::Relaxed, Ordering::Relaxed);
        exchanged.is_ok()
    }

    /// How long it has lasted; `None`: there is none.
    pub(super) fn age(&self, now: Instant) -> Option<Duration> {
        let since = self.since.load(Ordering::Relaxed);
        (since != 0).then(|| Duration::from_millis(stamp(now).saturating_sub(since)))
    }

    pub(super) fn end(&self, now: Instant) {
        self.ended.store(stamp(now), Ordering::Relaxed);
        self.since.store(0, Ordering::Relaxed);
    }

    /// A request has had its vector.
    pub(super) fn disprove(&self) {
        // Most find it said already, and write nothing that others read.
        if !self.proof.load(Ordering::Relaxed) {
            self.proof.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a request has had its vector since the last call.
    pub(super) fn take_proof(&self) -> bool {
        self.proof.swap(false, Ordering::Relaxed)
    }
}

fn stamp(at: Instant) -> u64 {
    let millis = clock::since_start(at).as_millis();
    u64::try_from(millis).unwrap_or(u64::MAX).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_begins_once_and_not_by_what_is_old() {
        let start = clock::now();
        clock::since_start(start);
        let at = |ms| start + Duration::from_millis(ms);
        let outage = Outage::default();
        assert!(!outage.is_on() && outage.age(at(5)).is_none());
        assert!(outage.begin(at(5), at(10)));
        assert!(!outage.begin(at(6), at(11)), "known");
        assert_eq!(outage.age(at(30)), Some(Duration::from_millis(20)));
        outage.end(at(40));
        assert!(!outage.is_on());
        assert!(!outage.begin(at(39), at(50)), "of the last one");
        assert!(!outage.is_on());
        assert!(outage.begin(at(40), at(60)));
        assert!(!outage.take_proof());
        outage.disprove();
        assert!(outage.take_proof() && !outage.take_proof());
    }
}
