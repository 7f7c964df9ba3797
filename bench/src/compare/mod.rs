//! `compare`: direct, nginx and Pointsman, measured in turn on this machine, several times over, as
//! one table.
//!
//! A shared machine drifts: what ran an hour ago, or on another day, says nothing. So every round
//! measures every scenario on every target within minutes, the order of targets changes from round
//! to round, and what is compared are pairs from the same round. For each single measurement a
//! fresh mock upstream and a fresh gateway are started and ended again.

mod child;
mod gateway;
mod interrupt;
mod machine;
mod nginx;
mod pointsman;
mod programs;
mod results;
mod scenario;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::load::Report;
use crate::procfs;
use child::{Child, Errors};
use gateway::Target;
use interrupt::Interrupt;
use machine::{Cores, Machine};
use programs::Programs;
use results::Results;
use scenario::{Figure, Footprint, Scenario};

/// What to measure, how long and how often.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Targets, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Target::DEFAULT)]
    targets: Vec<Target>,
    /// Scenarios, separated by commas; all but sse-paced unless given.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Scenario::DEFAULT)]
    only: Vec<Scenario>,
    /// Times that everything is measured.
    #[arg(long, default_value = "5")]
    rounds: NonZeroUsize,
    /// Length of a measured window in seconds; the latency scenario takes twice that.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Seconds of the same load before each window.
    #[arg(long, default_value_t = 1.0)]
    warm_up_seconds: f64,
    /// Connections; the memory scenario always has 64.
    #[arg(long, default_value = "32")]
    connections: NonZeroUsize,
    /// Chunks per streamed answer.
    #[arg(long, default_value_t = 200)]
    chunks: usize,
    /// Milliseconds between two chunks in sse-paced.
    #[arg(long, default_value_t = 5)]
    pace_ms: u64,
    /// Read memory once more this many seconds after the load of the memory scenario; 0 leaves it
    /// out.
    #[arg(long, default_value_t = 0)]
    rest_seconds: u64,
    /// The nginx to compare with; unless given, the one on the path.
    #[arg(long)]
    nginx: Option<PathBuf>,
    /// The Pointsman program; unless given, the one that `cargo build --release` makes.
    #[arg(long)]
    pointsman: Option<PathBuf>,
    /// Don't build Pointsman first.
    #[arg(long)]
    no_build: bool,
    /// Have Pointsman listen on this port instead of one that the system chooses and Pointsman
    /// prints.
    #[arg(long)]
    gateway_port: Option<u16>,
    /// Write all figures, round by round, to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Measures, prints the table, and writes the file. After a failure or an interrupt, what was
/// measured until then is still printed and written.
pub(crate) fn run(options: Options) -> Result<(), String> {
    let interrupt = Interrupt::watch()?;
    let json_file = options.json.clone();
    let comparison = Comparison::prepare(options, interrupt)?;
    let mut results = Results::default();
    let outcome = comparison.measure_all(&mut results);
    if !results.is_empty() {
        write!(io::stdout(), "\n{}", results.table()).map_err(|error| error.to_string())?;
        if let Some(file) = json_file {
            gateway::write(&file, &format!("{:#}\n", comparison.document(&results)))?;
        }
    }
    outcome
}

/// All that stays the same through a run.
struct Comparison {
    options: Options,
    cores: Cores,
    programs: Programs,
    /// This program, to be started as mock and as load.
    own_program: PathBuf,
    interrupt: Interrupt,
}

impl Comparison {
    fn prepare(options: Options, interrupt: Interrupt) -> Result<Self, String> {
        let cores = Cores::choose();
        match cores {
            Cores {
                gateway: Some(gateway),
                load: Some(load),
            } => {
                progress(&format!(
                    "gateway on core {gateway}; load generator and mock upstream on core {load}"
                ));
            }
            _ => progress("nothing is pinned (one core only, or no taskset): expect noise"),
        }
        let own_program =
            std::env::current_exe().map_err(|error| format!("this program's own path: {error}"))?;
        let programs = Programs::find(&options, cores, &own_program, &interrupt)?;
        Ok(Self {
            options,
            cores,
            programs,
            own_program,
            interrupt,
        })
    }

    fn measure_all(&self, results: &mut Results) -> Result<(), String> {
        let Options {
            targets,
            only,
            rounds,
            ..
        } = &self.options;
        progress(&format!(
            "{rounds} rounds, about {} minutes",
            self.estimate().as_secs().div_ceil(60)
        ));
        for round in 1..=rounds.get() {
            for &scenario in only {
                for position in 0..targets.len() {
                    // Each target takes each place in turn, so that none always follows the same
                    // other.
                    let target = targets[(position + round - 1) % targets.len()];
                    if scenario == Scenario::Rss && target == Target::Direct {
                        continue;
                    }
                    let figures = self.measure(scenario, target).map_err(|error| {
                        format!("{} on {}: {error}", scenario.name(), target.name())
                    })?;
                    progress(&told(round, scenario, target, &figures));
                    results.add(scenario, target, round, &figures);
                }
            }
        }
        Ok(())
    }

    /// One scenario on one target, from starting the mock to ending it. Everything is dropped, and
    /// thereby ended, in the reverse order of its start.
    fn measure(&self, scenario: Scenario, target: Target) -> Result<Vec<(Figure, f64)>, String> {
        self.interrupt.check()?;
        let folder = tempfile::Builder::new()
            .prefix("pointsman-bench-")
            .tempdir();
        let folder = folder.map_err(|error| format!("no temporary folder: {error}"))?;
        let (_mock, mocks) = self.start_mock(folder.path(), scenario)?;
        let gateway = target.start(
            &self.programs,
            folder.path(),
            &mocks,
            scenario,
            &self.interrupt,
        )?;

        let resident = || {
            gateway
                .process
                .as_ref()
                .map(|process| procfs::memory(&procfs::tree(process.pid())))
        };
        let mut idle = None;
        if scenario == Scenario::Rss {
            self.interrupt.pause(IDLE_BEFORE_READING)?;
            idle = resident();
        }
        let report = self
            .load(folder.path(), scenario, target, &gateway)
            .map_err(|error| match &gateway.process {
                Some(process) => process.complaint(&error),
                None => error,
            })?;
        let mut rested = None;
        if scenario == Scenario::Rss && self.options.rest_seconds > 0 {
            self.interrupt
                .pause(Duration::from_secs(self.options.rest_seconds))?;
            rested = resident();
        }
        Ok(scenario.figures(&report, idle.map(|idle| Footprint { idle, rested })))
    }

    fn start_mock(
        &self,
        folder: &Path,
        scenario: Scenario,
    ) -> Result<(Child, Vec<SocketAddr>), String> {
        let pace_ms = if scenario == Scenario::SsePaced {
            self.options.pace_ms
        } else {
            0
        };
        let mut command = child::command(self.cores.load, &self.own_program);
        command.args([
            "mock",
            "--until-stdin-closes",
            "--listeners",
            &MOCK_LISTENERS.to_string(),
        ]);
        command.args([
            "--chunks",
            &self.options.chunks.to_string(),
            "--pace-ms",
            &pace_ms.to_string(),
        ]);
        let mut mock = Child::start("mock", &mut command, folder, Errors::ToFile)?;
        let addresses = mock.wait_for(&self.interrupt, |printed| {
            let lines = printed
                .lines()
                .filter_map(|line| line.strip_prefix("listening ")?.parse().ok());
            let addresses: Vec<SocketAddr> = lines.collect();
            (addresses.len() == MOCK_LISTENERS).then_some(addresses)
        })?;
        Ok((mock, addresses))
    }

    fn load(
        &self,
        folder: &Path,
        scenario: Scenario,
        target: Target,
        gateway: &gateway::Gateway,
    ) -> Result<Report, String> {
        let mut command = child::command(self.cores.load, &self.own_program);
        command.arg("load");
        let mut flag = |name: &str, value: String| {
            command.arg(name).arg(value);
        };
        flag("--target", gateway.address.to_string());
        flag(
            "--connections",
            scenario
                .connections(self.options.connections.get())
                .to_string(),
        );
        flag("--body-bytes", scenario.body_bytes().to_string());
        flag(
            "--seconds",
            scenario.window(self.options.seconds).to_string(),
        );
        flag(
            "--warm-up-seconds",
            self.options.warm_up_seconds.to_string(),
        );
        if let Some(rate) = scenario.rate() {
            flag("--rate", rate.to_string());
        }
        if scenario.is_stream() {
            flag("--stream-chunks", self.options.chunks.to_string());
        }
        if let Some(process) = &gateway.process {
            flag("--watch", process.pid().0.to_string());
        }
        if target == Target::Translated {
            command.arg("--learn");
        }
        let printed =
            Child::start("load", &mut command, folder, Errors::ToFile)?.finish(&self.interrupt)?;
        serde_json::from_str(&printed)
            .map_err(|error| format!("the load generator's report: {error}"))
    }

    fn estimate(&self) -> Duration {
        let Options {
            seconds,
            warm_up_seconds,
            targets,
            only,
            rounds,
            ..
        } = &self.options;
        let windows: f64 = only
            .iter()
            .map(|scenario| scenario.window(*seconds) + warm_up_seconds + 0.5)
            .sum();
        let total = windows * targets.len() as f64 * rounds.get() as f64;
        Duration::try_from_secs_f64(total).unwrap_or(Duration::MAX)
    }

    /// What goes into the JSON file.
    fn document(&self, results: &Results) -> Value {
        let Options {
            rounds,
            seconds,
            warm_up_seconds,
            connections,
            chunks,
            pace_ms,
            ..
        } = &self.options;
        json!({
            "machine": Machine::describe(self.cores, &self.programs),
            "method": {
                "rounds": rounds, "seconds": seconds, "warm_up_seconds": warm_up_seconds,
                "connections": connections, "chunks": chunks, "pace_ms": pace_ms,
            },
            "figures": results.rows(),
        })
    }
}

fn told(round: usize, scenario: Scenario, target: Target, figures: &[(Figure, f64)]) -> String {
    let figures: Vec<String> = figures
        .iter()
        .map(|(figure, value)| format!("{} {value:.1}", figure.label()))
        .collect();
    format!(
        "round {round}  {:<14}  {:<9}  {}",
        scenario.name(),
        target.name(),
        figures.join(", ")
    )
}

/// Progress goes to standard error, so that the table alone can be kept.
fn progress(line: &str) {
    // A closed standard error is no reason to stop measuring.
    let _ = writeln!(io::stderr(), "{line}");
}

/// As many as Pointsman has instances; nginx gets the same.
const MOCK_LISTENERS: usize = 3;

/// After the start, before idle memory is read: health checks have run by then.
const IDLE_BEFORE_READING: Duration = Duration::from_secs(2);
