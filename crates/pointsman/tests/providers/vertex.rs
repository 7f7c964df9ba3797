//! Vertex AI: places, paths and protocols.

use serde_json::Value;

use super::google::Google;
use crate::support::{Answer, CHAT, Gateway, Upstream, post_json};

const GEMINI: &str = r#"{"candidates":[{"content":{"role":"model","parts":[{"text":"from g"}]},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":8,"candidatesTokenCount":5,"totalTokenCount":13},"modelVersion":"m"}"#;

/// A route to one instance at `upstream`.
fn document(upstream: &Upstream, more: &str) -> String {
    let address = upstream.address;
    format!(
        "routes: [{{id: 1, uri: /*, plugins: {{ai-proxy: {{provider: vertex-ai, {more}, \
         override: {{endpoint: \"http://{address}\"}}}}}}}}]"
    )
}

const PLACE: &str = "provider_conf: {project_id: p, region: global}";

/// P-083: an endpoint, and a header for a credential, are enough.
#[test]
fn a_configured_endpoint_is_relayed_to() {
    let vertex = Upstream::named("v");
    let address = vertex.address;
    let gateway = Gateway::start(&format!(
        "routes: [{{id: 1, uri: /*, plugins: {{ai-proxy: {{provider: vertex-ai, auth: {{header: \
         {{Authorization: Bearer t}}}}, override: {{endpoint: \"http://{address}/v1/chat/completions\"}}}}}}}}]"
    ));
    let response = post_json(gateway.proxy, "/x", CHAT);
    assert_eq!(response.status, 200);
    assert!(response.text().contains("from v"));
    let sent = vertex.last();
    assert_eq!(sent.target, "/v1/chat/completions");
    assert_eq!(sent.header("authorization"), Some("Bearer t"));
}

/// Clients of Gemini's own interface, and whoever an instance is declared to speak that for.
#[test]
fn gemini_is_spoken_natively() {
    let (google, vertex) = (Google::steady(), Upstream::start(|_| Answer::json(GEMINI)));
    let auth = google.auth("");
    let gateway = Gateway::start(&document(&vertex, &format!("{auth}, {PLACE}")));
    let body = r#"{"contents":[{"role":"user","parts":[{"text":"Hi"}]}]}"#;
    let response = post_json(
        gateway.proxy,
        "/v1beta/models/gemini-2.5-pro:generateContent",
        body,
    );
    assert_eq!(response.text(), GEMINI);
    let sent = vertex.last();
    let path =
        "/v1/projects/p/locations/global/publishers/google/models/gemini-2.5-pro:generateContent";
    assert_eq!((&*sent.target, &*sent.text()), (path, body));
    assert_eq!(sent.header("authorization"), Some("Bearer token-1"));

    let native = format!("{auth}, {PLACE}, protocol: gemini-generate-content");
    gateway.reload(&document(&vertex, &native));
    let chat = CHAT.replace("gpt-4", "gemini-2.5-pro");
    let response = post_json(gateway.proxy, "/v1/chat/completions", &chat);
    let answer: Value = response.json();
    assert_eq!(answer["choices"][0]["message"]["content"], "from g");
    let sent = vertex.last();
    assert_eq!(sent.target, path);
    assert_eq!(sent.json()["contents"][0]["parts"][0]["text"], "Hi");

    // A configured access token is none of the keys that Gemini's own interface takes.
    let header = "auth: {header: {Authorization: Bearer mine}}";
    gateway.reload(&document(&vertex, &native.replace(&auth, header)));
    post_json(gateway.proxy, "/v1/chat/completions", &chat);
    let sent = vertex.last();
    assert_eq!(sent.header("authorization"), Some("Bearer mine"));
    assert_eq!(sent.header("x-goog-api-key"), None);

    let streamed = chat.replace("{\"model\"", "{\"stream\":true,\"model\"");
    post_json(gateway.proxy, "/v1/chat/completions", &streamed);
    let path = path.replace(":generateContent", ":streamGenerateContent?alt=sse");
    assert_eq!(vertex.last().target, path);
}
