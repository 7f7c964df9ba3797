mod streams;

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
    version: None,
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

/// P-122: what a message says comes in order.
#[test]
fn texts_and_calls_of_an_answer_to_anthropic_clients() {
    let text = to_anthropic(
        r#"{"choices":[{"message":{"content":"x","tool_calls":[{"id":"t","function":{"name":"f","arguments":"{}"}},{"id":"u","function":{"name":"g","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}"#,
    );
    let content = r#""content":[{"type":"text","text":"x"},{"type":"tool_use","id":"t","name":"f","input":{}},{"type":"tool_use","id":"u","name":"g","input":{}}],"stop_reason":"tool_use""#;
    assert!(text.contains(content), "{text}");
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
