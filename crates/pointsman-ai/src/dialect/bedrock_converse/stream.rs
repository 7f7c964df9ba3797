//! Streams. Framing is elsewhere: see [`crate::stream`].

use super::{
    exception_of,
    read::{read_stop, read_tier, read_usage},
    write::{stop_word, write_tier, write_usage},
};
use crate::{
    Protocol, Usage,
    conversation::{Block, Citation, ErrorMessage, Event, Signature, Stop},
    dialect::{self, Setting},
    json::{string::JsonStr, tree::Node, write::Writer},
    stream::aws,
};

const OWN: Protocol = Protocol::BedrockConverse;

/// Reads Bedrock's stream.
#[derive(Debug)]
pub(crate) struct StreamReader {
    model: String,
    started: bool,
    /// The kind of the open block.
    open: Option<Kind>,
    has_calls: bool,
    stopped: bool,
    over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Reasoning,
    Hidden,
    Call,
}

impl StreamReader {
    pub(in crate::dialect) fn new(setting: &Setting<'_>) -> Self {
        Self {
            model: setting.model.to_owned(),
            started: false,
            open: None,
            has_calls: false,
            stopped: false,
            over: false,
        }
    }

    pub(in crate::dialect) fn event(
        &mut self,
        name: &[u8],
        data: &[u8],
        sink: &mut dyn FnMut(Event<'_>),
    ) {
        if self.over {
            return;
        }
        let tree = match dialect::parse(data) {
            Ok(tree) => tree,
            Err(malformed) => return self.fail(&malformed.to_string(), sink),
        };
        let root = tree.root();
        if let Some(exception) = name.strip_prefix(b"!") {
            self.over = true;
            let kind = String::from_utf8_lossy(exception);
            return sink(Event::Error(ErrorMessage {
                kind: Some(JsonStr::new(&kind)),
                message: root.get_str("message").unwrap_or_default(),
                ..ErrorMessage::default()
            }));
        }
        match name {
            b"messageStart" => self.start(sink),
            // Nothing belongs to the answer behind its end.
            b"contentBlockStart" | b"contentBlockDelta" | b"messageStop" if self.stopped => {}
            b"contentBlockStart" => self.block_start(root, sink),
            b"contentBlockDelta" => self.delta(root, sink),
            b"contentBlockStop" => self.close(sink),
            b"messageStop" => {
                self.start(sink);
                self.close(sink);
                self.stopped = true;
                let word = root.get_str("stopReason").unwrap_or_default();
                let stop = read_stop(&word, self.has_calls);
                sink(Event::Stop { choice: 0, stop });
            }
            b"metadata" => {
                if let Some(usage) = root.get("usage") {
                    self.start(sink);
                    sink(Event::Usage(read_usage(usage)));
                }
                if let Some(tier) = read_tier(root) {
                    self.start(sink);
                    sink(Event::Tier(tier));
                }
                if self.stopped {
                    self.over = true;
                    sink(Event::End);
                }
            }
            _ => {}
        }
    }

    pub(in crate::dialect) fn finish(&mut self, sink: &mut dyn FnMut(Event<'_>)) {
        if self.over {
            return;
        }
        if self.stopped {
            self.over = true;
            return sink(Event::End);
        }
        self.fail("the stream ended without messageStop", sink);
    }

    fn fail(&mut self, what: &str, sink: &mut dyn FnMut(Event<'_>)) {
        self.over = true;
        sink(Event::Error(ErrorMessage {
            message: JsonStr::new(what),
            ..ErrorMessage::default()
        }));
    }

    fn start(&mut self, sink: &mut dyn FnMut(Event<'_>)) {
        if !std::mem::replace(&mut self.started, true) {
            sink(Event::Start {
                id: JsonStr::default(),
                model: JsonStr::new(&self.model),
                created: None,
                usage: None,
            });
        }
    }

    fn block_start(&mut self, root: Node<'_, '_>, sink: &mut dyn FnMut(Event<'_>)) {
        self.start(sink);
        self.close(sink);
        let Some(call) = root.get("start").and_then(|start| start.get("toolUse")) else {
            return;
        };
        self.has_calls = true;
        self.open = Some(Kind::Call);
        sink(Event::BlockStart {
            choice: 0,
            block: Block::ToolCall {
                id: call.get_str("toolUseId").unwrap_or_default(),
                name: call.get_str("name").unwrap_or_default(),
            },
        });
    }

    fn delta(&mut self, root: Node<'_, '_>, sink: &mut dyn FnMut(Event<'_>)) {
        let Some(delta) = root.get("delta") else {
            return;
        };
        if let Some(text) = delta.get_str("text") {
            self.ensure(Kind::Text, sink);
            sink(Event::Delta { choice: 0, text });
        } else if let Some(call) = delta.get("toolUse") {
            if self.open == Some(Kind::Call)
                && let Some(text) = call.get_str("input")
            {
                sink(Event::Delta { choice: 0, text });
            }
        } else if let Some(citation) = delta.get("citation") {
            self.ensure(Kind::Text, sink);
            let citation = read_citation(citation);
            sink(Event::Citation {
                choice: 0,
                citation,
            });
        } else if let Some(reasoning) = delta.get("reasoningContent") {
            let hidden = reasoning.get_str("redactedContent");
            let (kind, data) = match hidden {
                Some(hidden) => (Kind::Hidden, Some(hidden)),
                None => (Kind::Reasoning, reasoning.get_str("signature")),
            };
            self.ensure(kind, sink);
            if let Some(text) = reasoning.get_str("text") {
                sink(Event::Delta { choice: 0, text });
            }
            if let Some(data) = data.filter(|data| !data.is_empty()) {
                let signature = match kind {
                    Kind::Hidden => Signature::read_bytes(OWN, data),
                    _ => Signature::read(OWN, data),
                };
                sink(Event::Signature {
                    choice: 0,
                    signature,
                });
            }
        }
    }

    /// Only calls are announced; other blocks begin with their first piece.
    fn ensure(&mut self, kind: Kind, sink: &mut dyn FnMut(Event<'_>)) {
        self.start(sink);
        if self.open == Some(kind) {
            return;
        }
        self.close(sink);
        self.open = Some(kind);
        let block = match kind {
            Kind::Reasoning => Block::Reasoning,
            Kind::Hidden => Block::Hidden,
            Kind::Text | Kind::Call => Block::Text,
        };
        sink(Event::BlockStart { choice: 0, block });
    }

    fn close(&mut self, sink: &mut dyn FnMut(Event<'_>)) {
        if self.open.take().is_some() {
            sink(Event::BlockEnd { choice: 0 });
        }
    }
}

/// The sources of a piece of text.
pub(super) fn read_citations<'a>(cited: Node<'_, 'a>) -> Vec<Citation<'a>> {
    let list = cited.get("citations").into_iter().flat_map(Node::items);
    list.map(read_citation).collect()
}

fn read_citation<'a>(citation: Node<'_, 'a>) -> Citation<'a> {
    let source = citation.get("sourceContent");
    let quote = source.and_then(|source| source.items().next()?.get_str("text"));
    let web = citation
        .get("location")
        .and_then(|location| location.get("web"));
    Citation {
        url: web.and_then(|web| web.get_str("url")),
        title: citation.get_str("title"),
        quote,
        span: None,
        native: Some((OWN, citation.raw().into())),
    }
}

/// Writes Bedrock's stream.
#[derive(Debug)]
pub(crate) struct StreamWriter {
    index: u64,
    open: Option<Kind>,
    usage: Usage,
    tier: Option<JsonStr<'static>>,
}

impl StreamWriter {
    pub(in crate::dialect) fn new(_setting: &Setting<'_>) -> Self {
        Self {
            index: 0,
            open: None,
            usage: Usage::default(),
            tier: None,
        }
    }

    pub(in crate::dialect) fn write(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        match event {
            Event::Start { usage, .. } => {
                self.usage = usage.unwrap_or_default();
                frame(out, "messageStart", |w| w.key("role").text("assistant"));
            }
            Event::BlockStart { choice: 0, block } => self.block_start(block, out),
            Event::Delta { choice: 0, text } => self.delta(text, out),
            Event::Signature {
                choice: 0,
                signature,
            } => self.signature(signature, out),
            Event::BlockEnd { choice: 0 } => self.block_end(out),
            Event::Stop { choice: 0, stop } => write_stop(stop, out),
            Event::Usage(usage) => self.usage.update(*usage),
            Event::Tier(tier) => self.tier = Some(tier.clone().into_owned()),
            Event::Error(error) => write_exception(error, out),
            Event::End => {
                let usage = self.usage;
                frame(out, "metadata", |w| {
                    w.key("usage");
                    write_usage(usage, w);
                    w.key("metrics").object(|w| w.key("latencyMs").u64(0));
                    write_tier(self.tier.as_ref(), w);
                });
            }
            _ => {}
        }
    }

    fn block_start(&mut self, block: &Block<'_>, out: &mut Vec<u8>) {
        let index = self.index;
        self.open = match block {
            Block::Text | Block::Refusal => Some(Kind::Text),
            Block::Reasoning => Some(Kind::Reasoning),
            Block::Hidden => Some(Kind::Hidden),
            Block::ToolCall { id, name } => {
                frame(out, "contentBlockStart", |w| {
                    w.key("start").object(|w| {
                        w.key("toolUse").object(|w| {
                            w.key("toolUseId").str(id);
                            w.key("name").str(name);
                        });
                    });
                    w.key("contentBlockIndex").u64(index);
                });
                Some(Kind::Call)
            }
            Block::Opaque(_) => None,
        };
    }

    fn block_end(&mut self, out: &mut Vec<u8>) {
        if self.open.take().is_some() {
            let index = self.index;
            self.index += 1;
            frame(out, "contentBlockStop", |w| {
                w.key("contentBlockIndex").u64(index);
            });
        }
    }

    fn delta(&self, text: &JsonStr<'_>, out: &mut Vec<u8>) {
        let Some(kind) = self.open else {
            return;
        };
        self.piece(out, |w| match kind {
            Kind::Text => w.key("text").str(text),
            Kind::Call => w.key("toolUse").object(|w| w.key("input").str(text)),
            Kind::Reasoning | Kind::Hidden => {
                w.key("reasoningContent")
                    .object(|w| w.key("text").str(text));
            }
        });
    }

    fn signature(&self, signature: &Signature<'_>, out: &mut Vec<u8>) {
        let (name, data) = match self.open {
            Some(Kind::Reasoning) => ("signature", signature.spelt(OWN)),
            Some(Kind::Hidden) => ("redactedContent", signature.spelt_bytes(OWN)),
            _ => return,
        };
        self.piece(out, |w| {
            w.key("reasoningContent").object(|w| w.key(name).str(&data));
        });
    }

    fn piece(&self, out: &mut Vec<u8>, delta: impl FnOnce(&mut Writer<'_>)) {
        frame(out, "contentBlockDelta", |w| {
            w.key("delta").object(delta);
            w.key("contentBlockIndex").u64(self.index);
        });
    }
}

fn write_stop(stop: &Stop<'_>, out: &mut Vec<u8>) {
    frame(out, "messageStop", |w| {
        w.key("stopReason").text(stop_word(stop))
    });
}

fn write_exception(error: &ErrorMessage<'_>, out: &mut Vec<u8>) {
    let kind = error.kind.as_ref().map(|kind| kind.decode().to_lowercase());
    let is = |needle: &str| kind.as_ref().is_some_and(|kind| kind.contains(needle));
    let status = if is("rate_limit") || is("throttl") || is("exhausted") {
        429
    } else if is("overloaded") || is("unavailable") {
        503
    } else {
        500
    };
    let name = match status {
        500 => "modelStreamErrorException".to_owned(),
        _ => {
            let name = exception_of(status);
            name[..1].to_lowercase() + &name[1..]
        }
    };
    aws::write_exception(out, &name, |out| {
        Writer::new(out).object(|w| w.key("message").str(&error.message));
    });
}

fn frame(out: &mut Vec<u8>, name: &str, members: impl FnOnce(&mut Writer<'_>)) {
    aws::write_event(out, name, |out| Writer::new(out).object(members));
}
