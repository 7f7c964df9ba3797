//! Counters outside the process, which several gateways share.

use std::sync::Arc;

use super::LocalFuture;
use crate::limits::remote::{Call, Server};

/// Runs scripts where the counters are. One per worker; owns that worker's connections.
pub trait Counters {
    /// What the script says, within the server's time limit. One round trip, unless the server has
    /// forgotten the script. Why there was no answer is told in the log, once in a while.
    fn run(
        &self,
        server: &Arc<Server>,
        call: Call,
    ) -> LocalFuture<'static, Result<Vec<i64>, Unanswered>>;

    /// Runs the script without anybody waiting for it, and again for a while if there is no answer. The
    /// script must be one that may run twice.
    fn send(&self, server: &Arc<Server>, call: Call);

    /// Brings `work` to its end without anybody waiting for it.
    fn later(&self, work: LocalFuture<'static, ()>);
}

/// There was no answer, or none that makes sense: nobody knows whether the script has run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unanswered;
