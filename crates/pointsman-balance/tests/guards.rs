//! Guards and evidence from traffic: cool-downs, circuits, trials, and what `checks.passive` counts.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::time::{Duration, Instant};

use pointsman_balance::{
    Algorithm, Ask, Breaker, CircuitState, Limits, MemberSpec, Monitor, Passive, Policy, Pool,
    ProbeOutcome, Status, TargetId, Tried, Wanted,
};
use support::{BREAKER, guard_spec as spec, start};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn pool(monitor: &mut Monitor<u8>, priorities: &[i32], guards: &[&[TargetId]]) -> Pool {
    pool_by(Algorithm::RoundRobin, monitor, priorities, guards)
}

fn pool_by(
    algorithm: Algorithm,
    monitor: &mut Monitor<u8>,
    priorities: &[i32],
    guards: &[&[TargetId]],
) -> Pool {
    let members = priorities
        .iter()
        .zip(guards)
        .enumerate()
        .map(|(index, (&priority, guards))| MemberSpec {
            name: format!("m{index}"),
            weight: 1,
            priority,
            targets: vec![],
            gate: Some(monitor.gate(&[], guards.to_vec())),
        });
    Pool::new(members.collect(), algorithm, 0).expect("sound")
}

/// Who is picked, and whether as a trial, which is given back.
fn pick(pool: &Pool, monitor: &Monitor<u8>, tried: &[usize]) -> Option<(usize, bool)> {
    let mut marks = Tried::new();
    tried.iter().for_each(|&member| marks.mark(member));
    let ask = Ask {
        key: None,
        now: Duration::ZERO,
        tried: &marks,
    };
    let mut picked = pool.pick(&ask, &monitor.availability()).ok()?;
    Some((picked.member(), picked.take_trial().is_some()))
}

#[test]
fn a_cool_down_keeps_out_until_its_end_and_only_ever_extends() {
    let now = start();
    let mut monitor = Monitor::<u8>::new();
    let (a, tally) = monitor.guard(spec("a", None), now);
    let (b, _) = monitor.guard(spec("b", None), now);
    assert!(tally.is_none(), "no circuit, nothing to count");
    let pool = pool(&mut monitor, &[0, 0], &[&[a], &[b]]);

    let change = monitor.cool_down(a, now + seconds(10), now).expect("out");
    assert_eq!((change.target, change.to), (a, Status::Unhealthy));
    let epoch = monitor.availability().epoch();
    assert_eq!(monitor.cool_down(a, now + seconds(5), now), None);
    assert_eq!(monitor.next_deadline(), Some(now + seconds(10)));
    assert_eq!(monitor.cool_down(a, now + seconds(20), now), None);
    assert_eq!(monitor.cool_down(a, now + seconds(20), now), None);
    assert_eq!(monitor.availability().epoch(), epoch);
    assert_eq!(monitor.next_deadline(), Some(now + seconds(20)));
    for _ in 0..4 {
        assert_eq!(pick(&pool, &monitor, &[]), Some((1, false)));
    }
    // The usable one was tried: a retry ends rather than reach the other.
    assert_eq!(pick(&pool, &monitor, &[1]), None);

    assert_eq!(monitor.tick(now + seconds(10)), []);
    assert!(!monitor.availability().usable(a));
    let ended = monitor.tick(now + seconds(20));
    assert_eq!(ended.len(), 1);
    assert!(monitor.availability().usable(a));
    assert_eq!(monitor.next_deadline(), None);
    // One that is over when it arrives is none.
    assert_eq!(monitor.cool_down(a, now, now + seconds(21)), None);
}

#[test]
fn when_all_are_out_all_are_offered() {
    let now = start();
    let mut monitor = Monitor::<u8>::new();
    let guards: Vec<TargetId> = (0..3)
        .map(|key| monitor.guard(spec(&key.to_string(), None), now).0)
        .collect();
    let pool = pool(
        &mut monitor,
        &[1, 1, 0],
        &[&guards[..1], &guards[1..2], &guards[2..]],
    );
    for &guard in &guards {
        let _ = monitor.cool_down(guard, now + seconds(1), now);
    }
    assert!(!pool.any_usable(&monitor.availability()));
    let ask = Ask {
        key: None,
        now: Duration::ZERO,
        tried: &Tried::new(),
    };
    let first = pool
        .pick(&ask, &monitor.availability())
        .expect("fails open");
    assert!(first.failed_open());
    assert_ne!(first.member(), 2, "priorities hold also then");
}

#[test]
fn a_credential_that_is_out_takes_all_its_members_along() {
    let now = start();
    let mut monitor = Monitor::<u8>::new();
    let (key, _) = monitor.guard(spec("key", None), now);
    let (one, _) = monitor.guard(spec("one", None), now);
    let pool = pool(&mut monitor, &[0, 0, 0], &[&[one, key], &[key], &[]]);
    let _ = monitor.cool_down(key, now + seconds(1), now);
    assert_eq!(pick(&pool, &monitor, &[]), Some((2, false)));
    assert_eq!(pick(&pool, &monitor, &[2]), None);
    let _ = monitor.tick(now + seconds(1));
    let _ = monitor.cool_down(one, now + seconds(2), now + seconds(1));
    assert_eq!(pick(&pool, &monitor, &[2]), Some((1, false)));
}

#[test]
fn an_open_circuit_asks_for_one_trial_at_a_time() {
    let mut now = start();
    let mut monitor = Monitor::<u8>::new();
    let (guard, tally) = monitor.guard(spec("a", Some(BREAKER)), now);
    let tally = tally.expect("it has a circuit");
    let pool = pool(&mut monitor, &[0, 0], &[&[guard], &[]]);

    assert!(!tally.record(false, now, now));
    assert!(!tally.record(false, now, now));
    assert!(tally.record(false, now, now), "the third in a row");
    assert!(monitor.trip(guard, now).is_some());
    assert!(monitor.trip(guard, now).is_none(), "open already");
    assert_eq!(pick(&pool, &monitor, &[]), Some((1, false)));

    now += seconds(5);
    assert_eq!(monitor.tick(now), [], "half open is not usable");
    let availability = monitor.availability();
    assert!(!availability.usable(guard));
    let ask = Ask {
        key: None,
        now: Duration::ZERO,
        tried: &Tried::new(),
    };
    let mut first = pool.pick(&ask, &availability).expect("two are there");
    let trial = first.take_trial().expect("the circuit asks for one");
    assert_eq!((first.member(), trial.guard()), (0, guard));
    // As long as it is under way, the others go elsewhere.
    assert_eq!(pick(&pool, &monitor, &[]), Some((1, false)));
    // A request that has been somewhere already is no trial; neither is there one without a way back.
    drop(trial);
    assert_eq!(pick(&pool, &monitor, &[1]), None);
    assert_eq!(pick(&pool, &monitor, &[]), Some((0, true)), "given back");

    // It fails: open again, for twice as long.
    let trial = claim(&pool, &monitor);
    let _ = monitor.on_trial(&trial, false, now);
    assert_eq!(
        monitor.guard_report(guard).expect("known").circuit,
        CircuitState::Open(now + seconds(10))
    );
    now += seconds(10);
    let _ = monitor.tick(now);
    // The old trial is from an earlier period.
    let _ = monitor.on_trial(&trial, false, now);
    drop(trial);
    assert_eq!(
        monitor.guard_report(guard).expect("known").circuit,
        CircuitState::HalfOpen
    );
    // Two successes close it.
    let trial = claim(&pool, &monitor);
    assert_eq!(monitor.on_trial(&trial, true, now), None);
    drop(trial);
    let trial = claim(&pool, &monitor);
    assert!(monitor.on_trial(&trial, true, now).is_some());
    drop(trial);
    assert!(monitor.availability().usable(guard));
    // And the count begins anew.
    assert!(!tally.record(false, now, now));
    assert!(!tally.record(false, now, now));
    assert!(tally.record(false, now, now));
}

/// An order of the request's own changes none of that; whoever stands behind waits for no trial.
#[test]
fn trials_come_in_the_order_of_the_request() {
    let mut now = start();
    let mut monitor = Monitor::<u8>::new();
    let (guard, tally) = monitor.guard(spec("a", Some(BREAKER)), now);
    let tally = tally.expect("it has a circuit");
    let pool = pool(&mut monitor, &[0, 0], &[&[guard], &[]]);
    for _ in 0..BREAKER.failures {
        let _ = tally.record(false, now, now);
    }
    assert!(monitor.trip(guard, now).is_some());
    now += seconds(5);
    let _ = monitor.tick(now);
    for (order, tried, expected) in [
        (&[0, 1][..], &[][..], Some((0, true))),
        (&[1, 0], &[], Some((1, false))),
        (&[0, 1], &[1], None),
        (&[0], &[], None),
        (&[1], &[], Some((1, false))),
    ] {
        let mut marks = Tried::new();
        tried.iter().for_each(|&member| marks.mark(member));
        let ask = Ask {
            key: None,
            now: Duration::ZERO,
            tried: &marks,
        };
        let picked = pool.pick_in_order(order, &ask, &monitor.availability());
        let got = picked.map(|mut picked| (picked.member(), picked.take_trial().is_some()));
        assert_eq!(got.ok(), expected, "{order:?}, {tried:?}");
    }
}

fn claim(pool: &Pool, monitor: &Monitor<u8>) -> pointsman_balance::Trial {
    let ask = Ask {
        key: None,
        now: Duration::ZERO,
        tried: &Tried::new(),
    };
    let mut picked = pool.pick(&ask, &monitor.availability()).expect("somebody");
    picked.take_trial().expect("a trial is asked for")
}

#[test]
fn the_wait_doubles_up_to_its_limit() {
    let mut now = start();
    let mut monitor = Monitor::<u8>::new();
    let (guard, _) = monitor.guard(spec("a", Some(BREAKER)), now);
    let pool = pool(&mut monitor, &[0], &[&[guard]]);
    let _ = monitor.trip(guard, now);
    for wait in [5, 10, 15, 15] {
        let Some(CircuitState::Open(until)) =
            monitor.guard_report(guard).map(|report| report.circuit)
        else {
            panic!("not open");
        };
        assert_eq!(until, now + seconds(wait));
        now = until;
        let _ = monitor.tick(now);
        let _ = monitor.on_trial(&claim(&pool, &monitor), false, now);
    }
}

#[test]
fn no_trial_of_a_lower_priority_than_what_is_offered() {
    let now = start();
    let mut monitor = Monitor::<u8>::new();
    let (guard, _) = monitor.guard(spec("a", Some(BREAKER)), now);
    let _ = monitor.trip(guard, now);
    let _ = monitor.tick(now + seconds(5));
    let below = pool(&mut monitor, &[1, 0], &[&[], &[guard]]);
    assert_eq!(pick(&below, &monitor, &[]), Some((0, false)));
    let above = pool(&mut monitor, &[0, 1], &[&[], &[guard]]);
    assert_eq!(pick(&above, &monitor, &[]), Some((1, true)));
    // Cooling down as well: not even a trial.
    let _ = monitor.cool_down(guard, now + seconds(60), now + seconds(5));
    assert_eq!(pick(&above, &monitor, &[]), Some((0, false)));
}

#[test]
fn an_old_success_does_not_end_a_row_of_failures() {
    let now = start();
    let mut monitor = Monitor::<u8>::new();
    let (_, tally) = monitor.guard(spec("a", Some(BREAKER)), now);
    let tally = tally.expect("it has a circuit");
    let at = |seconds| now + Duration::from_secs(seconds);
    assert!(!tally.record(false, at(1), at(2)));
    assert!(!tally.record(false, at(2), at(3)));
    // Began before the failure at 3.
    assert!(!tally.record(true, at(2), at(4)));
    assert!(tally.record(false, at(4), at(5)));
    // Began after the one at 5.
    assert!(!tally.record(true, at(6), at(7)));
    assert!(!tally.record(false, at(7), at(8)));
    assert!(!tally.record(false, at(8), at(9)));
}

#[test]
fn a_share_of_failures_counts_inside_one_window() {
    let now = start();
    let mut monitor = Monitor::<u8>::new();
    let breaker = Breaker {
        failures: 0,
        error_percent: 50,
        min_attempts: 4,
        ..BREAKER
    };
    let (_, tally) = monitor.guard(spec("a", Some(breaker)), now);
    let tally = tally.expect("it has a circuit");
    let record = |ok: bool, at: u64| tally.record(ok, now + seconds(at), now + seconds(at));
    for at in 0..3 {
        assert!(!record(false, at), "fewer than 4 attempts");
    }
    // The next window begins without them.
    assert!(!record(false, 10));
    assert!(!record(true, 11));
    assert!(!record(true, 12));
    assert!(record(false, 13), "two of four");
    assert!(!record(true, 14));
    assert!(!record(true, 15));
    assert!(!record(false, 16), "three of seven");
    assert!(record(false, 17), "four of eight");
}

#[test]
fn guards_are_shared_kept_while_asked_for_and_never_come_back_to_life() {
    let now = start();
    let mut monitor = Monitor::<u8>::new();
    let (a, _) = monitor.guard(spec("a", None), now);
    let (same, _) = monitor.guard(spec("a", None), now);
    let (other, _) = monitor.guard(spec("a", Some(BREAKER)), now);
    assert_eq!(a, same);
    assert_ne!(a, other);
    monitor.sweep_guards();

    // The next configuration asks for `a` only; it keeps its cool-down.
    let _ = monitor.cool_down(a, now + seconds(9), now);
    assert_eq!(monitor.guard(spec("a", None), now).0, a);
    monitor.sweep_guards();
    assert!(monitor.guard_report(a).is_some());
    assert!(monitor.guard_report(other).is_none());
    assert!(!monitor.availability().usable(a));

    // Then nobody does. Requests that began before go on seeing it out.
    monitor.sweep_guards();
    let _ = monitor.tick(now + seconds(9));
    assert!(!monitor.availability().usable(a));
    assert_eq!(monitor.cool_down(a, now + seconds(20), now), None);
    assert!(monitor.trip(other, now).is_none());
    let (again, _) = monitor.guard(spec("a", None), now);
    assert_ne!(again, a);
    assert!(monitor.availability().usable(again));
}

fn watched(monitor: &mut Monitor<u8>, now: Instant) -> TargetId {
    let wanted = Wanted {
        probe: 1,
        policy: Policy::default(),
        lineage: "l".to_owned(),
        checker: "c".to_owned(),
    };
    monitor.reconcile(vec![wanted], now)[0]
}

/// One date in the agenda may stand for both.
#[test]
fn a_circuit_and_a_cool_down_may_wait_for_the_same_moment() {
    let now = start();
    let mut monitor = Monitor::<u8>::new();
    let (guard, _) = monitor.guard(spec("a", Some(BREAKER)), now);
    let _ = monitor.trip(guard, now);
    let _ = monitor.cool_down(guard, now + seconds(5), now);
    let _ = monitor.cool_down(guard, now + seconds(9), now);
    let _ = monitor.tick(now + seconds(5));
    let report = monitor.guard_report(guard).expect("known");
    assert_eq!(report.circuit, CircuitState::HalfOpen);
    assert_eq!(report.cools_until, Some(now + seconds(9)));
    let _ = monitor.tick(now + seconds(9));
    let report = monitor.guard_report(guard).expect("known");
    assert_eq!(report.cools_until, None);
}

/// With nobody else to ask, a half-open circuit still gets its trials, one at a time.
#[test]
fn a_lone_circuit_is_tried_too() {
    let now = start();
    let mut monitor = Monitor::<u8>::new();
    let (guard, _) = monitor.guard(spec("a", Some(BREAKER)), now);
    let pool = pool(&mut monitor, &[0], &[&[guard]]);
    let _ = monitor.trip(guard, now);
    assert_eq!(pick(&pool, &monitor, &[]), Some((0, false)));
    let _ = monitor.tick(now + seconds(5));
    let trial = claim(&pool, &monitor);
    assert_eq!(pick(&pool, &monitor, &[]), Some((0, false)));
    let _ = monitor.on_trial(&trial, true, now + seconds(5));
    drop(trial);
    let trial = claim(&pool, &monitor);
    assert!(monitor.on_trial(&trial, true, now + seconds(5)).is_some());
}

/// B-155 in small: limits of passive checks, and the table of §4.2.
#[test]
fn traffic_moves_a_target_through_the_same_states() {
    let now = start();
    let mut monitor = Monitor::new();
    let target = watched(&mut monitor, now);
    let passive = Passive {
        limits: Limits {
            successes: 2,
            http_failures: 3,
            tcp_failures: 0,
            timeouts: 1,
        },
        ..Passive::default()
    };
    let mut clock = now;
    let mut tell = |monitor: &mut Monitor<u8>, outcome| {
        clock += seconds(1);
        monitor.on_traffic(target, outcome, &passive, clock, clock)
    };
    assert!(monitor.availability().settled(target));
    assert_eq!(
        tell(&mut monitor, ProbeOutcome::Status(404)),
        None,
        "in no list"
    );
    assert_eq!(
        tell(&mut monitor, ProbeOutcome::TcpFailure),
        None,
        "a limit of 0 is off"
    );
    let change = tell(&mut monitor, ProbeOutcome::Status(500)).expect("mostly healthy");
    assert_eq!(
        (change.to, change.usable_changed),
        (Status::MostlyHealthy, false)
    );
    assert!(
        !monitor.availability().settled(target),
        "successes mean something now"
    );
    let epoch = monitor.availability().epoch();
    assert_eq!(tell(&mut monitor, ProbeOutcome::Status(503)), None);
    let change = tell(&mut monitor, ProbeOutcome::Status(429)).expect("three");
    assert_eq!(
        (change.to, change.usable_changed),
        (Status::Unhealthy, true)
    );
    assert_eq!(monitor.availability().epoch(), epoch + 1);
    assert!(tell(&mut monitor, ProbeOutcome::Status(200)).is_some());
    let change = tell(&mut monitor, ProbeOutcome::Status(302)).expect("two");
    assert_eq!(change.to, Status::Healthy);
    assert!(monitor.availability().settled(target));
    let change = tell(&mut monitor, ProbeOutcome::Timeout).expect("one timeout is enough");
    assert_eq!(change.to, Status::Unhealthy);
}

/// Ordered evidence: what began before the latest failure does not speak for a target, whether it was a
/// request or a probe.
#[test]
fn a_success_counts_only_if_it_began_after_the_latest_failure() {
    let now = start();
    let mut monitor = Monitor::new();
    let target = watched(&mut monitor, now);
    let passive = Passive {
        limits: Limits {
            successes: 1,
            http_failures: 1,
            tcp_failures: 1,
            timeouts: 1,
        },
        ..Passive::default()
    };
    let at = |tenths: u64| now + Duration::from_millis(100 * tenths);
    let probe = monitor.poll_probe(at(0)).expect("due");
    let down = monitor.on_traffic(target, ProbeOutcome::TcpFailure, &passive, at(1), at(2));
    assert!(down.is_some());
    let old = monitor.on_traffic(target, ProbeOutcome::Status(200), &passive, at(1), at(3));
    assert_eq!(old, None);
    assert_eq!(
        monitor.on_probe(probe.ticket, ProbeOutcome::Status(200), at(4)),
        None
    );
    let report = monitor.report(target).expect("watched");
    assert_eq!(report.status, Status::Unhealthy);
    assert_eq!(report.last, Some((ProbeOutcome::TcpFailure, at(2))));
    // The target that was probed in vain is due again.
    let next = monitor.next_deadline().expect("due");
    let probe = monitor.poll_probe(next).expect("due again");
    let change = monitor.on_probe(probe.ticket, ProbeOutcome::Status(200), next);
    assert_eq!(
        change.map(|change| change.to),
        Some(Status::MostlyUnhealthy)
    );
    let new = monitor.on_traffic(target, ProbeOutcome::Status(200), &passive, next, next);
    assert_eq!(new.map(|change| change.to), Some(Status::Healthy));
}

/// The short cut says the same as a look at each member.
#[test]
fn all_are_usable_iff_each_is() {
    let now = start();
    let mut monitor = Monitor::<u8>::new();
    let target = watched(&mut monitor, now);
    let (guard, _) = monitor.guard(spec("a", None), now);
    let gate = monitor.gate(&[], vec![guard]);
    let member = |name: &str, targets: &[TargetId]| MemberSpec {
        name: name.to_owned(),
        weight: 1,
        priority: 0,
        targets: targets.to_vec(),
        gate: None,
    };
    let members = || vec![member("free", &[]), member("probed", &[target])];
    let plain = Pool::new(members(), Algorithm::RoundRobin, 0).expect("sound");
    let mut members = members();
    members[0].gate = Some(gate);
    let guarded = Pool::new(members, Algorithm::RoundRobin, 0).expect("sound");
    let check = |monitor: &Monitor<u8>, expected: [bool; 2]| {
        let verdicts = monitor.availability();
        for (pool, expected) in [&plain, &guarded].into_iter().zip(expected) {
            assert_eq!(pool.all_usable(&verdicts), expected);
            assert_eq!((0..2).all(|at| pool.usable(at, &verdicts)), expected);
        }
    };
    check(&monitor, [true, true]);
    monitor.cool_down(guard, now + seconds(5), now);
    check(&monitor, [true, false]);
    let down = Passive {
        limits: Limits {
            successes: 1,
            http_failures: 1,
            tcp_failures: 1,
            timeouts: 1,
        },
        ..Passive::default()
    };
    monitor.on_traffic(target, ProbeOutcome::Timeout, &down, now, now);
    check(&monitor, [false, false]);
    monitor.tick(now + seconds(5));
    check(&monitor, [false, false]);
}

/// I-20: a trial moves the sessions of the instance on trial, which come home by it, and nobody else's.
#[test]
fn i20_a_trial_on_a_ring_is_made_by_the_keys_of_its_owner() {
    let mut now = start();
    let mut monitor = Monitor::<u8>::new();
    let (guard, tally) = monitor.guard(spec("a", Some(BREAKER)), now);
    let tally = tally.expect("it has a circuit");
    let pool = pool_by(
        Algorithm::Chash,
        &mut monitor,
        &[0, 0, 0],
        &[&[guard], &[], &[]],
    );
    let pick = |monitor: &Monitor<u8>, key: u32| {
        let key = key.to_string();
        let ask = Ask {
            key: Some(key.as_bytes()),
            now: Duration::ZERO,
            tried: &Tried::new(),
        };
        let mut picked = pool.pick(&ask, &monitor.availability()).expect("somebody");
        (picked.member(), picked.take_trial().is_some())
    };
    let owners: Vec<usize> = (0..300).map(|key| pick(&monitor, key).0).collect();
    for _ in 0..3 {
        let _ = tally.record(false, now, now);
    }
    let _ = monitor.trip(guard, now);
    now += BREAKER.open;
    let _ = monitor.tick(now);
    for (key, owner) in (0..).zip(owners) {
        assert_eq!(pick(&monitor, key), (owner, owner == 0), "key {key}");
    }
}
