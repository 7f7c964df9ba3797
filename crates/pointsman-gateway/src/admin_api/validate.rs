//! Asking whether something would be accepted, without doing it.

use std::collections::HashSet;

use http::StatusCode;
use serde_json::{Value, json};

use super::{refusal::Refusal, write};
use crate::config::{
    collection::Collection,
    document::item::{ItemReader, Step},
};

/// Whether `value` obeys the schema of `collection`; plugins are not looked into.
pub(super) fn schema(
    reader: &ItemReader<'_>,
    collection: &str,
    value: &Value,
) -> Result<(), Refusal> {
    let collection = Collection::named(collection)
        .ok_or_else(|| Refusal::bad(format!("not found schema: {collection}")))?;
    // Of secrets, the schema depends on the manager, which is part of the id.
    let id = value["id"].as_str().unwrap_or_default();
    let mut faults = write::faults(reader, collection, id, value)?;
    faults.retain(|fault| {
        fault.step == Step::Schema || (fault.step == Step::Rules && fault.issue.path.is_empty())
    });
    match faults.first() {
        None => Ok(()),
        Some(fault) => Err(Refusal::bad(fault.issue.message.clone())),
    }
}

/// Whether `document` would be accepted as a whole; all that is wrong is told.
pub(super) fn configs(reader: &ItemReader<'_>, document: &Value) -> Result<(), Refusal> {
    let mut errors = Vec::new();
    for collection in in_documents() {
        let name = collection.name();
        let version = format!("{name}_conf_version");
        if let Some(other) = document.get(&version).filter(|value| !value.is_number()) {
            let kind = match other {
                Value::String(_) => "string",
                Value::Bool(_) => "boolean",
                Value::Object(_) | Value::Array(_) => "table",
                _ => "nil",
            };
            errors.push(json!({
                "resource_type": name,
                "error": format!("{version} must be a number, got {kind}"),
            }));
        }
        let items = document.get(name).and_then(Value::as_array);
        let mut seen = HashSet::new();
        for (index, item) in items.into_iter().flatten().enumerate() {
            let error = item_problem(reader, collection, item)
                .or_else(|| duplicate(collection, item, &mut seen));
            if let Some(error) = error {
                let mut entry = json!({ "resource_type": name, "index": index, "error": error });
                if let Some(id) = identifier(item) {
                    entry["resource_id"] = json!(id);
                }
                errors.push(entry);
            }
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Refusal {
        status: StatusCode::BAD_REQUEST,
        body: json!({
            "error_msg": "Configuration validation failed",
            "errors": errors,
        }),
    })
}

/// The collections that a whole document has: its credentials stand among the consumers.
pub(super) fn in_documents() -> impl Iterator<Item = Collection> {
    let all = Collection::ALL.into_iter();
    all.filter(|collection| *collection != Collection::Credentials)
}

/// What is wrong with `item` of a whole document's `collection`, in which credentials stand among
/// the consumers and items may say at which revision they were written.
pub(super) fn item_problem(
    reader: &ItemReader<'_>,
    collection: Collection,
    item: &Value,
) -> Option<String> {
    let id = identifier(item).unwrap_or_default();
    let mut item = item.clone();
    if let Some(map) = item.as_object_mut() {
        map.shift_remove("modifiedIndex");
    }
    let collection = match collection {
        Collection::Consumers if id.contains("/credentials/") => Collection::Credentials,
        other => other,
    };
    write::problem(reader, collection, &id, &item)
}

/// Says so if the id of `item` has been `seen` before.
pub(super) fn duplicate(
    collection: Collection,
    item: &Value,
    seen: &mut HashSet<String>,
) -> Option<String> {
    let id = identifier(item)?;
    let what = match (collection, item.get("id")) {
        (Collection::Consumers, Some(_)) => "credential id",
        (Collection::Consumers, None) => "username",
        _ => "id",
    };
    let name = collection.name();
    let message = format!("found duplicate {what} {id} in {name}");
    (!seen.insert(id)).then_some(message)
}

/// The id of an item; of a consumer, its name.
pub(super) fn identifier(item: &Value) -> Option<String> {
    item.get("id")
        .or_else(|| item.get("username"))
        .and_then(text_of)
}

/// An id, which may be a number.
pub(super) fn text_of(id: &Value) -> Option<String> {
    match id {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
