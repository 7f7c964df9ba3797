//! Writing streams.

use super::{OWN, write_answer::write_stop, write_citation, write_error_as, write_usage};
use crate::{
    Usage,
    conversation::{Block, ErrorMessage, Event, Signature, Stop},
    dialect::{Setting, write_sse},
    json::{string::JsonStr, write::Writer},
};

/// Writes Anthropic's stream.
#[derive(Debug)]
pub(crate) struct StreamWriter {
    seed: String,
    started: bool,
    index: u64,
    open: Open,
    /// The members that say why the answer ended, once that is known.
    stop: Option<Vec<u8>>,
    usage: Usage,
}

/// The open block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    /// None, or one that clients are not told of.
    Nothing,
    Text,
    Thinking,
    /// Hidden thoughts are announced with all of their data.
    Hidden,
    Call,
}

impl StreamWriter {
    pub(in crate::dialect) fn new(setting: &Setting<'_>) -> Self {
        Self {
            seed: setting.seed.to_owned(),
            started: false,
            index: 0,
            open: Open::Nothing,
            stop: None,
            usage: Usage::default(),
        }
    }

    pub(in crate::dialect) fn write(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        match event {
            Event::Start {
                id, model, usage, ..
            } => {
                self.usage = usage.unwrap_or_default();
                self.start(id, model, out);
            }
            Event::BlockStart { choice: 0, block } => self.block_start(block, out),
            Event::Delta { choice: 0, text } => self.delta(text, out),
            Event::Signature {
                choice: 0,
                signature,
            } => self.signature(signature, out),
            Event::Citation {
                choice: 0,
                citation,
            } if self.open == Open::Text => self.piece("citations_delta", out, |w| {
                w.key("citation");
                write_citation(citation, w);
            }),
            Event::BlockEnd { choice: 0 } => self.block_end(out),
            Event::Stop { choice: 0, stop } => self.stop = Some(members_of(stop)),
            Event::Usage(usage) => self.usage.update(*usage),
            Event::Ping => write_event(out, "ping", |_| {}),
            Event::Error(error) => write_stream_error(error, out),
            Event::End => self.end(out),
            _ => {}
        }
    }

    fn start(&mut self, id: &JsonStr<'_>, model: &JsonStr<'_>, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        write_event(out, "message_start", |w| {
            w.key("message").object(|w| {
                w.key("id");
                if id.is_empty() {
                    w.text(&format!("msg_{}", self.seed));
                } else {
                    w.str(id);
                }
                w.key("type").text("message");
                w.key("role").text("assistant");
                w.key("model").str(model);
                w.key("content").array(|_| {});
                w.key("stop_reason").null();
                w.key("stop_sequence").null();
                w.key("usage");
                write_usage(self.usage, w);
            });
        });
    }

    fn block_start(&mut self, block: &Block<'_>, out: &mut Vec<u8>) {
        self.open = match block {
            Block::Text | Block::Refusal => Open::Text,
            Block::Reasoning => Open::Thinking,
            Block::Hidden => Open::Hidden,
            Block::ToolCall { .. } => Open::Call,
            Block::Opaque(_) => Open::Nothing,
        };
        match (self.open, block) {
            (Open::Nothing | Open::Hidden, _) => {}
            (_, Block::ToolCall { id, name }) => self.announce(out, |w| {
                w.key("type").text("tool_use");
                w.key("id").str(id);
                w.key("name").str(name);
                w.key("input").object(|_| {});
            }),
            (Open::Thinking, _) => self.announce(out, |w| {
                w.key("type").text("thinking");
                w.key("thinking").text("");
                w.key("signature").text("");
            }),
            _ => self.announce(out, |w| {
                w.key("type").text("text");
                w.key("text").text("");
            }),
        }
    }

    fn announce(&self, out: &mut Vec<u8>, members: impl FnOnce(&mut Writer<'_>)) {
        write_event(out, "content_block_start", |w| {
            w.key("index").u64(self.index);
            w.key("content_block").object(members);
        });
    }

    fn delta(&self, text: &JsonStr<'_>, out: &mut Vec<u8>) {
        let (kind, member) = match self.open {
            Open::Text => ("text_delta", "text"),
            Open::Thinking => ("thinking_delta", "thinking"),
            Open::Call => ("input_json_delta", "partial_json"),
            Open::Nothing | Open::Hidden => return,
        };
        self.piece(kind, out, |w| w.key(member).str(text));
    }

    fn signature(&mut self, signature: &Signature<'_>, out: &mut Vec<u8>) {
        let data = signature.spelt(OWN);
        match self.open {
            Open::Thinking => self.piece("signature_delta", out, |w| w.key("signature").str(&data)),
            Open::Hidden => {
                self.announce(out, |w| {
                    w.key("type").text("redacted_thinking");
                    w.key("data").str(&data);
                });
                self.stop_block(out);
                self.open = Open::Nothing;
            }
            Open::Nothing | Open::Text | Open::Call => {}
        }
    }

    fn piece(&self, kind: &str, out: &mut Vec<u8>, members: impl FnOnce(&mut Writer<'_>)) {
        write_event(out, "content_block_delta", |w| {
            w.key("index").u64(self.index);
            w.key("delta").object(|w| {
                w.key("type").text(kind);
                members(w);
            });
        });
    }

    fn block_end(&mut self, out: &mut Vec<u8>) {
        if !matches!(self.open, Open::Nothing | Open::Hidden) {
            self.stop_block(out);
        }
        self.open = Open::Nothing;
    }

    fn stop_block(&mut self, out: &mut Vec<u8>) {
        let index = self.index;
        self.index += 1;
        write_event(out, "content_block_stop", |w| w.key("index").u64(index));
    }

    /// Why and how much come together, so they wait for each other.
    fn end(&mut self, out: &mut Vec<u8>) {
        self.start(&JsonStr::default(), &JsonStr::default(), out);
        let stop = self.stop.take().unwrap_or_else(|| members_of(&Stop::End));
        write_event(out, "message_delta", |w| {
            w.key("delta").raw(&String::from_utf8_lossy(&stop));
            w.key("usage");
            write_usage(self.usage, w);
        });
        write_event(out, "message_stop", |_| {});
    }
}

fn members_of(stop: &Stop<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    Writer::new(&mut out).object(|w| write_stop(stop, w));
    out
}

fn write_event(out: &mut Vec<u8>, name: &'static str, members: impl FnOnce(&mut Writer<'_>)) {
    write_sse(out, name, |w| {
        w.object(|w| {
            w.key("type").text(name);
            members(w);
        });
    });
}

fn write_stream_error(error: &ErrorMessage<'_>, out: &mut Vec<u8>) {
    write_sse(out, "error", |w| {
        write_error_as(200, error.kind.as_ref().or(error.code.as_ref()), error, w);
    });
}
