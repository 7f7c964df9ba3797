//! The small plugins beside the AI ones, on the real binary.

#![allow(clippy::disallowed_methods, reason = "tests measure in real time")]

mod support;
mod companions {
    use super::{named, routes};

    mod breaking;
    mod mirroring;
    mod requests;
    mod responses;
    mod splitting;
}

use std::time::{Duration, Instant};

use support::{Answer, Gateway, Start, Upstream, get, request};

fn named(name: &'static str) -> Upstream {
    Upstream::start(move |_| Answer::text(200, name))
}

/// Routes with one plugin each, all to `upstream`: `(path, plugins in flow style)`.
fn routes(upstream: &Upstream, each: &[(&str, &str)]) -> String {
    let lines = each.iter().enumerate().map(|(id, (path, plugins))| {
        let (address, number) = (upstream.address, id + 1);
        format!(
            "- {{id: {number}, uri: {path}, plugins: {{{plugins}}}, \
             upstream: {{nodes: {{\"{address}\": 1}}}}}}\n"
        )
    });
    format!("routes:\n{}", lines.collect::<String>())
}

const CONSUMERS: &str = "consumers:\n\
    - {username: alice, labels: {department: sales}, plugins: {key-auth: {key: ka}, \
       basic-auth: {username: alice, password: \"p:w d\"}}}\n\
    - {username: bob, plugins: {key-auth: {key: kb}}}\n\
    - {username: nobody}\n";

/// G-117, and a password with a colon and a blank.
#[test]
fn basic_auth_knows_names_and_passwords() {
    let upstream = named("a");
    let document = routes(
        &upstream,
        &[
            ("/plain", "basic-auth: {}"),
            ("/hidden", "basic-auth: {hide_credentials: true}"),
            ("/open", "basic-auth: {anonymous_consumer: nobody}"),
            ("/lost", "basic-auth: {anonymous_consumer: missing}"),
        ],
    );
    let gateway = Gateway::start(&format!("{document}{CONSUMERS}"));
    let ask = |path: &str, value: Option<&str>| {
        let headers: Vec<(&str, &str)> = value.map(|v| ("Authorization", v)).into_iter().collect();
        let answer = get(gateway.proxy, path, &headers);
        let challenge = answer.header("www-authenticate").map(str::to_owned);
        (answer.status, answer.text(), challenge)
    };
    let refused = |message: &str| {
        let body = format!("{{\"message\":\"{message}\"}}\n");
        (401, body, Some("Basic realm=\"basic\"".to_owned()))
    };
    // alice:p:w d, alice:wrong, eve:p:w d
    let (good, bad, unknown) = (
        "Basic YWxpY2U6cDp3IGQ=",
        "Basic YWxpY2U6d3Jvbmc=",
        "Basic ZXZlOnA6dyBk",
    );
    assert_eq!(
        ask("/plain", None),
        refused("Missing authorization in request")
    );
    assert_eq!(
        ask("/plain", Some("Basic x")),
        refused("Invalid authorization in request")
    );
    assert_eq!(
        ask("/plain", Some(bad)),
        refused("Invalid user authorization")
    );
    assert_eq!(
        ask("/plain", Some(unknown)),
        refused("Invalid user authorization")
    );
    assert_eq!(ask("/plain", Some(good)).0, 200);
    assert_eq!(upstream.last().header("x-consumer-username"), Some("alice"));
    assert_eq!(upstream.last().header("authorization"), Some(good));
    assert_eq!(ask("/hidden", Some(good)).0, 200);
    assert_eq!(upstream.last().header("authorization"), None);
    assert_eq!(ask("/open", Some(bad)).0, 200);
    assert_eq!(
        upstream.last().header("x-consumer-username"),
        Some("nobody")
    );
    assert_eq!(ask("/lost", None), refused("Invalid user authorization"));
}

/// G-131 to G-133, G-136
#[test]
fn consumers_are_restricted_and_labelled() {
    let upstream = named("a");
    let document = routes(
        &upstream,
        &[
            (
                "/listed",
                "key-auth: {}, consumer-restriction: {whitelist: [alice]}",
            ),
            ("/nobody", "consumer-restriction: {whitelist: [alice]}"),
            (
                "/methods",
                "key-auth: {}, consumer-restriction: \
                 {allowed_by_methods: [{user: alice, methods: [GET]}]}",
            ),
            (
                "/worded",
                "key-auth: {}, consumer-restriction: {blacklist: [bob], rejected_code: 451, \
                 rejected_msg: no}",
            ),
            (
                "/route",
                "consumer-restriction: {type: route_id, whitelist: [\"5\"]}",
            ),
            (
                "/label",
                "key-auth: {}, attach-consumer-label: {headers: {X-Dept: $department}}",
            ),
        ],
    );
    let gateway = Gateway::start(&format!("{document}{CONSUMERS}"));
    let ask = |method: &str, path: &str, key: &str| {
        let headers = [("apikey", key), ("X-Dept", "forged")];
        let answer = request(gateway.proxy, method, path, &headers, "");
        (answer.status, answer.text())
    };
    let forbidden = "{\"message\":\"The consumer_name is forbidden.\"}\n".to_owned();
    assert_eq!(ask("GET", "/listed", "kb"), (403, forbidden.clone()));
    assert_eq!(ask("GET", "/listed", "ka").0, 200);
    let unknown = "{\"message\":\"The request is rejected, please check the consumer_name for \
                   this request\"}\n";
    assert_eq!(ask("GET", "/nobody", ""), (401, unknown.to_owned()));
    assert_eq!(ask("GET", "/methods", "ka").0, 200);
    assert_eq!(ask("POST", "/methods", "ka"), (403, forbidden));
    assert_eq!(ask("POST", "/methods", "kb").0, 200);
    assert_eq!(
        ask("GET", "/worded", "kb"),
        (451, "{\"message\":\"no\"}\n".to_owned())
    );
    assert_eq!(ask("GET", "/route", "").0, 200);
    assert_eq!(ask("GET", "/label", "ka").0, 200);
    assert_eq!(upstream.last().header("x-dept"), Some("sales"));
    assert_eq!(ask("GET", "/label", "kb").0, 200);
    assert_eq!(upstream.last().header("x-dept"), None);
}

/// G-134, G-135
#[test]
fn addresses_decide_also_those_that_somebody_else_tells() {
    let upstream = named("a");
    let worded = "ip-restriction: {blacklist: [127.0.0.1], message: no, response_code: 404}";
    let told = "real-ip: {source: http_x_forwarded_for, trusted_addresses: [127.0.0.1]}, \
                ip-restriction: {whitelist: [9.9.9.9]}";
    let document = routes(
        &upstream,
        &[
            ("/white", "ip-restriction: {whitelist: [127.0.0.0/24]}"),
            ("/black", "ip-restriction: {blacklist: [127.0.0.1]}"),
            ("/worded", worded),
            ("/told", told),
        ],
    );
    let gateway = Gateway::start(&document);
    let ask = |path: &str, forwarded: &[(&str, &str)]| {
        let answer = get(gateway.proxy, path, forwarded);
        (answer.status, answer.text())
    };
    let refused = "{\"message\":\"Your IP address is not allowed\"}\n".to_owned();
    assert_eq!(ask("/white", &[]).0, 200);
    assert_eq!(ask("/black", &[]), (403, refused.clone()));
    assert_eq!(
        ask("/worded", &[]),
        (404, "{\"message\":\"no\"}\n".to_owned())
    );
    assert_eq!(ask("/told", &[("X-Forwarded-For", "9.9.9.9")]).0, 200);
    assert_eq!(
        ask("/told", &[("X-Forwarded-For", "9.9.9.8")]),
        (403, refused.clone())
    );
    assert_eq!(ask("/told", &[]), (403, refused));
}

/// G-190, G-191
#[test]
fn the_client_is_who_somebody_trusted_tells() {
    let upstream = named("a");
    let from_header = "real-ip: {source: http_x_forwarded_for, trusted_addresses: [127.0.0.1";
    let document = routes(
        &upstream,
        &[
            (
                "/arg",
                "real-ip: {source: arg_ip, trusted_addresses: [127.0.0.1]}",
            ),
            (
                "/stranger",
                "real-ip: {source: arg_ip, trusted_addresses: [10.0.0.0/8]}",
            ),
            ("/last", &format!("{from_header}]}}")),
            (
                "/walk",
                &format!("{from_header}, 2.2.2.2], recursive: true}}"),
            ),
        ],
    );
    let gateway = Gateway::start(&document);
    let seen = |path: &str, forwarded: &[(&str, &str)]| {
        assert_eq!(get(gateway.proxy, path, forwarded).status, 200);
        let address = upstream.last().header("x-real-ip").map(str::to_owned);
        address.expect("an address")
    };
    assert_eq!(seen("/arg?ip=9.9.9.9", &[]), "9.9.9.9");
    assert_eq!(seen("/arg?ip=[2001:db8::1]:80", &[]), "2001:db8::1");
    assert_eq!(seen("/arg?ip=x", &[]), "127.0.0.1");
    assert_eq!(seen("/stranger?ip=9.9.9.9", &[]), "127.0.0.1");
    let chain = [("X-Forwarded-For", "1.1.1.1, 2.2.2.2")];
    assert_eq!(seen("/last", &chain), "2.2.2.2");
    assert_eq!(seen("/walk", &chain), "1.1.1.1");
    let sent = upstream.last().header("x-forwarded-for").map(str::to_owned);
    assert_eq!(sent.as_deref(), Some("1.1.1.1, 2.2.2.2, 1.1.1.1"));
}

/// Whose `X-Forwarded-*` count is a matter of who is connected, not of who a request says it is.
#[test]
fn a_client_that_is_told_of_is_not_trusted_for_that() {
    let upstream = named("a");
    let gateway = Gateway::start_with(Start {
        document: &routes(&upstream, &[("/arg", "real-ip: {source: arg_ip}")]),
        apisix: "  trusted_addresses: [127.0.0.2]\n",
        ..Start::default()
    });
    let forged = [
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-For", "1.1.1.1"),
    ];
    assert_eq!(get(gateway.proxy, "/arg?ip=127.0.0.2", &forged).status, 200);
    let sent = upstream.last();
    assert_eq!(sent.header("x-real-ip"), Some("127.0.0.2"));
    assert_eq!(sent.header("x-forwarded-proto"), Some("http"));
    assert_eq!(sent.header("x-forwarded-for"), Some("127.0.0.2"));
}

/// G-174 to G-177
#[test]
fn redirects_say_where_to_go() {
    let upstream = named("a");
    let document = routes(
        &upstream,
        &[
            ("/fixed", "redirect: {uri: /x}"),
            ("/moved", "redirect: {uri: /x, ret_code: 301}"),
            ("/named/*", "redirect: {uri: \"/y$uri\"}"),
            (
                "/re/*",
                "redirect: {regex_uri: [\"^/re/(a.*)\", \"/b/$1\"]}",
            ),
            ("/tls/*", "redirect: {http_to_https: true}"),
            (
                "/query",
                "redirect: {uri: /b?y=2, append_query_string: true}",
            ),
            ("/encoded", "redirect: {uri: \"/a b\", encode_uri: true}"),
        ],
    );
    let place = |gateway: &Gateway, method: &str, path: &str| {
        let headers = [("Host", "h.com:8080")];
        let answer = request(gateway.proxy, method, path, &headers, "");
        (answer.status, answer.header("location").map(str::to_owned))
    };
    let to = |status, place: &str| (status, Some(place.to_owned()));
    // The braces end the section of the plugin before it.
    let with_port = |prometheus: &'static str| {
        Gateway::start_with(Start {
            document: &document,
            prometheus,
            ..Start::default()
        })
    };
    let gateway = with_port("}, redirect: {https_port: 9443");
    assert_eq!(place(&gateway, "GET", "/fixed"), to(302, "/x"));
    assert_eq!(place(&gateway, "GET", "/moved"), to(301, "/x"));
    assert_eq!(place(&gateway, "GET", "/named/z"), to(302, "/y/named/z"));
    assert_eq!(place(&gateway, "GET", "/re/abc"), to(302, "/b/abc"));
    assert_eq!(place(&gateway, "GET", "/re/xyz"), (200, None));
    assert_eq!(place(&gateway, "GET", "/query?x=1"), to(302, "/b?y=2&x=1"));
    assert_eq!(place(&gateway, "GET", "/encoded"), to(302, "/a%20b"));
    assert_eq!(
        place(&gateway, "GET", "/tls/a?b=1"),
        to(301, "https://h.com:9443/tls/a?b=1")
    );
    assert_eq!(
        place(&gateway, "POST", "/tls/a"),
        to(308, "https://h.com:9443/tls/a")
    );
    let forwarded = [("Host", "h.com"), ("X-Forwarded-Proto", "https")];
    assert_eq!(
        get(gateway.proxy, "/tls/a", &forwarded).status,
        301,
        "a stranger's word"
    );
    let usual = to(301, "https://h.com/tls/a");
    assert_eq!(
        place(&with_port("}, redirect: {https_port: 443"), "GET", "/tls/a"),
        usual
    );
    assert_eq!(place(&with_port(""), "GET", "/tls/a"), usual);
    let trusting = Gateway::start_with(Start {
        document: &document,
        apisix: "  trusted_addresses: [127.0.0.1]\n",
        ..Start::default()
    });
    assert_eq!(get(trusting.proxy, "/tls/a", &forwarded).status, 200);
}

/// G-178 to G-180
#[test]
fn faults_are_injected_where_they_are_meant() {
    let upstream = named("a");
    let document = routes(
        &upstream,
        &[
            (
                "/abort",
                "fault-injection: {abort: {http_status: 418, body: $remote_addr, \
                 headers: {X-A: $request_method}}}, key-auth: {}",
            ),
            (
                "/some",
                "fault-injection: {abort: {http_status: 418, vars: [[[arg_f, ==, \"1\"]], \
                 [[arg_g, ==, \"1\"]]]}}",
            ),
            (
                "/never",
                "fault-injection: {abort: {http_status: 418, percentage: 0}}",
            ),
            ("/late", "fault-injection: {delay: {duration: 0.5}}"),
            (
                "/both",
                "fault-injection: {delay: {duration: 0.2}, abort: {http_status: 503}}",
            ),
        ],
    );
    let gateway = Gateway::start(&document);
    let aborted = get(gateway.proxy, "/abort", &[]);
    assert_eq!(
        (aborted.status, aborted.text().as_str()),
        (418, "127.0.0.1")
    );
    assert_eq!(aborted.header("x-a"), Some("GET"));
    for (path, status) in [
        ("/some", 200),
        ("/some?f=1", 418),
        ("/some?g=1", 418),
        ("/never", 200),
    ] {
        assert_eq!(get(gateway.proxy, path, &[]).status, status, "{path}");
    }
    for (path, status, least) in [("/late", 200, 500), ("/both", 503, 200)] {
        let started = Instant::now();
        assert_eq!(get(gateway.proxy, path, &[]).status, status);
        assert!(started.elapsed() >= Duration::from_millis(least), "{path}");
    }
}

/// G-181, and bodies that are made up
#[test]
fn mocks_answer_instead_of_the_target() {
    let upstream = named("a");
    let document = routes(
        &upstream,
        &[
            (
                "/example",
                "mocking: {response_example: \"{\\\"p\\\": \\\"$uri\\\"}\"}",
            ),
            (
                "/made-up",
                "mocking: {response_schema: {type: object, properties: {n: {type: integer}, \
                 s: {type: string, example: x}}}, with_mock_header: false, response_status: 201, \
                 response_headers: {X-A: b}}",
            ),
            (
                "/xml",
                "mocking: {response_schema: {type: object, properties: {s: {type: string, \
                 example: x}}}, content_type: text/xml}",
            ),
        ],
    );
    let gateway = Gateway::start(&document);
    let example = get(gateway.proxy, "/example", &[]);
    assert_eq!(
        (example.status, example.text().as_str()),
        (200, "{\"p\": \"/example\"}")
    );
    assert_eq!(
        example.header("content-type"),
        Some("application/json;charset=utf8")
    );
    assert_eq!(example.header("x-mock-by"), Some("APISIX/3.18.0"));
    let made_up = get(gateway.proxy, "/made-up", &[]);
    assert_eq!((made_up.status, made_up.header("x-mock-by")), (201, None));
    assert_eq!(made_up.header("x-a"), Some("b"));
    assert!(made_up.json()["n"].is_i64());
    assert_eq!(made_up.json()["s"], "x");
    assert_eq!(
        get(gateway.proxy, "/xml", &[]).text(),
        "<data><s>x</s></data>"
    );
    assert_eq!(upstream.hits(), 0);
}

/// `uri-blocker`, `ua-restriction` and `referer-restriction`, as APISIX documents them.
#[test]
fn paths_agents_and_pages_are_refused() {
    let upstream = named("a");
    let document = routes(
        &upstream,
        &[
            (
                "/uri/*",
                "uri-blocker: {block_rules: [\"root.exe\", \"^/uri/x\"], rejected_msg: no}",
            ),
            (
                "/case/*",
                "uri-blocker: {block_rules: [ROOT], case_insensitive: true}",
            ),
            ("/agent", "ua-restriction: {denylist: [\"(?i)bot/\"]}"),
            (
                "/agents",
                "ua-restriction: {allowlist: [good], bypass_missing: true, message: no}",
            ),
            (
                "/page",
                "referer-restriction: {whitelist: [a.com, \"*.b.com\"]}",
            ),
            (
                "/pages",
                "referer-restriction: {blacklist: [a.com], bypass_missing: true}",
            ),
        ],
    );
    let gateway = Gateway::start(&document);
    let blocked = get(gateway.proxy, "/uri/a?x=root.exe", &[]);
    assert_eq!(
        (blocked.status, blocked.text().as_str()),
        (403, "{\"error_msg\":\"no\"}\n")
    );
    for (path, status) in [
        ("/uri/a", 200),
        ("/uri/x", 403),
        ("/uri/%78", 403),
        ("/uri/y/../x", 403),
        ("/case/root", 403),
        ("/case/r", 200),
    ] {
        assert_eq!(get(gateway.proxy, path, &[]).status, status, "{path}");
    }
    let missing = get(gateway.proxy, "/agent", &[]);
    assert_eq!(
        (missing.status, missing.text().as_str()),
        (403, "{\"message\":\"Not allowed\"}\n")
    );
    for (path, name, value, status) in [
        ("/agent", "User-Agent", "BadBot/1", 403),
        ("/agent", "User-Agent", "curl", 200),
        ("/agents", "User-Agent", "good", 200),
        ("/agents", "User-Agent", "curl", 403),
        ("/agents", "X", "", 200),
        ("/page", "Referer", "https://a.com/x", 200),
        ("/page", "Referer", "http://X.B.com:80/", 200),
        ("/page", "Referer", "https://c.com/a.com", 403),
        ("/page", "Referer", "a.com.evil", 403),
        ("/page", "X", "", 403),
        ("/pages", "Referer", "https://a.com", 403),
        ("/pages", "Referer", "https://b.com", 200),
        ("/pages", "X", "", 200),
    ] {
        let status_of = get(gateway.proxy, path, &[(name, value)]).status;
        assert_eq!(status_of, status, "{path} {name}: {value}");
    }
}

/// `csrf`: a page of somebody else can send the cookie, and not read it.
#[test]
fn writes_need_the_token_of_the_cookie() {
    let upstream = named("a");
    let gateway = Gateway::start(&routes(
        &upstream,
        &[("/x", "csrf: {key: secret, name: tok}")],
    ));
    let read = get(gateway.proxy, "/x", &[]);
    assert_eq!(read.status, 200);
    let cookie = read.header("set-cookie").expect("a cookie").to_owned();
    let token = cookie
        .strip_prefix("tok=")
        .and_then(|rest| rest.split(';').next());
    let token = token.expect("a token");
    assert!(cookie.contains(";path=/;SameSite=Lax;Expires="), "{cookie}");
    let write = |header: &str, cookie: &str| {
        let line = format!("a=b; tok={cookie}");
        let all = [("tok", header), ("Cookie", line.as_str())];
        let headers = &all[usize::from(header.is_empty())..2 - usize::from(cookie.is_empty())];
        let answer = request(gateway.proxy, "POST", "/x", headers, "{}");
        (answer.status, answer.text())
    };
    let refused = |text: &str| (401, format!("{{\"error_msg\":\"{text}\"}}\n"));
    assert_eq!(write(token, token).0, 200);
    assert_eq!(write("", token), refused("no csrf token in headers"));
    assert_eq!(write(token, ""), refused("no csrf cookie"));
    assert_eq!(write("other", token), refused("csrf token mismatch"));
    let forged = "eyJyYW5kb20iOjAuMSwiZXhwaXJlcyI6OTk5OTk5OTk5OSwic2lnbiI6IjAwIn0=";
    assert_eq!(
        write(forged, forged),
        refused("Failed to verify the csrf token signature")
    );
}
