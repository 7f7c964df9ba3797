//! The providers, a row each.

use super::{Base, Provider};
use crate::{Protocol, VectorApi};

/// One provider.
pub(super) struct Row {
    pub(super) provider: Provider,
    pub(super) name: &'static str,
    pub(super) base: Option<Base>,
    /// What it speaks. Of conversations, what it is brought to speak for other clients comes first.
    pub(super) paths: &'static [(Protocol, &'static str)],
}

const OPENAI: &[(Protocol, &str)] = &[
    (Protocol::OpenaiChat, "/v1/chat/completions"),
    (Protocol::OpenaiResponses, "/v1/responses"),
    (Protocol::OpenaiEmbeddings, "/v1/embeddings"),
];

/// Gemini's own interface.
pub(super) const GEMINI: &str =
    "/v1beta/models/{model}:[generateContent|streamGenerateContent?alt=sse]";
/// Bedrock's Converse.
pub(super) const BEDROCK: &str = "/model/{model}/[converse|converse-stream]";
const GEMINI_EMBED: &str = "/v1beta/models/{model}:batchEmbedContents";
const BEDROCK_INVOKE: &str = "/model/{model}/invoke";
/// Vertex AI, but for the region `global`.
pub(super) const VERTEX_HOST: &str = "{region}-aiplatform.googleapis.com";
const VERTEX_CHAT: &str =
    "/v1beta1/projects/{project}/locations/{region}/endpoints/openapi/chat/completions";
const VERTEX_GEMINI: &str = "/v1/projects/{project}/locations/{region}/publishers/google/models/{model}:[generateContent|streamGenerateContent?alt=sse]";

const VERTEX_PREDICT: &str =
    "/v1/projects/{project}/locations/{region}/publishers/google/models/{model}:predict";

const fn https(host: &'static str) -> Option<Base> {
    Some(Base {
        https: true,
        host,
        port: 443,
    })
}

/// Servers that people run themselves: on this machine, unless configured.
const fn local(port: u16) -> Option<Base> {
    Some(Base {
        https: false,
        host: "127.0.0.1",
        port,
    })
}

pub(super) const TABLE: &[Row] = &[
    Row {
        provider: Provider::Openai,
        name: "openai",
        base: https("api.openai.com"),
        paths: OPENAI,
    },
    Row {
        provider: Provider::OpenaiCompatible,
        name: "openai-compatible",
        base: None,
        paths: OPENAI,
    },
    Row {
        provider: Provider::AzureOpenai,
        name: "azure-openai",
        base: None,
        paths: &[(Protocol::OpenaiChat, "/completions")],
    },
    Row {
        provider: Provider::Deepseek,
        name: "deepseek",
        base: https("api.deepseek.com"),
        paths: &[(Protocol::OpenaiChat, "/chat/completions")],
    },
    Row {
        provider: Provider::Aimlapi,
        name: "aimlapi",
        base: https("api.aimlapi.com"),
        paths: &[(Protocol::OpenaiChat, "/chat/completions")],
    },
    Row {
        provider: Provider::Openrouter,
        name: "openrouter",
        base: https("openrouter.ai"),
        paths: &[(Protocol::OpenaiChat, "/api/v1/chat/completions")],
    },
    Row {
        provider: Provider::Gemini,
        name: "gemini",
        base: https("generativelanguage.googleapis.com"),
        paths: &[
            (Protocol::OpenaiChat, "/v1beta/openai/chat/completions"),
            (Protocol::GeminiGenerateContent, GEMINI),
            (Protocol::Vectors(VectorApi::GeminiBatch), GEMINI_EMBED),
        ],
    },
    Row {
        provider: Provider::VertexAi,
        name: "vertex-ai",
        base: https(VERTEX_HOST),
        paths: &[
            (Protocol::OpenaiChat, VERTEX_CHAT),
            (Protocol::GeminiGenerateContent, VERTEX_GEMINI),
            (Protocol::Vectors(VectorApi::VertexPredict), VERTEX_PREDICT),
        ],
    },
    Row {
        provider: Provider::Anthropic,
        name: "anthropic",
        base: https("api.anthropic.com"),
        paths: &[
            (Protocol::AnthropicMessages, "/v1/messages"),
            (Protocol::OpenaiChat, "/v1/chat/completions"),
        ],
    },
    Row {
        provider: Provider::Bedrock,
        name: "bedrock",
        base: https("bedrock-runtime.{region}.amazonaws.com"),
        paths: &[
            (Protocol::BedrockConverse, BEDROCK),
            (Protocol::Vectors(VectorApi::BedrockTitan), BEDROCK_INVOKE),
        ],
    },
    Row {
        provider: Provider::Cohere,
        name: "cohere",
        base: https("api.cohere.com"),
        paths: &[
            (Protocol::CohereChat, "/v2/chat"),
            (Protocol::OpenaiChat, "/compatibility/v1/chat/completions"),
            (Protocol::Vectors(VectorApi::CohereEmbed), "/v2/embed"),
        ],
    },
    Row {
        provider: Provider::Mistral,
        name: "mistral",
        base: https("api.mistral.ai"),
        paths: &[
            (Protocol::OpenaiChat, "/v1/chat/completions"),
            (Protocol::OpenaiEmbeddings, "/v1/embeddings"),
        ],
    },
    Row {
        provider: Provider::Groq,
        name: "groq",
        base: https("api.groq.com"),
        paths: &[
            (Protocol::OpenaiChat, "/openai/v1/chat/completions"),
            (Protocol::OpenaiResponses, "/openai/v1/responses"),
        ],
    },
    Row {
        provider: Provider::Xai,
        name: "xai",
        base: https("api.x.ai"),
        paths: &[
            (Protocol::OpenaiChat, "/v1/chat/completions"),
            (Protocol::OpenaiResponses, "/v1/responses"),
        ],
    },
    Row {
        provider: Provider::Together,
        name: "together",
        base: https("api.together.xyz"),
        paths: &[
            (Protocol::OpenaiChat, "/v1/chat/completions"),
            (Protocol::OpenaiEmbeddings, "/v1/embeddings"),
        ],
    },
    Row {
        provider: Provider::Fireworks,
        name: "fireworks",
        base: https("api.fireworks.ai"),
        paths: &[
            (Protocol::OpenaiChat, "/inference/v1/chat/completions"),
            (Protocol::OpenaiResponses, "/inference/v1/responses"),
            (Protocol::OpenaiEmbeddings, "/inference/v1/embeddings"),
        ],
    },
    Row {
        provider: Provider::Perplexity,
        name: "perplexity",
        base: https("api.perplexity.ai"),
        paths: &[(Protocol::OpenaiChat, "/chat/completions")],
    },
    Row {
        provider: Provider::Cerebras,
        name: "cerebras",
        base: https("api.cerebras.ai"),
        paths: &[(Protocol::OpenaiChat, "/v1/chat/completions")],
    },
    Row {
        provider: Provider::Nvidia,
        name: "nvidia",
        base: https("integrate.api.nvidia.com"),
        paths: &[
            (Protocol::OpenaiChat, "/v1/chat/completions"),
            (Protocol::OpenaiEmbeddings, "/v1/embeddings"),
        ],
    },
    Row {
        provider: Provider::Ollama,
        name: "ollama",
        base: local(11_434),
        paths: OPENAI,
    },
    Row {
        provider: Provider::Vllm,
        name: "vllm",
        base: local(8_000),
        paths: OPENAI,
    },
    Row {
        provider: Provider::Sglang,
        name: "sglang",
        base: local(30_000),
        paths: OPENAI,
    },
    Row {
        provider: Provider::LmStudio,
        name: "lm-studio",
        base: local(1_234),
        paths: OPENAI,
    },
    Row {
        provider: Provider::Huggingface,
        name: "huggingface",
        base: https("router.huggingface.co"),
        paths: &[
            (Protocol::OpenaiChat, "/v1/chat/completions"),
            (Protocol::OpenaiResponses, "/v1/responses"),
        ],
    },
    Row {
        provider: Provider::Cloudflare,
        name: "cloudflare",
        base: https("api.cloudflare.com"),
        paths: &[
            (
                Protocol::OpenaiChat,
                "/client/v4/accounts/{project}/ai/v1/chat/completions",
            ),
            (
                Protocol::OpenaiEmbeddings,
                "/client/v4/accounts/{project}/ai/v1/embeddings",
            ),
        ],
    },
    Row {
        provider: Provider::Moonshot,
        name: "moonshot",
        base: https("api.moonshot.ai"),
        paths: &[(Protocol::OpenaiChat, "/v1/chat/completions")],
    },
    Row {
        provider: Provider::Zhipu,
        name: "zhipu",
        base: https("open.bigmodel.cn"),
        paths: &[
            (Protocol::OpenaiChat, "/api/paas/v4/chat/completions"),
            (Protocol::OpenaiEmbeddings, "/api/paas/v4/embeddings"),
        ],
    },
    Row {
        provider: Provider::Qwen,
        name: "qwen",
        base: https("dashscope-intl.aliyuncs.com"),
        paths: &[
            (Protocol::OpenaiChat, "/compatible-mode/v1/chat/completions"),
            (Protocol::OpenaiEmbeddings, "/compatible-mode/v1/embeddings"),
        ],
    },
    Row {
        provider: Provider::Volcengine,
        name: "volcengine",
        base: https("ark.cn-beijing.volces.com"),
        paths: &[
            (Protocol::OpenaiChat, "/api/v3/chat/completions"),
            (Protocol::OpenaiResponses, "/api/v3/responses"),
            (Protocol::OpenaiEmbeddings, "/api/v3/embeddings"),
        ],
    },
    Row {
        provider: Provider::Minimax,
        name: "minimax",
        base: https("api.minimax.io"),
        paths: &[(Protocol::OpenaiChat, "/v1/chat/completions")],
    },
];
