//! Balancing by load: `least_conn` and `ewma` (balancing.md §3.6 and §3.7), and what they count (I-26).

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use pointsman_balance::{
    Algorithm, Ask, Availability, Breaker, GuardSpec, Hold, Loads, MemberSpec, Monitor, Pool, Tried,
};
use proptest::prelude::*;
use support::{Verdicts, all_attempts, checked, member, pool, start, unchecked};

const ROUNDS: usize = 20_000;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Picks one that none of `tried` is, at the time `now`.
fn pick_at(
    pool: &Pool,
    tried: &[usize],
    now: Duration,
    availability: &Availability,
) -> Option<(usize, Hold)> {
    let mut marks = Tried::new();
    tried.iter().for_each(|&member| marks.mark(member));
    let ask = Ask {
        key: None,
        now,
        tried: &marks,
    };
    let mut picked = pool.pick(&ask, availability).ok()?;
    let hold = picked.take_hold().expect("this pool counts");
    assert!(picked.take_hold().is_none(), "one pick, one hold");
    Some((picked.member(), hold))
}

fn pick(pool: &Pool) -> (usize, Hold) {
    pick_at(pool, &[], Duration::ZERO, &Availability::empty()).unwrap()
}

/// Picks that stay under way: the names, in order, and their holds.
fn hold(pool: &Pool, count: usize) -> (Vec<&str>, Vec<Hold>) {
    (0..count)
        .map(|_| pick(pool))
        .map(|(member, hold)| (pool.name(member), hold))
        .unzip()
}

fn in_flight(pool: &Pool) -> Vec<u32> {
    (0..pool.len())
        .map(|member| pool.load(member, Duration::ZERO).unwrap().in_flight)
        .collect()
}

fn least_conn(weights: &[(&str, u32)]) -> Pool {
    pool(unchecked(weights), Algorithm::LeastConn)
}

fn counting(loads: &Loads, weights: &[(&str, u32)]) -> Pool {
    least_conn(weights).counting_in(loads, "/upstreams/1")
}

fn sorted(mut names: Vec<&str>) -> Vec<&str> {
    names.sort_unstable();
    names
}

#[test]
fn b193_the_heavier_is_first_and_the_lighter_gets_its_share_of_what_is_under_way() {
    for start in 0..2 {
        let weights = [("a", 2), ("b", 1)];
        let pool = Pool::new(unchecked(&weights), Algorithm::LeastConn, start).unwrap();
        for _ in 0..3 {
            assert_eq!(hold(&pool, 1).0, ["a"]);
        }
        let weights = [("a", 3), ("b", 2)];
        let pool = Pool::new(unchecked(&weights), Algorithm::LeastConn, start).unwrap();
        assert_eq!(hold(&pool, 3).0, ["a", "b", "a"]);
        assert_eq!(in_flight(&pool), [0, 0]);
    }
}

/// Equals take turns: an idle pool is used evenly, also beside one that is busy for ever.
#[test]
fn equals_take_turns() {
    let pool = least_conn(&[("a", 1), ("b", 1), ("c", 1), ("d", 1)]);
    let busy = hold(&pool, 1);
    assert_eq!(busy.0, ["a"]);
    let mut counts = BTreeMap::new();
    for _ in 0..30 {
        *counts.entry(hold(&pool, 1).0[0]).or_insert(0) += 1;
    }
    assert_eq!(counts, [("b", 10), ("c", 10), ("d", 10)].into());
    let twelve = hold(&pool, 11);
    assert_eq!(in_flight(&pool), [3, 3, 3, 3]);
    drop((busy, twelve));
    assert_eq!(in_flight(&pool), [0, 0, 0, 0]);
}

/// B-196, B-197
#[test]
fn new_members_get_what_comes_next_until_they_have_as_much() {
    for before in [&[("a", 1)][..], &[("a", 1), ("b", 1)]] {
        let loads = Loads::new();
        let old = counting(&loads, before);
        let (_, held) = hold(&old, 4 * before.len());
        let mut after = before.to_vec();
        after.push(("c", 1));
        let new = counting(&loads, &after).succeeding(&old);
        let (names, more) = hold(&new, 4);
        assert_eq!(names, ["c"; 4]);
        // A hold of the old pool is released against the same count.
        drop((old, held));
        assert_eq!(in_flight(&new).iter().sum::<u32>(), 4);
        drop(more);
        let (names, _held) = hold(&new, 2 * after.len());
        for (name, _) in &after {
            assert_eq!(names.iter().filter(|picked| *picked == name).count(), 2);
        }
    }
}

#[test]
fn b198_a_weight_that_is_raised_counts_at_once() {
    let loads = Loads::new();
    let old = counting(&loads, &[("a", 1), ("b", 1)]);
    let _held = hold(&old, 4);
    let new = counting(&loads, &[("a", 1), ("b", 10)]).succeeding(&old);
    assert_eq!(hold(&new, 3).0, ["b", "b", "b"]);
}

#[test]
fn a_member_that_comes_back_has_what_it_left_with() {
    let loads = Loads::new();
    let both = [("a", 1), ("b", 1)];
    let first = counting(&loads, &both);
    let held = hold(&first, 6).1;
    let second = counting(&loads, &both[..1]).succeeding(&first);
    drop(first);
    loads.tidy();
    let third = counting(&loads, &both).succeeding(&second);
    assert_eq!(in_flight(&third), [3, 3]);
    drop(held);
    assert_eq!(in_flight(&third), [0, 0]);
    // Another priority or another algorithm does not make it another member.
    let _held = hold(&third, 2);
    let specs = vec![member("a", 1, 5, &[]), member("b", 1, 0, &[])];
    let fourth = pool(specs, Algorithm::Ewma).counting_in(&loads, "/upstreams/1");
    assert_eq!(in_flight(&fourth), [1, 1]);
    // Another identity does, and so does none.
    let other = least_conn(&both).counting_in(&loads, "/upstreams/2");
    assert_eq!(in_flight(&other), [0, 0]);
    assert_eq!(in_flight(&least_conn(&both)), [0, 0]);
}

#[test]
fn pools_that_do_not_count_have_no_load() {
    for algorithm in [Algorithm::RoundRobin, Algorithm::Chash] {
        let loads = Loads::new();
        let pool = pool(unchecked(&[("a", 1)]), algorithm).counting_in(&loads, "/upstreams/1");
        let mut picked = support::pick(&pool, "", &Availability::empty()).unwrap();
        assert_eq!(picked.take_hold(), None);
        assert_eq!(pool.load(0, Duration::ZERO), None);
    }
}

#[test]
fn b180_tiers_go_before_load() {
    let specs = vec![
        member("a", 2, 1, &[]),
        member("b", 1, 1, &[]),
        member("c", 1, 0, &[]),
        member("d", 1, -1, &[]),
    ];
    let pool = pool(specs, Algorithm::LeastConn);
    let held = hold(&pool, 30);
    assert_eq!(in_flight(&pool), [20, 10, 0, 0]);
    drop(held);
    let (names, _) = all_attempts(&pool, "", &Availability::empty());
    assert_eq!(names, ["a", "b", "c", "d"]);
}

#[test]
fn weight_0_is_for_when_no_other_is_left() {
    for algorithm in [Algorithm::LeastConn, Algorithm::Ewma] {
        let pool = pool(unchecked(&[("a", 0), ("b", 1), ("c", 0)]), algorithm);
        assert_eq!(hold(&pool, 20).0, ["b"; 20]);
        let none = Availability::empty();
        let (one, first) = pick_at(&pool, &[1], Duration::ZERO, &none).unwrap();
        let (two, _second) = pick_at(&pool, &[1, one], Duration::ZERO, &none).unwrap();
        assert_eq!(one + two, 2);
        assert!(pick_at(&pool, &[0, 1, 2], Duration::ZERO, &none).is_none());
        drop(first);
    }
    let zeros = least_conn(&[("a", 0), ("b", 0)]);
    assert_eq!(sorted(hold(&zeros, 4).0), ["a", "a", "b", "b"]);
}

/// The extremes of weights and counts are compared exactly.
#[test]
fn scores_are_exact() {
    let pool = least_conn(&[("a", u32::MAX), ("b", u32::MAX - 1), ("c", 1)]);
    assert_eq!(hold(&pool, 4).0, ["a", "b", "a", "b"]);
}

/// A trial is under way at the member that is tried, not at the one that was on offer.
#[test]
fn a_trial_is_counted_where_it_goes() {
    let now = start();
    let mut monitor = Monitor::<u8>::new();
    let breaker = Breaker {
        failures: 1,
        error_percent: 0,
        min_attempts: 1,
        window: Duration::from_secs(10),
        open: Duration::from_secs(5),
        open_max: Duration::from_secs(5),
        trials: 1,
    };
    let (guard, _) = monitor.guard(
        GuardSpec {
            key: "a".to_owned(),
            breaker: Some(breaker),
        },
        now,
    );
    let _ = monitor.trip(guard, now);
    let _ = monitor.tick(now + breaker.open);
    for algorithm in [Algorithm::LeastConn, Algorithm::Ewma] {
        let mut members = unchecked(&[("a", 1), ("b", 1)]);
        members[0].gate = Some(monitor.gate(&[], vec![guard]));
        let pool = pool(members, algorithm);
        let tried = Tried::new();
        let ask = Ask {
            key: None,
            now: Duration::ZERO,
            tried: &tried,
        };
        let mut picked = pool.pick(&ask, &monitor.availability()).unwrap();
        let trial = picked.take_trial();
        assert!(trial.is_some());
        assert_eq!((picked.member(), in_flight(&pool)), (0, vec![1, 0]));
        drop(picked);
        assert_eq!(in_flight(&pool), [0, 0]);
    }
}

/// Also where somebody is down, and everybody is busy.
#[test]
fn equals_take_turns_beside_the_dead() {
    let mut verdicts = Verdicts::new(14);
    let names: Vec<String> = (0..14).map(|at| format!("m{at:02}")).collect();
    let weights: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let pool = pool(checked(&weights, &verdicts.ids), Algorithm::LeastConn);
    let availability = verdicts.settle(|target| target % 5 != 3);
    let pick = || pick_at(&pool, &[], Duration::ZERO, &availability).unwrap();
    let held: Vec<_> = (0..11).map(|_| pick()).collect();
    let mut turns: Vec<usize> = (0..11).map(|_| pick().0).collect();
    turns.sort_unstable();
    let usable: Vec<usize> = (0..14).filter(|member| member % 5 != 3).collect();
    assert_eq!(turns, usable);
    assert_eq!(in_flight(&pool).iter().sum::<u32>(), 11);
    drop(held);
}

/// An attempt more at the same member is one more under way.
#[test]
fn another_attempt_is_counted() {
    for algorithm in [Algorithm::LeastConn, Algorithm::Ewma] {
        let pool = pool(unchecked(&[("a", 1), ("b", 1)]), algorithm);
        let mut again = pool.again(1, &Availability::empty()).unwrap();
        let hold = again.take_hold();
        assert_eq!((hold.is_some(), in_flight(&pool)), (true, vec![0, 1]));
        drop((again, hold));
        assert_eq!(in_flight(&pool), [0, 0]);
    }
}

fn ewma(names: &[&str], start: u64) -> Pool {
    let weights: Vec<_> = names.iter().map(|&name| (name, 1)).collect();
    Pool::new(unchecked(&weights), Algorithm::Ewma, start).unwrap()
}

/// A request at `now` that takes as long as `takes` says of its member.
fn answer(pool: &Pool, now: Duration, takes: impl Fn(usize) -> Duration) -> usize {
    let (member, mut hold) = pick_at(pool, &[], now, &Availability::empty()).unwrap();
    hold.observe(takes(member), now + takes(member));
    member
}

/// B-199
#[test]
fn the_quicker_of_two_gets_all_but_one() {
    for start in 0..20 {
        let pool = ewma(&["slow", "fast"], start);
        let mut counts = [0; 2];
        for number in 0..12 {
            counts[answer(&pool, ms(10 * number), |member| ms([5, 1][member]))] += 1;
        }
        assert_eq!(counts, [1, 11]);
    }
}

/// B-200
#[test]
fn an_idle_member_gets_another_chance() {
    let pool = ewma(&["slow", "fast"], 0);
    let takes = |member: usize| ms([50, 20][member]);
    for now in 0..10 {
        answer(&pool, ms(100 * now), takes);
    }
    // 50 ms fade to 20 ms in 10 s * ln(50 / 20) = 9.2 s.
    let first = (10..400).find(|now| answer(&pool, ms(100 * now), takes) == 0);
    let first = ms(100 * first.unwrap());
    assert!((ms(9_000)..ms(10_500)).contains(&first), "{first:?}");
}

#[test]
fn ewma_ignores_weights() {
    let pool = pool(unchecked(&[("a", 1), ("b", 1_000)]), Algorithm::Ewma);
    let a = (0..1_000).filter(|_| pick(&pool).0 == 0).count();
    assert!((400..600).contains(&a), "{a} of 1000");
}

/// The slowest of three or more is never the quicker of two.
#[test]
fn all_but_the_slowest_are_drawn() {
    for members in [3, 8, 9, 40] {
        let names: Vec<String> = (0..members).map(|number| format!("m{number:02}")).collect();
        let pool = ewma(&names.iter().map(String::as_str).collect::<Vec<_>>(), 7);
        for tried in 0..members {
            let others: Vec<usize> = (0..members).filter(|&member| member != tried).collect();
            let (_, mut hold) =
                pick_at(&pool, &others, Duration::ZERO, &Availability::empty()).unwrap();
            hold.observe(ms(1 + tried as u64), Duration::ZERO);
        }
        let mut counts = vec![0_usize; members];
        for _ in 0..1_000 * members {
            counts[pick(&pool).0] += 1;
        }
        assert_eq!(counts[members - 1], 0);
        // A draw of two has the k-th slowest as its quicker one in k of all n * (n - 1) / 2 cases.
        for (slower, &count) in counts.iter().rev().enumerate() {
            let expected = (2_000 * slower) as f64 / (members - 1) as f64;
            let error = (count as f64 - expected).abs();
            assert!(
                error <= 5.0 * expected.sqrt() + 1.0,
                "{members}: {counts:?}"
            );
        }
    }
}

/// Equals are drawn evenly, whether few, many or scattered ones are usable.
#[test]
fn draws_are_even() {
    for (members, step) in [(2, 1), (7, 1), (30, 1), (30, 3), (900, 75)] {
        let names: Vec<String> = (0..members).map(|number| format!("m{number:03}")).collect();
        let weights: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
        let mut verdicts = Verdicts::new(members);
        let pool = pool(checked(&weights, &verdicts.ids), Algorithm::Ewma);
        let availability = verdicts.settle(|target| target % step == 0);
        let mut counts = BTreeMap::new();
        let usable = members.div_ceil(step);
        for _ in 0..1_000 * usable {
            let picked = pick_at(&pool, &[], Duration::ZERO, &availability).unwrap();
            *counts.entry(picked.0).or_insert(0_usize) += 1;
        }
        assert_eq!(counts.len(), usable);
        for (member, count) in counts {
            assert_eq!(member % step, 0);
            assert!(
                (800..1_200).contains(&count),
                "{member} of {members}: {count}"
            );
        }
    }
}

/// B-201: who is down or tried is not drawn; when all are down, each is tried once.
#[test]
fn b201_the_dead_are_passed_over() {
    let mut verdicts = Verdicts::new(2);
    for algorithm in [Algorithm::LeastConn, Algorithm::Ewma] {
        let pool = pool(checked(&[("a", 1), ("b", 1)], &verdicts.ids), algorithm);
        let all_up = verdicts.settle(|_| true);
        for _ in 0..12 {
            let after = pick_at(&pool, &[0], Duration::ZERO, &all_up).unwrap().0;
            assert_eq!(after, 1);
        }
        let one_up = verdicts.settle(|target| target == 1);
        let _held: Vec<_> = (0..12)
            .map(|_| pick_at(&pool, &[], Duration::ZERO, &one_up).unwrap())
            .inspect(|(member, _)| assert_eq!(*member, 1))
            .collect();
        assert!(pick_at(&pool, &[1], Duration::ZERO, &one_up).is_none());
        let all_down = verdicts.settle(|_| false);
        assert_eq!(all_attempts(&pool, "", &all_down).0.len(), 2);
    }
}

/// Picks at the same moment do not take the same idle member.
#[test]
fn concurrent_picks_spread() {
    let pool = least_conn(&[("a", 1), ("b", 1)]);
    // How often either thread has come to the next of its three steps: pick, look, let go.
    let steps = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let together = |own: usize| {
        let step = steps[own].fetch_add(1, Ordering::SeqCst) + 1;
        for spin in 1_u64.. {
            if steps[1 - own].load(Ordering::SeqCst) >= step {
                break;
            }
            // To yield each time would pull the threads apart; not to, waste time on a single core.
            if spin % 4_096 == 0 {
                thread::yield_now();
            }
        }
    };
    thread::scope(|scope| {
        for own in 0..2 {
            let (pool, together) = (&pool, &together);
            scope.spawn(move || {
                let mut uneven = 0;
                for _ in 0..ROUNDS {
                    together(own);
                    let _held = pick(pool);
                    together(own);
                    uneven += usize::from(in_flight(pool) != [1, 1]);
                    together(own);
                }
                // Later, so that the other thread does not wait for ever.
                assert_eq!(uneven, 0, "of {ROUNDS}");
            });
        }
    });
}

/// I-26, with threads that pick, tell, hand over and drop as they like.
#[test]
fn i26_counts_return_to_where_they_began() {
    let loads = Loads::new();
    let names = ["a", "b", "c"].map(|name| (name, 2));
    for algorithm in [Algorithm::LeastConn, Algorithm::Ewma] {
        let build = || pool(unchecked(&names), algorithm).counting_in(&loads, "/upstreams/1");
        let judge = build();
        let passed_on = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for thread in 0..4_usize {
                let (build, passed_on, judge) = (&build, &passed_on, &judge);
                scope.spawn(move || {
                    let mut pool = build();
                    let mut own = Vec::new();
                    for step in 0..4_000 {
                        if step % 50 == 0 {
                            pool = build();
                        }
                        let now = ms(step as u64);
                        let (_, mut hold) =
                            pick_at(&pool, &[], now, &Availability::empty()).unwrap();
                        match (step + thread) % 4 {
                            0 => own.push(hold),
                            1 => hold.observe(ms(1), now),
                            2 => passed_on.lock().unwrap().push(hold),
                            _ => passed_on.lock().unwrap().clear(),
                        }
                        assert!(in_flight(judge).iter().all(|&count| count <= 16_000));
                        own.truncate(20);
                    }
                });
            }
        });
        let left = passed_on.into_inner().unwrap();
        assert_eq!(in_flight(&judge).iter().sum::<u32>() as usize, left.len());
        drop(left);
        assert_eq!(in_flight(&judge), [0, 0, 0]);
    }
}

/// Two numbers that are written together are read together.
#[test]
fn an_average_is_never_torn() {
    let pool = ewma(&["a"], 0);
    let (early, late) = (ms(1_000), ms(3_600_000));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for round in 0..20_000_u64 {
                    // Small while it is early, large when it is late: an hour fades all there was.
                    let (takes, now) = match round % 2 {
                        0 => (ms(1), early),
                        _ => (ms(60_000), late),
                    };
                    let (_, mut hold) = pick_at(&pool, &[], now, &Availability::empty()).unwrap();
                    hold.observe(takes, now);
                    let latency = pool.load(0, late).unwrap().latency.unwrap();
                    let is_either = latency < ms(1) || latency > ms(50_000);
                    assert!(is_either, "{latency:?}");
                }
            });
        }
    });
}

/// What happens to a pool of `least_conn`.
#[derive(Debug, Clone)]
enum Step {
    Pick(Vec<bool>),
    End(prop::sample::Index),
    Reload(Vec<u32>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let weight = prop_oneof![Just(0), 1..5_u32];
    let step = prop_oneof![
        6 => prop::collection::vec(prop::bool::weighted(0.8), 12).prop_map(Step::Pick),
        3 => any::<prop::sample::Index>().prop_map(Step::End),
        1 => prop::collection::vec(weight, 12).prop_map(Step::Reload),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    /// I-2, I-21, I-26: the model is a list of what is under way, and the rule as it is written.
    #[test]
    fn least_conn_picks_the_lowest_score(
        members in 1..12_usize,
        weights in prop::collection::vec(1..5_u32, 12),
        priorities in prop::collection::vec(0..2_i32, 12),
        steps in steps(),
        start: u64,
    ) {
        let mut verdicts = Verdicts::new(members);
        let loads = Loads::new();
        let build = |weights: &[u32]| {
            let specs: Vec<MemberSpec> = (0..members)
                .map(|m| member(&format!("m{m:02}"), weights[m], priorities[m], &[verdicts.ids[m]]))
                .collect();
            Pool::new(specs, Algorithm::LeastConn, start).unwrap().counting_in(&loads, "p")
        };
        let (mut pool, mut weights) = (build(&weights), weights);
        let pools: Vec<(Pool, Vec<u32>)> = steps
            .iter()
            .filter_map(|step| match step {
                Step::Reload(weights) => Some((build(weights), weights.clone())),
                _ => None,
            })
            .collect();
        let mut pools = pools.into_iter();
        let mut held: Vec<(usize, Hold)> = Vec::new();
        for step in steps {
            match step {
                Step::Reload(_) => (pool, weights) = pools.next().unwrap(),
                Step::End(_) if held.is_empty() => {}
                Step::End(index) => drop(held.swap_remove(index.index(held.len()))),
                Step::Pick(up) => {
                    let availability = verdicts.settle(|target| up[target]);
                    let count = |m| held.iter().filter(|(member, _)| *member == m).count() as f64;
                    let fail_open = !up[..members].iter().any(|&up| up);
                    let order = |m: usize| {
                        // Heavier is better, and a weight of 0 worst of all its priority.
                        let weight = f64::from(weights[m]);
                        let score = (1.0 + count(m)) / if weight > 0.0 { weight } else { 1.0 };
                        (-priorities[m], weight == 0.0, score)
                    };
                    let best = (0..members)
                        .filter(|&m| fail_open || up[m])
                        .map(order)
                        .reduce(|a, b| if b < a { b } else { a })
                        .unwrap();
                    let picked = pick_at(&pool, &[], Duration::ZERO, &availability).unwrap();
                    prop_assert_eq!(order(picked.0), best);
                    held.push(picked);
                }
            }
            let expected: Vec<u32> = (0..members)
                .map(|m| held.iter().filter(|(member, _)| *member == m).count() as u32)
                .collect();
            prop_assert_eq!(in_flight(&pool), expected);
        }
    }
}
