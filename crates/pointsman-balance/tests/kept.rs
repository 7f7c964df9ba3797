//! What one process writes down of its targets' health, and what the next makes of it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pointsman_balance::{
    Algorithm, Breaker, CircuitState, Counters, GuardReport, GuardSpec, Kept, Monitor, Policy,
    ProbeOutcome, Status, TargetId, Trial, Wanted,
};

fn policy() -> Policy {
    Policy {
        tcp_failures: 2,
        successes: 2,
        ..Policy::default()
    }
}

fn wanted(probe: &'static str) -> Wanted<&'static str> {
    Wanted {
        probe,
        policy: policy(),
        lineage: format!("owner/{probe}"),
        checker: "owner".to_owned(),
    }
}

#[expect(clippy::disallowed_methods, reason = "some instant to count from")]
fn start() -> Instant {
    Instant::now()
}

/// Probes everything once.
fn probe(monitor: &mut Monitor<&'static str>, now: Instant, up: impl Fn(&str) -> bool) -> usize {
    let mut probed = 0;
    while let Some(due) = monitor.poll_probe(now) {
        let outcome = if up(due.probe) {
            ProbeOutcome::TcpOk
        } else {
            ProbeOutcome::TcpFailure
        };
        monitor.on_probe(due.ticket, outcome, now);
        probed += 1;
    }
    probed
}

/// What a keeper would hold of a monitor.
fn kept(monitor: &Monitor<&'static str>) -> HashMap<(&'static str, Policy), Kept> {
    let entry = |(_, report): (TargetId, pointsman_balance::Report<'_, &'static str>)| {
        let kept = Kept {
            status: report.status,
            counters: report.counters,
            last: report.last,
        };
        ((*report.probe, report.policy.clone()), kept)
    };
    monitor.export().into_iter().map(entry).collect()
}

/// A monitor of a, b and c, of which a is unhealthy and b has failed once.
fn outage(now: Instant) -> (Monitor<&'static str>, Vec<TargetId>) {
    let mut monitor = Monitor::new();
    let ids = monitor.reconcile(vec![wanted("a"), wanted("b"), wanted("c")], now);
    probe(&mut monitor, now, |name| name != "a");
    let later = now + Duration::from_secs(1);
    probe(&mut monitor, later, |name| name == "c");
    (monitor, ids)
}

#[test]
fn a_restored_monitor_knows_all_that_the_other_knew() {
    let now = start();
    let (before, ids) = outage(now);
    assert_eq!(
        ids.iter()
            .map(|&id| before.report(id).map(|report| report.status))
            .collect::<Vec<_>>(),
        [
            Some(Status::Unhealthy),
            Some(Status::MostlyHealthy),
            Some(Status::Healthy)
        ]
    );
    let known = kept(&before);
    assert_eq!(known.len(), 3);

    let mut after = Monitor::new();
    // Another order, and one more: neither places nor ids carry anything over.
    let later = now + Duration::from_secs(5);
    let wishes = vec![wanted("d"), wanted("c"), wanted("b"), wanted("a")];
    let ids = after.reconcile(wishes, later);
    let epoch = after.availability().epoch();
    let restored = after.restore(|probe, policy| known.get(&(*probe, policy.clone())).copied());
    assert_eq!(restored, ids[1..]);
    let mut again = kept(&after);
    let fresh = again.remove(&("d", policy())).expect("watched");
    assert_eq!(
        (fresh.status, fresh.counters, fresh.last),
        (Status::Healthy, Counters::default(), None)
    );
    assert_eq!(again, known);

    let verdicts = after.availability();
    assert_eq!(verdicts.epoch(), epoch + 1);
    let usable: Vec<bool> = ids.iter().map(|&id| verdicts.usable(id)).collect();
    assert_eq!(usable, [true, true, true, false]);
    let settled: Vec<bool> = ids.iter().map(|&id| verdicts.settled(id)).collect();
    assert_eq!(settled, [true, true, false, false]);

    // Due at once, and the count of successes goes on from where it was.
    assert_eq!(probe(&mut after, later, |_| true), 4);
    let status = |after: &Monitor<_>| after.report(ids[3]).map(|report| report.status);
    assert_eq!(status(&after), Some(Status::MostlyUnhealthy));
    probe(&mut after, later + Duration::from_secs(1), |_| true);
    assert_eq!(status(&after), Some(Status::Healthy));
}

#[test]
fn another_definition_is_another_target() {
    let now = start();
    let known = kept(&outage(now).0);
    let mut after = Monitor::new();
    let mut wish = wanted("a");
    wish.policy.timeouts = 7;
    let ids = after.reconcile(vec![wish], now);
    let epoch = after.availability().epoch();
    let restored = after.restore(|probe, policy| known.get(&(*probe, policy.clone())).copied());
    assert_eq!(restored, []);
    assert!(after.availability().usable(ids[0]));
    assert_eq!(after.availability().epoch(), epoch);
}

/// What this process found out itself is newer than anything that was written down.
#[test]
fn evidence_of_its_own_is_kept() {
    let now = start();
    let known = kept(&outage(now).0);
    let mut after = Monitor::new();
    let ids = after.reconcile(vec![wanted("a"), wanted("b")], now);
    let due = after.poll_probe(now).expect("new targets are due");
    assert_eq!(due.probe, "a");
    after.on_probe(due.ticket, ProbeOutcome::TcpOk, now);
    let restored = after.restore(|probe, policy| known.get(&(*probe, policy.clone())).copied());
    assert_eq!(restored, ids[1..]);
    assert!(after.availability().usable(ids[0]));

    // A verdict without evidence: inherited from an earlier definition.
    let (mut inherited, ids) = outage(now);
    let mut wish = wanted("a");
    wish.policy.timeouts = 7;
    assert_eq!(inherited.reconcile(vec![wish], now), ids[..1]);
    let healthy = Kept {
        status: Status::Healthy,
        counters: Counters::default(),
        last: Some((ProbeOutcome::TcpOk, now)),
    };
    assert_eq!(inherited.restore(|_, _| Some(healthy)), []);
    assert!(!inherited.availability().usable(ids[0]));
}

fn guard(key: &str) -> GuardSpec {
    GuardSpec {
        key: key.to_owned(),
        breaker: Some(Breaker {
            failures: 3,
            error_percent: 0,
            min_attempts: 1,
            window: Duration::from_secs(10),
            open: Duration::from_secs(30),
            open_max: Duration::from_secs(60),
            trials: 1,
        }),
    }
}

/// The trial of a circuit, for a member of its own.
fn trial(monitor: &mut Monitor<&'static str>, circuit: TargetId) -> Trial {
    let mut member = support::member("m", 1, 0, &[]);
    member.gate = Some(monitor.gate(&[], vec![circuit]));
    let pool = support::pool(vec![member], Algorithm::RoundRobin);
    let mut picked = support::pick(&pool, "", &monitor.availability()).unwrap();
    picked.take_trial().unwrap()
}

/// Cool-downs end when they were to end, circuits are tried when they were to be tried.
#[test]
fn guards_stand_where_they_stood() {
    let now = start();
    let mut before: Monitor<&'static str> = Monitor::new();
    let ids: Vec<TargetId> = ["cooling", "open", "trial", "fine"]
        .map(|key| before.guard(guard(key), now).0)
        .into();
    before.trip(ids[2], now);
    let soon = now + Duration::from_secs(30);
    before.tick(soon);
    before.cool_down(ids[0], soon + Duration::from_secs(20), soon);
    before.trip(ids[1], soon);
    let known: HashMap<String, GuardReport> = (before.export_guards().into_iter())
        .map(|(_, spec, report)| (spec.key.clone(), report))
        .collect();

    let mut after: Monitor<&'static str> = Monitor::new();
    let later = soon + Duration::from_secs(5);
    let ids: Vec<TargetId> = ["fine", "trial", "new", "open", "cooling"]
        .map(|key| after.guard(guard(key), later).0)
        .into();
    let restored = after.restore_guards(|spec| known.get(&spec.key).copied(), later);
    assert_eq!(restored, [ids[0], ids[1], ids[3], ids[4]]);
    for (key, id) in ["fine", "trial", "open", "cooling"].iter().zip(&restored) {
        assert_eq!(after.guard_report(*id), Some(known[*key]), "{key}");
    }
    let usable = |after: &Monitor<&'static str>| -> Vec<bool> {
        let verdicts = after.availability();
        ids.iter().map(|&id| verdicts.usable(id)).collect()
    };
    assert_eq!(usable(&after), [true, false, true, false, false]);
    assert_eq!(after.next_deadline(), Some(soon + Duration::from_secs(20)));
    after.tick(soon + Duration::from_secs(20));
    assert_eq!(usable(&after), [true, false, true, false, true]);
    after.tick(soon + Duration::from_secs(30));
    let stands = after.guard_report(ids[3]).map(|report| report.circuit);
    assert_eq!(stands, Some(CircuitState::HalfOpen));
    for half_open in [ids[1], ids[3]] {
        let trial = trial(&mut after, half_open);
        after.on_trial(&trial, true, soon + Duration::from_secs(31));
    }
    assert_eq!(usable(&after), [true; 5]);

    // What this process has found out stays.
    after.cool_down(ids[0], soon + Duration::from_secs(90), soon);
    let before = after.guard_report(ids[0]);
    let fine = known["fine"];
    assert!(!after.restore_guards(|_| Some(fine), soon).contains(&ids[0]));
    assert_eq!(after.guard_report(ids[0]), before);
}
