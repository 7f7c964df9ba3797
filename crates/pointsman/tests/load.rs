//! `least_conn` and `ewma`: who gets a request when it matters what others are under way, and how long
//! they took.
//!
//! The stand-in upstreams hold a response back for as long as the client keeps its connection.

mod support;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use support::{
    Answer, CHAT, Gateway, Start, Upstream, client::Connection, get, instance, multi, post_json,
    run, wait_until,
};

/// Answers at once with its name; `/held` with its name and no end, `/broken` with no proper end, and
/// `/ws` with a tunnel.
fn node(name: &'static str) -> Upstream {
    Upstream::start(move |received| match received.target.as_str() {
        "/held" => Answer::Open(
            format!("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nfrom {name};").into_bytes(),
        ),
        "/broken" => {
            Answer::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nno more".to_vec())
        }
        "/ws" => Answer::Open(
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
                 Upgrade: websocket\r\n\r\nfrom {name};"
            )
            .into_bytes(),
        ),
        _ => Answer::text(200, name),
    })
}

/// One that takes its time.
fn slow(name: &'static str, pause: Duration) -> Upstream {
    Upstream::start(move |_| Answer::After(pause, Box::new(Answer::text(200, name))))
}

fn upstream(kind: &str, nodes: &[(SocketAddr, u32)]) -> Value {
    let nodes = nodes
        .iter()
        .map(|(address, weight)| (address.to_string(), json!(weight)));
    json!({"type": kind, "nodes": Value::Object(nodes.collect())})
}

fn route(upstream: &Value) -> String {
    let routes = json!([{"id": 1, "uri": "/*", "enable_websocket": true, "upstream": upstream}]);
    json!({ "routes": routes }).to_string()
}

fn least_conn(nodes: &[(&Upstream, u32)]) -> String {
    let nodes: Vec<_> = nodes
        .iter()
        .map(|(node, weight)| (node.address, *weight))
        .collect();
    route(&upstream("least_conn", &nodes))
}

/// A request that stays under way until the connection is dropped, and who has it.
fn held(gateway: &Gateway, target: &str) -> (String, Connection) {
    let mut connection = Connection::open(gateway.proxy);
    let upgrade = if target == "/ws" {
        "Connection: Upgrade\r\nUpgrade: websocket\r\n"
    } else {
        ""
    };
    connection.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{upgrade}\r\n").as_bytes());
    let text = connection.read_until(";");
    let name = text
        .split("from ")
        .nth(1)
        .and_then(|rest| rest.split(';').next());
    (name.expect("a name").to_owned(), connection)
}

fn all_held(gateway: &Gateway, count: usize) -> (Vec<String>, Vec<Connection>) {
    (0..count).map(|_| held(gateway, "/held")).unzip()
}

/// Requests one after the other, each over before the next: how many went to whom.
fn in_turn(gateway: &Gateway, count: usize) -> BTreeMap<String, usize> {
    let before = gateway.access_log(0).len();
    let mut counts = BTreeMap::new();
    for number in 1..=count {
        let response = get(gateway.proxy, "/quick", &[]);
        assert_eq!(response.status, 200, "{}", response.text());
        *counts.entry(response.text()).or_insert(0) += 1;
        gateway.access_log(before + number);
    }
    counts
}

fn counts<const N: usize>(expected: [(&str, usize); N]) -> BTreeMap<String, usize> {
    let owned = expected.map(|(name, count)| (name.to_owned(), count));
    owned.into()
}

/// B-193
#[test]
fn the_heavier_is_first() {
    let (a, b) = (node("a"), node("b"));
    let gateway = Gateway::start(&least_conn(&[(&a, 2), (&b, 1)]));
    assert_eq!(in_turn(&gateway, 4), counts([("a", 4)]));
    gateway.reload(&least_conn(&[(&a, 3), (&b, 2)]));
    assert_eq!(all_held(&gateway, 3).0, ["a", "b", "a"]);
}

/// B-195: also with workers that share nothing else.
#[test]
fn load_is_that_of_the_upstream_and_the_process() {
    let (a, b) = (node("a"), node("b"));
    let shared = upstream("least_conn", &[(a.address, 1), (b.address, 1)]);
    let document = json!({
        "routes": [
            {"id": 1, "uri": "/one/*", "upstream_id": 5, "plugins": {"proxy-rewrite": {"uri": "/held"}}},
            {"id": 2, "uri": "/two/*", "upstream_id": 5, "plugins": {"proxy-rewrite": {"uri": "/held"}}}
        ],
        "upstreams": [{"id": 5, "type": "least_conn", "nodes": shared["nodes"]}]
    });
    let gateway = Gateway::start_with(Start {
        document: &document.to_string(),
        workers: 3,
        ..Start::default()
    });
    let all: Vec<_> = (0..20)
        .map(|number| held(&gateway, ["/one/x", "/two/x"][number % 2]))
        .collect();
    for pair in all.chunks(2) {
        assert_ne!(pair[0].0, pair[1].0);
    }
}

/// B-196, B-197, I-26
#[test]
fn a_new_node_gets_what_comes_next() {
    let (a, b, c) = (node("a"), node("b"), node("c"));
    let gateway = Gateway::start(&least_conn(&[(&a, 1)]));
    let sockets: Vec<_> = (0..3).map(|_| held(&gateway, "/ws")).collect();
    gateway.reload(&least_conn(&[(&a, 1), (&b, 1)]));
    let (names, two) = all_held(&gateway, 3);
    assert_eq!(names, ["b"; 3]);
    gateway.reload(&least_conn(&[(&a, 1), (&b, 1), (&c, 1)]));
    let (names, three) = all_held(&gateway, 3);
    assert_eq!(names, ["c"; 3]);
    // A node that leaves with requests under way has them still when it comes back.
    gateway.reload(&least_conn(&[(&a, 1), (&c, 1)]));
    gateway.reload(&least_conn(&[(&a, 1), (&b, 1), (&c, 1)]));
    drop(three);
    gateway.access_log(3);
    assert_eq!(in_turn(&gateway, 4), counts([("c", 4)]));
    drop((sockets, two));
    gateway.access_log(13);
    assert_eq!(in_turn(&gateway, 9), counts([("a", 3), ("b", 3), ("c", 3)]));
}

/// B-198
#[test]
fn a_raised_weight_counts_at_once() {
    let (a, b) = (node("a"), node("b"));
    let gateway = Gateway::start(&least_conn(&[(&a, 1), (&b, 1)]));
    let _held = all_held(&gateway, 4);
    gateway.reload(&least_conn(&[(&a, 1), (&b, 10)]));
    assert_eq!(all_held(&gateway, 3).0, ["b"; 3]);
}

/// B-180, B-181, B-182, and of B-194 what I-23 leaves of it: no node twice.
#[test]
fn the_dead_are_tried_in_the_order_of_tiers() {
    let alive = node("alive");
    let dead: Vec<SocketAddr> = (0..3).map(|_| Upstream::nobody()).collect();
    let at = |address: SocketAddr, weight: u32, priority: Option<i32>| {
        let mut node = json!({"host": "127.0.0.1", "port": address.port(), "weight": weight});
        if let Some(priority) = priority {
            node["priority"] = json!(priority);
        }
        node
    };
    let nodes = json!([
        at(alive.address, 1, Some(-1)),
        at(dead[0], 1, None),
        at(dead[1], 1, Some(1)),
        at(dead[2], 2, Some(1)),
    ]);
    let gateway = Gateway::start(&route(&json!({"type": "least_conn", "nodes": nodes})));
    assert_eq!(get(gateway.proxy, "/quick", &[]).text(), "alive");
    let line = gateway.access_log(1).remove(0);
    let order = [dead[2], dead[1], dead[0], alive.address].map(|address| address.to_string());
    assert_eq!(line["upstream_addr"], order.join(", "));
    gateway.reload(&route(
        &json!({"type": "least_conn", "retries": 3, "nodes": [nodes[1], nodes[2]]}),
    ));
    assert_eq!(get(gateway.proxy, "/quick", &[]).status, 502);
    let line = gateway.access_log(2).remove(1);
    assert_eq!(line["upstream_status"], "502, 502");
}

/// I-26: whatever becomes of a request, what it held is given back, once.
#[test]
fn nothing_stays_counted() {
    let (a, b, dead) = (node("a"), node("b"), Upstream::nobody());
    let nodes = [(a.address, 1), (b.address, 1), (dead, 1)];
    let gateway = Gateway::start(&route(&upstream("least_conn", &nodes)));
    let mut requests = 0;
    for _ in 0..8 {
        // The client leaves, in the middle of the response or of an upgrade; the node leaves.
        let gone = [held(&gateway, "/held"), held(&gateway, "/ws")];
        assert!(!get(gateway.proxy, "/broken", &[]).complete);
        assert_eq!(get(gateway.proxy, "/quick", &[]).status, 200);
        requests += 4;
        drop(gone);
        gateway.access_log(requests);
    }
    gateway.wait_until_idle();
    // Retries have passed by the dead one. All are at 0: those that live get as much of what comes.
    let logged = gateway.access_log(requests);
    let retried = |line: &&Value| {
        line["upstream_status"]
            .as_str()
            .is_some_and(|s| s.contains("502"))
    };
    assert!(logged.iter().any(|line| retried(&line)));
    gateway.reload(&least_conn(&[(&a, 1), (&b, 1)]));
    let (mut names, _held) = all_held(&gateway, 8);
    names.sort();
    assert_eq!(names, [["a"; 4], ["b"; 4]].concat());
}

/// B-199
#[test]
fn the_quicker_node_gets_all_but_one() {
    let (a, b) = (
        slow("slow", Duration::from_millis(300)),
        slow("fast", Duration::from_millis(3)),
    );
    let gateway = Gateway::start(&route(&upstream("ewma", &[(a.address, 1), (b.address, 1)])));
    assert_eq!(in_turn(&gateway, 12), counts([("fast", 11), ("slow", 1)]));
    // What was learnt outlives a reload.
    gateway.reload(&route(&upstream("ewma", &[(a.address, 2), (b.address, 1)])));
    assert_eq!(in_turn(&gateway, 6), counts([("fast", 6)]));
}

/// B-200: 90 ms fade to 60 ms in as much time as 45 ms to 30 ms, about four seconds. The gap of 30 ms is
/// wider than what a busy machine adds to an answer.
#[test]
fn an_idle_node_gets_another_chance() {
    let (a, b) = (
        slow("slow", Duration::from_millis(90)),
        slow("fast", Duration::from_millis(60)),
    );
    let gateway = Gateway::start(&route(&upstream("ewma", &[(a.address, 1), (b.address, 1)])));
    let hits = || (a.hits(), b.hits());
    wait_until("the slow node to be asked once more", || {
        assert_eq!(get(gateway.proxy, "/quick", &[]).status, 200);
        (hits().0 == 2).then_some(())
    });
    assert!(hits().1 > 10, "{:?}", hits());
}

/// B-201
#[test]
fn ewma_gets_past_the_dead() {
    let alive = node("alive");
    let (one, two) = (Upstream::nobody(), Upstream::nobody());
    let gateway = Gateway::start(&route(&upstream("ewma", &[(one, 1), (alive.address, 1)])));
    let twelve = || -> Vec<u16> {
        let proxy = gateway.proxy;
        let threads: Vec<_> = (0..12)
            .map(|_| std::thread::spawn(move || get(proxy, "/quick", &[]).status))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("answered"))
            .collect()
    };
    assert_eq!((twelve(), alive.hits()), (vec![200; 12], 12));
    gateway.reload(&route(&upstream("ewma", &[(one, 1), (two, 1)])));
    assert_eq!(twelve(), [502; 12]);
}

/// A node that does not answer in time is slow, not unknown.
#[test]
fn a_timeout_is_a_long_response_time() {
    let (silent, alive) = (
        Upstream::start(|_| Answer::Silence),
        slow("alive", Duration::from_millis(3)),
    );
    let mut written = upstream("ewma", &[(silent.address, 1), (alive.address, 1)]);
    written["timeout"] = json!({"connect": 1, "send": 1, "read": 0.5});
    let gateway = Gateway::start(&route(&written));
    assert_eq!(in_turn(&gateway, 8), counts([("alive", 8)]));
    assert_eq!(silent.hits(), 1);
}

/// A request for a stream, of which the first event is here.
fn open_stream(gateway: &Gateway) -> Connection {
    let body = CHAT.replacen('{', "{\"stream\":true,", 1);
    let mut connection = Connection::open(gateway.proxy);
    connection.send(
        format!(
            "POST /x HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .as_bytes(),
    );
    connection.read_until("data: {");
    connection
}

/// Our addition: instances are balanced by what they have under way, too.
#[test]
fn instances_by_load() {
    let stream = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n\
        data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n"
        .to_vec();
    let named = |name: &'static str| {
        let stream = stream.clone();
        Upstream::start(move |received| match received.json()["stream"].as_bool() {
            Some(true) => Answer::Open(stream.clone()),
            _ => Answer::chat(name),
        })
    };
    let (a, b, limited) = (named("a"), named("b"), Upstream::failing(429));
    let instances = [
        instance("a", a.address, ""),
        instance("b", b.address, ""),
        instance("limited", limited.address, "").replace("weight: 1", "weight: 2"),
    ];
    let more = "        balancer: {algorithm: least_conn}\n        fallback_strategy: http_429\n";
    let gateway = Gateway::start(&multi(&instances, more));
    let streams: Vec<_> = (0..4).map(|_| open_stream(&gateway)).collect();
    // The one with the quota is first each time: no retry leaves it counted.
    assert_eq!((a.hits(), b.hits(), limited.hits()), (2, 2, 4));
    drop(streams);
    gateway.access_log(4);
    gateway.reload(&multi(
        &instances[..2],
        "        balancer: {algorithm: least_conn}\n",
    ));
    let _stream = open_stream(&gateway);
    let busy = a.hits() - 2;
    for number in 0..6 {
        assert_eq!(post_json(gateway.proxy, "/x", CHAT).status, 200);
        gateway.access_log(5 + number);
    }
    let idle_hits = if busy == 1 { b.hits() } else { a.hits() };
    assert_eq!(idle_hits, 2 + 6);
}

/// An answer that was kept while another instance was to be tried is under way again once it is passed on.
#[test]
fn an_answer_that_was_kept_is_load() {
    let stream = b"HTTP/1.1 500 Oh\r\nContent-Type: text/event-stream\r\n\r\ndata: {}\n\n".to_vec();
    let named = |name: &'static str| {
        let stream = stream.clone();
        Upstream::start(move |received| match received.json()["stream"].as_bool() {
            Some(true) => Answer::Open(stream.clone()),
            _ => Answer::chat(name),
        })
    };
    let (a, b) = (named("a"), named("b"));
    let instances = [instance("a", a.address, ""), instance("b", b.address, "")];
    let more = "        balancer: {algorithm: least_conn}\n        fallback_strategy: http_5xx\n";
    let gateway = Gateway::start(&multi(&instances, more));
    let stream = open_stream(&gateway);
    let at = |upstream: &Upstream| upstream.requests()[0].at;
    let a_was_last = at(&a) > at(&b);
    for number in 1..=6 {
        assert_eq!(post_json(gateway.proxy, "/x", CHAT).status, 200);
        gateway.access_log(number);
    }
    let expected = if a_was_last { (1, 7) } else { (7, 1) };
    assert_eq!((a.hits(), b.hits()), expected);

    // And no longer than that.
    drop(stream);
    gateway.access_log(7);
    let before = (a.hits(), b.hits());
    for number in 8..=13 {
        assert_eq!(post_json(gateway.proxy, "/x", CHAT).status, 200);
        gateway.access_log(number);
    }
    assert_eq!((a.hits() - before.0, b.hits() - before.1), (3, 3));
}

/// Our addition: instances are balanced by how long they take.
#[test]
fn instances_by_latency() {
    let after = |name: &'static str, pause: u64| {
        Upstream::start(move |_| {
            Answer::After(Duration::from_millis(pause), Box::new(Answer::chat(name)))
        })
    };
    let (slow, fast) = (after("slow", 300), after("fast", 3));
    let instances = [
        instance("slow", slow.address, ""),
        instance("fast", fast.address, ""),
    ];
    let gateway = Gateway::start(&multi(&instances, "        balancer: {algorithm: ewma}\n"));
    for number in 1..=12 {
        assert_eq!(post_json(gateway.proxy, "/x", CHAT).status, 200);
        gateway.access_log(number);
    }
    assert_eq!((slow.hits(), fast.hits()), (1, 11));
}

/// An LLM's stream begins with its first bytes, whenever its head came and however long it lasts.
#[test]
fn streams_are_measured_to_their_first_bytes() {
    // Each sends its head at once; the slow one then has less to say, and is done first.
    let stream = |pause: u64, events: usize| {
        Upstream::start(move |_| Answer::Stream {
            pieces: vec![b"data: {\"choices\":[]}\n\n".to_vec(); events],
            pause: Duration::from_millis(pause),
            ends: true,
        })
    };
    let (slow, fast) = (stream(200, 1), stream(40, 10));
    let instances = [
        instance("slow", slow.address, ""),
        instance("fast", fast.address, ""),
    ];
    let gateway = Gateway::start(&multi(&instances, "        balancer: {algorithm: ewma}\n"));
    let body = CHAT.replacen('{', "{\"stream\":true,", 1);
    for number in 1..=8 {
        assert_eq!(post_json(gateway.proxy, "/x", &body).status, 200);
        gateway.access_log(number);
    }
    assert_eq!((slow.hits(), fast.hits()), (1, 7));
}

#[test]
fn another_type_is_an_error_that_lists_those_there_are() {
    let folder = tempfile::tempdir().expect("a folder");
    support::write_config(folder.path(), "", "");
    let document = folder.path().join("apisix.yaml");
    let written = route(&upstream("fastest", &[(Upstream::nobody(), 1)]));
    std::fs::write(&document, format!("{written}\n#END\n")).expect("written");
    let config = folder.path().join("config.yaml");
    let (code, out, err) = run(&["check", "--config", &config.to_string_lossy()]);
    assert_eq!(code, Some(1), "{out}{err}");
    let said = "upstream.type: type fastest is not known (roundrobin, chash, least_conn, ewma)";
    assert!(format!("{out}{err}").contains(said), "{out}{err}");
}
