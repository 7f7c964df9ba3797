//! A request on its way to a target.

use std::{
    io,
    task::{Context, Poll},
};

use http::Method;
use pointsman_gateway::body::{Body, BodyError};
use tokio::io::AsyncWrite;

use crate::http1::{
    alarm::Stall,
    outgoing::{Outgoing, Output, Pulled},
};

/// A request, encoded, of which nothing has been written.
pub(super) struct Parcel {
    pub(super) method: Method,
    pub(super) output: Output,
    pub(super) body: Outgoing,
}

/// A request that is being written.
pub(super) struct Sending {
    parcel: Parcel,
    /// Bytes that were there to be written at first.
    whole: usize,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing has been written.
    Untouched,
    /// Something has.
    Begun,
    /// All of it, down to the socket: TLS has a buffer of its own, which must be emptied too.
    Sent,
    /// The target takes no more; what it has to say is still read.
    Failed { untouched: bool },
}

/// Why a request could not be written.
#[derive(Debug)]
pub(super) enum SendFault {
    Io(io::Error),
    Client(BodyError),
}

impl Parcel {
    /// The same request once more, if its body can be sent again.
    pub(super) fn replay(&self) -> Option<Self> {
        Some(Self {
            method: self.method.clone(),
            output: self.output.clone(),
            body: self.body.replay()?,
        })
    }
}

impl Sending {
    pub(super) fn new(parcel: Parcel) -> Self {
        Self {
            whole: parcel.output.len(),
            parcel,
            state: State::Untouched,
        }
    }

    pub(super) fn method(&self) -> &Method {
        &self.parcel.method
    }

    /// Nothing more will be written.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Sent | State::Failed { .. })
    }

    /// All of it was written.
    pub(super) fn is_whole(&self) -> bool {
        self.state == State::Sent
    }

    /// The connection failed while the request was written.
    pub(super) fn has_failed(&self) -> bool {
        matches!(self.state, State::Failed { .. })
    }

    /// The request, if writing it failed before a byte of it was taken.
    pub(super) fn into_untouched(self) -> Option<Parcel> {
        (self.state == State::Failed { untouched: true }).then_some(self.parcel)
    }

    /// Writes what is there to be written.
    pub(super) fn poll<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        stall: &mut Stall,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SendFault>> {
        while !self.is_over() {
            let Parcel { output, body, .. } = &mut self.parcel;
            let pulled = body.poll_pull(output, cx);
            if let Pulled::Broken(error) = pulled {
                self.state = State::Failed { untouched: false };
                return Poll::Ready(Err(SendFault::Client(error)));
            }
            let before = output.len();
            let flushed = output.poll_flush(stream, cx);
            if output.len() < before {
                stall.progress();
                self.state = State::Begun;
            }
            match (flushed, pulled) {
                (Poll::Ready(Err(error)), _) => {
                    let untouched = self.state == State::Untouched && output.len() >= self.whole;
                    self.state = State::Failed { untouched };
                    return Poll::Ready(Err(SendFault::Io(error)));
                }
                (Poll::Pending, _) => return Poll::Pending,
                // A client that pauses is not the target's fault.
                (Poll::Ready(Ok(())), Pulled::Pending) => {
                    stall.progress();
                    return Poll::Pending;
                }
                (Poll::Ready(Ok(())), Pulled::Done) => {
                    stall.progress();
                    self.state = State::Sent;
                }
                (Poll::Ready(Ok(())), _) => {}
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Parcel {
    /// The body, if no frame of it has been taken.
    pub(super) fn into_unread(self) -> Option<Body> {
        self.body.into_unread()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        task::{Waker, ready},
    };

    use bytes::Bytes;
    use pointsman_gateway::clock;

    use super::*;
    use crate::http1::encode::Encoding;

    /// Takes every byte into a buffer, as TLS does, and passes it on when it is flushed.
    #[derive(Default)]
    struct Buffered {
        taken: Vec<u8>,
        passed_on: Vec<u8>,
        /// How often a flush cannot go on at once.
        busy: usize,
    }

    impl AsyncWrite for Buffered {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.taken.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            if self.busy > 0 {
                self.busy -= 1;
                return Poll::Pending;
            }
            let taken = std::mem::take(&mut self.taken);
            self.passed_on.extend_from_slice(&taken);
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.poll_flush(cx)
        }
    }

    /// A stream that takes `left` bytes and then breaks.
    struct Breaking {
        left: usize,
    }

    impl AsyncWrite for Breaking {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            if self.left == 0 {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let taken = bytes.len().min(self.left);
            self.left -= taken;
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn sending(body: Body) -> Sending {
        let mut output = Output::default();
        output.write(|out| out.extend_from_slice(b"head"));
        Sending::new(Parcel {
            method: Method::POST,
            output,
            body: Outgoing::new(body, Encoding::UntilClose),
        })
    }

    fn poll(sending: &mut Sending, stream: &mut (impl AsyncWrite + Unpin)) -> Poll<bool> {
        let mut stall = Stall::since(clock::now());
        let mut cx = Context::from_waker(Waker::noop());
        let sent = ready!(sending.poll(stream, &mut stall, &mut cx));
        Poll::Ready(sent.is_ok())
    }

    #[test]
    fn what_the_stream_holds_back_is_not_sent_yet() {
        let mut stream = Buffered {
            busy: 2,
            ..Buffered::default()
        };
        let mut sending = sending(Body::whole("body"));
        assert!(poll(&mut sending, &mut stream).is_pending());
        assert!(!sending.is_over() && stream.taken == b"headbody");
        assert!(poll(&mut sending, &mut stream).is_pending());
        assert_eq!(poll(&mut sending, &mut stream), Poll::Ready(true));
        assert!(sending.is_whole());
        assert_eq!(stream.passed_on, b"headbody");
    }

    /// A body that was read from the client, all of it already among the output.
    fn streamed() -> Body {
        struct Once(Option<Bytes>);
        impl http_body::Body for Once {
            type Data = Bytes;
            type Error = BodyError;
            fn poll_frame(
                mut self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
                Poll::Ready(self.0.take().map(|data| Ok(http_body::Frame::data(data))))
            }
        }
        impl pointsman_gateway::body::Arriving for Once {}
        Body::Stream(Box::pin(Once(Some(Bytes::from_static(b"body")))))
    }

    #[test]
    fn a_body_that_was_taken_is_not_given_back_empty() {
        for (body, comes_back) in [(Body::Empty, true), (streamed(), false)] {
            let mut sending = sending(body);
            assert_eq!(
                poll(&mut sending, &mut Breaking { left: 0 }),
                Poll::Ready(false)
            );
            let parcel = sending.into_untouched().expect("nothing was written");
            assert_eq!(parcel.into_unread().is_some(), comes_back);
        }
        let mut sending = sending(Body::whole("body"));
        assert_eq!(
            poll(&mut sending, &mut Breaking { left: 2 }),
            Poll::Ready(false)
        );
        assert!(sending.has_failed() && sending.into_untouched().is_none());
    }
}
