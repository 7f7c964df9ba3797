//! `basic-auth`: a consumer by name and password.

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderValue, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use subtle::ConstantTimeEq as _;

use super::{auth, no_rules, parse};
use crate::{
    config::{
        plugin_schema::{ConsumerSchema, Faults, PluginSchema},
        resource::schema_of,
    },
    exchange::{Authenticated, Exchange},
    plugin::{
        Flow, Phases, Plugin, Step,
        registry::{Building, Identified, PluginKind},
    },
};

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Conf {
    /// The target does not see the password.
    hide_credentials: bool,
    /// Realm of `WWW-Authenticate`.
    #[schemars(length(min = 1, max = 128), regex(pattern = r#"^[ -!#-\[\]-~]+$"#))]
    realm: String,
    /// Who a request without valid proof is.
    #[schemars(length(min = 1))]
    anonymous_consumer: Option<String>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct ConsumerConf {
    /// The name.
    username: String,
    /// The password.
    password: String,
}

impl Default for Conf {
    fn default() -> Self {
        Self {
            hide_credentials: false,
            realm: "basic".to_owned(),
            anonymous_consumer: None,
        }
    }
}

struct BasicAuth {
    conf: Conf,
    challenge: HeaderValue,
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: NAME,
            priority: 2520,
            version: "0.1",
            schema: schema_of::<Conf>(),
            consumer_schema: Some(ConsumerSchema {
                schema: schema_of::<ConsumerConf>(),
                check: no_rules,
            }),
            metadata_schema: None,
            is_auth: true,
            check: |conf| compile(conf).map(drop),
        },
        build: |conf, _: &mut Building<'_>| Ok(Arc::new(compile(conf)?)),
        checkers: None,
        identity_field: Some(Identified::by("username")),
    }
}

fn compile(conf: &Value) -> Result<BasicAuth, Faults> {
    let conf: Conf = parse(conf)?;
    let challenge = auth::challenge("Basic", &conf.realm)?;
    Ok(BasicAuth { conf, challenge })
}

impl Plugin for BasicAuth {
    fn phases(&self) -> Phases {
        Phases::REWRITE
    }

    fn rewrite<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        let found = identify(exchange);
        let anonymous = self.conf.anonymous_consumer.as_deref();
        let flow = auth::settle(exchange, found, anonymous, &self.challenge);
        if self.conf.hide_credentials && matches!(flow, Flow::Continue) {
            exchange.request.headers.remove(header::AUTHORIZATION);
        }
        Step::Done(flow)
    }
}

/// Whose name and password the request has; else what is wrong with them, in APISIX's words.
fn identify(exchange: &Exchange) -> Result<Authenticated, &'static str> {
    let value = exchange
        .request
        .headers
        .get(header::AUTHORIZATION)
        .ok_or("Missing authorization in request")?;
    let (name, password) =
        credentials(value.as_bytes()).ok_or("Invalid authorization in request")?;
    let known = exchange.snapshot().consumers.identify(NAME, &name);
    // Compared also where there is nobody of that name: neither answer is quicker.
    let right = known
        .and_then(|identity| identity.conf.get("password"))
        .and_then(Value::as_str)
        .unwrap_or_default();
    let is_right = bool::from(right.as_bytes().ct_eq(password.as_bytes()));
    known
        .filter(|_| is_right)
        .map(auth::proof)
        .ok_or("Invalid user authorization")
}

/// Name and password of `Basic …` (RFC 7617). The first colon ends the name; the password may have
/// further ones, and blanks, which APISIX 3.18 can not match.
fn credentials(value: &[u8]) -> Option<(String, String)> {
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let decoded = BASE64_STANDARD.decode(rest.trim_ascii()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

const NAME: &str = "basic-auth";

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<(String, String)> {
        credentials(format!("Basic {}", BASE64_STANDARD.encode(text)).as_bytes())
    }

    #[test]
    fn the_first_colon_ends_the_name() {
        let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(of("a:b"), pair("a", "b"));
        assert_eq!(of("a:b:c d"), pair("a", "b:c d"));
        assert_eq!(of("a:"), pair("a", ""));
        assert_eq!(of("a"), None);
        assert_eq!(credentials(b"basic YTpi"), pair("a", "b"));
        for wrong in ["Basic", "Basic ", "Basic !", "Bearer YTpi", "BasicYTpi", ""] {
            assert_eq!(credentials(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
