//! `clickhouse-logger`: entries in batches into a table of ClickHouse, over its HTTP interface.

use std::sync::Arc;

use http::HeaderValue;
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
    endpoint_addr: Option<String>,
    /// Instead of it: one of these each time.
    #[schemars(
        length(min = 1),
        inner(regex(pattern = r"^[^\/]+:\/\/([\da-zA-Z.-]+|\[[\da-fA-F:]+\])(:\d+)?"))
    )]
    endpoint_addrs: Option<Vec<String>>,
    /// Who inserts.
    user: String,
    /// Its password.
    password: String,
    /// Where the table is.
    database: String,
    /// The table.
    logtable: String,
    /// Seconds for a delivery.
    #[serde(default = "three")]
    #[schemars(range(min = 1))]
    timeout: u64,
    /// Verify the server's certificate.
    #[serde(default = "yes")]
    ssl_verify: bool,
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
            priority: 398,
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
    let (uris, headers) = (conf.uris().map(drop), conf.headers().map(drop));
    Faults::collect([uris, headers, logging::check(conf.common)]).map(drop)
}

fn build(conf: &Value, building: &mut Building<'_>) -> Result<Arc<dyn Plugin>, Faults> {
    let conf: Conf = parse(conf)?;
    let wire = Wire::Http(HttpWire {
        uris: conf.uris()?,
        content_type: "application/json",
        headers: conf.headers()?,
        timeout: whole_seconds(conf.timeout),
        ssl_verify: conf.ssl_verify,
    });
    let join = Join::Separated {
        before: format!("INSERT INTO {} FORMAT JSONEachRow ", conf.logtable),
        between: " ",
    };
    let outlet = Outlet::new(NAME, join, wire);
    logging::build(outlet, conf.common, conf.batch, building)
}

impl Conf {
    fn uris(&self) -> Result<Vec<String>, Faults> {
        match (&self.endpoint_addr, &self.endpoint_addrs) {
            (Some(uri), None) => Ok(vec![uri.clone()]),
            (None, Some(uris)) => Ok(uris.clone()),
            _ => Err("either \"endpoint_addr\" or \"endpoint_addrs\" is required, not both".into()),
        }
    }

    fn headers(&self) -> Result<Vec<(String, String)>, Faults> {
        let headers = [
            ("user", "x-clickhouse-user", &self.user),
            ("password", "x-clickhouse-key", &self.password),
            ("database", "x-clickhouse-database", &self.database),
        ];
        Faults::collect(headers.map(|(field, name, value)| {
            // What it holds may be secret.
            let told = |_| Faults::at(field, format!("{field}: it cannot stand in a header"));
            HeaderValue::from_str(value).map_err(told)?;
            Ok((name.to_owned(), value.clone()))
        }))
    }
}

fn three() -> u64 {
    3
}

fn yes() -> bool {
    true
}

const NAME: &str = "clickhouse-logger";
