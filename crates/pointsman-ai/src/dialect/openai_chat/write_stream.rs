//! Writing streams.

use super::{OWN, error::write_error, stop_word, tools::write_extra, write_citation, write_usage};
use crate::{
    Usage,
    conversation::{Block, ErrorMessage, Event, Json, Signature},
    dialect::{Setting, on_one_line, write_sse},
    json::{string::JsonStr, write::Writer},
};

/// Writes a stream to a client.
#[derive(Debug)]
pub(crate) struct StreamWriter {
    seed: String,
    model: String,
    now: u64,
    /// What every chunk begins with, up to the list of choices.
    head: Vec<u8>,
    /// Of it, what stands before the tier of service.
    untiered: usize,
    /// No chunk has said the tier yet.
    tier_is_news: bool,
    choices: Vec<Choice>,
    usage: Option<Usage>,
}

#[derive(Debug)]
struct Choice {
    index: u32,
    open: Open,
    /// Calls that have begun.
    calls: u64,
    refuses: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Nothing,
    Text,
    Reasoning,
    Hidden,
    Refusal,
    Call,
}

impl StreamWriter {
    pub(in crate::dialect) fn new(setting: &Setting<'_>) -> Self {
        Self {
            seed: setting.seed.to_owned(),
            model: setting.model.to_owned(),
            now: setting.now,
            head: Vec::new(),
            untiered: 0,
            tier_is_news: false,
            choices: Vec::new(),
            usage: None,
        }
    }

    pub(in crate::dialect) fn write(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        match event {
            Event::Start {
                id,
                model,
                created,
                usage,
            } => {
                self.usage = *usage;
                self.begin(id, model, *created);
            }
            Event::BlockStart { choice, block } => self.block_start(*choice, block, out),
            Event::Delta { choice, text } => self.delta(*choice, text, out),
            Event::Signature { choice, signature } => self.signature(*choice, signature, out),
            Event::Citation { choice, citation } => self.piece(*choice, out, |w| {
                w.key("annotations").array(|w| write_citation(citation, w));
            }),
            Event::Logprobs { choice, json } => {
                self.chunk(*choice, out, |_| {}, Some(json), None);
            }
            Event::BlockEnd { choice } => {
                let at = self.choice(*choice, out);
                self.choices[at].open = Open::Nothing;
            }
            Event::Stop { choice, stop } => {
                let at = self.choice(*choice, out);
                let word = stop_word(stop, self.choices[at].refuses);
                self.chunk(*choice, out, |_| {}, None, Some(word));
                self.tier_is_news = false;
            }
            Event::Usage(usage) => self.usage.get_or_insert_default().update(*usage),
            Event::Tier(tier) => self.tier(tier),
            Event::Ping => out.extend_from_slice(b": ping\n\n"),
            Event::Error(error) => write_failure(error, out),
            Event::End => self.end(out),
        }
    }

    fn begin(&mut self, id: &JsonStr<'_>, model: &JsonStr<'_>, created: Option<u64>) {
        let mut head = Vec::with_capacity(160);
        Writer::new(&mut head).object(|w| {
            w.key("id");
            if id.is_empty() {
                w.text(&format!("chatcmpl-{}", self.seed));
            } else {
                w.str(id);
            }
            w.key("object").text("chat.completion.chunk");
            w.key("created").u64(created.unwrap_or(self.now));
            w.key("model");
            if model.is_empty() {
                w.text(&self.model);
            } else {
                w.str(model);
            }
        });
        head.pop();
        self.untiered = head.len();
        self.head = head;
    }

    fn tier(&mut self, tier: &JsonStr<'_>) {
        self.head.truncate(self.untiered);
        self.head.extend_from_slice(b",\"service_tier\":");
        Writer::new(&mut self.head).str(tier);
        self.tier_is_news = true;
    }

    /// The place of choice `index`; its first chunk says whose it is.
    fn choice(&mut self, index: u32, out: &mut Vec<u8>) -> usize {
        if let Some(at) = self.choices.iter().position(|choice| choice.index == index) {
            return at;
        }
        self.choices.push(Choice {
            index,
            open: Open::Nothing,
            calls: 0,
            refuses: false,
        });
        self.piece(index, out, |w| {
            w.key("role").text("assistant");
            w.key("content").text("");
        });
        self.choices.len() - 1
    }

    fn block_start(&mut self, index: u32, block: &Block<'_>, out: &mut Vec<u8>) {
        let at = self.choice(index, out);
        let choice = &mut self.choices[at];
        choice.open = match block {
            Block::Text => Open::Text,
            Block::Reasoning => Open::Reasoning,
            Block::Hidden => Open::Hidden,
            Block::Refusal => Open::Refusal,
            Block::ToolCall { .. } => Open::Call,
            Block::Opaque(_) => Open::Nothing,
        };
        choice.refuses |= choice.open == Open::Refusal;
        if let Block::ToolCall { id, name } = block {
            let number = choice.calls;
            choice.calls += 1;
            self.call(index, number, out, |w| {
                w.key("id").str(id);
                w.key("type").text("function");
                w.key("function").object(|w| {
                    w.key("name").str(name);
                    w.key("arguments").text("");
                });
            });
        }
    }

    fn call(
        &self,
        index: u32,
        number: u64,
        out: &mut Vec<u8>,
        members: impl FnOnce(&mut Writer<'_>),
    ) {
        self.piece(index, out, |w| {
            w.key("tool_calls").array(|w| {
                w.object(|w| {
                    w.key("index").u64(number);
                    members(w);
                });
            });
        });
    }

    fn delta(&mut self, index: u32, text: &JsonStr<'_>, out: &mut Vec<u8>) {
        let at = self.choice(index, out);
        let choice = &self.choices[at];
        let member = match choice.open {
            Open::Text => "content",
            Open::Reasoning => "reasoning_content",
            Open::Refusal => "refusal",
            Open::Call => {
                let number = choice.calls.saturating_sub(1);
                return self.call(index, number, out, |w| {
                    w.key("function").object(|w| w.key("arguments").str(text));
                });
            }
            Open::Nothing | Open::Hidden => return,
        };
        self.piece(index, out, |w| w.key(member).str(text));
    }

    fn signature(&mut self, index: u32, signature: &Signature<'_>, out: &mut Vec<u8>) {
        let at = self.choice(index, out);
        let choice = &self.choices[at];
        let data = signature.spelt(OWN);
        let (kind, member) = match choice.open {
            Open::Reasoning => ("reasoning.text", "signature"),
            Open::Hidden => ("reasoning.encrypted", "data"),
            Open::Call => {
                let number = choice.calls.saturating_sub(1);
                return self.call(index, number, out, |w| write_extra(signature, w));
            }
            Open::Nothing | Open::Text | Open::Refusal => return,
        };
        self.piece(index, out, |w| {
            w.key("reasoning_details").array(|w| {
                w.object(|w| {
                    w.key("type").text(kind);
                    w.key(member).str(&data);
                });
            });
        });
    }

    fn piece(&self, index: u32, out: &mut Vec<u8>, delta: impl FnOnce(&mut Writer<'_>)) {
        self.chunk(index, out, delta, None, None);
    }

    fn chunk(
        &self,
        index: u32,
        out: &mut Vec<u8>,
        delta: impl FnOnce(&mut Writer<'_>),
        logprobs: Option<&Json<'_>>,
        finish: Option<&str>,
    ) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(&self.head);
        out.extend_from_slice(b",\"choices\":[");
        let start = out.len();
        Writer::new(out).object(|w| {
            w.key("index").u64(u64::from(index));
            w.key("delta").object(delta);
            w.key("logprobs");
            match logprobs {
                Some(json) => w.raw(json),
                None => w.null(),
            }
            w.key("finish_reason");
            match finish {
                Some(word) => w.text(word),
                None => w.null(),
            }
        });
        on_one_line(&mut out[start..]);
        out.extend_from_slice(b"]}\n\n");
    }

    fn end(&self, out: &mut Vec<u8>) {
        if self.usage.is_some() || self.tier_is_news {
            out.extend_from_slice(b"data: ");
            out.extend_from_slice(&self.head);
            out.extend_from_slice(b",\"choices\":[]");
            if let Some(usage) = self.usage {
                out.extend_from_slice(b",\"usage\":");
                write_usage(usage, &mut Writer::new(out));
            }
            out.extend_from_slice(b"}\n\n");
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }
}

/// There is no event for it; clients look for the member. `[DONE]` does not follow.
fn write_failure(error: &ErrorMessage<'_>, out: &mut Vec<u8>) {
    write_sse(out, "", |w| write_error(500, error, w));
}
