//! Whether a schema that somebody else wrote asks only for what can be checked here.
//!
//! Schemas of ours are known to; one out of a configuration may have anything in it, and a keyword that
//! is not understood asks nothing, which would let values through that were to be kept out.

use serde_json::{Map, Value};

use super::Issue;
use crate::{
    config::text::join,
    router::pattern::{Case, Pattern},
};

/// Everything in `schema`, which stands at `path`, that cannot be checked.
pub fn unsupported(schema: &Value, path: &str) -> Vec<Issue> {
    let mut found = Vec::new();
    look(schema, path, &mut found);
    found
}

fn look(schema: &Value, path: &str, found: &mut Vec<Issue>) {
    match schema {
        Value::Bool(true) => {}
        Value::Object(keywords) => {
            for (keyword, value) in keywords {
                look_at(keyword, value, &join(path, keyword), found);
            }
        }
        _ => found.push(Issue::new(
            path,
            format!("{path}: a schema must be an object"),
        )),
    }
}

fn look_at(keyword: &str, value: &Value, path: &str, found: &mut Vec<Issue>) {
    let expected = match keyword {
        "title" | "description" | "default" | "examples" | "deprecated" | "readOnly"
        | "writeOnly" | "$schema" | "$id" | "$comment" | "const" => return,
        "type" if types(value) => return,
        "type" => "one of object, array, string, number, integer, boolean, null, or a list of them",
        "enum" if value.is_array() => return,
        "enum" => "a list",
        "minimum" | "maximum" | "exclusiveMinimum" if value.is_number() => return,
        "minimum" | "maximum" | "exclusiveMinimum" => "a number",
        "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" if value.is_u64() => {
            return;
        }
        "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" => "a whole number",
        "uniqueItems" if value.is_boolean() => return,
        "uniqueItems" => "true or false",
        "required" if texts(value) => return,
        "required" => "a list of names",
        "pattern" => match value.as_str() {
            Some(pattern) => return compile(pattern, path, found),
            None => "a pattern",
        },
        "additionalProperties" if value.is_boolean() => return,
        "items" | "additionalProperties" => return look(value, path, found),
        "properties" | "patternProperties" => match value.as_object() {
            Some(members) => return look_at_members(keyword, members, path, found),
            None => "an object of schemas",
        },
        "propertyNames" => match value.as_object().map(|names| (names.len(), names)) {
            Some((1, names)) if names.contains_key("pattern") => return look(value, path, found),
            _ => "an object with a pattern and nothing else",
        },
        "allOf" | "anyOf" | "oneOf" => match value.as_array() {
            Some(schemas) => {
                for (index, schema) in schemas.iter().enumerate() {
                    look(schema, &format!("{path}[{index}]"), found);
                }
                return;
            }
            None => "a list of schemas",
        },
        _ => {
            let text = format!("{path}: the keyword {keyword} is not supported in schemas");
            found.push(Issue::new(path, text));
            return;
        }
    };
    found.push(Issue::new(path, format!("{path}: must be {expected}")));
}

fn look_at_members(
    keyword: &str,
    members: &Map<String, Value>,
    path: &str,
    found: &mut Vec<Issue>,
) {
    for (name, schema) in members {
        let path = join(path, name);
        if keyword == "patternProperties" {
            compile(name, &path, found);
        }
        look(schema, &path, found);
    }
}

fn compile(pattern: &str, path: &str, found: &mut Vec<Issue>) {
    if let Err(error) = Pattern::new(pattern, Case::Sensitive) {
        found.push(Issue::new(path, format!("{path}: {error}")));
    }
}

fn texts(value: &Value) -> bool {
    let list = value.as_array();
    list.is_some_and(|list| list.iter().all(Value::is_string))
}

fn types(value: &Value) -> bool {
    let is_one = |value: &Value| {
        let name = value.as_str();
        name.is_some_and(|name| TYPES.contains(&name))
    };
    match value {
        Value::Array(names) => !names.is_empty() && names.iter().all(is_one),
        name => is_one(name),
    }
}

const TYPES: [&str; 7] = [
    "object", "array", "string", "number", "integer", "boolean", "null",
];
