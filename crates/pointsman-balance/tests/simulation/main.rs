//! A seeded simulation: many small lives of a monitor and its pools, on a virtual clock.
//!
//! Targets die, flap, slow down and lie; probes are delayed, overtaken, lost and handed in late; the
//! prober oversleeps; members are reordered, renamed, removed and put back, their probes, weights and
//! priorities change, and pools share targets. After every event, what the monitor says is compared with
//! a plain account of what it must say (`ledger.rs`), and every pick is judged by a plain list of who may
//! be picked (`picks.rs`): I-2, I-3, I-6, I-9, I-10, I-11, I-14, I-16, I-17, I-18, I-19, I-21, I-23.
//!
//! `POINTSMAN_SIM_SEEDS` sets how many lives there are (default 10,000), `POINTSMAN_SIM_FROM` the first
//! seed (default 0). A seed that fails is lived again to tell its last events.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod chance;
mod world;

mod plan;
mod run;

mod ledger;
mod picks;
mod table;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use run::{Life, Tally};

const SEEDS: u64 = 10_000;

#[test]
fn no_life_breaks_an_invariant() {
    let seeds = from_environment("POINTSMAN_SIM_SEEDS").unwrap_or(SEEDS);
    let from = from_environment("POINTSMAN_SIM_FROM").unwrap_or(0);
    let origin = start();
    let (next, failed) = (AtomicU64::new(from), AtomicU64::new(u64::MAX));
    let live = || {
        let mut tallies = Tally::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + seeds || failed.load(Ordering::Relaxed) != u64::MAX {
                return tallies;
            }
            let lived = catch_unwind(|| {
                let mut life = Life::new(seed, origin, false);
                life.run();
                life.tally()
            });
            match lived {
                Ok(tally) => tallies.add(&tally),
                Err(_) => {
                    failed.fetch_min(seed, Ordering::Relaxed);
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let tally = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(live)).collect();
        let mut all = Tally::default();
        for thread in threads {
            all.add(&thread.join().unwrap());
        }
        all
    });
    match failed.into_inner() {
        u64::MAX => {}
        seed => tell(seed, origin),
    }
    println!("{seeds} lives: {tally:?}");
    if seeds >= 1_000 {
        tally.check_that_enough_happened(seeds);
    }
}

/// Lives a failing seed once more, to tell of it.
fn tell(seed: u64, origin: Instant) {
    let mut life = None;
    let cause = catch_unwind(AssertUnwindSafe(|| {
        life.insert(Life::new(seed, origin, true)).run();
    }));
    eprintln!("\nseed {seed} fails; its last events:");
    for line in life.iter().flat_map(Life::trace) {
        eprintln!("  {line}");
    }
    eprintln!(
        "replay: POINTSMAN_SIM_FROM={seed} POINTSMAN_SIM_SEEDS=1 \
         cargo test -p pointsman-balance --test simulation\n"
    );
    match cause {
        Err(cause) => resume_unwind(cause),
        Ok(()) => panic!("seed {seed} failed once and not again: something is not replayable"),
    }
}

impl Tally {
    fn add(&mut self, other: &Self) {
        for (sum, more) in self.figures().into_iter().zip(other.clone().figures()) {
            *sum.1 += *more.1;
        }
    }

    /// A world in which nothing goes wrong proves nothing.
    fn check_that_enough_happened(mut self, seeds: u64) {
        for (what, figure) in self.figures() {
            assert!(
                *figure * 20 >= seeds,
                "only {figure} {what} in {seeds} lives"
            );
        }
    }

    fn figures(&mut self) -> [(&'static str, &mut u64); 13] {
        let seen = &mut self.seen;
        [
            ("events", &mut self.events),
            ("picks", &mut self.picks),
            ("retries", &mut self.retries),
            ("fail-open picks", &mut self.fail_open),
            ("picks without result", &mut self.exhausted),
            ("reloads", &mut self.reloads),
            ("flips", &mut seen.flips),
            ("late answers", &mut seen.late),
            ("stale answers", &mut seen.stale),
            ("answers handed in late", &mut seen.overdue),
            ("bad verdicts carried over", &mut seen.carried),
            ("shared targets", &mut seen.shared),
            ("successes that were old news", &mut seen.old_news),
        ]
    }
}

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
}

#[expect(
    clippy::disallowed_methods,
    reason = "an `Instant` to count from cannot be had otherwise"
)]
fn start() -> Instant {
    Instant::now()
}
