//! `limit-count`, `limit-req` and `limit-conn`, on the real binary.

#![allow(clippy::disallowed_methods, reason = "tests measure in real time")]

mod support;

use std::time::{Duration, Instant};

use serde_json::json;
use support::{
    Answer, Gateway, Response, Start, Upstream, admin, client::Connection, get, wait_until,
};

/// Answers; `/slow` only begins to.
fn echo() -> Upstream {
    Upstream::start(|received| match received.target.as_str() {
        path if path.starts_with("/slow") => {
            Answer::Open(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbegun".to_vec())
        }
        path if path.starts_with("/stream") => Answer::Endless {
            event: "data: more\n\n".to_owned(),
            pause: Duration::from_millis(5),
        },
        _ => Answer::text(200, "echo"),
    })
}

/// Routes to `upstream`: `(path, what else the route has, in flow style)`.
fn routes(upstream: &Upstream, each: &[(&str, &str)]) -> String {
    let lines = each.iter().enumerate().map(|(id, (path, more))| {
        let (address, number) = (upstream.address, id + 1);
        format!(
            "- {{id: {number}, uri: \"{path}\", {more}, \
             upstream: {{nodes: {{\"{address}\": 1}}}}}}\n"
        )
    });
    format!("routes:\n{}", lines.collect::<String>())
}

fn status(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> u16 {
    get(gateway.proxy, path, headers).status
}

/// Limit and rest, as the headers of one family have them.
fn quota(response: &Response, family: &str) -> Option<(String, String)> {
    let limit = response.header(&format!("{family}-Limit"))?;
    let remaining = response.header(&format!("{family}-Remaining"))?;
    let reset = response.header(&format!("{family}-Reset"))?;
    let reset: f64 = reset.parse().expect("a number");
    assert!(reset > 0.0 && reset <= 3600.0, "{reset}");
    Some((limit.to_owned(), remaining.to_owned()))
}

/// G-137 to G-139, G-146
#[test]
fn so_many_requests_pass_and_are_told() {
    let upstream = echo();
    let document = routes(
        &upstream,
        &[
            (
                "/plain",
                "plugins: {limit-count: {count: 2, time_window: 3600}}",
            ),
            (
                "/worded",
                "plugins: {limit-count: {count: 1, time_window: 3600, rejected_code: 429, \
                 rejected_msg: m}}",
            ),
            (
                "/silent",
                "plugins: {limit-count: {count: 1, time_window: 3600, \
                 show_limit_quota_header: false}}",
            ),
            (
                "/sliding",
                "plugins: {limit-count: {count: 2, time_window: 3600, window_type: sliding}}",
            ),
        ],
    );
    let gateway = Gateway::start(&document);
    for path in ["/plain", "/sliding"] {
        for (expected, left) in [(200, "1"), (200, "0"), (503, "0")] {
            let answer = get(gateway.proxy, path, &[]);
            let told = Some(("2".to_owned(), left.to_owned()));
            let found = (answer.status, quota(&answer, "X-RateLimit"));
            assert_eq!(found, (expected, told), "{path}");
        }
    }
    let over = get(gateway.proxy, "/plain", &[]);
    assert_eq!(
        over.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert!(over.text().contains("<h1>503 Service Unavailable</h1>"));
    assert_eq!(status(&gateway, "/worded", &[]), 200);
    let over = get(gateway.proxy, "/worded", &[]);
    assert_eq!(
        (over.status, over.text().as_str()),
        (429, "{\"error_msg\":\"m\"}\n")
    );
    for expected in [200, 503] {
        let answer = get(gateway.proxy, "/silent", &[]);
        assert_eq!(answer.status, expected);
        assert_eq!(answer.header("x-ratelimit-limit"), None);
    }
    assert_eq!(upstream.hits(), 6);
}

/// G-140, G-141
#[test]
fn keys_have_counters_of_their_own() {
    let upstream = echo();
    let document = routes(
        &upstream,
        &[
            (
                "/var",
                "plugins: {limit-count: {count: 1, time_window: 3600, key: http_x}}",
            ),
            (
                "/both",
                "plugins: {limit-count: {count: 1, time_window: 3600, \
                 key: \"$remote_addr $http_x\", key_type: var_combination}}",
            ),
            (
                "/constant",
                "plugins: {limit-count: {count: 1, time_window: 3600, key: http_x, \
                 key_type: constant}}",
            ),
        ],
    );
    let gateway = Gateway::start(&document);
    for path in ["/var", "/both"] {
        for (value, expected) in [("a", 200), ("b", 200), ("a", 503), ("b", 503)] {
            assert_eq!(status(&gateway, path, &[("X", value)]), expected, "{path}");
        }
    }
    // Without the header the client's address is the key, which a header can say as well.
    assert_eq!(status(&gateway, "/var", &[]), 200);
    assert_eq!(status(&gateway, "/var", &[]), 503);
    assert_eq!(status(&gateway, "/var", &[("X", "127.0.0.1")]), 503);
    assert_eq!(status(&gateway, "/constant", &[("X", "a")]), 200);
    assert_eq!(status(&gateway, "/constant", &[("X", "b")]), 503);
}

/// G-142
#[test]
fn a_group_counts_together() {
    let upstream = echo();
    let limit = "plugins: {limit-count: {count: 1, time_window: 3600, group: g}}";
    let document = routes(&upstream, &[("/a", limit), ("/b", limit)]);
    let gateway = Gateway::start(&document);
    assert_eq!(status(&gateway, "/a", &[]), 200);
    assert_eq!(status(&gateway, "/b", &[]), 503);
}

/// G-144, G-145
#[test]
fn counters_outlive_changes_of_other_things() {
    let upstream = echo();
    let limited = |count: u32, more: &str| {
        let plugin =
            format!("plugins: {{limit-count: {{count: {count}, time_window: 3600}}}}{more}");
        routes(&upstream, &[("/a", &plugin)])
    };
    let gateway = Gateway::start(&limited(2, ""));
    assert_eq!(status(&gateway, "/a", &[]), 200);
    gateway.reload(&limited(2, ", name: another"));
    let answer = get(gateway.proxy, "/a", &[]);
    assert_eq!(
        (answer.status, answer.header("x-ratelimit-remaining")),
        (200, Some("0"))
    );
    assert_eq!(status(&gateway, "/a", &[]), 503);
    gateway.reload(&limited(3, ", name: another"));
    let answer = get(gateway.proxy, "/a", &[]);
    assert_eq!(
        (answer.status, answer.header("x-ratelimit-remaining")),
        (200, Some("2"))
    );
}

/// G-147, G-148
#[test]
fn limits_may_be_templates() {
    let upstream = echo();
    let document = routes(
        &upstream,
        &[
            (
                "/default",
                "plugins: {limit-count: {count: \"${http_x_q ?? 2}\", time_window: 3600}}",
            ),
            (
                "/bare",
                "plugins: {limit-count: {count: $http_x_q, time_window: 3600}}",
            ),
            (
                "/lenient",
                "plugins: {limit-count: {count: $http_x_q, time_window: 3600, \
                 allow_degradation: true}}",
            ),
        ],
    );
    let gateway = Gateway::start(&document);
    let limit = |headers: &[(&str, &str)]| {
        let answer = get(gateway.proxy, "/default", headers);
        answer.header("x-ratelimit-limit").map(str::to_owned)
    };
    assert_eq!(limit(&[]).as_deref(), Some("2"));
    assert_eq!(limit(&[("X-Q", "1")]).as_deref(), Some("1"));
    for wrong in ["abc", "0", "-1", "1.5", "99999999999999999999"] {
        assert_eq!(status(&gateway, "/bare", &[("X-Q", wrong)]), 500, "{wrong}");
        assert_eq!(status(&gateway, "/lenient", &[("X-Q", wrong)]), 200);
    }
    assert_eq!(status(&gateway, "/bare", &[("X-Q", "5")]), 200);
}

/// G-149
#[test]
fn rules_apply_where_their_keys_have_values() {
    let upstream = echo();
    let rules = "rules: [{count: 2, time_window: 3600, key: $http_a}, \
                 {count: 1, time_window: 3600, key: $http_b, header_prefix: second}]";
    let strict = format!("plugins: {{limit-count: {{{rules}}}}}");
    let lenient = format!("plugins: {{limit-count: {{{rules}, allow_degradation: true}}}}");
    let gateway = Gateway::start(&routes(
        &upstream,
        &[("/rules", &strict), ("/lenient", &lenient)],
    ));
    let answer = get(gateway.proxy, "/rules", &[("A", "x")]);
    assert_eq!(answer.status, 200);
    let told = |limit: &str, left: &str| Some((limit.to_owned(), left.to_owned()));
    assert_eq!(quota(&answer, "X-1-RateLimit"), told("2", "1"));
    assert_eq!(quota(&answer, "X-second-RateLimit"), None);
    assert_eq!(quota(&answer, "X-RateLimit"), None);
    // The same value under another rule is another key.
    let both = [("A", "x"), ("B", "x")];
    let answer = get(gateway.proxy, "/rules", &both);
    assert_eq!(answer.status, 200);
    assert_eq!(quota(&answer, "X-1-RateLimit"), told("2", "0"));
    assert_eq!(quota(&answer, "X-second-RateLimit"), told("1", "0"));
    assert_eq!(status(&gateway, "/rules", &both), 503);
    assert_eq!(status(&gateway, "/rules", &[]), 500);
    assert_eq!(status(&gateway, "/lenient", &[]), 200);
}

/// G-150, and what else is refused.
#[test]
fn limits_without_sense_are_refused() {
    let upstream = echo();
    let gateway = Gateway::with_store();
    let route = |limit: serde_json::Value| {
        json!({
            "uri": "/a", "upstream": admin::upstream(upstream.address),
            "plugins": { "limit-count": limit },
        })
    };
    let rule = json!({"count": 1, "time_window": 1, "key": "$http_a"});
    for (limit, said) in [
        (
            json!({"count": 1, "time_window": 1, "rules": [rule]}),
            "count/time_window and rules cannot be specified at the same time",
        ),
        (
            json!({"rules": [rule, rule]}),
            "duplicate key '$http_a' in rules",
        ),
        (json!({"count": 0, "time_window": 1}), "count"),
        (json!({"count": 1, "time_window": -1}), "time_window"),
        (json!({}), "matches none"),
        (
            json!({"count": 1, "time_window": 1, "policy": "local", "rejected_code": 199}),
            "rejected_code",
        ),
    ] {
        let told = gateway.refused("PUT", "/routes/1", route(limit.clone()));
        assert!(told.contains(said), "{limit}: {told}");
    }
}

/// G-143
#[test]
fn members_of_a_group_have_the_same_limit() {
    let upstream = echo();
    let gateway = Gateway::with_store();
    let route = |limit: serde_json::Value| {
        json!({
            "uri": "/a", "upstream": admin::upstream(upstream.address),
            "plugins": { "limit-count": limit },
        })
    };
    let limit =
        |count: u32, group: &str| route(json!({"count": count, "time_window": 60, "group": group}));
    gateway.asked(201, "PUT", "/routes/1", limit(1, "g"));
    // A default that is written is no difference.
    let written = json!({"group": "g", "time_window": 60, "count": 1, "rejected_code": 503});
    gateway.asked(201, "PUT", "/routes/2", route(written));
    for (path, body) in [
        ("/routes/3", limit(2, "g")),
        ("/routes/2", limit(2, "g")),
        ("/services/1", json!({"plugins": limit(2, "g")["plugins"]})),
    ] {
        let told = gateway.refused("PUT", path, body);
        assert!(told.contains("group conf mismatched"), "{told}");
    }
    gateway.asked(201, "PUT", "/routes/3", limit(2, "another"));
    gateway.asked(200, "DELETE", "/routes/2", serde_json::Value::Null);
    gateway.asked(200, "PUT", "/routes/1", limit(2, "g"));
}

/// G-151
#[test]
fn metadata_names_the_headers() {
    let upstream = echo();
    let limit = "plugins: {limit-count: {count: 2, time_window: 3600}}";
    let document = routes(&upstream, &[("/a", limit)]);
    let metadata = "plugin_metadata:\n- {id: limit-count, limit_header: X-L}\n";
    let gateway = Gateway::start(&format!("{document}{metadata}"));
    let answer = get(gateway.proxy, "/a", &[]);
    assert_eq!(answer.header("x-l"), Some("2"));
    assert_eq!(answer.header("x-ratelimit-limit"), None);
    assert_eq!(answer.header("x-ratelimit-remaining"), Some("1"));
}

/// G-082, G-083
#[test]
fn a_route_has_its_own_limit_or_that_of_its_service() {
    let upstream = echo();
    let own = "service_id: s, plugins: {limit-count: {count: 5, time_window: 3600}}";
    let document = routes(
        &upstream,
        &[
            ("/one", "service_id: s"),
            ("/two", "service_id: s"),
            ("/own", own),
        ],
    );
    let services = "services:\n- {id: s, plugins: {limit-count: {count: 1, time_window: 3600}}}\n";
    let gateway = Gateway::start(&format!("{document}{services}"));
    assert_eq!(status(&gateway, "/one", &[]), 200);
    assert_eq!(status(&gateway, "/one", &[]), 503);
    // The limit is the service's, and so is its counter.
    assert_eq!(status(&gateway, "/two", &[]), 503);
    for _ in 0..2 {
        let answer = get(gateway.proxy, "/own", &[]);
        assert_eq!(
            (answer.status, answer.header("x-ratelimit-limit")),
            (200, Some("5"))
        );
    }
}

/// G-085 to G-088, G-113
#[test]
fn consumers_and_groups_bring_their_limits_along() {
    let upstream = echo();
    let document = routes(
        &upstream,
        &[
            ("/a", "plugins: {key-auth: {}}"),
            ("/b", "plugins: {key-auth: {}}"),
            ("/open", "plugins: {key-auth: {anonymous_consumer: anon}}"),
        ],
    );
    let consumers = "consumers:\n\
        - {username: limited, plugins: {key-auth: {key: kl}, \
           limit-count: {count: 1, time_window: 3600}}}\n\
        - {username: free, plugins: {key-auth: {key: kf}}}\n\
        - {username: first, group_id: g, plugins: {key-auth: {key: k1}}}\n\
        - {username: second, group_id: g, plugins: {key-auth: {key: k2}}}\n\
        - {username: both, group_id: g, plugins: {key-auth: {key: kb}, \
           limit-count: {count: 7, time_window: 3600}}}\n\
        - {username: anon, plugins: {limit-count: {count: 3, time_window: 3600}}}\n\
        consumer_groups:\n\
        - {id: g, plugins: {limit-count: {count: 2, time_window: 3600}}}\n";
    let gateway = Gateway::start(&format!("{document}{consumers}"));
    let ask = |path: &str, key: &str| status(&gateway, path, &[("apikey", key)]);
    assert_eq!(ask("/a", "kl"), 200);
    assert_eq!(ask("/b", "kl"), 503, "one counter over both routes");
    assert_eq!(ask("/a", "kf"), 200);
    assert_eq!(ask("/a", "kf"), 200);
    assert_eq!(ask("/a", "k1"), 200);
    assert_eq!(ask("/b", "k2"), 200);
    assert_eq!(ask("/a", "k1"), 503);
    let limit = |path: &str, key: &str| {
        let answer = get(gateway.proxy, path, &[("apikey", key)]);
        answer.header("x-ratelimit-limit").map(str::to_owned)
    };
    assert_eq!(limit("/a", "kb").as_deref(), Some("7"));
    assert_eq!(limit("/open", "").as_deref(), Some("3"));
}

/// G-101
#[test]
fn a_global_limit_counts_what_has_no_route() {
    let rules = "global_rules:\n- {id: 1, plugins: {limit-count: {count: 1, time_window: 3600}}}\n";
    let gateway = Gateway::start(&format!("routes: []\n{rules}"));
    assert_eq!(status(&gateway, "/nowhere", &[]), 404);
    assert_eq!(status(&gateway, "/nowhere", &[]), 503);
}

/// Four workers let exactly as many pass as the limit says.
#[test]
fn workers_share_a_limit_exactly() {
    let upstream = echo();
    let limit = "plugins: {limit-count: {count: 50, time_window: 3600}, \
                 limit-conn: {conn: 100, burst: 0, default_conn_delay: 0.1, key: remote_addr}}";
    let document = routes(&upstream, &[("/a", limit)]);
    let gateway = Gateway::start_with(Start {
        document: &document,
        workers: 4,
        ..Start::default()
    });
    let passed: usize = std::thread::scope(|scope| {
        let client = || {
            (0..20)
                .filter(|_| status(&gateway, "/a", &[]) == 200)
                .count()
        };
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(client)).collect();
        let counts = clients.into_iter().map(|client| client.join());
        counts.map(|count| count.expect("a client")).sum()
    });
    assert_eq!((passed, upstream.hits()), (50, 50));
}

/// G-154, and requests that wait for their turn.
#[test]
fn requests_come_evenly() {
    let upstream = echo();
    let document = routes(
        &upstream,
        &[
            (
                "/strict",
                "plugins: {limit-req: {rate: 0.001, burst: 0, key: remote_addr, nodelay: true}}",
            ),
            (
                "/worded",
                "plugins: {limit-req: {rate: 0.001, burst: 1, key: http_x, nodelay: true, \
                 rejected_code: 429, rejected_msg: slowly}}",
            ),
            (
                "/waits",
                "plugins: {limit-req: {rate: 5, burst: 1, key: remote_addr}}",
            ),
        ],
    );
    let gateway = Gateway::start(&document);
    let statuses = [(); 3].map(|()| status(&gateway, "/strict", &[]));
    assert_eq!(statuses, [200, 503, 503]);
    let statuses = [(); 3].map(|()| status(&gateway, "/worded", &[("X", "a")]));
    assert_eq!(statuses, [200, 200, 429]);
    assert_eq!(status(&gateway, "/worded", &[("X", "b")]), 200);
    let started = Instant::now();
    let statuses = [(); 2].map(|()| status(&gateway, "/waits", &[]));
    assert_eq!(statuses, [200, 200]);
    // The second has its turn a fifth of a second after the first; how much later it is served says
    // nothing.
    assert!(started.elapsed() >= Duration::from_millis(199));
}

/// A request to `path` that is under way by now, and stays so.
fn begun(gateway: &Gateway, path: &str, sign: &str) -> Connection {
    let mut connection = Connection::open(gateway.proxy);
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nX: a\r\n\r\n").as_bytes());
    connection.read_until(sign);
    connection
}

/// G-155, G-156: the place is free again when the response is over, whatever has ended it.
#[test]
fn a_place_is_held_until_the_response_is_over() {
    let upstream = echo();
    let limit = "plugins: {limit-conn: {conn: 1, burst: 0, default_conn_delay: 0.1, key: http_x}}";
    let document = routes(&upstream, &[("/slow", limit), ("/stream*", limit)]);
    let gateway = Gateway::start(&document);
    for (path, quick, sign) in [
        ("/slow", "/slow", "begun"),
        ("/stream", "/stream/", "data: more"),
    ] {
        for _ in 0..3 {
            let first = begun(&gateway, path, sign);
            assert_eq!(status(&gateway, quick, &[("X", "a")]), 503, "{path}");
            drop(first);
            let mut next = wait_until("a free place", || {
                let mut next = Connection::open(gateway.proxy);
                next.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nX: a\r\n\r\n").as_bytes());
                let head = next.read_until("\r\n\r\n");
                head.starts_with("HTTP/1.1 200").then_some(next)
            });
            next.read_until(sign);
            assert_eq!(status(&gateway, quick, &[("X", "a")]), 503, "{path}");
            drop(next);
            gateway.wait_until_idle();
        }
    }
}

/// What goes through quickly leaves nothing behind, however it is answered.
#[test]
fn places_are_given_back_by_every_kind_of_end() {
    let upstream = echo();
    let gone = Upstream::nobody();
    let limit = "limit-conn: {conn: 1, burst: 0, default_conn_delay: 0.1, key: remote_addr}";
    let refused = format!("plugins: {{{limit}, limit-count: {{count: 1, time_window: 3600}}}}");
    let plain = format!("plugins: {{{limit}}}");
    let document = routes(&upstream, &[("/refused", &refused), ("/plain", &plain)]);
    let dead = format!(
        "- {{id: dead, uri: /dead, {plain}, upstream: {{nodes: {{\"{gone}\": 1}}, retries: 0}}}}\n"
    );
    let gateway = Gateway::start(&format!("{document}{dead}"));
    for round in 0..5 {
        // What limit-count says comes after limit-conn, whose own 503 has no headers.
        let answer = get(gateway.proxy, "/refused", &[]);
        assert!(answer.header("x-ratelimit-limit").is_some(), "{round}");
        assert_eq!(status(&gateway, "/plain", &[]), 200, "{round}");
        assert_eq!(status(&gateway, "/dead", &[]), 502, "{round}");
    }
}

/// Above `conn` requests wait, and those of one rule leave those of another alone.
#[test]
fn what_is_above_the_limit_waits_and_rules_are_apart() {
    let upstream = echo();
    let waits = "plugins: {limit-conn: {conn: 1, burst: 1, default_conn_delay: 0.2, \
                 only_use_default_delay: true, key: remote_addr}}";
    let rules = "plugins: {limit-conn: {default_conn_delay: 0.1, rules: \
                 [{conn: 1, burst: 0, key: $http_x}, {conn: \"${http_n ?? 2}\", burst: 0, \
                 key: $http_y}]}}";
    let document = routes(&upstream, &[("/slow/waits", waits), ("/slow/rules", rules)]);
    let gateway = Gateway::start(&document);
    let first = begun(&gateway, "/slow/waits", "begun");
    let started = Instant::now();
    let second = begun(&gateway, "/slow/waits", "begun");
    assert!(started.elapsed() >= Duration::from_millis(199));
    assert_eq!(status(&gateway, "/slow/waits", &[]), 503);
    drop((first, second));
    let held = begun(&gateway, "/slow/rules", "begun");
    assert_eq!(status(&gateway, "/slow/rules", &[("X", "a")]), 503);
    assert_eq!(status(&gateway, "/slow/rules", &[]), 500);
    drop(held);
}
