//! Two joined connections: what passes between them is counted and limited here, and so is the end of
//! a Realtime session, of which its peers are told in a close frame where one may stand.

use std::time::{Duration, Instant};

use pointsman_ai::{Sender, SessionClose, SessionMeter, SessionOpening, close_frame};

use super::{Cut, Relay};
use crate::{
    exchange::Ended,
    failure::TransportFault,
    forward::evidence::{self, StreamEnd},
};

/// Why two joined connections are joined no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelEnd {
    /// The client has said its last word.
    ClientLeft,
    /// The client's connection broke.
    ClientBroke,
    /// The upstream has said its last word.
    UpstreamLeft,
    /// The upstream's connection broke.
    UpstreamBroke,
    /// A limit of ours.
    Cut(Cut),
}

/// What is still to be said. Nothing is, where a frame is under way or all has been said.
#[derive(Debug, Default)]
pub struct Goodbye {
    /// To the client.
    pub to_client: Option<Vec<u8>>,
    /// To the upstream.
    pub to_upstream: Option<Vec<u8>>,
}

impl Relay {
    /// When the two connections are separated, if the time for that is limited.
    pub fn tunnel_until(&self) -> Option<Instant> {
        self.exchange.ai.as_ref()?.relay_limits.until
    }

    /// For how long nothing may move, if the plugin says so.
    pub fn tunnel_idle(&self) -> Option<Duration> {
        self.exchange.ai.as_ref()?.relay_limits.idle
    }

    /// Looks at what the upstream said, before that is passed on.
    pub fn tunnel_said(&mut self, bytes: &[u8]) -> Result<(), Cut> {
        self.upstream_bytes += bytes.len() as u64;
        let Some(call) = self.exchange.ai.as_mut() else {
            return Ok(());
        };
        let limit = call.relay_limits.bytes;
        if limit.is_some_and(|limit| self.upstream_bytes > limit) {
            return Err(Cut::Bytes);
        }
        let Some(session) = &mut call.session else {
            return Ok(());
        };
        let before = session.opening();
        session.on_server(bytes);
        // Sessions are long, and what the first event shows is known now.
        if let (None, Some(opening)) = (before, session.opening()) {
            let shown = match opening {
                SessionOpening::Well => StreamEnd::Well,
                SessionOpening::Failed(status) => StreamEnd::Said(status),
            };
            evidence::of_stream(&mut self.exchange, shown);
        }
        Ok(())
    }

    /// Looks at what the client said, before that is passed on.
    pub fn tunnel_heard(&mut self, bytes: &[u8]) {
        let call = self.exchange.ai.as_mut();
        if let Some(session) = call.and_then(|call| call.session.as_mut()) {
            session.on_client(bytes);
        }
    }

    /// Ends the exchange with the two joined connections, of which the client was sent `to_client`
    /// bytes.
    pub fn tunnel_ended(&mut self, to_client: u64, end: TunnelEnd) -> Goodbye {
        self.exchange.response.body_bytes += to_client;
        let call = self.exchange.ai.as_ref();
        let Some(session) = call.and_then(|call| call.session.as_deref()) else {
            self.end(of_any(end));
            return Goodbye::default();
        };
        let (ended, code, reason) = of_session(session, end);
        let goodbye = Goodbye {
            to_client: (session.may_close_to_client())
                .then(|| close_frame(Sender::Server, code, &reason)),
            // Whatever it was, the upstream is not told that it was wrong.
            to_upstream: (session.may_close_to_server())
                .then(|| close_frame(Sender::Client, GOING_AWAY, &reason)),
        };
        self.exchange.llm.usage = session.usage();
        if session.opening().is_none()
            && let Some(shown) = shown_by_end(session, end)
        {
            evidence::of_stream(&mut self.exchange, shown);
        }
        if ended != Ended::Complete {
            tracing::info!(
                route = self.exchange.route().map_or("", |route| route.id.as_str()),
                bytes = self.upstream_bytes,
                "session ended: {reason}"
            );
        }
        self.end(ended);
        goodbye
    }
}

/// What the end of a session that had no event says about its instance, if anything.
fn shown_by_end(session: &SessionMeter, end: TunnelEnd) -> Option<StreamEnd> {
    match (session.closed_by_server(), end) {
        (Some(SessionClose::Proper), _) => Some(StreamEnd::Well),
        (Some(SessionClose::Fault), _) => Some(StreamEnd::Broken(TransportFault::Closed)),
        // Who is told that it is over need not answer.
        (None, _) if session.is_closed_by_client() => None,
        (None, TunnelEnd::UpstreamLeft | TunnelEnd::UpstreamBroke) => {
            Some(StreamEnd::Broken(TransportFault::Closed))
        }
        // Servers speak first.
        (None, TunnelEnd::Cut(Cut::Idle | Cut::Duration)) => {
            Some(StreamEnd::Broken(TransportFault::ReadTimeout))
        }
        (
            None,
            TunnelEnd::ClientLeft
            | TunnelEnd::ClientBroke
            | TunnelEnd::Cut(Cut::Bytes | Cut::Rewriting),
        ) => None,
    }
}

/// How a session ended, and with which code and words its client is told (RFC 6455 §7.4.1).
fn of_session(session: &SessionMeter, end: TunnelEnd) -> (Ended, u16, String) {
    let is_closed = session.is_closed_by_client() || session.closed_by_server().is_some();
    let (ended, code, reason) = match end {
        TunnelEnd::Cut(cut) => {
            let code = if cut == Cut::Bytes {
                TOO_LARGE
            } else {
                GOING_AWAY
            };
            return (Ended::Limited, code, cut.to_string());
        }
        _ if is_closed => (Ended::Complete, GOING_AWAY, ""),
        TunnelEnd::ClientLeft => (Ended::Abandoned, GOING_AWAY, "the client has left"),
        TunnelEnd::ClientBroke => (
            Ended::Abandoned,
            GOING_AWAY,
            "the client's connection broke",
        ),
        TunnelEnd::UpstreamLeft | TunnelEnd::UpstreamBroke => (
            Ended::UpstreamBroken,
            FAULT,
            "the provider's connection broke off",
        ),
    };
    (ended, code, reason.to_owned())
}

/// How any other two connections ended.
fn of_any(end: TunnelEnd) -> Ended {
    match end {
        TunnelEnd::ClientLeft | TunnelEnd::UpstreamLeft | TunnelEnd::Cut(_) => Ended::Complete,
        TunnelEnd::ClientBroke => Ended::Abandoned,
        TunnelEnd::UpstreamBroke => Ended::UpstreamBroken,
    }
}

const GOING_AWAY: u16 = 1001;
const TOO_LARGE: u16 = 1009;
const FAULT: u16 = 1011;
