//! Places that a request has among those under way, until it ends.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderName, HeaderValue};

use super::Exchange;
use crate::limits::{
    Slot,
    remote::{Call, Server},
};

/// A place, and who learns from how long the request took.
pub(crate) struct Held {
    /// The place.
    pub(crate) place: Place,
    /// How long such requests take.
    pub(crate) pace: Option<Arc<Pace>>,
    /// How long the request was kept waiting for it.
    pub(crate) delay: Duration,
}

/// Where the place is.
pub(crate) enum Place {
    /// In this process.
    Here(Slot),
    /// At a server, and what gives it back there, whether or not it was taken.
    Afar(Arc<Server>, Call),
}

/// How long requests take, roughly: each halves the distance to its own time, as in
/// `lua-resty-limit-traffic`.
pub(crate) struct Pace(AtomicU64);

impl Pace {
    /// Until something is known.
    pub(crate) fn new(first: Duration) -> Self {
        Self(AtomicU64::new(micros(first)))
    }

    /// What is known so far.
    pub(crate) fn so_far(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }

    /// A request took so long.
    fn learn(&self, took: Duration) {
        let took = micros(took);
        let halve = |pace: u64| Some(pace / 2 + took / 2);
        // Never fails, as there is always a next value.
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, halve);
    }
}

impl Exchange {
    /// Keeps a place until the request ends.
    pub(crate) fn hold(&mut self, held: Held) {
        self.rare_mut().held.push(held);
    }

    /// The place that was kept last, as if it had not been.
    pub(crate) fn let_go(&mut self) -> Option<Held> {
        self.rare_mut().held.pop()
    }

    /// Gives back every place that it has. Called once, at its end.
    pub(super) fn leave(&mut self) {
        let held = match self.rare.get_mut() {
            Some(rare) if !rare.held.is_empty() => std::mem::take(&mut rare.held),
            _ => return,
        };
        let upstream: Option<Duration> = self.attempts.iter().map(|a| a.total).sum();
        let upstream = upstream.filter(|_| !self.attempts.is_empty());
        for Held { place, pace, delay } in held {
            match place {
                Place::Here(slot) => self.gateway.limits().leave(slot),
                Place::Afar(server, call) => self.gateway.counters().send(&server, call),
            }
            if let Some(pace) = pace {
                pace.learn(upstream.unwrap_or_else(|| self.took.saturating_sub(delay)));
            }
        }
    }

    /// Sets a header of the answer, whoever makes that and whatever its target says.
    pub(crate) fn set_answer_header(&mut self, name: HeaderName, value: HeaderValue) {
        self.rare_mut().answer_headers.push((name, value));
    }

    /// Those headers, once.
    pub(crate) fn take_answer_headers(&mut self) -> Vec<(HeaderName, HeaderValue)> {
        let rare = self.rare.get_mut();
        rare.map(|rare| std::mem::take(&mut rare.answer_headers))
            .unwrap_or_default()
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
