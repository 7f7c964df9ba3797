//! Writing what messages are made of.

use super::{OWN, takes_files};
use crate::{
    Provider,
    conversation::{Media, MediaKind, Part, Reasoning, Source, ToolCall},
    json::{string::JsonStr, write::Writer},
};

/// A part of what the user or a tool says.
pub(super) fn write_part(part: &Part<'_>, provider: Provider, w: &mut Writer<'_>) {
    match part {
        Part::Text(text) => write_text(&text.text, w),
        Part::Refusal(text) => write_text(text, w),
        Part::Media(media) => write_media(media, provider, w),
        Part::Opaque(opaque) if opaque.protocol == OWN => w.raw(&opaque.json),
        Part::Opaque(_) | Part::ToolCall(_) | Part::ToolResult(_) | Part::Reasoning(_) => {}
    }
}

fn write_text(text: &JsonStr<'_>, w: &mut Writer<'_>) {
    w.object(|w| {
        w.key("type").text("text");
        w.key("text").str(text);
    });
}

fn write_media(media: &Media<'_>, provider: Provider, w: &mut Writer<'_>) {
    match (media.kind, &media.source) {
        (MediaKind::Image, Source::Base64(_) | Source::Url(_)) => write_image(media, w),
        // A text is a text, whatever it was called.
        (_, Source::Text(text)) => write_text(text, w),
        (MediaKind::Document, Source::Base64(_)) if !takes_files(provider) => {
            w.object(|w| {
                w.key("type").text("image_url");
                w.key("image_url")
                    .object(|w| w.key("url").str(&media.as_url(PDF)));
            });
        }
        (MediaKind::Document, Source::Base64(_)) => write_file(media, w, |w| {
            w.key("file_data").str(&media.as_url(PDF));
        }),
        (MediaKind::Document, Source::File(id)) if takes_files(provider) => {
            write_file(media, w, |w| w.key("file_id").str(id));
        }
        (MediaKind::Audio, Source::Base64(data)) => {
            w.object(|w| {
                w.key("type").text("input_audio");
                w.key("input_audio").object(|w| {
                    w.key("data").str(data);
                    w.key("format").text(&audio_format(media));
                });
            });
        }
        _ => {}
    }
}

/// Whether [`write_media`] writes it, and not as a text.
pub(super) fn is_media(part: &Part<'_>, provider: Provider) -> bool {
    let Part::Media(media) = part else {
        return false;
    };
    match (media.kind, &media.source) {
        (MediaKind::Image, Source::Base64(_) | Source::Url(_)) => true,
        (MediaKind::Document | MediaKind::Audio, Source::Base64(_)) => true,
        (MediaKind::Document, Source::File(_)) => takes_files(provider),
        _ => false,
    }
}

fn write_image(media: &Media<'_>, w: &mut Writer<'_>) {
    w.object(|w| {
        w.key("type").text("image_url");
        w.key("image_url").object(|w| {
            w.key("url").str(&media.as_url("image/png"));
            if let Some(detail) = &media.detail {
                w.key("detail").str(detail);
            }
        });
    });
}

fn write_file(media: &Media<'_>, w: &mut Writer<'_>, place: impl FnOnce(&mut Writer<'_>)) {
    w.object(|w| {
        w.key("type").text("file");
        w.key("file").object(|w| {
            match &media.name {
                Some(name) => w.key("filename").str(name),
                // A name is demanded with data, and says what it is.
                None if matches!(media.source, Source::Base64(_)) => {
                    w.key("filename").text("document.pdf");
                }
                None => {}
            }
            place(w);
        });
    });
}

/// `wav` or `mp3` as a rule.
fn audio_format(media: &Media<'_>) -> String {
    let named = media
        .media_type
        .as_ref()
        .map(|kind| kind.decode().into_owned());
    let named = named.unwrap_or_default();
    match named.strip_prefix("audio/") {
        None | Some("") => "wav".to_owned(),
        Some("mpeg") => "mp3".to_owned(),
        Some("x-wav" | "wave") => "wav".to_owned(),
        Some(other) => other.to_owned(),
    }
}

pub(super) fn write_call(call: &ToolCall<'_>, w: &mut Writer<'_>) {
    w.object(|w| {
        w.key("id").str(&call.id);
        w.key("type").text("function");
        w.key("function").object(|w| {
            w.key("name").str(&call.name);
            w.key("arguments");
            let arguments = call.arguments.as_text();
            if arguments.is_empty() {
                w.text("{}");
            } else {
                w.str(&arguments);
            }
        });
    });
}

/// All refusals of a turn, which are one here.
pub(super) fn refusal_of<'p>(parts: &'p [Part<'_>]) -> Option<JsonStr<'p>> {
    let refusals = parts.iter().filter_map(|part| match part {
        Part::Refusal(text) => Some(text.clone()),
        _ => None,
    });
    let refusals: Vec<JsonStr<'p>> = refusals.collect();
    (!refusals.is_empty()).then(|| JsonStr::concat(&refusals, ""))
}

/// Thoughts in OpenRouter's form; a signature of another's is marked. `own` leaves those out that
/// this protocol's provider did not sign.
pub(super) fn write_details<'p>(
    thoughts: impl Iterator<Item = &'p Reasoning<'p>>,
    own: bool,
    w: &mut Writer<'_>,
) {
    for reasoning in thoughts {
        let signature = reasoning.signature.as_ref();
        let is_own = signature.is_some_and(|signature| signature.origin == OWN);
        if own && !is_own || reasoning.is_hidden && signature.is_none() {
            continue;
        }
        let data = signature.map(|signature| signature.spelt(OWN));
        w.object(|w| {
            if reasoning.is_hidden {
                w.key("type").text("reasoning.encrypted");
                w.key("data").str(&data.unwrap_or_default());
                if let Some(id) = &reasoning.id {
                    w.key("id").str(id);
                }
                return;
            }
            w.key("type").text("reasoning.text");
            w.key("text").str(&reasoning.text);
            if let Some(data) = data {
                w.key("signature").str(&data);
            }
        });
    }
}

const PDF: &str = "application/pdf";
