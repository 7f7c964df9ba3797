//! What is behind a name: addresses that come and go, and count as one.
//!
//! A *group* has an id like a target but is not probed: its addresses are, each as a target with a
//! verdict of its own. A member of a pool at a name has the group as its target, and may be picked iff
//! any of the group's addresses may be. Which addresses there are is published with the verdicts, in one
//! value: a pick and the choice of an address by the same snapshot cannot contradict each other.
//!
//! A change of addresses touches its group alone. Pools do not notice.

mod departed;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::departed::Departed;
use super::address_book::AddressBook;
use super::effort;
use super::monitor::{Definition, Monitor, Wanted};
use super::schedule::Seat;
use super::state::State;
use crate::TargetId;

/// One user's wish to have all addresses of a name checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedGroup<P> {
    /// The name, what its addresses are asked, how, and who wants it. Users of equal probes and
    /// policies share one group.
    pub whole: Wanted<P>,
    /// Its addresses as far as they are known; none before the first answer.
    pub addresses: Vec<WantedAddress<P>>,
}

/// An address that a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedAddress<P> {
    /// It. `None`: the name could not be resolved so far, and is probed as it is.
    pub ip: Option<IpAddr>,
    /// What to probe there; without effect in a group that is not checked.
    pub probe: P,
    /// The same, whatever the name. What is known to be down under one name and turns up under another
    /// starts down there, too, until its own probes say better.
    pub place: Option<P>,
}

/// An address of a group, as published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// It; `None` stands for a name that was never resolved.
    pub ip: Option<IpAddr>,
    /// What says whether it may be dialled; `None`: nothing does, it may.
    pub target: Option<TargetId>,
}

/// All groups of a process.
#[derive(Debug)]
pub(super) struct Groups<P> {
    by_id: HashMap<TargetId, Group<P>>,
    by_definition: HashMap<Arc<Definition<P>>, TargetId>,
    by_lineage: HashMap<String, TargetId>,
    /// Those that are not checked, by the name alone.
    unchecked: HashMap<P, TargetId>,
    /// The groups that a target belongs to.
    of: HashMap<TargetId, BTreeSet<TargetId>>,
    places: HashMap<P, BTreeSet<TargetId>>,
    place_of: HashMap<TargetId, P>,
    /// Targets that somebody wants by themselves.
    alone: HashSet<TargetId>,
    departed: Departed<P>,
    /// Groups that nobody wants any more, oldest first. Requests that began under an old configuration
    /// may still pick by their last addresses.
    retired: VecDeque<Retired>,
}

#[derive(Debug)]
struct Group<P> {
    /// `None`: not checked.
    definition: Option<Arc<Definition<P>>>,
    checker: String,
    addresses: Arc<[Address]>,
    /// Whether the configuration being compiled has asked for it, if it is not checked.
    wanted: bool,
}

/// A group that nobody wants any more.
#[derive(Debug)]
struct Retired {
    id: TargetId,
    addresses: Arc<[Address]>,
    since: Instant,
}

/// A distinct wish for a group, and who has it.
pub(super) struct GroupWish<P> {
    definition: Arc<Definition<P>>,
    lineages: Vec<String>,
    checker: String,
    addresses: Vec<WantedAddress<P>>,
}

/// An address to be checked, on its way to becoming a target.
pub(super) struct Candidate<P> {
    pub(super) definition: Arc<Definition<P>>,
    pub(super) checker: String,
    /// Targets whose place it takes.
    pub(super) ancestors: BTreeSet<TargetId>,
    /// Where it is, whatever the name.
    pub(super) place: Option<P>,
}

impl<P: Clone + Eq + Hash> Groups<P> {
    /// Settles which checked groups exist. Returns the group of each wish, in order, and the distinct
    /// wishes with their groups.
    pub(super) fn assign(
        &mut self,
        wanted: Vec<WantedGroup<P>>,
        mut issue: impl FnMut() -> TargetId,
    ) -> (Vec<TargetId>, Vec<(TargetId, GroupWish<P>)>) {
        let (wishes, of) = distinct(wanted);
        let mut taken: HashSet<TargetId> = (wishes.iter())
            .filter_map(|wish| self.by_definition.get(&wish.definition).copied())
            .collect();
        let mut settled = Vec::with_capacity(wishes.len());
        for wish in wishes {
            let known = self.by_definition.get(&wish.definition).copied();
            let id = known.unwrap_or_else(|| {
                let ancestors = self.ancestors(&wish);
                let heir = ancestors.into_iter().find(|id| !taken.contains(id));
                heir.unwrap_or_else(&mut issue)
            });
            taken.insert(id);
            settled.push((id, wish));
        }
        let ids = of.into_iter().map(|place| settled[place].0).collect();
        (ids, settled)
    }

    /// The addresses that wishes want checked, wish by wish.
    pub(super) fn candidates(&self, wish: &GroupWish<P>) -> Vec<Candidate<P>> {
        let before = self.ancestors(wish);
        let same = |ip: Option<IpAddr>| {
            let addresses = before.iter().filter_map(|id| self.by_id.get(id));
            let addresses = addresses.flat_map(|group| group.addresses.iter());
            addresses
                .filter(move |address| address.ip == ip)
                .filter_map(|address| address.target)
                .collect()
        };
        let of_address = |address: &WantedAddress<P>| Candidate {
            definition: Arc::new(Definition {
                probe: address.probe.clone(),
                policy: wish.definition.policy.clone(),
            }),
            checker: wish.checker.clone(),
            ancestors: same(address.ip),
            place: address.place.clone(),
        };
        wish.addresses.iter().map(of_address).collect()
    }

    /// The wishes that made the checked groups, as far as `is_meant` by their lineages; `probe_of` is what a
    /// target is asked.
    pub(super) fn wishes(
        &self,
        is_meant: impl Fn(&String) -> bool,
        probe_of: impl Fn(TargetId) -> Option<P>,
    ) -> Vec<WantedGroup<P>> {
        let wish = |(line, id): (&String, &TargetId)| {
            let group = self.by_id.get(id)?;
            let definition = group.definition.as_ref()?;
            let address = |address: &Address| {
                let target = address.target?;
                Some(WantedAddress {
                    ip: address.ip,
                    probe: probe_of(target)?,
                    place: self.place_of.get(&target).cloned(),
                })
            };
            Some(WantedGroup {
                whole: Wanted {
                    probe: definition.probe.clone(),
                    policy: definition.policy.clone(),
                    lineage: line.clone(),
                    checker: group.checker.clone(),
                },
                addresses: group.addresses.iter().filter_map(address).collect(),
            })
        };
        let lines = self.by_lineage.iter().filter(|(line, _)| is_meant(line));
        lines.filter_map(wish).collect()
    }

    fn ancestors(&self, wish: &GroupWish<P>) -> BTreeSet<TargetId> {
        let lines = wish.lineages.iter();
        lines
            .filter_map(|line| self.by_lineage.get(line).copied())
            .collect()
    }

    /// Makes `settled` all checked groups, each with the targets of its addresses, and `alone` the
    /// targets that are wanted by themselves.
    pub(super) fn replace_checked(
        &mut self,
        settled: Vec<(TargetId, GroupWish<P>)>,
        mut targets: impl Iterator<Item = TargetId>,
        alone: HashSet<TargetId>,
        now: Instant,
    ) {
        let mut earlier = std::mem::take(&mut self.by_id);
        self.by_definition.clear();
        self.by_lineage.clear();
        self.of.clear();
        self.places.clear();
        self.place_of.clear();
        self.alone = alone;
        for (id, wish) in settled {
            earlier.remove(&id);
            let mut addresses = Vec::with_capacity(wish.addresses.len());
            for wanted in wish.addresses {
                let target = targets.next();
                if let Some(target) = target {
                    self.join(target, id, wanted.place);
                }
                let ip = wanted.ip;
                addresses.push(Address { ip, target });
            }
            let lines = wish.lineages.into_iter().map(|line| (line, id));
            self.by_lineage.extend(lines);
            self.by_definition.insert(Arc::clone(&wish.definition), id);
            let group = Group {
                definition: Some(wish.definition),
                checker: wish.checker,
                addresses: addresses.into(),
                wanted: true,
            };
            self.by_id.insert(id, group);
        }
        for (id, group) in earlier {
            if group.definition.is_none() {
                self.by_id.insert(id, group);
            } else {
                self.retire(id, group.addresses, now);
            }
        }
    }

    fn join(&mut self, target: TargetId, group: TargetId, place: Option<P>) {
        self.of.entry(target).or_default().insert(group);
        if let Some(place) = place {
            let there = self.places.entry(place.clone()).or_default();
            there.insert(target);
            self.place_of.insert(target, place);
        }
    }

    /// Takes a target out of a group. Returns whether nobody wants it any more.
    fn leave(&mut self, target: TargetId, group: TargetId) -> bool {
        if let Some(groups) = self.of.get_mut(&target) {
            groups.remove(&group);
            if !groups.is_empty() {
                return false;
            }
            self.of.remove(&target);
        }
        if self.alone.contains(&target) {
            return false;
        }
        if let Some(place) = self.place_of.get(&target)
            && let Some(there) = self.places.get_mut(place)
        {
            there.remove(&target);
            if there.is_empty() {
                self.places.remove(place);
            }
        }
        true
    }

    fn retire(&mut self, id: TargetId, addresses: Arc<[Address]>, since: Instant) {
        let is_over =
            |retired: &Retired| since.saturating_duration_since(retired.since) > RETIRED_FOR;
        while self.retired.len() >= RETIRED_MAX || self.retired.front().is_some_and(is_over) {
            self.retired.pop_front();
        }
        self.retired.push_back(Retired {
            id,
            addresses,
            since,
        });
    }

    /// Every group and its addresses.
    pub(super) fn published(&self) -> AddressBook {
        let present = self.by_id.iter();
        let mut all: Vec<_> = present
            .map(|(&id, group)| (id, Arc::clone(&group.addresses)))
            .chain((self.retired.iter()).map(|old| (old.id, Arc::clone(&old.addresses))))
            .collect();
        effort::spend(all.len());
        all.sort_unstable_by_key(|&(id, _)| id);
        AddressBook::new(&all)
    }

    /// The groups that a target belongs to.
    pub(super) fn of(&self, target: TargetId) -> impl Iterator<Item = TargetId> + '_ {
        self.of.get(&target).into_iter().flatten().copied()
    }

    /// All checked groups.
    pub(super) fn checked(&self) -> impl Iterator<Item = TargetId> + '_ {
        let checked = self.by_id.iter().filter(|(_, g)| g.definition.is_some());
        checked.map(|(&id, _)| id)
    }

    fn addresses(&self, group: TargetId) -> &[Address] {
        let group = self.by_id.get(&group);
        group.map_or(&[], |group| &group.addresses)
    }
}

impl<P: Clone + Eq + Hash> Monitor<P> {
    /// Replaces the addresses of groups, all at once. Addresses that stay keep all that is known about
    /// them; what is new is due at once; what is gone is forgotten, unless somebody else wants it.
    /// Groups that do not exist any more are left out. Costs as much as there are addresses in these
    /// groups, however many users they have and whatever else is watched. Returns the targets that are
    /// new.
    ///
    /// # Panics
    ///
    /// After four billion targets in the life of the process.
    pub fn regroup(
        &mut self,
        changes: Vec<(TargetId, Vec<WantedAddress<P>>)>,
        now: Instant,
    ) -> Vec<TargetId> {
        let mut verdicts: Vec<(TargetId, bool)> = Vec::new();
        let (mut left, mut changed, mut new) = (Vec::new(), Vec::new(), Vec::new());
        for (id, wanted) in changes {
            let Some(group) = self.groups.by_id.get(&id) else {
                continue;
            };
            let (definition, checker) = (group.definition.clone(), group.checker.clone());
            let before = Arc::clone(&group.addresses);
            let mut addresses = Vec::with_capacity(wanted.len());
            for wanted in wanted {
                let ip = wanted.ip;
                let target = definition.as_ref().map(|definition| {
                    let (target, is_new) = self.admit(wanted, definition, &checker, id, now);
                    new.extend(is_new.then_some(target));
                    verdicts.push((target, self.targets[&target].state.status.usable()));
                    target
                });
                addresses.push(Address { ip, target });
            }
            if *before == *addresses {
                continue;
            }
            let stays = |target: TargetId| addresses.iter().any(|a| a.target == Some(target));
            let gone = before.iter().filter_map(|address| address.target);
            left.extend(gone.filter(|&gone| !stays(gone)).map(|gone| (gone, id)));
            let addresses: Arc<[Address]> = addresses.into();
            if let Some(group) = self.groups.by_id.get_mut(&id) {
                group.addresses = Arc::clone(&addresses);
            }
            changed.push((id, addresses));
            if definition.is_some() {
                verdicts.push((id, self.group_usable(id)));
            }
        }
        // Only now, so that what moves from one group to another is never without either.
        for (target, group) in left {
            if self.groups.leave(target, group) {
                self.drop_target(target, now);
            }
        }
        if !changed.is_empty() {
            self.publish(verdicts);
            let availability = self.writable();
            for (group, addresses) in changed {
                availability.regroup(group, addresses);
            }
            self.settle_those(&new);
        }
        new
    }

    /// The group of a name that nobody checks: all of its addresses may be dialled. Equal ones are one.
    /// `addresses` count if it is new. The availability that knows it must be published before anybody
    /// uses it.
    ///
    /// Keeps it until the second [`sweep_groups`](Self::sweep_groups) from now, as with guards.
    pub fn unchecked_group(&mut self, name: P, addresses: &[IpAddr]) -> TargetId {
        if let Some(&id) = self.groups.unchecked.get(&name) {
            if let Some(group) = self.groups.by_id.get_mut(&id) {
                group.wanted = true;
            }
            return id;
        }
        let id = self.issue();
        let addresses = addresses.iter().map(|&ip| Address {
            ip: Some(ip),
            target: None,
        });
        let addresses: Arc<[Address]> = addresses.collect();
        let group = Group {
            definition: None,
            checker: String::new(),
            addresses: Arc::clone(&addresses),
            wanted: true,
        };
        self.groups.by_id.insert(id, group);
        self.groups.unchecked.insert(name, id);
        self.publish([(id, true)]);
        self.writable().regroup(id, addresses);
        id
    }

    /// Forgets the unchecked groups that nobody asked for since the last call.
    pub fn sweep_groups(&mut self, now: Instant) {
        let Groups {
            by_id, unchecked, ..
        } = &mut self.groups;
        let mut unwanted = Vec::new();
        unchecked.retain(|_, id| {
            let is_wanted = by_id
                .get_mut(id)
                .is_some_and(|group| std::mem::take(&mut group.wanted));
            if !is_wanted {
                unwanted.push(*id);
            }
            is_wanted
        });
        for id in unwanted {
            if let Some(group) = self.groups.by_id.remove(&id) {
                self.groups.retire(id, group.addresses, now);
            }
        }
    }

    /// Whether there is such a group, and it is not retired.
    #[must_use]
    pub fn has_group(&self, group: TargetId) -> bool {
        self.groups.by_id.contains_key(&group)
    }

    /// The groups that a target is an address of.
    pub fn groups_of(&self, target: TargetId) -> impl Iterator<Item = TargetId> + '_ {
        self.groups.of(target)
    }

    /// Whether a member at a group may be picked: some address may be dialled, or none is known yet.
    pub(super) fn group_usable(&self, group: TargetId) -> bool {
        let addresses = self.groups.addresses(group);
        let usable = |address: &Address| {
            let target = address.target.and_then(|target| self.targets.get(&target));
            target.is_none_or(|target| target.state.status.usable())
        };
        addresses.is_empty() || addresses.iter().any(usable)
    }

    /// The target of an address that joins a group, and whether it was made for that.
    fn admit(
        &mut self,
        wanted: WantedAddress<P>,
        whole: &Definition<P>,
        checker: &str,
        group: TargetId,
        now: Instant,
    ) -> (TargetId, bool) {
        let definition = Arc::new(Definition {
            probe: wanted.probe,
            policy: whole.policy.clone(),
        });
        let place = wanted.place;
        let known = self.by_definition.get(&definition).copied();
        let id = known.unwrap_or_else(|| {
            let is_down = (place.as_ref()).is_some_and(|place| self.is_known_down(place, now));
            let id = self.issue();
            if is_down {
                self.inherited.push(id);
            }
            self.watch(id, &definition, State::with_verdict(!is_down));
            self.by_definition.insert(definition, id);
            let seat = Seat {
                target: id,
                checker: checker.to_owned(),
                concurrency: whole.policy.concurrency,
            };
            self.schedule.add(seat, now);
            id
        });
        if let Some(place) = &place {
            // From here on its target says how it is.
            self.groups.departed.forget(place);
        }
        self.groups.join(id, group, place);
        (id, known.is_none())
    }

    fn drop_target(&mut self, id: TargetId, now: Instant) {
        let place = self.groups.place_of.remove(&id);
        self.schedule.remove(id);
        let Some(target) = self.targets.remove(&id) else {
            return;
        };
        self.by_definition.remove(target.definition());
        self.writable().forget(id);
        if let Some(place) = place {
            self.groups.departed.forget(&place);
            self.depart((!target.state.status.usable()).then_some(place), now);
        }
    }
}

impl<P> Default for Groups<P> {
    fn default() -> Self {
        Self {
            by_id: HashMap::new(),
            by_definition: HashMap::new(),
            by_lineage: HashMap::new(),
            unchecked: HashMap::new(),
            of: HashMap::new(),
            places: HashMap::new(),
            place_of: HashMap::new(),
            alone: HashSet::new(),
            departed: Departed::default(),
            retired: VecDeque::new(),
        }
    }
}

/// Wishes by definition, and for each wish as given, its place among them. Of equal ones the first says
/// which addresses there are.
fn distinct<P: Eq + Hash>(wanted: Vec<WantedGroup<P>>) -> (Vec<GroupWish<P>>, Vec<usize>) {
    let mut wishes: Vec<GroupWish<P>> = Vec::new();
    let mut places: HashMap<Arc<Definition<P>>, usize> = HashMap::new();
    let mut of = Vec::with_capacity(wanted.len());
    for WantedGroup { whole, addresses } in wanted {
        let definition = Arc::new(Definition {
            probe: whole.probe,
            policy: whole.policy,
        });
        let place = *places
            .entry(Arc::clone(&definition))
            .or_insert(wishes.len());
        match wishes.get_mut(place) {
            Some(wish) => wish.lineages.push(whole.lineage),
            None => wishes.push(GroupWish {
                definition,
                lineages: vec![whole.lineage],
                checker: whole.checker,
                addresses,
            }),
        }
        of.push(place);
    }
    (wishes, of)
}

/// How long groups are kept for requests of old configurations: those pick anew only while they have had no
/// answer.
const RETIRED_FOR: Duration = Duration::from_secs(3600);
/// The most of them.
const RETIRED_MAX: usize = 1 << 16;

#[cfg(test)]
#[path = "group/tests.rs"]
mod tests;
