//! `http-logger`: entries in batches to an HTTP collector.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::parse;
use crate::{
    config::{
        plugin_schema::{Faults, PluginSchema},
        resource::schema_of,
        snapshot::{seconds, whole_seconds},
    },
    exchange::Exchange,
    observe::entry::{LogConf, LogMetadata, Wants, Writer},
    plugin::{
        Phases, Plugin,
        registry::{Building, PluginKind},
    },
    ports::{HttpSink, Sink, SinkSpec},
};

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct Conf {
    /// Where entries are posted.
    #[schemars(regex(pattern = r"^[^\/]+:\/\/([\da-zA-Z.-]+|\[[\da-fA-F:]+\])(:\d+)?"))]
    uri: String,
    /// `Authorization` of the posts.
    auth_header: Option<String>,
    /// Seconds for a delivery.
    #[serde(default = "three")]
    #[schemars(range(min = 1))]
    timeout: u64,
    /// How entries are joined.
    #[serde(default)]
    concat_method: Concat,
    /// Verify the collector's certificate.
    #[serde(default)]
    ssl_verify: bool,
    /// How entries are gathered.
    #[serde(flatten)]
    batch: Batch,
    /// What is logged.
    #[serde(flatten)]
    common: LogConf,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Concat {
    #[default]
    Json,
    NewLine,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Batch {
    /// Name in metrics and logs.
    name: String,
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
    batch_max_size: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            name: "http-logger".to_owned(),
            max_retry_count: 0,
            retry_delay: 1.0,
            buffer_duration: 60,
            inactive_timeout: 5,
            batch_max_size: 1000,
        }
    }
}

struct HttpLogger {
    sink: Arc<dyn Sink>,
    writer: Writer,
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: "http-logger",
            priority: 410,
            version: "0.1",
            schema: schema_of::<Conf>(),
            consumer_schema: None,
            metadata_schema: Some(schema_of::<LogMetadata>()),
            is_auth: false,
            check,
        },
        build,
        checkers: None,
        identity_field: None,
    }
}

fn check(conf: &Value) -> Result<(), Faults> {
    let conf: Conf = parse(conf)?;
    Writer::new(conf.common, &LogMetadata::default()).map(drop)
}

fn build(conf: &Value, building: &mut Building<'_>) -> Result<Arc<dyn Plugin>, Faults> {
    let conf: Conf = parse(conf)?;
    let metadata: LogMetadata = building
        .metadata
        .map(parse)
        .transpose()?
        .unwrap_or_default();
    let spec = HttpSink {
        uri: conf.uri,
        auth_header: conf.auth_header,
        timeout: whole_seconds(conf.timeout),
        ssl_verify: conf.ssl_verify,
        new_line: conf.concat_method == Concat::NewLine,
        max_retry_count: conf.batch.max_retry_count,
        retry_delay: seconds(conf.batch.retry_delay),
        buffer_duration: whole_seconds(conf.batch.buffer_duration),
        inactive_timeout: whole_seconds(conf.batch.inactive_timeout),
        batch_max_size: conf.batch.batch_max_size,
        max_pending_entries: metadata.max_pending_entries.unwrap_or(PENDING_MAX),
        name: conf.batch.name,
        route_id: building
            .owner
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned(),
    };
    let writer = Writer::new(conf.common, &metadata)?;
    let sink = building.sinks.open(&SinkSpec::Http(Box::new(spec)));
    Ok(Arc::new(HttpLogger { sink, writer }))
}

fn three() -> u64 {
    3
}

impl Plugin for HttpLogger {
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
