//! What etcd holds, as far as this gateway knows: all resources under its prefix, by the events of a watch.
//!
//! Keys that are no resources (placeholders of directories, what APISIX's data planes report of themselves)
//! are remembered only so that one can count: a mirror that has as many keys as etcd, with none written
//! since, is equal to it.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use pointsman_gateway::{
    admin_api::store::{Contents, Stored},
    config::{at_rest::AtRest, collection::Collection},
};

use super::wire::{Event, Header, KeyValue};

/// The resources under a prefix.
pub(super) struct Mirror {
    /// With a slash at its end.
    prefix: String,
    contents: Contents,
    at_rest: Arc<AtRest>,
    /// Keys that are there and mean nothing to us.
    others: HashSet<Vec<u8>>,
    /// Which etcd it mirrors; `None` as long as it was only read from the disk.
    cluster: Option<u64>,
}

impl Mirror {
    /// One that begins with `contents`, of an earlier process. What etcd has encrypted, `at_rest` decrypts.
    pub(super) fn new(prefix: &str, contents: Contents, at_rest: Arc<AtRest>) -> Self {
        Self {
            prefix: format!("{prefix}/"),
            contents,
            at_rest,
            others: HashSet::new(),
            cluster: None,
        }
    }

    /// Its resources, by keys without the prefix.
    pub(super) fn contents(&self) -> &Contents {
        &self.contents
    }

    /// The prefix of all keys, with a slash at its end.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether it came from etcd, in this process.
    pub(super) fn is_loaded(&self) -> bool {
        self.cluster.is_some()
    }

    /// Whether one can go on from it with that etcd, and need not read everything anew: it has not been
    /// replaced by another, nor set back.
    pub(super) fn is_of(&self, head: Header) -> bool {
        self.cluster == Some(head.cluster_id) && self.contents.revision() <= head.revision
    }

    /// How many keys there are under the prefix.
    pub(super) fn count(&self) -> u64 {
        (self.contents.len() + self.others.len()) as u64
    }

    /// Everything up to `revision` is shown, as a comparison has found.
    pub(super) fn reach(&mut self, revision: u64) {
        if self.contents.revision() < revision {
            self.contents.reach(revision);
        }
    }

    /// Takes in `events`, which belong together; returns the keys that they touched.
    pub(super) fn apply(&mut self, events: Vec<Event>) -> Vec<String> {
        let seen = self.contents.revision();
        let mut last = seen;
        let mut touched = BTreeSet::new();
        for event in events {
            let revision = event.kv.mod_revision;
            // Told twice, or made up for by a comparison.
            if revision <= seen {
                continue;
            }
            last = last.max(revision);
            let is_delete = event.is_delete();
            match self.key_of(&event.kv.key) {
                Some(key) => {
                    let stored = (!is_delete).then(|| self.stored(&key, &event.kv));
                    self.contents.set(&key, stored);
                    touched.insert(key);
                }
                None if is_delete => {
                    self.others.remove(&event.kv.key);
                }
                None => {
                    self.others.insert(event.kv.key);
                }
            }
        }
        self.contents.reach(last);
        touched.into_iter().collect()
    }

    /// Becomes `all`, everything that was there at the revision that `head` names; returns the keys that
    /// differ from before.
    pub(super) fn replace(&mut self, head: Header, all: Vec<KeyValue>) -> Vec<String> {
        let mut items = BTreeMap::new();
        self.others.clear();
        for entry in all {
            match self.key_of(&entry.key) {
                Some(key) => {
                    let stored = self.stored(&key, &entry);
                    items.insert(key, stored);
                }
                None => {
                    self.others.insert(entry.key);
                }
            }
        }
        let before = std::mem::take(&mut self.contents);
        let gone = before
            .under("/")
            .filter(|(key, _)| !items.contains_key(*key));
        let mut touched: Vec<String> = gone.map(|(key, _)| key.to_owned()).collect();
        // A revision means something only within one etcd, so texts are compared.
        let differs = |(key, now): &(&String, &Stored)| before.get(key) != Some(*now);
        touched.extend(items.iter().filter(differs).map(|(key, _)| key.clone()));
        self.contents = Contents::restored(head.revision, items);
        self.cluster = Some(head.cluster_id);
        touched
    }

    /// The key of a resource, without the prefix.
    fn key_of(&self, key: &[u8]) -> Option<String> {
        let key = std::str::from_utf8(key).ok()?;
        let key = key.strip_prefix(self.prefix.trim_end_matches('/'))?;
        let (collection, id) = Collection::of_key(key)?;
        let is_whole = !id.is_empty() && !id.ends_with('/');
        // In etcd they are below their consumer only.
        (is_whole && collection.key(id) == key).then(|| key.to_owned())
    }

    fn stored(&self, key: &str, entry: &KeyValue) -> Stored {
        // What is no text is no JSON either, and told as that.
        let text: Arc<str> = String::from_utf8_lossy(&entry.value).into();
        Stored {
            text: self.at_rest.opened(key, &text),
            created: entry.create_revision,
            modified: entry.mod_revision,
            // etcd sees to that.
            expires_ms: None,
        }
    }

    /// The revision that wrote last in each collection.
    pub(super) fn newest(&self) -> BTreeMap<&'static str, u64> {
        let mut newest = BTreeMap::new();
        for (key, stored) in self.contents.under("/") {
            if let Some((collection, _)) = Collection::of_key(key) {
                // As APISIX has it: credentials are among the consumers.
                let collection = match collection {
                    Collection::Credentials => Collection::Consumers,
                    other => other,
                };
                let last: &mut u64 = newest.entry(collection.name()).or_default();
                *last = (*last).max(stored.modified);
            }
        }
        newest
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(key: &str, value: &str, created: u64, modified: u64) -> KeyValue {
        KeyValue {
            key: key.as_bytes().to_vec(),
            value: value.as_bytes().to_vec(),
            create_revision: created,
            mod_revision: modified,
        }
    }

    fn head(revision: u64) -> Header {
        Header {
            cluster_id: 7,
            revision,
        }
    }

    fn event(kind: &str, key: &str, revision: u64) -> Event {
        let key = super::super::wire::text(key.as_bytes());
        let revision = revision.to_string();
        let kv = json!({ "key": key, "mod_revision": revision, "create_revision": revision });
        serde_json::from_value(json!({ "type": kind, "kv": kv })).expect("an event")
    }

    fn loaded() -> Mirror {
        let mut mirror = Mirror::new("/apisix", Contents::default(), Arc::default());
        let all = vec![
            entry("/apisix/routes/", "init_dir", 1, 1),
            entry("/apisix/routes/1", "{}", 2, 2),
            entry("/apisix/consumers/a/credentials/b", "{}", 3, 3),
            entry("/apisix/data_plane/server_info/x", "{}", 4, 4),
            entry("/apisix/gen_id", "1", 5, 5),
        ];
        let touched = mirror.replace(head(5), all);
        assert_eq!(touched, ["/consumers/a/credentials/b", "/routes/1"]);
        mirror
    }

    #[test]
    fn what_is_no_resource_is_only_counted() {
        let mut mirror = loaded();
        assert_eq!((mirror.contents().len(), mirror.count()), (2, 5));
        let touched = mirror.apply(vec![
            event("PUT", "/apisix/gen_id", 6),
            event("DELETE", "/apisix/data_plane/server_info/x", 7),
            event("DELETE", "/apisix/routes/", 8),
        ]);
        assert!(touched.is_empty(), "{touched:?}");
        assert_eq!((mirror.count(), mirror.contents().revision()), (3, 8));
    }

    #[test]
    fn events_count_once() {
        let mut mirror = loaded();
        let touched = mirror.apply(vec![
            event("PUT", "/apisix/routes/2", 6),
            event("DELETE", "/apisix/routes/1", 7),
            event("PUT", "/apisix/routes/2", 7),
        ]);
        assert_eq!(touched, ["/routes/1", "/routes/2"]);
        assert_eq!(mirror.contents().revision(), 7);
        assert!(mirror.contents().get("/routes/1").is_none());
        // A watch that is begun anew may tell what is known.
        let touched = mirror.apply(vec![event("DELETE", "/apisix/routes/2", 6)]);
        assert!(touched.is_empty(), "{touched:?}");
        assert_eq!(mirror.contents().revision(), 7);
    }

    #[test]
    fn a_full_load_touches_what_differs() {
        let mut mirror = loaded();
        let all = vec![
            entry("/apisix/routes/1", "{}", 2, 2),
            entry("/apisix/routes/3", "{}", 9, 9),
        ];
        let touched = mirror.replace(head(9), all);
        assert_eq!(touched, ["/consumers/a/credentials/b", "/routes/3"]);
        assert_eq!((mirror.count(), mirror.contents().revision()), (2, 9));
    }

    #[test]
    fn another_etcd_is_noticed() {
        let mirror = loaded();
        assert!(mirror.is_of(head(5)) && mirror.is_of(head(6)));
        assert!(!mirror.is_of(head(4)), "it was set back");
        let other = Header {
            cluster_id: 8,
            revision: 5,
        };
        assert!(!mirror.is_of(other));
        let kept = Mirror::new("/apisix", Contents::default(), Arc::default());
        assert!(!kept.is_of(head(5)), "it was never read");
    }
}
