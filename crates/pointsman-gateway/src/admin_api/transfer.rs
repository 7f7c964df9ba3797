//! Whole documents out of a store, and into one.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use serde_json::{Map, Value, json};

use super::{
    Context,
    look::value_of,
    standalone::yaml,
    store::{Change, Contents, Expect, Put, Stored},
    validate, write,
};
use crate::config::{collection::Collection, document::Format};

/// What brings a document into a store.
#[derive(Debug, Default)]
pub struct Import {
    /// What is to be done; nothing, if all is there.
    pub change: Change,
    /// How many resources are new.
    pub added: usize,
    /// How many others are replaced.
    pub changed: usize,
    /// How many are there as they are.
    pub same: usize,
    /// Parts of the document that are left out, and why.
    pub left_out: Vec<String>,
}

/// What `contents` holds, as a document: a list for each collection, in the order in which resources were
/// created. Credentials stand behind the consumers.
pub fn document(contents: &Contents) -> Value {
    let mut document = Map::new();
    for collection in validate::in_documents() {
        let prefix = collection.prefix();
        let mut items: Vec<(&str, &Stored)> = contents.under(&prefix).collect();
        let is_credential = |key: &str| {
            let found = Collection::of_key(key);
            found.is_some_and(|(collection, _)| collection == Collection::Credentials)
        };
        items.sort_by_key(|(key, stored)| (is_credential(key), stored.created));
        let items: Vec<Value> = items
            .into_iter()
            .map(|(key, stored)| item(collection, key, stored))
            .collect();
        if !items.is_empty() {
            document.insert(collection.name().to_owned(), Value::Array(items));
        }
    }
    Value::Object(document)
}

/// A resource as it stands in a document: it says who it is.
fn item(collection: Collection, key: &str, stored: &Stored) -> Value {
    let mut value = value_of(stored);
    let id = key.strip_prefix(&collection.prefix()).unwrap_or(key);
    let says_so = collection == Collection::Consumers && !id.contains("/credentials/");
    if !says_so {
        write::set(&mut value, "id", json!(id));
    }
    value
}

/// `document` as the text of a file.
pub fn text(document: &Value, format: Format) -> String {
    match format {
        // Nothing as an empty map.
        Format::Yaml => format!("{}#END\n", yaml::write(document)),
        Format::Json => format!("{document:#}\n"),
    }
}

/// What it takes for `contents` to have all that is in `document`, and nothing else if `alone`.
///
/// # Errors
/// All that is wrong with the document, one line each; then nothing is to be done.
pub fn import(
    document: &Value,
    contents: &Contents,
    context: &Context<'_>,
    alone: bool,
) -> Result<Import, Vec<String>> {
    let Some(collections) = document.as_object() else {
        let message = "the document must be a map of collections (routes, upstreams, ...)";
        return Err(vec![message.to_owned()]);
    };
    let mut import = Import::default();
    let mut errors = Vec::new();
    let mut keys = HashSet::new();
    for (name, items) in collections {
        match Collection::named(name) {
            Some(Collection::Protos | Collection::StreamRoutes) => {
                import.left_out.push(format!("{name}: out of scope"));
            }
            Some(Collection::Credentials) | None => {
                import
                    .left_out
                    .push(format!("{name}: no collection of a document"));
            }
            Some(collection) => {
                let entered = Entering {
                    contents,
                    context,
                    collection,
                    keys: &mut keys,
                    import: &mut import,
                };
                errors.extend(entered.all(items));
            }
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    // Who is referred to comes first and goes last: so what is there is never without.
    let order = |key: &String| Collection::of_key(key).map(|(collection, _)| rank(collection));
    import.change.put.sort_by_key(|put| order(&put.key));
    if alone {
        // What a document of ours cannot have is somebody else's.
        let is_ours = |key: &str| {
            let collection = Collection::of_key(key).map(|(collection, _)| collection);
            !matches!(
                collection,
                None | Some(Collection::Protos | Collection::StreamRoutes)
            )
        };
        let others = contents.under("/");
        let others = others.filter(|(key, _)| is_ours(key) && !keys.contains(*key));
        for (key, stored) in others {
            let expect = Expect::Modified(stored.modified);
            import.change.expect.push((key.to_owned(), expect));
            import.change.delete.push(key.to_owned());
        }
        let delete = &mut import.change.delete;
        delete.sort_by_key(|key| std::cmp::Reverse(order(key)));
    }
    Ok(import)
}

/// Resources name only others of a lower rank.
fn rank(collection: Collection) -> usize {
    match collection {
        Collection::Secrets | Collection::PluginMetadata => 0,
        Collection::Ssls | Collection::Protos => 1,
        Collection::Upstreams | Collection::PluginConfigs | Collection::ConsumerGroups => 2,
        Collection::Services | Collection::Consumers => 3,
        Collection::Credentials | Collection::GlobalRules => 4,
        Collection::Routes | Collection::StreamRoutes => 5,
    }
}

/// `change` in pieces of at most `most` resources and, but for one that alone is larger, half a mebibyte,
/// in its order.
pub fn pieces(change: &Change, most: usize) -> Vec<Change> {
    let mut expected: HashMap<&str, Expect> = (change.expect.iter())
        .map(|(key, expect)| (key.as_str(), *expect))
        .collect();
    let mut expect = |key: &String| Some((key.clone(), expected.remove(key.as_str())?));
    let mut puts: Vec<Change> = Vec::new();
    let mut bytes = 0;
    for put in &change.put {
        let more = put.key.len() + put.text.len();
        let is_full = |piece: &Change| piece.put.len() >= most || bytes + more > PIECE_BYTES_MAX;
        if puts.last().is_none_or(is_full) {
            puts.push(Change::default());
            bytes = 0;
        }
        bytes += more;
        if let Some(piece) = puts.last_mut() {
            piece.expect.extend(expect(&put.key));
            piece.put.push(put.clone());
        }
    }
    let deletes = change.delete.chunks(most).map(|delete| Change {
        expect: delete.iter().filter_map(&mut expect).collect(),
        delete: delete.to_vec(),
        ..Change::default()
    });
    puts.into_iter().chain(deletes).collect()
}

/// One collection of a document on its way into a store.
struct Entering<'a> {
    contents: &'a Contents,
    context: &'a Context<'a>,
    collection: Collection,
    /// Of all that the document has so far.
    keys: &'a mut HashSet<String>,
    import: &'a mut Import,
}

impl Entering<'_> {
    /// Says what is wrong.
    fn all(mut self, items: &Value) -> Vec<String> {
        let name = self.collection.name();
        let items = match items {
            Value::Array(items) => items,
            Value::Null => return Vec::new(),
            _ => return vec![format!("{name}: wrong type: expected array")],
        };
        let found = items.iter().enumerate();
        found
            .filter_map(|(index, item)| {
                let error = self.one(index, item).err()?;
                let id = validate::identifier(item);
                let id = id.map_or_else(String::new, |id| format!(" (id {id})"));
                Some(format!("{name}[{index}]{id}: {error}"))
            })
            .collect()
    }

    fn one(&mut self, index: usize, item: &Value) -> Result<(), String> {
        let reader = self.context.reader();
        let problem = validate::item_problem(&reader, self.collection, item);
        if let Some(problem) = problem {
            return Err(problem);
        }
        let mut value = item.clone();
        if let Some(map) = value.as_object_mut() {
            map.shift_remove("modifiedIndex");
        }
        let is_credential =
            |id: &str| self.collection == Collection::Consumers && id.contains("/credentials/");
        let own = value.get("id").and_then(validate::text_of);
        let id = match (self.collection, own) {
            (Collection::Consumers, Some(id)) if is_credential(&id) => id,
            (Collection::Consumers, _) => {
                let username = value.get("username").and_then(validate::text_of);
                username.unwrap_or_default()
            }
            // As a file has it.
            (_, own) => own.unwrap_or_else(|| format!("arr_{}", index + 1)),
        };
        match self.collection {
            Collection::Consumers if is_credential(&id) => {
                let last = id.rsplit('/').next().unwrap_or_default();
                write::set(&mut value, "id", json!(last));
            }
            Collection::Consumers => {}
            _ => write::set(&mut value, "id", json!(id)),
        }
        let key = self.collection.key(&id);
        if !self.keys.insert(key.clone()) {
            return Err("the id is used twice".to_owned());
        }
        self.enter(key, value);
        Ok(())
    }

    fn enter(&mut self, key: String, mut value: Value) {
        let before = self.contents.get(&key);
        let had = before.map(value_of);
        let times = ["create_time", "update_time"];
        if let Some(had) = &had {
            let bare = |value: &Value| {
                let mut value = value.clone();
                if let Some(map) = value.as_object_mut() {
                    for time in times {
                        map.shift_remove(time);
                    }
                }
                value
            };
            if bare(had) == bare(&value) {
                self.import.same += 1;
                return;
            }
            self.import.changed += 1;
        } else {
            self.import.added += 1;
        }
        if self.collection != Collection::PluginMetadata {
            let now = json!(self.context.now_seconds());
            for time in times {
                let is_given = value.get(time).is_some();
                let kept = had.as_ref().and_then(|had| had.get(time));
                let kept = kept.filter(|_| time == "create_time").cloned();
                if !is_given {
                    write::set(&mut value, time, kept.unwrap_or_else(|| now.clone()));
                }
            }
        }
        let expect = before.map_or(Expect::Absent, |one| Expect::Modified(one.modified));
        self.import.change.expect.push((key.clone(), expect));
        self.import.change.put.push(Put {
            key,
            text: Arc::from(value.to_string()),
            expires_ms: None,
        });
    }
}

/// etcd takes 1.5 MiB in one request, and what is encrypted grows by a third.
const PIECE_BYTES_MAX: usize = 512 << 10;

#[cfg(test)]
mod tests;
