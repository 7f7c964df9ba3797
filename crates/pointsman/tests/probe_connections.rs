//! Probes that keep their connection (`checks.active.reuse_connection`, our addition): what it saves,
//! and that no verdict is another for it.

mod support;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use support::{Answer, Gateway, Received, SecureUpstream, Upstream, wait_until};

/// An instance whose probes ask for `path` and decide at once.
fn instance(name: &str, address: SocketAddr, path: &str, reuse: bool) -> Value {
    json!({
        "name": name, "provider": "openai-compatible", "weight": 1,
        "auth": {"header": {"Authorization": "Bearer token"}},
        "override": {"endpoint": format!("http://{address}")},
        "checks": {"active": {
            "http_path": path, "reuse_connection": reuse,
            "healthy": {"interval": 1, "successes": 1},
            "unhealthy": {"interval": 1, "http_failures": 1, "tcp_failures": 1, "timeouts": 1}
        }}
    })
}

fn route(instances: &[Value]) -> String {
    let plugins = json!({"ai-proxy-multi": {"instances": instances}});
    json!({"routes": [{"id": 1, "uri": "/*", "plugins": plugins}]}).to_string()
}

/// A gateway with one instance that keeps its connections.
fn gateway_of(address: SocketAddr) -> Gateway {
    Gateway::start(&route(&[instance("kept", address, "/health", true)]))
}

/// The probes for `path`, by connection, as they came.
fn by_connection(probes: &[Received], path: &str) -> BTreeMap<usize, Vec<Received>> {
    let mut all: BTreeMap<usize, Vec<Received>> = BTreeMap::new();
    for probe in probes.iter().filter(|probe| probe.target == path) {
        all.entry(probe.connection).or_default().push(probe.clone());
    }
    all
}

fn failures(node: &Value) -> u64 {
    let kinds = ["http_failure", "tcp_failure", "timeout_failure"];
    let counted = kinds.map(|kind| node["counter"][kind].as_u64().unwrap_or_default());
    counted.iter().sum()
}

/// Answers the first request of each connection, and the others with `next`.
fn once(next: Answer) -> Upstream {
    let seen = std::sync::Mutex::new(std::collections::BTreeSet::new());
    Upstream::probed(
        |_| Answer::Close,
        move |probe| match seen.lock().expect("not poisoned").insert(probe.connection) {
            true => Answer::text(200, "fine"),
            false => next.clone(),
        },
    )
}

/// Ten probes at most go over one connection, and the last says that it is; without the option each
/// has its own, as in APISIX. How many connections there are is not fixed: a stalled machine may cost
/// one before its time.
#[test]
fn a_connection_serves_ten_probes_and_no_more() {
    let target = Upstream::named("target");
    let gateway = Gateway::start(&route(&[
        instance("kept", target.address, "/health?kept", true),
        instance("usual", target.address, "/health?usual", false),
    ]));
    let of = |path: &str| by_connection(&target.probes(), path);
    let says_last = |probe: &Received| probe.header("connection") == Some("close");
    let kept = wait_until("a connection to be used up, and the next", || {
        let kept = of("/health?kept");
        let used_up = kept.iter().find(|(_, probes)| probes.iter().any(says_last));
        let has_next = used_up.is_some_and(|(at, _)| kept.keys().any(|one| one > at));
        has_next.then_some(kept)
    });
    for (connection, probes) in &kept {
        let last = probes.iter().position(says_last);
        // A target's place in the order of targets takes up to nine from ten, so that they do not
        // renew their connections together: here there are two.
        let is_used_up = last.is_none_or(|at| at + 1 == probes.len() && at >= 8);
        assert!(probes.len() <= 10 && is_used_up, "{connection}: {probes:?}");
    }
    let usual = wait_until("twelve probes of the other", || {
        let usual = of("/health?usual");
        let asked: usize = usual.values().map(Vec::len).sum();
        (asked >= 12).then_some(usual)
    });
    assert!(usual.values().all(|probes| probes.len() == 1), "{usual:?}");
    gateway.wait_for_node("kept", |node| node["status"] == "healthy");
}

/// A peer that closes a connection while it is idle, or takes a request and closes without a byte of
/// an answer, has not failed: the probe is made anew, within the same second.
#[test]
fn a_connection_that_ends_before_an_answer_says_nothing() {
    let fine = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let idle = Upstream::probed(|_| Answer::Close, |_| Answer::Raw(fine.to_vec()));
    let asked = once(Answer::Close);
    let gateway = Gateway::start(&route(&[
        instance("idle", idle.address, "/health", true),
        instance("asked", asked.address, "/health", true),
    ]));
    idle.wait_for_probes(4);
    let probes = asked.wait_for_probes(7);
    let by_connection = by_connection(&probes, "/health");
    assert!(
        by_connection.values().any(|probes| probes.len() == 2),
        "none was asked again"
    );
    for name in ["idle", "asked"] {
        let node = gateway.wait_for_node(name, |_| true);
        assert_eq!(
            (&node["status"], failures(&node)),
            (&json!("healthy"), 0),
            "{name}: {node}"
        );
    }
    // Not for a moment: the next probe, on a new connection, would have made up for it.
    let log = gateway.stderr();
    assert!(!log.contains("health verdict changed"), "{log}");
}

/// What does count on a kept connection: an answer that breaks off, silence, a bad status.
#[test]
fn a_failure_on_a_kept_connection_is_one() {
    let table = [
        ("broken", Answer::Raw(b"HTTP/1.1 2".to_vec()), "tcp_failure"),
        ("silent", Answer::Silence, "timeout_failure"),
        ("failing", Answer::text(500, ""), "http_failure"),
        (
            "other",
            Answer::Raw(b"SSH-2.0-x\r\n".to_vec()),
            "http_failure",
        ),
    ];
    for (name, answer, kind) in table {
        let target = once(answer);
        let gateway = gateway_of(target.address);
        let node = gateway.wait_for_node("kept", |node| node["status"] == "unhealthy");
        assert_eq!(node["counter"][kind], 1, "{name}: {node}");
        let probes = target.probes();
        assert_eq!(probes[0].connection, probes[1].connection, "{name}");
    }
}

/// A target that is down is asked on a new connection each time, also for its recovery.
#[test]
fn a_recovery_is_proven_by_a_new_connection() {
    let target = Upstream::named("target");
    let gateway = gateway_of(target.address);
    target.wait_for_probes(3);
    target.set_healthy(false);
    gateway.wait_for_node("kept", |node| node["status"] == "unhealthy");
    let down = target.probes().len();
    target.wait_for_probes(down + 2);
    target.set_healthy(true);
    gateway.wait_for_node("kept", |node| node["status"] == "healthy");
    let probes = target.probes();
    // The last that found it up before, and all from the one that found it down.
    let connections: Vec<usize> = probes[down - 1..]
        .iter()
        .map(|probe| probe.connection)
        .collect();
    let is_new = connections
        .windows(2)
        .take(3)
        .all(|pair| pair[0] != pair[1]);
    assert!(is_new && connections.len() >= 4, "{connections:?}");
}

/// Connections of targets that are not probed any more are closed, and so are those of targets that
/// are asked something else.
#[test]
fn connections_go_with_their_targets() {
    let target = Upstream::named("target");
    let gateway = gateway_of(target.address);
    target.wait_for_probes(2);
    gateway.reload(&route(&[instance(
        "kept",
        target.address,
        "/health?other",
        true,
    )]));
    let others = wait_until("the other probe", || {
        let others = by_connection(&target.probes(), "/health?other");
        (!others.is_empty()).then_some(others)
    });
    let before = by_connection(&target.probes(), "/health");
    assert!(
        others.keys().all(|one| !before.contains_key(one)),
        "asked on the old connection"
    );
    gateway.reload("routes: []");
    wait_until("no connection to be left", || {
        (target.open() == 0).then_some(())
    });
}

/// An answer whose end is not in sight is a success as ever, and leaves no connection behind.
#[test]
fn an_answer_without_an_end_keeps_no_connection() {
    let endless = Upstream::probed(
        |_| Answer::Close,
        |_| Answer::Endless {
            event: "data: more".repeat(100),
            pause: Duration::ZERO,
        },
    );
    let gateway = gateway_of(endless.address);
    let probes = endless.wait_for_probes(4);
    let node = gateway.wait_for_node("kept", |_| true);
    assert_eq!(
        (&node["status"], failures(&node)),
        (&json!("healthy"), 0),
        "{node}"
    );
    assert_eq!(by_connection(&probes, "/health").len(), probes.len());
    wait_until("all but the newest to be closed", || {
        (endless.open() <= 1).then_some(())
    });
}

/// Probes of plain nodes keep their connections, too, and what they find out there counts: on new ones
/// this node is always well.
#[test]
fn a_connection_of_a_plain_node_is_kept() {
    let target = once(Answer::text(500, ""));
    let checks = instance("", target.address, "/health", true)["checks"].take();
    let nodes = json!({(target.address.to_string()): 1});
    let upstream = json!({"nodes": nodes, "checks": checks});
    let routes = json!({"routes": [{"id": 1, "uri": "/*", "upstream": upstream}]});
    let gateway = Gateway::start(&routes.to_string());
    for expected in ["unhealthy", "healthy"] {
        wait_until(expected, || {
            let checkers = gateway.checkers();
            (checkers.first()?["nodes"][0]["status"] == expected).then_some(())
        });
    }
}

/// The same over TLS: otherwise there would be a connection for each answer.
#[test]
fn a_connection_over_tls_is_kept() {
    let target = SecureUpstream::keeping();
    let mut kept = instance("kept", target.address, "/health", true);
    kept["checks"]["active"]["type"] = json!("https");
    kept["checks"]["active"]["https_verify_certificate"] = json!(false);
    let gateway = Gateway::start(&route(&[kept]));
    wait_until("three probes that needed no connection", || {
        // In this order: a connection is there before its first answer.
        let answered = target.answered();
        (answered >= target.connections() + 3).then_some(())
    });
    gateway.wait_for_node("kept", |node| node["status"] == "healthy");
}
