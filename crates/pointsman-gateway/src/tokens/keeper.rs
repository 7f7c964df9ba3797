//! Brings access tokens about, once for whatever is equal, and renews them before they run out.
//!
//! A state machine without time or network of its own: the program tells it which configuration is
//! about to be published, asks what is due, makes those calls, and reports what came of them. After a
//! failure it is tried again, after waits that double; the token before it is used as long as it may
//! be.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use http::HeaderValue;
use pointsman_ai::gcp::{self, AccessToken, Unusable};

use super::{GcpAuth, Identity, State, Token, fetch::FetchError};
use crate::{
    config::snapshot::{PoolRef, Snapshot},
    ports::{SignRs256, Upstreams},
};

/// All tokens. One for the program, on the control thread.
#[derive(Default)]
pub struct Keeper {
    entries: HashMap<Arc<Identity>, Entry>,
}

struct Entry {
    /// Everywhere in the configuration where this token is needed. Not empty.
    users: Vec<Arc<GcpAuth>>,
    state: State,
    /// `None`: it is under way, or cannot work.
    due: Option<Instant>,
    /// Since the last success.
    failures: u32,
}

/// A token to be fetched.
pub struct Errand {
    auth: Arc<GcpAuth>,
}

/// What came of an errand.
pub type Outcome = Result<AccessToken, FetchError>;

impl Errand {
    /// Asks for the token.
    pub async fn perform(&self, sign: SignRs256, upstreams: &dyn Upstreams) -> Outcome {
        match &self.auth.fetcher {
            Ok(fetcher) => fetcher.fetch(sign, upstreams).await,
            Err(_) => Err(FetchError::Unusable(Unusable("unusable service account"))),
        }
    }
}

impl Keeper {
    /// Takes in a configuration before it is published: tokens that are there already are there from
    /// its first request on, and the rest is due at once. What it does not name is forgotten.
    pub fn adopt(&mut self, snapshot: &Snapshot, now: Instant) {
        let targets = snapshot.pools.values().filter_map(|pool| match pool {
            PoolRef::Ai(target) => Some(target),
            PoolRef::Upstream(_) => None,
        });
        let instances = targets.flat_map(|target| &target.instances);
        self.adopt_all(instances.filter_map(|instance| instance.gcp.as_ref()), now);
    }

    fn adopt_all<'a>(&mut self, all: impl Iterator<Item = &'a Arc<GcpAuth>>, now: Instant) {
        for entry in self.entries.values_mut() {
            entry.users.clear();
        }
        for auth in all.filter(|auth| auth.fetcher.is_ok()) {
            let identity = Arc::clone(&auth.identity);
            let entry = self.entries.entry(identity).or_insert_with(|| Entry {
                users: Vec::new(),
                state: State::default(),
                due: Some(now),
                failures: 0,
            });
            auth.publish(&entry.state);
            entry.users.push(Arc::clone(auth));
        }
        self.entries.retain(|_, entry| !entry.users.is_empty());
    }

    /// A token that is due, if there is one; to be fetched, and reported with
    /// [`on_outcome`](Self::on_outcome).
    pub fn poll_errand(&mut self, now: Instant) -> Option<Errand> {
        let mut entries = self.entries.values_mut();
        let entry = entries.find(|entry| entry.due.is_some_and(|due| due <= now))?;
        let auth = Arc::clone(entry.users.first()?);
        entry.due = None;
        Some(Errand { auth })
    }

    /// When something is due. `None`: not before the configuration changes.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.entries.values().filter_map(|entry| entry.due).min()
    }

    /// Takes in what came of an errand: publishes the token, or has it tried again later.
    pub fn on_outcome(&mut self, errand: &Errand, outcome: Outcome, now: Instant) {
        let identity = &errand.auth.identity;
        let Some(entry) = self.entries.get_mut(identity) else {
            // The configuration has lost interest in the meantime.
            return;
        };
        let token = outcome.and_then(|token| token_of(&token, identity, now));
        let place = errand
            .auth
            .fetcher
            .as_ref()
            .map(|fetcher| fetcher.address());
        let address = place.unwrap_or_default();
        match token {
            Ok((token, lifetime)) => {
                let ahead = (lifetime / 5).min(AHEAD_MAX);
                entry.due = Some(now + (lifetime - ahead));
                entry.state = State {
                    token: Some(token),
                    failure: None,
                };
                if entry.failures > 0 {
                    tracing::info!(address, "gcp: there is an access token again");
                }
                entry.failures = 0;
            }
            Err(error) => {
                let wait = (BACKOFF * (1 << entry.failures.min(6))).min(BACKOFF_MAX);
                entry.due = Some(now + wait);
                entry.state.failure = Some(error.to_string());
                if entry.failures == 0 {
                    tracing::warn!(address, "gcp: no access token; again in {wait:?}: {error}");
                } else {
                    tracing::debug!(address, "gcp: still none; again in {wait:?}: {error}");
                }
                entry.failures = entry.failures.saturating_add(1);
            }
        }
        for user in &entry.users {
            user.publish(&entry.state);
        }
    }
}

/// A token as requests have it, and how long it is used.
fn token_of(
    token: &AccessToken,
    identity: &Identity,
    now: Instant,
) -> Result<(Token, Duration), FetchError> {
    let lifetime = gcp::token_lifetime(token.expires_in, identity.early, identity.max);
    let lifetime = lifetime.min(LIFETIME_MAX);
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.value)).map_err(|_| {
        FetchError::Unusable(Unusable("the token endpoint's token fits into no header"))
    })?;
    value.set_sensitive(true);
    let until = now + lifetime;
    Ok((Token { value, until }, lifetime))
}

/// A token is renewed when a fifth of its time is left, or this if that is less.
const AHEAD_MAX: Duration = Duration::from_secs(60);
/// After a first failure.
const BACKOFF: Duration = Duration::from_secs(1);
/// After many.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Whatever an endpoint says: time can be added to without overflow.
const LIFETIME_MAX: Duration = Duration::from_secs(30 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock, tokens::fetch::Fetcher};

    fn auth(max: Option<u64>) -> Arc<GcpAuth> {
        let account = r#"{"client_email":"a","private_key":"k","token_uri":"http://127.0.0.1:1"}"#;
        let identity = Identity {
            account: account.to_owned(),
            early: 60,
            max,
            verify: true,
        };
        Arc::new(GcpAuth::new(identity, Fetcher::new(account, true)))
    }

    fn lasting(seconds: u64) -> Outcome {
        Ok(AccessToken {
            value: format!("t{seconds}"),
            expires_in: seconds,
        })
    }

    fn has(auth: &GcpAuth, now: Instant) -> Option<Result<String, String>> {
        let token = auth.token(now)?;
        Some(token.map(|value| value.to_str().expect("text").to_owned()))
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    /// P-086, P-087, P-088: what is equal shares a token, other rules have their own.
    #[test]
    fn equal_accounts_share_a_token_that_is_renewed_early() {
        let (mut keeper, now) = (Keeper::default(), clock::now());
        let (one, same, other) = (auth(Some(8)), auth(Some(8)), auth(Some(100)));
        keeper.adopt_all([&one, &same, &other].into_iter(), now);
        let errands: Vec<Errand> = std::iter::from_fn(|| keeper.poll_errand(now)).collect();
        assert_eq!(errands.len(), 2);
        assert!(has(&one, now).is_none(), "it has to be waited for");
        for errand in &errands {
            keeper.on_outcome(errand, lasting(5), now);
        }
        for auth in [&one, &same, &other] {
            assert_eq!(
                has(auth, now + seconds(4)),
                Some(Ok("Bearer t5".to_owned()))
            );
            assert!(has(auth, now + seconds(5)).is_none());
        }
        let renewal = now + seconds(4);
        assert_eq!(keeper.next_deadline(), Some(renewal));
        keeper.adopt_all([&one].into_iter(), now);
        let errand = keeper.poll_errand(renewal).expect("due");
        assert!(keeper.poll_errand(renewal).is_none(), "it is under way");
        keeper.on_outcome(&errand, lasting(10), renewal);
        assert_eq!(
            keeper.next_deadline(),
            Some(renewal + Duration::from_millis(6_400))
        );
        assert!(has(&one, renewal + Duration::from_millis(7_999)).is_some());
        assert!(has(&one, renewal + seconds(8)).is_none(), "max_ttl");

        let again = auth(Some(8));
        keeper.adopt_all([&again].into_iter(), renewal);
        assert!(
            has(&again, renewal).is_some(),
            "there before it is published"
        );
    }

    #[test]
    fn failures_leave_the_token_and_are_tried_again() {
        let (mut keeper, mut now) = (Keeper::default(), clock::now());
        let one = auth(None);
        keeper.adopt_all([&one].into_iter(), now);
        let errand = keeper.poll_errand(now).expect("due");
        keeper.on_outcome(&errand, lasting(100), now);
        let until = now + seconds(40);
        now += seconds(32);
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            let errand = keeper.poll_errand(now).expect("due");
            keeper.on_outcome(&errand, Err(FetchError::Timeout), now);
            assert_eq!(keeper.next_deadline(), Some(now + seconds(wait)));
            match has(&one, now).expect("known") {
                Ok(_) => assert!(now < until),
                Err(reason) => assert_eq!(reason, "the token endpoint took too long"),
            }
            now += seconds(wait);
        }
        let errand = keeper.poll_errand(now).expect("due");
        keeper.on_outcome(&errand, lasting(100), now);
        assert!(has(&one, now).expect("known").is_ok());
        assert_eq!(keeper.next_deadline(), Some(now + seconds(32)));
    }

    #[test]
    fn an_account_that_cannot_work_is_never_asked_for() {
        let (mut keeper, now) = (Keeper::default(), clock::now());
        let identity = Identity {
            account: "{}".to_owned(),
            early: 60,
            max: None,
            verify: true,
        };
        let auth = Arc::new(GcpAuth::new(identity, Fetcher::new("{}", true)));
        keeper.adopt_all([&auth].into_iter(), now);
        assert!(keeper.poll_errand(now).is_none());
        let told = has(&auth, now).expect("known").expect_err("no token");
        assert!(told.contains("client_email"), "{told}");
    }
}
