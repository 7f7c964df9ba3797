//! A provider's stream on its way into the client's protocol, piece by piece.

use super::{Translation, is_ordinary};
use crate::{
    Protocol,
    complaint::{self, Complaint},
    conversation::{Block, CALLS_MAX, ErrorMessage, Event, Feature, Features, Renamed},
    dialect::{self, StreamReader, StreamWriter},
    json::string::JsonStr,
    stream::{Framing, Unframed},
};

/// A provider's stream on its way into the client's protocol.
#[derive(Debug)]
pub struct StreamTranslator {
    framing: Framing,
    reader: StreamReader,
    client: Client,
}

/// How far a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Ended,
    Failed,
}

/// What the beginning of a stream shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamOpening {
    /// There is something that the client wants to read, or a proper end.
    pub has_content: bool,
    /// The error in it.
    pub error: Option<StreamError>,
}

/// An error inside a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamError {
    /// The HTTP status that stands for it.
    pub status: u16,
    /// The provider's words.
    pub message: String,
    /// What it complains about, if that is something that routing heeds.
    pub complaint: Option<Complaint>,
}

impl StreamOpening {
    pub(super) fn note(&mut self, event: &Event<'_>) {
        match event {
            Event::Start { .. }
            | Event::Usage(_)
            | Event::Tier(_)
            | Event::Ping
            | Event::BlockEnd { .. } => {}
            Event::BlockStart { block, .. } => {
                self.has_content |= matches!(block, Block::ToolCall { .. } | Block::Opaque(_));
            }
            Event::Delta { text, .. } => self.has_content |= !text.is_empty(),
            Event::Error(error) => {
                if !self.has_content && self.error.is_none() {
                    self.error = Some(StreamError::of(error));
                }
            }
            _ => self.has_content = true,
        }
    }
}

impl StreamError {
    /// With the status that a provider would have answered with, had it known in time.
    fn of(error: &ErrorMessage<'_>) -> Self {
        let word = |word: &Option<JsonStr<'_>>| {
            let word = word.as_ref().map(|word| word.decode().to_lowercase());
            word.unwrap_or_default()
        };
        let (kind, code) = (word(&error.kind), word(&error.code));
        let status = status_of_words(&format!("{kind} {code}"));
        let message = error.message.decode().into_owned();
        Self {
            status,
            complaint: complaint::of_words(status, &kind, &code, &message),
            message,
        }
    }
}

/// The status that an error stands for whose type and code are these, in small letters: 502 for what names
/// neither the client nor a quota. Names as OpenAI, Anthropic, Gemini, Cohere and Bedrock have them.
pub(crate) fn status_of_words(words: &str) -> u16 {
    let has = |needles: &[&str]| needles.iter().any(|needle| words.contains(needle));
    const STATUSES: [(u16, &[&str]); 7] = [
        (
            429,
            &[
                "rate_limit",
                "throttl",
                "resource_exhausted",
                "quota",
                "429",
            ],
        ),
        (503, &["overloaded", "unavailable", "503", "529"]),
        (
            401,
            &[
                "authentication",
                "unauthenticated",
                "api_key",
                "unrecognizedclient",
            ],
        ),
        (402, &["billing"]),
        (403, &["permission", "accessdenied", "access_denied"]),
        (404, &["not_found", "notfound"]),
        (
            400,
            &[
                "invalid_request",
                "invalid_argument",
                "invalid_prompt",
                "validation",
                "failed_precondition",
                "bad_request",
                "too_large",
                "context_length",
                "content_policy",
                "content_filter",
            ],
        ),
    ];
    let found = STATUSES.iter().find(|(_, needles)| has(needles));
    found.map_or(502, |&(status, _)| status)
}

impl StreamTranslator {
    /// For the answer to the request of `translation`; `None` if its protocols hold no conversation.
    pub(super) fn new(translation: Translation, as_array: bool) -> Option<Self> {
        let setting = translation.setting();
        let writer = StreamWriter::new(&setting)?;
        Some(Self {
            framing: Framing::of(setting.target),
            reader: StreamReader::new(&setting)?,
            client: Client {
                writer: if as_array {
                    writer.json_array()
                } else {
                    writer
                },
                choices: Choices::shown_by(&translation),
                renamed: translation.renamed,
                state: State::Open,
                opening: StreamOpening::default(),
            },
        })
    }

    /// Takes the provider's next bytes, and appends what the client gets for them.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let Self {
            framing,
            reader,
            client,
        } = self;
        framing.push(bytes, |unframed| match unframed {
            _ if client.is_over() => {}
            Unframed::Event { name, data } => {
                reader.event(name, data, &mut |event| client.pass(event, out));
            }
            Unframed::Broken(what) => client.pass(broken(what), out),
        });
    }

    /// The provider's bytes have ended: appends the rest, which is an error if the answer was not
    /// complete. Whether it was.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> bool {
        let client = &mut self.client;
        if !client.is_over() {
            self.reader.finish(&mut |event| client.pass(event, out));
            client.pass(broken(TOO_EARLY), out);
        }
        client.state == State::Ended
    }

    /// The connection broke, or the stream was cut: appends the error that says `what`.
    pub fn fail(&mut self, what: &str, out: &mut Vec<u8>) {
        self.client.pass(broken(what), out);
    }

    /// The answer was complete, or an error ended it: nothing more comes.
    pub fn is_over(&self) -> bool {
        self.client.is_over()
    }

    /// What its beginning shows.
    pub fn opening(&self) -> &StreamOpening {
        &self.client.opening
    }

    /// What of the answer up to now the client's protocol cannot say, by name.
    pub fn lost(&self) -> Vec<String> {
        let choices = &self.client.choices;
        choices.said.without(choices.expresses).names()
    }
}

/// The client's side of a stream.
#[derive(Debug)]
struct Client {
    writer: StreamWriter,
    renamed: Renamed,
    choices: Choices,
    state: State,
    opening: StreamOpening,
}

impl Client {
    fn is_over(&self) -> bool {
        self.state != State::Open
    }

    fn pass(&mut self, mut event: Event<'_>, out: &mut Vec<u8>) {
        if self.is_over() || !self.choices.take(&event) {
            return;
        }
        if self.choices.calls > CALLS_MAX {
            event = broken(TOO_MANY_CALLS);
        }
        match &mut event {
            Event::BlockStart {
                block: Block::ToolCall { name, .. },
                ..
            } => {
                if let Some(own) = self.renamed.own(name) {
                    *name = own.clone();
                }
            }
            Event::End if !self.choices.are_complete() => {
                self.state = State::Failed;
                event = broken(UNFINISHED);
            }
            Event::End => self.state = State::Ended,
            Event::Error(_) => self.state = State::Failed,
            _ => {}
        }
        self.opening.note(&event);
        self.writer.write(&event, out);
    }
}

/// The answers that a client is shown of a stream with several, and how far they are.
///
/// A protocol that has one answer shows the first, which is number 0, and nothing of the others:
/// its end is the end of that one. So a stream in which that one says nothing, or never says why it
/// stopped, is no answer, whatever the others did.
#[derive(Debug)]
struct Choices {
    client: Protocol,
    /// What the client's protocol can say.
    expresses: Features,
    /// What was said that it might not be able to.
    said: Features,
    /// Those that have begun. Readers bound how many.
    begun: Vec<Begun>,
    /// Calls in all of them.
    calls: usize,
    asks_for_tier: bool,
}

/// An answer that has begun.
#[derive(Debug)]
struct Begun {
    number: u32,
    in_call: bool,
    has_ended: bool,
}

impl Choices {
    fn shown_by(translation: &Translation) -> Self {
        Self {
            client: translation.client,
            expresses: dialect::expresses(translation.client),
            said: Features::NONE,
            begun: Vec::new(),
            calls: 0,
            asks_for_tier: translation.asks_for_tier,
        }
    }

    /// Takes a piece in. Whether the client is shown it.
    fn take(&mut self, event: &Event<'_>) -> bool {
        if let Event::Tier(tier) = event {
            let is_missed = self.asks_for_tier || !is_ordinary(tier);
            self.said.note(Feature::ServiceTierAnswer, is_missed);
        }
        let Some(choice) = event.choice() else {
            return true;
        };
        if choice != 0 && !self.expresses.has(Feature::ChoicesAnswer) {
            self.said.note(Feature::ChoicesAnswer, true);
            return false;
        }
        let known = self.begun.iter().position(|begun| begun.number == choice);
        let at = known.unwrap_or_else(|| {
            self.begun.push(Begun {
                number: choice,
                in_call: false,
                has_ended: false,
            });
            self.begun.len() - 1
        });
        let begun = &mut self.begun[at];
        if let Event::BlockStart { block, .. } = event {
            begun.in_call = matches!(block, Block::ToolCall { .. });
            self.calls += usize::from(begun.in_call);
        }
        begun.has_ended |= matches!(event, Event::Stop { .. });
        event.note(self.client, begun.in_call, &mut self.said);
        true
    }

    fn are_complete(&self) -> bool {
        !self.begun.is_empty() && self.begun.iter().all(|begun| begun.has_ended)
    }
}

pub(super) fn broken(what: &str) -> Event<'_> {
    Event::Error(ErrorMessage {
        message: JsonStr::new(what),
        ..ErrorMessage::default()
    })
}

const TOO_MANY_CALLS: &str = "more tool calls than anybody makes";
pub(super) const TOO_EARLY: &str = "the provider's stream ended before the answer was complete";
const UNFINISHED: &str = "the provider's stream ended, but the answer never said why it stopped";

#[cfg(test)]
mod tests;
