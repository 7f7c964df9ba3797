//! One file per plugin, named as in the configuration.

pub mod ai_instance;
pub mod ai_proxy;
pub mod ai_proxy_multi;
mod ai_semantic;
pub mod cors;
pub mod file_logger;
pub mod http_logger;
pub mod key_auth;
pub mod prometheus;
pub mod proxy_rewrite;
pub mod request_id;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config::plugin_schema::{Faults, Unreadable};

/// A plugin's typed configuration.
fn parse<T: DeserializeOwned>(conf: &Value) -> Result<T, Unreadable> {
    T::deserialize(conf).map_err(|error| Unreadable(error.to_string()))
}

/// For plugins whose schema says it all.
fn no_rules(_: &Value) -> Result<(), Faults> {
    Ok(())
}
