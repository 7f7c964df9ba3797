//! Parts of contents, as providers and clients get them alike.

use std::borrow::Cow;

use super::{OWN, read_part::media_type_of};
use crate::{
    base64,
    conversation::{Json, Media, MediaKind, Part, Source, ToolCall},
    dialect::parse,
    json::{string::JsonStr, write::Writer},
};

/// `{"text": ...}`.
pub(super) fn write_text(text: &JsonStr<'_>, w: &mut Writer<'_>) {
    w.object(|w| w.key("text").str(text));
}

/// A thought; a hidden one is a signature alone.
pub(super) fn write_thought(
    text: &JsonStr<'_>,
    is_hidden: bool,
    signature: Option<&JsonStr<'_>>,
    w: &mut Writer<'_>,
) {
    w.object(|w| {
        // A signature without any other member is refused by some versions of the API.
        w.key("text").str(text);
        if !is_hidden {
            w.key("thought").bool(true);
        }
        if let Some(signature) = signature {
            w.key("thoughtSignature").str(signature);
        }
    });
}

/// A call; arguments that are no object become one without members, since nothing else is allowed.
pub(super) fn write_call(call: &ToolCall<'_>, signature: Option<&JsonStr<'_>>, w: &mut Writer<'_>) {
    w.object(|w| {
        w.key("functionCall").object(|w| {
            if !call.id.is_empty() {
                w.key("id").str(&call.id);
            }
            w.key("name").str(&call.name);
            let args = call.arguments.as_object();
            w.key("args").raw(args.as_deref().unwrap_or("{}"));
        });
        if let Some(signature) = signature {
            w.key("thoughtSignature").str(signature);
        }
    });
}

/// A picture, a document, sound or film.
pub(super) fn write_media(media: &Media<'_>, w: &mut Writer<'_>) {
    w.object(|w| match &media.source {
        Source::Base64(data) => inline(media, data, w),
        Source::Text(text) => {
            let data = base64::encode(text.decode().as_bytes());
            inline(media, &JsonStr::from(data), w);
        }
        Source::Url(uri) | Source::File(uri) => w.key("fileData").object(|w| {
            let guessed = || media_type_of(&uri.decode()).map(JsonStr::new);
            // Left out if nobody knows it: the provider then asks whoever has the file.
            if let Some(media_type) = media.media_type.clone().or_else(guessed) {
                w.key("mimeType").str(&media_type);
            }
            w.key("fileUri").str(uri);
        }),
    });
}

fn inline(media: &Media<'_>, data: &JsonStr<'_>, w: &mut Writer<'_>) {
    w.key("inlineData").object(|w| {
        let usual = || match (media.kind, &media.source) {
            (_, Source::Text(_)) => "text/plain",
            (MediaKind::Image, _) => "image/png",
            (MediaKind::Document, _) => "application/pdf",
            (MediaKind::Audio, _) => "audio/wav",
            (MediaKind::Video, _) => "video/mp4",
        };
        let media_type = media.media_type.clone();
        let media_type = media_type.unwrap_or_else(|| JsonStr::new(usual()));
        w.key("mimeType").str(&media_type);
        w.key("data").str(data);
    });
}

/// The `response` of what a tool answered: an object, so text stands in one, by the convention that
/// the documentation of `FunctionResponse` has for it.
pub(super) fn write_output(text: &JsonStr<'_>, is_error: bool, w: &mut Writer<'_>) {
    if !is_error && let Some(json) = plain_object(text) {
        return w.raw(&json);
    }
    w.object(|w| {
        let key = if is_error { "error" } else { "output" };
        w.key(key).str(text);
    });
}

/// The object that `text` is, unless it would be taken for one of the convention.
fn plain_object<'t>(text: &'t JsonStr<'_>) -> Option<Json<'t>> {
    let json: Cow<'_, str> = text.decode();
    if !json.trim_ascii_start().starts_with('{') {
        return None;
    }
    let tree = parse(json.as_bytes()).ok()?;
    let mut members = tree.root().members();
    let (first, _) = members.next()?;
    let is_convention = ["output", "error", "result"]
        .iter()
        .any(|key| first.is(key));
    let is_plain = !is_convention || members.next().is_some();
    drop(members);
    drop(tree);
    is_plain.then_some(json)
}

/// Whether anything is written for `part`.
pub(super) fn says_something(part: &Part<'_>) -> bool {
    match part {
        Part::Text(text) => !text.text.is_empty(),
        Part::Refusal(text) => !text.is_empty(),
        Part::Opaque(opaque) => opaque.protocol == OWN,
        Part::Reasoning(reasoning) => {
            let own = reasoning.signature.as_ref();
            let is_own = own.is_some_and(|signature| signature.origin == OWN);
            is_own || !reasoning.is_hidden && !reasoning.text.is_empty()
        }
        Part::Media(_) | Part::ToolCall(_) | Part::ToolResult(_) => true,
    }
}
