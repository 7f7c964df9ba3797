use super::*;
use crate::{
    Protocol, Provider,
    conversation::{Event, Request, Response},
    dialect::{self, Setting},
    stream::{Framing, Unframed},
};

const SETTING: Setting<'static> = Setting {
    client: Protocol::CohereChat,
    target: Protocol::CohereChat,
    provider: Provider::Cohere,
    model: "command-a",
    version: None,
    now: 1,
    seed: "s",
};

const REQUEST: &str = r#"{"model":"command-a","stream":true,"messages":[
 {"role":"system","content":"be brief"},
 {"role":"user","content":[{"type":"text","text":"What?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,aGk=","detail":"low"}},{"type":"image_url","image_url":{"url":"https://a/b.png"}}]},
 {"role":"assistant","tool_plan":"I will call","tool_calls":[{"id":"t1","type":"function","function":{"name":"f","arguments":"{\"a\":1.50}"}},{"id":"t2","type":"function","function":{"name":"g","arguments":"{}"}}]},
 {"role":"tool","tool_call_id":"t1","content":"one"},
 {"role":"tool","tool_call_id":"t2","content":[{"type":"document","document":{"id":"d","data":"two"}},{"type":"text","text":"three"}]},
 {"role":"assistant","content":[{"type":"thinking","thinking":"hm"},{"type":"text","text":"done"}]},
 {"role":"system","content":"late"},
 {"role":"user","content":"thanks"}],
 "tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"}}}],"strict_tools":true,"tool_choice":"REQUIRED",
 "response_format":{"type":"json_object","json_schema":{"type":"object"}},"thinking":{"type":"enabled","token_budget":500},
 "max_tokens":10,"temperature":0.30,"p":0.9,"k":7,"seed":1,"frequency_penalty":0.1,"presence_penalty":0.2,"stop_sequences":["x"],"safety_mode":"OFF"}"#;

fn request(text: &str) -> Request<'static> {
    let tree = Box::leak(Box::new(dialect::parse(Vec::leak(text.into())).unwrap()));
    let mut request = read_request(tree.root()).unwrap();
    request.stream = true;
    request
}

#[test]
fn a_request_survives_reading_and_writing() {
    let read = request(REQUEST);
    let mut out = Vec::new();
    write_request(&read, &SETTING, &mut Writer::new(&mut out));
    let text = String::from_utf8(out).unwrap();
    assert_eq!(request(&text), read, "{text}");
    assert!(text.contains(r#""temperature":0.30"#), "{text}");
    assert!(text.contains(r#""safety_mode":"OFF""#), "{text}");
    let lost = read.features(Protocol::CohereChat).without(EXPRESSES);
    assert_eq!(lost.iter().collect::<Vec<_>>(), []);
}

#[test]
fn what_the_protocol_forbids_is_named() {
    for (text, expected) in [
        ("[]", "expected an object"),
        ("{}", "messages: a list of messages is missing"),
        (
            r#"{"messages":[]}"#,
            "messages: a list of messages is missing",
        ),
        (
            r#"{"messages":[{"role":"model","content":""}]}"#,
            "messages[0].role: role: expected `system`, `user`, `assistant` or `tool`",
        ),
        (
            r#"{"messages":[{"role":"user"}]}"#,
            "messages[0]: content is missing",
        ),
        (
            r#"{"messages":[{"role":"user","content":1}]}"#,
            "messages[0].content: expected a string or a list of parts",
        ),
        (
            r#"{"messages":[{"role":"tool","content":""}]}"#,
            "messages[0]: tool_call_id: a string is missing",
        ),
        (
            r#"{"messages":[{"role":"user","content":"x"}],"tool_choice":"x"}"#,
            "tool_choice: expected `REQUIRED` or `NONE`",
        ),
    ] {
        let tree = dialect::parse(text.as_bytes()).unwrap();
        let error = read_request(tree.root()).unwrap_err();
        assert_eq!(error.to_string(), expected, "{text}");
    }
}

const RESPONSE: &str = r#"{"id":"r1","finish_reason":"TOOL_CALL","message":{"role":"assistant","tool_plan":"plan","content":[{"type":"text","text":"Hi"}],"tool_calls":[{"id":"t","type":"function","function":{"name":"f","arguments":"{}"}}]},"usage":{"billed_units":{"input_tokens":5,"output_tokens":2},"tokens":{"input_tokens":71.0,"output_tokens":8},"cached_tokens":4}}"#;

fn response(text: &str) -> Response<'static> {
    let tree = Box::leak(Box::new(dialect::parse(Vec::leak(text.into())).unwrap()));
    read_response(tree.root(), &SETTING).unwrap()
}

#[test]
fn an_answer_survives_reading_and_writing() {
    let read = response(RESPONSE);
    let usage = read.usage.unwrap();
    assert_eq!(
        (usage.prompt, usage.completion, usage.cache_read),
        (71, 8, 4)
    );
    let mut out = Vec::new();
    write_response(&read, &SETTING, &mut Writer::new(&mut out));
    assert_eq!(response(&String::from_utf8(out).unwrap()), read);

    let cited = r#"{"id":"r","finish_reason":"COMPLETE","message":{"role":"assistant","content":[{"type":"text","text":"Hi"}],"citations":[{"start":0,"end":2,"text":"Hi","sources":[{"type":"document","id":"1","document":{"url":"https://a","title":"A"}}]}]}}"#;
    let Part::Text(text) = &response(cited).choices[0].parts[0] else {
        panic!("text");
    };
    assert_eq!(text.citations[0].span, Some((0, 2)));
    assert!(text.citations[0].url.as_ref().unwrap().is("https://a"));
}

use crate::conversation::Part;

const EVENTS: [&str; 12] = [
    r#"{"type":"message-start","id":"m","delta":{"message":{"role":"assistant","content":[],"tool_plan":"","tool_calls":[],"citations":[]}}}"#,
    r#"{"type":"content-start","index":0,"delta":{"message":{"content":{"type":"thinking","thinking":""}}}}"#,
    r#"{"type":"content-delta","index":0,"delta":{"message":{"content":{"thinking":"hm"}}}}"#,
    r#"{"type":"content-end","index":0}"#,
    r#"{"type":"content-start","index":1,"delta":{"message":{"content":{"type":"text","text":""}}}}"#,
    r#"{"type":"content-delta","index":1,"delta":{"message":{"content":{"text":"Hi"}}}}"#,
    r#"{"type":"citation-start","index":0,"delta":{"message":{"citations":{"start":0,"end":2,"text":"Hi","sources":[{"type":"document","id":"1","document":{"url":"https://a"}}]}}}}"#,
    r#"{"type":"content-end","index":1}"#,
    r#"{"type":"tool-call-start","index":0,"delta":{"message":{"tool_calls":{"id":"t","type":"function","function":{"name":"f","arguments":""}}}}}"#,
    r#"{"type":"tool-call-delta","index":0,"delta":{"message":{"tool_calls":{"function":{"arguments":"{}"}}}}}"#,
    r#"{"type":"tool-call-end","index":0}"#,
    r#"{"type":"message-end","delta":{"finish_reason":"TOOL_CALL","usage":{"tokens":{"input_tokens":1,"output_tokens":2}}}}"#,
];

fn stream(events: &[&str]) -> Vec<u8> {
    events
        .iter()
        .flat_map(|event| format!("event: x\ndata: {event}\n\n").into_bytes())
        .collect()
}

fn events(stream: &[u8]) -> Vec<String> {
    let mut framing = Framing::of(Protocol::CohereChat);
    let mut reader = StreamReader::new(&SETTING);
    let mut events = Vec::new();
    let mut sink = |event: Event<'_>| match event {
        // How the source is spelt is each writer's own matter.
        Event::Citation { citation, .. } => {
            events.push(format!("{:?} {:?}", citation.url, citation.span))
        }
        event => events.push(format!("{event:?}")),
    };
    framing.push(stream, |frame| match frame {
        Unframed::Event { name, data } => reader.event(name, data, &mut sink),
        Unframed::Broken(what) => panic!("{what}"),
    });
    reader.finish(&mut sink);
    events
}

#[test]
fn a_stream_survives_reading_and_writing() {
    let vendor = stream(&EVENTS);
    let first = events(&vendor);
    assert_eq!(first.last().unwrap(), "End");
    let mut writer = StreamWriter::new(&SETTING);
    let mut reader = StreamReader::new(&SETTING);
    let mut out = Vec::new();
    Framing::of(Protocol::CohereChat).push(&vendor, |frame| {
        if let Unframed::Event { name, data } = frame {
            reader.event(name, data, &mut |event| writer.write(&event, &mut out));
        }
    });
    let text = String::from_utf8_lossy(&out).into_owned();
    assert_eq!(events(&out), first, "{text}");
}

#[test]
fn a_stream_that_ends_early_is_an_error() {
    for count in 0..EVENTS.len() {
        let events = events(&stream(&EVENTS[..count]));
        assert!(
            events.last().unwrap().starts_with("Error"),
            "{count}: {events:?}"
        );
    }
    let failed =
        r#"{"type":"message-end","delta":{"finish_reason":"ERROR","error":"out of luck"}}"#;
    let events = events(&stream(&[EVENTS[0], failed]));
    assert!(events.last().unwrap().contains("out of luck"), "{events:?}");
}
