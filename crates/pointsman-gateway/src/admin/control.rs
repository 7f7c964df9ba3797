//! The Control API (APISIX 3.18 §"Control API"): health, schemas and dumps of what is in force.

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::{
    admin::{
        error, health_report,
        targets::{self, Time},
        text,
    },
    admin_api::catalog,
    config::{
        problem::{Problem, Severity},
        snapshot::Snapshot,
    },
    plugin::registry::Registry,
    upstream::driver::SharedHealth,
};

/// What is asked.
pub struct Ask<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path.
    pub path: &'a str,
    /// `Accept`, or empty.
    pub accept: &'a str,
}

/// Answers one request. Health is locked only while what is asked for is copied.
pub fn respond(
    ask: &Ask<'_>,
    snapshot: &Snapshot,
    health: &SharedHealth,
    registry: &Registry,
    problems: &[Problem],
    time: Time,
) -> Response<Bytes> {
    let segments: Vec<&str> = ask
        .path
        .split('/')
        .filter(|part| !part.is_empty())
        .collect();
    if ask.method == Method::POST && segments == ["v1", "gc"] {
        // There is no garbage to collect; scripts written for APISIX may ask all the same.
        return text(StatusCode::OK, "text/plain", String::new());
    }
    if ask.method == Method::PUT && segments == ["v1", "plugins", "reload"] {
        return text(StatusCode::OK, "text/plain", "done".to_owned());
    }
    // The server leaves out the body of what is answered to HEAD.
    if ask.method != Method::GET && ask.method != Method::HEAD {
        return error(StatusCode::NOT_FOUND, "404 Not Found");
    }
    match segments.as_slice() {
        ["v1", "schema"] => super::json(StatusCode::OK, &schemas(registry)),
        ["v1", "healthcheck"] => report(ask, Ok(health_report::all(snapshot, &health.overview()))),
        ["v1", "healthcheck", kind] => {
            if is_checkable(kind) {
                error(
                    StatusCode::NOT_FOUND,
                    format!("missing src id for src type {kind}"),
                )
            } else {
                error(StatusCode::BAD_REQUEST, format!("invalid src type {kind}"))
            }
        }
        ["v1", "healthcheck", kind, id] => report(ask, one_report(snapshot, health, kind, id)),
        ["v1", "targets"] => super::json(
            StatusCode::OK,
            &targets::all(snapshot, &health.overview(), time),
        ),
        ["v1", "config", "errors"] => super::json(StatusCode::OK, &errors(snapshot, problems)),
        ["v1", "plugin_metadatas"] => dump(snapshot, "plugin_metadata"),
        ["v1", "plugin_metadata", name] => dump_one(snapshot, "plugin_metadata", name, || {
            format!("plugin metadata[{name}] not found")
        }),
        ["v1", collection @ ("routes" | "services" | "upstreams")] => dump(snapshot, collection),
        ["v1", one @ ("route" | "service" | "upstream"), id] => {
            dump_one(snapshot, &format!("{one}s"), id, || {
                format!("{one}[{id}] not found")
            })
        }
        _ => error(StatusCode::NOT_FOUND, "404 Not Found"),
    }
}

/// What is wrong with the configuration in force: each error names a resource that was left out, or one
/// whose last sound form stays.
fn errors(snapshot: &Snapshot, problems: &[Problem]) -> Value {
    let all: Vec<Value> = problems
        .iter()
        .map(|problem| {
            json!({
                "severity": match problem.severity {
                    Severity::Error => "error",
                    Severity::Warning => "warning",
                },
                "resource": problem.resource,
                "path": problem.path,
                "line": problem.line,
                "message": problem.message,
            })
        })
        .collect();
    json!({ "generation": snapshot.generation, "problems": all })
}

fn is_checkable(kind: &str) -> bool {
    matches!(kind, "routes" | "services" | "upstreams" | "stream_routes")
}

fn one_report(
    snapshot: &Snapshot,
    health: &SharedHealth,
    kind: &str,
    id: &str,
) -> Result<Value, (StatusCode, String)> {
    if !is_checkable(kind) {
        return Err((StatusCode::BAD_REQUEST, format!("invalid src type {kind}")));
    }
    let seen = health.overview();
    if let Some(found) = health_report::of(snapshot, &seen, kind, id) {
        return Ok(found);
    }
    let exists = snapshot
        .document
        .dump(kind)
        .iter()
        .any(|item| item.id == id);
    let message = if exists {
        format!("no checker for {kind}[{id}]")
    } else {
        format!("{kind}[{id}] not found")
    };
    Err((StatusCode::NOT_FOUND, message))
}

fn report(ask: &Ask<'_>, report: Result<Value, (StatusCode, String)>) -> Response<Bytes> {
    match report {
        Err((status, message)) => error(status, message),
        Ok(report) if ask.accept.contains("text/html") => {
            text(StatusCode::OK, "text/html", health_report::html(&report))
        }
        Ok(report) => super::json(StatusCode::OK, &report),
    }
}

/// `{main, plugins, stream_plugins}`.
fn schemas(registry: &Registry) -> Value {
    let plugins = catalog::all(registry);
    json!({ "main": crate::config::resource::schemas(), "plugins": plugins, "stream_plugins": {} })
}

fn dump(snapshot: &Snapshot, collection: &str) -> Response<Bytes> {
    let list: Vec<Value> = snapshot
        .document
        .dump(collection)
        .into_iter()
        .map(entry)
        .collect();
    super::json(StatusCode::OK, &Value::Array(list))
}

fn dump_one(
    snapshot: &Snapshot,
    collection: &str,
    id: &str,
    missing: impl Fn() -> String,
) -> Response<Bytes> {
    match snapshot
        .document
        .dump(collection)
        .into_iter()
        .find(|item| item.id == id)
    {
        Some(item) => super::json(StatusCode::OK, &entry(item)),
        None => error(StatusCode::NOT_FOUND, missing()),
    }
}

fn entry(item: crate::config::document::Dump) -> Value {
    json!({ "key": item.key, "value": item.value, "createdIndex": 0, "modifiedIndex": 0 })
}
