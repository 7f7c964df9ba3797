//! What a token must claim to be let in.

use serde_json::Value;

use super::conf::Conf;
use crate::{config::schema::Schema, oidc::Claims};

/// What is asked of claims.
pub(super) struct Rules {
    client_id: String,
    required_scopes: Option<Vec<String>>,
    valid_issuers: Option<Vec<String>>,
    audience: Audience,
    schema: Option<Schema>,
    slack_s: f64,
}

struct Audience {
    claim: String,
    must_be_there: bool,
    must_be_ours: bool,
}

/// Why a token does not let in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is not good: 401.
    Token(String),
    /// It is good, but not for this: 403, in APISIX's words.
    Forbidden(String),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Token(reason) | Self::Forbidden(reason) => f.write_str(reason),
        }
    }
}

impl Refusal {
    pub(super) fn token(reason: &str) -> Self {
        Self::Token(reason.to_owned())
    }

    fn forbidden(reason: &str) -> Self {
        Self::Forbidden(reason.to_owned())
    }
}

impl Rules {
    pub(super) fn of(conf: &Conf) -> Self {
        let audience = &conf.claim_validator.audience;
        let schema = conf.claim_schema.clone();
        Self {
            client_id: conf.client_id.clone(),
            required_scopes: conf.required_scopes.clone(),
            valid_issuers: conf.claim_validator.issuer.valid_issuers.clone(),
            audience: Audience {
                claim: audience.claim.clone(),
                must_be_there: audience.required || audience.match_with_client_id,
                must_be_ours: audience.match_with_client_id,
            },
            schema: schema.map(|schema| Schema::new(Value::Object(schema))),
            slack_s: conf.iat_slack as f64,
        }
    }

    /// `exp` and `nbf`, where they are (RFC 7519 §4.1).
    pub(super) fn check_time(&self, claims: &Claims, now_s: u64) -> Result<(), Refusal> {
        let now = now_s as f64;
        let holds = |claim: &str, is_so: &dyn Fn(f64) -> bool| {
            let value = claims.get(claim);
            value.is_none_or(|value| value.as_f64().is_some_and(is_so))
        };
        if !holds("exp", &|end| now < end + self.slack_s) {
            return Err(Refusal::token("it has expired"));
        }
        if !holds("nbf", &|start| now + self.slack_s >= start) {
            return Err(Refusal::token("it is not good yet"));
        }
        Ok(())
    }

    /// `iss` must be there: one of the configured issuers, else `discovered`.
    pub(super) fn check_issuer(
        &self,
        claims: &Claims,
        discovered: Option<&str>,
    ) -> Result<(), Refusal> {
        let issuer = claims.get("iss").and_then(Value::as_str);
        let is_good = issuer.is_some_and(|issuer| match &self.valid_issuers {
            Some(valid) => valid.iter().any(|one| one == issuer),
            None => discovered == Some(issuer),
        });
        if is_good {
            Ok(())
        } else {
            Err(Refusal::token("its issuer is not the one expected"))
        }
    }

    /// The same for what a provider says of a token, which need not name the issuer.
    pub(super) fn check_named_issuer(&self, claims: &Claims) -> Result<(), Refusal> {
        if self.valid_issuers.is_some() && claims.contains_key("iss") {
            return self.check_issuer(claims, None);
        }
        Ok(())
    }

    /// Scopes, audience and schema.
    pub(super) fn check(&self, claims: &Claims) -> Result<(), Refusal> {
        self.check_scopes(claims)?;
        self.check_audience(claims)?;
        let Some(schema) = &self.schema else {
            return Ok(());
        };
        match schema.first_fault(&Value::Object(claims.clone())) {
            None => Ok(()),
            Some(fault) => Err(Refusal::token(&fault)),
        }
    }

    fn check_scopes(&self, claims: &Claims) -> Result<(), Refusal> {
        let Some(required) = &self.required_scopes else {
            return Ok(());
        };
        let has = |scope: &String| match claims.get("scope") {
            Some(Value::String(text)) => text.split_whitespace().any(|one| one == scope),
            Some(Value::Array(list)) => list.iter().any(|one| one == scope),
            _ => false,
        };
        if required.iter().all(has) {
            return Ok(());
        }
        let all = required.join(", ");
        Err(Refusal::Forbidden(format!(
            "required scopes {all} not present"
        )))
    }

    fn check_audience(&self, claims: &Claims) -> Result<(), Refusal> {
        let value = claims.get(&self.audience.claim);
        let value = value.filter(|value| !value.is_null());
        if value.is_none() && self.audience.must_be_there {
            return Err(Refusal::forbidden("required audience claim not present"));
        }
        let is_ours = match value {
            Some(Value::Array(list)) => list.iter().any(|one| one == &self.client_id),
            Some(one) => one == &self.client_id,
            None => true,
        };
        if self.audience.must_be_ours && !is_ours {
            return Err(Refusal::forbidden("mismatched audience"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules(more: Value) -> Rules {
        let mut conf = json!({"client_id": "me", "discovery": "http://127.0.0.1:1"});
        let all = more.as_object().expect("an object").clone();
        conf.as_object_mut().expect("an object").extend(all);
        Rules::of(&serde_json::from_value(conf).expect("valid"))
    }

    fn claims(value: Value) -> Claims {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn times_have_slack() {
        let check = |slack: u64, value: Value| {
            rules(json!({"iat_slack": slack})).check_time(&claims(value), 1000)
        };
        let expired = Err(Refusal::token("it has expired"));
        let early = Err(Refusal::token("it is not good yet"));
        assert_eq!(check(0, json!({})), Ok(()));
        assert_eq!(check(0, json!({"exp": 1001, "nbf": 1000})), Ok(()));
        assert_eq!(check(0, json!({"exp": 1000})), expired);
        assert_eq!(check(1, json!({"exp": 1000})), Ok(()));
        assert_eq!(check(0, json!({"exp": "2000"})), expired);
        assert_eq!(check(0, json!({"nbf": 1001})), early);
        assert_eq!(check(1, json!({"nbf": 1001})), Ok(()));
        let usual = rules(json!({}));
        assert_eq!(usual.check_time(&claims(json!({"exp": 881})), 1000), Ok(()));
        assert_eq!(
            usual.check_time(&claims(json!({"exp": 880})), 1000),
            expired
        );
    }

    #[test]
    fn issuers_are_those_configured_or_the_one_discovered() {
        let wrong = Err(Refusal::token("its issuer is not the one expected"));
        let usual = rules(json!({}));
        let of = |issuer: &str| claims(json!({"iss": issuer}));
        assert_eq!(usual.check_issuer(&of("a"), Some("a")), Ok(()));
        assert_eq!(usual.check_issuer(&of("b"), Some("a")), wrong);
        assert_eq!(usual.check_issuer(&of("a"), None), wrong);
        assert_eq!(usual.check_issuer(&claims(json!({})), Some("a")), wrong);
        assert_eq!(usual.check_named_issuer(&of("b")), Ok(()));
        let named = rules(json!({"claim_validator": {"issuer": {"valid_issuers": ["b", "c"]}}}));
        assert_eq!(named.check_issuer(&of("c"), None), Ok(()));
        assert_eq!(named.check_issuer(&of("a"), Some("a")), wrong);
        assert_eq!(named.check_named_issuer(&of("a")), wrong);
        assert_eq!(named.check_named_issuer(&claims(json!({}))), Ok(()));
    }

    /// G-126, G-127
    #[test]
    fn scopes_and_audience_are_asked_for() {
        let check = |more: Value, value: Value| rules(more).check(&claims(value));
        let scopes = json!({"required_scopes": ["a", "b"]});
        let lacks = Err(Refusal::forbidden("required scopes a, b not present"));
        assert_eq!(check(scopes.clone(), json!({"scope": "b  c a"})), Ok(()));
        assert_eq!(check(scopes.clone(), json!({"scope": ["a", "b"]})), Ok(()));
        assert_eq!(check(scopes.clone(), json!({"scope": "a bc"})), lacks);
        assert_eq!(check(scopes, json!({})), lacks);
        let audience = |conf: Value| json!({"claim_validator": {"audience": conf}});
        let ours = audience(json!({"match_with_client_id": true}));
        let mismatch = Err(Refusal::forbidden("mismatched audience"));
        let missing = Err(Refusal::forbidden("required audience claim not present"));
        assert_eq!(check(ours.clone(), json!({"aud": "me"})), Ok(()));
        assert_eq!(check(ours.clone(), json!({"aud": ["x", "me"]})), Ok(()));
        assert_eq!(check(ours.clone(), json!({"aud": ["x"]})), mismatch);
        assert_eq!(check(ours.clone(), json!({"aud": {"me": 1}})), mismatch);
        assert_eq!(check(ours, json!({})), missing);
        let there = audience(json!({"claim": "azp", "required": true}));
        assert_eq!(check(there.clone(), json!({"azp": "x"})), Ok(()));
        assert_eq!(check(there.clone(), json!({"azp": null})), missing);
        assert_eq!(check(there, json!({"aud": "me"})), missing);
        assert_eq!(check(json!({}), json!({"aud": "x"})), Ok(()));
    }

    #[test]
    fn a_schema_is_for_the_values_as_they_are() {
        let schema = json!({"claim_schema": {"type": "object", "required": ["sub"],
            "properties": {"sub": {"type": "string", "pattern": "^u-"}}}});
        let check = |value: Value| rules(schema.clone()).check(&claims(value));
        assert_eq!(check(json!({"sub": "u-1"})), Ok(()));
        assert_eq!(
            check(json!({})),
            Err(Refusal::token("property \"sub\" is required"))
        );
        assert!(check(json!({"sub": "v"})).is_err());
        assert!(check(json!({"sub": "$env://u-"})).is_err());
    }
}
