//! One call to an identity provider, whose answer is a JSON object.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use serde_json::Value;

use crate::{
    body::Body,
    failure::TransportFault,
    ports::Upstreams,
    side_call::{self, ReadError, SideCall},
};

/// A place at an identity provider.
pub(super) struct Place {
    what: &'static str,
    call: SideCall,
    uri: Uri,
}

/// Why there is no answer. Says nothing of what was sent or received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CallError {
    what: &'static str,
    why: Why,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Timeout,
    Transport(TransportFault),
    Status(StatusCode),
    TooLarge,
    Unreadable,
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = self.what;
        match self.why {
            Why::Timeout => write!(f, "the {what} took too long"),
            Why::Transport(fault) => write!(f, "the {what}: {}", fault.as_str()),
            Why::Status(status) => write!(f, "the {what} answered {}", status.as_u16()),
            Why::TooLarge => write!(f, "the {what} answered too much"),
            Why::Unreadable => write!(f, "the {what} answered something else than expected"),
        }
    }
}

impl Place {
    /// Where `url` points; `what` it is called in errors.
    ///
    /// # Errors
    /// It is no URL that can be called.
    pub(super) fn new(
        what: &'static str,
        url: &str,
        verify: bool,
        timeout: Duration,
    ) -> Result<Self, String> {
        let (call, uri) = SideCall::at(url, verify, what, timeout)?;
        Ok(Self { what, call, uri })
    }

    /// `host:port`, as logs show it.
    pub(super) fn address(&self) -> &str {
        self.call.address()
    }

    /// The answer to a `GET`.
    pub(super) async fn get(&self, upstreams: &dyn Upstreams) -> Result<Value, CallError> {
        let request = self.request(Method::GET, Body::whole(Bytes::new()));
        self.perform(request, DOCUMENT_BYTES_MAX, upstreams).await
    }

    /// The answer to `form` and `headers`, posted.
    pub(super) async fn post(
        &self,
        form: String,
        headers: HeaderMap,
        upstreams: &dyn Upstreams,
    ) -> Result<Value, CallError> {
        let mut request = self.request(Method::POST, Body::whole(Bytes::from(form)));
        request.headers_mut().extend(headers);
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(header::CONTENT_TYPE, kind);
        self.perform(request, ANSWER_BYTES_MAX, upstreams).await
    }

    /// The error of an answer that is JSON, but not what it should be.
    pub(super) fn unreadable(&self) -> CallError {
        self.error(Why::Unreadable)
    }

    fn request(&self, method: Method, body: Body) -> Request<Body> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = self.uri.clone();
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::ACCEPT, json);
        request
    }

    async fn perform(
        &self,
        request: Request<Body>,
        limit: u64,
        upstreams: &dyn Upstreams,
    ) -> Result<Value, CallError> {
        let call = async {
            let sent = self.call.send(request, upstreams).await;
            let (head, body) = sent.map_err(Why::Transport)?.into_parts();
            if head.status != StatusCode::OK {
                return Err(Why::Status(head.status));
            }
            let bytes = side_call::read(body, limit).await;
            let bytes = bytes.map_err(|error| match error {
                ReadError::TooLarge => Why::TooLarge,
                ReadError::Transport(fault) => Why::Transport(fault),
            })?;
            serde_json::from_slice(&bytes).map_err(|_| Why::Unreadable)
        };
        let outcome = self.call.in_time(call, upstreams).await;
        outcome
            .unwrap_or(Err(Why::Timeout))
            .map_err(|why| self.error(why))
    }

    fn error(&self, why: Why) -> CallError {
        CallError {
            what: self.what,
            why,
        }
    }
}

impl CallError {
    /// Somebody else has been at it for longer than it may take.
    pub(super) const fn late(what: &'static str) -> Self {
        Self {
            what,
            why: Why::Timeout,
        }
    }
}

/// Of a discovery document or a JWK Set.
const DOCUMENT_BYTES_MAX: u64 = 256 << 10;
/// Of what is said of one token.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
