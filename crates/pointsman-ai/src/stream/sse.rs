//! Server-sent events, from bytes that arrive in any pieces (WHATWG HTML §9.2.6).
//!
//! Line ends may be LF, CR or CRLF, also mixed; a leading byte order mark and comments are
//! ignored; field names are accepted in any case, because some gateways change it. An event that
//! grows beyond [`EVENT_BYTES_MAX`], or what its stream allows, is given up and skipped; the bytes themselves are somebody
//! else's and pass on untouched.

use memchr::{memchr, memchr2};

use crate::Protocol;

/// Cuts bytes into events.
#[derive(Clone, Debug)]
pub struct Decoder {
    /// The most that one event may hold.
    limit: usize,
    line: Vec<u8>,
    event: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    skipping: bool,
    after_cr: bool,
    started: bool,
    overflows: u64,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::with_events_of(EVENT_BYTES_MAX)
    }
}

impl Decoder {
    /// For a stream whose events may hold `limit` bytes each.
    pub fn with_events_of(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            event: Vec::new(),
            data: Vec::new(),
            has_data: false,
            skipping: false,
            after_cr: false,
            started: false,
            overflows: 0,
        }
    }

    /// Takes the next bytes; `on_event` gets the type (empty for the default) and data of each
    /// event that is complete by now.
    pub fn push(&mut self, mut bytes: &[u8], mut on_event: impl FnMut(&[u8], &[u8])) {
        if !self.started && !bytes.is_empty() {
            self.skip_mark(&mut bytes);
        }
        if std::mem::take(&mut self.after_cr) && bytes.first() == Some(&b'\n') {
            bytes = &bytes[1..];
        }
        while let Some(end) = memchr2(b'\n', b'\r', bytes) {
            if self.line.is_empty() {
                self.take_line(&bytes[..end], &mut on_event);
            } else {
                self.grow_line(&bytes[..end]);
                let line = std::mem::take(&mut self.line);
                self.take_line(&line, &mut on_event);
                self.line = emptied(line);
            }
            let was_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if was_cr {
                match bytes.first() {
                    Some(b'\n') => bytes = &bytes[1..],
                    Some(_) => {}
                    None => self.after_cr = true,
                }
            }
        }
        self.grow_line(bytes);
    }

    /// Bytes of an event that has not ended.
    pub fn pending(&self) -> usize {
        self.line.len() + self.data.len()
    }

    /// Events that were given up because they grew too large.
    pub fn overflows(&self) -> u64 {
        self.overflows
    }

    /// A byte order mark at the start, whole or in pieces.
    fn skip_mark(&mut self, bytes: &mut &[u8]) {
        const MARK: &[u8] = b"\xef\xbb\xbf";
        let seen = self.line.len();
        let expected = &MARK[seen.min(MARK.len())..];
        let common = expected
            .iter()
            .zip(bytes.iter())
            .take_while(|(a, b)| a == b)
            .count();
        if common == expected.len() {
            self.line.clear();
            *bytes = &bytes[common..];
            self.started = true;
        } else if common < bytes.len() {
            self.started = true;
        }
    }

    fn grow_line(&mut self, bytes: &[u8]) {
        if self.line.len() + self.data.len() + bytes.len() > self.limit {
            self.give_up();
            // Something must stay in the line, or its end would look like the end of the event.
            self.line.push(b':');
            return;
        }
        self.line.extend_from_slice(bytes);
    }

    fn give_up(&mut self) {
        if !self.skipping {
            self.overflows += 1;
        }
        self.skipping = true;
        self.line = Vec::new();
        self.data = Vec::new();
        self.has_data = false;
    }

    fn take_line(&mut self, line: &[u8], on_event: &mut impl FnMut(&[u8], &[u8])) {
        if line.is_empty() {
            if self.has_data && !self.skipping {
                on_event(&self.event, &self.data);
            }
            self.event.clear();
            self.data = emptied(std::mem::take(&mut self.data));
            self.has_data = false;
            self.skipping = false;
            return;
        }
        if self.skipping || line[0] == b':' {
            return;
        }
        let (name, value) = match memchr(b':', line) {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &line[line.len()..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        if name.eq_ignore_ascii_case(b"data") {
            if self.data.len() + value.len() > self.limit {
                self.give_up();
                return;
            }
            if self.has_data {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(value);
            self.has_data = true;
        } else if name.eq_ignore_ascii_case(b"event") {
            self.event.clear();
            self.event.extend_from_slice(value);
        }
    }
}

/// Ready for the next. What a large event took is not kept.
fn emptied(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.capacity() > EVENT_BYTES_MAX {
        return Vec::new();
    }
    bytes.clear();
    bytes
}

/// The most that one event of a stream in `protocol` may hold: those of Responses say a whole answer again.
pub(crate) fn event_bytes_max(protocol: Protocol) -> usize {
    match protocol {
        Protocol::OpenaiResponses => ANSWER_BYTES_MAX,
        _ => EVENT_BYTES_MAX,
    }
}

/// As much as a frame of AWS's.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// The most that one event may hold.
pub const EVENT_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<(String, String)> {
        let mut decoder = Decoder::default();
        let mut events = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        for piece in pieces {
            decoder.push(piece, |event, data| events.push((text(event), text(data))));
        }
        events
    }

    fn check(stream: &str, expected: &[(&str, &str)]) {
        let expected: Vec<(String, String)> = expected
            .iter()
            .map(|(e, d)| ((*e).to_owned(), (*d).to_owned()))
            .collect();
        assert_eq!(events([stream.as_bytes()]), expected, "{stream:?}");
        for cut in 0..=stream.len() {
            let (head, tail) = stream.as_bytes().split_at(cut);
            assert_eq!(events([head, tail]), expected, "{stream:?} cut at {cut}");
        }
        assert_eq!(
            events(stream.as_bytes().chunks(1)),
            expected,
            "{stream:?} byte by byte"
        );
    }

    #[test]
    fn events_in_all_their_forms() {
        check("data: a\n\ndata: b\n\n", &[("", "a"), ("", "b")]);
        check("data:a\r\n\r\n", &[("", "a")]);
        check("data: a\r\rdata: b\r\r", &[("", "a"), ("", "b")]);
        check("data: a\n\r\ndata: b\r\n\n", &[("", "a"), ("", "b")]);
        check("event: x\ndata: 1\ndata: 2\n\n", &[("x", "1\n2")]);
        check(
            ": comment\n\n:\ndata: a\nid: 5\nretry: 1\nfoo\n\n",
            &[("", "a")],
        );
        check("\u{feff}data: a\n\n", &[("", "a")]);
        check("EVENT: x\nData: 1\n\n", &[("x", "1")]);
        check("data\n\n", &[("", "")]);
        check("event: x\n\ndata: 1\n\n", &[("", "1")]);
        check("data: no end", &[]);
        check("data: no blank line\n", &[]);
        check("data:  two\n\n", &[("", " two")]);
    }

    #[test]
    fn an_event_without_end_is_given_up_and_the_next_one_is_read() {
        let mut decoder = Decoder::default();
        let mut seen = Vec::new();
        decoder.push(b"data: ", |_, _| {});
        for _ in 0..40 {
            decoder.push(&[b'x'; 64 << 10], |_, data| seen.push(data.len()));
        }
        assert!(decoder.pending() <= EVENT_BYTES_MAX);
        decoder.push(b"\ndata: more\n\ndata: next\n\n", |_, data| {
            seen.push(data.len())
        });
        assert_eq!((seen, decoder.overflows()), (vec![4], 1));
    }

    /// However the bytes come, whole lines among them, the event after a large one is read.
    #[test]
    fn an_event_too_large_takes_no_other_with_it() {
        let line = format!("data: {}", "x".repeat(EVENT_BYTES_MAX + 1));
        let half = format!("data: {}", "x".repeat(EVENT_BYTES_MAX / 2 + 1));
        for event in [
            line.clone(),
            format!("{half}\n{half}"),
            format!("{line}\ndata: more"),
        ] {
            for end in ["\n\n", "\r\n\r\n", "\r\r"] {
                let stream = format!("{event}{end}data: next{end}");
                let at = event.len();
                for cuts in [
                    vec![],
                    vec![at],
                    vec![at + 1],
                    vec![at - 1, at + 1],
                    vec![7, at + 2],
                ] {
                    let mut decoder = Decoder::default();
                    let mut seen = Vec::new();
                    let mut from = 0;
                    for to in cuts.iter().copied().chain([stream.len()]) {
                        decoder.push(&stream.as_bytes()[from..to], |_, data| {
                            seen.push(String::from_utf8_lossy(data).into_owned());
                        });
                        from = to;
                    }
                    let found = (seen, decoder.overflows(), decoder.pending());
                    assert_eq!(found, (vec!["next".to_owned()], 1, 0), "{end:?} {cuts:?}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(stream in "(data: ?|event: |:|[ab]|\n|\r|\r\n|\u{feff}){0,30}", cuts in proptest::collection::vec(0usize..200, 0..6)) {
            let whole = events([stream.as_bytes()]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&stream.as_bytes()[from..cut]);
                from = cut;
            }
            pieces.push(&stream.as_bytes()[from..]);
            prop_assert_eq!(events(pieces), whole);
        }
    }
}
