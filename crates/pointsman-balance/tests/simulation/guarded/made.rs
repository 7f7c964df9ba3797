//! What the lives are made of.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use pointsman_balance::{
    Algorithm, Breaker, Limits, MemberSpec, Passive, Policy, Wanted, WantedAddress,
};

use super::Probed;
use crate::model::{OPEN, Place, TRIALS};

pub(super) const ALGORITHMS: [Algorithm; 4] = [
    Algorithm::LeastConn,
    Algorithm::Ewma,
    Algorithm::RoundRobin,
    Algorithm::Chash,
];

pub(super) const BREAKER: Breaker = Breaker {
    failures: 1,
    error_percent: 0,
    min_attempts: 1,
    window: Duration::from_millis(OPEN.0),
    open: Duration::from_millis(OPEN.0),
    open_max: Duration::from_millis(OPEN.1),
    trials: TRIALS,
};

pub(super) fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

pub(super) fn spec(name: u32) -> MemberSpec {
    MemberSpec {
        name: format!("m{name:03}"),
        weight: 1,
        priority: 0,
        targets: vec![],
        gate: None,
    }
}

/// One outcome decides.
pub(super) fn at_once() -> Arc<Passive> {
    Arc::new(Passive {
        limits: Limits {
            successes: 1,
            http_failures: 1,
            tcp_failures: 1,
            timeouts: 1,
        },
        ..Passive::default()
    })
}

pub(super) fn wanted(probe: Probed) -> Wanted<Probed> {
    Wanted {
        probe,
        policy: Policy::default(),
        lineage: format!("{probe:?}"),
        checker: String::new(),
    }
}

pub(super) fn wanted_addresses(name: usize, set: &BTreeSet<u8>) -> Vec<WantedAddress<Probed>> {
    let address = |&last: &u8| WantedAddress {
        ip: Some(ip(last)),
        probe: (Place::Name(name), 1 + last),
        place: None,
    };
    set.iter().map(address).collect()
}
