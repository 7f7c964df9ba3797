//! Writing `input`: messages become items.

use super::{
    OWN,
    items::{self, write_reasoning, write_string},
};
use crate::{
    conversation::{Media, MediaKind, Message, Part, Reasoning, Role, Source, Text, ToolResult},
    dialect::Setting,
    json::{string::JsonStr, write::Writer},
};

/// Writes the items of `messages`.
pub(super) fn write_input(messages: &[Message<'_>], setting: &Setting<'_>, w: &mut Writer<'_>) {
    w.array(|w| {
        for (index, message) in messages.iter().enumerate() {
            match message.role {
                Role::Assistant => write_turn(index, message, setting, w),
                Role::Tool => {
                    for part in &message.parts {
                        if let Part::ToolResult(result) = part {
                            write_result(result, w);
                        }
                    }
                }
                Role::System => write_message(message, "system", w),
                Role::Developer => write_message(message, "developer", w),
                Role::User => write_message(message, "user", w),
            }
        }
    });
}

/// What the model said: its texts are messages, the rest are items of their own.
fn write_turn(index: usize, message: &Message<'_>, setting: &Setting<'_>, w: &mut Writer<'_>) {
    let mut rest = message.parts.as_slice();
    while let Some((part, behind)) = rest.split_first() {
        let words = rest.iter().take_while(|part| is_said(part)).count();
        if words > 0 {
            let (said, behind) = rest.split_at(words);
            match said {
                [Part::Text(text)] if message.plain => {
                    write_content("assistant", w, |w| w.str(&text.text));
                }
                said => {
                    let id = format!("msg_{}_{index}_{}", setting.seed, behind.len());
                    write_said(said, &id, w);
                }
            }
            rest = behind;
            continue;
        }
        match part {
            Part::Reasoning(reasoning) => write_thoughts(reasoning, setting, w),
            Part::ToolCall(call) => {
                let arguments = call.arguments.as_text();
                items::write_call(w, None, None, (&call.id, &call.name), &arguments);
            }
            Part::Opaque(opaque) if opaque.protocol == OWN => w.raw(&opaque.json),
            _ => {}
        }
        rest = behind;
    }
}

fn is_said(part: &Part<'_>) -> bool {
    matches!(part, Part::Text(_) | Part::Refusal(_))
}

/// Writes a list of what the model said, which OpenAI's types only take with an id.
fn write_said(parts: &[Part<'_>], id: &str, w: &mut Writer<'_>) {
    w.object(|w| {
        w.key("type").text("message");
        w.key("id").text(id);
        w.key("status").text("completed");
        w.key("role").text("assistant");
        w.key("content");
        w.array(|w| {
            for part in parts {
                match part {
                    // Sources are not sent: the model has no use for them, and those of other
                    // providers would be refused.
                    Part::Text(text) => write_output_text(&text.text, w),
                    Part::Refusal(text) => w.object(|w| {
                        w.key("type").text("refusal");
                        w.key("refusal").str(text);
                    }),
                    _ => {}
                }
            }
        });
    });
}

fn write_output_text(text: &JsonStr<'_>, w: &mut Writer<'_>) {
    w.object(|w| {
        w.key("type").text("output_text");
        w.key("text").str(text);
        w.key("annotations").array(|_| {});
    });
}

/// Thoughts go back to who signed or kept them. OpenAI refuses any others.
fn write_thoughts(reasoning: &Reasoning<'_>, setting: &Setting<'_>, w: &mut Writer<'_>) {
    let signature = reasoning.signature.as_ref();
    let own = signature.filter(|signature| signature.origin == setting.target);
    let is_kept = signature.is_none() && reasoning.id.is_some();
    if own.is_some() || is_kept {
        let encrypted = own.map(|signature| &signature.data);
        write_reasoning(w, reasoning.id.as_ref(), &reasoning.text, encrypted);
    }
}

/// A message of anyone but the model. What only this protocol has may be an item of its own.
fn write_message(message: &Message<'_>, role: &'static str, w: &mut Writer<'_>) {
    if let Some(text) = items::plain_text(message) {
        return write_content(role, w, |w| w.str(text));
    }
    let may_have_media = message.role == Role::User;
    let is_written = |part: &&Part<'_>| may_have_media || matches!(part, Part::Text(_));
    let mut rest = message.parts.as_slice();
    while let Some((first, behind)) = rest.split_first() {
        if let Some(item) = own_item(first) {
            w.raw(item);
            rest = behind;
            continue;
        }
        let count = rest
            .iter()
            .take_while(|part| own_item(part).is_none())
            .count();
        let (parts, behind) = rest.split_at(count);
        rest = behind;
        let parts = parts.iter().filter(is_written);
        if parts.clone().any(can_be_written) {
            write_content(role, w, |w| {
                w.array(|w| parts.for_each(|part| write_part(part, w)))
            });
        }
    }
}

fn write_content(role: &'static str, w: &mut Writer<'_>, content: impl FnOnce(&mut Writer<'_>)) {
    w.object(|w| {
        w.key("type").text("message");
        w.key("role").text(role);
        content(w.key("content"));
    });
}

/// Parts of messages are called `input_...`, items are not.
fn own_item<'p>(part: &'p Part<'_>) -> Option<&'p str> {
    match part {
        Part::Opaque(opaque) if opaque.protocol == OWN => {
            let is_item = !opaque.kind.as_spelt().starts_with("input_");
            is_item.then_some(&*opaque.json)
        }
        _ => None,
    }
}

fn write_result(result: &ToolResult<'_>, w: &mut Writer<'_>) {
    w.object(|w| {
        w.key("type").text("function_call_output");
        w.key("call_id").str(&result.call_id);
        w.key("output");
        match result.parts.as_slice() {
            [Part::Text(text)] if result.plain => w.str(&text.text),
            parts if parts.iter().any(can_be_written) => {
                w.array(|w| parts.iter().for_each(|part| write_part(part, w)));
            }
            _ => w.text(""),
        }
    });
}

/// Whether [`write_part`] writes anything.
fn can_be_written(part: &Part<'_>) -> bool {
    match part {
        Part::Text(_) => true,
        Part::Opaque(opaque) => opaque.protocol == OWN,
        Part::Media(media) => match media.kind {
            MediaKind::Image | MediaKind::Document => true,
            MediaKind::Audio | MediaKind::Video => false,
        },
        _ => false,
    }
}

fn write_part(part: &Part<'_>, w: &mut Writer<'_>) {
    if !can_be_written(part) {
        return;
    }
    match part {
        // A text is a text, whatever it was called.
        Part::Text(Text { text, .. })
        | Part::Media(Media {
            source: Source::Text(text),
            ..
        }) => w.object(|w| {
            w.key("type").text("input_text");
            w.key("text").str(text);
        }),
        Part::Media(media) if media.kind == MediaKind::Image => write_image(media, w),
        Part::Media(media) => write_file(media, w),
        Part::Opaque(opaque) => w.raw(&opaque.json),
        _ => {}
    }
}

fn write_image(image: &Media<'_>, w: &mut Writer<'_>) {
    w.object(|w| {
        w.key("type").text("input_image");
        match &image.source {
            Source::File(id) => w.key("file_id").str(id),
            _ => w.key("image_url").str(&image.as_url("image/png")),
        }
        // OpenAI's types want it said.
        match &image.detail {
            Some(detail) => w.key("detail").str(detail),
            None => w.key("detail").text("auto"),
        }
    });
}

fn write_file(file: &Media<'_>, w: &mut Writer<'_>) {
    w.object(|w| {
        w.key("type").text("input_file");
        let mut name = file.name.clone();
        match &file.source {
            Source::File(id) => w.key("file_id").str(id),
            Source::Url(url) => w.key("file_url").str(url),
            Source::Base64(_) | Source::Text(_) => {
                w.key("file_data").str(&file.as_url(PDF));
                // Data without a name are refused.
                name.get_or_insert_with(|| JsonStr::new("document.pdf"));
            }
        }
        write_string(w, "filename", name.as_ref());
    });
}

const PDF: &str = "application/pdf";
