//! Every client's protocol to every provider's: what arrives there, and what comes back.

#[path = "translated/agents.rs"]
mod agents;
#[path = "translated/calls.rs"]
mod calls;
#[path = "translated/clients.rs"]
mod clients;
#[path = "translated/matrix.rs"]
mod matrix;
#[path = "translated/protocol.rs"]
mod protocol;
mod support;
#[path = "translated/tools.rs"]
mod tools;
#[path = "translated/types.rs"]
mod types;

use protocol::{ALL, Protocol, TEXT, document};
use serde_json::Value;
use support::{Answer, Gateway, Received, Upstream, client::Response, post_json};

fn upstreams(answer: fn(&Protocol, bool) -> Answer) -> Vec<Upstream> {
    let start = |protocol: &'static Protocol| {
        Upstream::start(move |received| answer(protocol, ask_is_streamed(received)))
    };
    ALL.iter().map(start).collect()
}

/// Whether a provider is asked for a stream.
fn ask_is_streamed(received: &Received) -> bool {
    received.target.contains("stream") || received.json()["stream"].as_bool() == Some(true)
}

fn ask(gateway: &Gateway, client: &Protocol, target: &Protocol, streamed: bool) -> Response {
    let path = format!("/{}{}", target.name, client.path(streamed));
    post_json(gateway.proxy, &path, &client.request(streamed))
}

fn works(protocol: &Protocol, streamed: bool) -> Answer {
    if streamed {
        protocol.stream(true)
    } else {
        Answer::json(protocol.answer)
    }
}

#[test]
fn every_pair_says_the_same() {
    let upstreams = upstreams(works);
    let gateway = Gateway::start(&document(&upstreams, ""));
    let mut count = 0;
    for client in &ALL {
        for (target, upstream) in ALL.iter().zip(&upstreams) {
            for streamed in [false, true] {
                let pair = format!("{} to {}, {streamed}", client.name, target.name);
                let response = ask(&gateway, client, target, streamed);
                assert_eq!(
                    (response.status, response.complete),
                    (200, true),
                    "{pair}: {}",
                    response.text()
                );
                assert_eq!(
                    client.texts(&response, streamed),
                    TEXT,
                    "{pair}: {}",
                    response.text()
                );
                assert_eq!(client.is_ended(&response, streamed), streamed, "{pair}");
                let sent = upstream.last();
                assert_eq!(sent.target, target.target(streamed), "{pair}");
                assert!(
                    sent.text().contains("What is up?"),
                    "{pair}: {}",
                    sent.text()
                );
                count += 1;
                let line = gateway.access_log(count).remove(count - 1);
                let tokens = (&line["llm_prompt_tokens"], &line["llm_completion_tokens"]);
                assert_eq!(tokens, (&10.into(), &2.into()), "{pair}: {line}");
                let spoken = (client.name != target.name).then_some(target.name);
                assert_eq!(line["llm_upstream_protocol"].as_str(), spoken, "{pair}");
            }
        }
    }
}

#[test]
fn every_pair_reports_errors() {
    let upstreams = upstreams(|protocol, _| Answer::Whole {
        status: 429,
        kind: "application/json",
        body: protocol.error.to_owned(),
        headers: vec![("Retry-After", "7".to_owned())],
    });
    let gateway = Gateway::start(&document(&upstreams, ""));
    for client in &ALL {
        for target in &ALL {
            let pair = format!("{} to {}", client.name, target.name);
            let response = ask(&gateway, client, target, true);
            assert_eq!(response.status, 429, "{pair}");
            assert_eq!(response.header("retry-after"), Some("7"), "{pair}");
            let body: Value = serde_json::from_str(&response.text()).expect("JSON");
            let message = body.pointer(client.message);
            assert_eq!(
                message.and_then(Value::as_str),
                Some("slow down"),
                "{pair}: {body}"
            );
        }
    }
}

/// An upstream that goes away in the middle.
#[test]
fn no_pair_makes_a_broken_stream_look_complete() {
    let upstreams = upstreams(|protocol, _| protocol.stream(false));
    let gateway = Gateway::start(&document(&upstreams, ""));
    for client in &ALL {
        for target in ALL.iter().filter(|target| target.name != client.name) {
            let pair = format!("{} to {}", client.name, target.name);
            let response = ask(&gateway, client, target, true);
            let text = response.text();
            assert!(!client.is_ended(&response, true), "{pair}: {text}");
            assert!(client.has_error(&response), "{pair}: {text}");
        }
    }
}

#[test]
fn what_gets_lost_is_told_or_refused() {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"logit_bias":{"5":1},"store":true}"#;
    let upstreams = upstreams(works);
    let gateway = Gateway::start(&document(&upstreams, ""));
    let post = || {
        post_json(
            gateway.proxy,
            "/anthropic-messages/v1/chat/completions",
            body,
        )
    };
    let response = post();
    assert_eq!(response.status, 200);
    assert_eq!(
        response.header("x-pointsman-lossy"),
        Some("logit_bias,store")
    );
    assert_eq!(gateway.access_log(1)[0]["llm_lossy"], "logit_bias,store");
    gateway.reload(&document(&upstreams, ", strict_translation: true"));
    let response = post();
    assert_eq!(response.status, 400);
    let body: Value = serde_json::from_str(&response.text()).expect("JSON");
    let message = body["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("logit_bias, store"), "{message}");
    let native = post_json(
        gateway.proxy,
        "/openai-chat/v1/chat/completions",
        r#"{"model":"m","messages":[{"role":"user","content":"x"}],"logit_bias":{"5":1}}"#,
    );
    assert_eq!(
        (native.status, native.header("x-pointsman-lossy")),
        (200, None)
    );
}

/// A conversation that ends in the model's own words, for a model that does not go on from them: it is the
/// model that refuses it, unless nothing may get lost.
#[test]
fn words_for_the_model_to_go_on_from_are_named() {
    let body = r#"{"model":"claude-opus-4-6","messages":[{"role":"user","content":"x"},{"role":"assistant","content":"So {"}]}"#;
    let upstreams = upstreams(|protocol, _| Answer::status(400, protocol.error));
    let gateway = Gateway::start(&document(&upstreams, ""));
    let path = "/anthropic-messages/v1/chat/completions";
    let response = post_json(gateway.proxy, path, body);
    assert_eq!(response.status, 400);
    let sent = upstreams.iter().find(|upstream| upstream.hits() > 0);
    assert!(sent.expect("sent").last().text().contains("So {"));
    assert_eq!(gateway.access_log(1)[0]["llm_lossy"], "messages.prefill");
    gateway.reload(&document(&upstreams, ", strict_translation: true"));
    let response = post_json(gateway.proxy, path, body);
    let said = response.text();
    assert!(said.contains("messages.prefill"), "{said}");
}

/// What an answer says and its client's protocol cannot: of a whole answer in the header and the log, of a
/// stream, whose head is gone by then, in the log.
#[test]
fn what_an_answer_loses_is_told() {
    let choice = |number: u32, member: &str| {
        let text = format!(r#""{member}":{{"role":"assistant","content":"t{number}"}}"#);
        let logprobs = r#"{"content":[{"token":"t","logprob":-0.5,"top_logprobs":[]}]}"#;
        format!(r#"{{"index":{number},{text},"logprobs":{logprobs},"finish_reason":"stop"}}"#)
    };
    let upstreams = [Upstream::start(move |received| {
        let streamed = ask_is_streamed(received);
        let member = if streamed { "delta" } else { "message" };
        let both = format!("{},{}", choice(0, member), choice(1, member));
        // The usual tier of service is in every answer: nobody misses it.
        let about = r#""id":"c","created":1,"model":"m","service_tier":"default""#;
        let answer = format!(r#"{{{about},"choices":[{both}]}}"#);
        match streamed {
            true => ALL[0].stream_of(&[&answer, "[DONE]"]),
            false => Answer::json(&answer),
        }
    })];
    let gateway = Gateway::start(&document(&upstreams, ""));
    let target = &ALL[0];
    let mut lines = 0;
    for client in &ALL[1..] {
        let lost = match client.name {
            "openai-responses" => "answer.choices",
            "gemini-generate-content" => "",
            _ => "answer.logprobs,answer.choices",
        };
        for streamed in [false, true] {
            let pair = format!("{}, {streamed}", client.name);
            let response = ask(&gateway, client, target, streamed);
            assert_eq!(response.status, 200, "{pair}: {}", response.text());
            let told = response.header("x-pointsman-lossy").unwrap_or_default();
            assert_eq!(told, if streamed { "" } else { lost }, "{pair}");
            lines += 1;
            let line = gateway.access_log(lines).remove(lines - 1);
            assert_eq!(
                line["llm_lossy"].as_str().unwrap_or_default(),
                lost,
                "{pair}"
            );
        }
    }
}

/// P-107, P-120: credentials find their header, and a body that its own protocol forbids is named.
#[test]
fn headers_and_bad_requests() {
    let upstreams = upstreams(works);
    let keyless = document(&upstreams, "").replace("{header: {Authorization: Bearer key}}", "{}");
    let gateway = Gateway::start(&keyless);
    let headers = [
        ("x-api-key", "mine"),
        ("anthropic-version", "2023-06-01"),
        ("anthropic-beta", "b"),
        ("x-stainless-os", "Linux"),
        ("Content-Type", "application/json"),
    ];
    let body = r#"{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"x"}]}"#;
    let path = "/openai-chat/v1/messages";
    let response = support::client::request(gateway.proxy, "POST", path, &headers, body);
    assert_eq!(response.status, 200);
    let sent = upstreams[0].last();
    assert_eq!(sent.header("authorization"), Some("Bearer mine"));
    for absent in [
        "x-api-key",
        "anthropic-version",
        "anthropic-beta",
        "x-stainless-os",
    ] {
        assert_eq!(sent.header(absent), None, "{absent}");
    }
    let bad = r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text"}]}]}"#;
    let response = post_json(gateway.proxy, path, bad);
    assert_eq!(response.status, 400);
    let body: Value = serde_json::from_str(&response.text()).expect("JSON");
    assert_eq!(body["type"], "error");
    let message = body["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("messages[0].content[0]"), "{message}");
    assert_eq!(
        post_json(gateway.proxy, path, r#"{"messages":[]}"#).status,
        400
    );
    let odd =
        r#"{"model":"m","messages":[{"role":"user","content":[{"type":"image","source":true}]}]}"#;
    assert_eq!(post_json(gateway.proxy, path, odd).status, 200);
}

/// P-136: an answer in another protocol than the declared one is none.
#[test]
fn an_answer_that_cannot_be_read_is_a_502() {
    let upstreams = upstreams(|_, streamed| {
        if streamed {
            Answer::events(&[r#"data: {"odd":1}"#])
        } else {
            Answer::json(r#"{"odd":1}"#)
        }
    });
    let gateway = Gateway::start(&document(&upstreams, ""));
    for client in &ALL {
        for target in ALL.iter().filter(|target| target.name != client.name) {
            for streamed in [false, true] {
                let response = ask(&gateway, client, target, streamed);
                let pair = format!("{} to {}, {streamed}", client.name, target.name);
                assert_eq!(response.status, 502, "{pair}: {}", response.text());
            }
        }
    }
}
