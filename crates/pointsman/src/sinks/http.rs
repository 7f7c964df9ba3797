//! HTTP collectors behind a batch processor (APISIX 3.18: http-logger).
//!
//! Entries wait in a bounded queue. A batch goes out when it is full, when its oldest entry has
//! waited for `buffer_duration`, or when nothing has come for `inactive_timeout`. What cannot be
//! delivered after its retries is dropped and counted, and why is said once a minute at most.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use pointsman_ai::Endpoint;
use pointsman_gateway::{
    clock,
    ports::{HttpSink, Sink},
    upstream::destination::{Destination, Tls},
};
use tokio::sync::{Notify, mpsc, watch};

use super::Seldom;
use crate::http_client::Dialer;

/// Hands new queues to the control thread, which feeds their collectors.
pub(super) struct Delivery {
    new: mpsc::UnboundedSender<Arc<HttpQueue>>,
}

/// The queue of one collector.
pub(crate) struct HttpQueue {
    spec: HttpSink,
    waiting: Mutex<VecDeque<(Instant, Bytes)>>,
    notify: Notify,
    dropped: AtomicU64,
}

impl Delivery {
    /// A delivery, and where its queues come out. Unbounded: there is one message per collector
    /// in the configuration.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Arc<HttpQueue>>) {
        let (new, queues) = mpsc::unbounded_channel();
        (Self { new }, queues)
    }

    pub(super) fn open(&self, spec: &HttpSink) -> Arc<HttpQueue> {
        let queue = Arc::new(HttpQueue {
            spec: spec.clone(),
            waiting: Mutex::default(),
            notify: Notify::new(),
            dropped: AtomicU64::new(0),
        });
        // The receiver is gone only while the program ends.
        let _ = self.new.send(Arc::clone(&queue));
        queue
    }
}

impl Sink for HttpQueue {
    fn push(&self, entry: Bytes) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= self.spec.max_pending_entries {
            drop(waiting);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.push_back((clock::now(), entry));
        let wakes = waiting.len() == 1 || waiting.len() == self.spec.batch_max_size;
        drop(waiting);
        if wakes {
            self.notify.notify_one();
        }
    }

    fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn pending(&self) -> u64 {
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len() as u64
    }
}

/// Feeds one collector until nobody can push any more and the queue is empty, or until the
/// program is `ending`: then what is there goes out at once.
pub(crate) async fn feed(
    queue: Arc<HttpQueue>,
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
            deliver(&queue, &dialer, batch, &mut told).await;
        } else if Arc::strong_count(&queue) == 1 {
            return;
        }
    }
    loop {
        let batch = take(&queue, queue.spec.batch_max_size);
        if batch.is_empty() {
            return;
        }
        deliver(&queue, &dialer, batch, &mut told).await;
    }
}

/// The next batch once it is due; empty when nothing has come for a while.
async fn next_batch(queue: &HttpQueue) -> Vec<Bytes> {
    let spec = &queue.spec;
    loop {
        let due = {
            let waiting = queue.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            match (waiting.front(), waiting.back()) {
                (Some((oldest, _)), Some((newest, _))) if waiting.len() < spec.batch_max_size => {
                    (*oldest + spec.buffer_duration).min(*newest + spec.inactive_timeout)
                }
                (Some(_), _) => clock::now(),
                (None, _) => clock::now() + spec.inactive_timeout,
            }
        };
        if due <= clock::now() {
            return take(queue, spec.batch_max_size);
        }
        let idle = tokio::time::timeout_at(due.into(), queue.notify.notified())
            .await
            .is_err();
        if idle && queue.pending() == 0 {
            return Vec::new();
        }
    }
}

fn take(queue: &HttpQueue, most: usize) -> Vec<Bytes> {
    let mut waiting = queue.waiting.lock().unwrap_or_else(PoisonError::into_inner);
    let count = waiting.len().min(most);
    waiting.drain(..count).map(|(_, entry)| entry).collect()
}

async fn deliver(queue: &HttpQueue, dialer: &Dialer, batch: Vec<Bytes>, told: &mut Seldom) {
    let spec = &queue.spec;
    let body = join(spec, &batch);
    let mut last = String::new();
    for attempt in 0..=spec.max_retry_count {
        if attempt > 0 {
            tokio::time::sleep(spec.retry_delay).await;
        }
        match tokio::time::timeout(spec.timeout, post(spec, dialer, body.clone())).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => last = error,
            Err(_) => last = format!("no answer within {:?}", spec.timeout),
        }
    }
    queue
        .dropped
        .fetch_add(batch.len() as u64, Ordering::Relaxed);
    if told.is_due(clock::now()) {
        tracing::error!(
            logger = spec.name,
            route = spec.route_id,
            entries = batch.len(),
            "log batch dropped: {last}"
        );
    }
}

/// A single entry goes as an object when batches hold one entry; otherwise as an array or lines.
fn join(spec: &HttpSink, batch: &[Bytes]) -> Bytes {
    let size = batch.iter().map(|entry| entry.len() + 1).sum::<usize>() + 2;
    let mut body = Vec::with_capacity(size);
    let (open, separator, close): (&[u8], &[u8], &[u8]) = match (spec.new_line, spec.batch_max_size)
    {
        (true, _) => (b"", b"\n", b""),
        (false, 1) => (b"", b"", b""),
        (false, _) => (b"[", b",", b"]"),
    };
    body.extend_from_slice(open);
    for (index, entry) in batch.iter().enumerate() {
        if index > 0 {
            body.extend_from_slice(separator);
        }
        body.extend_from_slice(entry);
    }
    body.extend_from_slice(close);
    body.into()
}

async fn post(spec: &HttpSink, dialer: &Dialer, body: Bytes) -> Result<(), String> {
    let endpoint = Endpoint::parse(&spec.uri).map_err(|error| error.to_string())?;
    let tls = endpoint.is_https().then(|| Tls {
        server_name: endpoint.host().into(),
        verify: spec.ssl_verify,
        client: None,
    });
    let destination = Destination::new(endpoint.host(), endpoint.port(), tls)?;
    let (stream, _) = dialer
        .dial(&destination)
        .await
        .map_err(|error| error.detail)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let driving = tokio::task::spawn_local(connection);
    let kind = if spec.new_line {
        "text/plain"
    } else {
        "application/json"
    };
    let mut request = Request::post(endpoint.target())
        .header(header::HOST, destination.authority.clone())
        .header(header::CONTENT_TYPE, kind)
        .body(Full::new(body))
        .map_err(|error| error.to_string())?;
    if let Some(value) = &spec.auth_header {
        let mut value = HeaderValue::from_str(value).map_err(|_| "auth_header is not valid")?;
        value.set_sensitive(true);
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| error.to_string());
    drop(sender);
    driving.abort();
    let status = response?.status();
    if status.as_u16() >= 400 {
        Err(format!("the collector answered {status}"))
    } else {
        Ok(())
    }
}
