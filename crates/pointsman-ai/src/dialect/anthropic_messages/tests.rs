use super::*;
use crate::{
    Provider,
    conversation::{Event, Message, Part, Request, Response, Role},
    dialect::{self, Setting},
    stream::{Framing, Unframed},
};

const SETTING: Setting<'static> = Setting {
    client: OWN,
    target: OWN,
    provider: Provider::Anthropic,
    model: "another",
    version: None,
    now: 1,
    seed: "s",
};

const REQUEST: &str = r#"{"model":"another","max_tokens":9000,"system":[{"type":"text","text":"be brief","cache_control":{"type":"ephemeral","ttl":"1h"}},{"type":"text","text":"be kind"}],
 "messages":[
 {"role":"user","content":"hello \u00e9"},
 {"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"S="},{"type":"redacted_thinking","data":"R="},{"type":"text","text":"ok"},{"type":"tool_use","id":"t1","name":"f","input":{"a":1.50}},{"type":"tool_use","id":"t2","name":"g","input":{}}]},
 {"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"one","is_error":true},{"type":"tool_result","tool_use_id":"t2","content":[{"type":"text","text":"two"},{"type":"image","source":{"type":"base64","media_type":"image/png","data":"aGk="}}]},{"type":"text","text":"go on"}]},
 {"role":"user","content":[{"type":"image","source":{"type":"url","url":"https://a/b"}},{"type":"image","source":{"type":"file","file_id":"f1"}},{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"aGk="},"title":"T","context":"C","citations":{"enabled":true},"cache_control":{"type":"ephemeral"}},{"type":"document","source":{"type":"text","media_type":"text/plain","data":"plain"}},{"type":"document","source":{"type":"url","url":"https://a/c.pdf"}},{"type":"document","source":{"type":"file","file_id":"f2"}},{"type":"search_result","source":"x","title":"y","content":[]}]}],
 "tools":[{"name":"f","description":"d","input_schema":{"type":"object","additionalProperties":false},"strict":true,"cache_control":{"type":"ephemeral"}},{"type":"web_search_20250305","name":"web_search"}],
 "tool_choice":{"type":"tool","name":"f","disable_parallel_tool_use":true},
 "thinking":{"type":"enabled","budget_tokens":2000},"output_config":{"format":{"type":"json_schema","schema":{"type":"object","additionalProperties":false}}},
 "temperature":0.70,"top_p":1,"top_k":5,"stop_sequences":["x"],"metadata":{"user_id":"u"},"service_tier":"standard_only","container":"c"}"#;

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
    let text = written(&read);
    assert_eq!(request(&text), read, "{text}");
    assert!(text.contains(r#""temperature":0.70"#), "{text}");
    assert!(text.contains(r#"{"a":1.50}"#), "{text}");
    assert!(text.contains(r#""text":"go on""#), "{text}");
    let roles: Vec<Role> = read.messages.iter().map(|message| message.role).collect();
    use Role::*;
    assert_eq!(roles, [System, User, Assistant, Tool, User, User]);
    let lost = read.features(OWN).without(EXPRESSES);
    assert_eq!(lost.iter().collect::<Vec<_>>(), []);
}

#[test]
fn anthropic_must_be_told_how_long_an_answer_may_be() {
    let asks = |text: &str| written(&request(text));
    let check = |settings: &str, expected: &str| {
        let text = asks(&format!(
            r#"{{"messages":[{{"role":"user","content":"x"}}]{settings}}}"#
        ));
        assert!(text.contains(expected), "{settings}: {text}");
    };
    check("", r#""max_tokens":4096,"#);
    check(r#","max_tokens":7"#, r#""max_tokens":7,"#);
    check(
        r#","max_tokens":7,"thinking":{"type":"enabled","budget_tokens":2000}"#,
        r#""max_tokens":2007,"#,
    );
    check(
        r#","thinking":{"type":"adaptive"},"output_config":{"effort":"max"}"#,
        r#""output_config":{"effort":"max"}"#,
    );
}

#[test]
fn an_effort_alone_becomes_a_budget() {
    for (effort, expected) in [
        (
            "low",
            r#""thinking":{"type":"enabled","budget_tokens":2048}"#,
        ),
        ("none", r#""thinking":{"type":"disabled"}"#),
        (
            "odd",
            r#""thinking":{"type":"enabled","budget_tokens":8192}"#,
        ),
    ] {
        let asked = Request {
            reasoning: Some(crate::conversation::ReasoningSettings {
                effort: Some(JsonStr::new(effort)),
                ..Default::default()
            }),
            ..Request::default()
        };
        let text = written(&asked);
        assert!(text.contains(expected), "{effort}: {text}");
    }
}

#[test]
fn a_budget_that_nobody_named_stays_within_the_limit() {
    let asked = |max_tokens: &'static str| Request {
        sampling: crate::conversation::Sampling {
            max_tokens: Some(max_tokens.into()),
            ..Default::default()
        },
        reasoning: Some(crate::conversation::ReasoningSettings {
            effort: Some(JsonStr::new("high")),
            ..Default::default()
        }),
        ..Request::default()
    };
    for (max_tokens, budget) in [
        ("100000", Some(16_384)),
        ("4096", Some(3_276)),
        ("1280", Some(1_024)),
        ("1279", None),
        ("7", None),
    ] {
        let text = written(&asked(max_tokens));
        let limit = format!(r#""max_tokens":{max_tokens},"#);
        assert!(text.contains(&limit), "{text}");
        let thinking = budget
            .map(|budget| format!(r#""thinking":{{"type":"enabled","budget_tokens":{budget}}}"#));
        match thinking {
            Some(thinking) => assert!(text.contains(&thinking), "{text}"),
            None => assert!(!text.contains("thinking"), "{text}"),
        }
    }
}

/// P-108
#[test]
fn billing_marks_leave_system_prompts() {
    let system = |text: &str| {
        let body = format!(
            r#"{{"system":[{{"type":"text","text":"{text}"}}],"messages":[{{"role":"user","content":"x"}}]}}"#
        );
        let read = request(&body);
        match read.messages[0].role {
            Role::System => match &read.messages[0].parts[0] {
                Part::Text(text) => text.text.decode().into_owned(),
                _ => panic!("text"),
            },
            _ => String::new(),
        }
    };
    assert_eq!(
        system("X-Anthropic-Billing-Header:abc=123;cch=456"),
        "x-anthropic-billing-header:abc=123"
    );
    assert_eq!(
        system("x-anthropic-billing-header:abc=1"),
        "x-anthropic-billing-header:abc=1"
    );
    assert_eq!(system("x-anthropic-billing-header: cch=1;"), "");
    assert_eq!(system("cch=1"), "cch=1");
}

/// P-120, and the words of `protocols.md` §3.2
#[test]
fn what_the_protocol_forbids_is_named() {
    for (text, expected) in [
        ("[]", "expected an object"),
        ("{}", "missing messages"),
        (r#"{"messages":[]}"#, "missing messages"),
        (r#"{"messages":"x"}"#, "missing messages"),
        (r#"{"messages":[1]}"#, "invalid message at index 1"),
        (
            r#"{"messages":[{"role":"user","content":"x"},{"role":1}]}"#,
            "invalid message at index 2",
        ),
        (
            r#"{"messages":[{"role":"user","content":null}]}"#,
            "invalid message content at index 1",
        ),
        (
            r#"{"messages":[{"role":"robot","content":"x"}]}"#,
            "messages[0].role: expected `user` or `assistant`",
        ),
        (
            r#"{"messages":[{"role":"user","content":[{"type":"text"}]}]}"#,
            "messages[0].content[0]: text: a string is missing",
        ),
        (
            r#"{"messages":[{"role":"user","content":["x"]}]}"#,
            "messages[0].content[0]: expected a content block",
        ),
        (
            r#"{"system":1,"messages":[{"role":"user","content":"x"}]}"#,
            "system: expected a string or a list of blocks",
        ),
    ] {
        let tree = dialect::parse(text.as_bytes()).unwrap();
        let error = read_request(tree.root()).unwrap_err();
        assert_eq!(error.to_string(), expected, "{text}");
    }
    // P-099, P-120: a picture that is nowhere is no picture.
    let odd = r#"{"messages":[{"role":"user","content":[{"type":"image","source":true},{"type":"image","source":{"type":"url","url":""}},{"type":"text","text":"x"}]}]}"#;
    assert_eq!(request(odd).messages[0].parts.len(), 1);
}

const RESPONSE: &str = r#"{"id":"msg_1","type":"message","role":"assistant","model":"another","content":[{"type":"thinking","thinking":"hm","signature":"S="},{"type":"text","text":"Hi","citations":[{"type":"char_location","cited_text":"c","document_index":0,"document_title":"T","start_char_index":0,"end_char_index":1}]},{"type":"tool_use","id":"t","name":"f","input":{"a":1}}],"stop_reason":"tool_use","stop_sequence":null,"usage":{"input_tokens":10,"cache_creation_input_tokens":3,"cache_read_input_tokens":20,"output_tokens":5}}"#;

fn response(text: &str) -> Response<'static> {
    let tree = Box::leak(Box::new(dialect::parse(Vec::leak(text.into())).unwrap()));
    read_response(tree.root(), &SETTING).unwrap()
}

#[test]
fn an_answer_survives_reading_and_writing() {
    let read = response(RESPONSE);
    let usage = read.usage.unwrap();
    assert_eq!((usage.prompt, usage.total), (30, 38));
    let mut out = Vec::new();
    write_response(&read, &SETTING, &mut Writer::new(&mut out));
    assert_eq!(response(&String::from_utf8(out).unwrap()), read);
}

#[test]
fn every_stop_reason_survives() {
    for reason in [
        "end_turn",
        "max_tokens",
        "stop_sequence",
        "tool_use",
        "pause_turn",
        "refusal",
    ] {
        let text = RESPONSE
            .replace(
                r#""stop_reason":"tool_use""#,
                &format!(r#""stop_reason":"{reason}""#),
            )
            .replace(
                r#",{"type":"tool_use","id":"t","name":"f","input":{"a":1}}"#,
                "",
            );
        let mut out = Vec::new();
        write_response(&response(&text), &SETTING, &mut Writer::new(&mut out));
        let written = String::from_utf8(out).unwrap();
        assert!(
            written.contains(&format!(r#""stop_reason":"{reason}""#)),
            "{written}"
        );
    }
}

#[test]
fn an_answer_without_anything_has_an_empty_text() {
    let mut out = Vec::new();
    write_response(&Response::default(), &SETTING, &mut Writer::new(&mut out));
    let text = String::from_utf8(out).unwrap();
    assert!(
        text.contains(r#""content":[{"type":"text","text":""}]"#),
        "{text}"
    );
    assert!(
        text.contains(r#""usage":{"input_tokens":0,"output_tokens":0}"#),
        "{text}"
    );
}

const EVENTS: [&str; 18] = [
    r#"{"type":"message_start","message":{"id":"m","type":"message","role":"assistant","model":"another","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":10,"output_tokens":1}}}"#,
    r#"{"type":"ping"}"#,
    r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}"#,
    r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hm"}}"#,
    r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"S="}}"#,
    r#"{"type":"content_block_stop","index":0}"#,
    r#"{"type":"content_block_start","index":1,"content_block":{"type":"redacted_thinking","data":"R="}}"#,
    r#"{"type":"content_block_stop","index":1}"#,
    r#"{"type":"content_block_start","index":2,"content_block":{"type":"text","text":""}}"#,
    r#"{"type":"content_block_delta","index":2,"delta":{"type":"text_delta","text":"Hi"}}"#,
    r#"{"type":"content_block_delta","index":2,"delta":{"type":"citations_delta","citation":{"type":"char_location","cited_text":"c","document_index":0,"document_title":"T","start_char_index":0,"end_char_index":1}}}"#,
    r#"{"type":"content_block_stop","index":2}"#,
    r#"{"type":"content_block_start","index":3,"content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}"#,
    r#"{"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":"{\"a\":"}}"#,
    r#"{"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":"1}"}}"#,
    r#"{"type":"content_block_stop","index":3}"#,
    r#"{"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":7}}"#,
    r#"{"type":"message_stop"}"#,
];

fn stream(events: &[&str]) -> Vec<u8> {
    let frames = events
        .iter()
        .map(|event| format!("event: x\ndata: {event}\n\n"));
    frames.collect::<String>().into_bytes()
}

fn events(stream: &[u8]) -> Vec<String> {
    let mut reader = StreamReader::new(&SETTING);
    let mut events = Vec::new();
    let mut sink = |event: Event<'_>| events.push(format!("{event:?}"));
    Framing::of(OWN).push(stream, |frame| match frame {
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
    Framing::of(OWN).push(&vendor, |frame| {
        if let Unframed::Event { name, data } = frame {
            reader.event(name, data, &mut |event| writer.write(&event, &mut out));
        }
    });
    let text = String::from_utf8_lossy(&out).into_owned();
    assert_eq!(events(&out), first, "{text}");
    assert!(text.contains(r#"{"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"input_tokens":10,"output_tokens":7}}"#), "{text}");
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
    let failed = r#"{"type":"error","error":{"type":"overloaded_error","message":"later"}}"#;
    let events = events(&stream(&[EVENTS[0], failed, EVENTS[17]]));
    assert!(
        events.last().unwrap().contains("overloaded_error"),
        "{events:?}"
    );
}

#[test]
fn errors_keep_their_type_unless_the_status_says_more() {
    let error = ErrorMessage {
        kind: Some(JsonStr::new("invalid_request_error")),
        message: JsonStr::new("no"),
        ..ErrorMessage::default()
    };
    for (status, expected) in [
        (200, "invalid_request_error"),
        (400, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (503, "overloaded_error"),
    ] {
        let mut out = Vec::new();
        write_error(status, &error, &mut Writer::new(&mut out));
        let text = format!(r#"{{"type":"error","error":{{"type":"{expected}","message":"no"}}}}"#);
        assert_eq!(String::from_utf8(out).unwrap(), text, "{status}");
    }
}

#[test]
fn results_come_first() {
    let body = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"before"},{"type":"tool_result","tool_use_id":"a","content":"r"}]}]}"#;
    let read = request(body);
    let kinds: Vec<(Role, usize)> = read
        .messages
        .iter()
        .map(|Message { role, parts, .. }| (*role, parts.len()))
        .collect();
    assert_eq!(kinds, [(Role::Tool, 1), (Role::User, 1)]);
}
