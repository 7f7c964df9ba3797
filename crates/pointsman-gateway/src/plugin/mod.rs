//! What a plugin is: a piece of configuration that takes part in a request at fixed points.
//!
//! A plugin is compiled once per place in the configuration and shared by all workers, so it
//! holds no per-request state: that lives in the [`Exchange`]. Each phase has a default that does
//! nothing; [`Plugin::phases`] says which ones are worth calling.

pub mod chain;
pub mod registry;

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::Value;

use crate::{
    exchange::Exchange, failure::Failure, forward::relay::BodyChange, observe::entry::Wants,
    plugins::ai_proxy::AiTarget, ports::LocalFuture, upstream::Upstream,
};

/// Takes part in requests.
pub trait Plugin: Send + Sync {
    /// The phases that this plugin implements.
    fn phases(&self) -> Phases;

    /// First phase: authentication, rewriting of the request. Runs before the consumer is merged.
    fn rewrite<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        let _ = exchange;
        Step::Done(Flow::Continue)
    }

    /// Second phase: decisions that need the consumer (limits, restrictions, destinations).
    fn access<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        let _ = exchange;
        Step::Done(Flow::Continue)
    }

    /// Changes the head of the response, whoever made it.
    fn header_filter(&self, exchange: &Exchange, head: &mut ResponseHead) {
        let _ = (exchange, head);
    }

    /// Whether a global rule's instance steps back when the route has one of its own.
    fn prefers_route(&self) -> bool {
        false
    }

    /// The phases in which one of its texts or conditions looks into the request's body, which is
    /// read before them: before its own `rewrite` or `access`, and, for what comes later, before the
    /// request goes out. A request that never goes out is logged without.
    fn reads_body(&self) -> Phases {
        Phases::default()
    }

    /// What it wants of the exchange while that is under way.
    fn wants(&self) -> Wants {
        Wants::default()
    }

    /// The instances that requests are sent to, for plugins that have any.
    fn ai_target(&self) -> Option<&Arc<AiTarget>> {
        None
    }

    /// The upstreams that it has built, for plugins that have any.
    fn upstreams(&self) -> &[Arc<Upstream>] {
        &[]
    }

    /// Called once, when the request has ended.
    fn log(&self, exchange: &Exchange) {
        let _ = exchange;
    }
}

/// Which phases a plugin implements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases(u8);

impl Phases {
    /// [`Plugin::rewrite`].
    pub const REWRITE: Self = Self(1);
    /// [`Plugin::access`].
    pub const ACCESS: Self = Self(2);
    /// [`Plugin::header_filter`].
    pub const HEADER_FILTER: Self = Self(4);
    /// [`Plugin::log`].
    pub const LOG: Self = Self(8);

    /// Both sets together.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These phases if `condition` holds, else none.
    pub const fn when(self, condition: bool) -> Self {
        if condition { self } else { Self(0) }
    }

    /// Whether `phase` is among them.
    pub const fn has(self, phase: Self) -> bool {
        self.0 & phase.0 != 0
    }
}

/// The result of a phase: at once, or later for the few plugins that wait for something.
pub enum Step<'a> {
    /// Decided.
    Done(Flow),
    /// Will be decided; the request waits.
    Later(LocalFuture<'a, Flow>),
}

/// How a request goes on after a plugin.
pub enum Flow {
    /// To the next plugin.
    Continue,
    /// Here and now, with this answer.
    Respond(Reply),
    /// Here and now, as a failure of the request itself.
    Fail(Failure),
}

/// An answer that a plugin gives itself.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Headers beside `Content-Type`.
    pub headers: HeaderMap,
    /// Its body.
    pub body: ReplyBody,
}

/// The body of a [`Reply`]. `_meta.error_response` replaces it when the status is an error.
#[derive(Clone, Debug)]
pub enum ReplyBody {
    /// None.
    Empty,
    /// Sent as it is, `text/plain`.
    Text(String),
    /// Serialised, with a newline as APISIX does, `application/json`.
    Json(Value),
    /// A page that says the status, as web servers send it, `text/html`.
    Page,
}

impl Reply {
    /// A reply with a JSON body.
    pub fn json(status: StatusCode, body: Value) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            body: ReplyBody::Json(body),
        }
    }

    /// A reply with a text body.
    pub fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            body: ReplyBody::Text(body.into()),
        }
    }

    /// A reply with a page that says its status.
    pub fn page(status: StatusCode) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            body: ReplyBody::Page,
        }
    }

    /// A reply without a body.
    pub fn empty(status: StatusCode) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            body: ReplyBody::Empty,
        }
    }

    /// The same reply with one more header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }
}

/// The head of a response on its way to the client.
pub struct ResponseHead {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// What is to become of its body, which is not here yet.
    pub changes: Vec<BodyChange>,
}
