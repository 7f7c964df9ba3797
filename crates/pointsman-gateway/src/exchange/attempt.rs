//! One attempt of a request: where it went, and how it fared.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use pointsman_balance::{Hold, Picked, Trial};

use super::{Ended, Exchange};
use crate::{
    clock,
    failure::{Blame, Failure},
    forward::picks,
};

/// One attempt, for logs and variables.
#[derive(Debug)]
pub struct AttemptRecord {
    /// `host:port` that was dialled, as configured.
    pub address: Arc<str>,
    /// The address behind that, once it is known.
    pub dialled: Option<SocketAddr>,
    /// Name of the node or instance.
    pub member: Arc<str>,
    /// Epoch of the verdicts that the pick saw.
    pub epoch: u64,
    /// When it began.
    pub started: Instant,
    /// Status of the response, or the one that its failure stands for; 0 while unknown.
    pub status: u16,
    /// Whether `status` came from the target.
    pub answered: bool,
    /// Time to connect.
    pub connect: Option<Duration>,
    /// Until the response's head.
    pub header: Option<Duration>,
    /// Until its end.
    pub total: Option<Duration>,
    /// Counts it among the requests under way at its member, if the balancing asks for that.
    pub hold: Option<Hold>,
    /// The trial of a circuit that its stream decides about.
    pub trial: Option<Trial>,
    /// Bytes of the response's body.
    pub body_bytes: u64,
    /// Path without query that was sent.
    pub path: Arc<str>,
    /// Scheme of the destination.
    pub scheme: &'static str,
    /// `Host` that was sent.
    pub host: Arc<str>,
}

impl AttemptRecord {
    /// What is known of the attempt that `picked` stands for as it begins. The parameters are the
    /// fields of the same names.
    pub fn begin(
        picked: &mut Picked,
        address: Arc<str>,
        member: Arc<str>,
        path: Arc<str>,
        scheme: &'static str,
        host: Arc<str>,
    ) -> Self {
        Self {
            address,
            dialled: None,
            member,
            epoch: picked.epoch(),
            started: clock::now(),
            status: 0,
            answered: false,
            connect: None,
            header: None,
            total: None,
            hold: picked.take_hold(),
            trial: None,
            body_bytes: 0,
            path,
            scheme,
            host,
        }
    }

    /// Tells the balancing how long the target took. As in APISIX, connecting counts on top of a time
    /// that includes it.
    pub(super) fn observe(&mut self, response_time: Duration, now: Instant) {
        if let Some(hold) = &mut self.hold {
            let connect = self.connect.unwrap_or_default();
            hold.observe(connect + response_time, clock::since_start(now));
        }
    }

    /// The exchange has ended with this attempt.
    pub(super) fn end(&mut self, ended: Ended, now: Instant) {
        // Of a response that was not passed on to its end, the rest says how patient the client was.
        let whole = self.total.filter(|_| ended == Ended::Complete);
        if self.answered
            && let Some(response_time) = whole.or(self.header)
        {
            self.observe(response_time, now);
        }
        self.hold = None;
    }
}

/// What becomes of the attempts of a request.
impl Exchange {
    /// Notes that the current attempt came to nothing, and why.
    pub(crate) fn note_attempt_failed(&mut self, failure: &Failure, detail: &str) {
        let Some(attempt) = self.attempts.last_mut() else {
            return;
        };
        let is_clients = failure.blame() == Blame::Client;
        if !is_clients {
            attempt.status = failure.status().as_u16();
        }
        if attempt.total.is_none() {
            attempt.total = Some(clock::now() - attempt.started);
        }
        if !is_clients {
            tracing::warn!(upstream = %attempt.address, member = %attempt.member, detail, "{failure}");
        }
        picks::note_failure(self, failure);
    }

    /// Forgets the current attempt, of which nothing was sent.
    pub(crate) fn forget_attempt(&mut self) {
        self.attempts.pop();
        self.active = None;
    }

    /// Notes that nothing more is read of what an attempt before the current one sent back.
    pub(crate) fn note_answer_dropped(&mut self) {
        let now = clock::now();
        if let Some((_, earlier)) = self.attempts.split_last_mut()
            && let Some(attempt) = earlier.last_mut()
        {
            attempt.total.get_or_insert(now - attempt.started);
        }
    }

    /// How long the current attempt took so far, or in all once it has ended.
    pub(crate) fn last_attempt_took(&self) -> Duration {
        self.attempts.last().map_or(Duration::ZERO, |attempt| {
            attempt
                .total
                .unwrap_or_else(|| clock::now() - attempt.started)
        })
    }
}
