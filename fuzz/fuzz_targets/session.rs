//! Realtime sessions and the frames of WebSockets: where the pieces are cut makes no difference.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| pointsman_ai::fuzzed::session(data));
