//! `hmac-auth`: a consumer by a signature over parts of the request (draft-cavage-http-signatures).

use std::{fmt::Write as _, sync::Arc, time::Duration};

use aws_lc_rs::hmac;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderValue, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{auth, no_rules, parse};
use crate::{
    clock,
    config::{
        plugin_schema::{ConsumerSchema, Faults, PluginSchema},
        resource::schema_of,
    },
    exchange::{Authenticated, Exchange},
    plugin::{
        Flow, Phases, Plugin, Step,
        registry::{Building, Identified, PluginKind},
    },
    variables,
};

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Conf {
    /// How requests may be signed.
    #[schemars(length(min = 1))]
    allowed_algorithms: Vec<Algorithm>,
    /// Seconds by which the header `Date` may differ from now.
    #[schemars(range(min = 1))]
    clock_skew: u64,
    /// Headers that must be signed.
    #[schemars(inner(length(min = 1, max = 50)))]
    signed_headers: Option<Vec<String>>,
    /// The header `Digest` must be there, and fit the body.
    validate_request_body: bool,
    /// The target does not see the signature.
    hide_credentials: bool,
    /// Realm of `WWW-Authenticate`.
    #[schemars(length(min = 1, max = 128), regex(pattern = r#"^[ -!#-\[\]-~]+$"#))]
    realm: String,
    /// Who a request without a valid signature is.
    #[schemars(length(min = 1))]
    anonymous_consumer: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
enum Algorithm {
    #[serde(rename = "hmac-sha1")]
    Sha1,
    #[serde(rename = "hmac-sha256")]
    Sha256,
    #[serde(rename = "hmac-sha512")]
    Sha512,
}

#[derive(Deserialize, Serialize, JsonSchema)]
struct ConsumerConf {
    /// What requests name the consumer by.
    #[schemars(length(min = 1, max = 256))]
    key_id: String,
    /// The secret.
    #[schemars(length(min = 1, max = 256))]
    secret_key: String,
}

impl Default for Conf {
    fn default() -> Self {
        Self {
            allowed_algorithms: vec![Algorithm::Sha1, Algorithm::Sha256, Algorithm::Sha512],
            clock_skew: 300,
            signed_headers: None,
            validate_request_body: false,
            hide_credentials: false,
            realm: "hmac".to_owned(),
            anonymous_consumer: None,
        }
    }
}

struct HmacAuth {
    conf: Conf,
    challenge: HeaderValue,
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: NAME,
            priority: 2530,
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
        identity_field: Some(Identified::by("key_id")),
    }
}

fn compile(conf: &Value) -> Result<HmacAuth, Faults> {
    let conf: Conf = parse(conf)?;
    let challenge = auth::challenge("hmac", &conf.realm)?;
    Ok(HmacAuth { conf, challenge })
}

/// What `Authorization: Signature …` says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Signed<'a> {
    key_id: &'a str,
    algorithm: &'a str,
    headers: Vec<&'a str>,
    signature: &'a str,
}

impl<'a> Signed<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut signed = Self::default();
        for field in text.strip_prefix("Signature")?.split(',') {
            let Some((name, value)) = field.split_once('=') else {
                continue;
            };
            let value = value
                .trim()
                .strip_prefix('"')
                .and_then(|rest| rest.strip_suffix('"'));
            let Some(value) = value else { continue };
            match name.trim() {
                "keyId" => signed.key_id = value,
                "algorithm" => signed.algorithm = value,
                "headers" => signed.headers = value.split(' ').filter(|h| !h.is_empty()).collect(),
                "signature" => signed.signature = value,
                _ => {}
            }
        }
        let is_whole = !signed.key_id.is_empty() && !signed.signature.is_empty();
        is_whole.then_some(signed)
    }
}

impl Algorithm {
    fn named(name: &str) -> Option<Self> {
        match name {
            "hmac-sha1" => Some(Self::Sha1),
            "hmac-sha256" => Some(Self::Sha256),
            "hmac-sha512" => Some(Self::Sha512),
            _ => None,
        }
    }

    fn key(self, secret: &[u8]) -> hmac::Key {
        let kind = match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        };
        hmac::Key::new(kind, secret)
    }
}

/// The text that is signed (APISIX 3.18): the key's name, then what each listed header is, a line
/// each, ended.
fn signing_text(exchange: &Exchange, signed: &Signed<'_>) -> String {
    let mut text = format!("{}\n", signed.key_id);
    for name in &signed.headers {
        if let Some(value) = exchange.header(name) {
            let _ = writeln!(text, "{name}: {value}");
        } else if *name == "@request-target" {
            let query = exchange.received.uri.query().map(std::borrow::Cow::from);
            let target = variables::request_uri(exchange, query);
            let _ = writeln!(text, "{} {target}", exchange.received.method);
        }
    }
    text
}

impl HmacAuth {
    /// Who signed the request; else what is wrong, for the log.
    fn identify(&self, exchange: &Exchange) -> Result<Authenticated, String> {
        let told = |text: &str| text.to_owned();
        let line = exchange.header(header::AUTHORIZATION.as_str());
        let line = line.ok_or_else(|| told("missing Authorization header"))?;
        let signed = Signed::parse(line).ok_or_else(|| {
            told("Authorization is not `Signature` with keyId, algorithm, headers and signature")
        })?;
        let identity = exchange.snapshot().consumers.identify(NAME, signed.key_id);
        let secret = identity.and_then(|identity| identity.conf.get("secret_key")?.as_str());
        let (Some(identity), Some(secret)) = (identity, secret) else {
            return Err(told("no consumer has this keyId"));
        };
        let algorithm = Algorithm::named(signed.algorithm)
            .filter(|one| self.conf.allowed_algorithms.contains(one))
            .ok_or_else(|| told("the algorithm is not allowed"))?;
        self.check_date(exchange)?;
        let lists = |name: &String| {
            signed
                .headers
                .iter()
                .any(|one| one.eq_ignore_ascii_case(name))
        };
        if let Some(missing) = self
            .conf
            .signed_headers
            .iter()
            .flatten()
            .find(|name| !lists(name))
        {
            return Err(format!("the header {missing} must be signed"));
        }
        let bytes = BASE64_STANDARD.decode(signed.signature);
        let bytes = bytes.map_err(|_| told("the signature is not Base64"))?;
        let text = signing_text(exchange, &signed);
        hmac::verify(&algorithm.key(secret.as_bytes()), text.as_bytes(), &bytes)
            .map_err(|_| told("the signature is wrong"))?;
        Ok(auth::proof(identity))
    }

    fn check_date(&self, exchange: &Exchange) -> Result<(), String> {
        let date = exchange.header(header::DATE.as_str());
        let date = date.ok_or_else(|| "the header Date is missing".to_owned())?;
        let date = httpdate::parse_http_date(date)
            .map_err(|_| "the header Date is no date of HTTP".to_owned())?;
        let now = clock::wall();
        let apart = now
            .duration_since(date)
            .or_else(|_| date.duration_since(now));
        let may = Duration::from_secs(self.conf.clock_skew);
        match apart {
            Ok(apart) if apart <= may => Ok(()),
            _ => Err("the header Date is too far from now".to_owned()),
        }
    }

    fn settle(&self, exchange: &mut Exchange) -> Flow {
        let found = self.identify(exchange).and_then(|who| {
            let fits = !self.conf.validate_request_body || has_digest(exchange);
            fits.then_some(who)
                .ok_or_else(|| "the header Digest does not fit".to_owned())
        });
        let found = found.map_err(|reason| {
            tracing::debug!(plugin = NAME, reason, "request refused");
            "client request can't be validated"
        });
        let anonymous = self.conf.anonymous_consumer.as_deref();
        let flow = auth::settle(exchange, found, anonymous, &self.challenge);
        if self.conf.hide_credentials && matches!(flow, Flow::Continue) {
            exchange.request.headers.remove(header::AUTHORIZATION);
        }
        flow
    }
}

/// Whether `Digest` is there and is that of the body.
fn has_digest(exchange: &Exchange) -> bool {
    let body = exchange.buffered_body().map_or(&[][..], |body| body);
    let right = format!("SHA-256={}", BASE64_STANDARD.encode(Sha256::digest(body)));
    let sent = exchange.header("digest").unwrap_or_default();
    bool::from(sent.as_bytes().ct_eq(right.as_bytes()))
}

impl Plugin for HmacAuth {
    fn phases(&self) -> Phases {
        Phases::REWRITE
    }

    fn reads_body(&self) -> Phases {
        Phases::REWRITE.when(self.conf.validate_request_body)
    }

    fn rewrite<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        Step::Done(self.settle(exchange))
    }
}

const NAME: &str = "hmac-auth";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_read_whatever_its_order() {
        let text = r#"Signature signature="YQ==",keyId="k", algorithm="hmac-sha256" ,headers="@request-target  date""#;
        let signed = Signed::parse(text).expect("readable");
        assert_eq!((signed.key_id, signed.algorithm), ("k", "hmac-sha256"));
        assert_eq!(signed.headers, ["@request-target", "date"]);
        assert_eq!(signed.signature, "YQ==");
        for wrong in [
            "",
            "Signature",
            r#"Signature keyId="k""#,
            "Bearer x",
            r#"Signature keyId=k,signature=a"#,
        ] {
            assert_eq!(Signed::parse(wrong), None, "{wrong}");
        }
    }
}
