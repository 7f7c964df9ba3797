//! When targets are probed, on a virtual clock: nothing here waits for real time.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use pointsman_balance::{
    Limits, Monitor, Passive, Policy, Probe, ProbeOutcome, TargetId, Ticket, Wanted,
};
use proptest::prelude::*;
use support::start;

const MS: Duration = Duration::from_millis(1);

/// What the network does with one probe.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Answered {
        after_ms: u32,
        outcome: ProbeOutcome,
    },
    Lost,
}

fn fates() -> impl Strategy<Value = Fate> {
    let outcome = prop_oneof![Just(ProbeOutcome::TcpOk), Just(ProbeOutcome::TcpFailure)];
    prop_oneof![
        9 => (0..1_500_u32, outcome).prop_map(|(after_ms, outcome)| Fate::Answered { after_ms, outcome }),
        1 => Just(Fate::Lost),
    ]
}

fn policy(healthy_ms: u32, unhealthy_ms: u32, concurrency: u32) -> Policy {
    Policy {
        healthy_interval: healthy_ms * MS,
        unhealthy_interval: unhealthy_ms * MS,
        timeout: 1_000 * MS,
        concurrency,
        ..Policy::default()
    }
}

/// Target `n` of the monitor, in one checker of `per_checker` targets.
fn targets(count: usize, per_checker: usize, policy: &Policy) -> Vec<Wanted<usize>> {
    let wanted = |probe: usize| Wanted {
        probe,
        policy: policy.clone(),
        lineage: probe.to_string(),
        checker: (probe / per_checker).to_string(),
    };
    (0..count).map(wanted).collect()
}

/// A prober that wakes up when the monitor says so or an answer arrives, and at no other time.
struct Simulation {
    monitor: Monitor<usize>,
    now: Instant,
    answers: BTreeMap<(Instant, u64), (Ticket, usize, ProbeOutcome)>,
    sent: u64,
    /// When each probe was started and until when it counts as in flight.
    starts: BTreeMap<usize, Vec<Instant>>,
    in_flight: BTreeMap<usize, Instant>,
    busiest: BTreeMap<usize, usize>,
    per_checker: usize,
    /// The start of the next probe of a target, as it follows from the end of the one before.
    expected: BTreeMap<usize, Instant>,
}

impl Simulation {
    fn new(count: usize, per_checker: usize, policy: &Policy) -> Self {
        let now = start();
        let mut monitor = Monitor::new();
        monitor.reconcile(targets(count, per_checker, policy), now);
        Self {
            monitor,
            now,
            answers: BTreeMap::new(),
            sent: 0,
            starts: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            busiest: BTreeMap::new(),
            per_checker,
            expected: (0..count).map(|target| (target, now)).collect(),
        }
    }

    /// Runs until `end`. With `exact`, every probe must start on the tick at which it is due, and
    /// otherwise never before.
    fn run(&mut self, fates: &[Fate], end: Instant, exact: bool) {
        loop {
            let answer = self.answers.keys().next().map(|&(at, _)| at);
            let next = self
                .monitor
                .next_deadline()
                .into_iter()
                .chain(answer)
                .min()
                .unwrap();
            // A deadline in the past would mean that polling at that time left something undone.
            self.now = self.now.max(next);
            if self.now > end {
                return;
            }
            while let Some(answer) = self.answers.first_entry()
                && answer.key().0 <= self.now
            {
                let (ticket, target, outcome) = answer.remove();
                self.deliver(ticket, target, outcome);
            }
            while let Some(probe) = self.monitor.poll_probe(self.now) {
                let target = probe.probe;
                let due = self.expected[&target];
                assert!(
                    self.now >= due && !(exact && self.now > due),
                    "target {target}"
                );
                if let Some(&void_at) = self.in_flight.get(&target) {
                    assert!(self.now >= void_at, "two at a time for {target}");
                }
                self.starts.entry(target).or_default().push(self.now);
                self.in_flight
                    .insert(target, self.now + probe.answer_within);
                self.expected.insert(target, self.now + probe.answer_within);
                let checker = target / self.per_checker;
                let alive = self.in_flight.iter().filter(|&(other, &void_at)| {
                    other / self.per_checker == checker && void_at > self.now
                });
                let busy = self.busiest.entry(checker).or_default();
                *busy = alive.count().max(*busy);
                let fate = fates[self.sent as usize % fates.len()];
                self.sent += 1;
                if let Fate::Answered { after_ms, outcome } = fate {
                    let key = (self.now + after_ms * MS, self.sent);
                    self.answers.insert(key, (probe.ticket, target, outcome));
                }
            }
            let idle = self
                .monitor
                .next_deadline()
                .is_none_or(|next| next > self.now);
            assert!(idle, "polled until nothing was due, yet due");
        }
    }

    fn deliver(&mut self, ticket: Ticket, target: usize, outcome: ProbeOutcome) {
        let id = ticket.target();
        self.monitor.on_probe(ticket, outcome, self.now);
        self.in_flight.remove(&target);
        let report = self.monitor.report(id).unwrap();
        let interval = if report.status.usable() {
            report.policy.healthy_interval
        } else {
            report.policy.unhealthy_interval
        };
        let started = *self.starts[&target].last().unwrap();
        self.expected
            .insert(target, (started + interval).max(self.now));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn i16_each_probe_starts_when_it_is_due(
        fates in prop::collection::vec(fates(), 1..40),
        healthy_ms in 100..3_000_u32,
        unhealthy_ms in 100..3_000_u32,
        count in 1..12_usize,
    ) {
        let policy = policy(healthy_ms, unhealthy_ms, count as u32);
        let mut simulation = Simulation::new(count, count, &policy);
        let end = simulation.now + Duration::from_secs(60);
        simulation.run(&fates, end, true);
        let interval = policy.healthy_interval.max(policy.unhealthy_interval);
        for target in 0..count {
            let mut starts = simulation.starts[&target].clone();
            starts.push(end);
            for pair in starts.windows(2) {
                // Also for probes that were lost; the answered ones are held to the tick above.
                prop_assert!(pair[1] - pair[0] <= interval + 3 * policy.timeout);
            }
        }
    }

    #[test]
    fn a_checker_never_exceeds_its_concurrency_and_starves_nobody(
        fates in prop::collection::vec(fates(), 1..40),
        concurrency in 0..5_u32,
        per_checker in 1..10_usize,
        checkers in 1..4_usize,
    ) {
        let policy = policy(1_000, 500, concurrency);
        let count = per_checker * checkers;
        let mut simulation = Simulation::new(count, per_checker, &policy);
        let end = simulation.now + Duration::from_secs(180);
        simulation.run(&fates, end, false);
        let slots = concurrency.max(1) as usize;
        for (checker, busiest) in &simulation.busiest {
            prop_assert_eq!(*busiest, slots.min(per_checker), "checker {}", checker);
        }
        // Everybody in front, each taking as long as a probe can.
        let turn = policy.healthy_interval + 3 * policy.timeout;
        let bound = turn * (per_checker.div_ceil(slots) as u32 + 1);
        for target in 0..count {
            let mut starts = simulation.starts[&target].clone();
            starts.push(end);
            for pair in starts.windows(2) {
                prop_assert!(pair[1] - pair[0] <= bound, "target {target} waited {:?}", pair[1] - pair[0]);
            }
        }
    }
}

#[test]
fn b141_intervals_follow_the_verdict() {
    let policy = Policy {
        tcp_failures: 1,
        successes: 1,
        ..policy(10_000, 2_000, 10)
    };
    let (mut monitor, now) = (Monitor::new(), start());
    monitor.reconcile(targets(1, 1, &policy), now);
    let probe = monitor.poll_probe(now).unwrap();
    assert_eq!(
        (probe.timeout, probe.answer_within),
        (1_000 * MS, 13_000 * MS)
    );
    assert_eq!(monitor.next_deadline(), Some(now + probe.answer_within));
    monitor.on_probe(probe.ticket, ProbeOutcome::TcpFailure, now + 300 * MS);
    let fallen = now + 2_000 * MS;
    assert_eq!(monitor.next_deadline(), Some(fallen));
    assert!(monitor.poll_probe(fallen - MS).is_none());
    let probe = monitor.poll_probe(fallen).unwrap();
    monitor.on_probe(probe.ticket, ProbeOutcome::TcpOk, fallen);
    assert_eq!(monitor.next_deadline(), Some(fallen + 10_000 * MS));
}

#[test]
fn a_lost_probe_is_void_and_starts_again() {
    let policy = Policy {
        tcp_failures: 1,
        ..policy(1_000, 1_000, 1)
    };
    let (mut monitor, now) = (Monitor::new(), start());
    let id = monitor.reconcile(targets(1, 1, &policy), now)[0];
    let lost = monitor.poll_probe(now).unwrap();
    let void = now + lost.answer_within;
    assert!(monitor.poll_probe(void - MS).is_none());
    let second = monitor.poll_probe(void).unwrap();
    assert_eq!(
        monitor.on_probe(lost.ticket, ProbeOutcome::TcpFailure, void),
        None
    );
    assert!(monitor.report(id).unwrap().status.usable());
    assert!(
        monitor.poll_probe(void).is_none(),
        "the late answer must not free the slot"
    );
    assert!(
        monitor
            .on_probe(second.ticket, ProbeOutcome::TcpFailure, void + MS)
            .is_some()
    );
}

/// One target whose first failure decides, and its first probe.
fn one_probe() -> (Monitor<usize>, TargetId, Probe<usize>, Instant) {
    let policy = Policy {
        tcp_failures: 1,
        ..policy(1_000, 1_000, 1)
    };
    let (mut monitor, now) = (Monitor::new(), start());
    let id = monitor.reconcile(targets(1, 1, &policy), now)[0];
    let probe = monitor.poll_probe(now).unwrap();
    let void = now + probe.answer_within;
    (monitor, id, probe, void)
}

#[test]
fn an_answer_known_too_late_never_counts_whether_somebody_polled_or_not() {
    let (mut monitor, id, late, void) = one_probe();
    let failure = ProbeOutcome::TcpFailure;
    assert_eq!(monitor.on_probe(late.ticket, failure, void), None);
    assert_eq!(monitor.report(id).unwrap().last, None);
    assert_eq!(
        monitor.next_deadline(),
        Some(void),
        "due again all the same"
    );
    assert!(monitor.poll_probe(void).is_some());

    let (mut monitor, _, in_time, void) = one_probe();
    let change = monitor.on_probe(in_time.ticket, failure, void - MS / 1_000);
    assert!(change.is_some_and(|change| change.usable_changed));
}

#[test]
fn an_answer_known_in_time_counts_though_it_is_handed_in_late() {
    let (mut monitor, id, first, void) = one_probe();
    // The owner was busy: it polls again before it hands in what was known before.
    let second = monitor.poll_probe(void + 500 * MS).unwrap();
    let change = monitor.on_probe(first.ticket, ProbeOutcome::TcpFailure, void - MS);
    assert!(change.is_some_and(|change| change.usable_changed));
    assert!(
        monitor.poll_probe(void + 500 * MS).is_none(),
        "the second probe is in flight still"
    );
    monitor.on_probe(second.ticket, ProbeOutcome::TcpOk, void + 501 * MS);
    assert_eq!(monitor.report(id).unwrap().counters.success, 1);
}

#[test]
fn an_answer_that_a_newer_one_has_overtaken_does_not_count() {
    let (mut monitor, id, first, void) = one_probe();
    let second = monitor.poll_probe(void).unwrap();
    monitor.on_probe(second.ticket, ProbeOutcome::TcpOk, void + MS);
    assert_eq!(
        monitor.on_probe(first.ticket, ProbeOutcome::TcpFailure, void - MS),
        None
    );
    assert!(monitor.report(id).unwrap().status.usable());
}

#[test]
fn a_checker_full_of_lost_probes_goes_on() {
    let (mut monitor, now) = (Monitor::new(), start());
    monitor.reconcile(targets(5, 5, &policy(1_000, 1_000, 2)), now);
    let mut seen = BTreeSet::new();
    let mut at = now;
    for _ in 0..5 {
        let batch: Vec<_> = std::iter::from_fn(|| monitor.poll_probe(at))
            .map(|probe| probe.probe)
            .collect();
        assert_eq!(batch.len(), 2);
        seen.extend(batch);
        at = monitor.next_deadline().unwrap();
    }
    assert_eq!(seen.len(), 5);
}

#[test]
fn queued_targets_survive_a_reconcile_and_a_dropped_one_frees_its_slot() {
    let policy = policy(1_000, 1_000, 1);
    let (mut monitor, now) = (Monitor::new(), start());
    monitor.reconcile(targets(3, 3, &policy), now);
    assert_eq!(monitor.poll_probe(now).unwrap().probe, 0);
    assert!(monitor.poll_probe(now).is_none());
    // The same again: 0 is in flight still, so the slot is taken still.
    monitor.reconcile(targets(3, 3, &policy), now);
    assert!(monitor.poll_probe(now).is_none());
    monitor.reconcile(targets(3, 3, &policy).split_off(1), now);
    assert_eq!(monitor.poll_probe(now).unwrap().probe, 1);
    assert!(monitor.poll_probe(now).is_none());
    // Moved to a checker of its own, it need not wait for the other.
    let mut apart = targets(3, 3, &policy).split_off(1);
    apart[1].checker = "apart".to_owned();
    monitor.reconcile(apart, now);
    assert_eq!(monitor.poll_probe(now).unwrap().probe, 2);
}

#[test]
fn a_date_survives_a_reconcile() {
    let policy = policy(30_000, 30_000, 1);
    let (mut monitor, now) = (Monitor::new(), start());
    monitor.reconcile(targets(1, 1, &policy), now);
    let probe = monitor.poll_probe(now).unwrap();
    monitor.on_probe(probe.ticket, ProbeOutcome::TcpOk, now);
    // Configuration that changes more often than the interval must not put probes off.
    for second in 1..30 {
        monitor.reconcile(targets(1, 1, &policy), now + second * 1_000 * MS);
        assert_eq!(monitor.next_deadline(), Some(now + 30_000 * MS));
    }
}

#[test]
fn where_policies_of_a_checker_differ_the_smallest_concurrency_counts() {
    let (mut monitor, now) = (Monitor::new(), start());
    let mut wanted = targets(4, 4, &policy(1_000, 1_000, 3));
    wanted[2].policy.concurrency = 2;
    monitor.reconcile(wanted, now);
    assert_eq!(std::iter::from_fn(|| monitor.poll_probe(now)).count(), 2);
}

#[test]
fn who_waited_longest_is_first() {
    let (mut monitor, now) = (Monitor::new(), start());
    let policy = policy(1_000, 1_000, 1);
    monitor.reconcile(targets(2, 2, &policy), now);
    let first = monitor.poll_probe(now).unwrap();
    let late = now + 5_000 * MS / 2;
    monitor.on_probe(first.ticket, ProbeOutcome::TcpOk, late);
    // Target 0 was due at 1 s, target 1 at 0 s.
    assert_eq!(monitor.poll_probe(late).unwrap().probe, 1);
}

#[test]
fn absurd_durations_neither_panic_nor_spin() {
    for extreme in [Duration::ZERO, Duration::MAX] {
        let policy = Policy {
            healthy_interval: extreme,
            unhealthy_interval: extreme,
            timeout: extreme,
            ..Policy::default()
        };
        let (mut monitor, now) = (Monitor::new(), start());
        monitor.reconcile(targets(1, 1, &policy), now);
        let probe = monitor.poll_probe(now).unwrap();
        assert!(monitor.poll_probe(now).is_none(), "void at once");
        monitor.on_probe(probe.ticket, ProbeOutcome::TcpOk, now);
        assert!(monitor.poll_probe(now).is_none(), "due at once");
        assert!(monitor.next_deadline().is_some());
    }
}

#[test]
fn five_thousand_targets_are_probed_in_turn() {
    let count = 5_000;
    let mut simulation = Simulation::new(count, count, &policy(1_000, 1_000, u32::MAX));
    let end = simulation.now + Duration::from_millis(3_500);
    let fate = Fate::Answered {
        after_ms: 20,
        outcome: ProbeOutcome::TcpOk,
    };
    simulation.run_lightly(fate, end);
    assert_eq!(simulation.sent, 4 * count as u64);
}

impl Simulation {
    /// As [`run`](Self::run), without the checks that look at everybody at each step.
    fn run_lightly(&mut self, fate: Fate, end: Instant) {
        let Fate::Answered { after_ms, outcome } = fate else {
            return;
        };
        while let Some(next) = self.monitor.next_deadline()
            && next <= end
        {
            self.now = next;
            let probes: Vec<_> = std::iter::from_fn(|| self.monitor.poll_probe(self.now)).collect();
            self.sent += probes.len() as u64;
            for probe in probes {
                self.monitor
                    .on_probe(probe.ticket, outcome, self.now + after_ms * MS);
            }
        }
    }
}

/// What reports say of the next probe: when it is due, also when that has passed, and nothing while it
/// is under way.
#[test]
fn the_next_probe_is_told() {
    let now = start();
    let mut monitor = Monitor::new();
    let ids = monitor.reconcile(targets(2, 2, &policy(1_000, 200, 1)), now);
    assert_eq!(
        ids.iter().map(|&id| monitor.next_probe(id)).max(),
        Some(Some(now))
    );
    let due = monitor.poll_probe(now).unwrap();
    let (first, second) = (
        due.ticket.target(),
        ids[usize::from(due.ticket.target() == ids[0])],
    );
    assert!(monitor.poll_probe(now).is_none(), "one at a time");
    let told = |monitor: &Monitor<usize>| (monitor.next_probe(first), monitor.next_probe(second));
    assert_eq!(told(&monitor), (None, Some(now)), "in flight, and queued");
    let answered = now + 50 * MS;
    monitor.on_probe(due.ticket, ProbeOutcome::TcpOk, answered);
    assert_eq!(told(&monitor), (Some(now + 1_000 * MS), Some(now)));
    monitor.reconcile(Vec::new(), now);
    assert_eq!(told(&monitor), (None, None));
}

/// I-16 where traffic has the word: what it takes out is probed as one that is out, from then on.
#[test]
fn i16_what_traffic_takes_out_is_probed_as_that() {
    let now = start();
    let mut monitor = Monitor::new();
    let targets = monitor.reconcile(targets(1, 1, &policy(60_000, 1_000, 10)), now);
    let probe = monitor.poll_probe(now).expect("a new one is due");
    monitor.on_probe(probe.ticket, ProbeOutcome::TcpOk, now);
    assert_eq!(monitor.next_deadline(), Some(now + 60_000 * MS));
    let passive = Passive {
        limits: Limits {
            tcp_failures: 1,
            ..Passive::default().limits
        },
        ..Passive::default()
    };
    let later = now + 10_000 * MS;
    let tell = |monitor: &mut Monitor<usize>, outcome, at| {
        monitor.on_traffic(targets[0], outcome, &passive, at, at)
    };
    assert!(tell(&mut monitor, ProbeOutcome::TcpFailure, later).is_some());
    let probe = monitor
        .poll_probe(later)
        .expect("more than an interval has gone by");
    // A probe that is under way is followed by the interval of the verdict at its end.
    monitor.on_probe(probe.ticket, ProbeOutcome::TcpFailure, later);
    assert_eq!(monitor.next_deadline(), Some(later + 1_000 * MS));
}
