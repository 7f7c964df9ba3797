//! Nodes of plain upstreams that flap, whoever picks: turns, the ring, `least_conn` and `ewma`.

use std::sync::atomic::AtomicBool;

use rand::{SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};

use super::{
    judge::{judge, known_of_all, tell_last_arrivals},
    load::{Ending, Instance, alone, flap, length, load, seed, verdicts, watch},
};
use crate::support::{Answer, Gateway, Start, wait_until};

const NAMES: [&str; 3] = ["ada", "bob", "cyd"];
const ALGORITHMS: [&str; 4] = ["roundrobin", "chash", "least_conn", "ewma"];

/// A route for each algorithm to the same nodes, which only their probes judge: what traffic meets comes
/// late, so it would say things of a node that has come back.
fn document(instances: &[Instance]) -> String {
    let nodes = (instances.iter()).map(|one| (one.upstream.address.to_string(), json!(1)));
    let nodes = Value::Object(nodes.collect());
    let checks = json!({
        "active": {
            "http_path": "/health",
            "healthy": {"interval": 1, "successes": 1},
            "unhealthy": {"interval": 1, "http_failures": 1}
        },
        "passive": {
            "healthy": {"successes": 0},
            "unhealthy": {"http_failures": 0, "tcp_failures": 0, "timeouts": 0}
        }
    });
    let route = |algorithm: &&str| {
        let upstream = json!({
            "type": algorithm, "hash_on": "header", "key": "x-id", "nodes": nodes, "checks": checks
        });
        json!({"id": algorithm, "uri": format!("/{algorithm}"), "upstream": upstream})
    };
    json!({"routes": ALGORITHMS.iter().map(route).collect::<Vec<Value>>()}).to_string()
}

/// A node that is down closes its connections in the middle of requests, so that each is tried elsewhere.
#[test]
fn moody_nodes_get_nothing_while_they_are_known_to_be_down() {
    let _alone = alone();
    let seed = seed();
    println!("POINTSMAN_CHAOS_SEED={seed}");
    let anywhere = ([127, 0, 0, 1], 0).into();
    let nodes = NAMES.map(|name| Instance::at(name, anywhere, Answer::Close));
    let gateway = Gateway::start_with(Start {
        document: &document(&nodes),
        workers: 4,
        ..Start::default()
    });
    let done = AtomicBool::new(false);
    let control = gateway.address("control");
    let (shown, sent) = std::thread::scope(|scope| {
        let watched = scope.spawn(|| watch(control, &done, |targets| verdicts(&nodes, targets)));
        let loaded = scope.spawn(|| load(gateway.proxy, &ALGORITHMS, "", &done));
        let ending = Ending(&done);
        flap(&nodes, length(4), &mut SmallRng::seed_from_u64(seed));
        // Whatever happened so far: each is known to be down for a while, and comes back.
        for (at, node) in nodes.iter().enumerate() {
            node.switch(false);
            gateway.wait_for_status(node.upstream.port(), "unhealthy");
            let other = &nodes[(at + 1) % nodes.len()].upstream;
            let before = other.hits();
            wait_until("others to serve", || {
                (other.hits() > before + 80).then_some(())
            });
            let before = node.upstream.hits();
            node.switch(true);
            wait_until("traffic to come back", || {
                (node.upstream.hits() > before + 20).then_some(())
            });
        }
        drop(ending);
        let watched = watched.join().expect("it watched");
        (watched, loaded.join().expect("there was load"))
    });
    let known = |healthy: bool| known_of_all(&nodes, &shown, healthy);
    let good = known(true);
    judge(&nodes, &known(false), &good, &sent).check(&sent);
    tell_last_arrivals(&nodes, &good);
}
