//! Where the resources of the Admin API are kept.
//!
//! Whoever writes them and whoever makes configuration of them sees one trait, and neither where they are:
//! in a file of this machine, or somewhere that several gateways share.

mod disk;
mod embedded;
mod etcd;
mod writer;

use std::rc::Rc;

use pointsman_gateway::{
    admin_api::{
        access::KeyDigest,
        store::{Reach, Store},
    },
    ports::LocalFuture,
};

pub(crate) use self::{embedded::EmbeddedStore, etcd::EtcdStore};

/// A store that is served. All handles on it are on the control thread.
pub(crate) trait LiveStore: Store {
    /// The keys that have changed since this was asked last; `None` if nothing has.
    fn take_touched(&self) -> Option<Vec<String>>;

    /// Ends when [`LiveStore::take_touched`] has something. May be given up at any time.
    fn touched(&self) -> LocalFuture<'_, ()>;

    /// Why nothing is known of what it holds, if so.
    fn missing(&self) -> Option<String> {
        None
    }

    /// How it stands with it, if it is elsewhere.
    fn reach(&self) -> Option<Reach> {
        None
    }

    /// Does what has to be done for it, as long as the program goes on.
    fn keep(self: Rc<Self>) -> LocalFuture<'static, ()>;

    /// The admin key that was made for this store, if one was.
    fn admin_key(&self) -> Option<KeyDigest>;

    /// Keeps an admin key for the next start. Waits for the disk: for the start only.
    fn keep_admin_key(&self, key: &KeyDigest) -> Result<(), String>;
}
