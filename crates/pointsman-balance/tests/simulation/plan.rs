//! Configurations, as somebody writes them, and what people do to them.

use std::time::Duration;

use pointsman_balance::{Algorithm, Policy, Wanted};

use crate::chance::Chance;

/// What is probed: a path at a site. Two of them are the same thing or they are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Probed {
    pub(crate) site: usize,
    pub(crate) path: u8,
}

/// What is probed and by which of the policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) probed: Probed,
    pub(crate) policy: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: u32,
    pub(crate) weight: u32,
    pub(crate) priority: i32,
    /// Of different sites.
    pub(crate) checks: Vec<Check>,
}

#[derive(Debug, Clone)]
pub(crate) struct PlannedPool {
    pub(crate) name: u32,
    pub(crate) algorithm: Algorithm,
    pub(crate) members: Vec<Member>,
}

/// A whole configuration, and what was once in it.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) pools: Vec<PlannedPool>,
    removed: Vec<Member>,
    names: u32,
}

/// Who asks for a check: pool, member, site.
pub(crate) type Lineage = (u32, u32, usize);

pub(crate) const SITES: usize = 5;
pub(crate) const POLICIES: usize = 3;

/// Three different ways to check, quick enough for much to happen in a second.
pub(crate) fn policies(chance: &mut Chance) -> Vec<Policy> {
    (0..POLICIES as u64)
        .map(|number| Policy {
            // The odd milliseconds make them different.
            healthy_interval: Duration::from_millis(chance.range(2, 16) * 10 + number),
            healthy_statuses: vec![200],
            successes: chance.range(1, 4) as u8,
            unhealthy_interval: Duration::from_millis(chance.range(2, 16) * 10),
            unhealthy_statuses: vec![500],
            http_failures: chance.range(0, 4) as u8,
            tcp_failures: chance.range(1, 4) as u8,
            timeouts: chance.range(0, 3) as u8,
            timeout: Duration::from_millis(chance.range(5, 40)),
            concurrency: chance.choose(&[0, 1, 2, 20, 20, 20]),
        })
        .collect()
}

impl Plan {
    pub(crate) fn new(chance: &mut Chance) -> Self {
        let mut plan = Self {
            pools: Vec::new(),
            removed: Vec::new(),
            names: 0,
        };
        for _ in 0..chance.range(1, 4) {
            plan.add_pool(chance);
        }
        plan
    }

    /// One change, of a kind that people make. Says which; `Reordered` if it can mean nothing at all.
    pub(crate) fn change(&mut self, chance: &mut Chance) -> Edit {
        let pool = chance.index(self.pools.len());
        match chance.range(0, 20) {
            0 | 1 => {
                chance.shuffle(&mut self.pools[pool].members);
                return Edit::Reordered;
            }
            2 => {
                let name = self.fresh_name();
                self.member(pool, chance).name = name;
            }
            3 | 4 if self.pools[pool].members.len() > 1 => {
                let at = chance.index(self.pools[pool].members.len());
                let member = self.pools[pool].members.remove(at);
                self.removed.push(member);
            }
            5 => self.put_back(pool, chance),
            6 => {
                let member = self.new_member(chance);
                self.pools[pool].members.push(member);
            }
            7 => self.member(pool, chance).weight = weight(chance),
            8 => self.member(pool, chance).priority = priority(chance),
            9 | 10 | 14..=17 => self.change_check(pool, chance),
            11 => self.swap_checks(pool, chance),
            12 => self.copy_checks(pool, chance),
            18 | 19 => self.unify(chance),
            13 if self.pools.len() > 1 && chance.one_in(2) => {
                self.pools.remove(pool);
            }
            _ => self.add_pool(chance),
        }
        Edit::Changed
    }

    /// What is wanted, in the order of the configuration, and by whom.
    pub(crate) fn wishes(&self) -> Vec<(Check, Lineage)> {
        let members = |pool: &PlannedPool| {
            let name = pool.name;
            let checks = |member: &Member| {
                let lineage = move |check: &Check, member| (name, member, check.probed.site);
                let named = member.name;
                (member.checks.clone().into_iter())
                    .map(move |check| (check, lineage(&check, named)))
                    .collect::<Vec<_>>()
            };
            pool.members.iter().flat_map(checks).collect::<Vec<_>>()
        };
        self.pools.iter().flat_map(members).collect()
    }

    fn add_pool(&mut self, chance: &mut Chance) {
        if self.pools.len() >= 4 {
            return;
        }
        let name = self.fresh_name();
        // A pool is searched in one way when few members are usable, and in another when many are.
        let count = if chance.one_in(6) {
            chance.range(9, 16)
        } else {
            chance.range(1, 5)
        };
        let members = (0..count).map(|_| self.new_member(chance)).collect();
        let algorithm = chance.choose(&[Algorithm::RoundRobin, Algorithm::Chash]);
        self.pools.push(PlannedPool {
            name,
            algorithm,
            members,
        });
    }

    fn new_member(&mut self, chance: &mut Chance) -> Member {
        let count = chance.choose(&[0, 1, 1, 1, 1, 2]);
        let mut checks: Vec<Check> = Vec::new();
        for _ in 0..count {
            let check = check(chance);
            if !has_site(&checks, check.probed.site) {
                checks.push(check);
            }
        }
        Member {
            name: self.fresh_name(),
            weight: weight(chance),
            priority: priority(chance),
            checks,
        }
    }

    fn fresh_name(&mut self) -> u32 {
        self.names += 1;
        self.names
    }

    fn member(&mut self, pool: usize, chance: &mut Chance) -> &mut Member {
        let members = &mut self.pools[pool].members;
        let at = chance.index(members.len());
        &mut members[at]
    }

    /// A member comes back, where it was or elsewhere, under its old name.
    fn put_back(&mut self, pool: usize, chance: &mut Chance) {
        if self.removed.is_empty() {
            return;
        }
        let member = self.removed.remove(chance.index(self.removed.len()));
        self.pools[pool].members.push(member);
    }

    fn change_check(&mut self, pool: usize, chance: &mut Chance) {
        let changed = check(chance);
        let what = chance.range(0, 6);
        let checks = &mut self.member(pool, chance).checks;
        match checks.first().copied() {
            Some(first) if what < 5 => {
                checks.remove(0);
                let mut next = first;
                match what {
                    0 | 1 => next.probed.path = 1 - first.probed.path,
                    2 | 3 => next.policy = changed.policy,
                    _ => next.probed.site = changed.probed.site,
                }
                if !has_site(checks, next.probed.site) {
                    checks.insert(0, next);
                }
            }
            Some(_) => checks.clear(),
            None => checks.push(changed),
        }
    }

    /// A site is probed in one way from now on, whoever asks: targets become one.
    fn unify(&mut self, chance: &mut Chance) {
        let one = check(chance);
        let members = self.pools.iter_mut().flat_map(|pool| &mut pool.members);
        for check in members.flat_map(|member| &mut member.checks) {
            if check.probed.site == one.probed.site {
                *check = one;
            }
        }
    }

    /// Two members trade places: addresses and probes, but not names.
    fn swap_checks(&mut self, pool: usize, chance: &mut Chance) {
        let members = &mut self.pools[pool].members;
        let (a, b) = (chance.index(members.len()), chance.index(members.len()));
        let checks = std::mem::take(&mut members[a].checks);
        let other = std::mem::replace(&mut members[b].checks, checks);
        if a == b {
            return;
        }
        members[a].checks = other;
    }

    /// A member is checked as another one is, maybe of another pool: they share targets from now on.
    fn copy_checks(&mut self, pool: usize, chance: &mut Chance) {
        let from = chance.index(self.pools.len());
        let checks = self.member(from, chance).checks.clone();
        self.member(pool, chance).checks = checks;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edit {
    Reordered,
    Changed,
}

pub(crate) fn wanted(wishes: &[(Check, Lineage)], policies: &[Policy]) -> Vec<Wanted<Probed>> {
    let wanted = |&(check, lineage): &(Check, Lineage)| Wanted {
        probe: check.probed,
        policy: policies[check.policy].clone(),
        lineage: format!("{lineage:?}"),
        checker: lineage.0.to_string(),
    };
    wishes.iter().map(wanted).collect()
}

fn check(chance: &mut Chance) -> Check {
    Check {
        probed: Probed {
            site: chance.index(SITES),
            path: chance.range(0, 2) as u8,
        },
        policy: chance.index(POLICIES),
    }
}

fn has_site(checks: &[Check], site: usize) -> bool {
    checks.iter().any(|check| check.probed.site == site)
}

fn weight(chance: &mut Chance) -> u32 {
    chance.choose(&[0, 1, 1, 1, 2, 3, 6])
}

fn priority(chance: &mut Chance) -> i32 {
    chance.choose(&[0, 0, 0, 1, -1])
}
