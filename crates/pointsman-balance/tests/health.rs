//! Health: the state table against a plain model, and what a change of configuration does to it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman_balance::{
    Change, Counters, Monitor, Policy, Probe, ProbeOutcome, Status, TargetId, Wanted,
};
use proptest::prelude::*;
use support::start;

const STEP: Duration = Duration::from_secs(60);

fn wanted(owner: &str, probe: &'static str, policy: &Policy) -> Wanted<&'static str> {
    Wanted {
        probe,
        policy: policy.clone(),
        lineage: owner.to_owned(),
        checker: owner.to_owned(),
    }
}

/// One outcome decides.
fn touchy() -> Policy {
    Policy {
        successes: 1,
        http_failures: 1,
        tcp_failures: 1,
        timeouts: 1,
        ..Policy::default()
    }
}

/// A monitor, its clock, and short ways to say what happens.
struct Bench {
    monitor: Monitor<&'static str>,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self {
            monitor: Monitor::new(),
            now: start(),
        }
    }

    fn reconcile(&mut self, wanted: Vec<Wanted<&'static str>>) -> Vec<TargetId> {
        self.monitor.reconcile(wanted, self.now)
    }

    fn due(&mut self) -> Vec<Probe<&'static str>> {
        std::iter::from_fn(|| self.monitor.poll_probe(self.now)).collect()
    }

    fn due_names(&mut self) -> Vec<&'static str> {
        self.due().iter().map(|probe| probe.probe).collect()
    }

    /// Much later, probes everything and answers one target as told, the others not at all.
    fn probe(&mut self, name: &str, outcome: ProbeOutcome) -> Option<Change> {
        self.now += STEP;
        let probe = self
            .due()
            .into_iter()
            .find(|probe| probe.probe == name)
            .unwrap();
        self.monitor.on_probe(probe.ticket, outcome, self.now)
    }

    fn status(&self, target: TargetId) -> Status {
        self.monitor.report(target).unwrap().status
    }

    fn epoch(&self) -> u64 {
        self.monitor.availability().epoch()
    }
}

/// The state table as it is printed: by row and column.
fn model(
    (status, [s, h, t, o]): (Status, [u8; 4]),
    outcome: ProbeOutcome,
    policy: &Policy,
) -> (Status, [u8; 4]) {
    use Status::{Healthy as H, MostlyHealthy as MH, MostlyUnhealthy as MU, Unhealthy as U};
    let same = (status, [s, h, t, o]);
    let (counters, count, limit) = match outcome {
        ProbeOutcome::Status(200) | ProbeOutcome::TcpOk => {
            return match (status, policy.successes) {
                (_, 0) | (H, _) => same,
                (_, limit) if s + 1 >= limit => (H, [s + 1, 0, 0, 0]),
                (MH, _) => (MH, [s + 1, 0, 0, 0]),
                (MU | U, _) => (MU, [s + 1, 0, 0, 0]),
            };
        }
        ProbeOutcome::Status(500) | ProbeOutcome::NotHttp => {
            ([0, h + 1, t, o], h + 1, policy.http_failures)
        }
        ProbeOutcome::TcpFailure => ([0, h, t + 1, o], t + 1, policy.tcp_failures),
        ProbeOutcome::Timeout => ([0, h, t, o + 1], o + 1, policy.timeouts),
        ProbeOutcome::Status(_) => return same,
    };
    match status {
        _ if limit == 0 => same,
        U => same,
        H | MH | MU if count >= limit => (U, counters),
        H | MH => (MH, counters),
        MU => (MU, counters),
    }
}

fn outcomes() -> impl Strategy<Value = ProbeOutcome> {
    prop_oneof![
        3 => prop_oneof![Just(200), Just(500), Just(418)].prop_map(ProbeOutcome::Status),
        1 => Just(ProbeOutcome::TcpOk),
        1 => Just(ProbeOutcome::TcpFailure),
        1 => Just(ProbeOutcome::Timeout),
        1 => Just(ProbeOutcome::NotHttp),
    ]
}

proptest! {
    #[test]
    fn i18_i19_every_sequence_of_outcomes_follows_the_table(
        limits: [u8; 4],
        sequence in prop::collection::vec(outcomes(), 1..60),
    ) {
        let [successes, http_failures, tcp_failures, timeouts] = limits.map(|limit| limit % 5);
        let policy = Policy { successes, http_failures, tcp_failures, timeouts, ..Policy::default() };
        let mut bench = Bench::new();
        let id = bench.reconcile(vec![wanted("r", "a", &policy)])[0];
        let mut expected = (Status::Healthy, [0; 4]);
        for outcome in sequence {
            let (before, epoch) = (expected, bench.epoch());
            let snapshot = bench.monitor.availability();
            expected = model(expected, outcome, &policy);
            let flips = before.0.usable() != expected.0.usable();
            let change = (before.0 != expected.0).then_some(Change {
                target: id,
                from: before.0,
                to: expected.0,
                usable_changed: flips,
            });
            prop_assert_eq!(bench.probe("a", outcome), change);

            let report = bench.monitor.report(id).unwrap();
            let Counters { success, http_failure, tcp_failure, timeout_failure } = report.counters;
            let counters = [success, http_failure, tcp_failure, timeout_failure];
            prop_assert_eq!((report.status, counters), expected);
            prop_assert_eq!(report.last, Some((outcome, bench.now)));
            prop_assert_eq!(bench.epoch(), epoch + u64::from(flips));
            prop_assert_eq!(bench.monitor.availability().usable(id), expected.0.usable());
            prop_assert_eq!(snapshot.usable(id), before.0.usable(), "a snapshot must not change");
        }
    }

    #[test]
    fn i6_i9_i10_i11_configurations_come_and_go(
        history in prop::collection::vec(
            (prop::collection::vec((0..4_usize, 0..3_usize, 0..2_u8), 0..7), prop::collection::vec(outcomes(), 3)),
            1..12,
        ),
    ) {
        let mut config = Configured::default();
        for (wishes, outcomes) in history {
            config.reconcile_and_check(&wishes)?;
            config.probe_all(&outcomes);
        }
    }
}

type Wish = (usize, usize, u8);
type Definition = (usize, u8);

/// Two monitors that are told the same, one of them always in the reverse order.
#[derive(Default)]
struct Configured {
    one: Monitor<usize>,
    reversed: Monitor<usize>,
    ids: BTreeMap<Definition, TargetId>,
    owners: BTreeMap<usize, Definition>,
    ever: BTreeSet<TargetId>,
    now: Option<Instant>,
}

impl Configured {
    fn reconcile_and_check(&mut self, wishes: &[Wish]) -> Result<(), TestCaseError> {
        let now = *self.now.get_or_insert_with(start);
        // One definition per owner, as a real configuration has it.
        let by_owner: BTreeMap<usize, Wish> = wishes.iter().map(|&wish| (wish.0, wish)).collect();
        let wishes: Vec<Wish> = by_owner.into_values().collect();
        let describe = |&(owner, probe, version): &Wish| Wanted {
            probe,
            policy: Policy {
                tcp_failures: 2 + version,
                http_failures: 1,
                ..Policy::default()
            },
            lineage: owner.to_string(),
            checker: String::new(),
        };
        let known = |monitor: &Monitor<usize>, id| {
            monitor
                .report(id)
                .map(|report| (report.status, report.counters, report.last))
        };
        let before: BTreeMap<_, _> = self
            .ids
            .iter()
            .map(|(&definition, &id)| (definition, known(&self.one, id)))
            .collect();
        let snapshot = self.one.availability();

        let ids = self
            .one
            .reconcile(wishes.iter().map(describe).collect(), now);
        let mut mirror = self
            .reversed
            .reconcile(wishes.iter().rev().map(describe).collect(), now);
        mirror.reverse();
        let verdicts = self.one.availability();

        let mut current = BTreeMap::new();
        for ((&(owner, probe, version), &id), &mirror) in wishes.iter().zip(&ids).zip(&mirror) {
            let definition = (probe, version);
            let (status, counters, last) = known(&self.one, id).unwrap();
            prop_assert_eq!(
                known(&self.reversed, mirror).unwrap(),
                (status, counters, last)
            );
            prop_assert_eq!(verdicts.usable(id), status.usable());
            prop_assert_eq!(
                *current.entry(definition).or_insert(id),
                id,
                "one target per definition"
            );
            if let Some(&old) = self.ids.get(&definition) {
                prop_assert_eq!(id, old);
                prop_assert_eq!(Some((status, counters, last)), before[&definition]);
                continue;
            }
            prop_assert_eq!((counters, last), (Counters::default(), None));
            let ancestors: Vec<Definition> = wishes
                .iter()
                .filter(|wish| (wish.1, wish.2) == definition)
                .filter_map(|wish| self.owners.get(&wish.0).copied())
                .collect();
            let usable = ancestors
                .iter()
                .all(|ancestor| snapshot.usable(self.ids[ancestor]));
            let expected = if usable {
                Status::Healthy
            } else {
                Status::Unhealthy
            };
            prop_assert_eq!(status, expected, "owner {}", owner);
            let inherited = ancestors.iter().any(|ancestor| self.ids[ancestor] == id);
            prop_assert!(
                inherited || self.ever.iter().all(|&old| old < id),
                "{id:?} issued again"
            );
        }
        let ids: BTreeSet<TargetId> = ids.into_iter().collect();
        prop_assert_eq!(ids.len(), current.len(), "one definition per target");
        let old_ids: BTreeSet<TargetId> = self.ids.values().copied().collect();
        for &dropped in old_ids.difference(&ids) {
            prop_assert!(self.one.report(dropped).is_none());
            prop_assert_eq!(verdicts.usable(dropped), snapshot.usable(dropped));
        }
        let flipped = old_ids
            .intersection(&ids)
            .any(|&id| snapshot.usable(id) != verdicts.usable(id));
        let changed = old_ids != ids || flipped;
        prop_assert_eq!(verdicts.epoch(), snapshot.epoch() + u64::from(changed));

        self.ever.extend(&ids);
        self.ids = current;
        self.owners = wishes
            .iter()
            .map(|&(owner, probe, version)| (owner, (probe, version)))
            .collect();
        Ok(())
    }

    fn probe_all(&mut self, outcomes: &[ProbeOutcome]) {
        let now = self.now.unwrap() + STEP;
        self.now = Some(now);
        for monitor in [&mut self.one, &mut self.reversed] {
            while let Some(probe) = monitor.poll_probe(now) {
                monitor.on_probe(probe.ticket, outcomes[probe.probe], now);
            }
        }
    }
}

#[test]
fn statuses_are_named_as_in_the_report() {
    let all = [
        Status::Healthy,
        Status::MostlyHealthy,
        Status::MostlyUnhealthy,
        Status::Unhealthy,
    ];
    let names = ["healthy", "mostly_healthy", "mostly_unhealthy", "unhealthy"];
    assert_eq!(all.map(Status::as_str), names);
    assert_eq!(all.map(Status::usable), [true, true, false, false]);
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let policy = Policy::default();
    assert_eq!(
        (policy.healthy_interval, policy.unhealthy_interval)
            .0
            .as_secs(),
        1
    );
    assert_eq!(policy.unhealthy_interval.as_secs(), 1);
    assert_eq!(policy.timeout.as_secs(), 1);
    let limits = [
        policy.successes,
        policy.http_failures,
        policy.tcp_failures,
        policy.timeouts,
    ];
    assert_eq!((limits, policy.concurrency), ([2, 5, 2, 3], 10));
    assert_eq!(policy.healthy_statuses, [200, 302]);
    assert_eq!(
        policy.unhealthy_statuses,
        [429, 404, 500, 501, 502, 503, 504, 505]
    );
}

#[test]
fn b141_b210_a_dead_node_is_counted_twice_and_then_no_more() {
    let mut bench = Bench::new();
    let policy = Policy {
        successes: 1,
        http_failures: 2,
        ..Policy::default()
    };
    let id = bench.reconcile(vec![wanted("r", "dead", &policy)])[0];
    for _ in 0..5 {
        bench.probe("dead", ProbeOutcome::TcpFailure);
    }
    let report = bench.monitor.report(id).unwrap();
    assert_eq!(report.status, Status::Unhealthy);
    assert_eq!(
        report.counters,
        Counters {
            tcp_failure: 2,
            ..Counters::default()
        }
    );
    assert_eq!((report.probe, report.policy), (&"dead", &policy));
}

#[test]
fn i9_i28_a_new_target_is_healthy_known_and_due() {
    let mut bench = Bench::new();
    assert_eq!(bench.monitor.next_deadline(), None);
    let ids = bench.reconcile(vec![
        wanted("r", "a", &touchy()),
        wanted("s", "b", &touchy()),
    ]);
    assert_eq!(bench.monitor.next_deadline(), Some(bench.now));
    for &id in &ids {
        assert_eq!(bench.status(id), Status::Healthy);
        assert!(bench.monitor.availability().usable(id));
        assert_eq!(bench.monitor.report(id).unwrap().last, None);
    }
    assert_eq!(bench.due_names(), ["a", "b"]);
    assert_eq!(bench.due_names(), [""; 0], "one in flight per target");
}

#[test]
fn i10_equal_wishes_share_one_target_and_one_probe() {
    let mut bench = Bench::new();
    let wishes = || {
        vec![
            wanted("r", "a", &touchy()),
            wanted("s", "b", &touchy()),
            wanted("t", "a", &touchy()),
        ]
    };
    let ids = bench.reconcile(wishes());
    assert_eq!(ids[0], ids[2]);
    assert_ne!(ids[0], ids[1]);
    bench.probe("a", ProbeOutcome::TcpFailure);
    let epoch = bench.epoch();
    assert_eq!(bench.reconcile(wishes()), ids);
    assert_eq!(
        bench.epoch(),
        epoch,
        "the same configuration again changes nothing"
    );
    assert_eq!(bench.status(ids[0]), Status::Unhealthy);

    // One of the two users leaves: the other's target stays as it is.
    let left = bench.reconcile(wishes().split_off(1));
    assert_eq!(left, [ids[1], ids[0]]);
    assert_eq!(bench.status(ids[0]), Status::Unhealthy);
    assert_eq!(bench.epoch(), epoch);
}

#[test]
fn another_policy_is_another_target() {
    let mut bench = Bench::new();
    let patient = Policy {
        tcp_failures: 9,
        ..touchy()
    };
    let ids = bench.reconcile(vec![
        wanted("r", "a", &touchy()),
        wanted("s", "a", &patient),
    ]);
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn d4_a_new_definition_keeps_the_verdict_and_the_id_but_not_the_counters() {
    let mut bench = Bench::new();
    let ids = bench.reconcile(vec![
        wanted("r", "a", &touchy()),
        wanted("s", "b", &touchy()),
    ]);
    bench.probe("a", ProbeOutcome::TcpFailure);
    let epoch = bench.epoch();
    let patient = Policy {
        successes: 3,
        tcp_failures: 3,
        ..touchy()
    };
    let after = bench.reconcile(vec![
        wanted("r", "a2", &touchy()),
        wanted("s", "b", &patient),
    ]);
    assert_eq!((after, bench.epoch()), (ids.clone(), epoch));
    assert_eq!(
        [bench.status(ids[0]), bench.status(ids[1])],
        [Status::Unhealthy, Status::Healthy]
    );
    let report = bench.monitor.report(ids[0]).unwrap();
    assert_eq!((report.counters, report.last), (Counters::default(), None));
    assert_eq!(report.probe, &"a2");
    assert_eq!(
        bench.due_names(),
        ["a2", "b"],
        "due at once under the new definition"
    );
}

#[test]
fn d4_a_partial_verdict_is_carried_as_its_usable_half() {
    let mut bench = Bench::new();
    let policy = Policy {
        successes: 2,
        ..touchy()
    };
    let id = bench.reconcile(vec![wanted("r", "a", &policy)])[0];
    bench.probe("a", ProbeOutcome::TcpFailure);
    bench.probe("a", ProbeOutcome::TcpOk);
    assert_eq!(bench.status(id), Status::MostlyUnhealthy);
    bench.reconcile(vec![wanted("r", "a2", &policy)]);
    assert_eq!(bench.status(id), Status::Unhealthy);
}

#[test]
fn d4_a_shared_target_that_splits_takes_its_verdict_to_both() {
    let mut bench = Bench::new();
    let old = bench.reconcile(vec![
        wanted("r", "a", &touchy()),
        wanted("s", "a", &touchy()),
    ]);
    bench.probe("a", ProbeOutcome::TcpFailure);
    let epoch = bench.epoch();
    let new = bench.reconcile(vec![
        wanted("r", "r2", &touchy()),
        wanted("s", "s2", &touchy()),
    ]);
    assert_eq!(new[0], old[0]);
    assert!(new[1] > old[0]);
    assert_eq!(
        [bench.status(new[0]), bench.status(new[1])],
        [Status::Unhealthy; 2]
    );
    assert_eq!(bench.epoch(), epoch + 1);
    assert!(!bench.monitor.availability().usable(new[1]));
}

#[test]
fn d4_an_id_others_still_use_is_not_taken_along() {
    let mut bench = Bench::new();
    let old = bench.reconcile(vec![
        wanted("r", "a", &touchy()),
        wanted("s", "a", &touchy()),
    ]);
    bench.probe("a", ProbeOutcome::TcpFailure);
    let new = bench.reconcile(vec![
        wanted("r", "r2", &touchy()),
        wanted("s", "a", &touchy()),
    ]);
    assert_ne!(new[0], old[0]);
    assert_eq!(new[1], old[0]);
    assert_eq!(bench.status(new[0]), Status::Unhealthy);
}

#[test]
fn d4_one_definition_for_two_old_ones_remembers_the_bad_news() {
    for order in [["a", "b"], ["b", "a"]] {
        let mut bench = Bench::new();
        let ids = bench.reconcile(order.map(|name| wanted(name, name, &touchy())).to_vec());
        let b = ids[order.iter().position(|&name| name == "b").unwrap()];
        bench.probe("b", ProbeOutcome::TcpFailure);
        let epoch = bench.epoch();
        let merged = bench.reconcile(order.map(|name| wanted(name, "c", &touchy())).to_vec());
        assert_eq!(merged, [ids[0].min(ids[1]); 2]);
        assert_eq!(bench.status(merged[0]), Status::Unhealthy);
        assert!(!bench.monitor.availability().usable(merged[0]));
        assert!(!bench.monitor.availability().usable(b));
        assert_eq!(bench.epoch(), epoch + 1);
    }
}

#[test]
fn i6_deleting_and_recreating_issues_a_new_id_and_a_new_epoch() {
    let mut bench = Bench::new();
    let first = bench.reconcile(vec![wanted("r", "a", &touchy())])[0];
    bench.probe("a", ProbeOutcome::TcpFailure);
    let with_bad = bench.epoch();
    assert_eq!(bench.reconcile(Vec::new()), []);
    assert_eq!(
        (bench.epoch(), bench.monitor.next_deadline()),
        (with_bad + 1, None)
    );
    let second = bench.reconcile(vec![wanted("r", "a", &touchy())])[0];
    assert!(second > first);
    assert_eq!(second.index(), first.index() + 1);
    assert_eq!(bench.epoch(), with_bad + 2);
    let availability = bench.monitor.availability();
    assert!(availability.usable(second), "what was deleted is forgotten");
    assert!(
        !availability.usable(first),
        "but not for requests that still hold the old pool"
    );
}

#[test]
fn i14_i17_a_dropped_target_is_left_alone() {
    let mut bench = Bench::new();
    let ids = bench.reconcile(vec![
        wanted("r", "a", &touchy()),
        wanted("s", "b", &touchy()),
    ]);
    let mut probes = bench.due();
    bench.reconcile(vec![wanted("s", "b", &touchy())]);
    let (epoch, snapshot) = (bench.epoch(), bench.monitor.availability());
    let late = probes.remove(0);
    assert_eq!((late.probe, late.ticket.target()), ("a", ids[0]));
    assert_eq!(
        bench
            .monitor
            .on_probe(late.ticket, ProbeOutcome::TcpFailure, bench.now),
        None
    );
    assert_eq!(bench.epoch(), epoch);
    assert!(Arc::ptr_eq(&snapshot, &bench.monitor.availability()));
    assert!(bench.monitor.report(ids[0]).is_none());
    // The probe of the one that stayed is still awaited, and counts.
    assert!(bench.due_names().is_empty());
    let kept = probes.remove(0);
    assert!(
        bench
            .monitor
            .on_probe(kept.ticket, ProbeOutcome::TcpFailure, bench.now)
            .is_some()
    );
    bench.now += STEP;
    assert_eq!(bench.due_names(), ["b"]);
}

#[test]
fn i14_an_answer_to_an_older_definition_has_no_effect() {
    let mut bench = Bench::new();
    let id = bench.reconcile(vec![wanted("r", "a", &touchy())])[0];
    let old = bench.due().remove(0);
    bench.reconcile(vec![wanted("r", "a2", &touchy())]);
    assert_eq!(
        bench
            .monitor
            .on_probe(old.ticket, ProbeOutcome::TcpFailure, bench.now),
        None
    );
    assert_eq!(bench.status(id), Status::Healthy);
    assert_eq!(bench.monitor.report(id).unwrap().last, None);
    assert_eq!(bench.due_names(), ["a2"]);
}

#[test]
fn i14_there_and_back_again_is_still_another_probe() {
    // The definition is equal again, and the id is the same: only the ticket tells them apart.
    let mut bench = Bench::new();
    let id = bench.reconcile(vec![wanted("r", "a", &touchy())])[0];
    let old = bench.due().remove(0);
    bench.reconcile(vec![wanted("r", "a2", &touchy())]);
    assert_eq!(bench.reconcile(vec![wanted("r", "a", &touchy())]), [id]);
    let new = bench.due().remove(0);
    assert_eq!(
        bench
            .monitor
            .on_probe(old.ticket, ProbeOutcome::TcpFailure, bench.now),
        None
    );
    assert_eq!(bench.status(id), Status::Healthy);
    assert!(
        bench
            .monitor
            .on_probe(new.ticket, ProbeOutcome::TcpFailure, bench.now)
            .is_some()
    );
}

#[test]
fn availability_before_a_change_is_not_touched_by_it() {
    let mut bench = Bench::new();
    let id = bench.reconcile(vec![wanted("r", "a", &touchy())])[0];
    let before = bench.monitor.availability();
    bench.probe("a", ProbeOutcome::Timeout);
    let after = bench.monitor.availability();
    assert_eq!((before.usable(id), after.usable(id)), (true, false));
    assert!(after.epoch() > before.epoch());
}
