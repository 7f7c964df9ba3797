//! `key-auth`: a consumer by the key that it sends.

use std::{borrow::Cow, sync::Arc};

use http::{HeaderName, HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::parse;
use crate::{
    config::{plugin_schema::PluginSchema, resource::schema_of},
    exchange::{Authenticated, Exchange},
    observe::secrets,
    plugin::{
        Flow, Phases, Plugin, Reply, Step,
        registry::{Building, PluginKind},
    },
};

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Conf {
    /// Header that holds the key; looked at first.
    header: String,
    /// Query argument that holds it; only when the header is absent.
    query: String,
    /// The target does not see the key.
    hide_credentials: bool,
    /// Realm of `WWW-Authenticate`.
    #[schemars(length(min = 1, max = 128), regex(pattern = r#"^[ -!#-\[\]-~]+$"#))]
    realm: String,
    /// Who a request without a valid key is.
    #[schemars(length(min = 1))]
    anonymous_consumer: Option<String>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct ConsumerConf {
    /// The key.
    key: String,
}

impl Default for Conf {
    fn default() -> Self {
        Self {
            header: "apikey".to_owned(),
            query: "apikey".to_owned(),
            hide_credentials: false,
            realm: "key".to_owned(),
            anonymous_consumer: None,
        }
    }
}

struct KeyAuth {
    conf: Conf,
    /// `None` when the configured name is none that a header can have.
    header: Option<HeaderName>,
    /// Logs do not know it as one that holds a credential.
    header_is_unusual: bool,
    query: Arc<Box<str>>,
    challenge: HeaderValue,
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: NAME,
            priority: 2500,
            version: "0.1",
            schema: schema_of::<Conf>(),
            consumer_schema: Some(schema_of::<ConsumerConf>()),
            metadata_schema: None,
            is_auth: true,
            check,
        },
        build,
        checkers: None,
        identity_field: Some("key"),
    }
}

fn check(conf: &Value) -> Result<(), String> {
    let conf: Conf = parse(conf)?;
    HeaderName::from_bytes(conf.header.as_bytes())
        .map(drop)
        .map_err(|_| format!("header: `{}` is not a header name", conf.header))
}

fn build(conf: &Value, _: &mut Building<'_>) -> Result<Arc<dyn Plugin>, String> {
    let conf: Conf = parse(conf)?;
    let header = HeaderName::from_bytes(conf.header.as_bytes()).ok();
    let challenge = HeaderValue::from_str(&format!("apikey realm=\"{}\"", conf.realm))
        .map_err(|_| "realm cannot stand in a header".to_owned())?;
    let is_known = |name: &HeaderName| secrets::is_credential_header(name.as_str());
    Ok(Arc::new(KeyAuth {
        header_is_unusual: !header.as_ref().is_some_and(is_known),
        query: Arc::new(conf.query.as_str().into()),
        conf,
        header,
        challenge,
    }))
}

impl Plugin for KeyAuth {
    fn phases(&self) -> Phases {
        Phases::REWRITE
    }

    fn rewrite<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        Step::Done(self.authenticate(exchange))
    }
}

/// A key and where it was found.
struct Key<'a> {
    text: Cow<'a, str>,
    place: Place,
}

#[derive(Clone, Copy)]
enum Place {
    Header,
    Query,
}

impl KeyAuth {
    fn authenticate(&self, exchange: &mut Exchange) -> Flow {
        let key = self.key(exchange);
        let found = key.as_ref().and_then(|key| {
            let identity = exchange.snapshot().consumers.identify(NAME, &key.text)?;
            Some(Authenticated {
                consumer: Arc::clone(&identity.consumer),
                credential_id: identity.credential_id.clone(),
            })
        });
        let place = key.map(|key| key.place);
        self.mark(exchange, place);
        if let Some(who) = found {
            if self.conf.hide_credentials {
                match place {
                    Some(Place::Header) => self.hide_header(exchange),
                    _ => self.hide_query(exchange),
                }
            }
            exchange.authenticate(who);
            return Flow::Continue;
        }
        if let Some(name) = &self.conf.anonymous_consumer {
            return self.anonymous(exchange, name);
        }
        self.refuse(match place {
            Some(_) => "Invalid API key in request",
            None => "Missing API key in request",
        })
    }

    fn key<'a>(&self, exchange: &'a Exchange) -> Option<Key<'a>> {
        let value = self
            .header
            .as_ref()
            .and_then(|name| exchange.request.headers.get(name));
        if let Some(text) = value.and_then(|value| std::str::from_utf8(value.as_bytes()).ok()) {
            return Some(Key {
                text: Cow::Borrowed(text),
                place: Place::Header,
            });
        }
        let query = exchange.request.query.as_deref()?;
        crate::variables::query_arg(query, &self.conf.query).map(|text| Key {
            text,
            place: Place::Query,
        })
    }

    fn anonymous(&self, exchange: &mut Exchange, name: &str) -> Flow {
        let Some(consumer) = exchange.snapshot().consumers.named(name).cloned() else {
            return self.refuse("Invalid user authorization");
        };
        if self.conf.hide_credentials {
            self.hide_header(exchange);
            self.hide_query(exchange);
        }
        exchange.authenticate(Authenticated {
            consumer,
            credential_id: None,
        });
        Flow::Continue
    }

    /// No log shows what was, or may have been, a key.
    fn mark(&self, exchange: &mut Exchange, place: Option<Place>) {
        match place {
            Some(Place::Header) if self.header_is_unusual => {
                let value = self
                    .header
                    .as_ref()
                    .and_then(|name| exchange.request.headers.get_mut(name));
                if let Some(value) = value {
                    value.set_sensitive(true);
                }
            }
            Some(Place::Query) => exchange.secret_arg = Some(Arc::clone(&self.query)),
            Some(Place::Header) | None => {}
        }
    }

    fn hide_header(&self, exchange: &mut Exchange) {
        if let Some(name) = &self.header {
            exchange.request.headers.remove(name);
        }
    }

    fn hide_query(&self, exchange: &mut Exchange) {
        let Some(query) = &exchange.request.query else {
            return;
        };
        let kept: Vec<&str> = query
            .split('&')
            .filter(|pair| {
                let name = pair.split('=').next().unwrap_or_default();
                crate::variables::decode(name) != self.conf.query
            })
            .collect();
        exchange.request.query = Some(kept.join("&")).filter(|query| !query.is_empty());
    }

    fn refuse(&self, message: &str) -> Flow {
        let reply = Reply::json(StatusCode::UNAUTHORIZED, json!({ "message": message }));
        Flow::Respond(reply.with_header(header::WWW_AUTHENTICATE, self.challenge.clone()))
    }
}

const NAME: &str = "key-auth";
