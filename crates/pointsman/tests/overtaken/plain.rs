//! Plain upstreams.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use serde_json::json;

use crate::{
    fall, judged_at, overtake,
    support::{Answer, Gateway, Held, NameServer, Start, Upstream, get, request, wait_until},
    wait_for_verdict,
};

/// An address on this machine.
fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, last)
}

/// Who judges a node at 127.0.0.1, and who one at 127.0.0.2: `checks.active.port` is the same for all nodes.
pub(super) fn judges() -> [Upstream; 2] {
    let first = Upstream::named("judge");
    let second = SocketAddr::from((ip(2), first.port()));
    [first, Upstream::start_at(second, |_| Answer::chat("judge"))]
}

/// A route to two nodes, of which `first` is asked as long as it is usable.
pub(super) fn two_nodes(first: SocketAddr, other: SocketAddr, judge: &Upstream) -> String {
    let node = |at: SocketAddr, priority: u32| json!({"host": at.ip(), "port": at.port(), "weight": 1, "priority": priority});
    let nodes = json!([node(first, 1), node(other, 0)]);
    format!(
        "routes: [{{id: 1, uri: /*, enable_websocket: true, upstream: {{nodes: {nodes}, {}}}}}]",
        judged_at(judge.port())
    )
}

/// Another node, at 127.0.0.2.
pub(super) fn other(handler: impl Fn() -> Answer + Send + Sync + 'static) -> Upstream {
    Upstream::start_at(SocketAddr::from((ip(2), 0)), move |_| handler())
}

/// I-1, I-2: a node that falls while a connection to it is being made gets nothing, whatever is sent; and a body
/// that was on its way goes to the other one.
#[test]
fn a_node_that_falls_while_connecting_gets_nothing() {
    for (method, body) in [("GET", ""), ("POST", "a body")] {
        let [judge, well] = judges();
        let (held, other) = (Held::start(), other(|| Answer::chat("other")));
        let gateway = Gateway::start(&two_nodes(held.address, other.address, &judge));
        judge.wait_for_probes(1);
        well.wait_for_probes(1);
        let ask = || request(gateway.proxy, method, "/x", &[], body).status;
        let (status, fallen) = overtake(&gateway, held, &judge, ask);
        assert_eq!((status, fallen.hits(), other.hits()), (200, 0, 1));
        assert_eq!(other.last().text(), body);
        // What was never sent was no attempt.
        let line = gateway.access_log(1).remove(0);
        assert_eq!(line["upstream_addr"], other.address.to_string(), "{line}");
    }
}

/// A kept connection that is closed without a word: the request is sent once more, but not to a node that has
/// fallen meanwhile.
#[test]
fn what_a_kept_connection_lost_is_not_sent_again_to_the_fallen() {
    let [judge, _well] = judges();
    let (arrived, released) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let (tells, waits) = (Arc::clone(&arrived), Arc::clone(&released));
    let first = Upstream::start(move |received| {
        if received.target == "/kept" {
            return Answer::chat("first");
        }
        tells.store(true, SeqCst);
        wait_until("the end", || waits.load(SeqCst).then_some(()));
        Answer::Close
    });
    let other = other(|| Answer::chat("other"));
    let gateway = Gateway::start(&two_nodes(first.address, other.address, &judge));
    judge.wait_for_probes(1);
    assert_eq!(get(gateway.proxy, "/kept", &[]).status, 200);
    let status = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| get(gateway.proxy, "/lost", &[]).status);
        wait_until("the request", || arrived.load(SeqCst).then_some(()));
        fall(&gateway, &judge);
        released.store(true, SeqCst);
        waiting.join().expect("answered")
    });
    // The two of the same connection, and none after it.
    assert_eq!((status, first.hits(), other.hits()), (200, 2, 1));
}

/// I-15: an open connection to the next address of a name, whose turn comes when the first one turns out to
/// refuse: meanwhile its address may have fallen.
#[test]
fn a_kept_connection_to_an_address_that_fell_is_not_used() {
    let names = NameServer::start();
    let [judge, well] = judges();
    let kept = Upstream::start_at(SocketAddr::from((ip(1), 0)), |_| Answer::chat("kept"));
    let held = Held::at(SocketAddr::from((ip(2), kept.port())));
    names.point("two.test", &[ip(1), ip(2)]);
    let gateway = Gateway::start_with(Start {
        document: &format!(
            "routes: [{{id: 1, uri: /*, upstream: {{nodes: {{\"two.test:{}\": 1}}, {}}}}}]",
            kept.port(),
            judged_at(judge.port())
        ),
        apisix: &names.settings(),
        ..Start::default()
    });
    // The only usable address, while nobody answers at the other one.
    fall(&gateway, &well);
    assert_eq!(get(gateway.proxy, "/x", &[]).status, 200);
    well.set_healthy(true);
    wait_for_verdict(&gateway, &well, "healthy");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            // Addresses take turns.
            let asked = (0..2).map(|_| get(gateway.proxy, "/x", &[]).status);
            asked.collect::<Vec<_>>()
        });
        held.wait_for_caller();
        let before = kept.hits();
        fall(&gateway, &judge);
        held.refuse();
        assert_eq!(waiting.join().expect("answered").pop(), Some(502));
        assert_eq!(kept.hits(), before);
    });
}
