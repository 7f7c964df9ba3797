//! What the fuzz target `session` does with its bytes: a place to cut, then what each side of a
//! WebSocket says.
//!
//! Where bytes are cut makes no difference, and messages are those that a reader finds who has all
//! bytes at once. Where a close frame may follow, it is read as one.

use crate::{Sender, SessionClose, SessionMeter, close_frame, stream::websocket::Frames};

/// A text or not, and its bytes.
type Message = (bool, Vec<u8>);

/// # Panics
///
/// Something was read otherwise than it stands there.
pub fn session(data: &[u8]) {
    let [low, high, bytes @ ..] = data else {
        return;
    };
    let cut = usize::from(u16::from_le_bytes([*low, *high])).min(bytes.len());
    let (first, rest) = bytes.split_at(cut);
    assert_eq!(messages(&[first, rest]), all_at_once(bytes));
    let (whole, cut) = (meter(&[bytes]), meter(&[first, rest]));
    assert_eq!(seen(&whole), seen(&cut));
    if whole.may_close_to_client() {
        let mut meter = whole;
        meter.on_server(&close_frame(Sender::Server, 1001, "gone"));
        assert_eq!(meter.closed_by_server(), Some(SessionClose::Fault));
        assert!(!meter.may_close_to_client());
    }
    if cut.may_close_to_server() {
        let mut meter = cut;
        meter.on_client(&close_frame(Sender::Client, 1000, ""));
        assert!(meter.is_closed_by_client() && !meter.may_close_to_server());
    }
}

/// Both sides say `pieces`.
fn meter(pieces: &[&[u8]]) -> SessionMeter {
    let mut meter = SessionMeter::default();
    for piece in pieces {
        meter.on_server(piece);
        meter.on_client(piece);
    }
    meter
}

/// All that a meter tells.
fn seen(meter: &SessionMeter) -> impl PartialEq + std::fmt::Debug + use<> {
    (
        (meter.opening(), meter.usage(), meter.closed_by_server()),
        (meter.is_closed_by_client(), meter.may_close_to_client()),
        meter.may_close_to_server(),
    )
}

fn messages(pieces: &[&[u8]]) -> (Vec<Message>, Option<u16>) {
    let (mut frames, mut found, mut open) = (Frames::default(), Vec::new(), Vec::new());
    for bytes in pieces {
        frames.push(bytes, |piece| {
            open.extend_from_slice(piece.bytes);
            if piece.is_last {
                found.push((piece.is_text, std::mem::take(&mut open)));
            }
        });
    }
    (found, frames.close_code())
}

/// RFC 6455 §5.2, for who has everything.
fn all_at_once(mut bytes: &[u8]) -> (Vec<Message>, Option<u16>) {
    let (mut found, mut open, mut is_text) = (Vec::new(), Vec::new(), false);
    while let Some((opcode, is_final, is_extended, payload)) = take_frame(&mut bytes) {
        match opcode {
            // Too long, or in pieces: whatever follows cannot be trusted.
            8.. if !is_final || payload.len() > 125 => break,
            8 => {
                return (
                    found,
                    payload.first_chunk().map(|code| u16::from_be_bytes(*code)),
                );
            }
            9.. => continue,
            1 | 2 => is_text = opcode == 1 && !is_extended,
            _ => {}
        }
        open.extend_from_slice(payload);
        if is_final {
            found.push((is_text, std::mem::take(&mut open)));
        }
    }
    (found, None)
}

/// The next frame, if all of it is there: its opcode, whether it ends a message, whether it uses an
/// extension, and its payload.
fn take_frame<'b>(bytes: &mut &'b [u8]) -> Option<(u8, bool, bool, &'b [u8])> {
    let mut rest = *bytes;
    let mut take = |length: usize| {
        let (taken, left) = rest.split_at_checked(length)?;
        rest = left;
        Some(taken)
    };
    let &[first, second] = take(2)? else {
        return None;
    };
    let length = match second & 0x7f {
        126 => u64::from(u16::from_be_bytes(*take(2)?.first_chunk()?)),
        127 => u64::from_be_bytes(*take(8)?.first_chunk()?),
        short => u64::from(short),
    };
    if second & 0x80 != 0 {
        take(4)?;
    }
    let payload = take(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some((first & 0x0f, first & 0x80 != 0, first & 0x70 != 0, payload))
}
