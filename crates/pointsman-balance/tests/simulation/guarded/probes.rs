//! Probes among guards, names and traffic: whatever traffic and an answer say of one target, in whatever
//! order they are handed in, the newest evidence decides.

use std::collections::BTreeMap;
use std::time::Duration;

use pointsman_balance::{Policy, ProbeOutcome, Ticket};

use super::{Life, Probed, ip};
use crate::model::{NAMES, Place, SITES};

/// A probe that is not answered yet.
pub(super) struct Open {
    of: Probed,
    number: u64,
    started: u64,
    ticket: Ticket,
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
    /// All probes that are due begin, unless the prober sleeps; some are answered.
    pub(super) fn probe(&mut self) {
        if !self.luck.one_in(3) {
            self.begin_probes();
        }
        for _ in 0..self.luck.range(0, 3) {
            self.answer();
        }
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
            slot.overdue = slot.current.replace(number);
            slot.started = Some(now);
            self.open_probes.push(Open {
                of,
                number,
                started: now,
                ticket: probe.ticket,
            });
            self.note("probes", || format!("{number} of {of:?}"));
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
    fn answer(&mut self) {
        if self.open_probes.is_empty() {
            return;
        }
        let at = self.luck.index(self.open_probes.len());
        let probe = self.open_probes.swap_remove(at);
        let late = self.luck.choose(&[0, 0, 5, 15]);
        let known = self.now.saturating_sub(late).max(probe.started);
        let outcome = self.luck.choose(&[
            ProbeOutcome::TcpOk,
            ProbeOutcome::TcpOk,
            ProbeOutcome::TcpFailure,
            ProbeOutcome::Timeout,
            // Neither good nor bad.
            ProbeOutcome::Status(418),
        ]);
        let (of, number, started) = (probe.of, probe.number, probe.started);
        self.note("answers", || {
            format!("{number} of {of:?}, known at {known}: {outcome:?}")
        });
        let _ = self.monitor.on_probe(probe.ticket, outcome, self.at(known));
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
        match outcome {
            ProbeOutcome::Status(_) => {}
            outcome => self.learn(of, outcome == ProbeOutcome::TcpOk, started, known),
        }
    }

    /// What began then and was known at that time says that a target is up, or down.
    pub(super) fn learn(&mut self, of: Probed, up: bool, began: u64, known: u64) {
        let slot = self.slots.entry(of).or_default();
        if up && slot.failed_at.is_some_and(|failed| began < failed) {
            self.note("successes that were old news", String::new);
            return;
        }
        if !up {
            slot.failed_at = slot.failed_at.max(Some(known));
        }
        match of {
            (Place::Site(site), _) => self.model.sites[site] = up,
            (Place::Name(name), last) => drop(self.model.names[name].insert(last - 1, up)),
            (Place::Anywhere, _) => unreachable!("nobody checks it"),
        }
    }

    /// Targets that a name has no more are forgotten, with all probes under way.
    pub(super) fn forget_probes(&mut self) {
        let model = &self.model;
        self.slots.retain(|of, _| model.watches(of.0, of.1));
    }

    /// Each target has the verdict that it ought to.
    pub(super) fn compare_targets(&self) {
        let availability = self.monitor.availability();
        for (site, &target) in self.sites.iter().enumerate() {
            let up = self.model.sites[site];
            assert_eq!(availability.usable(target), up, "site {site}");
        }
        for (name, &group) in self.groups.iter().enumerate() {
            let addresses = availability.addresses(group);
            for (&last, &up) in &self.model.names[name] {
                let found = addresses.iter().find(|one| one.ip == Some(ip(last)));
                let target = found.and_then(|one| one.target).expect("it is listed");
                assert_eq!(availability.usable(target), up, "{last} of name {name}");
            }
        }
    }
}

/// One outcome decides, and there are many in a life.
pub(super) fn policy() -> Policy {
    Policy {
        healthy_interval: Duration::from_millis(INTERVAL),
        unhealthy_interval: Duration::from_millis(INTERVAL),
        timeout: Duration::from_millis(TIMEOUT),
        successes: 1,
        http_failures: 1,
        tcp_failures: 1,
        timeouts: 1,
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
