//! What plugins make of a response's body as a whole.
//!
//! The body still goes through the relay, so that what it tells (tokens, evidence, limits) is told as
//! ever; only what the client gets is another. It is gathered if somebody wants to change it, up to a
//! limit, and let go of as it arrives if it is replaced. Either way the client gets the new body when
//! the old one has ended, so a stream is none any more.

use bytes::{Bytes, BytesMut};

use super::Cut;

/// A change of a whole body.
pub enum BodyChange {
    /// Another body instead.
    Replace(Bytes),
    /// What a function makes of it.
    Edit {
        /// Bytes that it, and what is made of it, may have.
        limit: u64,
        /// The function.
        edit: Edit,
    },
}

/// Makes a new body of a whole one, or says that it would be too long.
pub type Edit = Box<dyn FnOnce(Bytes) -> Result<Bytes, TooLong>>;

/// A body would be longer than its limit allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// A body that is being changed.
pub(super) struct Rewriting {
    changes: Vec<BodyChange>,
    gathered: BytesMut,
}

impl Rewriting {
    /// One that is to get all `changes`, in order; `None` without any.
    pub(super) fn of(mut changes: Vec<BodyChange>) -> Option<Self> {
        let is_replaced = |change: &BodyChange| matches!(change, BodyChange::Replace(_));
        // What came before the last replacement makes no difference.
        if let Some(last) = changes.iter().rposition(is_replaced) {
            changes.drain(..last);
        }
        (!changes.is_empty()).then_some(Self {
            changes,
            gathered: BytesMut::new(),
        })
    }

    /// Takes `data` in.
    pub(super) fn push(&mut self, data: &[u8]) -> Result<(), Cut> {
        let Some(BodyChange::Edit { limit, .. }) = self.changes.first() else {
            return Ok(());
        };
        if (self.gathered.len() + data.len()) as u64 > *limit {
            return Err(Cut::Rewriting);
        }
        self.gathered.extend_from_slice(data);
        Ok(())
    }

    /// What has become of it.
    pub(super) fn finish(self) -> Result<Bytes, Cut> {
        let whole = self.gathered.freeze();
        (self.changes.into_iter()).try_fold(whole, |body, change| match change {
            BodyChange::Replace(other) => Ok(other),
            BodyChange::Edit { edit, .. } => edit(body).map_err(|TooLong| Cut::Rewriting),
        })
    }

    /// How long it will be, if that is known already.
    pub(super) fn length(&self) -> Option<u64> {
        match self.changes.as_slice() {
            [BodyChange::Replace(other)] => Some(other.len() as u64),
            _ => None,
        }
    }
}
