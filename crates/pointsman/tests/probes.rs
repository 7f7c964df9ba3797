//! Probes on the wire: who is probed, how, and what each answer counts as.

mod support;

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use support::{Answer, CHAT, Gateway, Held, SecureUpstream, Start, Upstream, request};

/// An instance at `address` with `checks.active` as given, decided by one probe of each kind.
fn checked(name: &str, address: SocketAddr, active: Value) -> Value {
    let mut checks = json!({
        "http_path": "/health",
        "healthy": {"interval": 1, "successes": 1},
        "unhealthy": {"interval": 1, "http_failures": 1, "tcp_failures": 1, "timeouts": 1}
    });
    for (key, value) in active.as_object().expect("a map") {
        checks[key] = value.clone();
    }
    json!({
        "name": name, "provider": "openai-compatible", "weight": 1,
        "auth": {"header": {"Authorization": "Bearer token"}},
        "override": {"endpoint": format!("http://{address}")},
        "checks": {"active": checks}
    })
}

fn plugins(instances: &[Value]) -> Value {
    json!({"ai-proxy-multi": {"instances": instances}})
}

fn route(instances: &[Value]) -> String {
    json!({"routes": [{"id": 1, "uri": "/*", "plugins": plugins(instances)}]}).to_string()
}

fn counter(node: &Value, name: &str) -> u64 {
    node["counter"][name].as_u64().unwrap_or_default()
}

/// The plugins on each of the six kinds of carrier, with the carrier's key.
fn carriers(pair: &Value) -> [(&'static str, Value); 6] {
    let nowhere = json!({"nodes": {"127.0.0.1:1": 1}});
    let mut with_key = pair.clone();
    with_key["key-auth"] = json!({"key": "k"});
    let authenticated =
        json!([{"id": 1, "uri": "/x", "plugins": {"key-auth": {}}, "upstream": nowhere}]);
    [
        (
            "/routes/1",
            json!({"routes": [{"id": 1, "uri": "/x", "plugins": pair}]}),
        ),
        (
            "/services/2",
            json!({
                "routes": [{"id": 1, "uri": "/x", "service_id": 2}],
                "services": [{"id": 2, "plugins": pair}]
            }),
        ),
        (
            "/plugin_configs/3",
            json!({
                "routes": [{"id": 1, "uri": "/x", "plugin_config_id": 3}],
                "plugin_configs": [{"id": 3, "plugins": pair}]
            }),
        ),
        (
            "/global_rules/4",
            json!({
                "routes": [{"id": 1, "uri": "/x", "upstream": nowhere}],
                "global_rules": [{"id": 4, "plugins": pair}]
            }),
        ),
        (
            "/consumers/jack",
            json!({
                "routes": authenticated,
                "consumers": [{"username": "jack", "plugins": with_key}]
            }),
        ),
        (
            "/consumer_groups/5",
            json!({
                "routes": authenticated,
                "consumers": [{"username": "jack", "group_id": 5, "plugins": {"key-auth": {"key": "k"}}}],
                "consumer_groups": [{"id": 5, "plugins": pair}]
            }),
        ),
    ]
}

/// Whatever carries the plugin, its instances are probed, reported under the carrier's name, and
/// left out when they are dead.
#[test]
fn instances_are_checked_wherever_the_plugin_stands() {
    let (alive, dead) = (Upstream::named("alive"), Upstream::named("dead"));
    dead.set_healthy(false);
    let pair = plugins(&[
        checked("alive", alive.address, json!({})),
        checked("dead", dead.address, json!({})),
    ]);
    let gateway = Gateway::start("routes: []");
    for (owner, document) in carriers(&pair) {
        gateway.reload(&document.to_string());
        gateway.wait_for_status(dead.port(), "unhealthy");
        let headers = [("Content-Type", "application/json"), ("apikey", "k")];
        let before = (alive.hits(), dead.hits());
        for _ in 0..6 {
            let response = request(gateway.proxy, "POST", "/x", &headers, CHAT);
            assert_eq!(response.status, 200, "{owner}: {}", response.text());
        }
        let after = (alive.hits() - before.0, dead.hits() - before.1);
        assert_eq!(after, (6, 0), "{owner}");
        let names = [0, 1].map(|index| {
            let name = ["alive", "dead"][index];
            format!("{owner}#plugins['ai-proxy-multi'].instances[{index}] {name}")
        });
        assert_eq!(gateway.checked(), names);
        // Another document in between, so that each carrier starts without a verdict.
        gateway.reload("routes: []");
        assert_eq!(gateway.control("/v1/healthcheck").text(), "{}", "B-214");
    }
    // The line of the log says whose traffic the verdict decides about, and why.
    let lines = gateway
        .wait_for_lines("health verdict changed", 6)
        .join("\n");
    for part in [
        "/consumer_groups/5#plugins['ai-proxy-multi'].instances[1] (dead)",
        "Status(500)",
    ] {
        assert!(lines.contains(part), "{lines}");
    }
}

/// A peer that sends its status line byte by byte is a timeout, and its connection is closed.
#[test]
fn a_dripping_target_times_out() {
    let pause = Duration::from_millis(50);
    let drip = Upstream::probed(|_| Answer::chat("drip"), move |_| Answer::Drip(b'H', pause));
    let fine = Upstream::named("fine");
    let gateway = Gateway::start(&route(&[
        checked("drip", drip.address, json!({"timeout": 0.2})),
        checked("fine", fine.address, json!({})),
    ]));
    let node = gateway.wait_for_node("drip", |node| node["status"] == "unhealthy");
    assert_eq!(
        (
            counter(&node, "timeout_failure"),
            counter(&node, "tcp_failure")
        ),
        (1, 0),
        "{node}"
    );
    drip.wait_for_probes(3);
    assert_eq!(drip.most_open(), 1, "probes leave connections open");
}

/// A 200 with a body without end is a success: what follows the status line is not read, and the
/// connection is closed.
#[test]
fn an_endless_answer_is_over_with_its_status_line() {
    let endless = Upstream::probed(
        |_| Answer::chat("endless"),
        |_| Answer::Endless {
            event: "data: more".repeat(100),
            pause: Duration::ZERO,
        },
    );
    let gateway = Gateway::start(&route(&[checked("endless", endless.address, json!({}))]));
    endless.wait_for_probes(4);
    let node = gateway.wait_for_node("endless", |_| true);
    assert_eq!(node["status"], "healthy", "{node}");
    assert_eq!(counter(&node, "timeout_failure"), 0, "{node}");
    assert!(endless.most_open() <= 2, "probes leave connections open");
}

/// A connect that times out is a timeout, for every kind of probe, after one limit.
#[test]
fn connecting_in_vain_is_a_timeout() {
    let held = Held::start();
    let kinds = ["tcp", "http", "https"];
    let instances =
        kinds.map(|kind| checked(kind, held.address, json!({"type": kind, "timeout": 0.2})));
    let gateway = Gateway::start(&route(&instances));
    for kind in kinds {
        let node = gateway.wait_for_node(kind, |node| node["status"] == "unhealthy");
        let counted = (
            counter(&node, "timeout_failure"),
            counter(&node, "tcp_failure"),
        );
        assert_eq!(counted, (1, 0), "{kind}: {node}");
    }
}

/// What a failing probe counts as (4.3): each by its own kind and no other, whether connections are
/// kept or not.
#[test]
fn every_failure_is_counted_as_its_kind() {
    [false, true].into_iter().for_each(count_failures);
}

fn count_failures(reuse: bool) {
    let probed = |answer: Answer| Upstream::probed(|_| Answer::Close, move |_| answer.clone());
    let garbage = probed(Answer::Raw(b"SSH-2.0-x\r\n".to_vec()));
    let endless = probed(Answer::Raw(vec![b'x'; 9 << 10]));
    let (closing, silent) = (probed(Answer::Close), probed(Answer::Silence));
    let plain = Upstream::named("plain");
    let secure = SecureUpstream::start(200);
    let https = json!({"type": "https", "https_verify_certificate": false, "timeout": 0.3});
    let short = json!({"timeout": 0.2});
    let nobody = Upstream::nobody();
    let table = [
        ("tcp-refused", nobody, json!({"type": "tcp"}), "tcp_failure"),
        ("http-refused", nobody, json!({}), "tcp_failure"),
        ("https-refused", nobody, https.clone(), "tcp_failure"),
        ("not-http", garbage.address, json!({}), "http_failure"),
        ("no-line", endless.address, json!({}), "http_failure"),
        ("closing", closing.address, json!({}), "tcp_failure"),
        ("silent", silent.address, short, "timeout_failure"),
        (
            "unverified",
            secure.address,
            json!({"type": "https"}),
            "tcp_failure",
        ),
        ("not-tls", plain.address, https.clone(), "tcp_failure"),
        ("tls-silent", silent.address, https, "tcp_failure"),
    ];
    let instances = table.each_ref().map(|(name, address, active, _)| {
        let mut active = active.clone();
        active["reuse_connection"] = json!(reuse);
        checked(name, *address, active)
    });
    let gateway = Gateway::start(&route(&instances));
    for (name, _, active, expected) in &table {
        let node = gateway.wait_for_node(name, |node| node["status"] == "unhealthy");
        let all = ["http_failure", "tcp_failure", "timeout_failure"];
        let counted = all.into_iter().filter(|kind| counter(&node, kind) > 0);
        assert_eq!(counted.collect::<Vec<_>>(), [*expected], "{name}: {node}");
        let checkers = gateway.checkers();
        let checker = checkers.iter().find(|one| one["instance"] == *name);
        let kind = active["type"].as_str().unwrap_or("http");
        assert_eq!(checker.expect("listed")["type"], kind, "{name}");
    }
}

/// What is no failure: a success, and a status that is in neither list, whether connections are kept
/// or not.
#[test]
fn every_success_is_one() {
    [false, true].into_iter().for_each(count_successes);
}

fn count_successes(reuse: bool) {
    let plain = Upstream::named("plain");
    let odd = Upstream::probed(|_| Answer::Close, |_| Answer::text(418, ""));
    let secure = SecureUpstream::start(200);
    let https = json!({"type": "https", "https_verify_certificate": false});
    let table = [
        ("http", plain.address, json!({})),
        ("tcp", plain.address, json!({"type": "tcp"})),
        ("https", secure.address, https),
        ("odd", odd.address, json!({})),
        // Whatever it is that answers, a probe goes to the port configured.
        ("port", Upstream::nobody(), json!({"port": plain.port()})),
        (
            "listed",
            odd.address,
            json!({"healthy": {"successes": 1, "http_statuses": [418]}}),
        ),
    ];
    let instances = table.each_ref().map(|(name, address, active)| {
        let mut active = active.clone();
        active["reuse_connection"] = json!(reuse);
        checked(name, *address, active)
    });
    let gateway = Gateway::start(&route(&instances));
    plain.wait_for_probes(4);
    odd.wait_for_probes(4);
    secure.wait_for(|seen| !seen.is_empty());
    for (name, ..) in &table {
        let node = gateway.wait_for_node(name, |_| true);
        assert_eq!(node["status"], "healthy", "{name}: {node}");
    }
}

/// How options change the probe (1.6, 4.4).
#[test]
fn every_option_reaches_the_wire() {
    let plain = Upstream::named("plain");
    let secure = SecureUpstream::start(200);
    let elsewhere = json!({
        "port": plain.port(), "host": "foo.com", "http_method": "PUT", "http_path": "/status?a=b",
        "http_req_body": "h\u{e9}", "req_headers": ["X-A: 1", "X-B:2"]
    });
    let named = json!({
        "type": "https", "https_verify_certificate": false, "https_sni": "sni.example",
        "host": "host.example"
    });
    let unnamed = json!({"type": "https", "https_verify_certificate": false});
    let gateway = Gateway::start(&route(&[
        checked("elsewhere", Upstream::nobody(), elsewhere),
        checked("named", secure.address, named),
        checked("unnamed", secure.address, unnamed),
    ]));
    let probe = plain.wait_for_probes(1).remove(0);
    assert_eq!(
        (probe.method.as_str(), probe.target.as_str()),
        ("PUT", "/status?a=b")
    );
    assert_eq!(probe.text(), "h\u{e9}");
    for (name, value) in [
        ("host", "foo.com"),
        ("content-length", "3"),
        ("x-a", "1"),
        ("x-b", "2"),
        ("connection", "close"),
        ("authorization", "Bearer token"),
    ] {
        assert_eq!(probe.header(name), Some(value));
    }
    let node = gateway.wait_for_node("elsewhere", |_| true);
    assert_eq!(
        (&node["port"], &node["hostname"]),
        (&json!(plain.port()), &json!("foo.com"))
    );
    // An address sends no SNI; `Host` is the address unless something else is configured.
    secure.wait_for(|seen| {
        seen.contains(&(Some("sni.example".into()), "host.example".into()))
            && seen.contains(&(None, "127.0.0.1".into()))
    });
}

/// B-091: with the switch off nothing is probed and everything is used.
#[test]
fn switched_off_checks_do_nothing() {
    let (a, b) = (Upstream::named("a"), Upstream::named("b"));
    b.set_healthy(false);
    let watched = Upstream::named("watched");
    let pair = route(&[
        checked("a", a.address, json!({})),
        checked("b", b.address, json!({})),
    ]);
    let gateway = Gateway::start_with(Start {
        document: &pair,
        apisix: "  disable_upstream_healthcheck: true",
        ..Start::default()
    });
    // Another gateway shows that time enough for probes has passed.
    let other = Gateway::start(&route(&[checked("w", watched.address, json!({}))]));
    watched.wait_for_probes(2);
    for _ in 0..10 {
        assert_eq!(support::post_json(gateway.proxy, "/x", CHAT).status, 200);
    }
    assert_eq!((a.hits(), b.hits()), (5, 5));
    assert_eq!((a.probes().len(), b.probes().len()), (0, 0));
    assert_eq!(gateway.control("/v1/healthcheck").text(), "{}");
    drop(other);
}

/// What cannot be built is neither probed nor reported; what is wrong with checks is said with its
/// path and the resource is served all the same.
#[test]
fn what_is_not_built_is_not_probed() {
    let (a, b, kept) = (
        Upstream::named("a"),
        Upstream::named("b"),
        Upstream::named("kept"),
    );
    let mut pair = plugins(&[
        checked("a", a.address, json!({})),
        checked("b", b.address, json!({})),
    ]);
    // 160 points for each unit of weight: no ring is that large.
    pair["ai-proxy-multi"]["instances"][0]["weight"] = json!(4_000_000_001_u64);
    pair["ai-proxy-multi"]["balancer"] = json!({"algorithm": "chash", "key": "query_string"});
    let plain = |active: Value, passive: Value| json!({"nodes": {kept.address.to_string(): 1}, "checks": {"active": active, "passive": passive}});
    let document = json!({
        "routes": [
            {"id": 1, "uri": "/x", "plugins": pair},
            {"id": 2, "uri": "/y", "vars": [["a", "~~", "("]], "upstream": plain(json!({"http_path": "/health"}), json!({}))},
            {"id": 3, "uri": "/z", "upstream": plain(json!({"http_path": "/health", "healthy": {}}), json!({"healthy": {}}))},
            {"id": 4, "uri": "/none", "upstream": {"nodes": {}, "checks": {"active": {"type": "tcp"}}}},
        ]
    });
    let gateway = Gateway::start(&document.to_string());
    kept.wait_for_probes(2);
    assert_eq!((a.probes().len(), b.probes().len()), (0, 0));
    assert_eq!(gateway.checked(), ["/routes/3", "/routes/4"]);
    let empty = gateway.control("/v1/healthcheck/routes/4").json();
    assert_eq!(
        empty,
        json!({"name": "/routes/4", "type": "tcp", "nodes": {}})
    );
    assert_eq!(support::get(gateway.proxy, "/z", &[]).status, 200);
    for part in [
        "routes[2] (id 3) upstream.checks.active.unhealthy: `unhealthy` is missing",
        "routes[0] (id 1)",
        "routes[1] (id 2)",
    ] {
        gateway.wait_for_line(part);
    }
}
