//! `auth`: the credentials of an instance.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::AUTH_NAME;

/// `auth`. `Debug` shows no value.
#[derive(Clone, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// Headers, over the client's.
    #[schemars(extend("propertyNames" = {"pattern": AUTH_NAME}))]
    pub header: Option<BTreeMap<String, String>>,
    /// Query arguments.
    #[schemars(extend("propertyNames" = {"pattern": AUTH_NAME}))]
    pub query: Option<BTreeMap<String, String>>,
    /// Service account, for Google.
    pub gcp: Option<Gcp>,
    /// Keys, for AWS.
    pub aws: Option<Aws>,
}

/// `auth.aws`. `Debug` shows no value.
#[derive(Clone, Deserialize, Serialize, PartialEq, JsonSchema)]
#[expect(missing_docs, reason = "the names are AWS's")]
pub struct Aws {
    #[schemars(length(min = 1))]
    pub access_key_id: String,
    #[schemars(length(min = 1))]
    pub secret_access_key: String,
    #[schemars(length(min = 1))]
    pub session_token: Option<String>,
}

/// `auth.gcp`. `Debug` shows no value.
#[derive(Clone, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(default)]
pub struct Gcp {
    /// The account, as Google hands it out; that of `GCP_SERVICE_ACCOUNT` if it is not here.
    pub service_account_json: Option<String>,
    /// A token is used for so many seconds at most.
    #[schemars(range(min = 1))]
    pub max_ttl: Option<u64>,
    /// A token is used for so many seconds less than it lasts, unless it lasts no longer than that.
    pub expire_early_secs: u64,
}

impl Default for Gcp {
    fn default() -> Self {
        Self {
            service_account_json: None,
            max_ttl: None,
            expire_early_secs: 60,
        }
    }
}

impl std::fmt::Debug for Gcp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gcp(..)")
    }
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Auth(..)")
    }
}

impl std::fmt::Debug for Aws {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Aws(..)")
    }
}
