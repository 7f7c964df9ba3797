//! What keeps a member out for a time because of what its own traffic met.
//!
//! Probes say whether an address works. They say nothing about a quota that is used up, a key that was
//! withdrawn, or a model that fails while its server is fine; traffic does. A guard turns that into a
//! verdict of its own, beside the verdicts of probes: *cooling down* until a point in time, or a
//! *circuit* that opens after failures, lets single trials through after a while, and closes when they
//! succeed. A member is usable only if all its guards are.
//!
//! Guards share the ids, and so the published bits, of targets. Like those they are identified by what
//! they stand for: two routes that use one credential at one address have one guard.

mod heirs;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::schedule::later;
use crate::TargetId;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64};

/// What a guard stands for. `Debug` does not show its key.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct GuardSpec {
    /// Its identity: where, with which credential, which model. Opaque here; may hold secrets.
    pub key: String,
    /// When its circuit opens; without, it can only cool down.
    pub breaker: Option<Breaker>,
}

impl std::fmt::Debug for GuardSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuardSpec")
            .field("breaker", &self.breaker)
            .finish_non_exhaustive()
    }
}

/// When a circuit opens and how it closes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Breaker {
    /// Failures in a row that open it; 0: they never do.
    pub failures: u32,
    /// Share of failures in one window, in percent, that opens it; 0: it never does.
    pub error_percent: u32,
    /// Attempts in a window before their share says anything.
    pub min_attempts: u32,
    /// How long attempts are added up, at least a millisecond.
    pub window: Duration,
    /// How long it stays open at first; doubles with each failed trial.
    pub open: Duration,
    /// The longest it stays open.
    pub open_max: Duration,
    /// Trials in a row that must succeed; at least 1.
    pub trials: u32,
}

/// Counts attempts for one circuit, on whatever thread they end. Lock-free.
#[derive(Debug)]
pub struct Tally {
    breaker: Breaker,
    origin: Instant,
    in_a_row: AtomicU32,
    /// When the last failure was noted, in nanoseconds since `origin`; 0: never.
    failed_at: AtomicU64,
    /// Number of the window, attempts in it and failures among them, in [`WINDOW_BITS`], [`COUNT_BITS`]
    /// and [`COUNT_BITS`] bits: one value, so that no reader sees the counts of two windows.
    window: AtomicU64,
}

/// The right to make one attempt at a member whose circuit is half open. While it lives, nobody else
/// gets one; dropping it without a report gives it back.
#[derive(Debug)]
#[must_use = "the next trial waits until this one is reported or dropped"]
pub struct Trial {
    guard: TargetId,
    claim: Arc<AtomicBool>,
    /// Where everybody sees that it is under way: a word, and a bit of it.
    mark: (Arc<AtomicU64>, u64),
}

/// A circuit of which trials may be made, as published.
#[derive(Debug, Clone)]
pub(crate) struct HalfOpen {
    guard: TargetId,
    claim: Arc<AtomicBool>,
}

/// All guards of a process.
#[derive(Debug, Default)]
pub(super) struct Guards {
    by_id: HashMap<TargetId, Guard>,
    by_spec: HashMap<Arc<GuardSpec>, TargetId>,
    /// The newest circuit of each key.
    circuits: HashMap<String, TargetId>,
    /// When something ends by itself.
    agenda: BTreeSet<(Instant, TargetId)>,
}

#[derive(Debug)]
struct Guard {
    spec: Arc<GuardSpec>,
    tally: Option<Arc<Tally>>,
    cools_until: Option<Instant>,
    circuit: Circuit,
    /// Whose place it takes, with other settings, until its configuration is in force.
    heir_of: Option<TargetId>,
    /// When it may be usable again, as it was published last.
    expected: Option<Instant>,
    /// Whether the configuration being compiled has asked for it.
    wanted: bool,
}

#[derive(Debug)]
enum Circuit {
    Closed,
    /// No attempts until then; `failed` trials came before.
    Open {
        until: Instant,
        failed: u32,
    },
    /// One attempt at a time.
    HalfOpen {
        failed: u32,
        succeeded: u32,
        claim: Arc<AtomicBool>,
    },
}

/// What a guard says, for reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuardReport {
    /// Whether members behind it may be picked.
    pub usable: bool,
    /// Until when it cools down.
    pub cools_until: Option<Instant>,
    /// Where its circuit stands.
    pub circuit: CircuitState,
}

/// Where a circuit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CircuitState {
    /// Attempts are made.
    Closed,
    /// None are made until then.
    Open(Instant),
    /// One at a time is made, to find out.
    HalfOpen,
}

impl Guards {
    /// The guard of `spec` if there is one, and marks it as wanted.
    pub(super) fn find(&mut self, spec: &GuardSpec) -> Option<TargetId> {
        let id = *self.by_spec.get(spec)?;
        self.by_id.get_mut(&id)?.wanted = true;
        Some(id)
    }

    /// Adds one, which is wanted, usable and closed.
    pub(super) fn add(&mut self, id: TargetId, spec: GuardSpec, now: Instant) {
        let spec = Arc::new(spec);
        let tally = spec
            .breaker
            .map(|breaker| Arc::new(Tally::new(breaker, now)));
        let heir_of = (spec.breaker).and_then(|_| self.circuits.insert(spec.key.clone(), id));
        self.by_spec.insert(Arc::clone(&spec), id);
        let guard = Guard {
            spec,
            tally,
            cools_until: None,
            circuit: Circuit::Closed,
            heir_of,
            expected: None,
            wanted: true,
        };
        self.by_id.insert(id, guard);
    }

    /// Forgets the guards that nobody has asked for since the last call, and returns those.
    pub(super) fn sweep(&mut self) -> Vec<TargetId> {
        let mut unwanted = Vec::new();
        self.by_id.retain(|&id, guard| {
            let is_wanted = std::mem::take(&mut guard.wanted);
            guard.heir_of = None;
            if !is_wanted {
                unwanted.push(id);
            }
            is_wanted
        });
        let (by_id, by_spec) = (&self.by_id, &mut self.by_spec);
        by_spec.retain(|_, id| by_id.contains_key(id));
        self.circuits.retain(|_, id| by_id.contains_key(id));
        self.agenda.retain(|(_, id)| by_id.contains_key(id));
        unwanted
    }

    pub(super) fn tally(&self, id: TargetId) -> Option<Arc<Tally>> {
        self.by_id.get(&id)?.tally.clone()
    }

    /// Keeps the members behind a guard out until then. A deadline only ever moves further away.
    pub(super) fn cool_down(&mut self, id: TargetId, until: Instant, now: Instant) {
        let Some(guard) = self.by_id.get_mut(&id) else {
            return;
        };
        if until <= now || guard.cools_until.is_some_and(|earlier| earlier >= until) {
            return;
        }
        if let Some(earlier) = guard.cools_until.replace(until) {
            // The circuit may wait for the very same moment.
            let is_shared =
                matches!(guard.circuit, Circuit::Open { until, .. } if until == earlier);
            if !is_shared {
                self.agenda.remove(&(earlier, id));
            }
        }
        self.agenda.insert((until, id));
    }

    /// Opens a circuit, if it is closed.
    pub(super) fn trip(&mut self, id: TargetId, now: Instant) {
        let Some(guard) = self.by_id.get_mut(&id) else {
            return;
        };
        if matches!(guard.circuit, Circuit::Closed) {
            guard.open(id, 0, now, &mut self.agenda);
        }
    }

    /// All guards, by ascending id.
    pub(super) fn specs(&self) -> Vec<(TargetId, Arc<GuardSpec>)> {
        let all = self.by_id.iter();
        let mut specs: Vec<_> = all
            .map(|(&id, guard)| (id, Arc::clone(&guard.spec)))
            .collect();
        specs.sort_unstable_by_key(|(id, _)| *id);
        specs
    }

    /// Puts a guard of which nothing is known where `kept` says it stood.
    pub(super) fn restore(&mut self, id: TargetId, kept: GuardReport, now: Instant) {
        if let Some(until) = kept.cools_until {
            self.cool_down(id, until, now);
        }
        let Some(guard) = self.by_id.get_mut(&id) else {
            return;
        };
        if guard.spec.breaker.is_none() {
            return;
        }
        match kept.circuit {
            CircuitState::Closed => {}
            CircuitState::Open(until) => {
                guard.circuit = Circuit::Open { until, failed: 0 };
                self.agenda.insert((until, id));
            }
            CircuitState::HalfOpen => {
                guard.circuit = Circuit::HalfOpen {
                    failed: 0,
                    succeeded: 0,
                    claim: Arc::default(),
                };
            }
        }
    }

    /// Takes the outcome of a trial. One of an earlier period has no effect.
    pub(super) fn on_trial(&mut self, trial: &Trial, succeeded: bool, now: Instant) {
        let id = trial.guard;
        let Some(guard) = self.by_id.get_mut(&id) else {
            return;
        };
        let Circuit::HalfOpen {
            failed,
            succeeded: before,
            claim,
        } = &mut guard.circuit
        else {
            return;
        };
        if !Arc::ptr_eq(&trial.claim, claim) {
            return;
        }
        if !succeeded {
            let failed = *failed;
            guard.open(id, failed.saturating_add(1), now, &mut self.agenda);
            return;
        }
        *before += 1;
        let needed = guard.spec.breaker.map_or(1, |breaker| breaker.trials);
        if *before >= needed {
            guard.circuit = Circuit::Closed;
            if let Some(tally) = &guard.tally {
                tally.reset();
            }
        }
    }

    /// Ends what is over by now.
    pub(super) fn tick(&mut self, now: Instant) -> Vec<TargetId> {
        let mut ended = Vec::new();
        while let Some(&(at, id)) = self.agenda.first()
            && at <= now
        {
            self.agenda.pop_first();
            let Some(guard) = self.by_id.get_mut(&id) else {
                continue;
            };
            if guard.cools_until.is_some_and(|until| until <= now) {
                guard.cools_until = None;
            }
            if let Circuit::Open { until, failed } = guard.circuit
                && until <= now
            {
                guard.circuit = Circuit::HalfOpen {
                    failed,
                    succeeded: 0,
                    claim: Arc::default(),
                };
            }
            ended.push(id);
        }
        ended
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.agenda.first().map(|&(at, _)| at)
    }

    pub(super) fn expected(&self, id: TargetId) -> Option<Instant> {
        self.by_id.get(&id)?.expected
    }

    pub(super) fn expect(&mut self, id: TargetId, at: Option<Instant>) {
        if let Some(guard) = self.by_id.get_mut(&id) {
            guard.expected = at;
        }
    }

    /// Whether members behind the guard may be picked; what is not known may.
    pub(super) fn usable(&self, id: TargetId) -> bool {
        self.by_id.get(&id).is_none_or(Guard::usable)
    }

    /// The circuit of a guard, if trials of it may be made now.
    pub(super) fn half_open(&self, id: TargetId) -> Option<HalfOpen> {
        let guard = self.by_id.get(&id)?;
        let Circuit::HalfOpen { claim, .. } = &guard.circuit else {
            return None;
        };
        guard.cools_until.is_none().then(|| HalfOpen {
            guard: id,
            claim: Arc::clone(claim),
        })
    }

    pub(super) fn report(&self, id: TargetId) -> Option<GuardReport> {
        let guard = self.by_id.get(&id)?;
        Some(GuardReport {
            usable: guard.usable(),
            cools_until: guard.cools_until,
            circuit: match guard.circuit {
                Circuit::Closed => CircuitState::Closed,
                Circuit::Open { until, .. } => CircuitState::Open(until),
                Circuit::HalfOpen { .. } => CircuitState::HalfOpen,
            },
        })
    }
}

impl Guard {
    fn usable(&self) -> bool {
        self.cools_until.is_none() && matches!(self.circuit, Circuit::Closed)
    }

    fn open(
        &mut self,
        id: TargetId,
        failed: u32,
        now: Instant,
        agenda: &mut BTreeSet<(Instant, TargetId)>,
    ) {
        let Some(breaker) = self.spec.breaker else {
            return;
        };
        let doubled = breaker.open.saturating_mul(1 << failed.min(20));
        // Without any time in between, trials would follow one another without end.
        let wait = doubled.min(breaker.open_max).max(OPEN_MIN);
        let until = later(now, wait);
        self.circuit = Circuit::Open { until, failed };
        agenda.insert((until, id));
    }
}

impl Tally {
    fn new(breaker: Breaker, origin: Instant) -> Self {
        Self {
            breaker,
            origin,
            in_a_row: AtomicU32::new(0),
            failed_at: AtomicU64::new(0),
            window: AtomicU64::new(0),
        }
    }

    /// Notes how an attempt ended that began at `began`. Whether the circuit should open now; says so
    /// for every further failure, too, until it is told to the guard's owner.
    ///
    /// A success ends a row of failures only if its attempt began after the latest of them: an answer
    /// that was long under way proves nothing about what happened meanwhile.
    #[must_use]
    pub fn record(&self, succeeded: bool, began: Instant, now: Instant) -> bool {
        let (attempts, failures) = self.add_to_window(succeeded, now);
        if succeeded {
            if self.in_a_row.load(Ordering::Relaxed) != 0
                && self.nanos(began) > self.failed_at.load(Ordering::Relaxed)
            {
                self.in_a_row.store(0, Ordering::Relaxed);
            }
            return false;
        }
        self.failed_at
            .fetch_max(self.nanos(now).max(1), Ordering::Relaxed);
        let in_a_row = self
            .in_a_row
            .fetch_add(1, Ordering::Relaxed)
            .saturating_add(1);
        let Breaker {
            failures: limit,
            error_percent,
            min_attempts,
            ..
        } = self.breaker;
        let too_many = limit != 0 && in_a_row >= limit;
        let too_large_a_share = error_percent != 0
            && attempts >= u64::from(min_attempts)
            && failures * 100 >= attempts * u64::from(error_percent);
        too_many || too_large_a_share
    }

    /// Adds an attempt to the window of `now`; returns its attempts and failures.
    fn add_to_window(&self, succeeded: bool, now: Instant) -> (u64, u64) {
        if self.breaker.error_percent == 0 {
            return (0, 0);
        }
        let length = self.breaker.window.as_nanos().max(1_000_000);
        let window = u128::from(self.nanos(now)) / length;
        let window = window as u64 & ((1 << WINDOW_BITS) - 1);
        let add = |packed: u64| {
            let (mut attempts, mut failures) = (0, 0);
            if packed >> (2 * COUNT_BITS) == window {
                attempts = packed >> COUNT_BITS & COUNT_MAX;
                failures = packed & COUNT_MAX;
            }
            if attempts < COUNT_MAX {
                attempts += 1;
                failures += u64::from(!succeeded);
            }
            window << (2 * COUNT_BITS) | attempts << COUNT_BITS | failures
        };
        let mut packed = self.window.load(Ordering::Relaxed);
        loop {
            let added = add(packed);
            match self.window.compare_exchange_weak(
                packed,
                added,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return (added >> COUNT_BITS & COUNT_MAX, added & COUNT_MAX),
                Err(changed) => packed = changed,
            }
        }
    }

    fn nanos(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.origin).as_nanos();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    fn reset(&self) {
        self.in_a_row.store(0, Ordering::Relaxed);
        self.window.store(0, Ordering::Relaxed);
    }
}

impl HalfOpen {
    /// The circuit of `guard` asks for a trial, which nobody has.
    pub(super) fn of(guard: TargetId) -> Self {
        Self {
            guard,
            claim: Arc::default(),
        }
    }

    /// The trial, if nobody has it; while somebody does, `bit` of `under_way` is set.
    pub(crate) fn claim(&self, under_way: &Arc<AtomicU64>, bit: u64) -> Option<Trial> {
        if self.claim.swap(true, Ordering::AcqRel) {
            return None;
        }
        under_way.fetch_or(bit, Ordering::Relaxed);
        Some(Trial {
            guard: self.guard,
            claim: Arc::clone(&self.claim),
            mark: (Arc::clone(under_way), bit),
        })
    }

    /// Whose circuit it is.
    pub(crate) const fn guard(&self) -> TargetId {
        self.guard
    }

    /// Whether both ask for the same trials.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.claim, &other.claim)
    }

    /// Whether somebody has it.
    pub(super) fn is_claimed(&self) -> bool {
        self.claim.load(Ordering::Relaxed)
    }
}

impl Trial {
    /// Whose circuit is tried.
    #[must_use]
    pub const fn guard(&self) -> TargetId {
        self.guard
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        // In this order, the mark is never left behind by one that came after.
        let (under_way, bit) = &self.mark;
        under_way.fetch_and(!bit, Ordering::Relaxed);
        self.claim.store(false, Ordering::Release);
    }
}

impl PartialEq for Trial {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.claim, &other.claim)
    }
}

impl Eq for Trial {}

const WINDOW_BITS: u32 = 20;
const COUNT_BITS: u32 = 22;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;

/// The shortest time a circuit is open.
const OPEN_MIN: Duration = Duration::from_millis(10);
