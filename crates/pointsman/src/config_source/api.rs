//! The document that the standalone Admin API was given last; nothing before.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use pointsman_gateway::{
    admin_api::standalone::Held, config::document::Parsed, ports::LocalFuture,
};
use tokio::sync::Notify;

use super::{ConfigSource, Reading, SourceError};

/// What is held, and that it has changed.
#[derive(Default)]
pub(crate) struct HeldDocument {
    held: RefCell<Held>,
    changed: Notify,
}

/// A document that is replaced over the Admin API.
pub(crate) struct ApiSource {
    document: Rc<HeldDocument>,
    /// The number of the document that was read last.
    read: Cell<Option<u64>>,
}

impl HeldDocument {
    /// Lets `change` look at what is held, and replace it.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Held) -> T) -> T {
        let before = self.held.borrow().count();
        let outcome = change(&mut self.held.borrow_mut());
        if self.held.borrow().count() != before {
            self.changed.notify_one();
        }
        outcome
    }
}

impl ApiSource {
    /// The source that `document` is.
    pub(crate) fn new(document: Rc<HeldDocument>) -> Self {
        Self {
            document,
            read: Cell::new(None),
        }
    }
}

impl ConfigSource for ApiSource {
    fn name(&self) -> String {
        "the Admin API".to_owned()
    }

    fn read(&mut self, reading: &Reading<'_>) -> Result<Option<Parsed>, SourceError> {
        let held = self.document.held.borrow();
        let count = held.count();
        if self.read.replace(Some(count)) == Some(count) {
            return Ok(None);
        }
        Ok(Some(held.document(reading.env, reading.catalog)))
    }

    fn watch(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn changed(&mut self) -> LocalFuture<'_, ()> {
        Box::pin(async {
            while self.read.get() == Some(self.document.held.borrow().count()) {
                self.document.changed.notified().await;
            }
        })
    }
}
