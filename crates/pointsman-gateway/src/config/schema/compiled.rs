//! A JSON Schema, read once into the questions that validation asks.
//!
//! Schemas are few and values come by the ten thousand, so nothing of a schema is looked up by
//! name while a value is checked. A keyword that is not understood asks nothing.

use std::{collections::HashMap, sync::OnceLock};

use rustc_hash::FxHashMap;
use serde_json::{Map, Value};

use crate::router::pattern::{Case, Pattern};

/// Where a node stands in [`Nodes`].
pub(super) type NodeId = usize;

/// A schema and all schemas in it. The first node is the whole.
#[derive(Debug)]
pub(super) struct Nodes(Vec<Node>);

/// What one schema asks of a value.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// `$ref`: the schema that applies, too.
    pub(super) refers: Option<NodeId>,
    /// `type`.
    pub(super) types: Option<Types>,
    /// `enum`.
    pub(super) choices: Option<Vec<Value>>,
    /// `const`.
    pub(super) constant: Option<Value>,
    /// Of a number.
    pub(super) number: Option<Box<NumberRules>>,
    /// Of a text.
    pub(super) text: Option<Box<TextRules>>,
    /// Of an array.
    pub(super) array: Option<Box<ArrayRules>>,
    /// Of an object.
    pub(super) object: Option<Box<ObjectRules>>,
    /// `allOf`.
    pub(super) all: Vec<NodeId>,
    /// `anyOf`.
    pub(super) any: Option<Vec<NodeId>>,
    /// `oneOf`.
    pub(super) one: Option<Vec<NodeId>>,
}

/// `type`.
#[derive(Debug)]
pub(super) struct Types {
    bits: u8,
    /// The names, for messages.
    pub(super) expected: String,
}

/// Bounds of a number, each as messages show it and as it is compared.
#[derive(Debug, Default)]
pub(super) struct NumberRules {
    pub(super) least: Option<(String, f64)>,
    pub(super) most: Option<(String, f64)>,
    pub(super) above: Option<(String, f64)>,
}

/// Bounds (characters) and form of a text.
#[derive(Debug)]
pub(super) struct TextRules {
    pub(super) least: Option<u64>,
    pub(super) most: Option<u64>,
    pub(super) pattern: Option<LazyPattern>,
}

/// Bounds of an array, and what each of its items must be.
#[derive(Debug)]
pub(super) struct ArrayRules {
    pub(super) least: Option<u64>,
    pub(super) most: Option<u64>,
    pub(super) is_unique: bool,
    pub(super) items: Option<NodeId>,
}

/// What the members of an object must be.
#[derive(Debug)]
pub(super) struct ObjectRules {
    pub(super) properties: FxHashMap<String, NodeId>,
    pub(super) required: Vec<String>,
    pub(super) by_pattern: Vec<(LazyPattern, NodeId)>,
    pub(super) additional: Additional,
    /// `propertyNames`.
    pub(super) names: Option<LazyPattern>,
    pub(super) least: Option<u64>,
}

/// `additionalProperties`.
#[derive(Debug)]
pub(super) enum Additional {
    Allowed,
    Forbidden,
    Each(NodeId),
}

/// A pattern that is compiled when the first text comes.
#[derive(Debug)]
pub(super) struct LazyPattern {
    /// As written.
    pub(super) written: String,
    compiled: OnceLock<Option<Pattern>>,
}

impl Nodes {
    /// Reads `schema`.
    pub(super) fn of(schema: &Value) -> Self {
        let mut reader = Reader {
            root: schema,
            nodes: vec![Node::default()],
            by_pointer: HashMap::from([(String::new(), 0)]),
        };
        reader.fill(0, schema);
        Self(reader.nodes)
    }

    /// The whole.
    pub(super) fn root(&self) -> &Node {
        self.at(0)
    }

    /// The node with that id.
    pub(super) fn at(&self, id: NodeId) -> &Node {
        &self.0[id]
    }

    /// What `node` stands for, if it is a reference.
    pub(super) fn resolved<'n>(&'n self, node: &'n Node) -> &'n Node {
        node.refers.map_or(node, |id| self.at(id))
    }
}

impl Node {
    /// Whether `types` are there and `value` has one of them.
    pub(super) fn is_meant_for(&self, value: &Value) -> bool {
        self.types.as_ref().is_some_and(|types| types.fit(value))
    }

    /// The names that it requires.
    pub(super) fn required(&self) -> &[String] {
        self.object.as_ref().map_or(&[], |object| &object.required)
    }
}

impl Types {
    fn of(written: &Value) -> Option<Self> {
        let names: Vec<&str> = match written {
            Value::String(name) => vec![name],
            Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
            _ => return None,
        };
        let bits = names.iter().fold(0, |bits, name| bits | bits_of(name));
        let is_only = names.len() == 1;
        let told = names.into_iter().filter(|name| is_only || *name != "null");
        Some(Self {
            bits,
            expected: told.collect::<Vec<_>>().join(" or "),
        })
    }

    /// Whether `value` has one of them.
    pub(super) fn fit(&self, value: &Value) -> bool {
        let bit = match value {
            Value::Object(_) => OBJECT,
            Value::Array(_) => ARRAY,
            Value::String(_) => STRING,
            Value::Bool(_) => BOOLEAN,
            Value::Null => NULL,
            Value::Number(number) if number.is_i64() || number.is_u64() => NUMBER | INTEGER,
            Value::Number(number) => match number.as_f64() {
                Some(number) if number.fract() == 0.0 => NUMBER | INTEGER,
                _ => NUMBER,
            },
        };
        self.bits & bit != 0
    }

    /// Nothing but `null`.
    pub(super) fn are_null(&self) -> bool {
        self.bits == NULL
    }
}

fn bits_of(name: &str) -> u8 {
    match name {
        "object" => OBJECT,
        "array" => ARRAY,
        "string" => STRING,
        "boolean" => BOOLEAN,
        "null" => NULL,
        "integer" => INTEGER,
        "number" => NUMBER,
        _ => u8::MAX,
    }
}

const OBJECT: u8 = 1;
const ARRAY: u8 = 1 << 1;
const STRING: u8 = 1 << 2;
const BOOLEAN: u8 = 1 << 3;
const NULL: u8 = 1 << 4;
const INTEGER: u8 = 1 << 5;
const NUMBER: u8 = 1 << 6;

impl LazyPattern {
    fn of(written: &Value) -> Option<Self> {
        written.as_str().map(Self::new)
    }

    fn new(written: &str) -> Self {
        Self {
            written: written.to_owned(),
            compiled: OnceLock::new(),
        }
    }

    /// Whether it occurs in `text`; never, if it is no pattern.
    pub(super) fn is_in(&self, text: &str) -> bool {
        let compiled = self
            .compiled
            .get_or_init(|| Pattern::new(&self.written, Case::Sensitive).ok());
        let found = compiled.as_ref().map(|pattern| pattern.is_match(text));
        found.is_some_and(|found| found.unwrap_or(false))
    }
}

struct Reader<'a> {
    root: &'a Value,
    nodes: Vec<Node>,
    by_pointer: HashMap<String, NodeId>,
}

impl Reader<'_> {
    fn node(&mut self, schema: &Value) -> NodeId {
        let id = self.nodes.len();
        self.nodes.push(Node::default());
        self.fill(id, schema);
        id
    }

    /// Anything but an object, such as `true`, asks nothing.
    fn fill(&mut self, id: NodeId, schema: &Value) {
        let Some(schema) = schema.as_object() else {
            return;
        };
        let target = schema.get("$ref").and_then(Value::as_str);
        self.nodes[id] = Node {
            refers: target.and_then(|target| self.referred(target)),
            types: schema.get("type").and_then(Types::of),
            choices: schema.get("enum").and_then(Value::as_array).cloned(),
            constant: schema.get("const").cloned(),
            number: number_rules(schema).map(Box::new),
            text: text_rules(schema).map(Box::new),
            array: self.array_rules(schema).map(Box::new),
            object: self.object_rules(schema).map(Box::new),
            all: self.list(schema, "allOf").unwrap_or_default(),
            any: self.list(schema, "anyOf"),
            one: self.list(schema, "oneOf"),
        };
    }

    /// Noted before it is read: a schema may refer to itself.
    fn referred(&mut self, target: &str) -> Option<NodeId> {
        let pointer = target.trim_start_matches('#');
        if let Some(id) = self.by_pointer.get(pointer) {
            return Some(*id);
        }
        let schema = self.root.pointer(pointer)?;
        let id = self.nodes.len();
        self.by_pointer.insert(pointer.to_owned(), id);
        Some(self.node(schema))
    }

    fn list(&mut self, schema: &Map<String, Value>, keyword: &str) -> Option<Vec<NodeId>> {
        let schemas = schema.get(keyword)?.as_array()?;
        Some(schemas.iter().map(|schema| self.node(schema)).collect())
    }

    fn array_rules(&mut self, schema: &Map<String, Value>) -> Option<ArrayRules> {
        let rules = ArrayRules {
            least: count(schema, "minItems"),
            most: count(schema, "maxItems"),
            is_unique: schema.get("uniqueItems") == Some(&Value::Bool(true)),
            items: schema.get("items").map(|each| self.node(each)),
        };
        let any = rules.least.is_some() || rules.most.is_some() || rules.items.is_some();
        (any || rules.is_unique).then_some(rules)
    }

    fn object_rules(&mut self, schema: &Map<String, Value>) -> Option<ObjectRules> {
        const KEYWORDS: [&str; 6] = [
            "properties",
            "required",
            "patternProperties",
            "additionalProperties",
            "propertyNames",
            "minProperties",
        ];
        if !KEYWORDS.iter().any(|keyword| schema.contains_key(*keyword)) {
            return None;
        }
        let members = |keyword| schema.get(keyword).and_then(Value::as_object);
        let required = schema.get("required").and_then(Value::as_array);
        let required = required.into_iter().flatten().filter_map(Value::as_str);
        Some(ObjectRules {
            properties: members("properties")
                .into_iter()
                .flatten()
                .map(|(name, each)| (name.clone(), self.node(each)))
                .collect(),
            required: required.map(str::to_owned).collect(),
            by_pattern: members("patternProperties")
                .into_iter()
                .flatten()
                .map(|(pattern, each)| (LazyPattern::new(pattern), self.node(each)))
                .collect(),
            additional: match schema.get("additionalProperties") {
                Some(Value::Bool(false)) => Additional::Forbidden,
                Some(each @ Value::Object(_)) => Additional::Each(self.node(each)),
                _ => Additional::Allowed,
            },
            names: members("propertyNames")
                .and_then(|names| names.get("pattern"))
                .and_then(LazyPattern::of),
            least: count(schema, "minProperties"),
        })
    }
}

fn count(schema: &Map<String, Value>, keyword: &str) -> Option<u64> {
    schema.get(keyword).and_then(Value::as_u64)
}

fn text_rules(schema: &Map<String, Value>) -> Option<TextRules> {
    let rules = TextRules {
        least: count(schema, "minLength"),
        most: count(schema, "maxLength"),
        pattern: schema.get("pattern").and_then(LazyPattern::of),
    };
    let any = rules.least.is_some() || rules.most.is_some() || rules.pattern.is_some();
    any.then_some(rules)
}

/// What the parsed type cannot hold is out of bounds too, even where APISIX has no bound.
fn number_rules(schema: &Map<String, Value>) -> Option<NumberRules> {
    let bound = |keyword: &str| {
        let bound = schema.get(keyword)?;
        Some((plain(bound), bound.as_f64()?))
    };
    let (lowest, highest) = limits_of(schema);
    let rules = NumberRules {
        least: tighter(bound("minimum"), lowest, f64::max),
        most: tighter(bound("maximum"), highest, f64::min),
        above: bound("exclusiveMinimum"),
    };
    let any = rules.least.is_some() || rules.most.is_some() || rules.above.is_some();
    any.then_some(rules)
}

/// The least and the greatest number of the type that a value is parsed into.
fn limits_of(schema: &Map<String, Value>) -> (Option<f64>, Option<f64>) {
    let (least, most) = match schema.get("format").and_then(Value::as_str) {
        Some("uint8") => (0.0, f64::from(u8::MAX)),
        Some("uint16") => (0.0, f64::from(u16::MAX)),
        Some("uint32") => (0.0, f64::from(u32::MAX)),
        Some("int32") => (f64::from(i32::MIN), f64::from(i32::MAX)),
        Some("uint64" | "uint") => (0.0, U64_SAFE),
        _ => return (None, None),
    };
    (Some(least), Some(most))
}

fn tighter(
    written: Option<(String, f64)>,
    limit: Option<f64>,
    of: fn(f64, f64) -> f64,
) -> Option<(String, f64)> {
    match (written, limit) {
        (None, None) => None,
        (None, Some(limit)) => Some((format!("{limit:.0}"), limit)),
        (Some(written), None) => Some(written),
        (Some((text, written)), Some(limit)) => {
            let tighter = of(written, limit);
            let is_written = tighter.total_cmp(&written).is_eq();
            Some(if is_written {
                (text, written)
            } else {
                (format!("{limit:.0}"), limit)
            })
        }
    }
}

/// `1` rather than `1.0`.
fn plain(bound: &Value) -> String {
    match bound.as_f64() {
        Some(number) if number.fract() == 0.0 && number.abs() < 1e15 => format!("{number:.0}"),
        _ => bound.to_string(),
    }
}

/// The greatest float whose integer fits in 64 bits.
const U64_SAFE: f64 = 18_446_744_073_709_549_568.0;
