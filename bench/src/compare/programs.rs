//! The gateway programs of a run: where they are, and the build of Pointsman that comes first.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::child::{Child, Errors};
use super::gateway::Target;
use super::interrupt::Interrupt;
use super::machine::{self, Cores};
use super::{Options, progress};

/// Where the programs are, and where they run.
#[derive(Debug)]
pub(super) struct Programs {
    /// `None` if not a target of this run.
    pub(super) nginx: Option<PathBuf>,
    /// `None` if not a target of this run.
    pub(super) pointsman: Option<PathBuf>,
    pub(super) gateway_core: Option<usize>,
    /// A fixed port for Pointsman, for a build that doesn't print the ports it got.
    pub(super) pointsman_port: Option<u16>,
}

impl Programs {
    /// Finds what the run needs, and builds Pointsman if it is part of it.
    pub(super) fn find(
        options: &Options,
        cores: Cores,
        own_program: &Path,
        interrupt: &Interrupt,
    ) -> Result<Self, String> {
        let needed = |target| options.targets.contains(&target);
        let mut programs = Self {
            nginx: None,
            pointsman: None,
            gateway_core: cores.gateway,
            pointsman_port: options.gateway_port,
        };
        if needed(Target::Nginx) {
            programs.nginx = Some(nginx(options)?);
        }
        if needed(Target::Pointsman) || needed(Target::Translated) {
            programs.pointsman = Some(pointsman(options, own_program, interrupt)?);
        }
        Ok(programs)
    }
}

fn nginx(options: &Options) -> Result<PathBuf, String> {
    let found = options.nginx.clone().or_else(|| machine::on_path("nginx"));
    found.ok_or_else(|| {
        "nginx is not installed (on Debian: apt-get install nginx-light); \
         --targets direct,pointsman measures without it"
            .to_owned()
    })
}

/// Builds Pointsman unless told not to, and says where it is.
fn pointsman(
    options: &Options,
    own_program: &Path,
    interrupt: &Interrupt,
) -> Result<PathBuf, String> {
    let beside_us = own_program.with_file_name("pointsman");
    let built = if options.no_build {
        None
    } else {
        Some(build_pointsman(interrupt)?)
    };
    let program = options.pointsman.clone().or(built).unwrap_or(beside_us);
    // The gateway is started in another folder, where a relative path would not be found.
    fs::canonicalize(&program).map_err(|error| format!("{}: {error}", program.display()))
}

fn build_pointsman(interrupt: &Interrupt) -> Result<PathBuf, String> {
    progress("building pointsman");
    let folder = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args([
        "build",
        "--release",
        "-p",
        "pointsman",
        "--message-format=json-render-diagnostics",
    ]);
    let printed = Child::start("cargo", &mut command, folder.path(), Errors::ToTerminal)?
        .finish(interrupt)?;
    let executable = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_ours = message["target"]["name"] == "pointsman";
        is_ours.then(|| message["executable"].as_str().map(PathBuf::from))?
    };
    printed
        .lines()
        .find_map(executable)
        .ok_or_else(|| "cargo built no program named pointsman".to_owned())
}
