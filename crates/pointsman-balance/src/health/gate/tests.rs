//! Gates that no pool has any more.

use std::time::Duration;

use crate::health::{Breaker, GuardSpec, Monitor};

#[expect(
    clippy::disallowed_methods,
    reason = "an `Instant` to count from cannot be had otherwise"
)]
fn start() -> std::time::Instant {
    std::time::Instant::now()
}

/// A circuit that waits for a trial, of which no pool knows any more.
#[test]
fn a_gate_that_nobody_has_asks_for_nothing() {
    let breaker = Breaker {
        failures: 1,
        error_percent: 0,
        min_attempts: 1,
        window: Duration::from_secs(10),
        open: Duration::from_secs(1),
        open_max: Duration::from_secs(1),
        trials: 1,
    };
    let spec = || GuardSpec {
        key: "a".to_owned(),
        breaker: Some(breaker),
    };
    let now = start();
    let mut monitor = Monitor::<u8>::new();
    let (guard, _) = monitor.guard(spec(), now);
    let gate = monitor.gate(&[], vec![guard]);
    assert!(monitor.trip(guard, now).is_some());
    monitor.tick(now + Duration::from_secs(2));
    assert!(monitor.availability().has_asking());
    assert!(monitor.availability().asks(gate.id()).is_some());
    // The guard stays, with another gate; this one goes.
    let id = gate.id();
    drop(gate);
    let _ = monitor.guard(spec(), now);
    monitor.sweep_guards();
    assert!(!monitor.availability().has_asking());
    assert!(!monitor.availability().usable(id));
}
