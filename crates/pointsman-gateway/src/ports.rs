//! What the outside must provide.
//!
//! This crate opens no socket, spawns no task and writes no file. The program hands it these
//! ports; tests hand it scripted ones.

mod counters;
mod sink;

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use pointsman_balance::{Availability, Picked, Pool, TargetId};

use crate::{
    body::{Body, BodyError},
    config::snapshot::PoolRef,
    failure::TransportFault,
    gateway::Gateway,
    upstream::destination::{Destination, Keepalive, Timeouts},
};

pub use self::counters::{Counters, Unanswered};
pub use self::sink::{
    Batched, Batching, HttpWire, Join, Parcel, Sink, SinkSpec, Sinks, TcpWire, UdpWire, Wire,
};

/// A future that stays on its worker's thread.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Sends requests to targets. One per worker; owns that worker's connections.
pub trait Upstreams {
    /// Sends one attempt and returns once the response's head has arrived.
    ///
    /// Dropping the future, or later the response's body, closes the connection at once. The
    /// body yields errors whose source is a [`TransportFault`] via [`BrokenBody`].
    fn send(&self, attempt: Attempt) -> LocalFuture<'_, Result<Answer, SendError>>;

    /// Ends when `due` has come.
    fn sleep_until(&self, due: Instant) -> LocalFuture<'static, ()>;

    /// Has `work` done beside everything else, for which nobody waits. Returns whether it will be: not
    /// if there is too much of it, or nobody who would do it.
    fn detach(&self, work: LocalFuture<'static, ()>) -> bool {
        drop(work);
        false
    }
}

/// Signs with RSA (PKCS #1 v1.5) over SHA-256: key as PEM, then what is signed. Says why it cannot,
/// and quotes nothing.
pub type SignRs256 = fn(&str, &[u8]) -> Result<Vec<u8>, &'static str>;

/// One request to one target.
///
/// `picked` is the proof that a pick against the current verdicts chose the target: nothing can
/// be sent without one.
pub struct Attempt {
    /// The pick that this attempt carries out.
    pub picked: Picked,
    /// What that pick can be looked at by once more.
    pub source: Source,
    /// Where to connect and how.
    pub destination: Arc<Destination>,
    /// The addresses of the destination's name that may be dialled, the first first; the others if that
    /// takes no connection. Empty if the destination is an address, or its name has not been resolved
    /// so far.
    pub addresses: Vec<IpAddr>,
    /// Where these come from.
    pub group: Option<TargetId>,
    /// What to send. The URI is in origin form; `Host` is set.
    pub request: http::Request<Body>,
    /// Limits for connecting, sending and each read.
    pub timeouts: Timeouts,
    /// Whether and how the connection may be used again.
    pub keepalive: Keepalive,
    /// The request asks for a protocol switch (WebSocket) and may get one, in which nothing may move for so
    /// long.
    pub upgrade: Option<Duration>,
}

impl Attempt {
    /// Whether the target would still be picked, and `ip`, at which it was reached, be dialled. To be
    /// asked once more when time has passed and nothing has been sent yet; if not, the attempt ends
    /// in [`TransportFault::Overtaken`].
    pub fn holds(&self, ip: IpAddr) -> bool {
        match &self.source {
            Source::Judged { pool, gateway } => {
                let availability = gateway.availability();
                let is_listed = self
                    .group
                    .is_none_or(|group| availability.may_dial(group, ip));
                // Since the pick, the last usable one has fallen; and then nobody is to be asked.
                let is_refused = pool.rejects()
                    && !self.picked.failed_open()
                    && !pool.pool().any_usable(&availability);
                is_listed && !is_refused && pool.pool().holds(&self.picked, &availability)
            }
            Source::Unjudged(pool) => pool.holds(&self.picked, &Availability::empty()),
        }
    }
}

/// Where a pick came from.
pub enum Source {
    /// A pool whose members have verdicts.
    Judged {
        /// It.
        pool: PoolRef,
        /// Who knows the newest verdicts.
        gateway: Rc<Gateway>,
    },
    /// A pool without checks, such as that of an embeddings endpoint: there is no verdict on its members.
    Unjudged(Arc<Pool>),
}

/// The head of a target's response, its body and what is known of the transfer.
pub struct Answer {
    /// Status, headers and body. After a 101 the body is empty and the extensions hold what the
    /// program needs to join the two connections.
    pub response: http::Response<Body>,
    /// The address that was dialled.
    pub address: Option<SocketAddr>,
    /// Time to connect, TLS included; `None` on a connection that was open already.
    pub connect_time: Option<Duration>,
}

/// An attempt without a response head.
#[derive(Debug)]
pub struct SendError {
    /// What went wrong.
    pub fault: TransportFault,
    /// Detail for the log; holds no secret.
    pub detail: String,
    /// The address that was dialled, if it came to that.
    pub address: Option<SocketAddr>,
    /// Set if nothing of the request can have reached the target: its body, to be sent again if
    /// it was a stream.
    pub unsent: Option<Body>,
    /// The client's body broke off while it was passed on: the fault is not the target's.
    pub client: Option<BodyError>,
}

/// The error of a response body that broke off.
#[derive(Debug)]
pub struct BrokenBody(pub TransportFault);

impl std::fmt::Display for BrokenBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl std::error::Error for BrokenBody {}

/// The error of a response that ended because the client broke off its own request.
#[derive(Debug)]
pub struct ClientBroke(pub BodyError);

impl std::fmt::Display for ClientBroke {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the client's request broke off: {}", self.0)
    }
}

impl std::error::Error for ClientBroke {}

/// The error of a request body whose next bytes did not arrive in time.
#[derive(Debug)]
pub struct BodyTimeout;

impl std::fmt::Display for BodyTimeout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the request body did not arrive in time")
    }
}

impl std::error::Error for BodyTimeout {}
