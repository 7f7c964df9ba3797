//! The one reader of time.
//!
//! Everything else takes an `Instant` or a `SystemTime` as an argument, so that tests can choose
//! it. Durations are measured with the monotonic clock; wall time appears only in logs.

use std::{
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// The monotonic clock, for every duration and deadline.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that may read it"
)]
pub fn now() -> Instant {
    Instant::now()
}

/// The wall clock, to read dates by that others have written.
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// How far `at` is from one moment near the start of the process: the first that was asked about.
pub fn since_start(at: Instant) -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    at.saturating_duration_since(*START.get_or_init(|| at))
}

/// Milliseconds of wall time since the Unix epoch, for log entries; 0 before 1970.
pub fn unix_millis() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}
