//! Frames of a WebSocket (RFC 6455 §5.2), from bytes that arrive in any pieces.
//!
//! Nothing is kept but a frame's head: payloads are handed on as they come. Extensions are not
//! known here; a message that uses one is no text.

/// Follows one direction of a WebSocket.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frames {
    /// The head of a frame that is not complete.
    head: [u8; HEAD_BYTES_MAX],
    filled: usize,
    /// The frame whose payload is under way.
    frame: Option<Payload>,
    /// The message that is under way is text.
    is_text: bool,
    /// Of a close frame.
    close: Vec<u8>,
    state: State,
}

/// The rest of a frame.
#[derive(Clone, Copy, Debug)]
struct Payload {
    opcode: u8,
    ends_message: bool,
    left: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// A close frame has passed.
    Closed,
    /// The bytes are no frames.
    Broken,
}

/// A piece of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    /// The message is text, and not changed by an extension.
    pub(crate) is_text: bool,
    /// As it came: what clients send is masked.
    pub(crate) bytes: &'a [u8],
    /// The message ends with it.
    pub(crate) is_last: bool,
}

impl Frames {
    /// Takes the next bytes; `on_piece` gets what belongs to messages.
    pub(crate) fn push(&mut self, mut bytes: &[u8], mut on_piece: impl FnMut(Piece<'_>)) {
        while self.state == State::Open && !bytes.is_empty() {
            let Some(mut frame) = self.frame.take() else {
                bytes = self.fill_head(bytes);
                // An empty payload is complete with its head.
                if self.frame.is_some_and(|frame| frame.left == 0) {
                    self.pass(&[], &mut on_piece);
                }
                continue;
            };
            let here =
                usize::try_from(frame.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            let (payload, rest) = bytes.split_at(here);
            frame.left -= here as u64;
            self.frame = Some(frame);
            self.pass(payload, &mut on_piece);
            bytes = rest;
        }
    }

    /// Whether a frame of somebody else's may follow what has passed.
    pub(crate) fn may_be_closed(&self) -> bool {
        self.state == State::Open && self.filled == 0 && self.frame.is_none()
    }

    /// Whether a close frame has passed.
    pub(crate) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// The code of the close frame that has passed, if it had one.
    pub(crate) fn close_code(&self) -> Option<u16> {
        let code = self.close.first_chunk().filter(|_| self.is_closed())?;
        Some(u16::from_be_bytes(*code))
    }

    /// Takes what belongs to a frame's head; the rest of `bytes`.
    fn fill_head<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        while let Some((first, rest)) = bytes.split_first() {
            self.head[self.filled] = *first;
            self.filled += 1;
            bytes = rest;
            if self.filled >= 2 && self.filled == head_length(self.head[1]) {
                self.begin();
                break;
            }
        }
        bytes
    }

    /// A head is complete.
    fn begin(&mut self) {
        let [first, second] = [self.head[0], self.head[1]];
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let left = match second & 0x7f {
            126 => number(&self.head[2..4]),
            127 => number(&self.head[2..10]),
            short => u64::from(short),
        };
        self.filled = 0;
        let (opcode, ends_message) = (first & 0x0f, first & 0x80 != 0);
        let is_control = opcode >= 8;
        if is_control && (left > CONTROL_BYTES_MAX || !ends_message) {
            self.state = State::Broken;
            return;
        }
        if matches!(opcode, 1 | 2) {
            self.is_text = opcode == 1 && first & 0x70 == 0;
        }
        self.frame = Some(Payload {
            opcode,
            ends_message,
            left,
        });
    }

    /// Hands on a part of the current frame's payload; the frame is over when nothing is left of it.
    fn pass(&mut self, bytes: &[u8], on_piece: &mut impl FnMut(Piece<'_>)) {
        let Some(frame) = self.frame else { return };
        let is_over = frame.left == 0;
        if frame.opcode == CLOSE {
            self.close.extend_from_slice(bytes);
        } else if frame.opcode < CLOSE {
            on_piece(Piece {
                is_text: self.is_text,
                bytes,
                is_last: is_over && frame.ends_message,
            });
        }
        if is_over {
            self.frame = None;
            if frame.opcode == CLOSE {
                self.state = State::Closed;
            }
        }
    }
}

/// Who sends a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Whoever asked for the WebSocket: its frames are masked.
    Client,
    /// Whoever has granted it.
    Server,
}

/// A close frame of `sender`'s. A reason longer than a control frame takes is cut.
pub fn close_frame(sender: Sender, code: u16, reason: &str) -> Vec<u8> {
    let mut end = reason.len().min(CONTROL_BYTES_MAX as usize - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let reason = &reason.as_bytes()[..end];
    let length = reason.len() as u8 + 2;
    let mut frame = vec![0x80 | CLOSE];
    match sender {
        Sender::Server => frame.push(length),
        // Masks keep a client's words from being taken for others by what stands between; these
        // words are ours, so that any mask will do, and this one changes nothing.
        Sender::Client => frame.extend([0x80 | length, 0, 0, 0, 0]),
    }
    frame.extend(code.to_be_bytes());
    frame.extend(reason);
    frame
}

/// The length of a head whose second byte is `second`.
fn head_length(second: u8) -> usize {
    let length = match second & 0x7f {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    length + if second & 0x80 == 0 { 0 } else { 4 }
}

const CLOSE: u8 = 8;

/// The most that the payload of a close, ping or pong takes.
const CONTROL_BYTES_MAX: u64 = 125;

const HEAD_BYTES_MAX: usize = 14;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], messages: &[(&str, bool)], code: Option<u16>) {
        for cut in 0..=bytes.len() {
            let (mut frames, mut found, mut open) = (Frames::default(), Vec::new(), Vec::new());
            for part in [&bytes[..cut], &bytes[cut..]] {
                frames.push(part, |piece| {
                    open.extend_from_slice(piece.bytes);
                    if piece.is_last {
                        let text = String::from_utf8(std::mem::take(&mut open)).expect("text");
                        found.push((text, piece.is_text));
                    }
                });
            }
            let found: Vec<_> = found.iter().map(|(text, kind)| (&**text, *kind)).collect();
            assert_eq!(found, messages, "cut at {cut}");
            assert_eq!(frames.close_code(), code, "cut at {cut}");
        }
    }

    #[test]
    fn messages_are_found_however_they_are_cut() {
        check(b"\x81\x02hi\x82\x01!", &[("hi", true), ("!", false)], None);
        // A ping between two fragments, and one that is empty.
        check(
            b"\x01\x01h\x89\x01p\x80\x01i\x89\x00\x81\x00",
            &[("hi", true), ("", true)],
            None,
        );
        // Compressed ones are no text.
        check(b"\xc1\x02hi", &[("hi", false)], None);
        let long = [b"\x81\x7e\x01\x00".as_slice(), &[b'a'; 256]].concat();
        check(&long, &[(&"a".repeat(256), true)], None);
        let longer = [b"\x81\x7f\0\0\0\0\0\0\0\x03abc".as_slice(), b"\x81\x00"].concat();
        check(&longer, &[("abc", true), ("", true)], None);
        // Nothing counts after a close.
        check(b"\x88\x02\x03\xe8\x81\x02hi", &[], Some(1000));
        check(b"\x88\x00", &[], None);
        // A ping that is too long is none.
        check(b"\x89\x7e\x00\x01\x81\x02hi", &[], None);
    }

    #[test]
    fn a_close_frame_is_read_again() {
        for sender in [Sender::Client, Sender::Server] {
            let frame = close_frame(sender, 1011, &"ä".repeat(100));
            let mut frames = Frames::default();
            frames.push(&frame, |_| panic!("no message"));
            assert_eq!(
                (frames.close_code(), frames.is_closed()),
                (Some(1011), true)
            );
            assert!(std::str::from_utf8(&frames.close[2..]).is_ok());
            assert!(frames.close.len() <= 125);
        }
    }

    #[test]
    fn between_frames_there_is_room_for_another() {
        let mut frames = Frames::default();
        for (byte, expected) in b"\x81\x82mmmmhi".iter().zip([false; 8]) {
            assert!(frames.may_be_closed() || !expected);
            frames.push(&[*byte], |_| ());
        }
        assert!(frames.may_be_closed());
        frames.push(b"\x81", |_| ());
        assert!(!frames.may_be_closed());
        frames.push(b"\x02h", |_| ());
        assert!(!frames.may_be_closed());
        frames.push(b"i", |_| ());
        assert!(frames.may_be_closed());
    }
}
