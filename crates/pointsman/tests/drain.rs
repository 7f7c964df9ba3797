//! The end of the program: what is under way, what is cut, and what the logs know of it.

#![allow(
    clippy::disallowed_methods,
    reason = "from outside, there is no clock but the real one"
)]

mod support;

use std::time::{Duration, Instant};

use support::{Answer, CHAT, Gateway, Start, Upstream, client::Connection, single, wait_until};

fn ask(connection: &mut Connection, path: &str) {
    let length = CHAT.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    connection.send(format!("{head}{CHAT}").as_bytes());
}

/// Requests that a second signal cuts have their lines in the access log.
#[test]
fn what_a_second_signal_cuts_is_logged() {
    let silent = Upstream::start(|_| Answer::Silence);
    let mut gateway = Gateway::start_with(Start {
        document: &single("openai", silent.address, ""),
        workers: 2,
        ..Start::default()
    });
    let mut clients: Vec<Connection> = (0..5).map(|_| Connection::open(gateway.proxy)).collect();
    for client in &mut clients {
        ask(client, "/cut");
    }
    wait_until("the requests to arrive", || {
        (silent.hits() == 5).then_some(())
    });
    gateway.signal("TERM");
    gateway.wait_for_line("draining");
    let second = Instant::now();
    gateway.signal("INT");
    // The operator got what they asked for; nginx ends with 0, too.
    assert_eq!(gateway.wait_for_exit().code(), Some(0));
    assert!(second.elapsed() < Duration::from_secs(5));
    let lines = gateway.access_log(5);
    assert_eq!(lines.len(), 5);
    for line in lines {
        assert_eq!(
            (&line["ended"], &line["uri"]),
            (&"abandoned".into(), &"/cut".into())
        );
    }
}

/// The same when the time for the drain is over.
#[test]
fn what_the_end_of_the_drain_cuts_is_logged() {
    let silent = Upstream::start(|_| Answer::Silence);
    let mut gateway = Gateway::start_with(Start {
        document: &single("openai", silent.address, ""),
        sections: "  drain_timeout: 300ms",
        ..Start::default()
    });
    let mut client = Connection::open(gateway.proxy);
    ask(&mut client, "/cut");
    wait_until("the request to arrive", || {
        (silent.hits() == 1).then_some(())
    });
    gateway.signal("TERM");
    assert_eq!(gateway.wait_for_exit().code(), Some(0));
    assert_eq!(gateway.access_log(1)[0]["ended"], "abandoned");
}

/// A head of which only a part has come is not waited for as long as a request is.
#[test]
fn half_a_head_does_not_hold_up_the_end() {
    let slow =
        Upstream::start(|_| Answer::After(Duration::from_secs(8), Box::new(Answer::chat("a"))));
    let mut gateway = Gateway::start(&single("openai", slow.address, ""));
    let mut half = Connection::open(gateway.proxy);
    half.send(b"POST /x HTTP/1.1\r\nHost:");
    let mut whole = Connection::open(gateway.proxy);
    ask(&mut whole, "/x");
    wait_until("the request to arrive", || (slow.hits() == 1).then_some(()));
    let start = Instant::now();
    gateway.signal("TERM");
    gateway.wait_for_line("draining");
    assert_eq!(half.response(false).status, 408);
    let waited = start.elapsed();
    assert!(
        (Duration::from_secs(4)..Duration::from_secs(8)).contains(&waited),
        "{waited:?}"
    );
    assert!(half.is_closed());
    assert_eq!(whole.response(false).status, 200);
    assert_eq!(gateway.wait_for_exit().code(), Some(0));
}
