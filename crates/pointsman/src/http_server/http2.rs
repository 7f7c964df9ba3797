//! HTTP/2 towards clients, by hyper.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    io,
    pin::Pin,
    rc::{Rc, Weak},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use pointsman_gateway::{
    body::{Arriving, Body, BodyError},
    clock,
    failure::Failure,
    ports::BodyTimeout,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
};

use super::{Connection, may_have_body};
use crate::http1::{alarm::Stall, wire::Wire};

/// Serves a connection to its end.
pub(super) async fn serve<S>(
    wire: Wire<S>,
    connection: Connection,
    mut drain: watch::Receiver<bool>,
) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = connection.limits;
    let connection = Rc::new(connection);
    let bodies = Bodies::default();
    let watched = bodies.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (connection, bodies) = (Rc::clone(&connection), bodies.clone());
        async move { Ok::<_, Infallible>(answer(&connection, &bodies, request).await) }
    });
    let serving = http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.head)
        .max_header_list_size(u32::try_from(limits.heads.bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(STREAMS_MAX)
        .serve_connection(TokioIo::new(Rewound(wire)), service);
    let mut serving = std::pin::pin!(serving);
    let mut draining = false;
    let mut look = tokio::time::interval(LOOK_INTERVAL.min(limits.send));
    loop {
        tokio::select! {
            biased;
            result = serving.as_mut() => return result,
            _ = look.tick() => watched.end_stalled(limits.send),
            _ = drain.wait_for(|drain| *drain), if !draining => {
                draining = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}

/// One request.
async fn answer(
    connection: &Connection,
    bodies: &Bodies,
    mut request: Request<Incoming>,
) -> Response<Watched> {
    let limits = connection.limits;
    let head_only = request.method() == Method::HEAD;
    let mut response = if request.headers().len() > limits.heads.lines {
        Failure::HeadTooLarge.response(None)
    } else {
        join_cookies(request.headers_mut());
        let request = request.map(|incoming| {
            if incoming.is_end_stream() {
                Body::Empty
            } else {
                let mut stall = Stall::since(clock::now());
                // Time counts from when somebody waits for the body.
                stall.progress();
                Body::Stream(Box::pin(ClientBody {
                    incoming,
                    limit: limits.body,
                    stall,
                }))
            }
        });
        connection.gateway.handle(request, connection.peer()).await
    };
    // HTTP/2 has no such header (RFC 9113 §8.2.2).
    response.headers_mut().remove(header::CONNECTION);
    if head_only || !may_have_body(response.status()) {
        response = without_body(response, head_only);
    }
    response.map(|body| bodies.watch(body))
}

/// Answers with the head alone, which for HEAD says how long the body would have been.
fn without_body(response: Response<Body>, head_only: bool) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    if let Some(length @ 1..) = body.size_hint().exact()
        && head_only
        && may_have_body(parts.status)
    {
        parts
            .headers
            .entry(header::CONTENT_LENGTH)
            .or_insert(length.into());
    }
    body.leave_out();
    Response::from_parts(parts, Body::Empty)
}

/// Cookies may come in several fields; HTTP/1.1 knows one (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    if crumbs.nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

/// A client's request body whose next bytes must not take too long.
struct ClientBody {
    incoming: Incoming,
    limit: Duration,
    stall: Stall,
}

impl HttpBody for ClientBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.stall.progress();
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => {
                let limit = self.limit;
                let late = self.stall.poll(cx, limit);
                late.map(|()| Some(Err(Box::new(BodyTimeout) as BodyError)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Arriving for ClientBody {}

/// A response body whose client must take the next frame in time.
///
/// The library asks for a frame when the stream's window has room for it, so a body cannot notice
/// by itself that nobody asks. A client that opens no window would hold the target's connection
/// for ever; the connection's task looks after its bodies instead.
struct Watched(Rc<Held>);

/// What the task and the library share of one body.
struct Held {
    /// Taken away when the client does not read.
    body: RefCell<Option<Body>>,
    /// What is left of the last frame of the body.
    rest: RefCell<Bytes>,
    /// Since when a frame has been with the library.
    handed: Cell<Option<Instant>>,
}

impl Held {
    fn abandon(&self) {
        self.rest.take();
        if let Some(body) = self.body.take() {
            body.abandon();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The body itself may have given all there was.
        if !self.rest.get_mut().is_empty() {
            self.abandon();
        }
    }
}

/// The bodies under way on one connection.
#[derive(Clone, Default)]
struct Bodies(Rc<RefCell<Vec<Weak<Held>>>>);

impl Bodies {
    fn watch(&self, body: Body) -> Watched {
        let held = Rc::new(Held {
            body: RefCell::new(Some(body)),
            rest: RefCell::default(),
            handed: Cell::new(None),
        });
        self.0.borrow_mut().push(Rc::downgrade(&held));
        Watched(held)
    }

    /// Ends the bodies whose last frame was not taken for `limit`.
    fn end_stalled(&self, limit: Duration) {
        let now = clock::now();
        self.0.borrow_mut().retain(|held| {
            let Some(held) = held.upgrade() else {
                return false;
            };
            let stalled = held.handed.get().is_some_and(|since| now - since >= limit);
            if stalled {
                held.abandon();
            }
            !stalled
        });
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let held = &self.0;
        let mut body = held.body.borrow_mut();
        let Some(body) = &mut *body else {
            return Poll::Ready(Some(Err("the client does not read".into())));
        };
        held.handed.set(None);
        let mut rest = held.rest.borrow_mut();
        let polled = if rest.is_empty() {
            Pin::new(body).poll_frame(cx)
        } else {
            Poll::Ready(Some(Ok(Frame::data(rest.split_to(0)))))
        };
        let polled = polled.map_ok(|frame| match frame.into_data() {
            Ok(data) => {
                if !data.is_empty() {
                    *rest = data;
                }
                let slice = rest.len().min(SLICE_BYTES_MAX);
                Frame::data(rest.split_to(slice))
            }
            Err(frame) => frame,
        });
        if let Poll::Ready(Some(_)) = polled {
            held.handed.set(Some(clock::now()));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let body = self.0.body.borrow();
        self.0.rest.borrow().is_empty() && body.as_ref().is_some_and(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let body = self.0.body.borrow();
        let hint = body
            .as_ref()
            .map_or_else(SizeHint::default, HttpBody::size_hint);
        let rest = self.0.rest.borrow().len() as u64;
        hint.exact().map_or_else(SizeHint::default, |length| {
            SizeHint::with_exact(length + rest)
        })
    }
}

/// A connection whose first bytes have been looked at.
struct Rewound<S>(Wire<S>);

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Wire { stream, input } = &mut self.get_mut().0;
        if input.is_empty() {
            return Pin::new(stream).poll_read(cx, buf);
        }
        let here = input.len().min(buf.remaining());
        buf.put_slice(&input[..here]);
        input.advance(here);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0.stream).poll_shutdown(cx)
    }
}

/// Runs the streams of a connection on this worker.
#[derive(Clone, Copy, Debug)]
struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// The most that the library is given at a time: what it has taken it keeps, however long the
/// client leaves its window closed, and a client may have many streams.
const SLICE_BYTES_MAX: usize = 32 << 10;
/// How often the bodies of a connection are looked after.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Streams of one connection at a time.
const STREAMS_MAX: u32 = 256;
