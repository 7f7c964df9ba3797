//! Requests at planned moments, whatever the answers do: the load for latency.
//!
//! Latency counts from the planned moment. If the gateway stalls, the requests that should have
//! left meanwhile are charged with the wait; a closed loop would politely not send them and hide
//! the stall.
//!
//! One thread with blocking calls per connection: the kernel's own sleep is precise to some 50 µs,
//! while the runtime's timer rounds up to whole milliseconds, which is more than the differences
//! looked for. Connections take turns.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::response::ResponseReader;
use super::{BUFFER_BYTES, Opened, Plan, Report};
use crate::clock;
use crate::histogram::Histogram;

/// Sends `rate` requests per second in all; the first window's worth after the warm-up is reported.
pub(super) fn run(plan: &Plan, rate: f64) -> Result<Report, String> {
    if !(rate > 0.0 && rate <= RATE_MAX) {
        return Err(format!(
            "a rate must be above 0 and at most {RATE_MAX} requests per second"
        ));
    }
    let mut clients = Vec::new();
    for _ in 0..plan.connections {
        clients.push(Client {
            stream: open(plan.target)?,
            reader: ResponseReader::new(plan.expected),
            plan,
        });
    }
    let schedule = Schedule::new(plan, rate);
    thread::scope(|scope| {
        let running: Vec<_> = clients
            .into_iter()
            .map(|client| scope.spawn(|| client.send_on(&schedule)))
            .collect();
        sleep_until(schedule.window_start);
        let opened = Opened::now(plan.watch);
        sleep_until(schedule.window_end);
        let edges = opened.close();
        let mut latencies = Histogram::new();
        for client in running {
            latencies.merge(
                &client
                    .join()
                    .map_err(|_| "a sending thread panicked".to_owned())??,
            );
        }
        let reconnects = schedule.reconnects.load(Ordering::Relaxed);
        Ok(plan.report(latencies.len(), reconnects, &edges, &latencies))
    })
}

/// The planned moments, handed out in order.
struct Schedule {
    start: Instant,
    interval: Duration,
    window_start: Instant,
    window_end: Instant,
    next: AtomicU64,
    reconnects: AtomicU64,
}

impl Schedule {
    fn new(plan: &Plan, rate: f64) -> Self {
        let start = clock::now();
        let window_start = start + plan.warm_up;
        Self {
            start,
            interval: Duration::from_secs_f64(1.0 / rate),
            window_start,
            window_end: window_start + plan.window,
            next: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
        }
    }

    fn take(&self) -> Option<Instant> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        let due = self.start + self.interval.mul_f64(index as f64);
        (due < self.window_end).then_some(due)
    }
}

struct Client<'plan> {
    stream: TcpStream,
    reader: ResponseReader,
    plan: &'plan Plan,
}

impl Client<'_> {
    fn send_on(mut self, schedule: &Schedule) -> Result<Histogram, String> {
        let mut latencies = Histogram::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Some(due) = schedule.take() {
            sleep_until(due);
            let keep_alive = self.exchange(&mut buffer)?;
            if due >= schedule.window_start {
                latencies.record(clock::now() - due);
            }
            if !keep_alive {
                self.stream = open(self.plan.target)?;
                schedule.reconnects.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(latencies)
    }

    fn exchange(&mut self, buffer: &mut [u8]) -> Result<bool, String> {
        self.stream
            .write_all(&self.plan.request)
            .map_err(|error| format!("sending: {error}"))?;
        self.reader.restart();
        loop {
            match self
                .stream
                .read(buffer)
                .map_err(|error| format!("receiving: {error}"))?
            {
                0 => return self.reader.close().map(|complete| complete.keep_alive),
                count => {
                    if let Some(complete) = self.reader.feed(&buffer[..count])? {
                        return Ok(complete.keep_alive);
                    }
                }
            }
        }
    }
}

fn open(target: SocketAddr) -> Result<TcpStream, String> {
    let stream =
        TcpStream::connect(target).map_err(|error| format!("connecting to {target}: {error}"))?;
    stream
        .set_nodelay(true)
        .and_then(|()| stream.set_read_timeout(Some(ANSWER_DEADLINE)))
        .map_err(|error| error.to_string())?;
    Ok(stream)
}

fn sleep_until(due: Instant) {
    thread::sleep(due.saturating_duration_since(clock::now()));
}

/// Far above what any answer takes, so that a gateway that hangs ends the run with a message.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// Above this the threads themselves would be what is measured.
const RATE_MAX: f64 = 20_000.0;
