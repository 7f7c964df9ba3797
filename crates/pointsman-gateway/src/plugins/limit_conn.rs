//! `limit-conn`: so many requests at a time.
//!
//! A request has its place from here until its last byte is out, or whatever else ends it: the exchange
//! holds it, and gives it back at its one end. Above `conn`, requests wait as long as such requests
//! took so far; above `conn + burst` they are refused (APISIX 3.18).

use std::{borrow::Cow, sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{
    limiting::{self, Amount, KeyOf, Number, Policy, RedisConf, VarKeyType},
    parse,
};
use crate::{
    config::{
        plugin_schema::{Faults, PluginSchema},
        resource::schema_of,
        snapshot::seconds,
    },
    exchange::{Exchange, Held, Pace, Place},
    limits::{
        Scope,
        remote::{self, Server},
    },
    plugin::{
        Flow, Phases, Plugin, Reply, Step,
        registry::{Building, PluginKind},
    },
    template::Template,
};

#[derive(Deserialize, Serialize, JsonSchema)]
struct Conf {
    /// Requests at a time.
    conn: Option<Amount>,
    /// Requests beyond, which wait.
    burst: Option<Amount>,
    /// How long requests take, seconds, until that is known.
    #[schemars(extend("exclusiveMinimum" = 0))]
    default_conn_delay: f64,
    /// Waits go by `default_conn_delay` alone.
    #[serde(default)]
    only_use_default_delay: bool,
    /// By what requests are told apart; the client's address where it is empty.
    key: Option<String>,
    /// How `key` is to be read.
    #[serde(default)]
    key_type: VarKeyType,
    /// Several limits; each applies if its key has a value.
    #[schemars(length(min = 1))]
    rules: Option<Vec<RuleConf>>,
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
    /// Seconds after which a place is given up there that nobody gave back.
    #[serde(default = "key_ttl")]
    #[schemars(range(min = 1))]
    key_ttl: u64,
    /// Lets requests pass of which nobody can say whether they are too much.
    #[serde(default)]
    allow_degradation: bool,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct RuleConf {
    /// Requests at a time.
    conn: Amount,
    /// Requests beyond, which wait.
    burst: Amount,
    /// By what requests are told apart, a template.
    key: String,
}

struct LimitConn {
    scope: Scope,
    /// Who counts, if that is not this process.
    server: Option<Arc<Server>>,
    kept: Duration,
    limits: Vec<Limit>,
    /// How long requests take.
    pace: Arc<Pace>,
    learns: bool,
    allow_degradation: bool,
    rejection: Reply,
}

struct Limit {
    conn: Number,
    burst: Number,
    key: LimitKey,
}

enum LimitKey {
    Only(KeyOf),
    /// With its number: rules whose keys have the same value still count apart.
    Rule(String, Template),
}

/// Why a request has no place.
enum Refused {
    /// It is one too many.
    TooMany,
    /// No limit applies to it.
    Unusable,
    /// Nobody says whether it has one.
    Unanswered,
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: NAME,
            priority: 1003,
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

fn compile(conf: &Value, owner: &str) -> Result<LimitConn, Faults> {
    let conf: Conf = parse(conf)?;
    Ok(LimitConn {
        scope: Scope::of(NAME, owner, &conf),
        server: conf.redis.server(conf.policy)?,
        kept: Duration::from_secs(conf.key_ttl.min(KEPT_MAX)),
        limits: conf.limits()?,
        pace: Arc::new(Pace::new(seconds(conf.default_conn_delay))),
        learns: !conf.only_use_default_delay,
        allow_degradation: conf.allow_degradation,
        rejection: limiting::rejection(conf.rejected_code, conf.rejected_msg.as_deref()),
    })
}

impl Conf {
    fn limits(&self) -> Result<Vec<Limit>, Faults> {
        let is_single = self.conn.is_some() || self.burst.is_some() || self.key.is_some();
        match (&self.rules, &self.conn, &self.burst, &self.key) {
            (Some(_), ..) if is_single => Err(Faults::at(
                "",
                "conn/burst/key and rules cannot be specified at the same time",
            )),
            (Some(rules), ..) => {
                limiting::duplicate_key(rules.iter().map(|rule| rule.key.as_str()))?;
                Faults::collect(rules.iter().enumerate().map(|(index, rule)| {
                    let path = |field: &str| format!("rules[{index}].{field}");
                    Ok(Limit {
                        conn: Number::new(&rule.conn, &path("conn"), 1)?,
                        burst: Number::new(&rule.burst, &path("burst"), 0)?,
                        key: LimitKey::Rule(index.to_string(), Template::parse(&rule.key)),
                    })
                }))
            }
            (None, Some(conn), Some(burst), Some(key)) => Ok(vec![Limit {
                conn: Number::new(conn, "conn", 1)?,
                burst: Number::new(burst, "burst", 0)?,
                key: LimitKey::Only(KeyOf::new(key, self.key_type.into())),
            }]),
            (None, ..) => Err(Faults::at(
                "",
                "value should match only one schema, but matches none: give conn, burst and key, \
                 or rules",
            )),
        }
    }
}

impl Limit {
    fn reads_body(&self) -> bool {
        let key = match &self.key {
            LimitKey::Only(key) => key.reads_body(),
            LimitKey::Rule(_, template) => limiting::reads_body(template),
        };
        key || self.conn.reads_body() || self.burst.reads_body()
    }

    /// Its rule and key, and how many it lets in and lets wait. One that does not come to numbers is left
    /// out, as is one without a key.
    fn applies(&self, exchange: &Exchange) -> Option<([String; 2], u64, u64)> {
        let (rule, text) = self.key.of(exchange)?;
        let conn = self.conn.of(exchange, 1)?;
        let burst = self.burst.of(exchange, 0)?;
        Some(([rule.to_owned(), text.into_owned()], conn, burst))
    }
}

impl LimitKey {
    /// Its rule and its value for this request, if it has one.
    fn of<'a>(&'a self, exchange: &'a Exchange) -> Option<(&'a str, Cow<'a, str>)> {
        match self {
            Self::Only(key) => Some(("", key.of(exchange))),
            Self::Rule(rule, template) => {
                Some((rule, Cow::Owned(limiting::rule_key(template, exchange)?)))
            }
        }
    }
}

impl LimitConn {
    /// Takes every place that the request needs, and says how long it has to wait. What it has taken by
    /// the time that it is refused is given back at its end, as ever.
    fn enter(&self, exchange: &mut Exchange) -> Result<Duration, Refused> {
        let mut longest = None;
        for limit in &self.limits {
            let Some(([rule, text], conn, burst)) = limit.applies(exchange) else {
                continue;
            };
            let limits = exchange.gateway().limits();
            let key = limits.key(self.scope, &[&rule, &text]);
            let (slot, count) = limits.enter(key, conn + burst).ok_or(Refused::TooMany)?;
            let delay = self.keep(exchange, Place::Here(slot), count, conn);
            longest = longest.max(Some(delay));
        }
        longest.ok_or(Refused::Unusable)
    }

    /// The same, where places are elsewhere. From before it is asked for, a place is the exchange's, as
    /// nobody knows of a request that leaves meanwhile whether it has got one.
    async fn enter_afar(
        &self,
        server: &Arc<Server>,
        exchange: &mut Exchange,
    ) -> Result<Duration, Refused> {
        let mut longest = None;
        for limit in &self.limits {
            let Some(([rule, text], conn, burst)) = limit.applies(exchange) else {
                continue;
            };
            let key = self.scope.name(NAME, &[&rule, &text]);
            let name = Uuid::new_v4().simple().to_string();
            let leave = remote::leave(key.clone(), &name);
            exchange.hold(Held {
                place: Place::Afar(Arc::clone(server), leave),
                pace: None,
                delay: Duration::ZERO,
            });
            let call = remote::enter(key, conn + burst, self.kept, &name);
            let answer = exchange.gateway().counters().run(server, call).await;
            let entered = answer.and_then(|answer| remote::entered(&answer));
            let entered = entered.map_err(|_| Refused::Unanswered)?;
            let place = exchange.let_go().map(|held| held.place);
            let (place, count) = place.zip(entered).ok_or(Refused::TooMany)?;
            let delay = self.keep(exchange, place, count, conn);
            longest = longest.max(Some(delay));
        }
        longest.ok_or(Refused::Unusable)
    }

    /// Has the exchange keep its place, which is one of `count`, and says how long it has to wait.
    fn keep(&self, exchange: &mut Exchange, place: Place, count: u64, conn: u64) -> Duration {
        let ahead = if count > conn { (count - 1) / conn } else { 0 };
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
        let delay = self.pace.so_far().saturating_mul(ahead).min(DELAY_MAX);
        exchange.hold(Held {
            place,
            pace: self.learns.then(|| Arc::clone(&self.pace)),
            delay,
        });
        delay
    }

    fn refuse(&self, refused: &Refused) -> Flow {
        match refused {
            Refused::TooMany => Flow::Respond(self.rejection.clone()),
            Refused::Unusable => limiting::unusable(NAME, self.allow_degradation),
            Refused::Unanswered => limiting::unanswered(None, self.allow_degradation),
        }
    }
}

impl Plugin for LimitConn {
    fn phases(&self) -> Phases {
        Phases::ACCESS
    }

    fn reads_body(&self) -> Phases {
        Phases::ACCESS.when(self.limits.iter().any(Limit::reads_body))
    }

    fn access<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        if let Some(server) = &self.server {
            return Step::Later(Box::pin(async move {
                match self.enter_afar(server, exchange).await {
                    Err(refused) => return self.refuse(&refused),
                    Ok(delay) if delay >= DELAY_MIN => super::pause(exchange, delay).await,
                    Ok(_) => {}
                }
                Flow::Continue
            }));
        }
        match self.enter(exchange) {
            Err(refused) => Step::Done(self.refuse(&refused)),
            Ok(delay) if delay >= DELAY_MIN => {
                let waited = super::pause(exchange, delay);
                Step::Later(Box::pin(async move {
                    waited.await;
                    Flow::Continue
                }))
            }
            Ok(_) => Step::Done(Flow::Continue),
        }
    }
}

fn key_ttl() -> u64 {
    3600
}

fn rejected_code() -> u16 {
    503
}

const NAME: &str = "limit-conn";
/// A year, in seconds.
const KEPT_MAX: u64 = 366 * 86_400;
/// Less is not worth a timer.
const DELAY_MIN: Duration = Duration::from_millis(1);
/// A client has long gone by then.
const DELAY_MAX: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_limit_or_rules() {
        let check = |mut conf: Value| {
            conf["default_conn_delay"] = json!(0.1);
            compile(&conf, "/routes/1").is_ok()
        };
        let rule = json!({"conn": 1, "burst": 0, "key": "$arg_a"});
        assert!(check(json!({"conn": 1, "burst": 0, "key": "remote_addr"})));
        assert!(check(json!({"conn": "$arg_c", "burst": "0", "key": "a"})));
        assert!(check(json!({"rules": [rule]})));
        assert!(!check(json!({})));
        assert!(!check(json!({"conn": 1, "burst": 0})));
        assert!(!check(json!({"conn": 0, "burst": 0, "key": "a"})));
        assert!(!check(json!({"rules": [rule, rule]})));
        assert!(!check(json!({"key": "a", "rules": [rule]})));
    }
}
