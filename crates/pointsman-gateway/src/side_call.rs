//! Calls that the gateway makes for itself: for vectors, for access tokens.
//!
//! They go through the same port as every attempt, so they use the caller's pooled connections and
//! end when they are dropped. There is no verdict on where they go.

use std::{pin::pin, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use http::{Request, Response, Uri, header};
use pointsman_ai::Endpoint;
use pointsman_balance::{Algorithm, Ask, Availability, MemberSpec, Pool, Tried};

use crate::{
    body::{self, Body, CollectError},
    clock,
    failure::TransportFault,
    ports::{Attempt, BrokenBody, Source, Upstreams},
    upstream::destination::{Destination, Keepalive, Timeouts, Tls},
};

/// A place that is called.
pub struct SideCall {
    /// Of one member without checks: this call, too, needs the proof of a pick.
    pool: Arc<Pool>,
    destination: Arc<Destination>,
    timeout: Duration,
}

/// Why a body could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// More bytes than it may have.
    TooLarge,
    /// The connection failed.
    Transport(TransportFault),
}

impl SideCall {
    /// To `destination`; `timeout` is for a whole call.
    ///
    /// # Errors
    /// Never in practice: a pool of one member can always be built.
    pub fn new(destination: Destination, name: &str, timeout: Duration) -> Result<Self, String> {
        let member = MemberSpec {
            name: name.to_owned(),
            weight: 1,
            priority: 0,
            targets: vec![],
            gate: None,
        };
        let pool = Pool::new(vec![member], Algorithm::RoundRobin, 0);
        Ok(Self {
            pool: Arc::new(pool.map_err(|error| error.to_string())?),
            destination: Arc::new(destination),
            timeout,
        })
    }

    /// To where `url` points, and what stands in request lines there; `verify` its certificate, if it
    /// is over TLS.
    ///
    /// # Errors
    /// It is no such URL, and why; quotes nothing of it but a bad name.
    pub fn at(
        url: &str,
        verify: bool,
        name: &str,
        timeout: Duration,
    ) -> Result<(Self, Uri), String> {
        let endpoint = Endpoint::parse(url).map_err(|error| error.to_string())?;
        let tls = endpoint.is_https().then(|| Tls {
            server_name: endpoint.host().into(),
            verify,
            client: None,
        });
        let destination = Destination::new(endpoint.host(), endpoint.port(), tls)?;
        let uri = Uri::try_from(endpoint.target()).map_err(|error| error.to_string())?;
        Ok((Self::new(destination, name, timeout)?, uri))
    }

    /// `host:port`, as logs show it.
    pub fn address(&self) -> &str {
        &self.destination.address
    }

    /// What `Host` says.
    pub fn authority(&self) -> &str {
        self.destination.authority.to_str().unwrap_or_default()
    }

    /// Sends `request`, to which `Host` is added, and returns when the head of the answer is there.
    pub async fn send(
        &self,
        mut request: Request<Body>,
        upstreams: &dyn Upstreams,
    ) -> Result<Response<Body>, TransportFault> {
        let ask = Ask {
            key: None,
            now: Duration::ZERO,
            tried: &Tried::new(),
        };
        let picked = self.pool.pick(&ask, &Availability::empty());
        let host = self.destination.authority.clone();
        request.headers_mut().insert(header::HOST, host);
        let attempt = Attempt {
            // Its only member is always usable.
            picked: picked.map_err(|_| TransportFault::Connect)?,
            source: Source::Unjudged(Arc::clone(&self.pool)),
            destination: Arc::clone(&self.destination),
            addresses: Vec::new(),
            group: None,
            request,
            timeouts: Timeouts::all(self.timeout),
            keepalive: KEEPALIVE,
            upgrade: None,
        };
        let sent = upstreams.send(attempt).await;
        Ok(sent.map_err(|error| error.fault)?.response)
    }

    /// What `call` comes to; `None` if it takes longer than it may.
    pub async fn in_time<T>(
        &self,
        call: impl Future<Output = T>,
        upstreams: &dyn Upstreams,
    ) -> Option<T> {
        let mut call = pin!(call);
        let mut limit = upstreams.sleep_until(clock::now() + self.timeout);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(outcome) = call.as_mut().poll(cx) {
                return Poll::Ready(Some(outcome));
            }
            limit.as_mut().poll(cx).map(|()| None)
        })
        .await
    }
}

/// All of `body`, which may have `limit` bytes.
pub async fn read(mut body: Body, limit: u64) -> Result<Bytes, ReadError> {
    let bytes = body::collect(&mut body, None, limit).await;
    bytes.map_err(|error| match error {
        CollectError::TooLarge(_) => ReadError::TooLarge,
        CollectError::Broken(source) => ReadError::Transport(
            (source.downcast_ref::<BrokenBody>()).map_or(TransportFault::Closed, |broken| broken.0),
        ),
    })
}

const KEEPALIVE: Keepalive = Keepalive {
    pool_size: 30,
    idle: Duration::from_secs(60),
    requests: u64::MAX,
    after_errors: false,
};
