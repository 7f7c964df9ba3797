//! Lives of pools whose members have guards, are at names, and are picked by their load.
//!
//! Cool-downs and circuits come and go, ticks are late, trials are told, forgotten or told too late; names
//! grow, shrink, swap addresses and are not answered; members are renamed, removed, put elsewhere and
//! given other guards while requests are under way. All the while sites and addresses die, flap, slow down
//! and lie to probes, and answers are lost, late, overtaken by traffic, or about what is gone; it takes as
//! many of them to change a verdict as the policy of this life says, and what is known of an address goes
//! along when it moves from name to name. After every event each state, each verdict, each load and each
//! pick is compared with [`Model`].

mod judge;
mod probes;
mod reload;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use pointsman_balance::{
    Algorithm, Ask, Hold, Limits, Loads, MemberSpec, Monitor, Passive, Picked, Policy, Pool,
    TargetId, Trial, Tried, WantedAddress,
};

use crate::chance::Chance;
use crate::model::{Member, Model, NAMES, Place, SITES, is_up};
use crate::table;
use crate::world::World;
use judge::Expected;

/// What is probed: a site, or an address of a name.
type Probed = (Place, u8);

const KINDS: usize = 5;
const STEPS: u64 = 55;
/// That names may have.
const ADDRESSES: u8 = 4;

pub(crate) struct Life {
    chance: Chance,
    /// That of probes.
    luck: Chance,
    origin: Instant,
    now: u64,
    monitor: Monitor<Probed>,
    loads: Loads,
    model: Model,
    /// Of sites, and then of addresses, under whatever name.
    world: World,
    policy: Policy,
    passive: Passive,
    members: Vec<Member>,
    names: u32,
    algorithm: Algorithm,
    /// Of each kind, the guard that the configuration has.
    kinds: [Option<usize>; KINDS],
    /// By number.
    guards: Vec<TargetId>,
    sites: Vec<TargetId>,
    groups: Vec<TargetId>,
    pool: Rc<Judged>,
    open: Vec<Attempt>,
    open_probes: Vec<probes::Open>,
    probes_begun: u64,
    slots: probes::Slots,
    seen: (u64, BTreeMap<TargetId, bool>),
    tally: BTreeMap<&'static str, u64>,
    traced: bool,
}

struct Judged {
    pool: Pool,
    algorithm: Algorithm,
    members: Vec<Member>,
}

struct Attempt {
    pool: Rc<Judged>,
    picked: Picked,
    hold: Option<Hold>,
    /// With its circuit and period.
    trial: Option<(Trial, usize, u64)>,
    tried: Vec<usize>,
    began: u64,
}

impl Life {
    pub(crate) fn new(seed: u64, origin: Instant, traced: bool) -> Self {
        let mut chance = Chance::new(seed);
        let algorithm = chance.choose(&ALGORITHMS);
        let pool = Pool::new(vec![spec(0)], algorithm, 0).unwrap();
        let mut luck = Chance::new(!seed);
        let world = World::new(SITES + usize::from(ADDRESSES), &mut luck);
        let policy = probes::policy(limits(&mut luck));
        let passive = Passive {
            limits: limits(&mut luck),
            ..Passive::default()
        };
        let mut life = Self {
            chance,
            luck,
            origin,
            now: 0,
            monitor: Monitor::new(),
            loads: Loads::new(),
            model: Model::new(),
            world,
            policy,
            passive,
            members: Vec::new(),
            names: 0,
            algorithm,
            kinds: [None; KINDS],
            guards: Vec::new(),
            sites: Vec::new(),
            groups: Vec::new(),
            pool: Rc::new(Judged {
                pool,
                algorithm,
                members: Vec::new(),
            }),
            open: Vec::new(),
            open_probes: Vec::new(),
            probes_begun: 0,
            slots: BTreeMap::new(),
            seen: (0, BTreeMap::new()),
            tally: BTreeMap::new(),
            traced,
        };
        for name in 0..NAMES {
            let addresses = life.addresses();
            life.model.resolve(&[(name, addresses)]);
        }
        let count = life.chance.choose(&[1, 2, 3, 4, 5, 14]);
        for _ in 0..count {
            life.add_member();
        }
        life.reload();
        life
    }

    pub(crate) fn run(mut self) -> BTreeMap<&'static str, u64> {
        for _ in 0..STEPS {
            self.now += self.chance.choose(&[0, 1, 5, 20]);
            // Whoever wakes the monitor may oversleep.
            if !self.chance.one_in(3) {
                self.monitor.tick(self.at(self.now));
                self.model.tick(self.now);
            }
            self.step();
            self.probe();
            self.compare();
        }
        self.tally
    }

    fn step(&mut self) {
        match self.chance.range(0, 40) {
            0..12 => self.attempt(Rc::clone(&self.pool), Vec::new()),
            12..22 => self.end(),
            22..25 => self.again(),
            25 | 26 => self.cool_down(),
            27..30 => self.trip(),
            30..34 => self.meet(),
            34..37 => self.resolve(),
            _ => {
                self.edit();
                self.reload();
            }
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.origin + Duration::from_millis(ms)
    }

    fn note(&mut self, what: &'static str, text: impl FnOnce() -> String) {
        *self.tally.entry(what).or_default() += 1;
        if self.traced {
            eprintln!("  {:4} {what}: {}", self.now, text());
        }
    }

    fn attempt(&mut self, pool: Rc<Judged>, tried: Vec<usize>) {
        let mut marks = Tried::new();
        tried.iter().for_each(|&member| marks.mark(member));
        let ask = Ask {
            key: Some(b"key"),
            now: Duration::from_millis(self.now),
            tried: &marks,
        };
        let got = pool.pool.pick(&ask, &self.monitor.availability());
        self.note(if tried.is_empty() { "picks" } else { "retries" }, || {
            format!("{got:?} after {tried:?}")
        });
        match pool.judge(&self.model, &tried) {
            Err(why) => assert_eq!(got.err(), Some(why)),
            Ok(expected) => self.begin(pool, got.expect("somebody"), &expected, tried),
        }
    }

    fn begin(&mut self, pool: Rc<Judged>, mut picked: Picked, may: &Expected, tried: Vec<usize>) {
        let member = picked.member();
        let trial = picked.take_trial();
        assert_eq!(picked.failed_open(), may.fail_open, "fail-open");
        if pool.algorithm != Algorithm::Chash || trial.is_some() {
            assert_eq!(trial.is_some(), !may.trials.is_empty(), "a trial");
        }
        let offered = match trial {
            Some(_) => &may.trials,
            None => &may.members,
        };
        assert!(offered.contains(&member), "{member}, not {offered:?}");
        let trial = trial.map(|trial| {
            let guard = self.model.asks(&pool.members[member]).unwrap();
            assert_eq!(trial.guard(), self.guards[guard]);
            (trial, guard, self.model.try_now(guard))
        });
        if trial.is_some() {
            self.note("trials", || format!("of {member}"));
        } else if pool.algorithm == Algorithm::Ewma && may.members.len() == 2 {
            self.judge_quicker(&pool, member, &may.members);
        } else if pool.algorithm == Algorithm::LeastConn {
            self.judge_least(&pool, member, &may.members);
        }
        if may.fail_open {
            self.note("fail-open picks", String::new);
        }
        self.hold(pool, picked, trial, tried);
    }

    fn hold(
        &mut self,
        pool: Rc<Judged>,
        mut picked: Picked,
        trial: Option<(Trial, usize, u64)>,
        tried: Vec<usize>,
    ) {
        let hold = picked.take_hold();
        assert_eq!(hold.is_some(), pool.algorithm.counts());
        if hold.is_some() {
            self.load(&pool, picked.member()).in_flight += 1;
        }
        self.open.push(Attempt {
            pool,
            picked,
            hold,
            trial,
            tried,
            began: self.now,
        });
    }

    fn load(&mut self, pool: &Judged, member: usize) -> &mut crate::model::Load {
        let key = (0, pool.members[member].name);
        self.model.loads.entry(key).or_default()
    }

    /// The lowest (1 + under way) / weight.
    fn judge_least(&mut self, pool: &Judged, picked: usize, among: &[usize]) {
        let mut score = |member: usize| {
            let load = 1 + self.load(pool, member).in_flight;
            f64::from(load) / f64::from(pool.members[member].weight.max(1))
        };
        let least = among
            .iter()
            .map(|&member| score(member))
            .fold(f64::MAX, f64::min);
        assert_eq!(score(picked), least, "the load of {picked} among {among:?}");
    }

    fn judge_quicker(&mut self, pool: &Judged, picked: usize, among: &[usize]) {
        let now = self.now;
        let mut latency = |member: usize| self.load(pool, member).latency(now);
        for &other in among {
            assert!(
                latency(picked) <= latency(other) * 1.001 + 1e-6,
                "{picked} is slower"
            );
        }
    }

    /// An attempt ends, one way or another; maybe the request goes on.
    fn end(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let at = self.chance.index(self.open.len());
        let mut attempt = self.open.swap_remove(at);
        let member = attempt.picked.member();
        let fails = self.chance.one_in(2);
        self.note("ends", || format!("{member} fails: {fails}"));
        if let Some((trial, guard, period)) = attempt.trial {
            let told = (!self.chance.one_in(4)).then_some(!fails);
            if let Some(succeeded) = told {
                let _ = self.monitor.on_trial(&trial, succeeded, self.at(self.now));
            }
            drop(trial);
            self.model.tried(guard, period, told, self.now);
        }
        if let Some(hold) = &mut attempt.hold {
            let took = self.now - attempt.began;
            let now = self.now;
            if self.chance.one_in(2) {
                hold.observe(Duration::from_millis(took), Duration::from_millis(now));
                self.load(&attempt.pool, member).observe(took, now);
            }
            self.load(&attempt.pool, member).in_flight -= 1;
        }
        drop(attempt.hold);
        attempt.tried.push(member);
        if fails {
            self.attempt(attempt.pool, attempt.tried);
        }
    }

    /// A request under way asks whether its pick still holds, and for one attempt more at the same member.
    fn again(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let at = self.chance.index(self.open.len());
        let attempt = &self.open[at];
        let (pool, picked) = (Rc::clone(&attempt.pool), &attempt.picked);
        let member = &pool.members[picked.member()];
        let availability = self.monitor.availability();
        let usable = self.model.usable(member);
        let fails_open = !pool.members.iter().any(|member| self.model.usable(member));
        let holds = match &attempt.trial {
            Some((_, guard, _)) => self.model.half_open(member) == Some(*guard),
            None => picked.epoch() == availability.epoch() || usable || fails_open,
        };
        assert_eq!(pool.pool.holds(picked, &availability), holds);
        let again = pool.pool.again(picked.member(), &availability);
        assert_eq!(again.is_some(), usable || fails_open);
        if let Some(again) = again {
            self.note("repeats", String::new);
            self.hold(pool, again, None, Vec::new());
        }
    }

    fn some_guard(&mut self) -> Option<usize> {
        (!self.guards.is_empty()).then(|| self.chance.index(self.guards.len()))
    }

    fn cool_down(&mut self) {
        let Some(guard) = self.some_guard() else {
            return;
        };
        // One that is told late may be over.
        let until = (self.now + self.chance.range(0, 120)).saturating_sub(20);
        self.note("cool-downs", || format!("{guard} until {until}"));
        let (until_at, now_at) = (self.at(until), self.at(self.now));
        self.monitor.cool_down(self.guards[guard], until_at, now_at);
        self.model.cool_down(guard, until, self.now);
    }

    fn trip(&mut self) {
        let Some(guard) = self.some_guard() else {
            return;
        };
        self.note("trips", || guard.to_string());
        self.monitor.trip(self.guards[guard], self.at(self.now));
        self.model.trip(guard, self.now);
    }

    /// A request that went to a site, or to an address of a name, tells what it met there.
    fn meet(&mut self) {
        let (target, of) = if self.chance.one_in(2) {
            let site = self.chance.index(SITES);
            (self.sites[site], (Place::Site(site), 0))
        } else {
            let name = self.chance.index(NAMES);
            let known: Vec<u8> = self.model.names[name].keys().copied().collect();
            if known.is_empty() {
                return;
            }
            let last = self.chance.choose(&known);
            (self.address(name, last), (Place::Name(name), 1 + last))
        };
        let outcome = self.world.serve(site_of(of), &mut self.luck);
        // A request that began before the latest failure has nothing new to say, if it succeeded.
        let began = self.now.saturating_sub(self.luck.choose(&[0, 0, 10]));
        self.note("requests that told", || {
            format!("{of:?} {outcome:?}, since {began}")
        });
        let (began_at, now) = (self.at(began), self.at(self.now));
        let _ = (self.monitor).on_traffic(target, outcome, &self.passive, began_at, now);
        let Passive {
            healthy_statuses,
            unhealthy_statuses,
            limits,
            ..
        } = &self.passive;
        let event = table::event(outcome, healthy_statuses, unhealthy_statuses);
        let limits = *limits;
        self.learn(of, event, &limits, began, self.now);
    }

    /// The target of an address.
    fn address(&self, name: usize, last: u8) -> TargetId {
        let availability = self.monitor.availability();
        let addresses = availability.addresses(self.groups[name]);
        let mut found = addresses.iter();
        let found = found.find(|address| address.ip == Some(ip(last)));
        found.and_then(|one| one.target).expect("it is listed")
    }

    fn addresses(&mut self) -> BTreeSet<u8> {
        (0..ADDRESSES).filter(|_| self.chance.one_in(2)).collect()
    }

    /// A name has other addresses, trades them with another one, or does not answer.
    fn resolve(&mut self) {
        let name = self.chance.index(NAMES);
        let mut answers = vec![(name, self.addresses())];
        match self.chance.range(0, 4) {
            0 => answers.clear(),
            1 => {
                let of = |name: usize| self.model.names[name].keys().copied().collect();
                answers = vec![(0, of(1)), (1, of(0))];
            }
            _ => {}
        }
        self.note("lookups", || format!("{answers:?}"));
        let changes = answers
            .iter()
            .map(|(name, set)| (self.groups[*name], wanted_addresses(*name, set)));
        self.monitor.regroup(changes.collect(), self.at(self.now));
        for _ in 0..self.model.resolve(&answers) {
            self.note("addresses that begin down", String::new);
        }
        self.forget_probes();
    }

    fn pools(&self) -> impl Iterator<Item = &Judged> {
        let old = self.open.iter().map(|attempt| &*attempt.pool);
        old.chain([&*self.pool])
    }

    fn compare(&mut self) {
        let availability = self.monitor.availability();
        let mut verdicts = BTreeMap::new();
        for (&id, guard) in self.guards.iter().zip(&self.model.guards) {
            assert_eq!(availability.usable(id), guard.usable(), "{guard:?}");
            verdicts.insert(id, guard.usable());
        }
        for (name, &group) in self.groups.iter().enumerate() {
            let known = &self.model.names[name];
            let usable = self.model.place_usable(Place::Name(name));
            assert_eq!(availability.usable(group), usable, "name {name}: {known:?}");
            let any = known.values().any(is_up);
            let expected: BTreeSet<IpAddr> = (known.iter())
                .filter(|(_, state)| is_up(state) || !any)
                .map(|(last, _)| ip(*last))
                .collect();
            let dialled: BTreeSet<IpAddr> = availability.dialable(group, 0).collect();
            assert_eq!(dialled, expected, "name {name}");
            verdicts.insert(group, usable);
        }
        for pool in self.pools() {
            for (number, member) in pool.members.iter().enumerate() {
                let usable = pool.pool.usable(number, &availability);
                assert_eq!(usable, self.model.usable(member), "{member:?}");
            }
            let all = pool.members.iter().all(|member| self.model.usable(member));
            assert_eq!(pool.pool.all_usable(&availability), all);
        }
        // I-19, in one direction: what was flipped has another epoch.
        let (epoch, before) = &self.seen;
        let flipped =
            (verdicts.iter()).any(|(id, now)| before.get(id).is_some_and(|was| was != now));
        assert!(availability.epoch() >= *epoch + u64::from(flipped), "epoch");
        self.seen = (availability.epoch(), verdicts);
        self.compare_targets();
        self.compare_loads();
    }

    fn compare_loads(&mut self) {
        let counting: BTreeSet<(u32, u32)> = (self.pools())
            .filter(|pool| pool.algorithm.counts())
            .flat_map(|pool| pool.members.iter().map(|member| (0, member.name)))
            .collect();
        self.model.loads.retain(|key, _| counting.contains(key));
        let now = Duration::from_millis(self.now);
        for pool in self.pools() {
            for (number, member) in pool.members.iter().enumerate() {
                let Some(load) = pool.pool.load(number, now) else {
                    continue;
                };
                let expected = self.model.loads.get(&(0, member.name));
                let expected = expected.copied().unwrap_or_default();
                assert_eq!(load.in_flight, expected.in_flight, "{member:?}");
                assert_eq!(load.latency.is_some(), expected.average.is_some());
                let found = load.latency.unwrap_or_default().as_secs_f64() * 1_000.0;
                let latency = expected.latency(self.now);
                assert!(
                    (found - latency).abs() <= latency * 1e-3 + 1e-6,
                    "{found} {latency}"
                );
            }
        }
    }
}

const ALGORITHMS: [Algorithm; 4] = [
    Algorithm::LeastConn,
    Algorithm::Ewma,
    Algorithm::RoundRobin,
    Algorithm::Chash,
];

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn spec(name: u32) -> MemberSpec {
    MemberSpec {
        name: format!("m{name:03}"),
        weight: 1,
        priority: 0,
        targets: vec![],
        gate: None,
    }
}

/// How many outcomes decide; in many lives, one.
fn limits(chance: &mut Chance) -> Limits {
    let many = !chance.one_in(3);
    let mut limit = |from: &[u8]| if many { chance.choose(from) } else { 1 };
    Limits {
        successes: limit(&[1, 1, 2, 3]),
        http_failures: limit(&[0, 1, 2, 3]),
        tcp_failures: limit(&[1, 1, 2, 3]),
        timeouts: limit(&[0, 1, 2, 3]),
    }
}

/// Where a target really is.
fn site_of((place, number): Probed) -> usize {
    match place {
        Place::Site(site) => site,
        Place::Name(_) => SITES + usize::from(number - 1),
        Place::Anywhere => unreachable!("nobody checks it"),
    }
}

fn wanted_addresses(name: usize, set: &BTreeSet<u8>) -> Vec<WantedAddress<Probed>> {
    let address = |&last: &u8| WantedAddress {
        ip: Some(ip(last)),
        probe: (Place::Name(name), 1 + last),
        place: Some((Place::Anywhere, last)),
    };
    set.iter().map(address).collect()
}
