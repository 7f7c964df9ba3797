//! The protocols that clients speak, and how to tell them apart.

use crate::RequestBody;

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
    /// Anything else that is JSON.
    Passthrough,
}

impl Protocol {
    /// All of them.
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
            Self::Passthrough => "passthrough",
        }
    }

    /// A request holds a conversation, which could be held in another protocol, too.
    pub fn is_conversation(self) -> bool {
        !matches!(self, Self::OpenaiEmbeddings | Self::Passthrough)
    }

    /// The protocol of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|protocol| protocol.as_str() == name)
    }
}

/// The protocol of a request for `path` (decoded, without query); the first that matches, in
/// APISIX 3.18's order. `None` when the body is not an object or array, or is an empty one that
/// nothing else claims.
pub fn detect(path: &str, body: &RequestBody) -> Option<Protocol> {
    if !body.is_container() {
        return None;
    }
    let has_messages = body
        .member("messages")
        .is_some_and(|value| value.starts_with(b"[") || value.starts_with(b"{"));
    let has_input = body.member("input").is_some();
    if path.ends_with("/converse") && body.is_object() && has_messages {
        return Some(Protocol::BedrockConverse);
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

/// Whether a request asks for a stream. Embeddings never do.
pub fn is_streaming(protocol: Protocol, body: &RequestBody) -> bool {
    protocol != Protocol::OpenaiEmbeddings && body.stream()
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
    fn only_true_streams() {
        let streams = |protocol, body: &str| {
            let parsed = RequestBody::parse(Bytes::copy_from_slice(body.as_bytes())).expect("JSON");
            is_streaming(protocol, &parsed)
        };
        assert!(streams(Protocol::OpenaiChat, r#"{"stream":true}"#));
        assert!(!streams(Protocol::OpenaiChat, r#"{"stream":null}"#));
        assert!(!streams(Protocol::OpenaiChat, r#"{"stream":1}"#));
        assert!(!streams(Protocol::OpenaiEmbeddings, r#"{"stream":true}"#));
    }
}
