//! Errors.

use crate::{
    conversation::ErrorMessage,
    error::openai_type,
    json::{string::JsonStr, tree::Node, write::Writer},
};

/// `{"error": {"message": ...}}`, which may also stand in a response that failed, or in an event.
pub(in crate::dialect) fn read_error<'a>(root: Node<'_, 'a>) -> Option<ErrorMessage<'a>> {
    of_object(root.get("error")?)
}

/// An error object.
pub(super) fn of_object<'a>(error: Node<'_, 'a>) -> Option<ErrorMessage<'a>> {
    // Compatible servers have numbers for codes.
    let code = error.get("code").and_then(|code| match code.str() {
        Some(text) => Some(text),
        None => code.number().map(JsonStr::new),
    });
    Some(ErrorMessage {
        kind: error.get_str("type"),
        message: error.get_str("message")?,
        code,
        param: error.get_str("param"),
    })
}

pub(in crate::dialect) fn write_error(status: u16, error: &ErrorMessage<'_>, w: &mut Writer<'_>) {
    let (kind, code) = words(error);
    w.object(|w| {
        w.key("error").object(|w| {
            w.key("message").str(&error.message);
            w.key("type");
            match kind {
                Some(kind) => w.str(kind),
                None => w.text(openai_type(status)),
            }
            optional(w, "param", error.param.as_ref());
            optional(w, "code", code);
        });
    });
}

/// Type and code. What another protocol calls the kind of an error becomes its code, unless it is
/// in the form of OpenAI's types.
fn words<'e, 'a>(
    error: &'e ErrorMessage<'a>,
) -> (Option<&'e JsonStr<'a>>, Option<&'e JsonStr<'a>>) {
    let kind = error.kind.as_ref();
    let is_type = |kind: &&JsonStr<'_>| kind.as_spelt().ends_with("_error");
    let code = error.code.as_ref();
    (
        kind.filter(is_type),
        code.or_else(|| kind.filter(|kind| !is_type(kind))),
    )
}

/// The code of an error inside a response, which must have one.
pub(super) fn code_of(error: &ErrorMessage<'_>) -> JsonStr<'static> {
    match words(error) {
        (_, Some(code)) => code.clone().into_owned(),
        (Some(kind), None) if kind.is("rate_limit_error") => JsonStr::new("rate_limit_exceeded"),
        _ => JsonStr::new("server_error"),
    }
}

/// A member that is `null` when there is nothing to say.
pub(super) fn optional(w: &mut Writer<'_>, name: &'static str, text: Option<&JsonStr<'_>>) {
    w.key(name);
    match text {
        Some(text) => w.str(text),
        None => w.null(),
    }
}
