use super::{
    stream::{framed, read},
    *,
};
use crate::{
    Protocol,
    conversation::{Block, ErrorMessage, Event, Part, Signature, Stop},
    json::{string::JsonStr, value_at},
};

fn written_events(events: &[Event<'_>]) -> Vec<(String, String)> {
    let mut writer = StreamWriter::new(&SETTING);
    let mut out = Vec::new();
    for event in events {
        writer.write(event, &mut out);
    }
    framed(&out)
}

/// An error in the middle of a call leaves no call that looks complete.
#[test]
fn a_failure_is_said_twice_and_finishes_no_call() {
    let text = JsonStr::new("{\"a\"");
    let error = ErrorMessage {
        kind: Some(JsonStr::new("rate_limit_error")),
        message: JsonStr::new("Slow"),
        ..ErrorMessage::default()
    };
    let block = Block::ToolCall {
        id: JsonStr::new("c"),
        name: JsonStr::new("f"),
    };
    let events = written_events(&[
        Event::BlockStart { choice: 0, block },
        Event::Delta { choice: 0, text },
        Event::Error(error),
        Event::End,
    ]);
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "error",
        "response.failed",
    ];
    assert_eq!(names, expected);
    assert_eq!(
        events[4].1,
        r#"{"type":"error","sequence_number":4,"code":"rate_limit_exceeded","message":"Slow","param":null}"#
    );
    let error = value_at(events[5].1.as_bytes(), ["response", "error"]).unwrap();
    assert_eq!(error, br#"{"code":"rate_limit_exceeded","message":"Slow"}"#);
}

#[test]
fn texts_in_a_row_are_one_message_and_limits_show() {
    let text = |text| Event::Delta {
        choice: 0,
        text: JsonStr::new(text),
    };
    let begin = || Event::BlockStart {
        choice: 0,
        block: Block::Text,
    };
    let end = || Event::BlockEnd { choice: 0 };
    let stop = Event::Stop {
        choice: 0,
        stop: Stop::Length,
    };
    let events = written_events(&[
        begin(),
        text("a"),
        end(),
        begin(),
        text("b"),
        end(),
        stop,
        Event::End,
    ]);
    let (name, last) = events.last().unwrap();
    assert_eq!(name, "response.incomplete");
    let whole = value_at(last.as_bytes(), ["response"]).unwrap();
    let whole = std::str::from_utf8(whole).unwrap();
    assert!(
        whole.contains(r#""status":"incomplete","content":[{"#),
        "{whole}"
    );
    let read = response(whole);
    assert_eq!(read.choices[0].parts.len(), 2);
    assert_eq!(read.choices[0].stop, Stop::Length);
    assert_eq!(whole.matches("\"message\"").count(), 1);
}

/// Arguments that never came are an object without members; a call's signature follows it.
#[test]
fn calls_without_arguments_and_with_signatures() {
    let block = Block::ToolCall {
        id: JsonStr::new("c"),
        name: JsonStr::new("f"),
    };
    let signature = Signature {
        origin: Protocol::GeminiGenerateContent,
        data: JsonStr::new("Ab"),
    };
    let events = written_events(&[
        Event::BlockStart { choice: 0, block },
        Event::Signature {
            choice: 0,
            signature,
        },
        Event::BlockEnd { choice: 0 },
        Event::End,
    ]);
    assert!(events[3].1.contains(r#""delta":"{}""#), "{:?}", events[3]);
    let whole = value_at(events.last().unwrap().1.as_bytes(), ["response"]).unwrap();
    let read = response(std::str::from_utf8(whole).unwrap());
    let [Part::ToolCall(call)] = &read.choices[0].parts[..] else {
        panic!("{read:?}");
    };
    assert_eq!(
        call.signature.as_ref().unwrap().origin,
        Protocol::GeminiGenerateContent
    );
}

/// Thoughts that are signed and not shown have no summary.
#[test]
fn signed_thoughts_without_words() {
    let signature = Signature {
        origin: Protocol::AnthropicMessages,
        data: JsonStr::new("Er=="),
    };
    let events = written_events(&[
        Event::BlockStart {
            choice: 0,
            block: Block::Reasoning,
        },
        Event::Signature {
            choice: 0,
            signature,
        },
        Event::BlockEnd { choice: 0 },
        Event::End,
    ]);
    assert_eq!(events.len(), 5, "{events:?}");
    let item = r#""item":{"id":"rs_s33d_0","type":"reasoning","summary":[],"encrypted_content":"pm.anthropic-messages.Er=="}"#;
    assert!(events[3].1.contains(item), "{:?}", events[3]);
}

/// Whatever order events come in, the stream stays one that can be read.
#[test]
fn odd_orders_are_no_panic() {
    let events = || {
        vec![
            Event::BlockStart {
                choice: 0,
                block: Block::Text,
            },
            Event::BlockStart {
                choice: 0,
                block: Block::Reasoning,
            },
            Event::BlockStart {
                choice: 0,
                block: Block::Hidden,
            },
            Event::BlockStart {
                choice: 1,
                block: Block::Refusal,
            },
            Event::Delta {
                choice: 0,
                text: JsonStr::new("x"),
            },
            Event::Logprobs {
                choice: 0,
                json: "{".into(),
            },
            Event::Citation {
                choice: 0,
                citation: Default::default(),
            },
            Event::BlockEnd { choice: 0 },
            Event::Stop {
                choice: 0,
                stop: Stop::End,
            },
            Event::Ping,
            Event::Usage(crate::Usage::default()),
        ]
    };
    let count = events().len();
    for first in 0..count {
        for second in 0..count {
            for third in 0..count {
                let pick = |at: usize| events().swap_remove(at);
                let written = written_events(&[pick(first), pick(second), pick(third), Event::End]);
                let data: Vec<&str> = written.iter().map(|(_, data)| data.as_str()).collect();
                assert_eq!(read(&data).last().unwrap(), "End");
            }
        }
    }
}

/// Each piece is looked at once: 100,000 of them come out as long as they went in.
#[test]
fn many_pieces_of_one_call() {
    let mut writer = StreamWriter::new(&SETTING);
    let mut reader = StreamReader::new(&SETTING);
    let mut out = Vec::new();
    let delta =
        br#"{"type":"response.function_call_arguments.delta","output_index":0,"delta":"12345678"}"#;
    let added = br#"{"type":"response.output_item.added","output_index":0,"item":{"type":"function_call","call_id":"c","name":"f"}}"#;
    reader.event(b"", added, &mut |event| writer.write(&event, &mut out));
    let began = out.len();
    reader.event(b"", delta, &mut |event| writer.write(&event, &mut out));
    let first = out.len() - began;
    for _ in 1..100_000 {
        reader.event(b"", delta, &mut |event| writer.write(&event, &mut out));
    }
    assert!(out.len() - began <= 100_000 * (first + 5));
    let end = br#"{"type":"response.completed","response":{"status":"completed"}}"#;
    let before = out.len();
    reader.event(b"", end, &mut |event| writer.write(&event, &mut out));
    // Three repetitions: arguments, item and response.
    let tail = out.len() - before;
    assert!((2_400_000..2_410_000).contains(&tail), "{tail}");
}
