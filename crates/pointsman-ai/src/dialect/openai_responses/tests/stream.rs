use super::*;
use crate::{
    conversation::Stop,
    json::value_at,
    stream::{Framing, Unframed},
};

/// A stream as OpenAI sends it, shortened.
const EVENTS: &[&str] = &[
    r#"{"type":"response.created","sequence_number":0,"response":{"id":"resp_1","object":"response","created_at":1741290958,"status":"in_progress","model":"gpt-5.2","output":[],"usage":null}}"#,
    r#"{"type":"response.in_progress","sequence_number":1,"response":{"id":"resp_1","object":"response","created_at":1741290958,"status":"in_progress","model":"gpt-5.2","output":[],"usage":null}}"#,
    r#"{"type":"response.output_item.added","sequence_number":2,"output_index":0,"item":{"id":"rs_1","type":"reasoning","summary":[]}}"#,
    r#"{"type":"response.reasoning_summary_part.added","sequence_number":3,"item_id":"rs_1","output_index":0,"summary_index":0,"part":{"type":"summary_text","text":""}}"#,
    r#"{"type":"response.reasoning_summary_text.delta","sequence_number":4,"item_id":"rs_1","output_index":0,"summary_index":0,"delta":"Think."}"#,
    r#"{"type":"response.reasoning_summary_text.done","sequence_number":5,"item_id":"rs_1","output_index":0,"summary_index":0,"text":"Think."}"#,
    r#"{"type":"response.reasoning_summary_part.done","sequence_number":6,"item_id":"rs_1","output_index":0,"summary_index":0,"part":{"type":"summary_text","text":"Think."}}"#,
    r#"{"type":"response.reasoning_summary_part.added","sequence_number":7,"item_id":"rs_1","output_index":0,"summary_index":1,"part":{"type":"summary_text","text":""}}"#,
    r#"{"type":"response.reasoning_summary_text.delta","sequence_number":8,"item_id":"rs_1","output_index":0,"summary_index":1,"delta":"More."}"#,
    r#"{"type":"response.output_item.done","sequence_number":9,"output_index":0,"item":{"id":"rs_1","type":"reasoning","summary":[{"type":"summary_text","text":"Think."},{"type":"summary_text","text":"More."}],"encrypted_content":"gAAA"}}"#,
    r#"{"type":"response.output_item.added","sequence_number":10,"output_index":1,"item":{"id":"ws_1","type":"web_search_call","status":"in_progress"}}"#,
    r#"{"type":"response.web_search_call.searching","sequence_number":11,"output_index":1,"item_id":"ws_1"}"#,
    r#"{"type":"response.output_item.done","sequence_number":12,"output_index":1,"item":{"id":"ws_1","type":"web_search_call","status":"completed","action":{"type":"search","query":"q"}}}"#,
    r#"{"type":"response.output_item.added","sequence_number":13,"output_index":2,"item":{"id":"msg_1","type":"message","status":"in_progress","role":"assistant","content":[]}}"#,
    r#"{"type":"response.content_part.added","sequence_number":14,"item_id":"msg_1","output_index":2,"content_index":0,"part":{"type":"output_text","text":"","annotations":[],"logprobs":[]}}"#,
    r#"{"type":"response.output_text.delta","sequence_number":15,"item_id":"msg_1","output_index":2,"content_index":0,"delta":"H\u00e9","logprobs":[{"token":"H","bytes":[72],"logprob":-0.5,"top_logprobs":[]}],"obfuscation":"x"}"#,
    r#"{"type":"response.output_text.delta","sequence_number":16,"item_id":"msg_1","output_index":2,"content_index":0,"delta":" \"you\"","logprobs":[]}"#,
    r#"{"type":"response.output_text.annotation.added","sequence_number":17,"item_id":"msg_1","output_index":2,"content_index":0,"annotation_index":0,"annotation":{"type":"url_citation","start_index":0,"end_index":2,"url":"https://a","title":"A"}}"#,
    r#"{"type":"response.output_text.done","sequence_number":18,"item_id":"msg_1","output_index":2,"content_index":0,"text":"H\u00e9 \"you\"","logprobs":[]}"#,
    r#"{"type":"response.content_part.done","sequence_number":19,"item_id":"msg_1","output_index":2,"content_index":0,"part":{"type":"output_text","text":"H\u00e9 \"you\"","annotations":[]}}"#,
    r#"{"type":"response.content_part.added","sequence_number":20,"item_id":"msg_1","output_index":2,"content_index":1,"part":{"type":"refusal","refusal":""}}"#,
    r#"{"type":"response.refusal.delta","sequence_number":21,"item_id":"msg_1","output_index":2,"content_index":1,"delta":"No."}"#,
    r#"{"type":"response.refusal.done","sequence_number":22,"item_id":"msg_1","output_index":2,"content_index":1,"refusal":"No."}"#,
    r#"{"type":"response.content_part.done","sequence_number":23,"item_id":"msg_1","output_index":2,"content_index":1,"part":{"type":"refusal","refusal":"No."}}"#,
    r#"{"type":"response.output_item.done","sequence_number":24,"output_index":2,"item":{"id":"msg_1","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"x","annotations":[]},{"type":"refusal","refusal":"No."}]}}"#,
    r#"{"type":"response.output_item.added","sequence_number":25,"output_index":3,"item":{"id":"fc_1","type":"function_call","status":"in_progress","arguments":"","call_id":"call_1","name":"f"}}"#,
    r#"{"type":"response.function_call_arguments.delta","sequence_number":26,"item_id":"fc_1","output_index":3,"delta":"{\"a\""}"#,
    r#"{"type":"response.function_call_arguments.delta","sequence_number":27,"item_id":"fc_1","output_index":3,"delta":":1}"}"#,
    r#"{"type":"response.function_call_arguments.done","sequence_number":28,"item_id":"fc_1","output_index":3,"arguments":"{\"a\":1}"}"#,
    r#"{"type":"response.output_item.done","sequence_number":29,"output_index":3,"item":{"id":"fc_1","type":"function_call","status":"completed","arguments":"{\"a\":1}","call_id":"call_1","name":"f"}}"#,
    r#"{"type":"response.output_item.added","sequence_number":30,"output_index":4,"item":{"id":"rs_2","type":"reasoning","summary":[]}}"#,
    r#"{"type":"response.output_item.done","sequence_number":31,"output_index":4,"item":{"id":"rs_2","type":"reasoning","summary":[],"encrypted_content":"gBBB"}}"#,
    r#"{"type":"response.completed","sequence_number":32,"response":{"id":"resp_1","object":"response","created_at":1741290958,"status":"completed","model":"gpt-5.2","output":[],"usage":{"input_tokens":37,"input_tokens_details":{"cached_tokens":10},"output_tokens":11,"output_tokens_details":{"reasoning_tokens":3},"total_tokens":48}}}"#,
];

pub(super) fn read(events: &[&str]) -> Vec<String> {
    let mut reader = StreamReader::new(&SETTING);
    let mut seen = Vec::new();
    for data in events {
        reader.event(b"", data.as_bytes(), &mut |event| {
            seen.push(format!("{event:?}"))
        });
    }
    reader.finish(&mut |event| seen.push(format!("{event:?}")));
    seen
}

fn write(events: &[&str]) -> Vec<u8> {
    let mut reader = StreamReader::new(&SETTING);
    let mut writer = StreamWriter::new(&SETTING);
    let mut out = Vec::new();
    for data in events {
        reader.event(b"", data.as_bytes(), &mut |event| {
            writer.write(&event, &mut out)
        });
    }
    reader.finish(&mut |event| writer.write(&event, &mut out));
    out
}

/// Names and data of a stream.
pub(super) fn framed(stream: &[u8]) -> Vec<(String, String)> {
    let mut framing = Framing::of(OWN);
    let mut seen = Vec::new();
    framing.push(stream, |frame| match frame {
        Unframed::Event { name, data } => seen.push((
            String::from_utf8(name.to_vec()).unwrap(),
            String::from_utf8(data.to_vec()).unwrap(),
        )),
        Unframed::Broken(what) => panic!("{what}"),
    });
    seen
}

fn data(stream: &[u8]) -> Vec<String> {
    framed(stream).into_iter().map(|(_, data)| data).collect()
}

fn reread(stream: &[u8]) -> Vec<String> {
    let data = data(stream);
    let data: Vec<&str> = data.iter().map(String::as_str).collect();
    read(&data)
}

/// P-141, P-163
#[test]
fn a_stream_is_understood() {
    let seen = read(EVENTS);
    let kinds: Vec<&str> = seen
        .iter()
        .map(|event| event.split([' ', '(']).next().unwrap())
        .collect();
    let expected = [
        "Start",
        "BlockStart",
        "Delta",
        "Delta",
        "Delta",
        "Signature",
        "BlockEnd", // thoughts
        "BlockStart",
        "BlockEnd", // search
        "BlockStart",
        "Delta",
        "Logprobs",
        "Delta",
        "Citation",
        "BlockEnd", // text
        "BlockStart",
        "Delta",
        "BlockEnd", // refusal
        "BlockStart",
        "Delta",
        "Delta",
        "BlockEnd", // call
        "BlockStart",
        "Signature",
        "BlockEnd", // hidden thoughts
        "Usage",
        "Stop",
        "End",
    ];
    assert_eq!(kinds, expected, "{seen:#?}");
    assert!(
        seen[23].contains("gBBB") && seen[22].contains("Hidden"),
        "{seen:#?}"
    );
    assert!(seen[26].contains("ToolCalls"));
    assert!(seen[25].contains("cache_read: 10") && seen[25].contains("reasoning: 3"));
}

#[test]
fn a_stream_survives_writing_and_reading() {
    let stream = write(EVENTS);
    let again = reread(&stream);
    assert_eq!(again, read(EVENTS), "{}", String::from_utf8_lossy(&stream));
}

/// Members that official SDKs rely on.
fn needed(name: &str) -> &'static [&'static str] {
    match name {
        "response.output_item.added" | "response.output_item.done" => &["output_index", "item"],
        "response.content_part.added" | "response.content_part.done" => {
            &["item_id", "output_index", "content_index", "part"]
        }
        "response.output_text.delta" => &[
            "item_id",
            "output_index",
            "content_index",
            "delta",
            "logprobs",
        ],
        "response.output_text.done" => &[
            "item_id",
            "output_index",
            "content_index",
            "text",
            "logprobs",
        ],
        "response.output_text.annotation.added" => &[
            "item_id",
            "output_index",
            "content_index",
            "annotation_index",
            "annotation",
        ],
        "response.refusal.delta" => &["item_id", "output_index", "content_index", "delta"],
        "response.refusal.done" => &["item_id", "output_index", "content_index", "refusal"],
        "response.reasoning_summary_part.added" | "response.reasoning_summary_part.done" => {
            &["item_id", "output_index", "summary_index", "part"]
        }
        "response.reasoning_summary_text.delta" => {
            &["item_id", "output_index", "summary_index", "delta"]
        }
        "response.reasoning_summary_text.done" => {
            &["item_id", "output_index", "summary_index", "text"]
        }
        "response.function_call_arguments.delta" => &["item_id", "output_index", "delta"],
        "response.function_call_arguments.done" => {
            &["item_id", "output_index", "name", "arguments"]
        }
        "response.created" | "response.in_progress" | "response.completed" => &["response"],
        other => panic!("{other}"),
    }
}

#[test]
fn written_events_are_complete_and_numbered() {
    let events = framed(&write(EVENTS));
    for (number, (name, data)) in events.iter().enumerate() {
        let member = |name| value_at(data.as_bytes(), [name]).map(String::from_utf8_lossy);
        assert_eq!(member("sequence_number").unwrap(), number.to_string());
        assert_eq!(member("type").unwrap(), format!("{name:?}"));
        has_members(data, needed(name));
    }
    let names: Vec<&str> = events
        .iter()
        .map(|(name, _)| &name["response.".len()..])
        .collect();
    let expected = [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.delta",
        "output_text.annotation.added",
        "output_text.done",
        "content_part.done",
        "content_part.added",
        "refusal.delta",
        "refusal.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "output_item.done",
        "completed",
    ];
    assert_eq!(names, expected);
}

/// The response at the end is the whole answer, item by item as it was reported.
#[test]
fn the_end_repeats_everything() {
    let events = framed(&write(EVENTS));
    let last = value_at(events.last().unwrap().1.as_bytes(), ["response"]).unwrap();
    let last = std::str::from_utf8(last).unwrap();
    let items: Vec<&str> = events
        .iter()
        .filter(|(name, _)| name == "response.output_item.done")
        .map(|(_, data)| std::str::from_utf8(value_at(data.as_bytes(), ["item"]).unwrap()).unwrap())
        .collect();
    let output = value_at(last.as_bytes(), ["output"]).unwrap();
    let output = std::str::from_utf8(output).unwrap();
    assert_eq!(output, format!("[{}]", items.join(",")));
    let whole = response(last);
    assert_eq!(whole.choices[0].parts.len(), 6);
    assert_eq!(whole.choices[0].stop, Stop::ToolCalls);
    assert_eq!(whole.usage.unwrap().total, 48);
    assert!(whole.choices[0].logprobs.is_some());
}

/// Items that come mixed are read one after the other, each in its order.
#[test]
fn mixed_items_are_put_in_order() {
    let added = |index: u32| {
        format!(
            r#"{{"type":"response.output_item.added","output_index":{index},"item":{{"type":"function_call","call_id":"c{index}","name":"f"}}}}"#
        )
    };
    let delta = |index: u32, text: &str| {
        format!(
            r#"{{"type":"response.function_call_arguments.delta","output_index":{index},"delta":"{text}"}}"#
        )
    };
    let done = |index: u32| {
        format!(
            r#"{{"type":"response.output_item.done","output_index":{index},"item":{{"type":"function_call","arguments":"ab"}}}}"#
        )
    };
    let end = r#"{"type":"response.completed","response":{"status":"completed"}}"#.to_owned();
    let mixed = [
        added(0),
        added(1),
        delta(1, "a"),
        added(2),
        delta(0, "a"),
        delta(2, "a"),
        delta(1, "b"),
        done(1),
        delta(0, "b"),
        done(0),
        delta(2, "b"),
        end.clone(),
    ];
    let ordered = [
        added(0),
        delta(0, "a"),
        delta(0, "b"),
        done(0),
        added(1),
        delta(1, "a"),
        delta(1, "b"),
        done(1),
        added(2),
        delta(2, "a"),
        delta(2, "b"),
        end,
    ];
    let mixed: Vec<&str> = mixed.iter().map(String::as_str).collect();
    let ordered: Vec<&str> = ordered.iter().map(String::as_str).collect();
    assert_eq!(read(&mixed), read(&ordered));
    assert_eq!(
        read(&mixed)
            .iter()
            .filter(|event| event.starts_with("Delta"))
            .count(),
        6
    );
}

/// Servers that leave out the pieces say the same.
#[test]
fn whole_items_do_without_pieces() {
    let end = r#"{"type":"response.completed","response":{"id":"resp_1","status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"Hi"}]},{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}]}}"#;
    let only_end = read(&[end]);
    let items = read(&[
        r#"{"type":"response.created","response":{"id":"resp_1"}}"#,
        r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"message","content":[{"type":"output_text","text":"Hi"}]}}"#,
        r#"{"type":"response.output_item.added","output_index":1,"item":{"type":"function_call","call_id":"c","name":"f","arguments":""}}"#,
        r#"{"type":"response.output_item.done","output_index":1,"item":{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}}"#,
        end,
    ]);
    let unannounced = read(&[
        r#"{"type":"response.created","response":{"id":"resp_1"}}"#,
        r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"message","content":[{"type":"output_text","text":"Hi"}]}}"#,
        r#"{"type":"response.function_call_arguments.delta","output_index":1,"delta":"{"}"#,
        r#"{"type":"response.function_call_arguments.done","output_index":1,"arguments":"{}"}"#,
        r#"{"type":"response.output_item.done","output_index":1,"item":{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}}"#,
        end,
    ]);
    assert_eq!(only_end, unannounced);
    let texts = read(&[
        r#"{"type":"response.created","response":{"id":"resp_1"}}"#,
        r#"{"type":"response.output_text.done","output_index":0,"text":"Hi"}"#,
        r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"message","content":[{"type":"output_text","text":"Hi"}]}}"#,
        r#"{"type":"response.output_item.done","output_index":1,"item":{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}}"#,
        end,
    ]);
    assert_eq!(only_end.len(), 9, "{only_end:?}");
    assert_eq!(only_end, items);
    assert_eq!(only_end, texts);
}

/// G-20: a stream that is incomplete has usage, one that fails has its error.
#[test]
fn ends_that_are_no_success() {
    let incomplete = read(&[
        r#"{"type":"response.incomplete","response":{"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"usage":{"input_tokens":1,"output_tokens":2,"total_tokens":3}}}"#,
    ]);
    assert!(incomplete[1].contains("total: 3"), "{incomplete:?}");
    assert!(incomplete[2].contains("Length") && incomplete[3] == "End");
    for (data, code) in [
        (
            r#"{"type":"error","code":"rate_limit_exceeded","message":"Slow","param":null,"sequence_number":3}"#,
            "rate_limit_exceeded",
        ),
        (
            r#"{"type":"error","error":{"type":"server_error","code":"x","message":"Slow"}}"#,
            "x",
        ),
        (
            r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"server_error","message":"Slow"}}}"#,
            "server_error",
        ),
        (r#"{"error":{"message":"Slow","code":502}}"#, "502"),
    ] {
        let seen = read(&[EVENTS[0], data, EVENTS[2]]);
        assert_eq!(seen.len(), 2, "{seen:?}");
        assert!(seen[1].starts_with("Error") && seen[1].contains("Slow") && seen[1].contains(code));
        assert!(!seen[1].contains("\"error\""), "{seen:?}");
    }
    for cut in 0..EVENTS.len() - 1 {
        let seen = read(&EVENTS[..cut]);
        assert!(seen.last().unwrap().starts_with("Error"), "{cut}");
    }
    let broken = read(&[EVENTS[0], "{", EVENTS[1]]);
    assert!(
        broken.len() == 2 && broken[1].contains("not JSON"),
        "{broken:?}"
    );
}
