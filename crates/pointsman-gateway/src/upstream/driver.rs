//! The owner of the health state: what is due, what a probe said, what everybody may know.
//!
//! Not a task but what tasks call. The program runs one loop, on a thread that does nothing else: it
//! asks for probes that are due, performs them, hands the results in, and sleeps until the next
//! deadline. A verdict is public as soon as the call that brought the result returns. Whoever changes
//! configuration, or looks, holds the health for moments only.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use pointsman_balance::{
    Availability, Change, Gate, GuardReport, GuardSpec, Kept, Monitor, Policy, Probe, ProbeOutcome,
    Report, Tally, TargetId, Ticket, WantedGroup,
};

use crate::{
    config::snapshot::Snapshot,
    gateway::State,
    observe::metrics::SERIES_MAX,
    upstream::{
        evidence::Evidence,
        health::{Checker, Planned, ProbeSpec, ReportName},
        overview::{self, Overview},
        resolve::{Names, is_name},
    },
};

/// The health of a process, for several threads.
///
/// Verdicts wait for whoever has locked it: take it for a moment, copy what is needed, and do the rest
/// without it. Verdicts are published only while it is locked, so that none is overtaken by an older one.
#[derive(Default)]
pub struct SharedHealth(Mutex<Health>);

impl SharedHealth {
    /// No targets yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// It, once nobody else has it. What it has to tell is told after it is free again.
    pub fn lock(&self) -> Locked<'_> {
        // A thread that ended in a panic ends the program, which still writes down what is known.
        Locked(Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// A copy of all that is known.
    pub fn overview(&self) -> Overview {
        self.lock().overview()
    }

    /// It, unless somebody has it.
    pub fn try_lock(&self) -> Option<Locked<'_>> {
        Some(Locked(Some(self.0.try_lock().ok()?)))
    }
}

/// The health, as long as this is kept.
pub struct Locked<'a>(Option<MutexGuard<'a, Health>>);

impl Deref for Locked<'_> {
    type Target = Health;

    fn deref(&self) -> &Health {
        self.0.as_deref().expect(KEPT)
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Health {
        self.0.as_deref_mut().expect(KEPT)
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let Some(mut health) = self.0.take() else {
            return;
        };
        let lines = std::mem::take(&mut health.lines);
        drop(health);
        // A log may be slow, or stuck: verdicts do not wait for it.
        for line in lines {
            line();
        }
    }
}

const KEPT: &str = "only dropping it gives the lock back";

/// All targets that are checked, wherever they are configured.
#[derive(Default)]
pub struct Health {
    pub(super) monitor: Monitor<Arc<ProbeSpec>>,
    /// Whose traffic each target decides about, for the log.
    users: HashMap<TargetId, Arc<[ReportName]>>,
    /// What each guard stands for, for the log.
    guards: HashMap<TargetId, Arc<str>>,
    changes: Changes,
    /// What is to be told, once nobody waits any more.
    lines: Vec<Line>,
    /// What an earlier process knew, for the addresses of names whose first answer comes later, until
    /// then.
    kept: Option<(Box<Known>, Instant)>,
    /// Called after each change of a verdict, or of what is watched.
    on_change: Option<Box<dyn Fn() + Send>>,
    /// What is known of names.
    pub(super) names: Names,
    /// The checked groups of each name, and what is asked of its addresses.
    pub(super) checked: HashMap<String, BTreeMap<TargetId, Arc<ProbeSpec>>>,
    /// The names of these that have no address so far.
    pub(super) unanswered: HashSet<String>,
    /// The unchecked group of each name that has one.
    pub(super) unchecked: HashMap<String, TargetId>,
    /// Those that the configuration being compiled has asked for.
    pub(super) unchecked_wanted: HashSet<String>,
}

impl Health {
    /// No targets yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Settles which targets exist for a configuration that is about to be in force, and returns those of
    /// each checker, in the same order. Equal ones keep their state. What is at a name gets the group of the
    /// addresses of that name. What only the configuration before wants stays until
    /// [`put_in_force`](Self::put_in_force).
    pub fn reconcile(&mut self, checkers: &[&Checker], now: Instant) -> Vec<Vec<TargetId>> {
        let probes = checkers.iter().flat_map(|checker| &checker.probes);
        let mut ids = self.assign(probes, now).into_iter();
        let mut users: HashMap<TargetId, Vec<ReportName>> = HashMap::new();
        let mut settled = Vec::with_capacity(checkers.len());
        for checker in checkers {
            let targets: Vec<TargetId> = ids.by_ref().take(checker.probes.len()).collect();
            for target in &targets {
                let users = users.entry(*target).or_default();
                if users.last() != Some(&checker.report) {
                    users.push(checker.report.clone());
                }
            }
            settled.push(targets);
        }
        let users = users.into_iter();
        (self.users).extend(users.map(|(id, users)| (id, users.into())));
        self.changed();
        settled
    }

    /// Publishes the verdicts of what was [reconciled](Self::reconcile), for the configuration that is still
    /// in force, and says which targets begin as others were.
    pub fn announce(&mut self, state: &State) {
        state.publish_availability(self.monitor.availability());
        self.tell_inherited("it takes the place of what is down");
    }

    /// Puts the configuration that was compiled last in force. What only the one before wanted goes, and
    /// what is new is probed from now on.
    pub fn put_in_force(&mut self, snapshot: Arc<Snapshot>, state: &State, now: Instant) {
        // Requests by the one before may have opened circuits since it was compiled.
        self.monitor.inherit_circuits(now);
        // No newer verdict can be published in between: whoever does has it locked.
        state.publish(snapshot, self.monitor.availability());
        self.monitor.release(now);
        self.sweep_guards();
        let monitor = &self.monitor;
        self.checked.retain(|_, groups| {
            groups.retain(|&group, _| monitor.has_group(group));
            !groups.is_empty()
        });
        (self.users).retain(|&id, _| monitor.report(id).is_some() || monitor.has_group(id));
        self.sweep_names(now);
        self.note_unanswered();
        state.publish_availability(self.monitor.availability());
        self.tell_inherited("it takes the place of what is down");
        self.changed();
    }

    /// The target of each probe: its own, or the group of its name.
    fn assign<'a>(
        &mut self,
        probes: impl Iterator<Item = &'a Planned> + Clone,
        now: Instant,
    ) -> Vec<TargetId> {
        let is_named = |planned: &&Planned| is_name(&planned.wanted.probe.host);
        let alone = probes.clone().filter(|planned| !is_named(planned));
        let alone = alone.map(|planned| planned.wanted.clone()).collect();
        let groups = probes.clone().filter(is_named).map(|planned| WantedGroup {
            addresses: self.addresses_of(&planned.wanted.probe),
            whole: planned.wanted.clone(),
        });
        let (alone, groups) = self.monitor.prepare_with(alone, groups.collect(), now);
        let (mut alone, mut groups) = (alone.into_iter(), groups.into_iter());
        let of = |planned: &Planned| {
            if !is_named(&planned) {
                return alone.next();
            }
            let group = groups.next()?;
            let probe = &planned.wanted.probe;
            let known = self.checked.entry(probe.host.clone()).or_default();
            known.insert(group, Arc::clone(probe));
            Some(group)
        };
        let targets = probes.filter_map(of).collect();
        self.note_unanswered();
        targets
    }

    fn note_unanswered(&mut self) {
        let names = self.checked.keys();
        let unanswered = names.filter(|name| self.names.addresses(name).is_empty());
        self.unanswered = unanswered.cloned().collect();
    }

    /// Gives targets the state that an earlier process left of them, as `known` has it; to be
    /// called after the first [`reconcile`](Self::reconcile) and before its ids are published.
    /// Returns how many took one, and how many of these may not be picked. Addresses of names take
    /// theirs when they become known, if that is soon.
    pub fn restore(
        &mut self,
        known: impl Fn(&ProbeSpec, &Policy) -> Option<Kept> + Send + 'static,
        now: Instant,
    ) -> (usize, usize) {
        let restored = self.monitor.restore(|probe, policy| known(probe, policy));
        let restored = self.tell_restored(&restored);
        self.kept = Some((Box::new(known), now + KEPT_FOR));
        self.forget_kept(now);
        restored
    }

    /// Whether what an earlier process knew may still be about an address that a name is about to
    /// have.
    pub fn awaits_addresses(&self, now: Instant) -> bool {
        let is_young = self.kept.as_ref().is_some_and(|(_, until)| now < *until);
        is_young && !self.unanswered.is_empty()
    }

    fn forget_kept(&mut self, now: Instant) {
        if !self.awaits_addresses(now) {
            self.kept = None;
        }
    }

    /// The same for `new` targets, the addresses that a name has got since.
    pub(super) fn restore_late(&mut self, new: &[TargetId], now: Instant) {
        if let Some((known, until)) = self.kept.take()
            && now < until
        {
            let restored = self
                .monitor
                .restore_those(new, |probe, policy| known(probe, policy));
            self.tell_restored(&restored);
            self.kept = Some((known, until));
            self.forget_kept(now);
        }
    }

    /// Says which of `restored` may not be picked. Returns how many there are, and how many of these.
    fn tell_restored(&mut self, restored: &[TargetId]) -> (usize, usize) {
        let mut down = 0;
        for target in restored {
            let report = self.monitor.report(*target);
            let Some(report) = report.filter(|report| !report.status.usable()) else {
                continue;
            };
            down += 1;
            let name = report.probe.address();
            let (users, state) = (self.users_of(*target), report.status.as_str());
            self.say(move || tell_kept(&name, Some(&users), Some(state)));
        }
        (restored.len(), down)
    }

    /// The same for guards: where an earlier process left them, as `known` has it.
    pub fn restore_guards(
        &mut self,
        known: impl FnMut(&GuardSpec) -> Option<GuardReport>,
        now: Instant,
    ) -> (usize, usize) {
        let restored = self.monitor.restore_guards(known, now);
        let mut down = 0;
        for guard in &restored {
            let report = self.monitor.guard_report(*guard);
            if report.is_some_and(|report| !report.usable) {
                down += 1;
                let name = self.guard_name(*guard).to_owned();
                self.say(move || tell_kept(&name, None, None));
            }
        }
        (restored.len(), down)
    }

    /// What the log calls a guard.
    pub fn guard_name(&self, guard: TargetId) -> &str {
        self.guards.get(&guard).map_or("", |name| name)
    }

    /// Lets `told` be called after each change of a verdict, or of what is watched. It must not call
    /// back.
    pub fn on_change(&mut self, told: impl Fn() + Send + 'static) {
        self.on_change = Some(Box::new(told));
    }

    /// The verdicts as they are now.
    pub fn availability(&self) -> Arc<Availability> {
        self.monitor.availability()
    }

    /// The next probe that is due.
    pub fn poll_probe(&mut self, now: Instant) -> Option<Probe<Arc<ProbeSpec>>> {
        self.monitor.poll_probe(now)
    }

    /// Whether `target` is usable, and asked by `probe`.
    pub fn is_probed_well(&self, target: TargetId, probe: &ProbeSpec) -> bool {
        let report = self.monitor.report(target);
        report.is_some_and(|report| report.status.usable() && **report.probe == *probe)
    }

    /// When to ask again.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.monitor.next_deadline()
    }

    /// Takes a probe's result, which was known at `known`; publishes when it changed who may be
    /// picked.
    pub fn on_probe(
        &mut self,
        ticket: Ticket,
        outcome: ProbeOutcome,
        known: Instant,
        state: &State,
    ) {
        let Some(change) = self.monitor.on_probe(ticket, outcome, known) else {
            return;
        };
        state.publish_availability(self.monitor.availability());
        self.tell(&change, outcome);
    }

    /// The guard of `spec`, which the log calls `name` if it is new.
    pub fn guard(
        &mut self,
        spec: GuardSpec,
        name: &str,
        now: Instant,
    ) -> (TargetId, Option<Arc<Tally>>) {
        let (guard, tally) = self.monitor.guard(spec, now);
        self.guards.entry(guard).or_insert_with(|| name.into());
        (guard, tally)
    }

    /// The gate of members with these targets and guards.
    pub fn gate(&mut self, targets: &[TargetId], guards: Vec<TargetId>) -> Arc<Gate> {
        self.monitor.gate(targets, guards)
    }

    /// Forgets the guards that the configuration just compiled did not ask for.
    fn sweep_guards(&mut self) {
        self.monitor.sweep_guards();
        let monitor = &self.monitor;
        self.guards
            .retain(|&guard, _| monitor.guard_report(guard).is_some());
    }

    /// Takes what a worker saw; publishes what it changes.
    pub fn on_evidence(&mut self, evidence: Evidence, now: Instant, state: &State) {
        let before = self.monitor.availability();
        let monitor = &mut self.monitor;
        let (change, cause) = match &evidence {
            Evidence::Request {
                target,
                outcome,
                passive,
                began,
            } => {
                let change = monitor.on_traffic(*target, *outcome, passive, *began, now);
                (change, Cause::Outcome(*outcome))
            }
            Evidence::CoolDown {
                guard,
                until,
                cause,
            } => {
                let seconds = until.saturating_duration_since(now).as_secs_f64();
                let cause = Cause::Guard(format!("{cause}, {seconds:.1} s").into());
                (monitor.cool_down(*guard, *until, now), cause)
            }
            Evidence::Trip { guard } => {
                let cause = Cause::Guard("too many failures".into());
                (monitor.trip(*guard, now), cause)
            }
            Evidence::Trial { succeeded, trial } => {
                let change = monitor.on_trial(trial, *succeeded, now);
                (change, Cause::Guard("trials succeeded".into()))
            }
        };
        // Whoever reads of it in the log may rely on it; and a trial ends only now, or another could
        // begin by the verdicts of before.
        self.publish_if_newer(&before, state);
        drop(evidence);
        match (change, cause) {
            (Some(change), Cause::Outcome(outcome)) => self.tell(&change, outcome),
            (Some(change), Cause::Guard(cause)) => self.tell_guard(&change, &cause),
            (None, _) => {}
        }
    }

    /// Ends the cool-downs that are over and lets circuits ask for trials.
    pub fn tick(&mut self, now: Instant, state: &State) {
        let before = self.monitor.availability();
        let changes = self.monitor.tick(now);
        self.publish_if_newer(&before, state);
        for change in changes {
            self.tell_guard(&change, "its time is over");
        }
    }

    fn publish_if_newer(&self, before: &Arc<Availability>, state: &State) {
        let now = self.monitor.availability();
        if !Arc::ptr_eq(before, &now) {
            state.publish_availability(now);
        }
    }

    /// Says which targets and guards begin with a verdict that was another's.
    pub(super) fn tell_inherited(&mut self, cause: &str) {
        for id in self.monitor.take_inherited() {
            let (target, users) = match self.monitor.report(id) {
                Some(report) => (report.probe.address(), self.users_of(id)),
                None => (self.guard_name(id).to_owned(), String::new()),
            };
            self.changes.count(&target, false);
            let cause = cause.to_owned();
            self.say(move || tracing::warn!(target, users, cause, "health verdict inherited"));
        }
    }

    fn tell_guard(&mut self, change: &Change, cause: &str) {
        let target =
            (self.guards.get(&change.target)).map_or_else(String::new, |name| name.to_string());
        let usable = change.to.usable();
        self.changes.count(&target, usable);
        self.changed();
        let cause = cause.to_owned();
        self.say(move || tracing::warn!(target, usable, cause, "health verdict changed"));
    }

    /// A copy of all that is known.
    pub fn overview(&self) -> Overview {
        let target = |(id, report): (TargetId, Report<'_, Arc<ProbeSpec>>)| overview::Target {
            id,
            status: report.status,
            counters: report.counters,
            last: report.last,
            probe: Arc::clone(report.probe),
            next_probe: self.monitor.next_probe(id),
            used_by: self.used_by(id).cloned().unwrap_or_default(),
            groups: self.monitor.groups_of(id).collect(),
        };
        let guard = |(id, _, report)| overview::Guard {
            id,
            name: self.guards.get(&id).cloned().unwrap_or_default(),
            report,
        };
        Overview {
            availability: self.monitor.availability(),
            targets: self.monitor.export().into_iter().map(target).collect(),
            guards: self
                .monitor
                .export_guards()
                .into_iter()
                .map(guard)
                .collect(),
            changes: self.changes.0.clone(),
        }
    }

    /// The resources and instances that a target decides about.
    fn used_by(&self, target: TargetId) -> Option<&Arc<[ReportName]>> {
        let mut groups = self.monitor.groups_of(target);
        (self.users.get(&target)).or_else(|| groups.find_map(|group| self.users.get(&group)))
    }

    /// The monitor, to look at.
    pub fn monitor(&self) -> &Monitor<Arc<ProbeSpec>> {
        &self.monitor
    }

    /// Has a line of the log written once nobody waits for the health any more.
    pub(super) fn say(&mut self, line: impl FnOnce() + Send + 'static) {
        self.lines.push(Box::new(line));
    }

    pub(super) fn changed(&self) {
        if let Some(told) = &self.on_change {
            told();
        }
    }

    fn tell(&mut self, change: &Change, outcome: ProbeOutcome) {
        let Some(report) = self.monitor.report(change.target) else {
            return;
        };
        let target = report.probe.address();
        let users = self.users_of(change.target);
        let (from, to) = (change.from.as_str(), change.to.as_str());
        if change.usable_changed {
            self.changes.count(&target, change.to.usable());
            self.changed();
            self.say(move || {
                tracing::warn!(target, users, from, to, cause = ?outcome, "health verdict changed");
            });
        } else {
            self.say(move || {
                tracing::info!(target, users, from, to, cause = ?outcome, "health state changed");
            });
        }
    }

    /// The resources and instances that a target decides about; the first few when there are many.
    fn users_of(&self, target: TargetId) -> String {
        let users = self.used_by(target).map_or(&[][..], |users| users);
        let mut text = users
            .iter()
            .take(USERS_NAMED)
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        if users.len() > USERS_NAMED {
            text.push_str(&format!(" and {} more", users.len() - USERS_NAMED));
        }
        text
    }
}

/// Changes of verdicts, counted.
#[derive(Default)]
struct Changes(BTreeMap<(String, bool), u64>);

impl Changes {
    fn count(&mut self, target: &str, usable: bool) {
        let mut key = (target.to_owned(), usable);
        // Names may stand for ever new addresses.
        if self.0.len() >= SERIES_MAX && !self.0.contains_key(&key) {
            "<overflow>".clone_into(&mut key.0);
        }
        *self.0.entry(key).or_default() += 1;
    }
}

/// Why a verdict changed.
enum Cause {
    Outcome(ProbeOutcome),
    Guard(Cow<'static, str>),
}

/// Says that something begins as an earlier process left it.
fn tell_kept(target: &str, users: Option<&str>, state: Option<&str>) {
    tracing::warn!(
        target,
        users,
        state,
        "health verdict kept from before the restart"
    );
}

/// Writes a line of the log.
type Line = Box<dyn FnOnce() + Send>;

/// What an earlier process knew about a target.
type Known = dyn Fn(&ProbeSpec, &Policy) -> Option<Kept> + Send;

/// Later than this after the start, what an earlier process knew says nothing any more.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// A line of the log names no more users of a target than this.
const USERS_NAMED: usize = 8;
