//! What translation costs, for all 36 pairs of a client's protocol and a provider's: a request of 32 KB
//! in microseconds, and one piece of a streamed answer in nanoseconds. The least of many rounds, which
//! on a busy machine is the one that nothing disturbed. On the diagonal stands what the gateway does
//! with what it passes on: requests are checked, streams metered. Prints figures and judges nothing.

#![expect(clippy::print_stdout, reason = "the figures are the output")]
#![expect(
    clippy::disallowed_methods,
    reason = "a measurement reads the clock itself"
)]

use std::{hint::black_box, time::Instant};

use bytes::Bytes;
use pointsman_ai::{
    Capture, Outside, Protocol, Provider, RequestBody, StreamMeter, TranslatedRequest, Translation,
};

const ALL: [Protocol; 6] = [
    Protocol::OpenaiChat,
    Protocol::OpenaiResponses,
    Protocol::AnthropicMessages,
    Protocol::GeminiGenerateContent,
    Protocol::CohereChat,
    Protocol::BedrockConverse,
];

fn main() {
    let chat = request(32 * 1024);
    table("request of 32 KB, µs", |client, target| {
        let body = in_protocol(&chat, client);
        let size = body.len();
        least((32 << 20) / size, || {
            if client == target {
                let _ = black_box(RequestBody::parse(black_box(&body).clone()));
            } else {
                black_box(translate(&body, client, target));
            }
        }) * 1e6
    });
    let stream = stream();
    table("piece of a stream, ns", |client, target| {
        let provider = stream_in(&stream, target);
        least(100, || {
            if client == target {
                let mut meter = StreamMeter::new(target, Capture::Nothing);
                for piece in &provider {
                    meter.push(black_box(piece));
                }
                black_box(meter.finish());
            } else {
                black_box(brought(&provider, client, target));
            }
        }) * 1e9
            / PIECES as f64
    });
}

fn table(what: &str, figure: impl Fn(Protocol, Protocol) -> f64) {
    let short = |protocol: Protocol| protocol.as_str().split('-').next().unwrap_or_default();
    println!("{what} (rows: clients, columns: providers)");
    print!("{:24}", "");
    for target in ALL {
        print!("{:>12}", short(target));
    }
    println!();
    for client in ALL {
        print!("{:24}", client.as_str());
        for target in ALL {
            print!("{:12.2}", figure(client, target));
        }
        println!();
    }
}

fn least(rounds: usize, mut work: impl FnMut()) -> f64 {
    let times = (0..rounds).map(|_| {
        let began = Instant::now();
        work();
        began.elapsed()
    });
    times.min().unwrap_or_default().as_secs_f64()
}

const OUTSIDE: Outside<'static> = Outside {
    model: Some("bench"),
    stream: true,
    version: None,
    now: 1_760_000_000,
    seed: "0123456789abcdef",
};

fn translate(body: &[u8], client: Protocol, target: Protocol) -> TranslatedRequest {
    Translation::request(body, client, target, Provider::OpenaiCompatible, OUTSIDE)
        .expect("a request that can be translated")
}

/// The chat request in `protocol`.
fn in_protocol(chat: &[u8], protocol: Protocol) -> Bytes {
    match protocol {
        Protocol::OpenaiChat => Bytes::copy_from_slice(chat),
        _ => translate(chat, Protocol::OpenaiChat, protocol).body.into(),
    }
}

/// What a client of `client` gets for the pieces of a stream in `target`.
fn brought(pieces: &[Vec<u8>], client: Protocol, target: Protocol) -> Vec<Vec<u8>> {
    let body = in_protocol(TINY, client);
    let translation = translate(&body, client, target).translation;
    let mut translator = translation.stream(false).expect("a stream");
    let mut out = Vec::with_capacity(pieces.len() + 1);
    for piece in pieces {
        let mut bytes = Vec::new();
        translator.push(black_box(piece), &mut bytes);
        out.push(bytes);
    }
    let mut bytes = Vec::new();
    translator.finish(&mut bytes);
    out.push(bytes);
    out
}

/// The chat stream in `protocol`.
fn stream_in(chat: &[Vec<u8>], protocol: Protocol) -> Vec<Vec<u8>> {
    match protocol {
        Protocol::OpenaiChat => chat.to_vec(),
        _ => brought(chat, protocol, Protocol::OpenaiChat),
    }
}

const TINY: &[u8] = br#"{"model":"bench","messages":[{"role":"user","content":"x"}]}"#;
const PIECES: usize = 1_000;

fn stream() -> Vec<Vec<u8>> {
    let chunk = |delta: &str, finish: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"bench\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}]}}\n\n"
        )
        .into_bytes()
    };
    let mut pieces = vec![chunk(r#"{"role":"assistant","content":""}"#, "null")];
    pieces.extend((0..PIECES).map(|_| chunk(r#"{"content":" signal"}"#, "null")));
    pieces.push(chunk("{}", r#""stop""#));
    pieces.push(b"data: [DONE]\n\n".to_vec());
    pieces
}

/// A conversation of a few turns, of about `size` bytes, with a tool.
fn request(size: usize) -> Vec<u8> {
    let mut body = br#"{"model":"bench","temperature":0.2,"tools":[{"type":"function","function":{"name":"lookup","description":"Looks up a train","parameters":{"type":"object","properties":{"number":{"type":"integer"}}}}}],"messages":[{"role":"system","content":"Answer briefly."},{"role":"user","content":"When?"},{"role":"assistant","content":null,"tool_calls":[{"id":"call_1","type":"function","function":{"name":"lookup","arguments":"{\"number\":7}"}}]},{"role":"tool","tool_call_id":"call_1","content":"10:04"},{"role":"assistant","content":"At four past ten."},{"role":"user","content":""#.to_vec();
    while body.len() + TEXT.len() + 4 < size {
        body.extend_from_slice(TEXT.as_bytes());
    }
    body.extend_from_slice(br#""}]}"#);
    body
}

const TEXT: &str = concat!(
    "The night train left the yard at ten past four, and the signalman wrote it down. ",
    "2026-03-14T09:26:53Z WARN upstream \\\"eu-west\\\" answered 503 after 812 ms\\n",
    "Die Weiche liegt für den Güterzug nach Süden. 駅の時計は正確に九時を指していた。🚂 ",
);
