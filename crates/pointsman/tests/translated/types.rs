//! What reaches a provider, checked against its vendor's own types.

use std::{fmt::Write, process::Command};

use crate::{
    clients::{PYTHON_PACKAGES, script},
    document,
    protocol::{ALL, Protocol},
    support::{
        Gateway, Received, Upstream,
        packages::{python, run, unavailable},
        post_json,
    },
    upstreams, works,
};

/// A conversation with all parts, and one with a schema and reasoning, for each protocol.
fn requests(name: &str) -> [&'static str; 2] {
    match name {
        "openai-chat" => [
            include_str!("requests/chat_parts.json"),
            include_str!("requests/chat_schema.json"),
        ],
        "openai-responses" => [
            include_str!("requests/responses_parts.json"),
            include_str!("requests/responses_schema.json"),
        ],
        "anthropic-messages" => [
            include_str!("requests/messages_parts.json"),
            include_str!("requests/messages_schema.json"),
        ],
        "gemini-generate-content" => [
            include_str!("requests/gemini_parts.json"),
            include_str!("requests/gemini_schema.json"),
        ],
        "cohere-chat" => [
            include_str!("requests/cohere_parts.json"),
            include_str!("requests/cohere_schema.json"),
        ],
        _ => [
            include_str!("requests/bedrock_parts.json"),
            include_str!("requests/bedrock_schema.json"),
        ],
    }
}

fn line(pair: &str, target: &Protocol, sent: &Received) -> String {
    serde_json::json!({
        "pair": pair,
        "target": target.name,
        "path": sent.target,
        "headers": sent.headers,
        "raw": sent.text(),
    })
    .to_string()
}

#[test]
fn what_is_sent_is_of_the_vendors_types() {
    let python = match python(PYTHON_PACKAGES, &[]) {
        Ok(python) => python,
        Err(error) => return unavailable("the vendors' types", &error),
    };
    let upstreams = upstreams(works);
    let mut lines = String::new();
    // The newest models of Anthropic's are told otherwise.
    for options in ["", ", options: {model: anthropic.claude-opus-5-5}"] {
        let gateway = Gateway::start(&document(&upstreams, options));
        for client in &ALL {
            send_all(&gateway, client, &upstreams, &mut lines);
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("requests");
    std::fs::write(&file, lines).expect("written");
    let result = run(Command::new(python).arg(script("types_test.py")).arg(file));
    let checked = (result.as_ref()).is_ok_and(|out| out.contains("288 requests checked"));
    assert!(checked, "{}", result.unwrap_or_else(|error| error));
}

/// What each upstream is sent of each request of `client`'s.
fn send_all(gateway: &Gateway, client: &Protocol, upstreams: &[Upstream], lines: &mut String) {
    for (target, upstream) in ALL.iter().zip(upstreams) {
        for (number, request) in requests(client.name).iter().enumerate() {
            for streamed in [false, true] {
                let path = format!("/{}{}", target.name, client.path(streamed));
                let request = client.streamed(request, streamed);
                let response = post_json(gateway.proxy, &path, &request);
                let pair = format!("{} to {}, {number}", client.name, target.name);
                assert_eq!(response.status, 200, "{pair}: {}", response.text());
                let line = line(&pair, target, &upstream.last());
                writeln!(lines, "{line}").expect("written");
            }
        }
    }
}
