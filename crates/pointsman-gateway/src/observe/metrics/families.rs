//! Which numbers there are, and under which labels.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{Hash, Hasher},
    time::Instant,
};

use serde_json::Value;

use super::{Histogram, layout::Layout};
use crate::{clock, config::settings::PrometheusSettings, exchange::Exchange};

/// Settings and metadata that change how metrics are shown.
#[derive(Clone, Debug)]
pub struct MetricOptions {
    /// Start of every name.
    pub prefix: String,
    /// Labels that are blank, by metric without prefix.
    pub disabled: BTreeMap<String, BTreeSet<String>>,
    /// The machine's name.
    pub hostname: String,
}

impl MetricOptions {
    /// From `plugin_attr.prometheus` and the plugin's metadata.
    pub fn new(settings: &PrometheusSettings, metadata: Option<&Value>, hostname: &str) -> Self {
        let mut disabled: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let labels = metadata.and_then(|metadata| metadata.get("disabled_labels")?.as_object());
        for (metric, list) in labels.into_iter().flatten() {
            let names = list
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str);
            disabled.insert(metric.clone(), names.map(str::to_owned).collect());
        }
        Self {
            prefix: settings.metric_prefix.clone(),
            disabled,
            hostname: hostname.to_owned(),
        }
    }
}

/// Everything that distinguishes one series of requests from another, borrowed.
#[derive(Hash)]
pub(super) struct LabelsRef<'a> {
    pub(super) status: u16,
    pub(super) source: &'a str,
    pub(super) texts: [&'a str; 9],
    /// Values of all further labels.
    pub(super) extra: &'a [String],
}

/// The same, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Labels {
    pub(super) status: u16,
    pub(super) source: &'static str,
    /// route, service, consumer, node, matched_uri, matched_host, request_type,
    /// request_llm_model, llm_model.
    pub(super) texts: [String; 9],
    /// Values of all further labels.
    pub(super) extra: Box<[String]>,
}

pub(super) const ROUTE: usize = 0;
pub(super) const SERVICE: usize = 1;
pub(super) const CONSUMER: usize = 2;
pub(super) const NODE: usize = 3;
pub(super) const MATCHED_URI: usize = 4;
pub(super) const MATCHED_HOST: usize = 5;
pub(super) const REQUEST_TYPE: usize = 6;
pub(super) const REQUEST_MODEL: usize = 7;
pub(super) const MODEL: usize = 8;

impl<'a> LabelsRef<'a> {
    /// The labels of a request that has ended.
    pub(super) fn of(exchange: &'a Exchange, prefer_name: bool, extra: &'a [String]) -> Self {
        let route = exchange.route();
        let (route_label, service_label) = match (route, prefer_name) {
            (Some(route), true) => (
                if route.name.is_empty() {
                    route.id.as_str()
                } else {
                    route.name.as_str()
                },
                route
                    .service_name
                    .as_deref()
                    .or(route.service_id.as_deref())
                    .unwrap_or_default(),
            ),
            (Some(route), false) => (
                route.id.as_str(),
                route.service_id.as_deref().unwrap_or_default(),
            ),
            (None, _) => ("", ""),
        };
        let matched = exchange.matched.as_ref();
        Self {
            status: exchange
                .response
                .status
                .map_or(499, |status| status.as_u16()),
            source: exchange.response_source(),
            texts: [
                route_label,
                service_label,
                exchange
                    .consumer()
                    .map_or("", |consumer| consumer.username.as_str()),
                node(exchange),
                matched.map_or("", |matched| &*matched.uri),
                matched
                    .and_then(|matched| matched.host.as_deref())
                    .unwrap_or_default(),
                exchange.request_type(),
                model(exchange.llm.request_model.as_deref()),
                model(exchange.llm.model.as_deref()),
            ],
            extra,
        }
    }

    pub(super) fn is(&self, owned: &Labels) -> bool {
        self.status == owned.status
            && self.source == owned.source
            && self.texts == owned.texts
            && *self.extra == *owned.extra
    }

    pub(super) fn to_owned(&self) -> Labels {
        Labels {
            status: self.status,
            source: if self.source == "upstream" {
                "upstream"
            } else {
                "apisix"
            },
            texts: self.texts.map(str::to_owned),
            extra: self.extra.into(),
        }
    }

    /// The labels under which all further series count.
    pub(super) fn overflow(&self) -> Labels {
        let mut labels = self.to_owned();
        for chosen_by_clients in [MATCHED_HOST, REQUEST_MODEL, MODEL] {
            "<overflow>".clone_into(&mut labels.texts[chosen_by_clients]);
        }
        labels.extra.fill("<overflow>".to_owned());
        labels
    }
}

impl Labels {
    pub(super) fn borrow(&self) -> LabelsRef<'_> {
        LabelsRef {
            status: self.status,
            source: self.source,
            texts: self.texts.each_ref().map(String::as_str),
            extra: &self.extra,
        }
    }
}

impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.borrow().hash(state);
    }
}

/// The instance, or the node's address.
fn node(exchange: &Exchange) -> &str {
    if let Some(instance) = exchange.llm.instance.as_deref() {
        return instance;
    }
    let address = exchange
        .attempts
        .last()
        .map_or("", |attempt| &*attempt.address);
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

/// A model's name as a label.
fn model(name: Option<&str>) -> &str {
    cut(name.unwrap_or_default())
}

/// What is kept of a value that clients choose.
pub(super) fn cut(value: &str) -> &str {
    let mut end = value.len().min(VALUE_BYTES_MAX);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    &value[..end]
}

/// Labels of `llm_active_connections`.
pub(super) fn active_labels(exchange: &Exchange) -> [&str; 11] {
    let route = exchange.route();
    let matched = exchange.matched.as_ref();
    [
        route.map_or("", |route| route.name.as_str()),
        route.map_or("", |route| route.id.as_str()),
        matched.map_or("", |matched| &*matched.uri),
        matched
            .and_then(|matched| matched.host.as_deref())
            .unwrap_or_default(),
        route
            .and_then(|route| route.service_name.as_deref())
            .unwrap_or_default(),
        route
            .and_then(|route| route.service_id.as_deref())
            .unwrap_or_default(),
        exchange
            .consumer()
            .map_or("", |consumer| consumer.username.as_str()),
        exchange.llm.instance.as_deref().unwrap_or_default(),
        exchange.request_type(),
        model(exchange.llm.request_model.as_deref()),
        model(exchange.llm.model.as_deref()),
    ]
}

/// What one request adds.
pub(super) struct Facts {
    total_ms: u64,
    upstream_ms: Option<u64>,
    ingress: u64,
    egress: u64,
    llm: Option<LlmFacts>,
    /// When, if that matters.
    at: Option<Instant>,
}

struct LlmFacts {
    prompt: u64,
    completion: u64,
    /// Whole time and, for a stream, time to first token; only of an answer that is no error.
    latency: Option<(u64, Option<u64>)>,
}

impl Facts {
    /// The facts of a request that has ended.
    pub(super) fn of(exchange: &Exchange, layout: &Layout) -> Self {
        let total_ms = millis(exchange.took());
        let upstream = exchange.attempts.iter().filter_map(|a| a.total).sum();
        let upstream_ms = (!exchange.attempts.is_empty()).then(|| millis(upstream));
        let llm = exchange.llm.protocol.map(|_| {
            let usage = exchange.llm.usage.unwrap_or_default();
            let is_fine = exchange
                .response
                .status
                .is_some_and(|status| status.as_u16() < 400);
            let latency = exchange
                .llm
                .first_token_ms
                .filter(|_| is_fine)
                .map(|first| {
                    let first = exchange.llm.stream.then_some(first);
                    (exchange.llm.response_ms.unwrap_or(total_ms), first)
                });
            LlmFacts {
                prompt: usage.prompt,
                completion: usage.completion,
                latency,
            }
        });
        Self {
            total_ms,
            upstream_ms,
            ingress: exchange.request_bytes(),
            egress: exchange.response.body_bytes,
            llm,
            at: layout.expires().then(clock::now),
        }
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What a series has come to.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) requests: u64,
    pub(super) request_ms: Histogram,
    pub(super) upstream_ms: Histogram,
    pub(super) apisix_ms: Histogram,
    pub(super) ingress: u64,
    pub(super) egress: u64,
    pub(super) llm: Option<Box<LlmCounts>>,
    /// When it was last added to, if that matters.
    pub(super) last: Option<Instant>,
}

/// The LLM side of a series.
#[derive(Clone, Debug, Default)]
pub(super) struct LlmCounts {
    pub(super) prompt: u64,
    pub(super) completion: u64,
    pub(super) prompt_dist: Histogram,
    pub(super) completion_dist: Histogram,
    pub(super) total_ms: Histogram,
    pub(super) first_token_ms: Histogram,
}

impl Counts {
    pub(super) fn add(&mut self, facts: &Facts, layout: &Layout) {
        self.requests += 1;
        self.last = facts.at;
        self.request_ms.observe(facts.total_ms, &layout.http_ms);
        if let Some(upstream) = facts.upstream_ms {
            self.upstream_ms.observe(upstream, &layout.http_ms);
        }
        let own = facts
            .total_ms
            .saturating_sub(facts.upstream_ms.unwrap_or(0));
        self.apisix_ms.observe(own, &layout.http_ms);
        self.ingress += facts.ingress;
        self.egress += facts.egress;
        let Some(llm) = &facts.llm else { return };
        let counts = self.llm.get_or_insert_default();
        counts.prompt += llm.prompt;
        counts.completion += llm.completion;
        counts
            .prompt_dist
            .observe(llm.prompt, &layout.prompt_tokens);
        counts
            .completion_dist
            .observe(llm.completion, &layout.completion_tokens);
        if let Some((total, first)) = llm.latency {
            counts.total_ms.observe(total, &layout.llm_ms);
            if let Some(first) = first {
                counts.first_token_ms.observe(first, &layout.llm_ms);
            }
        }
    }
}

/// What APISIX keeps of a model's name, and we of everything that clients choose.
const VALUE_BYTES_MAX: usize = 128;
