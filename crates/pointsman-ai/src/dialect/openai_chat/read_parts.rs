//! Reading what messages are made of.

use super::OWN;
use crate::{
    conversation::{
        Arguments, CacheMark, Malformed, Media, MediaKind, Opaque, Part, Reasoning, Signature,
        Source, Text, ToolCall,
    },
    json::{string::JsonStr, tree::Node},
};

/// Content: a string, or parts.
pub(super) fn read_content<'a>(content: Node<'_, 'a>) -> Result<Vec<Part<'a>>, Malformed> {
    if let Some(text) = content.str() {
        return Ok(vec![Part::text(text)]);
    }
    if !content.is_array() {
        return Err(Malformed::at(
            content,
            "expected a string or a list of parts",
        ));
    }
    content.items().map(read_part).collect()
}

fn read_part<'a>(part: Node<'_, 'a>) -> Result<Part<'a>, Malformed> {
    if !part.is_object() {
        return Err(Malformed::at(part, "expected a content part"));
    }
    let of = |name: &str| part.get(name);
    let missing = |what: &str| Malformed::at(part, format!("{what}: a string is missing"));
    let kind = part.get_str("type").unwrap_or_default();
    Ok(match &*kind.decode() {
        "text" => Part::Text(Text {
            text: part.get_str("text").ok_or_else(|| missing("text"))?,
            cache: of("cache_control").map(|mark| CacheMark {
                ttl: mark.get_str("ttl"),
            }),
            ..Text::default()
        }),
        "refusal" => Part::Refusal(part.get_str("refusal").ok_or_else(|| missing("refusal"))?),
        "image_url" => {
            let image = of("image_url");
            let url = image.and_then(|image| image.str().or_else(|| image.get_str("url")));
            let url = url.ok_or_else(|| missing("image_url.url"))?;
            let mut media = media_at(url, MediaKind::Image);
            media.detail = image.and_then(|image| image.get_str("detail"));
            Part::Media(media)
        }
        "input_audio" => {
            let audio = of("input_audio");
            let data = audio.and_then(|audio| audio.get_str("data"));
            let source = Source::Base64(data.ok_or_else(|| missing("input_audio.data"))?);
            let format = audio.and_then(|audio| audio.get_str("format"));
            let media_type = format.map(|format| match &*format.decode() {
                "mp3" => JsonStr::new("audio/mpeg"),
                other => JsonStr::from(format!("audio/{other}")),
            });
            Part::Media(Media::new(MediaKind::Audio, source, media_type))
        }
        "file" => {
            let file = of("file");
            read_file(file).ok_or_else(|| missing("file.file_data or file.file_id"))?
        }
        _ => Part::Opaque(Opaque {
            protocol: OWN,
            kind: kind.clone(),
            json: part.raw().into(),
        }),
    })
}

fn read_file<'a>(file: Option<Node<'_, 'a>>) -> Option<Part<'a>> {
    let file = file?;
    let name = file.get_str("filename");
    let mut media = match file.get_str("file_data") {
        Some(data) => media_at(data, MediaKind::Document),
        None => Media::new(
            MediaKind::Document,
            Source::File(file.get_str("file_id")?),
            None,
        ),
    };
    media.name = name;
    Some(Part::Media(media))
}

/// What is at `url`. Some put documents where pictures belong.
fn media_at(url: JsonStr<'_>, kind: MediaKind) -> Media<'_> {
    let (source, media_type) = Source::of_url(url);
    let is_document = media_type.as_ref().is_some_and(|media_type| {
        let spelt = media_type.as_spelt();
        spelt.starts_with("application/") || spelt.starts_with("text/")
    });
    let kind = if is_document {
        MediaKind::Document
    } else {
        kind
    };
    Media::new(kind, source, media_type)
}

/// What the model says, in a request's history or in an answer: thoughts, texts, calls.
pub(super) fn read_message<'a>(message: Node<'_, 'a>) -> Result<Vec<Part<'a>>, Malformed> {
    let mut parts = read_thoughts(message);
    if let Some(content) = message.get("content") {
        let read = read_content(content)?;
        parts.extend(read.into_iter().filter(|part| !is_blank(part)));
    }
    if let Some(refusal) = message.get_str("refusal").filter(|text| !text.is_empty()) {
        parts.push(Part::Refusal(refusal));
    }
    for call in message.get("tool_calls").into_iter().flat_map(Node::items) {
        parts.push(read_call(call, call.get("function")));
    }
    if let Some(function) = message.get("function_call") {
        parts.push(read_call(function, Some(function)));
    }
    Ok(parts)
}

fn is_blank(part: &Part<'_>) -> bool {
    matches!(part, Part::Text(text) if text.text.is_empty())
}

fn read_call<'a>(call: Node<'_, 'a>, function: Option<Node<'_, 'a>>) -> Part<'a> {
    let text = |name| function.and_then(|function| function.get_str(name));
    Part::ToolCall(ToolCall {
        id: call.get_str("id").unwrap_or_default(),
        name: text("name").unwrap_or_default(),
        arguments: Arguments::Text(text("arguments").unwrap_or_default()),
        signature: thought_signature(call),
        cache: None,
    })
}

/// What Gemini's OpenAI surface wants back with a call.
pub(super) fn thought_signature<'a>(call: Node<'_, 'a>) -> Option<Signature<'a>> {
    let google = call.get("extra_content")?.get("google")?;
    let data = google.get_str("thought_signature")?;
    Some(Signature::read(OWN, data)).filter(|signature| !signature.data.is_empty())
}

/// Thoughts: OpenRouter's details, which may be signed, or else the plain text of others.
fn read_thoughts<'a>(message: Node<'_, 'a>) -> Vec<Part<'a>> {
    let details = message
        .get("reasoning_details")
        .into_iter()
        .flat_map(Node::items);
    let parts: Vec<_> = details
        .filter_map(read_detail)
        .map(Part::Reasoning)
        .collect();
    if !parts.is_empty() {
        return parts;
    }
    let text = message
        .get_str("reasoning_content")
        .or_else(|| message.get_str("reasoning"));
    text.filter(|text| !text.is_empty())
        .map(|text| {
            Part::Reasoning(Reasoning {
                text,
                ..Reasoning::default()
            })
        })
        .into_iter()
        .collect()
}

/// One of OpenRouter's `reasoning_details`.
pub(super) fn read_detail<'a>(detail: Node<'_, 'a>) -> Option<Reasoning<'a>> {
    let signature = |name| {
        let data = detail.get_str(name).filter(|data| !data.is_empty())?;
        Some(Signature::read(OWN, data))
    };
    let kind = detail.get_str("type")?;
    match &*kind.decode() {
        "reasoning.text" => Some(Reasoning {
            text: detail.get_str("text").unwrap_or_default(),
            signature: signature("signature"),
            ..Reasoning::default()
        }),
        "reasoning.summary" => Some(Reasoning {
            text: detail.get_str("summary")?,
            ..Reasoning::default()
        }),
        "reasoning.encrypted" => Some(Reasoning {
            signature: signature("data"),
            is_hidden: true,
            id: detail.get_str("id"),
            ..Reasoning::default()
        }),
        _ => None,
    }
}
