//! Amazon Bedrock's Converse and ConverseStream.
//!
//! Source: the API reference of the Bedrock runtime (`Converse`, `ConverseStream` and their types).
//! Blobs are base64, model and streaming are in the path. What only models of Anthropic's know is
//! in `additionalModelRequestFields`, under Anthropic's own names.

mod read;
mod stream;
mod write;

#[cfg(test)]
mod tests;

use super::{Setting, claude::Told};
use crate::{
    conversation::{ErrorMessage, Feature, Features, Request},
    json::{string::JsonStr, tree::Node, write::Writer},
};

pub(super) use read::{read_request, read_response};
pub(crate) use stream::{StreamReader, StreamWriter};
pub(super) use write::{write_request, write_response};

/// What any model can be told, and any client.
pub(super) const EXPRESSES: Features = Features::of(&[
    Feature::Prefill,
    Feature::ImageBase64,
    Feature::DocumentBase64,
    Feature::DocumentText,
    Feature::DocumentName,
    Feature::DocumentContext,
    Feature::DocumentCitations,
    Feature::VideoBase64,
    Feature::ToolResultMedia,
    Feature::ToolResultError,
    Feature::Signature,
    Feature::HiddenReasoning,
    Feature::CacheMark,
    Feature::ToolChoiceRequired,
    Feature::ToolChoiceNamed,
    Feature::MaxTokens,
    Feature::Temperature,
    Feature::TopP,
    Feature::StopSequences,
    Feature::Metadata,
    Feature::ServiceTier,
    Feature::SpecialTier,
    Feature::ReasoningAnswer,
    Feature::SignatureAnswer,
    Feature::ServiceTierAnswer,
]);

/// What models of Anthropic's can be told besides.
const ANTHROPIC: Features = Features::of(&[
    Feature::TopK,
    Feature::ReasoningBudget,
    Feature::ReasoningDisabled,
    Feature::ReasoningAdaptive,
]);

/// What the model of `setting` can be told of `request`.
pub(super) fn expresses(request: &Request<'_>, setting: &Setting<'_>) -> Features {
    if is_anthropic(setting.model) {
        Told::of(request, setting).expresses(EXPRESSES.union(ANTHROPIC))
    } else {
        EXPRESSES
    }
}

/// Whether a model id, an inference profile or an ARN names a model of Anthropic's.
fn is_anthropic(model: &str) -> bool {
    model.contains("anthropic.")
}

/// Formats of media and their types.
const FORMATS: [(&str, &str); 22] = [
    ("png", "image/png"),
    ("jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("pdf", "application/pdf"),
    ("csv", "text/csv"),
    ("doc", "application/msword"),
    (
        "docx",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ),
    ("xls", "application/vnd.ms-excel"),
    (
        "xlsx",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ),
    ("html", "text/html"),
    ("txt", "text/plain"),
    ("md", "text/markdown"),
    ("mkv", "video/x-matroska"),
    ("mov", "video/quicktime"),
    ("mp4", "video/mp4"),
    ("webm", "video/webm"),
    ("flv", "video/x-flv"),
    ("mpeg", "video/mpeg"),
    ("mpg", "video/mpg"),
    ("wmv", "video/x-ms-wmv"),
    ("three_gp", "video/3gpp"),
];

fn type_of(format: &JsonStr<'_>) -> Option<&'static str> {
    let found = FORMATS.iter().find(|(name, _)| format.is(name));
    found.map(|(_, media_type)| *media_type)
}

fn format_of(media_type: &JsonStr<'_>) -> Option<&'static str> {
    if media_type.is("image/jpg") {
        return Some("jpeg");
    }
    let found = FORMATS.iter().find(|(_, name)| media_type.is(name));
    found.map(|(format, _)| *format)
}

/// `{"message": ...}`, under either spelling; the type of an error is a header of its own.
pub(super) fn read_error<'a>(root: Node<'_, 'a>) -> Option<ErrorMessage<'a>> {
    let message = root
        .get_str("message")
        .or_else(|| root.get_str("Message"))?;
    if root.get("output").is_some() {
        return None;
    }
    Some(ErrorMessage {
        kind: root.get_str("__type"),
        message,
        ..ErrorMessage::default()
    })
}

/// The type is in the body, too: the header of the same meaning is not ours to write, and SDKs look
/// in both.
pub(super) fn write_error(status: u16, error: &ErrorMessage<'_>, w: &mut Writer<'_>) {
    w.object(|w| {
        w.key("__type").text(exception_of(status));
        w.key("message").str(&error.message);
    });
}

fn exception_of(status: u16) -> &'static str {
    match status {
        403 | 401 => "AccessDeniedException",
        404 => "ResourceNotFoundException",
        408 | 504 => "ModelTimeoutException",
        424 => "ModelErrorException",
        429 => "ThrottlingException",
        400..=499 => "ValidationException",
        503 | 529 => "ServiceUnavailableException",
        _ => "InternalServerException",
    }
}
