//! JSON schemas as they must be where an answer is made to fit them.

use serde_json::{Map, Value};

/// A schema with every object closed, and without what is beyond types.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Closed {
    /// `None`: as it was.
    pub(crate) json: Option<String>,
    /// It allowed or forbade more: members of any name, bounds.
    pub(crate) loses: bool,
}

/// Closes `schema`. An answer that fits what becomes of it fits `schema` as well, but for the bounds.
///
/// Source: Anthropic's page on structured output, and what its official clients make of schemas.
pub(crate) fn closed(schema: &str) -> Closed {
    let mut closing = Closing::default();
    let value = serde_json::from_str(schema);
    let json = value.ok().and_then(|mut value| {
        closing.schema(&mut value, 0);
        closing.changed.then(|| value.to_string())
    });
    Closed {
        json,
        loses: closing.loses,
    }
}

#[derive(Default)]
struct Closing {
    changed: bool,
    loses: bool,
}

impl Closing {
    fn schema(&mut self, schema: &mut Value, depth: usize) {
        let Value::Object(schema) = schema else {
            return;
        };
        if depth > DEPTH_MAX {
            return;
        }
        for name in BOUNDS {
            let is_one = name == "minItems" && schema.get(name).and_then(Value::as_u64) <= Some(1);
            if !is_one && schema.remove(name).is_some() {
                self.changed = true;
                self.loses = true;
            }
        }
        if !schema.contains_key("anyOf")
            && let Some(list) = schema.remove("oneOf")
        {
            schema.insert("anyOf".to_owned(), list);
            self.changed = true;
            self.loses = true;
        }
        self.members(schema);
        for name in ["properties", "$defs", "definitions"] {
            let inner = schema.get_mut(name).and_then(Value::as_object_mut);
            for inner in inner.into_iter().flat_map(Map::values_mut) {
                self.schema(inner, depth + 1);
            }
        }
        if let Some(items) = schema.get_mut("items") {
            self.schema(items, depth + 1);
        }
        for name in ["anyOf", "allOf"] {
            let list = schema.get_mut(name).and_then(Value::as_array_mut);
            for item in list.into_iter().flatten() {
                self.schema(item, depth + 1);
            }
        }
    }

    /// Of an object, which members it may have.
    fn members(&mut self, schema: &mut Map<String, Value>) {
        let is_object = match schema.get("type") {
            Some(Value::String(kind)) => kind == "object",
            Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "object"),
            _ => schema.contains_key("properties"),
        };
        if !is_object {
            return;
        }
        match schema.get("additionalProperties") {
            Some(Value::Bool(false)) => return,
            Some(_) => self.loses = true,
            // Without names it takes any.
            None => self.loses |= !schema.contains_key("properties"),
        }
        self.changed = true;
        schema.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
}

/// What no grammar is made of.
const BOUNDS: [&str; 17] = [
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "uniqueItems",
    "contains",
    "minProperties",
    "maxProperties",
    "patternProperties",
    "propertyNames",
    "unevaluatedProperties",
    "dependentRequired",
];

/// Deeper than any parser goes.
const DEPTH_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_closed_and_bounds_left_out() {
        for (schema, expected, loses) in [
            (
                r#"{"type":"object","properties":{"a":{"type":"number"}},"additionalProperties":false}"#,
                None,
                false,
            ),
            (
                r#"{"type":"object","properties":{"minimum":{"type":"number"}}}"#,
                Some(
                    r#"{"type":"object","properties":{"minimum":{"type":"number"}},"additionalProperties":false}"#,
                ),
                false,
            ),
            (
                r#"{"type":"array","minItems":1,"items":{"type":["object","null"],"properties":{},"additionalProperties":true}}"#,
                Some(
                    r#"{"type":"array","minItems":1,"items":{"type":["object","null"],"properties":{},"additionalProperties":false}}"#,
                ),
                true,
            ),
            (
                r#"{"type":"object"}"#,
                Some(r#"{"type":"object","additionalProperties":false}"#),
                true,
            ),
            (
                r##"{"$ref":"#/$defs/d","$defs":{"d":{"oneOf":[{"type":"string","minLength":2},{"type":"array","minItems":2}]}}}"##,
                Some(
                    r##"{"$ref":"#/$defs/d","$defs":{"d":{"anyOf":[{"type":"string"},{"type":"array"}]}}}"##,
                ),
                true,
            ),
            ("{", None, false),
        ] {
            let closed = closed(schema);
            assert_eq!(closed.json.as_deref(), expected, "{schema}");
            assert_eq!(closed.loses, loses, "{schema}");
            let again = super::closed(closed.json.as_deref().unwrap_or(schema));
            assert_eq!(again.json, None, "{schema}");
        }
    }
}
