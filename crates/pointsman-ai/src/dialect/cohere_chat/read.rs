//! Reading requests and answers.

use super::{read_citation, read_stop, read_usage};
use crate::{
    Protocol,
    conversation::{
        Arguments, Choice, Extra, Format, Function, Malformed, Media, MediaKind, Message, Opaque,
        Part, Reasoning, ReasoningMode, ReasoningSettings, Request, Response, Role, Schema, Source,
        Tool, ToolCall, ToolChoice, ToolResult, add_results, name_results,
    },
    dialect::Setting,
    json::{string::JsonStr, tree::Node},
};

const OWN: Protocol = Protocol::CohereChat;

/// Reads a client's request.
pub(in crate::dialect) fn read_request<'a>(root: Node<'_, 'a>) -> Result<Request<'a>, Malformed> {
    if !root.is_object() {
        return Err(Malformed::at(root, "expected an object"));
    }
    let mut request = Request::default();
    let mut strict = None;
    for (name, value) in root.members() {
        if value.is_null() {
            continue;
        }
        let number = || value.number().map(Into::into);
        let sampling = &mut request.sampling;
        match &*name.decode() {
            "messages" | "stream" => {}
            "model" => request.model = value.str(),
            "max_tokens" => sampling.max_tokens = number(),
            "temperature" => sampling.temperature = number(),
            "p" => sampling.top_p = number(),
            "k" => sampling.top_k = number(),
            "seed" => sampling.seed = number(),
            "frequency_penalty" => sampling.frequency_penalty = number(),
            "presence_penalty" => sampling.presence_penalty = number(),
            "stop_sequences" => sampling.stop = value.items().filter_map(Node::str).collect(),
            "logprobs" => sampling.logprobs = value.bool(),
            "tools" => read_tools(value, &mut request)?,
            "strict_tools" => strict = value.bool(),
            "tool_choice" => request.tool_choice = read_choice(value)?,
            "response_format" => request.format = read_format(value),
            "thinking" => request.reasoning = Some(read_thinking(value)),
            _ => request.extras.push(Extra {
                protocol: OWN,
                name,
                json: value.raw().into(),
            }),
        }
    }
    for tool in &mut request.tools {
        if let Tool::Function(function) = tool {
            function.strict = strict;
        }
    }
    let messages = root
        .get("messages")
        .filter(|messages| messages.is_array() && !messages.is_empty())
        .ok_or_else(|| Malformed::at(root, "messages: a list of messages is missing"))?;
    for message in messages.items() {
        read_message(message, &mut request.messages)?;
    }
    name_results(&mut request.messages);
    Ok(request)
}

fn read_tools<'a>(tools: Node<'_, 'a>, request: &mut Request<'a>) -> Result<(), Malformed> {
    for tool in tools.items() {
        let Some(function) = tool.get("function") else {
            request.tools.push(Tool::Hosted(opaque(tool)));
            continue;
        };
        let name = function.get_str("name");
        request.tools.push(Tool::Function(Function {
            name: name.ok_or_else(|| Malformed::at(function, "name: a string is missing"))?,
            description: function.get_str("description"),
            parameters: function.get("parameters").map(|schema| schema.raw().into()),
            strict: None,
            cache: None,
        }));
    }
    Ok(())
}

fn read_choice<'a>(choice: Node<'_, 'a>) -> Result<Option<ToolChoice<'a>>, Malformed> {
    if choice.says("REQUIRED") {
        Ok(Some(ToolChoice::Required))
    } else if choice.says("NONE") {
        Ok(Some(ToolChoice::None))
    } else {
        Err(Malformed::at(choice, "expected `REQUIRED` or `NONE`"))
    }
}

fn read_format<'a>(format: Node<'_, 'a>) -> Option<Format<'a>> {
    let kind = format.get("type")?;
    if kind.says("text") {
        return Some(Format::Text);
    }
    // The older name of the member is still taken.
    let schema = format.get("json_schema").or_else(|| format.get("schema"));
    Some(match schema {
        Some(schema) => Format::JsonSchema(Schema {
            schema: schema.raw().into(),
            ..Schema::default()
        }),
        None => Format::JsonObject,
    })
}

fn read_thinking<'a>(thinking: Node<'_, 'a>) -> ReasoningSettings<'a> {
    let disabled = thinking
        .get("type")
        .is_some_and(|kind| kind.says("disabled"));
    ReasoningSettings {
        mode: Some(if disabled {
            ReasoningMode::Disabled
        } else {
            ReasoningMode::Enabled
        }),
        budget: thinking.get("token_budget").and_then(Node::u64),
        ..ReasoningSettings::default()
    }
}

fn read_message<'a>(node: Node<'_, 'a>, into: &mut Vec<Message<'a>>) -> Result<(), Malformed> {
    let role = node.get("role");
    let role = match role
        .and_then(Node::str)
        .as_ref()
        .map(JsonStr::decode)
        .as_deref()
    {
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("tool") => return read_result(node, into),
        _ => {
            let at = role.unwrap_or(node);
            let what = "role: expected `system`, `user`, `assistant` or `tool`";
            return Err(Malformed::at(at, what));
        }
    };
    let content = node.get("content");
    if content.is_none() && role != Role::Assistant {
        return Err(Malformed::at(node, "content is missing"));
    }
    let parts = if role == Role::Assistant {
        read_answer(node)?
    } else {
        content.map(read_content).transpose()?.unwrap_or_default()
    };
    into.push(Message {
        role,
        name: None,
        parts,
        plain: content.is_some_and(Node::is_string),
    });
    Ok(())
}

fn read_result<'a>(node: Node<'_, 'a>, into: &mut Vec<Message<'a>>) -> Result<(), Malformed> {
    let id = node.get_str("tool_call_id");
    let content = node.get("content");
    let result = Part::ToolResult(ToolResult {
        call_id: id.ok_or_else(|| Malformed::at(node, "tool_call_id: a string is missing"))?,
        name: None,
        parts: content.map(read_content).transpose()?.unwrap_or_default(),
        plain: content.is_some_and(Node::is_string),
        is_error: false,
        cache: None,
    });
    add_results(into, [result]);
    Ok(())
}

fn read_content<'a>(content: Node<'_, 'a>) -> Result<Vec<Part<'a>>, Malformed> {
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
    let kind = part.get_str("type").unwrap_or_default();
    let text = |name: &str| {
        let found = part.get_str(name);
        found.ok_or_else(|| Malformed::at(part, format!("{name}: a string is missing")))
    };
    Ok(match &*kind.decode() {
        "text" => Part::text(text("text")?),
        "thinking" => Part::Reasoning(Reasoning {
            text: text("thinking")?,
            ..Reasoning::default()
        }),
        "image_url" => {
            let image = part.get("image_url");
            let url = image.and_then(|image| image.get_str("url"));
            let url = url.ok_or_else(|| Malformed::at(part, "image_url.url is missing"))?;
            let (source, media_type) = Source::of_url(url);
            Part::Media(Media {
                detail: image.and_then(|image| image.get_str("detail")),
                ..Media::new(MediaKind::Image, source, media_type)
            })
        }
        "document" => match part
            .get("document")
            .and_then(|document| document.get("data"))
        {
            // Others have texts there, and a text of JSON says the same.
            Some(data) => Part::text(data.str().unwrap_or_else(|| JsonStr::new(data.raw()))),
            None => return Err(Malformed::at(part, "document.data is missing")),
        },
        _ => Part::Opaque(opaque(part)),
    })
}

fn opaque<'a>(part: Node<'_, 'a>) -> Opaque<'a> {
    Opaque {
        protocol: OWN,
        kind: part.get_str("type").unwrap_or_default(),
        json: part.raw().into(),
    }
}

/// What the model says: its plan, its content, its calls.
fn read_answer<'a>(message: Node<'_, 'a>) -> Result<Vec<Part<'a>>, Malformed> {
    let mut parts = Vec::new();
    if let Some(text) = message.get_str("tool_plan").filter(|plan| !plan.is_empty()) {
        parts.push(Part::Reasoning(Reasoning {
            text,
            ..Reasoning::default()
        }));
    }
    if let Some(content) = message.get("content") {
        parts.extend(read_content(content)?);
    }
    let citations = message.get("citations").into_iter().flat_map(Node::items);
    let citations: Vec<_> = citations.map(read_citation).collect();
    let text = parts.iter_mut().find_map(|part| match part {
        Part::Text(text) => Some(text),
        _ => None,
    });
    if let Some(text) = text {
        text.citations = citations;
    }
    for call in message.get("tool_calls").into_iter().flat_map(Node::items) {
        let function = call.get("function");
        let of_function = |name| function.and_then(|function| function.get_str(name));
        parts.push(Part::ToolCall(ToolCall {
            id: call.get_str("id").unwrap_or_default(),
            name: of_function("name").unwrap_or_default(),
            arguments: Arguments::Text(of_function("arguments").unwrap_or_default()),
            signature: None,
            cache: None,
        }));
    }
    Ok(parts)
}

/// Reads a provider's answer.
pub(in crate::dialect) fn read_response<'a>(
    root: Node<'_, 'a>,
    setting: &Setting<'_>,
) -> Result<Response<'a>, Malformed> {
    let message = root
        .get("message")
        .filter(|message| message.is_object())
        .ok_or_else(|| Malformed::at(root, "message is missing"))?;
    let parts = read_answer(message)?;
    let has_calls = parts.iter().any(|part| matches!(part, Part::ToolCall(_)));
    let stop = root.get_str("finish_reason").unwrap_or_default();
    Ok(Response {
        id: root.get_str("id"),
        model: Some(JsonStr::from(setting.model.to_owned())),
        created: None,
        choices: vec![Choice {
            parts,
            stop: read_stop(&stop, has_calls),
            logprobs: None,
        }],
        usage: root.get("usage").map(read_usage),
        service_tier: None,
    })
}
