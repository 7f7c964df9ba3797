//! A client's connection, watched where the HTTP library does not look.
//!
//! Two things are noticed here. A request head that carries both `Content-Length` and
//! `Transfer-Encoding`: the library drops the length and goes on, but such a request is refused,
//! because whatever stands in front of us may have believed the length. And a client that does
//! not read: when a write makes no progress for the send limit, the connection ends.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use memchr::memmem;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

/// A connection from a client.
pub(crate) struct GuardedIo<S> {
    stream: S,
    head: Arc<HeadFlags>,
    partial: Vec<u8>,
    send_limit: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

/// What the reader and the service tell each other.
#[derive(Debug)]
pub(crate) struct HeadFlags {
    expected: AtomicBool,
    ambiguous: AtomicBool,
}

impl HeadFlags {
    /// Whether the head that was just parsed had two lengths. Heads are looked at again only
    /// after [`Self::expect_head`].
    pub(crate) fn take_ambiguous(&self) -> bool {
        self.ambiguous.swap(false, Ordering::Relaxed)
    }

    /// The next bytes belong to a new request.
    pub(crate) fn expect_head(&self) {
        self.expected.store(true, Ordering::Relaxed);
    }
}

impl<S> GuardedIo<S> {
    /// Watches `stream`; a write that stalls for `send_limit` fails.
    pub(crate) fn new(stream: S, send_limit: Duration) -> Self {
        let head = Arc::new(HeadFlags {
            expected: AtomicBool::new(true),
            ambiguous: AtomicBool::new(false),
        });
        Self {
            stream,
            head,
            partial: Vec::new(),
            send_limit,
            stalled: None,
        }
    }

    /// The flags to share with the service.
    pub(crate) fn flags(&self) -> Arc<HeadFlags> {
        Arc::clone(&self.head)
    }

    fn look(&mut self, bytes: &[u8]) {
        if !self.head.expected.load(Ordering::Relaxed) {
            return;
        }
        let verdict = if self.partial.is_empty() {
            inspect(bytes)
        } else {
            self.partial.extend_from_slice(bytes);
            inspect(&self.partial)
        };
        match verdict {
            Some(ambiguous) => {
                self.head.ambiguous.store(ambiguous, Ordering::Relaxed);
                self.head.expected.store(false, Ordering::Relaxed);
                self.partial = Vec::new();
            }
            None if self.partial.len() > HEAD_BYTES_MAX => {
                // Longer than the HTTP library accepts: it refuses the request by itself.
                self.head.expected.store(false, Ordering::Relaxed);
                self.partial = Vec::new();
            }
            None if self.partial.is_empty() => self.partial.extend_from_slice(bytes),
            None => {}
        }
    }

    /// A write made no progress: how long has that been so?
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let limit = self.send_limit;
        let timer = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client does not read",
        ))
    }

    fn after_write<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stalled = None;
            return result;
        }
        self.poll_stall(cx).map(Err)
    }
}

/// `None` while the head is not complete; else whether it has both kinds of length.
fn inspect(bytes: &[u8]) -> Option<bool> {
    let end = memmem::find(bytes, b"\r\n\r\n").or_else(|| memmem::find(bytes, b"\n\n"))?;
    let (mut length, mut encoding) = (false, false);
    for line in bytes[..end].split(|byte| *byte == b'\n').skip(1) {
        let Some(colon) = memchr::memchr(b':', line) else {
            continue;
        };
        match line[..colon].trim_ascii() {
            name if name.eq_ignore_ascii_case(b"content-length") => length = true,
            name if name.eq_ignore_ascii_case(b"transfer-encoding") => encoding = true,
            _ => {}
        }
    }
    Some(length && encoding)
}

impl<S: AsyncRead + Unpin> AsyncRead for GuardedIo<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let result = Pin::new(&mut this.stream).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = result {
            this.look(&buf.filled()[before..]);
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for GuardedIo<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.after_write(cx, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.after_write(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_flush(cx);
        this.after_write(cx, result)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// Bytes of an incomplete head that are kept; above what the HTTP library buffers.
const HEAD_BYTES_MAX: usize = 512 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_lengths_are_seen_in_any_order_and_case() {
        let check = |head: &str, expected| {
            assert_eq!(inspect(head.as_bytes()), expected, "{head:?}");
        };
        check("POST / HTTP/1.1\r\nHost: a\r\n", None);
        check("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n", Some(false));
        check(
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            Some(false),
        );
        check(
            "POST / HTTP/1.1\r\nTRANSFER-encoding: chunked\r\ncontent-LENGTH: 3\r\n\r\n",
            Some(true),
        );
        check(
            "POST / HTTP/1.1\r\nX: content-length: 3\r\nTransfer-Encoding: x\r\n\r\n",
            Some(false),
        );
        check(
            "POST / HTTP/1.1\nContent-Length:1\nTransfer-Encoding:chunked\n\n",
            Some(true),
        );
    }
}
