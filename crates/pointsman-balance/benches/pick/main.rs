//! What one pick costs, the look at the verdicts right before it is sent included: in nanoseconds, and in
//! instructions if there is valgrind. Prints figures and judges nothing: `cargo bench`, and compare with the
//! run before, by instructions unless the machine is quiet.

#![expect(clippy::print_stdout, reason = "the figures are the output")]
#![allow(clippy::unwrap_used, reason = "a panic is how a benchmark fails")]

mod counted;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman_balance::{
    Algorithm, Ask, Availability, Basis, Hold, MemberSpec, Monitor, Policy, Pool, ProbeOutcome,
    TargetId, Tried, Wanted,
};
use support::{Guarded, Stand};

/// One pick and what follows from it; the argument says which of many it is.
type Row<'a> = dyn FnMut(usize) + 'a;

/// The verdicts that a pick goes by, and those that are in force right before it is sent. A pick that is a
/// trial looks at both whether they differ or not, others only if they do.
struct Verdicts {
    picked_by: Arc<Availability>,
    sent_by: Arc<Availability>,
}

/// Where rows go.
enum Bench {
    /// Under callgrind.
    Counted,
    /// The counts of all rows, in order.
    Timed(std::vec::IntoIter<f64>),
}

fn main() {
    let mut bench = if std::env::args().nth(1).as_deref() == Some(counted::COUNTED) {
        counted::count(None);
        Bench::Counted
    } else {
        let counts = counted::all().unwrap_or_else(|why| {
            println!("Instructions are not counted: {why}");
            Vec::new()
        });
        println!("         ns  instructions");
        Bench::Timed(counts.into_iter())
    };
    let all = [
        Algorithm::RoundRobin,
        Algorithm::Chash,
        Algorithm::LeastConn,
        Algorithm::Ewma,
    ];
    for algorithm in all {
        bench.promised(algorithm);
    }
    bench.stateless();
    bench.loads();
    for algorithm in all {
        bench.guards(algorithm);
        bench.noted(algorithm);
    }
    if matches!(bench, Bench::Timed(_)) {
        for algorithm in [Algorithm::RoundRobin, Algorithm::LeastConn, Algorithm::Ewma] {
            contended(algorithm);
        }
    }
}

impl Bench {
    /// Measures a row.
    fn row(&mut self, what: &str, mut row: impl FnMut(usize)) {
        let Self::Timed(counts) = self else {
            return counted::count(Some(&mut row));
        };
        let mut best = f64::INFINITY;
        for _ in 0..ROUNDS {
            let start = now();
            (0..PICKS).for_each(&mut row);
            best = best.min(start.elapsed().as_secs_f64() * 1e9 / PICKS as f64);
        }
        let count = counts.next();
        let count = count.map_or_else(String::new, |count| format!("{count:.0}"));
        println!("{best:8.1} ns  {count:>12}  {what}");
    }

    /// Picks for a request that has tried some, looked at once more before they are sent.
    fn picks(&mut self, what: &str, pool: &Pool, verdicts: &Verdicts, tried: &Tried) {
        let keys: Vec<String> = (0..1024)
            .map(|number| format!("session-{number}"))
            .collect();
        self.row(what, |number| {
            let key = keys[number % keys.len()].as_bytes();
            let ask = Ask {
                key: Some(black_box(key)),
                now: Duration::from_secs(6),
                tried,
            };
            let picked = black_box(pool.pick(&ask, black_box(&verdicts.picked_by)));
            let sent_by = black_box(&verdicts.sent_by);
            black_box(picked.is_ok_and(|picked| pool.holds(&picked, sent_by)));
        });
    }

    /// What is promised of every algorithm: a hundred in weights of 1 to 7, with three hundred requests
    /// under way where those are counted.
    fn promised(&mut self, algorithm: Algorithm) {
        let mut measure = |which: &str, up: fn(u32) -> bool| {
            let (pool, verdicts) = hundred(algorithm, |member| 1 + member % 7, up);
            let holds = held(&pool, &verdicts.picked_by, 300);
            let mut tried = Tried::new();
            for (marks, attempt) in [(0, "first attempt"), (1, "first retry"), (3, "third retry")] {
                while tried.len() < marks {
                    let ask = Ask {
                        key: Some(b"session-17"),
                        now: Duration::from_secs(6),
                        tried: &tried,
                    };
                    let failed = pool.pick(&ask, &verdicts.picked_by);
                    let failed = failed.expect("many are usable");
                    tried.mark(failed.member());
                }
                let what = format!("{algorithm:?}, 100 in weights 1..=7, {which}, {attempt}");
                self.picks(&what, &pool, &verdicts, &tried);
            }
            drop(holds);
        };
        measure("all up", |_| true);
        measure("a tenth down", |member| member % 10 != 3);
    }

    /// The algorithms that do not count.
    fn stateless(&mut self) {
        let round_robin = Algorithm::RoundRobin;
        let chash = Algorithm::Chash;
        let ring_weights = |member| 1 + member % 7;
        let mut measure =
            |what, algorithm, weight, up| self.hundred(what, algorithm, weight, up, 0);
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
    }

    /// The algorithms that count, each with all idle and with the load that many earlier picks have left.
    fn loads(&mut self) {
        for (name, algorithm) in [
            ("least_conn", Algorithm::LeastConn),
            ("ewma", Algorithm::Ewma),
        ] {
            let mut measure = |what: &str, weight, up, held| {
                self.hundred(&format!("{name}, {what}"), algorithm, weight, up, held);
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

    /// A hundred members in three priorities, after `held` picks that are not over yet.
    fn hundred(
        &mut self,
        what: &str,
        algorithm: Algorithm,
        weight: fn(u32) -> u32,
        up: fn(u32) -> bool,
        under_way: u32,
    ) {
        let (pool, verdicts) = hundred(algorithm, weight, up);
        let holds = held(&pool, &verdicts.picked_by, under_way);
        self.picks(what, &pool, &verdicts, &Tried::new());
        drop(holds);
    }

    /// A hundred members with a target and three guards each.
    fn guards(&mut self, algorithm: Algorithm) {
        let mut measure = |what: &str, stand: fn(usize) -> Stand| {
            let guarded = Guarded::new(100, stand);
            let mut members = members(|member| 1 + member % 7, &[]);
            for (member, gate) in members.iter_mut().zip(&guarded.gates) {
                member.gate = Some(Arc::clone(gate));
            }
            let pool = Pool::new(members, algorithm, 12_345).expect("a valid pool");
            let (availability, tried) = (&guarded.availability, Tried::new());
            let verdicts = Verdicts {
                picked_by: Arc::clone(availability),
                sent_by: Arc::clone(availability),
            };
            let ask = Ask {
                key: Some(b"session"),
                now: Duration::ZERO,
                tried: &tried,
            };
            let trial = || pool.pick(&ask, availability).ok()?.take_trial();
            let trials: Vec<_> = std::iter::from_fn(trial).collect();
            let what = format!("guards, {algorithm:?}, {what}");
            self.picks(&what, &pool, &verdicts, &tried);
            if !trials.is_empty() {
                drop(trials);
                let what = format!("{what}: none, each pick makes one and gives it back");
                self.picks(&what, &pool, &verdicts, &tried);
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

    /// Picks that say what they went by, as they do while the access log is on.
    fn noted(&mut self, algorithm: Algorithm) {
        let (pool, verdicts) = hundred(algorithm, |member| 1 + member % 7, |_| true);
        let tried = Tried::new();
        let ask = Ask {
            key: Some(black_box(b"session-17")),
            now: Duration::from_secs(6),
            tried: &tried,
        };
        let what = format!("{algorithm:?}, 100 in weights 1..=7, all up, noted");
        self.row(&what, |_| {
            let availability = black_box(&verdicts.picked_by);
            let _ = black_box(pool.pick_by(&ask, Basis::Noted, availability));
        });
    }
}

/// Picks that are not over yet, and have told a response time.
fn held(pool: &Pool, availability: &Availability, count: u32) -> Vec<Hold> {
    let tried = Tried::new();
    let holds = (0..count).filter_map(|number| {
        let ask = Ask {
            key: None,
            now: Duration::from_millis(number.into()),
            tried: &tried,
        };
        let mut hold = pool.pick(&ask, availability).ok()?.take_hold()?;
        hold.observe(Duration::from_millis(20 + u64::from(number % 7)), ask.now);
        Some(hold)
    });
    holds.collect()
}

fn contended(algorithm: Algorithm) {
    let (pool, verdicts) = hundred(algorithm, |member| 1 + member, |_| true);
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
                        &verdicts.picked_by,
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

fn hundred(algorithm: Algorithm, weight: fn(u32) -> u32, up: fn(u32) -> bool) -> (Pool, Verdicts) {
    let (ids, verdicts) = verdicts(100, up);
    let pool = Pool::new(members(weight, &ids), algorithm, 12_345).expect("a valid pool");
    (pool, verdicts)
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

fn verdicts(count: u32, up: fn(u32) -> bool) -> (Vec<TargetId>, Verdicts) {
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
    let picked_by = monitor.availability();
    // Elsewhere something has changed meanwhile.
    monitor.reconcile((0..=count).map(wanted).collect(), now);
    let sent_by = monitor.availability();
    assert!(sent_by.epoch() > picked_by.epoch());
    (ids, Verdicts { picked_by, sent_by })
}

#[expect(clippy::disallowed_methods, reason = "a stopwatch reads the clock")]
fn now() -> Instant {
    Instant::now()
}

const ROUNDS: usize = 9;
const PICKS: usize = 200_000;
