//! What requests and answers have in common: items, and the fields in them.

use super::OWN;
use crate::{
    conversation::{
        Arguments, Citation, Json, Malformed, Message, Opaque, Part, Reasoning, Signature, Text,
        ToolCall,
    },
    json::{string::JsonStr, tree::Node, write::Writer},
};

/// Stands before the signature of a call (Gemini's), in the encrypted content of a reasoning item
/// that follows the call: items of calls have no place for it, and clients send that item back.
pub(super) const OF_CALL: &str = "pm.call.";

/// The string member `name`, if it is there.
pub(super) fn string<'a>(node: Node<'_, 'a>, name: &str) -> Result<Option<JsonStr<'a>>, Malformed> {
    node.get(name)
        .map(|value| {
            value
                .str()
                .ok_or_else(|| Malformed::at(value, "expected a string"))
        })
        .transpose()
}

/// The string member `name`, which must be there.
pub(super) fn needed<'a>(node: Node<'_, 'a>, name: &str) -> Result<JsonStr<'a>, Malformed> {
    string(node, name)?
        .ok_or_else(|| Malformed::at(node, format!("`{name}`, a string, is missing")))
}

/// The boolean member `name`, if it is there.
pub(super) fn boolean(node: Node<'_, '_>, name: &str) -> Result<Option<bool>, Malformed> {
    node.get(name)
        .map(|value| {
            value
                .bool()
                .ok_or_else(|| Malformed::at(value, "expected `true` or `false`"))
        })
        .transpose()
}

/// The number member `name` as it is spelt, if it is there.
pub(super) fn number<'a>(node: Node<'_, 'a>, name: &str) -> Result<Option<Json<'a>>, Malformed> {
    node.get(name)
        .map(|value| {
            let number = value
                .number()
                .ok_or_else(|| Malformed::at(value, "expected a number"))?;
            Ok(Json::Borrowed(number))
        })
        .transpose()
}

/// The text of a message that is one plain string.
pub(super) fn plain_text<'m, 'a>(message: &'m Message<'a>) -> Option<&'m JsonStr<'a>> {
    match message.parts.as_slice() {
        [Part::Text(text)] if message.plain => Some(&text.text),
        _ => None,
    }
}

/// All of `node`, of type `kind`.
pub(super) fn opaque<'a>(kind: JsonStr<'a>, node: Node<'_, 'a>) -> Opaque<'a> {
    Opaque {
        protocol: OWN,
        kind,
        json: node.raw().into(),
    }
}

/// A `reasoning` item: the thoughts themselves where they are open, else their summary.
pub(super) fn reasoning<'a>(item: Node<'_, 'a>) -> Reasoning<'a> {
    let texts = |name| -> Vec<JsonStr<'a>> {
        let parts = item.get(name).into_iter().flat_map(Node::items);
        parts.filter_map(|part| part.get_str("text")).collect()
    };
    let mut parts = texts("content");
    if parts.is_empty() {
        parts = texts("summary");
    }
    let text = JsonStr::concat(&parts, BETWEEN_SUMMARIES);
    let encrypted = item.get_str("encrypted_content");
    let signature = encrypted
        .filter(|data| !data.is_empty())
        .map(|data| Signature::read(OWN, data));
    Reasoning {
        is_hidden: text.is_empty() && signature.is_some(),
        text,
        signature,
        id: item.get_str("id").filter(|id| !id.is_empty()),
    }
}

/// A line between paragraphs, as it is spelt in JSON.
pub(super) const BETWEEN_SUMMARIES: &str = "\\n\\n";

/// The signature that belongs to the call before this `reasoning` item.
pub(super) fn signature_of_call<'a>(item: Node<'_, 'a>) -> Option<Signature<'a>> {
    let data = item.get_str("encrypted_content")?;
    let length = data.as_spelt().len();
    data.as_spelt().starts_with(OF_CALL).then(|| {
        let data = data.slice(OF_CALL.len()..length);
        Signature::read(OWN, data)
    })
}

/// A `function_call` item.
pub(super) fn call<'a>(item: Node<'_, 'a>) -> ToolCall<'a> {
    let id = item.get_str("call_id").or_else(|| item.get_str("id"));
    ToolCall {
        id: id.unwrap_or_default(),
        name: item.get_str("name").unwrap_or_default(),
        arguments: Arguments::Text(item.get_str("arguments").unwrap_or_default()),
        signature: None,
        cache: None,
    }
}

/// An `output_text` part.
pub(super) fn output_text<'a>(part: Node<'_, 'a>) -> Text<'a> {
    let annotations = part.get("annotations").into_iter().flat_map(Node::items);
    Text {
        text: part.get_str("text").unwrap_or_default(),
        citations: annotations.map(citation).collect(),
        cache: None,
    }
}

/// An annotation of a text.
pub(super) fn citation<'a>(annotation: Node<'_, 'a>) -> Citation<'a> {
    let place = |name| annotation.get(name).and_then(Node::u64);
    let title = annotation.get_str("title");
    Citation {
        url: annotation.get_str("url"),
        title: title.or_else(|| annotation.get_str("filename")),
        quote: None,
        span: place("start_index").zip(place("end_index")),
        native: Some((OWN, annotation.raw().into())),
    }
}

/// Writes an annotation: of an address if there is one, else of a file.
pub(super) fn write_citation(citation: &Citation<'_>, w: &mut Writer<'_>) {
    if let Some((OWN, native)) = &citation.native {
        return w.raw(native);
    }
    let (start, end) = citation.span.unwrap_or_default();
    let title = citation.title.as_ref().or(citation.quote.as_ref());
    let title = title.cloned().unwrap_or_default();
    w.object(|w| match &citation.url {
        Some(url) => {
            w.key("type").text("url_citation");
            w.key("start_index").u64(start);
            w.key("end_index").u64(end);
            w.key("url").str(url);
            w.key("title").str(&title);
        }
        None => {
            w.key("type").text("file_citation");
            w.key("index").u64(end);
            w.key("file_id").text("");
            w.key("filename").str(&title);
        }
    });
}

/// Writes the member `name`, if there is something to say.
pub(super) fn write_string(w: &mut Writer<'_>, name: &'static str, text: Option<&JsonStr<'_>>) {
    if let Some(text) = text {
        w.key(name).str(text);
    }
}

/// Writes a `function_call` item. Arguments of no length are an empty object: SDKs parse them.
pub(super) fn write_call(
    w: &mut Writer<'_>,
    item_id: Option<&str>,
    status: Option<&'static str>,
    call: (&JsonStr<'_>, &JsonStr<'_>),
    arguments: &JsonStr<'_>,
) {
    w.object(|w| {
        if let Some(id) = item_id {
            w.key("id").text(id);
        }
        w.key("type").text("function_call");
        if let Some(status) = status {
            w.key("status").text(status);
        }
        w.key("arguments");
        if arguments.is_empty() && status != Some("in_progress") {
            w.text("{}");
        } else {
            w.str(arguments);
        }
        w.key("call_id").str(call.0);
        w.key("name").str(call.1);
    });
}

/// Writes a `reasoning` item with its thoughts as a summary.
pub(super) fn write_reasoning(
    w: &mut Writer<'_>,
    id: Option<&JsonStr<'_>>,
    text: &JsonStr<'_>,
    encrypted: Option<&JsonStr<'_>>,
) {
    w.object(|w| {
        write_string(w, "id", id);
        w.key("type").text("reasoning");
        w.key("summary").array(|w| {
            if !text.is_empty() {
                write_summary(w, text);
            }
        });
        write_string(w, "encrypted_content", encrypted);
    });
}

/// Writes a part of a summary.
pub(super) fn write_summary(w: &mut Writer<'_>, text: &JsonStr<'_>) {
    w.object(|w| {
        w.key("type").text("summary_text");
        w.key("text").str(text);
    });
}
