//! Access tokens of Google for service accounts: what is asked for, and what comes back (OAuth 2.0,
//! JWT bearer grant, RFC 7523). Signing and sending are left to the caller.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};

/// A service account. `Debug` shows nothing of it.
#[derive(Clone)]
pub struct ServiceAccount {
    client_email: String,
    /// PEM, PKCS #8 as Google has it.
    pub private_key: String,
    /// Where tokens are to be had.
    pub token_uri: String,
    scope: String,
}

impl std::fmt::Debug for ServiceAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServiceAccount(..)")
    }
}

/// What is wrong with a service account, or with an answer. Quotes nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unusable(pub &'static str);

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Unusable {}

impl ServiceAccount {
    /// Reads the JSON that Google hands out for an account, with an optional `scope` (a text, or a
    /// list of texts) as APISIX has it.
    ///
    /// # Errors
    /// It is no JSON object, or has no `client_email` or `private_key`.
    pub fn parse(text: &str) -> Result<Self, Unusable> {
        let read: Written = serde_json::from_str(text)
            .map_err(|_| Unusable("the service account is no JSON object of texts"))?;
        let present = |text: Option<String>| text.filter(|text| !text.is_empty());
        let scope = match read.scope {
            Some(Value::String(scope)) if !scope.is_empty() => scope,
            Some(Value::Array(scopes)) if !scopes.is_empty() => {
                let scopes: Vec<&str> = scopes.iter().filter_map(Value::as_str).collect();
                scopes.join(" ")
            }
            _ => SCOPE.to_owned(),
        };
        Ok(Self {
            client_email: present(read.client_email)
                .ok_or(Unusable("the service account has no `client_email`"))?,
            private_key: present(read.private_key)
                .ok_or(Unusable("the service account has no `private_key`"))?,
            token_uri: present(read.token_uri).unwrap_or_else(|| TOKEN_URI.to_owned()),
            scope,
        })
    }

    /// The part of an assertion that is signed (RS256), at `now` seconds since 1970.
    pub fn unsigned(&self, now: u64) -> String {
        let header = json!({"alg": "RS256", "typ": "JWT"});
        let claims = json!({
            "iss": self.client_email,
            "scope": self.scope,
            "aud": self.token_uri,
            "iat": now,
            "exp": now + ASSERTION_SECONDS,
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}", part(&header), part(&claims))
    }
}

/// The form that asks for a token with the assertion `unsigned` and its signature.
pub fn token_request(unsigned: &str, signature: &[u8]) -> String {
    let grant = utf8_percent_encode(GRANT, NON_ALPHANUMERIC);
    let signature = URL_SAFE_NO_PAD.encode(signature);
    format!("grant_type={grant}&assertion={unsigned}.{signature}")
}

/// An access token and how many seconds it lasts. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken {
    /// It.
    pub value: String,
    /// Seconds; an hour if the answer does not say.
    pub expires_in: u64,
}

impl std::fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AccessToken(.., {} s)", self.expires_in)
    }
}

/// Reads the answer to a [`token_request`].
///
/// # Errors
/// It has no token.
pub fn read_token(body: &[u8]) -> Result<AccessToken, Unusable> {
    let read: Value = serde_json::from_slice(body)
        .map_err(|_| Unusable("the token endpoint's answer is no JSON"))?;
    let value = read["access_token"]
        .as_str()
        .filter(|token| !token.is_empty());
    let expires = &read["expires_in"];
    let text = || expires.as_str()?.parse().ok();
    Ok(AccessToken {
        value: value
            .ok_or(Unusable("the token endpoint's answer has no access_token"))?
            .to_owned(),
        expires_in: (expires.as_u64())
            .or_else(|| expires.as_f64().map(|seconds| seconds as u64))
            .or_else(text)
            .unwrap_or(EXPIRES_IN),
    })
}

/// OAuth's word for why there is no token, such as `invalid_grant`.
pub fn token_error(body: &[u8]) -> Option<String> {
    let read: Value = serde_json::from_slice(body).ok()?;
    let word = read["error"].as_str()?;
    let is_word = (1..=64).contains(&word.len())
        && word
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    is_word.then(|| word.to_owned())
}

/// How long a token of `expires_in` seconds is used: `early` seconds less if it lasts longer than
/// that, and `max` at most.
pub fn token_lifetime(expires_in: u64, early: u64, max: Option<u64>) -> Duration {
    let seconds = match expires_in {
        longer if longer > early => longer - early,
        shorter => shorter,
    };
    Duration::from_secs(seconds.min(max.unwrap_or(u64::MAX)).max(1))
}

#[derive(Deserialize)]
struct Written {
    client_email: Option<String>,
    private_key: Option<String>,
    token_uri: Option<String>,
    scope: Option<Value>,
}

const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const ASSERTION_SECONDS: u64 = 3600;
const EXPIRES_IN: u64 = 3600;

#[cfg(test)]
mod tests {
    use super::*;

    fn account(more: &str) -> Result<ServiceAccount, Unusable> {
        ServiceAccount::parse(&format!(
            r#"{{"client_email":"a@b","private_key":"k"{more}}}"#
        ))
    }

    fn claims(account: &ServiceAccount) -> Value {
        let unsigned = account.unsigned(100);
        let (header, claims) = unsigned.split_once('.').expect("two parts");
        let read = |part: &str| -> Value {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("JSON")
        };
        assert_eq!(read(header), json!({"alg": "RS256", "typ": "JWT"}));
        read(claims)
    }

    #[test]
    fn assertions_say_who_for_what_and_how_long() {
        let plain = account("").expect("sound");
        assert_eq!(
            claims(&plain),
            json!({"iss": "a@b", "scope": SCOPE, "aud": TOKEN_URI, "iat": 100, "exp": 3700})
        );
        let other = account(r#","token_uri":"http://x/t","scope":["a","b"]"#).expect("sound");
        assert_eq!(claims(&other)["scope"], "a b");
        assert_eq!(claims(&other)["aud"], "http://x/t");
        assert_eq!(
            claims(&account(r#","scope":"s""#).expect("sound"))["scope"],
            "s"
        );
        assert_eq!(
            token_request("a.b", b"\xff"),
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant%2Dtype%3Ajwt%2Dbearer&assertion=a.b._w"
        );
    }

    #[test]
    fn accounts_that_cannot_work_are_told() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"client_email":"a"}"#,
            r#"{"private_key":"k"}"#,
        ] {
            assert!(ServiceAccount::parse(text).is_err(), "{text}");
        }
        assert!(!format!("{:?}", account("").expect("sound")).contains("a@b"));
    }

    #[test]
    fn answers_have_a_token_or_a_word() {
        let seconds = |body: &str| read_token(body.as_bytes()).map(|token| token.expires_in);
        assert_eq!(seconds(r#"{"access_token":"t","expires_in":5}"#), Ok(5));
        assert_eq!(seconds(r#"{"access_token":"t","expires_in":"7"}"#), Ok(7));
        assert_eq!(seconds(r#"{"access_token":"t"}"#), Ok(3600));
        for bad in ["", "{}", r#"{"access_token":""}"#, r#"{"access_token":1}"#] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
        let word = |body: &str| token_error(body.as_bytes());
        assert_eq!(
            word(r#"{"error":"invalid_grant"}"#).as_deref(),
            Some("invalid_grant")
        );
        assert_eq!(word(r#"{"error":"Your assertion eyJ"}"#), None);
    }

    /// P-086
    #[test]
    fn lifetimes() {
        let seconds = |expires, early, max| token_lifetime(expires, early, max).as_secs();
        assert_eq!(seconds(3600, 60, None), 3540);
        assert_eq!(seconds(5, 60, Some(8)), 5);
        assert_eq!(seconds(10, 60, Some(8)), 8);
        assert_eq!(seconds(60, 60, None), 60);
        assert_eq!(seconds(61, 60, None), 1);
        assert_eq!(seconds(0, 0, None), 1);
    }
}
