//! Token introspection (RFC 7662): the provider is asked whether a token is good.
//!
//! What it says of a good token is kept until the token runs out, in bounded memory, under a digest of
//! the token; so it is asked once for all requests with the same token, also for those that come at
//! the same time. What it says of a bad one is told to those who wait for it, and forgotten.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderValue, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustc_hash::FxHashMap;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{
    Claims, INTROSPECTION, Identity,
    call::{CallError, Place},
    renewed::Renewed,
};
use crate::{clock, ports::Upstreams};

/// As whom the gateway asks. Holds a secret, so it has no `Debug`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ClientAuth {
    /// The client's id.
    pub id: String,
    /// Its secret.
    pub secret: Option<String>,
    /// In the form rather than in `Authorization`.
    pub in_form: bool,
}

/// What was said of tokens.
pub(super) struct Introspection {
    place: Option<Arc<Place>>,
    shards: Box<[Mutex<Shard>]>,
}

type Shard = FxHashMap<[u8; 32], Arc<Renewed<Said>>>;

/// What was said of one token.
struct Said {
    /// `None`: it is not good.
    outcome: Result<Option<Arc<Claims>>, CallError>,
    /// To be asked for anew from then on.
    until: Instant,
}

impl Introspection {
    /// Asks at `place`, if the discovery document is not to say where.
    pub(super) fn new(place: Option<Arc<Place>>) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default());
        Self {
            place,
            shards: shards.collect(),
        }
    }

    /// Where it asks, as configured.
    pub(super) fn place(&self) -> Option<&Arc<Place>> {
        self.place.as_ref()
    }

    /// What is said of `token`; `None` if it is not good.
    pub(super) async fn ask(
        &self,
        place: &Place,
        token: &str,
        headers: HeaderMap,
        identity: &Identity,
        upstreams: &dyn Upstreams,
    ) -> Result<Option<Arc<Claims>>, CallError> {
        let (key, now) = (key(token, &headers), clock::now());
        let entry = self.entry(key, now);
        let newest = entry.newest();
        if let Some(said) = newest.as_ref().filter(|said| now < said.until) {
            return said.outcome.clone();
        }
        let fetch = async {
            let (form, headers) = request(token, headers, &identity.client);
            let answer = place.post(form, headers, upstreams).await;
            let outcome = answer.and_then(|answer| match answer {
                Value::Object(claims) => Ok(claims),
                _ => Err(place.unreadable()),
            });
            let outcome = outcome.map(|claims| is_active(&claims).then_some(claims));
            let kept = |claims: &Option<Claims>| kept_for(claims.as_ref()?, identity);
            let lasts = outcome.as_ref().ok().and_then(kept).unwrap_or_default();
            Said {
                outcome: outcome.map(|claims| claims.map(Arc::new)),
                until: clock::now() + lasts,
            }
        };
        let limit = upstreams.sleep_until(now + identity.timeout * 2);
        let said = entry.renew(newest.as_ref(), limit, fetch).await;
        let said = said.ok_or_else(|| CallError::late(INTROSPECTION))?;
        if said.until <= clock::now() {
            self.forget(&key, &entry);
        }
        said.outcome.clone()
    }

    fn shard(&self, key: &[u8; 32]) -> MutexGuard<'_, Shard> {
        let shard = &self.shards[usize::from(key[0]) % self.shards.len()];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, key: [u8; 32], now: Instant) -> Arc<Renewed<Said>> {
        let mut shard = self.shard(&key);
        if let Some(entry) = shard.get(&key) {
            return Arc::clone(entry);
        }
        if shard.len() >= TOKENS_MAX {
            shard.retain(|_, entry| {
                let newest = entry.newest();
                newest.map_or_else(|| entry.is_under_way(), |said| now < said.until)
            });
        }
        if shard.len() >= TOKENS_MAX {
            // All of them are good still: any one of them can be asked for again.
            let any = shard.keys().next().copied();
            any.and_then(|key| shard.remove(&key));
        }
        Arc::clone(shard.entry(key).or_default())
    }

    /// Forgets `entry`, unless there is another one by now or somebody is asking.
    fn forget(&self, key: &[u8; 32], entry: &Arc<Renewed<Said>>) {
        let mut shard = self.shard(key);
        let is_it = shard.get(key).is_some_and(|one| Arc::ptr_eq(one, entry));
        if is_it && !entry.is_under_way() {
            shard.remove(key);
        }
    }
}

/// What an answer is kept under: the token, and what else the answer may depend on.
fn key(token: &str, headers: &HeaderMap) -> [u8; 32] {
    let mut digest = Sha256::new();
    let mut add = |part: &[u8]| {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    };
    add(token.as_bytes());
    for (name, value) in headers {
        add(name.as_str().as_bytes());
        add(value.as_bytes());
    }
    digest.finalize().into()
}

/// The form and the headers that ask about `token`.
fn request(token: &str, mut headers: HeaderMap, client: &ClientAuth) -> (String, HeaderMap) {
    let encoded = |text: &str| utf8_percent_encode(text, FORM).to_string();
    let mut form = format!("token={}", encoded(token));
    let secret = client.secret.as_deref();
    match secret {
        Some(secret) if !client.in_form => {
            // RFC 6749 §2.3.1: both are encoded as in a form first.
            let both = format!("{}:{}", encoded(&client.id), encoded(secret));
            let value = format!("Basic {}", BASE64_STANDARD.encode(both));
            // Base64 fits into a header.
            if let Ok(mut value) = HeaderValue::from_str(&value) {
                value.set_sensitive(true);
                headers.insert(header::AUTHORIZATION, value);
            }
        }
        _ => {
            form += &format!("&client_id={}", encoded(&client.id));
            if let Some(secret) = secret {
                form += &format!("&client_secret={}", encoded(secret));
            }
        }
    }
    (form, headers)
}

fn is_active(claims: &Claims) -> bool {
    claims.get("active") == Some(&Value::Bool(true))
}

/// How long `claims` are kept. `None`: nobody says how long they are good.
fn kept_for(claims: &Claims, identity: &Identity) -> Option<Duration> {
    let claim = identity.expiry_claim.as_str();
    let mut seconds = claims.get(claim)?.as_f64()?;
    // `exp` is a date (RFC 7662 §2.2); what a provider has instead of it, a number of seconds.
    if claim == "exp" {
        seconds -= clock::unix_millis() as f64 / 1000.0;
    }
    let lasts = Duration::try_from_secs_f64(seconds).ok()?.min(KEPT_MAX);
    let interval = identity.introspection_interval;
    Some(interval.map_or(lasts, |interval| lasts.min(interval)))
}

const FORM: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
const SHARDS: usize = 16;
/// Of a shard; 4,096 of a provider.
const TOKENS_MAX: usize = 256;
/// Whatever a provider says: time can be added to without overflow.
const KEPT_MAX: Duration = Duration::from_secs(86_400);
