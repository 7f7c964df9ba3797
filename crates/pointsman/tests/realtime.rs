//! Realtime sessions: WebSockets to the instances of an AI plugin.

mod support;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    time::Duration,
};

use support::{Answer, Gateway, Upstream, client::Connection, flow_route, get, instance, single};

const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Accept: yes\r\nSet-Cookie: a=b\r\n\r\n";

/// A server that begins every session, greets, and says everything again until the peer has ended.
fn echo() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = listener.local_addr().expect("bound");
    let heads = Arc::new(Mutex::new(Vec::new()));
    let theirs = Arc::clone(&heads);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let heads = Arc::clone(&theirs);
            std::thread::spawn(move || {
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
                    head.push(byte[0]);
                }
                let head = String::from_utf8_lossy(&head).to_lowercase();
                heads.lock().expect("not poisoned").push(head);
                let mut said = [0; 64];
                let mut next = format!("{SWITCHED}hello").into_bytes();
                while stream.write_all(&next).is_ok() {
                    let read = stream.read(&mut said).unwrap_or_default();
                    if read == 0 {
                        break;
                    }
                    next = said[..read].to_vec();
                }
            });
        }
    });
    (address, heads)
}

/// Asks for a session.
fn ask(gateway: &Gateway, target: &str, more: &str) -> Connection {
    let mut client = Connection::open(gateway.proxy);
    let head = format!(
        "GET {target} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    );
    client.send(head.as_bytes());
    client
}

const TYPED: &str = ", typed_passthrough: true";

#[test]
fn a_session_goes_to_an_instance_under_its_own_terms() {
    let (address, heads) = echo();
    let with_model = instance("a", address, ", options: {model: gpt-realtime}");
    let gateway = Gateway::start(&flow_route(&[with_model], TYPED));
    let target = "/gw/v1/realtime?model=mine&intent=transcription&apikey=mine";
    let mut client = ask(
        &gateway,
        target,
        "Authorization: Bearer mine\r\nOpenAI-Beta: realtime=v1\r\n\
         Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.mine, b\r\n",
    );
    let response = client.response(false);
    assert_eq!(response.status, 101);
    assert_eq!(response.header("sec-websocket-accept"), Some("yes"));
    assert_eq!(response.header("set-cookie"), None);
    client.read_until("hello");
    client.send(b"to and fro");
    client.read_until("to and fro");

    let head = heads.lock().expect("not poisoned")[0].clone();
    let line = "get /v1/realtime?intent=transcription&model=gpt-realtime http/1.1\r\n";
    assert!(head.starts_with(line), "{head}");
    for part in [
        "\r\nauthorization: bearer token\r\n",
        "\r\nsec-websocket-protocol: realtime, b\r\n",
        "\r\nsec-websocket-key: k\r\n",
        "\r\nopenai-beta: realtime=v1\r\n",
        "\r\nconnection: upgrade\r\n",
        "\r\nupgrade: websocket\r\n",
    ] {
        assert!(head.contains(part), "no {part:?} in {head}");
    }
    for part in ["mine", "content-type", "content-length"] {
        assert!(!head.contains(part), "{part} in {head}");
    }

    // It is counted while it lasts, and told once it has ended.
    let active = ["apisix_llm_active_connections{", "node=\"a\""];
    assert!(gateway.metric(&active) > 0.0);
    drop(client);
    gateway.wait_until_idle();
    let lines = gateway.access_log(1);
    assert_eq!(lines.len(), 1);
    let line = &lines[0];
    assert_eq!(
        (&line["status"], &line["llm_model"]),
        (&101.into(), &"gpt-realtime".into())
    );
    assert_eq!(line["request_llm_model"], "mine", "{line}");
}

#[test]
fn a_clients_own_key_is_not_sent_where_there_is_none() {
    let (address, heads) = echo();
    let open = instance("a", address, "").replace("Authorization: Bearer token", "X-A: b");
    let gateway = Gateway::start(&flow_route(&[open], TYPED));
    let more = "Authorization: Bearer mine\r\napi-key: mine\r\n";
    let mut client = ask(&gateway, "/v1/realtime?model=m", more);
    assert_eq!(client.response(false).status, 101);
    let head = heads.lock().expect("not poisoned")[0].clone();
    assert!(head.contains("model=m") && !head.contains("mine"), "{head}");
}

#[test]
fn azure_is_told_its_deployment() {
    let check = |path: &str, expected: &str| {
        let (address, heads) = echo();
        let azure = instance("a", address, "").replace("openai-compatible", "azure-openai");
        let bare = format!("http://{address}");
        let document = flow_route(&[azure], TYPED).replace(&bare, &format!("{bare}{path}"));
        let gateway = Gateway::start(&document);
        let target = "/openai/realtime?api-version=0&deployment=mine";
        assert_eq!(ask(&gateway, target, "").response(false).status, 101);
        let head = heads.lock().expect("not poisoned")[0].clone();
        assert!(
            head.starts_with(&format!("get {expected} http/1.1\r\n")),
            "{head}"
        );
    };
    check(
        "/openai/deployments/d/chat/completions?api-version=1",
        "/openai/realtime?api-version=1&deployment=d",
    );
    check(
        "?api-version=1",
        "/openai/realtime?api-version=1&deployment=mine",
    );
    check(
        "/openai/v1/chat/completions?api-version=1",
        "/openai/v1/realtime?api-version=1&model=mine",
    );
}

/// I-1, I-23: who is known to be down gets no session, and who refuses one is followed by another.
#[test]
fn sessions_obey_health_and_are_retried_before_they_begin() {
    let (address, _) = echo();
    let refusing = Upstream::start(|_| Answer::status(503, "{}"));
    let down = Upstream::named("down");
    down.set_healthy(false);
    let checks = ", priority: 2, checks: {active: {type: http, http_path: /health, \
        healthy: {interval: 1}, unhealthy: {interval: 1, http_failures: 1}}}";
    let gateway = Gateway::start(&flow_route(
        &[
            instance("down", down.address, checks),
            instance("refusing", refusing.address, ", priority: 1"),
            instance("up", address, ""),
        ],
        ", typed_passthrough: true, fallback_strategy: [http_5xx]",
    ));
    gateway.wait_for_status(down.port(), "unhealthy");
    let mut client = ask(&gateway, "/v1/realtime?model=m", "");
    assert_eq!(client.response(false).status, 101);
    client.read_until("hello");
    drop(client);
    assert_eq!((down.hits(), refusing.hits()), (0, 1));
    let line = gateway.access_log(1).remove(0);
    assert_eq!(line["status"], 101, "{line}");
}

#[test]
fn what_is_no_session_is_refused() {
    let upstream = Upstream::start(|_| Answer::status(401, r#"{"error":{"message":"no"}}"#));
    let gateway = Gateway::start(&flow_route(&[instance("a", upstream.address, "")], TYPED));
    // What the instance answers instead is the answer.
    let refused = ask(&gateway, "/v1/realtime?model=m", "").response(false);
    assert_eq!(
        (refused.status, &*refused.text()),
        (401, r#"{"error":{"message":"no"}}"#)
    );
    assert_eq!(upstream.hits(), 1);
    assert_eq!(get(gateway.proxy, "/v1/realtime?model=m", &[]).status, 400);
    assert_eq!(upstream.hits(), 1);

    let typed = "        typed_passthrough: true\n";
    let other = Gateway::start(&single("anthropic", upstream.address, typed));
    let refused = ask(&other, "/v1/realtime?model=m", "").response(false);
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("does not support realtime"));
    let off = Gateway::start(&single("openai", upstream.address, ""));
    assert_eq!(
        ask(&off, "/v1/realtime?model=m", "").response(false).status,
        400
    );
    assert_eq!(upstream.hits(), 1);
}

/// The limit for answers is none for silence: people think before they speak.
#[test]
fn a_silent_session_lasts() {
    let (address, _) = echo();
    let limit = format!("{TYPED}, timeout: 200");
    let gateway = Gateway::start(&flow_route(&[instance("a", address, "")], &limit));
    let mut client = ask(&gateway, "/v1/realtime?model=m", "");
    assert_eq!(client.response(false).status, 101);
    client.read_until("hello");
    std::thread::sleep(Duration::from_millis(1000));
    client.send(b"still there");
    client.read_until("still there");
}
