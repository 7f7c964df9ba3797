//! The beginning of a stream that is passed on as it is: is there content yet, or an error?

use super::stream::{StreamOpening, TOO_EARLY, broken};
use crate::{
    Protocol,
    conversation::{ErrorMessage, Event},
    dialect::{self, Setting, StreamReader},
    json::{string::JsonStr, tree::Node},
    stream::{Framing, Unframed},
};

/// Looks at the beginning of a stream that is passed on as it is.
#[derive(Debug)]
pub struct Scout {
    framing: Framing,
    reader: Reader,
    opening: StreamOpening,
    over: bool,
}

#[derive(Debug)]
enum Reader {
    /// Of a conversation: it is known what content is, and what an end.
    Conversation(StreamReader),
    /// Of another API. Legacy completions and events with a type are known, all else is content.
    Other {
        /// It must say something before it ends.
        known: bool,
    },
}

impl Scout {
    /// For a stream in `protocol`; `None` if nothing is known of those.
    pub fn new(protocol: Protocol) -> Option<Self> {
        let reader = match protocol {
            Protocol::Direct(_) => Reader::Other { known: true },
            Protocol::Passthrough => Reader::Other { known: false },
            _ => Reader::Conversation(StreamReader::new(&Setting::alone(protocol))?),
        };
        Some(Self {
            framing: Framing::of(protocol),
            reader,
            opening: StreamOpening::default(),
            over: false,
        })
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        let Self {
            framing,
            reader,
            opening,
            over,
        } = self;
        framing.push(bytes, |unframed| match unframed {
            _ if *over => {}
            Unframed::Event { name, data } => match reader {
                Reader::Conversation(reader) => reader.event(name, data, &mut |event| {
                    *over |= matches!(event, Event::Error(_) | Event::End);
                    opening.note(&event);
                }),
                Reader::Other { .. } => {
                    look(name, data, opening);
                    *over |= opening.has_content || opening.error.is_some();
                }
            },
            Unframed::Broken(what) => opening.note(&broken(what)),
        });
    }

    /// The stream has ended.
    pub fn finish(&mut self) {
        let opening = &mut self.opening;
        if self.over {
            return;
        }
        match &mut self.reader {
            Reader::Conversation(reader) => {
                reader.finish(&mut |event| opening.note(&event));
                opening.note(&broken(TOO_EARLY));
            }
            Reader::Other { known: true } => opening.note(&broken(TOO_EARLY)),
            Reader::Other { known: false } => {}
        }
    }

    /// What it shows so far.
    pub fn opening(&self) -> &StreamOpening {
        &self.opening
    }
}

/// What an event of another API shows.
fn look(name: &[u8], data: &[u8], opening: &mut StreamOpening) {
    if data.is_empty() {
        return;
    }
    let Ok(tree) = dialect::parse(data) else {
        opening.has_content = true;
        return;
    };
    let root = tree.root();
    match error_of(name, root) {
        Some(error) => opening.note(&Event::Error(error)),
        None => opening.has_content |= says_something(root),
    }
}

/// `{"error": {"message", "type", "code"}}`, or an event of type `error` that says the same itself.
fn error_of<'a>(name: &[u8], root: Node<'_, 'a>) -> Option<ErrorMessage<'a>> {
    let inside = root.get("error").filter(|error| !error.is_null());
    let is_one = name == b"error" || root.get("type").is_some_and(|kind| kind.says("error"));
    let error = inside.or_else(|| is_one.then_some(root))?;
    let kind = error.get_str("type").filter(|kind| !kind.is("error"));
    Some(ErrorMessage {
        kind,
        code: error.get_str("code"),
        message: error
            .get_str("message")
            .or_else(|| error.str())
            .unwrap_or_else(|| JsonStr::new("the provider's stream began with an error")),
        ..ErrorMessage::default()
    })
}

/// Completions say nothing before the first text, or the reason to stop; events with a type nothing while
/// they tell only that work has begun.
fn says_something(root: Node<'_, '_>) -> bool {
    if let Some(choices) = root.get("choices").filter(|choices| choices.is_array()) {
        return choices.items().any(|choice| {
            let text = choice.get_str("text");
            let stop = choice.get("finish_reason");
            text.is_some_and(|text| !text.is_empty()) || stop.is_some_and(|stop| !stop.is_null())
        });
    }
    let Some(kind) = root.get_str("type") else {
        return true;
    };
    let kind = kind.decode();
    let begins = [".created", ".queued", ".in_progress", ".started"];
    !begins.iter().any(|end| kind.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DirectApi;

    fn shown(protocol: Protocol, stream: &str) -> StreamOpening {
        let mut scout = Scout::new(protocol).expect("known");
        for piece in stream.as_bytes().chunks(3) {
            scout.push(piece);
        }
        scout.finish();
        scout.opening().clone()
    }

    #[test]
    fn beginnings_of_other_apis() {
        let completion = Protocol::Direct(DirectApi::Completion);
        let content = |stream: &str| {
            let opening = shown(completion, stream);
            assert_eq!(opening.error, None, "{stream}");
            assert!(opening.has_content, "{stream}");
        };
        content(
            "data: {\"choices\":[{\"text\":\"\"}]}\n\ndata: {\"choices\":[{\"text\":\"Hi\"}]}\n\n",
        );
        content("data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"stop\"}]}\n\n");
        content("data: {\"type\":\"speech.audio.delta\",\"audio\":\"AA==\"}\n\n");
        content("data: [DONE]\n\n");
        let error = |stream: &str, status: u16, message: &str| {
            let opening = shown(completion, stream);
            assert!(!opening.has_content, "{stream}");
            let error = opening.error.expect(stream);
            assert_eq!(
                (error.status, &*error.message),
                (status, message),
                "{stream}"
            );
        };
        error(
            "data: {\"error\":{\"message\":\"slow down\",\"code\":\"rate_limit_exceeded\"}}\n\n",
            429,
            "slow down",
        );
        error(
            "event: error\ndata: {\"message\":\"gone\"}\n\n",
            502,
            "gone",
        );
        error(
            "data: {\"type\":\"image_generation.in_progress\"}\n\ndata: {\"type\":\"error\",\"code\":\"overloaded\",\"message\":\"full\"}\n\n",
            503,
            "full",
        );
        error("data: {\"choices\":[{\"text\":\"\"}]}\n\n", 502, TOO_EARLY);
        error("", 502, TOO_EARLY);
        // Of what nobody knows nothing is expected.
        let opening = shown(Protocol::Passthrough, ": hello\n\n");
        assert_eq!(opening, StreamOpening::default());
    }
}
