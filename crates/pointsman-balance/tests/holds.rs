//! What a pick counts, while its attempt is over and its answer still kept.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::time::Duration;

use pointsman_balance::{Algorithm, Ask, Availability, Hold, Pool, Tried};
use support::{pool, unchecked};

fn pick(pool: &Pool) -> (usize, Hold) {
    let ask = Ask {
        key: None,
        now: Duration::ZERO,
        tried: &Tried::new(),
    };
    let mut picked = pool.pick(&ask, &Availability::empty()).unwrap();
    (picked.member(), picked.take_hold().unwrap())
}

/// What was kept is counted again when it is passed on, once; how long it took by then says nothing.
#[test]
fn a_suspended_hold_may_be_resumed() {
    let pool = pool(unchecked(&[("a", 1)]), Algorithm::LeastConn);
    let in_flight = |pool: &Pool| pool.load(0, Duration::ZERO).unwrap().in_flight;
    let (member, mut hold) = pick(&pool);
    for _ in 0..2 {
        hold.suspend();
        hold.suspend();
        assert_eq!(in_flight(&pool), 0);
        hold.resume();
        hold.resume();
        assert_eq!(in_flight(&pool), 1);
    }
    hold.observe(Duration::from_millis(1), Duration::ZERO);
    assert_eq!(pool.load(member, Duration::ZERO).unwrap().latency, None);
    drop(hold);
    assert_eq!(in_flight(&pool), 0);
    let (_, mut hold) = pick(&pool);
    hold.suspend();
    drop(hold);
    assert_eq!(in_flight(&pool), 0);
}
