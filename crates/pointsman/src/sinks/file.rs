//! Log files. Entries gather in memory for a moment and are appended by one thread.
//!
//! Under load the thread wakes some fifty times a second, however many requests there are, so a
//! request pays for a copy of its line and nothing else. A file is opened when it is configured, so
//! that a path that cannot be used is told then, and again when it was renamed or removed (log
//! rotation). What cannot be written is dropped and counted, and why is said once a minute at most.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use pointsman_gateway::{clock, ports::Sink};

use super::{
    Seldom,
    place::{self, Place},
};

/// The thread that writes all log files.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    thread: Mutex<Option<Running>>,
}

struct Running {
    thread: JoinHandle<()>,
    /// Closed when the thread has ended.
    ended: mpsc::Receiver<()>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    files: Vec<Weak<FileSink>>,
    /// Those of `files` that the thread has not seen.
    new: Vec<Arc<FileSink>>,
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
        let (alive, ended) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || {
                let _alive: mpsc::Sender<()> = alive;
                write_until_stopped(&theirs);
            })?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(Running { thread, ended })),
        })
    }

    /// The sink that appends to `path`. The thread opens it at once, and closes it when nobody
    /// holds the sink any more.
    pub(crate) fn open(&self, path: &str) -> Arc<FileSink> {
        let mut state = self.shared.lock();
        let known = state.files.iter().filter_map(Weak::upgrade);
        if let Some(file) = known.into_iter().find(|file| file.path == Path::new(path)) {
            return file;
        }
        let file = Arc::new(FileSink {
            path: PathBuf::from(path),
            shared: Arc::clone(&self.shared),
            buffer: Mutex::default(),
            dropped: AtomicU64::new(0),
        });
        state.files.push(Arc::downgrade(&file));
        state.new.push(Arc::clone(&file));
        state.pending = true;
        self.shared.wake.notify_one();
        file
    }

    /// Writes what is there and ends the thread. A file that takes nothing, such as a pipe that
    /// nobody reads, is given up after a while.
    pub(crate) fn stop(&self) {
        self.shared.lock().stop = true;
        self.shared.wake.notify_one();
        let running = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(Running { thread, ended }) = running else {
            return;
        };
        if ended.recv_timeout(STOP_LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::error!("log entries were lost: a log file did not take them in time");
        } else if thread.join().is_err() {
            tracing::error!("the log writer ended in a panic");
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens the log at `path`, which a start must not do without.
///
/// # Errors
/// When it cannot be opened: which path, why, and what can be done.
pub(super) fn try_open(path: &str) -> Result<(), String> {
    let path = Path::new(path);
    // A pipe with a name can only be opened when somebody reads from it, which may be later.
    if std::fs::metadata(path).is_ok_and(|found| is_pipe(&found)) {
        return Ok(());
    }
    match Place::of(path).open(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!(
            "cannot open log file {}: {error}: {}",
            path.display(),
            place::advice(path, &error)
        )),
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
            self.shared.lock().pending = true;
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
    let mut outputs: Vec<Output> = Vec::new();
    loop {
        let stop = {
            let state = shared.lock();
            let mut state = shared
                .wake
                .wait_while(state, |state| !state.pending && !state.stop)
                .unwrap_or_else(PoisonError::into_inner);
            state.pending = false;
            outputs.extend(state.new.drain(..).map(Output::new));
            state.stop
        };
        if !stop {
            // Lines that come within the next moment go out in the same write.
            std::thread::park_timeout(GATHER);
        }
        for output in &mut outputs {
            output.flush(clock::now());
        }
        if stop {
            return;
        }
        // Under the lock, so that nobody is handed a sink that is about to be closed.
        let mut state = shared.lock();
        outputs.retain(|output| Arc::strong_count(&output.sink) > 1 || output.sink.pending() > 0);
        state.files.retain(|file| file.strong_count() > 0);
    }
}

/// A log file as the thread sees it.
struct Output {
    sink: Arc<FileSink>,
    place: Place,
    file: Option<File>,
    /// The last write ended in the middle of a line.
    torn: bool,
    failing: bool,
    told: Seldom,
}

impl Output {
    /// Opens the file.
    fn new(sink: Arc<FileSink>) -> Self {
        let mut output = Self {
            place: Place::of(&sink.path),
            sink,
            file: None,
            torn: false,
            failing: false,
            told: Seldom::default(),
        };
        output.open(clock::now());
        output
    }

    /// Writes what the sink has gathered, or drops and counts it.
    fn flush(&mut self, now: Instant) {
        let taken = {
            let mut buffer = self
                .sink
                .buffer
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *buffer)
        };
        if taken.bytes.is_empty() {
            return;
        }
        if self.place == Place::File && !is_current(self.file.as_ref(), &self.sink.path) {
            self.file = None;
        }
        if self.file.is_none() && !self.open(now) {
            self.drop_lines(taken.lines);
            return;
        }
        let Some(file) = &mut self.file else { return };
        let start: &[u8] = if self.torn { b"\n" } else { b"" };
        let (_, written) = write(file, start);
        let (done, written) = match written {
            Ok(()) => write(file, &taken.bytes),
            failed => (0, failed),
        };
        let rest = &taken.bytes[done..];
        if let Err(error) = written {
            self.torn |= done > 0 && taken.bytes[done - 1] != b'\n';
            self.drop_lines(memchr::memchr_iter(b'\n', rest).count() as u64);
            self.tell("write", &error, now);
        } else {
            self.torn = false;
            self.recovered();
        }
    }

    /// Whether the file is open now.
    fn open(&mut self, now: Instant) -> bool {
        match self.place.open(&self.sink.path) {
            Ok(file) => self.file = Some(file),
            Err(error) => self.tell("open", &error, now),
        }
        self.file.is_some()
    }

    fn drop_lines(&self, lines: u64) {
        self.sink.dropped.fetch_add(lines, Ordering::Relaxed);
    }

    fn tell(&mut self, what: &str, error: &io::Error, now: Instant) {
        self.failing = true;
        if !self.told.is_due(now) {
            return;
        }
        let path = self.sink.path.display();
        let advice = match what {
            "open" => format!("{}; its", place::advice(&self.sink.path, error)),
            _ => "its".to_owned(),
        };
        tracing::error!(
            "cannot {what} log file {path}: {error}: {advice} entries are dropped until then"
        );
    }

    fn recovered(&mut self) {
        if std::mem::take(&mut self.failing) {
            tracing::info!("log file {} is written again", self.sink.path.display());
        }
    }
}

/// Writes `bytes`; how many went out, and why not all of them.
///
/// A stream that somebody made non-blocking and that is full gets a moment to empty.
fn write(file: &mut File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let (mut done, mut waits) = (0, 0);
    while done < bytes.len() {
        match file.write(&bytes[done..]) {
            Ok(0) => return (done, Err(io::ErrorKind::WriteZero.into())),
            Ok(written) => (done, waits) = (done + written, 0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && waits < FULL_WAITS_MAX => {
                waits += 1;
                std::thread::park_timeout(GATHER);
            }
            Err(error) => return (done, Err(error)),
        }
    }
    (done, Ok(()))
}

/// Whether the path still names the file that is open.
#[cfg(unix)]
fn is_current(open: Option<&File>, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let open = open.and_then(|open| open.metadata().ok());
    let (Some(open), Ok(named)) = (open, std::fs::metadata(path)) else {
        return false;
    };
    open.ino() == named.ino() && open.dev() == named.dev()
}

#[cfg(not(unix))]
fn is_current(open: Option<&File>, _: &Path) -> bool {
    open.is_some()
}

#[cfg(unix)]
fn is_pipe(found: &std::fs::Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_fifo(&found.file_type())
}

#[cfg(not(unix))]
fn is_pipe(_: &std::fs::Metadata) -> bool {
    false
}

/// What may wait to be written to one file, in bytes.
const BUFFER_BYTES_MAX: usize = 8 << 20;
/// How long lines gather before they are written.
const GATHER: Duration = Duration::from_millis(20);
/// How often a full stream is waited for, each time as long as lines gather.
const FULL_WAITS_MAX: u32 = 50;
/// How long the last entries may take.
const STOP_LIMIT: Duration = Duration::from_secs(5);

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

    #[cfg(target_os = "linux")]
    #[test]
    fn a_descriptor_of_the_process_is_written_by_its_path() {
        use std::{
            io::{BufRead, BufReader},
            os::fd::AsRawFd,
        };
        let (reader, pipe) = std::io::pipe().expect("a pipe");
        let writer = Writer::start().expect("a thread");
        let sink = writer.open(&format!("/proc/self/fd/{}", pipe.as_raw_fd()));
        sink.push(Bytes::from_static(b"one"));
        let mut line = String::new();
        BufReader::new(reader).read_line(&mut line).expect("read");
        assert_eq!(line, "one\n");
        writer.stop();
    }

    /// A full disk: its entries count as lost.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_write_that_fails_drops_and_counts_its_lines() {
        let writer = Writer::start().expect("a thread");
        let sink = writer.open("/dev/full");
        sink.push(Bytes::from_static(b"one"));
        sink.push(Bytes::from_static(b"two"));
        writer.stop();
        assert_eq!((sink.dropped(), sink.pending()), (2, 0));
    }

    #[test]
    fn a_file_that_nobody_logs_to_is_closed() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name).display().to_string();
        let writer = Writer::start().expect("a thread");
        let gone = Arc::downgrade(&writer.open(&at("gone")));
        let kept = writer.open(&at("kept"));
        let deadline = clock::now() + Duration::from_secs(20);
        while gone.strong_count() > 0 {
            assert!(clock::now() < deadline, "the file is still open");
            kept.push(Bytes::from_static(b"x"));
            std::thread::yield_now();
        }
        assert!(Arc::ptr_eq(&kept, &writer.open(&at("kept"))));
        writer.stop();
    }
}
