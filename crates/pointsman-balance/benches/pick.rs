//! What one pick costs, in nanoseconds. Prints figures and judges nothing: `cargo bench` on a quiet
//! machine, and compare with the run before.

#![expect(clippy::print_stdout, reason = "the figures are the output")]
#![allow(clippy::unwrap_used, reason = "a panic is how a benchmark fails")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman_balance::{
    Algorithm, Ask, Availability, Basis, MemberSpec, Monitor, Policy, Pool, ProbeOutcome, TargetId,
    Tried, Wanted,
};
use support::{Guarded, Stand};

fn main() {
    let round_robin = Algorithm::RoundRobin;
    let chash = Algorithm::Chash;
    let ring_weights = |member| 1 + member % 7;
    measure(
        "round robin, 100 equal, all up",
        round_robin,
        |_| 1,
        |_| true,
    );
    measure(
        "round robin, 100 in weights 1..=100, all up",
        round_robin,
        |m| 1 + m,
        |_| true,
    );
    measure(
        "round robin, 100 in weights 1..=100, every other up",
        round_robin,
        |m| 1 + m,
        |m| m % 2 == 0,
    );
    measure(
        "round robin, 100 in weights 1..=100, lightest up",
        round_robin,
        |m| 100 - m,
        |m| m == 99,
    );
    measure(
        "round robin, 100 equal, none up",
        round_robin,
        |_| 1,
        |_| false,
    );
    measure(
        "chash, 100 in weights 1..=7, all up",
        chash,
        ring_weights,
        |_| true,
    );
    measure(
        "chash, 100 in weights 1..=7, every other up",
        chash,
        ring_weights,
        |m| m % 2 == 0,
    );
    measure(
        "chash, 100 in weights 1..=7, one up",
        chash,
        ring_weights,
        |m| m == 50,
    );
    measure_loads();
    for algorithm in [round_robin, chash, Algorithm::LeastConn, Algorithm::Ewma] {
        measure_guards(algorithm);
        noted(algorithm);
    }
    for algorithm in [round_robin, Algorithm::LeastConn, Algorithm::Ewma] {
        contended(algorithm);
    }
}

/// The algorithms that count, each with all idle and with the load that many earlier picks have left.
fn measure_loads() {
    for (name, algorithm) in [
        ("least_conn", Algorithm::LeastConn),
        ("ewma", Algorithm::Ewma),
    ] {
        let measure = |what: &str, weight, up, held| {
            measure_held(&format!("{name}, {what}"), algorithm, weight, up, held);
        };
        measure("100 equal, idle, all up", |_| 1, |_| true, 0);
        measure("100 equal, busy, all up", |_| 1, |_| true, 5_000);
        measure(
            "100 in weights 1..=100, busy, all up",
            |m| 1 + m,
            |_| true,
            5_000,
        );
        measure(
            "100 in weights 1..=100, busy, every other up",
            |m| 1 + m,
            |m| m % 2 == 0,
            5_000,
        );
        measure(
            "100 in weights 1..=100, busy, nine in ten up",
            |m| 1 + m,
            |m| m * 7 % 10 != 3,
            5_000,
        );
        measure(
            "100 in weights 1..=100, busy, two in three up",
            |m| 1 + m,
            |m| m % 3 != 1,
            5_000,
        );
        measure(
            "100 equal, busy, every other up",
            |_| 1,
            |m| m % 2 == 0,
            5_000,
        );
        measure("100 equal, one up", |_| 1, |m| m == 50, 0);
        measure("100 equal, none up", |_| 1, |_| false, 0);
    }
}

/// A hundred members in three priorities.
fn measure(what: &str, algorithm: Algorithm, weight: fn(u32) -> u32, up: fn(u32) -> bool) {
    measure_held(what, algorithm, weight, up, 0);
}

/// The same after `held` picks that are not over yet, and have told a response time.
fn measure_held(
    what: &str,
    algorithm: Algorithm,
    weight: fn(u32) -> u32,
    up: fn(u32) -> bool,
    held: u32,
) {
    let (pool, availability) = hundred(algorithm, weight, up);
    let tried = Tried::new();
    let holds: Vec<_> = (0..held)
        .filter_map(|number| {
            let ask = Ask {
                key: None,
                now: Duration::from_millis(number.into()),
                tried: &tried,
            };
            let mut hold = pool.pick(&ask, &availability).ok()?.take_hold()?;
            hold.observe(Duration::from_millis(20 + u64::from(number % 7)), ask.now);
            Some(hold)
        })
        .collect();
    println!("{:8.1} ns  {what}", time(&pool, &availability));
    drop(holds);
}

/// A hundred members with a target and three guards each.
fn measure_guards(algorithm: Algorithm) {
    let measure = |what: &str, stand: fn(usize) -> Stand| {
        let guarded = Guarded::new(100, stand);
        let mut members = members(|member| 1 + member % 7, &[]);
        for (member, gate) in members.iter_mut().zip(&guarded.gates) {
            member.gate = Some(Arc::clone(gate));
        }
        let pool = Pool::new(members, algorithm, 12_345).expect("a valid pool");
        let (availability, tried) = (&guarded.availability, Tried::new());
        let ask = Ask {
            key: Some(b"session"),
            now: Duration::ZERO,
            tried: &tried,
        };
        let trial = || pool.pick(&ask, availability).ok()?.take_trial();
        let trials: Vec<_> = std::iter::from_fn(trial).collect();
        let under_way = time(&pool, availability);
        println!("{under_way:8.1} ns  guards, {algorithm:?}, {what}");
        if !trials.is_empty() {
            drop(trials);
            let trying = time(&pool, availability);
            println!("{trying:8.1} ns  the same, each pick makes a trial and gives it back");
        }
    };
    measure("all usable", |_| Stand::Usable);
    measure("every other open", |m| [Stand::Usable, Stand::Open][m % 2]);
    measure("one open", |m| match m {
        50 => Stand::Open,
        _ => Stand::Usable,
    });
    measure("all open", |_| Stand::Open);
    measure("every other half open, trials under way", |m| {
        [Stand::Usable, Stand::HalfOpen][m % 2]
    });
    measure("all half open, trials under way", |_| Stand::HalfOpen);
}

/// Nanoseconds for a pick.
fn time(pool: &Pool, availability: &Availability) -> f64 {
    let tried = Tried::new();
    let keys: Vec<String> = (0..1024)
        .map(|number| format!("session-{number}"))
        .collect();
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = now();
        for number in 0..PICKS {
            let key = keys[number % keys.len()].as_bytes();
            let ask = Ask {
                key: Some(black_box(key)),
                now: Duration::from_secs(6),
                tried: &tried,
            };
            let _ = black_box(pool.pick(&ask, black_box(availability)));
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e9 / PICKS as f64);
    }
    best
}

/// Picks that say what they went by, as they do while the access log is on.
fn noted(algorithm: Algorithm) {
    let (pool, availability) = hundred(algorithm, |member| 1 + member % 7, |_| true);
    let tried = Tried::new();
    let ask = Ask {
        key: Some(black_box(b"session-17")),
        now: Duration::from_secs(6),
        tried: &tried,
    };
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = now();
        for _ in 0..PICKS {
            let _ = black_box(pool.pick_by(&ask, Basis::Noted, black_box(&availability)));
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e9 / PICKS as f64);
    }
    println!("{best:8.1} ns  {algorithm:?}, 100 in weights 1..=7, all up, noted");
}

fn contended(algorithm: Algorithm) {
    let (pool, availability) = hundred(algorithm, |member| 1 + member, |_| true);
    let threads = 2;
    let start = now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let tried = Tried::new();
                for _ in 0..PICKS {
                    let _ = black_box(pool.pick(
                        &Ask {
                            key: None,
                            now: Duration::ZERO,
                            tried: &tried,
                        },
                        &availability,
                    ));
                }
            });
        }
    });
    let each = start.elapsed().as_secs_f64() * 1e9 / PICKS as f64;
    println!(
        "{each:8.1} ns  {algorithm:?}, 100 in weights 1..=100, all up, {threads} threads at once"
    );
}

fn hundred(
    algorithm: Algorithm,
    weight: fn(u32) -> u32,
    up: fn(u32) -> bool,
) -> (Pool, Availability) {
    let (ids, availability) = verdicts(100, up);
    let pool = Pool::new(members(weight, &ids), algorithm, 12_345).expect("a valid pool");
    (pool, availability)
}

/// A hundred, each with its target, if there are any.
fn members(weight: fn(u32) -> u32, ids: &[TargetId]) -> Vec<MemberSpec> {
    let members = (0..100_u32).map(|member| MemberSpec {
        name: format!("instance-{member}"),
        weight: weight(member),
        // Nine in ten on top, then two small fallbacks.
        priority: match member {
            0..5 => 0,
            5..10 => 1,
            _ => 2,
        },
        targets: ids.get(member as usize).copied().into_iter().collect(),
        gate: None,
    });
    members.collect()
}

fn verdicts(count: u32, up: fn(u32) -> bool) -> (Vec<TargetId>, Availability) {
    let now = now();
    let mut monitor = Monitor::new();
    let wanted = |probe: u32| Wanted {
        probe,
        policy: Policy {
            tcp_failures: 1,
            concurrency: count,
            ..Policy::default()
        },
        lineage: probe.to_string(),
        checker: String::new(),
    };
    let ids = monitor.reconcile((0..count).map(wanted).collect(), now);
    while let Some(probe) = monitor.poll_probe(now) {
        let outcome = if up(probe.probe) {
            ProbeOutcome::TcpOk
        } else {
            ProbeOutcome::TcpFailure
        };
        monitor.on_probe(probe.ticket, outcome, now);
    }
    (ids, monitor.availability().as_ref().clone())
}

#[expect(clippy::disallowed_methods, reason = "a stopwatch reads the clock")]
fn now() -> Instant {
    Instant::now()
}

const ROUNDS: usize = 9;
const PICKS: usize = 200_000;
