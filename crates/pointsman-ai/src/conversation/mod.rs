//! A conversation with a model, whatever protocol it is spoken in.
//!
//! Readers make these values from one protocol's bytes and writers make another protocol's bytes
//! from them, so that each protocol is known in one place. They borrow from the text that they
//! were read from: strings and numbers keep their spelling.
//!
//! What some protocol says and another cannot is a [`Feature`]; which protocol can say what is one
//! table, so that nothing is dropped in silence.

mod event;
mod feature;
mod names;
mod schema;
mod signature;
mod tool;

pub(crate) use self::event::{CALLS_MAX, ToldTier};
pub(crate) use self::schema::{Closed, closed};
pub(crate) use self::tool::{add_results, name_results};
pub use self::{
    event::{Block, Event},
    feature::{Feature, Features},
    names::Renamed,
};
use crate::{Protocol, Usage, json::string::JsonStr};

/// A number or any other JSON value, as it is spelt.
pub type Json<'a> = std::borrow::Cow<'a, str>;

/// What a client asks of a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request<'a> {
    /// The model's name, from the body or the path.
    pub model: Option<JsonStr<'a>>,
    /// In order. Instructions that a protocol keeps outside of its messages come first, as
    /// messages of role [`Role::System`].
    pub messages: Vec<Message<'a>>,
    /// What the model may call.
    pub tools: Vec<Tool<'a>>,
    /// Which of them it must or may not.
    pub tool_choice: Option<ToolChoice<'a>>,
    /// More than one call at a time.
    pub parallel_tool_calls: Option<bool>,
    /// What the answer's text must be.
    pub format: Option<Format<'a>>,
    /// How much to think first.
    pub reasoning: Option<ReasoningSettings<'a>>,
    /// How to pick tokens, and when to stop.
    pub sampling: Sampling<'a>,
    /// The answer is to come as a stream.
    pub stream: bool,
    /// Who asks, for abuse detection: `user`, `metadata.user_id`, `safety_identifier`.
    pub user: Option<JsonStr<'a>>,
    /// Pairs of strings to keep with the request.
    pub metadata: Vec<(JsonStr<'a>, JsonStr<'a>)>,
    /// In OpenAI's words: `auto`, `default`, `flex`, `priority` ...
    pub service_tier: Option<JsonStr<'a>>,
    /// Members that this model of a conversation has no place for: only a writer of `protocol`
    /// could say them.
    pub extras: Vec<Extra<'a>>,
}

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub struct Message<'a> {
    /// Who says it.
    pub role: Role,
    /// Of several users or assistants.
    pub name: Option<JsonStr<'a>>,
    /// What is said, in order.
    pub parts: Vec<Part<'a>>,
    /// It was a plain string, not a list with one text: some targets care.
    pub plain: bool,
}

/// Who says a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Instructions.
    System,
    /// Instructions, in the word that newer OpenAI models use for them.
    Developer,
    /// The user.
    User,
    /// The model.
    Assistant,
    /// Whoever ran tools: holds [`Part::ToolResult`] only. Results that follow each other are one
    /// message.
    Tool,
}

/// A piece of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Part<'a> {
    /// Text.
    Text(Text<'a>),
    /// A picture, a document, sound or film.
    Media(Media<'a>),
    /// The model calls a tool.
    ToolCall(ToolCall<'a>),
    /// What a tool answered.
    ToolResult(ToolResult<'a>),
    /// The model thinks.
    Reasoning(Reasoning<'a>),
    /// The model declines, in these words.
    Refusal(JsonStr<'a>),
    /// A piece that only `protocol` knows, such as the search of a hosted tool.
    Opaque(Opaque<'a>),
}

/// Text, and what belongs to it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Text<'a> {
    /// The text.
    pub text: JsonStr<'a>,
    /// Where it is from.
    pub citations: Vec<Citation<'a>>,
    /// The prompt up to here is worth keeping.
    pub cache: Option<CacheMark<'a>>,
}

/// A source that a piece of text refers to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Citation<'a> {
    /// Address of the source.
    pub url: Option<JsonStr<'a>>,
    /// Title of the source.
    pub title: Option<JsonStr<'a>>,
    /// What the source says.
    pub quote: Option<JsonStr<'a>>,
    /// First character of the text that refers to it, and the one behind the last.
    pub span: Option<(u64, u64)>,
    /// As its own protocol has it, for what the rest leaves out.
    pub native: Option<(Protocol, Json<'a>)>,
}

/// Where a prompt may be cut for the provider's cache: Anthropic's `cache_control`, Bedrock's
/// `cachePoint`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CacheMark<'a> {
    /// How long to keep it, such as `5m` or `1h`.
    pub ttl: Option<JsonStr<'a>>,
}

/// What is not text.
#[derive(Clone, Debug, PartialEq)]
pub struct Media<'a> {
    /// What it is.
    pub kind: MediaKind,
    /// Where it is.
    pub source: Source<'a>,
    /// Such as `image/png`.
    pub media_type: Option<JsonStr<'a>>,
    /// File name or title.
    pub name: Option<JsonStr<'a>>,
    /// OpenAI's `detail` of a picture: `low`, `high`, `auto`.
    pub detail: Option<JsonStr<'a>>,
    /// Anthropic's `context` of a document.
    pub context: Option<JsonStr<'a>>,
    /// The answer should cite this document.
    pub citations: bool,
    /// The prompt up to here is worth keeping.
    pub cache: Option<CacheMark<'a>>,
}

/// Kinds of media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum MediaKind {
    Image,
    Document,
    Audio,
    Video,
}

/// Where media are.
#[derive(Clone, Debug, PartialEq)]
pub enum Source<'a> {
    /// Here, in base64.
    Base64(JsonStr<'a>),
    /// At an address (`https:`, `gs:`, `s3:`).
    Url(JsonStr<'a>),
    /// With the provider, under this id.
    File(JsonStr<'a>),
    /// Here, as plain text (documents).
    Text(JsonStr<'a>),
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall<'a> {
    /// Names the call; empty where the protocol has none (Gemini).
    pub id: JsonStr<'a>,
    /// The tool.
    pub name: JsonStr<'a>,
    /// What it is called with.
    pub arguments: Arguments<'a>,
    /// What the provider wants back with the call.
    pub signature: Option<Signature<'a>>,
    /// The prompt up to here is worth keeping.
    pub cache: Option<CacheMark<'a>>,
}

/// Arguments of a call. Some protocols have them as JSON, some as a string that holds JSON.
#[derive(Clone, Debug)]
pub enum Arguments<'a> {
    /// JSON.
    Json(Json<'a>),
    /// A string that should hold JSON.
    Text(JsonStr<'a>),
}

/// What a tool answered.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolResult<'a> {
    /// The call that it answers.
    pub call_id: JsonStr<'a>,
    /// The tool, where that is known. Readers fill it from the call of that id.
    pub name: Option<JsonStr<'a>>,
    /// Texts and media.
    pub parts: Vec<Part<'a>>,
    /// It was a plain string.
    pub plain: bool,
    /// The tool failed.
    pub is_error: bool,
    /// The prompt up to here is worth keeping.
    pub cache: Option<CacheMark<'a>>,
}

/// What the model thought, or as much as it shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reasoning<'a> {
    /// The text; empty if it is hidden.
    pub text: JsonStr<'a>,
    /// What the provider wants back with it; of hidden thoughts all there is.
    pub signature: Option<Signature<'a>>,
    /// The thoughts are hidden (`redacted_thinking`, encrypted reasoning).
    pub is_hidden: bool,
    /// The provider's id of the item (Responses).
    pub id: Option<JsonStr<'a>>,
}

/// Something that only its maker can read, and wants back unchanged in the next turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Signature<'a> {
    /// The protocol that it was received in from the provider.
    pub origin: Protocol,
    /// The data.
    pub data: JsonStr<'a>,
}

/// A piece of a message, or a tool, that only `protocol` knows.
#[derive(Clone, Debug, PartialEq)]
pub struct Opaque<'a> {
    /// Who knows it.
    pub protocol: Protocol,
    /// Its type there, for the report of what was lost.
    pub kind: JsonStr<'a>,
    /// All of it.
    pub json: Json<'a>,
}

/// A member of a request that only `protocol` knows.
#[derive(Clone, Debug, PartialEq)]
pub struct Extra<'a> {
    /// Who knows it.
    pub protocol: Protocol,
    /// Its name.
    pub name: JsonStr<'a>,
    /// Its value.
    pub json: Json<'a>,
}

/// A tool.
#[derive(Clone, Debug, PartialEq)]
pub enum Tool<'a> {
    /// A function of the client's.
    Function(Function<'a>),
    /// Something that the provider runs.
    Hosted(Opaque<'a>),
}

/// A function that the model may call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Function<'a> {
    /// Its name.
    pub name: JsonStr<'a>,
    /// What it does.
    pub description: Option<JsonStr<'a>>,
    /// JSON schema of its arguments.
    pub parameters: Option<Json<'a>>,
    /// Arguments are made to fit the schema.
    pub strict: Option<bool>,
    /// The prompt up to here is worth keeping.
    pub cache: Option<CacheMark<'a>>,
}

/// Which tools must or may not be called.
#[derive(Clone, Debug, PartialEq)]
pub enum ToolChoice<'a> {
    /// As the model likes.
    Auto,
    /// None.
    None,
    /// At least one.
    Required,
    /// This one.
    Tool(JsonStr<'a>),
}

/// What the text of an answer must be.
#[derive(Clone, Debug, PartialEq)]
pub enum Format<'a> {
    /// Anything.
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON that fits a schema.
    JsonSchema(Schema<'a>),
}

/// A JSON schema with a name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schema<'a> {
    /// Its name, which some protocols need.
    pub name: Option<JsonStr<'a>>,
    /// What it describes.
    pub description: Option<JsonStr<'a>>,
    /// The schema.
    pub schema: Json<'a>,
    /// The answer is made to fit.
    pub strict: Option<bool>,
}

/// How much a model should think.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReasoningSettings<'a> {
    /// Whether at all.
    pub mode: Option<ReasoningMode>,
    /// In a word: `minimal`, `low`, `medium`, `high` ...
    pub effort: Option<JsonStr<'a>>,
    /// At most so many tokens.
    pub budget: Option<u64>,
    /// Whether and how thoughts are shown: Responses' `summary`, Gemini's `includeThoughts`.
    pub show: Option<ShowThoughts<'a>>,
}

/// Whether to think.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReasoningMode {
    /// Yes, within a budget.
    Enabled,
    /// As the model sees fit.
    Adaptive,
    /// No.
    Disabled,
}

/// How thoughts are shown.
#[derive(Clone, Debug, PartialEq)]
pub enum ShowThoughts<'a> {
    /// Not.
    No,
    /// They are.
    Yes,
    /// As a summary of that kind: `auto`, `concise`, `detailed`.
    Summary(JsonStr<'a>),
}

/// How tokens are picked, and when to stop. Numbers as they are spelt.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "the names are the field's")]
pub struct Sampling<'a> {
    pub max_tokens: Option<Json<'a>>,
    pub temperature: Option<Json<'a>>,
    pub top_p: Option<Json<'a>>,
    pub top_k: Option<Json<'a>>,
    pub frequency_penalty: Option<Json<'a>>,
    pub presence_penalty: Option<Json<'a>>,
    pub seed: Option<Json<'a>>,
    /// Answers to one request.
    pub n: Option<u64>,
    /// Strings that end the answer.
    pub stop: Vec<JsonStr<'a>>,
    pub logprobs: Option<bool>,
    pub top_logprobs: Option<Json<'a>>,
    pub logit_bias: Option<Json<'a>>,
}

/// What a model answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Response<'a> {
    /// The provider's id of the answer.
    pub id: Option<JsonStr<'a>>,
    /// The model that answered.
    pub model: Option<JsonStr<'a>>,
    /// When, in seconds since 1970.
    pub created: Option<u64>,
    /// One, unless the request asked for more.
    pub choices: Vec<Choice<'a>>,
    /// Tokens, if stated.
    pub usage: Option<Usage>,
    /// The tier that served it.
    pub service_tier: Option<JsonStr<'a>>,
}

/// One answer of several.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choice<'a> {
    /// What is said, in order. No tool results.
    pub parts: Vec<Part<'a>>,
    /// Why it ended.
    pub stop: Stop<'a>,
    /// Probabilities of its tokens, as OpenAI Chat has them.
    pub logprobs: Option<Json<'a>>,
}

/// Why an answer ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Stop<'a> {
    /// It was complete.
    #[default]
    End,
    /// This stop string came up.
    Sequence(Option<JsonStr<'a>>),
    /// The token limit was reached.
    Length,
    /// Tools are called.
    ToolCalls,
    /// A filter cut it.
    ContentFilter,
    /// The model declined.
    Refusal,
    /// A hosted tool needs another turn (Anthropic).
    Pause,
    /// Anything else, in its own protocol's word.
    Other(JsonStr<'a>),
}

/// What a provider says went wrong.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ErrorMessage<'a> {
    /// Its type or code in the provider's words.
    pub kind: Option<JsonStr<'a>>,
    /// For people.
    pub message: JsonStr<'a>,
    /// A second, finer code (`error.code` of OpenAI).
    pub code: Option<JsonStr<'a>>,
    /// The member of the request that it is about.
    pub param: Option<JsonStr<'a>>,
}

/// A body that is not what its protocol says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The place, such as `messages[2].content`; empty for the whole.
    pub path: String,
    /// What is wrong, and what was expected.
    pub what: String,
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.what),
            path => write!(f, "{path}: {}", self.what),
        }
    }
}

impl std::error::Error for Malformed {}

impl<'a> Part<'a> {
    /// A piece of text, bare.
    pub fn text(text: JsonStr<'a>) -> Self {
        Self::Text(Text {
            text,
            ..Text::default()
        })
    }
}

impl<'a> Message<'a> {
    /// Tells the model what to do, rather than being said to it.
    pub(crate) fn instructs(&self) -> bool {
        matches!(self.role, Role::System | Role::Developer)
    }

    /// A message of one plain text.
    pub fn plain(role: Role, text: JsonStr<'a>) -> Self {
        Self {
            role,
            name: None,
            parts: vec![Part::text(text)],
            plain: true,
        }
    }
}

impl<'a> Source<'a> {
    /// What an address stands for: a `data:` URL holds the thing itself, and its type.
    pub(crate) fn of_url(url: JsonStr<'a>) -> (Self, Option<JsonStr<'a>>) {
        const START: &str = "data:";
        const BASE64: &str = ";base64,";
        let spelt = url.as_spelt();
        let marker = spelt.find(BASE64).filter(|_| spelt.starts_with(START));
        let Some(marker) = marker else {
            return (Self::Url(url), None);
        };
        let media_type = url.slice(START.len()..marker);
        let data = url.slice(marker + BASE64.len()..spelt.len());
        let media_type = Some(media_type).filter(|kind| !kind.is_empty());
        (Self::Base64(data), media_type)
    }
}

impl<'a> Media<'a> {
    /// Media with nothing said about them.
    pub(crate) fn new(
        kind: MediaKind,
        source: Source<'a>,
        media_type: Option<JsonStr<'a>>,
    ) -> Self {
        Self {
            kind,
            source,
            media_type,
            name: None,
            detail: None,
            context: None,
            citations: false,
            cache: None,
        }
    }

    /// As an address: what is here becomes a `data:` URL, of type `usual` if none is said.
    pub(crate) fn as_url(&self, usual: &str) -> JsonStr<'_> {
        match &self.source {
            Source::Url(url) | Source::File(url) => url.clone(),
            Source::Base64(data) | Source::Text(data) => {
                let named = self.media_type.as_ref();
                let media_type = named.map_or(usual, JsonStr::as_spelt);
                JsonStr::spelt_owned(format!("data:{media_type};base64,{}", data.as_spelt()))
            }
        }
    }
}
