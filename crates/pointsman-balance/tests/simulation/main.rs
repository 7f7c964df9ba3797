//! A seeded simulation: many small lives of a monitor and its pools, on a virtual clock.
//!
//! Targets die, flap, slow down and lie; probes are delayed, overtaken, lost and handed in late; the
//! prober oversleeps; members are reordered, renamed, removed and put back, their probes, weights and
//! priorities change, and pools share targets. After every event, what the monitor says is compared with
//! a plain account of what it must say (`ledger.rs`), and every pick is judged by a plain list of who may
//! be picked (`picks.rs`): I-2, I-3, I-6, I-9, I-10, I-11, I-14, I-16, I-17, I-18, I-19, I-21, I-23.
//!
//! Other lives have guards, names, load and probes in one world (`guarded.rs`), and are compared with
//! `model.rs`.
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

mod guarded;
mod model;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use run::{Life, Tally};

const SEEDS: u64 = 10_000;

#[test]
fn no_life_breaks_an_invariant() {
    live_all("no_life_breaks_an_invariant", |seed, origin, traced| {
        let mut life = Life::new(seed, origin, traced);
        let lived = catch_unwind(AssertUnwindSafe(|| life.run()));
        if let Err(cause) = lived {
            for line in life.trace() {
                eprintln!("  {line}");
            }
            resume_unwind(cause);
        }
        let figures = life.tally().figures();
        figures.into_iter().collect()
    });
}

#[test]
fn no_guarded_life_breaks_an_invariant() {
    live_all(
        "no_guarded_life_breaks_an_invariant",
        |seed, origin, traced| guarded::Life::new(seed, origin, traced).run(),
    );
}

/// How often what happened.
type Happened = BTreeMap<&'static str, u64>;

/// Lives all lives on several threads. `live` is given the seed, a time to begin at, and whether to tell its
/// last events.
#[expect(clippy::print_stdout, reason = "what happened is worth a look")]
fn live_all(test: &str, live: impl Fn(u64, Instant, bool) -> Happened + Sync) {
    let seeds = from_environment("POINTSMAN_SIM_SEEDS").unwrap_or(SEEDS);
    let from = from_environment("POINTSMAN_SIM_FROM").unwrap_or(0);
    let origin = start();
    let (next, failed) = (AtomicU64::new(from), AtomicU64::new(u64::MAX));
    let some = || {
        let mut all = Happened::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + seeds || failed.load(Ordering::Relaxed) != u64::MAX {
                return all;
            }
            match catch_unwind(AssertUnwindSafe(|| live(seed, origin, false))) {
                Ok(happened) => add(&mut all, happened),
                Err(_) => {
                    failed.fetch_min(seed, Ordering::Relaxed);
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let happened = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(some)).collect();
        let mut all = Happened::new();
        for thread in threads {
            add(&mut all, thread.join().unwrap());
        }
        all
    });
    match failed.into_inner() {
        u64::MAX => {}
        seed => tell(test, seed, || drop(live(seed, origin, true))),
    }
    println!("{seeds} lives: {happened:?}");
    if seeds >= 1_000 {
        // A world in which nothing goes wrong proves nothing.
        for (what, figure) in happened {
            assert!(
                figure * 20 >= seeds,
                "only {figure} {what} in {seeds} lives"
            );
        }
    }
}

fn add(all: &mut Happened, more: Happened) {
    for (what, figure) in more {
        *all.entry(what).or_default() += figure;
    }
}

/// Lives a failing seed once more, to tell of it.
fn tell(test: &str, seed: u64, live: impl FnOnce()) {
    eprintln!("\nseed {seed} fails; its last events:");
    let cause = catch_unwind(AssertUnwindSafe(live));
    eprintln!(
        "replay: POINTSMAN_SIM_FROM={seed} POINTSMAN_SIM_SEEDS=1 \
         cargo test -p pointsman-balance --test simulation {test}\n"
    );
    match cause {
        Err(cause) => resume_unwind(cause),
        Ok(()) => panic!("seed {seed} failed once and not again: something is not replayable"),
    }
}

impl Tally {
    fn figures(&self) -> [(&'static str, u64); 13] {
        let seen = &self.seen;
        [
            ("events", self.events),
            ("picks", self.picks),
            ("retries", self.retries),
            ("fail-open picks", self.fail_open),
            ("picks without result", self.exhausted),
            ("reloads", self.reloads),
            ("flips", seen.flips),
            ("late answers", seen.late),
            ("stale answers", seen.stale),
            ("answers handed in late", seen.overdue),
            ("bad verdicts carried over", seen.carried),
            ("shared targets", seen.shared),
            ("successes that were old news", seen.old_news),
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
