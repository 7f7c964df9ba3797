//! `ai-proxy-multi`: one route, many instances, weighted and prioritised, with health and fallback.

use std::sync::Arc;

use serde_json::Value;

use crate::{
    config::plugin_schema::Faults,
    plugin::{
        Plugin,
        registry::{Building, PluginKind},
    },
    plugins::{ai_instance, ai_proxy::AiProxy},
};

/// `ai-proxy-multi` for the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: crate::config::plugin::ai_proxy::multi_schema(),
        build,
        checkers: Some(ai_instance::checkers),
        identity_field: None,
    }
}

fn build(conf: &Value, building: &mut Building<'_>) -> Result<Arc<dyn Plugin>, Faults> {
    let target = ai_instance::multi(conf, building)?;
    Ok(Arc::new(AiProxy { target }))
}
