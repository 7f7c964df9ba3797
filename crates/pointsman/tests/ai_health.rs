//! Health truth: no request goes to an instance known to be unhealthy while a usable one exists.

mod support;

use support::{CHAT, Gateway, Start, Upstream, instance, multi, post_json};

const CHECKS: &str = ", checks: {active: {type: http, http_path: /health, healthy: {interval: 1, \
                      successes: 1}, unhealthy: {interval: 1, http_failures: 1, tcp_failures: 1, timeouts: 1}}}";

fn send(gateway: &Gateway, count: usize) {
    for _ in 0..count {
        assert_eq!(post_json(gateway.proxy, "/x", CHAT).status, 200);
    }
}

/// B-090, B-093, B-092: traffic follows the verdicts, and comes back.
#[test]
fn traffic_follows_the_verdicts() {
    let (a, b) = (Upstream::named("a"), Upstream::named("b"));
    b.set_healthy(false);
    let pair = [
        instance("a", a.address, CHECKS),
        instance("b", b.address, CHECKS),
    ];
    let gateway = Gateway::start(&multi(&pair, ""));
    gateway.wait_for_status(b.port(), "unhealthy");
    let before = b.hits();
    send(&gateway, 10);
    assert_eq!((a.hits() >= 10, b.hits()), (true, before));
    b.set_healthy(true);
    gateway.wait_for_status(b.port(), "healthy");
    let before = (a.hits(), b.hits());
    send(&gateway, 10);
    assert_eq!((a.hits() - before.0, b.hits() - before.1), (5, 5));
    a.set_healthy(false);
    gateway.wait_for_status(a.port(), "unhealthy");
    let before = a.hits();
    send(&gateway, 10);
    assert_eq!(a.hits(), before);
    let lines = gateway.wait_for_lines("health verdict changed", 3);
    assert!(lines[0].contains(&b.address.to_string()), "{lines:?}");
}

/// The production sequence of the defect this product excludes (B-103): the verdict is known
/// before a worker serves its first request, and no worker sends a single request to the dead
/// instance; reloads that keep, reorder or rename around it change nothing (I-1 to I-4, I-9).
#[test]
fn no_worker_ever_uses_an_instance_known_to_be_dead() {
    let (alive, dead) = (Upstream::named("alive"), Upstream::named("dead"));
    dead.set_healthy(false);
    let pair = [
        instance("alive", alive.address, CHECKS),
        instance("dead", dead.address, CHECKS),
    ];
    let document = multi(&pair, "");
    let gateway = Gateway::start_with(Start {
        document: &document,
        workers: 4,
        ..Start::default()
    });
    // Nobody has sent a request; probes have started all the same.
    gateway.wait_for_status(dead.port(), "unhealthy");
    // Many connections, so that every worker gets some and serves its first request now.
    send(&gateway, 64);
    assert_eq!((alive.hits(), dead.hits()), (64, 0));
    let reversed: Vec<String> = pair.iter().rev().cloned().collect();
    let more = Upstream::named("more");
    let grown = [
        pair[1].clone(),
        instance("new", more.address, ""),
        pair[0].clone(),
    ];
    for next in [
        multi(&reversed, ""),
        multi(&grown, ""),
        multi(&pair, "        timeout: 5000\n"),
    ] {
        gateway.reload(&next);
        send(&gateway, 32);
        assert_eq!(dead.hits(), 0);
    }
    let chash = "        balancer: {algorithm: chash, hash_on: vars, key: query_string}\n";
    gateway.reload(&multi(&pair, chash));
    for index in 0..32 {
        assert_eq!(
            post_json(gateway.proxy, &format!("/x?{index}"), CHAT).status,
            200
        );
    }
    assert_eq!(dead.hits(), 0);
}

/// I-3: when everything is down, everything is used; 3.9.
#[test]
fn when_nothing_is_usable_everything_is_tried() {
    let (a, b) = (Upstream::named("a"), Upstream::named("b"));
    a.set_healthy(false);
    b.set_healthy(false);
    let pair = [
        instance("a", a.address, CHECKS),
        instance("b", b.address, CHECKS),
    ];
    let gateway = Gateway::start(&multi(&pair, ""));
    gateway.wait_for_status(a.port(), "unhealthy");
    gateway.wait_for_status(b.port(), "unhealthy");
    send(&gateway, 4);
    assert_eq!((a.hits(), b.hits()), (2, 2));
    // D-6: a lone instance is probed and reported, and used whatever is known of it.
    gateway.reload(&multi(&pair[..1], ""));
    gateway.wait_for_status(a.port(), "unhealthy");
    send(&gateway, 2);
    assert_eq!(a.hits(), 4);
}

/// A retry reads the newest verdicts too: it never goes to a known-dead instance.
#[test]
fn a_retry_passes_a_dead_instance_over() {
    let (failing, dead, fine) = (
        Upstream::failing(500),
        Upstream::named("dead"),
        Upstream::named("fine"),
    );
    dead.set_healthy(false);
    let instances = [
        instance("failing", failing.address, ", priority: 2"),
        instance("dead", dead.address, &format!(", priority: 1{CHECKS}")),
        instance("fine", fine.address, ""),
    ];
    let gateway = Gateway::start(&multi(&instances, "        fallback_strategy: http_5xx\n"));
    gateway.wait_for_status(dead.port(), "unhealthy");
    send(&gateway, 5);
    assert_eq!((failing.hits(), dead.hits(), fine.hits()), (5, 0, 5));
}

/// B-096, B-097, B-098: what a probe looks like.
#[test]
fn probes_carry_the_instances_credentials() {
    let upstream = Upstream::named("a");
    let checks = ", checks: {active: {http_method: POST, http_path: \"/status?probe=ready\", \
                  http_req_body: \"hello\", req_headers: [\"X-Probe: yes\"]}}";
    let probed = instance("a", upstream.address, checks)
        .replace("Bearer token}", "Bearer token}, query: {api_key: secret}");
    let gateway = Gateway::start(&multi(&[probed], ""));
    let probes = upstream.wait_for_probes(2);
    for probe in probes {
        assert_eq!(
            (probe.method.as_str(), probe.target.as_str()),
            ("POST", "/status?probe=ready&api_key=secret")
        );
        assert_eq!(probe.header("authorization"), Some("Bearer token"));
        assert_eq!(
            (probe.header("x-probe"), probe.header("content-length")),
            (Some("yes"), Some("5"))
        );
        assert_eq!(
            (probe.header("host"), probe.text().as_str()),
            (Some("127.0.0.1"), "hello")
        );
        assert_eq!(
            probe
                .headers
                .iter()
                .filter(|(name, _)| name.eq_ignore_ascii_case("authorization"))
                .count(),
            1
        );
    }
    assert!(
        !gateway.stderr().contains("secret"),
        "a credential is in the log"
    );
    assert!(
        !gateway.stderr().contains("Bearer token"),
        "a credential is in the log"
    );
}

/// B-091, B-105
#[test]
fn probes_stop_with_their_reason() {
    let (a, b) = (Upstream::named("a"), Upstream::named("b"));
    let pair = [
        instance("a", a.address, CHECKS),
        instance("b", b.address, CHECKS),
    ];
    let gateway = Gateway::start(&multi(&pair, ""));
    a.wait_for_probes(1);
    b.wait_for_probes(1);
    gateway.reload(&multi(&pair[1..], ""));
    let stopped = a.probes().len();
    let more = b.probes().len() + 3;
    b.wait_for_probes(more);
    // One that was on its way when the configuration changed may still have arrived.
    assert!(
        a.probes().len() <= stopped + 1,
        "{} probes after removal",
        a.probes().len() - stopped
    );
    let off = Gateway::start_with(Start {
        document: &multi(&pair, ""),
        apisix: "  disable_upstream_healthcheck: true",
        ..Start::default()
    });
    assert_eq!(off.control("/v1/healthcheck").text(), "{}");
}

/// B-210 to B-216, D-5: the report.
#[test]
fn the_report_names_instances() {
    let (a, b) = (Upstream::named("a"), Upstream::nobody());
    let pair = [instance("a", a.address, CHECKS), instance("b", b, CHECKS)];
    let document = format!(
        "{}  - {{id: 2, uri: /plain, upstream: {{nodes: {{\"127.0.0.1:1\": 1}}}}}}\n",
        multi(&pair, "")
    );
    let gateway = Gateway::start(&document);
    gateway.wait_for_status(b.port(), "unhealthy");
    let report = gateway.control("/v1/healthcheck").json();
    assert_eq!(
        report[1]["name"],
        "/routes/1#plugins['ai-proxy-multi'].instances[1]"
    );
    assert_eq!(
        (&report[1]["instance"], &report[1]["type"]),
        (&"b".into(), &"http".into())
    );
    let node = &report[1]["nodes"][0];
    assert_eq!(
        (node["ip"].as_str(), node["port"].as_u64()),
        (Some("127.0.0.1"), Some(u64::from(b.port())))
    );
    assert_eq!(
        (
            node["status"].as_str(),
            node["counter"]["tcp_failure"].as_u64()
        ),
        (Some("unhealthy"), Some(1))
    );
    let html = support::get(
        gateway.address("control"),
        "/v1/healthcheck",
        &[("Accept", "text/html")],
    );
    assert_eq!(html.header("content-type"), Some("text/html"));
    assert!(
        html.text()
            .contains(&format!("<td>{b}</td><td>unhealthy</td>")),
        "{}",
        html.text()
    );
    for (path, status, message) in [
        ("/v1/healthcheck/routes/9", 404, "routes[9] not found"),
        ("/v1/healthcheck/route/1", 400, "invalid src type route"),
        (
            "/v1/healthcheck/routes",
            404,
            "missing src id for src type routes",
        ),
        ("/v1/healthcheck/routes/2", 404, "no checker for routes[2]"),
    ] {
        let response = gateway.control(path);
        assert_eq!(
            (response.status, response.json()["error_msg"].as_str()),
            (status, Some(message)),
            "{path}"
        );
    }
    let port = format!("port=\"{}\"", b.port());
    let value = gateway.metric(&["apisix_upstream_status{", &port]);
    assert!((value - 0.0).abs() < f64::EPSILON);
}
