//! JSON Schema validation in APISIX's words.
//!
//! Schemas are derived from the typed configuration, so only what they use is understood here:
//! types, bounds, patterns, required and unknown properties, alternatives and references within
//! the schema. All errors are reported, not only the first. A string that refers to a value
//! elsewhere (`$env://`, `$secret://`) passes, because its value is not known yet.
//!
//! Most values are sound, so paths and messages are put together only where something is wrong.

mod compiled;
mod supported;

use std::{collections::HashMap, fmt::Write as _};

use serde_json::{Map, Value, json};

use self::compiled::{
    Additional, ArrayRules, LazyPattern, Node, NodeId, Nodes, NumberRules, ObjectRules, TextRules,
    Types,
};
pub use self::supported::unsupported;
use crate::config::{
    reference,
    text::{self, join},
};

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Path of the value.
    pub path: String,
    /// What is wrong, in APISIX's words.
    pub message: String,
}

impl Issue {
    /// An issue at `path`.
    pub fn new(path: &str, message: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            message: message.into(),
        }
    }

    /// Whether it is about the member `key`, or something in it.
    pub fn is_in(&self, key: &str) -> bool {
        let rest = self.path.strip_prefix(key);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    }

    /// The same, of a value that stands at `path` in another.
    pub fn under(self, path: &str) -> Self {
        let path = match self.path.as_str() {
            "" => path.to_owned(),
            inner if inner.starts_with('[') => format!("{path}{inner}"),
            inner => join(path, inner),
        };
        Self { path, ..self }
    }
}

/// `value`, an object, without the members in which `issues` are: what is left may still be read,
/// so that what is wrong with the rest is told with them.
pub fn without(value: &Value, issues: &[Issue]) -> Value {
    let mut left = value.clone();
    if let Value::Object(map) = &mut left {
        map.retain(|key, _| !issues.iter().any(|issue| issue.is_in(key)));
    }
    left
}

/// A JSON Schema, ready to check values.
#[derive(Debug)]
pub struct Schema {
    written: Value,
    nodes: Nodes,
}

impl Schema {
    /// The schema that `written` is. Keywords that are not understood are ignored.
    pub fn new(written: Value) -> Self {
        Self {
            nodes: Nodes::of(&written),
            written,
        }
    }

    /// As written, for those who ask for it.
    pub fn written(&self) -> &Value {
        &self.written
    }

    /// Everything in `value` that it does not allow.
    pub fn validate(&self, value: &Value) -> Vec<Issue> {
        match self.find(value, Texts::MayRefer, Found::Issues(Vec::new())) {
            Found::Issues(issues) => issues,
            Found::First(_) | Found::Whether(_) => Vec::new(),
        }
    }

    /// The first thing in `value` that it does not allow. For what clients send: a text is itself there,
    /// whatever it looks like.
    pub fn first_fault(&self, value: &Value) -> Option<String> {
        match self.find(value, Texts::AsTheyAre, Found::First(None)) {
            Found::First(issue) => issue.map(|issue| issue.message),
            Found::Issues(_) | Found::Whether(_) => None,
        }
    }

    fn find(&self, value: &Value, texts: Texts, found: Found) -> Found {
        let mut validator = Validator {
            nodes: &self.nodes,
            texts,
            found,
        };
        validator.check(value, self.nodes.root(), &At::WHOLE);
        validator.found
    }
}

struct Validator<'s> {
    nodes: &'s Nodes,
    texts: Texts,
    found: Found,
}

/// What texts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Texts {
    /// Themselves, or references to values elsewhere, which pass.
    MayRefer,
    /// Themselves.
    AsTheyAre,
}

/// What was found so far.
enum Found {
    /// All that is wrong.
    Issues(Vec<Issue>),
    /// The first thing that is wrong.
    First(Option<Issue>),
    /// Only whether anything is: an alternative is tried.
    Whether(bool),
}

/// Where a value stands: a step and those before it.
#[derive(Clone, Copy)]
struct At<'a> {
    outer: Option<&'a Self>,
    step: Step<'a>,
}

/// A step from a value to a part of it. APISIX's validator leads up to the error of a part with
/// what it took the part for: `property "a" validation failed: `.
#[derive(Clone, Copy)]
enum Step<'a> {
    /// The whole; no step.
    Whole,
    /// To a member as such.
    Member(&'a str),
    /// To a member that the schema names.
    Property(&'a str),
    /// To a member whose name matches a pattern.
    Matching(&'a str, &'a str),
    /// To an item.
    Item(usize),
}

impl<'a> At<'a> {
    const WHOLE: At<'static> = At {
        outer: None,
        step: Step::Whole,
    };

    fn then(&'a self, step: Step<'a>) -> Self {
        Self {
            outer: Some(self),
            step,
        }
    }

    fn path(&self) -> String {
        let outer = self.outer.map(At::path).unwrap_or_default();
        match self.step {
            Step::Whole => outer,
            Step::Member(key) | Step::Property(key) | Step::Matching(key, _) => join(&outer, key),
            Step::Item(index) => format!("{outer}[{index}]"),
        }
    }

    fn lead(&self) -> String {
        let mut lead = self.outer.map(At::lead).unwrap_or_default();
        let _ = match self.step {
            Step::Whole | Step::Member(_) => Ok(()),
            Step::Property(key) => write!(lead, "property \"{key}\" validation failed: "),
            Step::Matching(key, pattern) => {
                write!(lead, "failed to validate {key} (matching \"{pattern}\"): ")
            }
            Step::Item(index) => write!(lead, "failed to validate item {}: ", index + 1),
        };
        lead
    }
}

impl Validator<'_> {
    fn check(&mut self, value: &Value, node: &Node, at: &At<'_>) {
        if let Some(id) = node.refers {
            self.check_at(value, id, at);
        }
        let may_refer = self.texts == Texts::MayRefer;
        if may_refer && value.as_str().is_some_and(reference::is_reference) {
            return;
        }
        if let Some(types) = &node.types
            && !types.fit(value)
        {
            self.fail(at, || wrong_type(value, types));
            return;
        }
        let choices = node.choices.as_ref();
        if choices.is_some_and(|choices| !choices.contains(value)) {
            self.fail(at, || NO_CHOICE.to_owned());
        }
        if node.constant.as_ref().is_some_and(|one| one != value) {
            self.fail(at, || NO_CHOICE.to_owned());
        }
        self.check_content(value, node, at);
        self.check_alternatives(value, node, at);
    }

    fn check_content(&mut self, value: &Value, node: &Node, at: &At<'_>) {
        match value {
            Value::Number(_) => {
                if let Some(rules) = &node.number {
                    self.check_number(value, rules, at);
                }
            }
            Value::String(text) => {
                if let Some(rules) = &node.text {
                    self.check_text(text, rules, at);
                }
            }
            Value::Array(items) => {
                if let Some(rules) = &node.array {
                    self.check_array(items, rules, at);
                }
            }
            Value::Object(map) => {
                if let Some(rules) = &node.object {
                    self.check_object(map, rules, at);
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn check_at(&mut self, value: &Value, id: NodeId, at: &At<'_>) {
        // Some are over with the first thing that is wrong.
        if !matches!(self.found, Found::Whether(true) | Found::First(Some(_))) {
            self.check(value, self.nodes.at(id), at);
        }
    }

    fn check_number(&mut self, value: &Value, rules: &NumberRules, at: &At<'_>) {
        let number = value.as_f64().unwrap_or_default();
        if let Some((bound, least)) = &rules.least
            && number < *least
        {
            self.fail(at, || format!("expected {value} to be at least {bound}"));
        }
        if let Some((bound, most)) = &rules.most
            && number > *most
        {
            self.fail(at, || format!("expected {value} to be at most {bound}"));
        }
        if let Some((bound, above)) = &rules.above
            && number <= *above
        {
            self.fail(at, || {
                format!("expected {value} to be greater than {bound}")
            });
        }
    }

    fn check_text(&mut self, text: &str, rules: &TextRules, at: &At<'_>) {
        let length = text.chars().count() as u64;
        if let Some(least) = rules.least.filter(|least| length < *least) {
            self.fail(at, || {
                format!("string too short, expected at least {least}, got {length}")
            });
        }
        if let Some(most) = rules.most.filter(|most| length > *most) {
            self.fail(at, || {
                format!("string too long, expected at most {most}, got {length}")
            });
        }
        self.check_form(text, rules.pattern.as_ref(), at);
    }

    fn check_form(&mut self, text: &str, pattern: Option<&LazyPattern>, at: &At<'_>) {
        if let Some(pattern) = pattern.filter(|pattern| !pattern.is_in(text)) {
            let written = &pattern.written;
            self.fail(at, || {
                format!("failed to match pattern \"{written}\" with \"{text}\"")
            });
        }
    }

    fn check_array(&mut self, items: &[Value], rules: &ArrayRules, at: &At<'_>) {
        let count = items.len() as u64;
        if let Some(least) = rules.least.filter(|least| count < *least) {
            self.fail(at, || {
                format!("expect array to have at least {least} items")
            });
        }
        if let Some(most) = rules.most.filter(|most| count > *most) {
            self.fail(at, || format!("expect array to have at most {most} items"));
        }
        let twice = if rules.is_unique { twice(items) } else { None };
        if let Some((a, b)) = twice {
            self.fail(at, || {
                format!(
                    "expected unique items but items {} and {} are equal",
                    a + 1,
                    b + 1
                )
            });
        }
        if let Some(each) = rules.items {
            for (index, item) in items.iter().enumerate() {
                self.check_at(item, each, &at.then(Step::Item(index)));
            }
        }
    }

    fn check_object(&mut self, map: &Map<String, Value>, rules: &ObjectRules, at: &At<'_>) {
        for name in &rules.required {
            if !map.contains_key(name) {
                self.fail(at, || format!("property \"{name}\" is required"));
            }
        }
        for (key, member) in map {
            let inner = at.then(Step::Member(key));
            self.check_form(key, rules.names.as_ref(), &inner);
            self.check_member(key, member, rules, at);
        }
        if let Some(least) = rules.least.filter(|least| (map.len() as u64) < *least) {
            self.fail(at, || {
                format!("expect object to have at least {least} properties")
            });
        }
    }

    fn check_member(&mut self, key: &str, member: &Value, rules: &ObjectRules, at: &At<'_>) {
        if let Some(id) = rules.properties.get(key) {
            return self.check_at(member, *id, &at.then(Step::Property(key)));
        }
        let mut by_pattern = rules.by_pattern.iter();
        if let Some((pattern, id)) = by_pattern.find(|(pattern, _)| pattern.is_in(key)) {
            let step = Step::Matching(key, &pattern.written);
            return self.check_at(member, *id, &at.then(step));
        }
        match rules.additional {
            Additional::Allowed => {}
            Additional::Forbidden => self.fail(&at.then(Step::Member(key)), || {
                format!("additional properties forbidden, found {key}")
            }),
            Additional::Each(id) => {
                self.check_at(member, id, &at.then(Step::Matching(key, ".*")));
            }
        }
    }

    fn check_alternatives(&mut self, value: &Value, node: &Node, at: &At<'_>) {
        for id in &node.all {
            self.check_at(value, *id, at);
        }
        let nodes = self.nodes;
        if let Some(any) = &node.any
            && !any.iter().any(|id| self.allows(*id, value))
            && !self.told_nearest(value, any, at)
        {
            self.fail(at, || {
                "object matches none of the required".to_owned() + &required_sets(nodes, any)
            });
        }
        let Some(one) = &node.one else { return };
        let mut matching = (0..one.len()).filter(|index| self.allows(one[*index], value));
        match (matching.next(), matching.next()) {
            (Some(_), None) => {}
            (Some(first), Some(second)) => self.fail(at, || {
                format!(
                    "value should match only one schema, but matches both schemas {} and {}",
                    first + 1,
                    second + 1
                )
            }),
            (None, _) => {
                if !self.told_nearest(value, one, at) {
                    self.fail(at, || {
                        "value should match only one schema, but matches none".to_owned()
                    });
                }
            }
        }
    }

    /// Whether `value` is what the node asks for.
    fn allows(&self, id: NodeId, value: &Value) -> bool {
        let mut trial = Validator {
            nodes: self.nodes,
            texts: self.texts,
            found: Found::Whether(false),
        };
        trial.check_at(value, id, &At::WHOLE);
        matches!(trial.found, Found::Whether(false))
    }

    /// Tells the errors worth telling when no alternative fits: those of the one that was meant.
    /// `false` if there is none such.
    fn told_nearest(&mut self, value: &Value, alternatives: &[NodeId], at: &At<'_>) -> bool {
        let nodes = self.nodes;
        let resolved = |id: &NodeId| nodes.resolved(nodes.at(*id));
        if alternatives
            .iter()
            .all(|id| resolved(id).constant.is_some())
        {
            self.fail(at, || NO_CHOICE.to_owned());
            return true;
        }
        // An optional field is "that, or null".
        let is_null = |id: &NodeId| resolved(id).types.as_ref().is_some_and(Types::are_null);
        let others: Vec<NodeId> = alternatives
            .iter()
            .filter(|id| !is_null(id))
            .copied()
            .collect();
        let typed = others
            .iter()
            .filter(|id| resolved(id).is_meant_for(value))
            .copied();
        let typed: Vec<NodeId> = typed.collect();
        match (others.as_slice(), typed.as_slice()) {
            ([only], _) if others.len() < alternatives.len() => self.check_at(value, *only, at),
            (_, [only]) => self.check_at(value, *only, at),
            _ => return false,
        }
        true
    }

    fn fail(&mut self, at: &At<'_>, message: impl FnOnce() -> String) {
        match &mut self.found {
            Found::Whether(anything) => *anything = true,
            Found::First(Some(_)) => {}
            Found::First(first) => {
                *first = Some(Issue {
                    path: at.path(),
                    message: at.lead() + &message(),
                });
            }
            Found::Issues(issues) => issues.push(Issue {
                path: at.path(),
                message: at.lead() + &message(),
            }),
        }
    }
}

/// `: ["active"] or ["active","passive"]` for alternatives that differ in what they require.
fn required_sets(nodes: &Nodes, alternatives: &[NodeId]) -> String {
    let mut text = String::new();
    for (index, id) in alternatives.iter().enumerate() {
        let required = nodes.at(*id).required();
        if required.is_empty() {
            return String::new();
        }
        let lead = if index == 0 { ":" } else { " or" };
        let _ = write!(text, "{lead} {}", json!(required));
    }
    text
}

fn wrong_type(value: &Value, types: &Types) -> String {
    let mut message = format!(
        "wrong type: expected {}, got {}",
        types.expected,
        type_of(value)
    );
    let meant = value.as_str().and_then(text::old_boolean);
    if let Some(meant) = meant.filter(|meant| types.fit(&Value::Bool(*meant))) {
        let _ = write!(message, " ({value} is text; write {meant})");
    }
    message
}

/// The first item that equals an earlier one, after that.
fn twice(items: &[Value]) -> Option<(usize, usize)> {
    let mut seen = HashMap::with_capacity(items.len());
    let mut items = items.iter().enumerate();
    items.find_map(|(b, item)| {
        let earlier = *seen.entry(item).or_insert(b);
        (earlier != b).then_some((earlier, b))
    })
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

const NO_CHOICE: &str = "matches none of the enum values";

#[cfg(test)]
mod tests;
