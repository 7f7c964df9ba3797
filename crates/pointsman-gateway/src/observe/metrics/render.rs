//! Prometheus' text format 0.0.4.
//!
//! Written here rather than with a library, because the libraries add `_total` to the names of
//! counters, and these names are a contract.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    sync::Arc,
};

use super::{
    Histogram, MetricOptions, Shard,
    families::{
        CONSUMER, Counts, LATENCY_MS, Labels, MATCHED_HOST, MATCHED_URI, MODEL, NODE,
        REQUEST_MODEL, REQUEST_TYPE, ROUTE, SERVICE, TOKENS,
    },
};

/// A sample that something else provides.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Metric without prefix.
    pub family: &'static str,
    /// Labels in order.
    pub labels: Vec<(&'static str, String)>,
    /// Its value.
    pub value: f64,
}

type Pairs<'a> = Vec<(&'static str, &'a str)>;

/// Writes everything.
pub(super) fn render(shards: &[Arc<Shard>], extra: &[Sample], options: &MetricOptions) -> String {
    let mut series: HashMap<Labels, Counts> = HashMap::new();
    let mut active: BTreeMap<[String; 11], i64> = BTreeMap::new();
    let (mut began, mut ended) = (0u64, 0u64);
    for shard in shards {
        let inner = shard.lock();
        began += inner.began;
        ended += inner.ended;
        for (labels, counts) in inner.series.values().flatten() {
            series.entry(labels.clone()).or_default().merge(counts);
        }
        for (labels, value) in inner.active.values().flatten() {
            *active.entry(labels.0.clone()).or_default() += value;
        }
    }
    let mut series: Vec<(Labels, Counts)> = series.into_iter().collect();
    series.sort_by(|(a, _), (b, _)| {
        (&a.texts, a.status, a.source).cmp(&(&b.texts, b.status, b.source))
    });
    let mut page = Page {
        options,
        text: String::with_capacity(16 << 10),
    };
    page.requests(&series);
    page.llm(&series);
    page.active(&active);
    page.process(began, ended);
    page.extra(extra);
    page.text
}

struct Page<'a> {
    options: &'a MetricOptions,
    text: String,
}

impl Page<'_> {
    fn requests(&mut self, series: &[(Labels, Counts)]) {
        self.head("http_status", "counter", "HTTP status codes per service");
        for (labels, counts) in series {
            let code = labels.status.to_string();
            let t = &labels.texts;
            let pairs: Pairs<'_> = vec![
                ("code", &code),
                ("route", &t[ROUTE]),
                ("matched_uri", &t[MATCHED_URI]),
                ("matched_host", &t[MATCHED_HOST]),
                ("service", &t[SERVICE]),
                ("consumer", &t[CONSUMER]),
                ("node", &t[NODE]),
                ("request_type", &t[REQUEST_TYPE]),
                ("request_llm_model", &t[REQUEST_MODEL]),
                ("llm_model", &t[MODEL]),
                ("response_source", labels.source),
            ];
            self.sample("http_status", "", &pairs, &counts.requests.to_string());
        }
        let grouped = grouped(series, &GENERIC);
        self.head(
            "http_latency",
            "histogram",
            "HTTP request latency in milliseconds",
        );
        for (texts, counts) in &grouped {
            for (kind, histogram) in [
                ("request", &counts.request_ms),
                ("upstream", &counts.upstream_ms),
                ("apisix", &counts.apisix_ms),
            ] {
                let mut pairs: Pairs<'_> = vec![("type", kind)];
                pairs.extend(
                    GENERIC
                        .iter()
                        .zip(texts)
                        .map(|((name, _), text)| (*name, text.as_str())),
                );
                self.histogram("http_latency", &pairs, histogram, &LATENCY_MS);
            }
        }
        self.head("bandwidth", "counter", "Bytes by direction");
        for (texts, counts) in &grouped {
            for (kind, bytes) in [("ingress", counts.ingress), ("egress", counts.egress)] {
                let mut pairs: Pairs<'_> = vec![("type", kind)];
                pairs.extend(
                    GENERIC
                        .iter()
                        .zip(texts)
                        .map(|((name, _), text)| (*name, text.as_str())),
                );
                self.sample("bandwidth", "", &pairs, &bytes.to_string());
            }
        }
    }

    fn llm(&mut self, series: &[(Labels, Counts)]) {
        let llm: Vec<(Labels, Counts)> = series
            .iter()
            .filter(|(_, counts)| counts.llm.is_some())
            .cloned()
            .collect();
        if llm.is_empty() {
            return;
        }
        let grouped = grouped(&llm, &LLM);
        let pairs_of = |texts: &[String]| -> Vec<(&'static str, String)> {
            LLM.iter()
                .zip(texts)
                .map(|((name, _), text)| (*name, text.clone()))
                .collect()
        };
        self.head(
            "llm_latency",
            "histogram",
            "LLM request latency in milliseconds",
        );
        for (texts, counts) in &grouped {
            let Some(llm) = &counts.llm else { continue };
            let owned = pairs_of(texts);
            for (kind, histogram) in [("total", &llm.total_ms), ("ttft", &llm.first_token_ms)] {
                let mut pairs: Pairs<'_> = vec![("type", kind)];
                pairs.extend(owned.iter().map(|(name, text)| (*name, text.as_str())));
                self.histogram("llm_latency", &pairs, histogram, &LATENCY_MS);
            }
        }
        for (name, help) in [
            ("llm_prompt_tokens", "Prompt tokens"),
            ("llm_completion_tokens", "Completion tokens"),
        ] {
            self.head(name, "counter", help);
            for (texts, counts) in &grouped {
                let Some(llm) = &counts.llm else { continue };
                let owned = pairs_of(texts);
                let pairs: Pairs<'_> = owned
                    .iter()
                    .map(|(name, text)| (*name, text.as_str()))
                    .collect();
                let value = if name == "llm_prompt_tokens" {
                    llm.prompt
                } else {
                    llm.completion
                };
                self.sample(name, "", &pairs, &value.to_string());
            }
        }
        for (name, help) in [
            ("llm_prompt_tokens_dist", "Prompt tokens per request"),
            (
                "llm_completion_tokens_dist",
                "Completion tokens per request",
            ),
        ] {
            self.head(name, "histogram", help);
            for (texts, counts) in &grouped {
                let Some(llm) = &counts.llm else { continue };
                let owned = pairs_of(texts);
                let pairs: Pairs<'_> = owned
                    .iter()
                    .map(|(name, text)| (*name, text.as_str()))
                    .collect();
                let histogram = if name == "llm_prompt_tokens_dist" {
                    &llm.prompt_dist
                } else {
                    &llm.completion_dist
                };
                self.histogram(name, &pairs, histogram, &TOKENS);
            }
        }
    }

    fn active(&mut self, active: &BTreeMap<[String; 11], i64>) {
        if active.is_empty() {
            return;
        }
        const NAMES: [&str; 11] = [
            "route",
            "route_id",
            "matched_uri",
            "matched_host",
            "service",
            "service_id",
            "consumer",
            "node",
            "request_type",
            "request_llm_model",
            "llm_model",
        ];
        self.head("llm_active_connections", "gauge", "LLM attempts under way");
        for (labels, value) in active {
            let pairs: Pairs<'_> = NAMES
                .iter()
                .zip(labels)
                .map(|(name, text)| (*name, text.as_str()))
                .collect();
            self.sample("llm_active_connections", "", &pairs, &value.to_string());
        }
    }

    fn process(&mut self, began: u64, ended: u64) {
        self.head("http_requests_total", "gauge", "Requests since the start");
        self.sample("http_requests_total", "", &Vec::new(), &began.to_string());
        self.head(
            "nginx_http_current_connections",
            "gauge",
            "Requests under way, by state",
        );
        let under_way = began.saturating_sub(ended).to_string();
        self.sample(
            "nginx_http_current_connections",
            "",
            &vec![("state", "active")],
            &under_way,
        );
        self.head("node_info", "gauge", "This gateway");
        let hostname = self.options.hostname.clone();
        let pairs = vec![
            ("hostname", hostname.as_str()),
            ("version", env!("CARGO_PKG_VERSION")),
        ];
        self.sample("node_info", "", &pairs, "1");
    }

    fn extra(&mut self, extra: &[Sample]) {
        let mut families: Vec<&'static str> = extra.iter().map(|sample| sample.family).collect();
        families.dedup();
        for family in families {
            self.head(family, "gauge", "Reported by the control thread");
            for sample in extra.iter().filter(|sample| sample.family == family) {
                let pairs: Pairs<'_> = sample
                    .labels
                    .iter()
                    .map(|(name, text)| (*name, text.as_str()))
                    .collect();
                self.sample(family, "", &pairs, &sample.value.to_string());
            }
        }
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let prefix = &self.options.prefix;
        let _ = writeln!(
            self.text,
            "# HELP {prefix}{name} {help}\n# TYPE {prefix}{name} {kind}"
        );
    }

    fn histogram(&mut self, name: &str, pairs: &Pairs<'_>, histogram: &Histogram, bounds: &[u64]) {
        if histogram.count == 0 {
            return;
        }
        let mut below = 0;
        for (bound, bucket) in bounds.iter().zip(histogram.buckets) {
            below += bucket;
            let bound = bound.to_string();
            let mut with_bound = pairs.clone();
            with_bound.push(("le", &bound));
            self.sample(name, "_bucket", &with_bound, &below.to_string());
        }
        let mut with_bound = pairs.clone();
        with_bound.push(("le", "+Inf"));
        self.sample(name, "_bucket", &with_bound, &histogram.count.to_string());
        self.sample(name, "_sum", pairs, &histogram.sum.to_string());
        self.sample(name, "_count", pairs, &histogram.count.to_string());
    }

    fn sample(&mut self, name: &str, suffix: &str, pairs: &Pairs<'_>, value: &str) {
        let disabled = self.options.disabled.get(name);
        let _ = write!(self.text, "{}{name}{suffix}", self.options.prefix);
        for (index, (label, text)) in pairs.iter().enumerate() {
            let is_disabled = disabled.is_some_and(|labels| labels.contains(*label));
            let text = if is_disabled { "" } else { text };
            self.text.push(if index == 0 { '{' } else { ',' });
            let _ = write!(self.text, "{label}=\"");
            escape(text, &mut self.text);
            self.text.push('"');
        }
        if !pairs.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

/// Adds up series that differ only in labels that a family does not have.
fn grouped(
    series: &[(Labels, Counts)],
    labels: &[(&'static str, usize)],
) -> BTreeMap<Vec<String>, Counts> {
    let mut groups: BTreeMap<Vec<String>, Counts> = BTreeMap::new();
    for (owned, counts) in series {
        let key = labels
            .iter()
            .map(|(_, at)| owned.texts[*at].clone())
            .collect();
        groups.entry(key).or_default().merge(counts);
    }
    groups
}

fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

/// Labels of `http_latency` and `bandwidth`, after `type`.
const GENERIC: [(&str, usize); 7] = [
    ("route", ROUTE),
    ("service", SERVICE),
    ("consumer", CONSUMER),
    ("node", NODE),
    ("request_type", REQUEST_TYPE),
    ("request_llm_model", REQUEST_MODEL),
    ("llm_model", MODEL),
];
/// Labels of the LLM families.
const LLM: [(&str, usize); 7] = [
    ("route_id", ROUTE),
    ("service_id", SERVICE),
    ("consumer", CONSUMER),
    ("node", NODE),
    ("request_type", REQUEST_TYPE),
    ("request_llm_model", REQUEST_MODEL),
    ("llm_model", MODEL),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_labels_stay_inside_their_quotes() {
        let mut text = String::new();
        escape("a\"b\\c\nd", &mut text);
        assert_eq!(text, "a\\\"b\\\\c\\nd");
    }
}
