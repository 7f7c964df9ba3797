//! All we know about one request, and its single end.
//!
//! The exchange is made when the request's head has arrived and lives until the last byte of the
//! response is out or the client is gone. While the handler runs it is borrowed by the phases;
//! afterwards the response's body owns it. Whatever happens, [`Exchange::finish`] runs exactly
//! once: it is called at the end of the body, and `Drop` calls it for a request that was
//! abandoned.

mod attempt;
mod held;
mod intake;
mod rare;
mod request_body;
mod traced;

use std::{
    borrow::Cow,
    cell::OnceCell,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version};
use pointsman_ai::{Protocol, Sent, Usage};

use crate::{
    body::Body,
    clock,
    config::snapshot::{Backend, Consumer, Route, Snapshot},
    exchange::rare::Rare,
    failure::{Blame, Failure},
    forward::picks::Notes,
    gateway::Gateway,
    mtls::ClientCertificate,
    observe::{entry::Wants, metrics::ActiveConnection, secrets::SecretArgs},
    plugin::chain::{Chain, Filters},
    plugins::ai_proxy::AiCall,
    ports::{Answer, SendError},
    router,
};

pub use self::attempt::AttemptRecord;
pub(crate) use self::{
    held::{Held, Pace, Place},
    traced::OpenSpan,
};

/// One request and its response.
pub struct Exchange {
    /// The request as it will go to the target; plugins change it.
    pub request: Request,
    /// The request line as the client sent it.
    pub received: Received,
    /// Who sent it, over what.
    pub peer: Peer,
    /// When its head had arrived.
    pub started: Instant,
    /// Wall clock of `started`, ms since the Unix epoch.
    pub started_unix_ms: u64,
    /// What the router found.
    pub matched: Option<Matched>,
    /// Set by an AI plugin: this exchange goes to one of its instances.
    pub ai: Option<Box<AiCall>>,
    /// Facts about the LLM side, for logs and metrics.
    pub llm: Llm,
    /// Every attempt, in order.
    pub attempts: Vec<AttemptRecord>,
    /// What the client got.
    pub response: ResponseFacts,
    /// Held while an attempt is under way; counts it in `llm_active_connections`.
    pub(crate) active: Option<ActiveConnection>,
    pub(crate) forwarded_set: bool,
    /// The query arguments that authentication plugins read, or may have read, credentials from.
    pub(crate) secret_args: Option<Arc<SecretArgs>>,
    pub(crate) chain: Arc<Chain>,
    pub(crate) filters: Filters,
    pub(crate) global_filters: Filters,
    body: Body,
    buffered: Option<Bytes>,
    wants_body: std::cell::Cell<bool>,
    rare: OnceCell<Box<Rare>>,
    consumer: Option<Authenticated>,
    snapshot: Arc<Snapshot>,
    gateway: Rc<Gateway>,
    ended: Option<Ended>,
    took: Duration,
}

/// The request as it will be forwarded.
pub struct Request {
    /// Its method.
    pub method: Method,
    /// Decoded, normalised path: `$uri`. Rewritten by plugins.
    pub path: String,
    /// Encoded path to send instead of `path`, when a plugin asks for exact bytes.
    pub raw_path: Option<String>,
    /// Query without `?`.
    pub query: Option<String>,
    /// Headers; hop-by-hop ones are removed when it is sent.
    pub headers: HeaderMap,
    /// `Host` to send, when a plugin sets one.
    pub host: Option<HeaderValue>,
    /// Its protocol version.
    pub version: Version,
}

/// The request line as received.
pub struct Received {
    /// Method.
    pub method: Method,
    /// Target.
    pub uri: Uri,
    /// `Host`, lower case, without port; empty when there is none.
    pub host: String,
}

/// The two ends of the client's connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The client's address.
    pub client: SocketAddr,
    /// The address it connected to.
    pub server: SocketAddr,
    /// Over TLS, with this server name.
    pub tls: Option<TlsPeer>,
}

/// What TLS knows of the client.
#[derive(Clone, Debug, Default)]
pub struct TlsPeer {
    /// SNI, lower case.
    pub server_name: Option<Arc<str>>,
    /// The certificate that it has shown.
    pub certificate: ClientCertificate,
}

/// What the router found.
pub struct Matched {
    /// The route in its run form.
    pub route: Arc<Route>,
    /// The pattern that matched.
    pub uri: Arc<str>,
    /// The host pattern that matched.
    pub host: Option<Arc<str>>,
    /// Path parameters.
    pub params: Vec<(String, String)>,
}

/// Proof that an authentication plugin accepted the request.
#[derive(Clone)]
pub struct Authenticated {
    /// The consumer.
    pub consumer: Arc<Consumer>,
    /// The credential that was used, if it is a resource of its own.
    pub credential_id: Option<Arc<str>>,
}

/// Facts about the LLM side of an exchange. Times are milliseconds.
#[derive(Debug, Default)]
pub struct Llm {
    /// The client's protocol.
    pub protocol: Option<Protocol>,
    /// What the client asked for is a stream.
    pub stream: bool,
    /// `model` as the client sent it.
    pub request_model: Option<String>,
    /// The model of the last attempt.
    pub model: Option<Arc<str>>,
    /// Name of the instance picked last.
    pub instance: Option<Arc<str>>,
    /// Tokens, once known.
    pub usage: Option<Usage>,
    /// Not all of them are the provider's own numbers.
    pub usage_estimated: bool,
    /// The response calls a tool.
    pub has_tool_calls: bool,
    /// Text of the response, when a logger wants it.
    pub text: Option<String>,
    /// Time to first token.
    pub first_token_ms: Option<u64>,
    /// Whole time of the last attempt.
    pub response_ms: Option<u64>,
    /// A stream ended by its protocol's own end event.
    pub stream_done: bool,
}

/// What the client got.
#[derive(Debug, Default)]
pub struct ResponseFacts {
    /// Its status; `None` before there is one.
    pub status: Option<StatusCode>,
    /// Its headers, kept when a logger of the route wants them.
    pub headers: Option<Box<HeaderMap>>,
    /// Bytes of body handed to the client's connection.
    pub body_bytes: u64,
    /// Its body, when a logger of the route wants it.
    pub body: Option<Vec<u8>>,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The whole response was handed to the client's connection.
    Complete,
    /// The client went away first.
    Abandoned,
    /// The target's response broke off after its head had been passed on.
    UpstreamBroken,
    /// A limit of ours cut the response.
    Limited,
}

impl Ended {
    /// The name that logs use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Abandoned => "abandoned",
            Self::UpstreamBroken => "upstream_broken",
            Self::Limited => "limited",
        }
    }
}

impl Exchange {
    /// A request whose head has just arrived.
    pub fn new(gateway: Rc<Gateway>, request: http::Request<Body>, peer: Peer) -> Self {
        let snapshot = gateway.snapshot();
        let (head, body) = request.into_parts();
        let chain = Arc::clone(&snapshot.no_plugins);
        Self {
            request: Request {
                method: head.method.clone(),
                path: String::new(),
                raw_path: None,
                query: head.uri.query().map(str::to_owned),
                headers: head.headers,
                host: None,
                version: head.version,
            },
            received: Received {
                method: head.method,
                uri: head.uri,
                host: String::new(),
            },
            peer,
            started: clock::now(),
            started_unix_ms: clock::unix_millis(),
            matched: None,
            ai: None,
            llm: Llm::default(),
            attempts: Vec::new(),
            response: ResponseFacts::default(),
            active: None,
            forwarded_set: false,
            chain,
            filters: Filters::default(),
            global_filters: Filters::default(),
            body,
            buffered: None,
            wants_body: std::cell::Cell::new(false),
            rare: OnceCell::new(),
            consumer: None,
            secret_args: None,
            snapshot,
            gateway,
            ended: None,
            took: Duration::ZERO,
        }
    }

    /// The configuration that this request began with, and keeps.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// The worker that serves it.
    pub fn gateway(&self) -> &Rc<Gateway> {
        &self.gateway
    }

    /// The route, once found.
    pub fn route(&self) -> Option<&Arc<Route>> {
        self.matched.as_ref().map(|matched| &matched.route)
    }

    /// Where it goes, unless an AI plugin sends it: where its route says, or a plugin instead.
    pub fn backend(&self) -> Option<&Backend> {
        let instead = self.rare.get().and_then(|rare| rare.backend.as_ref());
        instead.or_else(|| self.route().map(|route| &route.backend))
    }

    /// Sends it to another upstream than its route says.
    pub(crate) fn send_to(&mut self, backend: Backend) {
        self.rare_mut().backend = Some(backend);
    }

    /// The consumer, once authenticated.
    pub fn consumer(&self) -> Option<&Arc<Consumer>> {
        self.consumer.as_ref().map(|who| &who.consumer)
    }

    /// The proof of authentication.
    pub fn authenticated(&self) -> Option<&Authenticated> {
        self.consumer.as_ref()
    }

    /// Attaches the consumer that an authentication plugin found.
    ///
    /// Sets the headers by which the target learns of it, and removes what a client may have
    /// forged (APISIX 3.18).
    pub fn authenticate(&mut self, who: Authenticated) {
        let headers = &mut self.request.headers;
        headers.insert(CONSUMER.clone(), who.consumer.username_header.clone());
        let credential = who
            .credential_id
            .as_deref()
            .and_then(|id| HeaderValue::from_str(id).ok());
        replace(headers, &CREDENTIAL, credential);
        replace(headers, &CUSTOM_ID, who.consumer.custom_id.clone());
        self.consumer = Some(who);
    }

    /// A request header as text; `None` when absent or not visible ASCII/UTF-8.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.request
            .headers
            .get(name)
            .and_then(|value| std::str::from_utf8(value.as_bytes()).ok())
    }

    /// What loggers want of it: those of the route, the consumer and the global rules.
    pub(crate) fn wants(&self) -> Wants {
        self.chain.wants(&self.snapshot().global)
    }

    /// The decoded, normalised path that the client asked for, whatever plugins made of it.
    ///
    /// Worked out anew, which for most paths is one look at them: hardly a request needs it
    /// beside [`Request::path`], and none should carry it for those that do.
    pub fn inbound_path(&self) -> Cow<'_, str> {
        let options = &self.snapshot.settings.path_options;
        // A path that cannot be normalised was refused before anything asks for it.
        router::path::normalise(self.received.uri.path(), options).unwrap_or_default()
    }

    pub(crate) fn rare(&self) -> &Rare {
        self.rare.get_or_init(Box::default)
    }

    /// What was out of the ordinary about its picks, if anything was.
    pub(crate) fn pick_notes(&self) -> Option<&Notes> {
        self.rare.get().map(|rare| &rare.picks)
    }

    fn rare_mut(&mut self) -> &mut Rare {
        self.rare();
        self.rare.get_mut().expect("made in the line above")
    }

    /// nginx's `$request_id`, which no plugin changes.
    pub fn generated_id(&self) -> &str {
        self.rare().generated_id()
    }

    /// The id that the plugin `request-id` made or found, once it has run.
    pub fn id_of_plugin(&self) -> Option<&str> {
        self.rare.get()?.plugin_id.as_deref()
    }

    /// Names the request as the plugin `request-id` does.
    pub(crate) fn set_id_of_plugin(&mut self, id: String) {
        self.rare_mut().plugin_id = Some(id.into());
    }

    /// The address at the other end of the connection, whoever the client behind it is.
    pub(crate) fn connected(&self) -> IpAddr {
        let found = self.rare.get().and_then(|rare| rare.connected);
        found.unwrap_or_else(|| self.peer.client.ip())
    }

    /// Notes who the client behind the connection is.
    pub(crate) fn set_client(&mut self, client: SocketAddr) {
        let connected = self.connected();
        self.rare_mut().connected = Some(connected);
        self.peer.client = client;
    }

    /// The LLM request as it was sent last, on an AI route.
    pub fn llm_request(&self) -> Option<Sent<'_>> {
        self.ai.as_ref().map(|call| call.sent())
    }

    /// `traditional_http`, `ai_chat` or `ai_stream`.
    pub fn request_type(&self) -> &'static str {
        match (self.llm.protocol, self.llm.stream) {
            (None, _) => "traditional_http",
            (Some(_), false) => "ai_chat",
            (Some(_), true) => "ai_stream",
        }
    }

    /// `upstream` once any attempt got a response head, else `apisix`.
    pub fn response_source(&self) -> &'static str {
        if self.attempts.iter().any(|attempt| attempt.answered) {
            "upstream"
        } else {
            "apisix"
        }
    }

    /// Notes what is known of the current attempt once its response's head is here or is not.
    pub(crate) fn note_head(&mut self, sent: &Result<Answer, SendError>) {
        let Some(attempt) = self.attempts.last_mut() else {
            return;
        };
        let now = clock::now();
        let took = now - attempt.started;
        match sent {
            Ok(answer) => {
                attempt.status = answer.response.status().as_u16();
                attempt.answered = true;
                attempt.connect = answer.connect_time;
                attempt.header = Some(took);
                attempt.dialled = answer.address;
                // An LLM's stream has begun with its first bytes, as its head says nothing.
                if self.ai.is_none() && is_open_ended(&answer.response) {
                    attempt.observe(took, now);
                }
            }
            Err(error) => {
                attempt.total = Some(took);
                attempt.dialled = error.address;
                // It would have taken at least that long.
                if error.fault.is_timeout() {
                    attempt.observe(took, now);
                }
            }
        }
    }

    /// Tells the balancing that the current attempt has an answer by now. For answers that may go on
    /// for as long as somebody listens: how long they take says nothing about the target.
    pub(crate) fn observe_so_far(&mut self) {
        if let Some(attempt) = self.attempts.last_mut() {
            let now = clock::now();
            attempt.observe(now - attempt.started, now);
        }
    }

    /// The current attempt is over, and nothing happens for a while: that counts for neither.
    pub(crate) fn pause(&mut self) {
        self.release();
        if let Some(attempt) = self.attempts.last_mut() {
            let took = clock::now() - attempt.started;
            attempt.total.get_or_insert(took);
        }
    }

    /// The current attempt is over, and another may follow.
    pub(crate) fn release(&mut self) {
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.trial = None;
            if let Some(hold) = attempt.hold.as_mut() {
                hold.suspend();
            }
        }
    }

    /// No other has followed: what the current attempt sent back is passed on after all, and is under way
    /// for as long as that takes.
    pub(crate) fn resume(&mut self) {
        if let Some(hold) = self.attempts.last_mut().and_then(|last| last.hold.as_mut()) {
            hold.resume();
        }
        if self.active.is_none() && !self.attempts.is_empty() {
            self.active = Some(ActiveConnection::begin(self));
        }
    }

    /// Notes a failure in the log, at the level that its blame asks for.
    pub(crate) fn note_failure(&self, failure: &Failure) {
        let route = self.route().map_or("", |route| route.id.as_str());
        match failure.blame() {
            Blame::Client => tracing::info!(route, path = %self.request.path, "{failure}"),
            Blame::Gateway | Blame::Upstream => {
                let last = self
                    .attempts
                    .last()
                    .map(|attempt| attempt.address.to_string());
                tracing::warn!(route, path = %self.request.path, upstream = last, "{failure}");
            }
        }
    }

    /// How long it took, or has taken so far.
    pub fn took(&self) -> Duration {
        match self.ended {
            Some(_) => self.took,
            None => clock::now() - self.started,
        }
    }

    /// How it ended, once it has.
    pub fn ended(&self) -> Option<Ended> {
        self.ended
    }

    /// Ends the exchange. The first call counts, every further one does nothing.
    pub fn finish(&mut self, ended: Ended) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(ended);
        let now = clock::now();
        self.took = now - self.started;
        self.active = None;
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.end(ended, now);
        }
        self.leave();
        crate::observe::finished(self);
    }
}

/// Whether a response lasts as long as somebody listens: a stream of events, a tunnel.
fn is_open_ended<T>(response: &http::Response<T>) -> bool {
    let kind = response.headers().get(http::header::CONTENT_TYPE);
    response.status() == StatusCode::SWITCHING_PROTOCOLS
        || kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.finish(Ended::Abandoned);
    }
}

fn replace(headers: &mut HeaderMap, name: &HeaderName, value: Option<HeaderValue>) {
    match value {
        Some(value) => {
            headers.insert(name.clone(), value);
        }
        // Looking at the few names there are costs less than hashing one that is hardly ever sent.
        None if headers.keys().any(|sent| sent == name) => {
            headers.remove(name);
        }
        None => {}
    }
}

/// What glibc's allocator keeps at hand per thread after it was freed.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Exchange>() <= 1032);

static CONSUMER: HeaderName = HeaderName::from_static("x-consumer-username");
static CREDENTIAL: HeaderName = HeaderName::from_static("x-credential-identifier");
static CUSTOM_ID: HeaderName = HeaderName::from_static("x-consumer-custom-id");
