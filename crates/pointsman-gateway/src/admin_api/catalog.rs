//! What can be configured: plugins and schemas.

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::{Ask, refusal::Refusal};
use crate::{
    admin,
    config::{plugin_schema::PluginSchema, resource},
    plugin::registry::Registry,
    variables::query_arg,
};

/// Answers what is below `/plugins`.
pub(super) fn plugins(
    ask: &Ask<'_>,
    rest: &[&str],
    registry: &Registry,
) -> Result<Response<Bytes>, Refusal> {
    if rest == ["reload"] {
        return match *ask.method {
            Method::PUT => {
                // Plugins are part of the program, and the list of them is read at the start.
                let done = "done".to_owned();
                Ok(admin::text(StatusCode::OK, "text/plain", done))
            }
            _ => Err(Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "please use PUT method to reload the plugins, other methods are not allowed.",
            )),
        };
    }
    if ask.method != Method::GET {
        return Err(Refusal::not_found());
    }
    let subsystem = query_arg(ask.query, "subsystem");
    let subsystem = subsystem.as_deref().unwrap_or("http");
    if !matches!(subsystem, "http" | "stream") {
        let message = format!("unsupported subsystem: {subsystem}");
        return Err(Refusal::bad(message));
    }
    match rest {
        ["list"] => {
            // There is no stream proxy, and so none of its plugins.
            let kinds = if subsystem == "http" {
                registry.by_priority()
            } else {
                Vec::new()
            };
            let names: Vec<&str> = kinds.iter().map(|kind| kind.schema.name).collect();
            Ok(admin::json(StatusCode::OK, &json!(names)))
        }
        [] if query_arg(ask.query, "all").is_some_and(|all| all == "true") => {
            Ok(admin::json(StatusCode::OK, &Value::Object(all(registry))))
        }
        [name] => {
            let kind = registry.kind(name).filter(|_| subsystem == "http");
            let kind = kind.ok_or_else(|| {
                let message = format!("plugin not found in subsystem {subsystem}");
                Refusal::new(StatusCode::NOT_FOUND, message)
            })?;
            let schema = match query_arg(ask.query, "schema_type").as_deref() {
                Some("consumer") => {
                    let consumer = kind.schema.consumer_schema.as_ref();
                    consumer.map(|consumer| &consumer.schema)
                }
                Some("metadata") => kind.schema.metadata_schema.as_ref(),
                _ => Some(&kind.schema.schema),
            };
            let schema = schema.ok_or_else(|| Refusal::bad("not found schema"))?;
            Ok(admin::json(StatusCode::OK, schema.written()))
        }
        _ => Err(Refusal::not_found()),
    }
}

/// Answers what is below `/schema`.
pub(super) fn schema(
    ask: &Ask<'_>,
    rest: &[&str],
    registry: &Registry,
) -> Result<Response<Bytes>, Refusal> {
    if ask.method != Method::GET {
        return Err(Refusal::not_found());
    }
    match rest {
        ["plugins", name] => plugins(ask, &[name], registry),
        [name] => {
            let schema = resource::schema_named(name);
            let schema = schema.ok_or_else(|| Refusal::bad(format!("not found schema: {name}")))?;
            Ok(admin::json(StatusCode::OK, schema.written()))
        }
        _ => Err(Refusal::bad("not found schema")),
    }
}

/// Every plugin, by name, as APISIX describes them.
pub(crate) fn all(registry: &Registry) -> Map<String, Value> {
    let kinds = registry.by_priority().into_iter();
    kinds
        .map(|kind| (kind.schema.name.to_owned(), described(&kind.schema)))
        .collect()
}

fn described(plugin: &PluginSchema) -> Value {
    let mut entry = Map::new();
    entry.insert("priority".to_owned(), json!(plugin.priority));
    entry.insert("version".to_owned(), json!(plugin.version));
    entry.insert("schema".to_owned(), plugin.schema.written().clone());
    if let Some(consumer) = &plugin.consumer_schema {
        entry.insert(
            "consumer_schema".to_owned(),
            consumer.schema.written().clone(),
        );
    }
    if let Some(metadata) = &plugin.metadata_schema {
        entry.insert("metadata_schema".to_owned(), metadata.written().clone());
    }
    if plugin.is_auth {
        entry.insert("type".to_owned(), json!("auth"));
    }
    Value::Object(entry)
}
