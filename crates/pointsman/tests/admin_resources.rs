//! The Admin API: resources are written, looked at and removed, and traffic follows.

mod support;

use serde_json::{Value, json};
use support::{Gateway, Upstream, admin::upstream, get, wait_until};

fn plain(uri: &str) -> Value {
    json!({ "uri": uri, "upstream": { "nodes": { "127.0.0.1:1": 1 } } })
}

/// G-211, G-212, G-216 to G-218: what is stored is what was sent, with id and times.
#[test]
fn a_route_comes_and_goes() {
    let echo = Upstream::named("a");
    let gateway = Gateway::with_store();
    let empty = json!({"list": [], "total": 0});
    assert_eq!(gateway.asked(200, "GET", "/routes", Value::Null), empty);
    let route = json!({"uri": "/hello", "upstream": upstream(echo.address)});
    let created = gateway.asked(201, "PUT", "/routes/1", route.clone());
    assert_eq!(created["key"], "/apisix/routes/1");
    assert_eq!(created["value"]["id"], "1");
    assert!(created["value"]["create_time"].is_u64(), "{created}");
    assert_eq!(
        created["value"]["create_time"],
        created["value"]["update_time"]
    );
    gateway.wait_for_route("/hello", 200);
    let replaced = gateway.asked(200, "PUT", "/routes/1", route);
    assert_eq!(
        replaced["value"]["create_time"],
        created["value"]["create_time"]
    );
    let found = gateway.asked(200, "GET", "/routes/1", Value::Null);
    assert_eq!(
        found["value"].get("priority"),
        None,
        "defaults are not stored"
    );
    assert_eq!(found["createdIndex"], 1);
    assert_eq!(found["modifiedIndex"], 2);
    let list = gateway.asked(200, "GET", "/routes", Value::Null);
    assert_eq!(list, json!({"list": [found], "total": 1}));
    let deleted = gateway.asked(200, "DELETE", "/routes/1", Value::Null);
    assert_eq!(deleted, json!({"deleted": "1", "key": "/apisix/routes/1"}));
    gateway.wait_for_route("/hello", 404);
    for method in ["GET", "DELETE"] {
        let gone = gateway.asked(404, method, "/routes/1", Value::Null);
        assert_eq!(gone, json!({"message": "Key not found"}));
    }
    let gone = gateway.asked(404, "PATCH", "/routes/1", json!({"desc": "d"}));
    assert_eq!(gone, json!({"message": "Key not found"}));
}

/// Only a PATCH looks into a resource, and not deeper than can be read again.
#[test]
fn a_path_into_a_resource_is_for_patches() {
    let gateway = Gateway::with_store();
    gateway.asked(201, "PUT", "/routes/1", plain("/a"));
    gateway.asked(201, "PUT", "/consumers", json!({"username": "a"}));
    for path in ["/routes/1/plugins/key-auth", "/consumers/a/credential/c"] {
        for method in ["GET", "DELETE"] {
            gateway.asked(404, method, path, Value::Null);
        }
    }
    gateway.asked(404, "PUT", "/routes/1/plugins", plain("/b"));
    let deep = format!("/routes/1/plugins{}", "/a".repeat(2_000));
    gateway.asked(400, "PATCH", &deep, json!(1));
    let nested = format!("{}1{}", "[".repeat(120), "]".repeat(120));
    let nested: Value = serde_json::from_str(&nested).expect("JSON");
    let labels = "/routes/1/plugins/key-auth/_meta/error_response/a/b/c/d/e/f/g/h";
    gateway.asked(400, "PATCH", labels, nested);
    let left = gateway.asked(200, "GET", "/routes/1", Value::Null);
    assert_eq!(left["value"]["uri"], "/a", "{left}");
    gateway.asked(200, "GET", "/consumers/a", Value::Null);
}

/// Many new resources at once: each gets an id of its own, and none is turned away.
#[test]
fn resources_may_be_posted_at_once() {
    let gateway = Gateway::with_store();
    std::thread::scope(|scope| {
        for number in 0..40 {
            let gateway = &gateway;
            scope.spawn(move || {
                gateway.asked(201, "POST", "/routes", plain(&format!("/{number}")));
            });
        }
    });
    let list = gateway.asked(200, "GET", "/routes", Value::Null);
    assert_eq!(list["total"], 40);
}

/// G-213 to G-215: ids stand in the path or in the body, and are made for POST.
#[test]
fn ids_are_made_or_given_once() {
    let gateway = Gateway::with_store();
    let posted = gateway.asked(201, "POST", "/routes", plain("/a"));
    let id = posted["value"]["id"].as_str().expect("an id").to_owned();
    assert_eq!(id.len(), 20, "{id}");
    assert!(id.bytes().all(|digit| digit.is_ascii_digit()), "{id}");
    assert_eq!(posted["key"], format!("/apisix/routes/{id}"));
    let other = gateway.asked(201, "POST", "/routes", plain("/b"));
    assert_ne!(other["value"]["id"], id);
    let said = gateway.refused("POST", "/routes/1", plain("/a"));
    assert_eq!(said, "wrong route id, do not need it");
    let mut with_id = plain("/a");
    with_id["id"] = json!("2");
    assert_eq!(
        gateway.refused("PUT", "/routes/1", with_id.clone()),
        "wrong route id"
    );
    assert_eq!(
        gateway.refused("PUT", "/routes", plain("/a")),
        "missing route id"
    );
    let own = gateway.asked(201, "PUT", "/routes", with_id);
    assert_eq!(own["key"], "/apisix/routes/2");
    let mut number = plain("/a");
    number["id"] = json!(3);
    let own = gateway.asked(201, "PUT", "/routes/3", number);
    assert_eq!(own["value"]["id"], "3");
    let said = gateway.refused("PUT", "/routes/a%20b", plain("/a"));
    assert!(
        said.starts_with("invalid configuration: property \"id\" validation failed"),
        "{said}"
    );
}

/// G-219, G-220
#[test]
fn a_patch_changes_a_part() {
    let (a, b) = (Upstream::named("a"), Upstream::named("b"));
    let gateway = Gateway::with_store();
    let route = json!({"uri": "/hello", "methods": ["GET"], "upstream": upstream(a.address)});
    let created = gateway.asked(201, "PUT", "/routes/1", route);
    let patch = json!({"methods": null, "desc": "d"});
    let patched = gateway.asked(200, "PATCH", "/routes/1", patch);
    assert_eq!(patched["value"].get("methods"), None);
    assert_eq!(patched["value"]["desc"], "d");
    let time = |value: &Value| value["value"]["update_time"].as_u64().expect("a time");
    assert!(time(&patched) >= time(&created));
    let nodes = json!({b.address.to_string(): 1});
    let patched = gateway.asked(200, "PATCH", "/routes/1/upstream/nodes", nodes.clone());
    assert_eq!(patched["value"]["upstream"]["nodes"], nodes);
    wait_until("the other node", || {
        get(gateway.proxy, "/hello", &[]);
        (b.hits() > 0).then_some(())
    });
    let said = gateway.refused("PATCH", "/routes/1/desc/x", json!(1));
    assert_eq!(said, "invalid sub-path");
    let said = gateway.refused("PATCH", "/routes/1", json!({"priority": "high"}));
    assert!(
        said.starts_with("invalid configuration: property \"priority\""),
        "{said}"
    );
    let patched = gateway.asked(200, "PATCH", "/routes/1", json!({"update_time": 5}));
    assert_eq!(patched["value"]["update_time"], 5);
}

/// G-221 to G-224: what a schema refuses is refused in APISIX's words.
#[test]
fn wrong_bodies_are_refused() {
    let gateway = Gateway::with_store();
    let response = gateway.admin("PUT", "/routes/1", "{\"uri\": ");
    assert_eq!(response.status, 400);
    let told = response.json();
    assert_eq!(told["req_body"], "{\"uri\": ");
    let message = told["error_msg"].as_str().expect("a message");
    assert!(message.starts_with("invalid request body: "), "{message}");
    let check = |extra: Value, expected: &str| {
        let mut route = plain("/a");
        for (key, value) in extra.as_object().expect("a map") {
            route[key] = value.clone();
        }
        let said = gateway.refused("PUT", "/routes/1", route);
        assert_eq!(said, expected, "{extra}");
    };
    check(
        json!({"create_time": 1}),
        "the property is forbidden:  create_time",
    );
    check(
        json!({"upstream": {"create_time": 1, "nodes": {}}}),
        "the property is forbidden:  upstream.create_time",
    );
    check(
        json!({"x": 1}),
        "invalid configuration: additional properties forbidden, found x",
    );
    check(
        json!({"uri": 5}),
        "invalid configuration: property \"uri\" validation failed: wrong type: expected string, \
         got number",
    );
    check(
        json!({"plugins": {"key-auth": {"header": 5}}}),
        "failed to check the configuration of plugin key-auth err: property \"header\" validation \
         failed: wrong type: expected string, got number",
    );
    check(json!({"plugins": {"nope": {}}}), "unknown plugin [nope]");
    check(
        json!({"host": "a.com", "hosts": ["b.com"]}),
        "only one of host or hosts is allowed",
    );
    let said = gateway.refused("PUT", "/routes/1", json!({"uri": "/a"}));
    assert!(
        said.starts_with("invalid configuration: object matches none of the required"),
        "{said}"
    );
    assert_eq!(
        gateway.refused("PUT", "/routes/1", Value::Null),
        "missing configurations"
    );
    let list = gateway.asked(200, "GET", "/routes", Value::Null);
    assert_eq!(list["total"], 0);
}

/// G-225
#[test]
fn what_has_a_time_to_live_goes_away_by_itself() {
    let gateway = Gateway::with_store();
    gateway.asked(201, "PUT", "/routes/1?ttl=1", plain("/a"));
    gateway.asked(200, "GET", "/routes/1", Value::Null);
    wait_until("the route to expire", || {
        (gateway.admin("GET", "/routes/1", "").status == 404).then_some(())
    });
    gateway.wait_for_route("/a", 404);
    for ttl in ["soon", "0", "-1", "inf"] {
        let said = gateway.refused("PUT", &format!("/routes/1?ttl={ttl}"), plain("/a"));
        assert!(
            said.starts_with("invalid argument ttl: should be "),
            "{said}"
        );
    }
}

/// G-226 to G-229: what is named must exist, and must stay as long as it is.
#[test]
fn references_hold() {
    let gateway = Gateway::with_store();
    let refer = |field: &str| json!({"uri": "/a", field: "9"});
    for (field, kind) in [
        ("upstream_id", "upstream"),
        ("service_id", "service"),
        ("plugin_config_id", "plugin config"),
    ] {
        assert_eq!(
            gateway.refused("PUT", "/routes/1", refer(field)),
            format!("failed to fetch {kind} info by {kind} id [9], response code: 404")
        );
    }
    let said = gateway.refused(
        "PUT",
        "/consumers",
        json!({"username": "a", "group_id": "9"}),
    );
    assert_eq!(
        said,
        "failed to fetch consumer group info by consumer group id [9], response code: 404"
    );
    gateway.asked(
        201,
        "PUT",
        "/upstreams/9",
        json!({"nodes": {"127.0.0.1:1": 1}}),
    );
    gateway.asked(201, "PUT", "/services/9", json!({"upstream_id": 9}));
    gateway.asked(201, "PUT", "/plugin_configs/9", json!({"plugins": {}}));
    gateway.asked(201, "PUT", "/consumer_groups/9", json!({"plugins": {}}));
    let said = gateway.refused("DELETE", "/upstreams/9", Value::Null);
    assert_eq!(
        said,
        "can not delete this upstream, service [9] is still using it now"
    );
    gateway.asked(201, "PUT", "/routes/1", refer("upstream_id"));
    let said = gateway.refused("DELETE", "/upstreams/9", Value::Null);
    assert_eq!(
        said,
        "can not delete this upstream, route [1] is still using it now"
    );
    gateway.asked(200, "PUT", "/routes/1", refer("service_id"));
    let said = gateway.refused("DELETE", "/services/9", Value::Null);
    assert_eq!(
        said,
        "can not delete this service directly, route [1] is still using it now"
    );
    gateway.asked(200, "PUT", "/routes/1", refer("plugin_config_id"));
    let said = gateway.refused("DELETE", "/plugin_configs/9", Value::Null);
    assert_eq!(
        said,
        "can not delete this plugin config, route [1] is still using it now"
    );
    gateway.asked(
        201,
        "PUT",
        "/consumers",
        json!({"username": "a", "group_id": "9"}),
    );
    let said = gateway.refused("DELETE", "/consumer_groups/9", Value::Null);
    assert_eq!(
        said,
        "can not delete this consumer group, consumer [a] is still using it now"
    );
    gateway.refused("DELETE", "/upstreams/9?force=1", Value::Null);
    gateway.asked(200, "DELETE", "/upstreams/9?force=true", Value::Null);
}

/// G-230 to G-235: consumers, their credentials, and keys that only one may have.
#[test]
fn consumers_have_credentials() {
    let gateway = Gateway::with_store();
    let consumer = json!({"username": "a", "plugins": {"key-auth": {"key": "k"}}});
    let created = gateway.asked(201, "PUT", "/consumers", consumer.clone());
    assert_eq!(created["key"], "/apisix/consumers/a");
    assert_eq!(created["value"].get("id"), None);
    assert_eq!(
        gateway.refused("PUT", "/consumers/b", consumer.clone()),
        "wrong username"
    );
    gateway.asked(200, "PUT", "/consumers/a", consumer);
    for method in ["POST", "PATCH"] {
        let said = gateway.asked(405, method, "/consumers/a", json!({}));
        let expected = format!("not supported `{method}` method for consumer");
        assert_eq!(said["error_msg"], expected);
    }
    let b = json!({"username": "b", "plugins": {"key-auth": {"key": "k"}}});
    let said = gateway.refused("PUT", "/consumers", b);
    assert_eq!(
        said,
        "duplicate key of plugin key-auth found with consumer: a"
    );
    let credential = |key: &str| json!({"plugins": {"key-auth": {"key": key}}});
    let said = gateway.asked(404, "PUT", "/consumers/x/credentials/1", credential("x"));
    assert_eq!(said["error_msg"], "consumer not found");
    let created = gateway.asked(201, "PUT", "/consumers/a/credentials/1", credential("c"));
    assert_eq!(created["key"], "/apisix/consumers/a/credentials/1");
    assert_eq!(created["value"]["id"], "1");
    gateway.asked(200, "PUT", "/consumers/a/credentials/1", credential("c"));
    let said = gateway.refused("PUT", "/consumers/a/credentials/2", credential("c"));
    let taken = "duplicate key of plugin key-auth found with credential: 1 of consumer: a";
    assert_eq!(said, taken);
    let two = json!({"plugins": {"key-auth": {"key": "d"}, "cors": {}}});
    let said = gateway.refused("PUT", "/consumers/a/credentials/2", two);
    assert!(said.contains("at most 1"), "{said}");
    let other = json!({"plugins": {"cors": {}}});
    let said = gateway.refused("PUT", "/consumers/a/credentials/2", other);
    assert_eq!(
        said,
        "only supports auth type plugins in consumer credential"
    );
    let wrong = json!({"plugins": {"key-auth": {"key": 5}}});
    let said = gateway.refused("PUT", "/consumers/a/credentials/2", wrong);
    let start =
        "invalid plugins configuration: failed to check the configuration of plugin key-auth";
    assert!(said.starts_with(start), "{said}");
    let said = gateway.refused("PUT", "/consumers/a/credentials", credential("d"));
    assert_eq!(said, "missing credential id");
    let consumers = gateway.asked(200, "GET", "/consumers", Value::Null);
    assert_eq!(consumers["total"], 1);
    let list = gateway.asked(200, "GET", "/consumers/a/credentials", Value::Null);
    assert_eq!(list["total"], 1);
    gateway.asked(200, "DELETE", "/consumers/a", Value::Null);
    let gone = gateway.asked(404, "GET", "/consumers/a/credentials/1", Value::Null);
    assert_eq!(gone, json!({"message": "Key not found"}));
}

/// Keys that come and go over the Admin API open routes, and stop doing so.
#[test]
fn a_key_works_as_soon_as_it_is_written() {
    let echo = Upstream::named("a");
    let gateway = Gateway::with_store();
    let route = json!({
        "uri": "/x", "plugins": {"key-auth": {}}, "upstream": upstream(echo.address),
    });
    gateway.asked(201, "PUT", "/routes/1", route);
    gateway.wait_for_route("/x", 401);
    gateway.asked(201, "PUT", "/consumers", json!({"username": "a"}));
    let credential = json!({"plugins": {"key-auth": {"key": "secret"}}});
    gateway.asked(201, "PUT", "/consumers/a/credentials/1", credential);
    let wait_for = |status: u16| {
        wait_until(&format!("{status} with the key"), || {
            let response = get(gateway.proxy, "/x", &[("apikey", "secret")]);
            (response.status == status).then_some(())
        });
    };
    wait_for(200);
    gateway.asked(200, "DELETE", "/consumers/a/credentials/1", Value::Null);
    wait_for(401);
}

/// G-236 to G-239
#[test]
fn lists_are_filtered_and_come_in_pages() {
    let gateway = Gateway::with_store();
    gateway.asked(201, "PUT", "/services/1", json!({}));
    for number in 1..=15 {
        let mut route = plain(&format!("/r/{number}"));
        route["name"] = json!(format!("name-{number}"));
        if number <= 3 {
            route["labels"] = json!({"team": "x"});
            route["service_id"] = json!("1");
        }
        gateway.asked(201, "PUT", &format!("/routes/{number}"), route);
    }
    let total = |query: &str| {
        let list = gateway.asked(200, "GET", &format!("/routes?{query}"), Value::Null);
        let shown = list["list"].as_array().expect("a list").len();
        (shown, list["total"].as_u64().expect("a number"))
    };
    assert_eq!(total("name=name-1$"), (1, 1));
    assert_eq!(total("name=name-1"), (7, 7));
    assert_eq!(total("label=team"), (3, 3));
    assert_eq!(total("label=x"), (0, 0));
    assert_eq!(total("uri=^/r/1.$"), (6, 6));
    assert_eq!(total("filter=service_id%3D1"), (3, 3));
    assert_eq!(total("filter=service_id%3D1%26name%3Dname-2"), (1, 1));
    assert_eq!(total("label=team&name=name-3"), (1, 1));
    assert_eq!(total("page=2&page_size=10"), (5, 15));
    assert_eq!(total("page=0&page_size=10"), (10, 15));
    assert_eq!(total("page=3&page_size=10"), (0, 15));
    for size in ["5", "501", "x"] {
        let said = gateway.refused(
            "GET",
            &format!("/routes?page=1&page_size={size}"),
            Value::Null,
        );
        assert_eq!(said, "page_size must be between 10 and 500");
    }
    let list = gateway.asked(200, "GET", "/routes?page=1&page_size=10", Value::Null);
    let ids: Vec<&str> = list["list"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|one| one["value"]["id"].as_str())
        .collect();
    // By age, not by id.
    assert_eq!(ids, ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]);
}

/// G-240, G-241, G-247 and the rules of global rules.
#[test]
fn the_other_collections() {
    let gateway = Gateway::with_store();
    let metadata = json!({"log_format": {"a": "$host"}});
    let created = gateway.asked(201, "PUT", "/plugin_metadata/http-logger", metadata);
    assert_eq!(created["value"]["id"], "http-logger");
    assert_eq!(created["value"].get("create_time"), None);
    let said = gateway.refused("PUT", "/plugin_metadata/nope", json!({}));
    assert_eq!(said, "invalid plugin name");
    let said = gateway.refused("PUT", "/plugin_metadata", json!({}));
    assert_eq!(said, "missing plugin name");

    let vault = json!({"uri": "http://127.0.0.1:8200", "prefix": "kv/x", "token": "t"});
    let created = gateway.asked(201, "PUT", "/secrets/vault/1", vault);
    assert_eq!(created["key"], "/apisix/secrets/vault/1");
    gateway.asked(200, "PATCH", "/secrets/vault/1", json!({"token": "u"}));
    let found = gateway.asked(200, "GET", "/secrets/vault/1", Value::Null);
    assert_eq!(found["value"]["token"], "u");
    assert_eq!(
        gateway.refused("PATCH", "/secrets/vault", json!({})),
        "no secret id"
    );
    gateway.refused("PUT", "/secrets/nope/1", json!({}));
    gateway.refused("PUT", "/secrets/vault/2", json!({"uri": "http://x"}));
    gateway.asked(200, "DELETE", "/secrets/vault/1", Value::Null);

    gateway.asked(
        201,
        "PUT",
        "/global_rules/1",
        json!({"plugins": {"cors": {}}}),
    );
    gateway.asked(
        200,
        "PUT",
        "/global_rules/1",
        json!({"plugins": {"cors": {}}}),
    );
    let said = gateway.refused("PUT", "/global_rules/2", json!({"plugins": {"cors": {}}}));
    assert_eq!(
        said,
        "plugin 'cors' already exists in global rule with id '1'"
    );

    let said = gateway.refused("PUT", "/stream_routes/1", json!({}));
    assert_eq!(said, "stream mode is disabled, can not add stream routes");
    let said = gateway.refused("PUT", "/protos/1", json!({"content": "x"}));
    assert!(said.contains("not supported"), "{said}");
    for (method, path) in [
        ("POST", "/plugin_configs"),
        ("POST", "/global_rules"),
        ("POST", "/consumer_groups"),
        ("POST", "/secrets"),
        ("PATCH", "/protos/1"),
        ("PATCH", "/plugin_metadata/cors"),
    ] {
        gateway.asked(405, method, path, json!({}));
    }
}

/// G-247, G-294: certificates.
#[test]
fn keys_of_certificates_are_not_shown() {
    let gateway = Gateway::with_store();
    let pair = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).expect("made");
    let (cert, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
    let ssl = json!({"sni": "a.test", "cert": cert, "key": key});
    let written = gateway.asked(201, "PUT", "/ssls/1", ssl);
    assert_eq!(
        written["value"].get("key"),
        None,
        "private keys are not told"
    );
    let changed = gateway.asked(200, "PATCH", "/ssls/1", json!({"labels": {"a": "b"}}));
    assert_eq!(
        changed["value"].get("key"),
        None,
        "private keys are not told"
    );
    let one = gateway.asked(200, "GET", "/ssls/1", Value::Null);
    let list = gateway.asked(200, "GET", "/ssls", Value::Null);
    for value in [&one["value"], &list["list"][0]["value"]] {
        assert_eq!(value.get("key"), None);
        assert_eq!(value["sni"], "a.test");
    }
}
