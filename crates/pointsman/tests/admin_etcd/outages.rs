//! etcd is down, hangs, is cut off, forgets, or is another: traffic goes on, and nothing is missed.

use serde_json::{Value, json};

use crate::{
    apisix_route, gateway, gateway_on, readiness, route,
    support::{
        Upstream, call,
        etcd::{Etcd, Line, deployment},
        get, under_load, wait_until,
    },
    wait_for_reach,
};

/// etcd is killed under traffic: nothing of it fails, writes are refused, and it goes on when etcd is back.
#[test]
fn traffic_outlives_etcd() {
    let Some(mut etcd) = Etcd::start() else {
        return;
    };
    let echo = Upstream::named("a");
    let gateway = gateway(&etcd);
    gateway.asked(201, "PUT", "/routes/1", route("/a", echo.address));
    gateway.wait_for_route("/a", 200);
    wait_for_reach(&gateway, true);
    assert_eq!(readiness(&gateway), (200, json!({"status": "ok"})));
    under_load(gateway.proxy, &[call("/a", &[], "")], |load| {
        etcd.kill();
        for (method, body) in [("PUT", route("/b", echo.address)), ("GET", Value::Null)] {
            let answer = gateway.asked(503, method, "/routes/2", body);
            let message = answer["error_msg"].as_str().expect("a message");
            assert!(message.contains("etcd"), "{message}");
        }
        wait_for_reach(&gateway, false);
        let (status, body) = readiness(&gateway);
        assert_eq!((status, &body["status"]), (200, &json!("ok")));
        let warning = body["warning"].as_str().expect("a warning");
        assert!(warning.contains("etcd is out of reach"), "{warning}");
        load.pass(2);
        etcd.start_again();
        etcd.put("/apisix/routes/2", &apisix_route("2", "/b", echo.address));
        gateway.wait_for_route("/b", 200);
        wait_for_reach(&gateway, true);
        gateway.asked(200, "PATCH", "/routes/2", json!({"desc": "d"}));
        load.pass(2);
    });
}

/// An etcd that hangs is noticed, also by whoever has a write under way.
#[test]
fn an_etcd_that_hangs_holds_nobody_up() {
    let Some(etcd) = Etcd::start() else { return };
    let echo = Upstream::named("a");
    let gateway = gateway(&etcd);
    gateway.asked(201, "PUT", "/routes/1", route("/a", echo.address));
    gateway.wait_for_route("/a", 200);
    under_load(gateway.proxy, &[call("/a", &[], "")], |load| {
        etcd.signal("STOP");
        gateway.asked(503, "PUT", "/routes/2", route("/b", echo.address));
        wait_for_reach(&gateway, false);
        load.pass(2);
        etcd.signal("CONT");
        wait_for_reach(&gateway, true);
        gateway.asked(201, "PUT", "/routes/3", route("/c", echo.address));
        gateway.wait_for_route("/c", 200);
    });
}

/// While a gateway is cut off, what it missed is compacted: it reads everything anew, and serves what it has
/// until then.
#[test]
fn compaction_leaves_no_gap() {
    let Some(etcd) = Etcd::start() else { return };
    let echo = Upstream::named("a");
    let line = Line::to(etcd.address);
    let gateway = gateway_on(&deployment(&format!("http://{}", line.address), ""));
    for (id, uri) in [("1", "/stays"), ("2", "/goes"), ("3", "/goes-last")] {
        etcd.put(
            &format!("/apisix/routes/{id}"),
            &apisix_route(id, uri, echo.address),
        );
        gateway.wait_for_route(uri, 200);
    }
    under_load(gateway.proxy, &[call("/stays", &[], "")], |load| {
        line.cut();
        wait_for_reach(&gateway, false);
        etcd.delete("/apisix/routes/2");
        etcd.put(
            "/apisix/routes/4",
            &apisix_route("4", "/comes", echo.address),
        );
        etcd.compact();
        load.pass(2);
        assert_eq!(get(gateway.proxy, "/goes", &[]).status, 200);
        line.mend();
        gateway.wait_for_route("/comes", 200);
        gateway.wait_for_route("/goes", 404);
        gateway.wait_for_line("has compacted what was asked for");
        load.pass(2);
    });
    // etcd forgets a deletion that is the very revision up to which it compacts.
    line.cut();
    wait_for_reach(&gateway, false);
    etcd.delete("/apisix/routes/3");
    let revision = etcd.ask("/v3/kv/range", &json!({"key": "AA=="}))["header"]["revision"].clone();
    etcd.ask("/v3/kv/compaction", &json!({"revision": revision}));
    line.mend();
    gateway.wait_for_route("/goes-last", 404);
    let list = gateway.asked(200, "GET", "/routes", Value::Null);
    assert_eq!(list["total"], 2, "{list}");
}

/// A line that is cut again and again loses nothing.
#[test]
fn a_bad_line_loses_nothing() {
    let Some(etcd) = Etcd::start() else { return };
    let echo = Upstream::named("a");
    let line = Line::to(etcd.address);
    let gateway = gateway_on(&deployment(&format!("http://{}", line.address), ""));
    for number in 0..8 {
        line.cut();
        let id = number.to_string();
        let uri = format!("/{number}");
        etcd.put(
            &format!("/apisix/routes/{id}"),
            &apisix_route(&id, &uri, echo.address),
        );
        line.mend();
        gateway.wait_for_route(&uri, 200);
    }
    let list = gateway.asked(200, "GET", "/routes", Value::Null);
    assert_eq!(list["total"], 8);
}

/// Where etcd has several members, any of them will do.
#[test]
fn any_member_is_asked() {
    let Some(etcd) = Etcd::start() else { return };
    let echo = Upstream::named("a");
    let lines = [Line::to(etcd.address), Line::to(etcd.address)];
    let hosts = format!(
        "http://127.0.0.1:1\", \"http://{}\", \"http://{}",
        lines[0].address, lines[1].address
    );
    let gateway = gateway_on(&deployment(&hosts, ""));
    for number in 0..4 {
        lines[number % 2].cut();
        let id = number.to_string();
        let uri = format!("/{number}");
        etcd.put(
            &format!("/apisix/routes/{id}"),
            &apisix_route(&id, &uri, echo.address),
        );
        gateway.wait_for_route(&uri, 200);
        lines[number % 2].mend();
    }
}

/// An etcd that was set up anew is read anew, whatever revision the old one had.
#[test]
fn another_etcd_in_its_place_is_noticed() {
    let Some(mut etcd) = Etcd::start() else {
        return;
    };
    let echo = Upstream::named("a");
    for number in 0..20 {
        let id = number.to_string();
        let uri = format!("/old-{number}");
        etcd.put(
            &format!("/apisix/routes/{id}"),
            &apisix_route(&id, &uri, echo.address),
        );
    }
    let gateway = gateway(&etcd);
    assert_eq!(get(gateway.proxy, "/old-0", &[]).status, 200);
    etcd.kill();
    etcd.forget();
    etcd.start_again();
    etcd.put("/apisix/routes/1", &apisix_route("1", "/new", echo.address));
    gateway.wait_for_route("/new", 200);
    gateway.wait_for_route("/old-0", 404);
    gateway.asked(200, "PATCH", "/routes/1", json!({"desc": "d"}));
}

/// Without etcd a gateway starts with what the last one knew, says so, and goes on when etcd is back.
#[test]
fn a_start_without_etcd_serves_what_was_kept() {
    let Some(mut etcd) = Etcd::start() else {
        return;
    };
    let echo = Upstream::named("a");
    let mut gateway = gateway(&etcd);
    gateway.asked(201, "PUT", "/routes/1", route("/a", echo.address));
    gateway.asked(201, "PUT", "/routes/2", route("/b", echo.address));
    gateway.asked(200, "DELETE", "/routes/2", Value::Null);
    gateway.wait_for_route("/a", 200);
    gateway.signal("TERM");
    gateway.wait_for_exit();
    etcd.kill();
    gateway.start_again(1);
    gateway.wait_for_line("ready");
    gateway.wait_for_line("is served, from");
    assert_eq!(get(gateway.proxy, "/a", &[]).status, 200);
    assert_eq!(get(gateway.proxy, "/b", &[]).status, 404);
    wait_for_reach(&gateway, false);
    let (status, body) = readiness(&gateway);
    assert_eq!(status, 200);
    assert!(body["warning"].is_string(), "{body}");
    gateway.asked(503, "PATCH", "/routes/1", json!({"desc": "d"}));
    etcd.start_again();
    etcd.put("/apisix/routes/3", &apisix_route("3", "/c", echo.address));
    gateway.wait_for_route("/c", 200);
    wait_for_reach(&gateway, true);
    assert_eq!(readiness(&gateway), (200, json!({"status": "ok"})));
    gateway.asked(200, "PATCH", "/routes/1", json!({"desc": "d"}));
}

/// Without etcd, and with nothing kept, a gateway waits: it is not ready, and has no route.
#[test]
fn a_start_with_nothing_waits_for_etcd() {
    let Some(mut etcd) = Etcd::start() else {
        return;
    };
    let echo = Upstream::named("a");
    etcd.put("/apisix/routes/1", &apisix_route("1", "/a", echo.address));
    etcd.kill();
    let gateway = gateway(&etcd);
    assert_eq!(get(gateway.proxy, "/a", &[]).status, 404);
    let (status, body) = readiness(&gateway);
    assert_eq!((status, &body["status"]), (503, &json!("error")));
    etcd.start_again();
    gateway.wait_for_route("/a", 200);
    assert_eq!(readiness(&gateway), (200, json!({"status": "ok"})));
}

/// Also an etcd without a single resource makes a gateway ready.
#[test]
fn an_empty_etcd_is_a_configuration() {
    let Some(mut etcd) = Etcd::start() else {
        return;
    };
    assert_eq!(readiness(&gateway(&etcd)).0, 200);
    etcd.kill();
    let waiting = gateway(&etcd);
    assert_eq!(readiness(&waiting).0, 503);
    etcd.start_again();
    wait_until("the gateway to be ready", || {
        (readiness(&waiting).0 == 200).then_some(())
    });
}
