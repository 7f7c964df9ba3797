//! Reads a stream in passing: tokens, tool calls, text, and whether it ended properly.
//!
//! Almost every event is only a piece of text, so an event is parsed only when it mentions
//! something that counts.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde_json::Value;

use crate::{
    Capture, Protocol, Usage,
    stream::sse::Decoder,
    usage::{Raw, Total},
};

/// Reads one stream.
#[derive(Debug)]
pub struct StreamMeter {
    decoder: Decoder,
    reader: Reader,
}

/// What a stream said of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamFacts {
    /// Tokens, if it stated any.
    pub usage: Option<Usage>,
    /// It called a tool.
    pub has_tool_calls: bool,
    /// Its text, if that was asked for.
    pub text: Option<String>,
    /// It ended with its protocol's own end event.
    pub done: bool,
    /// The error event that it carried: type and message.
    pub error: Option<(String, String)>,
    /// Bytes of an event that never ended.
    pub pending: usize,
    /// Events that were not read because they were too large.
    pub overflows: u64,
}

#[derive(Debug)]
struct Reader {
    protocol: Protocol,
    capture: Capture,
    facts: StreamFacts,
}

impl StreamMeter {
    /// A meter for a stream in `protocol`.
    pub fn new(protocol: Protocol, capture: Capture) -> Self {
        let text = (capture == Capture::Text).then(String::new);
        let facts = StreamFacts {
            text,
            ..StreamFacts::default()
        };
        Self {
            decoder: Decoder::default(),
            reader: Reader {
                protocol,
                capture,
                facts,
            },
        }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        let Self { decoder, reader } = self;
        match reader.protocol {
            Protocol::OpenaiEmbeddings | Protocol::Passthrough | Protocol::BedrockConverse => {}
            _ => decoder.push(bytes, |event, data| reader.event(event, data)),
        }
    }

    /// What it all came to.
    pub fn finish(self) -> StreamFacts {
        StreamFacts {
            pending: self.decoder.pending(),
            overflows: self.decoder.overflows(),
            ..self.reader.facts
        }
    }
}

impl Reader {
    fn event(&mut self, event: &[u8], data: &[u8]) {
        match self.protocol {
            Protocol::OpenaiChat => self.chat(event, data),
            Protocol::OpenaiResponses => self.responses(event, data),
            Protocol::AnthropicMessages => self.anthropic(event, data),
            _ => {}
        }
    }

    fn chat(&mut self, event: &[u8], data: &[u8]) {
        if !(event.is_empty() || event == b"message") {
            return;
        }
        if data.trim_ascii() == b"[DONE]" {
            self.facts.done = true;
            return;
        }
        let counts = self.capture == Capture::Text
            || states(&USAGE, data)
            || states(&TOOL_CALLS, data)
            || states(&ERROR, data);
        if !counts {
            return;
        }
        let Ok(chunk) = serde_json::from_slice::<Value>(data) else {
            return;
        };
        self.usage(&chunk["usage"]);
        self.error(&chunk["error"]);
        for choice in chunk["choices"].as_array().into_iter().flatten() {
            let delta = &choice["delta"];
            if delta["tool_calls"]
                .as_array()
                .is_some_and(|calls| !calls.is_empty())
            {
                self.facts.has_tool_calls = true;
            }
            self.text(&delta["content"]);
        }
    }

    fn responses(&mut self, event: &[u8], data: &[u8]) {
        match event {
            b"response.output_text.delta" if self.capture == Capture::Text => {
                if let Ok(event) = serde_json::from_slice::<Value>(data) {
                    self.text(&event["delta"]);
                }
            }
            b"response.completed" | b"response.incomplete" | b"response.failed" => {
                self.facts.done = true;
                let Ok(event) = serde_json::from_slice::<Value>(data) else {
                    return;
                };
                let response = &event["response"];
                self.usage(&response["usage"]);
                self.error(&response["error"]);
                let output = response["output"].as_array();
                if output
                    .into_iter()
                    .flatten()
                    .any(|item| item["type"] == "function_call")
                {
                    self.facts.has_tool_calls = true;
                }
            }
            b"error" => {
                self.facts.done = true;
                if let Ok(event) = serde_json::from_slice::<Value>(data) {
                    let inside = if event["error"].is_object() {
                        &event["error"]
                    } else {
                        &event
                    };
                    self.error(inside);
                }
            }
            _ => {}
        }
    }

    fn anthropic(&mut self, event: &[u8], data: &[u8]) {
        match event {
            b"message_start" | b"message_delta" => {
                let Ok(event) = serde_json::from_slice::<Value>(data) else {
                    return;
                };
                self.usage(&event["message"]["usage"]);
                self.usage(&event["usage"]);
            }
            b"content_block_start" if TOOL_USE.find(data).is_some() => {
                if let Ok(event) = serde_json::from_slice::<Value>(data) {
                    self.facts.has_tool_calls |= event["content_block"]["type"] == "tool_use";
                }
            }
            b"content_block_delta" if self.capture == Capture::Text => {
                if let Ok(event) = serde_json::from_slice::<Value>(data) {
                    self.text(&event["delta"]["text"]);
                }
            }
            b"message_stop" => self.facts.done = true,
            b"error" => {
                self.facts.done = true;
                if let Ok(event) = serde_json::from_slice::<Value>(data) {
                    self.error(&event["error"]);
                }
            }
            _ => {}
        }
    }

    fn usage(&mut self, usage: &Value) {
        if !usage.is_object() {
            return;
        }
        // Once or twice a stream, so the way through a tree is short enough.
        let Some(raw) = Raw::lenient(usage) else {
            return;
        };
        let Some(read) = Usage::of(self.protocol, &raw, Total::AsStated) else {
            return;
        };
        self.facts.usage.get_or_insert_default().update(read);
    }

    fn error(&mut self, error: &Value) {
        if !error.is_object() {
            return;
        }
        let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        self.facts.error = Some((text("type"), text("message")));
    }

    fn text(&mut self, piece: &Value) {
        if let (Some(text), Some(piece)) = (&mut self.facts.text, piece.as_str())
            && text.len() + piece.len() <= TEXT_BYTES_MAX
        {
            text.push_str(piece);
        }
    }
}

/// Whether `key` stands in `data` with a value other than `null`: who was asked for usage sends
/// `"usage":null` in every event but the last.
fn states(key: &Finder<'_>, data: &[u8]) -> bool {
    key.find_iter(data).any(|at| {
        let after = data[at + key.needle().len()..].trim_ascii_start();
        let value = after.strip_prefix(b":").unwrap_or_default();
        !value.trim_ascii_start().starts_with(b"null")
    })
}

static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"usage\""));
static TOOL_CALLS: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"tool_calls\""));
static TOOL_USE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"tool_use\""));
static ERROR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"error\""));

/// Text that is kept of one response.
const TEXT_BYTES_MAX: usize = 4 << 20;

#[cfg(test)]
mod tests {
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
        meter.push(b"data: {\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2,\"total_tokens\":3}}\n\n");
        let facts = meter.finish();
        assert_eq!((facts.usage, facts.has_tool_calls), (usage(1, 2, 3), false));
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
}
