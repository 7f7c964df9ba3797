//! The gateway around the AI routes: routing, plain upstreams, consumers, plugins, reload.

mod support;

use std::time::Duration;

use support::{
    Answer, CHAT, Gateway, Start, Upstream, client::Connection, get, post_json, request,
};

fn named(name: &'static str) -> Upstream {
    Upstream::start(move |_| Answer::text(200, name))
}

/// G-001 to G-003, G-015, G-019, G-020, G-041, G-042
#[test]
fn routes_are_found_and_everything_else_is_404() {
    let (a, b) = (named("a"), named("b"));
    let gateway = Gateway::start(&format!(
        "routes:\n\
         - {{id: 1, uri: /hello, upstream: {{nodes: {{\"{a}\": 1}}}}}}\n\
         - {{id: 2, uri: /*, host: \"*.t.com\", upstream: {{nodes: {{\"{b}\": 1}}}}}}\n\
         - {{id: 3, uri: /body, vars: [[post_arg.model, ==, gpt-4]], upstream: {{nodes: {{\"{a}\": 1}}}}}}\n\
         - {{id: 4, uri: /list, vars: [[\"post_arg.messages[*].role\", has, tool]], upstream: {{nodes: {{\"{b}\": 1}}}}}}\n",
        a = a.address,
        b = b.address
    ));
    let text = |target: &str, host: &str| get(gateway.proxy, target, &[("Host", host)]).text();
    for path in ["/hello", "/%68ello", "//hello", "/x/../hello"] {
        assert_eq!(text(path, "other"), "a", "{path}");
    }
    assert_eq!(text("/hello", "a.t.com"), "b");
    let missing = get(gateway.proxy, "/nope", &[]);
    assert_eq!(
        (missing.status, missing.text().as_str()),
        (404, "{\"error_msg\":\"404 Route Not Found\"}\n")
    );
    assert_eq!(
        missing.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert!(
        missing
            .header("server")
            .expect("a server")
            .starts_with("APISIX")
    );
    assert_eq!(
        post_json(gateway.proxy, "/body", r#"{"model":"gpt-4"}"#).text(),
        "a"
    );
    assert_eq!(a.last().text(), r#"{"model":"gpt-4"}"#);
    assert_eq!(
        post_json(gateway.proxy, "/body", r#"{"model":"x"}"#).status,
        404
    );
    assert_eq!(
        post_json(gateway.proxy, "/list", r#"{"messages":[{"role":"tool"}]}"#).text(),
        "b"
    );
    assert_eq!(
        post_json(gateway.proxy, "/list", r#"{"messages":[{"role":"user"}]}"#).status,
        404
    );
    assert_eq!(get(gateway.proxy, "/..", &[]).status, 400);
}

/// G-047, G-051 to G-056, G-061 to G-064, G-070 to G-074
#[test]
fn plain_upstreams_balance_retry_and_report() {
    let (a, b) = (named("a"), named("b"));
    let broken = Upstream::failing(500);
    let slow =
        Upstream::start(|_| Answer::After(Duration::from_secs(3), Box::new(Answer::text(200, ""))));
    let dead: Vec<_> = (0..3).map(|_| Upstream::nobody()).collect();
    let gateway = Gateway::start(&format!(
        "routes:\n\
         - {{id: 1, uri: /weights, upstream: {{nodes: {{\"{a}\": 3, \"{b}\": 1}}}}}}\n\
         - {{id: 2, uri: /one-dead, upstream: {{nodes: {{\"{d0}\": 1, \"{a}\": 1}}}}}}\n\
         - {{id: 3, uri: /dead, upstream: {{nodes: {{\"{d0}\": 1, \"{d1}\": 1, \"{d2}\": 1}}}}}}\n\
         - {{id: 4, uri: /broken, upstream: {{nodes: {{\"{broken}\": 1}}}}}}\n\
         - {{id: 5, uri: /slow, timeout: {{connect: 1, send: 1, read: 0.2}}, upstream: {{nodes: {{\"{slow}\": 1}}}}}}\n\
         - {{id: 6, uri: /none, upstream: {{nodes: {{}}}}}}\n\
         - {{id: 7, uri: /service, service_id: 9}}\n\
         - {{id: 8, uri: /config, plugin_config_id: 9, upstream: {{nodes: {{\"{a}\": 1}}}}}}\n\
         - {{id: 9, uri: /upstream, upstream_id: 9}}\n\
         - {{id: 10, uri: /rewrite, upstream: {{pass_host: rewrite, upstream_host: x.com, nodes: {{\"{a}\": 1}}}}}}\n\
         - {{id: 11, uri: /node, upstream: {{pass_host: node, nodes: {{\"localhost:{port}\": 1}}}}}}\n\
         - {{id: 12, uri: /plugins, plugins: {{request-id: {{}}}}}}\n",
        a = a.address,
        b = b.address,
        d0 = dead[0],
        d1 = dead[1],
        d2 = dead[2],
        broken = broken.address,
        slow = slow.address,
        port = a.port()
    ));
    for _ in 0..8 {
        assert_eq!(get(gateway.proxy, "/weights", &[]).status, 200);
    }
    assert_eq!((a.hits(), b.hits()), (6, 2));
    for _ in 0..6 {
        assert_eq!(post_json(gateway.proxy, "/one-dead", "{}").status, 200);
    }
    let all_dead = get(gateway.proxy, "/dead", &[]);
    assert_eq!(
        (all_dead.status, all_dead.header("x-apisix-upstream-status")),
        (502, Some("502, 502, 502"))
    );
    let failed = get(gateway.proxy, "/broken", &[]);
    assert_eq!(
        (failed.status, failed.header("x-apisix-upstream-status")),
        (500, Some("500"))
    );
    assert_eq!(broken.hits(), 1);
    assert_eq!(get(gateway.proxy, "/slow", &[]).status, 504);
    assert_eq!(get(gateway.proxy, "/none", &[]).status, 503);
    assert_eq!(get(gateway.proxy, "/service", &[]).status, 404);
    assert_eq!(get(gateway.proxy, "/config", &[]).status, 503);
    assert_eq!(get(gateway.proxy, "/upstream", &[]).status, 502);
    assert_eq!(get(gateway.proxy, "/plugins", &[]).status, 503);
    get(gateway.proxy, "/rewrite", &[]);
    assert_eq!(a.last().header("host"), Some("x.com"));
    get(gateway.proxy, "/node", &[]);
    assert_eq!(
        a.last().header("host"),
        Some(format!("localhost:{}", a.port()).as_str())
    );
    let forged = [
        ("Host", "a.com"),
        ("X-Forwarded-For", "1.2.3.4"),
        ("X-Forwarded-Proto", "https"),
        ("Forwarded", "x"),
    ];
    let fine = get(gateway.proxy, "/weights", &forged);
    assert_eq!(fine.header("x-apisix-upstream-status"), None);
    let sent = [a.last(), b.last()]
        .into_iter()
        .max_by_key(|received| received.at)
        .expect("two");
    assert_eq!(
        (sent.header("host"), sent.header("x-real-ip")),
        (Some("a.com"), Some("127.0.0.1"))
    );
    assert_eq!(sent.header("x-forwarded-for"), Some("1.2.3.4, 127.0.0.1"));
    assert_eq!(
        (sent.header("x-forwarded-proto"), sent.header("forwarded")),
        (Some("http"), None)
    );
}

/// G-092, G-093, G-096 to G-098, G-108 to G-112
#[test]
fn consumers_authenticate_with_keys() {
    let a = named("a");
    let gateway = Gateway::start_with(Start {
        environment: &[("ALICE", "alice-key")],
        document: &format!(
            "routes:\n\
             - {{id: 1, uri: /k, plugins: {{key-auth: {{}}}}, upstream: &up {{nodes: {{\"{a}\": 1}}}}}}\n\
             - {{id: 2, uri: /h, plugins: {{key-auth: {{hide_credentials: true, header: Authorization}}}}, upstream: *up}}\n\
             - {{id: 3, uri: /off, plugins: {{key-auth: {{_meta: {{disable: true}}}}}}, upstream: *up}}\n\
             - {{id: 4, uri: /f, plugins: {{key-auth: {{_meta: {{filter: [[arg_skip, \"!\", ==, \"1\"]], error_response: {{message: no}}}}}}}}, upstream: *up}}\n\
             consumers:\n\
             - {{username: alice, labels: {{custom_id: \"42\"}}, plugins: {{key-auth: {{key: \"$env://ALICE\"}}}}}}\n\
             - {{id: alice/credentials/c1, plugins: {{key-auth: {{key: Bearer c1}}}}}}\n\
             - {{username: bob, plugins: {{key-auth: {{key: \"$env://NOBODY\"}}}}}}\n",
            a = a.address
        ),
        ..Start::default()
    });
    let none = get(gateway.proxy, "/k", &[]);
    assert_eq!(
        (none.status, none.text().as_str()),
        (401, "{\"message\":\"Missing API key in request\"}\n")
    );
    assert_eq!(
        none.header("www-authenticate"),
        Some("apikey realm=\"key\"")
    );
    let wrong = get(gateway.proxy, "/k?apikey=alice-key", &[("apikey", "wrong")]);
    assert_eq!(
        wrong.text(),
        "{\"message\":\"Invalid API key in request\"}\n"
    );
    // Fail closed: the text of a reference is no key.
    assert_eq!(
        get(gateway.proxy, "/k", &[("apikey", "$env://NOBODY")]).status,
        401
    );
    let forged = [
        ("apikey", "alice-key"),
        ("X-Consumer-Username", "root"),
        ("X-Credential-Identifier", "x"),
    ];
    assert_eq!(get(gateway.proxy, "/k", &forged).status, 200);
    let sent = a.last();
    assert_eq!(sent.header("x-consumer-username"), Some("alice"));
    assert_eq!(
        (
            sent.header("x-consumer-custom-id"),
            sent.header("x-credential-identifier")
        ),
        (Some("42"), None)
    );
    assert_eq!(get(gateway.proxy, "/k?apikey=alice-key", &[]).status, 200);
    assert_eq!(
        get(gateway.proxy, "/h", &[("Authorization", "c1")]).status,
        401
    );
    assert_eq!(
        get(gateway.proxy, "/h", &[("Authorization", "Bearer c1")]).status,
        200
    );
    let sent = a.last();
    assert_eq!(
        (
            sent.header("authorization"),
            sent.header("x-credential-identifier")
        ),
        (None, Some("c1"))
    );
    assert_eq!(get(gateway.proxy, "/off", &[]).status, 200);
    assert_eq!(get(gateway.proxy, "/f?skip=1", &[]).status, 200);
    assert_eq!(
        get(gateway.proxy, "/f", &[]).text(),
        "{\"message\":\"no\"}\n"
    );
    let log = std::fs::read_to_string(gateway.folder().join("access.log")).unwrap_or_default();
    assert!(!log.contains("alice-key"), "a key is in the access log");
}

/// G-090, G-106, G-157, G-158, G-161, G-163 to G-168
#[test]
fn plugins_change_requests_and_responses() {
    let a = named("a");
    let gateway = Gateway::start(&format!(
        "routes:\n\
         - {{id: 1, uri: /old, plugins: {{proxy-rewrite: {{uri: \"/new?b=2\"}}}}, upstream: &up {{nodes: {{\"{a}\": 1}}}}}}\n\
         - {{id: 2, uri: /api/*, plugins: {{proxy-rewrite: {{regex_uri: [\"^/api/(.*)\", \"/$1\"], headers: {{set: {{X-A: $remote_addr, X-B: new}}, add: {{X-B: more}}, remove: [X-C]}}}}}}, upstream: *up}}\n\
         - {{id: 3, uri: /raw/*, plugins: {{proxy-rewrite: {{use_real_request_uri_unsafe: true}}}}, upstream: *up}}\n\
         - {{id: 4, uri: /id, plugins: {{request-id: {{}}}}, upstream: *up}}\n\
         - {{id: 5, uri: /cors, plugins: {{cors: {{allow_origins: \"http://a.com,http://b.com\"}}, key-auth: {{}}}}, upstream: *up}}\n\
         - {{id: 6, uri: /mine, plugins: {{key-auth: {{}}}}, upstream: *up}}\n\
         consumers:\n\
         - {{username: alice, plugins: {{key-auth: {{key: k}}, proxy-rewrite: {{headers: {{X-Mine: yes}}}}}}}}\n",
        a = a.address
    ));
    get(gateway.proxy, "/old?a=1", &[]);
    assert_eq!(a.last().target, "/new?b=2&a=1");
    get(
        gateway.proxy,
        "/api/x/y%20z",
        &[("X-B", "old"), ("X-C", "1")],
    );
    let sent = a.last();
    assert_eq!(
        (sent.target.as_str(), sent.header("x-a")),
        ("/x/y%20z", Some("127.0.0.1"))
    );
    assert_eq!(
        (sent.header("x-b"), sent.header("x-c")),
        (Some("new"), None)
    );
    // A `?` that a client brings belongs to the path.
    get(gateway.proxy, "/api/x%3Fadmin=1", &[]);
    assert_eq!(a.last().target, "/x%3Fadmin=1");
    get(gateway.proxy, "/raw/a%2Fb", &[]);
    assert_eq!(a.last().target, "/raw/a%2Fb");
    let made = get(gateway.proxy, "/id", &[]);
    assert_eq!(made.header("x-request-id"), a.last().header("x-request-id"));
    assert_eq!(made.header("x-request-id").map(str::len), Some(36));
    assert_eq!(
        get(gateway.proxy, "/id", &[("X-Request-Id", "q")]).header("x-request-id"),
        Some("q")
    );
    let preflight = request(
        gateway.proxy,
        "OPTIONS",
        "/cors",
        &[("Origin", "http://b.com")],
        "",
    );
    assert_eq!(
        (
            preflight.status,
            preflight.header("access-control-allow-origin")
        ),
        (200, Some("http://b.com"))
    );
    let refused = get(gateway.proxy, "/cors", &[("Origin", "http://c.com")]);
    assert_eq!(
        (
            refused.status,
            refused.header("vary"),
            refused.header("access-control-allow-origin")
        ),
        (401, Some("Origin"), None)
    );
    get(gateway.proxy, "/mine", &[("apikey", "k")]);
    assert_eq!(a.last().header("x-mine"), Some("yes"));
}

/// G-077: a protocol switch is joined; G-081: an event stream arrives piece by piece.
#[test]
fn websockets_and_event_streams_pass() {
    let sockets = Upstream::start(|received| {
        assert_eq!(received.header("upgrade"), Some("websocket"));
        Answer::Raw(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello".to_vec())
    });
    let events = Upstream::start(|_| Answer::events(&["data: 1", "data: 2"]));
    let gateway = Gateway::start(&format!(
        "routes:\n- {{id: 1, uri: /ws, enable_websocket: true, upstream: {{nodes: {{\"{}\": 1}}}}}}\n\
         - {{id: 2, uri: /sse, upstream: {{nodes: {{\"{}\": 1}}}}}}\n",
        sockets.address, events.address
    ));
    let mut client = Connection::open(gateway.proxy);
    client
        .send(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.response(false).status, 101);
    client.read_until("hello");
    assert_eq!(
        get(gateway.proxy, "/sse", &[]).text(),
        "data: 1\n\ndata: 2\n\n"
    );
    gateway.wait_until_idle();
}

/// G-264 to G-270: reload, and broken files.
#[test]
fn changes_apply_and_broken_files_do_not() {
    let (a, b) = (named("a"), named("b"));
    let document = |upstream: &Upstream| {
        format!(
            "routes:\n- {{id: 1, uri: /x, upstream: {{nodes: {{\"{}\": 1}}}}}}\n",
            upstream.address
        )
    };
    let gateway = Gateway::start(&document(&a));
    let text = || get(gateway.proxy, "/x", &[]).text();
    assert_eq!(text(), "a");
    gateway.reload(&document(&b));
    assert_eq!(text(), "b");
    assert!(gateway.reload_refused("routes: [\n#END").contains("line"));
    assert!(gateway.reload_refused(&document(&a)).contains("#END"));
    assert!(
        gateway
            .reload_refused("routes: ${{NOPE}}\n#END")
            .contains("NOPE")
    );
    assert_eq!(text(), "b");
    gateway.reload(&format!("{}- {{id: 2, uri: 5}}\n", document(&a)));
    assert_eq!(text(), "a");
    gateway.wait_for_line("routes[1] (id 2) uri");
}

/// I-12: a request that is being uploaded belongs to the configuration that it began under,
/// however often that changes meanwhile.
#[test]
fn an_upload_outlives_changes_of_configuration() {
    let old = named("old");
    let others: Vec<Upstream> = (0..3).map(|_| named("new")).collect();
    let plain = |upstream: &Upstream| {
        format!(
            "routes:\n- {{id: 1, uri: /x, upstream: {{nodes: {{\"{}\": 1}}}}}}\n",
            upstream.address
        )
    };
    let ai =
        |upstream: &Upstream| support::multi(&[support::instance("a", upstream.address, "")], "");
    for document in [plain, ai] {
        let gateway = Gateway::start(&document(&old));
        let before = old.hits();
        let mut slow = Connection::open(gateway.proxy);
        let (start, end) = CHAT.split_at(5);
        let head = format!(
            "POST /x HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{start}",
            CHAT.len()
        );
        slow.send(head.as_bytes());
        // The gateway has begun to serve it.
        support::wait_until("the request to be under way", || {
            let page = gateway.metrics();
            page.lines()
                .any(|line| {
                    line.starts_with("pointsman_requests_in_flight") && !line.ends_with(" 0")
                })
                .then_some(())
        });
        for other in &others {
            gateway.reload(&document(other));
        }
        gateway.reload("routes: []");
        assert_eq!(get(gateway.proxy, "/x", &[]).status, 404);
        slow.send(end.as_bytes());
        let response = slow.response(false);
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(old.hits(), before + 1);
        assert_eq!(old.last().text(), CHAT);
    }
    assert!(others.iter().all(|other| other.hits() == 0));
}

/// G-082, G-099 (with cors), G-102: services, plugin_configs and global rules.
#[test]
fn plugins_merge_by_name() {
    let a = named("a");
    let gateway = Gateway::start(&format!(
        "routes:\n\
         - {{id: 1, uri: /s, service_id: 1}}\n\
         - {{id: 2, uri: /r, service_id: 1, plugins: {{proxy-rewrite: {{headers: {{X-From: route}}}}}}}}\n\
         - {{id: 3, uri: /c, plugin_config_id: 1, service_id: 1}}\n\
         services:\n- {{id: 1, upstream: {{nodes: {{\"{a}\": 1}}}}, plugins: {{proxy-rewrite: {{headers: {{X-From: service}}}}}}}}\n\
         plugin_configs:\n- {{id: 1, plugins: {{proxy-rewrite: {{headers: {{X-From: config}}}}}}}}\n\
         global_rules:\n- {{id: 1, plugins: {{request-id: {{}}, cors: {{}}}}}}\n- {{id: 2, plugins: {{cors: {{}}}}}}\n",
        a = a.address
    ));
    for (path, from) in [("/s", "service"), ("/r", "route"), ("/c", "config")] {
        let response = get(gateway.proxy, path, &[("Origin", "http://x")]);
        assert_eq!(
            (response.status, a.last().header("x-from")),
            (200, Some(from)),
            "{path}"
        );
        assert!(response.header("x-request-id").is_some());
        assert_eq!(response.header("access-control-allow-origin"), None);
    }
    assert!(
        get(gateway.proxy, "/nope", &[])
            .header("x-request-id")
            .is_some()
    );
}

/// G-276 to G-278, G-280: the Control API and the status server.
#[test]
fn side_servers_answer() {
    let gateway = Gateway::start_with(Start {
        document: "routes:\n- {id: 1, uri: /x, upstream: {nodes: {\"127.0.0.1:1\": 1}}}",
        apisix: "  status: {ip: 127.0.0.1, port: 0}",
        ..Start::default()
    });
    let route = gateway.control("/v1/route/1").json();
    assert_eq!(
        (&route["key"], &route["value"]["priority"]),
        (&"/routes/1".into(), &0.into())
    );
    assert_eq!(route["value"]["upstream"]["nodes"][0]["host"], "127.0.0.1");
    assert_eq!(
        gateway.control("/v1/route/2").json()["error_msg"],
        "route[2] not found"
    );
    assert_eq!(gateway.control("/v1/healthcheck").text(), "{}");
    let schema = gateway.control("/v1/schema").json();
    assert_eq!(schema["plugins"]["key-auth"]["priority"], 2500);
    assert!(schema["main"]["route"]["properties"]["uri"].is_object());
    // G-276: HEAD says what GET would, without the body.
    let control = gateway.address("control");
    for path in [
        "/v1/route/1",
        "/v1/routes",
        "/v1/schema",
        "/v1/healthcheck",
        "/v1/route/2",
    ] {
        let (head, get) = (
            request(control, "HEAD", path, &[], ""),
            gateway.control(path),
        );
        assert_eq!(head.status, get.status, "{path}");
        assert_eq!(
            head.header("content-length"),
            get.header("content-length"),
            "{path}"
        );
        assert_eq!((head.body.len(), get.body.is_empty()), (0, false), "{path}");
    }
    let status = gateway.address("status");
    assert_eq!(get(status, "/status", &[]).json()["status"], "ok");
    assert_eq!(get(status, "/status/ready", &[]).status, 200);
}

/// G-279: scripts that reload plugins are told that it is done.
#[test]
fn plugins_are_reloaded_by_put_alone() {
    let gateway = Gateway::start("routes: []");
    let control = gateway.address("control");
    let ask = |method: &str| request(control, method, "/v1/plugins/reload", &[], "");
    let done = ask("PUT");
    assert_eq!((done.status, done.text().as_str()), (200, "done"));
    assert_eq!((ask("GET").status, ask("POST").status), (404, 404));
}

/// A plugin whose filter looks into the body: the body is read first, and what cannot be looked
/// at does not switch authentication off.
#[test]
fn filters_see_the_body() {
    let a = named("a");
    let gateway = Gateway::start(&format!(
        "routes:\n\
         - {{id: 1, uri: /x, plugins: {{key-auth: {{_meta: {{filter: [[\"post_arg.model\", \"==\", \"paid\"]]}}}}}}, upstream: {{nodes: {{\"{a}\": 1}}}}}}\n\
         consumers:\n- {{username: alice, plugins: {{key-auth: {{key: k}}}}}}\n",
        a = a.address
    ));
    let ask = |body: &str, key: &[(&str, &str)]| {
        let headers = [&[("Content-Type", "application/json")], key].concat();
        request(gateway.proxy, "POST", "/x", &headers, body).status
    };
    assert_eq!(ask(r#"{"model":"paid"}"#, &[]), 401);
    assert_eq!(ask(r#"{"model":"paid"}"#, &[("apikey", "k")]), 200);
    assert_eq!(ask(r#"{"model":"free"}"#, &[]), 200);
    assert_eq!(a.last().text(), r#"{"model":"free"}"#);
}

/// G-112: a credential in the query is hidden from the target and from logs, however it is spelt.
#[test]
fn keys_in_queries_are_hidden() {
    let a = named("a");
    let gateway = Gateway::start(&format!(
        "routes:\n\
         - {{id: 1, uri: /x, plugins: {{key-auth: {{query: mykey, hide_credentials: true}}}}, upstream: {{nodes: {{\"{a}\": 1}}}}}}\n\
         consumers:\n- {{username: alice, plugins: {{key-auth: {{key: sesame}}}}}}\n",
        a = a.address
    ));
    for query in ["mykey=sesame&a=1", "a=1&my%6bey=sesame"] {
        assert_eq!(get(gateway.proxy, &format!("/x?{query}"), &[]).status, 200);
        assert_eq!(a.last().target, "/x?a=1");
    }
    let lines = gateway.access_log(2);
    assert!(
        lines
            .iter()
            .all(|line| !line.to_string().contains("sesame")),
        "{lines:?}"
    );
}

/// G-273, and forwarded lines that are one list.
#[test]
fn a_document_may_name_its_plugins() {
    let a = named("a");
    let gateway = Gateway::start(&format!(
        "plugins:\n- {{name: cors}}\n- {{name: mqtt-proxy, stream: true}}\n\
         routes:\n\
         - {{id: 1, uri: /keyed, plugins: {{key-auth: {{}}}}, upstream: &up {{nodes: {{\"{a}\": 1}}}}}}\n\
         - {{id: 2, uri: /cors, plugins: {{cors: {{}}}}, upstream: *up}}\n",
        a = a.address
    ));
    assert_eq!(get(gateway.proxy, "/keyed", &[]).status, 404);
    let lines = [
        ("X-Forwarded-For", "1.1.1.1"),
        ("X-Forwarded-For", "2.2.2.2"),
    ];
    assert_eq!(get(gateway.proxy, "/cors", &lines).status, 200);
    assert_eq!(
        a.last().header("x-forwarded-for"),
        Some("1.1.1.1, 2.2.2.2, 127.0.0.1")
    );
}

/// A document that is linked from elsewhere changes without a word from its folder.
#[cfg(unix)]
#[test]
fn a_linked_document_is_noticed() {
    let (a, b) = (named("a"), named("b"));
    let route = |upstream: &Upstream| {
        format!(
            "routes:\n- {{id: 1, uri: /x, upstream: {{nodes: {{\"{}\": 1}}}}}}\n#END\n",
            upstream.address
        )
    };
    let elsewhere = tempfile::tempdir().expect("a folder");
    let target = elsewhere.path().join("document");
    std::fs::write(&target, route(&a)).expect("written");
    let gateway = Gateway::start("routes: []\n");
    let document = gateway.folder().join("apisix.yaml");
    std::fs::remove_file(&document).expect("removed");
    std::os::unix::fs::symlink(&target, &document).expect("linked");
    let answered_by = |upstream: &Upstream| {
        let hits = upstream.hits();
        support::wait_until("the document to be applied", || {
            get(gateway.proxy, "/x", &[]);
            (upstream.hits() > hits).then_some(())
        });
    };
    answered_by(&a);
    std::fs::write(&target, route(&b)).expect("written");
    answered_by(&b);
}
