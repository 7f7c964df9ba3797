//! Errors.

use crate::{
    conversation::ErrorMessage,
    error::openai_type,
    json::{string::JsonStr, tree::Node, write::Writer},
};

/// `{"error": {"message", "type", "param", "code"}}`; some say `{"error": "..."}`.
pub(in crate::dialect) fn read_error<'a>(root: Node<'_, 'a>) -> Option<ErrorMessage<'a>> {
    let error = root.get("error")?;
    if let Some(message) = error.str() {
        return Some(ErrorMessage {
            message,
            ..ErrorMessage::default()
        });
    }
    let code = error.get("code");
    Some(ErrorMessage {
        kind: error.get_str("type"),
        message: error.get_str("message").unwrap_or_default(),
        code: code.and_then(|code| code.str().or_else(|| code.number().map(JsonStr::new))),
        param: error.get_str("param"),
    })
}

/// The provider's own words stay; what they leave out is by the status.
pub(in crate::dialect) fn write_error(status: u16, error: &ErrorMessage<'_>, w: &mut Writer<'_>) {
    let or_null = |text: &Option<JsonStr<'_>>, w: &mut Writer<'_>| match text {
        Some(text) => w.str(text),
        None => w.null(),
    };
    w.object(|w| {
        w.key("error").object(|w| {
            w.key("message").str(&error.message);
            w.key("type");
            match &error.kind {
                Some(kind) => w.str(kind),
                None => w.text(openai_type(status)),
            }
            w.key("param");
            or_null(&error.param, w);
            w.key("code");
            or_null(&error.code, w);
        });
    });
}
