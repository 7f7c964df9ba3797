//! Large buffers that are used again.
//!
//! A prompt of some tens of kilobytes needs a buffer that the allocator would give back to the
//! system and fetch again, page by page, for the next one. The buffer used last is handed out
//! first: it is the one that is still in the processor's cache.

use std::cell::RefCell;

use bytes::Bytes;

/// An empty buffer with room for `bytes`.
pub(crate) fn take(bytes: usize) -> Vec<u8> {
    let fits = bytes..=(4 * bytes).max(STEP_BYTES);
    let spare = SPARE.with_borrow_mut(|spare| {
        let place = spare
            .iter()
            .rposition(|buffer| fits.contains(&buffer.capacity()))?;
        Some(spare.remove(place))
    });
    spare.unwrap_or_else(|| Vec::with_capacity(bytes.next_multiple_of(STEP_BYTES)))
}

/// The contents of `buffer`; when the last reference is gone, the buffer is there to be taken.
pub(crate) fn share(buffer: Vec<u8>) -> Bytes {
    Bytes::from_owner(Recycled(buffer))
}

/// Gives one unused buffer of this thread back to the system. Call it now and then, so that
/// memory follows the load down.
pub(crate) fn trim() {
    SPARE.with_borrow_mut(|spare| {
        if !spare.is_empty() {
            spare.remove(0);
        }
    });
}

struct Recycled(Vec<u8>);

impl AsRef<[u8]> for Recycled {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Recycled {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.0);
        if buffer.capacity() > BUFFER_BYTES_MAX + STEP_BYTES {
            return;
        }
        buffer.clear();
        // At the end of a thread there is nobody left to use it again.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            let kept: usize = spare.iter().map(Vec::capacity).sum();
            if kept + buffer.capacity() <= SPARE_BYTES_MAX {
                spare.push(buffer);
            }
        });
    }
}

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Buffers differ by at least so much, so that one fits the next body too.
const STEP_BYTES: usize = 32 << 10;
/// What a thread keeps.
const SPARE_BYTES_MAX: usize = 8 << 20;
/// From here on a buffer is given away; what is shorter is copied out of it.
pub(crate) const LARGE_BYTES: usize = 16 << 10;
/// A buffer larger than this is not kept.
pub(crate) const BUFFER_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_its_last_reader_is_gone() {
        let mut buffer = take(100_000);
        buffer.extend_from_slice(b"abc");
        let place = buffer.as_ptr();
        let bytes = share(buffer);
        let part = bytes.slice(1..);
        drop(bytes);
        assert_eq!(&part[..], b"bc");
        let other = take(100_000);
        assert_ne!(other.as_ptr(), place);
        drop(part);
        let again = take(50_000);
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
        drop(share(again));
        trim();
        assert_eq!(take(10).capacity(), STEP_BYTES);
    }
}
