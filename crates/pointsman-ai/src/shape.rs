//! What an instance changes in a request body, spliced into the client's own bytes.
//!
//! Every edit replaces, removes or adds a member and leaves all other bytes alone: unknown
//! fields, the spelling of numbers, the order of keys. The order of edits is APISIX 3.18's, each
//! seeing what the earlier ones did: stream options, `options`, token limit, `request_body`,
//! removal of the model. Values are serialised once, when the configuration is compiled.

use std::{collections::BTreeMap, ops::Range};

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::{
    Protocol, Provider, Replaced, RequestBody,
    body::Form,
    json::{self, Kind},
};

/// What is configured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shaping {
    /// `options`: members that always replace.
    pub options: Map<String, Value>,
    /// `override.llm_options.max_tokens`.
    pub llm_max_tokens: Option<u64>,
    /// `override.request_body`, by target protocol.
    pub request_body: BTreeMap<Protocol, Map<String, Value>>,
    /// `override.request_body_force_override`.
    pub force: bool,
}

/// What is configured, ready to apply.
#[derive(Clone, Debug)]
pub struct Shaper {
    provider: Provider,
    options: Vec<(String, Bytes)>,
    max_tokens: Option<Bytes>,
    request_body: BTreeMap<Protocol, Map<String, Value>>,
    force: bool,
}

/// A body as it goes out: pieces in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shaped {
    parts: Vec<Bytes>,
    verbatim: bool,
    replaced: Replaced,
}

impl Shaped {
    /// The pieces, and what became of the members that logs tell of.
    pub fn into_parts(self) -> (Vec<Bytes>, Replaced) {
        (self.parts, self.replaced)
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The client's bytes, exactly.
    pub fn is_verbatim(&self) -> bool {
        self.verbatim
    }

    /// All pieces joined.
    pub fn to_vec(&self) -> Vec<u8> {
        self.parts.concat()
    }
}

impl Shaper {
    /// Prepares `shaping` for `provider`.
    pub fn compile(provider: Provider, shaping: &Shaping) -> Self {
        let options = shaping
            .options
            .iter()
            .map(|(key, value)| (key.clone(), encode(value)))
            .collect();
        Self {
            provider,
            options,
            max_tokens: shaping
                .llm_max_tokens
                .map(|tokens| Bytes::from(tokens.to_string())),
            request_body: shaping.request_body.clone(),
            force: shaping.force,
        }
    }

    /// `body` as this instance wants it in protocol `target`.
    pub fn shape(&self, body: &RequestBody, target: Protocol, streaming: bool) -> Shaped {
        let mut edits = Edits {
            body,
            changes: Vec::new(),
        };
        if let Some(form) = body.as_form() {
            return self.shape_form(body, form);
        }
        if body.is_object() {
            if target == Protocol::OpenaiChat && streaming {
                edits.include_usage();
            }
            for (key, value) in &self.options {
                if let Protocol::Direct(api) = target
                    && key != "model"
                    && !api.takes_options()
                {
                    continue;
                }
                edits.set(key, value.clone());
            }
            if let Some(tokens) = &self.max_tokens
                && let Some((name, rivals)) = self.provider.limit_names(target)
            {
                edits.set(name, tokens.clone());
                for rival in rivals {
                    edits.remove(rival);
                }
            }
            if let Some(tokens) = &self.max_tokens
                && let Some((object, name)) = Provider::nested_limit(target)
            {
                edits.set_inside(object, name, tokens);
            }
            let named = match target {
                Protocol::Direct(_) => Protocol::Passthrough,
                target => target,
            };
            if let Some(patch) = self.request_body.get(&named) {
                for (key, value) in patch {
                    edits.merge(key, value, self.force);
                }
            }
            if self.provider.removes_model(target) {
                edits.remove("model");
            }
            if target == Protocol::BedrockConverse {
                // Ours alone: Bedrock names streams in the path.
                edits.remove("stream");
            }
        }
        edits.apply()
    }

    /// A form with this instance's model, and otherwise as it is.
    fn shape_form(&self, body: &RequestBody, form: &Form) -> Shaped {
        let bytes = body.bytes();
        let option = self.options.iter().find(|(key, _)| key == "model");
        let model = option.and_then(|(_, value)| json::text(value));
        let parts = match (&model, &form.model) {
            (None, _) => vec![bytes.clone()],
            (Some(model), Some(place)) => vec![
                body.slice(0..place.start),
                Bytes::copy_from_slice(model.as_bytes()),
                body.slice(place.end..bytes.len()),
            ],
            (Some(model), None) => vec![
                Bytes::from(format!(
                    "--{}\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n",
                    form.boundary
                )),
                bytes.clone(),
            ],
        };
        Shaped {
            verbatim: model.is_none(),
            parts: parts.into_iter().filter(|part| !part.is_empty()).collect(),
            replaced: Replaced::default(),
        }
    }
}

/// Changes to the outermost members, not applied yet.
struct Edits<'a> {
    body: &'a RequestBody,
    changes: Vec<Change<'a>>,
}

struct Change<'a> {
    key: &'a str,
    /// `None` removes.
    value: Option<Bytes>,
}

impl<'a> Edits<'a> {
    fn set(&mut self, key: &'a str, value: Bytes) {
        self.change(key, Some(value));
    }

    fn remove(&mut self, key: &'a str) {
        if self.current(key).is_some() {
            self.change(key, None);
        }
    }

    fn change(&mut self, key: &'a str, value: Option<Bytes>) {
        match self.changes.iter_mut().find(|change| change.key == key) {
            Some(change) => change.value = value,
            None => self.changes.push(Change { key, value }),
        }
    }

    /// The value that `key` has by now.
    fn current(&self, key: &str) -> Option<&[u8]> {
        match self.changes.iter().find(|change| change.key == key) {
            Some(change) => change.value.as_deref(),
            None => self.body.member(key),
        }
    }

    /// Sets the member `name` of the object `object`, which may not be there yet.
    fn set_inside(&mut self, object: &'a str, name: &str, value: &[u8]) {
        let object_now = self.current(object).filter(|now| now.starts_with(b"{"));
        let value = with_member(object_now.unwrap_or(b"{}"), name, value);
        self.set(object, Bytes::from(value));
    }

    /// Asks for usage in the stream, beside whatever else the client asked of it.
    fn include_usage(&mut self) {
        self.set_inside("stream_options", "include_usage", b"true");
    }

    fn merge(&mut self, key: &'a str, patch: &Value, force: bool) {
        match self.current(key) {
            None => self.set(key, encode(patch)),
            Some(current) => {
                if let Some(merged) = merged(current, patch, force) {
                    self.set(key, Bytes::from(merged));
                }
            }
        }
    }

    fn apply(self) -> Shaped {
        let body = self.body;
        if self.changes.is_empty() {
            return Shaped {
                parts: vec![body.bytes().clone()],
                verbatim: true,
                replaced: Replaced::default(),
            };
        }
        let mut parts = Vec::with_capacity(2 * self.changes.len() + 2);
        // What has been copied so far, and whether a member stands before the current place.
        let (mut copied, mut kept) = (0usize, 0usize);
        let members = body.members();
        for (index, member) in members.iter().enumerate() {
            let change = self
                .changes
                .iter()
                .find(|change| member.is(body.bytes(), change.key));
            match change.map(|change| &change.value) {
                None => kept += 1,
                Some(Some(value)) => {
                    parts.push(body.slice(copied..member.value.start));
                    parts.push(value.clone());
                    copied = member.value.end;
                    kept += 1;
                }
                Some(None) => {
                    // With the comma that follows or, when nothing follows, the one before.
                    let from = match index.checked_sub(1) {
                        Some(before) if kept > 0 => members[before].value.end.max(copied),
                        _ => member.key.start - 1,
                    };
                    parts.push(body.slice(copied..from));
                    copied = match members.get(index + 1) {
                        Some(next) if kept == 0 => next.key.start - 1,
                        _ => member.value.end,
                    };
                }
            }
        }
        let added = self.changes.iter().filter_map(|change| {
            let is_new = !members.iter().any(|m| m.is(body.bytes(), change.key));
            Some((change.key, change.value.as_ref().filter(|_| is_new)?))
        });
        let end = members
            .last()
            .map_or_else(|| body.end(), |last| last.value.end.max(copied));
        parts.push(body.slice(copied..end));
        for (key, value) in added {
            let comma = if kept > 0 { "," } else { "" };
            parts.push(Bytes::from(format!("{comma}{}:", Value::from(key))));
            parts.push(value.clone());
            kept += 1;
        }
        parts.push(body.slice(end..body.bytes().len()));
        parts.retain(|part| !part.is_empty());
        let mut replaced = Replaced::default();
        for change in &self.changes {
            replaced.note(change.key, change.value.as_ref());
        }
        Shaped {
            parts,
            verbatim: false,
            replaced,
        }
    }
}

/// `current` with `patch` merged in, or `None` when nothing changes. Object onto object merges
/// member by member; anything else replaces, and only when forced.
fn merged(current: &[u8], patch: &Value, force: bool) -> Option<Vec<u8>> {
    let (kind, _) = json::visit(current, drop).ok()?;
    match patch {
        Value::Object(patch) if kind == Kind::Object => {
            let mut text = current.to_vec();
            let mut changed = false;
            for (key, value) in patch {
                let new = match Place::of(&text, key)? {
                    Place::Value(place) => merged(&text[place.clone()], value, force)
                        .map(|new| [&text[..place.start], &new, &text[place.end..]].concat()),
                    Place::New { .. } => Some(with_member(&text, key, &encode(value))),
                };
                if let Some(new) = new {
                    text = new;
                    changed = true;
                }
            }
            changed.then_some(text)
        }
        _ if force => Some(encode(patch).to_vec()),
        _ => None,
    }
}

/// The object `text` with `key` set to `value`.
fn with_member(text: &[u8], key: &str, value: &[u8]) -> Vec<u8> {
    match Place::of(text, key) {
        None => text.to_vec(),
        Some(Place::Value(place)) => [&text[..place.start], value, &text[place.end..]].concat(),
        Some(Place::New { at, is_first }) => {
            let comma: &[u8] = if is_first { b"" } else { b"," };
            let key = Value::from(key).to_string();
            let (before, after) = text.split_at(at);
            [before, comma, key.as_bytes(), b":", value, after].concat()
        }
    }
}

/// Where a member of an object is, or would be.
enum Place {
    /// Its value is here; of several the last.
    Value(Range<usize>),
    /// There is none yet.
    New { at: usize, is_first: bool },
}

impl Place {
    /// The place of `key` in `text`; `None` when that is not JSON.
    fn of(text: &[u8], key: &str) -> Option<Self> {
        let (mut found, mut last) = (None, None);
        let (_, end) = json::visit(text, |member| {
            last = Some(member.value.end);
            if member.is(text, key) {
                found = Some(member.value);
            }
        })
        .ok()?;
        Some(match found {
            Some(value) => Self::Value(value),
            None => Self::New {
                at: last.unwrap_or(end),
                is_first: last.is_none(),
            },
        })
    }
}

fn encode(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}

#[cfg(test)]
mod tests;
