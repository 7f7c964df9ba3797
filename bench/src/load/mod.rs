//! `load`: drives one address with chat requests and reports what came back.
//!
//! Two ways to send: a closed loop, where each connection sends its next request as soon as it has
//! its answer (what does a request cost?), and a fixed rate, where requests have a planned moment
//! and latency counts from it (what does a user wait?). Every answer is checked for status, length
//! and number of events, and the first wrong one ends the run: an error must never look like a fast
//! request.
//!
//! The load generator itself reads the CPU time of the process it is told to watch, at the same
//! moments at which it reads its own counters, so that the warm-up counts for neither and no
//! message between processes blurs the edges.

mod closed_loop;
mod fixed_rate;
mod learn;
mod response;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::histogram::Histogram;
use crate::payload::{self, Reply};
use crate::procfs::{self, Memory, Pid};
use response::Expected;

/// What to send, where to, and for how long.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Address to drive, such as 127.0.0.1:9080.
    #[arg(long)]
    target: SocketAddr,
    /// Connections, each with at most one request under way.
    #[arg(long, default_value = "32")]
    connections: NonZeroUsize,
    /// Length of the measured window in seconds.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// End the window early after this many requests (closed loop only).
    #[arg(long)]
    requests: Option<u64>,
    /// Seconds of the same load before the window.
    #[arg(long, default_value_t = 1.0)]
    warm_up_seconds: f64,
    /// Requests per second in total; without it each connection sends as fast as it is answered.
    #[arg(long, conflicts_with = "requests")]
    rate: Option<f64>,
    /// Bytes of a request body.
    #[arg(long, default_value_t = 1024)]
    body_bytes: usize,
    /// Ask for a streamed answer of this many chunks; must be what the mock serves.
    #[arg(long)]
    stream_chunks: Option<usize>,
    /// Expect whatever the first answer is, length and number of events, instead of the mock's own.
    #[arg(long)]
    learn: bool,
    /// Read CPU time and memory of this process and its descendants.
    #[arg(long)]
    watch: Option<u32>,
}

/// What one run saw inside its window.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) requests: u64,
    /// Chunks of streamed answers, `[DONE]` not counted; 0 without streaming.
    pub(crate) chunks: u64,
    pub(crate) seconds: f64,
    /// Connections that the other side closed between two requests, warm-up included.
    pub(crate) reconnects: u64,
    pub(crate) latency: Latency,
    pub(crate) watched: Option<Watched>,
}

/// Request latencies, µs; from the planned moment at a fixed rate, else from the moment of sending.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) max_us: f64,
}

/// What the watched process used.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Watched {
    /// User and system time inside the window.
    pub(crate) cpu_seconds: f64,
    /// At the end of the window, with all connections still open.
    pub(crate) memory: Memory,
}

/// Runs the load and prints the report as one line of JSON. Fails on the first answer that isn't as
/// expected.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let plan = Plan::new(options)?;
    let report = match options.rate {
        Some(rate) => fixed_rate::run(&plan, rate)?,
        None => closed_loop::run(&plan)?,
    };
    let line = serde_json::to_string(&report).map_err(|error| error.to_string())?;
    writeln!(io::stdout(), "{line}").map_err(|error| error.to_string())
}

/// The options, checked and made ready to run.
#[derive(Debug)]
struct Plan {
    target: SocketAddr,
    connections: usize,
    warm_up: Duration,
    window: Duration,
    requests: Option<u64>,
    /// Head and body of the one request that is sent over and over.
    request: Arc<[u8]>,
    expected: Expected,
    watch: Option<Pid>,
}

impl Plan {
    fn new(options: &Options) -> Result<Self, String> {
        let seconds = |value: f64, what: &str| {
            Duration::try_from_secs_f64(value)
                .map_err(|error| format!("{what} of {value} s: {error}"))
        };
        let (kind, expected) = match options.stream_chunks {
            None => (
                Reply::Json,
                Expected {
                    body_bytes: payload::completion().len() as u64,
                    events: 0,
                },
            ),
            Some(chunks) => {
                let events = payload::stream_events(chunks);
                let body_bytes = events.iter().map(Vec::len).sum::<usize>() as u64;
                (
                    Reply::Stream,
                    Expected {
                        body_bytes,
                        events: events.len() as u64,
                    },
                )
            }
        };
        let body = payload::chat_request(options.body_bytes, kind);
        let request = request(options.target, &body);
        let expected = if options.learn {
            learn::expected(options.target, &request, expected.events > 0)
                .map_err(|error| format!("the first answer: {error}"))?
        } else {
            expected
        };
        Ok(Self {
            target: options.target,
            connections: options.connections.get(),
            warm_up: seconds(options.warm_up_seconds, "a warm-up")?,
            window: seconds(options.seconds, "a window")?,
            requests: options.requests,
            request: request.into(),
            expected,
            watch: options.watch.map(Pid),
        })
    }

    /// Chunks in the answer to one request.
    fn chunks_per_request(&self) -> u64 {
        self.expected.events.saturating_sub(1)
    }

    fn report(
        &self,
        requests: u64,
        reconnects: u64,
        edges: &Edges,
        latencies: &Histogram,
    ) -> Report {
        let micros = |value: Duration| value.as_nanos() as f64 / 1000.0;
        Report {
            requests,
            chunks: requests * self.chunks_per_request(),
            seconds: edges.seconds,
            reconnects,
            latency: Latency {
                p50_us: micros(latencies.quantile(0.5)),
                p90_us: micros(latencies.quantile(0.9)),
                p99_us: micros(latencies.quantile(0.99)),
                max_us: micros(latencies.max()),
            },
            watched: edges.watched,
        }
    }
}

/// The open side of a measured window.
struct Opened {
    at: Instant,
    watch: Option<(Pid, Duration)>,
}

/// What the clock and the watched process say about a window that is over.
struct Edges {
    seconds: f64,
    watched: Option<Watched>,
}

impl Opened {
    fn now(watch: Option<Pid>) -> Self {
        // The processes are listed before the clock is read, as that takes milliseconds.
        let watch = watch
            .map(|root| (root, procfs::tree(root)))
            .map(|(root, pids)| (root, procfs::cpu(&pids)));
        Self {
            at: clock::now(),
            watch,
        }
    }

    fn close(self) -> Edges {
        let seconds = (clock::now() - self.at).as_secs_f64();
        let watched = self.watch.map(|(root, before)| {
            let pids = procfs::tree(root);
            // A process born inside the window is in the second sum only, and rightly so.
            let cpu_seconds = procfs::cpu(&pids).saturating_sub(before).as_secs_f64();
            Watched {
                cpu_seconds,
                memory: procfs::memory(&pids),
            }
        });
        Edges { seconds, watched }
    }
}

/// The whole request as it goes over the wire.
fn request(target: SocketAddr, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: {target}\r\nUser-Agent: pointsman-bench\r\nAccept: */*\r\n\
         apikey: bench-key\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Read buffer of a connection.
const BUFFER_BYTES: usize = 64 * 1024;
