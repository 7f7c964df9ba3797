//! Counters by key, for all workers, in bounded memory.
//!
//! Keys are what clients send, so anybody can bring as many as they like. A shard that is full first
//! forgets what has expired. If that is not enough, it forgets a quarter of what is least worth
//! keeping: counters of whichever scope has most of them there, those that have used least of their limit,
//! and of these the ones that end first. So a flood of made-up keys pushes out its own counters, not
//! those of other limits, and not those that keep somebody out.
//!
//! A shard is locked for one look-up, some tens of nanoseconds, and by nobody for longer but for the
//! clean-up, which comes once in hundreds of insertions.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;

use super::Key;

/// What a table knows of what it keeps.
pub(super) trait Counter: Copy {
    /// From then on it says nothing, microseconds.
    fn ends(&self) -> u64;
    /// How much of its limit is used up, 255 being all.
    fn used(&self) -> u8;
}

/// Counters of one kind.
pub(super) struct Table<T> {
    shards: Box<[Mutex<Shard<T>>]>,
}

struct Shard<T> {
    entries: FxHashMap<u64, Entry<T>>,
    /// When it is to be looked through for what has expired, microseconds.
    due: u64,
}

struct Entry<T> {
    scope: u64,
    counter: T,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        let shard = || {
            Mutex::new(Shard {
                entries: FxHashMap::default(),
                due: 0,
            })
        };
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
        }
    }
}

impl<T: Counter> Table<T> {
    /// The counter under `key`, if there is one that has not expired.
    pub(super) fn find(&self, key: Key, now: u64) -> Option<T> {
        let shard = self.shard(key);
        let entry = shard.entries.get(&key.counter)?;
        Some(entry.counter).filter(|counter| counter.ends() > now)
    }

    /// Lets `change` make a new counter of the one under `key`, if there is one that has not expired.
    pub(super) fn update<R>(
        &self,
        key: Key,
        now: u64,
        change: impl FnOnce(Option<T>) -> (T, R),
    ) -> R {
        let mut shard = self.shard(key);
        if let Some(entry) = shard.entries.get_mut(&key.counter) {
            let (counter, result) =
                change(Some(entry.counter).filter(|counter| counter.ends() > now));
            entry.counter = counter;
            return result;
        }
        shard.make_room(now);
        let (counter, result) = change(None);
        let entry = Entry {
            scope: key.scope,
            counter,
        };
        shard.entries.insert(key.counter, entry);
        result
    }

    fn shard(&self, key: Key) -> MutexGuard<'_, Shard<T>> {
        let at = (key.counter >> 32) as usize % self.shards.len();
        self.shards[at]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Counter> Shard<T> {
    /// Makes sure that one more fits.
    fn make_room(&mut self, now: u64) {
        let is_full = self.entries.len() >= KEYS_MAX;
        if !is_full && self.entries.len() < self.entries.capacity() && now < self.due {
            return;
        }
        self.due = now.saturating_add(LOOK_THROUGH);
        self.entries.retain(|_, entry| entry.counter.ends() > now);
        if self.entries.len() > KEYS_MAX / 4 * 3 {
            self.evict(self.entries.len() - KEYS_MAX / 4 * 3);
        }
        if self.entries.capacity() / 8 > self.entries.len() {
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }

    /// Forgets the `count` that are least worth keeping.
    fn evict(&mut self, count: usize) {
        let mut of_scope: FxHashMap<u64, usize> = FxHashMap::default();
        for entry in self.entries.values() {
            *of_scope.entry(entry.scope).or_default() += 1;
        }
        let largest = of_scope.into_iter().max_by_key(|(_, keys)| *keys);
        let largest = largest.map(|(scope, _)| scope);
        let mut worth: Vec<_> = self
            .entries
            .iter()
            .map(|(key, entry)| {
                let is_other = Some(entry.scope) != largest;
                (is_other, entry.counter.used(), entry.counter.ends(), *key)
            })
            .collect();
        let count = count.min(worth.len());
        if count < worth.len() {
            worth.select_nth_unstable(count);
        }
        for (_, _, _, key) in worth.into_iter().take(count) {
            self.entries.remove(&key);
        }
    }
}

/// How much of `limit` is used up, for [`Counter::used`].
pub(super) fn share(spent: u64, limit: u64) -> u8 {
    let share = u128::from(spent) * 255 / u128::from(limit.max(1));
    u8::try_from(share).unwrap_or(u8::MAX)
}

/// So that workers hardly ever meet.
const SHARDS: usize = 64;
/// Keys of one shard. What 2,048 buckets hold: 8 MB for all shards of a table, where APISIX has 10.
const KEYS_MAX: usize = 1_792;
/// Microseconds after which an insertion also looks for what has expired.
const LOOK_THROUGH: u64 = 60_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    struct Fake {
        ends: u64,
        used: u8,
    }

    impl Counter for Fake {
        fn ends(&self) -> u64 {
            self.ends
        }

        fn used(&self) -> u8 {
            self.used
        }
    }

    /// Keys that all fall into the same shard.
    fn key(scope: u64, counter: u64) -> Key {
        Key { scope, counter }
    }

    fn add(table: &Table<Fake>, key: Key, now: u64, ends: u64, used: u8) -> bool {
        table.update(key, now, |before| (Fake { ends, used }, before.is_some()))
    }

    fn len(table: &Table<Fake>) -> usize {
        let shards = table.shards.iter();
        shards
            .map(|s| s.lock().map_or(0, |s| s.entries.len()))
            .sum()
    }

    #[test]
    fn a_flood_of_keys_pushes_out_its_own() {
        let table = Table::default();
        add(&table, key(1, 0), 0, 1_000, 10);
        add(&table, key(2, 1), 0, 900, 255);
        for counter in 2..100_000 {
            add(&table, key(2, counter), 0, 1_000, 1);
            assert!(len(&table) <= KEYS_MAX);
        }
        assert!(add(&table, key(1, 0), 0, 1_000, 10), "of another limit");
        assert!(add(&table, key(2, 1), 0, 900, 255), "keeps somebody out");
    }

    #[test]
    fn what_has_expired_goes_first_and_its_memory_with_it() {
        let table = Table::default();
        for counter in 0..KEYS_MAX as u64 {
            add(&table, key(1, counter), 0, 10, 255);
        }
        assert!(!add(&table, key(1, 5), 10, 20, 0), "expired");
        for counter in 0..10 {
            add(&table, key(1, 1_000_000 + counter), 10, 20, 0);
        }
        assert_eq!(len(&table), 11);
        let capacity = table.shards[0].lock().map_or(0, |s| s.entries.capacity());
        assert!(capacity < KEYS_MAX / 4, "{capacity}");
        add(&table, key(1, 7), LOOK_THROUGH + 11, LOOK_THROUGH * 2, 0);
        assert_eq!(len(&table), 1, "looked through from time to time");
    }
}
