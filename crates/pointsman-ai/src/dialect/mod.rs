//! The protocols, each as a reader and a writer of conversations.
//!
//! A dialect knows its own protocol and none of the others. What it cannot say is in its
//! `EXPRESSES`, so what a translation loses is known before anything is written: the features of
//! the conversation without those that the target expresses.

mod anthropic_messages;
mod bedrock_converse;
mod claude;
mod cohere_chat;
mod gemini_generate_content;
mod openai_chat;
mod openai_responses;

#[cfg(test)]
mod properties;
#[cfg(any(test, fuzzing))]
pub(crate) mod same;

use crate::{
    Protocol, Provider, VectorApi,
    conversation::{ErrorMessage, Event, Feature, Features, Malformed, Request, Response},
    json::{self, tree::Node, tree::Tree, write::Writer},
};

/// What readers and writers are told beside the conversation itself.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'c> {
    /// What the client speaks.
    pub client: Protocol,
    /// What the provider is spoken to in.
    pub target: Protocol,
    /// Who that is.
    pub provider: Provider,
    /// The model that is asked.
    pub model: &'c str,
    /// The version of the provider's API, where that has one and it is configured.
    pub version: Option<&'c str>,
    /// Seconds since 1970, for answers that must say when.
    pub now: u64,
    /// Letters and digits, unlike those of any other request: ids that a protocol wants and the
    /// other has not got are made from it.
    pub seed: &'c str,
}

impl Setting<'static> {
    /// For reading what is passed on as it is.
    pub(crate) fn alone(protocol: Protocol) -> Self {
        Self {
            client: protocol,
            target: protocol,
            provider: Provider::OpenaiCompatible,
            model: "",
            version: None,
            now: 0,
            seed: "",
        }
    }
}

/// Calls the same function of the dialect of a protocol.
macro_rules! of_dialect {
    ($protocol:expr, $name:ident, ($($argument:expr),*), $else:expr) => {
        match $protocol {
            Protocol::OpenaiChat => openai_chat::$name($($argument),*),
            Protocol::OpenaiResponses => openai_responses::$name($($argument),*),
            Protocol::AnthropicMessages => anthropic_messages::$name($($argument),*),
            Protocol::GeminiGenerateContent => gemini_generate_content::$name($($argument),*),
            Protocol::CohereChat => cohere_chat::$name($($argument),*),
            Protocol::BedrockConverse => bedrock_converse::$name($($argument),*),
            Protocol::OpenaiEmbeddings | Protocol::Vectors(_) | Protocol::Direct(_) | Protocol::Passthrough => $else,
        }
    };
}

/// Everything that `protocol` can say.
pub fn expresses(protocol: Protocol) -> Features {
    match protocol {
        Protocol::OpenaiChat => openai_chat::EXPRESSES,
        Protocol::OpenaiResponses => openai_responses::EXPRESSES,
        Protocol::AnthropicMessages => anthropic_messages::EXPRESSES,
        Protocol::GeminiGenerateContent => gemini_generate_content::EXPRESSES,
        Protocol::CohereChat => cohere_chat::EXPRESSES,
        Protocol::BedrockConverse => bedrock_converse::EXPRESSES,
        Protocol::OpenaiEmbeddings
        | Protocol::Vectors(_)
        | Protocol::Direct(_)
        | Protocol::Passthrough => Features::NONE,
    }
}

/// Everything that a client of `protocol` can say in a request: what is written in it, and what is only
/// read, such as what its providers run or what some of them know beyond its reference.
pub fn said_by_clients(protocol: Protocol) -> Features {
    let only_read: &[Feature] = match protocol {
        Protocol::OpenaiChat => &[
            Feature::DocumentUrl,
            Feature::AssistantMedia,
            Feature::SystemMedia,
            Feature::ReasoningHistory,
            Feature::CacheMark,
            Feature::ReasoningBudget,
            Feature::ReasoningDisabled,
        ],
        Protocol::OpenaiResponses => &[
            Feature::AudioBase64,
            Feature::SystemMedia,
            Feature::ReasoningHistory,
            Feature::CitationHistory,
        ],
        Protocol::AnthropicMessages => &[
            Feature::LateSystem,
            Feature::AssistantMedia,
            Feature::SystemMedia,
            Feature::ReasoningHistory,
            Feature::CitationHistory,
            Feature::ReasoningEffort,
            Feature::ShowThoughts,
        ],
        Protocol::GeminiGenerateContent => &[
            Feature::ImageDetail,
            Feature::DocumentName,
            Feature::SystemMedia,
        ],
        Protocol::CohereChat => &[
            Feature::AssistantMedia,
            Feature::SystemMedia,
            Feature::CitationHistory,
            Feature::Logprobs,
        ],
        Protocol::BedrockConverse => &[
            Feature::ImageUrl,
            Feature::DocumentUrl,
            Feature::VideoReference,
            Feature::AssistantMedia,
            Feature::SystemMedia,
            Feature::ReasoningHistory,
            Feature::ToolStrict,
            Feature::TopK,
            Feature::ReasoningEffort,
            Feature::ReasoningBudget,
            Feature::ReasoningDisabled,
            Feature::ReasoningAdaptive,
        ],
        Protocol::OpenaiEmbeddings
        | Protocol::Vectors(_)
        | Protocol::Direct(_)
        | Protocol::Passthrough => {
            return Features::NONE;
        }
    };
    let own = Features::of(&[Feature::OpaquePart, Feature::HostedTool]);
    expresses(protocol)
        .union(Features::of(only_read))
        .union(own)
}

/// Everything that the model of `setting` can be told of `request`. Some protocols can say more to some
/// models, and some models take no two things at once.
pub(crate) fn expresses_to(request: &Request<'_>, setting: &Setting<'_>) -> Features {
    match setting.target {
        Protocol::AnthropicMessages => anthropic_messages::expresses(request, setting),
        Protocol::BedrockConverse => bedrock_converse::expresses(request, setting),
        Protocol::OpenaiChat => openai_chat::expresses(setting),
        Protocol::GeminiGenerateContent => gemini_generate_content::expresses(setting),
        target => expresses(target),
    }
}

/// Reads a client's request.
pub(crate) fn read_request<'a>(
    protocol: Protocol,
    root: Node<'_, 'a>,
) -> Result<Request<'a>, Malformed> {
    of_dialect!(protocol, read_request, (root), Err(no_conversation()))
}

/// Writes a request to a provider. What the dialect does not express is left out.
pub(crate) fn write_request(request: &Request<'_>, setting: &Setting<'_>, w: &mut Writer<'_>) {
    of_dialect!(setting.target, write_request, (request, setting, w), {});
}

/// Reads a provider's answer.
pub(crate) fn read_response<'a>(
    root: Node<'_, 'a>,
    setting: &Setting<'_>,
) -> Result<Response<'a>, Malformed> {
    of_dialect!(
        setting.target,
        read_response,
        (root, setting),
        Err(no_conversation())
    )
}

/// Writes an answer to a client.
pub(crate) fn write_response(response: &Response<'_>, setting: &Setting<'_>, w: &mut Writer<'_>) {
    of_dialect!(setting.client, write_response, (response, setting, w), {});
}

/// What a provider's error says; `None` when there is none in it.
pub(crate) fn read_error<'a>(protocol: Protocol, root: Node<'_, 'a>) -> Option<ErrorMessage<'a>> {
    of_dialect!(of_errors(protocol), read_error, (root), None)
}

/// Writes an error to a client.
pub(crate) fn write_error(
    protocol: Protocol,
    status: u16,
    error: &ErrorMessage<'_>,
    w: &mut Writer<'_>,
) {
    of_dialect!(of_errors(protocol), write_error, (status, error, w), {});
}

/// Whose errors those of `protocol` are like: a vendor has one form for all that it serves.
fn of_errors(protocol: Protocol) -> Protocol {
    match protocol {
        Protocol::OpenaiEmbeddings => Protocol::OpenaiChat,
        Protocol::Vectors(VectorApi::VertexPredict | VectorApi::GeminiBatch) => {
            Protocol::GeminiGenerateContent
        }
        Protocol::Vectors(VectorApi::CohereEmbed) => Protocol::CohereChat,
        Protocol::Vectors(VectorApi::BedrockTitan) => Protocol::BedrockConverse,
        other => other,
    }
}

fn no_conversation() -> Malformed {
    Malformed {
        path: String::new(),
        what: "this protocol holds no conversation".to_owned(),
    }
}

macro_rules! streams {
    ($($variant:ident = $module:ident,)*) => {
        /// Reads a provider's stream, event by event.
        #[derive(Debug)]
        pub(crate) enum StreamReader { $($variant($module::StreamReader),)* }

        /// Writes a stream to a client.
        #[derive(Debug)]
        pub(crate) enum StreamWriter { $($variant($module::StreamWriter),)* }

        impl StreamReader {
            /// A reader for `setting.target`; `None` if that holds no conversation.
            pub(crate) fn new(setting: &Setting<'_>) -> Option<Self> {
                match setting.target {
                    $(Protocol::$variant => {
                        Some(Self::$variant($module::StreamReader::new(setting)))
                    })*
                    _ => None,
                }
            }

            /// Takes an event: its type (empty if it has none) and its data.
            pub(crate) fn event(
                &mut self,
                name: &[u8],
                data: &[u8],
                sink: &mut dyn FnMut(Event<'_>),
            ) {
                match self { $(Self::$variant(reader) => reader.event(name, data, sink),)* }
            }

            /// The provider's bytes have ended. If the answer has not, that is an error.
            pub(crate) fn finish(&mut self, sink: &mut dyn FnMut(Event<'_>)) {
                match self { $(Self::$variant(reader) => reader.finish(sink),)* }
            }
        }

        impl StreamWriter {
            /// A writer for `setting.client`; `None` if that holds no conversation.
            pub(crate) fn new(setting: &Setting<'_>) -> Option<Self> {
                match setting.client {
                    $(Protocol::$variant => {
                        Some(Self::$variant($module::StreamWriter::new(setting)))
                    })*
                    _ => None,
                }
            }

            /// Appends what `event` becomes, framing and all.
            pub(crate) fn write(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
                match self { $(Self::$variant(writer) => writer.write(event, out),)* }
            }
        }
    };
}

streams! {
    OpenaiChat = openai_chat,
    OpenaiResponses = openai_responses,
    AnthropicMessages = anthropic_messages,
    GeminiGenerateContent = gemini_generate_content,
    CohereChat = cohere_chat,
    BedrockConverse = bedrock_converse,
}

impl StreamWriter {
    /// The same as one JSON array instead of server-sent events: what a client of Gemini gets that
    /// did not ask for `alt=sse`. Of other protocols nothing changes.
    pub(crate) fn json_array(self) -> Self {
        match self {
            Self::GeminiGenerateContent(writer) => Self::GeminiGenerateContent(writer.json_array()),
            other => other,
        }
    }
}

impl Malformed {
    /// `node` is not what it should be.
    pub(crate) fn at(node: Node<'_, '_>, what: impl Into<String>) -> Self {
        Self {
            path: node.path(),
            what: what.into(),
        }
    }
}

/// An event of a stream in `protocol` of type `name`; a name that is empty is left out.
pub(crate) fn write_sse(out: &mut Vec<u8>, name: &str, data: impl FnOnce(&mut Writer<'_>)) {
    if !name.is_empty() {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(b"data: ");
    let start = out.len();
    data(&mut Writer::new(out));
    on_one_line(&mut out[start..]);
    out.extend_from_slice(b"\n\n");
}

/// Puts blanks where JSON that was taken over has line breaks, which would end the line of an event.
/// In JSON they stand between values only.
fn on_one_line(json: &mut [u8]) {
    let mut rest = json;
    while let Some(at) = memchr::memchr2(b'\n', b'\r', rest) {
        rest[at] = b' ';
        rest = &mut rest[at + 1..];
    }
}

/// The tree of an event's data or of a whole answer; of anything that is not JSON the error.
pub(crate) fn parse(text: &[u8]) -> Result<Tree<'_>, Malformed> {
    Tree::parse(text, json::DEPTH_MAX).map_err(|invalid| Malformed {
        path: String::new(),
        what: format!("not JSON at byte {}: {}", invalid.offset, invalid.what),
    })
}
