//! Translation: any bytes as a request, an answer or a stream, between any two protocols.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/pointsman-ai/tests/support/fuzzed.rs"]
mod fuzzed;

fuzz_target!(|data: &[u8]| fuzzed::any(data));
