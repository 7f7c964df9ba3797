//! A connection and the bytes that came in on it and have not been used.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{BufMut, Bytes};
use tokio::io::AsyncRead;

use super::buffer;

/// A connection with its unread input.
pub(crate) struct Wire<S> {
    pub(crate) stream: S,
    /// Bytes that have arrived and that nobody has taken.
    pub(crate) input: Bytes,
}

impl<S> Wire<S> {
    /// A connection on which `input` has already arrived.
    pub(crate) fn new(stream: S, input: Bytes) -> Self {
        Self { stream, input }
    }
}

impl<S: AsyncRead + Unpin> Wire<S> {
    /// Reads what is there, once, and adds it to the input. 0 is the end.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.clear();
            if scratch.capacity() == 0 {
                *scratch = buffer::take(READ_BYTES);
            }
            let read = ready!(tokio_util::io::poll_read_buf(
                Pin::new(&mut self.stream),
                cx,
                &mut scratch.limit(READ_BYTES)
            ))?;
            if !self.input.is_empty() {
                // What was left is the start of a line or a head: short.
                self.input = Bytes::from([&self.input[..], scratch].concat());
            } else if read < buffer::LARGE_BYTES {
                self.input = Bytes::copy_from_slice(scratch);
            } else {
                self.input = buffer::share(std::mem::take(scratch));
            }
            Poll::Ready(Ok(read))
        })
    }

    /// Reads into `buffer` until it holds `total` bytes. 0 is the end.
    ///
    /// A little more is asked for than is missing: a read that does not fill its buffer tells
    /// that nothing is left, which would otherwise take one more read to find out.
    pub(crate) fn poll_fill_into(
        &mut self,
        buffer: &mut Vec<u8>,
        total: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let missing = total + BEYOND_BYTES - buffer.len();
        buffer.reserve(missing);
        let mut room = (&mut *buffer).limit(missing);
        let read = ready!(tokio_util::io::poll_read_buf(
            Pin::new(&mut self.stream),
            cx,
            &mut room
        ))?;
        if let Some(beyond) = buffer.get(total..).filter(|beyond| !beyond.is_empty()) {
            self.input = Bytes::copy_from_slice(beyond);
            buffer.truncate(total);
        }
        Poll::Ready(Ok(read))
    }
}

/// What is asked for beyond the end of a body.
pub(crate) const BEYOND_BYTES: usize = 1 << 10;

thread_local! {
    /// One read buffer for all connections of a thread: it stays in the cache, and a connection
    /// that waits needs none. What it holds is copied out if it is little, and otherwise given
    /// away with the buffer.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The most that one read takes, in bytes: a prompt of 32 KiB and its head come in one.
const READ_BYTES: usize = 34 << 10;
