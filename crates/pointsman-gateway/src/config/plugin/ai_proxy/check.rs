//! Rules across fields of `ai-proxy` and `ai-proxy-multi`, in APISIX's order and words.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use super::{AiProxy, AiProxyMulti, BalancerAlgorithm, Instance};
use crate::config::{reference, resource::upstream::check_hash_key};

/// `ai-proxy`.
pub(super) fn single(conf: &Value) -> Result<(), String> {
    let conf = AiProxy::deserialize(conf).map_err(|error| error.to_string())?;
    check_provider(&Instance::from_single(&conf))
}

/// `ai-proxy-multi`.
pub(super) fn multi(conf: &Value) -> Result<(), String> {
    let conf = AiProxyMulti::deserialize(conf).map_err(|error| error.to_string())?;
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for (index, instance) in conf.instances.iter().enumerate() {
        let position = index + 1;
        if let Some(first) = seen.insert(&instance.name, position) {
            return Err(format!(
                "duplicate instance name '{}' at instances[{first}] and instances[{position}]",
                instance.name
            ));
        }
        if let Some(endpoint) = instance.endpoint()
            && !is_endpoint(endpoint)
        {
            return Err("invalid endpoint".to_owned());
        }
        check_provider(instance)
            .map_err(|error| format!("instance '{}': {error}", instance.name))?;
    }
    match conf.balancer.algorithm {
        BalancerAlgorithm::Roundrobin => Ok(()),
        BalancerAlgorithm::Chash => {
            check_hash_key(conf.balancer.hash_on.as_str(), conf.balancer.key.as_deref())
                .map_err(|error| format!("balancer: hash_key: {error}"))
        }
        BalancerAlgorithm::Semantic => check_semantic(&conf),
    }
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

fn check_provider(instance: &Instance) -> Result<(), String> {
    if let Some(json) = instance
        .auth
        .gcp
        .as_ref()
        .and_then(|gcp| gcp.get("service_account_json"))
        && let Some(text) = json.as_str()
        && !reference::is_reference(text)
        && let Err(error) = serde_json::from_str::<Value>(text)
    {
        return Err(format!("invalid gcp service_account_json: {error}"));
    }
    let conf = instance.provider_conf.clone().unwrap_or_default();
    match instance.provider.as_str() {
        "vertex-ai" => {
            if instance.endpoint().is_none() && (conf.project_id.is_none() || conf.region.is_none())
            {
                return Err(
                    "vertex-ai requires either provider_conf (project_id + region) or \
                            override.endpoint"
                        .to_owned(),
                );
            }
            Err("provider vertex-ai is not supported yet".to_owned())
        }
        "bedrock" => {
            if conf.region.is_none() {
                return Err("bedrock requires provider_conf.region".to_owned());
            }
            if instance.auth.aws.is_none() {
                return Err("bedrock requires auth.aws".to_owned());
            }
            Err("provider bedrock is not supported yet".to_owned())
        }
        _ if instance.auth.gcp.is_some() => Err("auth.gcp is not supported yet".to_owned()),
        _ => Ok(()),
    }
}

/// What is wrong with a `semantic` configuration; one without a mistake is not supported yet.
fn check_semantic(conf: &AiProxyMulti) -> Result<(), String> {
    let Some(options) = &conf.semantic_opts else {
        return Err("property \"semantic_opts.embeddings\" is required for semantic".to_owned());
    };
    let endpoint = options.embeddings.endpoint.as_deref();
    if endpoint.is_some_and(|endpoint| !is_endpoint(endpoint)) {
        return Err("invalid `semantic_opts.embeddings.endpoint`".to_owned());
    }
    if options.embeddings.provider == "azure-openai" {
        let Some(endpoint) = endpoint else {
            return Err(
                "semantic_opts.embeddings.endpoint is required for azure-openai".to_owned(),
            );
        };
        if !has_path(endpoint) {
            return Err(
                "semantic_opts.embeddings.endpoint must be the full deployment path".to_owned(),
            );
        }
    }
    for instance in &conf.instances {
        let has = instance
            .examples
            .iter()
            .flatten()
            .any(|example| !example.is_empty());
        if !has {
            return Err(format!(
                "instance '{}': must configure non-empty examples for semantic",
                instance.name
            ));
        }
    }
    if let Some(name) = &options.fallback
        && !conf.instances.iter().any(|instance| instance.name == *name)
    {
        return Err(format!("semantic_opts.fallback: unknown instance '{name}'"));
    }
    Err("balancer.algorithm semantic is not supported yet (roundrobin, chash)".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn instance(name: &str, more: Value) -> Value {
        let mut value = json!({"name": name, "provider": "openai", "weight": 1, "auth": {}});
        for (key, member) in more.as_object().cloned().unwrap_or_default() {
            value[key] = member;
        }
        value
    }

    fn check(conf: Value, expected: Result<(), &str>) {
        assert_eq!(multi(&conf), expected.map_err(str::to_owned), "{conf}");
    }

    /// B-001, B-003, B-004, B-005, B-024
    #[test]
    fn instances_are_checked_in_order() {
        check(json!({"instances": [instance("a", json!({}))]}), Ok(()));
        check(
            json!({"instances": [instance("a", json!({"override": {"endpoint": "http//127.0.0.1:1980"}}))]}),
            Err("invalid endpoint"),
        );
        check(
            json!({"instances": [instance("same-name", json!({})), instance("other", json!({})), instance("same-name", json!({}))]}),
            Err("duplicate instance name 'same-name' at instances[1] and instances[3]"),
        );
        let at = |name: &str| {
            instance(
                name,
                json!({"override": {"endpoint": "http://127.0.0.1:1"}}),
            )
        };
        check(json!({"instances": [at("a"), at("b")]}), Ok(()));
        check(
            json!({"instances": [instance("b", json!({"provider": "bedrock"}))]}),
            Err("instance 'b': bedrock requires provider_conf.region"),
        );
        check(
            json!({"instances": [instance("b", json!({"provider": "bedrock", "provider_conf": {"region": "us-east-1"}}))]}),
            Err("instance 'b': bedrock requires auth.aws"),
        );
        check(
            json!({"instances": [instance("v", json!({"provider": "vertex-ai"}))]}),
            Err(
                "instance 'v': vertex-ai requires either provider_conf (project_id + region) or override.endpoint",
            ),
        );
    }

    /// B-014..B-022 as far as a semantic configuration can be wrong.
    #[test]
    fn semantic_mistakes_come_before_not_supported() {
        let conf = |options: Value, more: Value| json!({"instances": [instance("a", more)], "balancer": {"algorithm": "semantic"}, "semantic_opts": options});
        let fails = |conf: Value, part: &str| {
            let error = multi(&conf).expect_err("wrong");
            assert!(error.contains(part), "{error} lacks {part}");
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
            conf(with(json!({"auth": {"gcp": {}}})), good.clone()),
            "gcp",
        );
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
            conf(
                with(json!({"provider": "azure-openai", "endpoint": "https://a.com/d/e?v=1"})),
                good.clone(),
            ),
            "not supported yet",
        );
        let mut options = with(json!({}));
        options["fallback"] = json!("nope");
        fails(conf(options, good.clone()), "unknown instance");
        fails(conf(with(json!({})), good), "not supported yet");
    }

    #[test]
    fn chash_needs_a_key() {
        let conf = |balancer: Value| json!({"instances": [instance("a", json!({}))], "balancer": balancer});
        assert!(
            multi(&conf(json!({"algorithm": "chash"})))
                .expect_err("no key")
                .contains("hash_key")
        );
        check(
            conf(json!({"algorithm": "chash", "hash_on": "consumer"})),
            Ok(()),
        );
        check(
            conf(json!({"algorithm": "chash", "key": "query_string"})),
            Ok(()),
        );
        check(conf(json!({})), Ok(()));
    }
}
