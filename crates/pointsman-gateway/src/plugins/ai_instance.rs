//! From the configuration of an AI plugin to instances that run, and to the probes they want.

mod gcp;
mod watch;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, uri::PathAndQuery};
use pointsman_ai::{Endpoint, Protocol, Provider, Shaper, Shaping, sign::AwsKeys};
use pointsman_balance::{Algorithm, MemberSpec, Pool, TargetId};
use serde_json::Value;

use crate::{
    config::plugin::ai_proxy as written,
    config::plugin_schema::Faults,
    config::resource::checks::{self, Traffic},
    config::text::join,
    forward::judge::RetryPolicy,
    plugin::registry::Building,
    plugins::ai_proxy::{AiInstance, AiLimits, AiTarget, Logging, Opening, Watch, encode_query},
    plugins::ai_semantic,
    plugins::parse,
    template::Template,
    upstream::{
        Guarding, HashKey,
        destination::{Destination, Keepalive, Timeouts, Tls, authority},
        health::{self, Assigned, Checker, Node, Planned, ReportName},
        named,
        resolve::Named,
    },
};

/// `ai-proxy`: one instance, named after its provider.
pub(crate) fn single(conf: &Value, building: &mut Building<'_>) -> Result<Arc<AiTarget>, Faults> {
    let conf: written::AiProxy = parse(conf)?;
    let instance = written::Instance::from_single(&conf);
    let common = conf.common;
    let pool = Pool::new(
        vec![MemberSpec {
            name: instance.name.clone(),
            weight: 1,
            priority: 0,
            targets: vec![],
            gate: None,
        }],
        Algorithm::RoundRobin,
        0,
    )
    .map_err(|error| error.to_string())?;
    let mut run = run_form(instance, &common, building)?;
    run.named = named_of(&run, &[], building.guards);
    let instances = vec![run];
    let key = format!("{}#ai-proxy", building.owner);
    Ok(Arc::new(target(
        key,
        pool,
        instances,
        &common,
        None,
        RetryPolicy::default(),
    )))
}

/// `ai-proxy-multi`.
pub(crate) fn multi(conf: &Value, building: &mut Building<'_>) -> Result<Arc<AiTarget>, Faults> {
    let conf: written::AiProxyMulti = parse(conf)?;
    let key = format!("{}#ai-proxy-multi", building.owner);
    let watches: Vec<Option<Box<Watch>>> = (conf.instances.iter())
        .map(|instance| watch::of(instance, &conf, &key, building.guards).map(Box::new))
        .collect();
    // After all guards, so that the ids of gates are neighbours, and a pick finds their verdicts together.
    let members = (conf.instances.iter().zip(&watches))
        .map(|(instance, watch)| {
            let targets = targets_of(&key, instance, building.assigned)?;
            let guards = watch.as_ref().map_or(vec![], |watch| watch.guards());
            let gate = (!guards.is_empty()).then(|| building.guards.gate(&targets, guards));
            Ok(MemberSpec {
                name: instance.name.clone(),
                weight: instance.weight,
                priority: instance.priority,
                targets,
                gate,
            })
        })
        .collect::<Result<Vec<_>, String>>()?;
    let algorithm = match conf.balancer.algorithm {
        written::BalancerAlgorithm::Chash => Algorithm::Chash,
        written::BalancerAlgorithm::LeastConn => Algorithm::LeastConn,
        written::BalancerAlgorithm::Ewma => Algorithm::Ewma,
        // Semantic balancing did not pass the check of the document.
        written::BalancerAlgorithm::Roundrobin | written::BalancerAlgorithm::Semantic => {
            Algorithm::RoundRobin
        }
    };
    let hash_key = (algorithm == Algorithm::Chash).then(|| hash_key(&conf.balancer));
    let mut pool = Pool::new(members, algorithm, rand::random())
        .map_err(|error| error.to_string())?
        .counting_in(building.previous.loads(), &key);
    if let Some(previous) = building.previous.pool(&key) {
        pool = pool.succeeding(previous);
    }
    let semantic = ai_semantic::of(&conf)?;
    let retry = retry_policy(&conf);
    let rejects = conf.on_all_unhealthy == written::OnAllUnhealthy::Reject;
    let written = conf.instances.into_iter().zip(watches).enumerate();
    let instances = written.map(|(index, (instance, watch))| {
        let context_length = instance.context_length;
        let run = run_form(instance, &conf.common, building)
            .map_err(|faults| faults.under(&format!("instances[{index}]")))?;
        Ok(AiInstance {
            named: named_of(&run, pool.targets(index), building.guards),
            watch,
            context_length,
            ..run
        })
    });
    let instances = Faults::collect(instances)?;
    let mut target = target(key, pool, instances, &conf.common, hash_key, retry);
    target.rejects = rejects;
    target.semantic = semantic;
    Ok(Arc::new(target))
}

/// What the `checks` of the instances of an `ai-proxy-multi` ask for: one checker an instance.
pub(crate) fn checkers(conf: &Value, owner: &str) -> Vec<Checker> {
    let key = format!("{owner}#ai-proxy-multi");
    let instances = conf.get("instances").and_then(Value::as_array);
    instances
        .into_iter()
        .flatten()
        .enumerate()
        .filter(|(_, instance)| instance.get("checks").is_some())
        .filter_map(|(index, instance)| {
            // One that does not parse is reported where it is built, and its pool is not.
            let instance: written::Instance = parse(instance).ok()?;
            let checks = instance.checks.as_ref()?;
            let active = checks.active.as_ref()?;
            let mut probe = probe_of(&key, &instance, active)?;
            probe.wanted.checker = format!("{key}/{}", instance.name);
            let remarks = checks.remarks(Traffic::Ai).into_iter();
            Some(Checker {
                owner: key.clone(),
                report: ReportName {
                    name: format!("{owner}#plugins['ai-proxy-multi'].instances[{index}]"),
                    instance: Some(instance.name.clone()),
                },
                kind: active.kind.as_str(),
                probes: vec![probe],
                remarks: remarks
                    .map(|(path, text)| (format!("instances[{index}].{path}"), text))
                    .collect(),
            })
        })
        .collect()
}

/// The targets that judge an instance. One that can be reached nowhere has none, even with checks.
fn targets_of(
    key: &str,
    instance: &written::Instance,
    assigned: &Assigned,
) -> Result<Vec<TargetId>, String> {
    let active = instance.checks.as_ref().and_then(|c| c.active.as_ref());
    match active.and_then(|_| address_of(instance)) {
        Some(_) => assigned.judges(key, &instance.name),
        None => Ok(Vec::new()),
    }
}

fn target(
    key: String,
    pool: Pool,
    instances: Vec<AiInstance>,
    common: &written::Common,
    hash_key: Option<HashKey>,
    retry: RetryPolicy,
) -> AiTarget {
    AiTarget {
        key,
        pool,
        instances,
        hash_key,
        semantic: None,
        retry,
        repeat: common.retry.unwrap_or_default(),
        rejects: false,
        strict: common.strict_translation,
        by_path: common.typed_passthrough,
        opening: Opening {
            hold: common.hold_stream_start,
            first_token: common.first_token_timeout_ms.map(Duration::from_millis),
        },
        estimates: common.estimate_usage,
        timeouts: Timeouts::all(Duration::from_millis(common.timeout)),
        keepalive: Keepalive {
            pool_size: if common.keepalive {
                common.keepalive_pool
            } else {
                0
            },
            idle: Duration::from_millis(common.keepalive_timeout),
            requests: u64::MAX,
            after_errors: false,
        },
        limits: AiLimits {
            request_bytes: common.max_req_body_size,
            response_bytes: common.max_response_bytes,
            stream_duration: common.max_stream_duration_ms.map(Duration::from_millis),
            stream_idle: common.stream_idle_timeout_ms.map(Duration::from_millis),
        },
        logging: Logging {
            summaries: common.logging.summaries,
            payloads: common.logging.payloads,
        },
    }
}

fn retry_policy(conf: &written::AiProxyMulti) -> RetryPolicy {
    RetryPolicy {
        has_alternatives: conf.instances.len() > 1,
        on_429: conf.falls_back_on("http_429"),
        on_5xx: conf.falls_back_on("http_5xx"),
        statuses: conf.fallback_http_statuses.clone().unwrap_or_default(),
        max_retries: conf.max_retries,
        within: conf.retry_on_failure_within_ms.map(Duration::from_millis),
    }
}

fn hash_key(balancer: &written::Balancer) -> HashKey {
    let key = balancer.key.clone().unwrap_or_default();
    match balancer.hash_on {
        written::HashOn::Vars => HashKey::Var(key),
        written::HashOn::Header => HashKey::Header(key),
        written::HashOn::Cookie => HashKey::Cookie(key),
        written::HashOn::Consumer => HashKey::Consumer,
        written::HashOn::VarsCombinations => HashKey::Combination(Template::parse(&key)),
    }
}

/// An instance in its run form.
fn run_form(
    instance: written::Instance,
    common: &written::Common,
    building: &mut Building<'_>,
) -> Result<AiInstance, Faults> {
    let provider = provider_of(&instance).map_err(|error| Faults::at("provider", error))?;
    let endpoint = endpoint_of(&instance).map_err(|error| Faults::at(ENDPOINT, error))?;
    let gcp = gcp::of(&instance, common.ssl_verify, building);
    let doubts = doubts_about(&instance, provider, endpoint.as_ref());
    building.warnings.extend(doubts);
    let destination = destination_of(&instance, endpoint.as_ref(), common.ssl_verify)
        .map_err(|error| Faults::at(ENDPOINT, error))?;
    let auth_headers = auth_headers(&instance)?;
    let spoken = instance.protocol.as_deref().and_then(Protocol::from_name);
    let conf = instance.provider_conf.clone().unwrap_or_default();
    let shaping = Shaping {
        llm_max_tokens: instance.llm_max_tokens(),
        request_body: request_bodies(&instance),
        force: instance.request_body_force_override(),
        options: instance.options.unwrap_or_default(),
    };
    let model = shaping
        .options
        .get("model")
        .and_then(Value::as_str)
        .map(Arc::from);
    let shaper = Shaper::compile(provider, &shaping);
    let (address, host) = names_of(destination.as_ref());
    let mut run = AiInstance {
        name: instance.name.as_str().into(),
        provider,
        spoken,
        region: conf.region,
        project: conf.project_id,
        address,
        host,
        destination: destination.map(Arc::new),
        named: None,
        path: endpoint
            .as_ref()
            .and_then(|endpoint| endpoint.path().map(str::to_owned)),
        auth_headers,
        aws: aws_keys(&instance.auth, provider),
        gcp,
        auth_query: instance
            .auth
            .query
            .unwrap_or_default()
            .into_iter()
            .collect(),
        endpoint_query: endpoint
            .map(|endpoint| endpoint.query().to_vec())
            .unwrap_or_default(),
        model,
        shaper,
        fixed_targets: Vec::new(),
        watch: None,
        context_length: None,
    };
    run.fixed_targets = run.work_out_targets();
    Ok(run)
}

/// What is probably not meant in where an instance is.
fn doubts_about(
    instance: &written::Instance,
    provider: Provider,
    endpoint: Option<&Endpoint>,
) -> Option<String> {
    let name = &instance.name;
    match endpoint {
        Some(endpoint) if endpoint.lone_slash() => Some(format!(
            "instance '{name}': override.endpoint ends in a lone `/`, which is read as no path"
        )),
        None if default_base(instance).is_none() => Some(format!(
            "instance '{name}': provider {} needs override.endpoint; requests to it will fail",
            provider.as_str()
        )),
        _ => None,
    }
}

fn named_of(run: &AiInstance, targets: &[TargetId], guarding: &dyn Guarding) -> Option<Named> {
    let destination = run.destination.as_ref()?;
    named(&destination.host, targets, guarding)
}

fn provider_of(instance: &written::Instance) -> Result<Provider, String> {
    Provider::from_name(&instance.provider)
        .ok_or_else(|| format!("provider {} is not supported yet", instance.provider))
}

fn endpoint_of(instance: &written::Instance) -> Result<Option<Endpoint>, String> {
    let Some(text) = instance.endpoint() else {
        return Ok(None);
    };
    let wrong = |what: &dyn std::fmt::Display| {
        format!("instance '{}': override.endpoint: {what}", instance.name)
    };
    let endpoint = Endpoint::parse(text).map_err(|error| wrong(&error))?;
    // Every request to the instance has it, so every one would fail.
    PathAndQuery::try_from(endpoint.target())
        .map_err(|error| wrong(&format_args!("its path or query: {error}")))?;
    Ok(Some(endpoint))
}

fn destination_of(
    instance: &written::Instance,
    endpoint: Option<&Endpoint>,
    verify: bool,
) -> Result<Option<Destination>, String> {
    let (host, port, https) = match (endpoint, default_base(instance)) {
        (Some(endpoint), _) => (
            endpoint.host().to_owned(),
            endpoint.port(),
            endpoint.is_https(),
        ),
        (None, Some(base)) => base,
        (None, None) => return Ok(None),
    };
    let tls = https.then(|| Tls {
        server_name: host.as_str().into(),
        verify,
        client: None,
    });
    Destination::new(&host, port, tls).map(Some)
}

/// Where the instance's provider is (host, port, over TLS), unless the configuration must say.
fn default_base(instance: &written::Instance) -> Option<(String, u16, bool)> {
    let base = provider_of(instance).ok()?.default_base()?;
    let conf = instance.provider_conf.as_ref();
    let region = conf.and_then(|conf| conf.region.as_deref());
    let host = pointsman_ai::fill(base.host, None, region, None, false)?;
    Some((host, base.port, base.https))
}

fn auth_headers(instance: &written::Instance) -> Result<Vec<(HeaderName, HeaderValue)>, Faults> {
    let written = instance.auth.header.iter().flatten();
    let applied = written.filter(|(name, _)| !is_ours(name));
    Faults::collect(applied.map(|(name, value)| {
        let path = join("auth.header", name);
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
            Faults::at(&path, format!("auth.header: `{name}` is not a header name"))
        })?;
        let mut value = HeaderValue::from_str(value).map_err(|_| {
            let text = format!("auth.header.{name}: the value cannot stand in a header");
            Faults::at(&path, text)
        })?;
        value.set_sensitive(true);
        Ok((name, value))
    }))
}

/// Keys of AWS; of other providers they are ignored, as in APISIX.
fn aws_keys(auth: &written::Auth, provider: Provider) -> Option<AwsKeys> {
    let keys = auth
        .aws
        .as_ref()
        .filter(|_| provider == Provider::Bedrock)?;
    Some(AwsKeys {
        access_key_id: keys.access_key_id.clone(),
        secret_access_key: keys.secret_access_key.clone(),
        session_token: keys.session_token.clone(),
    })
}

/// A header that only the gateway sets, whatever `auth` says.
fn is_ours(name: &str) -> bool {
    let ours = ["host", "content-length", "accept-encoding"];
    ours.iter().any(|own| name.eq_ignore_ascii_case(own))
}

fn request_bodies(
    instance: &written::Instance,
) -> BTreeMap<Protocol, serde_json::Map<String, Value>> {
    instance
        .request_body()
        .into_iter()
        .filter_map(|(name, patch)| Some((Protocol::from_name(name)?, patch.clone())))
        .collect()
}

/// `host:port` and `Host` of a destination, as logs show them.
fn names_of(destination: Option<&Destination>) -> (Arc<str>, Arc<str>) {
    let Some(to) = destination else {
        return ("".into(), "".into());
    };
    let host = to.authority.to_str().unwrap_or_default();
    (authority(&to.host, to.port, 0).into(), host.into())
}

/// Where traffic to an instance goes.
fn address_of(instance: &written::Instance) -> Option<(String, u16)> {
    match endpoint_of(instance).ok()? {
        Some(endpoint) => Some((endpoint.host().to_owned(), endpoint.port())),
        None => default_base(instance).map(|(host, port, _)| (host, port)),
    }
}

/// The probe of an instance: at its endpoint, with its credentials.
fn probe_of(key: &str, instance: &written::Instance, active: &checks::Active) -> Option<Planned> {
    let (host, port) = address_of(instance)?;
    let mut active = active.clone();
    let mut lines = active.req_headers.take().unwrap_or_default();
    for (name, value) in instance.auth.header.iter().flatten() {
        let line = format!("{name}: {value}");
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    active.req_headers = Some(lines);
    let query: Vec<(String, String)> = instance
        .auth
        .query
        .clone()
        .unwrap_or_default()
        .into_iter()
        .collect();
    if !query.is_empty() {
        let path = &mut active.http_path;
        path.push(if path.contains('?') { '&' } else { '?' });
        path.push_str(&encode_query(&query));
    }
    let node = Node { host: &host, port };
    Some(health::planned(key, &instance.name, node, &active, None))
}

const ENDPOINT: &str = "override.endpoint";
