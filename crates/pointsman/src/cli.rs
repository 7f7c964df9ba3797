//! The command line.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

/// An AI gateway that never sends a request to a target known to be unhealthy.
#[derive(Debug, Parser)]
#[command(name = "pointsman", version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the configuration.
    Run(RunOptions),
    /// Report every error in the configuration; open no socket.
    Check(CheckOptions),
    /// Tell why requests went where they went: make the picks in the access log again.
    Explain(ExplainOptions),
    /// Write the resources that are served as one document: what a file, the store or etcd holds.
    Export(ExportOptions),
    /// Bring a document's resources into the store or etcd, all or none of them.
    Import(ImportOptions),
    /// Serve three stand-in models from inside this process, one of which dies and recovers.
    Demo(DemoOptions),
    /// Print a completion script.
    Completions {
        /// The shell to complete in.
        shell: Shell,
    },
}

#[derive(Args, Clone, Debug)]
pub(crate) struct RunOptions {
    /// The program's settings; the routes are in `apisix.yaml` (or `.json`) in the same folder.
    #[arg(short, long, default_value = "conf/config.yaml")]
    pub(crate) config: PathBuf,
    /// Worker threads [default: one per core].
    #[arg(short, long)]
    pub(crate) workers: Option<usize>,
    /// error, warn, info, debug or trace; or per module, as in `info,pointsman=debug`.
    #[arg(long, default_value = "info", env = "POINTSMAN_LOG")]
    pub(crate) log_level: String,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct CheckOptions {
    /// The program's settings; the routes are in `apisix.yaml` (or `.json`) in the same folder.
    #[arg(short, long, default_value = "conf/config.yaml")]
    pub(crate) config: PathBuf,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ExplainOptions {
    /// The program's settings that were in force then; the routes are in `apisix.yaml` (or `.json`) in
    /// the same folder.
    #[arg(short, long, default_value = "conf/config.yaml")]
    pub(crate) config: PathBuf,
    /// Lines of the access log; `-` reads them from the standard input [default: the access log that the
    /// settings name].
    #[arg(short, long)]
    pub(crate) log: Option<PathBuf>,
    /// Only the request that the plugin `request-id` called so.
    #[arg(short, long)]
    pub(crate) request_id: Option<String>,
    /// One JSON object per line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ExportOptions {
    /// The program's settings: they say where the resources are.
    #[arg(short, long, default_value = "conf/config.yaml")]
    pub(crate) config: PathBuf,
    /// The file to write, for its owner alone, as it holds keys; JSON if its name ends so [default: the
    /// standard output].
    #[arg(short, long)]
    pub(crate) output: Option<PathBuf>,
    /// JSON instead of YAML.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ImportOptions {
    /// The document: YAML, or JSON if its name ends so; `-` reads YAML (of which JSON is a part) from the
    /// standard input.
    pub(crate) document: PathBuf,
    /// The program's settings: they say where the resources go.
    #[arg(short, long, default_value = "conf/config.yaml")]
    pub(crate) config: PathBuf,
    /// Remove what the document does not have.
    #[arg(long)]
    pub(crate) replace: bool,
    /// Only tell what would be done.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct DemoOptions {
    /// Port of the gateway; 0 lets the system choose.
    #[arg(long, default_value_t = 9080)]
    pub(crate) port: u16,
    /// Stop after this many seconds [default: run until Ctrl-C].
    #[arg(long)]
    pub(crate) seconds: Option<u64>,
}

/// Prints the completion script for `shell`.
pub(crate) fn completions(shell: Shell) -> ExitCode {
    clap_complete::generate(
        shell,
        &mut Cli::command(),
        "pointsman",
        &mut std::io::stdout(),
    );
    ExitCode::SUCCESS
}
