//! Event streams of AWS (`application/vnd.amazon.eventstream`), from bytes that arrive in any pieces
//! and back.
//!
//! A frame is its total length, the length of its headers and the CRC-32 of both, the headers, the
//! payload, and the CRC-32 of all before; numbers are big-endian (AWS, "Event stream encoding").
//! Lengths or checks that do not fit mean that the place of the next frame is unknown: nothing of
//! what follows can be read.

/// Cuts bytes into frames.
#[derive(Clone, Debug, Default)]
pub(crate) struct Decoder {
    /// Of a frame that is not complete.
    carried: Vec<u8>,
    broken: bool,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// An event of this type, and its payload.
    Event(&'a [u8], &'a [u8]),
    /// An exception or error of this type, and its payload.
    Exception(&'a [u8], &'a [u8]),
    /// The bytes are no event stream from here on.
    Broken(&'static str),
}

impl Decoder {
    /// Takes the next bytes; `on_frame` gets each frame that is complete by now.
    pub(crate) fn push(&mut self, bytes: &[u8], mut on_frame: impl FnMut(Frame<'_>)) {
        if self.broken {
            return;
        }
        let mut carried = std::mem::take(&mut self.carried);
        let mut rest = if carried.is_empty() {
            bytes
        } else {
            carried.extend_from_slice(bytes);
            &carried[..]
        };
        loop {
            match frame(rest) {
                Ok(None) => break,
                Ok(Some((frame, length))) => {
                    on_frame(frame);
                    rest = &rest[length..];
                }
                Err(what) => {
                    self.broken = true;
                    on_frame(Frame::Broken(what));
                    return;
                }
            }
        }
        if rest.len() == carried.len() {
            self.carried = carried;
        } else {
            self.carried = rest.to_vec();
        }
    }

    /// Bytes of a frame that has not ended.
    pub(crate) fn pending(&self) -> usize {
        self.carried.len()
    }
}

/// The frame at the start of `bytes` and its length; `None` if it is not complete.
fn frame(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, &'static str> {
    let Some(prelude) = bytes.first_chunk::<PRELUDE>() else {
        return Ok(None);
    };
    let total = number(prelude, 0);
    let headers = number(prelude, 4);
    if crc32fast::hash(&prelude[..8]) as usize != number(prelude, 8) {
        return Err("a frame's beginning fails its check");
    }
    if total > FRAME_BYTES_MAX {
        return Err("a frame is too large");
    }
    if total < PRELUDE + CHECK || headers > total - PRELUDE - CHECK {
        return Err("a frame's lengths cannot be");
    }
    let Some(frame) = bytes.get(..total) else {
        return Ok(None);
    };
    let (checked, check) = frame.split_at(total - CHECK);
    if crc32fast::hash(checked) as usize != number(check, 0) {
        return Err("a frame fails its check");
    }
    let (headers, payload) = checked[PRELUDE..].split_at(headers);
    let named = Named::read(headers).ok_or("a frame's headers cannot be read")?;
    let frame = match named.message {
        b"exception" => Frame::Exception(named.exception, payload),
        b"error" => Frame::Exception(named.code, payload),
        _ => Frame::Event(named.event, payload),
    };
    Ok(Some((frame, total)))
}

/// The headers that say what a frame is.
#[derive(Default)]
struct Named<'a> {
    message: &'a [u8],
    event: &'a [u8],
    exception: &'a [u8],
    code: &'a [u8],
}

impl<'a> Named<'a> {
    fn read(mut headers: &'a [u8]) -> Option<Self> {
        let mut named = Self::default();
        while let Some((length, rest)) = headers.split_first() {
            let (name, rest) = rest.split_at_checked(usize::from(*length))?;
            let (kind, rest) = rest.split_first()?;
            let (skipped, length) = match kind {
                0 | 1 => (0, 0),
                2 => (0, 1),
                3 => (0, 2),
                4 => (0, 4),
                5 | 8 => (0, 8),
                9 => (0, 16),
                6 | 7 => {
                    let length = rest.first_chunk::<2>()?;
                    (2, usize::from(u16::from_be_bytes(*length)))
                }
                _ => return None,
            };
            let (value, rest) = rest.get(skipped..)?.split_at_checked(length)?;
            match name {
                b":message-type" => named.message = value,
                b":event-type" => named.event = value,
                b":exception-type" => named.exception = value,
                b":error-code" => named.code = value,
                _ => {}
            }
            headers = rest;
        }
        Some(named)
    }
}

fn number(bytes: &[u8], at: usize) -> usize {
    let bytes = bytes.get(at..).and_then(|bytes| bytes.first_chunk::<4>());
    bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes) as usize)
}

/// Appends an event of type `name` whose payload, JSON, `write` appends.
pub(crate) fn write_event(out: &mut Vec<u8>, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
    write_frame(out, ":event-type", name, "event", write);
}

/// Appends an exception of type `name` whose payload, JSON, `write` appends.
pub(crate) fn write_exception(out: &mut Vec<u8>, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
    write_frame(out, ":exception-type", name, "exception", write);
}

fn write_frame(
    out: &mut Vec<u8>,
    type_header: &str,
    name: &str,
    message: &str,
    write: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    out.extend_from_slice(&[0; PRELUDE]);
    for (name, value) in [
        (type_header, name),
        (":content-type", "application/json"),
        (":message-type", message),
    ] {
        let (name, value) = (name.as_bytes(), value.as_bytes());
        out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(name);
        out.push(7);
        out.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend_from_slice(value);
    }
    let headers = out.len() - start - PRELUDE;
    write(out);
    let total = out.len() - start + CHECK;
    out[start..start + 4].copy_from_slice(&word(total));
    out[start + 4..start + 8].copy_from_slice(&word(headers));
    let check = crc32fast::hash(&out[start..start + 8]);
    out[start + 8..start + PRELUDE].copy_from_slice(&check.to_be_bytes());
    let check = crc32fast::hash(&out[start..]);
    out.extend_from_slice(&check.to_be_bytes());
}

fn word(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

/// Bytes in front of the headers.
const PRELUDE: usize = 12;
/// Bytes of the check at the end.
const CHECK: usize = 4;
/// The longest frame (AWS).
const FRAME_BYTES_MAX: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Vec<u8> {
        let mut stream = Vec::new();
        write_event(&mut stream, "messageStart", |out| {
            out.extend_from_slice(br#"{"role":"assistant"}"#);
        });
        write_event(&mut stream, "metadata", |_| {});
        write_exception(&mut stream, "throttlingException", |out| {
            out.extend_from_slice(br#"{"message":"slow"}"#);
        });
        stream
    }

    fn read(pieces: &[&[u8]]) -> Vec<String> {
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        for piece in pieces {
            decoder.push(piece, |frame| {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                frames.push(match frame {
                    Frame::Event(name, payload) => format!("{} {}", text(name), text(payload)),
                    Frame::Exception(name, payload) => {
                        format!("! {} {}", text(name), text(payload))
                    }
                    Frame::Broken(what) => format!("broken: {what}"),
                });
            });
        }
        frames
    }

    #[test]
    fn frames_are_read_however_they_are_cut() {
        let stream = example();
        let expected = [
            r#"messageStart {"role":"assistant"}"#,
            "metadata ",
            r#"! throttlingException {"message":"slow"}"#,
        ];
        for cut in 0..=stream.len() {
            let (left, right) = stream.split_at(cut);
            assert_eq!(read(&[left, right]), expected, "cut at {cut}");
        }
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(read(&single), expected);
    }

    /// The example frame of AWS's specification: no headers, payload `{'foo':'bar'}`.
    #[test]
    fn the_specifications_own_frame() {
        let frame = [
            0, 0, 0, 0x1d, 0, 0, 0, 0, 0xfd, 0x52, 0x8c, 0x5a, 0x7b, 0x27, 0x66, 0x6f, 0x6f, 0x27,
            0x3a, 0x27, 0x62, 0x61, 0x72, 0x27, 0x7d, 0xc3, 0x65, 0x39, 0x36,
        ];
        assert_eq!(read(&[&frame]), [" {'foo':'bar'}"]);
    }

    #[test]
    fn nothing_is_read_behind_what_is_broken() {
        let stream = example();
        for at in 0..stream.len() {
            let mut damaged = stream.clone();
            damaged[at] ^= 0x20;
            let frames = read(&[&damaged]);
            let last = frames.last().unwrap();
            assert!(last.starts_with("broken: "), "byte {at}: {frames:?}");
        }
        let mut decoder = Decoder::default();
        decoder.push(&stream[..5], |_| {});
        assert_eq!(decoder.pending(), 5);
    }
}
