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
    let trusted = &exchange.snapshot().settings.trusted_addresses;
    let trust = match trusted {
        None => Trust::NoList,
        Some(list) if list.iter().any(|net| net.contains(&client)) => Trust::Listed,
        Some(_) => Trust::Stranger,
    };
    let scheme = if exchange.peer.tls.is_some() {
        "https"
    } else {
        "http"
    };
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
