//! `limit-count`: so many requests in so many seconds.
//!
//! Counting itself is in [`crate::limits`]; here is by what requests are told apart, which limits apply
//! to them, and what they are told.

use std::{borrow::Cow, rc::Rc, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    limiting::{self, Amount, KeyOf, KeyType, Number, Policy, RedisConf},
    parse,
};
use crate::{
    clock,
    config::{
        plugin_schema::{Faults, PluginSchema},
        resource::schema_of,
    },
    exchange::Exchange,
    gateway::Gateway,
    limits::{
        Key, Scope, Spent, Window,
        remote::{self, RemoteWindow, Server},
    },
    plugin::{
        Flow, Phases, Plugin, Reply, Step,
        registry::{Building, PluginKind},
    },
    ports::Unanswered,
    template::Template,
};

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Conf {
    /// Requests in a window.
    count: Option<Amount>,
    /// Length of a window, seconds.
    time_window: Option<Amount>,
    /// Several limits; each applies if its key has a value.
    #[schemars(length(min = 1))]
    rules: Option<Vec<RuleConf>>,
    /// Whether a window begins anew, or goes along.
    window_type: WindowType,
    /// By what requests are told apart; the client's address where it is empty.
    key: String,
    /// How `key` is to be read.
    key_type: KeyType,
    /// Counts together with all that have the same.
    #[schemars(length(min = 1))]
    group: Option<String>,
    /// Status of what is too much.
    #[schemars(range(min = 200, max = 599))]
    rejected_code: u16,
    /// `error_msg` of what is too much.
    #[schemars(length(min = 1))]
    rejected_msg: Option<String>,
    /// Where counters are.
    policy: Policy,
    /// Seconds after which it is told what was used here meanwhile; without, each request asks.
    sync_interval: f64,
    /// Where that is.
    #[serde(flatten)]
    redis: RedisConf,
    /// Lets requests pass of which nobody can say whether they are too much.
    allow_degradation: bool,
    /// Says in headers what is left.
    show_limit_quota_header: bool,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct RuleConf {
    /// Requests in a window.
    count: Amount,
    /// Length of a window, seconds.
    time_window: Amount,
    /// By what requests are told apart, a template.
    key: String,
    /// What its headers have in their names, rather than its number.
    header_prefix: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum WindowType {
    #[default]
    Fixed,
    Sliding,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Metadata {
    /// Name of the header that says the limit.
    limit_header: String,
    /// Name of the header that says what is left.
    remaining_header: String,
    /// Name of the header that says in how many seconds the window ends.
    reset_header: String,
}

impl Default for Conf {
    fn default() -> Self {
        Self {
            count: None,
            time_window: None,
            rules: None,
            window_type: WindowType::Fixed,
            key: "remote_addr".to_owned(),
            key_type: KeyType::Var,
            group: None,
            rejected_code: 503,
            rejected_msg: None,
            policy: Policy::Local,
            sync_interval: NEVER,
            redis: RedisConf::default(),
            allow_degradation: false,
            show_limit_quota_header: true,
        }
    }
}

impl Default for Metadata {
    fn default() -> Self {
        Self {
            limit_header: "X-RateLimit-Limit".to_owned(),
            remaining_header: "X-RateLimit-Remaining".to_owned(),
            reset_header: "X-RateLimit-Reset".to_owned(),
        }
    }
}

struct LimitCount {
    scope: Scope,
    /// Who counts, if that is not this process.
    server: Option<Arc<Server>>,
    /// How often that is told, if not with each request.
    interval: Option<Duration>,
    limits: Vec<Limit>,
    window_type: WindowType,
    allow_degradation: bool,
    rejection: Reply,
    reads_body: bool,
}

struct Limit {
    count: Number,
    seconds: Number,
    key: LimitKey,
    headers: Option<Headers>,
}

enum LimitKey {
    Only(KeyOf),
    /// With its number: rules whose keys have the same value still count apart.
    Rule(String, Template),
}

/// Names of the headers that say limit, rest and end.
struct Headers([HeaderName; 3]);

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: NAME,
            priority: 1002,
            version: "0.4",
            schema: schema_of::<Conf>(),
            consumer_schema: None,
            metadata_schema: Some(schema_of::<Metadata>()),
            is_auth: false,
            check: |conf| compile(conf, "", None).map(drop),
        },
        build: |conf, building: &mut Building<'_>| {
            Ok(Arc::new(compile(conf, building.owner, building.metadata)?))
        },
        checkers: None,
        identity_field: None,
    }
}

fn compile(conf: &Value, owner: &str, metadata: Option<&Value>) -> Result<LimitCount, Faults> {
    let conf: Conf = parse(conf)?;
    let server = conf.redis.server(conf.policy)?;
    let limits = conf.limits(metadata)?;
    let reads_body = limits.iter().any(Limit::reads_body);
    let scope = match &conf.group {
        Some(group) => Scope::group(NAME, group),
        None => Scope::of(NAME, owner, &conf),
    };
    Ok(LimitCount {
        scope,
        server,
        interval: conf.interval()?,
        limits,
        window_type: conf.window_type,
        allow_degradation: conf.allow_degradation,
        rejection: limiting::rejection(conf.rejected_code, conf.rejected_msg.as_deref()),
        reads_body,
    })
}

impl Conf {
    /// How often others are told, if not with each request.
    fn interval(&self) -> Result<Option<Duration>, Faults> {
        let fault = |text: &str| {
            Err(Faults::at(
                "sync_interval",
                format!("sync_interval: {text}"),
            ))
        };
        if self.policy == Policy::Local || self.sync_interval == NEVER {
            return Ok(None);
        }
        if self.sync_interval < INTERVAL_MIN {
            return fault("must be at least 0.1, or -1 for none");
        }
        let rules = self.rules.iter().flatten().map(|rule| &rule.time_window);
        let windows = self.time_window.iter().chain(rules);
        let mut lengths = windows.filter_map(|window| match window {
            Amount::Number(seconds) => Some(*seconds),
            Amount::Text(text) => text.parse().ok(),
        });
        #[expect(
            clippy::cast_precision_loss,
            reason = "windows of a million years end alike"
        )]
        if lengths.any(|seconds: u64| self.sync_interval >= seconds as f64) {
            return fault("must be less than time_window");
        }
        Ok(Duration::try_from_secs_f64(self.sync_interval).ok())
    }

    fn limits(&self, metadata: Option<&Value>) -> Result<Vec<Limit>, Faults> {
        let is_single = self.count.is_some() || self.time_window.is_some();
        match (&self.rules, &self.count, &self.time_window) {
            (Some(_), ..) if is_single => Err(Faults::at(
                "",
                "count/time_window and rules cannot be specified at the same time",
            )),
            (Some(_), ..) if self.group.is_some() => {
                let text = "group and rules cannot be specified at the same time";
                Err(Faults::at("group", text))
            }
            (Some(rules), ..) => {
                limiting::duplicate_key(rules.iter().map(|rule| rule.key.as_str()))?;
                Faults::collect(rules.iter().enumerate().map(|(i, rule)| self.rule(i, rule)))
            }
            (None, Some(count), Some(seconds)) => {
                let metadata: Metadata = match metadata {
                    Some(written) => parse(written)?,
                    None => Metadata::default(),
                };
                let names = [
                    &metadata.limit_header,
                    &metadata.remaining_header,
                    &metadata.reset_header,
                ];
                Ok(vec![Limit {
                    count: Number::new(count, "count", 1)?,
                    seconds: Number::new(seconds, "time_window", 1)?,
                    key: LimitKey::Only(KeyOf::new(&self.key, self.key_type)),
                    headers: self.headers("", names.map(String::clone))?,
                }])
            }
            (None, ..) => Err(Faults::at(
                "",
                "value should match only one schema, but matches none: give count and \
                 time_window, or rules",
            )),
        }
    }

    fn rule(&self, index: usize, rule: &RuleConf) -> Result<Limit, Faults> {
        let path = format!("rules[{index}]");
        let number = (index + 1).to_string();
        let prefix = rule.header_prefix.as_deref().unwrap_or(&number);
        let names = ["Limit", "Remaining", "Reset"].map(|n| format!("X-{prefix}-RateLimit-{n}"));
        Ok(Limit {
            count: Number::new(&rule.count, &format!("{path}.count"), 1)?,
            seconds: Number::new(&rule.time_window, &format!("{path}.time_window"), 1)?,
            key: LimitKey::Rule(number, Template::parse(&rule.key)),
            headers: self.headers(&format!("{path}.header_prefix"), names)?,
        })
    }

    /// The names of the headers, if there are to be any.
    fn headers(&self, path: &str, names: [String; 3]) -> Result<Option<Headers>, Faults> {
        if !self.show_limit_quota_header {
            return Ok(None);
        }
        let header = |name: &String| {
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
                let text = format!("`{name}` is not a header name; change it, or the metadata");
                Faults::at(path, text)
            })
        };
        let [limit, remaining, reset] = &names;
        let names = [header(limit)?, header(remaining)?, header(reset)?];
        Ok(Some(Headers(names)))
    }
}

impl Limit {
    fn reads_body(&self) -> bool {
        let key = match &self.key {
            LimitKey::Only(key) => key.reads_body(),
            LimitKey::Rule(_, template) => limiting::reads_body(template),
        };
        key || self.count.reads_body() || self.seconds.reads_body()
    }

    /// What its count and its length come to.
    fn numbers(&self, exchange: &Exchange) -> Option<(u64, u64)> {
        self.count.of(exchange, 1).zip(self.seconds.of(exchange, 1))
    }
}

impl Headers {
    fn set(&self, exchange: &mut Exchange, limit: u64, spent: &Spent) {
        let Self([of_limit, of_remaining, of_reset]) = self;
        exchange.set_answer_header(of_limit.clone(), limit.into());
        exchange.set_answer_header(of_remaining.clone(), spent.remaining.into());
        exchange.set_answer_header(of_reset.clone(), seconds(spent.reset));
    }
}

/// Seconds with up to two decimals, cut off.
fn seconds(duration: Duration) -> HeaderValue {
    let hundredths = duration.subsec_millis() / 10;
    let whole = duration.as_secs();
    if hundredths == 0 {
        return whole.into();
    }
    let text = format!("{whole}.{hundredths:02}");
    HeaderValue::from_str(text.trim_end_matches('0')).unwrap_or_else(|_| whole.into())
}

impl LimitCount {
    fn decide(&self, exchange: &mut Exchange) -> Flow {
        let now = clock::now();
        let mut applied = false;
        for limit in &self.limits {
            let Some((rule, text)) = limit.key.of(exchange) else {
                continue;
            };
            let key = exchange.gateway().limits().key(self.scope, &[rule, &text]);
            let Some((count, seconds)) = limit.numbers(exchange) else {
                return limiting::unusable(NAME, self.allow_degradation);
            };
            applied = true;
            let window = match self.window_type {
                WindowType::Fixed => Window::fixed(count, seconds),
                WindowType::Sliding => Window::sliding(count, seconds),
            };
            let spent = exchange.gateway().limits().take(key, &window, 1, now);
            if let Some(refused) = self.tell(exchange, limit, count, &spent) {
                return refused;
            }
        }
        self.decided(applied)
    }

    /// The same, where counters are elsewhere.
    async fn decide_afar(&self, server: &Arc<Server>, exchange: &mut Exchange) -> Flow {
        let mut applied = false;
        for limit in &self.limits {
            let Some((rule, text)) = limit.key.of(exchange) else {
                continue;
            };
            let key = self.scope.name(NAME, &[rule, &text]);
            let Some((limit_of, seconds)) = limit.numbers(exchange) else {
                return limiting::unusable(NAME, self.allow_degradation);
            };
            applied = true;
            let window = RemoteWindow {
                limit: limit_of,
                seconds,
                slides: self.window_type == WindowType::Sliding,
            };
            let Ok(spent) = self.ask(server, exchange.gateway(), window, key).await else {
                return limiting::unanswered(Some(UNANSWERED), self.allow_degradation);
            };
            if let Some(refused) = self.tell(exchange, limit, limit_of, &spent) {
                return refused;
            }
        }
        self.decided(applied)
    }

    /// What becomes of one more under `key`.
    async fn ask(
        &self,
        server: &Arc<Server>,
        gateway: &Rc<Gateway>,
        window: RemoteWindow,
        key: String,
    ) -> Result<Spent, Unanswered> {
        let Some(interval) = self.interval else {
            let answer = gateway.counters().run(server, window.take(key)).await?;
            return remote::spent(&answer);
        };
        let known = gateway.limits().key(self.scope, &[&key]);
        if let Some(local) = gateway.limits().take_known(known, clock::now()) {
            if local.tells {
                let telling = Telling {
                    gateway: Rc::clone(gateway),
                    server: Arc::clone(server),
                    interval,
                    window,
                    key,
                    known,
                };
                gateway.counters().later(Box::pin(telling.run()));
            }
            return Ok(local.spent);
        }
        let answer = gateway.counters().run(server, window.take(key)).await?;
        let spent = remote::spent(&answer)?;
        let known_for = window.slides.then_some(interval);
        gateway
            .limits()
            .learn(known, &spent, window.limit, known_for, clock::now());
        Ok(spent)
    }

    /// Says what is left, and whether the request is refused.
    fn tell(
        &self,
        exchange: &mut Exchange,
        limit: &Limit,
        count: u64,
        spent: &Spent,
    ) -> Option<Flow> {
        if let Some(headers) = &limit.headers {
            headers.set(exchange, count, spent);
        }
        (!spent.is_within).then(|| Flow::Respond(self.rejection.clone()))
    }

    fn decided(&self, applied: bool) -> Flow {
        if applied {
            Flow::Continue
        } else {
            limiting::unusable(NAME, self.allow_degradation)
        }
    }
}

/// Tells others what was used here, until there is nothing to tell.
struct Telling {
    gateway: Rc<Gateway>,
    server: Arc<Server>,
    interval: Duration,
    window: RemoteWindow,
    key: String,
    known: Key,
}

impl Telling {
    async fn run(self) {
        let limits = self.gateway.limits();
        let known_for = self.window.slides.then_some(self.interval);
        loop {
            let due = clock::now() + self.interval;
            self.gateway.upstreams().sleep_until(due).await;
            let cost = limits.tell(self.known, clock::now());
            if cost == 0 {
                return;
            }
            let charge = self.window.charge(self.key.clone(), cost);
            let answer = self.gateway.counters().run(&self.server, charge).await;
            let now = clock::now();
            match answer.and_then(|answer| remote::spent(&answer)) {
                Ok(spent) => limits.learn(self.known, &spent, self.window.limit, known_for, now),
                Err(Unanswered) => limits.untold(self.known, cost, now),
            }
        }
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

impl Plugin for LimitCount {
    fn phases(&self) -> Phases {
        Phases::ACCESS
    }

    fn reads_body(&self) -> Phases {
        Phases::ACCESS.when(self.reads_body)
    }

    fn access<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        match &self.server {
            None => Step::Done(self.decide(exchange)),
            Some(server) => Step::Later(Box::pin(self.decide_afar(server, exchange))),
        }
    }
}

/// The group of `conf`, and the whole of it with its defaults: what all members of the group must have.
pub(crate) fn grouped(conf: &Value) -> Option<(String, Value)> {
    let conf: Conf = parse(conf).ok()?;
    Some((conf.group.clone()?, serde_json::to_value(conf).ok()?))
}

pub(crate) const NAME: &str = "limit-count";
/// A `sync_interval` that is none.
const NEVER: f64 = -1.0;
/// A shorter one is no relief.
const INTERVAL_MIN: f64 = 0.1;
const UNANSWERED: &str = "failed to limit count";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(conf: Value, expected: Result<(), &str>) {
        let found = compile(&conf, "/routes/1", None).map(drop);
        let found = found.map_err(|faults| faults.into_issues()[0].message.clone());
        match (&found, expected) {
            (Ok(()), Ok(())) => {}
            (Err(found), Err(expected)) if found.contains(expected) => {}
            _ => panic!("{conf}: {found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn one_limit_or_rules() {
        let rule = |key: &str| json!({"count": 1, "time_window": 1, "key": key});
        check(json!({"count": 1, "time_window": "$arg_t"}), Ok(()));
        check(json!({"rules": [rule("$arg_a"), rule("$arg_b")]}), Ok(()));
        check(json!({}), Err("matches none"));
        check(json!({"count": 1}), Err("matches none"));
        let both = json!({"count": 1, "time_window": 1, "rules": [rule("$arg_a")]});
        check(both, Err("count/time_window and rules cannot be"));
        let twice = json!({"rules": [rule("$arg_a"), rule("$arg_a")]});
        check(twice, Err("duplicate key '$arg_a' in rules"));
        let grouped = json!({"group": "g", "rules": [rule("$arg_a")]});
        check(grouped, Err("group and rules cannot be"));
        check(json!({"count": 0, "time_window": 1}), Err("count: must be"));
        let prefix =
            json!({"rules": [{"count": 1, "time_window": 1, "key": "$a", "header_prefix": "a b"}]});
        check(prefix, Err("is not a header name"));
    }

    #[test]
    fn ends_have_two_decimals_at_most() {
        for (micros, expected) in [
            (60_000_000, "60"),
            (59_999_999, "59.99"),
            (59_900_000, "59.9"),
            (9_999, "0"),
            (10_000, "0.01"),
        ] {
            assert_eq!(seconds(Duration::from_micros(micros)), expected);
        }
    }
}
