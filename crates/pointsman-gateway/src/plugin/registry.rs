//! Every plugin, by name. A new plugin is its own file and one line here.

use std::sync::Arc;

use serde_json::Value;

use crate::{
    config::plugin_schema::{Faults, PluginCatalog, PluginSchema},
    plugin::Plugin,
    plugins,
    ports::Sinks,
    upstream::{
        Guarding, Predecessors,
        health::{Assigned, Checker},
    },
};

/// All plugins, in no particular order.
const PLUGINS: &[fn() -> PluginKind] = &[
    plugins::ai_proxy::kind,
    plugins::ai_proxy_multi::kind,
    plugins::api_breaker::kind,
    plugins::attach_consumer_label::kind,
    plugins::basic_auth::kind,
    plugins::clickhouse_logger::kind,
    plugins::client_control::kind,
    plugins::consumer_restriction::kind,
    plugins::cors::kind,
    plugins::csrf::kind,
    plugins::fault_injection::kind,
    plugins::file_logger::kind,
    plugins::hmac_auth::kind,
    plugins::http_logger::kind,
    plugins::ip_restriction::kind,
    plugins::jwt_auth::kind,
    plugins::key_auth::kind,
    plugins::limit_conn::kind,
    plugins::limit_count::kind,
    plugins::limit_req::kind,
    plugins::mocking::kind,
    plugins::multi_auth::kind,
    plugins::openid_connect::kind,
    plugins::opentelemetry::kind,
    plugins::prometheus::kind,
    plugins::proxy_mirror::kind,
    plugins::proxy_rewrite::kind,
    plugins::real_ip::kind,
    plugins::redirect::kind,
    plugins::referer_restriction::kind,
    plugins::request_id::kind,
    plugins::request_validation::kind,
    plugins::response_rewrite::kind,
    plugins::syslog::kind,
    plugins::tcp_logger::kind,
    plugins::traffic_split::kind,
    plugins::ua_restriction::kind,
    plugins::udp_logger::kind,
    plugins::uri_blocker::kind,
];

/// Makes a plugin from a valid configuration.
///
/// # Errors
/// Everything that stands in the way; references to the environment are resolved only now, so this
/// can be more than the check of the document found.
pub type Build = fn(&Value, &mut Building<'_>) -> Result<Arc<dyn Plugin>, Faults>;

/// What the gateway must know of a plugin.
pub struct PluginKind {
    /// Its name, priority, schemas and cross-field rules.
    pub schema: PluginSchema,
    /// Makes one from a valid configuration.
    pub build: Build,
    /// What a valid configuration at `owner` wants checked, for plugins that have targets.
    pub checkers: Option<fn(&Value, owner: &str) -> Vec<Checker>>,
    /// For an authentication plugin: how a consumer is found.
    pub identity_field: Option<Identified>,
}

/// How an authentication plugin finds consumers.
#[derive(Clone, Copy)]
pub struct Identified {
    /// The field of a consumer's configuration by which it is found.
    pub field: &'static str,
    /// Makes what the plugin needs of that configuration for each request, such as a parsed key.
    pub prepare: fn(&Value) -> Result<Option<Prepared>, Faults>,
}

/// What an authentication plugin has made of a consumer's configuration; it knows the type.
pub type Prepared = Arc<dyn std::any::Any + Send + Sync>;

impl Identified {
    /// By this field, with nothing to prepare.
    pub const fn by(field: &'static str) -> Self {
        Self {
            field,
            prepare: |_| Ok(None),
        }
    }
}

/// What a plugin may use while it is compiled.
pub struct Building<'a> {
    /// The resource that carries the plugin, such as `/routes/1`.
    pub owner: &'a str,
    /// The plugin's metadata object, if there is one.
    pub metadata: Option<&'a Value>,
    /// Where loggers get their sinks.
    pub sinks: &'a dyn Sinks,
    /// The environment.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The targets by which AI instances are judged.
    pub assigned: &'a Assigned,
    /// Where instances get their guards.
    pub guards: &'a dyn Guarding,
    /// Whether there is an upstream with that key, such as `/upstreams/1`.
    pub has_upstream: &'a dyn Fn(&str) -> bool,
    /// The pools of the snapshot in force, whose balancing positions carry over.
    pub previous: &'a dyn Predecessors,
    /// Things worth telling the operator that are no errors.
    pub warnings: &'a mut Vec<String>,
}

/// The plugins of this build.
pub struct Registry {
    kinds: Vec<PluginKind>,
}

impl Registry {
    /// All plugins of this build.
    pub fn new() -> Self {
        Self {
            kinds: PLUGINS.iter().map(|kind| kind()).collect(),
        }
    }

    /// Only the plugins named, as `plugins:` in `config.yaml` has it. Unknown names are returned.
    pub fn only(names: &[String]) -> (Self, Vec<String>) {
        let mut all = Self::new();
        let known: Vec<&str> = all.kinds.iter().map(|k| k.schema.name).collect();
        let unknown = names
            .iter()
            .filter(|n| !known.contains(&n.as_str()))
            .cloned()
            .collect();
        all.kinds
            .retain(|kind| names.iter().any(|n| n == kind.schema.name));
        (all, unknown)
    }

    /// The plugin called `name`.
    pub fn kind(&self, name: &str) -> Option<&PluginKind> {
        self.kinds.iter().find(|kind| kind.schema.name == name)
    }

    /// Every plugin, highest priority first.
    pub fn by_priority(&self) -> Vec<&PluginKind> {
        let mut kinds: Vec<&PluginKind> = self.kinds.iter().collect();
        kinds.sort_by_key(|kind| std::cmp::Reverse(kind.schema.priority));
        kinds
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl PluginCatalog for Registry {
    fn plugin(&self, name: &str) -> Option<&PluginSchema> {
        self.kind(name).map(|kind| &kind.schema)
    }

    fn names(&self) -> Vec<&'static str> {
        self.kinds.iter().map(|kind| kind.schema.name).collect()
    }
}
