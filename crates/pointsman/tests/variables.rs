//! Request variables where they are used: in conditions, texts, keys and log formats.

mod support;

use std::{
    io::{Read, Write},
    net::TcpListener,
};

use serde_json::Value;
use support::{
    Answer, Gateway, Start, Upstream,
    client::{self, Connection},
    get, post_json, request,
};

fn named(name: &'static str) -> Upstream {
    Upstream::start(move |_| Answer::text(200, name))
}

/// What a file-logger wrote.
struct Log(tempfile::TempDir);

impl Log {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    /// The configuration of the logger, with further fields.
    fn plugin(&self, more: &str) -> String {
        let path = self.0.path().join("log");
        format!("file-logger: {{path: \"{}\"{more}}}", path.display())
    }

    /// The entries once there are `count`.
    fn entries(&self, count: usize) -> Vec<Value> {
        support::wait_until("log entries", || {
            let text = std::fs::read_to_string(self.0.path().join("log")).ok()?;
            let lines: Vec<Value> = text
                .lines()
                .map(|line| serde_json::from_str(line).expect("a JSON line"))
                .collect();
            (lines.len() >= count && text.ends_with('\n')).then_some(lines)
        })
    }

    fn last(&self, count: usize) -> Value {
        self.entries(count).swap_remove(count - 1)
    }
}

#[test]
fn graphql_requests_are_routed_by_what_they_ask_for() {
    let (a, b, c) = (named("a"), named("b"), named("c"));
    let gateway = Gateway::start(&format!(
        "routes:\n\
         - {{id: 1, uri: /g, vars: [[graphql_operation, ==, mutation], [graphql_name, ==, addRepo]], upstream: {{nodes: {{\"{a}\": 1}}}}}}\n\
         - {{id: 2, uri: /g, vars: [[graphql_root_fields, has, owner]], upstream: {{nodes: {{\"{b}\": 1}}}}}}\n\
         - {{id: 3, uri: /g, vars: [[graphql_operation, ==, query], [graphql_name, ==, \"\"]], upstream: {{nodes: {{\"{c}\": 1}}}}}}\n",
        a = a.address,
        b = b.address,
        c = c.address
    ));
    let json = |query: &str| {
        let body = serde_json::json!({"query": query, "variables": {}}).to_string();
        post_json(gateway.proxy, "/g", &body)
    };
    let add = "mutation addRepo($n: String!) { repo: add(name: $n) { id } }";
    assert_eq!(json(add).text(), "a");
    assert_eq!(json("mutation dropRepo { drop }").status, 404);
    assert_eq!(json("query q { repo mine: owner { name } }").text(), "b");
    assert_eq!(json("{ repo { owner } }").text(), "c");
    assert_eq!(json("{ repo").status, 404);
    // A body that says nothing of JSON is the document itself.
    let plain = [("Content-Type", "application/graphql")];
    let sent = request(gateway.proxy, "POST", "/g", &plain, add);
    assert_eq!((sent.text().as_str(), a.last().text().as_str()), ("a", add));
    let asked = "/g?query=query%20q%20%7Bowner%7D";
    assert_eq!(get(gateway.proxy, asked, &[]).text(), "b");
    assert_eq!(get(gateway.proxy, "/g", &[]).status, 404);
    assert_eq!(request(gateway.proxy, "PUT", "/g", &plain, add).status, 404);
}

#[test]
fn multipart_fields_are_variables() {
    let a = named("a");
    let gateway = Gateway::start(&format!(
        "routes:\n- {{id: 1, uri: /f, vars: [[post_arg.model, ==, whisper-1]], upstream: {{nodes: {{\"{}\": 1}}}}}}\n",
        a.address
    ));
    let form = |model: &str| {
        format!(
            "--b 1\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\nmodel\r\n\
             --b 1\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n--b 1--\r\n"
        )
    };
    let send = |model: &str, kind: &str| {
        request(
            gateway.proxy,
            "POST",
            "/f",
            &[("Content-Type", kind)],
            &form(model),
        )
    };
    let kind = "multipart/form-data; boundary=\"b 1\"";
    assert_eq!(send("whisper-1", kind).text(), "a");
    assert_eq!(a.last().text(), form("whisper-1"));
    assert_eq!(send("tts-1", kind).status, 404);
    assert_eq!(
        send("whisper-1", "multipart/form-data; boundary=b").status,
        404
    );
}

#[test]
fn an_ipv6_host_is_matched_with_its_brackets() {
    let (a, b) = (named("a"), named("b"));
    let gateway = Gateway::start(&format!(
        "routes:\n\
         - {{id: 1, uri: /*, host: \"[::1]\", upstream: {{nodes: {{\"{a}\": 1}}}}}}\n\
         - {{id: 2, uri: /*, hosts: [\"[fe80::A]\", x.com], upstream: {{nodes: {{\"{b}\": 1}}}}}}\n",
        a = a.address,
        b = b.address
    ));
    let to = |host: &str| get(gateway.proxy, "/", &[("Host", host)]);
    assert_eq!(to("[::1]").text(), "a");
    assert_eq!(to("[::1]:9080").text(), "a");
    assert_eq!(to("[FE80::a]").text(), "b");
    assert_eq!(to("[::2]").status, 404);
}

#[test]
fn log_formats_know_time_ids_and_addresses() {
    let (a, log) = (named("a"), Log::new());
    let format = ", log_format: {iso: $time_iso8601, local: $time_local, node: $upstream_unresolved_host, \
         id: $apisix_request_id, nginx: $request_id, clean: $request_uri, raw: $real_request_uri, host: $host}";
    let logger = log.plugin(format);
    let gateway = Gateway::start(&format!(
        "routes:\n\
         - {{id: 1, uri: /a/b, plugins: {{{logger}}}, upstream: &up {{nodes: {{\"localhost:{port}\": 1}}}}}}\n\
         - {{id: 2, uri: /id, plugins: {{request-id: {{}}, proxy-rewrite: {{uri: /else}}, {logger}}}, upstream: *up}}\n",
        port = a.port()
    ));
    let dirty = "/x/..//a/./b?q=%20";
    get(gateway.proxy, dirty, &[("Host", "X.com:80")]);
    let entry = log.last(1);
    let shape = |name: &str| -> String {
        let text = entry[name].as_str().expect("a text").chars();
        text.map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect()
    };
    assert_eq!(shape("iso"), "0000-00-00T00:00:00+00:00");
    let local = shape("local");
    assert_eq!((&local[..3], &local[6..]), ("00/", "/0000:00:00:00 +0000"));
    assert_eq!(
        (&entry["node"], &entry["host"]),
        (&"localhost".into(), &"x.com".into())
    );
    assert_eq!(
        (&entry["clean"], &entry["raw"]),
        (&"/a/b?q=%20".into(), &dirty.into())
    );
    let id = entry["id"].as_str().expect("an id");
    assert!(
        id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()),
        "{id}"
    );
    assert_eq!(entry["nginx"], id);
    get(gateway.proxy, "/id", &[("X-Request-Id", "mine")]);
    let entry = log.last(2);
    assert_eq!(
        (&entry["id"], &entry["clean"]),
        (&"mine".into(), &"/id".into())
    );
    assert_ne!(entry["nginx"], "mine");
    assert_ne!(entry["nginx"], id);
}

#[test]
fn log_formats_do_not_show_credentials() {
    let (a, log) = (named("a"), Log::new());
    let logger = log.plugin(
        ", log_format: {uri: $request_uri, raw: $real_request_uri, args: $args, all: $query_string, \
         key: $arg_apikey, own: $arg_sesame, q: $arg_q}, log_format_extra: {extra: $request_uri}",
    );
    let gateway = Gateway::start(&format!(
        "routes:\n- {{id: 1, uri: /a, plugins: {{key-auth: {{query: sesame}}, {logger}}}, upstream: {{nodes: {{\"{}\": 1}}}}}}\n\
         consumers:\n- {{username: alice, plugins: {{key-auth: {{key: open}}}}}}\n",
        a.address
    ));
    let sent = get(gateway.proxy, "//a?apikey=open&%73esame=open&q=1", &[]);
    assert_eq!(sent.status, 200);
    let entry = log.last(1);
    let query = "apikey=***&%73esame=***&q=1";
    for (name, expected) in [
        ("uri", format!("/a?{query}")),
        ("raw", format!("//a?{query}")),
        ("args", query.to_owned()),
        ("all", query.to_owned()),
        ("key", "***".to_owned()),
        ("own", "***".to_owned()),
        ("q", "1".to_owned()),
        ("extra", format!("/a?{query}")),
    ] {
        assert_eq!(entry[name], expected.as_str(), "{name}");
    }
}

/// A body that only a text looks into is read for it, and goes on unchanged.
#[test]
fn texts_and_keys_may_look_into_the_body() {
    let (a, b, log) = (named("a"), named("b"), Log::new());
    let logger = log.plugin(", log_format: {model: \"${post_arg.model ?? none}\"}");
    let matching = Log::new();
    let matched = matching.plugin(", match: [[[post_arg.model, ==, m2]]]");
    let gateway = Gateway::start(&format!(
        "routes:\n\
         - {{id: 1, uri: /ring, upstream: {{type: chash, hash_on: vars_combinations, key: \"$post_arg.user\", nodes: {{\"{a}\": 1, \"{b}\": 1}}}}}}\n\
         - {{id: 2, uri: /rewrite, plugins: {{proxy-rewrite: {{uri: \"/to/$post_arg.model\", headers: {{set: {{X-Model: $post_arg.model}}}}}}}}, upstream: &up {{nodes: {{\"{a}\": 1}}}}}}\n\
         - {{id: 3, uri: /log, plugins: {{{logger}}}, upstream: *up}}\n\
         - {{id: 4, uri: /match, plugins: {{{matched}}}, upstream: *up}}\n\
         - {{id: 5, uri: /auth, plugins: {{key-auth: {{}}, {logger}}}, upstream: *up}}\n",
        a = a.address,
        b = b.address
    ));
    let user = |number: usize| format!("{{\"user\":\"u{number}\"}}");
    let first: Vec<String> = (0..24)
        .map(|n| post_json(gateway.proxy, "/ring", &user(n)).text())
        .collect();
    let again: Vec<String> = (0..24)
        .map(|n| post_json(gateway.proxy, "/ring", &user(n)).text())
        .collect();
    assert_eq!(first, again);
    assert!(a.hits() > 0 && b.hits() > 0, "one node has all keys");

    let body = r#"{"model":"m2"}"#;
    post_json(gateway.proxy, "/rewrite", body);
    let sent = a.last();
    assert_eq!(
        (sent.target.as_str(), sent.header("x-model")),
        ("/to/m2", Some("m2"))
    );
    assert_eq!(sent.text(), body);
    post_json(gateway.proxy, "/log", body);
    assert_eq!(log.last(1)["model"], "m2");
    assert_eq!(a.last().text(), body);
    post_json(gateway.proxy, "/match?n=1", r#"{"model":"m1"}"#);
    post_json(gateway.proxy, "/match?n=2", body);
    assert_eq!(matching.last(1)["request"]["uri"], "/match?n=2");
    // What is turned away is not read for a log.
    assert_eq!(post_json(gateway.proxy, "/auth", body).status, 401);
    assert_eq!(log.last(2)["model"], "none");
}

/// G-203: on an upstream that bodies are streamed to.
#[test]
fn loggers_see_the_bodies_that_pass() {
    let (a, log) = (named("a"), Log::new());
    let collector = named("");
    let with_body = log.plugin(", include_req_body: true, max_req_body_bytes: 10, include_req_body_expr: [[arg_log, ==, \"1\"]]");
    let sizes = log.plugin(", log_format: {n: $request_length}");
    let gateway = Gateway::start(&format!(
        "routes:\n\
         - {{id: 1, uri: /body, plugins: {{{with_body}, http-logger: {{uri: \"http://{collector}/\", batch_max_size: 1, include_req_body: true, log_format: {{a: b}}}}}}, upstream: &up {{nodes: {{\"{a}\": 1}}}}}}\n\
         - {{id: 2, uri: /size, plugins: {{{sizes}}}, upstream: *up}}\n\
         - {{id: 3, uri: /mine, plugins: {{key-auth: {{}}}}, upstream: *up}}\n\
         consumers:\n\
         - {{username: alice, plugins: {{key-auth: {{key: k}}, {with_body}}}}}\n",
        a = a.address,
        collector = collector.address
    ));
    let body = "0123456789".repeat(10);
    let head = |target: &str, framing: &str| {
        format!("POST {target} HTTP/1.1\r\nHost: x\r\n{framing}\r\nConnection: close\r\n\r\n")
    };
    let plain = head("/body?log=1", "Content-Length: 100");
    client::raw(gateway.proxy, format!("{plain}{body}").as_bytes());
    assert_eq!(a.last().text(), body);
    let entry = log.last(1);
    assert_eq!(entry["request"]["body"], &body[..10]);
    assert_eq!(entry["request"]["size"], plain.len() + 100);
    let entry = support::wait_until("an entry", || {
        (collector.hits() == 1).then(|| collector.last())
    });
    assert_eq!(entry.json()["request"]["body"], body);

    let chunks = format!(
        "32\r\n{}\r\n32\r\n{}\r\n0\r\n\r\n",
        &body[..50],
        &body[50..]
    );
    let chunked = head("/body?log=0", "Transfer-Encoding: chunked");
    client::raw(gateway.proxy, format!("{chunked}{chunks}").as_bytes());
    assert_eq!(a.last().text(), body);
    let entry = log.last(2);
    assert_eq!(entry["request"].get("body"), None);
    assert_eq!(entry["request"]["size"], chunked.len() + 100);

    let chunked = head("/size", "Transfer-Encoding: chunked");
    client::raw(gateway.proxy, format!("{chunked}{chunks}").as_bytes());
    assert_eq!(log.last(3)["n"], (chunked.len() + 100).to_string());
    let bare = "GET /size HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    client::raw(gateway.proxy, bare.as_bytes());
    assert_eq!(log.last(4)["n"], bare.len().to_string());
    let key = [("apikey", "k")];
    request(gateway.proxy, "POST", "/mine?log=1", &key, &body);
    assert_eq!(log.last(5)["request"]["body"], &body[..10]);
}

/// The copy is made in passing: the target has the beginning before the client sends the end.
#[test]
fn a_logged_body_is_still_streamed() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    let log = Log::new();
    let gateway = Gateway::start_with(Start {
        document: &format!(
            "routes:\n- {{id: 1, uri: /*, plugins: {{{}}}, upstream: {{nodes: {{\"{address}\": 1}}}}}}\n",
            log.plugin(", include_req_body: true")
        ),
        ..Start::default()
    });
    let mut client = Connection::open(gateway.proxy);
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nbegin");
    let (mut target, _) = listener.accept().expect("a connection");
    target
        .set_read_timeout(Some(support::DEADLINE))
        .expect("a socket");
    let mut received = Vec::new();
    let mut read_until = |end: &[u8]| {
        while !received.ends_with(end) {
            let mut piece = [0; 1024];
            let read = target.read(&mut piece).expect("bytes in time");
            assert!(read > 0, "the connection ended");
            received.extend_from_slice(&piece[..read]);
        }
    };
    read_until(b"begin");
    client.send(b"-ends");
    read_until(b"begin-ends");
    target
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .expect("sent");
    assert_eq!(client.response(false).status, 200);
    assert_eq!(log.last(1)["request"]["body"], "begin-ends");
}
