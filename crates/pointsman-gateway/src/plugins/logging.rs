//! What the loggers that send batches have in common: how entries are gathered, and what is done with
//! each.

use std::sync::Arc;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::parse;
use crate::{
    config::{
        plugin_schema::Faults,
        snapshot::{seconds, whole_seconds},
    },
    exchange::Exchange,
    observe::entry::{LogConf, LogMetadata, Wants, Writer},
    plugin::{Phases, Plugin, registry::Building},
    ports::{Batched, Batching, Join, Sink, SinkSpec, Wire},
};

/// How entries are gathered.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(super) struct Batch {
    /// Name in metrics and logs; the plugin's unless given.
    name: Option<String>,
    /// Deliveries after the first.
    max_retry_count: u32,
    /// Seconds before each of those.
    #[schemars(range(min = 0))]
    retry_delay: f64,
    /// Seconds that the oldest entry waits at most.
    #[schemars(range(min = 1))]
    buffer_duration: u64,
    /// Seconds without a new entry after which a batch goes.
    #[schemars(range(min = 1))]
    inactive_timeout: u64,
    /// Entries of a batch.
    #[schemars(range(min = 1))]
    pub(super) batch_max_size: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            name: None,
            max_retry_count: 0,
            retry_delay: 1.0,
            buffer_duration: 60,
            inactive_timeout: 5,
            batch_max_size: 1000,
        }
    }
}

/// Where a logger sends what, and what it makes of a request.
pub(super) struct Outlet {
    /// The plugin's name.
    pub(super) name: &'static str,
    /// How entries become what is sent.
    pub(super) join: Join,
    /// How that is sent.
    pub(super) wire: Wire,
    /// Makes an entry of a request that has ended.
    pub(super) entry: fn(&Writer, &Exchange) -> Bytes,
    /// Bytes that may wait.
    pub(super) pending_bytes_max: usize,
}

impl Outlet {
    /// Entries as all loggers write them.
    pub(super) fn new(name: &'static str, join: Join, wire: Wire) -> Self {
        Self {
            name,
            join,
            wire,
            entry: Writer::entry,
            pending_bytes_max: PENDING_BYTES_MAX,
        }
    }
}

/// A logger that sends batches.
struct Logger {
    sink: Arc<dyn Sink>,
    writer: Writer,
    entry: fn(&Writer, &Exchange) -> Bytes,
}

/// What is wrong with `conf`, as far as its schema cannot say.
pub(super) fn check(conf: LogConf) -> Result<(), Faults> {
    Writer::new(conf, &LogMetadata::default()).map(drop)
}

/// A plugin that logs what `common` says, gathered as `batch` says.
pub(super) fn build(
    outlet: Outlet,
    common: LogConf,
    batch: Batch,
    building: &mut Building<'_>,
) -> Result<Arc<dyn Plugin>, Faults> {
    let metadata: LogMetadata = building
        .metadata
        .map(parse)
        .transpose()?
        .unwrap_or_default();
    let route_id = building.owner.rsplit('/').next().unwrap_or_default();
    let batching = Batching {
        max_retry_count: batch.max_retry_count,
        retry_delay: seconds(batch.retry_delay),
        buffer_duration: whole_seconds(batch.buffer_duration),
        inactive_timeout: whole_seconds(batch.inactive_timeout),
        batch_max_size: batch.batch_max_size,
        max_pending_entries: metadata.max_pending_entries.unwrap_or(PENDING_MAX),
        pending_bytes_max: outlet.pending_bytes_max,
        name: batch.name.unwrap_or_else(|| outlet.name.to_owned()),
        route_id: route_id.to_owned(),
    };
    let writer = Writer::new(common, &metadata)?;
    let sink = building.sinks.open(&SinkSpec::Batched(Arc::new(Batched {
        batching,
        join: outlet.join,
        wire: outlet.wire,
    })));
    Ok(Arc::new(Logger {
        sink,
        writer,
        entry: outlet.entry,
    }))
}

impl Plugin for Logger {
    fn phases(&self) -> Phases {
        Phases::LOG
    }

    fn wants(&self) -> Wants {
        self.writer.wants()
    }

    fn reads_body(&self) -> Phases {
        Phases::LOG.when(self.writer.reads_body())
    }

    fn log(&self, exchange: &Exchange) {
        self.sink.push((self.entry)(&self.writer, exchange));
    }
}

/// `max_pending_entries` unless the metadata has one.
const PENDING_MAX: usize = 8192;
/// As many bytes may wait for one collector.
const PENDING_BYTES_MAX: usize = 64 << 20;
