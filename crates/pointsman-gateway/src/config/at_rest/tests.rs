//! Against what `openssl enc` makes of the same, and over whole resources.

use serde_json::json;

use super::*;

fn at_rest(keyring: &[&str]) -> AtRest {
    AtRest::new(&DataEncryption {
        is_enabled: true,
        keyring: keyring.iter().map(|key| (*key).to_owned()).collect(),
    })
}

fn sealed(at_rest: &AtRest, key: &str, value: &Value) -> Value {
    let text = at_rest.sealed(key, &Arc::from(value.to_string()));
    serde_json::from_str(&text).expect("JSON")
}

fn opened(at_rest: &AtRest, key: &str, value: &Value) -> Value {
    let text = at_rest.opened(key, &Arc::from(value.to_string()));
    serde_json::from_str(&text).expect("JSON")
}

const FIRST: &str = "qeddd145sfvddff3";
const SECOND: &str = "edd1c9f0985e76a2";
const LONG: &str = "0123456789abcdef0123456789abcdef";

/// `printf %s PLAIN | openssl enc -aes-128-cbc -K HEX -iv HEX -base64 -A`, HEX being the key's bytes; with
/// 32 of them `-aes-256-cbc`, and the first 16 as the vector.
#[test]
fn texts_are_encrypted_as_openssl_does_it() {
    let known = [
        (FIRST, "auth-one", "4y+JvURBE6ZwRbbgaryrhg=="),
        (SECOND, "auth-one", "RjeV6km+KxQJN2rfu8Y7aA=="),
        (FIRST, "", "CEGh183MAO3X8/ZV2jzHeA=="),
        (
            FIRST,
            "exactly16bytes!!",
            "PYi8QQ4MOPtw+IV5IhckBZ4FyfzaRgA8NpJoqgvIUSU=",
        ),
        (LONG, "auth-one", "jMinfe2nNUgjwW02ZBFULg=="),
    ];
    for (key, plain, stored) in known {
        let one = at_rest(&[key]);
        assert_eq!(one.seal(Place::Field, plain).as_deref(), Some(stored));
        assert_eq!(one.open(Place::Field, stored).as_deref(), Some(plain));
    }
}

#[test]
fn the_first_key_encrypts_and_all_decrypt() {
    let ring = at_rest(&[SECOND, FIRST]);
    let stored = ring.seal(Place::Field, "auth-one").expect("sealed");
    assert_eq!(stored, "RjeV6km+KxQJN2rfu8Y7aA==");
    let old = ring.open(Place::Field, "4y+JvURBE6ZwRbbgaryrhg==");
    assert_eq!(old.as_deref(), Some("auth-one"));
    // Whatever is encrypted by nobody here is as it stands.
    let other = at_rest(&[LONG]);
    for plain in ["4y+JvURBE6ZwRbbgaryrhg==", "auth-one", "", "a2V5"] {
        assert_eq!(other.open(Place::Field, plain), None, "{plain}");
    }
}

#[test]
fn nothing_is_encrypted_when_that_is_off_and_what_was_is_read() {
    let off = AtRest::new(&DataEncryption {
        is_enabled: false,
        ..DataEncryption::default()
    });
    let plain = json!({"plugins": {"key-auth": {"key": "auth-one"}}});
    let stored = json!({"plugins": {"key-auth": {"key": "4y+JvURBE6ZwRbbgaryrhg=="}}});
    assert_eq!(sealed(&off, "/consumers/a", &plain), plain);
    assert_eq!(opened(&off, "/consumers/a", &stored), plain);
}

#[test]
fn every_secret_of_a_resource_is_encrypted_and_nothing_else() {
    let one = at_rest(&[FIRST]);
    let s = "4y+JvURBE6ZwRbbgaryrhg==";
    let check = |key: &str, plain: Value, stored: Value| {
        assert_eq!(sealed(&one, key, &plain), stored);
        assert_eq!(opened(&one, key, &stored), plain);
    };
    let p = "auth-one";
    let multi = |text: &str| {
        json!({"uri": p, "plugins": {"limit-count": {"key": p}, "ai-proxy-multi": {"instances": [
            {"name": p, "auth": {"header": {"Authorization": text, "n": 1}, "query": {"k": text}}},
            {"auth": {"aws": {"access_key_id": p, "secret_access_key": text, "session_token": text}}},
            {"auth": {"gcp": {"service_account_json": text}}},
        ], "semantic_opts": {"embeddings": {"auth": {"header": {"x": text}}}}}}})
    };
    check("/routes/1", multi(p), multi(s));
    let consumer = |text: &str| {
        json!({"username": p, "plugins": {
            "key-auth": {"key": text}, "basic-auth": {"username": p, "password": text},
            "jwt-auth": {"key": p, "secret": text}, "hmac-auth": {"key_id": p, "secret_key": text},
            "http-logger": {"uri": p, "auth_header": text},
        }})
    };
    check("/consumers/a", consumer(p), consumer(s));
    check(
        "/consumers/a/credentials/b",
        json!({"plugins": {"key-auth": {"key": p}}}),
        json!({"plugins": {"key-auth": {"key": s}}}),
    );
    // Metadata and upstreams have no such fields.
    let other = json!({"plugins": {"key-auth": {"key": p}}});
    assert_eq!(sealed(&one, "/gen_id", &other), other);
}

#[test]
fn private_keys_are_told_by_their_first_line() {
    let one = at_rest(&[FIRST]);
    let pem = "-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\n";
    let plain = json!({"cert": pem, "key": pem, "keys": [pem, "$env://K"]});
    let stored = sealed(&one, "/ssls/1", &plain);
    assert_eq!(stored["cert"], pem);
    assert_eq!(stored["keys"][1], "$env://K");
    for key in [&stored["key"], &stored["keys"][0]] {
        assert!(!key.to_string().contains("BEGIN"), "{key}");
    }
    assert_eq!(opened(&one, "/ssls/1", &stored), plain);
    assert_eq!(sealed(&one, "/ssls/1", &stored), stored);
}

/// A resource that holds no secret is not even written anew.
#[test]
fn a_resource_without_secrets_is_the_same_text() {
    let one = at_rest(&[FIRST]);
    for text in [
        "{ \"uri\": 1.0 }",
        "no JSON: key-auth",
        "{\"plugins\": {\"key-auth\": {}}}",
    ] {
        let text: Arc<str> = Arc::from(text);
        assert!(Arc::ptr_eq(&text, &one.sealed("/routes/1", &text)));
        assert!(Arc::ptr_eq(&text, &one.opened("/routes/1", &text)));
    }
}
