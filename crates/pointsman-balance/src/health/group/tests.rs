//! What answers cost when there are many names.

use super::*;
use crate::Policy;

const NAMES: u32 = 2_000;

fn wanted(name: u32) -> WantedGroup<(u32, u8)> {
    WantedGroup {
        whole: Wanted {
            probe: (name, 0),
            policy: Policy::default(),
            lineage: name.to_string(),
            checker: name.to_string(),
        },
        addresses: Vec::new(),
    }
}

fn addresses(name: u32, lasts: &[u8]) -> Vec<WantedAddress<(u32, u8)>> {
    let address = |&last: &u8| WantedAddress {
        ip: Some(IpAddr::from([10, 0, 0, last])),
        probe: (name, last),
        place: None,
    };
    lasts.iter().map(address).collect()
}

/// Each answer costs what it changes, and at most one page of the address book.
#[test]
fn an_answer_costs_no_more_for_all_the_other_names() {
    let mut monitor = Monitor::new();
    let now = start();
    let all = (0..NAMES).map(wanted).collect();
    let (_, ids) = monitor.reconcile_with(Vec::new(), all, now);
    for lasts in [&[1, 2][..], &[2, 3, 4], &[9]] {
        for (name, &id) in (0..NAMES).zip(&ids) {
            // Whoever reads the verdicts before keeps them: nothing may be changed in place.
            let before = monitor.availability();
            let answer = vec![(id, addresses(name, lasts))];
            let (_, effort) = effort::of(|| monitor.regroup(answer, now));
            assert!(effort <= EFFORT_MAX, "{effort} for {lasts:?} of {name}");
            let published = monitor.availability();
            assert_eq!(published.addresses(id).len(), lasts.len());
            assert_ne!(published.addresses(id), before.addresses(id));
        }
    }
}

/// So does a name that nobody checks.
#[test]
fn a_new_name_costs_no_more_for_all_the_other_names() {
    let mut monitor = Monitor::new();
    let ip = IpAddr::from([10, 0, 0, 1]);
    for name in 0..NAMES {
        let (id, effort) = effort::of(|| monitor.unchecked_group((name, 0), &[ip]));
        assert!(effort <= EFFORT_MAX, "{effort} for {name}");
        assert_eq!(monitor.availability().addresses(id).len(), 1);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "an `Instant` to count from cannot be had otherwise"
)]
fn start() -> Instant {
    Instant::now()
}

/// The entries of one page, and a few targets.
const EFFORT_MAX: usize = 64 + 8;

/// Requests that began before still find the addresses of names that a configuration has dropped, however
/// many it has dropped at once.
#[test]
fn names_that_left_are_known_to_whoever_began_before() {
    let mut monitor = Monitor::new();
    let now = start();
    let all = (0..NAMES).map(wanted).collect();
    let (_, ids) = monitor.reconcile_with(Vec::new(), all, now);
    let answers = (0..NAMES).zip(&ids);
    let answers = answers.map(|(name, &id)| (id, addresses(name, &[1])));
    monitor.regroup(answers.collect(), now);
    monitor.reconcile_with(Vec::new(), Vec::new(), now);
    let published = monitor.availability();
    assert!(ids.iter().all(|&id| published.addresses(id).len() == 1));
    // Later, when more leave, they are not.
    let late = now + RETIRED_FOR + Duration::from_secs(1);
    monitor.reconcile_with(Vec::new(), vec![wanted(NAMES)], late);
    monitor.reconcile_with(Vec::new(), Vec::new(), late);
    let published = monitor.availability();
    assert!(ids.iter().all(|&id| published.addresses(id).is_empty()));
}
