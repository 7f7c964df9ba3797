//! `multi-auth`: any of several ways to authenticate.

use std::sync::Arc;

use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{basic_auth, hmac_auth, jwt_auth, key_auth, parse};
use crate::{
    config::{
        plugin_schema::{Faults, PluginSchema},
        resource::schema_of,
        schema::Issue,
    },
    exchange::Exchange,
    plugin::{
        Flow, Phases, Plugin, Reply, Step,
        registry::{Building, PluginKind},
    },
};

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct Conf {
    /// Authentication plugins by name, with their configuration; tried in this order.
    #[schemars(length(min = 2))]
    auth_plugins: Vec<Map<String, Value>>,
}

struct MultiAuth {
    ways: Vec<Arc<dyn Plugin>>,
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: "multi-auth",
            priority: 2600,
            version: "0.1",
            schema: schema_of::<Conf>(),
            consumer_schema: None,
            metadata_schema: None,
            is_auth: true,
            check,
        },
        build,
        checkers: None,
        identity_field: None,
    }
}

/// The ways there are.
fn known(name: &str) -> Option<PluginKind> {
    [
        basic_auth::kind,
        hmac_auth::kind,
        jwt_auth::kind,
        key_auth::kind,
    ]
    .into_iter()
    .map(|kind| kind())
    .find(|kind| kind.schema.name == name)
}

/// The kinds that are named, with their configurations and where those stand.
fn ways(conf: &Conf) -> Result<Vec<(PluginKind, &Value, String)>, Faults> {
    let all = conf.auth_plugins.iter().enumerate();
    let all = all.flat_map(|(index, one)| one.iter().map(move |(name, conf)| (index, name, conf)));
    Faults::collect(all.map(|(index, name, conf)| {
        let path = format!("auth_plugins[{index}].{name}");
        match known(name) {
            Some(kind) => Ok((kind, conf, path)),
            None => {
                let text = format!("{name} plugin is not supported: it authenticates nobody here");
                Err(Faults::at(&path, text))
            }
        }
    }))
}

fn check(conf: &Value) -> Result<(), Faults> {
    let conf: Conf = parse(conf)?;
    let mut found = Vec::new();
    for (kind, conf, path) in ways(&conf)? {
        let schema = kind.schema.schema.validate(conf).into_iter();
        let rules = match (kind.schema.check)(conf) {
            Ok(()) => Vec::new(),
            Err(faults) => faults.into_issues(),
        };
        let told = |issue: Issue| Issue {
            message: format!(
                "plugin {} check schema failed: {}",
                kind.schema.name, issue.message
            ),
            ..issue.under(&path)
        };
        found.extend(schema.chain(rules).map(told));
    }
    Faults::none_of(found)
}

fn build(conf: &Value, building: &mut Building<'_>) -> Result<Arc<dyn Plugin>, Faults> {
    let conf: Conf = parse(conf)?;
    let built = ways(&conf)?
        .into_iter()
        .map(|(kind, conf, _)| (kind.build)(conf, building));
    let ways = built.collect::<Result<_, _>>()?;
    Ok(Arc::new(MultiAuth { ways }))
}

impl Plugin for MultiAuth {
    fn phases(&self) -> Phases {
        Phases::REWRITE
    }

    fn reads_body(&self) -> Phases {
        let ways = self.ways.iter();
        ways.fold(Phases::default(), |all, way| all.and(way.reads_body()))
    }

    fn rewrite<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        Step::Later(Box::pin(async move {
            for way in &self.ways {
                let flow = match way.rewrite(exchange) {
                    Step::Done(flow) => flow,
                    Step::Later(flow) => flow.await,
                };
                match flow {
                    Flow::Continue => return Flow::Continue,
                    Flow::Respond(_) => {}
                    // The request itself is at fault: no other way makes that good.
                    failed @ Flow::Fail(_) => return failed,
                }
            }
            let body = json!({ "message": "Authorization Failed" });
            Flow::Respond(Reply::json(StatusCode::UNAUTHORIZED, body))
        }))
    }
}
