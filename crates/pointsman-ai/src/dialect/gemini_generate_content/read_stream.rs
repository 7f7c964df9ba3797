//! A provider's stream: whole responses, each with the next pieces of the answer.
//!
//! There is no event that ends it. It is complete if every candidate has said why it ended by the
//! time that the bytes end; what belongs to the whole may follow behind that, such as usage.

use std::collections::BTreeSet;

use super::{
    citations::{Placed, read_citations},
    error::read_error,
    fields, invented_id,
    logprobs::read_logprobs,
    offsets::Offsets,
    read_part::{Data, RawPart, opaque, read_call},
    read_response::{is_blocked, read_served_tier},
    read_stop, read_usage,
};
use crate::{
    Usage,
    conversation::{
        Block, Citation, ErrorMessage, Event, Json, Malformed, Signature, Stop, ToldTier,
    },
    dialect::{Setting, parse},
    json::{string::JsonStr, tree::Node},
};

/// Reads a provider's stream.
#[derive(Debug)]
pub(crate) struct StreamReader {
    seed: String,
    has_started: bool,
    is_over: bool,
    calls: usize,
    usage: Usage,
    tier: ToldTier,
    choices: Vec<Choice>,
}

/// One candidate.
#[derive(Debug, Default)]
struct Choice {
    index: u32,
    open: Option<Open>,
    has_calls: bool,
    has_stopped: bool,
    /// Its text up to now, for places that are stated in bytes of it.
    text: Offsets,
    /// Bytes of the text in front of the open block.
    block_start: usize,
    text_bytes: usize,
    /// Sources that were told: a later chunk may repeat those of earlier ones.
    told: BTreeSet<(String, Option<(usize, usize)>)>,
}

/// Blocks that go on from chunk to chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Text,
    Reasoning,
}

type Sink<'s> = dyn FnMut(Event<'_>) + 's;

impl StreamReader {
    pub(in crate::dialect) fn new(setting: &Setting<'_>) -> Self {
        Self {
            seed: setting.seed.to_owned(),
            has_started: false,
            is_over: false,
            calls: 0,
            usage: Usage::default(),
            tier: ToldTier::default(),
            choices: Vec::new(),
        }
    }

    /// Takes the data of a chunk.
    pub(in crate::dialect) fn event(&mut self, _name: &[u8], data: &[u8], sink: &mut Sink<'_>) {
        if self.is_over {
            return;
        }
        let read = parse(data).and_then(|tree| self.chunk(tree.root(), sink));
        if let Err(malformed) = read {
            let what = format!("the provider's stream is malformed: {malformed}");
            self.fail(error(what), sink);
        }
    }

    /// The bytes have ended.
    pub(in crate::dialect) fn finish(&mut self, sink: &mut Sink<'_>) {
        if self.is_over {
            return;
        }
        let has_stopped = self.choices.iter().all(|choice| choice.has_stopped);
        if self.choices.is_empty() || !has_stopped {
            let what = "the provider's stream ended before the answer did";
            return self.fail(error(what.to_owned()), sink);
        }
        self.is_over = true;
        sink(Event::End);
    }

    fn fail(&mut self, error: ErrorMessage<'_>, sink: &mut Sink<'_>) {
        self.is_over = true;
        sink(Event::Error(error));
    }

    fn chunk(&mut self, root: Node<'_, '_>, sink: &mut Sink<'_>) -> Result<(), Malformed> {
        if let Some(error) = read_error(root) {
            self.fail(error, sink);
            return Ok(());
        }
        let names = [
            "candidates",
            "promptFeedback",
            "usageMetadata",
            "modelVersion",
            "responseId",
        ];
        let [candidates, feedback, usage, model, id] =
            fields(super::object(root)?, names, |_, _| {});
        let tier = usage.and_then(read_served_tier);
        let usage = usage.map(read_usage);
        self.start(model, id, usage, sink);
        if let Some(usage) = usage.filter(|usage| *usage != self.usage) {
            self.usage = usage;
            sink(Event::Usage(usage));
        }
        if let Some(event) = self.tier.news(tier) {
            sink(event);
        }
        for candidate in candidates.into_iter().flat_map(Node::items) {
            self.candidate(candidate, sink)?;
        }
        if self.choices.is_empty() && feedback.is_some_and(is_blocked) {
            self.choice(0)?.stop(Stop::ContentFilter, sink);
        }
        Ok(())
    }

    fn start(
        &mut self,
        model: Option<Node<'_, '_>>,
        id: Option<Node<'_, '_>>,
        usage: Option<Usage>,
        sink: &mut Sink<'_>,
    ) {
        if self.has_started {
            return;
        }
        self.has_started = true;
        sink(Event::Start {
            id: id.and_then(Node::str).unwrap_or_default(),
            model: model.and_then(Node::str).unwrap_or_default(),
            created: None,
            usage,
        });
    }

    fn choice(&mut self, index: u64) -> Result<&mut Choice, Malformed> {
        let known = self
            .choices
            .iter()
            .position(|choice| u64::from(choice.index) == index);
        let at = known.unwrap_or(self.choices.len());
        if known.is_none() {
            if at == CANDIDATES_MAX {
                return Err(Malformed {
                    path: "candidates".to_owned(),
                    what: format!("there are more than {CANDIDATES_MAX} of them"),
                });
            }
            self.choices.push(Choice {
                index: u32::try_from(index).unwrap_or(u32::MAX),
                ..Choice::default()
            });
        }
        Ok(&mut self.choices[at])
    }

    fn candidate(&mut self, node: Node<'_, '_>, sink: &mut Sink<'_>) -> Result<(), Malformed> {
        let names = [
            "index",
            "content",
            "finishReason",
            "groundingMetadata",
            "citationMetadata",
            "logprobsResult",
        ];
        let [index, content, reason, grounding, quotes, logprobs] = fields(node, names, |_, _| {});
        let (seed, mut calls) = (std::mem::take(&mut self.seed), self.calls);
        let index = index.and_then(Node::u64).unwrap_or_default();
        let choice = self.choice(index);
        let read = choice.and_then(|choice| {
            if choice.has_stopped {
                return Ok(());
            }
            let parts = content.and_then(|content| super::field(content, "parts"));
            for part in parts.into_iter().flat_map(Node::items) {
                let id = || {
                    calls += 1;
                    invented_id(&seed, calls - 1)
                };
                choice.part(part, id, sink)?;
            }
            if let Some(json) = logprobs.and_then(read_logprobs) {
                let (choice, json) = (choice.index, Json::Owned(json));
                sink(Event::Logprobs { choice, json });
            }
            read_citations(grounding, quotes, |placed| choice.cite(placed, sink));
            if let Some(reason) = reason.and_then(Node::str) {
                let stop = read_stop(&reason, choice.has_calls);
                choice.stop(stop, sink);
            }
            Ok(())
        });
        (self.seed, self.calls) = (seed, calls);
        read
    }
}

impl Choice {
    fn part<'a>(
        &mut self,
        node: Node<'_, 'a>,
        id: impl FnOnce() -> JsonStr<'a>,
        sink: &mut Sink<'_>,
    ) -> Result<(), Malformed> {
        let part = RawPart::read(node)?;
        match part.data {
            Data::Text(text) => {
                let block = match part.is_thought {
                    true => Open::Reasoning,
                    false => Open::Text,
                };
                self.text(text, block, part.signature, sink);
            }
            Data::Call(call) => {
                let call = read_call(call, part.signature, id)?;
                self.has_calls = true;
                let block = Block::ToolCall {
                    id: call.id,
                    name: call.name,
                };
                let text = call.arguments.as_text();
                self.whole(block, Some(text), call.signature, sink);
            }
            Data::Nothing => match part.signature {
                Some(signature) => self.whole(Block::Hidden, None, Some(signature), sink),
                None => sink(Event::Ping),
            },
            Data::Inline(_) => {
                let block = Block::Opaque(opaque(JsonStr::new("inlineData"), node));
                self.whole(block, None, None, sink);
            }
            Data::File(_) => {
                let block = Block::Opaque(opaque(JsonStr::new("fileData"), node));
                self.whole(block, None, None, sink);
            }
            Data::Result(_) => {
                let block = Block::Opaque(opaque(JsonStr::new("functionResponse"), node));
                self.whole(block, None, None, sink);
            }
            Data::Other(kind) => {
                self.whole(Block::Opaque(opaque(kind, node)), None, None, sink);
            }
        }
        Ok(())
    }

    /// Text or thoughts, which may go on in the next chunk. A signature at a thought belongs to it
    /// and ends it; one at a text has no place there and becomes a block of its own.
    fn text(
        &mut self,
        text: JsonStr<'_>,
        block: Open,
        signature: Option<Signature<'_>>,
        sink: &mut Sink<'_>,
    ) {
        let choice = self.index;
        let is_thought = block == Open::Reasoning;
        if !text.is_empty() || is_thought && signature.is_some() {
            self.go_on(block, sink);
        }
        if !text.is_empty() {
            if !is_thought {
                let text = text.decode();
                self.text_bytes += text.len();
                self.text.push(&text);
            }
            sink(Event::Delta { choice, text });
        }
        match signature {
            Some(signature) if is_thought => {
                sink(Event::Signature { choice, signature });
                self.close(sink);
            }
            Some(signature) => self.whole(Block::Hidden, None, Some(signature), sink),
            None => {}
        }
    }

    /// A block that comes in one piece.
    fn whole(
        &mut self,
        block: Block<'_>,
        text: Option<JsonStr<'_>>,
        signature: Option<Signature<'_>>,
        sink: &mut Sink<'_>,
    ) {
        self.close(sink);
        let choice = self.index;
        sink(Event::BlockStart { choice, block });
        // Some clients get it before what it belongs to.
        if let Some(signature) = signature {
            sink(Event::Signature { choice, signature });
        }
        if let Some(text) = text {
            sink(Event::Delta { choice, text });
        }
        sink(Event::BlockEnd { choice });
    }

    /// Opens a block, unless one of that kind is open.
    fn go_on(&mut self, block: Open, sink: &mut Sink<'_>) {
        if self.open == Some(block) {
            return;
        }
        self.close(sink);
        self.open = Some(block);
        self.block_start = self.text_bytes;
        let kind = match block {
            Open::Text => Block::Text,
            Open::Reasoning => Block::Reasoning,
        };
        sink(Event::BlockStart {
            choice: self.index,
            block: kind,
        });
    }

    fn close(&mut self, sink: &mut Sink<'_>) {
        if self.open.take().is_some() {
            sink(Event::BlockEnd { choice: self.index });
        }
    }

    fn cite(&mut self, placed: Placed<'_>, sink: &mut Sink<'_>) {
        let Placed {
            bytes,
            mut citation,
            ..
        } = placed;
        let key = source_of(&citation);
        if self.told.len() == SOURCES_MAX || !self.told.insert((key, bytes)) {
            return;
        }
        self.go_on(Open::Text, sink);
        citation.span = bytes.and_then(|(start, end)| {
            let before = self.text.chars_before(self.block_start)?;
            let start = self.text.chars_before(start)?.checked_sub(before)?;
            let end = self.text.chars_before(end)?.checked_sub(before)?;
            Some((start as u64, end as u64))
        });
        sink(Event::Citation {
            choice: self.index,
            citation,
        });
    }

    fn stop(&mut self, stop: Stop<'_>, sink: &mut Sink<'_>) {
        self.close(sink);
        self.has_stopped = true;
        sink(Event::Stop {
            choice: self.index,
            stop,
        });
    }
}

/// What tells a source from others.
fn source_of(citation: &Citation<'_>) -> String {
    let parts = [&citation.url, &citation.title, &citation.quote];
    let parts = parts.map(|part| part.as_ref().map(JsonStr::decode).unwrap_or_default());
    parts.join("\n")
}

fn error(what: String) -> ErrorMessage<'static> {
    ErrorMessage {
        message: JsonStr::from(what),
        ..ErrorMessage::default()
    }
}

/// More candidates than any model gives: Gemini's limit is 8.
const CANDIDATES_MAX: usize = 16;
/// More sources than any answer has; the rest is left out.
const SOURCES_MAX: usize = 4096;
