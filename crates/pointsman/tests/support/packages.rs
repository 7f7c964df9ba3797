//! What tests install from registries, into the target folder. Without an interpreter or a registry a
//! test says so loudly and passes, except under CI, where nothing is skipped.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::skip;

/// Tests that share packages must not install them at once.
fn alone() -> MutexGuard<'static, ()> {
    static INSTALLING: Mutex<()> = Mutex::new(());
    INSTALLING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The folder in which packages are kept between runs.
pub(crate) fn cache(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_pointsman"))
        .parent()
        .expect("a folder");
    target.join("sdk-clients").join(name)
}

/// Loud when something is missing; an error under CI.
pub(crate) fn unavailable(what: &str, why: &str) {
    assert!(
        std::env::var_os("CI").is_none(),
        "{what} cannot be tested here: {why}"
    );
    skip::loudly(what, why);
}

/// What a command prints; if it fails, as an error.
pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    Err(format!("{}{}", text(&output.stdout), text(&output.stderr)))
}

/// A Python that has `packages`, installed with further `options` of pip.
pub(crate) fn python(packages: &[&str], options: &[&str]) -> Result<PathBuf, String> {
    let _alone = alone();
    let folder = cache(&format!("python-{}", packages.join("-").replace('=', "")));
    let python = folder.join("bin").join("python");
    let done = folder.join("installed");
    if !done.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        run(Command::new(&python)
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ])
            .args(options)
            .args(packages))?;
        std::fs::write(done, "").map_err(|error| error.to_string())?;
    }
    Ok(python)
}

/// A folder in which scripts of Node find `packages`.
pub(crate) fn node(packages: &[&str]) -> Result<PathBuf, String> {
    let _alone = alone();
    let name = packages.join("-").replace(['@', '/'], "-");
    let folder = cache(&format!("node-{name}"));
    let done = folder.join("installed");
    if !done.exists() {
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        std::fs::write(folder.join("package.json"), "{\"private\":true}")
            .map_err(|error| error.to_string())?;
        run(Command::new("npm")
            .args(["install", "--silent", "--no-audit", "--no-fund"])
            .args(packages)
            .current_dir(&folder))?;
        std::fs::write(done, "").map_err(|error| error.to_string())?;
    }
    Ok(folder)
}
