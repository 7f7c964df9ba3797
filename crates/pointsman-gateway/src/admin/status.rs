//! `/status` and `/status/ready` (APISIX 3.18, `apisix.status`).

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::json;

use crate::{admin_api::store::Reach, config::snapshot::Snapshot};

/// Alive whenever it answers; ready once a configuration is in force, also if where it came from is out of
/// `reach` now: whoever takes such gateways away has none left.
pub fn respond(path: &str, snapshot: &Snapshot, reach: Option<&Reach>) -> Response<Bytes> {
    match path {
        "/status" => super::json(StatusCode::OK, &json!({ "status": "ok" })),
        "/status/ready" if snapshot.generation > 0 => {
            let mut body = json!({ "status": "ok" });
            if let Some((trouble, reach)) = reach.and_then(|it| Some((it.trouble.as_ref()?, it))) {
                body["warning"] = json!(format!(
                    "etcd is out of reach, what it held at revision {} is served: {trouble}",
                    reach.revision
                ));
            }
            super::json(StatusCode::OK, &body)
        }
        "/status/ready" => super::json(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({ "status": "error", "error": "no configuration has been loaded yet" }),
        ),
        _ => super::error(StatusCode::NOT_FOUND, "404 Not Found"),
    }
}
