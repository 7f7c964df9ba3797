//! Fields of a `multipart/form-data` body (RFC 7578), found without building anything.
//!
//! One pass over bytes that are all here, up to the field that was asked for. A part is looked at
//! as its sender framed it; what is no proper part ends the search.

use std::{borrow::Cow, fmt, ops::Range};

use memchr::memmem;

/// Why a form is not passed on: others might read something else in it than we do. Parts are
/// counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormError {
    /// It does not begin with its boundary.
    Preamble,
    /// Its boundary stands at this byte, where no part begins: not behind a CRLF, or behind the end.
    StrayBoundary(usize),
    /// The head of this part is not [plain](Part::is_plain).
    Head(usize),
    /// There is no end of this part's head, or none of the part.
    Unfinished(usize),
}

impl fmt::Display for FormError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preamble => f.write_str("the form does not begin with its boundary"),
            Self::StrayBoundary(at) => write!(
                f,
                "the form's boundary is at byte {at}, where no part may begin: not behind a CRLF, or \
                 behind the end of the form"
            ),
            Self::Head(part) => write!(
                f,
                "the head of part {part} of the form can be read in more than one way: write one \
                 Content-Disposition (form-data, with a name) and at most one Content-Type, each \
                 on one line"
            ),
            Self::Unfinished(part) => write!(
                f,
                "part {part} of the form is not complete: a head, an empty line and, behind its \
                 value, the boundary on a line of its own are needed"
            ),
        }
    }
}

/// The boundary that a `Content-Type` names, if it is that of a form.
pub fn boundary(content_type: &str) -> Option<Cow<'_, str>> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    // Of two, readers take either.
    let lower = parameters.to_ascii_lowercase();
    if lower.matches("boundary=").count() != 1 {
        return None;
    }
    let boundary = parameter(parameters, "boundary")?;
    let is_plain = boundary.bytes().all(is_of_boundary) && !boundary.ends_with(' ');
    // Without quotes, some readers end it at a blank.
    let is_whole = !boundary.contains(' ') || parameters.contains(&format!("\"{boundary}\""));
    (is_plain && is_whole && (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len())).then_some(boundary)
}

/// RFC 2046 §5.1.1, which lets none end in a blank: some readers would take it off.
fn is_of_boundary(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte)
}

/// The value of the first field called `name`; `None` also when it is no UTF-8.
pub fn field<'b>(body: &'b [u8], boundary: &str, name: &str) -> Option<&'b str> {
    let part = Parts::new(body, boundary).find(|part| part.is_called(name))?;
    std::str::from_utf8(&body[part.value]).ok()
}

/// One field of a form.
#[derive(Debug)]
pub struct Part<'b> {
    head: &'b [u8],
    /// Where its value stands in the body.
    pub value: Range<usize>,
}

impl Part<'_> {
    /// Whether its head says that it is the field `name`.
    pub fn is_called(&self, name: &str) -> bool {
        names(self.head, name)
    }

    /// Every reader takes its head for the same: it has exactly one `Content-Disposition: form-data`, with
    /// parameters as RFC 7578 wants them, each once and one of them the name; beside it nothing but a
    /// `Content-Type`; no folded line, no lone CR or LF, no extended parameter (RFC 8187).
    pub fn is_plain(&self) -> bool {
        let head = String::from_utf8_lossy(self.head);
        let (mut dispositions, mut types) = (0, 0);
        // It begins with the line end of the delimiter.
        for line in head.split("\r\n").skip(1) {
            let Some((key, value)) = line.split_once(':') else {
                return false;
            };
            if line.contains(['\r', '\n']) {
                return false;
            }
            if key.eq_ignore_ascii_case("content-disposition") && is_plain_disposition(value) {
                dispositions += 1;
            } else if key.eq_ignore_ascii_case("content-type") {
                types += 1;
            } else {
                return false;
            }
        }
        dispositions == 1 && types <= 1
    }
}

/// The fields of a form, in their order, up to what is no proper part.
#[derive(Debug)]
pub struct Parts<'b> {
    body: &'b [u8],
    delimiter: memmem::Finder<'static>,
    /// Behind the last delimiter; `None` when there is nothing more to find.
    at: Option<usize>,
    /// Behind the delimiter that closes the form.
    closed_at: Option<usize>,
}

impl<'b> Parts<'b> {
    /// Those of `body`, between delimiters of `boundary`.
    pub fn new(body: &'b [u8], boundary: &str) -> Self {
        let delimiter = format!("\r\n--{boundary}");
        let delimiter = memmem::Finder::new(delimiter.as_bytes()).into_owned();
        // The first one may stand at the very beginning, without a line before it.
        let opening = &delimiter.needle()[2..];
        let at = if body.starts_with(opening) {
            Some(opening.len())
        } else {
            let found = delimiter.find(body);
            found.map(|at| at + delimiter.needle().len())
        };
        Self {
            body,
            delimiter,
            at,
            closed_at: None,
        }
    }

    /// No preamble comes before the first part; to be asked before there was any look at a part.
    pub fn begins_at_once(&self) -> bool {
        self.at == Some(self.delimiter.needle().len() - 2)
    }

    /// Where a boundary stands that is not behind a CRLF, or is behind the one that closes the form:
    /// some readers would take a part to begin there. To be asked when all parts have been looked at.
    pub fn stray_boundary(&self) -> Option<usize> {
        let dashed = &self.delimiter.needle()[2..];
        let end = self.closed_at.unwrap_or(self.body.len());
        let mut places = memmem::find_iter(self.body, dashed);
        places.find(|at| *at >= end || (*at != 0 && !self.body[..*at].ends_with(b"\r\n")))
    }

    /// The delimiter that closes a form has been found, and so every field has.
    pub fn is_closed(&self) -> bool {
        self.closed_at.is_some()
    }
}

impl<'b> Iterator for Parts<'b> {
    type Item = Part<'b>;

    fn next(&mut self) -> Option<Part<'b>> {
        let from = self.at.take()?;
        let rest = &self.body[from..];
        // `--` after a delimiter closes the form; blanks may fill its line.
        if rest.starts_with(b"--") {
            self.closed_at = Some(from);
            return None;
        }
        let line_end = memmem::find(rest, b"\r\n")?;
        let is_delimiter = rest[..line_end]
            .iter()
            .all(|byte| matches!(byte, b' ' | b'\t'));
        if !is_delimiter {
            return None;
        }
        let part = &rest[line_end..];
        let end = self.delimiter.find(part)?;
        // The head begins with the line end of the delimiter, so an empty one is found, too.
        let searched = &part[..end.min(HEAD_BYTES_MAX)];
        let head_end = memmem::find(searched, b"\r\n\r\n")?;
        let start = from + line_end;
        self.at = Some(start + end + self.delimiter.needle().len());
        Some(Part {
            head: &part[..head_end],
            value: start + head_end + 4..start + end,
        })
    }
}

/// Whether the head of a part says that it is the field `name`.
fn names(head: &[u8], name: &str) -> bool {
    // A file may have a name in another encoding; what is asked for is ASCII.
    let head = String::from_utf8_lossy(head);
    head.split("\r\n").any(|line| {
        let Some((key, value)) = line.split_once(':') else {
            return false;
        };
        let Some((kind, parameters)) = value.split_once(';') else {
            return false;
        };
        key.eq_ignore_ascii_case("content-disposition")
            && kind.trim().eq_ignore_ascii_case("form-data")
            && parameter(parameters, "name").is_some_and(|found| found == name)
    })
}

/// Whether the value of a `Content-Disposition` is `form-data` with a name, and written so that nobody reads
/// anything else in it.
fn is_plain_disposition(value: &str) -> bool {
    let Some((kind, mut rest)) = value.split_once(';') else {
        return false;
    };
    if !kind.trim().eq_ignore_ascii_case("form-data") {
        return false;
    }
    let is_token = |text: &str| {
        let is_of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        !text.is_empty() && text.bytes().all(is_of_token)
    };
    let mut keys: Vec<String> = Vec::new();
    loop {
        let Some((key, after)) = rest.split_once('=') else {
            return false;
        };
        let key = key.trim_start().to_ascii_lowercase();
        if !is_token(&key) || keys.contains(&key) {
            return false;
        }
        let after = match after.strip_prefix('"') {
            Some(quoted) => match unquote(quoted) {
                // Who knows of no escapes ends the value at such a quote, and reads on behind `;`.
                Some((Cow::Owned(value), _)) if value.contains(';') => return false,
                Some((_, after)) => after,
                None => return false,
            },
            None => {
                let end = after.find(';').unwrap_or(after.len());
                if !is_token(after[..end].trim_end()) {
                    return false;
                }
                &after[end..]
            }
        };
        keys.push(key);
        match after.trim() {
            "" => break,
            more => match more.strip_prefix(';') {
                Some(more) => rest = more,
                None => return false,
            },
        }
    }
    keys.iter().any(|key| key == "name")
}

/// The parameter called `wanted` in `a=b; c="d"`. Quotes are understood, so that a file name
/// cannot pose as another parameter.
fn parameter<'t>(text: &'t str, wanted: &str) -> Option<Cow<'t, str>> {
    let mut rest = text;
    loop {
        let (key, after) = rest.split_once('=')?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (Cow::Borrowed(after[..end].trim()), &after[end..])
            }
        };
        if key.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = after.split_once(';')?.1;
    }
}

/// The text up to the closing quote, and what follows that.
fn unquote(quoted: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut plain = String::new();
    let mut from = 0;
    let mut bytes = quoted.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' if plain.is_empty() && from == 0 => {
                return Some((Cow::Borrowed(&quoted[..at]), &quoted[at + 1..]));
            }
            b'"' => {
                plain.push_str(&quoted[from..at]);
                return Some((Cow::Owned(plain), &quoted[at + 1..]));
            }
            // Browsers write `\"`; a lone backslash is part of some file names.
            b'\\' if quoted[at + 1..].starts_with(['"', '\\']) => {
                plain.push_str(&quoted[from..at]);
                from = at + 1;
                bytes.next();
            }
            _ => {}
        }
    }
    None
}

/// RFC 2046 §5.1.1 allows 70.
const BOUNDARY_BYTES_MAX: usize = 200;
/// Far more than a name and a file name take.
const HEAD_BYTES_MAX: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FORM: &str = "preamble\r\n--x y\r\n\
        Content-Disposition: form-data; name=\"file\"; filename=\"a; name=\\\"model\\\"\"\r\n\
        Content-Type: text/plain\r\n\r\n--x\r\nnot a field\r\n\
        --x y  \r\ncontent-disposition: Form-Data; NAME=model\r\n\r\ngpt-4\r\n\
        --x y\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nsecond\r\n\
        --x y\r\nContent-Disposition: form-data; name=\"empty\"\r\n\r\n\r\n\
        --x y--\r\nContent-Disposition: form-data; name=\"late\"\r\n\r\nno\r\n--x y--";

    #[test]
    fn fields_are_found_by_name() {
        let check = |name: &str, expected: Option<&str>| {
            assert_eq!(field(FORM.as_bytes(), "x y", name), expected, "{name}");
        };
        check("file", Some("--x\r\nnot a field"));
        check("model", Some("gpt-4"));
        check("empty", Some(""));
        check("late", None);
        check("a", None);
        let at_once = b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--b--";
        assert_eq!(field(at_once, "b", "a"), Some("1"));
        let not_ended = b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n1";
        assert_eq!(field(not_ended, "b", "a"), None);
        let no_text = b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n\xff\r\n--b--";
        assert_eq!(field(no_text, "b", "a"), None);
    }

    #[test]
    fn a_form_is_closed_when_all_of_it_was_read() {
        let check = |body: &str, count: usize, closed: bool| {
            let mut parts = Parts::new(body.as_bytes(), "b");
            let found = parts.by_ref().count();
            assert_eq!((found, parts.is_closed()), (count, closed), "{body}");
        };
        let part = "--b\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n";
        check(&format!("{part}{part}--b--"), 2, true);
        check(&format!("{part}--b"), 1, false);
        check(&format!("{part}--bc\r\n{part}--b--"), 1, false);
        check(&format!("{part}--b\r\nno head\r\n{part}--b--"), 1, false);
        check("--b--", 0, true);
        check("", 0, false);
    }

    #[test]
    fn boundaries_are_read_from_content_types() {
        let check = |kind: &str, expected: Option<&str>| {
            assert_eq!(boundary(kind).as_deref(), expected, "{kind}");
        };
        check("multipart/form-data; boundary=x", Some("x"));
        check(
            "Multipart/Form-Data; charset=\"a;b\"; BOUNDARY=\"x y\"",
            Some("x y"),
        );
        check("multipart/form-data; boundary=", None);
        // What some readers take for another one.
        check("multipart/form-data; boundary=x y", None);
        check("multipart/form-data; boundary=\"x \"", None);
        check("multipart/form-data; boundary=\"x\\\"y\"", None);
        check("multipart/form-data", None);
        check("multipart/mixed; boundary=x", None);
        check(
            &format!("multipart/form-data; boundary={}", "x".repeat(201)),
            None,
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(
            body in "(--b|\r\n|: |;|=|\"|\\\\|name|form-data|Content-Disposition|é){0,40}"
        ) {
            let _ = field(body.as_bytes(), "b", "name");
            let _ = parameter(&body, "name");
        }

        #[test]
        fn a_field_survives_whatever_surrounds_it(before in "[a-z\r\n-]{0,20}", value in "[a-z\r\n-]{0,20}") {
            prop_assume!(!before.contains("--BB") && !value.contains("--BB"));
            let part = |name: &str, value: &str| {
                format!("--BB\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
            };
            let form = format!("{}{}--BB--", part("other", &before), part("wanted", &value));
            prop_assert_eq!(field(form.as_bytes(), "BB", "wanted"), Some(value.as_str()));
        }
    }
}
