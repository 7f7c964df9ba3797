//! What loggers learn of a request's body that nobody reads as a whole.
//!
//! On a plain upstream a body is passed on while it arrives. When a logger wants its size, or its
//! first bytes, it is watched in passing; when none does, there is no [`Intake`] and the body is
//! not wrapped at all.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use crate::body::{Body, Observed};

/// What has arrived of a request.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    /// Bytes of the head, before plugins changed it.
    pub(super) head_bytes: u64,
    body_bytes: Cell<u64>,
    kept: RefCell<Vec<u8>>,
    /// Bytes of the body to keep at most.
    keep_max: Cell<usize>,
}

impl Intake {
    /// Knows a head of `head_bytes` bytes and nothing of the body yet.
    pub(super) fn new(head_bytes: u64) -> Self {
        Self {
            head_bytes,
            ..Self::default()
        }
    }

    /// Keeps `bytes` of the body, or more if somebody else wants more.
    pub(super) fn keep(&self, bytes: usize) {
        self.keep_max.set(self.keep_max.get().max(bytes));
    }

    /// Bytes of the body that have been passed on.
    pub(super) fn body_bytes(&self) -> u64 {
        self.body_bytes.get()
    }

    /// The first `max` bytes of the body, as far as they were kept.
    pub(super) fn kept(&self, max: usize) -> Vec<u8> {
        let kept = self.kept.borrow();
        kept[..kept.len().min(max)].to_vec()
    }

    /// `body`, watched if it arrives while it is passed on.
    pub(super) fn watching(self: &Rc<Self>, body: Body) -> Body {
        match body {
            Body::Stream(stream) => {
                let intake = Rc::clone(self);
                Body::Stream(Box::pin(Observed::new(stream, move |data| {
                    intake.pass(data);
                    Ok(())
                })))
            }
            other => other,
        }
    }

    fn pass(&self, data: &[u8]) {
        self.body_bytes
            .set(self.body_bytes.get() + data.len() as u64);
        let mut kept = self.kept.borrow_mut();
        let room = self.keep_max.get().saturating_sub(kept.len());
        kept.extend_from_slice(&data[..room.min(data.len())]);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        pin::Pin,
        task::{Context, Poll},
    };

    use bytes::Bytes;
    use http_body::{Body as HttpBody, Frame};

    use super::*;
    use crate::body::{Arriving, BodyError, collect};

    struct Frames(VecDeque<&'static [u8]>);

    impl HttpBody for Frames {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            let next = self.0.pop_front();
            Poll::Ready(next.map(|data| Ok(Frame::data(Bytes::from_static(data)))))
        }
    }

    impl Arriving for Frames {}

    /// G-203
    #[tokio::test]
    async fn a_body_passes_unchanged_and_its_beginning_is_kept() {
        let intake = Rc::new(Intake::new(100));
        intake.keep(7);
        intake.keep(3);
        let frames = Frames(VecDeque::from([&b"hello "[..], b"", b"world"]));
        let mut body = intake.watching(Body::Stream(Box::pin(frames)));
        let passed = collect(&mut body, None, 100).await.expect("whole");
        assert_eq!(passed, "hello world");
        assert_eq!(intake.body_bytes(), 11);
        assert_eq!(intake.kept(100), b"hello w");
        assert_eq!(intake.kept(2), b"he");
    }
}
