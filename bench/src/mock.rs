//! `mock`: a stand-in for a model provider that costs almost nothing, so that what is measured is
//! the gateway.
//!
//! It reads a request body of any size through one small buffer without parsing it, looks only at
//! the body's start for `"stream": true`, and answers with bytes made once at the start. A stream
//! goes out with one write per event, as a provider sends it, either as fast as it goes or paced.

use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::http1::{self, BodyReader, Framing};
use crate::payload;

/// How the mock upstream listens and answers.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// First port on 127.0.0.1; 0 lets the system choose each.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Number of listeners; with a fixed port they stand on consecutive ports.
    #[arg(long, default_value_t = 1)]
    listeners: u16,
    /// Chunks of a streamed answer, the one with the usage included and `[DONE]` not.
    #[arg(long, default_value_t = 200)]
    chunks: usize,
    /// Milliseconds between two chunks; 0 sends them in one burst.
    #[arg(long, default_value_t = 0)]
    pace_ms: u64,
    /// End when standard input does, so that the mock can't outlive who started it.
    #[arg(long)]
    until_stdin_closes: bool,
}

/// Serves until killed (or, if asked to, until standard input closes). Prints `listening ADDRESS`
/// for each listener.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let answers = Arc::new(Answers::new(options));
        let mut listeners = JoinSet::new();
        for offset in 0..options.listeners {
            let port = if options.port == 0 {
                0
            } else {
                options.port.saturating_add(offset)
            };
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
            writeln!(io::stdout(), "listening {}", listener.local_addr()?)?;
            listeners.spawn(accept(listener, Arc::clone(&answers)));
        }
        let (closed, stdin_closed) = oneshot::channel::<()>();
        if options.until_stdin_closes {
            thread::spawn(move || {
                // An error ends the wait just as the end of the input does.
                let _ = io::stdin().read_to_end(&mut Vec::new());
                drop(closed);
            });
            let _ = stdin_closed.await;
        } else {
            while listeners.join_next().await.is_some() {}
        }
        Ok(())
    })
}

/// Every answer, head and body, as it goes over the wire.
struct Answers {
    health: Vec<u8>,
    completion: Vec<u8>,
    message: Vec<u8>,
    not_found: Vec<u8>,
    stream_head: Vec<u8>,
    stream_writes: Vec<Vec<u8>>,
    message_writes: Vec<Vec<u8>>,
    pace: Duration,
}

impl Answers {
    fn new(options: &Options) -> Self {
        Self {
            health: plain("200 OK", b"ok"),
            completion: plain("200 OK", &payload::completion()),
            message: plain("200 OK", &payload::message()),
            not_found: plain("404 Not Found", b"{}"),
            stream_head: STREAM_HEAD.to_vec(),
            stream_writes: chunked(&payload::stream_events(options.chunks)),
            message_writes: chunked(&payload::message_events(options.chunks)),
            pace: Duration::from_millis(options.pace_ms),
        }
    }

    async fn send(&self, stream: &mut TcpStream, wanted: Wanted) -> io::Result<()> {
        match wanted {
            Wanted::Health => stream.write_all(&self.health).await,
            Wanted::Completion => stream.write_all(&self.completion).await,
            Wanted::Nothing => stream.write_all(&self.not_found).await,
            Wanted::Stream => self.send_stream(stream, &self.stream_writes).await,
            Wanted::Message => stream.write_all(&self.message).await,
            Wanted::MessageStream => self.send_stream(stream, &self.message_writes).await,
        }
    }

    async fn send_stream(&self, stream: &mut TcpStream, writes: &[Vec<u8>]) -> io::Result<()> {
        stream.write_all(&self.stream_head).await?;
        for write in writes {
            if !self.pace.is_zero() {
                tokio::time::sleep(self.pace).await;
            }
            stream.write_all(write).await?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Health,
    Completion,
    Stream,
    Message,
    MessageStream,
    Nothing,
}

async fn accept(listener: TcpListener, answers: Arc<Answers>) {
    let mut connections = JoinSet::new();
    loop {
        // A failed accept (out of descriptors, or a client already gone) concerns that client
        // alone.
        if let Ok((stream, _)) = listener.accept().await {
            connections.spawn(serve(stream, Arc::clone(&answers)));
        }
        while connections.try_join_next().is_some() {}
    }
}

/// One connection: requests one after another until the client closes it or sends what we don't
/// understand.
async fn serve(mut stream: TcpStream, answers: Arc<Answers>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut filled = 0;
    loop {
        let Some(head) = http1::parse_head(&buffer[..filled]).map_err(invalid)? else {
            match stream.read(&mut buffer[filled..]).await? {
                0 => return Ok(()),
                count => filled += count,
            }
            continue;
        };
        let (head_len, keep_alive, path) = (head.len, head.keep_alive, Path::of(head.start_line));
        let mut body = BodyReader::new(head.framing.unwrap_or(Framing::Length(0)));
        let mut start = Vec::with_capacity(START_BYTES);
        let mut keep_start = |bytes: &[u8]| {
            start.extend_from_slice(&bytes[..bytes.len().min(START_BYTES - start.len())]);
        };
        let mut used = head_len
            + body
                .feed(&buffer[head_len..filled], &mut keep_start)
                .map_err(invalid)?;
        while !body.is_done() {
            filled = stream.read(&mut buffer).await?;
            if filled == 0 {
                return Ok(());
            }
            used = body
                .feed(&buffer[..filled], &mut keep_start)
                .map_err(invalid)?;
        }
        buffer.copy_within(used..filled, 0);
        filled -= used;
        answers.send(&mut stream, path.wants(&start)).await?;
        if !keep_alive {
            return Ok(());
        }
    }
}

/// The paths this server knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    Chat,
    Messages,
    Health,
    Unknown,
}

impl Path {
    fn of(request_line: &[u8]) -> Self {
        if request_line.starts_with(b"POST /v1/chat/completions ") {
            Self::Chat
        } else if request_line.starts_with(b"POST /v1/messages ") {
            Self::Messages
        } else if request_line.starts_with(b"GET /health ") {
            Self::Health
        } else {
            Self::Unknown
        }
    }

    fn wants(self, body_start: &[u8]) -> Wanted {
        match self {
            Self::Chat if payload::asks_for_stream(body_start) => Wanted::Stream,
            Self::Chat => Wanted::Completion,
            Self::Messages if payload::asks_for_stream(body_start) => Wanted::MessageStream,
            Self::Messages => Wanted::Message,
            Self::Health => Wanted::Health,
            Self::Unknown => Wanted::Nothing,
        }
    }
}

fn plain(status: &str, body: &[u8]) -> Vec<u8> {
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(body);
    answer
}

/// Each event as one HTTP chunk; the end of the body leaves together with the last event.
fn chunked(events: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut writes: Vec<Vec<u8>> = events
        .iter()
        .map(|event| [format!("{:x}\r\n", event.len()).as_bytes(), event, b"\r\n"].concat())
        .collect();
    if let Some(last) = writes.last_mut() {
        last.extend_from_slice(b"0\r\n\r\n");
    }
    writes
}

fn invalid(error: http1::Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

const STREAM_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
    Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";

/// One per connection; larger than any head we accept.
const BUFFER_BYTES: usize = 64 * 1024;

/// How much of a body is searched for `"stream": true`.
const START_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_and_the_body_decide_the_answer() {
        fn check(request_line: &str, body: &str, wanted: Wanted) {
            assert_eq!(
                Path::of(request_line.as_bytes()).wants(body.as_bytes()),
                wanted,
                "{request_line} {body}"
            );
        }
        check(
            "POST /v1/chat/completions HTTP/1.1",
            r#"{"stream":true}"#,
            Wanted::Stream,
        );
        check(
            "POST /v1/chat/completions HTTP/1.1",
            r#"{"stream":false}"#,
            Wanted::Completion,
        );
        check("POST /v1/chat/completions HTTP/1.1", "", Wanted::Completion);
        check("POST /v1/messages HTTP/1.1", "", Wanted::Message);
        check(
            "POST /v1/messages HTTP/1.1",
            r#"{"stream":true}"#,
            Wanted::MessageStream,
        );
        check("GET /health HTTP/1.1", "", Wanted::Health);
        check("GET / HTTP/1.1", "", Wanted::Nothing);
    }

    #[test]
    fn a_stream_is_one_chunk_per_write_and_ends() {
        let events = payload::stream_events(3);
        let (mut body, mut reader) = (Vec::new(), BodyReader::new(Framing::Chunked));
        let writes = chunked(&events);
        assert_eq!(writes.len(), 4);
        for write in &writes {
            assert!(!reader.is_done());
            reader
                .feed(write, |bytes| body.extend_from_slice(bytes))
                .unwrap();
        }
        assert!(reader.is_done());
        assert_eq!(body, events.concat());
    }
}
