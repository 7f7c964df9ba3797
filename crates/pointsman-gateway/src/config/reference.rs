//! `$env://NAME` and `$env://NAME/key` in strings of plugin configurations.

use serde_json::Value;

use crate::config::text::Env;

/// Replaces every reference to the environment that can be resolved; others stay as they are.
pub fn resolve(value: &mut Value, env: Env<'_>) {
    match value {
        Value::String(text) => {
            if let Some(found) = look_up(text, env) {
                *text = found;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| resolve(item, env)),
        Value::Object(map) => map.values_mut().for_each(|member| resolve(member, env)),
        _ => {}
    }
}

/// What a reference stands for; any other text stands for itself.
pub fn resolved(text: &str, env: Env<'_>) -> String {
    look_up(text, env).unwrap_or_else(|| text.to_owned())
}

/// Whether anything in `value` refers to a value elsewhere.
pub fn any(value: &Value) -> bool {
    match value {
        Value::String(text) => is_reference(text),
        Value::Array(items) => items.iter().any(any),
        Value::Object(map) => map.values().any(any),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Whether `text` refers to a value elsewhere.
pub fn is_reference(text: &str) -> bool {
    has_scheme(text, "$env://") || has_scheme(text, "$secret://")
}

fn has_scheme(text: &str, scheme: &str) -> bool {
    text.get(..scheme.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
}

fn look_up(text: &str, env: Env<'_>) -> Option<String> {
    if !has_scheme(text, "$env://") {
        return None;
    }
    let rest = &text["$env://".len()..];
    let (name, key) = match rest.split_once('/') {
        Some((name, key)) => (name, Some(key)),
        None => (rest, None),
    };
    let value = env(name)?;
    let Some(key) = key else { return Some(value) };
    let json: Value = serde_json::from_str(&value).ok()?;
    match json.get(key)? {
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// G-281, G-282
    #[test]
    fn references_are_replaced_where_they_can_be() {
        let env = |name: &str| match name {
            "K" => Some("secret".to_owned()),
            "J" => Some(r#"{"k":"v","n":5}"#.to_owned()),
            _ => None,
        };
        let mut value = json!({
            "a": "$env://K", "b": ["$ENV://J/k", "$env://J/n"], "c": "$env://missing", "d": "x$env://K"
        });
        resolve(&mut value, &env);
        assert_eq!(
            value,
            json!({"a": "secret", "b": ["v", "5"], "c": "$env://missing", "d": "x$env://K"})
        );
        assert!(is_reference("$env://missing"));
        assert!(is_reference("$secret://vault/1/a"));
        assert!(!is_reference("plain"));
    }
}
