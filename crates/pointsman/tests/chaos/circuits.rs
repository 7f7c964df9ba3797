//! Circuits that open and close under load: while one is known to be open, nothing is sent there.
//!
//! A circuit is *known to be open* from the end of an answer of the Control API that shows it so, until the
//! moment at which, by that answer, its trial is allowed at the earliest.

use std::{
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use rand::{SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};

use super::{
    judge::{Span, judge},
    load::{Ending, Instance, Shown, alone, flap, length, load, seed, watch},
};
use crate::support::{CHAT, Gateway, Start, wait_until};

/// The last one never fails, so somebody is always usable.
const NAMES: [&str; 3] = ["ada", "bob", "rest"];
const ALGORITHMS: [&str; 2] = ["roundrobin", "chash"];

fn document(instances: &[Instance]) -> String {
    let instance = |one: &Instance| {
        let mut config = one.config(one.name, 1);
        config.as_object_mut().expect("a map").remove("checks");
        config
    };
    let instances: Vec<Value> = instances.iter().map(instance).collect();
    let route = |algorithm: &&str| {
        let plugin = json!({
            "instances": instances, "fallback_strategy": ["http_5xx"],
            "balancer": {"algorithm": algorithm, "hash_on": "header", "key": "x-id"},
            "circuit_breaker": {"failures": 2, "open_ms": 400, "max_open_ms": 400}
        });
        json!({"id": algorithm, "uri": format!("/{algorithm}"), "plugins": {"ai-proxy-multi": plugin}})
    };
    json!({"routes": ALGORITHMS.iter().map(route).collect::<Vec<Value>>()}).to_string()
}

/// By instance, how long it takes until its circuit may be tried, if that is open.
fn waits(targets: &[Value]) -> [Option<Duration>; NAMES.len()] {
    NAMES.map(|name| {
        let end = format!("({name})");
        let of = |guard: &&Value| {
            guard["circuit"] == "open"
                && guard["name"]
                    .as_str()
                    .is_some_and(|own| own.ends_with(&end))
        };
        let guard = targets.iter().find(of)?;
        let seconds = guard["trial_at"]["seconds"].as_f64().expect("a number");
        // It is told in whole milliseconds, which may be half of one too late.
        Some(Duration::from_secs_f64(seconds).saturating_sub(Duration::from_millis(1)))
    })
}

/// When the circuit of each was known to be open.
fn open(shown: &[Shown<[Option<Duration>; NAMES.len()]>]) -> Vec<Vec<Span>> {
    let of = |at: usize| {
        let mut spans: Vec<Span> = Vec::new();
        for one in shown {
            let Some(wait) = one.what[at] else { continue };
            let span = Span(one.answered, one.asked + wait);
            // The first answer about each time says the most.
            let is_told = spans.last().is_some_and(|last| span.0 < last.1);
            if !is_told && span.0 < span.1 {
                spans.push(span);
            }
        }
        spans
    };
    (0..NAMES.len()).map(of).collect()
}

/// Instances fail, and come back when they like: their circuits open and close.
#[test]
fn open_circuits_get_nothing() {
    let _alone = alone();
    let seed = seed();
    println!("POINTSMAN_CHAOS_SEED={seed}");
    let instances = NAMES.map(Instance::new);
    let (moody, rest) = instances.split_at(2);
    let gateway = Gateway::start_with(Start {
        document: &document(&instances),
        workers: 4,
        ..Start::default()
    });
    let done = AtomicBool::new(false);
    let control = gateway.address("control");
    let began = Instant::now();
    let (shown, sent) = std::thread::scope(|scope| {
        let watched = scope.spawn(|| watch(control, &done, waits));
        let loaded = scope.spawn(|| load(gateway.proxy, &ALGORITHMS, CHAT, &done));
        let ending = Ending(&done);
        flap(moody, length(4), &mut SmallRng::seed_from_u64(seed));
        // Whatever happened so far: each circuit opens some times in a row, and closes.
        for instance in moody {
            // It may have been left open, and would then not open once more.
            instance.switch(true);
            let before = instance.upstream.hits();
            wait_until("traffic to come", || {
                (instance.upstream.hits() > before + 20).then_some(())
            });
            instance.switch(false);
            let end = format!("the circuit of /routes/{}", ALGORITHMS[0]);
            let opened = || gateway.stderr().matches("too many failures").count();
            let (before, passed) = (opened(), rest[0].upstream.hits());
            wait_until(&format!("{end} to open"), || {
                (opened() > before && rest[0].upstream.hits() > passed + 200).then_some(())
            });
            let before = instance.upstream.hits();
            instance.switch(true);
            wait_until("traffic to come back", || {
                (instance.upstream.hits() > before + 20).then_some(())
            });
        }
        drop(ending);
        let watched = watched.join().expect("it watched");
        (watched, loaded.join().expect("there was load"))
    });
    let bad = open(&shown);
    assert!(bad[..2].iter().all(|spans| !spans.is_empty()), "{bad:?}");
    assert_eq!(bad[2].len(), 0, "the last one never fails");
    let good = vec![Vec::new(), Vec::new(), vec![Span(began, Instant::now())]];
    judge(&instances, &bad, &good, &sent).check(&sent);
}
