//! Requests to look at the gateway, as plain functions: request in, response out.

pub mod control;
pub mod exporter;
pub mod health_report;
pub mod status;
pub mod targets;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::Value;

/// A JSON response.
pub(crate) fn json(status: StatusCode, value: &Value) -> Response<Bytes> {
    text(status, "application/json", value.to_string())
}

/// An error in the shape of APISIX's Control API.
pub fn error(status: StatusCode, message: impl Into<String>) -> Response<Bytes> {
    json(status, &serde_json::json!({ "error_msg": message.into() }))
}

/// A response of any type.
pub(crate) fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
