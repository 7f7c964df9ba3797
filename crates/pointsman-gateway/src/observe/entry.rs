//! What a logger writes about a request (APISIX 3.18: default entry, `log_format`, bodies, LLM).

use std::borrow::Cow;

use bytes::Bytes;
use http::HeaderMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    config::plugin_schema::Faults,
    exchange::Exchange,
    observe::secrets,
    router::Expr,
    template::Template,
    variables::{reads_body, request_uri},
};

/// The fields that all loggers share.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct LogConf {
    /// Instead of the default entry.
    pub log_format: Option<Map<String, Value>>,
    /// Beside it.
    pub log_format_extra: Option<Map<String, Value>>,
    /// Log the request's body.
    pub include_req_body: bool,
    /// Only when this holds.
    pub include_req_body_expr: Option<Value>,
    /// Log the response's body.
    pub include_resp_body: bool,
    /// Only when this holds.
    pub include_resp_body_expr: Option<Value>,
    /// Bytes of a request's body.
    #[schemars(range(min = 1))]
    pub max_req_body_bytes: usize,
    /// Bytes of a response's body.
    #[schemars(range(min = 1))]
    pub max_resp_body_bytes: usize,
}

/// Metadata that all loggers share.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct LogMetadata {
    /// When the plugin has none of its own.
    pub log_format: Option<Map<String, Value>>,
    /// When the plugin has none of its own.
    pub log_format_extra: Option<Map<String, Value>>,
    /// Entries that may wait.
    #[schemars(range(min = 1))]
    pub max_pending_entries: Option<usize>,
    /// For file-logger.
    pub path: Option<String>,
}

impl Default for LogConf {
    fn default() -> Self {
        Self {
            log_format: None,
            log_format_extra: None,
            include_req_body: false,
            include_req_body_expr: None,
            include_resp_body: false,
            include_resp_body_expr: None,
            max_req_body_bytes: 524_288,
            max_resp_body_bytes: 524_288,
        }
    }
}

/// What a logger wants of the exchange while it is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// The size of the request.
    pub request_size: bool,
    /// This many bytes of its body.
    pub request_body_bytes: usize,
    /// The response's headers.
    pub response_headers: bool,
    /// This many bytes of its body.
    pub response_body_bytes: usize,
    /// The text of LLM responses.
    pub llm_text: bool,
}

impl Wants {
    /// What either wants.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            request_size: self.request_size || other.request_size,
            request_body_bytes: self.request_body_bytes.max(other.request_body_bytes),
            response_headers: self.response_headers || other.response_headers,
            response_body_bytes: self.response_body_bytes.max(other.response_body_bytes),
            llm_text: self.llm_text || other.llm_text,
        }
    }
}

/// Makes entries.
#[derive(Debug)]
pub struct Writer {
    wants: Wants,
    reads_body: bool,
    format: Option<Node>,
    extra: Option<Node>,
    conf: LogConf,
    request_body_if: Option<Expr>,
    response_body_if: Option<Expr>,
}

/// A value of a format.
#[derive(Debug)]
enum Node {
    Text(Template),
    Map(Vec<(String, Self)>),
    Plain(Value),
}

impl Writer {
    /// Prepares a logger's configuration over its metadata.
    pub fn new(conf: LogConf, metadata: &LogMetadata) -> Result<Self, Faults> {
        let mut found = Vec::new();
        let mut told = |faults: Faults| found.extend(faults.into_issues());
        let main = format(&conf.log_format, &metadata.log_format, "log_format");
        let extra = format(
            &conf.log_format_extra,
            &metadata.log_format_extra,
            "log_format_extra",
        );
        let expr = |value: &Option<Value>, name: &str| {
            let parsed = value.as_ref().map(Expr::parse).transpose();
            parsed.map_err(|error| Faults::at(name, format!("{name}: {error}")))
        };
        let request_body_if = expr(&conf.include_req_body_expr, "include_req_body_expr");
        let response_body_if = expr(&conf.include_resp_body_expr, "include_resp_body_expr");
        let mut writer = Self {
            wants: Wants::default(),
            reads_body: false,
            format: main.map_err(&mut told).unwrap_or_default(),
            extra: extra.map_err(&mut told).unwrap_or_default(),
            request_body_if: request_body_if.map_err(&mut told).unwrap_or_default(),
            response_body_if: response_body_if.map_err(&mut told).unwrap_or_default(),
            conf,
        };
        writer.wants = writer.work_out_wants();
        writer.reads_body = writer.variables().into_iter().any(reads_body);
        Faults::none_of(found).map(|()| writer)
    }

    /// What it wants while requests are under way.
    pub fn wants(&self) -> Wants {
        self.wants
    }

    /// Whether one of its variables comes out of the request's body.
    pub fn reads_body(&self) -> bool {
        self.reads_body
    }

    fn work_out_wants(&self) -> Wants {
        let is_default = self.format.is_none();
        Wants {
            request_size: is_default || self.variables().into_iter().any(needs_size),
            request_body_bytes: if self.conf.include_req_body {
                self.conf.max_req_body_bytes
            } else {
                0
            },
            response_headers: is_default,
            response_body_bytes: if self.conf.include_resp_body {
                self.conf.max_resp_body_bytes
            } else {
                0
            },
            llm_text: false,
        }
    }

    /// Every variable that it reads.
    fn variables(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for node in [&self.format, &self.extra].into_iter().flatten() {
            node.collect_variables(&mut names);
        }
        for expr in [&self.request_body_if, &self.response_body_if] {
            names.extend(expr.iter().flat_map(Expr::variables));
        }
        names
    }

    /// The entry of a request that has ended.
    pub fn entry(&self, exchange: &Exchange) -> Bytes {
        let mut entry = match &self.format {
            Some(format) => custom(format, exchange),
            None => default_entry(exchange),
        };
        if let Some(Value::Object(extra)) = self.extra.as_ref().map(|extra| extra.render(exchange))
        {
            entry.extend(extra);
        }
        self.bodies(&mut entry, exchange);
        llm(&mut entry, exchange);
        Bytes::from(Value::Object(entry).to_string())
    }

    fn bodies(&self, entry: &mut Map<String, Value>, exchange: &Exchange) {
        let holds = |expr: &Option<Expr>| {
            expr.as_ref()
                .is_none_or(|expr| expr.eval(exchange).unwrap_or(false))
        };
        if self.conf.include_req_body
            && holds(&self.request_body_if)
            && let Some(body) = exchange.beginning_of_body(self.conf.max_req_body_bytes)
        {
            inside(
                entry,
                "request",
                String::from_utf8_lossy(&body).into_owned(),
            );
        }
        if self.conf.include_resp_body
            && holds(&self.response_body_if)
            && let Some(body) = &exchange.response.body
        {
            let shown = &body[..body.len().min(self.conf.max_resp_body_bytes)];
            inside(
                entry,
                "response",
                String::from_utf8_lossy(shown).into_owned(),
            );
        }
    }
}

/// Whether the variable `name` is about the size of the request, whose body is counted only then.
pub(crate) fn needs_size(name: &str) -> bool {
    name == "request_length"
}

fn inside(entry: &mut Map<String, Value>, part: &str, body: String) {
    let part = entry.entry(part).or_insert_with(|| json!({}));
    if let Value::Object(part) = part {
        part.insert("body".to_owned(), Value::String(body));
    }
}

/// The format that counts: the plugin's `own`, or its metadata's.
fn format(own: &Format, metadata: &Format, path: &str) -> Result<Option<Node>, Faults> {
    // A fault of the metadata stands elsewhere.
    let path = if own.is_some() { path } else { "" };
    let written = own.as_ref().or(metadata.as_ref());
    let parsed = written.map(|map| Node::map(map, 1)).transpose();
    parsed.map_err(|error| Faults::at(path, error))
}

type Format = Option<Map<String, Value>>;

impl Node {
    fn map(map: &Map<String, Value>, depth: usize) -> Result<Self, String> {
        if depth > FORMAT_DEPTH_MAX {
            return Err(format!(
                "log_format: nested more than {FORMAT_DEPTH_MAX} levels deep"
            ));
        }
        let parts = map
            .iter()
            .map(|(key, value)| {
                let node = match value {
                    Value::String(text) => Self::Text(Template::parse(text)),
                    Value::Object(map) => Self::map(map, depth + 1)?,
                    other => Self::Plain(other.clone()),
                };
                Ok((key.clone(), node))
            })
            .collect::<Result<Vec<_>, String>>()?;
        Ok(Self::Map(parts))
    }

    fn collect_variables<'n>(&'n self, names: &mut Vec<&'n str>) {
        match self {
            Self::Text(template) => names.extend(template.variables()),
            Self::Map(parts) => {
                for (_, node) in parts {
                    node.collect_variables(names);
                }
            }
            Self::Plain(_) => {}
        }
    }

    fn render(&self, exchange: &Exchange) -> Value {
        match self {
            Self::Text(template) => {
                Value::String(template.render(&secrets::Starred(exchange)).text)
            }
            Self::Map(parts) => Value::Object(
                parts
                    .iter()
                    .map(|(key, node)| (key.clone(), node.render(exchange)))
                    .collect(),
            ),
            Self::Plain(value) => value.clone(),
        }
    }
}

fn custom(format: &Node, exchange: &Exchange) -> Map<String, Value> {
    let Value::Object(mut entry) = format.render(exchange) else {
        return Map::new();
    };
    let route = exchange.route();
    if let Some(id) = route.and_then(|route| route.service_id.as_deref()) {
        entry.insert("service_id".to_owned(), json!(id));
    }
    let id = route.map_or("no-matched", |route| route.id.as_str());
    entry.insert("route_id".to_owned(), json!(id));
    entry
}

fn default_entry(x: &Exchange) -> Map<String, Value> {
    let scheme = if x.peer.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let shown = secrets::shown_query(x, x.received.uri.query().unwrap_or_default());
    let target = request_uri(x, Some(Cow::from(&*shown)));
    let host = x.header("host").unwrap_or_default();
    let total = x.took();
    let upstream: std::time::Duration = x.attempts.iter().filter_map(|a| a.total).sum();
    let query: Map<String, Value> = shown
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), json!(value)))
        .collect();
    let value = json!({
        "request": {
            "url": format!("{scheme}://{host}{target}"),
            "uri": target,
            "method": x.received.method.as_str(),
            "headers": headers(&x.request.headers),
            "querystring": query,
            "size": x.request_bytes(),
        },
        "response": {
            "status": x.response.status.map_or(499, |status| status.as_u16()),
            "headers": x.response.headers.as_deref().map(headers).unwrap_or_default(),
            "size": x.response.body_bytes,
        },
        "server": {
            "hostname": x.snapshot().settings.hostname,
            "version": env!("CARGO_PKG_VERSION"),
        },
        "upstream": x.attempts.last().map_or("", |attempt| &*attempt.address),
        "service_id": x.route().and_then(|route| route.service_id.clone()).unwrap_or_default(),
        "route_id": x.route().map_or("no-matched", |route| route.id.as_str()),
        "client_ip": x.peer.client.ip().to_string(),
        "start_time": x.started_unix_ms,
        "latency": ms(total),
        "upstream_latency": ms(upstream),
        "apisix_latency": ms(total.saturating_sub(upstream)),
    });
    let Value::Object(mut entry) = value else {
        return Map::new();
    };
    if let Some(consumer) = x.consumer() {
        entry.insert(
            "consumer".to_owned(),
            json!({ "username": consumer.username }),
        );
    }
    entry
}

/// `llm_summary`, `llm_request` and `llm_response_text`, as the AI plugin's `logging` says.
fn llm(entry: &mut Map<String, Value>, x: &Exchange) {
    let (Some(call), Some(protocol)) = (x.ai.as_ref(), x.llm.protocol) else {
        return;
    };
    let flag = |value: bool| if value { "true" } else { "false" };
    if call.target.logging.summaries {
        let usage = x.llm.usage.unwrap_or_default();
        let text = |name: &str| x.text(name).unwrap_or_default();
        entry.insert(
            "llm_summary".to_owned(),
            json!({
                "request_model": text("request_llm_model"),
                "model": text("llm_model"),
                "duration": x.llm.first_token_ms.unwrap_or(0),
                "prompt_tokens": usage.prompt,
                "completion_tokens": usage.completion,
                "total_tokens": usage.total,
                "upstream_response_time": x.llm.response_ms.unwrap_or(0),
                "stream": flag(x.llm.stream),
                "tool_count": call.sent().tool_count(),
                "has_tool_calls": flag(x.llm.has_tool_calls),
                "end_user_id": call.sent().end_user_id().unwrap_or_default(),
                "cache_read_input_tokens": usage.cache_read,
                "cache_creation_input_tokens": usage.cache_creation,
                "reasoning_tokens": usage.reasoning,
                "content_risk_level": "",
            }),
        );
    }
    if call.target.logging.payloads {
        let messages = call.body.raw_messages(protocol).map(read_json);
        entry.insert(
            "llm_request".to_owned(),
            json!({"messages": messages, "stream": x.llm.stream}),
        );
        let mut response = Map::new();
        if let Some(text) = &x.llm.text {
            response.insert("content".to_owned(), json!(text));
        }
        entry.insert("llm_response_text".to_owned(), Value::Object(response));
    }
}

/// A part of a client's body. It is JSON, but not all of that is something the library takes.
fn read_json(raw: &[u8]) -> Value {
    serde_json::from_slice(raw)
        .or_else(|_| serde_json::from_slice(&pointsman_ai::readable(raw)))
        .unwrap_or_default()
}

/// Headers by name, credentials starred out.
fn headers(headers: &HeaderMap) -> Map<String, Value> {
    headers
        .iter()
        .map(|(name, value)| {
            let shown = if secrets::is_secret_header(name.as_str(), value) {
                "***".into()
            } else {
                String::from_utf8_lossy(value.as_bytes())
            };
            (name.as_str().to_owned(), json!(shown))
        })
        .collect()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "microseconds of a request are far below 2^52"
)]
fn ms(duration: std::time::Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// Levels of a `log_format`.
const FORMAT_DEPTH_MAX: usize = 5;
