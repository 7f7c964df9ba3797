//! What must be known about every target, worked out from the events alone, and what must be probed.
//!
//! An entry is one target in one definition: it begins when a configuration asks for it and ends when
//! none does, or when another definition takes its place. What the monitor says is compared with it
//! after each event, and nothing of the monitor's is used to work it out but the ids that it gives.

use std::collections::{BTreeMap, BTreeSet};

use pointsman_balance::{Change, Limits, Monitor, Passive, Policy, Probe, ProbeOutcome, TargetId};

use crate::plan::{Check, Lineage, Probed};
use crate::table::{State, event, usable};

pub(crate) struct Ledger {
    policies: Vec<Policy>,
    entries: Vec<Entry>,
    /// By id, the entry it stands for, or last stood for.
    by_id: Vec<usize>,
    /// Who asked for which entry in the last configuration.
    asked: BTreeMap<Lineage, usize>,
    pub(crate) epoch: u64,
    /// How late the prober may be.
    lag: u64,
    starts: u64,
    pub(crate) seen: Seen,
}

/// What has happened at all, so that a simulation in which nothing does cannot pass for a proof.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) flips: u64,
    pub(crate) late: u64,
    pub(crate) stale: u64,
    pub(crate) overdue: u64,
    pub(crate) carried: u64,
    pub(crate) shared: u64,
    pub(crate) old_news: u64,
}

/// What a configuration asked for, and the target that each wish was given.
pub(crate) struct Given<'a> {
    pub(crate) wishes: &'a [(Check, Lineage)],
    pub(crate) ids: &'a [TargetId],
}

struct Entry {
    check: Check,
    id: TargetId,
    state: State,
    failed_at: Option<u64>,
    watched: bool,
    checker: u32,
    /// When its next probe must start, if its checker has a slot; of one in flight, when it is void.
    due: u64,
    /// When the last probe was started.
    started: Option<u64>,
    flight: Option<Flight>,
    overdue: Option<Flight>,
    /// When its last probe was started, or else when it was added.
    idle_since: u64,
    /// Whether it may have had to wait for a slot since.
    crowded: bool,
}

#[derive(Debug, Clone, Copy)]
struct Flight {
    number: u64,
    started: u64,
    void_at: u64,
}

/// Which probe was started, to answer it later.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Started {
    entry: usize,
    number: u64,
}

impl Ledger {
    pub(crate) fn new(policies: Vec<Policy>, lag: u64) -> Self {
        Self {
            policies,
            entries: Vec::new(),
            by_id: Vec::new(),
            asked: BTreeMap::new(),
            epoch: 0,
            lag,
            starts: 0,
            seen: Seen::default(),
        }
    }

    /// By id, who may be picked: what was last known of those that are gone.
    pub(crate) fn verdicts(&self) -> Vec<bool> {
        (self.by_id.iter())
            .map(|&entry| usable(self.entries[entry].state.status))
            .collect()
    }

    /// A configuration asks for wishes and was given ids.
    pub(crate) fn reconciled(&mut self, given: &Given<'_>, now: u64) {
        let &Given { wishes, ids } = given;
        assert_eq!(wishes.len(), ids.len());
        let before = (self.watched_ids(), self.verdicts());
        let mut asked = BTreeMap::new();
        let mut meaning: BTreeMap<TargetId, Check> = BTreeMap::new();
        let mut current: Vec<usize> = Vec::new();
        for (&(check, lineage), &id) in wishes.iter().zip(ids) {
            // I-10: equal definitions are one target, different ones are not.
            assert_eq!(*meaning.entry(id).or_insert(check), check, "{id:?} is two");
            let same = |&&entry: &&usize| self.entries[entry].check == check;
            let entry = match current.iter().find(same) {
                Some(&entry) => {
                    self.seen.shared += 1;
                    entry
                }
                None => {
                    let entry = self.kept_or_new(given, (check, lineage), id, now);
                    current.push(entry);
                    entry
                }
            };
            assert_eq!(self.entries[entry].id, id, "{check:?} has two ids");
            asked.insert(lineage, entry);
        }
        for (number, entry) in self.entries.iter_mut().enumerate() {
            entry.watched = current.contains(&number);
        }
        for &entry in &current {
            let index = self.entries[entry].id.index();
            self.by_id.resize(self.by_id.len().max(index + 1), entry);
            self.by_id[index] = entry;
        }
        self.asked = asked;
        self.note_crowds();
        // I-19: the epoch grows iff a verdict flips or membership changes.
        let flipped = before.1.iter().zip(self.verdicts()).any(|(a, b)| *a != b);
        self.epoch += u64::from(flipped || before.0 != self.watched_ids());
    }

    fn kept_or_new(
        &mut self,
        given: &Given<'_>,
        (check, lineage): (Check, Lineage),
        id: TargetId,
        now: u64,
    ) -> usize {
        let (wishes, checker) = (given.wishes, lineage.0);
        let same = |entry: &Entry| entry.watched && entry.check == check;
        if let Some(kept) = self.entries.iter().position(same) {
            self.entries[kept].checker = checker;
            return kept;
        }
        let wanted = |entry: &usize| {
            let check = self.entries[*entry].check;
            wishes.iter().any(|wish| wish.0 == check)
        };
        let ancestors: BTreeSet<usize> = (wishes.iter())
            .filter(|wish| wish.0 == check)
            .filter_map(|wish| self.asked.get(&wish.1).copied())
            .collect();
        // D-4: the verdict of what it takes the place of; of several, the bad news. Nothing else.
        let usable = (ancestors.iter()).all(|&old| usable(self.entries[old].state.status));
        self.seen.carried += u64::from(!usable);
        // I-6: an id goes on to what takes its target's place, or has never been seen before.
        match self.by_id.get(id.index()) {
            Some(old) => assert!(
                ancestors.contains(old) && !wanted(old),
                "{id:?} was given to {check:?}, which is something else"
            ),
            None => {
                let is_new = self.entries.iter().all(|entry| entry.id < id);
                assert!(is_new, "{id:?} is not new");
                let in_use = |&old: &usize| given.ids.contains(&self.entries[old].id);
                assert!(ancestors.iter().all(in_use), "{check:?} lost its id");
            }
        }
        self.entries.push(Entry {
            check,
            id,
            state: State::begin(usable),
            failed_at: None,
            watched: false,
            checker,
            due: now,
            started: None,
            flight: None,
            overdue: None,
            idle_since: now,
            crowded: false,
        });
        self.entries.len() - 1
    }

    /// The monitor has started a probe.
    pub(crate) fn started(&mut self, probe: &Probe<Probed>, now: u64) -> Started {
        let index = self.by_id[probe.ticket.target().index()];
        let entry = &self.entries[index];
        let policy = &self.policies[entry.check.policy];
        // I-17: only what is watched, and as it is defined now.
        assert!(entry.watched, "an orphan probe of {:?}", entry.check);
        assert_eq!(
            (probe.probe, probe.timeout),
            (entry.check.probed, policy.timeout)
        );
        assert_eq!(probe.answer_within.as_millis() as u64, self.patience(entry));
        assert!(
            entry.due <= now,
            "{:?} is due at {}",
            entry.check,
            entry.due
        );
        assert!(!is_out(entry, now), "two at a time for {:?}", entry.check);
        assert!(
            self.has_slot(entry.checker, now),
            "too many in {}",
            entry.checker
        );
        // Nobody who could be probed as well has waited longer.
        let peers = self.watched().filter(|peer| peer.checker == entry.checker);
        let oldest = peers
            .filter(|peer| !is_out(peer, now))
            .map(|peer| peer.due)
            .min();
        assert_eq!(
            oldest,
            Some(entry.due),
            "{:?} jumped the queue",
            entry.check
        );
        // I-16, said once more as a bound: interval, timeouts, and how late the prober was.
        if !entry.crowded {
            let interval = policy.healthy_interval.max(policy.unhealthy_interval);
            let bound = (interval + 3 * policy.timeout).as_millis() as u64 + self.lag;
            let gap = now - entry.idle_since;
            assert!(gap <= bound, "{:?} had no probe for {gap} ms", entry.check);
        }
        self.starts += 1;
        let void_at = now + self.patience(entry);
        let entry = &mut self.entries[index];
        entry.overdue = entry.flight.take().or(entry.overdue);
        entry.flight = Some(Flight {
            number: self.starts,
            started: now,
            void_at,
        });
        (entry.due, entry.idle_since) = (void_at, now);
        entry.started = Some(now);
        entry.crowded = false;
        self.note_crowd(index);
        Started {
            entry: index,
            number: self.starts,
        }
    }

    /// The prober has polled until nothing was due, and was told to come back at `deadline`.
    pub(crate) fn polled(&mut self, now: u64, deadline: Option<u64>) {
        for entry in self.entries.iter_mut().filter(|entry| entry.watched) {
            if let Some(flight) = entry.flight.take_if(|flight| flight.void_at <= now) {
                (entry.overdue, entry.due) = (Some(flight), flight.void_at);
            }
        }
        for entry in self.watched() {
            // I-16: whatever is due and has a slot has been started.
            assert!(
                entry.due > now || !self.has_slot(entry.checker, now),
                "{:?} is due since {} and was not probed",
                entry.check,
                entry.due
            );
        }
        let next = self
            .watched()
            .map(|entry| entry.due)
            .filter(|&due| due > now);
        assert_eq!(deadline, next.min(), "to come back");
    }

    /// An answer known at `known` is handed in. What must come of it, as (from, to).
    pub(crate) fn answered(
        &mut self,
        probe: Started,
        outcome: ProbeOutcome,
        known: u64,
    ) -> Option<Change> {
        let entry = &mut self.entries[probe.entry];
        // I-14: an answer counts iff its target is watched as it was defined then, it was known in
        // time, and nothing newer was answered.
        let is_it = |flight: &Flight| entry.watched && flight.number == probe.number;
        let in_flight = entry.flight.filter(is_it);
        let Some(flight) = in_flight.or_else(|| entry.overdue.filter(is_it)) else {
            self.seen.stale += 1;
            return None;
        };
        if known >= flight.void_at {
            self.seen.late += 1;
            return None;
        }
        entry.overdue = None;
        let policy = &self.policies[entry.check.policy];
        let limits = Limits {
            successes: policy.successes,
            http_failures: policy.http_failures,
            tcp_failures: policy.tcp_failures,
            timeouts: policy.timeouts,
        };
        let event = event(
            outcome,
            &policy.healthy_statuses,
            &policy.unhealthy_statuses,
        );
        let change = self.apply(probe.entry, event, &limits, flight.started, known);
        let policy = &self.policies[self.entries[probe.entry].check.policy];
        let entry = &mut self.entries[probe.entry];
        if in_flight.is_some() {
            let interval = if usable(entry.state.status) {
                policy.healthy_interval
            } else {
                policy.unhealthy_interval
            };
            entry.flight = None;
            entry.due = flight.started + interval.as_millis() as u64;
        } else {
            self.seen.overdue += 1;
        }
        change
    }

    /// A request that began at `began` has met `outcome`.
    pub(crate) fn met(
        &mut self,
        id: TargetId,
        outcome: ProbeOutcome,
        passive: &Passive,
        began: u64,
        now: u64,
    ) -> Option<Change> {
        let entry = self.by_id[id.index()];
        let event = event(
            outcome,
            &passive.healthy_statuses,
            &passive.unhealthy_statuses,
        )?;
        if !self.entries[entry].watched {
            return None;
        }
        let change = self.apply(entry, Some(event), &passive.limits, began, now);
        self.hasten(entry, change.as_ref(), now);
        change
    }

    /// I-16: what is out is probed as that, whoever took it out.
    fn hasten(&mut self, index: usize, change: Option<&Change>, now: u64) {
        let entry = &self.entries[index];
        let (Some(started), None) = (entry.started, entry.flight) else {
            return;
        };
        if change.is_none_or(|change| !change.usable_changed) || entry.due <= now {
            return;
        }
        let policy = &self.policies[entry.check.policy];
        let interval = if usable(entry.state.status) {
            policy.healthy_interval
        } else {
            policy.unhealthy_interval
        };
        let sooner = now.max(started + interval.as_millis() as u64);
        self.entries[index].due = self.entries[index].due.min(sooner);
    }

    fn apply(
        &mut self,
        index: usize,
        event: Option<crate::table::Event>,
        limits: &Limits,
        began: u64,
        now: u64,
    ) -> Option<Change> {
        use crate::table::Event;
        let entry = &mut self.entries[index];
        let before = entry.state;
        match event {
            // A success is evidence only if it began after the latest failure.
            Some(Event::Success) if entry.failed_at.is_some_and(|failed| began < failed) => {
                self.seen.old_news += 1;
            }
            Some(event) => entry.state = before.after(event, limits),
            None => {}
        }
        if let Some(Event::Failure(_)) = event {
            entry.failed_at = entry.failed_at.max(Some(now));
        }
        let (from, to) = (before.status, entry.state.status);
        let usable_changed = usable(from) != usable(to);
        self.epoch += u64::from(usable_changed);
        self.seen.flips += u64::from(usable_changed);
        (from != to).then_some(Change {
            target: entry.id,
            from,
            to,
            usable_changed,
        })
    }

    /// I-9, I-10, I-14, I-18, I-19: what the monitor says is what it must be.
    pub(crate) fn compare(&self, monitor: &Monitor<Probed>) {
        let availability = monitor.availability();
        assert_eq!(availability.epoch(), self.epoch, "epoch");
        for (index, &entry) in self.by_id.iter().enumerate() {
            let entry = &self.entries[entry];
            assert_eq!(entry.id.index(), index);
            let verdict = availability.usable(entry.id);
            assert_eq!(verdict, usable(entry.state.status), "{:?}", entry.check);
            let report = monitor.report(entry.id);
            let state = report.map(|report| State {
                status: report.status,
                counters: [
                    report.counters.success,
                    report.counters.http_failure,
                    report.counters.tcp_failure,
                    report.counters.timeout_failure,
                ],
            });
            let expected = entry.watched.then_some(entry.state);
            assert_eq!(state, expected, "{:?}", entry.check);
        }
    }

    fn watched(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.watched)
    }

    fn watched_ids(&self) -> BTreeSet<TargetId> {
        self.watched().map(|entry| entry.id).collect()
    }

    fn patience(&self, entry: &Entry) -> u64 {
        let policy = &self.policies[entry.check.policy];
        let interval = if usable(entry.state.status) {
            policy.healthy_interval
        } else {
            policy.unhealthy_interval
        };
        (interval + 3 * policy.timeout).as_millis() as u64
    }

    fn slots(&self, checker: u32) -> usize {
        let members = self.watched().filter(|entry| entry.checker == checker);
        let limits = members.map(|entry| self.policies[entry.check.policy].concurrency.max(1));
        limits.min().unwrap_or(1) as usize
    }

    fn has_slot(&self, checker: u32, now: u64) -> bool {
        let members = self.watched().filter(|entry| entry.checker == checker);
        members.filter(|entry| is_out(entry, now)).count() < self.slots(checker)
    }

    fn note_crowds(&mut self) {
        for entry in 0..self.entries.len() {
            self.note_crowd(entry);
        }
    }

    fn note_crowd(&mut self, index: usize) {
        let checker = self.entries[index].checker;
        if self.entries[index].watched {
            let members = self.watched().filter(|entry| entry.checker == checker);
            self.entries[index].crowded |= members.count() > self.slots(checker);
        }
    }
}

/// Whether a probe is under way that is not void.
fn is_out(entry: &Entry, now: u64) -> bool {
    entry.flight.is_some_and(|flight| flight.void_at > now)
}
