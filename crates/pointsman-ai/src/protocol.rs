//! The protocols that clients speak, and how to tell them apart.

use crate::{DirectApi, RequestBody, VectorApi};

/// A wire format of LLM requests and responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// OpenAI Chat Completions.
    OpenaiChat,
    /// OpenAI Responses.
    OpenaiResponses,
    /// OpenAI Embeddings.
    OpenaiEmbeddings,
    /// Anthropic Messages.
    AnthropicMessages,
    /// Bedrock Converse.
    BedrockConverse,
    /// Gemini `generateContent` and `streamGenerateContent`.
    GeminiGenerateContent,
    /// Cohere Chat, version 2.
    CohereChat,
    /// A provider's own embeddings; no client speaks it.
    Vectors(VectorApi),
    /// An API that is known by its path and passed on as it is.
    Direct(DirectApi),
    /// Anything else that is JSON.
    Passthrough,
}

impl Protocol {
    /// All that clients speak, but for what is passed on by its path.
    pub const ALL: [Self; 8] = [
        Self::OpenaiChat,
        Self::OpenaiResponses,
        Self::OpenaiEmbeddings,
        Self::AnthropicMessages,
        Self::BedrockConverse,
        Self::GeminiGenerateContent,
        Self::CohereChat,
        Self::Passthrough,
    ];

    /// The name in configuration, such as `openai-chat`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenaiChat => "openai-chat",
            Self::OpenaiResponses => "openai-responses",
            Self::OpenaiEmbeddings => "openai-embeddings",
            Self::AnthropicMessages => "anthropic-messages",
            Self::BedrockConverse => "bedrock-converse",
            Self::GeminiGenerateContent => "gemini-generate-content",
            Self::CohereChat => "cohere-chat",
            Self::Vectors(api) => api.as_str(),
            Self::Direct(api) => api.as_str(),
            Self::Passthrough => "passthrough",
        }
    }

    /// A request holds a conversation, which could be held in another protocol, too.
    pub fn is_conversation(self) -> bool {
        !matches!(
            self,
            Self::OpenaiEmbeddings | Self::Vectors(_) | Self::Direct(_) | Self::Passthrough
        )
    }

    /// The protocol of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|protocol| protocol.as_str() == name)
    }
}

/// The protocol of a request for `path` (decoded, without query); the first that matches, in
/// APISIX 3.18's order, behind the paths that only Gemini and Cohere have. `None` when the body is
/// not an object or array, or is an empty one that nothing else claims.
pub fn detect(path: &str, body: &RequestBody) -> Option<Protocol> {
    if !body.is_container() {
        return None;
    }
    let has_messages = body
        .member("messages")
        .is_some_and(|value| value.starts_with(b"[") || value.starts_with(b"{"));
    let has_input = body.member("input").is_some();
    if gemini_path(path).is_some() && body.is_object() && body.member("contents").is_some() {
        return Some(Protocol::GeminiGenerateContent);
    }
    if (path.ends_with("/converse") || path.ends_with(CONVERSE_STREAM))
        && body.is_object()
        && has_messages
    {
        return Some(Protocol::BedrockConverse);
    }
    if path.ends_with("/v2/chat") && has_messages {
        return Some(Protocol::CohereChat);
    }
    if path.ends_with("/v1/messages") {
        return Some(Protocol::AnthropicMessages);
    }
    if path.ends_with("/v1/responses") && has_input {
        return Some(Protocol::OpenaiResponses);
    }
    if has_messages {
        return Some(Protocol::OpenaiChat);
    }
    if has_input {
        return Some(Protocol::OpenaiEmbeddings);
    }
    body.is_filled().then_some(Protocol::Passthrough)
}

/// The model and the method of a path of Gemini's, such as
/// `/v1beta/models/gemini-2.5-pro:streamGenerateContent`.
fn gemini_path(path: &str) -> Option<(&str, &str)> {
    let last = &path[path.rfind('/')? + 1..];
    let (model, method) = last.rsplit_once(':')?;
    matches!(method, "generateContent" | "streamGenerateContent").then_some((model, method))
}

/// The model that a path names, decoded; `None` in protocols whose bodies name it.
pub fn model_in_path(protocol: Protocol, path: &str) -> Option<&str> {
    let model = match protocol {
        Protocol::GeminiGenerateContent => gemini_path(path)?.0,
        Protocol::BedrockConverse => {
            let rest = path
                .strip_suffix(CONVERSE_STREAM)
                .or_else(|| path.strip_suffix("/converse"))?;
            rest.split_once("/model/")?.1
        }
        _ => return None,
    };
    Some(model).filter(|model| !model.is_empty())
}

const CONVERSE_STREAM: &str = "/converse-stream";

/// Whether a request for `path` asks for a stream. Embeddings never do.
pub fn is_streaming(protocol: Protocol, path: &str, body: &RequestBody) -> bool {
    match protocol {
        Protocol::OpenaiEmbeddings => false,
        Protocol::GeminiGenerateContent => path.ends_with(":streamGenerateContent"),
        // `stream` beside `/converse` is APISIX's own way to say it.
        Protocol::BedrockConverse => path.ends_with(CONVERSE_STREAM) || body.stream(),
        _ => body.stream(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn check(path: &str, body: &str, expected: Option<Protocol>) {
        let parsed = RequestBody::parse(Bytes::copy_from_slice(body.as_bytes())).expect("JSON");
        assert_eq!(detect(path, &parsed), expected, "{path} {body}");
    }

    /// P-001, P-007, P-008, P-009
    #[test]
    fn the_first_match_wins() {
        use Protocol::*;
        check("/anything", r#"{"messages":[]}"#, Some(OpenaiChat));
        check("/anything", r#"{"messages":{}}"#, Some(OpenaiChat));
        check("/anything", r#"{"messages":"x"}"#, Some(Passthrough));
        check(
            "/model/x/converse",
            r#"{"messages":[]}"#,
            Some(BedrockConverse),
        );
        check("/model/x/converse", r#"{"prompt":1}"#, Some(Passthrough));
        check("/x/y/v1/messages", "{}", Some(AnthropicMessages));
        check(
            "/model/x/converse-stream",
            r#"{"messages":[]}"#,
            Some(BedrockConverse),
        );
        check(
            "/v1beta/models/a.b:generateContent",
            r#"{"contents":[]}"#,
            Some(GeminiGenerateContent),
        );
        check(
            "/v1/models/a:countTokens",
            r#"{"contents":[]}"#,
            Some(Passthrough),
        );
        check("/v2/chat", r#"{"messages":[]}"#, Some(CohereChat));
        check("/v1/messages", "[]", Some(AnthropicMessages));
        check("/v1/messages/", r#"{"messages":[]}"#, Some(OpenaiChat));
        check(
            "/v1/messages/count_tokens",
            r#"{"messages":[]}"#,
            Some(OpenaiChat),
        );
        check(
            "/ai/v1/responses",
            r#"{"input":null}"#,
            Some(OpenaiResponses),
        );
        check("/v1/responses", r#"{"messages":[]}"#, Some(OpenaiChat));
        check(
            "/openai/responses",
            r#"{"input":"x"}"#,
            Some(OpenaiEmbeddings),
        );
        check(
            "/v1/embeddings",
            r#"{"input":["x"]}"#,
            Some(OpenaiEmbeddings),
        );
        check("/v1/completions", r#"{"prompt":"x"}"#, Some(Passthrough));
        check("/x", "[1]", Some(Passthrough));
        check("/x", "{}", None);
        check("/x", "[]", None);
        check("/x", "null", None);
        check("/v1/messages", "5", None);
    }

    #[test]
    fn paths_name_models() {
        let gemini = "/gw/v1beta/models/gemini-2.5-pro:streamGenerateContent";
        let model = |protocol, path| model_in_path(protocol, path);
        assert_eq!(
            model(Protocol::GeminiGenerateContent, gemini),
            Some("gemini-2.5-pro")
        );
        let arn = "/model/arn:aws:x/profile/a.b:0/converse-stream";
        assert_eq!(
            model(Protocol::BedrockConverse, arn),
            Some("arn:aws:x/profile/a.b:0")
        );
        assert_eq!(model(Protocol::BedrockConverse, "/converse"), None);
        assert_eq!(model(Protocol::OpenaiChat, gemini), None);
    }

    #[test]
    fn only_true_streams() {
        let streams = |protocol, body: &str| {
            let parsed = RequestBody::parse(Bytes::copy_from_slice(body.as_bytes())).expect("JSON");
            is_streaming(protocol, "/", &parsed)
        };
        assert!(streams(Protocol::OpenaiChat, r#"{"stream":true}"#));
        assert!(!streams(Protocol::OpenaiChat, r#"{"stream":null}"#));
        assert!(!streams(Protocol::OpenaiChat, r#"{"stream":1}"#));
        assert!(!streams(Protocol::OpenaiEmbeddings, r#"{"stream":true}"#));
    }
}
