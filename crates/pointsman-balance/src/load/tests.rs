//! The numbers of load by themselves. Not a part of `load`, which is also compiled against loom.

use std::sync::Arc;
use std::time::Duration;

use crate::load::{Gauge, Loads};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[track_caller]
fn check(gauge: &Gauge, now: u64, expected: f32) {
    let found = gauge.latency(ms(now));
    let error = (found - expected).abs();
    assert!(error <= expected * 1e-4, "{found} instead of {expected}");
}

/// The formula of the specification, §3.7.
#[test]
fn an_average_takes_the_first_as_it_is_and_fades_by_e_in_ten_seconds() {
    let gauge = Gauge::default();
    check(&gauge, 0, 0.0);
    gauge.observe(ms(200), ms(5_000));
    check(&gauge, 5_000, 0.2);
    check(&gauge, 15_000, 0.2 * (-1.0_f32).exp());
    gauge.observe(ms(1_000), ms(10_000));
    let old = (-0.5_f32).exp();
    check(&gauge, 10_000, 0.2 * old + (1.0 - old));
    check(&gauge, 1_000_000_000, 0.0);
}

#[test]
fn small_steps_add_up() {
    let gauge = Gauge::default();
    gauge.observe(ms(1_000), ms(0));
    for now in 1..=100_000 {
        gauge.observe(ms(10), ms(now));
    }
    check(&gauge, 100_000, 0.01 + 0.99 * (-10.0_f32).exp());
}

#[test]
fn a_clock_that_was_read_earlier_changes_nothing() {
    let gauge = Gauge::default();
    gauge.observe(ms(100), ms(9_000));
    gauge.observe(ms(900), ms(8_000));
    check(&gauge, 9_000, 0.1);
    check(&gauge, 8_000, 0.1);
    check(&gauge, 19_000, 0.1 * (-1.0_f32).exp());
}

#[test]
fn time_may_come_round() {
    let (gauge, round) = (Gauge::default(), 1 << 32);
    gauge.observe(ms(100), ms(round - 5_000));
    check(&gauge, round + 5_000, 0.1 * (-1.0_f32).exp());
    check(&gauge, round - 5_000 + round / 2, 0.0);
}

#[test]
fn a_response_in_no_time_is_still_one() {
    let gauge = Gauge::default();
    gauge.observe(Duration::ZERO, ms(0));
    assert!(gauge.load(ms(0)).latency.is_some());
    gauge.observe(Duration::MAX, ms(100_000));
    assert!(gauge.load(ms(100_000)).latency > Some(Duration::from_secs(1 << 40)));
}

#[test]
fn a_hold_counts_once_and_tells_once() {
    let gauge = Arc::new(Gauge::default());
    let mut one = gauge.hold();
    let two = gauge.hold_if(1).unwrap();
    assert!(gauge.hold_if(1).is_none());
    assert_eq!(gauge.in_flight(), 2);
    one.observe(ms(100), ms(0));
    one.observe(ms(500), ms(10_000));
    check(&gauge, 0, 0.1);
    drop(one);
    drop(two);
    assert_eq!(gauge.in_flight(), 0);
}

#[test]
fn what_nobody_uses_is_forgotten() {
    let loads = Loads::new();
    let gauges = loads.gauges("pool", ["a", "b"].into_iter());
    let hold = gauges[0].hold();
    drop(gauges);
    loads.tidy();
    let again = loads.gauges("pool", ["b", "a"].into_iter());
    assert_eq!([again[0].in_flight(), again[1].in_flight()], [0, 1]);
    assert_eq!(loads.gauges("other", ["a"].into_iter())[0].in_flight(), 0);
    drop((again, hold));
    loads.tidy();
    assert!(loads.pools().is_empty());
}
