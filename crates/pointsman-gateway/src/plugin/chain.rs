//! Which plugins run for a request, and in which order.
//!
//! A chain is compiled with the configuration: one entry per plugin, highest priority first. At
//! run time it only grows when a consumer brings plugins of its own. `_meta.filter` is evaluated
//! once per request, when the plugin's first phase comes up, and then remembered.

use std::{cmp::Reverse, sync::Arc};

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::Value;

use crate::{
    body::Body,
    exchange::Exchange,
    failure::{Failure, JSON, TEXT},
    observe::entry::Wants,
    plugin::{Flow, Phases, Plugin, Reply, ReplyBody, ResponseHead, Step},
    router::expr::Expr,
    variables,
};

/// Plugins in the order in which they run.
#[derive(Default)]
pub struct Chain {
    entries: Vec<Entry>,
    phases: Phases,
    /// Where one of its plugins looks into the request's body.
    reads_body: Phases,
    /// A `_meta.filter` looks into the body, which must be here before the first of them is asked.
    filters_read_body: bool,
    /// What its plugins want of an exchange while that is under way.
    wants: Wants,
    /// The AI plugin logs payloads, if anybody keeps a log.
    logs_payloads: bool,
}

/// One plugin at one place in the configuration.
#[derive(Clone)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// Its priority, `_meta.priority` applied.
    pub priority: i32,
    /// It.
    pub plugin: Arc<dyn Plugin>,
    /// `_meta.filter`.
    pub filter: Option<Arc<Expr>>,
    /// `_meta.error_response`.
    pub error_response: Option<Arc<Value>>,
    /// Comes from the consumer or its group.
    pub origin: Origin,
}

/// Where an entry comes from; decides whether its `rewrite` runs before or after authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Route, service, plugin_config or global rule.
    Route,
    /// Only the consumer or its group has it.
    Consumer,
    /// Both have it: `rewrite` ran with the route's, the rest runs with the consumer's.
    Both,
}

/// What `_meta.filter` said for each entry of a chain, as far as it was asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filters {
    asked: u64,
    skipped: u64,
}

impl Filters {
    /// What `self` says of the entries of `old`, for those of them that stay in `new`.
    pub(crate) fn carried_over(self, old: &Chain, new: &Chain) -> Self {
        let mut carried = Self::default();
        for (index, entry) in new.entries.iter().enumerate() {
            let stays = entry.origin == Origin::Route;
            let before = old
                .entries
                .iter()
                .position(|e| stays && e.name == entry.name);
            let Some(before) = before else { continue };
            carried.asked |= (self.asked >> before & 1) << index;
            carried.skipped |= (self.skipped >> before & 1) << index;
        }
        carried
    }
}

/// Which of an exchange's two chains runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Of the global rules.
    Global,
    /// Of the route and the consumer.
    Route,
}

/// A phase in which plugins can end the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// `rewrite` of the route's plugins.
    Rewrite,
    /// `rewrite` of the plugins that only the consumer has.
    RewriteInConsumer,
    /// `access`.
    Access,
}

impl Chain {
    /// A chain of `entries`, ordered by descending priority (ties: by name, so that the order
    /// does not depend on how a document spells its maps).
    pub fn new(mut entries: Vec<Entry>) -> Self {
        entries.sort_by_key(|entry| (Reverse(entry.priority), entry.name));
        entries.truncate(PLUGINS_MAX);
        let phases = entries
            .iter()
            .fold(Phases::default(), |all, e| all.and(e.plugin.phases()));
        let filters_read_body = entries
            .iter()
            .filter_map(|entry| entry.filter.as_deref())
            .any(|filter| filter.variables().any(variables::reads_body));
        let wants = entries
            .iter()
            .fold(Wants::default(), |all, e| all.and(e.plugin.wants()));
        let logs_payloads = entries
            .iter()
            .filter_map(|entry| entry.plugin.ai_target())
            .any(|target| target.logging.payloads);
        let reads_body = entries
            .iter()
            .fold(Phases::default(), |all, e| all.and(e.plugin.reads_body()));
        Self {
            phases,
            reads_body,
            filters_read_body,
            wants,
            logs_payloads,
            entries,
        }
    }

    /// Its entries in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry of the plugin called `name`.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// What the plugins of both chains want of an exchange while that is under way.
    pub fn wants(&self, other: &Self) -> Wants {
        let mut wants = self.wants.and(other.wants);
        // The text of a response is kept only if the AI plugin logs it and a logger is there.
        let has_loggers = wants != Wants::default();
        wants.llm_text = has_loggers && (self.logs_payloads || other.logs_payloads);
        wants
    }

    /// Whether one of its plugins looks into the request's body in `phase`.
    pub fn reads_body(&self, phase: Phases) -> bool {
        self.reads_body.has(phase)
    }

    /// This chain with the consumer's plugins laid over it.
    pub fn with_consumer(&self, consumer: &Self) -> Self {
        let mut entries: Vec<Entry> = Vec::with_capacity(self.entries.len() + 2);
        for entry in &self.entries {
            entries.push(match consumer.entry(entry.name) {
                Some(theirs) => Entry {
                    origin: Origin::Both,
                    ..theirs.clone()
                },
                None => entry.clone(),
            });
        }
        for theirs in &consumer.entries {
            if self.entry(theirs.name).is_none() {
                entries.push(Entry {
                    origin: Origin::Consumer,
                    ..theirs.clone()
                });
            }
        }
        Self::new(entries)
    }
}

/// Runs one phase of one of the exchange's chains. `Some` is the answer that ended the request.
pub async fn run(
    exchange: &mut Exchange,
    which: Which,
    phase: Phase,
) -> Result<Option<Response<Body>>, Failure> {
    let chain = chain_of(exchange, which);
    if chain.filters_read_body {
        exchange.read_body_for_variables().await?;
    }
    let bit = if phase == Phase::Access {
        Phases::ACCESS
    } else {
        Phases::REWRITE
    };
    if !chain.phases.has(bit) {
        return Ok(None);
    }
    for (index, entry) in chain.entries.iter().enumerate() {
        let due = match phase {
            Phase::Rewrite => entry.origin == Origin::Route,
            Phase::RewriteInConsumer => entry.origin == Origin::Consumer,
            Phase::Access => true,
        };
        if !due || !entry.plugin.phases().has(bit) || skipped(exchange, which, index, entry) {
            continue;
        }
        if chain.reads_body(bit) && entry.plugin.reads_body().has(bit) {
            exchange.read_body_for_variables().await?;
        }
        let step = match phase {
            Phase::Access => entry.plugin.access(exchange),
            Phase::Rewrite | Phase::RewriteInConsumer => entry.plugin.rewrite(exchange),
        };
        let flow = match step {
            Step::Done(flow) => flow,
            Step::Later(future) => future.await,
        };
        match flow {
            Flow::Continue => {}
            Flow::Respond(reply) => {
                return Ok(Some(respond(reply, entry.error_response.as_deref())));
            }
            Flow::Fail(failure) => return Err(failure),
        }
    }
    Ok(None)
}

/// Lets the plugins of one chain change the head of the response.
pub fn filter_head(exchange: &mut Exchange, which: Which, head: &mut ResponseHead) {
    let chain = chain_of(exchange, which);
    if !chain.phases.has(Phases::HEADER_FILTER) {
        return;
    }
    for (index, entry) in chain.entries.iter().enumerate() {
        if entry.plugin.phases().has(Phases::HEADER_FILTER)
            && !skipped(exchange, which, index, entry)
        {
            entry.plugin.header_filter(exchange, head);
        }
    }
}

/// Tells the plugins of one chain that the request has ended.
pub fn log(exchange: &mut Exchange, which: Which) {
    let chain = chain_of(exchange, which);
    if !chain.phases.has(Phases::LOG) {
        return;
    }
    for (index, entry) in chain.entries.iter().enumerate() {
        let steps_back = which == Which::Global
            && entry.plugin.prefers_route()
            && exchange.chain.entry(entry.name).is_some();
        if entry.plugin.phases().has(Phases::LOG)
            && !steps_back
            && !skipped(exchange, which, index, entry)
        {
            entry.plugin.log(exchange);
        }
    }
}

/// The response that stands for `reply`.
pub fn respond(reply: Reply, error_response: Option<&Value>) -> Response<Body> {
    let is_error = reply.status.as_u16() >= 400;
    let replaced = error_response
        .filter(|_| is_error)
        .map(|replacement| match replacement {
            Value::String(text) => ReplyBody::Text(text.clone()),
            other => ReplyBody::Json(other.clone()),
        });
    let (kind, body) = match replaced.unwrap_or(reply.body) {
        ReplyBody::Empty => (None, Body::Empty),
        ReplyBody::Text(text) => (Some(TEXT), Body::whole(text)),
        ReplyBody::Json(value) => (Some(JSON), Body::whole(format!("{value}\n"))),
        ReplyBody::Page if !is_error => (None, Body::Empty),
        ReplyBody::Page => (Some(HTML), Body::whole(page(reply.status))),
    };
    let mut response = Response::new(body);
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    if let Some(kind) = kind
        && !response.headers().contains_key(header::CONTENT_TYPE)
    {
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    response
}

/// The page that a web server sends with `status`.
fn page(status: StatusCode) -> String {
    let (code, reason) = (status.as_u16(), status.canonical_reason());
    let title = reason.map_or_else(|| code.to_string(), |reason| format!("{code} {reason}"));
    format!(
        "<html>\n<head><title>{title}</title></head>\n<body>\n\
         <center><h1>{title}</h1></center>\n</body>\n</html>\n"
    )
}

fn chain_of(exchange: &Exchange, which: Which) -> Arc<Chain> {
    match which {
        Which::Global => Arc::clone(&exchange.snapshot().global),
        Which::Route => Arc::clone(&exchange.chain),
    }
}

fn skipped(exchange: &mut Exchange, which: Which, index: usize, entry: &Entry) -> bool {
    let Some(filter) = &entry.filter else {
        return false;
    };
    let bit = 1u64 << index;
    let filters = *filters_of(exchange, which);
    if filters.asked & bit != 0 {
        return filters.skipped & bit != 0;
    }
    // APISIX runs the plugin when its filter cannot be evaluated.
    // Somebody else's question, such as a template's, does not count here.
    exchange.take_wants_body();
    let mut runs = filter.eval(exchange).unwrap_or_else(|error| {
        tracing::warn!(plugin = entry.name, %error, "_meta.filter failed; the plugin runs");
        true
    });
    // What could not be looked at must not switch off, say, authentication.
    runs |= exchange.take_wants_body();
    let filters = filters_of(exchange, which);
    filters.asked |= bit;
    if !runs {
        filters.skipped |= bit;
    }
    !runs
}

fn filters_of(exchange: &mut Exchange, which: Which) -> &mut Filters {
    match which {
        Which::Global => &mut exchange.global_filters,
        Which::Route => &mut exchange.filters,
    }
}

const HTML: &str = "text/html; charset=utf-8";
/// One bit each in [`Filters`]; far above the number of plugins that exist.
const PLUGINS_MAX: usize = 64;
