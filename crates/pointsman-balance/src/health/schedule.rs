//! Which target is probed next, and when.
//!
//! Every target is in one of three places: waiting for its time, waiting for a free slot of its
//! checker, or in flight. A probe in flight keeps a date, too: if no answer has come by then, it is
//! void and the target is due again, so that a lost answer cannot stop a target's checks for ever.
//! Everything with a date is in one ordered agenda; no step looks at all targets.
//!
//! Whether an answer was in time is decided by the time at which it was known, not by who came first:
//! one known too late never counts, and one known in time counts also if its target was polled again
//! before it was handed in. Otherwise a busy owner would lose verdicts, and one that is always busy
//! would lose all of them.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::TargetId;

#[derive(Debug, Default)]
pub(super) struct Schedule {
    entries: HashMap<TargetId, Entry>,
    /// Dates of all entries but the queued ones.
    agenda: BTreeSet<(Instant, TargetId)>,
    checkers: Vec<Checker>,
    /// Where in `checkers` each is, by its name.
    places: HashMap<String, usize>,
    /// New ones that are not to be probed yet.
    held: Vec<TargetId>,
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
    /// Its place in `checkers`.
    checker: usize,
    phase: Phase,
    /// When its last probe was started.
    started: Option<Instant>,
    /// The last probe whose slot was taken back, until something newer is answered.
    overdue: Option<Flight>,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Due(Instant),
    /// Was due then, but all slots of the checker were taken.
    Queued(Instant),
    InFlight(Flight),
}

/// A probe that was started.
#[derive(Debug, Clone, Copy)]
struct Flight {
    serial: u64,
    started: Instant,
    void_at: Instant,
}

impl Flight {
    /// Whether an answer with this serial that was known then is an answer to this probe, and in time.
    fn takes(self, serial: u64, known: Instant) -> bool {
        self.serial == serial && known < self.void_at
    }
}

#[derive(Debug)]
struct Checker {
    concurrency: u32,
    in_flight: u32,
    queue: BTreeSet<(Instant, TargetId)>,
}

/// An answer that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answered {
    /// When its probe was started.
    pub(super) started: Instant,
    /// Whether that is the probe in flight, which is to be [finished](Schedule::finish).
    pub(super) holds_slot: bool,
}

impl Schedule {
    /// Replaces who is scheduled. Targets that stay keep their date or their probe in flight; new ones
    /// are due once they are [let go](Self::let_go); what is known of all others is gone.
    pub(super) fn arrange(&mut self, seats: Vec<Seat>, now: Instant) {
        let mut earlier = std::mem::take(&mut self.entries);
        self.agenda.clear();
        self.checkers.clear();
        self.places.clear();
        for Seat {
            target,
            checker: name,
            concurrency,
        } in seats
        {
            let place = self.seat_at(name, concurrency);
            let earlier = earlier.remove(&target);
            let overdue = earlier.as_ref().and_then(|entry| entry.overdue);
            let started = earlier.as_ref().and_then(|entry| entry.started);
            let phase = match earlier.map(|entry| entry.phase) {
                None => {
                    self.held.push(target);
                    Phase::Due(later(now, HELD))
                }
                // Back to the agenda: the checker it is queued at may be another one now.
                Some(Phase::Due(at) | Phase::Queued(at)) => Phase::Due(at),
                Some(in_flight @ Phase::InFlight(_)) => {
                    self.checkers[place].in_flight += 1;
                    in_flight
                }
            };
            self.agenda.insert((phase.date(), target));
            self.entries.insert(
                target,
                Entry {
                    checker: place,
                    phase,
                    started,
                    overdue,
                },
            );
        }
    }

    /// Makes those due now that came with the last arrangements.
    pub(super) fn let_go(&mut self, now: Instant) {
        for target in std::mem::take(&mut self.held) {
            if let Some(entry) = self.entries.get_mut(&target)
                && let Phase::Due(at) = entry.phase
            {
                self.agenda.remove(&(at, target));
                entry.phase = Phase::Due(now);
                self.agenda.insert((now, target));
            }
        }
    }

    /// The name of the checker that a target belongs to, by target.
    pub(super) fn checkers(&self) -> impl Fn(TargetId) -> Option<String> {
        let places = self.places.iter();
        let names: HashMap<usize, &String> = places.map(|(name, &place)| (place, name)).collect();
        move |target| {
            let entry = self.entries.get(&target)?;
            names.get(&entry.checker).map(|name| (*name).clone())
        }
    }

    /// Makes a target unknown, so that the next [`arrange`](Self::arrange) takes it for a new one.
    pub(super) fn forget(&mut self, target: TargetId) {
        self.entries.remove(&target);
    }

    /// Schedules one more target, due now.
    pub(super) fn add(&mut self, seat: Seat, now: Instant) {
        let place = self.seat_at(seat.checker, seat.concurrency);
        self.agenda.insert((now, seat.target));
        let entry = Entry {
            checker: place,
            phase: Phase::Due(now),
            started: None,
            overdue: None,
        };
        self.entries.insert(seat.target, entry);
    }

    /// The place of the checker of this name, which gets one more member, with this concurrency.
    fn seat_at(&mut self, name: String, concurrency: u32) -> usize {
        let next = self.checkers.len();
        let place = *self.places.entry(name).or_insert(next);
        if place == next {
            self.checkers.push(Checker {
                concurrency: u32::MAX,
                in_flight: 0,
                queue: BTreeSet::new(),
            });
        }
        let checker = &mut self.checkers[place];
        checker.concurrency = checker.concurrency.min(concurrency.max(1));
        place
    }

    /// Schedules a target no longer; its probe in flight is void, and its slot is free.
    pub(super) fn remove(&mut self, target: TargetId) {
        let Some(entry) = self.entries.get(&target) else {
            return;
        };
        let phase = entry.phase;
        self.agenda.remove(&(phase.date(), target));
        match phase {
            // It may have been called from the queue, and leaves its turn to the next.
            Phase::Due(_) => self.call_next(target),
            Phase::Queued(at) => {
                self.checker(target).queue.remove(&(at, target));
            }
            Phase::InFlight { .. } => self.release_slot(target),
        }
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
            if let Phase::InFlight(flight) = self.entry(target).phase {
                // No answer came. Due again, but behind whoever has waited longer for the slot.
                self.entry_mut(target).overdue = Some(flight);
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
            let flight = Flight {
                serial,
                started: now,
                void_at,
            };
            self.place(target, Phase::InFlight(flight));
            self.entry_mut(target).started = Some(now);
            return Some((target, serial));
        }
        None
    }

    /// Takes the answer to the probe with this serial, known at `known`; returns when that probe was
    /// started. `None`: the answer does not count, because it was known too late, or is not about the
    /// probe in flight or the one before it, or something newer was answered already.
    pub(super) fn answer(
        &mut self,
        target: TargetId,
        serial: u64,
        known: Instant,
    ) -> Option<Answered> {
        let entry = self.entries.get_mut(&target)?;
        if let Phase::InFlight(flight) = entry.phase
            && flight.takes(serial, known)
        {
            entry.overdue = None;
            return Some(Answered {
                started: flight.started,
                holds_slot: true,
            });
        }
        let overdue = entry
            .overdue
            .take_if(|flight| flight.takes(serial, known))?;
        Some(Answered {
            started: overdue.started,
            holds_slot: false,
        })
    }

    /// Ends the probe in flight; the next is due one interval after this one started, or at once if
    /// that is past.
    pub(super) fn finish(&mut self, target: TargetId, interval: Duration) {
        if let Phase::InFlight(Flight { started, .. }) = self.entry(target).phase {
            self.release_slot(target);
            self.place(target, Phase::Due(later(started, interval.max(PAUSE_MIN))));
        }
    }

    /// Brings the next probe forward to one `interval` after the last one started, or to `now` if that is
    /// past, if it would be later: for targets whose verdict was changed by something else than a probe.
    pub(super) fn hasten(&mut self, target: TargetId, interval: Duration, now: Instant) {
        let Some(entry) = self.entries.get(&target) else {
            return;
        };
        if let (Phase::Due(at), Some(started)) = (entry.phase, entry.started) {
            let sooner = later(started, interval.max(PAUSE_MIN)).max(now);
            if sooner < at {
                self.place(target, Phase::Due(sooner));
            }
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
        self.checker(target).in_flight -= 1;
        self.call_next(target);
    }

    /// Calls whoever is first in the queue of a target's checker, if that has a free slot. Who is called in
    /// vain queues again.
    fn call_next(&mut self, target: TargetId) {
        let checker = self.checker(target);
        if checker.in_flight < checker.concurrency
            && let Some((at, first)) = checker.queue.pop_first()
        {
            self.place(first, Phase::Due(at));
        }
    }

    fn place(&mut self, target: TargetId, phase: Phase) {
        let date = self.entry(target).phase.date();
        self.agenda.remove(&(date, target));
        self.entry_mut(target).phase = phase;
        match phase {
            Phase::Queued(at) => {
                self.checker(target).queue.insert((at, target));
            }
            Phase::Due(_) | Phase::InFlight(_) => {
                self.agenda.insert((phase.date(), target));
            }
        }
    }

    fn entry(&self, target: TargetId) -> &Entry {
        self.entries.get(&target).expect(SCHEDULED)
    }

    fn entry_mut(&mut self, target: TargetId) -> &mut Entry {
        self.entries.get_mut(&target).expect(SCHEDULED)
    }

    fn checker(&mut self, target: TargetId) -> &mut Checker {
        let place = self.entry(target).checker;
        &mut self.checkers[place]
    }
}

impl Phase {
    fn date(self) -> Instant {
        match self {
            Self::Due(at) | Self::Queued(at) => at,
            Self::InFlight(flight) => flight.void_at,
        }
    }
}

/// A point in time that exists, however long the wait: adding an absurd duration would panic.
pub(super) fn later(at: Instant, wait: Duration) -> Instant {
    at + wait.min(WAIT_MAX)
}

const SCHEDULED: &str = "agenda, queues and tickets only name targets that `arrange` has seated";

/// How long new targets wait, unless they are let go before.
const HELD: Duration = WAIT_MAX;

/// Between two probes of one target. Without pause, a policy of zeros would be due for ever.
const PAUSE_MIN: Duration = Duration::from_millis(10);

const WAIT_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
