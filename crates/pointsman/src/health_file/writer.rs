//! Writes what is handed in on a thread of its own: at most one write at a time, and always the newest.
//!
//! A disk may take its time, or never answer. Whoever hands something in does not wait for it, and what
//! has become old while a write was under way is never written. The thread is there only while there is
//! something to write.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Writes values of one kind.
pub(super) struct Writer<T>(Arc<Shared<T>>);

struct Shared<T> {
    /// Writes one; says whether it could.
    write: Box<dyn Fn(&T) -> bool + Send + Sync>,
    desk: Mutex<Desk<T>>,
    ended: Condvar,
}

struct Desk<T> {
    /// What was written last.
    written: Option<Arc<T>>,
    under_way: Option<Arc<T>>,
    /// What is written after that.
    next: Option<T>,
    /// There is a thread.
    is_running: bool,
}

impl<T: Send + Sync + 'static> Writer<T> {
    /// One that has written nothing; `write` says whether it could.
    pub(super) fn new(write: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared {
            write: Box::new(write),
            desk: Mutex::new(Desk {
                written: None,
                under_way: None,
                next: None,
                is_running: false,
            }),
            ended: Condvar::new(),
        }))
    }

    /// Takes `value` for what was written last.
    pub(super) fn assume(&self, value: T) {
        self.0.desk().written = Some(Arc::new(value));
    }

    /// Has `value` written, in place of whatever waits. Returns at once.
    pub(super) fn submit(&self, value: T) {
        let mut desk = self.0.desk();
        desk.next = Some(value);
        if desk.is_running {
            return;
        }
        let shared = Arc::clone(&self.0);
        let thread = std::thread::Builder::new().name(THREAD.to_owned());
        match thread.spawn(move || shared.run()) {
            Ok(_) => desk.is_running = true,
            Err(error) => tracing::warn!("no thread to write the health file: {error}"),
        }
    }

    /// Looks at the newest that was handed in, unless it could not be written.
    pub(super) fn newest<R>(&self, look: impl FnOnce(Option<&T>) -> R) -> R {
        let desk = self.0.desk();
        let older = desk.under_way.as_deref().or(desk.written.as_deref());
        look(desk.next.as_ref().or(older))
    }

    /// Waits until nothing is left to write, for no longer than `limit`. Returns whether that is so.
    pub(super) fn wait(&self, limit: Duration) -> bool {
        let desk = self.0.desk();
        let ended = self
            .0
            .ended
            .wait_timeout_while(desk, limit, |desk| desk.is_running);
        let (desk, _) = ended.unwrap_or_else(PoisonError::into_inner);
        !desk.is_running && desk.next.is_none()
    }
}

impl<T> Shared<T> {
    fn run(&self) {
        while let Some(value) = self.take() {
            let is_written = (self.write)(&value);
            let mut desk = self.desk();
            desk.under_way = None;
            if is_written {
                desk.written = Some(value);
            }
        }
    }

    /// What to write now; `None`: nothing, and the thread ends.
    fn take(&self) -> Option<Arc<T>> {
        let mut desk = self.desk();
        let next = desk.next.take().map(Arc::new);
        desk.under_way.clone_from(&next);
        desk.is_running = next.is_some();
        if next.is_none() {
            self.ended.notify_all();
        }
        next
    }

    fn desk(&self) -> MutexGuard<'_, Desk<T>> {
        // Each change to it is whole in itself.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// No longer than a thread's name may be.
const THREAD: &str = "health-file";

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Longer than any test takes; what waits so long has failed.
    const LONG: Duration = Duration::from_secs(60);

    /// A writer to a disk that answers when it is told to, what was written, and who tells it.
    fn on_disk() -> (Writer<u32>, mpsc::Receiver<u32>, mpsc::Sender<bool>) {
        let (began, begun) = mpsc::channel();
        let (answer, answers) = mpsc::channel();
        let answers = Mutex::new(answers);
        let writer = Writer::new(move |value| {
            began.send(*value).expect("somebody listens");
            let answers = answers.lock().expect("sound");
            answers.recv().unwrap_or(false)
        });
        (writer, begun, answer)
    }

    #[test]
    fn a_stuck_disk_holds_nobody_up_and_the_newest_is_written_next() {
        let (writer, begun, answer) = on_disk();
        writer.submit(1);
        assert_eq!(begun.recv_timeout(LONG), Ok(1));
        // From here on the disk is stuck.
        for value in 2..=9 {
            writer.submit(value);
            assert_eq!(writer.newest(|newest| newest.copied()), Some(value));
        }
        assert!(!writer.wait(Duration::ZERO));
        assert_eq!(begun.try_recv(), Err(mpsc::TryRecvError::Empty));
        answer.send(true).expect("it waits");
        assert_eq!(begun.recv_timeout(LONG), Ok(9));
        assert!(!writer.wait(Duration::ZERO));
        answer.send(true).expect("it waits");
        assert!(writer.wait(LONG));
        assert_eq!(begun.try_recv(), Err(mpsc::TryRecvError::Empty));
        assert_eq!(writer.newest(|newest| newest.copied()), Some(9));
        // And again, with another thread.
        writer.submit(10);
        assert_eq!(begun.recv_timeout(LONG), Ok(10));
        answer.send(true).expect("it waits");
        assert!(writer.wait(LONG));
    }

    #[test]
    fn what_could_not_be_written_was_not() {
        let (writer, begun, answer) = on_disk();
        assert!(writer.wait(LONG), "nothing to wait for");
        writer.assume(1);
        writer.submit(2);
        assert_eq!(writer.newest(|newest| newest.copied()), Some(2));
        assert_eq!(begun.recv_timeout(LONG), Ok(2));
        answer.send(false).expect("it waits");
        assert!(writer.wait(LONG));
        assert_eq!(writer.newest(|newest| newest.copied()), Some(1));
    }
}
