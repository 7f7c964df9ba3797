//! Writing resources: what a request would change, and what it is answered.
//!
//! Everything here only looks at what the store holds and says what is to be done, and what that
//! goes by. If the store has moved on meanwhile, the same is asked once more.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::{
    Context,
    look::value_of,
    patch, references,
    refusal::{Refusal, worded},
    store::{Change, Contents, Expect, Put},
    target::Target,
};
use crate::{
    config::{
        at_rest::AtRest,
        collection::Collection,
        document::item::{Fault, Found, ItemReader},
    },
    variables::query_arg,
};

/// What is to be done, and what is answered once it is.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) change: Change,
    pub(super) status: StatusCode,
    pub(super) body: Value,
}

/// A request to write.
pub(super) struct Write<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) prefix: &'a str,
    pub(super) at_rest: Option<&'a AtRest>,
    pub(super) contents: &'a Contents,
    pub(super) target: &'a Target,
    pub(super) query: &'a str,
}

impl Write<'_> {
    /// What `method` with `body` comes to.
    pub(super) fn plan(&self, method: &Method, body: Option<&Value>) -> Result<Plan, Refusal> {
        match *method {
            Method::PUT => self.put(body),
            Method::POST => self.post(body),
            Method::PATCH => self.patch(body),
            Method::DELETE => self.delete(),
            _ => Err(Refusal::not_found()),
        }
    }

    fn put(&self, body: Option<&Value>) -> Result<Plan, Refusal> {
        let collection = self.target.collection;
        let mut value = configuration(body)?;
        let id = self.id_to_put(&value)?;
        if collection == Collection::Credentials {
            self.require_consumer()?;
        }
        forbid_times(&value)?;
        if stores_id(collection) {
            set(&mut value, "id", json!(id));
        }
        let stored_id = self.target.stored_id(&id);
        let key = collection.key(&stored_id);
        self.check(&stored_id, &value)?;
        let before = self.contents.get(&key);
        let written_before = before.map(value_of).unwrap_or_default();
        let created = written_before.get("create_time").cloned();
        self.stamp(&mut value, created);
        let status = match before {
            Some(_) => StatusCode::OK,
            None => StatusCode::CREATED,
        };
        let expect = before.map_or(Expect::Absent, |one| Expect::Modified(one.modified));
        self.written(key, value, expect, status)
    }

    fn post(&self, body: Option<&Value>) -> Result<Plan, Refusal> {
        let collection = self.target.collection;
        let mut value = configuration(body)?;
        if self.target.id.is_some() || value.get("id").is_some() {
            let message = format!("wrong {} id, do not need it", collection.kind());
            return Err(Refusal::bad(message));
        }
        forbid_times(&value)?;
        // As APISIX takes etcd's revision: it is counted up by every change, so none comes twice.
        let mut number = self.contents.revision() + 1;
        let key = loop {
            let key = collection.key(&format!("{number:020}"));
            if self.contents.get(&key).is_none() {
                break key;
            }
            number += 1;
        };
        let id = format!("{number:020}");
        set(&mut value, "id", json!(id));
        self.check(&id, &value)?;
        self.stamp(&mut value, None);
        self.written(key, value, Expect::Absent, StatusCode::CREATED)
    }

    fn patch(&self, body: Option<&Value>) -> Result<Plan, Refusal> {
        let collection = self.target.collection;
        let id = self.required_id()?;
        let Some(body) = body else {
            return Err(Refusal::bad("missing new configuration"));
        };
        let key = collection.key(id);
        let before = self.contents.get(&key).ok_or_else(Refusal::no_key)?;
        let mut value = value_of(before);
        let below: Vec<&str> = self.target.below.iter().map(String::as_str).collect();
        if below.len() > DEPTH_MAX {
            return Err(Refusal::bad("invalid sub-path"));
        }
        if below.is_empty() {
            if !body.is_object() {
                return Err(Refusal::bad("invalid configuration"));
            }
            patch::merge(&mut value, body.clone());
        } else if !patch::replace_at(&mut value, &below, body.clone()) {
            return Err(Refusal::bad("invalid sub-path"));
        }
        match value.get("id") {
            Some(own) if !super::look::reads_as(own, id) => {
                return Err(Refusal::bad(format!("wrong {} id", collection.kind())));
            }
            _ => set(&mut value, "id", json!(id)),
        }
        self.check(id, &value)?;
        let sets_time = below.is_empty() && body.get("update_time").is_some();
        if !sets_time {
            set(&mut value, "update_time", json!(self.context.now_seconds()));
        }
        let expect = Expect::Modified(before.modified);
        self.written(key, value, expect, StatusCode::OK)
    }

    fn delete(&self) -> Result<Plan, Refusal> {
        let collection = self.target.collection;
        let id = match (&self.target.id, collection) {
            (Some(id), _) => id,
            (None, Collection::PluginMetadata) => return Err(Refusal::bad("missing plugin name")),
            (None, _) => return Err(self.missing_id()),
        };
        let key = collection.key(&self.target.stored_id(id));
        let stored = self.contents.get(&key).ok_or_else(Refusal::no_key)?;
        // Exactly `true`, as in APISIX: deleting what is in use is no slip of the pen.
        let is_forced = query_arg(self.query, "force").is_some_and(|force| force == "true");
        let mut quiet = Vec::new();
        if !is_forced {
            references::unused(self.contents, collection, id)?;
            quiet = self.quiet(references::users_of(collection));
        }
        let mut delete = vec![key.clone()];
        if collection == Collection::Consumers {
            let below = format!("{key}/credentials/");
            let credentials = self.contents.under(&below);
            delete.extend(credentials.map(|(key, _)| key.to_owned()));
        }
        Ok(Plan {
            change: Change {
                expect: vec![(key.clone(), Expect::Modified(stored.modified))],
                quiet,
                put: Vec::new(),
                delete,
            },
            status: StatusCode::OK,
            body: json!({ "deleted": "1", "key": format!("{}{key}", self.prefix) }),
        })
    }

    /// That in none of `collections` anything is written after what this goes by.
    fn quiet(&self, collections: &[Collection]) -> Vec<(String, u64)> {
        let revision = self.contents.revision();
        let prefixes = collections.iter().map(|one| one.prefix());
        prefixes.map(|prefix| (prefix, revision)).collect()
    }

    /// Under which id a PUT stores.
    fn id_to_put(&self, value: &Value) -> Result<String, Refusal> {
        let collection = self.target.collection;
        let in_url = self.target.id.as_ref();
        let field = match collection {
            Collection::Consumers => "username",
            _ => "id",
        };
        let own = value.get(field).and_then(|own| match own {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        });
        match (in_url, own) {
            (Some(id), _) if collection == Collection::PluginMetadata => Ok(id.clone()),
            (Some(id), Some(own)) if *id != own => {
                let what = match collection {
                    Collection::Consumers => "username".to_owned(),
                    _ => format!("{} id", collection.kind()),
                };
                Err(Refusal::bad(format!("wrong {what}")))
            }
            (Some(id), _) => Ok(id.clone()),
            // What is wrong with a consumer without a name, its schema says.
            (None, own) if collection == Collection::Consumers => Ok(own.unwrap_or_default()),
            (None, _) if collection == Collection::PluginMetadata => {
                Err(Refusal::bad("missing plugin name"))
            }
            (None, _) if matches!(collection, Collection::Secrets | Collection::Credentials) => {
                Err(self.missing_id())
            }
            (None, Some(own)) => Ok(own),
            (None, None) => Err(self.missing_id()),
        }
    }

    fn required_id(&self) -> Result<&str, Refusal> {
        self.target.id.as_deref().ok_or_else(|| self.missing_id())
    }

    fn missing_id(&self) -> Refusal {
        match self.target.collection {
            Collection::Secrets => Refusal::bad("no secret id"),
            Collection::Consumers => Refusal::bad("missing consumer name"),
            other => Refusal::bad(format!("missing {} id", other.kind())),
        }
    }

    fn require_consumer(&self) -> Result<(), Refusal> {
        let username = self.target.parent.as_deref().unwrap_or_default();
        let key = Collection::Consumers.key(username);
        match self.contents.get(&key) {
            Some(_) => Ok(()),
            None => Err(Refusal::new(StatusCode::NOT_FOUND, "consumer not found")),
        }
    }

    /// Whether `value` may be stored under `id`, as the data plane would see it.
    fn check(&self, id: &str, value: &Value) -> Result<(), Refusal> {
        let collection = self.target.collection;
        let reader = self.context.reader();
        let faults = faults(&reader, collection, id, value)?;
        if let Some(refusal) = Refusal::of_faults(&faults, collection) {
            return Err(refusal);
        }
        references::exist(self.contents, collection, value)?;
        let registry = self.context.registry;
        references::alone(self.contents, registry, collection, id, value)?;
        references::alike(self.contents, collection, id, value)
    }

    fn stamp(&self, value: &mut Value, created: Option<Value>) {
        if self.target.collection == Collection::PluginMetadata {
            return;
        }
        let now = json!(self.context.now_seconds());
        set(value, "create_time", created.unwrap_or_else(|| now.clone()));
        set(value, "update_time", now);
    }

    /// The plan to store `value`.
    fn written(
        &self,
        key: String,
        value: Value,
        expect: Expect,
        status: StatusCode,
    ) -> Result<Plan, Refusal> {
        let text: Arc<str> = Arc::from(value.to_string());
        // What cannot be read again must not be stored.
        if serde_json::from_str::<Value>(&text).is_err() {
            return Err(Refusal::bad("invalid configuration: nested too deeply"));
        }
        let put = Put {
            key: key.clone(),
            text,
            expires_ms: self.expires()?,
        };
        let mut expect = vec![(key.clone(), expect)];
        // What it refers to must not go away meanwhile.
        for key in references::keys(self.target, &value) {
            if let Some(stored) = self.contents.get(&key) {
                expect.push((key, Expect::Modified(stored.modified)));
            }
        }
        Ok(Plan {
            change: Change {
                expect,
                quiet: self.quiet(references::rivals_of(self.target.collection, &value)),
                put: vec![put],
                delete: Vec::new(),
            },
            status,
            body: json!({
                "key": format!("{}{key}", self.prefix),
                "value": self.echo(value),
            }),
        })
    }

    /// What was written as the answer shows it: as it is stored, like APISIX.
    fn echo(&self, value: Value) -> Value {
        let collection = self.target.collection;
        let shown = super::look::shown(collection, value);
        match self.at_rest {
            Some(at_rest) => at_rest.shown_sealed(collection, shown),
            None => shown,
        }
    }

    /// `ttl`, as the time at which the resource goes away.
    fn expires(&self) -> Result<Option<u64>, Refusal> {
        let Some(text) = query_arg(self.query, "ttl") else {
            return Ok(None);
        };
        let seconds = text
            .parse::<f64>()
            .ok()
            .filter(|seconds| seconds.is_finite());
        let seconds =
            seconds.ok_or_else(|| Refusal::bad("invalid argument ttl: should be a number"))?;
        let seconds = crate::config::snapshot::seconds(seconds.floor());
        if seconds.is_zero() {
            return Err(Refusal::bad("invalid argument ttl: should be at least 1"));
        }
        let millis = u64::try_from(seconds.as_millis()).unwrap_or(u64::MAX);
        Ok(Some(self.context.now_ms.saturating_add(millis)))
    }
}

/// How deep a PATCH may look into a resource.
const DEPTH_MAX: usize = 32;

/// What is wrong with the resource `value` of `collection`, by the rules that files obey.
pub(super) fn faults(
    reader: &ItemReader<'_>,
    collection: Collection,
    id: &str,
    value: &Value,
) -> Result<Vec<Fault>, Refusal> {
    fn of<T>(found: Found<T>) -> Vec<Fault> {
        found.faults
    }
    let mut value = value.clone();
    Ok(match collection {
        Collection::Routes => of(reader.route(value)),
        Collection::Services => of(reader.service(value)),
        Collection::Upstreams => of(reader.upstream(value)),
        Collection::Consumers => of(reader.consumer(value)),
        Collection::Credentials => {
            set(&mut value, "id", json!(id));
            of(reader.credential(value))
        }
        Collection::ConsumerGroups => of(reader.group(value)),
        Collection::PluginConfigs | Collection::GlobalRules => of(reader.plugins(value)),
        Collection::Ssls => of(reader.ssl(value)),
        Collection::PluginMetadata => {
            let found = reader.metadata(id, value);
            of(found.ok_or_else(|| Refusal::bad("invalid plugin name"))?)
        }
        Collection::Secrets => {
            let found = reader.secret(id, value);
            of(found.ok_or_else(|| {
                let manager = id.split('/').next().unwrap_or_default();
                Refusal::bad(format!("invalid manager: {manager}"))
            })?)
        }
        Collection::Protos | Collection::StreamRoutes => {
            return Err(Refusal::bad("not supported by this gateway"));
        }
    })
}

/// What the Admin API says first of `value`; `None` if it is sound.
pub(super) fn problem(
    reader: &ItemReader<'_>,
    collection: Collection,
    id: &str,
    value: &Value,
) -> Option<String> {
    match faults(reader, collection, id, value) {
        Ok(faults) => worded(&faults, collection),
        Err(refusal) => refusal.body["error_msg"].as_str().map(str::to_owned),
    }
}

fn configuration(body: Option<&Value>) -> Result<Value, Refusal> {
    match body {
        None | Some(Value::Null) => Err(Refusal::bad("missing configurations")),
        Some(body @ Value::Object(_)) => Ok(body.clone()),
        Some(_) => Err(Refusal::bad(
            "invalid configuration: wrong type: expected object",
        )),
    }
}

/// Times are the server's to set.
fn forbid_times(value: &Value) -> Result<(), Refusal> {
    let places = [
        ("", Some(value)),
        ("upstream.", value.get("upstream")),
        ("plugins.", value.get("plugins")),
    ];
    let mut found = String::new();
    for (prefix, place) in places {
        for time in ["create_time", "update_time"] {
            if place.is_some_and(|place| place.get(time).is_some()) {
                found.push_str(&format!(" {prefix}{time}"));
            }
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    Err(Refusal::bad(format!("the property is forbidden: {found}")))
}

/// Whether values of `collection` are stored with their id.
fn stores_id(collection: Collection) -> bool {
    collection != Collection::Consumers
}

pub(super) fn set(value: &mut Value, key: &str, member: Value) {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    if let Some(map) = value.as_object_mut() {
        map.insert(key.to_owned(), member);
    }
}
