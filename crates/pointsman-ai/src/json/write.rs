//! Writing JSON text.

use super::string::{JsonStr, escape_into};

/// Writes one JSON value into a buffer, compactly. Commas are its business; that keys and values
/// alternate is the caller's.
#[derive(Debug)]
pub(crate) struct Writer<'o> {
    out: &'o mut Vec<u8>,
    /// Something stands before the next key or item.
    comma: bool,
}

impl<'o> Writer<'o> {
    /// Appends to `out`.
    pub(crate) fn new(out: &'o mut Vec<u8>) -> Self {
        Self { out, comma: false }
    }

    fn begin(&mut self) {
        if self.comma {
            self.out.push(b',');
        }
        self.comma = true;
    }

    /// A place in what has been written, to see later whether anything followed.
    pub(crate) fn mark(&self) -> usize {
        self.out.len()
    }

    /// An object with what `members` writes.
    pub(crate) fn object(&mut self, members: impl FnOnce(&mut Self)) {
        self.nested(b'{', b'}', members);
    }

    /// An array of what `items` writes.
    pub(crate) fn array(&mut self, items: impl FnOnce(&mut Self)) {
        self.nested(b'[', b']', items);
    }

    fn nested(&mut self, open: u8, close: u8, inside: impl FnOnce(&mut Self)) {
        self.begin();
        self.out.push(open);
        self.comma = false;
        inside(self);
        self.out.push(close);
        self.comma = true;
    }

    /// The key of the value that is written next: a name that needs no escapes.
    pub(crate) fn key(&mut self, name: &'static str) -> &mut Self {
        self.begin();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.comma = false;
        self
    }

    /// The same for any key.
    pub(crate) fn key_str(&mut self, name: &JsonStr<'_>) -> &mut Self {
        self.str(name);
        self.out.push(b':');
        self.comma = false;
        self
    }

    /// A string, as it is spelt.
    pub(crate) fn str(&mut self, text: &JsonStr<'_>) {
        self.begin();
        self.out.push(b'"');
        self.out.extend_from_slice(text.as_spelt().as_bytes());
        self.out.push(b'"');
    }

    /// A string that says `text`.
    pub(crate) fn text(&mut self, text: &str) {
        self.begin();
        self.out.push(b'"');
        escape_into(self.out, text);
        self.out.push(b'"');
    }

    /// JSON, as it stands.
    pub(crate) fn raw(&mut self, json: &str) {
        self.begin();
        self.out.extend_from_slice(json.as_bytes());
    }

    /// A number.
    pub(crate) fn u64(&mut self, number: u64) {
        self.raw(&number.to_string());
    }

    /// A boolean.
    pub(crate) fn bool(&mut self, value: bool) {
        self.raw(if value { "true" } else { "false" });
    }

    /// `null`.
    pub(crate) fn null(&mut self) {
        self.raw("null");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_stand_between_and_nowhere_else() {
        let mut out = Vec::new();
        Writer::new(&mut out).object(|w| {
            w.key("a").array(|w| {
                w.u64(1);
                w.object(|_| {});
                w.array(|_| {});
                w.text("x\"");
            });
            w.key("b").bool(false);
            w.key_str(&JsonStr::new("c\n")).object(|w| {
                w.key("d").null();
                w.key("e").raw("1.50");
                w.key("f").str(&JsonStr::new("ä"));
            });
        });
        let expected = r#"{"a":[1,{},[],"x\""],"b":false,"c\n":{"d":null,"e":1.50,"f":"ä"}}"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
