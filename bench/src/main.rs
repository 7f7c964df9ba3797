//! `pointsman-bench`: what does a request through Pointsman cost, beside plain nginx on the same
//! machine?
//!
//! Of five subcommands, three are about requests: `mock` is a cheap stand-in for a model provider,
//! `load` drives one address and reports what it saw, and `compare` runs both around each gateway
//! in turn and prints the table. The first two are processes of their own so that they can be
//! pinned to another core than the gateway; `compare` starts them itself. The other two, `verdict`
//! and `probes`, are about health checks. How to use them, and how far to trust the figures, is in
//! `docs/performance.md`.

mod compare;
mod health;
mod load;

mod clock;
mod histogram;
mod http1;
mod mock;
mod payload;
mod procfs;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The command line as a whole.
#[derive(Debug, Parser)]
#[command(name = "pointsman-bench", version, about)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure direct, nginx and Pointsman interleaved, and print a table.
    Compare(compare::Options),
    /// Serve canned chat completions until killed.
    Mock(mock::Options),
    /// Drive one address and print a report as one line of JSON.
    Load(load::Options),
    /// Time from a failed probe to the last request that its target gets.
    Verdict(health::verdict::Options),
    /// CPU and memory that probing thousands of targets takes.
    Probes(health::probes::Options),
}

fn main() -> ExitCode {
    let outcome = match CommandLine::parse().command {
        Command::Compare(options) => compare::run(options),
        Command::Mock(options) => mock::run(&options).map_err(|error| error.to_string()),
        Command::Load(options) => load::run(&options),
        Command::Verdict(options) => health::verdict::run(&options),
        Command::Probes(options) => health::probes::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            // Nothing is left to do if standard error is closed.
            let _ = writeln!(io::stderr(), "pointsman-bench: {message}");
            ExitCode::FAILURE
        }
    }
}

/// One line of standard output.
fn print(line: &str) -> Result<(), String> {
    writeln!(io::stdout(), "{line}").map_err(|error| error.to_string())
}
