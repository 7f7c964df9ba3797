//! The keys that an identity provider signs by: a JWK Set (RFC 7517), or one key in PEM.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::Value;

use crate::jws::{Algorithm, Key, Token};

/// All keys of a provider.
pub(super) struct KeySet(Vec<Named>);

struct Named {
    id: Option<Box<str>>,
    key: Key,
}

/// What keys say of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// One of them has signed it.
    Genuine,
    /// The one that it names has not.
    Forged,
    /// The one that signed it is none of them, and may be a newer one.
    Unknown,
}

impl KeySet {
    /// Those of a JWK Set that sign and can be used here. `None` if it is no JWK Set.
    pub(super) fn of_jwks(set: &Value) -> Option<Self> {
        let written = set.get("keys")?.as_array()?;
        let all = written.iter().take(KEYS_MAX).flat_map(keys_of);
        Some(Self(all.collect()))
    }

    /// The public key `pem`, for every algorithm that it can be used with.
    pub(super) fn of_pem(pem: &str) -> Result<Self, String> {
        let mut reason = None;
        let mut keys = Vec::new();
        let all = Algorithm::ALL.into_iter();
        for algorithm in all.filter(|one| !one.is_symmetric()) {
            match Key::public_pem(algorithm, pem) {
                Ok(key) => keys.push(Named { id: None, key }),
                Err(error) => reason = Some(error),
            }
        }
        match reason {
            Some(reason) if keys.is_empty() => Err(reason),
            _ => Ok(Self(keys)),
        }
    }

    /// Whether one of them has signed `token`. A token that names a key is tried by that one and by
    /// those without a name; one that names none, by all of its algorithm.
    pub(super) fn judge(&self, token: &Token<'_>) -> Verdict {
        let named = token.key_id();
        let fits = |key: &&Named| match (named, key.id.as_deref()) {
            (Some(named), Some(id)) => named == id,
            _ => true,
        };
        let mut fitting = self.0.iter().filter(fits);
        if fitting.clone().any(|one| one.key.signed(token)) {
            return Verdict::Genuine;
        }
        let is_there = named.is_some() && fitting.any(|one| one.id.is_some());
        if is_there {
            Verdict::Forged
        } else {
            Verdict::Unknown
        }
    }
}

/// A JWK as keys: one for each algorithm that it may be used with. Secrets are none.
fn keys_of(jwk: &Value) -> Vec<Named> {
    let text = |member: &str| jwk.get(member).and_then(Value::as_str);
    let number = |member: &str| {
        let text = text(member).filter(|text| text.len() <= NUMBER_CHARS_MAX)?;
        // Padding is not allowed, and there are providers that write it.
        let text = text.trim_end_matches('=');
        BASE64_URL_SAFE_NO_PAD.decode(text).ok()
    };
    let point = || Some([vec![UNCOMPRESSED], number("x")?, number("y")?].concat());
    let (material, algorithms): (_, &[Algorithm]) = match (text("kty"), text("crv")) {
        (Some("RSA"), _) => {
            let both = number("n").zip(number("e"));
            (both.and_then(|(n, e)| rsa(&n, &e)), &RSA)
        }
        (Some("EC"), Some("P-256")) => (point(), &[Algorithm::ES256]),
        (Some("EC"), Some("P-384")) => (point(), &[Algorithm::ES384]),
        (Some("EC"), Some("P-521")) => (point(), &[Algorithm::ES512]),
        (Some("OKP"), Some("Ed25519")) => (number("x"), &[Algorithm::EdDSA]),
        _ => (None, &[]),
    };
    let signs = text("use").is_none_or(|purpose| purpose == "sig");
    let Some(material) = material.filter(|_| signs) else {
        return Vec::new();
    };
    let is_its = |algorithm: &Algorithm| text("alg").is_none_or(|name| name == algorithm.name());
    let of = |algorithm: Algorithm| {
        Some(Named {
            id: text("kid").map(Into::into),
            key: Key::public(algorithm, &material).ok()?,
        })
    };
    let algorithms = algorithms.iter().copied();
    algorithms.filter(is_its).filter_map(of).collect()
}

/// An RSA public key as PKCS #1 has it: a sequence of two integers. `None` if it is too short to be
/// safe, or longer than anybody's.
fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<Vec<u8>> {
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    if !RSA_BYTES.contains(&(modulus.len() - zeros)) {
        return None;
    }
    let both = [der_integer(modulus), der_integer(exponent)].concat();
    Some(der(0x30, &both))
}

/// Without leading zeros, but with one if the number would else be negative.
fn der_integer(bytes: &[u8]) -> Vec<u8> {
    let start = bytes.iter().position(|byte| *byte != 0);
    let bytes = &bytes[start.unwrap_or(bytes.len())..];
    match bytes.first() {
        Some(first) if *first < 0x80 => der(0x02, bytes),
        _ => der(0x02, &[&[0], bytes].concat()),
    }
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let start = length.iter().position(|byte| *byte != 0);
    let length = &length[start.unwrap_or(length.len() - 1)..];
    let mut out = vec![tag];
    if content.len() >= 0x80 {
        // `length` is what eight bytes hold, so this fits.
        out.push(0x80 | length.len() as u8);
    }
    out.extend_from_slice(length);
    out.extend_from_slice(content);
    out
}

/// 2,048 to 8,192 bits.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
/// An RSA key may be used with any of them.
const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];
/// A point follows as both of its coordinates (SEC 1 §2.3.3).
const UNCOMPRESSED: u8 = 4;
/// More keys of one provider are not looked at: a token that names none is tried by all.
const KEYS_MAX: usize = 64;
/// 8,192 bits in Base64, and some.
const NUMBER_CHARS_MAX: usize = 1_500;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn integers_are_as_der_has_them() {
        assert_eq!(der_integer(&[1, 0, 1]), [2, 3, 1, 0, 1]);
        assert_eq!(der_integer(&[0, 0, 0x80]), [2, 2, 0, 0x80]);
        assert_eq!(der_integer(&[]), [2, 1, 0]);
        let long = der(0x30, &[7; 300]);
        assert_eq!(&long[..5], [0x30, 0x82, 1, 44, 7]);
        assert_eq!(&der(0x30, &[7; 200])[..4], [0x30, 0x81, 200, 7]);
    }

    /// RFC 7517, appendix A.1, with what must not become a key beside it.
    #[test]
    fn a_set_is_read_as_far_as_it_signs() {
        let ec = json!({"kty": "EC", "crv": "P-256", "kid": "e",
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
            "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"});
        let count = |jwk: &Value| keys_of(jwk).len();
        assert_eq!(count(&ec), 1);
        let with = |member: &str, value: Value| {
            let mut jwk = ec.clone();
            jwk[member] = value;
            jwk
        };
        assert_eq!(count(&with("use", json!("sig"))), 1);
        assert_eq!(count(&with("use", json!("enc"))), 0);
        assert_eq!(count(&with("alg", json!("ES256"))), 1);
        assert_eq!(count(&with("alg", json!("ES384"))), 0);
        assert_eq!(count(&with("alg", json!("none"))), 0);
        assert_eq!(count(&with("crv", json!("P-384"))), 0);
        assert_eq!(count(&with("x", json!("AQAB"))), 0);
        assert_eq!(count(&json!({"kty": "oct", "k": "c2VjcmV0"})), 0);
        assert_eq!(count(&json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"})), 0);
        assert_eq!(count(&json!({"kty": "OKP", "crv": "Ed25519", "x": 1})), 0);
        assert_eq!(count(&json!(null)), 0);
        assert!(KeySet::of_jwks(&json!({"keys": [ec, 1, null]})).is_some());
        assert!(KeySet::of_jwks(&json!({"keys": {}})).is_none());
        assert!(KeySet::of_pem("none").is_err());
    }
}
