//! Which targets there are: what a configuration wants, and what the one before it still needs.
//!
//! A configuration is compiled before it is in force, and requests go by the one before meanwhile. So what
//! only that one wants *lingers*: it is probed, judged and told about until the new one is in force, and
//! what is new is probed from then on.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

use super::{Definition, Monitor, Wanted, next_id};
use crate::TargetId;
use crate::health::group::{Candidate, WantedGroup};
use crate::health::schedule::Seat;
use crate::health::state::State;

/// Lineages of wishes that only the configuration before has.
#[derive(Debug, Default)]
pub(super) struct Lingering {
    targets: HashSet<String>,
    groups: HashSet<String>,
}

impl<P: Clone + Eq + Hash> Monitor<P> {
    /// Makes `wanted` all that is watched, and returns the target of each, in the same order.
    ///
    /// A definition that is watched already keeps its target and all that is known about it. One that
    /// replaces another under the same lineage keeps the id, if nobody else uses that, and the verdict,
    /// so that requests under the old configuration go on seeing the truth; its probe in flight is
    /// void. Everything else starts healthy and is due at once. Targets nobody wants any more get no
    /// new probe, and answers to probes in flight have no effect; their last verdict stays visible.
    ///
    /// # Panics
    ///
    /// After four billion targets in the life of the process.
    pub fn reconcile(&mut self, wanted: Vec<Wanted<P>>, now: Instant) -> Vec<TargetId> {
        self.reconcile_with(wanted, Vec::new(), now).0
    }

    /// The same with groups beside the targets: `groups` are all that are checked from now on. Returns
    /// the group of each, too, in the same order. What holds for targets holds for the addresses of
    /// groups: those of an equal group stay, and one that replaces another under the same lineage takes
    /// over the verdicts of the addresses that both have.
    ///
    /// # Panics
    ///
    /// After four billion targets and groups in the life of the process.
    pub fn reconcile_with(
        &mut self,
        wanted: Vec<Wanted<P>>,
        groups: Vec<WantedGroup<P>>,
        now: Instant,
    ) -> (Vec<TargetId>, Vec<TargetId>) {
        let ids = self.settle_wishes(wanted, groups, now);
        self.lingering = Lingering::default();
        self.schedule.let_go(now);
        ids
    }

    /// The same for a configuration that is not in force yet: what only the one before wants lingers, and
    /// what is new waits for its first probe, until [`release`](Self::release).
    ///
    /// # Panics
    ///
    /// After four billion targets and groups in the life of the process.
    pub fn prepare_with(
        &mut self,
        mut wanted: Vec<Wanted<P>>,
        mut groups: Vec<WantedGroup<P>>,
        now: Instant,
    ) -> (Vec<TargetId>, Vec<TargetId>) {
        let (alone, grouped) = (wanted.len(), groups.len());
        let lines: HashSet<&String> = wanted.iter().map(|wish| &wish.lineage).collect();
        let old = self.wishes(|line| !lines.contains(line));
        let lines: HashSet<&String> = groups.iter().map(|wish| &wish.whole.lineage).collect();
        let old_groups = self.wishes_for_groups(|line| !lines.contains(line));
        self.lingering = Lingering {
            targets: old.iter().map(|wish| wish.lineage.clone()).collect(),
            groups: (old_groups.iter())
                .map(|wish| wish.whole.lineage.clone())
                .collect(),
        };
        wanted.extend(old);
        groups.extend(old_groups);
        let (mut ids, mut group_ids) = self.settle_wishes(wanted, groups, now);
        ids.truncate(alone);
        group_ids.truncate(grouped);
        (ids, group_ids)
    }

    /// The configuration that was prepared is in force: what lingered goes, and what is new is due.
    pub fn release(&mut self, now: Instant) {
        let Lingering { targets, groups } = std::mem::take(&mut self.lingering);
        if !targets.is_empty() || !groups.is_empty() {
            let wanted = self.wishes(|line| !targets.contains(line));
            let groups = self.wishes_for_groups(|line| !groups.contains(line));
            self.settle_wishes(wanted, groups, now);
        }
        self.schedule.let_go(now);
    }

    /// The wishes for targets that `is_meant` by their lineages, in the order of those.
    fn wishes(&self, is_meant: impl Fn(&String) -> bool) -> Vec<Wanted<P>> {
        let checker_of = self.schedule.checkers();
        let lines = self.by_lineage.iter().filter(|(line, _)| is_meant(line));
        let wish = |(line, id): (&String, &TargetId)| {
            let definition = self.targets.get(id)?.definition();
            Some(Wanted {
                probe: definition.probe.clone(),
                policy: definition.policy.clone(),
                lineage: line.clone(),
                checker: checker_of(*id).unwrap_or_default(),
            })
        };
        let mut wishes: Vec<Wanted<P>> = lines.filter_map(wish).collect();
        wishes.sort_unstable_by(|one, other| one.lineage.cmp(&other.lineage));
        wishes
    }

    /// The same for groups.
    fn wishes_for_groups(&self, is_meant: impl Fn(&String) -> bool) -> Vec<WantedGroup<P>> {
        let probe_of = |id: TargetId| Some(self.targets.get(&id)?.definition().probe.clone());
        let mut wishes = self.groups.wishes(is_meant, probe_of);
        wishes.sort_unstable_by(|one, other| one.whole.lineage.cmp(&other.whole.lineage));
        wishes
    }

    /// Makes these all that is watched.
    fn settle_wishes(
        &mut self,
        wanted: Vec<Wanted<P>>,
        groups: Vec<WantedGroup<P>>,
        now: Instant,
    ) -> (Vec<TargetId>, Vec<TargetId>) {
        let mut wishes = Wishes::new(wanted);
        let issued = &mut self.issued;
        let (group_ids, settled) = self.groups.assign(groups, || next_id(issued));
        let alone = wishes.of.len();
        for (_, wish) in &settled {
            for candidate in self.groups.candidates(wish) {
                wishes.add(candidate);
            }
        }
        let before: HashSet<TargetId> = self.targets.keys().copied().collect();
        let ids = self.assign(&wishes, now);

        let current: HashSet<TargetId> = ids.iter().copied().collect();
        let left_down = self.down_places_but(&current);
        self.targets.retain(|id, _| current.contains(id));
        self.by_definition = self
            .targets
            .iter()
            .map(|(&id, target)| (Arc::clone(&target.definition), id))
            .collect();
        let mut seats = Vec::with_capacity(ids.len());
        self.by_lineage.clear();
        for (wish, &target) in wishes.distinct.into_iter().zip(&ids) {
            self.by_lineage
                .extend(wish.lineages.into_iter().map(|lineage| (lineage, target)));
            let concurrency = wish.definition.policy.concurrency;
            seats.push(Seat {
                target,
                checker: wish.checker,
                concurrency,
            });
        }
        self.schedule.arrange(seats, now);
        let mut of = wishes.of.into_iter().map(|wish| ids[wish]);
        let of_targets: Vec<TargetId> = of.by_ref().take(alone).collect();
        let wanted_alone = of_targets.iter().copied().collect();
        self.groups.replace_checked(settled, of, wanted_alone, now);
        self.depart(left_down, now);
        let same_members = before.len() == current.len() && before.is_subset(&current);
        self.publish_all(same_members);
        (of_targets, group_ids)
    }

    /// Publishes everything, if anything is not as it was published.
    fn publish_all(&mut self, same_members: bool) {
        let mut verdicts: Vec<(TargetId, bool)> = self
            .targets
            .iter()
            .map(|(&id, target)| (id, target.state.status.usable()))
            .collect();
        let groups = self.groups.published();
        let groups_differ = !self.availability.has_groups(&groups);
        let flipped = |&(id, usable): &(TargetId, bool)| self.availability.usable(id) != usable;
        if !same_members || groups_differ || verdicts.iter().any(flipped) {
            verdicts.extend(
                self.groups
                    .checked()
                    .map(|group| (group, self.group_usable(group))),
            );
            self.publish(verdicts);
            if groups_differ {
                self.writable().replace_groups(groups);
            }
        }
        self.settle_all();
    }

    /// Gives each distinct wish its target. No verdict depends on the order of wishes: where one
    /// definition takes the place of several, known-bad wins.
    fn assign(&mut self, wishes: &Wishes<P>, now: Instant) -> Vec<TargetId> {
        let mut taken: HashSet<TargetId> = (wishes.distinct.iter())
            .filter_map(|wish| self.by_definition.get(&wish.definition).copied())
            .collect();
        let mut ids = Vec::with_capacity(wishes.distinct.len());
        for wish in &wishes.distinct {
            if let Some(&id) = self.by_definition.get(&wish.definition) {
                ids.push(id);
                continue;
            }
            let lines = wish.lineages.iter();
            let ancestors: BTreeSet<TargetId> = lines
                .filter_map(|line| self.by_lineage.get(line))
                .chain(&wish.ancestors)
                .copied()
                .collect();
            let usable = ancestors.iter().all(|&id| self.availability.usable(id))
                && !wish
                    .places
                    .iter()
                    .any(|place| self.is_known_down(place, now));
            let id = match ancestors.into_iter().find(|id| !taken.contains(id)) {
                Some(id) => id,
                None => self.issue(),
            };
            taken.insert(id);
            if !usable && (self.targets.get(&id)).is_none_or(|target| target.state.status.usable())
            {
                self.inherited.push(id);
            }
            self.schedule.forget(id);
            self.watch(id, &wish.definition, State::with_verdict(usable));
            ids.push(id);
        }
        ids
    }
}

/// Wishes by definition.
struct Wishes<P> {
    distinct: Vec<Wish<P>>,
    places: HashMap<Arc<Definition<P>>, usize>,
    /// For each wish as given, its place in `distinct`.
    of: Vec<usize>,
}

struct Wish<P> {
    definition: Arc<Definition<P>>,
    lineages: Vec<String>,
    checker: String,
    /// Targets whose place it takes, beside those of its lineages.
    ancestors: BTreeSet<TargetId>,
    /// Where it is, whatever the name, if it is an address of a group.
    places: Vec<P>,
}

impl<P: Eq + Hash> Wishes<P> {
    fn new(wanted: Vec<Wanted<P>>) -> Self {
        let mut wishes = Self {
            distinct: Vec::new(),
            places: HashMap::new(),
            of: Vec::with_capacity(wanted.len()),
        };
        for Wanted {
            probe,
            policy,
            lineage,
            checker,
        } in wanted
        {
            let wish = wishes.put(Arc::new(Definition { probe, policy }), checker);
            wish.lineages.push(lineage);
        }
        wishes
    }

    /// Adds an address of a group.
    fn add(&mut self, candidate: Candidate<P>) {
        let wish = self.put(candidate.definition, candidate.checker);
        wish.ancestors.extend(candidate.ancestors);
        wish.places.extend(candidate.place);
    }

    fn put(&mut self, definition: Arc<Definition<P>>, checker: String) -> &mut Wish<P> {
        let next = self.distinct.len();
        let place = *self.places.entry(Arc::clone(&definition)).or_insert(next);
        if place == next {
            self.distinct.push(Wish {
                definition,
                lineages: Vec::new(),
                checker,
                ancestors: BTreeSet::new(),
                places: Vec::new(),
            });
        }
        self.of.push(place);
        &mut self.distinct[place]
    }
}
