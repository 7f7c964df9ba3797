//! Reading requests.

use super::{
    OWN,
    read_parts::{read_content, read_message},
};
use crate::{
    conversation::{
        Extra, Format, Function, Malformed, Message, Opaque, Part, ReasoningMode,
        ReasoningSettings, Request, Role, Schema, Tool, ToolChoice, ToolResult, add_results,
        name_results,
    },
    json::{string::JsonStr, tree::Node},
};

/// Reads a client's request.
pub(in crate::dialect) fn read_request<'a>(root: Node<'_, 'a>) -> Result<Request<'a>, Malformed> {
    if !root.is_object() {
        return Err(Malformed::at(root, "expected an object"));
    }
    let mut request = Request::default();
    for (name, value) in root.members() {
        if !value.is_null()
            && !read_sampling(&name, value, &mut request)
            && !read_setting(&name, value, &mut request)?
        {
            request.extras.push(Extra {
                protocol: OWN,
                name,
                json: value.raw().into(),
            });
        }
    }
    let messages = root
        .get("messages")
        .filter(|messages| messages.is_array() && !messages.is_empty())
        .ok_or_else(|| Malformed::at(root, "messages: a list of messages is missing"))?;
    for message in messages.items() {
        read_one(message, &mut request.messages)?;
    }
    name_results(&mut request.messages);
    Ok(request)
}

fn read_sampling<'a>(name: &JsonStr<'a>, value: Node<'_, 'a>, request: &mut Request<'a>) -> bool {
    let sampling = &mut request.sampling;
    let number = || value.number().map(Into::into);
    match &*name.decode() {
        "max_completion_tokens" => sampling.max_tokens = number(),
        "max_tokens" if sampling.max_tokens.is_none() => sampling.max_tokens = number(),
        "max_tokens" => {}
        "temperature" => sampling.temperature = number(),
        "top_p" => sampling.top_p = number(),
        "frequency_penalty" => sampling.frequency_penalty = number(),
        "presence_penalty" => sampling.presence_penalty = number(),
        "seed" => sampling.seed = number(),
        "n" => sampling.n = value.u64(),
        "stop" => {
            sampling.stop = match value.str() {
                Some(one) => vec![one],
                None => value.items().filter_map(Node::str).collect(),
            }
        }
        "logprobs" => sampling.logprobs = value.bool(),
        "top_logprobs" => sampling.top_logprobs = number(),
        "logit_bias" if value.is_empty() => {}
        "logit_bias" => sampling.logit_bias = Some(value.raw().into()),
        _ => return false,
    }
    true
}

fn read_setting<'a>(
    name: &JsonStr<'a>,
    value: Node<'_, 'a>,
    request: &mut Request<'a>,
) -> Result<bool, Malformed> {
    match &*name.decode() {
        // Whether usage is in the stream is between the gateway and each side.
        "messages" | "stream" | "stream_options" => {}
        "model" => request.model = value.str(),
        "tools" => read_tools(value, request)?,
        "tool_choice" => return Ok(read_choice(value, request)),
        "parallel_tool_calls" => request.parallel_tool_calls = value.bool(),
        "response_format" => request.format = read_format(value)?,
        "reasoning_effort" => {
            let reasoning = request.reasoning.get_or_insert_default();
            set_effort(reasoning, value.str());
        }
        "reasoning" => read_reasoning(value, request.reasoning.get_or_insert_default()),
        "safety_identifier" => request.user = value.str(),
        "user" => request.user = request.user.take().or_else(|| value.str()),
        "metadata" => {
            let pairs = value.members();
            request.metadata = pairs.filter_map(|(k, v)| Some((k, v.str()?))).collect();
        }
        "service_tier" => request.service_tier = value.str(),
        _ => return Ok(false),
    }
    Ok(true)
}

/// `none` is no amount.
fn set_effort<'a>(reasoning: &mut ReasoningSettings<'a>, word: Option<JsonStr<'a>>) {
    if word.as_ref().is_some_and(|word| word.is("none")) {
        reasoning.mode = Some(ReasoningMode::Disabled);
    } else {
        reasoning.effort = word;
    }
}

/// OpenRouter's form of it.
fn read_reasoning<'a>(node: Node<'_, 'a>, reasoning: &mut ReasoningSettings<'a>) {
    if let Some(effort) = node.get_str("effort") {
        set_effort(reasoning, Some(effort));
    }
    reasoning.budget = node.get("max_tokens").and_then(Node::u64);
    if node.get("enabled").and_then(Node::bool) == Some(false) {
        reasoning.mode = Some(ReasoningMode::Disabled);
    }
}

fn read_tools<'a>(tools: Node<'_, 'a>, request: &mut Request<'a>) -> Result<(), Malformed> {
    if !tools.is_array() {
        return Err(Malformed::at(tools, "expected a list of tools"));
    }
    for tool in tools.items() {
        let Some(function) = tool.get("function") else {
            request.tools.push(Tool::Hosted(Opaque {
                protocol: OWN,
                kind: tool.get_str("type").unwrap_or_default(),
                json: tool.raw().into(),
            }));
            continue;
        };
        let name = function.get_str("name");
        request.tools.push(Tool::Function(Function {
            name: name.ok_or_else(|| Malformed::at(function, "name: a string is missing"))?,
            description: function.get_str("description"),
            parameters: function.get("parameters").map(|schema| schema.raw().into()),
            strict: function.get("strict").and_then(Node::bool),
            cache: tool
                .get("cache_control")
                .map(|mark| crate::conversation::CacheMark {
                    ttl: mark.get_str("ttl"),
                }),
        }));
    }
    Ok(())
}

/// Says whether it is one of the choices that others know, too.
fn read_choice<'a>(choice: Node<'_, 'a>, request: &mut Request<'a>) -> bool {
    let word = choice.str();
    let named = || {
        choice
            .get("function")
            .and_then(|function| function.get_str("name"))
    };
    request.tool_choice = match word.as_ref().map(JsonStr::decode).as_deref() {
        Some("auto") => Some(ToolChoice::Auto),
        Some("none") => Some(ToolChoice::None),
        Some("required") => Some(ToolChoice::Required),
        _ => named().map(ToolChoice::Tool),
    };
    request.tool_choice.is_some()
}

fn read_format<'a>(format: Node<'_, 'a>) -> Result<Option<Format<'a>>, Malformed> {
    let kind = format.get_str("type").unwrap_or_default();
    match &*kind.decode() {
        "text" => Ok(Some(Format::Text)),
        "json_object" => Ok(Some(Format::JsonObject)),
        "json_schema" => {
            let given = format.get("json_schema");
            let schema = given.and_then(|given| given.get("schema"));
            let (Some(given), Some(schema)) = (given, schema) else {
                return Err(Malformed::at(format, "json_schema.schema is missing"));
            };
            Ok(Some(Format::JsonSchema(Schema {
                name: given.get_str("name"),
                description: given.get_str("description"),
                schema: schema.raw().into(),
                strict: given.get("strict").and_then(Node::bool),
            })))
        }
        _ => Err(Malformed::at(
            format,
            "type: expected `text`, `json_object` or `json_schema`",
        )),
    }
}

fn read_one<'a>(node: Node<'_, 'a>, into: &mut Vec<Message<'a>>) -> Result<(), Malformed> {
    let role = node.get("role");
    let role = match role
        .and_then(Node::str)
        .as_ref()
        .map(JsonStr::decode)
        .as_deref()
    {
        Some("system") => Role::System,
        Some("developer") => Role::Developer,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("tool" | "function") => return read_result(node, into),
        _ => {
            let at = role.unwrap_or(node);
            let what = "role: expected `system`, `developer`, `user`, `assistant` or `tool`";
            return Err(Malformed::at(at, what));
        }
    };
    let content = node.get("content");
    let parts = match (role, content) {
        (Role::Assistant, _) => read_message(node)?,
        (_, Some(content)) => read_content(content)?,
        (_, None) => return Err(Malformed::at(node, "content is missing")),
    };
    into.push(Message {
        role,
        name: node.get_str("name"),
        parts,
        plain: content.is_some_and(Node::is_string),
    });
    Ok(())
}

fn read_result<'a>(node: Node<'_, 'a>, into: &mut Vec<Message<'a>>) -> Result<(), Malformed> {
    let legacy = node.get("role").is_some_and(|role| role.says("function"));
    let call_id = node.get_str("tool_call_id");
    let content = node.get("content");
    let result = Part::ToolResult(ToolResult {
        call_id: match call_id {
            Some(id) => id,
            None if legacy => JsonStr::default(),
            None => return Err(Malformed::at(node, "tool_call_id: a string is missing")),
        },
        name: node.get_str("name"),
        parts: content.map(read_content).transpose()?.unwrap_or_default(),
        plain: content.is_none_or(Node::is_string),
        is_error: false,
        cache: None,
    });
    add_results(into, [result]);
    Ok(())
}
