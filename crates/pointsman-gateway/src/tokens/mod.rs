//! Access tokens of Google's service accounts (`auth.gcp`).
//!
//! They are fetched off the path of requests ([`keeper`], [`fetch`]), once for whatever instances have
//! the same account and the same rules for how long a token is used, renewed before they run out, and
//! published to all workers. A request only reads what is there; the few that come before the first
//! token wait for it.

pub mod fetch;
pub mod keeper;

use std::{
    sync::{Arc, Mutex, PoisonError},
    task::{Poll, Waker},
    time::Instant,
};

use arc_swap::ArcSwap;
use http::HeaderValue;

use crate::{clock, ports::Upstreams, tokens::fetch::Fetcher};

/// What a token depends on: equal identities share one. Holds a secret, so it has no `Debug`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The service account as configured.
    pub account: String,
    /// `expire_early_secs`.
    pub early: u64,
    /// `max_ttl`, seconds.
    pub max: Option<u64>,
    /// Verify the token endpoint's certificate.
    pub verify: bool,
}

/// `auth.gcp` of one instance.
pub struct GcpAuth {
    /// What its token depends on.
    pub identity: Arc<Identity>,
    /// Gets one; or why that cannot work.
    pub fetcher: Result<Fetcher, String>,
    state: ArcSwap<State>,
    waiting: Mutex<Vec<Waker>>,
}

/// What is known of a token.
#[derive(Clone, Default)]
pub struct State {
    /// The newest one.
    token: Option<Token>,
    /// Why the last try to get another failed.
    failure: Option<String>,
}

/// A token as requests have it.
#[derive(Clone)]
struct Token {
    /// `Bearer ...`.
    value: HeaderValue,
    /// Not to be used from then on.
    until: Instant,
}

impl GcpAuth {
    /// Without a token, which a [`keeper::Keeper`] brings.
    pub fn new(identity: Identity, fetcher: Result<Fetcher, String>) -> Self {
        let state = State {
            token: None,
            failure: fetcher.as_ref().err().cloned(),
        };
        Self {
            identity: Arc::new(identity),
            fetcher,
            state: ArcSwap::from_pointee(state),
            waiting: Mutex::default(),
        }
    }

    /// `Authorization` for a request at `now`. `None`: it has to be waited for.
    ///
    /// # Errors
    /// There is none, and why; for clients and logs.
    pub fn token(&self, now: Instant) -> Option<Result<HeaderValue, String>> {
        let state = self.state.load();
        match (&state.token, &state.failure) {
            (Some(token), _) if now < token.until => Some(Ok(token.value.clone())),
            (_, Some(failure)) => Some(Err(failure.clone())),
            (_, None) => None,
        }
    }

    /// Waits until there is a token, or it is known that there is none; until `due` at most.
    pub async fn wait(&self, due: Instant, upstreams: &dyn Upstreams) {
        if self.token(clock::now()).is_some() {
            return;
        }
        let mut limit = upstreams.sleep_until(due);
        std::future::poll_fn(|cx| {
            // First this, then the look: what is published in between wakes us.
            self.lock().push(cx.waker().clone());
            if self.token(clock::now()).is_some() {
                return Poll::Ready(());
            }
            limit.as_mut().poll(cx)
        })
        .await;
    }

    fn publish(&self, state: &State) {
        self.state.store(Arc::new(state.clone()));
        for waker in std::mem::take(&mut *self.lock()) {
            waker.wake();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
