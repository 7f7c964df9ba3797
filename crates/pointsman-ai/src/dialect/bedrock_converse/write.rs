//! Writing requests and answers.

use super::{Setting, format_of, is_anthropic};
use crate::dialect::claude::Told;
use crate::{
    Protocol, Usage,
    conversation::{
        CacheMark, Json, Media, MediaKind, Message, Part, Reasoning, Request, Response, Role,
        Source, Stop, Tool, ToolChoice, ToolResult,
    },
    json::{string::JsonStr, write::Writer},
};

const OWN: Protocol = Protocol::BedrockConverse;

/// Writes a request to Bedrock.
pub(in crate::dialect) fn write_request(
    request: &Request<'_>,
    setting: &Setting<'_>,
    w: &mut Writer<'_>,
) {
    let told = is_anthropic(setting.model).then(|| Told::of(request, setting));
    w.object(|w| {
        w.key("messages").array(|w| write_messages(request, w));
        write_system(request, w);
        write_inference(request, told.as_ref(), w);
        write_tools(request, told.as_ref(), w);
        if let Some(told) = &told {
            write_additional(request, told, w);
        }
        if !request.metadata.is_empty() {
            w.key("requestMetadata").object(|w| {
                for (name, value) in &request.metadata {
                    w.key_str(name).str(value);
                }
            });
        }
        if let Some(tier) = &request.service_tier
            && !tier.is("auto")
        {
            w.key("serviceTier").object(|w| w.key("type").str(tier));
        }
        for extra in request.extras.iter().filter(|extra| extra.protocol == OWN) {
            if !extra.name.decode().contains('.') {
                w.key_str(&extra.name).raw(&extra.json);
            }
        }
    });
}

fn write_system(request: &Request<'_>, w: &mut Writer<'_>) {
    let mut parts = (request.messages.iter().filter(|m| m.instructs()))
        .flat_map(|message| &message.parts)
        .filter(|part| matches!(part, Part::Text(text) if !text.text.is_empty()))
        .peekable();
    if parts.peek().is_some() {
        w.key("system")
            .array(|w| parts.for_each(|part| write_part(part, w)));
    }
}

/// Roles take turns here: what follows each other from one side is one message. One that says
/// nothing would be refused.
fn write_messages(request: &Request<'_>, w: &mut Writer<'_>) {
    let messages = request.messages.iter().filter(|m| !m.instructs());
    let mut messages = messages.filter(|m| says_something(m)).peekable();
    while let Some(message) = messages.next() {
        let is_model = message.role == Role::Assistant;
        w.object(|w| {
            w.key("role")
                .text(if is_model { "assistant" } else { "user" });
            w.key("content").array(|w| {
                write_said(message, w);
                while let Some(more) =
                    messages.next_if(|next| (next.role == Role::Assistant) == is_model)
                {
                    write_said(more, w);
                }
            });
        });
    }
}

fn says_something(message: &Message<'_>) -> bool {
    let mut nothing = Vec::new();
    let mut w = Writer::new(&mut nothing);
    write_said(message, &mut w);
    w.mark() > 0
}

/// The model's own messages hold no media.
fn write_said(message: &Message<'_>, w: &mut Writer<'_>) {
    let is_models = message.role == Role::Assistant;
    for part in &message.parts {
        if !(is_models && matches!(part, Part::Media(_))) {
            write_part(part, w);
        }
    }
}

fn write_part(part: &Part<'_>, w: &mut Writer<'_>) {
    let before = w.mark();
    let cache = match part {
        Part::Text(text) => {
            // Blank texts are refused.
            if !text.text.is_blank() {
                w.object(|w| w.key("text").str(&text.text));
            }
            &text.cache
        }
        Part::Media(media) => {
            write_media(media, w);
            &media.cache
        }
        Part::ToolCall(call) => {
            w.object(|w| {
                w.key("toolUse").object(|w| {
                    w.key("toolUseId").str(&call.id);
                    w.key("name").str(&call.name);
                    let input = call.arguments.as_object();
                    w.key("input").raw(input.as_deref().unwrap_or("{}"));
                });
            });
            &call.cache
        }
        Part::ToolResult(result) => {
            write_result(result, w);
            let inside = result.parts.iter().rev().find_map(|part| match part {
                Part::Text(text) => text.cache.as_ref(),
                Part::Media(media) => media.cache.as_ref(),
                _ => None,
            });
            // There are no marks within results: the one behind is the next that there is.
            return write_mark(result.cache.as_ref().or(inside), w);
        }
        Part::Reasoning(reasoning) => {
            write_reasoning(reasoning, w);
            &None
        }
        Part::Refusal(text) => {
            w.object(|w| w.key("text").str(text));
            &None
        }
        Part::Opaque(opaque) => {
            if opaque.protocol == OWN {
                w.raw(&opaque.json);
            }
            &None
        }
    };
    // A mark needs something in front of it.
    if w.mark() > before {
        write_mark(cache.as_ref(), w);
    }
}

fn write_mark(mark: Option<&CacheMark<'_>>, w: &mut Writer<'_>) {
    let Some(mark) = mark else {
        return;
    };
    w.object(|w| {
        w.key("cachePoint").object(|w| {
            w.key("type").text("default");
            if let Some(ttl) = &mark.ttl {
                w.key("ttl").str(ttl);
            }
        });
    });
}

/// Bedrock checks signatures, so thoughts without one of its own stay away.
fn write_reasoning(reasoning: &Reasoning<'_>, w: &mut Writer<'_>) {
    let Some(signature) = reasoning.signature.as_ref().filter(|s| s.origin == OWN) else {
        return;
    };
    w.object(|w| {
        w.key("reasoningContent").object(|w| {
            if reasoning.is_hidden {
                w.key("redactedContent").str(&signature.data);
                return;
            }
            w.key("reasoningText").object(|w| {
                w.key("text").str(&reasoning.text);
                w.key("signature").str(&signature.data);
            });
        });
    });
}

fn write_result(result: &ToolResult<'_>, w: &mut Writer<'_>) {
    w.object(|w| {
        w.key("toolResult").object(|w| {
            w.key("toolUseId").str(&result.call_id);
            w.key("content").array(|w| {
                for part in &result.parts {
                    match part {
                        Part::Text(text) => w.object(|w| w.key("text").str(&text.text)),
                        Part::Media(media) => write_media(media, w),
                        _ => {}
                    }
                }
            });
            if result.is_error {
                w.key("status").text("error");
            }
        });
    });
}

fn write_media(media: &Media<'_>, w: &mut Writer<'_>) {
    let (name, usual) = match media.kind {
        MediaKind::Image => ("image", "png"),
        MediaKind::Document => ("document", "pdf"),
        MediaKind::Video => ("video", "mp4"),
        MediaKind::Audio => return,
    };
    let usual = match media.source {
        Source::Text(_) => "txt",
        Source::Base64(_) => usual,
        Source::Url(_) | Source::File(_) => return,
    };
    let format = media.media_type.as_ref().and_then(format_of);
    w.object(|w| {
        w.key(name).object(|w| {
            w.key("format").text(format.unwrap_or(usual));
            if media.kind == MediaKind::Document {
                w.key("name").text(&document_name(media.name.as_ref()));
            }
            w.key("source").object(|w| match &media.source {
                Source::Text(text) => w.key("text").str(text),
                Source::Base64(data) | Source::Url(data) | Source::File(data) => {
                    w.key("bytes").str(data);
                }
            });
            if let Some(context) = &media.context {
                w.key("context").str(context);
            }
            if media.citations {
                w.key("citations").object(|w| w.key("enabled").bool(true));
            }
        });
    });
}

/// Names take letters, digits, blanks, hyphens, parentheses and brackets, and no two blanks in a row.
fn document_name(name: Option<&JsonStr<'_>>) -> String {
    let name = name
        .map(|name| name.decode().into_owned())
        .unwrap_or_default();
    let mut fitting = String::with_capacity(name.len());
    for character in name.chars() {
        let kept = character.is_ascii_alphanumeric() || "-()[]".contains(character);
        if kept {
            fitting.push(character);
        } else if !fitting.ends_with([' ', '-']) {
            fitting.push(if character == ' ' { ' ' } else { '-' });
        }
    }
    let fitting = fitting.trim_matches([' ', '-']);
    if fitting.is_empty() {
        return "document".to_owned();
    }
    fitting.chars().take(200).collect()
}

fn write_inference(request: &Request<'_>, told: Option<&Told<'_>>, w: &mut Writer<'_>) {
    let sampling = &request.sampling;
    let temperature = told.is_none_or(|told| told.temperature);
    let top_p = told.is_none_or(|told| told.top_p);
    let numbers = [
        ("maxTokens", sampling.max_tokens.as_ref()),
        (
            "temperature",
            sampling.temperature.as_ref().filter(|_| temperature),
        ),
        ("topP", sampling.top_p.as_ref().filter(|_| top_p)),
    ];
    if sampling.stop.is_empty() && numbers.iter().all(|(_, number)| number.is_none()) {
        return;
    }
    w.key("inferenceConfig").object(|w| {
        for (name, number) in numbers {
            if let Some(number) = number {
                w.key(name).raw(number);
            }
        }
        if !sampling.stop.is_empty() {
            w.key("stopSequences")
                .array(|w| sampling.stop.iter().for_each(|stop| w.str(stop)));
        }
    });
}

fn write_tools(request: &Request<'_>, told: Option<&Told<'_>>, w: &mut Writer<'_>) {
    let functions = request.tools.iter().filter_map(|tool| match tool {
        Tool::Function(function) => Some(function),
        Tool::Hosted(_) => None,
    });
    let hosted = request.tools.iter().filter_map(|tool| match tool {
        Tool::Hosted(hosted) if hosted.protocol == OWN => Some(&hosted.json),
        _ => None,
    });
    let hosted: Vec<&Json<'_>> = hosted.collect();
    if functions.clone().next().is_none() && hosted.is_empty() {
        return;
    }
    w.key("toolConfig").object(|w| {
        w.key("tools").array(|w| {
            for function in functions {
                w.object(|w| {
                    w.key("toolSpec").object(|w| {
                        w.key("name").str(&function.name);
                        if let Some(text) = function.description.as_ref().filter(|t| !t.is_empty())
                        {
                            w.key("description").str(text);
                        }
                        w.key("inputSchema")
                            .object(|w| w.key("json").raw(function.schema()));
                    });
                });
                write_mark(function.cache.as_ref(), w);
            }
            hosted.iter().for_each(|json| w.raw(json));
        });
        let obeys = told.is_none_or(|told| told.obeys);
        match &request.tool_choice {
            // There is no way to forbid them, or to make some models call them; that is a loss, and told.
            None | Some(ToolChoice::None) => {}
            Some(ToolChoice::Required | ToolChoice::Tool(_)) if !obeys => {}
            Some(ToolChoice::Auto) => w.key("toolChoice").object(|w| w.key("auto").object(|_| {})),
            Some(ToolChoice::Required) => {
                w.key("toolChoice").object(|w| w.key("any").object(|_| {}))
            }
            Some(ToolChoice::Tool(name)) => w
                .key("toolChoice")
                .object(|w| w.key("tool").object(|w| w.key("name").str(name))),
        }
    });
}

/// What only models of Anthropic's know.
fn write_additional(request: &Request<'_>, told: &Told<'_>, w: &mut Writer<'_>) {
    let top_k = request.sampling.top_k.as_ref().filter(|_| told.top_k);
    let effort = told.effort();
    if top_k.is_none() && effort.is_none() && !told.says_thinking() {
        return;
    }
    w.key("additionalModelRequestFields").object(|w| {
        if let Some(top_k) = top_k {
            w.key("top_k").raw(top_k);
        }
        told.write_thinking(w);
        if let Some(effort) = effort {
            w.key("output_config")
                .object(|w| w.key("effort").str(&JsonStr::spelt(effort)));
        }
    });
}

/// Writes an answer to a client.
pub(in crate::dialect) fn write_response(
    response: &Response<'_>,
    _setting: &Setting<'_>,
    w: &mut Writer<'_>,
) {
    let choice = response.choices.first();
    w.object(|w| {
        w.key("output").object(|w| {
            w.key("message").object(|w| {
                w.key("role").text("assistant");
                w.key("content").array(|w| {
                    let parts = choice.into_iter().flat_map(|choice| &choice.parts);
                    parts.for_each(|part| write_answer(part, w));
                });
            });
        });
        let stop = choice.map(|choice| &choice.stop);
        w.key("stopReason")
            .text(stop_word(stop.unwrap_or(&Stop::End)));
        w.key("usage");
        write_usage(response.usage.unwrap_or_default(), w);
        w.key("metrics").object(|w| w.key("latencyMs").u64(0));
        write_tier(response.service_tier.as_ref(), w);
    });
}

fn write_answer(part: &Part<'_>, w: &mut Writer<'_>) {
    let reasoning = match part {
        Part::Reasoning(reasoning) => reasoning,
        // Clients of most models know none.
        Part::Media(_) => return,
        part => return write_part(part, w),
    };
    w.object(|w| {
        w.key("reasoningContent").object(|w| {
            let signature = reasoning.signature.as_ref();
            if reasoning.is_hidden {
                let bytes = signature.map(|s| s.spelt_bytes(OWN));
                w.key("redactedContent").str(&bytes.unwrap_or_default());
                return;
            }
            w.key("reasoningText").object(|w| {
                w.key("text").str(&reasoning.text);
                if let Some(signature) = signature {
                    w.key("signature").str(&signature.spelt(OWN));
                }
            });
        });
    });
}

pub(super) fn stop_word(stop: &Stop<'_>) -> &'static str {
    match stop {
        Stop::End | Stop::Pause | Stop::Other(_) => "end_turn",
        Stop::Sequence(_) => "stop_sequence",
        Stop::Length => "max_tokens",
        Stop::ToolCalls => "tool_use",
        Stop::ContentFilter | Stop::Refusal => "content_filtered",
    }
}

/// `serviceTier`, if it is known.
pub(super) fn write_tier(tier: Option<&JsonStr<'_>>, w: &mut Writer<'_>) {
    if let Some(tier) = tier {
        w.key("serviceTier").object(|w| w.key("type").str(tier));
    }
}

pub(super) fn write_usage(usage: Usage, w: &mut Writer<'_>) {
    w.object(|w| {
        w.key("inputTokens")
            .u64(usage.prompt.saturating_sub(usage.cache_read));
        w.key("outputTokens").u64(usage.completion);
        w.key("totalTokens").u64(usage.total);
        if usage.cache_read > 0 {
            w.key("cacheReadInputTokens").u64(usage.cache_read);
        }
        if usage.cache_creation > 0 {
            w.key("cacheWriteInputTokens").u64(usage.cache_creation);
        }
    });
}
