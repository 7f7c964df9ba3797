//! A service account and the endpoint that hands out its tokens.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

use crate::support::{Answer, Received, Upstream};

pub(crate) const EMAIL: &str = "robot@project.example";

/// Hands out `token-1`, `token-2`, ... each for as long as its script says.
pub(crate) struct Google {
    pub(crate) upstream: Upstream,
    key: KeyPair,
}

impl Google {
    /// One that answers its nth request (from 1) by `script`.
    pub(crate) fn start(script: impl Fn(usize) -> Answer + Send + Sync + 'static) -> Self {
        let count = Arc::new(AtomicUsize::new(0));
        Self {
            upstream: Upstream::start(move |_| script(count.fetch_add(1, Ordering::SeqCst) + 1)),
            key: KeyPair::generate(KeySize::Rsa2048).expect("a key"),
        }
    }

    /// One whose tokens last an hour.
    pub(crate) fn steady() -> Self {
        Self::start(|nth| token(nth, 3600))
    }

    /// The service account, with further members, as YAML in flow style has it.
    pub(crate) fn account(&self, more: Value) -> String {
        let der: Pkcs8V1Der<'_> = self.key.as_der().expect("PKCS #8");
        let text = STANDARD.encode(der.as_ref());
        let key = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
        let address = self.upstream.address;
        let mut account = json!({
            "type": "service_account",
            "client_email": EMAIL,
            "private_key": key,
            "token_uri": format!("http://{address}/token"),
        });
        for (name, value) in more.as_object().cloned().unwrap_or_default() {
            account[name] = value;
        }
        account.to_string()
    }

    /// `auth`, with further members of `gcp`.
    pub(crate) fn auth(&self, more: &str) -> String {
        let account = Value::String(self.account(json!({})));
        format!("auth: {{gcp: {{service_account_json: {account}{more}}}}}")
    }

    /// The claims of the assertion in a request for a token, if its signature is right.
    pub(crate) fn claims(&self, received: &Received) -> Value {
        let form = received.text();
        let grant =
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant%2Dtype%3Ajwt%2Dbearer&assertion=";
        let assertion = form.strip_prefix(grant).expect("the grant");
        let (signed, signature) = assertion.rsplit_once('.').expect("three parts");
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).expect("base64url");
        let key = self.key.public_key();
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key)
            .verify(signed.as_bytes(), &decode(signature))
            .expect("signed by the account");
        let (header, claims) = signed.split_once('.').expect("three parts");
        let header: Value = serde_json::from_slice(&decode(header)).expect("JSON");
        assert_eq!(header, json!({"alg": "RS256", "typ": "JWT"}));
        serde_json::from_slice(&decode(claims)).expect("JSON")
    }
}

/// The answer with the nth token, for that many seconds.
pub(crate) fn token(nth: usize, seconds: u64) -> Answer {
    let body = json!({"access_token": format!("token-{nth}"), "expires_in": seconds, "token_type": "Bearer"});
    Answer::json(&body.to_string())
}
