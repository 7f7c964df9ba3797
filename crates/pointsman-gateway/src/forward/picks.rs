//! What was out of the ordinary about a request's picks, for the access log.
//!
//! A pick with nobody known to be unhealthy leaves nothing here and costs a look at a few words of
//! verdicts. Notes decide nothing: no pick ever reads them.

use std::cell::RefCell;

use pointsman_balance::{Availability, Picked, Pool};

use crate::{exchange::Exchange, failure::Failure};

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
    pick: Exceptional,
}

/// What is to be told of a pick.
#[derive(Clone, Default)]
pub(crate) struct Exceptional {
    /// Health was ignored, because nobody was usable.
    pub(crate) failed_open: bool,
    /// It was to find out whether an open circuit may close.
    pub(crate) trial: bool,
    /// Who was not to be picked; the first few when they are many.
    pub(crate) excluded: Vec<Box<str>>,
    /// How many were not to be picked.
    pub(crate) count: usize,
}

impl Notes {
    /// Whether no pick had anybody to leave out.
    pub(crate) fn is_plain(&self) -> bool {
        self.picks.borrow().is_empty()
    }

    /// Of the pick for the attempt at that place; the default where there is nothing to tell.
    pub(crate) fn pick(&self, attempt: usize) -> Exceptional {
        let picks = self.picks.borrow();
        // A pick whose attempt could not be prepared was followed by another for the same place.
        let note = picks.iter().rfind(|note| note.attempt == attempt);
        note.map(|note| note.pick.clone()).unwrap_or_default()
    }

    /// What the attempt at that place came to nothing for.
    pub(crate) fn error(&self, attempt: usize) -> Option<Box<str>> {
        let errors = self.errors.borrow();
        let found = errors.iter().rfind(|(place, _)| *place == attempt);
        found.map(|(_, error)| error.clone())
    }
}

/// Notes whom the pick for the next attempt of `exchange` left out, by the verdicts that it read.
pub(super) fn note(exchange: &Exchange, pool: &Pool, picked: &Picked, availability: &Availability) {
    let is_logged = exchange.gateway().access_log().is_some();
    if is_logged && (picked.failed_open() || !pool.all_usable(availability)) {
        note_exclusions(exchange, pool, picked, availability);
    }
}

#[cold]
fn note_exclusions(exchange: &Exchange, pool: &Pool, picked: &Picked, availability: &Availability) {
    let mut pick = Exceptional {
        failed_open: picked.failed_open(),
        ..Exceptional::default()
    };
    for member in (0..pool.len()).filter(|member| !pool.usable(*member, availability)) {
        if member == picked.member() && !pick.failed_open {
            pick.trial = true;
            continue;
        }
        pick.count += 1;
        if pick.excluded.len() < NAMES_MAX {
            pick.excluded.push(pool.name(member).into());
        }
    }
    let attempt = exchange.attempts.len();
    let mut notes = exchange.rare().picks.picks.borrow_mut();
    notes.push(Note { attempt, pick });
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
