//! OpenAI's Responses API.
//!
//! Source: OpenAI's API reference of `POST /v1/responses` and its stream events, and the types of the
//! official SDKs. A conversation is a flat list of items; here, those of one turn of the model are one
//! message. State that the provider keeps (`previous_response_id`, `conversation`, references to
//! items) is passed on to it and cannot be had elsewhere.

mod allowed;
mod error;
mod items;
mod read_input;
mod read_request;
mod read_response;
mod read_stream;
mod write_input;
mod write_request;
mod write_response;
mod write_stream;

#[cfg(test)]
mod tests;

use crate::{
    Protocol,
    conversation::{Feature, Features},
};

pub(super) use error::{read_error, write_error};
pub(super) use read_request::read_request;
pub(super) use read_response::read_response;
pub(crate) use read_stream::StreamReader;
pub(super) use write_request::write_request;
pub(super) use write_response::write_response;
pub(crate) use write_stream::StreamWriter;

const OWN: Protocol = Protocol::OpenaiResponses;

/// What models can be told, and clients.
pub(super) const EXPRESSES: Features = Features::of(&[
    Feature::LateSystem,
    Feature::Prefill,
    Feature::ImageBase64,
    Feature::ImageUrl,
    Feature::ImageFile,
    Feature::ImageDetail,
    Feature::DocumentBase64,
    Feature::DocumentUrl,
    Feature::DocumentFile,
    Feature::DocumentName,
    Feature::ToolResultMedia,
    Feature::Signature,
    Feature::HiddenReasoning,
    Feature::RefusalHistory,
    Feature::ToolStrict,
    Feature::ToolChoiceNone,
    Feature::ToolChoiceRequired,
    Feature::ToolChoiceNamed,
    Feature::ParallelToolCalls,
    Feature::JsonObject,
    Feature::JsonSchema,
    Feature::SchemaConstraints,
    Feature::SchemaName,
    Feature::SchemaDescription,
    Feature::SchemaStrict,
    Feature::ReasoningEffort,
    Feature::ReasoningDisabled,
    Feature::ShowThoughts,
    Feature::MaxTokens,
    Feature::Temperature,
    Feature::TopP,
    Feature::Logprobs,
    Feature::TopLogprobs,
    Feature::User,
    Feature::Metadata,
    Feature::ServiceTier,
    Feature::SpecialTier,
    Feature::ReasoningAnswer,
    Feature::SignatureAnswer,
    Feature::CallSignatureAnswer,
    Feature::CitationAnswer,
    Feature::LogprobsAnswer,
    Feature::RefusalAnswer,
    Feature::ServiceTierAnswer,
]);
