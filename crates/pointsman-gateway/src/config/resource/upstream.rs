//! `upstream`.

use std::collections::BTreeMap;

use pointsman_balance::Algorithm;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::schema::Issue;

use super::{
    Id, Timeout,
    checks::{Active, Checks},
    shared::{HOST_PATTERN, Labels},
};

/// An upstream as written.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["nodes"]}, {"required": ["service_name", "discovery_type"]}]))]
#[expect(
    missing_docs,
    reason = "the names are APISIX's and are documented there"
)]
pub struct Upstream {
    pub id: Option<Id>,
    pub name: Option<String>,
    pub desc: Option<String>,
    pub labels: Option<Labels>,
    pub create_time: Option<u64>,
    pub update_time: Option<u64>,
    pub nodes: Option<Nodes>,
    #[serde(rename = "type", default = "roundrobin")]
    pub kind: String,
    #[serde(default = "vars")]
    #[schemars(extend("enum" = ["vars", "header", "cookie", "consumer", "vars_combinations"]))]
    pub hash_on: String,
    pub key: Option<String>,
    #[serde(default = "http")]
    #[schemars(extend("enum" = ["http", "https", "grpc", "grpcs", "tcp", "tls", "udp", "kafka"]))]
    pub scheme: String,
    pub retries: Option<usize>,
    #[schemars(range(min = 0))]
    pub retry_timeout: Option<f64>,
    pub timeout: Option<Timeout>,
    #[serde(default = "pass")]
    #[schemars(extend("enum" = ["pass", "node", "rewrite"]))]
    pub pass_host: String,
    #[schemars(regex(pattern = HOST_PATTERN))]
    pub upstream_host: Option<String>,
    pub keepalive_pool: Option<KeepalivePool>,
    pub tls: Option<UpstreamTls>,
    pub checks: Option<Checks>,
    pub service_name: Option<String>,
    pub discovery_type: Option<String>,
    pub discovery_args: Option<serde_json::Map<String, Value>>,
}

/// Nodes in either form.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(untagged)]
pub enum Nodes {
    /// `"host:port": weight`.
    Map(BTreeMap<String, u32>),
    /// With priorities.
    List(Vec<Node>),
}

/// One node.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
pub struct Node {
    /// Name or address, without brackets.
    #[schemars(regex(pattern = HOST_PATTERN))]
    pub host: String,
    /// Port; the scheme's own when missing.
    #[serde(default)]
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Share inside its tier.
    pub weight: u32,
    /// Higher is tried first.
    #[serde(default)]
    pub priority: i32,
    /// Ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
}

/// `keepalive_pool`.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(default)]
pub struct KeepalivePool {
    /// Idle connections kept.
    #[schemars(range(min = 1))]
    pub size: usize,
    /// Seconds until an idle one is closed.
    #[schemars(range(min = 0))]
    pub idle_timeout: f64,
    /// Requests until it is closed.
    #[schemars(range(min = 1))]
    pub requests: u64,
}

/// `tls`: a client certificate.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[expect(
    missing_docs,
    reason = "the names are APISIX's and are documented there"
)]
pub struct UpstreamTls {
    pub client_cert: Option<String>,
    pub client_key: Option<String>,
    pub client_cert_id: Option<Id>,
    pub verify: Option<bool>,
}

impl UpstreamTls {
    /// The `ssl` resource whose certificate is shown, if its own is not there.
    pub fn certificate(&self) -> Option<&Id> {
        let is_given = self.client_cert.is_some() && self.client_key.is_some();
        self.client_cert_id.as_ref().filter(|_| !is_given)
    }
}

impl Default for KeepalivePool {
    fn default() -> Self {
        Self {
            size: 320,
            idle_timeout: 60.0,
            requests: 1000,
        }
    }
}

impl Upstream {
    /// The nodes in list form, default ports filled in. Empty when there are none.
    pub fn nodes(&self) -> Vec<Node> {
        let default_port = if self.is_tls() { 443 } else { 80 };
        let mut nodes = match &self.nodes {
            None => Vec::new(),
            Some(Nodes::List(nodes)) => nodes.clone(),
            Some(Nodes::Map(map)) => map
                .iter()
                .map(|(address, weight)| {
                    let (host, port) = split_address(address);
                    Node {
                        host,
                        port,
                        weight: *weight,
                        priority: 0,
                        metadata: None,
                    }
                })
                .collect(),
        };
        for node in &mut nodes {
            node.host = node.host.trim_matches(['[', ']']).to_owned();
            if node.port == 0 {
                node.port = default_port;
            }
        }
        nodes
    }

    /// How a node is picked: `type`.
    ///
    /// # Errors
    /// If there is no such type.
    pub fn algorithm(&self) -> Result<Algorithm, String> {
        match self.kind.as_str() {
            "roundrobin" => Ok(Algorithm::RoundRobin),
            "chash" => Ok(Algorithm::Chash),
            "least_conn" => Ok(Algorithm::LeastConn),
            "ewma" => Ok(Algorithm::Ewma),
            other => Err(format!(
                "type {other} is not known (roundrobin, chash, least_conn, ewma)"
            )),
        }
    }

    /// Connections to the nodes use TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self.scheme.as_str(), "https" | "grpcs")
    }

    /// `tls.verify`; APISIX does not verify the certificates of nodes, so that is the default.
    pub fn verifies(&self) -> bool {
        self.tls
            .as_ref()
            .and_then(|tls| tls.verify)
            .unwrap_or(false)
    }

    /// `checks.active`.
    pub fn active_checks(&self) -> Option<&Active> {
        self.checks.as_ref()?.active.as_ref()
    }

    /// `pass_host: rewrite`.
    pub fn rewrites_host(&self) -> bool {
        self.pass_host == "rewrite"
    }

    /// Rules across fields.
    pub fn check(&self) -> Vec<Issue> {
        let mut wrong = Vec::new();
        if self.service_name.is_some() {
            wrong.push(Issue::new(
                "discovery_type",
                "service discovery is not supported yet; use nodes".to_owned(),
            ));
        }
        if !matches!(self.scheme.as_str(), "http" | "https") {
            wrong.push(Issue::new(
                "scheme",
                format!("scheme {} is not supported (http, https)", self.scheme),
            ));
        }
        if let Err(error) = self.algorithm() {
            wrong.push(Issue::new("type", error));
        }
        if self.rewrites_host() && self.upstream_host.as_deref().unwrap_or_default().is_empty() {
            let text = "`upstream_host` can't be empty when `pass_host` is `rewrite`";
            wrong.push(Issue::new("upstream_host", text.to_owned()));
        }
        if self.kind == "chash"
            && let Err(error) = check_hash_key(&self.hash_on, self.key.as_deref())
        {
            wrong.push(Issue::new("key", error));
        }
        if let Some(Nodes::Map(map)) = &self.nodes {
            for address in map.keys() {
                if address.matches(':').count() > 1 && !address.starts_with('[') {
                    wrong.push(Issue::new(
                        &format!("nodes.{address}"),
                        "IPv6 address must be enclosed with '[' and ']'".to_owned(),
                    ));
                }
            }
        }
        wrong
    }
}

/// Whether `key` can be hashed on (APISIX 3.18: V-7, V-8).
pub fn check_hash_key(hash_on: &str, key: Option<&str>) -> Result<(), String> {
    const VARS: &[&str] = &[
        "uri",
        "server_name",
        "server_addr",
        "request_uri",
        "remote_port",
        "remote_addr",
        "query_string",
        "host",
        "hostname",
        "mqtt_client_id",
    ];
    let name = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    match (hash_on, key) {
        ("consumer", _) => Ok(()),
        (_, None) => Err("missing key".to_owned()),
        ("vars", Some(key))
            if VARS.contains(&key) || key.strip_prefix("arg_").is_some_and(name) =>
        {
            Ok(())
        }
        ("header" | "cookie", Some(key)) if name(key) => Ok(()),
        ("vars_combinations", Some(_)) => Ok(()),
        (_, Some(key)) => Err(format!(
            "invalid configuration: `{key}` cannot be a key for hash_on {hash_on}"
        )),
    }
}

fn split_address(address: &str) -> (String, u16) {
    let after_bracket = address.rfind(']').map_or(0, |at| at + 1);
    match address[after_bracket..].rfind(':') {
        Some(colon) => {
            let colon = colon + after_bracket;
            (
                address[..colon].to_owned(),
                address[colon + 1..].parse().unwrap_or(0),
            )
        }
        None => (address.to_owned(), 0),
    }
}

fn roundrobin() -> String {
    "roundrobin".to_owned()
}

fn vars() -> String {
    "vars".to_owned()
}

fn http() -> String {
    "http".to_owned()
}

fn pass() -> String {
    "pass".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_come_in_two_forms() {
        let check = |json: serde_json::Value, expected: &[(&str, u16, u32)]| {
            let upstream: Upstream = serde_json::from_value(json).expect("valid");
            let nodes = upstream.nodes();
            let found: Vec<_> = nodes
                .iter()
                .map(|n| (n.host.as_str(), n.port, n.weight))
                .collect();
            assert_eq!(found, expected);
        };
        check(
            serde_json::json!({"nodes": {"a.com:81": 1, "b.com": 2}}),
            &[("a.com", 81, 1), ("b.com", 80, 2)],
        );
        check(
            serde_json::json!({"nodes": {"[::1]:81": 1, "[::2]": 1}, "scheme": "https"}),
            &[("::1", 81, 1), ("::2", 443, 1)],
        );
        check(
            serde_json::json!({"nodes": [{"host": "a", "port": 5, "weight": 0}]}),
            &[("a", 5, 0)],
        );
        check(serde_json::json!({"nodes": {}}), &[]);
    }

    #[test]
    fn hash_keys_are_checked() {
        for (on, key, ok) in [
            ("vars", Some("remote_addr"), true),
            ("vars", Some("arg_x-y"), true),
            ("vars", Some("http_x"), false),
            ("header", Some("X-S"), true),
            ("header", Some("X S"), false),
            ("consumer", None, true),
            ("vars", None, false),
            ("vars_combinations", Some("$a$b"), true),
        ] {
            assert_eq!(check_hash_key(on, key).is_ok(), ok, "{on} {key:?}");
        }
    }
}
