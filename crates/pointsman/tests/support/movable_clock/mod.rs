//! The wall clock of a process, moved while it runs.

use std::{path::Path, process::Command};

use super::replace;

/// A clock that processes go by which have its [`environment`](Self::environment).
pub(crate) struct MovableClock {
    folder: tempfile::TempDir,
}

impl MovableClock {
    /// A clock that goes right; `None` where no library can be put before that of C.
    pub(crate) fn new() -> Option<Self> {
        if !cfg!(all(
            target_os = "linux",
            target_env = "gnu",
            target_pointer_width = "64"
        )) {
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let source = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/support/movable_clock/library.rs"
        );
        let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let compiled = Command::new(compiler)
            .args(["--edition", "2024", "--crate-type", "cdylib", "-o"])
            .arg(library(folder.path()))
            .arg(source)
            .output()
            .expect("the compiler runs");
        let said = String::from_utf8_lossy(&compiled.stderr).into_owned();
        assert!(compiled.status.success(), "{said}");
        let clock = Self { folder };
        clock.set(0);
        Some(clock)
    }

    /// It is so many seconds ahead from now on.
    pub(crate) fn set(&self, ahead: i64) {
        replace(&self.folder.path().join("ahead"), &ahead.to_string());
    }

    /// For processes that go by it.
    pub(crate) fn environment(&self) -> [(&'static str, String); 2] {
        let path = |path: &Path| path.display().to_string();
        [
            ("LD_PRELOAD", path(&library(self.folder.path()))),
            ("MOVABLE_CLOCK", path(&self.folder.path().join("ahead"))),
        ]
    }
}

fn library(folder: &Path) -> std::path::PathBuf {
    folder.join("clock.so")
}
