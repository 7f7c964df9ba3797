//! What must be so of guards, names and load, written down as plainly as can be: no bits, no ids, no
//! heaps, and everything is looked for among everything.

use std::collections::{BTreeMap, BTreeSet};

use crate::table::{self, State};

/// Where members are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Place {
    /// An address of its own.
    Site(usize),
    /// The addresses of a name.
    Name(usize),
    /// Nobody checks it.
    Anywhere,
}

#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) name: u32,
    pub(crate) weight: u32,
    pub(crate) priority: i32,
    pub(crate) place: Place,
    /// What keeps it out besides: numbers of guards.
    pub(crate) guards: Vec<usize>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Guard {
    pub(crate) cools_until: Option<u64>,
    /// Closed for good if it has none.
    pub(crate) circuit: Circuit,
    pub(crate) has_circuit: bool,
    /// No configuration has it any more: it stays as it is.
    pub(crate) is_gone: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Circuit {
    #[default]
    Closed,
    Open {
        until: u64,
        failed: u32,
    },
    HalfOpen {
        failed: u32,
        succeeded: u32,
        /// Which one of all.
        period: u64,
        is_tried: bool,
    },
}

pub(crate) const NAMES: usize = 2;
pub(crate) const SITES: usize = 4;
/// In milliseconds: how long a circuit is open at first, and at most.
pub(crate) const OPEN: (u64, u64) = (40, 100);
/// So many trials must succeed.
pub(crate) const TRIALS: u32 = 2;

pub(crate) struct Model {
    pub(crate) sites: [State; SITES],
    /// The addresses of each name, and what is known of them there.
    pub(crate) names: [BTreeMap<u8, State>; NAMES],
    /// Addresses that were down when the last name that had them lost them.
    departed: BTreeSet<u8>,
    pub(crate) guards: Vec<Guard>,
    pub(crate) periods: u64,
    /// By pool and member.
    pub(crate) loads: BTreeMap<(u32, u32), Load>,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Load {
    pub(crate) in_flight: u32,
    /// Milliseconds, and when that was so.
    pub(crate) average: Option<(f64, u64)>,
}

impl Guard {
    pub(crate) fn usable(&self) -> bool {
        self.cools_until.is_none() && self.circuit == Circuit::Closed
    }
}

impl Load {
    pub(crate) fn latency(&self, now: u64) -> f64 {
        let faded = |(average, at): (f64, u64)| average * (-((now - at) as f64) / 10_000.0).exp();
        self.average.map_or(0.0, faded)
    }

    pub(crate) fn observe(&mut self, took: u64, now: u64) {
        let old = self
            .average
            .map(|(_, at)| (-((now - at) as f64) / 10_000.0).exp());
        let average = old.map_or(took as f64, |old| {
            self.latency(now) + took as f64 * (1.0 - old)
        });
        self.average = Some((average, now));
    }
}

impl Model {
    /// Everything is up, and names have no addresses yet.
    pub(crate) fn new() -> Self {
        Self {
            sites: [State::begin(true); SITES],
            names: Default::default(),
            departed: BTreeSet::new(),
            guards: Vec::new(),
            periods: 0,
            loads: BTreeMap::new(),
        }
    }

    pub(crate) fn place_usable(&self, place: Place) -> bool {
        match place {
            Place::Site(site) => is_up(&self.sites[site]),
            Place::Name(name) => {
                let addresses = &self.names[name];
                addresses.is_empty() || addresses.values().any(is_up)
            }
            Place::Anywhere => true,
        }
    }

    /// Whether the target of that number is probed: the only one of a site, or an address of a name.
    pub(crate) fn watches(&self, place: Place, number: u8) -> bool {
        match place {
            Place::Site(_) => number == 0,
            Place::Name(name) => number > 0 && self.names[name].contains_key(&(number - 1)),
            Place::Anywhere => false,
        }
    }

    pub(crate) fn usable(&self, member: &Member) -> bool {
        let guards = member.guards.iter();
        self.place_usable(member.place) && guards.into_iter().all(|&at| self.guards[at].usable())
    }

    /// The circuit that keeps a member out, if it is half open and nothing else does.
    pub(crate) fn half_open(&self, member: &Member) -> Option<usize> {
        let mut shut = member
            .guards
            .iter()
            .filter(|&&at| !self.guards[at].usable());
        let (&only, None) = (shut.next()?, shut.next()) else {
            return None;
        };
        let guard = &self.guards[only];
        let is_half_open = matches!(guard.circuit, Circuit::HalfOpen { .. });
        let asks = is_half_open && guard.cools_until.is_none() && !guard.is_gone;
        (asks && self.place_usable(member.place)).then_some(only)
    }

    /// The same, if no trial of it is under way.
    pub(crate) fn asks(&self, member: &Member) -> Option<usize> {
        let is_tried = |at: &usize| matches!(self.guards[*at].circuit, Circuit::HalfOpen { is_tried, .. } if is_tried);
        self.half_open(member).filter(|at| !is_tried(at))
    }

    pub(crate) fn cool_down(&mut self, guard: usize, until: u64, now: u64) {
        let guard = &mut self.guards[guard];
        if !guard.is_gone && until > now {
            guard.cools_until = guard.cools_until.max(Some(until));
        }
    }

    pub(crate) fn trip(&mut self, guard: usize, now: u64) {
        let guard = &mut self.guards[guard];
        if !guard.is_gone && guard.has_circuit && guard.circuit == Circuit::Closed {
            let until = now + OPEN.0;
            guard.circuit = Circuit::Open { until, failed: 0 };
        }
    }

    /// The trial of that period takes the place of all others until it ends.
    pub(crate) fn try_now(&mut self, guard: usize) -> u64 {
        let Circuit::HalfOpen {
            period, is_tried, ..
        } = &mut self.guards[guard].circuit
        else {
            panic!("{guard} is not half open");
        };
        *is_tried = true;
        *period
    }

    /// A trial ended; `None`: nobody knows how.
    pub(crate) fn tried(&mut self, guard: usize, of: u64, succeeded: Option<bool>, now: u64) {
        let guard = &mut self.guards[guard];
        let Circuit::HalfOpen {
            failed,
            succeeded: before,
            period,
            ..
        } = guard.circuit
        else {
            return;
        };
        if period != of {
            return;
        }
        let succeeded = succeeded.filter(|_| !guard.is_gone);
        guard.circuit = match succeeded {
            Some(true) if before + 1 >= TRIALS => Circuit::Closed,
            Some(false) => Circuit::Open {
                until: now + (OPEN.0 << (failed + 1)).min(OPEN.1),
                failed: failed + 1,
            },
            _ => Circuit::HalfOpen {
                failed,
                succeeded: before + u32::from(succeeded == Some(true)),
                period,
                is_tried: false,
            },
        };
    }

    pub(crate) fn tick(&mut self, now: u64) {
        for guard in self.guards.iter_mut().filter(|guard| !guard.is_gone) {
            guard.cools_until = guard.cools_until.filter(|until| *until > now);
            if let Circuit::Open { until, failed } = guard.circuit
                && until <= now
            {
                self.periods += 1;
                guard.circuit = Circuit::HalfOpen {
                    failed,
                    succeeded: 0,
                    period: self.periods,
                    is_tried: false,
                };
            }
        }
    }

    /// Names have these addresses now, all at once. Those that a name had keep what is known of them there;
    /// others begin down if another name knows them to be, or did when the last one lost them. Returns how
    /// many do.
    pub(crate) fn resolve(&mut self, answers: &[(usize, BTreeSet<u8>)]) -> usize {
        let (mut left, mut begin_down) = (Vec::new(), 0);
        for (name, addresses) in answers {
            for at in addresses {
                if !self.names[*name].contains_key(at) {
                    let is_down = self
                        .names
                        .iter()
                        .any(|known| known.get(at).is_some_and(is_down));
                    let is_bad = self.departed.remove(at) || is_down;
                    begin_down += usize::from(is_bad);
                    self.names[*name].insert(*at, State::begin(!is_bad));
                }
            }
            let gone = self.names[*name]
                .keys()
                .filter(|at| !addresses.contains(at));
            left.extend(gone.map(|at| (*name, *at)));
        }
        for (name, at) in left {
            let last = self.names[name].remove(&at);
            let is_elsewhere = self.names.iter().any(|known| known.contains_key(&at));
            if last.as_ref().is_some_and(is_down) && !is_elsewhere {
                self.departed.insert(at);
            }
        }
        begin_down
    }

    /// What is known of the target of that number.
    pub(crate) fn state(&mut self, place: Place, number: u8) -> &mut State {
        match place {
            Place::Site(site) => &mut self.sites[site],
            Place::Name(name) => (self.names[name].get_mut(&(number - 1))).expect("it is watched"),
            Place::Anywhere => unreachable!("nobody checks it"),
        }
    }
}

pub(crate) const fn is_up(state: &State) -> bool {
    table::usable(state.status)
}

const fn is_down(state: &State) -> bool {
    !is_up(state)
}
