//! The client side: a connection, request by request to the gateway.

mod http1;
mod http2;
mod tunnel;

use std::{net::SocketAddr, rc::Rc, time::Duration};

use http::StatusCode;
use pointsman_gateway::{
    exchange::{Peer, TlsPeer},
    gateway::Gateway,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};

use crate::http1::{head::HeadLimits, wire::Wire};

/// Limits of a client's connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Until a whole head has arrived, an idle keep-alive connection included.
    pub(crate) head: Duration,
    /// Between two reads of a request's body.
    pub(crate) body: Duration,
    /// Without progress while writing.
    pub(crate) send: Duration,
    /// Size of a head.
    pub(crate) heads: HeadLimits,
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

impl Connection {
    fn peer(&self) -> Peer {
        Peer {
            client: self.client,
            server: self.server,
            tls: self.tls.clone(),
        }
    }
}

/// Serves one connection to its end, or until `drain` asks it to finish.
pub(crate) async fn serve<S>(
    wire: Wire<S>,
    speaks: Speaks,
    connection: Connection,
    drain: watch::Receiver<bool>,
) where
    S: Abort + AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let client = connection.client;
    match speaks {
        Speaks::Http1 => http1::serve(wire, connection, drain).await,
        Speaks::Http2 => {
            if let Err(error) = http2::serve(wire, connection, drain).await {
                tracing::debug!(%client, "connection ended: {error}");
            }
        }
    }
}

/// Of the status alone (RFC 9110 §6.4.1).
fn may_have_body(status: StatusCode) -> bool {
    !status.is_informational()
        && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// A connection that can be ended so that its peer sees an error.
pub(crate) trait Abort {
    /// Whether the close that follows is a reset instead of an orderly end.
    fn reset_on_close(&self, reset: bool);
}

impl Abort for tokio::net::TcpStream {
    fn reset_on_close(&self, reset: bool) {
        let linger = reset.then_some(std::time::Duration::ZERO);
        // If it fails, the close is an orderly one, which most framings also show as broken.
        if let Err(error) = socket2::SockRef::from(self).set_linger(linger) {
            tracing::debug!("SO_LINGER: {error}");
        }
    }
}

impl Abort for tokio_rustls::server::TlsStream<tokio::net::TcpStream> {
    fn reset_on_close(&self, reset: bool) {
        self.get_ref().0.reset_on_close(reset);
    }
}
