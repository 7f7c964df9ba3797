//! Verdicts to order: a monitor over targets that are healthy or not as the test says.

#![allow(dead_code, reason = "each test program uses a part of this")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman_balance::{
    Algorithm, Ask, Availability, Breaker, Exhausted, Gate, GuardSpec, MemberSpec, Monitor, Picked,
    Policy, Pool, ProbeOutcome, TargetId, Tried, Wanted,
};

/// A circuit with limits that tests reach quickly.
pub(crate) const BREAKER: Breaker = Breaker {
    failures: 3,
    error_percent: 0,
    min_attempts: 10,
    window: Duration::from_secs(10),
    open: Duration::from_secs(5),
    open_max: Duration::from_secs(15),
    trials: 2,
};

pub(crate) fn guard_spec(key: &str, breaker: Option<Breaker>) -> GuardSpec {
    GuardSpec {
        key: key.to_owned(),
        breaker,
    }
}

/// Targets whose every probe decides, and the time at which they are probed.
pub(crate) struct Verdicts {
    pub(crate) ids: Vec<TargetId>,
    monitor: Monitor<usize>,
    now: Instant,
}

impl Verdicts {
    pub(crate) fn new(targets: usize) -> Self {
        let policy = Policy {
            successes: 1,
            tcp_failures: 1,
            concurrency: u32::MAX,
            ..Policy::default()
        };
        let wanted = |probe: usize| Wanted {
            probe,
            policy: policy.clone(),
            lineage: probe.to_string(),
            checker: "all".to_owned(),
        };
        let (mut monitor, now) = (Monitor::new(), start());
        let ids = monitor.reconcile((0..targets).map(wanted).collect(), now);
        Self { ids, monitor, now }
    }

    /// Probes every target once and answers as told.
    pub(crate) fn settle(&mut self, usable: impl Fn(usize) -> bool) -> Arc<Availability> {
        self.now += Duration::from_secs(10);
        while let Some(probe) = self.monitor.poll_probe(self.now) {
            let up = usable(probe.probe);
            let outcome = if up {
                ProbeOutcome::TcpOk
            } else {
                ProbeOutcome::TcpFailure
            };
            self.monitor.on_probe(probe.ticket, outcome, self.now);
        }
        self.monitor.availability()
    }
}

/// Where a guard of a [`Guarded`] stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stand {
    Usable,
    CoolingDown,
    Open,
    HalfOpen,
}

/// Gates to order, each with a target that is up, a cool-down, a circuit and a credential that all share.
pub(crate) struct Guarded {
    pub(crate) gates: Vec<Arc<Gate>>,
    pub(crate) availability: Arc<Availability>,
}

impl Guarded {
    pub(crate) fn new(count: usize, stand: impl Fn(usize) -> Stand) -> Self {
        let (mut verdicts, wait) = (Verdicts::new(count), Duration::from_secs(5));
        let breaker = Breaker {
            failures: 1,
            error_percent: 0,
            min_attempts: 1,
            window: wait,
            open: wait,
            open_max: wait,
            trials: 1,
        };
        let (now, ids) = (verdicts.now, verdicts.ids.clone());
        let monitor = &mut verdicts.monitor;
        let mut guard = |key: String, breaker| monitor.guard(GuardSpec { key, breaker }, now).0;
        let credential = guard("credential".to_owned(), None);
        let guards: Vec<[TargetId; 3]> = (0..count)
            .map(|at| {
                let cooling = guard(format!("instance {at}"), None);
                let circuit = guard(format!("circuit {at}"), Some(breaker));
                [cooling, circuit, credential]
            })
            .collect();
        let parts = ids.iter().zip(&guards);
        let gates = parts
            .map(|(&target, guards)| monitor.gate(&[target], guards.to_vec()))
            .collect();
        let stand = &stand;
        let all = |wanted| (0..count).filter(move |&at| stand(at) == wanted);
        for at in all(Stand::HalfOpen) {
            monitor.trip(guards[at][1], now);
        }
        monitor.tick(now + wait);
        for at in all(Stand::Open) {
            monitor.trip(guards[at][1], now + wait);
        }
        for at in all(Stand::CoolingDown) {
            monitor.cool_down(guards[at][0], now + 2 * wait, now + wait);
        }
        Self {
            gates,
            availability: monitor.availability(),
        }
    }
}

pub(crate) fn member(name: &str, weight: u32, priority: i32, targets: &[TargetId]) -> MemberSpec {
    MemberSpec {
        name: name.to_owned(),
        weight,
        priority,
        targets: targets.to_vec(),
        gate: None,
    }
}

/// Members of one priority, each with its own target.
pub(crate) fn checked(weights: &[(&str, u32)], ids: &[TargetId]) -> Vec<MemberSpec> {
    let pairs = weights.iter().zip(ids);
    pairs
        .map(|(&(name, weight), &id)| member(name, weight, 0, &[id]))
        .collect()
}

/// Members of one priority without checks.
pub(crate) fn unchecked(weights: &[(&str, u32)]) -> Vec<MemberSpec> {
    weights
        .iter()
        .map(|&(name, weight)| member(name, weight, 0, &[]))
        .collect()
}

pub(crate) fn pool(members: Vec<MemberSpec>, algorithm: Algorithm) -> Pool {
    Pool::new(members, algorithm, 0).unwrap()
}

/// A first attempt.
pub(crate) fn pick(
    pool: &Pool,
    key: &str,
    availability: &Availability,
) -> Result<Picked, Exhausted> {
    pool.pick(
        &Ask {
            key: Some(key.as_bytes()),
            now: Duration::ZERO,
            tried: &Tried::new(),
        },
        availability,
    )
}

/// The name picked for a first attempt.
pub(crate) fn pick_name<'a>(pool: &'a Pool, key: &str, availability: &Availability) -> &'a str {
    pool.name(pick(pool, key, availability).unwrap().member())
}

/// The names one request gets, attempt after attempt, and how it ends.
pub(crate) fn all_attempts(
    pool: &Pool,
    key: &str,
    availability: &Availability,
) -> (Vec<String>, Exhausted) {
    let (mut names, mut tried) = (Vec::new(), Tried::new());
    loop {
        match pool.pick(
            &Ask {
                key: Some(key.as_bytes()),
                now: Duration::ZERO,
                tried: &tried,
            },
            availability,
        ) {
            Ok(picked) => {
                names.push(pool.name(picked.member()).to_owned());
                tried.mark(picked.member());
            }
            Err(end) => return (names, end),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "an `Instant` to count from cannot be had otherwise"
)]
pub(crate) fn start() -> Instant {
    Instant::now()
}
