//! Opening connections: resolve, dial, secure.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
};

use pointsman_gateway::{
    failure::TransportFault,
    ports::SendError,
    upstream::destination::{Destination, Tls},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::client::TlsStream;

use super::{refused, tls::ClientTls};
use crate::dns::Resolver;

/// Opens connections to targets; shared by the workers and the prober.
pub(crate) struct Dialer {
    resolver: Resolver,
    tls: std::sync::Arc<ClientTls>,
}

/// A connection, plain or over TLS.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Dialer {
    /// A dialer that resolves with `resolver` and trusts the roots of `tls`.
    pub(crate) fn new(resolver: Resolver, tls: std::sync::Arc<ClientTls>) -> Self {
        Self { resolver, tls }
    }

    /// A connection to `destination`, ready for HTTP. The caller limits the time.
    pub(crate) async fn dial(
        &self,
        destination: &Destination,
    ) -> Result<(Stream, SocketAddr), SendError> {
        let (tcp, address) = self.connect(&destination.host, destination.port).await?;
        Ok((self.ready(destination, tcp, address).await?, address))
    }

    /// The same at one of the addresses of its name.
    pub(crate) async fn dial_at(
        &self,
        destination: &Destination,
        address: SocketAddr,
    ) -> Result<Stream, SendError> {
        let tcp = open(address)
            .await
            .map_err(|error| refused(fault_of(&error), &error.to_string(), Some(address)))?;
        self.ready(destination, tcp, address).await
    }

    async fn ready(
        &self,
        destination: &Destination,
        tcp: TcpStream,
        address: SocketAddr,
    ) -> Result<Stream, SendError> {
        match &destination.tls {
            Some(tls) => self.secure(tcp, address, tls).await,
            None => Ok(Stream::Plain(tcp)),
        }
    }

    /// `tcp`, connected to `address`, over TLS.
    pub(crate) async fn secure(
        &self,
        tcp: TcpStream,
        address: SocketAddr,
        tls: &Tls,
    ) -> Result<Stream, SendError> {
        let failed = |error: &str| refused(TransportFault::Tls, error, Some(address));
        let connector = self.tls.connector(tls).map_err(|error| failed(&error))?;
        let name = ClientTls::server_name(&tls.server_name).map_err(|error| failed(&error))?;
        match connector.connect(name, tcp).await {
            Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
            Err(error) => Err(failed(&error.to_string())),
        }
    }

    /// The addresses of `host`.
    pub(crate) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, SendError> {
        match host.parse::<IpAddr>() {
            Ok(address) => Ok(vec![address]),
            Err(_) => self
                .resolver
                .look_up(host)
                .await
                .map_err(|error| refused(TransportFault::Dns, &error, None)),
        }
    }

    /// A TCP connection to the first address of `host` that accepts one.
    pub(crate) async fn connect(
        &self,
        host: &str,
        port: u16,
    ) -> Result<(TcpStream, SocketAddr), SendError> {
        let mut last = None;
        for address in self.addresses(host).await? {
            let address = SocketAddr::new(address, port);
            match open(address).await {
                Ok(stream) => return Ok((stream, address)),
                Err(error) => last = Some((address, error)),
            }
        }
        Err(match last {
            Some((address, error)) => refused(fault_of(&error), &error.to_string(), Some(address)),
            None => refused(TransportFault::Dns, "the name has no address", None),
        })
    }
}

/// What it means that a connection could not be made.
pub(crate) fn fault_of(error: &io::Error) -> TransportFault {
    // EMFILE and ENFILE are the same on all systems that this runs on, ENOBUFS is not.
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    const ENOBUFS: i32 = if cfg!(target_os = "linux") { 105 } else { 55 };
    let is_ours = matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory
    );
    match error.raw_os_error() {
        Some(EMFILE | ENFILE | ENOBUFS) => TransportFault::Exhausted,
        _ if is_ours => TransportFault::Exhausted,
        _ => TransportFault::Connect,
    }
}

/// A TCP connection to `address` whose owner sends at once, or closes it: the acknowledgement that
/// completes the handshake rides on that (tcp(7), `TCP_QUICKACK`), one packet less on the wire and in
/// both kernels. Without `TCP_NODELAY`, which a single write does not need.
pub(crate) async fn open_to_send(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    #[cfg(target_os = "linux")]
    if let Err(error) = socket2::SockRef::from(&socket).set_tcp_quickack(false) {
        tracing::debug!(%address, "TCP_QUICKACK: {error}");
    }
    socket.connect(address).await
}

async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // Requests are written whole; waiting to fill a segment only adds delay.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%address, "TCP_NODELAY: {error}");
    }
    Ok(stream)
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What we lack is not the target's fault, whose health it would decide about.
    #[test]
    fn what_we_lack_is_told_apart() {
        let fault = |code| fault_of(&io::Error::from_raw_os_error(code));
        for (name, code) in [("EMFILE", 24), ("ENFILE", 23), ("ENOMEM", 12)] {
            assert_eq!(fault(code), TransportFault::Exhausted, "{name}");
        }
        #[cfg(target_os = "linux")]
        for (name, code) in [("ENOBUFS", 105), ("EADDRNOTAVAIL", 99)] {
            assert_eq!(fault(code), TransportFault::Exhausted, "{name}");
        }
        #[cfg(target_os = "linux")]
        for (name, code) in [("ECONNREFUSED", 111), ("EHOSTUNREACH", 113)] {
            assert_eq!(fault(code), TransportFault::Connect, "{name}");
        }
    }
}
