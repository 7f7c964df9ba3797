//! Picking, by example: the published vectors and cases, and the corners each guard is there for.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::time::Duration;

use pointsman_balance::{
    Algorithm, Ask, Availability, Exhausted, MEMBERS_MAX, Pool, PoolError, RING_POINTS_MAX, Tried,
};
use support::{Verdicts, all_attempts, checked, member, pick, pick_name, pool, unchecked};

const NODES: [(&str, u32); 3] = [
    ("127.0.0.1:1980", 1),
    ("127.0.0.1:1981", 1),
    ("127.0.0.1:1982", 1),
];
const GPUS: [(&str, u32); 3] = [("gpu-a", 3), ("gpu-b", 6), ("gpu-c", 10)];

fn check_owner(members: &[(&str, u32)], key: &str, owner: &str) {
    let pool = pool(unchecked(members), Algorithm::Chash);
    assert_eq!(
        pick_name(&pool, key, &Availability::empty()),
        owner,
        "{key}"
    );
}

fn check_error(members: &[(&str, u32)], algorithm: Algorithm, error: PoolError) {
    assert_eq!(
        Pool::new(unchecked(members), algorithm, 0).unwrap_err(),
        error
    );
}

/// How many of `keys` each member owns, in the order of the pool.
fn shares(pool: &Pool, keys: impl Iterator<Item = String>, verdicts: &Availability) -> Vec<usize> {
    let mut shares = vec![0; pool.len()];
    for key in keys {
        shares[pick(pool, &key, verdicts).unwrap().member()] += 1;
    }
    shares
}

fn sessions() -> impl Iterator<Item = String> {
    (1..=120).map(|number| format!("session-{number}"))
}

#[test]
fn b050_four_to_one_is_eight_and_two_in_ten_from_any_start() {
    for start in (0..12).chain([u64::MAX]) {
        let members = unchecked(&[("openai", 4), ("deepseek", 1)]);
        let pool = Pool::new(members, Algorithm::RoundRobin, start).unwrap();
        let keys = (0..10).map(|_| String::new());
        assert_eq!(
            shares(&pool, keys, &Availability::empty()),
            [8, 2],
            "start {start}"
        );
    }
}

#[test]
fn b060_query_string_over_openai_and_deepseek() {
    for number in 1..=10 {
        let owner = if [2, 4].contains(&number) {
            "deepseek"
        } else {
            "openai"
        };
        check_owner(
            &[("openai", 4), ("deepseek", 1)],
            &format!("index={number}"),
            owner,
        );
    }
}

#[test]
fn b062_b169_sessions_stay_unless_their_owner_falls() {
    let mut verdicts = Verdicts::new(3);
    let pool = pool(checked(&GPUS, &verdicts.ids), Algorithm::Chash);
    let up = verdicts.settle(|_| true);
    for (number, owner) in (1..).zip("bbbabbcbbccc".chars()) {
        let key = format!("session-{number}");
        assert_eq!(pick_name(&pool, &key, &up), format!("gpu-{owner}"), "{key}");
    }
    assert_eq!(shares(&pool, sessions(), &up), [20, 45, 55]);
    assert_eq!(
        all_attempts(&pool, "session-4", &up).0,
        ["gpu-a", "gpu-b", "gpu-c"]
    );

    let down = verdicts.settle(|target| target != 0);
    for key in sessions() {
        let (before, after) = (pick_name(&pool, &key, &up), pick_name(&pool, &key, &down));
        assert_ne!(after, "gpu-a");
        assert!(
            before == "gpu-a" || before == after,
            "{key} moved from {before} to {after}"
        );
    }
    let recovered = verdicts.settle(|_| true);
    assert_eq!(shares(&pool, sessions(), &recovered), [20, 45, 55]);
}

#[test]
fn b183_the_heavier_node_is_second_if_the_ring_says_so() {
    let pool = pool(
        unchecked(&[("127.0.0.3:1979", 2), ("127.0.0.4:1979", 1)]),
        Algorithm::Chash,
    );
    let (names, end) = all_attempts(&pool, "127.0.0.1", &Availability::empty());
    assert_eq!(names, ["127.0.0.4:1979", "127.0.0.3:1979"]);
    assert_eq!(end, Exhausted::AllTried);
}

#[test]
fn b186_client_address_over_two_and_three_nodes() {
    check_owner(&NODES[..2], "127.0.0.1", "127.0.0.1:1980");
    check_owner(&NODES, "127.0.0.1", "127.0.0.1:1982");
}

#[test]
fn b187_weights_one_and_zeros() {
    check_owner(&[("a", 1), ("b", 0), ("c", 0)], "127.0.0.1", "a");
    check_owner(&[("a", 0), ("b", 1), ("c", 0)], "127.0.0.1", "b");
}

#[test]
fn b188_equal_nodes_get_about_equal_shares() {
    let pool = pool(unchecked(&NODES), Algorithm::Chash);
    // The query strings and the values of `device_id` in APISIX's own test.
    for (prefix, first_eighteen) in [("var=2&var2=", [5, 8, 5]), ("", [6, 7, 5])] {
        let shares = |keys: i32| {
            let keys = (1..=keys).map(|number| format!("{prefix}{number}"));
            shares(&pool, keys, &Availability::empty())
        };
        assert_eq!(shares(18), first_eighteen);
        let mut shares = shares(180);
        shares.sort_unstable();
        assert!((shares[2] - shares[0]) * 5 <= shares[1], "{shares:?}");
    }
}

#[test]
fn b189_chash_with_all_weights_zero_has_nothing_to_pick() {
    let pool = pool(unchecked(&[("a", 0), ("b", 0)]), Algorithm::Chash);
    assert_eq!(
        pick(&pool, "key", &Availability::empty()),
        Err(Exhausted::NothingToPick)
    );
    assert_eq!((pool.len(), pool.name(1)), (2, "b"));
}

#[test]
fn b190_a_dead_heavy_node_leaves_all_keys_to_the_light_one() {
    let mut verdicts = Verdicts::new(2);
    let pool = pool(
        checked(&[("heavy", 1000), ("light", 1)], &verdicts.ids),
        Algorithm::Chash,
    );
    let down = verdicts.settle(|target| target == 1);
    assert_eq!(shares(&pool, sessions(), &down), [0, 120]);
}

#[test]
fn b191_weights_are_reduced_by_their_divisor() {
    let huge = [
        ("a", 1_000_000_000),
        ("b", 2_000_000_000),
        ("c", 1_000_000_000),
    ];
    let small = [("a", 1), ("b", 2), ("c", 1)];
    let zero = [("a", 1_000_000_000), ("b", 0), ("c", 4_000_000_000)];
    for key in sessions() {
        let owner = |members| {
            let pool = pool(unchecked(members), Algorithm::Chash);
            pick_name(&pool, &key, &Availability::empty()).to_owned()
        };
        assert_eq!(owner(&huge), owner(&small));
        assert_eq!(owner(&zero), owner(&[("a", 1), ("c", 4)]));
    }
}

#[test]
fn b192_fixed_keys_over_two_nodes() {
    let keys = [
        ("127.0.0.1", 1980),
        ("jack", 1981),
        ("tom", 1980),
        ("custom-one", 1980),
        ("cuscookie", 1981),
        ("custom-one-custom-two", 1980),
        ("chash_val_1", 1981),
        ("chash_val_2", 1980),
        ("chash_val_3", 1980),
        ("chash_val_4", 1981),
        ("chash_val_5", 1980),
        ("chash_val_6", 1981),
    ];
    for (key, port) in keys {
        check_owner(&NODES[..2], key, &format!("127.0.0.1:{port}"));
    }
}

#[test]
fn a_key_exactly_at_a_point_belongs_to_it() {
    // The first point of a member is the sum over its name and four zero bytes.
    let names: Vec<String> = (0..30).map(|number| format!("node-{number}")).collect();
    let members: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    for name in &names {
        check_owner(&members, &format!("{name}\0\0\0\0"), name);
    }
}

#[test]
fn no_key_is_the_empty_key() {
    let pool = pool(unchecked(&GPUS), Algorithm::Chash);
    let tried = Tried::new();
    let ask = |key| Ask {
        key,
        now: Duration::ZERO,
        tried: &tried,
    };
    let picked = |key| {
        pool.pick(&ask(key), &Availability::empty())
            .unwrap()
            .member()
    };
    assert_eq!(picked(None), picked(Some(b"")));
}

#[test]
fn d7_weight_zero_is_offered_last_and_before_the_next_priority() {
    for algorithm in [Algorithm::RoundRobin, Algorithm::Chash] {
        let members = vec![
            member("next", 9, 0, &[]),
            member("zero", 0, 1, &[]),
            member("some", 1, 1, &[]),
        ];
        let pool = pool(members, algorithm);
        let (names, end) = all_attempts(&pool, "key", &Availability::empty());
        assert_eq!(names, ["some", "zero", "next"], "{algorithm:?}");
        assert_eq!(end, Exhausted::AllTried);
    }
}

#[test]
fn b153_weight_zero_serves_when_its_only_sibling_is_down() {
    for algorithm in [Algorithm::RoundRobin, Algorithm::Chash] {
        let mut verdicts = Verdicts::new(2);
        let pool = pool(
            checked(&[("zero", 0), ("dead", 1)], &verdicts.ids),
            algorithm,
        );
        let up = verdicts.settle(|_| true);
        let down = verdicts.settle(|target| target == 0);
        assert_eq!(pick_name(&pool, "key", &up), "dead");
        assert_eq!(pick_name(&pool, "key", &down), "zero");
        assert_eq!(all_attempts(&pool, "key", &down).1, Exhausted::AllTried);
    }
}

#[test]
fn round_robin_with_all_weights_zero_shares_equally() {
    let pool = pool(
        unchecked(&[("a", 0), ("b", 0), ("c", 0)]),
        Algorithm::RoundRobin,
    );
    assert_eq!(
        shares(&pool, sessions(), &Availability::empty()),
        [40, 40, 40]
    );
}

#[test]
fn several_weight_zero_members_take_turns_for_a_dead_sibling() {
    let mut verdicts = Verdicts::new(3);
    let members = checked(&[("zero-a", 0), ("zero-b", 0), ("dead", 5)], &verdicts.ids);
    let pool = pool(members, Algorithm::RoundRobin);
    let down = verdicts.settle(|target| target != 2);
    assert_eq!(shares(&pool, sessions(), &down), [60, 60, 0]);
}

#[test]
fn a_usable_member_outside_the_ring_forbids_fail_open() {
    let mut verdicts = Verdicts::new(1);
    let members = vec![
        member("dead", 1, 1, &verdicts.ids),
        member("usable", 0, 0, &[]),
    ];
    let pool = pool(members, Algorithm::Chash);
    let down = verdicts.settle(|_| false);
    assert_eq!(pick(&pool, "key", &down), Err(Exhausted::NothingToPick));
    let up = verdicts.settle(|_| true);
    assert_eq!(
        all_attempts(&pool, "key", &up),
        (vec!["dead".to_owned()], Exhausted::AllTried)
    );
}

#[test]
fn d6_a_lone_member_is_picked_whatever_its_health() {
    let mut verdicts = Verdicts::new(1);
    let down = verdicts.settle(|_| false);
    for algorithm in [Algorithm::RoundRobin, Algorithm::Chash] {
        let pool = pool(checked(&[("only", 1)], &verdicts.ids), algorithm);
        let picked = pick(&pool, "key", &down).unwrap();
        assert_eq!((picked.member(), picked.failed_open()), (0, true));
        assert_eq!(picked.epoch(), down.epoch());
    }
}

#[test]
fn i3_a_retry_ends_rather_than_reach_a_known_bad_member() {
    for algorithm in [Algorithm::RoundRobin, Algorithm::Chash] {
        let mut verdicts = Verdicts::new(2);
        let pool = pool(checked(&[("a", 1), ("b", 1)], &verdicts.ids), algorithm);
        let one = verdicts.settle(|target| target == 1);
        assert_eq!(
            all_attempts(&pool, "key", &one),
            (vec!["b".to_owned()], Exhausted::AllTried)
        );
        let none = verdicts.settle(|_| false);
        let (mut names, end) = all_attempts(&pool, "key", &none);
        names.sort_unstable();
        assert_eq!(
            (names, end),
            (vec!["a".to_owned(), "b".to_owned()], Exhausted::AllTried)
        );
    }
}

#[test]
fn a_retry_reads_newer_verdicts() {
    let mut verdicts = Verdicts::new(3);
    let pool = pool(
        checked(&[("a", 1), ("b", 1), ("c", 1)], &verdicts.ids),
        Algorithm::RoundRobin,
    );
    let up = verdicts.settle(|_| true);
    let first = pick(&pool, "", &up).unwrap();
    assert_eq!(pool.name(first.member()), "a");
    let mut tried = Tried::new();
    tried.mark(first.member());
    let b_fell = verdicts.settle(|target| target != 1);
    let second = pool
        .pick(
            &Ask {
                key: None,
                now: Duration::ZERO,
                tried: &tried,
            },
            &b_fell,
        )
        .unwrap();
    assert_eq!(pool.name(second.member()), "c");
    assert!(second.epoch() > first.epoch());
    assert!(!second.failed_open());
}

#[test]
fn a_member_is_usable_if_any_of_its_targets_is() {
    let mut verdicts = Verdicts::new(4);
    let members = vec![
        member("pair", 1, 1, &verdicts.ids[..2]),
        member("other", 1, 0, &verdicts.ids[2..]),
    ];
    let pool = pool(members, Algorithm::RoundRobin);
    assert_eq!(pool.targets(0), &verdicts.ids[..2]);
    for (down, expected) in [(vec![0], "pair"), (vec![1], "pair"), (vec![0, 1], "other")] {
        let verdicts = verdicts.settle(|target| !down.contains(&target));
        assert_eq!(pick_name(&pool, "", &verdicts), expected, "{down:?} down");
    }
}

#[test]
fn an_unchecked_member_is_usable_and_forbids_fail_open() {
    let mut verdicts = Verdicts::new(1);
    let members = vec![
        member("checked", 9, 1, &verdicts.ids),
        member("unchecked", 1, 0, &[]),
    ];
    let pool = pool(members, Algorithm::RoundRobin);
    let down = verdicts.settle(|_| false);
    let expected = (vec!["unchecked".to_owned()], Exhausted::AllTried);
    assert_eq!(all_attempts(&pool, "", &down), expected);
    assert_eq!(
        (pool.targets(0), pool.targets(1)),
        (&verdicts.ids[..], &[][..])
    );
}

#[test]
fn the_dead_neighbours_turns_are_shared_by_weight() {
    // The neighbour in the walk must not inherit them: 2 and 1 stay 2 and 1.
    let mut verdicts = Verdicts::new(4);
    let weights = [("a", 4), ("b", 2), ("c", 1), ("d", 1)];
    let pool = pool(checked(&weights, &verdicts.ids), Algorithm::RoundRobin);
    let down = verdicts.settle(|target| target != 0);
    assert_eq!(shares(&pool, sessions(), &down), [0, 60, 30, 30]);
}

#[test]
fn very_unequal_weights_cost_no_more_than_equal_ones() {
    let mut verdicts = Verdicts::new(3);
    let weights = [
        ("giant", 4_000_000_000),
        ("big", 1_000_000_007),
        ("tiny", 1),
    ];
    let pool = pool(checked(&weights, &verdicts.ids), Algorithm::RoundRobin);
    // Walking turn by turn these would not end in a lifetime.
    let tiny = verdicts.settle(|target| target == 2);
    assert_eq!(shares(&pool, sessions(), &tiny), [0, 0, 120]);
    let big = verdicts.settle(|target| target != 0);
    assert_eq!(shares(&pool, sessions(), &big)[1], 120);
}

#[test]
fn the_start_is_a_position_in_the_cycle() {
    let first = |start| {
        let members = unchecked(&[("a", 1), ("b", 1), ("c", 1)]);
        let pool = Pool::new(members, Algorithm::RoundRobin, start).unwrap();
        pick_name(&pool, "", &Availability::empty()).to_owned()
    };
    assert_eq!([0, 1, 2, 3].map(first), ["a", "b", "c", "a"]);
}

#[test]
fn what_cannot_be_a_pool() {
    let both = [Algorithm::RoundRobin, Algorithm::Chash];
    for algorithm in both {
        check_error(&[], algorithm, PoolError::NoMember);
        let twice = PoolError::DuplicateName("b".to_owned());
        check_error(&[("b", 1), ("a", 1), ("b", 2)], algorithm, twice);
    }
    let too_large = PoolError::RingTooLarge {
        points: 26_216 * 160,
        max: RING_POINTS_MAX,
    };
    check_error(&[("a", 26_215), ("b", 1)], Algorithm::Chash, too_large);
    let names: Vec<String> = (0..=MEMBERS_MAX).map(|member| member.to_string()).collect();
    let crowd: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), 0)).collect();
    let too_many = PoolError::TooManyMembers {
        members: MEMBERS_MAX + 1,
        max: MEMBERS_MAX,
    };
    check_error(&crowd, Algorithm::RoundRobin, too_many);
    Pool::new(unchecked(&crowd[1..]), Algorithm::RoundRobin, 0).unwrap();
}

#[test]
fn the_ring_limit_counts_all_priorities_together() {
    let members = vec![
        member("a", 20_000, 1, &[]),
        member("b", 1, 1, &[]),
        member("c", 20_000, 0, &[]),
        member("d", 1, 0, &[]),
    ];
    let points = 40_002 * 160;
    let error = PoolError::RingTooLarge {
        points,
        max: RING_POINTS_MAX,
    };
    assert_eq!(Pool::new(members, Algorithm::Chash, 0).unwrap_err(), error);
}

#[test]
fn members_are_found_by_name() {
    let pool = pool(
        unchecked(&[("b", 1), ("a", 1), ("c", 0)]),
        Algorithm::RoundRobin,
    );
    assert_eq!(
        ["a", "b", "c", "d"].map(|name| pool.member_by_name(name)),
        [Some(1), Some(0), Some(2), None]
    );
}

#[test]
fn d16_each_priority_keeps_its_own_position() {
    let mut verdicts = Verdicts::new(4);
    let ids = verdicts.ids.clone();
    let members = |top: [&str; 2]| {
        vec![
            member(top[0], 1, 1, &ids[..1]),
            member(top[1], 1, 1, &ids[1..2]),
            member("x", 1, 0, &ids[2..3]),
            member("y", 1, 0, &ids[3..]),
        ]
    };
    let up = verdicts.settle(|_| true);
    let top_down = verdicts.settle(|target| target > 1);
    let before = pool(members(["a", "b"]), Algorithm::RoundRobin);
    assert_eq!(pick_name(&before, "", &up), "a");
    for expected in ["x", "y", "x"] {
        assert_eq!(pick_name(&before, "", &top_down), expected);
    }
    let after = pool(members(["b", "c"]), Algorithm::RoundRobin).succeeding(&before);
    assert_eq!(pick_name(&after, "", &top_down), "y");
    assert_eq!(pick_name(&after, "", &up), "b");
    assert_eq!(pick_name(&after, "", &up), "c");

    let stranger = Pool::new(members(["e", "f"]), Algorithm::RoundRobin, 1).unwrap();
    let stranger = stranger.succeeding(&before);
    assert_eq!(
        pick_name(&stranger, "", &up),
        "f",
        "nothing in common: its own start counts"
    );
}

#[test]
fn a_position_is_not_taken_over_across_priorities_or_algorithms() {
    let availability = Availability::empty();
    let before = pool(unchecked(&[("a", 1), ("b", 1)]), Algorithm::RoundRobin);
    assert_eq!(pick_name(&before, "", &availability), "a");
    let moved = vec![member("a", 1, 1, &[]), member("b", 1, 1, &[])];
    let after = pool(moved, Algorithm::RoundRobin).succeeding(&before);
    assert_eq!(pick_name(&after, "", &availability), "a");

    let ring = pool(unchecked(&GPUS), Algorithm::Chash).succeeding(&before);
    assert_eq!(pick_name(&ring, "session-4", &availability), "gpu-a");
    let back = pool(unchecked(&GPUS), Algorithm::RoundRobin).succeeding(&ring);
    assert_eq!(pick_name(&back, "", &availability), "gpu-c");
}

#[test]
fn d16_a_new_cycle_begins_as_far_in_as_the_old_one_was() {
    let availability = Availability::empty();
    let before = pool(unchecked(&[("a", 4), ("b", 1)]), Algorithm::RoundRobin);
    let next = |pool: &Pool| pick_name(pool, "", &availability).to_owned();
    assert_eq!([(); 3].map(|()| next(&before)), ["a", "a", "a"]);
    // After three of five turns come five of nine, not none: `b` must not wait for eight more of `a`.
    let after = pool(unchecked(&[("a", 8), ("b", 1)]), Algorithm::RoundRobin).succeeding(&before);
    assert_eq!([(); 4].map(|()| next(&after)), ["a", "a", "a", "b"]);
}

#[test]
fn d16_members_of_weight_zero_keep_their_own_position() {
    let mut verdicts = Verdicts::new(3);
    let members = || checked(&[("a", 0), ("b", 0), ("dead", 1)], &verdicts.ids);
    let (before, after) = (members(), members());
    let before = pool(before, Algorithm::RoundRobin);
    let down = verdicts.settle(|target| target != 2);
    assert_eq!(pick_name(&before, "", &down), "a");
    let after = pool(after, Algorithm::RoundRobin).succeeding(&before);
    assert_eq!(pick_name(&after, "", &down), "b");
}
