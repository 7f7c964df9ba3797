//! Request bodies: what a parser takes, we take; and nothing that we take is not UTF-8.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use pointsman_ai::{Capture, Protocol, RequestBody, read_response};

fuzz_target!(|data: &[u8]| {
    let ours = RequestBody::parse(Bytes::copy_from_slice(data));
    if let Ok(body) = &ours {
        assert!(std::str::from_utf8(data).is_ok());
        let _ = (body.model(), body.stream());
        let _ = pointsman_ai::value_at(body.bytes(), ["metadata", "user_id"]);
    }
    for protocol in Protocol::ALL {
        let _ = read_response(protocol, &Bytes::copy_from_slice(data), Capture::Text);
    }
});
