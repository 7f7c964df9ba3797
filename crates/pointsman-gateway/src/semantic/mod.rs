//! Balancing by meaning: what the user asks is compared with examples of what each instance is for.
//!
//! There are two kinds of vectors. Those of the examples are made once for a configuration, off the
//! path of requests, and published to all workers ([`keeper`]). That of a request is made by its
//! worker, with one call to the embeddings endpoint ([`embedder`]). Until the former are there, and
//! whenever the latter cannot be had, the fallback instance comes first: nothing that goes wrong here
//! is an error to the client. Health is not looked at here; the pool does that when it picks from the
//! order that comes out.

pub mod embedder;
pub mod keeper;
mod outage;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use pointsman_balance::{Ranking, References, rank};

use crate::{
    clock,
    ports::Upstreams,
    semantic::{
        embedder::{EmbedError, Embedder},
        outage::Outage,
    },
};

/// `semantic` at one place in the configuration.
pub struct Semantic {
    /// Makes vectors.
    pub embedder: Embedder,
    /// What the vectors of the examples depend on.
    pub identity: Arc<Identity>,
    /// By member, the similarity from which on it suits.
    pub thresholds: Vec<f32>,
    /// The member for everything that resembles no example.
    pub fallback: usize,
    /// Show scores in response headers.
    pub debugging: bool,
    references: ArcSwapOption<References>,
    outage: Outage,
}

/// What vectors of examples depend on: equal identities have equal vectors, whichever plugin they
/// are in. Holds credentials, so it has no `Debug`.
#[derive(PartialEq, Eq, Hash)]
pub struct Identity {
    /// Scheme, host, port and TLS verification.
    pub place: String,
    /// Path and query, `auth.query` included.
    pub target: String,
    /// `auth.header`.
    pub headers: Vec<(String, String)>,
    /// The model.
    pub model: String,
    /// By member.
    pub examples: Vec<Vec<String>>,
}

/// Whom a request may go to, and why.
#[derive(Debug)]
pub struct Ranked {
    /// All members, the best first.
    pub ranking: Ranking,
    /// By member; or why there are no scores.
    pub scores: Result<Vec<f32>, Unscored>,
}

/// Why a request has no scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unscored {
    /// The vectors of the examples have not been made yet.
    NotReady,
    /// The request has no text of a user.
    NoText,
    /// The vector of the text could not be had.
    Failed(EmbedError),
    /// It has another number of components than those of the examples.
    Dimensions,
    /// An earlier request had none, and nobody has since.
    Outage,
}

impl std::fmt::Display for Unscored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotReady => f.write_str("the examples have no vectors yet"),
            Self::NoText => f.write_str("no text of a user"),
            Self::Failed(error) => write!(f, "{error}"),
            Self::Dimensions => f.write_str("the vector has another number of components"),
            Self::Outage => {
                f.write_str("the embeddings endpoint has failed and is not asked for now")
            }
        }
    }
}

impl Unscored {
    /// Whether it says something about this request alone, and others may fare better.
    fn is_of_request(self) -> bool {
        match self {
            Self::NoText => true,
            Self::Failed(error) => error.is_of_text(),
            Self::NotReady | Self::Dimensions | Self::Outage => false,
        }
    }
}

impl Semantic {
    /// Without vectors of the examples, which a [`keeper::Keeper`] brings.
    pub fn new(
        embedder: Embedder,
        identity: Identity,
        thresholds: Vec<f32>,
        fallback: usize,
        debugging: bool,
    ) -> Self {
        Self {
            embedder,
            identity: Arc::new(identity),
            thresholds,
            fallback,
            debugging,
            references: ArcSwapOption::empty(),
            outage: Outage::default(),
        }
    }

    /// Ranks the members for `text`, the user's. Never fails: what cannot be scored goes to the
    /// fallback first.
    pub async fn rank(&self, text: Option<String>, upstreams: &dyn Upstreams) -> Ranked {
        match self.score(text, upstreams).await {
            Ok(scores) => Ranked {
                ranking: rank(&scores, &self.thresholds, self.fallback),
                scores: Ok(scores),
            },
            Err(why) => Ranked {
                ranking: self.unscored(),
                scores: Err(why),
            },
        }
    }

    async fn score(
        &self,
        text: Option<String>,
        upstreams: &dyn Upstreams,
    ) -> Result<Vec<f32>, Unscored> {
        let references = self.references.load_full().ok_or(Unscored::NotReady)?;
        let text = text.ok_or(Unscored::NoText)?;
        if self.outage.is_on() {
            return Err(Unscored::Outage);
        }
        let began = clock::now();
        let vectors = self.embedder.embed(&[&text], upstreams).await;
        let vectors = vectors.map_err(Unscored::Failed);
        let scores = vectors.and_then(|vectors| {
            let scores = vectors.first().and_then(|query| references.scores(query));
            // Another model must stand behind the endpoint by now.
            scores.ok_or(Unscored::Dimensions)
        });
        match scores {
            Ok(_) => self.outage.disprove(),
            Err(why) if why.is_of_request() => {
                let address = self.embedder.address();
                tracing::info!(address, "semantic: the fallback is used: {why}");
            }
            Err(why) if self.outage.begin(began, clock::now()) => {
                let address = self.embedder.address();
                tracing::warn!(
                    address,
                    "semantic: the fallback is used until the embeddings endpoint answers again: {why}"
                );
            }
            Err(_) => {}
        }
        scores
    }

    /// The fallback, then the others as they are written.
    fn unscored(&self) -> Ranking {
        let others = (0..self.thresholds.len()).filter(|&member| member != self.fallback);
        Ranking {
            order: std::iter::once(self.fallback).chain(others).collect(),
            cleared: 0,
        }
    }

    fn publish(&self, references: &Arc<References>) {
        self.references.store(Some(Arc::clone(references)));
    }
}
