//! Which target? Weighted picking, health verdicts and probe scheduling as pure state machines.
//!
//! This crate opens no socket, reads no clock, draws no random number and starts no thread: time and
//! entropy are arguments, so every decision can be replayed. To it, an upstream node and an AI
//! instance are the same thing: a *member* of a [`Pool`], reached through one or more *targets*.
//!
//! Three parts meet in one call, [`Pool::pick`]:
//!
//! 1. A [`Pool`] is compiled from configuration alone. It knows names, weights, priorities and, for
//!    round robin, a position. It never stores a verdict. If its algorithm asks how much its members have
//!    to do, it counts that in gauges which it may share with its successors ([`Loads`]).
//! 2. A [`Monitor`] turns probe outcomes into verdicts and publishes them as an immutable
//!    [`Availability`]. Its owner asks it what to probe next and tells it what came of it.
//! 3. A pick reads one `Availability` at the moment of picking. No picker is ever built *from* health,
//!    so no picker can be stale; that is the class of defect this crate is shaped to exclude.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use pointsman_balance::{Algorithm, Ask, MemberSpec, Monitor, Policy, Pool, ProbeOutcome, Tried, Wanted};
//!
//! # #[allow(clippy::disallowed_methods, reason = "an example has no clock to be given")]
//! # let now = Instant::now();
//! let mut monitor = Monitor::new();
//! let wanted = |host: &str| Wanted {
//!     probe: host.to_owned(),
//!     policy: Policy { tcp_failures: 1, ..Policy::default() },
//!     lineage: format!("route-1/{host}"),
//!     checker: "route-1".to_owned(),
//! };
//! let ids = monitor.reconcile(vec![wanted("a"), wanted("b")], now);
//! let members = ["a", "b"].iter().zip(&ids).map(|(name, &id)| MemberSpec {
//!     name: (*name).to_owned(),
//!     weight: 1,
//!     priority: 0,
//!     targets: vec![id],
//!     gate: None,
//! });
//! let pool = Pool::new(members.collect(), Algorithm::RoundRobin, 0)?;
//!
//! // The prober finds that nobody listens at `a`.
//! let probe = monitor.poll_probe(now).expect("new targets are due at once");
//! assert_eq!(probe.probe, "a");
//! monitor.on_probe(probe.ticket, ProbeOutcome::TcpFailure, now);
//!
//! let tried = Tried::new();
//! let ask = Ask { key: None, now: Duration::ZERO, tried: &tried };
//! let picked = pool.pick(&ask, &monitor.availability()).expect("b is usable");
//! assert_eq!(pool.name(picked.member()), "b");
//! # Ok::<(), pointsman_balance::PoolError>(())
//! ```

mod pool;
mod semantic;
mod tried;

mod decision;
mod load;
#[cfg(test)]
#[path = "load/tests.rs"]
mod load_tests;
mod picker;

// Not below `health`: its sources run under loom, too, where this test would be out of place.
#[cfg(test)]
#[path = "health/gate/tests.rs"]
mod gate_tests;
mod health;
mod target;

mod sync;

pub use decision::{Basis, Decision, Drawn, NOTED_MAX};
pub use health::{
    Address, Availability, Breaker, Change, CircuitState, Counters, Gate, GuardReport, GuardSpec,
    Kept, Limits, Monitor, Passive, Policy, Probe, ProbeOutcome, Report, Status, Tally, Ticket,
    Trial, UnknownWord, Wanted, WantedAddress, WantedGroup,
};
pub use load::{Hold, Load, Loads};
pub use picker::RING_POINTS_MAX;
pub use pool::{Algorithm, Ask, Exhausted, MEMBERS_MAX, MemberSpec, Picked, Pool, PoolError, Tier};
pub use semantic::{Ranking, References, UnequalVectors, rank};
pub use target::TargetId;
pub use tried::Tried;
