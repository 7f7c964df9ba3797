//! What a stranger can make translation do: as much as they send, and no more.
//!
//! What is counted is memory that is asked for, over the whole of a translation and at once. Whoever
//! copies, gathers or parses again what has come before, with every piece that comes, asks for far more
//! than is allowed here.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use allocation_counter::{AllocationInfo, measure};
use pointsman_ai::{
    Capture, Outside, Protocol, Provider, StreamMeter, StreamTranslator, TranslatedRequest,
    Translation,
};

const DIALECTS: [Protocol; 6] = [
    Protocol::OpenaiChat,
    Protocol::OpenaiResponses,
    Protocol::AnthropicMessages,
    Protocol::GeminiGenerateContent,
    Protocol::CohereChat,
    Protocol::BedrockConverse,
];

fn translate(
    body: &str,
    client: Protocol,
    target: Protocol,
) -> Result<TranslatedRequest, impl std::fmt::Display> {
    let outside = Outside {
        model: Some("m"),
        stream: true,
        version: None,
        now: 1,
        seed: "s",
    };
    let provider = Provider::OpenaiCompatible;
    Translation::request(body.as_bytes(), client, target, provider, outside)
}

fn translation(client: Protocol, target: Protocol) -> Translation {
    let body = match client {
        Protocol::GeminiGenerateContent => r#"{"contents":[{"parts":[{"text":"x"}]}]}"#,
        Protocol::BedrockConverse => r#"{"messages":[{"role":"user","content":[{"text":"x"}]}]}"#,
        Protocol::OpenaiResponses => r#"{"input":"x"}"#,
        _ => r#"{"messages":[{"role":"user","content":"x"}]}"#,
    };
    match translate(body, client, target) {
        Ok(translated) => translated.translation,
        Err(error) => panic!("{client:?}: {error}"),
    }
}

fn translator(client: Protocol, target: Protocol) -> StreamTranslator {
    translation(client, target).stream(false).unwrap()
}

fn pairs() -> impl Iterator<Item = (Protocol, Protocol)> {
    let with = |client| DIALECTS.map(|target| (client, target));
    let all = DIALECTS.into_iter().flat_map(with);
    all.filter(|(client, target)| client != target)
}

/// A stream of Chat's in the protocol `target`, as pieces.
fn stream_in(target: Protocol, chat: &[String]) -> Vec<Vec<u8>> {
    let chat = chat
        .iter()
        .map(|data| format!("data: {data}\n\n").into_bytes());
    if target == Protocol::OpenaiChat {
        return chat.collect();
    }
    let mut translator = translator(target, Protocol::OpenaiChat);
    let pieces = chat.map(|piece| {
        let mut out = Vec::new();
        translator.push(&piece, &mut out);
        out
    });
    pieces.filter(|piece| !piece.is_empty()).collect()
}

/// What a client gets for `pieces`, counted, and whether that was complete; each piece of it is gone
/// before the next comes.
fn brought(
    client: Protocol,
    target: Protocol,
    pieces: &[Vec<u8>],
) -> (AllocationInfo, usize, bool) {
    let mut translator = translator(client, target);
    let mut out = Vec::new();
    let (mut written, mut is_complete) = (0, false);
    let counted = measure(|| {
        for piece in pieces {
            translator.push(piece, &mut out);
            written += out.len();
            out.clear();
        }
        is_complete = translator.finish(&mut out);
        written += out.len();
    });
    (counted, written, is_complete)
}

/// An argument of 10 MB in very many pieces, `POINTSMAN_PROPERTY_TIMES` as many. Gemini's arguments come
/// whole: from there it is a text.
#[test]
fn a_long_argument_costs_what_it_is_long() {
    let times = std::env::var("POINTSMAN_PROPERTY_TIMES").ok();
    let times = times.map_or(1, |times| times.parse().unwrap());
    let count = 10_000 * times;
    let piece = "x".repeat(10_000_000 / count);
    for target in DIALECTS {
        let pieces = long_answer(target, count, &piece);
        let sent: usize = pieces.iter().map(Vec::len).sum();
        for client in DIALECTS.into_iter().filter(|client| *client != target) {
            let pair = format!("{client:?} of {target:?}");
            let (counted, written, is_complete) = brought(client, target, &pieces);
            assert!(is_complete && written >= count * piece.len(), "{pair}");
            let (total, limit) = (counted.bytes_total, 10 * (sent + written) as u64);
            assert!(total < limit, "{pair}: {total} of {limit}");
        }
    }
}

/// Three events of Responses say the whole text again, each beyond what other events may hold.
#[test]
fn a_long_answer_of_responses_is_complete() {
    let target = Protocol::OpenaiResponses;
    let text = "x".repeat(3 << 20);
    let pieces = |text: &str| {
        let deltas = text.as_bytes().chunks(64 << 10);
        let mut events = vec![
            r#"{"type":"response.created","response":{"id":"r","model":"m"}}"#.to_owned(),
            r#"{"type":"response.output_item.added","output_index":0,"item":{"type":"message","content":[]}}"#.to_owned(),
        ];
        events.extend(deltas.map(|delta| {
            let delta = String::from_utf8_lossy(delta);
            format!(r#"{{"type":"response.output_text.delta","output_index":0,"delta":"{delta}"}}"#)
        }));
        let item =
            format!(r#"{{"type":"message","content":[{{"type":"output_text","text":"{text}"}}]}}"#);
        events.push(format!(
            r#"{{"type":"response.output_text.done","output_index":0,"text":"{text}"}}"#
        ));
        events.push(format!(
            r#"{{"type":"response.output_item.done","output_index":0,"item":{item}}}"#
        ));
        events.push(format!(r#"{{"type":"response.completed","response":{{"status":"completed","output":[{item}],"usage":{{"input_tokens":1,"output_tokens":2,"total_tokens":3}}}}}}"#));
        let framed = events.iter().map(|event| {
            let name = event.split('"').nth(3).unwrap_or_default();
            format!("event: {name}\ndata: {event}\n\n")
        });
        let bytes: String = framed.collect();
        let pieces = bytes.as_bytes().chunks(16 << 10).map(<[u8]>::to_vec);
        pieces.collect::<Vec<_>>()
    };
    let long = pieces(&text);
    let sent: usize = long.iter().map(Vec::len).sum();
    for client in DIALECTS.into_iter().filter(|client| *client != target) {
        let (counted, written, is_complete) = brought(client, target, &long);
        assert!(is_complete && written >= text.len(), "{client:?}");
        let (total, limit) = (counted.bytes_total, 10 * (sent + written) as u64);
        assert!(total < limit, "{client:?}: {total} of {limit}");
        let mut meter = StreamMeter::new(target, Capture::Nothing);
        long.iter().for_each(|piece| meter.push(piece));
        let usage = meter.finish().usage;
        assert_eq!(usage.map(|usage| usage.total), Some(3));
    }
    let endless = pieces(&"x".repeat(17 << 20));
    let (counted, _, is_complete) = brought(Protocol::OpenaiChat, target, &endless);
    assert!(!is_complete, "{counted:?}");
}

/// `piece`, `count` times, within one argument or text.
fn long_answer(target: Protocol, count: usize, piece: &str) -> Vec<Vec<u8>> {
    let chunk = |delta: &str, finish: &str| {
        format!(r#"{{"choices":[{{"index":0,"delta":{delta},"finish_reason":{finish}}}]}}"#)
    };
    let call = |arguments: &str| {
        format!(
            r#"{{"tool_calls":[{{"index":0,"id":"t","function":{{"name":"f","arguments":"{arguments}"}}}}]}}"#
        )
    };
    let (begin, more, end) = match target {
        Protocol::GeminiGenerateContent => (
            "{}".to_owned(),
            format!(r#"{{"content":"{piece}"}}"#),
            "{}".to_owned(),
        ),
        _ => (call(r#"{\"a\":\""#), call(piece), call(r#"\"}"#)),
    };
    let mut chat = vec![chunk(&begin, "null")];
    chat.extend(std::iter::repeat_n(chunk(&more, "null"), count));
    chat.push(chunk(&end, "null"));
    if target == Protocol::OpenaiResponses {
        // The usual end says everything again, in one event: of this length that is too large.
        let end = r#"{"type":"response.completed","response":{"status":"completed"}}"#;
        let mut pieces = stream_in(target, &chat);
        pieces.push(event(target, "", end));
        return pieces;
    }
    chat.extend([chunk("{}", r#""stop""#), "[DONE]".to_owned()]);
    stream_in(target, &chat)
}

/// Nobody makes a million calls: the stream ends in an error, long before.
#[test]
fn calls_are_bounded() {
    for (client, target) in pairs() {
        let pair = format!("{client:?} of {target:?}");
        let mut translator = translator(client, target);
        let mut out = Vec::new();
        let mut count = 0;
        let counted = measure(|| {
            while !translator.is_over() && count < 1_000_000 {
                out.clear();
                translator.push(&call(target, count), &mut out);
                count += 1;
            }
        });
        let said = String::from_utf8_lossy(&out).into_owned();
        assert!(said.contains("more tool calls than"), "{pair}: {said}");
        assert_eq!(count, 1_025, "{pair}");
        assert!(counted.bytes_max < 1 << 20, "{pair}: {counted:?}");
    }
}

/// A whole call, the one with this number.
fn call(target: Protocol, number: usize) -> Vec<u8> {
    let (begin, end) = match target {
        Protocol::OpenaiResponses => {
            let item = r#"{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}"#;
            let of = |kind| format!(r#"{{"type":"{kind}","output_index":{number},"item":{item}}}"#);
            (
                of("response.output_item.added"),
                of("response.output_item.done"),
            )
        }
        Protocol::AnthropicMessages => (
            format!(
                r#"{{"type":"content_block_start","index":{number},"content_block":{{"type":"tool_use","id":"t","name":"f","input":{{}}}}}}"#
            ),
            format!(r#"{{"type":"content_block_stop","index":{number}}}"#),
        ),
        Protocol::CohereChat => (
            format!(
                r#"{{"type":"tool-call-start","index":{number},"delta":{{"message":{{"tool_calls":{{"id":"t","type":"function","function":{{"name":"f","arguments":"{{}}"}}}}}}}}}}"#
            ),
            format!(r#"{{"type":"tool-call-end","index":{number}}}"#),
        ),
        Protocol::BedrockConverse => {
            let begin = format!(
                r#"{{"contentBlockIndex":{number},"start":{{"toolUse":{{"toolUseId":"t","name":"f"}}}}}}"#
            );
            let end = format!(r#"{{"contentBlockIndex":{number}}}"#);
            let mut both = event(target, "contentBlockStart", &begin);
            both.extend(event(target, "contentBlockStop", &end));
            return both;
        }
        Protocol::GeminiGenerateContent => {
            return event(
                target,
                "",
                r#"{"candidates":[{"index":0,"content":{"parts":[{"functionCall":{"name":"f","args":{}}}]}}]}"#,
            );
        }
        _ => {
            let call = format!(
                r#"{{"index":{number},"id":"t","function":{{"name":"f","arguments":"{{}}"}}}}"#
            );
            return event(
                target,
                "",
                &format!(r#"{{"choices":[{{"index":0,"delta":{{"tool_calls":[{call}]}}}}]}}"#),
            );
        }
    };
    [event(target, "", &begin), event(target, "", &end)].concat()
}

/// An event that is larger than any is refused, and little of it kept.
#[test]
fn an_event_of_100_mb_is_refused() {
    for (client, target) in pairs() {
        let mut translator = translator(client, target);
        let mut out = Vec::new();
        let beginning = match target {
            Protocol::BedrockConverse => {
                let mut prelude = Vec::from((100_u32 << 20).to_be_bytes());
                prelude.extend([0; 4]);
                let check = crc32fast::hash(&prelude);
                prelude.extend(check.to_be_bytes());
                prelude
            }
            _ => br#"data: {"a":""#.to_vec(),
        };
        let piece = vec![b'x'; 1 << 20];
        let counted = measure(|| {
            translator.push(&beginning, &mut out);
            for _ in 0..100 {
                translator.push(&piece, &mut out);
            }
        });
        let said = String::from_utf8_lossy(&out).into_owned();
        assert!(translator.is_over(), "{client:?} of {target:?}");
        assert!(
            said.contains("too large"),
            "{client:?} of {target:?}: {said}"
        );
        let kept = counted.bytes_max;
        // Those of Responses may say a whole answer.
        let most = if target == Protocol::OpenaiResponses {
            36
        } else {
            4
        };
        assert!(kept < most << 20, "{client:?} of {target:?}: {kept}");
        assert!(!translator.finish(&mut out), "{client:?} of {target:?}");
    }
}

/// Values within values, without end.
#[test]
fn what_is_nested_too_deeply_is_refused() {
    let deep = format!("{}{}", "[".repeat(300), "]".repeat(300));
    for (client, target) in pairs() {
        let body = format!(r#"{{"tools":{deep}}}"#);
        let error = translate(&body, client, target)
            .err()
            .map(|error| error.to_string());
        let said = error.unwrap_or_default();
        assert!(said.contains("nested too deeply"), "{client:?}: {said}");

        let answer = format!(r#"{{"choices":{deep}}}"#);
        let error = translation(client, target)
            .response(answer.as_bytes())
            .err();
        let said = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(said.contains("nested too deeply"), "{target:?}: {said}");

        let mut translator = translator(client, target);
        let mut out = Vec::new();
        translator.push(&event(target, "messageStart", &answer), &mut out);
        let said = String::from_utf8_lossy(&out).into_owned();
        assert!(translator.is_over(), "{client:?} of {target:?}");
        assert!(
            said.contains("nested too deeply"),
            "{client:?} of {target:?}: {said}"
        );
    }
}

/// `json` as an event of a stream in `target`; its type stands outside in Bedrock's alone.
fn event(target: Protocol, name: &str, json: &str) -> Vec<u8> {
    if target != Protocol::BedrockConverse {
        return format!("data: {json}\n\n").into_bytes();
    }
    let mut headers = b"\x0b:event-type\x07\x00".to_vec();
    headers.push(u8::try_from(name.len()).unwrap());
    headers.extend(name.as_bytes());
    let total = u32::try_from(12 + headers.len() + json.len() + 4).unwrap();
    let mut frame = Vec::from(total.to_be_bytes());
    frame.extend(u32::try_from(headers.len()).unwrap().to_be_bytes());
    frame.extend(crc32fast::hash(&frame).to_be_bytes());
    frame.extend(headers);
    frame.extend(json.as_bytes());
    frame.extend(crc32fast::hash(&frame).to_be_bytes());
    frame
}
