//! Writing requests.

use super::{
    OWN,
    write_parts::{is_written, write_mark, write_part},
};
use crate::{
    conversation::{
        Closed, Format, Function, Message, Part, Request, Role, Tool, ToolChoice, closed,
    },
    dialect::{
        Setting,
        claude::{Thinking, Told, asked_tokens},
    },
    json::{string::JsonStr, write::Writer},
};

/// Writes a request to Anthropic.
pub(in crate::dialect) fn write_request(
    request: &Request<'_>,
    setting: &Setting<'_>,
    w: &mut Writer<'_>,
) {
    let told = Told::of(request, setting);
    w.object(|w| {
        w.key("model").text(setting.model);
        w.key("max_tokens");
        write_max_tokens(request, &told, w);
        write_system(request, w);
        w.key("messages").array(|w| write_messages(request, w));
        if request.stream {
            w.key("stream").bool(true);
        }
        write_tools(request, &told, w);
        write_thinking(request, &told, w);
        let sampling = &request.sampling;
        for (name, number, may_be) in [
            ("temperature", &sampling.temperature, told.temperature),
            ("top_p", &sampling.top_p, told.top_p),
            ("top_k", &sampling.top_k, told.top_k),
        ] {
            if let Some(number) = number.as_ref().filter(|_| may_be) {
                w.key(name).raw(number);
            }
        }
        if !sampling.stop.is_empty() {
            w.key("stop_sequences")
                .array(|w| sampling.stop.iter().for_each(|stop| w.str(stop)));
        }
        if let Some(user) = &request.user {
            w.key("metadata").object(|w| w.key("user_id").str(user));
        }
        match &request.service_tier {
            Some(tier) if tier.is("default") => w.key("service_tier").text("standard_only"),
            Some(tier) if tier.is("auto") => w.key("service_tier").text("auto"),
            _ => {}
        }
        for extra in request.extras.iter().filter(|extra| extra.protocol == OWN) {
            if !extra.name.decode().contains('.') {
                w.key_str(&extra.name).raw(&extra.json);
            }
        }
    });
}

/// Tokens of an answer where the request does not say, and Anthropic must be told.
const MAX_TOKENS: u64 = 4_096;

/// The limit counts thoughts, too, and must be above their budget.
fn write_max_tokens(request: &Request<'_>, told: &Told<'_>, w: &mut Writer<'_>) {
    let asked = request.sampling.max_tokens.as_deref();
    match (asked, asked_tokens(request), told.thinking) {
        (Some(_), Some(asked), Thinking::Enabled(budget)) if asked <= budget => {
            w.u64(asked.saturating_add(budget));
        }
        (Some(asked), ..) => w.raw(asked),
        (None, ..) => w.u64(MAX_TOKENS.saturating_add(told.tokens())),
    }
}

fn write_system(request: &Request<'_>, w: &mut Writer<'_>) {
    let mut messages = request
        .messages
        .iter()
        .filter(|message| message.instructs());
    let texts = || {
        let messages = request
            .messages
            .iter()
            .filter(|message| message.instructs());
        let parts = messages.flat_map(|message| &message.parts);
        parts.filter(|part| matches!(part, Part::Text(text) if !text.text.is_empty()))
    };
    if texts().next().is_none() {
        return;
    }
    let only = messages.next().filter(|_| messages.next().is_none());
    if let Some(Message {
        plain: true, parts, ..
    }) = only
        && let [Part::Text(text)] = parts.as_slice()
    {
        return w.key("system").str(&text.text);
    }
    w.key("system")
        .array(|w| texts().for_each(|part| write_part(part, w)));
}

/// Results and what the user says to them are one message. One that says nothing would be refused.
fn write_messages(request: &Request<'_>, w: &mut Writer<'_>) {
    let messages = request.messages.iter().filter(|m| !m.instructs());
    let mut messages = messages.filter(|m| says_something(m)).peekable();
    while let Some(message) = messages.next() {
        let role = match message.role {
            Role::Assistant => "assistant",
            _ => "user",
        };
        let says = match message.role {
            Role::Tool => messages.next_if(|next| next.role == Role::User),
            _ => None,
        };
        w.object(|w| {
            w.key("role").text(role);
            w.key("content");
            match message.parts.as_slice() {
                [Part::Text(text)] if message.plain => w.str(&text.text),
                parts => w.array(|w| {
                    let more = says.into_iter().flat_map(|says| &says.parts);
                    parts
                        .iter()
                        .chain(more)
                        .filter(|part| may_stand(part, message.role))
                        .for_each(|part| write_part(part, w));
                }),
            }
        });
    }
}

fn says_something(message: &Message<'_>) -> bool {
    let parts = message.parts.iter();
    let mut parts = parts.filter(|part| may_stand(part, message.role));
    parts.any(is_written)
}

/// The model's own messages hold no media.
fn may_stand(part: &Part<'_>, role: Role) -> bool {
    role != Role::Assistant || !matches!(part, Part::Media(_))
}

fn write_tools(request: &Request<'_>, told: &Told<'_>, w: &mut Writer<'_>) {
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
                w.key("name").str(&function.name);
                if let Some(text) = &function.description {
                    w.key("description").str(text);
                }
                write_schema(function, w);
                write_mark(function.cache.as_ref(), w);
            });
        }
    });
    write_choice(request, told, w);
}

/// Arguments that are made to fit need a schema that an answer can be made to fit.
fn write_schema(function: &Function<'_>, w: &mut Writer<'_>) {
    let schema = function.schema();
    let closed = match function.strict {
        Some(true) => closed(schema),
        _ => Closed::default(),
    };
    let json = closed.json.filter(|_| !closed.loses);
    w.key("input_schema").raw(json.as_deref().unwrap_or(schema));
    if let Some(strict) = function.strict {
        w.key("strict").bool(strict && !closed.loses);
    }
}

fn write_choice(request: &Request<'_>, told: &Told<'_>, w: &mut Writer<'_>) {
    let alone = request.parallel_tool_calls == Some(false);
    let (kind, name): (&str, Option<&JsonStr<'_>>) = match &request.tool_choice {
        None if !alone => return,
        None | Some(ToolChoice::Auto) => ("auto", None),
        Some(ToolChoice::Required | ToolChoice::Tool(_)) if !told.obeys => ("auto", None),
        Some(ToolChoice::None) => ("none", None),
        Some(ToolChoice::Required) => ("any", None),
        Some(ToolChoice::Tool(name)) => ("tool", Some(name)),
    };
    w.key("tool_choice").object(|w| {
        w.key("type").text(kind);
        if let Some(name) = name {
            w.key("name").str(name);
        }
        if alone && kind != "none" {
            w.key("disable_parallel_tool_use").bool(true);
        }
    });
}

fn write_thinking(request: &Request<'_>, told: &Told<'_>, w: &mut Writer<'_>) {
    told.write_thinking(w);
    let effort = told.effort();
    let schema = match &request.format {
        Some(Format::JsonSchema(schema)) => Some(schema),
        _ => None,
    };
    if effort.is_none() && schema.is_none() {
        return;
    }
    w.key("output_config").object(|w| {
        if let Some(effort) = effort {
            w.key("effort").str(&JsonStr::spelt(effort));
        }
        if let Some(schema) = schema {
            w.key("format").object(|w| {
                w.key("type").text("json_schema");
                let closed = closed(&schema.schema).json;
                w.key("schema")
                    .raw(closed.as_deref().unwrap_or(&schema.schema));
            });
        }
    });
}
