//! The batch processor (APISIX 3.18): between every logger and its collector, whatever they speak.
//!
//! Entries wait in a bounded queue. A batch goes out when it is full, when its oldest entry has
//! waited for `buffer_duration`, or when nothing has come for `inactive_timeout`. What cannot be
//! delivered after its retries is dropped and counted, and why is said once a minute at most.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use pointsman_gateway::{
    clock,
    ports::{Batched, Parcel, Sink, Wire},
};
use tokio::sync::{Notify, mpsc, watch};

use super::{Seldom, http, socket};
use crate::http_client::Dialer;

/// Hands new queues to the control thread, which feeds their collectors.
pub(super) struct Delivery {
    new: mpsc::UnboundedSender<Arc<Queue>>,
}

/// The queue of one collector.
pub(crate) struct Queue {
    spec: Arc<Batched>,
    waiting: Mutex<Waiting>,
    notify: Notify,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    entries: VecDeque<(Instant, Bytes)>,
    bytes: usize,
}

impl Delivery {
    /// A delivery, and where its queues come out. Unbounded: there is one message per collector
    /// in the configuration.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Arc<Queue>>) {
        let (new, queues) = mpsc::unbounded_channel();
        (Self { new }, queues)
    }

    pub(super) fn open(&self, spec: &Arc<Batched>) -> Arc<Queue> {
        let queue = Arc::new(Queue::new(Arc::clone(spec)));
        // The receiver is gone only while the program ends.
        let _ = self.new.send(Arc::clone(&queue));
        queue
    }
}

impl Queue {
    fn new(spec: Arc<Batched>) -> Self {
        Self {
            spec,
            waiting: Mutex::default(),
            notify: Notify::new(),
            dropped: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose(&self, entries: usize) {
        self.dropped.fetch_add(entries as u64, Ordering::Relaxed);
    }

    /// The entries of the next batch.
    fn take(&self) -> Vec<Bytes> {
        let mut waiting = self.lock();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < self.spec.batching.batch_max_size && bytes < BATCH_BYTES {
            let Some((_, entry)) = waiting.entries.pop_front() else {
                break;
            };
            bytes += entry.len();
            batch.push(entry);
        }
        waiting.bytes -= bytes;
        batch
    }
}

impl Waiting {
    fn is_batch(&self, spec: &Batched) -> bool {
        self.entries.len() >= spec.batching.batch_max_size || self.bytes >= BATCH_BYTES
    }
}

impl Sink for Queue {
    fn push(&self, entry: Bytes) {
        let mut waiting = self.lock();
        let spec = &self.spec.batching;
        if waiting.entries.len() >= spec.max_pending_entries
            || waiting.bytes + entry.len() > spec.pending_bytes_max
        {
            drop(waiting);
            self.lose(1);
            return;
        }
        let was_batch = waiting.is_batch(&self.spec);
        waiting.bytes += entry.len();
        waiting.entries.push_back((clock::now(), entry));
        let wakes = waiting.entries.len() == 1 || waiting.is_batch(&self.spec) != was_batch;
        drop(waiting);
        if wakes {
            self.notify.notify_one();
        }
    }

    fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn pending(&self) -> u64 {
        self.lock().entries.len() as u64
    }
}

/// Feeds one collector until nobody can push any more and the queue is empty, or until the
/// program is `ending`: then what is there goes out at once.
pub(crate) async fn feed(
    queue: Arc<Queue>,
    dialer: Arc<Dialer>,
    mut ending: watch::Receiver<bool>,
) {
    let mut told = Seldom::default();
    loop {
        let batch = tokio::select! {
            biased;
            _ = ending.wait_for(|ending| *ending) => break,
            batch = next_batch(&queue) => batch,
        };
        if !batch.is_empty() {
            deliver(&queue, &dialer, &batch, &mut told).await;
        } else if Arc::strong_count(&queue) == 1 {
            return;
        }
    }
    loop {
        let batch = queue.take();
        if batch.is_empty() {
            return;
        }
        deliver(&queue, &dialer, &batch, &mut told).await;
    }
}

/// The next batch once it is due; empty when nothing has come for a while.
async fn next_batch(queue: &Queue) -> Vec<Bytes> {
    let spec = &queue.spec.batching;
    loop {
        let due = {
            let waiting = queue.lock();
            match (waiting.entries.front(), waiting.entries.back()) {
                (Some((oldest, _)), Some((newest, _))) if !waiting.is_batch(&queue.spec) => {
                    (*oldest + spec.buffer_duration).min(*newest + spec.inactive_timeout)
                }
                (Some(_), _) => clock::now(),
                (None, _) => clock::now() + spec.inactive_timeout,
            }
        };
        if due <= clock::now() {
            return queue.take();
        }
        let idle = tokio::time::timeout_at(due.into(), queue.notify.notified())
            .await
            .is_err();
        if idle && queue.pending() == 0 {
            return Vec::new();
        }
    }
}

/// Sends `batch`, and what of it was not taken again as often as it may be.
async fn deliver(queue: &Queue, dialer: &Dialer, batch: &[Bytes], told: &mut Seldom) {
    let spec = &*queue.spec;
    let (parcels, oversized) = spec.parcels(batch);
    let mut left = VecDeque::from(parcels);
    let mut last = String::new();
    for attempt in 0..=spec.batching.max_retry_count {
        if left.is_empty() {
            break;
        }
        if attempt > 0 {
            tokio::time::sleep(spec.batching.retry_delay).await;
        }
        let limit = spec.wire.timeout();
        match tokio::time::timeout(limit, send(&spec.wire, dialer, &mut left)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => last = error,
            Err(_) => last = format!("not taken within {limit:?}"),
        }
    }
    let undelivered: usize = left.iter().map(|parcel| parcel.entries).sum();
    let lost = undelivered + oversized;
    if lost == 0 {
        return;
    }
    queue.lose(lost);
    if undelivered == 0 {
        last = "each of them is longer than the collector can be sent at once".to_owned();
    }
    if told.is_due(clock::now()) {
        tracing::error!(
            logger = spec.batching.name,
            route = spec.batching.route_id,
            entries = lost,
            "log batch dropped: {last}"
        );
    }
}

/// Sends `parcels`, and takes out what has been taken.
async fn send(wire: &Wire, dialer: &Dialer, parcels: &mut VecDeque<Parcel>) -> Result<(), String> {
    match wire {
        Wire::Http(wire) => http::send(wire, dialer, parcels).await,
        Wire::Tcp(wire) => socket::send_over_tcp(wire, dialer, parcels).await,
        Wire::Udp(wire) => socket::send_datagrams(wire, dialer, parcels).await,
    }
}

/// A batch goes out when it has this many bytes, however few entries those are.
const BATCH_BYTES: usize = 8 << 20;
