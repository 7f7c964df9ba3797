use super::*;
use crate::{
    Protocol,
    conversation::{
        Arguments, Extra, Message, Part, Reasoning, ReasoningMode, ReasoningSettings, Role,
        Signature, Source, Tool, ToolCall, ToolChoice,
    },
    json::string::JsonStr,
};

const REQUEST: &str = r#"{
 "model": "gpt-5.2", "instructions": "Be brief.", "stream": true, "stream_options": {"include_obfuscation": false},
 "input": [
  {"role": "developer", "content": "Use the tools."},
  {"type": "message", "role": "user", "content": [
    {"type": "input_text", "text": "What is \"this\"?\n\u00e9"},
    {"type": "input_image", "image_url": "data:image/jpeg;base64,aGk=", "detail": "low"},
    {"type": "input_image", "image_url": "https://example.com/a.png"},
    {"type": "input_image", "file_id": "file-1", "detail": "high"},
    {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"},
    {"type": "input_file", "file_url": "https://example.com/b.pdf"},
    {"type": "input_file", "file_id": "file-2"}]},
  {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "One."}, {"type": "summary_text", "text": "Two."}], "encrypted_content": "gAAA=="},
  {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [{"type": "output_text", "text": "I look.", "annotations": [], "logprobs": []}]},
  {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "look", "arguments": "{\"at\":1.50}", "status": "completed"},
  {"type": "function_call", "id": "fc_2", "call_id": "call_2", "name": "hear", "arguments": "{}", "status": "completed"},
  {"type": "function_call_output", "call_id": "call_2", "output": "silence"},
  {"type": "function_call_output", "call_id": "call_1", "output": [{"type": "input_text", "text": "a cat"}, {"type": "input_image", "image_url": "data:image/png;base64,AA=="}]},
  {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "gBBB"},
  {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "cats"}},
  {"role": "assistant", "content": [{"type": "output_text", "text": "A cat."}, {"type": "refusal", "refusal": "No more."}]},
  {"type": "computer_call_output", "call_id": "c9", "output": {"type": "computer_screenshot", "image_url": "https://x/y.png"}},
  {"role": "system", "content": "Now in French."},
  {"role": "user", "content": "Encore?"},
  {"type": "item_reference", "id": "msg_9"}
 ],
 "tools": [
  {"type": "function", "name": "look", "description": "Looks.", "parameters": {"type": "object", "properties": {"at": {"type": "number"}}}, "strict": true},
  {"type": "function", "name": "hear", "parameters": {"type": "object"}, "strict": false},
  {"type": "function", "name": "wait"},
  {"type": "web_search", "search_context_size": "low"},
  {"type": "custom", "name": "code", "format": {"type": "text"}}
 ],
 "tool_choice": {"type": "function", "name": "look"}, "parallel_tool_calls": false,
 "text": {"format": {"type": "json_schema", "name": "answer", "description": "d", "strict": true, "schema": {"type": "object"}}, "verbosity": "low"},
 "reasoning": {"effort": "high", "summary": "detailed"},
 "include": ["reasoning.encrypted_content", "message.output_text.logprobs", "web_search_call.action.sources"],
 "max_output_tokens": 5000, "temperature": 0.70, "top_p": 1e0, "top_logprobs": 3,
 "safety_identifier": "who", "metadata": {"a": "b"}, "service_tier": "flex",
 "store": true, "previous_response_id": "resp_0", "truncation": "auto", "prompt_cache_key": "k", "max_tool_calls": 4
}"#;

#[test]
fn a_request_is_understood() {
    let read = request(REQUEST);
    let roles: Vec<_> = read.messages.iter().map(|message| message.role).collect();
    use Role::*;
    let expected = [
        System, Developer, User, Assistant, Tool, Assistant, User, System, User, Assistant,
    ];
    assert_eq!(roles, expected);
    let turn = &read.messages[3].parts;
    let Part::Reasoning(reasoning) = &turn[0] else {
        panic!("{turn:?}");
    };
    assert_eq!(reasoning.text, JsonStr::new("One.\n\nTwo."));
    let signature = reasoning.signature.as_ref().unwrap();
    assert_eq!(signature.origin, OWN);
    assert!(matches!(
        turn[1..],
        [Part::Text(_), Part::ToolCall(_), Part::ToolCall(_)]
    ));
    let Part::ToolResult(result) = &read.messages[4].parts[1] else {
        panic!("no result");
    };
    assert!(result.name.as_ref().unwrap().is("look"));
    assert!(matches!(&read.messages[5].parts[0], Part::Reasoning(hidden) if hidden.is_hidden));
    assert!(
        matches!(&read.messages[5].parts[1], Part::Opaque(call) if call.kind.is("web_search_call"))
    );
    assert!(
        matches!(&read.messages[9].parts[0], Part::Opaque(item) if item.kind.is("item_reference"))
    );
    let Part::Media(image) = &read.messages[2].parts[1] else {
        panic!("no picture");
    };
    assert_eq!(image.source, Source::Base64(JsonStr::new("aGk=")));
    assert!(image.media_type.as_ref().unwrap().is("image/jpeg"));
    assert_eq!(read.sampling.temperature.as_deref(), Some("0.70"));
    let extras: Vec<_> = read
        .extras
        .iter()
        .map(|extra| extra.name.decode())
        .collect();
    let expected = [
        "text.verbosity",
        "include",
        "store",
        "previous_response_id",
        "truncation",
        "prompt_cache_key",
        "max_tool_calls",
    ];
    assert_eq!(extras, expected);
}

#[test]
fn a_request_survives_writing_and_reading() {
    let read = request(REQUEST);
    let text = written(&read, &SETTING);
    assert_eq!(request(&text), read, "{text}");
    // Every number and string as it was spelt.
    for part in [
        r#""temperature":0.70,"top_p":1e0"#,
        r#"\"this\"?\n\u00e9"#,
        r#""instructions":"Be brief.""#,
        r#""verbosity":"low""#,
        r#""include":["web_search_call.action.sources","message.output_text.logprobs","reasoning.encrypted_content"]"#,
        r#""stream":true"#,
        r#""previous_response_id":"resp_0""#,
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(!text.contains("stream_options"));
    let lost = read.features(OWN).without(EXPRESSES);
    assert_eq!(lost.iter().collect::<Vec<_>>(), []);
}

/// Every feature of a request that is claimed is in the conversation that survives.
#[test]
fn what_is_claimed_is_carried() {
    let said = request(REQUEST).features(OWN);
    let others = request(
        r#"{"model":"m","input":"x","tools":[{"type":"function","name":"f"}],"tool_choice":"none","text":{"format":{"type":"json_object"}},"reasoning":{"effort":"none"},"service_tier":"auto"}"#,
    );
    let required = request(
        r#"{"model":"m","input":"x","tools":[{"type":"function","name":"f"}],"tool_choice":"required"}"#,
    );
    for request in [&others, &required] {
        assert_eq!(super::request(&written(request, &SETTING)), *request);
    }
    let said = said
        .union(others.features(OWN))
        .union(required.features(OWN));
    let unproved: Vec<_> = EXPRESSES
        .without(said)
        .iter()
        .map(Feature::name)
        .filter(|name| !name.starts_with("answer."))
        .collect();
    assert_eq!(unproved, [""; 0]);
}

#[test]
fn a_plain_request_stays_plain() {
    let read = request(r#"{"model":"m","input":"Hi","instructions":"Be kind."}"#);
    assert_eq!(
        written(&read, &SETTING),
        r#"{"model":"m","instructions":"Be kind.","input":"Hi","store":false}"#
    );
    // Instructions alone are no conversation here.
    let alone = Request {
        messages: vec![Message::plain(Role::System, JsonStr::new("Begin."))],
        ..Request::default()
    };
    assert_eq!(
        written(&alone, &SETTING),
        r#"{"model":"gpt-5.2","input":[{"type":"message","role":"system","content":"Begin."}],"store":false}"#
    );
}

#[test]
fn of_allowed_tools_only_those_remain() {
    let read = request(
        r#"{"input":"x","tools":[{"type":"function","name":"a"},{"type":"function","name":"b"},{"type":"web_search"},{"type":"mcp","server_label":"s"},{"type":"mcp","server_label":"t"}],
        "tool_choice":{"type":"allowed_tools","mode":"required","tools":[{"type":"function","name":"b"},{"type":"mcp","server_label":"t"}]}}"#,
    );
    let names = read.tools.iter().map(|tool| match tool {
        Tool::Function(function) => function.name.decode().into_owned(),
        Tool::Hosted(hosted) => hosted.json.to_string(),
    });
    assert_eq!(
        names.collect::<Vec<_>>(),
        ["b", r#"{"type":"mcp","server_label":"t"}"#]
    );
    assert_eq!(read.tool_choice, Some(ToolChoice::Required));
    let hosted = request(r#"{"input":"x","tool_choice":{"type":"file_search"}}"#);
    assert!(hosted.extras[0].name.is("tool_choice"));
    assert!(written(&hosted, &SETTING).contains(r#""tool_choice":{"type":"file_search"}"#));
}

/// Each tool is looked up, and not compared with all that are allowed.
#[test]
fn very_many_tools_may_be_allowed() {
    let name = |number: usize| format!(r#"{{"type":"function","name":"f{number}"}}"#);
    let tools: Vec<String> = (0..50_000).map(name).collect();
    let allowed: Vec<String> = (25_000..75_000).map(name).collect();
    let (tools, allowed) = (tools.join(","), allowed.join(","));
    let read = request(&format!(
        r#"{{"input":"x","tools":[{tools}],"tool_choice":{{"type":"allowed_tools","mode":"auto","tools":[{allowed}]}}}}"#
    ));
    assert_eq!(read.tools.len(), 25_000);
}

#[test]
fn hosted_tools_are_allowed_by_kind_and_name() {
    let left = |allowed: &str| {
        let read = request(&format!(
            r#"{{"input":"x","tools":[{{"type":"mcp","server_label":"s"}},{{"type":"mcp","server_label":"t"}},{{"type":"custom","name":"c"}},{{"type":"web_search"}}],
            "tool_choice":{{"type":"allowed_tools","mode":"auto","tools":[{allowed}]}}}}"#
        ));
        read.tools.len()
    };
    assert_eq!(left(r#"{"type":"mcp","server_label":"t"}"#), 1);
    assert_eq!(left(r#"{"type":"mcp"}"#), 2);
    assert_eq!(left(r#"{"type":"custom","name":"other"}"#), 0);
    assert_eq!(
        left(r#"{"type":"custom","name":"c"},{"type":"web_search"}"#),
        2
    );
    assert_eq!(left(r#"{"type":"web_search","name":"whatever"}"#), 1);
    assert_eq!(left(""), 0);
}

/// What says nothing that is not so anyway is no loss elsewhere.
#[test]
fn what_holds_everywhere_is_not_kept() {
    let read = request(
        r#"{"input":"x","store":false,"background":false,"truncation":"disabled","conversation":null,"include":["reasoning.encrypted_content"],"reasoning":{"effort":null},"user":"u"}"#,
    );
    assert_eq!(read.extras, []);
    assert_eq!(read.reasoning, None);
    assert!(read.user.as_ref().unwrap().is("u"));
    let both = request(r#"{"input":"x","safety_identifier":"s","user":"u"}"#);
    assert!(written(&both, &SETTING).contains(r#""safety_identifier":"s""#));
    assert!(written(&both, &SETTING).contains(r#""user":"u""#));
}

#[test]
fn what_the_protocol_forbids_is_named() {
    for (text, expected) in FORBIDDEN {
        let error = read_request(tree(text).root()).unwrap_err();
        assert_eq!(error.to_string(), *expected, "{text}");
    }
}

const FORBIDDEN: &[(&str, &str)] = &[
    ("[]", "expected an object"),
    ("{}", "`input`, a string or a list of items, is missing"),
    (
        r#"{"input":null}"#,
        "`input`, a string or a list of items, is missing",
    ),
    (r#"{"input":[]}"#, "input: there are no items in it"),
    (
        r#"{"input":5}"#,
        "input: expected a string or a list of items",
    ),
    (
        r#"{"input":["x"]}"#,
        "input[0]: expected an item: an object with a `type`",
    ),
    (
        r#"{"input":[{"content":"x"}]}"#,
        "input[0]: `role`, a string, is missing",
    ),
    (
        r#"{"input":[{"role":"tool","content":"x"}]}"#,
        "input[0].role: expected `user`, `assistant`, `system` or `developer`",
    ),
    (
        r#"{"input":[{"role":"user"}]}"#,
        "input[0]: `content` is missing",
    ),
    (
        r#"{"input":[{"role":"user","content":1}]}"#,
        "input[0].content: expected a string or a list of parts",
    ),
    (
        r#"{"input":[{"role":"user","content":[{"type":"text","text":"x"}]}]}"#,
        "input[0].content[0].type: expected `input_text`, `input_image` or `input_file`",
    ),
    (
        r#"{"input":[{"role":"assistant","content":[{"type":"input_text","text":"x"}]}]}"#,
        "input[0].content[0].type: expected `output_text` or `refusal`",
    ),
    (
        r#"{"input":[{"role":"user","content":[{"type":"input_image"}]}]}"#,
        "input[0].content[0]: a picture needs `image_url` or `file_id`",
    ),
    (
        r#"{"input":[{"role":"user","content":[{"type":"input_image","image_url":{"url":"x"}}]}]}"#,
        "input[0].content[0].image_url: expected a string",
    ),
    (
        r#"{"input":[{"role":"user","content":[{"type":"input_file"}]}]}"#,
        "input[0].content[0]: a file needs `file_data`, `file_url` or `file_id`",
    ),
    (
        r#"{"input":[{"type":"function_call","name":"f","arguments":"{}"}]}"#,
        "input[0]: `call_id`, a string, is missing",
    ),
    (
        r#"{"input":[{"type":"function_call","call_id":"c","name":"f","arguments":{}}]}"#,
        "input[0].arguments: expected a string",
    ),
    (
        r#"{"input":[{"type":"function_call_output","call_id":"c","output":"x"}]}"#,
        "input[0]: answers a call that is not in `input`: expected its `function_call` before",
    ),
    (r#"{"input":"x","tools":{}}"#, "tools: expected a list"),
    (
        r#"{"input":"x","tools":[{"type":"function","function":{"name":"f"}}]}"#,
        "tools[0]: `name`, a string, is missing",
    ),
    (
        r#"{"input":"x","tools":[{"type":"function","name":"f","parameters":"x"}]}"#,
        "tools[0].parameters: expected a JSON schema, an object",
    ),
    (
        r#"{"input":"x","tool_choice":"any"}"#,
        "tool_choice: expected `auto`, `none` or `required`",
    ),
    (
        r#"{"input":"x","tool_choice":{"type":"function","name":"f"}}"#,
        "tool_choice: there is no function of that name in `tools`",
    ),
    (
        r#"{"input":"x","text":{"format":{"type":"xml"}}}"#,
        "text.format.type: expected `text`, `json_object` or `json_schema`",
    ),
    (
        r#"{"input":"x","text":{"format":{"type":"json_schema","name":"n"}}}"#,
        "text.format: `schema`, a JSON schema, is missing",
    ),
    (
        r#"{"input":"x","reasoning":"high"}"#,
        "reasoning: expected an object",
    ),
    (
        r#"{"input":"x","metadata":{"a":1}}"#,
        "metadata.a: expected a string",
    ),
    (
        r#"{"input":"x","max_output_tokens":"9"}"#,
        "max_output_tokens: expected a number",
    ),
    (
        r#"{"input":"x","instructions":["x"]}"#,
        "instructions: expected a string",
    ),
];

#[test]
fn results_may_answer_calls_that_the_provider_keeps() {
    for text in [
        r#"{"previous_response_id":"resp_1","input":[{"type":"function_call_output","call_id":"c","output":"x"}]}"#,
        r#"{"input":[{"type":"item_reference","id":"fc_1"},{"type":"function_call_output","call_id":"c","output":"x"}]}"#,
        r#"{"input":[{"id":"fc_1"},{"type":"function_call_output","call_id":"c","output":"x"}]}"#,
    ] {
        let read = request(text);
        assert!(matches!(read.messages.last().unwrap().role, Role::Tool));
    }
}

/// What other protocols say, as far as it can be said here.
#[test]
fn a_request_of_another_protocol() {
    let signed = |origin, data| {
        Some(Signature {
            origin,
            data: JsonStr::new(data),
        })
    };
    let turn = Message {
        role: Role::Assistant,
        name: None,
        parts: vec![
            Part::Reasoning(Reasoning {
                text: JsonStr::new("own"),
                signature: signed(OWN, "gAAA"),
                ..Reasoning::default()
            }),
            Part::Reasoning(Reasoning {
                text: JsonStr::new("foreign"),
                signature: signed(Protocol::AnthropicMessages, "sig"),
                ..Reasoning::default()
            }),
            Part::ToolCall(ToolCall {
                id: JsonStr::new("c"),
                name: JsonStr::new("f"),
                arguments: Arguments::Json(r#"{"a": "b"}"#.into()),
                signature: signed(Protocol::GeminiGenerateContent, "g"),
                cache: None,
            }),
        ],
        plain: false,
    };
    let request = Request {
        messages: vec![Message::plain(Role::User, JsonStr::new("Hi")), turn],
        tools: vec![Tool::Function(crate::conversation::Function {
            name: JsonStr::new("f"),
            ..Default::default()
        })],
        reasoning: Some(ReasoningSettings {
            mode: Some(ReasoningMode::Enabled),
            budget: Some(2048),
            ..ReasoningSettings::default()
        }),
        user: Some(JsonStr::new("u")),
        extras: vec![Extra {
            protocol: Protocol::AnthropicMessages,
            name: JsonStr::new("container"),
            json: "1".into(),
        }],
        ..Request::default()
    };
    let setting = Setting {
        client: Protocol::AnthropicMessages,
        provider: Provider::OpenaiCompatible,
        ..SETTING
    };
    assert_eq!(
        written(&request, &setting),
        concat!(
            r#"{"model":"gpt-5.2","input":[{"type":"message","role":"user","content":"Hi"},"#,
            r#"{"type":"reasoning","summary":[{"type":"summary_text","text":"own"}],"encrypted_content":"gAAA"},"#,
            r#"{"type":"function_call","arguments":"{\"a\": \"b\"}","call_id":"c","name":"f"}],"#,
            r#""tools":[{"type":"function","name":"f","parameters":null,"strict":false}],"#,
            r#""reasoning":{"effort":"medium"},"include":["reasoning.encrypted_content"],"user":"u","store":false}"#,
        )
    );
}

#[test]
fn limits_that_openai_refuses_are_raised() {
    let check = |client, provider, limit: &'static str, expected: &str| {
        let mut request = request(r#"{"input":"x"}"#);
        request.sampling.max_tokens = Some(limit.into());
        let setting = Setting {
            client,
            provider,
            ..SETTING
        };
        let expected = format!(r#""max_output_tokens":{expected},"#);
        let text = written(&request, &setting);
        assert!(text.contains(&expected), "{text}");
    };
    let anthropic = Protocol::AnthropicMessages;
    check(anthropic, Provider::Openai, "1", "16");
    check(anthropic, Provider::Openai, "17", "17");
    check(anthropic, Provider::OpenaiCompatible, "1", "1");
    check(OWN, Provider::Openai, "1", "1");
}

/// Signatures of others come back through a client of this protocol.
#[test]
fn signatures_of_others_are_unwrapped() {
    let read = request(
        r#"{"input":[
        {"type":"reasoning","id":"rs_1","summary":[{"type":"summary_text","text":"hm"}],"encrypted_content":"pm.anthropic-messages.Er=="},
        {"type":"function_call","call_id":"c","name":"f","arguments":"{}"},
        {"type":"reasoning","id":"rs_2","summary":[],"encrypted_content":"pm.call.pm.gemini-generate-content.Ab"},
        {"type":"function_call_output","call_id":"c","output":"x"}]}"#,
    );
    let [Part::Reasoning(reasoning), Part::ToolCall(call)] = &read.messages[0].parts[..] else {
        panic!("{:?}", read.messages);
    };
    let signature = reasoning.signature.as_ref().unwrap();
    assert_eq!(signature.origin, Protocol::AnthropicMessages);
    assert!(signature.data.is("Er=="));
    let signature = call.signature.as_ref().unwrap();
    assert_eq!(signature.origin, Protocol::GeminiGenerateContent);
    assert!(signature.data.is("Ab"));
}
