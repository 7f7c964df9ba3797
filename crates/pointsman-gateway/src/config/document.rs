//! The standalone document: `apisix.yaml` or `apisix.json`, item by item.
//!
//! A document that cannot be read at all is an error. An item that is wrong is reported with
//! everything that is wrong with it, and dropped alone.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::config::{
    plugin_schema::{self, Named, Place, PluginCatalog},
    problem::{Problem, Report, Severity, Spot},
    reference,
    resource::{
        Resource,
        consumer::{Consumer, Credential, CredentialBody, PluginSet},
        route::Route,
        schema_of,
        service::Service,
        ssl::Ssl,
        upstream::Upstream,
    },
    schema::{self, Issue, Schema},
    similar::did_you_mean,
    text::{self, Coerce, Env, Lines, TextError, join},
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
    pub routes: Vec<Item<Route>>,
    pub services: Vec<Item<Service>>,
    pub upstreams: Vec<Item<Upstream>>,
    pub consumers: Vec<Item<Consumer>>,
    pub credentials: Vec<Item<Credential>>,
    pub consumer_groups: Vec<Item<PluginSet>>,
    pub plugin_configs: Vec<Item<PluginSet>>,
    pub global_rules: Vec<Item<PluginSet>>,
    pub ssls: Vec<Item<Ssl>>,
    metadata: HashMap<String, Value>,
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
        let mut root = match located.value {
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
        let named = Named::of(&mut root, catalog);
        let mut reader = Reader {
            catalog: named.as_ref().map_or(catalog, |named| named),
            report: Report::new(&located.lines),
            env,
        };
        let document = reader.document(root);
        let problems = reader.report.into_problems();
        Ok(Parsed {
            document,
            problems,
            lines: located.lines,
        })
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

fn dump<T: Clone + Serialize>(items: &[Item<T>], normalise: impl Fn(&mut T)) -> Vec<Dump> {
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
    catalog: &'a dyn PluginCatalog,
    report: Report<'a>,
    env: Env<'a>,
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

impl Reader<'_> {
    fn document(&mut self, mut root: Map<String, Value>) -> Document {
        let mut document = Document {
            routes: self.collection(&mut root, "routes", Route::check, Place::Traffic),
            services: self.collection(&mut root, "services", Service::check, Place::Traffic),
            upstreams: self.collection(&mut root, "upstreams", Upstream::check, Place::Traffic),
            plugin_configs: self.collection(&mut root, "plugin_configs", no_rules, Place::Traffic),
            global_rules: self.collection(&mut root, "global_rules", no_rules, Place::Traffic),
            consumer_groups: self.collection(
                &mut root,
                "consumer_groups",
                no_rules,
                Place::Consumer,
            ),
            ssls: self.collection(&mut root, "ssls", Ssl::check, Place::Traffic),
            ..Document::default()
        };
        self.consumers(&mut root, &mut document);
        self.metadata(&mut root, &mut document);
        for name in root.keys() {
            let message = match name.as_str() {
                "stream_routes" | "protos" => "out of scope; ignored",
                "secrets" => "secret managers are not supported yet; ignored",
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
        rules: fn(&T) -> Vec<Issue>,
        place: Place,
    ) -> Vec<Item<T>>
    where
        T: Resource,
    {
        let schema = schema_of::<T>();
        let mut items = Vec::new();
        let mut places = Places::new();
        for (index, value) in self.list(root, name).into_iter().enumerate() {
            let id = id_of(&value, index);
            if let Some(item) = self.item(name, index, &id, value, &schema, rules, place) {
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

    #[expect(clippy::too_many_arguments, reason = "one call, which names them all")]
    fn item<T: Resource>(
        &mut self,
        collection: &str,
        index: usize,
        id: &str,
        mut value: Value,
        schema: &Schema,
        rules: fn(&T) -> Vec<Issue>,
        place: Place,
    ) -> Option<Item<T>> {
        let at = format!("{collection}[{index}]");
        let broken = schema.validate(&value);
        let mut issues = broken.clone();
        let mut warnings = Vec::new();
        if let Some(plugins) = value.get("plugins").and_then(Value::as_object) {
            let (wrong, odd) = plugin_schema::check(plugins, place, self.catalog);
            issues.extend(wrong);
            warnings = odd;
        }
        warnings.extend(self.unresolved(collection, &value, place));
        // Plugins stay as they are: reading them with the rest would build each of them anew.
        let plugins = value.get_mut("plugins").and_then(Value::as_object_mut);
        let plugins = plugins.map(std::mem::take);
        let parsed = if broken.is_empty() {
            T::deserialize(value)
        } else {
            T::deserialize(&value).or_else(|_| T::deserialize(schema::without(&value, &broken)))
        };
        let parsed = match parsed {
            Ok(mut parsed) => {
                if let (Some(place), Some(plugins)) = (parsed.plugins_mut(), plugins) {
                    *place = plugins;
                }
                // A rule must not complain of the absence of what was left out.
                let counts = |issue: &Issue| {
                    broken.is_empty()
                        || !(issue.path.is_empty() || broken.iter().any(|b| b.is_in(&issue.path)))
                };
                issues.extend(rules(&parsed).into_iter().filter(counts));
                Some(parsed)
            }
            Err(error) => {
                if issues.is_empty() {
                    issues.push(Issue::new("", error.to_string()));
                }
                None
            }
        };
        let is_sound = issues.is_empty();
        let spot = Spot {
            place: &at,
            id: Some(id),
        };
        self.report.issues(Severity::Warning, spot, warnings);
        self.report.issues(Severity::Error, spot, issues);
        let value = parsed.filter(|_| is_sound)?;
        Some(Item {
            id: id.to_owned(),
            key: format!("/{collection}/{id}"),
            place: at,
            value,
        })
    }

    /// The references in a resource that nothing will stand for.
    fn unresolved(&self, collection: &str, value: &Value, place: Place) -> Vec<Issue> {
        let mut found = Vec::new();
        let plugins = value.get("plugins").and_then(Value::as_object);
        for (name, conf) in plugins.into_iter().flatten() {
            // What identifies a consumer is compiled with care, and told there.
            if !(place == Place::Consumer && self.is_auth(name)) {
                let path = join("plugins", name);
                reference::unresolved(conf, self.env, &path, &mut found);
            }
        }
        match collection {
            "ssls" => {
                for field in ["cert", "key", "certs", "keys"] {
                    if let Some(value) = value.get(field) {
                        reference::unresolved(value, self.env, field, &mut found);
                    }
                }
            }
            "upstreams" => reference::ineffective(value, "", &mut found),
            _ => {
                if let Some(upstream) = value.get("upstream") {
                    reference::ineffective(upstream, "upstream", &mut found);
                }
            }
        }
        found
    }

    /// A later item replaces an earlier one with the same id.
    fn add<T>(&mut self, items: &mut Vec<Item<T>>, places: &mut Places, item: Item<T>) {
        match places.get(&item.id) {
            Some(place) => {
                let earlier = &mut items[*place];
                let message = format!("the id is used twice; this one replaces {}", earlier.place);
                self.report.warning(item.spot(), "id", message);
                *earlier = item;
            }
            None => {
                places.insert(item.id.clone(), items.len());
                items.push(item);
            }
        }
    }

    /// Consumers, and the credentials that stand among them.
    fn consumers(&mut self, root: &mut Map<String, Value>, document: &mut Document) {
        let consumer_schema = schema_of::<Consumer>();
        let credential_schema = schema_of::<CredentialBody>();
        let (mut users, mut credentials) = (Places::new(), Places::new());
        for (index, value) in self.list(root, "consumers").into_iter().enumerate() {
            let id = id_of(&value, index);
            if id.contains("/credentials/") {
                let body: Option<Item<CredentialBody>> = self.item(
                    "consumers",
                    index,
                    &id,
                    value,
                    &credential_schema,
                    credential_rules,
                    Place::Consumer,
                );
                let Some(body) = body else { continue };
                let Some((username, credential_id)) = id.split_once("/credentials/") else {
                    continue;
                };
                if let Some(other) = body.value.plugins.keys().find(|name| !self.is_auth(name)) {
                    let path = join("plugins", other);
                    let message = "only supports auth type plugins in consumer credential";
                    self.report.error(body.spot(), &path, message);
                    continue;
                }
                let value = Credential {
                    username: username.to_owned(),
                    credential_id: credential_id.to_owned(),
                    plugins: body.value.plugins,
                };
                let item = Item {
                    id: body.id,
                    key: body.key,
                    place: body.place,
                    value,
                };
                self.add(&mut document.credentials, &mut credentials, item);
                continue;
            }
            let id = value
                .get("username")
                .and_then(Value::as_str)
                .map_or(id, str::to_owned);
            let consumer = self.item(
                "consumers",
                index,
                &id,
                value,
                &consumer_schema,
                no_rules,
                Place::Consumer,
            );
            if let Some(consumer) = consumer {
                self.add(&mut document.consumers, &mut users, consumer);
            }
        }
    }

    fn is_auth(&self, name: &str) -> bool {
        self.catalog
            .plugin(name)
            .is_some_and(|plugin| plugin.is_auth)
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
            let Some(plugin) = self.catalog.plugin(&id) else {
                continue;
            };
            let mut bare = value;
            if let Some(map) = bare.as_object_mut() {
                map.shift_remove("id");
            }
            let issues = plugin
                .metadata_schema
                .as_ref()
                .map(|schema| schema.validate(&bare))
                .unwrap_or_default();
            if issues.is_empty() {
                document.metadata.insert(id, bare);
                continue;
            }
            let spot = Spot {
                place: &at,
                id: Some(&id),
            };
            self.report.issues(Severity::Error, spot, issues);
        }
    }
}

fn no_rules<T>(_: &T) -> Vec<Issue> {
    Vec::new()
}

fn credential_rules(body: &CredentialBody) -> Vec<Issue> {
    let id_is_fine = body
        .id
        .split_once("/credentials/")
        .is_some_and(|(user, id)| {
            let name = |text: &str, more: &[u8]| {
                !text.is_empty()
                    && text
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
            };
            name(user, b"-_") && name(id, b"-_.")
        });
    let mut wrong = Vec::new();
    if !id_is_fine {
        let text = "must look like `<username>/credentials/<id>`";
        wrong.push(Issue::new("id", text));
    }
    if body.plugins.len() > 1 {
        let text = "expect object to have at most 1 properties";
        wrong.push(Issue::new("plugins", text));
    }
    wrong
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
const COLLECTIONS: [&str; 10] = [
    "routes",
    "services",
    "upstreams",
    "plugin_configs",
    "global_rules",
    "consumer_groups",
    "consumers",
    "ssls",
    "plugin_metadata",
    "plugins",
];
/// What APISIX has besides, and a document may name without effect.
const OUT_OF_SCOPE: [&str; 3] = ["stream_routes", "protos", "secrets"];

#[cfg(test)]
mod tests;
