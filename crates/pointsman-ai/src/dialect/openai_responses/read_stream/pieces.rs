//! The events of one item.

use super::{Item, Kind, Sink, StreamReader, Thoughts};
use crate::{
    conversation::{Block, Event, Part, Signature},
    dialect::openai_responses::{
        items,
        read_response::{Said, as_chat_has_them, tokens},
    },
    json::{string::JsonStr, tree::Node},
};

impl StreamReader {
    pub(super) fn take(&mut self, kind: &str, index: u64, root: Node<'_, '_>, sink: Sink<'_>) {
        let text = |name| root.get_str(name).unwrap_or_default();
        match kind {
            "response.output_text.delta" => {
                self.delta(index, Kind::Text, text("delta"), sink);
                self.logprobs(root, sink);
            }
            "response.function_call_arguments.delta" => {
                self.delta(index, Kind::Call, text("delta"), sink);
            }
            "response.reasoning_summary_text.delta" => {
                self.thought(index, Thoughts::Summary, text("delta"), sink);
            }
            "response.reasoning_text.delta" => {
                self.thought(index, Thoughts::Open, text("delta"), sink);
            }
            "response.refusal.delta" => self.delta(index, Kind::Refusal, text("delta"), sink),
            "response.output_text.done" => self.rest(index, Kind::Text, text("text"), sink),
            "response.refusal.done" => self.rest(index, Kind::Refusal, text("refusal"), sink),
            "response.function_call_arguments.done" => {
                self.rest(index, Kind::Call, text("arguments"), sink);
            }
            "response.reasoning_summary_part.added" => self.paragraph(sink),
            "response.output_text.annotation.added" => {
                if let Some(annotation) = root.get("annotation") {
                    self.ensure(index, Kind::Text, sink);
                    let citation = items::citation(annotation);
                    sink(Event::Citation {
                        choice: 0,
                        citation,
                    });
                }
            }
            "response.output_item.added" => self.item_added(index, root.get("item"), sink),
            "response.output_item.done" => self.item_done(index, root.get("item"), sink),
            "response.content_part.added" => {
                let part = root.get("part").and_then(|part| part.get_str("type"));
                let part = part.unwrap_or_default();
                let kinds = [("output_text", Kind::Text), ("refusal", Kind::Refusal)];
                if let Some((_, kind)) = kinds.iter().find(|(name, _)| part.is(name)) {
                    self.close_block(sink);
                    self.ensure(index, *kind, sink);
                }
            }
            "response.content_part.done" => {
                let block = self.open.as_ref().and_then(|item| item.block);
                if matches!(block, Some(Kind::Text | Kind::Refusal)) {
                    self.close_block(sink);
                }
            }
            _ => {}
        }
    }

    fn item(&mut self, index: u64) -> &mut Item {
        self.open.get_or_insert(Item {
            index,
            block: None,
            has_text: false,
            has_blocks: false,
            thoughts: None,
        })
    }

    /// Opens a block, unless one of that kind is open.
    fn ensure(&mut self, index: u64, kind: Kind, sink: Sink<'_>) {
        if self.item(index).block == Some(kind) {
            return;
        }
        let block = match kind {
            Kind::Text => Block::Text,
            Kind::Refusal => Block::Refusal,
            Kind::Reasoning => Block::Reasoning,
            // It begins with its item, which names it. Otherwise it comes whole when it is done.
            Kind::Call => return,
        };
        self.close_block(sink);
        self.open_block(index, kind, block, sink);
    }

    fn open_block(&mut self, index: u64, kind: Kind, block: Block<'_>, sink: Sink<'_>) {
        self.has_blocks = true;
        self.has_calls |= kind == Kind::Call;
        self.has_refusal |= kind == Kind::Refusal;
        let item = self.item(index);
        item.block = Some(kind);
        item.has_text = false;
        item.has_blocks = true;
        sink(Event::BlockStart { choice: 0, block });
    }

    fn close_block(&mut self, sink: Sink<'_>) {
        let block = self.open.as_mut().and_then(|item| item.block.take());
        if block.is_some() {
            sink(Event::BlockEnd { choice: 0 });
        }
    }

    pub(super) fn close_item(&mut self, sink: Sink<'_>) {
        self.close_block(sink);
        self.open = None;
    }

    fn delta(&mut self, index: u64, kind: Kind, text: JsonStr<'_>, sink: Sink<'_>) {
        self.ensure(index, kind, sink);
        if !text.is_empty() && self.item(index).block == Some(kind) {
            self.item(index).has_text = true;
            sink(Event::Delta { choice: 0, text });
        }
    }

    /// The whole text of a block: news only if no piece of it came.
    fn rest(&mut self, index: u64, kind: Kind, text: JsonStr<'_>, sink: Sink<'_>) {
        let item = self.item(index);
        let came = match item.block == Some(kind) {
            true => item.has_text,
            false => item.has_blocks,
        };
        if !text.is_empty() && !came {
            self.delta(index, kind, text, sink);
        }
    }

    fn thought(&mut self, index: u64, from: Thoughts, text: JsonStr<'_>, sink: Sink<'_>) {
        if *self.item(index).thoughts.get_or_insert(from) == from {
            self.delta(index, Kind::Reasoning, text, sink);
        }
    }

    /// Another paragraph of a summary begins.
    fn paragraph(&mut self, sink: Sink<'_>) {
        let open = self.open.as_ref();
        let goes_on = |item: &Item| {
            let is_summary = item.thoughts == Some(Thoughts::Summary);
            is_summary && item.block == Some(Kind::Reasoning) && item.has_text
        };
        if open.is_some_and(goes_on) {
            let text = JsonStr::spelt(items::BETWEEN_SUMMARIES);
            sink(Event::Delta { choice: 0, text });
        }
    }

    fn logprobs(&self, root: Node<'_, '_>, sink: Sink<'_>) {
        if let Some(tokens) = root.get("logprobs").and_then(tokens) {
            let json = as_chat_has_them(tokens);
            sink(Event::Logprobs { choice: 0, json });
        }
    }

    fn item_added(&mut self, index: u64, item: Option<Node<'_, '_>>, sink: Sink<'_>) {
        // Servers that count wrongly begin a second item under the same index.
        self.close_item(sink);
        self.item(index);
        let Some(item) = item.filter(|item| is(*item, "function_call")) else {
            return;
        };
        let call = items::call(item);
        let block = Block::ToolCall {
            id: call.id,
            name: call.name,
        };
        self.open_block(index, Kind::Call, block, sink);
    }

    fn item_done(&mut self, index: u64, item: Option<Node<'_, '_>>, sink: Sink<'_>) {
        let Some(item) = item else {
            return self.close_item(sink);
        };
        let open = self.item(index);
        let (block, has_text, has_blocks) = (open.block, open.has_text, open.has_blocks);
        if is(item, "reasoning") && block == Some(Kind::Reasoning) {
            if let Some(signature) = items::reasoning(item).signature {
                sink(Event::Signature {
                    choice: 0,
                    signature,
                });
            }
        } else if is(item, "function_call") && block == Some(Kind::Call) {
            let arguments = item.get_str("arguments").unwrap_or_default();
            if !has_text && !arguments.is_empty() {
                sink(Event::Delta {
                    choice: 0,
                    text: arguments,
                });
            }
        } else if !has_blocks {
            self.whole(item, sink);
        }
        self.close_item(sink);
    }

    /// An item of which nothing came before.
    pub(super) fn whole(&mut self, item: Node<'_, '_>, sink: Sink<'_>) {
        let mut said = Said::default();
        said.item(item);
        let mut logprobs = said.logprobs();
        for part in said.parts {
            self.has_blocks = true;
            match part {
                Part::Text(text) => {
                    pass(Block::Text, text.text, None, sink, |sink| {
                        if let Some(json) = logprobs.take() {
                            sink(Event::Logprobs { choice: 0, json });
                        }
                        for citation in text.citations {
                            sink(Event::Citation {
                                choice: 0,
                                citation,
                            });
                        }
                    });
                }
                Part::Refusal(text) => {
                    self.has_refusal = true;
                    pass(Block::Refusal, text, None, sink, |_| {});
                }
                Part::Reasoning(reasoning) => {
                    let block = match reasoning.is_hidden {
                        true => Block::Hidden,
                        false => Block::Reasoning,
                    };
                    pass(block, reasoning.text, reasoning.signature, sink, |_| {});
                }
                Part::ToolCall(call) => {
                    self.has_calls = true;
                    let block = Block::ToolCall {
                        id: call.id.clone(),
                        name: call.name.clone(),
                    };
                    pass(block, call.arguments.as_text(), None, sink, |_| {});
                }
                Part::Opaque(opaque) => {
                    pass(
                        Block::Opaque(opaque),
                        JsonStr::default(),
                        None,
                        sink,
                        |_| {},
                    );
                }
                _ => {}
            }
        }
    }
}

fn is(item: Node<'_, '_>, kind: &str) -> bool {
    item.get("type").is_some_and(|value| value.says(kind))
}

/// A block from its beginning to its end.
fn pass(
    block: Block<'_>,
    text: JsonStr<'_>,
    signature: Option<Signature<'_>>,
    sink: Sink<'_>,
    inside: impl FnOnce(Sink<'_>),
) {
    sink(Event::BlockStart { choice: 0, block });
    if !text.is_empty() {
        sink(Event::Delta { choice: 0, text });
    }
    if let Some(signature) = signature {
        sink(Event::Signature {
            choice: 0,
            signature,
        });
    }
    inside(sink);
    sink(Event::BlockEnd { choice: 0 });
}
