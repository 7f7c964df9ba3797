//! How many requests are under way under one key.
//!
//! Every number here stands for requests that the process is serving, so nothing has to expire and
//! nothing may be thrown away: there are as many entries as requests at most.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;

use super::Key;

/// Requests under way, by key.
#[derive(Default)]
pub(super) struct Connections {
    shards: [Mutex<FxHashMap<u64, u64>>; 16],
}

/// A place that a request has. It is given back with [`super::Limits::leave`], and can be only once.
#[derive(Debug)]
#[must_use = "a place that is not given back is taken for ever"]
pub struct Slot {
    counter: u64,
}

impl Connections {
    pub(super) fn enter(&self, key: Key, most: u64) -> Option<(Slot, u64)> {
        let counter = key.counter;
        let mut shard = self.shard(counter);
        let count = shard.get(&counter).copied().unwrap_or(0) + 1;
        if count > most {
            return None;
        }
        shard.insert(counter, count);
        Some((Slot { counter }, count))
    }

    pub(super) fn leave(&self, Slot { counter }: Slot) {
        let mut shard = self.shard(counter);
        let Some(count) = shard.get_mut(&counter) else {
            return;
        };
        *count = count.saturating_sub(1);
        if *count == 0 {
            shard.remove(&counter);
        }
    }

    fn shard(&self, counter: u64) -> MutexGuard<'_, FxHashMap<u64, u64>> {
        let at = (counter >> 32) as usize % self.shards.len();
        self.shards[at]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Limits, Scope};

    #[test]
    fn a_place_is_free_again_once_it_is_left() {
        let limits = Limits::default();
        let scope = Scope::group("limit-conn", "g");
        let (key, other) = (limits.key(scope, &["a"]), limits.key(scope, &["b"]));
        let (first, count) = limits.enter(key, 2).expect("a place");
        assert_eq!(count, 1);
        let (second, count) = limits.enter(key, 2).expect("another");
        assert_eq!(count, 2);
        assert!(limits.enter(key, 2).is_none());
        let (third, _) = limits.enter(other, 1).expect("a place of its own");
        limits.leave(first);
        let (fourth, count) = limits.enter(key, 2).expect("that of the first");
        assert_eq!(count, 2);
        for slot in [second, third, fourth] {
            limits.leave(slot);
        }
        let shards = limits.connections.shards.iter();
        let left: usize = shards.map(|s| s.lock().map_or(9, |s| s.len())).sum();
        assert_eq!(left, 0);
    }
}
