//! Streams of events.

pub(crate) mod meter;
pub mod sse;

use crate::Protocol;

/// Cuts a provider's bytes into events, by the framing of its protocol.
#[derive(Debug)]
pub(crate) enum Framing {
    /// Server-sent events.
    Sse(sse::Decoder),
}

/// What stands in a frame.
#[derive(Debug)]
pub(crate) enum Unframed<'a> {
    /// An event.
    Event {
        /// Its type; empty if it has none.
        name: &'a [u8],
        /// Its data.
        data: &'a [u8],
    },
    /// The framing is broken, or an event is too large: what follows cannot be trusted.
    #[expect(dead_code, reason = "event streams of AWS come with their reader")]
    Broken(&'a str),
}

impl Framing {
    /// The framing of streams in `protocol`.
    pub(crate) fn of(_protocol: Protocol) -> Self {
        Self::Sse(sse::Decoder::default())
    }

    /// Takes the next bytes; `on_frame` gets what is complete by now.
    pub(crate) fn push(&mut self, bytes: &[u8], mut on_frame: impl FnMut(Unframed<'_>)) {
        match self {
            Self::Sse(decoder) => {
                decoder.push(bytes, |name, data| on_frame(Unframed::Event { name, data }));
            }
        }
    }
}
