//! JSON text, read once into places: a tree that borrows everything and loses nothing.
//!
//! A node knows where its value stands in the text, so numbers keep their spelling, strings their
//! escapes, and whole parts can be passed on as they came.

use std::ops::Range;

use super::{Invalid, Walk, scan, string::JsonStr};

/// A JSON text and the places of all values in it.
#[derive(Debug)]
pub(crate) struct Tree<'a> {
    text: &'a str,
    /// Preorder. The children of an object are its keys and values in turn.
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    kind: Kind,
    start: u32,
    end: u32,
    /// Index of the first entry behind this one and all that is in it.
    next: u32,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

/// One value of a [`Tree`].
#[derive(Clone, Copy)]
pub(crate) struct Node<'t, 'a> {
    tree: &'t Tree<'a>,
    at: usize,
}

impl<'a> Tree<'a> {
    /// Reads all of `text`, which may be nested `depth_max` levels deep.
    pub(crate) fn parse(text: &'a [u8], depth_max: usize) -> Result<Self, Invalid> {
        if u32::try_from(text.len()).is_err() {
            return Err(Invalid {
                what: "longer than 4 GiB",
                offset: 0,
            });
        }
        let mut builder = Builder {
            walk: Walk {
                text,
                at: 0,
                depth_max,
            },
            entries: Vec::with_capacity(64),
        };
        builder.walk.space();
        builder.value(0)?;
        builder.walk.space();
        if builder.walk.at < text.len() {
            return Err(builder.walk.invalid("something follows the value"));
        }
        let entries = builder.entries;
        // The walk has checked every string, and JSON is ASCII outside of them.
        let text = std::str::from_utf8(text).map_err(|error| Invalid {
            what: "not UTF-8",
            offset: error.valid_up_to(),
        })?;
        Ok(Self { text, entries })
    }

    /// The outermost value.
    pub(crate) fn root(&self) -> Node<'_, 'a> {
        Node { tree: self, at: 0 }
    }
}

struct Builder<'a> {
    walk: Walk<'a>,
    entries: Vec<Entry>,
}

impl Builder<'_> {
    fn value(&mut self, depth: usize) -> Result<(), Invalid> {
        if depth > self.walk.depth_max {
            return Err(self.walk.invalid("nested too deeply"));
        }
        let start = self.walk.at;
        let kind = match self.walk.peek() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'n') => Kind::Null,
            _ => Kind::Number,
        };
        if self.entries.len() >= VALUES_MAX {
            return Err(self.walk.invalid("more values than a conversation has"));
        }
        let index = self.open(kind, start);
        match kind {
            Kind::Object => self.object(depth)?,
            Kind::Array => self.array(depth)?,
            _ => self.walk.value(depth)?,
        }
        self.close(index, self.walk.at);
        Ok(())
    }

    fn object(&mut self, depth: usize) -> Result<(), Invalid> {
        self.walk.at += 1;
        self.walk.space();
        if self.walk.peek() == Some(b'}') {
            self.walk.at += 1;
            return Ok(());
        }
        loop {
            if self.walk.peek() != Some(b'"') {
                return Err(self.walk.invalid("expected a key"));
            }
            let start = self.walk.at;
            let end = match scan::short(&self.walk.text[start + 1..]) {
                Some(length) => start + 1 + length,
                None => self.walk.string()?,
            };
            self.walk.at = end + 1;
            let key = self.open(Kind::String, start);
            self.close(key, end + 1);
            self.walk.space();
            self.walk.expect(b':', "expected `:`")?;
            self.walk.space();
            self.value(depth + 1)?;
            if self.walk.ends(b'}', "expected `,` or `}`")? {
                return Ok(());
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), Invalid> {
        self.walk.at += 1;
        self.walk.space();
        if self.walk.peek() == Some(b']') {
            self.walk.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            if self.walk.ends(b']', "expected `,` or `]`")? {
                return Ok(());
            }
        }
    }

    fn open(&mut self, kind: Kind, start: usize) -> usize {
        self.entries.push(Entry {
            kind,
            start: place(start),
            end: 0,
            next: 0,
        });
        self.entries.len() - 1
    }

    fn close(&mut self, index: usize, end: usize) {
        let next = place(self.entries.len());
        let entry = &mut self.entries[index];
        entry.end = place(end);
        entry.next = next;
    }
}

/// Values and keys of one text. A value may be much smaller than what is noted of it.
const VALUES_MAX: usize = 1 << 20;

/// No text is longer than that, and none has more values than bytes.
fn place(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}

impl<'t, 'a> Node<'t, 'a> {
    fn entry(self) -> &'t Entry {
        &self.tree.entries[self.at]
    }

    fn range(self) -> Range<usize> {
        self.entry().start as usize..self.entry().end as usize
    }

    /// What it is.
    pub(crate) fn kind(self) -> Kind {
        self.entry().kind
    }

    /// It is an object.
    pub(crate) fn is_object(self) -> bool {
        self.kind() == Kind::Object
    }

    /// It is an array.
    pub(crate) fn is_array(self) -> bool {
        self.kind() == Kind::Array
    }

    /// It is a string.
    pub(crate) fn is_string(self) -> bool {
        self.kind() == Kind::String
    }

    /// It is `null`.
    pub(crate) fn is_null(self) -> bool {
        self.kind() == Kind::Null
    }

    /// The value as it stands in the text.
    pub(crate) fn raw(self) -> &'a str {
        &self.tree.text[self.range()]
    }

    /// A string, as it is spelt.
    pub(crate) fn str(self) -> Option<JsonStr<'a>> {
        let range = self.range();
        self.is_string()
            .then(|| JsonStr::spelt(&self.tree.text[range.start + 1..range.end - 1]))
    }

    /// Whether it is a string that says `expected`.
    pub(crate) fn says(self, expected: &str) -> bool {
        self.str().is_some_and(|text| text.is(expected))
    }

    /// A boolean.
    pub(crate) fn bool(self) -> Option<bool> {
        (self.kind() == Kind::Bool).then(|| self.raw() == "true")
    }

    /// A number without sign, fraction and exponent.
    pub(crate) fn u64(self) -> Option<u64> {
        (self.kind() == Kind::Number)
            .then(|| self.raw().parse().ok())
            .flatten()
    }

    /// Any number, as it is spelt.
    pub(crate) fn number(self) -> Option<&'a str> {
        (self.kind() == Kind::Number).then(|| self.raw())
    }

    /// The member `name` of an object, unless it is `null`; of a repeated one the last.
    pub(crate) fn get(self, name: &str) -> Option<Self> {
        let mut found = None;
        for (key, value) in self.members() {
            if key.is(name) {
                found = Some(value);
            }
        }
        found.filter(|value| !value.is_null())
    }

    /// The string member `name`.
    pub(crate) fn get_str(self, name: &str) -> Option<JsonStr<'a>> {
        self.get(name)?.str()
    }

    /// The members of an object, in order; of anything else none.
    pub(crate) fn members(self) -> impl Iterator<Item = (JsonStr<'a>, Self)> + use<'t, 'a> {
        let tree = self.tree;
        let mut children = Children::of(self, Kind::Object);
        std::iter::from_fn(move || {
            let key = children.next()?;
            let value = children.next()?;
            let key = Node { tree, at: key }.str()?;
            Some((key, Node { tree, at: value }))
        })
    }

    /// The items of an array, in order; of anything else none.
    pub(crate) fn items(self) -> impl Iterator<Item = Self> + use<'t, 'a> {
        let tree = self.tree;
        Children::of(self, Kind::Array).map(move |at| Node { tree, at })
    }

    /// It has neither members nor items.
    pub(crate) fn is_empty(self) -> bool {
        self.entry().next as usize == self.at + 1
    }

    /// Where it stands, such as `messages[2].content[0].type`; empty for the outermost value.
    pub(crate) fn path(self) -> String {
        let mut path = String::new();
        let mut around = self.tree.root();
        while around.at != self.at {
            let found = if around.is_object() {
                around
                    .members()
                    .find(|(_, child)| child.holds(self.at))
                    .map(|(key, child)| {
                        if !path.is_empty() {
                            path.push('.');
                        }
                        path.push_str(&key.decode());
                        child
                    })
            } else {
                let child = around
                    .items()
                    .enumerate()
                    .find(|(_, child)| child.holds(self.at));
                child.map(|(index, child)| {
                    path.push_str(&format!("[{index}]"));
                    child
                })
            };
            match found {
                Some(child) => around = child,
                None => break,
            }
        }
        path
    }

    fn holds(self, at: usize) -> bool {
        (self.at..self.entry().next as usize).contains(&at)
    }
}

impl std::fmt::Debug for Node<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.raw())
    }
}

struct Children<'t> {
    entries: &'t [Entry],
    at: usize,
    end: usize,
}

impl<'t> Children<'t> {
    fn of(parent: Node<'t, '_>, kind: Kind) -> Self {
        let end = match parent.kind() == kind {
            true => parent.entry().next as usize,
            false => 0,
        };
        Self {
            entries: &parent.tree.entries,
            at: parent.at + 1,
            end,
        }
    }
}

impl Iterator for Children<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.at >= self.end {
            return None;
        }
        let at = self.at;
        self.at = self.entries[at].next as usize;
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_found_as_it_is_spelt() {
        let text =
            br#" {"a" : [1.50, -2e9, {"b\u0063": "x\n\ud800"}], "n": null, "a2": true, "e": [] } "#;
        let tree = Tree::parse(text, 10).unwrap();
        let root = tree.root();
        let items: Vec<_> = root.get("a").unwrap().items().collect();
        assert_eq!(items[0].number(), Some("1.50"));
        assert_eq!(items[1].number(), Some("-2e9"));
        let deep = items[2].get("bc").unwrap();
        assert_eq!(deep.raw(), r#""x\n\ud800""#);
        assert_eq!(deep.path(), "a[2].bc");
        assert!(root.get("n").is_none());
        assert_eq!(root.get("a2").unwrap().bool(), Some(true));
        assert!(root.get("e").unwrap().is_empty());
        assert_eq!(root.members().count(), 4);
        assert_eq!(root.path(), "");
    }

    #[test]
    fn of_a_repeated_key_the_last_counts() {
        let tree = Tree::parse(br#"{"a":1,"a":2}"#, 10).unwrap();
        assert_eq!(tree.root().get("a").unwrap().u64(), Some(2));
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for bad in [
            "",
            "{",
            "[1,]",
            "{\"a\"}",
            "tru",
            "[1] 2",
            "[[[[1]]]]",
            "\"\u{1}\"",
            "{,}",
        ] {
            assert!(Tree::parse(bad.as_bytes(), 3).is_err(), "{bad}");
        }
        assert!(Tree::parse(b"[\"\xff\"]", 3).is_err());
        let many = format!("[{}]", vec!["0"; VALUES_MAX].join(","));
        assert!(Tree::parse(many.as_bytes(), 3).is_err());
    }
}
