//! What traffic says about health: passive checks, cool-downs, circuits, retries at one instance, and
//! whose fault an error is.

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
    time::{Duration, Instant},
};

use support::{CHAT, Gateway, Start, Upstream, instance, post_json, upstream::Answer};

/// Active checks that say nothing while a test runs: `passive` needs them beside it.
const SILENT: &str = "active: {type: http, http_path: /health, healthy: {interval: 3600}, unhealthy: {interval: 3600}}";

fn chat(gateway: &Gateway) -> u16 {
    post_json(gateway.proxy, "/x", CHAT).status
}

/// Sends requests until `is_so`; returns how many.
fn chat_until(what: &str, gateway: &Gateway, is_so: impl Fn() -> bool) -> usize {
    let mut sent = 0;
    support::wait_until(what, || {
        chat(gateway);
        sent += 1;
        is_so().then_some(())
    });
    sent
}

/// A document with one route to the instances given; `more` goes on with the plugin, in flow style.
fn route(instances: &[String], more: &str) -> String {
    let instances = instances.join(", ");
    format!(
        "routes: [{{id: 1, uri: /*, plugins: {{prometheus: {{}}, ai-proxy-multi: {{instances: [{instances}]{more}}}}}}}]"
    )
}

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
    let gateway = Gateway::start(&route(&pair, ""));
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
        document: &route(&pair, more),
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

/// What every instance says at once does not leave the client without an answer, unless that is what
/// the configuration wants; then the client learns when to come back.
#[test]
fn when_all_are_out_the_configuration_decides() {
    let all = || Upstream::start(|_| limited(429, &[("retry-after", "30")]));
    let (a, b) = (all(), all());
    let pair = [instance("a", a.address, ""), instance("b", b.address, "")];
    let use_all = Gateway::start(&route(&pair, ", cooldown: {}"));
    for _ in 0..6 {
        assert_eq!(chat(&use_all), 429);
    }
    assert_eq!(a.hits() + b.hits(), 6);

    let reject = Gateway::start(&route(&pair, ", cooldown: {}, on_all_unhealthy: reject"));
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
    let gateway = Gateway::start(&route(&instances, more));
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
    let gateway = Gateway::start(&route(&pair, more));
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
    let gateway = Gateway::start(&route(&pair, more));
    for _ in 0..8 {
        assert_eq!(chat(&gateway), 200);
    }
    assert!(chosen.hits() >= 4, "still its turns: {}", chosen.hits());
}

/// A circuit: opens after failures in a row, then one trial at a time, each of which falls back.
#[test]
fn a_circuit_opens_and_lets_single_trials_through() {
    let good = Upstream::named("good");
    let fails = Arc::new(AtomicBool::new(true));
    let (at_once, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (script, now, peak) = (Arc::clone(&fails), Arc::clone(&at_once), Arc::clone(&most));
    let bad = Upstream::start(move |_| {
        let others = now.fetch_add(1, Ordering::SeqCst);
        peak.fetch_max(others + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(30));
        now.fetch_sub(1, Ordering::SeqCst);
        if script.load(Ordering::SeqCst) {
            limited(500, &[])
        } else {
            Answer::chat("bad")
        }
    });
    let pair = [
        instance("good", good.address, ""),
        instance("bad", bad.address, ""),
    ];
    // No fallback at all: only trials have one.
    let more = ", circuit_breaker: {failures: 3, open_ms: 200, max_open_ms: 200, trials: 2}";
    let gateway = Gateway::start_with(Start {
        document: &route(&pair, more),
        workers: 4,
        ..Start::default()
    });
    let mut failed = 0;
    support::wait_until("the circuit to open", || {
        failed += usize::from(chat(&gateway) == 500);
        gateway.stderr().contains("too many failures").then_some(())
    });
    assert_eq!(failed, 3);
    most.store(0, Ordering::SeqCst);
    let before = bad.hits();
    let end = Instant::now() + Duration::from_millis(1500);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while Instant::now() < end {
                    assert_eq!(chat(&gateway), 200, "a failed trial goes on to another");
                }
            });
        }
    });
    let trials = bad.hits() - before;
    assert!(
        (1..=8).contains(&trials),
        "{trials} trials in 1.5 s, one each 0.2 s"
    );
    assert_eq!(most.load(Ordering::SeqCst), 1, "trials at once");

    fails.store(false, Ordering::SeqCst);
    chat_until("the circuit to close", &gateway, || {
        gateway.stderr().contains("trials succeeded")
    });
    let before = bad.hits();
    for _ in 0..10 {
        assert_eq!(chat(&gateway), 200);
    }
    assert_eq!(bad.hits() - before, 5);
}

/// Nobody is asked while every circuit is open, but for the trials that find out when that is over.
#[test]
fn a_gateway_that_rejects_finds_out_when_it_need_not() {
    let fails = Arc::new(AtomicBool::new(true));
    let script = Arc::clone(&fails);
    let lone = Upstream::start(move |_| match script.load(Ordering::SeqCst) {
        true => limited(500, &[]),
        false => Answer::chat("lone"),
    });
    let more = ", on_all_unhealthy: reject, circuit_breaker: {failures: 2, open_ms: 300, max_open_ms: 300}";
    let gateway = Gateway::start(&route(&[instance("lone", lone.address, "")], more));
    support::wait_until("the circuit to open", || {
        (chat(&gateway) == 503).then_some(())
    });
    assert_eq!(lone.hits(), 2);
    fails.store(false, Ordering::SeqCst);
    chat_until("the circuit to close", &gateway, || {
        gateway.stderr().contains("trials succeeded")
    });
    assert_eq!(chat(&gateway), 200);
}

/// Streams that begin and never end as they should: each counts against its instance, as its end.
#[test]
fn streams_that_break_open_a_circuit() {
    let breaking = Upstream::start(|_| Answer::Stream {
        pieces: vec![b"data: {\"choices\":[]}\n\n".to_vec()],
        pause: Duration::ZERO,
        ends: false,
    });
    let good = Upstream::start(|_| Answer::events(&["data: {\"choices\":[]}", "data: [DONE]"]));
    let pair = [
        instance("breaking", breaking.address, ", priority: 1"),
        instance("good", good.address, ""),
    ];
    let more = ", circuit_breaker: {failures: 3, open_ms: 60000}";
    let gateway = Gateway::start(&route(&pair, more));
    let stream = CHAT.replacen('{', r#"{"stream":true,"#, 1);
    for _ in 0..3 {
        post_json(gateway.proxy, "/x", &stream);
    }
    gateway.wait_for_line("too many failures");
    for _ in 0..5 {
        assert_eq!(post_json(gateway.proxy, "/x", &stream).status, 200);
    }
    assert_eq!((breaking.hits(), good.hits()), (3, 5));
}

/// A trial that is a stream proves nothing by how it begins.
#[test]
fn a_stream_on_trial_is_judged_by_its_end() {
    let breaks = Arc::new(AtomicBool::new(true));
    let script = Arc::clone(&breaks);
    let upstream = Upstream::start(move |_| match script.load(Ordering::SeqCst) {
        true => Answer::Stream {
            pieces: vec![b"data: {\"choices\":[]}\n\n".to_vec()],
            pause: Duration::ZERO,
            ends: false,
        },
        false => Answer::events(&["data: {\"choices\":[]}", "data: [DONE]"]),
    });
    let more = ", circuit_breaker: {failures: 1, open_ms: 20, max_open_ms: 20}";
    let gateway = Gateway::start(&route(&[instance("a", upstream.address, "")], more));
    let stream = CHAT.replacen('{', r#"{"stream":true,"#, 1);
    for _ in 0..3 {
        post_json(gateway.proxy, "/x", &stream);
        wait_for_circuit(&gateway, "half_open");
    }
    assert!(!gateway.stderr().contains("trials succeeded"));
    breaks.store(false, Ordering::SeqCst);
    support::wait_until("the circuit to close", || {
        post_json(gateway.proxy, "/x", &stream);
        gateway.stderr().contains("trials succeeded").then_some(())
    });
}

/// What was sent when nobody was usable, and ends when the circuit has become half open, is no trial.
#[test]
fn only_trials_decide_about_a_circuit() {
    let slow = Arc::new(AtomicBool::new(true));
    let arrived = Arc::new(AtomicBool::new(false));
    let (script, seen) = (Arc::clone(&slow), Arc::clone(&arrived));
    let upstream = Upstream::start(move |request| {
        if !request.text().contains("slow") {
            return limited(500, &[]);
        }
        seen.store(true, Ordering::SeqCst);
        while script.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Answer::chat("a")
    });
    let more = ", circuit_breaker: {failures: 1, open_ms: 1000}";
    let gateway = Gateway::start(&route(&[instance("a", upstream.address, "")], more));
    assert_eq!(chat(&gateway), 500);
    wait_for_circuit(&gateway, "open");
    std::thread::scope(|scope| {
        let old = CHAT.replacen('{', r#"{"user":"slow","#, 1);
        let proxy = gateway.proxy;
        let old = scope.spawn(move || post_json(proxy, "/x", &old).status);
        support::wait_until("the request to be under way", || {
            arrived.load(Ordering::SeqCst).then_some(())
        });
        wait_for_circuit(&gateway, "half_open");
        slow.store(false, Ordering::SeqCst);
        assert_eq!(old.join().expect("no panic"), 200);
    });
    // This one is the trial, told after the other: it fails.
    assert_eq!(chat(&gateway), 500);
    wait_for_circuit(&gateway, "open");
    assert!(!gateway.stderr().contains("trials succeeded"));
}

fn wait_for_circuit(gateway: &Gateway, state: &str) {
    support::wait_until(state, || {
        let all = gateway.control("/v1/targets").json();
        let mut all = all.as_array().into_iter().flatten();
        all.find(|one| one["circuit"] == state).map(|_| ())
    });
}

/// A client's faults open no circuit, whatever their number.
#[test]
fn a_clients_fault_opens_no_circuit() {
    let picky = Upstream::start(|_| Answer::status(400, r#"{"error":{"message":"bad"}}"#));
    let good = Upstream::named("good");
    let pair = [
        instance("picky", picky.address, ""),
        instance("good", good.address, ""),
    ];
    let gateway = Gateway::start(&route(
        &pair,
        ", circuit_breaker: {failures: 1, error_percent: 1, min_requests: 1}",
    ));
    for _ in 0..20 {
        chat(&gateway);
    }
    assert_eq!(picky.hits(), 10);
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
        let gateway = Gateway::start(&route(&pair, &more));
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
    let gateway = Gateway::start(&route(&pair, more));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| chat(&gateway));
        support::wait_until("the first attempt", || (first.hits() == 1).then_some(()));
        first.set_healthy(false);
        gateway.wait_for_status(first.port(), "unhealthy");
        assert_eq!(waiting.join().expect("answered"), 200);
    });
    assert_eq!((first.hits(), second.hits()), (1, 1));
}
