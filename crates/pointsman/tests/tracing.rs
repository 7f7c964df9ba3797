//! `opentelemetry`: what a collector of traces gets, and what targets are told of them.

mod support;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use support::{Answer, Gateway, Upstream, get, wait_until};

/// A span, read from protobuf by the numbers of `opentelemetry/proto/trace/v1/trace.proto`.
#[derive(Debug)]
struct Span {
    trace: String,
    id: String,
    parent: String,
    state: String,
    name: String,
    kind: u64,
    took_ns: u64,
    attributes: BTreeMap<String, Value>,
    status: u64,
}

/// An export: the attributes of its resource, and its spans.
#[derive(Debug)]
struct Export {
    resource: BTreeMap<String, Value>,
    spans: Vec<Span>,
}

enum Field<'m> {
    Number(u64),
    Bytes(&'m [u8]),
}

/// The fields of a message, by number.
fn fields(mut message: &[u8]) -> Vec<(u64, Field<'_>)> {
    fn varint(message: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = message.split_first().expect("another byte");
            *message = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return value;
            }
        }
        panic!("a number without an end")
    }
    let mut found = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        let length = match tag & 7 {
            0 => {
                found.push((tag >> 3, Field::Number(varint(&mut message))));
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut message)).expect("a length"),
            5 => 4,
            other => panic!("a field of kind {other}"),
        };
        let (bytes, rest) = message.split_at(length);
        message = rest;
        let field = if tag & 7 == 2 {
            Field::Bytes(bytes)
        } else {
            let mut number = [0; 8];
            number[..length].copy_from_slice(bytes);
            Field::Number(u64::from_le_bytes(number))
        };
        found.push((tag >> 3, field));
    }
    found
}

fn parts(message: &[u8], number: u64) -> Vec<&[u8]> {
    let part = |(found, field)| match field {
        Field::Bytes(bytes) if found == number => Some(bytes),
        _ => None,
    };
    fields(message).into_iter().filter_map(part).collect()
}

fn number(message: &[u8], number: u64) -> u64 {
    let value = |(found, field)| match field {
        Field::Number(value) if found == number => Some(value),
        _ => None,
    };
    fields(message).into_iter().find_map(value).unwrap_or(0)
}

fn text(message: &[u8], number: u64) -> String {
    let found = parts(message, number).first().copied().unwrap_or_default();
    String::from_utf8(found.to_vec()).expect("UTF-8")
}

fn digits(message: &[u8], number: u64) -> String {
    let found = parts(message, number).first().copied().unwrap_or_default();
    found.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attributes(message: &[u8], number: u64) -> BTreeMap<String, Value> {
    let value = |any: &[u8]| match fields(any).pop().expect("a value") {
        (1, Field::Bytes(text)) => json!(String::from_utf8_lossy(text)),
        (2, Field::Number(flag)) => json!(flag == 1),
        (3, Field::Number(number)) => json!(number),
        (4, Field::Number(bits)) => json!(f64::from_bits(bits)),
        (other, _) => panic!("a value of kind {other}"),
    };
    parts(message, number)
        .into_iter()
        .map(|pair| (text(pair, 1), value(parts(pair, 2)[0])))
        .collect()
}

impl Span {
    fn read(message: &[u8]) -> Self {
        assert_eq!(number(message, 16) & 1, 1, "sampled");
        Self {
            trace: digits(message, 1),
            id: digits(message, 2),
            parent: digits(message, 4),
            state: text(message, 3),
            name: text(message, 5),
            kind: number(message, 6),
            took_ns: number(message, 8) - number(message, 7),
            attributes: attributes(message, 9),
            status: parts(message, 15).first().map_or(0, |s| number(s, 3)),
        }
    }
}

impl Export {
    /// The only export that `collector` has got.
    fn only(collector: &Upstream) -> Self {
        let request = wait_until("an export", || {
            (collector.hits() > 0).then(|| collector.last())
        });
        assert_eq!(collector.hits(), 1);
        assert_eq!((&*request.method, &*request.target), ("POST", "/v1/traces"));
        let kind = request.header("content-type");
        assert_eq!(kind, Some("application/x-protobuf"));
        assert_eq!(request.header("x-tenant"), Some("7"));
        let resources = parts(&request.body, 1);
        assert_eq!(resources.len(), 1);
        let scopes = parts(resources[0], 2);
        assert_eq!(scopes.len(), 1);
        assert_eq!(text(parts(scopes[0], 1)[0], 1), "pointsman");
        let spans = parts(scopes[0], 2);
        Self {
            resource: attributes(parts(resources[0], 1)[0], 1),
            spans: spans.into_iter().map(Span::read).collect(),
        }
    }
}

fn collector() -> Upstream {
    Upstream::start(|_| Answer::text(200, ""))
}

/// Metadata that sends `size` spans at a time to `collector`.
fn metadata(collector: &Upstream, size: usize, more: &str) -> String {
    format!(
        "plugin_metadata:\n- id: opentelemetry\n  collector: {{address: \"{}\", request_headers: {{X-Tenant: 7}}}}\n  \
         batch_span_processor: {{max_export_batch_size: {size}, batch_timeout: 600, inactive_timeout: 600}}\n  \
         resource: {{service.name: edge, shard: 2, canary: true}}\n{more}",
        collector.address
    )
}

/// A route `/hello/*` called `r` with `conf` for its plugin, and `more` beside it.
fn traced(upstream: &Upstream, conf: &str, more: &str) -> String {
    format!(
        "services:\n- {{id: s, name: greetings, upstream: {{nodes: {{\"{}\": 1}}}}}}\n\
         routes:\n- id: r\n  name: hello\n  uri: /hello/*\n  service_id: s\n  plugins: {{opentelemetry: {conf}}}\n{more}",
        upstream.address
    )
}

const ALWAYS: &str = "{sampler: {name: always_on}}";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// G-208: the span and its attributes; the target sees the same trace.
#[test]
fn a_request_becomes_a_span() {
    let (upstream, collector) = (Upstream::named("a"), collector());
    let conf = "{sampler: {name: always_on}, additional_attributes: [arg_a, consumer_name], \
                additional_header_prefix_attributes: [x-me-*, user-agent, '*']}";
    let document = traced(&upstream, conf, &metadata(&collector, 1, ""));
    let gateway = Gateway::start(&document);
    let headers = [
        ("Host", "api.test:80"),
        ("User-Agent", "curl"),
        ("X-Me-A", "1"),
        ("X-Other", "2"),
        ("Traceparent", "nonsense"),
        ("Tracestate", "of=nobody"),
    ];
    assert_eq!(get(gateway.proxy, "/hello/you?a=b", &headers).status, 200);
    let Export { resource, spans } = Export::only(&collector);
    let expected = json!({"service.name": "edge", "shard": 2.0, "canary": true});
    assert_eq!(json!(resource), expected);
    assert_eq!(spans.len(), 1);
    let span = &spans[0];
    assert_eq!((&*span.name, span.kind), ("GET /hello/*", 2));
    assert_eq!((&*span.parent, &*span.state, span.status), ("", "", 0));
    assert!(span.took_ns > 0);
    let expected = json!({
        "net.host.name": "api.test",
        "http.method": "GET",
        "http.scheme": "http",
        "http.target": "/hello/you?a=b",
        "http.user_agent": "curl",
        "http.request.method": "GET",
        "url.scheme": "http",
        "url.path": "/hello/you",
        "user_agent.original": "curl",
        "apisix.route_id": "r",
        "apisix.route_name": "hello",
        "http.route": "/hello/*",
        "apisix.service_id": "s",
        "apisix.service_name": "greetings",
        "apisix.response_source": "upstream",
        "http.status_code": 200,
        "arg_a": "b",
        "x-me-a": "1",
        "user-agent": "curl",
    });
    assert_eq!(json!(span.attributes), expected);
    let seen = upstream.last();
    let parent = format!("00-{}-{}-01", span.trace, span.id);
    assert_eq!(seen.header("traceparent"), Some(&*parent));
    assert_eq!(seen.header("tracestate"), None);
}

/// A trace that comes in goes on, and what began it decides with `parent_base`; a failure is an error.
#[test]
fn a_trace_goes_on() {
    let upstream = Upstream::start(|_| Answer::text(503, ""));
    let collector = collector();
    let conf = "{sampler: {name: parent_base}}";
    let document = traced(&upstream, conf, &metadata(&collector, 1, ""));
    let gateway = Gateway::start(&document);
    let send = |flags: &str| {
        let parent = format!("00-{TRACE}-{PARENT}-{flags}");
        let headers = [("traceparent", &*parent), ("tracestate", "a=b")];
        assert_eq!(get(gateway.proxy, "/hello/you", &headers).status, 503);
        upstream.last()
    };
    let seen = send("00");
    let sent = seen.header("traceparent").expect("a trace").to_owned();
    assert!(sent.starts_with(&format!("00-{TRACE}-")) && sent.ends_with("-00"));
    assert!(!sent.contains(PARENT), "{sent}");
    let seen = send("01");
    let Export { spans, .. } = Export::only(&collector);
    let span = &spans[0];
    assert_eq!((&*span.trace, &*span.parent), (TRACE, PARENT));
    assert_eq!((&*span.state, span.status), ("a=b", 2));
    let sent = format!("00-{TRACE}-{}-01", span.id);
    assert_eq!(seen.header("traceparent"), Some(&*sent));
    assert_eq!(seen.header("tracestate"), Some("a=b"));
}

/// The span of a global rule is the parent of the route's, and each ends with its own attributes.
#[test]
fn a_global_rule_and_a_route_have_a_span_each() {
    let (upstream, collector) = (Upstream::named("a"), collector());
    let rule = "global_rules:\n- id: g\n  plugins: {opentelemetry: {sampler: {name: always_on}, additional_attributes: [uri]}}\n";
    let document = traced(&upstream, ALWAYS, &metadata(&collector, 2, rule));
    let gateway = Gateway::start(&document);
    get(gateway.proxy, "/hello/you", &[]);
    let spans = Export::only(&collector).spans;
    assert_eq!(spans.len(), 2);
    let (global, route) = (&spans[0], &spans[1]);
    assert!(global.attributes.contains_key("uri") && !route.attributes.contains_key("uri"));
    assert_eq!(global.trace, route.trace);
    assert_eq!((&*global.parent, &route.parent), ("", &global.id));
}

/// G-207, G-209: without metadata nothing happens, and by default nothing is exported.
#[test]
fn nothing_is_exported_unless_it_is_asked_for() {
    let (upstream, collector) = (Upstream::named("a"), collector());
    let gateway = Gateway::start(&traced(&upstream, ALWAYS, ""));
    gateway.wait_for_line("nothing is traced");
    assert_eq!(get(gateway.proxy, "/hello/you", &[]).status, 200);
    assert_eq!(upstream.last().header("traceparent"), None);
    gateway.reload(&traced(&upstream, "{}", &metadata(&collector, 1, "")));
    assert_eq!(get(gateway.proxy, "/hello/you", &[]).status, 200);
    let sent = upstream.last().header("traceparent").map(str::to_owned);
    assert!(sent.expect("a trace").ends_with("-00"));
    // What goes out next is the first.
    gateway.reload(&traced(&upstream, ALWAYS, &metadata(&collector, 1, "")));
    assert_eq!(get(gateway.proxy, "/hello/me", &[]).status, 200);
    let spans = Export::only(&collector).spans;
    assert_eq!(spans[0].attributes["url.path"], "/hello/me");
}

/// Loggers may tell of a trace whose id comes from the request's.
#[test]
fn logs_may_name_the_trace() {
    let (upstream, collector) = (Upstream::named("a"), collector());
    let logs = Upstream::start(|_| Answer::text(200, ""));
    let conf = format!(
        "{{}}, http-logger: {{uri: \"http://{}\", batch_max_size: 1, log_format: {{t: $opentelemetry_trace_id, s: $opentelemetry_span_id, p: $opentelemetry_context_traceparent}}}}",
        logs.address
    );
    let more = "  set_ngx_var: true\n  trace_id_source: x-request-id\n";
    let document = traced(&upstream, &conf, &metadata(&collector, 1, more));
    let gateway = Gateway::start(&document);
    let id = "4bf92f35-77b3-4da6-a3ce-929d0e0e4736";
    get(gateway.proxy, "/hello/you", &[("X-Request-Id", id)]);
    let entry = wait_until("an entry", || (logs.hits() == 1).then(|| logs.last()));
    let entry = entry.json();
    assert_eq!(entry["t"], TRACE);
    let span = entry["s"].as_str().expect("a span");
    assert_eq!(span.len(), 16);
    assert_eq!(entry["p"], format!("00-{TRACE}-{span}-00"));
    let sent = upstream.last();
    assert_eq!(sent.header("traceparent"), entry["p"].as_str());
}
