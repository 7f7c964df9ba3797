//! Streams: cut into events, looked at in passing.

pub(crate) mod meter;
pub mod sse;
