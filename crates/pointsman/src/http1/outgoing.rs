//! A message on its way out: frames are framed, gathered and written together.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::Body as HttpBody;
use pointsman_gateway::body::{Body, BodyError};
use tokio::io::AsyncWrite;

use super::encode::{self, Encoding};

/// Bytes that wait to be written.
///
/// Small pieces are copied behind each other; a large one keeps its buffer, so a spliced prompt
/// goes out in one vectored write without being copied.
#[derive(Clone, Default)]
pub(crate) struct Output {
    queue: VecDeque<Bytes>,
    /// What follows the queue; the first `tail_written` bytes of it are out.
    tail: Vec<u8>,
    tail_written: usize,
    waiting: usize,
}

impl Output {
    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting
    }

    /// Whether nothing waits.
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Lets `write` add bytes at the end.
    pub(crate) fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.tail.len();
        write(&mut self.tail);
        self.waiting += self.tail.len() - before;
    }

    /// Adds `bytes` at the end.
    pub(crate) fn push(&mut self, bytes: Bytes) {
        if bytes.len() <= COPIED_BYTES_MAX {
            self.write(|tail| tail.extend_from_slice(&bytes));
            return;
        }
        if self.tail.len() > self.tail_written {
            let tail = Bytes::from(std::mem::take(&mut self.tail));
            self.queue.push_back(tail.slice(self.tail_written..));
        }
        self.tail.clear();
        self.tail_written = 0;
        self.waiting += bytes.len();
        self.queue.push_back(bytes);
    }

    /// Writes until nothing waits.
    pub(crate) fn poll_flush<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.waiting > 0 {
            let written = ready!(self.poll_write(stream, cx))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.consume(written);
        }
        Pin::new(stream).poll_flush(cx)
    }

    fn poll_write<S: AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let tail = &self.tail[self.tail_written..];
        if self.queue.is_empty() {
            return Pin::new(stream).poll_write(cx, tail);
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        let pieces = self.queue.iter().map(|piece| &piece[..]);
        for (slot, piece) in slices.iter_mut().zip(pieces.chain([tail])) {
            *slot = IoSlice::new(piece);
            count += 1;
        }
        Pin::new(stream).poll_write_vectored(cx, &slices[..count])
    }

    fn consume(&mut self, mut written: usize) {
        self.waiting -= written;
        while let Some(first) = self.queue.front_mut() {
            if written < first.len() {
                *first = first.slice(written..);
                return;
            }
            written -= first.len();
            self.queue.pop_front();
        }
        self.tail_written += written;
        if self.waiting == 0 {
            self.tail_written = 0;
            if self.tail.capacity() > IDLE_BYTES_MAX {
                self.tail = Vec::new();
            } else {
                self.tail.clear();
            }
        } else if self.tail_written > ENOUGH_BYTES {
            // A reader who is always a little behind must not make us keep all that it has read.
            self.tail.drain(..self.tail_written);
            self.tail_written = 0;
        }
    }
}

/// A body that is being sent.
pub(crate) struct Outgoing {
    body: Body,
    encoding: Encoding,
    place: Place,
    /// There never was a body.
    was_empty: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// No frame has been asked for.
    Start,
    Middle,
    End,
}

/// What came of asking a body for frames.
pub(crate) enum Pulled {
    /// Enough waits to be written.
    Enough,
    /// The body has nothing more at the moment.
    Pending,
    /// The body is over, and its end is among the output.
    Done,
    /// The body broke off. Its end was not written.
    Broken(BodyError),
}

impl Outgoing {
    /// `body`, whose end is told as `encoding` says.
    pub(crate) fn new(body: Body, encoding: Encoding) -> Self {
        let place = match encoding {
            Encoding::Absent => Place::End,
            _ => Place::Start,
        };
        Self {
            was_empty: matches!(body, Body::Empty),
            body,
            encoding,
            place,
        }
    }

    /// The body, if no frame of it has been taken.
    pub(crate) fn into_unread(self) -> Option<Body> {
        (self.place == Place::Start || self.was_empty).then_some(self.body)
    }

    /// The same once more, if nothing of it has been taken and it can be sent again.
    pub(crate) fn replay(&self) -> Option<Self> {
        Some(Self {
            body: self.body.replay().filter(|_| self.place == Place::Start)?,
            ..*self
        })
    }

    /// Moves frames into `output` until there is enough to write.
    pub(crate) fn poll_pull(&mut self, output: &mut Output, cx: &mut Context<'_>) -> Pulled {
        if self.place == Place::End {
            return Pulled::Done;
        }
        // What is in memory anyway goes out in one write.
        while output.len() < ENOUGH_BYTES || matches!(self.body, Body::Whole(_)) {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => return Pulled::Pending,
                Poll::Ready(Some(Err(error))) => {
                    self.place = Place::End;
                    return Pulled::Broken(error);
                }
                Poll::Ready(Some(Ok(frame))) => {
                    self.place = Place::Middle;
                    // Trailers are not passed on.
                    if let Ok(data) = frame.into_data()
                        && let Err(error) = self.push(output, data)
                    {
                        self.place = Place::End;
                        return Pulled::Broken(error);
                    }
                }
                Poll::Ready(None) => {
                    self.place = Place::End;
                    // The exchange may end with its body; it is not needed any longer.
                    self.body = Body::Empty;
                    return match self.encoding {
                        Encoding::Length(1..) => {
                            Pulled::Broken("the body is shorter than its length".into())
                        }
                        Encoding::Chunked => {
                            output.write(|out| out.extend_from_slice(b"0\r\n\r\n"));
                            Pulled::Done
                        }
                        _ => Pulled::Done,
                    };
                }
            }
        }
        Pulled::Enough
    }

    fn push(&mut self, output: &mut Output, data: Bytes) -> Result<(), BodyError> {
        if data.is_empty() {
            return Ok(());
        }
        match &mut self.encoding {
            Encoding::Absent | Encoding::UntilClose => output.push(data),
            Encoding::Length(left) => {
                *left = left
                    .checked_sub(data.len() as u64)
                    .ok_or("the body is longer than its length")?;
                output.push(data);
            }
            Encoding::Chunked => {
                output.write(|out| encode::chunk_size(out, data.len()));
                output.push(data);
                output.write(|out| out.extend_from_slice(b"\r\n"));
            }
        }
        Ok(())
    }
}

/// A piece of at most so many bytes is copied behind the one before it.
const COPIED_BYTES_MAX: usize = 4 << 10;
/// Pieces that go out in one write.
const SLICES_MAX: usize = 16;
/// With so many bytes waiting, no more are fetched.
const ENOUGH_BYTES: usize = 64 << 10;
/// What a connection may keep while it waits.
const IDLE_BYTES_MAX: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn sent(body: Body, encoding: Encoding) -> (Vec<u8>, bool) {
        let mut out = Vec::new();
        let mut output = Output::default();
        let mut outgoing = Outgoing::new(body, encoding);
        let whole = poll_fn(|cx| {
            loop {
                let pulled = outgoing.poll_pull(&mut output, cx);
                ready!(output.poll_flush(&mut out, cx)).expect("memory takes it");
                match pulled {
                    Pulled::Enough => {}
                    Pulled::Pending => return Poll::Pending,
                    Pulled::Done => return Poll::Ready(true),
                    Pulled::Broken(_) => return Poll::Ready(false),
                }
            }
        });
        let whole = whole.await;
        assert!(output.is_empty());
        (out, whole)
    }

    fn pieces() -> Body {
        let large = Bytes::from(vec![b'x'; 100_000]);
        Body::pieces([Bytes::from_static(b"ab"), large, Bytes::from_static(b"cd")])
    }

    #[tokio::test]
    async fn pieces_go_out_in_order() {
        let expected = [&b"ab"[..], &[b'x'; 100_000], b"cd"].concat();
        let (out, whole) = sent(pieces(), Encoding::Length(100_004)).await;
        assert!(whole && out == expected);
        let (out, whole) = sent(pieces(), Encoding::UntilClose).await;
        assert!(whole && out == expected);
        let (out, whole) = sent(pieces(), Encoding::Chunked).await;
        let chunked = [
            &b"2\r\nab\r\n186a0\r\n"[..],
            &[b'x'; 100_000],
            b"\r\n2\r\ncd\r\n0\r\n\r\n",
        ]
        .concat();
        assert!(whole && out == chunked);
    }

    #[tokio::test]
    async fn a_body_of_the_wrong_length_is_broken() {
        assert!(!sent(pieces(), Encoding::Length(100_005)).await.1);
        assert!(!sent(pieces(), Encoding::Length(100_003)).await.1);
    }

    /// A reader who is always one piece behind.
    #[test]
    fn what_was_written_is_not_kept() {
        let mut output = Output::default();
        let mut written = 0;
        for _ in 0..10_000 {
            output.push(Bytes::from(vec![b'x'; 1000]));
            while output.len() > 1000 {
                output.consume(999);
                written += 999;
            }
            assert!(
                output.tail.len() < 2 * ENOUGH_BYTES,
                "{}",
                output.tail.len()
            );
        }
        assert_eq!(written + output.len(), 10_000_000);
    }

    #[test]
    fn partial_writes_go_on_where_they_stopped() {
        let mut output = Output::default();
        output.write(|out| out.extend_from_slice(b"head"));
        output.push(Bytes::from(vec![b'x'; 5000]));
        output.push(Bytes::from_static(b"tail"));
        let mut out = Vec::new();
        while !output.is_empty() {
            let pieces: Vec<u8> = output
                .queue
                .iter()
                .flat_map(|piece| piece.iter().copied())
                .chain(output.tail[output.tail_written..].iter().copied())
                .collect();
            let step = pieces.len().min(7);
            out.extend_from_slice(&pieces[..step]);
            output.consume(step);
        }
        assert_eq!(out, [&b"head"[..], &[b'x'; 5000], b"tail"].concat());
    }
}
