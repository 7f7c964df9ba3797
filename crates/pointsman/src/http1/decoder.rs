//! Where a body ends: by length, by chunks, or with the connection (RFC 9112 §6 and §7.1).
//!
//! Chunk framing is read strictly. A size that two readers could understand differently is how
//! one request is smuggled into another, so anything out of the ordinary is an error.

use bytes::{Buf, Bytes};
use memchr::memchr;

/// The framing of one body, as far as it has been read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decoder {
    /// So many bytes are still to come.
    Length(u64),
    /// Chunks.
    Chunked(Chunked),
    /// Whatever comes until the peer closes.
    UntilClose,
}

/// The place in chunk framing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Chunked {
    /// At a line with a size.
    Size,
    /// Inside a chunk; so many bytes of it are still to come.
    Data(u64),
    /// At the line end after a chunk.
    DataEnd,
    /// Among the trailers, of which so many bytes have gone by.
    Trailers(usize),
    /// Behind the last line end.
    Done,
}

/// What one step found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Bytes of the body; never none.
    Data(Bytes),
    /// The body goes on, but its next bytes are not here.
    More,
    /// The body is over.
    End,
}

/// Framing that is not HTTP.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

impl Decoder {
    /// A decoder for a chunked body.
    pub(crate) const fn chunked() -> Self {
        Self::Chunked(Chunked::Size)
    }

    /// Takes the next bytes of the body from `input`.
    pub(crate) fn step(&mut self, input: &mut Bytes) -> Result<Step, Malformed> {
        match self {
            Self::Length(0) => Ok(Step::End),
            Self::Length(left) => Ok(take(left, input)),
            Self::UntilClose if input.is_empty() => Ok(Step::More),
            Self::UntilClose => Ok(Step::Data(std::mem::take(input))),
            Self::Chunked(place) => place.step(input),
        }
    }

    /// Whether the body has been read to its end. One that ends with the connection never has.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunked::Done))
    }

    /// Bytes still to come, if that is known.
    pub(crate) fn remaining(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(Chunked::Done) => Some(0),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }
}

/// As much of `left` as `input` has.
fn take(left: &mut u64, input: &mut Bytes) -> Step {
    if input.is_empty() {
        return Step::More;
    }
    let here = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
    *left -= here as u64;
    Step::Data(input.split_to(here))
}

impl Chunked {
    fn step(&mut self, input: &mut Bytes) -> Result<Step, Malformed> {
        loop {
            match self {
                Self::Size => {
                    let Some(end) = line_end(input, SIZE_LINE_BYTES_MAX)? else {
                        return Ok(Step::More);
                    };
                    let size = size(&input[..end])?;
                    input.advance(end + 2);
                    *self = match size {
                        0 => Self::Trailers(0),
                        size => Self::Data(size),
                    };
                }
                Self::Data(left) => {
                    let step = take(left, input);
                    if *left == 0 {
                        *self = Self::DataEnd;
                    }
                    return Ok(step);
                }
                Self::DataEnd => {
                    let here = input.len().min(2);
                    if input[..here] != b"\r\n"[..here] {
                        return Err(Malformed("a chunk is longer than its size says"));
                    }
                    if here < 2 {
                        return Ok(Step::More);
                    }
                    input.advance(2);
                    *self = Self::Size;
                }
                Self::Trailers(seen) => {
                    let Some(end) = line_end(input, TRAILER_BYTES_MAX - *seen)? else {
                        return Ok(Step::More);
                    };
                    input.advance(end + 2);
                    *seen += end + 2;
                    if end == 0 {
                        *self = Self::Done;
                    } else if *seen >= TRAILER_BYTES_MAX {
                        return Err(Malformed("the trailers are too long"));
                    }
                }
                Self::Done => return Ok(Step::End),
            }
        }
    }
}

/// Where the line at the start of `input` ends, at a CR LF, once that is here.
fn line_end(input: &[u8], longest: usize) -> Result<Option<usize>, Malformed> {
    match memchr(b'\n', input) {
        Some(feed) if feed > longest => Err(Malformed("a line of the chunk framing is too long")),
        Some(feed) if feed > 0 && input[feed - 1] == b'\r' => Ok(Some(feed - 1)),
        Some(_) => Err(Malformed(
            "a line of the chunk framing does not end in CR LF",
        )),
        None if input.len() > longest => Err(Malformed("a line of the chunk framing is too long")),
        None => Ok(None),
    }
}

/// The size in `1a2b [;extension]`.
fn size(line: &[u8]) -> Result<u64, Malformed> {
    let digits = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    let rest = &line[digits..];
    // Blanks may stand before an extension (RFC 9112 §7.1.1); a lone CR may not.
    let blanks = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t'));
    let rest = &rest[blanks.count()..];
    let extension_is_fine = rest.first().is_none_or(|first| *first == b';')
        && !rest.iter().any(|byte| matches!(byte, b'\r' | 0));
    if digits == 0 || digits > SIZE_DIGITS_MAX || !extension_is_fine {
        return Err(Malformed("a chunk size is not a hexadecimal number"));
    }
    std::str::from_utf8(&line[..digits])
        .ok()
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or(Malformed("a chunk size is not a hexadecimal number"))
}

/// Extensions included; nobody uses them for anything but harm.
const SIZE_LINE_BYTES_MAX: usize = 4 << 10;
const SIZE_DIGITS_MAX: usize = 15;
const TRAILER_BYTES_MAX: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The body in `wire`, fed in pieces of `piece` bytes, and what is left behind it.
    fn read(wire: &[u8], piece: usize) -> Result<(Vec<u8>, bool, Vec<u8>), Malformed> {
        let mut decoder = Decoder::chunked();
        let mut body = Vec::new();
        let mut input = Bytes::new();
        let mut pieces = wire.chunks(piece.max(1));
        loop {
            match decoder.step(&mut input)? {
                Step::Data(data) => body.extend_from_slice(&data),
                Step::End => {
                    let rest =
                        [&input[..], &pieces.flatten().copied().collect::<Vec<_>>()].concat();
                    return Ok((body, true, rest));
                }
                Step::More => match pieces.next() {
                    Some(next) => input = Bytes::from([&input[..], next].concat()),
                    None => return Ok((body, false, Vec::new())),
                },
            }
        }
    }

    #[test]
    fn chunks_are_read_however_they_are_cut() {
        let wire = b"5\r\nhello\r\nA;x=\"y\"\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\nGET /";
        for piece in 1..wire.len() {
            assert_eq!(
                read(wire, piece),
                Ok((b"hello0123456789".to_vec(), true, b"GET /".to_vec())),
                "{piece}"
            );
        }
    }

    #[test]
    fn anything_ambiguous_is_refused() {
        for wire in [
            "zz\r\n",
            "\r\n",
            "-1\r\n",
            "0x5\r\n",
            "5 5\r\nhello",
            "ffffffffffffffff\r\n",
            "5\nhello\r\n",
            "5\r\nhelloX\r\n",
            "5\r\nhello\n0\r\n",
            "5;a\rb\r\nhello",
            "0\r\nA: 1\n\r\n",
        ] {
            for piece in [1, 3, 100] {
                assert!(read(wire.as_bytes(), piece).is_err(), "{wire:?} by {piece}");
            }
        }
        let long = format!("5;{}\r\n", "x".repeat(SIZE_LINE_BYTES_MAX));
        assert!(read(long.as_bytes(), 1000).is_err());
        let trailers = format!("0\r\n{}\r\n", "A: 1\r\n".repeat(10_000));
        assert!(read(trailers.as_bytes(), 1000).is_err());
    }

    #[test]
    fn lengths_leave_what_follows() {
        let mut input = Bytes::from_static(b"abcdef");
        let mut decoder = Decoder::Length(4);
        assert_eq!(
            decoder.step(&mut input),
            Ok(Step::Data(Bytes::from_static(b"abcd")))
        );
        assert!(decoder.is_done());
        assert_eq!(decoder.step(&mut input), Ok(Step::End));
        assert_eq!(&input[..], b"ef");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(wire in proptest::collection::vec(any::<u8>(), 0..200), piece in 1usize..50) {
            let _ = read(&wire, piece);
        }

        #[test]
        fn what_is_encoded_is_read(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..8), piece in 1usize..100) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\nrest");
            prop_assert_eq!(read(&wire, piece), Ok((chunks.concat(), true, b"rest".to_vec())));
        }
    }
}
