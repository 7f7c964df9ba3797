//! Idle connections, by address, newest first.
//!
//! The newest is used first because it is the least likely to be closed by its peer, and so that
//! connections that are no longer needed grow old and go.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    net::IpAddr,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use pointsman_gateway::{
    clock,
    upstream::destination::{Destination, Keepalive},
};
use rustc_hash::FxHashMap;
use tokio::task::coop::unconstrained;

use super::Connection;

/// The idle connections of one worker.
#[derive(Default)]
pub(super) struct Pool {
    /// An address has one list, whatever TLS names it is asked for: clients may choose those.
    idle: FxHashMap<Arc<str>, Vec<Idle>>,
}

/// A connection that waits for its next request.
pub(super) struct Idle {
    destination: Arc<Destination>,
    connection: Connection,
    until: Instant,
}

/// Where a connection goes once its response has been read to the end.
pub(super) struct Return {
    pub(super) pool: Rc<RefCell<Pool>>,
    pub(super) destination: Arc<Destination>,
    pub(super) keepalive: Keepalive,
}

impl Pool {
    /// A connection to `destination` that its peer has not closed, as far as can be known: to that
    /// address of its name, if one is given; and until when it may be kept.
    pub(super) fn take(
        &mut self,
        destination: &Arc<Destination>,
        to: Option<IpAddr>,
        now: Instant,
    ) -> Option<(Connection, Instant)> {
        let list = self.idle.get_mut(&destination.address)?;
        loop {
            let same = |idle: &Idle| {
                (Arc::ptr_eq(&idle.destination, destination) || idle.destination == *destination)
                    && to.is_none_or(|to| idle.connection.address.ip() == to)
            };
            let place = list.iter().rposition(same)?;
            let mut idle = list.remove(place);
            if idle.until > now && is_open(&mut idle.connection) {
                return Some((idle.connection, idle.until));
            }
        }
    }

    /// Keeps a connection until then.
    pub(super) fn put(
        &mut self,
        destination: Arc<Destination>,
        keepalive: Keepalive,
        connection: Connection,
        until: Instant,
    ) {
        let address = &destination.address;
        let list = match self.idle.get_mut(address) {
            Some(list) => list,
            None => self.idle.entry(Arc::clone(address)).or_default(),
        };
        if list.len() >= keepalive.pool_size {
            // The oldest goes: it is the next to be closed by its peer anyway.
            list.remove(0);
        }
        list.push(Idle {
            destination,
            connection,
            until,
        });
    }

    /// Drops what has expired or has been closed by its peer.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.idle.retain(|_, list| {
            list.retain_mut(|idle| idle.until > now && is_open(&mut idle.connection));
            !list.is_empty()
        });
    }
}

impl Return {
    /// Puts `connection` back.
    pub(super) fn put(self, connection: Connection) {
        let until = clock::now() + self.keepalive.idle;
        self.pool
            .borrow_mut()
            .put(self.destination, self.keepalive, connection, until);
    }
}

/// Polls an idle connection once. Nothing may come on it: a close, or a byte that nobody asked
/// for, and it is of no use.
fn is_open(connection: &mut Connection) -> bool {
    let look = poll_fn(|cx| Poll::Ready(connection.wire.poll_fill(cx).is_pending()));
    // A task that has read often is made to pause: its reads say "nothing yet" whatever there is,
    // and closed connections would be taken for open ones.
    let look = pin!(unconstrained(look));
    look.poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(true)
}
