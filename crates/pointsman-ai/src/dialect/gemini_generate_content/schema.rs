//! Gemini's schemas as JSON schemas.
//!
//! `parameters` and `responseSchema` are of Google's own `Schema`, a part of OpenAPI's: types are
//! enum values, so `STRING`, and what may be null says `nullable`. Everybody else takes JSON schema.

use crate::{
    conversation::Json,
    json::{tree::Node, write::Writer},
};

/// The JSON schema that says what the `Schema` at `node` says.
pub(super) fn json_schema<'a>(node: Node<'_, 'a>) -> Json<'a> {
    let mut out = Vec::with_capacity(node.raw().len());
    schema(node, &mut Writer::new(&mut out));
    // Made of pieces of UTF-8, cut at ASCII.
    match String::from_utf8(out) {
        Ok(text) if text == node.raw() => Json::Borrowed(node.raw()),
        Ok(text) => Json::Owned(text),
        Err(_) => Json::Borrowed(node.raw()),
    }
}

fn schema(node: Node<'_, '_>, w: &mut Writer<'_>) {
    if !node.is_object() {
        return w.raw(node.raw());
    }
    let is_nullable = super::field(node, "nullable").and_then(Node::bool) == Some(true);
    w.object(|w| {
        for (key, value) in node.members() {
            let named = |name| super::is_named(&key, name);
            if named("nullable") || named("propertyOrdering") || value.is_null() {
                continue;
            }
            if named("type") && value.is_string() {
                kind(value, is_nullable, w.key("type"));
            } else if let Some(name) = LISTS.iter().find(|name| named(name)) {
                let w = w.key(name);
                match value.is_array() {
                    true => w.array(|w| value.items().for_each(|item| schema(item, w))),
                    false => schema(value, w),
                }
            } else if let Some(name) = MAPS.iter().find(|name| named(name)) {
                map(value, w.key(name));
            } else if let Some(name) = COUNTS.iter().find(|name| named(name)) {
                // 64-bit numbers are strings in proto3 JSON.
                let number = super::number(value);
                w.key(name)
                    .raw(number.as_deref().unwrap_or_else(|_| value.raw()));
            } else {
                w.key_str(&key).raw(value.raw());
            }
        }
    });
}

fn map(node: Node<'_, '_>, w: &mut Writer<'_>) {
    if !node.is_object() {
        return w.raw(node.raw());
    }
    w.object(|w| {
        for (key, value) in node.members() {
            schema(value, w.key_str(&key));
        }
    });
}

fn kind(value: Node<'_, '_>, is_nullable: bool, w: &mut Writer<'_>) {
    let kind = value
        .str()
        .unwrap_or_default()
        .decode()
        .to_ascii_lowercase();
    if !is_nullable {
        return w.text(&kind);
    }
    w.array(|w| {
        w.text(&kind);
        w.text("null");
    });
}

/// Members that hold a schema or several.
const LISTS: &[&str] = &[
    "items",
    "anyOf",
    "allOf",
    "oneOf",
    "prefixItems",
    "additionalProperties",
    "not",
];
/// Members that hold schemas by name.
const MAPS: &[&str] = &["properties", "$defs", "defs", "definitions"];
/// Members that hold 64-bit numbers.
const COUNTS: &[&str] = &[
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "minProperties",
    "maxProperties",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::parse;

    fn check(schema: &str, expected: &str) {
        let tree = parse(schema.as_bytes()).unwrap();
        assert_eq!(json_schema(tree.root()), expected);
    }

    #[test]
    fn schemas_become_json_schemas() {
        check(
            r#"{"type":"OBJECT","properties":{"type":{"type":"STRING","enum":["A"],"nullable":true},"n":{"type":"ARRAY","items":{"type":"INTEGER"},"min_items":"1"}},"required":["type"],"propertyOrdering":["type","n"]}"#,
            r#"{"type":"object","properties":{"type":{"type":["string","null"],"enum":["A"]},"n":{"type":"array","items":{"type":"integer"},"minItems":1}},"required":["type"]}"#,
        );
        check(
            r#"{"any_of":[{"type":"NUMBER"},{"type":"STRING","maxLength":4}],"description":"type: STRING"}"#,
            r#"{"anyOf":[{"type":"number"},{"type":"string","maxLength":4}],"description":"type: STRING"}"#,
        );
    }

    #[test]
    fn a_json_schema_stays() {
        let schema = r#"{"type":"object","properties":{"a":{"type":["string","null"]}},"additionalProperties":false}"#;
        check(schema, schema);
        check("true", "true");
    }
}
