//! `mocking`: answers instead of the target, with an example or what a schema allows.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use rand::Rng as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{header_templates, parse};
use crate::{
    config::{
        plugin_schema::{Faults, PluginSchema},
        resource::schema_of,
    },
    exchange::Exchange,
    plugin::{
        Flow, Phases, Plugin, Reply, ReplyBody, Step,
        registry::{Building, PluginKind},
    },
    template::Template,
    variables,
};

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Conf {
    /// Seconds to wait first.
    #[schemars(range(min = 0.0))]
    delay: f64,
    /// Status.
    #[schemars(range(min = 100))]
    response_status: u16,
    /// Type of the body.
    content_type: String,
    /// The body, a template.
    response_example: Option<String>,
    /// JSON schema of a body that is made up.
    response_schema: Option<Map<String, Value>>,
    /// Whether the response says that it is one of ours, in `x-mock-by`.
    with_mock_header: bool,
    /// Headers, templates.
    #[schemars(extend("minProperties" = 1))]
    response_headers: Option<Map<String, Value>>,
}

impl Default for Conf {
    fn default() -> Self {
        Self {
            delay: 0.0,
            response_status: 200,
            content_type: "application/json;charset=utf8".to_owned(),
            response_example: None,
            response_schema: None,
            with_mock_header: true,
            response_headers: None,
        }
    }
}

struct Mocking {
    delay: Duration,
    status: StatusCode,
    content_type: HeaderValue,
    body: BodySource,
    is_xml: bool,
    with_mock_header: bool,
    headers: Vec<(HeaderName, Template)>,
    reads_body: bool,
}

enum BodySource {
    Example(Template),
    Schema(Map<String, Value>),
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: "mocking",
            priority: 10900,
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

fn compile(conf: &Value) -> Result<Mocking, Faults> {
    let conf: Conf = parse(conf)?;
    let kind = conf
        .content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    let kind = kind.to_ascii_lowercase();
    if !TYPES.contains(&kind.as_str()) {
        return Err(Faults::at("content_type", "unsupported content type!"));
    }
    let content_type = HeaderValue::from_str(&conf.content_type)
        .map_err(|_| Faults::at("content_type", "content_type cannot stand in a header"))?;
    let is_xml = kind.ends_with("xml");
    let body = match (conf.response_example, conf.response_schema) {
        (Some(example), _) => BodySource::Example(Template::parse(&example)),
        (None, Some(schema)) => {
            check_schema(&schema, "response_schema", 0)?;
            if !is_xml && kind != "application/json" {
                return Err(Faults::at("content_type", "unsupported content type!"));
            }
            BodySource::Schema(schema)
        }
        (None, None) => {
            let text = "object matches none of the required: [\"response_example\"] or \
                        [\"response_schema\"]";
            return Err(Faults::at("", text));
        }
    };
    let status = StatusCode::from_u16(conf.response_status).map_err(|_| {
        let text = format!("response_status: {} is not a status", conf.response_status);
        Faults::at("response_status", text)
    })?;
    let delay = Duration::try_from_secs_f64(conf.delay).map_err(|_| {
        let text = format!("delay: {} seconds is no time to wait", conf.delay);
        Faults::at("delay", text)
    })?;
    let headers = conf
        .response_headers
        .as_ref()
        .map(|headers| header_templates("response_headers", headers))
        .transpose()?
        .unwrap_or_default();
    let example = match &body {
        BodySource::Example(template) => Some(template),
        BodySource::Schema(_) => None,
    };
    let reads_body = headers
        .iter()
        .map(|(_, value)| value)
        .chain(example)
        .flat_map(Template::variables)
        .any(variables::reads_body);
    Ok(Mocking {
        delay,
        status,
        content_type,
        body,
        is_xml,
        with_mock_header: conf.with_mock_header,
        headers,
        reads_body,
    })
}

/// Refuses what no body can be made for.
fn check_schema(schema: &Map<String, Value>, path: &str, depth: usize) -> Result<(), Faults> {
    if depth > DEPTH_MAX {
        let text = format!("{path}: more than {DEPTH_MAX} levels");
        return Err(Faults::at(path, text));
    }
    let below = |key: &str, inner: &Value| match inner.as_object() {
        Some(inner) => check_schema(inner, &format!("{path}.{key}"), depth + 1),
        None => Err(Faults::at(path, format!("{path}.{key}: must be an object"))),
    };
    match type_of(schema) {
        Some("object") => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let each = properties.into_iter().flatten();
            Faults::collect(each.map(|(name, inner)| below(name, inner))).map(drop)
        }
        Some("array") => schema
            .get("items")
            .map_or(Ok(()), |items| below("items", items)),
        Some("string" | "number" | "integer" | "boolean") => Ok(()),
        _ => {
            let text =
                format!("{path}.type: must be object, array, string, number, integer or boolean");
            Err(Faults::at(path, text))
        }
    }
}

fn type_of(schema: &Map<String, Value>) -> Option<&str> {
    schema.get("type").and_then(Value::as_str)
}

/// A value that `schema` allows: its `example`, or anything of its type.
fn made_up(schema: &Map<String, Value>) -> Value {
    let mut rng = rand::rng();
    match (type_of(schema), schema.get("example")) {
        (Some("object"), _) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let inner = properties.into_iter().flatten();
            let inner =
                inner.filter_map(|(name, inner)| Some((name.clone(), made_up(inner.as_object()?))));
            Value::Object(inner.collect())
        }
        (Some("array"), _) => {
            let items = schema.get("items").and_then(Value::as_object);
            let count = rng.random_range(1..=3);
            items.map_or(Value::Array(Vec::new()), |items| {
                (0..count).map(|_| made_up(items)).collect()
            })
        }
        (_, Some(example)) => example.clone(),
        (Some("string"), None) => {
            let length = rng.random_range(1..=10);
            let letters = (0..length).map(|_| char::from(rng.random_range(b'a'..=b'z')));
            letters.collect::<String>().into()
        }
        (Some("number"), None) => (f64::from(rng.random_range(0..1_000_000)) / 100.0).into(),
        (Some("integer"), None) => rng.random_range(1..=10_000).into(),
        (_, None) => rng.random_bool(0.5).into(),
    }
}

/// `value` as an element `name`.
fn write_xml(name: &str, value: &Value, out: &mut String) {
    if let Value::Array(items) = value {
        // As many elements of that name (xml2lua, which APISIX uses).
        return items.iter().for_each(|item| write_xml(name, item, out));
    }
    out.push_str(&format!("<{name}>"));
    match value {
        Value::Object(inner) => inner
            .iter()
            .for_each(|(name, inner)| write_xml(name, inner, out)),
        Value::String(text) => {
            for c in text.chars() {
                match c {
                    '<' => out.push_str("&lt;"),
                    '>' => out.push_str("&gt;"),
                    '&' => out.push_str("&amp;"),
                    c => out.push(c),
                }
            }
        }
        other => out.push_str(&other.to_string()),
    }
    out.push_str(&format!("</{name}>"));
}

impl Mocking {
    fn reply(&self, exchange: &Exchange) -> Reply {
        let body = match &self.body {
            BodySource::Example(template) => template.render(exchange).text,
            BodySource::Schema(schema) => {
                let value = made_up(schema);
                if self.is_xml {
                    let mut text = String::new();
                    write_xml("data", &value, &mut text);
                    text
                } else {
                    value.to_string()
                }
            }
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, self.content_type.clone());
        if self.with_mock_header {
            headers.insert("x-mock-by", HeaderValue::from_static("APISIX/3.18.0"));
        }
        for (name, template) in &self.headers {
            if let Ok(value) = HeaderValue::from_str(&template.render(exchange).text) {
                headers.insert(name, value);
            }
        }
        Reply {
            status: self.status,
            headers,
            body: ReplyBody::Text(body),
        }
    }
}

impl Plugin for Mocking {
    fn phases(&self) -> Phases {
        Phases::ACCESS
    }

    fn reads_body(&self) -> Phases {
        Phases::ACCESS.when(self.reads_body)
    }

    fn access<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        if self.delay.is_zero() {
            return Step::Done(Flow::Respond(self.reply(exchange)));
        }
        let waited = super::pause(exchange, self.delay);
        Step::Later(Box::pin(async move {
            waited.await;
            Flow::Respond(self.reply(exchange))
        }))
    }
}

const TYPES: [&str; 5] = [
    "application/xml",
    "application/json",
    "text/plain",
    "text/html",
    "text/xml",
];
const DEPTH_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_made_up_fits_its_schema() {
        let schema = json!({"type": "object", "properties": {
            "name": {"type": "string"}, "age": {"type": "integer"}, "fixed": {"type": "number",
            "example": 1.5}, "list": {"type": "array", "items": {"type": "boolean"}}}});
        let schema = schema.as_object().expect("an object");
        for _ in 0..50 {
            let value = made_up(schema);
            let name = value["name"].as_str().expect("a text");
            assert!((1..=10).contains(&name.len()));
            assert!((1..=10_000).contains(&value["age"].as_i64().expect("a number")));
            assert_eq!(value["fixed"], 1.5);
            let list = value["list"].as_array().expect("a list");
            assert!((1..=3).contains(&list.len()) && list.iter().all(Value::is_boolean));
        }
    }

    #[test]
    fn xml_repeats_elements_and_escapes() {
        let mut text = String::new();
        write_xml("data", &json!({"a": ["<", 2], "b": {"c": true}}), &mut text);
        assert_eq!(text, "<data><a>&lt;</a><a>2</a><b><c>true</c></b></data>");
    }

    #[test]
    fn nonsense_is_refused() {
        for wrong in [
            json!({}),
            json!({"response_example": "x", "content_type": "image/png"}),
            json!({"response_schema": {"type": "wrong"}}),
            json!({"response_schema": {"type": "object"}, "content_type": "text/plain"}),
            json!({"response_example": "x", "response_status": 1000}),
            json!({"response_example": "x", "delay": -1}),
        ] {
            assert!(compile(&wrong).is_err(), "{wrong}");
        }
    }
}
