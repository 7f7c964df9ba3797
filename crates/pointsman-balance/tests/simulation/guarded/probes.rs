//! Probes among guards, names and traffic: whatever traffic and answers say of one target, in whatever
//! order they are handed in, it is counted as the table says, and news goes before what is old.

use std::collections::BTreeMap;
use std::time::Duration;

use pointsman_balance::{Limits, Policy, TargetId, Ticket};

use super::{Life, Probed, site_of};
use crate::model::{NAMES, Place, SITES, is_up};
use crate::table::{self, Event, State};
use crate::world::Fate;

/// A probe that is not answered yet.
pub(super) struct Open {
    of: Probed,
    number: u64,
    started: u64,
    /// Counted from its start.
    fate: Fate,
    ticket: Ticket,
}

impl Open {
    const fn reported(&self) -> u64 {
        self.started + self.fate.reported_ms
    }
}

/// What there is to know of the probes of one target while it is watched.
#[derive(Default)]
pub(super) struct Slot {
    /// When the latest one began.
    started: Option<u64>,
    /// Its number, until it is answered.
    current: Option<u64>,
    /// The one before, which nobody answered in time to be asked for: it may have been known in time.
    overdue: Option<u64>,
    /// When something last spoke against the target.
    failed_at: Option<u64>,
}

/// All that is watched.
pub(super) type Slots = BTreeMap<Probed, Slot>;

impl Life {
    /// All probes that are due begin, and all that were answered are handed in, unless the prober sleeps.
    pub(super) fn probe(&mut self) {
        if self.luck.one_in(12) {
            let (site, mode) = self.world.change(&mut self.luck);
            self.note("sites that changed", || format!("{site} now {mode:?}"));
        }
        if !self.luck.one_in(3) {
            self.begin_probes();
        }
        if !self.luck.one_in(3) {
            while let Some(probe) = self.first_reported() {
                self.answer(probe);
            }
        }
    }

    fn first_reported(&mut self) -> Option<Open> {
        let reported = self.open_probes.iter().enumerate();
        let reported = reported.map(|(at, probe)| (probe.reported(), at));
        let (_, first) = reported.filter(|&(when, _)| when <= self.now).min()?;
        Some(self.open_probes.swap_remove(first))
    }

    fn begin_probes(&mut self) {
        while let Some(probe) = self.monitor.poll_probe(self.at(self.now)) {
            let of = probe.probe;
            assert_eq!(probe.answer_within, Duration::from_millis(PATIENCE));
            assert!(self.model.watches(of.0, of.1), "{of:?} is not watched");
            let (now, number) = (self.now, self.probes_begun);
            self.probes_begun += 1;
            let slot = self.slots.entry(of).or_default();
            if let (Some(_), Some(started)) = (slot.current, slot.started) {
                assert!(started + PATIENCE <= now, "two at a time for {of:?}");
            }
            slot.overdue = slot.current.replace(number).or(slot.overdue);
            slot.started = Some(now);
            let (policy, site) = (&self.policy, site_of(of));
            let fate = self.world.probe(site, policy, PATIENCE, &mut self.luck);
            self.note("probes", || format!("{number} of {of:?}: {fate:?}"));
            match fate {
                Some(fate) => self.open_probes.push(Open {
                    of,
                    number,
                    started: now,
                    fate,
                    ticket: probe.ticket,
                }),
                None => self.note("answers that were lost", String::new),
            }
        }
        // Whoever is void and found no probe to be had is due, and waits.
        for slot in self.slots.values_mut() {
            let is_void = slot.started.is_some_and(|at| at + PATIENCE <= self.now);
            if let Some(void) = slot.current.take_if(|_| is_void) {
                slot.overdue = Some(void);
            }
        }
        self.check_that_all_are_probed();
    }

    /// I-16: whoever is due is being probed, as far as there are probes to be had at once.
    fn check_that_all_are_probed(&self) {
        let under_way = self.slots.values().filter(|slot| slot.current.is_some());
        if under_way.count() >= CONCURRENCY as usize {
            return;
        }
        for of in self.watched() {
            let slot = self.slots.get(&of);
            let is_probed = slot.is_some_and(|slot| {
                let is_early = |started| started + INTERVAL > self.now;
                slot.current.is_some() || slot.started.is_some_and(is_early)
            });
            assert!(is_probed, "{of:?} is due and nobody probes it");
        }
    }

    fn watched(&self) -> impl Iterator<Item = Probed> {
        let sites = (0..SITES).map(|site| (Place::Site(site), 0));
        let names = (0..NAMES).flat_map(|name| {
            let lasts = self.model.names[name].keys();
            lasts.map(move |last| (Place::Name(name), 1 + last))
        });
        sites.chain(names)
    }

    /// One answer, which may have been known for a while.
    fn answer(&mut self, probe: Open) {
        let Open {
            of,
            number,
            started,
            fate,
            ticket,
        } = probe;
        let (outcome, known) = (fate.outcome, started + fate.known_ms);
        self.note("answers", || {
            format!("{number} of {of:?}, known at {known}: {outcome:?}")
        });
        let _ = self.monitor.on_probe(ticket, outcome, self.at(known));
        let Some(slot) = self.slots.get_mut(&of) else {
            self.note("answers about what is gone", String::new);
            return;
        };
        let is_current = slot.current == Some(number);
        let counts = is_current || slot.overdue == Some(number);
        if !counts || known >= started + PATIENCE {
            self.note("answers that came too late", String::new);
            return;
        }
        slot.overdue = None;
        if is_current {
            slot.current = None;
        }
        let policy = &self.policy;
        let event = table::event(
            outcome,
            &policy.healthy_statuses,
            &policy.unhealthy_statuses,
        );
        let limits = Limits {
            successes: policy.successes,
            http_failures: policy.http_failures,
            tcp_failures: policy.tcp_failures,
            timeouts: policy.timeouts,
        };
        self.learn(of, event, &limits, started, known);
    }

    /// What began then and was known at that time speaks for a target, or against it.
    pub(super) fn learn(
        &mut self,
        of: Probed,
        event: Option<Event>,
        limits: &Limits,
        began: u64,
        known: u64,
    ) {
        let Some(event) = event else { return };
        let slot = self.slots.entry(of).or_default();
        if event == Event::Success && slot.failed_at.is_some_and(|failed| began < failed) {
            self.note("successes that were old news", String::new);
            return;
        }
        if let Event::Failure(_) = event {
            slot.failed_at = slot.failed_at.max(Some(known));
        }
        let state = self.model.state(of.0, of.1);
        let before = *state;
        *state = before.after(event, limits);
        let flips = is_up(&before) != is_up(state);
        if flips {
            self.note("flips", || format!("{of:?}"));
        }
    }

    /// Targets that a name has no more are forgotten, with all probes under way.
    pub(super) fn forget_probes(&mut self) {
        let model = &self.model;
        self.slots.retain(|of, _| model.watches(of.0, of.1));
    }

    /// Each target has the state and the verdict that it ought to.
    pub(super) fn compare_targets(&self) {
        for (site, &target) in self.sites.iter().enumerate() {
            self.compare_target(target, self.model.sites[site], (Place::Site(site), 0));
        }
        for (name, known) in self.model.names.iter().enumerate() {
            for (&last, &state) in known {
                let target = self.address(name, last);
                self.compare_target(target, state, (Place::Name(name), 1 + last));
            }
        }
    }

    fn compare_target(&self, target: TargetId, expected: State, of: Probed) {
        let report = self.monitor.report(target).expect("it is watched");
        let counters = report.counters;
        let state = State {
            status: report.status,
            counters: [
                counters.success,
                counters.http_failure,
                counters.tcp_failure,
                counters.timeout_failure,
            ],
        };
        assert_eq!(state, expected, "{of:?}");
        let usable = self.monitor.availability().usable(target);
        assert_eq!(usable, is_up(&expected), "{of:?}");
    }
}

/// There are many probes in a life.
pub(super) fn policy(limits: Limits) -> Policy {
    Policy {
        healthy_interval: Duration::from_millis(INTERVAL),
        unhealthy_interval: Duration::from_millis(INTERVAL),
        timeout: Duration::from_millis(TIMEOUT),
        successes: limits.successes,
        http_failures: limits.http_failures,
        tcp_failures: limits.tcp_failures,
        timeouts: limits.timeouts,
        concurrency: CONCURRENCY,
        ..Policy::default()
    }
}

/// Between probes, in milliseconds.
const INTERVAL: u64 = 20;
const TIMEOUT: u64 = 10;
/// Three timeouts and one interval.
const PATIENCE: u64 = 3 * TIMEOUT + INTERVAL;
/// Less than there may be targets.
const CONCURRENCY: u32 = 8;
