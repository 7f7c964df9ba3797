//! APIs beside conversations and embeddings: known by their path, passed on as they are.
//!
//! Nothing translates them. What a provider does not have is refused before it is sent; what it has
//! is sent to the provider's own path, with its model and credentials, and its tokens are counted
//! where it states them. A body may be a form; of that only the model is looked at.

use std::borrow::Cow;

use crate::{Protocol, Provider, RequestBody};

/// An API that is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DirectApi {
    /// Anthropic's `POST /v1/messages/count_tokens`.
    CountTokens,
    /// `POST /v1/rerank`, as Cohere, Jina and many others have it.
    Rerank,
    /// Cohere's `POST /v2/rerank`.
    RerankV2,
    /// `POST /v1/audio/speech`.
    Speech,
    /// `POST /v1/audio/transcriptions`.
    Transcription,
    /// `POST /v1/audio/translations`.
    AudioTranslation,
    /// `POST /v1/images/generations`.
    ImageGeneration,
    /// `POST /v1/images/edits`.
    ImageEdit,
    /// `POST /v1/images/variations`.
    ImageVariation,
    /// `POST /v1/moderations`.
    Moderation,
    /// `POST /v1/completions`, the legacy one.
    Completion,
    /// `GET /v1/realtime`, a WebSocket.
    Realtime,
}

use DirectApi::{
    AudioTranslation, Completion, CountTokens, ImageEdit, ImageGeneration, ImageVariation,
    Moderation, Realtime, Rerank, RerankV2, Speech, Transcription,
};

impl DirectApi {
    /// All of them.
    pub const ALL: [Self; 12] = [
        CountTokens,
        Rerank,
        RerankV2,
        Speech,
        Transcription,
        AudioTranslation,
        ImageGeneration,
        ImageEdit,
        ImageVariation,
        Moderation,
        Completion,
        Realtime,
    ];

    /// Its name in errors and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            CountTokens => "anthropic-count-tokens",
            Rerank => "rerank",
            RerankV2 => "rerank-v2",
            Speech => "audio-speech",
            Transcription => "audio-transcriptions",
            AudioTranslation => "audio-translations",
            ImageGeneration => "image-generations",
            ImageEdit => "image-edits",
            ImageVariation => "image-variations",
            Moderation => "moderations",
            Completion => "completions",
            Realtime => "realtime",
        }
    }

    /// The API that a request for `path` (decoded, without query) is for. Whatever stands before
    /// the version is the gateway's own; Azure's paths have no version but `/openai/` instead.
    pub fn of_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|api| {
            let stem = path.strip_suffix(api.end());
            stem.is_some_and(|stem| match api {
                RerankV2 => stem.ends_with("/v2"),
                CountTokens | Rerank => stem.ends_with("/v1"),
                _ => stem.ends_with("/v1") || is_azure(stem),
            })
        })
    }

    /// Its body may be a form.
    pub fn takes_forms(self) -> bool {
        matches!(
            self,
            Transcription | AudioTranslation | ImageEdit | ImageVariation
        )
    }

    /// All of an instance's options are meant for it, and not only the model: it is how models were
    /// talked to once.
    pub fn takes_options(self) -> bool {
        self == Completion
    }

    /// Where `provider` has it, as a stem and an end, if it does; its instance may be declared to
    /// speak `spoken`. The stem may hold places: see [`fill`](crate::fill).
    pub(crate) fn place(
        self,
        provider: Provider,
        spoken: Option<Protocol>,
    ) -> Option<(&'static str, &'static str)> {
        if self == CountTokens {
            let speaks = spoken.map_or(provider == Provider::Anthropic, |spoken| {
                spoken == Protocol::AnthropicMessages
            });
            return speaks.then_some(("/v1", self.end()));
        }
        let stem = match (provider, self) {
            _ if !self.is_served_by(provider) => return None,
            (Provider::AzureOpenai, Realtime) => "/openai",
            // The endpoint names the deployment, or the model does.
            (Provider::AzureOpenai, _) => "/openai/deployments/{model}",
            (Provider::Cohere | Provider::Vllm, RerankV2) => "/v2",
            (Provider::Cohere, _) => "/v1",
            (Provider::Deepseek, _) => "/beta",
            _ => {
                let chat = provider.path(Protocol::OpenaiChat)?;
                chat.strip_suffix("/chat/completions")?
            }
        };
        Some((stem, self.end()))
    }

    /// The path of this API at an endpoint whose own path is `path`: beside that, if it is the path
    /// of an API, else that path, as for everything.
    pub fn beside(self, path: &str) -> Cow<'_, str> {
        let apis = Self::ALL.map(Self::end);
        let mut ends = CONVERSATIONS.iter().chain(&apis);
        // The longest comes first: `/chat/completions` ends in `/completions`.
        match ends.find_map(|end| path.strip_suffix(*end)) {
            // The deployment is in the query there.
            Some(stem) if self == Realtime => {
                let stem = stem.split("/deployments/").next().unwrap_or_default();
                Cow::Owned(format!("{stem}{}", self.end()))
            }
            Some(stem) => Cow::Owned(format!("{stem}{}", self.end())),
            None => Cow::Owned(path.to_owned()),
        }
    }

    /// The deployment that a path of Azure's names.
    pub fn deployment(path: &str) -> Option<&str> {
        let (_, rest) = path.split_once("/deployments/")?;
        rest.split('/').next().filter(|name| !name.is_empty())
    }

    /// What its paths end in.
    fn end(self) -> &'static str {
        match self {
            CountTokens => "/messages/count_tokens",
            Rerank | RerankV2 => "/rerank",
            Speech => "/audio/speech",
            Transcription => "/audio/transcriptions",
            AudioTranslation => "/audio/translations",
            ImageGeneration => "/images/generations",
            ImageEdit => "/images/edits",
            ImageVariation => "/images/variations",
            Moderation => "/moderations",
            Completion => "/completions",
            Realtime => "/realtime",
        }
    }

    /// Whether `provider` is known to have it. Servers that people run themselves say so themselves.
    fn is_served_by(self, provider: Provider) -> bool {
        use Provider::{
            AzureOpenai, Cerebras, Cohere, Deepseek, Fireworks, Gemini, Groq, LmStudio, Mistral,
            Nvidia, Ollama, Openai, OpenaiCompatible, Openrouter, Qwen, Sglang, Together, Vllm,
            Volcengine, Xai, Zhipu,
        };
        match provider {
            OpenaiCompatible | Vllm | Sglang | Ollama | LmStudio => self != CountTokens,
            Openai | AzureOpenai => !matches!(self, CountTokens | Rerank | RerankV2),
            Cohere => matches!(self, Rerank | RerankV2),
            Gemini | Volcengine => self == ImageGeneration,
            Mistral => matches!(self, Transcription | Moderation),
            Groq => matches!(self, Speech | Transcription | AudioTranslation),
            Xai => matches!(self, ImageGeneration | ImageEdit | Completion | Realtime),
            Together => matches!(
                self,
                Rerank
                    | RerankV2
                    | Speech
                    | Transcription
                    | AudioTranslation
                    | ImageGeneration
                    | Completion
            ),
            Fireworks => matches!(self, Rerank | RerankV2 | Completion),
            Zhipu => matches!(
                self,
                Rerank | RerankV2 | Speech | Transcription | ImageGeneration
            ),
            Openrouter => matches!(self, Rerank | RerankV2 | Speech | Completion),
            Deepseek | Cerebras | Nvidia | Qwen => self == Completion,
            _ => false,
        }
    }
}

/// The protocol of a request for `path` (decoded, without query) where that decides it rather than
/// the body, which is an object or a form.
pub fn detect_by_path(path: &str, body: &RequestBody) -> Option<Protocol> {
    let is_filled = body.as_form().is_some() || body.is_object();
    // No session begins with a body.
    let api = DirectApi::of_path(path).filter(|api| is_filled && *api != Realtime);
    // Azure's own path, which says nothing of a version.
    let responses = path.ends_with("/openai/responses") && body.member("input").is_some();
    api.map(Protocol::Direct)
        .or_else(|| responses.then_some(Protocol::OpenaiResponses))
}

/// Whether what comes before the end of a path is Azure's: `/openai`, or that and a deployment.
fn is_azure(stem: &str) -> bool {
    match stem.rsplit_once("/deployments/") {
        Some((before, deployment)) => before.ends_with("/openai") && !deployment.contains('/'),
        None => stem.ends_with("/openai"),
    }
}

/// What the paths of conversations and embeddings end in.
const CONVERSATIONS: [&str; 5] = [
    "/chat/completions",
    "/responses",
    "/embeddings",
    "/messages",
    "/chat",
];

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn paths_say_which_api_it_is() {
        let check = |path: &str, expected: Option<DirectApi>| {
            assert_eq!(DirectApi::of_path(path), expected, "{path}");
        };
        for api in DirectApi::ALL {
            let version = if api == RerankV2 { "v2" } else { "v1" };
            check(&format!("/{version}{}", api.end()), Some(api));
            check(&format!("/gw/{version}{}", api.end()), Some(api));
            check(&format!("/{version}{}/", api.end()), None);
        }
        check("/v1/chat/completions", None);
        check("/openai/deployments/a/chat/completions", None);
        check("/openai/deployments/a/completions", Some(Completion));
        check("/openai/deployments/w/audio/speech", Some(Speech));
        check("/openai/images/edits", Some(ImageEdit));
        check("/deployments/a/completions", None);
        check("/rerank", None);
        check("/v2/moderations", None);
    }

    /// G-24
    #[test]
    fn a_path_counts_more_than_a_body() {
        let check = |path: &str, body: &'static str, expected: Option<Protocol>| {
            let body = RequestBody::parse(Bytes::from_static(body.as_bytes())).expect("JSON");
            assert_eq!(detect_by_path(path, &body), expected, "{path}");
        };
        let speech = Some(Protocol::Direct(Speech));
        check("/v1/audio/speech", r#"{"input":"a"}"#, speech);
        check("/v1/audio/speech", "[1]", None);
        check("/v1/realtime", "{}", None);
        let input = r#"{"input":null}"#;
        let responses = Some(Protocol::OpenaiResponses);
        check("/openai/responses", input, responses);
        check("/openai/responses", "{}", None);
        check("/responses", input, None);
        check("/v1/chat/completions", input, None);
    }

    #[test]
    fn an_api_is_beside_others_of_its_endpoint() {
        let check = |api: DirectApi, path: &str, expected: &str| {
            assert_eq!(api.beside(path), expected, "{api:?} {path}");
        };
        check(Speech, "/v1/chat/completions", "/v1/audio/speech");
        check(Completion, "/v1/chat/completions", "/v1/completions");
        check(Completion, "/v1/completions", "/v1/completions");
        check(
            Transcription,
            "/openai/deployments/w/chat/completions",
            "/openai/deployments/w/audio/transcriptions",
        );
        check(Rerank, "/v2/chat", "/v2/rerank");
        check(CountTokens, "/x/v1/messages", "/x/v1/messages/count_tokens");
        check(
            CountTokens,
            "/v1/messages/count_tokens",
            "/v1/messages/count_tokens",
        );
        check(Speech, "/tts", "/tts");
        check(Realtime, "/v1/chat/completions", "/v1/realtime");
        let deployed = "/openai/deployments/d/chat/completions";
        check(Realtime, deployed, "/openai/realtime");
        assert_eq!(DirectApi::deployment(deployed), Some("d"));
        assert_eq!(DirectApi::deployment("/v1/realtime"), None);
    }

    #[test]
    fn providers_have_their_own_paths() {
        let check = |provider, api: DirectApi, expected: Option<&str>| {
            let place = api.place(provider, None);
            let path = place.map(|(stem, end)| format!("{stem}{end}"));
            assert_eq!(path.as_deref(), expected, "{provider:?} {api:?}");
        };
        check(Provider::Openai, Moderation, Some("/v1/moderations"));
        check(Provider::Openai, Rerank, None);
        check(Provider::Openrouter, Rerank, Some("/api/v1/rerank"));
        check(Provider::Openrouter, Speech, Some("/api/v1/audio/speech"));
        let groq = "/openai/v1/audio/transcriptions";
        check(Provider::Groq, Transcription, Some(groq));
        check(Provider::Cohere, RerankV2, Some("/v2/rerank"));
        check(Provider::Cohere, Rerank, Some("/v1/rerank"));
        check(Provider::OpenaiCompatible, RerankV2, Some("/v1/rerank"));
        check(Provider::Anthropic, Rerank, None);
        check(Provider::Openai, CountTokens, None);
        let azure = "/openai/deployments/{model}/images/generations";
        check(Provider::AzureOpenai, ImageGeneration, Some(azure));
        let counted = Some(("/v1", "/messages/count_tokens"));
        let spoken = Some(Protocol::AnthropicMessages);
        assert_eq!(CountTokens.place(Provider::Vllm, spoken), counted);
        assert_eq!(CountTokens.place(Provider::Anthropic, None), counted);
        let chat = Some(Protocol::OpenaiChat);
        assert_eq!(CountTokens.place(Provider::Anthropic, chat), None);
        for (provider, api) in all() {
            let place = api.place(provider, None);
            assert_eq!(
                place.is_some(),
                api.is_served_by(provider)
                    || (api == CountTokens && provider == Provider::Anthropic),
                "{provider:?} {api:?}"
            );
        }
    }

    fn all() -> impl Iterator<Item = (Provider, DirectApi)> {
        let providers = Provider::names().filter_map(Provider::from_name);
        providers.flat_map(|provider| DirectApi::ALL.map(|api| (provider, api)))
    }
}
