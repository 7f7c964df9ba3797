//! JSON strings that are passed on as they are spelt.

use std::borrow::Cow;

use super::text::{says_escaped, unescape};

/// The inside of a JSON string, escapes as they stand.
///
/// Text that goes from one JSON body into another is never decoded, so every spelling survives,
/// half surrogate pairs included. Two are equal if they say the same.
#[derive(Clone, Debug, Default)]
pub struct JsonStr<'a>(Cow<'a, str>);

impl<'a> JsonStr<'a> {
    /// What stands between the quotes of a JSON string that has been checked.
    pub(crate) fn spelt(inside: &'a str) -> Self {
        Self(Cow::Borrowed(inside))
    }

    /// The same for a text that is owned.
    pub(crate) fn spelt_owned(inside: String) -> Self {
        Self(Cow::Owned(inside))
    }

    /// The string that says `plain`.
    pub fn new(plain: &'a str) -> Self {
        if plain.bytes().any(must_be_escaped) {
            let mut spelt = Vec::with_capacity(plain.len() + 8);
            escape_into(&mut spelt, plain);
            // Escaping leaves UTF-8 as it is and adds ASCII.
            return Self(Cow::Owned(String::from_utf8_lossy(&spelt).into_owned()));
        }
        Self(Cow::Borrowed(plain))
    }

    /// What it says; what no text can hold becomes U+FFFD.
    pub fn decode(&self) -> Cow<'_, str> {
        unescape(self.0.as_bytes())
    }

    /// As it stands between the quotes.
    pub(crate) fn as_spelt(&self) -> &str {
        &self.0
    }

    /// A part of it, by places in [`Self::as_spelt`] that stand between characters and escapes.
    pub(crate) fn slice(&self, range: std::ops::Range<usize>) -> Self {
        match &self.0 {
            Cow::Borrowed(all) => Self(Cow::Borrowed(&all[range])),
            Cow::Owned(all) => Self(Cow::Owned(all[range].to_owned())),
        }
    }

    /// Whether it says `expected`.
    pub fn is(&self, expected: &str) -> bool {
        *self.0 == *expected && !self.0.contains('\\')
            || self.0.contains('\\') && says_escaped(self.0.as_bytes(), expected)
    }

    /// It says nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// It says nothing but blanks.
    pub fn is_blank(&self) -> bool {
        // Most texts show by their first letter that they are not.
        match self.0.trim_ascii_start().as_bytes().first() {
            None => true,
            Some(b'\\' | 0x80..) => self.decode().trim().is_empty(),
            Some(_) => false,
        }
    }

    /// All of `parts`, with `separator` (plain text that needs no escapes) between them.
    pub fn concat<'p>(parts: impl IntoIterator<Item = &'p Self>, separator: &str) -> Self
    where
        'a: 'p,
    {
        let mut parts = parts.into_iter();
        let Some(first) = parts.next() else {
            return Self::default();
        };
        let mut all = first.0.clone();
        for part in parts {
            let all = all.to_mut();
            all.push_str(separator);
            all.push_str(&part.0);
        }
        Self(all)
    }

    /// Appends what `more` says.
    pub fn push(&mut self, more: &JsonStr<'_>) {
        if !more.is_empty() {
            self.0.to_mut().push_str(&more.0);
        }
    }

    /// The same, owning its text.
    pub fn into_owned(self) -> JsonStr<'static> {
        JsonStr(Cow::Owned(self.0.into_owned()))
    }
}

impl From<String> for JsonStr<'static> {
    /// The string that says `plain`.
    fn from(plain: String) -> Self {
        match JsonStr::new(&plain).0 {
            Cow::Owned(spelt) => JsonStr(Cow::Owned(spelt)),
            Cow::Borrowed(_) => JsonStr(Cow::Owned(plain)),
        }
    }
}

impl PartialEq for JsonStr<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 || self.decode() == other.decode()
    }
}

impl Eq for JsonStr<'_> {}

fn must_be_escaped(byte: u8) -> bool {
    matches!(byte, b'"' | b'\\' | 0..=0x1f)
}

/// Appends `plain` as the inside of a JSON string.
pub(crate) fn escape_into(out: &mut Vec<u8>, plain: &str) {
    let mut rest = plain.as_bytes();
    while let Some(at) = rest.iter().position(|byte| must_be_escaped(*byte)) {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(control >> 4)]);
                out.push(HEX[usize::from(control & 15)]);
            }
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_say_what_they_say_however_they_are_spelt() {
        assert_eq!(JsonStr::spelt("\\u0061b"), JsonStr::new("ab"));
        assert!(JsonStr::spelt("\\u0061b").is("ab"));
        assert!(!JsonStr::spelt("\\u0061b").is("\\u0061b"));
        assert!(JsonStr::new("a\"b\n\u{1}").is("a\"b\n\u{1}"));
        assert_eq!(JsonStr::new("a\"b\n\u{1}").as_spelt(), "a\\\"b\\n\\u0001");
        assert_eq!(JsonStr::from("ü\\".to_owned()).decode(), "ü\\");
        let parts = [JsonStr::spelt("a\\n"), JsonStr::new("b")];
        assert_eq!(JsonStr::concat(&parts, " ").decode(), "a\n b");
        assert_ne!(JsonStr::new("a"), JsonStr::new("b"));
        for (text, is_blank) in [
            ("", true),
            (" \\n\u{a0}", true),
            (" \\u0061", false),
            (" ü", false),
        ] {
            assert_eq!(JsonStr::spelt(text).is_blank(), is_blank, "{text}");
        }
    }
}
