//! The Gemini API's `generateContent` and `streamGenerateContent`, which Vertex AI serves, too
//! (<https://ai.google.dev/api/generate-content>).
//!
//! The model and whether to stream stand in the path, so a body has neither. Bodies are proto3 JSON:
//! a field may be called by its camelCase name or by the one in the `.proto` file, numbers may stand
//! in strings, and a part is whatever its one member says it is. Calls of tools are matched by name
//! and order; ids are optional and written wherever there are any.

mod citations;
mod error;
mod logprobs;
mod offsets;
mod read_part;
mod read_request;
mod read_response;
mod read_settings;
mod read_stream;
mod schema;
#[cfg(test)]
mod tests;
mod write_part;
mod write_request;
mod write_response;
mod write_settings;
mod write_stream;

pub(super) use self::{
    error::{read_error, write_error},
    read_request::read_request,
    read_response::read_response,
    read_stream::StreamReader,
    write_request::write_request,
    write_response::write_response,
    write_stream::StreamWriter,
};
use super::Setting;
use crate::{
    Protocol, Usage,
    conversation::{Feature, Features, Json, Malformed, Stop},
    json::{string::JsonStr, tree::Kind, tree::Node, write::Writer},
};

/// What the protocol can say.
pub(super) const EXPRESSES: Features = Features::all_but(&[
    Feature::LateSystem,
    Feature::MessageName,
    // A resolution of one picture is in the alpha of the API only.
    Feature::ImageDetail,
    // Vertex AI takes a `displayName`, the Gemini API refuses it.
    Feature::DocumentName,
    Feature::DocumentContext,
    Feature::DocumentCitations,
    Feature::SystemMedia,
    Feature::ForeignSignature,
    Feature::RefusalHistory,
    Feature::CitationHistory,
    Feature::CacheMark,
    Feature::OpaquePart,
    Feature::HostedTool,
    Feature::ToolStrict,
    Feature::ParallelToolCalls,
    Feature::SchemaName,
    Feature::SchemaDescription,
    Feature::SchemaStrict,
    Feature::ReasoningEnabled,
    Feature::LogitBias,
    Feature::User,
    // Vertex AI has `labels`, of few characters each; the Gemini API refuses them.
    Feature::Metadata,
    Feature::RefusalAnswer,
    Feature::StopSequenceAnswer,
    Feature::OpaqueAnswer,
]);

/// What the model of `setting` can be told. Before Gemini 3 how much to think is a number, and what
/// tools answer is words: the rest stands in for it.
pub(super) fn expresses(setting: &Setting<'_>) -> Features {
    if is_before_3(setting.model) {
        EXPRESSES.without(Features::of(&[
            Feature::ReasoningEffort,
            Feature::ToolResultMedia,
        ]))
    } else {
        EXPRESSES
    }
}

const OWN: Protocol = Protocol::GeminiGenerateContent;

/// The members `names` of `object`; `rest` gets the others. `null` counts as absent, and of a
/// repeated member the last counts.
fn fields<'t, 'a, const N: usize>(
    object: Node<'t, 'a>,
    names: [&str; N],
    mut rest: impl FnMut(JsonStr<'a>, Node<'t, 'a>),
) -> [Option<Node<'t, 'a>>; N] {
    let mut found = [None; N];
    for (key, value) in object.members() {
        let value = Some(value).filter(|value| !value.is_null());
        if let Some(at) = names.iter().position(|name| is_named(&key, name)) {
            found[at] = value;
        } else if let Some(value) = value {
            rest(key, value);
        }
    }
    found
}

/// The member `name` of `object`.
fn field<'t, 'a>(object: Node<'t, 'a>, name: &str) -> Option<Node<'t, 'a>> {
    let [found] = fields(object, [name], |_, _| {});
    found
}

/// The string member `name` of `object`.
fn text_field<'a>(object: Node<'_, 'a>, name: &str) -> Option<JsonStr<'a>> {
    field(object, name)?.str()
}

/// Whether `key` is the field `camel`, by that name or by the one of the `.proto` file.
fn is_named(key: &JsonStr<'_>, camel: &str) -> bool {
    let mut rest = key.as_spelt().bytes();
    for byte in camel.bytes() {
        let next = rest.next();
        let snake = byte.is_ascii_uppercase() && next == Some(b'_');
        if next != Some(byte) && !(snake && rest.next() == Some(byte.to_ascii_lowercase())) {
            return false;
        }
    }
    rest.next().is_none()
}

fn string<'a>(node: Node<'_, 'a>) -> Result<JsonStr<'a>, Malformed> {
    node.str().ok_or_else(|| expected(node, "a string"))
}

fn boolean(node: Node<'_, '_>) -> Result<bool, Malformed> {
    node.bool().ok_or_else(|| expected(node, "a boolean"))
}

fn object<'t, 'a>(node: Node<'t, 'a>) -> Result<Node<'t, 'a>, Malformed> {
    let is_one = node.is_object();
    is_one
        .then_some(node)
        .ok_or_else(|| expected(node, "an object"))
}

fn array<'t, 'a>(node: Node<'t, 'a>) -> Result<Node<'t, 'a>, Malformed> {
    let is_one = node.is_array();
    is_one
        .then_some(node)
        .ok_or_else(|| expected(node, "an array"))
}

/// A number, which may stand in a string.
fn number<'a>(node: Node<'_, 'a>) -> Result<Json<'a>, Malformed> {
    if let Some(number) = node.number() {
        return Ok(Json::Borrowed(number));
    }
    let quoted = node.raw().strip_prefix('"');
    let inside = quoted.and_then(|rest| rest.strip_suffix('"'));
    let number = inside.filter(|inside| inside.parse::<serde_json::Number>().is_ok());
    number
        .map(Json::Borrowed)
        .ok_or_else(|| expected(node, "a number"))
}

/// A whole number that is not negative.
fn count(node: Node<'_, '_>) -> Result<u64, Malformed> {
    let found = number(node)?.parse().ok();
    found.ok_or_else(|| expected(node, "a whole number of at least 0"))
}

fn expected(node: Node<'_, '_>, what: &str) -> Malformed {
    let found = match node.kind() {
        Kind::Null => "null",
        Kind::Bool => "a boolean",
        Kind::Number => "a number",
        Kind::String => "a string",
        Kind::Array => "an array",
        Kind::Object => "an object",
    };
    Malformed::at(node, format!("expected {what}, found {found}"))
}

/// Stands for a signature that a conversation with another model has not got: Gemini 3 refuses the
/// first call of a step without one
/// (<https://ai.google.dev/gemini-api/docs/thought-signatures>).
const NO_SIGNATURE: &str = "skip_thought_signature_validator";

/// Whether `model` is of a generation before Gemini 3; one that does not say is taken for newer.
fn is_before_3(model: &str) -> bool {
    let generation = model.split_once("gemini-").map(|(_, rest)| rest);
    let digit = generation.and_then(|rest| rest.chars().next());
    matches!(digit, Some('1' | '2'))
}

/// Tokens of a `usageMetadata`.
fn read_usage(node: Node<'_, '_>) -> Usage {
    let [prompt, answer, thoughts, cached, tools, total] = fields(node, USAGE, |_, _| {})
        .map(|node| node.and_then(|node| count(node).ok()).unwrap_or_default());
    let prompt = prompt.saturating_add(tools);
    let completion = answer.saturating_add(thoughts);
    Usage {
        prompt,
        completion,
        total: match total {
            0 => prompt.saturating_add(completion),
            stated => stated,
        },
        cache_read: cached,
        cache_creation: 0,
        reasoning: thoughts,
    }
}

const USAGE: [&str; 6] = [
    "promptTokenCount",
    "candidatesTokenCount",
    "thoughtsTokenCount",
    "cachedContentTokenCount",
    "toolUsePromptTokenCount",
    "totalTokenCount",
];

/// The members of a `usageMetadata`.
fn write_usage(usage: &Usage, w: &mut Writer<'_>) {
    // Of Gemini's prompt everything is a part, what was put into a cache included.
    let prompt = usage.prompt.saturating_add(usage.cache_creation);
    w.key("promptTokenCount").u64(prompt);
    let answer = usage.completion.saturating_sub(usage.reasoning);
    w.key("candidatesTokenCount").u64(answer);
    let total = match usage.total {
        0 => prompt.saturating_add(usage.completion),
        stated => stated,
    };
    w.key("totalTokenCount").u64(total);
    if usage.cache_read > 0 {
        w.key("cachedContentTokenCount").u64(usage.cache_read);
    }
    if usage.reasoning > 0 {
        w.key("thoughtsTokenCount").u64(usage.reasoning);
    }
}

/// Why an answer ended, from a `finishReason`; whether it `calls` tools is no reason of its own.
fn read_stop<'a>(reason: &JsonStr<'a>, calls: bool) -> Stop<'a> {
    let says = |words: &[&str]| words.iter().any(|word| reason.is(word));
    if reason.is("STOP") {
        return if calls { Stop::ToolCalls } else { Stop::End };
    }
    // The limit of one request, behind which another may go on, is a limit all the same.
    if says(&["MAX_TOKENS", "CONTINUATION"]) {
        return Stop::Length;
    }
    if says(FILTERED) {
        return Stop::ContentFilter;
    }
    Stop::Other(reason.clone())
}

/// The `finishReason` of an answer, and a `finishMessage` for what Gemini has no word for.
fn finish_reason<'s>(stop: &'s Stop<'_>) -> (&'static str, Option<&'s JsonStr<'s>>) {
    match stop {
        Stop::End | Stop::Sequence(_) | Stop::ToolCalls | Stop::Pause => ("STOP", None),
        Stop::Length => ("MAX_TOKENS", None),
        Stop::ContentFilter | Stop::Refusal => ("SAFETY", None),
        Stop::Other(word) => {
            let known = FAILED.iter().find(|known| word.is(known));
            known.map_or(("OTHER", Some(word)), |known| (*known, None))
        }
    }
}

/// Reasons that are a filter's.
const FILTERED: &[&str] = &[
    "SAFETY",
    "RECITATION",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT",
    "IMAGE_RECITATION",
    "MODEL_ARMOR",
    "ESCALATION",
    "PUP_LIMITED_DISABLED",
];

/// Reasons for which other protocols have no word.
const FAILED: &[&str] = &[
    "OTHER",
    "LANGUAGE",
    "MALFORMED_FUNCTION_CALL",
    "MALFORMED_RESPONSE",
    "UNEXPECTED_TOOL_CALL",
    "TOO_MANY_TOOL_CALLS",
    "MISSING_THOUGHT_SIGNATURE",
    "IMAGE_OTHER",
    "NO_IMAGE",
    "FINISH_REASON_UNSPECIFIED",
];

/// The id of the call number `index` of an answer that names none.
fn invented_id(seed: &str, index: usize) -> JsonStr<'static> {
    JsonStr::from(format!("call_{seed}_{index}"))
}
