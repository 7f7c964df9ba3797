//! A walk over JSON text that checks everything and builds nothing.
//!
//! Prompts are long strings in a shallow structure, so the walk is mostly a search for the next
//! quote. It accepts exactly RFC 8259; the members of the outermost object are noted by their
//! place in the text.

mod scan;
#[cfg(test)]
mod tests;

use std::ops::Range;

/// Text that is not JSON, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Invalid {
    /// What is wrong.
    pub(crate) what: &'static str,
    /// Byte offset.
    pub(crate) offset: usize,
}

/// A member of an object: places in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// The key between its quotes, escapes as they are.
    pub(crate) key: Range<usize>,
    /// The value, without white space around it.
    pub(crate) value: Range<usize>,
    /// The key has escapes: what it says is not what stands there.
    escaped: bool,
}

impl Member {
    /// Whether this member of `text` is called `name`.
    #[inline]
    pub(crate) fn is(&self, text: &[u8], name: &str) -> bool {
        if self.escaped {
            return self.is_once_unescaped(text, name);
        }
        self.key.len() == name.len() && text[self.key.clone()] == *name.as_bytes()
    }

    #[cold]
    fn is_once_unescaped(&self, text: &[u8], name: &str) -> bool {
        unescape(&text[self.key.clone()]).is_some_and(|key| key == name)
    }
}

/// What the outermost value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An object, and whether it has members.
    Object,
    /// An array, and whether it is empty.
    Array {
        /// It has no items.
        empty: bool,
    },
    /// Anything else.
    Other,
}

/// The outermost value of a text.
#[derive(Clone, Debug)]
pub(crate) struct Outline {
    /// What it is.
    pub(crate) kind: Kind,
    /// Members, if it is an object.
    pub(crate) members: Vec<Member>,
    /// Offset of the closing brace, if it is an object.
    pub(crate) end: usize,
}

/// Checks all of `text` and notes the outermost members.
pub(crate) fn outline(text: &[u8]) -> Result<Outline, Invalid> {
    let mut members = Vec::with_capacity(8);
    let (kind, end) = visit(text, |member| members.push(member))?;
    Ok(Outline { kind, members, end })
}

/// Checks all of `text` and shows the outermost members to `member`, in order. Returns what the
/// outermost value is, and the offset of its closing brace if it is an object.
pub(crate) fn visit(text: &[u8], member: impl FnMut(Member)) -> Result<(Kind, usize), Invalid> {
    let mut walk = Walk { text, at: 0 };
    walk.space();
    let start = walk.at;
    let kind = match walk.peek() {
        Some(b'{') => {
            walk.object(0, member)?;
            Kind::Object
        }
        Some(b'[') => {
            walk.value(0)?;
            let inside = text[start + 1..walk.at - 1].trim_ascii();
            Kind::Array {
                empty: inside.is_empty(),
            }
        }
        Some(_) => {
            walk.value(0)?;
            Kind::Other
        }
        None => return Err(walk.invalid("the text is empty")),
    };
    let end = walk.at.saturating_sub(1);
    walk.space();
    if walk.at < text.len() {
        return Err(walk.invalid("something follows the value"));
    }
    Ok((kind, end))
}

/// The value at `path` (keys from the outside in) in the JSON object `text`, as it stands there;
/// of a repeated key the last. `None` when it is not there or `text` is not JSON.
///
/// Looks at every byte of `text` once per key, and builds nothing.
pub fn value_at(text: &[u8], path: impl IntoIterator<Item = impl AsRef<str>>) -> Option<&[u8]> {
    let mut value = text;
    for key in path {
        let mut found = None;
        visit(value, |member| {
            if member.is(value, key.as_ref()) {
                found = Some(member.value);
            }
        })
        .ok()?;
        value = &value[found?];
    }
    Some(value)
}

/// The items of an array, as places in `text`.
pub(crate) fn items(text: &[u8]) -> Vec<Range<usize>> {
    let mut items = Vec::new();
    let mut walk = Walk { text, at: 0 };
    walk.space();
    if walk.peek() == Some(b'[') {
        // The text was checked before; an error only ends the list.
        let _ = walk.array(0, |item| items.push(item));
    }
    items
}

/// The text that stands between quotes.
pub(crate) fn unescape(inside: &[u8]) -> Option<String> {
    if !inside.contains(&b'\\') {
        return std::str::from_utf8(inside).ok().map(str::to_owned);
    }
    let mut quoted = Vec::with_capacity(inside.len() + 2);
    quoted.push(b'"');
    quoted.extend_from_slice(inside);
    quoted.push(b'"');
    serde_json::from_slice(&quoted).ok()
}

struct Walk<'a> {
    text: &'a [u8],
    at: usize,
}

impl Walk<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn invalid(&self, what: &'static str) -> Invalid {
        Invalid {
            what,
            offset: self.at,
        }
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Result<(), Invalid> {
        if depth > DEPTH_MAX {
            return Err(self.invalid("nested too deeply"));
        }
        match self.peek() {
            Some(b'{') => self.object(depth, drop),
            Some(b'[') => self.array(depth, drop),
            Some(b'"') => self.string().map(|end| self.at = end + 1),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            Some(_) => Err(self.invalid("expected a value")),
            None => Err(self.invalid("the text ends too early")),
        }
    }

    fn object(&mut self, depth: usize, mut member: impl FnMut(Member)) -> Result<(), Invalid> {
        self.at += 1;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.invalid("expected a key"));
            }
            let start = self.at + 1;
            // A key that ends within a small block has no escape.
            let (end, escaped) = match scan::short(&self.text[start..]) {
                Some(length) => (start + length, false),
                None => {
                    let end = self.string()?;
                    (end, self.text[start..end].contains(&b'\\'))
                }
            };
            self.at = end + 1;
            let key = start..end;
            self.space();
            self.expect(b':', "expected `:`")?;
            self.space();
            let start = self.at;
            self.value(depth + 1)?;
            member(Member {
                key,
                value: start..self.at,
                escaped,
            });
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.invalid("expected `,` or `}`")),
            }
            self.space();
        }
    }

    fn array(&mut self, depth: usize, mut item: impl FnMut(Range<usize>)) -> Result<(), Invalid> {
        self.at += 1;
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            let start = self.at;
            self.value(depth + 1)?;
            item(start..self.at);
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.invalid("expected `,` or `]`")),
            }
            self.space();
        }
    }

    /// The offset of the quote that ends the string that begins here.
    fn string(&mut self) -> Result<usize, Invalid> {
        match scan::end(self.text, self.at + 1) {
            Some(end) => Ok(end),
            None => self.string_by_bytes(),
        }
    }

    /// The same, slowly; says what is wrong and where.
    #[cold]
    fn string_by_bytes(&mut self) -> Result<usize, Invalid> {
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => return Ok(self.at),
                Some(b'\\') => self.escape()?,
                Some(0..=0x1f) => return Err(self.invalid("a control character in a string")),
                Some(0x20..=0x7f) => self.at += 1,
                Some(0x80..) => {
                    let rest = self.text[self.at..].utf8_chunks().next();
                    match rest.and_then(|rest| rest.valid().chars().next()) {
                        Some(character) => self.at += character.len_utf8(),
                        None => return Err(self.invalid("not UTF-8")),
                    }
                }
                None => return Err(self.invalid("a string does not end")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Invalid> {
        match self.text.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let digits = self.text.get(self.at + 2..self.at + 6);
                if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                    return Err(self.invalid("a bad \\u escape"));
                }
                self.at += 6;
            }
            _ => return Err(self.invalid("a bad escape")),
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), Invalid> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits()?,
            _ => return Err(self.invalid("a bad number")),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Invalid> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.invalid("a bad number"));
        }
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        Ok(())
    }

    fn word(&mut self, word: &'static [u8]) -> Result<(), Invalid> {
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            return Ok(());
        }
        Err(self.invalid("expected a value"))
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), Invalid> {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        Err(self.invalid(what))
    }
}

/// Levels of nesting; beyond them a text is refused rather than recursed into.
const DEPTH_MAX: usize = 128;
