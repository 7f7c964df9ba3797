//! How a target is checked, and what an outcome means under that policy.
//!
//! The fields are those of APISIX's `checks.active`, with its documented defaults; they apply field by
//! field, also where APISIX 3.18 drops them with a missing `healthy` or `unhealthy` object.

use std::time::Duration;

/// When to probe a target and how to read the answers.
///
/// A limit of 0 switches its kind of outcome off: it is recorded, but changes no state.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Between probe starts while the target is usable. Default 1 s; at least 10 ms is kept.
    pub healthy_interval: Duration,
    /// Statuses that are a success; wins where both lists have one. Default 200, 302.
    pub healthy_statuses: Vec<u16>,
    /// Successes that make a target healthy again. Default 2.
    pub successes: u8,
    /// Between probe starts while the target is not usable. Default 1 s; at least 10 ms is kept.
    pub unhealthy_interval: Duration,
    /// Statuses that are an HTTP failure. Default 429, 404, 500, 501, 502, 503, 504, 505.
    pub unhealthy_statuses: Vec<u16>,
    /// HTTP failures, without a success in between, that make a target unhealthy. Default 5.
    pub http_failures: u8,
    /// The same for connections refused, reset or failed in TLS. Default 2.
    pub tcp_failures: u8,
    /// The same for timeouts. Default 3.
    pub timeouts: u8,
    /// For each socket operation of a probe. Default 1 s.
    pub timeout: Duration,
    /// Probes in flight at once within one checker. Default 10; 0 counts as 1, or nothing would ever
    /// be probed.
    pub concurrency: u32,
}

/// How many outcomes of a kind, without one of the opposite in between, decide. 0 switches its kind
/// off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Successes that make a target healthy again.
    pub successes: u8,
    /// HTTP failures that make it unhealthy.
    pub http_failures: u8,
    /// The same for connections refused, reset or failed in TLS.
    pub tcp_failures: u8,
    /// The same for timeouts.
    pub timeouts: u8,
}

/// What traffic to a target says about it: APISIX's `checks.passive`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passive {
    /// Statuses that are a success; wins where both lists have one. Default 200 to 208, 226, 300 to 308.
    pub healthy_statuses: Vec<u16>,
    /// Statuses that are an HTTP failure. Default 429, 500, 503.
    pub unhealthy_statuses: Vec<u16>,
    /// Default 5 successes, 5 HTTP failures, 2 TCP failures, 7 timeouts.
    pub limits: Limits,
}

/// What came of a probe, or of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProbeOutcome {
    /// An HTTP status line arrived.
    Status(u16),
    /// A probe that only connects did connect.
    TcpOk,
    /// Refused, unreachable, reset, closed too early, or TLS failed for any reason.
    TcpFailure,
    /// Connecting, sending or waiting for the first line took too long.
    Timeout,
    /// The first line was not an HTTP status line.
    NotHttp,
}

/// What an outcome means to the state machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Success,
    Failure(Kind),
}

/// Kinds of failure are counted apart and never added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Http,
    Tcp,
    Timeout,
}

impl Policy {
    /// The meaning of an outcome, or `None` if it has none: a status in neither list.
    pub(crate) fn signal(&self, outcome: ProbeOutcome) -> Option<Signal> {
        signal(outcome, &self.healthy_statuses, &self.unhealthy_statuses)
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            successes: self.successes,
            http_failures: self.http_failures,
            tcp_failures: self.tcp_failures,
            timeouts: self.timeouts,
        }
    }
}

impl Passive {
    /// The meaning of an outcome, or `None` if it has none: a status in neither list.
    pub(crate) fn signal(&self, outcome: ProbeOutcome) -> Option<Signal> {
        signal(outcome, &self.healthy_statuses, &self.unhealthy_statuses)
    }

    /// Whether an outcome says anything about the health of a target.
    #[must_use]
    pub fn matters(&self, outcome: ProbeOutcome) -> bool {
        self.signal(outcome).is_some()
    }

    /// Whether an outcome speaks for a target.
    #[must_use]
    pub fn is_success(&self, outcome: ProbeOutcome) -> bool {
        self.signal(outcome) == Some(Signal::Success)
    }
}

fn signal(outcome: ProbeOutcome, healthy: &[u16], unhealthy: &[u16]) -> Option<Signal> {
    match outcome {
        ProbeOutcome::Status(status) if healthy.contains(&status) => Some(Signal::Success),
        ProbeOutcome::Status(status) if unhealthy.contains(&status) => {
            Some(Signal::Failure(Kind::Http))
        }
        ProbeOutcome::Status(_) => None,
        ProbeOutcome::TcpOk => Some(Signal::Success),
        ProbeOutcome::TcpFailure => Some(Signal::Failure(Kind::Tcp)),
        ProbeOutcome::Timeout => Some(Signal::Failure(Kind::Timeout)),
        ProbeOutcome::NotHttp => Some(Signal::Failure(Kind::Http)),
    }
}

impl Limits {
    /// How many failures of a kind make a target unhealthy; 0 is off.
    pub(crate) fn of(&self, kind: Kind) -> u8 {
        match kind {
            Kind::Http => self.http_failures,
            Kind::Tcp => self.tcp_failures,
            Kind::Timeout => self.timeouts,
        }
    }
}

impl Default for Passive {
    fn default() -> Self {
        Self {
            healthy_statuses: (200..=208).chain([226]).chain(300..=308).collect(),
            unhealthy_statuses: vec![429, 500, 503],
            limits: Limits {
                successes: 5,
                http_failures: 5,
                tcp_failures: 2,
                timeouts: 7,
            },
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            healthy_interval: Duration::from_secs(1),
            healthy_statuses: vec![200, 302],
            successes: 2,
            unhealthy_interval: Duration::from_secs(1),
            unhealthy_statuses: vec![429, 404, 500, 501, 502, 503, 504, 505],
            http_failures: 5,
            tcp_failures: 2,
            timeouts: 3,
            timeout: Duration::from_secs(1),
            concurrency: 10,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_mean_what_apisix_says() {
        let policy = Policy {
            healthy_statuses: vec![200, 302, 503],
            ..Policy::default()
        };
        let check = |outcome, signal| assert_eq!(policy.signal(outcome), signal, "{outcome:?}");
        check(ProbeOutcome::Status(302), Some(Signal::Success));
        check(ProbeOutcome::Status(503), Some(Signal::Success)); // in both lists
        check(ProbeOutcome::Status(500), Some(Signal::Failure(Kind::Http)));
        check(ProbeOutcome::Status(418), None);
        check(ProbeOutcome::TcpOk, Some(Signal::Success));
        check(ProbeOutcome::TcpFailure, Some(Signal::Failure(Kind::Tcp)));
        check(ProbeOutcome::Timeout, Some(Signal::Failure(Kind::Timeout)));
        check(ProbeOutcome::NotHttp, Some(Signal::Failure(Kind::Http)));
    }
}
