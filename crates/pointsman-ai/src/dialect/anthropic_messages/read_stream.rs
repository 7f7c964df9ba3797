//! Reading streams.

use super::{
    Counts, OWN,
    read_answer::{read_stop, read_tier},
    read_citation, read_error,
};
use crate::{
    conversation::{Block, ErrorMessage, Event, Opaque, Signature},
    dialect::{self, Setting},
    json::{string::JsonStr, tree::Node},
};

/// Reads Anthropic's stream.
#[derive(Debug, Default)]
pub(crate) struct StreamReader {
    started: bool,
    /// A block is open, and whether its deltas count.
    open: Option<bool>,
    counts: Counts,
    has_calls: bool,
    stopped: bool,
    over: bool,
}

impl StreamReader {
    pub(in crate::dialect) fn new(_setting: &Setting<'_>) -> Self {
        Self::default()
    }

    pub(in crate::dialect) fn event(
        &mut self,
        _name: &[u8],
        data: &[u8],
        sink: &mut dyn FnMut(Event<'_>),
    ) {
        if self.over || data.trim_ascii().is_empty() {
            return;
        }
        let tree = match dialect::parse(data) {
            Ok(tree) => tree,
            Err(malformed) => return self.fail(&malformed.to_string(), sink),
        };
        let root = tree.root();
        let kind = root.get_str("type").unwrap_or_default();
        match &*kind.decode() {
            "message_start" => self.start(root.get("message"), sink),
            // Nothing belongs to the answer behind its end.
            "content_block_start" if self.stopped => {}
            "content_block_start" => {
                if let Some(block) = root.get("content_block") {
                    self.block_start(block, sink);
                }
            }
            "content_block_delta" => {
                if let Some(delta) = root.get("delta")
                    && self.open == Some(true)
                {
                    piece(delta, sink);
                }
            }
            "content_block_stop" => self.close(sink),
            "message_delta" => self.message_delta(root, sink),
            "message_stop" => self.end(sink),
            "ping" => sink(Event::Ping),
            _ => {
                if let Some(error) = read_error(root) {
                    self.over = true;
                    sink(Event::Error(error));
                }
            }
        }
    }

    pub(in crate::dialect) fn finish(&mut self, sink: &mut dyn FnMut(Event<'_>)) {
        if !self.over {
            self.fail("the stream ended without message_stop", sink);
        }
    }

    fn fail(&mut self, what: &str, sink: &mut dyn FnMut(Event<'_>)) {
        self.over = true;
        sink(Event::Error(ErrorMessage {
            message: JsonStr::new(what),
            ..ErrorMessage::default()
        }));
    }

    fn start(&mut self, message: Option<Node<'_, '_>>, sink: &mut dyn FnMut(Event<'_>)) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        let text = |name| message.and_then(|message| message.get_str(name));
        let usage = message.and_then(|message| message.get("usage"));
        if let Some(usage) = usage {
            self.counts.update(usage);
        }
        sink(Event::Start {
            id: text("id").unwrap_or_default(),
            model: text("model").unwrap_or_default(),
            created: None,
            usage: usage.map(|_| self.counts.usage()),
        });
        if let Some(tier) = usage.and_then(read_tier) {
            sink(Event::Tier(tier));
        }
    }

    fn block_start(&mut self, node: Node<'_, '_>, sink: &mut dyn FnMut(Event<'_>)) {
        self.start(None, sink);
        self.close(sink);
        let kind = node.get_str("type").unwrap_or_default();
        let block = match &*kind.decode() {
            "text" => Block::Text,
            "thinking" => Block::Reasoning,
            "redacted_thinking" => Block::Hidden,
            "tool_use" => {
                self.has_calls = true;
                Block::ToolCall {
                    id: node.get_str("id").unwrap_or_default(),
                    name: node.get_str("name").unwrap_or_default(),
                }
            }
            _ => Block::Opaque(Opaque {
                protocol: OWN,
                kind: kind.clone(),
                json: node.raw().into(),
            }),
        };
        self.open = Some(!matches!(block, Block::Opaque(_)));
        sink(Event::BlockStart { choice: 0, block });
        let first = node.get_str("text").or_else(|| node.get_str("thinking"));
        if let Some(text) = first.filter(|text| !text.is_empty() && self.open == Some(true)) {
            sink(Event::Delta { choice: 0, text });
        }
        if let Some(data) = node
            .get_str("data")
            .filter(|_| kind.is("redacted_thinking"))
        {
            let signature = Signature::read(OWN, data);
            sink(Event::Signature {
                choice: 0,
                signature,
            });
        }
    }

    fn close(&mut self, sink: &mut dyn FnMut(Event<'_>)) {
        if self.open.take().is_some() {
            sink(Event::BlockEnd { choice: 0 });
        }
    }

    fn message_delta(&mut self, root: Node<'_, '_>, sink: &mut dyn FnMut(Event<'_>)) {
        self.start(None, sink);
        if let Some(usage) = root.get("usage") {
            self.counts.update(usage);
            sink(Event::Usage(self.counts.usage()));
        }
        let delta = root.get("delta");
        if let Some(delta) = delta.filter(|delta| delta.get("stop_reason").is_some())
            && !std::mem::replace(&mut self.stopped, true)
        {
            self.close(sink);
            let stop = read_stop(delta, self.has_calls);
            sink(Event::Stop { choice: 0, stop });
        }
    }

    fn end(&mut self, sink: &mut dyn FnMut(Event<'_>)) {
        if !self.stopped {
            return self.fail("the stream ended without a stop_reason", sink);
        }
        self.over = true;
        sink(Event::End);
    }
}

/// More of the open block.
fn piece(delta: Node<'_, '_>, sink: &mut dyn FnMut(Event<'_>)) {
    let kind = delta.get_str("type").unwrap_or_default();
    let text = match &*kind.decode() {
        "text_delta" => delta.get_str("text"),
        "thinking_delta" => delta.get_str("thinking"),
        "input_json_delta" => delta.get_str("partial_json"),
        "signature_delta" => {
            let data = delta.get_str("signature").filter(|data| !data.is_empty());
            if let Some(data) = data {
                let signature = Signature::read(OWN, data);
                sink(Event::Signature {
                    choice: 0,
                    signature,
                });
            }
            return;
        }
        "citations_delta" => {
            if let Some(citation) = delta.get("citation") {
                let citation = read_citation(citation);
                sink(Event::Citation {
                    choice: 0,
                    citation,
                });
            }
            return;
        }
        _ => None,
    };
    if let Some(text) = text.filter(|text| !text.is_empty()) {
        sink(Event::Delta { choice: 0, text });
    }
}
