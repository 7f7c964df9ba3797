//! A JSON array that comes in pieces, element by element: how `streamGenerateContent` answers
//! without `alt=sse`.
//!
//! The decoder looks for the ends of elements and for nothing else; whether an element is JSON is
//! for whoever reads it. One that grows beyond [`ELEMENT_BYTES_MAX`] is given up and skipped. A value
//! that stands alone, such as the error of a server in front, counts as an element.

use memchr::memchr2;

/// The most that one element may hold, in bytes: as much as an event of another stream.
pub const ELEMENT_BYTES_MAX: usize = super::sse::EVENT_BYTES_MAX;

/// Cuts bytes into elements.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    /// The beginning of an element whose end has not come.
    element: Vec<u8>,
    place: Place,
    /// Brackets and braces that are open within the element.
    depth: usize,
    /// The next byte of a string stands behind a backslash.
    is_escaped: bool,
    is_skipping: bool,
    overflows: u64,
}

/// Where the next byte stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// In front of the array.
    #[default]
    Before,
    /// In the array, between elements.
    Between,
    /// In an element, but in no string.
    Element,
    /// In a string of an element.
    Text,
    /// Behind the array.
    After,
}

impl Decoder {
    /// Takes the next bytes; `on_element` gets each element that is complete by now.
    pub fn push(&mut self, bytes: &[u8], mut on_element: impl FnMut(&[u8])) {
        // Where the element that is open begins in `bytes`.
        let mut from = 0;
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            match self.place {
                Place::After => return,
                Place::Before | Place::Between => {
                    from = at;
                    self.between(*byte);
                    if matches!(self.place, Place::Element | Place::Text) {
                        continue;
                    }
                    at += 1;
                }
                Place::Text => at += self.text(&bytes[at..]),
                Place::Element => {
                    // The end of a bare number or word is the first byte behind it.
                    let (ends, is_inside) = self.element(*byte);
                    at += usize::from(is_inside);
                    if ends {
                        self.complete(&bytes[from..at], &mut on_element);
                        if !is_inside {
                            self.between(*byte);
                            at += 1;
                        }
                    }
                }
            }
        }
        if matches!(self.place, Place::Element | Place::Text) {
            self.grow(&bytes[from.min(bytes.len())..]);
        }
    }

    /// Bytes of an element that has not ended.
    pub fn pending(&self) -> usize {
        self.element.len()
    }

    /// Elements that were given up because they grew too large.
    pub fn overflows(&self) -> u64 {
        self.overflows
    }

    fn between(&mut self, byte: u8) {
        match (byte, self.place) {
            (b' ' | b'\n' | b'\r' | b'\t' | b',', _) => {}
            // A byte order mark.
            (0xef | 0xbb | 0xbf, Place::Before) => {}
            (b'[', Place::Before) => self.place = Place::Between,
            (b']', _) => self.place = Place::After,
            _ => self.place = Place::Element,
        }
    }

    /// How many bytes of `rest` belong to the string that is open.
    fn text(&mut self, rest: &[u8]) -> usize {
        if std::mem::take(&mut self.is_escaped) {
            return 1;
        }
        let Some(end) = memchr2(b'"', b'\\', rest) else {
            return rest.len();
        };
        match rest[end] {
            b'\\' => self.is_escaped = true,
            _ => self.place = Place::Element,
        }
        end + 1
    }

    /// Whether the element ends at `byte`, and whether `byte` belongs to it.
    fn element(&mut self, byte: u8) -> (bool, bool) {
        match byte {
            b'"' => self.place = Place::Text,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' if self.depth > 0 => {
                self.depth -= 1;
                return (self.depth == 0, true);
            }
            b',' | b']' if self.depth == 0 => return (true, false),
            _ => {}
        }
        (false, true)
    }

    fn complete(&mut self, end: &[u8], on_element: &mut impl FnMut(&[u8])) {
        self.place = Place::Between;
        if self.element.is_empty() && !self.is_skipping && end.len() <= ELEMENT_BYTES_MAX {
            return on_element(end.trim_ascii_end());
        }
        self.grow(end);
        if !std::mem::take(&mut self.is_skipping) {
            on_element(self.element.trim_ascii_end());
        }
        self.element.clear();
    }

    fn grow(&mut self, bytes: &[u8]) {
        if self.is_skipping {
            return;
        }
        if self.element.len() + bytes.len() > ELEMENT_BYTES_MAX {
            self.overflows += 1;
            self.is_skipping = true;
            self.element = Vec::new();
            return;
        }
        self.element.extend_from_slice(bytes);
    }
}

/// Writes an array, element by element.
#[derive(Clone, Copy, Debug, Default)]
pub struct Encoder {
    has_begun: bool,
}

impl Encoder {
    /// Appends what stands in front of the next element.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        let before: &[u8] = match std::mem::replace(&mut self.has_begun, true) {
            true => b",\r\n",
            false => b"[",
        };
        out.extend_from_slice(before);
    }

    /// Appends the end of the array.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.has_begun, true) {
            out.push(b'[');
        }
        out.extend_from_slice(b"]");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn elements<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let mut decoder = Decoder::default();
        let mut elements = Vec::new();
        for piece in pieces {
            decoder.push(piece, |element| {
                elements.push(String::from_utf8_lossy(element).into_owned());
            });
        }
        elements
    }

    fn check(stream: &str, expected: &[&str]) {
        assert_eq!(elements([stream.as_bytes()]), expected, "{stream:?}");
        for cut in 0..=stream.len() {
            let (head, tail) = stream.as_bytes().split_at(cut);
            assert_eq!(elements([head, tail]), expected, "{stream:?} cut at {cut}");
        }
        let bytes = stream.as_bytes().chunks(1);
        assert_eq!(elements(bytes), expected, "{stream:?} byte by byte");
    }

    #[test]
    fn elements_in_all_their_forms() {
        check(
            "[{\"a\": 1}\n,\r\n{\"b\": 2}\n]\n",
            &["{\"a\": 1}", "{\"b\": 2}"],
        );
        check(
            r#"[{"a":"]},{\"\\"},[[],"x"]]"#,
            &[r#"{"a":"]},{\"\\"}"#, r#"[[],"x"]"#],
        );
        check(
            "[1 ,true,\"a,]\\\"\", null]",
            &["1", "true", "\"a,]\\\"\"", "null"],
        );
        check("[]", &[]);
        check("", &[]);
        check("\u{feff} [{}]", &["{}"]);
        check("{\"error\":{}}", &["{\"error\":{}}"]);
        check("[{}] {}", &["{}"]);
        check("[{\"a\":[", &[]);
    }

    #[test]
    fn an_element_without_end_is_given_up_and_the_next_one_is_read() {
        let mut decoder = Decoder::default();
        let mut seen = Vec::new();
        decoder.push(b"[{\"a\":\"", |_| {});
        for _ in 0..40 {
            decoder.push(&[b'x'; 64 << 10], |element| seen.push(element.len()));
            assert!(decoder.pending() <= ELEMENT_BYTES_MAX);
        }
        decoder.push(b"\"},{}]", |element| seen.push(element.len()));
        assert_eq!((seen, decoder.overflows()), (vec![2], 1));
        let whole = format!("[\"{}\",7]", "x".repeat(ELEMENT_BYTES_MAX));
        let mut decoder = Decoder::default();
        let mut seen = Vec::new();
        decoder.push(whole.as_bytes(), |element| seen.push(element.len()));
        assert_eq!(
            (seen, decoder.overflows(), decoder.pending()),
            (vec![1], 1, 0)
        );
    }

    #[test]
    fn what_is_written_is_an_array() {
        let mut out = Vec::new();
        let mut encoder = Encoder::default();
        for element in ["1", "2"] {
            encoder.begin(&mut out);
            out.extend_from_slice(element.as_bytes());
        }
        encoder.end(&mut out);
        assert_eq!(out, b"[1,\r\n2]");
        out.clear();
        Encoder::default().end(&mut out);
        assert_eq!(out, b"[]");
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(stream in r#"\[?([\[\]{}",\\ a1]|"[a,\]}]*"){0,30}"#, cuts in proptest::collection::vec(0usize..200, 0..6)) {
            let whole = elements([stream.as_bytes()]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&stream.as_bytes()[from..cut]);
                from = cut;
            }
            pieces.push(&stream.as_bytes()[from..]);
            prop_assert_eq!(elements(pieces), whole);
        }
    }
}
