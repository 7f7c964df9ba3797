//! Keys that nobody reads, in the objects inside a plugin's configuration.
//!
//! APISIX accepts them, so they are no errors; but a misspelt key is a setting that does not apply,
//! and somebody believes that it does. What is known is what the schema names. Keys beside the
//! plugin's own are passed over, as are objects whose members the schema leaves open.

use serde_json::{Map, Value};

use crate::config::{schema::Issue, similar::did_you_mean, text::join};

/// The keys in `conf` that its schema, as written, does not know.
pub(super) fn find(schema: &Value, conf: &Value, path: &str) -> Vec<Issue> {
    let mut search = Search {
        schema,
        found: Vec::new(),
    };
    let known = search.properties(schema);
    for (key, member) in conf.as_object().into_iter().flatten() {
        if let Some(node) = known.and_then(|known| known.get(key)) {
            search.value(node, member, &join(path, key));
        }
    }
    search.found
}

struct Search<'s> {
    schema: &'s Value,
    found: Vec<Issue>,
}

impl<'s> Search<'s> {
    fn value(&mut self, node: &'s Value, value: &Value, path: &str) {
        match value {
            Value::Object(map) => self.object(node, map, path),
            Value::Array(items) => {
                let node = self.meant(node, "items");
                let Some(node) = node.and_then(|node| node.get("items")) else {
                    return;
                };
                for (index, item) in items.iter().enumerate() {
                    self.value(node, item, &format!("{path}[{index}]"));
                }
            }
            _ => {}
        }
    }

    fn object(&mut self, node: &'s Value, map: &Map<String, Value>, path: &str) {
        let Some(node) = self.meant(node, "properties") else {
            return;
        };
        let Some(known) = node.get("properties").and_then(Value::as_object) else {
            return;
        };
        // Where others are forbidden, or have a schema, validation has its say.
        let is_open = matches!(
            node.get("additionalProperties"),
            None | Some(Value::Bool(true))
        );
        for (key, member) in map {
            match known.get(key) {
                // Most members are no containers and need no path.
                Some(node) if member.is_object() || member.is_array() => {
                    self.value(node, member, &join(path, key));
                }
                None if is_open => {
                    let hint = did_you_mean(key, known.keys().map(String::as_str));
                    let message = format!("unknown key; it has no effect{hint}");
                    self.found.push(Issue::new(&join(path, key), message));
                }
                Some(_) | None => {}
            }
        }
    }

    fn properties(&self, node: &'s Value) -> Option<&'s Map<String, Value>> {
        self.meant(node, "properties")?
            .get("properties")?
            .as_object()
    }

    /// `node`, what it refers to, or the one of its alternatives that says `keyword`: an optional
    /// object is its schema or `null`. `None` if several do, because either may be meant.
    fn meant(&self, node: &'s Value, keyword: &str) -> Option<&'s Value> {
        let mut node = node;
        for _ in 0..REFERENCES_MAX {
            if node.get(keyword).is_some() {
                return Some(node);
            }
            if let Some(reference) = node.get("$ref").and_then(Value::as_str) {
                node = self.schema.pointer(reference.strip_prefix('#')?)?;
                continue;
            }
            let alternatives = ["anyOf", "oneOf"];
            let alternatives = alternatives.iter().find_map(|name| node.get(*name))?;
            let mut said = alternatives
                .as_array()?
                .iter()
                .filter_map(|one| self.meant(one, keyword));
            let first = said.next();
            return first.filter(|_| said.next().is_none());
        }
        None
    }
}

/// References that lead to references; ours have one or two.
const REFERENCES_MAX: usize = 8;
