//! What shape the series have: bounds of histograms and further labels.
//!
//! `plugin_attr.prometheus` decides, once: what is counted under one shape is never shown under
//! another.

use std::{collections::BTreeMap, time::Duration};

use super::families::cut;
use crate::{config::settings::PrometheusSettings, exchange::Exchange, template::Template};

/// Bounds, further labels and lifetimes of the process's metrics.
#[derive(Debug)]
pub(super) struct Layout {
    /// Bounds of `http_latency`, ms.
    pub(super) http_ms: Vec<f64>,
    /// Bounds of `llm_latency`, ms.
    pub(super) llm_ms: Vec<f64>,
    /// Bounds of `llm_prompt_tokens_dist`.
    pub(super) prompt_tokens: Vec<f64>,
    /// Bounds of `llm_completion_tokens_dist`.
    pub(super) completion_tokens: Vec<f64>,
    /// The values of all further labels.
    templates: Vec<Template>,
    /// Further labels by metric: name, and which value.
    extra: BTreeMap<String, Vec<(String, usize)>>,
    /// After what time without a request a series is no longer shown.
    expire: BTreeMap<String, Duration>,
}

impl Layout {
    pub(super) fn new(settings: &PrometheusSettings) -> Self {
        let bounds = |set: &Option<Vec<f64>>, default: &[f64]| {
            set.clone().unwrap_or_else(|| default.to_vec())
        };
        let mut layout = Self {
            http_ms: bounds(&settings.default_buckets, &LATENCY_MS),
            llm_ms: bounds(&settings.llm_latency_buckets, &LATENCY_MS),
            prompt_tokens: bounds(&settings.llm_prompt_tokens_buckets, &TOKENS),
            completion_tokens: bounds(&settings.llm_completion_tokens_buckets, &TOKENS),
            templates: Vec::new(),
            extra: BTreeMap::new(),
            expire: BTreeMap::new(),
        };
        for (metric, own) in &settings.metrics {
            for (name, value) in &own.extra_labels {
                let labels = layout.extra.entry(metric.clone()).or_default();
                labels.push((name.clone(), layout.templates.len()));
                layout.templates.push(Template::parse(value));
            }
            if let Some(expire) = own.expire {
                layout.expire.insert(metric.clone(), expire);
            }
        }
        layout
    }

    /// The values of all further labels for one request; nothing is allocated if there are none.
    ///
    /// A client may send what it likes for them, and a series keeps it: so the number of series is
    /// bounded ([`super::SERIES_MAX`]), and so is the length of a value.
    pub(super) fn values(&self, exchange: &Exchange) -> Box<[String]> {
        self.templates
            .iter()
            .map(|template| cut(&template.render(exchange).text).to_owned())
            .collect()
    }

    /// Further labels of a metric (without prefix): name, and which value.
    pub(super) fn extra(&self, metric: &str) -> &[(String, usize)] {
        self.extra.get(metric).map_or(&[], Vec::as_slice)
    }

    /// After what time without a request a series of `metric` is no longer shown.
    pub(super) fn expire(&self, metric: &str) -> Option<Duration> {
        self.expire.get(metric).copied()
    }

    /// Whether any series is ever too old.
    pub(super) fn expires(&self) -> bool {
        !self.expire.is_empty()
    }
}

/// Bounds of latencies, ms.
const LATENCY_MS: [f64; 15] = [
    1., 2., 5., 10., 20., 50., 100., 200., 500., 1e3, 2e3, 5e3, 1e4, 3e4, 6e4,
];
/// Bounds of token counts.
const TOKENS: [f64; 16] = [
    1., 10., 50., 100., 200., 500., 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6,
];
