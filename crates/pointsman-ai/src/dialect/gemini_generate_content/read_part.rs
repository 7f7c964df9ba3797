//! Parts of contents, as requests, answers and streams have them alike.

use super::{OWN, expected, field, fields, is_named, object, string, text_field};
use crate::{
    base64,
    conversation::{
        Arguments, Json, Malformed, Media, MediaKind, Opaque, Part, Reasoning, Signature, Source,
        ToolCall,
    },
    json::{string::JsonStr, tree::Node},
};

/// A part, taken apart.
#[derive(Debug)]
pub(super) struct RawPart<'t, 'a> {
    /// What it holds.
    pub(super) data: Data<'t, 'a>,
    /// The model thinks it.
    pub(super) is_thought: bool,
    /// What the provider wants back with it.
    pub(super) signature: Option<Signature<'a>>,
    /// Another member, which only Gemini knows.
    pub(super) aside: Option<(JsonStr<'a>, Node<'t, 'a>)>,
    resolution: Option<JsonStr<'a>>,
}

/// What a part holds.
#[derive(Debug)]
pub(super) enum Data<'t, 'a> {
    /// Nothing but a signature.
    Nothing,
    Text(JsonStr<'a>),
    Inline(Node<'t, 'a>),
    File(Node<'t, 'a>),
    Call(Node<'t, 'a>),
    Result(Node<'t, 'a>),
    /// Something that only Gemini knows, of this type.
    Other(JsonStr<'a>),
}

const DATA: [&str; 5] = [
    "text",
    "inlineData",
    "fileData",
    "functionCall",
    "functionResponse",
];

impl<'t, 'a> RawPart<'t, 'a> {
    /// Takes `node` apart.
    pub(super) fn read(node: Node<'t, 'a>) -> Result<Self, Malformed> {
        let names = [
            DATA[0],
            DATA[1],
            DATA[2],
            DATA[3],
            DATA[4],
            "thought",
            "thoughtSignature",
            "mediaResolution",
        ];
        let mut unknown = None;
        let found = fields(object(node)?, names, |key, value| {
            unknown.get_or_insert((key, value));
        });
        let [
            text,
            inline,
            file,
            call,
            result,
            thought,
            signature,
            resolution,
        ] = found;
        let data = [text, inline, file, call, result];
        if data.iter().flatten().count() > 1 {
            let names = DATA.join("`, `");
            return Err(Malformed::at(
                node,
                format!("a part has one of `{names}`, not several"),
            ));
        }
        // Which part of a film is meant is the provider's own, as is a part that holds nothing else.
        let is_whole = |kind: &JsonStr<'_>| {
            data.iter().all(Option::is_none) || is_named(kind, "videoMetadata")
        };
        let whole = unknown.take_if(|(kind, _)| is_whole(kind));
        let data = match (whole, data) {
            (Some((kind, _)), _) => Data::Other(kind),
            (None, [Some(text), ..]) => Data::Text(string(text)?),
            (None, [_, Some(inline), ..]) => Data::Inline(object(inline)?),
            (None, [_, _, Some(file), ..]) => Data::File(object(file)?),
            (None, [_, _, _, Some(call), _]) => Data::Call(object(call)?),
            (None, [.., Some(result)]) => Data::Result(object(result)?),
            (None, _) => Data::Nothing,
        };
        let signature = signature
            .map(string)
            .transpose()?
            .map(|text| Signature::read_bytes(OWN, text));
        Ok(Self {
            data,
            is_thought: thought.and_then(Node::bool) == Some(true),
            signature: signature.filter(|signature| !signature.data.is_empty()),
            aside: unknown,
            resolution: resolution.and_then(|node| text_field(node, "level")),
        })
    }

    /// It holds nothing at all.
    pub(super) fn is_nothing(&self) -> bool {
        matches!(self.data, Data::Nothing) && self.signature.is_none()
    }

    /// Appends what it is in a conversation: two parts, if a signature stands at something that has
    /// no place for one. `id` makes the id of a call that has none.
    pub(super) fn push_into(
        self,
        node: Node<'_, 'a>,
        id: impl FnOnce() -> JsonStr<'a>,
        parts: &mut Vec<Part<'a>>,
    ) -> Result<(), Malformed> {
        let mut signature = self.signature;
        let part = match self.data {
            Data::Text(text) if self.is_thought => Some(Part::Reasoning(Reasoning {
                text,
                signature: signature.take(),
                ..Reasoning::default()
            })),
            Data::Text(text) => (!text.is_empty()).then(|| Part::text(text)),
            Data::Inline(inline) => Some(Part::Media(read_inline(inline, self.resolution)?)),
            Data::File(file) => Some(Part::Media(read_file(file, self.resolution)?)),
            Data::Call(call) => Some(Part::ToolCall(read_call(call, signature.take(), id)?)),
            Data::Other(kind) => {
                // All of it stays together, signature and all.
                signature = None;
                Some(Part::Opaque(opaque(kind, node)))
            }
            Data::Result(result) => {
                let what = "a `functionResponse` stands in contents of role `user`";
                return Err(Malformed::at(result, what));
            }
            Data::Nothing if signature.is_none() => {
                let names = DATA.join("`, `");
                return Err(Malformed::at(
                    node,
                    format!("a part needs one of `{names}`"),
                ));
            }
            Data::Nothing => None,
        };
        parts.extend(part);
        parts.extend(signature.map(hidden));
        Ok(())
    }
}

/// A signature that stands alone, or at something that has no place for one elsewhere.
fn hidden(signature: Signature<'_>) -> Part<'_> {
    Part::Reasoning(Reasoning {
        signature: Some(signature),
        is_hidden: true,
        ..Reasoning::default()
    })
}

/// A part that only Gemini knows, of type `kind`.
pub(super) fn opaque<'a>(kind: JsonStr<'a>, node: Node<'_, 'a>) -> Opaque<'a> {
    Opaque {
        protocol: OWN,
        kind,
        json: Json::Borrowed(node.raw()),
    }
}

/// A `functionCall`.
pub(super) fn read_call<'a>(
    node: Node<'_, 'a>,
    signature: Option<Signature<'a>>,
    id: impl FnOnce() -> JsonStr<'a>,
) -> Result<ToolCall<'a>, Malformed> {
    let [own_id, name, args] = fields(node, ["id", "name", "args"], |_, _| {});
    let Some(name) = name else {
        return Err(Malformed::at(node, "a `functionCall` needs a `name`"));
    };
    let own_id = own_id.map(string).transpose()?;
    let args = args.map(object).transpose()?;
    Ok(ToolCall {
        id: own_id.filter(|id| !id.is_empty()).unwrap_or_else(id),
        name: string(name)?,
        arguments: Arguments::Json(Json::Borrowed(args.map_or("{}", Node::raw))),
        signature: signature.filter(|signature| !signature.data.is(super::NO_SIGNATURE)),
        cache: None,
    })
}

/// An `inlineData`.
pub(super) fn read_inline<'a>(
    node: Node<'_, 'a>,
    resolution: Option<JsonStr<'a>>,
) -> Result<Media<'a>, Malformed> {
    let [data, media_type, name] = fields(node, ["data", "mimeType", "displayName"], |_, _| {});
    let (Some(data), Some(media_type)) = (data, media_type) else {
        return Err(Malformed::at(
            node,
            "`inlineData` needs `mimeType` and `data`",
        ));
    };
    let (data, media_type) = (string(data)?, string(media_type)?);
    let plain = media_type.is("text/plain");
    let text = plain.then(|| base64::decode(&data.decode())).flatten();
    let source = match text.and_then(|bytes| String::from_utf8(bytes).ok()) {
        Some(text) => Source::Text(JsonStr::from(text)),
        None => Source::Base64(data),
    };
    Ok(media(source, Some(media_type), name, resolution))
}

/// A `fileData`.
pub(super) fn read_file<'a>(
    node: Node<'_, 'a>,
    resolution: Option<JsonStr<'a>>,
) -> Result<Media<'a>, Malformed> {
    let [uri, media_type, name] = fields(node, ["fileUri", "mimeType", "displayName"], |_, _| {});
    let Some(uri) = uri else {
        return Err(Malformed::at(node, "`fileData` needs a `fileUri`"));
    };
    let uri = string(uri)?;
    let media_type = media_type.map(string).transpose()?;
    let is_own = {
        let address = uri.decode();
        address.contains(FILES_HOST) || !address.contains("://")
    };
    let source = match is_own {
        true => Source::File(uri),
        false => Source::Url(uri),
    };
    Ok(media(source, media_type, name, resolution))
}

/// Files that the Gemini API keeps have addresses there.
const FILES_HOST: &str = "generativelanguage.googleapis.com/";

fn media<'a>(
    source: Source<'a>,
    media_type: Option<JsonStr<'a>>,
    name: Option<Node<'_, 'a>>,
    resolution: Option<JsonStr<'a>>,
) -> Media<'a> {
    let kind = match (&media_type, &source) {
        (Some(media_type), _) => kind_of(&media_type.decode()),
        (None, Source::Url(address) | Source::File(address)) => {
            let address = address.decode();
            kind_of(media_type_of(&address).unwrap_or_default())
        }
        _ => MediaKind::Document,
    };
    Media {
        kind,
        source,
        media_type,
        name: name.and_then(Node::str),
        detail: resolution.and_then(detail),
        context: None,
        citations: false,
        cache: None,
    }
}

fn kind_of(media_type: &str) -> MediaKind {
    match media_type.split_once('/').map_or("", |(kind, _)| kind) {
        "image" => MediaKind::Image,
        "audio" => MediaKind::Audio,
        "video" => MediaKind::Video,
        _ => MediaKind::Document,
    }
}

/// The type of what is at `address`, by the end of its path.
pub(super) fn media_type_of(address: &str) -> Option<&'static str> {
    if ["youtube.com/", "youtu.be/"]
        .iter()
        .any(|host| address.contains(host))
    {
        return Some("video/mp4");
    }
    let path = address.split(['?', '#']).next()?;
    let (_, ending) = path.rsplit_once('.')?;
    let (_, media_type) = ENDINGS
        .iter()
        .find(|(known, _)| ending.eq_ignore_ascii_case(known))?;
    Some(media_type)
}

const ENDINGS: &[(&str, &str)] = &[
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("webp", "image/webp"),
    ("gif", "image/gif"),
    ("heic", "image/heic"),
    ("heif", "image/heif"),
    ("pdf", "application/pdf"),
    ("txt", "text/plain"),
    ("html", "text/html"),
    ("csv", "text/csv"),
    ("md", "text/markdown"),
    ("json", "application/json"),
    ("mp3", "audio/mp3"),
    ("wav", "audio/wav"),
    ("flac", "audio/flac"),
    ("ogg", "audio/ogg"),
    ("m4a", "audio/m4a"),
    ("mp4", "video/mp4"),
    ("mov", "video/mov"),
    ("webm", "video/webm"),
    ("mpeg", "video/mpeg"),
];

/// OpenAI's word for a resolution.
fn detail(resolution: JsonStr<'_>) -> Option<JsonStr<'static>> {
    let detail = match &*resolution.decode() {
        "MEDIA_RESOLUTION_LOW" => "low",
        "MEDIA_RESOLUTION_MEDIUM" => "auto",
        "MEDIA_RESOLUTION_HIGH" | "MEDIA_RESOLUTION_ULTRA_HIGH" => "high",
        _ => return None,
    };
    Some(JsonStr::new(detail))
}

/// The parts of a `content`, which must be there.
pub(super) fn content_parts<'t, 'a>(content: Node<'t, 'a>) -> Result<Node<'t, 'a>, Malformed> {
    match field(object(content)?, "parts") {
        Some(parts) if parts.is_array() => Ok(parts),
        Some(parts) => Err(expected(parts, "an array of parts")),
        None => Err(Malformed::at(
            content,
            "`parts` is missing: expected an array of parts",
        )),
    }
}
