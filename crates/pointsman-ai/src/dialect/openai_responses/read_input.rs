//! Reading `input`: items become messages.

use std::collections::HashSet;

use super::items::{self, needed, string};
use crate::{
    conversation::{
        self, Malformed, Media, MediaKind, Message, Opaque, Part, Role, Source, ToolCall,
        ToolResult, add_results,
    },
    json::{string::JsonStr, tree::Node},
};

/// What came before is with the provider, so a result may answer a call that is not in `input`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    Nothing,
    Kept,
}

/// Appends the messages in `input`, a string or a list of items.
pub(super) fn read_input<'a>(
    input: Node<'_, 'a>,
    before: Before,
    messages: &mut Vec<Message<'a>>,
) -> Result<(), Malformed> {
    if let Some(text) = input.str() {
        messages.push(Message::plain(Role::User, text));
        return Ok(());
    }
    if !input.is_array() {
        return Err(Malformed::at(input, "expected a string or a list of items"));
    }
    let mut turns = Turns {
        messages,
        calls: HashSet::new(),
        last_call: None,
        is_whole: before == Before::Nothing,
    };
    for item in input.items() {
        turns.item(item)?;
    }
    conversation::name_results(messages);
    Ok(())
}

struct Turns<'m, 'a> {
    messages: &'m mut Vec<Message<'a>>,
    /// Ids of the calls so far.
    calls: HashSet<String>,
    /// Place of the last call: message and part.
    last_call: Option<(usize, usize)>,
    /// Every call that is answered must be here.
    is_whole: bool,
}

impl<'a> Turns<'_, 'a> {
    fn item(&mut self, item: Node<'_, 'a>) -> Result<(), Malformed> {
        if !item.is_object() {
            return Err(Malformed::at(
                item,
                "expected an item: an object with a `type`",
            ));
        }
        let Some(kind) = string(item, "type")? else {
            // Messages and references go without.
            if item.get("role").is_none() && item.get("id").is_some() {
                return self.other(JsonStr::new("item_reference"), item);
            }
            return self.message(item);
        };
        match &*kind.decode() {
            "message" => self.message(item),
            "function_call" => self.call(item),
            "function_call_output" => self.result(item),
            "reasoning" => {
                self.reasoning(item);
                Ok(())
            }
            _ => self.other(kind.clone(), item),
        }
    }

    fn message(&mut self, item: Node<'_, 'a>) -> Result<(), Malformed> {
        let role = match &*needed(item, "role")?.decode() {
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "system" => Role::System,
            "developer" => Role::Developer,
            _ => {
                let role = item.get("role").unwrap_or(item);
                let what = "expected `user`, `assistant`, `system` or `developer`";
                return Err(Malformed::at(role, what));
            }
        };
        let Some(content) = item.get("content") else {
            return Err(Malformed::at(item, "`content` is missing"));
        };
        let (parts, plain) = read_content(content, |part| match role {
            Role::Assistant => output_part(part),
            _ => input_part(part),
        })?;
        if role == Role::Assistant {
            self.say(parts, plain);
        } else {
            self.messages.push(Message {
                role,
                name: None,
                parts,
                plain,
            });
        }
        Ok(())
    }

    /// The model's turn, which goes on until somebody else says something.
    fn turn(&mut self) -> &mut Message<'a> {
        let last = self.messages.len();
        let goes_on = self
            .messages
            .last()
            .is_some_and(|last| last.role == Role::Assistant);
        if !goes_on {
            self.messages.push(empty(Role::Assistant));
            return &mut self.messages[last];
        }
        &mut self.messages[last - 1]
    }

    fn say(&mut self, parts: Vec<Part<'a>>, plain: bool) {
        let turn = self.turn();
        let has_text = turn
            .parts
            .iter()
            .any(|part| matches!(part, Part::Text(_) | Part::Refusal(_)));
        turn.plain = plain && !has_text;
        turn.parts.extend(parts);
    }

    fn call(&mut self, item: Node<'_, 'a>) -> Result<(), Malformed> {
        let call = ToolCall {
            id: needed(item, "call_id")?,
            name: needed(item, "name")?,
            ..items::call(item)
        };
        needed(item, "arguments")?;
        self.calls.insert(call.id.decode().into_owned());
        let turn = self.turn();
        turn.parts.push(Part::ToolCall(call));
        let part = turn.parts.len() - 1;
        self.last_call = Some((self.messages.len() - 1, part));
        Ok(())
    }

    fn result(&mut self, item: Node<'_, 'a>) -> Result<(), Malformed> {
        let call_id = needed(item, "call_id")?;
        if self.is_whole && !self.calls.contains(&*call_id.decode()) {
            let what = "answers a call that is not in `input`: expected its `function_call` before";
            return Err(Malformed::at(item, what));
        }
        let Some(output) = item.get("output") else {
            let what = "`output`, a string or a list of parts, is missing";
            return Err(Malformed::at(item, what));
        };
        let (parts, plain) = read_content(output, input_part)?;
        let result = Part::ToolResult(ToolResult {
            call_id,
            name: None,
            parts,
            plain,
            is_error: false,
            cache: None,
        });
        add_results(self.messages, [result]);
        Ok(())
    }

    fn reasoning(&mut self, item: Node<'_, 'a>) {
        let Some(signature) = items::signature_of_call(item) else {
            let reasoning = items::reasoning(item);
            return self.turn().parts.push(Part::Reasoning(reasoning));
        };
        if let Some((message, part)) = self.last_call
            && let Part::ToolCall(call) = &mut self.messages[message].parts[part]
        {
            call.signature = Some(signature);
        }
    }

    /// An item of a hosted or custom tool, or anything else that only this protocol has.
    fn other(&mut self, kind: JsonStr<'a>, item: Node<'_, 'a>) -> Result<(), Malformed> {
        let spelt = kind.as_spelt();
        self.is_whole &= spelt != "item_reference" && spelt != "compaction";
        let is_clients = spelt.ends_with("_output") || spelt == "mcp_approval_response";
        let part = Part::Opaque(items::opaque(kind, item));
        if is_clients {
            self.messages.push(Message {
                parts: vec![part],
                ..empty(Role::User)
            });
        } else {
            self.turn().parts.push(part);
        }
        Ok(())
    }
}

fn empty<'a>(role: Role) -> Message<'a> {
    Message {
        role,
        name: None,
        parts: Vec::new(),
        plain: false,
    }
}

/// A string, or a list of parts, and whether it was a string.
fn read_content<'t, 'a>(
    content: Node<'t, 'a>,
    part: impl Fn(Node<'t, 'a>) -> Result<Part<'a>, Malformed>,
) -> Result<(Vec<Part<'a>>, bool), Malformed> {
    if let Some(text) = content.str() {
        return Ok((vec![Part::text(text)], true));
    }
    if !content.is_array() {
        let what = "expected a string or a list of parts";
        return Err(Malformed::at(content, what));
    }
    let parts: Result<_, _> = content.items().map(part).collect();
    Ok((parts?, false))
}

fn output_part<'a>(part: Node<'_, 'a>) -> Result<Part<'a>, Malformed> {
    match &*needed(part, "type")?.decode() {
        "output_text" => {
            needed(part, "text")?;
            Ok(Part::Text(items::output_text(part)))
        }
        "refusal" => Ok(Part::Refusal(needed(part, "refusal")?)),
        _ => Err(wrong_type(part, "expected `output_text` or `refusal`")),
    }
}

fn input_part<'a>(part: Node<'_, 'a>) -> Result<Part<'a>, Malformed> {
    let kind = needed(part, "type")?;
    match &*kind.decode() {
        "input_text" => Ok(Part::text(needed(part, "text")?)),
        "input_image" => read_image(part),
        "input_file" => read_file(part),
        "input_audio" => read_audio(part),
        // Newer ones.
        other if other.starts_with("input_") => {
            let opaque: Opaque<'a> = items::opaque(kind.clone(), part);
            Ok(Part::Opaque(opaque))
        }
        _ => {
            let what = "expected `input_text`, `input_image` or `input_file`";
            Err(wrong_type(part, what))
        }
    }
}

fn wrong_type(part: Node<'_, '_>, what: &str) -> Malformed {
    Malformed::at(part.get("type").unwrap_or(part), what)
}

fn read_image<'a>(part: Node<'_, 'a>) -> Result<Part<'a>, Malformed> {
    let (source, media_type) = match (string(part, "image_url")?, string(part, "file_id")?) {
        (Some(url), _) => Source::of_url(url),
        (None, Some(id)) => (Source::File(id), None),
        (None, None) => {
            let what = "a picture needs `image_url` or `file_id`";
            return Err(Malformed::at(part, what));
        }
    };
    Ok(Part::Media(Media {
        // `auto` is what happens anyway.
        detail: string(part, "detail")?.filter(|detail| !detail.is("auto")),
        ..Media::new(MediaKind::Image, source, media_type)
    }))
}

fn read_file<'a>(part: Node<'_, 'a>) -> Result<Part<'a>, Malformed> {
    let data = string(part, "file_data")?;
    let url = string(part, "file_url")?;
    let id = string(part, "file_id")?;
    let (source, media_type) = match (data, url, id) {
        (Some(data), _, _) => match Source::of_url(data) {
            // Without `data:` it is base64 all the same.
            (Source::Url(data), media_type) => (Source::Base64(data), media_type),
            of_url => of_url,
        },
        (_, Some(url), _) => (Source::Url(url), None),
        (_, _, Some(id)) => (Source::File(id), None),
        _ => {
            let what = "a file needs `file_data`, `file_url` or `file_id`";
            return Err(Malformed::at(part, what));
        }
    };
    Ok(Part::Media(Media {
        name: string(part, "filename")?,
        ..Media::new(MediaKind::Document, source, media_type)
    }))
}

fn read_audio<'a>(part: Node<'_, 'a>) -> Result<Part<'a>, Malformed> {
    let audio = part.get("input_audio").unwrap_or(part);
    let media_type = match string(audio, "format")? {
        Some(format) if format.is("mp3") => Some(JsonStr::new("audio/mpeg")),
        Some(format) => Some(JsonStr::spelt_owned(format!("audio/{}", format.as_spelt()))),
        None => None,
    };
    let source = Source::Base64(needed(audio, "data")?);
    Ok(Part::Media(Media::new(
        MediaKind::Audio,
        source,
        media_type,
    )))
}
