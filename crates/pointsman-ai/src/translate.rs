//! From a client's protocol to a provider's, and back.
//!
//! What the target cannot say is known before it is written: see [`TranslatedRequest::lost`].

mod scout;
mod stream;

use std::{collections::BTreeSet, fmt::Write as _};

pub(crate) use self::stream::status_of_words;
pub use self::{
    scout::Scout,
    stream::{StreamError, StreamOpening, StreamTranslator},
};
use crate::{
    Protocol, Provider, VectorApi,
    conversation::{
        ErrorMessage, Feature, Features, Malformed, Part, Renamed, Request, Response, Tool,
    },
    dialect::{self, Setting},
    json::{self, string::JsonStr, write::Writer},
    vectors,
};

/// One exchange between a client and a provider of different protocols.
#[derive(Clone, Debug)]
pub struct Translation {
    client: Protocol,
    target: Protocol,
    provider: Provider,
    model: String,
    version: Option<String>,
    now: u64,
    seed: String,
    renamed: Renamed,
    /// The client said which tier of service it wants.
    asks_for_tier: bool,
    /// Of embeddings, what the client expects of an answer.
    vectors: Option<(VectorApi, vectors::Expected)>,
}

/// A client's request in the provider's protocol.
#[derive(Debug)]
pub struct TranslatedRequest {
    /// The body.
    pub body: Vec<u8>,
    /// What of the request the provider's protocol cannot say, by name.
    pub lost: Vec<String>,
    /// For the answer.
    pub translation: Translation,
}

/// Beside the body, what a request says: in its path, or by what is configured.
#[derive(Clone, Copy, Debug)]
pub struct Outside<'c> {
    /// The model of the path (Gemini, Bedrock), or the instance's.
    pub model: Option<&'c str>,
    /// The version of the provider's API, where that has one and it is configured.
    pub version: Option<&'c str>,
    /// A stream is asked for, wherever the protocol says so.
    pub stream: bool,
    /// Seconds since 1970.
    pub now: u64,
    /// Letters and digits, unlike those of any other request.
    pub seed: &'c str,
}

/// Whether requests in `client` can be brought to a provider that speaks `target`.
pub fn can_translate(client: Protocol, target: Protocol) -> bool {
    client.is_conversation() && target.is_conversation()
}

impl Translation {
    /// Translates the request `body` from `client` to `target`.
    ///
    /// # Errors
    ///
    /// The body is not what the client's protocol says, and where.
    pub fn request(
        body: &[u8],
        client: Protocol,
        target: Protocol,
        provider: Provider,
        outside: Outside<'_>,
    ) -> Result<TranslatedRequest, Malformed> {
        if let Protocol::Vectors(api) = target {
            return Self::vectors(body, api, (client, provider), outside);
        }
        let tree = dialect::parse(body)?;
        let mut request = dialect::read_request(client, tree.root())?;
        request.stream = outside.stream;
        if let Some(model) = outside.model {
            request.model = Some(JsonStr::new(model));
        }
        let model = request
            .model
            .as_ref()
            .map(|model| model.decode().into_owned());
        let mut translation = Self {
            client,
            target,
            provider,
            model: model.unwrap_or_default(),
            version: outside.version.map(str::to_owned),
            now: outside.now,
            seed: outside.seed.to_owned(),
            renamed: Renamed::default(),
            asks_for_tier: request.service_tier.is_some(),
            vectors: None,
        };
        let lost = lost(&request, &translation.setting());
        translation.renamed = Renamed::adapt(&mut request, target);
        let mut out = Vec::with_capacity(body.len() + body.len() / 8);
        dialect::write_request(&request, &translation.setting(), &mut Writer::new(&mut out));
        Ok(TranslatedRequest {
            body: out,
            lost,
            translation,
        })
    }

    fn vectors(
        body: &[u8],
        api: VectorApi,
        (client, provider): (Protocol, Provider),
        outside: Outside<'_>,
    ) -> Result<TranslatedRequest, Malformed> {
        let own = json::value_at(body, ["model"]).and_then(json::text);
        let model = outside.model.or(own.as_deref()).unwrap_or_default();
        let (out, expected, lost) = vectors::request(api, body, model)?;
        let translation = Self {
            client,
            target: Protocol::Vectors(api),
            provider,
            model: own.as_deref().unwrap_or(model).to_owned(),
            version: None,
            now: outside.now,
            seed: outside.seed.to_owned(),
            renamed: Renamed::default(),
            asks_for_tier: false,
            vectors: Some((api, expected)),
        };
        Ok(TranslatedRequest {
            body: out,
            lost,
            translation,
        })
    }

    fn setting(&self) -> Setting<'_> {
        Setting {
            client: self.client,
            target: self.target,
            provider: self.provider,
            model: &self.model,
            version: self.version.as_deref(),
            now: self.now,
            seed: &self.seed,
        }
    }

    /// The protocol that the provider is spoken to in.
    pub fn target(&self) -> Protocol {
        self.target
    }

    /// The provider's whole answer in the client's protocol, and what that cannot say of it. An
    /// error that the provider sent under a status of success stays one.
    ///
    /// # Errors
    ///
    /// The body is no answer of the provider's protocol.
    pub fn response(&self, body: &[u8]) -> Result<(Vec<u8>, Vec<String>), Malformed> {
        if let Some((api, expected)) = self.vectors {
            let out = vectors::response(api, body, &self.model, expected)?;
            return Ok((out, Vec::new()));
        }
        let tree = dialect::parse(body)?;
        let root = tree.root();
        let mut out = Vec::with_capacity(body.len() + 512);
        if let Some(error) = dialect::read_error(self.target, root) {
            dialect::write_error(self.client, 200, &error, &mut Writer::new(&mut out));
            return Ok((out, Vec::new()));
        }
        let mut response = dialect::read_response(root, &self.setting())?;
        self.renamed.restore(&mut response);
        let lost = self.lost_of(&response);
        dialect::write_response(&response, &self.setting(), &mut Writer::new(&mut out));
        Ok((out, lost.names()))
    }

    /// What of `response` the client's protocol cannot say. Providers name the tier that served every
    /// answer: one that nobody asked for and that is as ever is not missed.
    fn lost_of(&self, response: &Response<'_>) -> Features {
        let said = response.features(self.client);
        let lost = said.without(dialect::expresses(self.client));
        let tier = response.service_tier.as_ref();
        if tier.is_some_and(is_ordinary) && !self.asks_for_tier {
            return lost.without(Features::of(&[Feature::ServiceTierAnswer]));
        }
        lost
    }

    /// The body of a provider's error of `status` in the client's protocol. Whatever it is, its
    /// words are kept.
    pub fn error(&self, status: u16, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(body.len() + 128);
        let tree = dialect::parse(body).ok();
        let read = tree
            .as_ref()
            .and_then(|tree| dialect::read_error(self.target, tree.root()));
        let error = read.unwrap_or_else(|| ErrorMessage {
            message: words_of(body),
            ..ErrorMessage::default()
        });
        dialect::write_error(self.client, status, &error, &mut Writer::new(&mut out));
        out
    }

    /// A translator for the provider's stream; `None` if there is none for this protocol. `as_array`:
    /// a client of Gemini's gets one JSON array rather than server-sent events.
    pub fn stream(self, as_array: bool) -> Option<StreamTranslator> {
        StreamTranslator::new(self, as_array)
    }
}

/// What of `request` the model of `setting` cannot be told, by name, in order.
fn lost(request: &Request<'_>, setting: &Setting<'_>) -> Vec<String> {
    let target = setting.target;
    let features = request
        .features(target)
        .without(dialect::expresses_to(request, setting));
    let mut names: BTreeSet<String> = features
        .iter()
        .map(|feature| feature.name().to_owned())
        .collect();
    for extra in request
        .extras
        .iter()
        .filter(|extra| extra.protocol != target)
    {
        names.insert(extra.name.decode().into_owned());
    }
    for tool in &request.tools {
        if let Tool::Hosted(hosted) = tool
            && hosted.protocol != target
        {
            names.insert(format!("tools.{}", hosted.kind.decode()));
        }
    }
    let parts = request.messages.iter().flat_map(|message| &message.parts);
    for part in parts {
        if let Part::Opaque(opaque) = part
            && opaque.protocol != target
        {
            names.insert(format!("messages.{}", opaque.kind.decode()));
        }
    }
    names.remove(Feature::OpaquePart.name());
    names.remove(Feature::HostedTool.name());
    names.into_iter().collect()
}

/// What an error of an unknown shape says: the text of its likeliest member, or as much of it as
/// people read.
fn words_of(body: &[u8]) -> JsonStr<'static> {
    for path in [
        &["error", "message"][..],
        &["message"],
        &["detail"],
        &["error"],
    ] {
        if let Some(text) = json::value_at(body, path).and_then(json::text) {
            return JsonStr::from(text.into_owned());
        }
    }
    let text = String::from_utf8_lossy(body);
    let mut words = String::new();
    for (count, character) in text.trim().chars().enumerate() {
        if count == WORDS_MAX {
            let _ = write!(words, " ... ({} bytes)", body.len());
            break;
        }
        words.push(character);
    }
    JsonStr::from(words)
}

/// What providers call the tier that serves whoever asks for none: OpenAI and AWS, Anthropic, Groq.
const ORDINARY_TIERS: [&str; 3] = ["default", "standard", "on_demand"];

/// It is as ever.
fn is_ordinary(tier: &JsonStr<'_>) -> bool {
    ORDINARY_TIERS.iter().any(|word| tier.is(word))
}

/// Characters that are kept of an error that is no JSON.
const WORDS_MAX: usize = 2_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody misses the usual tier in an answer, unless they asked for it.
    #[test]
    fn the_usual_tier_is_no_loss() {
        let lost = |asked: &str, answered: &str| {
            let outside = Outside {
                model: Some("m"),
                stream: false,
                version: None,
                now: 1,
                seed: "s",
            };
            let body = format!(
                r#"{{"max_tokens":5,{asked}"messages":[{{"role":"user","content":"x"}}]}}"#
            );
            let translated = Translation::request(
                body.as_bytes(),
                Protocol::AnthropicMessages,
                Protocol::OpenaiChat,
                Provider::OpenaiCompatible,
                outside,
            );
            let answer = format!(
                r#"{{"choices":[{{"index":0,"message":{{"content":"t"}},"finish_reason":"stop"}}]{answered}}}"#
            );
            let translation = translated.expect("a request").translation;
            let (_, lost) = translation.response(answer.as_bytes()).expect("an answer");
            lost
        };
        let tier = ["answer.service_tier"];
        for usual in ["default", "standard", "on_demand"] {
            let answered = format!(r#","service_tier":"{usual}""#);
            assert!(lost("", &answered).is_empty(), "{usual}");
            let asked = r#""service_tier":"standard_only","#;
            assert_eq!(lost(asked, &answered), tier, "{usual}");
        }
        assert!(lost("", "").is_empty());
        for other in ["flex", "priority", "auto"] {
            let answered = format!(r#","service_tier":"{other}""#);
            assert_eq!(lost("", &answered), tier, "{other}");
        }
    }

    /// JSON of several lines must not end the line of an event.
    #[test]
    fn an_events_data_stay_on_one_line() {
        let outside = Outside {
            model: Some("m"),
            stream: true,
            version: None,
            now: 1,
            seed: "s",
        };
        let body = br#"{"contents":[{"role":"user","parts":[{"text":"x"}]}]}"#;
        let translated = Translation::request(
            body,
            Protocol::GeminiGenerateContent,
            Protocol::OpenaiChat,
            Provider::Openai,
            outside,
        );
        let translation = translated.expect("a request").translation;
        let mut translator = translation.stream(false).expect("a stream");
        let mut out = Vec::new();
        let call = r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"t","function":{"name":"f","arguments":"{\n \"a\": 1\n}"}}]},"finish_reason":"tool_calls"}]}"#;
        translator.push(
            format!("data: {call}\n\ndata: [DONE]\n\n").as_bytes(),
            &mut out,
        );
        let text = String::from_utf8_lossy(&out);
        assert!(text.contains("functionCall"), "{text}");
        for line in text.lines().filter(|line| !line.is_empty()) {
            assert!(line.starts_with("data: "), "{text}");
        }
    }
}
