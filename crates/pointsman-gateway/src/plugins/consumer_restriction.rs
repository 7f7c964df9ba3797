//! `consumer-restriction`: which consumers, or whose routes and services, may.

use std::sync::Arc;

use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::parse;
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
};

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Conf {
    /// What the lists are about.
    #[serde(rename = "type")]
    subject: Subject,
    /// Those who may not; looked at first.
    #[schemars(length(min = 1))]
    blacklist: Option<Vec<String>>,
    /// Those who may; all others may not.
    #[schemars(length(min = 1))]
    whitelist: Option<Vec<String>>,
    /// Those who may with these methods only, unless they are on the whitelist.
    allowed_by_methods: Option<Vec<Allowance>>,
    /// Status for those who may not.
    #[schemars(range(min = 200))]
    rejected_code: u16,
    /// What they are told.
    rejected_msg: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Subject {
    #[default]
    ConsumerName,
    ServiceId,
    RouteId,
    ConsumerGroupId,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Allowance {
    /// The consumer, or whatever `type` says.
    user: String,
    /// Methods.
    #[schemars(length(min = 1), extend("items" = {"type": "string", "enum": ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE", "PURGE"]}))]
    methods: Vec<String>,
}

impl Default for Conf {
    fn default() -> Self {
        Self {
            subject: Subject::ConsumerName,
            blacklist: None,
            whitelist: None,
            allowed_by_methods: None,
            rejected_code: 403,
            rejected_msg: None,
        }
    }
}

struct ConsumerRestriction {
    conf: Conf,
    refusal: Reply,
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: "consumer-restriction",
            priority: 2400,
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

fn compile(conf: &Value) -> Result<ConsumerRestriction, Faults> {
    let conf: Conf = parse(conf)?;
    if conf.blacklist.is_none() && conf.whitelist.is_none() && conf.allowed_by_methods.is_none() {
        let text = "object matches none of the required: [\"blacklist\"] or [\"whitelist\"] or \
                    [\"allowed_by_methods\"]";
        return Err(Faults::at("", text));
    }
    let status = StatusCode::from_u16(conf.rejected_code).map_err(|_| {
        let text = format!("rejected_code: {} is not a status", conf.rejected_code);
        Faults::at("rejected_code", text)
    })?;
    let message = conf
        .rejected_msg
        .clone()
        .unwrap_or_else(|| format!("The {} is forbidden.", conf.subject.name()));
    Ok(ConsumerRestriction {
        refusal: Reply::json(status, json!({ "message": message })),
        conf,
    })
}

impl Subject {
    fn name(self) -> &'static str {
        match self {
            Self::ConsumerName => "consumer_name",
            Self::ServiceId => "service_id",
            Self::RouteId => "route_id",
            Self::ConsumerGroupId => "consumer_group_id",
        }
    }

    fn of(self, exchange: &Exchange) -> Option<&str> {
        match self {
            Self::ConsumerName => Some(exchange.consumer()?.username.as_str()),
            Self::ServiceId => exchange.route()?.service_id.as_deref(),
            Self::RouteId => Some(exchange.route()?.id.as_str()),
            Self::ConsumerGroupId => exchange.consumer()?.group_id.as_deref(),
        }
    }
}

impl ConsumerRestriction {
    fn may(&self, who: &str, method: &str) -> bool {
        let lists = |list: &Vec<String>| list.iter().any(|one| one == who);
        if self.conf.blacklist.as_ref().is_some_and(lists) {
            return false;
        }
        if let Some(whitelist) = &self.conf.whitelist {
            // Whoever is on it needs no leave for a method; whoever is not may not at all.
            return lists(whitelist);
        }
        let allowances = self.conf.allowed_by_methods.iter().flatten();
        allowances
            .filter(|allowance| allowance.user == who)
            .map(|allowance| allowance.methods.iter().any(|one| one == method))
            .next()
            .unwrap_or(true)
    }
}

impl Plugin for ConsumerRestriction {
    fn phases(&self) -> Phases {
        Phases::ACCESS
    }

    fn access<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        let Some(who) = self.conf.subject.of(exchange) else {
            let name = self.conf.subject.name();
            let text = format!("The request is rejected, please check the {name} for this request");
            let reply = Reply::json(StatusCode::UNAUTHORIZED, json!({ "message": text }));
            return Step::Done(Flow::Respond(reply));
        };
        Step::Done(if self.may(who, exchange.received.method.as_str()) {
            Flow::Continue
        } else {
            Flow::Respond(self.refusal.clone())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may(conf: Value, who: &str, method: &str) -> bool {
        compile(&conf).expect("valid").may(who, method)
    }

    /// The order of the three lists (APISIX 3.18).
    #[test]
    fn the_blacklist_comes_first_and_the_whitelist_needs_no_methods() {
        let both = json!({"whitelist": ["a", "b"], "blacklist": ["b"]});
        assert!(may(both.clone(), "a", "GET"));
        assert!(!may(both.clone(), "b", "GET"));
        assert!(!may(both, "c", "GET"));
        let methods = json!({"allowed_by_methods": [{"user": "a", "methods": ["GET"]}]});
        assert!(may(methods.clone(), "a", "GET"));
        assert!(!may(methods.clone(), "a", "POST"));
        assert!(may(methods, "b", "POST"));
        let listed = json!({"whitelist": ["a"],
            "allowed_by_methods": [{"user": "a", "methods": ["GET"]}]});
        assert!(may(listed.clone(), "a", "POST"));
        assert!(!may(listed, "b", "GET"));
        assert!(compile(&json!({})).is_err());
        assert!(compile(&json!({"whitelist": ["a"], "rejected_code": 1000})).is_err());
    }
}
