//! Realtime sessions: a WebSocket to an instance. What is said in it passes as it is.
//!
//! Of the client's handshake only what means something to a provider goes out: its query may hold a
//! key for the gateway, and browsers, which cannot set headers, hide one among the subprotocols.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use pointsman_ai::{DirectApi, Protocol, Provider};

use super::millis;
use crate::{
    body::Body,
    exchange::Exchange,
    plugins::ai_proxy::{AiInstance, AiTarget, RelayLimits, encode_query},
};

/// Sessions as a client's protocol.
pub(super) const REALTIME: Protocol = Protocol::Direct(DirectApi::Realtime);

/// The query for a session at `path` of `instance`: its model in place of the client's.
pub(super) fn query(exchange: &Exchange, instance: &AiInstance, path: &str) -> String {
    let client = exchange.request.query.as_deref().unwrap_or_default();
    let mut pairs = pointsman_ai::query_pairs(client);
    pairs.retain(|(key, _)| FORWARDED.contains(&key.as_str()));
    // Azure's older interface knows deployments; one may stand in the endpoint's path.
    let is_deployment = instance.provider == Provider::AzureOpenai && !path.contains("/v1/");
    let endpoint = instance.path.as_deref().filter(|_| is_deployment);
    let deployment = endpoint.and_then(DirectApi::deployment);
    let model = instance.model.as_deref().or(deployment);
    let key = if is_deployment { "deployment" } else { "model" };
    if let Some(model) = model.or(exchange.llm.request_model.as_deref()) {
        pairs.push((key.to_owned(), model.to_owned()));
    }
    let configured = &instance.endpoint_query;
    pairs.retain(|(key, _)| !configured.iter().any(|(own, _)| own == key));
    instance.query(Some(&encode_query(&pairs)))
}

/// Makes `headers`, which are those of any request, those of a handshake.
pub(super) fn ask_for_switch(headers: &mut HeaderMap) {
    headers.remove(header::CONTENT_TYPE);
    // What is compressed cannot be read in passing, and its tokens could not be counted.
    headers.remove(header::SEC_WEBSOCKET_EXTENSIONS);
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let offered = offered.filter_map(|value| value.to_str().ok());
    let offered = offered.flat_map(|value| value.split(',')).map(str::trim);
    let kept: Vec<&str> = offered
        .filter(|protocol| !protocol.is_empty() && !hides_key(protocol))
        .collect();
    let kept = HeaderValue::from_str(&kept.join(", ")).ok();
    headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
    if let Some(kept) = kept.filter(|kept| !kept.is_empty()) {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, kept);
    }
}

/// Whether a session has begun.
pub(super) fn has_switched(response: &Response<Body>) -> bool {
    response.status() == StatusCode::SWITCHING_PROTOCOLS
}

/// A session has begun: it has the limits of a stream, and how long people talk says nothing about
/// the target.
pub(super) fn begin(exchange: &mut Exchange, target: &AiTarget) {
    let attempt = exchange.attempts.last();
    let began = attempt.map_or(exchange.started, |attempt| attempt.started);
    exchange.observe_so_far();
    exchange.llm.response_ms = Some(millis(exchange));
    if let Some(call) = exchange.ai.as_mut() {
        call.relay_limits = RelayLimits::of(&target.limits, began);
        call.session = Some(Box::default());
    }
}

/// Whether a header of an answer belongs to the handshake.
pub(super) fn is_of_handshake(name: &str) -> bool {
    matches!(name, "connection" | "upgrade") || name.starts_with("sec-websocket-")
}

/// Whether a subprotocol hides a credential, whoever's: what is known to be none passes.
fn hides_key(protocol: &str) -> bool {
    let protocol = protocol.to_ascii_lowercase();
    ["key", "secret", "token", "auth", "bearer"]
        .iter()
        .any(|word| protocol.contains(word))
}

/// Sessions are not closed because people are silent for less than this, however short the limit is for answers.
/// Providers end sessions themselves, after an hour at most.
pub(super) const SILENCE_MIN: Duration = Duration::from_secs(15 * 60);

/// Arguments of a client's query that say what session it wants.
const FORWARDED: [&str; 3] = ["intent", "call_id", "api-version"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_among_subprotocols_stay_here() {
        let check = |offered: &[&'static str], expected: Option<&str>| {
            let mut headers = HeaderMap::new();
            for value in offered {
                let value = HeaderValue::from_static(value);
                headers.append(header::SEC_WEBSOCKET_PROTOCOL, value);
            }
            ask_for_switch(&mut headers);
            let kept = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
            let kept: Vec<_> = kept.filter_map(|value| value.to_str().ok()).collect();
            assert_eq!(kept, Vec::from_iter(expected), "{offered:?}");
        };
        check(&[], None);
        check(&["realtime"], Some("realtime"));
        check(&["openai-insecure-api-key.k"], None);
        check(
            &["realtime,OpenAI-Insecure-API-key.k", " ,b"],
            Some("realtime, b"),
        );
        check(
            &["realtime, xai-client-secret.t, openai-beta.realtime-v1"],
            Some("realtime, openai-beta.realtime-v1"),
        );
    }
}
