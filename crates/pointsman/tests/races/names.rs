//! Races of names and their addresses.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};

use crate::{
    WORKERS, document, route as ai,
    support::{
        Answer, CHAT, Gateway, NameServer, Start, Upstream, Zone, call, under_load, wait_until,
    },
};

/// Checks that decide by one failure. What is known to be down is not asked again while a test lasts: what is
/// known of it later was carried over.
pub(crate) fn checks() -> Value {
    json!({"active": {
        "http_path": "/health",
        "healthy": {"interval": 1, "successes": 1},
        "unhealthy": {"interval": 3600, "http_failures": 1}
    }})
}

/// Checks that find nothing out while a test lasts. Targets whose checks become these keep their verdicts, and
/// who is down by these was known to be.
pub(crate) fn slow_checks() -> Value {
    json!({"active": {
        "http_path": "/health",
        "healthy": {"interval": 3600, "successes": 9},
        "unhealthy": {"interval": 3600, "http_failures": 9}
    }})
}

pub(crate) fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, last)
}

/// Upstreams at one port of several addresses.
pub(crate) fn upstreams<const N: usize>(lasts: [u8; N]) -> [Upstream; N] {
    let mut port = 0;
    lasts.map(|last| {
        let at = SocketAddr::from((ip(last), port));
        let upstream = Upstream::start_at(at, move |_| Answer::chat(&ip(last).to_string()));
        port = upstream.port();
        upstream
    })
}

/// An instance, which nobody checks. All have one credential: what is known of an address goes along with it
/// where it is asked the same in all but the name.
pub(crate) fn instance(name: &str, host: &str, port: u16) -> Value {
    json!({
        "name": name, "provider": "openai-compatible", "weight": 1,
        "auth": {"header": {"Authorization": "Bearer token"}},
        "override": {"endpoint": format!("http://{host}:{port}")}
    })
}

pub(crate) fn checked(name: &str, host: &str, port: u16, checks: Value) -> Value {
    let mut instance = instance(name, host, port);
    instance["checks"] = checks;
    instance
}

/// A route to the nodes `host:port`.
pub(crate) fn plain(id: &str, nodes: &[String], checks: Option<Value>) -> Value {
    let nodes = nodes.iter().map(|node| (node.clone(), json!(1)));
    let mut upstream = json!({"nodes": nodes.collect::<serde_json::Map<_, _>>()});
    if let Some(checks) = checks {
        upstream["checks"] = checks;
    }
    json!({"id": id, "uri": format!("/{id}"), "upstream": upstream})
}

pub(crate) fn start(names: &NameServer, document: &str) -> Gateway {
    Gateway::start_with(Start {
        document,
        apisix: &names.settings(),
        workers: WORKERS,
        ..Start::default()
    })
}

/// Requests to `/ai` and `/plain`.
fn both() -> [String; 2] {
    [call("/ai", &[], CHAT), call("/plain", &[], "")]
}

/// Waits until all targets at `ip(last)` are usable, or none is; there is one at least.
pub(crate) fn wait_for(gateway: &Gateway, last: u8, usable: bool) {
    wait_until(&format!("{} to be usable: {usable}", ip(last)), || {
        let shown = gateway.control("/v1/targets").json();
        let host = ip(last).to_string();
        let all = shown.as_array()?.iter();
        let mut here = all.filter(|one| one["host"] == host.as_str()).peekable();
        here.peek()?;
        here.all(|one| one["usable"] == usable).then_some(())
    });
}

/// Changes of addresses that were published so far.
pub(crate) fn changes(gateway: &Gateway) -> usize {
    gateway.stderr().matches("addresses changed").count()
}

/// Waits until that many more are.
pub(crate) fn wait_for_changes(gateway: &Gateway, before: usize, more: usize) {
    gateway.wait_for_lines("addresses changed", before + more);
}

pub(crate) fn hits<const N: usize>(all: [&Upstream; N]) -> [usize; N] {
    all.map(Upstream::hits)
}

/// R-4, I-15: a name shrinks and moves while all workers use it. Nobody goes on with an address that is not
/// listed any more, nor comes back to it.
#[test]
fn r04_an_address_that_leaves_its_name_gets_nothing() {
    for checks in [None, Some(checks())] {
        let names = NameServer::start();
        let [a, b, c] = upstreams([2, 3, 4]);
        let port = a.port();
        names.point("one.test", &[ip(2), ip(3)]);
        let mut one = instance("one", "one.test", port);
        if let Some(checks) = &checks {
            one["checks"] = checks.clone();
        }
        let node = format!("one.test:{port}");
        let routes = [ai("ai", &[one]), plain("plain", &[node], checks)];
        let gateway = start(&names, &document(&routes));
        wait_for_changes(&gateway, 0, 1);
        under_load(gateway.proxy, &both(), |load| {
            load.pass(8);
            let before = hits([&a, &b, &c]);
            assert!(
                before[0] > 0 && before[1] > 0 && before[2] == 0,
                "{before:?}"
            );
            for listed in [&[2][..], &[3, 4], &[2]] {
                let known = changes(&gateway);
                let addresses: Vec<Ipv4Addr> = listed.iter().map(|&last| ip(last)).collect();
                names.point("one.test", &addresses);
                wait_for_changes(&gateway, known, 1);
                load.pass(1);
                let before = hits([&a, &b, &c]);
                load.pass(10);
                let after = hits([&a, &b, &c]);
                for (last, (before, after)) in (2..).zip(before.iter().zip(after)) {
                    let is_listed = listed.contains(&last);
                    assert_eq!(after > *before, is_listed, "{} of {listed:?}", ip(last));
                }
            }
        });
    }
}

/// two instances swap their addresses, one of which is down, under the load of all workers. Whichever name
/// changes first, nobody sends a request there. A third instance is always usable: while both names stand for
/// the one that is down, there is nobody else.
#[test]
fn r06_a_swap_of_addresses_under_load_revives_nobody() {
    for first in [0, 1] {
        let names = NameServer::start();
        let [dead, alive] = upstreams([2, 3]);
        let (port, other) = (alive.port(), Upstream::named("other"));
        dead.set_healthy(false);
        let hosts = ["one.test", "two.test"];
        let mut now = [ip(2), ip(3)];
        names.point(hosts[0], &[now[0]]);
        names.point(hosts[1], &[now[1]]);
        let with = |checks: Value| {
            let instances = [
                checked("one", hosts[0], port, checks.clone()),
                checked("two", hosts[1], port, checks.clone()),
                instance("other", "127.0.0.1", other.port()),
            ];
            let nodes = hosts.map(|host| format!("{host}:{port}"));
            let nodes = [nodes.to_vec(), vec![other.address.to_string()]].concat();
            document(&[ai("ai", &instances), plain("plain", &nodes, Some(checks))])
        };
        let gateway = start(&names, &with(checks()));
        wait_for(&gateway, 2, false);
        gateway.reload(&with(slow_checks()));
        under_load(gateway.proxy, &both(), |load| {
            for _ in 0..2 {
                now.reverse();
                for at in [first, 1 - first] {
                    let known = changes(&gateway);
                    names.point(hosts[at], &[now[at]]);
                    wait_for_changes(&gateway, known, 1);
                    load.pass(5);
                }
            }
            let before = alive.hits();
            load.pass(5);
            assert!(alive.hits() > before, "it is used under its new name");
        });
        assert_eq!(dead.hits(), 0, "{} changed first", hosts[first]);
    }
}

/// every look-up has another answer, as each worker's has in APISIX. Who is known to be down stays down
/// while it leaves and comes back, and whoever is listed is used.
#[test]
fn r08_answers_that_differ_every_time_revive_nobody() {
    let names = NameServer::start();
    let [a, dead, c] = upstreams([2, 3, 4]);
    let port = a.port();
    dead.set_healthy(false);
    let hosts = ["one.test", "two.test"];
    for host in hosts {
        names.point(host, &[ip(2), ip(3), ip(4)]);
    }
    let instances = [
        checked("one", hosts[0], port, checks()),
        checked("two", hosts[1], port, checks()),
    ];
    let nodes = hosts.map(|host| format!("{host}:{port}"));
    let routes = [ai("ai", &instances), plain("plain", &nodes, Some(checks()))];
    let gateway = start(&names, &document(&routes));
    wait_for(&gateway, 3, false);
    wait_for(&gateway, 2, true);
    under_load(gateway.proxy, &both(), |load| {
        // Of three answers one is without it, for the one name at another time than for the other.
        names.set(
            hosts[0],
            Zone::Turns(vec![vec![ip(3), ip(2)], vec![ip(4)], vec![ip(2), ip(3)]]),
        );
        names.set(
            hosts[1],
            Zone::Turns(vec![vec![ip(4)], vec![ip(2)], vec![ip(3), ip(4)]]),
        );
        let (known, before) = (changes(&gateway), hits([&a, &c]));
        for round in 1..=6 {
            wait_for_changes(&gateway, known, 2 * round);
            load.pass(3);
        }
        let after = hits([&a, &c]);
        assert!(after[0] > before[0] && after[1] > before[1]);
    });
    assert_eq!(dead.hits(), 0);
}

/// an address leaves its name and comes back before anybody has forgotten it, whether the name or the
/// configuration has changed. What was known of it is what is known of it, though its own probes would take
/// for ever to find it out again.
#[test]
fn r15_an_address_that_comes_back_is_as_down_as_it_was() {
    let names = NameServer::start();
    let [a, dead] = upstreams([2, 3]);
    let (port, other) = (a.port(), Upstream::named("other"));
    dead.set_healthy(false);
    names.point("one.test", &[ip(2), ip(3)]);
    let beside = instance("other", "127.0.0.1", other.port());
    let with = |checks: Value| {
        let one = checked("one", "one.test", port, checks.clone());
        let nodes = [format!("one.test:{port}"), other.address.to_string()];
        [
            ai("ai", &[one, beside.clone()]),
            plain("plain", &nodes, Some(checks)),
        ]
    };
    let without = [
        ai("ai", std::slice::from_ref(&beside)),
        plain("plain", &[other.address.to_string()], Some(checks())),
    ];
    let gateway = start(&names, &document(&with(checks())));
    wait_for(&gateway, 3, false);
    under_load(gateway.proxy, &both(), |load| {
        gateway.reload(&document(&with(slow_checks())));
        for _ in 0..2 {
            for listed in [&[ip(2)][..], &[ip(2), ip(3)]] {
                let known = changes(&gateway);
                names.point("one.test", listed);
                wait_for_changes(&gateway, known, 1);
                load.pass(5);
            }
            wait_for(&gateway, 3, false);
        }
        for _ in 0..5 {
            gateway.reload(&document(&without));
            load.pass(2);
            gateway.reload(&document(&with(slow_checks())));
            wait_for(&gateway, 3, false);
            load.pass(2);
        }
        let before = a.hits();
        load.pass(5);
        assert!(a.hits() > before);
    });
    assert_eq!(dead.hits(), 0);
}

/// R-17, D-11, I-27: whatever goes wrong with a look-up while all workers use the name, its addresses and all
/// that is known of them stay.
#[test]
fn r17_a_failing_lookup_discards_nothing() {
    let names = NameServer::start();
    let [a, dead] = upstreams([2, 3]);
    let port = a.port();
    dead.set_healthy(false);
    names.point("one.test", &[ip(2), ip(3)]);
    let one = checked("one", "one.test", port, checks());
    let node = format!("one.test:{port}");
    let routes = [ai("ai", &[one]), plain("plain", &[node], Some(checks()))];
    let gateway = start(&names, &document(&routes));
    wait_for(&gateway, 3, false);
    let probes = dead.probes().len();
    let failures = [
        Zone::Fails(2),
        Zone::Fails(3),
        Zone::Records(Vec::new(), 1),
        Zone::Silence,
    ];
    under_load(gateway.proxy, &both(), |load| {
        for (number, zone) in failures.into_iter().enumerate() {
            names.set("one.test", zone);
            gateway.wait_for_lines("its last addresses stay", number + 1);
            let before = a.hits();
            load.pass(5);
            assert!(a.hits() > before);
            wait_for(&gateway, 3, false);
            // Back to an answer, so that the next failure is a new one.
            let asked = names.asked("one.test").len();
            names.point("one.test", &[ip(2), ip(3)]);
            wait_until("an answer", || {
                (names.asked("one.test").len() >= asked + 4).then_some(())
            });
            load.pass(5);
        }
    });
    assert_eq!(dead.hits(), 0);
    assert_eq!(dead.probes().len(), probes, "no reason to ask it again");
    assert_eq!(changes(&gateway), 1, "{}", gateway.stderr());
}
