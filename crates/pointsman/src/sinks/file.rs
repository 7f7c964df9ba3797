//! Log files. Entries gather in memory for a moment and are appended by one thread.
//!
//! Under load the thread wakes some fifty times a second, however many requests there are, so a
//! request pays for a copy of its line and nothing else. A file that was renamed or removed (log
//! rotation) is opened anew.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use pointsman_gateway::ports::Sink;

/// The thread that writes all log files.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    files: Vec<Arc<FileSink>>,
    pending: bool,
    stop: bool,
}

/// One log file.
pub(crate) struct FileSink {
    path: PathBuf,
    shared: Arc<Shared>,
    buffer: Mutex<Buffer>,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    lines: u64,
}

impl Writer {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            wake: Condvar::new(),
        });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || write_until_stopped(&theirs))?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// The sink that appends to `path`.
    pub(crate) fn open(&self, path: &str) -> Arc<FileSink> {
        let mut state = self
            .shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = state.files.iter().find(|file| file.path == Path::new(path)) {
            return Arc::clone(file);
        }
        let file = Arc::new(FileSink {
            path: PathBuf::from(path),
            shared: Arc::clone(&self.shared),
            buffer: Mutex::default(),
            dropped: AtomicU64::new(0),
        });
        state.files.push(Arc::clone(&file));
        file
    }

    /// Writes what is there and ends the thread.
    pub(crate) fn stop(&self) {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .stop = true;
        self.shared.wake.notify_one();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the log writer ended in a panic");
        }
    }
}

impl Sink for FileSink {
    fn push(&self, entry: Bytes) {
        let first = {
            let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
            if buffer.bytes.len() + entry.len() > BUFFER_BYTES_MAX {
                drop(buffer);
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            let first = buffer.bytes.is_empty();
            buffer.bytes.extend_from_slice(&entry);
            buffer.bytes.push(b'\n');
            buffer.lines += 1;
            first
        };
        if first {
            self.shared
                .state
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pending = true;
            self.shared.wake.notify_one();
        }
    }

    fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn pending(&self) -> u64 {
        self.buffer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .lines
    }
}

fn write_until_stopped(shared: &Shared) {
    let mut opened: Vec<Opened> = Vec::new();
    loop {
        let (files, stop) = {
            let state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            let mut state = shared
                .wake
                .wait_while(state, |state| !state.pending && !state.stop)
                .unwrap_or_else(PoisonError::into_inner);
            state.pending = false;
            (state.files.clone(), state.stop)
        };
        if !stop {
            // Lines that come within the next moment go out in the same write.
            std::thread::park_timeout(GATHER);
        }
        for file in &files {
            let taken =
                std::mem::take(&mut *file.buffer.lock().unwrap_or_else(PoisonError::into_inner));
            if !taken.bytes.is_empty() {
                append(&mut opened, file, taken);
            }
        }
        if stop {
            return;
        }
    }
}

struct Opened {
    path: PathBuf,
    file: File,
    failing: bool,
}

fn append(opened: &mut Vec<Opened>, sink: &FileSink, taken: Buffer) {
    opened.retain(|entry| entry.path != sink.path || is_current(entry));
    if !opened.iter().any(|entry| entry.path == sink.path) {
        match OpenOptions::new()
            .create(true)
            .append(true)
            .open(&sink.path)
        {
            Ok(file) => {
                opened.push(Opened {
                    path: sink.path.clone(),
                    file,
                    failing: false,
                });
            }
            Err(error) => {
                if sink.dropped.fetch_add(taken.lines, Ordering::Relaxed) == 0 {
                    tracing::error!("cannot open log file {}: {error}", sink.path.display());
                }
                return;
            }
        }
    }
    let Some(entry) = opened.iter_mut().find(|entry| entry.path == sink.path) else {
        return;
    };
    match entry.file.write_all(&taken.bytes) {
        Ok(()) => entry.failing = false,
        Err(error) => {
            sink.dropped.fetch_add(taken.lines, Ordering::Relaxed);
            if !std::mem::replace(&mut entry.failing, true) {
                tracing::error!("cannot write log file {}: {error}", sink.path.display());
            }
        }
    }
}

/// Whether the path still names the file that is open.
#[cfg(unix)]
fn is_current(entry: &Opened) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (Ok(open), Ok(named)) = (entry.file.metadata(), std::fs::metadata(&entry.path)) else {
        return false;
    };
    open.ino() == named.ino() && open.dev() == named.dev()
}

#[cfg(not(unix))]
fn is_current(_entry: &Opened) -> bool {
    true
}

/// What may wait to be written to one file, in bytes.
const BUFFER_BYTES_MAX: usize = 8 << 20;
/// How long lines gather before they are written.
const GATHER: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_written_when_the_writer_stops_and_a_rotated_file_is_opened_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("access.log");
        let name = path.to_str().expect("a UTF-8 path");
        let first = Writer::start().expect("a thread");
        first.open(name).push(Bytes::from_static(b"one"));
        first.stop();
        std::fs::rename(&path, folder.path().join("access.log.1")).expect("renamed");
        let second = Writer::start().expect("a thread");
        let sink = second.open(name);
        sink.push(Bytes::from_static(b"two"));
        sink.push(Bytes::from_static(b"three"));
        second.stop();
        assert_eq!(
            std::fs::read_to_string(&path).expect("written"),
            "two\nthree\n"
        );
        assert_eq!(sink.dropped(), 0);
    }

    #[test]
    fn a_file_that_cannot_be_opened_drops_and_counts() {
        let writer = Writer::start().expect("a thread");
        let sink = writer.open("/nonexistent/folder/log");
        sink.push(Bytes::from_static(b"one"));
        writer.stop();
        assert_eq!(sink.dropped(), 1);
    }
}
