//! Rules across fields of `ai-proxy` and `ai-proxy-multi`, in APISIX's order and words. APISIX stops
//! at the first; here all are told.

use std::collections::HashMap;

use http::HeaderValue;
use pointsman_ai::Endpoint;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{AiProxy, Balancer, BalancerAlgorithm, Instance, SemanticOpts};
use crate::config::{
    plugin_schema::{Faults, Unreadable},
    reference,
    resource::upstream::check_hash_key,
    schema::Issue,
    text::join,
};

/// `ai-proxy`.
pub(super) fn single(conf: &Value) -> Result<(), Faults> {
    let conf: AiProxy = parse(conf)?;
    let instance = Instance::from_single(&conf);
    let mut found = Vec::new();
    check_address(&instance, &mut found);
    check_provider(&instance, &mut found);
    Faults::none_of(found)
}

/// `ai-proxy-multi`. Read part by part: one that cannot be read does not hide the others.
pub(super) fn multi(conf: &Value) -> Result<(), Faults> {
    let mut found = Vec::new();
    let mut unreadable = None;
    let mut seen: HashMap<String, usize> = HashMap::new();
    let written = conf.get("instances").and_then(Value::as_array);
    let mut instances = Vec::new();
    for (index, instance) in written.into_iter().flatten().enumerate() {
        let instance: Instance = match parse(instance) {
            Ok(instance) => instance,
            Err(error) => {
                unreadable = Some(error);
                continue;
            }
        };
        let path = format!("instances[{index}]");
        // Messages count as APISIX does, from 1; paths from 0.
        let position = index + 1;
        if let Some(first) = seen.insert(instance.name.clone(), position) {
            let text = format!(
                "duplicate instance name '{}' at instances[{first}] and instances[{position}]",
                instance.name
            );
            found.push(Issue::new("name", text).under(&path));
        }
        let mut inside = Vec::new();
        match instance.endpoint() {
            Some(endpoint) if !is_endpoint(endpoint) => {
                inside.push(Issue::new(ENDPOINT, "invalid endpoint"));
            }
            _ => check_address(&instance, &mut inside),
        }
        let mut of_provider = Vec::new();
        check_provider(&instance, &mut of_provider);
        inside.extend(of_provider.into_iter().map(|issue| Issue {
            message: format!("instance '{}': {}", instance.name, issue.message),
            ..issue
        }));
        found.extend(inside.into_iter().map(|issue| issue.under(&path)));
        instances.push((index, instance));
    }
    match part(conf, "balancer").map(Option::unwrap_or_default) {
        Ok(balancer) => check_balancer(&balancer, &mut found),
        Err(error) => unreadable = Some(error),
    }
    let is_semantic = conf.pointer("/balancer/algorithm") == Some(&json!("semantic"));
    match part(conf, "semantic_opts") {
        Ok(options) if is_semantic => check_semantic(options.as_ref(), &instances, &mut found),
        Ok(_) => {}
        Err(error) => unreadable = Some(error),
    }
    match unreadable {
        Some(Unreadable(text)) if found.is_empty() => Err(Faults::Unreadable(text)),
        _ => Faults::none_of(found),
    }
}

fn check_balancer(balancer: &Balancer, found: &mut Vec<Issue>) {
    match balancer.algorithm {
        BalancerAlgorithm::Roundrobin
        | BalancerAlgorithm::LeastConn
        | BalancerAlgorithm::Ewma
        | BalancerAlgorithm::Semantic => {}
        BalancerAlgorithm::Chash => {
            let key = balancer.key.as_deref();
            if let Err(error) = check_hash_key(balancer.hash_on.as_str(), key) {
                let text = format!("balancer: hash_key: {error}");
                found.push(Issue::new("balancer.key", text));
            }
        }
    }
}

/// The member `key` of `conf`, if it is there.
fn part<T: DeserializeOwned>(conf: &Value, key: &str) -> Result<Option<T>, Unreadable> {
    let written = conf.get(key).filter(|value| !value.is_null());
    written.map(parse).transpose()
}

fn parse<T: DeserializeOwned>(conf: &Value) -> Result<T, Unreadable> {
    T::deserialize(conf).map_err(|error| Unreadable(error.to_string()))
}

fn is_endpoint(endpoint: &str) -> bool {
    let rest = endpoint
        .strip_prefix("https://")
        .or_else(|| endpoint.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', '?', '#']))
}

/// Whether an endpoint names more than a host: `/` and a query alone are no path.
fn has_path(endpoint: &str) -> bool {
    let rest = endpoint
        .split_once("://")
        .map_or(endpoint, |(_, rest)| rest);
    let path = rest.find('/').map_or("", |start| &rest[start..]);
    let before_path = &rest[..rest.len() - path.len()];
    let path = path.split(['?', '#']).next().unwrap_or_default();
    !before_path.contains(['?', '#']) && !matches!(path, "" | "/")
}

/// What is wrong with where `instance` is, and with the headers that it is sent.
fn check_address(instance: &Instance, found: &mut Vec<Issue>) {
    let endpoint = instance.endpoint().map(Endpoint::parse);
    if let Some(Err(error)) = endpoint {
        let text = format!("instance '{}': {ENDPOINT}: {error}", instance.name);
        found.push(Issue::new(ENDPOINT, text));
    }
    for (name, value) in instance.auth.header.iter().flatten() {
        if !reference::is_reference(value) && HeaderValue::from_str(value).is_err() {
            let text = format!("auth.header.{name}: the value cannot stand in a header");
            found.push(Issue::new(&join("auth.header", name), text));
        }
    }
}

/// What is wrong with the provider of `instance`, by path in it.
fn check_provider(instance: &Instance, found: &mut Vec<Issue>) {
    let mut wrong = |path: &str, text: &str| found.push(Issue::new(path, text));
    if let Some(gcp) = &instance.auth.gcp
        && let Some(text) = gcp.service_account_json.as_deref()
        && !reference::is_reference(text)
        && let Err(error) = serde_json::from_str::<Value>(text)
    {
        let text = format!("invalid gcp service_account_json: {error}");
        wrong("auth.gcp.service_account_json", &text);
    }
    let conf = instance.provider_conf.clone().unwrap_or_default();
    match instance.provider.as_str() {
        "vertex-ai"
            if instance.endpoint().is_none()
                && (conf.project_id.is_none() || conf.region.is_none()) =>
        {
            let text = "vertex-ai requires either provider_conf (project_id + region) or \
                        override.endpoint";
            wrong("provider_conf", text);
        }
        "bedrock" => {
            if conf.region.is_none() {
                let text = "bedrock requires provider_conf.region";
                wrong("provider_conf.region", text);
            }
            if instance.auth.aws.is_none() {
                wrong("auth.aws", "bedrock requires auth.aws");
            }
        }
        _ => {}
    }
}

/// What is wrong with a `semantic` configuration.
fn check_semantic(
    options: Option<&SemanticOpts>,
    instances: &[(usize, Instance)],
    found: &mut Vec<Issue>,
) {
    let mut wrong = |path: &str, text: &str| found.push(Issue::new(path, text));
    if let Some(options) = options {
        let endpoint = options.embeddings.endpoint.as_deref();
        if endpoint.is_some_and(|endpoint| !is_endpoint(endpoint)) {
            let text = "invalid `semantic_opts.embeddings.endpoint`";
            wrong(EMBEDDINGS_ENDPOINT, text);
        }
        if let Some(Err(error)) = endpoint
            .filter(|text| is_endpoint(text))
            .map(Endpoint::parse)
        {
            let text = format!("invalid `semantic_opts.embeddings.endpoint`: {error}");
            wrong(EMBEDDINGS_ENDPOINT, &text);
        }
        for (name, value) in options.embeddings.auth.header.iter().flatten() {
            if !reference::is_reference(value) && HeaderValue::from_str(value).is_err() {
                let path = join("semantic_opts.embeddings.auth.header", name);
                wrong(
                    &path,
                    &format!("auth.header.{name}: the value cannot stand in a header"),
                );
            }
        }
        if options.embeddings.provider == "openai-compatible" && endpoint.is_none() {
            let text = "semantic_opts.embeddings.endpoint is required for openai-compatible";
            wrong("semantic_opts.embeddings", text);
        }
        if options.embeddings.provider == "azure-openai" {
            match endpoint {
                None => {
                    let text = "semantic_opts.embeddings.endpoint is required for azure-openai";
                    wrong("semantic_opts.embeddings", text);
                }
                Some(endpoint) if is_endpoint(endpoint) && !has_path(endpoint) => {
                    let text = "semantic_opts.embeddings.endpoint must be the full deployment path";
                    wrong(EMBEDDINGS_ENDPOINT, text);
                }
                Some(_) => {}
            }
        }
        if let Some(name) = &options.fallback
            && !instances.iter().any(|(_, instance)| instance.name == *name)
        {
            let text = format!("semantic_opts.fallback: unknown instance '{name}'");
            wrong("semantic_opts.fallback", &text);
        }
    } else {
        let text = "property \"semantic_opts.embeddings\" is required for semantic";
        wrong("semantic_opts", text);
    }
    for (index, instance) in instances {
        let mut examples = instance.examples.iter().flatten();
        if !examples.any(|example| !example.is_empty()) {
            let text = format!(
                "instance '{}': must configure non-empty examples for semantic",
                instance.name
            );
            wrong(&format!("instances[{index}].examples"), &text);
        }
    }
}

const ENDPOINT: &str = "override.endpoint";
const EMBEDDINGS_ENDPOINT: &str = "semantic_opts.embeddings.endpoint";

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(name: &str, more: Value) -> Value {
        let mut value = json!({"name": name, "provider": "openai", "weight": 1, "auth": {}});
        for (key, member) in more.as_object().cloned().unwrap_or_default() {
            value[key] = member;
        }
        value
    }

    /// Everything that is wrong, as `path: message`.
    fn told(conf: &Value) -> Vec<String> {
        let faults = multi(conf).err().map(Faults::into_issues);
        let issues = faults.into_iter().flatten();
        issues
            .map(|issue| format!("{}: {}", issue.path, issue.message))
            .collect()
    }

    fn check(conf: Value, expected: &[&str]) {
        assert_eq!(told(&conf), expected, "{conf}");
    }

    /// B-001, B-003, B-004, B-005, B-024
    #[test]
    fn instances_are_checked_in_order_and_all_is_told() {
        check(json!({"instances": [instance("a", json!({}))]}), &[]);
        check(
            json!({"instances": [instance("a", json!({"override": {"endpoint": "http//127.0.0.1:1980"}}))]}),
            &["instances[0].override.endpoint: invalid endpoint"],
        );
        check(
            json!({"instances": [instance("same-name", json!({})), instance("other", json!({})), instance("same-name", json!({}))]}),
            &[
                "instances[2].name: duplicate instance name 'same-name' at instances[1] and instances[3]",
            ],
        );
        let at = |name: &str| {
            instance(
                name,
                json!({"override": {"endpoint": "http://127.0.0.1:1"}}),
            )
        };
        check(json!({"instances": [at("a"), at("b")]}), &[]);
        check(
            json!({"instances": [instance("b", json!({"provider": "bedrock"}))]}),
            &[
                "instances[0].provider_conf.region: instance 'b': bedrock requires provider_conf.region",
                "instances[0].auth.aws: instance 'b': bedrock requires auth.aws",
            ],
        );
        check(
            json!({"instances": [instance("b", json!({"provider": "bedrock", "provider_conf": {"region": "us-east-1"}}))]}),
            &["instances[0].auth.aws: instance 'b': bedrock requires auth.aws"],
        );
        check(
            json!({"instances": [instance("v", json!({"provider": "vertex-ai"}))]}),
            &[
                "instances[0].provider_conf: instance 'v': vertex-ai requires either provider_conf (project_id + region) or override.endpoint",
            ],
        );
    }

    /// B-013..B-023; V-9 to V-13.
    #[test]
    fn semantic_mistakes_are_told() {
        let conf = |options: Value, more: Value| json!({"instances": [instance("a", more)], "balancer": {"algorithm": "semantic"}, "semantic_opts": options});
        let fails = |conf: Value, part: &str| {
            let told = told(&conf);
            let found = told.iter().any(|text| text.contains(part));
            assert!(found, "{told:?} lack {part}");
        };
        let with = |more: Value| {
            let mut embeddings = json!({"provider": "openai", "model": "m", "auth": {}});
            for (key, member) in more.as_object().cloned().unwrap_or_default() {
                embeddings[key] = member;
            }
            json!({ "embeddings": embeddings })
        };
        let good = json!({"examples": ["x"]});
        fails(
            json!({"instances": [instance("a", json!({}))], "balancer": {"algorithm": "semantic"}}),
            "embeddings",
        );
        fails(conf(with(json!({})), json!({})), "examples");
        fails(
            conf(with(json!({"endpoint": "my.host/v1"})), good.clone()),
            "semantic_opts.embeddings.endpoint",
        );
        fails(
            conf(with(json!({"provider": "azure-openai"})), good.clone()),
            "endpoint",
        );
        fails(
            conf(
                with(json!({"provider": "azure-openai", "endpoint": "https://a.com/"})),
                good.clone(),
            ),
            "full deployment path",
        );
        // V-11: a query is no path.
        for bare in [
            "https://a.com",
            "https://a.com/?api-version=1",
            "https://a.com?a=/b",
        ] {
            fails(
                conf(
                    with(json!({"provider": "azure-openai", "endpoint": bare})),
                    good.clone(),
                ),
                "full deployment path",
            );
        }
        fails(
            conf(with(json!({"provider": "openai-compatible"})), good.clone()),
            "endpoint is required for openai-compatible",
        );
        fails(
            conf(with(json!({"endpoint": "http://a.com:x"})), good.clone()),
            "semantic_opts.embeddings.endpoint: invalid",
        );
        fails(
            conf(
                with(json!({"auth": {"header": {"a": "b\nc"}}})),
                good.clone(),
            ),
            "semantic_opts.embeddings.auth.header.a: auth.header.a: the value cannot stand",
        );
        let mut options = with(json!({}));
        options["fallback"] = json!("nope");
        fails(conf(options, good.clone()), "unknown instance");
    }

    /// B-013, B-023
    #[test]
    fn semantic_is_sound_with_or_without_an_endpoint() {
        for sound in [
            json!({}),
            json!({"endpoint": "http://a.com"}),
            json!({"provider": "openai-compatible", "endpoint": "https://a.com/e"}),
            json!({"provider": "azure-openai", "endpoint": "https://a.com/d/e?v=1"}),
        ] {
            let mut embeddings = json!({"provider": "openai", "model": "m", "auth": {}});
            for (key, member) in sound.as_object().cloned().unwrap_or_default() {
                embeddings[key] = member;
            }
            let one = instance("a", json!({"examples": ["x"], "threshold": -0.5}));
            let options = json!({"embeddings": embeddings, "fallback": "a", "threshold": 0.5});
            check(
                json!({"instances": [one], "balancer": {"algorithm": "semantic"}, "semantic_opts": options}),
                &[],
            );
        }
    }

    #[test]
    fn chash_needs_a_key() {
        let conf = |balancer: Value| json!({"instances": [instance("a", json!({}))], "balancer": balancer});
        check(
            conf(json!({"algorithm": "chash"})),
            &["balancer.key: balancer: hash_key: missing key"],
        );
        check(
            conf(json!({"algorithm": "chash", "hash_on": "consumer"})),
            &[],
        );
        check(
            conf(json!({"algorithm": "chash", "key": "query_string"})),
            &[],
        );
        check(conf(json!({})), &[]);
    }
}
