//! Streams.

use super::*;

fn chunk(delta: &str, finish: &str) -> String {
    format!(
        r#"{{"id":"c","object":"chat.completion.chunk","created":5,"model":"m","choices":[{{"index":0,"delta":{delta},"finish_reason":{finish}}}]}}"#
    )
}

fn stream(chunks: &[String]) -> Vec<u8> {
    let frames = chunks.iter().map(|chunk| format!("data: {chunk}\n\n"));
    frames.collect::<String>().into_bytes()
}

fn events_of(chunks: &[String]) -> Vec<String> {
    events(&stream(chunks))
}

fn events(stream: &[u8]) -> Vec<String> {
    let mut reader = StreamReader::new(&SETTING);
    let mut events = Vec::new();
    let mut sink = |event: Event<'_>| events.push(format!("{event:?}"));
    Framing::of(OWN).push(stream, |frame| match frame {
        Unframed::Event { name, data } => reader.event(name, data, &mut sink),
        Unframed::Broken(what) => panic!("{what}"),
    });
    reader.finish(&mut sink);
    events
}

fn example() -> Vec<String> {
    let done = "[DONE]".to_owned();
    let usage = r#"{"id":"c","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}"#;
    vec![
        chunk(r#"{"role":"assistant","content":""}"#, "null"),
        chunk(
            r#"{"reasoning_details":[{"type":"reasoning.text","text":"hm"}]}"#,
            "null",
        ),
        chunk(
            r#"{"reasoning_details":[{"type":"reasoning.text","signature":"S="}]}"#,
            "null",
        ),
        chunk(r#"{"content":"Hi"}"#, "null"),
        chunk(
            r#"{"tool_calls":[{"index":0,"id":"t0","type":"function","function":{"name":"f","arguments":""}}]}"#,
            "null",
        ),
        chunk(
            r#"{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\""}}]}"#,
            "null",
        ),
        chunk(
            r#"{"tool_calls":[{"index":1,"id":"t1","type":"function","function":{"name":"g","arguments":"{"}}]}"#,
            "null",
        ),
        chunk(
            r#"{"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]}"#,
            "null",
        ),
        chunk(
            r#"{"tool_calls":[{"index":1,"function":{"arguments":"}"}}]}"#,
            "null",
        ),
        chunk("{}", r#""tool_calls""#),
        usage.to_owned(),
        done,
    ]
}

#[test]
fn a_stream_survives_reading_and_writing() {
    let vendor = stream(&example());
    let first = events(&vendor);
    assert_eq!(first.last().unwrap(), "End");
    let mut writer = StreamWriter::new(&SETTING);
    let mut reader = StreamReader::new(&SETTING);
    let mut out = Vec::new();
    Framing::of(OWN).push(&vendor, |frame| {
        if let Unframed::Event { name, data } = frame {
            reader.event(name, data, &mut |event| writer.write(&event, &mut out));
        }
    });
    let text = String::from_utf8_lossy(&out).into_owned();
    assert_eq!(events(&out), first, "{text}");
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
}

/// G-30: calls that take turns come one after the other, and whole.
#[test]
fn calls_that_interleave_are_put_in_order() {
    let events = events_of(&example());
    let calls: Vec<&String> = events
        .iter()
        .skip_while(|event| !event.contains("ToolCall"))
        .collect();
    let text = format!("{calls:?}");
    let places: Vec<usize> = [
        "t0",
        "\\\\\\\\\\\\\\\"a",
        ":1}",
        "BlockEnd",
        "t1",
        "{}",
        "BlockEnd",
        "Stop",
    ]
    .iter()
    .scan(0, |from, part| {
        let plain = part.trim_start_matches('\\').trim_start_matches('"');
        let at = text[*from..].find(plain).map(|at| *from + at);
        *from = at.unwrap_or(text.len());
        Some(*from)
    })
    .collect();
    assert!(
        places.is_sorted() && *places.last().unwrap() < text.len(),
        "{text}"
    );
}

#[test]
fn a_stream_that_ends_early_is_an_error() {
    let example = example();
    for count in 0..example.len() {
        let events = events_of(&example[..count]);
        let last = events.last().unwrap();
        // A reason was given: only the usage or the mark of the end is missing (G-01).
        let complete = count >= 10;
        assert_eq!(last == "End", complete, "{count}: {last}");
        assert_eq!(last.starts_with("Error"), !complete, "{count}: {last}");
    }
    let error = r#"{"error":{"message":"slow down","type":"rate_limit_error"}}"#.to_owned();
    let events = events_of(&[example[0].clone(), error, "[DONE]".to_owned()]);
    assert!(events.last().unwrap().contains("slow down"), "{events:?}");
}

fn anthropic_stream(chunks: &[String]) -> String {
    let text = written_to_anthropic(chunks);
    let names = text.lines().filter_map(|line| line.strip_prefix("event: "));
    names.collect::<Vec<_>>().join(" ")
}

fn written_to_anthropic(chunks: &[String]) -> String {
    let setting = Setting {
        client: Protocol::AnthropicMessages,
        ..SETTING
    };
    let mut writer = dialect::StreamWriter::new(&setting).unwrap();
    let mut reader = StreamReader::new(&SETTING);
    let mut out = Vec::new();
    Framing::of(OWN).push(&stream(chunks), |frame| {
        if let Unframed::Event { name, data } = frame {
            reader.event(name, data, &mut |event| writer.write(&event, &mut out));
        }
    });
    reader.finish(&mut |event| writer.write(&event, &mut out));
    String::from_utf8(out).unwrap()
}

/// P-128 to P-130, P-132 to P-138, G-03, G-33
#[test]
fn streams_to_anthropic_clients() {
    let done = || "[DONE]".to_owned();
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5}}"#.to_owned();
    let text = "message_start content_block_start content_block_delta content_block_delta content_block_stop message_delta message_stop";
    let role = || chunk(r#"{"role":"assistant"}"#, "null");
    assert_eq!(
        anthropic_stream(&[
            r#"{"choices":[],"prompt_filter_results":[]}"#.to_owned(),
            role(),
            chunk(r#"{"content":"Hello"}"#, r#""""#),
            String::new(),
            chunk(r#"{"content":" world"}"#, r#""stop""#),
            usage.clone(),
            done(),
        ]),
        text
    );
    assert_eq!(
        anthropic_stream(&[
            chunk(r#"{"role":"assistant","content":"Hello"}"#, r#""null""#),
            chunk(r#"{"content":" world"}"#, "null"),
            chunk(r#"{"content":""}"#, r#""stop""#),
            chunk(r#"{"content":""}"#, r#""stop""#),
            chunk(r#"{"content":"too late"}"#, "null"),
            done(),
            chunk(r#"{"content":"later still"}"#, "null"),
        ]),
        text
    );
    assert_eq!(
        anthropic_stream(&[role(), done()]),
        "message_start message_delta message_stop"
    );
    let anthropic = r#"{"type":"message_start","message":{"id":"m"}}"#.to_owned();
    assert_eq!(anthropic_stream(&[anthropic]), "error");
    let calls = anthropic_stream(&[
        role(),
        chunk(
            r#"{"tool_calls":[{"id":"a","function":{"name":"f","arguments":"{"}}]}"#,
            "null",
        ),
        chunk(r#"{"tool_calls":[{"function":{"arguments":"}"}}]}"#, "null"),
        chunk(
            r#"{"tool_calls":[{"id":"b","function":{"name":"g","arguments":"{}"}}]}"#,
            r#""stop""#,
        ),
        done(),
    ]);
    assert_eq!(calls.matches("content_block_start").count(), 2, "{calls}");
    assert_eq!(calls.matches("content_block_delta").count(), 3, "{calls}");
}

/// P-131, P-135: usage that is null says nothing, and each block closes before the next opens.
#[test]
fn blocks_of_a_stream_to_anthropic_clients() {
    let pieces = [
        r#"{"reasoning_content":"hm"}"#,
        r#"{"content":"x"}"#,
        r#"{"tool_calls":[{"index":0,"id":"t","function":{"name":"f","arguments":"{}"}}]}"#,
    ];
    let with_usage =
        |piece| chunk(piece, "null").replace(r#""choices""#, r#""usage":null,"choices""#);
    let mut chunks = Vec::from(pieces.map(with_usage));
    chunks.extend([chunk("{}", r#""tool_calls""#), "[DONE]".to_owned()]);
    let written = written_to_anthropic(&chunks);
    let blocks: Vec<String> = written
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter_map(|data| {
            let event: serde_json::Value = serde_json::from_str(data).unwrap();
            let kind = event["content_block"]["type"].as_str().unwrap_or("-");
            let name = event["type"].as_str()?.strip_prefix("content_block_")?;
            Some(format!("{name} {} {kind}", event["index"]))
        })
        .collect();
    let expected = [
        "start 0 thinking",
        "delta 0 -",
        "stop 0 -",
        "start 1 text",
        "delta 1 -",
        "stop 1 -",
        "start 2 tool_use",
        "delta 2 -",
        "stop 2 -",
    ];
    assert_eq!(blocks, expected, "{written}");
    assert!(written.contains("event: message_stop"), "{written}");
}

#[test]
fn many_deltas_of_one_call_are_linear() {
    let mut reader = StreamReader::new(&SETTING);
    let mut length = 0;
    let mut sink = |event: Event<'_>| {
        if let Event::Delta { text, .. } = event {
            length += text.as_spelt().len();
        }
    };
    for index in 0..2 {
        let start =
            format!(r#"{{"tool_calls":[{{"index":{index},"id":"t","function":{{"name":"f"}}}}]}}"#);
        reader.event(b"", chunk(&start, "null").as_bytes(), &mut sink);
    }
    for round in 0..20_000 {
        let index = round % 2;
        let more = format!(
            r#"{{"tool_calls":[{{"index":{index},"function":{{"arguments":"0123456789"}}}}]}}"#
        );
        reader.event(b"", chunk(&more, "null").as_bytes(), &mut sink);
    }
    reader.event(b"", b"[DONE]", &mut sink);
    assert_eq!(length, 200_000);
}
