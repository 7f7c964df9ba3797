//! APIs beside chats and embeddings, known by their path and passed on as they are.

mod support;

use std::time::Duration;

use serde_json::Value;
use support::{
    Answer, Gateway, Response, Upstream, flow_route, instance, multi, post_json, request, single,
};

const TYPED: &str = "        typed_passthrough: true\n";

/// `ai-proxy` of a provider at `upstream` that knows APIs by their path.
fn typed(provider: &str, upstream: &Upstream, more: &str) -> Gateway {
    let more = format!("{TYPED}{more}");
    Gateway::start(&single(provider, upstream.address, &more))
}

/// G-24
#[test]
fn a_path_says_what_a_request_is() {
    let upstream = Upstream::named("a");
    let options = "        options: {model: m, temperature: 1}\n";
    let gateway = typed("openai", &upstream, options);
    let check = |path: &str, body: &str, sent_to: &str, sent: &str| {
        let response = post_json(gateway.proxy, path, body);
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        let last = upstream.last();
        assert_eq!((&*last.target, &*last.text()), (sent_to, sent), "{path}");
        assert_eq!(last.header("authorization"), Some("Bearer token"));
        assert_eq!(last.method, "POST");
    };
    let same = |path: &str| {
        let (body, sent) = (
            r#"{ "input" :"a", "model":"x"}"#,
            r#"{ "input" :"a", "model":"m"}"#,
        );
        check(&format!("/gw{path}?a=b"), body, path, sent);
    };
    for path in [
        "/v1/audio/speech",
        "/v1/moderations",
        "/v1/images/generations",
        "/v1/images/edits",
    ] {
        same(path);
    }
    check(
        "/v1/completions",
        r#"{"prompt":"a"}"#,
        "/v1/completions",
        r#"{"prompt":"a","model":"m","temperature":1}"#,
    );
    check(
        "/openai/responses",
        r#"{"input":"a","model":"x"}"#,
        "/v1/responses",
        r#"{"input":"a","model":"m","temperature":1}"#,
    );
    // Everything else is what its body says.
    check(
        "/v1/audio",
        r#"{"input":"a","model":"x"}"#,
        "/v1/embeddings",
        r#"{"input":"a","model":"m","temperature":1}"#,
    );
}

/// G-24
#[test]
fn a_path_says_nothing_unless_it_is_to() {
    let upstream = Upstream::named("a");
    let gateway = Gateway::start(&single("openai", upstream.address, ""));
    let speech = post_json(gateway.proxy, "/v1/audio/speech", r#"{"input":"a"}"#);
    assert_eq!(speech.status, 200);
    assert_eq!(upstream.last().target, "/v1/embeddings");
    let form = send_form(&gateway, "/v1/audio/transcriptions", &form(""));
    assert_eq!(form.status, 400);
}

/// G-24, G-16
#[test]
fn anthropic_counts_tokens_without_being_told_to() {
    let upstream = Upstream::start(|_| Answer::json(r#"{"input_tokens":14}"#));
    let gateway = Gateway::start(&single("anthropic", upstream.address, ""));
    let body = r#"{"model":"claude","messages":[]}"#;
    let response = post_json(gateway.proxy, "/v1/messages/count_tokens", body);
    assert_eq!(response.text(), r#"{"input_tokens":14}"#);
    let last = upstream.last();
    assert_eq!(last.target, "/v1/messages/count_tokens");
    assert_eq!(last.header("anthropic-version"), Some("2023-06-01"));
    assert_eq!(last.text(), body);
    // Counting is no use.
    let line = gateway.access_log(1).remove(0);
    assert_eq!(line["llm_total_tokens"], 0, "{line}");
    assert_eq!(line["request_llm_model"], "claude");
}

/// G-24
#[test]
fn endpoints_and_providers_have_their_own_paths() {
    let upstream = Upstream::named("a");
    let check = |provider: &str, path: &str, api: &str, sent_to: &str| {
        let more = format!("{TYPED}        options: {{model: dall-e}}\n");
        let document = single(provider, upstream.address, &more);
        let bare = format!("http://{}", upstream.address);
        let gateway = Gateway::start(&document.replace(&bare, &format!("{bare}{path}")));
        let response = post_json(gateway.proxy, api, r#"{"prompt":"a","documents":[]}"#);
        assert_eq!(response.status, 200, "{provider}: {}", response.text());
        assert_eq!(upstream.last().target, sent_to);
    };
    check("groq", "", "/v1/audio/speech", "/openai/v1/audio/speech");
    check("cohere", "", "/v2/rerank", "/v2/rerank");
    check("cohere", "", "/v1/rerank", "/v1/rerank");
    check(
        "openai-compatible",
        "/base/v1/chat/completions",
        "/v1/rerank",
        "/base/v1/rerank",
    );
    check(
        "openai-compatible",
        "/draw",
        "/v1/images/generations",
        "/draw",
    );
    check(
        "azure-openai",
        "?api-version=1",
        "/v1/images/generations",
        "/openai/deployments/dall-e/images/generations?api-version=1",
    );
    check(
        "azure-openai",
        "/openai/deployments/d3/chat/completions?api-version=1",
        "/openai/deployments/x/images/generations?api-version=0",
        "/openai/deployments/d3/images/generations?api-version=1",
    );
}

const KIND: &str = "multipart/form-data; boundary=\"b 1\"";

/// A form with a file and a model.
fn form(model: &str) -> String {
    format!(
        "--b 1\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model.mp3\"\r\n\
         Content-Type: audio/mpeg\r\n\r\n\u{0}\u{1}\r\n--b\r\n\
         \r\n--b 1\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n--b 1--\r\n"
    )
}

fn send_form(gateway: &Gateway, path: &str, form: &str) -> Response {
    let kind = [("Content-Type", KIND)];
    request(gateway.proxy, "POST", path, &kind, form)
}

/// G-24
#[test]
fn forms_pass_with_the_model_of_the_instance() {
    let answer = r#"{"text":"hi","usage":{"type":"tokens","input_tokens":14,"output_tokens":45,"total_tokens":59}}"#;
    let upstream = Upstream::start(move |_| Answer::json(answer));
    let gateway = typed("openai", &upstream, "");
    let path = "/v1/audio/transcriptions";
    let response = send_form(&gateway, path, &form("whisper-1"));
    assert_eq!((response.status, &*response.text()), (200, answer));
    let last = upstream.last();
    assert_eq!(last.target, path);
    assert_eq!(last.header("content-type"), Some(KIND));
    assert_eq!(last.text(), form("whisper-1"));
    let line = gateway.access_log(1).remove(0);
    let tokens = ["prompt", "completion", "total"].map(|name| &line[format!("llm_{name}_tokens")]);
    assert_eq!(tokens, [14, 45, 59], "{line}");
    assert_eq!(line["request_llm_model"], "whisper-1");

    let options = "        options: {model: gpt-4o-transcribe, language: de}\n";
    let gateway = typed("openai", &upstream, options);
    assert_eq!(send_form(&gateway, path, &form("whisper-1")).status, 200);
    assert_eq!(upstream.last().text(), form("gpt-4o-transcribe"));
    assert_eq!(gateway.access_log(1)[0]["llm_model"], "gpt-4o-transcribe");
}

/// G-24
#[test]
fn bad_forms_are_refused() {
    let upstream = Upstream::named("a");
    let gateway = typed("openai", &upstream, "        max_req_body_size: 400\n");
    let check = |path: &str, form: &str, status: u16, part: &str| {
        let response = send_form(&gateway, path, form);
        assert_eq!(response.status, status, "{form}");
        assert!(response.text().contains(part), "{}", response.text());
        response
    };
    let path = "/v1/images/edits";
    // In the words of the API, which name what is wrong where there is one thing.
    let broken = check(path, "--b 1\r\n", 400, "part 1 of the form is not complete").json();
    let error = &broken["error"];
    assert_eq!(error["type"], "invalid_request_error", "{broken}");
    assert!(error["message"].is_string() && error["param"].is_null());
    check(path, "", 400, "request body is empty");
    let model = "--b 1\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\na\r\n";
    let twice = format!("{model}{model}--b 1--\r\n");
    let twice = check(path, &twice, 400, "`model` appears twice").json();
    assert_eq!(twice["error"]["param"], "model", "{twice}");
    let large = check(path, &form(&"x".repeat(400)), 413, "maximum size 400").json();
    assert_eq!(large["error"]["type"], "invalid_request_error", "{large}");
    let folded = form("a").replace("; name=\"model\"", ";\r\n name=\"model\"");
    check(path, &folded, 400, "head of part 2 of the form");
    check(
        path,
        "a\r\n--b 1--",
        400,
        "does not begin with its boundary",
    );
    let stray = form("a\n--b 1\n");
    let place = stray.find("a\n--b 1\n").expect("written") + 2;
    check(path, &stray, 400, &format!("boundary is at byte {place},"));
    let speech = "/v1/audio/speech";
    check(speech, &form("a"), 400, "only application/json");
    check("/x", &form("a"), 400, "only application/json");
    assert_eq!(upstream.hits(), 0);
}

/// G-24: whoever calls an API reads its errors, also when it is our parser that refuses.
#[test]
fn bodies_are_refused_in_the_words_of_their_api() {
    let upstream = Upstream::named("a");
    let refused = |provider: &str, path: &str, body: &str, status: u16| {
        let gateway = typed(provider, &upstream, "        max_req_body_size: 60\n");
        let response = post_json(gateway.proxy, path, body);
        assert_eq!(response.status, status, "{path}: {}", response.text());
        response.json()
    };
    let count = "/v1/messages/count_tokens";
    let broken = refused("anthropic", count, "{", 400);
    assert_eq!(broken["error"]["type"], "invalid_request_error", "{broken}");
    assert_eq!(broken["type"], "error");
    let large = refused("anthropic", count, &"x".repeat(61), 413);
    assert_eq!(large["error"]["type"], "request_too_large", "{large}");
    let broken = refused("cohere", "/v2/rerank", "{", 400);
    assert!(broken["message"].is_string(), "{broken}");
    let twice = r#"{"model":"a","model":"b"}"#;
    let twice = refused("openai", "/v1/moderations", twice, 400);
    assert_eq!(twice["error"]["param"], "model", "{twice}");
    // A chat is known by its body alone.
    let chat = refused("openai", "/v1/chat/completions", "{", 400);
    assert!(chat["message"].is_string(), "{chat}");
    assert_eq!(upstream.hits(), 0);
}

/// G-24
#[test]
fn answers_that_are_no_json_pass_unchanged() {
    let sound = Answer::Raw(
        b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nContent-Length: 4\r\n\r\n\xff\0\xfe\r"
            .to_vec(),
    );
    let upstream = Upstream::start(move |received| match &*received.target {
        "/v1/audio/speech" => sound.clone(),
        _ => Answer::text(200, "1\n00:00 --> 00:01\nhi\n"),
    });
    let gateway = typed("openai", &upstream, "");
    let speech = post_json(gateway.proxy, "/v1/audio/speech", r#"{"input":"a"}"#);
    assert_eq!(speech.body, b"\xff\0\xfe\r");
    assert_eq!(speech.header("content-type"), Some("audio/mpeg"));
    let text = send_form(&gateway, "/v1/audio/translations", &form("w"));
    assert_eq!(text.text(), "1\n00:00 --> 00:01\nhi\n");
    assert_eq!(text.header("content-type"), Some("text/plain"));
}

/// G-24
#[test]
fn streams_pass_and_are_counted() {
    let chunks = [
        r#"data: {"choices":[{"text":"a"}]}"#,
        r#"data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#,
        "data: [DONE]",
    ];
    let done = r#"data: {"type":"transcript.text.done","text":"a","usage":{"input_tokens":3,"output_tokens":4,"total_tokens":7}}"#;
    let transcript = [
        r#"data: {"type":"transcript.text.delta","delta":"a"}"#,
        done,
    ];
    let upstream = Upstream::start(move |received| match &*received.target {
        "/v1/completions" => Answer::events(&chunks),
        _ => Answer::events(&transcript),
    });
    let gateway = typed("openai", &upstream, "");
    let body = r#"{"prompt":"a","stream":true}"#;
    let completion = post_json(gateway.proxy, "/v1/completions", body);
    assert_eq!(
        completion.text(),
        chunks.map(|c| format!("{c}\n\n")).concat()
    );
    assert_eq!(upstream.last().text(), body);
    let stream = "--b 1\r\nContent-Disposition: form-data; name=\"stream\"\r\n\r\ntrue\r\n";
    let form = format!("{stream}{}", form("w"));
    let transcribed = send_form(&gateway, "/v1/audio/transcriptions", &form);
    assert!(transcribed.text().ends_with(&format!("{done}\n\n")));
    for line in gateway.access_log(2) {
        assert_eq!(line["llm_total_tokens"], 7, "{line}");
        assert_eq!(line["request_type"], "ai_stream", "{line}");
    }
}

/// G-24, I-21
#[test]
fn a_broken_stream_does_not_look_complete() {
    let upstream = Upstream::start(|_| Answer::Stream {
        pieces: vec![b"data: {\"choices\":[{\"text\":\"a\"}]}\n\n".to_vec()],
        pause: Duration::ZERO,
        ends: false,
    });
    let gateway = typed("openai", &upstream, "");
    let body = r#"{"prompt":"a","stream":true}"#;
    let response = post_json(gateway.proxy, "/v1/completions", body);
    assert_eq!((response.status, response.complete), (200, false));
}

fn total(gateway: &Gateway) -> Value {
    gateway.access_log(1)[0]["llm_total_tokens"].clone()
}

/// G-24
#[test]
fn usage_is_read_where_there_is_any() {
    let check = |path: &str, answer: &'static str, expected: u64| {
        let upstream = Upstream::start(move |_| Answer::json(answer));
        let gateway = typed("openai-compatible", &upstream, "");
        assert_eq!(
            post_json(gateway.proxy, path, r#"{"query":"a"}"#).text(),
            answer
        );
        assert_eq!(total(&gateway), expected, "{answer}");
        let counted = gateway.metric(&["apisix_llm_prompt_tokens{", "route_id=\"1\""]);
        assert_eq!(counted > 0.0, expected > 0);
    };
    check("/v1/rerank", r#"{"usage":{"total_tokens":815}}"#, 815);
    let billed = r#"{"meta":{"billed_units":{"search_units":1}}}"#;
    check("/v2/rerank", billed, 0);
    let image = r#"{"data":[],"usage":{"input_tokens":50,"output_tokens":60,"total_tokens":110}}"#;
    check("/v1/images/generations", image, 110);
    check("/v1/moderations", r#"{"results":[]}"#, 0);
}

/// G-24
#[test]
fn who_does_not_have_it_is_not_asked() {
    let upstream = Upstream::named("a");
    let gateway = typed("anthropic", &upstream, "");
    let response = post_json(gateway.proxy, "/v1/rerank", r#"{"query":"a"}"#);
    assert_eq!(
        (response.status, &*response.text()),
        (
            400,
            "provider anthropic does not support rerank protocol (supported: \
             anthropic-messages, openai-chat, anthropic-count-tokens)"
        )
    );
    assert_eq!(upstream.hits(), 0);

    // Of several, those are asked that have it, whoever's turn it is.
    let (other, upstream) = (Upstream::named("o"), Upstream::named("a"));
    let anthropic = instance("o", other.address, "").replace("openai-compatible", "anthropic");
    let document = flow_route(
        &[anthropic, instance("a", upstream.address, "")],
        ", typed_passthrough: true",
    );
    let gateway = Gateway::start(&document);
    for _ in 0..4 {
        let response = post_json(gateway.proxy, "/v1/rerank", r#"{"query":"a"}"#);
        assert_eq!(response.status, 200);
    }
    assert_eq!((other.hits(), upstream.hits()), (0, 4));
    let body = r#"{"messages":[]}"#;
    let path = "/v1/messages/count_tokens";
    for _ in 0..4 {
        assert_eq!(post_json(gateway.proxy, path, body).status, 200);
    }
    assert_eq!((other.hits(), upstream.hits()), (4, 4));
}

/// G-24: health, retries and errors are those of every other request.
#[test]
fn a_form_falls_back_to_another_instance() {
    let down = Upstream::start(|_| Answer::status(503, "{}"));
    let up = Upstream::named("up");
    let document = multi(
        &[
            instance("down", down.address, ", priority: 1"),
            instance("up", up.address, ", options: {model: other}"),
        ],
        "        typed_passthrough: true\n        fallback_strategy: [http_5xx]\n",
    );
    let gateway = Gateway::start(&document);
    let path = "/v1/audio/transcriptions";
    assert_eq!(send_form(&gateway, path, &form("w")).status, 200);
    assert_eq!(down.last().text(), form("w"));
    assert_eq!(up.last().text(), form("other"));
}

/// G-24
#[test]
fn errors_of_the_gateway_are_in_the_clients_protocol() {
    let upstream = Upstream::start(|_| Answer::Close);
    let gateway = typed(
        "openai-compatible",
        &upstream,
        "        protocol: anthropic-messages\n",
    );
    let error = |path: &str| {
        let response = post_json(gateway.proxy, path, r#"{"query":"a"}"#);
        assert_eq!(response.status, 500, "{path}");
        response.json()
    };
    assert_eq!(error("/v1/moderations")["error"]["type"], "server_error");
    assert_eq!(error("/v1/messages/count_tokens")["type"], "error");
    assert!(error("/v1/rerank")["message"].is_string());
}
