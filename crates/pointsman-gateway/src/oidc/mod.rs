//! What an identity provider (OpenID Connect) says of access tokens.
//!
//! A [`Provider`] is asked by requests: it checks a token by the provider's keys or asks the provider
//! about it, and fetches what it needs for that inside the request that first needs it (`renewed`
//! says how the others share it). What was fetched is kept: the discovery document for an hour, the
//! keys as long as the configuration says; what was said of a token, until the token runs out.
//! [`Providers`] keeps all of that over changes of configuration.

mod call;
mod introspection;
mod keys;
mod renewed;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::HeaderMap;
use serde_json::{Map, Value};

pub use self::introspection::ClientAuth;
use self::{
    call::{CallError, Place},
    introspection::Introspection,
    keys::{KeySet, Verdict},
    renewed::Renewed,
};
use crate::{clock, jws::Token, ports::Upstreams};

/// What a provider is and how it is asked: equal identities share what was fetched. Holds a secret, so
/// it has no `Debug`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// URL of its discovery document.
    pub discovery: String,
    /// Verify its certificates.
    pub verify: bool,
    /// Of each call.
    pub timeout: Duration,
    /// How long its keys are used.
    pub keys_last: Duration,
    /// Where it is asked about tokens, if the discovery document is not to say so.
    pub introspection_endpoint: Option<String>,
    /// As whom.
    pub client: ClientAuth,
    /// The longest that what it said of a token is used, if that is shorter than the token's time.
    pub introspection_interval: Option<Duration>,
    /// The member of its answer that says until when the token is good.
    pub expiry_claim: String,
}

/// An identity provider, and what was fetched from it.
pub struct Provider {
    identity: Arc<Identity>,
    place: Place,
    discovery: Renewed<Fetched<Discovery>>,
    keys: Renewed<Fetched<KeySet>>,
    /// When the keys were last fetched because a token named one that is not there.
    looked_again: Mutex<Option<Instant>>,
    introspection: Introspection,
    health: Mutex<Health>,
}

/// Whether a provider works, as far as the log goes.
#[derive(Default)]
struct Health {
    is_failing: bool,
    /// That was told, and is to be taken back.
    is_told: bool,
    /// Nothing is told before that.
    quiet_until: Option<Instant>,
}

/// What came of fetching something that lasts.
struct Fetched<T> {
    outcome: Result<Arc<T>, CallError>,
    /// To be fetched anew from then on.
    until: Instant,
    /// Not to be used from then on, even if there is nothing newer.
    end: Instant,
}

/// What a discovery document says, as far as it matters here.
struct Discovery {
    issuer: String,
    keys: Option<Place>,
    introspection: Option<Arc<Place>>,
}

/// Why a token is refused; for clients, and quotes nothing that they have not sent.
pub type Reason = String;

/// A provider's key, known beforehand.
pub struct OneKey(KeySet);

impl OneKey {
    /// The public key `pem`.
    ///
    /// # Errors
    /// It is none that tokens can be signed by.
    pub fn of_pem(pem: &str) -> Result<Self, String> {
        KeySet::of_pem(pem).map(Self)
    }

    /// Checks that it has signed `token`.
    ///
    /// # Errors
    /// It has not.
    pub fn verify(&self, token: &Token<'_>) -> Result<(), Reason> {
        match self.0.judge(token) {
            Verdict::Genuine => Ok(()),
            Verdict::Forged | Verdict::Unknown => Err("the signature is wrong".to_owned()),
        }
    }
}

/// What a token says of its bearer.
pub type Claims = Map<String, Value>;

impl Provider {
    /// A provider of which nothing has been fetched.
    ///
    /// # Errors
    /// A URL that cannot be called: the configuration's field, and why.
    pub fn new(identity: Identity) -> Result<Self, (&'static str, String)> {
        let place = |what, url: &str| Place::new(what, url, identity.verify, identity.timeout);
        let written = identity.introspection_endpoint.as_deref();
        let introspection = written
            .map(|url| place(INTROSPECTION, url))
            .transpose()
            .map_err(|error| ("introspection_endpoint", error))?;
        let discovery = place(DISCOVERY, &identity.discovery);
        Ok(Self {
            place: discovery.map_err(|error| ("discovery", error))?,
            introspection: Introspection::new(introspection.map(Arc::new)),
            identity: Arc::new(identity),
            discovery: Renewed::default(),
            keys: Renewed::default(),
            looked_again: Mutex::default(),
            health: Mutex::default(),
        })
    }

    /// The issuer that the discovery document names.
    ///
    /// # Errors
    /// It cannot be had.
    pub async fn issuer(&self, upstreams: &dyn Upstreams) -> Result<String, Reason> {
        let discovery = self.discovery(upstreams).await.map_err(told)?;
        Ok(discovery.issuer.clone())
    }

    /// Checks that one of the provider's keys has signed `token`. A key that is not known may be new:
    /// then the keys are fetched once more, but not again and again for names that clients make up.
    ///
    /// # Errors
    /// None has, or there are no keys.
    pub async fn verify(&self, token: &Token<'_>, upstreams: &dyn Upstreams) -> Result<(), Reason> {
        let known = self.keys(None, upstreams).await.map_err(told)?;
        let verdict = known.outcome.as_ref().map(|keys| keys.judge(token));
        let mut verdict = verdict.map_err(|error| told(*error))?;
        if verdict == Verdict::Unknown {
            let newer = self.newer_keys(&known, upstreams).await;
            let newer = newer.as_ref().and_then(|keys| keys.outcome.as_ref().ok());
            verdict = newer.map_or(verdict, |keys| keys.judge(token));
        }
        match verdict {
            Verdict::Genuine => Ok(()),
            Verdict::Forged => Err("the signature is wrong".to_owned()),
            Verdict::Unknown => Err("signed by no key of the identity provider".to_owned()),
        }
    }

    /// What the provider says of `token`, asked with `headers`.
    ///
    /// # Errors
    /// It is not good, or the provider cannot be asked.
    pub async fn introspect(
        &self,
        token: &str,
        headers: HeaderMap,
        upstreams: &dyn Upstreams,
    ) -> Result<Arc<Claims>, Reason> {
        let place = match self.introspection.place() {
            Some(place) => Arc::clone(place),
            None => {
                let discovery = self.discovery(upstreams).await.map_err(told)?;
                let named = discovery.introspection.clone();
                named.ok_or_else(|| {
                    "the discovery document names no introspection_endpoint".to_owned()
                })?
            }
        };
        let asked = self
            .introspection
            .ask(&place, token, headers, &self.identity, upstreams);
        let outcome = asked.await;
        match &outcome {
            Ok(_) => self.note_success(),
            Err(error) => self.note_failure(error),
        }
        match outcome.map_err(told)? {
            Some(claims) => Ok(claims),
            None => Err("the token is not active".to_owned()),
        }
    }

    async fn discovery(&self, upstreams: &dyn Upstreams) -> Result<Arc<Discovery>, CallError> {
        let fetch = async {
            let document = self.place.get(upstreams).await?;
            self.read(&document)
        };
        let fetched = self
            .lasting(&self.discovery, None, DISCOVERY, HOUR, fetch, upstreams)
            .await;
        fetched?.outcome.clone()
    }

    fn read(&self, document: &Value) -> Result<Discovery, CallError> {
        let document = document
            .as_object()
            .ok_or_else(|| self.place.unreadable())?;
        let text = |member: &str| document.get(member).and_then(Value::as_str);
        let place = |what, member: &str| {
            let url = text(member)?;
            Place::new(what, url, self.identity.verify, self.identity.timeout).ok()
        };
        // It is required (OpenID Connect Discovery §3): without it this is some other document.
        let issuer = text("issuer").ok_or_else(|| self.place.unreadable())?;
        Ok(Discovery {
            issuer: issuer.to_owned(),
            keys: place(KEYS, "jwks_uri"),
            introspection: place(INTROSPECTION, "introspection_endpoint").map(Arc::new),
        })
    }

    /// Newer keys than `known`, if it is time to look for some.
    async fn newer_keys(
        &self,
        known: &Arc<Fetched<KeySet>>,
        upstreams: &dyn Upstreams,
    ) -> Option<Arc<Fetched<KeySet>>> {
        let newest = self.keys.newest()?;
        if !Arc::ptr_eq(&newest, known) {
            return Some(newest);
        }
        if !self.keys.is_under_way() {
            let now = clock::now();
            let mut looked = (self.looked_again.lock()).unwrap_or_else(PoisonError::into_inner);
            if looked.is_some_and(|last| now < last + LOOK_AGAIN_AFTER) {
                return None;
            }
            *looked = Some(now);
        }
        self.keys(Some(known), upstreams).await.ok()
    }

    /// The keys; others than `known` if that is given.
    async fn keys(
        &self,
        known: Option<&Arc<Fetched<KeySet>>>,
        upstreams: &dyn Upstreams,
    ) -> Result<Arc<Fetched<KeySet>>, CallError> {
        let fetch = async {
            let discovery = self.discovery(upstreams).await?;
            let place = discovery.keys.as_ref();
            let place = place.ok_or_else(|| self.place.unreadable())?;
            let set = place.get(upstreams).await?;
            KeySet::of_jwks(&set).ok_or_else(|| place.unreadable())
        };
        let lasts = self.identity.keys_last;
        self.lasting(&self.keys, known, KEYS, lasts, fetch, upstreams)
            .await
    }

    /// What `value` is, or what `fetch` brings if it is missing, stale or `known` not to be enough. After
    /// a failure the one before is used for as long again as it was good for; meanwhile one request in a
    /// while tries anew.
    async fn lasting<T>(
        &self,
        value: &Renewed<Fetched<T>>,
        known: Option<&Arc<Fetched<T>>>,
        what: &'static str,
        lasts: Duration,
        fetch: impl Future<Output = Result<T, CallError>>,
        upstreams: &dyn Upstreams,
    ) -> Result<Arc<Fetched<T>>, CallError> {
        let now = clock::now();
        let newest = value.newest();
        if let Some(newest) = &newest
            && known.is_none_or(|known| !Arc::ptr_eq(known, newest))
        {
            let is_usable = newest.outcome.is_ok() && now < newest.end;
            if now < newest.until || (is_usable && value.is_under_way()) {
                return Ok(Arc::clone(newest));
            }
        }
        let fetch = async {
            let outcome = fetch.await.map(Arc::new);
            let now = clock::now();
            match (outcome, newest.as_deref()) {
                (Ok(value), _) => {
                    self.note_success();
                    Fetched {
                        outcome: Ok(value),
                        until: now + lasts,
                        end: now + lasts * 2,
                    }
                }
                (Err(error), before) => {
                    self.note_failure(&error);
                    let usable = before.filter(|before| before.outcome.is_ok() && now < before.end);
                    Fetched {
                        outcome: usable.map_or(Err(error), |before| before.outcome.clone()),
                        until: now + usable.map_or(RETRY_AFTER, |_| RENEW_AFTER),
                        end: usable.map_or(now, |before| before.end),
                    }
                }
            }
        };
        // Keys may have to wait for the discovery document, and that for somebody who leaves.
        let limit = upstreams.sleep_until(now + self.identity.timeout * 3);
        let fetched = value.renew(newest.as_ref(), limit, fetch).await;
        fetched.ok_or_else(|| CallError::late(what))
    }

    fn note_success(&self) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.is_failing = false;
        if std::mem::take(&mut health.is_told) {
            let address = self.place.address();
            tracing::info!(
                address,
                "openid-connect: the identity provider answers again"
            );
        }
    }

    /// One that fails every now and then is told of every now and then, too.
    fn note_failure(&self, error: &CallError) {
        let now = clock::now();
        let address = self.place.address();
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = !health.is_failing && health.quiet_until.is_none_or(|until| now >= until);
        health.is_failing = true;
        if is_news {
            health.is_told = true;
            health.quiet_until = Some(now + QUIET);
            tracing::warn!(
                address,
                "openid-connect: tokens are refused, or checked by what was known: {error}"
            );
        } else {
            tracing::debug!(address, "openid-connect: failing: {error}");
        }
    }
}

fn told(error: CallError) -> Reason {
    error.to_string()
}

/// The providers of all configurations.
#[derive(Default)]
pub struct Providers(Mutex<HashMap<Arc<Identity>, Arc<Provider>>>);

impl Providers {
    /// The provider that equals `new`: itself, unless there is one with more to tell. Not for the path
    /// of every request: who asks keeps the answer.
    pub fn adopt(&self, new: &Arc<Provider>) -> Arc<Provider> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(&new.identity) {
            return Arc::clone(known);
        }
        if all.len() >= PROVIDERS_KEPT {
            // Those that no configuration has any more.
            all.retain(|_, provider| Arc::strong_count(provider) > 1);
        }
        all.insert(Arc::clone(&new.identity), Arc::clone(new));
        Arc::clone(new)
    }
}

const DISCOVERY: &str = "discovery document";
const KEYS: &str = "jwks_uri of the discovery document";
const INTROSPECTION: &str = "introspection endpoint";
/// How long a discovery document is used.
const HOUR: Duration = Duration::from_secs(3_600);
/// How long the failure to get something is the answer to all who ask.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The same if there is something older to go on with.
const RENEW_AFTER: Duration = Duration::from_secs(10);
/// Between two looks for keys that tokens name and nobody knows.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// Between two words of a provider that fails.
const QUIET: Duration = Duration::from_secs(10);
/// From so many on, those out of use are forgotten when another comes.
const PROVIDERS_KEPT: usize = 64;
