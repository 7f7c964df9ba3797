//! `http-logger`: entries in batches to an HTTP collector.

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
    ports::{HttpWire, Join, Wire},
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

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: NAME,
            priority: 410,
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
    let (join, content_type) = match conf.concat_method {
        Concat::Json => (Join::json(conf.batch.batch_max_size), "application/json"),
        Concat::NewLine => (Join::lines(), "text/plain"),
    };
    let authorization = conf
        .auth_header
        .map(|value| ("authorization".to_owned(), value));
    let wire = Wire::Http(HttpWire {
        uris: vec![conf.uri],
        content_type,
        headers: authorization.into_iter().collect(),
        timeout: whole_seconds(conf.timeout),
        ssl_verify: conf.ssl_verify,
    });
    let outlet = Outlet::new(NAME, join, wire);
    logging::build(outlet, conf.common, conf.batch, building)
}

fn three() -> u64 {
    3
}

const NAME: &str = "http-logger";
