//! Words that threads share without a lock, and whose every interleaving is tested.
//!
//! Named in this one place so that the test `interleavings` can compile this crate's sources with
//! loom's in their stead, and run them in every order that their steps can have.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};
