//! Circuits: when they open, who tries them, and what closes them.

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

use support::{
    CHAT, Gateway, Start, Upstream, chat, chat_until, flow_route, instance, post_json,
    upstream::Answer,
};

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
            Answer::status(500, "{}")
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
        document: &flow_route(&pair, more),
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
        true => Answer::status(500, "{}"),
        false => Answer::chat("lone"),
    });
    let more = ", on_all_unhealthy: reject, circuit_breaker: {failures: 2, open_ms: 300, max_open_ms: 300}";
    let gateway = Gateway::start(&flow_route(&[instance("lone", lone.address, "")], more));
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
    let gateway = Gateway::start(&flow_route(&pair, more));
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

/// Streams that are passed on as they are, and say themselves that they failed, or fall silent: they end
/// in order, as far as HTTP goes, and count all the same.
#[test]
fn streams_that_say_that_they_failed_open_a_circuit() {
    let begun = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{}}\n\n\
                 event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"a\"}}\n\n";
    let failed = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"x\"}}\n\n";
    let stream = |pieces: &[&str], ends| Answer::Stream {
        pieces: pieces
            .iter()
            .map(|piece| piece.as_bytes().to_vec())
            .collect(),
        pause: Duration::ZERO,
        ends,
    };
    let silent = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n\
         {:x}\r\n{begun}\r\n",
        begun.len()
    );
    let cases = [
        ("error", stream(&[begun, failed], true)),
        ("no end", stream(&[begun], true)),
        ("silence", Answer::Open(silent.into_bytes())),
    ];
    for (what, answer) in cases {
        let failing = Upstream::start(move |_| answer.clone());
        let good = Upstream::start(|_| Answer::events(&["event: message_stop\ndata: {}"]));
        let instance = |name: &str, upstream: &Upstream, more: &str| {
            format!(
                "{{name: {name}, provider: anthropic, weight: 1, auth: {{header: {{x-api-key: k}}}}, \
                 override: {{endpoint: \"http://{}\"}}{more}}}",
                upstream.address
            )
        };
        let pair = [
            instance("failing", &failing, ", priority: 1"),
            instance("good", &good, ""),
        ];
        let more = ", stream_idle_timeout_ms: 300, circuit_breaker: {failures: 2, open_ms: 60000}";
        let gateway = Gateway::start(&flow_route(&pair, more));
        let stream = CHAT.replacen('{', r#"{"stream":true,"max_tokens":9,"#, 1);
        for _ in 0..2 {
            post_json(gateway.proxy, "/v1/messages", &stream);
        }
        gateway.wait_for_line("too many failures");
        assert_eq!(
            post_json(gateway.proxy, "/v1/messages", &stream).status,
            200
        );
        assert_eq!((failing.hits(), good.hits()), (2, 1), "{what}");
    }
}

/// Anthropic's events of an error within a stream, after `begun`.
fn stream_with_error(begun: &str, kind: &str) -> Answer {
    let error = format!(
        "event: error\ndata: {{\"type\":\"error\",\"error\":{{\"type\":\"{kind}\",\"message\":\"x\"}}}}\n\n"
    );
    Answer::Stream {
        pieces: vec![begun.as_bytes().to_vec(), error.into_bytes()],
        pause: Duration::ZERO,
        ends: true,
    }
}

/// What is wrong with a request is nobody's fault but its client's, also where a stream says so: before
/// its content, where the client is told and nobody else is asked, and after it.
#[test]
fn a_clients_fault_within_a_stream_counts_against_nobody() {
    let event =
        |kind: &str, more: &str| format!("event: {kind}\ndata: {{\"type\":\"{kind}\"{more}}}\n\n");
    let start = event(
        "message_start",
        r#","message":{"id":"m","role":"assistant","content":[],"usage":{}}"#,
    );
    let text = event(
        "content_block_start",
        r#","index":0,"content_block":{"type":"text","text":""}"#,
    ) + &event(
        "content_block_delta",
        r#","index":0,"delta":{"type":"text_delta","text":"a"}"#,
    );
    let after_content = format!("{start}{text}");
    let end = event("content_block_stop", r#","index":0"#)
        + &event(
            "message_delta",
            r#","delta":{"stop_reason":"end_turn"},"usage":{}"#,
        )
        + &event("message_stop", "");
    let whole = format!("{after_content}{end}");
    for (begun, status) in [(&start, 400), (&after_content, 200)] {
        let asked = AtomicUsize::new(0);
        let (script, whole) = (begun.clone(), whole.clone());
        let failing = Upstream::start(move |_| {
            let kind = match asked.fetch_add(1, Ordering::SeqCst) {
                0..3 => "invalid_request_error",
                _ => "api_error",
            };
            stream_with_error(&script, kind)
        });
        let good = Upstream::start(move |_| Answer::Stream {
            pieces: vec![whole.as_bytes().to_vec()],
            pause: Duration::ZERO,
            ends: true,
        });
        let instance = |name: &str, upstream: &Upstream, priority: u8| {
            format!(
                "{{name: {name}, provider: anthropic, weight: 1, priority: {priority}, \
                 auth: {{header: {{x-api-key: k}}}}, override: {{endpoint: \"http://{}\"}}}}",
                upstream.address
            )
        };
        let pair = [instance("failing", &failing, 1), instance("good", &good, 0)];
        let more =
            ", fallback_strategy: [http_5xx], circuit_breaker: {failures: 2, open_ms: 60000}";
        let gateway = Gateway::start(&flow_route(&pair, more));
        let stream = CHAT.replacen('{', r#"{"stream":true,"max_tokens":9,"#, 1);
        let ask = || post_json(gateway.proxy, "/v1/messages", &stream);
        for _ in 0..3 {
            let answer = ask();
            assert_eq!(answer.status, status);
            assert!(answer.text().contains("invalid_request_error"));
        }
        assert_eq!((failing.hits(), good.hits()), (3, 0), "{status}");
        // Two failures of its own open the circuit, and no fewer.
        for _ in 0..2 {
            let answer = ask();
            assert_eq!(answer.status, 200, "{status}: {}", answer.text());
        }
        gateway.wait_for_line("too many failures");
        assert_eq!(failing.hits(), 5, "{status}");
        let last = ask();
        assert_eq!(last.status, 200, "{}", last.text());
        assert_eq!(failing.hits(), 5, "{status}");
    }
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
    let gateway = Gateway::start(&flow_route(&[instance("a", upstream.address, "")], more));
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
            return Answer::status(500, "{}");
        }
        seen.store(true, Ordering::SeqCst);
        while script.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Answer::chat("a")
    });
    let more = ", circuit_breaker: {failures: 1, open_ms: 1000}";
    let gateway = Gateway::start(&flow_route(&[instance("a", upstream.address, "")], more));
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

/// Whoever answers that a quota is used up answers: the circuit is not about that.
#[test]
fn a_trial_that_meets_a_quota_has_shown_what_it_had_to() {
    let works = Arc::new(AtomicBool::new(false));
    let script = Arc::clone(&works);
    let failing = Upstream::start(move |_| match script.load(Ordering::SeqCst) {
        true => Answer::status(429, "{}"),
        false => Answer::status(500, "{}"),
    });
    let good = Upstream::named("good");
    let pair = [
        instance("failing", failing.address, ", priority: 1"),
        instance("good", good.address, ""),
    ];
    let more =
        ", fallback_strategy: [http_429, http_5xx], circuit_breaker: {failures: 1, open_ms: 20}";
    let gateway = Gateway::start(&flow_route(&pair, more));
    assert_eq!(post_json(gateway.proxy, "/x", CHAT).status, 200);
    gateway.wait_for_line("too many failures");
    works.store(true, Ordering::SeqCst);
    support::wait_until("the circuit to close", || {
        assert_eq!(post_json(gateway.proxy, "/x", CHAT).status, 200);
        gateway.stderr().contains("trials succeeded").then_some(())
    });
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
    let gateway = Gateway::start(&flow_route(
        &pair,
        ", circuit_breaker: {failures: 1, error_percent: 1, min_requests: 1}",
    ));
    for _ in 0..20 {
        chat(&gateway);
    }
    assert_eq!(picky.hits(), 10);
}

/// A quota, a credential and a model have guards of their own, and open no circuit, whatever their number.
#[test]
fn what_has_a_guard_of_its_own_opens_no_circuit() {
    let missing = r#"{"error":{"message":"no such model","code":"model_not_found"}}"#;
    for (status, body) in [(429, "{}"), (401, "{}"), (403, "{}"), (404, missing)] {
        let refusing = Upstream::start(move |_| Answer::status(status, body));
        let good = Upstream::named("good");
        let pair = [
            instance("refusing", refusing.address, ", options: {model: m}"),
            instance("good", good.address, ""),
        ];
        // Both kinds of guards, of which cool-downs have nothing to do.
        let more = ", circuit_breaker: {failures: 1, error_percent: 1, min_requests: 1}, \
                    cooldown: {auth_failure_ms: 0, model_missing_ms: 0}";
        let gateway = Gateway::start(&flow_route(&pair, more));
        for _ in 0..20 {
            chat(&gateway);
        }
        assert_eq!(refusing.hits(), 10, "{status}");
    }
}
