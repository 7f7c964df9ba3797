//! One request and its response over one connection, driven by whoever waits for it.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Method;
use http_body::{Body as HttpBody, Frame, SizeHint};
use pointsman_gateway::{
    body::{Arriving, BodyError},
    clock,
    failure::TransportFault,
    ports::{BrokenBody, SendError},
    upstream::destination::Timeouts,
};

use super::{Connection, pool::Return};
use crate::http_client::Stream;
use crate::http1::{
    alarm::Stall,
    head::{HeadLimits, HeadScan, ResponseHead},
    outgoing::{Outgoing, Output, Pulled},
    reader::{BodyReader, ReadFault},
    wire::Wire,
};

/// A request, encoded, of which nothing has been written.
pub(super) struct Parcel {
    pub(super) method: Method,
    pub(super) output: Output,
    pub(super) body: Outgoing,
}

/// A request under way on a connection.
pub(super) struct Flight {
    connection: Connection,
    parcel: Parcel,
    /// Bytes that were there to be written at first.
    whole: usize,
    /// The target takes no more; what it has to say is still read.
    send_failed: bool,
    scan: HeadScan,
    stall: Stall,
    timeouts: Timeouts,
}

/// Why there is no response.
pub(super) struct Lost {
    pub(super) error: SendError,
    /// The request, if nothing of it can have reached the target.
    pub(super) parcel: Option<Parcel>,
}

/// Why the request could not be written.
enum SendFault {
    Io(io::Error),
    Client(BodyError),
}

impl Flight {
    pub(super) fn new(connection: Connection, parcel: Parcel, timeouts: Timeouts) -> Self {
        Self {
            whole: parcel.output.len(),
            connection,
            parcel,
            send_failed: false,
            scan: HeadScan::default(),
            stall: Stall::since(clock::now()),
            timeouts,
        }
    }

    /// Sends, and waits for the head of the response.
    pub(super) async fn head(mut self) -> Result<(ResponseHead, Self), Lost> {
        match poll_fn(|cx| self.poll_head(cx)).await {
            Ok(head) => Ok((head, self)),
            Err(error) => {
                let untouched = error.client.is_none() && self.is_untouched();
                let parcel = untouched.then_some(self.parcel);
                Err(Lost { error, parcel })
            }
        }
    }

    /// Nothing was written, and nothing was taken from a body that cannot be taken again.
    fn is_untouched(&self) -> bool {
        self.parcel.output.len() >= self.whole
            && self.connection.wire.input.is_empty()
            && self.send_failed
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, SendError>> {
        let address = self.connection.address;
        if let Poll::Ready(Err(fault)) = self.poll_send(cx) {
            match fault {
                SendFault::Client(error) => {
                    return Poll::Ready(Err(SendError {
                        client: Some(error),
                        ..lost(
                            TransportFault::Closed,
                            "the client's body broke off",
                            address,
                        )
                    }));
                }
                // A target that refuses a request early may have said why.
                SendFault::Io(error) => {
                    tracing::debug!(%address, "sending stopped: {error}");
                }
            }
        }
        loop {
            let wire = &mut self.connection.wire;
            match self
                .scan
                .response(&mut wire.input, &self.parcel.method, HEAD_LIMITS)
            {
                Ok(Some(head)) => {
                    self.stall.progress();
                    return Poll::Ready(Ok(head));
                }
                Ok(None) => {}
                Err(bad) => {
                    return Poll::Ready(Err(lost(TransportFault::Malformed, bad.0, address)));
                }
            }
            match wire.poll_fill(cx) {
                Poll::Ready(Ok(1..)) => self.stall.progress(),
                Poll::Ready(Ok(0)) => {
                    let what = "connection closed before the response";
                    return Poll::Ready(Err(lost(TransportFault::Closed, what, address)));
                }
                Poll::Ready(Err(error)) => {
                    let what = error.to_string();
                    return Poll::Ready(Err(lost(TransportFault::Closed, &what, address)));
                }
                Poll::Pending => break,
            }
        }
        let limit = self.limit();
        let late = self.stall.poll(cx, limit);
        late.map(|()| {
            Err(lost(
                TransportFault::ReadTimeout,
                "no response in time",
                address,
            ))
        })
    }

    /// How long nothing may move: the limit for sending while something is left to send.
    fn limit(&self) -> std::time::Duration {
        if self.is_sent() {
            self.timeouts.read
        } else {
            self.timeouts.send
        }
    }

    fn is_sent(&self) -> bool {
        self.send_failed || (self.parcel.body.is_done() && self.parcel.output.is_empty())
    }

    /// Writes what is there to be written.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendFault>> {
        while !self.is_sent() {
            let Parcel { output, body, .. } = &mut self.parcel;
            let pulled = body.poll_pull(output, cx);
            if let Pulled::Broken(error) = pulled {
                self.send_failed = true;
                return Poll::Ready(Err(SendFault::Client(error)));
            }
            let before = output.len();
            let flushed = output.poll_flush(&mut self.connection.wire.stream, cx);
            if output.len() < before {
                self.stall.progress();
                self.whole = usize::MAX;
            }
            match (flushed, pulled) {
                (Poll::Ready(Err(error)), _) => {
                    self.send_failed = true;
                    return Poll::Ready(Err(SendFault::Io(error)));
                }
                (Poll::Pending, _) => return Poll::Pending,
                // A client that pauses is not the target's fault.
                (Poll::Ready(Ok(())), Pulled::Pending) => {
                    self.stall.progress();
                    return Poll::Pending;
                }
                (Poll::Ready(Ok(())), _) => {}
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The peer's address.
    pub(super) fn address(&self) -> SocketAddr {
        self.connection.address
    }

    /// Requests on this connection, this one included.
    pub(super) fn requests(&self) -> u64 {
        self.connection.requests
    }

    /// The connection of a protocol switch.
    pub(super) fn into_wire(self) -> Wire<Stream> {
        self.connection.wire
    }
}

/// The body of a response, and the connection that it arrives on.
pub(super) struct Received {
    flight: Option<Flight>,
    reader: BodyReader,
    /// Where the connection goes after the last byte, if it can serve again.
    keep: Option<Return>,
}

impl Received {
    pub(super) fn new(flight: Flight, reader: BodyReader, keep: Option<Return>) -> Self {
        let mut received = Self {
            flight: Some(flight),
            reader,
            keep,
        };
        received.release_if_done();
        received
    }

    /// After the last byte the connection serves again, or is closed.
    fn release_if_done(&mut self) {
        if !self.reader.is_done() {
            return;
        }
        let (Some(flight), Some(keep)) = (self.flight.take(), self.keep.take()) else {
            return;
        };
        // A request that was answered before it was sent leaves the connection in the middle.
        let between =
            !flight.send_failed && flight.is_sent() && flight.connection.wire.input.is_empty();
        if between {
            keep.put(flight.connection);
        }
    }
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Some(flight) = &mut this.flight else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(Err(SendFault::Client(error))) = flight.poll_send(cx) {
            this.flight = None;
            return Poll::Ready(Some(Err(error)));
        }
        let broken = |fault| Some(Err(Box::new(BrokenBody(fault)) as BodyError));
        match this.reader.poll_next(&mut flight.connection.wire, cx) {
            Poll::Ready(Ok(Some(data))) => {
                flight.stall.progress();
                this.release_if_done();
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Poll::Ready(Ok(None)) => {
                this.release_if_done();
                this.flight = None;
                Poll::Ready(None)
            }
            Poll::Ready(Err(fault)) => {
                this.flight = None;
                Poll::Ready(broken(match fault {
                    ReadFault::Closed | ReadFault::Io(_) => TransportFault::Closed,
                    ReadFault::Malformed(_) => TransportFault::Malformed,
                }))
            }
            Poll::Pending => {
                let limit = flight.timeouts.read;
                ready!(flight.stall.poll(cx, limit));
                this.flight = None;
                Poll::Ready(broken(TransportFault::ReadTimeout))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.flight.is_none() || self.reader.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.reader.remaining();
        left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Arriving for Received {
    fn gather(mut self: Pin<&mut Self>, bytes: usize) {
        self.reader.gather(bytes);
    }
}

impl Lost {
    /// The error, with the body to be sent again if nothing of it was used.
    pub(super) fn into_error(self) -> SendError {
        SendError {
            unsent: self.parcel.and_then(|parcel| parcel.body.into_unread()),
            ..self.error
        }
    }
}

fn lost(fault: TransportFault, detail: &str, address: SocketAddr) -> SendError {
    SendError {
        fault,
        detail: detail.to_owned(),
        address: Some(address),
        unsent: None,
        client: None,
    }
}

/// Of a response.
const HEAD_LIMITS: HeadLimits = HeadLimits {
    bytes: 256 << 10,
    lines: 200,
};
