//! The client side: HTTP/1.1 and HTTP/2 on a connection, request by request to the gateway.

use std::{
    cell::Cell,
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
    upgrade::OnUpgrade,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use pointsman_gateway::{
    body::{Body, BodyError},
    exchange::{Peer, TlsPeer},
    failure::Failure,
    gateway::Gateway,
    ports::BodyTimeout,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::watch,
    time::Sleep,
};

use crate::guarded_io::{GuardedIo, HeadFlags};

/// Limits of a client's connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Until a whole head has arrived, an idle keep-alive connection included.
    pub(crate) head: Duration,
    /// Between two reads of a request's body.
    pub(crate) body: Duration,
    /// Without progress while writing.
    pub(crate) send: Duration,
    /// Bytes of a head.
    pub(crate) head_bytes: usize,
    /// Header lines.
    pub(crate) headers: usize,
}

/// Whether a connection speaks HTTP/1.1 or HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    Http1,
    Http2,
}

/// What a connection needs to know of the place that it came in at.
pub(crate) struct Connection {
    pub(crate) gateway: Rc<Gateway>,
    pub(crate) limits: Limits,
    pub(crate) client: SocketAddr,
    pub(crate) server: SocketAddr,
    pub(crate) tls: Option<TlsPeer>,
}

/// Serves one connection to its end, or until `drain` asks it to finish.
pub(crate) async fn serve<S>(
    stream: S,
    speaks: Speaks,
    connection: Connection,
    drain: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let client = connection.client;
    let ended = match speaks {
        Speaks::Http1 => serve_http1(stream, connection, drain).await,
        Speaks::Http2 => serve_http2(stream, connection, drain).await,
    };
    if let Err(error) = ended {
        tracing::debug!(%client, "connection ended: {error}");
    }
}

async fn serve_http1<S>(
    stream: S,
    connection: Connection,
    mut drain: watch::Receiver<bool>,
) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = GuardedIo::new(stream, connection.limits.send);
    let flags = io.flags();
    let limits = connection.limits;
    let connection = Rc::new(connection);
    let service = service_fn(move |request: Request<Incoming>| {
        let connection = Rc::clone(&connection);
        let flags = Arc::clone(&flags);
        async move { Ok::<_, Infallible>(answer(&connection, Some(&flags), request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_headers(limits.headers)
        .max_buf_size(limits.head_bytes.max(READ_BUFFER_BYTES))
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let mut serving = std::pin::pin!(serving);
    let mut draining = false;
    loop {
        tokio::select! {
            biased;
            result = serving.as_mut() => return result,
            _ = drain.wait_for(|drain| *drain), if !draining => {
                draining = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}

async fn serve_http2<S>(
    stream: S,
    connection: Connection,
    mut drain: watch::Receiver<bool>,
) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = connection.limits;
    let connection = Rc::new(connection);
    let service = service_fn(move |request: Request<Incoming>| {
        let connection = Rc::clone(&connection);
        async move { Ok::<_, Infallible>(answer(&connection, None, request).await) }
    });
    let serving = http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.head)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    let mut draining = false;
    loop {
        tokio::select! {
            biased;
            result = serving.as_mut() => return result,
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
    flags: Option<&HeadFlags>,
    mut request: Request<Incoming>,
) -> Response<Body> {
    if flags.is_some_and(HeadFlags::take_ambiguous) {
        return Failure::AmbiguousLength.response(None);
    }
    let upgrade = request
        .headers()
        .contains_key(header::UPGRADE)
        .then(|| hyper::upgrade::on(&mut request));
    let peer = Peer {
        client: connection.client,
        server: connection.server,
        tls: connection.tls.clone(),
    };
    let limit = connection.limits.body;
    let request = request.map(|incoming| {
        if incoming.is_end_stream() {
            Body::Empty
        } else {
            Body::Stream(Box::pin(ClientBody {
                incoming,
                limit,
                stalled: None,
            }))
        }
    });
    let mut response = connection.gateway.handle(request, peer).await;
    if let Some(flags) = flags {
        flags.expect_head();
    }
    if response.status() == http::StatusCode::SWITCHING_PROTOCOLS
        && let Some(client) = upgrade
    {
        join(client, &mut response);
    }
    response
}

/// Joins the two connections of a protocol switch; the exchange lives until one side closes.
fn join(client: OnUpgrade, response: &mut Response<Body>) {
    let upstream = hyper::upgrade::on(&mut *response);
    let body = std::mem::take(response.body_mut());
    tokio::task::spawn_local(async move {
        let Body::Relay(mut relay) = body else { return };
        let (client, upstream) = match tokio::try_join!(client, upstream) {
            Ok(both) => both,
            Err(error) => {
                tracing::warn!("protocol switch failed: {error}");
                return;
            }
        };
        let to_client = Cell::new(0);
        let (client_read, client_write) = tokio::io::split(TokioIo::new(client));
        let (upstream_read, upstream_write) = tokio::io::split(TokioIo::new(upstream));
        // When one side has said its last word the other is not kept waiting.
        let ended = tokio::select! {
            ended = pump(client_read, upstream_write, None) => ended,
            ended = pump(upstream_read, client_write, Some(&to_client)) => ended,
        };
        if let Err(error) = ended {
            tracing::debug!("tunnel ended: {error}");
        }
        relay.tunnel_ended(to_client.get());
    });
}

/// Copies until the reader ends; counts what was written.
async fn pump(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    count: Option<&Cell<u64>>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; TUNNEL_BUFFER_BYTES];
    loop {
        let read = reader.read(&mut buffer).await?;
        if read == 0 {
            return writer.shutdown().await;
        }
        writer.write_all(&buffer[..read]).await?;
        writer.flush().await?;
        if let Some(count) = count {
            count.set(count.get() + read as u64);
        }
    }
}

/// A client's request body whose next bytes must not take too long.
struct ClientBody {
    incoming: Incoming,
    limit: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
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
                self.stalled = None;
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => {
                let limit = self.limit;
                let timer = self
                    .stalled
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
                timer
                    .as_mut()
                    .poll(cx)
                    .map(|()| Some(Err(Box::new(BodyTimeout) as BodyError)))
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

/// Runs the streams of an HTTP/2 connection on this worker.
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

/// Read buffer of a connection, in bytes: large prompts arrive in few reads.
const READ_BUFFER_BYTES: usize = 256 << 10;
/// One direction of a joined connection, in bytes.
const TUNNEL_BUFFER_BYTES: usize = 16 << 10;
/// Streams of one HTTP/2 connection at a time.
const HTTP2_STREAMS_MAX: u32 = 256;
