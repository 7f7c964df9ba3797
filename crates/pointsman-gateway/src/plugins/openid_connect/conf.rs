//! `openid-connect` as it is written, and what is wrong with it.

use std::time::Duration;

use http::{HeaderName, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    config::{
        plugin_schema::Faults,
        reference,
        schema::{self, Issue},
    },
    jws::Algorithm,
    oidc::{ClientAuth, Identity},
};

#[derive(Deserialize, Serialize, JsonSchema)]
pub(super) struct Conf {
    /// Who the gateway is to the identity provider.
    pub(super) client_id: String,
    /// URL of the provider's discovery document.
    pub(super) discovery: String,
    /// Secret by which the gateway asks about tokens.
    pub(super) client_secret: Option<String>,
    /// Only tokens that requests bring; the login of browsers is not supported.
    #[serde(default)]
    pub(super) bearer_only: bool,
    /// Of the login of browsers; accepted, without effect.
    #[serde(default)]
    pub(super) session: Option<Map<String, Value>>,
    /// Where to ask about tokens, unless the discovery document says it.
    pub(super) introspection_endpoint: Option<String>,
    /// `client_secret_basic` or `client_secret_post`.
    #[serde(default = "basic")]
    pub(super) introspection_endpoint_auth_method: String,
    /// Of the login of browsers; accepted, without effect.
    #[serde(default = "basic")]
    pub(super) token_endpoint_auth_method: String,
    /// Of the login of browsers; accepted, without effect.
    #[serde(default)]
    pub(super) use_pkce: bool,
    /// Tokens are signed by this key (PEM).
    pub(super) public_key: Option<String>,
    /// Tokens are signed by a key that the discovery document leads to.
    #[serde(default)]
    pub(super) use_jwks: bool,
    /// The only algorithm by which tokens may be signed.
    pub(super) token_signing_alg_values_expected: Option<String>,
    /// Scopes that a token must have, all of them.
    pub(super) required_scopes: Option<Vec<String>>,
    /// What a token must claim.
    #[serde(default)]
    pub(super) claim_validator: ClaimValidator,
    /// JSON Schema of what a token says.
    pub(super) claim_schema: Option<Map<String, Value>>,
    /// Realm of `WWW-Authenticate`.
    #[serde(default = "realm")]
    pub(super) realm: String,
    /// Seconds that a call to the provider may take.
    #[serde(default = "three")]
    #[schemars(range(min = 1))]
    pub(super) timeout: u64,
    /// Verify the provider's certificates.
    #[serde(default = "yes")]
    pub(super) ssl_verify: bool,
    /// Of the login of browsers; accepted, without effect.
    #[serde(default = "scope")]
    pub(super) scope: String,
    /// What becomes of a request without a token, if not `bearer_only`.
    #[serde(default)]
    pub(super) unauth_action: UnauthAction,
    /// Seconds that what the provider said of a token is used at most; 0: as long as the token is good.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub(super) introspection_interval: u64,
    /// Member of the provider's answer that says how long a token is good, instead of `exp`: seconds.
    pub(super) introspection_expiry_claim: Option<String>,
    /// Headers of the request that the provider is asked with.
    pub(super) introspection_addon_headers: Option<Vec<String>>,
    /// Seconds that the provider's keys are used.
    #[serde(default = "a_day")]
    #[schemars(range(min = 1))]
    pub(super) jwk_expires_in: u64,
    /// The target gets the token in `X-Access-Token`.
    #[serde(default = "yes")]
    pub(super) set_access_token_header: bool,
    /// The target gets it in `Authorization` instead.
    #[serde(default)]
    pub(super) access_token_in_authorization_header: bool,
    /// The target gets what the token says in `X-Userinfo`, Base64 of JSON.
    #[serde(default = "yes")]
    pub(super) set_userinfo_header: bool,
    /// Of the login of browsers; accepted, without effect.
    #[serde(default = "yes")]
    pub(super) set_id_token_header: bool,
    /// Of the login of browsers; accepted, without effect.
    #[serde(default)]
    pub(super) set_raw_id_token_header: bool,
    /// Of the login of browsers; accepted, without effect.
    #[serde(default)]
    pub(super) set_refresh_token_header: bool,
    /// Not supported.
    #[serde(default)]
    pub(super) proxy_opts: Option<Map<String, Value>>,
    /// Not supported: anybody can make a token that nobody has signed.
    #[serde(default)]
    pub(super) accept_none_alg: bool,
    /// Accepted, without effect: what cannot be checked is refused.
    #[serde(default = "yes")]
    pub(super) accept_unsupported_alg: bool,
    /// Seconds by which clocks may differ.
    #[serde(default = "two_minutes")]
    #[schemars(range(min = 0))]
    pub(super) iat_slack: u64,
}

/// What a token must claim.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(super) struct ClaimValidator {
    /// `iss`.
    pub(super) issuer: IssuerValidator,
    /// `aud`.
    pub(super) audience: AudienceValidator,
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(super) struct IssuerValidator {
    /// Whose tokens are good; else those of the issuer that the discovery document names.
    pub(super) valid_issuers: Option<Vec<String>>,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(super) struct AudienceValidator {
    /// The claim that says for whom a token is.
    pub(super) claim: String,
    /// It must be there.
    pub(super) required: bool,
    /// It must be there and be, or hold, `client_id`.
    pub(super) match_with_client_id: bool,
}

impl Default for AudienceValidator {
    fn default() -> Self {
        Self {
            claim: "aud".to_owned(),
            required: false,
            match_with_client_id: false,
        }
    }
}

/// What becomes of a request without a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum UnauthAction {
    /// The user logs in; not supported.
    #[default]
    Auth,
    /// 401.
    Deny,
    /// It goes on.
    Pass,
}

fn basic() -> String {
    BASIC.to_owned()
}

fn realm() -> String {
    "apisix".to_owned()
}

fn scope() -> String {
    "openid".to_owned()
}

fn three() -> u64 {
    3
}

fn yes() -> bool {
    true
}

fn a_day() -> u64 {
    86400
}

fn two_minutes() -> u64 {
    120
}

impl Conf {
    /// Rules that can be told before references are resolved.
    pub(super) fn check(&self) -> Result<(), Faults> {
        let mut found = Vec::new();
        self.check_login(&mut found);
        self.check_means(&mut found);
        if let Some(schema) = &self.claim_schema {
            let schema = Value::Object(schema.clone());
            found.extend(schema::unsupported(&schema, "claim_schema"));
        }
        let headers = self.introspection_addon_headers.iter().flatten();
        found.extend(headers.enumerate().filter_map(|(index, name)| {
            let path = format!("introspection_addon_headers[{index}]");
            let fault = addon_header(name).err()?;
            Some(Issue::new(&path, fault))
        }));
        Faults::none_of(found)
    }

    /// What the login of browsers would need, which is not there.
    fn check_login(&self, found: &mut Vec<Issue>) {
        let is_assertion = |method: &str| method == "private_key_jwt";
        let needs_no_secret = if self.bearer_only {
            self.is_local() || is_assertion(&self.introspection_endpoint_auth_method)
        } else {
            self.use_pkce || is_assertion(&self.token_endpoint_auth_method)
        };
        let mut fault = |path: &str, text: &str| found.push(Issue::new(path, text));
        if self.client_secret.is_none() && !needs_no_secret {
            fault("client_secret", "property \"client_secret\" is required");
        }
        if self.bearer_only {
            return;
        }
        let secret = self
            .session
            .as_ref()
            .and_then(|session| session.get("secret"));
        match secret.and_then(Value::as_str) {
            None => fault(
                "session.secret",
                "property \"session.secret\" is required when \"bearer_only\" is false",
            ),
            Some(secret) if secret.chars().count() < 16 && !reference::is_reference(secret) => {
                fault("session.secret", "session.secret: at least 16 characters");
            }
            Some(_) => {}
        }
        if self.unauth_action == UnauthAction::Auth {
            fault(
                "bearer_only",
                "the login of browsers (the authorization code flow) is not supported: set \
                 bearer_only to true, or unauth_action to deny or pass",
            );
        } else if !self.is_local() && self.introspection_endpoint.is_none() {
            fault(
                "bearer_only",
                "sessions are not supported, so tokens must be looked at: set bearer_only to true, \
                 or one of use_jwks, public_key and introspection_endpoint",
            );
        }
    }

    fn check_means(&self, found: &mut Vec<Issue>) {
        let mut fault = |path: &str, text: String| found.push(Issue::new(path, text));
        let method = self.introspection_endpoint_auth_method.as_str();
        if !self.is_local() && ![BASIC, POST].contains(&method) {
            let text = format!(
                "introspection_endpoint_auth_method: `{method}` is not supported; {BASIC} and {POST} are"
            );
            fault("introspection_endpoint_auth_method", text);
        }
        if let Some(name) = &self.token_signing_alg_values_expected
            && Algorithm::named(name).is_none_or(Algorithm::is_symmetric)
        {
            let text = format!(
                "token_signing_alg_values_expected: `{name}` is no algorithm by which tokens can be \
                 signed here, such as RS256 or ES256"
            );
            fault("token_signing_alg_values_expected", text);
        }
        if self.accept_none_alg {
            let text = "accept_none_alg: anybody can make a token that nobody has signed, so this is \
                        not supported";
            fault("accept_none_alg", text.to_owned());
        }
        if self
            .proxy_opts
            .as_ref()
            .is_some_and(|opts| !opts.is_empty())
        {
            let text = "proxy_opts: proxies towards the identity provider are not supported";
            fault("proxy_opts", text.to_owned());
        }
    }

    /// Tokens are checked by keys, rather than asked about.
    pub(super) fn is_local(&self) -> bool {
        self.public_key.is_some() || self.use_jwks
    }

    /// What the provider is, and how it is asked.
    pub(super) fn identity(&self) -> Identity {
        // APISIX once kept milliseconds under the same name, and still takes them for such.
        let timeout = match self.timeout {
            millis if millis >= 1000 && millis % 1000 == 0 => Duration::from_millis(millis),
            seconds => Duration::from_secs(seconds),
        };
        let interval = Some(self.introspection_interval).filter(|seconds| *seconds > 0);
        let claim = self.introspection_expiry_claim.as_deref();
        Identity {
            discovery: self.discovery.clone(),
            verify: self.ssl_verify,
            timeout: timeout.min(LONGEST),
            keys_last: Duration::from_secs(self.jwk_expires_in).min(LONGEST),
            introspection_endpoint: self.introspection_endpoint.clone(),
            client: ClientAuth {
                id: self.client_id.clone(),
                secret: self.client_secret.clone(),
                in_form: self.introspection_endpoint_auth_method == POST,
            },
            introspection_interval: interval
                .map(|seconds| Duration::from_secs(seconds).min(LONGEST)),
            expiry_claim: claim.unwrap_or("exp").to_owned(),
        }
    }
}

/// The name of a header that may go along when the provider is asked.
pub(super) fn addon_header(name: &str) -> Result<HeaderName, String> {
    let header = HeaderName::from_bytes(name.as_bytes());
    let header = header
        .map_err(|_| format!("introspection_addon_headers: `{name}` is not a header name"))?;
    let own = [
        header::HOST,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::UPGRADE,
        header::EXPECT,
        header::TE,
    ];
    if own.contains(&header) {
        return Err(format!(
            "introspection_addon_headers: `{name}` belongs to the connection and cannot go along"
        ));
    }
    Ok(header)
}

const BASIC: &str = "client_secret_basic";
const POST: &str = "client_secret_post";
/// Whatever is written: time can be added to without overflow.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);
