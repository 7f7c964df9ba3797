//! Where a JSON string ends, found 64 bytes at a time.
//!
//! Prompts are where the bytes are, and real ones have an escape every few dozen bytes, so
//! stopping at each of them costs more than reading the text. Here a block becomes a few bit
//! masks, one bit per byte, and the rules of RFC 8259 §7 are operations on them; that the text
//! is UTF-8 is checked in the same pass. The scan only knows good from bad: who wants to know
//! what is wrong reads the string again, byte by byte.

mod utf8;

use fearless_simd::{Level, Simd, dispatch, i8x64, prelude::*, u8x16, u8x64};

/// The offset of the quote that ends the string whose first byte is at `start`. `None` when the
/// string does not end, or holds what a string must not.
#[inline]
pub(super) fn end(text: &[u8], start: usize) -> Option<usize> {
    if let Some(length) = short(&text[start..]) {
        return Some(start + length);
    }
    dispatch!(Level::new(), simd => long(simd, text, start))
}

/// The same at a given level of instructions.
#[cfg(test)]
pub(super) fn end_at(level: Level, text: &[u8], start: usize) -> Option<usize> {
    dispatch!(level, simd => long(simd, text, start))
}

/// The levels that this machine has.
#[cfg(test)]
pub(super) fn levels() -> Vec<Level> {
    let best = Level::new();
    let mut levels = vec![Level::baseline(), best];
    #[cfg(target_arch = "x86_64")]
    {
        levels.extend(best.as_sse4_2().map(Level::Sse4_2));
        levels.extend(best.as_avx2().map(Level::Avx2));
    }
    levels
}

/// The length of a string that ends within one small block, is ASCII and has no escape: most
/// keys.
#[inline]
pub(super) fn short(rest: &[u8]) -> Option<usize> {
    let block = rest.first_chunk::<SHORT>()?;
    let special = dispatch!(Level::baseline(), simd => special(simd, block));
    let length = special.trailing_zeros() as usize;
    (block.get(length) == Some(&b'"')).then_some(length)
}

#[inline(always)]
fn special<S: Simd>(simd: S, block: &[u8; SHORT]) -> u64 {
    let bytes = u8x16::from_slice(simd, block);
    let special = bytes.simd_eq(b'"') | bytes.simd_eq(b'\\') | bytes.simd_le(0x1f);
    (special | bytes.simd_ge(0x80)).to_bitmask()
}

#[inline(always)]
fn long<S: Simd>(simd: S, text: &[u8], start: usize) -> Option<usize> {
    let low = u8x64::block_splat(u8x16::from_slice(simd, &LOW));
    let high = u8x64::block_splat(u8x16::from_slice(simd, &HIGH));
    let utf8 = utf8::Tables::new(simd);
    // What reaches over from the block before: whether the first byte is escaped, which of the
    // first bytes must be hex digits, and whether a character may not have ended.
    let (mut escaped_next, mut hex_next, mut is_open) = (0u64, 0u64, 0u64);
    let (mut wrong_before, mut not_utf8) = (0u64, u8x64::splat(simd, 0));
    let mut at = start;
    loop {
        let mut padded = [0u8; WINDOW];
        let whole = at
            .checked_sub(utf8::BEFORE)
            .and_then(|from| text.get(from..from + WINDOW)?.first_chunk());
        let window = match whole {
            Some(window) => window,
            None => {
                pad(&mut padded, text, at);
                &padded
            }
        };
        let bytes = u8x64::from_slice(simd, &window[utf8::BEFORE..]);
        // As signed numbers, what is beyond ASCII is below the control characters.
        let signed: i8x64<S> = bytes.bitcast();
        let special = signed.simd_lt(0x20) | bytes.simd_eq(b'"') | bytes.simd_eq(b'\\');
        if !special.any_true() && escaped_next | hex_next | is_open == 0 {
            at += BLOCK;
            continue;
        }
        let mut quotes = bytes.simd_eq(b'"').to_bitmask();
        let mut wrong = bytes.simd_le(0x1f).to_bitmask();
        let slashes = bytes.simd_eq(b'\\').to_bitmask();
        if slashes | escaped_next | hex_next != 0 {
            let escaped = escaped(slashes, &mut escaped_next);
            quotes &= !escaped;
            let class = low.swizzle_dyn_within_blocks(bytes & 0x0f)
                & high.swizzle_dyn_within_blocks(bytes >> 4);
            wrong |= escaped & (class & ESCAPE).simd_eq(0).to_bitmask();
            let unicode = escaped & bytes.simd_eq(b'u').to_bitmask();
            if unicode | hex_next != 0 {
                let hex = hex_next | unicode << 1 | unicode << 2 | unicode << 3 | unicode << 4;
                hex_next = unicode >> 63 | unicode >> 62 | unicode >> 61 | unicode >> 60;
                wrong |= hex & (class & HEX).simd_eq(0).to_bitmask();
            }
        }
        let beyond_ascii = bytes.simd_ge(0x80).to_bitmask();
        if beyond_ascii | is_open != 0 {
            not_utf8 |= utf8.wrong(simd, window);
            is_open = beyond_ascii >> (BLOCK - utf8::BEFORE);
        }
        if quotes != 0 {
            let end = quotes.trailing_zeros();
            let until_end = u64::MAX >> (63 - end);
            // Text beyond the string counts here too; whoever reads by bytes will not mind it.
            let is_right =
                wrong_before | (wrong & until_end) == 0 && not_utf8.simd_eq(0).all_true();
            return is_right.then_some(at + end as usize);
        }
        if at + BLOCK >= text.len() {
            return None;
        }
        wrong_before |= wrong;
        at += BLOCK;
    }
}

/// The block at `at` and what stands before it, with zeros where `text` has nothing.
#[cold]
fn pad(padded: &mut [u8; WINDOW], text: &[u8], at: usize) {
    let before = &text[at.saturating_sub(utf8::BEFORE)..at];
    let block = &text[at..text.len().min(at + BLOCK)];
    padded[utf8::BEFORE - before.len()..utf8::BEFORE].copy_from_slice(before);
    padded[utf8::BEFORE..][..block.len()].copy_from_slice(block);
}

/// Which bytes stand right after a backslash that is not itself escaped.
///
/// A run of backslashes is taken in pairs from its first. Subtracting the run's start from
/// alternating bits lets the borrow walk along the run, which leaves every other one of its
/// bits: simdjson's method.
#[inline(always)]
fn escaped(slashes: u64, escaped_next: &mut u64) -> u64 {
    const ODD: u64 = 0xaaaa_aaaa_aaaa_aaaa;
    let may_escape = slashes & !*escaped_next;
    let alternating = ((may_escape << 1) | ODD).wrapping_sub(may_escape) ^ ODD;
    let escaped = alternating ^ (slashes | *escaped_next);
    *escaped_next = (alternating & slashes) >> 63;
    escaped
}

/// Bytes looked at together.
const BLOCK: usize = 64;
/// A block and what stands before it.
const WINDOW: usize = utf8::BEFORE + BLOCK;
/// Bytes in which keys and short values end.
const SHORT: usize = 16;

/// What a byte can be after a backslash, by its two halves: it is in a class when the entries of
/// both halves have the bit of that class and of its upper half in common.
const ESCAPE: u8 = 0x0f;
/// The bits of hex digits.
const HEX: u8 = 0x30;
/// One bit per upper half: `2_ 5_ 6_ 7_` hold what may be escaped, `3_` and `4_ 6_` hex digits.
const HIGH: [u8; 16] = {
    let mut table = [0; 16];
    table[2] = 0x01;
    table[5] = 0x02;
    table[6] = 0x04 | 0x20;
    table[7] = 0x08;
    table[3] = 0x10;
    table[4] = 0x20;
    table
};
/// The upper halves with which a lower half makes such a byte.
const LOW: [u8; 16] = {
    let mut table = [0; 16];
    let escapes = b"\"/\\bfnrtu";
    let mut at = 0;
    while at < escapes.len() {
        let byte = escapes[at] as usize;
        table[byte & 15] |= HIGH[byte >> 4] & ESCAPE;
        at += 1;
    }
    let digits = b"0123456789ABCDEFabcdef";
    at = 0;
    while at < digits.len() {
        let byte = digits[at] as usize;
        table[byte & 15] |= HIGH[byte >> 4] & HEX;
        at += 1;
    }
    table
};
