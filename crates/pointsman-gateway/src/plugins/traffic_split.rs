//! `traffic-split`: sends shares of a route's requests to other upstreams.
//!
//! It only says which upstream a request goes to. Who of that is picked, by which verdicts, and what is
//! tried next, is the business of the attempt loop, as for any upstream: a share is kept whatever
//! the health of who gets it. One that is named by its id is looked up in the request's snapshot; one that
//! stands inline is built with the plugin. An AI plugin on the same route sends requests itself.

use std::sync::Arc;

use http::StatusCode;
use pointsman_balance::{Algorithm, Ask, Availability, MemberSpec, Pool, Tried};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{expressions, parse};
use crate::{
    config::{
        plugin_schema::{Faults, PluginSchema},
        resource::{Id, schema_of, upstream as written},
        schema::Issue,
        snapshot::Backend,
        text::join,
    },
    exchange::Exchange,
    plugin::{
        Flow, Phases, Plugin, Reply, Step,
        registry::{Building, PluginKind},
    },
    router::Expr,
    upstream::{Upstream, build},
    variables,
};

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct Conf {
    /// The first that matches counts.
    #[serde(default)]
    rules: Vec<RuleConf>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct RuleConf {
    /// Requests for which any of these holds; all if absent.
    #[serde(rename = "match")]
    matches: Option<Vec<MatchConf>>,
    /// Where they go, by weight.
    #[serde(default = "the_routes_own")]
    #[schemars(length(min = 1, max = 20))]
    weighted_upstreams: Vec<ShareConf>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct MatchConf {
    /// An expression.
    vars: Option<Value>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct ShareConf {
    /// An upstream by its id. Without it and `upstream`: the route's own.
    upstream_id: Option<Id>,
    /// An upstream.
    upstream: Option<written::Upstream>,
    /// Its share.
    #[serde(default = "one")]
    weight: u32,
}

fn the_routes_own() -> Vec<ShareConf> {
    vec![ShareConf {
        upstream_id: None,
        upstream: None,
        weight: one(),
    }]
}

fn one() -> u32 {
    1
}

struct TrafficSplit {
    rules: Vec<Rule>,
    /// All that stand inline.
    upstreams: Vec<Arc<Upstream>>,
    reads_body: bool,
}

struct Rule {
    matches: Option<Vec<Expr>>,
    /// Whose turn it is; one member for each share, without health.
    turns: Pool,
    shares: Vec<Share>,
}

enum Share {
    /// The route's own upstream.
    Own,
    /// The upstream with that id, by its key.
    Named { key: String, id: String },
    /// One that stands inline.
    Inline(Backend),
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: NAME,
            priority: 966,
            version: "0.1",
            schema: schema_of::<Conf>(),
            consumer_schema: None,
            metadata_schema: None,
            is_auth: false,
            check,
        },
        build: |conf, building: &mut Building<'_>| Ok(Arc::new(compile(conf, building)?)),
        checkers: None,
        identity_field: None,
    }
}

fn check(conf: &Value) -> Result<(), Faults> {
    let conf: Conf = parse(conf)?;
    let mut found = Vec::new();
    for (index, rule) in conf.rules.iter().enumerate() {
        if let Err(faults) = rule.matches(index) {
            found.extend(faults.into_issues());
        }
        for (path, share) in rule.shares(index) {
            let issues = share.upstream.iter().flat_map(written::Upstream::check);
            let path = join(&path, "upstream");
            found.extend(issues.map(|issue| issue.under(&path)));
            if share.upstream.is_some() && share.upstream_id.is_some() {
                let text = "upstream and upstream_id cannot both be given";
                found.push(Issue::new(&path, text));
            }
        }
    }
    Faults::none_of(found)
}

fn compile(conf: &Value, building: &mut Building<'_>) -> Result<TrafficSplit, Faults> {
    let conf: Conf = parse(conf)?;
    let rules = conf.rules.iter().enumerate();
    let rules = Faults::collect(rules.map(|(index, rule)| Rule::new(rule, index, building)))?;
    let inline = rules.iter().flat_map(|rule| &rule.shares);
    let upstreams = inline.filter_map(|share| match share {
        Share::Inline(Backend::Upstream(upstream)) => Some(Arc::clone(upstream)),
        _ => None,
    });
    let exprs = rules.iter().flat_map(|rule| rule.matches.iter().flatten());
    let reads_body = exprs.flat_map(Expr::variables).any(variables::reads_body);
    Ok(TrafficSplit {
        upstreams: upstreams.collect(),
        reads_body,
        rules,
    })
}

impl RuleConf {
    fn matches(&self, index: usize) -> Result<Option<Vec<Expr>>, Faults> {
        let Some(matches) = &self.matches else {
            return Ok(None);
        };
        // A match that asks for nothing always holds.
        let written: Vec<Value> = matches
            .iter()
            .map(|one| one.vars.clone().unwrap_or_else(|| Value::Array(Vec::new())))
            .collect();
        expressions(&format!("rules[{index}].match"), &written).map(Some)
    }

    /// Its shares, each with its path.
    fn shares(&self, index: usize) -> impl Iterator<Item = (String, &ShareConf)> {
        let shares = self.weighted_upstreams.iter().enumerate();
        shares.map(move |(share, conf)| {
            let path = format!("rules[{index}].weighted_upstreams[{share}]");
            (path, conf)
        })
    }
}

impl Rule {
    fn new(conf: &RuleConf, index: usize, building: &mut Building<'_>) -> Result<Self, Faults> {
        let members = conf.weighted_upstreams.iter().enumerate();
        let members = members.map(|(share, conf)| MemberSpec {
            name: share.to_string(),
            weight: conf.weight,
            priority: 0,
            targets: Vec::new(),
            gate: None,
        });
        let turns = Pool::new(members.collect(), Algorithm::RoundRobin, rand::random());
        let turns = turns.map_err(|error| {
            let path = format!("rules[{index}].weighted_upstreams");
            Faults::at(&path, error.to_string())
        })?;
        let shares = conf.shares(index);
        Ok(Self {
            matches: conf.matches(index)?,
            turns,
            shares: Faults::collect(
                shares.map(|(path, share)| Share::new(share, &path, building)),
            )?,
        })
    }

    fn holds(&self, exchange: &Exchange) -> bool {
        let Some(matches) = &self.matches else {
            return true;
        };
        let mut matches = matches.iter();
        matches.any(|expr| expr.eval(exchange).unwrap_or(false))
    }

    /// Whose turn it is.
    fn turn(&self) -> &Share {
        let ask = Ask {
            key: None,
            now: std::time::Duration::ZERO,
            tried: &Tried::new(),
        };
        let picked = self.turns.pick(&ask, &Availability::empty());
        // Its members are always usable.
        picked.map_or(&Share::Own, |picked| &self.shares[picked.member()])
    }
}

impl Share {
    fn new(conf: &ShareConf, path: &str, building: &mut Building<'_>) -> Result<Self, Faults> {
        if let Some(id) = &conf.upstream_id {
            let id = id.text().into_owned();
            let key = format!("/upstreams/{id}");
            if !(building.has_upstream)(&key) {
                building.warnings.push(format!(
                    "{path}.upstream_id: there is no upstream `{id}`, or it has errors and was left \
                     out; requests that come to this rule get a 500"
                ));
            }
            return Ok(Self::Named { key, id });
        }
        let Some(upstream) = &conf.upstream else {
            return Ok(Self::Own);
        };
        let upstream = honoured(upstream, path, building.warnings);
        let key = format!("{}#{NAME}.{path}", building.owner);
        let (assigned, guards) = (building.assigned, building.guards);
        let built = build::upstream(&key, &upstream, assigned, building.previous, guards);
        let built = built.map_err(|(field, error)| {
            let path = format!("{path}.upstream.{field}");
            Faults::at(&path, error)
        })?;
        Ok(Self::Inline(Backend::of(built)))
    }
}

/// `upstream` with those of its fields that APISIX honours where it stands inline.
fn honoured(
    upstream: &written::Upstream,
    path: &str,
    warnings: &mut Vec<String>,
) -> written::Upstream {
    let left_out = [
        ("checks", upstream.checks.is_some()),
        ("retries", upstream.retries.is_some()),
        ("retry_timeout", upstream.retry_timeout.is_some()),
        ("tls", upstream.tls.is_some()),
        ("keepalive_pool", upstream.keepalive_pool.is_some()),
    ];
    for (field, _) in left_out.iter().filter(|(_, is_there)| *is_there) {
        warnings.push(format!(
            "{path}.upstream.{field} has no effect in an upstream that stands in {NAME}; give the \
             upstream an id and name it in upstream_id"
        ));
    }
    written::Upstream {
        checks: None,
        retries: None,
        retry_timeout: None,
        tls: None,
        keepalive_pool: None,
        ..upstream.clone()
    }
}

impl TrafficSplit {
    /// Where the request goes; `None` if that is up to the route. Fails with the id that nothing has.
    fn destination(&self, exchange: &Exchange) -> Result<Option<Backend>, &str> {
        let upstreams = &exchange.snapshot().upstreams;
        for rule in &self.rules {
            for share in &rule.shares {
                if let Share::Named { key, id } = share
                    && !upstreams.contains_key(key)
                {
                    return Err(id);
                }
            }
            if rule.holds(exchange) {
                return Ok(match rule.turn() {
                    Share::Own => None,
                    Share::Named { key, .. } => upstreams.get(key).cloned(),
                    Share::Inline(backend) => Some(backend.clone()),
                });
            }
        }
        Ok(None)
    }
}

impl Plugin for TrafficSplit {
    fn phases(&self) -> Phases {
        Phases::ACCESS
    }

    fn reads_body(&self) -> Phases {
        Phases::ACCESS.when(self.reads_body)
    }

    fn upstreams(&self) -> &[Arc<Upstream>] {
        &self.upstreams
    }

    fn access<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        Step::Done(match self.destination(exchange) {
            Ok(destination) => {
                if let Some(backend) = destination {
                    exchange.send_to(backend);
                }
                Flow::Continue
            }
            Err(id) => {
                let text = format!("failed to find upstream by id: {id}");
                Flow::Respond(Reply::text(StatusCode::INTERNAL_SERVER_ERROR, text))
            }
        })
    }
}

const NAME: &str = "traffic-split";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_that_is_wrong_is_told() {
        let rules = json!([
            {"match": [{"vars": [["a", "?", "b"]]}]},
            {"weighted_upstreams": [
                {"weight": 1},
                {"upstream_id": 1, "upstream": {"nodes": {"a:1": 1}, "type": "none"}},
                {"upstream": {"nodes": {"a:1": 1}, "pass_host": "rewrite"}},
            ]},
        ]);
        let faults = check(&json!({ "rules": rules })).expect_err("wrong");
        let paths: Vec<String> = faults.into_issues().into_iter().map(|i| i.path).collect();
        assert_eq!(
            paths,
            [
                "rules[0].match[0]",
                "rules[1].weighted_upstreams[1].upstream.type",
                "rules[1].weighted_upstreams[1].upstream",
                "rules[1].weighted_upstreams[2].upstream.upstream_host",
            ]
        );
        assert!(check(&json!({"rules": [{"match": [{}]}]})).is_ok());
        assert!(check(&json!({})).is_ok());
    }
}
