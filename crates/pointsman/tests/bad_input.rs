//! What strangers send: each case has its answer, and nothing panics, hangs or leaks.

mod support;

use std::time::Duration;

use serde_json::json;

use support::{
    Answer, CHAT, Gateway, Start, Upstream,
    client::{Connection, raw},
    get, post_json, single,
};

fn gateway(upstream: &Upstream) -> Gateway {
    Gateway::start_with(Start {
        document: &single("openai", upstream.address, ""),
        sections: "nginx_config: {http: {client_header_timeout: 1s, client_body_timeout: 1s, send_timeout: 1s}}",
        ..Start::default()
    })
}

fn head(lines: &str) -> Vec<u8> {
    format!("POST /x HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes()
}

/// What a connection answers to `bytes` and then closes: status and message.
fn refused(gateway: &Gateway, bytes: &[u8]) -> (u16, String) {
    let mut connection = Connection::open(gateway.proxy);
    connection.send(bytes);
    let response = connection.response(false);
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
    assert!(
        connection.is_closed(),
        "the connection stayed open after {shown}"
    );
    let message = response.json()["error_msg"].as_str().map(str::to_owned);
    (response.status, message.expect(&shown))
}

/// Two lengths, a bad one, a bad encoding, no host or two: 400 and close.
#[test]
fn smuggling_shapes_are_refused() {
    let upstream = Upstream::named("a");
    let gateway = gateway(&upstream);
    let both = "the request has both Content-Length and Transfer-Encoding; send one of them";
    let twice = "Content-Length stands there more than once";
    let number = "Content-Length is not a number";
    let coding = "Transfer-Encoding does not end in one `chunked`";
    let host = "a request needs exactly one Host header";
    for (lines, status, message) in [
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            400,
            both,
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            400,
            both,
        ),
        ("TRANSFER-ENCODING: x\r\ncontent-length: 5\r\n", 400, both),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", 400, twice),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", 400, twice),
        ("Content-Length: -1\r\n", 400, number),
        ("Content-Length: 5, 6\r\n", 400, number),
        ("Content-Length: 99999999999999999999999\r\n", 400, number),
        ("Transfer-Encoding: gzip\r\n", 400, coding),
        ("Transfer-Encoding: chunked, gzip\r\n", 400, coding),
        ("Transfer-Encoding: chunked, chunked\r\n", 400, coding),
        (
            "Transfer-Encoding: gzip, chunked\r\n",
            501,
            "Transfer-Encoding may only be `chunked`",
        ),
        ("Bad Header: x\r\n", 400, "a header name is not valid"),
        ("X: a\0b\r\n", 400, "a header value is not valid"),
        ("X: a\r\n b\r\n", 400, "a header name is not valid"),
        ("Host: b\r\n", 400, host),
    ] {
        let rest = b"0\r\n\r\nGET /y HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
        let bytes = [head(lines), rest].concat();
        let expected = (status, message.to_owned());
        assert_eq!(refused(&gateway, &bytes), expected, "{lines:?}");
        // However the head comes: behind empty lines, with odd line ends, in two parts.
        let bytes = [b"\r\n\r\n".to_vec(), bytes].concat();
        assert_eq!(refused(&gateway, &bytes), expected, "{lines:?} later");
    }
    let odd_end =
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\n\r\n";
    assert_eq!(refused(&gateway, odd_end), (400, both.to_owned()));
    assert_eq!(
        refused(&gateway, b"GET /x HTTP/1.1\r\n\r\n"),
        (400, host.to_owned())
    );
    assert_eq!(upstream.hits(), 0);
    gateway.wait_until_idle();
}

/// A bad request behind a good one on the same connection.
#[test]
fn pipelined_smuggling_is_refused() {
    let upstream = Upstream::named("a");
    let gateway = gateway(&upstream);
    let good = [
        head(&format!("Content-Length: {}\r\n", CHAT.len())),
        CHAT.as_bytes().to_vec(),
    ]
    .concat();
    let bad = head("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n");
    let mut connection = Connection::open(gateway.proxy);
    connection.send(&[good, bad].concat());
    assert_eq!(connection.response(false).status, 200);
    assert_eq!(connection.response(false).status, 400);
    assert!(connection.is_closed());
    assert_eq!(upstream.hits(), 1);
}

/// Chunks that lie, on a route whose body is read and on one whose body is passed on.
#[test]
fn bad_chunks_are_refused() {
    let upstream = Upstream::named("a");
    let plain = format!(
        "  - {{id: plain, uri: /plain, upstream: {{type: roundrobin, nodes: {{\"{}\": 1}}}}}}\n",
        upstream.address
    );
    let gateway = Gateway::start(&single("openai", upstream.address, ""));
    let document =
        single("openai", upstream.address, "").replace("routes:\n", &format!("routes:\n{plain}"));
    gateway.reload(&document);
    for path in ["/x", "/plain"] {
        for chunk in [
            "zz\r\n",
            "ffffffffffffffffff\r\n",
            "5\r\nabcdefg\r\n",
            "2\nab\n",
        ] {
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"
            );
            let mut connection = Connection::open(gateway.proxy);
            connection.send(head.as_bytes());
            let response = connection.response(false);
            assert_eq!(response.status, 400, "{path} {chunk:?}");
            assert_eq!(
                response.json()["error_msg"],
                "the request body broke off or is not valid HTTP",
                "{path} {chunk:?}"
            );
            assert!(connection.is_closed(), "{path} {chunk:?}");
        }
    }
    gateway.wait_until_idle();
}

/// Too many header lines, and too long ones.
#[test]
fn header_floods_are_refused() {
    let upstream = Upstream::named("a");
    let gateway = gateway(&upstream);
    let flood = (
        431,
        "the request's headers are too large or too many".to_owned(),
    );
    let many: String = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect();
    assert_eq!(refused(&gateway, &head(&many)), flood);
    let long = head(&format!("X: {}\r\n", "a".repeat(100_000)));
    assert_eq!(refused(&gateway, &long), flood);
    let target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(70_000));
    assert_eq!(
        refused(&gateway, target.as_bytes()),
        (414, "the request target is too long".to_owned())
    );
    assert_eq!(post_json(gateway.proxy, "/x", CHAT).status, 200);
}

/// Heads and bodies that trickle in are cut off, and so is a body that is shorter than it said.
#[test]
fn slow_clients_are_cut_off() {
    let upstream = Upstream::named("a");
    let gateway = gateway(&upstream);
    let mut slow_head = Connection::open(gateway.proxy);
    slow_head.send(b"POST /x HTTP/1.1\r\nHost:");
    let mut slow_body = Connection::open(gateway.proxy);
    slow_body.send(&[head("Content-Length: 100\r\n"), b"{\"mod".to_vec()].concat());
    let response = slow_body.response(false);
    assert_eq!(response.status, 408);
    assert_eq!(
        response.json()["error_msg"],
        "the request body did not arrive in time"
    );
    assert!(slow_body.is_closed());
    let response = slow_head.response(false);
    assert_eq!(
        (response.status, &response.json()["error_msg"]),
        (408, &"the request's head did not arrive in time".into())
    );
    assert!(slow_head.is_closed());
    assert_eq!(upstream.hits(), 0);
    gateway.wait_until_idle();
}

/// A client that lies about its body and leaves.
#[test]
fn a_body_that_breaks_off_reaches_nobody() {
    let upstream = Upstream::named("a");
    let gateway = gateway(&upstream);
    let mut connection = Connection::open(gateway.proxy);
    connection.send(&[head("Content-Length: 1000\r\n"), CHAT.as_bytes().to_vec()].concat());
    drop(connection);
    let line = gateway.access_log(1).remove(0);
    assert!(
        matches!(line["ended"].as_str(), Some("abandoned" | "complete")),
        "{line}"
    );
    assert_eq!(upstream.hits(), 0);
    gateway.wait_until_idle();
}

/// A client that asks and does not read the answer does not hold the upstream for ever.
#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let upstream = Upstream::start(|_| Answer::Endless {
        event: format!("data: {}", "x".repeat(60_000)),
        pause: Duration::ZERO,
    });
    let gateway = gateway(&upstream);
    let mut connection = Connection::open(gateway.proxy);
    let body = r#"{"stream":true,"messages":[]}"#;
    connection.send(
        &[
            head(&format!("Content-Length: {}\r\n", body.len())),
            body.as_bytes().to_vec(),
        ]
        .concat(),
    );
    upstream.wait_for_early_close();
    gateway.wait_until_idle();
}

#[test]
fn odd_requests_have_answers() {
    let upstream = Upstream::named("a");
    let gateway = gateway(&upstream);
    assert_eq!(
        raw(
            gateway.proxy,
            b"TRACE /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
        .status,
        405
    );
    assert_eq!(raw(gateway.proxy, b"GARBAGE\r\n\r\n").status, 400);
    assert_eq!(
        raw(
            gateway.proxy,
            b"GET /%zz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
        .status,
        400
    );
    assert_eq!(
        get(gateway.proxy, &format!("/{}", "a".repeat(70_000)), &[]).status,
        414
    );
    let expects = b"POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 999999999\r\nConnection: close\r\n\r\n";
    assert_eq!(raw(gateway.proxy, expects).status, 413);
    let head_only = raw(
        gateway.proxy,
        b"HEAD /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    );
    assert_eq!((head_only.status, head_only.body.len()), (400, 0));
    assert_eq!(post_json(gateway.proxy, "/x", CHAT).status, 200);
    assert!(!gateway.stderr().contains("panic"), "{}", gateway.stderr());
}

/// `client_max_body_size`, declared and not, whether the body is read or passed on.
#[test]
fn bodies_beyond_the_limit_are_refused() {
    let upstream = Upstream::named("a");
    let document = format!(
        "routes:\n  - {{id: 1, uri: /plain, upstream: {{nodes: {{\"{}\": 1}}}}}}\n",
        upstream.address
    ) + single("openai", upstream.address, "")
        .trim_start_matches("routes:\n")
        .replace("id: 1", "id: 2")
        .as_str();
    let gateway = Gateway::start_with(Start {
        document: &document,
        sections: "nginx_config: {http: {client_max_body_size: 1k}}",
        ..Start::default()
    });
    let body = "x".repeat(2000);
    for path in ["/plain", "/x"] {
        for framed in [
            format!("Content-Length: 2000\r\n\r\n{body}"),
            format!("Transfer-Encoding: chunked\r\n\r\n7d0\r\n{body}\r\n0\r\n\r\n"),
        ] {
            let mut connection = Connection::open(gateway.proxy);
            connection.send(
                format!(
                    "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{framed}"
                )
                .as_bytes(),
            );
            let response = connection.response(false);
            assert_eq!(response.status, 413, "{path} {}", &framed[..20]);
            assert!(
                response.text().contains("the request body is too large"),
                "{}",
                response.text()
            );
        }
        assert_eq!(post_json(gateway.proxy, path, CHAT).status, 200);
    }
    gateway.wait_until_idle();
}

/// What cannot be meant is an error that says where.
#[test]
fn nonsense_about_evidence_is_refused() {
    let upstream = Upstream::named("a");
    for (more, part) in [
        (json!({"retry": {"attempts": 11}}), "retry.attempts"),
        (json!({"cooldown": {"max_ms": 0}}), "cooldown.max_ms"),
        (json!({"cooldown": {"max_sec": 1}}), "max_sec"),
        (
            json!({"circuit_breaker": {"error_percent": 101}}),
            "circuit_breaker.error_percent",
        ),
        (
            json!({"circuit_breaker": {"trials": 0}}),
            "circuit_breaker.trials",
        ),
        (json!({"on_all_unhealthy": "panic"}), "on_all_unhealthy"),
    ] {
        let mut plugin = json!({"instances": [{
            "name": "a", "provider": "openai-compatible", "weight": 1, "auth": {},
            "override": {"endpoint": format!("http://{}", upstream.address)},
        }]});
        for (name, value) in more.as_object().expect("an object") {
            plugin[name] = value.clone();
        }
        let document =
            json!({"routes": [{"id": 1, "uri": "/*", "plugins": {"ai-proxy-multi": plugin}}]});
        let gateway = Gateway::start(&document.to_string());
        let line = gateway.wait_for_line("routes[0]");
        assert!(line.contains(part), "{line} lacks {part}");
    }
}
