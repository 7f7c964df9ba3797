//! Streams.

use proptest::prelude::*;

use super::*;
use crate::{
    conversation::{Block, Citation, Opaque},
    stream::{json_array, sse},
};

/// Events of a stream of chunks.
fn events(chunks: &[&str], ends: bool) -> Vec<String> {
    let mut reader = StreamReader::new(&NEW);
    let mut events = Vec::new();
    for chunk in chunks {
        reader.event(b"", chunk.as_bytes(), &mut |event| events.push(keep(event)));
    }
    if ends {
        reader.finish(&mut |event| events.push(keep(event)));
    }
    events
}

/// The chunks that `chunks` become behind a reader and a writer.
fn rewritten(chunks: &[&str]) -> Vec<String> {
    let mut reader = StreamReader::new(&NEW);
    let mut writer = StreamWriter::new(&NEW);
    let mut out = Vec::new();
    for chunk in chunks {
        reader.event(b"", chunk.as_bytes(), &mut |event| {
            writer.write(&event, &mut out);
        });
    }
    reader.finish(&mut |event| writer.write(&event, &mut out));
    unframed(&out)
}

fn unframed(out: &[u8]) -> Vec<String> {
    let mut chunks = Vec::new();
    let mut decoder = sse::Decoder::default();
    decoder.push(out, |_, data| chunks.push(text(data.to_vec())));
    assert_eq!(decoder.pending(), 0);
    // An error stands bare at the end.
    let last = text(out.to_vec())
        .lines()
        .last()
        .unwrap_or_default()
        .to_owned();
    chunks.extend(Some(last).filter(|last| last.starts_with('{')));
    chunks
}

fn written_events(events: &[Event<'_>], mut writer: StreamWriter) -> String {
    let mut out = Vec::new();
    events
        .iter()
        .for_each(|event| writer.write(event, &mut out));
    text(out)
}

/// As Gemini 3 streams: thoughts, text with sources, parallel calls, usage in every chunk.
const CHUNKS: &[&str] = &[
    r#"{"candidates":[{"content":{"parts":[{"text":"Let me ","thought":true}],"role":"model"},"index":0}],"usageMetadata":{"promptTokenCount":5,"totalTokenCount":9,"thoughtsTokenCount":4},"modelVersion":"gemini-3","responseId":"r"}"#,
    r#"{"candidates":[{"content":{"parts":[{"text":"see.","thought":true,"thoughtSignature":"c2ln"}],"role":"model"},"index":0}],"usageMetadata":{"promptTokenCount":5,"totalTokenCount":9,"thoughtsTokenCount":4},"modelVersion":"gemini-3","responseId":"r"}"#,
    r#"{"candidates":[{"content":{"parts":[{"text":"Gr\u00f6"}],"role":"model"},"index":0}],"modelVersion":"gemini-3","responseId":"r"}"#,
    r#"{"candidates":[{"content":{"parts":[{"text":"ße\n"}],"role":"model"},"index":0}],"modelVersion":"gemini-3","responseId":"r"}"#,
    r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{"a":"\"x"}},"thoughtSignature":"c2lnMg=="},{"functionCall":{"id":"own","name":"f","args":{}}}],"role":"model"},"index":0}],"modelVersion":"gemini-3","responseId":"r"}"#,
    r#"{"candidates":[{"content":{"parts":[{"executableCode":{"language":"PYTHON","code":"1"}},{"text":"done","thoughtSignature":"c2lnMw=="}],"role":"model"},"index":0}],"modelVersion":"gemini-3","responseId":"r"}"#,
    r#"{"candidates":[{"content":{"parts":[{"text":""}],"role":"model"},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":8,"totalTokenCount":17,"thoughtsTokenCount":4},"modelVersion":"gemini-3","responseId":"r"}"#,
];

const THOUGHT: Usage = Usage {
    prompt: 5,
    completion: 4,
    total: 9,
    cache_read: 0,
    cache_creation: 0,
    reasoning: 4,
};

#[test]
fn a_stream_becomes_events() {
    let found = events(CHUNKS, true);
    let text = JsonStr::new;
    let call = |id, name| Block::ToolCall {
        id: JsonStr::new(id),
        name: JsonStr::new(name),
    };
    let start = |block| Event::BlockStart { choice: 0, block };
    let delta = |text: &'static str| Event::Delta {
        choice: 0,
        text: JsonStr::new(text),
    };
    let signed = |data| Event::Signature {
        choice: 0,
        signature: signature(OWN, data),
    };
    let end = || Event::BlockEnd { choice: 0 };
    let code = Opaque {
        protocol: OWN,
        kind: text("executableCode"),
        json: r#"{"executableCode":{"language":"PYTHON","code":"1"}}"#.into(),
    };
    let expected = [
        Event::Start {
            id: text("r"),
            model: text("gemini-3"),
            created: None,
            usage: Some(THOUGHT),
        },
        Event::Usage(THOUGHT),
        start(Block::Reasoning),
        delta("Let me "),
        delta("see."),
        signed("c2ln"),
        end(),
        start(Block::Text),
        Event::Delta {
            choice: 0,
            text: JsonStr::spelt("Gr\\u00f6"),
        },
        delta("ße\n"),
        end(),
        start(call("call_seed_0", "f")),
        signed("c2lnMg=="),
        delta(r#"{"a":"\"x"}"#),
        end(),
        start(call("own", "f")),
        delta("{}"),
        end(),
        start(Block::Opaque(code)),
        end(),
        start(Block::Text),
        delta("done"),
        end(),
        start(Block::Hidden),
        signed("c2lnMw=="),
        end(),
        Event::Usage(Usage {
            completion: 12,
            total: 17,
            ..THOUGHT
        }),
        Event::Stop {
            choice: 0,
            stop: Stop::ToolCalls,
        },
        Event::End,
    ];
    assert_eq!(found, expected.map(keep));
}

#[test]
fn events_become_the_stream_that_they_were() {
    let chunks = rewritten(CHUNKS);
    let again: Vec<&str> = chunks.iter().map(String::as_str).collect();
    let usage = |event: &String| !event.starts_with("Usage") && !event.starts_with("Start");
    let kept = |mut events: Vec<String>| {
        events.retain(usage);
        events
    };
    assert_eq!(kept(events(&again, true)), kept(events(CHUNKS, true)));
    assert_eq!(
        chunks.last().unwrap(),
        r#"{"candidates":[{"content":{"parts":[{"text":""}],"role":"model"},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":8,"totalTokenCount":17,"thoughtsTokenCount":4},"modelVersion":"gemini-3","responseId":"r"}"#
    );
    assert_eq!(
        chunks[2],
        r#"{"candidates":[{"content":{"parts":[{"text":"","thought":true,"thoughtSignature":"c2ln"}],"role":"model"},"index":0}],"modelVersion":"gemini-3","responseId":"r"}"#
    );
    assert_eq!(
        chunks[5],
        r#"{"candidates":[{"content":{"parts":[{"functionCall":{"id":"call_seed_0","name":"f","args":{"a":"\"x"}},"thoughtSignature":"c2lnMg=="}],"role":"model"},"index":0}],"modelVersion":"gemini-3","responseId":"r"}"#
    );
    // What was written once is written again to the letter.
    assert_eq!(rewritten(&again), chunks);
}

#[test]
fn sources_are_told_once_and_in_characters() {
    let grounding = r#""groundingMetadata":{"groundingChunks":[{"web":{"uri":"https://a/","title":"a"}}],"groundingSupports":[{"segment":{"startIndex":4,"endIndex":6,"text":"é"},"groundingChunkIndices":[0]}]}"#;
    let chunks = [
        r#"{"candidates":[{"content":{"parts":[{"text":"ab"}]}}]}"#.to_owned(),
        format!(r#"{{"candidates":[{{"content":{{"parts":[{{"text":"ééc"}}]}},{grounding}}}]}}"#),
        format!(r#"{{"candidates":[{{{grounding},"finishReason":"STOP"}}]}}"#),
    ];
    let chunks = chunks.each_ref().map(String::as_str);
    let citation = Event::Citation {
        choice: 0,
        citation: Citation {
            url: Some(JsonStr::new("https://a/")),
            title: Some(JsonStr::new("a")),
            span: Some((3, 4)),
            ..Citation::default()
        },
    };
    let found = events(&chunks, true);
    let cited = found.iter().filter(|event| event.starts_with("Citation"));
    assert_eq!(cited.collect::<Vec<_>>(), [&keep(citation)]);
    let chunks = rewritten(&chunks);
    let last = value(chunks.last().unwrap());
    let expected = value(&format!("{{{grounding}}}"));
    assert_eq!(
        last["candidates"][0]["groundingMetadata"],
        expected["groundingMetadata"]
    );
}

#[test]
fn candidates_are_apart() {
    let chunks = [
        r#"{"candidates":[{"index":1,"content":{"parts":[{"text":"b"}]}},{"content":{"parts":[{"text":"a"}]},"logprobsResult":{"chosenCandidates":[{"token":"a"}]}}]}"#,
        r#"{"candidates":[{"index":1,"content":{"parts":[{"text":"b"}]},"finishReason":"MAX_TOKENS"}]}"#,
        r#"{"candidates":[{"index":1,"content":{"parts":[{"text":"late"}]}},{"finishReason":"STOP"}]}"#,
    ];
    let found = events(&chunks, true);
    assert_eq!(found.len(), 12, "{found:#?}");
    assert!(!found.iter().any(|event| event.contains("late")));
    let last = rewritten(&chunks).pop().unwrap();
    let last = value(&last);
    assert_eq!(last["candidates"][0]["index"], 1);
    assert_eq!(last["candidates"][0]["finishReason"], "MAX_TOKENS");
    assert_eq!(last["candidates"][1]["finishReason"], "STOP");
    // The first of three chunks has two candidates: two chunks, and one of probabilities.
    assert!(rewritten(&chunks)[2].contains(r#""logprobsResult":{"topCandidates":[{"candidates":[]}],"chosenCandidates":[{"token":"a","logProbability":0}]}"#));
    let first = r#"{"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":"STOP"}]}"#;
    let many: Vec<String> = (0..20)
        .map(|index| first.replace(r#"{"content"#, &format!(r#"{{"index":{index},"content"#)))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(events(&many, true).last().unwrap().contains("more than 16"));
}

/// Nothing says that a stream is complete but that its candidates are.
#[test]
fn a_stream_that_breaks_off_is_an_error() {
    let is_error = |chunks: &[&str], what: &str| {
        let found = events(chunks, true);
        let last = found.last().unwrap();
        assert!(
            last.starts_with("Error") && last.contains(what),
            "{found:?}"
        );
        let errors = found.iter().filter(|event| event.starts_with("Error"));
        assert_eq!(errors.count(), 1);
        let written = rewritten(chunks).pop().unwrap();
        assert!(written.starts_with(r#"{"error":{"code":"#), "{written}");
    };
    is_error(&[], "ended before the answer did");
    is_error(&CHUNKS[..6], "ended before the answer did");
    is_error(&[r#"{"usageMetadata":{}}"#], "ended before the answer did");
    is_error(&[CHUNKS[0], "{"], "not JSON at byte 1");
    is_error(&["[DONE]"], "not JSON");
    is_error(&["7"], "expected an object");
    is_error(
        &[
            CHUNKS[0],
            r#"{"candidates":[{"content":{"parts":[{"functionCall":{}}]}}]}"#,
            CHUNKS[1],
        ],
        "candidates[0].content.parts[0].functionCall",
    );
    is_error(
        &[
            CHUNKS[0],
            r#"{"error":{"code":503,"message":"busy","status":"UNAVAILABLE"}}"#,
            CHUNKS[6],
        ],
        "busy",
    );
    assert_eq!(
        rewritten(&[r#"[{"error":{"code":503,"message":"busy","status":"UNAVAILABLE"}}]"#]),
        [r#"{"error":{"code":503,"message":"busy","status":"UNAVAILABLE"}}"#]
    );
    assert_eq!(
        events(&[CHUNKS[6]], false).last().unwrap().get(..4),
        Some("Stop")
    );
}

#[test]
fn a_blocked_prompt_is_a_whole_stream() {
    let chunk = r#"{"promptFeedback":{"blockReason":"PROHIBITED_CONTENT"},"usageMetadata":{"promptTokenCount":3}}"#;
    let found = events(&[chunk], true);
    let filtered = Event::Stop {
        choice: 0,
        stop: Stop::ContentFilter,
    };
    assert_eq!(found[found.len() - 2..], [keep(filtered), keep(Event::End)]);
    let last = rewritten(&[chunk]).pop().unwrap();
    assert_eq!(value(&last)["candidates"][0]["finishReason"], "SAFETY");
}

fn answer() -> Vec<Event<'static>> {
    let start = |block| Event::BlockStart { choice: 0, block };
    let delta = |text| Event::Delta {
        choice: 0,
        text: JsonStr::new(text),
    };
    vec![
        Event::Start {
            id: JsonStr::default(),
            model: JsonStr::default(),
            created: None,
            usage: None,
        },
        Event::Ping,
        start(Block::Text),
        delta("a"),
        Event::BlockEnd { choice: 0 },
        start(Block::ToolCall {
            id: JsonStr::new("c"),
            name: JsonStr::new("f"),
        }),
        delta(r#"{"a"#),
        delta(r#"":1}"#),
        Event::BlockEnd { choice: 0 },
        Event::Stop {
            choice: 0,
            stop: Stop::ToolCalls,
        },
        Event::Usage(Usage {
            prompt: 1,
            completion: 2,
            total: 3,
            ..Usage::default()
        }),
        Event::End,
    ]
}

/// Without `alt=sse` a stream is an array, whose elements are the same.
#[test]
fn a_stream_may_be_an_array() {
    let sse = written_events(&answer(), StreamWriter::new(&NEW));
    let array = written_events(&answer(), StreamWriter::new(&NEW).json_array());
    let mut elements = Vec::new();
    json_array::Decoder::default().push(array.as_bytes(), |element| {
        elements.push(text(element.to_vec()));
    });
    assert_eq!(elements, unframed(sse.as_bytes()));
    assert_eq!(value(&array).as_array().unwrap().len(), 3);
    let broken = Event::Error(ErrorMessage::default());
    let events = [&answer()[..4], &[broken]].concat();
    let array = written_events(&events, StreamWriter::new(&NEW).json_array());
    assert_eq!(value(&array)[1]["error"]["code"], 500);
    // The model and the id are made up where nobody says them.
    assert_eq!(value(&elements[0])["modelVersion"], NEW.model);
    assert_eq!(value(&elements[0])["responseId"], NEW.seed);
    assert_eq!(
        value(&elements[1])["candidates"][0]["content"]["parts"][0],
        value(r#"{"functionCall":{"id":"c","name":"f","args":{"a":1}}}"#)
    );
}

/// Whatever order events come in, nothing panics, and nothing follows the end.
#[test]
fn odd_orders_are_survived() {
    let all = answer();
    for from in 0..all.len() {
        for step in 1..all.len() {
            let odd = (0..all.len()).map(|at| all[(from + at * step) % all.len()].clone());
            let odd: Vec<_> = odd.collect();
            let end = odd.iter().position(|event| *event == Event::End);
            let end = end.map_or(odd.len(), |end| end + 1);
            let whole = written_events(&odd, StreamWriter::new(&NEW));
            let until = written_events(&odd[..end], StreamWriter::new(&NEW));
            assert_eq!(whole, until);
            unframed(whole.as_bytes()).iter().for_each(|chunk| {
                value(chunk);
            });
        }
    }
}

/// A call of a hundred thousand pieces costs what its text does.
#[test]
fn long_calls_are_gathered() {
    let mut events = answer();
    let piece = Event::Delta {
        choice: 0,
        text: JsonStr::new("\"x\":\"0123456789\","),
    };
    let open = Event::Delta {
        choice: 0,
        text: JsonStr::new("{"),
    };
    let close = Event::Delta {
        choice: 0,
        text: JsonStr::new("\"y\":0}"),
    };
    let pieces = std::iter::repeat_n(piece, 100_000);
    events.splice(6..8, [open].into_iter().chain(pieces).chain([close]));
    let written = written_events(&events, StreamWriter::new(&NEW));
    assert_eq!(written.matches("0123456789").count(), 100_000);
}

/// What readers promise about the order of events.
#[derive(Default)]
struct Promises {
    has_started: bool,
    is_over: bool,
    open: Vec<u32>,
    stopped: Vec<u32>,
}

impl Promises {
    fn check(&mut self, event: &Event<'_>) {
        assert!(!self.is_over, "after the end: {event:?}");
        let is_start = matches!(event, Event::Start { .. });
        assert!(!(is_start && self.has_started), "a second start");
        self.has_started |= is_start;
        match event {
            Event::BlockStart { choice, .. } => {
                assert!(!self.open.contains(choice) && !self.stopped.contains(choice));
                self.open.push(*choice);
            }
            Event::Delta { choice, .. }
            | Event::Signature { choice, .. }
            | Event::Citation { choice, .. } => assert!(self.open.contains(choice), "{event:?}"),
            Event::BlockEnd { choice } => {
                assert!(self.open.contains(choice), "{event:?}");
                self.open.retain(|open| open != choice);
            }
            Event::Stop { choice, .. } => {
                assert!(!self.open.contains(choice) && !self.stopped.contains(choice));
                self.stopped.push(*choice);
            }
            Event::End => {
                assert!(self.open.is_empty() && self.has_started);
                self.is_over = true;
            }
            Event::Error(_) => self.is_over = true,
            _ => assert!(self.has_started, "{event:?}"),
        }
    }
}

proptest! {
    /// Whatever a provider sends, readers keep their promises, and what is written for it is JSON.
    #[test]
    fn promises_are_kept(picks in proptest::collection::vec((0usize..CHUNKS.len() + 3, 0u8..3), 0..12), cut in 0usize..400) {
        let extra = [
            r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#,
            r#"{"candidates":[{"groundingMetadata":{"groundingChunks":[{"web":{"uri":"u"}}],"groundingSupports":[{"segment":{"endIndex":2},"groundingChunkIndices":[0]}]}}]}"#,
            r#"{"error":{"message":"m"}}"#,
        ];
        let mut reader = StreamReader::new(&NEW);
        let mut writer = StreamWriter::new(&NEW).json_array();
        let mut promises = Promises::default();
        let mut out = Vec::new();
        let mut sink = |event: Event<'_>| {
            promises.check(&event);
            writer.write(&event, &mut out);
        };
        for (pick, candidate) in picks {
            let chunk = CHUNKS.iter().chain(&extra).nth(pick).unwrap();
            let chunk = chunk.replace(r#""index":0"#, &format!(r#""index":{candidate}"#));
            reader.event(b"", chunk.as_bytes(), &mut sink);
        }
        let broken = &CHUNKS[4].as_bytes()[..cut.min(CHUNKS[4].len())];
        if cut % 2 == 0 {
            reader.event(b"", broken, &mut sink);
        }
        reader.finish(&mut sink);
        prop_assert!(promises.is_over);
        value(&text(out));
    }
}
