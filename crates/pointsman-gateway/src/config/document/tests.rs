use super::*;
use crate::plugin::registry::Registry;

fn parse(text: &str) -> (Document, Vec<String>) {
    let env = |name: &str| (name == "KEY").then(|| "5".to_owned());
    let parsed = Document::parse(
        &format!("{text}\n#END\n"),
        Format::Yaml,
        &env,
        &Registry::new(),
    )
    .expect("readable");
    let problems = parsed.problems.iter().map(ToString::to_string).collect();
    (parsed.document, problems)
}

fn check(text: &str, expected: &[&str]) {
    let (_, problems) = parse(text);
    assert_eq!(problems, expected, "{text}");
}

#[test]
fn a_minimal_file_loads() {
    let (document, problems) = parse(
        "routes:\n  - id: chat\n    uri: /v1/chat/completions\n    plugins:\n      key-auth: {}\n    \
         upstream:\n      nodes: { \"127.0.0.1:8080\": 1 }\n\
         consumers:\n  - username: alice\n    plugins:\n      key-auth: { key: \"${{KEY}}\" }\n",
    );
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(document.routes[0].key, "/routes/chat");
    let (name, written) = document.consumers[0].value.plugins.iter().next().unwrap();
    assert_eq!(
        (name, &written.value()["key"]),
        ("key-auth", &Value::from("5"))
    );
}

/// G-267: one invalid route falls out alone; every error of it is told, with its line.
#[test]
fn an_invalid_item_is_reported_whole_and_dropped_alone() {
    let (document, problems) = parse(
        "routes:\n  - id: bad\n    uri: 5\n    priority: x\n    nonsense: 1\n  - id: good\n    uri: /a\n    upstream: {nodes: {\"a:1\": 1}}\n",
    );
    assert_eq!(document.routes.len(), 1);
    assert_eq!(
        problems,
        [
            "line 3: routes[0] (id bad) uri: property \"uri\" validation failed: wrong type: expected string, got number",
            "line 4: routes[0] (id bad) priority: property \"priority\" validation failed: wrong type: expected integer, got string",
            "line 5: routes[0] (id bad) nonsense: additional properties forbidden, found nonsense",
        ]
    );
}

/// G-104, G-273: an unknown plugin takes its route out.
#[test]
fn unknown_plugins_are_named() {
    check(
        "routes:\n  - id: r\n    uri: /a\n    plugins: {nope: {}}",
        &["line 4: routes[0] (id r) plugins.nope: unknown plugin [nope]"],
    );
}

/// B-002, B-006, B-007, B-008, B-009, P-015 to P-019
#[test]
fn ai_plugins_are_checked_by_their_schema() {
    let multi = |more: &str| {
        format!(
            "routes:\n  - id: r\n    uri: /a\n    plugins:\n      ai-proxy-multi:\n        \
             instances: [{{name: a, provider: openai, weight: 1, auth: {{}}}}]\n        {more}"
        )
    };
    let prefix = "failed to check the configuration of plugin ai-proxy-multi err: ";
    let fails = |more: &str, message: &str| {
        let (document, problems) = parse(&multi(more));
        assert!(document.routes.is_empty(), "{more}");
        assert!(
            problems
                .iter()
                .any(|p| p.contains(prefix) && p.contains(message)),
            "{problems:?}"
        );
    };
    check(&multi("timeout: 5"), &[]);
    check(&multi("streaming_flush_interval_ms: 0"), &[]);
    check(&multi("fallback_strategy: http_429"), &[]);
    check(&multi("fallback_strategy: [rate_limiting, http_5xx]"), &[]);
    check(&multi("fallback_strategy: []"), &[]);
    check(&multi("some_unknown_field: 1"), &[]);
    fails(
        "fallback_strategy: rate_limiting",
        "matches none of the enum values",
    );
    fails(
        "fallback_http_statuses: [200]",
        "expected 200 to be at least 400",
    );
    fails(
        "max_stream_duration_ms: 0",
        "property \"max_stream_duration_ms\" validation failed",
    );
    fails(
        "streaming_flush_interval_ms: -1",
        "expected -1 to be at least 0",
    );
    let instance = |more: &str| {
        format!(
            "routes:\n  - id: r\n    uri: /a\n    plugins: {{ai-proxy-multi: {{instances: [{{name: a, \
             provider: openai, weight: 1, auth: {{}}, {more}}}]}}}}"
        )
    };
    let fails = |more: &str, message: &str| {
        let (_, problems) = parse(&instance(more));
        assert!(
            problems.iter().any(|problem| problem.contains(message)),
            "{problems:?}"
        );
    };
    fails(
        "override: {llm_options: {temperature: 1}}",
        "additional properties forbidden, found temperature",
    );
    fails(
        "override: {request_body: {not-a-protocol: {}}}",
        "additional properties forbidden",
    );
    // B-010
    fails("checks: {active: {port: 0}}", "expected 0 to be at least 1");
    fails(
        "checks: {active: {port: 65536}}",
        "expected 65536 to be at most 65535",
    );
    let (_, problems) = parse(
        "routes:\n  - id: r\n    uri: /a\n    plugins: {ai-proxy: {provider: some-unique, auth: {}}}",
    );
    assert!(
        problems[0]
            .contains("property \"provider\" validation failed: matches none of the enum values")
    );
}

/// Bounds are told with the path of the value, whatever the type behind it holds; names that carry
/// credentials and lines that become part of a probe are checked (D-14, 1.6).
#[test]
fn values_out_of_bounds_are_told_by_their_path() {
    let instance = |more: &str| {
        format!(
            "routes:\n  - id: r\n    uri: /a\n    plugins: {{ai-proxy-multi: {{instances: [{{name: a, \
             provider: openai, {more}}}]}}}}"
        )
    };
    let nodes = |nodes: &str| format!("upstreams:\n  - {{id: 1, nodes: {nodes}}}");
    let one = |text: &str, path: &str, message: &str| {
        let (_, problems) = parse(text);
        assert!(
            problems.len() == 1 && problems[0].contains(path) && problems[0].contains(message),
            "{text}\n{problems:?}"
        );
    };
    let wrong = |more: &str, path: &str, message: &str| {
        let path = format!("plugins.ai-proxy-multi.instances[0].{path}");
        one(&instance(more), &path, message);
    };
    wrong(
        "weight: 5000000000, auth: {}",
        "weight",
        "at most 4294967295",
    );
    let priority = "weight: 1, auth: {}, priority: 3000000000";
    wrong(priority, "priority", "at most 2147483647");
    let pattern = "failed to match pattern";
    wrong(
        "weight: 1, auth: {header: {\"a b\": x}}",
        "auth.header",
        pattern,
    );
    wrong(
        "weight: 1, auth: {query: {\"a&b\": x}}",
        "auth.query",
        pattern,
    );
    one(
        &nodes("{\"a:1\": 5000000000}"),
        "nodes.a:1",
        "at most 4294967295",
    );
    let list = nodes("[{host: a, weight: 5000000000}]");
    one(&list, "nodes[0].weight", "at most 4294967295");
    let active = |active: &str| format!("weight: 1, auth: {{}}, checks: {{active: {{{active}}}}}");
    for (text, path, message) in [
        (
            "concurrency: 5000000000",
            "concurrency",
            "at most 4294967295",
        ),
        ("http_path: \"/a\\r\\nX: y\"", "http_path", pattern),
        ("http_path: \"/a b\"", "http_path", pattern),
        ("req_headers: [\"no colon\"]", "req_headers[0]", pattern),
        (
            "req_headers: [\"A: b\\r\\nC: d\"]",
            "req_headers[0]",
            pattern,
        ),
        ("req_headers: [\"A B: c\"]", "req_headers[0]", pattern),
    ] {
        wrong(&active(text), &format!("checks.active.{path}"), message);
    }
    let fine = "http_path: \"/a?b=c%20\", req_headers: [\"A: b c\", \"X-Y:\"]";
    check(&instance(&active(fine)), &[]);
    check(
        &instance("weight: 4294967295, auth: {query: {api-key: x}}"),
        &[],
    );
}

/// 1.8, B-018, B-019: what `semantic_opts` says is checked under every algorithm.
#[test]
fn semantic_options_are_checked() {
    let conf = |algorithm: &str, options: &str, more: &str| {
        format!(
            "routes:\n  - id: r\n    uri: /a\n    plugins: {{ai-proxy-multi: {{instances: [{{name: a, \
             provider: openai, weight: 1, auth: {{}}, examples: [x]}}, {{name: b, provider: openai, \
             weight: 1, auth: {{}}{more}}}], balancer: {{algorithm: {algorithm}}}, \
             semantic_opts: {{{options}}}}}}}"
        )
    };
    let good = "embeddings: {provider: openai, model: m, auth: {}}";
    check(&conf("roundrobin", good, ""), &[]);
    for (algorithm, options, part) in [
        (
            "roundrobin",
            "threshold: 0.5",
            "property \"embeddings\" is required",
        ),
        (
            "roundrobin",
            &format!("{good}, threshold: 5"),
            "expected 5 to be at most 1",
        ),
        (
            "roundrobin",
            &good.replace("openai", "gemini"),
            "matches none of the enum values",
        ),
        (
            "roundrobin",
            &format!("{good}, fallback: \"\""),
            "string too short",
        ),
        (
            "semantic",
            &good.replace(", model: m", ""),
            "property \"model\" is required",
        ),
        ("semantic", &good.replace("{}", "{gcp: {}}"), "found gcp"),
        // B-019: the fallback is not excepted.
        (
            "semantic",
            &format!("{good}, fallback: b"),
            "instance 'b': must configure non-empty examples",
        ),
    ] {
        let (document, problems) = parse(&conf(algorithm, options, ""));
        assert!(document.routes.is_empty());
        assert!(
            problems.iter().any(|p| p.contains(part)),
            "{part}: {problems:?}"
        );
    }
}

/// B-011, B-012, G-079
#[test]
fn upstreams_are_checked() {
    let (_, problems) =
        parse("upstreams:\n  - id: 1\n    nodes: {\"a:1\": 1}\n    checks: {passive: {}}");
    assert!(
        problems[0].contains(
            "object matches none of the required: [\"active\"] or [\"active\",\"passive\"]"
        ),
        "{problems:?}"
    );
    let (_, problems) = parse(
        "upstreams:\n  - id: 1\n    nodes: {\"a:1\": 1}\n    service_name: x\n    discovery_type: dns",
    );
    assert!(
        problems
            .iter()
            .any(|p| p.contains("matches both schemas 1 and 2")),
        "{problems:?}"
    );
    // G-060, G-065
    let (_, problems) = parse("upstreams:\n  - id: 1\n    type: chash\n    nodes: {\"a:1\": 1}");
    assert!(problems[0].contains("missing key"), "{problems:?}");
    let (_, problems) =
        parse("upstreams:\n  - id: 1\n    pass_host: rewrite\n    nodes: {\"a:1\": 1}");
    assert!(problems[0].contains("`upstream_host` can't be empty when `pass_host` is `rewrite`"));
}

/// G-044
#[test]
fn exclusive_fields() {
    let (_, problems) =
        parse("routes:\n  - {id: r, uri: /a, host: a.com, hosts: [b.com], upstream_id: 1}");
    assert!(
        problems[0].contains("only one of host or hosts is allowed"),
        "{problems:?}"
    );
    let (_, problems) = parse("routes:\n  - {id: r, uri: /a, uris: [/b], upstream_id: 1}");
    assert!(
        problems[0].contains("matches both schemas 1 and 2"),
        "{problems:?}"
    );
    let (_, problems) = parse("routes:\n  - {id: r, uri: /a}");
    assert!(
        problems[0].contains("object matches none of the required"),
        "{problems:?}"
    );
}

/// G-271
#[test]
fn a_later_item_wins() {
    let (document, problems) = parse(
        "routes:\n  - {id: r, uri: /a, upstream_id: 1}\n  - {id: r, uri: /b, upstream_id: 1}",
    );
    assert_eq!(document.routes.len(), 1);
    assert_eq!(document.routes[0].value.uris(), ["/b"]);
    assert!(problems[0].contains("the id is used twice"));
}

/// G-272, G-232
#[test]
fn credentials_stand_among_the_consumers() {
    let (document, problems) = parse(
        "consumers:\n  - username: a\n  - id: a/credentials/c1\n    plugins: {key-auth: {key: k}}\n  \
         - id: a/credentials/c2\n    plugins: {cors: {}}\n",
    );
    assert_eq!(document.credentials.len(), 1);
    assert_eq!(document.credentials[0].value.credential_id, "c1");
    assert!(
        problems[0].contains("only supports auth type plugins"),
        "{problems:?}"
    );
}

/// G-105
#[test]
fn a_disabled_plugin_may_be_invalid() {
    let (document, problems) =
        parse("routes:\n  - id: r\n    uri: /a\n    plugins: {ai-proxy: {_meta: {disable: true}}}");
    assert_eq!(document.routes.len(), 1);
    assert!(!problems.is_empty());
}

/// G-264, G-269, G-270
#[test]
fn whole_files_are_refused() {
    let env = |_: &str| None;
    let registry = Registry::new();
    let parse = |text: &str, format| Document::parse(text, format, &env, &registry);
    assert_eq!(
        parse("routes: []\n", Format::Yaml).expect_err("no marker"),
        DocumentError::Unfinished
    );
    assert!(parse("routes: [\n#END", Format::Yaml).is_err());
    assert!(
        parse("a: ${{NOPE}}\n#END", Format::Yaml)
            .expect_err("not set")
            .to_string()
            .contains("line 1: environment variable NOPE")
    );
    assert!(parse("[]\n#END", Format::Yaml).is_err());
    assert!(parse("{\"routes\": []}", Format::Json).is_ok());
    assert!(parse("{\"routes\": [}", Format::Json).is_err());
}

/// Whatever is wrong with an item is told at once: its schema, its `vars`, the rules of its
/// plugins and of its upstream, each with its line.
#[test]
fn rules_are_told_with_everything_else() {
    let text = r#"routes:
  - id: r
    uri: /a
    vars: [[arg_a, nope, 1]]
    priority: high
    remote_addrs:
      - 10.0.0.1
      - nowhere
    plugins:
      cors:
        max_age: long
      proxy-rewrite:
        regex_uri: ["(", x]
        headers:
          "a b": x
      ai-proxy-multi:
        instances:
          - {name: a, provider: openai, weight: 1, auth: {}}
          - {name: a, provider: bedrock, weight: 1, auth: {}}
          - {name: b, provider: openai, weight: much, auth: {}}
        balancer:
          algorithm: chash
    upstream:
      scheme: udp
      nodes:
        "::1:80": 1"#;
    let (_, problems) = parse(text);
    let expected = [
        "line 5: routes[0] (id r) priority: ",
        "line 11: routes[0] (id r) plugins.cors.max_age: ",
        "line 13: routes[0] (id r) plugins.proxy-rewrite.regex_uri[0]: ",
        "line 15: routes[0] (id r) plugins.proxy-rewrite.headers.a b: ",
        "line 20: routes[0] (id r) plugins.ai-proxy-multi.instances[2].weight: ",
        "line 19: routes[0] (id r) plugins.ai-proxy-multi.instances[1].name: ",
        "line 19: routes[0] (id r) plugins.ai-proxy-multi.instances[1].provider_conf.region: ",
        "line 19: routes[0] (id r) plugins.ai-proxy-multi.instances[1].auth.aws: ",
        "line 21: routes[0] (id r) plugins.ai-proxy-multi.balancer.key: ",
        "line 8: routes[0] (id r) remote_addrs[1]: invalid ip address: nowhere",
        "line 4: routes[0] (id r) vars: failed to validate the 'vars' expression: invalid operator 'nope'",
        "line 24: routes[0] (id r) upstream.scheme: scheme udp is not supported (http, https)",
        "line 26: routes[0] (id r) upstream.nodes.::1:80: IPv6 address must be enclosed with '[' and ']'",
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, start) in problems.iter().zip(expected) {
        assert!(problem.starts_with(start), "{problem} is not {start}");
    }
}

/// YAML 1.1's booleans are text: that is said where a boolean is expected, and nowhere else.
#[test]
fn old_booleans_are_explained() {
    check(
        "routes:\n- {id: r, uri: /a, enable_websocket: yes, desc: no, upstream_id: 1}\n\
         - {id: s, uri: /a, plugins: {key-auth: {hide_credentials: Off, realm: on}}}",
        &[
            "line 2: routes[0] (id r) enable_websocket: property \"enable_websocket\" validation failed: \
             wrong type: expected boolean, got string (\"yes\" is text; write true)",
            "line 3: routes[1] (id s) plugins.key-auth.hide_credentials: failed to check the \
             configuration of plugin key-auth err: property \"hide_credentials\" validation failed: \
             wrong type: expected boolean, got string (\"Off\" is text; write false)",
        ],
    );
}
