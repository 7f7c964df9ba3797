//! Connections that wait for their next request: whether they still serve, and what a request that
//! meets the end of one means.

mod support;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};

use support::{Answer, Gateway, Start, Upstream, client::Connection, get, request};

fn plain(address: std::net::SocketAddr) -> String {
    format!(
        "routes:\n- {{id: 1, uri: /*, upstream: {{retries: 0, nodes: {{\"{address}\": 1}}}}}}\n"
    )
}

/// Has `count` requests under way at the same time, each on a connection of its own.
fn at_once(gateway: &Gateway, count: usize) {
    let proxy = gateway.proxy;
    let clients: Vec<_> = (0..count)
        .map(|_| thread::spawn(move || assert_eq!(get(proxy, "/warm", &[]).status, 200)))
        .collect();
    for client in clients {
        client.join().expect("answered");
    }
}

fn read_head(stream: &mut TcpStream) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut byte).expect("a request"), 1);
        head.extend_from_slice(&byte);
    }
}

/// More closed connections than a task may read from in one go without pausing: none of them may
/// be taken for an open one.
#[test]
fn a_target_that_restarts_costs_no_request_however_many_connections_waited() {
    const IDLE: usize = 300;
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("bound");
    let gateway = Gateway::start(&plain(address));
    let target = thread::spawn(move || {
        let mut streams: Vec<TcpStream> = Vec::new();
        for _ in 0..IDLE {
            let (mut stream, _) = listener.accept().expect("a connection");
            read_head(&mut stream);
            streams.push(stream);
        }
        for stream in &mut streams {
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(answer).expect("answered");
        }
        (listener, streams)
    });
    at_once(&gateway, IDLE);
    let (listener, streams) = target.join().expect("a target");
    drop(streams);
    let post = thread::spawn(move || request(gateway.proxy, "POST", "/x", &[], "x").status);
    let (mut stream, _) = listener.accept().expect("a new connection");
    read_head(&mut stream);
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(answer).expect("answered");
    assert_eq!(post.join().expect("answered"), 200);
}

/// A request that ends whatever it is sent to must not be sent to all there are.
#[test]
fn a_request_that_closes_connections_is_sent_twice_at_most() {
    const IDLE: usize = 8;
    let barrier = Arc::new(Barrier::new(IDLE));
    let upstream = Upstream::start(move |received| {
        if received.target == "/poison" {
            return Answer::Close;
        }
        barrier.wait();
        Answer::text(200, "hello")
    });
    let gateway = Gateway::start(&plain(upstream.address));
    at_once(&gateway, IDLE);
    let deleted = request(gateway.proxy, "DELETE", "/poison", &[], "");
    assert_eq!((deleted.status, upstream.hits()), (502, IDLE + 2));
}

/// `client_header_timeout` is the time for a head; that nobody asked anything before does not count.
#[test]
fn waiting_is_not_part_of_a_heads_time() {
    let upstream = Upstream::start(|_| Answer::text(200, "hello"));
    let gateway = Gateway::start_with(Start {
        document: &plain(upstream.address),
        sections: "nginx_config: {http: {client_header_timeout: 6s}}",
        ..Start::default()
    });
    let mut client = Connection::open(gateway.proxy);
    // Together longer than the limit, and each shorter by two seconds or more, for slow machines.
    thread::sleep(Duration::from_secs(4));
    client.send(b"GET /x HTTP/1.1\r\n");
    thread::sleep(Duration::from_secs(3));
    client.send(b"Host: a\r\n\r\n");
    assert_eq!(client.response(false).status, 200);
}

/// `nginx_http_current_connections` counts connections of clients, whether they ask or not.
#[test]
fn open_connections_are_counted() {
    let upstream = Upstream::start(|_| Answer::text(200, "hello"));
    let gateway = Gateway::start_with(Start {
        document: &plain(upstream.address),
        workers: 2,
        ..Start::default()
    });
    let count = |state: &str, expected: f64| {
        let label = format!("state=\"{state}\"");
        support::wait_until(&format!("{expected} {state}"), || {
            let found = gateway.metric(&["apisix_nginx_http_current_connections{", &label]);
            (found == expected).then_some(())
        });
    };
    count("active", 0.0);
    let mut clients: Vec<Connection> = (0..3).map(|_| Connection::open(gateway.proxy)).collect();
    count("active", 3.0);
    for client in &mut clients {
        client.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.response(false).status, 200);
    }
    count("active", 3.0);
    assert_eq!(gateway.metric(&["pointsman_requests_in_flight"]), 0.0);
    clients.truncate(1);
    count("active", 1.0);
    count("accepted", 3.0);
    count("handled", 3.0);
}
