//! One worker's connections to targets.
//!
//! A connection belongs to one request at a time and is driven inside that request's own task:
//! nothing is spawned, nothing is locked, no other thread is woken. While it is idle it waits in
//! the pool; before it is used again it is polled once, so that a peer that has closed it in the
//! meantime is noticed. Dropping a request, or the body of its response, drops the connection,
//! and the target sees the close at once.

mod connect;
mod exchange_io;
mod pool;
mod tls;

use std::{cell::RefCell, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use http::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use pointsman_gateway::{
    body::Body,
    clock,
    failure::TransportFault,
    ports::{Answer, Attempt, LocalFuture, SendError, Upstreams},
};

pub(crate) use self::{
    connect::{Dialer, Stream},
    tls::ClientTls,
};
use self::{
    exchange_io::{Driven, Watch},
    pool::Pool,
};

/// The HTTP/1.1 client of one worker.
pub(crate) struct HttpClient {
    dialer: Arc<Dialer>,
    pool: Rc<RefCell<Pool>>,
}

/// An open connection and what is known of it.
pub(crate) struct Connection {
    sender: http1::SendRequest<Body>,
    driver: http1::Connection<TokioIo<Stream>, Body>,
    address: SocketAddr,
    requests: u64,
}

impl HttpClient {
    /// A client without connections.
    pub(crate) fn new(dialer: Arc<Dialer>) -> Self {
        Self {
            dialer,
            pool: Rc::default(),
        }
    }

    /// Closes idle connections whose time is up or whose peer has gone. Call it now and then.
    pub(crate) fn sweep(&self) {
        self.pool.borrow_mut().sweep(clock::now());
    }

    async fn run(&self, attempt: Attempt) -> Result<Answer, SendError> {
        let mut request = attempt.request;
        let idle = self
            .pool
            .borrow_mut()
            .take(&attempt.destination, clock::now());
        let fresh = idle.is_none();
        let began = clock::now();
        let mut connection = match idle {
            Some(connection) => connection,
            None => match self
                .connect(&attempt.destination, attempt.timeouts.connect)
                .await
            {
                Ok(connection) => connection,
                Err(error) => {
                    return Err(SendError {
                        unsent: Some(request),
                        ..error
                    });
                }
            },
        };
        let connect_time = fresh.then(|| clock::now() - began);
        connection.requests += 1;
        strip_length(&mut request);
        if attempt.upgrade {
            return exchange_io::upgrade(connection, request, &attempt.timeouts, connect_time)
                .await;
        }
        let address = connection.address;
        let mut watch = Watch::new(attempt.timeouts.send, attempt.timeouts.read);
        let (response, connection) = exchange_io::request(connection, request, &mut watch).await?;
        let (parts, incoming) = response.into_parts();
        let keep = (attempt.keepalive.pool_size > 0
            && connection.requests < attempt.keepalive.requests)
            .then(|| pool::Return {
                pool: Rc::clone(&self.pool),
                destination: Arc::clone(&attempt.destination),
                keepalive: attempt.keepalive,
            });
        let body = Driven::new(incoming, connection, watch, keep);
        Ok(Answer {
            response: http::Response::from_parts(parts, Body::Stream(Box::pin(body))),
            address: Some(address),
            connect_time,
        })
    }

    async fn connect(
        &self,
        destination: &pointsman_gateway::upstream::destination::Destination,
        limit: Duration,
    ) -> Result<Connection, SendError> {
        let dialled = tokio::time::timeout(limit, self.dialer.dial(destination)).await;
        let (stream, address) = match dialled {
            Ok(result) => result?,
            Err(_) => {
                return Err(refused(
                    TransportFault::ConnectTimeout,
                    "no connection",
                    None,
                ));
            }
        };
        let handshake = http1::Builder::new()
            .max_headers(RESPONSE_HEADERS_MAX)
            .handshake::<_, Body>(TokioIo::new(stream))
            .await;
        let (sender, driver) = handshake
            .map_err(|error| refused(TransportFault::Connect, &error.to_string(), Some(address)))?;
        Ok(Connection {
            sender,
            driver,
            address,
            requests: 0,
        })
    }
}

impl Upstreams for HttpClient {
    fn send(&self, attempt: Attempt) -> LocalFuture<'_, Result<Answer, SendError>> {
        Box::pin(self.run(attempt))
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
    }
}

/// The body's own length is what counts; a length that came from the client could contradict it.
fn strip_length(request: &mut Request<Body>) {
    if matches!(request.body(), Body::Whole(_)) {
        request.headers_mut().remove(http::header::CONTENT_LENGTH);
    }
}

/// Header lines that a response may have.
const RESPONSE_HEADERS_MAX: usize = 200;
