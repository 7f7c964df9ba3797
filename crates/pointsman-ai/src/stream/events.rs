//! The meter of streams whose events are rare or small enough to be read whole.

use super::{Framing, Unframed, meter::StreamFacts};
use crate::{
    Capture, Protocol,
    conversation::{Block, Event},
    dialect::{Setting, StreamReader},
    estimate::Counter,
    json::string::JsonStr,
};

/// Reads one stream as the conversation that it is.
#[derive(Debug)]
pub(crate) struct EventMeter {
    framing: Framing,
    reader: StreamReader,
    facts: Facts,
}

#[derive(Debug)]
struct Facts {
    protocol: Protocol,
    so_far: StreamFacts,
    /// The open block is text for the user, and that is wanted.
    collects: bool,
    capture: Capture,
    /// Counts all that the model wrote, if that is wanted.
    counter: Option<Counter>,
}

impl EventMeter {
    /// A meter for a stream in `protocol`; `None` if that holds no conversation.
    pub(crate) fn new(protocol: Protocol, capture: Capture) -> Option<Self> {
        let reader = StreamReader::new(&Setting::alone(protocol))?;
        let so_far = StreamFacts {
            text: (capture == Capture::Text).then(String::new),
            ..StreamFacts::default()
        };
        Some(Self {
            framing: Framing::of(protocol),
            reader,
            facts: Facts {
                protocol,
                so_far,
                collects: false,
                capture,
                counter: None,
            },
        })
    }

    /// Counts about how many tokens the model wrote.
    pub(crate) fn estimate(&mut self) {
        self.facts.counter = Some(Counter::default());
    }

    /// Takes the next bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let Self {
            framing,
            reader,
            facts,
        } = self;
        framing.push(bytes, |unframed| match unframed {
            Unframed::Event { name, data } => {
                reader.event(name, data, &mut |event| facts.note(&event));
            }
            Unframed::Broken(_) => facts.so_far.overflows += 1,
        });
    }

    /// The type of the error that it carried, so far.
    pub(crate) fn error(&self) -> Option<&str> {
        self.facts.so_far.error.as_ref().map(|(kind, _)| &**kind)
    }

    /// What it all came to.
    pub(crate) fn finish(mut self) -> StreamFacts {
        // Some protocols have no other end than that of their bytes.
        let facts = &mut self.facts;
        self.reader.finish(&mut |event| {
            if event == Event::End {
                facts.so_far.done = true;
            }
        });
        let counter = self.facts.counter.as_ref();
        StreamFacts {
            pending: self.framing.pending(),
            estimated_completion: counter.map(Counter::tokens),
            ..self.facts.so_far
        }
    }
}

impl Facts {
    fn note(&mut self, event: &Event<'_>) {
        if let (Some(counter), Event::Delta { text, .. }) = (&mut self.counter, event) {
            counter.push(&text.decode());
        }
        let facts = &mut self.so_far;
        match event {
            Event::Start {
                usage: Some(usage), ..
            }
            | Event::Usage(usage) => {
                let usage = usage.in_terms_of(self.protocol);
                facts.usage.get_or_insert_default().update(usage);
            }
            Event::BlockStart { block, .. } => {
                facts.has_tool_calls |= matches!(block, Block::ToolCall { .. });
                self.collects = *block == Block::Text && self.capture == Capture::Text;
            }
            Event::Delta { text, .. } if self.collects => {
                if let Some(all) = &mut facts.text {
                    all.push_str(&text.decode());
                }
            }
            Event::Error(error) => {
                let kind = error.kind.as_ref().map(JsonStr::decode);
                let kind = kind.unwrap_or_default().into_owned();
                facts.error = Some((kind, error.message.decode().into_owned()));
                facts.done = true;
            }
            Event::End => facts.done = true,
            _ => {}
        }
    }
}
