//! Health of plain upstreams: the same truth as for AI instances, on every carrier.

mod support;

use std::{collections::BTreeSet, net::SocketAddr};

use serde_json::{Value, json};
use support::{
    Answer, Gateway, SecureUpstream, Start, Upstream, client::Connection, get, skip, wait_until,
};

/// `checks.active` that decides by one HTTP failure or two refused connections.
fn active(more: Value) -> Value {
    let mut active = json!({
        "http_path": "/health",
        "healthy": {"interval": 1, "successes": 1},
        "unhealthy": {"interval": 1, "http_failures": 1}
    });
    for (key, value) in more.as_object().expect("a map") {
        active[key] = value.clone();
    }
    json!({ "active": active })
}

fn nodes(addresses: &[SocketAddr]) -> Value {
    let pair = |address: &SocketAddr| (address.to_string(), json!(1));
    Value::Object(addresses.iter().map(pair).collect())
}

fn upstream(addresses: &[SocketAddr], more: Value) -> Value {
    let mut upstream = json!({"nodes": nodes(addresses), "checks": active(json!({}))});
    for (key, value) in more.as_object().expect("a map") {
        upstream[key] = value.clone();
    }
    upstream
}

fn route(upstream: &Value) -> String {
    json!({"routes": [{"id": 1, "uri": "/*", "upstream": upstream}]}).to_string()
}

fn statuses(gateway: &Gateway, count: usize) -> Vec<u16> {
    (0..count)
        .map(|_| get(gateway.proxy, "/x", &[]).status)
        .collect()
}

/// The nodes of the one checker there is.
fn listed(gateway: &Gateway) -> Vec<Value> {
    let checkers = gateway.checkers();
    assert_eq!(checkers.len(), 1, "{checkers:?}");
    checkers[0]["nodes"].as_array().cloned().unwrap_or_default()
}

/// Resources that carry an upstream of both nodes, or use it in another way, with the name in the
/// report.
fn carriers(alive: SocketAddr, dead: SocketAddr) -> [(&'static str, Value); 6] {
    let both = [alive, dead];
    let base = |more: Value| upstream(&both, more);
    let lone = json!([{"id": 1, "uri": "/*", "upstream_id": 5}]);
    let mut many = base(json!({"type": "chash", "key": "remote_addr"}));
    for _ in 0..7 {
        many["nodes"][Upstream::nobody().to_string()] = json!(1);
    }
    [
        (
            "/routes/1",
            json!({"routes": [{"id": 1, "uri": "/*", "upstream": base(json!({}))}]}),
        ),
        (
            "/upstreams/5",
            json!({"routes": lone, "upstreams": [{"id": 5, "nodes": nodes(&both), "checks": active(json!({}))}]}),
        ),
        (
            "/services/5",
            json!({
                "routes": [{"id": 1, "uri": "/*", "service_id": 5}],
                "services": [{"id": 5, "upstream": base(json!({}))}]
            }),
        ),
        // A route's own upstream instead of its service's.
        (
            "/routes/1",
            json!({
                "routes": [{"id": 1, "uri": "/*", "service_id": 5, "upstream": base(json!({}))}],
                "services": [{"id": 5, "upstream": {"nodes": {"127.0.0.1:1": 1}}}]
            }),
        ),
        (
            "/routes/1",
            json!({"routes": [{"id": 1, "uri": "/*", "upstream": many}]}),
        ),
        // The dead one carries all the weight.
        (
            "/routes/1",
            json!({"routes": [{"id": 1, "uri": "/*", "upstream": base(json!({
                "nodes": {alive.to_string(): 0, dead.to_string(): 1}
            }))}]}),
        ),
    ]
}

/// B-140, B-142, B-146, B-151, B-212, B-214: whoever carries the upstream and however it picks, a dead node
/// gets nothing.
#[test]
fn a_dead_node_gets_nothing_whoever_carries_it() {
    let (alive, dead) = (Upstream::named("alive"), Upstream::named("dead"));
    let table = carriers(alive.address, dead.address);
    let gateway = Gateway::start(&table[0].1.to_string());
    dead.wait_for_probes(1);
    assert_eq!(statuses(&gateway, 12), [200; 12]);
    assert_eq!((alive.hits(), dead.hits()), (6, 6));
    dead.set_healthy(false);
    for (name, document) in &table {
        gateway.reload("routes: []");
        gateway.reload(&document.to_string());
        gateway.wait_for_status(dead.port(), "unhealthy");
        for node in listed(&gateway) {
            let alive = node["port"] == alive.port();
            gateway.wait_for_status(
                u16::try_from(node["port"].as_u64().expect("a port")).expect("small"),
                if alive { "healthy" } else { "unhealthy" },
            );
        }
        let before = (alive.hits(), dead.hits());
        assert_eq!(statuses(&gateway, 12), [200; 12], "{name}");
        let hits = (alive.hits() - before.0, dead.hits() - before.1);
        assert_eq!(hits, (12, 0), "{name} {document}");
        let report = gateway.control(&format!("/v1/healthcheck{name}")).json();
        assert_eq!(
            (&report["name"], &report["type"]),
            (&json!(name), &json!("http"))
        );
    }
    // B-144, B-164: a resource that is gone leaves nothing.
    for _ in 0..3 {
        gateway.reload("routes: []");
        assert_eq!(gateway.control("/v1/healthcheck").text(), "{}");
        gateway.reload(&table[0].1.to_string());
        assert_eq!(statuses(&gateway, 2), [200; 2]);
    }
}

/// B-141, B-149, B-210, B-211: counters stop where the verdict is made; the report's exact fields.
#[test]
fn a_refusing_node_is_counted_twice_and_no_more() {
    let (alive, nobody) = (Upstream::named("alive"), Upstream::nobody());
    let checks = active(
        json!({"healthy": {"interval": 1, "successes": 1}, "unhealthy": {"interval": 1, "http_failures": 2}}),
    );
    let document = route(&upstream(
        &[alive.address, nobody],
        json!({"checks": checks}),
    ));
    let gateway = Gateway::start(&document);
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| assert_eq!(statuses(&gateway, 1), [200]));
        }
    });
    gateway.wait_for_status(nobody.port(), "unhealthy");
    let more = alive.probes().len() + 2;
    alive.wait_for_probes(more);
    assert_eq!(statuses(&gateway, 12), [200; 12]);
    let node = |address: SocketAddr, status: &str, tcp: u32| {
        json!({
            "ip": "127.0.0.1", "port": address.port(), "hostname": "127.0.0.1", "status": status,
            "counter": {"success": 0, "http_failure": 0, "tcp_failure": tcp, "timeout_failure": 0}
        })
    };
    let mut expected = [
        node(alive.address, "healthy", 0),
        node(nobody, "unhealthy", 2),
    ];
    let mut found = listed(&gateway);
    let port = |node: &Value| node["port"].as_u64();
    expected.sort_by_key(port);
    found.sort_by_key(port);
    assert_eq!(found, expected);
    let accept = [("Accept", "text/html")];
    let page = get(gateway.address("control"), "/v1/healthcheck", &accept).text();
    let row = format!(
        "<td>/routes/1</td><td>http</td><td>{nobody}</td><td>unhealthy</td><td>0</td><td>2</td><td>0</td><td>0</td>"
    );
    assert!(page.contains(&row), "{page}");
}

/// B-145, B-147, B-148, B-213: what `host`, `port`, `pass_host` and the type make of a probe.
#[test]
fn options_decide_how_nodes_are_probed() {
    let (a, b) = (Upstream::named("a"), Upstream::named("b"));
    let named = format!("localhost:{}", a.port());
    let pair = json!({named: 1, b.address.to_string(): 1});
    let with = |more: Value| {
        let mut upstream = json!({"nodes": pair, "checks": active(json!({}))});
        for (key, value) in more.as_object().expect("a map") {
            upstream[key] = value.clone();
        }
        route(&upstream)
    };
    let gateway = Gateway::start("routes: []\n# nothing yet");
    let hosts_of = |document: &str| {
        gateway.reload("routes: []");
        let before = (a.probes().len(), b.probes().len());
        gateway.reload(document);
        let host = |upstream: &Upstream, before: usize| {
            let probes = upstream.wait_for_probes(before + 1);
            probes[before].header("host").unwrap_or_default().to_owned()
        };
        [host(&a, before.0), host(&b, before.1)]
    };
    for (more, expected) in [
        (json!({}), ["localhost", "127.0.0.1"]),
        (json!({"pass_host": "node"}), ["localhost", "127.0.0.1"]),
        (
            json!({"pass_host": "rewrite", "upstream_host": "foo.com"}),
            ["foo.com", "foo.com"],
        ),
        (
            json!({"checks": active(json!({"host": "bar.com"}))}),
            ["localhost", "bar.com"],
        ),
    ] {
        assert_eq!(hosts_of(&with(more.clone())), expected, "{more}");
    }
    // B-162: only the hostname changes: one target, under the new name.
    for name in ["one.com", "two.com"] {
        let checks = active(json!({"host": name}));
        gateway.reload(&route(
            &json!({"nodes": nodes(&[b.address]), "checks": checks}),
        ));
        let hostnames: Vec<Value> = listed(&gateway)
            .iter()
            .map(|n| n["hostname"].clone())
            .collect();
        assert_eq!(hostnames, [name]);
    }
    // Two nodes, one address and probe port: a single target.
    let shared = active(json!({"port": a.port()}));
    gateway.reload(&route(
        &json!({"nodes": nodes(&[b.address, Upstream::nobody()]), "checks": shared}),
    ));
    let ports: Vec<Value> = listed(&gateway)
        .iter()
        .map(|node| node["port"].clone())
        .collect();
    assert_eq!(ports, [json!(a.port())]);
    // A connection is all that a probe of type tcp makes.
    let before = b.probes().len();
    let tcp = active(json!({"type": "tcp"}));
    let nobody = Upstream::nobody();
    gateway.reload(&route(
        &json!({"nodes": nodes(&[b.address, nobody]), "checks": tcp}),
    ));
    gateway.wait_for_status(nobody.port(), "unhealthy");
    gateway.wait_for_status(b.port(), "healthy");
    assert_eq!(b.probes().len(), before);
    assert_eq!(gateway.checkers()[0]["type"], "tcp");
}

/// B-152: over TLS.
#[test]
fn nodes_are_probed_over_tls() {
    let (fine, failing) = (SecureUpstream::start(200), SecureUpstream::start(500));
    let more = SecureUpstream::start(500);
    let checks = active(json!({"type": "https", "https_verify_certificate": false}));
    let gateway = Gateway::start("routes: []");
    for (pair, expected) in [
        ([fine.address, failing.address], ["healthy", "unhealthy"]),
        ([more.address, failing.address], ["unhealthy", "unhealthy"]),
    ] {
        gateway.reload(&route(&json!({"nodes": nodes(&pair), "checks": checks})));
        for (address, status) in pair.iter().zip(expected) {
            gateway.wait_for_status(address.port(), status);
        }
        assert_eq!(gateway.checkers()[0]["type"], "https");
    }
    // B-148: a name is asked for by SNI and `Host`.
    let named = json!({format!("localhost:{}", fine.address.port()): 1});
    gateway.reload(&route(&json!({"nodes": named, "checks": checks})));
    let name = "localhost".to_owned();
    fine.wait_for(|seen| seen.contains(&(Some(name.clone()), name.clone())));
}

/// B-168: as B-141, for clients of either family of addresses.
#[test]
fn b_168_listeners_of_both_families_obey_the_same_verdicts() {
    if skip::without_ipv6("B-168") {
        return;
    }
    let (alive, nobody) = (Upstream::named("alive"), Upstream::nobody());
    let gateway = Gateway::start_with(Start {
        document: &route(&upstream(&[alive.address, nobody], json!({"retries": 0}))),
        apisix: "  node_listen: [{ip: 127.0.0.1, port: 0}, {ip: \"::1\", port: 0}]",
        ..Start::default()
    });
    let line = gateway.wait_for_lines("listening proxy=", 2).remove(1);
    let (_, other) = line.split_once('=').expect("an address");
    let other: SocketAddr = other.trim().parse().expect("an address");
    assert!(other.is_ipv6(), "{other}");
    gateway.wait_for_status(nobody.port(), "unhealthy");
    for (count, at) in [gateway.proxy, other].into_iter().enumerate() {
        for _ in 0..12 {
            assert_eq!(get(at, "/x", &[]).status, 200);
        }
        assert_eq!(alive.hits(), 12 * (count + 1), "{at}");
    }
}

/// Nodes with priorities, which nobody probes after the first time; a closed connection is a failure.
fn tiers(nodes: &[(SocketAddr, i32)], more: Value) -> String {
    let node = |(address, priority): &(SocketAddr, i32)| {
        let (host, port) = (address.ip().to_string(), address.port());
        json!({"host": host, "port": port, "weight": 1, "priority": priority})
    };
    let nodes: Vec<Value> = nodes.iter().map(node).collect();
    route(&upstream(
        &[],
        json!({"nodes": nodes, "checks": active(more)}),
    ))
}

/// B-184: all nodes of both tiers are known to be down: all are tried, those of the higher one first.
#[test]
fn b_184_with_everybody_down_all_are_tried_by_priority() {
    let (high, low) = (
        [Upstream::nobody(), Upstream::nobody()],
        [Upstream::nobody(), Upstream::nobody()],
    );
    let nodes = [(low[0], -1), (high[0], 1), (low[1], -1), (high[1], 1)];
    let gateway = Gateway::start(&tiers(&nodes, json!({})));
    for (address, _) in nodes {
        gateway.wait_for_status(address.port(), "unhealthy");
    }
    assert_eq!(statuses(&gateway, 1), [502]);
    let line = gateway.access_log(1).remove(0);
    let picks = line["picks"].as_array().expect("four picks");
    let tried = picks.iter().filter_map(|pick| pick["member"].as_str());
    let tried: Vec<&str> = tried.collect();
    let both = |tier: [SocketAddr; 2]| BTreeSet::from(tier.map(|address| address.to_string()));
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(tried.len(), 4, "{line}");
    assert_eq!(
        (set(&tried[..2]), set(&tried[2..])),
        (both(high), both(low))
    );
    assert!(
        picks.iter().all(|pick| pick["failed_open"] == true),
        "{line}"
    );
}

/// B-185: while one failure of the higher tier is counted it is tried once for each request, and the
/// lower one answers; once it is known to be down it is not tried.
#[test]
fn b_185_a_lower_tier_answers_until_and_after_the_higher_one_is_known_to_be_down() {
    let (primary, backup) = (
        Upstream::start(|_| Answer::Close),
        Upstream::named("backup"),
    );
    let rare = json!({
        "healthy": {"interval": 3600, "successes": 1},
        "unhealthy": {"interval": 3600, "tcp_failures": 2}
    });
    let nodes = [(primary.address, 0), (backup.address, -1)];
    let gateway = Gateway::start(&tiers(&nodes, rare));
    wait_until("the first probes to be known", || {
        let targets = gateway.control("/v1/targets").json();
        let mut targets = targets.as_array()?.iter();
        targets
            .all(|target| !target["last"].is_null())
            .then_some(())
    });
    for count in 1..=2 {
        assert_eq!(statuses(&gateway, 1), [200]);
        assert_eq!((primary.hits(), backup.hits()), (count, count));
        gateway.wait_for_status(primary.port(), ["mostly_healthy", "unhealthy"][count - 1]);
    }
    assert_eq!(statuses(&gateway, 6), [200; 6]);
    assert_eq!((primary.hits(), backup.hits()), (2, 8));
}

/// B-151: nothing is checked, and half of the requests meet the dead node.
#[test]
fn switched_off_checks_let_requests_fail() {
    let alive = Upstream::named("alive");
    let document = route(&upstream(
        &[alive.address, Upstream::nobody()],
        json!({"retries": 0}),
    ));
    let gateway = Gateway::start_with(Start {
        document: &document,
        apisix: "  disable_upstream_healthcheck: true",
        ..Start::default()
    });
    let mut found = statuses(&gateway, 12);
    found.sort_unstable();
    assert_eq!((&found[..6], &found[6..]), (&[200; 6][..], &[502; 6][..]));
    assert_eq!(alive.probes().len(), 0);
}

/// B-158, B-159, B-160, B-163, B-166: verdicts outlive changes around them, for every worker.
#[test]
fn a_known_dead_node_stays_known() {
    let (alive, dead, more) = (
        Upstream::named("a"),
        Upstream::named("d"),
        Upstream::named("m"),
    );
    dead.set_healthy(false);
    // Once dead, it is not probed again for half a minute: what is known afterwards was carried.
    let checks = |more: Value| {
        let mut all = json!({"healthy": {"interval": 1, "successes": 1}, "unhealthy": {"interval": 30, "http_failures": 2}});
        for (key, value) in more.as_object().expect("a map") {
            all[key] = value.clone();
        }
        active(all)
    };
    let document = |addresses: &[SocketAddr], checks: Value| {
        route(&json!({"nodes": nodes(addresses), "retries": 0, "checks": checks}))
    };
    let pair = [alive.address, dead.address];
    let gateway = Gateway::start_with(Start {
        document: &document(&pair, checks(json!({}))),
        workers: 4,
        ..Start::default()
    });
    gateway.wait_for_status(dead.port(), "unhealthy");
    let first = dead.hits();
    let all = [more.address, dead.address, alive.address];
    for next in [
        document(&all, checks(json!({}))),
        document(&pair, checks(json!({"http_req_body": "x"}))),
        document(&all, checks(json!({"concurrency": 2}))),
    ] {
        gateway.reload(&next);
        assert_eq!(statuses(&gateway, 20), [200; 20]);
        assert_eq!(dead.hits(), first, "{next}");
        gateway.wait_for_status(dead.port(), "unhealthy");
    }
    // Deleted and created again it is another node, about which nothing is known.
    gateway.reload("routes: []");
    let before = dead.probes().len();
    gateway.reload(&document(&pair, checks(json!({}))));
    dead.wait_for_probes(before + 1);
    let seen: BTreeSet<String> = gateway.checked().into_iter().collect();
    assert_eq!(seen, BTreeSet::from(["/routes/1".to_owned()]));
}

/// A node that switches protocols.
fn socket_node() -> Upstream {
    Upstream::start(|_| {
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello";
        Answer::Raw(head.as_bytes().to_vec())
    })
}

/// A WebSocket handshake is a request like any other: none goes to a node that is known to be down, and the
/// verdict that the report shows is the one that the next handshake obeys (I-29).
#[test]
fn websocket_handshakes_obey_health() {
    let nodes = [socket_node(), socket_node()];
    let upstream = upstream(&[nodes[0].address, nodes[1].address], json!({}));
    let route =
        json!({"routes": [{"id": 1, "uri": "/*", "enable_websocket": true, "upstream": upstream}]});
    let gateway = Gateway::start_with(Start {
        document: &route.to_string(),
        workers: 4,
        ..Start::default()
    });
    let shake = || {
        let mut client = Connection::open(gateway.proxy);
        client.send(
            b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        );
        assert_eq!(client.response(false).status, 101);
        client.read_until("hello");
    };
    for (down, up) in [(0, 1), (1, 0)] {
        nodes[down].set_healthy(false);
        gateway.wait_for_status(nodes[down].port(), "unhealthy");
        let shown = gateway.control("/v1/targets").json()[0]["epoch"].as_u64();
        let before = (nodes[down].hits(), nodes[up].hits());
        for _ in 0..12 {
            shake();
        }
        let after = (nodes[down].hits(), nodes[up].hits());
        assert_eq!((after.0 - before.0, after.1 - before.1), (0, 12));
        let lines = gateway.access_log(12 * (down + 1));
        for line in &lines[12 * down..] {
            let seen = line["picks"][0]["epoch"].as_u64();
            assert!(seen >= shown, "{seen:?} is older than {shown:?}: {line}");
        }
        nodes[down].set_healthy(true);
        gateway.wait_for_status(nodes[down].port(), "healthy");
    }
    gateway.wait_until_idle();
}
