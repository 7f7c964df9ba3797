//! Groups: the addresses of a name count as one, and come and go without a pool noticing.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use pointsman_balance::{
    Algorithm, Monitor, Policy, ProbeOutcome, Status, TargetId, Wanted, WantedAddress, WantedGroup,
};
use support::{member, pick, pool, start};

/// Name and address: what is probed.
type Spec = (String, u8);

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn policy() -> Policy {
    Policy {
        successes: 1,
        tcp_failures: 1,
        concurrency: u32::MAX,
        ..Policy::default()
    }
}

fn address(name: &str, last: u8) -> WantedAddress<Spec> {
    WantedAddress {
        ip: Some(ip(last)),
        probe: (name.to_owned(), last),
        place: Some((String::new(), last)),
    }
}

fn addresses(name: &str, set: &[u8]) -> Vec<WantedAddress<Spec>> {
    set.iter().map(|&last| address(name, last)).collect()
}

fn group(name: &str, set: &[u8]) -> WantedGroup<Spec> {
    WantedGroup {
        whole: Wanted {
            probe: (name.to_owned(), 0),
            policy: policy(),
            lineage: format!("route/{name}"),
            checker: name.to_owned(),
        },
        addresses: addresses(name, set),
    }
}

/// A monitor, and a world in which addresses are up or down whatever their name.
struct World {
    monitor: Monitor<Spec>,
    down: BTreeSet<u8>,
    now: Instant,
    probed: Vec<Spec>,
}

impl World {
    fn new(groups: &[(&str, &[u8])]) -> (Self, Vec<TargetId>) {
        let mut monitor = Monitor::new();
        let now = start();
        let wanted = groups.iter().map(|(name, set)| group(name, set)).collect();
        let (alone, ids) = monitor.reconcile_with(Vec::new(), wanted, now);
        assert_eq!(alone, []);
        let world = Self {
            monitor,
            down: BTreeSet::new(),
            now,
            probed: Vec::new(),
        };
        (world, ids)
    }

    fn probe(&mut self) {
        self.now += Duration::from_secs(2);
        while let Some(probe) = self.monitor.poll_probe(self.now) {
            let outcome = if self.down.contains(&probe.probe.1) {
                ProbeOutcome::TcpFailure
            } else {
                ProbeOutcome::TcpOk
            };
            self.probed.push(probe.probe.clone());
            self.monitor.on_probe(probe.ticket, outcome, self.now);
        }
    }

    fn change(&mut self, id: TargetId, name: &str, set: &[u8]) {
        self.monitor
            .regroup(vec![(id, addresses(name, set))], self.now);
    }

    /// Whether the group may be picked, and the addresses that would be dialled.
    fn seen(&self, id: TargetId) -> (bool, Vec<IpAddr>) {
        let availability = self.monitor.availability();
        let dialled = availability.dialable(id, 0).collect();
        (availability.usable(id), dialled)
    }

    fn epoch(&self) -> u64 {
        self.monitor.availability().epoch()
    }
}

#[test]
fn a_group_is_usable_iff_one_of_its_addresses_is() {
    let (mut world, ids) = World::new(&[("a", &[1, 2])]);
    assert_eq!(world.seen(ids[0]), (true, vec![ip(1), ip(2)]));
    world.down = BTreeSet::from([1]);
    world.probe();
    assert_eq!(world.seen(ids[0]), (true, vec![ip(2)]));
    let before = world.epoch();
    world.down = BTreeSet::from([1, 2]);
    world.probe();
    // One flip is one epoch, also when it decides about the group; fail-open offers all.
    assert_eq!(world.epoch(), before + 1);
    assert_eq!(world.seen(ids[0]), (false, vec![ip(1), ip(2)]));
    world.down.clear();
    world.probe();
    assert_eq!(world.seen(ids[0]), (true, vec![ip(1), ip(2)]));
}

/// For whoever has waited since the pick: what is gone, or has fallen while others stand, is not dialled.
#[test]
fn an_address_may_be_dialled_as_long_as_it_is_offered() {
    let (mut world, ids) = World::new(&[("a", &[1, 2])]);
    let may = |world: &World| {
        let availability = world.monitor.availability();
        [1, 2, 3].map(|last| availability.may_dial(ids[0], ip(last)))
    };
    assert_eq!(may(&world), [true, true, false]);
    world.down = BTreeSet::from([1]);
    world.probe();
    assert_eq!(may(&world), [false, true, false]);
    world.down = BTreeSet::from([1, 2]);
    world.probe();
    assert_eq!(may(&world), [true, true, false]);
    world.change(ids[0], "a", &[3]);
    assert_eq!(may(&world), [false, false, true]);
    // Before the first answer the name itself was dialled.
    world.change(ids[0], "a", &[]);
    assert_eq!(may(&world), [true, true, true]);
}

/// A pool does not notice: the member's one bit follows.
#[test]
fn a_member_at_a_group_follows_it_through_changes_of_its_addresses() {
    let (mut world, ids) = World::new(&[("a", &[1]), ("b", &[2])]);
    let members = vec![member("a", 1, 0, &[ids[0]]), member("b", 1, 0, &[ids[1]])];
    let pool = pool(members, Algorithm::RoundRobin);
    let names = |world: &World| -> BTreeSet<String> {
        let availability = world.monitor.availability();
        let picked = (0..4).map(|_| pick(&pool, "", &availability).unwrap().member());
        picked.map(|member| pool.name(member).to_owned()).collect()
    };
    world.down = BTreeSet::from([1]);
    world.probe();
    assert_eq!(names(&world), BTreeSet::from(["b".to_owned()]));
    world.change(ids[0], "a", &[1, 3]);
    assert_eq!(world.seen(ids[0]), (true, vec![ip(3)]));
    assert_eq!(names(&world).len(), 2);
    world.change(ids[0], "a", &[1]);
    assert_eq!(names(&world), BTreeSet::from(["b".to_owned()]));
}

/// what is not listed any more is not dialled, nor probed; what stays keeps its state.
#[test]
fn survivors_keep_their_state_and_the_rest_is_gone() {
    let (mut world, ids) = World::new(&[("a", &[1, 2, 3])]);
    world.down = BTreeSet::from([1]);
    world.probe();
    let target = |world: &World, last: u8| {
        let availability = world.monitor.availability();
        let found = availability.addresses(ids[0]).iter();
        let mut found = found.filter(|address| address.ip == Some(ip(last)));
        found.next().and_then(|address| address.target)
    };
    let (one, two, three) = (target(&world, 1), target(&world, 2), target(&world, 3));
    world.change(ids[0], "a", &[1, 2, 4]);
    assert_eq!((target(&world, 1), target(&world, 2)), (one, two));
    let status = |id: TargetId| world.monitor.report(id).map(|report| report.status);
    assert_eq!(status(one.unwrap()), Some(Status::Unhealthy));
    assert_eq!(status(three.unwrap()), None);
    world.probed.clear();
    world.probe();
    let probed: BTreeSet<u8> = world.probed.iter().map(|spec| spec.1).collect();
    assert_eq!(probed, BTreeSet::from([1, 2, 4]));
    // The same set again is no change.
    let epoch = world.epoch();
    world.change(ids[0], "a", &[1, 2, 4]);
    assert_eq!(world.epoch(), epoch);
}

/// I-14: a probe of an address that has left has no effect, and its slot is free.
#[test]
fn the_answer_of_a_gone_address_has_no_effect() {
    let (mut world, ids) = World::new(&[("a", &[1])]);
    let late = world.monitor.poll_probe(world.now).unwrap();
    world.change(ids[0], "a", &[2]);
    let epoch = world.epoch();
    let now = world.now;
    assert_eq!(
        world
            .monitor
            .on_probe(late.ticket, ProbeOutcome::TcpFailure, now),
        None
    );
    assert_eq!(world.epoch(), epoch);
    assert_eq!(world.monitor.poll_probe(now).unwrap().probe.1, 2);
}

/// An address that is down stays down under whatever name it turns up, in either order, and when it
/// comes back.
#[test]
fn verdicts_stay_with_addresses() {
    for first in [0, 1] {
        let names = ["a", "b"];
        let (mut world, ids) = World::new(&[("a", &[1]), ("b", &[2])]);
        world.down = BTreeSet::from([1]);
        world.probe();
        let swapped: [&[u8]; 2] = [&[2], &[1]];
        for at in [first, 1 - first] {
            world.change(ids[at], names[at], swapped[at]);
        }
        assert!(world.seen(ids[0]).0);
        assert!(!world.seen(ids[1]).0);
        // Its own probes, due at once, have the last word.
        world.down.clear();
        world.probe();
        assert!(world.seen(ids[1]).0);
        world.change(ids[1], "b", &[2]);
        world.change(ids[1], "b", &[1]);
        assert!(world.seen(ids[1]).0);
    }
    let (mut world, ids) = World::new(&[("a", &[1, 2])]);
    world.down = BTreeSet::from([1]);
    world.probe();
    world.change(ids[0], "a", &[2]);
    world.change(ids[0], "a", &[1]);
    assert!(!world.seen(ids[0]).0);
    // Not for ever.
    world.change(ids[0], "a", &[2]);
    world.now += Duration::from_secs(3600);
    world.change(ids[0], "a", &[1]);
    assert!(world.seen(ids[0]).0);
}

/// D-4, I-10 for names: another probe of the same member keeps the verdicts of its addresses.
#[test]
fn another_definition_takes_the_verdicts_over() {
    let (mut world, ids) = World::new(&[("a", &[1, 2])]);
    world.down = BTreeSet::from([1]);
    world.probe();
    let mut changed = group("a", &[1, 2]);
    changed.whole.policy.timeouts = 7;
    let (_, again) = world
        .monitor
        .reconcile_with(Vec::new(), vec![changed], world.now);
    assert_eq!(again, ids);
    assert_eq!(world.seen(ids[0]), (true, vec![ip(2)]));
    // A group of its own that equals nothing starts healthy, and the old one stays to be seen.
    let (_, other) = world
        .monitor
        .reconcile_with(Vec::new(), vec![group("c", &[5])], world.now);
    assert_ne!(other, ids);
    assert_eq!(world.seen(ids[0]), (true, vec![ip(2)]));
    assert_eq!(world.seen(other[0]), (true, vec![ip(5)]));
}

#[test]
fn equal_groups_are_one_and_a_target_may_have_many_users() {
    let mut monitor = Monitor::new();
    let now = start();
    let alone = Wanted {
        probe: ("a".to_owned(), 1),
        policy: policy(),
        lineage: "alone".to_owned(),
        checker: "alone".to_owned(),
    };
    let wanted = vec![group("a", &[1]), group("a", &[1])];
    let (ids, groups) = monitor.reconcile_with(vec![alone], wanted, now);
    assert_eq!(groups[0], groups[1]);
    let availability = monitor.availability();
    assert_eq!(availability.addresses(groups[0])[0].target, Some(ids[0]));
    // Who wants it alone keeps it.
    monitor.regroup(vec![(groups[0], addresses("a", &[2]))], now);
    assert!(monitor.report(ids[0]).is_some());
}

#[test]
fn names_that_nobody_checks_are_always_usable() {
    let mut monitor: Monitor<Spec> = Monitor::new();
    let now = start();
    let name = || ("a".to_owned(), 0);
    let id = monitor.unchecked_group(name(), &[]);
    assert_eq!(monitor.unchecked_group(name(), &[ip(9)]), id);
    assert_eq!(monitor.availability().dialable(id, 0).count(), 0);
    monitor.regroup(vec![(id, addresses("a", &[1, 2]))], now);
    let dialled = |monitor: &Monitor<Spec>, turn: usize| -> Vec<IpAddr> {
        monitor.availability().dialable(id, turn).collect()
    };
    assert_eq!(dialled(&monitor, 0), [ip(1), ip(2)]);
    assert_eq!(dialled(&monitor, 3), [ip(2), ip(1)]);
    assert!(monitor.availability().usable(id));
    assert!(monitor.poll_probe(now).is_none());
    // A reconciliation leaves it alone; a sweep does not, but its addresses stay to be seen.
    monitor.reconcile(Vec::new(), now);
    monitor.sweep_groups(now);
    assert_eq!(monitor.unchecked_group(name(), &[]), id);
    monitor.sweep_groups(now);
    monitor.sweep_groups(now);
    assert_ne!(monitor.unchecked_group(name(), &[]), id);
    assert_eq!(dialled(&monitor, 0), [ip(1), ip(2)]);
}

/// The slots of a checker are counted right while its targets come and go.
#[test]
fn concurrency_holds_across_changes() {
    let mut wanted = group("a", &[1, 2, 3]);
    wanted.whole.policy.concurrency = 1;
    let mut monitor = Monitor::new();
    let now = start();
    let (_, ids) = monitor.reconcile_with(Vec::new(), vec![wanted], now);
    let first = monitor.poll_probe(now).unwrap();
    assert!(monitor.poll_probe(now).is_none());
    let gone = first.probe.1;
    let kept: Vec<u8> = [1, 2, 3, 4]
        .into_iter()
        .filter(|&last| last != gone)
        .collect();
    monitor.regroup(vec![(ids[0], addresses("a", &kept))], now);
    let mut seen = Vec::new();
    while let Some(probe) = monitor.poll_probe(now) {
        assert!(monitor.poll_probe(now).is_none());
        seen.push(probe.probe.1);
        monitor.on_probe(probe.ticket, ProbeOutcome::TcpOk, now);
    }
    seen.sort_unstable();
    assert_eq!(seen, kept);
}

/// I-16: a slot that an address leaves behind goes to one that stays, though the next in the queue leaves, too.
#[test]
fn a_slot_is_not_lost_with_those_who_waited_for_it() {
    let mut wanted = group("a", &[1, 2, 3]);
    wanted.whole.policy.concurrency = 1;
    let (mut monitor, now) = (Monitor::new(), start());
    let (_, ids) = monitor.reconcile_with(Vec::new(), vec![wanted], now);
    let first = monitor.poll_probe(now).expect("all are due").probe.1;
    assert!(monitor.poll_probe(now).is_none(), "one at a time");
    assert_eq!(first, 1);
    monitor.regroup(vec![(ids[0], addresses("a", &[3]))], now);
    let next = monitor.poll_probe(now).expect("the slot is free");
    assert_eq!(next.probe.1, 3);
}

#[derive(Debug, Clone)]
enum Step {
    /// The name at this place resolves to this set.
    Resolve(usize, BTreeSet<u8>),
    /// These addresses are down from now on, and everything is probed.
    Probe(BTreeSet<u8>),
    /// The same configuration again, or with the names in another order.
    Reload(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let set = || prop::collection::btree_set(1u8..6, 0..4);
    let step = prop_oneof![
        (0usize..3, prop::collection::btree_set(1u8..6, 1..4))
            .prop_map(|(n, s)| Step::Resolve(n, s)),
        set().prop_map(Step::Probe),
        any::<bool>().prop_map(Step::Reload),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    /// I-2, I-9, I-15, I-19 for names, against a model that is two maps: what is published of a group is
    /// its newest set and the verdicts of its addresses; a verdict is of an address, whatever names it
    /// has had; nothing changes without a new epoch; only what is listed is probed.
    #[test]
    fn groups_follow_the_model(steps in steps()) {
        const NAMES: [&str; 3] = ["a", "b", "c"];
        let (mut world, ids) = World::new(&[("a", &[]), ("b", &[]), ("c", &[])]);
        let mut sets: [BTreeSet<u8>; 3] = Default::default();
        let mut down: BTreeMap<u8, bool> = BTreeMap::new();
        for step in steps {
            let before = (world.epoch(), ids.iter().map(|&id| world.seen(id)).collect::<Vec<_>>());
            match step {
                Step::Resolve(name, set) => {
                    let listed: Vec<u8> = set.iter().copied().collect();
                    world.change(ids[name], NAMES[name], &listed);
                    sets[name] = set;
                }
                Step::Probe(now_down) => {
                    world.down = now_down;
                    world.probed.clear();
                    world.probe();
                    let listed: BTreeSet<u8> = sets.iter().flatten().copied().collect();
                    let probed: BTreeSet<u8> = world.probed.iter().map(|spec| spec.1).collect();
                    prop_assert_eq!(&probed, &listed);
                    for &last in &listed {
                        down.insert(last, world.down.contains(&last));
                    }
                }
                Step::Reload(reversed) => {
                    let mut wanted: Vec<_> = NAMES.iter().zip(&sets).map(|(name, set)| {
                        let listed: Vec<u8> = set.iter().copied().collect();
                        group(name, &listed)
                    }).collect();
                    if reversed { wanted.reverse(); }
                    let (_, mut again) = world.monitor.reconcile_with(Vec::new(), wanted, world.now);
                    if reversed { again.reverse(); }
                    prop_assert_eq!(&again, &ids);
                }
            }
            for (id, set) in ids.iter().zip(&sets) {
                let (usable, dialled) = world.seen(*id);
                let is_down = |last: &&u8| down.get(*last).copied().unwrap_or_default();
                let up: Vec<IpAddr> = set.iter().filter(|last| !is_down(last)).map(|&l| ip(l)).collect();
                let all: Vec<IpAddr> = set.iter().map(|&last| ip(last)).collect();
                prop_assert_eq!(usable, set.is_empty() || !up.is_empty());
                prop_assert_eq!(dialled, if up.is_empty() { all } else { up });
            }
            let after = ids.iter().map(|&id| world.seen(id)).collect::<Vec<_>>();
            prop_assert!(after == before.1 || world.epoch() > before.0);
        }
    }
}
