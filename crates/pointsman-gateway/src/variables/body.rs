//! Variables whose values come out of the request's body: `post_arg.*`, `post_arg_*`, `graphql_*`.
//!
//! They never read the body themselves: what uses them says so when it is compiled, and the body
//! is here before it runs. When it is not, the variable is absent and the exchange notes that
//! somebody asked.

use std::borrow::Cow;

use bytes::Bytes;
use http::Method;
use pointsman_ai::multipart;
use serde_json::Value;

use super::{
    graphql::{self, Operation},
    query_arg,
};
use crate::{exchange::Exchange, vars::VarValue};

/// Whether the value of the variable `name` may come out of the request's body.
pub(crate) fn reads_body(name: &str) -> bool {
    ["post_arg.", "post_arg_", "graphql_"]
        .iter()
        .any(|start| name.starts_with(start))
}

/// `post_arg.path`: JSON by dotted path or JSONPath, or the field of a form that has that name.
pub(super) fn post_arg<'a>(x: &'a Exchange, path: &str) -> Option<VarValue<'a>> {
    let body = body_of(x)?;
    let kind = x.header("content-type").unwrap_or("application/json");
    if kind.contains("x-www-form-urlencoded") {
        return form_field(body, path).map(|text| VarValue::Text(Cow::Owned(text)));
    }
    if let Some(boundary) = multipart::boundary(kind) {
        return multipart::field(body, &boundary, path).map(|text| VarValue::Text(Cow::from(text)));
    }
    if !kind.contains("json") {
        return None;
    }
    // Routing asks before anybody has been authenticated, and once per rule: a stranger's prompt
    // is scanned for it, never built.
    if path.contains(['[', '*']) || path.contains("..") {
        let json: Value = serde_json::from_slice(bounded(body)?).ok()?;
        let query = serde_json_path::JsonPath::parse(&format!("$.{path}")).ok()?;
        let found: Vec<Value> = query.query(&json).all().into_iter().cloned().collect();
        return (!found.is_empty()).then_some(VarValue::Json(Value::Array(found)));
    }
    let value = pointsman_ai::value_at(body, path.split('.'))?;
    Some(match serde_json::from_slice(bounded(value)?).ok()? {
        Value::String(text) => VarValue::Text(Cow::Owned(text)),
        Value::Null => return None,
        other => VarValue::Json(other),
    })
}

/// `post_arg_name`: a field of an urlencoded body, whatever its type is said to be.
pub(super) fn form_arg(x: &Exchange, name: &str) -> Option<String> {
    form_field(body_of(x)?, name)
}

/// `graphql_operation`, `graphql_name` (empty for an operation without one) and
/// `graphql_root_fields`, a list.
pub(super) fn graphql<'a>(x: &'a Exchange, part: &str) -> Option<VarValue<'a>> {
    let operation = operation(x)?;
    Some(match part {
        "operation" => VarValue::Text(Cow::from(operation.kind?)),
        "name" => VarValue::Text(Cow::from(operation.name.as_str())),
        "root_fields" => VarValue::Json(operation.root_fields().map(Value::from).collect()),
        _ => return None,
    })
}

/// The request's GraphQL operation, parsed once (APISIX: the body of a POST, the argument `query`
/// of a GET; no other method has one).
fn operation(x: &Exchange) -> Option<&Operation> {
    let document: Cow<'_, str> = if x.received.method == Method::GET {
        query_arg(x.received.uri.query()?, "query")?
    } else if x.received.method == Method::POST {
        let body = body_of(x)?;
        if x.rare().graphql.get().is_none() && body.len() <= graphql::BYTES_MAX {
            let is_json = x
                .header("content-type")
                .is_some_and(|kind| kind.starts_with("application/json"));
            document(body, is_json).unwrap_or_default()
        } else {
            Cow::Borrowed("")
        }
    } else {
        return None;
    };
    x.rare()
        .graphql
        .get_or_init(|| graphql::parse(&document))
        .as_ref()
}

/// The document itself, or the one that a JSON object has under `query`.
fn document(body: &[u8], is_json: bool) -> Option<Cow<'_, str>> {
    if !is_json {
        return std::str::from_utf8(body).ok().map(Cow::Borrowed);
    }
    let query = pointsman_ai::value_at(body, std::iter::once("query"))?;
    serde_json::from_slice::<String>(query).ok().map(Cow::Owned)
}

/// What may be built into a tree.
fn bounded(json: &[u8]) -> Option<&[u8]> {
    (json.len() <= TREE_BYTES_MAX).then_some(json)
}

/// The body, if it has been read; otherwise asks for it, and routing will look again.
fn body_of(x: &Exchange) -> Option<&Bytes> {
    let body = x.buffered_body();
    if body.is_none() {
        x.want_body();
    }
    body
}

fn form_field(body: &[u8], name: &str) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    query_arg(text, name).map(Cow::into_owned)
}

/// A tree takes some forty times the space of the densest text.
const TREE_BYTES_MAX: usize = 1 << 20;
