//! One file per plugin, named as in the configuration.

pub mod ai_instance;
pub mod ai_proxy;
pub mod ai_proxy_multi;
mod ai_semantic;
pub mod api_breaker;
pub mod attach_consumer_label;
mod auth;
pub mod basic_auth;
pub mod clickhouse_logger;
pub mod client_control;
pub mod consumer_restriction;
pub mod cors;
pub mod csrf;
pub mod fault_injection;
pub mod file_logger;
pub mod hmac_auth;
pub mod http_logger;
pub mod ip_restriction;
pub mod jwt_auth;
pub mod key_auth;
pub mod limit_conn;
pub mod limit_count;
pub mod limit_req;
mod limiting;
mod logging;
pub mod mocking;
pub mod multi_auth;
pub mod openid_connect;
pub mod opentelemetry;
pub mod prometheus;
pub mod proxy_mirror;
pub mod proxy_rewrite;
pub mod real_ip;
pub mod redirect;
pub mod referer_restriction;
pub mod request_id;
pub mod request_validation;
pub mod response_rewrite;
pub mod syslog;
pub mod tcp_logger;
pub mod traffic_split;
pub mod ua_restriction;
pub mod udp_logger;
pub mod uri_blocker;

use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    clock,
    config::{
        plugin_schema::{Faults, Unreadable},
        resource::route::network,
    },
    exchange::Exchange,
    ports::LocalFuture,
    router::{
        Expr,
        pattern::{Case, Pattern},
    },
    template::Template,
};

/// A plugin's typed configuration.
fn parse<T: DeserializeOwned>(conf: &Value) -> Result<T, Unreadable> {
    T::deserialize(conf).map_err(|error| Unreadable(error.to_string()))
}

/// For plugins whose schema says it all.
fn no_rules(_: &Value) -> Result<(), Faults> {
    Ok(())
}

/// The addresses and networks of the list at `path`.
fn networks(path: &str, list: &[String]) -> Result<Vec<IpNet>, Faults> {
    Faults::collect(list.iter().enumerate().map(|(index, text)| {
        network(text).ok_or_else(|| {
            let path = format!("{path}[{index}]");
            Faults::at(&path, format!("invalid ip address: {text}"))
        })
    }))
}

/// The patterns of the list at `path`.
fn patterns(path: &str, list: &[String], case: Case) -> Result<Vec<Pattern>, Faults> {
    Faults::collect(list.iter().enumerate().map(|(index, text)| {
        Pattern::new(text, case)
            .map_err(|error| Faults::at(&format!("{path}[{index}]"), error.to_string()))
    }))
}

/// The expressions of the list at `path`, of which callers ask whether any holds.
fn expressions(path: &str, list: &[Value]) -> Result<Vec<Expr>, Faults> {
    Faults::collect(list.iter().enumerate().map(|(index, written)| {
        Expr::parse(written)
            .map_err(|error| Faults::at(&format!("{path}[{index}]"), format!("{path}: {error}")))
    }))
}

/// The headers of the object at `path`, whose values are texts or numbers, as templates.
fn header_templates(
    path: &str,
    headers: &serde_json::Map<String, Value>,
) -> Result<Vec<(HeaderName, Template)>, Faults> {
    Faults::collect(headers.iter().map(|(name, value)| {
        let at = crate::config::text::join(path, name);
        let header = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| Faults::at(&at, format!("{path}: `{name}` is not a header name")))?;
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => {
                let text = format!("{path}.{name}: must be a text or a number");
                return Err(Faults::at(&at, text));
            }
        };
        Ok((header, Template::parse(&text)))
    }))
}

/// Ends after `duration`.
fn pause(exchange: &Exchange, duration: Duration) -> LocalFuture<'static, ()> {
    let upstreams = exchange.gateway().upstreams();
    upstreams.sleep_until(clock::now() + duration)
}
