//! Plain traffic: a request to a node of an upstream, and its response back.

use std::{rc::Rc, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use pointsman_balance::Picked;

use crate::{
    body::Body,
    config::snapshot::PoolRef,
    exchange::{AttemptRecord, Exchange},
    failure::Failure,
    forward::{
        Outcome,
        judge::{Accepted, Held},
    },
    ports::{Answer, Attempt, SendError, Source},
    upstream::{PassHost, Upstream, destination::Timeouts, resolve::Located},
};

/// A request to a plain upstream.
pub struct PlainPlan {
    /// Where it goes.
    pub upstream: Arc<Upstream>,
    /// What a hash ring hashes.
    pub hash_key: Option<String>,
    timeouts: Timeouts,
    method: Method,
    upgrade: bool,
    body: Option<Body>,
    unsent: bool,
    replayable: bool,
    /// Of the node that was picked.
    pub located: Located,
}

impl PlainPlan {
    /// The plan for `exchange`, which goes to `upstream`.
    pub fn new(exchange: &mut Exchange, upstream: Arc<Upstream>) -> Self {
        super::forwarded::set(exchange);
        let route = exchange.route();
        let timeouts = route
            .and_then(|route| route.timeouts)
            .unwrap_or(upstream.timeouts);
        let upgrade = route.is_some_and(|route| route.enable_websocket)
            && is_websocket(&exchange.request.headers);
        let hash_key = upstream.hash_key.as_ref().map(|key| key.of(exchange));
        let body = exchange.take_body();
        Self {
            hash_key,
            timeouts,
            method: exchange.request.method.clone(),
            upgrade,
            replayable: body.is_replayable(),
            body: Some(body),
            unsent: true,
            located: Located::default(),
            upstream,
        }
    }

    /// Whether the request may be sent once more: nothing of it reached a target, or repeating it
    /// is safe (not POST, LOCK or PATCH, as nginx decides) and its body is still here.
    pub fn may_repeat(&self) -> bool {
        let idempotent = !matches!(self.method.as_str(), "POST" | "LOCK" | "PATCH");
        self.body.is_some() && (self.unsent || idempotent)
    }

    /// The attempt that `picked` stands for.
    pub fn prepare(
        &mut self,
        exchange: &mut Exchange,
        mut picked: Picked,
    ) -> Result<Attempt, Failure> {
        let destination = Arc::clone(&self.upstream.nodes[picked.member()]);
        let host = match (&exchange.request.host, &self.upstream.pass_host) {
            (Some(host), _) | (None, PassHost::Rewrite(host)) => host.clone(),
            (None, PassHost::Node) => destination.authority.clone(),
            (None, PassHost::Pass) => exchange
                .request
                .headers
                .get(header::HOST)
                .cloned()
                .unwrap_or_else(|| destination.authority.clone()),
        };
        let destination = with_tls_name(destination, &host);
        let mut headers = forwardable(&exchange.request.headers, self.upgrade);
        headers.insert(header::HOST, host.clone());
        let uri = target(exchange)?;
        let body = self.body.take().unwrap_or_default();
        if self.replayable {
            self.body = body.replay();
        }
        let member = self.upstream.pool.name(picked.member()).into();
        exchange.attempts.push(AttemptRecord::begin(
            &mut picked,
            Arc::clone(&destination.address),
            member,
            uri.path().into(),
            destination.scheme(),
            host.to_str().unwrap_or_default().into(),
        ));
        let mut request = Request::new(body);
        *request.method_mut() = exchange.request.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let Located { addresses, group } = std::mem::take(&mut self.located);
        Ok(Attempt {
            picked,
            source: Source::Judged {
                pool: PoolRef::Upstream(Arc::clone(&self.upstream)),
                gateway: Rc::clone(exchange.gateway()),
            },
            destination,
            addresses,
            group,
            request,
            timeouts: self.timeouts,
            keepalive: self.upstream.keepalive,
            upgrade: self.upgrade.then_some(self.timeouts.read),
        })
    }

    /// Takes the body of an attempt back of which nothing was sent.
    pub fn take_back(&mut self, unsent: Option<Body>) {
        if self.body.is_none() {
            self.body = unsent;
        }
    }

    /// What came of an attempt.
    pub fn receive(&mut self, exchange: &mut Exchange, sent: Result<Answer, SendError>) -> Outcome {
        match sent {
            Ok(answer) => Outcome::Answer(answer),
            Err(error) => {
                self.unsent = error.unsent.is_some();
                self.take_back(error.unsent);
                let failure = match &error.client {
                    Some(broken) => crate::gateway::stream_failure(broken),
                    None => Failure::PlainTransport(error.fault),
                };
                exchange.note_attempt_failed(&failure, &error.detail);
                Outcome::Failed(failure)
            }
        }
    }
}

/// Passes the target's response on: its status, its end-to-end headers, its body.
pub fn deliver(exchange: &mut Exchange, accepted: Accepted) -> Response<Body> {
    let (mut parts, body) = accepted.into_answer().response.into_parts();
    if parts.status != http::StatusCode::SWITCHING_PROTOCOLS {
        remove_hop_by_hop(&mut parts.headers);
    }
    let show_always = exchange.snapshot().settings.show_upstream_status;
    if show_always || parts.status.is_server_error() {
        add_upstream_status(exchange, &mut parts.headers);
    }
    Response::from_parts(parts, body)
}

/// The answer when no further attempt is made.
pub fn stop(exchange: &mut Exchange, held: Held) -> Result<Response<Body>, Failure> {
    let failure = match held {
        Held::Failure(failure) => failure,
        Held::Answer(_) => Failure::Internal("a plain answer was held back".to_owned()),
    };
    exchange.note_failure(&failure);
    let mut response = failure.response(None);
    add_upstream_status(exchange, response.headers_mut());
    Ok(response)
}

/// The headers that travel on: all but those that belong to one connection (RFC 9110 §7.6.1).
pub fn forwardable(headers: &HeaderMap, upgrade: bool) -> HeaderMap {
    let mut forwarded = end_to_end(headers, |_| true);
    if let Some(protocol) = upgrade.then(|| headers.get(header::UPGRADE)).flatten() {
        forwarded.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        forwarded.insert(header::UPGRADE, protocol.clone());
    }
    forwarded
}

/// Those end-to-end headers whose name is `wanted`, copied in one pass.
pub fn end_to_end(headers: &HeaderMap, wanted: impl Fn(&str) -> bool) -> HeaderMap {
    // `Host` and `Content-Length` stay behind and a credential comes in: there is room.
    let mut copy = HeaderMap::with_capacity(headers.len() + 1);
    for (name, value) in headers {
        let text = name.as_str();
        if !is_hop_by_hop(text) && wanted(text) {
            copy.append(name.clone(), value.clone());
        }
    }
    copy
}

/// Removes the headers that a client's `Connection` names: they were for us alone.
///
/// This comes before anything of ours is added, or a client could take that away again by naming
/// it.
pub fn remove_named_by_connection(headers: &mut HeaderMap) {
    if !headers.contains_key(header::CONNECTION) {
        return;
    }
    for name in named_by_connection(headers) {
        // `Host` is never a matter of one connection; what is hop-by-hop stays behind anyway.
        if name != "host" && !is_hop_by_hop(&name) {
            headers.remove(&name);
        }
    }
}

/// Removes what belongs to one connection, the headers that `Connection` names included.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named = named_by_connection(headers);
    let belongs = |name: &HeaderName| {
        is_hop_by_hop(name.as_str()) || named.iter().any(|other| other == name.as_str())
    };
    let gone: Vec<HeaderName> = headers
        .keys()
        .filter(|name| belongs(name))
        .cloned()
        .collect();
    for name in &gone {
        headers.remove(name);
    }
}

/// The headers that `Connection` names beside those that never travel on anyway.
fn named_by_connection(headers: &HeaderMap) -> Vec<String> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| std::str::from_utf8(name.trim_ascii()).ok())
        .filter(|name| {
            let means_itself = name.is_empty()
                || name.eq_ignore_ascii_case("keep-alive")
                || name.eq_ignore_ascii_case("close");
            !means_itself
        })
        .map(str::to_ascii_lowercase)
        .collect()
}

fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "expect"
    )
}

/// The request target to send: the path as plugins left it, encoded, and the query.
pub fn target(exchange: &Exchange) -> Result<Uri, Failure> {
    let request = &exchange.request;
    let path = match &request.raw_path {
        Some(raw) => std::borrow::Cow::Borrowed(raw.as_str()),
        None => crate::router::path::encode(&request.path),
    };
    let full = match request.query.as_deref().filter(|query| !query.is_empty()) {
        Some(query) => format!("{path}?{query}"),
        None => path.into_owned(),
    };
    Uri::try_from(full).map_err(|_| Failure::BadPath)
}

/// A node's destination under the TLS name that `Host` asks for.
fn with_tls_name(
    destination: Arc<crate::upstream::destination::Destination>,
    host: &HeaderValue,
) -> Arc<crate::upstream::destination::Destination> {
    use crate::upstream::destination::{Destination, Tls};
    let Some(tls) = &destination.tls else {
        return destination;
    };
    let host = crate::router::host::normalise(host.to_str().unwrap_or_default());
    let name = crate::router::host::bare(&host);
    if name.is_empty() || *name == *tls.server_name {
        return destination;
    }
    let tls = Tls {
        server_name: name.into(),
        ..tls.clone()
    };
    match Destination::new(&destination.host, destination.port, Some(tls)) {
        Ok(renamed) => Arc::new(renamed),
        Err(_) => destination,
    }
}

/// Whether a request asks to switch to WebSocket.
pub fn is_websocket(headers: &HeaderMap) -> bool {
    headers
        .get(header::UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

fn add_upstream_status(exchange: &Exchange, headers: &mut HeaderMap) {
    let statuses: Vec<String> = exchange
        .attempts
        .iter()
        .filter(|attempt| attempt.status != 0)
        .map(|attempt| attempt.status.to_string())
        .collect();
    if statuses.is_empty() {
        return;
    }
    if let Ok(value) = HeaderValue::from_str(&statuses.join(", ")) {
        headers.insert("x-apisix-upstream-status", value);
    }
}
