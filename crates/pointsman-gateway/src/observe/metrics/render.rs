//! Prometheus' text format 0.0.4.
//!
//! Written here rather than with a library, because the libraries add `_total` to the names of
//! counters, and these names are a contract.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt::{Display, Write as _},
    sync::Arc,
    time::Instant,
};

use super::{
    Clients, Histogram, MetricOptions, Shard,
    families::{
        CONSUMER, Counts, Labels, LlmCounts, MATCHED_HOST, MATCHED_URI, MODEL, NODE, REQUEST_MODEL,
        REQUEST_TYPE, ROUTE, SERVICE,
    },
    layout::Layout,
};
use crate::clock;

/// A metric whose samples something else provides.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// Its name, without prefix if that is APISIX's.
    pub name: &'static str,
    /// `counter` or `gauge`.
    pub kind: &'static str,
    /// What it says.
    pub help: &'static str,
    /// Who named it.
    pub owner: Owner,
}

/// Who named a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// APISIX: `metric_prefix` goes before it.
    Apisix,
    /// Pointsman: the name is whole.
    Pointsman,
}

/// A sample that something else provides.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// What it is a sample of.
    pub family: &'static Family,
    /// Labels in order.
    pub labels: Vec<(&'static str, String)>,
    /// Its value.
    pub value: f64,
}

/// Writes everything.
pub(super) fn render(
    shards: &[Arc<Shard>],
    extra: &[Sample],
    layout: &Layout,
    options: &MetricOptions,
) -> String {
    let mut series: Vec<(Labels, Counts)> = Vec::new();
    let mut active: BTreeMap<Vec<String>, i64> = BTreeMap::new();
    let (mut began, mut ended) = (0u64, 0u64);
    let mut clients = Clients::default();
    for shard in shards {
        let inner = shard.lock();
        began += inner.began;
        ended += inner.ended;
        clients.accepted += inner.clients.accepted;
        clients.handled += inner.clients.handled;
        clients.closed += inner.clients.closed;
        series.extend(inner.series.values().flatten().cloned());
        for (labels, value) in inner.active.values().flatten() {
            let further = layout.extra(ACTIVE.name).iter();
            let further = further.map(|(_, at)| &labels.extra[*at]);
            let texts = labels.texts.iter().chain(further);
            let blank = options.disabled.get(ACTIVE.name);
            let names = ACTIVE.names(layout);
            let key = names.zip(texts).map(|(name, text)| {
                match blank.is_some_and(|names| names.contains(name)) {
                    true => String::new(),
                    false => text.clone(),
                }
            });
            *active.entry(key.collect()).or_default() += value;
        }
    }
    let mut page = Page {
        options,
        layout,
        now: clock::now(),
        text: String::with_capacity(16 << 10),
    };
    page.requests(&series);
    page.llm(&series);
    if !active.is_empty() {
        page.head(ACTIVE.name, "gauge", ACTIVE.help);
        for (texts, value) in &active {
            page.sample(&ACTIVE, "", &[], texts, &[], value);
        }
    }
    page.process(began, ended, clients);
    page.extra(extra);
    page.text
}

/// A metric of requests.
struct RequestFamily {
    /// Without prefix.
    name: &'static str,
    help: &'static str,
    labels: &'static [(&'static str, Label)],
}

/// Whether samples of `metric` (without prefix) have a label of that name anyhow. A name that
/// stands twice makes scrapers refuse the whole page.
pub(crate) fn has_label(metric: &str, label: &str) -> bool {
    let families = [
        &HTTP_STATUS,
        &HTTP_LATENCY,
        &BANDWIDTH,
        &LLM_LATENCY,
        &PROMPT_TOKENS,
        &COMPLETION_TOKENS,
        &PROMPT_DIST,
        &COMPLETION_DIST,
        &ACTIVE,
    ];
    let of_metric = families.iter().filter(|family| family.name == metric);
    let mut own = of_metric.flat_map(|family| family.labels);
    let has_type = matches!(metric, "http_latency" | "bandwidth" | "llm_latency");
    label == "le" || (label == "type" && has_type) || own.any(|(name, _)| *name == label)
}

/// Where a label's value comes from.
#[derive(Clone, Copy)]
enum Label {
    Code,
    Source,
    Text(usize),
}

impl RequestFamily {
    fn names<'a>(&'a self, layout: &'a Layout) -> impl Iterator<Item = &'a str> {
        let own = self.labels.iter().map(|(name, _)| *name);
        let further = layout.extra(self.name).iter();
        own.chain(further.map(|(name, _)| name.as_str()))
    }
}

struct Page<'a> {
    options: &'a MetricOptions,
    layout: &'a Layout,
    now: Instant,
    text: String,
}

/// A group of series and what they come to.
type Groups<'a, T> = BTreeMap<Vec<Cow<'a, str>>, T>;

impl Page<'_> {
    /// Adds up the series that `family` does not tell apart, because it lacks a label or has
    /// blanked it. Leaves out what has been idle for too long.
    fn groups<'a, T: Default>(
        &self,
        family: &RequestFamily,
        series: &'a [(Labels, Counts)],
        add: impl Fn(&mut T, &Counts),
    ) -> Groups<'a, T> {
        let blank = self.options.disabled.get(family.name);
        let is_blank = |name: &str| blank.is_some_and(|names| names.contains(name));
        let further = self.layout.extra(family.name);
        let mut groups: Groups<'a, (T, Option<Instant>)> = BTreeMap::new();
        for (labels, counts) in series {
            let own = family.labels.iter().map(|(name, label)| match label {
                _ if is_blank(name) => Cow::Borrowed(""),
                Label::Code => Cow::Owned(labels.status.to_string()),
                Label::Source => Cow::Borrowed(labels.source),
                Label::Text(at) => Cow::Borrowed(labels.texts[*at].as_str()),
            });
            let further = further.iter().map(|(name, at)| match is_blank(name) {
                true => Cow::Borrowed(""),
                false => Cow::Borrowed(labels.extra[*at].as_str()),
            });
            let (sum, last) = groups.entry(own.chain(further).collect()).or_default();
            add(sum, counts);
            *last = (*last).max(counts.last);
        }
        let expire = self.layout.expire(family.name);
        let is_fresh = |last: Option<Instant>| match (expire, last) {
            (Some(expire), Some(last)) => self.now.saturating_duration_since(last) < expire,
            _ => true,
        };
        groups
            .into_iter()
            .filter(|(_, (_, last))| is_fresh(*last))
            .map(|(key, (sum, _))| (key, sum))
            .collect()
    }

    fn requests(&mut self, series: &[(Labels, Counts)]) {
        let add = |sum: &mut u64, counts: &Counts| *sum += counts.requests;
        self.counter(&HTTP_STATUS, &self.groups(&HTTP_STATUS, series, add));
        let groups = self.groups(&HTTP_LATENCY, series, |sum: &mut [Histogram; 3], counts| {
            sum[0].add(&counts.request_ms);
            sum[1].add(&counts.upstream_ms);
            sum[2].add(&counts.apisix_ms);
        });
        let kinds = ["request", "upstream", "apisix"];
        self.histograms(&HTTP_LATENCY, &groups, kinds, &self.layout.http_ms);
        let groups = self.groups(&BANDWIDTH, series, |sum: &mut [u64; 2], counts| {
            sum[0] += counts.ingress;
            sum[1] += counts.egress;
        });
        self.head(BANDWIDTH.name, "counter", BANDWIDTH.help);
        for (texts, values) in &groups {
            for (kind, value) in ["ingress", "egress"].iter().zip(values) {
                self.sample(&BANDWIDTH, "", &[("type", kind)], texts, &[], value);
            }
        }
    }

    fn llm(&mut self, series: &[(Labels, Counts)]) {
        let series: Vec<(Labels, Counts)> = series
            .iter()
            .filter(|(_, counts)| counts.llm.is_some())
            .cloned()
            .collect();
        if series.is_empty() {
            return;
        }
        let groups = self.groups(&LLM_LATENCY, &series, |sum: &mut [Histogram; 2], counts| {
            if let Some(llm) = &counts.llm {
                sum[0].add(&llm.total_ms);
                sum[1].add(&llm.first_token_ms);
            }
        });
        let kinds = ["total", "ttft"];
        self.histograms(&LLM_LATENCY, &groups, kinds, &self.layout.llm_ms);
        let layout = self.layout;
        self.tokens(&PROMPT_TOKENS, &series, |llm| llm.prompt);
        self.tokens(&COMPLETION_TOKENS, &series, |llm| llm.completion);
        self.distribution(&PROMPT_DIST, &series, &layout.prompt_tokens, |llm| {
            &llm.prompt_dist
        });
        self.distribution(
            &COMPLETION_DIST,
            &series,
            &layout.completion_tokens,
            |llm| &llm.completion_dist,
        );
    }

    fn tokens(
        &mut self,
        family: &RequestFamily,
        series: &[(Labels, Counts)],
        of: impl Fn(&LlmCounts) -> u64,
    ) {
        let groups = self.groups(family, series, |sum: &mut u64, counts| {
            *sum += counts.llm.as_deref().map_or(0, &of);
        });
        self.counter(family, &groups);
    }

    fn distribution(
        &mut self,
        family: &RequestFamily,
        series: &[(Labels, Counts)],
        bounds: &[f64],
        of: impl Fn(&LlmCounts) -> &Histogram,
    ) {
        let groups = self.groups(family, series, |sum: &mut [Histogram; 1], counts| {
            if let Some(llm) = &counts.llm {
                sum[0].add(of(llm));
            }
        });
        self.histograms(family, &groups, [""], bounds);
    }

    fn process(&mut self, began: u64, ended: u64, clients: Clients) {
        self.head("http_requests_total", "gauge", "Requests since the start");
        self.line("http_requests_total", "", &[], began);
        self.head(
            "nginx_http_current_connections",
            "gauge",
            "Connections of clients: open now, and accepted and served since the start",
        );
        for (state, count) in [
            ("active", clients.handled.saturating_sub(clients.closed)),
            ("accepted", clients.accepted),
            ("handled", clients.handled),
        ] {
            let state = [("state", state)];
            self.line("nginx_http_current_connections", "", &state, count);
        }
        // Our own, and so without APISIX's prefix.
        let name = "pointsman_requests_in_flight";
        head(&mut self.text, name, "gauge", "Requests under way");
        let under_way = began.saturating_sub(ended);
        line(&mut self.text, name, &[], under_way);
        self.head("node_info", "gauge", "This gateway");
        let hostname = self.options.hostname.clone();
        let labels = [
            ("hostname", hostname.as_str()),
            ("version", env!("CARGO_PKG_VERSION")),
        ];
        self.line("node_info", "", &labels, 1);
    }

    fn extra(&mut self, extra: &[Sample]) {
        for samples in extra.chunk_by(|a, b| std::ptr::eq(a.family, b.family)) {
            let family = samples[0].family;
            let prefix = match family.owner {
                Owner::Apisix => self.options.prefix.as_str(),
                Owner::Pointsman => "",
            };
            let name = format!("{prefix}{}", family.name);
            head(&mut self.text, &name, family.kind, family.help);
            let blank = self.options.disabled.get(family.name);
            for sample in samples {
                let labels: Vec<(&str, &str)> = sample
                    .labels
                    .iter()
                    .map(|(name, text)| match blank {
                        Some(names) if names.contains(*name) => (*name, ""),
                        _ => (*name, text.as_str()),
                    })
                    .collect();
                line(&mut self.text, &name, &labels, sample.value);
            }
        }
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let name = format!("{}{name}", self.options.prefix);
        head(&mut self.text, &name, kind, help);
    }

    fn counter(&mut self, family: &RequestFamily, groups: &Groups<'_, u64>) {
        self.head(family.name, "counter", family.help);
        for (texts, value) in groups {
            self.sample(family, "", &[], texts, &[], value);
        }
    }

    /// One histogram for each of `kinds`, the values of the label `type`; a nameless kind has no
    /// such label.
    fn histograms<const N: usize>(
        &mut self,
        family: &RequestFamily,
        groups: &Groups<'_, [Histogram; N]>,
        kinds: [&str; N],
        bounds: &[f64],
    ) {
        self.head(family.name, "histogram", family.help);
        for (texts, histograms) in groups {
            for (kind, histogram) in kinds.iter().zip(histograms) {
                if histogram.count == 0 {
                    continue;
                }
                let kind = [("type", *kind)];
                let first = if kind[0].1.is_empty() { &[] } else { &kind[..] };
                let mut below = 0;
                for (bound, bucket) in bounds.iter().zip(&histogram.buckets) {
                    below += bucket;
                    let le = bound.to_string();
                    self.sample(family, "_bucket", first, texts, &[("le", &le)], below);
                }
                let all = histogram.count;
                self.sample(family, "_bucket", first, texts, &[("le", "+Inf")], all);
                self.sample(family, "_sum", first, texts, &[], histogram.sum);
                self.sample(family, "_count", first, texts, &[], all);
            }
        }
    }

    /// A sample of `family`: `texts` are the values of its labels, which stand between `first`
    /// and `last`.
    fn sample(
        &mut self,
        family: &RequestFamily,
        suffix: &str,
        first: &[(&str, &str)],
        texts: &[impl AsRef<str>],
        last: &[(&str, &str)],
        value: impl Display,
    ) {
        let names = family.names(self.layout);
        let own = names.zip(texts).map(|(name, text)| (name, text.as_ref()));
        let labels: Vec<(&str, &str)> = first
            .iter()
            .copied()
            .chain(own)
            .chain(last.iter().copied())
            .collect();
        self.line(family.name, suffix, &labels, value);
    }

    fn line(&mut self, name: &str, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let name = format!("{}{name}{suffix}", self.options.prefix);
        line(&mut self.text, &name, labels, value);
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(text: &mut String, name: &str, labels: &[(&str, &str)], value: impl Display) {
    text.push_str(name);
    for (index, (label, value)) in labels.iter().enumerate() {
        text.push(if index == 0 { '{' } else { ',' });
        let _ = write!(text, "{label}=\"");
        escape(value, text);
        text.push('"');
    }
    if !labels.is_empty() {
        text.push('}');
    }
    let _ = writeln!(text, " {value}");
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

const HTTP_STATUS: RequestFamily = RequestFamily {
    name: "http_status",
    help: "HTTP status codes per service",
    labels: &[
        ("code", Label::Code),
        ("route", Label::Text(ROUTE)),
        ("matched_uri", Label::Text(MATCHED_URI)),
        ("matched_host", Label::Text(MATCHED_HOST)),
        ("service", Label::Text(SERVICE)),
        ("consumer", Label::Text(CONSUMER)),
        ("node", Label::Text(NODE)),
        ("request_type", Label::Text(REQUEST_TYPE)),
        ("request_llm_model", Label::Text(REQUEST_MODEL)),
        ("llm_model", Label::Text(MODEL)),
        ("response_source", Label::Source),
    ],
};
const HTTP_LATENCY: RequestFamily = RequestFamily {
    name: "http_latency",
    help: "HTTP request latency in milliseconds",
    labels: &GENERIC,
};
const BANDWIDTH: RequestFamily = RequestFamily {
    name: "bandwidth",
    help: "Bytes by direction",
    labels: &GENERIC,
};
const LLM_LATENCY: RequestFamily = RequestFamily {
    name: "llm_latency",
    help: "LLM request latency in milliseconds",
    labels: &LLM,
};
const PROMPT_TOKENS: RequestFamily = RequestFamily {
    name: "llm_prompt_tokens",
    help: "Prompt tokens",
    labels: &LLM,
};
const COMPLETION_TOKENS: RequestFamily = RequestFamily {
    name: "llm_completion_tokens",
    help: "Completion tokens",
    labels: &LLM,
};
const PROMPT_DIST: RequestFamily = RequestFamily {
    name: "llm_prompt_tokens_dist",
    help: "Prompt tokens per request",
    labels: &LLM,
};
const COMPLETION_DIST: RequestFamily = RequestFamily {
    name: "llm_completion_tokens_dist",
    help: "Completion tokens per request",
    labels: &LLM,
};
/// Its labels are in the order of [`super::ActiveLabels`], whose place is the value's.
const ACTIVE: RequestFamily = RequestFamily {
    name: "llm_active_connections",
    help: "LLM attempts under way",
    labels: &[
        ("route", Label::Text(0)),
        ("route_id", Label::Text(1)),
        ("matched_uri", Label::Text(2)),
        ("matched_host", Label::Text(3)),
        ("service", Label::Text(4)),
        ("service_id", Label::Text(5)),
        ("consumer", Label::Text(6)),
        ("node", Label::Text(7)),
        ("request_type", Label::Text(8)),
        ("request_llm_model", Label::Text(9)),
        ("llm_model", Label::Text(10)),
    ],
};
/// Labels of `http_latency` and `bandwidth`, after `type`.
const GENERIC: [(&str, Label); 7] = [
    ("route", Label::Text(ROUTE)),
    ("service", Label::Text(SERVICE)),
    ("consumer", Label::Text(CONSUMER)),
    ("node", Label::Text(NODE)),
    ("request_type", Label::Text(REQUEST_TYPE)),
    ("request_llm_model", Label::Text(REQUEST_MODEL)),
    ("llm_model", Label::Text(MODEL)),
];
/// Labels of the LLM families.
const LLM: [(&str, Label); 7] = [
    ("route_id", Label::Text(ROUTE)),
    ("service_id", Label::Text(SERVICE)),
    ("consumer", Label::Text(CONSUMER)),
    ("node", Label::Text(NODE)),
    ("request_type", Label::Text(REQUEST_TYPE)),
    ("request_llm_model", Label::Text(REQUEST_MODEL)),
    ("llm_model", Label::Text(MODEL)),
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
