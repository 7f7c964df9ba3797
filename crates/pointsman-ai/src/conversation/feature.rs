//! What can be said in some protocols and not in others.

use super::{
    Block, Event, Format, Media, MediaKind, Message, Part, ReasoningMode, Request, Response, Role,
    Source, Text, Tool, ToolChoice,
};
use crate::{Protocol, json::string::JsonStr};

macro_rules! features {
    ($($(#[doc = $doc:literal])* $feature:ident = $name:literal,)*) => {
        /// Something that a request or a response may say, and that not every protocol can.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Feature { $($(#[doc = $doc])* $feature,)* }

        impl Feature {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$feature),*];

            /// Its name in reports, such as `top_k` or `messages.image.url`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$feature => $name),* }
            }

            /// What it is, in a few words.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$feature => concat!($($doc),*).trim_ascii()),* }
            }

            /// It is of answers, not of requests.
            pub fn is_of_answers(self) -> bool {
                self.name().starts_with("answer.")
            }
        }
    };
}

features! {
    /// Instructions behind the first other message.
    LateSystem = "messages.system.position",
    /// An end in the model's own words, for it to go on from there.
    Prefill = "messages.prefill",
    /// Names of those who speak.
    MessageName = "messages.name",
    /// Pictures in base64.
    ImageBase64 = "messages.image.base64",
    /// Pictures at an address.
    ImageUrl = "messages.image.url",
    /// Pictures that the provider keeps.
    ImageFile = "messages.image.file",
    /// How closely to look.
    ImageDetail = "messages.image.detail",
    /// Documents in base64.
    DocumentBase64 = "messages.document.base64",
    /// Documents at an address.
    DocumentUrl = "messages.document.url",
    /// Documents that the provider keeps.
    DocumentFile = "messages.document.file",
    /// Documents of plain text.
    DocumentText = "messages.document.text",
    /// Name or title of a document.
    DocumentName = "messages.document.title",
    /// What to know about a document.
    DocumentContext = "messages.document.context",
    /// A document that is to be cited.
    DocumentCitations = "messages.document.citations",
    /// Sound in base64.
    AudioBase64 = "messages.audio.base64",
    /// Sound that is elsewhere.
    AudioReference = "messages.audio.reference",
    /// Films in base64.
    VideoBase64 = "messages.video.base64",
    /// Films that are elsewhere.
    VideoReference = "messages.video.reference",
    /// Media in the model's own messages.
    AssistantMedia = "messages.assistant.media",
    /// Media in instructions.
    SystemMedia = "messages.system.media",
    /// Media in what a tool answered.
    ToolResultMedia = "messages.tool_result.media",
    /// That a tool failed, other than in words.
    ToolResultError = "messages.tool_result.is_error",
    /// Thoughts of earlier turns that this protocol's own provider did not sign.
    ReasoningHistory = "messages.reasoning",
    /// What the provider wants back, from this protocol's own provider.
    Signature = "messages.reasoning.signature",
    /// Hidden thoughts, from this protocol's own provider.
    HiddenReasoning = "messages.reasoning.hidden",
    /// What another protocol's provider wants back.
    ForeignSignature = "messages.reasoning.foreign_signature",
    /// Refusals of earlier turns as such.
    RefusalHistory = "messages.refusal",
    /// Sources of earlier answers.
    CitationHistory = "messages.citations",
    /// Where the provider's cache may cut.
    CacheMark = "cache_control",
    /// Pieces that only the client's protocol knows.
    OpaquePart = "messages.unknown",
    /// Tools that the provider runs.
    HostedTool = "tools.hosted",
    /// Arguments are made to fit the schema.
    ToolStrict = "tools.strict",
    /// No tool may be called.
    ToolChoiceNone = "tool_choice.none",
    /// Some tool must be called.
    ToolChoiceRequired = "tool_choice.required",
    /// One tool must be called.
    ToolChoiceNamed = "tool_choice.tool",
    /// At most one call at a time, or not.
    ParallelToolCalls = "parallel_tool_calls",
    /// JSON without a schema.
    JsonObject = "response_format.json_object",
    /// JSON by a schema.
    JsonSchema = "response_format.json_schema",
    /// Name of the schema.
    SchemaName = "response_format.name",
    /// What the schema describes.
    SchemaDescription = "response_format.description",
    /// Whether the answer is made to fit.
    SchemaStrict = "response_format.strict",
    /// What a schema says beyond types: bounds, and objects with members of any name.
    SchemaConstraints = "response_format.constraints",
    /// How much to think, in a word.
    ReasoningEffort = "reasoning.effort",
    /// How much to think, in tokens.
    ReasoningBudget = "reasoning.budget",
    /// Not to think.
    ReasoningDisabled = "reasoning.disabled",
    /// To think, with no word of how much.
    ReasoningEnabled = "reasoning.enabled",
    /// To think as much as the model sees fit.
    ReasoningAdaptive = "reasoning.adaptive",
    /// Whether thoughts are shown.
    ShowThoughts = "reasoning.summary",
    /// Limit of the answer's tokens.
    MaxTokens = "max_tokens",
    /// Temperature.
    Temperature = "temperature",
    /// Nucleus sampling.
    TopP = "top_p",
    /// The k most likely tokens.
    TopK = "top_k",
    /// Penalty by frequency.
    FrequencyPenalty = "frequency_penalty",
    /// Penalty by presence.
    PresencePenalty = "presence_penalty",
    /// Seed.
    Seed = "seed",
    /// More than one answer.
    Choices = "n",
    /// Strings that end the answer.
    StopSequences = "stop",
    /// Probabilities of tokens.
    Logprobs = "logprobs",
    /// How many alternatives to show.
    TopLogprobs = "top_logprobs",
    /// Preferences for tokens.
    LogitBias = "logit_bias",
    /// Who asks.
    User = "user",
    /// Pairs to keep.
    Metadata = "metadata",
    /// The usual tier of service.
    ServiceTier = "service_tier",
    /// Another tier of service, such as a cheaper or a faster one.
    SpecialTier = "service_tier.special",
    /// In an answer: thoughts.
    ReasoningAnswer = "answer.reasoning",
    /// In an answer: hidden thoughts, or what the provider wants back.
    SignatureAnswer = "answer.reasoning.signature",
    /// In an answer: what the provider wants back with a call.
    CallSignatureAnswer = "answer.tool_call.signature",
    /// In an answer: sources.
    CitationAnswer = "answer.citations",
    /// In an answer: probabilities of tokens.
    LogprobsAnswer = "answer.logprobs",
    /// In an answer: sound.
    AudioAnswer = "answer.audio",
    /// In an answer: pictures, films, documents.
    MediaAnswer = "answer.media",
    /// In an answer: a refusal as such.
    RefusalAnswer = "answer.refusal",
    /// In an answer: which stop string it was.
    StopSequenceAnswer = "answer.stop_sequence",
    /// In an answer: more than one choice.
    ChoicesAnswer = "answer.choices",
    /// In an answer: the tier of service.
    ServiceTierAnswer = "answer.service_tier",
    /// In an answer: pieces that only the provider's protocol knows.
    OpaqueAnswer = "answer.unknown",
}

/// A set of features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(u128);

impl Features {
    /// None.
    pub const NONE: Self = Self(0);

    /// These.
    pub const fn of(list: &[Feature]) -> Self {
        let mut set = 0;
        let mut index = 0;
        while index < list.len() {
            set |= 1 << list[index] as u32;
            index += 1;
        }
        Self(set)
    }

    /// All but these.
    pub const fn all_but(list: &[Feature]) -> Self {
        Self(!Self::of(list).0)
    }

    /// Adds `feature`, if `is_there`.
    pub fn note(&mut self, feature: Feature, is_there: bool) {
        self.0 |= u128::from(is_there) << feature as u32;
    }

    /// Whether `feature` is in it.
    pub fn has(self, feature: Feature) -> bool {
        self.0 & (1 << feature as u32) != 0
    }

    /// Those that are not in `other`.
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Those of either.
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Their names, in order.
    pub fn names(self) -> Vec<String> {
        self.iter()
            .map(|feature| feature.name().to_owned())
            .collect()
    }

    /// There are none.
    pub fn is_empty(self) -> bool {
        self.iter().next().is_none()
    }

    /// Each, in order.
    pub fn iter(self) -> impl Iterator<Item = Feature> {
        Feature::ALL
            .iter()
            .copied()
            .filter(move |feature| self.has(*feature))
    }
}

impl Request<'_> {
    /// What it says that `target` might not be able to.
    pub fn features(&self, target: Protocol) -> Features {
        let mut found = Features::NONE;
        let mut began = false;
        for message in &self.messages {
            let instructs = matches!(message.role, Role::System | Role::Developer);
            found.note(Feature::LateSystem, instructs && began);
            began |= !instructs;
            message.note(target, &mut found);
        }
        found.note(Feature::Prefill, self.ends_with_the_model());
        self.note_tools(target, &mut found);
        self.note_settings(&mut found);
        found
    }

    /// Who speaks last is the model. Messages that say nothing are left out wherever they would be refused.
    pub(crate) fn ends_with_the_model(&self) -> bool {
        let says = |message: &&Message<'_>| {
            !message.instructs()
                && message.parts.iter().any(|part| match part {
                    Part::Text(text) => !text.text.is_blank(),
                    Part::Refusal(text) => !text.is_blank(),
                    _ => true,
                })
        };
        let last = self.messages.iter().rfind(says);
        last.is_some_and(|message| message.role == Role::Assistant)
    }

    fn note_tools(&self, target: Protocol, found: &mut Features) {
        for tool in &self.tools {
            match tool {
                Tool::Hosted(hosted) => {
                    found.note(Feature::HostedTool, hosted.protocol != target);
                }
                Tool::Function(function) => {
                    found.note(Feature::ToolStrict, function.strict == Some(true));
                    found.note(Feature::CacheMark, function.cache.is_some());
                }
            }
        }
        match &self.tool_choice {
            None | Some(ToolChoice::Auto) => {}
            Some(ToolChoice::None) => found.note(Feature::ToolChoiceNone, true),
            Some(ToolChoice::Required) => found.note(Feature::ToolChoiceRequired, true),
            Some(ToolChoice::Tool(_)) => found.note(Feature::ToolChoiceNamed, true),
        }
        found.note(
            Feature::ParallelToolCalls,
            self.parallel_tool_calls == Some(false),
        );
    }

    fn note_settings(&self, found: &mut Features) {
        match &self.format {
            None | Some(Format::Text) => {}
            Some(Format::JsonObject) => found.note(Feature::JsonObject, true),
            Some(Format::JsonSchema(schema)) => {
                found.note(Feature::JsonSchema, true);
                found.note(Feature::SchemaName, schema.name.is_some());
                found.note(Feature::SchemaDescription, schema.description.is_some());
                found.note(Feature::SchemaStrict, schema.strict.is_some());
                let constrains = super::schema::closed(&schema.schema).loses;
                found.note(Feature::SchemaConstraints, constrains);
            }
        }
        if let Some(reasoning) = &self.reasoning {
            found.note(Feature::ReasoningEffort, reasoning.effort.is_some());
            found.note(Feature::ReasoningBudget, reasoning.budget.is_some());
            let is_amount = reasoning.effort.is_some() || reasoning.budget.is_some();
            found.note(
                match reasoning.mode {
                    Some(ReasoningMode::Disabled) => Feature::ReasoningDisabled,
                    Some(ReasoningMode::Adaptive) => Feature::ReasoningAdaptive,
                    Some(ReasoningMode::Enabled) | None => Feature::ReasoningEnabled,
                },
                match reasoning.mode {
                    Some(ReasoningMode::Disabled) => true,
                    Some(_) => !is_amount,
                    None => false,
                },
            );
            found.note(Feature::ShowThoughts, reasoning.show.is_some());
        }
        let sampling = &self.sampling;
        let tier = self.service_tier.as_ref();
        let is_usual = |tier: &JsonStr<'_>| tier.is("auto") || tier.is("default");
        for (feature, is_there) in [
            (Feature::MaxTokens, sampling.max_tokens.is_some()),
            (Feature::Temperature, sampling.temperature.is_some()),
            (Feature::TopP, sampling.top_p.is_some()),
            (Feature::TopK, sampling.top_k.is_some()),
            (
                Feature::FrequencyPenalty,
                sampling.frequency_penalty.is_some(),
            ),
            (
                Feature::PresencePenalty,
                sampling.presence_penalty.is_some(),
            ),
            (Feature::Seed, sampling.seed.is_some()),
            (Feature::Choices, sampling.n.is_some_and(|n| n > 1)),
            (Feature::StopSequences, !sampling.stop.is_empty()),
            (Feature::Logprobs, sampling.logprobs == Some(true)),
            (Feature::TopLogprobs, sampling.top_logprobs.is_some()),
            (Feature::LogitBias, sampling.logit_bias.is_some()),
            (Feature::User, self.user.is_some()),
            (Feature::Metadata, !self.metadata.is_empty()),
            (Feature::ServiceTier, tier.is_some_and(is_usual)),
            (
                Feature::SpecialTier,
                tier.is_some_and(|tier| !is_usual(tier)),
            ),
        ] {
            found.note(feature, is_there);
        }
    }
}

impl Message<'_> {
    fn note(&self, target: Protocol, found: &mut Features) {
        found.note(Feature::MessageName, self.name.is_some());
        for part in &self.parts {
            if matches!(part, Part::Media(_)) {
                found.note(Feature::AssistantMedia, self.role == Role::Assistant);
                let instructs = matches!(self.role, Role::System | Role::Developer);
                found.note(Feature::SystemMedia, instructs);
            }
            part.note(target, found);
        }
    }
}

impl Part<'_> {
    fn note(&self, target: Protocol, found: &mut Features) {
        match self {
            Self::Text(Text {
                citations, cache, ..
            }) => {
                found.note(Feature::CitationHistory, !citations.is_empty());
                found.note(Feature::CacheMark, cache.is_some());
            }
            Self::Media(media) => media.note(found),
            Self::ToolCall(call) => {
                found.note(Feature::CacheMark, call.cache.is_some());
                if let Some(signature) = &call.signature {
                    found.note(Feature::Signature, signature.origin == target);
                    found.note(Feature::ForeignSignature, signature.origin != target);
                }
            }
            Self::ToolResult(result) => {
                found.note(Feature::ToolResultError, result.is_error);
                found.note(Feature::CacheMark, result.cache.is_some());
                for part in &result.parts {
                    found.note(Feature::ToolResultMedia, matches!(part, Part::Media(_)));
                    part.note(target, found);
                }
            }
            Self::Reasoning(reasoning) => {
                let origin = reasoning
                    .signature
                    .as_ref()
                    .map(|signature| signature.origin);
                let own = origin == Some(target);
                let hidden = reasoning.is_hidden;
                // Signed thoughts are the provider's own, and go back to it with their signature.
                found.note(Feature::ReasoningHistory, !hidden && !own);
                found.note(Feature::HiddenReasoning, hidden && own);
                found.note(Feature::Signature, !hidden && own);
                found.note(Feature::ForeignSignature, origin.is_some() && !own);
            }
            Self::Refusal(_) => found.note(Feature::RefusalHistory, true),
            Self::Opaque(opaque) => {
                found.note(Feature::OpaquePart, opaque.protocol != target);
            }
        }
    }
}

impl Media<'_> {
    fn note(&self, found: &mut Features) {
        use Feature::*;
        let feature = match (self.kind, &self.source) {
            (MediaKind::Image, Source::Base64(_) | Source::Text(_)) => ImageBase64,
            (MediaKind::Image, Source::Url(_)) => ImageUrl,
            (MediaKind::Image, Source::File(_)) => ImageFile,
            (MediaKind::Document, Source::Base64(_)) => DocumentBase64,
            (MediaKind::Document, Source::Url(_)) => DocumentUrl,
            (MediaKind::Document, Source::File(_)) => DocumentFile,
            (MediaKind::Document, Source::Text(_)) => DocumentText,
            (MediaKind::Audio, Source::Base64(_) | Source::Text(_)) => AudioBase64,
            (MediaKind::Audio, _) => AudioReference,
            (MediaKind::Video, Source::Base64(_) | Source::Text(_)) => VideoBase64,
            (MediaKind::Video, _) => VideoReference,
        };
        found.note(feature, true);
        found.note(ImageDetail, self.detail.is_some());
        found.note(
            DocumentName,
            self.kind == MediaKind::Document && self.name.is_some(),
        );
        found.note(DocumentContext, self.context.is_some());
        found.note(DocumentCitations, self.citations);
        found.note(CacheMark, self.cache.is_some());
    }
}

impl Response<'_> {
    /// What it says that the protocol of a client might not be able to.
    pub fn features(&self, client: Protocol) -> Features {
        let mut found = Features::NONE;
        found.note(Feature::ChoicesAnswer, self.choices.len() > 1);
        found.note(Feature::ServiceTierAnswer, self.service_tier.is_some());
        for choice in &self.choices {
            found.note(Feature::LogprobsAnswer, choice.logprobs.is_some());
            let sequence = matches!(choice.stop, super::Stop::Sequence(Some(_)));
            found.note(Feature::StopSequenceAnswer, sequence);
            for part in &choice.parts {
                part.note_answer(client, &mut found);
            }
        }
        found
    }
}

impl Event<'_> {
    /// Notes what it says that the protocol of a client might not be able to. `in_call`: the open block of
    /// its choice is a call.
    pub(crate) fn note(&self, client: Protocol, in_call: bool, found: &mut Features) {
        match self {
            Self::BlockStart { block, .. } => match block {
                Block::Text | Block::Hidden | Block::ToolCall { .. } => {}
                Block::Reasoning => found.note(Feature::ReasoningAnswer, true),
                Block::Refusal => found.note(Feature::RefusalAnswer, true),
                Block::Opaque(opaque) => {
                    found.note(Feature::OpaqueAnswer, opaque.protocol != client);
                }
            },
            Self::Signature { .. } => {
                found.note(Feature::CallSignatureAnswer, in_call);
                found.note(Feature::SignatureAnswer, !in_call);
            }
            Self::Citation { .. } => found.note(Feature::CitationAnswer, true),
            Self::Logprobs { .. } => found.note(Feature::LogprobsAnswer, true),
            Self::Stop { stop, .. } => {
                let sequence = matches!(stop, super::Stop::Sequence(Some(_)));
                found.note(Feature::StopSequenceAnswer, sequence);
            }
            Self::Start { .. }
            | Self::Delta { .. }
            | Self::BlockEnd { .. }
            | Self::Usage(_)
            | Self::Tier(_)
            | Self::Ping
            | Self::Error(_)
            | Self::End => {}
        }
    }
}

impl Part<'_> {
    fn note_answer(&self, client: Protocol, found: &mut Features) {
        match self {
            Self::Text(text) => found.note(Feature::CitationAnswer, !text.citations.is_empty()),
            Self::Media(media) => {
                let is_sound =
                    media.kind == MediaKind::Audio && matches!(media.source, Source::Base64(_));
                found.note(Feature::AudioAnswer, is_sound);
                found.note(Feature::MediaAnswer, !is_sound);
            }
            Self::ToolCall(call) => {
                found.note(Feature::CallSignatureAnswer, call.signature.is_some());
            }
            Self::ToolResult(_) => {}
            Self::Reasoning(reasoning) => {
                found.note(Feature::ReasoningAnswer, !reasoning.is_hidden);
                found.note(Feature::SignatureAnswer, reasoning.signature.is_some());
            }
            Self::Refusal(_) => found.note(Feature::RefusalAnswer, true),
            Self::Opaque(opaque) => {
                found.note(Feature::OpaqueAnswer, opaque.protocol != client);
            }
        }
    }
}
