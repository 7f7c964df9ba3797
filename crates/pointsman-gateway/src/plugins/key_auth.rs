//! `key-auth`: a consumer by the key that it sends.

use std::{borrow::Cow, sync::Arc};

use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    auth::{self, Places},
    no_rules, parse,
};
use crate::{
    config::{
        plugin_schema::{ConsumerSchema, Faults, PluginSchema},
        resource::schema_of,
    },
    exchange::Exchange,
    plugin::{
        Flow, Phases, Plugin, Step,
        registry::{Building, Identified, PluginKind},
    },
    variables,
};

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Conf {
    /// Header that holds the key; looked at first.
    header: String,
    /// Query argument that holds it; only when the header is absent.
    query: String,
    /// The target does not see the key: its header or argument is removed, and a copy of it in
    /// the argument when it came in the header.
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
    places: Places,
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
            consumer_schema: Some(ConsumerSchema {
                schema: schema_of::<ConsumerConf>(),
                check: no_rules,
            }),
            metadata_schema: None,
            is_auth: true,
            check,
        },
        build,
        checkers: None,
        identity_field: Some(Identified::by("key")),
    }
}

fn check(conf: &Value) -> Result<(), Faults> {
    let conf: Conf = parse(conf)?;
    HeaderName::from_bytes(conf.header.as_bytes())
        .map(drop)
        .map_err(|_| {
            Faults::at(
                "header",
                format!("header: `{}` is not a header name", conf.header),
            )
        })
}

fn build(conf: &Value, _: &mut Building<'_>) -> Result<Arc<dyn Plugin>, Faults> {
    let conf: Conf = parse(conf)?;
    let challenge = auth::challenge("apikey", &conf.realm)?;
    Ok(Arc::new(KeyAuth {
        places: Places::new(&conf.header, &conf.query),
        conf,
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
        let found = key
            .as_ref()
            .and_then(|key| exchange.snapshot().consumers.identify(NAME, &key.text))
            .map(auth::proof);
        let place = key.as_ref().map(|key| key.place);
        let hidden = key
            .filter(|_| self.conf.hide_credentials && found.is_some())
            .map(|key| key.text.into_owned());
        self.places.mark(exchange);
        if let Some(who) = found {
            match (place, hidden) {
                (Some(Place::Header), Some(key)) => {
                    self.places.hide_header(exchange);
                    // APISIX leaves the argument alone; a copy of the key is the key, though.
                    self.places.hide_query(exchange, |value| value == key);
                }
                (_, Some(_)) => self.places.hide_query(exchange, |_| true),
                (_, None) => {}
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
            .places
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
        variables::query_arg(query, &self.conf.query).map(|text| Key {
            text,
            place: Place::Query,
        })
    }

    fn anonymous(&self, exchange: &mut Exchange, name: &str) -> Flow {
        if !auth::accept_anonymous(exchange, name) {
            return self.refuse("Invalid user authorization");
        }
        if self.conf.hide_credentials {
            self.places.hide_header(exchange);
            self.places.hide_query(exchange, |_| true);
        }
        Flow::Continue
    }

    fn refuse(&self, message: &str) -> Flow {
        auth::refuse(message, &self.challenge)
    }
}

const NAME: &str = "key-auth";
