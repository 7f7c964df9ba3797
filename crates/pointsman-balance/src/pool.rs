//! A pool: the members one route or upstream may use, compiled for picking.
//!
//! A pool is a function of configuration. Verdicts come in with each pick, as an [`Availability`], and
//! are never kept; rebuilding a pool is a matter of configuration changes only. What a pick promises:
//! higher priority first; inside a priority, shares by weight; never a member the request has tried;
//! never an unusable member while any member of the pool is usable.

mod error;
mod in_order;
mod shape;
mod trial;

pub use error::{Exhausted, PoolError};
pub use shape::Tier;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::decision::{Basis, Decision, Live, Source};
use crate::load::{Gauge, Hold, Load, Loads};
use crate::picker::{self, Census, Offer, Stage};
use crate::{Availability, Gate, TargetId, Trial, Tried};

/// The most members a pool takes.
pub const MEMBERS_MAX: usize = 65_536;

/// One member as configuration describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberSpec {
    /// Identity inside the pool: decides the hash ring, and which position survives a rebuild.
    pub name: String,
    /// Share inside its priority. 0: used only once no positive-weight member of the same priority
    /// can be; if all weights of a priority are 0, chash offers none and the others share equally.
    pub weight: u32,
    /// Higher is used first.
    pub priority: i32,
    /// What must be healthy: the member is usable iff any of these is. Empty: not checked, always
    /// usable.
    pub targets: Vec<TargetId>,
    /// What stands in the place of `targets` if the member has guards, too.
    pub gate: Option<Arc<Gate>>,
}

impl MemberSpec {
    /// The member is usable iff any of these is, or there are none.
    pub(crate) fn verdicts(&self) -> &[TargetId] {
        (self.gate.as_ref()).map_or(&self.targets, |gate| gate.verdict())
    }
}

/// How members of one priority share the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Interleaved weighted round robin, exact over the process.
    RoundRobin,
    /// Consistent hashing on the request's key, with APISIX's ring.
    Chash,
    /// The lowest (1 + requests under way) / weight; equals take turns.
    LeastConn,
    /// The quicker of two random ones, by a fading average of response times. Of weights it only knows
    /// 0.
    Ewma,
}

impl Algorithm {
    /// Whether its picks depend on what earlier ones came to, and have a [`Hold`].
    #[must_use]
    pub const fn counts(self) -> bool {
        match self {
            Self::RoundRobin | Self::Chash => false,
            Self::LeastConn | Self::Ewma => true,
        }
    }
}

/// What one request asks of a pool.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// What chash hashes; `None` is hashed as the empty key. The others ignore it.
    pub key: Option<&'a [u8]>,
    /// The time since any one moment that stays the same while the process lives. Only ewma looks at it.
    pub now: Duration,
    /// The members this request must not be given again.
    pub tried: &'a Tried,
}

/// Proof that a pool picked this member; only [`Pool::pick`], [`Pool::pick_by`], [`Pool::pick_in_order`] and
/// [`Pool::again`] make one.
#[derive(Debug, PartialEq)]
#[must_use = "a pick moves the round-robin position: dropping it skips the member's turn"]
pub struct Picked {
    member: usize,
    epoch: u64,
    failed_open: bool,
    trial: Option<Trial>,
    /// Whose circuit is tried; stays when the trial is taken out.
    trial_of: Option<TargetId>,
    hold: Option<Hold>,
    decision: Option<Decision>,
}

/// Members in the order of the configuration, ready to be picked from by any number of threads.
#[derive(Debug)]
pub struct Pool {
    members: Box<[Member]>,
    /// Of all members, also those that no stage offers.
    census: Census,
    /// Member numbers, ordered by name.
    by_name: Box<[usize]>,
    /// In the order in which they are offered.
    stages: Box<[Stage]>,
    /// By member; none if nobody has guards.
    gates: Box<[Option<Arc<Gate>>]>,
    /// By member; none unless the algorithm counts.
    gauges: Box<[Arc<Gauge>]>,
    algorithm: Algorithm,
    digest: u64,
}

#[derive(Debug)]
struct Member {
    verdict: Verdict,
    name: String,
}

/// Where it is said whether a member is usable. One place is by far the commonest, and is read without
/// following a pointer.
#[derive(Debug)]
enum Verdict {
    Unchecked,
    One(TargetId),
    Any(Box<[TargetId]>),
}

#[expect(
    clippy::len_without_is_empty,
    reason = "a pool has at least one member"
)]
impl Pool {
    /// Compiles a pool. `start` is entropy for the first round-robin position, so that many processes
    /// started together do not begin with the same member.
    ///
    /// # Errors
    ///
    /// Without members, with too many of them or with a repeated name, and if the weights need too
    /// large a ring.
    pub fn new(
        members: Vec<MemberSpec>,
        algorithm: Algorithm,
        start: u64,
    ) -> Result<Self, PoolError> {
        if members.is_empty() {
            return Err(PoolError::NoMember);
        }
        if members.len() > MEMBERS_MAX {
            return Err(PoolError::TooManyMembers {
                members: members.len(),
                max: MEMBERS_MAX,
            });
        }
        let by_name = order_by_name(&members)?;
        let digest = shape::digest(&members, algorithm);
        let counted = members.iter().filter(|_| algorithm.counts());
        let gauges: Box<[Arc<Gauge>]> = counted.map(|_| Arc::default()).collect();
        let stages = picker::stages(&members, algorithm, start, &gauges)?;
        let census = Census::new(members.iter().map(MemberSpec::verdicts));
        let gates = gates_of(&members);
        let members = members.into_iter().map(Member::from).collect();
        Ok(Self {
            members,
            census,
            by_name,
            stages,
            gates,
            gauges,
            algorithm,
            digest,
        })
    }

    /// Shares the load of its members with every pool that has the identity `key` in `loads`, earlier ones
    /// included; without this a pool's load is its own. Changes nothing if the algorithm does not count.
    #[must_use]
    pub fn counting_in(mut self, loads: &Loads, key: &str) -> Self {
        if self.counts() {
            let names = self.members.iter().map(|member| member.name.as_str());
            self.gauges = loads.gauges(key, names);
            for stage in &mut self.stages {
                stage.share(&self.gauges);
            }
        }
        self
    }

    /// Takes over where `previous` stands: in each priority that keeps a member, the first to be
    /// picked is the one whose turn it would have been, among those that stay. Unchanged priorities
    /// continue their sequence exactly. Chash has no position, and nothing changes.
    #[must_use]
    pub fn succeeding(mut self, previous: &Self) -> Self {
        let (names, by_name) = (&self.members, &self.by_name);
        for stage in &mut self.stages {
            if let Some(earlier) = previous
                .stages
                .iter()
                .find(|earlier| earlier.precedes(stage))
            {
                stage.resume(earlier, |member| {
                    find(names, by_name, previous.name(member))
                });
            }
        }
        self
    }

    /// How many members there are; at least one. Members are numbered from 0, in the order given.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// The name of a member.
    ///
    /// # Panics
    ///
    /// If `member` is not below [`len`](Self::len).
    #[must_use]
    pub fn name(&self, member: usize) -> &str {
        &self.members[member].name
    }

    /// The number of the member with this name.
    #[must_use]
    pub fn member_by_name(&self, name: &str) -> Option<usize> {
        find(&self.members, &self.by_name, name)
    }

    /// The targets behind a member, in the order given; empty if it is not checked.
    ///
    /// # Panics
    ///
    /// If `member` is not below [`len`](Self::len).
    #[must_use]
    pub fn targets(&self, member: usize) -> &[TargetId] {
        if let Some(gate) = self.gate(member) {
            return gate.targets();
        }
        match &self.members[member].verdict {
            Verdict::Unchecked => &[],
            Verdict::One(target) => std::slice::from_ref(target),
            Verdict::Any(targets) => targets,
        }
    }

    /// What stands before a member, if it has guards.
    fn gate(&self, member: usize) -> Option<&Gate> {
        self.gates.get(member)?.as_deref()
    }

    /// Whether picks depend on what earlier ones came to, and have a [`Hold`].
    #[must_use]
    pub fn counts(&self) -> bool {
        !self.gauges.is_empty()
    }

    /// The load of a member at the time `now`, which is as in [`Ask`]; `None` if this pool does not count.
    ///
    /// # Panics
    ///
    /// If the pool counts and `member` is not below [`len`](Self::len).
    #[must_use]
    pub fn load(&self, member: usize, now: Duration) -> Option<Load> {
        self.counts().then(|| self.gauges[member].load(now))
    }

    /// Picks a member for one attempt. Lock-free; does not allocate.
    ///
    /// Unusable members are offered iff no member of the whole pool is usable (fail-open); what was
    /// tried does not enter that test, so a retry ends rather than reach a member known to be bad.
    ///
    /// # Errors
    ///
    /// If everything that may be offered was tried, or nothing may be.
    pub fn pick(&self, ask: &Ask<'_>, availability: &Availability) -> Result<Picked, Exhausted> {
        self.choose(ask, Live, availability)
    }

    /// The same, with a say in where the pickers find what changes from pick to pick. Allocates only if
    /// `least_conn` is to be [noted](Basis::Noted).
    ///
    /// # Errors
    ///
    /// As for [`pick`](Self::pick).
    pub fn pick_by(
        &self,
        ask: &Ask<'_>,
        basis: Basis<'_>,
        availability: &Availability,
    ) -> Result<Picked, Exhausted> {
        match basis {
            Basis::Live => self.choose(ask, Live, availability),
            Basis::Noted | Basis::Given(_) => self.choose(ask, basis, availability),
        }
    }

    fn choose(
        &self,
        ask: &Ask<'_>,
        source: impl Source,
        availability: &Availability,
    ) -> Result<Picked, Exhausted> {
        let untried = |member: usize| !ask.tried.contains(member);
        let usable = |member: usize| self.usable(member, availability);
        let picked = |offer: Offer, failed_open: bool, trial: Option<Trial>| Picked {
            member: offer.member,
            epoch: availability.epoch(),
            failed_open,
            trial_of: trial.as_ref().map(Trial::guard),
            trial,
            hold: offer.hold,
            decision: offer.decision,
        };

        let offer = self.stages.iter().enumerate().find_map(|(at, stage)| {
            let offer = stage.pick_usable(ask, source, availability, usable, untried)?;
            Some((at, offer))
        });
        if let Some((at, offer)) = offer {
            return Ok(match self.trial(at + 1, ask, source, availability) {
                Some((tried, trial)) => {
                    // What it takes the place of has had its turn.
                    let decision = offer.decision;
                    let offer = Offer {
                        decision,
                        ..self.offer(tried)
                    };
                    picked(offer, false, Some(trial))
                }
                None => picked(offer, false, None),
            });
        }
        // Who cannot be asked is no reason to ask nobody.
        let able =
            |member: usize| !ask.tried.is_unable(member) && self.usable(member, availability);
        let is_any_usable = match ask.tried.has_unable() {
            false => self.any_usable(availability),
            true => (0..self.len()).any(able),
        };
        if is_any_usable {
            return Err(self.exhausted(usable));
        }
        // Somebody must find out whether it works again, also where nobody would be used now.
        if let Some((tried, trial)) = self.trial(self.stages.len(), ask, source, availability) {
            return Ok(picked(self.offer(tried), true, Some(trial)));
        }
        match self
            .stages
            .iter()
            .find_map(|stage| stage.pick(ask, source, untried))
        {
            Some(offer) => Ok(picked(offer, true, None)),
            None => Err(self.exhausted(|_| true)),
        }
    }

    /// The same member for one attempt more, by the verdicts as they are now; `None` if a pick would not
    /// offer it any more.
    pub fn again(&self, member: usize, availability: &Availability) -> Option<Picked> {
        let failed_open = !self.usable(member, availability);
        if failed_open && self.any_usable(availability) {
            return None;
        }
        Some(Picked {
            member,
            epoch: availability.epoch(),
            failed_open,
            trial: None,
            trial_of: None,
            hold: self.offer(member).hold,
            decision: None,
        })
    }

    /// Whether the member picked would be offered by these verdicts, too: for whoever has waited since.
    #[must_use]
    pub fn holds(&self, picked: &Picked, availability: &Availability) -> bool {
        let member = picked.member;
        if let Some(tried) = picked.trial_of {
            let asks = self
                .gate(member)
                .and_then(|gate| availability.asks(gate.id()));
            return asks.is_some_and(|circuit| circuit.guard() == tried);
        }
        availability.epoch() == picked.epoch
            || self.usable(member, availability)
            || !self.any_usable(availability)
    }

    /// The offer of a member that no stage chose.
    fn offer(&self, member: usize) -> Offer {
        Offer {
            member,
            hold: self.gauges.get(member).map(Gauge::hold),
            decision: None,
        }
    }

    /// Whether a member may be picked by these verdicts.
    ///
    /// # Panics
    ///
    /// If `member` is not below [`len`](Self::len).
    #[must_use]
    #[inline]
    pub fn usable(&self, member: usize, availability: &Availability) -> bool {
        self.members[member].verdict.usable(availability)
    }

    /// Whether any member may be picked by these verdicts.
    #[must_use]
    pub fn any_usable(&self, availability: &Availability) -> bool {
        self.census.any(availability)
    }

    /// How long it takes at least until some member may be usable; `None` if that is not known of any.
    #[must_use]
    pub fn soonest_recovery(&self, availability: &Availability, now: Instant) -> Option<Duration> {
        let of_member = |member: usize| {
            let targets = self.targets(member).iter();
            let wait = if self.targets(member).is_empty() {
                Duration::ZERO
            } else {
                targets
                    .filter_map(|&target| availability.comeback(target, now))
                    .min()?
            };
            let guards = self.gate(member).map_or(&[][..], Gate::guards);
            guards.iter().try_fold(wait, |wait, &guard| {
                // A half-open circuit waits for nothing but an attempt.
                Some(wait.max(availability.comeback(guard, now).unwrap_or_default()))
            })
        };
        (0..self.len()).filter_map(of_member).min()
    }

    /// Whether nothing is known against any member. A look at whole words of verdicts, unless somebody has
    /// several targets.
    #[must_use]
    pub fn all_usable(&self, availability: &Availability) -> bool {
        self.census.all_targets(availability)
            || (!self.census.is_one_each()
                && (0..self.len()).all(|member| self.usable(member, availability)))
    }

    /// Nobody was eligible: because those on offer were tried, or because none is on offer?
    #[cold]
    fn exhausted(&self, on_offer: impl Fn(usize) -> bool) -> Exhausted {
        if self
            .stages
            .iter()
            .any(|stage| stage.members().any(&on_offer))
        {
            Exhausted::AllTried
        } else {
            Exhausted::NothingToPick
        }
    }
}

impl Picked {
    /// The number of the member in its pool.
    #[must_use]
    pub const fn member(&self) -> usize {
        self.member
    }

    /// The epoch of the verdicts this pick read.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The right to try a member whose circuit is half open, if that is what this pick is: to be reported
    /// with the outcome. Dropped, it is given back.
    pub fn take_trial(&mut self) -> Option<Trial> {
        self.trial.take()
    }

    /// Whether it is to find out if a circuit may close.
    #[must_use]
    pub const fn is_trial(&self) -> bool {
        self.trial_of.is_some()
    }

    /// What it went by, if that [was asked for](Basis::Noted) and a picker has decided.
    #[must_use]
    pub const fn decision(&self) -> Option<&Decision> {
        self.decision.as_ref()
    }

    /// What counts this attempt among those under way, if the pool counts: to be kept until the attempt is
    /// over. Left here, it is over when the pick is dropped.
    pub fn take_hold(&mut self) -> Option<Hold> {
        self.hold.take()
    }

    /// Whether health was ignored, because no member of the pool was usable.
    #[must_use]
    pub const fn failed_open(&self) -> bool {
        self.failed_open
    }
}

impl Verdict {
    #[inline]
    fn usable(&self, availability: &Availability) -> bool {
        match self {
            Self::Unchecked => true,
            Self::One(target) => availability.usable(*target),
            Self::Any(targets) => targets.iter().any(|&target| availability.usable(target)),
        }
    }
}

impl From<MemberSpec> for Member {
    fn from(spec: MemberSpec) -> Self {
        let verdict = match spec.verdicts() {
            [] => Verdict::Unchecked,
            [one] => Verdict::One(*one),
            any => Verdict::Any(any.into()),
        };
        Self {
            verdict,
            name: spec.name,
        }
    }
}

fn gates_of(members: &[MemberSpec]) -> Box<[Option<Arc<Gate>>]> {
    if members.iter().all(|member| member.gate.is_none()) {
        return Box::default();
    }
    members.iter().map(|member| member.gate.clone()).collect()
}

fn order_by_name(members: &[MemberSpec]) -> Result<Box<[usize]>, PoolError> {
    let mut order: Box<[usize]> = (0..members.len()).collect();
    order.sort_unstable_by_key(|&member| &members[member].name);
    for pair in order.windows(2) {
        if members[pair[0]].name == members[pair[1]].name {
            return Err(PoolError::DuplicateName(members[pair[0]].name.clone()));
        }
    }
    Ok(order)
}

fn find(members: &[Member], by_name: &[usize], name: &str) -> Option<usize> {
    let found = by_name
        .binary_search_by(|&member| members[member].name.as_str().cmp(name))
        .ok()?;
    Some(by_name[found])
}
