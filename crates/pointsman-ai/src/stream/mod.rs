//! Streams of events.

pub(crate) mod aws;
mod events;
pub mod json_array;
pub(crate) mod meter;
pub mod sse;
pub(crate) mod websocket;

use crate::Protocol;

/// Cuts a provider's bytes into events, by the framing of its protocol.
#[derive(Debug)]
pub(crate) enum Framing {
    /// Server-sent events.
    Sse(sse::Decoder),
    /// Event streams of AWS.
    Aws(aws::Decoder),
    /// One JSON array.
    Array(json_array::Decoder),
    /// Server-sent events or one JSON array: the first byte that is not blank says which.
    Google,
}

/// What stands in a frame.
#[derive(Debug)]
pub(crate) enum Unframed<'a> {
    /// An event.
    Event {
        /// Its type; empty if it has none. Exceptions of AWS have a `!` before theirs.
        name: &'a [u8],
        /// Its data.
        data: &'a [u8],
    },
    /// The framing is broken: what follows cannot be trusted.
    Broken(&'a str),
}

impl Framing {
    /// The framing of streams in `protocol`.
    pub(crate) fn of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::BedrockConverse => Self::Aws(aws::Decoder::default()),
            Protocol::GeminiGenerateContent => Self::Google,
            protocol => {
                let limit = sse::event_bytes_max(protocol);
                Self::Sse(sse::Decoder::with_events_of(limit))
            }
        }
    }

    /// Takes the next bytes; `on_frame` gets what is complete by now.
    pub(crate) fn push(&mut self, mut bytes: &[u8], mut on_frame: impl FnMut(Unframed<'_>)) {
        if matches!(self, Self::Google) {
            // Wherever the first pieces were cut, no blank in front of all reaches a decoder.
            bytes = bytes.trim_ascii_start();
            match bytes.first() {
                None => return,
                Some(b'[' | b'{') => *self = Self::Array(json_array::Decoder::default()),
                Some(_) => *self = Self::Sse(sse::Decoder::default()),
            }
        }
        match self {
            Self::Google => {}
            Self::Array(decoder) => {
                let before = decoder.overflows();
                decoder.push(bytes, |data| on_frame(Unframed::Event { name: b"", data }));
                if decoder.overflows() > before {
                    on_frame(Unframed::Broken(TOO_LARGE));
                }
            }
            Self::Sse(decoder) => {
                let before = decoder.overflows();
                decoder.push(bytes, |name, data| on_frame(Unframed::Event { name, data }));
                if decoder.overflows() > before {
                    on_frame(Unframed::Broken(TOO_LARGE));
                }
            }
            Self::Aws(decoder) => decoder.push(bytes, |frame| match frame {
                aws::Frame::Event(name, data) => on_frame(Unframed::Event { name, data }),
                aws::Frame::Exception(name, data) => {
                    let name = [b"!", name].concat();
                    on_frame(Unframed::Event { name: &name, data });
                }
                aws::Frame::Broken(what) => on_frame(Unframed::Broken(what)),
            }),
        }
    }

    /// Bytes of a frame that has not ended.
    pub(crate) fn pending(&self) -> usize {
        match self {
            Self::Google => 0,
            Self::Array(decoder) => decoder.pending(),
            Self::Sse(decoder) => decoder.pending(),
            Self::Aws(decoder) => decoder.pending(),
        }
    }
}

const TOO_LARGE: &str = "an event of the provider's is too large";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_in_front_belong_to_no_event() {
        for stream in ["\x0c [{\"a\":1}]", " \n data: {\"a\":1}\n\n"] {
            for cut in 0..stream.len() {
                let (head, tail) = stream.split_at(cut);
                let mut framing = Framing::of(Protocol::GeminiGenerateContent);
                let mut events = Vec::new();
                for piece in [head, tail] {
                    framing.push(piece.as_bytes(), |frame| match frame {
                        Unframed::Event { data, .. } => events.push(data.to_vec()),
                        Unframed::Broken(what) => panic!("{what}"),
                    });
                }
                assert_eq!(events, [br#"{"a":1}"#], "{stream:?} cut at {cut}");
            }
        }
    }
}
