//! JSON Schema validation in APISIX's words.
//!
//! Schemas are derived from the typed configuration, so only what they use is understood here:
//! types, bounds, patterns, required and unknown properties, alternatives and references within
//! the schema. All errors are reported, not only the first. A string that refers to a value
//! elsewhere (`$env://`, `$secret://`) passes, because its value is not known yet.

use std::{cell::RefCell, collections::HashMap, fmt::Write as _};

use serde_json::{Map, Value};

use crate::{
    config::{
        reference,
        text::{self, join},
    },
    router::pattern::{Case, Pattern},
};

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Path of the value.
    pub path: String,
    /// What is wrong, in APISIX's words.
    pub message: String,
}

impl Issue {
    /// An issue at `path`.
    pub fn new(path: &str, message: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            message: message.into(),
        }
    }

    /// Whether it is about the member `key`, or something in it.
    pub fn is_in(&self, key: &str) -> bool {
        let rest = self.path.strip_prefix(key);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    }

    /// The same, of a value that stands at `path` in another.
    pub fn under(self, path: &str) -> Self {
        let path = match self.path.as_str() {
            "" => path.to_owned(),
            inner if inner.starts_with('[') => format!("{path}{inner}"),
            inner => join(path, inner),
        };
        Self { path, ..self }
    }
}

/// `value`, an object, without the members in which `issues` are: what is left may still be read,
/// so that what is wrong with the rest is told with them.
pub fn without(value: &Value, issues: &[Issue]) -> Value {
    let mut left = value.clone();
    if let Value::Object(map) = &mut left {
        map.retain(|key, _| !issues.iter().any(|issue| issue.is_in(key)));
    }
    left
}

/// Everything in `value`, which stands at `path`, that `schema` does not allow.
pub fn validate(value: &Value, schema: &Value, path: &str) -> Vec<Issue> {
    let mut validator = Validator {
        root: schema,
        issues: Vec::new(),
    };
    validator.check(value, schema, path, &mut Vec::new());
    validator.issues
}

struct Validator<'s> {
    root: &'s Value,
    issues: Vec<Issue>,
}

/// How APISIX's validator leads up to a nested error: `property "a" validation failed: `.
type Prefix = Vec<String>;

impl Validator<'_> {
    fn check(&mut self, value: &Value, schema: &Value, path: &str, prefix: &mut Prefix) {
        let Some(schema) = schema.as_object() else {
            return;
        };
        if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
            let pointer = target.trim_start_matches('#');
            let root = self.root;
            if let Some(referred) = root.pointer(pointer) {
                self.check(value, referred, path, prefix);
            }
        }
        if value.as_str().is_some_and(reference::is_reference) {
            return;
        }
        if let Some(types) = schema.get("type")
            && !has_type(value, types)
        {
            let expected = type_names(types);
            let mut message = format!("wrong type: expected {expected}, got {}", type_of(value));
            let meant = value.as_str().and_then(text::old_boolean);
            if let Some(meant) = meant.filter(|meant| has_type(&Value::Bool(*meant), types)) {
                let _ = write!(message, " ({value} is text; write {meant})");
            }
            self.fail(path, prefix, message);
            return;
        }
        self.check_choice(value, schema, path, prefix);
        match value {
            Value::Number(_) => self.check_number(value, schema, path, prefix),
            Value::String(text) => self.check_string(text, schema, path, prefix),
            Value::Array(items) => self.check_array(items, schema, path, prefix),
            Value::Object(map) => self.check_object(map, schema, path, prefix),
            Value::Null | Value::Bool(_) => {}
        }
        self.check_alternatives(value, schema, path, prefix);
    }

    fn check_choice(
        &mut self,
        value: &Value,
        schema: &Map<String, Value>,
        path: &str,
        prefix: &Prefix,
    ) {
        if let Some(choices) = schema.get("enum").and_then(Value::as_array)
            && !choices.contains(value)
        {
            self.fail(path, prefix, "matches none of the enum values".to_owned());
        }
        if let Some(constant) = schema.get("const")
            && constant != value
        {
            self.fail(path, prefix, "matches none of the enum values".to_owned());
        }
    }

    fn check_number(
        &mut self,
        value: &Value,
        schema: &Map<String, Value>,
        path: &str,
        prefix: &Prefix,
    ) {
        let number = value.as_f64().unwrap_or_default();
        let bound = |key: &str| {
            schema
                .get(key)
                .and_then(|bound| Some((bound, bound.as_f64()?)))
        };
        // What the parsed type cannot hold is out of bounds too, even where APISIX has no bound.
        let (lowest, highest) = limits_of(schema);
        let mut failures = Vec::new();
        let least = bound("minimum").map(|(bound, least)| (plain(bound), least));
        if let Some((bound, least)) = tighter(least, lowest, f64::max)
            && number < least
        {
            failures.push(format!("expected {value} to be at least {bound}"));
        }
        let most = bound("maximum").map(|(bound, most)| (plain(bound), most));
        if let Some((bound, most)) = tighter(most, highest, f64::min)
            && number > most
        {
            failures.push(format!("expected {value} to be at most {bound}"));
        }
        if let Some((bound, above)) = bound("exclusiveMinimum")
            && number <= above
        {
            failures.push(format!(
                "expected {value} to be greater than {}",
                plain(bound)
            ));
        }
        for message in failures {
            self.fail(path, prefix, message);
        }
    }

    fn check_string(
        &mut self,
        text: &str,
        schema: &Map<String, Value>,
        path: &str,
        prefix: &Prefix,
    ) {
        let length = text.chars().count() as u64;
        let bound = |key: &str| schema.get(key).and_then(Value::as_u64);
        if let Some(least) = bound("minLength").filter(|least| length < *least) {
            let message = format!("string too short, expected at least {least}, got {length}");
            self.fail(path, prefix, message);
        }
        if let Some(most) = bound("maxLength").filter(|most| length > *most) {
            let message = format!("string too long, expected at most {most}, got {length}");
            self.fail(path, prefix, message);
        }
        if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
            && !matches(pattern, text)
        {
            let message = format!("failed to match pattern \"{pattern}\" with \"{text}\"");
            self.fail(path, prefix, message);
        }
    }

    fn check_array(
        &mut self,
        items: &[Value],
        schema: &Map<String, Value>,
        path: &str,
        prefix: &mut Prefix,
    ) {
        let count = items.len() as u64;
        let bound = |key: &str| schema.get(key).and_then(Value::as_u64);
        if let Some(least) = bound("minItems").filter(|least| count < *least) {
            self.fail(
                path,
                prefix,
                format!("expect array to have at least {least} items"),
            );
        }
        if let Some(most) = bound("maxItems").filter(|most| count > *most) {
            self.fail(
                path,
                prefix,
                format!("expect array to have at most {most} items"),
            );
        }
        if schema.get("uniqueItems") == Some(&Value::Bool(true)) {
            let twice = (0..items.len()).find_map(|b| {
                items[..b]
                    .iter()
                    .position(|a| *a == items[b])
                    .map(|a| (a, b))
            });
            if let Some((a, b)) = twice {
                let message = format!(
                    "expected unique items but items {} and {} are equal",
                    a + 1,
                    b + 1
                );
                self.fail(path, prefix, message);
            }
        }
        if let Some(each) = schema.get("items") {
            for (index, item) in items.iter().enumerate() {
                prefix.push(format!("failed to validate item {}: ", index + 1));
                self.check(item, each, &format!("{path}[{index}]"), prefix);
                prefix.pop();
            }
        }
    }

    fn check_object(
        &mut self,
        map: &Map<String, Value>,
        schema: &Map<String, Value>,
        path: &str,
        prefix: &mut Prefix,
    ) {
        let properties = schema.get("properties").and_then(Value::as_object);
        for required in schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let Some(name) = required.as_str() else {
                continue;
            };
            if !map.contains_key(name) {
                self.fail(path, prefix, format!("property \"{name}\" is required"));
            }
        }
        for (key, member) in map {
            let inner = join(path, key);
            self.check_name(key, schema, &inner, prefix);
            if let Some(property) = properties.and_then(|properties| properties.get(key)) {
                prefix.push(format!("property \"{key}\" validation failed: "));
                self.check(member, property, &inner, prefix);
                prefix.pop();
                continue;
            }
            let pattern = pattern_for(schema, key);
            if let Some((pattern, each)) = pattern {
                prefix.push(format!(
                    "failed to validate {key} (matching \"{pattern}\"): "
                ));
                self.check(member, each, &inner, prefix);
                prefix.pop();
                continue;
            }
            match schema.get("additionalProperties") {
                Some(Value::Bool(false)) => {
                    self.fail(
                        &inner,
                        prefix,
                        format!("additional properties forbidden, found {key}"),
                    );
                }
                Some(each @ Value::Object(_)) => {
                    prefix.push(format!("failed to validate {key} (matching \".*\"): "));
                    self.check(member, each, &inner, prefix);
                    prefix.pop();
                }
                _ => {}
            }
        }
        if let Some(least) = schema.get("minProperties").and_then(Value::as_u64)
            && (map.len() as u64) < least
        {
            self.fail(
                path,
                prefix,
                format!("expect object to have at least {least} properties"),
            );
        }
    }

    fn check_name(&mut self, key: &str, schema: &Map<String, Value>, path: &str, prefix: &Prefix) {
        let names = schema.get("propertyNames");
        let pattern = names.and_then(|names| names.get("pattern")?.as_str());
        if let Some(pattern) = pattern.filter(|pattern| !matches(pattern, key)) {
            let message = format!("failed to match pattern \"{pattern}\" with \"{key}\"");
            self.fail(path, prefix, message);
        }
    }

    fn check_alternatives(
        &mut self,
        value: &Value,
        schema: &Map<String, Value>,
        path: &str,
        prefix: &mut Prefix,
    ) {
        for all in schema
            .get("allOf")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            self.check(value, all, path, prefix);
        }
        if let Some(any) = schema.get("anyOf").and_then(Value::as_array) {
            let matching = self.matching(value, any, path);
            if matching.is_empty() {
                let best = self.nearest(value, any, path);
                match best {
                    Some(issues) => self.adopt(issues, prefix),
                    None => self.fail(
                        path,
                        prefix,
                        "object matches none of the required".to_owned() + &required_sets(any),
                    ),
                }
            }
        }
        if let Some(one) = schema.get("oneOf").and_then(Value::as_array) {
            match self.matching(value, one, path).as_slice() {
                [_] => {}
                [] => match self.nearest(value, one, path) {
                    Some(issues) => self.adopt(issues, prefix),
                    None => self.fail(
                        path,
                        prefix,
                        "value should match only one schema, but matches none".to_owned(),
                    ),
                },
                [first, second, ..] => {
                    let message = format!(
                        "value should match only one schema, but matches both schemas {} and {}",
                        first + 1,
                        second + 1
                    );
                    self.fail(path, prefix, message);
                }
            }
        }
    }

    fn matching(&self, value: &Value, schemas: &[Value], path: &str) -> Vec<usize> {
        (0..schemas.len())
            .filter(|index| self.trial(value, &schemas[*index], path).is_empty())
            .collect()
    }

    /// The errors worth telling when no alternative fits: those of the one that was meant.
    fn nearest(&self, value: &Value, schemas: &[Value], path: &str) -> Option<Vec<Issue>> {
        let resolved: Vec<&Value> = schemas.iter().map(|schema| self.resolved(schema)).collect();
        if resolved.iter().all(|schema| schema.get("const").is_some()) {
            return Some(vec![Issue::new(
                path,
                "matches none of the enum values".to_owned(),
            )]);
        }
        // An optional field is "that, or null".
        let meant = |schema: &&&Value| schema.get("type").and_then(Value::as_str) != Some("null");
        let others: Vec<&Value> = resolved.iter().filter(meant).copied().collect();
        let typed = |schema: &&&Value| {
            schema
                .get("type")
                .is_some_and(|types| has_type(value, types))
        };
        let typed: Vec<&Value> = others.iter().filter(typed).copied().collect();
        match (others.as_slice(), typed.as_slice()) {
            ([only], _) if others.len() < resolved.len() => Some(self.trial(value, only, path)),
            (_, [only]) => Some(self.trial(value, only, path)),
            _ => None,
        }
    }

    fn resolved<'s>(&'s self, schema: &'s Value) -> &'s Value {
        let target = schema.get("$ref").and_then(Value::as_str);
        target
            .and_then(|target| self.root.pointer(target.trim_start_matches('#')))
            .unwrap_or(schema)
    }

    fn trial(&self, value: &Value, schema: &Value, path: &str) -> Vec<Issue> {
        let mut trial = Validator {
            root: self.root,
            issues: Vec::new(),
        };
        trial.check(value, schema, path, &mut Vec::new());
        trial.issues
    }

    fn adopt(&mut self, issues: Vec<Issue>, prefix: &Prefix) {
        for issue in issues {
            let message = prefix.concat() + &issue.message;
            self.issues.push(Issue {
                path: issue.path,
                message,
            });
        }
    }

    fn fail(&mut self, path: &str, prefix: &Prefix, message: String) {
        self.issues.push(Issue {
            path: path.to_owned(),
            message: prefix.concat() + &message,
        });
    }
}

fn pattern_for<'s>(schema: &'s Map<String, Value>, key: &str) -> Option<(&'s str, &'s Value)> {
    let patterns = schema.get("patternProperties")?.as_object()?;
    patterns
        .iter()
        .find_map(|(pattern, each)| matches(pattern, key).then_some((pattern.as_str(), each)))
}

/// Whether `text` matches `pattern`; never, if that is not a pattern.
fn matches(pattern: &str, text: &str) -> bool {
    thread_local! {
        // Patterns come from the schemas, of which there are a few dozen; texts come by the ten
        // thousand.
        static COMPILED: RefCell<HashMap<String, Option<Pattern>>> = RefCell::default();
    }
    COMPILED.with_borrow_mut(|compiled| {
        if !compiled.contains_key(pattern) {
            let new = Pattern::new(pattern, Case::Sensitive).ok();
            compiled.insert(pattern.to_owned(), new);
        }
        let pattern = compiled.get(pattern).and_then(Option::as_ref);
        pattern.is_some_and(|pattern| pattern.is_match(text).unwrap_or(false))
    })
}

/// The least and the greatest number of the type that a value is parsed into.
fn limits_of(schema: &Map<String, Value>) -> (Option<f64>, Option<f64>) {
    let (least, most) = match schema.get("format").and_then(Value::as_str) {
        Some("uint8") => (0.0, f64::from(u8::MAX)),
        Some("uint16") => (0.0, f64::from(u16::MAX)),
        Some("uint32") => (0.0, f64::from(u32::MAX)),
        Some("int32") => (f64::from(i32::MIN), f64::from(i32::MAX)),
        Some("uint64" | "uint") => (0.0, U64_SAFE),
        _ => return (None, None),
    };
    (Some(least), Some(most))
}

fn tighter(
    written: Option<(String, f64)>,
    limit: Option<f64>,
    of: fn(f64, f64) -> f64,
) -> Option<(String, f64)> {
    match (written, limit) {
        (None, None) => None,
        (None, Some(limit)) => Some((format!("{limit:.0}"), limit)),
        (Some(written), None) => Some(written),
        (Some((text, written)), Some(limit)) => {
            let tighter = of(written, limit);
            let is_written = tighter.total_cmp(&written).is_eq();
            Some(if is_written {
                (text, written)
            } else {
                (format!("{limit:.0}"), limit)
            })
        }
    }
}

/// The greatest float whose integer fits in 64 bits.
const U64_SAFE: f64 = 18_446_744_073_709_549_568.0;

/// `: ["active"] or ["active","passive"]` for alternatives that differ in what they require.
fn required_sets(schemas: &[Value]) -> String {
    let mut text = String::new();
    for (index, schema) in schemas.iter().enumerate() {
        let Some(required) = schema.get("required") else {
            return String::new();
        };
        let _ = write!(text, "{} {required}", if index == 0 { ":" } else { " or" });
    }
    text
}

fn has_type(value: &Value, types: &Value) -> bool {
    match types {
        Value::String(name) => is_type(value, name),
        Value::Array(names) => names
            .iter()
            .filter_map(Value::as_str)
            .any(|name| is_type(value, name)),
        _ => true,
    }
}

fn is_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        _ => true,
    }
}

fn type_names(types: &Value) -> String {
    match types {
        Value::String(name) => name.clone(),
        Value::Array(names) => {
            let names: Vec<&str> = names
                .iter()
                .filter_map(Value::as_str)
                .filter(|name| *name != "null")
                .collect();
            names.join(" or ")
        }
        _ => "something else".to_owned(),
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// `1` rather than `1.0`.
fn plain(bound: &Value) -> String {
    match bound.as_f64() {
        Some(number) if number.fract() == 0.0 && number.abs() < 1e15 => format!("{number:.0}"),
        _ => bound.to_string(),
    }
}

#[cfg(test)]
mod tests;
