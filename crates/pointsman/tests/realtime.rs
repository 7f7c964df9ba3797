//! Realtime sessions: WebSockets to the instances of an AI plugin.

mod support;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
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
                let head = head_of(&mut stream).to_lowercase();
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

fn head_of(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// A server that begins every session and says `said`.
struct Scripted {
    address: SocketAddr,
    said: Arc<Mutex<Vec<u8>>>,
    /// Of each session, the head and what its client has said by now.
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// What a scripted server does when it has said everything.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    Listen,
    Leave,
}

impl Scripted {
    fn start(said: Vec<u8>, then: Then) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = listener.local_addr().expect("bound");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let said = Arc::new(Mutex::new(said));
        let (all, script) = (Arc::clone(&heard), Arc::clone(&said));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (all, script) = (Arc::clone(&all), Arc::clone(&script));
                std::thread::spawn(move || {
                    let head = head_of(&mut stream).into_bytes();
                    // A probe of the connection alone.
                    if head.is_empty() {
                        return;
                    }
                    let mut heard = all.lock().expect("not poisoned");
                    let own = heard.len();
                    heard.push(head);
                    drop(heard);
                    let said = script.lock().expect("not poisoned").clone();
                    let answer = [SWITCHED.as_bytes(), &said].concat();
                    let mut piece = [0; 256];
                    let mut read = usize::from(stream.write_all(&answer).is_ok());
                    while then == Then::Listen && read > 0 {
                        read = stream.read(&mut piece).unwrap_or_default();
                        all.lock().expect("not poisoned")[own].extend_from_slice(&piece[..read]);
                    }
                });
            }
        });
        Self {
            address,
            said,
            heard,
        }
    }

    /// What it says from now on.
    fn say(&self, said: Vec<u8>) {
        *self.said.lock().expect("not poisoned") = said;
    }

    fn sessions(&self) -> usize {
        self.heard.lock().expect("not poisoned").len()
    }

    /// Waits until the first session's client has said `part`.
    fn wait_to_hear(&self, part: &[u8]) {
        support::wait_until("the upstream to be told", || {
            let heard = self.heard.lock().expect("not poisoned");
            let mut parts = heard.first()?.windows(part.len());
            parts.any(|window| window == part).then_some(())
        });
    }
}

/// A server's text frame.
fn text(message: &str) -> Vec<u8> {
    let length = u16::try_from(message.len()).expect("short");
    let head = [&[0x81, 126][..], &length.to_be_bytes()].concat();
    [&head, message.as_bytes()].concat()
}

/// A server's close frame.
fn close(code: u16) -> Vec<u8> {
    [&[0x88, 2][..], &code.to_be_bytes()].concat()
}

/// The close frame that a peer gets with `code` and `reason`; the upstream's is masked, by nothing.
fn farewell(to_upstream: bool, code: u16, reason: &str) -> Vec<u8> {
    let length = u8::try_from(reason.len() + 2).expect("short");
    let head = match to_upstream {
        true => vec![0x88, 0x80 | length, 0, 0, 0, 0],
        false => vec![0x88, length],
    };
    [&head, &code.to_be_bytes()[..], reason.as_bytes()].concat()
}

const CREATED: &str = r#"{"type":"session.created"}"#;

/// A client's text frame, masked by nothing.
const HELLO: &[u8] = b"\x81\x85\0\0\0\0hello";

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

/// A gateway with `other` before one that works, and what `other` is told of by its `more`.
fn before_echo(other: &Scripted, other_more: &str, more: &str) -> Gateway {
    let other_more = format!(", priority: 1{other_more}");
    let pair = [
        instance("other", other.address, &other_more),
        instance("good", echo().0, ""),
    ];
    Gateway::start(&flow_route(&pair, &format!("{TYPED}{more}")))
}

/// A session, which must begin.
fn begin(gateway: &Gateway) -> Connection {
    let mut client = ask(gateway, "/v1/realtime?model=m", "");
    assert_eq!(client.response(false).status, 101);
    client
}

fn error(kind: &str) -> Vec<u8> {
    text(&format!(
        r#"{{"type":"error","error":{{"type":"{kind}"}}}}"#
    ))
}

const CIRCUIT: &str = ", circuit_breaker: {failures: 2, open_ms: 3600000}";

/// Whoever begins sessions and breaks them has not done what was asked for.
#[test]
fn a_session_that_breaks_right_away_counts_against_its_instance() {
    for (said, then, told) in [
        (Vec::new(), Then::Leave, "broke off"),
        (text(CREATED)[..9].to_vec(), Then::Leave, "typ"),
        (close(1011), Then::Leave, "\u{3}"),
        (error("server_error"), Then::Listen, "server_error"),
    ] {
        let leaves = matches!(then, Then::Leave);
        let bad = Scripted::start(said, then);
        let gateway = before_echo(&bad, "", CIRCUIT);
        for _ in 0..2 {
            let mut client = begin(&gateway);
            client.read_until(told);
            // Who leaves first is not told how it would have ended.
            if leaves {
                while !client.is_closed() {
                    client.take();
                }
            }
        }
        gateway.wait_for_line("too many failures");
        begin(&gateway).read_until("hello");
        assert_eq!(bad.sessions(), 2, "{told}");
    }
}

/// The same for whoever takes sessions and says nothing.
#[test]
fn a_session_without_a_word_counts_against_its_instance() {
    for limit in ["stream_idle_timeout_ms", "max_stream_duration_ms"] {
        let silent = Scripted::start(Vec::new(), Then::Listen);
        let gateway = before_echo(&silent, "", &format!("{CIRCUIT}, {limit}: 300"));
        for _ in 0..2 {
            begin(&gateway).read_until(&format!("{limit} exceeded"));
        }
        gateway.wait_for_line("too many failures");
        begin(&gateway).read_until("hello");
        assert_eq!(silent.sessions(), 2, "{limit}");
    }
}

/// The same for passive checks.
#[test]
fn passive_checks_see_sessions_that_break() {
    let bad = Scripted::start(Vec::new(), Then::Leave);
    let checks = ", checks: {active: {type: tcp, healthy: {interval: 3600}, unhealthy: \
        {interval: 3600}}, passive: {unhealthy: {tcp_failures: 2}}}";
    let gateway = before_echo(&bad, checks, "");
    for _ in 0..2 {
        begin(&gateway).read_until("broke off");
    }
    gateway.wait_for_status(bad.address.port(), "unhealthy");
    begin(&gateway).read_until("hello");
    assert_eq!(bad.sessions(), 2);
}

/// What began well, ended as it should or is the client's fault is no failure.
#[test]
fn a_session_that_works_is_none_against_its_instance() {
    for (said, then, told) in [
        (text(CREATED), Then::Leave, "broke off"),
        (close(1000), Then::Leave, "\u{3}"),
        (
            error("invalid_request_error"),
            Then::Listen,
            "request_error",
        ),
        (Vec::new(), Then::Listen, ""),
    ] {
        let other = Scripted::start(said, then);
        let gateway = before_echo(&other, "", CIRCUIT);
        for _ in 0..5 {
            begin(&gateway).read_until(told);
            gateway.wait_until_idle();
        }
        assert_eq!(other.sessions(), 5, "{told}");
        assert!(!gateway.stderr().contains("too many failures"), "{told}");
    }
}

/// A trial of a circuit is decided by a session's first event, while it lasts.
#[test]
fn a_circuit_is_tried_with_a_session() {
    let bad = Scripted::start(error("overloaded_error"), Then::Listen);
    let lone = instance("lone", bad.address, "");
    let more = format!("{TYPED}, circuit_breaker: {{failures: 1, open_ms: 100, max_open_ms: 100}}");
    let gateway = Gateway::start(&flow_route(&[lone], &more));
    begin(&gateway).read_until("overloaded");
    gateway.wait_for_line("too many failures");
    bad.say(text(CREATED));
    support::wait_until("the circuit to close", || {
        let mut client = begin(&gateway);
        client.read_until("created");
        gateway.stderr().contains("trials succeeded").then_some(())
    });
}

/// What stops a session is told to both sides, in a close frame.
#[test]
fn a_session_has_limits_and_says_which() {
    let check = |limit: &str, code: u16, reason: &str, client_says: &[u8]| {
        let upstream = Scripted::start(text(CREATED), Then::Listen);
        let limited = format!("{TYPED}, {limit}");
        let gateway = Gateway::start(&flow_route(
            &[instance("a", upstream.address, "")],
            &limited,
        ));
        let mut client = begin(&gateway);
        if !client_says.is_empty() {
            client.read_until("created");
        }
        client.send(client_says);
        client.read_until(reason);
        let got = client.take();
        assert!(
            got.ends_with(&farewell(false, code, reason)),
            "{limit}: {got:?}"
        );
        assert!(client.is_closed());
        upstream.wait_to_hear(&farewell(true, 1001, reason));
        let line = gateway.access_log(1).remove(0);
        assert_eq!(line["ended"], "limited", "{line}");
    };
    check(
        "max_response_bytes: 20",
        1009,
        "max_response_bytes exceeded",
        b"",
    );
    check(
        "max_stream_duration_ms: 300",
        1001,
        "max_stream_duration_ms exceeded",
        b"",
    );
    check(
        "stream_idle_timeout_ms: 300",
        1001,
        "stream_idle_timeout_ms exceeded",
        HELLO,
    );
}

/// Who has been left is told, but not in the middle of a frame.
#[test]
fn who_is_left_is_told() {
    let upstream = Scripted::start(text(CREATED), Then::Listen);
    let gateway = Gateway::start(&flow_route(&[instance("a", upstream.address, "")], TYPED));
    let mut client = begin(&gateway);
    client.read_until("created");
    client.send(HELLO);
    upstream.wait_to_hear(b"hello");
    drop(client);
    upstream.wait_to_hear(&farewell(true, 1001, "the client has left"));
    assert_eq!(gateway.access_log(1)[0]["ended"], "abandoned");

    let told = |said: Vec<u8>| {
        let upstream = Scripted::start(said, Then::Leave);
        let gateway = Gateway::start(&flow_route(&[instance("a", upstream.address, "")], TYPED));
        let mut client = begin(&gateway);
        let got = client.read_to_end();
        let line = gateway.access_log(1).remove(0);
        (got, line["ended"].clone())
    };
    let broken = farewell(false, 1011, "the provider's connection broke off");
    let created = text(CREATED);
    assert_eq!(
        told(created.clone()),
        ([&created[..], &broken].concat(), "upstream_broken".into())
    );
    let half = created[..9].to_vec();
    assert_eq!(told(half.clone()), (half, "upstream_broken".into()));
    assert_eq!(told(close(1000)), (close(1000), "complete".into()));
}

/// Each answer's tokens count, whether it stands alone or not; and so that they can be read, nothing is compressed.
#[test]
fn tokens_of_a_session_are_counted() {
    let done = r#"{"type":"response.done","response":{"usage":{"total_tokens":30,"input_tokens":20,"output_tokens":10,"input_token_details":{"cached_tokens":5}}}}"#;
    let said = [text(CREATED), text(done), text(done), close(1000)].concat();
    let upstream = Scripted::start(said.clone(), Then::Leave);
    let gateway = Gateway::start(&flow_route(&[instance("a", upstream.address, "")], TYPED));
    let more = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let mut client = ask(&gateway, "/v1/realtime?model=m", more);
    assert_eq!(client.response(false).status, 101);
    // The bytes are those of the provider.
    assert_eq!(client.read_to_end(), said);
    let line = gateway.access_log(1).remove(0);
    for (name, tokens) in [
        ("llm_prompt_tokens", 40),
        ("llm_completion_tokens", 20),
        ("llm_total_tokens", 60),
        ("llm_cache_read_input_tokens", 10),
    ] {
        assert_eq!(line[name], tokens, "{name} in {line}");
    }
    let tokens = gateway.metric(&["apisix_llm_prompt_tokens{", "node=\"a\""]);
    assert!((tokens - 40.0).abs() < 0.5, "{tokens}");
    let heard = upstream.heard.lock().expect("not poisoned")[0].clone();
    let head = String::from_utf8_lossy(&heard).to_lowercase();
    assert!(!head.contains("extensions"), "{head}");
}

#[test]
fn a_session_must_be_asked_for_properly() {
    let upstream = Scripted::start(text(CREATED), Then::Listen);
    let gateway = Gateway::start(&flow_route(&[instance("a", upstream.address, "")], TYPED));
    let mut client = Connection::open(gateway.proxy);
    client.send(
        b"GET /v1/realtime?model=m HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\n\r\n",
    );
    assert_eq!(client.response(false).status, 400);
    assert_eq!(upstream.sessions(), 0);
    begin(&gateway).read_until("created");
}

/// How long people talk says nothing about how quickly the instance answers.
#[test]
fn the_length_of_a_session_is_no_response_time() {
    let upstream = Scripted::start(text(CREATED), Then::Listen);
    let gateway = Gateway::start(&flow_route(&[instance("a", upstream.address, "")], TYPED));
    let client = begin(&gateway);
    // It lasts for at least that long after the instance has answered.
    std::thread::sleep(Duration::from_millis(300));
    drop(client);
    let line = gateway.access_log(1).remove(0);
    let lasted = line["request_time"].as_f64().expect("seconds") * 1000.0;
    let took = line["apisix_upstream_response_time"].as_f64();
    assert!(lasted - took.expect("milliseconds") >= 298.0, "{line}");
}
