//! Whether a block of text is UTF-8: the method of J. Keiser and D. Lemire, "Validating UTF-8 in
//! less than one instruction per byte" (2021).
//!
//! Whether two neighbouring bytes can stand side by side shows in three of their halves, looked
//! up in three tables: each bit that all three results have in common is one way to be wrong.
//! Only the third and fourth byte of a character need a look further back.

use fearless_simd::{Simd, prelude::*, u8x16, u8x64};

use super::{BLOCK, WINDOW};

/// How many bytes before a block decide about its first ones.
pub(super) const BEFORE: usize = 3;

/// The tables, each repeated for every part of a wide register.
#[derive(Clone, Copy)]
pub(super) struct Tables<S: Simd> {
    first_high: u8x64<S>,
    first_low: u8x64<S>,
    second_high: u8x64<S>,
}

impl<S: Simd> Tables<S> {
    #[inline(always)]
    pub(super) fn new(simd: S) -> Self {
        let wide = |table| u8x64::block_splat(u8x16::from_slice(simd, table));
        Self {
            first_high: wide(&FIRST_HIGH),
            first_low: wide(&FIRST_LOW),
            second_high: wide(&SECOND_HIGH),
        }
    }

    /// Not zero wherever one of the last 64 bytes of `window` cannot stand where it is; a
    /// character that ends too early makes the byte after it wrong.
    #[inline(always)]
    pub(super) fn wrong(self, simd: S, window: &[u8; WINDOW]) -> u8x64<S> {
        let back = |bytes: usize| u8x64::from_slice(simd, &window[BEFORE - bytes..][..BLOCK]);
        let (second, first) = (back(0), back(1));
        let ways = self.first_high.swizzle_dyn_within_blocks(first >> 4)
            & self.first_low.swizzle_dyn_within_blocks(first & 0x0f)
            & self.second_high.swizzle_dyn_within_blocks(second >> 4);
        let may_continue = back(2).simd_ge(0xe0) | back(3).simd_ge(0xf0);
        let none = u8x64::splat(simd, 0);
        ways ^ may_continue.select(u8x64::splat(simd, TWO_CONTINUATIONS), none)
    }
}

/// A continuation behind a continuation: right in the third and fourth byte of a character.
const TWO_CONTINUATIONS: u8 = 0x80;

/// One way in which two bytes do not fit: sets of values (a bit for each) of the first byte's
/// upper and lower half and of the second byte's upper half.
struct Way {
    first_high: u16,
    first_low: u16,
    second_high: u16,
}

const ANY: u16 = 0xffff;
const ASCII: u16 = 0x00ff;
const CONTINUATION: u16 = 0x0f00;
const LEAD: u16 = 0xf000;

/// Each has the bit of its place in the tables.
const WAYS: [Way; 8] = [
    // A character ends too early.
    way(LEAD, ANY, ASCII | LEAD),
    // A continuation without a character.
    way(ASCII, ANY, CONTINUATION),
    // Two bytes for what is ASCII: C0, C1.
    way(1 << 0xc, 0b11, CONTINUATION),
    // Three bytes for what fits in two.
    way(1 << 0xe, 1, 1 << 8 | 1 << 9),
    // A surrogate.
    way(1 << 0xe, 1 << 0xd, 1 << 0xa | 1 << 0xb),
    // Beyond U+10FFFF: F4 90 and above.
    way(1 << 0xf, 0xfff0, 1 << 9 | 1 << 0xa | 1 << 0xb),
    // Four bytes for what fits in three; F5 80 and above.
    way(1 << 0xf, 1 | 0xffe0, 1 << 8),
    way(CONTINUATION, ANY, CONTINUATION),
];

const fn way(first_high: u16, first_low: u16, second_high: u16) -> Way {
    Way {
        first_high,
        first_low,
        second_high,
    }
}

const FIRST_HIGH: [u8; 16] = table(0);
const FIRST_LOW: [u8; 16] = table(1);
const SECOND_HIGH: [u8; 16] = table(2);

const fn table(which: usize) -> [u8; 16] {
    let mut table = [0; 16];
    let mut bit = 0;
    while bit < WAYS.len() {
        let way = &WAYS[bit];
        let set = [way.first_high, way.first_low, way.second_high][which];
        let mut half = 0;
        while half < 16 {
            table[half] |= ((set >> half & 1) as u8) << bit;
            half += 1;
        }
        bit += 1;
    }
    table
}
