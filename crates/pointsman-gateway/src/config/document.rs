//! The standalone document: `apisix.yaml` or `apisix.json`, item by item.
//!
//! A document that cannot be read at all is an error. An item that is wrong is reported with
//! everything that is wrong with it, and dropped alone.

pub mod item;

use std::{collections::HashMap, sync::Arc};

use serde::Serialize;
use serde_json::{Map, Value};

use self::item::{Found, ItemReader};
use crate::config::{
    plugin_schema::{Named, PluginCatalog},
    problem::{Problem, Report, Severity, Spot},
    resource::{
        consumer::{Consumer, Credential, PluginSet},
        route::Route,
        secret::Secret,
        service::Service,
        ssl::Ssl,
        upstream::Upstream,
    },
    similar::did_you_mean,
    text::{self, Coerce, Env, Lines, TextError},
};

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `apisix.yaml`; ends in `#END`.
    Yaml,
    /// `apisix.json`.
    Json,
}

/// All resources of a document.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "the names are APISIX's collections")]
pub struct Document {
    pub routes: Vec<Arc<Item<Route>>>,
    pub services: Vec<Arc<Item<Service>>>,
    pub upstreams: Vec<Arc<Item<Upstream>>>,
    pub consumers: Vec<Arc<Item<Consumer>>>,
    pub credentials: Vec<Arc<Item<Credential>>>,
    pub consumer_groups: Vec<Arc<Item<PluginSet>>>,
    pub plugin_configs: Vec<Arc<Item<PluginSet>>>,
    pub global_rules: Vec<Arc<Item<PluginSet>>>,
    pub ssls: Vec<Arc<Item<Ssl>>>,
    pub secrets: Vec<Arc<Item<Secret>>>,
    pub metadata: HashMap<String, Value>,
}

/// One resource.
#[derive(Clone, Debug)]
pub struct Item<T> {
    /// Its id.
    pub id: String,
    /// Its key, such as `/routes/1`.
    pub key: String,
    /// Where it stood, such as `routes[0]`.
    pub place: String,
    /// It.
    pub value: T,
}

/// A resource as the Control API shows it.
pub struct Dump {
    /// Its id.
    pub id: String,
    /// Its key.
    pub key: String,
    /// It, defaults filled in.
    pub value: Value,
}

/// A document that could be read.
#[derive(Debug, Default)]
pub struct Parsed {
    /// Its items that are sound.
    pub document: Document,
    /// Where everything stood.
    pub lines: Lines,
    /// What is wrong with the others, or worth knowing.
    pub problems: Vec<Problem>,
}

/// Why nothing of a document can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Whoever writes it may not have finished.
    #[error("the file does not end in #END, so it may be incomplete; nothing of it is loaded")]
    Unfinished,
    /// It cannot be read.
    #[error(transparent)]
    Broken(#[from] TextError),
}

impl<T> Item<T> {
    /// It, for problems.
    pub fn spot(&self) -> Spot<'_> {
        Spot {
            place: &self.place,
            id: Some(&self.id),
        }
    }
}

impl Document {
    /// Reads a document. The problems are those of single items.
    ///
    /// # Errors
    /// When nothing of it can be used.
    pub fn parse(
        text: &str,
        format: Format,
        env: Env<'_>,
        catalog: &dyn PluginCatalog,
    ) -> Result<Parsed, DocumentError> {
        let located = match format {
            Format::Yaml => {
                if !text::has_end_marker(text) {
                    return Err(DocumentError::Unfinished);
                }
                text::yaml(&text::substitute(text, env)?)?
            }
            Format::Json => {
                let mut located = text::json(text)?;
                text::substitute_value(&mut located.value, env, Coerce::No)?;
                located
            }
        };
        let root = match located.value {
            Value::Null => Map::new(),
            Value::Object(map) => map,
            _ => {
                let message = "the document must be a map of collections (routes, upstreams, ...)";
                return Err(DocumentError::Broken(TextError {
                    message: message.to_owned(),
                    line: Some(1),
                }));
            }
        };
        if let Some(error) = nothing_known(&root, &located.lines) {
            return Err(DocumentError::Broken(error));
        }
        Ok(Self::read(root, located.lines, env, catalog))
    }

    /// Reads the collections of `root`, which stand in the `lines` of a file.
    pub fn read(
        mut root: Map<String, Value>,
        lines: Lines,
        env: Env<'_>,
        catalog: &dyn PluginCatalog,
    ) -> Parsed {
        let named = Named::of(&mut root, catalog);
        let mut reader = Reader {
            items: ItemReader {
                catalog: named.as_ref().map_or(catalog, |named| named),
                env,
            },
            report: Report::new(&lines),
        };
        let document = reader.document(root);
        let problems = reader.report.into_problems();
        Parsed {
            document,
            problems,
            lines,
        }
    }

    /// The metadata of a plugin.
    pub fn metadata(&self, plugin: &str) -> Option<&Value> {
        self.metadata.get(plugin)
    }

    /// A collection with defaults filled in, for the Control API.
    pub fn dump(&self, collection: &str) -> Vec<Dump> {
        match collection {
            "routes" => dump(&self.routes, |route| {
                if let Some(upstream) = &mut route.upstream {
                    list_nodes(upstream);
                }
            }),
            "services" => dump(&self.services, |service| {
                if let Some(upstream) = &mut service.upstream {
                    list_nodes(upstream);
                }
            }),
            "upstreams" => dump(&self.upstreams, list_nodes),
            "plugin_metadata" => self
                .metadata
                .iter()
                .map(|(name, value)| Dump {
                    id: name.clone(),
                    key: format!("/plugin_metadata/{name}"),
                    value: value.clone(),
                })
                .collect(),
            _ => Vec::new(),
        }
    }
}

fn list_nodes(upstream: &mut Upstream) {
    if upstream.nodes.is_some() {
        upstream.nodes = Some(crate::config::resource::upstream::Nodes::List(
            upstream.nodes(),
        ));
    }
}

fn dump<T: Clone + Serialize>(items: &[Arc<Item<T>>], normalise: impl Fn(&mut T)) -> Vec<Dump> {
    items
        .iter()
        .map(|item| {
            let mut value = item.value.clone();
            normalise(&mut value);
            let mut value = serde_json::to_value(value).unwrap_or_default();
            strip_nulls(&mut value);
            if let Value::Object(map) = &mut value {
                map.insert("id".to_owned(), Value::String(item.id.clone()));
            }
            Dump {
                id: item.id.clone(),
                key: item.key.clone(),
                value,
            }
        })
        .collect()
}

/// An absent field is absent, not `null`.
fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, member| !member.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

/// Where items stand in their list, by id.
type Places = HashMap<String, usize>;

struct Reader<'a> {
    items: ItemReader<'a>,
    report: Report<'a>,
}

/// What is wrong with a document that names collections, but none that is known: a slip of the
/// pen, which must not end in a gateway without routes. `None` if one is known, or none named.
fn nothing_known(root: &Map<String, Value>, lines: &Lines) -> Option<TextError> {
    let known = || COLLECTIONS.iter().chain(&OUT_OF_SCOPE).copied();
    if known().any(|name| root.contains_key(name)) {
        return None;
    }
    let key = root.keys().next()?;
    let hint = did_you_mean(key, known());
    let message = format!(
        "`{key}` is not a collection, and no other key of the document is{hint}; known are {}; \
         nothing of it is loaded",
        COLLECTIONS.join(", ")
    );
    let line = lines.of(key);
    Some(TextError { message, line })
}

impl<'a> Reader<'a> {
    fn document(&mut self, mut root: Map<String, Value>) -> Document {
        let mut document = Document {
            routes: self.collection(&mut root, "routes", ItemReader::route),
            services: self.collection(&mut root, "services", ItemReader::service),
            upstreams: self.collection(&mut root, "upstreams", ItemReader::upstream),
            plugin_configs: self.collection(&mut root, "plugin_configs", ItemReader::plugins),
            global_rules: self.collection(&mut root, "global_rules", ItemReader::plugins),
            consumer_groups: self.collection(&mut root, "consumer_groups", ItemReader::group),
            ssls: self.collection(&mut root, "ssls", ItemReader::ssl),
            ..Document::default()
        };
        self.consumers(&mut root, &mut document);
        self.metadata(&mut root, &mut document);
        self.secrets(&mut root, &mut document);
        for name in root.keys() {
            let message = match name.as_str() {
                "stream_routes" | "protos" => "out of scope; ignored",
                _ => "unknown collection; ignored",
            };
            let known = COLLECTIONS.iter().copied();
            let hint = match OUT_OF_SCOPE.contains(&name.as_str()) {
                true => String::new(),
                false => did_you_mean(name, known),
            };
            let message = format!("{message}{hint}");
            self.report.warning(Spot::bare(name), "", message);
        }
        document
    }

    /// All valid items of one collection.
    fn collection<T>(
        &mut self,
        root: &mut Map<String, Value>,
        name: &'static str,
        read: fn(&ItemReader<'a>, Value) -> Found<T>,
    ) -> Vec<Arc<Item<T>>> {
        let mut items = Vec::new();
        let mut places = Places::new();
        for (index, value) in self.list(root, name).into_iter().enumerate() {
            let id = id_of(&value, index);
            let found = read(&self.items, value);
            if let Some(item) = self.item(name, index, id, found) {
                self.add(&mut items, &mut places, item);
            }
        }
        items
    }

    fn list(&mut self, root: &mut Map<String, Value>, name: &str) -> Vec<Value> {
        match root.shift_remove(name) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(items)) => items,
            Some(_) => {
                let message = "wrong type: expected array";
                self.report.error(Spot::bare(name), "", message);
                Vec::new()
            }
        }
    }

    /// What was found in an item, if it is sound; tells what is wrong with it.
    fn item<T>(
        &mut self,
        collection: &str,
        index: usize,
        id: String,
        found: Found<T>,
    ) -> Option<Item<T>> {
        let place = format!("{collection}[{index}]");
        let spot = Spot {
            place: &place,
            id: Some(&id),
        };
        self.report.issues(Severity::Warning, spot, found.warnings);
        let faults = found.faults.into_iter().map(|fault| fault.issue);
        self.report.issues(Severity::Error, spot, faults.collect());
        let value = found.value?;
        Some(Item {
            key: format!("/{collection}/{id}"),
            id,
            place,
            value,
        })
    }

    /// A later item replaces an earlier one with the same id.
    fn add<T>(&mut self, items: &mut Vec<Arc<Item<T>>>, places: &mut Places, item: Item<T>) {
        match places.get(&item.id) {
            Some(place) => {
                let earlier = &mut items[*place];
                let message = format!("the id is used twice; this one replaces {}", earlier.place);
                self.report.warning(item.spot(), "id", message);
                *earlier = Arc::new(item);
            }
            None => {
                places.insert(item.id.clone(), items.len());
                items.push(Arc::new(item));
            }
        }
    }

    /// Consumers, and the credentials that stand among them.
    fn consumers(&mut self, root: &mut Map<String, Value>, document: &mut Document) {
        let (mut users, mut credentials) = (Places::new(), Places::new());
        for (index, value) in self.list(root, "consumers").into_iter().enumerate() {
            let id = id_of(&value, index);
            if id.contains("/credentials/") {
                let found = self.items.credential(value);
                if let Some(item) = self.item("consumers", index, id, found) {
                    self.add(&mut document.credentials, &mut credentials, item);
                }
                continue;
            }
            let username = value.get("username").and_then(Value::as_str);
            let id = username.map_or(id, str::to_owned);
            let found = self.items.consumer(value);
            if let Some(item) = self.item("consumers", index, id, found) {
                self.add(&mut document.consumers, &mut users, item);
            }
        }
    }

    /// Secret managers, whose kind is part of their id.
    fn secrets(&mut self, root: &mut Map<String, Value>, document: &mut Document) {
        let mut places = Places::new();
        for (index, value) in self.list(root, "secrets").into_iter().enumerate() {
            let id = id_of(&value, index);
            let Some(found) = self.items.secret(&id, value) else {
                let at = format!("secrets[{index}]");
                let message = "must be <manager>/<id>, of the managers vault, aws and gcp";
                self.report.error(Spot::bare(&at), "id", message);
                continue;
            };
            if let Some(item) = self.item("secrets", index, id, found) {
                self.add(&mut document.secrets, &mut places, item);
            }
        }
    }

    fn metadata(&mut self, root: &mut Map<String, Value>, document: &mut Document) {
        for (index, value) in self.list(root, "plugin_metadata").into_iter().enumerate() {
            let at = format!("plugin_metadata[{index}]");
            let Some(id) = value.get("id").and_then(Value::as_str).map(str::to_owned) else {
                let message = "property \"id\" is required";
                self.report.error(Spot::bare(&at), "", message);
                continue;
            };
            // Metadata of a plugin that this gateway lacks is ignored, as in APISIX.
            let Some(found) = self.items.metadata(&id, value) else {
                continue;
            };
            if let Some(item) = self.item("plugin_metadata", index, id, found) {
                document.metadata.insert(item.id, item.value);
            }
        }
    }
}

/// The id as written, or `arr_<n>`, as APISIX counts.
fn id_of(value: &Value, index: usize) -> String {
    match value.get("id") {
        Some(Value::String(id)) => id.clone(),
        Some(Value::Number(id)) => id.to_string(),
        _ => format!("arr_{}", index + 1),
    }
}

/// What a document may name.
const COLLECTIONS: [&str; 11] = [
    "routes",
    "services",
    "upstreams",
    "plugin_configs",
    "global_rules",
    "consumer_groups",
    "consumers",
    "ssls",
    "secrets",
    "plugin_metadata",
    "plugins",
];
/// What APISIX has besides, and a document may name without effect.
const OUT_OF_SCOPE: [&str; 2] = ["stream_routes", "protos"];

#[cfg(test)]
mod tests;
