//! The bytes on the wire, known to both ends: the mock upstream serves them and the load generator
//! checks for them.
//!
//! Everything is a pure function of its arguments, so a response that a gateway shortened, repeated
//! or replaced by an error page has the wrong length and is noticed.

/// A chat request of exactly `bytes` bytes (or the smallest possible, if that is more): one long
/// user message with the escapes and the non-ASCII text that real prompts have. `model` and
/// `stream` stand first, as SDKs send them.
pub(crate) fn chat_request(bytes: usize, kind: Reply) -> Vec<u8> {
    let mut body = Vec::with_capacity(bytes);
    body.extend_from_slice(br#"{"model":"bench-small","#);
    if kind == Reply::Stream {
        body.extend_from_slice(br#""stream":true,"stream_options":{"include_usage":true},"#);
    }
    body.extend_from_slice(
        br#""temperature":0.2,"messages":[{"role":"system","content":"Answer briefly."},"#,
    );
    body.extend_from_slice(br#"{"role":"user","content":""#);
    let room = bytes.saturating_sub(body.len() + REQUEST_END.len());
    fill(&mut body, room);
    body.extend_from_slice(REQUEST_END);
    body
}

/// What the client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// One JSON document.
    Json,
    /// Server-sent events.
    Stream,
}

/// Whether a request body, of which `start` is the beginning, asks for a stream.
pub(crate) fn asks_for_stream(start: &[u8]) -> bool {
    memchr::memmem::find_iter(start, br#""stream""#).any(|at| {
        let after = start[at + 8..].trim_ascii_start();
        after
            .strip_prefix(b":")
            .is_some_and(|value| value.trim_ascii_start().starts_with(b"true"))
    })
}

/// The answer to a request without streaming, about 1 KB.
pub(crate) fn completion() -> Vec<u8> {
    let mut body = br#"{"id":"chatcmpl-bench000000000000000000000000","object":"chat.completion","created":1760000000,"model":"bench-small","choices":[{"index":0,"message":{"role":"assistant","content":""#.to_vec();
    fill(&mut body, 640);
    body.extend_from_slice(br#"","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":212,"completion_tokens":143,"total_tokens":355},"system_fingerprint":"fp_bench"}"#);
    body
}

/// The events of a stream of `chunks` chunks: the last of them carries the usage, and `[DONE]`
/// follows as one more.
pub(crate) fn stream_events(chunks: usize) -> Vec<Vec<u8>> {
    let start = r#"data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1760000000,"model":"bench-small","choices":["#;
    let delta = |index: usize| {
        let word = WORDS[index % WORDS.len()];
        format!(
            "{start}{{\"index\":0,\"delta\":{{\"content\":\" {word}\"}},\"finish_reason\":null}}]}}\n\n"
        )
    };
    let usage = format!(
        "{start}],\"usage\":{{\"prompt_tokens\":212,\"completion_tokens\":{chunks},\"total_tokens\":{}}}}}\n\n",
        chunks + 212
    );
    let mut events: Vec<Vec<u8>> = (1..chunks).map(|index| delta(index).into_bytes()).collect();
    events.extend((chunks > 0).then(|| usage.into_bytes()));
    events.push(b"data: [DONE]\n\n".to_vec());
    events
}

/// The same answer of a provider that speaks Anthropic Messages.
pub(crate) fn message() -> Vec<u8> {
    let mut body = br#"{"id":"msg_bench000000000000000000000000","type":"message","role":"assistant","model":"bench-small","content":[{"type":"text","text":""#.to_vec();
    fill(&mut body, 640);
    body.extend_from_slice(br#""}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":212,"output_tokens":143}}"#);
    body
}

/// The same stream in Anthropic Messages: as many pieces of text.
pub(crate) fn message_events(chunks: usize) -> Vec<Vec<u8>> {
    let event = |name: &str, rest: &str| {
        format!("event: {name}\ndata: {{\"type\":\"{name}\",{rest}}}\n\n").into_bytes()
    };
    let mut events = vec![
        event(
            "message_start",
            r#""message":{"id":"msg_bench","type":"message","role":"assistant","model":"bench-small","content":[],"stop_reason":null,"usage":{"input_tokens":212,"output_tokens":1}}"#,
        ),
        event(
            "content_block_start",
            r#""index":0,"content_block":{"type":"text","text":""}"#,
        ),
    ];
    events.extend((1..chunks).map(|index| {
        let word = WORDS[index % WORDS.len()];
        let delta = format!(r#""index":0,"delta":{{"type":"text_delta","text":" {word}"}}"#);
        event("content_block_delta", &delta)
    }));
    let usage =
        format!(r#""delta":{{"stop_reason":"end_turn"}},"usage":{{"output_tokens":{chunks}}}"#);
    events.push(event("content_block_stop", r#""index":0"#));
    events.push(event("message_delta", &usage));
    events.push(b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n".to_vec());
    events
}

/// Appends exactly `room` bytes of text that may stand inside a JSON string.
fn fill(body: &mut Vec<u8>, room: usize) {
    let end = body.len() + room;
    for piece in TEXT.iter().cycle().take_while(|_| room > 0) {
        if body.len() + piece.len() > end {
            break;
        }
        body.extend_from_slice(piece.as_bytes());
    }
    body.resize(end, b'.');
}

const REQUEST_END: &[u8] = br#""}]}"#;

/// Prose as it looks inside a JSON string; no piece is split, so no escape or character is either.
const TEXT: [&str; 9] = [
    "The night train left the yard at ten past four, and the signalman wrote it down as he always did. ",
    "Please check the following log and say which service failed first:\\n\\n",
    "2026-03-14T09:26:53Z WARN upstream \\\"eu-west\\\" answered 503 after 812 ms, attempt 2 of 3\\n",
    "fn main() {\\n\\tlet total: u64 = rows.iter().map(|row| row.amount).sum();\\n}\\n",
    "Die Weiche liegt für den Güterzug nach Süden; größere Verspätungen sind nicht zu erwarten. ",
    "C:\\\\data\\\\reports\\\\2026\\\\march.csv has 48 columns, of which seven are empty. ",
    "駅の時計は正確に九時を指していた。",
    "The answer should be short, should name its sources, and should not guess. 🚂 ",
    "Le café du quai ouvre à six heures, déjà plein de voyageurs. ",
];

const WORDS: [&str; 5] = ["train", "signal", "points", "größer", "platform"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_asked_size_and_are_json() {
        for kind in [Reply::Json, Reply::Stream] {
            for bytes in [1024, 1025, 32 * 1024, 256 * 1024] {
                let body = chat_request(bytes, kind);
                assert_eq!(body.len(), bytes);
                let parsed: serde_json::Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(parsed["stream"] == true, kind == Reply::Stream);
                assert_eq!(asks_for_stream(&body[..512]), kind == Reply::Stream);
            }
        }
    }

    #[test]
    fn stream_is_found_however_it_is_spaced() {
        assert!(asks_for_stream(br#"{"stream_options":{},"stream" : true}"#));
        assert!(!asks_for_stream(br#"{"stream":false}"#));
        assert!(!asks_for_stream(br#"{"stream"#));
    }

    #[test]
    fn answers_are_json_of_the_stated_size() {
        let body = completion();
        assert!((900..1100).contains(&body.len()), "{}", body.len());
        let parsed: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(parsed["usage"]["total_tokens"], 355);

        let events = stream_events(200);
        assert_eq!(events.len(), 201);
        let mean = events.iter().map(Vec::len).sum::<usize>() / events.len();
        assert!((130..210).contains(&mean), "{mean}");
        for event in &events[..200] {
            let json = event.strip_prefix(b"data: ").unwrap();
            serde_json::from_slice::<serde_json::Value>(json).unwrap();
        }
        assert!(events[199].windows(7).any(|window| window == b"\"usage\""));
        assert_eq!(stream_events(0).len(), 1);
    }
}
