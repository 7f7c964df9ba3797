//! Writing answers.

use super::{
    write_citation,
    write_parts::{write_call, write_part, write_thoughts},
    write_usage,
};
use crate::{
    conversation::{Part, Response, Stop},
    dialect::Setting,
    json::{string::JsonStr, write::Writer},
};

/// Writes an answer to a client. The model is the one that was asked (APISIX 3.18).
pub(in crate::dialect) fn write_response(
    response: &Response<'_>,
    setting: &Setting<'_>,
    w: &mut Writer<'_>,
) {
    let choice = response.choices.first();
    w.object(|w| {
        w.key("id");
        match &response.id {
            Some(id) => w.str(id),
            None => w.text(&format!("msg_{}", setting.seed)),
        }
        w.key("type").text("message");
        w.key("role").text("assistant");
        w.key("model");
        match &response.model {
            Some(model) if setting.model.is_empty() => w.str(model),
            _ => w.text(setting.model),
        }
        w.key("content").array(|w| {
            let parts = choice
                .map(|choice| choice.parts.as_slice())
                .unwrap_or_default();
            let before = w.mark();
            parts.iter().for_each(|part| write_answer(part, w));
            if w.mark() == before {
                w.object(|w| {
                    w.key("type").text("text");
                    w.key("text").text("");
                });
            }
        });
        write_stop(choice.map_or(&Stop::End, |choice| &choice.stop), w);
        w.key("usage");
        write_usage(response.usage.unwrap_or_default(), w);
    });
}

fn write_answer(part: &Part<'_>, w: &mut Writer<'_>) {
    match part {
        Part::Text(text) if !text.text.is_empty() => w.object(|w| {
            w.key("type").text("text");
            w.key("text").str(&text.text);
            if !text.citations.is_empty() {
                w.key("citations").array(|w| {
                    text.citations
                        .iter()
                        .for_each(|citation| write_citation(citation, w));
                });
            }
        }),
        Part::ToolCall(call) => write_call(call, w),
        Part::Reasoning(reasoning) => {
            write_thoughts(reasoning, reasoning.signature.as_ref(), w);
        }
        Part::Refusal(_) | Part::Opaque(_) => write_part(part, w),
        Part::Text(_) | Part::Media(_) | Part::ToolResult(_) => {}
    }
}

/// `stop_reason` and `stop_sequence`.
pub(super) fn write_stop(stop: &Stop<'_>, w: &mut Writer<'_>) {
    let none: Option<&JsonStr<'_>> = None;
    let (reason, sequence) = match stop {
        Stop::End | Stop::Other(_) => ("end_turn", none),
        Stop::Sequence(sequence) => ("stop_sequence", sequence.as_ref()),
        Stop::Length => ("max_tokens", none),
        Stop::ToolCalls => ("tool_use", none),
        Stop::ContentFilter | Stop::Refusal => ("refusal", none),
        Stop::Pause => ("pause_turn", none),
    };
    w.key("stop_reason").text(reason);
    w.key("stop_sequence");
    match sequence {
        Some(sequence) => w.str(sequence),
        None => w.null(),
    }
}
