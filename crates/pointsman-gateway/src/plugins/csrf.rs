//! `csrf`: writes need the token of a cookie in a header, too, which pages of others cannot send.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use rand::Rng as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::parse;
use crate::{
    clock,
    config::{
        plugin_schema::{Faults, PluginSchema},
        resource::schema_of,
    },
    exchange::Exchange,
    plugin::{
        Flow, Phases, Plugin, Reply, ResponseHead, Step,
        registry::{Building, PluginKind},
    },
};

#[derive(Deserialize, Serialize, JsonSchema)]
struct Conf {
    /// Secret by which tokens are signed.
    key: String,
    /// Seconds that a token is good for; 0 for ever.
    #[serde(default = "two_hours")]
    #[schemars(range(min = 0))]
    expires: u64,
    /// Name of the cookie and of the header.
    #[serde(default = "usual_name")]
    name: String,
}

fn two_hours() -> u64 {
    7200
}

fn usual_name() -> String {
    "apisix-csrf-token".to_owned()
}

struct Csrf {
    conf: Conf,
    header: HeaderName,
}

/// What a token says; its text is Base64 of this as JSON (APISIX 3.18's form).
#[derive(Deserialize, Serialize)]
struct Token {
    /// Any number in [0, 1), as it was written: numbers do not survive every reader to their last digit.
    random: Box<RawValue>,
    /// When it was made, seconds since the Unix epoch.
    expires: u64,
    /// SHA-256 over both and the key, hexadecimal.
    sign: String,
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: "csrf",
            priority: 2980,
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

fn compile(conf: &Value) -> Result<Csrf, Faults> {
    let conf: Conf = parse(conf)?;
    let header = HeaderName::from_bytes(conf.name.as_bytes()).map_err(|_| {
        let text = format!(
            "name: `{}` is not the name of a header and a cookie",
            conf.name
        );
        Faults::at("name", text)
    })?;
    Ok(Csrf { conf, header })
}

impl Csrf {
    fn sign(&self, random: &RawValue, made: u64) -> String {
        let text = format!("{{expires:{made},random:{random},key:{}}}", self.conf.key);
        let hash = Sha256::digest(text.as_bytes());
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn make(&self, now: u64) -> String {
        let random: f64 = rand::rng().random();
        let random = serde_json::value::to_raw_value(&random).expect("a finite number is JSON");
        let token = Token {
            sign: self.sign(&random, now),
            random,
            expires: now,
        };
        let text = serde_json::to_string(&token).expect("its parts are JSON");
        BASE64_STANDARD.encode(text)
    }

    fn is_valid(&self, text: &str, now: u64) -> bool {
        let token = BASE64_STANDARD
            .decode(text)
            .ok()
            .and_then(|json| serde_json::from_slice::<Token>(&json).ok());
        let Some(token) = token else { return false };
        let age = now.saturating_sub(token.expires);
        let is_fresh = self.conf.expires == 0 || age <= self.conf.expires;
        let right = self.sign(&token.random, token.expires);
        is_fresh && bool::from(right.as_bytes().ct_eq(token.sign.as_bytes()))
    }

    /// What is wrong with the request, in APISIX's words.
    fn fault(&self, exchange: &Exchange) -> Option<&'static str> {
        let sent = exchange.header(self.header.as_str()).unwrap_or_default();
        if sent.is_empty() {
            return Some("no csrf token in headers");
        }
        let Some(cookie) = exchange.text(&format!("cookie_{}", self.conf.name)) else {
            return Some("no csrf cookie");
        };
        if !bool::from(sent.as_bytes().ct_eq(cookie.as_bytes())) {
            return Some("csrf token mismatch");
        }
        let is_valid = self.is_valid(&cookie, now());
        (!is_valid).then_some("Failed to verify the csrf token signature")
    }
}

/// Seconds since the Unix epoch: tokens outlive processes.
fn now() -> u64 {
    clock::unix_millis() / 1000
}

impl Plugin for Csrf {
    fn phases(&self) -> Phases {
        Phases::ACCESS.and(Phases::HEADER_FILTER)
    }

    fn access<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        let method = &exchange.received.method;
        if [Method::GET, Method::HEAD, Method::OPTIONS].contains(method) {
            return Step::Done(Flow::Continue);
        }
        Step::Done(match self.fault(exchange) {
            None => Flow::Continue,
            Some(fault) => {
                let body = json!({ "error_msg": fault });
                Flow::Respond(Reply::json(StatusCode::UNAUTHORIZED, body))
            }
        })
    }

    fn header_filter(&self, _: &Exchange, head: &mut ResponseHead) {
        let end = clock::wall() + Duration::from_secs(self.conf.expires);
        let (name, token, end) = (
            &self.conf.name,
            self.make(now()),
            httpdate::fmt_http_date(end),
        );
        let cookie = format!("{name}={token};path=/;SameSite=Lax;Expires={end}");
        if let Ok(value) = HeaderValue::from_str(&cookie) {
            head.headers.append(header::SET_COOKIE, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_signed_and_age() {
        let csrf = compile(&json!({"key": "k", "expires": 10})).expect("valid");
        let other = compile(&json!({"key": "other"})).expect("valid");
        // Whatever number is drawn.
        assert!((0..1000).all(|_| csrf.is_valid(&csrf.make(1000), 1000)));
        let token = csrf.make(1000);
        assert!(csrf.is_valid(&token, 1000));
        assert!(csrf.is_valid(&token, 1010));
        assert!(!csrf.is_valid(&token, 1011));
        assert!(!other.is_valid(&token, 1000));
        assert!(!csrf.is_valid("bm9uZQ==", 1000));
        assert!(!csrf.is_valid("", 1000));
        let forever = compile(&json!({"key": "k", "expires": 0})).expect("valid");
        assert!(forever.is_valid(&forever.make(0), u64::MAX));
        assert!(compile(&json!({"key": "k", "name": "a b"})).is_err());
    }
}
