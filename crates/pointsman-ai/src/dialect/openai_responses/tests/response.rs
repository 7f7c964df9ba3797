use super::*;
use crate::{
    Protocol,
    conversation::{
        Arguments, Choice, Citation, ErrorMessage, Part, Reasoning, Signature, Stop, Text, ToolCall,
    },
    json::{string::JsonStr, value_at},
};

const RESPONSE: &str = r#"{
 "id": "resp_67ccd2bed1ec8190", "object": "response", "created_at": 1741476542.0, "status": "completed", "background": false,
 "error": null, "incomplete_details": null, "instructions": null, "max_output_tokens": null, "model": "gpt-5.2-2026-01-01",
 "output": [
  {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "Look it up."}], "encrypted_content": "gAAA"},
  {"id": "rs_2", "type": "reasoning", "summary": []},
  {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q"}},
  {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [
    {"type": "output_text", "text": "See here.", "annotations": [{"type": "url_citation", "start_index": 4, "end_index": 8, "url": "https://example.com", "title": "Example"}],
     "logprobs": [{"token": "See", "bytes": [83], "logprob": -0.10, "top_logprobs": []}]}]},
  {"id": "fc_1", "type": "function_call", "status": "completed", "arguments": "{\"a\":1}", "call_id": "call_1", "name": "f"}],
 "parallel_tool_calls": true, "previous_response_id": null, "reasoning": {"effort": "high", "summary": "auto"}, "service_tier": "flex", "store": false,
 "temperature": 1.0, "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "top_p": 1.0, "truncation": "disabled",
 "usage": {"input_tokens": 36, "input_tokens_details": {"cached_tokens": 12, "cache_write_tokens": 4}, "output_tokens": 87, "output_tokens_details": {"reasoning_tokens": 8}, "total_tokens": 123},
 "user": null, "metadata": {}
}"#;

/// P-163
#[test]
fn an_answer_is_understood() {
    let read = response(RESPONSE);
    let usage = read.usage.unwrap();
    let counts = [
        usage.prompt,
        usage.cache_read,
        usage.cache_creation,
        usage.completion,
    ];
    assert_eq!(counts, [32, 12, 4, 87]);
    assert_eq!((usage.reasoning, usage.total), (8, 123));
    assert_eq!(read.created, Some(1_741_476_542));
    assert!(read.service_tier.as_ref().unwrap().is("flex"));
    let choice = &read.choices[0];
    assert_eq!(choice.stop, Stop::ToolCalls);
    assert_eq!(
        choice.logprobs.as_deref(),
        Some(
            r#"{"content":[{"token": "See", "bytes": [83], "logprob": -0.10, "top_logprobs": []}]}"#
        )
    );
    let [
        Part::Reasoning(_),
        Part::Opaque(search),
        Part::Text(text),
        Part::ToolCall(call),
    ] = &choice.parts[..]
    else {
        panic!("{:?}", choice.parts);
    };
    assert!(search.kind.is("web_search_call"));
    assert_eq!(text.citations[0].span, Some((4, 8)));
    assert!(text.citations[0].title.as_ref().unwrap().is("Example"));
    assert!(call.id.is("call_1"));
    let lost = read.features(OWN).without(EXPRESSES);
    assert!(lost.is_empty());
}

#[test]
fn an_answer_survives_writing_and_reading() {
    let read = response(RESPONSE);
    let text = answered(&read);
    assert_eq!(response(&text), read, "{text}");
    has_members(
        &text,
        &[
            "id",
            "object",
            "created_at",
            "status",
            "error",
            "incomplete_details",
            "instructions",
            "metadata",
            "model",
            "output",
            "parallel_tool_calls",
            "temperature",
            "tool_choice",
            "tools",
            "top_p",
            "text",
            "reasoning",
            "truncation",
            "usage",
        ],
    );
    let refused = response(
        r#"{"id":"resp_1","status":"completed","model":"m","created_at":1,"output":[{"type":"message","content":[{"type":"refusal","refusal":"No."}]}]}"#,
    );
    assert_eq!(refused.choices[0].stop, Stop::Refusal);
    assert_eq!(response(&answered(&refused)), refused);
    // As Gemini signs calls, in an item behind the call.
    let signed = response(
        r#"{"id":"resp_1","status":"completed","model":"m","created_at":1,"output":[{"type":"function_call","call_id":"c","name":"f","arguments":"{}"},{"type":"reasoning","summary":[],"encrypted_content":"pm.call.pm.gemini-generate-content.QQ=="}]}"#,
    );
    assert_eq!(response(&answered(&signed)), signed);
    let said = read.features(OWN).union(refused.features(OWN));
    let said = said.union(signed.features(OWN));
    let unproved: Vec<_> = EXPRESSES
        .without(said)
        .iter()
        .map(Feature::name)
        .filter(|name| name.starts_with("answer."))
        .collect();
    assert_eq!(unproved, [""; 0]);
}

#[test]
fn answers_say_why_they_ended() {
    let check = |stop: Stop<'static>, status: &str, details: &str, again: Stop<'static>| {
        let written = answered(&Response {
            choices: vec![Choice {
                parts: vec![Part::text(JsonStr::new("x"))],
                stop,
                logprobs: None,
            }],
            ..Response::default()
        });
        let member = |name| String::from_utf8_lossy(value_at(written.as_bytes(), [name]).unwrap());
        assert_eq!(member("status"), format!("\"{status}\""));
        assert_eq!(member("incomplete_details"), details);
        assert_eq!(response(&written).choices[0].stop, again);
    };
    let other = || Stop::Other(JsonStr::new("RECITATION"));
    check(Stop::End, "completed", "null", Stop::End);
    check(Stop::Sequence(None), "completed", "null", Stop::End);
    let length = r#"{"reason":"max_output_tokens"}"#;
    check(Stop::Length, "incomplete", length, Stop::Length);
    let filter = r#"{"reason":"content_filter"}"#;
    check(
        Stop::ContentFilter,
        "incomplete",
        filter,
        Stop::ContentFilter,
    );
    check(Stop::Refusal, "incomplete", filter, Stop::ContentFilter);
    check(other(), "incomplete", r#"{"reason":"RECITATION"}"#, other());
}

#[test]
fn what_is_no_answer_is_refused() {
    for (text, expected) in [
        ("{}", "`output`, a list of items, is missing"),
        (
            r#"{"status":"failed","error":{"code":"server_error","message":"Sorry."},"output":[]}"#,
            "a response that is `failed` is no answer: Sorry.",
        ),
        (
            r#"{"status":"in_progress","output":[]}"#,
            "a response that is `in_progress` is no answer: ",
        ),
    ] {
        let error = read_response(tree(text).root(), &SETTING).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

/// An answer of another protocol's provider.
#[test]
fn an_answer_from_elsewhere() {
    let answer = Response {
        id: Some(JsonStr::new("msg_01")),
        choices: vec![Choice {
            parts: vec![
                Part::Reasoning(Reasoning {
                    text: JsonStr::new("hm"),
                    signature: Some(Signature {
                        origin: Protocol::AnthropicMessages,
                        data: JsonStr::new("Er=="),
                    }),
                    ..Reasoning::default()
                }),
                Part::Text(Text {
                    text: JsonStr::new("a"),
                    citations: vec![Citation {
                        title: Some(JsonStr::new("Doc")),
                        span: Some((0, 1)),
                        ..Citation::default()
                    }],
                    cache: None,
                }),
                Part::text(JsonStr::new("b")),
                Part::ToolCall(ToolCall {
                    id: JsonStr::new("c"),
                    name: JsonStr::new("f"),
                    arguments: Arguments::Text(JsonStr::default()),
                    signature: Some(Signature {
                        origin: Protocol::GeminiGenerateContent,
                        data: JsonStr::new("Ab"),
                    }),
                    cache: None,
                }),
            ],
            stop: Stop::ToolCalls,
            logprobs: None,
        }],
        usage: Some(crate::Usage {
            prompt: 10,
            completion: 2,
            cache_creation: 5,
            total: 17,
            ..crate::Usage::default()
        }),
        ..Response::default()
    };
    let text = answered(&answer);
    let output = concat!(
        r#"[{"id":"rs_s33d_0","type":"reasoning","summary":[{"type":"summary_text","text":"hm"}],"encrypted_content":"pm.anthropic-messages.Er=="},"#,
        r#"{"id":"msg_s33d_1","type":"message","status":"completed","content":["#,
        r#"{"type":"output_text","annotations":[{"type":"file_citation","index":1,"file_id":"","filename":"Doc"}],"logprobs":[],"text":"a"},"#,
        r#"{"type":"output_text","annotations":[],"logprobs":[],"text":"b"}],"role":"assistant"},"#,
        r#"{"id":"fc_s33d_2","type":"function_call","status":"completed","arguments":"{}","call_id":"c","name":"f"},"#,
        r#"{"id":"rs_s33d_3","type":"reasoning","summary":[],"encrypted_content":"pm.call.pm.gemini-generate-content.Ab"}]"#,
    );
    assert!(text.contains(output), "{text}");
    assert!(
        text.starts_with(r#"{"id":"resp_msg_01","object":"response","created_at":1760000000,"#)
    );
    assert!(text.contains(r#""input_tokens":15,"#), "{text}");
    let Part::ToolCall(call) = &response(&text).choices[0].parts[3] else {
        panic!("no call");
    };
    let signature = call.signature.as_ref().unwrap();
    assert_eq!(signature.origin, Protocol::GeminiGenerateContent);
}

#[test]
fn errors_are_read_and_written() {
    let text = r#"{"error":{"message":"No \"such\" model","type":"invalid_request_error","param":"model","code":"model_not_found"}}"#;
    let read = read_error(tree(text).root()).unwrap();
    assert!(read.message.is("No \"such\" model"));
    let write = |status, error: &ErrorMessage<'_>| {
        let mut out = Vec::new();
        write_error(status, error, &mut Writer::new(&mut out));
        String::from_utf8(out).unwrap()
    };
    assert_eq!(write(404, &read), text);
    let other = ErrorMessage {
        kind: Some(JsonStr::new("ThrottlingException")),
        message: JsonStr::new("Slow down"),
        ..ErrorMessage::default()
    };
    assert_eq!(
        write(429, &other),
        r#"{"error":{"message":"Slow down","type":"rate_limit_error","param":null,"code":"ThrottlingException"}}"#
    );
    let numbered = r#"{"error":{"message":"m","code":400}}"#;
    assert!(
        read_error(tree(numbered).root())
            .unwrap()
            .code
            .unwrap()
            .is("400")
    );
    for other in [
        r#"{"error":null}"#,
        r#"{"error":"x"}"#,
        r#"{"detail":"x"}"#,
        RESPONSE,
    ] {
        assert_eq!(read_error(tree(other).root()), None, "{other}");
    }
}
