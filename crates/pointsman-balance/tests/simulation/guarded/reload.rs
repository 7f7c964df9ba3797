//! Changes of configuration, and how they come into force.

use std::rc::Rc;
use std::time::Duration;

use pointsman_balance::{Breaker, GuardSpec, MemberSpec, Pool, TargetId, Wanted, WantedGroup};

use super::{ALGORITHMS, Judged, KINDS, Life, Probed, spec, wanted_addresses};
use crate::model::{Guard, Member, NAMES, OPEN, Place, SITES, TRIALS};

impl Life {
    pub(super) fn add_member(&mut self) {
        self.names += 1;
        let place = self.place();
        let guards = self.some_kinds();
        self.members.push(Member {
            name: self.names,
            weight: self.chance.choose(&[0, 1, 1, 2, 5]),
            priority: self.chance.choose(&[0, 0, 1]),
            place,
            guards,
        });
    }

    fn place(&mut self) -> Place {
        let (site, name) = (self.chance.index(SITES), self.chance.index(NAMES));
        self.chance
            .choose(&[Place::Site(site), Place::Name(name), Place::Anywhere])
    }

    fn some_kinds(&mut self) -> Vec<usize> {
        (0..KINDS).filter(|_| self.chance.one_in(3)).collect()
    }

    pub(super) fn edit(&mut self) {
        let (at, kinds, place) = (
            self.chance.index(self.members.len()),
            self.some_kinds(),
            self.place(),
        );
        match self.chance.range(0, 8) {
            0 => self.chance.shuffle(&mut self.members),
            1 => self.members[at].guards = kinds,
            2 => self.members[at].place = place,
            3 => self.members[at].weight = self.chance.choose(&[0, 1, 3]),
            4 if self.members.len() > 1 => drop(self.members.swap_remove(at)),
            5 => self.algorithm = self.chance.choose(&ALGORITHMS),
            _ => self.add_member(),
        }
    }

    /// The configuration as it is written comes into force, in the order in which a program does that.
    pub(super) fn reload(&mut self) {
        let now = self.at(self.now);
        let alone = (0..SITES).map(|site| self.wanted((Place::Site(site), 0)));
        let groups = (0..NAMES).map(|name| WantedGroup {
            whole: self.wanted((Place::Name(name), 0)),
            addresses: {
                let known = self.model.names[name].keys().copied().collect();
                wanted_addresses(name, &known)
            },
        });
        let wanted = (alone.collect(), groups.collect());
        (self.sites, self.groups) = self.monitor.reconcile_with(wanted.0, wanted.1, now);
        let members = self.members.clone();
        let members: Vec<Member> = members
            .into_iter()
            .map(|member| self.guarded(member))
            .collect();
        let specs = members.iter().map(|member| {
            let targets = self.targets(member.place);
            let guards: Vec<TargetId> = member.guards.iter().map(|&at| self.guards[at]).collect();
            let gate = (!guards.is_empty()).then(|| self.monitor.gate(&targets, guards));
            MemberSpec {
                weight: member.weight,
                priority: member.priority,
                targets,
                gate,
                ..spec(member.name)
            }
        });
        let specs = specs.collect();
        self.loads.tidy();
        let pool = Pool::new(specs, self.algorithm, self.now).unwrap();
        let pool = pool
            .counting_in(&self.loads, "pool")
            .succeeding(&self.pool.pool);
        self.pool = Rc::new(Judged {
            pool,
            algorithm: self.algorithm,
            members,
        });
        self.monitor.sweep_guards();
        self.sweep();
        self.note("reloads", String::new);
    }

    fn wanted(&self, probe: Probed) -> Wanted<Probed> {
        Wanted {
            probe,
            policy: self.policy.clone(),
            lineage: format!("{probe:?}"),
            checker: String::new(),
        }
    }

    fn targets(&self, place: Place) -> Vec<TargetId> {
        match place {
            Place::Site(site) => vec![self.sites[site]],
            Place::Name(name) => vec![self.groups[name]],
            Place::Anywhere => vec![],
        }
    }

    /// The member with guards in the place of their kinds.
    fn guarded(&mut self, mut member: Member) -> Member {
        for kind in &mut member.guards {
            let spec = GuardSpec {
                key: kind.to_string(),
                // The last ones are no circuits.
                breaker: (*kind < KINDS - 2).then_some(BREAKER),
            };
            let has_circuit = spec.breaker.is_some();
            let (id, _) = self.monitor.guard(spec, self.at(self.now));
            let number = *self.kinds[*kind].get_or_insert_with(|| {
                assert!(!self.guards.contains(&id), "{id:?} is used again");
                self.guards.push(id);
                self.model.guards.push(Guard {
                    has_circuit,
                    ..Guard::default()
                });
                self.guards.len() - 1
            });
            assert_eq!(self.guards[number], id, "kind {kind}");
            *kind = number;
        }
        member
    }

    /// What no member has is gone.
    fn sweep(&mut self) {
        let has = |kind: usize| {
            self.members
                .iter()
                .any(|member| member.guards.contains(&kind))
        };
        for kind in 0..KINDS {
            if !has(kind)
                && let Some(gone) = self.kinds[kind].take()
            {
                self.model.guards[gone].is_gone = true;
            }
        }
    }
}

const BREAKER: Breaker = Breaker {
    failures: 1,
    error_percent: 0,
    min_attempts: 1,
    window: Duration::from_millis(OPEN.0),
    open: Duration::from_millis(OPEN.0),
    open_max: Duration::from_millis(OPEN.1),
    trials: TRIALS,
};
