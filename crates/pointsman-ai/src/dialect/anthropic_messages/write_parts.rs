//! Writing what messages are made of.

use super::{OWN, write_citation};
use crate::{
    conversation::{
        CacheMark, Media, MediaKind, Part, Reasoning, Signature, Source, ToolCall, ToolResult,
    },
    json::{string::JsonStr, write::Writer},
};

/// A block of a request. Empty texts are refused by the provider, so they are none.
pub(super) fn write_part(part: &Part<'_>, w: &mut Writer<'_>) {
    match part {
        Part::Text(text) if text.text.is_empty() => {}
        Part::Text(text) => w.object(|w| {
            w.key("type").text("text");
            w.key("text").str(&text.text);
            let own = text.citations.iter().filter(
                |citation| matches!(&citation.native, Some((protocol, _)) if *protocol == OWN),
            );
            if own.clone().next().is_some() {
                w.key("citations")
                    .array(|w| own.for_each(|citation| write_citation(citation, w)));
            }
            write_mark(text.cache.as_ref(), w);
        }),
        Part::Media(media) => write_media(media, w),
        Part::ToolCall(call) => write_call(call, w),
        Part::ToolResult(result) => write_result(result, w),
        Part::Reasoning(reasoning) => write_reasoning(reasoning, w),
        Part::Refusal(text) if text.is_empty() => {}
        Part::Refusal(text) => w.object(|w| {
            w.key("type").text("text");
            w.key("text").str(text);
        }),
        Part::Opaque(opaque) => {
            if opaque.protocol == OWN {
                w.raw(&opaque.json);
            }
        }
    }
}

/// Whether [`write_part`] writes anything.
pub(super) fn is_written(part: &Part<'_>) -> bool {
    match part {
        Part::Text(text) => !text.text.is_empty(),
        Part::Media(media) => matches!(media.kind, MediaKind::Image | MediaKind::Document),
        Part::Reasoning(reasoning) => {
            let signature = reasoning.signature.as_ref();
            signature.is_some_and(|signature| signature.origin == OWN)
        }
        Part::Opaque(opaque) => opaque.protocol == OWN,
        Part::ToolCall(_) | Part::ToolResult(_) => true,
        Part::Refusal(text) => !text.is_empty(),
    }
}

pub(super) fn write_mark(mark: Option<&CacheMark<'_>>, w: &mut Writer<'_>) {
    let Some(mark) = mark else {
        return;
    };
    w.key("cache_control").object(|w| {
        w.key("type").text("ephemeral");
        if let Some(ttl) = &mark.ttl {
            w.key("ttl").str(ttl);
        }
    });
}

pub(super) fn write_call(call: &ToolCall<'_>, w: &mut Writer<'_>) {
    w.object(|w| {
        w.key("type").text("tool_use");
        w.key("id").str(&call.id);
        w.key("name").str(&call.name);
        let input = call.arguments.as_object();
        w.key("input").raw(input.as_deref().unwrap_or("{}"));
        write_mark(call.cache.as_ref(), w);
    });
}

fn write_result(result: &ToolResult<'_>, w: &mut Writer<'_>) {
    w.object(|w| {
        w.key("type").text("tool_result");
        w.key("tool_use_id").str(&result.call_id);
        match result.parts.as_slice() {
            [] => {}
            [Part::Text(text)] if result.plain => w.key("content").str(&text.text),
            parts => w
                .key("content")
                .array(|w| parts.iter().for_each(|part| write_part(part, w))),
        }
        if result.is_error {
            w.key("is_error").bool(true);
        }
        write_mark(result.cache.as_ref(), w);
    });
}

/// The provider checks signatures, so thoughts without one of its own stay away.
fn write_reasoning(reasoning: &Reasoning<'_>, w: &mut Writer<'_>) {
    let own = reasoning.signature.as_ref().filter(|s| s.origin == OWN);
    if let Some(signature) = own {
        write_thoughts(reasoning, Some(signature), w);
    }
}

/// Thoughts with `signature`, marked if it is not Anthropic's.
pub(super) fn write_thoughts(
    reasoning: &Reasoning<'_>,
    signature: Option<&Signature<'_>>,
    w: &mut Writer<'_>,
) {
    let signature = signature
        .map(|signature| signature.spelt(OWN))
        .unwrap_or_default();
    w.object(|w| {
        if reasoning.is_hidden {
            w.key("type").text("redacted_thinking");
            w.key("data").str(&signature);
            return;
        }
        w.key("type").text("thinking");
        w.key("thinking").str(&reasoning.text);
        w.key("signature").str(&signature);
    });
}

fn write_media(media: &Media<'_>, w: &mut Writer<'_>) {
    let (kind, usual) = match media.kind {
        MediaKind::Image => ("image", "image/png"),
        MediaKind::Document => ("document", "application/pdf"),
        MediaKind::Audio | MediaKind::Video => return,
    };
    w.object(|w| {
        w.key("type").text(kind);
        w.key("source").object(|w| write_source(media, usual, w));
        if media.kind == MediaKind::Document {
            if let Some(title) = &media.name {
                w.key("title").str(title);
            }
            if let Some(context) = &media.context {
                w.key("context").str(context);
            }
            if media.citations {
                w.key("citations").object(|w| w.key("enabled").bool(true));
            }
        }
        write_mark(media.cache.as_ref(), w);
    });
}

fn write_source(media: &Media<'_>, usual: &'static str, w: &mut Writer<'_>) {
    let mut here = |kind: &str, media_type: &JsonStr<'_>, data: &JsonStr<'_>| {
        w.key("type").text(kind);
        w.key("media_type").str(media_type);
        w.key("data").str(data);
    };
    match &media.source {
        Source::Base64(data) => {
            let media_type = media.media_type.clone();
            here(
                "base64",
                &media_type.unwrap_or_else(|| JsonStr::new(usual)),
                data,
            );
        }
        Source::Text(data) => here("text", &JsonStr::new("text/plain"), data),
        Source::Url(url) => {
            w.key("type").text("url");
            w.key("url").str(url);
        }
        Source::File(id) => {
            w.key("type").text("file");
            w.key("file_id").str(id);
        }
    }
}
