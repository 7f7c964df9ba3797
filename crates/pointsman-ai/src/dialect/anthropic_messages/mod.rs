//! Anthropic's Messages.
//!
//! Source: Anthropic's API reference of `POST /v1/messages` and its stream events. To clients it gives
//! what APISIX 3.18's converter gives, without its gaps.

mod read_answer;
mod read_parts;
mod read_request;
mod read_stream;
mod write_answer;
mod write_parts;
mod write_request;
mod write_stream;

#[cfg(test)]
mod tests;

use crate::{
    Protocol, Usage,
    conversation::{Citation, ErrorMessage, Feature, Features, Request},
    dialect::{Setting, claude::Told},
    error::anthropic_type,
    json::{string::JsonStr, tree::Node, write::Writer},
};

pub(super) use read_answer::read_response;
pub(super) use read_request::read_request;
pub(crate) use read_stream::StreamReader;
pub(super) use write_answer::write_response;
pub(super) use write_request::write_request;
pub(crate) use write_stream::StreamWriter;

const OWN: Protocol = Protocol::AnthropicMessages;

/// What clients can be told, and models that are not known by their names.
pub(super) const EXPRESSES: Features = Features::of(&[
    Feature::Prefill,
    Feature::ImageBase64,
    Feature::ImageUrl,
    Feature::ImageFile,
    Feature::DocumentBase64,
    Feature::DocumentUrl,
    Feature::DocumentFile,
    Feature::DocumentText,
    Feature::DocumentName,
    Feature::DocumentContext,
    Feature::DocumentCitations,
    Feature::ToolResultMedia,
    Feature::ToolResultError,
    Feature::Signature,
    Feature::HiddenReasoning,
    Feature::CacheMark,
    Feature::ToolStrict,
    Feature::ToolChoiceNone,
    Feature::ToolChoiceRequired,
    Feature::ToolChoiceNamed,
    Feature::ParallelToolCalls,
    Feature::JsonSchema,
    Feature::ReasoningBudget,
    Feature::ReasoningDisabled,
    Feature::ReasoningAdaptive,
    Feature::MaxTokens,
    Feature::Temperature,
    Feature::TopP,
    Feature::TopK,
    Feature::StopSequences,
    Feature::User,
    Feature::ServiceTier,
    Feature::ReasoningAnswer,
    Feature::SignatureAnswer,
    Feature::CitationAnswer,
    Feature::RefusalAnswer,
    Feature::StopSequenceAnswer,
]);

/// What the model of `setting` can be told of `request`.
pub(super) fn expresses(request: &Request<'_>, setting: &Setting<'_>) -> Features {
    Told::of(request, setting).expresses(EXPRESSES)
}

/// `{"type": "error", "error": {"type", "message"}}`.
pub(super) fn read_error<'a>(root: Node<'_, 'a>) -> Option<ErrorMessage<'a>> {
    let error = root.get("error")?;
    Some(ErrorMessage {
        kind: error.get_str("type"),
        message: error.get_str("message").or_else(|| error.str())?,
        ..ErrorMessage::default()
    })
}

/// The provider's own type stays, but for statuses that say more than it.
pub(super) fn write_error(status: u16, error: &ErrorMessage<'_>, w: &mut Writer<'_>) {
    let own = error.kind.as_ref().or(error.code.as_ref());
    let by_status = matches!(status, 429 | 500..=599);
    write_error_as(status, own.filter(|_| !by_status), error, w);
}

fn write_error_as(
    status: u16,
    kind: Option<&JsonStr<'_>>,
    error: &ErrorMessage<'_>,
    w: &mut Writer<'_>,
) {
    w.object(|w| {
        w.key("type").text("error");
        w.key("error").object(|w| {
            w.key("type");
            match kind {
                Some(kind) => w.str(kind),
                None if status < 400 => w.text("api_error"),
                None => w.text(anthropic_type(status)),
            }
            w.key("message").str(&error.message);
        });
    });
}

/// Counts as they are stated: tokens that went into a cache or came from one stand beside the input.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    input: u64,
    output: u64,
    read: u64,
    created: u64,
}

impl Counts {
    /// Takes over what `usage` states.
    fn update(&mut self, usage: Node<'_, '_>) {
        for (name, count) in [
            ("input_tokens", &mut self.input),
            ("output_tokens", &mut self.output),
            ("cache_read_input_tokens", &mut self.read),
            ("cache_creation_input_tokens", &mut self.created),
        ] {
            if let Some(stated) = usage.get(name).and_then(Node::u64) {
                *count = stated;
            }
        }
    }

    fn usage(self) -> Usage {
        let prompt = self.input.saturating_add(self.read);
        let total = prompt
            .saturating_add(self.created)
            .saturating_add(self.output);
        Usage {
            prompt,
            completion: self.output,
            total,
            cache_read: self.read,
            cache_creation: self.created,
            reasoning: 0,
        }
    }
}

fn write_usage(usage: Usage, w: &mut Writer<'_>) {
    w.object(|w| {
        w.key("input_tokens")
            .u64(usage.prompt.saturating_sub(usage.cache_read));
        w.key("output_tokens").u64(usage.completion);
        if usage.cache_read > 0 || usage.cache_creation > 0 {
            w.key("cache_creation_input_tokens")
                .u64(usage.cache_creation);
            w.key("cache_read_input_tokens").u64(usage.cache_read);
        }
    });
}

fn read_citation<'a>(citation: Node<'_, 'a>) -> Citation<'a> {
    Citation {
        url: citation
            .get_str("url")
            .or_else(|| citation.get_str("source")),
        title: citation
            .get_str("title")
            .or_else(|| citation.get_str("document_title")),
        quote: citation.get_str("cited_text"),
        span: None,
        native: Some((OWN, citation.raw().into())),
    }
}

/// One of another protocol's becomes what Anthropic's own search would say.
fn write_citation(citation: &Citation<'_>, w: &mut Writer<'_>) {
    if let Some((OWN, json)) = &citation.native {
        return w.raw(json);
    }
    let text = |text: &Option<JsonStr<'_>>, w: &mut Writer<'_>| match text {
        Some(text) => w.str(text),
        None => w.text(""),
    };
    w.object(|w| {
        w.key("type").text("web_search_result_location");
        w.key("url");
        text(&citation.url, w);
        w.key("title");
        text(&citation.title, w);
        w.key("cited_text");
        text(&citation.quote, w);
        w.key("encrypted_index").text("");
    });
}
