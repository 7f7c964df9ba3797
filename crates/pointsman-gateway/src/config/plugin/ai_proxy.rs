//! `ai-proxy` and `ai-proxy-multi` as written.

mod auth;
mod check;
mod resilience;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use auth::{Auth, Aws, Gcp};
pub use resilience::{CircuitBreaker, Cooldown, OnAllUnhealthy, Retry};

use crate::config::{
    plugin_schema::PluginSchema,
    resource::{checks::Checks, schema_of},
};

/// What both plugins have.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(default)]
pub struct Common {
    /// Milliseconds per operation on a connection.
    #[schemars(range(min = 1, max = 600_000))]
    pub timeout: u64,
    /// Bytes of a request.
    #[schemars(range(min = 1))]
    pub max_req_body_size: u64,
    /// Milliseconds of a stream.
    #[schemars(range(min = 1))]
    pub max_stream_duration_ms: Option<u64>,
    /// Bytes of a response.
    #[schemars(range(min = 1))]
    pub max_response_bytes: Option<u64>,
    /// Use connections again.
    pub keepalive: bool,
    /// Milliseconds until an idle connection is closed.
    #[schemars(range(min = 1000))]
    pub keepalive_timeout: u64,
    /// Idle connections kept.
    #[schemars(range(min = 1))]
    pub keepalive_pool: usize,
    /// Accepted; every chunk goes out as it arrives, which satisfies any value.
    #[schemars(range(min = 0))]
    pub streaming_flush_interval_ms: u64,
    /// Verify the certificates of instances.
    pub ssl_verify: bool,
    /// What reaches log entries.
    pub logging: Logging,
    /// The same instance once more before anything else. Our addition.
    pub retry: Option<Retry>,
    /// Refuse requests that the instance's protocol cannot say in full. Our addition.
    pub strict_translation: bool,
    /// Milliseconds of silence in the middle of a stream. Our addition.
    #[schemars(range(min = 1))]
    pub stream_idle_timeout_ms: Option<u64>,
    /// Milliseconds until a stream's first content; after that another instance is asked, if there
    /// is one. Our addition.
    #[schemars(range(min = 1))]
    pub first_token_timeout_ms: Option<u64>,
    /// Hold the beginning of a stream back until there is content, so that another instance can
    /// answer in its place. By default wherever another may be asked. Our addition.
    pub hold_stream_start: Option<bool>,
    /// Known paths beside chats and embeddings (audio, images, moderations, rerank, completions,
    /// token counts) are passed on as what they are. Our addition.
    #[serde(default)]
    pub typed_passthrough: bool,
    /// Estimate the tokens of a stream that ended before its provider stated them. Our addition.
    #[serde(default)]
    pub estimate_usage: bool,
}

/// `logging`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(default)]
pub struct Logging {
    /// `llm_summary`.
    pub summaries: bool,
    /// `llm_request` and `llm_response_text`.
    pub payloads: bool,
}

/// `ai-proxy`.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
pub struct AiProxy {
    /// Who serves it.
    #[schemars(extend("enum" = PROVIDERS))]
    pub provider: String,
    /// What it is spoken to in, if not in its provider's own way. Our addition.
    #[schemars(extend("enum" = PROTOCOLS))]
    pub protocol: Option<String>,
    /// Credentials.
    pub auth: Auth,
    /// Region and project.
    pub provider_conf: Option<ProviderConf>,
    /// Members set in every body.
    pub options: Option<Map<String, Value>>,
    /// Endpoint and body overrides.
    #[serde(rename = "override")]
    pub overrides: Option<Override>,
    /// What both plugins have.
    #[serde(flatten)]
    pub common: Common,
}

/// `ai-proxy-multi`.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
pub struct AiProxyMulti {
    /// Who may be picked.
    #[schemars(length(min = 1))]
    pub instances: Vec<Instance>,
    /// How one is picked.
    #[serde(default)]
    pub balancer: Balancer,
    /// Needed for `semantic`.
    pub semantic_opts: Option<SemanticOpts>,
    /// What makes an attempt fail over.
    pub fallback_strategy: Option<FallbackStrategy>,
    /// Further statuses that do.
    #[schemars(length(min = 1), extend("uniqueItems" = true, "items" = {"type": "integer", "minimum": 400, "maximum": 599}))]
    pub fallback_http_statuses: Option<Vec<u16>>,
    /// Attempts after the first.
    #[schemars(range(min = 0))]
    pub max_retries: Option<u32>,
    /// Only after a failure that took no longer, milliseconds.
    #[schemars(range(min = 1))]
    pub retry_on_failure_within_ms: Option<u64>,
    /// Heed the waits that instances ask for. Our addition.
    pub cooldown: Option<Cooldown>,
    /// Leave instances alone that fail too often. Our addition.
    pub circuit_breaker: Option<CircuitBreaker>,
    /// What to do when no instance is usable. Our addition.
    #[serde(default)]
    pub on_all_unhealthy: OnAllUnhealthy,
    /// What both plugins have.
    #[serde(flatten)]
    pub common: Common,
}

/// One element of `instances`.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
pub struct Instance {
    /// Its identity everywhere.
    #[schemars(length(min = 1, max = 100))]
    pub name: String,
    /// Who serves it.
    #[schemars(extend("enum" = PROVIDERS))]
    pub provider: String,
    /// Higher is tried first.
    #[serde(default)]
    pub priority: i32,
    /// Share inside its tier.
    pub weight: u32,
    /// What it is spoken to in, if not in its provider's own way. Our addition.
    #[schemars(extend("enum" = PROTOCOLS))]
    pub protocol: Option<String>,
    /// Credentials.
    pub auth: Auth,
    /// Region and project.
    pub provider_conf: Option<ProviderConf>,
    /// Members set in every body.
    pub options: Option<Map<String, Value>>,
    /// Endpoint and body overrides.
    #[serde(rename = "override")]
    pub overrides: Option<Override>,
    /// Health checks.
    pub checks: Option<Checks>,
    /// Reference utterances, for `semantic`.
    #[schemars(length(min = 1, max = 64), extend("items" = {"type": "string", "minLength": 1}))]
    pub examples: Option<Vec<String>>,
    /// Similarity, for `semantic`.
    #[schemars(range(min = -1, max = 1))]
    pub threshold: Option<f64>,
    /// Tokens that the model takes: whoever finds a prompt too long is followed by one that takes
    /// more. Our addition.
    #[schemars(range(min = 1))]
    pub context_length: Option<u64>,
}

/// `provider_conf`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[expect(missing_docs, reason = "the names are the providers'")]
pub struct ProviderConf {
    pub project_id: Option<String>,
    #[schemars(length(min = 1))]
    pub region: Option<String>,
}

/// `override`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(default)]
pub struct Override {
    /// Where the instance is.
    #[schemars(length(min = 1))]
    pub endpoint: Option<String>,
    /// Limits under the provider's own names.
    pub llm_options: Option<LlmOptions>,
    /// Partial bodies, by target protocol.
    pub request_body: Option<RequestBodies>,
    /// Overwrite instead of fill in.
    pub request_body_force_override: bool,
}

/// `override.llm_options`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LlmOptions {
    /// Tokens of an answer.
    #[schemars(range(min = 1))]
    pub max_tokens: Option<u64>,
}

/// `override.request_body`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names are the protocols'")]
pub struct RequestBodies {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub openai_chat: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub openai_responses: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub openai_embeddings: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anthropic_messages: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bedrock_converse: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gemini_generate_content: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cohere_chat: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passthrough: Option<Map<String, Value>>,
}

/// `semantic_opts`.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
pub struct SemanticOpts {
    /// What makes vectors of texts.
    pub embeddings: Embeddings,
    /// Least similarity.
    #[schemars(range(min = -1, max = 1))]
    pub threshold: Option<f64>,
    /// The instance for everything that resembles no example.
    #[schemars(length(min = 1))]
    pub fallback: Option<String>,
    /// Show scores in response headers.
    #[serde(default)]
    pub debugging: bool,
}

/// `semantic_opts.embeddings`.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
pub struct Embeddings {
    /// Who makes them. `openai-compatible` is our addition.
    #[schemars(extend("enum" = ["openai", "azure-openai", "openai-compatible"]))]
    pub provider: String,
    /// With which model.
    #[schemars(length(min = 1))]
    pub model: String,
    /// Credentials.
    pub auth: EmbeddingsAuth,
    /// Where.
    pub endpoint: Option<String>,
    /// Milliseconds.
    #[schemars(range(min = 1))]
    pub timeout: Option<u64>,
    /// Verify the certificate.
    pub ssl_verify: Option<bool>,
}

/// `semantic_opts.embeddings.auth`. `Debug` shows no value.
#[derive(Clone, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EmbeddingsAuth {
    /// Headers.
    #[schemars(extend("propertyNames" = {"pattern": AUTH_NAME}))]
    pub header: Option<BTreeMap<String, String>>,
    /// Query arguments.
    #[schemars(extend("propertyNames" = {"pattern": AUTH_NAME}))]
    pub query: Option<BTreeMap<String, String>>,
}

impl std::fmt::Debug for EmbeddingsAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EmbeddingsAuth(..)")
    }
}

/// `balancer`. Without `algorithm` it is round robin.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(default)]
pub struct Balancer {
    /// How one is picked.
    pub algorithm: BalancerAlgorithm,
    /// What a hash ring hashes.
    pub hash_on: HashOn,
    /// Which of those.
    pub key: Option<String>,
}

/// `balancer.algorithm`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BalancerAlgorithm {
    /// Consistent hashing.
    Chash,
    /// Weighted round robin.
    #[default]
    Roundrobin,
    /// By meaning.
    Semantic,
    /// The least to do for its weight (not in APISIX).
    #[serde(rename = "least_conn")]
    LeastConn,
    /// The quicker of two (not in APISIX).
    Ewma,
}

/// `balancer.hash_on`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HashOn {
    /// A variable.
    #[default]
    Vars,
    /// A header.
    Header,
    /// A cookie.
    Cookie,
    /// The consumer.
    Consumer,
    /// A template.
    VarsCombinations,
}

impl HashOn {
    /// As written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vars => "vars",
            Self::Header => "header",
            Self::Cookie => "cookie",
            Self::Consumer => "consumer",
            Self::VarsCombinations => "vars_combinations",
        }
    }
}

/// `fallback_strategy` in either form.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(untagged)]
pub enum FallbackStrategy {
    /// One.
    One(FallbackName),
    /// Any of several.
    Any(Vec<FallbackItem>),
}

/// `fallback_strategy` as a string.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[schemars(inline)]
#[expect(
    missing_docs,
    reason = "the names are APISIX's and are documented there"
)]
pub enum FallbackName {
    #[serde(rename = "instance_health_and_rate_limiting")]
    InstanceHealthAndRateLimiting,
    #[serde(rename = "http_429")]
    Http429,
    #[serde(rename = "http_5xx")]
    Http5xx,
}

/// An item of `fallback_strategy` as an array.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[schemars(inline)]
#[expect(
    missing_docs,
    reason = "the names are APISIX's and are documented there"
)]
pub enum FallbackItem {
    #[serde(rename = "rate_limiting")]
    RateLimiting,
    #[serde(rename = "http_429")]
    Http429,
    #[serde(rename = "http_5xx")]
    Http5xx,
}

impl Default for Common {
    fn default() -> Self {
        Self {
            timeout: 30_000,
            max_req_body_size: 67_108_864,
            max_stream_duration_ms: None,
            max_response_bytes: None,
            keepalive: true,
            keepalive_timeout: 60_000,
            keepalive_pool: 30,
            streaming_flush_interval_ms: 10,
            ssl_verify: true,
            logging: Logging::default(),
            retry: None,
            strict_translation: false,
            stream_idle_timeout_ms: None,
            first_token_timeout_ms: None,
            hold_stream_start: None,
            typed_passthrough: false,
            estimate_usage: false,
        }
    }
}

impl Instance {
    /// The one instance that an `ai-proxy` is.
    pub fn from_single(conf: &AiProxy) -> Self {
        Self {
            name: format!("ai-proxy-{}", conf.provider),
            provider: conf.provider.clone(),
            protocol: conf.protocol.clone(),
            priority: 0,
            weight: 1,
            auth: conf.auth.clone(),
            provider_conf: conf.provider_conf.clone(),
            options: conf.options.clone(),
            overrides: conf.overrides.clone(),
            checks: None,
            examples: None,
            threshold: None,
            context_length: None,
        }
    }

    /// `override.endpoint`.
    pub fn endpoint(&self) -> Option<&str> {
        self.overrides.as_ref()?.endpoint.as_deref()
    }

    /// `override.llm_options.max_tokens`.
    pub fn llm_max_tokens(&self) -> Option<u64> {
        self.overrides.as_ref()?.llm_options.as_ref()?.max_tokens
    }

    /// `override.request_body`, by protocol name.
    pub fn request_body(&self) -> Vec<(&'static str, &Map<String, Value>)> {
        let Some(bodies) = self
            .overrides
            .as_ref()
            .and_then(|o| o.request_body.as_ref())
        else {
            return Vec::new();
        };
        [
            ("openai-chat", &bodies.openai_chat),
            ("openai-responses", &bodies.openai_responses),
            ("openai-embeddings", &bodies.openai_embeddings),
            ("anthropic-messages", &bodies.anthropic_messages),
            ("bedrock-converse", &bodies.bedrock_converse),
            ("gemini-generate-content", &bodies.gemini_generate_content),
            ("cohere-chat", &bodies.cohere_chat),
            ("passthrough", &bodies.passthrough),
        ]
        .into_iter()
        .filter_map(|(name, body)| Some((name, body.as_ref()?)))
        .collect()
    }

    /// `override.request_body_force_override`.
    pub fn request_body_force_override(&self) -> bool {
        self.overrides
            .as_ref()
            .is_some_and(|o| o.request_body_force_override)
    }
}

impl AiProxyMulti {
    /// Whether `http_429` or `http_5xx` is selected, in either form.
    pub fn falls_back_on(&self, name: &str) -> bool {
        match &self.fallback_strategy {
            None => false,
            Some(FallbackStrategy::One(FallbackName::Http429)) => name == "http_429",
            Some(FallbackStrategy::One(FallbackName::Http5xx)) => name == "http_5xx",
            Some(FallbackStrategy::One(FallbackName::InstanceHealthAndRateLimiting)) => false,
            Some(FallbackStrategy::Any(items)) => items.iter().any(|item| match item {
                FallbackItem::Http429 => name == "http_429",
                FallbackItem::Http5xx => name == "http_5xx",
                FallbackItem::RateLimiting => false,
            }),
        }
    }
}

/// `ai-proxy` for the registry.
pub fn single_schema() -> PluginSchema {
    PluginSchema {
        name: "ai-proxy",
        priority: 1040,
        version: "0.5",
        schema: schema_of::<AiProxy>(),
        consumer_schema: None,
        metadata_schema: None,
        is_auth: false,
        check: check::single,
    }
}

/// `ai-proxy-multi` for the registry.
pub fn multi_schema() -> PluginSchema {
    PluginSchema {
        name: "ai-proxy-multi",
        priority: 1041,
        version: "0.5",
        schema: schema_of::<AiProxyMulti>(),
        consumer_schema: None,
        metadata_schema: None,
        is_auth: false,
        check: check::multi,
    }
}

/// Names of headers and query arguments that carry credentials.
const AUTH_NAME: &str = "^[a-zA-Z0-9._-]+$";

/// Every provider that a configuration may name: APISIX's ten, then ours.
pub const PROVIDERS: [&str; 30] = [
    "openai",
    "deepseek",
    "aimlapi",
    "anthropic",
    "openai-compatible",
    "azure-openai",
    "openrouter",
    "gemini",
    "vertex-ai",
    "bedrock",
    "cohere",
    "mistral",
    "groq",
    "xai",
    "together",
    "fireworks",
    "perplexity",
    "cerebras",
    "nvidia",
    "ollama",
    "vllm",
    "sglang",
    "lm-studio",
    "huggingface",
    "cloudflare",
    "moonshot",
    "zhipu",
    "qwen",
    "volcengine",
    "minimax",
];

/// Every protocol that an instance may be declared to speak.
const PROTOCOLS: [&str; 7] = [
    "openai-chat",
    "openai-responses",
    "openai-embeddings",
    "anthropic-messages",
    "gemini-generate-content",
    "cohere-chat",
    "bedrock-converse",
];
