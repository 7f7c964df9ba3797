//! `probes`: what does it cost to probe many targets once a second, with no traffic at all?
//!
//! Every target has a loopback address of its own, and one listener of this process takes them all.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};

use super::server::{self, Instance};
use super::verdict::on_a_thread;
use super::{Gateway, Program, instance, route};
use crate::clock;
use crate::procfs;

/// How many and how long.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    program: Program,
    /// Targets, each probed once a second.
    #[arg(long, default_value_t = 5_000)]
    targets: u32,
    /// Instances of one route.
    #[arg(long, default_value_t = 50)]
    per_route: usize,
    /// Nodes of plain upstreams instead of LLM instances.
    #[arg(long)]
    plain: bool,
    /// Probes keep their connections (`checks.active.reuse_connection`).
    #[arg(long)]
    reuse: bool,
    /// Length of the measured window in seconds.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
}

/// Measures and prints one line.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let all = Instance::new(false);
    let (told, address) = std::sync::mpsc::channel();
    let theirs = std::sync::Arc::clone(&all);
    on_a_thread(async move {
        let listening = server::listen(SocketAddr::from(([0, 0, 0, 0], 0)), theirs).await;
        // Nobody listens if the program has ended.
        let _ = told.send(
            listening
                .as_ref()
                .map(|(address, _)| *address)
                .map_err(|error| error.to_string()),
        );
        if let Ok((_, serve)) = listening {
            serve.await;
        }
    })?;
    let port = address.recv().map_err(|error| error.to_string())??.port();
    let gateway = Gateway::start(&options.program, &document(options, port))?;
    // The first second probes everything at once.
    thread::sleep(Duration::from_secs(5));
    let pids = procfs::tree(gateway.pid());
    let (began, cpu, probes) = (clock::now(), procfs::cpu(&pids), all.events().len());
    thread::sleep(Duration::from_secs(options.seconds));
    let took = (clock::now() - began).as_secs_f64();
    let cpu = (procfs::cpu(&pids).saturating_sub(cpu)).as_secs_f64();
    let memory = procfs::memory(&pids);
    let probes = all.events().len() - probes;
    let line = json!({
        "targets": options.targets,
        "probes_per_second": probes as f64 / took,
        "cpu_percent_of_a_core": 100.0 * cpu / took,
        "cpu_us_per_probe": 1e6 * cpu / probes.max(1) as f64,
        "rss_mib": memory.rss_kib as f64 / 1024.0,
    });
    crate::print(&line.to_string())
}

fn document(options: &Options, port: u16) -> Value {
    let first = u32::from(Ipv4Addr::new(127, 1, 0, 1));
    let addresses: Vec<SocketAddr> = (0..options.targets)
        .map(|at| SocketAddr::from((Ipv4Addr::from(first + at), port)))
        .collect();
    let routes = addresses.chunks(options.per_route.max(1)).enumerate();
    let routes: Vec<Value> = routes
        .map(|(at, addresses)| {
            let uri = format!("/r{at}");
            if options.plain {
                return plain_route(at + 1, &uri, addresses, options.reuse);
            }
            let named = addresses.iter().enumerate();
            let instances: Vec<Value> = named
                .map(|(at, address)| {
                    let mut instance = instance(&format!("i{at}"), *address, true);
                    instance["checks"]["active"]["reuse_connection"] = json!(options.reuse);
                    instance
                })
                .collect();
            route(at + 1, &uri, &instances)
        })
        .collect();
    json!({ "routes": routes })
}

/// A route to nodes that are checked as instances are.
fn plain_route(id: usize, uri: &str, addresses: &[SocketAddr], reuse: bool) -> Value {
    let nodes: Map<String, Value> = (addresses.iter())
        .map(|address| (address.to_string(), json!(1)))
        .collect();
    let checks = json!({ "active": {
        "http_path": "/health",
        "healthy": { "interval": 1, "successes": 1 },
        "unhealthy": { "interval": 1, "http_failures": 1 },
        "reuse_connection": reuse,
    }});
    json!({ "id": id, "uri": uri, "upstream": { "nodes": nodes, "checks": checks } })
}
