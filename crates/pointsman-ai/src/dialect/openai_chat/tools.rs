//! Calls of tools that carry a signature, as Gemini's OpenAI surface has them.

use super::{OWN, write_parts::write_call};
use crate::{
    conversation::{Signature, ToolCall},
    json::write::Writer,
};

/// A call, with `signature` if there is one.
pub(super) fn write_signed_call(
    call: &ToolCall<'_>,
    signature: Option<&Signature<'_>>,
    w: &mut Writer<'_>,
) {
    let Some(signature) = signature else {
        return write_call(call, w);
    };
    w.object(|w| {
        w.key("id").str(&call.id);
        w.key("type").text("function");
        w.key("function").object(|w| {
            w.key("name").str(&call.name);
            w.key("arguments").str(&call.arguments.as_text());
        });
        write_extra(signature, w);
    });
}

/// The member that holds `signature`.
pub(super) fn write_extra(signature: &Signature<'_>, w: &mut Writer<'_>) {
    w.key("extra_content").object(|w| {
        w.key("google")
            .object(|w| w.key("thought_signature").str(&signature.spelt(OWN)));
    });
}
