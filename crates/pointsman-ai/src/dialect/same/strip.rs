//! What is left of a conversation without the features that were declared lost.
//!
//! What stands in for a feature, such as a word for a budget, goes with it, so this is done to both
//! sides of a comparison.

use crate::{
    Protocol,
    conversation::{
        Feature, Features, Format, Media, MediaKind, Message, Part, ReasoningSettings, Request,
        Response, Role, Sampling, Source, Text, Tool, ToolChoice,
    },
    json::string::JsonStr,
};

/// `request` for `target`, without what is `lost`. What only other protocols know is always lost.
pub(crate) fn request(request: &mut Request<'_>, lost: Features, target: Protocol) {
    request.extras.retain(|extra| extra.protocol == target);
    request.tools.retain(|tool| match tool {
        Tool::Function(_) => true,
        Tool::Hosted(hosted) => hosted.protocol == target,
    });
    if lost.has(Feature::LateSystem) {
        let instructs =
            |message: &Message<'_>| !matches!(message.role, Role::System | Role::Developer);
        request.messages.sort_by_key(instructs);
    }
    for message in &mut request.messages {
        if lost.has(Feature::MessageName) {
            message.name = None;
        }
        parts(&mut message.parts, message.role, lost, target);
    }
    tools(request, lost);
    settings(request, lost);
}

fn parts(parts: &mut Vec<Part<'_>>, role: Role, lost: Features, target: Protocol) {
    for part in parts.iter_mut() {
        match part {
            Part::Refusal(text) if lost.has(Feature::RefusalHistory) => {
                *part = Part::text(std::mem::take(text));
            }
            Part::Media(Media {
                source: Source::Text(text),
                cache,
                ..
            }) if lost.has(Feature::DocumentText) && matches!(role, Role::User | Role::Tool) => {
                *part = Part::Text(Text {
                    text: std::mem::take(text),
                    cache: cache.take(),
                    citations: Vec::new(),
                });
            }
            _ => {}
        }
    }
    parts.retain_mut(|part| self::part(part, role, lost, target));
}

/// Whether anything is left of it.
fn part(part: &mut Part<'_>, role: Role, lost: Features, target: Protocol) -> bool {
    let unmarked = lost.has(Feature::CacheMark);
    match part {
        Part::Text(text) => {
            if lost.has(Feature::CitationHistory) {
                text.citations.clear();
            }
            text.cache.take_if(|_| unmarked);
        }
        Part::Media(media) => return self::media(media, role, lost),
        Part::ToolCall(call) => {
            let lost = lost.has(Feature::Signature);
            call.signature.take_if(|s| lost || s.origin != target);
            call.cache.take_if(|_| unmarked);
        }
        Part::ToolResult(result) => {
            if lost.has(Feature::ToolResultError) {
                result.is_error = false;
                without_marker(&mut result.parts);
            }
            result.cache.take_if(|_| unmarked);
            parts(&mut result.parts, Role::Tool, lost, target);
        }
        Part::Reasoning(reasoning) => {
            let lost_own = match reasoning.is_hidden {
                true => Feature::HiddenReasoning,
                false => Feature::Signature,
            };
            let lost_own = lost.has(lost_own);
            reasoning
                .signature
                .take_if(|s| lost_own || s.origin != target);
            let unsigned = reasoning.signature.is_none();
            return !(unsigned && (reasoning.is_hidden || lost.has(Feature::ReasoningHistory)));
        }
        Part::Opaque(opaque) => return opaque.protocol == target,
        Part::Refusal(_) => {}
    }
    true
}

/// A word that says of a result what its flag would.
fn without_marker(parts: &mut [Part<'_>]) {
    if let Some(Part::Text(text)) = parts.first_mut()
        && let Some(rest) = text.text.decode().strip_prefix("Error: ")
    {
        text.text = JsonStr::from(rest.to_owned());
    }
}

fn media(media: &mut Media<'_>, role: Role, lost: Features) -> bool {
    let where_lost = match role {
        Role::Assistant => lost.has(Feature::AssistantMedia),
        Role::System | Role::Developer => lost.has(Feature::SystemMedia),
        Role::Tool => lost.has(Feature::ToolResultMedia),
        Role::User => false,
    };
    if where_lost || lost.has(kind_of(media)) {
        return false;
    }
    if lost.has(Feature::ImageDetail) {
        media.detail = None;
    }
    if lost.has(Feature::DocumentName) {
        media.name = None;
    }
    if lost.has(Feature::DocumentContext) {
        media.context = None;
    }
    if lost.has(Feature::DocumentCitations) {
        media.citations = false;
    }
    if lost.has(Feature::CacheMark) {
        media.cache = None;
    }
    true
}

fn kind_of(media: &Media<'_>) -> Feature {
    use Feature::*;
    match (media.kind, &media.source) {
        (MediaKind::Image, Source::Url(_)) => ImageUrl,
        (MediaKind::Image, Source::File(_)) => ImageFile,
        (MediaKind::Image, _) => ImageBase64,
        (MediaKind::Document, Source::Base64(_)) => DocumentBase64,
        (MediaKind::Document, Source::Url(_)) => DocumentUrl,
        (MediaKind::Document, Source::File(_)) => DocumentFile,
        (MediaKind::Document, Source::Text(_)) => DocumentText,
        (MediaKind::Audio, Source::Base64(_) | Source::Text(_)) => AudioBase64,
        (MediaKind::Audio, _) => AudioReference,
        (MediaKind::Video, Source::Base64(_) | Source::Text(_)) => VideoBase64,
        (MediaKind::Video, _) => VideoReference,
    }
}

/// An answer for `client`, without what is `lost`.
pub(crate) fn response(response: &mut Response<'_>, lost: Features, client: Protocol) {
    if lost.has(Feature::ChoicesAnswer) {
        response.choices.truncate(1);
    }
    response
        .service_tier
        .take_if(|_| lost.has(Feature::ServiceTierAnswer));
    for choice in &mut response.choices {
        choice
            .logprobs
            .take_if(|_| lost.has(Feature::LogprobsAnswer));
        choice
            .parts
            .retain_mut(|part| answer_part(part, lost, client));
    }
}

fn answer_part(part: &mut Part<'_>, lost: Features, client: Protocol) -> bool {
    let unsigned = lost.has(Feature::SignatureAnswer);
    match part {
        Part::Text(text) if lost.has(Feature::CitationAnswer) => text.citations.clear(),
        Part::Media(media) => {
            return !lost.has(match media.kind {
                MediaKind::Audio => Feature::AudioAnswer,
                _ => Feature::MediaAnswer,
            });
        }
        Part::ToolCall(call) => {
            let unsigned = lost.has(Feature::CallSignatureAnswer);
            call.signature.take_if(|_| unsigned);
        }
        Part::Reasoning(reasoning) => {
            reasoning.signature.take_if(|_| unsigned);
            return match reasoning.is_hidden {
                true => reasoning.signature.is_some(),
                false => !lost.has(Feature::ReasoningAnswer),
            };
        }
        Part::Refusal(text) if lost.has(Feature::RefusalAnswer) => {
            *part = Part::text(std::mem::take(text));
        }
        Part::Opaque(opaque) => return opaque.protocol == client,
        Part::Text(_) | Part::Refusal(_) | Part::ToolResult(_) => {}
    }
    true
}

fn tools(request: &mut Request<'_>, lost: Features) {
    for tool in &mut request.tools {
        if let Tool::Function(function) = tool {
            if lost.has(Feature::ToolStrict) {
                function.strict = None;
            }
            if lost.has(Feature::CacheMark) {
                function.cache = None;
            }
        }
    }
    request.tool_choice.take_if(|choice| {
        lost.has(match choice {
            ToolChoice::Auto => return true,
            ToolChoice::None => Feature::ToolChoiceNone,
            ToolChoice::Required => Feature::ToolChoiceRequired,
            ToolChoice::Tool(_) => Feature::ToolChoiceNamed,
        })
    });
    if lost.has(Feature::ParallelToolCalls) {
        request.parallel_tool_calls = None;
    }
}

fn settings(request: &mut Request<'_>, lost: Features) {
    request.format.take_if(|format| match format {
        Format::Text => true,
        Format::JsonObject => lost.has(Feature::JsonObject),
        Format::JsonSchema(schema) => {
            schema.name.take_if(|_| lost.has(Feature::SchemaName));
            let description = &mut schema.description;
            description.take_if(|_| lost.has(Feature::SchemaDescription));
            schema.strict.take_if(|_| lost.has(Feature::SchemaStrict));
            lost.has(Feature::JsonSchema)
        }
    });
    if let Some(reasoning) = &mut request.reasoning {
        reasoning.show.take_if(|_| lost.has(Feature::ShowThoughts));
        let amounts = [
            Feature::ReasoningEffort,
            Feature::ReasoningBudget,
            Feature::ReasoningDisabled,
            Feature::ReasoningEnabled,
            Feature::ReasoningAdaptive,
        ];
        if amounts.iter().any(|amount| lost.has(*amount)) {
            *reasoning = ReasoningSettings {
                show: reasoning.show.take(),
                ..ReasoningSettings::default()
            };
        }
    }
    sampling(&mut request.sampling, lost);
    request.user.take_if(|_| lost.has(Feature::User));
    if lost.has(Feature::Metadata) {
        request.metadata.clear();
    }
    if lost.has(Feature::ServiceTier) || lost.has(Feature::SpecialTier) {
        request.service_tier = None;
    }
}

fn sampling(sampling: &mut Sampling<'_>, lost: Features) {
    for (feature, number) in [
        (Feature::MaxTokens, &mut sampling.max_tokens),
        (Feature::Temperature, &mut sampling.temperature),
        (Feature::TopP, &mut sampling.top_p),
        (Feature::TopK, &mut sampling.top_k),
        (Feature::FrequencyPenalty, &mut sampling.frequency_penalty),
        (Feature::PresencePenalty, &mut sampling.presence_penalty),
        (Feature::Seed, &mut sampling.seed),
        (Feature::TopLogprobs, &mut sampling.top_logprobs),
        (Feature::LogitBias, &mut sampling.logit_bias),
    ] {
        number.take_if(|_| lost.has(feature));
    }
    sampling.n.take_if(|_| lost.has(Feature::Choices));
    sampling.logprobs.take_if(|_| lost.has(Feature::Logprobs));
    if lost.has(Feature::StopSequences) {
        sampling.stop.clear();
    }
}
