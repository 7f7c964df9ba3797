//! `tcp-logger`: entries in batches over a TCP connection each, with or without TLS.

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
        snapshot::millis,
    },
    observe::entry::{LogConf, LogMetadata},
    plugin::{
        Plugin,
        registry::{Building, PluginKind},
    },
    ports::{Join, TcpWire, Wire},
};

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct Conf {
    /// Name or address of the collector.
    host: String,
    /// Its port.
    port: u16,
    /// Over TLS.
    #[serde(default)]
    tls: bool,
    /// The server name that TLS asks for; the host unless given.
    tls_options: Option<String>,
    /// Milliseconds for a delivery.
    #[serde(default = "second")]
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
            priority: 405,
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
    let server_name = conf.tls_options.unwrap_or_else(|| conf.host.clone());
    let wire = Wire::Tcp(TcpWire {
        host: conf.host,
        port: conf.port,
        tls: conf.tls.then_some(server_name),
        timeout: millis(conf.timeout),
    });
    let outlet = Outlet::new(NAME, join, wire);
    logging::build(outlet, conf.common, conf.batch, building)
}

fn second() -> u64 {
    1000
}

const NAME: &str = "tcp-logger";
