//! `apisix.data_encryption`: what of a resource is encrypted where it is stored.
//!
//! Texts are encrypted as APISIX does it, so that gateways of both kinds read the same store: AES-CBC with
//! PKCS #7 padding, the key being the initialisation vector, too, then Base64. The first key of the ring
//! encrypts, all of them decrypt; what none can decrypt is taken for plain text. Equal texts look equal: this
//! hides secrets from whoever finds a file, and is no replacement for keeping others away from it.
//!
//! Stores do this on the way in and out. In memory, and for everybody who reads a resource, it is plain.

use std::sync::Arc;

use aws_lc_rs::{
    cipher::{
        AES_128, AES_256, DecryptionContext, EncryptionContext, PaddedBlockDecryptingKey,
        PaddedBlockEncryptingKey, UnboundCipherKey,
    },
    iv::{FixedLength, IV_LEN_128_BIT},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

use crate::config::{collection::Collection, settings::DataEncryption};

/// Encrypts and decrypts what is stored. Has no `Debug`, for it holds keys.
#[derive(Default)]
pub struct AtRest {
    /// Encrypts; `None` if nothing is to be encrypted.
    seal: Option<(PaddedBlockEncryptingKey, [u8; IV_LEN_128_BIT])>,
    /// Decrypt, the first that can.
    open: Vec<(PaddedBlockDecryptingKey, [u8; IV_LEN_128_BIT])>,
}

impl AtRest {
    /// With the keys that `settings` name. What was encrypted is decrypted also if nothing is to be encrypted
    /// any more.
    pub fn new(settings: &DataEncryption) -> Self {
        let mut ring = settings.keyring.iter().filter_map(|key| iv_of(key));
        let seal = ring.next().filter(|_| settings.is_enabled);
        let seal = seal.and_then(|(key, iv)| {
            let key = PaddedBlockEncryptingKey::cbc_pkcs7(unbound(key)?);
            Some((key.ok()?, iv))
        });
        let ring = settings.keyring.iter().filter_map(|key| iv_of(key));
        let open = ring.filter_map(|(key, iv)| {
            let key = PaddedBlockDecryptingKey::cbc_pkcs7(unbound(key)?);
            Some((key.ok()?, iv))
        });
        Self {
            seal,
            open: open.collect(),
        }
    }

    /// The resource `text`, which has the key `key`, as it is stored.
    pub fn sealed(&self, key: &str, text: &Arc<str>) -> Arc<str> {
        if self.seal.is_none() {
            return Arc::clone(text);
        }
        changed(key, text, &|place, plain| self.seal(place, plain))
    }

    /// The resource that is stored as `text` under `key`.
    pub fn opened(&self, key: &str, text: &Arc<str>) -> Arc<str> {
        if self.open.is_empty() {
            return Arc::clone(text);
        }
        changed(key, text, &|place, stored| self.open(place, stored))
    }

    /// `value`, a resource of `collection`, as it is stored.
    pub fn shown_sealed(&self, collection: Collection, mut value: Value) -> Value {
        if self.seal.is_some() {
            each(collection, &mut value, &|place, plain| {
                self.seal(place, plain)
            });
        }
        value
    }

    fn seal(&self, place: Place, plain: &str) -> Option<String> {
        let (key, iv) = self.seal.as_ref()?;
        if place == Place::PrivateKey && !is_pem(plain) {
            return None;
        }
        let mut bytes = plain.as_bytes().to_vec();
        let context = EncryptionContext::Iv128(FixedLength::from(*iv));
        key.less_safe_encrypt(&mut bytes, context).ok()?;
        Some(STANDARD.encode(bytes))
    }

    fn open(&self, place: Place, stored: &str) -> Option<String> {
        if place == Place::PrivateKey && is_pem(stored) {
            return None;
        }
        let bytes = STANDARD.decode(stored).ok()?;
        if bytes.is_empty() || bytes.len() % IV_LEN_128_BIT != 0 {
            return None;
        }
        self.open.iter().find_map(|(key, iv)| {
            let mut bytes = bytes.clone();
            let context = DecryptionContext::Iv128(FixedLength::from(*iv));
            let plain = key.decrypt(&mut bytes, context).ok()?;
            // A wrong key may leave what looks like padding, but hardly ever text.
            std::str::from_utf8(plain).ok().map(str::to_owned)
        })
    }
}

/// What kind of text it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The private key of a certificate, which is told by its first line whether it is plain.
    PrivateKey,
    /// A field of a plugin.
    Field,
}

/// What becomes of a text; `None` if it stays.
type Change<'a> = &'a dyn Fn(Place, &str) -> Option<String>;

/// The resource `text` with every text that is to be a secret changed.
fn changed(key: &str, text: &Arc<str>, change: Change<'_>) -> Arc<str> {
    let Some((collection, _)) = Collection::of_key(key) else {
        return Arc::clone(text);
    };
    // Most resources have none, and need not be read for that.
    let may_have = match collection {
        Collection::Ssls => true,
        _ => FIELDS.iter().any(|(plugin, _)| text.contains(plugin)),
    };
    if !may_have {
        return Arc::clone(text);
    }
    let Ok(mut value) = serde_json::from_str(text) else {
        return Arc::clone(text);
    };
    match each(collection, &mut value, change) {
        true => Arc::from(value.to_string()),
        false => Arc::clone(text),
    }
}

/// Changes the texts of `value` that are to be secrets; says whether there was one.
fn each(collection: Collection, value: &mut Value, change: Change<'_>) -> bool {
    if collection == Collection::Ssls {
        let key = visit(value, &["key"], Place::PrivateKey, change);
        return visit(value, &["keys"], Place::PrivateKey, change) | key;
    }
    let Some(plugins) = value.get_mut("plugins").and_then(Value::as_object_mut) else {
        return false;
    };
    let mut has_changed = false;
    for (plugin, fields) in FIELDS {
        if let Some(conf) = plugins.get_mut(*plugin) {
            for field in *fields {
                let path: Vec<&str> = field.split('.').collect();
                has_changed |= visit(conf, &path, Place::Field, change);
            }
        }
    }
    has_changed
}

/// Changes what is at `path` below `value`: a text, the texts of a map or those of a list. A list on the way
/// stands for each of its items.
fn visit(value: &mut Value, path: &[&str], place: Place, change: Change<'_>) -> bool {
    let mut has_changed = false;
    match (value, path) {
        (Value::Array(items), _) => {
            for item in items {
                has_changed |= visit(item, path, place, change);
            }
        }
        (Value::Object(map), [head, rest @ ..]) => {
            if let Some(member) = map.get_mut(*head) {
                has_changed = visit(member, rest, place, change);
            }
        }
        (Value::Object(map), []) => has_changed = members(map, place, change),
        (Value::String(text), []) => {
            if let Some(new) = change(place, text) {
                *text = new;
                has_changed = true;
            }
        }
        _ => {}
    }
    has_changed
}

fn members(map: &mut Map<String, Value>, place: Place, change: Change<'_>) -> bool {
    let mut has_changed = false;
    for member in map.values_mut().filter(|member| member.is_string()) {
        has_changed |= visit(member, &[], place, change);
    }
    has_changed
}

fn is_pem(text: &str) -> bool {
    text.starts_with("---")
}

/// A key and its initialisation vector; `None` if it is none.
fn iv_of(key: &str) -> Option<(&[u8], [u8; IV_LEN_128_BIT])> {
    let key = key.as_bytes();
    let iv = key.first_chunk::<IV_LEN_128_BIT>()?;
    Some((key, *iv))
}

fn unbound(key: &[u8]) -> Option<UnboundCipherKey> {
    let algorithm = match key.len() {
        16 => &AES_128,
        32 => &AES_256,
        _ => return None,
    };
    UnboundCipherKey::new(algorithm, key).ok()
}

/// Why `key` can be none of a ring.
pub fn unusable(key: &str) -> Option<String> {
    let length = key.len();
    (!matches!(length, 16 | 32))
        .then(|| format!("a key must have 16 bytes (AES-128) or 32 (AES-256), not {length}"))
}

/// What APISIX encrypts, by plugin, wherever that stands. In one place, and also for plugins that this gateway
/// may lack: what APISIX has stored must not leave an export in another form.
const FIELDS: &[(&str, &[&str])] = &[
    ("ai-aliyun-content-moderation", &["access_key_secret"]),
    (
        "ai-aws-content-moderation",
        &["comprehend.secret_access_key"],
    ),
    ("ai-lakera-guard", &["api_key"]),
    (
        "ai-proxy",
        &[
            "auth.header",
            "auth.query",
            "auth.gcp.service_account_json",
            "auth.aws.secret_access_key",
            "auth.aws.session_token",
        ],
    ),
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
    ("ai-rate-limiting", &["redis_password", "sentinel_password"]),
    ("basic-auth", &["password"]),
    ("clickhouse-logger", &["password"]),
    ("csrf", &["key"]),
    ("hmac-auth", &["secret_key"]),
    ("http-logger", &["auth_header"]),
    ("jwt-auth", &["secret"]),
    ("key-auth", &["key"]),
    ("openid-connect", &["client_secret"]),
];

#[cfg(test)]
mod tests;
