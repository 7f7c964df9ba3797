//! JSON schemas as OpenAI's strict mode wants them.

use serde_json::{Map, Value};

/// The same schema with every object closed and every property required, as strict mode demands
/// (APISIX 3.18). `None` if it is not JSON.
pub(super) fn strict(schema: &str) -> Option<String> {
    let mut schema: Value = serde_json::from_str(schema).ok()?;
    close(&mut schema, 0);
    serde_json::to_string(&schema).ok()
}

fn close(schema: &mut Value, depth: usize) {
    let Value::Object(schema) = schema else {
        return;
    };
    if depth > DEPTH_MAX {
        return;
    }
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        let mut names: Vec<String> = properties.keys().cloned().collect();
        names.sort();
        for property in properties.values_mut() {
            close(property, depth + 1);
        }
        schema.insert("additionalProperties".to_owned(), Value::Bool(false));
        let names = names.into_iter().map(Value::String).collect();
        schema.insert("required".to_owned(), Value::Array(names));
    }
    if let Some(items) = schema.get_mut("items") {
        close(items, depth + 1);
    }
    for name in ["anyOf", "oneOf", "allOf"] {
        if let Some(Value::Array(list)) = schema.get_mut(name) {
            list.iter_mut().for_each(|item| close(item, depth + 1));
        }
    }
    for name in ["$defs", "definitions"] {
        let definitions: Option<&mut Map<String, Value>> =
            schema.get_mut(name).and_then(Value::as_object_mut);
        for definition in definitions.into_iter().flat_map(Map::values_mut) {
            close(definition, depth + 1);
        }
    }
}

/// Deeper than any parser goes.
const DEPTH_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    /// P-103
    #[test]
    fn objects_are_closed_at_every_level() {
        let schema = r##"{"type":"object","properties":{"b":{"type":"array","items":{"type":"object","properties":{}}},"a":{"anyOf":[{"type":"object","properties":{"x":{}}},{"type":"null"}]}},"required":["b"],"$defs":{"d":{"type":"object","properties":{"y":{"type":"string"}}}},"free":{"type":"object"}}"##;
        let expected = r##"{"type":"object","properties":{"b":{"type":"array","items":{"type":"object","properties":{},"additionalProperties":false,"required":[]}},"a":{"anyOf":[{"type":"object","properties":{"x":{}},"additionalProperties":false,"required":["x"]},{"type":"null"}]}},"required":["a","b"],"$defs":{"d":{"type":"object","properties":{"y":{"type":"string"}},"additionalProperties":false,"required":["y"]}},"free":{"type":"object"},"additionalProperties":false}"##;
        assert_eq!(strict(schema).unwrap(), expected);
        assert_eq!(
            strict(r#"{"type":"object"}"#).unwrap(),
            r#"{"type":"object"}"#
        );
        assert_eq!(strict("{"), None);
    }
}
