//! OpenAI's Chat Completions, and what others made of it.
//!
//! Source: OpenAI's API reference; for thoughts DeepSeek (`reasoning_content`), OpenRouter
//! (`reasoning_details`) and Gemini's OpenAI surface (`extra_content`). Requests of Anthropic's clients
//! become what APISIX 3.18's converter makes of them.

mod error;
mod read_answer;
mod read_parts;
mod read_request;
mod read_stream;
mod schema;
mod tools;
mod write_answer;
mod write_parts;
mod write_request;
mod write_stream;

#[cfg(test)]
mod tests;

use crate::{
    Protocol, Provider, Usage,
    conversation::{Citation, Feature, Features, Stop},
    dialect::Setting,
    json::{string::JsonStr, tree::Node, write::Writer},
};

pub(super) use error::{read_error, write_error};
pub(super) use read_answer::read_response;
pub(super) use read_request::read_request;
pub(crate) use read_stream::StreamReader;
pub(super) use write_answer::write_response;
pub(super) use write_request::write_request;
pub(crate) use write_stream::StreamWriter;

const OWN: Protocol = Protocol::OpenaiChat;

/// What models can be told, and clients. How much to think is a word here.
pub(super) const EXPRESSES: Features = Features::all_but(&[
    Feature::ImageFile,
    Feature::DocumentUrl,
    Feature::DocumentText,
    Feature::DocumentContext,
    Feature::DocumentCitations,
    Feature::AudioReference,
    Feature::VideoBase64,
    Feature::VideoReference,
    Feature::AssistantMedia,
    Feature::SystemMedia,
    Feature::ToolResultError,
    Feature::ReasoningHistory,
    Feature::ForeignSignature,
    Feature::CitationHistory,
    Feature::CacheMark,
    Feature::OpaquePart,
    Feature::HostedTool,
    Feature::ReasoningBudget,
    Feature::ReasoningDisabled,
    Feature::ReasoningEnabled,
    Feature::ReasoningAdaptive,
    Feature::ShowThoughts,
    Feature::TopK,
    Feature::MediaAnswer,
    Feature::StopSequenceAnswer,
    Feature::OpaqueAnswer,
]);

/// What `setting`'s provider can be told. Only OpenAI itself takes documents as files.
pub(super) fn expresses(setting: &Setting<'_>) -> Features {
    if takes_files(setting.provider) {
        EXPRESSES
    } else {
        EXPRESSES.without(Features::of(&[
            Feature::DocumentName,
            Feature::DocumentFile,
        ]))
    }
}

fn takes_files(provider: Provider) -> bool {
    matches!(
        provider,
        Provider::Openai | Provider::AzureOpenai | Provider::Openrouter
    )
}

fn read_stop<'a>(word: &JsonStr<'a>, has_calls: bool) -> Stop<'a> {
    match &*word.decode() {
        "tool_calls" | "function_call" => Stop::ToolCalls,
        "length" => Stop::Length,
        "content_filter" => Stop::ContentFilter,
        "stop" | "" if has_calls => Stop::ToolCalls,
        "stop" | "" => Stop::End,
        _ => Stop::Other(word.clone()),
    }
}

/// A refusal without the words of one is nearest to what a filter does.
fn stop_word(stop: &Stop<'_>, has_refusal: bool) -> &'static str {
    match stop {
        Stop::Refusal if !has_refusal => "content_filter",
        Stop::ToolCalls => "tool_calls",
        Stop::Length => "length",
        Stop::ContentFilter => "content_filter",
        Stop::End | Stop::Sequence(_) | Stop::Refusal | Stop::Pause | Stop::Other(_) => "stop",
    }
}

fn read_usage(usage: Node<'_, '_>) -> Usage {
    let count = |of: Option<Node<'_, '_>>, name| of.and_then(|of| of.get(name)).and_then(Node::u64);
    let prompt_details = usage.get("prompt_tokens_details");
    let completion_details = usage.get("completion_tokens_details");
    let top = |name| count(Some(usage), name);
    let prompt = top("prompt_tokens").unwrap_or_default();
    let completion = top("completion_tokens").unwrap_or_default();
    let cached = count(prompt_details, "cached_tokens").or_else(|| top("prompt_cache_hit_tokens"));
    let created = count(prompt_details, "cache_creation_input_tokens")
        .or_else(|| count(prompt_details, "cache_write_tokens"));
    let cache_creation = created.unwrap_or_default();
    let summed = prompt
        .saturating_add(completion)
        .saturating_add(cache_creation);
    Usage {
        prompt,
        completion,
        total: top("total_tokens").unwrap_or(summed),
        cache_read: cached.unwrap_or_default(),
        cache_creation,
        reasoning: count(completion_details, "reasoning_tokens").unwrap_or_default(),
    }
}

fn write_usage(usage: Usage, w: &mut Writer<'_>) {
    w.object(|w| {
        w.key("prompt_tokens").u64(usage.prompt);
        w.key("completion_tokens").u64(usage.completion);
        w.key("total_tokens").u64(usage.total);
        w.key("prompt_tokens_details").object(|w| {
            w.key("cached_tokens").u64(usage.cache_read);
            if usage.cache_creation > 0 {
                w.key("cache_creation_input_tokens")
                    .u64(usage.cache_creation);
            }
        });
        w.key("completion_tokens_details")
            .object(|w| w.key("reasoning_tokens").u64(usage.reasoning));
    });
}

/// An annotation, if it is a source.
fn read_citation<'a>(annotation: Node<'_, 'a>) -> Option<Citation<'a>> {
    let cited = annotation.get("url_citation")?;
    let place = |name| cited.get(name).and_then(Node::u64);
    Some(Citation {
        url: cited.get_str("url"),
        title: cited.get_str("title"),
        quote: cited.get_str("content"),
        span: place("start_index").zip(place("end_index")),
        native: Some((OWN, annotation.raw().into())),
    })
}

fn write_citation(citation: &Citation<'_>, w: &mut Writer<'_>) {
    if let Some((OWN, json)) = &citation.native {
        return w.raw(json);
    }
    w.object(|w| {
        w.key("type").text("url_citation");
        w.key("url_citation").object(|w| {
            let (start, end) = citation.span.unwrap_or_default();
            w.key("start_index").u64(start);
            w.key("end_index").u64(end);
            for (name, text) in [("url", &citation.url), ("title", &citation.title)] {
                w.key(name);
                match text {
                    Some(text) => w.str(text),
                    None => w.text(""),
                }
            }
        });
    });
}
