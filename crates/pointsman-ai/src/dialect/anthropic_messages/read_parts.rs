//! Reading what messages are made of.

use super::{OWN, read_citation, read_request::message_of};
use crate::{
    conversation::{
        Arguments, CacheMark, Malformed, Media, MediaKind, Message, Opaque, Part, Reasoning, Role,
        Signature, Source, Text, ToolCall, ToolResult,
    },
    json::{string::JsonStr, tree::Node},
};

pub(super) fn cache_of<'a>(node: Node<'_, 'a>) -> Option<CacheMark<'a>> {
    let mark = node.get("cache_control")?;
    Some(CacheMark {
        ttl: mark.get_str("ttl"),
    })
}

/// The system prompt: one message, if it says anything.
pub(super) fn read_system<'a>(system: Node<'_, 'a>) -> Result<Option<Message<'a>>, Malformed> {
    if let Some(text) = system.str() {
        let is_said = !text.is_empty();
        return Ok(is_said.then(|| message_of(Role::System, vec![Part::text(text)], true)));
    }
    if !system.is_array() {
        return Err(Malformed::at(
            system,
            "expected a string or a list of blocks",
        ));
    }
    let mut parts = Vec::new();
    for block in system.items() {
        match read_block(block)? {
            Some(Part::Text(mut text)) => {
                if let Some(stable) = without_billing_mark(&text.text) {
                    text.text = stable;
                }
                if !text.text.is_empty() {
                    parts.push(Part::Text(text));
                }
            }
            Some(part) => parts.push(part),
            None => {}
        }
    }
    Ok((!parts.is_empty()).then(|| message_of(Role::System, parts, false)))
}

/// A billing line that some agents put into the prompt differs at every request and would defeat the
/// provider's cache: without its `cch=` entries it does not. `None`: it is no such line (APISIX 3.18).
fn without_billing_mark(text: &JsonStr<'_>) -> Option<JsonStr<'static>> {
    const PREFIX: &str = "x-anthropic-billing-header:";
    let text = text.decode();
    let head = text.get(..PREFIX.len())?;
    if !head.eq_ignore_ascii_case(PREFIX) {
        return None;
    }
    let rest = &text[PREFIX.len()..];
    let kept: Vec<&str> = rest
        .split(';')
        .filter(|entry| !entry.trim_start().starts_with("cch="))
        .collect();
    let kept = kept.join(";");
    let kept = kept.trim_matches([';', ' ']);
    Some(match kept {
        "" => JsonStr::default(),
        kept => JsonStr::from(format!("{PREFIX}{kept}")),
    })
}

/// The content of a message: a string, or blocks.
pub(super) fn read_content<'a>(content: Node<'_, 'a>) -> Result<Vec<Part<'a>>, Malformed> {
    if let Some(text) = content.str() {
        return Ok(vec![Part::text(text)]);
    }
    let blocks = content.items().map(read_block);
    blocks.filter_map(Result::transpose).collect()
}

/// One block; `None` if it holds nothing.
pub(super) fn read_block<'a>(block: Node<'_, 'a>) -> Result<Option<Part<'a>>, Malformed> {
    if !block.is_object() {
        return Err(Malformed::at(block, "expected a content block"));
    }
    let text = |name: &str| {
        let found = block.get_str(name);
        found.ok_or_else(|| Malformed::at(block, format!("{name}: a string is missing")))
    };
    let kind = block.get_str("type").unwrap_or_default();
    Ok(match &*kind.decode() {
        "text" => Some(Part::Text(Text {
            text: text("text")?,
            citations: block
                .get("citations")
                .into_iter()
                .flat_map(Node::items)
                .map(read_citation)
                .collect(),
            cache: cache_of(block),
        })),
        "image" => read_media(block, MediaKind::Image),
        "document" => read_media(block, MediaKind::Document),
        "tool_use" => Some(Part::ToolCall(ToolCall {
            id: text("id")?,
            name: text("name")?,
            arguments: Arguments::Json(block.get("input").map_or("{}", Node::raw).into()),
            signature: None,
            cache: cache_of(block),
        })),
        "tool_result" => Some(Part::ToolResult(read_result(block, text("tool_use_id")?)?)),
        "thinking" => Some(Part::Reasoning(Reasoning {
            text: text("thinking")?,
            signature: signature(block.get_str("signature")),
            ..Reasoning::default()
        })),
        "redacted_thinking" => Some(Part::Reasoning(Reasoning {
            signature: signature(block.get_str("data")),
            is_hidden: true,
            ..Reasoning::default()
        })),
        _ => Some(opaque(block, kind)),
    })
}

fn signature(data: Option<JsonStr<'_>>) -> Option<Signature<'_>> {
    let data = data.filter(|data| !data.is_empty())?;
    Some(Signature::read(OWN, data))
}

fn opaque<'a>(block: Node<'_, 'a>, kind: JsonStr<'a>) -> Part<'a> {
    Part::Opaque(Opaque {
        protocol: OWN,
        kind,
        json: block.raw().into(),
    })
}

fn read_result<'a>(block: Node<'_, 'a>, call_id: JsonStr<'a>) -> Result<ToolResult<'a>, Malformed> {
    let content = block.get("content");
    Ok(ToolResult {
        call_id,
        name: None,
        parts: content.map(read_content).transpose()?.unwrap_or_default(),
        plain: content.is_none_or(Node::is_string),
        is_error: block.get("is_error").and_then(Node::bool) == Some(true),
        cache: cache_of(block),
    })
}

/// A picture or a document. One whose source says nothing is no block at all.
fn read_media<'a>(block: Node<'_, 'a>, kind: MediaKind) -> Option<Part<'a>> {
    let source = block.get("source")?;
    let text = |name| source.get_str(name).filter(|text| !text.is_empty());
    let how = source.get_str("type").unwrap_or_default();
    let place = match &*how.decode() {
        "base64" => Source::Base64(text("data")?),
        "url" => Source::Url(text("url")?),
        "file" => Source::File(text("file_id")?),
        "text" => Source::Text(text("data")?),
        // Blocks within a block: nobody else has these.
        "content" => return Some(opaque(block, JsonStr::new("document.content"))),
        _ => return None,
    };
    let citations = block.get("citations").and_then(|c| c.get("enabled"));
    Some(Part::Media(Media {
        name: block.get_str("title"),
        context: block.get_str("context"),
        citations: citations.and_then(Node::bool) == Some(true),
        cache: cache_of(block),
        ..Media::new(kind, place, text("media_type"))
    }))
}
