//! YAML and JSON to values, with the place of everything.
//!
//! The values are JSON's; the places make errors useful. YAML is read by the rules that APISIX's
//! users expect of it: plain scalars are typed, quoted ones are text, anchors and merge keys
//! work. What a file may contain is bounded, because a configuration can come from anywhere.

mod lines;

use std::{borrow::Cow, collections::HashMap};

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::{Map, Number, Value};

pub use self::lines::Lines;
use self::lines::PathHash;

/// A value and where its parts stood.
#[derive(Clone, Debug, Default)]
pub struct Located {
    /// The value.
    pub value: Value,
    /// Lines, by path.
    pub lines: Lines,
}

/// A text that cannot be read at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextError {
    /// What is wrong.
    pub message: String,
    /// Where, if known.
    pub line: Option<usize>,
}

impl std::fmt::Display for TextError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for TextError {}

/// Reads the environment.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads YAML. An empty text is `null`.
pub fn yaml(text: &str) -> Result<Located, TextError> {
    let text = without_mark(text);
    limit_size(text)?;
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        anchors: HashMap::new(),
        lines: Lines::default(),
        nodes: 0,
        members: Vec::new(),
        items: Vec::new(),
    };
    let value = reader.document()?;
    Ok(Located {
        value,
        lines: reader.lines,
    })
}

/// Reads JSON.
pub fn json(text: &str) -> Result<Located, TextError> {
    let text = without_mark(text);
    limit_size(text)?;
    let value: Value = serde_json::from_str(text).map_err(|error| TextError {
        line: Some(error.line()),
        message: error.to_string(),
    })?;
    // JSON is YAML as far as places go; where it is not, errors just have no line.
    let lines = yaml(text).map(|located| located.lines).unwrap_or_default();
    Ok(Located { value, lines })
}

/// Whether a standalone YAML document ends in its `#END` marker.
pub fn has_end_marker(text: &str) -> bool {
    let trimmed = text.trim_end();
    trimmed.ends_with("#END") && text.len() - trimmed.len() + "#END".len() <= END_WINDOW
}

/// Replaces `${{NAME}}` and `${{NAME:=default}}` in `text`.
pub fn substitute<'t>(text: &'t str, env: Env<'_>) -> Result<Cow<'t, str>, TextError> {
    if !text.contains("${{") {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${{") {
        let Some(length) = rest[start..].find("}}") else {
            break;
        };
        out.push_str(&rest[..start]);
        let inside = &rest[start + 3..start + length];
        let (name, default) = match inside.split_once(":=") {
            Some((name, default)) => (name.trim(), Some(default.trim())),
            None => (inside.trim(), None),
        };
        match (env(name), default) {
            (Some(value), _) => out.push_str(&value),
            (None, Some(default)) => out.push_str(default),
            (None, None) => {
                let line = 1 + out.matches('\n').count();
                let message = format!(
                    "environment variable {name} is not set; set it or write ${{{{{name}:=default}}}}"
                );
                return Err(TextError {
                    message,
                    line: Some(line),
                });
            }
        }
        rest = &rest[start + length + 2..];
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}

/// Replaces variables in the keys and strings of `value`; a string that was one variable and
/// nothing else becomes a number or boolean if it looks like one and `coerce` says so.
pub fn substitute_value(value: &mut Value, env: Env<'_>, coerce: Coerce) -> Result<(), TextError> {
    match value {
        Value::String(text) if text.contains("${{") => {
            let replaced = substitute(text, env).map_err(|e| TextError { line: None, ..e })?;
            *value = match coerce {
                Coerce::Yes => scalar(&replaced),
                Coerce::No => Value::String(replaced.into_owned()),
            };
            Ok(())
        }
        Value::Array(items) => items
            .iter_mut()
            .try_for_each(|item| substitute_value(item, env, coerce)),
        Value::Object(map) => {
            if map.keys().any(|key| key.contains("${{")) {
                let old = std::mem::take(map);
                for (key, member) in old {
                    let key = substitute(&key, env).map_err(|e| TextError { line: None, ..e })?;
                    map.insert(key.into_owned(), member);
                }
            }
            map.values_mut()
                .try_for_each(|member| substitute_value(member, env, coerce))
        }
        _ => Ok(()),
    }
}

/// Whether a replaced string is typed anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coerce {
    /// `${{PORT}}` may become a number.
    Yes,
    /// A string stays a string.
    No,
}

struct Reader<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: HashMap<usize, Value>,
    lines: Lines,
    nodes: usize,
    /// Members of the mappings that are being read, the innermost's last: so a mapping's size is
    /// known when its map is made.
    members: Vec<(String, Value)>,
    /// The same, of sequences.
    items: Vec<Value>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), TextError> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(TextError {
                message: error.info().to_owned(),
                line: Some(error.marker().line()),
            }),
            None => Err(at("the text ends too early", None)),
        }
    }

    fn document(&mut self) -> Result<Value, TextError> {
        let mut value = Value::Null;
        let mut seen = false;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(value),
                Event::StreamStart
                | Event::DocumentStart(_)
                | Event::DocumentEnd
                | Event::Nothing => {}
                _ if seen => return Err(at("more than one document in the file", Some(&span))),
                event => {
                    value = self.node(event, &span, (PathHash::ROOT, span.start.line()), 0)?;
                    seen = true;
                }
            }
        }
    }

    /// The value that begins with `event` and stands at the path and line of `place`.
    fn node(
        &mut self,
        event: Event<'a>,
        span: &Span,
        place: (PathHash, usize),
        depth: usize,
    ) -> Result<Value, TextError> {
        self.count(1, span)?;
        if depth > DEPTH_MAX {
            return Err(at(
                &format!("nested more than {DEPTH_MAX} levels deep"),
                Some(span),
            ));
        }
        let (path, line) = place;
        self.lines.note(path, line);
        let (value, anchor) = match event {
            Event::Alias(anchor) => {
                let value = self.anchors.get(&anchor).cloned();
                let value = value.ok_or_else(|| at("unknown anchor", Some(span)))?;
                self.count(size(&value), span)?;
                (value, 0)
            }
            Event::Scalar(text, style, anchor, _) => {
                let value = match style {
                    ScalarStyle::Plain => scalar(&text),
                    _ => Value::String(exact(&text)),
                };
                (value, anchor)
            }
            Event::SequenceStart(anchor, _) => (self.sequence(path, depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.mapping(path, depth)?, anchor),
            _ => return Err(at("unexpected structure", Some(span))),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    fn sequence(&mut self, path: PathHash, depth: usize) -> Result<Value, TextError> {
        let start = self.items.len();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(Value::Array(self.items.drain(start..).collect()));
            }
            let place = (path.item(self.items.len() - start), span.start.line());
            let item = self.node(event, &span, place, depth + 1)?;
            self.items.push(item);
        }
    }

    fn mapping(&mut self, path: PathHash, depth: usize) -> Result<Value, TextError> {
        let start = self.members.len();
        let mut map = Map::new();
        let mut merged: Vec<Map<String, Value>> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let key = match event {
                Event::MappingEnd => break,
                Event::Scalar(text, ..) => exact(&text),
                _ => return Err(at("a key must be a plain text", Some(&span))),
            };
            // A member stands where its key does.
            let place = (path.member(&key), span.start.line());
            let (event, value_span) = self.next()?;
            let value = self.node(event, &value_span, place, depth + 1)?;
            if key == "<<" {
                merged.extend(merge_sources(value, &span)?);
                continue;
            }
            if let Some(key) = self.add_member(start, &mut map, key, value) {
                let message = format!("the key `{key}` appears twice");
                return Err(at(&message, Some(&span)));
            }
        }
        if map.is_empty() {
            map = self.take_members(start);
        }
        for source in merged {
            for (key, value) in source {
                map.entry(key).or_insert(value);
            }
        }
        Ok(Value::Object(map))
    }

    /// Adds a member to those from `start` on, or to `map` once they are many. Returns the key if
    /// it is taken.
    fn add_member(
        &mut self,
        start: usize,
        map: &mut Map<String, Value>,
        key: String,
        value: Value,
    ) -> Option<String> {
        if map.is_empty() {
            let members = &self.members[start..];
            if members.iter().any(|(taken, _)| *taken == key) {
                return Some(key);
            }
            if members.len() < MEMBERS_FEW {
                self.members.push((key, value));
                return None;
            }
            *map = self.take_members(start);
        }
        if map.contains_key(&key) {
            return Some(key);
        }
        map.insert(key, value);
        None
    }

    fn take_members(&mut self, start: usize) -> Map<String, Value> {
        let mut map = Map::with_capacity(self.members.len() - start);
        for (key, value) in self.members.drain(start..) {
            map.insert(key, value);
        }
        map
    }

    fn count(&mut self, nodes: usize, span: &Span) -> Result<(), TextError> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            return Err(at(
                &format!("more than {NODES_MAX} values (aliases expanded)"),
                Some(span),
            ));
        }
        Ok(())
    }
}

/// `text` without the room that the parser keeps for more of it.
fn exact(text: &str) -> String {
    text.to_owned()
}

fn merge_sources(value: Value, span: &Span) -> Result<Vec<Map<String, Value>>, TextError> {
    match value {
        Value::Object(map) => Ok(vec![map]),
        Value::Array(items) => {
            let sources = items.into_iter().map(|item| merge_sources(item, span));
            Ok(sources
                .collect::<Result<Vec<_>, _>>()?
                .into_iter()
                .flatten()
                .collect())
        }
        _ => Err(at("`<<` must name a mapping", Some(span))),
    }
}

/// The path of the member `key` of the object at `path`.
pub fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// What `text` would mean as a boolean of YAML 1.1, where `yes` and `off` are some. Here they are
/// text, as any YAML 1.2 reader has it, and who meant a boolean should hear of it.
pub fn old_boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "y" | "on" => Some(true),
        "no" | "n" | "off" => Some(false),
        _ => None,
    }
}

/// A plain scalar: YAML 1.2's core schema.
fn scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

fn number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    if let Some(hex) = digits.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok().map(Number::from);
    }
    let plain = text.strip_prefix('+').unwrap_or(text);
    if let Ok(integer) = plain.parse::<i64>() {
        return Some(Number::from(integer));
    }
    if let Ok(integer) = plain.parse::<u64>() {
        return Some(Number::from(integer));
    }
    let is_float = plain
        .bytes()
        .all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    if is_float {
        plain.parse::<f64>().ok().and_then(Number::from_f64)
    } else {
        None
    }
}

fn size(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(map) => map.values().map(size).sum(),
        _ => 0,
    }
}

/// `text` without the byte order mark that some editors begin every file with. It says nothing
/// about UTF-8; left in place, it would be a part of the first key.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

fn limit_size(text: &str) -> Result<(), TextError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(at(&format!("larger than {TEXT_BYTES_MAX} bytes"), None));
    }
    Ok(())
}

fn at(message: &str, span: Option<&Span>) -> TextError {
    TextError {
        message: message.to_owned(),
        line: span.map(|span| span.start.line()),
    }
}

/// Bytes of a document.
const TEXT_BYTES_MAX: usize = 64 << 20;
/// Levels of nesting.
const DEPTH_MAX: usize = 96;
/// Members of a mapping up to which a key is looked for one by one.
const MEMBERS_FEW: usize = 16;
/// Values of a document, aliases expanded.
const NODES_MAX: usize = 5_000_000;
/// The bytes at the end of a document in which `#END` must stand.
const END_WINDOW: usize = 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn check(text: &str, expected: Value) {
        assert_eq!(yaml(text).expect("valid").value, expected, "{text}");
    }

    #[test]
    fn scalars_are_typed_and_quoted_ones_are_text() {
        check(
            "a: 1\nb: '1'\nc: true\nd: ~\ne: 1.5\nf: no\ng: 1e3\nh: 1.2.3",
            json!({
                "a": 1, "b": "1", "c": true, "d": null, "e": 1.5, "f": "no", "g": 1000.0, "h": "1.2.3"
            }),
        );
        check("", Value::Null);
        check("#END", Value::Null);
    }

    #[test]
    fn anchors_and_merge_keys_work() {
        check(
            "base: &b {x: 1, y: 2}\nuse: {<<: *b, y: 3}\nlist: [*b]",
            json!({"base": {"x": 1, "y": 2}, "use": {"y": 3, "x": 1}, "list": [{"x": 1, "y": 2}]}),
        );
    }

    /// A mapping of few members is read another way than one of many.
    #[test]
    fn a_key_is_told_twice_however_many_there_are() {
        for count in [1, MEMBERS_FEW, MEMBERS_FEW + 1, 100] {
            let line = |number: usize| format!("k{number}: {{a: {number}}}\n");
            let text: String = (0..count).map(line).collect();
            let value = yaml(&text).expect("valid").value;
            let keys: Vec<&String> = value.as_object().into_iter().flat_map(Map::keys).collect();
            let expected: Vec<String> = (0..count).map(|number| format!("k{number}")).collect();
            assert_eq!(keys, expected.iter().collect::<Vec<_>>());
            assert_eq!(value["k0"], json!({"a": 0}));
            for taken in [0, count - 1] {
                let error = yaml(&format!("{text}k{taken}: 1\nx: [")).expect_err("a key twice");
                let message = format!("the key `k{taken}` appears twice");
                assert_eq!((error.message, error.line), (message, Some(count + 1)));
            }
        }
    }

    #[test]
    fn places_are_known() {
        let located = yaml("routes:\n  - uri: /a\n    plugins:\n      x: {y: 1}\n").expect("valid");
        assert_eq!(located.lines.of("routes[0].uri"), Some(2));
        assert_eq!(located.lines.of("routes[0].plugins.x.y"), Some(4));
        assert_eq!(located.lines.of("routes[0].plugins.x.missing"), Some(4));
    }

    #[test]
    fn errors_have_a_line() {
        let duplicate = yaml("a: 1\na: 2").expect_err("a key twice");
        assert_eq!(
            (duplicate.line, duplicate.message.contains("`a`")),
            (Some(2), true)
        );
        assert!(yaml("a: [1").is_err());
        assert!(yaml("a: *nobody").is_err());
        let deep = "[".repeat(200);
        assert!(yaml(&deep).is_err());
    }

    #[test]
    fn aliases_cannot_explode() {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for level in 1..9 {
            let before = level - 1;
            let row = vec![format!("*a{before}"); 10].join(",");
            text.push_str(&format!("a{level}: &a{level} [{row}]\n"));
        }
        assert!(
            yaml(&text)
                .expect_err("too large")
                .message
                .contains("aliases")
        );
    }

    /// G-264
    #[test]
    fn the_end_marker_is_at_the_end() {
        assert!(has_end_marker("a: 1\n#END"));
        assert!(has_end_marker("a: 1\n#END\n\n"));
        assert!(!has_end_marker("a: 1\n#END\n\n\n\n\n\n\n\n"));
        assert!(!has_end_marker("a: 1\n"));
        assert!(!has_end_marker("#END\na: 1"));
    }

    /// G-268, G-269
    #[test]
    fn variables_come_from_the_environment() {
        let env = |name: &str| (name == "V").then(|| "5".to_owned());
        assert_eq!(
            substitute("a: ${{V}} b: ${{W:=x}}", &env).as_deref(),
            Ok("a: 5 b: x")
        );
        let missing = substitute("a: 1\nb: ${{W}}", &env).expect_err("not set");
        assert_eq!(missing.line, Some(2));
        let mut value = json!({"${{V}}": ["${{V}}"]});
        substitute_value(&mut value, &env, Coerce::Yes).expect("set");
        assert_eq!(value, json!({"5": [5]}));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[\\PC\n]{0,200}") {
            let _ = yaml(&text);
            let _ = json(&text);
        }

        #[test]
        fn no_yaml_like_text_panics(text in "([a-c]: |- |\\[|\\]|\\{|\\}|\n|  |&a |\\*a|<<: |'|\"|,|#END){0,60}") {
            let _ = yaml(&text);
        }
    }
}
