//! Looking at resources: one, or a list with filters and pages.

use serde_json::{Map, Value, json};

use super::{
    refusal::Refusal,
    store::{Contents, Stored},
    target::Target,
};
use crate::{
    config::collection::Collection,
    router::pattern::{Case, Pattern},
    variables::{decode, query_arg},
};

/// The resource that `target` names, or the list.
pub(super) fn look(
    contents: &Contents,
    prefix: &str,
    target: &Target,
    query: &str,
) -> Result<Value, Refusal> {
    let collection = target.collection;
    let Some(id) = &target.id else {
        return list(contents, prefix, target, query);
    };
    let key = collection.key(&target.stored_id(id));
    let stored = contents.get(&key).ok_or_else(Refusal::no_key)?;
    let shown_key = format!("{prefix}{key}");
    Ok(entry(collection, shown_key, stored, value_of(stored)))
}

/// A stored resource as a value.
pub(super) fn value_of(stored: &Stored) -> Value {
    serde_json::from_str(&stored.text).unwrap_or_default()
}

/// A resource as it may be shown: without private keys.
pub(super) fn shown(collection: Collection, mut value: Value) -> Value {
    if let (Collection::Ssls, Some(map)) = (collection, value.as_object_mut()) {
        map.shift_remove("key");
        map.shift_remove("keys");
    }
    value
}

fn entry(collection: Collection, key: String, stored: &Stored, value: Value) -> Value {
    json!({
        "key": key,
        "value": shown(collection, value),
        "createdIndex": stored.created,
        "modifiedIndex": stored.modified,
    })
}

/// All resources of a collection that the query asks for, the oldest first.
fn list(contents: &Contents, prefix: &str, target: &Target, query: &str) -> Result<Value, Refusal> {
    let collection = target.collection;
    let filters = Filters::of(collection, query)?;
    let page = page(query)?;
    let below = match &target.parent {
        Some(username) => format!("/consumers/{username}/credentials/"),
        None => collection.prefix(),
    };
    let mut found: Vec<(&str, &Stored, Value)> = contents
        .under(&below)
        .filter(|(key, _)| Collection::of_key(key).is_some_and(|(of, _)| of == collection))
        .map(|(key, stored)| (key, stored, value_of(stored)))
        .filter(|(_, _, value)| filters.pass(value))
        .collect();
    found.sort_by_key(|(_, stored, _)| stored.created);
    let total = found.len();
    let (skip, take) = page.unwrap_or((0, usize::MAX));
    let shown = found.into_iter().skip(skip).take(take);
    let list: Vec<Value> = shown
        .map(|(key, stored, value)| entry(collection, format!("{prefix}{key}"), stored, value))
        .collect();
    Ok(json!({ "list": list, "total": total }))
}

/// How many items are left out before a page, and how many are on it.
fn page(query: &str) -> Result<Option<(usize, usize)>, Refusal> {
    let number = |name: &str| query_arg(query, name).map(|text| text.parse::<i64>());
    let (Some(page), Some(size)) = (number("page"), number("page_size")) else {
        return Ok(None);
    };
    let size = size.ok().and_then(|size| usize::try_from(size).ok());
    let size = size.filter(|size| (10..=500).contains(size));
    let size = size.ok_or_else(|| Refusal::bad("page_size must be between 10 and 500"))?;
    let page = page.ok().and_then(|page| usize::try_from(page).ok());
    let before = page.unwrap_or(1).max(1) - 1;
    Ok(Some((before.saturating_mul(size), size)))
}

/// What a listed resource must be like.
struct Filters {
    name: Option<Pattern>,
    uri: Option<Pattern>,
    label: Option<String>,
    fields: Vec<(String, String)>,
}

impl Filters {
    fn of(collection: Collection, query: &str) -> Result<Self, Refusal> {
        let pattern = |name: &str| {
            let Some(text) = query_arg(query, name) else {
                return Ok(None);
            };
            let pattern = Pattern::new(&text, Case::Sensitive);
            pattern
                .map(Some)
                .map_err(|error| Refusal::bad(format!("invalid argument {name}: {}", error.reason)))
        };
        let fields = query_arg(query, "filter")
            .filter(|_| matches!(collection, Collection::Routes | Collection::StreamRoutes));
        let fields = fields.as_deref().unwrap_or_default().split('&');
        let fields = fields
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (decode(key).into_owned(), decode(value).into_owned()));
        Ok(Self {
            name: pattern("name")?,
            uri: pattern("uri")?,
            label: query_arg(query, "label").map(|label| label.into_owned()),
            fields: fields.collect(),
        })
    }

    fn pass(&self, value: &Value) -> bool {
        // A pattern that gives up on a text does not match it.
        let matches = |pattern: &Pattern, text: &Value| {
            let text = text.as_str();
            text.is_some_and(|text| pattern.is_match(text).unwrap_or_default())
        };
        let name = self.name.as_ref();
        let by_name = name.is_none_or(|pattern| matches(pattern, &value["name"]));
        let by_uri = self.uri.as_ref().is_none_or(|pattern| {
            let many = value["uris"].as_array().into_iter().flatten();
            std::iter::once(&value["uri"])
                .chain(many)
                .any(|uri| matches(pattern, uri))
        });
        let labels = value["labels"].as_object();
        let label = self.label.as_ref();
        let by_label = label.is_none_or(|key| labels.is_some_and(|map| map.contains_key(key)));
        let by_fields = self
            .fields
            .iter()
            .all(|(key, wanted)| value.get(key).is_some_and(|found| reads_as(found, wanted)));
        by_name && by_uri && by_label && by_fields
    }
}

/// Whether `value` is the text `text`, or a number that is written so.
pub(super) fn reads_as(value: &Value, text: &str) -> bool {
    match value {
        Value::String(own) => own == text,
        Value::Number(number) => number.to_string() == text,
        _ => false,
    }
}

/// The members of an object; none of anything else.
pub(super) fn members<'a>(value: &'a Value, key: &str) -> Option<&'a Map<String, Value>> {
    value.get(key)?.as_object()
}
