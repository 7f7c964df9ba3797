//! Plain upstreams whose nodes, addresses and checks change: what stays keeps what is known of it, what
//! leaves leaves nothing behind, and the report lists what the configuration in force says.

#![allow(
    clippy::disallowed_methods,
    reason = "tests measure and wait in real time"
)]

mod support;

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
};

use serde_json::{Value, json};
use support::{Answer, Gateway, NameServer, Start, Upstream, client::Connection, get, wait_until};

/// Checks that decide by one failure. What is known to be dead is not asked again while a test lasts:
/// what is known of it later was carried over.
fn checks() -> Value {
    json!({"active": {
        "http_path": "/health",
        "healthy": {"interval": 1, "successes": 1},
        "unhealthy": {"interval": 3600, "http_failures": 1, "tcp_failures": 1}
    }})
}

/// A route to nodes of equal weight (`host:port`), in that order.
fn route(nodes: &[String], checks: &Value) -> Value {
    let node = |name: &String| {
        let (host, port) = name.rsplit_once(':').expect("host:port");
        let port: u16 = port.parse().expect("a port");
        json!({"host": host, "port": port, "weight": 1})
    };
    let nodes: Vec<Value> = nodes.iter().map(node).collect();
    json!({"id": 1, "uri": "/*", "upstream": {"nodes": nodes, "retries": 0, "checks": checks}})
}

fn document(routes: &[Value]) -> String {
    json!({"routes": routes}).to_string()
}

fn to(nodes: &[&Upstream]) -> String {
    document(&[route(&names(nodes), &checks())])
}

fn names(nodes: &[&Upstream]) -> Vec<String> {
    nodes.iter().map(|node| node.address.to_string()).collect()
}

fn hits<const N: usize>(nodes: [&Upstream; N]) -> [usize; N] {
    nodes.map(Upstream::hits)
}

fn send(gateway: &Gateway, count: usize) {
    for _ in 0..count {
        assert_eq!(get(gateway.proxy, "/x", &[]).status, 200);
    }
}

/// What `GET /v1/targets` shows of one target.
#[derive(Clone, Debug, PartialEq)]
struct Shown {
    at: String,
    id: u64,
    epoch: u64,
    usable: bool,
}

fn targets(gateway: &Gateway) -> Vec<Shown> {
    let shown = gateway.control("/v1/targets").json();
    let shown = shown.as_array().expect("a list").iter();
    let shown = shown.map(|target| Shown {
        at: place(&target["host"], &target["port"]),
        id: target["id"].as_u64().expect("a number"),
        epoch: target["epoch"].as_u64().expect("a number"),
        usable: target["usable"].as_bool().expect("known"),
    });
    let mut shown: Vec<Shown> = shown.collect();
    shown.sort_by(|one, other| one.at.cmp(&other.at));
    shown
}

fn place(host: &Value, port: &Value) -> String {
    format!("{}:{port}", host.as_str().expect("a host"))
}

/// Where the targets are, in order.
fn places(shown: &[Shown]) -> Vec<String> {
    shown.iter().map(|target| target.at.clone()).collect()
}

/// The same of addresses.
fn sorted(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<String> {
    let mut all: Vec<String> = addresses.into_iter().map(|at| at.to_string()).collect();
    all.sort_unstable();
    all
}

fn wait_for(gateway: &Gateway, at: SocketAddr, usable: bool) {
    wait_until(&format!("{at} to be usable: {usable}"), || {
        let all = targets(gateway);
        all.into_iter()
            .find(|one| one.at == at.to_string() && one.usable == usable)
    });
}

/// Where the nodes of the health report are, which has one checker.
fn reported(gateway: &Gateway) -> Vec<String> {
    let checkers = gateway.checkers();
    assert_eq!(
        checkers.len(),
        1,
        "one checker, whatever changed: {checkers:?}"
    );
    let nodes = checkers[0]["nodes"].as_array();
    let nodes = nodes.into_iter().flatten();
    let mut all: Vec<String> = nodes
        .map(|node| place(&node["ip"], &node["port"]))
        .collect();
    all.sort_unstable();
    all
}

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, last)
}

/// Upstreams at one port of several addresses.
fn at_one_port<const N: usize>(lasts: [u8; N]) -> [Upstream; N] {
    let mut port = 0;
    lasts.map(|last| {
        let at = SocketAddr::from((ip(last), port));
        let upstream = Upstream::start_at(at, |_| Answer::text(200, "fine"));
        port = upstream.port();
        upstream
    })
}

/// B-156: other nodes make no other checker: who stays keeps its target and verdict, who comes is new, who
/// leaves is gone. Another order changes nothing at all.
#[test]
fn b_156_other_nodes_keep_the_targets_of_those_who_stay() {
    let [a, dead, m] = ["a", "dead", "m"].map(Upstream::named);
    dead.set_healthy(false);
    let gateway = Gateway::start(&to(&[&a, &dead]));
    wait_for(&gateway, dead.address, false);
    let known = targets(&gateway);
    let probes = dead.probes().len();
    for _ in 0..3 {
        for order in [[&dead, &a], [&a, &dead]] {
            gateway.reload(&to(&order));
            assert_eq!(targets(&gateway), known, "nothing has happened");
        }
    }
    let sets: [&[&Upstream]; 3] = [&[&m, &dead, &a], &[&dead, &m], &[&a, &m, &dead]];
    for nodes in sets {
        gateway.reload(&to(nodes));
        let expected = sorted(nodes.iter().map(|node| node.address));
        let now = targets(&gateway);
        assert_eq!(places(&now), expected);
        assert_eq!(reported(&gateway), expected);
        let of_dead = |shown: &[Shown]| {
            let found = shown.iter().find(|one| one.at == dead.address.to_string());
            found.map(|one| (one.id, one.usable))
        };
        assert_eq!(of_dead(&now), of_dead(&known));
        let before = dead.hits();
        send(&gateway, 12);
        assert_eq!(dead.hits(), before);
    }
    assert_eq!(dead.probes().len(), probes, "no reason to ask it again");
}

/// B-150, B-157: addresses of nodes that change with every request. All requests are served, by an address
/// that is listed; there is one checker, and whoever stays listed keeps its target.
#[test]
fn b_150_b_157_addresses_that_change_with_every_request() {
    let servers = NameServer::start();
    let [a, b, c, d] = at_one_port([2, 3, 4, 5]);
    let port = a.port();
    let all = [&a, &b, &c, &d];
    servers.point("one.test", &[ip(2), ip(3)]);
    servers.point("two.test", &[ip(4)]);
    let nodes = [format!("one.test:{port}"), format!("two.test:{port}")];
    let gateway = Gateway::start_with(Start {
        document: &document(&[route(&nodes, &checks())]),
        apisix: &servers.settings(),
        ..Start::default()
    });
    let listed = |lasts: &[u8]| {
        let expected = sorted(lasts.iter().map(|last| (ip(*last), port).into()));
        wait_until(&format!("{expected:?} to be listed"), || {
            (places(&targets(&gateway)) == expected).then_some(())
        });
        assert_eq!(reported(&gateway), expected);
    };
    listed(&[2, 3, 4]);
    let id_of = |last: u8| {
        let all = targets(&gateway);
        let found = all
            .into_iter()
            .find(|one| one.at == format!("{}:{port}", ip(last)));
        found.map(|one| one.id)
    };
    // The one that stays while the others change.
    let stays = id_of(3);
    for turn in 0..5 {
        let (other, lone) = [(5, 4), (2, 4), (2, 5), (4, 5), (4, 2)][turn];
        servers.point("one.test", &[ip(3), ip(other)]);
        servers.point("two.test", &[ip(lone)]);
        listed(&[3, other, lone]);
        let before = hits(all);
        send(&gateway, 4);
        let after = hits(all);
        for (last, (before, after)) in (2..).zip(before.iter().zip(after)) {
            let is_listed = [3, other, lone].contains(&last);
            assert!(is_listed || after == *before, "{} is not listed", ip(last));
        }
        assert_eq!(id_of(3), stays, "whoever stays keeps its target");
    }
    // What is known of it stays, too, and the order of an answer is nothing.
    b.set_healthy(false);
    wait_for(&gateway, b.address, false);
    servers.point("one.test", &[ip(5), ip(3)]);
    servers.point("two.test", &[ip(4)]);
    listed(&[3, 4, 5]);
    let (known, asked) = (targets(&gateway), servers.asked("one.test").len());
    servers.point("one.test", &[ip(3), ip(5)]);
    wait_until("three look-ups", || {
        (servers.asked("one.test").len() >= asked + 6).then_some(())
    });
    assert_eq!(targets(&gateway), known);
    let before = hits(all);
    send(&gateway, 12);
    let after = hits(all);
    let got = [0, 1, 2, 3].map(|at| after[at] - before[at]);
    assert_eq!(got, [0, 0, 6, 6], "b is known to be down");
}

/// B-161: a target that an earlier process knew, and that the configuration names no more, is nowhere: not
/// in the report, and nobody probes it.
#[test]
fn b_161_a_target_of_an_earlier_configuration_is_nowhere() {
    let [a, stale, m] = ["a", "stale", "m"].map(Upstream::named);
    stale.set_healthy(false);
    let mut gateway = Gateway::start(&to(&[&a, &stale]));
    wait_for(&gateway, stale.address, false);
    let file = gateway.folder().join("logs/health.state");
    wait_until("the verdict to be written down", || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        text.contains(" unhealthy ").then_some(())
    });
    gateway.signal("KILL");
    gateway.wait_for_exit();
    support::write_document(gateway.folder(), &to(&[&a, &m]));
    let before = (stale.hits(), stale.probes().len());
    gateway.start_again(2);
    let expected = sorted([a.address, m.address]);
    send(&gateway, 1);
    assert_eq!(reported(&gateway), expected);
    assert_eq!(places(&targets(&gateway)), expected);
    send(&gateway, 11);
    // A probe of it would have come at once.
    let more = a.probes().len() + 2;
    a.wait_for_probes(more);
    assert_eq!((stale.hits(), stale.probes().len()), before);
}

/// B-165: four workers under load, and nodes that come and go. In every phase targets and report are those
/// of the last configuration, and no request that begins later goes to anybody else.
#[test]
fn b_165_in_every_phase_the_targets_are_the_configurations() {
    let all = ["a", "b", "c", "d"].map(Upstream::named);
    let of = |mask: usize| -> Vec<&Upstream> {
        let each = all.iter().enumerate();
        each.filter(|(at, _)| mask >> at & 1 == 1)
            .map(|(_, one)| one)
            .collect()
    };
    let gateway = Gateway::start_with(Start {
        document: &to(&of(15)),
        workers: 4,
        ..Start::default()
    });
    let done = AtomicBool::new(false);
    let load = || {
        while !done.load(Ordering::SeqCst) {
            send(&gateway, 1);
        }
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..2).map(|_| scope.spawn(load)).collect();
        let ending = Ending(&done);
        for phase in 0..24 {
            let nodes = of(1 + phase * 7 % 15);
            gateway.reload(&to(&nodes));
            let expected = sorted(nodes.iter().map(|node| node.address));
            assert_eq!(places(&targets(&gateway)), expected, "phase {phase}");
            assert_eq!(reported(&gateway), expected, "phase {phase}");
            check_who_serves(&gateway, &all, &expected, phase);
        }
        drop(ending);
        for client in clients {
            client.join().expect("every request was served");
        }
    });
}

/// Requests that begin now, and can be told from those that began before, go to listed nodes only.
fn check_who_serves(gateway: &Gateway, all: &[Upstream], listed: &[String], phase: usize) {
    let target = format!("/phase{phase}");
    // A connection of its own each, so that every worker has its turn.
    for _ in 0..16 {
        assert_eq!(get(gateway.proxy, &target, &[]).status, 200);
    }
    for upstream in all {
        let requests = upstream.requests();
        let got = requests.iter().filter(|one| one.target == target).count();
        let is_listed = listed.contains(&upstream.address.to_string());
        assert!(
            is_listed || got == 0,
            "phase {phase}: {got} to {}",
            upstream.address
        );
    }
}

/// Ends the load, also when the part of the test that it goes with fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// B-167: while checks change, each answer of the Control API shows the target once and as dead as it is,
/// never a moment without it, never two of it; updated and then deleted, it is gone once and for all.
#[test]
fn b_167_updated_checks_take_over_without_a_gap_and_are_deleted_once() {
    let [a, dead] = ["a", "dead"].map(Upstream::named);
    dead.set_healthy(false);
    let with = |turn: u32| {
        let mut checks = checks();
        // Another probe, other thresholds, another interval: of each there are several.
        checks["active"]["http_req_body"] = json!("x".repeat(turn as usize % 3));
        checks["active"]["unhealthy"]["http_failures"] = json!(1 + turn % 4);
        checks["active"]["concurrency"] = json!(1 + turn % 2);
        let mut lone = route(&names(&[&a]), &self::checks());
        lone["id"] = json!("lone");
        lone["uri"] = json!("/lone");
        let mut pair = route(&names(&[&a, &dead]), &checks);
        pair["id"] = json!("pair");
        [lone, pair]
    };
    let gateway = Gateway::start(&document(&with(0)));
    wait_for(&gateway, dead.address, false);
    let first = dead.hits();
    let done = AtomicBool::new(false);
    let control = gateway.address("control");
    let watch = || {
        let mut connection = Connection::open(control);
        let mut answers = 0;
        while !done.load(Ordering::SeqCst) {
            connection.send(b"GET /v1/targets HTTP/1.1\r\nHost: control\r\n\r\n");
            let shown = connection.response(false).json();
            let shown = shown.as_array().expect("a list").iter();
            let of_dead = shown.filter(|one| one["port"] == dead.port());
            let usable: Vec<&Value> = of_dead.map(|one| &one["usable"]).collect();
            assert_eq!(usable, [&json!(false)]);
            answers += 1;
        }
        answers
    };
    std::thread::scope(|scope| {
        let watching = scope.spawn(watch);
        let ending = Ending(&done);
        for turn in 1..=24 {
            gateway.reload(&document(&with(turn)));
            send(&gateway, 2);
        }
        drop(ending);
        let answers = watching.join().expect("it was there once each time");
        assert!(answers > 24, "{answers} answers say little");
    });
    assert_eq!(dead.hits(), first);
    gateway.reload(&document(&with(25)));
    gateway.reload(&document(&with(25)[..1]));
    assert_eq!(places(&targets(&gateway)), sorted([a.address]));
    let left = dead.probes().len();
    let more = a.probes().len() + 2;
    a.wait_for_probes(more);
    // One may have been on its way.
    assert!(dead.probes().len() <= left + 1, "probes without an owner");
    assert_eq!(reported(&gateway), sorted([a.address]));
    let seen: BTreeSet<String> = gateway.checked().into_iter().collect();
    assert_eq!(seen, BTreeSet::from(["/routes/lone".to_owned()]));
}
