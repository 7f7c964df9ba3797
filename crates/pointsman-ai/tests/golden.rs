//! Examples of what vendors and their clients send, and what becomes of them in every other protocol.
//!
//! `golden/PROTOCOL/request/NAME.json` is a client's request, `response/NAME.json` and
//! `stream/NAME.sse` (`.hex` for AWS's frames, a line each) are a provider's answers. Beside each,
//! `NAME.out` holds what they become. `UPDATE_GOLDEN=1` writes those anew, for people to read.

#[path = "support/examples.rs"]
mod examples;

use std::fmt::Write as _;

use examples::{DIALECTS, Example, Kind, examples};
use pointsman_ai::{
    Outside, Protocol, Provider, TranslatedRequest, Translation, conversation::Malformed,
};

#[test]
fn examples_become_what_they_became() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut changed = Vec::new();
    for example in examples() {
        let text = translated(&example);
        let path = example.path.with_extension("out");
        if update {
            std::fs::write(&path, &text).expect("sound");
        } else if std::fs::read_to_string(&path).unwrap_or_default() != text {
            changed.push(format!("{}\n{text}", path.display()));
        }
    }
    let all = changed.join("\n");
    assert!(
        changed.is_empty(),
        "UPDATE_GOLDEN=1 writes these anew:\n{all}"
    );
}

/// Every protocol has examples of everything.
#[test]
fn every_protocol_has_examples() {
    for protocol in DIALECTS {
        for (kind, least) in [(Kind::Request, 4), (Kind::Response, 3), (Kind::Stream, 3)] {
            let all = examples();
            let own = all
                .iter()
                .filter(|example| (example.protocol, example.kind) == (protocol, kind));
            assert!(own.count() >= least, "{protocol:?} {kind:?}");
        }
    }
}

/// Wherever a stream is cut, and however often, the same comes out.
#[test]
fn cuts_change_nothing() {
    let streams = examples();
    let streams = streams
        .iter()
        .filter(|example| example.kind == Kind::Stream);
    for (number, example) in streams.enumerate() {
        let others = DIALECTS.iter().filter(|other| **other != example.protocol);
        let others: Vec<_> = others.copied().collect();
        for &client in &others {
            let each: Vec<_> = example.bytes.chunks(1).collect();
            let whole = pushed(example, client, &[&example.bytes]);
            assert!(pushed(example, client, &each) == whole, "{client:?}");
        }
        let client = others[number % others.len()];
        let whole = pushed(example, client, &[&example.bytes]);
        for cut in 1..example.bytes.len() {
            let (head, tail) = example.bytes.split_at(cut);
            let cuts = pushed(example, client, &[head, tail]);
            assert!(cuts == whole, "{}: {cut}", example.path.display());
        }
    }
}

fn pushed(example: &Example, client: Protocol, pieces: &[&[u8]]) -> Vec<u8> {
    let mut translator = translation(client, example.protocol)
        .stream(false)
        .expect("sound");
    let mut out = Vec::new();
    for piece in pieces {
        translator.push(piece, &mut out);
    }
    translator.finish(&mut out);
    out
}

/// What `example` becomes, protocol by protocol.
fn translated(example: &Example) -> String {
    let mut text = String::new();
    for other in DIALECTS
        .into_iter()
        .filter(|other| *other != example.protocol)
    {
        let (result, lost) = match example.kind {
            Kind::Request => request(example, other),
            Kind::Response => response(example, other),
            Kind::Stream => (stream(example, other), Vec::new()),
        };
        let _ = writeln!(text, "== {}", other.as_str());
        if !lost.is_empty() {
            let _ = writeln!(text, "lost: {}", lost.join(", "));
        }
        let _ = writeln!(text, "{}\n", result.trim_end());
    }
    text
}

fn request(example: &Example, target: Protocol) -> (String, Vec<String>) {
    let read = translate(&example.bytes, example.protocol, target);
    let read = read.unwrap_or_else(|error| panic!("{}: {error}", example.path.display()));
    (String::from_utf8(read.body).expect("sound"), read.lost)
}

fn response(example: &Example, client: Protocol) -> (String, Vec<String>) {
    let translation: Translation = translation(client, example.protocol);
    let (text, lost) = translation
        .response(&example.bytes)
        .unwrap_or_else(|error| panic!("{}: {error}", example.path.display()));
    (String::from_utf8(text).expect("sound"), lost)
}

fn stream(example: &Example, client: Protocol) -> String {
    let mut translator = translation(client, example.protocol)
        .stream(false)
        .expect("sound");
    let mut out = Vec::new();
    translator.push(&example.bytes, &mut out);
    let complete = translator.finish(&mut out);
    let is_error = example.path.ends_with("error.sse") || example.path.ends_with("error.hex");
    assert_eq!(complete, !is_error, "{}", example.path.display());
    match client {
        Protocol::BedrockConverse => frames(&out),
        _ => String::from_utf8(out).expect("sound"),
    }
}

/// AWS's frames as people can read them: the type of each and its data.
fn frames(mut bytes: &[u8]) -> String {
    let number = |at: &[u8]| u32::from_be_bytes(at[..4].try_into().expect("sound")) as usize;
    let mut text = String::new();
    while !bytes.is_empty() {
        let (total, headers) = (number(bytes), number(&bytes[4..]));
        let (frame, rest) = bytes.split_at(total);
        bytes = rest;
        let (headers, data) = frame[12..].split_at(headers);
        let headers = String::from_utf8_lossy(headers);
        let kind: String = headers.chars().filter(|c| !c.is_control()).collect();
        let data = String::from_utf8_lossy(&data[..data.len() - 4]);
        let _ = writeln!(text, "{kind} {data}");
    }
    text
}

/// A request in `client` for a provider that speaks `target`.
fn translate(
    body: &[u8],
    client: Protocol,
    target: Protocol,
) -> Result<TranslatedRequest, Malformed> {
    let (provider, model) = match target {
        Protocol::OpenaiChat | Protocol::OpenaiResponses => (Provider::Openai, "gpt-5"),
        Protocol::AnthropicMessages => (Provider::Anthropic, "claude-sonnet-4-5"),
        Protocol::GeminiGenerateContent => (Provider::Gemini, "gemini-3-pro"),
        Protocol::BedrockConverse => (Provider::Bedrock, "eu.anthropic.claude-sonnet-4-5"),
        _ => (Provider::OpenaiCompatible, "command-a-03-2025"),
    };
    let outside = Outside {
        model: Some(model),
        stream: false,
        version: None,
        now: 1_760_000_000,
        seed: "0123456789abcdef",
    };
    Translation::request(body, client, target, provider, outside)
}

/// For answers in `target` to a client that speaks `client`.
fn translation(client: Protocol, target: Protocol) -> Translation {
    let body = match client {
        Protocol::GeminiGenerateContent => r#"{"contents":[{"parts":[{"text":"x"}]}]}"#,
        Protocol::BedrockConverse => r#"{"messages":[{"role":"user","content":[{"text":"x"}]}]}"#,
        Protocol::OpenaiResponses => r#"{"input":"x"}"#,
        _ => r#"{"messages":[{"role":"user","content":"x"}]}"#,
    };
    translate(body.as_bytes(), client, target)
        .expect("sound")
        .translation
}
