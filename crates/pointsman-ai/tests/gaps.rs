//! What APISIX 3.18's converter from Anthropic Messages to OpenAI Chat lacks, and what is here instead:
//! by the numbers of `docs/protocols/gaps.md`, where those that other tests show have theirs named.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use pointsman_ai::{Outside, Protocol, Provider, TranslatedRequest, Translation};

fn asked(body: &str, provider: Provider, stream: bool) -> TranslatedRequest {
    let outside = Outside {
        model: Some("configured"),
        version: None,
        stream,
        now: 1,
        seed: "s",
    };
    let (client, target) = (Protocol::AnthropicMessages, Protocol::OpenaiChat);
    Translation::request(body.as_bytes(), client, target, provider, outside).unwrap()
}

/// What OpenAI Chat is sent for a message of these blocks, with further members.
fn sent(provider: Provider, blocks: &str, more: &str) -> (String, String) {
    let body = format!(
        r#"{{"max_tokens":9,"messages":[{{"role":"user","content":[{{"type":"text","text":"x"}}{blocks}]}}]{more}}}"#
    );
    let sent = asked(&body, provider, false);
    (String::from_utf8(sent.body).unwrap(), sent.lost.join(","))
}

const PLAIN: &str = r#"{"max_tokens":9,"messages":[{"role":"user","content":"x"}]}"#;

/// What an Anthropic client gets for an answer of Chat's.
fn answered(answer: &str) -> String {
    let translation = asked(PLAIN, Provider::Openai, false).translation;
    String::from_utf8(translation.response(answer.as_bytes()).unwrap().0).unwrap()
}

/// And for a stream.
fn streamed(events: &[&str]) -> String {
    let translation = asked(PLAIN, Provider::Openai, true).translation;
    let mut translator = translation.stream(false).unwrap();
    let mut out = Vec::new();
    for event in events {
        translator.push(format!("data: {event}\n\n").as_bytes(), &mut out);
    }
    translator.finish(&mut out);
    String::from_utf8(out).unwrap()
}

fn message(message: &str, finish: &str) -> String {
    format!(
        r#"{{"id":"c","model":"upstream","choices":[{{"index":0,"message":{message},"finish_reason":"{finish}"}}],"usage":{{"prompt_tokens":30,"completion_tokens":5,"total_tokens":35,"prompt_tokens_details":{{"cached_tokens":10,"cache_creation_input_tokens":4}}}}}}"#
    )
}

fn chunk(delta: &str, finish: &str) -> String {
    format!(
        r#"{{"id":"c","model":"upstream","choices":[{{"index":0,"delta":{delta},"finish_reason":{finish}}}]}}"#
    )
}

const DONE: &str = "[DONE]";

/// All of `parts` stand in `text`, in that order.
fn in_order(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let at = rest.find(part).unwrap_or_else(|| panic!("{part}: {text}"));
        rest = &rest[at + part.len()..];
    }
}

/// G-02: an error inside, or an end too early, ends in an error.
#[test]
fn a_stream_that_fails_is_not_complete() {
    let text = chunk(r#"{"content":"a"}"#, "null");
    let error = r#"{"error":{"message":"busy","type":"server_error"}}"#;
    for events in [&[&*text, error][..], &[&*text]] {
        let written = streamed(events);
        in_order(
            &written,
            &[
                r#""text":"a""#,
                "event: error",
                r#"{"type":"error","error":{"type":"#,
            ],
        );
        assert!(!written.contains("message_delta"), "{written}");
        assert!(!written.contains("message_stop"), "{written}");
    }
}

/// G-04, G-35: every event has all its members; a stream names the provider's model, a whole answer the
/// configured one.
#[test]
fn events_have_all_their_members() {
    let thought = chunk(r#"{"reasoning_content":"hm"}"#, "null");
    let text = chunk(r#"{"content":"a"}"#, "null");
    let end = chunk("{}", r#""stop""#);
    in_order(
        &streamed(&[&thought, &text, &end, DONE]),
        &[
            r#""model":"upstream","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":0,"output_tokens":0}"#,
            r#""content_block":{"type":"thinking","thinking":"","signature":""}"#,
            r#""delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"input_tokens":0,"output_tokens":0}"#,
        ],
    );
    let whole = answered(&message(r#"{"content":"x"}"#, "stop"));
    assert!(whole.contains(r#""model":"configured""#), "{whole}");
}

/// G-05, G-17: usage is the same wherever it comes.
#[test]
fn usage_is_read_in_one_way() {
    let usage = r#""usage":{"input_tokens":20,"output_tokens":5,"cache_creation_input_tokens":4,"cache_read_input_tokens":10}"#;
    let whole = message(r#"{"content":"a"}"#, "stop");
    assert!(answered(&whole).contains(usage));
    let finish = whole.replace(r#""message""#, r#""delta""#);
    let written = streamed(&[&finish, DONE]);
    assert!(written.contains(usage), "{written}");
    let written = streamed(&[&finish]);
    assert!(written.contains(usage), "{written}");
}

/// G-06, G-07
#[test]
fn refusals_and_filters_are_told() {
    let refused = answered(&message(r#"{"content":null,"refusal":"no"}"#, "stop"));
    let expected = r#""content":[{"type":"text","text":"no"}],"stop_reason":"refusal""#;
    assert!(refused.contains(expected), "{refused}");
    let filtered = answered(&message(r#"{"content":"par"}"#, "content_filter"));
    assert!(
        filtered.contains(r#""stop_reason":"refusal""#),
        "{filtered}"
    );
    let (refusal, end) = (
        chunk(r#"{"refusal":"no"}"#, "null"),
        chunk("{}", r#""stop""#),
    );
    in_order(
        &streamed(&[&refusal, &end, DONE]),
        &[r#""text":"no""#, r#""stop_reason":"refusal""#],
    );
    let stopped = answered(&message(r#"{"content":"a"}"#, "stop"));
    let expected = r#""stop_reason":"end_turn","stop_sequence":null"#;
    assert!(stopped.contains(expected), "{stopped}");
}

/// G-08: what has no place is a loss, and a refusal where translation is strict.
#[test]
fn documents_arrive_or_are_told() {
    let blocks = r#",{"type":"document","title":"T","source":{"type":"base64","media_type":"application/pdf","data":"aGk="}},{"type":"document","source":{"type":"text","media_type":"text/plain","data":"plain"}},{"type":"document","source":{"type":"url","url":"https://a/b.pdf"}},{"type":"image","source":{"type":"file","file_id":"f"}}"#;
    let lost = "messages.document.text,messages.document.url,messages.image.file";
    let (text, found) = sent(Provider::Openai, blocks, "");
    let file = r#"{"type":"file","file":{"filename":"T","file_data":"data:application/pdf;base64,aGk="}},{"type":"text","text":"plain"}]"#;
    assert!(text.contains(file), "{text}");
    assert_eq!(found, lost);
    let (text, found) = sent(Provider::OpenaiCompatible, blocks, "");
    let picture = r#"{"type":"image_url","image_url":{"url":"data:application/pdf;base64,aGk="}}"#;
    assert!(text.contains(picture), "{text}");
    let title = "messages.document.text,messages.document.title";
    assert_eq!(found, lost.replace("messages.document.text", title));
}

/// G-10, G-11, G-12
#[test]
fn requests_say_what_chat_knows() {
    let tools = r#","tools":[{"type":"web_fetch_20250910","name":"web_fetch"},{"type":"mcp_toolset","mcp_server_name":"x"},{"type":"custom","name":"f","input_schema":{"type":"object"}}]"#;
    let (text, lost) = sent(Provider::Openai, "", tools);
    let function =
        r#""tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}]"#;
    assert!(text.contains(function), "{text}");
    assert_eq!(lost, "tools.mcp_toolset,tools.web_fetch_20250910");
    let settings = r#","service_tier":"standard_only","thinking":{"type":"adaptive"},"output_config":{"effort":"max"}"#;
    let (text, lost) = sent(Provider::Deepseek, "", settings);
    for said in [
        r#""reasoning_effort":"max""#,
        r#""max_completion_tokens":9"#,
        r#""service_tier":"default""#,
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert_eq!(lost, "");
}

/// G-13, G-14: errors keep their status and words.
#[test]
fn errors_have_the_clients_form() {
    let translation = asked(PLAIN, Provider::Openai, false).translation;
    for (status, kind) in [
        (404, "not_found_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (503, "overloaded_error"),
    ] {
        let body = translation.error(status, br#"{"detail":"words"}"#);
        let expected =
            format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"words"}}}}"#);
        assert_eq!(String::from_utf8_lossy(&body), expected);
    }
}

/// G-31: what a provider wants back with thoughts goes there again; with a call it has no place, and is a loss.
#[test]
fn signatures_come_back() {
    let thought = r#"{"content":"x","reasoning_details":[{"type":"reasoning.text","text":"hm","signature":"S="}]}"#;
    let whole = answered(&message(thought, "stop"));
    let block = r#"{"type":"thinking","thinking":"hm","signature":"pm.openai-chat.S="}"#;
    assert!(whole.contains(block), "{whole}");
    let again = format!(
        r#"{{"max_tokens":9,"messages":[{{"role":"user","content":"x"}},{{"role":"assistant","content":[{block},{{"type":"text","text":"x"}}]}},{{"role":"user","content":"y"}}]}}"#
    );
    let sent = asked(&again, Provider::Openrouter, false).body;
    let sent = String::from_utf8_lossy(&sent).into_owned();
    assert!(sent.contains(r#""signature":"S=""#), "{sent}");
    let call = r#"{"content":null,"tool_calls":[{"id":"t","type":"function","function":{"name":"f","arguments":"{}"},"extra_content":{"google":{"thought_signature":"G="}}}]}"#;
    let translation = asked(PLAIN, Provider::Openai, false).translation;
    let (_, lost) = translation
        .response(message(call, "tool_calls").as_bytes())
        .unwrap();
    assert_eq!(lost, ["answer.tool_call.signature"]);
}

/// G-32: texts of a list arrive, each as a block.
#[test]
fn texts_of_a_list_arrive() {
    let list = r#"{"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}"#;
    let whole = answered(&message(list, "stop"));
    let blocks = r#"[{"type":"text","text":"a"},{"type":"text","text":"b"}]"#;
    assert!(whole.contains(blocks), "{whole}");
}

/// P-125
#[test]
fn an_error_within_a_success_stays_one() {
    let error = r#"{"error":{"type":"invalid_request_error","message":"m","code":"c"}}"#;
    let expected = r#"{"type":"error","error":{"type":"invalid_request_error","message":"m"}}"#;
    assert_eq!(answered(error), expected);
}
