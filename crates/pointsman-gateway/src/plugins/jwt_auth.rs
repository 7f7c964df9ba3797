//! `jwt-auth`: a consumer by a signed token.

use std::{borrow::Cow, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderName, HeaderValue, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    auth::{self, Places},
    parse,
};
use crate::{
    clock,
    config::{
        plugin_schema::{ConsumerSchema, Faults, PluginSchema},
        resource::schema_of,
    },
    exchange::{Authenticated, Exchange},
    jws::{Algorithm, Key, Token},
    plugin::{
        Flow, Phases, Plugin, Step,
        registry::{Building, Identified, PluginKind, Prepared},
    },
    variables,
};

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Conf {
    /// Header that holds the token, `Bearer ` before it or not; looked at first.
    header: String,
    /// Query argument that holds it.
    query: String,
    /// Cookie that holds it.
    cookie: String,
    /// The target does not see the token.
    hide_credentials: bool,
    /// The claim that names the consumer's key.
    #[schemars(length(min = 1))]
    key_claim_name: String,
    /// `exp`, `nbf`: these must be there. Both are looked at wherever they are.
    #[schemars(extend("uniqueItems" = true, "items" = {"type": "string", "enum": ["exp", "nbf"]}))]
    claims_to_verify: Option<Vec<String>>,
    /// Accepted, without effect: there is no Lua context to store the token in.
    store_in_ctx: bool,
    /// Realm of `WWW-Authenticate`.
    #[schemars(length(min = 1, max = 128), regex(pattern = r#"^[ -!#-\[\]-~]+$"#))]
    realm: String,
    /// Who a request without a valid token is.
    #[schemars(length(min = 1))]
    anonymous_consumer: Option<String>,
}

impl Default for Conf {
    fn default() -> Self {
        Self {
            header: "authorization".to_owned(),
            query: "jwt".to_owned(),
            cookie: "jwt".to_owned(),
            hide_credentials: false,
            key_claim_name: "key".to_owned(),
            claims_to_verify: None,
            store_in_ctx: false,
            realm: "jwt".to_owned(),
            anonymous_consumer: None,
        }
    }
}

#[derive(Deserialize, Serialize, JsonSchema)]
struct ConsumerConf {
    /// What tokens name the consumer by.
    #[schemars(length(min = 1))]
    key: String,
    /// The secret, for HS256 and its relatives.
    #[schemars(length(min = 1))]
    secret: Option<String>,
    /// How tokens are signed.
    #[serde(default)]
    algorithm: Algorithm,
    /// The public key in PEM, for all other algorithms.
    public_key: Option<String>,
    /// `secret` is Base64.
    #[serde(default)]
    base64_secret: bool,
    /// Seconds that tokens should last; who makes them decides.
    #[serde(default = "a_day")]
    #[schemars(range(min = 1))]
    exp: u64,
    /// Seconds by which clocks may differ.
    #[serde(default)]
    #[schemars(range(min = 0))]
    lifetime_grace_period: u64,
}

fn a_day() -> u64 {
    86400
}

struct JwtAuth {
    conf: Conf,
    places: Places,
    challenge: HeaderValue,
}

/// What a consumer's tokens are checked by.
struct Proof {
    key: Key,
    grace_s: u64,
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: NAME,
            priority: 2510,
            version: "0.1",
            schema: schema_of::<Conf>(),
            consumer_schema: Some(ConsumerSchema {
                schema: schema_of::<ConsumerConf>(),
                check: check_consumer,
            }),
            metadata_schema: None,
            is_auth: true,
            check: |conf| compile(conf).map(drop),
        },
        build: |conf, _: &mut Building<'_>| Ok(Arc::new(compile(conf)?)),
        checkers: None,
        identity_field: Some(Identified {
            field: "key",
            prepare,
        }),
    }
}

fn compile(conf: &Value) -> Result<JwtAuth, Faults> {
    let conf: Conf = parse(conf)?;
    HeaderName::from_bytes(conf.header.as_bytes()).map_err(|_| {
        let text = format!("header: `{}` is not a header name", conf.header);
        Faults::at("header", text)
    })?;
    Ok(JwtAuth {
        places: Places::new(&conf.header, &conf.query),
        challenge: auth::challenge("Bearer", &conf.realm)?,
        conf,
    })
}

/// What can be said before references are resolved.
fn check_consumer(conf: &Value) -> Result<(), Faults> {
    let conf: ConsumerConf = parse(conf)?;
    let is_missing = |text: &Option<String>| text.is_none();
    if conf.algorithm.is_symmetric() && is_missing(&conf.secret) {
        let text = "property \"secret\" is required when using HS based algorithms";
        return Err(Faults::at("secret", text));
    }
    if !conf.algorithm.is_symmetric() && is_missing(&conf.public_key) {
        let text = "property \"public_key\" is required";
        return Err(Faults::at("public_key", text));
    }
    Ok(())
}

fn prepare(conf: &Value) -> Result<Option<Prepared>, Faults> {
    check_consumer(conf)?;
    let conf: ConsumerConf = parse(conf)?;
    let key = if conf.algorithm.is_symmetric() {
        let secret = conf.secret.unwrap_or_default();
        let bytes = if conf.base64_secret {
            let decoded = BASE64_STANDARD.decode(secret.trim());
            Cow::Owned(decoded.map_err(|_| Faults::at("secret", "secret is not Base64"))?)
        } else {
            Cow::Borrowed(secret.as_bytes())
        };
        Key::secret(conf.algorithm, &bytes).map_err(|text| Faults::at("secret", text))?
    } else {
        Key::public_pem(conf.algorithm, &conf.public_key.unwrap_or_default())
            .map_err(|text| Faults::at("public_key", format!("public_key {text}")))?
    };
    Ok(Some(Arc::new(Proof {
        key,
        grace_s: conf.lifetime_grace_period,
    })))
}

impl JwtAuth {
    fn token<'a>(&self, exchange: &'a Exchange) -> Option<Cow<'a, str>> {
        let header = self.places.header.as_ref()?;
        if let Some(text) = exchange.header(header.as_str()) {
            let bare = text.strip_prefix("Bearer ");
            return Some(Cow::from(
                bare.or_else(|| text.strip_prefix("bearer "))
                    .unwrap_or(text),
            ));
        }
        let query = exchange.request.query.as_deref();
        if let Some(text) = query.and_then(|query| variables::query_arg(query, &self.conf.query)) {
            return Some(text);
        }
        exchange
            .text(&format!("cookie_{}", self.conf.cookie))
            .map(Cow::Owned)
    }

    /// Whose token the request has; else what is wrong with it, in APISIX's words.
    fn identify(&self, exchange: &Exchange) -> Result<Authenticated, &'static str> {
        let text = self.token(exchange).ok_or("Missing JWT token in request")?;
        let token = Token::parse(&text).ok_or("JWT token invalid")?;
        let name = token.claims.get(&self.conf.key_claim_name);
        let name = name
            .and_then(Value::as_str)
            .ok_or("missing user key in JWT token")?;
        let identity = exchange.snapshot().consumers.identify(NAME, name);
        let identity = identity.ok_or("Invalid user key in JWT token")?;
        let proof = identity.prepared.as_ref();
        let proof = proof.and_then(|any| any.downcast_ref::<Proof>());
        let now_s = clock::unix_millis() / 1000;
        let is_good = proof.is_some_and(|proof| {
            proof.key.signed(&token) && self.is_in_time(&token.claims, now_s, proof.grace_s)
        });
        if !is_good {
            return Err("failed to verify jwt");
        }
        Ok(auth::proof(identity))
    }

    /// Whether the token is good by now: `exp` and `nbf`, where they are or must be (RFC 7519 §4.1).
    fn is_in_time(&self, claims: &Map<String, Value>, now_s: u64, grace_s: u64) -> bool {
        let must = |claim: &str| {
            let listed = self.conf.claims_to_verify.iter().flatten();
            listed.into_iter().any(|one| one == claim)
        };
        let (now, grace) = (now_s as f64, grace_s as f64);
        let holds = |claim: &str, is_so: &dyn Fn(f64) -> bool| match claims.get(claim) {
            None => !must(claim),
            Some(value) => value.as_f64().is_some_and(is_so),
        };
        holds("exp", &|end| now < end + grace) && holds("nbf", &|start| now + grace >= start)
    }

    fn hide(&self, exchange: &mut Exchange) {
        self.places.hide_header(exchange);
        self.places.hide_query(exchange, |_| true);
        let lines = exchange.request.headers.get_all(header::COOKIE).iter();
        let lines: Vec<String> = lines
            .map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned())
            .collect();
        let is_other = |pair: &&str| {
            let name = pair.split('=').next().unwrap_or_default();
            name.trim() != self.conf.cookie
        };
        let kept: Vec<&str> = lines
            .iter()
            .flat_map(|line| line.split(';'))
            .filter(is_other)
            .map(str::trim)
            .collect();
        if lines
            .iter()
            .map(|line| line.split(';').count())
            .sum::<usize>()
            == kept.len()
        {
            return;
        }
        exchange.request.headers.remove(header::COOKIE);
        if let Ok(value) = HeaderValue::from_str(&kept.join("; "))
            && !kept.is_empty()
        {
            exchange.request.headers.insert(header::COOKIE, value);
        }
    }
}

impl Plugin for JwtAuth {
    fn phases(&self) -> Phases {
        Phases::REWRITE
    }

    fn rewrite<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        let found = self.identify(exchange);
        self.places.mark(exchange);
        let flow = auth::settle(
            exchange,
            found,
            self.conf.anonymous_consumer.as_deref(),
            &self.challenge,
        );
        if self.conf.hide_credentials && matches!(flow, Flow::Continue) {
            self.hide(exchange);
        }
        Step::Done(flow)
    }
}

const NAME: &str = "jwt-auth";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// G-119, G-120
    #[test]
    fn times_are_looked_at_where_they_are_and_where_they_must_be() {
        let good = |conf: Value, claims: Value, grace_s: u64| {
            let plugin = compile(&conf).expect("valid");
            plugin.is_in_time(claims.as_object().expect("an object"), 1000, grace_s)
        };
        assert!(good(json!({}), json!({}), 0));
        assert!(good(json!({}), json!({"exp": 1001, "nbf": 1000}), 0));
        assert!(!good(json!({}), json!({"exp": 1000}), 0));
        assert!(good(json!({}), json!({"exp": 1000}), 1));
        assert!(!good(json!({}), json!({"nbf": 1001}), 0));
        assert!(good(json!({}), json!({"nbf": 1001}), 1));
        assert!(!good(json!({}), json!({"exp": "soon"}), 0));
        let must = json!({"claims_to_verify": ["exp"]});
        assert!(!good(must.clone(), json!({}), 0));
        assert!(good(must, json!({"exp": 1001.5}), 0));
    }

    /// G-124
    #[test]
    fn algorithms_need_their_keys() {
        let told = |conf: Value| match check_consumer(&conf) {
            Ok(()) => String::new(),
            Err(faults) => faults.into_issues().remove(0).message,
        };
        assert_eq!(
            told(json!({"key": "k"})),
            "property \"secret\" is required when using HS based algorithms"
        );
        assert_eq!(
            told(json!({"key": "k", "algorithm": "ES256"})),
            "property \"public_key\" is required"
        );
        assert_eq!(told(json!({"key": "k", "secret": "s"})), "");
        let wrong = json!({"key": "k", "algorithm": "RS256", "public_key": "none"});
        assert!(prepare(&wrong).is_err());
        let wrong = json!({"key": "k", "secret": "*", "base64_secret": true});
        assert!(prepare(&wrong).is_err());
    }
}
