//! `apisix.data_encryption`, over the embedded store and a real etcd.

use serde_json::{Value, json};

use crate::support::{
    Gateway, Start, Upstream,
    admin::{STORE, upstream},
    etcd::Etcd,
    get, set_config,
};

const RING: &str = "  data_encryption: {keyring: [qeddd145sfvddff3]}";
/// `auth-one` by that key, as `openssl enc -aes-128-cbc` has it, and by `edd1c9f0985e76a2`.
const SEALED: &str = "4y+JvURBE6ZwRbbgaryrhg==";
const SEALED_ANEW: &str = "RjeV6km+KxQJN2rfu8Y7aA==";

fn consumer(name: &str, key: &str) -> Value {
    json!({"username": name, "plugins": {"key-auth": {"key": key}}})
}

fn guarded(to: &Upstream) -> Value {
    json!({"uri": "/*", "plugins": {"key-auth": {}}, "upstream": upstream(to.address)})
}

fn status(gateway: &Gateway, key: &str) -> u16 {
    get(gateway.proxy, "/", &[("apikey", key)]).status
}

fn holds(gateway: &Gateway, file: &str, text: &str) -> bool {
    let bytes = std::fs::read(gateway.folder().join(file)).expect("a file");
    bytes
        .windows(text.len())
        .any(|part| part == text.as_bytes())
}

/// What is stored is encrypted, also as the answer to a write shows it; who reads it gets it plain, over
/// another key ring, too, as long as the old key is in it.
#[test]
fn the_embedded_store_holds_no_secret_in_the_clear() {
    let echo = Upstream::named("a");
    let mut gateway = Gateway::start_with(Start {
        deployment: STORE,
        apisix: RING,
        ..Start::default()
    });
    gateway.asked(201, "PUT", "/routes/1", guarded(&echo));
    let written = gateway.asked(201, "PUT", "/consumers", consumer("a", "auth-one"));
    assert_eq!(written["value"]["plugins"]["key-auth"]["key"], SEALED);
    let pair = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).expect("made");
    let pem = pair.signing_key.serialize_pem();
    let ssl = json!({"sni": "a.test", "cert": pair.cert.pem(), "key": pem});
    gateway.asked(201, "PUT", "/ssls/1", ssl);
    let shown = gateway.asked(200, "GET", "/consumers/a", Value::Null);
    assert_eq!(shown["value"]["plugins"]["key-auth"]["key"], "auth-one");
    gateway.wait_for_route("/", 401);
    assert_eq!(status(&gateway, "auth-one"), 200);
    assert_eq!(status(&gateway, SEALED), 401);
    gateway.signal("TERM");
    gateway.wait_for_exit();

    let store = "logs/store.redb";
    assert!(holds(&gateway, store, SEALED));
    assert!(!holds(&gateway, store, "auth-one"));
    assert!(!holds(&gateway, store, "PRIVATE KEY"));
    set_config(
        gateway.folder(),
        "[qeddd145sfvddff3]",
        "[edd1c9f0985e76a2, qeddd145sfvddff3]",
    );
    gateway.start_again(1);
    gateway.wait_for_line("ready");
    assert_eq!(status(&gateway, "auth-one"), 200);
    let shown = gateway.asked(200, "GET", "/consumers/a", Value::Null);
    assert_eq!(shown["value"]["plugins"]["key-auth"]["key"], "auth-one");
    let written = gateway.asked(200, "PUT", "/consumers", consumer("a", "auth-one"));
    assert_eq!(written["value"]["plugins"]["key-auth"]["key"], SEALED_ANEW);
    assert_eq!(status(&gateway, "auth-one"), 200);
}

/// A PATCH of another field leaves the secret what it is, and one that is switched off is stored plain.
#[test]
fn a_patch_goes_by_what_is_plain() {
    let mut gateway = Gateway::start_with(Start {
        deployment: STORE,
        apisix: "  data_encryption: {enable_encrypt_fields: false}",
        ..Start::default()
    });
    let proxy = |desc: &str, key: &str| json!({"uri": "/", "desc": desc, "plugins": {"http-logger": {"uri": "http://127.0.0.1:1", "auth_header": key}}});
    let written = gateway.asked(201, "PUT", "/routes/1", proxy("a", "auth-one"));
    assert_eq!(
        written["value"]["plugins"]["http-logger"]["auth_header"],
        "auth-one"
    );
    gateway.signal("TERM");
    gateway.wait_for_exit();
    set_config(
        gateway.folder(),
        "enable_encrypt_fields: false",
        "keyring: [qeddd145sfvddff3]",
    );
    gateway.start_again(1);
    gateway.wait_for_line("ready");
    let patched = gateway.asked(200, "PATCH", "/routes/1", json!({"desc": "b"}));
    assert_eq!(
        patched["value"]["plugins"]["http-logger"]["auth_header"],
        SEALED
    );
    gateway.asked(200, "PATCH", "/routes/1", json!({"desc": "c"}));
    let shown = gateway.asked(200, "GET", "/routes/1", Value::Null);
    assert_eq!(
        shown["value"]["plugins"]["http-logger"]["auth_header"],
        "auth-one"
    );
    assert_eq!(shown["value"]["desc"], "c");
}

/// What APISIX has encrypted is read, what is written can be read by APISIX, and the copy of etcd on this
/// machine is no plainer than etcd.
#[test]
fn etcd_is_shared_with_apisix() {
    let Some(etcd) = Etcd::start() else { return };
    let echo = Upstream::named("a");
    let theirs = consumer("theirs", SEALED).to_string();
    etcd.put("/apisix/consumers/theirs", &theirs);
    let mut gateway = Gateway::start_with(Start {
        deployment: &etcd.deployment(""),
        apisix: "  data_encryption: {keyring: [edd1c9f0985e76a2, qeddd145sfvddff3]}",
        ..Start::default()
    });
    gateway.asked(201, "PUT", "/routes/1", guarded(&echo));
    gateway.wait_for_route("/", 401);
    assert_eq!(status(&gateway, "auth-one"), 200);
    let shown = gateway.asked(200, "GET", "/consumers/theirs", Value::Null);
    assert_eq!(shown["value"]["plugins"]["key-auth"]["key"], "auth-one");
    gateway.asked(200, "DELETE", "/consumers/theirs", Value::Null);
    gateway.asked(201, "PUT", "/consumers", consumer("ours", "auth-one"));
    let entry = etcd.get("/apisix/consumers/ours").expect("stored").json();
    assert_eq!(entry["plugins"]["key-auth"]["key"], SEALED_ANEW);
    // Later changes come over the watch.
    etcd.put(
        "/apisix/consumers/ours",
        &consumer("ours", SEALED).to_string(),
    );
    etcd.put(
        "/apisix/consumers/plain",
        &consumer("plain", "in the clear").to_string(),
    );
    crate::support::wait_until("the plain key to work", || {
        (status(&gateway, "in the clear") == 200).then_some(())
    });
    assert_eq!(status(&gateway, "auth-one"), 200);
    gateway.signal("TERM");
    gateway.wait_for_exit();
    assert!(!holds(&gateway, "logs/store.redb", "auth-one"));
    assert!(!holds(&gateway, "logs/store.redb", "in the clear"));
}
