//! What is known about the health of targets, and what to find out next.
//!
//! [`Monitor`] is the one owner: outcomes of probes go in, the next probe and the current
//! [`Availability`] come out. Beside probes, what traffic meets may be handed in. Verdicts follow APISIX's four states and separate counters per kind of
//! failure.

mod monitor;
mod pages;

mod policy;
mod state;
mod words;

mod schedule;

mod availability;

mod address_book;

mod group;

mod gate;
mod guard;
mod traffic;

pub(crate) mod effort;

pub use availability::Availability;
pub use gate::Gate;
pub use group::{Address, WantedAddress, WantedGroup};
pub use guard::{Breaker, CircuitState, GuardReport, GuardSpec, Tally, Trial};
pub use monitor::{Change, Kept, Monitor, Probe, Report, Ticket, Wanted};
pub use policy::{Limits, Passive, Policy, ProbeOutcome};
pub use state::{Counters, Status};
pub use words::UnknownWord;
