//! The plugins of a resource, as written.
//!
//! Documents stay in memory as long as their configuration is in force, to be shown, and mostly they
//! are plugins: thousands of instances are thousands of small maps, which take ten times the room of
//! their text. So that is what is kept, and whoever needs a configuration reads it. Nothing that reads
//! it is on the path of a request.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::config::reference;

/// Configurations of plugins by name, in the order in which they stand.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(from = "Map<String, Value>")]
pub struct Plugins(Box<[(Box<str>, Written)]>);

/// The configuration of a plugin.
#[derive(Clone, PartialEq)]
pub struct Written(Form);

#[derive(Clone, PartialEq)]
enum Form {
    /// JSON that reads back as the very same value.
    Text(Box<str>),
    /// Of what might not.
    Value(Value),
}

impl Plugins {
    /// Each with its configuration.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Written)> {
        self.0.iter().map(|(name, written)| (&**name, written))
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| &**name)
    }

    /// Whether one of them may refer to what a secret manager has.
    pub fn may_refer_to_secrets(&self) -> bool {
        self.iter().any(|(_, conf)| conf.may_refer_to_secrets())
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Written {
    /// It, read anew as a rule.
    pub fn value(&self) -> Cow<'_, Value> {
        match &self.0 {
            Form::Text(text) => {
                let value = serde_json::from_str(text);
                Cow::Owned(value.expect("written by `pack`, of what reads back"))
            }
            Form::Value(value) => Cow::Borrowed(value),
        }
    }

    /// Whether it may refer to what a secret manager has; of nearly all configurations it does not.
    pub fn may_refer_to_secrets(&self) -> bool {
        match &self.0 {
            Form::Text(text) => {
                let mut dollars = memchr::memchr_iter(b'$', text.as_bytes());
                dollars.any(|at| text.get(at..).is_some_and(reference::is_secret))
            }
            Form::Value(value) => reference::any(value),
        }
    }

    fn pack(value: Value) -> Self {
        if reads_back(&value, DEPTH_MAX)
            && let Ok(text) = serde_json::to_string(&value)
        {
            return Self(Form::Text(text.into()));
        }
        Self(Form::Value(value))
    }
}

/// Whether the text of `value` is sure to be read as the same: serde_json takes less than 128 levels,
/// and may be wrong in the last bit of a fraction.
fn reads_back(value: &Value, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else {
        return false;
    };
    match value {
        Value::Number(number) => !number.is_f64(),
        Value::Array(items) => items.iter().all(|item| reads_back(item, below)),
        Value::Object(map) => map.values().all(|member| reads_back(member, below)),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

impl From<Map<String, Value>> for Plugins {
    fn from(map: Map<String, Value>) -> Self {
        let pairs = map.into_iter();
        Self(
            pairs
                .map(|(name, value)| (name.into(), Written::pack(value)))
                .collect(),
        )
    }
}

impl Serialize for Plugins {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(name, written)| (name, written.value())))
    }
}

/// Their names only: the rest has credentials.
impl fmt::Debug for Plugins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

impl JsonSchema for Plugins {
    fn schema_name() -> Cow<'static, str> {
        Map::<String, Value>::schema_name()
    }

    fn inline_schema() -> bool {
        Map::<String, Value>::inline_schema()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Map::<String, Value>::json_schema(generator)
    }
}

/// Levels of what is kept as text.
const DEPTH_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_kept_is_what_was_written() {
        let mut deep = json!(1);
        for _ in 0..200 {
            deep = json!([deep]);
        }
        let check = |value: Value, is_text: bool| {
            let written = Written::pack(value.clone());
            assert_eq!(*written.value(), value);
            assert_eq!(matches!(written.0, Form::Text(_)), is_text, "{value}");
        };
        check(
            json!({"b": [1, -1, u64::MAX, i64::MIN], "a": {"ü\u{0}\"": null}}),
            true,
        );
        check(json!({"rate": 0.1}), false);
        check(deep, false);
        let map = json!({"z": {"y": 1, "x": 2.5}, "a": {"key": "secret"}});
        let plugins = Plugins::deserialize(&map).unwrap();
        // In their order, and with nothing that is secret.
        assert_eq!(serde_json::to_string(&plugins).unwrap(), map.to_string());
        assert_eq!(format!("{plugins:?}"), r#"["z", "a"]"#);
    }
}
