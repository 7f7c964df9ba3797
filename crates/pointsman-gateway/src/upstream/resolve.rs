//! Names and the addresses behind them: which name is looked up when, and what an answer changes.
//!
//! Nobody waits for a look-up but the configuration that brings a name (a second at most), and a request
//! that comes before the very first answer. The thread of health asks which names are due, performs the look-ups and hands the answers in; a changed
//! set of addresses is then published together with the verdicts about them, so that every pick that
//! starts later sees both. A look-up that fails changes nothing: addresses that worked a minute ago
//! work better than none.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use pointsman_balance::{Availability, TargetId, WantedAddress};

use crate::{
    gateway::State,
    upstream::{
        driver::Health,
        health::{ProbeKind, ProbeSpec},
    },
};

/// What a look-up has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// At least one address, in any order.
    pub addresses: Vec<IpAddr>,
    /// How long they count.
    pub ttl: Duration,
    /// Whether only one of A and AAAA was answered, and the other look-up failed: which addresses of
    /// that kind there are is not known, so those known before stay.
    pub unknown: Option<Family>,
}

/// The kind of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A look-up to perform now.
#[derive(Debug)]
#[must_use = "a look-up that is not answered is never repeated"]
pub struct Lookup {
    /// What to resolve.
    pub name: Arc<str>,
    serial: u64,
}

/// The names that configuration uses.
#[derive(Default)]
pub struct Names {
    entries: HashMap<Arc<str>, Entry>,
    agenda: BTreeSet<(Instant, Arc<str>)>,
    under_way: usize,
    serial: u64,
}

struct Entry {
    /// The look-up that its next answer belongs to.
    under_way: Option<u64>,
    /// The newest that are known: sorted, each once.
    addresses: Vec<IpAddr>,
    /// In a row.
    failures: u32,
}

/// What an answer has changed.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Nothing,
    /// These are its addresses now. Number of addresses left out because there are too many.
    Addresses(usize),
    /// It has no address, for the first time.
    NeverResolved,
    /// It cannot be resolved any more, for the first time; its addresses stay.
    Stays,
}

impl Names {
    /// Forgets all names but those `wanted`.
    fn keep(&mut self, wanted: &HashSet<&str>) {
        self.entries.retain(|name, _| wanted.contains(&**name));
        let entries = &self.entries;
        self.agenda.retain(|(_, name)| entries.contains_key(name));
    }

    /// Adds the `wanted` names that there are not yet, to be looked up at once.
    fn add<'a>(&mut self, wanted: impl Iterator<Item = &'a str>, now: Instant) {
        for name in wanted {
            if !self.entries.contains_key(name) {
                let name: Arc<str> = name.into();
                self.agenda.insert((now, Arc::clone(&name)));
                let entry = Entry {
                    under_way: None,
                    addresses: Vec::new(),
                    failures: 0,
                };
                self.entries.insert(name, entry);
            }
        }
    }

    /// The addresses of `name`; none if it was never resolved.
    pub(super) fn addresses(&self, name: &str) -> &[IpAddr] {
        let entry = self.entries.get(name);
        entry.map_or(&[], |entry| &entry.addresses)
    }

    /// Whether a look-up of `name` has failed and none has succeeded.
    fn is_unresolvable(&self, name: &str) -> bool {
        let entry = self.entries.get(name);
        entry.is_some_and(|entry| entry.failures > 0 && entry.addresses.is_empty())
    }

    fn poll(&mut self, now: Instant) -> Option<Lookup> {
        if self.under_way >= LOOKUPS_MAX || self.agenda.first()?.0 > now {
            return None;
        }
        let (_, name) = self.agenda.pop_first()?;
        self.under_way += 1;
        self.serial += 1;
        let serial = self.serial;
        if let Some(entry) = self.entries.get_mut(&name) {
            entry.under_way = Some(serial);
        }
        Some(Lookup { name, serial })
    }

    fn on_answer(&mut self, lookup: &Lookup, answer: Option<&Found>, now: Instant) -> Change {
        self.under_way = self.under_way.saturating_sub(1);
        let Some(entry) = self.entries.get_mut(&lookup.name) else {
            return Change::Nothing;
        };
        if entry.under_way != Some(lookup.serial) {
            return Change::Nothing;
        }
        let (wait, change) = entry.take(answer);
        let due = now + wait;
        entry.under_way = None;
        self.agenda.insert((due, Arc::clone(&lookup.name)));
        change
    }

    /// Whether a name is used that has had no answer so far.
    pub(super) fn is_unanswered(&self, name: &str) -> bool {
        let entry = self.entries.get(name);
        entry.is_some_and(|entry| entry.addresses.is_empty())
    }

    /// Whether a name has been neither found nor given up so far.
    fn awaits_first_answers(&self) -> bool {
        let mut entries = self.entries.values();
        entries.any(|entry| entry.failures == 0 && entry.addresses.is_empty())
    }

    /// When something is due next; `None` while nothing is, or as much is under way as may be.
    fn next_deadline(&self) -> Option<Instant> {
        let (due, _) = self.agenda.first()?;
        (self.under_way < LOOKUPS_MAX).then_some(*due)
    }
}

impl Entry {
    /// Takes an answer; returns when to ask again, and what is new.
    fn take(&mut self, answer: Option<&Found>) -> (Duration, Change) {
        let Some(found) = answer.filter(|found| !found.addresses.is_empty()) else {
            self.failures = self.failures.saturating_add(1);
            let change = match (self.failures, self.addresses.is_empty()) {
                (1, true) => Change::NeverResolved,
                (1, false) => Change::Stays,
                _ => Change::Nothing,
            };
            let doubled = RETRY_MIN * 2u32.saturating_pow(self.failures.min(10) - 1);
            return (doubled.min(RETRY_MAX), change);
        };
        self.failures = 0;
        let mut addresses = found.addresses.clone();
        if let Some(family) = found.unknown {
            let before = self.addresses.iter();
            addresses.extend(before.filter(|ip| ip.is_ipv4() == (family == Family::V4)));
        }
        // In whatever order an answer has them.
        addresses.sort_unstable();
        addresses.dedup();
        let left_out = addresses.len().saturating_sub(ADDRESSES_MAX);
        addresses.truncate(ADDRESSES_MAX);
        let change = if addresses == self.addresses {
            Change::Nothing
        } else {
            Change::Addresses(left_out)
        };
        self.addresses = addresses;
        (found.ttl.clamp(TTL_MIN, TTL_MAX), change)
    }
}

impl Health {
    /// The group of `name` for members that nobody checks, until the second configuration from now is put in
    /// force that does not ask for it.
    pub fn name(&mut self, name: &str) -> TargetId {
        let key = unprobed(name);
        let known = self.names.addresses(name);
        let id = self.monitor.unchecked_group(key, known);
        self.unchecked.insert(name.to_owned(), id);
        self.unchecked_wanted.insert(name.to_owned());
        id
    }

    /// Has the names of a configuration looked up that is about to be in force.
    pub fn add_names(&mut self, now: Instant) {
        let wanted = self.unchecked.keys().chain(self.checked.keys());
        self.names.add(wanted.map(String::as_str), now);
    }

    /// Settles which names there are once a configuration is in force: those that it uses.
    pub(super) fn sweep_names(&mut self, now: Instant) {
        self.monitor.sweep_groups(now);
        let wanted = std::mem::take(&mut self.unchecked_wanted);
        self.unchecked.retain(|name, _| wanted.contains(name));
        let unchecked = self.unchecked.keys();
        let wanted = unchecked.chain(self.checked.keys()).map(String::as_str);
        self.names.keep(&wanted.collect());
        self.add_names(now);
    }

    /// What is probed at the addresses of `spec`, which is at a name; none before the first answer.
    pub(super) fn addresses_of(&self, spec: &Arc<ProbeSpec>) -> Vec<WantedAddress<Arc<ProbeSpec>>> {
        if self.names.is_unresolvable(&spec.host) {
            // As it is, so that an instance that nobody can find becomes unhealthy like any other.
            return vec![WantedAddress {
                ip: None,
                probe: Arc::clone(spec),
                place: None,
            }];
        }
        let addresses = self.names.addresses(&spec.host).iter();
        let wanted = addresses.map(|&ip| WantedAddress {
            ip: Some(ip),
            probe: Arc::new(spec.at(ip)),
            place: Some(Arc::new(spec.at(ip).nameless())),
        });
        wanted.collect()
    }

    /// The next name to look up, if one is due: call until `None`.
    pub fn poll_lookup(&mut self, now: Instant) -> Option<Lookup> {
        self.names.poll(now)
    }

    /// Whether a name of the configuration has had no answer so far, not even that there is none.
    pub fn awaits_first_answers(&self) -> bool {
        self.names.awaits_first_answers()
    }

    /// When to call [`poll_lookup`](Self::poll_lookup) next, unless an answer or another configuration
    /// comes before.
    pub fn next_lookup(&self) -> Option<Instant> {
        self.names.next_deadline()
    }

    /// Takes the answer to a look-up. A changed set of addresses is published when this returns: no
    /// attempt that starts later goes to an address outside of it. Says whether there is somebody new
    /// to probe.
    pub fn on_lookup(
        &mut self,
        lookup: &Lookup,
        answer: Result<Found, String>,
        now: Instant,
        state: &State,
    ) -> bool {
        let name = &*lookup.name;
        let change = self.names.on_answer(lookup, answer.as_ref().ok(), now);
        let error = answer.err().unwrap_or_else(|| "no address".to_owned());
        match change {
            Change::Nothing => return false,
            Change::Stays => {
                let name = name.to_owned();
                self.say(move || {
                    tracing::warn!(name, "cannot be resolved, its last addresses stay: {error}");
                });
                return false;
            }
            Change::NeverResolved | Change::Addresses(_) => self.apply(name, now),
        }
        state.publish_availability(self.monitor.availability());
        self.tell_inherited("its address is down under another name, or was when it left");
        let addresses = self.names.addresses(name).to_vec();
        let name = name.to_owned();
        self.say(move || match change {
            Change::Addresses(left_out) => {
                tracing::info!(name, ?addresses, "addresses changed");
                if left_out > 0 {
                    let used = addresses.len();
                    tracing::warn!(name, used, left_out, "more addresses than are used");
                }
            }
            _ => tracing::warn!(name, "cannot be resolved: {error}"),
        });
        true
    }

    /// Gives the groups of `name` the addresses that it has now.
    fn apply(&mut self, name: &str, now: Instant) {
        let mut changes = Vec::new();
        for (group, spec) in self.checked.get(name).into_iter().flatten() {
            changes.push((*group, self.addresses_of(spec)));
        }
        if let Some(group) = self.unchecked.get(name)
            && !self.names.addresses(name).is_empty()
        {
            changes.push((*group, self.addresses_of(&unprobed(name))));
        }
        let new = self.monitor.regroup(changes, now);
        if !self.names.is_unanswered(name) {
            self.unanswered.remove(name);
        }
        self.restore_late(&new, now);
        self.changed();
    }
}

/// What stands for a name at which nothing is probed.
fn unprobed(name: &str) -> Arc<ProbeSpec> {
    Arc::new(ProbeSpec {
        kind: ProbeKind::Tcp,
        host: name.to_owned(),
        port: 0,
        hostname: String::new(),
    })
}

/// A member that is at a name: finds the addresses of the moment.
#[derive(Debug)]
pub struct Named {
    group: TargetId,
    turns: AtomicUsize,
}

impl Named {
    /// The member whose addresses are those of `group`. `start` is chance, for the first turn.
    pub fn new(group: TargetId, start: usize) -> Self {
        Self {
            group,
            turns: AtomicUsize::new(start),
        }
    }

    /// The addresses that an attempt may dial by these verdicts, in the order in which to try them: each
    /// attempt begins with another one. Empty before the first answer: then the name is resolved on the
    /// way.
    fn addresses(&self, availability: &Availability) -> Vec<IpAddr> {
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        availability.dialable(self.group, turn).collect()
    }
}

/// Where the member just picked may be reached, by the verdicts that it was picked by.
#[derive(Default)]
pub struct Located {
    /// In the order in which to try them; empty if it is at an address of its own, or its name has had no
    /// answer.
    pub addresses: Vec<IpAddr>,
    /// The group that they belong to.
    pub group: Option<TargetId>,
}

impl Located {
    /// Of a member that is at `named`, or at an address of its own.
    pub fn of(named: Option<&Named>, availability: &Availability) -> Self {
        named.map_or_else(Self::default, |named| Self {
            addresses: named.addresses(availability),
            group: Some(named.group),
        })
    }
}

/// Whether `host` is a name, and no address.
pub fn is_name(host: &str) -> bool {
    host.parse::<IpAddr>().is_err()
}

/// Look-ups at the same time.
const LOOKUPS_MAX: usize = 64;
/// Addresses of one name that are used: the first in ascending order.
const ADDRESSES_MAX: usize = 64;
/// No name is looked up more often, whatever its records say.
const TTL_MIN: Duration = Duration::from_secs(1);
/// No answer counts longer.
const TTL_MAX: Duration = Duration::from_secs(3600);
/// From a failed look-up to the next; doubles with each further one.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// At most.
const RETRY_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
#[path = "resolve/tests.rs"]
mod tests;
