//! Every way a request can fail, whose fault it is, and the status the client sees.
//!
//! A failure is a value until the very end; only here does it become a status and a body. The
//! statuses are those of APISIX 3.18; where APISIX answers with the web server's HTML page, the
//! client of an LLM route gets an error object in its own protocol instead.

use std::fmt;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use pointsman_ai::{Protocol, StreamError};

use crate::body::Body;

/// Who caused a failure. Log level and health follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The request was wrong.
    Client,
    /// Our configuration or our limits.
    Gateway,
    /// The target did not answer, or not properly.
    Upstream,
}

/// What went wrong between us and a target, before an answer was complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportFault {
    /// The name could not be resolved.
    Dns,
    /// The connection was refused or could not be made.
    Connect,
    /// There was no descriptor, port or memory left for a connection: nobody's fault but ours.
    Exhausted,
    /// The TLS handshake failed, certificate verification included.
    Tls,
    /// No connection within the limit.
    ConnectTimeout,
    /// No progress on the connection within the limit.
    ReadTimeout,
    /// The peer closed or reset the connection before an answer was complete.
    Closed,
    /// What arrived is not HTTP.
    Malformed,
    /// While the connection was made, it became known that the target should not be used. Nothing
    /// was sent, and nobody is told: another target is picked.
    Overtaken,
}

impl TransportFault {
    /// Whether time ran out (504), as opposed to anything else.
    pub fn is_timeout(self) -> bool {
        matches!(self, Self::ConnectTimeout | Self::ReadTimeout)
    }

    /// A short name for logs and error codes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "upstream name could not be resolved",
            Self::Connect => "upstream connection refused",
            Self::Exhausted => {
                "the gateway has no descriptor, port or memory for another connection"
            }
            Self::Tls => "upstream TLS handshake failed",
            Self::ConnectTimeout => "upstream connection timed out",
            Self::ReadTimeout => "upstream timed out",
            Self::Closed => "upstream closed the connection before its response was complete",
            Self::Malformed => "upstream response is not valid HTTP",
            Self::Overtaken => "upstream became unhealthy before the request was sent",
        }
    }
}

/// Why a request got no answer from a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No route matches.
    NoRoute,
    /// The route names a service that does not exist.
    ServiceMissing,
    /// The route names a plugin_config that does not exist.
    PluginConfigMissing,
    /// The consumer names a consumer_group that does not exist.
    ConsumerGroupMissing,
    /// The route names an upstream that does not exist.
    UpstreamMissing,
    /// The effective route has no upstream, or one without nodes.
    NoUpstream,
    /// Every node has weight 0 on a hash ring.
    NothingToPick,
    /// No AI instance could be picked at all.
    AllServersTried,
    /// No AI instance is usable, and the configuration wants none used then; whole seconds until one
    /// may be again.
    AllUnhealthy(u64),
    /// The path cannot be normalised.
    BadPath,
    /// Two framings in one request (`Content-Length` and `Transfer-Encoding`).
    AmbiguousLength,
    /// A request head that is not HTTP/1.1, and what is wrong with it.
    BadHead(&'static str),
    /// A request head of more bytes or lines than the gateway accepts.
    HeadTooLarge,
    /// A request target longer than the gateway accepts.
    TargetTooLong,
    /// A request head that did not arrive in time.
    HeadTimeout,
    /// A `Transfer-Encoding` other than `chunked`.
    UnknownCoding,
    /// The host asks for a client certificate, and this is what is wrong with what the client has
    /// shown.
    ClientCertificate(&'static str),
    /// A request whose method is refused before routing (TRACE, CONNECT).
    MethodRefused,
    /// The request body is larger than the gateway accepts.
    BodyTooLarge,
    /// The client sent its body too slowly.
    BodyTimeout,
    /// The client's body broke off, or was not valid HTTP.
    BodyBroken,
    /// The instance cannot serve this kind of request. The text is for the client.
    Refused(String),
    /// The request cannot be brought into the instance's protocol. The text is for the client.
    Untranslatable(String),
    /// The instance's access token cannot be had. The text is for client and log.
    NoToken(String),
    /// The target's answer is not what its protocol says. The text is for the log.
    BadAnswer(String),
    /// A stream ended, or had an error in it, before its content began: as what it stands for.
    BadStream(StreamError),
    /// A stream had no content in time (`first_token_timeout_ms`).
    NoFirstToken,
    /// A target could not be reached, or broke off before its response began.
    Transport(TransportFault),
    /// As `Transport`, on a plain upstream, where APISIX answers 502 rather than 500.
    PlainTransport(TransportFault),
    /// `max_response_bytes` was exceeded before anything was sent.
    ResponseTooLarge,
    /// `max_stream_duration_ms` was exceeded before anything was sent.
    StreamTooLong,
    /// A fault of ours. The text is for the log and holds no secret.
    Internal(String),
}

impl Failure {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::NoRoute
            | Self::BadPath
            | Self::AmbiguousLength
            | Self::BadHead(_)
            | Self::HeadTooLarge
            | Self::TargetTooLong
            | Self::HeadTimeout
            | Self::UnknownCoding
            | Self::ClientCertificate(_)
            | Self::MethodRefused
            | Self::BodyTooLarge
            | Self::BodyTimeout
            | Self::BodyBroken
            | Self::Refused(_)
            | Self::Untranslatable(_) => Blame::Client,
            Self::ServiceMissing
            | Self::PluginConfigMissing
            | Self::ConsumerGroupMissing
            | Self::UpstreamMissing
            | Self::NoUpstream
            | Self::NothingToPick
            | Self::Internal(_) => Blame::Gateway,
            Self::AllServersTried
            | Self::AllUnhealthy(_)
            | Self::Transport(_)
            | Self::PlainTransport(_)
            | Self::ResponseTooLarge
            | Self::StreamTooLong
            | Self::NoToken(_)
            | Self::BadAnswer(_)
            | Self::BadStream(..)
            | Self::NoFirstToken => Blame::Upstream,
        }
    }

    /// The only place where a failure becomes a status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoRoute | Self::ServiceMissing => StatusCode::NOT_FOUND,
            Self::PluginConfigMissing
            | Self::ConsumerGroupMissing
            | Self::NoUpstream
            | Self::AllUnhealthy(_)
            | Self::AllServersTried => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamMissing | Self::NothingToPick | Self::ResponseTooLarge => {
                StatusCode::BAD_GATEWAY
            }
            Self::BadPath
            | Self::AmbiguousLength
            | Self::BadHead(_)
            | Self::ClientCertificate(_)
            | Self::BodyBroken
            | Self::Refused(_)
            | Self::Untranslatable(_) => StatusCode::BAD_REQUEST,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::UnknownCoding => StatusCode::NOT_IMPLEMENTED,
            Self::MethodRefused => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadTimeout | Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Transport(fault) | Self::PlainTransport(fault) if fault.is_timeout() => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::Transport(_) | Self::NoToken(_) | Self::Internal(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::PlainTransport(_) => StatusCode::BAD_GATEWAY,
            Self::StreamTooLong | Self::NoFirstToken => StatusCode::GATEWAY_TIMEOUT,
            Self::BadAnswer(_) => StatusCode::BAD_GATEWAY,
            Self::BadStream(error) => {
                StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_GATEWAY)
            }
        }
    }

    /// What the client is told; no internals.
    pub fn message(&self) -> &str {
        match self {
            Self::NoRoute => "404 Route Not Found",
            Self::ServiceMissing => "the route's service does not exist",
            Self::PluginConfigMissing => "the route's plugin_config does not exist",
            Self::ConsumerGroupMissing => "the consumer's group does not exist",
            Self::UpstreamMissing => "the route's upstream does not exist",
            Self::NoUpstream => "no upstream is configured for this route",
            Self::NothingToPick => "no valid upstream node",
            Self::AllServersTried => "all servers tried",
            Self::AllUnhealthy(_) => "no instance is healthy",
            Self::BadPath => "the request path is not valid",
            Self::AmbiguousLength => {
                "the request has both Content-Length and Transfer-Encoding; send one of them"
            }
            Self::BadHead(what) | Self::ClientCertificate(what) => what,
            Self::HeadTooLarge => "the request's headers are too large or too many",
            Self::TargetTooLong => "the request target is too long",
            Self::HeadTimeout => "the request's head did not arrive in time",
            Self::UnknownCoding => "Transfer-Encoding may only be `chunked`",
            Self::MethodRefused => "this method is not allowed",
            Self::BodyTooLarge => "the request body is too large",
            Self::BodyTimeout => "the request body did not arrive in time",
            Self::BodyBroken => "the request body broke off or is not valid HTTP",
            Self::Refused(text) | Self::Untranslatable(text) | Self::NoToken(text) => text,
            Self::BadAnswer(_) => "the model's provider sent an answer that cannot be read",
            Self::BadStream(error) => &error.message,
            Self::NoFirstToken => "the model's provider sent no content in time",
            Self::Transport(fault) | Self::PlainTransport(fault) => fault.as_str(),
            Self::ResponseTooLarge => "max_response_bytes exceeded",
            Self::StreamTooLong => "max_stream_duration_ms exceeded",
            Self::Internal(_) => "internal error",
        }
    }

    /// The answer for a client that speaks `protocol` (`None`: not an LLM request).
    pub fn response(&self, protocol: Option<Protocol>) -> http::Response<Body> {
        self.response_as(self.status(), protocol)
    }

    /// The same under another status.
    pub fn response_as(
        &self,
        status: StatusCode,
        protocol: Option<Protocol>,
    ) -> http::Response<Body> {
        let (kind, body) = self.body(status, protocol);
        let mut response = http::Response::new(Body::whole(body));
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        if let Self::AllUnhealthy(seconds) = self {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(*seconds));
        }
        if matches!(
            self,
            Self::AmbiguousLength
                | Self::BadHead(_)
                | Self::HeadTooLarge
                | Self::TargetTooLong
                | Self::HeadTimeout
                | Self::UnknownCoding
                | Self::BodyTimeout
                | Self::BodyBroken
        ) {
            // What follows on this connection cannot be told apart from the rest of the body.
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn body(&self, status: StatusCode, protocol: Option<Protocol>) -> (&'static str, Bytes) {
        match self {
            // APISIX sends this one as text, newline included, and clients compare it.
            Self::NoRoute => (TEXT, Bytes::from_static(NO_ROUTE)),
            // These are APISIX's own texts for LLM routes.
            Self::AllServersTried
            | Self::ResponseTooLarge
            | Self::StreamTooLong
            | Self::Refused(_) => (TEXT, Bytes::copy_from_slice(self.message().as_bytes())),
            _ => (
                JSON,
                pointsman_ai::error_body(protocol, status.as_u16(), self.message()),
            ),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Internal(detail) => write!(f, "internal error: {detail}"),
            Self::BadAnswer(detail) => write!(f, "{}: {detail}", self.message()),
            _ => f.write_str(self.message()),
        }
    }
}

impl std::error::Error for Failure {}

/// Content type of JSON bodies that the gateway makes.
pub const JSON: &str = "application/json";
/// Content type of text bodies that the gateway makes.
pub const TEXT: &str = "text/plain; charset=utf-8";
const NO_ROUTE: &[u8] = b"{\"error_msg\":\"404 Route Not Found\"}\n";
