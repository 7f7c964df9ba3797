//! What is known about the health of targets, and what to find out next.
//!
//! [`Monitor`] is the one owner: outcomes of probes go in, the next probe and the current
//! [`Availability`] come out. Verdicts follow APISIX's four states and separate counters per kind of
//! failure.

mod monitor;

mod policy;
mod state;

mod schedule;

mod availability;

pub use availability::Availability;
pub use monitor::{Change, Monitor, Probe, Report, Ticket, Wanted};
pub use policy::{Policy, ProbeOutcome};
pub use state::{Counters, Status};
