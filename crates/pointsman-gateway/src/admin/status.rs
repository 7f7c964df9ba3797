//! `/status` and `/status/ready` (APISIX 3.18, `apisix.status`).

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::json;

use crate::config::snapshot::Snapshot;

/// Alive whenever it answers; ready once a configuration is in force.
pub fn respond(path: &str, snapshot: &Snapshot) -> Response<Bytes> {
    match path {
        "/status" => super::json(StatusCode::OK, &json!({ "status": "ok" })),
        "/status/ready" if snapshot.generation > 0 => {
            super::json(StatusCode::OK, &json!({ "status": "ok" }))
        }
        "/status/ready" => super::json(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({ "status": "error", "error": "no configuration has been loaded yet" }),
        ),
        _ => super::error(StatusCode::NOT_FOUND, "404 Not Found"),
    }
}
