//! The beginning of a stream. Until there is content, another instance may still answer instead.

use std::{
    pin::Pin,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
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
        let mut meter = StreamMeter::new(self.target, self.capture);
        let mut translator = self.translator;
        let mut scout = match self.hold && translator.is_none() {
            true => Scout::new(self.target),
            false => None,
        };
        // Where nobody knows what content is, there is nothing to wait for.
        let hold = self.hold && (translator.is_some() || scout.is_some());
        let mut held = Held::default();
        // Who waits for content without a limit of its own is shown after a while what there is.
        let mut patience = match self.first_token {
            None if hold => Some(clock::now() + HELD_TIME_MAX),
            _ => None,
        };
        loop {
            let due = [self.limits.until, self.first_token, patience];
            let next = next_frame(exchange, stream, due.into_iter().flatten().min());
            let next = match next.await {
                Next::Frame(frame) => Some(frame),
                Next::End => None,
                Next::Broken(failure) => return Err(failure),
                Next::Late if is_past(self.limits.until) => return Err(Failure::StreamTooLong),
                Next::Late if is_past(self.first_token) => return Err(Failure::NoFirstToken),
                Next::Late if held.is_empty() => {
                    patience = None;
                    continue;
                }
                Next::Late => break,
            };
            let Some(frame) = next else {
                *stream = Body::Empty;
                if let Some(translator) = &mut translator {
                    translator.finish(&mut held.translated);
                }
                let seen = seen_of(translator.as_deref(), scout.as_mut(), true);
                match seen {
                    Seen::Failed(failure) => return Err(failure),
                    Seen::Nothing | Seen::Content => break,
                }
            };
            held.upstream_bytes += frame.len() as u64;
            if (self.limits.bytes).is_some_and(|limit| held.upstream_bytes > limit) {
                return Err(Failure::ResponseTooLarge);
            }
            meter.push(&frame);
            if let Some(scout) = &mut scout {
                scout.push(&frame);
            }
            match &mut translator {
                Some(translator) => translator.push(&frame, &mut held.translated),
                None => held.push(frame),
            }
            let seen = seen_of(translator.as_deref(), scout.as_mut(), false);
            match seen {
                Seen::Failed(failure) => return Err(failure),
                Seen::Content => break,
                Seen::Nothing if !hold && !held.is_empty() => break,
                Seen::Nothing if held.len() > HELD_BYTES_MAX => break,
                Seen::Nothing => {}
            }
        }
        Ok(Opened {
            first: held.into_first(),
            meter,
            translator,
        })
    }
}

fn seen_of(translator: Option<&StreamTranslator>, scout: Option<&mut Scout>, ended: bool) -> Seen {
    let opening = match (translator, scout) {
        (Some(translator), _) => translator.opening(),
        (None, Some(scout)) => {
            if ended {
                scout.finish();
            }
            scout.opening()
        }
        (None, None) => return Seen::Nothing,
    };
    if opening.has_content {
        return Seen::Content;
    }
    match &opening.error {
        Some(error) => {
            let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_GATEWAY);
            Seen::Failed(Failure::BadStream(status, error.message.clone()))
        }
        None => Seen::Nothing,
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
