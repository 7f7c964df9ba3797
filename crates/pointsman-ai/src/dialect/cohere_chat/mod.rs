//! Cohere's Chat, version 2.
//!
//! Source: Cohere's API reference of `POST /v2/chat` and its stream events. Thoughts are content of type
//! `thinking`, or the `tool_plan` before calls.

mod read;
mod stream;
mod write;

#[cfg(test)]
mod tests;

use crate::{
    Usage,
    conversation::{Citation, ErrorMessage, Feature, Features, Stop},
    json::{string::JsonStr, tree::Node, write::Writer},
};

pub(super) use read::{read_request, read_response};
pub(crate) use stream::{StreamReader, StreamWriter};
pub(super) use write::{write_request, write_response};

/// What models can be told, and clients.
pub(super) const EXPRESSES: Features = Features::of(&[
    Feature::LateSystem,
    Feature::Prefill,
    Feature::ImageBase64,
    Feature::ImageUrl,
    Feature::ImageDetail,
    Feature::ReasoningHistory,
    Feature::ToolStrict,
    Feature::ToolChoiceNone,
    Feature::ToolChoiceRequired,
    Feature::JsonObject,
    Feature::JsonSchema,
    Feature::SchemaConstraints,
    Feature::ReasoningBudget,
    Feature::ReasoningDisabled,
    Feature::ReasoningEnabled,
    Feature::MaxTokens,
    Feature::Temperature,
    Feature::TopP,
    Feature::TopK,
    Feature::FrequencyPenalty,
    Feature::PresencePenalty,
    Feature::Seed,
    Feature::StopSequences,
    Feature::ReasoningAnswer,
    Feature::CitationAnswer,
]);

/// `{"message": ...}`, beside no answer.
pub(super) fn read_error<'a>(root: Node<'_, 'a>) -> Option<ErrorMessage<'a>> {
    Some(ErrorMessage {
        message: root.get_str("message")?,
        ..ErrorMessage::default()
    })
}

pub(super) fn write_error(_status: u16, error: &ErrorMessage<'_>, w: &mut Writer<'_>) {
    w.object(|w| w.key("message").str(&error.message));
}

fn read_stop<'a>(word: &JsonStr<'a>, has_calls: bool) -> Stop<'a> {
    match &*word.decode() {
        "TOOL_CALL" => Stop::ToolCalls,
        "MAX_TOKENS" => Stop::Length,
        "STOP_SEQUENCE" => Stop::Sequence(None),
        "COMPLETE" | "" if has_calls => Stop::ToolCalls,
        "COMPLETE" | "" => Stop::End,
        _ => Stop::Other(word.clone()),
    }
}

fn stop_word(stop: &Stop<'_>) -> &'static str {
    match stop {
        Stop::ToolCalls => "TOOL_CALL",
        Stop::Length => "MAX_TOKENS",
        Stop::Sequence(_) => "STOP_SEQUENCE",
        Stop::End | Stop::Pause | Stop::Refusal | Stop::ContentFilter | Stop::Other(_) => {
            "COMPLETE"
        }
    }
}

/// `tokens`, or what is billed where that is all there is.
fn read_usage(usage: Node<'_, '_>) -> Usage {
    let tokens = usage.get("tokens").or_else(|| usage.get("billed_units"));
    let count = |name| {
        let stated = tokens.and_then(|tokens| tokens.get(name));
        stated.and_then(whole).unwrap_or_default()
    };
    let (prompt, completion) = (count("input_tokens"), count("output_tokens"));
    Usage {
        prompt,
        completion,
        total: prompt.saturating_add(completion),
        cache_read: usage
            .get("cached_tokens")
            .and_then(whole)
            .unwrap_or_default(),
        ..Usage::default()
    }
}

/// A count. Cohere's are floating point numbers to some SDKs.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what does not fit is no count, and becomes the nearest one"
)]
fn whole(number: Node<'_, '_>) -> Option<u64> {
    let float = || Some(number.number()?.parse::<f64>().ok()?.max(0.0) as u64);
    number.u64().or_else(float)
}

fn write_usage(usage: Usage, w: &mut Writer<'_>) {
    w.object(|w| {
        for name in ["billed_units", "tokens"] {
            w.key(name).object(|w| {
                w.key("input_tokens")
                    .u64(usage.prompt + usage.cache_creation);
                w.key("output_tokens").u64(usage.completion);
            });
        }
        if usage.cache_read > 0 {
            w.key("cached_tokens").u64(usage.cache_read);
        }
    });
}

fn read_citation<'a>(citation: Node<'_, 'a>) -> Citation<'a> {
    let source = citation.get("sources").and_then(|list| list.items().next());
    let document = source.and_then(|source| source.get("document"));
    let of_document = |name| document.and_then(|document| document.get_str(name));
    let place = |name| citation.get(name).and_then(Node::u64);
    Citation {
        url: of_document("url"),
        title: of_document("title"),
        quote: of_document("snippet").or_else(|| of_document("text")),
        span: place("start").zip(place("end")),
        native: Some((crate::Protocol::CohereChat, citation.raw().into())),
    }
}

fn write_citation(citation: &Citation<'_>, w: &mut Writer<'_>) {
    w.object(|w| {
        let (start, end) = citation.span.unwrap_or_default();
        w.key("start").u64(start);
        w.key("end").u64(end);
        w.key("text").text("");
        w.key("type").text("TEXT_CONTENT");
        w.key("sources").array(|w| {
            w.object(|w| {
                w.key("type").text("document");
                let id = citation.url.clone().or_else(|| citation.title.clone());
                w.key("id").str(&id.unwrap_or_default());
                w.key("document").object(|w| {
                    for (name, value) in [
                        ("url", &citation.url),
                        ("title", &citation.title),
                        ("snippet", &citation.quote),
                    ] {
                        if let Some(value) = value {
                            w.key(name).str(value);
                        }
                    }
                });
            });
        });
    });
}
