//! etcd as the store: APISIX's keys and values, one truth for several gateways, and etcd's own troubles.

mod support;
mod admin_etcd {
    mod outages;
    mod secured;
    mod shared;
}

use std::net::SocketAddr;

use serde_json::{Value, json};
use support::{Gateway, Start, Upstream, admin::upstream, etcd::Etcd, get, run, wait_until};

const STATUS: &str = "  status: {ip: 127.0.0.1, port: 0}";

fn gateway_on(deployment: &str) -> Gateway {
    Gateway::start_with(Start {
        deployment,
        apisix: STATUS,
        ..Start::default()
    })
}

fn gateway(etcd: &Etcd) -> Gateway {
    gateway_on(&etcd.deployment(""))
}

fn route(uri: &str, to: SocketAddr) -> Value {
    json!({ "uri": uri, "upstream": upstream(to) })
}

/// As APISIX writes it.
fn apisix_route(id: &str, uri: &str, to: SocketAddr) -> String {
    json!({
        "id": id, "uri": uri, "priority": 0, "status": 1,
        "create_time": 1_700_000_000, "update_time": 1_700_000_000,
        "upstream": { "nodes": { to.to_string(): 1 }, "type": "roundrobin", "scheme": "http",
            "hash_on": "vars", "pass_host": "pass" },
    })
    .to_string()
}

fn readiness(gateway: &Gateway) -> (u16, Value) {
    let response = get(gateway.address("status"), "/status/ready", &[]);
    (response.status, response.json())
}

fn wait_for_reach(gateway: &Gateway, reachable: bool) {
    let line = format!("\napisix_etcd_reachable {}\n", u8::from(reachable));
    wait_until(&format!("etcd to be told as {reachable}"), || {
        gateway.metrics().contains(&line).then_some(())
    });
}

/// Every resource is at APISIX's key with APISIX's value, and answers have etcd's own indexes.
#[test]
fn resources_are_where_apisix_has_them() {
    let Some(etcd) = Etcd::start() else { return };
    let gateway = gateway(&etcd);
    let to = SocketAddr::from(([127, 0, 0, 1], 1));
    let created = gateway.asked(201, "PUT", "/routes/1", route("/a", to));
    assert_eq!(created["key"], "/apisix/routes/1");
    let entry = etcd.get("/apisix/routes/1").expect("stored");
    assert_eq!(entry.json(), created["value"]);
    assert_eq!(entry.json()["id"], "1");
    assert!(entry.json()["create_time"].is_u64() && entry.json()["update_time"].is_u64());
    let again = gateway.asked(200, "PATCH", "/routes/1", json!({"desc": "d"}));
    let entry = etcd.get("/apisix/routes/1").expect("stored");
    assert_eq!(entry.json(), again["value"]);
    let shown = gateway.asked(200, "GET", "/routes/1", Value::Null);
    assert_eq!(shown["createdIndex"], entry.created);
    assert_eq!(shown["modifiedIndex"], entry.modified);
    assert!(entry.created < entry.modified);

    let key = json!({"plugins": {"key-auth": {"key": "k"}}});
    gateway.asked(201, "PUT", "/consumers", json!({"username": "a"}));
    gateway.asked(201, "PUT", "/consumers/a/credentials/c", key);
    gateway.asked(201, "PUT", "/upstreams/u", upstream(to));
    gateway.asked(201, "PUT", "/global_rules/1", json!({"plugins": {}}));
    gateway.asked(
        201,
        "PUT",
        "/plugin_metadata/http-logger",
        json!({"log_format": {}}),
    );
    let vault = json!({"uri": "http://127.0.0.1:1", "prefix": "p", "token": "t"});
    gateway.asked(201, "PUT", "/secrets/vault/1", vault);
    let posted = gateway.asked(201, "POST", "/services", json!({"upstream_id": "u"}));
    let id = posted["value"]["id"].as_str().expect("an id").to_owned();
    assert_eq!(id.len(), 20);
    for key in [
        "consumers/a",
        "consumers/a/credentials/c",
        "upstreams/u",
        "global_rules/1",
        "plugin_metadata/http-logger",
        "secrets/vault/1",
        &format!("services/{id}"),
    ] {
        assert!(etcd.get(&format!("/apisix/{key}")).is_some(), "{key}");
    }
    assert!(
        etcd.get("/apisix/consumers/a")
            .expect("stored")
            .json()
            .get("id")
            .is_none()
    );
    // A consumer takes its credentials along.
    gateway.asked(200, "DELETE", "/consumers/a", Value::Null);
    assert_eq!(etcd.get("/apisix/consumers/a/credentials/c"), None);
    let refused = gateway.refused("DELETE", "/upstreams/u", Value::Null);
    assert!(refused.contains("is still using it now"), "{refused}");
    let deleted = gateway.asked(200, "DELETE", "/routes/1", Value::Null);
    assert_eq!(deleted, json!({"deleted": "1", "key": "/apisix/routes/1"}));
    assert_eq!(etcd.get("/apisix/routes/1"), None);
    let newest = gateway.metric(&["apisix_etcd_modify_indexes{key=\"services\"}"]);
    let entry = etcd.get(&format!("/apisix/services/{id}")).expect("stored");
    assert!((newest - entry.modified as f64).abs() < 0.5);
}

/// `ttl` is a lease of etcd's, and a later write without it stays.
#[test]
fn time_to_live_is_a_lease() {
    let Some(etcd) = Etcd::start() else { return };
    let gateway = gateway(&etcd);
    let echo = Upstream::named("a");
    gateway.asked(201, "PUT", "/routes/1?ttl=1000", route("/a", echo.address));
    assert!(
        etcd.get("/apisix/routes/1")
            .expect("stored")
            .lease
            .is_some()
    );
    gateway.asked(200, "PUT", "/routes/1", route("/a", echo.address));
    assert_eq!(etcd.get("/apisix/routes/1").expect("stored").lease, None);
    gateway.asked(201, "PUT", "/routes/2?ttl=1", route("/b", echo.address));
    wait_until("the route to go away", || {
        let status = gateway.admin("GET", "/routes/2", "").status;
        (status == 404).then_some(())
    });
    gateway.wait_for_route("/b", 404);
    assert_eq!(get(gateway.proxy, "/a", &[]).status, 200);
}

/// What APISIX, or anybody, writes to etcd is served; what is no resource is left alone.
#[test]
fn what_others_write_is_served() {
    let Some(etcd) = Etcd::start() else { return };
    let echo = Upstream::named("a");
    etcd.put("/apisix/routes/", "init_dir");
    etcd.put("/apisix/upstreams/", "init_dir");
    etcd.put("/apisix/plugins", r#"[{"name":"key-auth"}]"#);
    etcd.put("/apisix/data_plane/server_info/x", "{}");
    etcd.put(
        "/apisix2/routes/9",
        &apisix_route("9", "/nine", echo.address),
    );
    etcd.put("/apisix/routes/1", &apisix_route("1", "/one", echo.address));
    let gateway = gateway(&etcd);
    assert_eq!(get(gateway.proxy, "/one", &[]).status, 200);
    etcd.put("/apisix/routes/2", &apisix_route("2", "/two", echo.address));
    gateway.wait_for_route("/two", 200);
    etcd.put("/apisix/gen_id", "1");
    etcd.delete("/apisix/routes/1");
    gateway.wait_for_route("/one", 404);
    assert_eq!(get(gateway.proxy, "/nine", &[]).status, 404);
    let list = gateway.asked(200, "GET", "/routes", Value::Null);
    assert_eq!(list["total"], 1, "{list}");
    let errors = gateway.control("/v1/config/errors").json();
    assert_eq!(errors["problems"], json!([]));
    // What others write elsewhere in etcd moves its revision, and holds nothing up.
    etcd.put("/elsewhere", "x");
    gateway.asked(200, "PATCH", "/routes/2", json!({"desc": "d"}));
    let config = gateway.folder().join("config.yaml").display().to_string();
    let (code, out, err) = run(&["check", "--config", &config]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("1 route(s) can be served"), "{out}");
}

/// Another prefix is another world.
#[test]
fn the_prefix_is_obeyed() {
    let Some(etcd) = Etcd::start() else { return };
    let echo = Upstream::named("a");
    let gateway = gateway_on(&etcd.deployment(", prefix: /gate/way/"));
    let created = gateway.asked(201, "PUT", "/routes/1", route("/a", echo.address));
    assert_eq!(created["key"], "/gate/way/routes/1");
    let listed = gateway.asked(200, "GET", "/routes", Value::Null);
    assert_eq!(listed["list"][0]["key"], "/gate/way/routes/1");
    assert!(etcd.get("/gate/way/routes/1").is_some());
    gateway.wait_for_route("/a", 200);
    etcd.put("/apisix/routes/2", &apisix_route("2", "/b", echo.address));
    etcd.put("/gate/way/routes/3", &apisix_route("3", "/c", echo.address));
    gateway.wait_for_route("/c", 200);
    assert_eq!(get(gateway.proxy, "/b", &[]).status, 404);
}

/// A value that cannot be used is told, and what was there before stays.
#[test]
fn bad_values_are_told_and_change_nothing() {
    let Some(etcd) = Etcd::start() else { return };
    let echo = Upstream::named("a");
    let gateway = gateway(&etcd);
    let good = apisix_route("1", "/a", echo.address);
    etcd.put("/apisix/routes/1", &good);
    gateway.wait_for_route("/a", 200);
    let bad = [
        "{\"uri\": ",
        "7",
        r#"{"id":"1","uri":7}"#,
        r#"{"id":"1","uri":"/a","nonsense":1}"#,
    ];
    for (number, bad) in bad.iter().enumerate() {
        etcd.put("/apisix/routes/1", bad);
        let after = format!("/after-{number}");
        etcd.put("/apisix/routes/2", &apisix_route("2", &after, echo.address));
        gateway.wait_for_route(&after, 200);
        assert_eq!(get(gateway.proxy, "/a", &[]).status, 200, "{bad}");
        let errors = gateway.control("/v1/config/errors").json();
        let first = &errors["problems"][0];
        assert_eq!(first["severity"], "error", "{errors}");
        assert_eq!(first["resource"], "/routes/1", "{errors}");
        assert!(gateway.metric(&["pointsman_config_errors"]) > 0.5);
    }
    gateway.wait_for_line("/routes/1");
    etcd.put(
        "/apisix/routes/1",
        &apisix_route("1", "/fixed", echo.address),
    );
    gateway.wait_for_route("/fixed", 200);
    let errors = gateway.control("/v1/config/errors").json();
    assert_eq!(errors["problems"], json!([]));
    // One that was bad from the start takes nothing else along.
    etcd.put("/apisix/routes/3", "nonsense");
    let second = self::gateway(&etcd);
    assert_eq!(get(second.proxy, "/fixed", &[]).status, 200);
    let list = second.asked(200, "GET", "/routes", Value::Null);
    assert_eq!(list["total"], 3, "{list}");
    second.asked(200, "DELETE", "/routes/3", Value::Null);
}
