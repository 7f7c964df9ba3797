//! Resources that come one by one, as a store has them.
//!
//! Each is read once, when it is written; what a change leaves alone is neither read nor checked
//! anew. They stand in the order in which they were created, as the Admin API lists them and as a
//! file would have them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde_json::Value;

use crate::config::{
    collection::Collection,
    document::{
        Document, Item, Parsed,
        item::{Found, ItemReader},
    },
    problem::{Problem, Report, Severity, Spot},
    resource::{
        consumer::{Consumer, Credential, PluginSet},
        route::Route,
        secret::Secret,
        service::Service,
        ssl::Ssl,
        upstream::Upstream,
    },
    text::Lines,
};

/// All resources of a store, read.
#[derive(Default)]
pub struct Items {
    routes: Register<Route>,
    services: Register<Service>,
    upstreams: Register<Upstream>,
    consumers: Register<Consumer>,
    credentials: Register<Credential>,
    consumer_groups: Register<PluginSet>,
    plugin_configs: Register<PluginSet>,
    global_rules: Register<PluginSet>,
    ssls: Register<Ssl>,
    secrets: Register<Secret>,
    metadata: HashMap<String, Value>,
    /// What is wrong with resources, by key.
    problems: BTreeMap<String, Vec<Problem>>,
}

/// Resources of one kind.
struct Register<T> {
    /// In the order in which they were created; those of one moment by id.
    items: BTreeMap<(u64, String), Arc<Item<T>>>,
    created: HashMap<String, u64>,
}

impl<T> Default for Register<T> {
    fn default() -> Self {
        Self {
            items: BTreeMap::new(),
            created: HashMap::new(),
        }
    }
}

impl<T> Register<T> {
    fn put(&mut self, created: u64, item: Item<T>) {
        self.remove(&item.id);
        self.created.insert(item.id.clone(), created);
        self.items
            .insert((created, item.id.clone()), Arc::new(item));
    }

    fn remove(&mut self, id: &str) {
        if let Some(created) = self.created.remove(id) {
            self.items.remove(&(created, id.to_owned()));
        }
    }

    fn list(&self) -> Vec<Arc<Item<T>>> {
        self.items.values().map(Arc::clone).collect()
    }
}

impl Items {
    /// Takes in the resource that is stored under `key`, created at the revision `created`. One that
    /// is not sound is told with the next document; what was there before stays.
    pub fn put(&mut self, key: &str, created: u64, value: Value, reader: &ItemReader<'_>) {
        self.problems.remove(key);
        let Some((collection, id)) = Collection::of_key(key) else {
            return self.tell(key, |report, spot| {
                report.warning(spot, "", "unknown collection; ignored");
            });
        };
        let mut value = value;
        let at = At {
            key,
            id,
            created,
            problems: &mut self.problems,
        };
        match collection {
            Collection::Routes => at.enter(&mut self.routes, reader.route(value)),
            Collection::Services => at.enter(&mut self.services, reader.service(value)),
            Collection::Upstreams => at.enter(&mut self.upstreams, reader.upstream(value)),
            Collection::Consumers => at.enter(&mut self.consumers, reader.consumer(value)),
            Collection::Credentials => {
                if let Some(map) = value.as_object_mut() {
                    map.insert("id".to_owned(), id.into());
                }
                at.enter(&mut self.credentials, reader.credential(value));
            }
            Collection::ConsumerGroups => at.enter(&mut self.consumer_groups, reader.group(value)),
            Collection::PluginConfigs => at.enter(&mut self.plugin_configs, reader.plugins(value)),
            Collection::GlobalRules => at.enter(&mut self.global_rules, reader.plugins(value)),
            Collection::Ssls => at.enter(&mut self.ssls, reader.ssl(value)),
            Collection::PluginMetadata => {
                // Metadata of a plugin that this gateway lacks is ignored, as in APISIX.
                let found = reader.metadata(id, value);
                let item = found.and_then(|found| at.take(found));
                if let Some(item) = item {
                    self.metadata.insert(item.id, item.value);
                }
            }
            Collection::Secrets => match reader.secret(id, value) {
                Some(found) => at.enter(&mut self.secrets, found),
                None => self.tell(key, |report, spot| {
                    report.warning(spot, "", "unknown secret manager; ignored");
                }),
            },
            Collection::Protos | Collection::StreamRoutes => self.tell(key, |report, spot| {
                report.warning(spot, "", "out of scope; ignored");
            }),
        }
    }

    /// The resource under `key` is no longer stored.
    pub fn remove(&mut self, key: &str) {
        self.problems.remove(key);
        let Some((collection, id)) = Collection::of_key(key) else {
            return;
        };
        match collection {
            Collection::Routes => self.routes.remove(id),
            Collection::Services => self.services.remove(id),
            Collection::Upstreams => self.upstreams.remove(id),
            Collection::Consumers => self.consumers.remove(id),
            Collection::Credentials => self.credentials.remove(id),
            Collection::ConsumerGroups => self.consumer_groups.remove(id),
            Collection::PluginConfigs => self.plugin_configs.remove(id),
            Collection::GlobalRules => self.global_rules.remove(id),
            Collection::Ssls => self.ssls.remove(id),
            Collection::PluginMetadata => {
                self.metadata.remove(id);
            }
            Collection::Secrets => self.secrets.remove(id),
            Collection::Protos | Collection::StreamRoutes => {}
        }
    }

    /// All of them as one document, and what is wrong with those that are not in it.
    pub fn document(&self) -> Parsed {
        Parsed {
            document: Document {
                routes: self.routes.list(),
                services: self.services.list(),
                upstreams: self.upstreams.list(),
                consumers: self.consumers.list(),
                credentials: self.credentials.list(),
                consumer_groups: self.consumer_groups.list(),
                plugin_configs: self.plugin_configs.list(),
                global_rules: self.global_rules.list(),
                ssls: self.ssls.list(),
                secrets: self.secrets.list(),
                metadata: self.metadata.clone(),
            },
            lines: Lines::default(),
            problems: self.problems.values().flatten().cloned().collect(),
        }
    }

    fn tell(&mut self, key: &str, say: impl FnOnce(&mut Report<'_>, Spot<'_>)) {
        let lines = Lines::default();
        let mut report = Report::new(&lines);
        say(&mut report, Spot::bare(key));
        self.problems.insert(key.to_owned(), report.into_problems());
    }
}

/// Where a resource stands.
struct At<'a> {
    key: &'a str,
    id: &'a str,
    created: u64,
    problems: &'a mut BTreeMap<String, Vec<Problem>>,
}

impl At<'_> {
    fn enter<T>(self, register: &mut Register<T>, found: Found<T>) {
        let created = self.created;
        if let Some(item) = self.take(found) {
            register.put(created, item);
        }
    }

    /// The item, if it is sound; notes what is wrong with it.
    fn take<T>(self, found: Found<T>) -> Option<Item<T>> {
        if !(found.faults.is_empty() && found.warnings.is_empty()) {
            let lines = Lines::default();
            let mut report = Report::new(&lines);
            let spot = Spot::bare(self.key);
            report.issues(Severity::Warning, spot, found.warnings);
            let faults = found.faults.into_iter().map(|fault| fault.issue);
            report.issues(Severity::Error, spot, faults.collect());
            self.problems
                .insert(self.key.to_owned(), report.into_problems());
        }
        // Among consumers, credentials are told apart by their id.
        Some(Item {
            id: self.id.to_owned(),
            key: self.key.to_owned(),
            place: self.key.to_owned(),
            value: found.value?,
        })
    }
}
