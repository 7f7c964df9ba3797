//! `openid-connect`: requests with a good access token of an identity provider.
//!
//! Only tokens that requests bring themselves; the login of browsers is refused when it is configured.
//! Tokens are checked by keys or asked about, which [`crate::oidc`] does; here is where a token is
//! found, what it must claim, what clients are told and what the target learns. No consumer is
//! attached.

mod claims;
mod conf;

use std::sync::{Arc, OnceLock};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::Value;

use self::{
    claims::{Refusal, Rules},
    conf::{Conf, UnauthAction},
};
use super::{auth, parse};
use crate::{
    clock,
    config::{
        plugin_schema::{Faults, PluginSchema},
        reference,
        resource::schema_of,
    },
    exchange::Exchange,
    jws::{Algorithm, Token},
    oidc::{Claims, OneKey, Provider},
    plugin::{
        Flow, Phases, Plugin, Reply, Step,
        registry::{Building, PluginKind},
    },
};

struct OpenidConnect {
    conf: Conf,
    means: Means,
    rules: Rules,
    addon_headers: Vec<HeaderName>,
    challenge: HeaderValue,
    /// As configured.
    new: Arc<Provider>,
    /// The one that has been asked before, if there is one; found with the first request.
    provider: OnceLock<Arc<Provider>>,
}

/// How a token is checked.
enum Means {
    Key(OneKey),
    Jwks,
    Introspection,
}

/// For the registry.
pub(crate) fn kind() -> PluginKind {
    PluginKind {
        schema: PluginSchema {
            name: "openid-connect",
            priority: 2599,
            version: "0.3",
            schema: schema_of::<Conf>(),
            consumer_schema: None,
            metadata_schema: None,
            is_auth: false,
            check,
        },
        build: |conf, _: &mut Building<'_>| Ok(Arc::new(compile(conf)?)),
        checkers: None,
        identity_field: None,
    }
}

/// URLs and keys may be references, of which nothing can be told before they are resolved.
fn check(conf: &Value) -> Result<(), Faults> {
    if reference::any(conf) {
        parse::<Conf>(conf)?.check()
    } else {
        compile(conf).map(drop)
    }
}

fn compile(conf: &Value) -> Result<OpenidConnect, Faults> {
    let conf: Conf = parse(conf)?;
    conf.check()?;
    let provider = Provider::new(conf.identity())
        .map_err(|(field, error)| Faults::at(field, format!("{field}: {error}")))?;
    let means = match &conf.public_key {
        Some(pem) => {
            let key = OneKey::of_pem(pem);
            Means::Key(key.map_err(|text| Faults::at("public_key", format!("public_key {text}")))?)
        }
        None if conf.use_jwks => Means::Jwks,
        None => Means::Introspection,
    };
    let names = conf.introspection_addon_headers.iter().flatten();
    let names: Result<_, _> = names.map(|name| conf::addon_header(name)).collect();
    Ok(OpenidConnect {
        means,
        rules: Rules::of(&conf),
        addon_headers: names.map_err(|text| Faults::at("introspection_addon_headers", text))?,
        challenge: auth::challenge("Bearer", &conf.realm)?,
        new: Arc::new(provider),
        provider: OnceLock::new(),
        conf,
    })
}

/// What a request brings.
#[derive(Debug, PartialEq, Eq)]
enum Brought {
    Token(String),
    /// None, or something else than a bearer's token.
    None,
    /// `Authorization` has one word.
    Malformed,
}

fn brought(headers: &HeaderMap) -> Brought {
    let text = |name: &HeaderName| {
        let value = headers.get(name)?;
        str::from_utf8(value.as_bytes()).ok()
    };
    let Some(line) = text(&header::AUTHORIZATION) else {
        return match text(&ACCESS_TOKEN) {
            Some(token) if !token.is_empty() => Brought::Token(token.to_owned()),
            _ => Brought::None,
        };
    };
    let Some((scheme, token)) = line.split_once(' ') else {
        return Brought::Malformed;
    };
    let token = token.trim();
    if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() {
        Brought::Token(token.to_owned())
    } else {
        Brought::None
    }
}

impl OpenidConnect {
    async fn admit(&self, exchange: &mut Exchange, token: String) -> Flow {
        let checked = self.check(exchange, &token).await;
        let claims = checked.and_then(|claims| self.rules.check(&claims).map(|()| claims));
        match claims {
            Ok(claims) => {
                self.tell_target(exchange, &token, &claims);
                Flow::Continue
            }
            Err(refusal) => {
                tracing::debug!(plugin = "openid-connect", %refusal, "request refused");
                self.refuse(&refusal)
            }
        }
    }

    /// What `token` says, if it is genuine and good by now.
    async fn check(&self, exchange: &Exchange, token: &str) -> Result<Arc<Claims>, Refusal> {
        let gateway = exchange.gateway();
        let upstreams = gateway.upstreams();
        let adopt = || gateway.identity_providers().adopt(&self.new);
        let provider = self.provider.get_or_init(adopt);
        if matches!(self.means, Means::Introspection) {
            let headers = self.addon_headers(exchange);
            let claims = provider.introspect(token, headers, upstreams).await;
            let claims = claims.map_err(Refusal::Token)?;
            self.rules.check_named_issuer(&claims)?;
            return Ok(claims);
        }
        let token = Token::parse(token).ok_or_else(|| Refusal::token("it is no JWT"))?;
        self.check_algorithm(&token)?;
        // What costs nothing comes first: nobody is asked for the keys for a token that has run out.
        self.rules
            .check_time(&token.claims, clock::unix_millis() / 1000)?;
        match &self.means {
            Means::Key(key) => key.verify(&token),
            Means::Jwks | Means::Introspection => provider.verify(&token, upstreams).await,
        }
        .map_err(Refusal::Token)?;
        let issuer = match &self.conf.claim_validator.issuer.valid_issuers {
            Some(_) => None,
            None => Some(provider.issuer(upstreams).await.map_err(Refusal::Token)?),
        };
        self.rules.check_issuer(&token.claims, issuer.as_deref())?;
        Ok(Arc::new(token.claims))
    }

    fn check_algorithm(&self, token: &Token<'_>) -> Result<(), Refusal> {
        // RFC 7515 §4.1.11: what must be understood and is not.
        if token.header.contains_key("crit") {
            return Err(Refusal::token(
                "its header has `crit`, which is not supported",
            ));
        }
        let algorithm = token.algorithm().filter(|one| !one.is_symmetric());
        let expected = self.conf.token_signing_alg_values_expected.as_deref();
        match algorithm.map(Algorithm::name) {
            None => Err(Refusal::token("its algorithm is not supported")),
            Some(name) if expected.is_some_and(|expected| expected != name) => Err(Refusal::token(
                "it is signed by another algorithm than expected",
            )),
            Some(_) => Ok(()),
        }
    }

    fn addon_headers(&self, exchange: &Exchange) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for name in &self.addon_headers {
            if let Some(value) = exchange.request.headers.get(name) {
                headers.insert(name.clone(), value.clone());
            }
        }
        headers
    }

    fn tell_target(&self, exchange: &mut Exchange, token: &str, claims: &Claims) {
        let mut set = |name: &HeaderName, text: String| {
            // A token came in a header, and Base64 fits into one.
            if let Ok(mut value) = HeaderValue::from_str(&text) {
                value.set_sensitive(true);
                exchange.request.headers.insert(name.clone(), value);
            }
        };
        if self.conf.set_access_token_header {
            if self.conf.access_token_in_authorization_header {
                set(&header::AUTHORIZATION, format!("Bearer {token}"));
            } else {
                set(&ACCESS_TOKEN, token.to_owned());
            }
        }
        if self.conf.set_userinfo_header {
            // What was read as JSON can be written.
            let json = serde_json::to_vec(claims).unwrap_or_default();
            set(&USERINFO, BASE64_STANDARD.encode(json));
        }
    }

    fn refuse(&self, refusal: &Refusal) -> Flow {
        Flow::Respond(match refusal {
            Refusal::Token(reason) => {
                let text = format!(
                    "Bearer realm=\"{}\", error=\"invalid_token\", error_description=\"{}\"",
                    self.conf.realm,
                    quotable(reason)
                );
                // The realm was tried when it was loaded.
                let challenge = HeaderValue::from_str(&text);
                let challenge = challenge.unwrap_or_else(|_| self.challenge.clone());
                Reply::page(StatusCode::UNAUTHORIZED)
                    .with_header(header::WWW_AUTHENTICATE, challenge)
            }
            Refusal::Forbidden(error) => {
                let body = serde_json::json!({ "error": error }).to_string();
                Reply::text(StatusCode::FORBIDDEN, body)
            }
        })
    }

    /// A request that brings no token.
    fn without_token(&self) -> Flow {
        if self.conf.bearer_only {
            return Flow::Respond(
                Reply::page(StatusCode::UNAUTHORIZED)
                    .with_header(header::WWW_AUTHENTICATE, self.challenge.clone()),
            );
        }
        match self.conf.unauth_action {
            UnauthAction::Pass => Flow::Continue,
            UnauthAction::Deny | UnauthAction::Auth => {
                Flow::Respond(Reply::page(StatusCode::UNAUTHORIZED))
            }
        }
    }
}

/// What may stand between quotes in a header (RFC 6750 §3).
fn quotable(text: &str) -> String {
    let allowed = |c: &char| matches!(c, ' '..='~') && !matches!(c, '"' | '\\');
    text.chars()
        .filter(allowed)
        .take(DESCRIPTION_CHARS_MAX)
        .collect()
}

impl Plugin for OpenidConnect {
    fn phases(&self) -> Phases {
        Phases::REWRITE
    }

    fn rewrite<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        let brought = brought(&exchange.request.headers);
        // The target believes these, so none comes from a client.
        for name in [
            &ACCESS_TOKEN,
            &USERINFO,
            &ID_TOKEN,
            &REFRESH_TOKEN,
            &RAW_ID_TOKEN,
        ] {
            exchange.request.headers.remove(name);
        }
        match brought {
            Brought::Token(token) => Step::Later(Box::pin(self.admit(exchange, token))),
            Brought::None => Step::Done(self.without_token()),
            Brought::Malformed => Step::Done(Flow::Respond(Reply::page(StatusCode::BAD_REQUEST))),
        }
    }
}

static ACCESS_TOKEN: HeaderName = HeaderName::from_static("x-access-token");
static USERINFO: HeaderName = HeaderName::from_static("x-userinfo");
static ID_TOKEN: HeaderName = HeaderName::from_static("x-id-token");
static REFRESH_TOKEN: HeaderName = HeaderName::from_static("x-refresh-token");
static RAW_ID_TOKEN: HeaderName = HeaderName::from_static("x-raw-id-token");
const DESCRIPTION_CHARS_MAX: usize = 200;
