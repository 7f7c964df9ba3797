//! The response on its way to the client, and with it the end of the exchange.
//!
//! Bytes are passed on as they arrive and not changed, unless a plugin asks for that; a meter looks at a stream in passing.
//! A response that breaks off, or is cut by a limit, ends in an error, so that the client's
//! connection is closed without the framing's proper end: a broken answer must not look like a
//! complete one.

mod rewriting;
mod tunnel;

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use pointsman_ai::{StreamFacts, Usage};

use crate::{
    body::{Body, BodyError},
    clock,
    exchange::{Ended, Exchange},
    failure::TransportFault,
    forward::evidence::{self, StreamEnd},
    plugins::ai_proxy::{AiCall, First, RelayLimits},
    ports::{BrokenBody, ClientBroke, LocalFuture},
};

use self::rewriting::Rewriting;
pub use self::{
    rewriting::{BodyChange, Edit, TooLong},
    tunnel::{Goodbye, TunnelEnd},
};

/// A response's body and the exchange that it belongs to.
pub struct Relay {
    body: Body,
    exchange: Box<Exchange>,
    /// What came before `body`, as the client gets it; the head was held back for it.
    first: Option<First>,
    /// Gathers what the client gets, for plugins to change it.
    rewriting: Option<Rewriting>,
    /// Ends when the time of a stream is over.
    deadline: Option<LocalFuture<'static, ()>>,
    /// Limits silence.
    idle: Option<Idle>,
    upstream_bytes: u64,
    failed: Option<BodyError>,
}

/// Why we stopped passing a response on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// `max_response_bytes`.
    Bytes,
    /// `max_stream_duration_ms`.
    Duration,
    /// `stream_idle_timeout_ms`.
    Idle,
    /// `max_resp_body_size` of `response-rewrite`.
    Rewriting,
}

/// How long a stream has been silent.
struct Idle {
    limit: Duration,
    /// When the last bytes came.
    since: Instant,
    /// Ends when the silence may be over. Set at the first silence and then only when it has ended,
    /// so that bytes cost a look at the clock and nothing else.
    timer: Option<LocalFuture<'static, ()>>,
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bytes => "max_response_bytes exceeded",
            Self::Duration => "max_stream_duration_ms exceeded",
            Self::Idle => "stream_idle_timeout_ms exceeded",
            Self::Rewriting => "max_resp_body_size exceeded, or a filter could not read the body",
        })
    }
}

impl std::error::Error for Cut {}

impl Relay {
    /// Passes `body` on as the response of `exchange`, with all `changes` made.
    pub fn new(mut exchange: Box<Exchange>, body: Body, changes: Vec<BodyChange>) -> Self {
        let call = exchange.ai.as_mut();
        let (first, limits) = call.map_or((None, RelayLimits::default()), |call| {
            (call.first.take(), call.relay_limits)
        });
        let until = limits.until;
        let idle = limits.idle.map(|limit| Idle {
            limit,
            since: clock::now(),
            timer: None,
        });
        let deadline = until.map(|until| exchange.gateway().upstreams().sleep_until(until));
        Self {
            body,
            first,
            rewriting: Rewriting::of(changes),
            deadline,
            idle,
            exchange,
            upstream_bytes: 0,
            failed: None,
        }
    }

    /// The next frame; the end of the body is the end of the exchange.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if self.exchange.ended().is_some() {
            return Poll::Ready(None);
        }
        if let Some(first) = self.first.take() {
            self.upstream_bytes = first.upstream_bytes;
            return self.hand(Frame::data(first.bytes), cx);
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending => {
                // A stream that is silent has an end, too.
                if let Some(deadline) = &mut self.deadline
                    && deadline.as_mut().poll(cx).is_ready()
                {
                    self.deadline = None;
                    return self.cut(Cut::Duration, cx);
                }
                if self.is_idle(cx) {
                    self.idle = None;
                    let silent = StreamEnd::Broken(TransportFault::ReadTimeout);
                    evidence::of_stream(&mut self.exchange, silent);
                    return self.cut(Cut::Idle, cx);
                }
                Poll::Pending
            }
            Poll::Ready(None) => self.finish(cx),
            Poll::Ready(Some(Err(error))) if error.is::<ClientBroke>() => {
                self.end(Ended::Abandoned);
                self.fail_next(error, cx)
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::warn!(
                    route = self.exchange.route().map_or("", |route| route.id.as_str()),
                    bytes = self.upstream_bytes,
                    "the upstream's response broke off: {error}"
                );
                let fault = error.downcast_ref::<BrokenBody>();
                let fault = fault.map_or(TransportFault::Closed, |broken| broken.0);
                evidence::of_stream(&mut self.exchange, StreamEnd::Broken(fault));
                let last = self.break_translation("the provider's stream broke off");
                if !last.is_empty() {
                    return self.end_with(last, Ended::UpstreamBroken, cx);
                }
                self.end(Ended::UpstreamBroken);
                self.fail_next(error, cx)
            }
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(cut) = frame.data_ref().and_then(|data| self.pass(data)) {
                    return self.cut(cut, cx);
                }
                self.translate(frame, cx)
            }
        }
    }

    /// The upstream has sent all there is.
    fn finish(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.finish_translation() {
            (last, None) => {
                let end = self.end_of_stream();
                evidence::of_stream(&mut self.exchange, end);
                self.end_with(last, Ended::Complete, cx)
            }
            (last, Some(fault)) => {
                evidence::of_stream(&mut self.exchange, StreamEnd::Broken(fault));
                self.end_with(last, Ended::UpstreamBroken, cx)
            }
        }
    }

    /// Whether the stream has been silent for too long. Wakes when it may have been.
    fn is_idle(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(idle) = &mut self.idle else {
            return false;
        };
        loop {
            let due = idle.since + idle.limit;
            let upstreams = self.exchange.gateway().upstreams();
            let timer = idle.timer.get_or_insert_with(|| upstreams.sleep_until(due));
            if timer.as_mut().poll(cx).is_pending() {
                return false;
            }
            idle.timer = None;
            if clock::now() >= due {
                return true;
            }
        }
    }

    /// A frame in the client's protocol.
    fn translate(
        &mut self,
        frame: Frame<Bytes>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let call = self.exchange.ai.as_mut();
        let Some(translator) = call.and_then(|call| call.translator.as_mut()) else {
            return self.hand(frame, cx);
        };
        let mut out = Vec::new();
        translator.push(frame.data_ref().map_or(&[], |data| data), &mut out);
        if out.is_empty() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.hand(Frame::data(Bytes::from(out)), cx)
    }

    /// Gives `frame` to the client, or to those who will change the whole.
    fn hand(
        &mut self,
        frame: Frame<Bytes>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(data) = frame.data_ref() else {
            return Poll::Ready(Some(Ok(frame)));
        };
        let Some(rewriting) = &mut self.rewriting else {
            let data = data.clone();
            self.keep(&data);
            return Poll::Ready(Some(Ok(frame)));
        };
        if let Err(cut) = rewriting.push(data) {
            return self.cut(cut, cx);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// What a translated stream still owes its client at its end, and what was wrong with that.
    fn finish_translation(&mut self) -> (Vec<u8>, Option<TransportFault>) {
        let mut last = Vec::new();
        let call = self.exchange.ai.as_mut();
        let complete = match call.and_then(|call| call.translator.as_mut()) {
            Some(translator) => translator.finish(&mut last),
            None => true,
        };
        (last, (!complete).then_some(TransportFault::Closed))
    }

    /// What a stream that is passed on as it is says of its end. A translated one has been read by who
    /// translates it.
    fn end_of_stream(&self) -> StreamEnd {
        let call = self.exchange.ai.as_ref();
        let call = call.filter(|call| call.translator.is_none());
        let failure = call.and_then(|call| call.meter.as_ref()?.failure());
        failure.map_or(StreamEnd::Well, StreamEnd::Said)
    }

    /// The error, in the client's protocol, of a translated stream that ends here.
    fn break_translation(&mut self, what: &str) -> Vec<u8> {
        let mut last = Vec::new();
        let call = self.exchange.ai.as_mut();
        if let Some(translator) = call.and_then(|call| call.translator.as_mut()) {
            translator.fail(what, &mut last);
        }
        last
    }

    /// Ends the exchange, after `last`.
    fn end_with(
        &mut self,
        last: Vec<u8>,
        ended: Ended,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut last = Bytes::from(last);
        if let Some(mut rewriting) = self.rewriting.take() {
            let changed = rewriting.push(&last).and_then(|()| rewriting.finish());
            match changed {
                Ok(changed) => last = changed,
                Err(cut) => return self.cut(cut, cx),
            }
        }
        self.keep(&last);
        self.end(ended);
        if last.is_empty() {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(Frame::data(last))))
    }

    /// Fails with `error` at the next poll. An error closes the client's connection on the spot;
    /// this way what came before it is written first, and the client has all there was.
    fn fail_next<T>(&mut self, error: BodyError, cx: &mut Context<'_>) -> Poll<T> {
        self.failed = Some(error);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The response is complete without its body.
    pub(crate) fn leave_out(&mut self) {
        self.end(Ended::Complete);
    }

    /// The client is gone before it took the last of what it was given.
    pub(crate) fn abandon(&mut self) {
        self.end(Ended::Abandoned);
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        if let Some(rewriting) = &self.rewriting {
            let length = rewriting.length();
            return length.map_or_else(SizeHint::default, SizeHint::with_exact);
        }
        let rest = self.body.size_hint();
        if let Some(call) = &self.exchange.ai
            && call.translator.is_some()
        {
            return SizeHint::default();
        }
        let first = self.first.as_ref().map_or(0, |first| first.bytes.len()) as u64;
        match rest.exact() {
            Some(rest) => SizeHint::with_exact(rest + first),
            None => rest,
        }
    }

    /// Looks at bytes in passing.
    fn pass(&mut self, data: &Bytes) -> Option<Cut> {
        let exchange = &mut *self.exchange;
        self.upstream_bytes += data.len() as u64;
        if let Some(idle) = &mut self.idle {
            idle.since = clock::now();
        }
        let limits = exchange
            .ai
            .as_ref()
            .map(|call| call.relay_limits)
            .unwrap_or_default();
        if limits
            .bytes
            .is_some_and(|limit| self.upstream_bytes > limit)
        {
            return Some(Cut::Bytes);
        }
        if limits.until.is_some_and(|until| clock::now() >= until) {
            return Some(Cut::Duration);
        }
        if let Some(meter) = exchange.ai.as_mut().and_then(|call| call.meter.as_mut()) {
            meter.push(data);
        }
        None
    }

    /// Counts what the client gets, and keeps as much of it as loggers want.
    fn keep(&mut self, data: &Bytes) {
        let exchange = &mut *self.exchange;
        exchange.response.body_bytes += data.len() as u64;
        let keep = exchange.wants().response_body_bytes;
        if keep > 0 {
            let kept = exchange.response.body.get_or_insert_default();
            let room = keep.saturating_sub(kept.len()).min(data.len());
            kept.extend_from_slice(&data[..room]);
        }
    }

    /// Stops at a limit: in the client's own words where the stream is translated, else in an error.
    fn cut(
        &mut self,
        cut: Cut,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        tracing::warn!(
            route = self.exchange.route().map_or("", |route| route.id.as_str()),
            bytes = self.upstream_bytes,
            duration_ms = attempt_millis(&self.exchange),
            "response cut: {cut}"
        );
        // Dropping the body closes the upstream connection.
        self.body = Body::Empty;
        if cut == Cut::Rewriting {
            self.rewriting = None;
            self.end(Ended::Limited);
            return self.fail_next(Box::new(cut), cx);
        }
        let last = self.break_translation(&cut.to_string());
        if !last.is_empty() {
            return self.end_with(last, Ended::Limited, cx);
        }
        self.end(Ended::Limited);
        self.fail_next(Box::new(cut), cx)
    }

    fn end(&mut self, ended: Ended) {
        self.note_stream(ended);
        self.exchange.finish(ended);
    }

    /// Brings what the stream told into the exchange's facts.
    fn note_stream(&mut self, ended: Ended) {
        let exchange = &mut *self.exchange;
        if exchange.ended().is_some() {
            return;
        }
        let took = attempt_millis(exchange);
        if let Some(attempt) = exchange.attempts.last_mut() {
            if attempt.total.is_none() {
                attempt.total = Some(clock::now() - attempt.started);
            }
            if attempt.body_bytes == 0 {
                attempt.body_bytes = self.upstream_bytes;
            }
        }
        let Some(call) = exchange.ai.as_mut() else {
            return;
        };
        if let (Some(translated), Some(translator)) = (&mut call.translated, &call.translator) {
            translated.lost_of_answer = translator.lost();
        }
        let Some(meter) = call.meter.take() else {
            exchange.llm.response_ms.get_or_insert(took);
            return;
        };
        exchange.llm.response_ms = Some(took);
        let facts = meter.finish();
        let (usage, estimated) = usage(&facts, call);
        warn_of(&facts, exchange, ended);
        exchange.llm.usage = usage;
        exchange.llm.usage_estimated = estimated;
        exchange.llm.has_tool_calls = facts.has_tool_calls;
        exchange.llm.text = facts.text;
        exchange.llm.stream_done = facts.done;
    }
}

impl Drop for Relay {
    /// The client went away before the end: say so. The exchange does the rest.
    fn drop(&mut self) {
        if self.exchange.ended().is_none() {
            // A body without bytes is never polled when the response has none (HEAD, 204, 304).
            let is_read = matches!(self.body, Body::Empty) || self.body.is_end_stream();
            let complete = is_read && self.first.is_none();
            self.end(if complete {
                Ended::Complete
            } else {
                Ended::Abandoned
            });
        }
    }
}

/// What the stream says of its tokens, and whether that had to be estimated: what a provider stated stays,
/// unless the model has plainly written more since (Anthropic begins with a count of 1 to 3).
fn usage(facts: &StreamFacts, call: &AiCall) -> (Option<Usage>, bool) {
    let (Some(written), false) = (
        facts.estimated_completion,
        facts.usage.is_some() && facts.done,
    ) else {
        return (facts.usage, false);
    };
    let mut usage = facts.usage.unwrap_or_default();
    let stated = usage;
    if usage.prompt == 0 {
        usage.prompt = pointsman_ai::prompt_tokens(call.protocol, call.body.bytes());
    }
    if written > usage.completion.saturating_mul(2) {
        usage.completion = written;
    }
    usage.total = usage
        .total
        .max(usage.prompt.saturating_add(usage.completion));
    (Some(usage), usage != stated)
}

/// Says what was wrong with a stream that nobody else says.
fn warn_of(facts: &StreamFacts, exchange: &Exchange, ended: Ended) {
    let route = exchange.route().map_or("", |route| route.id.as_str());
    let instance = exchange.llm.instance.as_deref().unwrap_or_default();
    if let Some((kind, message)) = &facts.error {
        tracing::warn!(
            route,
            instance,
            kind = shown(kind),
            reason = shown(message),
            "the upstream's stream ended in an error event"
        );
    }
    // A stream that was cut, by whomever, ends in the middle of an event as a rule.
    let pending = if ended == Ended::Complete {
        facts.pending
    } else {
        0
    };
    let overflows = facts.overflows;
    if pending > 0 || overflows > 0 {
        tracing::warn!(
            route,
            instance,
            unfinished_bytes = pending,
            oversized_events = overflows,
            "parts of the upstream's stream could not be read: tokens and the like may be missing"
        );
    }
}

/// As much of an upstream's own words as the log shows. It quotes them, so one line stays one.
fn shown(text: &str) -> &str {
    text.char_indices()
        .nth(SHOWN_CHARS_MAX)
        .map_or(text, |(end, _)| &text[..end])
}

fn attempt_millis(exchange: &Exchange) -> u64 {
    exchange.attempts.last().map_or(0, |attempt| {
        u64::try_from((clock::now() - attempt.started).as_millis()).unwrap_or(u64::MAX)
    })
}

/// Characters of an upstream's own words that the log shows.
const SHOWN_CHARS_MAX: usize = 256;
