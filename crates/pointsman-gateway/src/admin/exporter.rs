//! Prometheus exposition.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use http::{Response, StatusCode};
use pointsman_balance::Availability;

use crate::{
    admin_api::store::Reach,
    config::{
        problem::{Problem, Severity},
        settings::Settings,
        snapshot::Snapshot,
    },
    gateway::State,
    observe::metrics::{Family, Metrics, Owner, Sample},
    ports::{Sink, SinkSpec},
    upstream::{driver::SharedHealth, overview::Overview},
};

/// What is shown.
pub struct Shown<'a> {
    /// What the workers go by.
    pub state: &'a State,
    /// Verdicts.
    pub health: &'a SharedHealth,
    /// What requests have counted.
    pub metrics: &'a Metrics,
    /// Loggers.
    pub sinks: &'a [(SinkSpec, Arc<dyn Sink>)],
    /// Where configuration comes from, if that is elsewhere.
    pub reach: Option<Reach>,
    /// What is wrong with it.
    pub problems: &'a [Problem],
}

/// The metrics at `plugin_attr.prometheus.export_uri`; 404 elsewhere.
pub fn respond(path: &str, settings: &Settings, shown: &Shown<'_>) -> Response<Bytes> {
    let Shown {
        state,
        health,
        metrics,
        ..
    } = shown;
    if path != settings.prometheus.export_uri {
        return super::error(StatusCode::NOT_FOUND, "404 Not Found");
    }
    let snapshot = state.snapshot();
    // Health is locked only while it is copied.
    let seen = health.overview();
    let mut samples = verdicts(&snapshot, &seen.availability);
    samples.extend(changes(&seen));
    samples.push(unheard(state));
    samples.extend(queues(shown.sinks));
    samples.extend(losses(shown.sinks));
    samples.extend(reach(shown.reach.as_ref()));
    samples.push(refused(shown.problems));
    let body = metrics.render(&samples, &snapshot.metrics);
    super::text(
        StatusCode::OK,
        "text/plain; version=0.0.4; charset=utf-8",
        body,
    )
}

/// `etcd_reachable` and `etcd_modify_indexes`.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn reach(reach: Option<&Reach>) -> Vec<Sample> {
    let Some(reach) = reach else {
        return Vec::new();
    };
    let last = reach.newest.values().copied().max().unwrap_or_default();
    let further = [("max_modify_index", last), ("x_etcd_index", reach.revision)];
    let newest = reach.newest.iter().map(|(key, value)| (*key, *value));
    let indexes = newest.chain(further).map(|(key, value)| Sample {
        family: &INDEXES,
        labels: vec![("key", key.to_owned())],
        value: value as f64,
    });
    let reachable = Sample {
        family: &REACHABLE,
        labels: Vec::new(),
        value: f64::from(u8::from(reach.trouble.is_none())),
    };
    std::iter::once(reachable).chain(indexes).collect()
}

/// `pointsman_config_errors`: resources that are left out, or make requests fail.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn refused(problems: &[Problem]) -> Sample {
    let errors = problems
        .iter()
        .filter(|one| one.severity == Severity::Error);
    Sample {
        family: &REFUSED,
        labels: Vec::new(),
        value: errors.count() as f64,
    }
}

/// `upstream_status`: 1 for a target that may be picked, 0 for one that may not.
fn verdicts(snapshot: &Snapshot, availability: &Availability) -> Vec<Sample> {
    let mut samples = Vec::new();
    for checked in &snapshot.checked {
        for (target, spec) in checked.nodes(availability) {
            samples.push(Sample {
                family: &UPSTREAM_STATUS,
                labels: vec![
                    ("name", checked.report.name.clone()),
                    ("ip", spec.host.clone()),
                    ("port", spec.port.to_string()),
                ],
                value: f64::from(u8::from(availability.usable(target))),
            });
        }
    }
    samples
}

/// `pointsman_health_changes_total`: how often targets went out, and came back.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn changes(seen: &Overview) -> Vec<Sample> {
    let sample = |((target, usable), count): ((String, bool), u64)| Sample {
        family: &CHANGES,
        labels: vec![
            ("target", target),
            (
                "to",
                if usable { "healthy" } else { "unhealthy" }.to_owned(),
            ),
        ],
        value: count as f64,
    };
    seen.changes().into_iter().map(sample).collect()
}

/// `pointsman_evidence_dropped_total`: what traffic told of health and nobody took in.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn unheard(state: &State) -> Sample {
    Sample {
        family: &UNHEARD,
        labels: Vec::new(),
        value: state.evidence().lost() as f64,
    }
}

/// `batch_process_entries`: what waits in the loggers' queues.
fn queues(sinks: &[(SinkSpec, Arc<dyn Sink>)]) -> Vec<Sample> {
    let queues = sinks
        .iter()
        .filter(|(spec, _)| matches!(spec, SinkSpec::Batched(_)));
    let sample = |(name, route, waiting): (&str, &str, f64)| Sample {
        family: &WAITING,
        labels: vec![
            ("name", name.to_owned()),
            ("route_id", route.to_owned()),
            ("server_addr", String::new()),
        ],
        value: waiting,
    };
    let added = added_up(queues.map(|(spec, sink)| (spec, sink.pending())));
    added.into_iter().map(sample).collect()
}

/// `pointsman_log_dropped_total`: what loggers and the access log lost.
fn losses(sinks: &[(SinkSpec, Arc<dyn Sink>)]) -> Vec<Sample> {
    let sample = |(name, route, lost): (&str, &str, f64)| Sample {
        family: &LOST,
        labels: vec![("sink", name.to_owned()), ("route_id", route.to_owned())],
        value: lost,
    };
    let added = added_up(sinks.iter().map(|(spec, sink)| (spec, sink.dropped())));
    added.into_iter().map(sample).collect()
}

/// Counts by name and route: two collectors of one route may have the same name, and a series must
/// not appear twice.
#[expect(
    clippy::cast_precision_loss,
    reason = "beyond 2^53 entries one more makes no difference"
)]
fn added_up<'a>(counts: impl Iterator<Item = (&'a SinkSpec, u64)>) -> Vec<(&'a str, &'a str, f64)> {
    let mut sums: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for (spec, count) in counts {
        *sums.entry((spec.name(), spec.route_id())).or_default() += count;
    }
    let sums = sums.into_iter();
    sums.map(|((name, route), sum)| (name, route, sum as f64))
        .collect()
}

static UPSTREAM_STATUS: Family = Family {
    name: "upstream_status",
    kind: "gauge",
    help: "1 for a target that may be picked",
    owner: Owner::Apisix,
};
static REACHABLE: Family = Family {
    name: "etcd_reachable",
    kind: "gauge",
    help: "1 if etcd can be reached",
    owner: Owner::Apisix,
};
static INDEXES: Family = Family {
    name: "etcd_modify_indexes",
    kind: "gauge",
    help: "The revision of etcd that wrote last, by collection",
    owner: Owner::Apisix,
};
static REFUSED: Family = Family {
    name: "pointsman_config_errors",
    kind: "gauge",
    help: "Errors in the configuration in force, which GET /v1/config/errors lists",
    owner: Owner::Pointsman,
};
static CHANGES: Family = Family {
    name: "pointsman_health_changes_total",
    kind: "counter",
    help: "Changes of a health verdict, by target and what it became",
    owner: Owner::Pointsman,
};
static UNHEARD: Family = Family {
    name: "pointsman_evidence_dropped_total",
    kind: "counter",
    help: "Reports of traffic about health that were dropped because too many waited",
    owner: Owner::Pointsman,
};
static WAITING: Family = Family {
    name: "batch_process_entries",
    kind: "gauge",
    help: "Log entries that wait in a batch processor",
    owner: Owner::Apisix,
};
static LOST: Family = Family {
    name: "pointsman_log_dropped_total",
    kind: "counter",
    help: "Log entries that were dropped, by file or batch processor",
    owner: Owner::Pointsman,
};
