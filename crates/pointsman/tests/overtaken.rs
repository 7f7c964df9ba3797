//! Verdicts that come between a pick and its dispatch: while a connection is being made, mostly. What is known
//! then counts, on every path on which anything is sent.

mod support;
mod overtaken {
    mod plain;
    mod semantic;
    mod sessions;
}

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use serde_json::Value;
use support::{
    Answer, CHAT, Gateway, Held, Upstream, chat, flow_route, instance, post_json,
    secure::SecureUpstream, wait_until,
};

/// Has `ask` wait for a connection to `held`, whose target falls meanwhile and is open to all then; what came
/// of it.
fn overtake<R: Send>(
    gateway: &Gateway,
    held: Held,
    judge: &Upstream,
    ask: impl FnOnce() -> R + Send,
) -> (R, Upstream) {
    std::thread::scope(|scope| {
        let waiting = scope.spawn(ask);
        held.wait_for_caller();
        fall(gateway, judge);
        let fallen = held.open(|_| Answer::chat("fallen"));
        (waiting.join().expect("answered"), fallen)
    })
}

/// Has the targets that `judge` speaks for fall, and waits until that is known.
fn fall(gateway: &Gateway, judge: &Upstream) {
    judge.set_healthy(false);
    wait_for_verdict(gateway, judge, "unhealthy");
}

/// Waits until all targets that `judge` speaks for have that status.
fn wait_for_verdict(gateway: &Gateway, judge: &Upstream, status: &str) {
    let (ip, port) = (judge.address.ip().to_string(), judge.port());
    wait_until("the verdict", || {
        let checkers = gateway.checkers();
        let lists = checkers.iter().filter_map(|one| one["nodes"].as_array());
        let is_it = |node: &&Value| node["ip"] == ip && node["port"] == port;
        let mut nodes = lists.flatten().filter(is_it).peekable();
        nodes.peek()?;
        nodes.all(|node| node["status"] == status).then_some(())
    });
}

/// `checks` that go by what somebody else answers, at that port.
fn judged_at(port: u16) -> String {
    format!(
        "checks: {{active: {{type: http, http_path: /health, port: {port}, healthy: {{interval: 1, successes: 1}}, \
         unhealthy: {{interval: 1, http_failures: 1}}}}}}"
    )
}

/// An instance to which connections are held, with another one that judges it.
fn held_instance(held: &Held, judge: &Upstream, more: &str) -> String {
    let more = format!(", {}{more}", judged_at(judge.port()));
    instance("held", held.address, &more)
}

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
    let checks = format!(", priority: 1, {}", judged_at(health.port()));
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

/// I-1, I-23: the same without TLS, and for an attempt that follows another.
#[test]
fn a_retry_that_falls_while_it_connects_goes_elsewhere() {
    let (first, second) = (Upstream::failing(500), Upstream::failing(500));
    let (held, judge) = (Held::start(), Upstream::named("judge"));
    let last = Upstream::named("last");
    let four = [
        instance("first", first.address, ", priority: 9"),
        held_instance(&held, &judge, ", priority: 5"),
        instance("second", second.address, ", priority: 1"),
        instance("last", last.address, ""),
    ];
    // Two retries: what was not sent is none.
    let more = ", fallback_strategy: [http_5xx], max_retries: 2";
    let gateway = Gateway::start(&flow_route(&four, more));
    judge.wait_for_probes(1);
    let (status, fallen) = overtake(&gateway, held, &judge, || chat(&gateway));
    let hits = [&first, &fallen, &second, &last].map(Upstream::hits);
    assert_eq!((status, hits), (200, [1, 0, 1, 1]));
}

/// A single instance: by default it is used however it fares, and not at all if the route says so.
#[test]
fn i3_a_single_instance_that_falls_while_it_connects() {
    for (more, expected) in [("", (200, 1)), (", on_all_unhealthy: reject", (503, 0))] {
        let (held, judge) = (Held::start(), Upstream::named("judge"));
        let lone = [held_instance(&held, &judge, "")];
        let gateway = Gateway::start(&flow_route(&lone, more));
        judge.wait_for_probes(1);
        let (status, fallen) = overtake(&gateway, held, &judge, || chat(&gateway));
        assert_eq!((status, fallen.hits()), expected, "{more}");
    }
}

/// A repeat at the same instance is sent over a connection of its own, and goes by what is known when that is
/// there.
#[test]
fn a_repeat_that_falls_while_it_connects_is_not_sent() {
    let (mut held, judge) = (Held::start(), Upstream::named("judge"));
    let last = Upstream::named("last");
    let pair = [
        held_instance(&held, &judge, ", priority: 1"),
        instance("last", last.address, ""),
    ];
    let more = ", fallback_strategy: [http_5xx], retry: {attempts: 1, backoff_ms: 1}";
    let gateway = Gateway::start(&flow_route(&pair, more));
    judge.wait_for_probes(1);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| chat(&gateway));
        held.answer_one(b"HTTP/1.1 500 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        held.wait_for_caller();
        fall(&gateway, &judge);
        let fallen = held.open(|_| Answer::chat("fallen"));
        assert_eq!(waiting.join().expect("answered"), 200);
        assert_eq!((fallen.hits(), last.hits()), (0, 1));
    });
}
