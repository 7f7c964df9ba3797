//! Verdicts that come while a connection is being made.

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use support::{
    CHAT, Gateway, Upstream, chat, flow_route, instance, post_json, secure::SecureUpstream,
};

/// What becomes known while a connection is being made counts: nothing is sent to a target that fell
/// meanwhile.
#[test]
fn a_verdict_that_comes_while_connecting_is_obeyed() {
    let released = Arc::new(AtomicBool::new(false));
    let (slow, health) = (SecureUpstream::held(&released), Upstream::named("health"));
    let fast = Upstream::named("fast");
    let pair = [
        behind_tls(&slow, &health),
        instance("fast", fast.address, ""),
    ];
    let gateway = Gateway::start(&flow_route(&pair, ", ssl_verify: false"));
    health.wait_for_probes(1);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| chat(&gateway));
        support::wait_until("the connection", || (slow.open() > 0).then_some(()));
        health.set_healthy(false);
        gateway.wait_for_status(health.port(), "unhealthy");
        released.store(true, Ordering::SeqCst);
        assert_eq!(waiting.join().expect("answered"), 200);
    });
    assert_eq!((fast.hits(), slow.seen().len()), (1, 0));
    let line = gateway.access_log(1).remove(0);
    assert_eq!(line["status"], 200, "{line}");
    gateway.wait_until_idle();

    // The connection was not in vain: it is used once the target is back.
    health.set_healthy(true);
    gateway.wait_for_status(health.port(), "healthy");
    assert_eq!((chat(&gateway), slow.open()), (200, 1));
}

/// An instance that speaks TLS, is judged by another server, and goes before others.
fn behind_tls(upstream: &SecureUpstream, health: &Upstream) -> String {
    let checks = format!(
        ", priority: 1, checks: {{active: {{type: http, http_path: /health, port: {}, healthy: {{interval: 1, successes: 1}}, unhealthy: {{interval: 1, http_failures: 1}}}}}}",
        health.port()
    );
    instance("slow", upstream.address, &checks).replace("http://", "https://")
}

/// The same where nobody else is there, and nobody is to be asked then.
#[test]
fn nobody_is_asked_when_the_last_one_falls_while_connecting() {
    let released = Arc::new(AtomicBool::new(false));
    let (slow, health) = (SecureUpstream::held(&released), Upstream::named("health"));
    let more = ", ssl_verify: false, on_all_unhealthy: reject";
    let gateway = Gateway::start(&flow_route(&[behind_tls(&slow, &health)], more));
    health.wait_for_probes(1);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| chat(&gateway));
        support::wait_until("the connection", || (slow.open() > 0).then_some(()));
        health.set_healthy(false);
        gateway.wait_for_status(health.port(), "unhealthy");
        released.store(true, Ordering::SeqCst);
        assert_eq!(waiting.join().expect("answered"), 503);
    });
    assert_eq!(slow.seen().len(), 0);
    // Nobody was asked, and neither the log nor the metrics say that anybody was.
    let line = gateway.access_log(1).remove(0);
    for name in ["balancer_ip", "llm_model", "upstream"] {
        assert_eq!(line.get(name), None, "{line}");
    }
    let metrics = gateway.metrics();
    let counted = metrics
        .lines()
        .find(|line| line.starts_with("apisix_http_status{") && line.contains("code=\"503\""));
    let counted = counted.expect("the request is counted");
    assert!(counted.contains("node=\"\""), "{counted}");
}

/// What was asked before stays what the log tells of, if nobody was asked after it.
#[test]
fn an_attempt_that_never_was_leaves_the_one_before_in_the_log() {
    let released = Arc::new(AtomicBool::new(false));
    let (slow, health) = (SecureUpstream::held(&released), Upstream::named("health"));
    let first = Upstream::failing(500);
    let pair = [
        instance(
            "first",
            first.address,
            ", priority: 9, options: {model: one}",
        ),
        behind_tls(&slow, &health),
    ];
    let more = ", ssl_verify: false, fallback_strategy: [http_5xx]";
    let gateway = Gateway::start(&flow_route(&pair, more));
    health.wait_for_probes(1);
    let answer = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| post_json(gateway.proxy, "/x", CHAT));
        support::wait_until("the connection", || (slow.open() > 0).then_some(()));
        health.set_healthy(false);
        gateway.wait_for_status(health.port(), "unhealthy");
        released.store(true, Ordering::SeqCst);
        waiting.join().expect("answered")
    });
    assert_eq!((answer.status, slow.seen().len()), (502, 0));
    let line = gateway.access_log(1).remove(0);
    assert_eq!(line["balancer_ip"], "first", "{line}");
    assert_eq!(line["llm_model"], "one", "{line}");
    gateway.wait_until_idle();
}
