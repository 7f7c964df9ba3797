//! Brings values of secrets about, once for whoever refers to the same, and asks for them anew.
//!
//! A state machine without time or network of its own: the program tells it which document is about to be
//! compiled, asks what is due, makes those calls and reports what came of them. A value counts for a while, and
//! then is asked for again; so does, for a shorter while, that there is none. What a manager that cannot be
//! reached has said before stays; what it says to be gone, or none of our business, goes.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use serde_json::Value;

use super::{
    Known, Values,
    fetch::{FetchError, Manager, Outside},
    parts, rest_of,
};
use crate::{
    config::{
        document::{Document, Item},
        resource::{plugins::Plugins, secret::Secret},
        settings::SecretCache,
    },
    ports::{SignRs256, Upstreams},
};

/// All values. One for the program, on the control thread.
#[derive(Default)]
pub struct Keeper {
    cache: SecretCache,
    managers: HashMap<String, Source>,
    /// By reference without its scheme.
    entries: HashMap<Arc<str>, Entry>,
    values: Arc<Values>,
    under_way: usize,
    /// The newest round; none comes twice, also where a reference goes and comes back.
    rounds: u64,
}

/// A manager, and the resource that it was made of.
struct Source {
    item: Arc<Item<Secret>>,
    manager: Result<Arc<Manager>, String>,
}

struct Entry {
    known: Option<Known>,
    /// `None`: it is under way, or cannot work.
    due: Option<Instant>,
    /// Another one when what is under way no longer counts.
    round: u64,
    failures: u32,
}

/// A value to be fetched.
pub struct Errand {
    reference: Arc<str>,
    manager: Arc<Manager>,
    round: u64,
}

/// What came of an errand.
pub type Outcome = Result<String, FetchError>;

impl Errand {
    /// Asks for the value.
    pub async fn perform(&self, sign: SignRs256, upstreams: &dyn Upstreams) -> Outcome {
        let path = parts(&self.reference).map_or("", |(_, path)| path);
        self.manager.fetch(path, sign, upstreams).await
    }
}

impl Keeper {
    /// How long what is known counts.
    pub fn set_cache(&mut self, cache: SecretCache) {
        self.cache = cache;
    }

    /// What is known.
    pub fn values(&self) -> Arc<Values> {
        Arc::clone(&self.values)
    }

    /// Takes in a document before it is compiled: what it refers to and nobody knows is due at once, and what it
    /// does not is forgotten. A manager that has changed is asked for everything anew.
    pub fn adopt(&mut self, document: &Document, outside: Outside<'_>, now: Instant) {
        let mut wanted = HashSet::new();
        collect(document, &mut wanted);
        let had_any = !(self.entries.is_empty() && self.managers.is_empty());
        if wanted.is_empty() && document.secrets.is_empty() && !had_any {
            return;
        }
        let changed = self.adopt_managers(document, outside);
        self.entries
            .retain(|reference, _| wanted.contains(&**reference));
        for reference in wanted {
            let manager = parts(&reference).map(|(manager, _)| manager);
            let is_new = !self.entries.contains_key(&*reference)
                || manager.is_none_or(|manager| changed.contains(manager));
            if !is_new {
                continue;
            }
            let entry = self.entries.entry(reference.as_str().into());
            let round = entry.or_insert_with(Entry::new);
            let (due, known) = match manager.and_then(|manager| self.managers.get(manager)) {
                Some(Source { manager: Ok(_), .. }) => (Some(now), None),
                Some(Source {
                    manager: Err(why), ..
                }) => (None, Some(why.clone())),
                None => (None, Some(no_manager(manager))),
            };
            self.rounds += 1;
            round.round = self.rounds;
            round.due = due;
            round.known = known.map(|why| Known::Nothing(why.into()));
        }
        self.publish();
    }

    /// Takes in the managers of `document`; returns those that are new, others or gone.
    fn adopt_managers(&mut self, document: &Document, outside: Outside<'_>) -> HashSet<String> {
        let mut before = std::mem::take(&mut self.managers);
        let mut changed = HashSet::new();
        for item in &document.secrets {
            let source = match before.remove(&item.id) {
                Some(source) if source.item.value == item.value => source,
                _ => {
                    changed.insert(item.id.clone());
                    let manager = Manager::new(&item.value, outside);
                    let manager =
                        manager.map_err(|why| format!("secret manager {}: {why}", item.id));
                    Source {
                        item: Arc::clone(item),
                        manager: manager.map(Arc::new),
                    }
                }
            };
            self.managers.insert(item.id.clone(), source);
        }
        changed.extend(before.into_keys());
        changed
    }

    /// What is wrong with managers, by the item that describes them.
    pub fn problems(&self) -> impl Iterator<Item = (&Item<Secret>, &str)> {
        let sources = self.managers.values();
        sources.filter_map(|source| Some((&*source.item, source.manager.as_ref().err()?.as_str())))
    }

    /// Whether something has no first answer yet.
    pub fn awaits_first_answers(&self) -> bool {
        self.entries.values().any(|entry| entry.known.is_none())
    }

    /// A value that is due, if there is one and not too many are under way; to be fetched, and reported with
    /// [`on_outcome`](Self::on_outcome).
    pub fn poll_errand(&mut self, now: Instant) -> Option<Errand> {
        if self.under_way >= UNDER_WAY_MAX {
            return None;
        }
        // Who waits longest, so that a manager that is silent starves nobody.
        let entries = self.entries.iter_mut();
        let due = entries.filter(|(_, entry)| entry.due.is_some_and(|due| due <= now));
        let (reference, entry) = due.min_by_key(|(_, entry)| entry.due)?;
        let (manager, _) = parts(reference)?;
        let manager = self.managers.get(manager)?.manager.as_ref().ok()?;
        entry.due = None;
        self.under_way += 1;
        Some(Errand {
            reference: Arc::clone(reference),
            manager: Arc::clone(manager),
            round: entry.round,
        })
    }

    /// When something is due. `None`: not before something comes back, or the configuration changes.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.under_way >= UNDER_WAY_MAX {
            return None;
        }
        self.entries.values().filter_map(|entry| entry.due).min()
    }

    /// What was under way has been given up: it is due again.
    pub fn on_given_up(&mut self, now: Instant) {
        self.under_way = 0;
        for entry in self.entries.values_mut() {
            self.rounds += 1;
            entry.round = self.rounds;
            if entry.due.is_none() && entry.known.is_none() {
                entry.due = Some(now);
            }
        }
    }

    /// Takes in what came of an errand.
    pub fn on_outcome(&mut self, errand: &Errand, outcome: Outcome, now: Instant) {
        self.under_way = self.under_way.saturating_sub(1);
        let reference = &errand.reference;
        let entry = self.entries.get_mut(reference);
        let Some(entry) = entry.filter(|entry| entry.round == errand.round) else {
            // The configuration has lost interest in the meantime, or the manager is another.
            return;
        };
        let lifetime = match &outcome {
            Ok(_) => self.cache.lifetime,
            Err(_) => self.cache.failure_lifetime,
        };
        entry.due = Some(now + lifetime);
        match outcome {
            Ok(value) => {
                if std::mem::take(&mut entry.failures) > 0 {
                    tracing::info!("$secret://{reference}: there is a value again");
                }
                entry.known = Some(Known::Value(value.into()));
            }
            Err(FetchError { is_final, why }) => {
                let stays = !is_final && matches!(entry.known, Some(Known::Value(_)));
                if entry.failures == 0 {
                    let then = if stays { "the value stays" } else { "no value" };
                    tracing::error!("$secret://{reference}: {why}; {then}, again in {lifetime:?}");
                } else {
                    tracing::debug!("$secret://{reference}: {why}; again in {lifetime:?}");
                }
                entry.failures = entry.failures.saturating_add(1);
                if !stays {
                    entry.known = Some(Known::Nothing(why.into()));
                }
            }
        }
        let known = entry.known.clone();
        if known.as_ref() != self.values.0.get(reference) {
            self.publish();
        }
    }

    /// Makes known what differs.
    fn publish(&mut self) {
        let known = self
            .entries
            .iter()
            .filter_map(|(reference, entry)| Some((Arc::clone(reference), entry.known.clone()?)));
        let known: HashMap<Arc<str>, Known> = known.collect();
        if known != self.values.0 {
            self.values = Arc::new(Values(known));
        }
    }
}

impl Entry {
    fn new() -> Self {
        Self {
            known: None,
            due: None,
            round: 0,
            failures: 0,
        }
    }
}

fn no_manager(manager: Option<&str>) -> String {
    match manager {
        Some(manager) => format!("there is no secret manager {manager}"),
        None => "it must be $secret://<manager>/<id>/<name>/<key>".to_owned(),
    }
}

/// Everything that `document` refers to, where that has an effect.
fn collect(document: &Document, wanted: &mut HashSet<String>) {
    for plugins in plugins_of(document) {
        for (_, conf) in plugins
            .iter()
            .filter(|(_, conf)| conf.may_refer_to_secrets())
        {
            texts(&conf.value(), wanted);
        }
    }
    for item in &document.ssls {
        let texts = item.value.texts();
        wanted.extend(texts.filter_map(|(_, text)| Some(rest_of(text)?.to_owned())));
    }
}

fn plugins_of(document: &Document) -> impl Iterator<Item = &Plugins> {
    let routes = document.routes.iter().map(|item| &item.value.plugins);
    let services = document.services.iter().map(|item| &item.value.plugins);
    let consumers = document.consumers.iter().map(|item| &item.value.plugins);
    let credentials = document.credentials.iter().map(|item| &item.value.plugins);
    let sets = [
        &document.consumer_groups,
        &document.plugin_configs,
        &document.global_rules,
    ];
    let sets = sets.into_iter().flatten().map(|item| &item.value.plugins);
    let own = routes.chain(services).chain(consumers);
    own.chain(credentials).chain(sets)
}

fn texts(value: &Value, wanted: &mut HashSet<String>) {
    match value {
        Value::String(text) => wanted.extend(rest_of(text).map(str::to_owned)),
        Value::Array(items) => items.iter().for_each(|item| texts(item, wanted)),
        Value::Object(map) => map.values().for_each(|member| texts(member, wanted)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Calls at once.
const UNDER_WAY_MAX: usize = 16;

#[cfg(test)]
mod tests;
