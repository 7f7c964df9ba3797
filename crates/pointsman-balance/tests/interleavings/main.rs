//! Every order in which threads can take their steps: publish, pick, report, reload.
//!
//! The crate's own sources are compiled into this test with loom's atomics in place of the standard
//! library's (`crate::sync` is all that differs: positions, loads and the claims of trials), so what runs here is the code that ships. Loom runs each
//! model once for every order of the steps at these atomics, and for every value that a read may return
//! under the memory orders that are asked for.
//!
//! In most models the verdicts are worked out before any thread runs; in those of `reports` threads bring
//! evidence while others pick and reload.
//!
//! [`Swap`] stands for the `ArcSwap`s of `State` in `pointsman-gateway`; [`flip`], [`reload`] and [`pick`]
//! for how that crate uses them: verdicts before the pools that need them; a request takes its pools when it
//! begins, and verdicts at each pick.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "the sources offer more than these models use"
)]

#[path = "../../src"]
mod sources {
    pub mod decision;
    pub mod health;
    pub mod load;
    pub mod picker;
    pub mod pool;
    pub mod semantic;
    pub mod target;
    pub mod tried;
}

// The sources name one another from the root of their crate, which is this test.
use sources::{decision, health, load, picker, pool, semantic, target, tried};

mod reports;

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};
}

pub use decision::{Basis, Decision};
pub use health::*;
pub use load::{Hold, Load, Loads};
pub use picker::RING_POINTS_MAX;
pub use pool::*;
pub use semantic::*;
pub use target::TargetId;
pub use tried::Tried;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use loom::thread;

/// Stands for an `ArcSwap`: a value is replaced as a whole and read without waiting, and whoever has read
/// it keeps it. All values of a model stay where they are, and one word says which is the current one.
/// That word is stored with release and loaded with acquire; an `ArcSwap` promises that and more, so what
/// holds here holds there.
struct Swap<T> {
    values: [OnceLock<Arc<T>>; 8],
    current: AtomicUsize,
}

impl<T> Swap<T> {
    fn new(first: Arc<T>) -> Self {
        let values = std::array::from_fn(|_| OnceLock::new());
        let _ = values[0].set(first);
        Self {
            values,
            current: AtomicUsize::new(0),
        }
    }

    fn load(&self) -> Arc<T> {
        let current = self.current.load(Ordering::Acquire);
        Arc::clone(self.values[current].get().expect("set before it is named"))
    }

    /// Whoever stores knows how many values there were, and is the only one.
    fn store(&self, number: usize, value: Arc<T>) {
        let _ = self.values[number].set(value);
        self.current.store(number, Ordering::Release);
    }
}

/// What all threads see.
struct State {
    algorithm: Algorithm,
    pool: Swap<Pool>,
    availability: Swap<Availability>,
    /// The newest epoch that anybody knows to be in force: told by the publisher once its call has
    /// returned, and by whoever has picked by it.
    told: AtomicU64,
}

/// What the control thread finds out, before any thread runs: the verdicts do not depend on threads.
struct History {
    ids: [TargetId; 3],
    /// Both up; then `a` down; then `c` is known, too.
    verdicts: [Arc<Availability>; 3],
}

impl History {
    fn new() -> Self {
        let policy = Policy {
            tcp_failures: 1,
            ..Policy::default()
        };
        let wanted = |probe: &&'static str| Wanted {
            probe: *probe,
            policy: policy.clone(),
            lineage: (*probe).to_owned(),
            checker: String::new(),
        };
        let (mut monitor, now) = (Monitor::new(), start());
        let reconcile = |monitor: &mut Monitor<&str>, names: &[&'static str]| {
            monitor.reconcile(names.iter().map(wanted).collect(), now)
        };
        reconcile(&mut monitor, &["a", "b"]);
        let both_up = monitor.availability();
        let probe = monitor.poll_probe(now).expect("due at once");
        assert_eq!(probe.probe, "a");
        monitor.on_probe(probe.ticket, ProbeOutcome::TcpFailure, now);
        let a_down = monitor.availability();
        let ids = reconcile(&mut monitor, &["a", "b", "c"]);
        Self {
            ids: [ids[0], ids[1], ids[2]],
            verdicts: [both_up, a_down, monitor.availability()],
        }
    }

    /// The first configuration.
    fn old_pool(&self, algorithm: Algorithm) -> Pool {
        let [a, b, _] = self.ids;
        pool(algorithm, &[("a", 1, Some(a)), ("b", 1, Some(b))])
    }

    /// The second: another order, and one member more.
    fn new_pool(&self, algorithm: Algorithm) -> Pool {
        let [a, b, c] = self.ids;
        pool(
            algorithm,
            &[("c", 1, Some(c)), ("b", 1, Some(b)), ("a", 1, Some(a))],
        )
    }

    /// The publisher's call has returned.
    fn tell(&self, state: &State, number: usize) {
        let epoch = self.verdicts[number].epoch();
        state.told.fetch_max(epoch, Ordering::AcqRel);
    }

    fn state(&self, algorithm: Algorithm) -> Arc<State> {
        Arc::new(State {
            algorithm,
            pool: Swap::new(Arc::new(self.old_pool(algorithm))),
            availability: Swap::new(Arc::clone(&self.verdicts[0])),
            told: AtomicU64::new(self.verdicts[0].epoch()),
        })
    }
}

/// `a` falls.
fn flip(history: &History, state: &State) {
    state
        .availability
        .store(1, Arc::clone(&history.verdicts[1]));
    history.tell(state, 1);
}

/// The second configuration comes into force. `verdicts_first` is what the program does.
fn reload(history: &History, state: &State, verdicts_first: bool) {
    let verdicts = Arc::clone(&history.verdicts[2]);
    let previous = state.pool.load();
    let next = Arc::new(history.new_pool(state.algorithm).succeeding(&previous));
    if verdicts_first {
        state.availability.store(2, verdicts);
        state.pool.store(1, next);
    } else {
        state.pool.store(1, next);
        state.availability.store(2, verdicts);
    }
    history.tell(state, 2);
}

/// One pick of one request, and all that must hold of it.
fn pick(state: &State) {
    let epoch = pick_alone(state);
    state.told.fetch_max(epoch, Ordering::AcqRel);
}

/// The same without telling anybody; the epoch that it saw.
fn pick_alone(state: &State) -> u64 {
    let floor = state.told.load(Ordering::Acquire);
    let pool = state.pool.load();
    let availability = state.availability.load();
    // I-9: panics in a test build if these verdicts do not know one of the pool's targets.
    let usable = |member: usize| pool.usable(member, &availability);
    let ask = Ask {
        key: Some(KEY_OF_A),
        now: Duration::ZERO,
        tried: &Tried::new(),
    };
    let picked = pool.pick(&ask, &availability).expect("b is always up");
    // I-1 and I-7: no older than what anybody knew when it began.
    assert!(picked.epoch() >= floor, "{picked:?}, but {floor} was told");
    // I-2: also with a pool and verdicts that were not published together.
    assert!((0..pool.len()).all(|member| usable(member) || pool.name(member) == "a"));
    assert!(usable(picked.member()) && !picked.failed_open());
    picked.epoch()
}

/// Runs `publisher` beside two requests that `pick` once. With round robin there would be hours of
/// orders to try; that its position does not matter to verdicts is what the model of a retry shows.
fn beside_two_requests(publisher: fn(&History, &State), pick: fn(&State)) {
    let history = Arc::new(History::new());
    loom::model(move || {
        let state = history.state(Algorithm::Chash);
        let pickers: Vec<_> = (0..2)
            .map(|_| {
                let state = Arc::clone(&state);
                thread::spawn(move || pick(&state))
            })
            .collect();
        publisher(&history, &state);
        for picker in pickers {
            picker.join().expect("no violation");
        }
    });
}

#[test]
fn i1_i7_two_threads_agree_about_a_flip() {
    beside_two_requests(flip, pick);
}

#[test]
fn i1_i7_i9_two_threads_agree_about_a_reload() {
    beside_two_requests(
        |history, state| reload(history, state, true),
        |state| {
            pick_alone(state);
        },
    );
}

#[test]
fn i1_i2_i9_a_retry_picks_by_verdicts_no_older_than_before() {
    let history = Arc::new(History::new());
    loom::model(move || {
        let state = history.state(Algorithm::RoundRobin);
        let picker = {
            let state = Arc::clone(&state);
            thread::spawn(move || {
                pick(&state);
                pick(&state);
            })
        };
        flip(&history, &state);
        reload(&history, &state, true);
        picker.join().expect("no violation");
    });
}

/// The models above would notice if the program published in the wrong order.
#[test]
#[should_panic(expected = "newer than this snapshot")]
fn pools_before_their_verdicts_would_be_noticed() {
    let history = Arc::new(History::new());
    loom::model(move || {
        let state = history.state(Algorithm::RoundRobin);
        let publisher = {
            let (history, state) = (Arc::clone(&history), Arc::clone(&state));
            thread::spawn(move || reload(&history, &state, false))
        };
        pick(&state);
        publisher.join().expect("publishing does not fail");
    });
}

/// Picks by several threads at once, `each` by every one of them; how often each member was picked.
fn totals(pool: &Arc<Pool>, threads: usize, each: usize) -> Vec<usize> {
    let picks = move |pool: &Pool| {
        let tried = Tried::new();
        let ask = Ask {
            key: None,
            now: Duration::ZERO,
            tried: &tried,
        };
        let one = |_| {
            pool.pick(&ask, &Availability::empty())
                .expect("all are usable")
        };
        (0..each)
            .map(one)
            .map(|picked| picked.member())
            .collect::<Vec<_>>()
    };
    let others: Vec<_> = (1..threads)
        .map(|_| {
            let pool = Arc::clone(pool);
            thread::spawn(move || picks(&pool))
        })
        .collect();
    let mut picked = picks(pool);
    for other in others {
        picked.extend(other.join().expect("a pick"));
    }
    (0..pool.len())
        .map(|member| picked.iter().filter(|&&one| one == member).count())
        .collect()
}

#[test]
fn i22_two_threads_share_the_turns_exactly() {
    loom::model(|| {
        let pool = Arc::new(pool(
            Algorithm::RoundRobin,
            &[("a", 2, None), ("b", 1, None)],
        ));
        assert_eq!(totals(&pool, 2, 3), [4, 2]);
    });
}

#[test]
fn i22_three_threads_share_the_turns_exactly() {
    loom::model(|| {
        let pool = Arc::new(pool(
            Algorithm::RoundRobin,
            &[("a", 2, None), ("b", 1, None)],
        ));
        assert_eq!(totals(&pool, 3, 1), [2, 1]);
    });
}

/// However many pick at once, one of them makes the trial of a half-open circuit, and once it is over
/// the next one can.
#[test]
fn one_trial_at_a_time() {
    loom::model(|| {
        let (pool, availability) = half_open();
        let (pool, availability) = (Arc::new(pool), availability);
        let trial = |pool: &Pool, availability: &Availability| {
            let ask = Ask {
                key: None,
                now: Duration::ZERO,
                tried: &Tried::new(),
            };
            let mut picked = pool.pick(&ask, availability).expect("b is usable");
            let trial = picked.take_trial();
            assert_eq!(pool.name(picked.member()) == "a", trial.is_some());
            trial
        };
        let other = {
            let (pool, availability) = (Arc::clone(&pool), Arc::clone(&availability));
            thread::spawn(move || trial(&pool, &availability))
        };
        let mine = trial(&pool, &availability);
        let others = other.join().expect("a pick");
        assert!(mine.is_some() != others.is_some(), "{mine:?} {others:?}");
        drop((mine, others));
        assert!(trial(&pool, &availability).is_some(), "given back");
    });
}

fn pick_one(pool: &Pool) -> Picked {
    let ask = Ask {
        key: None,
        now: Duration::ZERO,
        tried: &Tried::new(),
    };
    pool.pick(&ask, &Availability::empty())
        .expect("all are usable")
}

fn in_flight(pool: &Pool) -> Vec<u32> {
    let load = |member| pool.load(member, Duration::ZERO).expect("it counts");
    (0..pool.len()).map(|at| load(at).in_flight).collect()
}

/// Two at once do not take the same idle member, and each is counted until it is over and no longer.
#[test]
fn i26_two_at_once_are_counted_apart_and_given_back() {
    loom::model(|| {
        let pool = Arc::new(pool(
            Algorithm::LeastConn,
            &[("a", 1, None), ("b", 1, None)],
        ));
        let other = {
            let pool = Arc::clone(&pool);
            thread::spawn(move || pick_one(&pool))
        };
        let mine = pick_one(&pool);
        let others = other.join().expect("a pick");
        assert_ne!(mine.member(), others.member());
        assert_eq!(in_flight(&pool), [1, 1]);
        let other = thread::spawn(move || drop(others));
        drop(mine);
        other.join().expect("released");
        assert_eq!(in_flight(&pool), [0, 0]);
    });
}

/// Picks beside those that end: nothing is lost, nothing is counted twice.
#[test]
fn i26_picks_and_ends_at_once_leave_nothing_counted() {
    loom::model(|| {
        let pool = Arc::new(pool(Algorithm::LeastConn, &[("a", 1, None)]));
        let kept = pick_one(&pool);
        let other = {
            let pool = Arc::clone(&pool);
            thread::spawn(move || drop(pick_one(&pool)))
        };
        drop(kept);
        let mine = pick_one(&pool);
        other.join().expect("a pick");
        assert_eq!(in_flight(&pool), [1]);
        drop(mine);
        assert_eq!(in_flight(&pool), [0]);
    });
}

/// No two picks throw the same dice, and of two response times at once none is torn.
#[test]
fn ewma_moves_on_with_each_pick() {
    loom::model(|| {
        let four = [
            ("a", 1, None),
            ("b", 1, None),
            ("c", 1, None),
            ("d", 1, None),
        ];
        let alone = pool(Algorithm::Ewma, &four);
        let mut expected = [pick_one(&alone).member(), pick_one(&alone).member()];
        let pool = Arc::new(pool(Algorithm::Ewma, &four));
        let pick = |pool: &Pool, millis| {
            let mut picked = pick_one(pool);
            let mut hold = picked.take_hold().expect("it counts");
            hold.observe(Duration::from_millis(millis), Duration::ZERO);
            picked.member()
        };
        let other = {
            let pool = Arc::clone(&pool);
            thread::spawn(move || pick(&pool, 100))
        };
        let mine = pick(&pool, 300);
        let mut picked = [mine, other.join().expect("a pick")];
        picked.sort_unstable();
        expected.sort_unstable();
        assert_eq!(picked, expected);
        assert_eq!(in_flight(&pool), [0; 4]);
        for at in 0..4 {
            let latency = pool.load(at, Duration::ZERO).and_then(|load| load.latency);
            let millis = latency.map(|latency| (latency.as_secs_f64() * 1000.0).round() as u64);
            assert!([None, Some(100), Some(300)].contains(&millis), "{millis:?}");
            assert_eq!(millis.is_some(), picked.contains(&at));
        }
    });
}

/// A pool of `a`, whose circuit asks for a trial, and `b`.
fn half_open() -> (Pool, Arc<Availability>) {
    let (mut monitor, now) = (Monitor::<()>::new(), start());
    let open = Duration::from_secs(1);
    let spec = GuardSpec {
        key: "a".to_owned(),
        breaker: Some(Breaker {
            failures: 1,
            error_percent: 0,
            min_attempts: 0,
            window: open,
            open,
            open_max: open,
            trials: 1,
        }),
    };
    let (guard, _) = monitor.guard(spec, now);
    monitor.trip(guard, now);
    monitor.tick(now + open);
    let mut members = members(&[("a", 1, None), ("b", 1, None)]);
    members[0].gate = Some(monitor.gate(&[], vec![guard]));
    let pool = Pool::new(members, Algorithm::RoundRobin, 0).expect("these are a pool");
    (pool, monitor.availability())
}

fn pool(algorithm: Algorithm, members: &[(&str, u32, Option<TargetId>)]) -> Pool {
    Pool::new(self::members(members), algorithm, 0).expect("these are a pool")
}

fn members(members: &[(&str, u32, Option<TargetId>)]) -> Vec<MemberSpec> {
    let member = |&(name, weight, target): &(&str, u32, Option<TargetId>)| MemberSpec {
        name: name.to_owned(),
        weight,
        priority: 0,
        targets: target.into_iter().collect(),
        gate: None,
    };
    members.iter().map(member).collect()
}

#[test]
fn the_key_is_that_of_a() {
    let (history, up) = (History::new(), Availability::all_usable());
    loom::model(move || {
        for pool in [
            history.old_pool(Algorithm::Chash),
            history.new_pool(Algorithm::Chash),
        ] {
            let ask = Ask {
                key: Some(KEY_OF_A),
                now: Duration::ZERO,
                tried: &Tried::new(),
            };
            let picked = pool.pick(&ask, &up).expect("all are up");
            assert_eq!(pool.name(picked.member()), "a");
        }
    });
}

/// `a` would have it in both configurations, if it were up.
const KEY_OF_A: &[u8] = b"k1";

#[expect(
    clippy::disallowed_methods,
    reason = "an `Instant` to count from cannot be had otherwise"
)]
fn start() -> Instant {
    Instant::now()
}
