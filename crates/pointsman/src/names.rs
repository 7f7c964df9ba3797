//! Looks the names of targets up, as they fall due: before the first request, and from then on in
//! the background.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use pointsman_gateway::{
    clock,
    gateway::State,
    upstream::{driver::Health, resolve::Found},
};
use tokio::{
    sync::Notify,
    task::{JoinSet, LocalSet},
    time::timeout,
};

use crate::dns::Lookups;

/// Looks up the names of the first configuration, so that no request has to. Whatever has no answer
/// within [`FIRST_LIMIT`] is asked for again in the background.
pub(crate) async fn resolve_first(
    health: &RefCell<Health>,
    lookups: &Rc<Lookups>,
    state: &Arc<State>,
) {
    let local = LocalSet::new();
    let mut unanswered = Vec::new();
    let all = local.run_until(async {
        let mut tasks = JoinSet::new();
        loop {
            while let Some(due) = health.borrow_mut().poll_lookup(clock::now()) {
                let (name, lookups) = (Arc::clone(&due.name), Rc::clone(lookups));
                let place = unanswered.len();
                unanswered.push(Some(due));
                tasks.spawn_local(async move { (place, perform(&lookups, &name).await) });
            }
            let Some(Ok((place, answer))) = tasks.join_next().await else {
                return;
            };
            if let Some(due) = unanswered[place].take() {
                let now = clock::now();
                health.borrow_mut().on_lookup(&due, answer, now, state);
            }
        }
    });
    // What is late is no failure: it has not been given the time.
    let _ = timeout(FIRST_LIMIT, all).await;
    for due in unanswered.into_iter().flatten() {
        health.borrow_mut().put_back(due, clock::now());
    }
}

/// Looks names up until the program ends. `changed` is told of new configurations, and tells
/// `health_changed` of new targets.
pub(crate) async fn keep_resolving(
    health: Rc<RefCell<Health>>,
    lookups: Rc<Lookups>,
    state: Arc<State>,
    changed: Rc<Notify>,
    health_changed: Rc<Notify>,
) {
    loop {
        loop {
            let due = health.borrow_mut().poll_lookup(clock::now());
            let Some(due) = due else { break };
            let (health, lookups) = (Rc::clone(&health), Rc::clone(&lookups));
            let (state, changed) = (Arc::clone(&state), Rc::clone(&changed));
            let health_changed = Rc::clone(&health_changed);
            tokio::task::spawn_local(async move {
                let answer = perform(&lookups, &due.name).await;
                let now = clock::now();
                if health.borrow_mut().on_lookup(&due, answer, now, &state) {
                    health_changed.notify_one();
                }
                changed.notify_one();
            });
        }
        let idle = clock::now() + IDLE;
        let until = health.borrow().next_lookup();
        let until = until.map_or(idle, |deadline| deadline.min(idle));
        tokio::select! {
            () = changed.notified() => {}
            () = tokio::time::sleep_until(until.into()) => {}
        }
    }
}

async fn perform(lookups: &Lookups, name: &str) -> Result<Found, String> {
    let performed = timeout(LOOKUP_LIMIT, lookups.perform(name)).await;
    performed.unwrap_or_else(|_| Err("no answer in time".to_owned()))
}

/// How long the start waits for the first answers.
const FIRST_LIMIT: Duration = Duration::from_secs(1);
/// For one look-up, over all servers and search domains.
const LOOKUP_LIMIT: Duration = Duration::from_secs(15);
/// The longest sleep.
const IDLE: Duration = Duration::from_secs(3600);
