//! Ctrl-C and its kin, as a flag that every wait looks at.
//!
//! The signal does nothing by itself: the run notices it, returns an error, and on the way out
//! everything that was started is ended by its owner.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::clock;

/// Whether someone asked for the end.
#[derive(Debug, Clone)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on SIGINT, SIGTERM and SIGHUP no longer end the process but set the flag.
    pub(super) fn watch() -> Result<Self, String> {
        let raised = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&raised);
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(in_words)?;
        let mut signals = {
            let _entered = runtime.enter();
            [
                SignalKind::interrupt(),
                SignalKind::terminate(),
                SignalKind::hangup(),
            ]
            .map(signal)
        }
        .into_iter()
        .collect::<Result<Vec<_>, _>>()
        .map_err(in_words)?;
        thread::spawn(move || {
            let [interrupt, terminate, hangup] = &mut signals[..] else {
                return;
            };
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => (),
                    _ = terminate.recv() => (),
                    _ = hangup.recv() => (),
                }
            });
            flag.store(true, Ordering::Relaxed);
        });
        Ok(Self(raised))
    }

    /// For tests, which must leave the signals of their process alone.
    #[cfg(test)]
    pub(super) fn never() -> Self {
        Self(Arc::default())
    }

    pub(super) fn check(&self) -> Result<(), String> {
        if self.0.load(Ordering::Relaxed) {
            Err("interrupted".to_owned())
        } else {
            Ok(())
        }
    }

    /// Sleeps, but not past an interrupt.
    pub(super) fn pause(&self, length: Duration) -> Result<(), String> {
        let end = clock::now() + length;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(clock::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(LOOK_EVERY));
        }
    }
}

fn in_words(error: std::io::Error) -> String {
    format!("watching for signals: {error}")
}

/// How often a wait looks up.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);
