//! Forms: nobody reads another model in them than we do.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| pointsman_ai::fuzzed::form(data));
