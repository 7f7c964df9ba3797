//! `X-Forwarded-*` and `X-Real-IP`: what targets learn of the client, and what they don't believe.
//!
//! As APISIX 3.18 has it. A client's own values count only when its address is one of
//! `apisix.trusted_addresses`; without such a list its `X-Forwarded-For` is extended and the
//! others are replaced. LLM requests leave these headers as they came: a provider has no use for
//! the client's address.

use http::{HeaderMap, HeaderValue, header};

use crate::exchange::Exchange;

/// Sets them early, so that routes can match on them; only when a route's `vars` could.
pub fn set_if_routing_reads_it(exchange: &mut Exchange) {
    if exchange.snapshot().router.has_vars() {
        set(exchange);
    }
}

/// Sets them, once.
pub fn set(exchange: &mut Exchange) {
    if std::mem::replace(&mut exchange.forwarded_set, true) {
        return;
    }
    let client = exchange.peer.client.ip();
    let trust = trust(exchange);
    let scheme = own_scheme(exchange);
    let host = exchange.request.headers.get(header::HOST).cloned();
    let port = host
        .as_ref()
        .and_then(|host| host.to_str().ok())
        .and_then(crate::router::host::port)
        .unwrap_or_else(|| exchange.peer.server.port());
    let headers = &mut exchange.request.headers;
    let address = text(&client.to_string());
    headers.insert("x-real-ip", address.clone());
    // Several lines are one list (RFC 9110 §5.3).
    let before: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    let chain = match trust {
        Trust::NoList | Trust::Listed if !before.is_empty() => {
            text(&format!("{}, {client}", before.join(", ")))
        }
        _ => address,
    };
    headers.insert("x-forwarded-for", chain);
    set_unless_trusted(
        headers,
        trust,
        "x-forwarded-proto",
        HeaderValue::from_static(scheme),
    );
    if let Some(host) = host {
        set_unless_trusted(headers, trust, "x-forwarded-host", host);
    }
    set_unless_trusted(headers, trust, "x-forwarded-port", text(&port.to_string()));
    if trust != Trust::Listed {
        headers.remove(header::FORWARDED);
    }
}

/// `https` if the client came over TLS, or says so and is believed.
pub fn scheme(exchange: &Exchange) -> &str {
    match exchange.header("x-forwarded-proto") {
        Some(told) if trust(exchange) == Trust::Listed => told,
        _ => own_scheme(exchange),
    }
}

fn own_scheme(exchange: &Exchange) -> &'static str {
    if exchange.peer.tls.is_some() {
        "https"
    } else {
        "http"
    }
}

fn trust(exchange: &Exchange) -> Trust {
    let peer = exchange.connected();
    match &exchange.snapshot().settings.trusted_addresses {
        None => Trust::NoList,
        Some(list) if list.iter().any(|net| net.contains(&peer)) => Trust::Listed,
        Some(_) => Trust::Stranger,
    }
}

/// Corrects what [`set`] has already written, when a plugin has found another client behind the one
/// that is connected.
pub fn client_changed(exchange: &mut Exchange) {
    if !exchange.forwarded_set {
        return;
    }
    let client = exchange.peer.client.ip().to_string();
    let headers = &mut exchange.request.headers;
    headers.insert("x-real-ip", text(&client));
    let chain = headers
        .get("x-forwarded-for")
        .and_then(|value| value.to_str().ok());
    let chain = match chain.and_then(|chain| chain.rsplit_once(", ")) {
        Some((before, _)) => format!("{before}, {client}"),
        None => client,
    };
    headers.insert("x-forwarded-for", text(&chain));
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    NoList,
    Listed,
    Stranger,
}

fn set_unless_trusted(
    headers: &mut HeaderMap,
    trust: Trust,
    name: &'static str,
    value: HeaderValue,
) {
    if trust == Trust::Listed && headers.contains_key(name) {
        return;
    }
    headers.insert(name, value);
}

fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or_else(|_| HeaderValue::from_static(""))
}
