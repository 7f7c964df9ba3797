//! Where a run took place: written into the JSON file, so that figures are never read without it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use serde::Serialize;

use super::programs::Programs;
use crate::procfs;

/// The machine and the versions of what ran on it.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    processor: String,
    cores: usize,
    kernel: String,
    gateway_core: Option<usize>,
    load_core: Option<usize>,
    nginx: Option<String>,
    pointsman: Option<String>,
}

/// Which core the gateway runs on, and which the load generator and the mock upstream share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cores {
    pub(super) gateway: Option<usize>,
    pub(super) load: Option<usize>,
}

impl Cores {
    /// The first two cores we may use, or none if there is only one or `taskset` is missing.
    pub(super) fn choose() -> Self {
        match procfs::allowed_cores()[..] {
            [gateway, load, ..] if on_path("taskset").is_some() => Self {
                gateway: Some(gateway),
                load: Some(load),
            },
            _ => Self {
                gateway: None,
                load: None,
            },
        }
    }
}

impl Machine {
    pub(super) fn describe(cores: Cores, programs: &Programs) -> Self {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let model = read("/proc/cpuinfo");
        let model = model
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            processor: model.map_or_else(String::new, |(_, name)| name.trim().to_owned()),
            cores: procfs::allowed_cores().len(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            gateway_core: cores.gateway,
            load_core: cores.load,
            nginx: programs
                .nginx
                .as_deref()
                .and_then(|program| version(program, "-v")),
            pointsman: programs
                .pointsman
                .as_deref()
                .and_then(|program| version(program, "--version")),
        }
    }
}

/// Where a program of that name is; `sbin` folders count even for users whose path lacks them.
pub(super) fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders =
        env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    folders
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// The first line a program prints about its version; nginx prints it to standard error.
fn version(program: &Path, flag: &str) -> Option<String> {
    let told = Command::new(program).arg(flag).output().ok()?;
    let text = [told.stdout, told.stderr].concat();
    String::from_utf8_lossy(&text)
        .lines()
        .next()
        .map(str::to_owned)
}
