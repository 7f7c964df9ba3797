//! I-4: no pick depends on how probing is run, only on what was found out.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::time::{Duration, Instant};

use pointsman_balance::{
    Algorithm, Ask, Availability, Exhausted, Monitor, Policy, Pool, Probe, ProbeOutcome, TargetId,
    Tried, Wanted,
};
use proptest::prelude::*;
use support::{member, start};

const TARGETS: usize = 5;

/// What happens to a prober on its way to one round of results.
#[derive(Debug, Clone, Copy)]
enum Hindrance {
    None,
    /// The checker is built anew before, and again while its probes are under way.
    Rebuilt,
    /// A first round of probes is lost with whoever ran it; its answers come after those of the
    /// next, and say the opposite.
    Lost,
    /// Answers come late and in another order.
    Delayed,
}

struct Prober {
    monitor: Monitor<usize>,
    ids: Vec<TargetId>,
    now: Instant,
}

impl Prober {
    fn new() -> Self {
        let mut monitor = Monitor::new();
        let now = start();
        let ids = monitor.reconcile(wishes(), now);
        Self { monitor, ids, now }
    }

    fn due(&mut self) -> Vec<Probe<usize>> {
        self.now += Duration::from_secs(10);
        std::iter::from_fn(|| self.monitor.poll_probe(self.now)).collect()
    }

    fn answer(&mut self, probe: Probe<usize>, up: bool) {
        let outcome = if up {
            ProbeOutcome::TcpOk
        } else {
            ProbeOutcome::TcpFailure
        };
        self.monitor.on_probe(probe.ticket, outcome, self.now);
    }

    fn rebuild(&mut self) {
        assert_eq!(self.monitor.reconcile(wishes(), self.now), self.ids);
    }

    /// One round of probes: afterwards every target is as `up` says.
    fn settle(&mut self, up: &[bool], hindrance: Hindrance) {
        let mut stale = Vec::new();
        match hindrance {
            Hindrance::Rebuilt => self.rebuild(),
            Hindrance::Lost => stale = self.due(),
            Hindrance::None | Hindrance::Delayed => {}
        }
        let mut probes = self.due();
        assert_eq!(probes.len(), TARGETS);
        match hindrance {
            Hindrance::Rebuilt => self.rebuild(),
            Hindrance::Delayed => {
                probes.reverse();
                self.now += Duration::from_secs(3);
            }
            Hindrance::None | Hindrance::Lost => {}
        }
        for probe in probes {
            let target = probe.probe;
            self.answer(probe, up[target]);
        }
        for probe in stale {
            let target = probe.probe;
            self.answer(probe, !up[target]);
        }
    }
}

fn wishes() -> Vec<Wanted<usize>> {
    let policy = Policy {
        successes: 1,
        tcp_failures: 1,
        concurrency: u32::MAX,
        ..Policy::default()
    };
    let wish = |probe: usize| Wanted {
        probe,
        policy: policy.clone(),
        lineage: probe.to_string(),
        checker: "all".to_owned(),
    };
    (0..TARGETS).map(wish).collect()
}

/// All attempts of one request.
fn attempts(pool: &Pool, key: &[u8], verdicts: &Availability) -> (Vec<usize>, Exhausted) {
    let (mut members, mut tried) = (Vec::new(), Tried::new());
    loop {
        let ask = Ask {
            key: Some(key),
            now: Duration::ZERO,
            tried: &tried,
        };
        match pool.pick(&ask, verdicts) {
            Ok(picked) => {
                members.push(picked.member());
                tried.mark(picked.member());
            }
            Err(end) => return (members, end),
        }
    }
}

proptest! {
    #[test]
    fn i4_a_hindered_prober_changes_no_pick(
        weights in prop::collection::vec(1..5_u32, TARGETS),
        algorithm in prop_oneof![Just(Algorithm::RoundRobin), Just(Algorithm::Chash)],
        log in prop::collection::vec(
            (
                prop::collection::vec(any::<bool>(), TARGETS),
                prop_oneof![
                    Just(Hindrance::None),
                    Just(Hindrance::Rebuilt),
                    Just(Hindrance::Lost),
                    Just(Hindrance::Delayed),
                ],
            ),
            1..12,
        ),
        start: u64,
        key: [u8; 3],
    ) {
        let (mut prompt, mut hindered) = (Prober::new(), Prober::new());
        let build = |prober: &Prober| {
            let members = weights.iter().zip(&prober.ids).enumerate();
            let members = members
                .map(|(number, (weight, id))| member(&format!("m{number}"), *weight, 0, &[*id]));
            Pool::new(members.collect(), algorithm, start).unwrap()
        };
        let pools = (build(&prompt), build(&hindered));
        for (up, hindrance) in log {
            prompt.settle(&up, Hindrance::None);
            hindered.settle(&up, hindrance);
            for _ in 0..3 {
                prop_assert_eq!(
                    attempts(&pools.0, &key, &prompt.monitor.availability()),
                    attempts(&pools.1, &key, &hindered.monitor.availability())
                );
            }
        }
    }
}
