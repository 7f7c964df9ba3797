use super::*;
use crate::{
    conversation::{Event, Part, Request, Response},
    dialect,
    stream::{Framing, Unframed},
};

const SETTING: Setting<'static> = Setting {
    client: OWN,
    target: OWN,
    provider: Provider::Openai,
    model: "gpt",
    now: 1,
    seed: "s",
};
const FROM_ANTHROPIC: Setting<'static> = Setting {
    client: Protocol::AnthropicMessages,
    provider: Provider::OpenaiCompatible,
    ..SETTING
};

const REQUEST: &str = r#"{"model":"gpt","messages":[
 {"role":"system","content":"be brief"},{"role":"developer","content":"be kind"},
 {"role":"user","name":"ann","content":[{"type":"text","text":"What? \u00e9"},{"type":"image_url","image_url":{"url":"data:image/png;base64,aGk=","detail":"low"}},{"type":"image_url","image_url":{"url":"https://a/b.png"}},{"type":"input_audio","input_audio":{"data":"aGk=","format":"mp3"}},{"type":"file","file":{"filename":"a.pdf","file_data":"data:application/pdf;base64,aGk="}},{"type":"file","file":{"file_id":"f1"}}]},
 {"role":"assistant","reasoning_details":[{"type":"reasoning.text","text":"hm","signature":"S="},{"type":"reasoning.encrypted","data":"R="}],"content":"ok","tool_calls":[{"id":"t1","type":"function","function":{"name":"f","arguments":"{\"a\":1.50}"},"extra_content":{"google":{"thought_signature":"G="}}},{"id":"t2","type":"function","function":{"name":"g","arguments":"{}"}}]},
 {"role":"tool","tool_call_id":"t1","content":"one"},{"role":"tool","tool_call_id":"t2","content":[{"type":"text","text":"two"},{"type":"image_url","image_url":{"url":"https://a/c.png"}}]},
 {"role":"assistant","refusal":"no"},{"role":"system","content":"late"},{"role":"user","content":"thanks"}],
 "tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"},"strict":true}}],"tool_choice":{"type":"function","function":{"name":"f"}},"parallel_tool_calls":false,
 "response_format":{"type":"json_schema","json_schema":{"name":"n","description":"d","schema":{"type":"object"},"strict":true}},"reasoning_effort":"low",
 "max_completion_tokens":10,"temperature":0.70,"top_p":1,"frequency_penalty":0.1,"presence_penalty":0.2,"seed":-7,"n":2,"stop":["x"],"logprobs":true,"top_logprobs":3,"logit_bias":{"5":1},
 "user":"u","metadata":{"team":"blue"},"service_tier":"flex","store":true}"#;

fn request(text: &str) -> Request<'static> {
    let tree = Box::leak(Box::new(dialect::parse(Vec::leak(text.into())).unwrap()));
    read_request(tree.root()).unwrap()
}

fn written(request: &Request<'_>, setting: &Setting<'_>) -> String {
    let mut out = Vec::new();
    write_request(request, setting, &mut Writer::new(&mut out));
    String::from_utf8(out).unwrap()
}

#[test]
fn a_request_survives_reading_and_writing() {
    let read = request(REQUEST);
    let text = written(&read, &SETTING);
    assert_eq!(request(&text), read, "{text}");
    for kept in [
        r#""temperature":0.70"#,
        r#"{\"a\":1.50}"#,
        r#""store":true"#,
        r"What? \u00e9",
    ] {
        assert!(text.contains(kept), "{kept}: {text}");
    }
    let lost = read.features(OWN).without(expresses(&SETTING));
    assert_eq!(lost.iter().collect::<Vec<_>>(), []);
}

#[test]
fn what_the_protocol_forbids_is_named() {
    for (text, expected) in [
        ("[]", "expected an object"),
        ("{}", "messages: a list of messages is missing"),
        (
            r#"{"messages":[{"role":"robot","content":""}]}"#,
            "messages[0].role: role: expected `system`, `developer`, `user`, `assistant` or `tool`",
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
            r#"{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}"#,
            "messages[0].content[0]: image_url.url: a string is missing",
        ),
        (
            r#"{"messages":[{"role":"tool","content":""}]}"#,
            "messages[0]: tool_call_id: a string is missing",
        ),
        (
            r#"{"messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":{}}]}"#,
            "tools[0].function: name: a string is missing",
        ),
        (
            r#"{"messages":[{"role":"user","content":"x"}],"response_format":{"type":"xml"}}"#,
            "response_format: type: expected `text`, `json_object` or `json_schema`",
        ),
    ] {
        let tree = dialect::parse(text.as_bytes()).unwrap();
        let error = read_request(tree.root()).unwrap_err();
        assert_eq!(error.to_string(), expected, "{text}");
    }
}

fn from_anthropic(text: &str) -> String {
    let tree = dialect::parse(text.as_bytes()).unwrap();
    let mut read = dialect::read_request(Protocol::AnthropicMessages, tree.root()).unwrap();
    read.stream = text.contains(r#""stream":true"#);
    written(&read, &FROM_ANTHROPIC)
}

const USER: &str = r#""messages":[{"role":"user","content":"x"}]"#;

fn check(body: &str, expected: &[&str], absent: &[&str]) {
    let text = from_anthropic(body);
    for part in expected {
        assert!(text.contains(part), "{body}\n{part}\n{text}");
    }
    for part in absent {
        assert!(!text.contains(part), "{body}\nnot {part}\n{text}");
    }
}

/// P-091 to P-119: what APISIX's converter makes of Anthropic's requests
#[test]
fn requests_of_anthropic_clients() {
    let user = USER;
    check(
        &format!(
            r#"{{"system":"s",{user},"max_tokens":5,"top_k":3,"metadata":{{"user_id":"u"}},"stop_sequences":["a"],"stream":true}}"#
        ),
        &[
            r#"{"role":"system","content":"s"},{"role":"user","content":"x"}"#,
            r#""max_completion_tokens":5"#,
            r#""user":"u""#,
            r#""stop":["a"]"#,
            r#""stream_options":{"include_usage":true}"#,
        ],
        &["top_k", "metadata", "\"max_tokens\""],
    );
    check(
        &format!(
            r#"{{"system":[{{"type":"text","text":"a","cache_control":{{"type":"ephemeral"}}}},{{"type":"text","text":"b"}}],{user}}}"#
        ),
        &[r#"{"role":"system","content":"ab"}"#],
        &["cache_control", "stream_options"],
    );
    check(
        r#"{"messages":[{"role":"assistant","content":[{"type":"text","text":"a"},{"type":"text","text":"b"},{"type":"tool_use","id":"1","name":"f","input":{}}]},{"role":"user","content":[{"type":"text","text":"t"},{"type":"tool_result","tool_use_id":"1","content":[{"type":"text","text":"r"},{"type":"text","text":"s"}]}]}]}"#,
        &[
            r#"{"role":"assistant","content":"ab","tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]}"#,
            r#"{"role":"tool","tool_call_id":"1","content":"rs"},{"role":"user","content":[{"type":"text","text":"t"}]}"#,
        ],
        &[],
    );
    check(
        r#"{"messages":[{"role":"user","content":[{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"QQ=="}},{"type":"document","source":{"type":"text","media_type":"text/plain","data":"plain"}}]}]}"#,
        &[
            r#"{"type":"image_url","image_url":{"url":"data:application/pdf;base64,QQ=="}}"#,
            r#"{"type":"text","text":"plain"}"#,
        ],
        &[],
    );
}

/// P-095, P-096, P-102, P-103, P-115, P-118, G-09
#[test]
fn tools_and_formats_of_anthropic_clients() {
    let user = USER;
    check(
        &format!(
            r#"{{{user},"tools":[{{"name":"f","input_schema":{{"type":"object"}}}},{{"type":"bash_20250124","name":"bash"}}],"tool_choice":{{"type":"any","disable_parallel_tool_use":true}}}}"#
        ),
        &[
            r#""tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}],"tool_choice":"required","parallel_tool_calls":false"#,
        ],
        &["bash"],
    );
    check(
        &format!(
            r#"{{{user},"tools":[],"tool_choice":{{"type":"auto","disable_parallel_tool_use":true}}}}"#
        ),
        &[],
        &["tool"],
    );
    check(
        &format!(
            r#"{{{user},"output_config":{{"format":{{"type":"json_schema","schema":{{"type":"object","properties":{{"a":{{}}}}}}}}}}}}"#
        ),
        &[
            r#""response_format":{"type":"json_schema","json_schema":{"name":"structured_output","schema":{"type":"object","properties":{"a":{}},"additionalProperties":false,"required":["a"]},"strict":true}}"#,
        ],
        &[],
    );
    check(
        r#"{"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"1","content":"x","is_error":true}]}]}"#,
        &[r#"{"role":"tool","tool_call_id":"1","content":"Error: x"}"#],
        &[r#""role":"user""#],
    );
}

/// P-097, P-098
#[test]
fn budgets_become_efforts() {
    let check = |thinking: &str, expected: Option<&str>| {
        let text = from_anthropic(&format!(
            r#"{{"messages":[{{"role":"user","content":"x"}}],{thinking}}}"#
        ));
        let found = text.split(r#""reasoning_effort":""#).nth(1);
        let found = found.map(|rest| rest.split('"').next().unwrap());
        assert_eq!(found, expected, "{thinking}");
    };
    for (budget, effort) in [
        (0, "minimal"),
        (1023, "minimal"),
        (1024, "low"),
        (2047, "low"),
        (2048, "medium"),
        (4095, "medium"),
        (4096, "high"),
        (32000, "high"),
    ] {
        let thinking = format!(r#""thinking":{{"type":"enabled","budget_tokens":{budget}}}"#);
        check(&thinking, Some(effort));
    }
    check(r#""thinking":{"type":"enabled"}"#, Some("minimal"));
    check(r#""thinking":{"type":"disabled"}"#, None);
    check(r#""thinking":{"type":"adaptive"}"#, Some("medium"));
    check(
        r#""thinking":{"type":"adaptive"},"output_config":{"effort":"xhigh"}"#,
        Some("xhigh"),
    );
    check(
        r#""thinking":{"type":"adaptive"},"output_config":{"effort":""}"#,
        Some("medium"),
    );
    check(r#""output_config":{"effort":"high"}"#, None);
}

const RESPONSE: &str = r#"{"id":"c1","object":"chat.completion","created":5,"model":"gpt-x","choices":[{"index":0,"message":{"role":"assistant","content":"Hi","reasoning_details":[{"type":"reasoning.text","text":"hm","signature":"S="}],"annotations":[{"type":"url_citation","url_citation":{"url":"https://a","title":"A","start_index":0,"end_index":2}}],"tool_calls":[{"id":"t","type":"function","function":{"name":"f","arguments":"{}"}}]},"logprobs":{"content":[]},"finish_reason":"tool_calls"},{"index":1,"message":{"role":"assistant","content":null,"refusal":"no"},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":30,"completion_tokens":5,"total_tokens":40,"prompt_tokens_details":{"cached_tokens":10,"cache_creation_input_tokens":5},"completion_tokens_details":{"reasoning_tokens":2}},"service_tier":"default"}"#;

fn response(text: &str) -> Response<'static> {
    let tree = Box::leak(Box::new(dialect::parse(Vec::leak(text.into())).unwrap()));
    read_response(tree.root(), &SETTING).unwrap()
}

#[test]
fn an_answer_survives_reading_and_writing() {
    let read = response(RESPONSE);
    let mut out = Vec::new();
    write_response(&read, &SETTING, &mut Writer::new(&mut out));
    let text = String::from_utf8(out).unwrap();
    assert_eq!(response(&text), read, "{text}");
    assert_eq!(read.choices[1].stop, Stop::Refusal);
}

fn to_anthropic(text: &str) -> String {
    let mut out = Vec::new();
    let setting = Setting {
        client: Protocol::AnthropicMessages,
        ..SETTING
    };
    dialect::write_response(&response(text), &setting, &mut Writer::new(&mut out));
    String::from_utf8(out).unwrap()
}

/// P-121 to P-127
#[test]
fn answers_to_anthropic_clients() {
    let answer = |message: &str, rest: &str| {
        to_anthropic(&format!(
            r#"{{"id":"c","choices":[{{"message":{message},"finish_reason":"stop"}}]{rest}}}"#
        ))
    };
    let text = answer(
        r#"{"content":null,"tool_calls":[{"id":"t","function":{"name":"f","arguments":"{\"a\":1}"}}]}"#,
        "",
    );
    assert!(text.contains(r#""content":[{"type":"tool_use","id":"t","name":"f","input":{"a":1}}],"stop_reason":"tool_use""#), "{text}");
    let text = answer(
        r#"{"content":"x","reasoning_content":"hm"}"#,
        r#","usage":{"prompt_tokens":30,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":10,"cache_creation_input_tokens":5}}"#,
    );
    assert!(
        text.contains(
            r#"[{"type":"thinking","thinking":"hm","signature":""},{"type":"text","text":"x"}]"#
        ),
        "{text}"
    );
    assert!(text.contains(r#""usage":{"input_tokens":20,"output_tokens":1,"cache_creation_input_tokens":5,"cache_read_input_tokens":10}"#), "{text}");
    for odd in ["{not valid json", "123", "[1]"] {
        let call = format!(
            r#"{{"content":"kept","tool_calls":[{{"id":"t","function":{{"name":"f","arguments":"{odd}"}}}}]}}"#
        );
        let text = answer(&call, "");
        assert!(
            text.contains("kept") && text.contains(r#""input":{}"#),
            "{text}"
        );
    }
    let text = answer("null", r#","usage":null"#);
    assert!(
        text.contains(r#""content":[{"type":"text","text":""}]"#),
        "{text}"
    );
    let text = answer(r#"{"tool_calls":[{"id":"t","function":null}]}"#, "");
    assert!(text.contains(r#""name":"","input":{}"#), "{text}");
    let text = answer(r#"{"refusal":"no"}"#, "");
    assert!(
        text.contains(r#"[{"type":"text","text":"no"}],"stop_reason":"refusal""#),
        "{text}"
    );
    let text = answer(
        r#"{"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}"#,
        "",
    );
    assert!(
        text.contains(r#"{"type":"text","text":"a"},{"type":"text","text":"b"}"#),
        "{text}"
    );
}

fn chunk(delta: &str, finish: &str) -> String {
    format!(
        r#"{{"id":"c","object":"chat.completion.chunk","created":5,"model":"m","choices":[{{"index":0,"delta":{delta},"finish_reason":{finish}}}]}}"#
    )
}

fn stream(chunks: &[String]) -> Vec<u8> {
    let frames = chunks.iter().map(|chunk| format!("data: {chunk}\n\n"));
    frames.collect::<String>().into_bytes()
}

fn events_of(chunks: &[String]) -> Vec<String> {
    events(&stream(chunks))
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

fn example() -> Vec<String> {
    let done = "[DONE]".to_owned();
    let usage = r#"{"id":"c","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}"#;
    vec![
        chunk(r#"{"role":"assistant","content":""}"#, "null"),
        chunk(
            r#"{"reasoning_details":[{"type":"reasoning.text","text":"hm"}]}"#,
            "null",
        ),
        chunk(
            r#"{"reasoning_details":[{"type":"reasoning.text","signature":"S="}]}"#,
            "null",
        ),
        chunk(r#"{"content":"Hi"}"#, "null"),
        chunk(
            r#"{"tool_calls":[{"index":0,"id":"t0","type":"function","function":{"name":"f","arguments":""}}]}"#,
            "null",
        ),
        chunk(
            r#"{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\""}}]}"#,
            "null",
        ),
        chunk(
            r#"{"tool_calls":[{"index":1,"id":"t1","type":"function","function":{"name":"g","arguments":"{"}}]}"#,
            "null",
        ),
        chunk(
            r#"{"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]}"#,
            "null",
        ),
        chunk(
            r#"{"tool_calls":[{"index":1,"function":{"arguments":"}"}}]}"#,
            "null",
        ),
        chunk("{}", r#""tool_calls""#),
        usage.to_owned(),
        done,
    ]
}

#[test]
fn a_stream_survives_reading_and_writing() {
    let vendor = stream(&example());
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
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
}

/// G-30: calls that take turns come one after the other, and whole.
#[test]
fn calls_that_interleave_are_put_in_order() {
    let events = events_of(&example());
    let calls: Vec<&String> = events
        .iter()
        .skip_while(|event| !event.contains("ToolCall"))
        .collect();
    let text = format!("{calls:?}");
    let places: Vec<usize> = [
        "t0",
        "\\\\\\\\\\\\\\\"a",
        ":1}",
        "BlockEnd",
        "t1",
        "{}",
        "BlockEnd",
        "Stop",
    ]
    .iter()
    .scan(0, |from, part| {
        let plain = part.trim_start_matches('\\').trim_start_matches('"');
        let at = text[*from..].find(plain).map(|at| *from + at);
        *from = at.unwrap_or(text.len());
        Some(*from)
    })
    .collect();
    assert!(
        places.is_sorted() && *places.last().unwrap() < text.len(),
        "{text}"
    );
}

#[test]
fn a_stream_that_ends_early_is_an_error() {
    let example = example();
    for count in 0..example.len() {
        let events = events_of(&example[..count]);
        let last = events.last().unwrap();
        // A reason was given: only the usage or the mark of the end is missing (G-01).
        let complete = count >= 10;
        assert_eq!(last == "End", complete, "{count}: {last}");
        assert_eq!(last.starts_with("Error"), !complete, "{count}: {last}");
    }
    let error = r#"{"error":{"message":"slow down","type":"rate_limit_error"}}"#.to_owned();
    let events = events_of(&[example[0].clone(), error, "[DONE]".to_owned()]);
    assert!(events.last().unwrap().contains("slow down"), "{events:?}");
}

fn anthropic_stream(chunks: &[String]) -> String {
    let setting = Setting {
        client: Protocol::AnthropicMessages,
        ..SETTING
    };
    let mut writer = dialect::StreamWriter::new(&setting).unwrap();
    let mut reader = StreamReader::new(&SETTING);
    let mut out = Vec::new();
    Framing::of(OWN).push(&stream(chunks), |frame| {
        if let Unframed::Event { name, data } = frame {
            reader.event(name, data, &mut |event| writer.write(&event, &mut out));
        }
    });
    reader.finish(&mut |event| writer.write(&event, &mut out));
    let text = String::from_utf8(out).unwrap();
    let names = text.lines().filter_map(|line| line.strip_prefix("event: "));
    names.collect::<Vec<_>>().join(" ")
}

/// P-128 to P-130, P-132 to P-138, G-03, G-33
#[test]
fn streams_to_anthropic_clients() {
    let done = || "[DONE]".to_owned();
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5}}"#.to_owned();
    let text = "message_start content_block_start content_block_delta content_block_delta content_block_stop message_delta message_stop";
    let role = || chunk(r#"{"role":"assistant"}"#, "null");
    assert_eq!(
        anthropic_stream(&[
            r#"{"choices":[],"prompt_filter_results":[]}"#.to_owned(),
            role(),
            chunk(r#"{"content":"Hello"}"#, r#""""#),
            String::new(),
            chunk(r#"{"content":" world"}"#, r#""stop""#),
            usage.clone(),
            done(),
        ]),
        text
    );
    assert_eq!(
        anthropic_stream(&[
            chunk(r#"{"role":"assistant","content":"Hello"}"#, r#""null""#),
            chunk(r#"{"content":" world"}"#, "null"),
            chunk(r#"{"content":""}"#, r#""stop""#),
            chunk(r#"{"content":""}"#, r#""stop""#),
            chunk(r#"{"content":"too late"}"#, "null"),
            done(),
            chunk(r#"{"content":"later still"}"#, "null"),
        ]),
        text
    );
    assert_eq!(
        anthropic_stream(&[role(), done()]),
        "message_start message_delta message_stop"
    );
    let anthropic = r#"{"type":"message_start","message":{"id":"m"}}"#.to_owned();
    assert_eq!(anthropic_stream(&[anthropic]), "error");
    let calls = anthropic_stream(&[
        role(),
        chunk(
            r#"{"tool_calls":[{"id":"a","function":{"name":"f","arguments":"{"}}]}"#,
            "null",
        ),
        chunk(r#"{"tool_calls":[{"function":{"arguments":"}"}}]}"#, "null"),
        chunk(
            r#"{"tool_calls":[{"id":"b","function":{"name":"g","arguments":"{}"}}]}"#,
            r#""stop""#,
        ),
        done(),
    ]);
    assert_eq!(calls.matches("content_block_start").count(), 2, "{calls}");
    assert_eq!(calls.matches("content_block_delta").count(), 3, "{calls}");
}

#[test]
fn many_deltas_of_one_call_are_linear() {
    let mut reader = StreamReader::new(&SETTING);
    let mut length = 0;
    let mut sink = |event: Event<'_>| {
        if let Event::Delta { text, .. } = event {
            length += text.as_spelt().len();
        }
    };
    for index in 0..2 {
        let start =
            format!(r#"{{"tool_calls":[{{"index":{index},"id":"t","function":{{"name":"f"}}}}]}}"#);
        reader.event(b"", chunk(&start, "null").as_bytes(), &mut sink);
    }
    for round in 0..20_000 {
        let index = round % 2;
        let more = format!(
            r#"{{"tool_calls":[{{"index":{index},"function":{{"arguments":"0123456789"}}}}]}}"#
        );
        reader.event(b"", chunk(&more, "null").as_bytes(), &mut sink);
    }
    reader.event(b"", b"[DONE]", &mut sink);
    assert_eq!(length, 200_000);
}

#[test]
fn thoughts_and_texts_of_a_message() {
    let read = response(RESPONSE);
    let kinds = read.choices[0].parts.iter().map(|part| match part {
        Part::Reasoning(_) => "reasoning",
        Part::Text(_) => "text",
        Part::ToolCall(_) => "call",
        _ => "other",
    });
    assert_eq!(kinds.collect::<Vec<_>>(), ["reasoning", "text", "call"]);
}
