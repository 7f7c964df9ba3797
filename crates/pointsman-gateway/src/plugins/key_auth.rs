//! `key-auth`: a consumer by the key that it sends.

use std::sync::Arc;

use http::{HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{no_rules, parse};
use crate::{
    config::{plugin_schema::PluginSchema, resource::schema_of},
    exchange::{Authenticated, Exchange},
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
            check: no_rules,
        },
        build,
        checkers: None,
        identity_field: Some("key"),
    }
}

fn build(conf: &Value, _: &mut Building<'_>) -> Result<Arc<dyn Plugin>, String> {
    let mut conf: Conf = parse(conf)?;
    conf.header = conf.header.to_ascii_lowercase();
    let challenge = HeaderValue::from_str(&format!("apikey realm=\"{}\"", conf.realm))
        .map_err(|_| "realm cannot stand in a header".to_owned())?;
    Ok(Arc::new(KeyAuth { conf, challenge }))
}

impl Plugin for KeyAuth {
    fn phases(&self) -> Phases {
        Phases::REWRITE
    }

    fn rewrite<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        Step::Done(self.authenticate(exchange))
    }
}

/// Where a key was found.
enum Key {
    Header(String),
    Query(String),
}

impl KeyAuth {
    fn authenticate(&self, exchange: &mut Exchange) -> Flow {
        let key = self.key(exchange);
        let found = key.as_ref().and_then(|key| {
            let (Key::Header(text) | Key::Query(text)) = key;
            exchange.snapshot().consumers.identify(NAME, text).cloned()
        });
        if let Some(identity) = found {
            if self.conf.hide_credentials {
                match key {
                    Some(Key::Header(_)) => self.hide_header(exchange),
                    _ => self.hide_query(exchange),
                }
            }
            exchange.authenticate(Authenticated {
                consumer: identity.consumer,
                credential_id: identity.credential_id,
            });
            return Flow::Continue;
        }
        if let Some(name) = &self.conf.anonymous_consumer {
            return self.anonymous(exchange, name);
        }
        self.refuse(match key {
            Some(_) => "Invalid API key in request",
            None => "Missing API key in request",
        })
    }

    fn key(&self, exchange: &Exchange) -> Option<Key> {
        if let Some(value) = exchange.header(&self.conf.header) {
            return Some(Key::Header(value.to_owned()));
        }
        let query = exchange.request.query.as_deref()?;
        crate::variables::query_arg(query, &self.conf.query)
            .map(|value| Key::Query(value.into_owned()))
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

    fn hide_header(&self, exchange: &mut Exchange) {
        exchange.request.headers.remove(self.conf.header.as_str());
    }

    fn hide_query(&self, exchange: &mut Exchange) {
        let Some(query) = &exchange.request.query else {
            return;
        };
        let kept: Vec<&str> = query
            .split('&')
            .filter(|pair| pair.split('=').next() != Some(self.conf.query.as_str()))
            .collect();
        exchange.request.query = Some(kept.join("&")).filter(|query| !query.is_empty());
    }

    fn refuse(&self, message: &str) -> Flow {
        let reply = Reply::json(StatusCode::UNAUTHORIZED, json!({ "message": message }));
        Flow::Respond(reply.with_header(header::WWW_AUTHENTICATE, self.challenge.clone()))
    }
}

const NAME: &str = "key-auth";
