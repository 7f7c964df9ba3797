//! From an upstream as written to one that runs.

use std::{sync::Arc, time::Duration};

use http::HeaderValue;
use pointsman_balance::{Algorithm, MemberSpec, Pool, PoolError};

use crate::{
    config::{
        resource::{checks::Traffic, upstream as written},
        snapshot::seconds,
    },
    template::Template,
    upstream::{
        Guarding, HashKey, PassHost, PassiveChecks, Predecessors, Upstream,
        destination::{ClientCertificate, Destination, Keepalive, Timeouts, Tls, authority},
        health::{self, Assigned, Checker, Node, ReportName},
        named,
    },
};

/// What an upstream compiles to.
pub enum Built {
    /// It can take requests.
    Usable(Arc<Upstream>),
    /// It has no node: 503.
    NoNodes,
    /// Every weight of its ring is 0: 502.
    NothingToPick,
}

/// The run form of `upstream`, which belongs to `key`.
///
/// # Errors
/// The field that stands in the way, and why.
pub fn upstream(
    key: &str,
    upstream: &written::Upstream,
    assigned: &Assigned,
    previous: &dyn Predecessors,
    guarding: &dyn Guarding,
) -> Result<Built, (&'static str, String)> {
    let nodes = upstream.nodes();
    if nodes.is_empty() {
        return Ok(Built::NoNodes);
    }
    let algorithm = upstream.algorithm().map_err(|error| ("type", error))?;
    if algorithm == Algorithm::Chash && nodes.iter().all(|node| node.weight == 0) {
        return Ok(Built::NothingToPick);
    }
    let members = members(key, upstream, &nodes, assigned).map_err(in_nodes)?;
    let names = nodes.iter().zip(&members);
    let names = names.map(|(node, member)| named(&node.host, &member.targets, guarding));
    let names = names.collect();
    let mut pool = Pool::new(members, algorithm, rand::random())
        .map_err(|error: PoolError| in_nodes(error.to_string()))?
        .counting_in(previous.loads(), key);
    if let Some(before) = previous.pool(key) {
        pool = pool.succeeding(before);
    }
    let client = client_certificate(upstream);
    let destinations = nodes
        .iter()
        .map(|node| {
            let tls = upstream.is_tls().then(|| Tls {
                server_name: node.host.as_str().into(),
                // APISIX does not verify the certificates of plain upstreams; see `tls.verify`.
                verify: upstream.verifies(),
                client: client.clone(),
            });
            Destination::new(&node.host, node.port, tls).map(Arc::new)
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(in_nodes)?;
    let retries = upstream.retries.unwrap_or(nodes.len() - 1);
    Ok(Built::Usable(Arc::new(Upstream {
        key: key.to_owned(),
        pool,
        nodes: destinations,
        names,
        hash_key: (algorithm == Algorithm::Chash).then(|| hash_key(upstream)),
        pass_host: pass_host(upstream).map_err(|error| ("upstream_host", error))?,
        retries,
        retry_timeout: upstream
            .retry_timeout
            .filter(|limit| *limit > 0.0)
            .map(seconds),
        timeouts: upstream.timeout.as_ref().map_or(DEFAULT_TIMEOUTS, timeouts),
        keepalive: keepalive(upstream),
        passive: passive(upstream),
    })))
}

fn passive(upstream: &written::Upstream) -> PassiveChecks {
    if upstream.active_checks().is_none() {
        return PassiveChecks::default();
    }
    let checks = upstream.checks.as_ref();
    let configured = checks.and_then(|checks| checks.passive.as_ref());
    let at_end = configured.map(|passive| Arc::new(passive.rules()));
    PassiveChecks {
        at_retry: Some(at_end.clone().unwrap_or_default()),
        at_end,
    }
}

fn in_nodes(error: String) -> (&'static str, String) {
    ("nodes", error)
}

/// `timeout` as written, in its run form.
pub fn timeouts(written: &crate::config::resource::Timeout) -> Timeouts {
    Timeouts {
        connect: seconds(written.connect),
        send: seconds(written.send),
        read: seconds(written.read),
    }
}

/// What the `checks` of `upstream` ask for, if it has any. One checker, also without nodes.
pub fn checker(key: &str, upstream: &written::Upstream) -> Option<Checker> {
    let checks = upstream.checks.as_ref()?;
    let active = checks.active.as_ref()?;
    let host = upstream
        .upstream_host
        .as_deref()
        .filter(|_| upstream.rewrites_host());
    let probes = upstream
        .nodes()
        .iter()
        .map(|node| {
            let at = Node {
                host: &node.host,
                port: node.port,
            };
            health::planned(key, &member_name(node), at, active, host)
        })
        .collect();
    Some(Checker {
        owner: key.to_owned(),
        report: ReportName {
            name: key.to_owned(),
            instance: None,
        },
        kind: active.kind.as_str(),
        probes,
        remarks: checks.remarks(Traffic::Plain),
    })
}

/// The nodes as members of the pool `key`, each with what judges it.
fn members(
    key: &str,
    upstream: &written::Upstream,
    nodes: &[written::Node],
    assigned: &Assigned,
) -> Result<Vec<MemberSpec>, String> {
    let is_checked = upstream.active_checks().is_some();
    nodes
        .iter()
        .map(|node| {
            let name = member_name(node);
            let targets = if is_checked {
                assigned.judges(key, &name)?
            } else {
                Vec::new()
            };
            Ok(MemberSpec {
                name,
                weight: node.weight,
                priority: node.priority,
                targets,
                gate: None,
            })
        })
        .collect()
}

/// The name of a node inside its pool.
fn member_name(node: &written::Node) -> String {
    authority(&node.host, node.port, 0)
}

fn hash_key(upstream: &written::Upstream) -> HashKey {
    let key = upstream.key.clone().unwrap_or_default();
    match upstream.hash_on.as_str() {
        "header" => HashKey::Header(key),
        "cookie" => HashKey::Cookie(key),
        "consumer" => HashKey::Consumer,
        "vars_combinations" => HashKey::Combination(Template::parse(&key)),
        _ => HashKey::Var(key),
    }
}

fn pass_host(upstream: &written::Upstream) -> Result<PassHost, String> {
    Ok(match upstream.pass_host.as_str() {
        "node" => PassHost::Node,
        "rewrite" => {
            let host = upstream.upstream_host.as_deref().unwrap_or_default();
            let value = HeaderValue::from_str(host)
                .map_err(|_| format!("upstream_host `{host}` cannot stand in a header"))?;
            PassHost::Rewrite(value)
        }
        _ => PassHost::Pass,
    })
}

fn keepalive(upstream: &written::Upstream) -> Keepalive {
    upstream
        .keepalive_pool
        .as_ref()
        .map_or(DEFAULT_KEEPALIVE, |pool| Keepalive {
            pool_size: pool.size,
            idle: seconds(pool.idle_timeout),
            requests: pool.requests,
            after_errors: true,
        })
}

/// The certificate to show; one that stands elsewhere was brought in before.
fn client_certificate(upstream: &written::Upstream) -> Option<Arc<ClientCertificate>> {
    let tls = upstream.tls.as_ref()?;
    Some(Arc::new(ClientCertificate {
        cert: tls.client_cert.clone()?,
        key: tls.client_key.clone()?,
    }))
}

const DEFAULT_TIMEOUTS: Timeouts = Timeouts::all(Duration::from_secs(60));
const DEFAULT_KEEPALIVE: Keepalive = Keepalive {
    pool_size: 320,
    idle: Duration::from_secs(60),
    requests: 1000,
    after_errors: true,
};
