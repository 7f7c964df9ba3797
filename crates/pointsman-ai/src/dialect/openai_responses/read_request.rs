//! Reading requests.

use super::{
    OWN,
    allowed::Allowed,
    items::{self, boolean, needed, number, string},
    read_input::{Before, read_input},
};
use crate::{
    conversation::{
        Extra, Format, Function, Json, Malformed, Message, ReasoningMode, ReasoningSettings,
        Request, Role, Schema, ShowThoughts, Tool, ToolChoice,
    },
    json::{string::JsonStr, tree::Node},
};

pub(in crate::dialect) fn read_request<'a>(root: Node<'_, 'a>) -> Result<Request<'a>, Malformed> {
    if !root.is_object() {
        return Err(Malformed::at(root, "expected an object"));
    }
    let mut request = Request {
        model: string(root, "model")?,
        messages: read_messages(root)?,
        tools: read_tools(root)?,
        parallel_tool_calls: boolean(root, "parallel_tool_calls")?,
        stream: boolean(root, "stream")?.unwrap_or_default(),
        metadata: read_metadata(root)?,
        service_tier: string(root, "service_tier")?,
        ..Request::default()
    };
    request.sampling.max_tokens = number(root, "max_output_tokens")?;
    request.sampling.temperature = number(root, "temperature")?;
    request.sampling.top_p = number(root, "top_p")?;
    request.sampling.top_logprobs = number(root, "top_logprobs")?;
    read_text(root, &mut request)?;
    read_reasoning(root, &mut request)?;
    read_include(root, &mut request)?;
    read_tool_choice(root, &mut request)?;
    let safety = string(root, "safety_identifier")?;
    let user = string(root, "user")?;
    if let (Some(_), Some(_)) = (&safety, &user) {
        extra(&mut request, "user", root.get("user"));
    }
    request.user = safety.or(user);
    read_rest(root, &mut request);
    Ok(request)
}

fn read_messages<'a>(root: Node<'_, 'a>) -> Result<Vec<Message<'a>>, Malformed> {
    let mut messages = Vec::new();
    if let Some(instructions) = string(root, "instructions")? {
        messages.push(Message::plain(Role::System, instructions));
    }
    let is_kept = ["previous_response_id", "conversation", "prompt"]
        .iter()
        .any(|name| root.get(name).is_some());
    let before = if is_kept {
        Before::Kept
    } else {
        Before::Nothing
    };
    match root.get("input") {
        Some(input) => {
            let is_nothing = input.is_array() && input.is_empty();
            if is_nothing && before == Before::Nothing {
                return Err(Malformed::at(input, "there are no items in it"));
            }
            read_input(input, before, &mut messages)?;
        }
        None if is_kept => {}
        None => {
            let what = "`input`, a string or a list of items, is missing";
            return Err(Malformed::at(root, what));
        }
    }
    Ok(messages)
}

fn list<'t, 'a>(
    root: Node<'t, 'a>,
    name: &str,
) -> Result<impl Iterator<Item = Node<'t, 'a>> + use<'t, 'a>, Malformed> {
    let list = root.get(name);
    if let Some(other) = list.filter(|list| !list.is_array()) {
        return Err(Malformed::at(other, "expected a list"));
    }
    Ok(list.into_iter().flat_map(Node::items))
}

fn read_tools<'a>(root: Node<'_, 'a>) -> Result<Vec<Tool<'a>>, Malformed> {
    list(root, "tools")?.map(read_tool).collect()
}

fn read_tool<'a>(tool: Node<'_, 'a>) -> Result<Tool<'a>, Malformed> {
    let kind = needed(tool, "type")?;
    if !kind.is("function") {
        return Ok(Tool::Hosted(items::opaque(kind, tool)));
    }
    let parameters = tool.get("parameters");
    if let Some(other) = parameters.filter(|parameters| !parameters.is_object()) {
        return Err(Malformed::at(other, "expected a JSON schema, an object"));
    }
    Ok(Tool::Function(Function {
        name: needed(tool, "name")?,
        description: string(tool, "description")?,
        parameters: parameters.map(|parameters| parameters.raw().into()),
        strict: boolean(tool, "strict")?,
        cache: None,
    }))
}

fn read_tool_choice<'a>(root: Node<'_, 'a>, request: &mut Request<'a>) -> Result<(), Malformed> {
    let Some(choice) = root.get("tool_choice") else {
        return Ok(());
    };
    if choice.is_string() {
        request.tool_choice = Some(read_mode(choice)?);
        return Ok(());
    }
    match &*needed(choice, "type")?.decode() {
        "function" => {
            let name = needed(choice, "name")?;
            let is_there = request
                .tools
                .iter()
                .any(|tool| matches!(tool, Tool::Function(function) if function.name == name));
            if !is_there {
                let what = "there is no function of that name in `tools`";
                return Err(Malformed::at(choice, what));
            }
            request.tool_choice = Some(ToolChoice::Tool(name));
        }
        "allowed_tools" => {
            let mode = choice.get("mode");
            request.tool_choice = mode.map(read_mode).transpose()?;
            let allowed: Allowed = list(choice, "tools")?.collect();
            // The others may not be called: without them the model can say the same.
            request.tools.retain(|tool| allowed.has(tool));
        }
        _ => extra(request, "tool_choice", Some(choice)),
    }
    Ok(())
}

fn read_mode<'a>(mode: Node<'_, 'a>) -> Result<ToolChoice<'a>, Malformed> {
    match mode.str() {
        Some(word) if word.is("auto") => Ok(ToolChoice::Auto),
        Some(word) if word.is("none") => Ok(ToolChoice::None),
        Some(word) if word.is("required") => Ok(ToolChoice::Required),
        _ => Err(Malformed::at(mode, "expected `auto`, `none` or `required`")),
    }
}

fn read_text<'a>(root: Node<'_, 'a>, request: &mut Request<'a>) -> Result<(), Malformed> {
    let Some(text) = root.get("text") else {
        return Ok(());
    };
    for (name, value) in members(text)? {
        if name.is("format") {
            request.format = Some(read_format(value)?);
        } else if !value.is_null() {
            nested_extra(request, "text", &name, value);
        }
    }
    Ok(())
}

fn read_format<'a>(format: Node<'_, 'a>) -> Result<Format<'a>, Malformed> {
    match &*needed(format, "type")?.decode() {
        "text" => Ok(Format::Text),
        "json_object" => Ok(Format::JsonObject),
        "json_schema" => {
            let schema = format.get("schema").filter(|schema| schema.is_object());
            let Some(schema) = schema else {
                let what = "`schema`, a JSON schema, is missing";
                return Err(Malformed::at(format, what));
            };
            Ok(Format::JsonSchema(Schema {
                name: Some(needed(format, "name")?),
                description: string(format, "description")?,
                schema: schema.raw().into(),
                strict: boolean(format, "strict")?,
            }))
        }
        _ => {
            let what = "expected `text`, `json_object` or `json_schema`";
            Err(Malformed::at(format.get("type").unwrap_or(format), what))
        }
    }
}

fn read_reasoning<'a>(root: Node<'_, 'a>, request: &mut Request<'a>) -> Result<(), Malformed> {
    let Some(reasoning) = root.get("reasoning") else {
        return Ok(());
    };
    let mut settings = ReasoningSettings::default();
    for (name, value) in members(reasoning)? {
        if value.is_null() {
            continue;
        }
        match &*name.decode() {
            "effort" => {
                let effort = string(reasoning, "effort")?;
                if effort.as_ref().is_some_and(|effort| effort.is("none")) {
                    settings.mode = Some(ReasoningMode::Disabled);
                } else {
                    settings.effort = effort;
                }
            }
            // The older name of it.
            "summary" | "generate_summary" => {
                let summary = value
                    .str()
                    .ok_or_else(|| Malformed::at(value, "expected a string"))?;
                settings.show = Some(ShowThoughts::Summary(summary));
            }
            _ => nested_extra(request, "reasoning", &name, value),
        }
    }
    request.reasoning = Some(settings).filter(|settings| *settings != Default::default());
    Ok(())
}

/// What is wanted beside the answer. Encrypted reasoning is given to whoever can take it, so that
/// needs no place here.
fn read_include<'a>(root: Node<'_, 'a>, request: &mut Request<'a>) -> Result<(), Malformed> {
    let mut others = Vec::new();
    for wanted in list(root, "include")? {
        if wanted.says(LOGPROBS) {
            request.sampling.logprobs = Some(true);
        } else if !wanted.says(ENCRYPTED_REASONING) {
            others.push(wanted.raw());
        }
    }
    if !others.is_empty() {
        request.extras.push(Extra {
            protocol: OWN,
            name: JsonStr::new("include"),
            json: Json::Owned(format!("[{}]", others.join(","))),
        });
    }
    Ok(())
}

pub(super) const LOGPROBS: &str = "message.output_text.logprobs";
pub(super) const ENCRYPTED_REASONING: &str = "reasoning.encrypted_content";

fn read_metadata<'a>(root: Node<'_, 'a>) -> Result<Vec<(JsonStr<'a>, JsonStr<'a>)>, Malformed> {
    let Some(metadata) = root.get("metadata") else {
        return Ok(Vec::new());
    };
    let pair = |(name, value): (JsonStr<'a>, Node<'_, 'a>)| {
        let text = value.str();
        let text = text.ok_or_else(|| Malformed::at(value, "expected a string"))?;
        Ok((name, text))
    };
    members(metadata)?.map(pair).collect()
}

fn members<'t, 'a>(
    node: Node<'t, 'a>,
) -> Result<impl Iterator<Item = (JsonStr<'a>, Node<'t, 'a>)> + use<'t, 'a>, Malformed> {
    if !node.is_object() {
        return Err(Malformed::at(node, "expected an object"));
    }
    Ok(node.members())
}

/// Keeps every other member that says something. Not to store the answer, to run in the foreground
/// and to refuse what is too long is what happens everywhere else anyway.
fn read_rest<'a>(root: Node<'_, 'a>, request: &mut Request<'a>) {
    for (name, value) in root.members() {
        let word = name.decode();
        let says_nothing = match &*word {
            "store" | "background" => value.bool() == Some(false),
            "truncation" => value.says("disabled"),
            known => READ.contains(&known),
        };
        if !value.is_null() && !says_nothing {
            request.extras.push(Extra {
                protocol: OWN,
                name: name.clone(),
                json: value.raw().into(),
            });
        }
    }
}

/// Members that are read above, or that only steer how the answer is sent.
const READ: &[&str] = &[
    "model",
    "input",
    "instructions",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "stream",
    "stream_options",
    "metadata",
    "service_tier",
    "max_output_tokens",
    "temperature",
    "top_p",
    "top_logprobs",
    "text",
    "reasoning",
    "include",
    "user",
    "safety_identifier",
];

fn extra<'a>(request: &mut Request<'a>, name: &'static str, value: Option<Node<'_, 'a>>) {
    request.extras.extend(value.map(|value| Extra {
        protocol: OWN,
        name: JsonStr::new(name),
        json: value.raw().into(),
    }));
}

/// The member `name` of the member `outer`, as `outer.name`.
fn nested_extra<'a>(
    request: &mut Request<'a>,
    outer: &str,
    name: &JsonStr<'a>,
    value: Node<'_, 'a>,
) {
    request.extras.push(Extra {
        protocol: OWN,
        name: JsonStr::spelt_owned(format!("{outer}.{}", name.as_spelt())),
        json: value.raw().into(),
    });
}
