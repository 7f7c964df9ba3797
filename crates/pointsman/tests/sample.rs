//! Traffic through the document that has every field.

mod support;

use std::collections::BTreeMap;

use support::{Answer, Gateway, Start, Upstream, request, upstream::chat_body};

const SAMPLE: &str = include_str!("sample/apisix.yaml");

/// The sample with every provider at `address`, where also its probes go.
fn at(address: std::net::SocketAddr) -> String {
    let endpoint = format!("endpoint: \"http://{address}\"");
    let beside = format!("override: {{ {endpoint}, ");
    let mut document = SAMPLE
        .replace("override: { llm_options", &format!("{beside}llm_options"))
        .replace(
            "override: { request_body: { anthropic",
            &format!("{beside}request_body: {{ anthropic"),
        )
        .replace("https://x.openai.azure.com", &format!("http://{address}"))
        .replace("http://[::1]:8000", &format!("http://{address}"))
        .replace("http://127.0.0.1:8001", &format!("http://{address}"))
        .replace("type: https", "type: http")
        .replace(
            "host: api.openai.com, port: 443",
            &format!("host: 127.0.0.1, port: {}", address.port()),
        )
        .replace("User-Agent: probe", "X-Probe: yes")
        .replace("127.0.0.1:9200", &address.to_string());
    for provider in ["deepseek", "aimlapi", "openrouter", "gemini"] {
        let start = format!("provider: {provider}, weight: 1, ");
        document = document.replace(&start, &format!("{start}override: {{ {endpoint} }}, "));
    }
    assert!(!document.contains("openai.com") && !document.contains("azure.com"));
    document
}

fn start(upstream: &Upstream) -> Gateway {
    let document = at(upstream.address);
    let gateway = Gateway::start_with(Start {
        document: &document,
        environment: &[("OPENAI", "Bearer sk-env")],
        ..Start::default()
    });
    gateway.wait_for_status(upstream.port(), "healthy");
    gateway
}

const KEY: [(&str, &str); 4] = [
    ("Content-Type", "application/json"),
    ("Host", "api.example.com"),
    ("Authorization", "alice-key"),
    ("X-Team", "red"),
];

#[test]
fn chats_go_to_the_first_priority_as_each_instance_wants_them() {
    let upstream = Upstream::start(|_| Answer::chat("a"));
    let gateway = start(&upstream);
    let body = r#"{"model":"gpt-4o","stop":["mine"],"messages":[{"role":"user","content":"Hi"}]}"#;
    for session in 0..60 {
        let session = session.to_string();
        let headers = [&KEY[..], &[("X-Session", &session)]].concat();
        let response = request(
            gateway.proxy,
            "POST",
            "/v1/chat/completions",
            &headers,
            body,
        );
        assert_eq!((response.status, response.text()), (200, chat_body("a")));
    }
    let mut by_path: BTreeMap<String, usize> = BTreeMap::new();
    for sent in upstream.requests() {
        if sent.target == "/logs" {
            continue;
        }
        *by_path.entry(sent.target.clone()).or_default() += 1;
        let got = sent.json();
        if sent.target.starts_with("/openai/") {
            assert_eq!(sent.header("api-key"), Some("k"));
            assert_eq!(got.get("model"), None);
        } else {
            assert_eq!(sent.header("authorization"), Some("Bearer sk-env"));
            assert_eq!(
                (
                    &got["model"],
                    &got["temperature"],
                    &got["max_completion_tokens"],
                    &got["seed"]
                ),
                (&"gpt-4o".into(), &0.2.into(), &512.into(), &7.into())
            );
            assert_eq!(got["stop"], serde_json::json!(["a", "b"]));
        }
        assert_eq!(sent.header("x-gateway"), Some("pointsman"));
        assert!(sent.header("x-trace").is_some_and(|id| id.len() == 27));
    }
    let paths: Vec<&str> = by_path.keys().map(String::as_str).collect();
    assert_eq!(
        paths,
        [
            "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21",
            "/v1/chat/completions?team=ai",
        ],
        "{by_path:?}"
    );
    assert!(by_path[paths[1]] > by_path[paths[0]], "{by_path:?}");
}

#[test]
fn failures_go_down_the_priorities_and_other_routes_work() {
    let upstream = Upstream::start(|received| match received.target.as_str() {
        path if path.starts_with("/v1/embeddings") => Answer::json(
            r#"{"object":"list","data":[],"usage":{"prompt_tokens":4,"total_tokens":4}}"#,
        ),
        path if path.contains("team=ai") || path.starts_with("/openai/") => {
            Answer::status(429, r#"{"error":{"message":"slow down"}}"#)
        }
        _ => Answer::chat("second"),
    });
    let gateway = start(&upstream);
    let body = r#"{"model":"gpt-4o","messages":[]}"#;
    let response = request(gateway.proxy, "POST", "/v1/chat/completions", &KEY, body);
    assert_eq!(
        (response.status, response.text()),
        (200, chat_body("second"))
    );
    let targets: Vec<String> = upstream
        .requests()
        .into_iter()
        .map(|received| received.target)
        .collect();
    assert_eq!(targets.len(), 3, "{targets:?}");
    assert!(
        targets[..2]
            .iter()
            .all(|path| path.contains("team=ai") || path.starts_with("/openai/"))
    );

    let headers = [
        ("Content-Type", "application/json"),
        ("Host", "s.example.com"),
    ];
    let response = request(
        gateway.proxy,
        "POST",
        "/v1/embeddings",
        &headers,
        r#"{"input":"x"}"#,
    );
    assert_eq!(response.status, 200);
    let sent = upstream.last();
    assert_eq!(sent.target, "/v1/embeddings?key=k");
    assert_eq!(sent.json()["model"], "e5");

    // Neither key nor team nor model: not this route's.
    let nobody = request(
        gateway.proxy,
        "POST",
        "/v1/chat/completions",
        &KEY[..2],
        "{}",
    );
    assert_eq!(nobody.status, 404);
    let no_key = [KEY[0], KEY[1], KEY[3]];
    let refused = request(gateway.proxy, "POST", "/v1/chat/completions", &no_key, body);
    assert_eq!(refused.status, 401);
}
