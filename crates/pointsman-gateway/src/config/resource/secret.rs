//! `secret`: where values are kept that resources only refer to.

use std::sync::OnceLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::schema_of;
use crate::config::schema::Schema;

/// A secret manager. `Debug` shows no credential.
#[derive(Clone, PartialEq)]
#[expect(
    missing_docs,
    reason = "the names are APISIX's and are documented there"
)]
pub enum Secret {
    Vault(Vault),
    Aws(Aws),
    Gcp(Gcp),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Vault(_) => "Vault(..)",
            Self::Aws(_) => "Aws(..)",
            Self::Gcp(_) => "Gcp(..)",
        })
    }
}

impl Secret {
    /// Reads one of the kind `manager`, which has passed its schema; `None` if there is no such kind.
    pub fn read(manager: &str, value: Value) -> Option<serde_json::Result<Self>> {
        Some(match manager {
            "vault" => Vault::deserialize(value).map(Self::Vault),
            "aws" => Aws::deserialize(value).map(Self::Aws),
            "gcp" => Gcp::deserialize(value).map(Self::Gcp),
            _ => return None,
        })
    }
}

/// A secret manager of the kind Vault, as written.
#[derive(Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    missing_docs,
    reason = "the names are APISIX's and are documented there"
)]
pub struct Vault {
    pub id: Option<String>,
    #[schemars(regex(pattern = r"^[^\/]+:\/\/([\da-zA-Z.-]+|\[[\da-fA-F:]+\])(:\d+)?"))]
    pub uri: String,
    pub prefix: String,
    pub token: String,
    pub namespace: Option<String>,
    pub create_time: Option<u64>,
    pub update_time: Option<u64>,
}

/// AWS Secrets Manager, as written.
#[derive(Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    missing_docs,
    reason = "the names are APISIX's and are documented there"
)]
pub struct Aws {
    pub id: Option<String>,
    pub access_key_id: String,
    pub secret_access_key: String,
    pub session_token: Option<String>,
    pub region: Option<String>,
    pub endpoint_url: Option<String>,
    pub create_time: Option<u64>,
    pub update_time: Option<u64>,
}

/// Google's Secret Manager, as written.
#[derive(Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["auth_config"]}, {"required": ["auth_file"]}]))]
#[expect(
    missing_docs,
    reason = "the names are APISIX's and are documented there"
)]
pub struct Gcp {
    pub id: Option<String>,
    pub auth_config: Option<Map<String, Value>>,
    pub auth_file: Option<String>,
    pub ssl_verify: Option<bool>,
    pub create_time: Option<u64>,
    pub update_time: Option<u64>,
}

/// The schema of what the secret manager called `manager` needs; `None` if there is none such.
pub fn schema(manager: &str) -> Option<&'static Schema> {
    static VAULT: OnceLock<Schema> = OnceLock::new();
    static AWS: OnceLock<Schema> = OnceLock::new();
    static GCP: OnceLock<Schema> = OnceLock::new();
    match manager {
        "vault" => Some(VAULT.get_or_init(schema_of::<Vault>)),
        "aws" => Some(AWS.get_or_init(schema_of::<Aws>)),
        "gcp" => Some(GCP.get_or_init(schema_of::<Gcp>)),
        _ => None,
    }
}

/// The managers that have a schema.
pub const MANAGERS: [&str; 3] = ["vault", "aws", "gcp"];
