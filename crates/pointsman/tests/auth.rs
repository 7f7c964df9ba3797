//! Authentication by tokens and signatures, on the real binary.

#![allow(
    clippy::disallowed_methods,
    reason = "signed requests bear the time of their making"
)]

mod support;

use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use support::{
    Answer, Gateway, Upstream, get, request,
    tokens::{ALGORITHMS, SECRET, Signer, now_s},
};

/// Routes to `upstream` with one plugin each, and further sections.
fn document(upstream: &Upstream, each: &[(&str, Value)], consumers: &Value) -> String {
    let routes: Vec<Value> = each
        .iter()
        .zip(1..)
        .map(|((path, plugins), id)| {
            json!({"id": id, "uri": path, "plugins": plugins,
                "upstream": {"nodes": {upstream.address.to_string(): 1}}})
        })
        .collect();
    // JSON is YAML.
    format!("routes: {}\nconsumers: {consumers}\n", json!(routes))
}

fn named(name: &'static str) -> Upstream {
    Upstream::start(move |_| Answer::text(200, name))
}

/// What `path` answers to a request with these headers: status, body, challenge.
fn ask(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> (u16, String, Option<String>) {
    let answer = get(gateway.proxy, path, headers);
    let challenge = answer.header("www-authenticate").map(str::to_owned);
    (answer.status, answer.text(), challenge)
}

fn refused(message: &str, challenge: &str) -> (u16, String, Option<String>) {
    let body = format!("{{\"message\":\"{message}\"}}\n");
    (401, body, Some(challenge.to_owned()))
}

/// Every algorithm, and no algorithm but the consumer's: G-122.
#[test]
fn tokens_are_checked_by_the_consumers_algorithm() {
    let upstream = named("a");
    let signers: Vec<(&str, Signer)> = ALGORITHMS.map(|name| (name, Signer::new(name))).into();
    let consumers: Vec<Value> = signers
        .iter()
        .map(|(name, signer)| {
            let mut conf = json!({"key": name, "algorithm": name});
            match signer.pem() {
                Some(pem) => conf["public_key"] = pem.into(),
                None => conf["secret"] = SECRET.into(),
            }
            json!({"username": format!("u_{name}"), "plugins": {"jwt-auth": conf}})
        })
        .collect();
    let document = document(
        &upstream,
        &[("/x", json!({"jwt-auth": {}}))],
        &json!(consumers),
    );
    let gateway = Gateway::start(&document);
    let status = |token: &str| ask(&gateway, "/x", &[("Authorization", token)]).0;
    for (name, signer) in &signers {
        let claims = json!({"key": name});
        let token = signer.token(name, &claims);
        assert_eq!(status(&token), 200, "{name}");
        let who = format!("u_{name}");
        assert_eq!(
            upstream.last().header("x-consumer-username"),
            Some(who.as_str())
        );
        let (start, end) = token.rsplit_once('.').expect("three parts");
        let forged = if end.starts_with('A') { 'B' } else { 'A' };
        assert_eq!(
            status(&format!("{start}.{forged}{}", &end[1..])),
            401,
            "{name}"
        );
        for (other, _) in signers.iter().filter(|(other, _)| other != name) {
            assert_eq!(
                status(&signer.token(other, &claims)),
                401,
                "{name} as {other}"
            );
        }
        // Signed as if the public key were a secret.
        if let Some(pem) = signer.pem() {
            let confused =
                Signer::Secret(Box::new(hmac::Key::new(hmac::HMAC_SHA256, pem.as_bytes())));
            assert_eq!(status(&confused.token("HS256", &claims)), 401, "{name}");
            assert_eq!(status(&confused.token(name, &claims)), 401, "{name}");
        }
        let unsigned = Signer::Secret(Box::new(hmac::Key::new(hmac::HMAC_SHA256, b"")));
        let none = unsigned.token("none", &claims);
        let (none, _) = none.rsplit_once('.').expect("three parts");
        assert_eq!(status(&format!("{none}.")), 401, "{name}");
    }
}

/// Consumers with tokens, and one who stands for everybody.
fn token_consumers() -> Value {
    json!([
        {"username": "alice", "plugins": {"jwt-auth": {"key": "ka", "secret": SECRET}}},
        {"username": "late", "plugins": {"jwt-auth":
            {"key": "kl", "secret": SECRET, "lifetime_grace_period": 3600}}},
        {"username": "coded", "plugins": {"jwt-auth":
            {"key": "kc", "secret": BASE64_STANDARD.encode(SECRET), "base64_secret": true}}},
        {"username": "nobody"},
    ])
}

/// G-118, G-123
#[test]
fn what_is_wrong_with_a_token_is_told() {
    let upstream = named("a");
    let each = [
        ("/x", json!({"jwt-auth": {}})),
        (
            "/sub",
            json!({"jwt-auth": {"key_claim_name": "sub", "realm": "r"}}),
        ),
        (
            "/open",
            json!({"jwt-auth": {"anonymous_consumer": "nobody"}}),
        ),
    ];
    let gateway = Gateway::start(&document(&upstream, &each, &token_consumers()));
    let signer = Signer::new("HS256");
    let with = |path: &str, token: &str| ask(&gateway, path, &[("Authorization", token)]);
    let no = |message: &str| refused(message, "Bearer realm=\"jwt\"");
    let good = signer.token("HS256", &json!({"key": "ka"}));
    let other = signer.token("HS256", &json!({"sub": "ka"}));
    let unknown = signer.token("HS256", &json!({"key": "none"}));
    let forger = Signer::Secret(Box::new(hmac::Key::new(hmac::HMAC_SHA256, b"other")));
    let forged = forger.token("HS256", &json!({"key": "ka"}));
    assert_eq!(ask(&gateway, "/x", &[]), no("Missing JWT token in request"));
    assert_eq!(with("/x", "garbage"), no("JWT token invalid"));
    assert_eq!(with("/x", &other), no("missing user key in JWT token"));
    assert_eq!(with("/x", &unknown), no("Invalid user key in JWT token"));
    assert_eq!(with("/x", &forged), no("failed to verify jwt"));
    assert_eq!(with("/x", &good).0, 200);
    let elsewhere = refused("missing user key in JWT token", "Bearer realm=\"r\"");
    assert_eq!(with("/sub", &good), elsewhere);
    assert_eq!(with("/sub", &other).0, 200);
    assert_eq!(with("/open", &forged).0, 200);
    assert_eq!(
        upstream.last().header("x-consumer-username"),
        Some("nobody")
    );
}

/// G-119, G-120
#[test]
fn tokens_are_good_for_their_time() {
    let upstream = named("a");
    let each = [
        ("/x", json!({"jwt-auth": {}})),
        ("/exp", json!({"jwt-auth": {"claims_to_verify": ["exp"]}})),
    ];
    let gateway = Gateway::start(&document(&upstream, &each, &token_consumers()));
    let status = |path: &str, claims: Value| {
        let token = Signer::new("HS256").token("HS256", &claims);
        ask(&gateway, path, &[("Authorization", &token)]).0
    };
    assert_eq!(status("/x", json!({"key": "ka", "exp": now_s() - 10})), 401);
    assert_eq!(
        status("/x", json!({"key": "ka", "nbf": now_s() + 1000})),
        401
    );
    assert_eq!(status("/x", json!({"key": "kl", "exp": now_s() - 10})), 200);
    assert_eq!(status("/x", json!({"key": "kc"})), 200);
    assert_eq!(status("/exp", json!({"key": "ka"})), 401);
    assert_eq!(
        status("/exp", json!({"key": "ka", "exp": now_s() + 1000})),
        200
    );
}

/// G-121, and what is hidden from the target and from logs.
#[test]
fn tokens_are_found_and_hidden() {
    let upstream = named("a");
    let hidden = json!({"jwt-auth": {"hide_credentials": true, "query": "tok", "cookie": "tok"}});
    let each = [("/x", json!({"jwt-auth": {}})), ("/hidden", hidden)];
    let gateway = Gateway::start(&document(&upstream, &each, &token_consumers()));
    let good = Signer::new("HS256").token("HS256", &json!({"key": "ka"}));
    for bare in [
        good.clone(),
        format!("Bearer {good}"),
        format!("bearer {good}"),
    ] {
        assert_eq!(ask(&gateway, "/x", &[("Authorization", &bare)]).0, 200);
    }
    assert_eq!(ask(&gateway, &format!("/x?jwt={good}"), &[]).0, 200);
    let cookie = format!("a=b; jwt={good}");
    assert_eq!(ask(&gateway, "/x", &[("Cookie", &cookie)]).0, 200);
    let cookie = format!("a=b; tok={good}; c=d");
    let headers = [
        ("Authorization", good.as_str()),
        ("Cookie", cookie.as_str()),
    ];
    assert_eq!(
        ask(&gateway, &format!("/hidden?x=1&tok={good}"), &headers).0,
        200
    );
    let sent = upstream.last();
    assert_eq!(sent.header("authorization"), None);
    assert_eq!(sent.header("cookie"), Some("a=b; c=d"));
    assert_eq!(sent.target, "/hidden?x=1");
    let log = gateway.access_log(6);
    assert!(
        !json!(log).to_string().contains(&good),
        "a token in the access log"
    );
}

/// G-114
#[test]
fn who_stands_for_everybody_must_be_there() {
    let upstream = named("a");
    let each = [("/x", json!({"key-auth": {"anonymous_consumer": "gone"}}))];
    let gateway = Gateway::start(&document(&upstream, &each, &json!([])));
    let no = refused("Invalid user authorization", "apikey realm=\"key\"");
    assert_eq!(ask(&gateway, "/x", &[]), no);
}

/// A secret that refers to something that is not there must not work as it is written.
#[test]
fn references_that_lead_nowhere_are_no_secrets() {
    let upstream = named("a");
    let consumers = json!([
        {"username": "alice", "plugins": {
            "jwt-auth": {"key": "ka", "secret": "$env://NOT_THERE"},
            "basic-auth": {"username": "alice", "password": "$env://NOT_THERE"}}},
    ]);
    let each = [
        ("/jwt", json!({"jwt-auth": {}})),
        ("/basic", json!({"basic-auth": {}})),
    ];
    let gateway = Gateway::start(&document(&upstream, &each, &consumers));
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"$env://NOT_THERE");
    let token = Signer::Secret(Box::new(key)).token("HS256", &json!({"key": "ka"}));
    assert_eq!(ask(&gateway, "/jwt", &[("Authorization", &token)]).0, 401);
    let basic = format!("Basic {}", BASE64_STANDARD.encode("alice:$env://NOT_THERE"));
    assert_eq!(ask(&gateway, "/basic", &[("Authorization", &basic)]).0, 401);
    assert!(gateway.stderr().contains("this secret does not work"));
    assert!(gateway.stderr().contains("this password does not work"));
}

/// A gateway with `hmac-auth`, and what signs and sends.
struct Signed {
    gateway: Gateway,
    upstream: Upstream,
    date: String,
}

impl Signed {
    fn start() -> Self {
        let upstream = named("a");
        let consumers = json!([
            {"username": "alice", "plugins": {"hmac-auth": {"key_id": "ka", "secret_key": SECRET}}},
            {"username": "nobody"},
        ]);
        let body = json!({"validate_request_body": true, "hide_credentials": true});
        let each = [
            ("/x", json!({"hmac-auth": {}})),
            (
                "/listed",
                json!({"hmac-auth": {"signed_headers": ["date", "x-a"]}}),
            ),
            (
                "/sha512",
                json!({"hmac-auth": {"allowed_algorithms": ["hmac-sha512"]}}),
            ),
            ("/body", json!({"hmac-auth": body})),
            (
                "/open",
                json!({"hmac-auth": {"anonymous_consumer": "nobody"}}),
            ),
        ];
        Self {
            gateway: Gateway::start(&document(&upstream, &each, &consumers)),
            upstream,
            date: httpdate::fmt_http_date(SystemTime::now()),
        }
    }

    /// `Authorization` for the lines that are signed.
    fn line(algorithm: &str, key: &str, listed: &str, signed: &str) -> String {
        let kind = match algorithm {
            "hmac-sha1" => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            "hmac-sha256" => hmac::HMAC_SHA256,
            _ => hmac::HMAC_SHA512,
        };
        let tag = hmac::sign(&hmac::Key::new(kind, SECRET.as_bytes()), signed.as_bytes());
        let tag = BASE64_STANDARD.encode(tag.as_ref());
        format!(
            "Signature keyId=\"{key}\",algorithm=\"{algorithm}\",headers=\"{listed}\",\
             signature=\"{tag}\""
        )
    }

    /// The lines of a request to `target` with the usual headers.
    fn usual(target: &str, date: &str) -> String {
        format!("ka\nPOST {target}\ndate: {date}\n")
    }

    fn send(
        &self,
        path: &str,
        line: &str,
        date: &str,
        body: &str,
    ) -> (u16, String, Option<String>) {
        let digest = format!("SHA-256={}", BASE64_STANDARD.encode(sha256(b"{\"a\":1}")));
        let headers = [
            ("Authorization", line),
            ("Date", date),
            ("X-A", "b"),
            ("Digest", &digest),
        ];
        let answer = request(self.gateway.proxy, "POST", path, &headers, body);
        let challenge = answer.header("www-authenticate").map(str::to_owned);
        (answer.status, answer.text(), challenge)
    }
}

/// `hmac-auth`, as APISIX documents it.
#[test]
fn signatures_say_who_and_when() {
    let signed = Signed::start();
    let date = signed.date.as_str();
    let no = refused("client request can't be validated", "hmac realm=\"hmac\"");
    let usual = "@request-target date";
    for algorithm in ["hmac-sha1", "hmac-sha256", "hmac-sha512"] {
        let good = Signed::line(algorithm, "ka", usual, &Signed::usual("/x?q=1", date));
        assert_eq!(signed.send("/x?q=1", &good, date, "").0, 200, "{algorithm}");
        assert_eq!(signed.send("/x?q=2", &good, date, ""), no, "{algorithm}");
    }
    let sent = signed.upstream.last();
    assert_eq!(sent.header("x-consumer-username"), Some("alice"));
    let other = Signed::line("hmac-sha256", "kb", usual, &Signed::usual("/x", date));
    assert_eq!(signed.send("/x", &other, date, ""), no);
    assert_eq!(get(signed.gateway.proxy, "/x", &[]).status, 401);
    let old = httpdate::fmt_http_date(SystemTime::now() - Duration::from_secs(400));
    let aged = Signed::line("hmac-sha256", "ka", usual, &Signed::usual("/x", &old));
    assert_eq!(signed.send("/x", &aged, &old, ""), no);
    assert_eq!(signed.send("/open", &aged, &old, "").0, 200);
    let sent = signed.upstream.last();
    assert_eq!(sent.header("x-consumer-username"), Some("nobody"));
}

#[test]
fn signatures_cover_what_they_must() {
    let signed = Signed::start();
    let date = signed.date.as_str();
    let no = refused("client request can't be validated", "hmac realm=\"hmac\"");
    let usual = "@request-target date";
    let line = |listed: &str, text: &str| Signed::line("hmac-sha256", "ka", listed, text);
    let short = line(usual, &Signed::usual("/listed", date));
    assert_eq!(signed.send("/listed", &short, date, ""), no);
    let whole = format!("{}x-a: b\n", Signed::usual("/listed", date));
    let listed = line("@request-target date x-a", &whole);
    assert_eq!(signed.send("/listed", &listed, date, "").0, 200);
    let weak = line(usual, &Signed::usual("/sha512", date));
    assert_eq!(signed.send("/sha512", &weak, date, ""), no);
    let body = line(usual, &Signed::usual("/body", date));
    assert_eq!(signed.send("/body", &body, date, "{\"a\":1}").0, 200);
    let sent = signed.upstream.last();
    assert_eq!(
        (sent.text().as_str(), sent.header("authorization")),
        ("{\"a\":1}", None)
    );
    assert_eq!(signed.send("/body", &body, date, "{\"a\":2}"), no);
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes)
        .as_ref()
        .to_vec()
}

/// `multi-auth`: one way is enough, and nonsense is told with its place.
#[test]
fn any_of_several_ways_is_enough() {
    let upstream = named("a");
    let consumers = json!([
        {"username": "alice", "plugins": {"key-auth": {"key": "ka"}}},
        {"username": "bob", "plugins": {"basic-auth": {"username": "bob", "password": "p"}}},
    ]);
    let ways = json!([{"basic-auth": {}}, {"key-auth": {"header": "x-key"}}, {"jwt-auth": {}}]);
    let wrong =
        json!({"multi-auth": {"auth_plugins": [{"key-auth": {"header": 1}}, {"cors": {}}]}});
    let each = [
        ("/x", json!({"multi-auth": {"auth_plugins": ways}})),
        ("/wrong", wrong),
    ];
    let gateway = Gateway::start(&document(&upstream, &each, &consumers));
    assert_eq!(ask(&gateway, "/x", &[("x-key", "ka")]).0, 200);
    assert_eq!(upstream.last().header("x-consumer-username"), Some("alice"));
    assert_eq!(
        ask(&gateway, "/x", &[("Authorization", "Basic Ym9iOnA=")]).0,
        200
    );
    assert_eq!(upstream.last().header("x-consumer-username"), Some("bob"));
    let refusal = ask(&gateway, "/x", &[("x-key", "no")]);
    assert_eq!(
        (refusal.0, refusal.1.as_str()),
        (401, "{\"message\":\"Authorization Failed\"}\n")
    );
    assert_eq!(ask(&gateway, "/wrong", &[("apikey", "ka")]).0, 404);
    gateway.wait_for_line("auth_plugins[1].cors");
}
