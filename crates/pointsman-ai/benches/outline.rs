//! What it costs to check a request body and to note its members, and to read a stream in
//! passing, in microseconds: the least of many rounds, which on a busy machine is the one that
//! nothing disturbed. Prints figures and judges nothing.

#![expect(clippy::print_stdout, reason = "the figures are the output")]
#![expect(
    clippy::disallowed_methods,
    reason = "a measurement reads the clock itself"
)]

use std::{hint::black_box, time::Instant};

use bytes::Bytes;
use pointsman_ai::{Capture, Protocol, RequestBody, StreamMeter};

fn main() {
    bodies();
    streams();
}

fn streams() {
    let stream = format!("data: {CHUNK}\n\n").repeat(1000);
    for (name, capture) in [
        ("1000 deltas", Capture::Nothing),
        ("1000 deltas and text", Capture::Text),
    ] {
        let least = (0..200).map(|_| {
            let began = Instant::now();
            let mut meter = StreamMeter::new(Protocol::OpenaiChat, capture);
            for event in stream.as_bytes().chunks(CHUNK.len() + 8) {
                meter.push(black_box(event));
            }
            black_box(meter.finish());
            began.elapsed()
        });
        let micros = least.min().unwrap_or_default().as_secs_f64() * 1e6;
        println!("{name:20} {:7} B {micros:8.2} µs", stream.len());
    }
}

fn bodies() {
    for (name, text) in [
        ("prose, escapes, CJK", TEXT),
        ("ASCII only", ASCII),
        ("\\u escapes", CODED),
    ] {
        for size in [1024, 32 * 1024, 256 * 1024] {
            let body = Bytes::from(request(size, text));
            RequestBody::parse(body.clone()).expect("valid");
            let rounds = (64 << 20) / size;
            let least = (0..rounds)
                .map(|_| {
                    let began = Instant::now();
                    let _ = black_box(RequestBody::parse(black_box(&body).clone()));
                    began.elapsed()
                })
                .min()
                .unwrap_or_default();
            let micros = least.as_secs_f64() * 1e6;
            println!("{name:20} {size:7} B {micros:8.2} µs");
        }
    }
}

/// A chat request of about `size` bytes with one long message.
fn request(size: usize, text: &str) -> Vec<u8> {
    let mut body = br#"{"model":"bench-small","temperature":0.2,"messages":[{"role":"system","content":"Answer briefly."},{"role":"user","content":""#.to_vec();
    while body.len() + text.len() + 4 < size {
        body.extend_from_slice(text.as_bytes());
    }
    body.resize(size.saturating_sub(4), b'.');
    body.extend_from_slice(br#""}]}"#);
    body
}

const CHUNK: &str = r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"bench-small","choices":[{"index":0,"delta":{"content":" signal"},"finish_reason":null}],"usage":null}"#;

/// As the comparison with nginx sends it (`bench/src/payload.rs`).
const TEXT: &str = concat!(
    "The night train left the yard at ten past four, and the signalman wrote it down as he always did. ",
    "Please check the following log and say which service failed first:\\n\\n",
    "2026-03-14T09:26:53Z WARN upstream \\\"eu-west\\\" answered 503 after 812 ms, attempt 2 of 3\\n",
    "fn main() {\\n\\tlet total: u64 = rows.iter().map(|row| row.amount).sum();\\n}\\n",
    "Die Weiche liegt für den Güterzug nach Süden; größere Verspätungen sind nicht zu erwarten. ",
    "C:\\\\data\\\\reports\\\\2026\\\\march.csv has 48 columns, of which seven are empty. ",
    "駅の時計は正確に九時を指していた。",
    "The answer should be short, should name its sources, and should not guess. 🚂 ",
    "Le café du quai ouvre à six heures, déjà plein de voyageurs. ",
);
const ASCII: &str = "The answer should be short, should name its sources, and should not guess. ";
const CODED: &str = "\\u99c5\\u306e\\u6642\\u8a08\\u306f\\u6b63\\u78ba\\u306b ";
