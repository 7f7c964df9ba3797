//! Instances that flap, and configuration that is replaced all the time, under load: the stand-ins'
//! own logs say whether a request ever reached one that was known to be unhealthy.
//!
//! The judge uses no tolerance. An instance is *known unhealthy* from the end of an answer of the
//! Control API that shows it so, if the question was asked after a probe had arrived behind the switch
//! to unhealthy (all earlier answers of that instance are then taken in, and only failures follow), and
//! until the moment before the switch back. A request whose *cause* falls into that time must not arrive
//! there within it: its cause is the moment before the client sent it, or for a retry the moment when
//! the attempt before arrived somewhere. How long the gateway or this process were kept waiting in
//! between does not matter.

#![allow(
    clippy::disallowed_methods,
    reason = "tests measure and wait in real time"
)]

mod support;
mod chaos {
    mod circuits;
    pub(crate) mod judge;
    pub(crate) mod load;
    mod names;
    mod nodes;
}

use std::{collections::BTreeMap, sync::atomic::AtomicBool};

use chaos::{
    judge::{judge, known_of_all, tell_last_arrivals},
    load::{Ending, Instance, Shown, Verdicts, alone, flap, length, load, seed, verdicts, watch},
};
use rand::{SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};
use support::{CHAT, Gateway, Start, run, wait_until};

const NAMES: [&str; 3] = ["ada", "bob", "cyd"];
/// The routes of `document`.
const ROUTES: [&str; 2] = ["turns", "ring"];

/// Routes to the same instances, of which each request takes one.
fn document(instances: &[Value]) -> String {
    let plugin = |algorithm: &str| {
        json!({"ai-proxy-multi": {
            "instances": instances, "fallback_strategy": ["http_5xx"],
            "balancer": {"algorithm": algorithm, "hash_on": "header", "key": "x-id"}
        }})
    };
    let turns = json!({"id": "turns", "uri": "/turns", "plugins": plugin("roundrobin")});
    let ring = json!({"id": "ring", "uri": "/ring", "plugins": plugin("chash")});
    json!({"routes": [turns, ring]}).to_string()
}

/// What the access log tells of picks agrees with itself, with the Control API and with what was
/// received: by one epoch, all workers leave out the same instances.
fn check_told(gateway: &Gateway, shown: &[Shown<Verdicts>], sent: usize) {
    let mut left_out: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for Shown { what: shown, .. } in shown {
        let names = NAMES.iter().zip(&shown.usable);
        let out = names.filter(|(_, usable)| **usable == Some(false));
        let out: Vec<String> = out.map(|(name, _)| (*name).to_owned()).collect();
        let known = left_out.entry(shown.epoch).or_insert_with(|| out.clone());
        assert_eq!(*known, out, "epoch {} has two meanings", shown.epoch);
    }
    let mut compared = 0;
    for line in gateway.access_log(sent) {
        for pick in line["picks"].as_array().into_iter().flatten() {
            let names = pick["excluded"].as_array().expect("a list").iter();
            let mut names: Vec<String> =
                (names.filter_map(Value::as_str).map(str::to_owned)).collect();
            names.sort_unstable();
            let member = pick["member"].as_str().expect("a name");
            let is_out = names.iter().any(|name| name == member);
            assert_eq!(pick["failed_open"] == true, is_out, "{line}");
            assert_eq!(names.len() == NAMES.len(), is_out, "{line}");
            if let Some(known) = left_out.get(&pick["epoch"].as_u64().expect("a number")) {
                assert_eq!(*known, names, "{line}");
                compared += 1;
            }
        }
    }
    assert!(compared > 0, "no pick was told of");
    check_explained(gateway);
}

/// Each pick that was told of is made again from its line, with the same answer.
fn check_explained(gateway: &Gateway) {
    let config = gateway.folder().join("config.yaml").display().to_string();
    let (code, text, errors) = run(&["explain", "--config", &config]);
    let other: Vec<&str> = (text.lines())
        .filter(|line| line.contains("same answer: no") || line.contains("not replayable:"))
        .collect();
    assert_eq!((code, other), (Some(0), vec![]), "{errors}");
    let same = text.matches("same answer: yes").count();
    assert!(same > 0, "{text}");
}

/// Instances go down and come back at random, together or not, sometimes before anybody noticed.
#[test]
fn flapping_instances_get_nothing_while_they_are_known_to_be_unhealthy() {
    let _alone = alone();
    let seed = seed();
    println!("POINTSMAN_CHAOS_SEED={seed}");
    let instances = NAMES.map(Instance::new);
    let configs: Vec<Value> = (instances.iter().map(|one| one.config(one.name, 1))).collect();
    let gateway = Gateway::start_with(Start {
        document: &document(&configs),
        workers: 4,
        ..Start::default()
    });
    let done = AtomicBool::new(false);
    let control = gateway.address("control");
    let (shown, sent) = std::thread::scope(|scope| {
        let watched =
            scope.spawn(|| watch(control, &done, |targets| verdicts(&instances, targets)));
        let loaded = scope.spawn(|| load(gateway.proxy, &ROUTES, CHAT, &done));
        let ending = Ending(&done);
        flap(&instances, length(8), &mut SmallRng::seed_from_u64(seed));
        for instance in &instances {
            // All come back in the end, and are used again.
            let before = instance.upstream.hits();
            wait_until("traffic to come back", || {
                (instance.upstream.hits() > before + 20).then_some(())
            });
        }
        drop(ending);
        let watched = watched.join().expect("it watched");
        (watched, loaded.join().expect("there was load"))
    });
    let known = |healthy: bool| known_of_all(&instances, &shown, healthy);
    let good = known(true);
    judge(&instances, &known(false), &good, &sent).check(&sent);
    tell_last_arrivals(&instances, &good);
    check_told(&gateway, &shown, sent.len());
}

/// Instances change names, places and weights a thousand times while one is dead: the dead one stays
/// out (I-10, I-11), and no request fails of it.
#[test]
fn a_thousand_reloads_in_an_outage_send_nothing_to_the_dead() {
    let instances = NAMES.map(Instance::new);
    let dead = &instances[1];
    let variant = |turn: usize| {
        let config = |(at, instance): (usize, &Instance)| {
            // One in three changes its name, and so takes another's place on the ring.
            let name = format!(
                "{}{}",
                instance.name,
                if at == turn % 3 { "-2" } else { "" }
            );
            instance.config(&name, [1, 7, 3][(turn + at) % 3])
        };
        let mut configs: Vec<Value> = instances.iter().enumerate().map(config).collect();
        configs.rotate_left(turn / 3 % 3);
        document(&configs)
    };
    let gateway = Gateway::start_with(Start {
        document: &variant(0),
        workers: 4,
        ..Start::default()
    });
    dead.switch(false);
    gateway.wait_for_status(dead.upstream.port(), "unhealthy");
    let before = dead.upstream.hits();
    let done = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let loaded = scope.spawn(|| load(gateway.proxy, &ROUTES, CHAT, &done));
        let ending = Ending(&done);
        for turn in 1..=RELOADS {
            gateway.reload(&variant(turn));
        }
        drop(ending);
        loaded.join().expect("there was load")
    });
    assert_eq!(dead.upstream.hits(), before, "of {} requests", sent.len());
    let failed = sent.values().filter(|sent| sent.status != 200).count();
    assert_eq!(failed, 0, "of {}", sent.len());
    assert!(sent.len() > 100, "{} requests are no load", sent.len());
    // It was probed all the while, and comes back.
    dead.switch(true);
    gateway.wait_for_status(dead.upstream.port(), "healthy");
    let answered = || support::post_json(gateway.proxy, "/turns", CHAT).status == 200;
    wait_until("traffic to come back", || {
        (answered() && dead.upstream.hits() > before).then_some(())
    });
}

const RELOADS: usize = 1_000;
