//! Reads a stream in passing: tokens, tool calls, text, and whether it ended properly.
//!
//! Almost every event is only a piece of text, so an event is looked into only when it mentions
//! something that counts. Then it is walked, never built: some events repeat what the client
//! sent, and what no parser takes there must not hide the tokens beside it.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::{
    Capture, Protocol, Usage,
    json::{self, items, members, value_at},
    stream::{events::EventMeter, sse::Decoder},
    translate::status_of_words,
    usage::Total,
};

/// Reads one stream.
#[derive(Debug)]
pub struct StreamMeter {
    kind: Kind,
    /// Counts what the model wrote, where `kind` looks at few events only.
    estimate: Option<Box<EventMeter>>,
}

#[derive(Debug)]
enum Kind {
    /// Only events that count are looked into.
    Scan(Decoder, Reader),
    /// Every event is read.
    Events(Box<EventMeter>),
    /// Nothing is known of such streams.
    Blind(Reader),
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
    /// About how many tokens the model wrote, as far as it came, if that was asked for.
    pub estimated_completion: Option<u64>,
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
        let reader = Reader {
            protocol,
            capture,
            facts,
        };
        let kind = match protocol {
            Protocol::OpenaiChat | Protocol::OpenaiResponses | Protocol::AnthropicMessages => {
                Kind::Scan(Decoder::default(), reader)
            }
            _ => match EventMeter::new(protocol, capture) {
                Some(meter) => Kind::Events(Box::new(meter)),
                None => Kind::Blind(reader),
            },
        };
        Self {
            kind,
            estimate: None,
        }
    }

    /// Also counts about how many tokens the model writes, for streams that end before they say so.
    /// Takes reading every event.
    #[must_use]
    pub fn estimating(mut self) -> Self {
        match &mut self.kind {
            Kind::Scan(_, reader) => {
                self.estimate = EventMeter::new(reader.protocol, Capture::Nothing).map(Box::new);
                if let Some(meter) = &mut self.estimate {
                    meter.estimate();
                }
            }
            Kind::Events(meter) => meter.estimate(),
            Kind::Blind(_) => {}
        }
        self
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if let Some(meter) = &mut self.estimate {
            meter.push(bytes);
        }
        match &mut self.kind {
            Kind::Scan(decoder, reader) => {
                decoder.push(bytes, |event, data| reader.event(event, data));
            }
            Kind::Events(meter) => meter.push(bytes),
            Kind::Blind(_) => {}
        }
    }

    /// The status that the end of the stream stands for, if it ends here and that is no proper end: by the
    /// error that it carried, or because what every provider sends last in its protocol is missing (not so
    /// OpenAI's `[DONE]`, which some leave out).
    pub fn failure(&self) -> Option<u16> {
        let (error, is_cut) = match &self.kind {
            Kind::Scan(_, reader) => {
                let facts = &reader.facts;
                let ends = reader.protocol != Protocol::OpenaiChat;
                let kind = facts.error.as_ref().map(|(kind, _)| &**kind);
                (kind, ends && !facts.done)
            }
            Kind::Events(meter) => (meter.error(), false),
            Kind::Blind(_) => (None, false),
        };
        match error {
            Some(kind) => Some(status_of_words(&kind.to_lowercase())),
            None => is_cut.then_some(502),
        }
    }

    /// What it all came to.
    pub fn finish(self) -> StreamFacts {
        match self.kind {
            Kind::Scan(decoder, reader) => StreamFacts {
                pending: decoder.pending(),
                overflows: decoder.overflows(),
                estimated_completion: self
                    .estimate
                    .and_then(|meter| meter.finish().estimated_completion),
                ..reader.facts
            },
            Kind::Events(meter) => meter.finish(),
            Kind::Blind(reader) => reader.facts,
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
        let Some([usage, error, choices]) = members(data, ["usage", "error", "choices"]) else {
            return;
        };
        self.usage(usage);
        self.error(error);
        items(choices.unwrap_or_default(), |choice| {
            let delta = value_at(choice, ["delta"]);
            let Some([calls, content]) =
                delta.and_then(|delta| members(delta, ["tool_calls", "content"]))
            else {
                return;
            };
            self.facts.has_tool_calls |= calls.is_some_and(json::has_items);
            self.text(content);
        });
    }

    fn responses(&mut self, event: &[u8], data: &[u8]) {
        match event {
            b"response.output_text.delta" if self.capture == Capture::Text => {
                self.text(value_at(data, ["delta"]));
            }
            b"response.completed" | b"response.incomplete" | b"response.failed" => {
                self.facts.done = true;
                let response = value_at(data, ["response"]);
                let Some([usage, error, output]) =
                    response.and_then(|response| members(response, ["usage", "error", "output"]))
                else {
                    return;
                };
                self.usage(usage);
                self.error(error);
                items(output.unwrap_or_default(), |item| {
                    self.facts.has_tool_calls |= is_of_type(item, "function_call");
                });
            }
            b"error" => {
                self.facts.done = true;
                let inside = value_at(data, ["error"]).filter(|error| error.starts_with(b"{"));
                self.error(inside.or(Some(data)));
            }
            _ => {}
        }
    }

    fn anthropic(&mut self, event: &[u8], data: &[u8]) {
        match event {
            b"message_start" | b"message_delta" => {
                self.usage(value_at(data, ["message", "usage"]));
                self.usage(value_at(data, ["usage"]));
            }
            b"content_block_start" if TOOL_USE.find(data).is_some() => {
                let block = value_at(data, ["content_block"]);
                self.facts.has_tool_calls |=
                    block.is_some_and(|block| is_of_type(block, "tool_use"));
            }
            b"content_block_delta" if self.capture == Capture::Text => {
                self.text(value_at(data, ["delta", "text"]));
            }
            b"message_stop" => self.facts.done = true,
            b"error" => {
                self.facts.done = true;
                self.error(value_at(data, ["error"]));
            }
            _ => {}
        }
    }

    fn usage(&mut self, usage: Option<&[u8]>) {
        let read = usage.and_then(|usage| Usage::read(self.protocol, usage, Total::AsStated));
        if let Some(read) = read {
            self.facts.usage.get_or_insert_default().update(read);
        }
    }

    fn error(&mut self, error: Option<&[u8]>) {
        let Some(found) = error.and_then(|error| members(error, ["type", "message"])) else {
            return;
        };
        let [kind, message] =
            found.map(|value| value.and_then(json::text).unwrap_or_default().into_owned());
        self.facts.error = Some((kind, message));
    }

    fn text(&mut self, piece: Option<&[u8]>) {
        if let (Some(text), Some(piece)) = (&mut self.facts.text, piece.and_then(json::text))
            && text.len() + piece.len() <= TEXT_BYTES_MAX
        {
            text.push_str(&piece);
        }
    }
}

/// Whether `item` is an object whose `type` is `expected`.
pub(crate) fn is_of_type(item: &[u8], expected: &str) -> bool {
    value_at(item, ["type"]).is_some_and(|kind| json::says(kind, expected))
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
}
