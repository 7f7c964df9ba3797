//! An answer that comes in pieces.

use super::{Citation, ErrorMessage, Json, Opaque, Signature, Stop};
use crate::{Usage, json::string::JsonStr};

/// A piece of a streamed answer.
///
/// Readers promise: `Start` comes first and once; of each choice at most one block is open at a
/// time; a block is closed before the `Stop` of its choice; nothing follows `End` or `Error`. A
/// stream that breaks off, or ends without saying so, ends in `Error`.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'a> {
    /// The answer begins.
    Start {
        /// The provider's id of it; empty if there is none.
        id: JsonStr<'a>,
        /// The model; empty if that is not said.
        model: JsonStr<'a>,
        /// Seconds since 1970.
        created: Option<u64>,
        /// Tokens of the prompt, where they are known at the start.
        usage: Option<Usage>,
    },
    /// A block begins.
    BlockStart {
        /// Which of several answers: 0, 1 ...
        choice: u32,
        /// What it is.
        block: Block<'a>,
    },
    /// More of the open block: text, or arguments of a call as the text of JSON.
    Delta {
        /// Which of several answers.
        choice: u32,
        /// The piece.
        text: JsonStr<'a>,
    },
    /// What the provider wants back with the open block.
    Signature {
        /// Which of several answers.
        choice: u32,
        /// The data.
        signature: Signature<'a>,
    },
    /// A source of the open block's text.
    Citation {
        /// Which of several answers.
        choice: u32,
        /// The source.
        citation: Citation<'a>,
    },
    /// Probabilities of the tokens of the last piece, as OpenAI Chat has them.
    Logprobs {
        /// Which of several answers.
        choice: u32,
        /// `{"content": [...]}`.
        json: Json<'a>,
    },
    /// The open block is complete.
    BlockEnd {
        /// Which of several answers.
        choice: u32,
    },
    /// An answer is complete.
    Stop {
        /// Which of several answers.
        choice: u32,
        /// Why.
        stop: Stop<'a>,
    },
    /// Tokens so far. Later ones replace what they state.
    Usage(Usage),
    /// The tier of service that answers, in OpenAI's words. A later one replaces it.
    Tier(JsonStr<'a>),
    /// Nothing, but the connection is alive.
    Ping,
    /// Something went wrong in the middle; nothing follows.
    Error(ErrorMessage<'a>),
    /// The whole is complete; nothing follows.
    End,
}

impl Event<'_> {
    /// Which of several answers it is a piece of; `None` if it is of the whole.
    pub fn choice(&self) -> Option<u32> {
        match self {
            Self::BlockStart { choice, .. }
            | Self::Delta { choice, .. }
            | Self::Signature { choice, .. }
            | Self::Citation { choice, .. }
            | Self::Logprobs { choice, .. }
            | Self::BlockEnd { choice }
            | Self::Stop { choice, .. } => Some(*choice),
            Self::Start { .. }
            | Self::Usage(_)
            | Self::Tier(_)
            | Self::Ping
            | Self::Error(_)
            | Self::End => None,
        }
    }
}

/// Calls that an answer may have. What a client gets cannot be without end.
pub(crate) const CALLS_MAX: usize = 1_024;

/// The tier of a stream whose provider may repeat it with every piece.
#[derive(Debug, Default)]
pub(crate) struct ToldTier(Option<JsonStr<'static>>);

impl ToldTier {
    /// The event for what a piece says of it, if that is new.
    pub(crate) fn news<'a>(&mut self, tier: Option<JsonStr<'a>>) -> Option<Event<'a>> {
        let tier = tier.filter(|tier| self.0.as_ref() != Some(tier))?;
        self.0 = Some(tier.clone().into_owned());
        Some(Event::Tier(tier))
    }
}

/// What a block of a streamed answer is.
#[derive(Clone, Debug, PartialEq)]
pub enum Block<'a> {
    /// Text.
    Text,
    /// Thoughts.
    Reasoning,
    /// Thoughts that are hidden: their data come as a signature.
    Hidden,
    /// The model declines.
    Refusal,
    /// A call; its arguments follow.
    ToolCall {
        /// Names the call; empty where the protocol has none.
        id: JsonStr<'a>,
        /// The tool.
        name: JsonStr<'a>,
    },
    /// A piece that only one protocol knows, whole.
    Opaque(Opaque<'a>),
}
