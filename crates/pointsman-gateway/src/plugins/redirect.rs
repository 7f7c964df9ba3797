//! `redirect`: sends the client elsewhere.

use std::{borrow::Cow, sync::Arc};

use http::{HeaderValue, Method, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::parse;
use crate::{
    config::{
        plugin_schema::{Faults, PluginSchema},
        resource::schema_of,
    },
    exchange::Exchange,
    forward::forwarded,
    plugin::{
        Flow, Phases, Plugin, Reply, Step,
        registry::{Building, PluginKind},
    },
    router::pattern::{Case, Pattern},
    template::Template,
    variables,
};

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Conf {
    /// Status.
    #[schemars(range(min = 200))]
    ret_code: u16,
    /// Where to, a template.
    #[schemars(
        length(min = 2),
        regex(pattern = r"(\$[0-9a-zA-Z_]+|\$\{[0-9a-zA-Z_]+\}|[^\s])+")
    )]
    uri: Option<String>,
    /// A pattern for the path, and where to.
    #[schemars(length(min = 2, max = 2))]
    regex_uri: Option<Vec<String>>,
    /// To the same place over TLS.
    http_to_https: Option<bool>,
    /// Percent-encode the path of the place.
    encode_uri: bool,
    /// Append the query of the request.
    append_query_string: bool,
}

impl Default for Conf {
    fn default() -> Self {
        Self {
            ret_code: 302,
            uri: None,
            regex_uri: None,
            http_to_https: None,
            encode_uri: false,
            append_query_string: false,
        }
    }
}

struct Redirect {
    status: StatusCode,
    place: Place,
    encode: bool,
    append_query: bool,
    reads_body: bool,
}

enum Place {
    /// Always here.
    Uri(Template),
    /// Here if the path matches.
    Pattern(Pattern, Template),
    /// The same over TLS.
    Https,
    /// Nowhere: `http_to_https: false`.
    Nowhere,
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: "redirect",
            priority: 900,
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

fn compile(conf: &Value) -> Result<Redirect, Faults> {
    let conf: Conf = parse(conf)?;
    if conf.http_to_https == Some(true) && conf.append_query_string {
        let text = "only one of `http_to_https` and `append_query_string` can be configured.";
        return Err(Faults::at("append_query_string", text));
    }
    let place = match (&conf.uri, &conf.regex_uri, conf.http_to_https) {
        (Some(uri), None, None) => Place::Uri(Template::parse(uri)),
        (None, Some(pair), None) => {
            let [pattern, target] = pair.as_slice() else {
                let text = "regex_uri: must be a pattern and where to";
                return Err(Faults::at("regex_uri", text));
            };
            let compiled = Pattern::new(pattern, Case::Sensitive).map_err(|error| {
                let text = format!("invalid regex_uri({pattern}, {target}): {}", error.reason);
                Faults::at("regex_uri[0]", text)
            })?;
            Place::Pattern(compiled, Template::parse(target))
        }
        (None, None, Some(true)) => Place::Https,
        (None, None, Some(false)) => Place::Nowhere,
        (None, None, None) => {
            let text = "value should match only one schema, but matches none: give uri, regex_uri \
                        or http_to_https";
            return Err(Faults::at("", text));
        }
        _ => {
            let text = "value should match only one schema, but matches several: give one of uri, \
                        regex_uri and http_to_https";
            return Err(Faults::at("", text));
        }
    };
    let status = StatusCode::from_u16(conf.ret_code).map_err(|_| {
        let text = format!("ret_code: {} is not a status", conf.ret_code);
        Faults::at("ret_code", text)
    })?;
    let reads_body = match &place {
        Place::Uri(template) | Place::Pattern(_, template) => {
            template.variables().any(variables::reads_body)
        }
        Place::Https | Place::Nowhere => false,
    };
    Ok(Redirect {
        status,
        place,
        encode: conf.encode_uri,
        append_query: conf.append_query_string,
        reads_body,
    })
}

impl Plugin for Redirect {
    fn phases(&self) -> Phases {
        Phases::REWRITE
    }

    fn reads_body(&self) -> Phases {
        Phases::REWRITE.when(self.reads_body)
    }

    fn rewrite<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        Step::Done(match self.place(exchange) {
            Ok(None) => Flow::Continue,
            Ok(Some((status, place))) => match HeaderValue::from_str(&place) {
                Ok(place) => {
                    Flow::Respond(Reply::empty(status).with_header(header::LOCATION, place))
                }
                Err(_) => failed("redirect: the place has characters that no header can hold"),
            },
            Err(message) => failed(&message),
        })
    }
}

fn failed(message: &str) -> Flow {
    tracing::error!("{message}");
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    Flow::Respond(Reply::json(status, json!({ "error_msg": message })))
}

impl Redirect {
    /// Where the request is sent, with which status; `None` if it stays.
    fn place(&self, exchange: &Exchange) -> Result<Option<(StatusCode, String)>, String> {
        let place = match &self.place {
            Place::Nowhere => return Ok(None),
            Place::Https => return Ok(https(exchange)),
            Place::Uri(template) => template.render(exchange).text,
            Place::Pattern(pattern, template) => {
                let path = &exchange.request.path;
                let found = pattern.find(path).map_err(|error| {
                    format!("redirect: failed to match the uri {path}: {error}")
                })?;
                let Some(found) = found else { return Ok(None) };
                let groups: Vec<&str> = found.groups.iter().map(String::as_str).collect();
                // Only what the pattern covers is replaced (ngx.re.sub).
                let (start, end) = (found.range.start, found.range.end);
                let text = template.render_with(exchange, &groups).text;
                format!("{}{text}{}", &path[..start], &path[end..])
            }
        };
        let mut place = if self.encode { encode(&place) } else { place };
        if let Some(query) = exchange.request.query.as_deref()
            && self.append_query
            && !query.is_empty()
        {
            place.push(if place.contains('?') { '&' } else { '?' });
            place.push_str(query);
        }
        Ok(Some((self.status, place)))
    }
}

/// The same place over TLS, unless the request came from there.
fn https(exchange: &Exchange) -> Option<(StatusCode, String)> {
    if forwarded::scheme(exchange) == "https" {
        return None;
    }
    let settings = &exchange.snapshot().settings;
    let listening = settings.ssl.listen.first().map(std::net::SocketAddr::port);
    let port = match settings.redirect_https_port.or(listening) {
        None | Some(443) => String::new(),
        Some(port) => format!(":{port}"),
    };
    let status = match exchange.received.method {
        Method::GET | Method::HEAD => StatusCode::MOVED_PERMANENTLY,
        _ => StatusCode::PERMANENT_REDIRECT,
    };
    let query = exchange.received.uri.query().map(Cow::from);
    let target = variables::request_uri(exchange, query);
    let host = &exchange.received.host;
    Some((status, format!("https://{host}{port}{}", encode(&target))))
}

/// What may not stand in a header or would end the path is percent-encoded; what is encoded
/// already, and the marks of a URI, stay.
fn encode(text: &str) -> String {
    utf8_percent_encode(text, UNSAFE).to_string()
}

const UNSAFE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b';')
    .remove(b':')
    .remove(b'@')
    .remove(b'&')
    .remove(b'=')
    .remove(b'+')
    .remove(b'$')
    .remove(b',')
    .remove(b'/')
    .remove(b'?')
    .remove(b'#')
    .remove(b'%');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_only() {
        for wrong in [
            json!({}),
            json!({"uri": "/x", "http_to_https": true}),
            json!({"regex_uri": ["(", "/x"]}),
            json!({"uri": "/x", "ret_code": 1000}),
            json!({"http_to_https": true, "append_query_string": true}),
        ] {
            assert!(compile(&wrong).is_err(), "{wrong}");
        }
        assert!(compile(&json!({"regex_uri": ["^/a/(.*)", "/b/$1"]})).is_ok());
    }

    #[test]
    fn what_is_encoded_stays() {
        assert_eq!(encode("/a b?x=1&y=%20#z"), "/a%20b?x=1&y=%20#z");
        assert_eq!(encode("/ü\r\n"), "/%C3%BC%0D%0A");
    }
}
