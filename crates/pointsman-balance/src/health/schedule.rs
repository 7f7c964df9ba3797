//! Which target is probed next, and when.
//!
//! Every target is in one of three places: waiting for its time, waiting for a free slot of its
//! checker, or in flight. A probe in flight keeps a date, too: if no answer has come by then, it is
//! void and the target is due again, so that a lost answer cannot stop a target's checks for ever.
//! Everything with a date is in one ordered agenda; no step looks at all targets.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::TargetId;

#[derive(Debug, Default)]
pub(super) struct Schedule {
    entries: HashMap<TargetId, Entry>,
    /// Dates of all entries but the queued ones.
    agenda: BTreeSet<(Instant, TargetId)>,
    checkers: HashMap<Arc<str>, Checker>,
    /// The last serial given to a probe.
    serial: u64,
}

/// A target's membership in a checker.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) target: TargetId,
    pub(super) checker: String,
    pub(super) concurrency: u32,
}

#[derive(Debug)]
struct Entry {
    checker: Arc<str>,
    phase: Phase,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Due(Instant),
    /// Was due then, but all slots of the checker were taken.
    Queued(Instant),
    InFlight {
        serial: u64,
        started: Instant,
        void_at: Instant,
    },
}

#[derive(Debug)]
struct Checker {
    concurrency: u32,
    in_flight: u32,
    queue: BTreeSet<(Instant, TargetId)>,
}

impl Schedule {
    /// Replaces who is scheduled. Targets that stay keep their date or their probe in flight; new ones
    /// are due now; what is known of all others is gone.
    pub(super) fn arrange(&mut self, seats: Vec<Seat>, now: Instant) {
        let mut earlier = std::mem::take(&mut self.entries);
        self.agenda.clear();
        self.checkers.clear();
        for Seat {
            target,
            checker: name,
            concurrency,
        } in seats
        {
            let name: Arc<str> = name.into();
            let checker = self.checkers.entry(Arc::clone(&name)).or_insert(Checker {
                concurrency: u32::MAX,
                in_flight: 0,
                queue: BTreeSet::new(),
            });
            checker.concurrency = checker.concurrency.min(concurrency.max(1));
            let phase = match earlier.remove(&target).map(|entry| entry.phase) {
                None => Phase::Due(now),
                // Back to the agenda: the checker it is queued at may be another one now.
                Some(Phase::Due(at) | Phase::Queued(at)) => Phase::Due(at),
                Some(in_flight @ Phase::InFlight { .. }) => {
                    checker.in_flight += 1;
                    in_flight
                }
            };
            self.agenda.insert((phase.date(), target));
            self.entries.insert(
                target,
                Entry {
                    checker: name,
                    phase,
                },
            );
        }
    }

    /// Makes a target unknown, so that the next [`arrange`](Self::arrange) takes it for a new one.
    pub(super) fn forget(&mut self, target: TargetId) {
        self.entries.remove(&target);
    }

    /// Starts the probe that has been due longest, if one is due and may run. `patience` is how long
    /// its answer is waited for.
    pub(super) fn start(
        &mut self,
        now: Instant,
        patience: impl Fn(TargetId) -> Duration,
    ) -> Option<(TargetId, u64)> {
        while let Some(&(at, target)) = self.agenda.first()
            && at <= now
        {
            if let Phase::InFlight { .. } = self.entry(target).phase {
                // No answer came. Due again, but behind whoever has waited longer for the slot.
                self.release_slot(target);
                self.place(target, Phase::Due(at));
                continue;
            }
            let checker = self.checker(target);
            if checker.in_flight >= checker.concurrency {
                self.place(target, Phase::Queued(at));
                continue;
            }
            checker.in_flight += 1;
            self.serial += 1;
            let serial = self.serial;
            let void_at = later(now, patience(target).max(PAUSE_MIN));
            self.place(
                target,
                Phase::InFlight {
                    serial,
                    started: now,
                    void_at,
                },
            );
            return Some((target, serial));
        }
        None
    }

    /// Whether the probe with this serial is the one in flight for the target.
    pub(super) fn is_in_flight(&self, target: TargetId, serial: u64) -> bool {
        self.entries.get(&target).is_some_and(
            |entry| matches!(entry.phase, Phase::InFlight { serial: current, .. } if current == serial),
        )
    }

    /// When the probe in flight for the target began.
    pub(super) fn started(&self, target: TargetId) -> Option<Instant> {
        match self.entries.get(&target)?.phase {
            Phase::InFlight { started, .. } => Some(started),
            Phase::Due(_) | Phase::Queued(_) => None,
        }
    }

    /// Ends the probe in flight; the next is due one interval after this one started, or at once if
    /// that is past.
    pub(super) fn finish(&mut self, target: TargetId, interval: Duration) {
        if let Phase::InFlight { started, .. } = self.entry(target).phase {
            self.release_slot(target);
            self.place(target, Phase::Due(later(started, interval.max(PAUSE_MIN))));
        }
    }

    /// When [`start`](Self::start) may next have something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.agenda.first().map(|&(at, _)| at)
    }

    /// When a target is due, or was; `None` while a probe of it is in flight.
    pub(super) fn due(&self, target: TargetId) -> Option<Instant> {
        match self.entries.get(&target)?.phase {
            Phase::Due(at) | Phase::Queued(at) => Some(at),
            Phase::InFlight { .. } => None,
        }
    }

    /// Frees the slot of a target in flight for whoever is first in the queue.
    fn release_slot(&mut self, target: TargetId) {
        let checker = self.checker(target);
        checker.in_flight -= 1;
        if let Some((at, first)) = checker.queue.pop_first() {
            self.place(first, Phase::Due(at));
        }
    }

    fn place(&mut self, target: TargetId, phase: Phase) {
        let entry = self.entries.get_mut(&target).expect(SCHEDULED);
        self.agenda.remove(&(entry.phase.date(), target));
        entry.phase = phase;
        match phase {
            Phase::Queued(at) => {
                self.checker(target).queue.insert((at, target));
            }
            Phase::Due(_) | Phase::InFlight { .. } => {
                self.agenda.insert((phase.date(), target));
            }
        }
    }

    fn entry(&self, target: TargetId) -> &Entry {
        self.entries.get(&target).expect(SCHEDULED)
    }

    fn checker(&mut self, target: TargetId) -> &mut Checker {
        let entry = self.entries.get(&target).expect(SCHEDULED);
        self.checkers
            .get_mut(&entry.checker)
            .expect("`arrange` makes each seat's checker")
    }
}

impl Phase {
    fn date(self) -> Instant {
        match self {
            Self::Due(at) | Self::Queued(at) | Self::InFlight { void_at: at, .. } => at,
        }
    }
}

/// A point in time that exists, however long the wait: adding an absurd duration would panic.
pub(super) fn later(at: Instant, wait: Duration) -> Instant {
    at + wait.min(WAIT_MAX)
}

const SCHEDULED: &str = "agenda, queues and tickets only name targets that `arrange` has seated";

/// Between two probes of one target. Without pause, a policy of zeros would be due for ever.
const PAUSE_MIN: Duration = Duration::from_millis(10);

const WAIT_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
