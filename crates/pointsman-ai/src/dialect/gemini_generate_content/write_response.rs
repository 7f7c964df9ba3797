//! A whole answer to a client.

use super::{
    OWN,
    citations::{Source, write_grounding},
    finish_reason,
    logprobs::write_logprobs,
    offsets::Offsets,
    write_part::{write_call, write_media, write_text, write_thought},
    write_usage,
};
use crate::{
    Usage,
    conversation::{Choice, Citation, Part, Response},
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
        w.key("candidates").array(|w| {
            for (index, choice) in response.choices.iter().enumerate() {
                write_candidate(index, choice, w);
            }
        });
        let tier = response.service_tier.as_ref();
        write_metadata(response.usage.as_ref(), tier, w);
        let model = JsonStr::new(setting.model);
        w.key("modelVersion")
            .str(response.model.as_ref().unwrap_or(&model));
        let id = JsonStr::new(setting.seed);
        w.key("responseId").str(response.id.as_ref().unwrap_or(&id));
    });
}

/// `usageMetadata`, if there is anything to say in it.
pub(super) fn write_metadata(
    usage: Option<&Usage>,
    tier: Option<&JsonStr<'_>>,
    w: &mut Writer<'_>,
) {
    if usage.is_none() && tier.is_none() {
        return;
    }
    w.key("usageMetadata").object(|w| {
        if let Some(usage) = usage {
            write_usage(usage, w);
        }
        if let Some(tier) = tier {
            let standard = JsonStr::new("standard");
            let is_usual = tier.is("default");
            w.key("serviceTier")
                .str(if is_usual { &standard } else { tier });
        }
    });
}

fn write_candidate(index: usize, choice: &Choice<'_>, w: &mut Writer<'_>) {
    // Texts that are referred to, by their places among what is written.
    let mut cited: Vec<(usize, Offsets, &[Citation<'_>])> = Vec::new();
    let mut written = 0;
    w.object(|w| {
        w.key("content").object(|w| {
            w.key("parts").array(|w| {
                for part in &choice.parts {
                    if let Part::Text(text) = part
                        && !text.citations.is_empty()
                    {
                        let mut offsets = Offsets::default();
                        offsets.push(&text.text.decode());
                        cited.push((written, offsets, &text.citations));
                    }
                    written += usize::from(write_part(part, w));
                }
                // Clients send it back, and contents need a part.
                if written == 0 {
                    write_text(&JsonStr::default(), w);
                }
            });
            w.key("role").text("model");
        });
        let (reason, message) = finish_reason(&choice.stop);
        w.key("finishReason").text(reason);
        if let Some(message) = message {
            w.key("finishMessage").str(message);
        }
        w.key("index").u64(index as u64);
        if !cited.is_empty() {
            write_sources(&mut cited, w);
        }
        if let Some(logprobs) = &choice.logprobs {
            write_logprobs(logprobs, w.key("logprobsResult"));
        }
    });
}

/// Whether the client's protocol has the part.
fn write_part(part: &Part<'_>, w: &mut Writer<'_>) -> bool {
    match part {
        Part::Text(text) => write_text(&text.text, w),
        Part::Refusal(text) => write_text(text, w),
        Part::Media(media) => write_media(media, w),
        Part::ToolCall(call) => {
            let signature = call.signature.as_ref().map(|s| s.spelt_bytes(OWN));
            write_call(call, signature.as_ref(), w);
        }
        Part::Reasoning(reasoning) => {
            let signature = reasoning.signature.as_ref().map(|s| s.spelt_bytes(OWN));
            write_thought(&reasoning.text, reasoning.is_hidden, signature.as_ref(), w);
        }
        Part::Opaque(opaque) if opaque.protocol == OWN => w.raw(&opaque.json),
        Part::Opaque(_) | Part::ToolResult(_) => return false,
    }
    true
}

fn write_sources(cited: &mut [(usize, Offsets, &[Citation<'_>])], w: &mut Writer<'_>) {
    let mut sources = Vec::new();
    for (part, offsets, citations) in cited {
        let ranges: Vec<_> = citations
            .iter()
            .map(|citation| bytes_of(citation, offsets))
            .collect();
        for (citation, range) in citations.iter().zip(ranges) {
            let segment = range.and_then(|(start, end)| {
                let text = offsets.slice(start, end)?;
                Some((start, end, text))
            });
            sources.push(Source {
                citation,
                part: *part,
                segment,
            });
        }
    }
    write_grounding(&sources, w);
}

/// The bytes that a citation's characters are.
fn bytes_of(citation: &Citation<'_>, offsets: &mut Offsets) -> Option<(usize, usize)> {
    let (start, end) = citation.span?;
    let start = offsets.byte_of(usize::try_from(start).ok()?)?;
    let end = offsets.byte_of(usize::try_from(end).ok()?)?;
    Some((start, end))
}
