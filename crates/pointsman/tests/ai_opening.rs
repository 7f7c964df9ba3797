//! The beginning of a stream: held back while another instance may still answer.

mod support;

use support::{Answer, Gateway, Upstream, client::Connection, instance, multi};

const STREAM: &str = r#"{"model":"gpt-4","stream":true,"messages":[]}"#;
const CONTENT: &str = r#"data: {"choices":[{"delta":{"role":"assistant","content":"Hel"}}]}"#;

fn ask(stream: &mut Connection, body: &str) {
    let head = format!(
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.send(head.as_bytes());
}

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
