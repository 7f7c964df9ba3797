//! Requests of clients that speak other protocols, and what is claimed to be carried.

use super::{requests::RICH, settings::settings, *};
use crate::conversation::{
    Arguments, CacheMark, Citation, Format, Function, Media, MediaKind, Message, Opaque, Part,
    Reasoning, ReasoningMode, ReasoningSettings, Role, Schema, Source, Text, Tool, ToolCall,
    ToolChoice, ToolResult,
};

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

/// G-29: arguments that are no object become one. G-32: several texts are one.
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

/// Every feature that is claimed is in a request that comes back as it was.
#[test]
fn what_is_claimed_is_carried() {
    let mut carried = with_request(RICH, |request| request.features(OWN));
    for request in [
        settings(|request| request.tool_choice = Some(ToolChoice::None)),
        settings(|request| request.tool_choice = Some(ToolChoice::Required)),
        settings(|request| request.format = Some(Format::JsonObject)),
        settings(|request| {
            request.messages.push(Message {
                role: Role::Assistant,
                name: None,
                parts: vec![Part::Reasoning(Reasoning {
                    text: JsonStr::new("hm"),
                    ..Reasoning::default()
                })],
                plain: false,
            });
        }),
        settings(|request| {
            request.reasoning = Some(ReasoningSettings {
                mode: Some(ReasoningMode::Disabled),
                ..ReasoningSettings::default()
            });
        }),
        settings(|request| {
            request.reasoning = Some(ReasoningSettings {
                mode: Some(ReasoningMode::Adaptive),
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
    // The usual tier is what there is anyhow, so nothing is written for it.
    carried.note(Feature::ServiceTier, true);
    let missing: Vec<Feature> = EXPRESSES
        .without(carried)
        .iter()
        .filter(|feature| !feature.name().starts_with("answer."))
        .collect();
    assert_eq!(missing, []);
}

#[test]
fn what_is_not_claimed_is_not_written() {
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
