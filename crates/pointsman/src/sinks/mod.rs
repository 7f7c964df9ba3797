//! Where log entries go: files and collectors, fed through bounded queues.
//!
//! A worker only ever appends to a queue. Files are written by one thread of their own, because
//! a disk can stall; collectors are fed by tasks on the control thread.

mod batch;
mod drops;
mod file;
mod http;
mod place;
mod socket;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use pointsman_gateway::ports::{Sink, SinkSpec, Sinks};
use tokio::sync::mpsc;

use self::batch::Delivery;

pub(crate) use self::{
    batch::{Queue, feed},
    drops::watch,
    file::Writer,
    place::problem,
};

/// The writer of files, the sinks, and where the queues of collectors come out. No sink is open
/// yet.
///
/// # Errors
/// When no thread can be started, or `access_log`, a path, cannot be opened.
pub(crate) fn start(
    access_log: Option<&str>,
) -> Result<(Arc<Writer>, Arc<OpenSinks>, Queues), String> {
    if let Some(path) = access_log {
        file::try_open(path).map_err(|error| format!("access log: {error}"))?;
    }
    let writer = Writer::start().map_err(|error| format!("cannot start a thread: {error}"))?;
    let writer = Arc::new(writer);
    let (delivery, queues) = Delivery::new();
    let sinks = Arc::new(OpenSinks::new(Arc::clone(&writer), delivery));
    Ok((writer, sinks, queues))
}

/// New queues, one for each collector.
pub(crate) type Queues = mpsc::UnboundedReceiver<Arc<Queue>>;

/// All sinks in use, by specification.
pub(crate) struct OpenSinks {
    writer: Arc<Writer>,
    delivery: Delivery,
    open: Mutex<HashMap<SinkSpec, Weak<dyn Sink>>>,
}

impl OpenSinks {
    /// No sink is open yet.
    fn new(writer: Arc<Writer>, delivery: Delivery) -> Self {
        Self {
            writer,
            delivery,
            open: Mutex::default(),
        }
    }

    /// The sinks that are open, for metrics.
    pub(crate) fn list(&self) -> Vec<(SinkSpec, Arc<dyn Sink>)> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter()
            .filter_map(|(spec, sink)| Some((spec.clone(), sink.upgrade()?)))
            .collect()
    }
}

impl Sinks for OpenSinks {
    fn open(&self, spec: &SinkSpec) -> Arc<dyn Sink> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, sink| sink.strong_count() > 0);
        if let Some(sink) = open.get(spec).and_then(Weak::upgrade) {
            return sink;
        }
        let sink: Arc<dyn Sink> = match spec {
            SinkSpec::File { path } => self.writer.open(path),
            SinkSpec::Batched(spec) => self.delivery.open(spec),
        };
        open.insert(spec.clone(), Arc::downgrade(&sink));
        sink
    }

    fn problem(&self, spec: &SinkSpec) -> Option<String> {
        problem_of(spec)
    }
}

/// Why `spec` cannot work, as far as that can be seen without touching anything.
pub(crate) fn problem_of(spec: &SinkSpec) -> Option<String> {
    match spec {
        SinkSpec::File { path } => problem(path),
        SinkSpec::Batched(_) => None,
    }
}

/// Something that is worth a line once in a while.
#[derive(Debug, Default)]
struct Seldom {
    last: Option<Instant>,
}

impl Seldom {
    /// Whether a line is due at `now`; if so, the next one only after a pause.
    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self
            .last
            .is_none_or(|last| now.saturating_duration_since(last) >= PAUSE);
        if is_due {
            self.last = Some(now);
        }
        is_due
    }
}

/// From one line about a sink to the next.
const PAUSE: Duration = Duration::from_secs(60);
