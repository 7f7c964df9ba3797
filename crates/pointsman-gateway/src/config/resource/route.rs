//! `route`.

use std::{borrow::Cow, net::IpAddr};

use http::Method;
use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    config::schema::Issue,
    router::expr::{Expr, ExprError},
};

use super::{
    Id, Timeout,
    plugins::Plugins,
    shared::{Host, Labels, Status, UriPattern},
    upstream::Upstream,
};

/// A route as written.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["uri"]}, {"required": ["uris"]}]))]
#[expect(
    missing_docs,
    reason = "the names are APISIX's and are documented there"
)]
pub struct Route {
    pub id: Option<Id>,
    pub uri: Option<UriPattern>,
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    pub uris: Option<Vec<UriPattern>>,
    #[schemars(length(min = 1, max = 256))]
    pub name: Option<String>,
    #[schemars(length(max = 256))]
    pub desc: Option<String>,
    pub labels: Option<Labels>,
    pub create_time: Option<u64>,
    pub update_time: Option<u64>,
    #[serde(default)]
    pub priority: i64,
    #[schemars(extend("uniqueItems" = true, "items" = {"enum": ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE", "PURGE"]}))]
    pub methods: Option<Vec<String>>,
    pub host: Option<Host>,
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    pub hosts: Option<Vec<Host>>,
    pub remote_addr: Option<String>,
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    pub remote_addrs: Option<Vec<String>>,
    pub vars: Option<Vars>,
    pub filter_func: Option<String>,
    pub timeout: Option<Timeout>,
    pub enable_websocket: Option<bool>,
    #[serde(default)]
    pub plugins: Plugins,
    pub plugin_config_id: Option<Id>,
    pub service_id: Option<Id>,
    pub upstream_id: Option<Id>,
    pub upstream: Option<Upstream>,
    pub script: Option<String>,
    pub script_id: Option<Id>,
    #[serde(default)]
    pub status: Status,
}

/// `vars`: as written, and as an expression if it is one.
///
/// It is parsed with the route, so that what is wrong with it is told with everything else that
/// is, and patterns are compiled once.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(from = "Value", into = "Value")]
pub struct Vars {
    written: Value,
    expr: Result<Expr, ExprError>,
}

impl Vars {
    /// The expression.
    ///
    /// # Errors
    /// Why it is none.
    pub fn expr(&self) -> Result<&Expr, &ExprError> {
        self.expr.as_ref()
    }
}

impl From<Value> for Vars {
    fn from(written: Value) -> Self {
        Self {
            expr: Expr::parse(&written),
            written,
        }
    }
}

impl From<Vars> for Value {
    fn from(vars: Vars) -> Self {
        vars.written
    }
}

impl PartialEq for Vars {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl JsonSchema for Vars {
    fn schema_name() -> Cow<'static, str> {
        Value::schema_name()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Value::json_schema(generator)
    }
}

impl Route {
    /// In the routing table.
    pub fn is_enabled(&self) -> bool {
        self.status.0 == 1
    }

    /// All path patterns.
    pub fn uris(&self) -> Vec<String> {
        let many = self.uris.iter().flatten();
        self.uri
            .iter()
            .chain(many)
            .map(|uri| uri.0.clone())
            .collect()
    }

    /// All hosts.
    pub fn hosts(&self) -> Vec<String> {
        let many = self.hosts.iter().flatten();
        self.host
            .iter()
            .chain(many)
            .map(|host| host.0.clone())
            .collect()
    }

    /// The methods, or `None` for any.
    pub fn methods(&self) -> Option<Vec<Method>> {
        let methods = self
            .methods
            .as_ref()
            .filter(|methods| !methods.is_empty())?;
        Some(
            methods
                .iter()
                .filter_map(|name| Method::from_bytes(name.as_bytes()).ok())
                .collect(),
        )
    }

    /// The client addresses, or none for any.
    pub fn remote_addrs(&self) -> Vec<IpNet> {
        let many = self.remote_addrs.iter().flatten();
        self.remote_addr
            .iter()
            .chain(many)
            .filter_map(|text| network(text))
            .collect()
    }

    /// Rules across fields.
    pub fn check(&self) -> Vec<Issue> {
        let mut wrong = Vec::new();
        if self.host.is_some() && self.hosts.is_some() {
            wrong.push(Issue::new(
                "hosts",
                "only one of host or hosts is allowed".to_owned(),
            ));
        }
        if self.remote_addr.is_some() && self.remote_addrs.is_some() {
            let text = "only one of remote_addr or remote_addrs is allowed";
            wrong.push(Issue::new("remote_addrs", text.to_owned()));
        }
        let one = self.remote_addr.iter();
        let one = one.map(|text| ("remote_addr".to_owned(), text));
        let many = self.remote_addrs.iter().flatten().enumerate();
        let many = many.map(|(index, text)| (format!("remote_addrs[{index}]"), text));
        for (path, text) in one.chain(many) {
            if network(text).is_none() {
                wrong.push(Issue::new(&path, format!("invalid ip address: {text}")));
            }
        }
        if let Some(Err(error)) = self.vars.as_ref().map(Vars::expr) {
            let text = format!("failed to validate the 'vars' expression: {error}");
            wrong.push(Issue::new("vars", text));
        }
        for (name, used) in [
            ("filter_func", self.filter_func.is_some()),
            ("script", self.script.is_some() || self.script_id.is_some()),
        ] {
            if used {
                wrong.push(Issue::new(name, format!("{name}: Lua is not supported")));
            }
        }
        let goes_somewhere = !self.plugins.is_empty()
            || self.upstream.is_some()
            || self.upstream_id.is_some()
            || self.service_id.is_some()
            || self.plugin_config_id.is_some();
        if !goes_somewhere {
            let text = "object matches none of the required: [\"plugins\"] or [\"upstream\"] or \
                        [\"upstream_id\"] or [\"service_id\"]";
            wrong.push(Issue::new("", text.to_owned()));
        }
        if let Some(upstream) = &self.upstream {
            let inside = upstream.check().into_iter();
            wrong.extend(inside.map(|issue| issue.under("upstream")));
        }
        wrong
    }
}

/// An address or network.
pub fn network(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}
