//! Streams: where the pieces are cut makes no difference to what is counted.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use pointsman_ai::{Capture, Protocol, StreamMeter, json_array};

fuzz_target!(|data: (u16, &[u8])| {
    let (cut, bytes) = data;
    let (first, rest) = bytes.split_at(usize::from(cut).min(bytes.len()));
    for protocol in Protocol::ALL {
        let read = |pieces: &[&[u8]]| {
            let mut meter = StreamMeter::new(protocol, Capture::Text);
            for piece in pieces {
                meter.push(&Bytes::copy_from_slice(piece));
            }
            let facts = meter.finish();
            (facts.usage, facts.text, facts.has_tool_calls, facts.done)
        };
        assert_eq!(read(&[bytes]), read(&[first, rest]));
    }
    let elements = |pieces: &[&[u8]]| {
        let mut decoder = json_array::Decoder::default();
        let mut elements = Vec::new();
        for piece in pieces {
            decoder.push(piece, |element| elements.push(element.to_vec()));
        }
        elements
    };
    assert_eq!(elements(&[bytes]), elements(&[first, rest]));
});
