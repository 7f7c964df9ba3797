//! Requests.

use super::*;
use crate::conversation::{
    Arguments, CacheMark, Citation, Format, Function, Media, MediaKind, Message, Opaque, Part,
    Reasoning, ReasoningMode, ReasoningSettings, Role, Schema, ShowThoughts, Source, Text, Tool,
    ToolCall, ToolChoice, ToolResult,
};

/// A conversation with everything in it that the protocol has and others have, too.
const RICH: &str = r#"{
 "systemInstruction":{"parts":[{"text":"Be brief."},{"text":"Be \ud83d\ude00."}]},
 "contents":[
  {"role":"user","parts":[
   {"text":"look"},
   {"inlineData":{"mimeType":"image/png","data":"aW1n"}},
   {"fileData":{"mimeType":"image/jpeg","fileUri":"https://example.com/a.jpg"}},
   {"fileData":{"mimeType":"image/png","fileUri":"https://generativelanguage.googleapis.com/v1beta/files/a1"}},
   {"inlineData":{"mimeType":"application/pdf","data":"cGRm"}},
   {"inlineData":{"mimeType":"text/plain","data":"dGV4dA=="}},
   {"fileData":{"mimeType":"application/pdf","fileUri":"gs://bucket/a.pdf"}},
   {"fileData":{"mimeType":"application/pdf","fileUri":"files/b2"}},
   {"inlineData":{"mimeType":"audio/wav","data":"d2F2"}},
   {"fileData":{"mimeType":"audio/mp3","fileUri":"gs://bucket/a.mp3"}},
   {"inlineData":{"mimeType":"video/mp4","data":"bXA0"}},
   {"fileData":{"mimeType":"video/mp4","fileUri":"https://www.youtube.com/watch?v=1"}}]},
  {"role":"model","parts":[
   {"text":"I think","thought":true,"thoughtSignature":"c2lnMA=="},
   {"text":"Calling."},
   {"text":"","thoughtSignature":"c2lnMQ=="},
   {"inlineData":{"mimeType":"image/png","data":"b3V0"}},
   {"functionCall":{"id":"c1","name":"weather","args":{"city":"K\u00f6ln","n":1.50}},"thoughtSignature":"c2lnMg=="},
   {"functionCall":{"id":"c2","name":"weather","args":{}}},
   {"executableCode":{"language":"PYTHON","code":"print(1)"}}]},
  {"role":"user","parts":[
   {"functionResponse":{"id":"c1","name":"weather","response":{"temp":20,"sky":"clear"}}},
   {"functionResponse":{"id":"c2","name":"weather","response":{"error":"no such city"},"parts":[{"inlineData":{"mimeType":"image/png","data":"ZXJy"}}]}},
   {"text":"and?"}]},
  {"role":"model","parts":[{"text":"Fine."}]},
  {"role":"user","parts":[{"text":"thanks"}]}],
 "tools":[{"functionDeclarations":[{"name":"weather","description":"Tells it.","parametersJsonSchema":{"type":"object","properties":{"city":{"type":"string"}},"additionalProperties":false}},{"name":"now","description":""}]},{"googleSearch":{}},{"codeExecution":{}}],
 "toolConfig":{"functionCallingConfig":{"mode":"ANY","allowedFunctionNames":["weather"]},"retrievalConfig":{"languageCode":"de"}},
 "generationConfig":{"temperature":0.70,"topP":0.9,"topK":40,"maxOutputTokens":100,"seed":7,"presencePenalty":0.1,"frequencyPenalty":-0.1,"logprobs":3,"candidateCount":2,"responseLogprobs":true,"stopSequences":["END","\n"],"responseMimeType":"application/json","responseJsonSchema":{"type":"object"},"thinkingConfig":{"thinkingLevel":"HIGH","includeThoughts":true},"speechConfig":{"languageCode":"de"}},
 "serviceTier":"flex",
 "safetySettings":[{"category":"HARM_CATEGORY_HARASSMENT","threshold":"BLOCK_NONE"}],
 "cachedContent":"cachedContents/x",
 "labels":{"team":"a"}
}"#;

#[test]
fn a_rich_request_comes_back_as_it_was() {
    with_request(RICH, |request| {
        let text = written(request, &NEW);
        assert_eq!(value(&text), value(RICH));
        with_request(&text, |again| assert_eq!(again, request));
        // What is borrowed keeps its spelling.
        assert!(text.contains(r#""city":"K\u00f6ln","n":1.50}"#));
        assert!(text.contains(r#""temperature":0.70"#));
    });
}

#[test]
fn a_rich_request_is_understood() {
    with_request(RICH, |request| {
        let roles: Vec<Role> = request
            .messages
            .iter()
            .map(|message| message.role)
            .collect();
        use Role::*;
        assert_eq!(
            roles,
            [System, User, Assistant, Tool, User, Assistant, User]
        );
        let kinds = request.messages[1]
            .parts
            .iter()
            .filter_map(|part| match part {
                Part::Media(media) => Some((media.kind, media.source.clone())),
                _ => None,
            });
        use MediaKind::*;
        let source = |make: fn(JsonStr<'static>) -> Source<'static>, text| make(JsonStr::new(text));
        assert_eq!(
            kinds.collect::<Vec<_>>(),
            [
                (Image, source(Source::Base64, "aW1n")),
                (Image, source(Source::Url, "https://example.com/a.jpg")),
                (
                    Image,
                    source(
                        Source::File,
                        "https://generativelanguage.googleapis.com/v1beta/files/a1"
                    )
                ),
                (Document, source(Source::Base64, "cGRm")),
                (Document, source(Source::Text, "text")),
                (Document, source(Source::Url, "gs://bucket/a.pdf")),
                (Document, source(Source::File, "files/b2")),
                (Audio, source(Source::Base64, "d2F2")),
                (Audio, source(Source::Url, "gs://bucket/a.mp3")),
                (Video, source(Source::Base64, "bXA0")),
                (
                    Video,
                    source(Source::Url, "https://www.youtube.com/watch?v=1")
                ),
            ]
        );
        let parts = &request.messages[2].parts;
        assert_eq!(
            parts[0],
            Part::Reasoning(Reasoning {
                text: JsonStr::new("I think"),
                signature: Some(signature(OWN, "c2lnMA==")),
                ..Reasoning::default()
            })
        );
        assert_eq!(
            parts[2],
            Part::Reasoning(Reasoning {
                signature: Some(signature(OWN, "c2lnMQ==")),
                is_hidden: true,
                ..Reasoning::default()
            })
        );
        assert_eq!(
            parts[4],
            Part::ToolCall(ToolCall {
                id: JsonStr::new("c1"),
                name: JsonStr::new("weather"),
                arguments: Arguments::Json(r#"{"city":"K\u00f6ln","n":1.50}"#.into()),
                signature: Some(signature(OWN, "c2lnMg==")),
                cache: None,
            })
        );
        let Part::Opaque(code) = &parts[6] else {
            panic!("{:?}", parts[6]);
        };
        assert!(code.kind.is("executableCode"));
        let Part::ToolResult(result) = &request.messages[3].parts[0] else {
            panic!("{:?}", request.messages[3]);
        };
        assert_eq!(
            result.parts,
            [Part::text(JsonStr::new(r#"{"temp":20,"sky":"clear"}"#))]
        );
        assert_eq!((result.is_error, result.plain), (false, true));
        let Part::ToolResult(result) = &request.messages[3].parts[1] else {
            panic!("{:?}", request.messages[3]);
        };
        assert!(result.is_error && result.name == Some(JsonStr::new("weather")));
        assert_eq!(result.parts.len(), 2);
        let extras: Vec<_> = request
            .extras
            .iter()
            .map(|extra| extra.name.decode())
            .collect();
        assert_eq!(
            extras,
            [
                "safetySettings",
                "cachedContent",
                "labels",
                "toolConfig.retrievalConfig",
                "generationConfig.speechConfig"
            ]
        );
        assert_eq!(
            request.tool_choice,
            Some(ToolChoice::Tool(JsonStr::new("weather")))
        );
    });
}

/// proto3 JSON: names of the `.proto` file, numbers in strings, `null` for nothing.
#[test]
fn snake_case_is_read_and_camel_case_written() {
    let json = r#"{"system_instruction":{"parts":{"0":1}},"contents":[]}"#;
    let tree = parse(json.as_bytes()).unwrap();
    assert_eq!(
        read_request(tree.root()).unwrap_err().path,
        "system_instruction.parts"
    );
    let json = r#"{"system_instruction":{"parts":[{"text":"s"}]},
        "contents":[{"parts":[{"text":"u"},{"inline_data":{"mime_type":"image/png","data":"aQ=="}},{"file_data":{"file_uri":"https://x/y.pdf"}}]},
         {"role":"model","parts":[{"function_call":{"name":"f","args":null},"thought_signature":"c2ln"}]},
         {"role":"function","parts":[{"function_response":{"name":"f","response":{"output":"o"}}}]}],
        "tools":[{"function_declarations":[{"name":"f","parameters":{"type":"OBJECT","properties":{"a":{"type":"STRING"}}}}]},{"google_search":{}}],
        "tool_config":{"function_calling_config":{"mode":"AUTO"}},
        "generation_config":{"max_output_tokens":"5","top_p":null,"stop_sequences":["x"],"response_mime_type":"application/json","response_schema":{"type":"STRING","nullable":true},"thinking_config":{"thinking_budget":-1,"include_thoughts":false}},
        "safety_settings":null}"#;
    let expected = r#"{"systemInstruction":{"parts":[{"text":"s"}]},
        "contents":[{"role":"user","parts":[{"text":"u"},{"inlineData":{"mimeType":"image/png","data":"aQ=="}},{"fileData":{"mimeType":"application/pdf","fileUri":"https://x/y.pdf"}}]},
         {"role":"model","parts":[{"functionCall":{"id":"call_1","name":"f","args":{}},"thoughtSignature":"c2ln"}]},
         {"role":"user","parts":[{"functionResponse":{"id":"call_1","name":"f","response":{"output":"o"}}}]}],
        "tools":[{"functionDeclarations":[{"name":"f","description":"","parametersJsonSchema":{"type":"object","properties":{"a":{"type":"string"}}}}]},{"google_search":{}}],
        "toolConfig":{"functionCallingConfig":{"mode":"AUTO"}},
        "generationConfig":{"maxOutputTokens":5,"stopSequences":["x"],"responseMimeType":"application/json","responseJsonSchema":{"type":["string","null"]},"thinkingConfig":{"thinkingBudget":-1,"includeThoughts":false}}}"#;
    with_request(json, |request| {
        assert_eq!(value(&written(request, &OLD)), value(expected));
        assert!(request.extras.is_empty());
    });
}

/// Results find their calls by name and order where they name none.
#[test]
fn calls_without_ids_get_some() {
    let json = r#"{"contents":[
        {"role":"user","parts":[{"text":"u"}]},
        {"role":"model","parts":[{"functionCall":{"name":"a"}},{"functionCall":{"name":"b"}},{"functionCall":{"name":"a"}},{"functionCall":{"id":"own","name":"a"}}]},
        {"role":"user","parts":[{"functionResponse":{"name":"b","response":{}}},{"functionResponse":{"name":"a","response":{"result":[1]}}},{"functionResponse":{"name":"a","response":{"result":"r"}}}]},
        {"role":"user","parts":[{"functionResponse":{"id":"own","name":"a","response":{"a":1,"error":"x"}}}]},
        {"role":"model","parts":[{"functionCall":{"name":"a"}}]},
        {"role":"user","parts":[{"functionResponse":{"name":"a","response":{"output":"{\"output\":1}"}}}]}]}"#;
    with_request(json, |request| {
        let results = request.messages.iter().flat_map(|message| &message.parts);
        let results = results.filter_map(|part| match part {
            Part::ToolResult(result) => Some(result),
            _ => None,
        });
        let results: Vec<_> = results
            .map(|result| {
                let text = result.parts.first().map(|part| match part {
                    Part::Text(text) => text.text.decode().into_owned(),
                    other => panic!("{other:?}"),
                });
                (
                    result.call_id.decode().into_owned(),
                    text.unwrap_or_default(),
                )
            })
            .collect();
        let expected = [
            ("call_2", ""),
            ("call_1", "[1]"),
            ("call_3", "r"),
            ("own", r#"{"a":1,"error":"x"}"#),
            ("call_4", r#"{"output":1}"#),
        ];
        let expected = expected.map(|(id, text)| (id.to_owned(), text.to_owned()));
        assert_eq!(results, expected);
        let roles: Vec<Role> = request
            .messages
            .iter()
            .map(|message| message.role)
            .collect();
        use Role::*;
        // Results that follow each other are one message.
        assert_eq!(roles, [User, Assistant, Tool, Assistant, Tool]);
        with_request(&written(request, &NEW), |again| assert_eq!(again, request));
    });
}

fn user(text: &str) -> Message<'_> {
    Message::plain(Role::User, JsonStr::new(text))
}

fn result<'a>(id: &'a str, name: Option<&'a str>, parts: Vec<Part<'a>>) -> ToolResult<'a> {
    ToolResult {
        call_id: JsonStr::new(id),
        name: name.map(JsonStr::new),
        plain: matches!(&parts[..], [Part::Text(_)]),
        parts,
        is_error: false,
        cache: None,
    }
}

fn call<'a>(id: &'a str, name: &'a str, arguments: Arguments<'a>) -> Part<'a> {
    Part::ToolCall(ToolCall {
        id: JsonStr::new(id),
        name: JsonStr::new(name),
        arguments,
        signature: None,
        cache: None,
    })
}

fn picture(data: &str) -> Part<'_> {
    Part::Media(Media {
        kind: MediaKind::Image,
        source: Source::Base64(JsonStr::new(data)),
        media_type: None,
        name: None,
        detail: None,
        context: None,
        citations: false,
        cache: None,
    })
}

/// A conversation as clients of other protocols have it.
fn foreign() -> Request<'static> {
    let assistant = |parts| Message {
        parts,
        plain: false,
        ..Message::plain(Role::Assistant, JsonStr::default())
    };
    let thought = Reasoning {
        text: JsonStr::new("hm"),
        signature: Some(signature(Protocol::AnthropicMessages, "sig")),
        ..Reasoning::default()
    };
    let hidden = Reasoning {
        text: JsonStr::default(),
        is_hidden: true,
        ..thought.clone()
    };
    let cached = Text {
        text: JsonStr::new("cached"),
        citations: vec![Citation::default()],
        cache: Some(CacheMark::default()),
    };
    Request {
        messages: vec![
            Message::plain(Role::System, JsonStr::new("one")),
            user("hi"),
            Message::plain(Role::Developer, JsonStr::new("two")),
            Message::plain(Role::Assistant, JsonStr::default()),
            assistant(vec![Part::Reasoning(thought), Part::Reasoning(hidden)]),
            assistant(vec![
                Part::Text(cached),
                Part::Refusal(JsonStr::new("no")),
                call("1", "f", Arguments::Text(JsonStr::new(r#"{"a":"\""}"#))),
                call("2", "g", Arguments::Text(JsonStr::new("[1]"))),
                call("3", "g", Arguments::Text(JsonStr::default())),
            ]),
            Message {
                role: Role::Tool,
                ..assistant(vec![
                    Part::ToolResult(result(
                        "1",
                        Some("f"),
                        vec![Part::text(JsonStr::new("t")), picture("aQ==")],
                    )),
                    Part::ToolResult(result(
                        "2",
                        None,
                        vec![Part::text(JsonStr::new("a")), Part::text(JsonStr::new("b"))],
                    )),
                    Part::ToolResult(ToolResult {
                        is_error: true,
                        ..result("3", Some("g"), vec![])
                    }),
                ])
            },
            user("go on"),
        ],
        user: Some(JsonStr::new("me")),
        metadata: vec![(JsonStr::new("k"), JsonStr::new("v"))],
        parallel_tool_calls: Some(false),
        service_tier: Some(JsonStr::new("auto")),
        tool_choice: Some(ToolChoice::Required),
        ..Request::default()
    }
}

#[test]
fn requests_of_others_become_contents_that_take_turns() {
    let mut request = foreign();
    let expected = |signed: &str, inside: &str, outside: &str| {
        format!(
            r#"{{"systemInstruction":{{"parts":[{{"text":"one"}},{{"text":"two"}}]}},
            "contents":[{{"role":"user","parts":[{{"text":"hi"}}]}},
            {{"role":"model","parts":[{{"text":"hm","thought":true}},{{"text":"cached"}},{{"text":"no"}},
              {{"functionCall":{{"id":"1","name":"f","args":{{"a":"\""}}}}{signed}}},
              {{"functionCall":{{"id":"2","name":"g","args":{{}}}}}},
              {{"functionCall":{{"id":"3","name":"g","args":{{}}}}}}]}},
            {{"role":"user","parts":[
              {{"functionResponse":{{"id":"1","name":"f","response":{{"output":"t"}}{inside}}}}},
              {{"functionResponse":{{"id":"2","name":"2","response":{{"output":"a\nb"}}}}}},
              {{"functionResponse":{{"id":"3","name":"g","response":{{"error":""}}}}}},
              {{"text":"go on"}}{outside}]}}]}}"#
        )
    };
    let media = r#"{"inlineData":{"mimeType":"image/png","data":"aQ=="}}"#;
    // Gemini 3 refuses a step's first call without a signature, and takes media inside of results.
    let new = expected(
        r#","thoughtSignature":"skip_thought_signature_validator""#,
        &format!(r#","parts":[{media}]"#),
        "",
    );
    assert_eq!(value(&written(&request, &NEW)), value(&new));
    let old = expected("", "", &format!(",{media}"));
    assert_eq!(value(&written(&request, &OLD)), value(&old));
    // The placeholder means nothing to whoever reads it.
    with_request(&new, |read| {
        let calls = read.messages.iter().flat_map(|message| &message.parts);
        let signed = |part: &&Part<'_>| {
            matches!(
                part,
                Part::ToolCall(ToolCall {
                    signature: Some(_),
                    ..
                })
            )
        };
        assert_eq!(calls.filter(signed).count(), 0);
    });
    // Instructions alone are what the user says.
    request.messages.truncate(1);
    let alone = r#"{"contents":[{"role":"user","parts":[{"text":"one"}]}]}"#;
    assert_eq!(written(&request, &NEW), alone);
}

#[test]
fn hosted_tools_and_opaque_parts_of_others_are_left_out() {
    let opaque = |protocol, json: &'static str| Opaque {
        protocol,
        kind: JsonStr::new("k"),
        json: json.into(),
    };
    let request = Request {
        messages: vec![
            Message {
                parts: vec![
                    Part::Opaque(opaque(Protocol::AnthropicMessages, r#"{"type":"x"}"#)),
                    Part::text(JsonStr::new("t")),
                ],
                ..user("")
            },
            Message {
                parts: vec![Part::Opaque(opaque(Protocol::OpenaiChat, "1"))],
                ..user("")
            },
        ],
        tools: vec![Tool::Hosted(opaque(Protocol::OpenaiResponses, "{}"))],
        tool_choice: Some(ToolChoice::Auto),
        ..Request::default()
    };
    let expected = r#"{"contents":[{"role":"user","parts":[{"text":"t"}]}]}"#;
    assert_eq!(written(&request, &NEW), expected);
}

fn settings(change: impl FnOnce(&mut Request<'static>)) -> Request<'static> {
    let mut request = Request {
        messages: vec![user("u")],
        tools: vec![Tool::Function(Function {
            name: JsonStr::new("f"),
            description: Some(JsonStr::default()),
            ..Function::default()
        })],
        ..Request::default()
    };
    change(&mut request);
    request
}

/// Settings, and what they are on the wire.
#[test]
fn settings_there_and_back() {
    let check = |setting: &Setting<'_>, expected: &str, change: fn(&mut Request<'static>)| {
        let request = settings(change);
        let text = written(&request, setting);
        let found = value(&text);
        for (key, expected) in value(expected).as_object().unwrap() {
            assert_eq!(&found[key], expected, "{text}");
        }
        with_request(&text, |again| assert_eq!(again, &request));
    };
    let mode =
        |mode| format!(r#"{{"toolConfig":{{"functionCallingConfig":{{"mode":"{mode}"}}}}}}"#);
    check(&NEW, &mode("AUTO"), |r| {
        r.tool_choice = Some(ToolChoice::Auto)
    });
    check(&NEW, &mode("NONE"), |r| {
        r.tool_choice = Some(ToolChoice::None)
    });
    check(&NEW, &mode("ANY"), |r| {
        r.tool_choice = Some(ToolChoice::Required)
    });
    let config = |inside: &str| format!(r#"{{"generationConfig":{{{inside}}}}}"#);
    check(&NEW, &config(r#""responseMimeType":"text/plain""#), |r| {
        r.format = Some(Format::Text);
    });
    check(
        &NEW,
        &config(r#""responseMimeType":"application/json""#),
        |r| {
            r.format = Some(Format::JsonObject);
        },
    );
    let thinking = |inside: &str| config(&format!(r#""thinkingConfig":{{{inside}}}"#));
    check(&NEW, &thinking(r#""thinkingBudget":0"#), |r| {
        r.reasoning = Some(ReasoningSettings {
            mode: Some(ReasoningMode::Disabled),
            ..ReasoningSettings::default()
        });
    });
    check(&NEW, &thinking(r#""thinkingBudget":-1"#), |r| {
        r.reasoning = Some(ReasoningSettings {
            mode: Some(ReasoningMode::Adaptive),
            ..ReasoningSettings::default()
        });
    });
    check(
        &OLD,
        &thinking(r#""thinkingBudget":2048,"includeThoughts":false"#),
        |r| {
            r.reasoning = Some(ReasoningSettings {
                mode: Some(ReasoningMode::Enabled),
                budget: Some(2048),
                show: Some(ShowThoughts::No),
                ..ReasoningSettings::default()
            });
        },
    );
    check(&NEW, &thinking(r#""thinkingLevel":"MINIMAL""#), |r| {
        r.reasoning = Some(ReasoningSettings {
            effort: Some(JsonStr::new("minimal")),
            ..ReasoningSettings::default()
        });
    });
}

/// Models before Gemini 3 have no levels, and no model has both.
#[test]
fn efforts_are_levels_or_budgets() {
    let check = |setting: &Setting<'_>, effort: &'static str, budget, expected: &str| {
        let request = settings(|request| {
            request.reasoning = Some(ReasoningSettings {
                effort: Some(JsonStr::new(effort)),
                budget,
                show: Some(ShowThoughts::Summary(JsonStr::new("auto"))),
                ..ReasoningSettings::default()
            });
        });
        let text = written(&request, setting);
        let expected = value(&format!(r#"{{{expected},"includeThoughts":true}}"#));
        assert_eq!(value(&text)["generationConfig"]["thinkingConfig"], expected);
    };
    check(&NEW, "low", None, r#""thinkingLevel":"LOW""#);
    check(&NEW, "medium", Some(5), r#""thinkingLevel":"MEDIUM""#);
    check(&NEW, "max", None, r#""thinkingLevel":"HIGH""#);
    check(&NEW, "none", None, r#""thinkingBudget":0"#);
    check(&OLD, "low", None, r#""thinkingBudget":1024"#);
    check(&OLD, "high", None, r#""thinkingBudget":24576"#);
    check(&OLD, "high", Some(5), r#""thinkingBudget":5"#);
}

/// What only Gemini has goes back to Gemini, and is named where it goes nowhere.
#[test]
fn what_only_gemini_knows_is_kept() {
    let json = r#"{"contents":[{"role":"user","parts":[{"text":"u"},{"fileData":{"fileUri":"gs://a/b.mp4"},"videoMetadata":{"fps":5}}]}],
        "tools":[{"functionDeclarations":[{"name":"f","description":"d","behavior":"NON_BLOCKING"}]}],
        "toolConfig":{"functionCallingConfig":{"mode":"VALIDATED","allowedFunctionNames":["f","g"]}},
        "generationConfig":{"responseMimeType":"text/x.enum","responseSchema":{"type":"STRING","enum":["A"]},"responseModalities":["TEXT","IMAGE"],"thinkingConfig":{"new":1}}}"#;
    with_request(json, |request| {
        let expected = json.replace(r#","behavior":"NON_BLOCKING""#, "");
        assert_eq!(value(&written(request, &NEW)), value(&expected));
        assert_eq!(request.tool_choice, Some(ToolChoice::Auto));
        assert_eq!(request.format, None);
        let names: Vec<_> = request
            .extras
            .iter()
            .map(|extra| extra.name.decode())
            .collect();
        assert_eq!(
            names,
            [
                "tools.functionDeclarations.behavior",
                "toolConfig.functionCallingConfig.mode",
                "toolConfig.functionCallingConfig.allowedFunctionNames",
                "generationConfig.responseModalities",
                "generationConfig.responseMimeType",
                "generationConfig.responseSchema",
                "generationConfig.thinkingConfig.new",
            ]
        );
        let Part::Opaque(film) = &request.messages[0].parts[1] else {
            panic!("{:?}", request.messages[0]);
        };
        assert!(film.kind.is("videoMetadata"));
    });
    with_request(
        r#"{"contents":[{"parts":[{"inlineData":{"mimeType":"image/png","data":""},"mediaResolution":{"level":"MEDIA_RESOLUTION_LOW"}}]}],"serviceTier":"STANDARD","model":"models/m","generationConfig":{"responseModalities":["TEXT"]}}"#,
        |request| {
            let Part::Media(media) = &request.messages[0].parts[0] else {
                panic!("{:?}", request.messages[0]);
            };
            assert!(media.detail.as_ref().unwrap().is("low"));
            assert!(request.service_tier.as_ref().unwrap().is("default"));
            assert!(request.model.as_ref().unwrap().is("models/m"));
            assert!(request.extras.is_empty());
        },
    );
}

#[test]
fn bad_requests_are_told_what_is_wrong_and_where() {
    let contents = |parts: &str| format!(r#"{{"contents":[{{"role":"user","parts":[{parts}]}}]}}"#);
    let with = |member: &str| format!(r#"{{"contents":[{{"parts":[{{"text":"u"}}]}}],{member}}}"#);
    for (json, path, what) in [
        ("5".to_owned(), "", "expected an object, found a number"),
        ("{}".to_owned(), "", "`contents` is missing"),
        (
            r#"{"contents":null}"#.to_owned(),
            "",
            "`contents` is missing",
        ),
        (
            r#"{"contents":"hi"}"#.to_owned(),
            "contents",
            "expected an array, found a string",
        ),
        (
            r#"{"contents":[]}"#.to_owned(),
            "contents",
            "at least one content",
        ),
        (
            r#"{"contents":[{"role":"user"}]}"#.to_owned(),
            "contents[0]",
            "`parts` is missing",
        ),
        (contents(""), "contents[0].parts", "at least one part"),
        (contents("5"), "contents[0].parts[0]", "expected an object"),
        (
            contents("{}"),
            "contents[0].parts[0]",
            "a part needs one of",
        ),
        (
            contents(r#"{"text":5}"#),
            "contents[0].parts[0].text",
            "expected a string, found a number",
        ),
        (
            contents(r#"{"text":"a","inlineData":{}}"#),
            "contents[0].parts[0]",
            "not several",
        ),
        (
            contents(r#"{"inlineData":{"data":"x"}}"#),
            "contents[0].parts[0].inlineData",
            "needs `mimeType`",
        ),
        (
            contents(r#"{"fileData":{}}"#),
            "contents[0].parts[0].fileData",
            "needs a `fileUri`",
        ),
        (
            contents(r#"{"functionCall":{"name":"f"}}"#),
            "contents[0].parts[0]",
            "role `model`",
        ),
        (
            contents(r#"{"functionResponse":{"name":"f"}}"#),
            "contents[0].parts[0].functionResponse",
            "needs `name` and `response`",
        ),
        (
            contents(r#"{"functionResponse":{"name":"f","response":{}}}"#),
            "contents[0].parts[0].functionResponse",
            "no call of this name",
        ),
        (
            contents(r#"{"functionResponse":{"id":"1","name":"f","response":"x"}}"#),
            "contents[0].parts[0].functionResponse.response",
            "expected an object",
        ),
        (
            r#"{"contents":[{"role":"assistant","parts":[{"text":"x"}]}]}"#.to_owned(),
            "contents[0].role",
            "`user` or `model`",
        ),
        (
            r#"{"contents":[{"role":5,"parts":[{"text":"x"}]}]}"#.to_owned(),
            "contents[0].role",
            "`user` or `model`",
        ),
        (
            r#"{"contents":[{"role":"model","parts":[{"functionCall":{}}]}]}"#.to_owned(),
            "contents[0].parts[0].functionCall",
            "needs a `name`",
        ),
        (
            r#"{"contents":[{"role":"model","parts":[{"functionResponse":{}}]}]}"#.to_owned(),
            "contents[0].parts[0].functionResponse",
            "role `user`",
        ),
        (
            with(r#""systemInstruction":"x""#),
            "systemInstruction",
            "expected an object",
        ),
        (with(r#""tools":{}"#), "tools", "expected an array"),
        (
            with(r#""tools":[{"functionDeclarations":[{}]}]"#),
            "tools[0].functionDeclarations[0]",
            "needs a `name`",
        ),
        (
            with(
                r#""tools":[{"functionDeclarations":[{"name":"f","parameters":{},"parametersJsonSchema":{}}]}]"#,
            ),
            "tools[0].functionDeclarations[0].parametersJsonSchema",
            "not both",
        ),
        (
            with(r#""toolConfig":{"functionCallingConfig":{"mode":"auto"}}"#),
            "toolConfig.functionCallingConfig.mode",
            "expected `AUTO`",
        ),
        (
            with(r#""generationConfig":{"temperature":"hot"}"#),
            "generationConfig.temperature",
            "expected a number, found a string",
        ),
        (
            with(r#""generationConfig":{"topK":true}"#),
            "generationConfig.topK",
            "expected a number, found a boolean",
        ),
        (
            with(r#""generationConfig":{"candidateCount":1.5}"#),
            "generationConfig.candidateCount",
            "whole number",
        ),
        (
            with(r#""generationConfig":{"stopSequences":"x"}"#),
            "generationConfig.stopSequences",
            "expected an array",
        ),
        (
            with(r#""generationConfig":{"stopSequences":[1]}"#),
            "generationConfig.stopSequences[0]",
            "expected a string",
        ),
        (
            with(r#""generationConfig":{"responseSchema":{},"responseJsonSchema":{}}"#),
            "generationConfig.responseJsonSchema",
            "not both",
        ),
        (
            with(r#""generationConfig":{"thinkingConfig":{"thinkingBudget":-5}}"#),
            "generationConfig.thinkingConfig.thinkingBudget",
            "at least 0",
        ),
        (
            with(r#""generationConfig":{"thinkingConfig":{"includeThoughts":1}}"#),
            "generationConfig.thinkingConfig.includeThoughts",
            "expected a boolean",
        ),
        (
            with(r#""serviceTier":1"#),
            "serviceTier",
            "expected a string",
        ),
    ] {
        let tree = parse(json.as_bytes()).unwrap();
        let error = read_request(tree.root()).expect_err(&json);
        assert_eq!(error.path, path, "{json}: {error}");
        assert!(error.what.contains(what), "{json}: {error}");
    }
}

/// Every feature that is claimed is in a request that comes back as it was, and of those that are
/// not nothing is written.
#[test]
fn what_is_claimed_is_what_is_carried() {
    let mut carried = with_request(RICH, |request| request.features(OWN));
    for request in [
        settings(|request| request.tool_choice = Some(ToolChoice::None)),
        settings(|request| request.tool_choice = Some(ToolChoice::Required)),
        settings(|request| request.format = Some(Format::JsonObject)),
        settings(|request| {
            request.reasoning = Some(ReasoningSettings {
                mode: Some(ReasoningMode::Disabled),
                ..ReasoningSettings::default()
            });
        }),
        settings(|request| {
            request.reasoning = Some(ReasoningSettings {
                mode: Some(ReasoningMode::Enabled),
                budget: Some(5),
                ..ReasoningSettings::default()
            });
        }),
    ] {
        with_request(&written(&request, &NEW), |again| {
            assert_eq!(again, &request)
        });
        carried = carried.union(request.features(OWN));
    }
    let missing: Vec<Feature> = EXPRESSES
        .without(carried)
        .iter()
        .filter(|feature| !feature.name().starts_with("answer."))
        .collect();
    assert_eq!(missing, []);

    let mut request = foreign();
    request.format = Some(Format::JsonSchema(Schema {
        name: Some(JsonStr::new("n")),
        description: Some(JsonStr::new("d")),
        schema: "{}".into(),
        strict: Some(true),
    }));
    request.tools = vec![Tool::Function(Function {
        name: JsonStr::new("f"),
        strict: Some(true),
        cache: Some(CacheMark::default()),
        ..Function::default()
    })];
    request.sampling.logit_bias = Some("{}".into());
    request.messages[1].name = Some(JsonStr::new("n"));
    let Part::Media(media) = picture("aQ==") else {
        unreachable!()
    };
    request.messages[1].parts.push(Part::Media(Media {
        kind: MediaKind::Document,
        name: Some(JsonStr::new("n")),
        detail: Some(JsonStr::new("low")),
        context: Some(JsonStr::new("c")),
        citations: true,
        cache: Some(CacheMark::default()),
        ..media
    }));
    request.messages[0].parts.push(picture("aQ=="));
    let before = request.features(OWN).without(EXPRESSES);
    assert!(
        before.iter().count() >= 19,
        "{:?}",
        before.iter().collect::<Vec<_>>()
    );
    with_request(&written(&request, &NEW), |again| {
        let left = again.features(OWN).without(EXPRESSES);
        assert_eq!(left.iter().collect::<Vec<_>>(), []);
    });
}
