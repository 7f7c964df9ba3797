//! The little of HTTP/1.1 that the mock upstream and the load generator need: heads, and where a
//! body ends.
//!
//! Written by hand so that both ends stay much cheaper than any gateway between them. It reads what
//! well-behaved peers send and refuses the rest; nothing here faces a stranger. Bodies are never
//! stored: each piece is shown to a closure as it arrives.

use std::fmt;

use memchr::memmem;

/// What the first lines of a message say, as far as it concerns us.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head<'buf> {
    /// Request line or status line, without its line end.
    pub(crate) start_line: &'buf [u8],
    /// Bytes up to and including the empty line.
    pub(crate) len: usize,
    /// How the body is framed; `None` if the head names neither a length nor an encoding.
    pub(crate) framing: Option<Framing>,
    /// Whether the peer keeps the connection open after this message.
    pub(crate) keep_alive: bool,
}

/// How a body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// That many bytes.
    Length(u64),
    /// Chunks up to one of length 0.
    Chunked,
    /// All until the peer closes (responses only).
    UntilClose,
}

/// The peer sent something that is not the HTTP/1.1 we understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(&'static str);

/// Reads the head at the start of `buf`; `None` if it isn't complete yet.
pub(crate) fn parse_head(buf: &[u8]) -> Result<Option<Head<'_>>, Malformed> {
    let Some(end) = memmem::find(buf, b"\r\n\r\n") else {
        return if buf.len() > HEAD_BYTES_MAX {
            Err(Malformed("head too long"))
        } else {
            Ok(None)
        };
    };
    let mut lines = Lines(&buf[..end]);
    let start_line = lines.next().unwrap_or_default();
    let mut head = Head {
        start_line,
        len: end + 4,
        framing: None,
        keep_alive: memmem::find(start_line, b"HTTP/1.1").is_some(),
    };
    for line in lines {
        let colon = memchr::memchr(b':', line).ok_or(Malformed("header without colon"))?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = decimal(value).ok_or(Malformed("content-length is not a number"))?;
            if head.framing.is_some() {
                return Err(Malformed("body framed twice"));
            }
            head.framing = Some(Framing::Length(length));
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if head.framing.is_some() || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed("body framed twice or in an unknown way"));
            }
            head.framing = Some(Framing::Chunked);
        } else if name.eq_ignore_ascii_case(b"connection") && value.eq_ignore_ascii_case(b"close") {
            head.keep_alive = false;
        }
    }
    Ok(Some(head))
}

/// The status code of a response's status line.
pub(crate) fn status(start_line: &[u8]) -> Result<u16, Malformed> {
    let digits = start_line
        .get(9..12)
        .ok_or(Malformed("status line too short"))?;
    decimal(digits)
        .and_then(|code| u16::try_from(code).ok())
        .ok_or(Malformed("status is not a number"))
}

/// Follows a body through the pieces in which it arrives.
#[derive(Debug)]
pub(crate) struct BodyReader {
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Length(u64),
    UntilClose,
    ChunkSize { value: u64, digits: u8 },
    ChunkExtension { value: u64 },
    ChunkBytes(u64),
    ChunkEnd,
    TrailerStart,
    TrailerLine,
    Done,
}

impl BodyReader {
    pub(crate) fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::ChunkSize {
                value: 0,
                digits: 0,
            },
            Framing::UntilClose => State::UntilClose,
        };
        Self { state }
    }

    /// Takes the next bytes off the wire, shows what is body to `sink`, and returns how many
    /// belonged to the message.
    pub(crate) fn feed(
        &mut self,
        input: &[u8],
        mut sink: impl FnMut(&[u8]),
    ) -> Result<usize, Malformed> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            let rest = &input[at..];
            at += match self.state {
                State::Length(left) | State::ChunkBytes(left) => {
                    let taken = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    sink(&rest[..taken]);
                    self.state = self.state.after_bytes(left - taken as u64);
                    taken
                }
                State::UntilClose => {
                    sink(rest);
                    rest.len()
                }
                _ => {
                    self.state = self.state.after_framing_byte(rest[0])?;
                    1
                }
            };
        }
        Ok(at)
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether a close at this point is the proper end of the body.
    pub(crate) fn may_end_here(&self) -> bool {
        matches!(self.state, State::Done | State::UntilClose)
    }
}

impl State {
    fn after_bytes(self, left: u64) -> Self {
        match (self, left) {
            (Self::Length(_), 0) => Self::Done,
            (Self::Length(_), left) => Self::Length(left),
            (_, 0) => Self::ChunkEnd,
            (_, left) => Self::ChunkBytes(left),
        }
    }

    /// Steps over one byte that frames chunks. Carriage returns are skipped wherever a line may
    /// end.
    fn after_framing_byte(self, byte: u8) -> Result<Self, Malformed> {
        Ok(match (self, byte) {
            (Self::ChunkSize { value, digits: 1.. }, b';' | b' ' | b'\r') => {
                Self::ChunkExtension { value }
            }
            (Self::ChunkSize { value, digits: 1.. } | Self::ChunkExtension { value }, b'\n') => {
                match value {
                    0 => Self::TrailerStart,
                    length => Self::ChunkBytes(length),
                }
            }
            (
                Self::ChunkSize {
                    value,
                    digits: digits @ ..15,
                },
                _,
            ) => {
                let digit = char::from(byte)
                    .to_digit(16)
                    .ok_or(Malformed("chunk length is not hexadecimal"))?;
                Self::ChunkSize {
                    value: value * 16 + u64::from(digit),
                    digits: digits + 1,
                }
            }
            (Self::ChunkExtension { .. } | Self::TrailerLine, _) if byte != b'\n' => self,
            (Self::ChunkEnd | Self::TrailerStart, b'\r') => self,
            (Self::ChunkEnd, b'\n') => Self::ChunkSize {
                value: 0,
                digits: 0,
            },
            (Self::TrailerStart, b'\n') => Self::Done,
            (Self::TrailerStart, _) => Self::TrailerLine,
            (Self::TrailerLine, _) => Self::TrailerStart,
            _ => return Err(Malformed("broken chunk")),
        })
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed HTTP: {}", self.0)
    }
}

/// Lines without their CR LF.
struct Lines<'buf>(&'buf [u8]);

impl<'buf> Iterator for Lines<'buf> {
    type Item = &'buf [u8];

    fn next(&mut self) -> Option<&'buf [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let (line, rest) = match memmem::find(self.0, b"\r\n") {
            Some(end) => (&self.0[..end], &self.0[end + 2..]),
            None => (self.0, &self.0[self.0.len()..]),
        };
        self.0 = rest;
        Some(line)
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The longest head accepted; our own are below 1 KiB, a gateway may add to them.
pub(crate) const HEAD_BYTES_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_once_it_is_complete() {
        let wire = b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-LENGTH:  12 \r\n\r\nrest";
        let end = wire.len() - 4;
        for cut in 0..end {
            assert_eq!(parse_head(&wire[..cut]), Ok(None), "cut at {cut}");
        }
        let head = parse_head(wire).unwrap().unwrap();
        assert_eq!(head.start_line, b"HTTP/1.1 200 OK");
        assert_eq!(head.len, end);
        assert_eq!(head.framing, Some(Framing::Length(12)));
        assert!(head.keep_alive);
        assert_eq!(status(head.start_line), Ok(200));
    }

    #[test]
    fn framing_and_keep_alive_follow_the_headers() {
        fn check(headers: &str, framing: Option<Framing>, keep_alive: bool) {
            let wire = format!("HTTP/1.1 200 OK\r\n{headers}\r\n");
            let head = parse_head(wire.as_bytes()).unwrap().unwrap();
            assert_eq!(
                (head.framing, head.keep_alive),
                (framing, keep_alive),
                "{headers:?}"
            );
        }
        check("", None, true);
        check(
            "Transfer-Encoding: chunked\r\n",
            Some(Framing::Chunked),
            true,
        );
        check("Connection: keep-alive\r\n", None, true);
        check(
            "Content-Length: 0\r\nConnection: Close\r\n",
            Some(Framing::Length(0)),
            false,
        );
        assert!(
            !parse_head(b"HTTP/1.0 200 OK\r\n\r\n")
                .unwrap()
                .unwrap()
                .keep_alive
        );
    }

    #[test]
    fn doubtful_heads_are_refused() {
        for headers in [
            "Content-Length: -1\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip\r\n",
            "no colon\r\n",
        ] {
            assert!(
                parse_head(format!("HTTP/1.1 200 OK\r\n{headers}\r\n").as_bytes()).is_err(),
                "{headers:?}"
            );
        }
        assert!(parse_head(&[b'a'; HEAD_BYTES_MAX + 1]).is_err());
        assert!(status(b"HTTP/1.1 2x0 OK").is_err());
        assert!(status(b"HTTP").is_err());
    }

    /// Feeds `wire` in two pieces for every place to cut it, and expects the same body and rest
    /// each time.
    fn check_body(framing: Framing, wire: &[u8], body: &[u8], rest: usize) {
        for cut in 0..=wire.len() {
            let (mut reader, mut seen, mut consumed) = (BodyReader::new(framing), Vec::new(), 0);
            for piece in [&wire[..cut], &wire[cut..]] {
                consumed += reader
                    .feed(piece, |bytes| seen.extend_from_slice(bytes))
                    .unwrap();
            }
            assert_eq!(
                (seen.as_slice(), consumed),
                (body, wire.len() - rest),
                "cut at {cut}"
            );
            assert!(reader.may_end_here(), "cut at {cut}");
        }
    }

    #[test]
    fn bodies_end_where_their_framing_says() {
        check_body(Framing::Length(5), b"hello", b"hello", 0);
        check_body(Framing::Length(5), b"hello+", b"hello", 1);
        check_body(Framing::Length(0), b"+", b"", 1);
        check_body(Framing::UntilClose, b"hello", b"hello", 0);
        check_body(Framing::Chunked, b"0\r\n\r\n", b"", 0);
        check_body(
            Framing::Chunked,
            b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n+",
            b"hello!",
            1,
        );
        check_body(
            Framing::Chunked,
            b"A;x=y\r\n0123456789\r\n00\r\nTrailer: a\r\nB: c\r\n\r\n",
            b"0123456789",
            0,
        );
    }

    #[test]
    fn an_early_close_is_not_an_end() {
        for (framing, wire) in [
            (Framing::Length(5), "hell"),
            (Framing::Chunked, "5\r\nhello\r\n0\r\n"),
        ] {
            let mut reader = BodyReader::new(framing);
            reader.feed(wire.as_bytes(), |_| ()).unwrap();
            assert!(!reader.may_end_here(), "{wire:?}");
        }
    }

    #[test]
    fn broken_chunks_are_refused() {
        for wire in ["g\r\n", "\r\n", "1\r\nab\r\n", "1111111111111111\r\n"] {
            let refused = BodyReader::new(Framing::Chunked)
                .feed(wire.as_bytes(), |_| ())
                .is_err();
            assert!(refused, "{wire:?}");
        }
    }
}
