//! Each connection sends its next request as soon as the last one is answered: the load for CPU per
//! request.
//!
//! One thread for all connections, since the load generator shares its core with the mock upstream
//! and both must be cheap enough to keep the gateway busy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::response::{Complete, ResponseReader};
use super::{Opened, Plan, Report};
use crate::clock;
use crate::histogram::Histogram;

/// Warms up, measures, and lets every request under way end before it reports.
pub(super) fn run(plan: &Plan) -> Result<Report, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(measure(plan))
}

async fn measure(plan: &Plan) -> Result<Report, String> {
    let tally = Arc::new(Tally {
        requests_wanted: plan.requests.unwrap_or(u64::MAX),
        ..Tally::default()
    });
    let mut connections = JoinSet::new();
    for _ in 0..plan.connections {
        let client = Client::connect(plan).await?;
        connections.spawn(client.send_until_over(Arc::clone(&tally)));
    }
    until_failure(&mut connections, tokio::time::sleep(plan.warm_up)).await?;

    let opened = Opened::now(plan.watch);
    tally.window_open.store(true, Ordering::Relaxed);
    let enough = async {
        // With or without enough requests, the window is then over.
        let _ = timeout(plan.window, tally.enough.notified()).await;
    };
    until_failure(&mut connections, enough).await?;
    tally.window_open.store(false, Ordering::Relaxed);
    let requests = tally.requests.load(Ordering::Relaxed);
    let edges = opened.close();

    tally.over.store(true, Ordering::Relaxed);
    let mut latencies = Histogram::new();
    while let Some(ended) = connections.join_next().await {
        latencies.merge(&ended.map_err(|error| error.to_string())??);
    }
    Ok(plan.report(
        requests,
        tally.reconnects.load(Ordering::Relaxed),
        &edges,
        &latencies,
    ))
}

/// Waits, unless a connection ends first: before the run is over it only does so on a wrong answer.
async fn until_failure(
    connections: &mut JoinSet<Result<Histogram, String>>,
    wait: impl Future<Output = ()>,
) -> Result<(), String> {
    tokio::select! {
        () = wait => Ok(()),
        Some(ended) = connections.join_next() => match ended {
            Ok(Err(wrong)) => Err(wrong),
            Ok(Ok(_)) => Err("a connection ended early".to_owned()),
            Err(panic) => Err(panic.to_string()),
        },
    }
}

/// What the connections share. All run on one thread, so relaxed ordering loses nothing.
#[derive(Default)]
struct Tally {
    window_open: AtomicBool,
    over: AtomicBool,
    /// Requests answered inside the window.
    requests: AtomicU64,
    requests_wanted: u64,
    enough: Notify,
    reconnects: AtomicU64,
}

impl Tally {
    /// Returns whether the answer fell into the window.
    fn count(&self) -> bool {
        if !self.window_open.load(Ordering::Relaxed) {
            return false;
        }
        if self.requests.fetch_add(1, Ordering::Relaxed) + 1 == self.requests_wanted {
            self.window_open.store(false, Ordering::Relaxed);
            self.enough.notify_one();
        }
        true
    }
}

struct Client {
    target: std::net::SocketAddr,
    request: Arc<[u8]>,
    stream: TcpStream,
    reader: ResponseReader,
    buffer: Vec<u8>,
}

impl Client {
    async fn connect(plan: &Plan) -> Result<Self, String> {
        Ok(Self {
            target: plan.target,
            request: Arc::clone(&plan.request),
            stream: open(plan.target).await?,
            reader: ResponseReader::new(plan.expected),
            buffer: vec![0; super::BUFFER_BYTES],
        })
    }

    async fn send_until_over(mut self, tally: Arc<Tally>) -> Result<Histogram, String> {
        let mut latencies = Histogram::new();
        while !tally.over.load(Ordering::Relaxed) {
            let sent = clock::now();
            let complete = timeout(ANSWER_DEADLINE, self.exchange())
                .await
                .map_err(|_| format!("no answer within {ANSWER_DEADLINE:?}"))??;
            if tally.count() {
                latencies.record(clock::now() - sent);
            }
            if !complete.keep_alive {
                self.stream = open(self.target).await?;
                tally.reconnects.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(latencies)
    }

    async fn exchange(&mut self) -> Result<Complete, String> {
        self.stream
            .write_all(&self.request)
            .await
            .map_err(|error| format!("sending: {error}"))?;
        self.reader.restart();
        loop {
            match self
                .stream
                .read(&mut self.buffer)
                .await
                .map_err(|error| format!("receiving: {error}"))?
            {
                0 => return self.reader.close(),
                count => {
                    if let Some(complete) = self.reader.feed(&self.buffer[..count])? {
                        return Ok(complete);
                    }
                }
            }
        }
    }
}

async fn open(target: std::net::SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(target)
        .await
        .map_err(|error| format!("connecting to {target}: {error}"))?;
    stream
        .set_nodelay(true)
        .map_err(|error| error.to_string())?;
    Ok(stream)
}

/// Far above what any answer takes, so that a gateway that hangs ends the run with a message.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
