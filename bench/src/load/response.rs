//! Reads one response from the bytes as they come, and says whether it is the expected one.
//!
//! No sockets here: both ways of sending feed it what they read.

use crate::http1::{self, BodyReader, Framing};

/// What a right answer looks like, besides status 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expected {
    /// Length of the body without its transfer encoding.
    pub(super) body_bytes: u64,
    /// Number of empty lines, each of which ends an event; 0 means that events aren't counted.
    pub(super) events: u64,
}

/// A response that was read to its end and was as expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Complete {
    /// Whether the connection may carry another request.
    pub(super) keep_alive: bool,
}

/// One response under way. Make a new one, or call [`Self::restart`], for each request.
#[derive(Debug)]
pub(super) struct ResponseReader {
    expected: Expected,
    stage: Stage,
    /// A head that didn't come in one piece.
    partial_head: Vec<u8>,
    body_bytes: u64,
    events: u64,
    after_newline: bool,
}

#[derive(Debug)]
enum Stage {
    Head,
    Body {
        reader: BodyReader,
        keep_alive: bool,
    },
}

impl ResponseReader {
    pub(super) fn new(expected: Expected) -> Self {
        let partial_head = Vec::new();
        Self {
            expected,
            stage: Stage::Head,
            partial_head,
            body_bytes: 0,
            events: 0,
            after_newline: false,
        }
    }

    pub(super) fn restart(&mut self) {
        self.partial_head.clear();
        self.stage = Stage::Head;
        (self.body_bytes, self.events, self.after_newline) = (0, 0, false);
    }

    /// Takes the next bytes from the wire. `None` if more are to come; an error if the answer is
    /// not as expected.
    pub(super) fn feed(&mut self, input: &[u8]) -> Result<Option<Complete>, String> {
        let complete = match self.stage {
            Stage::Body { .. } => self.read_body(input)?,
            Stage::Head if self.partial_head.is_empty() => self.read_head(input)?,
            Stage::Head => {
                let mut joined = std::mem::take(&mut self.partial_head);
                joined.extend_from_slice(input);
                self.read_head(&joined)?
            }
        };
        if complete {
            self.judge().map(Some)
        } else {
            Ok(None)
        }
    }

    /// The peer closed the connection. That is an answer only if the response is framed by it.
    pub(super) fn close(&mut self) -> Result<Complete, String> {
        match &self.stage {
            Stage::Body { reader, .. } if reader.may_end_here() => {
                self.judge().map(|_| Complete { keep_alive: false })
            }
            Stage::Body { .. } => Err(format!(
                "connection closed after {} bytes of the body",
                self.body_bytes
            )),
            Stage::Head => Err("connection closed before the answer".to_owned()),
        }
    }

    /// Returns whether the response is complete.
    fn read_head(&mut self, input: &[u8]) -> Result<bool, String> {
        let Some(head) = http1::parse_head(input).map_err(|error| error.to_string())? else {
            self.partial_head = input.to_vec();
            return Ok(false);
        };
        let status = http1::status(head.start_line).map_err(|error| error.to_string())?;
        if status != 200 {
            let shown = &input[..input.len().min(SHOWN_BYTES_MAX)];
            return Err(format!(
                "status {status}: {}",
                String::from_utf8_lossy(shown)
            ));
        }
        let reader = BodyReader::new(head.framing.unwrap_or(Framing::UntilClose));
        self.stage = Stage::Body {
            reader,
            keep_alive: head.keep_alive,
        };
        self.read_body(&input[head.len..])
    }

    fn read_body(&mut self, input: &[u8]) -> Result<bool, String> {
        let Stage::Body { reader, .. } = &mut self.stage else {
            return Ok(false);
        };
        let (bytes, events, after_newline) = (
            &mut self.body_bytes,
            &mut self.events,
            &mut self.after_newline,
        );
        let count_events = self.expected.events > 0;
        let consumed = reader
            .feed(input, |piece| {
                *bytes += piece.len() as u64;
                if count_events {
                    *events += empty_lines(piece, after_newline);
                }
            })
            .map_err(|error| error.to_string())?;
        if consumed < input.len() {
            return Err(format!(
                "{} bytes after the end of the answer",
                input.len() - consumed
            ));
        }
        Ok(reader.is_done())
    }

    fn judge(&self) -> Result<Complete, String> {
        let seen = Expected {
            body_bytes: self.body_bytes,
            events: self.events,
        };
        if seen != self.expected {
            return Err(format!(
                "wrong answer: {seen:?} instead of {:?}",
                self.expected
            ));
        }
        Ok(Complete {
            keep_alive: matches!(
                self.stage,
                Stage::Body {
                    keep_alive: true,
                    ..
                }
            ),
        })
    }
}

/// Counts newlines that follow a newline, across the pieces of a body.
fn empty_lines(piece: &[u8], after_newline: &mut bool) -> u64 {
    let mut count = 0;
    let mut expected_at = if *after_newline { Some(0) } else { None };
    for at in memchr::memchr_iter(b'\n', piece) {
        if expected_at == Some(at) {
            count += 1;
            expected_at = None;
        } else {
            expected_at = Some(at + 1);
        }
    }
    if !piece.is_empty() {
        *after_newline = expected_at == Some(piece.len());
    }
    count
}

/// How much of an answer that isn't 200 goes into the message.
const SHOWN_BYTES_MAX: usize = 600;

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds a response cut in two at every place; each time the outcome must be the same.
    fn check(expected: Expected, wire: &str, outcome: Option<Complete>) {
        let mut reader = ResponseReader::new(expected);
        for cut in 0..=wire.len() {
            reader.restart();
            let (first, second) = wire.as_bytes().split_at(cut);
            let told = reader.feed(first).and_then(|early| match early {
                Some(complete) => Ok(Some(complete)),
                None => reader.feed(second),
            });
            assert_eq!(told.unwrap_or(None), outcome, "{wire:?} cut at {cut}");
        }
    }

    const OPEN: Option<Complete> = Some(Complete { keep_alive: true });

    #[test]
    fn right_answers_are_complete_wherever_they_are_cut() {
        let five = Expected {
            body_bytes: 5,
            events: 0,
        };
        check(
            five,
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            OPEN,
        );
        check(
            five,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            OPEN,
        );
        let closing = Some(Complete { keep_alive: false });
        check(
            five,
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
            closing,
        );
        let events = Expected {
            body_bytes: 11,
            events: 3,
        };
        check(
            events,
            "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\na\n\nb\nb\n\nc\n\n",
            OPEN,
        );
    }

    #[test]
    fn wrong_answers_are_errors() {
        let five = Expected {
            body_bytes: 5,
            events: 0,
        };
        check(
            five,
            "HTTP/1.1 503 Down\r\nContent-Length: 5\r\n\r\nhello",
            None,
        );
        check(
            five,
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhell",
            None,
        );
        check(
            five,
            "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello!",
            None,
        );
        check(
            Expected {
                body_bytes: 5,
                events: 2,
            },
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc\n\n",
            None,
        );
        let surplus =
            ResponseReader::new(five).feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello+");
        assert!(surplus.is_err());
    }

    #[test]
    fn a_close_ends_only_an_answer_framed_by_it() {
        let five = Expected {
            body_bytes: 5,
            events: 0,
        };
        let mut reader = ResponseReader::new(five);
        assert!(reader.close().is_err());
        assert_eq!(reader.feed(b"HTTP/1.1 200 OK\r\n\r\nhello"), Ok(None));
        assert_eq!(reader.close(), Ok(Complete { keep_alive: false }));
        reader.restart();
        assert_eq!(
            reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell"),
            Ok(None)
        );
        assert!(reader.close().is_err());
    }

    #[test]
    fn two_newlines_in_a_row_end_an_event() {
        for (text, count) in [
            ("", 0),
            ("\n", 0),
            ("\n\n", 1),
            ("\n\n\n\n", 2),
            ("a\n\n\nb\n\n", 2),
            ("a\nb\n", 0),
        ] {
            for cut in 0..=text.len() {
                let (mut after_newline, (first, second)) = (false, text.as_bytes().split_at(cut));
                let seen = empty_lines(first, &mut after_newline)
                    + empty_lines(second, &mut after_newline);
                assert_eq!(seen, count, "{text:?} cut at {cut}");
            }
        }
    }
}
