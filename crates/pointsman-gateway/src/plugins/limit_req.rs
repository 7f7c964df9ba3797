//! `limit-req`: so many requests a second, evenly.
//!
//! What comes a little early waits for its turn, and what comes much too early is refused. The
//! arithmetic is in [`crate::limits::bucket`].

use std::{sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    limiting::{self, KeyOf, Policy, RedisConf, VarKeyType},
    parse,
};
use crate::{
    clock,
    config::{
        plugin_schema::{Faults, PluginSchema},
        resource::schema_of,
    },
    exchange::Exchange,
    limits::{
        Rate, Scope,
        remote::{self, Server},
    },
    plugin::{
        Flow, Phases, Plugin, Reply, Step,
        registry::{Building, PluginKind},
    },
};

#[derive(Deserialize, Serialize, JsonSchema)]
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
    /// Where that is.
    #[serde(flatten)]
    redis: RedisConf,
    /// Lets requests pass of which nobody can say whether they are too much.
    #[serde(default)]
    allow_degradation: bool,
}

struct LimitReq {
    scope: Scope,
    /// Who counts, if that is not this process.
    server: Option<Arc<Server>>,
    key: KeyOf,
    rate: Rate,
    waits: bool,
    allow_degradation: bool,
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
    Ok(LimitReq {
        scope: Scope::of(NAME, owner, &conf),
        server: conf.redis.server(conf.policy)?,
        key: KeyOf::new(&conf.key, conf.key_type.into()),
        rate: Rate::new(conf.rate, conf.burst),
        waits: !conf.nodelay,
        allow_degradation: conf.allow_degradation,
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
        if let Some(server) = &self.server {
            return Step::Later(Box::pin(self.ask(server, exchange)));
        }
        let limits = exchange.gateway().limits();
        let key = limits.key(self.scope, &[&self.key.of(exchange)]);
        let Some(turn) = limits.pour(key, &self.rate, clock::now()) else {
            return Step::Done(Flow::Respond(self.rejection.clone()));
        };
        match self.waits_for(turn) {
            Some(wait) => {
                let waited = super::pause(exchange, wait);
                Step::Later(Box::pin(async move {
                    waited.await;
                    Flow::Continue
                }))
            }
            None => Step::Done(Flow::Continue),
        }
    }
}

impl LimitReq {
    /// The same, where counters are elsewhere.
    async fn ask(&self, server: &Arc<Server>, exchange: &Exchange) -> Flow {
        let key = self.scope.name(NAME, &[&self.key.of(exchange)]);
        let counters = exchange.gateway().counters();
        let answer = counters.run(server, remote::pour(&self.rate, key)).await;
        let Ok(turn) = answer.and_then(|answer| remote::wait(&answer)) else {
            return limiting::unanswered(None, self.allow_degradation);
        };
        let Some(turn) = turn else {
            return Flow::Respond(self.rejection.clone());
        };
        if let Some(wait) = self.waits_for(turn) {
            super::pause(exchange, wait).await;
        }
        Flow::Continue
    }

    /// How long a request waits whose turn is so far away.
    fn waits_for(&self, turn: Duration) -> Option<Duration> {
        (self.waits && turn >= WAIT_MIN).then_some(turn)
    }
}

fn rejected_code() -> u16 {
    503
}

const NAME: &str = "limit-req";
/// Less is not worth a timer.
const WAIT_MIN: Duration = Duration::from_millis(1);
