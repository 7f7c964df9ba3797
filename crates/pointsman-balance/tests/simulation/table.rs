//! The state table of the specification, cell by cell.

use pointsman_balance::{Limits, ProbeOutcome, Status};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) status: Status,
    /// Successes; HTTP failures, TCP failures, timeouts.
    pub(crate) counters: [u8; 4],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    Success,
    /// Which counter.
    Failure(usize),
}

pub(crate) const fn usable(status: Status) -> bool {
    matches!(status, Status::Healthy | Status::MostlyHealthy)
}

/// `None`: it means nothing.
pub(crate) fn event(outcome: ProbeOutcome, good: &[u16], bad: &[u16]) -> Option<Event> {
    match outcome {
        ProbeOutcome::TcpOk => Some(Event::Success),
        ProbeOutcome::TcpFailure => Some(Event::Failure(2)),
        ProbeOutcome::Timeout => Some(Event::Failure(3)),
        ProbeOutcome::NotHttp => Some(Event::Failure(1)),
        ProbeOutcome::Status(status) if good.contains(&status) => Some(Event::Success),
        ProbeOutcome::Status(status) if bad.contains(&status) => Some(Event::Failure(1)),
        ProbeOutcome::Status(_) => None,
    }
}

impl State {
    pub(crate) const fn begin(usable: bool) -> Self {
        Self {
            status: if usable {
                Status::Healthy
            } else {
                Status::Unhealthy
            },
            counters: [0; 4],
        }
    }

    pub(crate) fn after(self, event: Event, limits: &Limits) -> Self {
        let [s, h, t, o] = self.counters;
        match (event, self.status) {
            (Event::Success, _) if limits.successes == 0 => self,
            (Event::Success, Status::Healthy) => self,
            (Event::Success, status) => Self {
                status: if s + 1 >= limits.successes {
                    Status::Healthy
                } else if status == Status::MostlyHealthy {
                    Status::MostlyHealthy
                } else {
                    Status::MostlyUnhealthy
                },
                counters: [s + 1, 0, 0, 0],
            },
            (Event::Failure(_), Status::Unhealthy) => self,
            (Event::Failure(kind), status) => {
                let limit = [
                    0,
                    limits.http_failures,
                    limits.tcp_failures,
                    limits.timeouts,
                ][kind];
                let mut counters = [0, h, t, o];
                counters[kind] += 1;
                match status {
                    _ if limit == 0 => self,
                    _ if counters[kind] >= limit => Self {
                        status: Status::Unhealthy,
                        counters,
                    },
                    Status::MostlyUnhealthy => Self { status, counters },
                    _ => Self {
                        status: Status::MostlyHealthy,
                        counters,
                    },
                }
            }
        }
    }
}
