//! Writing streams.
//!
//! Each piece goes out as it comes, and is kept: every item, and at the end the whole response, is
//! repeated when it is done. A message stays open until something else begins, so that texts that
//! follow each other are parts of one message.

mod blocks;

use super::{
    error::{self, code_of},
    items::write_citation,
    write_response::{Head, State, reason},
};
use crate::{
    Usage,
    conversation::{ErrorMessage, Event, Signature, Stop},
    dialect::{Setting, write_sse},
    json::{string::JsonStr, write::Writer},
};

/// Writes the stream of a response.
#[derive(Debug)]
pub(crate) struct StreamWriter {
    head: Head,
    sequence: u64,
    started: bool,
    over: bool,
    /// The items that are done, between the brackets of a list, and how many.
    output: Vec<u8>,
    items: usize,
    /// The id of the open item.
    item_id: String,
    message: Option<Message>,
    block: Option<Box<Open>>,
    has_refusal: bool,
    reason: Option<JsonStr<'static>>,
    usage: Option<Usage>,
    tier: Option<JsonStr<'static>>,
}

/// The open message.
#[derive(Debug, Default)]
struct Message {
    /// The parts that are done, between the brackets of a list, and how many.
    parts: Vec<u8>,
    count: u64,
}

/// The open block.
#[derive(Debug)]
struct Open {
    kind: Kind,
    /// Its text so far, as it is spelt.
    text: String,
    annotations: Vec<u8>,
    annotation_count: u64,
    logprobs: Vec<u8>,
    signature: Option<Signature<'static>>,
}

#[derive(Debug)]
enum Kind {
    Text,
    Refusal,
    Reasoning,
    Hidden,
    Call {
        id: JsonStr<'static>,
        name: JsonStr<'static>,
    },
    /// Of another protocol, or written already.
    Nothing,
}

impl StreamWriter {
    pub(in crate::dialect) fn new(setting: &Setting<'_>) -> Self {
        Self {
            head: Head::new(setting),
            sequence: 0,
            started: false,
            over: false,
            output: Vec::new(),
            items: 0,
            item_id: String::new(),
            message: None,
            block: None,
            has_refusal: false,
            reason: None,
            usage: None,
            tier: None,
        }
    }

    pub(in crate::dialect) fn write(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        if self.over {
            return;
        }
        match event {
            Event::Start {
                id,
                model,
                created,
                usage,
            } => {
                self.head.learn(id, model, *created);
                self.learn(*usage);
                self.start(out);
            }
            Event::BlockStart { choice: 0, block } => self.begin(block, out),
            Event::Delta { choice: 0, text } => self.delta(text, out),
            Event::Signature {
                choice: 0,
                signature,
            } => {
                if let Some(open) = &mut self.block {
                    open.signature = Some(Signature {
                        origin: signature.origin,
                        data: signature.data.clone().into_owned(),
                    });
                }
            }
            Event::Citation {
                choice: 0,
                citation,
            } => self.annotate(|w| write_citation(citation, w), out),
            Event::Logprobs { choice: 0, json } => self.logprobs(json, out),
            Event::BlockEnd { choice: 0 } => self.end_block(out),
            Event::Stop { choice: 0, stop } => self.stop(stop, out),
            Event::Usage(usage) => self.learn(Some(*usage)),
            Event::Tier(tier) => self.tier = Some(tier.clone().into_owned()),
            // A comment, which keeps the connection and says nothing.
            Event::Ping => out.extend_from_slice(b": ping\n\n"),
            Event::Error(error) => self.fail(error, out),
            Event::End => self.end(out),
            // There is one answer to a request.
            _ => {}
        }
    }

    fn learn(&mut self, usage: Option<Usage>) {
        if let Some(later) = usage {
            self.usage.get_or_insert_default().update(later);
        }
    }

    /// An event with a number.
    fn event(
        &mut self,
        out: &mut Vec<u8>,
        name: &'static str,
        members: impl FnOnce(&Self, &mut Writer<'_>),
    ) {
        write_sse(out, name, |w| {
            w.object(|w| {
                w.key("type").text(name);
                w.key("sequence_number").u64(self.sequence);
                members(self, w);
            });
        });
        self.sequence += 1;
    }

    /// An event about the open item.
    fn item_event(
        &mut self,
        out: &mut Vec<u8>,
        name: &'static str,
        members: impl FnOnce(&mut Writer<'_>),
    ) {
        self.event(out, name, |all, w| {
            w.key("item_id").text(&all.item_id);
            w.key("output_index").u64(all.items as u64);
            members(w);
        });
    }

    /// An event about the open part of the open message.
    fn part_event(
        &mut self,
        out: &mut Vec<u8>,
        name: &'static str,
        members: impl FnOnce(&mut Writer<'_>),
    ) {
        let index = self.message.as_ref().map_or(0, |message| message.count);
        self.item_event(out, name, |w| {
            w.key("content_index").u64(index);
            members(w);
        });
    }

    /// A picture of the response.
    fn response(&mut self, out: &mut Vec<u8>, name: &'static str, state: &State<'_>) {
        self.event(out, name, |all, w| {
            let output = String::from_utf8_lossy(&all.output);
            all.head.write(w.key("response"), state, |w| {
                if !output.is_empty() {
                    w.raw(&output);
                }
            });
        });
    }

    fn start(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        let state = State {
            status: "in_progress",
            ..State::completed()
        };
        self.response(out, "response.created", &state);
        self.response(out, "response.in_progress", &state);
    }

    fn stop(&mut self, stop: &Stop<'_>, out: &mut Vec<u8>) {
        self.start(out);
        self.end_block(out);
        self.reason = reason(stop, self.has_refusal).map(JsonStr::into_owned);
        let status = match self.reason {
            Some(_) => "incomplete",
            None => "completed",
        };
        self.end_message(status, out);
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        self.start(out);
        self.end_block(out);
        self.end_message("completed", out);
        self.over = true;
        let name = match self.reason {
            Some(_) => "response.incomplete",
            None => "response.completed",
        };
        let tier = self.tier.take();
        let state = State {
            reason: self.reason.take(),
            usage: self.usage,
            service_tier: tier.as_ref(),
            ..State::completed()
        };
        self.response(out, name, &state);
    }

    /// OpenAI says it twice: what went wrong, and that the response has failed.
    fn fail(&mut self, error: &ErrorMessage<'_>, out: &mut Vec<u8>) {
        self.start(out);
        // Half a call must not look like one.
        if self.message.is_some() {
            self.end_block(out);
        }
        self.end_message("incomplete", out);
        self.over = true;
        self.event(out, "error", |_, w| {
            w.key("code").str(&code_of(error));
            w.key("message").str(&error.message);
            error::optional(w, "param", error.param.as_ref());
        });
        let state = State {
            status: "failed",
            error: Some(error),
            usage: self.usage,
            ..State::completed()
        };
        self.response(out, "response.failed", &state);
    }
}
