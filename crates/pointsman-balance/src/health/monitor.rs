//! The owner of all health: outcomes in, probes and verdicts out.
//!
//! Whoever runs the monitor loops over three calls: [`poll_probe`](Monitor::poll_probe) until it has
//! nothing due, sleep until [`next_deadline`](Monitor::next_deadline), [`on_probe`](Monitor::on_probe)
//! for each answer; and publishes [`availability`](Monitor::availability) whenever its epoch grew. A
//! configuration change is one call of [`reconcile`](Monitor::reconcile), whose availability must be
//! published before the pools that use its ids.
//!
//! A target is *what is probed and how*, not who asked for it. Users of equal definitions share one
//! target and one verdict; places in a list identify nothing.

mod kept;
mod settle;

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Availability;
use super::availability::Comeback;
use super::effort;
use super::gate::Gates;
use super::group::Groups;
use super::guard::Guards;
use super::policy::{Limits, Policy, ProbeOutcome, Signal};
use super::schedule::{Schedule, later};
use super::state::{Counters, State, Status};
use crate::TargetId;

pub use self::kept::Kept;

/// Watches the targets of a whole process; make one per process, since ids and epochs are its own.
///
/// `P` says what to probe (address, host, path, credentials...) and means nothing here but identity.
#[derive(Debug)]
pub struct Monitor<P> {
    pub(super) targets: HashMap<TargetId, Target<P>>,
    pub(super) by_definition: HashMap<Arc<Definition<P>>, TargetId>,
    by_lineage: HashMap<String, TargetId>,
    pub(super) schedule: Schedule,
    pub(super) guards: Guards,
    pub(super) gates: Gates,
    pub(super) groups: Groups<P>,
    pub(super) availability: Arc<Availability>,
    /// Targets that began as another was, which was down, since somebody asked.
    pub(super) inherited: Vec<TargetId>,
    /// Wishes that only the configuration before has, until another one is in force.
    lingering: settle::Lingering,
    issued: u32,
}

/// One user's wish to have something checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted<P> {
    /// What to probe.
    pub probe: P,
    /// How to.
    pub policy: Policy,
    /// Who wants it and where it is: owner, name and address. If `probe` or `policy` change under the
    /// same lineage, the verdict is kept and the counters start at zero.
    pub lineage: String,
    /// The group whose probes share one limit of [`Policy::concurrency`]; where its policies differ,
    /// the smallest counts. A target shared by several groups belongs to the first in order.
    pub checker: String,
}

/// A probe to perform now.
#[derive(Debug)]
#[must_use = "a probe that is not answered keeps its slot until `answer_within` has passed"]
pub struct Probe<P> {
    /// To be given back with the outcome.
    pub ticket: Ticket,
    /// What to probe.
    pub probe: P,
    /// For each socket operation.
    pub timeout: Duration,
    /// For the whole probe, from the time it was polled: three timeouts and one interval. An answer
    /// that is known only then, or later, has no effect, so give up before and report
    /// [`ProbeOutcome::Timeout`].
    pub answer_within: Duration,
}

/// The right to report one outcome. It lapses if its target is dropped or redefined meanwhile, if the
/// answer takes too long, or once a newer probe of its target is answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Ticket {
    target: TargetId,
    serial: u64,
}

/// A target went from one status to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Which one.
    pub target: TargetId,
    /// Its status before.
    pub from: Status,
    /// Its status now; never the same.
    pub to: Status,
    /// Whether it may be picked now and could not before, or the reverse; iff so the epoch grew.
    pub usable_changed: bool,
}

/// What is known about one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report<'a, P> {
    /// Its status.
    pub status: Status,
    /// The outcomes counted at present.
    pub counters: Counters,
    /// The last outcome of a probe and when it was known, if there was one under this definition.
    pub last: Option<(ProbeOutcome, Instant)>,
    /// What is probed.
    pub probe: &'a P,
    /// How it is checked.
    pub policy: &'a Policy,
}

/// What makes two wishes the same target.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Definition<P> {
    pub(super) probe: P,
    pub(super) policy: Policy,
}

#[derive(Debug)]
pub(super) struct Target<P> {
    definition: Arc<Definition<P>>,
    pub(super) state: State,
    pub(super) last: Option<(ProbeOutcome, Instant)>,
    /// When something last spoke against it. A success that began before that is old news.
    pub(super) failed_at: Option<Instant>,
}

impl<P: Clone + Eq + Hash> Monitor<P> {
    /// Watches nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            targets: HashMap::new(),
            by_definition: HashMap::new(),
            by_lineage: HashMap::new(),
            schedule: Schedule::default(),
            guards: Guards::default(),
            gates: Gates::default(),
            groups: Groups::default(),
            availability: Arc::new(Availability::empty()),
            inherited: Vec::new(),
            lingering: settle::Lingering::default(),
            issued: 0,
        }
    }

    /// The next probe to perform, if one is due: call until `None`. Never two at a time for one target,
    /// never more than its concurrency for one checker.
    pub fn poll_probe(&mut self, now: Instant) -> Option<Probe<P>> {
        let targets = &self.targets;
        let patience = |id| targets.get(&id).map_or(Duration::ZERO, Target::patience);
        let (id, serial) = self.schedule.start(now, patience)?;
        let target = self.targets.get(&id)?;
        Some(Probe {
            ticket: Ticket { target: id, serial },
            probe: target.definition.probe.clone(),
            timeout: target.definition.policy.timeout,
            answer_within: target.patience(),
        })
    }

    /// Takes the outcome of a probe. Returns the change if the target's status is another now; `None`
    /// also if the ticket has lapsed, in which case nothing happens at all.
    ///
    /// `known` is when the outcome came to be known, which may be earlier than this call: it decides
    /// whether the answer was in time, so that handing it in late loses nothing.
    pub fn on_probe(
        &mut self,
        ticket: Ticket,
        outcome: ProbeOutcome,
        known: Instant,
    ) -> Option<Change> {
        let Ticket { target: id, serial } = ticket;
        let answered = self.schedule.answer(id, serial, known)?;
        let target = self.targets.get_mut(&id)?;
        let policy = &target.definition.policy;
        let (signal, limits) = (policy.signal(outcome), policy.limits());
        let from = target.apply(signal, &limits, outcome, answered.started, known);
        if answered.holds_slot {
            self.schedule.finish(id, target.interval());
        }
        self.settle(id, from)
    }

    /// Publishes what a target has become since it was `from`.
    pub(super) fn settle(&mut self, id: TargetId, from: Status) -> Option<Change> {
        let target = self.targets.get(&id)?;
        let to = target.state.status;
        if from == to {
            return None;
        }
        let comeback = target.comeback();
        let usable_changed = from.usable() != to.usable();
        if usable_changed {
            self.publish([(id, to.usable())]);
        }
        let availability = self.writable();
        availability.settle(id, to == Status::Healthy);
        availability.expect(id, comeback);
        Some(Change {
            target: id,
            from,
            to,
            usable_changed,
        })
    }

    /// When to call [`poll_probe`](Self::poll_probe) and [`tick`](Self::tick) next; a point in the past
    /// means now. `None`: there is nothing to wait for. Ask again after every other call.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadlines = [self.schedule.next_deadline(), self.guards.next_deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// The verdicts as they are now.
    #[must_use]
    pub fn availability(&self) -> Arc<Availability> {
        Arc::clone(&self.availability)
    }

    /// What is known about a target; `None` if it is not watched any more.
    #[must_use]
    pub fn report(&self, target: TargetId) -> Option<Report<'_, P>> {
        let Target {
            definition,
            state,
            last,
            failed_at: _,
        } = self.targets.get(&target)?;
        Some(Report {
            status: state.status,
            counters: state.counters,
            last: *last,
            probe: &definition.probe,
            policy: &definition.policy,
        })
    }

    /// The targets that began unusable because of what was known of another one in their place, since the
    /// last call: for whoever tells of changes.
    pub fn take_inherited(&mut self) -> Vec<TargetId> {
        std::mem::take(&mut self.inherited)
    }

    /// When the next probe of a target is due, which may be past if it waits for its turn; `None` while
    /// one is in flight, and for a target that is not watched.
    #[must_use]
    pub fn next_probe(&self, target: TargetId) -> Option<Instant> {
        self.schedule.due(target)
    }

    /// Takes what is not watched any more out of what is published about comebacks.
    pub(super) fn forget_comebacks(&mut self) {
        let (targets, guards) = (&self.targets, &self.guards);
        Availability::expect_only(&mut self.availability, |id| {
            targets.contains_key(&id) || guards.report(id).is_some()
        });
    }

    /// Publishes which targets successes of traffic mean something to.
    pub(super) fn settle_all(&mut self) {
        self.forget_comebacks();
        let all: Vec<TargetId> = self.targets.keys().copied().collect();
        self.settle_those(&all);
    }

    /// The same for some.
    pub(super) fn settle_those(&mut self, some: &[TargetId]) {
        effort::spend(some.len());
        let settled = |target: &Target<P>| target.state.status == Status::Healthy;
        let changed: Vec<(TargetId, bool)> = (some.iter())
            .filter_map(|&id| Some((id, settled(self.targets.get(&id)?))))
            .filter(|&(id, settled)| self.availability.settled(id) != settled)
            .collect();
        if !changed.is_empty() {
            let availability = self.writable();
            for (id, settled) in changed {
                availability.settle(id, settled);
            }
        }
    }

    /// Begins to watch a target, of which nothing is known but where it starts.
    pub(super) fn watch(&mut self, id: TargetId, definition: &Arc<Definition<P>>, state: State) {
        let target = Target {
            definition: Arc::clone(definition),
            state,
            last: None,
            failed_at: None,
        };
        self.targets.insert(id, target);
    }

    /// What is published next; a copy, if somebody reads what is published now.
    pub(super) fn writable(&mut self) -> &mut Availability {
        if Arc::get_mut(&mut self.availability).is_none() {
            effort::spend(self.availability.pages());
        }
        Arc::make_mut(&mut self.availability)
    }

    pub(super) fn issue(&mut self) -> TargetId {
        next_id(&mut self.issued)
    }

    /// Publishes verdicts, and with them those of the groups and gates that they decide about.
    pub(super) fn publish(&mut self, verdicts: impl IntoIterator<Item = (TargetId, bool)>) {
        let mut verdicts: Vec<(TargetId, bool)> = verdicts.into_iter().collect();
        let concerned: BTreeSet<TargetId> = (verdicts.iter())
            .flat_map(|&(id, _)| self.groups.of(id))
            .collect();
        verdicts.extend(concerned.into_iter().map(|id| (id, self.group_usable(id))));
        let issued = self.issued as usize;
        self.writable().advance(issued, verdicts.iter().copied());
        self.settle_gates(verdicts.into_iter().map(|(id, _)| id));
    }
}

fn next_id(issued: &mut u32) -> TargetId {
    let id = TargetId::new(*issued);
    *issued = issued
        .checked_add(1)
        .expect("the bitset of verdicts would be 512 MiB");
    id
}

impl<P: Clone + Eq + Hash> Default for Monitor<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl Ticket {
    /// The target that is probed.
    #[must_use]
    pub const fn target(&self) -> TargetId {
        self.target
    }
}

impl<P> Target<P> {
    pub(super) const fn definition(&self) -> &Arc<Definition<P>> {
        &self.definition
    }

    /// Takes an outcome of something that began at `began`; returns the status before.
    pub(super) fn apply(
        &mut self,
        signal: Option<Signal>,
        limits: &Limits,
        outcome: ProbeOutcome,
        began: Instant,
        now: Instant,
    ) -> Status {
        let from = self.state.status;
        let is_old = signal == Some(Signal::Success)
            && self.failed_at.is_some_and(|failed_at| began < failed_at);
        if is_old {
            return from;
        }
        self.last = Some((outcome, now));
        if let Some(signal) = signal {
            self.state.on_signal(signal, limits);
        }
        if matches!(signal, Some(Signal::Failure(_))) {
            // What is handed in now may have been known before what was handed in earlier.
            self.failed_at = self.failed_at.max(Some(now));
        }
        from
    }

    pub(super) fn interval(&self) -> Duration {
        if self.state.status.usable() {
            self.definition.policy.healthy_interval
        } else {
            self.definition.policy.unhealthy_interval
        }
    }

    /// When it may be usable again at the soonest, if it is not.
    fn comeback(&self) -> Option<Comeback> {
        let interval = self.interval();
        (!self.state.status.usable()).then_some(Comeback::Probes {
            first: later(self.failed_at?, interval),
            interval,
            needed: u32::from(self.definition.policy.successes.max(1)),
        })
    }

    /// A probe may connect, shake hands, send and receive, each with its own timeout.
    fn patience(&self) -> Duration {
        self.definition
            .policy
            .timeout
            .saturating_mul(3)
            .saturating_add(self.interval())
    }
}
