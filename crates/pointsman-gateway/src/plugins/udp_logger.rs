//! `udp-logger`: entries in batches as datagrams.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    logging::{self, Batch, Outlet},
    parse,
};
use crate::{
    config::{
        plugin_schema::{Faults, PluginSchema},
        resource::schema_of,
        snapshot::whole_seconds,
    },
    observe::entry::{LogConf, LogMetadata},
    plugin::{
        Plugin,
        registry::{Building, PluginKind},
    },
    ports::{Join, UdpWire, Wire},
};

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct Conf {
    /// Name or address of the collector.
    host: String,
    /// Its port.
    port: u16,
    /// Seconds for a delivery.
    #[serde(default = "three")]
    #[schemars(range(min = 1))]
    timeout: u64,
    /// How entries are gathered.
    #[serde(flatten)]
    batch: Batch,
    /// What is logged.
    #[serde(flatten)]
    common: LogConf,
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: NAME,
            priority: 400,
            version: "0.1",
            schema: schema_of::<Conf>(),
            consumer_schema: None,
            metadata_schema: Some(schema_of::<LogMetadata>()),
            is_auth: false,
            check: |conf| logging::check(parse::<Conf>(conf)?.common),
        },
        build,
        checkers: None,
        identity_field: None,
    }
}

fn build(conf: &Value, building: &mut Building<'_>) -> Result<Arc<dyn Plugin>, Faults> {
    let conf: Conf = parse(conf)?;
    let join = Join::json(conf.batch.batch_max_size);
    let wire = Wire::Udp(UdpWire {
        host: conf.host,
        port: conf.port,
        timeout: whole_seconds(conf.timeout),
    });
    let outlet = Outlet::new(NAME, join, wire);
    logging::build(outlet, conf.common, conf.batch, building)
}

fn three() -> u64 {
    3
}

const NAME: &str = "udp-logger";
