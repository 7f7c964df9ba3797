//! Where a request to an instance goes, and under which headers.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Uri, header};
use pointsman_ai::{PathChoice, Protocol};

use crate::{
    exchange::Exchange, failure::Failure, forward::http::end_to_end, plugins::ai_proxy::AiInstance,
};

/// The request target for `instance`, and its path for logs.
pub(super) fn instance_target(
    exchange: &Exchange,
    instance: &AiInstance,
    protocol: Protocol,
    path: &PathChoice,
) -> Result<(Uri, Arc<str>), Failure> {
    if let Some(fixed) = instance.fixed_target(protocol) {
        return Ok((fixed.uri.clone(), Arc::clone(&fixed.path)));
    }
    let inbound = exchange.inbound_path();
    let path = match (&instance.path, path) {
        (Some(path), _) => path.as_str().into(),
        (None, PathChoice::Provider(path)) => (*path).into(),
        (None, PathChoice::Inbound) => crate::router::path::encode(&inbound),
    };
    let client_query = match protocol {
        Protocol::Passthrough => exchange.request.query.as_deref(),
        _ => None,
    };
    let query = instance.query(client_query);
    let full = if query.is_empty() {
        path.into_owned()
    } else {
        format!("{path}?{query}")
    };
    let length = full.len();
    let uri = Uri::try_from(full).map_err(|error| match length {
        // Encoded anew, a query may be three times as long as it was.
        TARGET_TOO_LONG.. => Failure::TargetTooLong,
        // What the client sent has been read before, so it is what was made of it here.
        _ => Failure::Internal(format!(
            "instance {}: the request target is not valid: {error}",
            instance.name
        )),
    })?;
    let path = uri.path().into();
    Ok((uri, path))
}

/// The client's end-to-end headers, the instance's own over them.
pub(super) fn instance_headers(
    client: &HeaderMap,
    instance: &AiInstance,
    target: Protocol,
) -> HeaderMap {
    // The client's key is for us. Beside the instance's own it would only confuse, or leak.
    let has_own_key = !instance.auth_query.is_empty()
        || instance
            .auth_headers
            .iter()
            .any(|(name, _)| is_credential(name.as_str()));
    let mut headers = end_to_end(client, |name| {
        let never = matches!(name, "host" | "content-length" | "accept-encoding");
        !(never || (has_own_key && is_credential(name)))
    });
    for (name, value) in &instance.auth_headers {
        headers.insert(name.clone(), value.clone());
    }
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    if target == Protocol::AnthropicMessages && !headers.contains_key("anthropic-version") {
        headers.insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
    }
    headers
}

/// Whether a header carries a provider's credential.
fn is_credential(name: &str) -> bool {
    matches!(
        name,
        "authorization" | "x-api-key" | "api-key" | "x-goog-api-key"
    )
}

/// The length, in bytes, from which on no request target is valid (the library's limit).
const TARGET_TOO_LONG: usize = u16::MAX as usize;
