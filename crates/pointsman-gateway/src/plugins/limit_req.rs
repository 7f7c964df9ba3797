//! `limit-req`: so many requests a second, evenly.
//!
//! What comes a little early waits for its turn, and what comes much too early is refused. The
//! arithmetic is in [`crate::limits::bucket`].

use std::{sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    limiting::{self, KeyOf, Policy, VarKeyType},
    parse,
};
use crate::{
    clock,
    config::{
        plugin_schema::{Faults, PluginSchema},
        resource::schema_of,
    },
    exchange::Exchange,
    limits::{Rate, Scope},
    plugin::{
        Flow, Phases, Plugin, Reply, Step,
        registry::{Building, PluginKind},
    },
};

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct Conf {
    /// Requests a second.
    #[schemars(extend("exclusiveMinimum" = 0))]
    rate: f64,
    /// Requests that may come early.
    #[schemars(range(min = 0.0))]
    burst: f64,
    /// By what requests are told apart; the client's address where it is empty.
    key: String,
    /// How `key` is to be read.
    #[serde(default)]
    key_type: VarKeyType,
    /// Those that come early do not wait.
    #[serde(default)]
    nodelay: bool,
    /// Status of what is too much.
    #[serde(default = "rejected_code")]
    #[schemars(range(min = 200, max = 599))]
    rejected_code: u16,
    /// `error_msg` of what is too much.
    #[schemars(length(min = 1))]
    rejected_msg: Option<String>,
    /// Where counters are.
    #[serde(default)]
    policy: Policy,
    /// Lets requests pass of which nobody can say whether they are too much.
    #[serde(default)]
    allow_degradation: bool,
}

struct LimitReq {
    scope: Scope,
    key: KeyOf,
    rate: Rate,
    waits: bool,
    rejection: Reply,
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: NAME,
            priority: 1001,
            version: "0.1",
            schema: schema_of::<Conf>(),
            consumer_schema: None,
            metadata_schema: None,
            is_auth: false,
            check: |conf| compile(conf, "").map(drop),
        },
        build: |conf, building: &mut Building<'_>| Ok(Arc::new(compile(conf, building.owner)?)),
        checkers: None,
        identity_field: None,
    }
}

fn compile(conf: &Value, owner: &str) -> Result<LimitReq, Faults> {
    let conf: Conf = parse(conf)?;
    conf.policy.check()?;
    Ok(LimitReq {
        scope: Scope::of(NAME, owner, &conf),
        key: KeyOf::new(&conf.key, conf.key_type.into()),
        rate: Rate::new(conf.rate, conf.burst),
        waits: !conf.nodelay,
        rejection: limiting::rejection(conf.rejected_code, conf.rejected_msg.as_deref()),
    })
}

impl Plugin for LimitReq {
    fn phases(&self) -> Phases {
        Phases::ACCESS
    }

    fn reads_body(&self) -> Phases {
        Phases::ACCESS.when(self.key.reads_body())
    }

    fn access<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        let limits = exchange.gateway().limits();
        let key = limits.key(self.scope, &[&self.key.of(exchange)]);
        match limits.pour(key, &self.rate, clock::now()) {
            None => Step::Done(Flow::Respond(self.rejection.clone())),
            Some(wait) if self.waits && wait >= WAIT_MIN => {
                let waited = super::pause(exchange, wait);
                Step::Later(Box::pin(async move {
                    waited.await;
                    Flow::Continue
                }))
            }
            Some(_) => Step::Done(Flow::Continue),
        }
    }
}

fn rejected_code() -> u16 {
    503
}

const NAME: &str = "limit-req";
/// Less is not worth a timer.
const WAIT_MIN: Duration = Duration::from_millis(1);
