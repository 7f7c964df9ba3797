use super::*;
use crate::{Outside, Provider, dialect::Setting};

/// Clients whose protocol has one answer.
const OF_ONE: [Protocol; 4] = [
    Protocol::OpenaiResponses,
    Protocol::AnthropicMessages,
    Protocol::CohereChat,
    Protocol::BedrockConverse,
];

const OF_SEVERAL: [Protocol; 2] = [Protocol::OpenaiChat, Protocol::GeminiGenerateContent];

fn translation(client: Protocol, target: Protocol) -> Translation {
    let body = match client {
        Protocol::GeminiGenerateContent => r#"{"contents":[{"parts":[{"text":"x"}]}]}"#,
        Protocol::BedrockConverse => r#"{"messages":[{"role":"user","content":[{"text":"x"}]}]}"#,
        Protocol::OpenaiResponses => r#"{"input":"x"}"#,
        _ => r#"{"messages":[{"role":"user","content":"x"}]}"#,
    };
    let outside = Outside {
        model: Some("m"),
        stream: true,
        version: None,
        now: 1,
        seed: "s",
    };
    let provider = Provider::OpenaiCompatible;
    Translation::request(body.as_bytes(), client, target, provider, outside)
        .expect("a request")
        .translation
}

/// What a client gets of a stream with these events, and whether that was complete.
fn told(client: Protocol, target: Protocol, events: &[&str]) -> (Vec<u8>, StreamTranslator, bool) {
    let translation = translation(client, target);
    let mut translator = translation.stream(false).expect("a conversation");
    let mut out = Vec::new();
    for event in events {
        translator.push(format!("data: {event}\n\n").as_bytes(), &mut out);
    }
    let is_complete = translator.finish(&mut out);
    (out, translator, is_complete)
}

/// What was written for `client` reads as complete, or as broken, in its own protocol.
fn reads_as_complete(client: Protocol, bytes: &[u8]) -> bool {
    let mut reader = StreamReader::new(&Setting::alone(client)).expect("a conversation");
    let mut ends = Vec::new();
    Framing::of(client).push(bytes, |unframed| match unframed {
        Unframed::Event { name, data } => reader.event(name, data, &mut |event| match event {
            Event::End => ends.push(true),
            Event::Error(_) => ends.push(false),
            _ => {}
        }),
        Unframed::Broken(what) => panic!("{what}"),
    });
    reader.finish(&mut |event| ends.push(matches!(event, Event::End)));
    assert_eq!(ends.len(), 1, "{}", String::from_utf8_lossy(bytes));
    ends[0]
}

fn check(client: Protocol, target: Protocol, events: &[&str], expected: bool) -> String {
    let (out, _, is_complete) = told(client, target, events);
    let text = String::from_utf8_lossy(&out).into_owned();
    assert_eq!(is_complete, expected, "{client:?}: {text}");
    assert_eq!(
        reads_as_complete(client, &out),
        expected,
        "{client:?}: {text}"
    );
    text
}

const GEMINI: Protocol = Protocol::GeminiGenerateContent;
const CHAT: Protocol = Protocol::OpenaiChat;

/// A client with one answer is shown the first. If that never comes, or never stops, nobody has
/// answered.
#[test]
fn another_choices_end_is_not_the_end_of_the_shown_one() {
    let second = r#"{"candidates":[{"content":{"parts":[{"text":"other"}],"role":"model"},"finishReason":"STOP","index":1}]}"#;
    let first =
        r#"{"candidates":[{"content":{"parts":[{"text":"shown"}],"role":"model"},"index":0}]}"#;
    let end = r#"{"candidates":[{"content":{"parts":[{"text":""}],"role":"model"},"finishReason":"STOP","index":0}]}"#;
    for client in OF_ONE {
        let text = check(client, GEMINI, &[second], false);
        assert!(!text.contains("other"), "{client:?}: {text}");
        check(client, GEMINI, &[first, second], false);
        let text = check(client, GEMINI, &[first, second, end], true);
        assert!(text.contains("shown") && !text.contains("other"), "{text}");
    }
    // Here it is an answer like any other.
    for events in [&[second][..], &[second, first, end]] {
        let text = check(CHAT, GEMINI, events, true);
        assert!(text.contains("other"), "{text}");
    }
}

/// Content that a client is not shown does not keep another instance from answering.
#[test]
fn a_stream_shows_no_content_before_its_client_sees_some() {
    let second = r#"{"candidates":[{"content":{"parts":[{"text":"other"}],"role":"model"},"finishReason":"STOP","index":1}]}"#;
    let (_, translator, _) = told(Protocol::BedrockConverse, GEMINI, &[second]);
    assert!(!translator.opening().has_content);
    assert!(translator.opening().error.is_some());
    let (_, translator, _) = told(CHAT, GEMINI, &[second]);
    assert!(translator.opening().has_content);
    assert_eq!(translator.opening().error, None);
}

/// Of several choices, one that never ends makes the whole incomplete, whatever comes behind it.
#[test]
fn each_of_several_choices_has_to_end() {
    let piece = |index: u32, finish: &str| {
        format!(
            r#"{{"choices":[{{"index":{index},"delta":{{"content":"t{index}"}},"finish_reason":{finish}}}]}}"#
        )
    };
    let (first, second) = (piece(0, "null"), piece(1, "null"));
    let (first_end, second_end) = (piece(0, r#""stop""#), piece(1, r#""length""#));
    for client in OF_ONE.into_iter().chain(OF_SEVERAL) {
        for (events, expected) in [
            (&[&*first, &second, &first_end, "[DONE]"][..], false),
            (&[&*first, &second, &second_end, "[DONE]"], false),
            (&[&*first, &second, &second_end], false),
            (&[&*first, &second, &first_end, &second_end, "[DONE]"], true),
            (&[&*first, &second, &first_end, &second_end], true),
            // Some providers never say why.
            (&[&*first, &second, "[DONE]"], true),
        ] {
            if client != CHAT {
                check(client, CHAT, events, expected);
            }
        }
    }
    let chunk = |index: u32, finish: &str| {
        format!(
            r#"{{"candidates":[{{"content":{{"parts":[{{"text":"t"}}],"role":"model"}},"index":{index}{finish}}}]}}"#
        )
    };
    let end = r#","finishReason":"STOP""#;
    check(CHAT, GEMINI, &[&chunk(0, ""), &chunk(1, end)], false);
    check(CHAT, GEMINI, &[&chunk(0, end), &chunk(1, "")], false);
    check(CHAT, GEMINI, &[&chunk(0, end), &chunk(1, end)], true);
}

/// What a later chunk does not repeat is not taken back.
#[test]
fn counts_are_kept_that_later_events_leave_out() {
    let first = r#"{"candidates":[{"content":{"parts":[{"text":"t"}],"role":"model"},"index":0}],"usageMetadata":{"promptTokenCount":100,"candidatesTokenCount":1,"cachedContentTokenCount":64}}"#;
    let last = r#"{"candidates":[{"content":{"parts":[{"text":""}],"role":"model"},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":100,"candidatesTokenCount":2}}"#;
    for client in OF_ONE.into_iter().chain([CHAT]) {
        let (out, _, _) = told(client, GEMINI, &[first, last]);
        let mut reader = StreamReader::new(&Setting::alone(client)).expect("a conversation");
        let mut usage = crate::Usage::default();
        Framing::of(client).push(&out, |unframed| {
            let Unframed::Event { name, data } = unframed else {
                panic!("{client:?}");
            };
            reader.event(name, data, &mut |event| {
                if let Event::Usage(later) = event {
                    usage = later;
                }
            });
        });
        let counts = (usage.prompt, usage.completion, usage.cache_read);
        assert_eq!(counts, (100, 2, 64), "{client:?}");
    }
}

/// A stream loses what the same answer as a whole does.
#[test]
fn streams_lose_what_whole_answers_do() {
    let message = r#""content":"t","refusal":"no","annotations":[{"type":"url_citation","url_citation":{"url":"https://example.com","title":"T"}}],"reasoning_details":[{"type":"reasoning.text","text":"r","signature":"s"}],"tool_calls":[{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":"{}"},"extra_content":{"google":{"thought_signature":"x"}}}]"#;
    let logprobs = r#""logprobs":{"content":[{"token":"t","logprob":-1.0,"top_logprobs":[]}]}"#;
    let whole = format!(
        r#"{{"choices":[{{"index":0,"message":{{{message}}},{logprobs},"finish_reason":"tool_calls"}},{{"index":1,"message":{{"content":"u"}},"finish_reason":"stop"}}]}}"#
    );
    // Sources come with the text that they are of.
    let (text, rest) = message.split_once(r#","refusal""#).expect("it is there");
    let (refusal, rest) = rest.split_once(r#","reasoning"#).expect("it is there");
    let (refusal, sources) = refusal.split_once(',').expect("it is there");
    let events = [
        format!(r#"{{"choices":[{{"index":0,"delta":{{{text},{sources}}},{logprobs}}}]}}"#),
        format!(r#"{{"choices":[{{"index":0,"delta":{{"refusal"{refusal}}}}}]}}"#),
        format!(r#"{{"choices":[{{"index":0,"delta":{{"reasoning{rest}}}}}]}}"#),
        r#"{"choices":[{"index":1,"delta":{"content":"u"},"finish_reason":"stop"}]}"#.to_owned(),
        r#"{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}"#.to_owned(),
    ];
    let events = events.each_ref().map(String::as_str);
    for client in OF_ONE.into_iter().chain([GEMINI]) {
        let (_, translator, is_complete) = told(client, CHAT, &events);
        assert!(is_complete, "{client:?}");
        let answer = translation(client, CHAT).response(whole.as_bytes());
        let (_, lost) = answer.expect("an answer");
        assert_eq!(translator.lost(), lost, "{client:?}");
        assert!(!lost.is_empty(), "{client:?}");
    }
}

/// The tier that serves a stream reaches whoever can be told, and is named as lost of the others, unless
/// it is as ever; it is no content.
#[test]
fn the_tier_of_a_stream_is_told() {
    let content = r#"{"id":"c","service_tier":"flex","choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}]}"#;
    for (client, expected) in [
        (Protocol::OpenaiResponses, r#""service_tier":"flex""#),
        (Protocol::GeminiGenerateContent, r#""serviceTier":"flex""#),
        (
            Protocol::BedrockConverse,
            r#""serviceTier":{"type":"flex"}"#,
        ),
        (Protocol::AnthropicMessages, ""),
        (Protocol::CohereChat, ""),
    ] {
        let (out, translator, _) = told(client, Protocol::OpenaiChat, &[content, "[DONE]"]);
        let text = String::from_utf8_lossy(&out);
        assert!(text.contains(expected), "{client:?}: {text}");
        let lost: &[&str] = match expected {
            "" => &["answer.service_tier"],
            _ => &[],
        };
        assert_eq!(translator.lost(), lost, "{client:?}");
        let usual = content.replace("flex", "default");
        let (_, translator, _) = told(client, Protocol::OpenaiChat, &[&usual, "[DONE]"]);
        assert!(translator.lost().is_empty(), "{client:?}");
    }
    let begins = r#"{"service_tier":"flex","choices":[{"index":0,"delta":{"role":"assistant"}}]}"#;
    let (_, translator, _) = told(Protocol::CohereChat, Protocol::OpenaiChat, &[begins]);
    assert!(!translator.opening().has_content);
}

/// Clients of Chat are told it by whichever provider, once the provider says it, at the end at the latest.
#[test]
fn chat_is_told_the_tier_of_any_stream() {
    let of_anthropic = [
        r#"{"type":"message_start","message":{"usage":{"input_tokens":1,"service_tier":"priority"}}}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":1}}"#,
        r#"{"type":"message_stop"}"#,
    ];
    let of_responses = [
        r#"{"type":"response.created","response":{"service_tier":"auto"}}"#,
        r#"{"type":"response.completed","response":{"status":"completed","service_tier":"priority"}}"#,
    ];
    let of_gemini = [
        r#"{"candidates":[{"content":{"parts":[{"text":"x"}]}}]}"#,
        r#"{"candidates":[{"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":1,"serviceTier":"PRIORITY"}}"#,
    ];
    for (target, events) in [
        (Protocol::AnthropicMessages, &of_anthropic[..]),
        (Protocol::OpenaiResponses, &of_responses),
        (Protocol::GeminiGenerateContent, &of_gemini),
    ] {
        let (out, ..) = told(Protocol::OpenaiChat, target, events);
        let text = String::from_utf8_lossy(&out);
        assert!(
            text.contains(r#""service_tier":"priority""#),
            "{target:?}: {text}"
        );
        assert!(!text.contains("auto"), "{target:?}: {text}");
    }
}
