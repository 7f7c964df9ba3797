//! Bytes and characters of a text that grows: Gemini counts the one, everybody else the other.

/// A text, and how many characters stand in front of its bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Offsets {
    text: String,
    /// Characters in front of every `STEP`th byte, as far as somebody asked.
    marks: Vec<usize>,
}

/// Bytes from mark to mark: what a look-up counts through.
const STEP: usize = 128;
/// Bytes that are kept: places further on are not known.
const TEXT_BYTES_MAX: usize = 1 << 20;

impl Offsets {
    /// Appends `more`.
    pub(super) fn push(&mut self, more: &str) {
        if self.text.len() + more.len() <= TEXT_BYTES_MAX {
            self.text.push_str(more);
        }
    }

    /// The text between two bytes; `None` if they are in the middle of characters or behind the end.
    pub(super) fn slice(&self, start: usize, end: usize) -> Option<&str> {
        self.text.get(start..end)
    }

    /// Characters of the whole.
    pub(super) fn chars(&mut self) -> usize {
        self.chars_before(self.text.len()).unwrap_or_default()
    }

    /// Characters in front of the byte `at`; `None` if there is none.
    pub(super) fn chars_before(&mut self, at: usize) -> Option<usize> {
        if !self.text.is_char_boundary(at) {
            return None;
        }
        self.mark();
        let mark = at / STEP;
        let rest = &self.text.as_bytes()[mark * STEP..at];
        Some(self.marks[mark] + starts(rest))
    }

    /// The byte at which the character `at` begins; `None` if there are not so many.
    pub(super) fn byte_of(&mut self, at: usize) -> Option<usize> {
        if at == self.chars() {
            return Some(self.text.len());
        }
        self.mark();
        let mark = self.marks.partition_point(|chars| *chars <= at) - 1;
        let mut left = at - self.marks[mark];
        let bytes = self.text.as_bytes().iter().enumerate().skip(mark * STEP);
        for (index, byte) in bytes {
            if is_start(*byte) {
                if left == 0 {
                    return Some(index);
                }
                left -= 1;
            }
        }
        None
    }

    fn mark(&mut self) {
        if self.marks.is_empty() {
            self.marks.push(0);
        }
        let bytes = self.text.as_bytes();
        while let Some(next) = bytes.get((self.marks.len() - 1) * STEP..self.marks.len() * STEP) {
            let before = self.marks[self.marks.len() - 1];
            self.marks.push(before + starts(next));
        }
    }
}

fn starts(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| is_start(**byte)).count()
}

/// The byte is not a continuation of a character.
fn is_start(byte: u8) -> bool {
    byte & 0xc0 != 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_characters_agree() {
        let piece = "aé漢😀 plain ";
        let mut offsets = Offsets::default();
        let mut whole = String::new();
        for _ in 0..50 {
            offsets.push(piece);
            whole.push_str(piece);
            assert_eq!(offsets.chars(), whole.chars().count());
        }
        for (chars, (byte, _)) in whole.char_indices().enumerate() {
            assert_eq!(offsets.chars_before(byte), Some(chars));
            assert_eq!(offsets.byte_of(chars), Some(byte));
        }
        assert_eq!(offsets.byte_of(whole.chars().count()), Some(whole.len()));
        assert_eq!(offsets.byte_of(whole.chars().count() + 1), None);
        assert_eq!(offsets.chars_before(2), None);
        assert_eq!(offsets.chars_before(whole.len() + 1), None);
        assert_eq!(offsets.slice(1, 3), Some("é"));
        assert_eq!(offsets.slice(1, 2), None);
    }

    #[test]
    fn a_text_that_never_ends_is_not_kept() {
        let mut offsets = Offsets::default();
        for _ in 0..TEXT_BYTES_MAX / 1000 + 10 {
            offsets.push(&"x".repeat(1000));
        }
        assert!(offsets.chars() <= TEXT_BYTES_MAX);
    }
}
