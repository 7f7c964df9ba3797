//! Several gateways on one etcd.

use std::{net::SocketAddr, sync::Barrier};

use serde_json::{Value, json};

use crate::{
    gateway, gateway_on, route,
    support::{
        Gateway, Upstream,
        admin::upstream,
        etcd::{Etcd, Line, deployment},
    },
};

/// What one gateway has acknowledged another knows: it shows it, and goes by it.
#[test]
fn two_gateways_are_one() {
    let Some(etcd) = Etcd::start() else { return };
    let echo = Upstream::named("a");
    let (one, other) = (gateway(&etcd), gateway(&etcd));
    for number in 0..30 {
        let (writer, reader) = match number % 2 {
            0 => (&one, &other),
            _ => (&other, &one),
        };
        let upstreams = format!("/upstreams/{number}");
        let created = writer.asked(201, "PUT", &upstreams, upstream(echo.address));
        let shown = reader.asked(200, "GET", &upstreams, Value::Null);
        assert_eq!(shown["value"], created["value"]);
        let by_id = json!({"uri": format!("/{number}"), "upstream_id": number.to_string()});
        reader.asked(201, "PUT", &format!("/routes/{number}"), by_id);
        writer.refused("DELETE", &upstreams, Value::Null);
    }
    for number in 0..30 {
        one.wait_for_route(&format!("/{number}"), 200);
        other.wait_for_route(&format!("/{number}"), 200);
    }
    let list = |gateway: &Gateway| gateway.asked(200, "GET", "/routes", Value::Null);
    assert_eq!(list(&one), list(&other));
}

/// Also a gateway whose watch has gone silent, as over a line that is dead on one side, shows nothing that
/// has been overtaken; and it notices that it is deaf.
#[test]
fn a_deaf_gateway_tells_nothing_old() {
    let Some(etcd) = Etcd::start() else { return };
    let echo = Upstream::named("a");
    let line = Line::to(etcd.address);
    let one = gateway(&etcd);
    let other = gateway_on(&deployment(&format!("http://{}", line.address), ""));
    other.asked(201, "PUT", "/routes/1", route("/a", echo.address));
    line.deafen();
    one.asked(201, "PUT", "/routes/2", route("/b", echo.address));
    one.asked(200, "DELETE", "/routes/1", Value::Null);
    other.asked(200, "GET", "/routes/2", Value::Null);
    other.asked(404, "GET", "/routes/1", Value::Null);
    other.wait_for_route("/b", 200);
    other.wait_for_route("/a", 404);
    // Nobody asks, and it is noticed all the same.
    line.deafen();
    one.asked(201, "PUT", "/routes/3", route("/c", echo.address));
    other.wait_for_route("/c", 200);
}

/// However many patch through whichever gateway, nothing gets lost.
#[test]
fn concurrent_patches_all_count() {
    let Some(etcd) = Etcd::start() else { return };
    let gateways = [gateway(&etcd), gateway(&etcd)];
    let to = SocketAddr::from(([127, 0, 0, 1], 1));
    gateways[0].asked(201, "PUT", "/routes/1", route("/a", to));
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let gateway = &gateways[thread % 2];
            scope.spawn(move || {
                for number in 0..10 {
                    let label = format!("l{thread}-{number}");
                    let patch = json!({"labels": {label: "x"}});
                    gateway.asked(200, "PATCH", "/routes/1", patch);
                }
            });
        }
    });
    let stored = etcd.get("/apisix/routes/1").expect("stored").json();
    assert_eq!(stored["labels"].as_object().expect("labels").len(), 60);
}

/// What only one may have only one gets, whichever gateways are asked at the same moment; and what is
/// referred to stays.
#[test]
fn rules_across_resources_hold_over_gateways() {
    let Some(etcd) = Etcd::start() else { return };
    let gateways = [gateway(&etcd), gateway(&etcd)];
    let to = SocketAddr::from(([127, 0, 0, 1], 1));
    for round in 0..25 {
        gateways[0].asked(201, "PUT", &format!("/upstreams/{round}"), upstream(to));
        let start = Barrier::new(4);
        let asked = |which: usize, method: &'static str, path: String, body: Value| {
            let (gateway, start) = (&gateways[which], &start);
            move || {
                start.wait();
                let body = if body.is_null() {
                    String::new()
                } else {
                    body.to_string()
                };
                gateway.admin(method, &path, &body).status
            }
        };
        let consumer = |name: &str| {
            let key = json!({"key": format!("k{round}")});
            json!({"username": format!("{name}{round}"), "plugins": {"key-auth": key}})
        };
        let by_id = json!({"uri": "/x", "upstream_id": round.to_string()});
        let put_route = asked(0, "PUT", format!("/routes/{round}"), by_id);
        let delete = asked(1, "DELETE", format!("/upstreams/{round}"), Value::Null);
        let first = asked(0, "PUT", "/consumers".to_owned(), consumer("a"));
        let second = asked(1, "PUT", "/consumers".to_owned(), consumer("b"));
        let statuses = std::thread::scope(|scope| {
            let threads = [
                scope.spawn(put_route),
                scope.spawn(delete),
                scope.spawn(first),
                scope.spawn(second),
            ];
            threads.map(|thread| thread.join().expect("no panic"))
        });
        assert!(
            matches!(statuses[..2], [201, 400] | [400, 200]),
            "round {round}: route and upstream {statuses:?}"
        );
        assert!(
            matches!(statuses[2..], [201, 400] | [400, 201]),
            "round {round}: one key twice {statuses:?}"
        );
    }
}

/// The three roles that share an etcd.
#[test]
fn planes_are_apart() {
    let Some(etcd) = Etcd::start() else { return };
    let echo = Upstream::named("a");
    let host = format!("etcd: {{host: \"http://{}\"}}", etcd.address);
    let control = gateway_on(&format!(
        "{{role: control_plane, role_control_plane: {{config_provider: etcd}}, {host}, \
         admin: {{admin_listen: {{ip: 127.0.0.1, port: 0}}, admin_key: [{{name: a, key: test-admin, \
         role: admin}}]}}}}"
    ));
    let data = gateway_on(&format!(
        "{{role: data_plane, role_data_plane: {{config_provider: etcd}}, {host}}}"
    ));
    control.asked(201, "PUT", "/routes/1", route("/a", echo.address));
    data.wait_for_route("/a", 200);
    assert!(!control.stderr().contains("listening proxy"));
    assert!(!data.stderr().contains("listening admin"));
}
