//! A provider's whole answer.

use super::{
    citations::read_citations, field, fields, invented_id, logprobs::read_logprobs,
    offsets::Offsets, read_part::RawPart, read_request::read_tier, read_stop, read_usage,
    text_field,
};
use crate::{
    conversation::{Choice, Json, Malformed, Part, Response, Stop, Text},
    dialect::Setting,
    json::{string::JsonStr, tree::Node},
};

/// Reads a provider's answer.
pub(in crate::dialect) fn read_response<'a>(
    root: Node<'_, 'a>,
    setting: &Setting<'_>,
) -> Result<Response<'a>, Malformed> {
    let names = [
        "candidates",
        "promptFeedback",
        "usageMetadata",
        "modelVersion",
        "responseId",
    ];
    let [candidates, feedback, usage, model, id] = fields(super::object(root)?, names, |_, _| {});
    let mut response = Response {
        id: id.and_then(Node::str),
        model: model.and_then(Node::str),
        usage: usage.map(read_usage),
        service_tier: usage.and_then(read_served_tier),
        ..Response::default()
    };
    let mut calls = 0;
    let mut candidates: Vec<_> = candidates.into_iter().flat_map(Node::items).collect();
    // In order, wherever each says that it stands.
    candidates.sort_by_key(|candidate| {
        let index = field(*candidate, "index");
        index.and_then(Node::u64).unwrap_or_default()
    });
    for candidate in candidates {
        let choice = read_candidate(candidate, setting, &mut calls)?;
        response.choices.push(choice);
    }
    if response.choices.is_empty() {
        if !feedback.is_some_and(is_blocked) {
            let what = "there is neither a candidate nor a reason why the prompt was blocked";
            return Err(Malformed::at(root, what));
        }
        response.choices.push(Choice {
            stop: Stop::ContentFilter,
            ..Choice::default()
        });
    }
    Ok(response)
}

/// The tier that served an answer, from its `usageMetadata`.
pub(super) fn read_served_tier<'a>(usage: Node<'_, 'a>) -> Option<JsonStr<'a>> {
    text_field(usage, "serviceTier").map(read_tier)
}

/// A `promptFeedback` says that there is no answer.
pub(super) fn is_blocked(feedback: Node<'_, '_>) -> bool {
    field(feedback, "blockReason").is_some()
}

fn read_candidate<'a>(
    node: Node<'_, 'a>,
    setting: &Setting<'_>,
    calls: &mut usize,
) -> Result<Choice<'a>, Malformed> {
    let names = [
        "content",
        "finishReason",
        "groundingMetadata",
        "citationMetadata",
        "logprobsResult",
    ];
    let [content, reason, grounding, quotes, logprobs] = fields(node, names, |_, _| {});
    let mut choice = Choice {
        logprobs: logprobs.and_then(read_logprobs).map(Json::Owned),
        ..Choice::default()
    };
    let parts = content.and_then(|content| field(content, "parts"));
    // Where the text of each part went.
    let mut places = Vec::new();
    for part in parts.into_iter().flat_map(Node::items) {
        places.push(choice.parts.len());
        let id = || {
            let id = invented_id(setting.seed, *calls);
            *calls += 1;
            id
        };
        let raw = RawPart::read(part)?;
        if !raw.is_nothing() {
            raw.push_into(part, id, &mut choice.parts)?;
        }
    }
    let has_calls = choice
        .parts
        .iter()
        .any(|part| matches!(part, Part::ToolCall(_)));
    let reason = reason.and_then(Node::str).unwrap_or_default();
    choice.stop = match reason.is_empty() {
        true if has_calls => Stop::ToolCalls,
        true => Stop::End,
        false => read_stop(&reason, has_calls),
    };
    cite(&mut choice.parts, &places, grounding, quotes);
    Ok(choice)
}

/// Puts the sources at the texts that refer to them.
fn cite<'a>(
    parts: &mut Vec<Part<'a>>,
    places: &[usize],
    grounding: Option<Node<'_, 'a>>,
    quotes: Option<Node<'_, 'a>>,
) {
    let mut offsets: Option<(usize, Offsets)> = None;
    read_citations(grounding, quotes, |placed| {
        let is_text = |at: &usize| matches!(parts.get(*at), Some(Part::Text(_)));
        let stated = places.get(placed.part).copied().filter(is_text);
        let last = || parts.iter().rposition(|part| matches!(part, Part::Text(_)));
        let mut citation = placed.citation;
        let Some(at) = stated.or_else(last) else {
            return parts.push(Part::Text(Text {
                citations: vec![citation],
                ..Text::default()
            }));
        };
        let Some(Part::Text(text)) = parts.get_mut(at) else {
            return;
        };
        if offsets.as_ref().is_none_or(|(of, _)| *of != at) {
            let mut fresh = Offsets::default();
            fresh.push(&text.text.decode());
            offsets = Some((at, fresh));
        }
        if let (Some((start, end)), Some((_, offsets))) = (placed.bytes, &mut offsets) {
            let start = offsets.chars_before(start);
            let end = offsets.chars_before(end);
            citation.span = start
                .zip(end)
                .map(|(start, end)| (start as u64, end as u64));
        }
        text.citations.push(citation);
    });
}
