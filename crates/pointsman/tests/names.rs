//! Names and the addresses behind them: which addresses are used, and what is known of each.

#![allow(
    clippy::disallowed_methods,
    reason = "tests measure and wait in real time"
)]

mod support;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use support::{
    Answer, CHAT, Gateway, NameServer, Start, Upstream, Zone, get, multi, post_json, wait_until,
};

const CHECKS: &str = ", checks: {active: {type: http, http_path: /health, healthy: {interval: 1, \
                      successes: 1}, unhealthy: {interval: 1, http_failures: 1, tcp_failures: 1, timeouts: 1}}}";

/// An address on this machine: the records of names and the upstreams behind them.
fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, last)
}

/// Upstreams at one port of several addresses, each of which answers with its address.
fn upstreams<const N: usize>(lasts: [u8; N]) -> [Upstream; N] {
    let mut port = 0;
    lasts.map(|last| {
        let name = ip(last).to_string();
        let at = SocketAddr::from((ip(last), port));
        let upstream = Upstream::start_at(at, move |_| Answer::chat(&name));
        port = upstream.port();
        upstream
    })
}

/// An instance at a name.
fn at_name(instance: &str, host: &str, port: u16, more: &str) -> String {
    format!(
        "{{name: {instance}, provider: openai-compatible, weight: 1, auth: {{header: \
         {{Authorization: Bearer token}}}}, override: {{endpoint: \"http://{host}:{port}\"}}{more}}}"
    )
}

fn start(names: &NameServer, document: &str) -> Gateway {
    Gateway::start_with(Start {
        document,
        apisix: &names.settings(),
        ..Start::default()
    })
}

fn send(gateway: &Gateway, count: usize) {
    for _ in 0..count {
        assert_eq!(post_json(gateway.proxy, "/x", CHAT).status, 200);
    }
}

/// Waits until that many changes of addresses were published.
fn wait_for_changes(gateway: &Gateway, count: usize) {
    gateway.wait_for_lines("addresses changed", count);
}

/// Status and hostname of each address in the health report.
fn report(gateway: &Gateway, instance: &str) -> Vec<(String, String, String)> {
    let checkers = gateway.checkers();
    let checker = checkers.iter().find(|one| one["instance"] == instance);
    let nodes = checker.and_then(|one| one["nodes"].as_array()).cloned();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let nodes = nodes.unwrap_or_default().into_iter();
    nodes
        .map(|node| {
            (
                text(&node["ip"]),
                text(&node["status"]),
                text(&node["hostname"]),
            )
        })
        .collect()
}

fn wait_for_ip(gateway: &Gateway, instance: &str, last: u8, status: &str) {
    wait_until(&format!("{} to be {status}", ip(last)), || {
        let nodes = report(gateway, instance);
        let mut nodes = nodes.into_iter();
        nodes.find(|(address, is, _)| *address == ip(last).to_string() && is == status)
    });
}

/// I-15, R-4: a name that shrinks, and then moves. No attempt that starts later goes to an address that
/// is not listed any more, over an idle connection neither.
#[test]
fn i15_r4_only_listed_addresses_are_used() {
    for checks in ["", CHECKS] {
        let names = NameServer::start();
        let [a, b, c] = upstreams([2, 3, 4]);
        names.point("one.test", &[ip(2), ip(3)]);
        let instance = at_name("one", "one.test", a.port(), checks);
        let gateway = start(&names, &multi(&[instance], ""));
        wait_for_changes(&gateway, 1);
        send(&gateway, 20);
        assert_eq!((a.hits(), b.hits(), c.hits()), (10, 10, 0));
        assert_eq!((a.traffic_connections(), b.traffic_connections()), (1, 1));
        names.point("one.test", &[ip(2)]);
        wait_for_changes(&gateway, 2);
        send(&gateway, 20);
        // The connection to the one that stays is as good as before.
        assert_eq!((a.hits(), b.hits(), a.traffic_connections()), (30, 10, 1));
        names.point("one.test", &[ip(4)]);
        wait_for_changes(&gateway, 3);
        send(&gateway, 20);
        assert_eq!((a.hits(), b.hits(), c.hits()), (30, 10, 20));
        let host = format!("one.test:{}", c.port());
        assert_eq!(c.last().header("host"), Some(host.as_str()));
    }
}

/// B-100, B-101, I-16: each address is probed, under the name, and judged by itself.
#[test]
fn each_address_has_a_verdict_of_its_own() {
    let names = NameServer::start();
    let [a, b] = upstreams([2, 3]);
    let other = Upstream::named("other");
    b.set_healthy(false);
    names.point("one.test", &[ip(3), ip(2)]);
    let pair = [
        at_name("one", "one.test", a.port(), CHECKS),
        support::instance("other", other.address, ""),
    ];
    let gateway = start(&names, &multi(&pair, ""));
    wait_for_ip(&gateway, "one", 3, "unhealthy");
    for upstream in [&a, &b] {
        let probe = upstream.wait_for_probes(2).remove(0);
        assert_eq!(probe.header("host"), Some("one.test"));
    }
    let state = |status: &str, last: u8| {
        (
            ip(last).to_string(),
            status.to_owned(),
            "one.test".to_owned(),
        )
    };
    assert_eq!(
        report(&gateway, "one"),
        [state("healthy", 2), state("unhealthy", 3)]
    );
    let status =
        |last: u8| gateway.metric(&["apisix_upstream_status{", &format!("ip=\"{}\"", ip(last))]);
    assert!(status(2) == 1.0 && status(3) == 0.0);
    let before = (a.hits(), b.hits(), other.hits());
    send(&gateway, 20);
    let after = (a.hits(), b.hits(), other.hits());
    assert_eq!(after, (before.0 + 10, before.1, before.2 + 10));

    a.set_healthy(false);
    wait_for_ip(&gateway, "one", 2, "unhealthy");
    send(&gateway, 20);
    assert_eq!(
        (a.hits(), b.hits(), other.hits()),
        (after.0, after.1, after.2 + 20)
    );
    b.set_healthy(true);
    wait_for_ip(&gateway, "one", 3, "healthy");
    send(&gateway, 20);
    assert_eq!((a.hits(), b.hits()), (after.0, after.1 + 10));
}

/// A server that fails for AAAA takes no A record away, and the other way round.
#[test]
fn half_an_answer_is_used() {
    let names = NameServer::start();
    let [a] = upstreams([2]);
    names.set("one.test", Zone::OnlyA(vec![ip(2)], 1));
    let instance = at_name("one", "one.test", a.port(), CHECKS);
    let gateway = start(&names, &multi(&[instance], ""));
    wait_for_changes(&gateway, 1);
    send(&gateway, 4);
    assert_eq!(a.hits(), 4);
    assert!(names.asked("one.test").iter().any(|asked| asked.kind == 28));
}

/// A lifetime of 0 does not mean to ask without pause.
#[test]
fn ttl_0_does_not_spin() {
    let names = NameServer::start();
    let [a] = upstreams([2]);
    names.set("one.test", Zone::Records(vec![ip(2)], 0));
    let instance = at_name("one", "one.test", a.port(), "");
    let gateway = start(&names, &multi(&[instance], ""));
    wait_for_changes(&gateway, 1);
    send(&gateway, 10);
    let asked = wait_until("four look-ups", || {
        let asked = names.asked("one.test");
        let times: Vec<Instant> = asked.iter().filter(|a| a.kind == 1).map(|a| a.at).collect();
        (times.len() >= 4).then_some(times)
    });
    for pair in asked.windows(2) {
        assert!(pair[1] - pair[0] >= Duration::from_millis(900), "{asked:?}");
    }
}

#[test]
fn five_hundred_records_are_cut_and_that_is_told() {
    let names = NameServer::start();
    let all = Upstream::start_at(SocketAddr::from(([0, 0, 0, 0], 0)), |_| Answer::chat("all"));
    let records = (0..500u16).map(|n| Ipv4Addr::new(127, 1, (n >> 8) as u8, n as u8));
    names.set("one.test", Zone::Records(records.collect(), 0));
    let instance = at_name("one", "one.test", all.port(), CHECKS);
    let gateway = start(&names, &multi(&[instance], ""));
    let line = gateway.wait_for_line("more addresses than are used");
    assert!(
        line.contains("one.test") && line.contains("left_out=436"),
        "{line}"
    );
    send(&gateway, 64);
    assert_eq!(all.hits(), 64);
    assert_eq!(report(&gateway, "one").len(), 64);
    // They count for a second, and what has been told is not told again.
    wait_until("more look-ups", || {
        let asked = names.asked("one.test");
        (asked.iter().filter(|asked| asked.kind == 1).count() >= 6).then_some(())
    });
    let told = gateway.stderr();
    assert_eq!(told.matches("more addresses than are used").count(), 1);
}

/// D-12: before the first answer a request waits, no longer than for a connection; an instance that
/// nobody can find becomes unhealthy like any other; once there is an answer, all is well.
#[test]
fn silence_at_start_is_bounded_and_ends_with_the_first_answer() {
    let names = NameServer::start();
    let [a] = upstreams([2]);
    let other = Upstream::named("other");
    names.set("one.test", Zone::Silence);
    let pair = [
        at_name("one", "one.test", a.port(), CHECKS),
        support::instance("other", other.address, ""),
    ];
    let more = "        fallback_strategy: [http_5xx]\n        timeout: 300\n";
    let gateway = start(&names, &multi(&pair, more));
    let began = Instant::now();
    send(&gateway, 2);
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    wait_until("the name to be unhealthy", || {
        let nodes = report(&gateway, "one");
        (nodes
            == [(
                "one.test".to_owned(),
                "unhealthy".to_owned(),
                "one.test".to_owned(),
            )])
        .then_some(())
    });
    let before = other.hits();
    send(&gateway, 6);
    assert_eq!((a.hits(), other.hits()), (0, before + 6));
    names.point("one.test", &[ip(2)]);
    wait_for_ip(&gateway, "one", 2, "healthy");
    send(&gateway, 6);
    assert_eq!((a.hits(), other.hits()), (3, before + 9));
}

/// Plain upstreams, single instances and WebSocket handshakes take the same way.
#[test]
fn plain_upstreams_use_all_addresses_of_a_node() {
    let names = NameServer::start();
    let [a, b, c] = upstreams([2, 3, 4]);
    let port = a.port();
    names.point("one.test", &[ip(2), ip(3)]);
    let document = format!(
        "routes:\n  - {{id: 1, uri: /plain, upstream: &up {{type: roundrobin, pass_host: node, \
         nodes: {{\"one.test:{port}\": 1}}}}}}\n  - {{id: 2, uri: /ws, enable_websocket: true, upstream: *up}}\n  \
         - {{id: 3, uri: /single, plugins: {{ai-proxy: {{provider: openai-compatible, auth: {{}}, \
         override: {{endpoint: \"http://one.test:{port}\"}}}}}}}}\n"
    );
    let gateway = start(&names, &document);
    wait_for_changes(&gateway, 1);
    let all = || {
        for _ in 0..4 {
            assert_eq!(get(gateway.proxy, "/plain", &[]).status, 200);
            let upgrade = [
                ("Connection", "Upgrade"),
                ("Upgrade", "websocket"),
                ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
                ("Sec-WebSocket-Version", "13"),
            ];
            assert_eq!(get(gateway.proxy, "/ws", &upgrade).status, 200);
            assert_eq!(post_json(gateway.proxy, "/single", CHAT).status, 200);
        }
    };
    all();
    assert_eq!((a.hits(), b.hits()), (6, 6));
    let host = format!("one.test:{port}");
    assert_eq!(a.last().header("host"), Some(host.as_str()));
    names.point("one.test", &[ip(4)]);
    wait_for_changes(&gateway, 2);
    all();
    assert_eq!((a.hits(), b.hits(), c.hits()), (6, 6, 12));
}

/// An address that refuses connections does not take the others of its name along.
#[test]
fn another_address_is_dialled_when_one_refuses() {
    let names = NameServer::start();
    let [a] = upstreams([3]);
    names.point("one.test", &[ip(2), ip(3)]);
    let instance = at_name("one", "one.test", a.port(), "");
    let gateway = start(&names, &multi(&[instance], ""));
    wait_for_changes(&gateway, 1);
    send(&gateway, 10);
    assert_eq!((a.hits(), a.traffic_connections()), (10, 1));
}

/// B-102 from outside, with the one name that every hosts file has; others are tested beside `dns.rs`.
#[test]
fn b102_the_hosts_file_comes_first() {
    let names = NameServer::start();
    let a = Upstream::named("a");
    names.point("localhost", &[ip(9)]);
    let instance = at_name("one", "localhost", a.port(), CHECKS);
    let gateway = start(&names, &multi(&[instance], ""));
    wait_for_ip(&gateway, "one", 1, "healthy");
    send(&gateway, 4);
    assert_eq!(a.hits(), 4);
    assert!(names.asked("localhost").is_empty());
}

/// What traffic meets is held against the address that it met.
#[test]
fn passive_checks_judge_the_address_that_was_dialled() {
    let names = NameServer::start();
    let [a] = upstreams([2]);
    let at = SocketAddr::from((ip(3), a.port()));
    let b = Upstream::start_at(at, |_| Answer::status(500, "{}"));
    names.point("one.test", &[ip(2), ip(3)]);
    let passive = ", checks: {active: {type: http, http_path: /health, healthy: {interval: 60}, \
                   unhealthy: {interval: 60}}, passive: {unhealthy: {http_statuses: [500], http_failures: 2}}}";
    let instance = at_name("one", "one.test", a.port(), passive);
    let gateway = start(&names, &multi(&[instance], ""));
    wait_for_changes(&gateway, 1);
    for _ in 0..4 {
        post_json(gateway.proxy, "/x", CHAT);
    }
    wait_for_ip(&gateway, "one", 3, "unhealthy");
    assert_eq!(b.hits(), 2);
    send(&gateway, 6);
    assert_eq!((a.hits(), b.hits()), (8, 2));
}

/// A reload that keeps an instance keeps what is known of its addresses, and asks nobody anew.
#[test]
fn i10_a_reload_keeps_addresses_and_verdicts() {
    let names = NameServer::start();
    let [a, b] = upstreams([2, 3]);
    b.set_healthy(false);
    names.set("one.test", Zone::Records(vec![ip(2), ip(3)], 600));
    let instance = at_name("one", "one.test", a.port(), CHECKS);
    let third = Upstream::named("third");
    let gateway = start(&names, &multi(std::slice::from_ref(&instance), ""));
    wait_for_ip(&gateway, "one", 3, "unhealthy");
    let (asked, before) = (names.asked("one.test").len(), b.hits());
    for weight in 1..4 {
        let more = format!(", weight: {weight}");
        let others = [
            support::instance("third", third.address, "").replace(", weight: 1", &more),
            instance.clone(),
        ];
        gateway.reload(&multi(&others, ""));
        send(&gateway, 12);
        gateway.reload(&multi(std::slice::from_ref(&instance), ""));
        send(&gateway, 12);
    }
    assert_eq!((names.asked("one.test").len(), b.hits()), (asked, before));
}

/// A configuration that brings a name is in force once the name has had its answer: what is known of an
/// address under one name counts under the other from the first request on, whether the one stays or goes.
#[test]
fn a_new_name_begins_with_what_is_known_of_its_addresses() {
    for stays in [true, false] {
        let names = NameServer::start();
        let [alive, dead] = upstreams([2, 3]);
        dead.set_healthy(false);
        names.point("one.test", &[ip(2), ip(3)]);
        // Long after a configuration that did not wait would be in force.
        let late = Zone::Late(vec![ip(2), ip(3)], 1, Duration::from_millis(100));
        names.set("two.test", late);
        // By its own probes it would be out only after a minute or two.
        let slow = CHECKS
            .replace("interval: 1", "interval: 60")
            .replace("failures: 1", "failures: 3");
        let one = at_name("one", "one.test", alive.port(), CHECKS);
        let two = at_name("two", "two.test", alive.port(), &slow);
        let gateway = start(&names, &multi(std::slice::from_ref(&one), ""));
        wait_for_ip(&gateway, "one", 3, "unhealthy");
        let before = dead.hits();
        let one = one.replace("weight: 1", "weight: 0");
        let next = if stays { vec![one, two] } else { vec![two] };
        gateway.reload(&multi(&next, ""));
        send(&gateway, 8);
        assert_eq!((alive.hits(), dead.hits()), (8, before), "stays: {stays}");
        let told = gateway.wait_for_line("health verdict inherited");
        let address = format!("{}:{}", ip(3), alive.port());
        assert!(told.contains(&address) && told.contains("two"), "{told}");
        let log = gateway.stderr();
        let place = |part| log.find(part).expect("it has been told");
        assert!(
            place("health verdict inherited") < place("configuration applied generation=2"),
            "in force before the answer: {log}"
        );
    }
}

/// B-103 for names: names are resolved before the first request, and what an earlier process knew of
/// their addresses counts from then on. Its own probes would take seconds to find out.
#[test]
fn b103_a_restart_in_an_outage_remembers_addresses() {
    let names = NameServer::start();
    let [alive, dead] = upstreams([2, 3]);
    dead.set_healthy(false);
    names.point("one.test", &[ip(2), ip(3)]);
    let checks = CHECKS.replace("http_failures: 1", "http_failures: 3");
    let instance = at_name("one", "one.test", alive.port(), &checks);
    let mut gateway = start(&names, &multi(&[instance], ""));
    wait_for_ip(&gateway, "one", 3, "unhealthy");
    let file = gateway.folder().join("logs/health.state");
    wait_until("the verdict to be written down", || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        text.contains(" unhealthy ").then_some(())
    });
    gateway.signal("KILL");
    gateway.wait_for_exit();
    let before = (alive.hits(), dead.hits());
    gateway.start_again(4);
    send(&gateway, 20);
    assert_eq!((alive.hits(), dead.hits()), (before.0 + 20, before.1));
}

/// What was known before a restart survives another one, though the name had no answer in between and
/// something new was learned.
#[test]
fn b103_what_waits_for_a_name_is_not_lost_with_the_next_verdict() {
    let names = NameServer::start();
    let [alive, dead] = upstreams([2, 3]);
    let third = Upstream::named("third");
    dead.set_healthy(false);
    names.point("one.test", &[ip(2), ip(3)]);
    let checks = CHECKS.replace("failures: 1", "failures: 3");
    let pair = [
        at_name("one", "one.test", alive.port(), &checks),
        support::instance("third", third.address, &checks),
    ];
    let mut gateway = start(&names, &multi(&pair, ""));
    wait_for_ip(&gateway, "one", 3, "unhealthy");
    let file = gateway.folder().join("logs/health.state");
    let wait_for_unhealthy = |count: usize| {
        wait_until(&format!("{count} verdicts to be written down"), || {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            (text.matches(" unhealthy ").count() == count).then_some(())
        });
    };
    wait_for_unhealthy(1);
    gateway.signal("KILL");
    gateway.wait_for_exit();
    names.set("one.test", Zone::Silence);
    third.set_healthy(false);
    gateway.start_again(4);
    gateway.wait_for_status(third.port(), "unhealthy");
    wait_for_unhealthy(2);
    gateway.signal("KILL");
    gateway.wait_for_exit();
    names.point("one.test", &[ip(2), ip(3)]);
    let before = (alive.hits(), dead.hits(), third.hits());
    gateway.start_again(4);
    send(&gateway, 12);
    assert_eq!(
        (alive.hits(), dead.hits(), third.hits()),
        (before.0 + 12, before.1, before.2)
    );
}
