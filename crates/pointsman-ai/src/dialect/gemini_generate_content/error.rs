//! Errors: `google.rpc.Status` as JSON.

use super::{count, field, fields, text_field};
use crate::{
    conversation::ErrorMessage,
    error::google_status,
    json::{string::JsonStr, tree::Node, write::Writer},
};

/// What a provider's error says. From `streamGenerateContent` it comes in an array.
pub(in crate::dialect) fn read_error<'a>(root: Node<'_, 'a>) -> Option<ErrorMessage<'a>> {
    let root = root.items().next().unwrap_or(root);
    let error = field(root, "error").filter(|error| error.is_object())?;
    let names = ["code", "message", "status", "details"];
    let [code, message, status, details] = fields(error, names, |_, _| {});
    let code = code.and_then(|code| count(code).ok());
    let name = || code.map(|code| JsonStr::new(google_status(u16::try_from(code).unwrap_or(500))));
    let mut read = ErrorMessage {
        kind: status.and_then(Node::str).or_else(name),
        message: message.and_then(Node::str).unwrap_or_default(),
        ..ErrorMessage::default()
    };
    for detail in details.into_iter().flat_map(Node::items) {
        let [reason, violations] = fields(detail, ["reason", "fieldViolations"], |_, _| {});
        let first = violations.and_then(|list| list.items().next());
        read.code = read.code.or_else(|| reason?.str());
        read.param = read.param.or_else(|| text_field(first?, "field"));
    }
    Some(read)
}

/// Writes an error to a client; of a `status` that is none its kind decides.
pub(in crate::dialect) fn write_error(status: u16, error: &ErrorMessage<'_>, w: &mut Writer<'_>) {
    let kind = error.kind.as_ref().map(|kind| kind.decode());
    let status = match status {
        400.. => status,
        _ => status_of(kind.as_deref().unwrap_or_default()),
    };
    let own = kind.filter(|kind| STATUSES.iter().any(|(name, _)| name == kind));
    w.object(|w| {
        w.key("error").object(|w| {
            w.key("code").u64(u64::from(status));
            w.key("message").str(&error.message);
            w.key("status")
                .text(own.as_deref().unwrap_or_else(|| google_status(status)));
            if error.code.is_some() || error.param.is_some() {
                w.key("details").array(|w| write_details(error, w));
            }
        });
    });
}

fn write_details(error: &ErrorMessage<'_>, w: &mut Writer<'_>) {
    if let Some(code) = &error.code {
        w.object(|w| {
            w.key("@type")
                .text("type.googleapis.com/google.rpc.ErrorInfo");
            w.key("reason").str(code);
        });
    }
    if let Some(param) = &error.param {
        w.object(|w| {
            w.key("@type")
                .text("type.googleapis.com/google.rpc.BadRequest");
            w.key("fieldViolations").array(|w| {
                w.object(|w| {
                    w.key("field").str(param);
                    w.key("description").str(&error.message);
                });
            });
        });
    }
}

/// The HTTP status of an error that a provider calls `kind`, in whatever protocol.
fn status_of(kind: &str) -> u16 {
    if let Some((_, status)) = STATUSES.iter().find(|(name, _)| *name == kind) {
        return *status;
    }
    let has = |word| kind.to_ascii_lowercase().contains(word);
    match () {
        () if has("overloaded") || has("unavailable") => 503,
        () if has("rate_limit") || has("throttling") || has("quota") => 429,
        () if has("timeout") => 504,
        () if has("invalid") || has("validation") => 400,
        () if has("authentication") => 401,
        () if has("permission") || has("accessdenied") => 403,
        () if has("not_found") || has("notfound") => 404,
        () => 500,
    }
}

/// Codes of gRPC and their HTTP statuses (`google/rpc/code.proto`).
const STATUSES: &[(&str, u16)] = &[
    ("INVALID_ARGUMENT", 400),
    ("FAILED_PRECONDITION", 400),
    ("OUT_OF_RANGE", 400),
    ("UNAUTHENTICATED", 401),
    ("PERMISSION_DENIED", 403),
    ("NOT_FOUND", 404),
    ("ALREADY_EXISTS", 409),
    ("ABORTED", 409),
    ("RESOURCE_EXHAUSTED", 429),
    ("CANCELLED", 499),
    ("UNKNOWN", 500),
    ("INTERNAL", 500),
    ("DATA_LOSS", 500),
    ("UNIMPLEMENTED", 501),
    ("UNAVAILABLE", 503),
    ("DEADLINE_EXCEEDED", 504),
];
