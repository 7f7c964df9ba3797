//! I-13: whatever other requests do, an attempt goes where it was picked to go, with the
//! credentials, `Host` and body that belong there, and its answer reaches the client who asked.

mod support;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::json;
use support::{Answer, Gateway, Received, Start, Upstream, client::Connection};

const CLIENTS: usize = 8;
const REQUESTS: usize = 60;

/// An upstream that says what it saw. Every third request of a `flaky` one fails.
fn echo(name: &'static str, flaky: bool) -> Upstream {
    let count = AtomicUsize::new(0);
    Upstream::start(move |received| {
        if flaky && count.fetch_add(1, Ordering::SeqCst).is_multiple_of(3) {
            return Answer::status(500, &saw(name, received));
        }
        Answer::json(&saw(name, received))
    })
}

fn saw(name: &str, received: &Received) -> String {
    json!({
        "upstream": name,
        "host": received.header("host"),
        "authorization": received.header("authorization"),
        "target": received.target,
        "client": received.header("x-client"),
        "body": received.text(),
    })
    .to_string()
}

/// A request as the instance `name` must receive it.
fn expect(received: &Received, name: &str, address: SocketAddr) {
    assert_eq!(
        received.header("host"),
        Some(address.to_string().as_str()),
        "{name}"
    );
    let token = format!("Bearer {name}");
    assert_eq!(
        received.header("authorization"),
        Some(token.as_str()),
        "{name}"
    );
    let body = received.json();
    assert_eq!(body["model"], format!("model-{name}"), "{name}");
    let client = received.header("x-client").expect("sent by us");
    assert_eq!(body["messages"][0]["content"], client, "{name}");
    assert_eq!(received.target, format!("/of/{name}?key={name}"), "{name}");
}

/// All instances, in an order of their own for each `turn`, and a plain route.
fn document(names: &[&str], upstreams: &[Upstream], plain: &Upstream, turn: usize) -> String {
    let mut instances: Vec<_> = names
        .iter()
        .zip(upstreams)
        .map(|(name, upstream)| {
            json!({
                "name": name, "provider": "openai-compatible", "weight": 1,
                "auth": {"header": {"Authorization": format!("Bearer {name}")}, "query": {"key": name}},
                "options": {"model": format!("model-{name}")},
                "override": {"endpoint": format!("http://{}/of/{name}", upstream.address)}
            })
        })
        .collect();
    instances.rotate_left(turn % names.len());
    json!({"routes": [
        {"id": 1, "uri": "/ai", "plugins": {"ai-proxy-multi": {"instances": instances, "fallback_strategy": "http_5xx"}}},
        {"id": 2, "uri": "/plain", "upstream": {"nodes": {plain.address.to_string(): 1}, "pass_host": "node"}},
    ]})
    .to_string()
}

#[test]
fn nothing_bleeds_from_one_request_into_another() {
    let names = ["a", "b", "c", "d"];
    let upstreams = names.map(|name| echo(name, name != "d"));
    let plain = echo("plain", false);
    let document = |turn: usize| document(&names, &upstreams, &plain, turn);
    let gateway = Gateway::start_with(Start {
        document: &document(0),
        workers: 4,
        ..Start::default()
    });
    let answered: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (gateway, answered) = (&gateway, &answered);
                scope.spawn(move || {
                    let mut connection = Connection::open(gateway.proxy);
                    for turn in 0..REQUESTS {
                        let id = format!("{number}-{turn}-{}", "x".repeat(turn * 37));
                        let path = if turn % 4 == 3 { "/plain" } else { "/ai" };
                        let from = one_request(&mut connection, path, &id);
                        *answered
                            .lock()
                            .expect("not poisoned")
                            .entry(from)
                            .or_default() += 1;
                    }
                })
            })
            .collect();
        // Configuration changes all the while; instances only change places.
        let mut turn = 0;
        while !clients.iter().all(|client| client.is_finished()) {
            turn += 1;
            gateway.reload(&document(turn));
        }
    });
    for (name, upstream) in names.iter().zip(&upstreams) {
        for received in upstream.requests() {
            expect(&received, name, upstream.address);
        }
    }
    let answered = answered.lock().expect("not poisoned").clone();
    assert_eq!(answered.values().sum::<usize>(), CLIENTS * REQUESTS);
    for name in names.iter().chain(&["plain"]) {
        assert!(
            answered.contains_key(*name),
            "{name} answered nothing: {answered:?}"
        );
    }
    gateway.wait_until_idle();
}

/// Sends one request and checks that the answer is its own. Returns who answered.
fn one_request(connection: &mut Connection, path: &str, id: &str) -> String {
    let body = json!({"model": "mine", "messages": [{"role": "user", "content": id}]}).to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: client\r\nContent-Type: application/json\r\n\
         X-Client: {id}\r\nAuthorization: Bearer client\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.send(head.as_bytes());
    let response = connection.response(false);
    assert_eq!(response.status, 200, "{}", response.text());
    let saw = response.json();
    assert_eq!(saw["client"], id, "the answer of another request");
    let from = saw["upstream"].as_str().expect("a name").to_owned();
    let token = if from == "plain" { "client" } else { &from };
    assert_eq!(saw["authorization"], format!("Bearer {token}"));
    from
}
