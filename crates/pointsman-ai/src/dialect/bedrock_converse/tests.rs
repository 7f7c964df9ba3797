use super::*;
use crate::{
    Protocol, Provider,
    conversation::{Block, Event, Part, Reasoning, Request, Response, Signature},
    dialect,
    json::string::JsonStr,
    stream::{Framing, Unframed},
};

const SETTING: Setting<'static> = Setting {
    client: Protocol::BedrockConverse,
    target: Protocol::BedrockConverse,
    provider: Provider::Bedrock,
    model: "anthropic.another",
    version: None,
    now: 1,
    seed: "s",
};

const REQUEST: &str = r#"{"messages":[
 {"role":"user","content":[{"text":"What is this? \u00e9"},{"image":{"format":"png","source":{"bytes":"aGk="}}},{"cachePoint":{"type":"default","ttl":"1h"}},
  {"document":{"format":"pdf","name":"a b","source":{"bytes":"aGk="},"context":"c","citations":{"enabled":true}}},{"document":{"format":"txt","name":"t","source":{"text":"hello"}}}]},
 {"role":"assistant","content":[{"reasoningContent":{"reasoningText":{"text":"hm","signature":"S="}}},{"reasoningContent":{"redactedContent":"R="}},{"text":"ok"},{"toolUse":{"toolUseId":"t1","name":"f","input":{"a":1.50}}},{"toolUse":{"toolUseId":"t2","name":"g","input":{}}}]},
 {"role":"user","content":[{"toolResult":{"toolUseId":"t1","content":[{"text":"1"},{"image":{"format":"jpeg","source":{"bytes":"aGk="}}}],"status":"error"}},{"toolResult":{"toolUseId":"t2","content":[{"json":{"x":[1]}}]}},{"text":"go on"}]}],
 "system":[{"text":"be brief"},{"cachePoint":{"type":"default"}},{"text":"be kind"}],
 "inferenceConfig":{"maxTokens":100,"temperature":0.70,"topP":1,"stopSequences":["x","y"]},
 "toolConfig":{"tools":[{"toolSpec":{"name":"f","description":"d","inputSchema":{"json":{"type":"object","properties":{"a":{"type":"number"}}}}}},{"cachePoint":{"type":"default"}},{"toolSpec":{"name":"g","inputSchema":{"json":{"type":"object"}}}}],"toolChoice":{"tool":{"name":"f"}}},
 "additionalModelRequestFields":{"top_k":5,"thinking":{"type":"enabled","budget_tokens":2000}},
 "requestMetadata":{"team":"blue"},"serviceTier":{"type":"flex"},"guardrailConfig":{"guardrailIdentifier":"g"}}"#;

fn request(text: &str) -> Request<'static> {
    let tree = Box::leak(Box::new(dialect::parse(Vec::leak(text.into())).unwrap()));
    read_request(tree.root()).unwrap()
}

fn written(request: &Request<'_>) -> String {
    let mut out = Vec::new();
    write_request(request, &SETTING, &mut Writer::new(&mut out));
    String::from_utf8(out).unwrap()
}

#[test]
fn a_request_survives_reading_and_writing() {
    let read = request(REQUEST);
    let again = request(&written(&read));
    assert_eq!(again, read);
    assert_eq!(read.messages.len(), 5, "{:?}", read.messages);
    let text = written(&read);
    assert!(text.contains(r#""temperature":0.70"#), "{text}");
    assert!(text.contains(r#"{"a":1.50}"#), "{text}");
    let lost = read
        .features(Protocol::BedrockConverse)
        .without(expresses(&read, &SETTING));
    assert_eq!(lost.iter().collect::<Vec<_>>(), []);
}

#[test]
fn what_other_models_do_not_know_is_a_loss() {
    let other = Setting {
        model: "amazon.nova-pro-v1:0",
        ..SETTING
    };
    let read = request(REQUEST);
    let lost = read
        .features(Protocol::BedrockConverse)
        .without(expresses(&read, &other));
    let lost: Vec<_> = lost.iter().map(|feature| feature.name()).collect();
    assert_eq!(lost, ["reasoning.budget", "top_k"]);
    let mut out = Vec::new();
    write_request(&read, &other, &mut Writer::new(&mut out));
    assert!(!String::from_utf8(out).unwrap().contains("additionalModel"));
}

#[test]
fn what_the_protocol_forbids_is_named() {
    for (text, expected) in [
        ("[]", "expected an object"),
        ("{}", "messages: a list of messages is missing"),
        (
            r#"{"messages":{}}"#,
            "messages: expected a list of messages",
        ),
        (
            r#"{"messages":[{"role":"system","content":[]}]}"#,
            "messages[0].role: role: expected `user` or `assistant`",
        ),
        (
            r#"{"messages":[{"role":"user","content":"x"}]}"#,
            "messages[0]: content: a list of content blocks is missing",
        ),
        (
            r#"{"messages":[{"role":"user","content":[{"text":1}]}]}"#,
            "messages[0].content[0].text: expected a string",
        ),
        (
            r#"{"messages":[{"role":"user","content":[{"toolResult":{}}]}]}"#,
            "messages[0].content[0].toolResult: toolUseId: a string is missing",
        ),
    ] {
        let tree = dialect::parse(text.as_bytes()).unwrap();
        let error = read_request(tree.root()).unwrap_err();
        assert_eq!(error.to_string(), expected, "{text}");
    }
}

const RESPONSE: &str = r#"{"output":{"message":{"role":"assistant","content":[{"reasoningContent":{"reasoningText":{"text":"hm","signature":"S="}}},{"text":"Hi"},{"toolUse":{"toolUseId":"t","name":"f","input":{"a":1}}}]}},"stopReason":"tool_use","usage":{"inputTokens":10,"outputTokens":5,"totalTokens":38,"cacheReadInputTokens":20,"cacheWriteInputTokens":3},"metrics":{"latencyMs":7}}"#;

fn response(text: &str) -> Response<'static> {
    let tree = Box::leak(Box::new(dialect::parse(Vec::leak(text.into())).unwrap()));
    read_response(tree.root(), &SETTING).unwrap()
}

#[test]
fn an_answer_survives_reading_and_writing() {
    let read = response(RESPONSE);
    assert_eq!(read.usage.unwrap().prompt, 30);
    let mut out = Vec::new();
    write_response(&read, &SETTING, &mut Writer::new(&mut out));
    assert_eq!(response(&String::from_utf8(out).unwrap()), read);
}

/// AWS's clients decode `redactedContent` and encode it again, so that it must be base64.
#[test]
fn hidden_thoughts_of_others_are_bytes() {
    let foreign = |data: &'static str| Signature {
        origin: Protocol::AnthropicMessages,
        data: JsonStr::new(data),
    };
    let hidden = Part::Reasoning(Reasoning {
        signature: Some(foreign("not/base64!")),
        is_hidden: true,
        ..Reasoning::default()
    });
    let mut read = response(RESPONSE);
    read.choices[0].parts.push(hidden.clone());
    let mut out = Vec::new();
    write_response(&read, &SETTING, &mut Writer::new(&mut out));
    let text = String::from_utf8(out).unwrap();
    let bytes = crate::base64::encode(b"pm.anthropic-messages.not/base64!");
    let field = format!(r#"{{"redactedContent":"{bytes}"}}"#);
    assert!(text.contains(&field), "{text}");
    assert_eq!(response(&text).choices[0].parts.last(), Some(&hidden));

    let mut writer = StreamWriter::new(&SETTING);
    let mut out = Vec::new();
    for event in [
        Event::BlockStart {
            choice: 0,
            block: Block::Hidden,
        },
        Event::Signature {
            choice: 0,
            signature: foreign("x y"),
        },
        Event::BlockEnd { choice: 0 },
    ] {
        writer.write(&event, &mut out);
    }
    let bytes = crate::base64::encode(b"pm.anthropic-messages.x y");
    let text = String::from_utf8_lossy(&out);
    assert!(text.contains(&bytes), "{text}");
    let read = events(&out, false);
    let signature = format!("{:?}", foreign("x y"));
    assert!(
        read.iter().any(|event| event.contains(&signature)),
        "{read:?}"
    );
}

fn events(stream: &[u8], finish: bool) -> Vec<String> {
    let mut framing = Framing::of(Protocol::BedrockConverse);
    let mut reader = StreamReader::new(&SETTING);
    let mut events = Vec::new();
    let mut sink = |event: Event<'_>| events.push(format!("{event:?}"));
    framing.push(stream, |frame| match frame {
        Unframed::Event { name, data } => reader.event(name, data, &mut sink),
        Unframed::Broken(what) => panic!("{what}"),
    });
    if finish {
        reader.finish(&mut sink);
    }
    events
}

fn stream(frames: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, data) in frames {
        crate::stream::aws::write_event(&mut out, name, |out| {
            out.extend_from_slice(data.as_bytes());
        });
    }
    out
}

const FRAMES: [(&str, &str); 12] = [
    ("messageStart", r#"{"role":"assistant","p":"abc"}"#),
    (
        "contentBlockDelta",
        r#"{"delta":{"reasoningContent":{"text":"hm"}},"contentBlockIndex":0}"#,
    ),
    (
        "contentBlockDelta",
        r#"{"delta":{"reasoningContent":{"signature":"S="}},"contentBlockIndex":0}"#,
    ),
    ("contentBlockStop", r#"{"contentBlockIndex":0}"#),
    (
        "contentBlockDelta",
        r#"{"delta":{"text":"Hi"},"contentBlockIndex":1}"#,
    ),
    ("contentBlockStop", r#"{"contentBlockIndex":1}"#),
    (
        "contentBlockStart",
        r#"{"start":{"toolUse":{"toolUseId":"t","name":"f"}},"contentBlockIndex":2}"#,
    ),
    (
        "contentBlockDelta",
        r#"{"delta":{"toolUse":{"input":"{\"a\":"}},"contentBlockIndex":2}"#,
    ),
    (
        "contentBlockDelta",
        r#"{"delta":{"toolUse":{"input":"1}"}},"contentBlockIndex":2}"#,
    ),
    ("contentBlockStop", r#"{"contentBlockIndex":2}"#),
    ("messageStop", r#"{"stopReason":"tool_use"}"#),
    (
        "metadata",
        r#"{"usage":{"inputTokens":1,"outputTokens":2,"totalTokens":3},"metrics":{"latencyMs":1}}"#,
    ),
];

#[test]
fn a_stream_survives_reading_and_writing() {
    let vendor = stream(&FRAMES);
    let first = events(&vendor, true);
    assert_eq!(first.last().unwrap(), "End");
    assert_eq!(
        first
            .iter()
            .filter(|event| event.contains("BlockStart"))
            .count(),
        3
    );
    let mut writer = StreamWriter::new(&SETTING);
    let mut reader = StreamReader::new(&SETTING);
    let mut out = Vec::new();
    let mut framing = Framing::of(Protocol::BedrockConverse);
    framing.push(&vendor, |frame| {
        if let Unframed::Event { name, data } = frame {
            reader.event(name, data, &mut |event| writer.write(&event, &mut out));
        }
    });
    assert_eq!(events(&out, true), first);
}

#[test]
fn a_stream_that_ends_early_is_an_error() {
    for frames in 0..FRAMES.len() {
        let events = events(&stream(&FRAMES[..frames]), true);
        let complete = frames == FRAMES.len() - 1;
        let last = events.last().unwrap();
        assert_eq!(last == "End", complete, "{frames}: {last}");
        assert_eq!(last.starts_with("Error"), !complete, "{frames}: {last}");
    }
    let mut broken = stream(&FRAMES[..5]);
    crate::stream::aws::write_exception(&mut broken, "throttlingException", |out| {
        out.extend_from_slice(br#"{"message":"slow down"}"#);
    });
    let events = events(&broken, true);
    let last = events.last().unwrap();
    assert!(
        last.contains("throttlingException") && last.contains("slow down"),
        "{last}"
    );
}

#[test]
fn a_meter_reads_what_a_stream_came_to() {
    let mut meter = crate::StreamMeter::new(Protocol::BedrockConverse, crate::Capture::Text);
    for piece in stream(&FRAMES).chunks(7) {
        meter.push(piece);
    }
    let facts = meter.finish();
    assert!(facts.done && facts.has_tool_calls);
    assert_eq!(facts.text.as_deref(), Some("Hi"));
    assert_eq!(
        facts
            .usage
            .map(|usage| (usage.prompt, usage.completion, usage.total)),
        Some((1, 2, 3))
    );
    let whole = crate::read_response(
        Protocol::BedrockConverse,
        RESPONSE.as_bytes(),
        crate::Capture::Text,
    );
    let whole = whole.unwrap();
    let usage = whole.usage.unwrap();
    assert_eq!(
        (
            usage.prompt,
            usage.cache_read,
            usage.cache_creation,
            usage.total
        ),
        (10, 20, 3, 38)
    );
    assert_eq!(
        (whole.text.as_deref(), whole.has_tool_calls),
        (Some("Hi"), true)
    );
}
