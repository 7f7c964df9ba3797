//! The races that remain in APISIX's design (`docs/health.md` lists them all, with the tests that hold
//! each): those that have no test elsewhere. Four workers, real sockets, and requests that go on while it
//! happens; the stand-ins' own logs judge.

#![allow(
    clippy::disallowed_methods,
    reason = "tests measure and wait in real time"
)]

mod support;
mod races {
    mod identity;
    mod names;
    mod requests;
}

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use serde_json::{Value, json};
use support::{
    Answer, CHAT, Gateway, Start, Upstream, call, client::Connection, post_json, under_load,
    wait_until,
};

const WORKERS: usize = 4;

/// An instance that a single failed probe makes unhealthy, and a single good one healthy.
fn checked(name: &str, upstream: &Upstream, path: &str) -> Value {
    let mut instance = unchecked(name, upstream);
    instance["checks"] = json!({"active": {
        "http_path": path, "timeout": 5,
        "healthy": {"interval": 1, "successes": 1},
        "unhealthy": {"interval": 1, "http_failures": 1, "timeouts": 1}
    }});
    instance
}

fn unchecked(name: &str, upstream: &Upstream) -> Value {
    json!({
        "name": name, "provider": "openai-compatible", "weight": 1,
        "auth": {"header": {"Authorization": "Bearer token"}},
        "override": {"endpoint": format!("http://{}", upstream.address)}
    })
}

fn route(id: &str, instances: &[Value]) -> Value {
    let plugin = json!({"instances": instances, "fallback_strategy": ["http_5xx"]});
    json!({"id": id, "uri": format!("/{id}"), "plugins": {"ai-proxy-multi": plugin}})
}

fn document(routes: &[Value]) -> String {
    json!({"routes": routes}).to_string()
}

fn start(document: &str) -> Gateway {
    Gateway::start_with(Start {
        document,
        workers: WORKERS,
        ..Start::default()
    })
}

/// Sends requests on connections of their own until every worker has served one, as the connections
/// that `alive` got tell: each worker has one of its own.
fn ask_all_workers(gateway: &Gateway, path: &str, alive: &Upstream) {
    wait_until("all workers to serve", || {
        for _ in 0..16 {
            let response = post_json(gateway.proxy, path, CHAT);
            assert_eq!(response.status, 200, "{}", response.text());
        }
        (alive.traffic_connections() >= WORKERS).then_some(())
    });
}

/// a verdict is there before whoever asks for it. A route that comes later, on workers
/// that never knew its instances, begins with what is known of them elsewhere.
#[test]
fn r02_r03_a_new_route_begins_with_the_verdicts_of_others() {
    let alive = Upstream::named("alive");
    let silent = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&silent);
    let dead = Upstream::probed(
        |_| Answer::chat("dead"),
        move |_| match theirs.load(Ordering::SeqCst) {
            true => Answer::Silence,
            false => Answer::text(500, ""),
        },
    );
    let pair = [
        checked("alive", &alive, "/health"),
        checked("dead", &dead, "/health"),
    ];
    let gateway = start(&document(&[route("first", &pair)]));
    gateway.wait_for_status(dead.port(), "unhealthy");
    let renamed = [
        checked("one", &alive, "/health"),
        checked("two", &dead, "/health"),
    ];
    // Whoever does not know by now has to wait for a timeout to find out.
    silent.store(true, Ordering::SeqCst);
    under_load(gateway.proxy, &[call("/first", &[], CHAT)], |load| {
        gateway.reload(&document(&[
            route("first", &pair),
            route("second", &renamed),
        ]));
        ask_all_workers(&gateway, "/second", &alive);
        load.pass(5);
    });
    assert_eq!(dead.hits(), 0);
}

/// what is deleted and created again has another id and a later epoch, whatever it counted
/// before; nobody mistakes the one for the other.
#[test]
fn r11_what_comes_back_is_not_what_it_was() {
    let (alive, dead) = (Upstream::named("alive"), Upstream::named("dead"));
    let with = [
        checked("alive", &alive, "/health"),
        checked("dead", &dead, "/health"),
    ];
    let gateway = start(&document(&[route("x", &with)]));
    let shown = || {
        let all = gateway.control("/v1/targets").json();
        let of_dead = |one: &&Value| one["port"] == dead.port();
        let found = all.as_array()?.iter().find(of_dead)?;
        Some((found["id"].as_u64()?, found["epoch"].as_u64()?))
    };
    let mut last = None;
    under_load(gateway.proxy, &[call("/x", &[], CHAT)], |load| {
        for round in 0..5 {
            dead.set_healthy(false);
            gateway.wait_for_status(dead.port(), "unhealthy");
            load.pass(1);
            let before = dead.hits();
            load.pass(8);
            assert_eq!(dead.hits(), before, "round {round}");
            let now = shown().expect("it is watched");
            if let Some((id, epoch)) = last {
                assert!(now.0 > id && now.1 > epoch, "{now:?} after {last:?}");
            }
            last = Some(now);
            gateway.reload(&document(&[route("x", &with[..1])]));
            load.pass(2);
            assert_eq!(dead.hits(), before, "it is not there, in round {round}");
            dead.set_healthy(true);
            gateway.reload(&document(&[route("x", &with)]));
            wait_until("it to be used again", || {
                (dead.hits() > before).then_some(())
            });
        }
    });
}

/// R-13, I-14: a probe that was under way when its definition changed has nothing to say about the new
/// one, be it good or bad.
#[test]
fn r13_a_probe_of_a_retired_configuration_changes_nothing() {
    let release = Arc::new((Mutex::new(false), std::sync::Condvar::new()));
    let theirs = Arc::clone(&release);
    let slow = Upstream::probed(
        |_| Answer::chat("slow"),
        move |probe| {
            if probe.target != "/health/old" {
                return Answer::text(200, "");
            }
            let (released, changed) = &*theirs;
            let released = released.lock().expect("not poisoned");
            let waited = changed.wait_timeout_while(released, support::DEADLINE, |is| !*is);
            drop(waited.expect("not poisoned"));
            Answer::text(500, "")
        },
    );
    let alive = Upstream::named("alive");
    let with = |path: &str| {
        let pair = [
            checked("alive", &alive, "/health"),
            checked("slow", &slow, path),
        ];
        document(&[route("x", &pair)])
    };
    let gateway = start(&with("/health/old"));
    // Probes are recorded once they are answered: the connection tells that one is under way.
    wait_until("the probe", || (slow.connections() > 0).then_some(()));
    under_load(gateway.proxy, &[call("/x", &[], CHAT)], |load| {
        gateway.reload(&with("/health/new"));
        *release.0.lock().expect("not poisoned") = true;
        release.1.notify_all();
        // The old one is answered, and others after it: none has made it unhealthy.
        wait_until("both kinds of probes", || {
            let probes = slow.probes();
            let of = |path: &str| probes.iter().filter(|probe| probe.target == path).count();
            (of("/health/old") == 1 && of("/health/new") >= 3).then_some(())
        });
        gateway.wait_for_status(slow.port(), "healthy");
        let before = slow.hits();
        load.pass(5);
        assert!(slow.hits() > before, "it is used as before");
    });
    let log = gateway.stderr();
    assert!(!log.contains("health verdict changed"), "{log}");
    assert!(!log.contains("health state changed"), "{log}");
}

/// probing belongs to no worker and to no traffic. A route that nobody has asked for is probed,
/// in every state.
#[test]
fn r14_a_route_without_traffic_is_probed() {
    let (alive, moody) = (Upstream::named("alive"), Upstream::named("moody"));
    let pair = [
        checked("alive", &alive, "/health"),
        checked("moody", &moody, "/health"),
    ];
    let busy = Upstream::named("busy");
    let beside = route("busy", &[checked("busy", &busy, "/health")]);
    let gateway = start(&document(&[route("x", &pair), beside]));
    under_load(gateway.proxy, &[call("/busy", &[], CHAT)], |load| {
        for _ in 0..2 {
            moody.set_healthy(false);
            gateway.wait_for_status(moody.port(), "unhealthy");
            moody.set_healthy(true);
            gateway.wait_for_status(moody.port(), "healthy");
        }
        moody.set_healthy(false);
        gateway.wait_for_status(moody.port(), "unhealthy");
        assert_eq!(alive.hits() + moody.hits(), 0);
        ask_all_workers(&gateway, "/x", &alive);
        load.pass(1);
    });
    assert_eq!(moody.hits(), 0);
}

/// R-16, I-16, I-17: a storm of changes neither loses a probe nor leaves one behind that nobody owns.
#[test]
fn r16_a_storm_of_reloads_leaves_one_probe_for_each_target() {
    let (stays, comes) = (Upstream::named("stays"), Upstream::named("comes"));
    let pair = [
        checked("stays", &stays, "/health"),
        checked("comes", &comes, "/health"),
    ];
    let gateway = start(&document(&[route("x", &pair)]));
    under_load(gateway.proxy, &[call("/x", &[], CHAT)], |load| {
        let began = std::time::Instant::now();
        let before = stays.probes().len();
        for turn in 0..60 {
            let count = 1 + turn % 2;
            gateway.reload(&document(&[route("x", &pair[..count])]));
        }
        gateway.reload(&document(&[route("x", &pair[..1])]));
        // One a second, as if nothing had happened, and one more that had begun.
        let stayed = stays.probes().len() - before;
        let most = began.elapsed().as_secs() as usize + 2;
        assert!(stayed <= most, "{stayed} probes, at most {most} expected");
        load.pass(1);
        let (left, hits) = (comes.probes().len(), comes.hits());
        assert!(hits > 0, "it was used while it was there");
        stays.wait_for_probes(stays.probes().len() + 4);
        // One may have been on its way.
        assert!(comes.probes().len() <= left + 1, "probes without an owner");
        load.pass(5);
        assert_eq!(comes.hits(), hits, "it is not there any more");
    });
    stays.set_healthy(false);
    gateway.wait_for_status(stays.port(), "unhealthy");
}

/// an instance that falls while a request waits for another is not offered to its retry.
#[test]
fn r18_a_retry_obeys_a_verdict_that_came_during_the_request() {
    let released = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&released);
    let failing = Upstream::start(move |_| {
        wait_until("the verdict", || {
            theirs.load(Ordering::SeqCst).then_some(())
        });
        Answer::status(500, "{}")
    });
    let (falling, fine) = (Upstream::named("falling"), Upstream::named("fine"));
    let tier = |mut instance: Value, priority: i32| {
        instance["priority"] = json!(priority);
        instance
    };
    let instances = [
        tier(unchecked("failing", &failing), 2),
        tier(checked("falling", &falling, "/health"), 1),
        tier(unchecked("fine", &fine), 0),
    ];
    let gateway = start(&document(&[route("x", &instances)]));
    gateway.wait_for_status(falling.port(), "healthy");
    std::thread::scope(|scope| {
        let ask = || {
            let mut connection = Connection::open(gateway.proxy);
            let length = CHAT.len();
            let head = format!(
                "POST /x HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n\
                 Content-Length: {length}\r\n\r\n{CHAT}"
            );
            connection.send(head.as_bytes());
            connection.response(false).status
        };
        let waiting: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        // All have picked for the first time, by verdicts that had nothing against anybody.
        wait_until("the first attempts", || (failing.open() >= 8).then_some(()));
        falling.set_healthy(false);
        gateway.wait_for_status(falling.port(), "unhealthy");
        released.store(true, Ordering::SeqCst);
        for waiting in waiting {
            assert_eq!(waiting.join().expect("answered"), 200);
        }
    });
    assert_eq!((failing.hits(), falling.hits(), fine.hits()), (8, 0, 8));
    // The pick itself passed it over, not only the look at the verdicts before what was picked is sent.
    for line in gateway.access_log(8) {
        let picks = line["picks"].as_array().expect("a list").iter();
        let told: Vec<Value> = picks
            .map(|pick| json!([pick["member"], pick["excluded"], pick["reasons"]]))
            .collect();
        let expected = json!([["failing", [], null], ["fine", ["falling"], ["unhealthy"]]]);
        assert_eq!(json!(told), expected, "{line}");
    }
}

/// consumers with plugins of their own on one route do not evict each other: each keeps its turn,
/// and its proportions are exact.
#[test]
fn r19_consumers_on_one_route_keep_their_proportions() {
    let (a, b) = (Upstream::named("a"), Upstream::named("b"));
    let consumer = |name: &str, weights: [u32; 2]| {
        let mut pair = [unchecked("a", &a), unchecked("b", &b)];
        for (instance, weight) in pair.iter_mut().zip(weights) {
            instance["weight"] = json!(weight);
        }
        json!({"username": name, "plugins": {
            "key-auth": {"key": name}, "ai-proxy-multi": {"instances": pair}
        }})
    };
    let consumers = [consumer("even", [1, 1]), consumer("heavy", [3, 1])];
    let mut shared = route("x", &[unchecked("a", &a), unchecked("b", &b)]);
    shared["plugins"]["key-auth"] = json!({});
    let gateway = start(&json!({"routes": [shared], "consumers": consumers}).to_string());
    // Each has a share of its own, whoever asks at the same time, on whichever worker.
    let ask = |key: &'static str| {
        for _ in 0..40 {
            let headers = [("apikey", key), ("Content-Type", "application/json")];
            let response = support::request(gateway.proxy, "POST", "/x", &headers, CHAT);
            assert_eq!(response.status, 200, "{}", response.text());
        }
    };
    std::thread::scope(|scope| {
        for key in ["even", "heavy", "even", "heavy"] {
            scope.spawn(move || ask(key));
        }
    });
    let share = |key: &str| {
        [&a, &b].map(|upstream| {
            let requests = upstream.requests();
            let of_consumer =
                |one: &&support::Received| one.header("x-consumer-username") == Some(key);
            requests.iter().filter(of_consumer).count()
        })
    };
    assert_eq!((share("even"), share("heavy")), ([40, 40], [60, 20]));
}
