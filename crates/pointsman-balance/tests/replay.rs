//! A pick that was noted can be made again from its note: by another pool of the same configuration,
//! whatever has happened since.

#![allow(
    clippy::disallowed_methods,
    reason = "any point in time will do to begin with"
)]

use std::time::{Duration, Instant};

use pointsman_balance::{
    Algorithm, Ask, Availability, Basis, Decision, Exhausted, GuardSpec, MemberSpec, Monitor,
    Policy, Pool, TargetId, Tried, Wanted,
};
use proptest::prelude::*;

const ALGORITHMS: [Algorithm; 4] = [
    Algorithm::RoundRobin,
    Algorithm::Chash,
    Algorithm::LeastConn,
    Algorithm::Ewma,
];

#[derive(Debug, Clone)]
struct Request {
    key: Vec<u8>,
    down: Vec<bool>,
    tried: Vec<bool>,
    /// How long the request takes; `None`: it never ends.
    took: Option<u64>,
}

fn ids(count: usize) -> Vec<TargetId> {
    let wanted = |index: usize| Wanted {
        probe: index,
        policy: Policy::default(),
        lineage: index.to_string(),
        checker: "pool".to_owned(),
    };
    #[allow(clippy::disallowed_methods, reason = "a test has no clock to be given")]
    let now = std::time::Instant::now();
    Monitor::new().reconcile((0..count).map(wanted).collect(), now)
}

fn specs(members: &[(u32, i32)], ids: &[TargetId]) -> Vec<MemberSpec> {
    let spec = |(index, &(weight, priority)): (usize, &(u32, i32))| MemberSpec {
        name: format!("member-{index}"),
        weight,
        priority,
        targets: vec![ids[index]],
        gate: None,
    };
    members.iter().enumerate().map(spec).collect()
}

fn marked<'a>(marks: &'a [bool], ids: &'a [TargetId]) -> impl Iterator<Item = TargetId> + 'a {
    let all = marks.iter().zip(ids);
    all.filter(|(mark, _)| **mark).map(|(_, &id)| id)
}

fn request(count: usize) -> impl Strategy<Value = Request> {
    let marks = |chance: f64| prop::collection::vec(prop::bool::weighted(chance), count);
    (
        prop::collection::vec(any::<u8>(), 0..4),
        prop_oneof![marks(0.2), marks(0.9)],
        marks(0.1),
        prop::option::of(1..2_000_u64),
    )
        .prop_map(|(key, down, tried, took)| Request {
            key,
            down,
            tried,
            took,
        })
}

fn life() -> impl Strategy<Value = (Vec<(u32, i32)>, Vec<Request>, u64)> {
    (1..24_usize).prop_flat_map(|count| {
        (
            prop::collection::vec((0..5_u32, 0..3_i32), count),
            prop::collection::vec(request(count), 1..30),
            any::<u64>(),
        )
    })
}

proptest! {
    #[test]
    fn a_noted_pick_is_made_again((members, requests, start) in life()) {
        // More ids than members, so that the bits of the replaying pool stand elsewhere.
        let all = ids(members.len() + 70);
        let (here, there) = (&all[..members.len()], &all[70..]);
        for algorithm in ALGORITHMS {
            let live = Pool::new(specs(&members, here), algorithm, start).expect("sound");
            let replay = Pool::new(specs(&members, there), algorithm, !start).expect("sound");
            prop_assert_eq!(live.digest(), replay.digest());
            let mut under_way = Vec::new();
            for (second, request) in (0..).zip(&requests) {
                let mut tried = Tried::new();
                (0..members.len()).filter(|&m| request.tried[m]).for_each(|m| tried.mark(m));
                let now = Duration::from_secs(second);
                let ask = Ask { key: Some(&request.key), now, tried: &tried };
                let recorded = |pool: &Pool, ids| pool.recorded(7, marked(&request.down, ids), None);
                let picked = live.pick_by(&ask, Basis::Noted, &recorded(&live, here));
                let decision = picked.as_ref().ok().and_then(|picked| picked.decision().cloned());
                let again = Ask { key: None, now: Duration::ZERO, tried: &tried };
                let basis = Basis::Given(decision.as_ref());
                let repeated = replay.pick_by(&again, basis, &recorded(&replay, there));
                let told = |picked: &Result<pointsman_balance::Picked, Exhausted>| {
                    picked.as_ref().map(|p| (p.member(), p.epoch(), p.failed_open())).map_err(|e| *e)
                };
                prop_assert_eq!(told(&picked), told(&repeated), "{:?} {:?}", algorithm, decision);
                let Ok(mut picked) = picked else { continue };
                prop_assert!(decision.is_some());
                if let Some(mut hold) = picked.take_hold() {
                    match request.took {
                        Some(took) => hold.observe(Duration::from_millis(took), now),
                        None => under_way.push(hold),
                    }
                }
            }
        }
    }
}

fn pool(algorithm: Algorithm, ids: &[TargetId]) -> Pool {
    Pool::new(specs(&[(1, 0), (1, 0)], ids), algorithm, 0).expect("sound")
}

/// What no pick of this pool can have noted offers nobody.
#[test]
fn a_note_that_cannot_be_is_refused() {
    let ids = ids(2);
    let tried = Tried::new();
    let ask = Ask {
        key: None,
        now: Duration::ZERO,
        tried: &tried,
    };
    let drawn = |member: usize| pointsman_balance::Drawn {
        member,
        latency: 0.0,
    };
    let counts = |counts: &[u32], first: u32| Decision::InFlight {
        first,
        counts: counts.into(),
    };
    let alone = Decision::Drawn {
        one: drawn(0),
        other: None,
    };
    let twice = Decision::Drawn {
        one: drawn(0),
        other: Some(drawn(0)),
    };
    let stranger = Decision::Drawn {
        one: drawn(0),
        other: Some(drawn(9)),
    };
    for (algorithm, decision) in [
        (Algorithm::RoundRobin, Decision::Hash(0)),
        (Algorithm::Chash, Decision::Position(0)),
        (Algorithm::LeastConn, counts(&[0], 0)),
        (Algorithm::LeastConn, counts(&[0, 0], 2)),
        (Algorithm::Ewma, alone),
        (Algorithm::Ewma, twice),
        (Algorithm::Ewma, stranger),
    ] {
        let all = Availability::all_usable();
        let picked = pool(algorithm, &ids).pick_by(&ask, Basis::Given(Some(&decision)), &all);
        assert!(picked.is_err(), "{algorithm:?} {decision:?}");
    }
    let nothing = pool(Algorithm::Ewma, &ids);
    let picked = nothing.pick_by(&ask, Basis::Given(None), &Availability::all_usable());
    assert!(picked.is_err());
}

/// A pick that is made again moves nothing on and counts nothing.
#[test]
fn a_replay_leaves_no_trace() {
    let ids = ids(2);
    let (tried, all) = (Tried::new(), Availability::all_usable());
    let ask = Ask {
        key: None,
        now: Duration::ZERO,
        tried: &tried,
    };
    for algorithm in [Algorithm::RoundRobin, Algorithm::LeastConn] {
        let pool = pool(algorithm, &ids);
        let first = pool.pick_by(&ask, Basis::Noted, &all).expect("somebody");
        let decision = first.decision().cloned();
        for _ in 0..3 {
            let again = pool.pick_by(&ask, Basis::Given(decision.as_ref()), &all);
            assert_eq!(again.expect("somebody").member(), first.member());
        }
        let load = pool.load(first.member(), Duration::ZERO);
        assert_eq!(load.map(|load| load.in_flight).unwrap_or(1), 1);
        let next = pool.pick(&ask, &all).expect("somebody");
        assert_ne!(next.member(), first.member(), "{algorithm:?}");
    }
}

/// The same pool, whose first member has a guard.
fn guarded(ids: &[TargetId]) -> Pool {
    let mut monitor = Monitor::<u8>::new();
    let spec = GuardSpec {
        key: "guard".to_owned(),
        breaker: None,
    };
    let (guard, _) = monitor.guard(spec, Instant::now());
    let mut specs = specs(&[(1, 0), (1, 0)], ids);
    specs[0].gate = Some(monitor.gate(&[], vec![guard]));
    Pool::new(specs, Algorithm::RoundRobin, 5).expect("sound")
}

/// Everything that a pick goes by changes the digest, and nothing else does.
#[test]
fn the_digest_is_of_what_decides() {
    let ids = ids(2);
    let of = |members: &[(u32, i32)], algorithm, ids: &[TargetId]| {
        let pool = Pool::new(specs(members, ids), algorithm, 5).expect("sound");
        pool.digest()
    };
    let base = of(&[(1, 0), (1, 0)], Algorithm::RoundRobin, &ids);
    let swapped = [ids[1], ids[0]];
    assert_eq!(base, of(&[(1, 0), (1, 0)], Algorithm::RoundRobin, &swapped));
    for other in [
        of(&[(1, 0), (2, 0)], Algorithm::RoundRobin, &ids),
        of(&[(1, 0), (1, 1)], Algorithm::RoundRobin, &ids),
        of(&[(1, 0)], Algorithm::RoundRobin, &ids),
        of(&[(1, 0), (1, 0)], Algorithm::Ewma, &ids),
        guarded(&ids).digest(),
    ] {
        assert_ne!(base, other);
    }
}
