//! `GET /v1/targets`: every target that is probed, what is believed about it and why, and whose
//! traffic it decides about.
//!
//! The health report beside it has APISIX's shape, one entry per user; here each target is there
//! once. Nothing that a probe sends as a credential is shown: no header, no query, no body.

use std::time::{Duration, Instant};

use pointsman_balance::{ProbeOutcome, Report, TargetId};
use serde_json::{Value, json};

use crate::{
    clock,
    observe::date,
    upstream::{
        driver::Health,
        health::{ProbeKind, ProbeSpec, ReportName},
    },
};

/// One moment by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Time {
    /// For what is past and due.
    pub now: Instant,
    /// Milliseconds since the Unix epoch.
    pub unix_ms: u64,
}

impl Time {
    /// This moment.
    pub fn now() -> Self {
        Self {
            now: clock::now(),
            unix_ms: clock::unix_millis(),
        }
    }
}

/// One object per target, by ascending id.
pub fn all(health: &Health, time: Time) -> Value {
    let targets = health.monitor().export().into_iter();
    targets
        .map(|(id, report)| target(health, id, &report, time))
        .collect()
}

fn target(health: &Health, id: TargetId, report: &Report<'_, ProbeSpec>, time: Time) -> Value {
    let (spec, counters) = (report.probe, report.counters);
    let (kind, request) = match &spec.kind {
        ProbeKind::Tcp => ("tcp", None),
        ProbeKind::Http(request) => ("http", Some(request)),
        ProbeKind::Https { request, .. } => ("https", Some(request)),
    };
    let path = request.map(|request| request.target.split('?').next().unwrap_or_default());
    let due = health.monitor().next_probe(id);
    json!({
        "id": id.index(),
        "kind": kind,
        "host": spec.host,
        "port": spec.port,
        "hostname": spec.hostname,
        "http_path": path,
        "usable": report.status.usable(),
        "state": report.status.as_str(),
        "counter": {
            "success": counters.success,
            "http_failure": counters.http_failure,
            "tcp_failure": counters.tcp_failure,
            "timeout_failure": counters.timeout_failure,
        },
        "last": report.last.map(|last| evidence(last, time)),
        "next_probe_in": due.map(|due| seconds(due.saturating_duration_since(time.now))),
        "epoch": health.availability().epoch(),
        "used_by": health.used_by(id).iter().map(user).collect::<Value>(),
    })
}

/// The last outcome, and when it came.
fn evidence((outcome, at): (ProbeOutcome, Instant), time: Time) -> Value {
    let ago = time.now.saturating_duration_since(at);
    let ago_ms = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
    let mut date = Vec::new();
    date::rfc_3339(time.unix_ms.saturating_sub(ago_ms), &mut date);
    json!({
        "outcome": outcome.to_string(),
        "seconds_ago": seconds(ago),
        "time": String::from_utf8_lossy(&date),
    })
}

fn user(user: &ReportName) -> Value {
    match &user.instance {
        Some(instance) => json!({ "name": user.name, "instance": instance }),
        None => json!({ "name": user.name }),
    }
}

/// With three decimals.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}
