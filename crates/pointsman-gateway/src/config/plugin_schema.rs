//! What configuration must know of a plugin, and how plugin configurations are checked.

mod faults;
mod strays;

use std::borrow::Cow;

use serde_json::{Map, Value};

pub use self::faults::{Faults, Unreadable};
use crate::{
    config::{
        schema::{self, Issue, Schema},
        text::join,
    },
    router::Expr,
};

/// A plugin's name, schemas and cross-field rules.
pub struct PluginSchema {
    /// Its name.
    pub name: &'static str,
    /// Higher runs earlier.
    pub priority: i32,
    /// As APISIX counts it.
    pub version: &'static str,
    /// JSON Schema of its configuration.
    pub schema: Schema,
    /// What its configuration in a consumer or credential must be.
    pub consumer_schema: Option<ConsumerSchema>,
    /// JSON Schema of its metadata.
    pub metadata_schema: Option<Schema>,
    /// Authenticates consumers.
    pub is_auth: bool,
    /// Rules that the schema cannot say. Called whatever the schema says, and tells every rule that
    /// is broken.
    pub check: fn(&Value) -> Result<(), Faults>,
}

/// What the configuration of an authentication plugin must be in a consumer or credential.
pub struct ConsumerSchema {
    /// JSON Schema.
    pub schema: Schema,
    /// Rules that the schema cannot say.
    pub check: fn(&Value) -> Result<(), Faults>,
}

/// All plugins that configuration may name.
pub trait PluginCatalog {
    /// The plugin called `name`.
    fn plugin(&self, name: &str) -> Option<&PluginSchema>;
    /// All names.
    fn names(&self) -> Vec<&'static str>;
}

/// The plugins that a document names in its own `plugins` list.
pub(crate) struct Named<'a> {
    all: &'a dyn PluginCatalog,
    names: Vec<String>,
}

impl<'a> Named<'a> {
    /// Takes the list out of `root`; `None` when the document has no such list.
    pub(crate) fn of(root: &mut Map<String, Value>, all: &'a dyn PluginCatalog) -> Option<Self> {
        let list = root.remove("plugins")?;
        let name = |entry: &Value| {
            entry
                .get("name")
                .unwrap_or(entry)
                .as_str()
                .map(str::to_owned)
        };
        // Entries of the stream kind are out of scope, as stream routes are.
        let names = list
            .as_array()
            .into_iter()
            .flatten()
            .filter(|entry| entry.get("stream") != Some(&Value::Bool(true)))
            .filter_map(name)
            .collect();
        Some(Self { all, names })
    }
}

impl PluginCatalog for Named<'_> {
    fn plugin(&self, name: &str) -> Option<&PluginSchema> {
        let named = self.names.iter().any(|own| own == name);
        self.all.plugin(name).filter(|_| named)
    }

    fn names(&self) -> Vec<&'static str> {
        let mut names = self.all.names();
        names.retain(|name| self.names.iter().any(|own| own == name));
        names
    }
}

/// Where a plugin configuration stands: decides which schema applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Route, service, plugin_config, global rule.
    Traffic,
    /// Consumer, consumer group or credential.
    Consumer,
}

/// What is wrong with `plugins`; the second list is worth a warning only.
pub fn check(
    plugins: &Map<String, Value>,
    place: Place,
    catalog: &dyn PluginCatalog,
) -> (Vec<Issue>, Vec<Issue>) {
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    for (name, conf) in plugins {
        let path = join("plugins", name);
        let Some(plugin) = catalog.plugin(name) else {
            errors.push(Issue::new(&path, format!("unknown plugin [{name}]")));
            continue;
        };
        let found = check_one(plugin, conf, place, &path);
        warnings.extend(strays::find(
            schema_at(plugin, place).written(),
            conf,
            &path,
        ));
        let disabled = conf.get("_meta").and_then(|m| m.get("disable")) == Some(&Value::Bool(true));
        if disabled {
            warnings.extend(found)
        } else {
            errors.extend(found)
        }
    }
    (errors, warnings)
}

/// What a plugin's configuration must look like in `place`.
fn schema_at(plugin: &PluginSchema, place: Place) -> &Schema {
    match (place, plugin.is_auth, &plugin.consumer_schema) {
        (Place::Consumer, true, Some(consumer)) => &consumer.schema,
        _ => &plugin.schema,
    }
}

fn check_one(plugin: &PluginSchema, conf: &Value, place: Place, path: &str) -> Vec<Issue> {
    let name = plugin.name;
    if !conf.is_object() {
        let message = format!("invalid plugin conf {conf} for plugin [{name}]");
        return vec![Issue::new(path, message)];
    }
    let wrap = |issue: Issue| {
        let message = format!(
            "failed to check the configuration of plugin {name} err: {}",
            issue.message
        );
        Issue {
            path: issue.path,
            message,
        }
    };
    let mut found = check_meta(conf, path);
    let schema = schema_at(plugin, place);
    let mut bare = Cow::Borrowed(conf);
    if conf.get("_meta").is_some()
        && let Some(map) = bare.to_mut().as_object_mut()
    {
        map.shift_remove("_meta");
    }
    let broken = schema.validate(&bare);
    let mut issues = broken.clone();
    let rules = match (place, plugin.is_auth, &plugin.consumer_schema) {
        (Place::Consumer, true, Some(consumer)) => consumer.check,
        (Place::Consumer, true, None) => |_: &Value| Ok(()),
        _ => plugin.check,
    };
    issues.extend(broken_rules(rules, &bare, &broken));
    found.extend(issues.into_iter().map(|issue| wrap(issue.under(path))));
    found
}

/// The rules that `conf` breaks, whatever `broken` parts its schema found.
fn broken_rules(
    rules: fn(&Value) -> Result<(), Faults>,
    conf: &Value,
    broken: &[Issue],
) -> Vec<Issue> {
    match rules(conf) {
        Ok(()) => Vec::new(),
        Err(Faults::Unreadable(_)) if !broken.is_empty() => {
            match rules(&schema::without(conf, broken)) {
                Err(Faults::Rules(issues)) => issues,
                Ok(()) | Err(Faults::Unreadable(_)) => Vec::new(),
            }
        }
        Err(faults) => faults.into_issues(),
    }
}

fn check_meta(conf: &Value, path: &str) -> Vec<Issue> {
    let Some(meta) = conf.get("_meta") else {
        return Vec::new();
    };
    let path = join(path, "_meta");
    let Some(meta) = meta.as_object() else {
        return vec![Issue::new(&path, "wrong type: expected object".to_owned())];
    };
    let mut found = Vec::new();
    for (key, value) in meta {
        let wrong = match (key.as_str(), value) {
            ("disable", Value::Bool(_))
            | ("error_response", Value::String(_) | Value::Object(_)) => None,
            ("priority", number) if number.as_i64().is_some() => None,
            ("filter", filter) => Expr::parse(filter)
                .err()
                .map(|error| format!("failed to validate the 'vars' expression: {error}")),
            ("pre_function", _) => Some("Lua is not supported; remove pre_function".to_owned()),
            ("disable" | "error_response" | "priority", _) => {
                Some(format!("property \"{key}\" validation failed: wrong type"))
            }
            _ => Some(format!("additional properties forbidden, found {key}")),
        };
        found.extend(wrong.map(|message| Issue::new(&join(&path, key), message)));
    }
    found
}
