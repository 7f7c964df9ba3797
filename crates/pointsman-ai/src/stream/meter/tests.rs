use super::*;
use crate::stream::sse::EVENT_BYTES_MAX;

fn check(protocol: Protocol, stream: &str, expected: &StreamFacts) {
    let read = |pieces: &[&[u8]]| {
        let mut meter = StreamMeter::new(protocol, Capture::Text);
        for piece in pieces {
            meter.push(piece);
        }
        meter.finish()
    };
    assert_eq!(&read(&[stream.as_bytes()]), expected);
    for cut in 0..=stream.len() {
        let (head, tail) = stream.as_bytes().split_at(cut);
        assert_eq!(&read(&[head, tail]), expected, "cut at {cut}");
    }
}

fn usage(prompt: u64, completion: u64, total: u64) -> Option<Usage> {
    Some(Usage {
        prompt,
        completion,
        total,
        ..Usage::default()
    })
}

/// P-139, P-140, P-160, P-162
#[test]
fn chat_streams() {
    check(
        Protocol::OpenaiChat,
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}],\"usage\":null}\n\n\
         data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}\n\n\
         data: \n\ndata: not json\n\n\
         data: {\"choices\":[{\"delta\":{\"content\":\"lo\",\"tool_calls\":[{\"index\":0}]}}]}\n\n\
         data: {\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":2,\"total_tokens\":12}}\n\n\
         data: [DONE]\n\n",
        &StreamFacts {
            usage: usage(10, 2, 12),
            has_tool_calls: true,
            text: Some("Hello".to_owned()),
            done: true,
            ..StreamFacts::default()
        },
    );
}

#[test]
fn streams_that_are_passed_on() {
    check(
        Protocol::Direct(DirectApi::Completion),
        "data: {\"choices\":[{\"text\":\"Hel\"}],\"usage\":null}\n\n\
         data: {\"choices\":[{\"text\":\"lo\"}]}\n\n\
         data: {\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":2,\"total_tokens\":12}}\n\n\
         data: [DONE]\n\n",
        &StreamFacts {
            usage: usage(10, 2, 12),
            text: Some("Hello".to_owned()),
            done: true,
            ..StreamFacts::default()
        },
    );
    check(
        Protocol::Direct(DirectApi::Transcription),
        "data: {\"type\":\"transcript.text.delta\",\"delta\":\"I\"}\n\n\
         data: {\"type\":\"transcript.text.done\",\"text\":\"I see\",\"usage\":{\"input_tokens\":14,\"output_tokens\":45,\"total_tokens\":59}}\n\n",
        &StreamFacts {
            usage: usage(14, 45, 59),
            text: Some("I see".to_owned()),
            done: true,
            ..StreamFacts::default()
        },
    );
    check(
        Protocol::Direct(DirectApi::ImageGeneration),
        "event: image_generation.completed\n\
         data: {\"type\":\"image_generation.completed\",\"usage\":{\"input_tokens\":1,\"output_tokens\":2,\"total_tokens\":3}}\n\n",
        &StreamFacts {
            usage: usage(1, 2, 3),
            text: Some(String::new()),
            done: true,
            ..StreamFacts::default()
        },
    );
    check(
        Protocol::Direct(DirectApi::Speech),
        "data: {\"type\":\"speech.audio.delta\",\"audio\":\"AA\"}\n\n\
         data: {\"type\":\"speech.audio.done\"}\n\n",
        &StreamFacts {
            text: Some(String::new()),
            done: true,
            ..StreamFacts::default()
        },
    );
}

#[test]
fn only_what_states_something_is_parsed() {
    let check = |data: &str, expected| {
        assert_eq!(states(&USAGE, data.as_bytes()), expected, "{data}");
    };
    check(r#"{"choices":[]}"#, false);
    check(r#"{"usage":null}"#, false);
    check(
        r#"{"a":{"usage" : null },"usage" :{"total_tokens":1}}"#,
        true,
    );
    check(r#"{"usage"#, false);
    check(r#"{"usage""#, true);
    check(r#"{"usage":"#, true);
    check(r#"{"a":"usage","b":null}"#, true);

    let mut meter = StreamMeter::new(Protocol::OpenaiChat, Capture::Nothing);
    meter.push(b"data: {\"choices\":[{\"delta\":{\"tool_calls\":null}}],\"usage\":null}\n\n");
    meter.push(
        b"data: {\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2,\"total_tokens\":3}}\n\n",
    );
    let facts = meter.finish();
    assert_eq!((facts.usage, facts.has_tool_calls), (usage(1, 2, 3), false));
}

#[test]
fn the_end_of_a_stream_stands_for_a_status() {
    let failure = |protocol, stream: &str| {
        let mut meter = StreamMeter::new(protocol, Capture::Nothing);
        meter.push(stream.as_bytes());
        meter.failure()
    };
    let chat = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
    assert_eq!(failure(Protocol::OpenaiChat, chat), None);
    let error = "data: {\"error\":{\"type\":\"server_error\",\"message\":\"x\"}}\n\n";
    assert_eq!(
        failure(Protocol::OpenaiChat, &(chat.to_owned() + error)),
        Some(502)
    );
    let message = "event: message_start\ndata: {}\n\n";
    assert_eq!(failure(Protocol::AnthropicMessages, message), Some(502));
    let stop = format!("{message}event: message_stop\ndata: {{}}\n\n");
    assert_eq!(failure(Protocol::AnthropicMessages, &stop), None);
    for (kind, status) in [("overloaded_error", 503), ("rate_limit_error", 429)] {
        let error = format!("event: error\ndata: {{\"error\":{{\"type\":\"{kind}\"}}}}\n\n");
        let stream = message.to_owned() + &error;
        assert_eq!(failure(Protocol::AnthropicMessages, &stream), Some(status));
    }
}

#[test]
fn all_that_a_model_writes_is_estimated() {
    let estimate = |protocol, stream: &str| {
        let mut meter = StreamMeter::new(protocol, Capture::Nothing).estimating();
        for piece in stream.as_bytes().chunks(7) {
            meter.push(piece);
        }
        let facts = meter.finish();
        (facts.estimated_completion, facts.usage, facts.done)
    };
    let chat = "data: {\"choices\":[{\"delta\":{\"content\":\"one two\"}}]}\n\n\
         data: {\"choices\":[{\"delta\":{\"reasoning_content\":\" three\"}}]}\n\n\
         data: {\"choices\":[{\"delta\":{\"content\":\" four\"}}]}\n\n";
    assert_eq!(estimate(Protocol::OpenaiChat, chat), (Some(4), None, false));
    let gemini =
        "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"one two three\"}]}}]}\n\n";
    let (tokens, ..) = estimate(Protocol::GeminiGenerateContent, gemini);
    assert_eq!(tokens, Some(3));
    assert_eq!(estimate(Protocol::Passthrough, chat), (None, None, false));
}

/// P-141, P-163; G-20
#[test]
fn responses_streams() {
    check(
        Protocol::OpenaiResponses,
        "event: response.output_text.delta\ndata: {\"delta\":\"Hi\"}\n\n\
         event: response.completed\ndata: {\"response\":{\"output\":[{\"type\":\"function_call\"}],\
         \"usage\":{\"input_tokens\":5,\"output_tokens\":3,\"total_tokens\":8}}}\n\n",
        &StreamFacts {
            usage: usage(5, 3, 8),
            has_tool_calls: true,
            text: Some("Hi".to_owned()),
            done: true,
            ..StreamFacts::default()
        },
    );
    check(
        Protocol::OpenaiResponses,
        "event: response.incomplete\ndata: {\"response\":{\"usage\":{\"input_tokens\":5,\"output_tokens\":1}}}\n\n",
        &StreamFacts {
            usage: usage(5, 1, 6),
            text: Some(String::new()),
            done: true,
            ..StreamFacts::default()
        },
    );
}

/// The last event repeats what the client sent. Whatever that is, the tokens count.
#[test]
fn what_a_client_sent_does_not_hide_usage() {
    let deepest = "[".repeat(126) + &"]".repeat(126);
    for echoed in [
        r#""half a pair \ud83d""#,
        r#""\ude80\ud83d""#,
        r#"{"\ud83d":1}"#,
        "1e999",
        "-1e999",
        "123456789012345678901234567890",
        &deepest,
        r#"{"usage":{"total_tokens":0}}"#,
        r#""\"usage\":null""#,
    ] {
        check(
            Protocol::OpenaiResponses,
            &format!(
                "event: response.output_text.delta\ndata: {{\"delta\":\"H\\ud83di\"}}\n\n\
                 event: response.completed\ndata: {{\"response\":{{\"instructions\":{echoed},\
                 \"output\":[{echoed},{{\"a\":{echoed},\"type\":\"function_call\"}}],\
                 \"usage\":{{\"input_tokens\":5,\"x\":{echoed},\"output_tokens\":3,\"total_tokens\":8}}}}}}\n\n"
            ),
            &StreamFacts {
                usage: usage(5, 3, 8),
                has_tool_calls: true,
                text: Some("H\u{fffd}i".to_owned()),
                done: true,
                ..StreamFacts::default()
            },
        );
        check(
            Protocol::OpenaiChat,
            &format!(
                "data: {{\"x\":{echoed},\"choices\":[{{\"delta\":{{\"content\":\"\\ud83d\",\"tool_calls\":[{echoed}]}}}}],\
                 \"usage\":{{\"prompt_tokens\":5,\"completion_tokens\":3,\"total_tokens\":8}}}}\n\n"
            ),
            &StreamFacts {
                usage: usage(5, 3, 8),
                has_tool_calls: true,
                text: Some("\u{fffd}".to_owned()),
                ..StreamFacts::default()
            },
        );
        check(
            Protocol::AnthropicMessages,
            &format!(
                "event: message_start\ndata: {{\"message\":{{\"x\":{echoed},\"usage\":{{\"input_tokens\":5}}}}}}\n\n\
                 event: content_block_start\ndata: {{\"content_block\":{{\"x\":{echoed},\"type\":\"tool_use\"}}}}\n\n\
                 event: message_delta\ndata: {{\"x\":{echoed},\"usage\":{{\"output_tokens\":3}}}}\n\n\
                 event: error\ndata: {{\"x\":{echoed},\"error\":{{\"message\":\"busy\\ud83d\"}}}}\n\n"
            ),
            &StreamFacts {
                usage: usage(5, 3, 8),
                has_tool_calls: true,
                text: Some(String::new()),
                done: true,
                error: Some((String::new(), "busy\u{fffd}".to_owned())),
                ..StreamFacts::default()
            },
        );
    }
}

/// Arrays are not usage, and events that are no objects say nothing.
#[test]
fn only_objects_count() {
    check(
        Protocol::OpenaiChat,
        "data: {\"usage\":[5,6,7],\"error\":\"x\",\"choices\":{}}\n\ndata: [{\"usage\":{\"total_tokens\":1}}]\n\n\
         data: {\"usage\":{\"total_tokens\":1}\n\n",
        &StreamFacts {
            text: Some(String::new()),
            ..StreamFacts::default()
        },
    );
}

/// P-150, P-164
#[test]
fn anthropic_streams() {
    check(
        Protocol::AnthropicMessages,
        "event: message_start\ndata: {\"message\":{\"usage\":{\"input_tokens\":20,\"output_tokens\":1}}}\n\n\
         event: content_block_start\ndata: {\"content_block\":{\"type\":\"tool_use\"}}\n\n\
         event: content_block_delta\ndata: {\"delta\":{\"type\":\"text_delta\",\"text\":\"x\"}}\n\n\
         event: message_delta\ndata: {\"usage\":{\"output_tokens\":5}}\n\n\
         event: message_stop\ndata: {}\n\n",
        &StreamFacts {
            usage: usage(20, 5, 25),
            has_tool_calls: true,
            text: Some("x".to_owned()),
            done: true,
            ..StreamFacts::default()
        },
    );
    check(
        Protocol::AnthropicMessages,
        "event: error\ndata: {\"error\":{\"type\":\"overloaded_error\",\"message\":\"busy\"}}\n\n",
        &StreamFacts {
            text: Some(String::new()),
            done: true,
            error: Some(("overloaded_error".to_owned(), "busy".to_owned())),
            ..StreamFacts::default()
        },
    );
}

#[test]
fn a_cut_stream_is_not_done() {
    let mut meter = StreamMeter::new(Protocol::OpenaiChat, Capture::Nothing);
    meter.push(b"data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}\n\ndata: {\"cho");
    let facts = meter.finish();
    assert!(!facts.done);
    assert!(facts.pending > 0);
}

#[test]
fn events_that_are_too_large_are_counted() {
    let mut meter = StreamMeter::new(Protocol::OpenaiChat, Capture::Nothing);
    meter.push(b"data: ");
    meter.push(&vec![b'x'; EVENT_BYTES_MAX]);
    meter.push(b"\n\ndata: [DONE]\n\n");
    let facts = meter.finish();
    assert_eq!((facts.overflows, facts.pending, facts.done), (1, 0, true));
}
