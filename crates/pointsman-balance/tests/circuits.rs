//! Circuits whose settings change.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::time::Duration;

use pointsman_balance::{Breaker, CircuitState, Monitor};
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
