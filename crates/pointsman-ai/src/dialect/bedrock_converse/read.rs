//! Reading requests and answers.

use super::{Setting, type_of};
use crate::{
    Protocol, Usage,
    conversation::{
        Arguments, CacheMark, Choice, Extra, Function, Malformed, Media, MediaKind, Message,
        Opaque, Part, Reasoning, ReasoningMode, ReasoningSettings, Request, Response, Role,
        Signature, Source, Stop, Text, Tool, ToolCall, ToolChoice, ToolResult, name_results,
    },
    json::{string::JsonStr, tree::Node},
};

const OWN: Protocol = Protocol::BedrockConverse;

/// Reads a client's request.
pub(in crate::dialect) fn read_request<'a>(root: Node<'_, 'a>) -> Result<Request<'a>, Malformed> {
    if !root.is_object() {
        return Err(Malformed::at(root, "expected an object"));
    }
    let mut request = Request::default();
    for (name, value) in root.members() {
        if value.is_null() {
            continue;
        }
        match &*name.decode() {
            "messages" | "system" | "stream" => {}
            "inferenceConfig" => read_inference(value, &mut request),
            "toolConfig" => read_tools(value, &mut request)?,
            "additionalModelRequestFields" => read_additional(value, &mut request),
            "requestMetadata" => {
                let pairs = value.members();
                request.metadata = pairs.filter_map(|(k, v)| Some((k, v.str()?))).collect();
            }
            "serviceTier" => request.service_tier = value.get_str("type"),
            _ => request.extras.push(extra(name, value)),
        }
    }
    if let Some(system) = root.get("system") {
        let parts = read_blocks(system)?;
        if !parts.is_empty() {
            request.messages.push(message(Role::System, parts));
        }
    }
    let messages = root
        .get("messages")
        .ok_or_else(|| Malformed::at(root, "messages: a list of messages is missing"))?;
    if !messages.is_array() {
        return Err(Malformed::at(messages, "expected a list of messages"));
    }
    for item in messages.items() {
        read_message(item, &mut request.messages)?;
    }
    name_results(&mut request.messages);
    Ok(request)
}

fn extra<'a>(name: JsonStr<'a>, value: Node<'_, 'a>) -> Extra<'a> {
    Extra {
        protocol: OWN,
        name,
        json: value.raw().into(),
    }
}

fn read_inference<'a>(config: Node<'_, 'a>, request: &mut Request<'a>) {
    let number = |name| config.get(name).and_then(Node::number).map(Into::into);
    let sampling = &mut request.sampling;
    sampling.max_tokens = number("maxTokens");
    sampling.temperature = number("temperature");
    sampling.top_p = number("topP");
    let stop = config.get("stopSequences");
    sampling.stop = stop.map_or_else(Vec::new, |list| {
        list.items().filter_map(Node::str).collect()
    });
}

/// Models of Anthropic's know these; all else is kept as it is.
fn read_additional<'a>(fields: Node<'_, 'a>, request: &mut Request<'a>) {
    let output = fields.get("output_config");
    for (name, value) in fields.members() {
        if name.is("top_k") && value.number().is_some() {
            request.sampling.top_k = value.number().map(Into::into);
        } else if name.is("thinking") && value.is_object() {
            let kind = value.get_str("type").unwrap_or_default();
            let mode = match &*kind.decode() {
                "disabled" | "between_tools" => ReasoningMode::Disabled,
                "adaptive" => ReasoningMode::Adaptive,
                _ => ReasoningMode::Enabled,
            };
            let effort = output.and_then(|output| output.get_str("effort"));
            request.reasoning = Some(ReasoningSettings {
                mode: Some(mode),
                effort: effort.filter(|_| mode == ReasoningMode::Adaptive),
                budget: value.get("budget_tokens").and_then(Node::u64),
                ..ReasoningSettings::default()
            });
        } else if name.is("output_config") && value.is_object() {
            // An effort alone asks for no thoughts.
            for (name, value) in value.members().filter(|(name, _)| !name.is("effort")) {
                let name = format!(
                    "additionalModelRequestFields.output_config.{}",
                    name.decode()
                );
                request.extras.push(extra(JsonStr::from(name), value));
            }
        } else if !value.is_null() {
            let name = format!("additionalModelRequestFields.{}", name.decode());
            request.extras.push(extra(JsonStr::from(name), value));
        }
    }
}

fn read_tools<'a>(config: Node<'_, 'a>, request: &mut Request<'a>) -> Result<(), Malformed> {
    for tool in config.get("tools").into_iter().flat_map(Node::items) {
        if let Some(spec) = tool.get("toolSpec") {
            let name = spec.get_str("name");
            request.tools.push(Tool::Function(Function {
                name: name.ok_or_else(|| Malformed::at(spec, "name: a string is missing"))?,
                description: spec.get_str("description"),
                parameters: spec
                    .get("inputSchema")
                    .and_then(|schema| schema.get("json"))
                    .map(|schema| schema.raw().into()),
                strict: spec.get("strict").and_then(Node::bool),
                cache: None,
            }));
        } else if let Some(mark) = cache_mark(tool) {
            if let Some(Tool::Function(function)) = request.tools.last_mut() {
                function.cache = Some(mark);
            }
        } else {
            request.tools.push(Tool::Hosted(opaque(tool)));
        }
    }
    let choice = config.get("toolChoice");
    request.tool_choice = choice.and_then(|choice| {
        if choice.get("any").is_some() {
            Some(ToolChoice::Required)
        } else if let Some(tool) = choice.get("tool") {
            tool.get_str("name").map(ToolChoice::Tool)
        } else {
            choice.get("auto").map(|_| ToolChoice::Auto)
        }
    });
    Ok(())
}

fn message(role: Role, parts: Vec<Part<'_>>) -> Message<'_> {
    Message {
        role,
        name: None,
        parts,
        plain: false,
    }
}

fn read_message<'a>(node: Node<'_, 'a>, into: &mut Vec<Message<'a>>) -> Result<(), Malformed> {
    let role = node.get("role");
    let content = node
        .get("content")
        .filter(|content| content.is_array())
        .ok_or_else(|| Malformed::at(node, "content: a list of content blocks is missing"))?;
    let parts = read_blocks(content)?;
    match role {
        Some(role) if role.says("assistant") => into.push(message(Role::Assistant, parts)),
        Some(role) if role.says("user") => {
            let is_result = |part: &Part<'_>| matches!(part, Part::ToolResult(_));
            let (results, rest): (Vec<_>, Vec<_>) = parts.into_iter().partition(is_result);
            if !results.is_empty() {
                into.push(message(Role::Tool, results));
            }
            if !rest.is_empty() {
                into.push(message(Role::User, rest));
            }
        }
        _ => {
            let at = role.unwrap_or(node);
            return Err(Malformed::at(at, "role: expected `user` or `assistant`"));
        }
    }
    Ok(())
}

fn read_blocks<'a>(list: Node<'_, 'a>) -> Result<Vec<Part<'a>>, Malformed> {
    let mut parts = Vec::new();
    for block in list.items() {
        if let Some(mark) = cache_mark(block) {
            if let Some(last) = parts.last_mut() {
                put_mark(last, mark);
            }
            continue;
        }
        parts.push(read_block(block)?);
    }
    Ok(parts)
}

fn cache_mark<'a>(block: Node<'_, 'a>) -> Option<CacheMark<'a>> {
    let point = block.get("cachePoint")?;
    Some(CacheMark {
        ttl: point.get_str("ttl"),
    })
}

fn put_mark<'a>(part: &mut Part<'a>, mark: CacheMark<'a>) {
    match part {
        Part::Text(text) => text.cache = Some(mark),
        Part::Media(media) => media.cache = Some(mark),
        Part::ToolCall(call) => call.cache = Some(mark),
        Part::ToolResult(result) => result.cache = Some(mark),
        Part::Reasoning(_) | Part::Refusal(_) | Part::Opaque(_) => {}
    }
}

fn read_block<'a>(block: Node<'_, 'a>) -> Result<Part<'a>, Malformed> {
    if let Some(text) = block.get("text") {
        let text = text
            .str()
            .ok_or_else(|| Malformed::at(text, "expected a string"))?;
        return Ok(Part::text(text));
    }
    for (name, kind) in [
        ("image", MediaKind::Image),
        ("document", MediaKind::Document),
        ("video", MediaKind::Video),
    ] {
        if let Some(media) = block.get(name) {
            return Ok(
                read_media(media, kind).map_or_else(|| Part::Opaque(opaque(block)), Part::Media)
            );
        }
    }
    if let Some(call) = block.get("toolUse") {
        return read_call(call);
    }
    if let Some(result) = block.get("toolResult") {
        return read_result(result);
    }
    let reasoning = block.get("reasoningContent").and_then(read_reasoning);
    Ok(reasoning.unwrap_or_else(|| Part::Opaque(opaque(block))))
}

fn read_call<'a>(call: Node<'_, 'a>) -> Result<Part<'a>, Malformed> {
    let text = |name: &str| {
        let found = call.get_str(name);
        found.ok_or_else(|| Malformed::at(call, format!("{name}: a string is missing")))
    };
    Ok(Part::ToolCall(ToolCall {
        id: text("toolUseId")?,
        name: text("name")?,
        arguments: Arguments::Json(call.get("input").map_or("{}", Node::raw).into()),
        signature: None,
        cache: None,
    }))
}

fn read_result<'a>(result: Node<'_, 'a>) -> Result<Part<'a>, Malformed> {
    let id = result.get_str("toolUseId");
    let mut parts = Vec::new();
    for block in result.get("content").into_iter().flat_map(Node::items) {
        parts.push(match block.get("json") {
            // Others have texts there, and a text of JSON says the same.
            Some(json) => Part::text(JsonStr::new(json.raw())),
            None => read_block(block)?,
        });
    }
    Ok(Part::ToolResult(ToolResult {
        call_id: id.ok_or_else(|| Malformed::at(result, "toolUseId: a string is missing"))?,
        name: None,
        parts,
        plain: false,
        is_error: result
            .get("status")
            .is_some_and(|status| status.says("error")),
        cache: None,
    }))
}

fn read_media<'a>(media: Node<'_, 'a>, kind: MediaKind) -> Option<Media<'a>> {
    let source = media.get("source")?;
    let source = if let Some(bytes) = source.get_str("bytes") {
        Source::Base64(bytes)
    } else if let Some(text) = source.get_str("text") {
        Source::Text(text)
    } else {
        Source::Url(source.get("s3Location")?.get_str("uri")?)
    };
    let format = media.get_str("format");
    let citations = media.get("citations").and_then(|c| c.get("enabled"));
    Some(Media {
        kind,
        source,
        media_type: format.as_ref().and_then(type_of).map(JsonStr::new),
        name: media.get_str("name"),
        detail: None,
        context: media.get_str("context"),
        citations: citations.and_then(Node::bool) == Some(true),
        cache: None,
    })
}

fn read_reasoning<'a>(content: Node<'_, 'a>) -> Option<Part<'a>> {
    if let Some(hidden) = content.get_str("redactedContent") {
        return Some(Part::Reasoning(Reasoning {
            signature: Some(Signature::read_bytes(OWN, hidden)),
            is_hidden: true,
            ..Reasoning::default()
        }));
    }
    let shown = content.get("reasoningText")?;
    Some(Part::Reasoning(Reasoning {
        text: shown.get_str("text")?,
        signature: shown
            .get_str("signature")
            .map(|data| Signature::read(OWN, data)),
        ..Reasoning::default()
    }))
}

fn opaque<'a>(block: Node<'_, 'a>) -> Opaque<'a> {
    let kind = block.members().next().map(|(name, _)| name);
    Opaque {
        protocol: OWN,
        kind: kind.unwrap_or_default(),
        json: block.raw().into(),
    }
}

/// Reads a provider's answer.
pub(in crate::dialect) fn read_response<'a>(
    root: Node<'_, 'a>,
    setting: &Setting<'_>,
) -> Result<Response<'a>, Malformed> {
    let content = root
        .get("output")
        .and_then(|output| output.get("message"))
        .and_then(|message| message.get("content"))
        .ok_or_else(|| Malformed::at(root, "output.message.content is missing"))?;
    let parts = read_answer(content)?;
    let has_calls = parts.iter().any(|part| matches!(part, Part::ToolCall(_)));
    let stop = root.get_str("stopReason").unwrap_or_default();
    Ok(Response {
        id: None,
        model: Some(JsonStr::from(setting.model.to_owned())),
        created: None,
        choices: vec![Choice {
            parts,
            stop: read_stop(&stop, has_calls),
            logprobs: None,
        }],
        usage: root.get("usage").map(read_usage),
        service_tier: read_tier(root),
    })
}

/// The tier that served an answer, from the object that names it.
pub(super) fn read_tier<'a>(node: Node<'_, 'a>) -> Option<JsonStr<'a>> {
    node.get("serviceTier")?.get_str("type")
}

/// The blocks of an answer. Text with citations comes as the text.
fn read_answer<'a>(content: Node<'_, 'a>) -> Result<Vec<Part<'a>>, Malformed> {
    let mut parts = Vec::new();
    for block in content.items() {
        match block.get("citationsContent") {
            Some(cited) => {
                let texts = cited.get("content").into_iter().flat_map(Node::items);
                let texts: Vec<_> = texts.filter_map(|text| text.get_str("text")).collect();
                parts.push(Part::Text(Text {
                    text: JsonStr::concat(&texts, ""),
                    citations: super::stream::read_citations(cited),
                    cache: None,
                }));
            }
            None => parts.push(read_block(block)?),
        }
    }
    Ok(parts)
}

pub(super) fn read_stop<'a>(word: &JsonStr<'a>, has_calls: bool) -> Stop<'a> {
    match &*word.decode() {
        "tool_use" => Stop::ToolCalls,
        "max_tokens" | "model_context_window_exceeded" => Stop::Length,
        "stop_sequence" => Stop::Sequence(None),
        "guardrail_intervened" | "content_filtered" => Stop::ContentFilter,
        "end_turn" | "" if has_calls => Stop::ToolCalls,
        "end_turn" | "" => Stop::End,
        _ => Stop::Other(word.clone()),
    }
}

/// `inputTokens` leaves out what came from the cache, as Anthropic's does.
pub(super) fn read_usage(usage: Node<'_, '_>) -> Usage {
    let count = |name| usage.get(name).and_then(Node::u64).unwrap_or_default();
    let (input, completion) = (count("inputTokens"), count("outputTokens"));
    let (cache_read, cache_creation) = (
        count("cacheReadInputTokens"),
        count("cacheWriteInputTokens"),
    );
    let prompt = input.saturating_add(cache_read);
    let summed = prompt
        .saturating_add(cache_creation)
        .saturating_add(completion);
    let total = usage.get("totalTokens").and_then(Node::u64);
    Usage {
        prompt,
        completion,
        total: total.unwrap_or(summed),
        cache_read,
        cache_creation,
        reasoning: 0,
    }
}
