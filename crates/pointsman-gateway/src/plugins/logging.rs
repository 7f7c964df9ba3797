//! What the loggers that send batches have in common: how entries are gathered, and what is done with
//! each.

use std::sync::Arc;

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

/// A logger that sends batches.
struct Logger {
    sink: Arc<dyn Sink>,
    writer: Writer,
}

/// What is wrong with `conf`, as far as its schema cannot say.
pub(super) fn check(conf: LogConf) -> Result<(), Faults> {
    Writer::new(conf, &LogMetadata::default()).map(drop)
}

/// A plugin called `name` that sends what `common` says over `wire`.
pub(super) fn build(
    name: &str,
    common: LogConf,
    batch: Batch,
    (join, wire): (Join, Wire),
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
        name: batch.name.unwrap_or_else(|| name.to_owned()),
        route_id: route_id.to_owned(),
    };
    let writer = Writer::new(common, &metadata)?;
    let sink = building.sinks.open(&SinkSpec::Batched(Arc::new(Batched {
        batching,
        join,
        wire,
    })));
    Ok(Arc::new(Logger { sink, writer }))
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
        self.sink.push(self.writer.entry(exchange));
    }
}

/// `max_pending_entries` unless the metadata has one.
const PENDING_MAX: usize = 8192;
