//! What a request's picks went by, for the access log.
//!
//! A pick that has somebody to choose from, or somebody to leave out, leaves a note here while the
//! access log is on; without the log it leaves nothing and carries nothing. A note holds all that it
//! takes to make the pick again ([`explain`](crate::explain)). Notes decide nothing: no pick ever reads
//! them.

mod members;

use std::cell::{Ref, RefCell};

use pointsman_balance::{Availability, Basis, Decision, Picked, Pool, Tried};

pub(crate) use members::Members;

use crate::{
    config::snapshot::Backend, exchange::Exchange, failure::Failure, plugins::ai_proxy::AiTarget,
};

/// Of the picks of one request.
#[derive(Default)]
pub(crate) struct Notes {
    picks: RefCell<Vec<Note>>,
    /// What attempts came to nothing for, by their place.
    errors: RefCell<Vec<(usize, Box<str>)>>,
}

/// Of one pick.
struct Note {
    /// The place of the attempt that it was for.
    attempt: usize,
    pick: Told,
}

/// What is to be told of a pick.
#[derive(Default)]
pub(crate) struct Told {
    /// Health was ignored, because nobody was usable.
    pub(crate) failed_open: bool,
    /// It was to find out whether an open circuit may close.
    pub(crate) trial: bool,
    /// It was no choice: the same member was asked once more.
    pub(crate) again: bool,
    /// What the picker read.
    pub(crate) decision: Option<Decision>,
    /// Who was not to be picked, and why; the first few when they are many.
    pub(crate) excluded: Vec<(Box<str>, String)>,
    /// How many were not to be picked.
    pub(crate) count: usize,
    /// Whom it was not to take, if there was anybody.
    pub(crate) barred: Option<Box<Barred>>,
    /// There may have been somebody, but the pool is too large to say whom.
    pub(crate) is_too_large: bool,
}

/// Whom a pick was not to take, by number: what it takes besides the decision to make it again.
#[derive(Default)]
pub(crate) struct Barred {
    /// The request had tried them.
    pub(crate) tried: Members,
    /// By [`Reason`].
    pub(crate) out: [Members; Reason::ALL.len()],
}

/// Why a member may not be picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Its target is unhealthy, by probes or passive checks.
    Unhealthy,
    /// It cools down, as it asked for or because its model is missing.
    Cooldown,
    /// Its circuit is open, or half open.
    Circuit,
    /// Its credential was refused.
    Credential,
}

impl Reason {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [
        Self::Unhealthy,
        Self::Cooldown,
        Self::Circuit,
        Self::Credential,
    ];

    /// As the log has it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Unhealthy => "unhealthy",
            Self::Cooldown => "cooldown",
            Self::Circuit => "circuit",
            Self::Credential => "credential",
        }
    }

    /// The guard that says so of a member; `None` where that is its targets' affair or there is none.
    pub(crate) fn guard(
        self,
        target: Option<&AiTarget>,
        member: usize,
    ) -> Option<pointsman_balance::TargetId> {
        let watch = target?.instances[member].watch.as_ref()?;
        match self {
            Self::Unhealthy => None,
            Self::Cooldown => watch.guard,
            Self::Circuit => watch.circuit,
            Self::Credential => watch.credential,
        }
    }

    fn holds(self, used: &Used<'_>, member: usize, availability: &Availability) -> bool {
        match self.guard(used.target, member) {
            Some(guard) => !availability.usable(guard),
            None => self == Self::Unhealthy && !used.pool.healthy(member, availability),
        }
    }
}

/// The pool that a request picks from.
pub(crate) struct Used<'a> {
    /// Its identity: the resource, and the plugin if it is one's.
    pub(crate) key: &'a str,
    pub(crate) pool: &'a Pool,
    /// The plugin's instances, if it is one's.
    pub(crate) target: Option<&'a AiTarget>,
}

impl<'a> Used<'a> {
    /// The pool of `exchange`, if it has come so far as to have one.
    pub(crate) fn by(exchange: &'a Exchange) -> Option<Self> {
        if let Some(call) = &exchange.ai {
            return Some(Self::of_plugin(&call.target));
        }
        match exchange.backend()? {
            Backend::Upstream(upstream) => Some(Self {
                key: &upstream.key,
                pool: &upstream.pool,
                target: None,
            }),
            _ => None,
        }
    }

    /// The pool of a plugin.
    pub(crate) fn of_plugin(target: &'a AiTarget) -> Self {
        Self {
            key: &target.key,
            pool: &target.pool,
            target: Some(target),
        }
    }
}

impl Told {
    /// Notes whom the pick was not to take, unless that is too much.
    fn bar(&mut self, pool: &Pool, note: impl FnOnce(&mut Barred)) {
        if pool.len() > MEMBERS_MAX {
            self.is_too_large = true;
        } else {
            note(self.barred.get_or_insert_default());
        }
    }
}

impl Notes {
    /// Of the pick for the attempt at that place, if there is anything to tell.
    pub(crate) fn pick(&self, attempt: usize) -> Option<Ref<'_, Told>> {
        // A pick whose attempt could not be prepared was followed by another for the same place.
        let last = |picks: &Vec<Note>| picks.iter().rposition(|note| note.attempt == attempt);
        let picks = self.picks.borrow();
        let place = last(&picks)?;
        Some(Ref::map(picks, |picks| &picks[place].pick))
    }

    /// What the attempt at that place came to nothing for.
    pub(crate) fn error(&self, attempt: usize) -> Option<Box<str>> {
        let errors = self.errors.borrow();
        let found = errors.iter().rfind(|(place, _)| *place == attempt);
        found.map(|(_, error)| error.clone())
    }
}

/// What a pick of `exchange` goes by: it is noted if it is a choice and the access log is on.
pub(super) fn basis(exchange: &Exchange, pool: &Pool) -> Basis<'static> {
    if pool.len() > 1 && exchange.gateway().access_log().is_some() {
        Basis::Noted
    } else {
        Basis::Live
    }
}

/// Notes the pick for the next attempt of `exchange`, and whom it left out by the verdicts that it read.
pub(super) fn note(
    exchange: &Exchange,
    picked: &Picked,
    availability: &Availability,
    tried: &Tried,
) {
    note_as(exchange, picked, availability, |told, pool| {
        if !tried.is_empty() {
            let all = (0..pool.len()).filter(|&member| tried.contains(member));
            told.bar(pool, |barred| barred.tried = all.collect());
        }
    });
}

/// Notes that the next attempt of `exchange` goes to the same member once more.
pub(super) fn note_again(exchange: &Exchange, picked: &Picked, availability: &Availability) {
    note_as(exchange, picked, availability, |told, _| told.again = true);
}

fn note_as(
    exchange: &Exchange,
    picked: &Picked,
    availability: &Availability,
    add: impl FnOnce(&mut Told, &Pool),
) {
    if exchange.gateway().access_log().is_none() {
        return;
    }
    let Some(used) = Used::by(exchange) else {
        return;
    };
    let leaves_out = picked.failed_open() || !used.pool.all_usable(availability);
    if used.pool.len() == 1 && !leaves_out {
        return;
    }
    let mut told = Told {
        failed_open: picked.failed_open(),
        trial: picked.is_trial(),
        decision: picked.decision().cloned(),
        ..Told::default()
    };
    if leaves_out {
        exclusions(&mut told, &used, picked, availability);
    }
    add(&mut told, used.pool);
    let attempt = exchange.attempts.len();
    let mut notes = exchange.rare().picks.picks.borrow_mut();
    // Most requests make one attempt.
    notes.reserve_exact(1);
    notes.push(Note {
        attempt,
        pick: told,
    });
}

#[cold]
fn exclusions(told: &mut Told, used: &Used<'_>, picked: &Picked, availability: &Availability) {
    let pool = used.pool;
    for member in (0..pool.len()).filter(|member| !pool.usable(*member, availability)) {
        let holds = |reason: &Reason| reason.holds(used, member, availability);
        told.bar(pool, |barred| {
            for (reason, out) in Reason::ALL.iter().zip(&mut barred.out) {
                if holds(reason) {
                    out.insert(member);
                }
            }
        });
        if member == picked.member() && !told.failed_open {
            // A trial: it was picked although its circuit keeps it out.
            continue;
        }
        told.count += 1;
        if told.excluded.len() < NAMES_MAX {
            let reasons = Reason::ALL.into_iter().filter(|reason| holds(reason));
            let reasons: Vec<&str> = reasons.map(Reason::as_str).collect();
            told.excluded
                .push((pool.name(member).into(), reasons.join(",")));
        }
    }
}

/// Notes what the current attempt of `exchange` came to nothing for.
pub(crate) fn note_failure(exchange: &Exchange, failure: &Failure) {
    if let Some(attempt) = exchange.attempts.len().checked_sub(1) {
        let error = (attempt, failure.message().into());
        exchange.rare().picks.errors.borrow_mut().push(error);
    }
}

/// A pick names no more than this of those it left out.
const NAMES_MAX: usize = 8;

/// Of larger pools it is not noted whom a pick was not to take: a line would have more than a kilobyte
/// of that for each attempt.
pub(crate) const MEMBERS_MAX: usize = 1024;
