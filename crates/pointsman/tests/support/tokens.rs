//! Signed tokens, and the keys that they are signed by.

use std::time::SystemTime;

use aws_lc_rs::{
    encoding::{AsDer as _, PublicKeyX509Der},
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair},
};
use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

/// Signs tokens as their issuer does.
pub(crate) enum Signer {
    Secret(Box<hmac::Key>),
    Rsa(RsaKeyPair, &'static dyn signature::RsaEncoding),
    Ecdsa(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Signer {
    pub(crate) fn new(algorithm: &str) -> Self {
        let hs = |kind| Self::Secret(Box::new(hmac::Key::new(kind, SECRET.as_bytes())));
        let rsa = |encoding| {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
            Self::Rsa(pair, encoding)
        };
        let ec = |kind| Self::Ecdsa(EcdsaKeyPair::generate(kind).expect("a key"));
        match algorithm {
            "HS256" => hs(hmac::HMAC_SHA256),
            "HS384" => hs(hmac::HMAC_SHA384),
            "HS512" => hs(hmac::HMAC_SHA512),
            "RS256" => rsa(&signature::RSA_PKCS1_SHA256),
            "RS384" => rsa(&signature::RSA_PKCS1_SHA384),
            "RS512" => rsa(&signature::RSA_PKCS1_SHA512),
            "PS256" => rsa(&signature::RSA_PSS_SHA256),
            "PS384" => rsa(&signature::RSA_PSS_SHA384),
            "PS512" => rsa(&signature::RSA_PSS_SHA512),
            "ES256" => ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
            "ES384" => ec(&signature::ECDSA_P384_SHA384_FIXED_SIGNING),
            "ES512" => ec(&signature::ECDSA_P521_SHA512_FIXED_SIGNING),
            _ => Self::Ed(Ed25519KeyPair::generate().expect("a key")),
        }
    }

    /// The public key in PEM.
    pub(crate) fn pem(&self) -> Option<String> {
        let der: PublicKeyX509Der<'_> = match self {
            Self::Secret(_) => return None,
            Self::Rsa(pair, _) => pair.public_key().as_der(),
            Self::Ecdsa(pair) => pair.public_key().as_der(),
            Self::Ed(pair) => pair.public_key().as_der(),
        }
        .expect("encoded");
        let text = BASE64_STANDARD.encode(der.as_ref());
        let lines: Vec<&str> = text
            .as_bytes()
            .chunks(64)
            .map(|line| str::from_utf8(line).expect("ASCII"))
            .collect();
        Some(format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            lines.join("\n")
        ))
    }

    pub(crate) fn sign(&self, text: &str) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Secret(key) => hmac::sign(key, text.as_bytes()).as_ref().to_vec(),
            Self::Rsa(pair, encoding) => {
                let mut bytes = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &random, text.as_bytes(), &mut bytes)
                    .expect("signed");
                bytes
            }
            Self::Ecdsa(pair) => pair
                .sign(&random, text.as_bytes())
                .expect("signed")
                .as_ref()
                .to_vec(),
            Self::Ed(pair) => pair.sign(text.as_bytes()).as_ref().to_vec(),
        }
    }

    pub(crate) fn token(&self, algorithm: &str, claims: &Value) -> String {
        self.token_with(&json!({"alg": algorithm, "typ": "JWT"}), claims)
    }

    pub(crate) fn token_with(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        format!(
            "{signed}.{}",
            BASE64_URL_SAFE_NO_PAD.encode(self.sign(&signed))
        )
    }

    /// The public key as a JWK without `kid` and `alg`.
    pub(crate) fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Secret(_) => json!({"kty": "oct", "k": text(SECRET.as_bytes())}),
            Self::Rsa(pair, _) => {
                let der = pair.public_key().as_ref();
                let (sequence, _) = der_content(der);
                let (modulus, rest) = der_content(sequence);
                let (exponent, _) = der_content(rest);
                // A leading zero is a matter of DER.
                let modulus = modulus.strip_prefix(&[0]).unwrap_or(modulus);
                json!({"kty": "RSA", "n": text(modulus), "e": text(exponent)})
            }
            Self::Ecdsa(pair) => {
                let (x, y) = {
                    let point = &pair.public_key().as_ref()[1..];
                    point.split_at(point.len() / 2)
                };
                let curve = match x.len() {
                    32 => "P-256",
                    48 => "P-384",
                    _ => "P-521",
                };
                json!({"kty": "EC", "crv": curve, "x": text(x), "y": text(y)})
            }
            Self::Ed(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": text(pair.public_key().as_ref())})
            }
        }
    }
}

/// What the first value in `der` holds, and what follows it.
fn der_content(der: &[u8]) -> (&[u8], &[u8]) {
    let (start, length) = match usize::from(der[1]) {
        short @ ..0x80 => (2, short),
        long => {
            let count = long - 0x80;
            let bytes = der[2..2 + count].iter();
            let length = bytes.fold(0, |all, byte| all << 8 | usize::from(*byte));
            (2 + count, length)
        }
    };
    (&der[start..start + length], &der[start + length..])
}

pub(crate) fn now_s() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.expect("after 1970").as_secs()
}

pub(crate) const SECRET: &str = "a secret that is long enough";
pub(crate) const ALGORITHMS: [&str; 13] = [
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256",
    "ES384", "ES512", "EdDSA",
];
