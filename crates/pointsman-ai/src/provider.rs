//! Who serves models: where, in which protocols, and under which names for limits.

use crate::{DirectApi, Protocol, VectorApi};

/// A provider. Of APISIX's ten, protocols, paths and names are those of APISIX 3.18.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the providers'")]
pub enum Provider {
    Openai,
    OpenaiCompatible,
    AzureOpenai,
    Deepseek,
    Aimlapi,
    Openrouter,
    Gemini,
    VertexAi,
    Anthropic,
    Bedrock,
    Cohere,
    Mistral,
    Groq,
    Xai,
    Together,
    Fireworks,
    Perplexity,
    Cerebras,
    Nvidia,
    Ollama,
    Vllm,
    Sglang,
    LmStudio,
    Huggingface,
    Cloudflare,
    Moonshot,
    Zhipu,
    Qwen,
    Volcengine,
    Minimax,
}

#[cfg(test)]
mod documented;
mod table;

use table::{Row, TABLE};

impl Provider {
    /// The names of all, as configuration has them.
    pub fn names() -> impl Iterator<Item = &'static str> {
        TABLE.iter().map(|row| row.name)
    }

    /// The provider called `name` in configuration.
    pub fn from_name(name: &str) -> Option<Self> {
        TABLE
            .iter()
            .find(|row| row.name == name)
            .map(|row| row.provider)
    }

    /// Its name in configuration.
    pub fn as_str(self) -> &'static str {
        self.row().name
    }

    /// Where it is, unless configured: scheme, host and port. `{region}` stands for the region of
    /// `provider_conf`. `None` when the endpoint must be configured.
    pub fn default_base(self) -> Option<Base> {
        self.row().base
    }

    /// The protocol that conversations of clients are brought to that it does not speak itself.
    pub fn preferred(self) -> Option<Protocol> {
        let mut spoken = self.row().paths.iter().map(|(protocol, _)| *protocol);
        spoken.find(|protocol| protocol.is_conversation())
    }

    /// Its own interface for embeddings, if that is not OpenAI's.
    fn embeds(self) -> Option<Protocol> {
        let mut spoken = self.row().paths.iter().map(|(protocol, _)| *protocol);
        spoken.find(|protocol| matches!(protocol, Protocol::Vectors(_)))
    }

    /// Its path for `protocol`, if it speaks that: see [`PathChoice::Provider`].
    pub fn path(self, protocol: Protocol) -> Option<&'static str> {
        self.row()
            .paths
            .iter()
            .find(|(spoken, _)| *spoken == protocol)
            .map(|(_, path)| *path)
    }

    /// The member that limits an answer's tokens, and those that would compete with it.
    pub(crate) fn limit_names(
        self,
        protocol: Protocol,
    ) -> Option<(&'static str, &'static [&'static str])> {
        match (self, protocol) {
            (Self::Openai | Self::Gemini | Self::VertexAi, Protocol::OpenaiChat) => {
                Some(("max_completion_tokens", &["max_tokens"]))
            }
            (_, Protocol::OpenaiChat) => Some(("max_tokens", &["max_completion_tokens"])),
            (_, Protocol::Direct(DirectApi::Completion)) => Some(("max_tokens", &[])),
            (_, Protocol::OpenaiResponses) => Some(("max_output_tokens", &[])),
            (_, Protocol::AnthropicMessages | Protocol::CohereChat) => Some(("max_tokens", &[])),
            _ => None,
        }
    }

    /// The object and its member that limit an answer's tokens.
    pub(crate) fn nested_limit(protocol: Protocol) -> Option<(&'static str, &'static str)> {
        match protocol {
            Protocol::BedrockConverse => Some(("inferenceConfig", "maxTokens")),
            Protocol::GeminiGenerateContent => Some(("generationConfig", "maxOutputTokens")),
            _ => None,
        }
    }

    /// The model is named by the endpoint or the path, so it leaves the body.
    pub(crate) fn removes_model(self, target: Protocol) -> bool {
        (self == Self::AzureOpenai && !matches!(target, Protocol::Direct(_)))
            || matches!(
                target,
                Protocol::BedrockConverse
                    | Protocol::GeminiGenerateContent
                    | Protocol::Vectors(
                        VectorApi::VertexPredict | VectorApi::GeminiBatch | VectorApi::BedrockTitan
                    )
            )
    }

    fn row(self) -> &'static Row {
        TABLE
            .iter()
            .find(|row| row.provider == self)
            .unwrap_or(&TABLE[0])
    }
}

/// How a request reaches a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The protocol that is sent.
    pub target: Protocol,
    /// The path, unless the endpoint has one.
    pub path: PathChoice,
}

/// Where a provider is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// Over TLS.
    pub https: bool,
    /// Name; may hold `{region}`.
    pub host: &'static str,
    /// Port.
    pub port: u16,
}

/// The path when the endpoint has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathChoice {
    /// The provider's own. `{model}`, `{region}` and `{project}` stand for those, and
    /// `[a|b]` for `a` without and `b` with a stream.
    Provider(&'static str),
    /// The client's.
    Inbound,
    /// The provider's own, of an API that is passed on: what it stands under, and its end.
    Direct(DirectApi, &'static str, &'static str),
}

/// A provider does not speak the client's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// The provider.
    pub provider: Provider,
    /// The client's protocol.
    pub protocol: Protocol,
}

impl std::fmt::Display for Unsupported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut supported: Vec<&str> = self
            .provider
            .row()
            .paths
            .iter()
            .map(|(protocol, _)| protocol.as_str())
            .collect();
        let direct = DirectApi::ALL.into_iter();
        let direct = direct.filter(|api| api.place(self.provider, None).is_some());
        if matches!(self.protocol, Protocol::Direct(_)) {
            supported.extend(direct.map(DirectApi::as_str));
        }
        write!(
            f,
            "provider {} does not support {} protocol (supported: {})",
            self.provider.as_str(),
            self.protocol.as_str(),
            supported.join(", ")
        )
    }
}

impl std::error::Error for Unsupported {}

/// How a request in `client` is sent to `provider`, whose instance may be declared to speak `spoken`:
/// as it is where that is possible, else translated.
///
/// # Errors
///
/// The provider does not speak the client's protocol, and nothing translates it.
pub fn bind(
    provider: Provider,
    spoken: Option<Protocol>,
    client: Protocol,
) -> Result<Binding, Unsupported> {
    let unsupported = Unsupported {
        provider,
        protocol: client,
    };
    if client == Protocol::Passthrough {
        return Ok(Binding {
            target: client,
            path: PathChoice::Inbound,
        });
    }
    if let Protocol::Direct(api) = client {
        let (stem, end) = api.place(provider, spoken).ok_or(unsupported)?;
        return Ok(Binding {
            target: client,
            path: PathChoice::Direct(api, stem, end),
        });
    }
    let declared = spoken.filter(|spoken| spoken.is_conversation() == client.is_conversation());
    let own = provider.path(client).map(|_| client);
    let preferred = match client {
        Protocol::OpenaiEmbeddings => provider.embeds(),
        _ if client.is_conversation() => provider.preferred(),
        _ => None,
    };
    let target = declared.or(own).or(preferred).ok_or(unsupported)?;
    let path = provider.path(target).or_else(|| default_path(target));
    Ok(Binding {
        target,
        path: PathChoice::Provider(path.ok_or(unsupported)?),
    })
}

/// The path of `protocol` at those who serve it under its own name.
fn default_path(protocol: Protocol) -> Option<&'static str> {
    Some(match protocol {
        Protocol::OpenaiChat => "/v1/chat/completions",
        Protocol::OpenaiResponses => "/v1/responses",
        Protocol::OpenaiEmbeddings => "/v1/embeddings",
        Protocol::AnthropicMessages => "/v1/messages",
        Protocol::GeminiGenerateContent => table::GEMINI,
        Protocol::CohereChat => "/v2/chat",
        Protocol::BedrockConverse => table::BEDROCK,
        Protocol::Vectors(_) | Protocol::Direct(_) | Protocol::Passthrough => return None,
    })
}

/// Fills the places of a provider's path or host: see [`PathChoice::Provider`]. `None` if
/// something that it needs is not there.
pub fn fill(
    template: &str,
    model: Option<&str>,
    region: Option<&str>,
    project: Option<&str>,
    streaming: bool,
) -> Option<String> {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'_')
        .remove(b'.')
        .remove(b'~');
    if template == table::VERTEX_HOST && region == Some("global") {
        return Some("aiplatform.googleapis.com".to_owned());
    }
    let mut filled = String::with_capacity(template.len() + 32);
    let mut rest = template;
    while let Some(at) = rest.find(['{', '[']) {
        filled.push_str(&rest[..at]);
        let close = if rest[at..].starts_with('{') {
            '}'
        } else {
            ']'
        };
        let (name, after) = rest[at + 1..].split_once(close)?;
        let named =
            |value: Option<&str>| value.filter(|value| !value.is_empty()).map(str::to_owned);
        match name {
            "model" => {
                let model = named(model)?;
                filled.extend(utf8_percent_encode(&model, KEPT));
            }
            "region" => filled.push_str(&named(region)?),
            "project" => filled.push_str(&named(project)?),
            choice => {
                let (whole, stream) = choice.split_once('|')?;
                filled.push_str(if streaming { stream } else { whole });
            }
        }
        rest = after;
    }
    filled.push_str(rest);
    Some(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_provider_does_not_speak_is_named() {
        let error =
            bind(Provider::Deepseek, None, Protocol::OpenaiEmbeddings).expect_err("unsupported");
        assert_eq!(
            error.to_string(),
            "provider deepseek does not support openai-embeddings protocol (supported: openai-chat)"
        );
    }

    fn check(
        provider: Provider,
        spoken: Option<Protocol>,
        client: Protocol,
        expected: (Protocol, &'static str),
    ) {
        let binding = bind(provider, spoken, client).expect("bound");
        let (target, path) = expected;
        assert_eq!(binding.target, target, "{provider:?} {spoken:?} {client:?}");
        let path = PathChoice::Provider(path);
        assert_eq!(binding.path, path, "{provider:?} {spoken:?} {client:?}");
    }

    #[test]
    fn clients_get_their_own_protocol_if_it_is_spoken() {
        use Protocol::*;
        use Provider::{Anthropic, Bedrock, Gemini, Openai};
        let chat = (OpenaiChat, "/v1/chat/completions");
        let messages = (AnthropicMessages, "/v1/messages");
        let surface = (OpenaiChat, "/v1beta/openai/chat/completions");
        let gemini = (GeminiGenerateContent, table::GEMINI);
        let responses = (OpenaiResponses, "/v1/responses");
        check(Openai, None, OpenaiResponses, responses);
        check(Openai, None, AnthropicMessages, chat);
        check(Anthropic, None, AnthropicMessages, messages);
        check(Anthropic, None, OpenaiChat, chat);
        check(Anthropic, None, CohereChat, messages);
        check(Bedrock, None, OpenaiChat, (BedrockConverse, table::BEDROCK));
        check(Gemini, None, OpenaiChat, surface);
        check(Gemini, None, GeminiGenerateContent, gemini);
    }

    #[test]
    fn what_an_instance_is_declared_to_speak_decides() {
        use Protocol::*;
        let declared = |provider, spoken, client, expected| {
            check(provider, Some(spoken), client, expected);
        };
        let messages = (AnthropicMessages, "/v1/messages");
        let cohere = (CohereChat, "/v2/chat");
        declared(Provider::Anthropic, AnthropicMessages, OpenaiChat, messages);
        declared(Provider::OpenaiCompatible, CohereChat, OpenaiChat, cohere);
        // Vectors are no conversation.
        let embeddings = (OpenaiEmbeddings, "/v1/embeddings");
        declared(
            Provider::Openai,
            AnthropicMessages,
            OpenaiEmbeddings,
            embeddings,
        );
    }

    #[test]
    fn paths_are_filled() {
        let filled =
            |template, model, streaming| fill(template, model, Some("eu"), Some("p"), streaming);
        assert_eq!(
            filled(table::BEDROCK, Some("a.b:0/c"), true).as_deref(),
            Some("/model/a.b%3A0%2Fc/converse-stream")
        );
        assert_eq!(
            filled(table::GEMINI, Some("gemini-2.5-pro"), true).as_deref(),
            Some("/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse")
        );
        assert_eq!(
            filled(table::GEMINI, Some("x"), false).as_deref(),
            Some("/v1beta/models/x:generateContent")
        );
        assert_eq!(filled(table::GEMINI, None, false), None);
        let host = |region| fill(table::VERTEX_HOST, None, Some(region), None, false);
        let (global, europe) = (host("global"), host("europe-west4"));
        assert_eq!(global.as_deref(), Some("aiplatform.googleapis.com"));
        let at = "europe-west4-aiplatform.googleapis.com";
        assert_eq!(europe.as_deref(), Some(at));
        assert_eq!(
            filled("/{region}/{project}", None, false).as_deref(),
            Some("/eu/p")
        );
        assert_eq!(filled("/v1", None, false).as_deref(), Some("/v1"));
    }

    #[test]
    fn names_and_rows_agree() {
        for row in TABLE {
            assert_eq!(Provider::from_name(row.name), Some(row.provider));
            assert_eq!(row.provider.as_str(), row.name);
        }
        assert_eq!(Provider::from_name("acme"), None);
    }

    #[test]
    fn passthrough_goes_anywhere() {
        let binding = bind(Provider::Gemini, None, Protocol::Passthrough).expect("bound");
        assert_eq!(binding.path, PathChoice::Inbound);
    }
}
