//! The beginning of a stream. Until there is content, another instance may still answer instead.

use std::{
    pin::Pin,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use pointsman_ai::{Capture, Protocol, Scout, StreamMeter, StreamTranslator};

use super::response_failure;
use crate::{
    body::{Body, CollectError},
    clock,
    exchange::Exchange,
    failure::Failure,
    plugins::ai_proxy::{First, RelayLimits},
};

/// How a stream is opened.
pub(super) struct Opening {
    /// What it is in.
    pub(super) target: Protocol,
    /// Brings it into the client's protocol.
    pub(super) translator: Option<Box<StreamTranslator>>,
    /// Whether its beginning is held back until there is content.
    pub(super) hold: bool,
    /// When there must be content.
    pub(super) first_token: Option<Instant>,
    /// Limits on all of it.
    pub(super) limits: RelayLimits,
    /// Whether its text is kept.
    pub(super) capture: Capture,
    /// Whether its tokens are estimated.
    pub(super) estimates: bool,
}

/// A stream that may be passed on.
pub(super) struct Opened {
    /// Its beginning.
    pub(super) first: Option<First>,
    /// Has looked at the beginning.
    pub(super) meter: StreamMeter,
    /// Has translated the beginning.
    pub(super) translator: Option<Box<StreamTranslator>>,
}

/// What is known of a stream so far.
enum Seen {
    Nothing,
    Content,
    /// It ended, or has an error, before there was any.
    Failed(Failure),
}

impl Opening {
    /// Waits until `stream` may be passed on.
    pub(super) async fn open(
        self,
        exchange: &Exchange,
        stream: &mut Body,
    ) -> Result<Opened, Failure> {
        let (limits, first_token) = (self.limits, self.first_token);
        let mut begun = Begun::of(self);
        // Who waits for content without a limit of its own is shown after a while what there is.
        let mut patience = match first_token {
            None if begun.hold => Some(clock::now() + HELD_TIME_MAX),
            _ => None,
        };
        loop {
            let due = [limits.until, first_token, patience];
            let next = next_frame(exchange, stream, due.into_iter().flatten().min());
            let may_begin = match next.await {
                Next::Frame(frame) => begun.push(frame, limits.bytes)?,
                Next::End => {
                    *stream = Body::Empty;
                    begun.finish()?;
                    true
                }
                Next::Broken(failure) => return Err(failure),
                Next::Late if is_past(limits.until) => return Err(Failure::StreamTooLong),
                Next::Late if is_past(first_token) => return Err(Failure::NoFirstToken),
                Next::Late => {
                    patience = None;
                    !begun.held.is_empty()
                }
            };
            if may_begin {
                return Ok(begun.into_opened());
            }
        }
    }
}

/// A stream whose beginning is being looked at.
struct Begun {
    meter: StreamMeter,
    translator: Option<Box<StreamTranslator>>,
    /// Looks for content in what is passed on as it is.
    scout: Option<Scout>,
    /// Content is waited for.
    hold: bool,
    held: Held,
}

impl Begun {
    fn of(opening: Opening) -> Self {
        let scout = match opening.hold && opening.translator.is_none() {
            true => Scout::new(opening.target),
            false => None,
        };
        let meter = StreamMeter::new(opening.target, opening.capture);
        Self {
            meter: if opening.estimates {
                meter.estimating()
            } else {
                meter
            },
            // Where nobody knows what content is, there is nothing to wait for.
            hold: opening.hold && (opening.translator.is_some() || scout.is_some()),
            translator: opening.translator,
            scout,
            held: Held::default(),
        }
    }

    /// Takes the next bytes; whether the stream may be passed on now.
    fn push(&mut self, frame: Bytes, limit: Option<u64>) -> Result<bool, Failure> {
        self.held.upstream_bytes += frame.len() as u64;
        if limit.is_some_and(|limit| self.held.upstream_bytes > limit) {
            return Err(Failure::ResponseTooLarge);
        }
        self.meter.push(&frame);
        if let Some(scout) = &mut self.scout {
            scout.push(&frame);
        }
        match &mut self.translator {
            Some(translator) => translator.push(&frame, &mut self.held.translated),
            None => self.held.push(frame),
        }
        match self.seen() {
            Seen::Failed(failure) => Err(failure),
            Seen::Content => Ok(true),
            Seen::Nothing => {
                let shown = !self.hold && !self.held.is_empty();
                Ok(shown || self.held.len() > HELD_BYTES_MAX)
            }
        }
    }

    /// The stream has ended.
    fn finish(&mut self) -> Result<(), Failure> {
        if let Some(translator) = &mut self.translator {
            translator.finish(&mut self.held.translated);
        }
        if let Some(scout) = &mut self.scout {
            scout.finish();
        }
        match self.seen() {
            Seen::Failed(failure) => Err(failure),
            Seen::Nothing | Seen::Content => Ok(()),
        }
    }

    fn seen(&self) -> Seen {
        let opening = match (&self.translator, &self.scout) {
            (Some(translator), _) => translator.opening(),
            (None, Some(scout)) => scout.opening(),
            (None, None) => return Seen::Nothing,
        };
        if opening.has_content {
            return Seen::Content;
        }
        match &opening.error {
            Some(error) => Seen::Failed(Failure::BadStream(error.clone())),
            None => Seen::Nothing,
        }
    }

    fn into_opened(self) -> Opened {
        Opened {
            first: self.held.into_first(),
            meter: self.meter,
            translator: self.translator,
        }
    }
}

/// The beginning of a stream, while it is held back.
#[derive(Default)]
struct Held {
    one: Bytes,
    more: BytesMut,
    translated: Vec<u8>,
    upstream_bytes: u64,
}

impl Held {
    fn push(&mut self, frame: Bytes) {
        if self.one.is_empty() {
            self.one = frame;
        } else {
            self.more.extend_from_slice(&frame);
        }
    }

    fn len(&self) -> usize {
        self.one.len() + self.more.len() + self.translated.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn into_first(self) -> Option<First> {
        let bytes = match (self.translated.is_empty(), self.more.is_empty()) {
            (false, _) => Bytes::from(self.translated),
            (true, true) => self.one,
            (true, false) => Bytes::from([&self.one[..], &self.more[..]].concat()),
        };
        (self.upstream_bytes > 0 || !bytes.is_empty()).then_some(First {
            bytes,
            upstream_bytes: self.upstream_bytes,
        })
    }
}

/// What comes next of a stream.
enum Next {
    Frame(Bytes),
    End,
    Broken(Failure),
    /// Nothing, in time.
    Late,
}

fn is_past(due: Option<Instant>) -> bool {
    due.is_some_and(|due| clock::now() >= due)
}

/// What comes next of `stream`, until `due` at most.
async fn next_frame(exchange: &Exchange, stream: &mut Body, due: Option<Instant>) -> Next {
    let upstreams = exchange.gateway().upstreams();
    let mut deadline = due.map(|due| upstreams.sleep_until(due));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(frame) = Pin::new(&mut *stream).poll_frame(cx) {
            return Poll::Ready(match frame {
                None => Next::End,
                Some(Err(error)) => Next::Broken(response_failure(&CollectError::Broken(error))),
                Some(Ok(frame)) => Next::Frame(frame.into_data().unwrap_or_default()),
            });
        }
        match &mut deadline {
            Some(deadline) => deadline.as_mut().poll(cx).map(|()| Next::Late),
            None => Poll::Pending,
        }
    })
    .await
}

/// More than that is passed on, with or without content.
const HELD_BYTES_MAX: usize = 64 << 10;
/// Nor is anything held longer than that, unless `first_token_timeout_ms` says so.
const HELD_TIME_MAX: Duration = Duration::from_secs(10);
