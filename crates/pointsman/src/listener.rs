//! Listening sockets and the connections that come in at them.
//!
//! Every worker has a socket of its own for every address (`SO_REUSEPORT`), so the kernel spreads
//! connections and no worker hands one to another. The sockets are bound before the workers
//! start: an address that is taken is one clear line and an exit, not half a start.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    net::{SocketAddr, TcpListener as StdListener},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use pointsman_gateway::{gateway::Gateway, observe::metrics::Shard};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};

use crate::{
    http_server::{self, Connection, Limits, Speaks},
    http1::wire::Wire,
    tls::ServerTls,
};

/// One address to listen on.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub(crate) address: SocketAddr,
    /// Terminates TLS.
    pub(crate) tls: bool,
}

/// The sockets of one address, one per worker.
pub(crate) struct Bound {
    /// The address as bound: the port is known even if the system chose it.
    pub(crate) address: SocketAddr,
    pub(crate) tls: bool,
    pub(crate) sockets: Vec<StdListener>,
}

/// Binds `address` once per worker.
pub(crate) fn bind(address: &Address, workers: usize) -> Result<Bound, String> {
    let describe = |error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => " (another program listens there)",
            io::ErrorKind::PermissionDenied => " (ports below 1024 need CAP_NET_BIND_SERVICE)",
            io::ErrorKind::AddrNotAvailable => " (no interface of this machine has that address)",
            _ => "",
        };
        format!("cannot listen on {}: {error}{hint}", address.address)
    };
    // With SO_REUSEPORT alone a second gateway would quietly take half of the connections.
    let probe = socket(address.address, Share::No).map_err(describe)?;
    let actual = probe.local_addr().map_err(describe)?;
    drop(probe);
    let sockets = (0..workers)
        .map(|_| socket(actual, Share::Yes).map_err(describe))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Bound {
        address: actual,
        tls: address.tls,
        sockets,
    })
}

/// Binds a socket that only the control thread uses.
pub(crate) fn bind_one(address: SocketAddr) -> Result<StdListener, String> {
    let bound = bind(
        &Address {
            address,
            tls: false,
        },
        1,
    )?;
    bound
        .sockets
        .into_iter()
        .next()
        .ok_or_else(|| format!("cannot listen on {address}"))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Share {
    Yes,
    No,
}

fn socket(address: SocketAddr, share: Share) -> io::Result<StdListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    if share == Share::Yes {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What one worker's accept loops share.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) gateway: Rc<Gateway>,
    pub(crate) limits: Limits,
    pub(crate) http2: bool,
    pub(crate) tls: Arc<ServerTls>,
    /// Turns true when the program drains.
    pub(crate) drain: watch::Receiver<bool>,
    /// Held by every connection; the worker ends when all are gone.
    pub(crate) alive: mpsc::Sender<()>,
    pub(crate) places: Places,
}

/// Accepts connections until the program drains.
pub(crate) async fn accept(listener: TcpListener, tls: bool, mut door: Door) {
    let server = listener
        .local_addr()
        .unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
    let mut drain = door.drain.clone();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = drain.wait_for(|drain| *drain) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, client)) => open(stream, client, server, tls, &mut door),
            Err(error) => {
                // Out of file descriptors: accepting at once again would only spin.
                tracing::error!("accept: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn open(stream: TcpStream, client: SocketAddr, server: SocketAddr, tls: bool, door: &mut Door) {
    let metrics = door.gateway.metrics();
    metrics.connection_accepted();
    let Some(place) = door.places.take(metrics) else {
        tracing::warn!(%client, "connection refused: pointsman.max_connections is reached");
        return;
    };
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%client, "TCP_NODELAY: {error}");
    }
    let door = door.clone();
    tokio::task::spawn_local(async move {
        let alive = door.alive.clone();
        if tls {
            secure(stream, client, server, door).await;
        } else {
            plain(stream, client, server, door).await;
        }
        drop((alive, place));
    });
}

/// The connections that a worker may have at a time.
#[derive(Clone)]
pub(crate) struct Places {
    taken: Rc<Cell<usize>>,
    max: usize,
}

/// The place of one connection, counted as open as long as this lives.
struct Place {
    taken: Rc<Cell<usize>>,
    metrics: Arc<Shard>,
}

impl Places {
    /// Places for `max` connections.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            taken: Rc::default(),
            max,
        }
    }

    fn take(&self, metrics: &Arc<Shard>) -> Option<Place> {
        if self.taken.get() >= self.max {
            return None;
        }
        self.taken.set(self.taken.get() + 1);
        metrics.connection_opened();
        Some(Place {
            taken: Rc::clone(&self.taken),
            metrics: Arc::clone(metrics),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.set(self.taken.get() - 1);
        self.metrics.connection_closed();
    }
}

async fn plain(stream: TcpStream, client: SocketAddr, server: SocketAddr, door: Door) {
    let mut wire = Wire::new(stream, Bytes::new());
    let speaks = if door.http2 {
        let mut drain = door.drain.clone();
        tokio::select! {
            biased;
            // A connection that has not said a word yet has nothing to finish.
            _ = drain.wait_for(|drain| *drain) => return,
            first = tokio::time::timeout(door.limits.head, prior_knowledge(&mut wire)) => match first {
                Ok(Some(speaks)) => speaks,
                Ok(None) | Err(_) => return,
            },
        }
    } else {
        Speaks::Http1
    };
    let connection = Connection {
        gateway: door.gateway,
        limits: door.limits,
        client,
        server,
        tls: None,
    };
    http_server::serve(wire, speaks, connection, door.drain).await;
}

async fn secure(stream: TcpStream, client: SocketAddr, server: SocketAddr, door: Door) {
    let handshake = tokio::time::timeout(HANDSHAKE_LIMIT, door.tls.accept(stream)).await;
    let (stream, peer, speaks) = match handshake {
        Ok(Ok(done)) => done,
        Ok(Err(error)) => {
            tracing::info!(%client, "TLS handshake failed: {error}");
            return;
        }
        Err(_) => {
            tracing::info!(%client, "TLS handshake took too long");
            return;
        }
    };
    let connection = Connection {
        gateway: door.gateway,
        limits: door.limits,
        client,
        server,
        tls: Some(peer),
    };
    http_server::serve(
        Wire::new(stream, Bytes::new()),
        speaks,
        connection,
        door.drain,
    )
    .await;
}

/// Reads until it is clear whether the client starts with the HTTP/2 preface. `None`: it left.
async fn prior_knowledge(wire: &mut Wire<TcpStream>) -> Option<Speaks> {
    loop {
        let seen = wire.input.len().min(HTTP2_PREFACE.len());
        if wire.input[..seen] != HTTP2_PREFACE[..seen] {
            return Some(Speaks::Http1);
        }
        if seen == HTTP2_PREFACE.len() {
            return Some(Speaks::Http2);
        }
        match poll_fn(|cx| wire.poll_fill(cx)).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return None,
        }
    }
}

/// What no HTTP/1.1 request line can start with.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0";
/// Connections that the kernel may hold for us.
const BACKLOG: i32 = 1024;
/// After a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// For the TLS handshake of a client.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
