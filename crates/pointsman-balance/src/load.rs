//! What members have under way, and how long they took: all that a pick learns from earlier requests.
//!
//! Each member of a pool that counts has one gauge of two numbers. A pick adds one to the first and hands
//! out a [`Hold`], which takes it off again when it is dropped; so whatever becomes of a request, it is
//! counted once, and for as long as somebody has its hold. The second is a moving average of response
//! times, which fades when nobody adds to it.
//!
//! A gauge belongs to a name, not to a pool: [`Loads`] gives every pool of one identity the same gauges. It
//! only lends them, and a hold keeps its own alive. So load survives a reload, and a member that left with
//! requests under way is found with those when it comes back; once nobody uses a gauge any more, it is gone.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::sync::{AtomicU32, AtomicU64};

/// The load of all pools of one process, by the identity of the pool and the name of the member.
///
/// It is locked while pools are built, and never by a pick.
#[derive(Debug, Default)]
pub struct Loads {
    pools: Mutex<HashMap<String, HashMap<String, Weak<Gauge>>>>,
}

/// What a member has to do at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Holds that are out.
    pub in_flight: u32,
    /// The moving average of its response times, faded to that moment; `None` before the first.
    pub latency: Option<Duration>,
}

/// One attempt that a pick has counted. Dropping it ends the count.
#[derive(Debug)]
#[must_use = "dropping it says that the attempt is over"]
pub struct Hold {
    gauge: Arc<Gauge>,
    has_observed: bool,
    /// It is counted.
    counts: bool,
}

/// The two numbers of one member.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    in_flight: AtomicU32,
    /// An [`Average`], packed into one word so that no reader sees half of one; 0 before the first.
    average: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
struct Average {
    /// Above 0.
    seconds: f32,
    /// When it was last added to, in milliseconds. Comes round after 49.7 days; see [`age`].
    touched: u32,
}

impl Loads {
    /// No load yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets what nobody uses any more. To be called before pools are built anew.
    pub fn tidy(&self) {
        self.pools().retain(|_, gauges| {
            gauges.retain(|_, gauge| gauge.strong_count() > 0);
            !gauges.is_empty()
        });
    }

    /// The gauges of the pool `key`, one for each name.
    pub(crate) fn gauges<'a>(
        &self,
        key: &str,
        names: impl Iterator<Item = &'a str>,
    ) -> Box<[Arc<Gauge>]> {
        let mut pools = self.pools();
        let known = pools.entry(key.to_owned()).or_default();
        names
            .map(|name| {
                if let Some(gauge) = known.get(name).and_then(Weak::upgrade) {
                    return gauge;
                }
                let gauge = Arc::default();
                known.insert(name.to_owned(), Arc::downgrade(&gauge));
                gauge
            })
            .collect()
    }

    pub(crate) fn pools(
        &self,
    ) -> std::sync::MutexGuard<'_, HashMap<String, HashMap<String, Weak<Gauge>>>> {
        // Each change to the map is whole in itself: a panic elsewhere has not spoilt it.
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hold {
    /// Adds a response time to the member's average; `now` as in [`Ask`](crate::Ask). Only the first one
    /// that a hold tells counts. One that comes at the same moment as another's is dropped.
    pub fn observe(&mut self, response_time: Duration, now: Duration) {
        if !self.has_observed {
            self.has_observed = true;
            self.gauge.observe(response_time, now);
        }
    }

    /// Ends the count for the time being: the attempt is over, unless it is [resumed](Self::resume). What
    /// it takes from here on says nothing about the member.
    pub fn suspend(&mut self) {
        self.has_observed = true;
        if std::mem::take(&mut self.counts) {
            self.gauge.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Counts the attempt again, if it is suspended.
    pub fn resume(&mut self) {
        if !std::mem::replace(&mut self.counts, true) {
            self.gauge.in_flight.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.suspend();
    }
}

/// Holds are equal if they are of the same member.
impl PartialEq for Hold {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.gauge, &other.gauge)
    }
}

impl Eq for Hold {}

// Relaxed everywhere: each number stands for itself and guards no other memory.
impl Gauge {
    #[inline]
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts one more.
    pub(crate) fn hold(self: &Arc<Self>) -> Hold {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.counted()
    }

    /// Counts one more, unless there are no longer `seen`: then whoever judged by that must look again.
    #[inline]
    pub(crate) fn hold_if(self: &Arc<Self>, seen: u32) -> Option<Hold> {
        self.in_flight
            .compare_exchange(seen, seen + 1, Ordering::Relaxed, Ordering::Relaxed)
            .ok()
            .map(|_| self.counted())
    }

    fn counted(self: &Arc<Self>) -> Hold {
        Hold {
            gauge: Arc::clone(self),
            has_observed: false,
            counts: true,
        }
    }

    /// The average as if response times of 0 had come in since, in seconds; 0 before the first.
    #[inline]
    pub(crate) fn latency(&self, now: Duration) -> f32 {
        self.average()
            .map_or(0.0, |average| average.seconds * average.weight(millis(now)))
    }

    pub(crate) fn load(&self, now: Duration) -> Load {
        let latency = self.average().map(|_| self.latency(now));
        Load {
            in_flight: self.in_flight(),
            latency: latency
                .map(|seconds| Duration::try_from_secs_f32(seconds).unwrap_or(Duration::MAX)),
        }
    }

    pub(crate) fn observe(&self, response_time: Duration, now: Duration) {
        let before = self.average.load(Ordering::Relaxed);
        let now = millis(now);
        let response_time = response_time.as_secs_f32();
        let (seconds, touched) = match Average::unpack(before) {
            None => (response_time, now),
            Some(average) => {
                let old = average.weight(now);
                let seconds = average.seconds * old + response_time * (1.0 - old);
                // Another thread's later touch stays.
                let is_later = age(average.touched, now) > 0;
                (seconds, if is_later { now } else { average.touched })
            }
        };
        let after = Average {
            seconds: seconds.max(f32::MIN_POSITIVE),
            touched,
        };
        // If another came in between, that one counts and this is dropped.
        let _ = self.average.compare_exchange(
            before,
            after.pack(),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }

    fn average(&self) -> Option<Average> {
        Average::unpack(self.average.load(Ordering::Relaxed))
    }
}

impl Average {
    fn unpack(word: u64) -> Option<Self> {
        (word != 0).then(|| Self {
            seconds: f32::from_bits((word >> 32) as u32),
            touched: word as u32,
        })
    }

    fn pack(self) -> u64 {
        u64::from(self.seconds.to_bits()) << 32 | u64::from(self.touched)
    }

    /// What the average counts for by now.
    fn weight(self, now: u32) -> f32 {
        let age = age(self.touched, now) as f32 / 1000.0;
        (-age / DECAY_SECONDS).exp()
    }
}

fn millis(now: Duration) -> u32 {
    now.as_millis() as u32
}

/// Milliseconds from `touched` to `now`; 0 if `now` was read a little earlier, by another thread.
///
/// Time comes round after 49.7 days. So what nobody has touched for exactly as long counts as fresh for a
/// while; that takes from it the start that idle members have, and nothing else.
fn age(touched: u32, now: u32) -> u32 {
    let age = now.wrapping_sub(touched);
    if age > u32::MAX - THREADS_APART_MS {
        0
    } else {
        age
    }
}

/// How long it takes an average to count for 1/e (APISIX: `DECAY_TIME`).
const DECAY_SECONDS: f32 = 10.0;

/// The most that the clock readings of two threads are taken to be apart, in milliseconds.
const THREADS_APART_MS: u32 = 60_000;
