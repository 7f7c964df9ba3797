//! One request and its response over one connection, driven by whoever waits for it.

use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use pointsman_gateway::{
    body::{Arriving, BodyError},
    failure::TransportFault,
    ports::{BrokenBody, ClientBroke, SendError},
    upstream::destination::Timeouts,
};

use super::{
    Connection,
    pool::Return,
    sending::{Parcel, SendFault, Sending},
};
use crate::http_client::Stream;
use crate::http1::{
    head::{HeadScan, ResponseHead},
    reader::{BodyReader, ReadFault},
    wire::Wire,
};

/// A request under way on a connection.
pub(super) struct Flight {
    connection: Connection,
    sending: Sending,
    scan: HeadScan,
    timeouts: Timeouts,
}

/// Why there is no response.
pub(super) struct Lost {
    pub(super) error: SendError,
    /// The request, if nothing of it can have reached the target.
    pub(super) parcel: Option<Parcel>,
    /// The target closed the connection without a byte of an answer.
    pub(super) silent: bool,
}

impl Flight {
    pub(super) fn new(mut connection: Connection, parcel: Parcel, timeouts: Timeouts) -> Self {
        connection.stall.progress();
        Self {
            connection,
            sending: Sending::new(parcel),
            scan: HeadScan::default(),
            timeouts,
        }
    }

    /// Sends, and waits for the head of the response.
    pub(super) async fn head(mut self) -> Result<(ResponseHead, Self), Lost> {
        match poll_fn(|cx| self.poll_head(cx)).await {
            Ok(head) => Ok((head, self)),
            Err(error) => {
                let silent = error.client.is_none()
                    && error.fault == TransportFault::Closed
                    && self.connection.wire.input.is_empty();
                let parcel = self.sending.into_untouched().filter(|_| silent);
                Err(Lost {
                    error,
                    parcel,
                    silent,
                })
            }
        }
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
                .response(&mut wire.input, self.sending.method(), HEAD_BYTES_MAX)
            {
                Ok(Some(head)) => {
                    self.connection.stall.progress();
                    return Poll::Ready(Ok(head));
                }
                Ok(None) => {}
                Err(bad) => {
                    return Poll::Ready(Err(lost(TransportFault::Malformed, bad.0, address)));
                }
            }
            match wire.poll_fill(cx) {
                Poll::Ready(Ok(1..)) => self.connection.stall.progress(),
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
        let late = self.connection.stall.poll(cx, limit);
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
        if self.sending.is_over() {
            self.timeouts.read
        } else {
            self.timeouts.send
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendFault>> {
        let Connection { wire, stall, .. } = &mut self.connection;
        self.sending.poll(&mut wire.stream, stall, cx)
    }

    /// Whether all of the request was written.
    pub(super) fn is_sent(&self) -> bool {
        self.sending.is_whole()
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
        if flight.is_sent() && flight.connection.wire.input.is_empty() {
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
            return Poll::Ready(Some(Err(Box::new(ClientBroke(error)))));
        }
        let broken = |fault| Some(Err(Box::new(BrokenBody(fault)) as BodyError));
        match this.reader.poll_next(&mut flight.connection.wire, cx) {
            Poll::Ready(Ok(Some(data))) => {
                flight.connection.stall.progress();
                this.release_if_done();
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Poll::Ready(Ok(None)) => {
                // A reset is reported once: if writing met it, the next read says only `closed`.
                let is_reset = this.reader.ended_by_close() && flight.sending.has_failed();
                this.release_if_done();
                this.flight = None;
                Poll::Ready(is_reset.then(|| broken(TransportFault::Closed)).flatten())
            }
            Poll::Ready(Err(fault)) => {
                this.flight = None;
                Poll::Ready(broken(match fault {
                    ReadFault::Closed | ReadFault::Io(_) => TransportFault::Closed,
                    ReadFault::Malformed(_) => TransportFault::Malformed,
                }))
            }
            Poll::Pending => {
                if this.reader.take_moved() {
                    flight.connection.stall.progress();
                }
                let limit = flight.timeouts.read;
                ready!(flight.connection.stall.poll(cx, limit));
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
            unsent: self.parcel.and_then(Parcel::into_unread),
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

/// The most bytes of a response's head.
const HEAD_BYTES_MAX: usize = 256 << 10;
