//! The fuzz targets `translate`, `form` and `session` on examples whose bytes are disturbed: a few
//! seconds of them, everywhere.

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

/// `example` as it is, and disturbed in many ways.
fn disturbed(example: &[u8], target: impl Fn(&[u8])) {
    target(example);
    for round in 0..20_000 {
        let mut rng = Rng(round);
        let mut bytes = example.to_vec();
        disturb(&mut bytes, &mut rng);
        target(&bytes);
    }
}

/// G-24
#[test]
fn nothing_hides_a_model_in_a_form() {
    let example = "multipart/form-data; boundary=\"b 1\"\n\
        --b 1\r\nContent-Disposition: form-data; name=\"file\"; filename=\"\\\", name=model, x=\"\r\n\
        Content-Type: audio/mpeg\r\n\r\n\0\r\n--b\r\n\r\n\
        --b 1\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--b 1--\r\n";
    disturbed(example.as_bytes(), fuzzed::form);
    let trimmed = "multipart/form-data; boundary=\"b \"\n\
        --b \r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--b\r\n\
        Content-Disposition: form-data; name=model\r\n\r\nBIG\r\n--b --";
    disturbed(trimmed.as_bytes(), fuzzed::form);
}

#[test]
fn frames_are_read_however_they_come() {
    let example =
        b"\x03\0\x01\x01{\x89\x01p\x80\x01}\x81\x7e\0\x02{}\x82\x80mmmm\xc1\x01a\x88\x02\x03\xe9";
    disturbed(example, fuzzed::session);
}
