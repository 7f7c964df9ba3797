//! The order of offers: priorities, then weights, then who comes next.
//!
//! A pool is a row of *stages*, asked one after the other until one has somebody to offer. Each
//! priority makes up to two of them: its members with a positive weight, and after those its members
//! of weight 0. That one idea carries the whole precedence: a weight-0 member is reached before the
//! next priority, but never before a positive-weight sibling that could serve.
//!
//! A stage holds members, not verdicts: who is eligible is asked anew at each pick.

mod census;
mod chash;
mod crc32;
mod ewma;
mod least_conn;
mod round_robin;

use std::cmp::Ordering;
use std::sync::Arc;

use crate::decision::{Basis, Decision, Source};
use crate::load::{Gauge, Hold};
use crate::{Algorithm, Ask, Availability, MemberSpec, PoolError};
use census::{Eligible, Many, Tested};
use chash::Ring;
use ewma::Ewma;
use least_conn::LeastConn;
use round_robin::RoundRobin;

pub(crate) use census::Census;

/// The most points the hash rings of one pool may have together: 160 per unit of weight, after the
/// weights of a priority are divided by their greatest common divisor. Bounds the time and memory of
/// compiling a configuration.
pub const RING_POINTS_MAX: u64 = 4_194_304;

/// Members of one priority that compete for the same turn.
#[derive(Debug)]
pub(crate) struct Stage {
    priority: i32,
    share: Share,
    census: Census,
    picker: Picker,
}

/// Which members of a priority a stage holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Share {
    ByWeight,
    /// Those of weight 0, who share equally what nobody else can take.
    LastResort,
}

#[derive(Debug)]
enum Picker {
    RoundRobin(RoundRobin),
    Chash(Ring),
    LeastConn(LeastConn),
    Ewma(Ewma),
}

/// Whom a stage offers; counted already, if its picker counts.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) member: usize,
    pub(crate) hold: Option<Hold>,
    /// What it went by, if that was asked for.
    pub(crate) decision: Option<Decision>,
}

/// A member as the pickers see it while they are built.
#[derive(Debug, Clone, Copy)]
struct Candidate<'a> {
    member: usize,
    name: &'a str,
    /// At least 1.
    weight: u32,
}

/// Arranges members in the order they are offered.
///
/// The result depends on names, weights, priorities and verdicts' places, not on the order of `specs`: writing
/// the same members in another order moves no key and starts no other sequence. `gauges` are those of the members,
/// if the algorithm counts.
pub(crate) fn stages(
    specs: &[MemberSpec],
    algorithm: Algorithm,
    start: u64,
    gauges: &[Arc<Gauge>],
) -> Result<Box<[Stage]>, PoolError> {
    let mut order: Vec<usize> = (0..specs.len()).collect();
    order.sort_unstable_by(|&a, &b| {
        let (a, b) = (&specs[a], &specs[b]);
        let by_place = || match algorithm {
            // Its members need no order of their own: so they stand as what it reads does.
            Algorithm::LeastConn => a.verdicts().first().cmp(&b.verdicts().first()),
            _ => Ordering::Equal,
        };
        (b.priority.cmp(&a.priority))
            .then_with(|| (a.weight == 0).cmp(&(b.weight == 0)))
            .then_with(by_place)
            .then_with(|| b.weight.cmp(&a.weight))
            .then_with(|| a.name.cmp(&b.name))
    });
    let groups: Vec<_> = order
        .chunk_by(|&a, &b| {
            specs[a].priority == specs[b].priority
                && (specs[a].weight == 0) == (specs[b].weight == 0)
        })
        .map(|group| Group::new(specs, group))
        .collect();
    let picker: &dyn Fn(&[Candidate<'_>]) -> Picker = match algorithm {
        Algorithm::Chash => return rings(specs, groups),
        Algorithm::RoundRobin => &|group| Picker::RoundRobin(RoundRobin::new(group, start)),
        Algorithm::LeastConn => &|group| Picker::LeastConn(LeastConn::new(group, gauges, start)),
        Algorithm::Ewma => &|group| Picker::Ewma(Ewma::new(group, gauges, start)),
    };
    Ok(groups
        .into_iter()
        .map(|group| {
            let picker = picker(&group.candidates);
            group.into_stage(specs, picker)
        })
        .collect())
}

fn rings(specs: &[MemberSpec], mut groups: Vec<Group<'_>>) -> Result<Box<[Stage]>, PoolError> {
    // APISIX's ring gives weight 0 no points, so a priority without any positive weight has an empty
    // ring and offers nobody. Beside positive siblings the members of weight 0 do get their turn.
    let weighted: Vec<i32> = groups
        .iter()
        .filter(|group| group.share == Share::ByWeight)
        .map(|group| group.priority)
        .collect();
    groups.retain(|group| weighted.contains(&group.priority));

    let points = groups
        .iter()
        .map(|group| Ring::points(&group.candidates))
        .sum();
    if points > RING_POINTS_MAX {
        return Err(PoolError::RingTooLarge {
            points,
            max: RING_POINTS_MAX,
        });
    }
    Ok(groups
        .into_iter()
        .map(|group| {
            let picker = Picker::Chash(Ring::new(&group.candidates));
            group.into_stage(specs, picker)
        })
        .collect())
}

struct Group<'a> {
    priority: i32,
    share: Share,
    /// Heaviest first, then by name; with least_conn, as their verdicts stand.
    candidates: Vec<Candidate<'a>>,
}

impl<'a> Group<'a> {
    fn new(specs: &'a [MemberSpec], members: &[usize]) -> Self {
        let first = &specs[members[0]];
        let candidate = |&member: &usize| Candidate {
            member,
            name: &specs[member].name,
            weight: specs[member].weight.max(1),
        };
        Self {
            priority: first.priority,
            share: if first.weight == 0 {
                Share::LastResort
            } else {
                Share::ByWeight
            },
            candidates: members.iter().map(candidate).collect(),
        }
    }

    fn into_stage(self, specs: &[MemberSpec], picker: Picker) -> Stage {
        let verdicts = |candidate: &Candidate<'_>| specs[candidate.member].verdicts();
        Stage {
            priority: self.priority,
            share: self.share,
            census: Census::new(self.candidates.iter().map(verdicts)),
            picker,
        }
    }
}

impl Stage {
    /// The next member that is usable and passes the test, if this stage has one. `usable` is what
    /// `availability` says of a member.
    #[inline]
    pub(crate) fn pick_usable(
        &self,
        ask: &Ask<'_>,
        source: impl Source,
        availability: &Availability,
        usable: impl Fn(usize) -> bool,
        eligible: impl Fn(usize) -> bool,
    ) -> Option<Offer> {
        let members = self.picker.members();
        let Some(mut few) = self.census.few(availability) else {
            let many = Many {
                census: &self.census,
                availability,
                test: Tested(|rank: usize| {
                    let member = members[rank] as usize;
                    usable(member) && eligible(member)
                }),
            };
            return self.picker.pick(ask, source, &many);
        };
        few.retain(|rank| eligible(members[rank] as usize));
        if few.ranks().is_empty() {
            return None;
        }
        self.picker.pick(ask, source, &few)
    }

    /// The next member that passes the test, if this stage has one.
    #[inline]
    pub(crate) fn pick(
        &self,
        ask: &Ask<'_>,
        source: impl Source,
        eligible: impl Fn(usize) -> bool,
    ) -> Option<Offer> {
        let members = self.picker.members();
        let eligible = Tested(|rank: usize| eligible(members[rank] as usize));
        self.picker.pick(ask, source, &eligible)
    }

    /// Keys belong to members.
    pub(crate) fn is_ring(&self) -> bool {
        matches!(self.picker, Picker::Chash(_))
    }

    /// Its members whose gates ask for trials that may be had.
    pub(crate) fn asking(&self, availability: &Availability) -> impl Iterator<Item = usize> {
        let members = self.picker.members();
        (self.census.asking(availability)).map(|rank| members[rank] as usize)
    }

    /// All members this stage can ever offer.
    pub(crate) fn members(&self) -> impl Iterator<Item = usize> {
        self.picker.members().iter().map(|&member| member as usize)
    }

    /// All members this stage can ever offer, in the order in which decisions tell of them: heaviest first,
    /// then by name.
    pub(crate) fn ranking(&self) -> Vec<usize> {
        match &self.picker {
            Picker::LeastConn(least_conn) => least_conn
                .by_weight()
                .map(|member| member as usize)
                .collect(),
            _ => self.members().collect(),
        }
    }

    /// The priority of its members.
    pub(crate) const fn priority(&self) -> i32 {
        self.priority
    }

    /// Whether its members have weight 0 and take only what nobody else of their priority can.
    pub(crate) fn is_last_resort(&self) -> bool {
        self.share == Share::LastResort
    }

    /// Whether `later`, of another pool, stands in this one's place.
    pub(crate) fn precedes(&self, later: &Self) -> bool {
        (self.priority, self.share) == (later.priority, later.share)
    }

    /// Continues at the position of an earlier stage; `successor` says which member of this pool a
    /// member of the earlier pool has become, if it is still there.
    pub(crate) fn resume(&mut self, earlier: &Self, successor: impl Fn(usize) -> Option<usize>) {
        if let (Picker::RoundRobin(now), Picker::RoundRobin(then)) =
            (&mut self.picker, &earlier.picker)
        {
            now.resume(then, successor);
        }
    }

    /// Counts in these gauges from now on, those of all members.
    pub(crate) fn share(&mut self, gauges: &[Arc<Gauge>]) {
        match &mut self.picker {
            Picker::RoundRobin(_) | Picker::Chash(_) => {}
            Picker::LeastConn(least_conn) => least_conn.share(gauges),
            Picker::Ewma(ewma) => ewma.share(gauges),
        }
    }
}

impl Picker {
    /// By rank.
    fn members(&self) -> &[u32] {
        match self {
            Self::RoundRobin(round_robin) => round_robin.members(),
            Self::Chash(ring) => ring.members(),
            Self::LeastConn(least_conn) => least_conn.members(),
            Self::Ewma(ewma) => ewma.members(),
        }
    }

    fn pick(&self, ask: &Ask<'_>, source: impl Source, eligible: &impl Eligible) -> Option<Offer> {
        if let Basis::Given(decision) = source.basis() {
            return self.repeat(decision?, eligible);
        }
        let notes = matches!(source.basis(), Basis::Noted);
        match self {
            Self::RoundRobin(round_robin) => {
                let (member, position) = round_robin.pick(eligible)?;
                Some(Offer {
                    decision: notes.then_some(Decision::Position(position)),
                    ..uncounted(member)
                })
            }
            Self::Chash(ring) => {
                let key = ask.key.unwrap_or_default();
                let member = ring.pick(key, eligible)?;
                Some(Offer {
                    decision: notes.then(|| Decision::Hash(chash::hash_of(key))),
                    ..uncounted(member)
                })
            }
            Self::LeastConn(least_conn) if notes => least_conn.pick_noted(eligible),
            Self::LeastConn(least_conn) => least_conn.pick(eligible),
            Self::Ewma(ewma) if notes => ewma.pick_noted(eligible, ask.now),
            Self::Ewma(ewma) => ewma.pick(eligible, ask.now),
        }
    }

    /// Whom a pick takes that goes by `decision`; nobody if that is another picker's.
    #[cold]
    fn repeat(&self, decision: &Decision, eligible: &impl Eligible) -> Option<Offer> {
        let member = match (self, decision) {
            (Self::RoundRobin(round_robin), Decision::Position(position)) => {
                round_robin.at(*position, eligible)
            }
            (Self::Chash(ring), Decision::Hash(hash)) => ring.owner(*hash, eligible),
            (Self::LeastConn(least_conn), Decision::InFlight { first, counts }) => {
                least_conn.at(*first, counts, eligible)
            }
            (Self::Ewma(ewma), Decision::Drawn { one, other }) => ewma.at(*one, *other, eligible),
            _ => None,
        };
        member.map(uncounted)
    }
}

const fn uncounted(member: usize) -> Offer {
    Offer {
        member,
        hold: None,
        decision: None,
    }
}

fn greatest_common_divisor(candidates: &[Candidate<'_>]) -> u32 {
    candidates.iter().fold(0, |divisor, candidate| {
        let (mut a, mut b) = (divisor, candidate.weight);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    })
}
