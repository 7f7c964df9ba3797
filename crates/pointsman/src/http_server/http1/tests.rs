//! What only shows when the client's socket takes a few bytes at a time.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::http1::head::HeadLimits;

impl Abort for DuplexStream {
    fn reset_on_close(&self, _: bool) {}
}

/// A client whose socket holds [`CAPACITY`] bytes and has `taken` already, and its far end.
async fn client(taken: &[u8]) -> (Client<DuplexStream>, DuplexStream) {
    let (mut near, far) = tokio::io::duplex(CAPACITY);
    near.write_all(taken).await.expect("there is room");
    let wire = Wire::new(near, Bytes::new());
    let second = Duration::from_secs(1);
    let client = Client {
        inbound: Rc::new(RefCell::new(Inbound::new(wire))),
        output: Output::default(),
        alarm: Alarm::default(),
        drain: watch::channel(false).1,
        limits: Limits {
            head: second,
            body: second,
            send: second * 20,
            heads: HeadLimits {
                bytes: 1000,
                lines: 10,
            },
        },
    };
    (client, far)
}

/// Answers a request whose `100 Continue` found room for `room` bytes; returns what arrived.
async fn answered(room: usize) -> String {
    let taken = vec![b'.'; CAPACITY - room];
    let (mut client, mut far) = client(&taken).await;
    {
        let mut inbound = client.inbound.borrow_mut();
        inbound.interim = CONTINUE;
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let polled = inbound.poll_body(Duration::from_secs(1), &mut cx);
        assert!(polled.is_pending());
    }
    let asked = Asked {
        head_only: false,
        version: Version::HTTP_11,
        keep_alive: true,
    };
    let inbound = Rc::clone(&client.inbound);
    let respond = async {
        let response = Response::new(Body::whole("hello"));
        let after = client.respond(response, &asked).await;
        assert!(matches!(after, After::Keep | After::Close));
        // Whoever still reads the request's body must not write any longer.
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let _ = inbound
            .borrow_mut()
            .poll_body(Duration::from_secs(1), &mut cx);
        drop((client, inbound));
    };
    let mut arrived = String::new();
    let (_, read) = tokio::join!(respond, far.read_to_string(&mut arrived));
    read.expect("an end");
    arrived.split_off(taken.len())
}

#[tokio::test]
async fn a_continue_that_has_begun_comes_whole_before_the_answer() {
    let arrived = answered(10).await;
    let rest = arrived.strip_prefix("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n");
    assert!(
        rest.is_some_and(|rest| rest.ends_with("\r\n\r\nhello")),
        "{arrived}"
    );
}

#[tokio::test]
async fn a_continue_that_has_not_begun_is_left_out() {
    let arrived = answered(0).await;
    assert!(arrived.starts_with("HTTP/1.1 200 OK\r\n"), "{arrived}");
    assert!(arrived.ends_with("\r\n\r\nhello"), "{arrived}");
}

/// What the socket of a client holds.
const CAPACITY: usize = 16;
