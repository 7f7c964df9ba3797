//! The one body type: a message that is whole is a stream of few frames.
//!
//! A buffered body keeps the pieces it was made of. A spliced LLM request is three of them (the
//! client's bytes before the changed value, the new value, the client's bytes after it), and they
//! go to the socket in one vectored write without ever being copied together.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::forward::relay::Relay;

/// Why a body could not be read to its end.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A body that arrives from outside, driven by whoever reads it.
pub trait Arriving: HttpBody<Data = Bytes, Error = BodyError> {
    /// The reader will take nothing but the whole body: one of up to `bytes` may come in one
    /// frame, so that it need not be copied together. A hint, no promise.
    fn gather(self: Pin<&mut Self>, bytes: usize) {
        let _ = bytes;
    }
}

/// A body of unknown origin.
pub type StreamBody = Pin<Box<dyn Arriving>>;

/// A request or response body.
#[derive(Default)]
pub enum Body {
    /// No body at all.
    #[default]
    Empty,
    /// All bytes are here, in order.
    Whole(Pieces),
    /// Bytes that arrive while they are forwarded.
    Stream(StreamBody),
    /// A response on its way to the client; owns the exchange and ends it.
    Relay(Box<Relay>),
}

/// The pieces of a buffered body, in order.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    queue: VecDeque<Bytes>,
    remaining: u64,
}

impl Body {
    /// A body that is exactly `bytes`.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::pieces([bytes.into()])
    }

    /// A body made of `pieces` in order; empty pieces are left out.
    pub fn pieces(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        let queue: VecDeque<Bytes> = pieces.into_iter().filter(|p| !p.is_empty()).collect();
        if queue.is_empty() {
            return Self::Empty;
        }
        let remaining = queue.iter().map(|p| p.len() as u64).sum();
        Self::Whole(Pieces { queue, remaining })
    }

    /// The first bytes of a body that is here, which are all of it unless it was spliced.
    pub fn first_piece(&self) -> Option<&Bytes> {
        match self {
            Self::Whole(pieces) => pieces.queue.front(),
            Self::Empty | Self::Stream(_) | Self::Relay(_) => None,
        }
    }

    /// Ends a response whose body is not sent, because of its status or its request's method.
    pub fn leave_out(self) {
        if let Self::Relay(mut relay) = self {
            relay.leave_out();
        }
    }

    /// Ends a response of which the client did not take all that this body gave.
    pub fn abandon(self) {
        if let Self::Relay(mut relay) = self {
            relay.abandon();
        }
    }

    /// Whether the body can be sent a second time as it stands.
    pub fn is_replayable(&self) -> bool {
        matches!(self, Self::Empty | Self::Whole(_))
    }

    /// A second copy of a replayable body (no bytes are copied); `None` for a stream.
    pub fn replay(&self) -> Option<Self> {
        match self {
            Self::Empty => Some(Self::Empty),
            Self::Whole(pieces) => Some(Self::Whole(pieces.clone())),
            Self::Stream(_) | Self::Relay(_) => None,
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Whole(pieces) => Poll::Ready(pieces.queue.pop_front().map(|piece| {
                pieces.remaining -= piece.len() as u64;
                Ok(Frame::data(piece))
            })),
            Self::Stream(body) => body.as_mut().poll_frame(cx),
            Self::Relay(relay) => relay.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(pieces) => pieces.queue.is_empty(),
            Self::Stream(body) => body.is_end_stream(),
            // Its end is an event (the exchange finishes on it), so it must be polled.
            Self::Relay(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(pieces) => SizeHint::with_exact(pieces.remaining),
            Self::Stream(body) => body.size_hint(),
            Self::Relay(relay) => relay.size_hint(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "Body::Empty",
            Self::Whole(_) => "Body::Whole",
            Self::Stream(_) => "Body::Stream",
            Self::Relay(_) => "Body::Relay",
        })
    }
}

/// A body whose bytes are looked at in passing, and which ends where the look finds an error.
pub(crate) struct Observed<F> {
    body: StreamBody,
    look: F,
}

impl<F: FnMut(&Bytes) -> Result<(), BodyError> + Unpin> Observed<F> {
    /// `body`; `look` sees each piece of it before it is passed on.
    pub(crate) fn new(body: StreamBody, look: F) -> Self {
        Self { body, look }
    }
}

impl<F: FnMut(&Bytes) -> Result<(), BodyError> + Unpin> HttpBody for Observed<F> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = std::task::ready!(self.body.as_mut().poll_frame(cx));
        if let Some(Ok(frame)) = &polled
            && let Some(data) = frame.data_ref()
            && let Err(error) = (self.look)(data)
        {
            return Poll::Ready(Some(Err(error)));
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<F: FnMut(&Bytes) -> Result<(), BodyError> + Unpin> Arriving for Observed<F> {
    fn gather(mut self: Pin<&mut Self>, bytes: usize) {
        self.body.as_mut().gather(bytes);
    }
}

/// `body`, which fails with [`TooLong`] once more than `max` bytes of it have come.
pub(crate) fn limited(body: StreamBody, max: u64) -> StreamBody {
    let mut left = max;
    Box::pin(Observed::new(body, move |data| {
        left = left.checked_sub(data.len() as u64).ok_or(TooLong)?;
        Ok(())
    }))
}

/// The error of a [`limited`] body.
#[derive(Debug)]
pub(crate) struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body is longer than allowed")
    }
}

impl std::error::Error for TooLong {}

/// Why [`collect`] stopped.
#[derive(Debug)]
pub enum CollectError {
    /// More than the allowed number of bytes arrived; carries how many were seen.
    TooLarge(u64),
    /// The sender failed, or went away.
    Broken(BodyError),
}

/// Reads `body` to its end into one contiguous buffer of at most `limit` bytes.
///
/// A body that arrives in one frame is not copied. `expected` is the declared length, if any; it
/// only sizes the buffer, and a lie costs at most 1 MiB.
pub async fn collect(
    body: &mut Body,
    expected: Option<u64>,
    limit: u64,
) -> Result<Bytes, CollectError> {
    if let Body::Stream(stream) = body {
        stream
            .as_mut()
            .gather(usize::try_from(limit).unwrap_or(usize::MAX));
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    let mut seen = 0u64;
    while let Some(frame) = next_frame(body).await {
        let Ok(data) = frame.map_err(CollectError::Broken)?.into_data() else {
            continue;
        };
        seen += data.len() as u64;
        if seen > limit {
            return Err(CollectError::TooLarge(seen));
        }
        if seen == data.len() as u64 {
            first = data;
            continue;
        }
        if rest.is_empty() {
            let want = expected
                .unwrap_or(seen * 2)
                .clamp(seen, PREALLOCATE_MAX.max(seen));
            rest.reserve(usize::try_from(want).unwrap_or(0));
            rest.extend_from_slice(&first);
        }
        rest.extend_from_slice(&data);
    }
    Ok(if rest.is_empty() {
        first
    } else {
        rest.freeze()
    })
}

/// The next frame of `body`, or `None` at its end.
pub async fn next_frame(body: &mut Body) -> Option<Result<Frame<Bytes>, BodyError>> {
    std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}

/// The most that a declared length may make us reserve before the bytes have arrived.
const PREALLOCATE_MAX: u64 = 1 << 20;
