//! Connections of clients: what is kept, what is closed and how, over HTTP/1.0, 1.1 and 2.

mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::{
    Answer, CHAT, Gateway, Start, Upstream,
    client::{Connection, Response},
    get, post_json, single,
};

fn chat_request() -> Vec<u8> {
    format!(
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{CHAT}",
        CHAT.len()
    )
    .into_bytes()
}

/// A plain route `/plain` to `upstream` whose every limit is `seconds`.
fn plain(upstream: &Upstream, seconds: u32) -> String {
    format!(
        "routes:\n- {{id: 1, uri: /plain, enable_websocket: true, timeout: {{connect: {seconds}, send: {seconds}, read: {seconds}}}, \
         upstream: {{type: roundrobin, retries: 0, nodes: {{\"{}\": 1}}}}}}\n",
        upstream.address
    )
}

#[test]
fn requests_may_follow_each_other_without_waiting() {
    let upstream = Upstream::named("a");
    let gateway = Gateway::start(&single("openai", upstream.address, ""));
    let mut connection = Connection::open(gateway.proxy);
    connection.send(&[chat_request(), chat_request(), chat_request()].concat());
    for _ in 0..3 {
        let response = connection.response(false);
        assert_eq!((response.status, response.complete), (200, true));
    }
    assert_eq!(upstream.hits(), 3);
}

#[test]
fn a_client_that_waits_for_a_continue_gets_it() {
    let upstream = Upstream::named("a");
    let gateway = Gateway::start(&single("openai", upstream.address, ""));
    let mut connection = Connection::open(gateway.proxy);
    connection.send(
        format!(
            "POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
            CHAT.len()
        )
        .as_bytes(),
    );
    connection.read_until("HTTP/1.1 100 Continue\r\n\r\n");
    connection.take();
    connection.send(CHAT.as_bytes());
    assert_eq!(connection.response(false).status, 200);
    assert_eq!(upstream.last().text(), CHAT);
    assert_eq!(upstream.last().header("expect"), None);
}

/// A client of HTTP/1.0 knows the end of a body only by the close: a broken one ends in a reset.
#[test]
fn a_broken_stream_does_not_look_complete_in_http_1_0_either() {
    let ask = |ends: bool| {
        let upstream = Upstream::start(move |_| Answer::Stream {
            pieces: vec![b"data: {\"choices\":[]}\n\n".to_vec()],
            pause: Duration::ZERO,
            ends,
        });
        let gateway = Gateway::start(&single("openai", upstream.address, ""));
        let mut stream = TcpStream::connect(gateway.proxy).expect("connected");
        let request = format!(
            "POST /x HTTP/1.0\r\nContent-Length: {}\r\n\r\n{}",
            30, r#"{"stream":true,"messages":[] }"#
        );
        stream.write_all(request.as_bytes()).expect("sent");
        let mut text = Vec::new();
        let end = stream.read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(
            !text.to_ascii_lowercase().contains("transfer-encoding"),
            "{text}"
        );
        (end.is_ok(), text.starts_with("HTTP/1.1 200"))
    };
    assert_eq!(ask(true), (true, true));
    assert!(!ask(false).0, "the broken stream ended in order");
}

#[test]
fn connections_are_counted_as_connections() {
    let upstream = Upstream::named("a");
    let gateway = Gateway::start_with(Start {
        document: &single("openai", upstream.address, ""),
        // Goes on with the section `pointsman`.
        sections: "  max_connections: 2",
        ..Start::default()
    });
    let mut kept: Vec<Connection> = (0..2).map(|_| Connection::open(gateway.proxy)).collect();
    for connection in &mut kept {
        connection.send(&chat_request());
        assert_eq!(connection.response(false).status, 200);
    }
    assert!(Connection::open(gateway.proxy).is_closed());
    drop(kept.pop());
    support::wait_until("the place to be free", || {
        let mut connection = Connection::open(gateway.proxy);
        let answered = connection.try_send(&chat_request()) && !connection.is_closed();
        answered.then_some(())
    });
}

/// A limit is for a time without progress, not for the whole.
#[test]
fn a_slow_upload_that_makes_progress_is_not_cut_off() {
    let upstream = Upstream::named("a");
    let gateway = Gateway::start(&plain(&upstream, 1));
    let mut connection = Connection::open(gateway.proxy);
    connection.send(b"POST /plain HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n");
    for byte in b"abcdef" {
        // The pauses are the behaviour under test: together they are longer than the limit.
        std::thread::sleep(Duration::from_millis(300));
        connection.send(&[*byte]);
    }
    assert_eq!(connection.response(false).status, 200);
    assert_eq!(upstream.last().text(), "abcdef");
}

/// What a client does wrong in a body that is passed on is the client's fault.
#[test]
fn a_client_that_stalls_is_not_blamed_on_the_target() {
    let upstream = Upstream::named("a");
    let gateway = Gateway::start_with(Start {
        document: &plain(&upstream, 30),
        sections: "nginx_config: {http: {client_body_timeout: 1s}}",
        ..Start::default()
    });
    let mut connection = Connection::open(gateway.proxy);
    connection.send(b"POST /plain HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc");
    let response = connection.response(false);
    assert_eq!(
        (response.status, &response.json()["error_msg"]),
        (408, &"the request body did not arrive in time".into())
    );
    assert!(connection.is_closed());
    gateway.wait_until_idle();
}

/// A target that closes a connection after its answer, without having said so, costs nobody
/// anything.
#[test]
fn an_idle_connection_that_was_closed_is_replaced() {
    let upstream = Upstream::start(|_| {
        let body = support::upstream::chat_body("a");
        let length = body.len();
        Answer::Raw(
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
                .into_bytes(),
        )
    });
    let gateway = Gateway::start(&single("openai", upstream.address, ""));
    for _ in 0..20 {
        assert_eq!(post_json(gateway.proxy, "/x", CHAT).status, 200);
        support::wait_until("the target to close", || {
            (upstream.open() == 0).then_some(())
        });
    }
}

/// A tunnel in which nothing moves is closed after the upstream's read timeout.
#[test]
fn a_silent_tunnel_is_closed() {
    let upstream = Upstream::start(|_| {
        Answer::Open(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello".to_vec())
    });
    let gateway = Gateway::start(&plain(&upstream, 1));
    let mut connection = Connection::open(gateway.proxy);
    connection.send(
        b"GET /plain HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    connection.read_until("hello");
    connection.take();
    assert!(connection.is_closed());
    assert_eq!(gateway.access_log(1)[0]["status"], 101);
    gateway.wait_until_idle();
}

/// One HTTP/2 request with prior knowledge.
fn http2(gateway: &Gateway, requests: Vec<http::Request<Full<Bytes>>>) -> Vec<Response> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(gateway.proxy)
            .await
            .expect("connected");
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .expect("a handshake");
        let driver = tokio::task::LocalSet::new();
        driver.spawn_local(async move {
            let _ = connection.await;
        });
        driver
            .run_until(async {
                let mut responses = Vec::new();
                for request in requests {
                    let (head, body) = sender
                        .send_request(request)
                        .await
                        .expect("a response")
                        .into_parts();
                    let collected = body.collect().await;
                    responses.push(Response {
                        status: head.status.as_u16(),
                        headers: head
                            .headers
                            .iter()
                            .map(|(name, value)| {
                                (
                                    name.to_string(),
                                    value.to_str().unwrap_or_default().to_owned(),
                                )
                            })
                            .collect(),
                        complete: collected.is_ok(),
                        body: collected
                            .map(|body| body.to_bytes().to_vec())
                            .unwrap_or_default(),
                        chunks: Vec::new(),
                    });
                }
                responses
            })
            .await
    })
}

fn http2_request(gateway: &Gateway, path: &str) -> http::request::Builder {
    http::Request::post(format!("http://{}{path}", gateway.proxy))
}

#[test]
fn http2_is_served() {
    let upstream = Upstream::start(|received| {
        if received.text().contains("broken") {
            return Answer::Stream {
                pieces: vec![b"data: {\"choices\":[]}\n\n".to_vec()],
                pause: Duration::ZERO,
                ends: false,
            };
        }
        if received.text().contains("stream") {
            return Answer::events(&["data: {\"choices\":[]}", "data: [DONE]"]);
        }
        Answer::chat("a")
    });
    let gateway = Gateway::start(&single("openai", upstream.address, ""));
    let request = |body: &'static str| {
        http2_request(&gateway, "/x")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(Full::from(body))
            .expect("a request")
    };
    let streamed = r#"{"stream":true,"messages":[]}"#;
    let broken = r#"{"stream":true,"user":"broken","messages":[]}"#;
    let answers = http2(
        &gateway,
        vec![
            request(CHAT),
            request(streamed),
            request("{"),
            request(broken),
            request(CHAT),
        ],
    );
    let found: Vec<(u16, bool)> = answers.iter().map(|a| (a.status, a.complete)).collect();
    assert_eq!(
        found,
        [
            (200, true),
            (200, true),
            (400, true),
            (200, false),
            (200, true)
        ]
    );
    assert_eq!(
        answers[1].text(),
        "data: {\"choices\":[]}\n\ndata: [DONE]\n\n"
    );
    assert_eq!(upstream.requests()[0].text(), CHAT);
    assert_eq!(upstream.requests()[0].header("cookie"), Some("a=1; b=2"));
    gateway.wait_until_idle();
}

/// A client that opens no window does not hold the target for ever.
#[test]
fn an_http2_client_that_does_not_read_is_cut_off() {
    let upstream = Upstream::start(|_| Answer::Endless {
        event: format!("data: {}", "x".repeat(60_000)),
        pause: Duration::ZERO,
    });
    let gateway = Gateway::start_with(Start {
        document: &single("openai", upstream.address, ""),
        sections: "nginx_config: {http: {send_timeout: 1s}}",
        ..Start::default()
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(gateway.proxy)
            .await
            .expect("connected");
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .expect("a handshake");
        let local = tokio::task::LocalSet::new();
        local.spawn_local(async move {
            let _ = connection.await;
        });
        local
            .run_until(async {
                let body = r#"{"stream":true,"messages":[]}"#;
                let request = http2_request(&gateway, "/x")
                    .body(Full::<Bytes>::from(body))
                    .expect("a request");
                let response = sender.send_request(request).await.expect("a head");
                assert_eq!(response.status(), 200);
                // Nobody reads: neither the body nor the connection.
                upstream.wait_for_early_close();
                drop(response);
            })
            .await;
    });
    gateway.wait_until_idle();
    assert_eq!(get(gateway.proxy, "/nothing-else", &[]).status, 400);
}
