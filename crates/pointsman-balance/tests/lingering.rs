//! What only the configuration before wants, while the next one is compiled and not yet in force.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use pointsman_balance::{
    Monitor, Policy, ProbeOutcome, TargetId, Wanted, WantedAddress, WantedGroup,
};
use support::start;

/// Name, and what is asked there.
type Spec = (String, u8);

fn wanted(name: &str, asked: u8) -> Wanted<Spec> {
    Wanted {
        probe: (name.to_owned(), asked),
        policy: Policy {
            successes: 1,
            tcp_failures: 1,
            concurrency: u32::MAX,
            ..Policy::default()
        },
        lineage: name.to_owned(),
        checker: name.to_owned(),
    }
}

fn group(name: &str, lasts: &[u8]) -> WantedGroup<Spec> {
    let address = |&last: &u8| WantedAddress {
        ip: Some(IpAddr::from([10, 0, 0, last])),
        probe: (name.to_owned(), last),
        place: Some((String::new(), last)),
    };
    WantedGroup {
        whole: wanted(name, 0),
        addresses: lasts.iter().map(address).collect(),
    }
}

/// Answers every probe that is due: whoever is among `down` fails. Returns who was asked.
fn probe(monitor: &mut Monitor<Spec>, down: &[(&str, u8)], now: Instant) -> Vec<Spec> {
    let mut asked = Vec::new();
    while let Some(probe) = monitor.poll_probe(now) {
        let is_down = |&(name, at): &(&str, u8)| probe.probe == (name.to_owned(), at);
        let outcome = if down.iter().any(is_down) {
            ProbeOutcome::TcpFailure
        } else {
            ProbeOutcome::TcpOk
        };
        asked.push(probe.probe.clone());
        monitor.on_probe(probe.ticket, outcome, now);
    }
    asked.sort();
    asked
}

fn named(name: &str, asked: u8) -> Spec {
    (name.to_owned(), asked)
}

fn step(now: &mut Instant) -> Instant {
    *now += Duration::from_secs(5);
    *now
}

/// Requests go by the configuration before until the next is in force: whoever they are sent to is judged
/// until then, and who is new is not probed before.
#[test]
fn what_is_in_force_is_judged_until_the_next_configuration_is() {
    let mut monitor = Monitor::new();
    let mut now = start();
    let old = monitor.reconcile(vec![wanted("a", 0), wanted("b", 0)], now);
    assert_eq!(probe(&mut monitor, &[], now).len(), 2);
    let prepared = |monitor: &mut Monitor<Spec>, now| {
        monitor.prepare_with(vec![wanted("b", 0), wanted("c", 0)], Vec::new(), now)
    };
    // Twice, as when an item turned out not to be built.
    let (first, _) = prepared(&mut monitor, now);
    let (ids, _) = prepared(&mut monitor, now);
    assert_eq!((ids[0], &first), (old[1], &ids));
    let asked = probe(&mut monitor, &[("a", 0)], step(&mut now));
    assert_eq!(asked, [named("a", 0), named("b", 0)]);
    assert!(!monitor.availability().usable(old[0]), "it has fallen");
    monitor.release(now);
    assert!(monitor.report(old[0]).is_none());
    assert!(!monitor.availability().usable(old[0]), "it did not rise");
    let asked = probe(&mut monitor, &[], now);
    assert_eq!(asked, [named("c", 0)], "new ones are due at once");
    let asked = probe(&mut monitor, &[], step(&mut now));
    assert_eq!(asked, [named("b", 0), named("c", 0)]);
}

/// The same of the addresses of a name: they are judged, and so is the name.
#[test]
fn names_are_judged_until_the_next_configuration_is_in_force() {
    let mut monitor = Monitor::new();
    let mut now = start();
    let (_, groups) = monitor.reconcile_with(Vec::new(), vec![group("a", &[1, 2])], now);
    probe(&mut monitor, &[], now);
    let a = groups[0];
    let (_, next) = monitor.prepare_with(Vec::new(), vec![group("b", &[3])], now);
    let dialable =
        |monitor: &Monitor<Spec>, id: TargetId| monitor.availability().dialable(id, 0).count();
    assert_eq!((dialable(&monitor, a), dialable(&monitor, next[0])), (2, 1));
    probe(&mut monitor, &[("a", 1)], step(&mut now));
    assert_eq!(dialable(&monitor, a), 1);
    probe(&mut monitor, &[("a", 1), ("a", 2)], step(&mut now));
    assert!(!monitor.availability().usable(a), "all of it has fallen");
    assert!(monitor.has_group(a));
    monitor.release(now);
    assert!(!monitor.has_group(a) && monitor.has_group(next[0]));
    assert!(!monitor.availability().usable(a));
    assert_eq!(monitor.availability().addresses(a).len(), 2);
    assert_eq!(probe(&mut monitor, &[], now), [named("b", 3)]);
}

/// A definition that takes the place of another one has its id at once: requests of both see one verdict.
#[test]
fn a_new_definition_takes_over_at_once() {
    let mut monitor = Monitor::new();
    let mut now = start();
    let old = monitor.reconcile(vec![wanted("a", 0)], now);
    probe(&mut monitor, &[("a", 0)], now);
    let (ids, _) = monitor.prepare_with(vec![wanted("a", 0), wanted("b", 0)], Vec::new(), now);
    assert_eq!(ids[0], old[0]);
    let mut changed = wanted("a", 7);
    changed.policy.successes = 2;
    let (ids, _) = monitor.prepare_with(vec![changed], Vec::new(), now);
    assert_eq!(ids, old);
    assert!(!monitor.availability().usable(ids[0]), "the verdict stays");
    monitor.release(now);
    assert_eq!(probe(&mut monitor, &[], step(&mut now)), [named("a", 7)]);
}

/// A configuration that checks a name whose addresses are known already: what is down there under another
/// name begins down, and is told.
#[test]
fn a_name_that_was_known_begins_with_what_is_known_of_its_addresses() {
    let mut monitor = Monitor::new();
    let now = start();
    let one = || group("a", &[1, 2]);
    monitor.reconcile_with(Vec::new(), vec![one()], now);
    probe(&mut monitor, &[("a", 1)], now);
    let (_, ids) = monitor.prepare_with(Vec::new(), vec![one(), group("b", &[1, 2])], now);
    assert_eq!(monitor.availability().dialable(ids[1], 0).count(), 1);
    let inherited = monitor.take_inherited();
    assert_eq!(inherited.len(), 1);
    assert_eq!(monitor.report(inherited[0]).unwrap().probe, &named("b", 1));
    monitor.release(now);
    // It has left down, and comes back under a third name.
    monitor.reconcile_with(Vec::new(), Vec::new(), now);
    let (_, ids) = monitor.prepare_with(Vec::new(), vec![group("c", &[1, 2])], now);
    assert_eq!(monitor.availability().dialable(ids[0], 0).count(), 1);
}
