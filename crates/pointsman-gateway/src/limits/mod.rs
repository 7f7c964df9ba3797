//! How much of something was used: what `limit-count`, `limit-req` and `limit-conn` count in, and what
//! `api-breaker` counts failures in.
//!
//! One [`Limits`] serves all workers, so what it says is exact whoever is asked. It outlives every
//! configuration: a counter is found by its [`Scope`] and its key, so one whose limit did not change
//! goes on counting over a reload, and there is nothing to hand over. The arithmetic
//! ([`window`], [`bucket`], [`breaker`]) is pure; only `table` locks, one of many shards for as long as
//! a look-up takes. Memory has a bound that no client can move: see `table`.

pub mod breaker;
pub mod bucket;
pub mod connections;
pub mod remote;
mod synced;
mod table;
pub mod window;

use std::{
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

use serde::Serialize;
use sha2::{Digest, Sha256};

use self::{
    breaker::Breaker, bucket::Bucket, connections::Connections, synced::Synced, table::Table,
    window::Count,
};
pub use self::{
    breaker::Breaking,
    bucket::Rate,
    connections::Slot,
    synced::Local,
    window::{Spent, Window},
};
use crate::clock;

/// Every counter of the process.
#[derive(Default)]
pub struct Limits {
    windows: Table<Count>,
    buckets: Table<Bucket>,
    breakers: Table<Breaker>,
    connections: Connections,
    synced: Table<Synced>,
    /// Keys come from clients, who must not know which of them share a place.
    secret: RandomState,
}

/// Whose counters: those of one plugin's configuration where it stands, or those of a group.
///
/// Changing anything in that configuration makes another scope, so its counters start anew; what
/// changes around it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope(u64);

/// One counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    scope: u64,
    counter: u64,
}

impl Scope {
    /// Of the `conf` of `plugin` that the resource `owner` carries.
    pub fn of(plugin: &str, owner: &str, conf: &impl Serialize) -> Self {
        // A configuration that was read can be written.
        let conf = serde_json::to_string(conf).unwrap_or_default();
        Self::named(&[plugin, "owner", owner, &conf])
    }

    /// Of all configurations of `plugin` with the same `group`.
    pub fn group(plugin: &str, group: &str) -> Self {
        Self::named(&[plugin, "group", group])
    }

    /// The name of the counter of `parts`, taken together, where several gateways look for it. As long
    /// whatever clients send.
    pub(crate) fn name(self, plugin: &str, parts: &[&str]) -> String {
        let Self(counter) = Self::named(parts);
        format!("plugin-{plugin}:{:016x}:{counter:016x}", self.0)
    }

    /// As many bits as there are are enough: nobody but the operator chooses these names.
    fn named(parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        let bytes = hash.finalize();
        let first = bytes.first_chunk().copied().unwrap_or_default();
        Self(u64::from_le_bytes(first))
    }
}

impl Limits {
    /// The counter of `parts`, taken together, in `scope`.
    pub fn key(&self, scope: Scope, parts: &[&str]) -> Key {
        Key {
            scope: scope.0,
            counter: self.secret.hash_one((scope.0, parts)),
        }
    }

    /// Uses up `cost` of what `window` allows, if that much is left.
    pub fn take(&self, key: Key, window: &Window, cost: u64, now: Instant) -> Spent {
        let now = micros(now);
        self.windows
            .update(key, now, |count| window.take(count, cost, now))
    }

    /// Whether anything is left of what `window` allows; the window begins if it has not yet.
    pub fn look(&self, key: Key, window: &Window, now: Instant) -> Spent {
        let now = micros(now);
        self.windows
            .update(key, now, |count| window.look(count, now))
    }

    /// Uses up `cost` of what `window` allows, whether or not that much is left: for what is known
    /// only after the response.
    pub fn charge(&self, key: Key, window: &Window, cost: u64, now: Instant) -> Spent {
        let now = micros(now);
        self.windows
            .update(key, now, |count| window.charge(count, cost, now))
    }

    /// One more request at `rate`: how long it has to wait, or `None` if it comes too early for that.
    pub fn pour(&self, key: Key, rate: &Rate, now: Instant) -> Option<Duration> {
        let now = micros(now);
        self.buckets
            .update(key, now, |bucket| rate.pour(bucket, now))
    }

    /// A place among at most `most` requests under way, and how many there are with it.
    pub fn enter(&self, key: Key, most: u64) -> Option<(Slot, u64)> {
        self.connections.enter(key, most)
    }

    /// Uses up one of a window that is counted elsewhere, if enough is known of it here.
    pub fn take_known(&self, key: Key, now: Instant) -> Option<Local> {
        let now = micros(now);
        self.synced.find(key, now)?;
        self.synced.update(key, now, |synced| match synced {
            Some(synced) => synced.take(now),
            // Forgotten just now; it says nothing.
            None => (Synced::default(), None),
        })
    }

    /// What was said elsewhere of a window of `limit`, and for how long that goes if not to its end.
    pub fn learn(
        &self,
        key: Key,
        spent: &Spent,
        limit: u64,
        known_for: Option<Duration>,
        now: Instant,
    ) {
        let now = micros(now);
        self.synced.update(key, now, |before| {
            (Synced::learn(before, spent, limit, known_for, now), ())
        });
    }

    /// What was used here of such a window and is to be told now.
    pub fn tell(&self, key: Key, now: Instant) -> u64 {
        let now = micros(now);
        if self.synced.find(key, now).is_none() {
            return 0;
        }
        self.synced
            .update(key, now, |synced| synced.unwrap_or_default().tell())
    }

    /// So much of it could not be told.
    pub fn untold(&self, key: Key, cost: u64, now: Instant) {
        let now = micros(now);
        self.synced.update(key, now, |synced| {
            (synced.unwrap_or_default().untold(cost), ())
        });
    }

    /// Whether the breaker is open.
    pub fn is_open(&self, key: Key, now: Instant) -> bool {
        let now = micros(now);
        let breaker = self.breakers.find(key, now);
        breaker.is_some_and(|breaker| breaker.is_open(now))
    }

    /// One more failure.
    pub fn fail(&self, key: Key, breaking: &Breaking, now: Instant) {
        let now = micros(now);
        self.breakers
            .update(key, now, |breaker| (breaking.fail(breaker, now), ()));
    }

    /// One more success. Where there was no failure, nothing is kept of it.
    pub fn succeed(&self, key: Key, breaking: &Breaking, now: Instant) {
        let now = micros(now);
        if self.breakers.find(key, now).is_some() {
            self.breakers
                .update(key, now, |breaker| (breaking.succeed(breaker), ()));
        }
    }

    /// Gives a place back.
    pub fn leave(&self, slot: Slot) {
        self.connections.leave(slot);
    }
}

/// Microseconds of the monotonic clock; enough for half a million years.
fn micros(at: Instant) -> u64 {
    u64::try_from(clock::since_start(at).as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_a_configuration_at_its_place() {
        let conf = |count: u64| serde_json::json!({ "count": count });
        let one = Scope::of("limit-count", "/routes/1", &conf(1));
        assert_eq!(one, Scope::of("limit-count", "/routes/1", &conf(1)));
        for other in [
            Scope::of("limit-count", "/routes/1", &conf(2)),
            Scope::of("limit-count", "/routes/2", &conf(1)),
            Scope::of("limit-req", "/routes/1", &conf(1)),
            Scope::group("limit-count", "/routes/1"),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn parts_of_a_key_do_not_run_together() {
        let limits = Limits::default();
        let scope = Scope::group("limit-count", "g");
        let key = |parts: &[&str]| limits.key(scope, parts);
        assert_eq!(key(&["a", "bc"]), key(&["a", "bc"]));
        assert_ne!(key(&["a", "bc"]), key(&["ab", "c"]));
    }

    /// What all workers take together is what there is, not more and not less.
    #[test]
    fn threads_share_a_limit_exactly() {
        let limits = Limits::default();
        let key = limits.key(Scope::group("limit-count", "g"), &["k"]);
        let window = Window::fixed(10_000, 60);
        let now = clock::now();
        let taken: usize = std::thread::scope(|scope| {
            let limits = &limits;
            let worker =
                move || (0..5_000).filter(move |_| limits.take(key, &window, 1, now).is_within);
            let workers: Vec<_> = (0..4)
                .map(|_| scope.spawn(move || worker().count()))
                .collect();
            workers.into_iter().map(|w| w.join().unwrap_or(0)).sum()
        });
        assert_eq!(taken, 10_000);
    }
}
