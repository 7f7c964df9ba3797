//! The last snapshot of etcd, on this machine's disk: what a gateway starts with when etcd is down.
//!
//! It is a file like that of the embedded store. Nobody waits for it: what changes while it is written is
//! written next. A gateway that cannot write it goes on without.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use pointsman_gateway::{
    admin_api::{access::KeyDigest, store::Contents},
    config::at_rest::AtRest,
};

use crate::store::{
    disk::{Disk, Write},
    writer::{Order, Writer},
};
use tokio::sync::{Notify, oneshot};

/// The file.
pub(super) struct Kept {
    path: PathBuf,
    writer: Writer,
    /// What differs from the file, by key, unless everything may.
    pending: RefCell<BTreeSet<String>>,
    changed: Notify,
    admin_key: Cell<Option<[u8; 32]>>,
}

impl Kept {
    /// The file at `path`, which is made if there is none, and what it holds of `prefix`.
    ///
    /// # Errors
    /// When it cannot be used; it is left as it is.
    pub(super) fn open(
        path: &Path,
        prefix: &str,
        at_rest: &Arc<AtRest>,
    ) -> Result<(Self, Contents), String> {
        let (disk, loaded) = Disk::open(path, at_rest)?;
        let is_ours = loaded.origin.as_deref() == Some(prefix);
        if !is_ours {
            if !loaded.contents.is_empty() {
                return Err(format!(
                    "{} holds something else than what is under {prefix} in etcd, and was left as it \
                     is: let `pointsman.store_file` name another file, or remove it",
                    path.display()
                ));
            }
            let kept = disk.keep_origin(prefix);
            kept.map_err(|error| format!("{}: {error}", path.display()))?;
        }
        let kept = Self {
            path: path.to_owned(),
            writer: Writer::start(disk)?,
            pending: RefCell::default(),
            changed: Notify::new(),
            admin_key: Cell::new(loaded.admin_key),
        };
        Ok((kept, loaded.contents))
    }

    /// How logs name it.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// `keys` are to be written as they are now.
    pub(super) fn note(&self, keys: &[String]) {
        if !keys.is_empty() {
            self.pending.borrow_mut().extend(keys.iter().cloned());
            self.changed.notify_one();
        }
    }

    /// Writes what was noted, as `look` shows it, as long as the program goes on.
    pub(super) async fn write(&self, look: impl Fn(&mut dyn FnMut(&Contents))) {
        let mut is_failing = false;
        loop {
            while self.pending.borrow().is_empty() {
                self.changed.notified().await;
            }
            let keys = self.pending.take();
            let mut write = None;
            look(&mut |contents| write = Some(changes(contents, &keys)));
            let Some(write) = write else { continue };
            let (answer, answered) = oneshot::channel();
            self.writer.send(Order::Write(write, answer));
            let written = answered
                .await
                .unwrap_or_else(|_| Err("its thread has ended".to_owned()));
            match written {
                Ok(()) => is_failing = false,
                Err(error) => {
                    if !std::mem::replace(&mut is_failing, true) {
                        tracing::error!(
                            "{}: what etcd holds cannot be kept for the next start: {error}",
                            self.path.display()
                        );
                    }
                    self.pending.borrow_mut().extend(keys);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// The admin key that was made for this gateway, if one was.
    pub(super) fn admin_key(&self) -> Option<KeyDigest> {
        self.admin_key.get().map(KeyDigest)
    }

    /// Keeps an admin key. Waits for the disk.
    pub(super) fn keep_admin_key(&self, key: &KeyDigest) -> Result<(), String> {
        self.writer.keep_admin_key(key.0)?;
        self.admin_key.set(Some(key.0));
        Ok(())
    }
}

/// What `keys` are now.
fn changes(contents: &Contents, keys: &BTreeSet<String>) -> Write {
    let mut write = Write {
        revision: contents.revision(),
        put: Vec::new(),
        delete: Vec::new(),
    };
    for key in keys {
        match contents.get(key) {
            Some(stored) => write.put.push((key.clone(), stored.clone())),
            None => write.delete.push(key.clone()),
        }
    }
    write
}

/// After a write that failed.
const PAUSE: std::time::Duration = std::time::Duration::from_secs(10);
