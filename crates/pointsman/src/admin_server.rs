//! The listener of the Admin API, on the control thread.
//!
//! Who is turned away is turned away before the body is read; bodies, connections and time have
//! limits.

use std::{
    net::{SocketAddr, TcpListener as StdListener},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use pointsman_gateway::{
    admin,
    admin_api::{AdminApi, Ask, Context},
    clock,
    plugin::registry::Registry,
};
use tokio::{net::TcpListener, time::timeout};
use tokio_rustls::TlsAcceptor;

use crate::{
    config_source::Written,
    small_server::{self, Answers},
};

/// What the Admin API works on.
pub(crate) struct AdminServer {
    pub(crate) api: AdminApi,
    pub(crate) registry: Arc<Registry>,
    pub(crate) written: Written,
    /// `None` without TLS.
    pub(crate) tls: Option<TlsAcceptor>,
}

/// Starts the Admin API, if there is one, on its socket, and what keeps in order what it has
/// `written`.
pub(crate) fn start(
    server: Option<(AdminServer, StdListener)>,
    written: Written,
) -> Result<(), String> {
    if let Some((server, socket)) = server {
        let listener = TcpListener::from_std(socket).map_err(|error| error.to_string())?;
        let tls = server.tls.clone();
        tokio::task::spawn_local(small_server::serve(listener, tls, Rc::new(server)));
    }
    if let Written::Store(store) = written {
        tokio::task::spawn_local(store.keep());
    }
    Ok(())
}

impl Answers for AdminServer {
    const NAME: &'static str = "admin";
    const HEAD_LIMIT: Duration = Duration::from_secs(60);

    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Bytes> {
        let (head, body) = request.into_parts();
        let ask = Ask {
            method: &head.method,
            path: head.uri.path(),
            query: head.uri.query().unwrap_or_default(),
            headers: &head.headers,
            peer: peer.ip(),
        };
        if let Some(response) = self.api.admit(&ask) {
            return response;
        }
        let most = match &self.written {
            Written::Document(_) => DOCUMENT_BYTES_MAX,
            Written::Store(_) | Written::Nothing => BODY_BYTES_MAX,
        };
        let size = head.headers.get(header::CONTENT_LENGTH);
        let size: Option<u64> = size.and_then(|size| size.to_str().ok()?.parse().ok());
        if size.is_some_and(|size| size > most as u64) {
            return self.api.too_large(most as u64, size);
        }
        let body = match timeout(BODY_LIMIT, Limited::new(body, most).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                return self.api.too_large(most as u64, None);
            }
            Ok(Err(error)) => {
                let message = format!("invalid request body: {error}");
                return admin::error(http::StatusCode::BAD_REQUEST, message);
            }
            Err(_) => {
                let message = "invalid request body: it did not arrive in time";
                return admin::error(http::StatusCode::REQUEST_TIMEOUT, message);
            }
        };
        let env = |name: &str| std::env::var(name).ok();
        let context = Context {
            registry: &self.registry,
            env: &env,
            now_ms: clock::unix_millis(),
        };
        match &self.written {
            Written::Store(store) => self.api.answer(&ask, &body, &context, &**store).await,
            Written::Document(document) => {
                document.change(|held| self.api.answer_standalone(&ask, &body, &context, held))
            }
            Written::Nothing => {
                let message = "nothing can be written: configuration comes from a file";
                admin::error(http::StatusCode::NOT_FOUND, message)
            }
        }
    }
}

/// Of one resource, as in APISIX.
const BODY_BYTES_MAX: usize = 3 << 19;
/// Of a whole document, as of a file.
const DOCUMENT_BYTES_MAX: usize = 64 << 20;
const BODY_LIMIT: Duration = Duration::from_secs(60);
