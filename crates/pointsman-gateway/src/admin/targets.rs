//! `GET /v1/targets`: every target that is probed, what is believed about it and why, and whose
//! traffic it decides about.
//!
//! Beside them, with the kind `guard`, what keeps members out because of their own traffic: cool-downs
//! and circuits. The health report has APISIX's shape, one entry per user; here each target is there
//! once. Under `members` stands who is judged by it, with what that member has to do. Nothing that a
//! probe sends as a credential is shown: no header, no query, no body.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use pointsman_balance::{Algorithm, CircuitState, ProbeOutcome, TargetId};
use serde_json::{Value, json};

use crate::{
    clock,
    config::snapshot::{PoolRef, Snapshot},
    observe::date,
    upstream::{
        health::{ProbeKind, ReportName},
        overview::{Guard, Overview, Target},
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
pub fn all(snapshot: &Snapshot, seen: &Overview, time: Time) -> Value {
    let view = View {
        epoch: seen.availability.epoch(),
        judged: Judged::of(snapshot),
        time,
    };
    let targets = seen.targets.iter();
    let targets = targets.map(|target| (target.id, view.target(target)));
    let guards = seen.guards.iter();
    let guards = guards.map(|guard| (guard.id, view.guard(guard)));
    let mut all: Vec<(TargetId, Value)> = targets.chain(guards).collect();
    all.sort_unstable_by_key(|(id, _)| *id);
    all.into_iter().map(|(_, shown)| shown).collect()
}

/// Who is judged by what: the members of all pools, by the ids that stand in their pool.
struct Judged<'a>(HashMap<TargetId, Vec<Member<'a>>>);

#[derive(Clone, Copy)]
struct Member<'a> {
    key: &'a str,
    pool: &'a PoolRef,
    number: usize,
}

impl<'a> Judged<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        let mut pools: Vec<(&String, &PoolRef)> = snapshot.pools.iter().collect();
        pools.sort_unstable_by_key(|(key, _)| *key);
        let mut judged: HashMap<TargetId, Vec<Member<'a>>> = HashMap::new();
        for (key, pool) in pools {
            for number in 0..pool.pool().len() {
                let targets = pool.pool().targets(number).iter().copied();
                for id in targets.chain(pool.guards(number)) {
                    judged
                        .entry(id)
                        .or_default()
                        .push(Member { key, pool, number });
                }
            }
        }
        Self(judged)
    }

    fn by(&self, id: TargetId) -> impl Iterator<Item = Member<'a>> {
        self.0.get(&id).into_iter().flatten().copied()
    }
}

impl Member<'_> {
    /// Who it is, and what it has to do as far as its pool counts that.
    fn shown(self, time: Time) -> Value {
        let pool = self.pool.pool();
        let load = pool.load(self.number, clock::since_start(time.now));
        let averages = load.filter(|_| pool.algorithm() == Algorithm::Ewma);
        let latency = averages.and_then(|load| load.latency);
        json!({
            "pool": self.key,
            "member": pool.name(self.number),
            "in_flight": load.map(|load| load.in_flight),
            "ewma_ms": latency.map(|latency| seconds(latency * 1000)),
        })
    }
}

/// What is shown of targets and guards at one moment.
struct View<'a> {
    epoch: u64,
    judged: Judged<'a>,
    time: Time,
}

impl View<'_> {
    /// The members that are judged by a target, or by a name behind which it stands.
    fn members(&self, id: TargetId, groups: &[TargetId]) -> Value {
        let all = std::iter::once(id).chain(groups.iter().copied());
        let members = all.flat_map(|id| self.judged.by(id));
        members.map(|member| member.shown(self.time)).collect()
    }

    /// What keeps members out because of what their traffic met: nothing is probed there.
    fn guard(&self, guard: &Guard) -> Value {
        let (report, time) = (guard.report, self.time);
        let (circuit, opens) = match report.circuit {
            CircuitState::Closed => ("closed", None),
            CircuitState::Open(until) => ("open", Some(until)),
            CircuitState::HalfOpen => ("half_open", None),
        };
        json!({
            "id": guard.id.index(),
            "kind": "guard",
            "name": &*guard.name,
            "usable": report.usable,
            "cools_until": report.cools_until.map(|until| ahead(until, time)),
            "circuit": circuit,
            "trial_at": opens.map(|until| ahead(until, time)),
            "epoch": self.epoch,
            "members": self.members(guard.id, &[]),
        })
    }

    fn target(&self, target: &Target) -> Value {
        let time = self.time;
        let (spec, counters) = (&target.probe, target.counters);
        let (kind, request) = match &spec.kind {
            ProbeKind::Tcp => ("tcp", None),
            ProbeKind::Http(request) => ("http", Some(request)),
            ProbeKind::Https { request, .. } => ("https", Some(request)),
        };
        let path = request.map(|request| request.target.split('?').next().unwrap_or_default());
        json!({
            "id": target.id.index(),
            "kind": kind,
            "host": spec.host,
            "port": spec.port,
            "hostname": spec.hostname,
            "http_path": path,
            "usable": target.status.usable(),
            "state": target.status.as_str(),
            "counter": {
                "success": counters.success,
                "http_failure": counters.http_failure,
                "tcp_failure": counters.tcp_failure,
                "timeout_failure": counters.timeout_failure,
            },
            "last": target.last.map(|last| evidence(last, time)),
            "next_probe_in": target.next_probe.map(|due| seconds(due.saturating_duration_since(time.now))),
            "epoch": self.epoch,
            "used_by": target.used_by.iter().map(user).collect::<Value>(),
            "members": self.members(target.id, &target.groups),
        })
    }
}

/// A time to come.
fn ahead(at: Instant, time: Time) -> Value {
    let wait = at.saturating_duration_since(time.now);
    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    json!({ "seconds": seconds(wait), "time": date_of(time.unix_ms.saturating_add(wait_ms)) })
}

fn date_of(unix_ms: u64) -> String {
    let mut date = Vec::new();
    date::rfc_3339(unix_ms, &mut date);
    String::from_utf8_lossy(&date).into_owned()
}

/// The last outcome, and when it came.
fn evidence((outcome, at): (ProbeOutcome, Instant), time: Time) -> Value {
    let ago = time.now.saturating_duration_since(at);
    let ago_ms = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
    json!({
        "outcome": outcome.to_string(),
        "seconds_ago": seconds(ago),
        "time": date_of(time.unix_ms.saturating_sub(ago_ms)),
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
