//! Request variables: what `$uri`, `$arg_x`, `$http_x`, `$llm_model` and the rest are.
//!
//! The names are APISIX's and nginx's. A variable that has no value is absent, not empty, so that
//! `["arg_a", "==", null]` and `${name ?? default}` work.

mod body;
pub(crate) mod graphql;

pub(crate) use body::reads_body;

use std::borrow::Cow;

use http::header;
use serde_json::Value;

use crate::{
    clock,
    exchange::{AttemptRecord, Exchange},
    observe::date,
    router::{self, path::PathOptions},
    vars::{Lookup, VarValue},
};

impl Lookup for Exchange {
    fn var(&self, name: &str) -> Option<VarValue<'_>> {
        if let Some(path) = name.strip_prefix("post_arg.") {
            return body::post_arg(self, path);
        }
        if let Some(part) = name.strip_prefix("graphql_") {
            return body::graphql(self, part);
        }
        text(self, name).map(VarValue::Text)
    }
}

impl Exchange {
    /// The variable `name` as text.
    pub fn text(&self, name: &str) -> Option<String> {
        match self.var(name)? {
            VarValue::Text(text) => Some(text.into_owned()),
            VarValue::Json(Value::String(text)) => Some(text),
            VarValue::Json(value) => Some(value.to_string()),
        }
    }
}

fn text<'a>(x: &'a Exchange, name: &str) -> Option<Cow<'a, str>> {
    if let Some(value) = request_var(x, name).or_else(|| response_var(x, name)) {
        return Some(value);
    }
    if let Some(arg) = name.strip_prefix("arg_") {
        return x
            .request
            .query
            .as_deref()
            .and_then(|query| query_arg(query, arg));
    }
    if let Some(header) = name.strip_prefix("http_") {
        return header_var(x, header);
    }
    if let Some(part) = name.strip_prefix("opentelemetry_") {
        return x.trace_var(part);
    }
    if let Some(cookie) = name.strip_prefix("cookie_") {
        return cookie_var(x, cookie);
    }
    if let Some(param) = name.strip_prefix("uri_param_") {
        let params = &x.matched.as_ref()?.params;
        return params
            .iter()
            .find(|(key, _)| key == param)
            .map(|(_, v)| Cow::from(v.as_str()));
    }
    if let Some(field) = name.strip_prefix("post_arg_") {
        return body::form_arg(x, field).map(Cow::Owned);
    }
    None
}

/// What is known before there is an answer.
fn request_var<'a>(x: &'a Exchange, name: &str) -> Option<Cow<'a, str>> {
    Some(match name {
        "uri" => Cow::from(x.request.path.as_str()),
        "request_uri" => Cow::Owned(request_uri(x, x.received.uri.query().map(Cow::from))),
        "real_request_uri" => Cow::from(
            x.received
                .uri
                .path_and_query()
                .map_or("/", |target| target.as_str()),
        ),
        "args" | "query_string" => Cow::from(x.request.query.as_deref()?),
        "is_args" => Cow::from(match x.request.query.as_deref() {
            None | Some("") => "",
            Some(_) => "?",
        }),
        "host" => Cow::from(x.received.host.as_str()),
        "scheme" => Cow::from(if x.peer.tls.is_some() {
            "https"
        } else {
            "http"
        }),
        "https" => Cow::from(if x.peer.tls.is_some() { "on" } else { "" }),
        "request_method" => Cow::from(x.received.method.as_str()),
        "server_protocol" => Cow::Owned(format!("{:?}", x.request.version)),
        "remote_addr" => Cow::Owned(x.peer.client.ip().to_string()),
        "realip_remote_addr" => Cow::Owned(x.connected().to_string()),
        "remote_port" => Cow::Owned(x.peer.client.port().to_string()),
        "server_addr" => Cow::Owned(x.peer.server.ip().to_string()),
        "server_port" => Cow::Owned(x.peer.server.port().to_string()),
        "server_name" => Cow::from(x.peer.tls.as_ref()?.server_name.as_deref()?),
        "hostname" => Cow::from(x.snapshot().settings.hostname.as_str()),
        "content_type" => header_text(x, header::CONTENT_TYPE.as_str())?,
        "content_length" => header_text(x, header::CONTENT_LENGTH.as_str())?,
        "route_id" => Cow::from(x.route()?.id.as_str()),
        "route_name" => Cow::from(x.route()?.name.as_str()),
        "matched_uri" => Cow::from(&*x.matched.as_ref()?.uri),
        "matched_host" => Cow::from(x.matched.as_ref()?.host.as_deref()?),
        "service_id" => Cow::from(x.route()?.service_id.as_deref()?),
        "service_name" => Cow::from(x.route()?.service_name.as_deref()?),
        "consumer_name" => Cow::from(x.consumer()?.username.as_str()),
        "consumer_group_id" => Cow::from(x.consumer()?.group_id.as_deref()?),
        "apisix_request_id" => Cow::from(x.id_of_plugin().unwrap_or_else(|| x.generated_id())),
        "request_id" => Cow::from(x.generated_id()),
        "request_length" => Cow::Owned(x.request_bytes().to_string()),
        // nginx's own clock: the time of asking, not that of the request.
        "time_iso8601" => Cow::Owned(date::iso_8601(clock::unix_millis())),
        "time_local" => Cow::Owned(date::common_log(clock::unix_millis())),
        "request_type" => Cow::from(x.request_type()),
        "request_llm_model" => Cow::from(x.llm.request_model.as_deref()?),
        _ => return None,
    })
}

/// What is known once there is an answer, or part of one.
fn response_var<'a>(x: &'a Exchange, name: &str) -> Option<Cow<'a, str>> {
    let usage = x.llm.usage.unwrap_or_default();
    let number = |value: u64| Some(Cow::Owned(value.to_string()));
    let flag = |value: bool| Some(Cow::from(if value { "true" } else { "false" }));
    match name {
        "status" => number(u64::from(x.response.status?.as_u16())),
        "body_bytes_sent" | "bytes_sent" => number(x.response.body_bytes),
        "request_time" => {
            let took = x.took();
            Some(Cow::Owned(format!("{:.3}", took.as_secs_f64())))
        }
        "balancer_ip" => match &x.llm.instance {
            Some(instance) => Some(Cow::from(&**instance)),
            None => x
                .attempts
                .last()
                .map(|attempt| Cow::from(host_of(&attempt.address))),
        },
        "balancer_port" => x
            .attempts
            .last()?
            .address
            .rsplit_once(':')
            .map(|(_, port)| Cow::from(port)),
        "llm_model" => x.llm.model.as_deref().map(Cow::from),
        "llm_stream" => flag(x.llm.stream),
        "llm_has_tool_calls" => flag(x.llm.has_tool_calls),
        "llm_tool_count" => number(x.llm_request().map_or(0, |sent| sent.tool_count() as u64)),
        "llm_end_user_id" => x.llm_request()?.end_user_id().map(Cow::Owned),
        "llm_prompt_tokens" => number(usage.prompt),
        "llm_completion_tokens" => number(usage.completion),
        "llm_total_tokens" => number(usage.total),
        "llm_cache_read_input_tokens" => number(usage.cache_read),
        "llm_cache_creation_input_tokens" => number(usage.cache_creation),
        "llm_reasoning_tokens" => number(usage.reasoning),
        "llm_usage_estimated" => flag(x.llm.usage_estimated),
        "llm_time_to_first_token" => number(x.llm.first_token_ms.unwrap_or(0)),
        "apisix_upstream_response_time" => match x.llm.response_ms {
            Some(ms) => number(ms),
            None => each(x, |attempt| attempt.total.map(seconds)),
        },
        "upstream_addr" => each(x, |attempt| Some(attempt.address.to_string())),
        "upstream_status" => each(x, |attempt| Some(attempt.status.to_string())),
        "upstream_response_time" => each(x, |attempt| attempt.total.map(seconds)),
        "upstream_connect_time" => each(x, |attempt| attempt.connect.map(seconds)),
        "upstream_header_time" => each(x, |attempt| attempt.header.map(seconds)),
        "upstream_response_length" => each(x, |attempt| Some(attempt.body_bytes.to_string())),
        "upstream_unresolved_host" => x
            .attempts
            .last()
            .map(|attempt| Cow::from(router::host::bare(host_of(&attempt.address)))),
        "upstream_uri" => x.attempts.last().map(|attempt| Cow::from(&*attempt.path)),
        "upstream_host" => x
            .attempts
            .last()
            .map(|attempt| Cow::from(host_of(&attempt.host))),
        "upstream_scheme" => x.attempts.last().map(|attempt| Cow::from(attempt.scheme)),
        _ => None,
    }
}

/// `$request_uri` with `query`: the path as it was cleaned for routing, whatever plugins have made
/// of it since (APISIX guards against addresses that look different to different readers).
pub(crate) fn request_uri(x: &Exchange, query: Option<Cow<'_, str>>) -> String {
    let options = PathOptions {
        // APISIX keeps `%2F` for matching only.
        keep_encoded_slash: false,
        ..x.snapshot().settings.path_options
    };
    let received = x.received.uri.path();
    let path = router::path::normalise(received, &options).unwrap_or(Cow::Borrowed(received));
    match query.filter(|query| !query.is_empty()) {
        Some(query) => format!("{path}?{query}"),
        None => path.into_owned(),
    }
}

/// One element per attempt, as nginx writes them; `-` where an attempt has no value.
fn each(x: &Exchange, value: impl Fn(&AttemptRecord) -> Option<String>) -> Option<Cow<'_, str>> {
    if x.attempts.is_empty() {
        return None;
    }
    let values: Vec<String> = x
        .attempts
        .iter()
        .map(|attempt| value(attempt).unwrap_or_else(|| "-".to_owned()))
        .collect();
    Some(Cow::Owned(values.join(", ")))
}

fn seconds(duration: std::time::Duration) -> String {
    format!("{:.3}", duration.as_secs_f64())
}

fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
}

fn header_text<'a>(x: &'a Exchange, name: &str) -> Option<Cow<'a, str>> {
    let value = x.request.headers.get(name)?;
    Some(String::from_utf8_lossy(value.as_bytes()))
}

/// `http_x_y` is the header `X-Y`, or `X_Y`.
fn header_var<'a>(x: &'a Exchange, name: &str) -> Option<Cow<'a, str>> {
    if !name.contains('_') {
        return header_text(x, name);
    }
    let dashed = name.replace('_', "-");
    header_text(x, &dashed).or_else(|| header_text(x, name))
}

fn cookie_var<'a>(x: &'a Exchange, name: &str) -> Option<Cow<'a, str>> {
    x.request
        .headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| Cow::from(value))
}

/// The first value of a query argument, percent-decoded.
pub(crate) fn query_arg<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key) == name).then(|| decode(value))
    })
}

/// A part of a query, decoded.
pub(crate) fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::from(text);
    }
    let spaced = text.replace('+', " ");
    Cow::Owned(
        percent_encoding::percent_decode_str(&spaced)
            .decode_utf8_lossy()
            .into_owned(),
    )
}
