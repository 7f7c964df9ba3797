//! Prometheus exposition.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};

use crate::{
    config::{settings::Settings, snapshot::Snapshot},
    observe::metrics::{Metrics, Sample},
    ports::{Sink, SinkSpec},
    upstream::driver::Health,
};

/// The metrics at `plugin_attr.prometheus.export_uri`; 404 elsewhere.
pub fn respond(
    path: &str,
    settings: &Settings,
    snapshot: &Snapshot,
    health: &Health,
    metrics: &Metrics,
    sinks: &[(SinkSpec, Arc<dyn Sink>)],
) -> Response<Bytes> {
    if path != settings.prometheus.export_uri {
        return super::error(StatusCode::NOT_FOUND, "404 Not Found");
    }
    let mut samples = verdicts(snapshot, health);
    samples.extend(queues(sinks));
    let body = metrics.render(&samples, &snapshot.metrics);
    super::text(
        StatusCode::OK,
        "text/plain; version=0.0.4; charset=utf-8",
        body,
    )
}

/// `upstream_status`: 1 for a target that may be picked, 0 for one that may not.
fn verdicts(snapshot: &Snapshot, health: &Health) -> Vec<Sample> {
    let availability = health.availability();
    let mut samples = Vec::new();
    for checked in &snapshot.checked {
        for (target, spec) in &checked.targets {
            samples.push(Sample {
                family: "upstream_status",
                labels: vec![
                    ("name", checked.report.name.clone()),
                    ("ip", spec.host.clone()),
                    ("port", spec.port.to_string()),
                ],
                value: f64::from(u8::from(availability.usable(*target))),
            });
        }
    }
    samples
}

/// `batch_process_entries`: what waits in the loggers' queues.
#[expect(
    clippy::cast_precision_loss,
    reason = "a queue has far fewer than 2^53 entries"
)]
fn queues(sinks: &[(SinkSpec, Arc<dyn Sink>)]) -> Vec<Sample> {
    let mut samples = Vec::new();
    for (spec, sink) in sinks {
        let SinkSpec::Http(http) = spec else { continue };
        samples.push(Sample {
            family: "batch_process_entries",
            labels: vec![
                ("name", http.name.clone()),
                ("route_id", http.route_id.clone()),
                ("server_addr", String::new()),
            ],
            value: sink.pending() as f64,
        });
    }
    samples
}
