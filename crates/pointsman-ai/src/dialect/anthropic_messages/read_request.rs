//! Reading requests.

use super::{
    OWN,
    read_parts::{cache_of, read_content, read_system},
};
use crate::{
    conversation::{
        Extra, Format, Function, Malformed, Message, Opaque, Part, ReasoningMode,
        ReasoningSettings, Request, Role, Schema, ShowThoughts, Tool, ToolChoice, name_results,
    },
    json::{string::JsonStr, tree::Node},
};

/// Reads a client's request. Where APISIX 3.18 has words for what is wrong, they are its words.
pub(in crate::dialect) fn read_request<'a>(root: Node<'_, 'a>) -> Result<Request<'a>, Malformed> {
    if !root.is_object() {
        return Err(Malformed::at(root, "expected an object"));
    }
    let mut request = Request::default();
    if let Some(system) = root.get("system") {
        request.messages.extend(read_system(system)?);
    }
    read_messages(root, &mut request.messages)?;
    let mut settings = Settings::default();
    for (name, value) in root.members() {
        if !value.is_null() && !settings.read(&name, value, &mut request)? {
            request.extras.push(extra(name, value));
        }
    }
    settings.finish(&mut request);
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

fn read_messages<'a>(root: Node<'_, 'a>, into: &mut Vec<Message<'a>>) -> Result<(), Malformed> {
    let list = root
        .get("messages")
        .filter(|list| list.is_array() && !list.is_empty());
    let Some(list) = list else {
        return Err(said("missing messages".to_owned()));
    };
    for (index, message) in list.items().enumerate() {
        let position = index + 1;
        let role = message.get("role").filter(|role| role.is_string());
        let Some(role) = role else {
            return Err(said(format!("invalid message at index {position}")));
        };
        let content = message.get("content");
        let content = content.filter(|content| content.is_string() || content.is_array());
        let Some(content) = content else {
            return Err(said(format!("invalid message content at index {position}")));
        };
        let role = match &*role.str().unwrap_or_default().decode() {
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "system" => Role::System,
            _ => return Err(Malformed::at(role, "expected `user` or `assistant`")),
        };
        let plain = content.is_string();
        let parts = read_content(content)?;
        let is_result = |part: &Part<'_>| matches!(part, Part::ToolResult(_));
        let (results, rest): (Vec<_>, Vec<_>) = parts.into_iter().partition(is_result);
        if !results.is_empty() {
            into.push(message_of(Role::Tool, results, false));
            if rest.is_empty() {
                continue;
            }
        }
        into.push(message_of(role, rest, plain));
    }
    Ok(())
}

fn said(what: String) -> Malformed {
    Malformed {
        path: String::new(),
        what,
    }
}

pub(super) fn message_of(role: Role, parts: Vec<Part<'_>>, plain: bool) -> Message<'_> {
    Message {
        role,
        name: None,
        parts,
        plain,
    }
}

/// Settings that stand in more than one member.
#[derive(Default)]
struct Settings<'a> {
    thinking: Option<ReasoningSettings<'a>>,
    effort: Option<JsonStr<'a>>,
    /// `output_format`, which wins, and `output_config.format`.
    format: [Option<Format<'a>>; 2],
}

impl<'a> Settings<'a> {
    /// Takes the member in; says whether it is known.
    fn read(
        &mut self,
        name: &JsonStr<'a>,
        value: Node<'_, 'a>,
        request: &mut Request<'a>,
    ) -> Result<bool, Malformed> {
        let sampling = &mut request.sampling;
        let number = || value.number().map(Into::into);
        match &*name.decode() {
            "messages" | "system" | "stream" => {}
            "model" => request.model = value.str(),
            "max_tokens" => sampling.max_tokens = number(),
            "temperature" => sampling.temperature = number(),
            "top_p" => sampling.top_p = number(),
            "top_k" => sampling.top_k = number(),
            "stop_sequences" => sampling.stop = value.items().filter_map(Node::str).collect(),
            "tools" => read_tools(value, request),
            "tool_choice" => read_choice(value, request),
            "thinking" => self.thinking = read_thinking(value),
            "output_config" => self.read_output(value, request),
            "output_format" => self.format[0] = read_format(value),
            "metadata" => read_metadata(value, request),
            "service_tier" => {
                request.service_tier = value.str().map(|tier| match tier.is("standard_only") {
                    true => JsonStr::new("default"),
                    false => tier,
                });
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn read_output(&mut self, config: Node<'_, 'a>, request: &mut Request<'a>) {
        for (name, value) in config.members() {
            if name.is("effort") {
                self.effort = value.str().filter(|effort| !effort.is_empty());
            } else if name.is("format") {
                self.format[1] = read_format(value);
            } else if !value.is_null() {
                let name = format!("output_config.{}", name.decode());
                request.extras.push(extra(JsonStr::from(name), value));
            }
        }
    }

    fn finish(self, request: &mut Request<'a>) {
        let [older, newer] = self.format;
        request.format = older.or(newer);
        // An effort alone asks for no thoughts.
        request.reasoning = self.thinking.map(|thinking| ReasoningSettings {
            effort: (self.effort).filter(|_| thinking.mode == Some(ReasoningMode::Adaptive)),
            ..thinking
        });
    }
}

fn read_thinking<'a>(thinking: Node<'_, 'a>) -> Option<ReasoningSettings<'a>> {
    let kind = thinking.get_str("type")?;
    let (mode, budget) = match &*kind.decode() {
        "enabled" => {
            let budget = thinking.get("budget_tokens").and_then(Node::u64);
            (ReasoningMode::Enabled, budget)
        }
        "adaptive" => (ReasoningMode::Adaptive, None),
        "disabled" | "between_tools" => (ReasoningMode::Disabled, None),
        _ => return None,
    };
    let display = thinking.get_str("display");
    let show = display.and_then(|display| match &*display.decode() {
        "summarized" => Some(ShowThoughts::Yes),
        "omitted" => Some(ShowThoughts::No),
        _ => None,
    });
    Some(ReasoningSettings {
        mode: Some(mode),
        budget,
        show,
        ..ReasoningSettings::default()
    })
}

fn read_format<'a>(format: Node<'_, 'a>) -> Option<Format<'a>> {
    let schema = format.get("schema")?;
    let counts =
        format.get("type")?.says("json_schema") && schema.is_object() && !schema.is_empty();
    counts.then(|| {
        Format::JsonSchema(Schema {
            schema: schema.raw().into(),
            ..Schema::default()
        })
    })
}

fn read_tools<'a>(tools: Node<'_, 'a>, request: &mut Request<'a>) {
    for tool in tools.items() {
        let kind = tool.get_str("type").filter(|kind| !kind.is("custom"));
        if let Some(kind) = kind {
            request.tools.push(Tool::Hosted(Opaque {
                protocol: OWN,
                kind,
                json: tool.raw().into(),
            }));
            continue;
        }
        // Nobody could call a tool without a name.
        let name = tool.get_str("name").filter(|name| !name.is_empty());
        let Some(name) = name else {
            continue;
        };
        request.tools.push(Tool::Function(Function {
            name,
            description: tool.get_str("description"),
            parameters: tool.get("input_schema").map(|schema| schema.raw().into()),
            strict: tool.get("strict").and_then(Node::bool),
            cache: cache_of(tool),
        }));
    }
}

fn read_choice<'a>(choice: Node<'_, 'a>, request: &mut Request<'a>) {
    let kind = choice.get_str("type").unwrap_or_default();
    request.tool_choice = match &*kind.decode() {
        "auto" => Some(ToolChoice::Auto),
        "any" => Some(ToolChoice::Required),
        "none" => Some(ToolChoice::None),
        "tool" => choice.get_str("name").map(ToolChoice::Tool),
        _ => None,
    };
    let alone = choice.get("disable_parallel_tool_use").and_then(Node::bool);
    if alone == Some(true) {
        request.parallel_tool_calls = Some(false);
    }
}

fn read_metadata<'a>(metadata: Node<'_, 'a>, request: &mut Request<'a>) {
    for (name, value) in metadata.members() {
        if name.is("user_id") {
            request.user = value.str();
        } else if !value.is_null() {
            let name = format!("metadata.{}", name.decode());
            request.extras.push(extra(JsonStr::from(name), value));
        }
    }
}
