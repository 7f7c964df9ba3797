//! The thread that writes a store's file, so that a slow disk holds up nobody but who waits for a write.

use std::{sync::mpsc, thread::JoinHandle, time::Duration};

use tokio::sync::oneshot;

use super::disk::{Disk, Write};

/// What the thread that writes is asked.
pub(super) enum Order {
    Write(Write, oneshot::Sender<Result<(), String>>),
    KeepKey([u8; 32], oneshot::Sender<Result<(), String>>),
}

/// The thread that writes.
pub(super) struct Writer {
    orders: Option<mpsc::Sender<Order>>,
    thread: Option<JoinHandle<()>>,
    closed: mpsc::Receiver<()>,
}

impl Writer {
    /// Starts one for `disk`.
    pub(super) fn start(disk: Disk) -> Result<Self, String> {
        let (orders, taken) = mpsc::channel();
        let (closing, closed) = mpsc::channel();
        let write = move || {
            for order in taken {
                let (done, answer) = match order {
                    Order::Write(write, answer) => (disk.write(&write), answer),
                    Order::KeepKey(digest, answer) => (disk.keep_admin_key(&digest), answer),
                };
                let _ = answer.send(done.map_err(|error| error.to_string()));
            }
            drop(disk);
            let _ = closing.send(());
        };
        let thread = std::thread::Builder::new().name("store".to_owned());
        let thread = thread
            .spawn(write)
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(Self {
            orders: Some(orders),
            thread: Some(thread),
            closed,
        })
    }

    /// Keeps the admin key whose digest this is. Waits for the disk.
    pub(super) fn keep_admin_key(&self, digest: [u8; 32]) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        self.send(Order::KeepKey(digest, answer));
        answered
            .blocking_recv()
            .unwrap_or_else(|_| Err(GONE.to_owned()))
    }

    /// Should the thread be gone, whoever waits for the answer learns of it.
    pub(super) fn send(&self, order: Order) {
        if let Some(orders) = &self.orders {
            let _ = orders.send(order);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.orders = None;
        // A disk that hangs must not keep the program from ending; the next start sets it right.
        let closed = self.closed.recv_timeout(CLOSE_LIMIT).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| closed) {
            let _ = thread.join();
        }
    }
}

/// Why there is no answer.
pub(super) const GONE: &str = "the thread that writes the store has ended";
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
