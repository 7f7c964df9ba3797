//! The embedded store: resources of the Admin API, in one file of this machine.
//!
//! Everything is in memory, too, and looked at there; the file is written by a thread of its own, so
//! that a slow disk holds up nobody but who waits for a write. Writes come one after the other, and
//! one that was begun is finished whoever asked for it has left.

use std::{
    cell::{Cell, Ref, RefCell},
    path::Path,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use pointsman_gateway::{
    admin_api::{
        access::KeyDigest,
        store::{Change, Contents, Store, StoreError, Stored, Turn},
    },
    clock,
    config::at_rest::AtRest,
    ports::LocalFuture,
};
use tokio::sync::{Mutex, Notify, oneshot};

use super::{
    LiveStore,
    disk::{Disk, Write},
    writer::{GONE, Order, Writer},
};

/// The store of this process.
pub(crate) struct EmbeddedStore(Rc<Shared>);

struct Shared {
    contents: RefCell<Contents>,
    /// Keys that were written or removed since somebody took these.
    touched: RefCell<Vec<String>>,
    changed: Notify,
    /// One write at a time: each goes by what the one before has left.
    turn: Arc<Mutex<()>>,
    writer: Writer,
    at_rest: Arc<AtRest>,
    /// Why the store takes nothing more.
    failure: RefCell<Option<String>>,
    /// The admin key that was made for this store, by its digest.
    admin_key: Cell<Option<[u8; 32]>>,
}

impl EmbeddedStore {
    /// The store in the file at `path`, which is made if there is none, and encrypted by `at_rest`.
    ///
    /// # Errors
    /// When the file cannot be used; it is left as it is.
    pub(crate) fn open(path: &Path, at_rest: Arc<AtRest>) -> Result<Self, String> {
        let (disk, loaded) = Disk::open(path, &at_rest)?;
        Ok(Self(Rc::new(Shared {
            contents: RefCell::new(loaded.contents),
            touched: RefCell::default(),
            changed: Notify::new(),
            turn: Arc::default(),
            writer: Writer::start(disk)?,
            at_rest,
            failure: RefCell::default(),
            admin_key: Cell::new(loaded.admin_key),
        })))
    }

    /// What the file at `path` holds, without touching it; nothing if there is none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn look(path: &Path, at_rest: &AtRest) -> Result<Contents, String> {
        let loaded = Disk::look(path, at_rest)?;
        Ok(loaded.map(|loaded| loaded.contents).unwrap_or_default())
    }
}

impl LiveStore for EmbeddedStore {
    fn take_touched(&self) -> Option<Vec<String>> {
        let touched = std::mem::take(&mut *self.0.touched.borrow_mut());
        (!touched.is_empty()).then_some(touched)
    }

    fn touched(&self) -> LocalFuture<'_, ()> {
        Box::pin(async {
            while self.0.touched.borrow().is_empty() {
                self.0.changed.notified().await;
            }
        })
    }

    fn keep(self: Rc<Self>) -> LocalFuture<'static, ()> {
        Box::pin(async move { self.keep_expiring().await })
    }

    fn admin_key(&self) -> Option<KeyDigest> {
        self.0.admin_key.get().map(KeyDigest)
    }

    fn keep_admin_key(&self, key: &KeyDigest) -> Result<(), String> {
        self.0.writer.keep_admin_key(key.0)?;
        self.0.admin_key.set(Some(key.0));
        Ok(())
    }
}

impl EmbeddedStore {
    /// Removes what has expired, as long as the program goes on.
    async fn keep_expiring(&self) {
        loop {
            let now = clock::unix_millis();
            let is_over = self.0.contents.borrow().expired(now).is_some();
            if is_over {
                let turn = self.0.turn().await;
                // Somebody may have written it anew while the turn was waited for.
                let expired = self.0.contents.borrow().expired(now);
                if let Some(change) = expired
                    && self.commit(change, turn).await.is_err()
                {
                    // Why was told; there is nothing to be gained by haste.
                    tokio::time::sleep(EXPIRY_PAUSE).await;
                }
                continue;
            }
            let next = self.0.contents.borrow().next_expiry_ms();
            // The wall clock may be set meanwhile, so it is looked at now and then.
            let left = next.map_or(EXPIRY_LOOK, |at| {
                Duration::from_millis(at.saturating_sub(now)).min(EXPIRY_LOOK)
            });
            tokio::time::sleep(left).await;
        }
    }
}

impl Store for EmbeddedStore {
    fn at_rest(&self) -> Option<&AtRest> {
        Some(&self.0.at_rest)
    }

    fn contents(&self) -> Ref<'_, Contents> {
        self.0.contents.borrow()
    }

    fn turn(&self) -> LocalFuture<'_, Result<Turn, StoreError>> {
        Box::pin(async { Ok(self.0.turn().await) })
    }

    fn commit(&self, change: Change, turn: Turn) -> LocalFuture<'_, Result<(), StoreError>> {
        let shared = Rc::clone(&self.0);
        // Whoever asked may leave; what has been begun is shown all the same, and the next one waits for it.
        let task = tokio::task::spawn_local(async move {
            let done = shared.commit(change).await;
            drop(turn);
            done
        });
        Box::pin(async move {
            task.await
                .unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
        })
    }
}

impl Shared {
    async fn turn(&self) -> Turn {
        Turn::new(Arc::clone(&self.turn).lock_owned().await)
    }

    async fn commit(&self, change: Change) -> Result<(), StoreError> {
        if let Some(failure) = &*self.failure.borrow() {
            return Err(StoreError::Unavailable(failure.clone()));
        }
        let write = {
            let contents = self.contents.borrow();
            if !contents.allows(&change) {
                return Err(StoreError::Overtaken);
            }
            let written = contents.written(&change);
            let put: Vec<(String, Stored)> =
                written.map(|(key, one)| (key.to_owned(), one)).collect();
            Write {
                revision: contents.revision() + 1,
                put,
                delete: change.delete.clone(),
            }
        };
        let (answer, answered) = oneshot::channel();
        self.writer.send(Order::Write(write, answer));
        let written = answered.await.unwrap_or_else(|_| Err(GONE.to_owned()));
        if let Err(error) = written {
            let failure = format!(
                "the store takes no changes any more, traffic goes on: {error}; set that right and \
                 start the gateway again"
            );
            tracing::error!("{failure}");
            // Nobody knows what of it is on the disk: the next start will see.
            *self.failure.borrow_mut() = Some(failure.clone());
            return Err(StoreError::Unavailable(failure));
        }
        self.contents.borrow_mut().apply(&change);
        let mut touched = self.touched.borrow_mut();
        touched.extend(change.delete);
        touched.extend(change.put.into_iter().map(|put| put.key));
        self.changed.notify_one();
        Ok(())
    }
}

const EXPIRY_PAUSE: Duration = Duration::from_secs(10);
/// How late at most something new is noticed to expire.
const EXPIRY_LOOK: Duration = Duration::from_millis(500);
