//! The resources of a store, as a document.
//!
//! What a change leaves alone is not read anew. Changes that come while a configuration is made are
//! taken together: half of the time at most is spent on making them.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use pointsman_gateway::{
    admin_api::store::Contents,
    clock,
    config::{
        document::{Parsed, item::ItemReader},
        items::Items,
    },
    ports::LocalFuture,
};

use super::{ConfigSource, Reading, SourceError};
use crate::store::LiveStore;

/// A store that changes.
pub(crate) struct StoreSource {
    name: String,
    store: Rc<dyn LiveStore>,
    items: Items,
    is_read: bool,
    is_missed: bool,
    began: Option<Instant>,
}

/// What a store held when it was looked at.
pub(crate) struct StoreLook {
    name: String,
    contents: Option<Contents>,
}

impl StoreSource {
    /// The source that `store` is, called `name`.
    pub(crate) fn new(name: String, store: Rc<dyn LiveStore>) -> Self {
        Self {
            name,
            store,
            items: Items::default(),
            is_read: false,
            is_missed: false,
            began: None,
        }
    }
}

impl ConfigSource for StoreSource {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn read(&mut self, reading: &Reading<'_>) -> Result<Option<Parsed>, SourceError> {
        if let Some(why) = self.store.missing() {
            // That is told once; then it is waited for.
            if std::mem::replace(&mut self.is_missed, true) {
                return Ok(None);
            }
            return Err(SourceError::Unfinished(format!(
                "{}: nothing is known of it, so there is no route: {why}",
                self.name
            )));
        }
        let touched = self.store.take_touched();
        if self.is_read && touched.is_none() {
            return Ok(None);
        }
        self.began = Some(clock::now());
        let contents = self.store.contents();
        if !self.is_read {
            enter_all(&mut self.items, &contents, reading);
            self.is_read = true;
            return Ok(Some(self.items.document()));
        }
        for key in touched.into_iter().flatten() {
            match contents.get(&key) {
                Some(stored) => enter(&mut self.items, &key, stored, reading),
                None => self.items.remove(&key),
            }
        }
        Ok(Some(self.items.document()))
    }

    fn watch(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn changed(&mut self) -> LocalFuture<'_, ()> {
        let took = self.began.take().map(|began| clock::now() - began);
        Box::pin(async move {
            self.store.touched().await;
            let pause = took.unwrap_or_default().min(PAUSE_MAX);
            tokio::time::sleep(pause).await;
        })
    }

    fn is_piecemeal(&self) -> bool {
        true
    }
}

impl StoreLook {
    /// The `contents` of the store called `name`.
    pub(crate) fn new(name: String, contents: Contents) -> Self {
        Self {
            name,
            contents: Some(contents),
        }
    }
}

impl ConfigSource for StoreLook {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn read(&mut self, reading: &Reading<'_>) -> Result<Option<Parsed>, SourceError> {
        let Some(contents) = self.contents.take() else {
            return Ok(None);
        };
        let mut items = Items::default();
        enter_all(&mut items, &contents, reading);
        Ok(Some(items.document()))
    }

    fn watch(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn changed(&mut self) -> LocalFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}

fn enter_all(items: &mut Items, contents: &Contents, reading: &Reading<'_>) {
    for (key, stored) in contents.under("/") {
        enter(items, key, stored, reading);
    }
}

fn enter(
    items: &mut Items,
    key: &str,
    stored: &pointsman_gateway::admin_api::store::Stored,
    reading: &Reading<'_>,
) {
    let reader = ItemReader {
        catalog: reading.catalog,
        env: reading.env,
    };
    // What is no JSON is a resource without members, and told as one.
    let value = serde_json::from_str(&stored.text).unwrap_or_default();
    items.put(key, stored.created, value, &reader);
}

const PAUSE_MAX: Duration = Duration::from_secs(1);
