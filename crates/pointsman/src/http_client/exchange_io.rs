//! One request and its response over one connection, driven by whoever waits for it.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use pointsman_gateway::{
    body::{Body, BodyError},
    clock,
    failure::TransportFault,
    ports::{Answer, BrokenBody, SendError},
    upstream::destination::Timeouts,
};
use tokio::time::Sleep;

use super::{Connection, pool::Return};

/// Ends a wait in which nothing moves for too long.
///
/// One timer serves a whole response: progress only notes the time, and the timer, when it
/// fires, looks whether there was any. So a chunk costs no timer operation.
pub(super) struct Watch {
    read: Duration,
    last: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl Watch {
    pub(super) fn new(send: Duration, read: Duration) -> Self {
        // Sending is over long before the head arrives; the longer limit covers both.
        let first = send.max(read);
        Self {
            read,
            last: clock::now(),
            sleep: Box::pin(tokio::time::sleep(first)),
        }
    }

    fn progress(&mut self) {
        self.last = clock::now();
    }

    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.sleep.as_mut().poll(cx).is_ready() {
            let due = self.last + self.read;
            if due <= clock::now() {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(due.into());
        }
        Poll::Pending
    }
}

/// Sends `request` and waits for the head of its response.
pub(super) async fn request(
    mut connection: Connection,
    request: Request<Body>,
    watch: &mut Watch,
) -> Result<(Response<Incoming>, Connection), SendError> {
    let address = connection.address;
    let mut sending = Box::pin(connection.sender.try_send_request(request));
    let result = std::future::poll_fn(|cx| {
        if let Poll::Ready(result) = sending.as_mut().poll(cx) {
            return Poll::Ready(Ok(result));
        }
        let closed = match Pin::new(&mut connection.driver).poll(cx) {
            Poll::Ready(Ok(())) => Some(None),
            Poll::Ready(Err(error)) => Some(Some(error)),
            Poll::Pending => None,
        };
        // The driver has run: the answer, or the reason why there is none, may be there now.
        if let Poll::Ready(result) = sending.as_mut().poll(cx) {
            return Poll::Ready(Ok(result));
        }
        if let Some(error) = closed {
            return Poll::Ready(Err(error.map_or_else(
                || {
                    error_of(
                        TransportFault::Closed,
                        "connection closed".to_owned(),
                        address,
                    )
                },
                |error| error_of(fault_of(&error), chain_of(&error), address),
            )));
        }
        let late = watch.poll_expired(cx).is_ready();
        if !late {
            return Poll::Pending;
        }
        let detail = "no response in time".to_owned();
        Poll::Ready(Err(error_of(TransportFault::ReadTimeout, detail, address)))
    })
    .await;
    drop(sending);
    match result? {
        Ok(response) => {
            watch.progress();
            Ok((response, connection))
        }
        Err(mut failed) => {
            let unsent = failed.take_message();
            let error = failed.into_error();
            Err(SendError {
                unsent,
                ..error_of(fault_of(&error), chain_of(&error), address)
            })
        }
    }
}

/// Sends a request that asks for a protocol switch. The connection is driven by a task of its own,
/// because it outlives the exchange of heads.
pub(super) async fn upgrade(
    connection: Connection,
    request: Request<Body>,
    timeouts: &Timeouts,
    connect_time: Option<Duration>,
) -> Result<Answer, SendError> {
    let Connection {
        mut sender,
        driver,
        address,
        ..
    } = connection;
    tokio::task::spawn_local(async move {
        if let Err(error) = driver.with_upgrades().await {
            tracing::debug!(%address, "upgraded connection ended: {error}");
        }
    });
    let answer = tokio::time::timeout(timeouts.read, sender.send_request(request)).await;
    let response = match answer {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Err(error_of(fault_of(&error), chain_of(&error), address)),
        Err(_) => {
            let detail = "no answer to the upgrade in time".to_owned();
            return Err(error_of(TransportFault::ReadTimeout, detail, address));
        }
    };
    let response = response.map(|incoming| {
        let limit = timeouts.read;
        Body::Stream(Box::pin(Detached {
            incoming,
            sender,
            watch: Watch::new(limit, limit),
        }))
    });
    Ok(Answer {
        response,
        address: Some(address),
        connect_time,
    })
}

/// A response body together with the connection that it arrives on.
pub(super) struct Driven {
    incoming: Incoming,
    connection: Option<Connection>,
    watch: Watch,
    keep: Option<Return>,
}

impl Driven {
    pub(super) fn new(
        incoming: Incoming,
        connection: Connection,
        watch: Watch,
        keep: Option<Return>,
    ) -> Self {
        Self {
            incoming,
            connection: Some(connection),
            watch,
            keep,
        }
    }

    /// The body has ended: the connection goes back to the pool if it can serve again.
    fn release(&mut self, cx: &mut Context<'_>) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        let Some(keep) = self.keep.take() else { return };
        // One more poll lets the driver settle into waiting for the next request.
        if !connection.sender.is_ready() && Pin::new(&mut connection.driver).poll(cx).is_ready() {
            return;
        }
        if connection.sender.is_ready() {
            keep.put(connection);
        }
    }
}

impl HttpBody for Driven {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let mut polled = Pin::new(&mut this.incoming).poll_frame(cx);
        let mut closed = None;
        if polled.is_pending()
            && let Some(connection) = &mut this.connection
        {
            if let Poll::Ready(result) = Pin::new(&mut connection.driver).poll(cx) {
                closed = Some(result.err());
                this.connection = None;
            }
            polled = Pin::new(&mut this.incoming).poll_frame(cx);
        }
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                this.watch.progress();
                if this.incoming.is_end_stream() {
                    this.release(cx);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(broken(&error)))),
            Poll::Ready(None) => {
                this.release(cx);
                Poll::Ready(None)
            }
            Poll::Pending => match closed {
                Some(error) => {
                    let fault = error.as_ref().map_or(TransportFault::Closed, fault_of);
                    Poll::Ready(Some(Err(Box::new(BrokenBody(fault)))))
                }
                None => this.watch.poll_expired(cx).map(|()| {
                    this.connection = None;
                    let error: BodyError = Box::new(BrokenBody(TransportFault::ReadTimeout));
                    Some(Err(error))
                }),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// The body of a response whose connection has a task of its own.
struct Detached {
    incoming: Incoming,
    sender: hyper::client::conn::http1::SendRequest<Body>,
    watch: Watch,
}

impl HttpBody for Detached {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(broken(&error)))),
            Poll::Ready(Some(Ok(frame))) => {
                self.watch.progress();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => self.watch.poll_expired(cx).map(|()| {
                let error: BodyError = Box::new(BrokenBody(TransportFault::ReadTimeout));
                Some(Err(error))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        // Holding the sender keeps the connection open until the body is done.
        let _ = &self.sender;
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

fn broken(error: &hyper::Error) -> BodyError {
    Box::new(BrokenBody(fault_of(error)))
}

fn error_of(fault: TransportFault, detail: String, address: SocketAddr) -> SendError {
    SendError {
        fault,
        detail,
        address: Some(address),
        unsent: None,
    }
}

fn fault_of(error: &hyper::Error) -> TransportFault {
    if error.is_timeout() {
        TransportFault::ReadTimeout
    } else if error.is_parse() {
        TransportFault::Malformed
    } else {
        TransportFault::Closed
    }
}

/// An error with its causes, for the log.
fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
