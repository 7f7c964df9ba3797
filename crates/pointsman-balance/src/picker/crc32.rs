//! CRC-32 as in IEEE 802.3 and zlib, which is what APISIX builds its hash ring with.
//!
//! Keys are short, so one table and one byte at a time is fast enough.

/// A checksum under way, so that many inputs with a common beginning share its cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Crc32(u32);

impl Crc32 {
    pub(super) const fn new() -> Self {
        Self(!0)
    }

    #[must_use]
    pub(super) fn with(self, bytes: impl IntoIterator<Item = u8>) -> Self {
        Self(bytes.into_iter().fold(self.0, |sum, byte| {
            (sum >> 8) ^ TABLE[usize::from((sum as u8) ^ byte)]
        }))
    }

    pub(super) const fn finish(self) -> u32 {
        !self.0
    }
}

/// The checksum of one input.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    Crc32::new().with(bytes.iter().copied()).finish()
}

static TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 {
                (sum >> 1) ^ POLYNOMIAL
            } else {
                sum >> 1
            };
            bit += 1;
        }
        table[byte] = sum;
        byte += 1;
    }
    table
};

const POLYNOMIAL: u32 = 0xedb8_8320;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_published_values() {
        assert_eq!(crc32(b""), 0);
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b"127.0.0.1"), 0xd7b7_e7a8);
    }

    #[test]
    fn parts_sum_up_like_the_whole() {
        let parts = Crc32::new().with(*b"1234").with(*b"56789").finish();
        assert_eq!(parts, crc32(b"123456789"));
    }
}
