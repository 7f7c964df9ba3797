//! What the Admin API needs of a store.
//!
//! A store keeps texts under keys and counts its changes, as etcd does: the count at which a text was
//! first and last written are its `createdIndex` and `modifiedIndex`. A change says what it goes by;
//! if that no longer holds, nothing of it is done.

use std::{any::Any, cell::Ref, collections::BTreeMap, ops::Bound, sync::Arc};

use crate::{config::at_rest::AtRest, ports::LocalFuture};

/// A stored resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// It, as JSON.
    pub text: Arc<str>,
    /// The revision that created it.
    pub created: u64,
    /// The revision that wrote it last.
    pub modified: u64,
    /// When it goes away by itself, in milliseconds since the Unix epoch.
    pub expires_ms: Option<u64>,
}

/// Everything that a store holds.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    revision: u64,
    items: BTreeMap<String, Stored>,
}

/// Something to be written, and what that goes by.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// What must be so, by key.
    pub expect: Vec<(String, Expect)>,
    /// How keys begin none of which may have been written after that revision.
    pub quiet: Vec<(String, u64)>,
    /// What is written.
    pub put: Vec<Put>,
    /// The keys that are removed.
    pub delete: Vec<String>,
}

/// What a change goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// There is nothing under the key.
    Absent,
    /// It was last written at that revision.
    Modified(u64),
}

/// One resource to be written.
#[derive(Clone, Debug)]
pub struct Put {
    /// Its key.
    pub key: String,
    /// It, as JSON.
    pub text: Arc<str>,
    /// When it goes away by itself, in milliseconds since the Unix epoch.
    pub expires_ms: Option<u64>,
}

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Somebody else has changed what it goes by.
    #[error("the resource was changed by somebody else meanwhile")]
    Overtaken,
    /// The store does not work.
    #[error("{0}")]
    Unavailable(String),
}

/// How it stands with a store that is elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Why it cannot be reached; `None` if it can.
    pub trouble: Option<String>,
    /// Everything up to there is known.
    pub revision: u64,
    /// The revision that wrote last, by collection.
    pub newest: BTreeMap<&'static str, u64>,
}

/// Somebody's turn to change a store; it ends when this is dropped.
pub struct Turn {
    _held: Box<dyn Any>,
}

impl Turn {
    /// One that `held` stands for.
    pub fn new(held: impl Any) -> Self {
        Self {
            _held: Box::new(held),
        }
    }
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turn").finish_non_exhaustive()
    }
}

/// A store of resources, as the Admin API sees it.
pub trait Store {
    /// What stands before keys where they are shown.
    fn prefix(&self) -> &str {
        DEFAULT_PREFIX
    }

    /// What encrypts it; `None` if nothing does.
    fn at_rest(&self) -> Option<&AtRest> {
        None
    }

    /// What it holds, as far as is known here. Never goes back: whoever saw a change sees it from then on.
    fn contents(&self) -> Ref<'_, Contents>;

    /// Ends when [`Store::contents`] shows everything that was acknowledged, to whomever, before this was called.
    fn fresh(&self) -> LocalFuture<'_, Result<(), StoreError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// The right to plan and make the next change; contents are fresh then. Whoever plans has it, so that what a
    /// plan went by still holds when it is carried out: also what it did not name, such as that nobody refers to
    /// what goes.
    fn turn(&self) -> LocalFuture<'_, Result<Turn, StoreError>>;

    /// Makes a change durable, as a whole or not at all. When it is, [`Store::contents`] shows it, and the turn
    /// is over.
    fn commit(&self, change: Change, turn: Turn) -> LocalFuture<'_, Result<(), StoreError>>;
}

impl Contents {
    /// Those that were read from where a store keeps them.
    pub fn restored(revision: u64, items: BTreeMap<String, Stored>) -> Self {
        Self { revision, items }
    }

    /// The number of the last change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How many resources there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Shows what others have done: `stored` is under `key` now, or nothing is.
    pub fn set(&mut self, key: &str, stored: Option<Stored>) {
        match stored {
            Some(stored) => {
                self.items.insert(key.to_owned(), stored);
            }
            None => {
                self.items.remove(key);
            }
        }
    }

    /// Everything up to `revision` is shown.
    pub fn reach(&mut self, revision: u64) {
        self.revision = revision;
    }

    /// The resource under `key`.
    pub fn get(&self, key: &str) -> Option<&Stored> {
        self.items.get(key)
    }

    /// All resources whose key begins with `prefix`, by key.
    pub fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Stored)> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        self.items
            .range::<str, _>(from)
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, stored)| (key.as_str(), stored))
    }

    /// When the next resource goes away by itself.
    pub fn next_expiry_ms(&self) -> Option<u64> {
        self.items.values().filter_map(|one| one.expires_ms).min()
    }

    /// The change that removes what has expired by `now_ms`, if anything has; of a consumer, its credentials, too.
    pub fn expired(&self, now_ms: u64) -> Option<Change> {
        let gone = |stored: &Stored| stored.expires_ms.is_some_and(|at| at <= now_ms);
        let expired = self.items.iter().filter(|(_, stored)| gone(stored));
        let mut delete: Vec<String> = Vec::new();
        for (key, _) in expired {
            let below = format!("{key}/credentials/");
            let credentials = self.under(&below).map(|(key, _)| key.to_owned());
            delete.push(key.clone());
            delete.extend(credentials);
        }
        (!delete.is_empty()).then(|| Change {
            delete,
            ..Change::default()
        })
    }

    /// Whether `change` may be made.
    pub fn allows(&self, change: &Change) -> bool {
        let is_quiet = |(prefix, since): &(String, u64)| {
            let mut below = self.under(prefix);
            below.all(|(_, stored)| stored.modified <= *since)
        };
        change.quiet.iter().all(is_quiet)
            && change.expect.iter().all(|(key, expect)| {
                let modified = self.items.get(key).map(|stored| stored.modified);
                match expect {
                    Expect::Absent => modified.is_none(),
                    Expect::Modified(revision) => modified == Some(*revision),
                }
            })
    }

    /// The resources that `change` would write, as they would be stored: by the next revision.
    pub fn written<'a>(&'a self, change: &'a Change) -> impl Iterator<Item = (&'a str, Stored)> {
        let revision = self.revision + 1;
        change.put.iter().map(move |put| {
            let before = self.items.get(&put.key);
            let stored = Stored {
                text: Arc::clone(&put.text),
                created: before.map_or(revision, |before| before.created),
                modified: revision,
                expires_ms: put.expires_ms,
            };
            (put.key.as_str(), stored)
        })
    }

    /// Shows `change`, which has been made; what is removed goes first.
    pub fn apply(&mut self, change: &Change) {
        let written: Vec<_> = self
            .written(change)
            .map(|(key, stored)| (key.to_owned(), stored))
            .collect();
        for key in &change.delete {
            self.items.remove(key);
        }
        self.items.extend(written);
        self.revision += 1;
    }
}

/// What stands before keys, as in APISIX, unless a store has another prefix.
pub const DEFAULT_PREFIX: &str = "/apisix";
