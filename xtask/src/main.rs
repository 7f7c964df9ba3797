//! Automation for the repository, in Rust: `cargo xtask ci`, `cargo xtask tidy`, `cargo xtask mutants`,
//! `cargo xtask protocols`, `cargo xtask corpus`, `cargo xtask layout`.

mod corpus;
mod layout;
mod mutants;
mod protocols;
mod tidy;

use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "xtask", about = "Automation for the repository")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// What CI runs: fmt, clippy, tests, docs, tidy.
    Ci,
    /// Every test; installs what the tests need. The README's test command.
    Test,
    /// The rules that no compiler checks: dependencies, sizes, ARCHITECTURE.md.
    Tidy {
        /// Note today's sizes as the new limits (only after something became smaller).
        #[arg(long)]
        ratchet: bool,
    },
    /// Writes the tables of what each protocol can say and what translation loses, from the code.
    Protocols,
    /// Breaks each guard of health in turn and shows that a test notices. Takes long; not part of `ci`.
    Mutants {
        /// Only those whose name, file or test contains this.
        #[arg(long, default_value = "")]
        only: String,
    },
    /// Writes seeds for the fuzzer to `fuzz/corpus/`, from the golden examples.
    Corpus,
    /// Finds out which functions run and writes `crates/pointsman/layout.txt`; needs valgrind.
    Layout,
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Ci => ci(),
        Task::Test => test(),
        Task::Tidy { ratchet: true } => tidy::ratchet(),
        Task::Tidy { ratchet: false } => tidy::check(),
        Task::Protocols => tidy::root().and_then(|root| protocols::write(&root)),
        Task::Mutants { only } => tidy::root().and_then(|root| mutants::run(&root, &only)),
        Task::Corpus => tidy::root().and_then(|root| corpus::write(&root)),
        Task::Layout => tidy::root().and_then(|root| layout::run(&root)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn ci() -> Result<(), String> {
    cargo("formatting", &["fmt", "--all", "--check"], &[])?;
    tidy::check()?;
    let clippy = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    cargo("lints", &clippy, &[])?;
    test()?;
    let docs = [
        "doc",
        "--workspace",
        "--no-deps",
        "--document-private-items",
    ];
    cargo("documentation", &docs, &[("RUSTDOCFLAGS", "-D warnings")])
}

/// The black-box tests start one gateway each; the binary is built once, before them.
fn test() -> Result<(), String> {
    cargo("the program", &["build", "--package", "pointsman"], &[])?;
    cargo("tests", &["test", "--workspace", "--no-fail-fast"], &[])
}

fn cargo(what: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<(), String> {
    eprintln!("==> {what}: cargo {}", arguments.join(" "));
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(arguments)
        .envs(environment.iter().copied())
        .status()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{what}: {status}"))
    }
}
