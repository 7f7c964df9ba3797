//! A stream to a client: whole responses, each with the next pieces of the answer.
//!
//! Calls come in one piece, as Gemini sends them. Why the answer ended is held back until all is
//! known that belongs to it, because official clients take sources and usage from the last chunk.

use super::{
    OWN,
    citations::{Source, write_grounding},
    error::write_error,
    finish_reason,
    logprobs::write_logprobs,
    offsets::Offsets,
    write_part::{write_call, write_text, write_thought},
    write_response::write_metadata,
};
use crate::{
    Usage,
    conversation::{Arguments, Block, Citation, Event, Signature, Stop, ToolCall},
    dialect::Setting,
    json::{string::JsonStr, write::Writer},
    stream::json_array,
};

/// Writes a stream to a client.
#[derive(Debug)]
pub(crate) struct StreamWriter {
    framing: Framing,
    model: JsonStr<'static>,
    id: JsonStr<'static>,
    usage: Option<Usage>,
    tier: Option<JsonStr<'static>>,
    choices: Vec<Choice>,
    is_over: bool,
}

/// What stands between chunks.
#[derive(Debug)]
enum Framing {
    /// `alt=sse`.
    Sse,
    /// Without it: one JSON array.
    Array(json_array::Encoder),
}

/// One candidate.
#[derive(Debug, Default)]
struct Choice {
    index: u32,
    open: Open,
    /// Its text up to now, for places in it.
    text: Offsets,
    /// Characters of the text in front of the open block.
    block_start: usize,
    sources: Vec<(Citation<'static>, Option<(usize, usize)>)>,
    end: Option<(&'static str, Option<JsonStr<'static>>)>,
}

/// The block that is open.
#[derive(Debug, Default)]
enum Open {
    #[default]
    Nothing,
    Text,
    Reasoning,
    Hidden,
    Call(ToolCall<'static>),
}

impl StreamWriter {
    pub(in crate::dialect) fn new(setting: &Setting<'_>) -> Self {
        Self {
            framing: Framing::Sse,
            model: JsonStr::from(setting.model.to_owned()),
            id: JsonStr::from(setting.seed.to_owned()),
            usage: None,
            tier: None,
            choices: Vec::new(),
            is_over: false,
        }
    }

    /// The same as one JSON array, for a client that did not ask for `alt=sse`.
    pub(in crate::dialect) fn json_array(self) -> Self {
        Self {
            framing: Framing::Array(json_array::Encoder::default()),
            ..self
        }
    }

    /// Appends what `event` becomes.
    pub(in crate::dialect) fn write(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        if self.is_over {
            return;
        }
        match event {
            Event::Start {
                id, model, usage, ..
            } => self.start(id, model, *usage),
            Event::BlockStart { choice, block } => self.block_start(*choice, block, out),
            Event::Delta { choice, text } => self.delta(*choice, text, out),
            Event::Signature { choice, signature } => self.signature(*choice, signature, out),
            Event::Citation { choice, citation } => self.choice(*choice).cite(citation),
            Event::Logprobs { choice, json } => {
                self.candidate(*choice, out, |w| {
                    write_logprobs(json, w.key("logprobsResult"));
                });
            }
            Event::BlockEnd { choice } => self.block_end(*choice, out),
            Event::Stop { choice, stop } => self.stop(*choice, stop, out),
            Event::Usage(usage) => self.usage(*usage),
            Event::Tier(tier) => self.tier = Some(tier.clone().into_owned()),
            Event::Ping => {}
            Event::Error(error) => {
                self.framing.error(out, |w| write_error(0, error, w));
                self.end(out);
            }
            Event::End => {
                self.last_chunk(out);
                self.end(out);
            }
        }
    }

    fn start(&mut self, id: &JsonStr<'_>, model: &JsonStr<'_>, usage: Option<Usage>) {
        if !id.is_empty() {
            self.id = id.clone().into_owned();
        }
        if !model.is_empty() {
            self.model = model.clone().into_owned();
        }
        if let Some(usage) = usage {
            self.usage(usage);
        }
    }

    fn usage(&mut self, usage: Usage) {
        self.usage.get_or_insert_default().update(usage);
    }

    fn choice(&mut self, index: u32) -> &mut Choice {
        let known = self.choices.iter().position(|choice| choice.index == index);
        let at = known.unwrap_or(self.choices.len());
        if known.is_none() {
            self.choices.push(Choice {
                index,
                ..Choice::default()
            });
        }
        &mut self.choices[at]
    }

    fn block_start(&mut self, index: u32, block: &Block<'_>, out: &mut Vec<u8>) {
        self.block_end(index, out);
        let choice = self.choice(index);
        choice.open = match block {
            Block::Text | Block::Refusal => {
                choice.block_start = choice.text.chars();
                Open::Text
            }
            Block::Reasoning => Open::Reasoning,
            Block::Hidden => Open::Hidden,
            Block::ToolCall { id, name } => Open::Call(ToolCall {
                id: id.clone().into_owned(),
                name: name.clone().into_owned(),
                arguments: Arguments::Text(JsonStr::default()),
                signature: None,
                cache: None,
            }),
            Block::Opaque(opaque) if opaque.protocol == OWN => {
                return self.part(index, out, |w| w.raw(&opaque.json));
            }
            Block::Opaque(_) => Open::Nothing,
        };
    }

    fn delta(&mut self, index: u32, text: &JsonStr<'_>, out: &mut Vec<u8>) {
        let choice = self.choice(index);
        let is_thought = match &mut choice.open {
            Open::Call(call) => {
                if let Arguments::Text(arguments) = &mut call.arguments {
                    arguments.push(text);
                }
                return;
            }
            Open::Hidden | Open::Nothing => return,
            Open::Text => false,
            Open::Reasoning => true,
        };
        if is_thought {
            return self.part(index, out, |w| write_thought(text, false, None, w));
        }
        choice.text.push(&text.decode());
        self.part(index, out, |w| write_text(text, w));
    }

    fn signature(&mut self, index: u32, signature: &Signature<'_>, out: &mut Vec<u8>) {
        let is_hidden = match &mut self.choice(index).open {
            Open::Call(call) => {
                call.signature = Some(Signature {
                    origin: signature.origin,
                    data: signature.data.clone().into_owned(),
                });
                return;
            }
            Open::Reasoning => false,
            Open::Text | Open::Hidden | Open::Nothing => true,
        };
        let spelt = signature.spelt_bytes(OWN);
        self.part(index, out, |w| {
            write_thought(&JsonStr::default(), is_hidden, Some(&spelt), w);
        });
    }

    fn block_end(&mut self, index: u32, out: &mut Vec<u8>) {
        if let Open::Call(call) = std::mem::take(&mut self.choice(index).open) {
            let signature = call.signature.as_ref().map(|s| s.spelt_bytes(OWN));
            self.part(index, out, |w| write_call(&call, signature.as_ref(), w));
        }
    }

    fn stop(&mut self, index: u32, stop: &Stop<'_>, out: &mut Vec<u8>) {
        self.block_end(index, out);
        let (reason, message) = finish_reason(stop);
        let message = message.map(|message| message.clone().into_owned());
        self.choice(index).end = Some((reason, message));
    }

    /// A chunk with one part.
    fn part(&mut self, index: u32, out: &mut Vec<u8>, part: impl FnOnce(&mut Writer<'_>)) {
        self.chunk(out, |w| {
            w.key("candidates").array(|w| {
                w.object(|w| {
                    w.key("content").object(|w| {
                        w.key("parts").array(part);
                        w.key("role").text("model");
                    });
                    w.key("index").u64(u64::from(index));
                });
            });
        });
    }

    /// A chunk with a candidate that says nothing, and `more` about it.
    fn candidate(&mut self, index: u32, out: &mut Vec<u8>, more: impl FnOnce(&mut Writer<'_>)) {
        self.chunk(out, |w| {
            w.key("candidates").array(|w| {
                w.object(|w| {
                    write_nothing(w);
                    w.key("index").u64(u64::from(index));
                    more(w);
                });
            });
        });
    }

    fn chunk(&mut self, out: &mut Vec<u8>, members: impl FnOnce(&mut Writer<'_>)) {
        let Self {
            framing, model, id, ..
        } = self;
        framing.chunk(out, |w| {
            w.object(|w| {
                members(w);
                w.key("modelVersion").str(model);
                w.key("responseId").str(id);
            });
        });
    }

    fn last_chunk(&mut self, out: &mut Vec<u8>) {
        for index in (0..self.choices.len())
            .map(|at| self.choices[at].index)
            .collect::<Vec<_>>()
        {
            self.block_end(index, out);
        }
        let choices = std::mem::take(&mut self.choices);
        let (usage, tier) = (self.usage, self.tier.take());
        self.chunk(out, |w| {
            w.key("candidates").array(|w| {
                choices.iter().for_each(|choice| choice.write_end(w));
            });
            write_metadata(usage.as_ref(), tier.as_ref(), w);
        });
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        self.is_over = true;
        if let Framing::Array(encoder) = &mut self.framing {
            encoder.end(out);
        }
    }
}

impl Framing {
    /// An error, behind which nothing comes. Among server-sent events Google's servers write it
    /// bare, and official clients overlook one in an event.
    fn error(&mut self, out: &mut Vec<u8>, value: impl FnOnce(&mut Writer<'_>)) {
        match self {
            Self::Sse => {
                value(&mut Writer::new(out));
                // A blank line would make an event of it.
                out.push(b'\n');
            }
            Self::Array(_) => self.chunk(out, value),
        }
    }

    fn chunk(&mut self, out: &mut Vec<u8>, value: impl FnOnce(&mut Writer<'_>)) {
        match self {
            Self::Sse => crate::dialect::write_sse(out, "", value),
            Self::Array(encoder) => {
                encoder.begin(out);
                value(&mut Writer::new(out));
            }
        }
    }
}

impl Choice {
    fn cite(&mut self, citation: &Citation<'_>) {
        let start = self.block_start;
        let bytes = citation.span.and_then(|(from, to)| {
            let from = start.checked_add(usize::try_from(from).ok()?)?;
            let to = start.checked_add(usize::try_from(to).ok()?)?;
            Some((self.text.byte_of(from)?, self.text.byte_of(to)?))
        });
        let owned = |text: &Option<JsonStr<'_>>| text.clone().map(JsonStr::into_owned);
        let citation = Citation {
            url: owned(&citation.url),
            title: owned(&citation.title),
            quote: owned(&citation.quote),
            ..Citation::default()
        };
        self.sources.push((citation, bytes));
    }

    fn write_end(&self, w: &mut Writer<'_>) {
        w.object(|w| {
            write_nothing(w);
            if let Some((reason, message)) = &self.end {
                w.key("finishReason").text(reason);
                if let Some(message) = message {
                    w.key("finishMessage").str(message);
                }
            }
            w.key("index").u64(u64::from(self.index));
            if !self.sources.is_empty() {
                let sources = self.sources.iter().map(|(citation, bytes)| Source {
                    citation,
                    part: 0,
                    segment: bytes.and_then(|(start, end)| {
                        let text = self.text.slice(start, end)?;
                        Some((start, end, text))
                    }),
                });
                write_grounding(&sources.collect::<Vec<_>>(), w);
            }
        });
    }
}

/// A content without anything in it: official clients want one in every candidate.
fn write_nothing(w: &mut Writer<'_>) {
    w.key("content").object(|w| {
        w.key("parts").array(|w| write_text(&JsonStr::default(), w));
        w.key("role").text("model");
    });
}
