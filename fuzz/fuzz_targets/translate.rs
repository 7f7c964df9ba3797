//! Translation: any bytes as a request, an answer or a stream, between any two protocols.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| pointsman_ai::fuzzed::any(data));
