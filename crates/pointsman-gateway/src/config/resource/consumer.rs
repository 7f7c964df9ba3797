//! `consumer`, credential, and the resources that are little more than a set of plugins.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Id, plugins::Plugins, shared::Labels};

/// A consumer as written.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    missing_docs,
    reason = "the names are APISIX's and are documented there"
)]
pub struct Consumer {
    pub id: Option<Id>,
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[a-zA-Z0-9_\-]+$"))]
    pub username: String,
    pub group_id: Option<Id>,
    #[serde(default)]
    pub plugins: Plugins,
    pub desc: Option<String>,
    pub labels: Option<Labels>,
    pub create_time: Option<u64>,
    pub update_time: Option<u64>,
}

impl Consumer {
    /// Its labels.
    pub fn labels(&self) -> HashMap<String, String> {
        self.labels
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect()
    }
}

/// A credential: another way to authenticate as a consumer.
#[derive(Clone, Debug, PartialEq)]
pub struct Credential {
    /// The consumer.
    pub username: String,
    /// Its own id.
    pub credential_id: String,
    /// At most one, of the authentication kind.
    pub plugins: Plugins,
}

/// A credential's body as written.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    missing_docs,
    reason = "the names are APISIX's and are documented there"
)]
pub struct CredentialBody {
    pub id: String,
    pub name: Option<String>,
    #[serde(default)]
    pub plugins: Plugins,
    pub desc: Option<String>,
    pub labels: Option<Labels>,
    pub create_time: Option<u64>,
    pub update_time: Option<u64>,
}

/// `plugin_config`, `consumer_group`, `global_rule`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    missing_docs,
    reason = "the names are APISIX's and are documented there"
)]
pub struct PluginSet {
    pub id: Option<Id>,
    pub plugins: Plugins,
    pub name: Option<String>,
    pub desc: Option<String>,
    pub labels: Option<Labels>,
    pub create_time: Option<u64>,
    pub update_time: Option<u64>,
}
