//! Connections of clients: what is kept, what is closed and how, over HTTP/1.0, 1.1 and 2.

mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
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

/// A response to HEAD, or a 304, has no body, whatever there would be to send.
#[test]
fn responses_without_a_body_have_none() {
    let upstream = Upstream::start(|received| match received.target.as_str() {
        "/plain?304" => Answer::Whole {
            status: 304,
            kind: "text/plain",
            body: String::new(),
            headers: Vec::new(),
        },
        _ => Answer::text(200, "hello"),
    });
    let gateway = Gateway::start(&plain(&upstream, 5));
    let mut connection = Connection::open(gateway.proxy);
    let ask = |method: &str, path: &str| format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    // The last is there to show that nothing is left over from those before it.
    connection.send(
        [
            ask("HEAD", "/nowhere"),
            ask("GET", "/plain?304"),
            ask("HEAD", "/nowhere"),
            ask("GET", "/plain"),
        ]
        .concat()
        .as_bytes(),
    );
    let first = connection.response(true);
    assert_eq!((first.status, first.body.len()), (404, 0));
    assert_eq!(first.header("content-length"), Some("36"));
    assert_eq!(connection.response(true).status, 304);
    assert_eq!(connection.response(true).status, 404);
    assert_eq!(connection.response(false).text(), "hello");
    let lines = gateway.access_log(4);
    assert!(
        lines.iter().all(|line| line["ended"] == "complete"),
        "{lines:?}"
    );
}

/// A target that answers while the client still sends gets all of the body nevertheless.
#[test]
fn an_early_answer_takes_nothing_from_the_upload() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("bound");
    let target = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut seen = Vec::new();
        let mut buffer = [0; 4096];
        while !seen.ends_with(b"first") {
            let read = stream.read(&mut buffer).expect("read");
            assert!(read > 0, "the upload ended early");
            seen.extend_from_slice(&buffer[..read]);
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ngot\r\n")
            .expect("written");
        while !seen.ends_with(b"last") {
            let read = stream.read(&mut buffer).expect("read");
            assert!(read > 0, "the upload ended early");
            seen.extend_from_slice(&buffer[..read]);
        }
        stream.write_all(b"3\r\nall\r\n0\r\n\r\n").expect("written");
        String::from_utf8_lossy(&seen).into_owned()
    });
    let gateway = Gateway::start(&format!(
        "routes:\n- {{id: 1, uri: /plain, upstream: {{nodes: {{\"{address}\": 1}}}}}}\n"
    ));
    let mut connection = Connection::open(gateway.proxy);
    connection.send(b"POST /plain HTTP/1.1\r\nHost: a\r\nContent-Length: 15\r\n\r\nfirst");
    connection.read_until("got");
    connection.send(b"middle");
    connection.send(b"last");
    let response = connection.response(false);
    assert_eq!(
        (response.status, response.text().as_str(), response.complete),
        (200, "gotall", true)
    );
    assert!(
        target
            .join()
            .expect("no panic")
            .ends_with("firstmiddlelast")
    );
    gateway.wait_until_idle();
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

/// What an HTTP/2 client takes before it reads, per stream and together.
const WINDOW_BYTES: u32 = 65_535;

/// What `work` does with an HTTP/2 connection, made with prior knowledge.
fn with_http2<T, F: Future<Output = T>>(
    gateway: &Gateway,
    work: impl FnOnce(SendRequest<Full<Bytes>>) -> F,
) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let local = tokio::task::LocalSet::new();
    runtime.block_on(local.run_until(async {
        let stream = tokio::net::TcpStream::connect(gateway.proxy)
            .await
            .expect("connected");
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .expect("a handshake");
        tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        work(sender).await
    }))
}

/// The answers to `requests`, one after the other.
async fn answers(
    mut sender: SendRequest<Full<Bytes>>,
    requests: Vec<http::Request<Full<Bytes>>>,
) -> Vec<Response> {
    let mut responses = Vec::new();
    for request in requests {
        let response = sender.send_request(request).await.expect("a response");
        let (head, body) = response.into_parts();
        let collected = body.collect().await;
        responses.push(Response {
            status: head.status.as_u16(),
            headers: Vec::new(),
            complete: collected.is_ok(),
            body: collected.map_or_else(|_| Vec::new(), |body| body.to_bytes().to_vec()),
            chunks: Vec::new(),
        });
    }
    responses
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
    let requests = vec![
        request(CHAT),
        request(streamed),
        request("{"),
        request(broken),
        request(CHAT),
    ];
    let answers = with_http2(&gateway, |sender| answers(sender, requests));
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

/// HEAD is answered without a body, which HTTP/2 takes for a broken stream.
#[test]
fn http2_answers_to_head_have_no_body() {
    let upstream = Upstream::start(|_| Answer::text(200, "hello"));
    let routes = format!(
        "routes:\n- {{id: 1, uri: /plain, upstream: {{nodes: {{\"{}\": 1}}}}}}\n",
        upstream.address
    );
    let gateway = Gateway::start(&routes);
    let requests = ["/nope", "/plain", "/nope"].map(|path| {
        let head = http::Request::head(format!("http://{}{path}", gateway.proxy));
        head.body(Full::default()).expect("a request")
    });
    let answers = with_http2(&gateway, async |sender| {
        answers(sender, requests.into()).await
    });
    let found = answers.iter().map(|a| (a.status, a.complete, a.text()));
    let expected = [404, 200, 404].map(|status| (status, true, String::new()));
    assert!(found.eq(expected), "{answers:?}");
}

/// A whole answer goes out as the client takes it, not into the library's memory.
#[test]
fn http2_answers_nobody_reads_are_not_kept() {
    let upstream = Upstream::start(|_| Answer::chat(&"x".repeat(600_000)));
    let gateway = Gateway::start_with(Start {
        document: &single("openai", upstream.address, ""),
        sections: "nginx_config: {http: {send_timeout: 1s}}",
        ..Start::default()
    });
    with_http2(&gateway, async |mut sender| {
        let request = http2_request(&gateway, "/x").body(Full::from(CHAT));
        let sent = sender.send_request(request.expect("a request"));
        let response = sent.await.expect("a head");
        assert_eq!(response.status(), 200);
        // Nobody reads the body.
        let line = gateway.access_log(1).remove(0);
        assert_ne!(line["ended"], "complete", "{line}");
        drop(response);
    });
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
    with_http2(&gateway, async |mut sender| {
        let body = Full::from(r#"{"stream":true,"messages":[]}"#);
        let request = http2_request(&gateway, "/x").body(body).expect("a request");
        let response = sender.send_request(request).await.expect("a head");
        assert_eq!(response.status(), 200);
        // Nobody reads: neither the body nor the connection.
        upstream.wait_for_early_close();
        drop(response);
    });
    gateway.wait_until_idle();
    assert_eq!(get(gateway.proxy, "/nothing-else", &[]).status, 400);
}
