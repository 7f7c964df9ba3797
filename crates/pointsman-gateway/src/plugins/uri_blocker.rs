//! `uri-blocker`: refuses paths and queries that match a pattern.

use std::sync::Arc;

use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{parse, patterns};
use crate::{
    config::{
        plugin_schema::{Faults, PluginSchema},
        resource::schema_of,
    },
    exchange::Exchange,
    plugin::{
        Flow, Phases, Plugin, Reply, Step,
        registry::{Building, PluginKind},
    },
    router::pattern::{Case, Pattern},
};

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct Conf {
    /// Patterns for path and query as they were received.
    #[schemars(length(min = 1), inner(length(min = 1, max = 4096)), extend("uniqueItems" = true))]
    block_rules: Vec<String>,
    /// Status of the refusal.
    #[serde(default = "forbidden")]
    #[schemars(range(min = 200))]
    rejected_code: u16,
    /// What is told.
    #[schemars(length(min = 1))]
    rejected_msg: Option<String>,
    /// `A` is `a`.
    #[serde(default)]
    case_insensitive: bool,
}

fn forbidden() -> u16 {
    403
}

struct UriBlocker {
    rules: Vec<Pattern>,
    refusal: Reply,
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: "uri-blocker",
            priority: 2900,
            version: "0.1",
            schema: schema_of::<Conf>(),
            consumer_schema: None,
            metadata_schema: None,
            is_auth: false,
            check: |conf| compile(conf).map(drop),
        },
        build: |conf, _: &mut Building<'_>| Ok(Arc::new(compile(conf)?)),
        checkers: None,
        identity_field: None,
    }
}

fn compile(conf: &Value) -> Result<UriBlocker, Faults> {
    let conf: Conf = parse(conf)?;
    let case = if conf.case_insensitive {
        Case::Insensitive
    } else {
        Case::Sensitive
    };
    let status = StatusCode::from_u16(conf.rejected_code).map_err(|_| {
        let text = format!("rejected_code: {} is not a status", conf.rejected_code);
        Faults::at("rejected_code", text)
    })?;
    let refusal = match conf.rejected_msg {
        Some(message) => Reply::json(status, json!({ "error_msg": message })),
        None => Reply::empty(status),
    };
    Ok(UriBlocker {
        rules: patterns("block_rules", &conf.block_rules, case)?,
        refusal,
    })
}

impl Plugin for UriBlocker {
    fn phases(&self) -> Phases {
        Phases::REWRITE
    }

    fn rewrite<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        let uri = &exchange.received.uri;
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        // What is encoded, or goes by detours, is blocked as what it stands for, too.
        let plain = exchange.inbound_path();
        // A pattern that gives up does not say that the request may pass.
        let blocks = |rule: &Pattern| {
            rule.is_match(target).unwrap_or(true) || rule.is_match(&plain).unwrap_or(true)
        };
        let is_blocked = self.rules.iter().any(blocks);
        Step::Done(if is_blocked {
            Flow::Respond(self.refusal.clone())
        } else {
            Flow::Continue
        })
    }
}
