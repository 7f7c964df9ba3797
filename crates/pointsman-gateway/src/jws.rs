//! Signed tokens (RFC 7515, compact form): reading them, and checking who signed them.
//!
//! The algorithm is always the one that the key is for, never the one that a token asks for
//! (RFC 8725 §3.1): who has a public key could otherwise sign with it as if it were a secret.

use aws_lc_rs::{
    hmac,
    signature::{self, ParsedPublicKey, VerificationAlgorithm},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How a token is signed (RFC 7518 §3.1, RFC 8037).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[allow(missing_docs, reason = "the names are the standard's")]
pub enum Algorithm {
    #[default]
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    ES256,
    ES384,
    ES512,
    PS256,
    PS384,
    PS512,
    EdDSA,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::HS256,
        Self::HS384,
        Self::HS512,
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::ES256,
        Self::ES384,
        Self::ES512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::EdDSA,
    ];

    /// The algorithm of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::ES512 => "ES512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::EdDSA => "EdDSA",
        }
    }

    /// Whether both sides have one secret.
    pub fn is_symmetric(self) -> bool {
        self.of_secret().is_some()
    }

    fn of_secret(self) -> Option<hmac::Algorithm> {
        match self {
            Self::HS256 => Some(hmac::HMAC_SHA256),
            Self::HS384 => Some(hmac::HMAC_SHA384),
            Self::HS512 => Some(hmac::HMAC_SHA512),
            _ => None,
        }
    }

    fn of_public_key(self) -> Option<&'static dyn VerificationAlgorithm> {
        Some(match self {
            Self::HS256 | Self::HS384 | Self::HS512 => return None,
            Self::RS256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::RS384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Self::RS512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Self::ES256 => &signature::ECDSA_P256_SHA256_FIXED,
            Self::ES384 => &signature::ECDSA_P384_SHA384_FIXED,
            Self::ES512 => &signature::ECDSA_P521_SHA512_FIXED,
            Self::PS256 => &signature::RSA_PSS_2048_8192_SHA256,
            Self::PS384 => &signature::RSA_PSS_2048_8192_SHA384,
            Self::PS512 => &signature::RSA_PSS_2048_8192_SHA512,
            Self::EdDSA => &signature::ED25519,
        })
    }
}

/// A token that can be read; nothing says yet that it is genuine.
pub struct Token<'a> {
    /// Its header.
    pub header: Map<String, Value>,
    /// What it claims.
    pub claims: Map<String, Value>,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Token<'a> {
    /// Reads `header.claims.signature`. `None` if it is anything else.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        Some(Self {
            header: object(header)?,
            claims: object(claims)?,
            signed,
            signature: BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?,
        })
    }

    /// The algorithm that its header names.
    pub fn algorithm(&self) -> Option<Algorithm> {
        self.header
            .get("alg")
            .and_then(Value::as_str)
            .and_then(Algorithm::named)
    }

    /// The name of the key that it says it was signed by.
    pub fn key_id(&self) -> Option<&str> {
        self.header.get("kid").and_then(Value::as_str)
    }
}

fn object(part: &str) -> Option<Map<String, Value>> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// By which tokens are checked.
pub struct Key {
    algorithm: Algorithm,
    material: Material,
}

enum Material {
    /// Kept as it is: made ready it takes 1.2 KiB, which many consumers would pay for all the time,
    /// and making it ready takes two blocks of its hash.
    Secret(Box<[u8]>),
    Public(ParsedPublicKey),
}

impl Key {
    /// A secret that both sides have.
    ///
    /// # Errors
    /// The algorithm is one of public keys.
    pub fn secret(algorithm: Algorithm, secret: &[u8]) -> Result<Self, String> {
        if !algorithm.is_symmetric() {
            return Err(format!(
                "{} needs a public key, not a secret",
                algorithm.name()
            ));
        }
        Ok(Self {
            algorithm,
            material: Material::Secret(secret.into()),
        })
    }

    /// A public key in PEM (`BEGIN PUBLIC KEY`).
    ///
    /// # Errors
    /// It is none, or none of the kind that the algorithm needs.
    pub fn public_pem(algorithm: Algorithm, pem: &str) -> Result<Self, String> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).map_err(|error| {
            format!("is no public key in PEM (`-----BEGIN PUBLIC KEY-----`): {error}")
        })?;
        Self::public(algorithm, &der)
    }

    /// A public key as an X.509 SubjectPublicKeyInfo, or as its algorithm has it bare.
    ///
    /// # Errors
    /// As [`Self::public_pem`].
    pub fn public(algorithm: Algorithm, key: &[u8]) -> Result<Self, String> {
        let kind = algorithm
            .of_public_key()
            .ok_or_else(|| format!("{} needs a secret, not a public key", algorithm.name()))?;
        let key = ParsedPublicKey::new(kind, key)
            .map_err(|error| format!("is no key for {}: {error}", algorithm.name()))?;
        Ok(Self {
            algorithm,
            material: Material::Public(key),
        })
    }

    /// What it is for.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether `token` names the algorithm of this key and was signed by it.
    pub fn signed(&self, token: &Token<'_>) -> bool {
        if token.algorithm() != Some(self.algorithm) {
            return false;
        }
        let (text, signature) = (token.signed.as_bytes(), token.signature.as_slice());
        match &self.material {
            Material::Secret(secret) => self.algorithm.of_secret().is_some_and(|kind| {
                hmac::verify(&hmac::Key::new(kind, secret), text, signature).is_ok()
            }),
            Material::Public(key) => key.verify_sig(text, signature).is_ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7515, appendix A.1.
    const HS256: &str = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const HS256_KEY: &str =
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    /// RFC 7515, appendix A.3.1.
    const P256_POINT: (&str, &str) = (
        "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    );
    /// RFC 7515, appendix A.3.
    const ES256: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

    fn bytes(text: &str) -> Vec<u8> {
        BASE64_URL_SAFE_NO_PAD.decode(text).expect("valid")
    }

    #[test]
    fn the_standards_examples_are_genuine() {
        let token = Token::parse(HS256).expect("a token");
        assert_eq!(token.claims["iss"], "joe");
        let key = Key::secret(Algorithm::HS256, &bytes(HS256_KEY)).expect("a key");
        assert!(key.signed(&token));
        let other = Key::secret(Algorithm::HS256, b"other").expect("a key");
        assert!(!other.signed(&token));
        let longer = Key::secret(Algorithm::HS512, &bytes(HS256_KEY)).expect("a key");
        assert!(!longer.signed(&token), "another algorithm than the key's");
        let point = [vec![4], bytes(P256_POINT.0), bytes(P256_POINT.1)].concat();
        let key = Key::public(Algorithm::ES256, &point).expect("a key");
        assert!(key.signed(&Token::parse(ES256).expect("a token")));
        assert!(!key.signed(&token));
        let changed = ES256.replace("eyJpc3MiOiJqb2Ui", "eyJpc3MiOiJlcmUi");
        assert!(!key.signed(&Token::parse(&changed).expect("a token")));
    }

    #[test]
    fn what_is_no_token_is_none() {
        for wrong in [
            "",
            "a",
            "a.b",
            "a.b.c",
            "e30.e30",
            "e30.W10.",
            "W10.e30.",
            "e30.e30.e30.",
            "e30.e30.*",
        ] {
            assert!(Token::parse(wrong).is_none(), "{wrong}");
        }
        let bare = Token::parse("eyJhbGciOiJub25lIn0.e30.").expect("readable");
        assert_eq!(bare.algorithm(), None);
    }

    #[test]
    fn keys_are_for_their_algorithm() {
        assert!(Key::secret(Algorithm::RS256, b"x").is_err());
        assert!(Key::public(Algorithm::HS256, b"x").is_err());
        assert!(Key::public_pem(Algorithm::RS256, "x").is_err());
        assert!(Key::public(Algorithm::ES384, b"x").is_err());
    }
}
