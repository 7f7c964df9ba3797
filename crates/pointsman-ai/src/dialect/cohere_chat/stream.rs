//! Streams.

use super::{read_citation, read_stop, read_usage, stop_word, write_citation, write_usage};
use crate::{
    Usage,
    conversation::{Block, ErrorMessage, Event, Stop},
    dialect::{self, Setting, write_sse},
    json::{string::JsonStr, tree::Node, write::Writer},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
    Plan,
    Call,
}

/// Reads Cohere's stream.
#[derive(Debug)]
pub(crate) struct StreamReader {
    model: String,
    started: bool,
    open: Option<Kind>,
    has_calls: bool,
    over: bool,
}

impl StreamReader {
    pub(in crate::dialect) fn new(setting: &Setting<'_>) -> Self {
        Self {
            model: setting.model.to_owned(),
            started: false,
            open: None,
            has_calls: false,
            over: false,
        }
    }

    pub(in crate::dialect) fn event(
        &mut self,
        _name: &[u8],
        data: &[u8],
        sink: &mut dyn FnMut(Event<'_>),
    ) {
        if self.over || data == b"[DONE]" {
            return;
        }
        let tree = match dialect::parse(data) {
            Ok(tree) => tree,
            Err(malformed) => return self.fail(&JsonStr::new(&malformed.to_string()), sink),
        };
        let root = tree.root();
        let delta = root.get("delta");
        let message = delta.and_then(|delta| delta.get("message"));
        let kind = root.get_str("type").unwrap_or_default();
        match &*kind.decode() {
            "message-start" => self.start(root.get_str("id"), sink),
            "content-start" | "content-delta" => {
                let content = message.and_then(|message| message.get("content"));
                self.content(&kind, content, sink);
            }
            "tool-plan-delta" => {
                let text = message.and_then(|message| message.get_str("tool_plan"));
                self.piece(Kind::Plan, text, sink);
            }
            "tool-call-start" => {
                self.call(message.and_then(|message| message.get("tool_calls")), sink);
            }
            "tool-call-delta" => {
                let call = message.and_then(|message| message.get("tool_calls"));
                let function = call.and_then(|call| call.get("function"));
                let text = function.and_then(|function| function.get_str("arguments"));
                if self.open == Some(Kind::Call)
                    && let Some(text) = text.filter(|text| !text.is_empty())
                {
                    sink(Event::Delta { choice: 0, text });
                }
            }
            "content-end" | "tool-call-end" => self.close(sink),
            "citation-start" => {
                let citation = message.and_then(|message| message.get("citations"));
                if let Some(citation) = citation {
                    self.ensure(Kind::Text, sink);
                    let citation = read_citation(citation);
                    sink(Event::Citation {
                        choice: 0,
                        citation,
                    });
                }
            }
            "message-end" => self.end(delta, sink),
            // An error that came instead of an event.
            "" if root.get("message").is_some_and(Node::is_string) => {
                self.fail(&root.get_str("message").unwrap_or_default(), sink);
            }
            _ => {}
        }
    }

    pub(in crate::dialect) fn finish(&mut self, sink: &mut dyn FnMut(Event<'_>)) {
        if !self.over {
            self.fail(&JsonStr::new("the stream ended without message-end"), sink);
        }
    }

    fn fail(&mut self, what: &JsonStr<'_>, sink: &mut dyn FnMut(Event<'_>)) {
        self.over = true;
        sink(Event::Error(ErrorMessage {
            message: what.clone(),
            ..ErrorMessage::default()
        }));
    }

    fn start(&mut self, id: Option<JsonStr<'_>>, sink: &mut dyn FnMut(Event<'_>)) {
        if !std::mem::replace(&mut self.started, true) {
            sink(Event::Start {
                id: id.unwrap_or_default(),
                model: JsonStr::new(&self.model),
                created: None,
                usage: None,
            });
        }
    }

    fn content(
        &mut self,
        event: &JsonStr<'_>,
        content: Option<Node<'_, '_>>,
        sink: &mut dyn FnMut(Event<'_>),
    ) {
        let Some(content) = content else {
            return;
        };
        let thinking = content.get_str("thinking");
        let is_thinking = thinking.is_some()
            || content
                .get("type")
                .is_some_and(|kind| kind.says("thinking"));
        let (kind, text) = if is_thinking {
            (Kind::Thinking, thinking)
        } else {
            (Kind::Text, content.get_str("text"))
        };
        if event.is("content-start") {
            self.close(sink);
            self.ensure(kind, sink);
        }
        self.piece(kind, text, sink);
    }

    fn piece(&mut self, kind: Kind, text: Option<JsonStr<'_>>, sink: &mut dyn FnMut(Event<'_>)) {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            self.ensure(kind, sink);
            sink(Event::Delta { choice: 0, text });
        }
    }

    fn ensure(&mut self, kind: Kind, sink: &mut dyn FnMut(Event<'_>)) {
        self.start(None, sink);
        if self.open == Some(kind) {
            return;
        }
        self.close(sink);
        self.open = Some(kind);
        let block = match kind {
            Kind::Text | Kind::Call => Block::Text,
            Kind::Thinking | Kind::Plan => Block::Reasoning,
        };
        sink(Event::BlockStart { choice: 0, block });
    }

    fn call(&mut self, call: Option<Node<'_, '_>>, sink: &mut dyn FnMut(Event<'_>)) {
        self.start(None, sink);
        self.close(sink);
        let Some(call) = call else {
            return;
        };
        self.open = Some(Kind::Call);
        self.has_calls = true;
        let function = call.get("function");
        let name = function.and_then(|function| function.get_str("name"));
        sink(Event::BlockStart {
            choice: 0,
            block: Block::ToolCall {
                id: call.get_str("id").unwrap_or_default(),
                name: name.unwrap_or_default(),
            },
        });
        let text = function.and_then(|function| function.get_str("arguments"));
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            sink(Event::Delta { choice: 0, text });
        }
    }

    fn close(&mut self, sink: &mut dyn FnMut(Event<'_>)) {
        if self.open.take().is_some() {
            sink(Event::BlockEnd { choice: 0 });
        }
    }

    fn end(&mut self, delta: Option<Node<'_, '_>>, sink: &mut dyn FnMut(Event<'_>)) {
        let word = delta.and_then(|delta| delta.get_str("finish_reason"));
        let word = word.unwrap_or_default();
        self.start(None, sink);
        if let Some(usage) = delta.and_then(|delta| delta.get("usage")) {
            sink(Event::Usage(read_usage(usage)));
        }
        let error = delta.and_then(|delta| delta.get_str("error"));
        if error.is_some() || word.is("ERROR") || word.is("TIMEOUT") {
            return self.fail(&error.unwrap_or(word), sink);
        }
        self.close(sink);
        self.over = true;
        let stop = read_stop(&word, self.has_calls);
        sink(Event::Stop { choice: 0, stop });
        sink(Event::End);
    }
}

/// Writes Cohere's stream.
#[derive(Debug)]
pub(crate) struct StreamWriter {
    seed: String,
    /// Of the next content or call; each kind counts for itself.
    contents: u64,
    calls: u64,
    citations: u64,
    open: Option<Kind>,
    stop: &'static str,
    usage: Usage,
}

impl StreamWriter {
    pub(in crate::dialect) fn new(setting: &Setting<'_>) -> Self {
        Self {
            seed: setting.seed.to_owned(),
            contents: 0,
            calls: 0,
            citations: 0,
            open: None,
            stop: stop_word(&Stop::End),
            usage: Usage::default(),
        }
    }

    pub(in crate::dialect) fn write(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        match event {
            Event::Start { id, usage, .. } => {
                self.usage = usage.unwrap_or_default();
                self.start(id, out);
            }
            Event::BlockStart { choice: 0, block } => self.block_start(block, out),
            Event::Delta { choice: 0, text } => self.delta(text, out),
            Event::BlockEnd { choice: 0 } => self.block_end(out),
            Event::Citation {
                choice: 0,
                citation,
            } => {
                let index = self.citations;
                self.citations += 1;
                indexed(out, "citation-start", index, |w| {
                    w.key("citations");
                    write_citation(citation, w);
                });
                write_event(out, "citation-end", |w| w.key("index").u64(index));
            }
            Event::Stop { choice: 0, stop } => self.stop = stop_word(stop),
            Event::Usage(usage) => self.usage.update(*usage),
            Event::Error(error) => self.end("ERROR", Some(error), out),
            Event::End => self.end(self.stop, None, out),
            _ => {}
        }
    }

    fn start(&self, id: &JsonStr<'_>, out: &mut Vec<u8>) {
        write_event(out, "message-start", |w| {
            w.key("id");
            if id.is_empty() {
                w.text(&self.seed);
            } else {
                w.str(id);
            }
            w.key("delta").object(|w| {
                w.key("message").object(|w| {
                    w.key("role").text("assistant");
                    w.key("content").array(|_| {});
                    w.key("tool_plan").text("");
                    w.key("tool_calls").array(|_| {});
                    w.key("citations").array(|_| {});
                });
            });
        });
    }

    fn block_start(&mut self, block: &Block<'_>, out: &mut Vec<u8>) {
        let kind = match block {
            Block::Text | Block::Refusal => Kind::Text,
            Block::Reasoning => Kind::Thinking,
            Block::ToolCall { .. } => Kind::Call,
            Block::Hidden | Block::Opaque(_) => {
                self.open = None;
                return;
            }
        };
        self.open = Some(kind);
        if let Block::ToolCall { id, name } = block {
            return indexed(out, "tool-call-start", self.calls, |w| {
                w.key("tool_calls").object(|w| {
                    w.key("id").str(id);
                    w.key("type").text("function");
                    w.key("function").object(|w| {
                        w.key("name").str(name);
                        w.key("arguments").text("");
                    });
                });
            });
        }
        let name = member_of(kind);
        indexed(out, "content-start", self.contents, |w| {
            w.key("content").object(|w| {
                w.key("type").text(name);
                w.key(name).text("");
            });
        });
    }

    fn delta(&self, text: &JsonStr<'_>, out: &mut Vec<u8>) {
        match self.open {
            None => {}
            Some(Kind::Call) => indexed(out, "tool-call-delta", self.calls, |w| {
                w.key("tool_calls").object(|w| {
                    w.key("function").object(|w| w.key("arguments").str(text));
                });
            }),
            Some(kind) => indexed(out, "content-delta", self.contents, |w| {
                w.key("content")
                    .object(|w| w.key(member_of(kind)).str(text));
            }),
        }
    }

    fn block_end(&mut self, out: &mut Vec<u8>) {
        let (name, count) = match self.open.take() {
            None => return,
            Some(Kind::Call) => ("tool-call-end", &mut self.calls),
            Some(_) => ("content-end", &mut self.contents),
        };
        let index = *count;
        *count += 1;
        write_event(out, name, |w| w.key("index").u64(index));
    }

    fn end(&self, word: &str, error: Option<&ErrorMessage<'_>>, out: &mut Vec<u8>) {
        write_event(out, "message-end", |w| {
            w.key("delta").object(|w| {
                w.key("finish_reason").text(word);
                if let Some(error) = error {
                    w.key("error").str(&error.message);
                }
                w.key("usage");
                write_usage(self.usage, w);
            });
        });
    }
}

fn member_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Thinking | Kind::Plan => "thinking",
        Kind::Text | Kind::Call => "text",
    }
}

fn write_event(out: &mut Vec<u8>, name: &'static str, members: impl FnOnce(&mut Writer<'_>)) {
    write_sse(out, name, |w| {
        w.object(|w| {
            w.key("type").text(name);
            members(w);
        });
    });
}

fn indexed(
    out: &mut Vec<u8>,
    name: &'static str,
    index: u64,
    message: impl FnOnce(&mut Writer<'_>),
) {
    write_event(out, name, |w| {
        w.key("index").u64(index);
        w.key("delta").object(|w| w.key("message").object(message));
    });
}
