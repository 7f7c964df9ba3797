//! What strangers send: each case has its answer, and nothing panics, hangs or leaks.

mod support;

use std::time::Duration;

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

/// Two lengths, a bad one, a bad chunk size, a bad encoding: 400 and close.
#[test]
fn smuggling_shapes_are_refused() {
    let upstream = Upstream::named("a");
    let gateway = gateway(&upstream);
    let both = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
    let reversed = "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n";
    for lines in [both, reversed] {
        let mut connection = Connection::open(gateway.proxy);
        connection.send(
            &[
                head(lines),
                b"0\r\n\r\nGET /y HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            ]
            .concat(),
        );
        let response = connection.response(false);
        assert_eq!(response.status, 400, "{lines}");
        assert_eq!(
            response.json()["error_msg"],
            "the request has both Content-Length and Transfer-Encoding; send one of them"
        );
        assert!(
            connection.is_closed(),
            "the connection stayed open after {lines}"
        );
    }
    for lines in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Bad Header: x\r\n",
        "X: a\0b\r\n",
    ] {
        let mut connection = Connection::open(gateway.proxy);
        connection.send(&head(lines));
        let response = connection.response(false);
        assert_eq!((response.status, response.body.len()), (400, 0), "{lines}");
        assert!(
            connection.is_closed(),
            "the connection stayed open after {lines}"
        );
    }
    for chunk in ["zz\r\n", "ffffffffffffffffff\r\n", "5;\r\nab"] {
        let mut connection = Connection::open(gateway.proxy);
        connection.send(
            &[
                head("Transfer-Encoding: chunked\r\n"),
                chunk.as_bytes().to_vec(),
            ]
            .concat(),
        );
        let response = connection.response(false);
        assert!(
            matches!(response.status, 400 | 408),
            "{chunk}: {}",
            response.status
        );
        assert!(
            connection.is_closed(),
            "the connection stayed open after {chunk}"
        );
    }
    assert_eq!(upstream.hits(), 0);
    gateway.wait_until_idle();
}

/// Too many header lines, and too long ones.
#[test]
fn header_floods_are_refused() {
    let upstream = Upstream::named("a");
    let gateway = gateway(&upstream);
    let many: String = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect();
    assert_eq!(raw(gateway.proxy, &head(&many)).status, 431);
    let mut connection = Connection::open(gateway.proxy);
    let long = head(&format!("X: {}\r\n", "a".repeat(2 << 20)));
    connection.try_send(&long);
    // Whether the answer survives the reset is the network's matter; that it ends is ours.
    assert!(connection.read_end() == 0 || connection.status() == Some(431));
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
    assert!(slow_head.is_closed() || slow_head.status() == Some(408));
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
