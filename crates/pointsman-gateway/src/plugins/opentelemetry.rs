//! `opentelemetry`: a span for each request, and the trace context that makes it part of a trace.
//!
//! The span begins with the request, and is sent to the collector of the plugin's metadata once the
//! response has ended. All routes share that collector's queue. Without metadata nothing happens. What
//! is not sampled is not sent, but its trace goes on, so that all parts of it are left out.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{no_rules, parse};
use crate::{
    config::{
        plugin_schema::{Faults, PluginSchema},
        resource::schema_of,
        snapshot::{seconds, whole_seconds},
    },
    exchange::{Exchange, OpenSpan},
    observe::{
        entry::{Wants, needs_size},
        otlp::{self, Attribute, Named, Span},
        secrets::{Starred, is_secret_header},
        trace::{Root, Sampler, TraceContext, trace_of_id},
    },
    plugin::{
        Flow, Phases, Plugin, Step,
        registry::{Building, PluginKind},
    },
    ports::{Batched, Batching, HttpWire, Join, Sink, SinkSpec, Wire},
    variables::reads_body,
    vars::{Lookup, VarValue},
};

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Conf {
    /// Which requests are recorded.
    sampler: SamplerConf,
    /// Variables that become attributes of their own names.
    #[schemars(inner(length(min = 1)))]
    additional_attributes: Vec<String>,
    /// Headers that become attributes; `x-*` stands for all that begin so.
    #[schemars(inner(length(min = 1)))]
    additional_header_prefix_attributes: Vec<String>,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct SamplerConf {
    /// How it is decided.
    name: SamplerName,
    /// What that needs.
    options: SamplerOptions,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum SamplerName {
    AlwaysOn,
    #[default]
    AlwaysOff,
    TraceIdRatio,
    ParentBase,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct SamplerOptions {
    /// For `trace_id_ratio`: this part of all traces.
    fraction: f64,
    /// For `parent_base`: how it is decided about requests that bring no trace.
    root: RootConf,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct RootConf {
    /// How it is decided.
    name: RootName,
    /// What that needs.
    options: RootOptions,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum RootName {
    AlwaysOn,
    #[default]
    AlwaysOff,
    TraceIdRatio,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct RootOptions {
    /// For `trace_id_ratio`: this part of all traces.
    fraction: f64,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Metadata {
    /// Where the ids of new traces come from.
    trace_id_source: IdSource,
    /// Attributes of all spans.
    resource: Map<String, Value>,
    /// Where spans go.
    collector: Collector,
    /// How they are gathered.
    batch_span_processor: Gathering,
    /// `$opentelemetry_context_traceparent`, `$opentelemetry_trace_id`, `$opentelemetry_span_id`.
    set_ngx_var: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum IdSource {
    #[default]
    Random,
    XRequestId,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Collector {
    /// `host:port`, with `https://` before it for TLS.
    address: String,
    /// Seconds for a delivery.
    request_timeout: u64,
    /// Further headers, such as for authentication.
    request_headers: Map<String, Value>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Gathering {
    /// No effect: what does not fit into the queue is dropped and counted.
    drop_on_queue_full: bool,
    /// Spans that may wait.
    #[schemars(range(min = 1))]
    max_queue_size: usize,
    /// Seconds that the oldest span waits at most.
    #[schemars(range(min = 0))]
    batch_timeout: f64,
    /// Seconds without a new span after which a batch goes.
    #[schemars(range(min = 0))]
    inactive_timeout: f64,
    /// Spans of a batch.
    #[schemars(range(min = 1))]
    max_export_batch_size: usize,
}

impl Default for Collector {
    fn default() -> Self {
        Self {
            address: "127.0.0.1:4318".to_owned(),
            request_timeout: 3,
            request_headers: Map::new(),
        }
    }
}

impl Default for Gathering {
    fn default() -> Self {
        Self {
            drop_on_queue_full: true,
            max_queue_size: 1024,
            batch_timeout: 5.0,
            inactive_timeout: 2.0,
            max_export_batch_size: 256,
        }
    }
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: NAME,
            priority: 12009,
            version: "0.1",
            schema: schema_of::<Conf>(),
            consumer_schema: None,
            metadata_schema: Some(schema_of::<Metadata>()),
            is_auth: false,
            check: no_rules,
        },
        build,
        checkers: None,
        identity_field: None,
    }
}

/// The plugin without metadata.
struct Off;

impl Plugin for Off {
    fn phases(&self) -> Phases {
        Phases::default()
    }
}

/// The plugin with it.
struct Tracer {
    sampler: Sampler,
    ids: IdSource,
    shows: bool,
    variables: Vec<String>,
    headers: Vec<String>,
    sink: Arc<dyn Sink>,
}

fn build(conf: &Value, building: &mut Building<'_>) -> Result<Arc<dyn Plugin>, Faults> {
    let conf: Conf = parse(conf)?;
    let Some(metadata) = building.metadata else {
        let line = "nothing is traced: the plugin needs `plugin_metadata`, which names a collector";
        building.warnings.push(line.to_owned());
        return Ok(Arc::new(Off));
    };
    let metadata: Metadata = parse(metadata)?;
    let headers = conf.additional_header_prefix_attributes.into_iter();
    Ok(Arc::new(Tracer {
        sampler: sampler(&conf.sampler),
        ids: metadata.trace_id_source,
        shows: metadata.set_ngx_var,
        variables: conf.additional_attributes,
        headers: headers.map(|name| name.to_ascii_lowercase()).collect(),
        sink: building.sinks.open(&sink(&metadata)?),
    }))
}

fn sampler(conf: &SamplerConf) -> Sampler {
    match conf.name {
        SamplerName::AlwaysOn => Sampler::Always(true),
        SamplerName::AlwaysOff => Sampler::Always(false),
        SamplerName::TraceIdRatio => Sampler::Ratio(conf.options.fraction),
        SamplerName::ParentBase => Sampler::ParentOr(match conf.options.root.name {
            RootName::AlwaysOn => Root::Always(true),
            RootName::AlwaysOff => Root::Always(false),
            RootName::TraceIdRatio => Root::Ratio(conf.options.root.options.fraction),
        }),
    }
}

/// The collector that all routes share.
fn sink(metadata: &Metadata) -> Result<SinkSpec, Faults> {
    let Metadata {
        collector,
        batch_span_processor: gathering,
        ..
    } = metadata;
    let base = match collector.address.contains("://") {
        true => collector.address.clone(),
        false => format!("http://{}", collector.address),
    };
    let headers = collector.request_headers.iter().map(|(name, value)| {
        let at = format!("metadata: collector.request_headers: `{name}` cannot be a header");
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        let is_fine = HeaderName::from_bytes(name.as_bytes()).is_ok();
        if is_fine && HeaderValue::from_str(&value).is_ok() {
            Ok((name.clone(), value))
        } else {
            Err(Faults::from(&*at))
        }
    });
    let wire = Wire::Http(HttpWire {
        uris: vec![format!("{}/v1/traces", base.trim_end_matches('/'))],
        content_type: "application/x-protobuf",
        headers: Faults::collect(headers)?,
        timeout: whole_seconds(collector.request_timeout),
        ssl_verify: true,
    });
    let batching = Batching {
        max_retry_count: RETRIES,
        retry_delay: whole_seconds(1),
        buffer_duration: seconds(gathering.batch_timeout),
        inactive_timeout: seconds(gathering.inactive_timeout),
        batch_max_size: gathering.max_export_batch_size,
        max_pending_entries: gathering.max_queue_size,
        pending_bytes_max: PENDING_BYTES_MAX,
        name: NAME.to_owned(),
        route_id: String::new(),
    };
    Ok(SinkSpec::Batched(Arc::new(Batched {
        batching,
        join: Join::Spans(otlp::resource(&resource(&metadata.resource))),
        wire,
    })))
}

/// What all spans of this gateway have in common.
fn resource(written: &Map<String, Value>) -> Vec<Named> {
    let mut attributes = Vec::new();
    if !written.contains_key("service.name") {
        attributes.push(named("service.name", "APISIX"));
    }
    for (name, value) in written {
        let value = match value {
            Value::String(text) => Attribute::Text(text.clone()),
            Value::Bool(flag) => Attribute::Flag(*flag),
            Value::Number(number) => Attribute::Number(number.as_f64().unwrap_or_default()),
            Value::Null | Value::Array(_) | Value::Object(_) => continue,
        };
        attributes.push((name.clone(), value));
    }
    attributes
}

impl Plugin for Tracer {
    fn phases(&self) -> Phases {
        Phases::REWRITE.and(Phases::LOG)
    }

    fn wants(&self) -> Wants {
        Wants {
            request_size: self.variables.iter().any(|name| needs_size(name)),
            ..Wants::default()
        }
    }

    fn reads_body(&self) -> Phases {
        Phases::LOG.when(self.variables.iter().any(|name| reads_body(name)))
    }

    fn rewrite<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        let parent = exchange
            .header(TRACEPARENT.as_str())
            .and_then(TraceContext::parse);
        let trace_id = match &parent {
            Some(parent) => parent.trace_id,
            None => self.new_trace(exchange),
        };
        let context = TraceContext {
            trace_id,
            span_id: random(),
            sampled: self.sampler.samples(&trace_id, parent.as_ref()),
        };
        let headers = &mut exchange.request.headers;
        if parent.is_none() {
            // It belongs to a trace that nobody can tell.
            headers.remove(&TRACESTATE);
        }
        headers.insert(TRACEPARENT.clone(), context.header());
        let span = OpenSpan {
            context,
            parent: parent.map(|parent| parent.span_id),
        };
        exchange.begin_span(span, self.shows);
        Step::Done(Flow::Continue)
    }

    fn log(&self, exchange: &Exchange) {
        let Some(open) = exchange.take_span().filter(|span| span.context.sampled) else {
            return;
        };
        let status = exchange
            .response
            .status
            .map_or(CLIENT_GONE, |status| status.as_u16());
        let error = (status >= 500).then(|| format!("response status: {status}"));
        let start = exchange.started_unix_ms.saturating_mul(1_000_000);
        let took = u64::try_from(exchange.took().as_nanos()).unwrap_or(u64::MAX);
        let mut attributes = attributes(exchange);
        attributes.push((
            "http.status_code".to_owned(),
            Attribute::Int(u64::from(status)),
        ));
        self.add_own(exchange, &mut attributes);
        let method = exchange.received.method.as_str();
        let name = match &exchange.matched {
            Some(matched) => format!("{method} {}", matched.uri),
            None => method.to_owned(),
        };
        let span = Span {
            trace_id: open.context.trace_id,
            span_id: open.context.span_id,
            parent: open.parent,
            state: exchange.header(TRACESTATE.as_str()).unwrap_or_default(),
            name: &name,
            start,
            end: start.saturating_add(took),
            attributes: &attributes,
            error: error.as_deref(),
        };
        self.sink.push(span.encode());
    }
}

impl Tracer {
    fn new_trace(&self, exchange: &Exchange) -> [u8; 16] {
        let id = match self.ids {
            IdSource::Random => None,
            IdSource::XRequestId => exchange
                .header("x-request-id")
                .and_then(trace_of_id)
                .or_else(|| trace_of_id(exchange.generated_id())),
        };
        id.unwrap_or_else(random)
    }

    /// The attributes that the configuration asks for.
    fn add_own(&self, exchange: &Exchange, attributes: &mut Vec<Named>) {
        for name in &self.variables {
            let text = match Starred(exchange).var(name) {
                Some(VarValue::Text(text)) => text.into_owned(),
                Some(VarValue::Json(Value::String(text))) => text,
                Some(VarValue::Json(value)) => value.to_string(),
                None => continue,
            };
            attributes.push((name.clone(), Attribute::Text(text)));
        }
        for (name, value) in &exchange.request.headers {
            let is_wanted = self.headers.iter().any(|wanted| {
                match wanted.strip_suffix('*').filter(|rest| !rest.is_empty()) {
                    Some(prefix) => name.as_str().starts_with(prefix),
                    None => name == wanted.as_str(),
                }
            });
            if is_wanted {
                let shown = if is_secret_header(name.as_str(), value) {
                    "***".into()
                } else {
                    String::from_utf8_lossy(value.as_bytes())
                };
                attributes.push(named(name.as_str(), shown));
            }
        }
    }
}

/// The attributes that every span has, as far as they have a value.
fn attributes(exchange: &Exchange) -> Vec<Named> {
    let text = |name: &str| match Starred(exchange).var(name)? {
        VarValue::Text(text) => Some(text.into_owned()),
        VarValue::Json(_) => None,
    };
    let agent = || text("http_user_agent");
    let method = || text("request_method");
    let attributes = [
        ("net.host.name", text("host")),
        ("http.method", method()),
        ("http.scheme", text("scheme")),
        ("http.target", text("request_uri")),
        ("http.user_agent", agent()),
        ("http.request.method", method()),
        ("url.scheme", text("scheme")),
        ("url.path", Some(exchange.inbound_path().into_owned())),
        ("user_agent.original", agent()),
        ("apisix.route_id", text("route_id")),
        ("apisix.route_name", text("route_name")),
        ("http.route", text("matched_uri")),
        ("apisix.service_id", text("service_id")),
        ("apisix.service_name", text("service_name")),
        (
            "apisix.response_source",
            Some(exchange.response_source().to_owned()),
        ),
    ];
    let attributes = attributes.into_iter();
    attributes
        .filter_map(|(name, value)| Some(named(name, value?)))
        .collect()
}

fn named(name: &str, value: impl Into<String>) -> Named {
    (name.to_owned(), Attribute::Text(value.into()))
}

/// Random bytes, not all of them zero.
fn random<const N: usize>() -> [u8; N]
where
    [u8; N]: rand::Fill,
{
    let mut bytes = [0; N];
    while bytes == [0; N] {
        rand::Rng::fill(&mut rand::rng(), &mut bytes);
    }
    bytes
}

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const NAME: &str = "opentelemetry";
/// Deliveries after the first.
const RETRIES: u32 = 2;
/// As many bytes of spans may wait.
const PENDING_BYTES_MAX: usize = 16 << 20;
/// nginx's status of a request whose client left before there was one.
const CLIENT_GONE: u16 = 499;
