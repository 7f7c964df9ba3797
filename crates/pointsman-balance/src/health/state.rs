//! The health of one target: four states, four counters, one table.
//!
//! This is APISIX 3.18's table. Two of its properties are easily lost: a success while healthy and a
//! failure while unhealthy change nothing at all, not even counters; and counters are not cleared by a
//! change of state, only by the opposite event.

use super::policy::{Kind, Limits, Signal};

/// What is believed about a target. The first two may be picked, the last two may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// As at the start.
    Healthy,
    /// Some failures, not yet enough.
    MostlyHealthy,
    /// Was unhealthy; some successes, not yet enough.
    MostlyUnhealthy,
    /// Some kind of failure reached its limit.
    Unhealthy,
}

/// How many outcomes of each kind count at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Counters {
    /// Successes since the last failure.
    pub success: u8,
    /// HTTP failures since the last success.
    pub http_failure: u8,
    /// TCP failures since the last success.
    pub tcp_failure: u8,
    /// Timeouts since the last success.
    pub timeout_failure: u8,
}

/// Where a target stands in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) status: Status,
    pub(crate) counters: Counters,
}

impl Status {
    /// Whether a target in this state may be picked.
    #[must_use]
    pub const fn usable(self) -> bool {
        matches!(self, Self::Healthy | Self::MostlyHealthy)
    }

    /// As written in the health report.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::MostlyHealthy => "mostly_healthy",
            Self::MostlyUnhealthy => "mostly_unhealthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl State {
    /// A state that remembers nothing but whether the target may be picked.
    pub(crate) fn with_verdict(usable: bool) -> Self {
        let status = if usable {
            Status::Healthy
        } else {
            Status::Unhealthy
        };
        Self {
            status,
            counters: Counters::default(),
        }
    }

    pub(crate) fn on_signal(&mut self, signal: Signal, limits: &Limits) {
        match signal {
            Signal::Success => self.on_success(limits.successes),
            Signal::Failure(kind) => self.on_failure(kind, limits.of(kind)),
        }
    }

    fn on_success(&mut self, limit: u8) {
        if limit == 0 || self.status == Status::Healthy {
            return;
        }
        let success = self.counters.success.saturating_add(1);
        self.counters = Counters {
            success,
            ..Counters::default()
        };
        if success >= limit {
            self.status = Status::Healthy;
        } else if self.status == Status::Unhealthy {
            self.status = Status::MostlyUnhealthy;
        }
    }

    fn on_failure(&mut self, kind: Kind, limit: u8) {
        if limit == 0 || self.status == Status::Unhealthy {
            return;
        }
        self.counters.success = 0;
        let count = match kind {
            Kind::Http => &mut self.counters.http_failure,
            Kind::Tcp => &mut self.counters.tcp_failure,
            Kind::Timeout => &mut self.counters.timeout_failure,
        };
        *count = count.saturating_add(1);
        if *count >= limit {
            self.status = Status::Unhealthy;
        } else if self.status == Status::Healthy {
            self.status = Status::MostlyHealthy;
        }
    }
}
