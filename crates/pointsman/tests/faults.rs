//! What goes wrong on connections, on either side, and how it is told: nobody must take a part for
//! the whole, and nobody is blamed for another's fault.

mod support;

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use support::{
    Answer, CHAT, Gateway, Start, Upstream, client::Connection, get, request, single, wait_until,
};

/// A plain route `/plain` to `address`, with further fields of the upstream.
fn plain(address: SocketAddr, more: &str) -> String {
    format!(
        "routes:\n- {{id: 1, uri: /*, upstream: {{retries: 0, nodes: {{\"{address}\": 1}}{more}}}}}\n"
    )
}

/// A target whose first connection is handed to `serve`.
fn target(serve: impl FnOnce(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || serve(listener.accept().expect("a connection").0));
    address
}

fn reset(stream: &TcpStream) {
    let linger = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
    linger.expect("a socket");
}

/// Reads to the end; says whether it was an orderly one.
fn ends_orderly(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 64 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                return false;
            }
        }
    }
}

/// A reset that meets the upload is reported to the write; the read that follows sees only an end.
#[test]
fn a_reset_during_the_upload_is_not_the_end_of_the_answer() {
    for _ in 0..5 {
        let address = target(|mut stream| {
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).expect("the head");
            stream
                .write_all(b"HTTP/1.1 200 OK\r\n\r\npartial")
                .expect("written");
            reset(&stream);
        });
        let gateway = Gateway::start(&plain(address, ""));
        let mut client = Connection::open(gateway.proxy);
        client.send(b"POST /plain HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n");
        while client.try_send(&[b'x'; 64 << 10]) && gateway_log(&gateway).is_empty() {}
        let line = gateway.access_log(1).remove(0);
        assert_ne!(line["ended"], "complete", "{line}");
    }
}

fn gateway_log(gateway: &Gateway) -> String {
    std::fs::read_to_string(gateway.folder().join("access.log")).unwrap_or_default()
}

/// The target closes an idle connection in the moment in which it is used again.
#[test]
fn a_connection_that_closes_when_it_is_used_again_is_replaced() {
    let upstream = Upstream::start(|_| Answer::Close);
    drop(upstream);
    let uses: [AtomicUsize; 64] = std::array::from_fn(|_| AtomicUsize::new(0));
    let upstream = Upstream::start(move |received| {
        match uses[received.connection].fetch_add(1, Ordering::SeqCst) {
            0 => Answer::text(200, "hello"),
            _ => Answer::Close,
        }
    });
    let gateway = Gateway::start(&plain(upstream.address, ""));
    for _ in 0..3 {
        assert_eq!(get(gateway.proxy, "/plain", &[]).text(), "hello");
    }
    // Nobody knows whether this one was done: it is not repeated.
    let post = request(gateway.proxy, "POST", "/plain", &[], "x");
    assert_eq!((post.status, upstream.hits()), (502, 6));
}

/// `Keep-Alive: timeout` is the target's own word on how long it waits.
#[test]
fn a_connection_that_is_about_to_close_is_not_kept() {
    let upstream = Upstream::start(|_| Answer::Whole {
        status: 200,
        kind: "text/plain",
        body: "hello".to_owned(),
        headers: vec![("Keep-Alive", "max=9, timeout=1".to_owned())],
    });
    let gateway = Gateway::start(&plain(upstream.address, ""));
    for _ in 0..3 {
        assert_eq!(get(gateway.proxy, "/plain", &[]).text(), "hello");
    }
    assert_eq!(upstream.traffic_connections(), 3);
}

/// What a target read may have been served, whatever became of the answer: so only what is safe to repeat goes
/// to another one, as nginx has it.
#[test]
fn what_may_have_been_served_is_sent_again_only_where_that_is_safe() {
    let closing: Vec<_> = (0..2).map(|_| Upstream::start(|_| Answer::Close)).collect();
    let gateway = Gateway::start(&format!(
        "routes:\n- {{id: 1, uri: /*, upstream: {{nodes: {{\"{}\": 1, \"{}\": 1}}}}}}\n",
        closing[0].address, closing[1].address
    ));
    let hits = || closing.iter().map(Upstream::hits).sum::<usize>();
    for (method, expected) in [
        ("GET", 2),
        ("DELETE", 2),
        ("POST", 1),
        ("PATCH", 1),
        ("LOCK", 1),
    ] {
        let before = hits();
        let answer = request(gateway.proxy, method, "/x", &[], "");
        assert_eq!(
            (answer.status, hits() - before),
            (502, expected),
            "{method}"
        );
    }
}

/// `protocols.md` §6.5: behind the address may be others, who are not limited.
#[test]
fn an_instance_that_fails_gets_a_new_connection() {
    for (status, connections) in [(200, 1), (400, 1), (429, 3), (503, 3)] {
        let upstream = Upstream::start(move |_| Answer::status(status, "{}"));
        let gateway = Gateway::start(&single("openai", upstream.address, ""));
        for _ in 0..3 {
            assert_eq!(support::post_json(gateway.proxy, "/x", CHAT).status, status);
        }
        assert_eq!(upstream.traffic_connections(), connections, "{status}");
    }
}

/// What is only ended by the close must not end orderly before it is whole.
#[test]
fn a_client_of_http_1_0_sees_that_its_answer_is_cut() {
    let flood = Upstream::start(|_| Answer::Endless {
        event: "x".repeat(100_000),
        pause: Duration::ZERO,
    });
    let endless = Upstream::start(|_| Answer::Endless {
        event: "data: {}".to_owned(),
        pause: Duration::from_millis(10),
    });
    let document = plain(endless.address, "");
    let mut gateway = Gateway::start(&document);
    let mut client = TcpStream::connect(gateway.proxy).expect("connected");
    client
        .write_all(b"GET /plain HTTP/1.0\r\nHost: a\r\n\r\n")
        .expect("sent");
    let mut first = [0; 1];
    client.read_exact(&mut first).expect("the head");
    wait_until("the stream to begin", || {
        (endless.written() > 2).then_some(())
    });
    // The end of the program, at once.
    gateway.signal("TERM");
    gateway.wait_for_line("draining");
    gateway.signal("TERM");
    gateway.wait_for_exit();
    assert!(!ends_orderly(&mut client), "the program's end");

    // A client that does not read in time.
    let gateway = Gateway::start_with(Start {
        document: &plain(flood.address, ""),
        sections: "nginx_config: {http: {send_timeout: 1s}}\n",
        ..Start::default()
    });
    let mut client = TcpStream::connect(gateway.proxy).expect("connected");
    client
        .write_all(b"GET /plain HTTP/1.0\r\nHost: a\r\n\r\n")
        .expect("sent");
    assert_eq!(gateway.access_log(1)[0]["ended"], "abandoned");
    assert!(!ends_orderly(&mut client), "a client that does not read");
}

/// A client cannot take away what the gateway adds, by naming it in `Connection`.
#[test]
fn connection_names_only_what_the_client_sent() {
    let upstream = Upstream::named("a");
    let document = format!(
        "{}consumers:\n- {{username: jack, plugins: {{key-auth: {{key: k}}}}}}\n",
        plain(upstream.address, "").replace("uri: /*,", "uri: /*, plugins: {key-auth: {}},")
    );
    let gateway = Gateway::start(&document);
    let named =
        "close, x-consumer-username, x-forwarded-for, x-real-ip, x-forwarded-host, host, x-mine";
    let headers = [("Connection", named), ("apikey", "k"), ("X-Mine", "1")];
    // The helper adds a `Connection: close` of its own.
    assert_eq!(get(gateway.proxy, "/plain", &headers).status, 200);
    let sent = upstream.last();
    for name in [
        "host",
        "x-consumer-username",
        "x-forwarded-for",
        "x-real-ip",
    ] {
        assert!(sent.header(name).is_some(), "{name}: {sent:?}");
    }
    assert_eq!(sent.header("x-mine"), None);
}

/// Limits are for silence. Whoever sends something all the time, however slowly, is in time.
#[test]
fn bodies_that_are_gathered_have_time_while_they_move() {
    let slow = target(|mut stream| {
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).expect("the request");
        stream
            .write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 22\r\n\r\n",
            )
            .expect("written");
        for piece in [&b"{\"choices\""[..], b":[],", b"\"a\"", b":1}  "] {
            std::thread::park_timeout(Duration::from_millis(600));
            stream.write_all(piece).expect("written");
        }
        let _ = stream.read(&mut buffer);
    });
    let gateway = Gateway::start(&single("openai", slow, "        timeout: 1000\n"));
    let response = support::post_json(gateway.proxy, "/x", CHAT);
    assert_eq!((response.status, response.complete), (200, true));

    let upstream = Upstream::named("a");
    let document = single("openai", upstream.address, "");
    let gateway = Gateway::start_with(Start {
        document: &document,
        sections: "nginx_config: {http: {client_body_timeout: 1s}}\n",
        ..Start::default()
    });
    let mut client = Connection::open(gateway.proxy);
    let head = format!(
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        CHAT.len()
    );
    client.send(head.as_bytes());
    for piece in CHAT.as_bytes().chunks(CHAT.len() / 3) {
        std::thread::park_timeout(Duration::from_millis(600));
        client.send(piece);
    }
    assert_eq!(client.response(false).status, 200);
}

/// A request that is refused without its body being read, which has arrived.
#[test]
fn a_refusal_does_not_cost_the_connection() {
    let upstream = Upstream::named("a");
    let document = "routes:\n- {id: 1, uri: /x, plugins: {key-auth: {}}, upstream: {nodes: {\"127.0.0.1:1\": 1}}}\n";
    let gateway = Gateway::start(document);
    let mut client = Connection::open(gateway.proxy);
    for (path, status) in [("/x", 401), ("/nowhere", 404), ("/x", 401)] {
        client.send(
            format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc").as_bytes(),
        );
        let response = client.response(false);
        assert_eq!(
            (response.status, response.header("connection")),
            (status, None)
        );
    }
    drop(upstream);
}

/// Neither status nor warning names a target for what its client did.
#[test]
fn a_client_that_breaks_its_request_is_not_the_targets_fault() {
    let upstream = Upstream::named("a");
    let gateway = Gateway::start(&plain(upstream.address, ""));
    let mut client = Connection::open(gateway.proxy);
    client.send(
        b"POST /plain HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n",
    );
    let response = client.response(false);
    assert_eq!(response.status, 400);
    assert_eq!(response.header("x-apisix-upstream-status"), None);
    gateway.access_log(1);
    assert!(!gateway.stderr().contains("WARN"), "{}", gateway.stderr());
    // In the middle of an answer.
    let address = target(|mut stream| {
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).expect("the head");
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ngot\r\n")
            .expect("written");
        while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
    });
    let gateway = Gateway::start(&plain(address, ""));
    let mut client = Connection::open(gateway.proxy);
    client.send(b"POST /plain HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nsome");
    client.read_until("got");
    drop(client);
    let line = gateway.access_log(1).remove(0);
    assert_eq!(line["ended"], "abandoned", "{line}");
    assert!(!gateway.stderr().contains("WARN"), "{}", gateway.stderr());
}

/// Framing of responses that would mislead a client is refused or left out.
#[test]
fn odd_framing_of_a_target_does_not_reach_the_client() {
    for (answer, method, expected, body) in [
        (
            "204 No Content\r\nContent-Length: 5\r\n\r\n",
            "GET",
            204,
            "",
        ),
        (
            "200 OK\r\nContent-Length: 5\r\nContent-Length: 7x\r\n\r\n",
            "HEAD",
            200,
            "",
        ),
        (
            "200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxxxxx",
            "GET",
            502,
            "*",
        ),
        (
            "200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
            "GET",
            502,
            "*",
        ),
        (
            "200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
            "GET",
            200,
            "hello",
        ),
    ] {
        let bytes = format!("HTTP/1.1 {answer}").into_bytes();
        let upstream = Upstream::start(move |_| Answer::Open(bytes.clone()));
        let gateway = Gateway::start(&plain(upstream.address, ""));
        let mut client = Connection::open(gateway.proxy);
        client.send(format!("{method} /plain HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let response = client.response(method == "HEAD");
        assert_eq!(response.status, expected, "{answer}");
        if body != "*" {
            assert_eq!(response.text(), body, "{answer}");
        }
        if body.is_empty() {
            assert_eq!(response.header("content-length"), None, "{answer}");
        }
    }
    let many = format!(
        "{}HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 102 Wait\r\n\r\n".repeat(20)
    );
    let upstream = Upstream::start(move |_| Answer::Open(many.clone().into_bytes()));
    let gateway = Gateway::start(&plain(upstream.address, ""));
    assert_eq!(get(gateway.proxy, "/plain", &[]).status, 502);
}

/// During the drain every answer says that it is the last.
#[test]
fn a_drain_is_announced() {
    let upstream = Upstream::start(|_| {
        Answer::After(
            Duration::from_millis(300),
            Box::new(Answer::text(200, "hello")),
        )
    });
    let gateway = Gateway::start(&plain(upstream.address, ""));
    let mut client = Connection::open(gateway.proxy);
    client.send(b"GET /plain HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the request to arrive", || {
        (upstream.hits() == 1).then_some(())
    });
    gateway.signal("TERM");
    let response = client.response(false);
    assert_eq!(
        (response.text().as_str(), response.header("connection")),
        ("hello", Some("close"))
    );
}

/// Clients choose the TLS names of an upstream that takes theirs; not how many connections wait.
#[test]
fn idle_connections_are_bounded_whatever_clients_ask_for() {
    let upstream = support::secure::SecureUpstream::keeping();
    let more = ", scheme: https, pass_host: pass, tls: {verify: false}, keepalive_pool: {size: 4}";
    let gateway = Gateway::start(&plain(upstream.address, more));
    for number in 0..20 {
        let host = format!("host{number}.test");
        assert_eq!(get(gateway.proxy, "/plain", &[("Host", &host)]).status, 200);
    }
    wait_until("the others to be closed", || {
        (upstream.open() <= 4).then_some(())
    });
}
