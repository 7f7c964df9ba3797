//! `fault-injection`: answers instead of the target, or delays, to see how clients take it.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use rand::Rng as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{expressions, header_templates, parse};
use crate::{
    config::{
        plugin_schema::{Faults, PluginSchema},
        resource::schema_of,
    },
    exchange::Exchange,
    plugin::{
        Flow, Phases, Plugin, Reply, ReplyBody, Step,
        registry::{Building, PluginKind},
    },
    router::Expr,
    template::Template,
    variables,
};

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct Conf {
    /// Answer instead.
    abort: Option<AbortConf>,
    /// Wait first.
    delay: Option<DelayConf>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct AbortConf {
    /// Status.
    #[schemars(range(min = 200))]
    http_status: u16,
    /// Body, a template.
    body: Option<String>,
    /// Headers, templates.
    #[schemars(extend("minProperties" = 1))]
    headers: Option<Map<String, Value>>,
    /// Of how many requests, in percent; all if absent.
    #[schemars(range(min = 0, max = 100))]
    percentage: Option<u8>,
    /// Only if one of these expressions holds.
    #[schemars(length(max = 20))]
    vars: Option<Vec<Value>>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct DelayConf {
    /// Seconds.
    #[schemars(range(min = 0.0))]
    duration: f64,
    /// Of how many requests, in percent; all if absent.
    #[schemars(range(min = 0, max = 100))]
    percentage: Option<u8>,
    /// Only if one of these expressions holds.
    #[schemars(length(max = 20))]
    vars: Option<Vec<Value>>,
}

struct FaultInjection {
    abort: Option<Abort>,
    delay: Option<(Duration, When)>,
    reads_body: bool,
}

struct Abort {
    status: StatusCode,
    body: Option<Template>,
    headers: Vec<(HeaderName, Template)>,
    when: When,
}

/// Which requests are meant.
struct When {
    percentage: Option<u8>,
    vars: Option<Vec<Expr>>,
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: "fault-injection",
            priority: 11000,
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

fn compile(conf: &Value) -> Result<FaultInjection, Faults> {
    let conf: Conf = parse(conf)?;
    if conf.abort.is_none() && conf.delay.is_none() {
        let text = "expect object to have at least 1 properties: give abort, delay or both";
        return Err(Faults::at("", text));
    }
    let abort = conf.abort.as_ref().map(abort).transpose()?;
    let delay = conf.delay.as_ref().map(delay).transpose()?;
    let whens = abort.iter().map(|abort| &abort.when);
    let whens = whens.chain(delay.iter().map(|(_, when)| when));
    let asks = whens
        .flat_map(|when| when.vars.iter().flatten())
        .flat_map(Expr::variables)
        .any(variables::reads_body);
    let tells = abort.iter().any(|abort| {
        let headers = abort.headers.iter().map(|(_, value)| value);
        let mut names = headers.chain(&abort.body).flat_map(Template::variables);
        names.any(variables::reads_body)
    });
    Ok(FaultInjection {
        abort,
        delay,
        reads_body: asks || tells,
    })
}

fn abort(conf: &AbortConf) -> Result<Abort, Faults> {
    let status = StatusCode::from_u16(conf.http_status).map_err(|_| {
        let text = format!("abort.http_status: {} is not a status", conf.http_status);
        Faults::at("abort.http_status", text)
    })?;
    let headers = conf
        .headers
        .as_ref()
        .map(|headers| header_templates("abort.headers", headers));
    Ok(Abort {
        status,
        body: conf.body.as_deref().map(Template::parse),
        headers: headers.transpose()?.unwrap_or_default(),
        when: When::new(conf.percentage, conf.vars.as_deref(), "abort.vars")?,
    })
}

fn delay(conf: &DelayConf) -> Result<(Duration, When), Faults> {
    let duration = Duration::try_from_secs_f64(conf.duration).map_err(|_| {
        let text = format!(
            "delay.duration: {} seconds is no time to wait",
            conf.duration
        );
        Faults::at("delay.duration", text)
    })?;
    let when = When::new(conf.percentage, conf.vars.as_deref(), "delay.vars")?;
    Ok((duration.min(DELAY_MAX), when))
}

impl When {
    fn new(percentage: Option<u8>, vars: Option<&[Value]>, path: &str) -> Result<Self, Faults> {
        let vars = vars.map(|list| expressions(path, list)).transpose()?;
        Ok(Self { percentage, vars })
    }

    fn holds(&self, exchange: &Exchange) -> bool {
        let is_meant = |vars: &Vec<Expr>| {
            // An expression that cannot be evaluated must not make a fault.
            vars.iter().any(|expr| expr.eval(exchange).unwrap_or(false))
        };
        let is_drawn = |percentage| rand::rng().random_range(0..100) < percentage;
        self.percentage.is_none_or(is_drawn) && self.vars.as_ref().is_none_or(is_meant)
    }
}

impl FaultInjection {
    fn abort(&self, exchange: &Exchange) -> Flow {
        let Some(abort) = self
            .abort
            .as_ref()
            .filter(|abort| abort.when.holds(exchange))
        else {
            return Flow::Continue;
        };
        let mut headers = HeaderMap::new();
        for (name, template) in &abort.headers {
            if let Ok(value) = HeaderValue::from_str(&template.render(exchange).text) {
                headers.insert(name, value);
            }
        }
        let body = match &abort.body {
            Some(template) => ReplyBody::Text(template.render(exchange).text),
            None => ReplyBody::Empty,
        };
        Flow::Respond(Reply {
            status: abort.status,
            headers,
            body,
        })
    }
}

impl Plugin for FaultInjection {
    fn phases(&self) -> Phases {
        Phases::REWRITE
    }

    fn reads_body(&self) -> Phases {
        Phases::REWRITE.when(self.reads_body)
    }

    fn rewrite<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        let delay = self.delay.as_ref().filter(|(_, when)| when.holds(exchange));
        let Some((duration, _)) = delay else {
            return Step::Done(self.abort(exchange));
        };
        let waited = super::pause(exchange, *duration);
        Step::Later(Box::pin(async move {
            waited.await;
            self.abort(exchange)
        }))
    }
}

/// A client has long gone by then.
const DELAY_MAX: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nonsense_is_refused() {
        for wrong in [
            json!({}),
            json!({"abort": {"http_status": 1000}}),
            json!({"abort": {"http_status": 500, "vars": [["a", "?", "b"]]}}),
            json!({"abort": {"http_status": 500, "headers": {"a b": "c"}}}),
            json!({"delay": {"duration": -1}}),
        ] {
            assert!(compile(&wrong).is_err(), "{wrong}");
        }
    }
}
