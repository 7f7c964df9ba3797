//! Looks the names of targets up, as they fall due: before the first request of the configuration that
//! names them, and from then on in the background.

use std::{pin::pin, rc::Rc, sync::Arc, time::Duration};

use pointsman_gateway::{
    clock,
    gateway::State,
    ports::LocalFuture,
    upstream::{driver::SharedHealth, resolve::Found},
};
use tokio::{sync::Notify, time::timeout};

use crate::{
    dns::Lookups,
    health_thread::{Signals, Watched},
};

/// How a name is looked up.
pub(crate) type PerformLookUp =
    for<'a> fn(&'a Lookups, &'a str) -> LocalFuture<'a, Result<Found, String>>;

/// Waits until every name has had its first answer, so that no request has to, and each address is
/// known by its verdict before anybody picks it. Whatever has none within [`FIRST_LIMIT`] is not
/// waited for.
pub(crate) async fn first_answers(health: &SharedHealth, answered: &Notify) {
    let all = async {
        loop {
            let mut next = pin!(answered.notified());
            // Before looking, so that no answer comes in between.
            next.as_mut().enable();
            if !health.lock().awaits_first_answers() {
                return;
            }
            next.await;
        }
    };
    let _ = timeout(FIRST_LIMIT, all).await;
}

/// Looks names up until the program ends. `signals.names_changed` is told of new configurations, and
/// whoever waits hears of new targets and of each answer.
pub(crate) async fn keep_resolving(
    health: Arc<SharedHealth>,
    (lookups, look_up): (Lookups, PerformLookUp),
    state: Arc<State>,
    signals: Arc<Signals>,
) {
    let lookups = Rc::new(lookups);
    loop {
        loop {
            let due = health.lock().poll_lookup(clock::now());
            let Some(due) = due else { break };
            let (health, lookups) = (Arc::clone(&health), Rc::clone(&lookups));
            let (state, signals) = (Arc::clone(&state), Arc::clone(&signals));
            tokio::task::spawn_local(async move {
                let _watched = Watched(Arc::clone(&signals));
                let performed = timeout(LOOKUP_LIMIT, look_up(&lookups, &due.name)).await;
                let answer = performed.unwrap_or_else(|_| Err("no answer in time".to_owned()));
                let now = clock::now();
                if health.lock().on_lookup(&due, answer, now, &state) {
                    signals.tell_targets();
                }
                signals.names_changed.notify_one();
                signals.answered.notify_waiters();
            });
        }
        let idle = clock::now() + IDLE;
        let until = health.lock().next_lookup();
        let until = until.map_or(idle, |deadline| deadline.min(idle));
        tokio::select! {
            () = signals.names_changed.notified() => {}
            () = tokio::time::sleep_until(until.into()) => {}
        }
    }
}

/// How long a configuration waits for the first answers about its names.
const FIRST_LIMIT: Duration = Duration::from_secs(1);
/// For one look-up, over all servers and search domains.
const LOOKUP_LIMIT: Duration = Duration::from_secs(15);
/// The longest sleep.
const IDLE: Duration = Duration::from_secs(3600);
