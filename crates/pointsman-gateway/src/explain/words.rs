//! What decided a pick, in the words of an operator.

use pointsman_balance::{Algorithm, Decision, Drawn, Tier};

use super::read::{By, Logged};
use crate::forward::picks::Used;

/// As the configuration has it.
pub(super) const fn algorithm(algorithm: Algorithm, is_semantic: bool) -> &'static str {
    match algorithm {
        _ if is_semantic => "semantic",
        Algorithm::RoundRobin => "roundrobin",
        Algorithm::Chash => "chash",
        Algorithm::LeastConn => "least_conn",
        Algorithm::Ewma => "ewma",
    }
}

/// What decided. `tier` is that of the member picked.
pub(super) fn decided(used: &Used<'_>, logged: &Logged, tier: Option<&Tier>) -> String {
    if logged.trial {
        return "it was a trial: its circuit is half open, and this request finds out whether it may close"
            .to_owned();
    }
    if used.pool.len() == 1 {
        return "nothing to choose from: it is the only member".to_owned();
    }
    match &logged.by {
        By::Decision(decision) => by_picker(used, decision, tier),
        By::Order(order) => {
            let names = order.iter().filter(|member| **member < used.pool.len());
            let names = names.map(|&member| used.pool.name(member));
            format!(
                "the first eligible one in the order of likeness: {}",
                list(names)
            )
        }
        By::Again => "no choice: the same member was asked once more (`retry`)".to_owned(),
        By::Nothing | By::Unknown => "not written down".to_owned(),
    }
}

fn by_picker(used: &Used<'_>, decision: &Decision, tier: Option<&Tier>) -> String {
    let name = |member: usize| {
        let known = member < used.pool.len();
        if known { used.pool.name(member) } else { "?" }
    };
    match decision {
        Decision::Position(position) => {
            format!("the next eligible one in turn, from position {position} of the cycle on")
        }
        Decision::Hash(hash) => {
            format!("the next eligible one on the ring, from the key's hash {hash:08x} on")
        }
        Decision::InFlight { first, counts } => {
            let members = tier.map_or(&[][..], |tier| &tier.members);
            let counted = members.iter().zip(counts);
            let counted = counted.map(|(&member, count)| format!("{} {count}", name(member)));
            let first = members
                .get(*first as usize)
                .map_or("?", |&member| name(member));
            format!(
                "the lowest (1 + requests under way) / weight; under way: {}; first among equals: {first}",
                list(counted)
            )
        }
        Decision::Drawn { one, other: None } => {
            format!("{} was the only one to draw", name(one.member))
        }
        Decision::Drawn {
            one,
            other: Some(other),
        } => {
            let with = |drawn: &Drawn| match f64::from(drawn.latency) * 1000.0 {
                // The quickest of all, until it has answered once.
                0.0 => format!("{} (no average yet)", name(drawn.member)),
                ms => format!("{} ({ms:.3} ms)", name(drawn.member)),
            };
            format!(
                "the quicker of two drawn at random: {}, {}",
                with(one),
                with(other)
            )
        }
    }
}

/// The first few.
pub(super) fn list<T: AsRef<str>>(all: impl Iterator<Item = T>) -> String {
    let mut all = all.peekable();
    if all.peek().is_none() {
        return "nobody".to_owned();
    }
    let mut text = String::new();
    for (index, one) in all.by_ref().take(NAMED_MAX).enumerate() {
        if index > 0 {
            text.push_str(", ");
        }
        text.push_str(one.as_ref());
    }
    match all.count() {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

const NAMED_MAX: usize = 12;
