//! `docs/compatibility.md`: every field and plugin, how it stands to APISIX's, and a test that uses it.
//!
//! It is made from the schemas of this build and from the tests' sources, so it cannot claim a field that is
//! not there or a test that is gone; this test fails when it is older than the code.
//! `UPDATE_COMPATIBILITY=1 cargo test -p pointsman-gateway --test compatibility` writes it anew.

#![allow(clippy::expect_used, reason = "a panic is how a test fails")]

mod notes;
mod sources;

use std::fmt::Write as _;

use pointsman_gateway::{config::resource, plugin::registry::Registry};
use serde_json::Value;

use self::{
    notes::{ABSENT, ADDED_PLUGIN_FIELDS, DIFFERS, OUT_OF_SCOPE},
    sources::Tests,
};

const FILE: &str = "docs/compatibility.md";

/// A field that a schema has.
struct Field {
    /// Its path, with `[]` for the elements of a list.
    path: String,
    kind: String,
    default: Option<String>,
}

#[test]
fn the_table_says_what_the_code_says() {
    let root = sources::root();
    let table = table(&Tests::read(&root));
    let path = root.join(FILE);
    if std::env::var_os("UPDATE_COMPATIBILITY").is_some() {
        std::fs::write(&path, &table).expect("written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == table,
        "{FILE} is older than the code: run UPDATE_COMPATIBILITY=1 cargo test -p pointsman-gateway --test \
         compatibility"
    );
}

/// What is noted of a field is noted of one that is there.
#[test]
fn notes_are_about_fields_that_exist() {
    let registry = Registry::new();
    let known: Vec<(String, Vec<Field>)> = subjects(&registry)
        .into_iter()
        .map(|(name, schema)| (name, fields(&schema)))
        .collect();
    let exists = |subject: &str, path: &str| {
        let fields = known.iter().filter(|(name, _)| name == subject);
        fields.flat_map(|(_, fields)| fields).any(|field| {
            let rest = field.path.strip_prefix(path);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    };
    let all = ADDED_PLUGIN_FIELDS
        .iter()
        .map(|(subject, path, _)| (subject, path));
    let all = all.chain(DIFFERS.iter().map(|(subject, path, _)| (subject, path)));
    let stray: Vec<_> = all
        .filter(|(subject, path)| !path.is_empty() && !exists(subject, path))
        .collect();
    assert!(stray.is_empty(), "there are no such fields: {stray:?}");
    let absent: Vec<&&str> = (ABSENT.iter().map(|(name, _)| name))
        .filter(|name| registry.kind(name).is_some())
        .collect();
    assert!(absent.is_empty(), "these are there: {absent:?}");
}

/// Everything that has fields: resources as APISIX calls them, then plugins by name, each with what it is
/// told where.
fn subjects(registry: &Registry) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for name in RESOURCES {
        let schema = resource::schema_named(name).expect("a resource");
        all.push((name.to_owned(), schema.written().clone()));
    }
    let mut plugins = registry.by_priority();
    plugins.sort_by_key(|kind| kind.schema.name);
    for kind in plugins {
        let schema = &kind.schema;
        all.push((schema.name.to_owned(), schema.schema.written().clone()));
        if let Some(consumer) = &schema.consumer_schema {
            let name = format!("{} (of a consumer)", schema.name);
            all.push((name, consumer.schema.written().clone()));
        }
        if let Some(metadata) = &schema.metadata_schema {
            let name = format!("{} (metadata)", schema.name);
            all.push((name, metadata.written().clone()));
        }
    }
    all
}

fn table(tests: &Tests) -> String {
    let registry = Registry::new();
    let subjects = subjects(&registry);
    let mut out = HEAD.to_owned();
    let mut untested = Vec::new();
    for (name, schema) in &subjects {
        let fields = fields(schema);
        let _ = writeln!(out, "\n## {name}\n");
        let whole = note(DIFFERS, name, "");
        if let Some(note) = whole {
            let _ = writeln!(out, "{note}\n");
        }
        if fields.is_empty() {
            out.push_str("No fields.\n");
            continue;
        }
        out.push_str("| field | type | default | | a test that uses it |\n|---|---|---|---|---|\n");
        for field in &fields {
            let subject = name.split(' ').next().unwrap_or(name);
            let test = tests.using(subject, &field.path);
            let how = how(name, &field.path);
            if test.is_none() {
                untested.push(format!("{name}: {}", field.path));
            }
            let _ = writeln!(
                out,
                "| `{}` | {} | {} | {how} | {} |",
                field.path,
                field.kind,
                field.default.as_deref().unwrap_or_default(),
                test.unwrap_or_else(|| "none".to_owned()),
            );
        }
    }
    out.push_str("\n## Plugins of APISIX that are not there\n\n");
    out.push_str("Naming one is an error when the configuration is loaded, with its name; its resource is left out.\n\n");
    out.push_str("| plugin | |\n|---|---|\n");
    for (name, why) in ABSENT.iter().chain(OUT_OF_SCOPE) {
        let _ = writeln!(out, "| `{name}` | {why} |");
    }
    let _ = writeln!(
        out,
        "\n{} fields, of which {} are used by no test under their own name.",
        subjects
            .iter()
            .map(|(_, schema)| fields(schema).len())
            .sum::<usize>(),
        untested.len()
    );
    out
}

/// How a field stands to APISIX's.
fn how(subject: &str, path: &str) -> String {
    match (
        note(ADDED_PLUGIN_FIELDS, subject, path),
        note(DIFFERS, subject, path),
    ) {
        (Some(""), _) => "addition".to_owned(),
        (Some(note), _) => format!("addition: {note}"),
        (None, Some(note)) if !path.is_empty() => format!("differs: {note}"),
        _ => "same".to_owned(),
    }
}

/// What is noted of a path, or of what it is a part of.
fn note<'a>(notes: &[(&str, &str, &'a str)], subject: &str, path: &str) -> Option<&'a str> {
    let is_of = |noted: &str| match path.strip_prefix(noted) {
        _ if noted.is_empty() => path.is_empty(),
        Some(rest) => rest.is_empty() || rest.starts_with(['.', '[']),
        None => false,
    };
    let found = notes
        .iter()
        .filter(|(of, noted, _)| *of == subject && is_of(noted));
    found
        .max_by_key(|(_, noted, _)| noted.len())
        .map(|(_, _, note)| *note)
}

/// The fields of a schema, in its order, alternatives and parts included.
fn fields(schema: &Value) -> Vec<Field> {
    let mut all = Vec::new();
    walk(schema, schema, "", 0, &mut all);
    let mut seen = std::collections::HashSet::new();
    all.retain(|field: &Field| seen.insert(field.path.clone()));
    all
}

fn walk(root: &Value, schema: &Value, prefix: &str, depth: usize, all: &mut Vec<Field>) {
    if depth > DEPTH_MAX {
        return;
    }
    let schema = resolved(root, schema);
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        let member = resolved(root, member);
        let path = match prefix {
            "" => name.clone(),
            prefix => format!("{prefix}.{name}"),
        };
        all.push(Field {
            path: path.clone(),
            kind: kind(root, member),
            default: member.get("default").map(|value| format!("`{value}`")),
        });
        walk(root, member, &path, depth + 1, all);
    }
    if let Some(items) = schema.get("items") {
        walk(root, items, &format!("{prefix}[]"), depth + 1, all);
    }
    for parts in ["allOf", "anyOf", "oneOf"] {
        for part in schema[parts].as_array().into_iter().flatten() {
            walk(root, part, prefix, depth + 1, all);
        }
    }
    for part in ["if", "then", "else"] {
        if let Some(part) = schema.get(part) {
            walk(root, part, prefix, depth + 1, all);
        }
    }
}

fn resolved<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let place = schema.get("$ref").and_then(Value::as_str);
    let place = place.and_then(|place| place.strip_prefix('#'));
    place
        .and_then(|place| root.pointer(place))
        .unwrap_or(schema)
}

fn kind(root: &Value, schema: &Value) -> String {
    let kinds = |value: &Value| match value {
        Value::String(kind) => kind.clone(),
        Value::Array(kinds) => {
            let kinds: Vec<&str> = kinds.iter().filter_map(Value::as_str).collect();
            kinds.join(" or ")
        }
        _ => String::new(),
    };
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<String> = values
            .iter()
            .take(6)
            .map(|value| format!("`{value}`"))
            .collect();
        let more = if schema["enum"].as_array().map_or(0, Vec::len) > 6 {
            ", …"
        } else {
            ""
        };
        return format!("{}{more}", values.join(", ")).replace('|', "\\|");
    }
    let own = kinds(&schema["type"]);
    if !own.is_empty() {
        return own;
    }
    for parts in ["anyOf", "oneOf"] {
        let mut found: Vec<String> = Vec::new();
        for part in schema[parts].as_array().into_iter().flatten() {
            let kind = kinds(&resolved(root, part)["type"]);
            if !kind.is_empty() && !found.contains(&kind) {
                found.push(kind);
            }
        }
        if !found.is_empty() {
            return found.join(" or ");
        }
    }
    String::new()
}

const RESOURCES: [&str; 9] = [
    "route",
    "service",
    "upstream",
    "consumer",
    "credential",
    "consumer_group",
    "plugin_config",
    "global_rule",
    "ssl",
];

/// Deep enough for the checks of an instance.
const DEPTH_MAX: usize = 9;

const HEAD: &str = "\
<!-- Made by UPDATE_COMPATIBILITY=1 cargo test -p pointsman-gateway --test compatibility. -->

# Compatibility with Apache APISIX 3.18

Every field that resources and plugins take, from the schemas of this build. *same*: named, bounded and \
treated as in APISIX; *differs*: as the words say, and for the reasons that [state.md](state.md#departures-from-apisix-beyond-those-in-the-readme) \
gives; *addition*: APISIX ignores or refuses it. The last column names a test that has the field in a \
configuration of its subject, so that there is one to read; it is found by the names in the tests' sources, and \
*none* means that no test uses the field under its own name. Which cases of APISIX's behaviour are tested is in \
[state.md](state.md). Fields that are not in a table are refused or ignored as APISIX does it: by \
`additionalProperties` of the same schema. The settings in `config.yaml` are told by `pointsman check`.
";
