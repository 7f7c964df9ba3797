//! Reading `plugin_attr.prometheus`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Reader, Section};
use crate::{
    config::{
        settings::{MetricSettings, PrometheusSettings},
        snapshot::whole_seconds,
        text,
    },
    observe::metrics::has_label,
};

impl Reader<'_> {
    pub(super) fn prometheus(&mut self, section: &mut Section, settings: &mut PrometheusSettings) {
        if let Some(uri) = self.text(section, "export_uri") {
            settings.export_uri = uri;
        }
        if let Some(prefix) = self.text(section, "metric_prefix") {
            settings.metric_prefix = prefix;
        }
        if let Some(address) = self.section(section, "export_addr") {
            settings.export_addr = self.address(address, "127.0.0.1", 9091);
        }
        let mut enabled = true;
        self.flag(section, "enable_export_server", &mut enabled);
        if !enabled {
            settings.export_addr = None;
        }
        let why = "metrics are made when they are asked for";
        self.without_effect(section, "refresh_interval", why);
        settings.default_buckets = self.bounds(section, "default_buckets");
        settings.llm_latency_buckets = self.bounds(section, "llm_latency_buckets");
        settings.llm_prompt_tokens_buckets = self.bounds(section, "llm_prompt_tokens_buckets");
        settings.llm_completion_tokens_buckets =
            self.bounds(section, "llm_completion_tokens_buckets");
        if let Some(metrics) = self.section(section, "metrics") {
            settings.metrics = self.metrics(metrics);
        }
    }

    /// Bounds of a histogram.
    fn bounds(&mut self, section: &mut Section, key: &str) -> Option<Vec<f64>> {
        let (path, value) = section.take(key)?;
        let numbers: Option<Vec<f64>> = value
            .as_array()
            .and_then(|list| list.iter().map(Value::as_f64).collect());
        let Some(numbers) = numbers else {
            self.wrong_type(&path, "a list of numbers", &value);
            return None;
        };
        if numbers.is_empty() || numbers.windows(2).any(|pair| pair[0] >= pair[1]) {
            let message = "must be numbers in ascending order, one at least";
            self.error(&path, message.to_owned());
            return None;
        }
        Some(numbers)
    }

    fn metrics(&mut self, mut metrics: Section) -> BTreeMap<String, MetricSettings> {
        let mut all = BTreeMap::new();
        for metric in METRICS {
            let Some(mut section) = self.section(&mut metrics, metric) else {
                continue;
            };
            let mut settings = MetricSettings::default();
            if let Some((path, value)) = section.take("extra_labels") {
                settings.extra_labels = self.extra_labels(metric, &path, &value);
            }
            let seconds = self.number(&mut section, "expire");
            settings.expire = seconds.filter(|seconds| *seconds > 0).map(whole_seconds);
            self.leftover(&section);
            all.insert(metric.to_owned(), settings);
        }
        self.leftover(&metrics);
        all
    }

    fn extra_labels(&mut self, metric: &str, path: &str, value: &Value) -> Vec<(String, String)> {
        let mut labels: Vec<(String, String)> = Vec::new();
        let Some(list) = value.as_array() else {
            self.wrong_type(path, "a list of `name: $variable`", value);
            return labels;
        };
        for (index, item) in list.iter().enumerate() {
            let path = text::join(path, &index.to_string());
            let Some(map) = item.as_object() else {
                self.wrong_type(&path, "`name: $variable`", item);
                continue;
            };
            for (name, value) in map {
                let is_taken =
                    has_label(metric, name) || labels.iter().any(|(known, _)| known == name);
                match value.as_str() {
                    _ if is_taken => self.error(&path, format!("{metric} has a label `{name}`")),
                    Some(value) if is_label(name) => labels.push((name.clone(), value.to_owned())),
                    Some(_) => self.error(&path, format!("`{name}` is not the name of a label")),
                    None => self.wrong_type(&path, "a text such as `$http_x_team`", value),
                }
            }
        }
        labels
    }
}

/// Whether Prometheus takes `name` as the name of a label that is not its own.
fn is_label(name: &str) -> bool {
    let is_word = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_word
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.starts_with("__")
        && !name.is_empty()
}

/// The metrics of requests, which can have further labels and a lifetime.
const METRICS: [&str; 9] = [
    "http_status",
    "http_latency",
    "bandwidth",
    "llm_latency",
    "llm_prompt_tokens",
    "llm_completion_tokens",
    "llm_prompt_tokens_dist",
    "llm_completion_tokens_dist",
    "llm_active_connections",
];

#[cfg(test)]
mod tests {
    use crate::config::settings::Settings;

    fn messages(text: &str) -> Vec<String> {
        let text = format!(
            "deployment: {{role: data_plane, role_data_plane: {{config_provider: yaml}}}}\n\
             plugin_attr:\n  prometheus:\n    {text}\n"
        );
        match Settings::parse(&text, &|_| None) {
            Ok((_, warnings)) => warnings.iter().map(ToString::to_string).collect(),
            Err(errors) => errors.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn what_cannot_be_applied_is_said() {
        for (text, expected) in [
            ("default_buckets: [2, 1]", "ascending"),
            ("default_buckets: []", "one at least"),
            ("llm_latency_buckets: [a]", "a list of numbers"),
            ("metrics: {http_stat: {expire: 1}}", "metrics.http_stat"),
            (
                "metrics: {http_status: {expires: 1}}",
                "http_status.expires",
            ),
            ("metrics: {http_status: {extra_labels: [{1a: $x}]}}", "`1a`"),
            (
                "metrics: {http_status: {extra_labels: [{a: 1}]}}",
                "$http_x_team",
            ),
            ("metrics: {http_status: {extra_labels: {a: $b}}}", "a list"),
            (
                "metrics: {http_status: {extra_labels: [{code: $a}]}}",
                "http_status has a label `code`",
            ),
            (
                "metrics: {http_latency: {extra_labels: [{le: $a}]}}",
                "http_latency has a label `le`",
            ),
            (
                "metrics: {bandwidth: {extra_labels: [{a: $a}, {a: $b}]}}",
                "extra_labels.1: bandwidth has a label `a`",
            ),
        ] {
            let found = messages(text);
            assert!(
                found.len() == 1 && found[0].contains(expected),
                "{text}: {found:?}"
            );
        }
        let fine = "metrics: {llm_latency: {expire: 60, extra_labels: [{team: $http_x_team}]}}";
        assert_eq!(messages(fine), [""; 0]);
    }
}
