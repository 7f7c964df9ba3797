//! HTTP/1.1 towards clients.
//!
//! One task serves a connection: it reads a head, lets the gateway work, and writes the response
//! while its body yields. The request's body is read by whoever wants it, through the same
//! connection. Meanwhile a client that goes away is noticed, which drops the request and all that
//! was done for it.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use pointsman_gateway::{
    body::{Arriving, Body, BodyError},
    clock,
    failure::Failure,
    ports::BodyTimeout,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};

use super::{Abort, Connection, Limits, may_have_body, tunnel};
use crate::{
    http_client::Switched,
    http1::{
        alarm::{Alarm, Stall},
        encode::{self, Encoding},
        head::{HeadScan, RequestHead},
        outgoing::{Outgoing, Output, Pulled},
        reader::{BodyReader, ReadFault},
        wire::Wire,
    },
};

/// Serves a connection to its end.
pub(super) async fn serve<S>(wire: Wire<S>, connection: Connection, drain: watch::Receiver<bool>)
where
    S: Abort + AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut told = drain.clone();
    let draining = async move {
        let _ = told.wait_for(|drain| *drain).await;
    };
    let mut client = Client {
        inbound: Rc::new(RefCell::new(Inbound::new(wire))),
        output: Output::default(),
        alarm: Alarm::default(),
        drain,
        limits: connection.limits,
    };
    let mut draining = pin!(draining);
    loop {
        let head = match client.next_head(draining.as_mut()).await {
            Next::Request(head) => head,
            Next::Refused(failure) => {
                tracing::info!(client = %connection.client, "{failure}");
                return client.refuse(&failure).await;
            }
            Next::Nothing => return,
        };
        let answered = client.answer(&connection, head).await;
        match answered {
            After::Keep => {}
            After::Close => return client.close().await,
            After::Abort => {
                let inbound = client.inbound.borrow();
                return inbound.wire.stream.reset_on_close(true);
            }
            After::Gone => return,
            After::Tunnel(switched, body) => {
                let Ok(inbound) = Rc::try_unwrap(client.inbound) else {
                    return;
                };
                return tunnel::join(inbound.into_inner().wire, switched, body).await;
            }
        }
    }
}

/// One client and its connection.
struct Client<S> {
    inbound: Rc<RefCell<Inbound<S>>>,
    output: Output,
    alarm: Alarm,
    drain: watch::Receiver<bool>,
    limits: Limits,
}

/// The receiving half; the body of the request in progress shares it.
struct Inbound<S> {
    wire: Wire<S>,
    scan: HeadScan,
    /// The body of the request in progress.
    body: Option<BodyReader>,
    /// What is left to write of the `100 Continue` that the client waits for.
    interim: &'static [u8],
    stall: Stall,
}

enum Next {
    Request(RequestHead),
    Refused(Failure),
    Nothing,
}

/// What becomes of the connection after an answer.
enum After {
    Keep,
    Close,
    /// End it so that the client sees that the answer is not complete.
    Abort,
    /// The client is not there any longer.
    Gone,
    Tunnel(Switched, Body),
}

impl<S> Client<S>
where
    S: Abort + AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    /// Whether the program ends: it said so once, and will not take it back.
    fn is_draining(&self) -> bool {
        self.drain.has_changed().unwrap_or(true)
    }

    /// The head of the next request. When the program drains an idle connection ends, and one on
    /// which a head has begun gets a little time for the rest.
    async fn next_head(&mut self, mut draining: Pin<&mut impl Future<Output = ()>>) -> Next {
        let mut due = clock::now() + self.limits.head;
        let mut has_begun = false;
        let mut told_at = None;
        poll_fn(|cx| {
            let inbound = &mut *self.inbound.borrow_mut();
            loop {
                match inbound
                    .scan
                    .request(&mut inbound.wire.input, self.limits.heads)
                {
                    Ok(Some(head)) => return Poll::Ready(Next::Request(head)),
                    Ok(None) => {}
                    Err(failure) => return Poll::Ready(Next::Refused(failure)),
                }
                match inbound.wire.poll_fill(cx) {
                    Poll::Ready(Ok(1..)) => {}
                    // A client that leaves in the middle of a head expects no answer.
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::Nothing),
                    Poll::Pending => break,
                }
            }
            // Empty lines between requests are nothing (RFC 9112 §2.2).
            let idle = inbound
                .wire
                .input
                .iter()
                .all(|byte| matches!(byte, b'\r' | b'\n'));
            if !idle && !has_begun {
                // The time without a request is not taken from the time for its head.
                has_begun = true;
                due = clock::now() + self.limits.head;
            }
            let is_draining = self.is_draining() || draining.as_mut().poll(cx).is_ready();
            if is_draining {
                if idle {
                    return Poll::Ready(Next::Nothing);
                }
                let told_at = *told_at.get_or_insert_with(clock::now);
                due = due.min(told_at + LAST_HEAD);
            }
            self.alarm.poll(cx, due).map(|()| match idle {
                true => Next::Nothing,
                false => Next::Refused(Failure::HeadTimeout),
            })
        })
        .await
    }

    /// One request and its response.
    async fn answer(&mut self, connection: &Connection, head: RequestHead) -> After {
        let facts = Asked {
            head_only: head.method == Method::HEAD,
            version: head.version,
            keep_alive: head.keep_alive,
        };
        let request = self.request(head);
        let mut handling = pin!(connection.gateway.handle(request, connection.peer()));
        let inbound = &self.inbound;
        let response = poll_fn(|cx| match handling.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready(Some(response)),
            Poll::Pending => inbound.borrow_mut().poll_gone(cx).map(|()| None),
        });
        let Some(response) = response.await else {
            return After::Gone;
        };
        self.respond(response, &facts).await
    }

    fn request(&mut self, head: RequestHead) -> Request<Body> {
        let body = match head.body {
            None => Body::Empty,
            Some(decoder) => {
                let mut inbound = self.inbound.borrow_mut();
                inbound.body = Some(BodyReader::new(decoder));
                // Time counts from when somebody waits for the body.
                inbound.stall.progress();
                if head.expects_continue && inbound.wire.input.is_empty() {
                    inbound.interim = CONTINUE;
                }
                Body::Stream(Box::pin(ClientBody {
                    inbound: Rc::clone(&self.inbound),
                    limit: self.limits.body,
                }))
            }
        };
        let mut request = Request::new(body);
        *request.method_mut() = head.method;
        *request.uri_mut() = head.uri;
        *request.version_mut() = head.version;
        *request.headers_mut() = head.headers;
        request
    }

    async fn respond(&mut self, response: Response<Body>, asked: &Asked) -> After {
        let (mut parts, body) = response.into_parts();
        self.finish_interim();
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            let Some(switched) = parts.extensions.remove::<Switched>() else {
                return After::Abort;
            };
            let upgrade = parts.headers.get(header::CONNECTION).cloned();
            let upgrade = upgrade.as_ref().and_then(|value| value.to_str().ok());
            self.output.write(|out| {
                encode::response(out, parts.status, &parts.headers, Encoding::Absent, upgrade);
            });
            return match self.flush().await {
                Ok(()) => After::Tunnel(switched, body),
                Err(_) => After::Gone,
            };
        }
        let has_body = !asked.head_only && may_have_body(parts.status);
        let encoding = encoding(parts.status, &body, asked);
        let keep = asked.keep_alive
            && !self.is_draining()
            && encoding != Encoding::UntilClose
            && !says_close(&parts.headers)
            && self.is_read_to_the_end();
        // One that has not begun would come into the middle of the answer.
        self.inbound.borrow_mut().interim = &[];
        let connection = match (keep, asked.version) {
            (false, _) => Some("close"),
            (true, Version::HTTP_10) => Some("keep-alive"),
            (true, _) => None,
        };
        self.output.write(|out| {
            encode::response(out, parts.status, &parts.headers, encoding, connection);
        });
        drop(parts);
        // Where the close is the only end there is, anything but a whole answer must end in a
        // reset: time running out and the end of the program, too.
        let is_told_by_close = has_body && encoding == Encoding::UntilClose;
        if is_told_by_close {
            self.inbound.borrow().wire.stream.reset_on_close(true);
        }
        let outgoing = if has_body {
            Outgoing::new(body, encoding)
        } else {
            body.leave_out();
            Outgoing::new(Body::Empty, Encoding::Absent)
        };
        match self.send(outgoing).await {
            Sent::Whole if keep => After::Keep,
            Sent::Whole => {
                if is_told_by_close {
                    self.inbound.borrow().wire.stream.reset_on_close(false);
                }
                After::Close
            }
            // Only the close itself can tell; anything else shows by its framing, and what was
            // written before should reach the client.
            Sent::Broken if is_told_by_close => After::Abort,
            Sent::Broken => After::Close,
            Sent::Gone => After::Gone,
        }
    }

    /// A `100 Continue` that was written in part is completed before anything else is said.
    fn finish_interim(&mut self) {
        let mut inbound = self.inbound.borrow_mut();
        if inbound.interim.len() < CONTINUE.len() {
            let rest = std::mem::take(&mut inbound.interim);
            self.output.write(|out| out.extend_from_slice(rest));
        }
    }

    /// Whether the next request can follow on this connection. A body that nobody wants is passed
    /// over; one that somebody still reads is theirs.
    fn is_read_to_the_end(&self) -> bool {
        let is_shared = Rc::strong_count(&self.inbound) > 1;
        let mut inbound = self.inbound.borrow_mut();
        if is_shared {
            return inbound.body.as_ref().is_none_or(BodyReader::is_done);
        }
        inbound.skip_body()
    }

    /// Writes the head that waits and the body as it comes.
    async fn send(&mut self, mut body: Outgoing) -> Sent {
        let mut stall = Stall::since(clock::now());
        let mut is_broken = false;
        poll_fn(|cx| {
            loop {
                let pulled = body.poll_pull(&mut self.output, cx);
                // What came before the break still goes out.
                is_broken |= matches!(pulled, Pulled::Broken(_));
                let before = self.output.len();
                let inbound = &mut *self.inbound.borrow_mut();
                let flushed = self.output.poll_flush(&mut inbound.wire.stream, cx);
                if self.output.len() < before {
                    stall.progress();
                }
                match (flushed, pulled) {
                    (Poll::Ready(Err(_)), _) => return Poll::Ready(Sent::Gone),
                    (Poll::Ready(Ok(())), Pulled::Enough) => {}
                    (Poll::Ready(Ok(())), Pulled::Done | Pulled::Broken(_)) => {
                        return Poll::Ready(match is_broken {
                            true => Sent::Broken,
                            false => Sent::Whole,
                        });
                    }
                    (Poll::Ready(Ok(())), Pulled::Pending) => {
                        return inbound.poll_gone(cx).map(|()| Sent::Gone);
                    }
                    (Poll::Pending, _) => {
                        // The client does not read.
                        return stall.poll(cx, self.limits.send).map(|()| Sent::Gone);
                    }
                }
            }
        })
        .await
    }

    async fn flush(&mut self) -> io::Result<()> {
        let flush = poll_fn(|cx| {
            let inbound = &mut *self.inbound.borrow_mut();
            self.output.poll_flush(&mut inbound.wire.stream, cx)
        });
        tokio::time::timeout(self.limits.send, flush)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Answers something that never became a request.
    async fn refuse(mut self, failure: &Failure) {
        let (parts, body) = failure.response(None).into_parts();
        let length = body.size_hint().exact().unwrap_or_default();
        let (status, encoding) = (parts.status, Encoding::Length(length));
        self.output.write(|out| {
            encode::response(out, status, &parts.headers, encoding, Some("close"));
        });
        if let Sent::Whole = self.send(Outgoing::new(body, encoding)).await {
            self.close().await;
        }
    }

    /// Ends the connection so that the client can still read what was sent to it: closing with
    /// unread input makes a reset, which may overtake the answer.
    async fn close(self) {
        let linger = poll_fn(|cx| {
            let wire = &mut self.inbound.borrow_mut().wire;
            if ready!(Pin::new(&mut wire.stream).poll_shutdown(cx)).is_err() {
                return Poll::Ready(());
            }
            loop {
                wire.input = Bytes::new();
                match ready!(wire.poll_fill(cx)) {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return Poll::Ready(()),
                }
            }
        });
        // The client has what it needs; how its side ends does not matter.
        let _ = tokio::time::timeout(LINGER, linger).await;
    }
}

impl<S: AsyncRead + Unpin> Inbound<S> {
    fn new(wire: Wire<S>) -> Self {
        Self {
            wire,
            scan: HeadScan::default(),
            body: None,
            interim: &[],
            stall: Stall::since(clock::now()),
        }
    }

    /// Ready when the client has closed. Its next requests are read ahead, a few of them.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.body.as_ref().is_some_and(|body| !body.is_done()) {
            // Whoever reads the body will notice.
            return Poll::Pending;
        }
        while self.wire.input.len() < READ_AHEAD_BYTES_MAX {
            match ready!(self.wire.poll_fill(cx)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    /// Passes over what is left of a body that nobody wanted, if all of it is here. Else the
    /// connection cannot be used again.
    fn skip_body(&mut self) -> bool {
        let Some(mut body) = self.body.take() else {
            return true;
        };
        if !self.interim.is_empty() {
            // The client may or may not send what it has announced.
            return body.is_done();
        }
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for _ in 0..SKIPPED_FRAMES_MAX {
            match body.poll_next(&mut self.wire, &mut cx) {
                Poll::Ready(Ok(None)) => return true,
                Poll::Ready(Ok(Some(_))) => {}
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
        }
        let done = body.is_done();
        self.body = Some(body);
        done
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Inbound<S> {
    fn poll_body(
        &mut self,
        limit: Duration,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, BodyError>>> {
        while !self.interim.is_empty() {
            let written = ready!(Pin::new(&mut self.wire.stream).poll_write(cx, self.interim))?;
            self.interim = &self.interim[written..];
            self.stall.progress();
        }
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        match body.poll_next(&mut self.wire, cx) {
            Poll::Ready(Ok(Some(data))) => {
                self.stall.progress();
                Poll::Ready(Some(Ok(data)))
            }
            Poll::Ready(Ok(None)) => Poll::Ready(None),
            Poll::Ready(Err(fault)) => Poll::Ready(Some(Err(match fault {
                ReadFault::Closed => "the client closed the connection".into(),
                ReadFault::Io(error) => error.into(),
                ReadFault::Malformed(what) => what.into(),
            }))),
            Poll::Pending => {
                if body.take_moved() {
                    self.stall.progress();
                }
                let late = self.stall.poll(cx, limit);
                late.map(|()| Some(Err(Box::new(BodyTimeout) as BodyError)))
            }
        }
    }
}

/// What a response needs to know of its request.
struct Asked {
    head_only: bool,
    version: Version,
    keep_alive: bool,
}

enum Sent {
    Whole,
    /// The body broke off; what there was of it is out.
    Broken,
    /// The client left, or does not read.
    Gone,
}

fn encoding(status: StatusCode, body: &Body, asked: &Asked) -> Encoding {
    let exact = body.size_hint().exact();
    if !may_have_body(status) {
        return Encoding::Absent;
    }
    match exact {
        // The head says how long the body would have been.
        Some(length) if asked.head_only && length == 0 => Encoding::Absent,
        Some(length) => Encoding::Length(length),
        None if asked.head_only => Encoding::Absent,
        None if asked.version == Version::HTTP_11 => Encoding::Chunked,
        None => Encoding::UntilClose,
    }
}

fn says_close(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONNECTION)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}

/// The body of a request, read from the client's connection.
struct ClientBody<S> {
    inbound: Rc<RefCell<Inbound<S>>>,
    limit: Duration,
}

impl<S: AsyncRead + AsyncWrite + Unpin> HttpBody for ClientBody<S> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = self.inbound.borrow_mut().poll_body(self.limit, cx);
        polled.map(|data| data.map(|data| data.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        let inbound = self.inbound.borrow();
        inbound.body.as_ref().is_none_or(BodyReader::is_done)
    }

    fn size_hint(&self) -> SizeHint {
        let inbound = self.inbound.borrow();
        let left = inbound.body.as_ref().map_or(Some(0), BodyReader::remaining);
        left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Arriving for ClientBody<S> {
    fn gather(self: Pin<&mut Self>, bytes: usize) {
        if let Some(body) = &mut self.inbound.borrow_mut().body {
            body.gather(bytes);
        }
    }
}

#[cfg(test)]
mod tests;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// What is read ahead of further requests while one is served.
const READ_AHEAD_BYTES_MAX: usize = 64 << 10;
/// Frames of an unwanted body that are passed over.
const SKIPPED_FRAMES_MAX: usize = 64;
/// For the rest of a head that had begun when the program began to drain.
const LAST_HEAD: Duration = Duration::from_secs(5);
/// How long a client may go on sending after its last answer.
const LINGER: Duration = Duration::from_secs(5);
