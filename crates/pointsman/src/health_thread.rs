//! The thread that keeps health: performs probes and look-ups, takes in what traffic tells, and
//! publishes verdicts.
//!
//! It does nothing else. Whatever takes long (compiling a large configuration, a report about thousands
//! of targets) is done by others, which have the health locked for moments only: a verdict never waits
//! for them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
    mpsc,
};

use pointsman_gateway::{
    config::settings::Settings, gateway::State, upstream::driver::SharedHealth,
};
use tokio::{
    runtime::Builder,
    sync::{Notify, oneshot},
    task::{JoinHandle, JoinSet, LocalSet},
};

use crate::{
    dns::{Lookups, Resolver},
    http_client::{ClientTls, Dialer},
    names::{self, PerformLookUp},
    probe,
    prober::{PerformProbe, Prober},
};

/// What the thread of health and that of configuration tell each other.
#[derive(Default)]
pub(crate) struct Signals {
    /// Something else may be due for a probe now.
    pub(crate) health_changed: Notify,
    /// Something else may be due for a look-up now.
    pub(crate) names_changed: Notify,
    /// Some targets may be gone, or asked something else.
    targets_changed: AtomicBool,
    /// A look-up has been answered.
    pub(crate) answered: Notify,
    /// A probe or a look-up has ended in a panic.
    failed: Notify,
}

/// What performs probes and look-ups. Tests of what happens when one fails have others.
#[derive(Clone, Copy)]
pub(crate) struct Performers {
    pub(crate) probe: PerformProbe,
    pub(crate) look_up: PerformLookUp,
}

impl Default for Performers {
    fn default() -> Self {
        Self {
            probe: |dialer, spec, stage| Box::pin(probe::perform(dialer, spec, stage)),
            look_up: |lookups, name| Box::pin(lookups.perform(name)),
        }
    }
}

impl Signals {
    /// Tells of a new configuration.
    pub(crate) fn tell_reconciled(&self) {
        self.tell_targets();
        self.names_changed.notify_one();
    }

    /// Tells of other targets.
    pub(crate) fn tell_targets(&self) {
        self.targets_changed.store(true, Ordering::Release);
        self.health_changed.notify_one();
    }

    /// Whether there have been other targets since this was last asked.
    pub(crate) fn take_targets_changed(&self) -> bool {
        self.targets_changed.swap(false, Ordering::AcqRel)
    }
}

/// Tells if what it belongs to ends in a panic: nobody waits for the end of a probe or a look-up.
pub(crate) struct Watched(pub(crate) Arc<Signals>);

impl Drop for Watched {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.failed.notify_one();
        }
    }
}

/// What the thread works with.
pub(crate) struct Keeping {
    pub(crate) settings: Arc<Settings>,
    pub(crate) client_tls: Arc<ClientTls>,
    pub(crate) health: Arc<SharedHealth>,
    pub(crate) state: Arc<State>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) performers: Performers,
}

/// The thread, as long as this is kept.
pub(crate) struct HealthThread {
    lost: oneshot::Receiver<String>,
    _goes_on: oneshot::Sender<()>,
}

impl HealthThread {
    /// Starts it, and returns once it has done the first look-ups, or has waited long enough.
    pub(crate) fn start(keeping: Keeping) -> Result<Self, String> {
        let (goes_on, ended) = oneshot::channel::<()>();
        let (telling, told) = oneshot::channel();
        let (begun, beginning) = mpsc::sync_channel::<Result<(), String>>(1);
        std::thread::Builder::new()
            .name("health".to_owned())
            .spawn(move || {
                let runtime = Builder::new_current_thread()
                    .enable_all()
                    .max_io_events_per_tick(IO_EVENTS_MAX)
                    .build();
                let runtime = match runtime {
                    Ok(runtime) => runtime,
                    Err(error) => {
                        // Whoever started this waits for it.
                        let _ = begun.send(Err(format!("cannot start a runtime: {error}")));
                        return;
                    }
                };
                LocalSet::new().block_on(&runtime, async {
                    let tasks = keeping.start();
                    names::first_answers(&keeping.health, &keeping.signals.answered).await;
                    let _ = begun.send(Ok(()));
                    tokio::select! {
                        _ = ended => {}
                        why = first_to_end(tasks) => {
                            let _ = telling.send(why);
                        }
                        () = keeping.signals.failed.notified() => {
                            let _ = telling.send(lost("a probe or a look-up: it panicked"));
                        }
                    }
                });
            })
            .map_err(|error| format!("cannot start the thread of health: {error}"))?;
        beginning
            .recv()
            .map_err(|_| "the thread of health ended at once".to_owned())??;
        Ok(Self {
            lost: told,
            _goes_on: goes_on,
        })
    }
}

impl HealthThread {
    /// Ends when health is kept no longer, which must not happen; says why.
    pub(crate) async fn lost(self) -> String {
        let why = self.lost.await;
        why.unwrap_or_else(|_| lost("its thread ended"))
    }
}

impl Keeping {
    fn start(&self) -> [(&'static str, JoinHandle<()>); 2] {
        let resolver = Resolver::new(&self.settings);
        let dialer = Arc::new(Dialer::new(resolver, Arc::clone(&self.client_tls)));
        let (health, state) = (&self.health, &self.state);
        let resolving = names::keep_resolving(
            Arc::clone(health),
            (Lookups::new(&self.settings), self.performers.look_up),
            Arc::clone(state),
            Arc::clone(&self.signals),
        );
        let prober = Prober::new(
            Arc::clone(health),
            (dialer, self.performers.probe),
            Arc::clone(state),
            Arc::clone(&self.signals),
        );
        [
            ("probing", tokio::task::spawn_local(prober.keep_probing())),
            ("resolving names", tokio::task::spawn_local(resolving)),
        ]
    }
}

/// Waits for one of the tasks that go on as long as the program does; says which, and why that is the end. A
/// gateway that goes on without them would answer by what it knew then, for ever.
async fn first_to_end<const N: usize>(tasks: [(&'static str, JoinHandle<()>); N]) -> String {
    let mut ends = JoinSet::new();
    for (what, task) in tasks {
        ends.spawn_local(async move { (what, task.await) });
    }
    let why = match ends.join_next().await {
        Some(Ok((what, Err(error)))) => format!("{what}: {error}"),
        Some(Ok((what, Ok(())))) => format!("{what}: it ended"),
        Some(Err(error)) => error.to_string(),
        None => "nothing was started".to_owned(),
    };
    lost(&why)
}

fn lost(why: &str) -> String {
    format!("the health of targets is kept no longer ({why}); please report this; start again")
}

/// What the thread takes from its sockets before it looks at its timers. If it was held up, thousands
/// of probes may have both an answer and a timer that
/// has run out: an answer that is left for the next look would be too late.
const IO_EVENTS_MAX: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_program_does_not_outlive_what_keeps_health() {
        let local = LocalSet::new();
        let told = local.run_until(async {
            let lasting = tokio::task::spawn_local(std::future::pending());
            let failing = tokio::task::spawn_local(async { panic!("a fault") });
            first_to_end([("one", lasting), ("other", failing)]).await
        });
        let told = told.await;
        assert!(
            told.contains("(other: ") && told.contains("panic"),
            "{told}"
        );
    }
}
