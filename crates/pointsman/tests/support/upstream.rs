//! Upstreams that do as they are told and remember what they received.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use super::wait_until;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) connection: usize,
    pub(crate) at: Instant,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

/// What to do with a request.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// A whole response.
    Whole {
        status: u16,
        kind: &'static str,
        body: String,
        headers: Vec<(&'static str, String)>,
    },
    /// Pieces of a chunked event stream, with a pause before each. Ends properly if `ends`.
    Stream {
        pieces: Vec<Vec<u8>>,
        pause: Duration,
        ends: bool,
    },
    /// An event stream that never ends.
    Endless { event: String, pause: Duration },
    /// Bytes as they are, then the connection closes.
    Raw(Vec<u8>),
    /// Bytes as they are, then nothing until the peer closes.
    Open(Vec<u8>),
    /// The connection closes without a byte.
    Close,
    /// Nothing, for a long time.
    Silence,
    /// One byte after the other, with a pause before each, until the peer has had enough.
    Drip(u8, Duration),
    /// Another answer, later.
    After(Duration, Box<Self>),
}

impl Answer {
    pub(crate) fn json(body: &str) -> Self {
        Self::status(200, body)
    }

    pub(crate) fn status(status: u16, body: &str) -> Self {
        Self::Whole {
            status,
            kind: "application/json",
            body: body.to_owned(),
            headers: Vec::new(),
        }
    }

    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self::Whole {
            status,
            kind: "text/plain",
            body: body.to_owned(),
            headers: Vec::new(),
        }
    }

    /// Each event in a write of its own.
    pub(crate) fn events(events: &[&str]) -> Self {
        let pieces = events
            .iter()
            .map(|event| format!("{event}\n\n").into_bytes())
            .collect();
        Self::Stream {
            pieces,
            pause: Duration::ZERO,
            ends: true,
        }
    }

    /// A chat completion that says who made it.
    pub(crate) fn chat(name: &str) -> Self {
        Self::json(&chat_body(name))
    }
}

pub(crate) fn chat_body(name: &str) -> String {
    format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"{name}","choices":[{{"index":0,"message":{{"role":"assistant","content":"from {name}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":8,"completion_tokens":5,"total_tokens":13}}}}"#
    )
}

type Handler = dyn Fn(&Received) -> Answer + Send + Sync;

/// A scripted upstream. `GET /health` is answered by a switch of its own and not recorded as
/// traffic.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    handler: Box<Handler>,
    probe_handler: Option<Box<Handler>>,
    open: AtomicUsize,
    most_open: AtomicUsize,
    requests: Mutex<Vec<Received>>,
    probes: Mutex<Vec<Received>>,
    healthy: AtomicBool,
    connections: AtomicUsize,
    closed_early: Mutex<Vec<Instant>>,
    written: AtomicUsize,
    stop: AtomicBool,
}

impl Upstream {
    /// Starts one that answers with `handler`.
    pub(crate) fn start(handler: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        Self::on(listener, handler, None)
    }

    /// Starts one that answers probes with a handler of their own.
    pub(crate) fn probed(
        handler: impl Fn(&Received) -> Answer + Send + Sync + 'static,
        probes: impl Fn(&Received) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        Self::on(listener, handler, Some(Box::new(probes)))
    }

    /// Starts one on an address that was in use before.
    pub(crate) fn start_at(
        address: SocketAddr,
        handler: impl Fn(&Received) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = wait_until("the port to be free", || TcpListener::bind(address).ok());
        Self::on(listener, handler, None)
    }

    /// `start_at` and `probed` at once.
    pub(crate) fn probed_at(
        address: SocketAddr,
        handler: impl Fn(&Received) -> Answer + Send + Sync + 'static,
        probes: impl Fn(&Received) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = wait_until("the port to be free", || TcpListener::bind(address).ok());
        Self::on(listener, handler, Some(Box::new(probes)))
    }

    pub(super) fn on(
        listener: TcpListener,
        handler: impl Fn(&Received) -> Answer + Send + Sync + 'static,
        probe_handler: Option<Box<Handler>>,
    ) -> Self {
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            probe_handler,
            open: AtomicUsize::new(0),
            most_open: AtomicUsize::new(0),
            requests: Mutex::default(),
            probes: Mutex::default(),
            healthy: AtomicBool::new(true),
            connections: AtomicUsize::new(0),
            closed_early: Mutex::default(),
            written: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let theirs = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if theirs.stop.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&theirs);
                let number = shared.connections.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    let open = shared.open.fetch_add(1, Ordering::SeqCst) + 1;
                    shared.most_open.fetch_max(open, Ordering::SeqCst);
                    serve(&stream, number, &shared);
                    shared.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, shared }
    }

    /// One that answers every chat with its own name.
    pub(crate) fn named(name: &'static str) -> Self {
        Self::start(move |_| Answer::chat(name))
    }

    /// One that always answers with that status.
    pub(crate) fn failing(status: u16) -> Self {
        Self::start(move |_| Answer::status(status, &format!("{{\"error\":\"status {status}\"}}")))
    }

    /// An address at which nobody listens.
    pub(crate) fn nobody() -> SocketAddr {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(&any.into()).expect("a port");
        let address = socket.local_addr().expect("bound").as_socket();
        // Bound and never listened at, to the end of the test: so nobody else gets the port.
        std::mem::forget(socket);
        address.expect("an address of the internet")
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Everything received but probes.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.shared.requests.lock().expect("not poisoned").clone()
    }

    pub(crate) fn hits(&self) -> usize {
        self.shared.requests.lock().expect("not poisoned").len()
    }

    pub(crate) fn last(&self) -> Received {
        self.requests().pop().expect("a request was received")
    }

    pub(crate) fn probes(&self) -> Vec<Received> {
        self.shared.probes.lock().expect("not poisoned").clone()
    }

    pub(crate) fn wait_for_probes(&self, count: usize) -> Vec<Received> {
        wait_until("probes", || {
            Some(self.probes()).filter(|probes| probes.len() >= count)
        })
    }

    /// What probes are answered from now on.
    pub(crate) fn set_healthy(&self, healthy: bool) {
        self.shared.healthy.store(healthy, Ordering::SeqCst);
    }

    /// Connections that were accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Connections that are open now.
    pub(crate) fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// The most connections that were open at once.
    pub(crate) fn most_open(&self) -> usize {
        self.shared.most_open.load(Ordering::SeqCst)
    }

    /// How many connections have carried traffic.
    pub(crate) fn traffic_connections(&self) -> usize {
        let requests = self.requests();
        let numbers: std::collections::BTreeSet<usize> = requests
            .iter()
            .map(|received| received.connection)
            .collect();
        numbers.len()
    }

    /// Waits until a peer has closed its connection while a response was being written.
    pub(crate) fn wait_for_early_close(&self) -> Instant {
        wait_until("the gateway to close", || {
            self.shared
                .closed_early
                .lock()
                .expect("not poisoned")
                .first()
                .copied()
        })
    }

    /// Pieces of streams written so far.
    pub(crate) fn written(&self) -> usize {
        self.shared.written.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn note_early_close(&self) {
        let mut closed = self.closed_early.lock().expect("not poisoned");
        closed.push(Instant::now());
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, so that the port is free again.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(stream: &TcpStream, connection: usize, shared: &Shared) {
    let mut buffer = Vec::new();
    stream.set_nodelay(true).expect("a socket");
    while let Some(received) = read(stream, connection, &mut buffer) {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let is_probe = received.target.starts_with("/health")
            || received.target.starts_with("/status")
            || received.header("x-probe").is_some();
        let answer = if is_probe {
            let healthy = shared.healthy.load(Ordering::SeqCst);
            let answer = match &shared.probe_handler {
                Some(handler) => handler(&received),
                None => Answer::text(if healthy { 200 } else { 500 }, ""),
            };
            shared.probes.lock().expect("not poisoned").push(received);
            answer
        } else {
            let answer = (shared.handler)(&received);
            shared.requests.lock().expect("not poisoned").push(received);
            answer
        };
        if !write(stream, answer, shared) {
            // A reset, rather than a proper end, shows in the peer at once.
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
    }
}

fn read(mut stream: &TcpStream, connection: usize, buffer: &mut Vec<u8>) -> Option<Received> {
    let mut fill = |buffer: &mut Vec<u8>| -> Option<()> {
        let mut piece = [0u8; 64 << 10];
        let read = stream.read(&mut piece).ok().filter(|read| *read > 0)?;
        buffer.extend_from_slice(&piece[..read]);
        Some(())
    };
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        fill(buffer)?;
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    buffer.drain(..end + 4);
    let mut lines = head.lines();
    let mut start = lines.next()?.split(' ');
    let (method, target) = (start.next()?.to_owned(), start.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .collect();
    let mut received = Received {
        method,
        target,
        headers,
        body: Vec::new(),
        connection,
        at: Instant::now(),
    };
    if received.header("transfer-encoding").is_some() {
        loop {
            let line_end = loop {
                if let Some(end) = buffer.windows(2).position(|window| window == b"\r\n") {
                    break end;
                }
                fill(buffer)?;
            };
            let size =
                usize::from_str_radix(&String::from_utf8_lossy(&buffer[..line_end]), 16).ok()?;
            buffer.drain(..line_end + 2);
            while buffer.len() < size + 2 {
                fill(buffer)?;
            }
            received.body.extend(buffer.drain(..size));
            buffer.drain(..2);
            if size == 0 {
                return Some(received);
            }
        }
    }
    let length = received
        .header("content-length")
        .and_then(|l| l.parse().ok())
        .unwrap_or(0);
    while buffer.len() < length {
        fill(buffer)?;
    }
    received.body = buffer.drain(..length).collect();
    Some(received)
}

/// Returns whether the connection can go on.
fn write(mut stream: &TcpStream, answer: Answer, shared: &Shared) -> bool {
    match answer {
        Answer::Whole {
            status,
            kind,
            body,
            headers,
        } => {
            let mut text = format!("HTTP/1.1 {status} Scripted\r\nContent-Type: {kind}\r\n");
            for (name, value) in headers {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
            text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
            stream.write_all(text.as_bytes()).is_ok()
        }
        Answer::Stream {
            pieces,
            pause,
            ends,
        } => {
            if stream.write_all(STREAM_HEAD).is_err() {
                return false;
            }
            for piece in pieces {
                if !pause.is_zero() && closed_within(stream, pause) {
                    shared.note_early_close();
                    return false;
                }
                let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n"].concat();
                if stream.write_all(&chunk).is_err() {
                    shared.note_early_close();
                    return false;
                }
                shared.written.fetch_add(1, Ordering::SeqCst);
            }
            ends && stream.write_all(b"0\r\n\r\n").is_ok()
        }
        Answer::Endless { event, pause } => {
            if stream.write_all(STREAM_HEAD).is_err() {
                return false;
            }
            let event = format!("{event}\n\n");
            let chunk = format!("{:x}\r\n{event}\r\n", event.len());
            while !shared.stop.load(Ordering::SeqCst) {
                if closed_within(stream, pause) || stream.write_all(chunk.as_bytes()).is_err() {
                    shared.note_early_close();
                    return false;
                }
                shared.written.fetch_add(1, Ordering::SeqCst);
            }
            false
        }
        Answer::Raw(bytes) => {
            let _ = stream.write_all(&bytes);
            false
        }
        Answer::Open(bytes) => stream.write_all(&bytes).is_ok() && wait_for_close(stream, shared),
        Answer::Close => false,
        Answer::Silence => wait_for_close(stream, shared),
        Answer::Drip(byte, pause) => drip(stream, byte, pause),
        Answer::After(pause, answer) => {
            if closed_within(stream, pause) {
                shared.note_early_close();
                return false;
            }
            write(stream, *answer, shared)
        }
    }
}

/// Sends nothing until the peer closes. The connection is of no further use.
fn wait_for_close(stream: &TcpStream, shared: &Shared) -> bool {
    if closed_within(stream, super::DEADLINE) {
        shared.note_early_close();
    }
    false
}

fn drip(mut stream: &TcpStream, byte: u8, pause: Duration) -> bool {
    while !closed_within(stream, pause) && stream.write_all(&[byte]).is_ok() {}
    false
}

/// Waits for `pause`, or less if the peer closes.
fn closed_within(mut stream: &TcpStream, pause: Duration) -> bool {
    stream
        .set_read_timeout(Some(pause.max(Duration::from_millis(1))))
        .expect("a socket");
    let closed = matches!(stream.read(&mut [0u8; 1]), Ok(0))
        || stream.take_error().is_ok_and(|error| error.is_some());
    stream.set_read_timeout(None).expect("a socket");
    closed
}

const STREAM_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
