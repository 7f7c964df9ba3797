//! A walk over JSON text that checks everything and builds nothing.
//!
//! Prompts are long strings in a shallow structure, so the walk is mostly a search for the next
//! quote. It accepts exactly RFC 8259; the members of the outermost object are noted by their
//! place in the text.

mod scan;
pub(crate) mod string;
#[cfg(test)]
mod tests;
mod text;
pub(crate) mod tree;
pub(crate) mod write;

use std::ops::Range;

pub use self::text::readable;
pub(crate) use self::text::{says, text};

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
            return text::says_escaped(&text[self.key.clone()], name);
        }
        self.key.len() == name.len() && text[self.key.clone()] == *name.as_bytes()
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
    /// Members, if it is an object: as many as were asked for.
    pub(crate) members: Vec<Member>,
    /// How many members there are.
    pub(crate) member_count: usize,
    /// Offset of the closing brace, if it is an object.
    pub(crate) end: usize,
}

/// Checks all of `text` and notes the first `members_max` of the outermost members. A member in
/// the text may be much smaller than the note of it.
pub(crate) fn outline(text: &[u8], members_max: usize) -> Result<Outline, Invalid> {
    let mut members = Vec::with_capacity(8.min(members_max));
    let mut member_count = 0;
    let note = |member| {
        if member_count < members_max {
            members.push(member);
        }
        member_count += 1;
    };
    let (kind, end) = walk(text, REQUEST_DEPTH_MAX, note)?;
    Ok(Outline {
        kind,
        members,
        member_count,
        end,
    })
}

/// Checks all of `text` and shows the outermost members to `member`, in order. Returns what the
/// outermost value is, and the offset of its closing brace if it is an object.
pub(crate) fn visit(text: &[u8], member: impl FnMut(Member)) -> Result<(Kind, usize), Invalid> {
    walk(text, DEPTH_MAX, member)
}

fn walk(
    text: &[u8],
    depth_max: usize,
    member: impl FnMut(Member),
) -> Result<(Kind, usize), Invalid> {
    let mut walk = Walk {
        text,
        at: 0,
        depth_max,
    };
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
        let [found] = members(value, [key.as_ref()])?;
        value = found?;
    }
    Some(value)
}

/// The values of the members `names` of the JSON object `text`, as they stand there; of a
/// repeated one the last. `None` when `text` is not a JSON object.
pub(crate) fn members<'a, const N: usize>(
    text: &'a [u8],
    names: [&str; N],
) -> Option<[Option<&'a [u8]>; N]> {
    let mut found = [None; N];
    let (kind, _) = visit(text, |member| {
        if let Some(at) = names.iter().position(|name| member.is(text, name)) {
            found[at] = Some(&text[member.value]);
        }
    })
    .ok()?;
    (kind == Kind::Object).then_some(found)
}

/// Whether `text` is a JSON object.
pub(crate) fn is_object(text: &[u8]) -> bool {
    visit(text, drop).is_ok_and(|(kind, _)| kind == Kind::Object)
}

/// Whether `text` is an array that is not empty.
pub(crate) fn has_items(text: &[u8]) -> bool {
    visit(text, drop).is_ok_and(|(kind, _)| kind == Kind::Array { empty: false })
}

/// Shows the items of the array `text` to `item`, in order. Of a text that is something else, or
/// is wrong from some place on, it shows what there is before that.
pub(crate) fn items<'a>(text: &'a [u8], mut item: impl FnMut(&'a [u8])) {
    let mut walk = Walk {
        text,
        at: 0,
        depth_max: DEPTH_MAX,
    };
    walk.space();
    if walk.peek() == Some(b'[') {
        let _ = walk.array(0, |place| item(&text[place]));
    }
}

struct Walk<'a> {
    text: &'a [u8],
    at: usize,
    depth_max: usize,
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
        if depth > self.depth_max {
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
            if self.ends(b'}', "expected `,` or `}`")? {
                return Ok(());
            }
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
            if self.ends(b']', "expected `,` or `]`")? {
                return Ok(());
            }
        }
    }

    /// Whether the object or array ends here with `close`; otherwise goes on to its next part.
    #[inline]
    fn ends(&mut self, close: u8, expected: &'static str) -> Result<bool, Invalid> {
        self.space();
        let ends = match self.peek() {
            Some(b',') => false,
            Some(byte) if byte == close => true,
            _ => return Err(self.invalid(expected)),
        };
        self.at += 1;
        if !ends {
            self.space();
        }
        Ok(ends)
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

/// Levels of nesting below the outermost; beyond them a client's text is refused rather than
/// recursed into. As many as `serde_json` takes, for whatever reads a part of it later.
const REQUEST_DEPTH_MAX: usize = 126;
/// The same for what others wrote. A response may hold a whole request further in (Responses
/// echoes `tools` and `metadata`), and must be readable for all that.
pub(crate) const DEPTH_MAX: usize = 256;
