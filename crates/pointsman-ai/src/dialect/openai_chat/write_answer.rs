//! Writing answers.

use super::{
    stop_word,
    tools::write_signed_call,
    write_citation,
    write_parts::{refusal_of, write_details},
    write_usage,
};
use crate::{
    conversation::{Choice, MediaKind, Part, Reasoning, Response, Source},
    dialect::Setting,
    json::{string::JsonStr, write::Writer},
};

/// Writes an answer to a client.
pub(in crate::dialect) fn write_response(
    response: &Response<'_>,
    setting: &Setting<'_>,
    w: &mut Writer<'_>,
) {
    w.object(|w| {
        w.key("id");
        match &response.id {
            Some(id) => w.str(id),
            None => w.text(&format!("chatcmpl-{}", setting.seed)),
        }
        w.key("object").text("chat.completion");
        w.key("created")
            .u64(response.created.unwrap_or(setting.now));
        w.key("model");
        match &response.model {
            Some(model) => w.str(model),
            None => w.text(setting.model),
        }
        w.key("choices").array(|w| {
            for (index, choice) in (0..).zip(&response.choices) {
                write_choice(index, choice, setting, w);
            }
        });
        w.key("usage");
        write_usage(response.usage.unwrap_or_default(), w);
        if let Some(tier) = &response.service_tier {
            w.key("service_tier").str(tier);
        }
    });
}

fn write_choice(index: u64, choice: &Choice<'_>, setting: &Setting<'_>, w: &mut Writer<'_>) {
    w.object(|w| {
        w.key("index").u64(index);
        w.key("message")
            .object(|w| write_message(&choice.parts, setting, w));
        w.key("logprobs");
        match &choice.logprobs {
            Some(logprobs) => w.raw(logprobs),
            None => w.null(),
        }
        let has_refusal = choice
            .parts
            .iter()
            .any(|part| matches!(part, Part::Refusal(_)));
        w.key("finish_reason")
            .text(stop_word(&choice.stop, has_refusal));
    });
}

fn write_message(parts: &[Part<'_>], setting: &Setting<'_>, w: &mut Writer<'_>) {
    let or_null = |text: Option<&JsonStr<'_>>, w: &mut Writer<'_>| match text {
        Some(text) => w.str(text),
        None => w.null(),
    };
    let texts = parts.iter().filter_map(|part| match part {
        Part::Text(text) => Some(text),
        _ => None,
    });
    let said: Vec<JsonStr<'_>> = texts.clone().map(|text| text.text.clone()).collect();
    let refusal = refusal_of(parts);
    w.key("role").text("assistant");
    w.key("content");
    let content = JsonStr::concat(&said, "");
    or_null(Some(&content).filter(|_| !said.is_empty()), w);
    w.key("refusal");
    or_null(refusal.as_ref(), w);
    write_thoughts(parts, w);
    let citations = texts.flat_map(|text| &text.citations);
    if citations.clone().next().is_some() {
        w.key("annotations")
            .array(|w| citations.for_each(|citation| write_citation(citation, w)));
    }
    let mut calls = parts.iter().filter_map(|part| match part {
        Part::ToolCall(call) => Some(call),
        _ => None,
    });
    if calls.clone().next().is_some() {
        w.key("tool_calls").array(|w| {
            calls.by_ref().for_each(|call| {
                write_signed_call(call, call.signature.as_ref(), w);
            });
        });
    }
    let audio = parts.iter().find_map(|part| match part {
        Part::Media(media) if media.kind == MediaKind::Audio => match &media.source {
            Source::Base64(data) => Some(data),
            _ => None,
        },
        _ => None,
    });
    if let Some(data) = audio {
        w.key("audio").object(|w| {
            w.key("id").text(&format!("audio_{}", setting.seed));
            w.key("expires_at").u64(setting.now);
            w.key("data").str(data);
            w.key("transcript").str(&content);
        });
    }
}

/// The text where most clients look for it, and what a provider wants back.
fn write_thoughts(parts: &[Part<'_>], w: &mut Writer<'_>) {
    let thoughts = || {
        parts.iter().filter_map(|part| match part {
            Part::Reasoning(reasoning) => Some(reasoning),
            _ => None,
        })
    };
    let texts = thoughts().filter(|reasoning| !reasoning.text.is_empty());
    let texts: Vec<JsonStr<'_>> = texts.map(|reasoning| reasoning.text.clone()).collect();
    if !texts.is_empty() {
        w.key("reasoning_content")
            .str(&JsonStr::concat(&texts, "\\n\\n"));
    }
    let is_signed = |reasoning: &Reasoning<'_>| reasoning.signature.is_some();
    if thoughts().any(is_signed) {
        w.key("reasoning_details")
            .array(|w| write_details(thoughts(), false, w));
    }
}
