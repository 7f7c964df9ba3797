//! References in strings of plugin configurations and certificates, to values that stand elsewhere: in the
//! environment (`$env://NAME`, `$env://NAME/key`), or with a secret manager
//! (`$secret://<manager>/<id>/<name>/<key>`).

use serde_json::Value;

use crate::{
    config::{
        schema::Issue,
        text::{Env, join},
    },
    secrets::{self, Values},
};

/// Where the values stand that resources refer to.
#[derive(Clone, Copy)]
pub struct Elsewhere<'a> {
    /// The environment.
    pub env: Env<'a>,
    /// What secret managers have said so far.
    pub secrets: &'a Values,
}

/// Replaces every reference that can be resolved; others stay as they are.
pub fn resolve(value: &mut Value, elsewhere: Elsewhere<'_>) {
    match value {
        Value::String(text) => {
            if let Some(found) = look_up(text, elsewhere) {
                *text = found;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| resolve(item, elsewhere)),
        Value::Object(map) => map
            .values_mut()
            .for_each(|member| resolve(member, elsewhere)),
        _ => {}
    }
}

/// What a reference stands for; any other text stands for itself.
pub fn resolved(text: &str, elsewhere: Elsewhere<'_>) -> String {
    look_up(text, elsewhere).unwrap_or_else(|| text.to_owned())
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
    has_scheme(text, ENV) || is_secret(text)
}

/// Whether `text` refers to a value that a secret manager has.
pub fn is_secret(text: &str) -> bool {
    secrets::rest_of(text).is_some()
}

/// Why nothing stands for the reference `text`; `None` for one that can be replaced, and for any
/// other text. Names variables and secrets, never a value.
pub fn problem(text: &str, elsewhere: Elsewhere<'_>) -> Option<String> {
    if is_secret(text) {
        let is_known = elsewhere.secrets.get(text).is_some();
        return (!is_known).then(|| format!("{text}: {}", elsewhere.secrets.problem(text)));
    }
    unset(text, elsewhere.env)
}

/// The same of a reference to the environment.
fn unset(text: &str, env: Env<'_>) -> Option<String> {
    if !has_scheme(text, ENV) || of_env(text, env).is_some() {
        return None;
    }
    let rest = &text[ENV.len()..];
    Some(match rest.split_once('/') {
        Some((name, key)) if env(name).is_some() => {
            format!("environment variable {name} has no `{key}`")
        }
        Some((name, _)) => format!("environment variable {name} is not set"),
        None => format!("environment variable {rest} is not set"),
    })
}

/// Adds to `found` every reference to the environment in `value`, which stands at `path`, that nothing stands
/// for. What secret managers have is not known before it is asked for.
pub fn unresolved(value: &Value, env: Env<'_>, path: &str, found: &mut Vec<Issue>) {
    let tell = |text: &str| {
        let problem = unset(text, env)?;
        Some(format!("{problem}, so the reference stays as it is"))
    };
    each(value, path, &tell, found);
}

/// Adds to `found` every reference to a secret in `value`, which stands at `path`, that nothing stands for.
pub fn unknown(value: &Value, elsewhere: Elsewhere<'_>, path: &str, found: &mut Vec<Issue>) {
    let tell = |text: &str| {
        let problem = problem(text, elsewhere).filter(|_| is_secret(text))?;
        Some(format!("{problem}, so the reference stays as it is"))
    };
    each(value, path, &tell, found);
}

/// The same of every reference in an upstream, where APISIX replaces none.
pub fn ineffective(upstream: &Value, path: &str, found: &mut Vec<Issue>) {
    let tell = |text: &str| {
        let message = "references have no effect in an upstream, so this one stays as it is";
        is_reference(text).then(|| message.to_owned())
    };
    each(upstream, path, &tell, found);
}

/// What `tell` has to say of each text in `value`. Paths are made only where there is something
/// to say: nearly all documents have nothing.
fn each(value: &Value, path: &str, tell: &dyn Fn(&str) -> Option<String>, found: &mut Vec<Issue>) {
    match value {
        Value::String(text) => {
            found.extend(tell(text).map(|message| Issue::new(path, message)));
        }
        Value::Array(items) if any(value) => {
            for (index, item) in items.iter().enumerate() {
                each(item, &format!("{path}[{index}]"), tell, found);
            }
        }
        Value::Object(map) if any(value) => {
            for (key, member) in map {
                each(member, &join(path, key), tell, found);
            }
        }
        _ => {}
    }
}

fn has_scheme(text: &str, scheme: &str) -> bool {
    text.get(..scheme.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
}

fn look_up(text: &str, elsewhere: Elsewhere<'_>) -> Option<String> {
    match is_secret(text) {
        true => elsewhere.secrets.get(text).map(str::to_owned),
        false => of_env(text, elsewhere.env),
    }
}

/// What a reference to the environment stands for.
pub fn of_env(text: &str, env: Env<'_>) -> Option<String> {
    if !has_scheme(text, ENV) {
        return None;
    }
    let rest = &text[ENV.len()..];
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

const ENV: &str = "$env://";

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
        let secrets = Values::default();
        let elsewhere = Elsewhere {
            env: &env,
            secrets: &secrets,
        };
        resolve(&mut value, elsewhere);
        assert_eq!(
            value,
            json!({"a": "secret", "b": ["v", "5"], "c": "$env://missing", "d": "x$env://K"})
        );
        assert!(is_reference("$env://missing"));
        assert!(is_reference("$secret://vault/1/a"));
        assert!(!is_reference("plain"));
    }

    #[test]
    fn what_nothing_stands_for_is_told_with_its_place() {
        let env = |name: &str| (name == "K").then(|| "s3cret".to_owned());
        let value = json!({
            "a": "$env://K", "b": [1, {"c": "$Env://x"}], "d": "$env://K/k", "e": "$SECRET://a/b/c"
        });
        let mut found = Vec::new();
        unresolved(&value, &env, "p", &mut found);
        let told: Vec<String> = found
            .iter()
            .map(|issue| format!("{}: {}", issue.path, issue.message))
            .collect();
        let then = "so the reference stays as it is";
        assert_eq!(
            told,
            [
                format!("p.b[1].c: environment variable x is not set, {then}"),
                format!("p.d: environment variable K has no `k`, {then}"),
            ]
        );
    }
}
