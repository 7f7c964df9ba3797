//! `verdict`: how long after the answer of the probe that decides does the last request still reach an
//! instance?
//!
//! Instances whose probes fail and succeed in turn, and a steady one, share one route under a closed
//! loop of requests. For each failed probe: the time from just before its answer was written to the
//! arrival of the last request before the next good answer; zero if none came. All clocks are this
//! process's. What it measures contains the way of the answer, the verdict, and the way of a request
//! that was picked just before, and whatever keeps this process from looking.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::server::{self, Event, Instance};
use super::{Gateway, Program, instance, route, write_document};
use crate::clock;
use crate::histogram::Histogram;
use crate::http1::{self, BodyReader, Framing};

/// How long and how hard.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    program: Program,
    /// Verdicts to measure, at least.
    #[arg(long, default_value_t = 300)]
    flips: usize,
    /// Instances that flap: each gives one measurement in two seconds.
    #[arg(long, default_value_t = 8)]
    instances: usize,
    /// Connections, each with one request after the other.
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Reload the configuration all the time, with this many further routes of two instances each.
    #[arg(long, default_value_t = 0)]
    reload_routes: usize,
}

/// Measures and prints one line.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let mut instances: Vec<Arc<Instance>> = (0..options.instances)
        .map(|_| Instance::new(true))
        .collect();
    instances.push(Instance::new(false));
    let addresses = serve(&instances)?;
    let configs: Vec<_> = (addresses.iter().enumerate())
        .map(|(at, address)| instance(&format!("i{at}"), *address, true))
        .collect();
    let measured = route(1, "/*", &configs);
    let further = options.reload_routes;
    let gateway = Gateway::start(&options.program, &document(&measured, further, 0))?;
    drive(gateway.proxy, options.connections)?;
    if further > 0 {
        let path = gateway.document();
        thread::spawn(move || {
            // Until the process ends.
            for turn in 1.. {
                if let Err(error) = write_document(&path, &document(&measured, further, turn)) {
                    eprintln!("{error}");
                    return;
                }
                thread::sleep(RELOAD_PAUSE);
            }
        });
    }
    let give_up = clock::now() + Duration::from_secs(60 + options.flips as u64);
    loop {
        thread::sleep(Duration::from_millis(500));
        let lags: Vec<Duration> = instances
            .iter()
            .flat_map(|instance| lags(&instance.events()))
            .collect();
        if lags.len() >= options.flips || clock::now() > give_up {
            let reloads = gateway.log().matches("configuration applied").count();
            return report(&lags, &instances, reloads);
        }
    }
}

/// The route that is measured, and `further` ones that nobody asks, with other weights in every `turn`:
/// two instances each, probed once an hour, at an address and at a name.
fn document(measured: &Value, further: usize, turn: usize) -> Value {
    let unasked = |number: usize| {
        let port = 1 + u16::try_from(number % 60_000).unwrap_or_default();
        let mut pair = [
            instance("a", SocketAddr::from(([127, 0, 0, 1], port)), true),
            instance("b", SocketAddr::from(([127, 0, 0, 1], port)), true),
        ];
        for one in &mut pair {
            one["weight"] = json!(1 + turn % 100);
            for kind in ["healthy", "unhealthy"] {
                one["checks"]["active"][kind]["interval"] = json!(3600);
            }
        }
        pair[1]["override"]["endpoint"] = json!(format!("http://localhost:{port}/{number}"));
        let mut route = route(2 + number, &format!("/further/{number}"), &pair);
        route["plugins"]["ai-proxy-multi"]["cooldown"] = json!({});
        route
    };
    let routes: Vec<Value> = std::iter::once(measured.clone())
        .chain((0..further).map(unasked))
        .collect();
    json!({ "routes": routes })
}

fn report(lags: &[Duration], instances: &[Arc<Instance>], reloads: usize) -> Result<(), String> {
    let mut histogram = Histogram::new();
    for lag in lags {
        histogram.record(*lag);
    }
    let requests: usize = (instances.iter())
        .map(|instance| {
            let events = instance.events();
            let is_request = |event: &&Event| matches!(event, Event::Request(_));
            events.iter().filter(is_request).count()
        })
        .sum();
    if lags.is_empty() || requests == 0 {
        return Err("nothing was measured: no verdict changed, or no request came".to_owned());
    }
    let line = json!({
        "flips": lags.len(),
        "requests": requests,
        "reloads": reloads,
        "with_a_request_after": lags.iter().filter(|lag| !lag.is_zero()).count(),
        "p50_us": histogram.quantile(0.5).as_micros(),
        "p99_us": histogram.quantile(0.99).as_micros(),
        "max_us": histogram.max().as_micros(),
    });
    crate::print(&line.to_string())
}

/// For each failed probe that a good one has followed: how long after it requests still came.
fn lags(events: &[Event]) -> Vec<Duration> {
    let mut lags = Vec::new();
    let mut failed: Option<(Instant, Duration)> = None;
    for event in events {
        match (event, &mut failed) {
            (Event::Bad(at), _) => failed = Some((*at, Duration::ZERO)),
            (Event::Good(_), _) => lags.extend(failed.take().map(|(_, lag)| lag)),
            (Event::Request(at), Some((since, lag))) => *lag = at.duration_since(*since),
            (Event::Request(_), None) => {}
        }
    }
    lags
}

/// Serves all instances on a thread of their own, which ends with the process.
fn serve(instances: &[Arc<Instance>]) -> Result<Vec<SocketAddr>, String> {
    let (told, addresses) = std::sync::mpsc::channel();
    let instances = instances.to_vec();
    on_a_thread(async move {
        let mut tasks = tokio::task::JoinSet::new();
        for instance in instances {
            let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
            let listening = server::listen(anywhere, instance).await;
            // Nobody listens any more if there was an error before.
            let _ = told.send(
                listening
                    .as_ref()
                    .map(|(address, _)| *address)
                    .map_err(|error| error.to_string()),
            );
            if let Ok((_, serve)) = listening {
                tasks.spawn(serve);
            }
        }
        drop(told);
        while tasks.join_next().await.is_some() {}
    })?;
    addresses.iter().collect()
}

/// Sends requests on `connections` for ever, on another thread.
fn drive(proxy: SocketAddr, connections: usize) -> Result<(), String> {
    on_a_thread(async move {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..connections {
            tasks.spawn(async move {
                // A connection that ends is opened again, until the process ends.
                while ask(proxy).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
        }
        while tasks.join_next().await.is_some() {}
    })
}

async fn ask(proxy: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(proxy).await?;
    stream.set_nodelay(true)?;
    let body = r#"{"model":"m","messages":[{"role":"user","content":"Hi"}]}"#;
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let invalid = |error: http1::Malformed| {
        std::io::Error::new(std::io::ErrorKind::InvalidData, error.to_string())
    };
    let mut buffer = vec![0; 16 * 1024];
    loop {
        stream.write_all(request.as_bytes()).await?;
        let mut filled = 0;
        let mut reader: Option<BodyReader> = None;
        while reader.as_ref().is_none_or(|reader| !reader.is_done()) {
            let count = stream.read(&mut buffer[filled..]).await?;
            if count == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let mut fresh = filled..filled + count;
            if reader.is_none() {
                filled += count;
                let Some(head) = http1::parse_head(&buffer[..filled]).map_err(invalid)? else {
                    continue;
                };
                reader = Some(BodyReader::new(head.framing.unwrap_or(Framing::Length(0))));
                fresh = head.len..filled;
                filled = 0;
            }
            if let Some(reader) = &mut reader {
                reader.feed(&buffer[fresh], |_| {}).map_err(invalid)?;
            }
        }
    }
}

/// Runs `work` on a thread with a runtime of its own.
pub(super) fn on_a_thread(work: impl Future<Output = ()> + Send + 'static) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    thread::spawn(move || runtime.block_on(work));
    Ok(())
}

/// From one change of the configuration to the next.
const RELOAD_PAUSE: Duration = Duration::from_millis(1500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_request_before_the_next_good_probe_counts() {
        let start = clock::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        let events = [
            Event::Request(at(0)),
            Event::Good(at(1)),
            Event::Request(at(2)),
            Event::Bad(at(10)),
            Event::Request(at(11)),
            Event::Request(at(13)),
            Event::Good(at(1000)),
            Event::Request(at(1001)),
            Event::Bad(at(2000)),
            Event::Good(at(3000)),
            Event::Bad(at(4000)),
            Event::Request(at(4001)),
        ];
        assert_eq!(lags(&events), [Duration::from_millis(3), Duration::ZERO]);
    }
}
