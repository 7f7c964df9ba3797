//! Signing requests for AWS (Signature Version 4).

use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest, Sha256};

/// Keys of AWS. `Debug` shows none of them.
#[derive(Clone)]
pub struct AwsKeys {
    /// Names the key.
    pub access_key_id: String,
    /// The key.
    pub secret_access_key: String,
    /// Of temporary keys.
    pub session_token: Option<String>,
}

impl std::fmt::Debug for AwsKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AwsKeys(..)")
    }
}

/// What of a request is signed.
#[derive(Clone, Copy, Debug)]
pub struct Unsigned<'r> {
    /// Method.
    pub method: &'r str,
    /// `Host`, as it is sent.
    pub host: &'r str,
    /// Path, as [`wire_path`] has it.
    pub path: &'r str,
    /// Query, decoded, in any order.
    pub query: &'r [(String, String)],
    /// The body, in pieces.
    pub body: &'r [bytes::Bytes],
    /// Such as `us-east-1`.
    pub region: &'r str,
    /// Such as `bedrock`.
    pub service: &'r str,
    /// `x-amz-target`, if it is sent.
    pub target: Option<&'r str>,
    /// Seconds since 1970.
    pub now: u64,
}

/// Headers to add, over whatever stands under their names.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature {
    /// `authorization`.
    pub authorization: String,
    /// `x-amz-date`.
    pub date: String,
}

/// Signs `host` and `x-amz-date`, and where they are there `x-amz-security-token` of temporary keys and
/// `x-amz-target` (which are to be sent along).
pub fn sign(request: &Unsigned<'_>, keys: &AwsKeys) -> Signature {
    let date = timestamp(request.now);
    let day = &date[..8];
    let scope = format!("{day}/{}/{}/aws4_request", request.region, request.service);
    let mut headers = format!("host:{}\nx-amz-date:{date}\n", request.host.trim());
    let mut signed = "host;x-amz-date".to_owned();
    if let Some(token) = &keys.session_token {
        headers.push_str(&format!("x-amz-security-token:{}\n", token.trim()));
        signed.push_str(";x-amz-security-token");
    }
    if let Some(target) = request.target {
        headers.push_str(&format!("x-amz-target:{}\n", target.trim()));
        signed.push_str(";x-amz-target");
    }
    let canonical = format!(
        "{}\n{}\n{}\n{headers}\n{signed}\n{}",
        request.method,
        encode_segments(request.path),
        canonical_query(request.query),
        hex(&hash_of(request.body)),
    );
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n{date}\n{scope}\n{}",
        hex(&Sha256::digest(canonical.as_bytes()))
    );
    let secret = format!("AWS4{}", keys.secret_access_key);
    let mut key = secret.into_bytes();
    for part in [day, request.region, request.service, "aws4_request"] {
        key = mac(&key, part.as_bytes());
    }
    let signature = hex(&mac(&key, to_sign.as_bytes()));
    Signature {
        authorization: format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={signed}, Signature={signature}",
            keys.access_key_id
        ),
        date,
    }
}

/// `path` with each of its segments encoded exactly once, whether it was before or not.
pub fn wire_path(path: &str) -> String {
    let segments = path.split('/').map(|segment| {
        let decoded = percent_decode_str(segment).decode_utf8_lossy();
        utf8_percent_encode(&decoded, KEPT).to_string()
    });
    segments.collect::<Vec<_>>().join("/")
}

/// AWS signs paths with their segments encoded once more than they are sent (all but S3).
fn encode_segments(path: &str) -> String {
    let segments = path
        .split('/')
        .map(|segment| utf8_percent_encode(segment, KEPT).to_string());
    segments.collect::<Vec<_>>().join("/")
}

fn canonical_query(query: &[(String, String)]) -> String {
    let mut pairs: Vec<(String, String)> = query
        .iter()
        .map(|(key, value)| {
            let encode = |text: &str| utf8_percent_encode(text, KEPT).to_string();
            (encode(key), encode(value))
        })
        .collect();
    pairs.sort();
    let pairs = pairs
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"));
    pairs.collect::<Vec<_>>().join("&")
}

fn hash_of(pieces: &[bytes::Bytes]) -> Vec<u8> {
    let mut hash = Sha256::new();
    for piece in pieces {
        hash.update(piece);
    }
    hash.finalize().to_vec()
}

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    // A key of any length will do, so there is no error to speak of.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        return Vec::new();
    };
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `20150830T123600Z`.
fn timestamp(unix: u64) -> String {
    let (days, second) = (unix / 86_400, unix % 86_400);
    let (year, month, day) = date_of(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// Year, month and day of a day since 1970, in the Gregorian calendar. Counts from 1 March of the year
/// 0, so that leap days come last in their years.
fn date_of(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// What RFC 3986 calls unreserved.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> AwsKeys {
        AwsKeys {
            access_key_id: "AKIDEXAMPLE".into(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
            session_token: None,
        }
    }

    /// `get-vanilla` of AWS's test suite.
    #[test]
    fn the_suites_plainest_request() {
        let request = Unsigned {
            method: "GET",
            host: "example.amazonaws.com",
            path: "/",
            query: &[],
            body: &[],
            region: "us-east-1",
            service: "service",
            target: None,
            now: 1_440_938_160,
        };
        let signed = sign(&request, &keys());
        assert_eq!(signed.date, "20150830T123600Z");
        assert_eq!(
            signed.authorization,
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, \
             Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
        );
    }

    #[test]
    fn paths_are_encoded_once_on_the_wire_and_twice_when_signed() {
        let raw = "/model/anthropic.claude:0/converse";
        let encoded = "/model/anthropic.claude%3A0/converse";
        assert_eq!(wire_path(raw), encoded);
        assert_eq!(wire_path(encoded), encoded);
        assert_eq!(
            encode_segments(encoded),
            "/model/anthropic.claude%253A0/converse"
        );
        assert_eq!(wire_path("//a b/"), "//a%20b/");
    }

    #[test]
    fn dates() {
        for (unix, expected) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (1_709_251_199, "20240229T235959Z"),
            (1_798_761_600, "20270101T000000Z"),
        ] {
            assert_eq!(timestamp(unix), expected);
        }
    }

    #[test]
    fn what_is_signed_changes_the_signature() {
        let query = [
            ("b".to_owned(), "1".to_owned()),
            ("a".to_owned(), "x y".to_owned()),
        ];
        let body = [bytes::Bytes::from_static(b"{}")];
        let request = Unsigned {
            method: "POST",
            host: "h",
            path: "/p",
            query: &query,
            body: &body,
            region: "r",
            service: "bedrock",
            target: None,
            now: 1,
        };
        let plain = sign(&request, &keys()).authorization;
        let mut temporary = keys();
        temporary.session_token = Some("t".into());
        let signed = sign(&request, &temporary).authorization;
        assert!(signed.contains("SignedHeaders=host;x-amz-date;x-amz-security-token"));
        assert_eq!(canonical_query(&query), "a=x%20y&b=1");
        for other in [
            Unsigned {
                body: &[],
                ..request
            },
            Unsigned {
                path: "/q",
                ..request
            },
            Unsigned {
                query: &[],
                ..request
            },
            Unsigned {
                host: "i",
                ..request
            },
        ] {
            assert_ne!(sign(&other, &keys()).authorization, plain);
        }
    }
}
