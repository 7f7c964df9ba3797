//! What holds for every pool, every verdict and every request.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use pointsman_balance::{
    Algorithm, Ask, Availability, Exhausted, MemberSpec, Picked, Pool, TargetId, Tried,
};
use proptest::prelude::*;
use support::{Verdicts, all_attempts, checked, member, pick, pick_name, pool};

/// More than two words of verdicts.
const TARGETS: usize = 140;

/// The most members of the pools that have nothing but weights.
const MEMBERS: usize = 30;

/// A member without its name: weight, priority, and which targets are behind it.
type Sketch = (u32, i32, BTreeSet<usize>);

fn sketches() -> impl Strategy<Value = Vec<Sketch>> {
    let weight = prop_oneof![Just(0), 1..6_u32];
    // Shared by several members often, and spread over the words otherwise.
    let target = prop_oneof![0..6_usize, 0..TARGETS];
    let targets = prop::collection::btree_set(target, 0..3);
    let sketch = (weight, -1..2_i32, targets);
    // A pool is searched in one way when few members are usable, and in another when many are.
    prop_oneof![
        prop::collection::vec(sketch.clone(), 1..9),
        prop::collection::vec(sketch, 9..60),
    ]
}

fn verdicts() -> impl Strategy<Value = Vec<bool>> {
    // All down often enough to meet the case in which nothing is usable.
    prop_oneof![
        3 => prop::collection::vec(any::<bool>(), TARGETS),
        3 => prop::collection::vec(prop::bool::weighted(0.05), TARGETS),
        1 => Just(vec![false; TARGETS]),
    ]
}

/// Up or down, for as many members as there are weights at most.
fn ups() -> impl Strategy<Value = Vec<bool>> {
    prop_oneof![
        prop::collection::vec(any::<bool>(), MEMBERS),
        prop::collection::vec(prop::bool::weighted(0.1), MEMBERS),
    ]
}

fn algorithms() -> impl Strategy<Value = Algorithm> {
    prop_oneof![
        Just(Algorithm::RoundRobin),
        Just(Algorithm::Chash),
        Just(Algorithm::LeastConn),
        Just(Algorithm::Ewma),
    ]
}

fn weights() -> impl Strategy<Value = Vec<u32>> {
    let weight = prop_oneof![1..12_u32, (1..4_u32).prop_map(|weight| weight * 1_000)];
    prop_oneof![
        prop::collection::vec(weight, 1..8),
        prop::collection::vec(1..12_u32, 8..=MEMBERS),
    ]
}

fn specs(sketches: &[Sketch], ids: &[TargetId]) -> Vec<MemberSpec> {
    let sketches = sketches.iter().enumerate();
    sketches
        .map(|(number, (weight, priority, targets))| {
            let targets: Vec<_> = targets.iter().map(|&target| ids[target]).collect();
            member(&format!("m{number}"), *weight, *priority, &targets)
        })
        .collect()
}

fn weighted(weights: &[u32], ids: &[TargetId]) -> Vec<MemberSpec> {
    // Padded: among equals, names are in the order of numbers.
    let names: Vec<String> = (0..weights.len())
        .map(|number| format!("m{number:02}"))
        .collect();
    let pairs: Vec<_> = names
        .iter()
        .map(String::as_str)
        .zip(weights.iter().copied())
        .collect();
    checked(&pairs, ids)
}

fn divisor(weights: &[u32]) -> u32 {
    (1..=weights.iter().copied().max().unwrap_or(1))
        .rev()
        .find(|divisor| weights.iter().all(|weight| weight % divisor == 0))
        .unwrap_or(1)
}

/// Who may be picked, said once more and in another way: everybody in one line, best first, and the
/// leading ones who are equals.
fn oracle(
    sketches: &[Sketch],
    algorithm: Algorithm,
    up: &[bool],
    tried: &BTreeSet<usize>,
) -> Result<(BTreeSet<usize>, bool), Exhausted> {
    let usable = |sketch: &Sketch| sketch.2.is_empty() || sketch.2.iter().any(|&target| up[target]);
    let fail_open = !sketches.iter().any(usable);
    let on_ring = |sketch: &Sketch| {
        sketches
            .iter()
            .any(|other| other.1 == sketch.1 && other.0 > 0)
    };
    let on_offer: Vec<usize> = (0..sketches.len())
        .filter(|&member| fail_open || usable(&sketches[member]))
        .filter(|&member| algorithm != Algorithm::Chash || on_ring(&sketches[member]))
        .collect();
    let left: Vec<usize> = on_offer
        .iter()
        .copied()
        .filter(|member| !tried.contains(member))
        .collect();
    let rank = |&member: &usize| (sketches[member].1, sketches[member].0 > 0);
    match left.iter().map(rank).max() {
        Some(best) => Ok((
            left.into_iter()
                .filter(|member| rank(member) == best)
                .collect(),
            fail_open,
        )),
        None if on_offer.is_empty() => Err(Exhausted::NothingToPick),
        None => Err(Exhausted::AllTried),
    }
}

/// The interleaved walk, written as it is explained: level by level, turn by turn.
fn walk(weights: &[u32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|&member| std::cmp::Reverse(weights[member]));
    let (step, highest) = (divisor(weights), weights.iter().copied().max().unwrap_or(0));
    let mut turns = Vec::new();
    let mut level = highest;
    while level > 0 {
        turns.extend(
            order
                .iter()
                .copied()
                .filter(|&member| weights[member] >= level),
        );
        level -= step;
    }
    turns
}

proptest! {
    #[test]
    fn i2_i3_i21_i23_a_pick_is_one_of_the_best_left(
        sketches in sketches(),
        algorithm in algorithms(),
        history in prop::collection::vec(verdicts(), 1..12),
        start: u64,
        key: [u8; 4],
    ) {
        let mut verdicts = Verdicts::new(TARGETS);
        let pool = Pool::new(specs(&sketches, &verdicts.ids), algorithm, start).unwrap();
        let (mut tried, mut marks) = (Tried::new(), BTreeSet::new());
        let mut holds = Vec::new();
        let history: Vec<_> = history
            .iter()
            .map(|up| (up, verdicts.settle(|target| up[target])))
            .collect();
        for (up, availability) in history.iter().cycle().take(2 * (sketches.len() + 1)) {
            let ask = Ask { key: Some(&key), now: Duration::ZERO, tried: &tried };
            let expected = oracle(&sketches, algorithm, up, &marks);
            let is_up = |sketch: &Sketch| sketch.2.is_empty() || sketch.2.iter().any(|&target| up[target]);
            prop_assert_eq!(pool.all_usable(availability), sketches.iter().all(is_up));
            match (pool.pick(&ask, availability), expected) {
                (Ok(mut picked), Ok((best, fail_open))) => {
                    prop_assert!(best.contains(&picked.member()), "{picked:?} of {best:?}");
                    prop_assert_eq!(picked.failed_open(), fail_open);
                    prop_assert_eq!(picked.epoch(), availability.epoch());
                    marks.insert(picked.member());
                    tried.mark(picked.member());
                    let hold = picked.take_hold();
                    prop_assert_eq!(hold.is_some(), algorithm.counts());
                    holds.push(hold);
                }
                (Err(end), Err(expected)) => prop_assert_eq!(end, expected),
                (got, expected) => prop_assert!(false, "{got:?} instead of {expected:?}"),
            }
            prop_assert_eq!(tried.len(), marks.len());
        }
    }

    /// Whatever the order that a request brings: one member after the other, as they stand in it.
    #[test]
    fn i2_i3_i23_a_pick_in_order_is_the_first_left(
        sketches in sketches(),
        order in prop::collection::vec(0..70_usize, 0..70),
        is_whole: bool,
        history in prop::collection::vec(verdicts(), 1..12),
    ) {
        let mut verdicts = Verdicts::new(TARGETS);
        let pool = pool(specs(&sketches, &verdicts.ids), Algorithm::RoundRobin);
        let mut order = order;
        if is_whole {
            order.extend(0..sketches.len());
        }
        let (mut tried, mut marks) = (Tried::new(), BTreeSet::new());
        let history: Vec<_> = history
            .iter()
            .map(|up| (up, verdicts.settle(|target| up[target])))
            .collect();
        for (up, availability) in history.iter().cycle().take(2 * (sketches.len() + 1)) {
            let usable = |member: &usize| {
                let targets = &sketches[*member].2;
                targets.is_empty() || targets.iter().any(|&target| up[target])
            };
            let fail_open = !(0..sketches.len()).any(|member| usable(&member));
            let on_offer: Vec<usize> = (order.iter().copied())
                .filter(|&member| member < sketches.len() && (fail_open || usable(&member)))
                .collect();
            let expected = match on_offer.iter().find(|member| !marks.contains(*member)) {
                Some(&member) => Ok((member, fail_open)),
                None if on_offer.is_empty() => Err(Exhausted::NothingToPick),
                None => Err(Exhausted::AllTried),
            };
            let ask = Ask { key: None, now: Duration::ZERO, tried: &tried };
            let picked = pool.pick_in_order(&order, &ask, availability);
            if let Ok(picked) = &picked {
                prop_assert_eq!(picked.epoch(), availability.epoch());
                marks.insert(picked.member());
                tried.mark(picked.member());
            }
            let got = picked.map(|picked| (picked.member(), picked.failed_open()));
            prop_assert_eq!(got, expected, "{:?} of {:?}", marks, order);
        }
    }

    #[test]
    fn i22_proportions_are_exact_also_among_those_who_remain(
        weights in weights(),
        start: u64,
        lead in 0..40_usize,
        cycles in 1..3_u32,
        up in ups(),
    ) {
        let mut verdicts = Verdicts::new(weights.len());
        let pool = Pool::new(weighted(&weights, &verdicts.ids), Algorithm::RoundRobin, start).unwrap();
        let all_down = !up[..weights.len()].iter().any(|&up| up);
        let availability = verdicts.settle(|target| up[target]);
        let step = divisor(&weights);
        let expected: Vec<u32> = weights
            .iter()
            .zip(&up)
            .map(|(weight, &up)| if up || all_down { cycles * weight / step } else { 0 })
            .collect();
        for _ in 0..lead {
            let _ = pick(&pool, "", &availability).unwrap();
        }
        let mut counts = vec![0; weights.len()];
        for _ in 0..expected.iter().sum() {
            counts[pick(&pool, "", &availability).unwrap().member()] += 1;
        }
        prop_assert_eq!(counts, expected);
    }

    #[test]
    fn the_compressed_cycle_is_the_walk_turn_by_turn(
        weights in weights(),
        start in 0..50_000_usize,
        history in prop::collection::vec(ups(), 1..30),
    ) {
        let mut verdicts = Verdicts::new(weights.len());
        let pool =
            Pool::new(weighted(&weights, &verdicts.ids), Algorithm::RoundRobin, start as u64).unwrap();
        let turns = walk(&weights);
        let mut position = start % turns.len();
        for up in history {
            let fail_open = !up[..weights.len()].iter().any(|&up| up);
            while !(fail_open || up[turns[position]]) {
                position = (position + 1) % turns.len();
            }
            let availability = verdicts.settle(|target| up[target]);
            let picked = pick(&pool, "", &availability).unwrap();
            prop_assert_eq!(picked.member(), turns[position]);
            position = (position + 1) % turns.len();
        }
    }

    #[test]
    fn i19_d16_whose_turn_it_was_is_next_after_a_change_of_members(
        before in prop::collection::btree_map("[a-h]", 1..5_u32, 1..8),
        after in prop::collection::btree_map("[a-h]", 1..5_u32, 1..8),
        picks in 0..40_usize,
        start: u64,
    ) {
        let build = |members: &std::collections::BTreeMap<String, u32>| {
            let members = members.iter().map(|(name, &weight)| member(name, weight, 0, &[]));
            Pool::new(members.collect(), Algorithm::RoundRobin, start).unwrap()
        };
        let availability = Availability::empty();
        // Two of the same: one to be replaced, one to show how it would have gone on.
        let (old, continued) = (build(&before), build(&before));
        for _ in 0..picks {
            prop_assert_eq!(pick(&old, "", &availability), pick(&continued, "", &availability));
        }
        let new = build(&after).succeeding(&old);
        if before == after {
            for _ in 0..40 {
                prop_assert_eq!(pick(&new, "", &availability), pick(&continued, "", &availability));
            }
        } else if before.keys().any(|name| after.contains_key(name)) {
            let next = loop {
                let name = pick_name(&continued, "", &availability);
                if after.contains_key(name) {
                    break name;
                }
            };
            prop_assert_eq!(pick_name(&new, "", &availability), next);
        } else {
            let fresh = build(&after);
            let expected = pick_name(&fresh, "", &availability);
            prop_assert_eq!(pick_name(&new, "", &availability), expected);
        }
    }

    #[test]
    fn i20_a_key_goes_to_its_first_usable_successor(
        weights in prop_oneof![
            prop::collection::vec(1..12_u32, 1..8),
            prop::collection::vec(1..5_u32, 8..=MEMBERS),
        ],
        up in ups(),
        keys in prop::collection::vec("[a-z0-9]{1,6}", 1..20),
    ) {
        let mut verdicts = Verdicts::new(weights.len());
        let pool = pool(weighted(&weights, &verdicts.ids), Algorithm::Chash);
        let all_up = verdicts.settle(|_| true);
        let some_up = verdicts.settle(|target| up[target]);
        let is_up = |name: &String| up[pool.member_by_name(name).unwrap()];
        for key in keys {
            let (order, _) = all_attempts(&pool, &key, &all_up);
            prop_assert_eq!(order.len(), weights.len());
            let mut expected: Vec<String> = order.iter().filter(|name| is_up(name)).cloned().collect();
            if expected.is_empty() {
                expected = order;
            }
            prop_assert_eq!(all_attempts(&pool, &key, &some_up).0, expected);
        }
    }

    #[test]
    fn i11_the_order_of_members_decides_nothing(
        (sketches, shuffled) in sketches()
            .prop_map(|sketches| sketches.into_iter().enumerate().collect::<Vec<_>>())
            .prop_flat_map(|sketches| (Just(sketches.clone()), Just(sketches).prop_shuffle())),
        algorithm in algorithms(),
        up in verdicts(),
        start: u64,
        keys in prop::collection::vec("[a-z]{1,4}", 1..10),
    ) {
        let mut verdicts = Verdicts::new(TARGETS);
        let availability = verdicts.settle(|target| up[target]);
        let build = |sketches: &[(usize, Sketch)]| {
            let members = sketches.iter().map(|(number, (weight, priority, targets))| {
                let targets: Vec<_> = targets.iter().map(|&target| verdicts.ids[target]).collect();
                member(&format!("m{number}"), *weight, *priority, &targets)
            });
            Pool::new(members.collect(), algorithm, start).unwrap()
        };
        let (one, other) = (build(&sketches), build(&shuffled));
        for key in keys {
            prop_assert_eq!(
                all_attempts(&one, &key, &availability),
                all_attempts(&other, &key, &availability)
            );
        }
    }
}

#[test]
fn i22_proportions_are_those_of_the_process() {
    let mut verdicts = Verdicts::new(4);
    let weights = [5, 3, 1, 7];
    let pool = Pool::new(weighted(&weights, &verdicts.ids), Algorithm::RoundRobin, 9).unwrap();
    let availability = verdicts.settle(|target| target != 3);
    let picks = 9 * 4_000;
    let picked: Vec<Picked> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let one = || pick(&pool, "", &availability).unwrap();
                scope.spawn(move || (0..picks / 4).map(|_| one()).collect::<Vec<_>>())
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    let count = |member| {
        picked
            .iter()
            .filter(|picked| picked.member() == member)
            .count()
    };
    assert_eq!([0, 1, 2, 3].map(count), [5 * 4_000, 3 * 4_000, 4_000, 0]);
}
