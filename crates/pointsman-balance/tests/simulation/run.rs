//! One life of a gateway's health, event by event, on a clock that is a number.
//!
//! The part of the program is played as `keep_probing` plays it: poll until nothing is due, sleep until
//! the deadline, hand answers in as they come, publish what they change before anything else happens.
//! Requests read the pools that were in force when they began, and the newest verdicts at each pick.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman_balance::{
    Algorithm, Ask, Availability, Limits, Monitor, Passive, Policy, ProbeOutcome, TargetId, Ticket,
    Tried,
};

use crate::chance::Chance;
use crate::ledger::{Given, Ledger, Seen, Started};
use crate::picks::JudgedPool;
use crate::plan::{self, Edit, Plan, Probed};
use crate::world::World;

/// The life ends then, in milliseconds.
const END: u64 = 1_000;

enum Event {
    /// The prober wakes up.
    Wake,
    Answer {
        ticket: Ticket,
        probe: Started,
        outcome: ProbeOutcome,
        known: u64,
    },
    /// What a request met at a target is handed in.
    Met {
        target: TargetId,
        outcome: ProbeOutcome,
        began: u64,
    },
    /// A request comes, and after it the next.
    Arrive,
    /// A request picks again.
    Attempt(Request),
    SiteChanges,
    Reconfigure,
    /// The pools of the last configuration come into force.
    PublishPools,
}

struct Request {
    pools: Rc<Vec<JudgedPool>>,
    pool: usize,
    key: [u8; 2],
    tried: Tried,
    names: Vec<usize>,
    attempts_left: u64,
}

/// What all pickers see.
struct Published {
    pools: Rc<Vec<JudgedPool>>,
    availability: Arc<Availability>,
    /// The same by the ledger.
    verdicts: Vec<bool>,
    epoch: u64,
}

pub(crate) struct Life {
    chance: Chance,
    origin: Instant,
    now: u64,
    events: BTreeMap<(u64, u64), Event>,
    sent: u64,
    world: World,
    plan: Plan,
    policies: Vec<Policy>,
    passive: Passive,
    monitor: Monitor<Probed>,
    ledger: Ledger,
    published: Published,
    pending: Option<Rc<Vec<JudgedPool>>>,
    /// The earliest time at which the prober is sure to wake up.
    wakes_at: Option<u64>,
    tally: Tally,
    trace: Option<VecDeque<String>>,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) events: u64,
    pub(crate) picks: u64,
    pub(crate) retries: u64,
    pub(crate) fail_open: u64,
    pub(crate) exhausted: u64,
    pub(crate) reloads: u64,
    pub(crate) seen: Seen,
}

impl Life {
    pub(crate) fn new(seed: u64, origin: Instant, traced: bool) -> Self {
        let mut chance = Chance::new(seed);
        let (policies, plan) = (plan::policies(&mut chance), Plan::new(&mut chance));
        let world = World::new(plan::SITES, &mut chance);
        let ledger = Ledger::new(policies.clone(), world.weather.lag_ms);
        let limits = Limits {
            successes: chance.range(0, 3) as u8,
            http_failures: chance.range(1, 4) as u8,
            tcp_failures: chance.range(0, 3) as u8,
            timeouts: chance.range(0, 3) as u8,
        };
        let mut life = Self {
            chance,
            origin,
            now: 0,
            events: BTreeMap::new(),
            sent: 0,
            world,
            plan,
            policies,
            passive: Passive {
                limits,
                ..Passive::default()
            },
            monitor: Monitor::new(),
            ledger,
            published: Published {
                pools: Rc::default(),
                availability: Arc::new(Availability::empty()),
                verdicts: Vec::new(),
                epoch: 0,
            },
            pending: None,
            wakes_at: None,
            tally: Tally::default(),
            trace: traced.then(VecDeque::new),
        };
        life.reconfigure(Edit::Changed);
        life.publish_pools();
        life.wake();
        life.sleep();
        life.foresee();
        life
    }

    pub(crate) fn tally(&self) -> Tally {
        Tally {
            seen: self.ledger.seen,
            ..self.tally
        }
    }

    pub(crate) fn trace(&self) -> impl Iterator<Item = &String> {
        self.trace.iter().flatten()
    }

    /// What the outside does, whatever comes of it.
    fn foresee(&mut self) {
        for _ in 0..self.chance.range(2, 12) {
            let at = self.chance.range(0, END);
            self.at(at, Event::SiteChanges);
        }
        for _ in 0..self.chance.range(0, 8) {
            let at = self.chance.range(0, END);
            self.at(at, Event::Reconfigure);
        }
        self.at(0, Event::Arrive);
    }

    /// Lives until the end.
    pub(crate) fn run(&mut self) {
        while let Some(entry) = self.events.first_entry()
            && entry.key().0 < END
        {
            let ((at, _), event) = entry.remove_entry();
            assert!(at >= self.now, "time went back");
            self.now = at;
            self.tally.events += 1;
            self.step(event);
        }
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Wake => {
                if self.wakes_at.is_some_and(|at| at <= self.now) {
                    self.wakes_at = None;
                }
                self.wake();
            }
            Event::Answer {
                ticket,
                probe,
                outcome,
                known,
            } => self.answer(ticket, probe, outcome, known),
            Event::Met {
                target,
                outcome,
                began,
            } => self.met(target, outcome, began),
            Event::Attempt(request) => return self.attempt(request),
            Event::Arrive => {
                self.request();
                let next = self.now + self.chance.range(1, 30);
                self.at(next, Event::Arrive);
                return;
            }
            Event::SiteChanges => {
                let change = self.world.change(&mut self.chance);
                self.note(|| format!("site {} now {:?}", change.0, change.1));
            }
            Event::Reconfigure => {
                let edit = self.plan.change(&mut self.chance);
                self.reconfigure(edit);
            }
            Event::PublishPools => self.publish_pools(),
        }
        self.ledger.compare(&self.monitor);
        self.sleep();
    }

    /// Polls until nothing is due.
    fn wake(&mut self) {
        while let Some(probe) = self.monitor.poll_probe(self.time(self.now)) {
            let started = self.ledger.started(&probe, self.now);
            let target = probe.ticket.target();
            let within = probe.answer_within.as_millis() as u64;
            let policy = self.monitor.report(target).unwrap().policy;
            let fate = self
                .world
                .probe(probe.probe.site, policy, within, &mut self.chance);
            self.note(|| format!("probe {target:?} {:?}: {fate:?}", probe.probe));
            if let Some(fate) = fate {
                let answer = Event::Answer {
                    ticket: probe.ticket,
                    probe: started,
                    outcome: fate.outcome,
                    known: self.now + fate.known_ms,
                };
                self.at(self.now + fate.reported_ms, answer);
            }
        }
        let deadline = self.monitor.next_deadline();
        let deadline = deadline.map(|at| (at - self.origin).as_millis() as u64);
        self.ledger.polled(self.now, deadline);
    }

    /// Makes sure that the prober wakes up in time, or not much later.
    fn sleep(&mut self) {
        let Some(deadline) = self.monitor.next_deadline() else {
            return;
        };
        let deadline = (deadline - self.origin).as_millis() as u64;
        let latest = deadline.max(self.now) + self.world.weather.lag_ms;
        if self.wakes_at.is_none_or(|at| at > latest) {
            let lag = self.chance.range(0, self.world.weather.lag_ms + 1);
            let at = deadline.max(self.now) + lag;
            self.wakes_at = Some(at);
            self.at(at, Event::Wake);
        }
    }

    fn answer(&mut self, ticket: Ticket, probe: Started, outcome: ProbeOutcome, known: u64) {
        let target = ticket.target();
        let change = self.monitor.on_probe(ticket, outcome, self.time(known));
        let expected = self.ledger.answered(probe, outcome, known);
        self.note(|| format!("answer {target:?} {outcome:?} known {known}: {change:?}"));
        assert_eq!(change, expected, "what the answer of {target:?} changes");
        self.publish_verdicts();
        // Usually an answer wakes the prober up. Nothing may hang on that.
        if !self.chance.one_in(4) {
            self.wake();
        }
    }

    fn met(&mut self, target: TargetId, outcome: ProbeOutcome, began: u64) {
        let (began_at, now) = (self.time(began), self.time(self.now));
        let change = self
            .monitor
            .on_traffic(target, outcome, &self.passive, began_at, now);
        let expected = self
            .ledger
            .met(target, outcome, &self.passive, began, self.now);
        self.note(|| format!("traffic met {outcome:?} at {target:?}: {change:?}"));
        assert_eq!(change, expected, "what traffic to {target:?} changes");
        self.publish_verdicts();
    }

    fn reconfigure(&mut self, edit: Edit) {
        if self.pending.is_some() {
            self.publish_pools();
        }
        self.tally.reloads += 1;
        let wishes = self.plan.wishes();
        let wanted = plan::wanted(&wishes, &self.policies);
        let epoch = self.ledger.epoch;
        let ids = self.monitor.reconcile(wanted, self.time(self.now));
        self.note(|| format!("{edit:?}: {wishes:?} are {ids:?}"));
        let given = Given {
            wishes: &wishes,
            ids: &ids,
        };
        self.ledger.reconciled(&given, self.now);
        // Nothing is published yet: whoever picks now sees what was before.
        self.request();
        self.publish_verdicts();
        self.request();
        let pools = Rc::new(self.build(&ids));
        if edit == Edit::Reordered {
            assert_eq!(self.ledger.epoch, epoch, "another order is no news");
            self.compare_orders(&pools);
        }
        self.pending = Some(pools);
        let at = self.now + self.chance.range(0, 4);
        self.at(at, Event::PublishPools);
    }

    fn build(&mut self, ids: &[TargetId]) -> Vec<JudgedPool> {
        let mut ids = ids.iter().copied();
        let mut pools = Vec::new();
        for planned in &self.plan.pools {
            let members = planned.members.iter();
            let targets = members
                .map(|member| ids.by_ref().take(member.checks.len()).collect())
                .collect();
            let before = self.published.pools.iter();
            let before = before.into_iter().find(|pool| pool.name == planned.name);
            let start = self.chance.number();
            pools.push(JudgedPool::new(planned, targets, start, before));
        }
        pools
    }

    /// I-11: in another order, the same keys go to the same members.
    fn compare_orders(&self, pools: &[JudgedPool]) {
        for pool in pools
            .iter()
            .filter(|pool| pool.algorithm == Algorithm::Chash)
        {
            let before = self.published.pools.iter();
            let Some(before) = before.into_iter().find(|old| old.name == pool.name) else {
                continue;
            };
            for key in [b"a", b"b", b"c"] {
                let verdicts = &self.published.availability;
                assert_eq!(pool.order(key, verdicts), before.order(key, verdicts));
            }
        }
    }

    fn publish_verdicts(&mut self) {
        let availability = self.monitor.availability();
        assert!(
            availability.epoch() >= self.published.epoch,
            "epochs went back"
        );
        self.published.epoch = availability.epoch();
        self.published.availability = availability;
        self.published.verdicts = self.ledger.verdicts();
    }

    fn publish_pools(&mut self) {
        if let Some(pools) = self.pending.take() {
            self.note(|| "pools in force".to_owned());
            self.published.pools = pools;
        }
    }

    /// A request begins, and makes its first attempt.
    fn request(&mut self) {
        if self.published.pools.is_empty() {
            return;
        }
        let request = Request {
            pools: Rc::clone(&self.published.pools),
            pool: self.chance.index(self.published.pools.len()),
            key: [self.chance.range(0, 9) as u8, 0],
            tried: Tried::new(),
            names: Vec::new(),
            attempts_left: self.chance.range(1, 6),
        };
        self.attempt(request);
    }

    fn attempt(&mut self, mut request: Request) {
        let pool = &request.pools[request.pool];
        let ask = Ask {
            key: Some(&request.key),
            now: Duration::ZERO,
            tried: &request.tried,
        };
        let got = pool.pool.pick(&ask, &self.published.availability);
        if let Ok(picked) = &got {
            assert_eq!(picked.epoch(), self.published.epoch, "by older verdicts");
        }
        let got = got.map(|picked| (picked.member(), picked.failed_open()));
        self.note(|| format!("pick of {} after {:?}: {got:?}", pool.name, request.names));
        pool.judge(got, &self.published.verdicts, &request.names);
        self.tally.picks += 1;
        self.tally.retries += u64::from(!request.names.is_empty());
        let Ok((member, failed_open)) = got else {
            self.tally.exhausted += 1;
            return;
        };
        self.tally.fail_open += u64::from(failed_open);
        let target = pool.ids[member].first().copied();
        let ends = self.now + self.chance.range(0, 60);
        let fails = match target {
            Some(target) => self.meet(target, ends),
            None => self.chance.one_in(3),
        };
        // I-23: what `judge` compares with, and the code's own note of it.
        request.tried.mark(member);
        request.names.push(member);
        request.attempts_left -= 1;
        if fails && request.attempts_left > 0 {
            self.at(ends, Event::Attempt(request));
        }
    }

    /// An attempt at a target, and the report of it. Whether it fails.
    fn meet(&mut self, target: TargetId, ends: u64) -> bool {
        let Some(report) = self.monitor.report(target) else {
            return true;
        };
        let outcome = self.world.serve(report.probe.site, &mut self.chance);
        if self.chance.one_in(3) {
            let met = Event::Met {
                target,
                outcome,
                began: self.now,
            };
            self.at(ends, met);
        }
        !matches!(outcome, ProbeOutcome::Status(200) | ProbeOutcome::TcpOk)
    }

    fn at(&mut self, at: u64, event: Event) {
        self.sent += 1;
        self.events.insert((at.max(self.now), self.sent), event);
    }

    fn time(&self, at: u64) -> Instant {
        self.origin + Duration::from_millis(at)
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            if trace.len() == TRACE_LEN {
                trace.pop_front();
            }
            trace.push_back(format!("{:>5} ms  {}", self.now, what()));
        }
    }
}

/// How many of the last events are told.
const TRACE_LEN: usize = 40;
