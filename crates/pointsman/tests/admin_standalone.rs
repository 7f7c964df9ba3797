//! The standalone Admin API: a whole document is given, and replaces the one before.

mod support;

use serde_json::{Value, json};
use support::{Gateway, Response, Start, Upstream, admin::upstream, get};

const API: &str = "{role_traditional: {config_provider: yaml}, admin: {admin_listen: {ip: 127.0.0.1, \
                   port: 0}, admin_key: [{name: a, key: test-admin, role: admin}]}}";

fn start() -> Gateway {
    Gateway::start_with(Start {
        deployment: API,
        ..Start::default()
    })
}

fn put(gateway: &Gateway, digest: &str, document: &Value) -> Response {
    let headers = [("X-API-KEY", "test-admin"), ("X-Digest", digest)];
    gateway.admin_with("PUT", "/configs", &headers, &document.to_string())
}

fn accepted(gateway: &Gateway, digest: &str, document: &Value) {
    let response = put(gateway, digest, document);
    assert_eq!(response.status, 202, "{}", response.text());
}

fn refused(gateway: &Gateway, document: &Value) -> String {
    let response = put(gateway, "refused", document);
    assert_eq!(response.status, 400, "{document}");
    response.json()["error_msg"]
        .as_str()
        .expect("a message")
        .to_owned()
}

fn route(uri: &str, echo: &Upstream) -> Value {
    json!({"id": "r", "uri": uri, "upstream": upstream(echo.address)})
}

/// G-249 to G-257: digests and versions decide what is taken over.
#[test]
fn versions_and_digests_decide() {
    let echo = Upstream::named("a");
    let gateway = start();
    let fresh = gateway.asked(200, "GET", "/configs", Value::Null);
    let versions = fresh.as_object().expect("a map");
    assert_eq!(versions.len(), 13, "{fresh}");
    assert!(versions.values().all(|version| *version == 0), "{fresh}");
    let head = gateway.admin("HEAD", "/configs", "");
    assert_eq!((head.status, head.header("x-digest")), (200, None));
    assert_eq!(
        gateway.refused("PUT", "/configs", json!({})),
        "missing digest header"
    );
    let headers = [("X-API-KEY", "test-admin"), ("X-Digest", "a")];
    let empty = gateway.admin_with("PUT", "/configs", &headers, "");
    assert_eq!(
        empty.json()["error_msg"],
        "invalid request body: empty request body"
    );

    let first = put(&gateway, "a", &json!({"routes": [route("/a", &echo)]}));
    assert_eq!((first.status, first.body.len()), (202, 0));
    assert_eq!(first.header("x-digest"), Some("a"));
    assert!(first.header("x-last-modified").is_some());
    gateway.wait_for_route("/a", 200);
    let held = gateway.asked(200, "GET", "/configs", Value::Null);
    assert_eq!(
        (&held["routes_conf_version"], &held["ssls_conf_version"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(held["X-Digest"], "a");
    let head = gateway.admin("HEAD", "/configs", "");
    assert_eq!(head.header("x-digest"), Some("a"));

    let same = put(&gateway, "a", &json!({"routes": [{"id": "r", "uri": 5}]}));
    assert_eq!(same.status, 204);

    let document = json!({"routes_conf_version": 15, "routes": [route("/b", &echo)]});
    accepted(&gateway, "b", &document);
    gateway.wait_for_route("/b", 200);
    assert_eq!(get(gateway.proxy, "/a", &[]).status, 404);
    let held = gateway.asked(200, "GET", "/configs", Value::Null);
    assert_eq!(
        (&held["routes_conf_version"], &held["ssls_conf_version"]),
        (&json!(15), &json!(2))
    );
    let said = refused(&gateway, &json!({"routes_conf_version": 14}));
    assert_eq!(
        said,
        "routes_conf_version must be greater than or equal to (15)"
    );
    let said = refused(&gateway, &json!({"routes_conf_version": "x"}));
    assert_eq!(said, "routes_conf_version must be a number");
    let equal = json!({"routes_conf_version": 15, "routes": [route("/c", &echo)]});
    accepted(&gateway, "c", &equal);
    let held = gateway.asked(200, "GET", "/configs", Value::Null);
    assert_eq!(held["routes"][0]["uri"], "/b");
    accepted(&gateway, "d", &json!({}));
    gateway.wait_for_route("/b", 404);
}

/// G-258, G-259, G-262
#[test]
fn a_wrong_document_changes_nothing() {
    let echo = Upstream::named("a");
    let gateway = start();
    accepted(&gateway, "a", &json!({"routes": [route("/a", &echo)]}));
    gateway.wait_for_route("/a", 200);
    let said = refused(
        &gateway,
        &json!({"routes": [route("/b", &echo), {"id": "x", "uri": "/x", "nonsense": 1}]}),
    );
    assert!(
        said.contains("invalid routes at index 1, err: invalid configuration: "),
        "{said}"
    );
    let said = refused(
        &gateway,
        &json!({"routes": [route("/b", &echo), route("/c", &echo)]}),
    );
    assert_eq!(said, "found duplicate id r in routes");
    let consumer = json!({"username": "u"});
    let said = refused(&gateway, &json!({"consumers": [consumer, consumer]}));
    assert_eq!(said, "found duplicate username u in consumers");
    let credential = json!({"id": "u/credentials/c", "plugins": {}});
    let said = refused(&gateway, &json!({"consumers": [credential, credential]}));
    assert_eq!(
        said,
        "found duplicate credential id u/credentials/c in consumers"
    );
    assert_eq!(
        refused(&gateway, &json!({"routes": {}})),
        "routes must be a list"
    );
    let headers = [("X-API-KEY", "test-admin"), ("X-Digest", "b")];
    for body in ["[]", "{\"routes\": "] {
        let response = gateway.admin_with("PUT", "/configs", &headers, body);
        let told = response.json();
        let said = told["error_msg"].as_str().expect("a message");
        assert!(said.starts_with("invalid request body: "), "{said}");
    }
    let held = gateway.asked(200, "GET", "/configs", Value::Null);
    assert_eq!(
        (&held["X-Digest"], &held["routes"][0]["uri"]),
        (&json!("a"), &json!("/a"))
    );
    assert_eq!(get(gateway.proxy, "/a", &[]).status, 200);
    for (method, path) in [
        ("GET", "/routes"),
        ("POST", "/configs"),
        ("PUT", "/routes/1"),
    ] {
        gateway.asked(404, method, path, Value::Null);
    }
}

/// G-260
#[test]
fn documents_may_be_yaml() {
    let echo = Upstream::named("a");
    let gateway = start();
    let headers = [
        ("X-API-KEY", "test-admin"),
        ("X-Digest", "a"),
        ("Content-Type", "application/yaml"),
    ];
    let text = format!(
        "routes:\n- id: r\n  uri: /a\n  upstream: {{nodes: {{\"{}\": 1}}}}\n",
        echo.address
    );
    let response = gateway.admin_with("PUT", "/configs", &headers, &text);
    assert_eq!(response.status, 202, "{}", response.text());
    gateway.wait_for_route("/a", 200);
    let headers = [("X-API-KEY", "test-admin"), ("Accept", "application/yaml")];
    let response = gateway.admin_with("GET", "/configs", &headers, "");
    assert_eq!(response.header("content-type"), Some("application/yaml"));
    let text = response.text();
    assert!(text.contains("\"uri\": \"/a\"\n"), "{text}");
}

/// G-261: an item that says that it has not changed is left as it is.
#[test]
fn an_item_with_the_same_index_stays() {
    let echo = Upstream::named("a");
    let gateway = start();
    let document = |uri: &str, index: u8, other: &str| {
        let mut route = route(uri, &echo);
        route["modifiedIndex"] = json!(index);
        let other =
            json!({"id": other, "uri": format!("/{other}"), "upstream": upstream(echo.address)});
        json!({"routes": [route, other]})
    };
    accepted(&gateway, "a", &document("/a", 1, "one"));
    gateway.wait_for_route("/one", 200);
    accepted(&gateway, "b", &document("/b", 1, "two"));
    gateway.wait_for_route("/two", 200);
    assert_eq!(get(gateway.proxy, "/a", &[]).status, 200);
    assert_eq!(get(gateway.proxy, "/b", &[]).status, 404);
    accepted(&gateway, "c", &document("/b", 2, "three"));
    gateway.wait_for_route("/three", 200);
    assert_eq!(get(gateway.proxy, "/a", &[]).status, 404);
    assert_eq!(get(gateway.proxy, "/b", &[]).status, 200);
}

/// G-263
#[test]
fn documents_are_validated() {
    let gateway = start();
    let answer = gateway.asked(200, "POST", "/configs/validate", json!({"routes": []}));
    assert_eq!(answer, json!({}));
    let bad = json!({"routes": [{"id": "r1", "uri": 5}, {"id": "r2", "uri": 5}]});
    let told = gateway.asked(400, "POST", "/configs/validate", bad);
    assert_eq!(told["errors"].as_array().map(Vec::len), Some(2), "{told}");
}

/// G-274: with an Admin API, the file beside the settings is not read, which is told.
#[test]
fn the_file_is_not_read() {
    let echo = Upstream::named("a");
    let gateway = Gateway::start_with(Start {
        deployment: API,
        document: &format!("routes:\n- {}\n", route("/a", &echo)),
        ..Start::default()
    });
    gateway.wait_for_line("apisix.yaml is not read");
    assert_eq!(get(gateway.proxy, "/a", &[]).status, 404);
}
