//! A pick allocates nothing, whatever the verdicts and the algorithm.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use pointsman_balance::{Algorithm, Ask, Pool, Tried};
use support::{Guarded, Stand, Verdicts, member};

const MEMBERS: usize = 100;

fn check(algorithm: Algorithm, usable: fn(usize) -> bool) {
    let mut verdicts = Verdicts::new(MEMBERS);
    let members = (0..MEMBERS).map(|number| {
        let (weight, priority) = (1 + number as u32 % 7, number as i32 % 3);
        let target = verdicts.ids[number];
        member(&format!("m{number}"), weight, priority, &[target])
    });
    let pool = Pool::new(members.collect(), algorithm, 1).unwrap();
    let availability = verdicts.settle(usable);
    let mut tried = Tried::new();
    let (mut picks, mut bytes) = (0, 0);
    let allocated = allocation_counter::measure(|| {
        loop {
            let ask = Ask {
                key: Some(b"session-7"),
                now: Duration::ZERO,
                tried: &tried,
            };
            let Ok(mut picked) = pool.pick(&ask, &availability) else {
                break;
            };
            tried.mark(picked.member());
            picks += 1;
            if let Some(mut hold) = picked.take_hold() {
                hold.observe(Duration::from_millis(picks as u64), Duration::ZERO);
            }
            bytes += pool.name(picked.member()).len();
        }
    });
    let expected = (0..MEMBERS).filter(|&member| usable(member)).count();
    let expected = if expected == 0 { MEMBERS } else { expected };
    assert_eq!(picks, expected, "{algorithm:?}");
    assert!(bytes > picks);
    assert_eq!(allocated.count_total, 0, "{algorithm:?}: {allocated:?}");
}

#[test]
fn picks_and_retries_allocate_nothing() {
    for algorithm in [
        Algorithm::RoundRobin,
        Algorithm::Chash,
        Algorithm::LeastConn,
        Algorithm::Ewma,
    ] {
        check(algorithm, |_| true);
        check(algorithm, |member| member % 2 == 0);
        check(algorithm, |member| member == 50);
        check(algorithm, |_| false);
    }
}

/// However many of a hundred circuits ask for trials, and however many of those are under way.
#[test]
fn picks_with_guards_allocate_nothing() {
    let stands: [fn(usize) -> Stand; 4] = [
        |_| Stand::HalfOpen,
        |member| [Stand::HalfOpen, Stand::Usable][member % 2],
        |member| [Stand::Open, Stand::CoolingDown, Stand::Usable][member % 3],
        |_| Stand::Open,
    ];
    for (stand, algorithm) in stands.into_iter().zip([
        Algorithm::RoundRobin,
        Algorithm::Chash,
        Algorithm::LeastConn,
        Algorithm::Ewma,
    ]) {
        let guarded = Guarded::new(MEMBERS, stand);
        let mut members: Vec<_> = (0..MEMBERS)
            .map(|number| member(&format!("m{number}"), 1, number as i32 % 3, &[]))
            .collect();
        for (member, gate) in members.iter_mut().zip(&guarded.gates) {
            member.gate = Some(Arc::clone(gate));
        }
        let pool = Pool::new(members, algorithm, 1).unwrap();
        let half_open = (0..MEMBERS).filter(|&at| stand(at) == Stand::HalfOpen);
        let half_open = half_open.count();
        let mut trials = Vec::with_capacity(MEMBERS);
        let tried = Tried::new();
        // On a ring, only keys of whoever is on trial make trials.
        let keys: Vec<String> = (0..20 * MEMBERS).map(|key| key.to_string()).collect();
        let allocated = allocation_counter::measure(|| {
            for key in &keys {
                let ask = Ask {
                    key: Some(key.as_bytes()),
                    now: Duration::ZERO,
                    tried: &tried,
                };
                let mut picked = pool.pick(&ask, &guarded.availability).unwrap();
                trials.extend(picked.take_trial());
            }
        });
        // With some usable in the highest priority, only those of that priority are tried.
        let expected = match half_open {
            100 => 100,
            50 => (0..MEMBERS).filter(|at| at % 2 == 0 && at % 3 == 2).count(),
            _ => 0,
        };
        assert_eq!(trials.len(), expected, "{algorithm:?}");
        assert_eq!(allocated.count_total, 0, "{algorithm:?}: {allocated:?}");
    }
}

#[test]
fn the_counter_counts() {
    let allocated = allocation_counter::measure(|| drop(vec![1_u8]));
    assert_eq!(allocated.count_total, 1);
}
