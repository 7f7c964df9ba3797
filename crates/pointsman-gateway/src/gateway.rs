//! The life of a request, phase by phase.
//!
//! One [`Gateway`] per worker. It owns nothing that another worker needs in order to serve: it
//! reads the configuration and the verdicts, both immutable and replaced as a whole, and it
//! counts into its own shard of the metrics.

use std::{rc::Rc, sync::Arc};

use arc_swap::ArcSwap;
use http::{HeaderValue, Method, Request, Response, header};
use pointsman_balance::Availability;

use crate::{
    body::{Body, BodyError, CollectError},
    config::snapshot::{Backend, Snapshot},
    exchange::{Exchange, Matched, Peer},
    failure::Failure,
    forward::{self, relay::Relay},
    limits::Limits,
    observe::metrics::Shard,
    oidc::Providers,
    plugin::{
        ResponseHead,
        chain::{self, Phase, Which},
    },
    ports::{Counters, Sink, Upstreams},
    router::{self, Query},
    upstream::evidence::{Evidence, EvidenceQueue},
};

/// What all workers read: the thread of health publishes verdicts, the control thread configuration.
pub struct State {
    snapshot: ArcSwap<Snapshot>,
    availability: ArcSwap<Availability>,
    evidence: EvidenceQueue,
    limits: Limits,
    identity_providers: Providers,
}

impl State {
    /// Starts from `snapshot` and the verdicts that belong to its targets.
    pub fn new(snapshot: Arc<Snapshot>, availability: Arc<Availability>) -> Self {
        Self {
            snapshot: ArcSwap::new(snapshot),
            availability: ArcSwap::new(availability),
            evidence: EvidenceQueue::default(),
            limits: Limits::default(),
            identity_providers: Providers::default(),
        }
    }

    /// What workers saw, for the owner of all health.
    pub fn evidence(&self) -> &EvidenceQueue {
        &self.evidence
    }

    /// The configuration in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The newest verdicts.
    pub fn availability(&self) -> Arc<Availability> {
        self.availability.load_full()
    }

    /// Publishes verdicts. Every pick that starts after this has returned obeys them.
    pub fn publish_availability(&self, availability: Arc<Availability>) {
        self.availability.store(availability);
    }

    /// Publishes configuration. The verdicts come first, so that no request can hold a target
    /// that the verdicts in force do not cover.
    pub fn publish(&self, snapshot: Arc<Snapshot>, availability: Arc<Availability>) {
        self.availability.store(availability);
        self.snapshot.store(snapshot);
    }
}

/// One worker's gateway.
pub struct Gateway {
    state: Arc<State>,
    upstreams: Rc<dyn Upstreams>,
    counters: Rc<dyn Counters>,
    metrics: Arc<Shard>,
    access_log: Option<Arc<dyn Sink>>,
}

impl Gateway {
    /// A gateway over `state` that sends through `upstreams`, and shares limits through `counters`.
    pub fn new(
        state: Arc<State>,
        upstreams: Rc<dyn Upstreams>,
        counters: Rc<dyn Counters>,
        metrics: Arc<Shard>,
        access_log: Option<Arc<dyn Sink>>,
    ) -> Self {
        Self {
            state,
            upstreams,
            counters,
            metrics,
            access_log,
        }
    }

    /// The configuration in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.state.snapshot()
    }

    /// The newest verdicts; read at every pick, never kept.
    pub fn availability(&self) -> arc_swap::Guard<Arc<Availability>> {
        self.state.availability.load()
    }

    /// Hands what was seen of a target to the owner of all health.
    pub fn report(&self, evidence: Evidence) {
        self.state.evidence.push(evidence);
    }

    /// What is counted against limits, over all workers and configurations.
    pub fn limits(&self) -> &Limits {
        &self.state.limits
    }

    /// The identity providers of all configurations, over all workers.
    pub fn identity_providers(&self) -> &Providers {
        &self.state.identity_providers
    }

    /// This worker's shard of the metrics.
    pub fn metrics(&self) -> &Arc<Shard> {
        &self.metrics
    }

    /// Where the access log goes, if it is on.
    pub fn access_log(&self) -> Option<&Arc<dyn Sink>> {
        self.access_log.as_ref()
    }

    /// The way to the targets.
    pub fn upstreams(&self) -> &dyn Upstreams {
        &*self.upstreams
    }

    /// The way to counters that other gateways share.
    pub fn counters(&self) -> &Rc<dyn Counters> {
        &self.counters
    }

    /// Serves one request. Never fails: whatever goes wrong has an answer.
    ///
    /// The exchange ends with the returned body, or when the future or the body is dropped.
    pub async fn handle(self: &Rc<Self>, request: Request<Body>, peer: Peer) -> Response<Body> {
        self.metrics.request_began();
        let mut exchange = Box::new(Exchange::new(Rc::clone(self), request, peer));
        let response = match serve(&mut exchange).await {
            Ok(response) => response,
            Err(failure) => {
                exchange.note_failure(&failure);
                let response = failure.response(exchange.llm.protocol);
                forward::ai::in_own_words(&exchange, response)
            }
        };
        finish_head(exchange, response)
    }
}

/// The phases, in order.
async fn serve(exchange: &mut Exchange) -> Result<Response<Body>, Failure> {
    prepare(exchange)?;
    let found = find_route(exchange).await?;
    if let Some(matched) = found {
        exchange.chain = Arc::clone(&matched.route.chain);
        exchange.matched = Some(matched);
    }
    exchange.watch_body();
    if let Some(reply) = chain::run(exchange, Which::Global, Phase::Rewrite).await? {
        return Ok(reply);
    }
    if exchange.matched.is_none() {
        if let Some(reply) = chain::run(exchange, Which::Global, Phase::Access).await? {
            return Ok(reply);
        }
        return Err(Failure::NoRoute);
    }
    check_references(exchange)?;
    if let Some(reply) = chain::run(exchange, Which::Route, Phase::Rewrite).await? {
        return Ok(reply);
    }
    merge_consumer(exchange)?;
    if let Some(reply) = chain::run(exchange, Which::Route, Phase::RewriteInConsumer).await? {
        return Ok(reply);
    }
    if let Some(reply) = chain::run(exchange, Which::Global, Phase::Access).await? {
        return Ok(reply);
    }
    if let Some(reply) = chain::run(exchange, Which::Route, Phase::Access).await? {
        return Ok(reply);
    }
    forward::run(exchange).await
}

/// Makes the parts of the request that routing reads.
fn prepare(exchange: &mut Exchange) -> Result<(), Failure> {
    if matches!(exchange.received.method, Method::TRACE | Method::CONNECT) {
        return Err(Failure::MethodRefused);
    }
    forward::http::remove_named_by_connection(&mut exchange.request.headers);
    let settings = Arc::clone(&exchange.snapshot().settings);
    if let Some(max) = settings.client_max_body_size {
        exchange.limit_body(max)?;
    }
    let path = router::path::normalise(exchange.received.uri.path(), &settings.path_options)
        .map_err(|_| Failure::BadPath)?
        .into_owned();
    exchange.request.path = path;
    let headers = &mut exchange.request.headers;
    if let Some(authority) = exchange.received.uri.authority() {
        // `:authority` of HTTP/2 and the authority of a full URI come before whatever `Host` says
        // (RFC 9112 §3.2.2, RFC 9113 §8.3.1); plugins and targets know only `Host`.
        let (_, host) = authority
            .as_str()
            .rsplit_once('@')
            .unwrap_or(("", authority.as_str()));
        if let Ok(value) = HeaderValue::from_str(host) {
            headers.insert(header::HOST, value);
        }
    }
    let host = headers.get(header::HOST).map(HeaderValue::to_str);
    let host = host.and_then(Result::ok).unwrap_or_default();
    exchange.received.host = router::host::normalise(host).into_owned();
    exchange.snapshot().demands.check(exchange)?;
    forward::forwarded::set_if_routing_reads_it(exchange);
    Ok(())
}

/// Finds the route; reads the body first when a route's `vars` ask for it.
async fn find_route(exchange: &mut Exchange) -> Result<Option<Matched>, Failure> {
    let found = look_up(exchange);
    if !exchange.take_wants_body() {
        return Ok(found);
    }
    exchange.read_body_for_variables().await?;
    Ok(look_up(exchange))
}

fn look_up(exchange: &Exchange) -> Option<Matched> {
    let snapshot = exchange.snapshot();
    let headers = &exchange.request.headers;
    let raw_host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    let query = Query {
        path: &exchange.request.path,
        host: &exchange.received.host,
        raw_host,
        method: &exchange.request.method,
        remote_addr: exchange.peer.client.ip(),
        vars: exchange,
    };
    let found = snapshot.router.find(&query)?;
    Some(Matched {
        route: Arc::clone(&snapshot.routes[found.index]),
        uri: Arc::clone(found.matched_uri),
        host: found.matched_host.map(Arc::clone),
        params: found.params,
    })
}

/// A route whose service or plugin_config is gone answers at once, as in APISIX.
fn check_references(exchange: &Exchange) -> Result<(), Failure> {
    match exchange.route().map(|route| &route.backend) {
        Some(Backend::ServiceMissing) => Err(Failure::ServiceMissing),
        Some(Backend::PluginConfigMissing) => Err(Failure::PluginConfigMissing),
        _ => Ok(()),
    }
}

/// Lays the consumer's plugins over the route's.
fn merge_consumer(exchange: &mut Exchange) -> Result<(), Failure> {
    let Some(consumer) = exchange.consumer() else {
        return Ok(());
    };
    if consumer.group_missing {
        return Err(Failure::ConsumerGroupMissing);
    }
    if !consumer.chain.is_empty() {
        let merged = exchange.chain.with_consumer(&consumer.chain);
        exchange.filters = exchange.filters.carried_over(&exchange.chain, &merged);
        exchange.chain = Arc::new(merged);
        exchange.watch_body();
    }
    Ok(())
}

/// What a failed read of the client's body means.
pub(crate) fn body_failure(error: &CollectError) -> Failure {
    match error {
        CollectError::TooLarge(_) => Failure::BodyTooLarge,
        CollectError::Broken(source) => stream_failure(source),
    }
}

/// What an error of the client's body means.
pub(crate) fn stream_failure(error: &BodyError) -> Failure {
    if error.is::<crate::body::TooLong>() {
        return Failure::BodyTooLarge;
    }
    match error.downcast_ref::<crate::ports::BodyTimeout>() {
        Some(_) => Failure::BodyTimeout,
        None => Failure::BodyBroken,
    }
}

/// Lets plugins change the head, then gives the exchange to the body.
fn finish_head(mut exchange: Box<Exchange>, response: Response<Body>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    let mut head = ResponseHead {
        status: parts.status,
        headers: std::mem::take(&mut parts.headers),
        changes: Vec::new(),
    };
    for (name, value) in exchange.take_answer_headers() {
        head.headers.insert(name, value);
    }
    chain::filter_head(&mut exchange, Which::Global, &mut head);
    chain::filter_head(&mut exchange, Which::Route, &mut head);
    head.headers.insert(
        header::SERVER,
        exchange.snapshot().settings.server_header.clone(),
    );
    parts.status = head.status;
    parts.headers = head.headers;
    exchange.response.status = Some(parts.status);
    if exchange.wants().response_headers {
        exchange.response.headers = Some(Box::new(parts.headers.clone()));
    }
    // The connection can serve again once nobody holds on to what is left of the request.
    exchange.drop_unread_body();
    let relay = Relay::new(exchange, body, head.changes);
    Response::from_parts(parts, Body::Relay(Box::new(relay)))
}
