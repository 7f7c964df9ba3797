//! What `limit-count`, `limit-req` and `limit-conn` have in common: by what they count, amounts that
//! may be templates, where counters are, and what those are told who come too often.

mod redis;

use std::borrow::Cow;

use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    config::plugin_schema::Faults,
    exchange::Exchange,
    plugin::{Flow, Reply},
    template::Template,
    variables,
    vars::Lookup as _,
};

pub(super) use self::redis::RedisConf;

/// How `key` is to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum KeyType {
    /// The name of a variable.
    #[default]
    Var,
    /// A template.
    VarCombination,
    /// As it stands.
    Constant,
}

/// The same where nothing is as it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum VarKeyType {
    /// The name of a variable.
    #[default]
    Var,
    /// A template.
    VarCombination,
}

impl From<VarKeyType> for KeyType {
    fn from(kind: VarKeyType) -> Self {
        match kind {
            VarKeyType::Var => Self::Var,
            VarKeyType::VarCombination => Self::VarCombination,
        }
    }
}

/// Where counters are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Policy {
    /// In this process, for all its workers.
    #[default]
    Local,
    /// In a Redis.
    Redis,
    /// In a Redis cluster.
    RedisCluster,
    /// In a Redis that sentinels name.
    RedisSentinel,
}

impl Policy {
    /// As it is written.
    fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Redis => "redis",
            Self::RedisCluster => "redis-cluster",
            Self::RedisSentinel => "redis-sentinel",
        }
    }
}

/// By what requests are told apart.
pub(super) enum KeyOf {
    Var(String),
    Combination(Template),
    Constant(String),
}

impl KeyOf {
    pub(super) fn new(key: &str, kind: KeyType) -> Self {
        match kind {
            KeyType::Var => Self::Var(key.to_owned()),
            KeyType::VarCombination => Self::Combination(Template::parse(key)),
            KeyType::Constant => Self::Constant(key.to_owned()),
        }
    }

    pub(super) fn reads_body(&self) -> bool {
        match self {
            Self::Var(name) => variables::reads_body(name),
            Self::Combination(template) => reads_body(template),
            Self::Constant(_) => false,
        }
    }

    /// The key of this request; the client's address if it has none (APISIX 3.18).
    pub(super) fn of<'a>(&'a self, exchange: &'a Exchange) -> Cow<'a, str> {
        let found = match self {
            Self::Constant(text) => Some(Cow::Borrowed(text.as_str())),
            Self::Var(name) => exchange.var(name).map(crate::vars::VarValue::into_text),
            Self::Combination(template) => {
                let rendered = template.render(exchange);
                (rendered.resolved > 0).then_some(Cow::Owned(rendered.text))
            }
        };
        found.unwrap_or_else(|| Cow::Owned(exchange.peer.client.ip().to_canonical().to_string()))
    }
}

/// The key of a rule: a template of which at least one variable must have a value.
pub(super) fn rule_key(template: &Template, exchange: &Exchange) -> Option<String> {
    let rendered = template.render(exchange);
    (rendered.resolved > 0).then_some(rendered.text)
}

pub(super) fn reads_body(template: &Template) -> bool {
    template.variables().any(variables::reads_body)
}

/// Rules may not share a key: which of them applies could not be told.
pub(super) fn duplicate_key<'a>(keys: impl Iterator<Item = &'a str>) -> Result<(), Faults> {
    let mut seen = std::collections::HashSet::new();
    Faults::collect(keys.enumerate().map(|(index, key)| {
        if seen.insert(key) {
            return Ok(());
        }
        let at = format!("rules[{index}].key");
        Err(Faults::at(&at, format!("duplicate key '{key}' in rules")))
    }))
    .map(drop)
}

/// A number, or a template that comes to one.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Amount {
    /// As it stands.
    Number(u64),
    /// A template.
    Text(String),
}

/// An [`Amount`] as it is asked for with every request.
pub(super) enum Number {
    Fixed(u64),
    Template(Template),
}

impl Number {
    /// `amount`, which stands at `path` and is at least `least`.
    pub(super) fn new(amount: &Amount, path: &str, least: u64) -> Result<Self, Faults> {
        let number = match amount {
            Amount::Number(number) => Some(*number),
            Amount::Text(text) => {
                let template = Template::parse(text);
                let Some(literal) = template.literal() else {
                    return Ok(Self::Template(template));
                };
                number(literal)
            }
        };
        let found = number.filter(|number| (least..=NUMBER_MAX).contains(number));
        found.map(Self::Fixed).ok_or_else(|| {
            let text = format!(
                "{path}: must be a whole number from {least} on, or a template that comes to one"
            );
            Faults::at(path, text)
        })
    }

    pub(super) fn reads_body(&self) -> bool {
        match self {
            Self::Fixed(_) => false,
            Self::Template(template) => reads_body(template),
        }
    }

    /// What it comes to for this request, if that is a number from `least` on.
    pub(super) fn of(&self, exchange: &Exchange, least: u64) -> Option<u64> {
        match self {
            Self::Fixed(number) => Some(*number),
            Self::Template(template) => {
                number(&template.render(exchange).text).filter(|number| *number >= least)
            }
        }
    }
}

/// A whole number, also as `10.0`, as Lua takes it.
fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    let whole = match text.split_once('.') {
        Some((whole, zeros)) if zeros.bytes().all(|digit| digit == b'0') => whole,
        Some(_) => return None,
        None => text,
    };
    whole.parse().ok().filter(|number| *number <= NUMBER_MAX)
}

/// What those are told who come too often.
pub(super) fn rejection(code: u16, message: Option<&str>) -> Reply {
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    match message {
        Some(message) => Reply::json(status, json!({ "error_msg": message })),
        None => Reply::page(status),
    }
}

/// Nobody can say whether this request is one too many: none of `plugin`'s limits applies to it, or an
/// amount comes to no number.
pub(super) fn unusable(plugin: &str, allow_degradation: bool) -> Flow {
    tracing::warn!(
        plugin,
        allow_degradation,
        "no limit applies to the request: no rule's key has a value, or an amount is no positive \
         whole number"
    );
    if allow_degradation {
        Flow::Continue
    } else {
        Flow::Respond(Reply::page(StatusCode::INTERNAL_SERVER_ERROR))
    }
}

/// Whoever counts for all gateways did not answer, which the log says: what the request is told, if it
/// is not to pass.
pub(super) fn unanswered(message: Option<&str>, allow_degradation: bool) -> Flow {
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    match message {
        _ if allow_degradation => Flow::Continue,
        Some(message) => Flow::Respond(Reply::json(status, json!({ "error_msg": message }))),
        None => Flow::Respond(Reply::page(status)),
    }
}

/// What a number in Lua, or in JSON for many readers, can be exactly.
const NUMBER_MAX: u64 = (1 << 53) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_whole_numbers() {
        for (text, expected) in [
            ("10", Some(10)),
            (" 10.0 ", Some(10)),
            ("0", Some(0)),
            ("1.5", None),
            ("-1", None),
            ("", None),
            ("abc", None),
            ("9007199254740992", None),
        ] {
            assert_eq!(number(text), expected, "{text:?}");
        }
        let text = |text: &str| Amount::Text(text.to_owned());
        assert!(Number::new(&text("5"), "count", 1).is_ok());
        assert!(Number::new(&text("$http_x"), "count", 1).is_ok());
        assert!(Number::new(&text("five"), "count", 1).is_err());
        assert!(Number::new(&Amount::Number(0), "count", 1).is_err());
        assert!(Number::new(&Amount::Number(0), "burst", 0).is_ok());
    }
}
