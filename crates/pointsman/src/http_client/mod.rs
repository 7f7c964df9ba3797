//! One worker's connections to targets.
//!
//! A connection belongs to one request at a time and is driven inside that request's own task:
//! nothing is spawned, nothing is locked, no other thread is woken. While it is idle it waits in
//! the pool; before it is used again it is polled once, so that a peer that has closed it in the
//! meantime is noticed. Dropping a request, or the body of its response, drops the connection,
//! and the target sees the close at once.

mod connect;
mod flight;
mod pool;
mod sending;
mod tls;

use std::{
    cell::{Cell, RefCell},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body::Body as _;
use pointsman_gateway::{
    body::Body,
    clock,
    failure::TransportFault,
    ports::{Answer, Attempt, LocalFuture, SendError, Upstreams},
    upstream::destination::{Destination, Keepalive},
};

pub(crate) use self::{
    connect::{Dialer, Stream, fault_of, open_to_send},
    tls::ClientTls,
};
use self::{
    flight::{Flight, Lost, Received},
    pool::Pool,
    sending::Parcel,
};
use crate::background::Background;
use crate::http1::{
    alarm::Stall,
    decoder::Decoder,
    encode::{self, Encoding},
    head::ResponseHead,
    outgoing::{Outgoing, Output},
    reader::BodyReader,
    wire::Wire,
};

/// The HTTP/1.1 client of one worker.
pub(crate) struct HttpClient {
    dialer: Arc<Dialer>,
    pool: Rc<RefCell<Pool>>,
    /// Does what nobody waits for, where there is somebody who does.
    background: Option<Background>,
}

/// An open connection and what is known of it.
pub(crate) struct Connection {
    wire: Wire<Stream>,
    address: SocketAddr,
    requests: u64,
    /// How long nothing has moved. Its timer outlives a request: mostly it need not be set again.
    stall: Stall,
}

impl HttpClient {
    /// A client without connections.
    pub(crate) fn new(dialer: Arc<Dialer>) -> Self {
        Self {
            dialer,
            pool: Rc::default(),
            background: None,
        }
    }

    /// One that hands over to `background` what nobody waits for.
    pub(crate) fn with_background(mut self, background: Background) -> Self {
        self.background = Some(background);
        self
    }

    /// Closes idle connections whose time is up or whose peer has gone. Call it now and then.
    pub(crate) fn sweep(&self) {
        self.pool.borrow_mut().sweep(clock::now());
    }

    async fn run(&self, mut attempt: Attempt) -> Result<Answer, SendError> {
        let mut parcel = parcel(std::mem::take(&mut attempt.request));
        let began = clock::now();
        // How the request ended that is sent once more.
        let mut ended: Option<SendError> = None;
        loop {
            let obtained = self.obtain(&attempt, began, ended.is_none()).await;
            let (mut connection, connect_time) = match obtained {
                Ok(obtained) => obtained,
                Err(NoConnection::Overtaken) => {
                    return Err(ended.unwrap_or_else(|| overtaken(parcel)));
                }
                Err(NoConnection::Failed(error)) => {
                    return Err(Lost {
                        error,
                        parcel: Some(parcel),
                        silent: false,
                    }
                    .into_error());
                }
            };
            connection.requests += 1;
            // A target may close an idle connection in the very moment in which it is used.
            let again = match connect_time {
                None if is_idempotent(&parcel.method) => parcel.replay(),
                _ => None,
            };
            let flight = Flight::new(connection, parcel, attempt.timeouts);
            match flight.head().await {
                Ok((head, flight)) => {
                    let place = Place {
                        pool: &self.pool,
                        destination: attempt.destination,
                        keepalive: attempt.keepalive,
                        upgrade: attempt.upgrade,
                    };
                    return place.answer(head, flight, connect_time);
                }
                // The target had closed an idle connection: nothing has happened yet.
                Err(Lost {
                    parcel: Some(unsent),
                    ..
                }) if connect_time.is_none() => parcel = unsent,
                // It closed without a word, and asking twice does no harm; asking all idle
                // connections does, if it is the request that ends them.
                Err(lost) => match again.filter(|_| lost.silent) {
                    Some(again) => (parcel, ended) = (again, Some(lost.into_error())),
                    None => return Err(lost.into_error()),
                },
            }
        }
    }

    /// A connection to send over, idle if there is one that may be used, and how long it took to open it.
    /// Time may have passed since the pick, with whoever closed an idle connection before, while an access
    /// token was waited for, or in opening this one: it is used only if the newest verdicts allow it.
    async fn obtain(
        &self,
        attempt: &Attempt,
        began: Instant,
        may_be_idle: bool,
    ) -> Result<(Connection, Option<Duration>), NoConnection> {
        let first = attempt.addresses.first();
        let idle = may_be_idle.then(|| self.idle(&attempt.destination, first));
        let (connection, dialled) = match idle.flatten() {
            Some((connection, until)) => (connection, Dialled::Before { until }),
            None => self
                .connect(
                    &attempt.destination,
                    &attempt.addresses,
                    attempt.timeouts.connect,
                    may_be_idle,
                )
                .await
                .map_err(NoConnection::Failed)?,
        };
        if !attempt.holds(connection.address.ip()) {
            self.keep(attempt, connection, dialled);
            return Err(NoConnection::Overtaken);
        }
        let connect_time = match dialled {
            Dialled::Now => Some(clock::now() - began),
            Dialled::Before { .. } => None,
        };
        Ok((connection, connect_time))
    }

    /// Keeps a connection that nobody has used.
    fn keep(&self, attempt: &Attempt, connection: Connection, dialled: Dialled) {
        if attempt.keepalive.pool_size > 0 && !attempt.keepalive.idle.is_zero() {
            let destination = Arc::clone(&attempt.destination);
            let until = match dialled {
                Dialled::Now => clock::now() + attempt.keepalive.idle,
                Dialled::Before { until } => until,
            };
            let mut pool = self.pool.borrow_mut();
            pool.put(destination, attempt.keepalive, connection, until);
        }
    }

    fn idle(
        &self,
        destination: &Arc<Destination>,
        to: Option<&IpAddr>,
    ) -> Option<(Connection, Instant)> {
        let mut pool = self.pool.borrow_mut();
        pool.take(destination, to.copied(), clock::now())
    }

    /// A connection to the first of the addresses that takes one; an open one, if there is one to an
    /// address whose turn comes after another failed. They share one limit.
    async fn connect(
        &self,
        destination: &Arc<Destination>,
        addresses: &[IpAddr],
        limit: Duration,
        may_be_idle: bool,
    ) -> Result<(Connection, Dialled), SendError> {
        let at = Cell::new(None);
        let dial = async {
            let mut failure = None;
            for address in addresses {
                if failure.is_some()
                    && may_be_idle
                    && let Some((idle, until)) = self.idle(destination, Some(address))
                {
                    return Ok((idle, Dialled::Before { until }));
                }
                let to = SocketAddr::new(*address, destination.port);
                at.set(Some(to));
                match self.dialer.dial_at(destination, to).await {
                    Ok(stream) => return Ok((opened(stream, to), Dialled::Now)),
                    Err(error) if error.fault != TransportFault::Connect => return Err(error),
                    Err(error) => failure = Some(error),
                }
            }
            match failure {
                Some(error) => Err(error),
                None => {
                    let (stream, address) = self.dialer.dial(destination).await?;
                    Ok((opened(stream, address), Dialled::Now))
                }
            }
        };
        let dialled = tokio::time::timeout(limit, dial).await;
        dialled.unwrap_or_else(|_| {
            let fault = TransportFault::ConnectTimeout;
            Err(refused(fault, "no connection", at.get()))
        })
    }
}

/// The end of an attempt whose target fell before anything was sent.
fn overtaken(parcel: Parcel) -> SendError {
    let detail = "a newer verdict";
    Lost {
        error: refused(TransportFault::Overtaken, detail, None),
        parcel: Some(parcel),
        silent: false,
    }
    .into_error()
}

/// Why there is no connection to send over.
enum NoConnection {
    /// The target fell before anything was sent.
    Overtaken,
    Failed(SendError),
}

/// When a connection was opened.
#[derive(Clone, Copy)]
enum Dialled {
    Now,
    /// And may be kept until then.
    Before {
        until: Instant,
    },
}

fn opened(stream: Stream, address: SocketAddr) -> Connection {
    Connection {
        wire: Wire::new(stream, Bytes::new()),
        address,
        requests: 0,
        stall: Stall::since(clock::now()),
    }
}

/// What decides on a connection after its response's head.
struct Place<'a> {
    pool: &'a Rc<RefCell<Pool>>,
    destination: Arc<Destination>,
    keepalive: Keepalive,
    /// A protocol switch was asked for, and how long nothing may move after it.
    upgrade: Option<Duration>,
}

impl Place<'_> {
    fn answer(
        self,
        head: ResponseHead,
        flight: Flight,
        connect_time: Option<Duration>,
    ) -> Result<Answer, SendError> {
        let address = flight.address();
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            let Some(idle) = self.upgrade else {
                let what = "101, but no other protocol was asked for";
                return Err(refused(TransportFault::Malformed, what, Some(address)));
            };
            if !flight.is_sent() {
                let what = "101 before the request was complete";
                return Err(refused(TransportFault::Malformed, what, Some(address)));
            }
            let switched = Switched::new(flight.into_wire(), idle);
            response.extensions_mut().insert(switched);
        } else {
            let keepalive = Keepalive {
                idle: self.keepalive.idle.min(idle_of(response.headers())),
                ..self.keepalive
            };
            let is_error =
                head.status == StatusCode::TOO_MANY_REQUESTS || head.status.is_server_error();
            let reusable = head.keep_alive
                && (keepalive.after_errors || !is_error)
                && keepalive.pool_size > 0
                && !keepalive.idle.is_zero()
                && flight.requests() < keepalive.requests;
            let keep = reusable.then(|| pool::Return {
                pool: Rc::clone(self.pool),
                destination: self.destination,
                keepalive,
            });
            let reader = BodyReader::new(head.body.unwrap_or(Decoder::Length(0)));
            let received = Received::new(flight, reader, keep);
            if !received.is_end_stream() {
                *response.body_mut() = Body::Stream(Box::pin(received));
            }
        }
        Ok(Answer {
            response,
            address: Some(address),
            connect_time,
        })
    }
}

/// How long the target says that it keeps an idle connection, less a second: a request that
/// meets the close on its way is lost.
fn idle_of(headers: &HeaderMap) -> Duration {
    let Some(value) = headers.get("keep-alive") else {
        return Duration::MAX;
    };
    let seconds = value.to_str().ok().and_then(|value| {
        let named = |part: &str| {
            let (name, number) = part.split_once('=')?;
            let is_timeout = name.trim().eq_ignore_ascii_case("timeout");
            is_timeout.then(|| number.trim().parse::<u64>().ok())?
        };
        value.split(',').find_map(named)
    });
    seconds.map_or(Duration::MAX, |seconds| {
        Duration::from_secs(seconds.saturating_sub(1))
    })
}

/// Whether asking twice is as good as once (RFC 9110 §9.2.2).
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
    )
}

/// The connection behind a `101`, for whoever joins it with the client's.
#[derive(Clone)]
pub(crate) struct Switched {
    wire: Arc<Mutex<Option<Wire<Stream>>>>,
    idle: Duration,
}

impl Switched {
    fn new(wire: Wire<Stream>, idle: Duration) -> Self {
        Self {
            wire: Arc::new(Mutex::new(Some(wire))),
            idle,
        }
    }

    /// The connection, once, and for how long it may be silent.
    pub(crate) fn take(&self) -> Option<(Wire<Stream>, Duration)> {
        let mut wire = self
            .wire
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        Some((wire.take()?, self.idle))
    }
}

/// `request`, encoded.
fn parcel(request: http::Request<Body>) -> Parcel {
    let (head, body) = request.into_parts();
    let encoding = match body.size_hint().exact() {
        // Where a body is usual, its absence is told (RFC 9110 §8.6).
        Some(0) if matches!(head.method, Method::POST | Method::PUT | Method::PATCH) => {
            Encoding::Length(0)
        }
        Some(0) => Encoding::UntilClose,
        Some(length) => Encoding::Length(length),
        None => Encoding::Chunked,
    };
    let mut output = Output::default();
    output.write(|out| {
        out.reserve(HEAD_BYTES_USUAL);
        encode::request(out, &head.method, &head.uri, &head.headers, encoding);
    });
    Parcel {
        method: head.method,
        output,
        body: Outgoing::new(body, encoding),
    }
}

impl Upstreams for HttpClient {
    fn send(&self, attempt: Attempt) -> LocalFuture<'_, Result<Answer, SendError>> {
        Box::pin(self.run(attempt))
    }

    fn sleep_until(&self, due: Instant) -> LocalFuture<'static, ()> {
        Box::pin(tokio::time::sleep_until(due.into()))
    }

    fn detach(&self, work: LocalFuture<'static, ()>) -> bool {
        let background = self.background.as_ref();
        background.is_some_and(|background| background.add(work))
    }
}

/// An error of an attempt of which nothing was sent.
pub(crate) fn refused(
    fault: TransportFault,
    detail: &str,
    address: Option<SocketAddr>,
) -> SendError {
    SendError {
        fault,
        detail: detail.to_owned(),
        address,
        unsent: None,
        client: None,
    }
}

/// Bytes that the head of a request to a target usually stays below, with a small prompt.
///
/// The allocator is quick up to 1 KiB.
const HEAD_BYTES_USUAL: usize = 1000;
