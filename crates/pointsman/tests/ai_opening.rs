//! The beginning of a stream: held back while another instance may still answer.

mod support;

use support::{
    Answer, Gateway, Upstream, ask, client::Connection, instance, multi, post_json, single,
};

const STREAM: &str = r#"{"model":"gpt-4","stream":true,"messages":[]}"#;
const CONTENT: &str = r#"data: {"choices":[{"delta":{"role":"assistant","content":"Hel"}}]}"#;

/// A beginning is held back for its content only, and where it is known what that is.
#[test]
fn only_beginnings_without_content_are_held_back() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    let open = |event: &str| {
        let answer = Answer::Open(format!("{head}{event}\n\n").into_bytes());
        Upstream::start(move |_| answer.clone())
    };
    let spare = Upstream::named("spare");
    let fallback = "        fallback_strategy: http_5xx\n";
    let gateway_for = |first: &Upstream| {
        let instances = [
            instance("first", first.address, ", priority: 1"),
            instance("spare", spare.address, ""),
        ];
        Gateway::start(&multi(&instances, fallback))
    };
    let unknown = open("data: whatever");
    let gateway = gateway_for(&unknown);
    let mut connection = Connection::open(gateway.proxy);
    ask(&mut connection, r#"{"prompt":"x","stream":true}"#);
    connection.read_until("whatever");

    let content = open(CONTENT);
    let gateway = gateway_for(&content);
    let mut connection = Connection::open(gateway.proxy);
    ask(&mut connection, STREAM);
    connection.read_until("Hel");
}

/// What is no content is no answer: an error inside a 200, a mere beginning that breaks off, silence.
#[test]
fn another_instance_answers_before_there_is_content() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    let role = r#"data: {"choices":[{"delta":{"role":"assistant","content":""}}]}"#;
    let error = r#"data: {"error":{"message":"overloaded","type":"server_error"}}"#;
    let raw = |text: String| Answer::Raw(text.into_bytes());
    let failures = [
        raw(format!("{head}{error}\n\n")),
        raw(format!("{head}{role}\n\n{error}\n\n")),
        raw(format!("{head}{role}\n\n")),
        raw(format!("{head}data: no JSON\n\n")),
        Answer::Open(format!("{head}{role}\n\n").into_bytes()),
    ];
    let clean = [CONTENT, "data: [DONE]"];
    let spare = Upstream::start(move |_| Answer::events(&clean));
    for (number, failure) in failures.into_iter().enumerate() {
        let failing = Upstream::start(move |_| failure.clone());
        let instances = [
            instance("failing", failing.address, ", priority: 1"),
            instance("spare", spare.address, ""),
        ];
        let more = "        fallback_strategy: http_5xx\n        first_token_timeout_ms: 300\n";
        let gateway = Gateway::start(&multi(&instances, more));
        let response = post_json(gateway.proxy, "/x", STREAM);
        assert_eq!(
            (response.status, response.complete),
            (200, true),
            "{number}"
        );
        assert_eq!(
            response.text(),
            format!("{CONTENT}\n\ndata: [DONE]\n\n"),
            "{number}"
        );
        assert_eq!((failing.hits(), spare.hits()), (1, number + 1));
        let line = gateway.access_log(1).remove(0);
        assert_eq!(line["picks"][0]["member"], "failing", "{line}");
        assert!(line["picks"][0]["error"].is_string(), "{line}");
    }
}

/// Streams of legacy completions and of typed events, too, whether their path says what they are or not.
#[test]
fn another_instance_answers_for_other_apis() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    let begun = r#"data: {"choices":[{"text":"","index":0,"finish_reason":null}]}"#;
    let error = r#"data: {"error":{"message":"overloaded","type":"server_error"}}"#;
    let typed = "event: error\ndata: {\"type\":\"error\",\"message\":\"overloaded\"}";
    let raw = |text: String| Answer::Raw(text.into_bytes());
    let failures = [
        raw(format!("{head}{error}\n\n")),
        raw(format!("{head}: ping\n\n{begun}\n\n{error}\n\n")),
        raw(format!("{head}{typed}\n\n")),
        Answer::Open(format!("{head}{begun}\n\n").into_bytes()),
    ];
    let clean = [
        r#"data: {"choices":[{"text":"Hel","index":0,"finish_reason":null}]}"#,
        "data: [DONE]",
    ];
    let spare = Upstream::start(move |_| Answer::events(&clean));
    let mut hits = 0;
    for (number, failure) in failures.into_iter().enumerate() {
        for option in ["", "        typed_passthrough: true\n"] {
            let failure = failure.clone();
            let failing = Upstream::start(move |_| failure.clone());
            let instances = [
                instance("failing", failing.address, ", priority: 1"),
                instance("spare", spare.address, ""),
            ];
            let more = format!(
                "        fallback_strategy: http_5xx\n        first_token_timeout_ms: 300\n{option}"
            );
            let gateway = Gateway::start(&multi(&instances, &more));
            let body = r#"{"model":"m","prompt":"x","stream":true}"#;
            let response = post_json(gateway.proxy, "/v1/completions", body);
            let end = (response.status, response.complete);
            assert_eq!(end, (200, true), "{number}, {option}");
            let expected = format!("{}\n\ndata: [DONE]\n\n", clean[0]);
            assert_eq!(response.text(), expected, "{number}, {option}");
            hits += 1;
            assert_eq!((failing.hits(), spare.hits()), (1, hits), "{number}");
            assert_eq!(failing.last().target, "/v1/completions");
        }
    }
}

/// Nobody else may answer: the failure has a status and is in the client's protocol.
#[test]
fn a_stream_without_content_is_an_error_if_it_is_not_held_back_in_vain() {
    let silent = Upstream::start(|_| {
        Answer::Open(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n".to_vec())
    });
    let limit = "        first_token_timeout_ms: 300\n";
    let gateway = Gateway::start(&single("openai", silent.address, limit));
    let response = post_json(gateway.proxy, "/x", STREAM);
    assert_eq!(response.status, 504);
    assert!(
        response.text().contains("no content in time"),
        "{}",
        response.text()
    );
}

/// An error inside a 200 counts against its instance like the status that it stands for.
#[test]
fn errors_before_the_content_open_circuits() {
    let error = r#"data: {"error":{"message":"no luck","type":"server_error"}}"#;
    let failing = Upstream::start(move |_| Answer::events(&[error]));
    let clean = [CONTENT, "data: [DONE]"];
    let spare = Upstream::start(move |_| Answer::events(&clean));
    let instances = [
        instance("failing", failing.address, ", priority: 1"),
        instance("spare", spare.address, ""),
    ];
    let more = "        fallback_strategy: http_5xx\n        circuit_breaker: {failures: 2, open_ms: 600000}\n";
    let gateway = Gateway::start(&multi(&instances, more));
    for _ in 0..2 {
        assert_eq!(post_json(gateway.proxy, "/x", STREAM).status, 200);
    }
    assert_eq!((failing.hits(), spare.hits()), (2, 2));
    support::wait_until("the circuit", || {
        post_json(gateway.proxy, "/x", STREAM);
        (spare.hits() > failing.hits() + 1).then_some(())
    });
}
