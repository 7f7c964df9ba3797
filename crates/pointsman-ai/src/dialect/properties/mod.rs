//! Properties of every dialect, on conversations that say everything that can be said.
//!
//! What a case is made of follows from its seed alone. A failure names the test and the seed;
//! `POINTSMAN_PROPERTY_SEED=n` runs that case alone, `POINTSMAN_PROPERTY_CASES=n` runs n cases of
//! each property instead of the usual number, `POINTSMAN_PROPERTY_TIMES=n` n times that number.
//!
//! What equal means is in [`super::same`]. Requests, answers and streams have a file each, as have
//! the generators.

mod answers;
mod generate;
mod generate_answer;
mod requests;
mod streams;

use super::{Setting, StreamReader, parse, read_request, write_request};
use crate::{
    Protocol, Provider,
    conversation::{Event, Request},
    json::write::Writer,
    stream::{Framing, Unframed},
};

/// How often something is tried.
#[derive(Clone, Copy)]
struct Count {
    seeds: u64,
    /// Dialects, or pairs of them, that each seed is tried with.
    each: u64,
}

const REQUESTS: Count = Count::of(5_000, 6);
const REQUESTS_AND_BACK: Count = Count::of(800, 30);
const ANSWERS: Count = Count::of(2_500, 6);
const SIGNATURES: Count = Count::of(300, 20);
const STREAMS: Count = Count::of(1_500, 6);
const EVENTS_IN_ANY_ORDER: Count = Count::of(1_500, 6);
const FRAMES_IN_ANY_ORDER: Count = Count::of(1_500, 6);
const CUT_ANYWHERE: Count = Count::of(3, 6);
const BROKEN_OFF_ANYWHERE: Count = Count::of(5, 6);

/// What a change of these numbers must leave.
const _: () = {
    let all = REQUESTS.cases()
        + REQUESTS_AND_BACK.cases()
        + ANSWERS.cases()
        + SIGNATURES.cases()
        + STREAMS.cases()
        + EVENTS_IN_ANY_ORDER.cases()
        + FRAMES_IN_ANY_ORDER.cases()
        + CUT_ANYWHERE.cases()
        + BROKEN_OFF_ANYWHERE.cases();
    assert!(
        all >= 100_000,
        "translation is tried less than 100,000 times"
    );
};

impl Count {
    const fn of(seeds: u64, each: u64) -> Self {
        Self { seeds, each }
    }

    const fn cases(self) -> u64 {
        self.seeds * self.each
    }
}

/// Runs `case` with as many generators as `usual` says, or the environment.
fn cases(usual: Count, case: impl Fn(&mut Rng)) {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let only = number("POINTSMAN_PROPERTY_SEED");
    let times = number("POINTSMAN_PROPERTY_TIMES").unwrap_or(1);
    let count = number("POINTSMAN_PROPERTY_CASES").unwrap_or(usual.seeds);
    let count = count.saturating_mul(times);
    let seeds = only.map_or(0..count, |seed| seed..seed + 1);
    for seed in seeds {
        let _told = Seed(seed);
        case(&mut Rng::new(seed));
    }
}

/// Says which case it was, if the test panics in it.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("POINTSMAN_PROPERTY_SEED={}", self.0);
        }
    }
}

/// Numbers that look random and follow from a seed (SplitMix64).
struct Rng(u64);

impl Rng {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bf0_3635)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `limit`, which is not 0.
    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    /// True so many times of a hundred.
    fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    /// Something, so many times of a hundred.
    fn maybe<T>(&mut self, percent: u64, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.chance(percent).then(|| make(self))
    }
}

/// The protocols of conversations.
const DIALECTS: [Protocol; 6] = [
    Protocol::OpenaiChat,
    Protocol::OpenaiResponses,
    Protocol::AnthropicMessages,
    Protocol::GeminiGenerateContent,
    Protocol::CohereChat,
    Protocol::BedrockConverse,
];

/// Models that take different things.
const CLAUDES: [&str; 5] = [
    "claude-sonnet-4-5",
    "claude-sonnet-4-6",
    "claude-opus-4-7",
    "claude-sonnet-5-5",
    "claude-opus-5-5",
];

/// Who is asked in `target`: of protocols that say more to some providers and models, several.
fn settings(target: Protocol) -> Vec<Setting<'static>> {
    let of = |provider, model| Setting {
        client: target,
        target,
        provider,
        model,
        version: None,
        now: 1_760_000_000,
        seed: "seed",
    };
    match target {
        Protocol::OpenaiChat => vec![
            of(Provider::Openai, "gpt-5"),
            of(Provider::OpenaiCompatible, "m"),
        ],
        Protocol::OpenaiResponses => vec![
            of(Provider::Openai, "gpt-5"),
            of(Provider::OpenaiCompatible, "m"),
        ],
        Protocol::AnthropicMessages => CLAUDES
            .into_iter()
            .chain(["another"])
            .map(|model| of(Provider::Anthropic, model))
            .collect(),
        Protocol::GeminiGenerateContent => vec![
            of(Provider::Gemini, "gemini-3-pro"),
            of(Provider::Gemini, "gemini-2.5-pro"),
        ],
        Protocol::CohereChat => vec![of(Provider::OpenaiCompatible, "command-a")],
        _ => vec![
            of(Provider::Bedrock, "eu.anthropic.claude-sonnet-4-5"),
            of(Provider::Bedrock, "anthropic.claude-opus-4-6-v1"),
            of(Provider::Bedrock, "anthropic.claude-opus-5-5"),
            of(Provider::Bedrock, "amazon.nova-pro-v1:0"),
        ],
    }
}

/// `request` as `setting`'s provider gets it.
fn written(request: &Request<'_>, setting: &Setting<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    write_request(request, setting, &mut Writer::new(&mut out));
    out
}

/// What `use_it` makes of the request that `bytes` are.
fn reading<T>(protocol: Protocol, bytes: &[u8], use_it: impl FnOnce(Request<'_>) -> T) -> T {
    let text = || String::from_utf8_lossy(bytes).into_owned();
    let tree = parse(bytes).unwrap_or_else(|error| panic!("{error}: {}", text()));
    let read = read_request(protocol, tree.root());
    use_it(read.unwrap_or_else(|error| panic!("{protocol:?}: {error}: {}", text())))
}

/// The events of the stream that comes in `pieces`. The last piece is followed by its end.
fn events_of(setting: &Setting<'_>, pieces: &[&[u8]], sink: &mut dyn FnMut(&Event<'_>)) {
    let mut reader = StreamReader::new(setting).unwrap();
    let mut framing = Framing::of(setting.target);
    let mut broken = false;
    for piece in pieces {
        framing.push(piece, |frame| match frame {
            Unframed::Event { name, data } if !broken => {
                reader.event(name, data, &mut |event| sink(&event));
            }
            Unframed::Event { .. } => {}
            Unframed::Broken(_) => broken = true,
        });
    }
    reader.finish(&mut |event| sink(&event));
}
