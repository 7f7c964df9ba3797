//! Writing requests and answers.

use super::{stop_word, write_citation, write_usage};
use crate::{
    Protocol,
    conversation::{
        Format, Media, MediaKind, Message, Part, Reasoning, ReasoningMode, Request, Response, Role,
        Source, Stop, Tool, ToolCall, ToolChoice,
    },
    dialect::Setting,
    json::{string::JsonStr, write::Writer},
};

const OWN: Protocol = Protocol::CohereChat;

/// Writes a request to Cohere.
pub(in crate::dialect) fn write_request(
    request: &Request<'_>,
    setting: &Setting<'_>,
    w: &mut Writer<'_>,
) {
    w.object(|w| {
        w.key("model").text(setting.model);
        w.key("messages").array(|w| {
            request
                .messages
                .iter()
                .for_each(|message| write_message(message, w));
        });
        if request.stream {
            w.key("stream").bool(true);
        }
        write_tools(request, w);
        match &request.format {
            None | Some(Format::Text) => {}
            Some(Format::JsonObject) => w
                .key("response_format")
                .object(|w| w.key("type").text("json_object")),
            Some(Format::JsonSchema(schema)) => w.key("response_format").object(|w| {
                w.key("type").text("json_object");
                w.key("json_schema").raw(&schema.schema);
            }),
        }
        write_thinking(request, w);
        let sampling = &request.sampling;
        for (name, number) in [
            ("max_tokens", &sampling.max_tokens),
            ("temperature", &sampling.temperature),
            ("p", &sampling.top_p),
            ("k", &sampling.top_k),
            ("seed", &sampling.seed),
            ("frequency_penalty", &sampling.frequency_penalty),
            ("presence_penalty", &sampling.presence_penalty),
        ] {
            if let Some(number) = number {
                w.key(name).raw(number);
            }
        }
        if !sampling.stop.is_empty() {
            w.key("stop_sequences")
                .array(|w| sampling.stop.iter().for_each(|stop| w.str(stop)));
        }
        for extra in request.extras.iter().filter(|extra| extra.protocol == OWN) {
            w.key_str(&extra.name).raw(&extra.json);
        }
    });
}

fn write_tools(request: &Request<'_>, w: &mut Writer<'_>) {
    let mut strict = false;
    let own = request.tools_for(OWN);
    if own.clone().next().is_none() {
        return;
    }
    w.key("tools").array(|w| {
        for tool in own {
            match tool {
                Tool::Hosted(hosted) => w.raw(&hosted.json),
                Tool::Function(function) => {
                    strict |= function.strict == Some(true);
                    w.object(|w| {
                        w.key("type").text("function");
                        w.key("function").object(|w| {
                            w.key("name").str(&function.name);
                            if let Some(text) = &function.description {
                                w.key("description").str(text);
                            }
                            w.key("parameters").raw(function.schema());
                        });
                    });
                }
            }
        }
    });
    if strict {
        w.key("strict_tools").bool(true);
    }
    match &request.tool_choice {
        Some(ToolChoice::Required) => w.key("tool_choice").text("REQUIRED"),
        Some(ToolChoice::None) => w.key("tool_choice").text("NONE"),
        None | Some(ToolChoice::Auto | ToolChoice::Tool(_)) => {}
    }
}

fn write_thinking(request: &Request<'_>, w: &mut Writer<'_>) {
    let Some(reasoning) = &request.reasoning else {
        return;
    };
    let disabled = reasoning.mode == Some(ReasoningMode::Disabled);
    let enabled = reasoning.mode == Some(ReasoningMode::Enabled);
    if !disabled && !enabled && reasoning.budget.is_none() {
        return;
    }
    w.key("thinking").object(|w| {
        w.key("type")
            .text(if disabled { "disabled" } else { "enabled" });
        if let Some(budget) = reasoning.budget.filter(|_| !disabled) {
            w.key("token_budget").u64(budget);
        }
    });
}

/// A message that says nothing would be refused, and only the user's hold pictures.
fn write_message(message: &Message<'_>, w: &mut Writer<'_>) {
    if !message
        .parts
        .iter()
        .any(|part| is_written(part, message.role))
    {
        return;
    }
    let role = match message.role {
        Role::System | Role::Developer => "system",
        Role::User => "user",
        Role::Assistant => return w.object(|w| write_answer(&message.parts, w)),
        Role::Tool => return write_results(&message.parts, w),
    };
    w.object(|w| {
        w.key("role").text(role);
        w.key("content");
        let parts = message.parts.iter();
        let parts = parts.filter(|part| is_written(part, message.role));
        write_content(&parts.collect::<Vec<_>>(), message.plain, w);
    });
}

/// Whether anything is written for `part` in a message of `role`.
fn is_written(part: &Part<'_>, role: Role) -> bool {
    match part {
        Part::Text(text) => !text.text.is_empty(),
        Part::Refusal(text) => !text.is_empty(),
        Part::Media(media) => match &media.source {
            Source::Text(_) => role == Role::User,
            Source::File(_) => false,
            Source::Base64(_) | Source::Url(_) => {
                role == Role::User && media.kind == MediaKind::Image
            }
        },
        Part::Opaque(opaque) => opaque.protocol == OWN,
        Part::Reasoning(reasoning) => !reasoning.is_hidden,
        Part::ToolCall(_) | Part::ToolResult(_) => true,
    }
}

/// A string where it was one, else a list.
fn write_content(parts: &[&Part<'_>], plain: bool, w: &mut Writer<'_>) {
    if plain && let [Part::Text(text)] = parts {
        return w.str(&text.text);
    }
    w.array(|w| parts.iter().for_each(|part| write_part(part, w)));
}

fn write_part(part: &Part<'_>, w: &mut Writer<'_>) {
    match part {
        Part::Text(text) => write_text(&text.text, w),
        Part::Refusal(text) => write_text(text, w),
        Part::Media(media) => write_media(media, w),
        Part::Opaque(opaque) if opaque.protocol == OWN => w.raw(&opaque.json),
        Part::Opaque(_) | Part::ToolCall(_) | Part::ToolResult(_) | Part::Reasoning(_) => {}
    }
}

fn write_text(text: &JsonStr<'_>, w: &mut Writer<'_>) {
    w.object(|w| {
        w.key("type").text("text");
        w.key("text").str(text);
    });
}

fn write_media(media: &Media<'_>, w: &mut Writer<'_>) {
    // A text is a text, whatever it was called.
    if let Source::Text(text) = &media.source {
        return write_text(text, w);
    }
    if media.kind != MediaKind::Image || matches!(media.source, Source::File(_)) {
        return;
    }
    w.object(|w| {
        w.key("type").text("image_url");
        w.key("image_url").object(|w| {
            w.key("url").str(&media.as_url("image/png"));
            if let Some(detail) = &media.detail {
                w.key("detail").str(detail);
            }
        });
    });
}

fn write_results(parts: &[Part<'_>], w: &mut Writer<'_>) {
    for part in parts {
        let Part::ToolResult(result) = part else {
            continue;
        };
        w.object(|w| {
            w.key("role").text("tool");
            w.key("tool_call_id").str(&result.call_id);
            w.key("content");
            let is_text = |part: &&Part<'_>| match part {
                Part::Text(_) => true,
                Part::Media(media) => matches!(media.source, Source::Text(_)),
                _ => false,
            };
            let texts: Vec<&Part<'_>> = result.parts.iter().filter(is_text).collect();
            match texts.as_slice() {
                [] => w.text(""),
                texts => write_content(texts, result.plain || texts.len() == 1, w),
            }
        });
    }
}

/// The members of a message of the model's. Before calls, thoughts are the plan.
fn write_answer(parts: &[Part<'_>], w: &mut Writer<'_>) {
    w.key("role").text("assistant");
    let calls = parts.iter().filter_map(|part| match part {
        Part::ToolCall(call) => Some(call),
        _ => None,
    });
    let calls: Vec<&ToolCall<'_>> = calls.collect();
    let thoughts = parts.iter().filter_map(|part| match part {
        Part::Reasoning(Reasoning {
            text,
            is_hidden: false,
            ..
        }) => Some(text),
        _ => None,
    });
    let thoughts: Vec<&JsonStr<'_>> = thoughts.collect();
    let is_said = |part: &&Part<'_>| match part {
        Part::ToolCall(_) | Part::Reasoning(_) | Part::ToolResult(_) => false,
        part => is_written(part, Role::Assistant),
    };
    let said: Vec<&Part<'_>> = parts.iter().filter(is_said).collect();
    let thinks = calls.is_empty() && !thoughts.is_empty();
    if !said.is_empty() || thinks {
        w.key("content").array(|w| {
            if thinks {
                for text in &thoughts {
                    w.object(|w| {
                        w.key("type").text("thinking");
                        w.key("thinking").str(text);
                    });
                }
            }
            said.iter().for_each(|part| write_part(part, w));
        });
    }
    if calls.is_empty() {
        return;
    }
    if !thoughts.is_empty() {
        let plan = JsonStr::concat(thoughts, "\\n\\n");
        w.key("tool_plan").str(&plan);
    }
    w.key("tool_calls").array(|w| {
        for call in calls {
            w.object(|w| {
                w.key("id").str(&call.id);
                w.key("type").text("function");
                w.key("function").object(|w| {
                    w.key("name").str(&call.name);
                    w.key("arguments").str(&call.arguments.as_text());
                });
            });
        }
    });
}

/// Writes an answer to a client.
pub(in crate::dialect) fn write_response(
    response: &Response<'_>,
    setting: &Setting<'_>,
    w: &mut Writer<'_>,
) {
    let choice = response.choices.first();
    w.object(|w| {
        w.key("id");
        match &response.id {
            Some(id) => w.str(id),
            None => w.text(setting.seed),
        }
        let stop = choice.map(|choice| &choice.stop);
        w.key("finish_reason")
            .text(stop_word(stop.unwrap_or(&Stop::End)));
        w.key("message").object(|w| {
            let parts = choice
                .map(|choice| choice.parts.as_slice())
                .unwrap_or_default();
            write_answer(parts, w);
            let citations = parts.iter().flat_map(|part| match part {
                Part::Text(text) => text.citations.as_slice(),
                _ => &[],
            });
            if citations.clone().next().is_some() {
                w.key("citations")
                    .array(|w| citations.for_each(|citation| write_citation(citation, w)));
            }
        });
        w.key("usage");
        write_usage(response.usage.unwrap_or_default(), w);
    });
}
