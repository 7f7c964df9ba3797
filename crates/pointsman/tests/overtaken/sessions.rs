//! WebSockets: the handshake is a request like any other until it has been sent.

use super::plain::{judges, other, two_nodes};
use crate::{
    held_instance, overtake,
    support::{Answer, Gateway, Held, Upstream, client::Connection, flow_route, instance},
};

const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Accept: yes\r\n\r\n";

/// Asks for a session; the status of the answer.
fn ask(gateway: &Gateway) -> u16 {
    let mut client = Connection::open(gateway.proxy);
    client.send(
        b"GET /v1/realtime?model=m HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
          Sec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\n\r\n",
    );
    client.response(false).status
}

/// I-1, I-2: a node that falls while a connection to it is being made gets no session.
#[test]
fn a_websocket_goes_to_nobody_who_fell() {
    let [judge, _well] = judges();
    let (held, other) = (Held::start(), other(|| Answer::Raw(SWITCHED.to_vec())));
    let gateway = Gateway::start(&two_nodes(held.address, other.address, &judge));
    judge.wait_for_probes(1);
    let (status, fallen) = overtake(&gateway, held, &judge, || ask(&gateway));
    assert_eq!((status, fallen.hits(), other.hits()), (101, 0, 1));
}

/// The same for a session with an instance.
#[test]
fn a_realtime_session_goes_to_nobody_who_fell() {
    let (held, judge) = (Held::start(), Upstream::named("judge"));
    let other = Upstream::start(|_| Answer::Raw(SWITCHED.to_vec()));
    let pair = [
        held_instance(&held, &judge, ", priority: 1"),
        instance("other", other.address, ""),
    ];
    let gateway = Gateway::start(&flow_route(&pair, ", typed_passthrough: true"));
    judge.wait_for_probes(1);
    let (status, fallen) = overtake(&gateway, held, &judge, || ask(&gateway));
    assert_eq!((status, fallen.hits(), other.hits()), (101, 0, 1));
}
