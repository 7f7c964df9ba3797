//! Races of requests with each other, and with changes of configuration while they are under way.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use serde_json::{Value, json};

use super::{
    identity::{as_itself, with_header},
    names::{
        changes, checked, checks, hits, ip, plain, start, upstreams, wait_for, wait_for_changes,
    },
};
use crate::{
    document, route,
    support::{
        CHAT, Gateway, NameServer, Received, SecureUpstream, Upstream, call, client::Connection,
        post_json, under_load, wait_until,
    },
};

/// An instance at a name, whose requests say whose they are wherever one can look.
fn marked(name: &str, port: u16) -> Value {
    let host = format!("{name}.test");
    let mut instance = as_itself(checked(name, &host, port, checks()));
    instance["override"]["endpoint"] = json!(format!("http://{host}:{port}/of/{name}"));
    instance["options"] = json!({"model": format!("model-{name}")});
    instance
}

/// A request as the instance `name` must receive it, or the node of that name.
fn expect(received: &Received, name: &str, port: u16) {
    let host = format!("{name}.test:{port}");
    assert_eq!(received.header("host"), Some(host.as_str()), "{name}");
    if received.target == "/plain" {
        assert_eq!(received.header("authorization"), Some("Bearer client"));
        return;
    }
    let token = format!("Bearer {name}");
    let authorization = received.header("authorization");
    assert_eq!(authorization, Some(token.as_str()), "{name}");
    assert_eq!(received.target, format!("/of/{name}"));
    assert_eq!(received.json()["model"], format!("model-{name}"));
}

/// R-5, I-13: requests that wait between their pick and their sending, and others that are picked for all the
/// while, on all workers, with names whose addresses change and are down in part. Each goes where it was picked
/// to go.
#[test]
fn r05_what_others_pick_changes_nobodys_destination() {
    let names = NameServer::start();
    let [one, dead_one, two, dead_two] = upstreams([2, 3, 4, 5]);
    let (port, health) = (one.port(), Upstream::named("health"));
    let released = Arc::new(AtomicBool::new(false));
    let slow = SecureUpstream::held(&released);
    dead_one.set_healthy(false);
    dead_two.set_healthy(false);
    names.point("one.test", &[ip(2), ip(3)]);
    names.point("two.test", &[ip(4), ip(5)]);
    names.point("slow.test", &[ip(1)]);
    let with = |turn: usize| {
        let mut pair = [marked("one", port), marked("two", port)];
        pair.rotate_left(turn % 2);
        let mut waits = as_itself(checked("slow", "slow.test", slow.address.port(), checks()));
        waits["override"]["endpoint"] = json!(format!("https://slow.test:{}", slow.address.port()));
        waits["checks"]["active"]["port"] = json!(health.port());
        waits["priority"] = json!(1);
        let mut slowly = route("slow", &[&[waits][..], &pair].concat());
        slowly["plugins"]["ai-proxy-multi"]["ssl_verify"] = json!(false);
        let nodes = ["one", "two"].map(|name| format!("{name}.test:{port}"));
        let mut nodes = plain("plain", &nodes, Some(checks()));
        nodes["upstream"]["pass_host"] = json!("node");
        document(&[route("ai", &pair), slowly, nodes])
    };
    let gateway = start(&names, &with(0));
    wait_for(&gateway, 3, false);
    wait_for(&gateway, 5, false);
    let client = [("Authorization", "Bearer client")];
    let calls = [call("/ai", &client, CHAT), call("/plain", &client, "")];
    std::thread::scope(|scope| {
        let ask = || post_json(gateway.proxy, "/slow", CHAT).status;
        let waiting: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        // They have picked, and shake hands.
        wait_until("the connections", || (slow.open() >= 8).then_some(()));
        under_load(gateway.proxy, &calls, |load| {
            for turn in 1..=8 {
                gateway.reload(&with(turn));
                load.pass(3);
            }
            for lasts in [[2, 2, 4, 5], [2, 3, 4, 4]] {
                let known = changes(&gateway);
                names.point("one.test", &[ip(lasts[0]), ip(lasts[1])]);
                names.point("two.test", &[ip(lasts[2]), ip(lasts[3])]);
                wait_for_changes(&gateway, known, 1);
                load.pass(3);
            }
            released.store(true, Ordering::SeqCst);
            load.pass(3);
        });
        for waiting in waiting {
            assert_eq!(waiting.join().expect("answered"), 200);
        }
    });
    let host = format!("slow.test:{}", slow.address.port());
    let seen: Vec<_> = slow.seen().into_iter().collect();
    assert_eq!(seen, [(Some("slow.test".to_owned()), host)]);
    for (upstream, name) in [(&one, "one"), (&two, "two")] {
        let requests = upstream.requests();
        for received in &requests {
            expect(received, name, port);
        }
        let count = |is_plain: bool| {
            let of_kind = |one: &&Received| (one.target == "/plain") == is_plain;
            requests.iter().filter(of_kind).count()
        };
        assert!(count(true) > 0 && count(false) > 0, "{name} got too little");
    }
    assert_eq!(hits([&dead_one, &dead_two]), [0, 0]);
}

/// R-6, I-12: while requests upload their bodies on all workers, instances are reordered, trade their addresses,
/// become fewer and are replaced. Each upload is served, by an instance that it began with, under its name, at
/// its newest address and with its credential.
#[test]
fn r06_uploads_outlive_all_changes_around_them() {
    let names = NameServer::start();
    let [a, dead, c] = upstreams([2, 3, 4]);
    let (port, new) = (a.port(), Upstream::named("new"));
    dead.set_healthy(false);
    for (name, last) in [("one.test", 2), ("two.test", 3), ("three.test", 4)] {
        names.point(name, &[ip(last)]);
    }
    let [one, two, three] = ["one", "two", "three"].map(|name| marked(name, port));
    let to = |instances: &[&Value]| {
        let instances: Vec<Value> = instances.iter().map(|one| (*one).clone()).collect();
        document(&[route("x", &instances)])
    };
    let gateway = start(&names, &to(&[&one, &two, &three]));
    wait_for(&gateway, 3, false);
    let mut uploads = begin_uploads(&gateway);
    under_load(gateway.proxy, &[call("/x", &[], CHAT)], |load| {
        gateway.reload(&to(&[&three, &two, &one]));
        for (name, last) in [("one.test", 4), ("three.test", 2)] {
            let known = changes(&gateway);
            names.point(name, &[ip(last)]);
            wait_for_changes(&gateway, known, 1);
            load.pass(2);
        }
        let beside = as_itself(super::names::instance("new", "127.0.0.1", new.port()));
        for fewer in [&[&two, &three][..], &[&three], &[&beside]] {
            gateway.reload(&to(fewer));
            load.pass(2);
        }
        for connection in &mut uploads {
            connection.send(UPLOAD_END.as_bytes());
        }
        for connection in &mut uploads {
            let response = connection.response(false);
            assert_eq!(response.status, 200, "{}", response.text());
        }
        load.pass(1);
    });
    let served = check_uploads(&c, "one", port) + check_uploads(&a, "three", port);
    assert_eq!((served, dead.hits()), (UPLOADS, 0));
    assert!(
        new.hits() > 0
            && new
                .requests()
                .iter()
                .all(|one| one.header("x-upload").is_none())
    );
    assert_eq!(with_header(&new, "authorization", "Bearer new"), new.hits());
}

/// As many requests as there are `UPLOADS`, each on its own connection and without its end.
fn begin_uploads(gateway: &Gateway) -> Vec<Connection> {
    let upload = |number: usize| {
        let text = call("/x", &[("X-Upload", &number.to_string())], CHAT);
        let begin = text.strip_suffix(UPLOAD_END).expect("it ends so");
        let mut connection = Connection::open(gateway.proxy);
        connection.send(begin.as_bytes());
        connection
    };
    let uploads = (0..UPLOADS).map(upload).collect();
    wait_until("all uploads to be under way", || {
        let count = gateway.metric(&["pointsman_requests_in_flight"]);
        (count >= UPLOADS as f64).then_some(())
    });
    uploads
}

/// Looks at the uploads that the instance `name` received, which are some; returns how many.
fn check_uploads(upstream: &Upstream, name: &str, port: u16) -> usize {
    let mut uploads = upstream.requests();
    uploads.retain(|one| one.header("x-upload").is_some());
    for received in &uploads {
        expect(received, name, port);
    }
    assert!(!uploads.is_empty(), "{name} served none");
    uploads.len()
}

const UPLOADS: usize = 16;
const UPLOAD_END: &str = "\"Hi\"}]}";
