//! A client's request.

use std::collections::{HashMap, VecDeque};

use super::{
    OWN, array, field, fields, object,
    read_part::{Data, RawPart, content_parts},
    read_settings::{nested, read_generation, read_tool_config, read_tools},
    string,
};
use crate::{
    conversation::{Extra, Json, Malformed, Message, Part, Request, Role, ToolResult, add_results},
    json::{string::JsonStr, tree::Node},
};

/// Reads a client's request. The caller sets its model and whether it streams.
pub(in crate::dialect) fn read_request<'a>(root: Node<'_, 'a>) -> Result<Request<'a>, Malformed> {
    let mut request = Request::default();
    let names = [
        "contents",
        "systemInstruction",
        "tools",
        "toolConfig",
        "generationConfig",
        "serviceTier",
        "model",
    ];
    let extras = &mut request.extras;
    let [
        contents,
        instruction,
        tools,
        tool_config,
        generation,
        tier,
        model,
    ] = fields(object(root)?, names, |name, node| {
        extras.push(extra(name, node));
    });
    let Some(contents) = contents else {
        let what = "`contents` is missing: expected an array of contents";
        return Err(Malformed::at(root, what));
    };
    if let Some(instruction) = instruction {
        request.messages.push(read_instruction(instruction)?);
    }
    read_contents(contents, &mut request)?;
    if let Some(tools) = tools {
        read_tools(tools, &mut request)?;
    }
    if let Some(config) = tool_config {
        read_tool_config(config, &mut request)?;
    }
    if let Some(generation) = generation {
        read_generation(generation, &mut request)?;
    }
    request.model = model.map(string).transpose()?;
    request.service_tier = tier.map(string).transpose()?.map(read_tier);
    Ok(request)
}

/// A member that only Gemini knows. Those inside of others have the path for a name.
pub(super) fn extra<'a>(name: JsonStr<'a>, node: Node<'_, 'a>) -> Extra<'a> {
    Extra {
        protocol: OWN,
        name,
        json: Json::Borrowed(node.raw()),
    }
}

/// A tier in OpenAI's words.
pub(super) fn read_tier(tier: JsonStr<'_>) -> JsonStr<'_> {
    let word = tier.decode().to_ascii_lowercase();
    match word.as_str() {
        "standard" => JsonStr::new("default"),
        "unspecified" => JsonStr::new("auto"),
        _ => JsonStr::from(word),
    }
}

fn read_instruction<'a>(node: Node<'_, 'a>) -> Result<Message<'a>, Malformed> {
    let mut parts = Vec::new();
    for part in content_parts(node)?.items() {
        RawPart::read(part)?.push_into(part, JsonStr::default, &mut parts)?;
    }
    Ok(message(Role::System, parts))
}

fn message(role: Role, parts: Vec<Part<'_>>) -> Message<'_> {
    Message {
        role,
        name: None,
        plain: matches!(&parts[..], [Part::Text(_)]),
        parts,
    }
}

fn read_contents<'a>(node: Node<'_, 'a>, request: &mut Request<'a>) -> Result<(), Malformed> {
    if array(node)?.is_empty() {
        return Err(Malformed::at(node, "expected at least one content"));
    }
    let mut calls = Calls::default();
    // Results belong to the calls of the turn before them, not to older ones.
    let mut was_answered = false;
    for content in node.items() {
        let parts = content_parts(content)?;
        if parts.is_empty() {
            return Err(Malformed::at(parts, "expected at least one part"));
        }
        let role = field(content, "role");
        let is = |word| role.is_some_and(|role| role.says(word));
        if is("model") {
            if was_answered {
                calls.open.clear();
            }
            was_answered = false;
            read_model(parts, &mut calls, request)?;
        } else if role.is_none() || is("user") || is("function") || is("") {
            was_answered = true;
            read_user(parts, &mut calls, request)?;
        } else {
            let role = role.unwrap_or(content);
            return Err(Malformed::at(role, "expected `user` or `model`"));
        }
    }
    Ok(())
}

/// Takes a part apart; what stands beside its content has no place but among the extras.
fn read_part<'t, 'a>(
    node: Node<'t, 'a>,
    extras: &mut Vec<Extra<'a>>,
) -> Result<RawPart<'t, 'a>, Malformed> {
    let mut raw = RawPart::read(node)?;
    let aside = raw.aside.take();
    extras.extend(aside.map(|(name, value)| extra(nested("contents.parts", &name), value)));
    Ok(raw)
}

fn read_model<'a>(
    parts: Node<'_, 'a>,
    calls: &mut Calls<'a>,
    request: &mut Request<'a>,
) -> Result<(), Malformed> {
    let mut said = Vec::new();
    for part in parts.items() {
        let raw = read_part(part, &mut request.extras)?;
        raw.push_into(part, || calls.invent(), &mut said)?;
        if let Some(Part::ToolCall(call)) = said.last() {
            calls.open(&call.name, &call.id);
        }
    }
    if !said.is_empty() {
        request.messages.push(message(Role::Assistant, said));
    }
    Ok(())
}

/// What tools answered comes first, what the user says beside it is a message of its own.
fn read_user<'a>(
    parts: Node<'_, 'a>,
    calls: &mut Calls<'a>,
    request: &mut Request<'a>,
) -> Result<(), Malformed> {
    let mut results = Vec::new();
    let mut said = Vec::new();
    for part in parts.items() {
        let raw = read_part(part, &mut request.extras)?;
        match raw.data {
            Data::Result(node) => {
                let result = read_result(node, calls)?;
                results.push(Part::ToolResult(result));
            }
            Data::Call(_) => {
                return Err(Malformed::at(
                    part,
                    "a `functionCall` stands in contents of role `model`",
                ));
            }
            _ => raw.push_into(part, JsonStr::default, &mut said)?,
        }
    }
    add_results(&mut request.messages, results);
    if !said.is_empty() {
        request.messages.push(message(Role::User, said));
    }
    Ok(())
}

/// A `functionResponse`. Its `response` is an object; by convention the members `output` and `error`
/// of one hold what a tool answered in words.
fn read_result<'a>(node: Node<'_, 'a>, calls: &mut Calls<'a>) -> Result<ToolResult<'a>, Malformed> {
    let names = ["id", "name", "response", "parts"];
    let [id, name, response, media] = fields(node, names, |_, _| {});
    let (Some(name), Some(response)) = (name, response) else {
        return Err(Malformed::at(
            node,
            "a `functionResponse` needs `name` and `response`",
        ));
    };
    let name = string(name)?;
    let id = id.map(string).transpose()?.filter(|id| !id.is_empty());
    let Some(call_id) = calls.answer(&name, id) else {
        let what =
            "there is no call of this name in the contents before it that is not answered yet";
        return Err(Malformed::at(node, what));
    };
    let (text, is_error) = read_output(object(response)?);
    let mut parts: Vec<Part<'a>> = text.map(Part::text).into_iter().collect();
    if let Some(media) = media {
        for part in array(media)?.items() {
            RawPart::read(part)?.push_into(part, JsonStr::default, &mut parts)?;
        }
    }
    Ok(ToolResult {
        call_id,
        name: Some(name),
        plain: matches!(&parts[..], [Part::Text(_)]),
        parts,
        is_error,
        cache: None,
    })
}

/// The text of a `response`, and whether it tells of an error.
fn read_output<'a>(response: Node<'_, 'a>) -> (Option<JsonStr<'a>>, bool) {
    let mut members = response.members();
    let (Some((key, value)), None) = (members.next(), members.next()) else {
        let text = (!response.is_empty()).then(|| JsonStr::new(response.raw()));
        return (text, false);
    };
    let is_error = key.is("error");
    if !is_error && !key.is("output") && !key.is("result") {
        return (Some(JsonStr::new(response.raw())), false);
    }
    let text = value.str().unwrap_or_else(|| JsonStr::new(value.raw()));
    (Some(text), is_error)
}

/// The calls of a conversation, as far as results may follow that name none of them.
#[derive(Default)]
struct Calls<'a> {
    open: HashMap<String, VecDeque<JsonStr<'a>>>,
    invented: usize,
}

impl<'a> Calls<'a> {
    /// An id for a call that has none: others need one. The same conversation gets the same ids, so
    /// that caches of prompts work.
    fn invent(&mut self) -> JsonStr<'a> {
        self.invented += 1;
        JsonStr::from(format!("call_{}", self.invented))
    }

    fn open(&mut self, name: &JsonStr<'a>, id: &JsonStr<'a>) {
        let ids = self.open.entry(name.decode().into_owned()).or_default();
        ids.push_back(id.clone());
    }

    /// The id of the call that a result of `name` answers: the one it states, or the first one of
    /// that name without an answer.
    fn answer(&mut self, name: &JsonStr<'a>, stated: Option<JsonStr<'a>>) -> Option<JsonStr<'a>> {
        let open = self.open.get_mut(&*name.decode());
        let Some(stated) = stated else {
            return open?.pop_front();
        };
        if let Some(ids) = open
            && ids.front() == Some(&stated)
        {
            ids.pop_front();
        }
        Some(stated)
    }
}
