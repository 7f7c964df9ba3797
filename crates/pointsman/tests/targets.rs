//! What operators see of health: `GET /v1/targets`, and changes of verdicts as a metric.

mod support;

use std::time::SystemTime;

use serde_json::{Value, json};
use support::{
    Answer, CHAT, Gateway, Upstream, client::Connection, get, post_json, run, wait_until,
};

fn checks(path: &str) -> Value {
    json!({"active": {
        "http_path": path,
        "req_headers": ["X-Probe: sesame"],
        "healthy": {"interval": 1, "successes": 1},
        "unhealthy": {"interval": 1, "http_failures": 1, "tcp_failures": 1}
    }})
}

fn instance(name: &str, upstream: &Upstream) -> Value {
    json!({
        "name": name, "provider": "openai-compatible", "weight": 1,
        "auth": {"header": {"Authorization": "Bearer sesame"}, "query": {"key": "sesame"}},
        "override": {"endpoint": format!("http://{}", upstream.address)},
        "checks": checks("/health")
    })
}

fn route(id: &str, instances: &[Value]) -> Value {
    let plugins = json!({"ai-proxy-multi": {"instances": instances}});
    json!({"id": id, "uri": format!("/{id}"), "plugins": plugins})
}

fn targets(gateway: &Gateway) -> Vec<Value> {
    let response = gateway.control("/v1/targets");
    assert_eq!(response.status, 200);
    assert!(!response.text().contains("sesame"), "{}", response.text());
    response.json().as_array().cloned().expect("a list")
}

/// The target at that port, once `is_so`.
fn target(gateway: &Gateway, port: u16, is_so: impl Fn(&Value) -> bool) -> Value {
    wait_until(&format!("the target at port {port}"), || {
        let mut at_port = (targets(gateway).into_iter()).filter(|target| target["port"] == port);
        let found = at_port.next()?;
        assert_eq!(at_port.next(), None, "one target for all its users");
        Some(found).filter(|target| is_so(target))
    })
}

fn changes(gateway: &Gateway, port: u16, to: &str) -> f64 {
    let target = format!("target=\"127.0.0.1:{port}\"");
    let to = format!("to=\"{to}\"");
    gateway.metric(&["pointsman_health_changes_total{", &target, &to])
}

/// Verdict, state, counters, evidence and users of each target, once; and no secret.
#[test]
fn every_target_is_shown_with_its_evidence_and_its_users() {
    let (moody, steady) = (Upstream::named("moody"), Upstream::named("steady"));
    let node = json!({
        "id": "plain", "uri": "/plain",
        "upstream": {"nodes": {steady.address.to_string(): 1}, "checks": {"active": {"type": "tcp"}}}
    });
    let routes = [
        route("a", &[instance("first", &moody)]),
        route("b", &[instance("second", &moody)]),
        node,
    ];
    let gateway = Gateway::start(&json!({"routes": routes}).to_string());

    let plain = target(&gateway, steady.port(), |target| !target["last"].is_null());
    for (name, expected) in [
        ("kind", json!("tcp")),
        ("host", json!("127.0.0.1")),
        ("http_path", Value::Null),
        ("usable", json!(true)),
        ("state", json!("healthy")),
        ("used_by", json!([{"name": "/routes/plain"}])),
    ] {
        assert_eq!(plain[name], expected, "{name}: {plain}");
    }
    assert_eq!(plain["last"]["outcome"], "tcp_ok");

    let before = target(&gateway, moody.port(), |target| !target["last"].is_null());
    assert_eq!(before["last"]["outcome"], "status_200");
    assert_eq!(
        (&before["kind"], &before["http_path"]),
        (&json!("http"), &json!("/health")),
        "without its query, which is a credential"
    );
    moody.set_healthy(false);
    let after = target(&gateway, moody.port(), |target| target["usable"] == false);
    assert_eq!(after["id"], before["id"]);
    assert_eq!(after["state"], "unhealthy");
    assert_eq!(after["counter"]["http_failure"], 1);
    assert_eq!(after["last"]["outcome"], "status_500");
    assert!(after["epoch"].as_u64() > before["epoch"].as_u64());
    let instance = |route: &str, instance: &str| {
        let name = format!("/routes/{route}#plugins['ai-proxy-multi'].instances[0]");
        json!({"name": name, "instance": instance})
    };
    assert_eq!(
        after["used_by"],
        json!([instance("a", "first"), instance("b", "second")])
    );
    // The wall clock of the evidence, and how long ago that was.
    let ago = after["last"]["seconds_ago"].as_f64().expect("a number");
    assert!((0.0..2.0).contains(&ago), "{after}");
    let time = after["last"]["time"].as_str().expect("a text");
    let today = httpdate::fmt_http_date(SystemTime::now());
    let (year, minute) = (&today[12..16], &today[19..22]);
    assert!(time.starts_with(year) && time.ends_with('Z'), "{time}");
    let same_hour = time.contains(&format!("T{}", &today[17..19]));
    assert!(same_hour || minute == ":00", "{time} and {today}");
    // When it is asked again: within its interval, or at this moment.
    let due = target(&gateway, moody.port(), |target| {
        target["next_probe_in"].is_number()
    });
    let due = due["next_probe_in"].as_f64().expect("a number");
    assert!((0.0..=1.0).contains(&due), "{due}");

    gateway.reload("routes: []");
    assert_eq!(targets(&gateway), Vec::<Value>::new());
}

/// Three routes to `shared` and `other`, of an upstream, of another one and of a plugin, and one to `alone`.
fn sharing(shared: &Upstream, other: &Upstream, alone: &Upstream) -> Value {
    let upstream = |nodes: &[&Upstream], path: &str| {
        let nodes = nodes
            .iter()
            .map(|node| (node.address.to_string(), json!(1)));
        let nodes: serde_json::Map<String, Value> = nodes.collect();
        let mut checks = checks(path);
        checks["active"]["req_headers"] =
            json!(["X-Probe: sesame", "Authorization: Bearer sesame"]);
        json!({"nodes": nodes, "checks": checks})
    };
    // What an instance adds to its probe, its credentials, as an upstream has to write them.
    let equal = upstream(&[shared, other], "/health?key=sesame");
    let mut listed = equal.clone();
    listed["id"] = json!(5);
    json!({
        "routes": [
            {"id": "plain", "uri": "/plain", "upstream": equal},
            {"id": "listed", "uri": "/listed", "upstream_id": 5},
            route("ai", &[instance("one", shared), instance("two", other)]),
            {"id": "alone", "uri": "/alone", "upstream": upstream(&[alone], "/health")},
        ],
        "upstreams": [listed]
    })
}

/// An upstream at a place, and plugins that use the same place with the same credential, share a target: it is
/// probed as often as if one of them had it, and what is known of it holds for all. Another credential is
/// another target.
#[test]
fn equal_targets_of_upstreams_and_plugins_are_probed_once() {
    let (shared, other, alone) = (
        Upstream::named("shared"),
        Upstream::named("other"),
        Upstream::named("alone"),
    );
    let document = sharing(&shared, &other, &alone);
    let gateway = Gateway::start(&document.to_string());
    let known = target(&gateway, shared.port(), |target| !target["last"].is_null());
    let used_by = known["used_by"].as_array().expect("a list");
    assert_eq!(used_by.len(), 3, "{known}");

    // As many probes as of a target that one route has.
    let before = (shared.probes().len(), alone.probes().len());
    alone.wait_for_probes(before.1 + 4);
    let more = shared.probes().len() - before.0;
    assert!(
        (3..=5).contains(&more),
        "{more} probes while there were 4 of another"
    );

    let hits_of_each = || {
        ["/plain", "/listed", "/ai"].map(|uri| {
            let before = shared.hits();
            for _ in 0..6 {
                assert_eq!(post_json(gateway.proxy, uri, CHAT).status, 200);
            }
            shared.hits() - before
        })
    };
    assert_eq!(hits_of_each(), [3; 3]);
    shared.set_healthy(false);
    target(&gateway, shared.port(), |target| target["usable"] == false);
    assert_eq!(hits_of_each(), [0; 3]);
    assert_eq!(changes(&gateway, shared.port(), "unhealthy"), 1.0);
    shared.set_healthy(true);
    target(&gateway, shared.port(), |target| target["usable"] == true);
    assert_eq!(hits_of_each(), [3; 3]);

    // Without the credential it is asked something else.
    let mut document = document;
    document["routes"][0]["upstream"]["checks"] = checks("/health");
    gateway.reload(&document.to_string());
    let at_port = |target: &Value| target["port"] == shared.port();
    let both = wait_until("two targets", || {
        let all = targets(&gateway);
        let both: Vec<Value> = all.into_iter().filter(at_port).collect();
        (both.len() == 2).then_some(both)
    });
    let mut users: Vec<usize> = (both.iter())
        .filter_map(|target| Some(target["used_by"].as_array()?.len()))
        .collect();
    users.sort_unstable();
    assert_eq!(users, [1, 2], "{both:?}");
}

/// What each member has to do that a target judges, as far as its pool counts that.
#[test]
fn targets_show_the_load_of_their_members() {
    let node = Upstream::start(|received| {
        if received.target == "/least/held" {
            Answer::Open(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nso far;".to_vec())
        } else {
            Answer::text(200, "all")
        }
    });
    let address = node.address.to_string();
    let route = |id: &str, kind: &str| {
        let checks = json!({"active": {"type": "tcp"}});
        let upstream = json!({"type": kind, "nodes": {&address: 1}, "checks": checks});
        json!({"id": id, "uri": format!("/{id}/*"), "upstream": upstream})
    };
    let routes = [
        route("least", "least_conn"),
        route("ewma", "ewma"),
        route("turns", "roundrobin"),
    ];
    let gateway = Gateway::start(&json!({"routes": routes}).to_string());
    let members = || target(&gateway, node.port(), |_| true)["members"].clone();
    let member = |pool: &str, in_flight: Value, ewma_ms: Value| {
        json!({
            "pool": format!("/routes/{pool}"), "member": address,
            "in_flight": in_flight, "ewma_ms": ewma_ms
        })
    };
    let idle = json!([
        member("ewma", json!(0), Value::Null),
        member("least", json!(0), Value::Null),
        member("turns", Value::Null, Value::Null),
    ]);
    assert_eq!(members(), idle);
    let mut held = Connection::open(gateway.proxy);
    held.send(b"GET /least/held HTTP/1.1\r\nHost: a\r\n\r\n");
    held.read_until(";");
    assert_eq!(get(gateway.proxy, "/turns/x", &[]).status, 200);
    assert_eq!(get(gateway.proxy, "/ewma/x", &[]).status, 200);
    // A response time is known once the response has been passed on.
    let busy = wait_until("a response time", || {
        let members = members();
        let is_over = members[0]["in_flight"] == 0 && members[0]["ewma_ms"].is_number();
        is_over.then_some(members)
    });
    let took = busy[0]["ewma_ms"].as_f64().expect("a number");
    assert!(took >= 0.0, "{busy}");
    let expected = json!([
        member("ewma", json!(0), json!(took)),
        member("least", json!(1), Value::Null),
        member("turns", Value::Null, Value::Null),
    ]);
    assert_eq!(busy, expected);
    drop(held);
    wait_until("nothing to be under way", || {
        (members()[1]["in_flight"] == 0).then_some(())
    });
}

/// What keeps an instance out says which one, wherever that is used.
#[test]
fn guards_show_their_members() {
    let failing = Upstream::failing(500);
    let mut one = instance("one", &failing);
    one.as_object_mut().expect("an object").remove("checks");
    let plugin = json!({
        "instances": [one], "balancer": {"algorithm": "least_conn"}, "circuit_breaker": {"failures": 1}
    });
    let routes = ["a", "b"].map(
        |id| json!({"id": id, "uri": format!("/{id}"), "plugins": {"ai-proxy-multi": plugin}}),
    );
    let gateway = Gateway::start(&json!({"routes": routes}).to_string());
    assert_eq!(post_json(gateway.proxy, "/a", CHAT).status, 500);
    let open = wait_until("the circuit to open", || {
        let mut all = targets(&gateway).into_iter();
        all.find(|one| one["circuit"] == "open")
    });
    let member = |id: &str| {
        json!({
            "pool": format!("/routes/{id}#ai-proxy-multi"), "member": "one",
            "in_flight": 0, "ewma_ms": null
        })
    };
    assert_eq!(open["members"], json!([member("a"), member("b")]), "{open}");
}

/// Each change is one line of the log and one increment.
#[test]
fn changes_of_verdicts_are_counted_once() {
    let moody = Upstream::named("moody");
    let steady = Upstream::named("steady");
    let both = [instance("moody", &moody), instance("steady", &steady)];
    let routes = [route("a", &both), route("b", &both)];
    let gateway = Gateway::start(&json!({"routes": routes}).to_string());
    // There from the start, or the first change would be no increase to whoever watches.
    assert_eq!(changes(&gateway, moody.port(), "unhealthy"), 0.0);
    let mut expected = (0.0, 0.0);
    for _ in 0..2 {
        moody.set_healthy(false);
        gateway.wait_for_status(moody.port(), "unhealthy");
        expected.0 += 1.0;
        // More failures of the same target change nothing.
        moody.wait_for_probes(moody.probes().len() + 2);
        moody.set_healthy(true);
        gateway.wait_for_status(moody.port(), "healthy");
        expected.1 += 1.0;
        let counted = (
            changes(&gateway, moody.port(), "unhealthy"),
            changes(&gateway, moody.port(), "healthy"),
        );
        assert_eq!(counted, expected);
    }
    for to in ["healthy", "unhealthy"] {
        assert_eq!(changes(&gateway, steady.port(), to), 0.0);
    }
    let log = gateway.stderr();
    let lines = log
        .lines()
        .filter(|line| line.contains("health verdict changed"));
    assert_eq!(lines.count(), 4, "{log}");
    // Once removed, what was counted stays.
    gateway.reload("routes: []");
    assert_eq!(changes(&gateway, moody.port(), "unhealthy"), 2.0);
}

/// One attempt at the only member, with nothing known against it: by which verdicts, and nothing to make
/// again but that there was one.
#[test]
fn a_request_like_any_other_tells_its_pick() {
    let upstream = Upstream::named("one");
    let document = json!({"routes": [route("a", &[instance("one", &upstream)])]});
    let gateway = Gateway::start(&document.to_string());
    let epoch = target(&gateway, upstream.port(), |_| true)["epoch"].clone();
    assert_eq!(post_json(gateway.proxy, "/a", CHAT).status, 200);
    assert_eq!(
        gateway.access_log(1)[0]["picks"],
        json!([{
            "member": "one", "epoch": epoch, "failed_open": false,
            "excluded": [], "excluded_count": 0, "status": 200
        }])
    );
    let config = gateway.folder().join("config.yaml").display().to_string();
    let (code, text, errors) = run(&["explain", "--config", &config]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(text.contains("it is the only member"), "{text}");
    assert!(text.contains("same answer: yes"), "{text}");
}

/// Who was left out, how the pick came about, and what became of it.
#[test]
fn a_pick_past_somebody_is_told() {
    let (alive, dead) = (Upstream::named("alive"), Upstream::named("dead"));
    dead.set_healthy(false);
    let both = [instance("alive", &alive), instance("dead", &dead)];
    let gateway = Gateway::start(&json!({"routes": [route("a", &both)]}).to_string());
    gateway.wait_for_status(dead.port(), "unhealthy");
    let epoch = |port: u16| target(&gateway, port, |_| true)["epoch"].clone();
    assert_eq!(post_json(gateway.proxy, "/a", CHAT).status, 200);
    let line = gateway.access_log(1).remove(0);
    assert_eq!(
        line["picks"],
        json!([{
            "member": "alive", "epoch": epoch(dead.port()), "failed_open": false,
            "excluded": ["dead"], "reasons": ["unhealthy"], "excluded_count": 1, "status": 200,
            "replay": {
                "by": "roundrobin", "position": line["picks"][0]["replay"]["position"],
                "out": {"unhealthy": "02"}
            }
        }])
    );
    // Nobody is usable: health is ignored, and that is said.
    alive.set_healthy(false);
    gateway.wait_for_status(alive.port(), "unhealthy");
    assert_eq!(post_json(gateway.proxy, "/a", CHAT).status, 200);
    let line = gateway.access_log(2).remove(1);
    let pick = &line["picks"][0];
    assert_eq!(
        (&pick["failed_open"], &pick["excluded"], &pick["epoch"]),
        (
            &json!(true),
            &json!(["alive", "dead"]),
            &epoch(alive.port())
        ),
        "{line}"
    );
}

/// One entry for each attempt, in order, whatever came of it.
#[test]
fn every_attempt_has_its_pick() {
    let (failing, fine) = (Upstream::failing(500), Upstream::named("fine"));
    let nobody = Upstream::nobody();
    let at = |name: &str, address: std::net::SocketAddr, priority: i32| {
        json!({
            "name": name, "provider": "openai-compatible", "weight": 1, "priority": priority,
            "auth": {"header": {"Authorization": "Bearer sesame"}},
            "override": {"endpoint": format!("http://{address}")}
        })
    };
    let instances = [
        at("failing", failing.address, 2),
        at("nobody", nobody, 1),
        at("fine", fine.address, 0),
    ];
    let plugin = json!({"instances": instances, "fallback_strategy": ["http_5xx"]});
    let route = json!({"id": 1, "uri": "/*", "plugins": {"ai-proxy-multi": plugin}});
    let gateway = Gateway::start(&json!({"routes": [route]}).to_string());
    assert_eq!(post_json(gateway.proxy, "/x", CHAT).status, 200);
    let line = gateway.access_log(1).remove(0);
    let picks = line["picks"].as_array().expect("a list");
    let part = |name: &str| -> Vec<&Value> { picks.iter().map(|pick| &pick[name]).collect() };
    assert_eq!(part("member"), ["failing", "nobody", "fine"], "{line}");
    assert_eq!(part("excluded_count"), [0, 0, 0], "{line}");
    assert_eq!(
        part("status"),
        [&json!(500), &Value::Null, &json!(200)],
        "{line}"
    );
    let error = picks[1]["error"].as_str().expect("a text");
    assert!(error.contains("refused"), "{error}");
    assert_eq!((picks[0].get("error"), picks[2].get("error")), (None, None));
}

/// A request that finds out whether a circuit may close says so.
#[test]
fn a_trial_is_told() {
    let (failing, fine) = (Upstream::failing(500), Upstream::named("fine"));
    let at = |name: &str, upstream: &Upstream, priority: i32| {
        json!({
            "name": name, "provider": "openai-compatible", "weight": 1, "priority": priority,
            "auth": {"header": {"Authorization": "Bearer sesame"}},
            "override": {"endpoint": format!("http://{}", upstream.address)}
        })
    };
    let plugin = json!({
        "instances": [at("failing", &failing, 1), at("fine", &fine, 0)],
        "fallback_strategy": ["http_5xx"],
        "circuit_breaker": {"failures": 1, "open_ms": 10}
    });
    let route = json!({"id": 1, "uri": "/*", "plugins": {"ai-proxy-multi": plugin}});
    let gateway = Gateway::start(&json!({"routes": [route]}).to_string());
    assert_eq!(post_json(gateway.proxy, "/x", CHAT).status, 200);
    wait_until("the circuit to ask for a trial", || {
        let mut all = targets(&gateway).into_iter();
        all.find(|one| one["circuit"] == "half_open")
    });
    assert_eq!(post_json(gateway.proxy, "/x", CHAT).status, 200);
    let line = gateway.access_log(2).remove(1);
    let picks = line["picks"].as_array().expect("a list");
    let told = |index: usize| {
        let pick = &picks[index];
        (&pick["member"], &pick["trial"], &pick["excluded_count"])
    };
    assert_eq!(
        told(0),
        (&json!("failing"), &json!(true), &json!(0)),
        "{line}"
    );
    assert_eq!(told(1).0, "fine", "{line}");
    assert_eq!(told(1).1, &Value::Null, "{line}");
}

/// Of many, the first few are named.
#[test]
fn many_exclusions_are_counted() {
    let alive = Upstream::named("alive");
    let dead: Vec<_> = (0..10).map(|_| Upstream::nobody()).collect();
    let mut nodes = json!({alive.address.to_string(): 1});
    for address in &dead {
        nodes[address.to_string()] = json!(1);
    }
    let upstream = json!({"nodes": nodes, "checks": checks("/health")});
    let route = json!({"id": 1, "uri": "/*", "upstream": upstream});
    let gateway = Gateway::start(&json!({"routes": [route]}).to_string());
    for address in &dead {
        gateway.wait_for_status(address.port(), "unhealthy");
    }
    assert_eq!(get(gateway.proxy, "/x", &[]).status, 200);
    let line = gateway.access_log(1).remove(0);
    let pick = &line["picks"][0];
    assert_eq!(pick["excluded_count"], 10, "{line}");
    let names = pick["excluded"].as_array().expect("a list");
    assert_eq!(names.len(), 8, "{line}");
    let known: Vec<String> = dead.iter().map(ToString::to_string).collect();
    for name in names {
        let name = name.as_str().expect("a text").to_owned();
        assert!(known.contains(&name), "{line}");
    }
}
