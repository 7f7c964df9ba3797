//! Passive checks of plain upstreams, as APISIX has them.

mod support;

use std::collections::BTreeSet;

use serde_json::Value;
use support::{Gateway, Start, Upstream, get};

/// Active checks that say nothing while a test runs: `passive` needs them beside it.
const SILENT: &str = "active: {type: http, http_path: /health, healthy: {interval: 3600}, unhealthy: {interval: 3600}}";

fn plain(nodes: &[&Upstream], passive: &str, more: &str) -> String {
    let nodes: Vec<String> = nodes
        .iter()
        .map(|node| format!("\"{}\": 1", node.address))
        .collect();
    format!(
        "routes: [{{id: 1, uri: /*, upstream: {{type: roundrobin, nodes: {{{}}}, checks: {{{SILENT}{passive}}}{more}}}}}]",
        nodes.join(", ")
    )
}

/// B-155: statuses of traffic count; a target that falls is left alone, and the report says why.
#[test]
fn b_155_statuses_of_traffic_make_nodes_unhealthy() {
    let (a, b) = (Upstream::failing(500), Upstream::failing(500));
    let passive = ", passive: {unhealthy: {http_statuses: [500], http_failures: 3}}";
    let gateway = Gateway::start(&plain(&[&a, &b], passive, ""));
    a.wait_for_probes(1);
    b.wait_for_probes(1);
    for _ in 0..6 {
        assert_eq!(get(gateway.proxy, "/x", &[]).status, 500);
    }
    gateway.wait_for_status(a.port(), "unhealthy");
    gateway.wait_for_status(b.port(), "unhealthy");
    for checker in gateway.checkers() {
        for node in checker["nodes"].as_array().expect("nodes") {
            assert_eq!(node["counter"]["http_failure"], 3, "{node}");
        }
    }
    // Nobody is usable: all are used.
    assert_eq!(get(gateway.proxy, "/x", &[]).status, 500);
}

/// One that fails is left alone as soon as its limit is reached, and the other gets everything.
#[test]
fn a_failing_node_gets_no_more_than_its_limit() {
    let (good, bad) = (Upstream::named("good"), Upstream::failing(503));
    let passive = ", passive: {unhealthy: {http_statuses: [503], http_failures: 2}}";
    let gateway = Gateway::start_with(Start {
        document: &plain(&[&good, &bad], passive, ""),
        workers: 4,
        ..Start::default()
    });
    bad.wait_for_probes(1);
    support::wait_until("the bad one to be asked twice", || {
        get(gateway.proxy, "/x", &[]);
        (bad.hits() >= 2).then_some(())
    });
    gateway.wait_for_status(bad.port(), "unhealthy");
    let before = bad.hits();
    for _ in 0..32 {
        assert_eq!(get(gateway.proxy, "/x", &[]).status, 200);
    }
    assert_eq!(bad.hits(), before);
}

/// B-154: without `passive`, final statuses do not count.
#[test]
fn b_154_only_configured_passive_checks_count() {
    let bad = Upstream::failing(500);
    let other = Upstream::failing(500);
    let watched = plain(&[&bad], ", passive: {unhealthy: {http_failures: 1}}", "");
    let unwatched = plain(&[&other], "", "").replace("id: 1, uri: /*", "id: 2, uri: /y");
    let document = format!(
        "{}, {}",
        watched.trim_end_matches(']'),
        unwatched.trim_start_matches("routes: [")
    );
    let gateway = Gateway::start(&document);
    other.wait_for_probes(1);
    for _ in 0..5 {
        get(gateway.proxy, "/y", &[]);
    }
    get(gateway.proxy, "/x", &[]);
    gateway.wait_for_status(bad.port(), "unhealthy");
    gateway.wait_for_status(other.port(), "healthy");
}

/// A node that refuses connections: each failed try that is followed by another is reported, with the
/// library's defaults even where passive checks are not configured (two TCP failures).
#[test]
fn failed_tries_count_without_passive_checks() {
    let good = Upstream::named("good");
    let dead = Upstream::nobody();
    // A probe every hour, and none before the test has begun: an upstream that accepts once.
    let document = format!(
        "routes: [{{id: 1, uri: /*, upstream: {{type: roundrobin, nodes: {{\"{}\": 1, \"{dead}\": 1}}, checks: {{active: {{type: http, http_path: /health, unhealthy: {{interval: 3600, tcp_failures: 200}}, healthy: {{interval: 3600}}}}}}}}}}]",
        good.address
    );
    let gateway = Gateway::start(&document);
    support::wait_until("both failures", || {
        assert_eq!(get(gateway.proxy, "/x", &[]).status, 200);
        let log = gateway.stderr();
        log.contains("health verdict changed").then_some(())
    });
    gateway.wait_for_status(dead.port(), "unhealthy");
}

/// A configuration with one route to `nodes` (`"address": weight`), whose active checks are silent.
fn route(nodes: &[String], passive: &str, more: &str) -> String {
    let active = "active: {http_path: /health, healthy: {interval: 3600}, \
                  unhealthy: {interval: 3600, tcp_failures: 200}}";
    let nodes = nodes.join(", ");
    format!(
        "routes: [{{id: 1, uri: /*, upstream: {{nodes: {{{nodes}}}, checks: {{{active}, passive: {passive}}}{more}}}}}]"
    )
}

/// B-143: nobody answers, whoever owns the key and whatever is known: a 502 after one try at each.
#[test]
fn b_143_two_dead_nodes_are_a_502_after_one_try_each() {
    let dead = [Upstream::nobody(), Upstream::nobody()];
    let nodes = dead.map(|address| format!("\"{address}\": 1"));
    let passive = "{unhealthy: {http_statuses: [502], http_failures: 1, tcp_failures: 1}}";
    let more = ", type: chash, key: remote_addr, retries: 3";
    let gateway = Gateway::start(&route(&nodes, passive, more));
    let names: BTreeSet<String> = dead.map(|address| address.to_string()).into();
    for number in 1..=2 {
        assert_eq!(get(gateway.proxy, "/x", &[]).status, 502);
        let line = gateway.access_log(number).remove(number - 1);
        let picks = line["picks"].as_array().expect("there were two picks");
        let tried = picks.iter().filter_map(|pick| pick["member"].as_str());
        let tried: Vec<String> = tried.map(str::to_owned).collect();
        assert_eq!(tried.len(), 2, "nobody twice: {line}");
        assert_eq!(tried.into_iter().collect::<BTreeSet<_>>(), names, "{line}");
        // The first request has shown what both are; the second is offered both all the same.
        for address in dead {
            gateway.wait_for_status(address.port(), "unhealthy");
        }
        let opened = (picks.iter()).filter(|pick| pick["failed_open"] == true);
        assert!(number == 1 || opened.count() == 2, "{line}");
    }
}

/// B-153: a node of weight 0 takes over from the only other one, once a 502 has shown that it is dead.
#[test]
fn b_153_a_node_without_weight_takes_over_from_a_dead_one() {
    let (spare, dead) = (Upstream::named("spare"), Upstream::nobody());
    let nodes = [
        format!("\"{}\": 0", spare.address),
        format!("\"{dead}\": 1"),
    ];
    let passive = "{unhealthy: {http_statuses: [502], http_failures: 1}}";
    let gateway = Gateway::start(&route(&nodes, passive, ", retries: 0"));
    spare.wait_for_probes(1);
    assert_eq!(get(gateway.proxy, "/x", &[]).status, 502);
    assert_eq!(spare.hits(), 0);
    gateway.wait_for_status(dead.port(), "unhealthy");
    for _ in 0..5 {
        assert_eq!(get(gateway.proxy, "/x", &[]).status, 200);
    }
    assert_eq!(spare.hits(), 5);
    let of_dead = |node: &Value| node["port"] == dead.port();
    let checkers = gateway.checkers();
    let nodes = checkers[0]["nodes"].as_array().expect("a list");
    let node = nodes
        .iter()
        .find(|node| of_dead(node))
        .expect("it is listed");
    assert_eq!(node["counter"]["http_failure"], 1, "{node}");
}
