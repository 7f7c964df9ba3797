//! What traffic says about health: passive checks, cool-downs, retries at one instance, and whose fault an
//! error is. Circuits are in `circuits.rs`.

#![allow(
    clippy::disallowed_methods,
    reason = "from outside, there is no clock but the real one"
)]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use serde_json::json;
use support::{
    CHAT, Gateway, Received, Start, Upstream, chat, chat_until, flow_route, instance, post_json,
    request, upstream::Answer,
};

/// Active checks that say nothing while a test runs: `passive` needs them beside it.
const SILENT: &str = "active: {type: http, http_path: /health, healthy: {interval: 3600}, unhealthy: {interval: 3600}}";

fn watched(name: &str, upstream: &Upstream, passive: &str) -> String {
    let checks = format!(", checks: {{{SILENT}, passive: {{{passive}}}}}");
    instance(name, upstream.address, &checks)
}

/// Our addition: passive checks of AI instances. A connection that breaks counts, a client's fault and
/// a quota do not.
#[test]
fn passive_checks_of_instances_count_what_is_theirs() {
    let good = Upstream::named("good");
    let turn = Arc::new(AtomicUsize::new(400));
    let script = Arc::clone(&turn);
    let bad = Upstream::start(move |_| match script.load(Ordering::SeqCst) {
        0 => Answer::Close,
        status => Answer::status(status as u16, "{}"),
    });
    let passive = "unhealthy: {http_statuses: [400, 429, 500], http_failures: 2, tcp_failures: 2}";
    let pair = [
        watched("good", &good, passive),
        watched("bad", &bad, passive),
    ];
    let gateway = Gateway::start(&flow_route(&pair, ""));
    bad.wait_for_probes(1);
    for status in [400, 429] {
        turn.store(status, Ordering::SeqCst);
        for _ in 0..10 {
            chat(&gateway);
        }
    }
    gateway.wait_for_status(bad.port(), "healthy");
    assert_eq!(bad.hits(), 10, "still its half");
    turn.store(0, Ordering::SeqCst);
    chat_until("the verdict", &gateway, || {
        gateway.stderr().contains("health verdict changed")
    });
    gateway.wait_for_status(bad.port(), "unhealthy");
    let before = bad.hits();
    for _ in 0..10 {
        assert_eq!(chat(&gateway), 200);
    }
    assert_eq!(bad.hits(), before);
}

fn limited(status: u16, headers: &[(&'static str, &str)]) -> Answer {
    Answer::Whole {
        status,
        kind: "application/json",
        body: r#"{"error":{"message":"slow down"}}"#.to_owned(),
        headers: headers
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect(),
    }
}

/// A 429 that says how long takes the instance out until then, on every worker, and no longer.
#[test]
fn an_instance_that_asks_for_time_gets_it() {
    let good = Upstream::named("good");
    let busy = Arc::new(AtomicBool::new(true));
    let is_busy = Arc::clone(&busy);
    let other = Upstream::start(move |_| {
        if is_busy.swap(false, Ordering::SeqCst) {
            limited(429, &[("retry-after", "1.5")])
        } else {
            Answer::chat("other")
        }
    });
    let pair = [
        instance("good", good.address, ""),
        instance("other", other.address, ""),
    ];
    let more = ", fallback_strategy: [http_429], cooldown: {}";
    let gateway = Gateway::start_with(Start {
        document: &flow_route(&pair, more),
        workers: 4,
        ..Start::default()
    });
    chat_until("the 429", &gateway, || other.hits() == 1);
    gateway.wait_for_line("its quota is used up");
    let asked = other.last().at;
    chat_until("the other to be back", &gateway, || other.hits() > 1);
    let back = other.last().at;
    assert!(
        back - asked >= Duration::from_millis(1500),
        "{:?}",
        back - asked
    );
    gateway.wait_for_line("its time is over");
}

/// An instance without a credential of its own gets the client's: then its quota is that client's, and so is a
/// refusal.
#[test]
fn a_clients_own_quota_is_its_own() {
    let good = Upstream::named("good");
    let other = Upstream::start(|received| match received.header("authorization") {
        Some("Bearer spent") => limited(429, &[("retry-after", "60")]),
        Some("Bearer wrong") => limited(401, &[]),
        _ => Answer::chat("other"),
    });
    let bare = format!(
        "{{name: other, provider: openai-compatible, weight: 1, priority: 1, auth: {{header: {{X-Team: blue}}}}, \
         override: {{endpoint: \"http://{}\"}}}}",
        other.address
    );
    let pair = [instance("good", good.address, ""), bare];
    let more = ", fallback_strategy: [http_429], cooldown: {}, circuit_breaker: {failures: 1}";
    let gateway = Gateway::start(&flow_route(&pair, more));
    let ask = |key: &str| {
        let authorization = format!("Bearer {key}");
        let headers = [
            ("Content-Type", "application/json"),
            ("Authorization", &authorization),
        ];
        request(gateway.proxy, "POST", "/x", &headers, CHAT).status
    };
    assert_eq!(ask("spent"), 200, "by the other one");
    assert_eq!(ask("wrong"), 401);
    assert_eq!(ask("fine"), 200);
    assert_eq!((other.hits(), good.hits()), (3, 1));
    assert!(!gateway.stderr().contains("its quota is used up"));
}

/// A date is taken in the words of the wall clock, which anybody may have set wrong, and obeyed for as long as
/// the configuration allows.
#[test]
fn a_date_takes_nobody_out_for_longer_than_is_allowed() {
    let good = Upstream::named("good");
    let busy = Arc::new(AtomicBool::new(true));
    let is_busy = Arc::clone(&busy);
    let far = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(30 * 86_400));
    let other = Upstream::start(move |_| {
        if is_busy.swap(false, Ordering::SeqCst) {
            limited(429, &[("retry-after", &far)])
        } else {
            Answer::chat("other")
        }
    });
    let pair = [
        instance("good", good.address, ""),
        instance("other", other.address, ""),
    ];
    let more = ", fallback_strategy: [http_429], cooldown: {max_ms: 1500}";
    let gateway = Gateway::start(&flow_route(&pair, more));
    chat_until("the 429", &gateway, || other.hits() == 1);
    gateway.wait_for_line("its quota is used up");
    let asked = other.last().at;
    chat_until("the other to be back", &gateway, || other.hits() > 1);
    let back = other.last().at;
    assert!(
        back - asked >= Duration::from_millis(1_500),
        "{:?}",
        back - asked
    );
    assert_eq!(gateway.metric(&["pointsman_evidence_dropped_total"]), 0.0);
}

/// What every instance says at once does not leave the client without an answer, unless that is what
/// the configuration wants; then the client learns when to come back.
#[test]
fn when_all_are_out_the_configuration_decides() {
    let all = || Upstream::start(|_| limited(429, &[("retry-after", "30")]));
    let (a, b) = (all(), all());
    let pair = [instance("a", a.address, ""), instance("b", b.address, "")];
    let use_all = Gateway::start(&flow_route(&pair, ", cooldown: {}"));
    for _ in 0..6 {
        assert_eq!(chat(&use_all), 429);
    }
    assert_eq!(a.hits() + b.hits(), 6);

    let reject = Gateway::start(&flow_route(
        &pair,
        ", cooldown: {}, on_all_unhealthy: reject",
    ));
    support::wait_until("both to be out", || (chat(&reject) == 503).then_some(()));
    let before = a.hits() + b.hits();
    let answer = post_json(reject.proxy, "/x", CHAT);
    assert_eq!(answer.status, 503);
    let wait: u64 = answer
        .header("retry-after")
        .expect("told")
        .parse()
        .expect("seconds");
    assert!((20..=30).contains(&wait), "{wait}");
    assert_eq!(answer.json()["error"]["message"], "no instance is healthy");
    assert_eq!(a.hits() + b.hits(), before);
}

/// A credential that is refused is out wherever it is used at that address; another one there is not.
#[test]
fn a_refused_credential_takes_out_all_that_use_it() {
    let server = Upstream::start(|request| match request.header("authorization") {
        Some("Bearer good") => Answer::chat("good"),
        _ => limited(401, &[]),
    });
    let with = |name: &str, token: &str, model: &str| {
        format!(
            "{{name: {name}, provider: openai-compatible, weight: 1, auth: {{header: {{authorization: Bearer {token}}}}}, options: {{model: {model}}}, override: {{endpoint: \"http://{}\"}}}}",
            server.address
        )
    };
    let instances = [
        with("a", "bad", "m"),
        with("b", "bad", "n"),
        with("c", "good", "m"),
    ];
    let more = ", fallback_http_statuses: [401], cooldown: {auth_failure_ms: 60000}";
    let gateway = Gateway::start(&flow_route(&instances, more));
    let with_bad = || {
        let requests = server.requests();
        requests
            .iter()
            .filter(|request| request.header("authorization") == Some("Bearer bad"))
            .count()
    };
    chat_until("a refusal", &gateway, || with_bad() > 0);
    gateway.wait_for_line("the credential was refused");
    let before = with_bad();
    for _ in 0..12 {
        assert_eq!(chat(&gateway), 200);
    }
    assert_eq!(with_bad(), before);
}

/// An account that has no credit left is refused by 402: its credential is out, the other one is not.
#[test]
fn an_account_without_credit_is_out() {
    let server = Upstream::start(|request| match request.header("authorization") {
        Some("Bearer rich") => Answer::chat("rich"),
        _ => limited(402, &[]),
    });
    let with = |name: &str, priority: u8| {
        format!(
            "{{name: {name}, provider: openai-compatible, weight: 1, priority: {priority}, auth: {{header: {{authorization: Bearer {name}}}}}, override: {{endpoint: \"http://{}\"}}}}",
            server.address
        )
    };
    let more = ", fallback_http_statuses: [402], cooldown: {auth_failure_ms: 60000}";
    let gateway = Gateway::start(&flow_route(&[with("poor", 1), with("rich", 0)], more));
    assert_eq!(chat(&gateway), 200);
    gateway.wait_for_line("the credential was refused");
    let before = server.hits();
    for _ in 0..6 {
        assert_eq!(chat(&gateway), 200);
    }
    assert_eq!((before, server.hits()), (2, 8));
}

/// One verdict wherever a credential is used: what a route has learned counts on another one, for another
/// model, from the first request on.
#[test]
fn a_credential_that_is_refused_on_one_route_is_out_on_all() {
    let server = Upstream::start(|request| match request.header("authorization") {
        Some("Bearer good") => Answer::chat("good"),
        _ => limited(401, &[]),
    });
    let with = |token: &str, model: &str| {
        json!({
            "name": token, "provider": "openai-compatible", "weight": 1,
            "priority": i32::from(token == "bad"), "options": {"model": model},
            "auth": {"header": {"Authorization": format!("Bearer {token}")}},
            "override": {"endpoint": format!("http://{}", server.address)}
        })
    };
    let route = |id: &str, model: &str| {
        let instances = [with("bad", model), with("good", model)];
        let plugin =
            json!({"instances": instances, "fallback_http_statuses": [401], "cooldown": {}});
        json!({"id": id, "uri": format!("/{id}"), "plugins": {"ai-proxy-multi": plugin}})
    };
    let routes = [route("one", "m"), route("two", "n")];
    let gateway = Gateway::start(&json!({ "routes": routes }).to_string());
    assert_eq!(post_json(gateway.proxy, "/one", CHAT).status, 200);
    gateway.wait_for_line("the credential was refused");
    for path in ["/two", "/one"] {
        assert_eq!(post_json(gateway.proxy, path, CHAT).status, 200);
    }
    let requests = server.requests();
    let bad = |received: &&Received| received.header("authorization") == Some("Bearer bad");
    assert_eq!(
        (requests.len(), requests.iter().filter(bad).count()),
        (4, 1)
    );
}

/// A model that is not there takes out the instance that names it; one that the client has chosen does
/// not.
#[test]
fn a_missing_model_takes_out_the_model() {
    let missing = || {
        Upstream::start(|_| {
            Answer::status(
                404,
                r#"{"error":{"message":"no such model","code":"model_not_found"}}"#,
            )
        })
    };
    let (gone, chosen, good) = (missing(), missing(), Upstream::named("good"));
    let pair = [
        instance("gone", gone.address, ", options: {model: old}"),
        instance("good", good.address, ""),
    ];
    let more = ", fallback_http_statuses: [404], cooldown: {}";
    let gateway = Gateway::start(&flow_route(&pair, more));
    chat_until("a miss", &gateway, || gone.hits() > 0);
    gateway.wait_for_line("it does not have the model");
    let before = gone.hits();
    for _ in 0..8 {
        assert_eq!(chat(&gateway), 200);
    }
    assert_eq!(gone.hits(), before);

    let pair = [
        instance("chosen", chosen.address, ""),
        instance("good", good.address, ""),
    ];
    let gateway = Gateway::start(&flow_route(&pair, more));
    for _ in 0..8 {
        assert_eq!(chat(&gateway), 200);
    }
    assert!(chosen.hits() >= 4, "still its turns: {}", chosen.hits());
}

/// The same instance once more before another: after a server's error, a connection that broke, and a
/// short wait that it asked for; not after a long one, and not after a client's fault.
#[test]
fn the_same_instance_is_asked_again() {
    let check = |first: Answer,
                 rules: &str,
                 (status, at_first, at_second): (u16, usize, usize),
                 least: Duration| {
        let asked = AtomicUsize::new(0);
        let flaky = Upstream::start(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
            0 => first.clone(),
            _ => Answer::chat("flaky"),
        });
        let second = Upstream::named("second");
        let pair = [
            instance("flaky", flaky.address, ", priority: 1"),
            instance("second", second.address, ""),
        ];
        let more = format!(", fallback_strategy: [http_429, http_5xx], retry: {{{rules}}}");
        let gateway = Gateway::start(&flow_route(&pair, &more));
        let began = Instant::now();
        let answer = post_json(gateway.proxy, "/x", CHAT);
        assert_eq!(
            (answer.status, flaky.hits(), second.hits()),
            (status, at_first, at_second),
            "{rules}"
        );
        assert!(began.elapsed() >= least, "{rules}: {:?}", began.elapsed());
        let line = gateway.access_log(1).remove(0);
        assert_eq!(line["status"], status, "{line}");
        gateway.wait_until_idle();
    };
    let none = Duration::ZERO;
    check(
        limited(500, &[]),
        "attempts: 1",
        (200, 2, 0),
        Duration::from_millis(50),
    );
    check(Answer::Close, "attempts: 1", (200, 2, 0), none);
    check(limited(500, &[]), "attempts: 0", (200, 1, 1), none);
    check(
        limited(429, &[("retry-after-ms", "300")]),
        "attempts: 1, max_wait_ms: 300",
        (200, 2, 0),
        Duration::from_millis(300),
    );
    check(
        limited(429, &[("retry-after-ms", "301")]),
        "attempts: 1, max_wait_ms: 300",
        (200, 1, 1),
        none,
    );
    check(limited(429, &[]), "attempts: 1", (200, 1, 1), none);
    check(limited(400, &[]), "attempts: 1", (400, 1, 0), none);
}

/// A wait for the same instance ends when the instance is known to be down meanwhile.
#[test]
fn a_repeat_obeys_the_newest_verdict() {
    let first = Upstream::start(|_| limited(500, &[]));
    let second = Upstream::named("second");
    let checks = ", checks: {active: {type: http, http_path: /health, healthy: {interval: 1, successes: 1}, unhealthy: {interval: 1, http_failures: 1}}}";
    let pair = [
        instance("first", first.address, &format!(", priority: 1{checks}")),
        instance("second", second.address, checks),
    ];
    let more = ", fallback_strategy: [http_5xx], retry: {attempts: 1, backoff_ms: 8000}";
    let gateway = Gateway::start(&flow_route(&pair, more));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| chat(&gateway));
        support::wait_until("the first attempt", || (first.hits() == 1).then_some(()));
        first.set_healthy(false);
        gateway.wait_for_status(first.port(), "unhealthy");
        assert_eq!(waiting.join().expect("answered"), 200);
    });
    assert_eq!((first.hits(), second.hits()), (1, 1));
}
