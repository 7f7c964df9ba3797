//! Who serves models: where, in which protocols, and under which names for limits.

use crate::Protocol;

/// A provider. Protocols, paths and names are APISIX 3.18's.
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
    Anthropic,
}

/// One row of the table.
struct Row {
    provider: Provider,
    name: &'static str,
    host: Option<&'static str>,
    paths: &'static [(Protocol, &'static str)],
}

const OPENAI_PATHS: &[(Protocol, &str)] = &[
    (Protocol::OpenaiChat, "/v1/chat/completions"),
    (Protocol::OpenaiResponses, "/v1/responses"),
    (Protocol::OpenaiEmbeddings, "/v1/embeddings"),
];

const TABLE: &[Row] = &[
    Row {
        provider: Provider::Openai,
        name: "openai",
        host: Some("api.openai.com"),
        paths: OPENAI_PATHS,
    },
    Row {
        provider: Provider::OpenaiCompatible,
        name: "openai-compatible",
        host: None,
        paths: OPENAI_PATHS,
    },
    Row {
        provider: Provider::AzureOpenai,
        name: "azure-openai",
        host: None,
        paths: &[(Protocol::OpenaiChat, "/completions")],
    },
    Row {
        provider: Provider::Deepseek,
        name: "deepseek",
        host: Some("api.deepseek.com"),
        paths: &[(Protocol::OpenaiChat, "/chat/completions")],
    },
    Row {
        provider: Provider::Aimlapi,
        name: "aimlapi",
        host: Some("api.aimlapi.com"),
        paths: &[(Protocol::OpenaiChat, "/chat/completions")],
    },
    Row {
        provider: Provider::Openrouter,
        name: "openrouter",
        host: Some("openrouter.ai"),
        paths: &[(Protocol::OpenaiChat, "/api/v1/chat/completions")],
    },
    Row {
        provider: Provider::Gemini,
        name: "gemini",
        host: Some("generativelanguage.googleapis.com"),
        paths: &[(Protocol::OpenaiChat, "/v1beta/openai/chat/completions")],
    },
    Row {
        provider: Provider::Anthropic,
        name: "anthropic",
        host: Some("api.anthropic.com"),
        paths: &[
            (Protocol::OpenaiChat, "/v1/chat/completions"),
            (Protocol::AnthropicMessages, "/v1/messages"),
        ],
    },
];

impl Provider {
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

    /// Its host, over https on port 443; `None` when the endpoint must be configured.
    pub fn default_host(self) -> Option<&'static str> {
        self.row().host
    }

    /// Its path for `protocol`, if it speaks that.
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
            (Self::Openai | Self::Gemini, Protocol::OpenaiChat) => {
                Some(("max_completion_tokens", &["max_tokens"]))
            }
            (_, Protocol::OpenaiChat) => Some(("max_tokens", &["max_completion_tokens"])),
            (_, Protocol::OpenaiResponses) => Some(("max_output_tokens", &[])),
            (_, Protocol::AnthropicMessages) => Some(("max_tokens", &[])),
            _ => None,
        }
    }

    /// The model is named by the endpoint, so it leaves the body.
    pub(crate) fn removes_model(self) -> bool {
        self == Self::AzureOpenai
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

/// The path when the endpoint has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathChoice {
    /// The provider's own.
    Provider(&'static str),
    /// The client's.
    Inbound,
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
        let supported: Vec<&str> = self
            .provider
            .row()
            .paths
            .iter()
            .map(|(protocol, _)| protocol.as_str())
            .collect();
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

/// How a request in `protocol` is sent to `provider`: as it is, or not at all.
pub fn bind(provider: Provider, protocol: Protocol) -> Result<Binding, Unsupported> {
    if protocol == Protocol::Passthrough {
        return Ok(Binding {
            target: protocol,
            path: PathChoice::Inbound,
        });
    }
    provider
        .path(protocol)
        .map(|path| Binding {
            target: protocol,
            path: PathChoice::Provider(path),
        })
        .ok_or(Unsupported { provider, protocol })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P-072
    #[test]
    fn what_a_provider_does_not_speak_is_named() {
        let error = bind(Provider::Deepseek, Protocol::OpenaiResponses).expect_err("unsupported");
        assert_eq!(
            error.to_string(),
            "provider deepseek does not support openai-responses protocol (supported: openai-chat)"
        );
        assert!(bind(Provider::Openai, Protocol::AnthropicMessages).is_err());
    }

    #[test]
    fn names_and_rows_agree() {
        for row in TABLE {
            assert_eq!(Provider::from_name(row.name), Some(row.provider));
            assert_eq!(row.provider.as_str(), row.name);
        }
        assert_eq!(Provider::from_name("bedrock"), None);
    }

    #[test]
    fn passthrough_goes_anywhere() {
        let binding = bind(Provider::Gemini, Protocol::Passthrough).expect("bound");
        assert_eq!(binding.path, PathChoice::Inbound);
    }
}
