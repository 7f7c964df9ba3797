//! Reading answers.

use super::{read_citation, read_parts::read_message, read_stop, read_usage};
use crate::{
    conversation::{Choice, Malformed, Media, MediaKind, Part, Response, Source, Stop},
    dialect::Setting,
    json::tree::Node,
};

/// Reads a provider's answer.
pub(in crate::dialect) fn read_response<'a>(
    root: Node<'_, 'a>,
    _setting: &Setting<'_>,
) -> Result<Response<'a>, Malformed> {
    let choices = root.get("choices").filter(|choices| !choices.is_empty());
    let choices = choices.ok_or_else(|| Malformed::at(root, "no choices in response"))?;
    let choices = choices.items().map(read_choice).collect::<Result<_, _>>()?;
    Ok(Response {
        id: root.get_str("id"),
        model: root.get_str("model"),
        created: root.get("created").and_then(Node::u64),
        choices,
        usage: root
            .get("usage")
            .filter(|usage| usage.is_object())
            .map(read_usage),
        service_tier: root.get_str("service_tier"),
    })
}

fn read_choice<'a>(choice: Node<'_, 'a>) -> Result<Choice<'a>, Malformed> {
    let message = choice.get("message");
    let mut parts = message.map(read_message).transpose()?.unwrap_or_default();
    let annotations = message.and_then(|message| message.get("annotations"));
    let annotations = annotations.into_iter().flat_map(Node::items);
    let citations: Vec<_> = annotations.filter_map(read_citation).collect();
    let text = parts.iter_mut().find_map(|part| match part {
        Part::Text(text) => Some(text),
        _ => None,
    });
    if let Some(text) = text {
        text.citations = citations;
    }
    if let Some(audio) = message.and_then(|message| message.get("audio"))
        && let Some(data) = audio.get_str("data")
    {
        parts.push(Part::Media(Media::new(
            MediaKind::Audio,
            Source::Base64(data),
            None,
        )));
    }
    let has_calls = parts.iter().any(|part| matches!(part, Part::ToolCall(_)));
    let refuses = parts.iter().any(|part| matches!(part, Part::Refusal(_)));
    let word = choice.get_str("finish_reason").unwrap_or_default();
    let stop = match read_stop(&word, has_calls) {
        Stop::End if refuses => Stop::Refusal,
        stop => stop,
    };
    Ok(Choice {
        parts,
        stop,
        logprobs: choice.get("logprobs").map(|logprobs| logprobs.raw().into()),
    })
}
