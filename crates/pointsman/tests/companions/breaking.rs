//! `api-breaker`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use super::routes;
use crate::support::{Answer, Gateway, Upstream, get, wait_until};

/// An upstream whose status can be set.
fn switched() -> (Upstream, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(500));
    let shown = Arc::clone(&status);
    let upstream = Upstream::start(move |_| Answer::text(shown.load(Ordering::SeqCst), "a"));
    (upstream, status)
}

/// Asks until the upstream is reached once more; returns how long that took since `began`.
fn until_reached(gateway: &Gateway, upstream: &Upstream, path: &str, began: Instant) -> Duration {
    let before = upstream.hits();
    wait_until("the breaker to close", || {
        get(gateway.proxy, path, &[]);
        (upstream.hits() > before).then_some(())
    });
    began.elapsed()
}

/// G-185 to G-187: three failures open it, for two seconds and then for four.
#[test]
fn failures_open_a_breaker_and_each_time_for_longer() {
    let (upstream, _) = switched();
    let breaker = "api-breaker: {break_response_code: 599, unhealthy: {http_statuses: [500], \
                   failures: 3}}";
    let document = routes(&upstream, &[("/*", breaker)]);
    let gateway = Gateway::start(&document);
    let ask = |path: &str| get(gateway.proxy, path, &[]).status;
    assert_eq!([ask("/x"), ask("/x")], [500, 500]);
    let began = Instant::now();
    assert_eq!([ask("/x"), ask("/x")], [500, 599]);
    assert_eq!(upstream.hits(), 3);
    // Another path is counted apart; a reload forgets nothing.
    assert_eq!(ask("/y"), 500);
    gateway.reload(&format!("{document}consumers: [{{username: new}}]\n"));
    let took = until_reached(&gateway, &upstream, "/x", began);
    assert!(took >= Duration::from_secs(2), "{took:?}");
    assert_eq!(ask("/x"), 500);
    let began = Instant::now();
    assert_eq!([ask("/x"), ask("/x")], [500, 599]);
    let took = until_reached(&gateway, &upstream, "/x", began);
    assert!(took >= Duration::from_secs(4), "{took:?}");
}

/// G-188, G-189
#[test]
fn only_what_is_listed_counts_and_headers_belong_to_a_body() {
    let (upstream, status) = switched();
    let headers = "break_response_headers: [{key: X-Path, value: $uri}, {key: Content-Type, \
                   value: application/json}]";
    let bare =
        format!("api-breaker: {{break_response_code: 503, {headers}, unhealthy: {{failures: 1}}}}");
    let full = format!(
        "api-breaker: {{break_response_code: 503, {headers}, break_response_body: '{{}}', \
         unhealthy: {{failures: 2}}, healthy: {{successes: 1}}}}"
    );
    let gateway = Gateway::start(&routes(&upstream, &[("/bare", &bare), ("/full", &full)]));
    let ask = |path: &str, now: u16| {
        status.store(now, Ordering::SeqCst);
        get(gateway.proxy, path, &[])
    };
    for _ in 0..4 {
        assert_eq!(ask("/bare", 502).status, 502);
    }
    assert_eq!(ask("/bare", 500).status, 500);
    let open = ask("/bare", 200);
    assert_eq!((open.status, open.header("x-path")), (503, None));
    assert_ne!(open.header("content-type"), Some("application/json"));
    // A success between failures makes them forgotten, another status does not.
    for (now, seen) in [(500, 500), (200, 200), (500, 500), (404, 404), (500, 500)] {
        assert_eq!(ask("/full", now).status, seen);
    }
    let open = ask("/full", 200);
    assert_eq!((open.status, open.text().as_str()), (503, "{}"));
    assert_eq!(open.header("x-path"), Some("/full"));
    assert_eq!(open.header("content-type"), Some("application/json"));
}
