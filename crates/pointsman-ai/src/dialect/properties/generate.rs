//! Requests that say anything that can be said, as clients of some protocol or other might.
//!
//! They are sound: results answer calls, choices name tools that are declared, there is something
//! that the user says. What a protocol makes of requests that are not is its readers' matter.

use super::{DIALECTS, Rng};
use crate::{
    Protocol,
    conversation::{
        Arguments, CacheMark, Citation, Extra, Format, Function, Media, MediaKind, Message, Opaque,
        Part, Reasoning, ReasoningMode, ReasoningSettings, Request, Role, Sampling, Schema,
        ShowThoughts, Signature, Source, Text, Tool, ToolCall, ToolChoice, ToolResult,
    },
    json::string::JsonStr,
};

pub(super) type Str = JsonStr<'static>;

const TEXTS: [&str; 9] = [
    "hello",
    "a \"quoted\" line\nand another",
    "ünï ✓ 🚂",
    "back\\slash \u{1}",
    "{\"is\": \"json\"}",
    "[1, 2]",
    "tab\there",
    "x",
    "data:image/png;base64,AA==",
];
pub(super) const SCHEMAS: [&str; 2] = [
    r#"{"type":"object","properties":{"a":{"type":"string"}},"required":["a"],"additionalProperties":false}"#,
    r#"{"type":"object","properties":{}}"#,
];
/// With what not every provider makes an answer fit.
const BOUNDED: &str = r#"{"type":"object","properties":{"a":{"type":"string","minLength":2},"b":{"type":"object"}},"required":["a","b"]}"#;
const ARGUMENTS: [&str; 5] = ["{}", r#"{"a":1.50}"#, r#"{"a":"\u00e9\n"}"#, "", "[1]"];

/// How much a request says, and who sends it.
struct Maker<'r> {
    rng: &'r mut Rng,
    /// Of a hundred chances to say something, how many are taken.
    often: u64,
    calls: usize,
}

/// A request.
pub(super) fn request(rng: &mut Rng) -> Request<'static> {
    let often = rng.pick(&[5, 20, 60]);
    let calls = 0;
    let mut maker = Maker { rng, often, calls };
    let tools = maker.tools();
    let tool_choice = maker.tool_choice(&tools);
    let has_functions = tools.iter().any(|tool| matches!(tool, Tool::Function(_)));
    let parallel = maker.maybe(|rng| rng.chance(50));
    Request {
        model: None,
        messages: maker.messages(),
        parallel_tool_calls: parallel.filter(|_| has_functions),
        tools,
        tool_choice,
        format: maker.maybe(format),
        reasoning: maker.maybe(reasoning_settings),
        sampling: maker.sampling(),
        stream: maker.rng.chance(50),
        user: maker.maybe(|_| JsonStr::new("someone")),
        metadata: maker.metadata(),
        service_tier: maker
            .maybe(|rng| JsonStr::new(rng.pick(&["auto", "default", "flex", "priority"]))),
        extras: maker.extras(),
    }
}

pub(super) fn text(rng: &mut Rng) -> Str {
    JsonStr::new(rng.pick(&TEXTS))
}

/// What a provider wants back, of any provider.
pub(super) fn signature(rng: &mut Rng) -> Signature<'static> {
    // Cohere's sign nothing.
    let origins = DIALECTS.map(|protocol| match protocol {
        Protocol::CohereChat => Protocol::AnthropicMessages,
        other => other,
    });
    signature_of(rng.pick(&origins), rng)
}

fn signature_of(origin: Protocol, rng: &mut Rng) -> Signature<'static> {
    let data = JsonStr::new(rng.pick(&["c2ln", "QUJD+/==", "AAAA"]));
    Signature { origin, data }
}

/// What the provider wants back with a call: there are two protocols that have a place for it.
pub(super) fn call_signature(rng: &mut Rng) -> Signature<'static> {
    let origins = [Protocol::GeminiGenerateContent, Protocol::OpenaiChat];
    signature_of(rng.pick(&origins), rng)
}

/// A piece that only `protocol` knows, and whether the model says it.
fn opaque(protocol: Protocol) -> (Opaque<'static>, bool) {
    let (kind, json, is_models) = match protocol {
        Protocol::OpenaiResponses => (
            "web_search_call",
            r#"{"type":"web_search_call","id":"w"}"#,
            true,
        ),
        Protocol::AnthropicMessages => (
            "server_tool_use",
            r#"{"type":"server_tool_use","id":"s","name":"web_search","input":{}}"#,
            true,
        ),
        Protocol::GeminiGenerateContent => (
            "executableCode",
            r#"{"executableCode":{"language":"PYTHON","code":"1"}}"#,
            true,
        ),
        Protocol::BedrockConverse => (
            "guardContent",
            r#"{"guardContent":{"text":{"text":"x"}}}"#,
            false,
        ),
        _ => ("own", r#"{"type":"own","x":1}"#, false),
    };
    let opaque = Opaque {
        protocol,
        kind: JsonStr::new(kind),
        json: json.into(),
    };
    (opaque, is_models)
}

/// A piece of an answer that only another protocol than `client` knows.
pub(super) fn foreign_opaque(client: Protocol, rng: &mut Rng) -> Opaque<'static> {
    let models = [
        Protocol::OpenaiResponses,
        Protocol::AnthropicMessages,
        Protocol::GeminiGenerateContent,
    ];
    let others: Vec<_> = models
        .into_iter()
        .filter(|other| *other != client)
        .collect();
    opaque(rng.pick(&others)).0
}

fn format(rng: &mut Rng) -> Format<'static> {
    match rng.below(4) {
        0 => Format::Text,
        1 => Format::JsonObject,
        _ => Format::JsonSchema(Schema {
            name: rng.maybe(50, |_| JsonStr::new("answer")),
            description: rng.maybe(50, text),
            schema: rng.pick(&[SCHEMAS[0], BOUNDED]).into(),
            strict: rng.maybe(50, |rng| rng.chance(50)),
        }),
    }
}

fn reasoning_settings(rng: &mut Rng) -> ReasoningSettings<'static> {
    let mut settings = ReasoningSettings {
        show: rng.maybe(40, |rng| match rng.below(3) {
            0 => ShowThoughts::No,
            1 => ShowThoughts::Yes,
            _ => ShowThoughts::Summary(JsonStr::new("auto")),
        }),
        ..ReasoningSettings::default()
    };
    match rng.below(6) {
        0 => settings.mode = Some(ReasoningMode::Disabled),
        1 => settings.mode = Some(ReasoningMode::Adaptive),
        2 => settings.mode = Some(ReasoningMode::Enabled),
        3 => {
            settings.mode = Some(ReasoningMode::Enabled);
            settings.budget = Some(1024 + rng.next() % 9000);
        }
        4 => {
            let word = rng.pick(&["minimal", "low", "medium", "high"]);
            settings.effort = Some(JsonStr::new(word));
        }
        _ => {}
    }
    settings
}

/// Media of any kind, anywhere.
pub(super) fn media(rng: &mut Rng) -> Media<'static> {
    use MediaKind::{Audio, Document, Image, Video};
    let (kind, media_type, url, file) = rng.pick(&[
        (
            Image,
            "image/png",
            "https://example.com/a.png",
            "file-image",
        ),
        (
            Image,
            "image/jpeg",
            "https://example.com/b.jpg",
            "file-photo",
        ),
        (
            Document,
            "application/pdf",
            "https://example.com/c.pdf",
            "file-paper",
        ),
        (
            Document,
            "text/csv",
            "https://example.com/d.csv",
            "file-table",
        ),
        (
            Audio,
            "audio/wav",
            "https://example.com/e.wav",
            "file-sound",
        ),
        (
            Audio,
            "audio/mpeg",
            "https://example.com/f.mp3",
            "file-song",
        ),
        (Video, "video/mp4", "https://example.com/g.mp4", "file-film"),
    ]);
    let source = match rng.below(5) {
        0 => Source::Url(JsonStr::new(url)),
        1 => Source::File(JsonStr::new(file)),
        2 if kind == Document => Source::Text(text(rng)),
        _ => Source::Base64(JsonStr::new("aGk=")),
    };
    let media_type = match source {
        Source::Text(_) => None,
        _ => Some(JsonStr::new(media_type)),
    };
    let mut media = Media::new(kind, source, media_type);
    if kind == Image {
        media.detail = rng.maybe(20, |_| JsonStr::new("low"));
    }
    if kind == Document {
        media.name = rng.maybe(30, |_| JsonStr::new("the report"));
        media.context = rng.maybe(20, text);
        media.citations = rng.chance(20);
    }
    media.cache = rng.maybe(10, cache);
    media
}

fn cache(rng: &mut Rng) -> CacheMark<'static> {
    CacheMark {
        ttl: rng.maybe(50, |_| JsonStr::new("1h")),
    }
}

impl Maker<'_> {
    fn maybe<T>(&mut self, make: impl FnOnce(&mut Rng) -> T) -> Option<T> {
        let often = self.often;
        self.rng.maybe(often, make)
    }

    fn chance(&mut self) -> bool {
        self.rng.chance(self.often)
    }

    fn tools(&mut self) -> Vec<Tool<'static>> {
        let mut tools = Vec::new();
        while tools.len() < 4 && self.chance() {
            if self.rng.chance(25) {
                let protocol = self.rng.pick(&DIALECTS);
                let (mut hosted, _) = opaque(protocol);
                hosted.kind = JsonStr::new("hosted");
                hosted.json = hosted_tool(protocol).into();
                tools.push(Tool::Hosted(hosted));
                continue;
            }
            let name = format!("tool_{}", tools.len());
            tools.push(Tool::Function(Function {
                name: JsonStr::from(name),
                description: self.maybe(text),
                parameters: self.rng.maybe(80, |rng| rng.pick(&SCHEMAS).into()),
                strict: self.maybe(|rng| rng.chance(50)),
                cache: self.maybe(cache),
            }));
        }
        tools
    }

    fn tool_choice(&mut self, tools: &[Tool<'static>]) -> Option<ToolChoice<'static>> {
        let function = tools.iter().find_map(|tool| match tool {
            Tool::Function(function) => Some(function.name.clone()),
            Tool::Hosted(_) => None,
        })?;
        self.maybe(|rng| match rng.below(4) {
            0 => ToolChoice::Auto,
            1 => ToolChoice::None,
            2 => ToolChoice::Required,
            _ => ToolChoice::Tool(function),
        })
    }

    fn sampling(&mut self) -> Sampling<'static> {
        let mut number = |of: &[&'static str]| self.maybe(|rng| rng.pick(of).into());
        let max_tokens = number(&["50000", "64000"]);
        let temperature = number(&["0.70", "1", "1e0"]);
        let top_p = number(&["0.9"]);
        let top_k = number(&["40"]);
        let frequency_penalty = number(&["0.5", "-1"]);
        let presence_penalty = number(&["0.25"]);
        let seed = number(&["42"]);
        let top_logprobs = number(&["3"]);
        Sampling {
            max_tokens,
            temperature,
            top_p,
            top_k,
            frequency_penalty,
            presence_penalty,
            seed,
            n: self.maybe(|rng| 1 + rng.next() % 3),
            stop: self.maybe(|rng| vec![text(rng)]).unwrap_or_default(),
            logprobs: self.maybe(|rng| rng.chance(70)),
            top_logprobs,
            logit_bias: self.maybe(|_| r#"{"50256":-100}"#.into()),
        }
    }

    fn metadata(&mut self) -> Vec<(Str, Str)> {
        let pair = self.maybe(|rng| (JsonStr::new("team"), text(rng)));
        pair.into_iter().collect()
    }

    fn extras(&mut self) -> Vec<Extra<'static>> {
        let extra = self.maybe(|rng| Extra {
            protocol: rng.pick(&DIALECTS),
            name: JsonStr::new("own_member"),
            json: r#"{"x":[1.50]}"#.into(),
        });
        extra.into_iter().collect()
    }

    fn messages(&mut self) -> Vec<Message<'static>> {
        let mut messages = Vec::new();
        while messages.len() < 2 && self.chance() {
            messages.push(self.system());
        }
        messages.push(self.user());
        while messages.len() < 8 && self.chance() {
            if self.rng.chance(20) {
                messages.push(self.system());
                continue;
            }
            let (turn, results) = self.turn();
            messages.push(turn);
            messages.extend(results);
            if self.rng.chance(80) {
                messages.push(self.user());
            }
        }
        messages
    }

    fn system(&mut self) -> Message<'static> {
        let role = self
            .rng
            .pick(&[Role::System, Role::System, Role::Developer]);
        let mut parts = vec![self.text()];
        if self.chance() {
            parts.push(self.text());
        }
        if self.rng.chance(5) {
            parts.push(Part::Media(media(self.rng)));
        }
        self.message(role, parts)
    }

    fn user(&mut self) -> Message<'static> {
        let mut parts = vec![self.text()];
        while parts.len() < 4 && self.chance() {
            parts.push(match self.rng.below(4) {
                0 => self.text(),
                1 => match opaque(self.rng.pick(&DIALECTS)) {
                    (opaque, false) => Part::Opaque(opaque),
                    _ => self.text(),
                },
                _ => Part::Media(media(self.rng)),
            });
        }
        self.message(Role::User, parts)
    }

    fn text(&mut self) -> Part<'static> {
        Part::Text(Text {
            text: text(self.rng),
            citations: Vec::new(),
            cache: self.maybe(cache).filter(|_| self.rng.chance(50)),
        })
    }

    /// A message that is a plain string wherever it can be.
    fn message(&mut self, role: Role, parts: Vec<Part<'static>>) -> Message<'static> {
        let is_bare = matches!(&parts[..], [Part::Text(text)] if text.cache.is_none() && text.citations.is_empty());
        Message {
            role,
            name: self.maybe(|_| JsonStr::new("alice")),
            plain: is_bare && self.rng.chance(50),
            parts,
        }
    }

    /// What the model says, and what tools answer.
    fn turn(&mut self) -> (Message<'static>, Option<Message<'static>>) {
        let mut parts = Vec::new();
        let mut calls = Vec::new();
        while parts.is_empty() || parts.len() < 6 && self.chance() {
            parts.push(match self.rng.below(9) {
                0 | 1 => self.reasoning(),
                2 | 3 => self.said(),
                4 => Part::Refusal(text(self.rng)),
                5 => match opaque(self.rng.pick(&DIALECTS)) {
                    (opaque, true) => Part::Opaque(opaque),
                    _ => self.said(),
                },
                6 => Part::Media(media(self.rng)),
                _ => {
                    let call = self.call();
                    calls.push(call.clone());
                    Part::ToolCall(call)
                }
            });
        }
        let results: Vec<_> = calls.iter().map(|call| self.result(call)).collect();
        let results = (!results.is_empty()).then_some(Message {
            role: Role::Tool,
            name: None,
            parts: results,
            plain: false,
        });
        (self.message(Role::Assistant, parts), results)
    }

    fn said(&mut self) -> Part<'static> {
        let citation = self.maybe(|_| Citation {
            url: Some(JsonStr::new("https://example.com/")),
            ..Citation::default()
        });
        match self.text() {
            Part::Text(text) => Part::Text(Text {
                citations: citation.into_iter().collect(),
                ..text
            }),
            other => other,
        }
    }

    fn reasoning(&mut self) -> Part<'static> {
        let is_hidden = self.rng.chance(30);
        let signed = is_hidden || self.rng.chance(70);
        Part::Reasoning(Reasoning {
            text: match is_hidden {
                true => JsonStr::default(),
                false => text(self.rng),
            },
            signature: signed.then(|| signature(self.rng)),
            is_hidden,
            id: None,
        })
    }

    fn call(&mut self) -> ToolCall<'static> {
        self.calls += 1;
        let arguments = self.rng.pick(&ARGUMENTS);
        ToolCall {
            id: JsonStr::from(format!("call_{}", self.calls)),
            name: JsonStr::new(self.rng.pick(&["tool_0", "tool_1", "gone"])),
            arguments: match arguments {
                "" | "[1]" => Arguments::Text(JsonStr::new(arguments)),
                json if self.rng.chance(50) => Arguments::Json(json.into()),
                json => Arguments::Text(JsonStr::new(json)),
            },
            signature: self.maybe(call_signature),
            cache: self.maybe(cache),
        }
    }

    fn result(&mut self, call: &ToolCall<'static>) -> Part<'static> {
        let mut parts = Vec::new();
        while parts.len() < 3 && (parts.is_empty() && self.rng.chance(90) || self.chance()) {
            parts.push(match self.chance() {
                true if self.rng.chance(50) => Part::Media(Media {
                    cache: None,
                    ..media(self.rng)
                }),
                _ => Part::text(text(self.rng)),
            });
        }
        Part::ToolResult(ToolResult {
            call_id: call.id.clone(),
            name: Some(call.name.clone()),
            plain: matches!(&parts[..], [Part::Text(_)]) && self.rng.chance(50),
            parts,
            is_error: self.chance(),
            cache: self.maybe(cache),
        })
    }
}

fn hosted_tool(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::GeminiGenerateContent => r#"{"hosted":{}}"#,
        Protocol::BedrockConverse => r#"{"hosted":{"name":"x"}}"#,
        _ => r#"{"type":"hosted","x":1}"#,
    }
}
