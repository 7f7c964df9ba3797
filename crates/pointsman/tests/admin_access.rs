//! The Admin API: who may use it, what else it answers, and its limits.

mod support;

use serde_json::{Value, json};
use support::{Gateway, Start, admin::STORE, client::request, get};

/// G-210
#[test]
fn keys_have_roles() {
    let gateway = Gateway::with_store();
    let denied = |method: &str, headers: &[(&str, &str)], path: &str| {
        let response = gateway.admin_with(method, path, headers, "");
        assert_eq!(response.status, 401, "{method} {headers:?}");
        assert_eq!(response.header("x-api-version"), None);
        let told = response.json();
        assert_eq!(told["error_msg"], "failed to check token");
        told["description"].as_str().expect("a text").to_owned()
    };
    assert_eq!(denied("GET", &[], "/routes"), "missing apikey");
    assert_eq!(
        denied("GET", &[("X-API-KEY", "test")], "/routes"),
        "wrong apikey"
    );
    let viewer = [("X-API-KEY", "test-viewer")];
    for method in ["PUT", "DELETE", "PATCH", "POST"] {
        let said = denied(method, &viewer, "/routes/1");
        assert_eq!(said, "invalid method for role viewer");
    }
    for (headers, path) in [
        (&viewer[..], "/routes"),
        (&[], "/routes?api_key=test-viewer"),
        (&[("Cookie", "a=b; x_api_key=test-admin")], "/routes"),
    ] {
        let response = gateway.admin_with("GET", path, headers, "");
        assert_eq!(response.status, 200, "{headers:?} {path}");
        assert_eq!(response.header("x-api-version"), Some("v3"));
        assert_eq!(response.header("content-type"), Some("application/json"));
        let server = response.header("server").expect("a header");
        assert!(server.starts_with("APISIX"), "{server}");
    }
}

/// Addresses outside `allow_admin` are turned away whatever their key.
#[test]
fn other_addresses_are_turned_away() {
    let gateway = Gateway::start_with(Start {
        deployment: &STORE.replace("{admin: {", "{admin: {allow_admin: [10.0.0.0/8], "),
        ..Start::default()
    });
    let response = gateway.admin("GET", "/routes", "");
    assert_eq!(response.status, 403);
    assert_eq!(response.header("content-type"), Some("text/html"));
}

/// A key is made at the first start, shown then, and works from then on.
#[test]
fn a_key_is_made_once() {
    let mut gateway = Gateway::start_with(Start {
        deployment: "{admin: {admin_listen: {ip: 127.0.0.1, port: 0}}}",
        ..Start::default()
    });
    let line = gateway.wait_for_line("admin key: ");
    let key = line["admin key: ".len()..]
        .split(' ')
        .next()
        .expect("a key")
        .to_owned();
    assert_eq!(key.len(), 32, "{key}");
    let status = |gateway: &Gateway| {
        let response = gateway.admin_with("GET", "/routes", &[("X-API-KEY", &key)], "");
        response.status
    };
    assert_eq!(status(&gateway), 200);
    let file = std::fs::read(gateway.folder().join("logs/store.redb")).expect("a store");
    let shows = |bytes: &[u8]| bytes.windows(key.len()).any(|part| part == key.as_bytes());
    assert!(!shows(&file), "the key itself is not kept");
    gateway.signal("TERM");
    gateway.wait_for_exit();
    gateway.start_again(1);
    gateway.wait_for_line("ready");
    assert_eq!(status(&gateway), 200);
    assert!(!gateway.stderr().contains("admin key: "), "shown once");
}

/// Without keys everybody may do everything, which is told.
#[test]
fn an_open_api_says_so() {
    for admin in ["admin_key: ~", "admin_key_required: false"] {
        let deployment =
            format!("{{admin: {{admin_listen: {{ip: 127.0.0.1, port: 0}}, {admin}}}}}");
        let gateway = Gateway::start_with(Start {
            deployment: &deployment,
            ..Start::default()
        });
        gateway.wait_for_line("the Admin API asks for no key");
        assert_eq!(gateway.admin_with("GET", "/routes", &[], "").status, 200);
    }
}

/// G-242 to G-246, G-248
#[test]
fn schemas_and_plugins() {
    let gateway = Gateway::with_store();
    let names = gateway.asked(200, "GET", "/plugins/list", Value::Null);
    assert_eq!(
        (&names[0], &names[1]),
        (&json!("real-ip"), &json!("client-control"))
    );
    let streams = gateway.asked(200, "GET", "/plugins/list?subsystem=stream", Value::Null);
    assert_eq!(streams, json!([]));
    let all = gateway.asked(200, "GET", "/plugins?all=true", Value::Null);
    assert_eq!(all["key-auth"]["type"], "auth");
    assert_eq!(all["key-auth"]["priority"], 2500);
    let schema = gateway.asked(200, "GET", "/plugins/key-auth", Value::Null);
    assert!(schema["properties"].get("header").is_some(), "{schema}");
    let same = gateway.asked(200, "GET", "/schema/plugins/key-auth", Value::Null);
    assert_eq!(same, schema);
    let consumer = gateway.asked(
        200,
        "GET",
        "/plugins/key-auth?schema_type=consumer",
        Value::Null,
    );
    assert!(consumer["properties"].get("key").is_some(), "{consumer}");
    let said = gateway.refused("GET", "/plugins/cors?schema_type=consumer", Value::Null);
    assert_eq!(said, "not found schema");
    let said = gateway.refused("GET", "/plugins/cors?subsystem=x", Value::Null);
    assert_eq!(said, "unsupported subsystem: x");
    let said = gateway.asked(404, "GET", "/plugins/nope", Value::Null);
    assert_eq!(said["error_msg"], "plugin not found in subsystem http");
    let route = gateway.asked(200, "GET", "/schema/route", Value::Null);
    assert!(route["properties"].get("uri").is_some(), "{route}");
    assert_eq!(
        gateway.refused("GET", "/schema/x", Value::Null),
        "not found schema: x"
    );
    let fine = json!({"uri": "/a", "upstream": {"nodes": {}}, "plugins": {"nope": {}}});
    let answer = gateway.asked(200, "POST", "/schema/validate/routes", fine);
    assert_eq!(answer, Value::Null);
    let said = gateway.refused("POST", "/schema/validate/routes", json!({"uri": 5}));
    assert!(said.contains("wrong type"), "{said}");
    let unknown = gateway.asked(404, "GET", "/foo", Value::Null);
    assert_eq!(unknown["error_msg"], "Unsupported resource type: foo");
    assert_eq!(gateway.admin("PUT", "/plugins/reload", "").text(), "done");
    assert_eq!(gateway.admin("GET", "/plugins/reload", "").status, 405);
    let options = gateway.admin_with("OPTIONS", "/routes", &[], "");
    assert_eq!(options.status, 200);
    assert_eq!(options.header("access-control-allow-origin"), Some("*"));
    assert_eq!(gateway.admin("HEAD", "", "").status, 200);
    assert_eq!(get(gateway.proxy, "/apisix/admin/routes", &[]).status, 404);
    let outside = request(
        gateway.address("admin"),
        "GET",
        "/other",
        &[("X-API-KEY", "test-admin")],
        "",
    );
    assert_eq!(outside.status, 404);
}

/// G-275: what `plugins` of `config.yaml` does not name cannot be configured.
#[test]
fn only_enabled_plugins_can_be_configured() {
    let gateway = Gateway::start_with(Start {
        deployment: STORE,
        sections: "plugins: [cors]",
        ..Start::default()
    });
    let route = |plugin: &str| json!({"uri": "/a", "plugins": {plugin: {}}, "upstream": {"nodes": {"127.0.0.1:1": 1}}});
    let said = gateway.refused("PUT", "/routes/1", route("key-auth"));
    assert_eq!(said, "unknown plugin [key-auth]");
    gateway.asked(201, "PUT", "/routes/1", route("cors"));
}

/// G-263: a whole document is looked at without being applied; all that is wrong is told.
#[test]
fn documents_are_validated() {
    let gateway = Gateway::with_store();
    let good = json!({"routes": [{"id": "r", "uri": "/a", "upstream_id": "9"}]});
    let answer = gateway.asked(200, "POST", "/configs/validate", good);
    assert_eq!(answer, json!({}));
    let bad = json!({
        "routes": [{"id": "r1", "uri": 5}, {"id": "r2", "uri": "/a", "nonsense": 1}],
        "services_conf_version": "x",
    });
    let told = gateway.asked(400, "POST", "/configs/validate", bad);
    assert_eq!(told["error_msg"], "Configuration validation failed");
    let errors = told["errors"].as_array().expect("a list");
    assert_eq!(errors.len(), 3, "{told}");
    assert_eq!(errors[0]["resource_type"], "routes");
    assert_eq!(errors[0]["resource_id"], "r1");
    assert_eq!(
        (&errors[0]["index"], &errors[1]["index"]),
        (&json!(0), &json!(1))
    );
    assert_eq!(
        errors[2]["error"],
        "services_conf_version must be a number, got string"
    );
    assert_eq!(
        gateway.asked(200, "GET", "/routes", Value::Null)["total"],
        0
    );
}

/// A body that is too large is refused by its length alone, and while it comes without one.
#[test]
fn bodies_have_a_limit() {
    let gateway = Gateway::with_store();
    let head = "PUT /apisix/admin/routes/1 HTTP/1.1\r\nHost: x\r\nX-API-KEY: test-admin\r\n";
    let address = gateway.address("admin");
    let mut told = support::client::Connection::open(address);
    told.send(format!("{head}Content-Length: 1572865\r\n\r\n").as_bytes());
    let response = told.response(false);
    assert_eq!(response.status, 413);
    let said = response.json();
    assert_eq!(
        said["error_msg"],
        "invalid request body: request size 1572865 is greater than the maximum size 1572864 allowed"
    );
    let mut chunked = support::client::Connection::open(address);
    chunked.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes());
    let piece = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    for _ in 0..25 {
        if !chunked.try_send(piece.as_bytes()) {
            break;
        }
    }
    assert_eq!(chunked.response(false).status, 413);
    let denied = gateway.admin_with("PUT", "/routes/1", &[("Content-Length", "1572865")], "");
    assert_eq!(denied.status, 401, "who has no key is not asked for a body");
}
