//! `openid-connect` with tokens that requests bring, on the real binary, before an identity provider
//! that does as it is told.

#![allow(
    clippy::disallowed_methods,
    reason = "how often something may happen depends on how long the test takes"
)]

#[path = "oidc/asked.rs"]
mod asked;
mod support;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use aws_lc_rs::hmac;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use support::{
    Answer, Gateway, Received, Response, SecureUpstream, Start, Upstream,
    client::Connection,
    get, run,
    tokens::{ALGORITHMS, Signer, now_s},
    wait_until, write_config, write_document,
};

/// An identity provider.
struct Provider {
    server: Upstream,
    says: Arc<Mutex<Says>>,
}

/// What it answers.
#[derive(Clone)]
struct Says {
    issuer: &'static str,
    keys: Answer,
    discovery: Option<Answer>,
    /// To questions about a token, as they were received.
    introspection: fn(&Received) -> Answer,
}

impl Provider {
    /// One with these keys, by their names.
    fn start(keys: &[(&str, &Signer)]) -> Self {
        let says = Arc::new(Mutex::new(Says {
            issuer: ISSUER,
            keys: jwks(keys),
            discovery: None,
            introspection: |_| Answer::json(r#"{"active":false}"#),
        }));
        let theirs = Arc::clone(&says);
        let server = Upstream::start(move |received| {
            let says = theirs.lock().expect("not poisoned").clone();
            match received.target.as_str() {
                DISCOVERY => says.discovery.unwrap_or_else(|| {
                    let host = received.header("host").expect("a host");
                    Answer::json(
                        &json!({"issuer": says.issuer, "jwks_uri": format!("http://{host}/jwks"),
                            "introspection_endpoint": format!("http://{host}/introspect")})
                        .to_string(),
                    )
                }),
                "/jwks" => says.keys,
                "/introspect" => (says.introspection)(received),
                _ => Answer::text(404, ""),
            }
        });
        Self { server, says }
    }

    fn set(&self, change: impl FnOnce(&mut Says)) {
        change(&mut self.says.lock().expect("not poisoned"));
    }

    /// How often `target` was asked for.
    fn asked(&self, target: &str) -> usize {
        let requests = self.server.requests();
        requests.iter().filter(|one| one.target == target).count()
    }

    fn last(&self, target: &str) -> Received {
        let mut requests = self.server.requests().into_iter();
        requests.rfind(|one| one.target == target).expect("asked")
    }

    /// `openid-connect` before it, with `more`.
    fn plugin(&self, more: Value) -> Value {
        let discovery = format!("http://{}{DISCOVERY}", self.server.address);
        let mut conf = json!({"client_id": "me", "client_secret": CLIENT_SECRET,
            "discovery": discovery, "bearer_only": true});
        let more = more.as_object().expect("an object").clone();
        conf.as_object_mut().expect("an object").extend(more);
        json!({"openid-connect": conf})
    }
}

fn jwks(keys: &[(&str, &Signer)]) -> Answer {
    let keys: Vec<Value> = keys
        .iter()
        .map(|(id, signer)| {
            let mut jwk = signer.jwk();
            jwk["kid"] = json!(id);
            jwk
        })
        .collect();
    Answer::json(&json!({ "keys": keys }).to_string())
}

/// A token of `signer`, its key called `id`, good for an hour, with `more` claims.
fn token(signer: &Signer, algorithm: &str, id: &str, more: Value) -> String {
    let mut claims = json!({"iss": ISSUER, "sub": "alice", "exp": now_s() + 3600});
    let more = more.as_object().expect("an object").clone();
    claims.as_object_mut().expect("an object").extend(more);
    signer.token_with(&json!({"alg": algorithm, "kid": id}), &claims)
}

/// Routes to `upstream` with one plugin configuration each.
fn document(upstream: &Upstream, each: &[(&str, Value)]) -> String {
    let routes: Vec<Value> = each
        .iter()
        .zip(1..)
        .map(|((path, plugins), id)| {
            json!({"id": id, "uri": path, "plugins": plugins,
                "upstream": {"nodes": {upstream.address.to_string(): 1}}})
        })
        .collect();
    // JSON is YAML.
    format!("routes: {}\n", json!(routes))
}

fn target() -> Upstream {
    Upstream::start(|_| Answer::text(200, "served"))
}

fn bearer(gateway: &Gateway, path: &str, token: &str) -> Response {
    let line = format!("Bearer {token}");
    get(gateway.proxy, path, &[("Authorization", &line)])
}

fn status(gateway: &Gateway, path: &str, token: &str) -> u16 {
    bearer(gateway, path, token).status
}

/// 401, and what its challenge says beside the realm.
fn refusal(response: &Response) -> String {
    assert_eq!(response.status, 401);
    let challenge = response.header("www-authenticate").expect("a challenge");
    let rest = challenge.strip_prefix("Bearer realm=\"apisix\"");
    rest.expect("the realm").to_owned()
}

fn invalid(description: &str) -> String {
    format!(", error=\"invalid_token\", error_description=\"{description}\"")
}

fn userinfo(received: &Received) -> Value {
    let text = received.header("x-userinfo").expect("told");
    serde_json::from_slice(&BASE64_STANDARD.decode(text).expect("Base64")).expect("JSON")
}

/// G-125, G-129, G-130
#[test]
fn a_token_signed_by_the_providers_key_lets_in() {
    let (upstream, signer) = (target(), Signer::new("RS256"));
    let provider = Provider::start(&[("one", &signer)]);
    let jwks = json!({"use_jwks": true});
    let in_authorization = json!({"use_jwks": true, "set_userinfo_header": false,
        "access_token_in_authorization_header": true});
    let quiet = json!({"use_jwks": true, "set_access_token_header": false});
    let each = [
        ("/x", provider.plugin(jwks)),
        ("/in", provider.plugin(in_authorization)),
        ("/quiet", provider.plugin(quiet)),
    ];
    let gateway = Gateway::start(&document(&upstream, &each));
    let good = token(&signer, "RS256", "one", json!({"n": 1}));

    assert_eq!(refusal(&get(gateway.proxy, "/x", &[])), "");
    let other = get(gateway.proxy, "/x", &[("Authorization", "Basic YTpi")]);
    assert_eq!(refusal(&other), "");
    let one_word = get(gateway.proxy, "/x", &[("Authorization", "abc")]);
    assert_eq!(one_word.status, 400);
    assert_eq!(one_word.header("www-authenticate"), None);
    let invalid_jwt = invalid("it is no JWT");
    assert_eq!(refusal(&bearer(&gateway, "/x", "abc")), invalid_jwt);
    assert_eq!(provider.server.hits(), 0, "nobody is asked for nothing");
    assert_eq!(upstream.hits(), 0);

    let line = format!("bEaReR {good}");
    let forged = [
        ("X-Userinfo", "forged"),
        ("X-ID-Token", "forged"),
        ("X-Refresh-Token", "forged"),
        ("X-Raw-ID-Token", "forged"),
        ("X-Access-Token", "forged"),
        ("Authorization", line.as_str()),
    ];
    assert_eq!(get(gateway.proxy, "/x", &forged).status, 200);
    let sent = upstream.last();
    assert_eq!(userinfo(&sent)["sub"], "alice");
    assert_eq!(userinfo(&sent)["n"], 1);
    assert_eq!(sent.header("x-access-token"), Some(good.as_str()));
    assert_eq!(sent.header("authorization"), Some(line.as_str()));
    let told = sent.headers.iter().any(|(_, value)| value == "forged");
    assert!(!told, "{:?}", sent.headers);

    let only = [("X-Access-Token", good.as_str())];
    assert_eq!(get(gateway.proxy, "/in", &only).status, 200);
    let sent = upstream.last();
    assert_eq!(sent.header("x-access-token"), None);
    assert_eq!(sent.header("x-userinfo"), None);
    let line = format!("Bearer {good}");
    assert_eq!(sent.header("authorization"), Some(line.as_str()));
    assert_eq!(get(gateway.proxy, "/quiet", &only).status, 200);
    assert_eq!(upstream.last().header("x-access-token"), None);
    assert_eq!(userinfo(&upstream.last())["sub"], "alice");

    assert_eq!(provider.asked("/jwks"), 1, "routes share a provider");
    assert_eq!(provider.asked(DISCOVERY), 1);
    let log = json!(gateway.access_log(7)).to_string() + &gateway.stderr();
    assert!(!log.contains(&good) && !log.contains(CLIENT_SECRET));
}

/// Every algorithm of public keys, and no other than the key's.
#[test]
fn tokens_are_checked_by_the_algorithm_of_the_key() {
    let upstream = target();
    let names: Vec<&str> = ALGORITHMS
        .into_iter()
        .filter(|name| !name.starts_with("HS"))
        .collect();
    let signers: Vec<(&str, Signer)> = names
        .iter()
        .map(|name| (*name, Signer::new(name)))
        .collect();
    let keys: Vec<(&str, &Signer)> = signers.iter().map(|(name, one)| (*name, one)).collect();
    let provider = Provider::start(&keys);
    let pem = signers[0].1.pem();
    let local = json!({"public_key": pem, "client_secret": null});
    let expected = json!({"use_jwks": true, "token_signing_alg_values_expected": "ES256"});
    let each = [
        ("/x", provider.plugin(json!({"use_jwks": true}))),
        ("/pem", provider.plugin(local)),
        ("/es256", provider.plugin(expected)),
    ];
    let gateway = Gateway::start(&document(&upstream, &each));
    for (name, signer) in &signers {
        let good = token(signer, name, name, json!({}));
        assert_eq!(status(&gateway, "/x", &good), 200, "{name}");
        let unnamed = signer.token(name, &json!({"iss": ISSUER}));
        assert_eq!(status(&gateway, "/x", &unnamed), 200, "{name} without kid");
        let (start, end) = good.rsplit_once('.').expect("three parts");
        let other = if end.starts_with('A') { 'B' } else { 'A' };
        let forged = bearer(&gateway, "/x", &format!("{start}.{other}{}", &end[1..]));
        assert_eq!(
            refusal(&forged),
            invalid("the signature is wrong"),
            "{name}"
        );
        let (other, _) = signers
            .iter()
            .find(|(other, _)| other != name)
            .expect("one");
        let as_other = token(signer, name, other, json!({}));
        assert_eq!(status(&gateway, "/x", &as_other), 401, "{name} as {other}");
        let only = if *name == "ES256" { 200 } else { 401 };
        assert_eq!(status(&gateway, "/es256", &good), only, "{name}");
        let its = if *name == names[0] { 200 } else { 401 };
        assert_eq!(status(&gateway, "/pem", &good), its, "{name}");

        // Signed as if the public key were a secret.
        let public = signer.pem().expect("a public key");
        let confused = hmac::Key::new(hmac::HMAC_SHA256, public.as_bytes());
        let confused = Signer::Secret(Box::new(confused));
        for path in ["/x", "/pem"] {
            let symmetric = token(&confused, "HS256", name, json!({}));
            let told = refusal(&bearer(&gateway, path, &symmetric));
            assert_eq!(told, invalid("its algorithm is not supported"));
        }
        let (unsigned, _) = good.rsplit_once('.').expect("three parts");
        assert_eq!(status(&gateway, "/x", &format!("{unsigned}.")), 401);
    }
    let none = token(&signers[0].1, "none", names[0], json!({}));
    assert_eq!(status(&gateway, "/x", &none), 401);
    let critical = json!({"alg": names[0], "kid": names[0], "crit": ["b64"], "b64": false});
    let critical = signers[0].1.token_with(&critical, &json!({"iss": ISSUER}));
    assert_eq!(status(&gateway, "/x", &critical), 401);
    assert_eq!(provider.asked("/jwks"), 1);
}

/// A new key is looked for once, and names that clients make up are not looked for again and again.
#[test]
fn keys_rotate() {
    let (upstream, old, new) = (target(), Signer::new("ES256"), Signer::new("RS256"));
    let provider = Provider::start(&[("old", &old)]);
    let each = [("/x", provider.plugin(json!({"use_jwks": true})))];
    let gateway = Gateway::start(&document(&upstream, &each));
    let by_old = token(&old, "ES256", "old", json!({}));
    let by_new = token(&new, "RS256", "new", json!({}));
    assert_eq!(status(&gateway, "/x", &by_old), 200);
    provider.set(|says| says.keys = jwks(&[("old", &old), ("new", &new)]));
    let started = Instant::now();
    assert_eq!(status(&gateway, "/x", &by_new), 200);
    assert_eq!(status(&gateway, "/x", &by_old), 200);
    assert_eq!(provider.asked("/jwks"), 2);
    assert_eq!(provider.asked(DISCOVERY), 1);
    for number in 0..30 {
        let made_up = token(&new, "RS256", &format!("made up {number}"), json!({}));
        let told = refusal(&bearer(&gateway, "/x", &made_up));
        let unknown = "signed by no key of the identity provider";
        assert_eq!(told, invalid(unknown));
    }
    // One in ten seconds, however long this took.
    let may = 2 + started.elapsed().as_secs() as usize / 10;
    assert!(
        provider.asked("/jwks") <= may,
        "{}",
        provider.asked("/jwks")
    );
    assert_eq!(status(&gateway, "/x", &by_new), 200);
}

/// Many requests at once, on two workers, fetch what they need once.
#[test]
fn requests_share_what_one_of_them_fetches() {
    let (upstream, signer) = (target(), Signer::new("ES256"));
    let provider = Provider::start(&[("one", &signer)]);
    provider.set(|says| {
        let keys = says.keys.clone();
        says.keys = Answer::After(Duration::from_millis(500), Box::new(keys));
        says.introspection = |_| {
            let good = format!(r#"{{"active":true,"exp":{}}}"#, now_s() + 3600);
            Answer::After(Duration::from_millis(500), Box::new(Answer::json(&good)))
        };
    });
    let slow = json!({"use_jwks": true, "timeout": 20});
    let each = [
        ("/jwks", provider.plugin(slow)),
        ("/ask", provider.plugin(json!({"timeout": 20}))),
    ];
    let gateway = Gateway::start_with(Start {
        document: &document(&upstream, &each),
        workers: 2,
        ..Start::default()
    });
    let good = token(&signer, "ES256", "one", json!({}));
    let ask = |path: &str| {
        std::thread::scope(|scope| {
            let each: Vec<_> = (0..20)
                .map(|_| scope.spawn(|| status(&gateway, path, &good)))
                .collect();
            each.into_iter()
                .all(|one| one.join().expect("no panic") == 200)
        })
    };
    assert!(ask("/jwks"));
    assert_eq!(provider.asked("/jwks"), 1);
    assert!(ask("/ask"));
    assert_eq!(provider.asked("/introspect"), 1);
    assert_eq!(provider.asked(DISCOVERY), 1);
}

/// Who fetches for all may leave.
#[test]
fn a_client_that_leaves_takes_nobody_with_it() {
    let (upstream, signer) = (target(), Signer::new("ES256"));
    let provider = Provider::start(&[("one", &signer)]);
    let keys = jwks(&[("one", &signer)]);
    provider.set(|says| says.keys = Answer::Silence);
    let each = [(
        "/x",
        provider.plugin(json!({"use_jwks": true, "timeout": 600})),
    )];
    let gateway = Gateway::start(&document(&upstream, &each));
    let good = token(&signer, "ES256", "one", json!({}));
    let head = format!("GET /x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {good}\r\n\r\n");
    let mut first = Connection::open(gateway.proxy);
    first.send(head.as_bytes());
    wait_until("the keys to be asked for", || {
        (provider.asked("/jwks") == 1).then_some(())
    });
    let mut second = Connection::open(gateway.proxy);
    second.send(head.as_bytes());
    // One worker, and the second request came before this one: it waits by now.
    assert_eq!(get(gateway.proxy, "/none", &[]).status, 404);
    provider.set(|says| says.keys = keys);
    assert_eq!(provider.asked("/jwks"), 1, "they wait for one call");
    drop(first);
    assert_eq!(second.response(false).status, 200);
    assert_eq!(provider.asked("/jwks"), 2);
}

/// What is known stays known over changes of configuration.
#[test]
fn keys_outlive_a_configuration() {
    let (upstream, signer) = (target(), Signer::new("ES256"));
    let provider = Provider::start(&[("one", &signer)]);
    let each = [("/x", provider.plugin(json!({"use_jwks": true})))];
    let gateway = Gateway::start(&document(&upstream, &each));
    let good = token(&signer, "ES256", "one", json!({}));
    assert_eq!(status(&gateway, "/x", &good), 200);
    let changed = json!({"use_jwks": true, "required_scopes": ["a"]});
    let each = [("/x", provider.plugin(changed)), ("/y", json!({}))];
    gateway.reload(&document(&upstream, &each));
    provider.set(|says| says.keys = Answer::status(500, ""));
    assert_eq!(status(&gateway, "/x", &good), 403);
    assert_eq!(provider.asked("/jwks"), 1);
}

/// G-126, G-127, and the issuer.
#[test]
fn tokens_must_claim_what_is_asked() {
    let (upstream, signer) = (target(), Signer::new("ES256"));
    let provider = Provider::start(&[("one", &signer)]);
    let with = |more: Value| {
        let mut conf = json!({"use_jwks": true});
        let more = more.as_object().expect("an object").clone();
        conf.as_object_mut().expect("an object").extend(more);
        provider.plugin(conf)
    };
    let audience = json!({"claim_validator": {"audience": {"match_with_client_id": true}}});
    let issuers = json!({"claim_validator": {"issuer": {"valid_issuers": ["a", "b"]}}});
    let schema = json!({"claim_schema": {"properties": {"sub": {"enum": ["bob"]}}}});
    let each = [
        ("/scopes", with(json!({"required_scopes": ["a", "b"]}))),
        ("/audience", with(audience)),
        ("/issuers", with(issuers)),
        ("/schema", with(schema)),
        ("/slack", with(json!({"iat_slack": 1_000_000}))),
    ];
    let gateway = Gateway::start(&document(&upstream, &each));
    let ask =
        |path: &str, claims: Value| bearer(&gateway, path, &token(&signer, "ES256", "one", claims));
    let forbidden = |path: &str, claims: Value| {
        let response = ask(path, claims);
        assert_eq!(response.status, 403);
        response.text()
    };
    assert_eq!(
        forbidden("/scopes", json!({"scope": "a"})),
        r#"{"error":"required scopes a, b not present"}"#
    );
    assert_eq!(ask("/scopes", json!({"scope": "b a"})).status, 200);
    assert_eq!(
        forbidden("/audience", json!({"aud": "other"})),
        r#"{"error":"mismatched audience"}"#
    );
    assert_eq!(
        forbidden("/audience", json!({})),
        r#"{"error":"required audience claim not present"}"#
    );
    assert_eq!(ask("/audience", json!({"aud": ["x", "me"]})).status, 200);
    let wrong_issuer = invalid("its issuer is not the one expected");
    assert_eq!(refusal(&ask("/issuers", json!({}))), wrong_issuer);
    assert_eq!(ask("/issuers", json!({"iss": "b"})).status, 200);
    let other = json!({"iss": "b", "scope": "a b"});
    assert_eq!(refusal(&ask("/scopes", other)), wrong_issuer);
    assert_eq!(ask("/schema", json!({})).status, 401);
    assert_eq!(ask("/schema", json!({"sub": "bob"})).status, 200);
    let expired = json!({"exp": now_s() - 10_000, "sub": "bob"});
    assert_eq!(
        refusal(&ask("/schema", expired.clone())),
        invalid("it has expired")
    );
    assert_eq!(ask("/slack", expired).status, 200);
    let early = json!({"nbf": now_s() + 10_000, "sub": "bob"});
    assert_eq!(
        refusal(&ask("/schema", early)),
        invalid("it is not good yet")
    );
}

/// Without a list of issuers and without the document that names one, no token is good.
#[test]
fn an_unknown_issuer_lets_nobody_in() {
    let (upstream, signer) = (target(), Signer::new("RS256"));
    let provider = Provider::start(&[]);
    provider.set(|says| says.discovery = Some(Answer::status(500, "")));
    let known = json!({"public_key": signer.pem(),
        "claim_validator": {"issuer": {"valid_issuers": [ISSUER]}}});
    let each = [
        ("/x", provider.plugin(json!({"public_key": signer.pem()}))),
        ("/known", provider.plugin(known)),
    ];
    let gateway = Gateway::start(&document(&upstream, &each));
    let good = token(&signer, "RS256", "any", json!({}));
    assert_eq!(status(&gateway, "/known", &good), 200);
    assert_eq!(provider.asked(DISCOVERY), 0);
    let told = refusal(&bearer(&gateway, "/x", &good));
    assert_eq!(told, invalid("the discovery document answered 500"));
}

/// Certificates are verified, unless they are not to be.
#[test]
fn a_provider_over_tls_is_verified() {
    let (upstream, secure) = (target(), SecureUpstream::start(200));
    let conf = |verify: bool| {
        json!({"openid-connect": {"client_id": "me", "client_secret": "s", "bearer_only": true,
            "ssl_verify": verify, "use_jwks": true,
            "discovery": format!("https://localhost:{}{DISCOVERY}", secure.address.port())}})
    };
    let gateway = Gateway::start(&document(
        &upstream,
        &[("/verified", conf(true)), ("/any", conf(false))],
    ));
    let any = Signer::new("ES256").token("ES256", &json!({}));
    assert_eq!(status(&gateway, "/verified", &any), 401);
    assert_eq!(secure.answered(), 0);
    let told = refusal(&bearer(&gateway, "/any", &any));
    let empty = "the discovery document answered something else than expected";
    assert_eq!(told, invalid(empty));
    wait_until("the answer to be noted", || {
        (secure.answered() == 1).then_some(())
    });
}

/// Without `bearer_only`, requests without a token are refused or go on; nobody logs in.
#[test]
fn requests_without_a_token_are_denied_or_pass() {
    let (upstream, signer) = (target(), Signer::new("ES256"));
    let provider = Provider::start(&[("one", &signer)]);
    let with = |action: &str| {
        provider.plugin(
            json!({"bearer_only": false, "use_jwks": true, "unauth_action": action,
            "session": {"secret": "sixteen letters."}}),
        )
    };
    let each = [("/deny", with("deny")), ("/pass", with("pass"))];
    let gateway = Gateway::start(&document(&upstream, &each));
    let denied = get(gateway.proxy, "/deny", &[]);
    assert_eq!(
        (denied.status, denied.header("www-authenticate")),
        (401, None)
    );
    let forged = [("X-Userinfo", "forged")];
    assert_eq!(get(gateway.proxy, "/pass", &forged).status, 200);
    assert_eq!(upstream.last().header("x-userinfo"), None);
    let good = token(&signer, "ES256", "one", json!({}));
    assert_eq!(status(&gateway, "/deny", &good), 200);
    assert_eq!(status(&gateway, "/pass", &good), 200);
    assert_eq!(userinfo(&upstream.last())["sub"], "alice");
    assert_eq!(status(&gateway, "/pass", "bad"), 401);
}

const ISSUER: &str = "https://issuer.example";
const DISCOVERY: &str = "/.well-known/openid-configuration";
const CLIENT_SECRET: &str = "client secret:1";
