//! The name of one thing that is probed.
//!
//! A target is known to the picking side by its id alone; what is behind it (address, host, path,
//! credentials) is the business of whoever probes and dials. Only the monitor issues ids, in ascending
//! order, so an id held by an old configuration can never come to mean something else.

/// Identifies a probed target for the life of the process.
///
/// Issued by [`Monitor::reconcile`](crate::Monitor::reconcile) only, and never issued twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetId(u32);

impl TargetId {
    pub(crate) const fn new(index: u32) -> Self {
        Self(index)
    }

    /// The number of ids issued before this one: dense enough to index an array by.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}
