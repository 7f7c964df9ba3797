//! `response-rewrite`: changes what the client gets, whoever answers.
//!
//! Status and headers are changed in passing. A new body takes the place of the old one once that has
//! ended, and filters need all of it, so neither leaves anything of a stream.

mod filters;

use std::{borrow::Cow, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use self::filters::{Coding, Filter};
use super::{header_templates, parse};
use crate::{
    config::{
        plugin_schema::{Faults, PluginSchema},
        resource::schema_of,
    },
    exchange::Exchange,
    forward::relay::BodyChange,
    plugin::{
        Phases, Plugin, ResponseHead,
        registry::{Building, PluginKind},
    },
    router::Expr,
    template::Template,
    variables,
    vars::{Lookup, VarValue},
};

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct Conf {
    /// Another status.
    #[schemars(range(min = 200, max = 598))]
    status_code: Option<u16>,
    /// Another body.
    body: Option<String>,
    /// `body` is written in Base64.
    #[serde(default)]
    body_base64: bool,
    /// `{add: ["name: value"], set: {name: value}, remove: [name]}`, or headers to set.
    headers: Option<Map<String, Value>>,
    /// Only answers for which this expression holds.
    vars: Option<Value>,
    /// What is replaced in the body.
    #[schemars(length(min = 1))]
    filters: Option<Vec<FilterConf>>,
    /// Bytes that a body may have for `filters`.
    #[serde(default = "sixty_four_mib")]
    #[schemars(range(min = 1))]
    max_resp_body_size: u64,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct FilterConf {
    /// A pattern.
    #[schemars(length(min = 1))]
    regex: String,
    /// What stands for it; `$1` is its first group.
    replace: String,
    /// The first place at which it occurs, or all.
    #[serde(default = "once")]
    #[schemars(extend("enum" = ["once", "global"]))]
    scope: String,
    /// Options of PCRE.
    #[serde(default = "usual_options")]
    options: String,
}

fn sixty_four_mib() -> u64 {
    64 << 20
}

fn once() -> String {
    "once".to_owned()
}

fn usual_options() -> String {
    "jo".to_owned()
}

struct ResponseRewrite {
    status: Option<StatusCode>,
    body: Option<Bytes>,
    add: Vec<(HeaderName, Template)>,
    set: Vec<(HeaderName, Template)>,
    remove: Vec<HeaderName>,
    vars: Option<Expr>,
    filters: Arc<[Filter]>,
    limit: u64,
    reads_body: bool,
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: "response-rewrite",
            priority: 899,
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

fn compile(conf: &Value) -> Result<ResponseRewrite, Faults> {
    let conf: Conf = parse(conf)?;
    if conf.body.is_some() && conf.filters.is_some() {
        let text = "body and filters cannot be configured at the same time";
        return Err(Faults::at("filters", text));
    }
    let status = conf.status_code.map(StatusCode::from_u16).transpose();
    let status = status.map_err(|_| Faults::at("status_code", "status_code: not a status"))?;
    let (add, set, remove) = headers(conf.headers.unwrap_or_default())?;
    let vars = conf.vars.as_ref().map(Expr::parse).transpose();
    let vars = vars.map_err(|error| {
        let text = format!("failed to validate the 'vars' expression: {error}");
        Faults::at("vars", text)
    })?;
    let filters = conf.filters.iter().flatten().enumerate();
    let filters = Faults::collect(
        filters.map(|(index, filter)| Filter::new(filter, &format!("filters[{index}]"))),
    )?;
    let names = add.iter().chain(&set);
    let names = names.flat_map(|(_, value)| value.variables());
    let reads_body = names
        .chain(vars.iter().flat_map(Expr::variables))
        .any(variables::reads_body);
    Ok(ResponseRewrite {
        status,
        body: body(conf.body, conf.body_base64)?,
        vars,
        filters: filters.into(),
        limit: conf.max_resp_body_size,
        reads_body,
        add,
        set,
        remove,
    })
}

fn body(written: Option<String>, is_base64: bool) -> Result<Option<Bytes>, Faults> {
    match written {
        Some(text) if is_base64 => {
            let decoded = BASE64_STANDARD.decode(text);
            let decoded = decoded.map_err(|_| Faults::at("body", "invalid base64 content"))?;
            Ok(Some(decoded.into()))
        }
        Some(_) | None => Ok(written.map(Bytes::from)),
    }
}

type Headers = (
    Vec<(HeaderName, Template)>,
    Vec<(HeaderName, Template)>,
    Vec<HeaderName>,
);

fn headers(written: Map<String, Value>) -> Result<Headers, Faults> {
    let is_nested = ["add", "set", "remove"].iter().any(|key| {
        let part = written.get(*key);
        part.is_some_and(|part| part.is_object() || part.is_array())
    });
    if !is_nested {
        let set = header_templates("headers", &written)?;
        return Ok((Vec::new(), set, Vec::new()));
    }
    let add = texts(written.get("add"), "headers.add", |line| {
        let (name, value) = line.split_once(':')?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
        let value = Some(value.trim()).filter(|value| !value.is_empty())?;
        Some((name, Template::parse(value)))
    })?;
    let set = match written.get("set") {
        Some(Value::Object(set)) => header_templates("headers.set", set)?,
        Some(_) => return Err(Faults::at("headers.set", "headers.set: must be an object")),
        None => Vec::new(),
    };
    let remove = texts(written.get("remove"), "headers.remove", |name| {
        HeaderName::from_bytes(name.as_bytes()).ok()
    })?;
    Ok((add, set, remove))
}

/// What `read` makes of each text of the list at `path`.
fn texts<T>(
    list: Option<&Value>,
    path: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, Faults> {
    let Some(list) = list else {
        return Ok(Vec::new());
    };
    let Some(list) = list.as_array() else {
        return Err(Faults::at(path, format!("{path}: must be a list of texts")));
    };
    Faults::collect(list.iter().enumerate().map(|(index, text)| {
        text.as_str().and_then(&read).ok_or_else(|| {
            let at = format!("{path}[{index}]");
            Faults::at(&at, format!("{at}: invalid header {text}"))
        })
    }))
}

/// The answer as it is so far, for expressions and templates.
struct SoFar<'a> {
    exchange: &'a Exchange,
    head: &'a ResponseHead,
}

impl Lookup for SoFar<'_> {
    fn var(&self, name: &str) -> Option<VarValue<'_>> {
        if name == "status" {
            let status = self.head.status.as_u16().to_string();
            return Some(VarValue::Text(Cow::Owned(status)));
        }
        if let Some(header) = name.strip_prefix("sent_http_") {
            let header = header.replace('_', "-");
            let value = self.head.headers.get(header)?;
            return Some(VarValue::Text(Cow::Borrowed(value.to_str().ok()?)));
        }
        self.exchange.var(name)
    }
}

impl ResponseRewrite {
    fn is_meant(&self, so_far: &SoFar<'_>) -> bool {
        let Some(vars) = &self.vars else { return true };
        vars.eval(so_far).unwrap_or(false)
    }

    fn change_headers(&self, exchange: &Exchange, head: &mut ResponseHead) {
        for (name, template) in &self.add {
            if let Some(value) = rendered(template, exchange, head) {
                head.headers.append(name, value);
            }
        }
        for (name, template) in &self.set {
            if let Some(value) = rendered(template, exchange, head) {
                head.headers.insert(name, value);
            }
        }
        for name in &self.remove {
            head.headers.remove(name);
        }
    }

    fn change_body(&self, head: &mut ResponseHead) {
        let change = if let Some(body) = &self.body {
            BodyChange::Replace(body.clone())
        } else if self.filters.is_empty() {
            return;
        } else {
            let named = head.headers.get(header::CONTENT_ENCODING);
            let named = named.map_or(&b""[..], HeaderValue::as_bytes);
            let Some(coding) = Coding::named(named) else {
                tracing::warn!(
                    "response-rewrite: a body comes in a coding that is not known (gzip is); its \
                     filters are left out"
                );
                return;
            };
            let (filters, limit) = (Arc::clone(&self.filters), self.limit);
            BodyChange::Edit {
                limit,
                edit: Box::new(move |body| filters::apply(&filters, body, coding, limit)),
            }
        };
        head.changes.push(change);
        // What was said of the old body.
        for name in [
            header::CONTENT_LENGTH,
            header::CONTENT_ENCODING,
            header::LAST_MODIFIED,
            header::ETAG,
        ] {
            head.headers.remove(name);
        }
    }
}

fn rendered(template: &Template, exchange: &Exchange, head: &ResponseHead) -> Option<HeaderValue> {
    let text = template.render(&SoFar { exchange, head }).text;
    HeaderValue::from_str(&text).ok()
}

impl Plugin for ResponseRewrite {
    fn phases(&self) -> Phases {
        Phases::HEADER_FILTER
    }

    fn reads_body(&self) -> Phases {
        Phases::HEADER_FILTER.when(self.reads_body)
    }

    fn header_filter(&self, exchange: &Exchange, head: &mut ResponseHead) {
        // Two connections that were joined have no body any more.
        let is_joined = head.status == StatusCode::SWITCHING_PROTOCOLS;
        if is_joined || !self.is_meant(&SoFar { exchange, head }) {
            return;
        }
        if let Some(status) = self.status {
            head.status = status;
        }
        self.change_body(head);
        self.change_headers(exchange, head);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// G-173 among them.
    #[test]
    fn nonsense_is_refused() {
        assert!(compile(&json!({})).is_ok());
        let both = json!({"add": ["A: b"], "set": {"C": 1}, "remove": ["D"]});
        assert!(compile(&json!({ "headers": both })).is_ok());
        for wrong in [
            json!({"body": "a", "filters": [{"regex": "a", "replace": "b"}]}),
            json!({"body": "!", "body_base64": true}),
            json!({"headers": {"a b": "c"}}),
            json!({"headers": {"add": ["a"]}}),
            json!({"headers": {"add": [], "set": []}}),
            json!({"headers": {"remove": ["a b"]}}),
            json!({"vars": [["status", "?", 200]]}),
            json!({"filters": [{"regex": "(", "replace": "b"}]}),
            json!({"filters": [{"regex": "a", "replace": "b", "options": "q"}]}),
        ] {
            assert!(compile(&wrong).is_err(), "{wrong}");
        }
    }
}
