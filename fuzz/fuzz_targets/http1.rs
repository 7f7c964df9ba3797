//! Heads and chunked bodies of HTTP/1.1: whatever arrives, in whatever pieces, comes to the same.
#![no_main]
#![allow(dead_code, reason = "modules of the program, of which this uses a part")]

use bytes::Bytes;
use http::Method;
use http1::{
    decoder::{Decoder, Malformed, Step},
    head::{HeadLimits, HeadScan},
};
use libfuzzer_sys::fuzz_target;

#[path = "../../crates/pointsman/src/http1"]
mod http1 {
    pub(crate) mod decoder;
    pub(crate) mod head;
}

fn body(pieces: &[&[u8]]) -> (Vec<u8>, Result<bool, String>) {
    let mut decoder = Decoder::chunked();
    let (mut input, mut out) = (Bytes::new(), Vec::new());
    for piece in pieces {
        input = Bytes::from([&input[..], piece].concat());
        loop {
            match decoder.step(&mut input) {
                Ok(Step::Data(data)) => out.extend_from_slice(&data),
                Ok(Step::End) => return (out, Ok(true)),
                Ok(Step::More) => break,
                Err(Malformed(what)) => return (out, Err(what.to_owned())),
            }
        }
    }
    (out, Ok(false))
}

fuzz_target!(|data: (u16, &[u8])| {
    let (cut, bytes) = data;
    let limits = HeadLimits {
        bytes: 4096,
        lines: 32,
    };
    let mut input = Bytes::copy_from_slice(bytes);
    let request = HeadScan::default().request(&mut input, limits);
    if let Ok(Some(head)) = &request {
        assert!(input.len() < bytes.len());
        assert!(head.headers.len() <= limits.lines);
    }
    for method in [Method::GET, Method::HEAD] {
        let mut input = Bytes::copy_from_slice(bytes);
        let _ = HeadScan::default().response(&mut input, &method, limits.bytes);
    }
    let (first, rest) = bytes.split_at(usize::from(cut).min(bytes.len()));
    assert_eq!(body(&[bytes]), body(&[first, rest]));
});
