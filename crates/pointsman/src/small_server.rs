//! HTTP/1.1 for the servers beside the proxy, on the control thread: few clients, whole answers, limits on
//! connections and on how long a head may take.

use std::{convert::Infallible, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

/// Who answers.
pub(crate) trait Answers: 'static {
    /// What the log calls the server.
    const NAME: &'static str;
    /// For a head, the first and each further one.
    const HEAD_LIMIT: Duration;

    /// Answers a request from `peer`.
    fn answer(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> impl Future<Output = Response<Bytes>>;
}

/// Serves whoever connects, over TLS if there is an `acceptor`, as long as the program goes on. Those
/// beyond the limit wait.
pub(crate) async fn serve<A: Answers>(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    server: Rc<A>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::error!("accept: {error}");
                // Most likely there are no descriptors: at once there would be none, either.
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let server = Rc::clone(&server);
        let acceptor = acceptor.clone();
        tokio::task::spawn_local(async move {
            match acceptor {
                None => answer_all(stream, peer, server).await,
                Some(acceptor) => match timeout(HANDSHAKE_LIMIT, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => answer_all(stream, peer, server).await,
                    Ok(Err(error)) => {
                        tracing::info!(%peer, "{}: TLS handshake failed: {error}", A::NAME);
                    }
                    Err(_) => tracing::info!(%peer, "{}: TLS handshake took too long", A::NAME),
                },
            }
            drop(place);
        });
    }
}

/// Answers what comes from `peer` over `stream`, to its end.
async fn answer_all<A: Answers, S>(stream: S, peer: SocketAddr, server: Rc<A>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let server = Rc::clone(&server);
        async move {
            let response = server.answer(request, peer).await;
            Ok::<_, Infallible>(response.map(Full::new))
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(A::HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = serving.await {
        tracing::debug!("{}: {error}", A::NAME);
    }
}

const CONNECTIONS_MAX: usize = 256;
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
