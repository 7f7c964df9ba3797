//! Unmodified official clients against the gateway: Python `openai`, `anthropic` and `cohere`, npm
//! `openai`.
//!
//! The test installs them itself, into the target folder. Without an interpreter or a registry it
//! says so loudly and passes, except under CI, where nothing is skipped.

#[path = "sdk/passed.rs"]
mod passed;
mod support;

use std::{process::Command, time::Duration};

use support::{
    Answer, Gateway, Received, Upstream,
    packages::{node, python, run, unavailable},
};

const PYTHON_PACKAGES: &[&str] = &["openai==3.57.0", "anthropic==2.13.0"];
const NODE_PACKAGES: &[&str] = &["openai@7.57.0"];

fn scripted(received: &Received) -> Answer {
    let body: serde_json::Value = serde_json::from_slice(&received.body).unwrap_or_default();
    let model = body["model"].as_str().unwrap_or_default().to_owned();
    let streams = body["stream"] == true;
    if let Some(status) = model.strip_prefix("status-") {
        let status = status.parse().expect("a status");
        let error = r#"{"type":"error","error":{"message":"scripted","type":"scripted_error","code":null,"param":null}}"#;
        return Answer::status(status, error);
    }
    if model == "broken" {
        let first = b"data: {\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"He\"}}]}\n\n";
        return Answer::Stream {
            pieces: vec![first.to_vec()],
            pause: Duration::ZERO,
            ends: false,
        };
    }
    match (received.target.as_str(), streams) {
        ("/v1/chat/completions", true) => Answer::events(&[
            &chunk(r#"{"role":"assistant","content":""}"#, "null", ""),
            &chunk(r#"{"content":"Hello "}"#, "null", ""),
            &chunk(r#"{"content":"there"}"#, "null", ""),
            &chunk("{}", "\"stop\"", ""),
            &format!(
                "data: {{\"id\":\"1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[],{USAGE}}}"
            ),
            "data: [DONE]",
        ]),
        ("/v1/chat/completions", false) if model == "tools" => Answer::json(&format!(
            r#"{{"id":"1","object":"chat.completion","created":1,"model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":null,"tool_calls":[{{"id":"c","type":"function","function":{{"name":"weather","arguments":"{{\"city\":\"Oslo\"}}"}}}}]}},"finish_reason":"tool_calls"}}],{USAGE}}}"#
        )),
        ("/v1/chat/completions", false) => Answer::json(&format!(
            r#"{{"id":"1","object":"chat.completion","created":1,"model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":"Hello there"}},"finish_reason":"stop"}}],{USAGE}}}"#
        )),
        ("/v1/embeddings", _) => Answer::json(
            r#"{"object":"list","model":"e","data":[{"object":"embedding","index":0,"embedding":[1.0,0.0]},{"object":"embedding","index":1,"embedding":[0.5,-0.25]}],"usage":{"prompt_tokens":2,"total_tokens":2}}"#,
        ),
        ("/v1/responses", true) => Answer::events(&[
            &format!(
                "event: response.created\ndata: {{\"type\":\"response.created\",\"sequence_number\":0,\"response\":{}}}",
                responses("in_progress", "[]")
            ),
            "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"sequence_number\":1,\"item_id\":\"i\",\"output_index\":0,\"content_index\":0,\"delta\":\"Hello \",\"logprobs\":[]}",
            "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"sequence_number\":2,\"item_id\":\"i\",\"output_index\":0,\"content_index\":0,\"delta\":\"there\",\"logprobs\":[]}",
            &format!(
                "event: response.completed\ndata: {{\"type\":\"response.completed\",\"sequence_number\":3,\"response\":{}}}",
                responses("completed", OUTPUT)
            ),
        ]),
        ("/v1/responses", false) => Answer::json(&responses("completed", OUTPUT)),
        ("/v1/messages", true) => Answer::events(&[
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"c\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{\"input_tokens\":9,\"output_tokens\":1}}}",
            "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}",
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello \"}}",
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"there\"}}",
            "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}",
            "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":3}}",
            "event: message_stop\ndata: {\"type\":\"message_stop\"}",
        ]),
        ("/v1/messages", false) => Answer::json(
            r#"{"id":"m","type":"message","role":"assistant","model":"c","content":[{"type":"text","text":"Hello there"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":9,"output_tokens":3}}"#,
        ),
        (other, _) => Answer::status(
            404,
            &format!("{{\"error\":{{\"message\":\"no script for {other}\"}}}}"),
        ),
    }
}

const USAGE: &str = r#""usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}"#;
const OUTPUT: &str = r#"[{"id":"i","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"Hello there","annotations":[]}]}]"#;

fn chunk(delta: &str, finish: &str, more: &str) -> String {
    format!(
        r#"data: {{"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{{"index":0,"delta":{delta},"finish_reason":{finish}}}]{more}}}"#
    )
}

fn responses(status: &str, output: &str) -> String {
    format!(
        r#"{{"id":"r","object":"response","created_at":1,"status":"{status}","model":"m","output":{output},"parallel_tool_calls":true,"tool_choice":"auto","tools":[],"error":null,"incomplete_details":null,"instructions":null,"metadata":{{}},"temperature":1.0,"top_p":1.0,"usage":{{"input_tokens":9,"input_tokens_details":{{"cached_tokens":0}},"output_tokens":3,"output_tokens_details":{{"reasoning_tokens":0}},"total_tokens":12}}}}"#
    )
}

/// A gateway as a team would use it: keys, three instances, one of them dead.
fn gateway(upstream: &Upstream) -> Gateway {
    let instance = |name: &str, provider: &str, address: std::net::SocketAddr, priority: i32| {
        format!(
            "{{name: {name}, provider: {provider}, weight: 1, priority: {priority}, auth: {{header: {{Authorization: Bearer secret}}}}, \
             override: {{endpoint: \"http://{address}\"}}}}"
        )
    };
    let dead = Upstream::nobody();
    Gateway::start(&format!(
        "routes:\n\
         - id: openai\n  uris: [/v1/chat/completions, /v1/responses, /v1/embeddings]\n  plugins:\n    \
         key-auth: {{header: Authorization}}\n    prometheus: {{}}\n    ai-proxy-multi:\n      fallback_strategy: http_5xx\n      max_retries: 0\n      \
         instances:\n      - {}\n\
         - id: claude\n  uri: /v1/messages\n  plugins:\n    key-auth: {{header: Authorization}}\n    ai-proxy-multi:\n      \
         fallback_strategy: http_5xx\n      instances:\n      - {}\n      - {}\n\
         consumers:\n- {{username: team, plugins: {{key-auth: {{key: team-key}}}}}}\n\
         - {{id: team/credentials/bearer, plugins: {{key-auth: {{key: Bearer team-key}}}}}}\n",
        instance("openai", "openai", upstream.address, 0),
        instance("dead", "anthropic", dead, 1),
        instance("claude", "anthropic", upstream.address, 0),
    ))
}

#[test]
fn the_official_python_clients_work() {
    let python = match python(PYTHON_PACKAGES, &[]) {
        Ok(python) => python,
        Err(error) => return unavailable("the Python clients", &error),
    };
    let upstream = Upstream::start(scripted);
    let gateway = gateway(&upstream);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk/sdk_test.py");
    let result = run(Command::new(python)
        .arg(script)
        .arg(format!("http://{}", gateway.proxy)));
    assert!(
        result
            .as_ref()
            .is_ok_and(|out| out.contains("all checks passed")),
        "{result:?}\n{}",
        gateway.stderr()
    );
    gateway.wait_until_idle();
}

#[test]
fn the_official_node_client_works() {
    let folder = match node(NODE_PACKAGES) {
        Ok(folder) => folder,
        Err(error) => return unavailable("the Node client", &error),
    };
    let upstream = Upstream::start(scripted);
    let gateway = gateway(&upstream);
    let script = folder.join("sdk_test.mjs");
    std::fs::copy(
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk/sdk_test.mjs"),
        &script,
    )
    .expect("copied");
    let result = run(Command::new("node")
        .arg(script)
        .arg(format!("http://{}", gateway.proxy)));
    assert!(
        result
            .as_ref()
            .is_ok_and(|out| out.contains("all checks passed")),
        "{result:?}\n{}",
        gateway.stderr()
    );
    gateway.wait_until_idle();
}
