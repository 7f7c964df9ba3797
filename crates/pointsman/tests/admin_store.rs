//! The embedded store: what was acknowledged is there after any end, and nothing is half there.

mod support;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use support::{Gateway, Upstream, admin::upstream, run};

const FILE: &str = "logs/store.redb";

fn plain(uri: &str) -> Value {
    json!({ "uri": uri, "upstream": { "nodes": { "127.0.0.1:1": 1 } } })
}

/// Resources, indexes and times to live outlast the process.
#[test]
fn a_restart_loses_nothing() {
    let echo = Upstream::named("a");
    let mut gateway = Gateway::with_store();
    let route = json!({"uri": "/a", "upstream": upstream(echo.address)});
    gateway.asked(201, "PUT", "/routes/1", route);
    gateway.asked(201, "PUT", "/routes/2?ttl=100000", plain("/b"));
    gateway.asked(201, "PUT", "/consumers", json!({"username": "a"}));
    gateway.asked(200, "DELETE", "/routes/2", Value::Null);
    let before = gateway.asked(200, "GET", "/routes", Value::Null);
    gateway.signal("TERM");
    gateway.wait_for_exit();
    let config = gateway.folder().join("config.yaml").display().to_string();
    let (code, out, err) = run(&["check", "--config", &config]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("1 route(s) can be served"), "{out}");
    gateway.start_again(1);
    gateway.wait_for_line("ready");
    assert_eq!(gateway.asked(200, "GET", "/routes", Value::Null), before);
    assert_eq!(support::get(gateway.proxy, "/a", &[]).status, 200);
    // Revisions go on where they were.
    gateway.asked(201, "PUT", "/routes/3", plain("/c"));
    let next = gateway.asked(200, "GET", "/routes/3", Value::Null);
    assert_eq!(next["createdIndex"], 5);
}

/// A file that is no store, one that is damaged and one that a later version wrote are refused in one
/// line, and left as they are.
#[test]
fn a_store_that_cannot_be_used_is_left_alone() {
    let mut gateway = Gateway::with_store();
    for number in 0..50 {
        gateway.asked(201, "PUT", &format!("/routes/{number}"), plain("/a"));
    }
    gateway.signal("TERM");
    gateway.wait_for_exit();
    let config = gateway.folder().join("config.yaml").display().to_string();
    let path = gateway.folder().join(FILE);
    let good = std::fs::read(&path).expect("a store");
    let refused = |bytes: &[u8], part: &str| {
        std::fs::write(&path, bytes).expect("written");
        for command in ["run", "check"] {
            let (code, _, err) = run(&[command, "--config", &config]);
            assert_eq!(code, Some(1), "{err}");
            let line = err.lines().find(|line| line.contains("cannot be used"));
            let line = line.unwrap_or_else(|| panic!("{command} said {err}"));
            assert!(line.contains(part), "{line}");
            let now = std::fs::read(&path).expect("still there");
            assert!(now == bytes, "{command} changed the file");
        }
    };
    refused(b"routes: []\n#END\n", "was left as it is");
    refused(&good[..good.len() / 2], "was left as it is");
    // In a text that is stored: no page may be trusted whose sum is wrong.
    let at = good
        .windows(9)
        .position(|part| part == b"127.0.0.1")
        .expect("a route");
    let mut damaged = good.clone();
    damaged[at] = b'9';
    std::fs::write(&path, &damaged).expect("written");
    let (code, _, err) = run(&["run", "--config", &config]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("it is damaged"), "{err}");
    assert!(
        std::fs::read(&path).expect("still there") == damaged,
        "the file was changed"
    );
    std::fs::write(&path, &good).expect("written");
    gateway.start_again(1);
    gateway.wait_for_line("ready");
    let list = gateway.asked(200, "GET", "/routes", Value::Null);
    assert_eq!(list["total"], 50);
    // Two gateways on one store would not see each other's changes.
    let (code, _, err) = run(&["run", "--config", &config]);
    assert_eq!(code, Some(1));
    assert!(err.contains("another process has it open"), "{err}");
}

/// Whatever is patched at the same time, nothing gets lost.
#[test]
fn concurrent_patches_all_count() {
    let gateway = Gateway::with_store();
    gateway.asked(201, "PUT", "/routes/1", plain("/a"));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let gateway = &gateway;
            scope.spawn(move || {
                for number in 0..10 {
                    let label = format!("l{thread}-{number}");
                    let patch = json!({"labels": {label: "x"}});
                    gateway.asked(200, "PATCH", "/routes/1", patch);
                }
            });
        }
    });
    let route = gateway.asked(200, "GET", "/routes/1", Value::Null);
    let labels = route["value"]["labels"].as_object().expect("labels");
    assert_eq!(labels.len(), 80);
    assert_eq!(route["modifiedIndex"], 81);
}

/// A gateway that is killed at any moment has, when it starts again, everything that it said it had
/// stored, and of what was under way either all or nothing. `POINTSMAN_CRASH_RUNS` says how often.
#[test]
fn what_was_acknowledged_outlasts_a_kill() {
    let runs = std::env::var("POINTSMAN_CRASH_RUNS");
    let runs: u64 = runs.ok().and_then(|runs| runs.parse().ok()).unwrap_or(5);
    let mut gateway = Gateway::with_store();
    let mut known: BTreeMap<String, u64> = BTreeMap::new();
    for round in 0..runs {
        let stop = Arc::new(AtomicBool::new(false));
        let address = gateway.address("admin");
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || write_until(&stop, address, writer, round))
            })
            .collect();
        // From while the first writes are under way to well into them.
        let pause = Duration::from_micros(1000 + (round * 7919) % 60_000);
        std::thread::park_timeout(pause);
        gateway.signal("KILL");
        gateway.wait_for_exit();
        stop.store(true, Ordering::Relaxed);
        let mut open = BTreeMap::new();
        for writer in writers {
            let (acknowledged, under_way) = writer.join().expect("no panic");
            known.extend(acknowledged);
            open.extend(under_way);
        }
        gateway.start_again(1);
        gateway.wait_for_line("ready");
        let list = gateway.asked(200, "GET", "/routes", Value::Null);
        let found: BTreeMap<String, u64> = list["list"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| stored(&one["value"]))
            .collect();
        for (id, version) in &known {
            let now = found.get(id);
            let may = open.get(id).or(Some(version));
            assert!(
                now == Some(version) || now == may,
                "round {round}: {id} was acknowledged as {version}, and is {now:?}"
            );
        }
        for (id, version) in &found {
            let is_known = known.get(id) == Some(version) || open.get(id) == Some(version);
            assert!(
                is_known,
                "round {round}: {id} is {version}, which nobody wrote"
            );
        }
        known = found;
    }
    assert!(!known.is_empty(), "nothing was written before the kill");
}

/// Id and version of a stored route, whose parts must belong together.
fn stored(value: &Value) -> (String, u64) {
    let id = value["id"].as_str().expect("an id").to_owned();
    let version = value["priority"].as_u64().expect("a version");
    assert_eq!(value["uri"], format!("/{id}/{version}"), "half of a route");
    (id, version)
}

type Versions = BTreeMap<String, u64>;

/// Writes routes one after the other until the gateway is gone: those that were acknowledged, and the
/// one that was not.
fn write_until(
    stop: &AtomicBool,
    address: std::net::SocketAddr,
    writer: u64,
    round: u64,
) -> (Versions, Versions) {
    let (mut acknowledged, mut under_way) = (Versions::new(), Versions::new());
    let Ok(mut stream) = TcpStream::connect(address) else {
        return (acknowledged, under_way);
    };
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let id = format!("w{writer}-{}", number % 7);
        let version = round * 1_000_000 + number + 1;
        let mut route = plain(&format!("/{id}/{version}"));
        route["priority"] = json!(version);
        let body = route.to_string();
        let text = format!(
            "PUT /apisix/admin/routes/{id} HTTP/1.1\r\nHost: x\r\nX-API-KEY: test-admin\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        under_way.insert(id.clone(), version);
        if stream.write_all(text.as_bytes()).is_err() {
            break;
        }
        let mut answer = [0; 4096];
        let read = stream.read(&mut answer).unwrap_or(0);
        let answer = String::from_utf8_lossy(&answer[..read]);
        if !(answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.1 201")) {
            break;
        }
        under_way.remove(&id);
        acknowledged.insert(id, version);
    }
    (acknowledged, under_way)
}

/// A store that nobody else can read is made with the folders around it.
#[cfg(unix)]
#[test]
fn a_new_store_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let gateway = Gateway::with_store();
    let file = std::fs::metadata(gateway.folder().join(FILE)).expect("a store");
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
}
