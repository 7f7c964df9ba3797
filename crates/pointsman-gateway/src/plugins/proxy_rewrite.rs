//! `proxy-rewrite`: changes what the target receives.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::parse;
use crate::{
    config::{
        plugin_schema::{Faults, PluginSchema},
        resource::schema_of,
        text::join,
    },
    exchange::Exchange,
    plugin::{
        Flow, Phases, Plugin, Reply, Step,
        registry::{Building, PluginKind},
    },
    router::pattern::{Case, Occurrence, Pattern},
    template::Template,
    variables,
};

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Conf {
    /// New path, a template; a `?` in it starts the query.
    #[schemars(length(min = 1, max = 4096), regex(pattern = r"^/.*"))]
    uri: Option<String>,
    /// Pairs of a pattern and what replaces the part of the path that it covers; the first that
    /// matches counts.
    #[schemars(length(min = 2))]
    regex_uri: Option<Vec<String>>,
    /// `Host` of the target.
    #[schemars(regex(pattern = r"^[0-9a-zA-Z\-.]+(:\d{1,5})?$"))]
    host: Option<String>,
    /// Method of the target.
    #[schemars(extend("enum" = ["GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "MKCOL", "COPY", "MOVE", "PROPFIND", "LOCK", "UNLOCK", "PATCH", "TRACE"]))]
    method: Option<String>,
    /// `{set, add, remove}`, or headers to set.
    headers: Option<Map<String, Value>>,
    /// Start from the path as received, and send it without encoding it again.
    use_real_request_uri_unsafe: bool,
}

struct ProxyRewrite {
    uri: Option<Target>,
    patterns: Vec<Rule>,
    host: Option<HeaderValue>,
    method: Option<Method>,
    add: Vec<(HeaderName, Template)>,
    set: Vec<(HeaderName, Template)>,
    remove: Vec<HeaderName>,
    real_uri: bool,
    reads_body: bool,
}

/// One pair of `regex_uri`.
struct Rule {
    /// As configured, for messages.
    text: String,
    pattern: Pattern,
    target: Target,
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: "proxy-rewrite",
            priority: 1008,
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

fn compile(conf: &Value) -> Result<ProxyRewrite, Faults> {
    let conf: Conf = parse(conf)?;
    let mut found = Vec::new();
    let mut told = |faults: Faults| found.extend(faults.into_issues());
    let patterns = patterns(&conf.regex_uri.unwrap_or_default());
    let patterns = patterns.map_err(&mut told).unwrap_or_default();
    let headers = conf.headers.unwrap_or_default();
    let is_nested = headers
        .keys()
        .any(|key| matches!(key.as_str(), "set" | "add" | "remove"))
        && headers
            .values()
            .all(|value| value.is_object() || value.is_array());
    let (add, set, remove) = if is_nested {
        (
            named(headers.get("add"), "headers.add"),
            named(headers.get("set"), "headers.set"),
            names(headers.get("remove")),
        )
    } else {
        let set = named(Some(&Value::Object(headers)), "headers");
        (Ok(Vec::new()), set, Ok(Vec::new()))
    };
    let add = add.map_err(&mut told).unwrap_or_default();
    let set = set.map_err(&mut told).unwrap_or_default();
    let remove = remove.map_err(&mut told).unwrap_or_default();
    let host = conf
        .host
        .map(|host| HeaderValue::from_str(&host))
        .transpose()
        .map_err(|_| told(Faults::at("host", "host cannot stand in a header")))
        .unwrap_or_default();
    Faults::none_of(found)?;
    let uri = conf.uri.as_deref().map(Target::parse);
    let targets = uri.iter().chain(patterns.iter().map(|rule| &rule.target));
    let reads_body = targets
        .flat_map(|target| std::iter::once(&target.path).chain(&target.query))
        .chain(add.iter().chain(&set).map(|(_, value)| value))
        .flat_map(Template::variables)
        .any(variables::reads_body);
    Ok(ProxyRewrite {
        uri,
        patterns,
        host,
        method: conf
            .method
            .and_then(|method| Method::from_bytes(method.as_bytes()).ok()),
        add,
        set,
        remove,
        real_uri: conf.use_real_request_uri_unsafe,
        reads_body,
    })
}

/// Pairs of a pattern and what becomes of a path that matches it.
fn patterns(pairs: &[String]) -> Result<Vec<Rule>, Faults> {
    if !pairs.len().is_multiple_of(2) {
        let text = "The length of regex_uri should be an even number";
        return Err(Faults::at("regex_uri", text));
    }
    let compiled = pairs.chunks_exact(2).enumerate().map(|(index, pair)| {
        let pattern = Pattern::new(&pair[0], Case::Sensitive).map_err(|error| {
            let reason = error.reason;
            let text = format!("invalid regex_uri({}, {}): {reason}", pair[0], pair[1]);
            Faults::at(&format!("regex_uri[{}]", 2 * index), text)
        })?;
        Ok(Rule {
            text: pair[0].clone(),
            pattern,
            target: Target::parse(&pair[1]),
        })
    });
    Faults::collect(compiled)
}

/// The headers at `path`, with every value of those that have several.
fn named(headers: Option<&Value>, path: &str) -> Result<Vec<(HeaderName, Template)>, Faults> {
    let headers = headers.and_then(Value::as_object).into_iter().flatten();
    let lists = Faults::collect(headers.map(|(name, value)| {
        let path = join(path, name);
        let header = header_name(name, &path)?;
        let values = match value {
            Value::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        Faults::collect(values.iter().map(|value| {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => {
                    let text = format!("headers.{name}: must be a text or a number");
                    return Err(Faults::at(&path, text));
                }
            };
            Ok((header.clone(), Template::parse(&text)))
        }))
    }))?;
    Ok(lists.into_iter().flatten().collect())
}

fn names(headers: Option<&Value>) -> Result<Vec<HeaderName>, Faults> {
    let list = headers.and_then(Value::as_array).into_iter().flatten();
    Faults::collect(list.enumerate().filter_map(|(index, name)| {
        let path = format!("headers.remove[{index}]");
        Some(header_name(name.as_str()?, &path))
    }))
}

fn header_name(name: &str, path: &str) -> Result<HeaderName, Faults> {
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| Faults::at(path, format!("headers: `{name}` is not a header name")))
}

/// A path to be, and a query.
///
/// The `?` between them is the one that stands in the configuration. One that comes out of a
/// variable or a capture was decoded from `%3F` and belongs to the path: a client must not be
/// able to add arguments.
struct Target {
    path: Template,
    query: Option<Template>,
}

impl Target {
    fn parse(text: &str) -> Self {
        let (path, query) = Template::parse(text).split('?');
        Self { path, query }
    }

    fn render(&self, exchange: &Exchange, captures: &[&str]) -> (String, Option<String>) {
        let text = |template: &Template| template.render_with(exchange, captures).text;
        (text(&self.path), self.query.as_ref().map(text))
    }
}

impl Plugin for ProxyRewrite {
    fn phases(&self) -> Phases {
        Phases::REWRITE
    }

    fn reads_body(&self) -> Phases {
        Phases::REWRITE.when(self.reads_body)
    }

    fn rewrite<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        let captures = match self.rewrite_uri(exchange) {
            Ok(captures) => captures,
            Err(message) => {
                tracing::error!("{message}");
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                let reply = Reply::json(status, json!({ "error_msg": message }));
                return Step::Done(Flow::Respond(reply));
            }
        };
        let captures: Vec<&str> = captures.iter().map(String::as_str).collect();
        self.rewrite_headers(exchange, &captures);
        if let Some(host) = &self.host {
            exchange.request.host = Some(host.clone());
        }
        if let Some(method) = &self.method {
            exchange.request.method = method.clone();
        }
        Step::Done(Flow::Continue)
    }
}

impl ProxyRewrite {
    /// Changes path and query; returns what the pattern captured.
    ///
    /// # Errors
    /// When a pattern gave up: whether it applies is not known, so nothing may be sent (APISIX
    /// 3.18 answers 500, too).
    fn rewrite_uri(&self, exchange: &mut Exchange) -> Result<Vec<String>, String> {
        let from = if self.real_uri {
            exchange.received.uri.path().to_owned()
        } else {
            exchange.request.path.clone()
        };
        let mut captures = Vec::new();
        let new = match &self.uri {
            Some(target) => Some(target.render(exchange, &[])),
            None => {
                let found = self.first_match(&from)?;
                found.map(|(rule, found)| {
                    captures = found.groups;
                    let groups: Vec<&str> = captures.iter().map(String::as_str).collect();
                    let (path, query) = rule.target.render(exchange, &groups);
                    // Only what the pattern covers is replaced (ngx.re.sub).
                    let (start, end) = (found.range.start, found.range.end);
                    (format!("{}{path}{}", &from[..start], &from[end..]), query)
                })
            }
        };
        let new = new.or_else(|| self.real_uri.then_some((from, None)));
        let Some((path, own_query)) = new else {
            return Ok(captures);
        };
        let path = if path.starts_with('/') {
            path
        } else {
            format!("/{path}")
        };
        let request = &mut exchange.request;
        request.raw_path = self.real_uri.then(|| path.clone());
        request.path = path;
        let client = request.query.take().filter(|query| !query.is_empty());
        request.query = match (own_query, client) {
            (Some(own), Some(client)) => Some(format!("{own}&{client}")),
            (own, client) => own.or(client),
        };
        Ok(captures)
    }

    /// The first pair whose pattern occurs in `path`, and where.
    fn first_match(&self, path: &str) -> Result<Option<(&Rule, Occurrence)>, String> {
        for rule in &self.patterns {
            let found = rule.pattern.find(path).map_err(|error| {
                let text = &rule.text;
                format!("failed to match the uri {path} ({text}): {error}")
            })?;
            if let Some(found) = found {
                return Ok(Some((rule, found)));
            }
        }
        Ok(None)
    }

    /// Adds, then sets, then removes. A value that comes out empty removes the header.
    fn rewrite_headers(&self, exchange: &mut Exchange, captures: &[&str]) {
        for (name, template) in &self.add {
            let text = template.render_with(exchange, captures).text;
            if let Ok(value) = HeaderValue::from_str(&text) {
                exchange.request.headers.append(name.clone(), value);
            }
        }
        for (name, template) in &self.set {
            let text = template.render_with(exchange, captures).text;
            match HeaderValue::from_str(&text) {
                Ok(value) if !text.is_empty() => {
                    exchange.request.headers.insert(name.clone(), value);
                }
                _ => {
                    exchange.request.headers.remove(name);
                }
            }
        }
        for name in &self.remove {
            exchange.request.headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// G-166
    #[test]
    fn mistakes_are_told() {
        let told = |conf: Value| {
            let faults = compile(&conf).err().expect("wrong");
            let issues = faults.into_issues().into_iter();
            issues
                .map(|issue| (issue.path, issue.message))
                .collect::<Vec<_>>()
        };
        let odd = told(json!({"regex_uri": ["a", "b", "c"]}));
        let text = "The length of regex_uri should be an even number";
        assert_eq!(odd, [("regex_uri".to_owned(), text.to_owned())]);
        let all = told(json!({
            "regex_uri": ["a", "b", "(", "b"],
            "headers": {"set": {"a b": "x", "c d": "y"}, "remove": ["e", "f g"]},
            "host": "a\n"
        }));
        let expected = [
            ("regex_uri[2]", "invalid regex_uri((, b): "),
            ("headers.set.a b", "not a header name"),
            ("headers.set.c d", "not a header name"),
            ("headers.remove[1]", "not a header name"),
            ("host", "cannot stand in a header"),
        ];
        assert_eq!(all.len(), expected.len(), "{all:?}");
        for ((path, message), (at, part)) in all.iter().zip(expected) {
            assert!(path == at && message.contains(part), "{path}: {message}");
        }
        let runaway = compile(&json!({"regex_uri": [r"^(a+)+\1b$", "/x"]})).expect("valid");
        let error = runaway
            .first_match(&"a".repeat(64))
            .err()
            .expect("given up");
        assert!(error.starts_with("failed to match the uri aaaa"), "{error}");
    }

    #[test]
    fn headers_come_in_two_forms() {
        let flat = compile(&json!({"headers": {"X-A": "1", "X-B": 2}})).expect("valid");
        assert_eq!((flat.set.len(), flat.add.len()), (2, 0));
        let nested = compile(&json!({"headers": {"add": {"x": ["1", "2"]}, "remove": ["y"]}}))
            .expect("valid");
        assert_eq!((nested.add.len(), nested.remove.len()), (2, 1));
    }
}
