//! The body of a message, read from its connection by whoever wants it.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::AsyncRead;

use super::{
    buffer,
    decoder::{Decoder, Malformed, Step},
    wire::{BEYOND_BYTES, Wire},
};

/// Reads one body.
pub(crate) struct BodyReader {
    decoder: Decoder,
    /// Hold frames back until there are so many bytes, if the body is at least that long.
    gather: usize,
    /// What has been gathered, and of how many bytes.
    large: Option<(Vec<u8>, usize)>,
    /// Bytes have arrived that nobody was given yet.
    moved: bool,
    /// It ended because the peer closed.
    ended_by_close: bool,
}

/// Why a body cannot be read to its end.
#[derive(Debug)]
pub(crate) enum ReadFault {
    /// The peer closed before the end.
    Closed,
    /// The connection failed.
    Io(io::Error),
    /// The framing is not HTTP.
    Malformed(&'static str),
}

impl BodyReader {
    /// A reader for a body framed as `decoder` says.
    pub(crate) fn new(decoder: Decoder) -> Self {
        Self {
            decoder,
            gather: 0,
            large: None,
            moved: false,
            ended_by_close: false,
        }
    }

    /// Whoever reads wants the whole body anyway: one of up to `bytes` may come in one piece.
    pub(crate) fn gather(&mut self, bytes: usize) {
        self.gather = bytes.min(buffer::BUFFER_BYTES_MAX);
    }

    /// Whether bytes have arrived since this was last asked that came to no frame.
    pub(crate) fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Whether the end of the body was the peer's close, and nothing else told it.
    pub(crate) fn ended_by_close(&self) -> bool {
        self.ended_by_close
    }

    /// Whether the body has been read to its end.
    pub(crate) fn is_done(&self) -> bool {
        self.decoder.is_done() && self.large.is_none()
    }

    /// Bytes still to come, if that is known.
    pub(crate) fn remaining(&self) -> Option<u64> {
        let gathered = self.large.as_ref().map_or(0, |(_, total)| *total as u64);
        self.decoder.remaining().map(|left| left + gathered)
    }

    /// The next bytes, never none; `None` at the end.
    pub(crate) fn poll_next<S: AsyncRead + Unpin>(
        &mut self,
        wire: &mut Wire<S>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, ReadFault>> {
        if self.large.is_none()
            && self
                .decoder
                .remaining()
                .is_some_and(|left| self.gathers(left, wire))
        {
            self.begin_large(wire);
        }
        if self.large.is_some() {
            return self.poll_large(wire, cx);
        }
        loop {
            match self.decoder.step(&mut wire.input) {
                Ok(Step::Data(data)) => return Poll::Ready(Ok(Some(data))),
                Ok(Step::End) => return Poll::Ready(Ok(None)),
                Ok(Step::More) => {}
                Err(Malformed(what)) => return Poll::Ready(Err(ReadFault::Malformed(what))),
            }
            match ready!(wire.poll_fill(cx)) {
                Ok(0) if self.decoder == Decoder::UntilClose => {
                    self.decoder = Decoder::Length(0);
                    self.ended_by_close = true;
                    return Poll::Ready(Ok(None));
                }
                Ok(0) => return Poll::Ready(Err(ReadFault::Closed)),
                Ok(_) => self.moved = true,
                Err(error) => return Poll::Ready(Err(ReadFault::Io(error))),
            }
        }
    }

    /// Whether a body with `left` bytes to come is read into a buffer of its own: it is wanted in
    /// one piece, and not all of it is here.
    fn gathers<S>(&self, left: u64, wire: &Wire<S>) -> bool {
        left <= self.gather as u64 && left > wire.input.len() as u64
    }

    fn begin_large<S>(&mut self, wire: &mut Wire<S>) {
        let Decoder::Length(left) = &mut self.decoder else {
            return;
        };
        let Ok(total) = usize::try_from(*left) else {
            return;
        };
        let mut large = buffer::take(total + BEYOND_BYTES);
        large.extend_from_slice(&std::mem::take(&mut wire.input));
        *left = 0;
        self.large = Some((large, total));
    }

    fn poll_large<S: AsyncRead + Unpin>(
        &mut self,
        wire: &mut Wire<S>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, ReadFault>> {
        let Some((large, total)) = &mut self.large else {
            return Poll::Ready(Ok(None));
        };
        while large.len() < *total {
            match ready!(wire.poll_fill_into(large, *total, cx)) {
                Ok(0) => return Poll::Ready(Err(ReadFault::Closed)),
                Ok(_) => self.moved = true,
                Err(error) => return Poll::Ready(Err(ReadFault::Io(error))),
            }
        }
        let whole = self.large.take().map(|(large, _)| buffer::share(large));
        Poll::Ready(Ok(whole))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn read(
        pieces: &[&[u8]],
        decoder: Decoder,
        gather: usize,
    ) -> (Vec<Bytes>, Result<(), String>, Bytes) {
        let mut script = tokio_test::io::Builder::new();
        for piece in pieces {
            script.read(piece);
        }
        let mut wire = Wire::new(script.build(), Bytes::from_static(b"ab"));
        let mut reader = BodyReader::new(decoder);
        reader.gather(gather);
        let mut frames = Vec::new();
        loop {
            match poll_fn(|cx| reader.poll_next(&mut wire, cx)).await {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return (frames, Ok(()), wire.input.clone()),
                Err(fault) => return (frames, Err(format!("{fault:?}")), wire.input.clone()),
            }
        }
    }

    #[tokio::test]
    async fn a_body_comes_in_one_piece_when_that_is_wanted() {
        let (frames, end, _) = read(&[b"cde", b"fg"], Decoder::Length(7), 100).await;
        assert_eq!(
            (frames, end),
            (vec![Bytes::from_static(b"abcdefg")], Ok(()))
        );
        let (frames, end, rest) = read(&[b"cde", b"fgNEXT"], Decoder::Length(7), 0).await;
        assert_eq!(frames.len(), 3);
        assert_eq!((end, &rest[..]), (Ok(()), &b"NEXT"[..]));
        // Too long to be gathered, but for its rest.
        let (frames, ..) = read(&[b"cde", b"fg"], Decoder::Length(7), 6).await;
        assert_eq!(frames, ["ab", "cdefg"]);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_an_error() {
        for gather in [0, 100] {
            let (_, end, _) = read(&[b"cde"], Decoder::Length(7), gather).await;
            assert_eq!(end, Err("Closed".to_owned()));
        }
        let (frames, end, _) = read(&[b"cde"], Decoder::UntilClose, 0).await;
        assert_eq!((frames.len(), end), (2, Ok(())));
    }
}
