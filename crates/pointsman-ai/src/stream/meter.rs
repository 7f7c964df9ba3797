//! Reads a stream in passing: tokens, tool calls, text, and whether it ended properly.
//!
//! Almost every event is only a piece of text, so an event is looked into only when it mentions
//! something that counts. Then it is walked, never built: some events repeat what the client
//! sent, and what no parser takes there must not hide the tokens beside it.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::{
    Capture, DirectApi, Protocol, Usage,
    json::{self, items, members, value_at},
    stream::{
        events::EventMeter,
        sse::{Decoder, event_bytes_max},
    },
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
            Protocol::OpenaiChat
            | Protocol::OpenaiResponses
            | Protocol::AnthropicMessages
            | Protocol::Direct(_) => {
                let limit = event_bytes_max(protocol);
                Kind::Scan(Decoder::with_events_of(limit), reader)
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
                let ends = !matches!(reader.protocol, Protocol::OpenaiChat | Protocol::Direct(_));
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
            // The legacy completions are those of chats but for where the text stands.
            Protocol::Direct(DirectApi::Completion) => self.chat(event, data),
            Protocol::Direct(_) => self.direct(data),
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
            if self.protocol == Protocol::Direct(DirectApi::Completion) {
                self.text(value_at(choice, ["text"]));
                return;
            }
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

    /// Speech, transcriptions and pictures: events that name themselves in their data, the last of
    /// which states tokens.
    fn direct(&mut self, data: &[u8]) {
        let counts = states(&USAGE, data) || states(&ERROR, data) || DONE.find(data).is_some();
        if !counts {
            return;
        }
        let Some([kind, usage, error, text]) = members(data, ["type", "usage", "error", "text"])
        else {
            return;
        };
        let kind = kind.and_then(json::text).unwrap_or_default();
        self.usage(usage);
        self.error(error);
        if kind.ends_with(".done") || kind.ends_with(".completed") {
            self.facts.done = true;
            self.text(text);
        }
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
static DONE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(".done\""));
static ERROR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"error\""));

/// Text that is kept of one response.
const TEXT_BYTES_MAX: usize = 4 << 20;

#[cfg(test)]
mod tests;
