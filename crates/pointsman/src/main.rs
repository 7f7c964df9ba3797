//! `pointsman`: an AI gateway that takes Apache APISIX's configuration.
//!
//! This crate is everything that touches the outside world: sockets, files, signals, DNS, TLS and
//! the HTTP library. What should happen to a request is decided in `pointsman-gateway`.

mod admin_keys;
mod admin_server;
mod background;
mod check;
mod cli;
mod demo;
mod drain;
mod explain;
mod run;
mod secrets;
mod transfer;

mod http1;
mod http_server;
mod listener;
mod names;
mod store;
mod tls;
mod tokens;
mod worker;

mod counters;
mod dns;
mod errands;
mod examples;
mod http_client;
mod probe;
mod prober;

mod config_source;
mod health_file;
mod health_thread;
mod publisher;
mod side_servers;
mod sinks;
mod small_server;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match cli.command {
        cli::Command::Run(options) => run::main(&options),
        cli::Command::Check(options) => check::main(&options),
        cli::Command::Explain(options) => explain::main(&options),
        cli::Command::Export(options) => transfer::export(&options),
        cli::Command::Import(options) => transfer::import(&options),
        cli::Command::Demo(options) => demo::main(&options),
        cli::Command::Completions { shell } => cli::completions(shell),
    }
}
