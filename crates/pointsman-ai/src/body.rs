//! A client's request body: checked, looked at, never rebuilt.

use std::{borrow::Cow, ops::Range};

use bytes::Bytes;

use crate::{
    Protocol,
    json::{self, Kind, Member},
    multipart::{FormError, Parts},
};

/// A request body that is valid JSON, or a form.
#[derive(Clone, Debug)]
pub struct RequestBody {
    bytes: Bytes,
    kind: Kind,
    members: Vec<Member>,
    end: usize,
    form: Option<Form>,
}

/// What is known of a form.
#[derive(Clone, Debug)]
pub(crate) struct Form {
    /// Where the value of the field `model` is.
    pub(crate) model: Option<Range<usize>>,
    pub(crate) boundary: String,
    stream: bool,
}

/// A body that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// There is none.
    Empty,
    /// It is not JSON.
    Malformed {
        /// What is wrong.
        message: &'static str,
        /// Byte offset of it.
        offset: usize,
    },
    /// The outermost object has more members than [`MEMBERS_MAX`].
    TooManyMembers(usize),
    /// A key that must be unambiguous appears twice: what is authorised and what is served could
    /// differ.
    Repeated(&'static str),
    /// It is no form that everybody reads alike.
    BrokenForm(FormError),
}

impl std::fmt::Display for BodyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("the request body is empty"),
            Self::Malformed { message, offset } => write!(f, "{message} at byte {offset}"),
            Self::TooManyMembers(count) => write!(
                f,
                "the request body has {count} members, more than the {MEMBERS_MAX} that are allowed"
            ),
            Self::Repeated(key) => write!(f, "the key `{key}` appears twice"),
            Self::BrokenForm(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BodyError {}

impl RequestBody {
    /// Checks `bytes` and notes the members of the outermost object.
    pub fn parse(bytes: Bytes) -> Result<Self, BodyError> {
        if bytes.is_empty() {
            return Err(BodyError::Empty);
        }
        let outline = json::outline(&bytes, MEMBERS_MAX).map_err(|e| BodyError::Malformed {
            message: e.what,
            offset: e.offset,
        })?;
        if outline.member_count > MEMBERS_MAX {
            return Err(BodyError::TooManyMembers(outline.member_count));
        }
        if outline.kind == Kind::Other && bytes.trim_ascii() == b"false" {
            // APISIX 3.18 takes a bare `false` for a failed parse.
            return Err(BodyError::Malformed {
                message: "the body is `false`",
                offset: 0,
            });
        }
        let body = Self {
            bytes,
            kind: outline.kind,
            members: outline.members,
            end: outline.end,
            form: None,
        };
        if body.places("model").count() > 1 {
            return Err(BodyError::Repeated("model"));
        }
        Ok(body)
    }

    /// Checks that `bytes` are a form between delimiters of `boundary`, and notes its model.
    pub fn form(bytes: Bytes, boundary: &str) -> Result<Self, BodyError> {
        if bytes.is_empty() {
            return Err(BodyError::Empty);
        }
        let mut parts = Parts::new(&bytes, boundary);
        // What stands before the first delimiter, or behind a part that cannot be read, others
        // might read: with a model that we have not seen.
        let broken = |error| Err(BodyError::BrokenForm(error));
        if !parts.begins_at_once() {
            return broken(FormError::Preamble);
        }
        let (mut model, mut stream, mut count) = (None, false, 0);
        for part in parts.by_ref() {
            count += 1;
            if count > MEMBERS_MAX {
                return Err(BodyError::TooManyMembers(count));
            }
            if !part.is_plain() {
                return broken(FormError::Head(count));
            }
            if part.is_called("model") && model.replace(part.value.clone()).is_some() {
                return Err(BodyError::Repeated("model"));
            }
            if part.is_called("stream") {
                stream = bytes[part.value].eq_ignore_ascii_case(b"true");
            }
        }
        if !parts.is_closed() {
            return broken(FormError::Unfinished(count + 1));
        }
        if let Some(at) = parts.stray_boundary() {
            return broken(FormError::StrayBoundary(at));
        }
        Ok(Self {
            kind: Kind::Other,
            members: Vec::new(),
            end: bytes.len(),
            form: Some(Form {
                model,
                boundary: boundary.to_owned(),
                stream,
            }),
            bytes,
        })
    }

    /// No body, as requests have it whose method needs none.
    pub fn none() -> Self {
        Self {
            bytes: Bytes::new(),
            kind: Kind::Other,
            members: Vec::new(),
            end: 0,
            form: None,
        }
    }

    /// The client's own bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The value of a member, as it stands. The last one counts, as parsers have it.
    pub fn member(&self, name: &str) -> Option<&[u8]> {
        self.places(name)
            .last()
            .map(|member| &self.bytes[member.value.clone()])
    }

    /// `model`, if it says something: a non-empty text, or a number as text.
    pub fn model(&self) -> Option<Cow<'_, str>> {
        if let Some(form) = &self.form {
            let text = std::str::from_utf8(&self.bytes[form.model.clone()?]).ok();
            return text.filter(|text| !text.is_empty()).map(Cow::Borrowed);
        }
        let value = self.member("model")?;
        match value.first()? {
            b'"' => json::text(value).filter(|model| !model.is_empty()),
            b'-' | b'0'..=b'9' => std::str::from_utf8(value).ok().map(Cow::Borrowed),
            b'{' | b'[' => Some(Cow::Borrowed("<non-scalar>")),
            _ => None,
        }
    }

    /// It is a form rather than JSON.
    pub fn is_form(&self) -> bool {
        self.form.is_some()
    }

    /// `stream` is literally `true`.
    pub fn stream(&self) -> bool {
        match &self.form {
            Some(form) => form.stream,
            None => self.member("stream") == Some(b"true"),
        }
    }

    /// What a payload log shows of the request: messages or input, as they stand.
    pub fn raw_messages(&self, protocol: Protocol) -> Option<&[u8]> {
        match protocol {
            Protocol::OpenaiChat
            | Protocol::AnthropicMessages
            | Protocol::BedrockConverse
            | Protocol::CohereChat => self.member("messages"),
            Protocol::OpenaiResponses | Protocol::OpenaiEmbeddings => self.member("input"),
            Protocol::GeminiGenerateContent => self.member("contents"),
            Protocol::Vectors(_) | Protocol::Direct(_) | Protocol::Passthrough => None,
        }
    }

    /// The body is an object or array with something in it.
    pub(crate) fn is_filled(&self) -> bool {
        match self.kind {
            Kind::Object => !self.members.is_empty(),
            Kind::Array { empty } => !empty,
            Kind::Other => false,
        }
    }

    pub(crate) fn is_container(&self) -> bool {
        self.kind != Kind::Other
    }

    pub(crate) fn is_object(&self) -> bool {
        self.kind == Kind::Object
    }

    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    /// What is known of it, if it is a form.
    pub(crate) fn as_form(&self) -> Option<&Form> {
        self.form.as_ref()
    }

    /// Offset of the closing brace.
    pub(crate) fn end(&self) -> usize {
        self.end
    }

    pub(crate) fn slice(&self, range: Range<usize>) -> Bytes {
        self.bytes.slice(range)
    }

    fn places<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Member> {
        self.members
            .iter()
            .filter(move |member| member.is(&self.bytes, name))
    }
}

/// The most members that the outermost object may have: requests have a few dozen, and each is
/// noted in more bytes than it takes to send one.
pub const MEMBERS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RequestBody, BodyError> {
        RequestBody::parse(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn members_are_read_without_a_tree() {
        let body = parse(
            r#"{"model":"gpt","stream":true,"tools":[{},{"a":[1,2]}],"user":"alice","messages":[{"role":"user"}]}"#,
        )
        .expect("valid");
        assert_eq!(body.model().as_deref(), Some("gpt"));
        assert!(body.stream());
        assert_eq!(body.member("user"), Some(&br#""alice""#[..]));
        assert_eq!(
            body.raw_messages(Protocol::OpenaiChat),
            Some(&br#"[{"role":"user"}]"#[..])
        );
    }

    #[test]
    fn there_are_only_so_many_members() {
        let body = |count: usize| {
            let members = vec![r#""\u0061":0"#; count - 1].join(",");
            parse(&format!(r#"{{{members},"model":"m"}}"#))
        };
        let most = body(MEMBERS_MAX).expect("as many as there may be");
        assert_eq!(most.model().as_deref(), Some("m"));
        assert_eq!(most.member("a"), Some(&b"0"[..]));
        let error = body(MEMBERS_MAX + 1).expect_err("one more");
        assert_eq!(error, BodyError::TooManyMembers(MEMBERS_MAX + 1));
        assert!(error.to_string().contains("4097 members"), "{error}");
        // Further in there may be any number.
        let inside = vec![r#""":0"#; MEMBERS_MAX + 1].join(",");
        assert!(parse(&format!(r#"{{"x":{{{inside}}}}}"#)).is_ok());
    }

    #[test]
    fn models_are_texts() {
        let model = |text: &str| parse(text).expect("valid").model().map(Cow::into_owned);
        assert_eq!(model(r#"{"model":"a\"b"}"#).as_deref(), Some("a\"b"));
        assert_eq!(model(r#"{"model":5}"#).as_deref(), Some("5"));
        assert_eq!(
            model(r#"{"model":"gpt\ud83d-4"}"#).as_deref(),
            Some("gpt\u{fffd}-4")
        );
        assert_eq!(model(r#"{"model":""}"#), None);
        assert_eq!(model(r#"{"model":null}"#), None);
        assert_eq!(model(r#"{"model":[1]}"#).as_deref(), Some("<non-scalar>"));
        assert_eq!(model(r#"{"mod\u0065l":"x"}"#).as_deref(), Some("x"));
    }

    #[test]
    fn forms_name_their_model() {
        let part = |head: &str, value: &str| format!("--b\r\n{head}\r\n\r\n{value}\r\n");
        let field = |name: &str, value: &str| {
            part(
                &format!("Content-Disposition: form-data; name=\"{name}\""),
                value,
            )
        };
        let form = |parts: &str| RequestBody::form(Bytes::from(format!("{parts}--b--\r\n")), "b");
        let whole = form(&(field("file", "\u{0}") + &field("model", "m-1"))).expect("a form");
        assert_eq!(whole.model().as_deref(), Some("m-1"));
        assert!(!whole.stream() && whole.member("model").is_none());
        let streams = form(&field("stream", "True")).expect("a form");
        assert!(streams.stream() && streams.model().is_none());
        let refused = |parts: &str, expected: BodyError| {
            assert_eq!(form(parts).expect_err("refused"), expected, "{parts}");
        };
        let two = field("model", "a") + &field("model", "b");
        refused(&two, BodyError::Repeated("model"));
        // Whatever others might find a model in.
        let hidden = field("model", "b");
        let is_broken = |parts: &str, error| refused(parts, BodyError::BrokenForm(error));
        is_broken(&format!("a\r\n{hidden}"), FormError::Preamble);
        is_broken(&format!("--b\n\r\n{hidden}"), FormError::Unfinished(1));
        let no_head = "--b\r\nno head\r\n";
        is_broken(&(no_head.to_owned() + &hidden), FormError::Unfinished(1));
        let folded = part("Content-Disposition: form-data;\r\n name=model", "b");
        is_broken(&(field("file", "") + &folded), FormError::Head(2));
        let extended = part("Content-Disposition: form-data; name*=UTF-8''model", "b");
        is_broken(&extended, FormError::Head(1));
        // What some readers take for a field `model`, and others do not.
        for disposition in [
            "form-data; x; name=\"model\"",
            "form-data;; name=\"model\"",
            "attachment; name=\"model\"",
            "form-data; name=\"x\"; name=\"model\"",
            "form-data; name= \"model\"",
            "form-data; filename=\"a\"",
            "form-data; filename=\"\\\"; name=model; x=\"; name=a",
        ] {
            let posing = format!("--b\r\nContent-Disposition: {disposition}\r\n\r\nBIG\r\n--b--");
            is_broken(&posing, FormError::Head(1));
        }
        let second = "--b\r\nContent-Disposition: form-data; name=a\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nBIG\r\n--b--";
        is_broken(second, FormError::Head(1));
        let stray = "--b\r\nContent-Disposition: form-data; name=a\r\n\r\nhi\n--b\nContent-Disposition: form-data; name=\"model\"\n\nBIG\r\n--b--";
        is_broken(stray, FormError::StrayBoundary(50));
        is_broken("--b--\r\n", FormError::StrayBoundary(7));
        is_broken(&format!("--b--\r\n{hidden}"), FormError::StrayBoundary(7));
        let empty = RequestBody::form(Bytes::new(), "b").expect_err("empty");
        assert_eq!(empty, BodyError::Empty);
        let many = field("a", "").repeat(MEMBERS_MAX + 1);
        refused(&many, BodyError::TooManyMembers(MEMBERS_MAX + 1));
        let open = RequestBody::form(Bytes::from(hidden), "b").expect_err("open");
        assert_eq!(open, BodyError::BrokenForm(FormError::Unfinished(1)));
    }

    /// P-003, P-004
    #[test]
    fn bad_bodies_are_refused() {
        assert_eq!(parse("").expect_err("empty"), BodyError::Empty);
        assert!(matches!(
            parse("{}\"messages\": ["),
            Err(BodyError::Malformed { offset: 2, .. })
        ));
        assert!(matches!(parse("false"), Err(BodyError::Malformed { .. })));
        assert_eq!(
            parse(r#"{"model":"a","x":1,"mod\u0065l":"b"}"#).expect_err("twice"),
            BodyError::Repeated("model")
        );
        // A `model` inside something else is somebody else's.
        assert!(parse(r#"{"model":"a","x":{"model":"b","model":"c"}}"#).is_ok());
        assert!(parse("null").is_ok());
    }
}
