//! A file beside `config.yaml`: read, watched, read again.
//!
//! The folder is watched rather than the file, because editors and Kubernetes replace files by
//! renaming. A file that is mounted or linked from elsewhere changes without a word from the
//! folder, so the file is also looked at once a second (APISIX does only that). All of this is a
//! hint; whether anything changed is decided by the bytes.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use pointsman_gateway::{
    config::document::{Document, DocumentError, Format, Parsed},
    ports::LocalFuture,
};
use tokio::{
    sync::mpsc,
    time::{Interval, interval, sleep},
};

use super::{ConfigSource, Reading, SourceError};

/// The standalone document beside `config.yaml`.
pub(crate) struct DocumentFile {
    path: PathBuf,
    format: Format,
    /// What it was read as last: its SHA-256, since a configuration may be large.
    last: Option<[u8; 32]>,
    seen: Option<Stamp>,
    watching: Option<Watching>,
}

/// What tells of changes.
struct Watching {
    /// Tells as long as it lives.
    _watcher: RecommendedWatcher,
    changes: mpsc::Receiver<()>,
    look: Interval,
}

/// What tells a changed file without reading it.
#[derive(PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    #[cfg(unix)]
    inode: u64,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            modified: metadata.modified().ok(),
            bytes: metadata.len(),
            #[cfg(unix)]
            inode: std::os::unix::fs::MetadataExt::ino(&metadata),
        })
    }
}

/// Where the standalone document of `config` is.
pub(crate) fn document_file(config: &Path, format: Format) -> PathBuf {
    let name = match format {
        Format::Yaml => "apisix.yaml",
        Format::Json => "apisix.json",
    };
    let folder = config.parent().unwrap_or_else(|| Path::new("."));
    folder.join(name)
}

impl DocumentFile {
    /// `apisix.yaml` or `apisix.json` in the folder of `config`.
    pub(crate) fn beside(config: &Path, format: Format) -> Self {
        Self {
            path: document_file(config, format),
            format,
            last: None,
            seen: None,
            watching: None,
        }
    }

    /// Its text, if that differs from the last one. Errors say which file and why.
    fn read_if_changed(&mut self) -> Result<Option<String>, String> {
        self.seen = Stamp::of(&self.path);
        let bytes = std::fs::read(&self.path)
            .map_err(|error| format!("cannot read {}: {error}", self.path.display()))?;
        let mut digest = [0; 32];
        digest.copy_from_slice(digest::digest(&digest::SHA256, &bytes).as_ref());
        if self.last.replace(digest) == Some(digest) {
            return Ok(None);
        }
        String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| format!("{} is not UTF-8", self.path.display()))
    }
}

impl ConfigSource for DocumentFile {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn read(&mut self, reading: &Reading<'_>) -> Result<Option<Parsed>, SourceError> {
        let text = self.read_if_changed().map_err(SourceError::Unusable)?;
        let Some(text) = text else { return Ok(None) };
        match Document::parse(&text, self.format, reading.env, reading.catalog) {
            Ok(parsed) => Ok(Some(parsed)),
            Err(error) => {
                let message = format!("{}: {error}", self.path.display());
                Err(match error {
                    DocumentError::Unfinished => SourceError::Unfinished(message),
                    DocumentError::Broken(_) => SourceError::Unusable(message),
                })
            }
        }
    }

    fn watch(&mut self) -> Result<(), String> {
        let (watcher, changes) = watch(&self.path)?;
        self.watching = Some(Watching {
            _watcher: watcher,
            changes,
            look: interval(LOOK_INTERVAL),
        });
        Ok(())
    }

    fn changed(&mut self) -> LocalFuture<'_, ()> {
        Box::pin(async {
            let Some(watching) = &mut self.watching else {
                return std::future::pending().await;
            };
            loop {
                tokio::select! {
                    _ = watching.look.tick() => {
                        // Links followed.
                        if Stamp::of(&self.path) != self.seen {
                            break;
                        }
                    }
                    Some(()) = watching.changes.recv() => break,
                }
            }
            // An editor's write is several events; look once they have settled.
            sleep(SETTLE).await;
            let _ = watching.changes.try_recv();
        })
    }
}

/// Watches the folder of `path`; every message means that the file may have changed.
fn watch(path: &Path) -> Result<(RecommendedWatcher, mpsc::Receiver<()>), String> {
    // One message is enough: it says "look again", not what happened.
    let (changed, changes) = mpsc::channel(1);
    let folder = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."));
    let name = path.file_name().map(ToOwned::to_owned);
    // Kubernetes swaps a link beside the file (`..data`) that the file leads through.
    let concerns = move |event: &notify::Event| {
        let is_link = |path: &Path| path.file_name().is_some_and(|name| name == "..data");
        event.paths.is_empty()
            || event
                .paths
                .iter()
                .any(|path| path.file_name() == name.as_deref() || is_link(path))
    };
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access() && concerns(&event)) {
            // Full: a message that nobody has read yet already says it.
            let _ = changed.try_send(());
        }
    })
    .map_err(|error| format!("cannot watch {}: {error}", folder.display()))?;
    watcher
        .watch(folder, RecursiveMode::NonRecursive)
        .map_err(|error| format!("cannot watch {}: {error}", folder.display()))?;
    Ok((watcher, changes))
}

/// How often the document is looked at, as APISIX does.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// From a change in the folder to reading the file.
const SETTLE: Duration = Duration::from_millis(30);
