//! Encryption at rest, as APISIX has it (`apisix.data_encryption`): secrets of resources are encrypted where
//! several gateways share them, and nowhere else.
//!
//! AES in CBC mode whose first block depends on the key alone, Base64 around it: equal secrets look equal.
//! That is APISIX's format, which both sides must read; its default keys are known to everybody. A text that
//! no key opens is taken as it is, so what was stored before encryption goes on working.

use std::borrow::Cow;

use aws_lc_rs::{
    cipher::{
        AES_128, AES_256, Algorithm, DecryptionContext, EncryptionContext,
        PaddedBlockDecryptingKey, PaddedBlockEncryptingKey, UnboundCipherKey,
    },
    iv::FixedLength,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::config::collection::Collection;

/// The keys: the first encrypts, all are tried to decrypt. Without any, nothing is done. `Debug` shows none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Keyring(Vec<Vec<u8>>);

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keyring({} keys)", self.0.len())
    }
}

impl Keyring {
    /// A keyring of `keys`.
    ///
    /// # Errors
    /// When one has neither 16 nor 32 bytes; it is not quoted.
    pub fn new(keys: &[String]) -> Result<Self, String> {
        let has_size = |key: &String| matches!(key.len(), 16 | 32);
        if !keys.iter().all(has_size) {
            return Err("every key must have 16 or 32 characters".to_owned());
        }
        Ok(Self(
            keys.iter().map(|key| key.as_bytes().to_vec()).collect(),
        ))
    }

    /// The keys that APISIX has if none are named.
    pub fn apisix() -> Self {
        Self(
            APISIX_KEYS
                .iter()
                .map(|key| key.as_bytes().to_vec())
                .collect(),
        )
    }

    /// The resource `text`, stored under `key`, with its secrets encrypted.
    pub fn seal<'a>(&self, key: &str, text: &'a str) -> Cow<'a, str> {
        self.each(key, text, &mut |secret, place| {
            let is_sealable = match place {
                Place::Plugin => !secret.is_empty(),
                Place::PrivateKey => secret.starts_with(PEM),
            };
            is_sealable.then(|| self.encrypted(secret)).flatten()
        })
    }

    /// The resource `text`, stored under `key`, with its secrets decrypted.
    pub fn open<'a>(&self, key: &str, text: &'a str) -> Cow<'a, str> {
        self.each(key, text, &mut |secret, place| {
            let opened = self.decrypted(secret)?;
            (place == Place::Plugin || opened.starts_with(PEM)).then_some(opened)
        })
    }

    /// `text`, with each secret replaced by what `change` makes of it.
    fn each<'a>(&self, key: &str, text: &'a str, change: &mut Change<'_>) -> Cow<'a, str> {
        let has = |word: &str| memchr::memmem::find(text.as_bytes(), word.as_bytes()).is_some();
        if self.0.is_empty() || !(has("\"plugins\"") || has("key")) {
            return Cow::Borrowed(text);
        }
        let collection = Collection::of_key(key).map(|(collection, _)| collection);
        let Ok(mut value) = serde_json::from_str::<Value>(text) else {
            return Cow::Borrowed(text);
        };
        let mut has_changed = false;
        let mut at = |value: &mut Value, path: &[&str], place: Place| {
            walk(value, path, &mut |secret| {
                if let Some(changed) = change(secret, place) {
                    *secret = changed;
                    has_changed = true;
                }
            });
        };
        for (plugin, paths) in PLUGINS {
            if let Some(conf) = value.pointer_mut(&format!("/plugins/{plugin}")) {
                for path in *paths {
                    let path: Vec<&str> = path.split('.').collect();
                    at(conf, &path, Place::Plugin);
                }
            }
        }
        match collection {
            Some(Collection::Ssls) => {
                at(&mut value, &["key"], Place::PrivateKey);
                at(&mut value, &["keys"], Place::PrivateKey);
            }
            Some(Collection::Upstreams) => {
                at(&mut value, &["tls", "client_key"], Place::PrivateKey);
            }
            Some(Collection::Routes | Collection::Services) => {
                let path = ["upstream", "tls", "client_key"];
                at(&mut value, &path, Place::PrivateKey);
            }
            _ => {}
        }
        match has_changed {
            true => Cow::Owned(value.to_string()),
            false => Cow::Borrowed(text),
        }
    }

    fn encrypted(&self, secret: &str) -> Option<String> {
        let key = self.0.first()?;
        let sealing = PaddedBlockEncryptingKey::cbc_pkcs7(unbound(key)?).ok()?;
        let context = EncryptionContext::Iv128(FixedLength::from(iv(key)?));
        let mut bytes = secret.as_bytes().to_vec();
        sealing.less_safe_encrypt(&mut bytes, context).ok()?;
        Some(STANDARD.encode(bytes))
    }

    fn decrypted(&self, secret: &str) -> Option<String> {
        let bytes = STANDARD.decode(secret).ok()?;
        if bytes.is_empty() || bytes.len() % BLOCK_BYTES != 0 {
            return None;
        }
        self.0.iter().find_map(|key| {
            let opening = PaddedBlockDecryptingKey::cbc_pkcs7(unbound(key)?).ok()?;
            let context = DecryptionContext::Iv128(FixedLength::from(iv(key)?));
            let mut bytes = bytes.clone();
            let opened = opening.decrypt(&mut bytes, context).ok()?;
            String::from_utf8(opened.to_vec()).ok()
        })
    }
}

/// What a secret is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A field of a plugin.
    Plugin,
    /// A private key in PEM, which shows whether it is encrypted.
    PrivateKey,
}

/// What to put in a secret's place, if anything.
type Change<'a> = dyn FnMut(&str, Place) -> Option<String> + 'a;

/// Shows `see` every text at `path` of `value`, in lists at each entry, and all texts of a map it ends at.
fn walk(value: &mut Value, path: &[&str], see: &mut dyn FnMut(&mut String)) {
    match (value, path.split_first()) {
        (Value::Array(list), _) => list.iter_mut().for_each(|one| walk(one, path, see)),
        (Value::String(text), None) => see(text),
        (Value::Object(map), None) => map.values_mut().for_each(|one| walk(one, path, see)),
        (Value::Object(map), Some((first, rest))) => {
            if let Some(member) = map.get_mut(*first) {
                walk(member, rest, see);
            }
        }
        _ => {}
    }
}

fn unbound(key: &[u8]) -> Option<UnboundCipherKey> {
    let algorithm: &'static Algorithm = match key.len() {
        16 => &AES_128,
        _ => &AES_256,
    };
    UnboundCipherKey::new(algorithm, key).ok()
}

fn iv(key: &[u8]) -> Option<[u8; BLOCK_BYTES]> {
    key.get(..BLOCK_BYTES)?.try_into().ok()
}

/// What plugins have to hide: a text, or a map of texts.
const PLUGINS: &[(&str, &[&str])] = &[
    ("ai-aliyun-content-moderation", &["access_key_secret"]),
    (
        "ai-aws-content-moderation",
        &["comprehend.secret_access_key"],
    ),
    (
        "ai-cache",
        &[
            "redis_password",
            "semantic.embedding.openai.api_key",
            "semantic.embedding.azure_openai.api_key",
        ],
    ),
    ("ai-lakera-guard", &["api_key"]),
    ("ai-proxy", AUTH),
    (
        "ai-proxy-multi",
        &[
            "instances.auth.header",
            "instances.auth.query",
            "instances.auth.gcp.service_account_json",
            "instances.auth.aws.secret_access_key",
            "instances.auth.aws.session_token",
            "semantic_opts.embeddings.auth.header",
            "semantic_opts.embeddings.auth.query",
        ],
    ),
    (
        "ai-rag",
        &[
            "embeddings_provider.azure_openai.api_key",
            "vector_search_provider.azure_ai_search.api_key",
        ],
    ),
    ("ai-rate-limiting", REDIS),
    ("basic-auth", &["password"]),
    ("clickhouse-logger", &["password"]),
    ("csrf", &["key"]),
    ("hmac-auth", &["secret_key"]),
    ("http-logger", &["auth_header"]),
    ("jwt-auth", &["secret"]),
    ("key-auth", &["key"]),
    ("limit-conn", REDIS),
    ("limit-count", REDIS),
    ("limit-req", REDIS),
    (
        "openid-connect",
        &["client_secret", "client_rsa_private_key"],
    ),
];
const AUTH: &[&str] = &[
    "auth.header",
    "auth.query",
    "auth.gcp.service_account_json",
    "auth.aws.secret_access_key",
    "auth.aws.session_token",
];
const REDIS: &[&str] = &["redis_password", "sentinel_password"];
const APISIX_KEYS: [&str; 2] = ["qeddd145sfvddff3", "edd1c9f0985e76a2"];
const BLOCK_BYTES: usize = 16;
const PEM: &str = "---";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// By `openssl enc -aes-128-cbc -K $(xxd -p <<< key) -iv (the same)`, with APISIX's first key.
    #[test]
    fn texts_are_as_openssl_has_them() {
        let keyring = Keyring::apisix();
        for (plain, sealed) in [OPENSSL_128, OPENSSL_BLOCK] {
            assert_eq!(keyring.encrypted(plain).as_deref(), Some(sealed));
            assert_eq!(keyring.decrypted(sealed).as_deref(), Some(plain));
        }
        let long = Keyring::new(&["0123456789abcdef0123456789ABCDEF".to_owned()]).expect("a key");
        let (plain, sealed) = OPENSSL_256;
        assert_eq!(long.encrypted(plain).as_deref(), Some(sealed));
        assert_eq!(long.decrypted(sealed).as_deref(), Some(plain));
    }

    #[test]
    fn every_key_opens_and_the_first_seals() {
        let old = Keyring::new(&["aaaaaaaaaaaaaaaa".to_owned()]).expect("a key");
        let both = ["bbbbbbbbbbbbbbbb".to_owned(), "aaaaaaaaaaaaaaaa".to_owned()];
        let both = Keyring::new(&both).expect("keys");
        let sealed = old.encrypted("secret").expect("sealed");
        assert_eq!(both.decrypted(&sealed).as_deref(), Some("secret"));
        let anew = both.encrypted("secret").expect("sealed");
        assert_ne!(anew, sealed);
        assert_eq!(old.decrypted(&anew), None);
        assert!(Keyring::new(&["short".to_owned()]).is_err());
        assert!(!format!("{both:?}").contains('b'), "{both:?}");
    }

    #[test]
    fn secrets_of_resources_are_sealed_and_opened() {
        let keyring = Keyring::apisix();
        let header = json!({"header": {"Authorization": "one", "x": "two"}});
        let pem = "-----BEGIN PRIVATE KEY-----";
        for (key, value, secrets) in [
            (
                "/routes/1",
                json!({"uri": "/a", "plugins": {
                    "ai-proxy": {"auth": header, "provider": "openai"},
                    "ai-proxy-multi": {"instances": [{"auth": header}, {"auth": {"query": {"k": "three"}}}]},
                }}),
                vec!["one", "two", "three"],
            ),
            (
                "/consumers/a/credentials/b",
                json!({"plugins": {"key-auth": {"key": "four"}, "unknown": {"key": "stays"}}}),
                vec!["four"],
            ),
            (
                "/ssls/1",
                json!({"key": pem, "keys": [pem, pem]}),
                vec![pem],
            ),
            (
                "/upstreams/1",
                json!({"tls": {"client_key": pem}}),
                vec![pem],
            ),
            (
                "/services/1",
                json!({"upstream": {"tls": {"client_key": pem}}}),
                vec![pem],
            ),
        ] {
            let text = value.to_string();
            let sealed = keyring.seal(key, &text);
            for secret in secrets {
                let secret = format!("\"{secret}\"");
                assert!(
                    text.contains(&secret) && !sealed.contains(&secret),
                    "{sealed}"
                );
            }
            assert_eq!(keyring.open(key, &sealed), text);
            // What is not encrypted is taken as it is.
            assert_eq!(keyring.open(key, &text), text);
        }
        let without = r#"{"plugins":{"key-auth":{"key":"a"}}}"#;
        assert_eq!(Keyring::default().seal("/consumers/a", without), without);
        assert_eq!(keyring.open("/routes/1", "no JSON: key"), "no JSON: key");
    }

    const OPENSSL_128: (&str, &str) = ("alice-key", "jPgYlBTKQQ+6N4DZGI0o6A==");
    const OPENSSL_BLOCK: (&str, &str) = (
        "sixteen bytes ok",
        "bCNXBPzbrTUi1SCwHcmm1Ks8u4jceEPcAgrQDN2FWYk=",
    );
    const OPENSSL_256: (&str, &str) = ("alice-key", "nmgme3P3nMFlV7uzMfqoMg==");
}
