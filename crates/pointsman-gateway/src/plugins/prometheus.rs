//! `prometheus`: counts the requests of a route.

use std::{collections::BTreeMap, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{no_rules, parse};
use crate::{
    config::{
        plugin_schema::{Faults, PluginSchema},
        resource::schema_of,
    },
    exchange::Exchange,
    plugin::{
        Phases, Plugin,
        registry::{Building, PluginKind},
    },
};

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Conf {
    /// Labels carry names of routes and services instead of ids.
    prefer_name: bool,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Metadata {
    /// Labels to blank, by metric. `type` of `llm_latency` cannot be one.
    #[schemars(extend("properties" = {"llm_latency": {"type": "array", "items": {"enum":
        ["route_id", "service_id", "consumer", "node", "request_type", "request_llm_model", "llm_model"]}}}))]
    disabled_labels: BTreeMap<String, Vec<String>>,
}

struct Prometheus {
    conf: Conf,
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: "prometheus",
            priority: 500,
            version: "0.2",
            schema: schema_of::<Conf>(),
            consumer_schema: None,
            metadata_schema: Some(schema_of::<Metadata>()),
            is_auth: false,
            check: no_rules,
        },
        build,
        checkers: None,
        identity_field: None,
    }
}

fn build(conf: &Value, _: &mut Building<'_>) -> Result<Arc<dyn Plugin>, Faults> {
    Ok(Arc::new(Prometheus { conf: parse(conf)? }))
}

impl Plugin for Prometheus {
    fn phases(&self) -> Phases {
        Phases::LOG
    }

    fn prefers_route(&self) -> bool {
        true
    }

    fn log(&self, exchange: &Exchange) {
        exchange
            .gateway()
            .metrics()
            .record(exchange, self.conf.prefer_name);
    }
}
