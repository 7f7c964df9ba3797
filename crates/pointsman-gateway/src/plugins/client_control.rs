//! `client-control`: a limit for the bodies of a route's requests.
//!
//! It holds beside the one of the whole gateway (`client_max_body_size`): the lower of both counts.

use std::sync::Arc;

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
        Flow, Phases, Plugin, Step,
        registry::{Building, PluginKind},
    },
};

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct Conf {
    /// Bytes that a body may have; 0 for no limit here.
    max_body_size: Option<u64>,
}

struct ClientControl {
    body_bytes_max: Option<u64>,
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: "client-control",
            priority: 22000,
            version: "0.1",
            schema: schema_of::<Conf>(),
            consumer_schema: None,
            metadata_schema: None,
            is_auth: false,
            check: no_rules,
        },
        build: |conf, _: &mut Building<'_>| Ok(Arc::new(compile(conf)?)),
        checkers: None,
        identity_field: None,
    }
}

fn compile(conf: &Value) -> Result<ClientControl, Faults> {
    let conf: Conf = parse(conf)?;
    Ok(ClientControl {
        body_bytes_max: conf.max_body_size.filter(|max| *max > 0),
    })
}

impl Plugin for ClientControl {
    fn phases(&self) -> Phases {
        Phases::REWRITE.when(self.body_bytes_max.is_some())
    }

    fn rewrite<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        let limited = self.body_bytes_max.map(|max| exchange.limit_body(max));
        Step::Done(match limited {
            Some(Err(failure)) => Flow::Fail(failure),
            Some(Ok(())) | None => Flow::Continue,
        })
    }
}
