//! HTTP/1.1 on a connection, for both sides of the gateway: heads, framing, buffers.
//!
//! A connection belongs to one task. Whoever needs the next bytes of a body reads them from the
//! socket itself; there is no dispatcher in between, no channel and no second task. Reads go
//! through one buffer per thread, which stays in the processor's cache, and only what arrived is
//! kept, so an idle connection holds no memory. A large body with a known length is read straight
//! into a buffer of its own, which is used again when the body is gone.
//!
//! Head syntax is left to `httparse`, header and target types to `http`. HTTP/2 is not here.

pub(crate) mod alarm;
pub(crate) mod buffer;
pub(crate) mod decoder;
pub(crate) mod encode;
pub(crate) mod head;
pub(crate) mod outgoing;
pub(crate) mod reader;
pub(crate) mod wire;
