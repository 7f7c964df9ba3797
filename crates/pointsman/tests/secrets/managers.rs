//! `$secret://`: values that secret managers have. Stand-ins answer as Vault, AWS and Google do.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU16, Ordering},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::google::Google;
use crate::support::{
    Answer, Gateway, Received, Start, Upstream,
    admin::{STORE, upstream},
    aws, get, wait_until,
};

/// Values are asked for anew every second.
const EAGER: &str = "  lru: {secret: {ttl: 1, neg_ttl: 1}}";

fn guarded(to: &Upstream) -> String {
    format!(
        "routes: [{{id: 1, uri: /*, plugins: {{key-auth: {{}}}}, upstream: {{nodes: {{\"{}\": 1}}}}}}]\n",
        to.address
    )
}

/// A route whose upstream gets `reference` as a header.
fn header_route(reference: &str, to: &Upstream) -> String {
    format!(
        "routes: [{{id: 1, uri: /*, plugins: {{proxy-rewrite: {{headers: {{set: {{x-value: \"{reference}\"}}}}}}}}, \
         upstream: {{nodes: {{\"{}\": 1}}}}}}]\n",
        to.address
    )
}

fn consumer(reference: &str) -> String {
    format!("consumers: [{{username: a, plugins: {{key-auth: {{key: \"{reference}\"}}}}}}]\n")
}

fn status(gateway: &Gateway, key: &str) -> u16 {
    get(gateway.proxy, "/", &[("apikey", key)]).status
}

fn passed_on(gateway: &Gateway, to: &Upstream) -> String {
    assert_eq!(get(gateway.proxy, "/", &[]).status, 200);
    to.last().header("x-value").expect("a header").to_owned()
}

/// A Vault, whose answer can be changed.
struct Vault {
    upstream: Upstream,
    status: Arc<AtomicU16>,
    body: Arc<Mutex<Value>>,
}

impl Vault {
    fn start(body: Value) -> Self {
        let (status, body) = (Arc::new(AtomicU16::new(200)), Arc::new(Mutex::new(body)));
        let (own, text) = (Arc::clone(&status), Arc::clone(&body));
        let upstream = Upstream::start(move |_| {
            let body = text.lock().expect("sound").to_string();
            Answer::status(own.load(Ordering::SeqCst), &body)
        });
        Self {
            upstream,
            status,
            body,
        }
    }

    fn answer(&self, status: u16, body: Value) {
        *self.body.lock().expect("sound") = body;
        self.status.store(status, Ordering::SeqCst);
    }

    /// As a document has it.
    fn resource(&self, more: &str) -> String {
        let address = self.upstream.address;
        format!(
            "secrets: [{{id: vault/1, uri: \"http://{address}/base/\", prefix: kv/team, token: \"$ENV://VAULT_TOKEN\"{more}}}]\n"
        )
    }
}

fn start(document: &str) -> Gateway {
    Gateway::start_with(Start {
        document,
        apisix: EAGER,
        environment: &[("VAULT_TOKEN", "t0ken-of-vault")],
        ..Start::default()
    })
}

/// G-283: the value works from the first request on, and stands nowhere that anybody looks.
#[test]
fn a_key_that_vault_has_works() {
    let echo = Upstream::named("a");
    let vault = Vault::start(json!({"data": {"key": "k3y-in-vault", "number": 5}}));
    let document = guarded(&echo)
        + &consumer("$secret://vault/1/jack/one/key")
        + &vault.resource(", namespace: ns");
    let gateway = start(&document);
    assert_eq!(status(&gateway, "k3y-in-vault"), 200);
    assert_eq!(status(&gateway, "$secret://vault/1/jack/one/key"), 401);
    let asked = vault.upstream.last();
    assert_eq!(asked.method, "GET");
    assert_eq!(asked.target, "/base/v1/kv/team/jack/one");
    assert_eq!(asked.header("x-vault-token"), Some("t0ken-of-vault"));
    assert_eq!(asked.header("x-vault-namespace"), Some("ns"));
    let shown = [
        gateway.metrics(),
        gateway.stderr(),
        gateway.control("/v1/routes").text(),
        gateway.control("/v1/config/errors").text(),
    ];
    for text in shown {
        assert!(
            !text.contains("k3y-in-vault") && !text.contains("t0ken-of-vault"),
            "{text}"
        );
    }
    // The second version of Vault's store wraps what the first has.
    let wrapped = json!({"data": {"data": {"key": "second"}, "metadata": {"version": 2}}});
    vault.answer(200, wrapped);
    wait_until("the second key to work", || {
        (status(&gateway, "second") == 200).then_some(())
    });
    assert_eq!(status(&gateway, "k3y-in-vault"), 401);
}

/// G-116: without a value there is nobody to be. What was known stays while nobody says otherwise.
#[test]
fn what_vault_takes_back_does_not_work_and_what_it_keeps_silent_about_does() {
    let echo = Upstream::named("a");
    let vault = Vault::start(json!({"errors": []}));
    vault.answer(503, json!({"errors": ["sealed"]}));
    let reference = "$secret://vault/1/jack/key";
    let document = guarded(&echo) + &consumer(reference) + &vault.resource("");
    let gateway = start(&document);
    assert_eq!(status(&gateway, reference), 401);
    assert_eq!(status(&gateway, "k1"), 401);
    gateway.wait_for_line("it answered 503");
    vault.answer(200, json!({"data": {"key": "k1"}}));
    wait_until("the key to work", || {
        (status(&gateway, "k1") == 200).then_some(())
    });
    vault.answer(503, json!({"errors": ["sealed"]}));
    gateway.wait_for_line("the value stays");
    assert_eq!(status(&gateway, "k1"), 200);
    vault.answer(403, json!({"errors": ["permission denied"]}));
    wait_until("the key to be gone", || {
        (status(&gateway, "k1") == 401).then_some(())
    });
    assert_eq!(status(&gateway, reference), 401);
}

/// Elsewhere than in a consumer, a reference that nothing stands for is passed on as it stands, and told.
#[test]
fn what_is_not_there_stays_as_it_is_written() {
    let echo = Upstream::named("a");
    let vault = Vault::start(json!({"data": {"key": "v"}}));
    let there = [
        ("$secret://vault/1/jack/other", "the secret has no `other`"),
        (
            "$secret://vault/2/jack/key",
            "there is no secret manager vault/2",
        ),
        (
            "$secret://vault/1/../../sys/key",
            "must name a secret and its key",
        ),
        (
            "$secret://vault",
            "must be $secret://<manager>/<id>/<name>/<key>",
        ),
    ];
    for (reference, why) in there {
        let document = header_route(reference, &echo) + &vault.resource("");
        let gateway = start(&document);
        // This plugin takes the first word for a variable, then, as in APISIX.
        let left = reference.strip_prefix("$secret").expect("a reference");
        assert_eq!(passed_on(&gateway, &echo), left);
        let told = gateway.control("/v1/config/errors").text();
        assert!(
            told.contains(why) || gateway.stderr().contains(why),
            "{told}"
        );
    }
    let ways = vault.upstream.requests();
    assert!(ways.iter().all(|asked| asked.target.ends_with("/jack")));
}

/// The longest name that there is, and the rest as a key of its JSON; signed with everything that is sent.
#[test]
fn aws_is_asked_for_the_longest_name_first() {
    let echo = Upstream::named("a");
    let manager = Upstream::start(|asked: &Received| {
        let name = asked.json()["SecretId"]
            .as_str()
            .expect("a name")
            .to_owned();
        match name.as_str() {
            "prod/llm" => Answer::json(
                &json!({"Name": name, "SecretString": r#"{"key":"from aws"}"#}).to_string(),
            ),
            _ => Answer::status(
                400,
                r#"{"__type":"com.amazonaws.secretsmanager#ResourceNotFoundException"}"#,
            ),
        }
    });
    let resource = format!(
        "secrets: [{{id: aws/eu, access_key_id: AKID, secret_access_key: aws-secret, session_token: st, \
         region: eu-west-1, endpoint_url: \"http://{}\"}}]\n",
        manager.address
    );
    let document = header_route("$secret://aws/eu/prod/llm/key", &echo) + &resource;
    let gateway = start(&document);
    assert_eq!(passed_on(&gateway, &echo), "from aws");
    let names: Vec<Value> = (manager.requests().iter())
        .take(2)
        .map(|asked| asked.json()["SecretId"].clone())
        .collect();
    assert_eq!(names, ["prod/llm/key", "prod/llm"]);
    let asked = manager.last();
    assert_eq!(
        (asked.method.as_str(), asked.target.as_str()),
        ("POST", "/")
    );
    let target = asked.header("x-amz-target");
    assert_eq!(target, Some("secretsmanager.GetSecretValue"));
    assert_eq!(asked.header("x-amz-security-token"), Some("st"));
    let signed = asked.header("authorization").expect("signed").to_owned();
    let headers = "SignedHeaders=host;x-amz-date;x-amz-security-token;x-amz-target,";
    assert!(signed.contains(headers), "{signed}");
    assert!(aws::is_signed_for(
        &asked,
        "aws-secret",
        "eu-west-1",
        "secretsmanager"
    ));
}

/// One access token for all secrets of an account, which may stand in a file.
#[test]
fn google_is_asked_with_a_token_of_the_account() {
    let echo = Upstream::named("a");
    let google = Google::steady();
    let manager = Upstream::start(|_| {
        let data = STANDARD.encode(r#"{"key":"from google"}"#);
        Answer::json(&json!({"payload": {"data": data}}).to_string())
    });
    let entries = format!("http://{}/v1", manager.address);
    let more = json!({"project_id": "p", "entries_uri": entries, "scope": ["s"]});
    let account = google.account(more);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("account.json");
    std::fs::write(&file, &account).expect("written");
    for auth in [
        format!("auth_config: {account}"),
        format!("auth_file: {}", file.display()),
    ] {
        let resource = format!("secrets: [{{id: gcp/1, {auth}}}]\n");
        let gateway = start(&(header_route("$secret://gcp/1/llm/key", &echo) + &resource));
        assert_eq!(passed_on(&gateway, &echo), "from google");
        let asked = manager.last();
        assert_eq!(
            asked.target,
            "/v1/projects/p/secrets/llm/versions/latest:access"
        );
        let bearer = asked.header("authorization").expect("a token").to_owned();
        assert!(bearer.starts_with("Bearer token-"), "{bearer}");
        assert_eq!(google.claims(&google.upstream.last())["scope"], "s");
        let tokens = google.upstream.hits();
        let before = manager.hits();
        wait_until("the secret to be asked for anew", || {
            (manager.hits() > before).then_some(())
        });
        assert_eq!(google.upstream.hits(), tokens, "the token lasts an hour");
    }
}

/// G-241, and what a change of the manager does: everything is asked for anew, at once.
#[test]
fn managers_come_and_go_over_the_admin_api() {
    let echo = Upstream::named("a");
    let (one, other) = (
        Vault::start(json!({"data": {"key": "first"}})),
        Vault::start(json!({"data": {"key": "other"}})),
    );
    // As long as they live by default: nothing is asked for anew but by a change.
    let mut gateway = Gateway::start_with(Start {
        deployment: STORE,
        ..Start::default()
    });
    let route =
        json!({"uri": "/*", "plugins": {"key-auth": {}}, "upstream": upstream(echo.address)});
    gateway.asked(201, "PUT", "/routes/1", route);
    let key = json!({"key-auth": {"key": "$secret://vault/v/jack/key"}});
    gateway.asked(
        201,
        "PUT",
        "/consumers",
        json!({"username": "a", "plugins": key}),
    );
    gateway.wait_for_route("/", 401);
    assert_eq!(status(&gateway, "$secret://vault/v/jack/key"), 401);
    let manager = |vault: &Vault| {
        let uri = format!("http://{}", vault.upstream.address);
        json!({"uri": uri, "prefix": "kv", "token": "t"})
    };
    let works = |gateway: &Gateway, key: &str, wanted: u16| {
        wait_until(&format!("{key} to get {wanted}"), || {
            (status(gateway, key) == wanted).then_some(())
        });
    };
    gateway.asked(201, "PUT", "/secrets/vault/v", manager(&one));
    works(&gateway, "first", 200);
    gateway.asked(200, "PATCH", "/secrets/vault/v", manager(&other));
    works(&gateway, "other", 200);
    assert_eq!(status(&gateway, "first"), 401);
    assert_eq!((one.upstream.hits(), other.upstream.hits()), (1, 1));
    // From the store, too.
    gateway.signal("TERM");
    gateway.wait_for_exit();
    gateway.start_again(1);
    gateway.wait_for_line("ready");
    assert_eq!(status(&gateway, "other"), 200);
    gateway.asked(200, "DELETE", "/secrets/vault/v", Value::Null);
    works(&gateway, "other", 401);
}
