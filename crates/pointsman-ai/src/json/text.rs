//! What JSON strings say, however they are spelt.
//!
//! RFC 8259 lets an escape name half of a surrogate pair, and a number be larger than any type.
//! Our walk accepts both, because they pass through us; most parsers refuse the whole text for
//! them. So nothing here fails: what no text can hold becomes U+FFFD.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

/// The text that stands between quotes.
pub(crate) fn unescape(inside: &[u8]) -> Cow<'_, str> {
    if memchr(b'\\', inside).is_none() {
        return String::from_utf8_lossy(inside);
    }
    let mut text = String::with_capacity(inside.len());
    let mut rest = inside;
    while let Some(plain) = memchr(b'\\', rest) {
        text.push_str(&String::from_utf8_lossy(&rest[..plain]));
        let (character, length) = escape(&rest[plain..]);
        text.push(character);
        rest = &rest[plain + length..];
    }
    text.push_str(&String::from_utf8_lossy(rest));
    Cow::Owned(text)
}

/// What the JSON string `value` (with its quotes) says; `None` when it is not a string.
pub(crate) fn text(value: &[u8]) -> Option<Cow<'_, str>> {
    Some(unescape(value.strip_prefix(b"\"")?.strip_suffix(b"\"")?))
}

/// Whether the JSON string `value` (with its quotes) says `expected`.
pub(crate) fn says(value: &[u8], expected: &str) -> bool {
    let inside = value
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""));
    inside.is_some_and(|inside| match memchr(b'\\', inside) {
        Some(_) => says_escaped(inside, expected),
        None => inside == expected.as_bytes(),
    })
}

/// Whether `inside`, which has escapes, says `expected`.
#[cold]
pub(super) fn says_escaped(inside: &[u8], expected: &str) -> bool {
    // An escape stands for at least one byte and takes at most six for it. What is longer is not
    // looked at: clients send long keys, and many.
    inside.len() <= expected.len() * 6 && unescape(inside) == expected
}

/// JSON that says the same as `json` and that common parsers take: half a surrogate pair becomes
/// U+FFFD, a number that is beyond an `f64` becomes a string.
///
/// `json` must be JSON; of anything else only the length of what comes out is certain to be
/// reasonable.
pub fn readable(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len());
    let mut rest = json;
    while let Some(first) = rest.first() {
        let length = match first {
            b'"' => copy_string(rest, &mut out),
            b'-' | b'0'..=b'9' => copy_number(rest, &mut out),
            _ => {
                out.push(*first);
                1
            }
        };
        rest = &rest[length..];
    }
    out
}

/// Copies the string at the start of `rest`; returns how long it was.
fn copy_string(rest: &[u8], out: &mut Vec<u8>) -> usize {
    out.push(b'"');
    let mut at = 1;
    while let Some(plain) = memchr2(b'"', b'\\', &rest[at..]) {
        out.extend_from_slice(&rest[at..at + plain]);
        at += plain;
        if rest[at] == b'"' {
            out.push(b'"');
            return at + 1;
        }
        let (character, length) = escape(&rest[at..]);
        match character {
            char::REPLACEMENT_CHARACTER => out.extend_from_slice(b"\\ufffd"),
            _ => out.extend_from_slice(&rest[at..at + length]),
        }
        at += length;
    }
    out.extend_from_slice(&rest[at..]);
    rest.len()
}

/// Copies the number at the start of `rest`; returns how long it was.
fn copy_number(rest: &[u8], out: &mut Vec<u8>) -> usize {
    let is_in_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
    let length = rest.iter().take_while(|byte| is_in_number(byte)).count();
    let number = std::str::from_utf8(&rest[..length]).unwrap_or_default();
    if number.parse::<f64>().is_ok_and(f64::is_finite) {
        out.extend_from_slice(number.as_bytes());
    } else {
        out.push(b'"');
        out.extend_from_slice(number.as_bytes());
        out.push(b'"');
    }
    length
}

/// The character that the escape at the start of `rest` stands for, and the escape's length.
fn escape(rest: &[u8]) -> (char, usize) {
    let character = match rest.get(1) {
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return unicode_escape(rest),
        Some(byte) if byte.is_ascii() => char::from(*byte),
        _ => return (char::REPLACEMENT_CHARACTER, 1),
    };
    (character, 2)
}

/// The same for an escape that begins with `\u`, or for two that make a pair.
fn unicode_escape(rest: &[u8]) -> (char, usize) {
    let Some(first) = unit(rest) else {
        return (char::REPLACEMENT_CHARACTER, 2);
    };
    if let (0xd800..0xdc00, Some(second @ 0xdc00..0xe000)) = (first, unit(&rest[6..])) {
        let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        return (char::from_u32(code).unwrap_or_default(), 12);
    }
    let character = char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER);
    (character, 6)
}

/// The number in the `\u` escape at the start of `rest`.
fn unit(rest: &[u8]) -> Option<u32> {
    let digits = rest.strip_prefix(b"\\u")?.first_chunk::<4>()?;
    digits.iter().try_fold(0, |number, digit| {
        Some(number << 4 | char::from(*digit).to_digit(16)?)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn escapes_say_what_they_stand_for() {
        let check = |inside: &str, expected: &str| {
            assert_eq!(unescape(inside.as_bytes()), expected, "{inside}");
            assert!(
                says(format!("\"{inside}\"").as_bytes(), expected),
                "{inside}"
            );
        };
        check("", "");
        check("é", "é");
        check(r#"a\"\\\/\b\f\n\r\tz"#, "a\"\\/\u{8}\u{c}\n\r\tz");
        check(r"\u00e9\uD83D\uDE80 \ud83d\ude80", "é🚀 🚀");
        // Half of a pair, wherever it stands.
        check(r"a\ud83d", "a\u{fffd}");
        check(r"\ud83dz", "\u{fffd}z");
        check(r"\ude80\ud83d", "\u{fffd}\u{fffd}");
        check(r"\ud83d\ud83d\ude80", "\u{fffd}🚀");
        check(r"\ud83d\n", "\u{fffd}\n");
        assert!(!says(br#""\\n""#, "\n"));
        assert!(!says(br#""\n""#, "\\n"));
        assert!(!says(b"a", "a"));
        assert_eq!((text(b"\"a\"").as_deref(), text(b"1")), (Some("a"), None));
    }

    #[test]
    fn what_parsers_refuse_is_made_readable() {
        let check = |json: &str, expected: &str| {
            let readable = readable(json.as_bytes());
            assert_eq!(String::from_utf8_lossy(&readable), expected, "{json}");
            assert!(serde_json::from_slice::<Value>(&readable).is_ok(), "{json}");
        };
        check(
            r#"{"a\ud83d": ["\ud83d\ude80\"", 1e999, -1E+999, 1e-999]}"#,
            r#"{"a\ufffd": ["\ud83d\ude80\"", "1e999", "-1E+999", 1e-999]}"#,
        );
        check(r#"["1e999", "\\ud83d"]"#, r#"["1e999", "\\ud83d"]"#);
    }

    proptest! {
        /// Where the library has an opinion, it is ours.
        #[test]
        fn agrees_with_a_parser(text in "([a-zé🚀/ ]|\\\\[\"\\\\/bfnrt]|\\\\u[0-9a-fA-F]{4}|\\\\ud83d\\\\ude80){0,20}") {
            let quoted = format!("\"{text}\"");
            let inside = &quoted.as_bytes()[1..quoted.len() - 1];
            if let Ok(theirs) = serde_json::from_str::<String>(&quoted) {
                prop_assert_eq!(unescape(inside), theirs);
                prop_assert_eq!(serde_json::from_slice::<Value>(&readable(quoted.as_bytes())).ok(), serde_json::from_str::<Value>(&quoted).ok());
            }
            if super::super::visit(quoted.as_bytes(), drop).is_ok() {
                prop_assert!(serde_json::from_slice::<Value>(&readable(quoted.as_bytes())).is_ok());
            }
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = unescape(&bytes);
            let _ = text(&bytes);
            prop_assert!(readable(&bytes).len() <= bytes.len() * 4);
        }
    }
}
