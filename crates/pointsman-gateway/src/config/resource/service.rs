//! `service`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::schema::Issue;

use super::{Id, plugins::Plugins, shared::Labels, upstream::Upstream};

/// A service as written.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    missing_docs,
    reason = "the names are APISIX's and are documented there"
)]
pub struct Service {
    pub id: Option<Id>,
    #[schemars(length(min = 1, max = 256))]
    pub name: Option<String>,
    #[schemars(length(max = 256))]
    pub desc: Option<String>,
    pub labels: Option<Labels>,
    pub create_time: Option<u64>,
    pub update_time: Option<u64>,
    #[serde(default)]
    pub plugins: Plugins,
    pub upstream: Option<Upstream>,
    pub upstream_id: Option<Id>,
    pub script: Option<String>,
    pub enable_websocket: Option<bool>,
    #[schemars(length(min = 1), extend("uniqueItems" = true, "items" = {"type": "string", "pattern": super::shared::HOST_PATTERN}))]
    pub hosts: Option<Vec<String>>,
}

impl Service {
    /// Rules across fields.
    pub fn check(&self) -> Vec<Issue> {
        let mut wrong = Vec::new();
        if let Some(upstream) = &self.upstream {
            let inside = upstream.check().into_iter();
            wrong.extend(inside.map(|issue| issue.under("upstream")));
        }
        if self.script.is_some() {
            wrong.push(Issue::new(
                "script",
                "script: Lua is not supported".to_owned(),
            ));
        }
        wrong
    }
}
