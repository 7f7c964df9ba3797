//! Metrics: counted by each worker for itself, added up when somebody asks.
//!
//! The names, labels and bounds are APISIX's. A worker's shard is a map from labels to numbers
//! behind a mutex that nobody else takes except while metrics are rendered. Labels that a client
//! chooses are bounded: beyond [`SERIES_MAX`] series they all count under `<overflow>`.

mod families;
mod layout;
mod render;

use std::{
    hash::BuildHasher,
    sync::{Arc, Mutex, PoisonError},
};

use rustc_hash::{FxBuildHasher, FxHashMap};

pub(crate) use self::render::has_label;
pub use self::{
    families::MetricOptions,
    render::{Family, Owner, Sample},
};
use self::{
    families::{Counts, Labels, LabelsRef},
    layout::Layout,
};
use crate::{config::settings::PrometheusSettings, exchange::Exchange};

/// All shards.
pub struct Metrics {
    layout: Arc<Layout>,
    shards: Mutex<Vec<Arc<Shard>>>,
}

/// One worker's numbers.
pub struct Shard {
    layout: Arc<Layout>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    began: u64,
    ended: u64,
    clients: Clients,
    /// By hash of the labels, so that a look-up borrows them.
    series: FxHashMap<u64, Vec<(Labels, Counts)>>,
    count: usize,
    active: FxHashMap<u64, Vec<(Arc<ActiveLabels>, i64)>>,
}

/// Connections of clients since the start.
#[derive(Clone, Copy, Debug, Default)]
struct Clients {
    accepted: u64,
    /// Accepted, and not refused at once.
    handled: u64,
    closed: u64,
}

/// Labels of `llm_active_connections`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct ActiveLabels {
    /// In their order.
    texts: [String; 11],
    /// Values of all further labels.
    extra: Box<[String]>,
}

impl Metrics {
    /// No numbers yet, of the shape that the settings ask for.
    pub fn new(settings: &PrometheusSettings) -> Self {
        Self {
            layout: Arc::new(Layout::new(settings)),
            shards: Mutex::default(),
        }
    }

    /// A shard for one more worker.
    pub fn shard(&self) -> Arc<Shard> {
        let shard = Arc::new(Shard {
            layout: Arc::clone(&self.layout),
            inner: Mutex::default(),
        });
        self.shards
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::clone(&shard));
        shard
    }

    /// Everything, in Prometheus' text format 0.0.4, with `extra` samples.
    pub fn render(&self, extra: &[Sample], options: &MetricOptions) -> String {
        let shards = self
            .shards
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        render::render(&shards, extra, &self.layout, options)
    }
}

impl Shard {
    /// A client has connected, to be served or to be refused at once.
    pub fn connection_accepted(&self) {
        self.lock().clients.accepted += 1;
    }

    /// It is served.
    pub fn connection_opened(&self) {
        self.lock().clients.handled += 1;
    }

    /// A connection that was served is closed.
    pub fn connection_closed(&self) {
        self.lock().clients.closed += 1;
    }

    /// A request's head has arrived.
    pub fn request_began(&self) {
        self.lock().began += 1;
    }

    /// It has ended.
    pub fn request_ended(&self) {
        self.lock().ended += 1;
    }

    /// Counts a request that has ended.
    pub fn record(&self, exchange: &Exchange, prefer_name: bool) {
        let layout = &*self.layout;
        let facts = families::Facts::of(exchange, layout);
        let extra = layout.values(exchange);
        let labels = LabelsRef::of(exchange, prefer_name, &extra);
        let hash = FxBuildHasher.hash_one(&labels);
        let mut inner = self.lock();
        let inner = &mut *inner;
        let known = inner
            .series
            .get_mut(&hash)
            .and_then(|list| list.iter_mut().find(|(owned, _)| labels.is(owned)));
        if let Some((_, counts)) = known {
            counts.add(&facts, layout);
            return;
        }
        let owned = if inner.count < SERIES_MAX {
            labels.to_owned()
        } else {
            labels.overflow()
        };
        let hash = FxBuildHasher.hash_one(owned.borrow());
        let list = inner.series.entry(hash).or_default();
        let at = match list.iter().position(|(known, _)| *known == owned) {
            Some(at) => at,
            None => {
                inner.count += 1;
                list.push((owned, Counts::default()));
                list.len() - 1
            }
        };
        list[at].1.add(&facts, layout);
    }

    /// One more attempt under way; returns the labels that it is counted under.
    fn begin(&self, hash: u64, labels: &[&str; 11], extra: Box<[String]>) -> Arc<ActiveLabels> {
        let mut inner = self.lock();
        let list = inner.active.entry(hash).or_default();
        let known = list
            .iter_mut()
            .find(|(known, _)| known.texts == *labels && known.extra == extra);
        if let Some((known, value)) = known {
            *value += 1;
            return Arc::clone(known);
        }
        let owned = Arc::new(ActiveLabels {
            texts: labels.map(str::to_owned),
            extra,
        });
        list.push((Arc::clone(&owned), 1));
        let gone = inner.active.len() > SERIES_MAX;
        if gone {
            // Labels that clients choose must not grow without end: those at rest can go.
            inner
                .active
                .retain(|_, list| list.iter().any(|(_, value)| *value != 0));
        }
        owned
    }

    fn end(&self, hash: u64, labels: &Arc<ActiveLabels>) {
        let mut inner = self.lock();
        let list = inner
            .active
            .get_mut(&hash)
            .map(Vec::as_mut_slice)
            .unwrap_or_default();
        if let Some((_, value)) = list
            .iter_mut()
            .find(|(known, _)| Arc::ptr_eq(known, labels))
        {
            *value -= 1;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An attempt that is under way, counted in `llm_active_connections` as long as this lives.
pub struct ActiveConnection {
    shard: Arc<Shard>,
    hash: u64,
    labels: Arc<ActiveLabels>,
}

impl ActiveConnection {
    /// The current attempt of `exchange` begins.
    pub fn begin(exchange: &Exchange) -> Self {
        let shard = Arc::clone(exchange.gateway().metrics());
        let labels = families::active_labels(exchange);
        let extra = shard.layout.values(exchange);
        let hash = FxBuildHasher.hash_one((labels, &extra));
        let labels = shard.begin(hash, &labels, extra);
        Self {
            shard,
            hash,
            labels,
        }
    }
}

impl Drop for ActiveConnection {
    fn drop(&mut self) {
        self.shard.end(self.hash, &self.labels);
    }
}

/// What fell under each bound of a histogram.
#[derive(Clone, Debug, Default)]
struct Histogram {
    /// One per bound, once there is a value; those above the last are only in `count`.
    buckets: Vec<u64>,
    sum: u64,
    count: u64,
}

impl Histogram {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    fn observe(&mut self, value: u64, bounds: &[f64]) {
        self.buckets.resize(bounds.len(), 0);
        if let Some(bucket) = bounds.iter().position(|bound| value as f64 <= *bound) {
            self.buckets[bucket] += 1;
        }
        self.sum += value;
        self.count += 1;
    }

    fn add(&mut self, other: &Self) {
        if self.buckets.len() < other.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.sum += other.sum;
        self.count += other.count;
    }
}

/// Series of one worker; labels that clients choose must not grow without end.
pub const SERIES_MAX: usize = 10_000;
