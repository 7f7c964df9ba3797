//! `request-validation`: refuses requests whose headers or body are not what a schema says.
//!
//! The body is read as a whole, up to what variables may look into (64 MiB). A schema that asks for something that cannot
//! be checked here is refused when it is configured: a question that nobody asks would let through
//! what it was to keep out.

use std::sync::Arc;

use http::{StatusCode, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, map::Entry};

use super::parse;
use crate::{
    config::{
        plugin_schema::{Faults, PluginSchema},
        resource::schema_of,
        schema::{self, Schema},
    },
    exchange::Exchange,
    gateway::body_failure,
    plugin::{
        Flow, Phases, Plugin, Reply, ReplyBody, Step,
        registry::{Building, PluginKind},
    },
};

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct Conf {
    /// JSON Schema of the headers, as an object of texts by their names in lower case.
    #[schemars(extend("type" = "object"))]
    header_schema: Option<Value>,
    /// JSON Schema of the body.
    #[schemars(extend("type" = "object"))]
    body_schema: Option<Value>,
    /// Status of a refusal.
    #[serde(default = "bad_request")]
    #[schemars(range(min = 200, max = 599))]
    rejected_code: u16,
    /// What a refusal says; what is wrong, if absent.
    #[schemars(length(min = 1, max = 256))]
    rejected_msg: Option<String>,
}

fn bad_request() -> u16 {
    400
}

struct RequestValidation {
    headers: Option<Schema>,
    body: Option<Schema>,
    status: StatusCode,
    message: Option<String>,
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: "request-validation",
            priority: 2800,
            version: "0.1",
            schema: schema_of::<Conf>(),
            consumer_schema: None,
            metadata_schema: None,
            is_auth: false,
            check: |conf| compile(conf).map(drop),
        },
        build: |conf, _: &mut Building<'_>| Ok(Arc::new(compile(conf)?)),
        checkers: None,
        identity_field: None,
    }
}

fn compile(conf: &Value) -> Result<RequestValidation, Faults> {
    let conf: Conf = parse(conf)?;
    if conf.header_schema.is_none() && conf.body_schema.is_none() {
        let text = "object matches none of the required: give header_schema, body_schema or both";
        return Err(Faults::at("", text));
    }
    let status = StatusCode::from_u16(conf.rejected_code);
    let status = status.map_err(|_| Faults::at("rejected_code", "rejected_code: not a status"))?;
    Ok(RequestValidation {
        headers: usable(conf.header_schema, "header_schema")?,
        body: usable(conf.body_schema, "body_schema")?,
        status,
        message: conf.rejected_msg,
    })
}

fn usable(written: Option<Value>, path: &str) -> Result<Option<Schema>, Faults> {
    let Some(written) = written else {
        return Ok(None);
    };
    let found = schema::unsupported(&written, path);
    Faults::none_of(found)?;
    Ok(Some(Schema::new(written)))
}

impl RequestValidation {
    fn refuse(&self, why: impl Into<String>) -> Flow {
        let body = self.message.clone().unwrap_or_else(|| why.into());
        Flow::Respond(Reply {
            status: self.status,
            headers: http::HeaderMap::new(),
            body: ReplyBody::Text(body),
        })
    }

    fn check_headers(&self, exchange: &Exchange) -> Flow {
        let Some(schema) = &self.headers else {
            return Flow::Continue;
        };
        match schema.first_fault(&Value::Object(headers(exchange))) {
            Some(fault) => self.refuse(fault),
            None => Flow::Continue,
        }
    }

    async fn check_body(&self, schema: &Schema, exchange: &mut Exchange) -> Flow {
        // As values a body takes up to some thirty times its bytes, and its worker's time.
        let limit = exchange.snapshot().settings.post_args_bytes_max;
        let limit = limit.min(BODY_BYTES_MAX);
        let body = match exchange.read_body(limit).await {
            Ok(body) => body,
            Err(error) => return Flow::Fail(body_failure(&error)),
        };
        if body.is_empty() {
            return self.refuse("failed to read the body: it is empty");
        }
        let kind = exchange.header(header::CONTENT_TYPE.as_str());
        let is_form = kind.is_some_and(|kind| {
            let essence = kind.split(';').next().unwrap_or_default().trim();
            essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
        });
        let value = if is_form {
            Value::Object(form(&body))
        } else {
            match serde_json::from_slice(&body) {
                Ok(value) => value,
                // What is wrong says where, not what: the body may hold secrets.
                Err(error) => return self.refuse(format!("failed to decode the body: {error}")),
            }
        };
        match schema.first_fault(&value) {
            Some(fault) => self.refuse(fault),
            None => Flow::Continue,
        }
    }
}

/// The headers by name; of one that comes more than once, all values in one text (RFC 9110 §5.3).
fn headers(exchange: &Exchange) -> Map<String, Value> {
    let mut found = Map::new();
    let headers = &exchange.request.headers;
    for name in headers.keys() {
        let values = headers.get_all(name).iter();
        let values: Vec<_> = values
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        found.insert(name.as_str().to_owned(), Value::from(values.join(", ")));
    }
    found
}

/// The fields of a form as texts; one that comes more than once is a list of them, as in APISIX.
fn form(body: &[u8]) -> Map<String, Value> {
    let mut found = Map::new();
    let text = |bytes: &[u8]| {
        let blanks = bytes
            .iter()
            .map(|byte| if *byte == b'+' { b' ' } else { *byte });
        let blanks: Vec<u8> = blanks.collect();
        percent_encoding::percent_decode(&blanks)
            .decode_utf8_lossy()
            .into_owned()
    };
    for pair in body
        .split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
    {
        let at = pair.iter().position(|byte| *byte == b'=');
        let (name, value) = pair.split_at(at.unwrap_or(pair.len()));
        let value = value.strip_prefix(b"=").unwrap_or(value);
        let value = Value::from(text(value));
        match found.entry(text(name)) {
            Entry::Vacant(field) => {
                field.insert(value);
            }
            Entry::Occupied(mut field) => match field.get_mut() {
                Value::Array(all) => all.push(value),
                one => *one = Value::Array(vec![one.take(), value]),
            },
        }
    }
    found
}

impl Plugin for RequestValidation {
    fn phases(&self) -> Phases {
        Phases::REWRITE
    }

    fn rewrite<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        let flow = self.check_headers(exchange);
        let (Flow::Continue, Some(schema)) = (&flow, &self.body) else {
            return Step::Done(flow);
        };
        Step::Later(Box::pin(self.check_body(schema, exchange)))
    }
}

/// Larger bodies get a 413: see `check_body`.
const BODY_BYTES_MAX: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_cannot_be_checked_is_refused() {
        let checked = json!({"type": "object", "required": ["a"], "title": "t", "properties": {
            "a": {"type": "string", "pattern": "^x", "maxLength": 3},
            "b": {"type": "array", "uniqueItems": true, "items": {"enum": [{"not": 1}]}},
            "not": {"anyOf": [{"const": {"if": 1}}, true]},
        }});
        assert!(compile(&json!({ "body_schema": checked })).is_ok());
        for unchecked in [
            json!({"not": {}}),
            json!({"properties": {"a": {"if": {}}}}),
            json!({"properties": {"a": false}}),
            json!({"allOf": [{"$ref": "#"}]}),
            json!({"items": [{"type": "string"}]}),
            json!({"additionalProperties": {"format": "email"}}),
            json!({"propertyNames": {"maxLength": 3}}),
            json!({"pattern": "("}),
            json!({"patternProperties": {"(": {}}}),
            json!({"type": "text"}),
            json!({"minLength": "1"}),
        ] {
            let conf = json!({ "body_schema": unchecked });
            assert!(compile(&conf).is_err(), "{unchecked}");
        }
        assert!(compile(&json!({})).is_err());
    }

    #[test]
    fn forms_are_texts_by_name() {
        let found = Value::Object(form(b"a=1&b=x+%26y&&c&a=2&d=e=f"));
        assert_eq!(
            found,
            json!({"a": ["1", "2"], "b": "x &y", "c": "", "d": "e=f"})
        );
    }
}
