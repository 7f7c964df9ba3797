//! Writing requests.

use super::{
    OWN, schema,
    write_parts::{is_media, refusal_of, write_details, write_part},
};
use crate::{
    Protocol, Provider,
    conversation::{
        Format, Media, Message, Part, Reasoning, ReasoningMode, Request, Role, Schema, Source,
        Tool, ToolChoice, ToolResult,
    },
    dialect::Setting,
    json::{string::JsonStr, write::Writer},
};

/// Writes a request to a provider.
pub(in crate::dialect) fn write_request(
    request: &Request<'_>,
    setting: &Setting<'_>,
    w: &mut Writer<'_>,
) {
    w.object(|w| {
        if !setting.model.is_empty() {
            w.key("model").text(setting.model);
        }
        w.key("messages").array(|w| {
            for message in &request.messages {
                write_message(message, setting, w);
            }
        });
        if request.stream {
            w.key("stream").bool(true);
            w.key("stream_options")
                .object(|w| w.key("include_usage").bool(true));
        }
        write_tools(request, w);
        write_format(request.format.as_ref(), setting, w);
        if let Some(effort) = effort_of(request) {
            w.key("reasoning_effort").str(&effort);
        }
        write_sampling(request, setting, w);
        if let Some(user) = &request.user {
            w.key("user").str(user);
        }
        if !request.metadata.is_empty() {
            w.key("metadata").object(|w| {
                for (name, value) in &request.metadata {
                    w.key_str(name).str(value);
                }
            });
        }
        if let Some(tier) = &request.service_tier {
            w.key("service_tier").str(tier);
        }
        for extra in request.extras.iter().filter(|extra| extra.protocol == OWN) {
            w.key_str(&extra.name).raw(&extra.json);
        }
    });
}

fn write_sampling(request: &Request<'_>, setting: &Setting<'_>, w: &mut Writer<'_>) {
    let sampling = &request.sampling;
    for (name, json) in [
        (limit_name(setting), &sampling.max_tokens),
        ("temperature", &sampling.temperature),
        ("top_p", &sampling.top_p),
        ("frequency_penalty", &sampling.frequency_penalty),
        ("presence_penalty", &sampling.presence_penalty),
        ("seed", &sampling.seed),
        ("top_logprobs", &sampling.top_logprobs),
        ("logit_bias", &sampling.logit_bias),
    ] {
        if let Some(json) = json {
            w.key(name).raw(json);
        }
    }
    if let Some(n) = sampling.n {
        w.key("n").u64(n);
    }
    if let Some(logprobs) = sampling.logprobs {
        w.key("logprobs").bool(logprobs);
    }
    if !sampling.stop.is_empty() {
        w.key("stop")
            .array(|w| sampling.stop.iter().for_each(|stop| w.str(stop)));
    }
}

/// Of Anthropic's clients always the newer name (APISIX 3.18); else the one that the provider knows.
fn limit_name(setting: &Setting<'_>) -> &'static str {
    let knows_newer = matches!(
        setting.provider,
        Provider::Openai | Provider::AzureOpenai | Provider::Gemini | Provider::VertexAi
    );
    if knows_newer || setting.client == Protocol::AnthropicMessages {
        "max_completion_tokens"
    } else {
        "max_tokens"
    }
}

/// A budget as a word (APISIX 3.18's steps); the provider has no other.
fn effort_of<'r>(request: &'r Request<'_>) -> Option<JsonStr<'r>> {
    let reasoning = request.reasoning.as_ref()?;
    if reasoning.mode == Some(ReasoningMode::Disabled) {
        return None;
    }
    if let Some(effort) = &reasoning.effort {
        return Some(effort.clone());
    }
    Some(JsonStr::new(match (reasoning.mode, reasoning.budget) {
        (Some(ReasoningMode::Adaptive), _) => "medium",
        (_, Some(4096..)) => "high",
        (_, Some(2048..)) => "medium",
        (_, Some(1024..)) => "low",
        (_, Some(_)) | (Some(ReasoningMode::Enabled), None) => "minimal",
        (_, None) => return None,
    }))
}

fn write_tools(request: &Request<'_>, w: &mut Writer<'_>) {
    let own = request.tools_for(OWN);
    if own.clone().next().is_none() {
        return;
    }
    w.key("tools").array(|w| {
        for tool in own {
            let function = match tool {
                Tool::Hosted(hosted) => {
                    w.raw(&hosted.json);
                    continue;
                }
                Tool::Function(function) => function,
            };
            w.object(|w| {
                w.key("type").text("function");
                w.key("function").object(|w| {
                    w.key("name").str(&function.name);
                    if let Some(text) = &function.description {
                        w.key("description").str(text);
                    }
                    if let Some(schema) = &function.parameters {
                        w.key("parameters").raw(schema);
                    }
                    if let Some(strict) = function.strict {
                        w.key("strict").bool(strict);
                    }
                });
            });
        }
    });
    match &request.tool_choice {
        None => {}
        Some(ToolChoice::Auto) => w.key("tool_choice").text("auto"),
        Some(ToolChoice::None) => w.key("tool_choice").text("none"),
        Some(ToolChoice::Required) => w.key("tool_choice").text("required"),
        Some(ToolChoice::Tool(name)) => w.key("tool_choice").object(|w| {
            w.key("type").text("function");
            w.key("function").object(|w| w.key("name").str(name));
        }),
    }
    if let Some(parallel) = request.parallel_tool_calls {
        w.key("parallel_tool_calls").bool(parallel);
    }
}

fn write_format(format: Option<&Format<'_>>, setting: &Setting<'_>, w: &mut Writer<'_>) {
    match format {
        None => {}
        Some(Format::Text) => w
            .key("response_format")
            .object(|w| w.key("type").text("text")),
        Some(Format::JsonObject) => w
            .key("response_format")
            .object(|w| w.key("type").text("json_object")),
        Some(Format::JsonSchema(schema)) => w.key("response_format").object(|w| {
            w.key("type").text("json_schema");
            w.key("json_schema")
                .object(|w| write_schema(schema, setting, w));
        }),
    }
}

/// Anthropic's schemas are meant to be kept to, which is strict mode here (APISIX 3.18).
fn write_schema(schema: &Schema<'_>, setting: &Setting<'_>, w: &mut Writer<'_>) {
    w.key("name");
    match &schema.name {
        Some(name) => w.str(name),
        None => w.text("structured_output"),
    }
    if let Some(text) = &schema.description {
        w.key("description").str(text);
    }
    let closed = match setting.client {
        Protocol::AnthropicMessages => schema::strict(&schema.schema),
        _ => None,
    };
    let strict = schema.strict.or_else(|| closed.as_ref().map(|_| true));
    w.key("schema")
        .raw(closed.as_deref().unwrap_or(&schema.schema));
    if let Some(strict) = strict {
        w.key("strict").bool(strict);
    }
}

fn write_message(message: &Message<'_>, setting: &Setting<'_>, w: &mut Writer<'_>) {
    let knows_developer = matches!(setting.provider, Provider::Openai | Provider::AzureOpenai);
    let role = match message.role {
        Role::Developer if knows_developer => "developer",
        Role::System | Role::Developer => "system",
        Role::User => "user",
        Role::Assistant => return write_assistant(message, w),
        Role::Tool => {
            for part in &message.parts {
                if let Part::ToolResult(result) = part {
                    write_result(result, setting.provider, w);
                }
            }
            return;
        }
    };
    w.object(|w| {
        w.key("role").text(role);
        if let Some(name) = &message.name {
            w.key("name").str(name);
        }
        w.key("content");
        match (message.role, message.parts.as_slice()) {
            (_, []) => w.text(""),
            (Role::User, [Part::Text(text)]) if message.plain => w.str(&text.text),
            (Role::User, parts) => {
                w.array(|w| {
                    parts
                        .iter()
                        .for_each(|part| write_part(part, setting.provider, w))
                });
            }
            (_, parts) => w.str(&texts_of(parts, separator(setting))),
        }
    });
}

/// Between the blocks of instructions, which are one text here.
fn separator(setting: &Setting<'_>) -> &'static str {
    match setting.client {
        Protocol::AnthropicMessages => "",
        _ => "\\n\\n",
    }
}

fn texts_of<'p>(parts: &'p [Part<'_>], separator: &str) -> JsonStr<'p> {
    let texts = parts.iter().filter_map(|part| match part {
        Part::Text(text) => Some(text.text.clone()),
        _ => None,
    });
    let texts: Vec<JsonStr<'p>> = texts.collect();
    JsonStr::concat(&texts, separator)
}

fn write_assistant(message: &Message<'_>, w: &mut Writer<'_>) {
    let parts = &message.parts;
    let calls = parts.iter().filter_map(|part| match part {
        Part::ToolCall(call) => Some(call),
        _ => None,
    });
    let refusal = refusal_of(parts);
    let thoughts = || {
        parts.iter().filter_map(|part| match part {
            Part::Reasoning(reasoning) => Some(reasoning),
            _ => None,
        })
    };
    let has_calls = calls.clone().next().is_some();
    w.object(|w| {
        w.key("role").text("assistant");
        if let Some(name) = &message.name {
            w.key("name").str(name);
        }
        let text = texts_of(parts, "");
        if !text.is_empty() || !(has_calls || refusal.is_some()) {
            w.key("content").str(&text);
        }
        if let Some(refusal) = &refusal {
            w.key("refusal").str(refusal);
        }
        let is_own = |reasoning: &Reasoning<'_>| {
            reasoning
                .signature
                .as_ref()
                .is_some_and(|s| s.origin == OWN)
        };
        if thoughts().any(is_own) {
            w.key("reasoning_details")
                .array(|w| write_details(thoughts(), true, w));
        }
        if has_calls {
            w.key("tool_calls").array(|w| {
                calls.for_each(|call| {
                    let own = call.signature.as_ref().filter(|s| s.origin == OWN);
                    super::tools::write_signed_call(call, own, w);
                });
            });
        }
    });
}

fn write_result(result: &ToolResult<'_>, provider: Provider, w: &mut Writer<'_>) {
    w.object(|w| {
        w.key("role").text("tool");
        w.key("tool_call_id").str(&result.call_id);
        w.key("content");
        let has_media = result.parts.iter().any(|part| is_media(part, provider));
        if has_media {
            return w.array(|w| {
                if result.is_error {
                    write_part(&Part::text(JsonStr::new(FAILED)), provider, w);
                }
                result
                    .parts
                    .iter()
                    .for_each(|part| write_part(part, provider, w));
            });
        }
        let texts = result.parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(&text.text),
            // A text is a text, whatever it was called.
            Part::Media(Media {
                source: Source::Text(text),
                ..
            }) => Some(text),
            _ => None,
        });
        let text = JsonStr::concat(texts, "");
        if result.is_error {
            w.str(&JsonStr::concat(&[JsonStr::new(FAILED), text], ""));
        } else {
            w.str(&text);
        }
    });
}

/// Stands before what a tool that failed answered; there is no other way to say so.
const FAILED: &str = "Error: ";
