//! Requests.

use super::*;
use crate::conversation::{
    Arguments, MediaKind, Part, Reasoning, Role, Source, ToolCall, ToolChoice,
};

/// A conversation with everything in it that the protocol has and others have, too.
pub(super) const RICH: &str = r#"{
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
 "tools":[{"functionDeclarations":[{"name":"weather","description":"Tells it.","parametersJsonSchema":{"type":"object","properties":{"city":{"type":"string"}},"additionalProperties":false}},{"name":"now"}]},{"googleSearch":{}},{"codeExecution":{}}],
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
fn media_are_told_apart() {
    use MediaKind::*;
    let base64 = |text| Source::Base64(JsonStr::new(text));
    let url = |text| Source::Url(JsonStr::new(text));
    let file = |text| Source::File(JsonStr::new(text));
    with_request(RICH, |request| {
        let parts = request.messages[1].parts.iter();
        let media = parts.filter_map(|part| match part {
            Part::Media(media) => Some((media.kind, media.source.clone())),
            _ => None,
        });
        assert_eq!(
            media.collect::<Vec<_>>(),
            [
                (Image, base64("aW1n")),
                (Image, url("https://example.com/a.jpg")),
                (
                    Image,
                    file("https://generativelanguage.googleapis.com/v1beta/files/a1")
                ),
                (Document, base64("cGRm")),
                (Document, Source::Text(JsonStr::new("text"))),
                (Document, url("gs://bucket/a.pdf")),
                (Document, file("files/b2")),
                (Audio, base64("d2F2")),
                (Audio, url("gs://bucket/a.mp3")),
                (Video, base64("bXA0")),
                (Video, url("https://www.youtube.com/watch?v=1")),
            ]
        );
    });
}

#[test]
fn what_the_model_said_is_understood() {
    with_request(RICH, |request| {
        let parts = &request.messages[2].parts;
        let thought = Reasoning {
            text: JsonStr::new("I think"),
            signature: Some(signature(OWN, "c2lnMA==")),
            ..Reasoning::default()
        };
        assert_eq!(parts[0], Part::Reasoning(thought));
        let hidden = Reasoning {
            signature: Some(signature(OWN, "c2lnMQ==")),
            is_hidden: true,
            ..Reasoning::default()
        };
        assert_eq!(parts[2], Part::Reasoning(hidden));
        let call = ToolCall {
            id: JsonStr::new("c1"),
            name: JsonStr::new("weather"),
            arguments: Arguments::Json(r#"{"city":"K\u00f6ln","n":1.50}"#.into()),
            signature: Some(signature(OWN, "c2lnMg==")),
            cache: None,
        };
        assert_eq!(parts[4], Part::ToolCall(call));
        let Part::Opaque(code) = &parts[6] else {
            panic!("{:?}", parts[6]);
        };
        assert!(code.kind.is("executableCode"));
    });
}

#[test]
fn what_tools_answered_is_a_message() {
    with_request(RICH, |request| {
        let roles = request.messages.iter().map(|message| message.role);
        use Role::*;
        assert_eq!(
            roles.collect::<Vec<_>>(),
            [System, User, Assistant, Tool, User, Assistant, User]
        );
        let results = request.messages[3].parts.iter().map(|part| match part {
            Part::ToolResult(result) => result,
            other => panic!("{other:?}"),
        });
        let results: Vec<_> = results.collect();
        let json = JsonStr::new(r#"{"temp":20,"sky":"clear"}"#);
        assert_eq!(results[0].parts, [Part::text(json)]);
        assert_eq!((results[0].is_error, results[0].plain), (false, true));
        assert!(results[1].is_error && results[1].name == Some(JsonStr::new("weather")));
        assert_eq!(results[1].parts.len(), 2);
    });
}

#[test]
fn what_has_no_place_is_an_extra() {
    with_request(RICH, |request| {
        let extras = request.extras.iter().map(|extra| extra.name.decode());
        assert_eq!(
            extras.collect::<Vec<_>>(),
            [
                "safetySettings",
                "cachedContent",
                "labels",
                "toolConfig.retrievalConfig",
                "generationConfig.speechConfig"
            ]
        );
        let weather = ToolChoice::Tool(JsonStr::new("weather"));
        assert_eq!(request.tool_choice, Some(weather));
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
        "tools":[{"functionDeclarations":[{"name":"f","parametersJsonSchema":{"type":"object","properties":{"a":{"type":"string"}}}}]},{"google_search":{}}],
        "toolConfig":{"functionCallingConfig":{"mode":"AUTO"}},
        "generationConfig":{"maxOutputTokens":5,"stopSequences":["x"],"responseMimeType":"application/json","responseJsonSchema":{"type":["string","null"]},"thinkingConfig":{"thinkingBudget":-1,"includeThoughts":false}}}"#;
    with_request(json, |request| {
        assert_eq!(value(&written(request, &OLD)), value(expected));
        assert!(request.extras.is_empty());
    });
}

/// A call that was never answered does not get the answer of a later one.
#[test]
fn results_belong_to_the_turn_before_them() {
    let json = r#"{"contents":[
        {"role":"model","parts":[{"functionCall":{"name":"a"}}]},
        {"role":"user","parts":[{"text":"never mind"}]},
        {"role":"model","parts":[{"functionCall":{"name":"a"}}]},
        {"role":"user","parts":[{"functionResponse":{"name":"a","response":{}}}]}]}"#;
    with_request(json, |request| {
        let last = request.messages.last().unwrap();
        let Part::ToolResult(result) = &last.parts[0] else {
            panic!("{last:?}");
        };
        assert!(result.call_id.is("call_2"));
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
