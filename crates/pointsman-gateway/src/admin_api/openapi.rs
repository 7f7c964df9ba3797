//! The Admin API's own description: OpenAPI 3.1, made from the schemas that requests are checked by.

use http::Method;
use serde_json::{Map, Value, json};

use super::target::Target;
use crate::{
    config::{
        collection::Collection,
        resource::{self, secret},
    },
    plugin::registry::Registry,
};

/// The whole description.
pub(super) fn document(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for collection in Collection::ALL {
        if matches!(collection, Collection::Protos | Collection::StreamRoutes) {
            continue;
        }
        let place = Place::of(collection);
        paths.insert(place.path.clone(), place.all());
        paths.insert(format!("{}/{}", place.path, place.id), place.one());
        if allows(collection, &Method::PATCH) {
            paths.insert(
                format!("{}/{}/{{path}}", place.path, place.id),
                place.part(),
            );
        }
    }
    paths.extend(others());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Pointsman Admin API",
            "description": "Apache APISIX's Admin API (v3): resources are written and looked at one by one.",
            "version": env!("CARGO_PKG_VERSION"),
        },
        "servers": [{ "url": "/apisix/admin" }],
        "security": [{ "admin_key": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas(registry),
            "securitySchemes": {
                "admin_key": { "type": "apiKey", "in": "header", "name": "X-API-KEY" },
            },
        },
    })
}

fn allows(collection: Collection, method: &Method) -> bool {
    let target = Target {
        collection,
        parent: None,
        id: None,
        below: Vec::new(),
    };
    target.allows(method).is_ok()
}

/// Where the resources of a collection are.
struct Place {
    collection: Collection,
    path: String,
    /// Behind the path.
    id: &'static str,
    parameters: Vec<Value>,
    schema: Value,
}

impl Place {
    fn of(collection: Collection) -> Self {
        let (path, id, names): (&str, _, &[&str]) = match collection {
            Collection::Credentials => (
                "consumers/{username}/credentials",
                "{credential_id}",
                &["username", "credential_id"],
            ),
            Collection::Consumers => ("consumers", "{username}", &["username"]),
            Collection::PluginMetadata => ("plugin_metadata", "{plugin_name}", &["plugin_name"]),
            Collection::Secrets => (
                "secrets",
                "{manager}/{secret_id}",
                &["manager", "secret_id"],
            ),
            other => (other.name(), "{id}", &["id"]),
        };
        let parameter = |name: &&str| {
            let schema = match *name {
                "manager" => json!({ "enum": secret::MANAGERS }),
                _ => json!({ "type": "string", "pattern": "^[a-zA-Z0-9-_.]+$", "maxLength": 64 }),
            };
            json!({ "name": name, "in": "path", "required": true, "schema": schema })
        };
        Self {
            collection,
            path: format!("/{path}"),
            id,
            parameters: names.iter().map(parameter).collect(),
            schema: schema_of(collection),
        }
    }

    /// Of the whole collection.
    fn all(&self) -> Value {
        let kind = self.collection.kind();
        let list = json!({
            "type": "object",
            "properties": {
                "total": { "type": "integer" },
                "list": { "type": "array", "items": self.entry() },
            },
        });
        let mut operations = json!({
            "get": operation(&format!("All of {kind}"), paging(), None, &[(200, Some(list))]),
        });
        let kept = self.parameters.len() - self.id.matches('{').count();
        if kept > 0 {
            operations["parameters"] = json!(self.parameters[..kept]);
        }
        if allows(self.collection, &Method::POST) {
            let made = [(201, Some(self.entry())), (400, None)];
            let what = format!("Adds a {kind} under an id that is made");
            operations["post"] = operation(&what, ttl(), Some(&self.schema), &made);
        }
        if !matches!(
            self.collection,
            Collection::Secrets | Collection::PluginMetadata
        ) {
            let what = format!("Writes the {kind} that the body names");
            operations["put"] = operation(&what, ttl(), Some(&self.schema), &self.written());
        }
        operations
    }

    /// Of one resource.
    fn one(&self) -> Value {
        let kind = self.collection.kind();
        let found = [(200, Some(self.entry())), (404, None)];
        let deleted = json!({
            "type": "object",
            "properties": { "deleted": { "type": "string" }, "key": { "type": "string" } },
        });
        let force = vec![json!({
            "name": "force", "in": "query", "schema": { "enum": ["true", "false"] },
            "description": "Also if others refer to it.",
        })];
        let mut operations = json!({
            "parameters": self.parameters,
            "get": operation(&format!("One {kind}"), vec![], None, &found),
            "put": operation(&format!("Writes a {kind}"), ttl(), Some(&self.schema), &self.written()),
            "delete": operation(
                &format!("Removes a {kind}"), force, None, &[(200, Some(deleted)), (400, None), (404, None)],
            ),
        });
        if allows(self.collection, &Method::PATCH) {
            let what = format!("Merges the body into a {kind}; null removes");
            let body = json!({ "type": "object" });
            operations["patch"] = operation(&what, ttl(), Some(&body), &self.written());
        }
        operations
    }

    /// Of a part of a resource.
    fn part(&self) -> Value {
        let mut parameters = self.parameters.clone();
        parameters.push(json!({
            "name": "path", "in": "path", "required": true, "schema": { "type": "string" },
            "description": "Names of members, one behind the other.",
        }));
        let what = format!("Replaces a part of a {}", self.collection.kind());
        json!({
            "parameters": parameters,
            "patch": operation(&what, ttl(), Some(&json!({})), &self.written()),
        })
    }

    fn entry(&self) -> Value {
        json!({
            "type": "object",
            "properties": {
                "key": { "type": "string" },
                "value": { "type": "object" },
                "createdIndex": { "type": "integer" },
                "modifiedIndex": { "type": "integer" },
            },
        })
    }

    fn written(&self) -> [(u16, Option<Value>); 4] {
        [
            (200, Some(self.entry())),
            (201, Some(self.entry())),
            (400, None),
            (404, None),
        ]
    }
}

/// What a body of the collection must be.
fn schema_of(collection: Collection) -> Value {
    match collection {
        Collection::PluginMetadata => json!({ "type": "object" }),
        Collection::Secrets => {
            let all = secret::MANAGERS.map(|manager| reference(&format!("secret.{manager}")));
            json!({ "anyOf": all })
        }
        other => reference(&other.kind().replace(' ', "_")),
    }
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("{SCHEMAS}{name}") })
}

fn schemas(registry: &Registry) -> Map<String, Value> {
    let mut schemas = Map::new();
    let mut add = |name: String, schema: &Value| {
        let mut schema = schema.clone();
        rebase(&mut schema, &format!("{SCHEMAS}{name}"));
        schemas.insert(name, schema);
    };
    for collection in Collection::ALL {
        let name = collection.kind().replace(' ', "_");
        if let Some(schema) = resource::schema_named(&name) {
            add(name, schema.written());
        }
    }
    for manager in secret::MANAGERS {
        if let Some(schema) = secret::schema(manager) {
            add(format!("secret.{manager}"), schema.written());
        }
    }
    for kind in registry.by_priority() {
        add(
            format!("plugin.{}", kind.schema.name),
            kind.schema.schema.written(),
        );
    }
    schemas
}

/// Lets references within `schema` find their way from the root of the description.
fn rebase(schema: &mut Value, place: &str) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get_mut("$ref")
                && let Some(rest) = reference.strip_prefix('#')
            {
                *reference = format!("{place}{rest}");
            }
            map.values_mut().for_each(|member| rebase(member, place));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rebase(item, place)),
        _ => {}
    }
}

fn operation(
    summary: &str,
    parameters: Vec<Value>,
    body: Option<&Value>,
    answers: &[(u16, Option<Value>)],
) -> Value {
    let mut responses: Map<String, Value> = answers
        .iter()
        .map(|(status, schema)| {
            let mut response = json!({ "description": reason(*status) });
            let schema = schema.clone().unwrap_or_else(error);
            response["content"] = json!({ "application/json": { "schema": schema } });
            (status.to_string(), response)
        })
        .collect();
    responses.insert("default".to_owned(), json!({
        "description": "Anything else: without a key 401, a body that is too large 413, a store that does not work 503",
        "content": { "application/json": { "schema": error() } },
    }));
    let mut operation = json!({ "summary": summary, "responses": responses });
    if !parameters.is_empty() {
        operation["parameters"] = json!(parameters);
    }
    if let Some(body) = body {
        operation["requestBody"] = json!({
            "required": true, "content": { "application/json": { "schema": body } },
        });
    }
    operation
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "Done",
        201 => "Made",
        400 => "The body or a parameter is not as it must be",
        404 => "There is no such resource",
        _ => "Answered",
    }
}

fn error() -> Value {
    json!({ "type": "object" })
}

fn paging() -> Vec<Value> {
    let text = |name: &str, what: &str| json!({ "name": name, "in": "query", "description": what, "schema": { "type": "string" } });
    vec![
        json!({ "name": "page", "in": "query", "schema": { "type": "integer", "minimum": 1 } }),
        json!({
            "name": "page_size", "in": "query",
            "schema": { "type": "integer", "minimum": 10, "maximum": 500 },
        }),
        text("name", "A pattern of the name."),
        text("label", "A label, or its key."),
        text("uri", "A pattern of the path."),
    ]
}

fn ttl() -> Vec<Value> {
    vec![json!({
        "name": "ttl", "in": "query", "schema": { "type": "integer", "minimum": 1 },
        "description": "Seconds until the resource goes away by itself.",
    })]
}

/// What is no resource.
fn others() -> Vec<(String, Value)> {
    let any = || json!({});
    let name = |name: &str| json!([{ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }]);
    let get = |what: &str, statuses: &[u16]| {
        let answers: Vec<_> = statuses
            .iter()
            .map(|status| (*status, Some(any())))
            .collect();
        operation(what, vec![], None, &answers)
    };
    let post = |what: &str| {
        let body = json!({ "type": "object" });
        operation(
            what,
            vec![],
            Some(&body),
            &[(200, Some(any())), (400, None)],
        )
    };
    vec![
        (
            "/plugins/list".to_owned(),
            json!({ "get": get("Names of plugins, by priority", &[200]) }),
        ),
        (
            "/plugins/{plugin_name}".to_owned(),
            json!({ "parameters": name("plugin_name"), "get": get("A plugin's schema", &[200, 404]) }),
        ),
        (
            "/plugins/reload".to_owned(),
            json!({ "put": {
                "summary": "Has no effect",
                "responses": { "200": {
                    "description": "Done",
                    "content": { "text/plain": { "schema": { "const": "done" } } },
                } },
            } }),
        ),
        (
            "/schema/{kind}".to_owned(),
            json!({ "parameters": name("kind"), "get": get("The schema of a kind of resource", &[200, 400]) }),
        ),
        (
            "/schema/plugins/{plugin_name}".to_owned(),
            json!({ "parameters": name("plugin_name"), "get": get("A plugin's schema", &[200, 404]) }),
        ),
        (
            "/schema/validate/{collection}".to_owned(),
            json!({ "parameters": name("collection"), "post": post("Whether a resource obeys its schema") }),
        ),
        (
            "/configs/validate".to_owned(),
            json!({ "post": post("Whether a document would be accepted") }),
        ),
        (
            "/openapi.json".to_owned(),
            json!({ "get": get("This description", &[200]) }),
        ),
    ]
}

const SCHEMAS: &str = "#/components/schemas/";
