//! Circuits whose settings change.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::time::Duration;

use pointsman_balance::{Algorithm, Ask, Breaker, CircuitState, MemberSpec, Monitor, Pool, Tried};
use support::{BREAKER, guard_spec as spec, start};

/// Another setting of a circuit that is open makes another guard, which is open for as long.
#[test]
fn a_circuit_with_other_settings_stays_open() {
    let now = start();
    let mut monitor = Monitor::<u8>::new();
    let (old, _) = monitor.guard(spec("a", Some(BREAKER)), now);
    assert!(monitor.trip(old, now).is_some());
    let other = Breaker {
        failures: 9,
        ..BREAKER
    };
    let (new, _) = monitor.guard(spec("a", Some(other)), now);
    assert_ne!(old, new);
    assert_eq!(monitor.take_inherited(), [new]);
    assert!(!monitor.availability().usable(new));
    let circuit = |monitor: &Monitor<u8>, guard| monitor.guard_report(guard).unwrap().circuit;
    assert_eq!(circuit(&monitor, new), circuit(&monitor, old));
    monitor.tick(now + Duration::from_secs(6));
    assert_eq!(circuit(&monitor, new), CircuitState::HalfOpen);
    // One of another key, and one that only cools down, know nothing of it.
    let (third, _) = monitor.guard(spec("b", Some(other)), now);
    let (plain, _) = monitor.guard(spec("a", None), now);
    let availability = monitor.availability();
    assert!(availability.usable(third) && availability.usable(plain));
}

/// A trial that fails makes the wait longer, and another setting does not begin that anew.
#[test]
fn a_change_of_settings_does_not_begin_the_doubling_anew() {
    let mut now = start();
    let mut monitor = Monitor::<u8>::new();
    let (mut guard, _) = monitor.guard(spec("a", Some(BREAKER)), now);
    assert!(monitor.trip(guard, now).is_some());
    for (failures, wait) in [(7, 10), (8, 15), (9, 15)] {
        now += Duration::from_secs(20);
        monitor.tick(now);
        // The successor takes its place half open, and before the trial that fails.
        let other = Breaker {
            failures,
            ..BREAKER
        };
        (guard, _) = monitor.guard(spec("a", Some(other)), now);
        monitor.inherit_circuits(now);
        let gate = monitor.gate(&[], vec![guard]);
        let member = MemberSpec {
            name: "able".to_owned(),
            weight: 1,
            priority: 0,
            targets: vec![],
            gate: Some(gate),
        };
        let pool = Pool::new(vec![member], Algorithm::RoundRobin, 0).unwrap();
        let ask = Ask {
            key: None,
            now: Duration::ZERO,
            tried: &Tried::new(),
        };
        let mut picked = pool.pick(&ask, &monitor.availability()).unwrap();
        monitor.on_trial(&picked.take_trial().unwrap(), false, now);
        let until = CircuitState::Open(now + Duration::from_secs(wait));
        assert_eq!(monitor.guard_report(guard).unwrap().circuit, until);
    }
}

/// Whoever cannot be asked at all is not in the way: others are tried again, and asked if nobody is usable.
#[test]
fn who_cannot_be_asked_is_no_member_for_a_request() {
    let now = start();
    let mut monitor = Monitor::<u8>::new();
    let (circuit, _) = monitor.guard(spec("a", Some(BREAKER)), now);
    let member = |name: &str, gate| MemberSpec {
        name: name.to_owned(),
        weight: 1,
        priority: 0,
        targets: vec![],
        gate,
    };
    let gate = monitor.gate(&[], vec![circuit]);
    let members = vec![member("able", Some(gate)), member("unable", None)];
    let pool = Pool::new(members, Algorithm::RoundRobin, 0).unwrap();
    let mut tried = Tried::new();
    tried.rule_out(1);
    let pick = |monitor: &Monitor<u8>, tried: &Tried| {
        let ask = Ask {
            key: None,
            now: Duration::ZERO,
            tried,
        };
        let mut picked = pool.pick(&ask, &monitor.availability()).ok()?;
        let is_trial = picked.take_trial().is_some();
        Some((picked.member(), picked.failed_open(), is_trial))
    };
    assert_eq!(pick(&monitor, &tried), Some((0, false, false)));
    monitor.trip(circuit, now);
    assert_eq!(
        pick(&monitor, &tried),
        Some((0, true, false)),
        "nobody else"
    );
    monitor.tick(now + Duration::from_secs(6));
    assert_eq!(pick(&monitor, &tried), Some((0, true, true)), "a trial");
    // The member that was tried is not tried again.
    tried.mark(0);
    assert_eq!(pick(&monitor, &tried), None);
}
