//! Items and the blocks in them.

use super::{Kind, Message, Open, StreamWriter};
use crate::{
    conversation::{Block, Opaque},
    dialect::openai_responses::{
        OWN,
        items::{self, write_reasoning, write_summary},
        write_response::{
            signature_of_call, tokens_of_chat, write_message, write_output_text, write_refusal,
        },
    },
    json::{string::JsonStr, write::Writer},
};

impl StreamWriter {
    pub(super) fn begin(&mut self, block: &Block<'_>, out: &mut Vec<u8>) {
        self.start(out);
        self.end_block(out);
        let kind = match block {
            Block::Text => Kind::Text,
            Block::Refusal => Kind::Refusal,
            Block::Reasoning => Kind::Reasoning,
            Block::Hidden => Kind::Hidden,
            Block::ToolCall { id, name } => Kind::Call {
                id: id.clone().into_owned(),
                name: name.clone().into_owned(),
            },
            Block::Opaque(_) => Kind::Nothing,
        };
        match (&kind, block) {
            (Kind::Text | Kind::Refusal, _) => self.begin_part(&kind, out),
            (Kind::Reasoning, _) => self.begin_reasoning(out),
            (Kind::Call { id, name }, _) => self.begin_call(id, name, out),
            (_, Block::Opaque(opaque)) if opaque.protocol == OWN => self.opaque(opaque, out),
            _ => {}
        }
        self.block = Some(Box::new(Open {
            kind,
            text: String::new(),
            annotations: Vec::new(),
            annotation_count: 0,
            logprobs: Vec::new(),
            signature: None,
        }));
    }

    /// Begins an item behind the last one.
    fn begin_item(
        &mut self,
        kind: &str,
        out: &mut Vec<u8>,
        item: impl FnOnce(&str, &mut Writer<'_>),
    ) {
        self.end_message("completed", out);
        self.item_id = self.head.item_id(kind, self.items);
        self.event(out, "response.output_item.added", |all, w| {
            w.key("output_index").u64(all.items as u64);
            item(&all.item_id, w.key("item"));
        });
    }

    /// The open item is done, and is what `item` writes.
    fn end_item(&mut self, out: &mut Vec<u8>, item: impl FnOnce(&str, &mut Writer<'_>)) {
        if self.items > 0 {
            self.output.push(b',');
        }
        let start = self.output.len();
        item(&self.item_id, &mut Writer::new(&mut self.output));
        self.event(out, "response.output_item.done", |all, w| {
            w.key("output_index").u64(all.items as u64);
            w.key("item")
                .raw(&String::from_utf8_lossy(&all.output[start..]));
        });
        self.items += 1;
    }

    fn begin_part(&mut self, kind: &Kind, out: &mut Vec<u8>) {
        if self.message.is_none() {
            self.begin_item("msg", out, |id, w| {
                write_message(w, id, "in_progress", |_| {});
            });
            self.message = Some(Message::default());
        }
        let is_refusal = matches!(kind, Kind::Refusal);
        self.has_refusal |= is_refusal;
        self.part_event(out, "response.content_part.added", |w| {
            w.key("part");
            match is_refusal {
                true => write_refusal(w, ""),
                false => write_output_text(w, "", |_| {}, "[]"),
            }
        });
    }

    fn begin_reasoning(&mut self, out: &mut Vec<u8>) {
        self.begin_item("rs", out, |id, w| {
            write_reasoning(w, Some(&JsonStr::new(id)), &JsonStr::default(), None);
        });
    }

    /// The summary begins with its first piece: signed thoughts may have none.
    fn begin_summary(&mut self, out: &mut Vec<u8>) {
        self.item_event(out, "response.reasoning_summary_part.added", |w| {
            w.key("summary_index").u64(0);
            write_summary(w.key("part"), &JsonStr::default());
        });
    }

    fn begin_call(&mut self, id: &JsonStr<'_>, name: &JsonStr<'_>, out: &mut Vec<u8>) {
        self.begin_item("fc", out, |item_id, w| {
            let status = Some("in_progress");
            items::write_call(w, Some(item_id), status, (id, name), &JsonStr::default());
        });
    }

    fn opaque(&mut self, opaque: &Opaque<'_>, out: &mut Vec<u8>) {
        self.begin_item("item", out, |_, w| w.raw(&opaque.json));
        self.end_item(out, |_, w| w.raw(&opaque.json));
    }

    pub(super) fn delta(&mut self, text: &JsonStr<'_>, out: &mut Vec<u8>) {
        let Some(open) = &mut self.block else {
            return;
        };
        let is_first = open.text.is_empty();
        open.text.push_str(text.as_spelt());
        match open.kind {
            Kind::Text => self.part_event(out, "response.output_text.delta", |w| {
                w.key("delta").str(text);
                w.key("logprobs").array(|_| {});
            }),
            Kind::Refusal => self.part_event(out, "response.refusal.delta", |w| {
                w.key("delta").str(text);
            }),
            Kind::Reasoning => {
                if is_first {
                    self.begin_summary(out);
                }
                self.item_event(out, "response.reasoning_summary_text.delta", |w| {
                    w.key("summary_index").u64(0);
                    w.key("delta").str(text);
                });
            }
            Kind::Call { .. } => self.arguments(text, out),
            Kind::Hidden | Kind::Nothing => {}
        }
    }

    fn arguments(&mut self, text: &JsonStr<'_>, out: &mut Vec<u8>) {
        self.item_event(out, "response.function_call_arguments.delta", |w| {
            w.key("delta").str(text);
        });
    }

    pub(super) fn annotate(&mut self, annotation: impl FnOnce(&mut Writer<'_>), out: &mut Vec<u8>) {
        let Some(open) = &mut self.block else {
            return;
        };
        if !matches!(open.kind, Kind::Text) {
            return;
        }
        let index = open.annotation_count;
        open.annotation_count += 1;
        if index > 0 {
            open.annotations.push(b',');
        }
        let start = open.annotations.len();
        annotation(&mut Writer::new(&mut open.annotations));
        let json = String::from_utf8_lossy(&open.annotations[start..]).into_owned();
        self.part_event(out, "response.output_text.annotation.added", |w| {
            w.key("annotation_index").u64(index);
            w.key("annotation").raw(&json);
        });
    }

    /// Probabilities belong to a piece that has gone out: they follow it with an empty one.
    pub(super) fn logprobs(&mut self, json: &str, out: &mut Vec<u8>) {
        let Some(tokens) = tokens_of_chat(json).filter(|tokens| tokens.len() > 2) else {
            return;
        };
        let Some(open) = &mut self.block else {
            return;
        };
        if !matches!(open.kind, Kind::Text) {
            return;
        }
        if !open.logprobs.is_empty() {
            open.logprobs.push(b',');
        }
        let between = &tokens[1..tokens.len() - 1];
        open.logprobs.extend_from_slice(between.as_bytes());
        self.part_event(out, "response.output_text.delta", |w| {
            w.key("delta").text("");
            w.key("logprobs").raw(tokens);
        });
    }

    pub(super) fn end_block(&mut self, out: &mut Vec<u8>) {
        let Some(open) = self.block.take() else {
            return;
        };
        match &open.kind {
            Kind::Text => self.end_text(&open, out),
            Kind::Refusal => self.end_refusal(&open.text, out),
            Kind::Reasoning => self.end_reasoning(&open, out),
            Kind::Hidden => {
                if let Some(signature) = &open.signature {
                    self.encrypted(&signature.spelt(OWN), out);
                }
            }
            Kind::Call { id, name } => self.end_call((id, name), &open, out),
            Kind::Nothing => {}
        }
    }

    fn end_text(&mut self, open: &Open, out: &mut Vec<u8>) {
        let logprobs = format!("[{}]", String::from_utf8_lossy(&open.logprobs));
        self.part_event(out, "response.output_text.done", |w| {
            w.key("text").str(&JsonStr::spelt(&open.text));
            w.key("logprobs").raw(&logprobs);
        });
        let annotations = |w: &mut Writer<'_>| {
            if !open.annotations.is_empty() {
                w.raw(&String::from_utf8_lossy(&open.annotations));
            }
        };
        self.end_part(out, |w| {
            write_output_text(w, &open.text, annotations, &logprobs)
        });
    }

    fn end_refusal(&mut self, text: &str, out: &mut Vec<u8>) {
        self.part_event(out, "response.refusal.done", |w| {
            w.key("refusal").str(&JsonStr::spelt(text));
        });
        self.end_part(out, |w| write_refusal(w, text));
    }

    fn end_part(&mut self, out: &mut Vec<u8>, part: impl Fn(&mut Writer<'_>)) {
        self.part_event(out, "response.content_part.done", |w| part(w.key("part")));
        if let Some(message) = &mut self.message {
            if message.count > 0 {
                message.parts.push(b',');
            }
            part(&mut Writer::new(&mut message.parts));
            message.count += 1;
        }
    }

    pub(super) fn end_message(&mut self, status: &'static str, out: &mut Vec<u8>) {
        if let Some(message) = self.message.take() {
            self.end_item(out, |id, w| {
                write_message(w, id, status, |w| {
                    if !message.parts.is_empty() {
                        w.raw(&String::from_utf8_lossy(&message.parts));
                    }
                });
            });
        }
    }

    fn end_reasoning(&mut self, open: &Open, out: &mut Vec<u8>) {
        let text = JsonStr::spelt(&open.text);
        if !text.is_empty() {
            self.end_summary(&text, out);
        }
        let encrypted = open
            .signature
            .as_ref()
            .map(|signature| signature.spelt(OWN));
        self.end_item(out, |id, w| {
            write_reasoning(w, Some(&JsonStr::new(id)), &text, encrypted.as_ref());
        });
    }

    fn end_summary(&mut self, text: &JsonStr<'_>, out: &mut Vec<u8>) {
        self.item_event(out, "response.reasoning_summary_text.done", |w| {
            w.key("summary_index").u64(0);
            w.key("text").str(text);
        });
        self.item_event(out, "response.reasoning_summary_part.done", |w| {
            w.key("summary_index").u64(0);
            write_summary(w.key("part"), text);
        });
    }

    /// A reasoning item without any text.
    fn encrypted(&mut self, data: &JsonStr<'_>, out: &mut Vec<u8>) {
        let item = |id: &str, w: &mut Writer<'_>| {
            write_reasoning(w, Some(&JsonStr::new(id)), &JsonStr::default(), Some(data));
        };
        self.begin_item("rs", out, item);
        self.end_item(out, item);
    }

    fn end_call(&mut self, named: (&JsonStr<'_>, &JsonStr<'_>), open: &Open, out: &mut Vec<u8>) {
        let mut arguments = JsonStr::spelt(&open.text);
        if arguments.is_empty() {
            // What is added up from the pieces is parsed.
            arguments = JsonStr::spelt("{}");
            self.arguments(&arguments, out);
        }
        self.item_event(out, "response.function_call_arguments.done", |w| {
            w.key("name").str(named.1);
            w.key("arguments").str(&arguments);
        });
        self.end_item(out, |id, w| {
            items::write_call(w, Some(id), Some("completed"), named, &arguments);
        });
        if let Some(signature) = &open.signature {
            self.encrypted(&signature_of_call(signature), out);
        }
    }
}
