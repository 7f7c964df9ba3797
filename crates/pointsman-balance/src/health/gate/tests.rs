//! Gates that no pool has any more, and what a verdict costs where there are many.

use std::sync::Arc;
use std::time::Duration;

use crate::health::effort;
use crate::health::{Breaker, Gate, GuardSpec, Monitor, Policy, ProbeOutcome, Wanted};
use crate::{Availability, TargetId};

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

/// Pools of three members, each with a target, a guard and so a gate of its own; one in ten routes shares
/// its targets with the route before.
struct Routes {
    monitor: Monitor<u32>,
    targets: Vec<TargetId>,
    gates: Vec<Arc<Gate>>,
}

const MEMBERS: u32 = 3;

impl Routes {
    fn new(routes: u32) -> Self {
        let policy = Policy {
            tcp_failures: 1,
            http_failures: 1,
            timeouts: 1,
            successes: 1,
            ..Policy::default()
        };
        let wanted = |member: u32| Wanted {
            probe: member,
            policy: policy.clone(),
            lineage: format!("{member}"),
            checker: format!("{}", member / MEMBERS),
        };
        let now = start();
        let mut monitor = Monitor::new();
        let targets = monitor.reconcile((0..routes * MEMBERS).map(wanted).collect(), now);
        let gates = (0..).zip(&targets).flat_map(|(member, &target): (u32, _)| {
            let key = format!("{member}");
            let (guard, _) = monitor.guard(GuardSpec { key, breaker: None }, now);
            let own = monitor.gate(&[target], vec![guard]);
            let is_shared = (member / MEMBERS).is_multiple_of(10);
            let other = is_shared.then(|| monitor.gate(&[target], Vec::new()));
            [Some(own), other]
        });
        let gates = gates.flatten().collect();
        Self {
            monitor,
            targets,
            gates,
        }
    }

    /// What it takes to publish that the target of a probe is down, while somebody reads what was
    /// published before.
    fn effort(&mut self) -> (usize, TargetId, Arc<Availability>) {
        let now = start();
        let probe = self.monitor.poll_probe(now).expect("one is due");
        let (target, before) = (probe.ticket.target(), self.monitor.availability());
        let (change, effort) = effort::of(|| {
            let outcome = ProbeOutcome::TcpFailure;
            self.monitor.on_probe(probe.ticket, outcome, now)
        });
        assert!(change.is_some_and(|change| change.usable_changed));
        assert!(before.usable(target) && !self.monitor.availability().usable(target));
        (effort, target, before)
    }
}

/// A verdict costs its target's gates and the pages that they are on: the same among a hundred routes and
/// among ten thousand, but for a pointer for every 512 ids.
#[test]
fn a_verdict_costs_no_more_for_all_the_other_routes() {
    for routes in [10, 100, 10_000] {
        let mut all = Routes::new(routes);
        let ids = all.targets.len() * 2 + all.gates.len();
        // While thousands are down already, whose comebacks are on the same pages.
        for _ in 0..all.targets.len() / 2 {
            let (effort, target, before) = all.effort();
            let limit = EFFORT_MAX + ids.div_ceil(512);
            assert!(effort <= limit, "{effort} among {routes} routes");
            let now = all.monitor.availability();
            let concerned = all.gates.iter().filter(|gate| gate.targets() == [target]);
            for gate in concerned.take(2) {
                assert!(before.usable(gate.id()) && !now.usable(gate.id()));
            }
            if routes > 100 && target.index() > 20 {
                break;
            }
        }
    }
}

/// Two gates, and three pages, of which each has 8 words and a comeback for each of its ids at most.
const EFFORT_MAX: usize = 2 + 3 * (1 + 8 + 512);
