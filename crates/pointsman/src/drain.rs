//! The end of the program: signals, what is under way, and what the loggers still hold.
//!
//! Requests get time to end by themselves. Those that do not take it are cut: their worker drops
//! what it serves, which ends each exchange in its line in the logs, and then the program ends.

use std::{thread::JoinHandle, time::Duration};

use tokio::{
    runtime::Runtime,
    sync::{mpsc, watch},
    task::{JoinHandle as Task, LocalSet},
};

/// How the drain ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Everything was finished, or the time for it was over.
    Orderly,
    /// A second signal: whatever waits is dropped.
    AtOnce,
}

/// Waits for the workers; a second signal, or the end of the time, cuts what they still serve.
/// The workers drain since `drain` said so, and take its end for the cut. `second` ends with the
/// second signal.
pub(crate) fn finish(
    runtime: &Runtime,
    local: &LocalSet,
    threads: Vec<JoinHandle<()>>,
    drain: watch::Sender<bool>,
    limit: Duration,
    second: impl Future<Output = ()>,
) -> End {
    let (done, mut all_done) = mpsc::channel::<()>(1);
    let joiner = std::thread::spawn(move || {
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a worker ended in a panic");
            }
        }
        drop(done);
    });
    let end = runtime.block_on(local.run_until(async {
        let end = tokio::select! {
            _ = all_done.recv() => {
                tracing::info!("drained");
                return End::Orderly;
            }
            () = tokio::time::sleep(limit) => {
                tracing::warn!("drain time is over; what is still under way is cut");
                End::Orderly
            }
            () = second => End::AtOnce,
        };
        drop(drain);
        if tokio::time::timeout(CUT_LIMIT, all_done.recv())
            .await
            .is_err()
        {
            tracing::error!("a worker did not end in time; its requests are not in the access log");
        }
        end
    }));
    if joiner.is_finished() {
        let _ = joiner.join();
    }
    end
}

/// Sends what the loggers still hold.
pub(crate) fn flush(
    runtime: &Runtime,
    local: &LocalSet,
    feeding: Task<()>,
    second: impl Future<Output = ()>,
) {
    runtime.block_on(local.run_until(async {
        tokio::select! {
            _ = feeding => return,
            () = tokio::time::sleep(FLUSH_LIMIT) => {}
            () = second => {}
        }
        tracing::error!("log entries were lost: a collector did not take them in time");
    }));
}

/// Ends when the program is asked to end once more after this call.
pub(crate) fn second_signal() -> impl Future<Output = ()> {
    let signal = any_signal();
    async move {
        match signal {
            Ok(signal) => signal.await,
            Err(_) => std::future::pending().await,
        }
        tracing::warn!("second signal: ending at once");
    }
}

/// SIGTERM or SIGINT; from this call on, neither ends the process by itself.
#[cfg(unix)]
pub(crate) fn any_signal() -> Result<impl Future<Output = ()>, String> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(|error| format!("cannot wait for signals: {error}"));
    let mut term = listen(SignalKind::terminate())?;
    let mut int = listen(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

/// For the workers to drop what they serve.
const CUT_LIMIT: Duration = Duration::from_millis(200);
/// For the last deliveries of loggers.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);
