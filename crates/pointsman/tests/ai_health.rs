//! Health truth: no request goes to an instance known to be unhealthy while a usable one exists.

mod support;

use std::sync::Arc;

use support::{CHAT, Gateway, Start, Upstream, instance, multi, post_json};

const CHECKS: &str = ", checks: {active: {type: http, http_path: /health, healthy: {interval: 1, \
                      successes: 1}, unhealthy: {interval: 1, http_failures: 1, tcp_failures: 1, timeouts: 1}}}";

fn send(gateway: &Gateway, count: usize) {
    for _ in 0..count {
        assert_eq!(post_json(gateway.proxy, "/x", CHAT).status, 200);
    }
}

/// B-090, B-093: traffic follows the verdicts, and comes back.
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

/// Three failures in a row make an instance unhealthy, and then it is not probed again for half a
/// minute: what is known of it afterwards was carried, not found out anew.
const SLOW_CHECKS: &str = ", checks: {active: {type: http, http_path: /health, healthy: {interval: 1, \
                           successes: 1}, unhealthy: {interval: 30, http_failures: 3}}}";

/// The production sequence of the defect this product excludes (B-103): the verdict is known
/// before a worker serves its first request, and no worker sends a single request to the dead
/// instance; whatever a reload changes around it, the verdict goes along (I-1 to I-4, I-9, I-10).
#[test]
fn no_worker_ever_uses_an_instance_known_to_be_dead() {
    let (alive, dead) = (Upstream::named("alive"), Upstream::named("dead"));
    dead.set_healthy(false);
    let pair = [
        instance("alive", alive.address, SLOW_CHECKS),
        instance("dead", dead.address, SLOW_CHECKS),
    ];
    let gateway = Gateway::start_with(Start {
        document: &multi(&pair, ""),
        workers: WORKERS,
        ..Start::default()
    });
    // Nobody has sent a request; probes have started all the same.
    gateway.wait_for_status(dead.port(), "unhealthy");
    until_all_workers_served(&gateway, &[&alive]);
    assert_eq!(dead.hits(), 0);
    changes_never_revive(&gateway, &alive, &dead);
}

/// The same with workers that have used the instance before it died.
#[test]
fn no_worker_goes_on_using_an_instance_that_died() {
    let (alive, dead) = (Upstream::named("alive"), Upstream::named("dead"));
    let pair = [
        instance("alive", alive.address, SLOW_CHECKS),
        instance("dead", dead.address, SLOW_CHECKS),
    ];
    let gateway = Gateway::start_with(Start {
        document: &multi(&pair, ""),
        workers: WORKERS,
        ..Start::default()
    });
    until_all_workers_served(&gateway, &[&alive, &dead]);
    dead.set_healthy(false);
    // Each probe that fails while requests go on; none of them after the verdict.
    gateway.wait_for_status(dead.port(), "unhealthy");
    let before = dead.hits();
    send(&gateway, 64);
    assert_eq!(dead.hits(), before);
    changes_never_revive(&gateway, &alive, &dead);
}

const WORKERS: usize = 4;

/// Sends requests until every worker has had some that went to each of `upstreams`. A worker keeps
/// one connection to an upstream, since nothing is sent at the same time.
fn until_all_workers_served(gateway: &Gateway, upstreams: &[&Upstream]) {
    support::wait_until("all workers to serve", || {
        send(gateway, 16);
        let all = upstreams
            .iter()
            .all(|upstream| upstream.traffic_connections() >= WORKERS);
        all.then_some(())
    });
    for upstream in upstreams {
        assert_eq!(upstream.traffic_connections(), WORKERS);
    }
}

/// Reloads with everything that may change around a dead instance, under load.
fn changes_never_revive(gateway: &Gateway, alive: &Upstream, dead: &Upstream) {
    let third = Upstream::named("third");
    let under_way = Arc::new(());
    let before = dead.hits();
    std::thread::scope(|scope| {
        // Goes with the scope, however that ends, and the load with it.
        let held = under_way;
        for _ in 0..2 {
            let load = Arc::downgrade(&held);
            scope.spawn(move || {
                while load.strong_count() > 0 {
                    send(gateway, 1);
                }
            });
        }
        for (change, document) in &changes(alive, dead, &third) {
            gateway.reload(document);
            send(gateway, 16);
            assert_eq!(dead.hits(), before, "a change of {change} revived it");
            gateway.wait_for_status(dead.port(), "unhealthy");
        }
        drop(held);
    });
}

fn changes(alive: &Upstream, dead: &Upstream, third: &Upstream) -> Vec<(&'static str, String)> {
    let alive_one = instance("alive", alive.address, SLOW_CHECKS);
    let dead_one = instance("dead", dead.address, SLOW_CHECKS);
    let renamed = instance("gone", alive.address, SLOW_CHECKS);
    let new = instance("new", third.address, SLOW_CHECKS);
    let another_body = SLOW_CHECKS.replace("http_path", "http_req_body: x, http_path");
    let three = multi(&[dead_one.clone(), new, alive_one.clone()], "");
    let with = |dead: String| multi(&[alive_one.clone(), dead], "");
    let chash = "        balancer: {algorithm: chash, hash_on: vars, key: remote_port}\n";
    vec![
        ("order", multi(&[dead_one.clone(), alive_one.clone()], "")),
        ("growth", three.clone()),
        ("a name beside it", multi(&[renamed, dead_one.clone()], "")),
        ("a setting", format!("{three}        timeout: 5000\n")),
        // An equal probe is the same target, whoever asks for it.
        (
            "its own name",
            with(dead_one.replace("name: dead", "name: dead2")),
        ),
        ("its path", with(dead_one.replace("\"}", "/v2\"}"))),
        ("the route's id", three.replace("id: 1\n", "id: 7\n")),
        (
            "weight and priority",
            with(dead_one.replace("weight: 1", "weight: 9, priority: 5")),
        ),
        ("credentials", with(dead_one.replace("token", "other"))),
        (
            "its probe",
            with(instance("dead", dead.address, &another_body)),
        ),
        (
            "the algorithm",
            format!("{}{chash}", with(dead_one.clone())),
        ),
    ]
}

/// B-092, B-094: only one of two is checked; on a route and on a service.
#[test]
fn an_unchecked_instance_takes_over() {
    let (a, b) = (Upstream::named("a"), Upstream::named("b"));
    let pair = [
        instance("a", a.address, CHECKS),
        instance("b", b.address, ""),
    ];
    let on_route = multi(&pair, "");
    let on_service = on_route.replace(
        "routes:\n  - id: 1\n    uri: /*\n",
        "services:\n  - id: 1\n",
    ) + "routes: [{id: 1, uri: /*, service_id: 1}]\n";
    let gateway = Gateway::start("routes: []");
    for document in [on_route, on_service] {
        a.set_healthy(false);
        gateway.reload(&document);
        gateway.wait_for_status(a.port(), "unhealthy");
        let before = (a.hits(), b.hits());
        send(&gateway, 10);
        assert_eq!((a.hits() - before.0, b.hits() - before.1), (0, 10));
        a.set_healthy(true);
        gateway.wait_for_status(a.port(), "healthy");
        let before = (a.hits(), b.hits());
        send(&gateway, 10);
        assert_eq!((a.hits() - before.0, b.hits() - before.1), (5, 5));
    }
}

/// B-095 as far as it goes without the public host: checks without an endpoint are those of the
/// provider's own address.
#[test]
fn checks_without_an_endpoint_go_to_the_provider() {
    let lone = "{name: a, provider: openai, weight: 1, auth: {}, checks: {active: {type: tcp}}}";
    let gateway = Gateway::start(&multi(&[lone.to_owned()], ""));
    let node = gateway.wait_for_node("a", |_| true);
    assert_eq!(
        (&node["ip"], &node["port"]),
        (&"api.openai.com".into(), &443.into())
    );
}

/// B-062: a session stays with its instance unless that falls, and then goes to its successor.
#[test]
fn sessions_stay_unless_their_instance_falls() {
    let [a, b, c] =
        ["a", "b", "c"].map(|name| Upstream::start(move |_| support::Answer::chat(name)));
    let three =
        [("gpu-a", &a, 3), ("gpu-b", &b, 6), ("gpu-c", &c, 10)].map(|(name, upstream, weight)| {
            instance(name, upstream.address, CHECKS)
                .replace("weight: 1", &format!("weight: {weight}"))
        });
    let balancer = "        balancer: {algorithm: chash, hash_on: header, key: X-Sessionid}\n";
    let gateway = Gateway::start(&multi(&three, balancer));
    let owners = || -> Vec<String> {
        (1..=120)
            .map(|number| {
                let session = format!("session-{number}");
                let headers = [
                    ("Content-Type", "application/json"),
                    ("x-sessionid", session.as_str()),
                ];
                let response = support::request(gateway.proxy, "POST", "/x", &headers, CHAT);
                response.json()["model"]
                    .as_str()
                    .expect("a name")
                    .to_owned()
            })
            .collect()
    };
    let before = owners();
    assert_eq!(before[..12].concat(), "bbbabbcbbccc");
    let share = |name: &str| before.iter().filter(|owner| *owner == name).count();
    assert_eq!((share("a"), share("b"), share("c")), (20, 45, 55));
    a.set_healthy(false);
    gateway.wait_for_status(a.port(), "unhealthy");
    for (before, after) in before.iter().zip(owners()) {
        assert_ne!(after, "a");
        assert!(before == "a" || *before == after);
    }
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

/// B-105
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
}

/// B-211, B-215, B-216, D-5: the report.
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

/// I-30: who is passed over because of health uses up no retry: with one retry allowed, the second of
/// two usable instances is reached, whoever is down before them.
#[test]
fn i30_skips_use_up_no_retries() {
    let (down, dead) = (Upstream::named("down"), Upstream::named("dead"));
    down.set_healthy(false);
    dead.set_healthy(false);
    let (failing, last) = (Upstream::failing(500), Upstream::named("last"));
    let at = |name: &str, upstream: &Upstream, priority: i32| {
        let more = format!(", priority: {priority}{CHECKS}");
        instance(name, upstream.address, &more)
    };
    let all = [
        at("down", &down, 4),
        at("dead", &dead, 3),
        at("failing", &failing, 2),
        at("last", &last, 1),
    ];
    let more = "        fallback_strategy: [http_5xx]\n        max_retries: 1\n";
    let gateway = Gateway::start(&multi(&all, more));
    gateway.wait_for_status(down.port(), "unhealthy");
    gateway.wait_for_status(dead.port(), "unhealthy");
    send(&gateway, 3);
    let hits = [&down, &dead, &failing, &last].map(Upstream::hits);
    assert_eq!(hits, [0, 0, 3, 3]);
}
