//! Who may be picked, worked out from what was written and from the verdicts that were published.

use std::cell::RefCell;
use std::cmp::Reverse;

use pointsman_balance::{Algorithm, Availability, Exhausted, MemberSpec, Pool, TargetId};

use crate::plan::{Member, PlannedPool};

/// A pool in force, and all that is needed to judge its picks.
pub(crate) struct JudgedPool {
    pub(crate) name: u32,
    pub(crate) pool: Pool,
    pub(crate) algorithm: Algorithm,
    members: Vec<Member>,
    /// By member.
    pub(crate) ids: Vec<Vec<TargetId>>,
    cycles: RefCell<Vec<Cycle>>,
}

/// Whose turn it is among the members of one priority, written out turn by turn.
#[derive(Clone)]
struct Cycle {
    priority: i32,
    has_weight: bool,
    /// Names.
    turns: Vec<u32>,
    /// `None` after a change of members: where a changed cycle begins is not worked out here.
    next: Option<usize>,
}

impl JudgedPool {
    pub(crate) fn new(
        planned: &PlannedPool,
        ids: Vec<Vec<TargetId>>,
        start: u64,
        previous: Option<&Self>,
    ) -> Self {
        let specs = planned.members.iter().zip(&ids);
        let specs = specs.map(|(member, ids)| MemberSpec {
            name: name(member.name),
            weight: member.weight,
            priority: member.priority,
            targets: ids.clone(),
            gate: None,
        });
        let pool = Pool::new(specs.collect(), planned.algorithm, start).unwrap();
        let mut cycles = cycles(&planned.members, start);
        let previous = previous.filter(|previous| previous.algorithm == planned.algorithm);
        if let Some(previous) = previous {
            for cycle in &mut cycles {
                cycle.resume(&previous.cycles.borrow());
            }
        }
        Self {
            name: planned.name,
            pool: match previous {
                Some(previous) => pool.succeeding(&previous.pool),
                None => pool,
            },
            algorithm: planned.algorithm,
            members: planned.members.clone(),
            ids,
            cycles: RefCell::new(cycles),
        }
    }

    pub(crate) fn member_name(&self, member: usize) -> u32 {
        self.members[member].name
    }

    /// I-2, I-3, I-19, I-21, I-23: judges one pick of a request that has tried `tried` before.
    pub(crate) fn judge(
        &self,
        got: Result<(usize, bool), Exhausted>,
        verdicts: &[bool],
        tried: &[usize],
    ) {
        let usable = |member: usize| {
            let ids = &self.ids[member];
            ids.is_empty() || ids.iter().any(|id| verdicts[id.index()])
        };
        let all = 0..self.members.len();
        let fail_open = !all.clone().any(usable);
        let may_be_offered: Vec<usize> = all
            .filter(|&member| fail_open || usable(member))
            .filter(|&member| self.has_place(member))
            .collect();
        let left: Vec<usize> = (may_be_offered.iter().copied())
            .filter(|member| !tried.contains(member))
            .collect();
        let rank = |&member: &usize| {
            let member = &self.members[member];
            (member.priority, member.weight > 0)
        };
        let Some(best) = left.iter().map(rank).max() else {
            let why = if may_be_offered.is_empty() {
                Exhausted::NothingToPick
            } else {
                Exhausted::AllTried
            };
            assert_eq!(got, Err(why), "nobody is left");
            return;
        };
        let Ok((picked, failed_open)) = got else {
            panic!("{got:?}, though one of {left:?} could be picked");
        };
        assert!(
            left.contains(&picked) && rank(&picked) == best,
            "picked {picked} instead of one of {left:?} (usable: {:?}, tried: {tried:?})",
            (0..self.members.len())
                .filter(|&member| usable(member))
                .collect::<Vec<_>>()
        );
        assert_eq!(failed_open, fail_open, "fail-open");
        let eligible: Vec<u32> = (left.iter())
            .filter(|member| rank(member) == best)
            .map(|&member| self.members[member].name)
            .collect();
        self.take_turn(best, self.members[picked].name, &eligible);
    }

    /// Whether the algorithm offers it at all: a ring gives no place to a priority of weight 0.
    fn has_place(&self, member: usize) -> bool {
        let priority = self.members[member].priority;
        let siblings = self
            .members
            .iter()
            .filter(|other| other.priority == priority);
        self.algorithm == Algorithm::RoundRobin
            || siblings.into_iter().any(|other| other.weight > 0)
    }

    /// The turns of those who cannot be picked are passed over; no flip of a verdict loses the place.
    fn take_turn(&self, (priority, has_weight): (i32, bool), picked: u32, eligible: &[u32]) {
        let mut cycles = self.cycles.borrow_mut();
        let place =
            |cycle: &&mut Cycle| (cycle.priority, cycle.has_weight) == (priority, has_weight);
        let Some(cycle) = cycles.iter_mut().find(place) else {
            return;
        };
        if self.algorithm != Algorithm::RoundRobin {
            return;
        }
        let Some(next) = cycle.next else { return };
        let len = cycle.turns.len();
        let turn = (next..next + len)
            .map(|turn| turn % len)
            .find(|&turn| eligible.contains(&cycle.turns[turn]))
            .expect("somebody is eligible");
        assert_eq!(
            picked, cycle.turns[turn],
            "whose turn it is, of {eligible:?}"
        );
        cycle.next = Some((turn + 1) % len);
    }

    /// Everybody it offers to a request that tries again and again, by name.
    pub(crate) fn order(&self, key: &[u8], verdicts: &Availability) -> Vec<u32> {
        use pointsman_balance::{Ask, Tried};
        let (mut tried, mut names) = (Tried::new(), Vec::new());
        let ask = |tried: &Tried| {
            let (key, now) = (Some(key), std::time::Duration::ZERO);
            self.pool.pick(&Ask { key, now, tried }, verdicts).ok()
        };
        while let Some(picked) = ask(&tried) {
            tried.mark(picked.member());
            names.push(self.member_name(picked.member()));
        }
        names
    }
}

impl Cycle {
    fn resume(&mut self, previous: &[Self]) {
        let same =
            |cycle: &&Self| (cycle.priority, cycle.has_weight) == (self.priority, self.has_weight);
        if let Some(previous) = previous.iter().find(same) {
            self.next = previous.next.filter(|_| previous.turns == self.turns);
        }
    }
}

/// Names as they are compared: in the order of their numbers.
fn name(number: u32) -> String {
    format!("m{number:03}")
}

/// The walk of the interleaved round robin, level by level.
fn cycles(members: &[Member], start: u64) -> Vec<Cycle> {
    let mut ranks: Vec<(i32, bool)> = (members.iter())
        .map(|member| (member.priority, member.weight > 0))
        .collect();
    ranks.sort_unstable();
    ranks.dedup();
    let cycle = |(priority, has_weight): (i32, bool)| {
        let mut peers: Vec<(u32, u32)> = (members.iter())
            .filter(|member| (member.priority, member.weight > 0) == (priority, has_weight))
            .map(|member| (member.weight.max(1), member.name))
            .collect();
        peers.sort_by_key(|&(weight, name)| (Reverse(weight), name));
        let divides = |step: &u32| peers.iter().all(|(weight, _)| weight % step == 0);
        let step = (1..=peers[0].0).rev().find(divides).unwrap_or(1);
        let mut turns = Vec::new();
        let mut level = peers[0].0;
        while level > 0 {
            let lap = peers.iter().filter(|(weight, _)| *weight >= level);
            turns.extend(lap.map(|(_, name)| *name));
            level -= step;
        }
        Cycle {
            priority,
            has_weight,
            next: Some((start % turns.len() as u64) as usize),
            turns,
        }
    };
    ranks.into_iter().map(cycle).collect()
}
