//! `api-breaker`: answers itself for a while where the target has failed again and again.
//!
//! It goes by host and path, not by target: health checks and circuits decide who is asked, this
//! plugin whether anybody is. What it has seen is kept with the limits, for all workers and over
//! reloads. Statuses are counted before the answer goes out, so whoever has got the failure that
//! opens the breaker finds it open.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::parse;
use crate::{
    clock,
    config::{
        plugin_schema::{Faults, PluginSchema},
        resource::schema_of,
    },
    exchange::Exchange,
    limits::{Breaking, Key, Scope},
    plugin::{
        Flow, Phases, Plugin, Reply, ReplyBody, ResponseHead, Step,
        registry::{Building, PluginKind},
    },
    template::Template,
    variables,
};

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct Conf {
    /// Status while the breaker is open.
    #[schemars(range(min = 200, max = 599))]
    break_response_code: u16,
    /// Body of that answer.
    break_response_body: Option<String>,
    /// Its headers, whose values are templates; only sent with a body.
    #[schemars(length(min = 1))]
    break_response_headers: Option<Vec<HeaderConf>>,
    /// Seconds that the breaker is open at most.
    #[serde(default = "five_minutes")]
    #[schemars(range(min = 3))]
    max_breaker_sec: u64,
    /// What is a failure, and how many are too many.
    #[serde(default)]
    unhealthy: UnhealthyConf,
    /// What is a success, and how many make failures forgotten.
    #[serde(default)]
    healthy: HealthyConf,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct HeaderConf {
    #[schemars(length(min = 1))]
    key: String,
    #[schemars(length(min = 1))]
    value: String,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct UnhealthyConf {
    #[schemars(length(min = 1), inner(range(min = 500, max = 599)), extend("uniqueItems" = true))]
    http_statuses: Vec<u16>,
    #[schemars(range(min = 1))]
    failures: u64,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct HealthyConf {
    #[schemars(length(min = 1), inner(range(min = 200, max = 499)), extend("uniqueItems" = true))]
    http_statuses: Vec<u16>,
    #[schemars(range(min = 1))]
    successes: u64,
}

impl Default for UnhealthyConf {
    fn default() -> Self {
        Self {
            http_statuses: vec![500],
            failures: 3,
        }
    }
}

impl Default for HealthyConf {
    fn default() -> Self {
        Self {
            http_statuses: vec![200],
            successes: 3,
        }
    }
}

fn five_minutes() -> u64 {
    300
}

struct ApiBreaker {
    scope: Scope,
    breaking: Breaking,
    unhealthy: Vec<u16>,
    healthy: Vec<u16>,
    status: StatusCode,
    body: Option<String>,
    headers: Vec<(HeaderName, Template)>,
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: NAME,
            priority: 1005,
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

fn compile(conf: &Value, owner: &str) -> Result<ApiBreaker, Faults> {
    let conf: Conf = parse(conf)?;
    let status = StatusCode::from_u16(conf.break_response_code).map_err(|_| {
        let text = format!(
            "break_response_code: {} is not a status",
            conf.break_response_code
        );
        Faults::at("break_response_code", text)
    })?;
    let headers = conf.break_response_headers.iter().flatten().enumerate();
    let headers = Faults::collect(headers.map(|(index, header)| {
        let name = HeaderName::from_bytes(header.key.as_bytes()).map_err(|_| {
            let path = format!("break_response_headers[{index}].key");
            let text = format!("{path}: `{}` is not a header name", header.key);
            Faults::at(&path, text)
        })?;
        Ok((name, Template::parse(&header.value)))
    }))?;
    Ok(ApiBreaker {
        scope: Scope::of(NAME, owner, &conf),
        breaking: Breaking {
            failures: conf.unhealthy.failures,
            successes: conf.healthy.successes,
            longest: Duration::from_secs(conf.max_breaker_sec),
        },
        unhealthy: conf.unhealthy.http_statuses,
        healthy: conf.healthy.http_statuses,
        status,
        body: conf.break_response_body,
        headers,
    })
}

impl ApiBreaker {
    /// Where the request is counted: its host and path, as plugins have left that.
    fn key(&self, exchange: &Exchange) -> Key {
        let parts = [&*exchange.received.host, &*exchange.request.path];
        exchange.gateway().limits().key(self.scope, &parts)
    }

    fn reply(&self, exchange: &Exchange) -> Reply {
        // As in APISIX, headers belong to a body.
        let Some(body) = &self.body else {
            return Reply::page(self.status);
        };
        let mut headers = HeaderMap::new();
        for (name, template) in &self.headers {
            if let Ok(value) = HeaderValue::from_str(&template.render(exchange).text) {
                headers.append(name, value);
            }
        }
        Reply {
            status: self.status,
            headers,
            body: ReplyBody::Text(body.clone()),
        }
    }
}

impl Plugin for ApiBreaker {
    fn phases(&self) -> Phases {
        Phases::ACCESS.and(Phases::HEADER_FILTER)
    }

    fn reads_body(&self) -> Phases {
        let mut names = self.headers.iter().flat_map(|(_, value)| value.variables());
        Phases::ACCESS.when(names.any(variables::reads_body))
    }

    fn access<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        let limits = exchange.gateway().limits();
        let is_open = limits.is_open(self.key(exchange), clock::now());
        Step::Done(if is_open {
            Flow::Respond(self.reply(exchange))
        } else {
            Flow::Continue
        })
    }

    fn header_filter(&self, exchange: &Exchange, _: &mut ResponseHead) {
        // What came of the last attempt, as `$upstream_status` has it; nothing was asked without one.
        let Some(attempt) = exchange.attempts.last() else {
            return;
        };
        let limits = exchange.gateway().limits();
        if self.unhealthy.contains(&attempt.status) {
            limits.fail(self.key(exchange), &self.breaking, clock::now());
        } else if self.healthy.contains(&attempt.status) {
            limits.succeed(self.key(exchange), &self.breaking, clock::now());
        }
    }
}

const NAME: &str = "api-breaker";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn headers_have_names() {
        let conf = |key: &str| {
            let headers = json!([{"key": key, "value": "v"}]);
            json!({"break_response_code": 503, "break_response_headers": headers})
        };
        assert!(compile(&conf("X-A"), "").is_ok());
        assert!(compile(&conf("X A"), "").is_err());
    }
}
