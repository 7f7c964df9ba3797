//! Brings the vectors of examples about, once for whatever is equal, and keeps them.
//!
//! A state machine without time or network of its own: the program tells it which configuration is
//! about to be published, asks what is due, makes those calls, and reports what came of them. Vectors
//! are kept by what they depend on, so a change elsewhere in the configuration costs nothing and opens
//! no gap. A failure is not kept: it is tried again, after waits that double. The same goes for what
//! requests meet: once the endpoint has failed one of them, a batch in the background finds out when it
//! answers again, and brings vectors of the model that stands behind it then.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use pointsman_balance::{References, UnequalVectors};

use crate::{
    config::snapshot::{PoolRef, Snapshot},
    ports::Upstreams,
    semantic::{Identity, Semantic, embedder::EmbedError},
};

/// All vectors of examples. One for the program, on the control thread.
#[derive(Default)]
pub struct Keeper {
    entries: HashMap<Arc<Identity>, Entry>,
}

struct Entry {
    /// Everywhere in the configuration where these vectors are needed. Not empty.
    users: Vec<Arc<Semantic>>,
    references: Option<Arc<References>>,
    /// `None`: nothing is to be done, or it is under way.
    due: Option<Instant>,
    /// Since an endpoint last served examples or, once it has, a request.
    failures: u32,
    /// Requests have met a failure then, and none asks until a batch succeeds.
    out_since: Option<Instant>,
}

/// A batch of examples to be made into vectors.
pub struct Batch {
    semantic: Arc<Semantic>,
}

/// What came of a batch.
pub type Outcome = Result<References, BatchError>;

/// Why a batch has no vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchError {
    /// The call failed.
    Call(EmbedError),
    /// It answered, with what cannot be compared.
    Unequal(UnequalVectors),
}

impl std::fmt::Display for BatchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Call(error) => write!(f, "{error}"),
            Self::Unequal(error) => write!(f, "{error}"),
        }
    }
}

impl Batch {
    /// Asks for all vectors at once.
    pub async fn perform(&self, upstreams: &dyn Upstreams) -> Outcome {
        let examples = &self.semantic.identity.examples;
        let texts: Vec<&str> = examples.iter().flatten().map(String::as_str).collect();
        let vectors = self.semantic.embedder.embed(&texts, upstreams).await;
        let mut vectors = vectors.map_err(BatchError::Call)?.into_iter();
        let by_member: Vec<Vec<Vec<f32>>> = (examples.iter())
            .map(|examples| vectors.by_ref().take(examples.len()).collect())
            .collect();
        References::new(&by_member).map_err(BatchError::Unequal)
    }
}

impl Keeper {
    /// Takes in a configuration before it is published: what is known already is there from its first
    /// request on, and the rest is due at once. What it does not name is forgotten.
    pub fn adopt(&mut self, snapshot: &Snapshot, now: Instant) {
        let targets = snapshot.pools.values().filter_map(|pool| match pool {
            PoolRef::Ai(target) => target.semantic.as_ref(),
            PoolRef::Upstream(_) => None,
        });
        self.adopt_all(targets, now);
    }

    fn adopt_all<'a>(&mut self, all: impl Iterator<Item = &'a Arc<Semantic>>, now: Instant) {
        for entry in self.entries.values_mut() {
            entry.users.clear();
        }
        for semantic in all {
            let identity = Arc::clone(&semantic.identity);
            let entry = self.entries.entry(identity).or_insert_with(|| Entry {
                users: Vec::new(),
                references: None,
                due: Some(now),
                failures: 0,
                out_since: None,
            });
            if let Some(references) = &entry.references {
                semantic.publish(references);
            }
            if let Some(since) = entry.out_since {
                semantic.outage.begin(since, since);
            }
            entry.users.push(Arc::clone(semantic));
        }
        self.entries.retain(|_, entry| !entry.users.is_empty());
    }

    /// A batch that is due, if there is one; to be performed, and reported with
    /// [`on_outcome`](Self::on_outcome).
    pub fn poll_batch(&mut self, now: Instant) -> Option<Batch> {
        for entry in self.entries.values_mut() {
            entry.look(now);
            if entry.due.is_some_and(|due| due <= now) {
                entry.due = None;
                let semantic = Arc::clone(entry.users.first()?);
                return Some(Batch { semantic });
            }
        }
        None
    }

    /// When to ask again: something is due then, or outages have to be looked for. `None`: not before
    /// the configuration changes.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let look = |entry: &Entry| entry.due.unwrap_or(now + LOOK_INTERVAL);
        self.entries.values().map(look).min()
    }

    /// Takes in what came of a batch: publishes its vectors, or has it tried again later.
    pub fn on_outcome(&mut self, batch: &Batch, outcome: Outcome, now: Instant) {
        let address = batch.semantic.embedder.address();
        let Some(entry) = self.entries.get_mut(&batch.semantic.identity) else {
            // The configuration has lost interest in the meantime.
            return;
        };
        match outcome {
            Ok(references) => {
                let references = Arc::new(references);
                for user in &entry.users {
                    user.publish(&references);
                }
                entry.references = Some(references);
                entry.recover(now);
                tracing::info!(address, "semantic: the examples have their vectors");
            }
            Err(error) => {
                let is_first = entry.failures == 0;
                let wait = entry.next_wait();
                entry.due = Some(now + wait);
                if is_first {
                    tracing::warn!(
                        address,
                        "semantic: no vectors of the examples, the fallback is used until there are: {error}"
                    );
                } else {
                    tracing::debug!(
                        address,
                        "semantic: still no vectors; again in {wait:?}: {error}"
                    );
                }
            }
        }
    }
}

impl Entry {
    /// Looks for an outage that requests have met. All users learn of it, and the retry is arranged.
    fn look(&mut self, now: Instant) {
        if self.references.is_none() || self.out_since.is_some() {
            return;
        }
        let ages = self.users.iter().filter_map(|user| user.outage.age(now));
        let Some(age) = ages.max() else { return };
        let since = now.checked_sub(age).unwrap_or(now);
        // A batch may succeed where requests fail: only a request shows that it is over for them.
        let mut has_proof = false;
        for user in &self.users {
            user.outage.begin(since, since);
            has_proof |= user.outage.take_proof();
        }
        if has_proof {
            self.failures = 0;
        }
        self.out_since = Some(since);
        self.due = Some(since + self.next_wait());
    }

    /// Examples have their vectors. Requests may ask again.
    fn recover(&mut self, now: Instant) {
        if self.out_since.take().is_none() {
            self.failures = 0;
        }
        for user in &self.users {
            user.outage.end(now);
        }
    }

    /// How long to wait after one failure more.
    fn next_wait(&mut self) -> Duration {
        let wait = BACKOFF * (1 << self.failures.min(6));
        self.failures = self.failures.saturating_add(1);
        wait.min(BACKOFF_MAX)
    }
}

/// How often outages are looked for.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// After a first failure.
const BACKOFF: Duration = Duration::from_secs(1);
/// After many.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode, Uri};

    use super::*;
    use crate::{clock, semantic::embedder::Embedder, upstream::destination::Destination};

    fn semantic(model: &str, timeout: u64) -> Arc<Semantic> {
        let destination = Destination::new("127.0.0.1", 1, None).expect("valid");
        let embedder = Embedder::new(
            destination,
            Uri::from_static("/v1/embeddings"),
            HeaderMap::new(),
            model.to_owned(),
            Duration::from_millis(timeout),
        );
        let identity = Identity {
            place: "http://127.0.0.1:1".to_owned(),
            target: "/v1/embeddings".to_owned(),
            headers: vec![],
            model: model.to_owned(),
            examples: vec![vec!["x".to_owned()]],
        };
        let embedder = embedder.expect("one member");
        Arc::new(Semantic::new(embedder, identity, vec![0.0], 0, false))
    }

    fn vectors() -> Outcome {
        References::new(&[vec![vec![1.0]]]).map_err(BatchError::Unequal)
    }

    fn failure() -> Outcome {
        Err(BatchError::Call(EmbedError::Status(
            StatusCode::BAD_GATEWAY,
        )))
    }

    fn is_ready(semantic: &Semantic) -> bool {
        semantic.references.load().is_some()
    }

    #[test]
    fn equal_examples_are_one_batch_and_survive_a_reload() {
        let (mut keeper, now) = (Keeper::default(), clock::now());
        assert_eq!(keeper.next_deadline(now), None);
        let (one, same, other) = (semantic("m", 1), semantic("m", 2), semantic("n", 1));
        keeper.adopt_all([&one, &same, &other].into_iter(), now);
        let batches: Vec<Batch> = std::iter::from_fn(|| keeper.poll_batch(now)).collect();
        assert_eq!(batches.len(), 2);
        for batch in &batches {
            keeper.on_outcome(batch, vectors(), now);
        }
        assert!([&one, &same, &other].into_iter().all(|s| is_ready(s)));

        let (again, fresh) = (semantic("m", 3), semantic("o", 1));
        keeper.adopt_all([&again, &fresh].into_iter(), now);
        assert!(is_ready(&again), "there before it is published");
        assert!(!is_ready(&fresh));
        let batch = keeper.poll_batch(now).expect("the new one");
        assert!(keeper.poll_batch(now).is_none());
        // It goes before its answer comes.
        keeper.adopt_all([&again].into_iter(), now);
        keeper.on_outcome(&batch, vectors(), now);
        assert_eq!(keeper.entries.len(), 1);
    }

    #[test]
    fn failures_are_not_kept_but_tried_again() {
        let (mut keeper, mut now) = (Keeper::default(), clock::now());
        let one = semantic("m", 1);
        keeper.adopt_all([&one].into_iter(), now);
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            let batch = keeper.poll_batch(now).expect("due");
            assert!(keeper.poll_batch(now).is_none(), "it is under way");
            keeper.on_outcome(&batch, failure(), now);
            let due = now + Duration::from_secs(wait);
            assert_eq!(keeper.next_deadline(now), Some(due));
            assert!(keeper.poll_batch(due - Duration::from_millis(1)).is_none());
            now = due;
        }
        let batch = keeper.poll_batch(now).expect("due");
        keeper.on_outcome(&batch, vectors(), now);
        assert!(is_ready(&one));
        assert!(keeper.poll_batch(now + Duration::from_secs(3600)).is_none());
    }

    /// Of the first batch of a keeper that knows `one`; then it has its vectors.
    fn ready(one: &Arc<Semantic>, now: Instant) -> Keeper {
        let mut keeper = Keeper::default();
        keeper.adopt_all([one].into_iter(), now);
        let batch = keeper.poll_batch(now).expect("due");
        keeper.on_outcome(&batch, vectors(), now);
        keeper
    }

    /// Nobody asks while the endpoint is out, in whatever plugin or configuration, and what we have stays.
    #[test]
    fn an_outage_is_everybodys_until_a_batch_succeeds() {
        let start = clock::now();
        clock::since_start(start);
        let (one, same) = (semantic("m", 1), semantic("m", 2));
        let mut keeper = ready(&one, start);
        keeper.adopt_all([&one, &same].into_iter(), start);
        assert!(keeper.poll_batch(start).is_none());
        assert_eq!(keeper.next_deadline(start), Some(start + LOOK_INTERVAL));

        let mut now = start + Duration::from_secs(1);
        assert!(one.outage.begin(now, now));
        assert!(keeper.poll_batch(now).is_none(), "it waits");
        assert!(same.outage.is_on());
        let again = semantic("m", 3);
        keeper.adopt_all([&again].into_iter(), now);
        assert!(again.outage.is_on() && is_ready(&again));
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            let due = now + Duration::from_secs(wait);
            assert_eq!(keeper.next_deadline(now), Some(due));
            assert!(keeper.poll_batch(due - Duration::from_millis(1)).is_none());
            let batch = keeper.poll_batch(due).expect("due");
            assert!(keeper.poll_batch(due).is_none(), "it is under way");
            keeper.on_outcome(&batch, failure(), due);
            assert!(again.outage.is_on() && is_ready(&again));
            now = due;
        }
        now += Duration::from_secs(60);
        let batch = keeper.poll_batch(now).expect("due");
        keeper.on_outcome(&batch, vectors(), now);
        assert!(!again.outage.is_on());
        assert!(keeper.poll_batch(now + Duration::from_secs(3600)).is_none());
    }

    /// Batches that succeed while requests fail, as with vectors that never fit, go on ever more seldom.
    #[test]
    fn only_a_request_that_succeeds_ends_the_doubling() {
        let start = clock::now();
        clock::since_start(start);
        let one = semantic("m", 1);
        let mut keeper = ready(&one, start);
        let mut now = start + Duration::from_secs(1);
        for wait in [1, 2, 4, 8, 16, 32, 60, 60, 1, 2] {
            if wait == 1 {
                one.outage.disprove();
            }
            assert!(one.outage.begin(now, now));
            assert!(keeper.poll_batch(now).is_none());
            now += Duration::from_secs(wait);
            assert!(keeper.poll_batch(now - Duration::from_millis(1)).is_none());
            let batch = keeper.poll_batch(now).expect("due");
            keeper.on_outcome(&batch, vectors(), now);
            assert!(!one.outage.is_on());
        }
    }
}
