//! Where log entries go: files and collectors, fed through bounded queues.
//!
//! A worker only ever appends to a queue. Files are written by one thread of their own, because
//! a disk can stall; collectors are fed by tasks on the control thread.

mod file;
mod http;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use pointsman_gateway::ports::{Sink, SinkSpec, Sinks};

pub(crate) use self::{
    file::Writer,
    http::{Delivery, HttpQueue, feed},
};

/// All sinks in use, by specification.
pub(crate) struct OpenSinks {
    writer: Arc<Writer>,
    delivery: Delivery,
    open: Mutex<HashMap<SinkSpec, Weak<dyn Sink>>>,
}

impl OpenSinks {
    /// No sink is open yet.
    pub(crate) fn new(writer: Arc<Writer>, delivery: Delivery) -> Self {
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
            SinkSpec::Http(spec) => self.delivery.open(spec),
        };
        open.insert(spec.clone(), Arc::downgrade(&sink));
        sink
    }
}
