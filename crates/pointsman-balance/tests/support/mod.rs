//! Verdicts to order: a monitor over targets that are healthy or not as the test says.

#![allow(dead_code, reason = "each test program uses a part of this")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman_balance::{
    Algorithm, Ask, Availability, Exhausted, MemberSpec, Monitor, Picked, Policy, Pool,
    ProbeOutcome, TargetId, Tried, Wanted,
};

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

pub(crate) fn member(name: &str, weight: u32, priority: i32, targets: &[TargetId]) -> MemberSpec {
    MemberSpec {
        name: name.to_owned(),
        weight,
        priority,
        targets: targets.to_vec(),
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
