//! The one reader of time in this program.
//!
//! The gateway takes time as an argument so that tests can set it. A benchmark is the opposite
//! case: the real clock is what it is about.

use std::time::Instant;

/// The monotonic clock, now.
#[expect(
    clippy::disallowed_methods,
    reason = "measuring real time is this program's job"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
