//! The fuzz target `translate` on examples whose bytes are disturbed: a few seconds of it, everywhere.

#[path = "../../tests/support/examples.rs"]
mod examples;

use examples::{DIALECTS, Kind, examples};

use crate::{Protocol, fuzzed};

/// Numbers that look random and follow from each other (SplitMix64).
struct Rng(u64);

impl Rng {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit as u64).expect("sound")
    }
}

/// Changes, repeats or takes out some bytes.
fn disturb(bytes: &mut Vec<u8>, rng: &mut Rng) {
    const LIKELY: &[u8] = b"\"\\{}[]:,0-e.nft \n\xc3\xff";
    for _ in 0..rng.below(5) {
        let at = rng.below(bytes.len());
        let end = bytes.len().min(at + 1 + rng.below(40));
        match rng.below(4) {
            0 => bytes[at] = LIKELY[rng.below(LIKELY.len())],
            1 => bytes[at] = u8::try_from(rng.below(256)).expect("sound"),
            2 if bytes.len() > 100 => drop(bytes.drain(at..end)),
            _ => {
                let piece = bytes[at..end].to_vec();
                let to = rng.below(bytes.len());
                bytes.splice(to..to, piece);
            }
        }
    }
}

#[test]
fn nothing_that_comes_breaks_translation() {
    for (number, example) in (0..).zip(examples()) {
        // Shown if it fails.
        eprintln!("{}", example.path.display());
        for other in DIALECTS {
            for round in 0..60 {
                let mut rng = Rng(number * 1_000 + round);
                let mut bytes = example.bytes.clone();
                disturb(&mut bytes, &mut rng);
                let own = example.protocol;
                match example.kind {
                    Kind::Request => fuzzed::request(&bytes, own, other),
                    Kind::Response => fuzzed::response(&bytes, other, own),
                    Kind::Stream => fuzzed::stream(&bytes, rng.below(256), other, own),
                }
            }
        }
    }
}

/// The entry of the fuzz target itself, for every pair and kind.
#[test]
fn the_fuzz_target_takes_anything() {
    for pair in 0..36 {
        for kind in 0..3 {
            fuzzed::any(&[pair, kind, 7, b'{', b'}']);
        }
    }
    fuzzed::any(&[]);
}
