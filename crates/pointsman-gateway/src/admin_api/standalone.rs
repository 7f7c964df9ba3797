//! The standalone Admin API (APISIX 3.18): a whole document is given, and replaces the one before.
//!
//! Each collection has a version. One that does not rise leaves the collection as it is, whatever is
//! sent with it; a digest that the client chooses says whether anything has changed at all.

pub(super) mod yaml;

use std::collections::HashSet;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use serde_json::{Map, Value, json};

use super::{
    Ask, Context, empty,
    look::members,
    parse,
    refusal::Refusal,
    target,
    validate::{self, duplicate, identifier, in_documents, item_problem},
};
use crate::{
    admin,
    config::{
        collection::Collection,
        document::{Document, Parsed, item::ItemReader},
        plugin_schema::PluginCatalog,
        text::{self, Env, Lines},
    },
};

/// The document that is held.
#[derive(Clone, Default)]
pub struct Held {
    /// As it is shown.
    shown: Map<String, Value>,
    /// What is served: an item that says that it has not changed is the one before.
    served: Map<String, Value>,
    /// How many documents there were.
    count: u64,
}

impl Held {
    /// How many documents there were before this one and with it.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// What is to be served.
    pub fn document(&self, env: Env<'_>, catalog: &dyn PluginCatalog) -> Parsed {
        let mut root = self.served.clone();
        for (_, items) in &mut root {
            for item in items.as_array_mut().into_iter().flatten() {
                if let Some(map) = item.as_object_mut() {
                    map.shift_remove("modifiedIndex");
                }
            }
        }
        Document::read(root, Lines::default(), env, catalog)
    }

    fn version(&self, name: &str) -> f64 {
        let version = self.shown.get(&version_key(name));
        version.and_then(Value::as_f64).unwrap_or_default()
    }

    fn digest(&self) -> Option<&str> {
        self.shown.get(DIGEST)?.as_str()
    }
}

/// Answers a request.
pub(super) fn answer(
    ask: &Ask<'_>,
    body: &Bytes,
    context: &Context<'_>,
    held: &mut Held,
) -> Result<Response<Bytes>, Refusal> {
    let segments = target::segments(ask.path).ok_or_else(Refusal::not_found)?;
    let names: Vec<&str> = segments.iter().map(String::as_str).collect();
    match (ask.method, names.as_slice()) {
        (&Method::HEAD, []) => Ok(empty(StatusCode::OK)),
        (&Method::GET, ["configs"]) => Ok(show(ask, held)),
        (&Method::HEAD, ["configs"]) => {
            let mut response = empty(StatusCode::OK);
            mark(&mut response, held);
            Ok(response)
        }
        (&Method::PUT, ["configs"]) => replace(ask, body, context, held),
        (&Method::POST, ["configs", "validate"]) => {
            validate::configs(&context.reader(), &document(ask, body)?)?;
            Ok(admin::json(StatusCode::OK, &json!({})))
        }
        _ => Err(Refusal::not_found()),
    }
}

fn show(ask: &Ask<'_>, held: &Held) -> Response<Bytes> {
    let mut whole = held.shown.clone();
    if whole.is_empty() {
        let versions = keys().map(|name| (version_key(name), json!(0)));
        whole.extend(versions);
    }
    let whole = Value::Object(whole);
    let mut response = if wants_yaml(ask, header::ACCEPT) {
        admin::text(StatusCode::OK, YAML, yaml::write(&whole))
    } else {
        admin::json(StatusCode::OK, &whole)
    };
    mark(&mut response, held);
    response
}

/// Adds what says which document is held, once there is one.
fn mark(response: &mut Response<Bytes>, held: &Held) {
    let marks = [DIGEST, LAST_MODIFIED].into_iter().filter_map(|name| {
        let text = match held.shown.get(name)? {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        Some((name, HeaderValue::from_str(&text).ok()?))
    });
    for (name, value) in marks {
        let name = header::HeaderName::from_bytes(name.as_bytes());
        if let Ok(name) = name {
            response.headers_mut().insert(name, value);
        }
    }
}

fn replace(
    ask: &Ask<'_>,
    body: &Bytes,
    context: &Context<'_>,
    held: &mut Held,
) -> Result<Response<Bytes>, Refusal> {
    let digest = ask
        .headers
        .get(DIGEST)
        .and_then(|value| value.to_str().ok());
    let digest = digest.ok_or_else(|| Refusal::bad("missing digest header"))?;
    if body.is_empty() {
        return Err(Refusal::bad("invalid request body: empty request body"));
    }
    if held.digest() == Some(digest) {
        return Ok(empty(StatusCode::NO_CONTENT));
    }
    let given = document(ask, body)?;
    let mut next = Held {
        count: held.count + 1,
        ..Held::default()
    };
    for name in keys() {
        take_over(name, &given, held, &mut next, &context.reader())?;
    }
    next.shown
        .insert(LAST_MODIFIED.to_owned(), json!(context.now_seconds()));
    next.shown.insert(DIGEST.to_owned(), json!(digest));
    *held = next;
    let mut response = empty(StatusCode::ACCEPTED);
    mark(&mut response, held);
    Ok(response)
}

/// Puts the collection `name` into `next`: as `given`, or as `held` if its version has not risen.
fn take_over(
    name: &str,
    given: &Value,
    held: &Held,
    next: &mut Held,
    reader: &ItemReader<'_>,
) -> Result<(), Refusal> {
    let key = version_key(name);
    let before = held.version(name);
    let version = match given.get(&key) {
        None => json!(whole(before + 1.0)),
        Some(version) => {
            let number = version
                .as_f64()
                .ok_or_else(|| Refusal::bad(format!("{key} must be a number")))?;
            if number < before {
                let message = format!("{key} must be greater than or equal to ({})", whole(before));
                return Err(Refusal::bad(message));
            }
            version.clone()
        }
    };
    let is_new = version.as_f64() != Some(before);
    next.shown.insert(key, version);
    if !is_new {
        for (from, to) in [
            (&held.shown, &mut next.shown),
            (&held.served, &mut next.served),
        ] {
            if let Some(items) = from.get(name) {
                to.insert(name.to_owned(), items.clone());
            }
        }
        return Ok(());
    }
    let Some(items) = given.get(name).filter(|items| !items.is_null()) else {
        return Ok(());
    };
    let Some(list) = items.as_array() else {
        return Err(Refusal::bad(format!("{name} must be a list")));
    };
    if list.is_empty() {
        return Ok(());
    }
    if let Some(collection) = Collection::named(name) {
        check(collection, list, held, reader)?;
    }
    let served: Vec<Value> = list
        .iter()
        .map(|item| unchanged(name, item, held))
        .collect();
    next.shown.insert(name.to_owned(), items.clone());
    next.served.insert(name.to_owned(), Value::Array(served));
    Ok(())
}

/// Whether all `items` may be served; stops at the first that may not.
fn check(
    collection: Collection,
    items: &[Value],
    held: &Held,
    reader: &ItemReader<'_>,
) -> Result<(), Refusal> {
    let name = collection.name();
    let mut seen = HashSet::new();
    for (index, item) in items.iter().enumerate() {
        let problem = item_problem(reader, collection, item).or_else(|| taken(name, item, held));
        if let Some(problem) = problem {
            let message = format!("invalid {name} at index {index}, err: {problem}");
            return Err(Refusal::bad(message));
        }
        if let Some(message) = duplicate(collection, item, &mut seen) {
            return Err(Refusal::bad(message));
        }
    }
    Ok(())
}

/// A plugin that another global rule has; by the rules in force, as in APISIX.
fn taken(name: &str, item: &Value, held: &Held) -> Option<String> {
    if name != Collection::GlobalRules.name() {
        return None;
    }
    let plugins = members(item, "plugins")?;
    let rules = held.served.get(name)?.as_array()?;
    let others = rules
        .iter()
        .filter(|rule| identifier(rule) != identifier(item));
    for other in others {
        let theirs = members(other, "plugins");
        let both = |name: &&String| theirs.is_some_and(|map| map.contains_key(*name));
        if let Some(plugin) = plugins.keys().find(both) {
            let id = identifier(other).unwrap_or_default();
            return Some(format!(
                "plugin '{plugin}' already exists in global rule with id '{id}'"
            ));
        }
    }
    None
}

/// `item`, or the one that is served in its place because it says that it has not changed.
fn unchanged(name: &str, item: &Value, held: &Held) -> Value {
    let before = || {
        let modified = item
            .get("modifiedIndex")
            .filter(|index| index.is_number())?;
        let id = identifier(item)?;
        let items = held.served.get(name)?.as_array()?;
        items.iter().find(|before| {
            identifier(before).as_ref() == Some(&id)
                && before.get("modifiedIndex") == Some(modified)
        })
    };
    before().unwrap_or(item).clone()
}

/// The document in a body.
fn document(ask: &Ask<'_>, body: &Bytes) -> Result<Value, Refusal> {
    let document = if wants_yaml(ask, header::CONTENT_TYPE) {
        let invalid = |error: String| Refusal::bad(format!("invalid request body: {error}"));
        let text = std::str::from_utf8(body).map_err(|error| invalid(error.to_string()))?;
        text::yaml(text)
            .map_err(|error| invalid(error.to_string()))?
            .value
    } else {
        parse(body)?.unwrap_or_default()
    };
    if document.is_object() {
        Ok(document)
    } else {
        let message = "invalid request body: the document must be a map of collections";
        Err(Refusal::bad(message))
    }
}

fn wants_yaml(ask: &Ask<'_>, header: header::HeaderName) -> bool {
    let value = ask.headers.get(header);
    value.is_some_and(|value| value.as_bytes().starts_with(YAML.as_bytes()))
}

/// What has a version of its own in a document.
fn keys() -> impl Iterator<Item = &'static str> {
    let collections = in_documents().map(Collection::name);
    collections.chain(std::iter::once("plugins"))
}

fn version_key(name: &str) -> String {
    format!("{name}_conf_version")
}

/// A number without a fraction is shown without one.
fn whole(number: f64) -> Value {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "whole and within the bounds of what a double counts"
    )]
    if number.fract() == 0.0 && number.abs() < 9e15 {
        json!(number as i64)
    } else {
        json!(number)
    }
}

const YAML: &str = "application/yaml";
const DIGEST: &str = "X-Digest";
const LAST_MODIFIED: &str = "X-Last-Modified";
