//! Writing requests.

use super::{
    OWN,
    items::{plain_text, write_string},
    read_request::{ENCRYPTED_REASONING, LOGPROBS},
    write_input::write_input,
};
use crate::{
    Provider,
    conversation::{
        Extra, Format, Function, Json, Message, ReasoningMode, ReasoningSettings, Request, Role,
        ShowThoughts, Tool, ToolChoice,
    },
    dialect::Setting,
    json::{self, string::JsonStr, write::Writer},
};

pub(in crate::dialect) fn write_request(
    request: &Request<'_>,
    setting: &Setting<'_>,
    w: &mut Writer<'_>,
) {
    w.object(|w| {
        match &request.model {
            Some(model) => w.key("model").str(model),
            None if !setting.model.is_empty() => w.key("model").text(setting.model),
            None => {}
        }
        write_messages(&request.messages, setting, w);
        write_tools(request, setting, w);
        write_text(request, w);
        write_reasoning(request, w);
        write_sampling(request, setting, w);
        write_include(request, w);
        write_who(request, setting, w);
        write_extras(request, w);
        if request.stream {
            w.key("stream").bool(true);
        }
    });
}

/// Writes `instructions`, which takes one text, and `input`.
fn write_messages(messages: &[Message<'_>], setting: &Setting<'_>, w: &mut Writer<'_>) {
    let mut input = messages;
    if let [first, rest @ ..] = messages
        && let Some(text) = plain_text(first)
        && first.role == Role::System
        && !rest.is_empty()
    {
        w.key("instructions").str(text);
        input = rest;
    }
    match input {
        // What came before is with the provider.
        [] => {}
        [only] if only.role == Role::User && plain_text(only).is_some() => {
            w.key("input")
                .str(&plain_text(only).cloned().unwrap_or_default());
        }
        input => write_input(input, setting, w.key("input")),
    }
}

fn own_extras<'r, 'a>(request: &'r Request<'a>) -> impl Iterator<Item = &'r Extra<'a>> {
    request.extras.iter().filter(|extra| extra.protocol == OWN)
}

fn has_extra(request: &Request<'_>, names: &[&str]) -> bool {
    own_extras(request).any(|extra| names.iter().any(|name| extra.name.is(name)))
}

/// Writes the members that were `outer.name`.
fn write_nested_extras(request: &Request<'_>, outer: &str, w: &mut Writer<'_>) {
    for extra in own_extras(request) {
        if let Some(name) = nested_name(extra, outer) {
            w.key_str(&name).raw(&extra.json);
        }
    }
}

fn nested_name<'a>(extra: &Extra<'a>, outer: &str) -> Option<JsonStr<'a>> {
    let spelt = extra.name.as_spelt();
    let start = outer.len() + 1;
    let is_nested = spelt.starts_with(outer) && spelt.as_bytes().get(outer.len()) == Some(&b'.');
    is_nested.then(|| extra.name.slice(start..spelt.len()))
}

fn has_nested_extras(request: &Request<'_>, outer: &str) -> bool {
    own_extras(request).any(|extra| nested_name(extra, outer).is_some())
}

fn write_tools(request: &Request<'_>, setting: &Setting<'_>, w: &mut Writer<'_>) {
    let tools = request.tools_for(OWN);
    if tools.clone().next().is_some() {
        w.key("tools").array(|w| {
            for tool in tools {
                match tool {
                    Tool::Function(function) => write_function(function, setting, w),
                    Tool::Hosted(hosted) => w.raw(&hosted.json),
                }
            }
        });
    }
    match &request.tool_choice {
        None => {}
        Some(ToolChoice::Auto) => w.key("tool_choice").text("auto"),
        Some(ToolChoice::None) => w.key("tool_choice").text("none"),
        Some(ToolChoice::Required) => w.key("tool_choice").text("required"),
        Some(ToolChoice::Tool(name)) => w.key("tool_choice").object(|w| {
            w.key("type").text("function");
            w.key("name").str(name);
        }),
    }
    if let Some(parallel) = request.parallel_tool_calls {
        w.key("parallel_tool_calls").bool(parallel);
    }
}

/// A function. Here it is strict unless it says otherwise, in all other protocols the reverse.
fn write_function(function: &Function<'_>, setting: &Setting<'_>, w: &mut Writer<'_>) {
    w.object(|w| {
        w.key("type").text("function");
        w.key("name").str(&function.name);
        write_string(w, "description", function.description.as_ref());
        match &function.parameters {
            Some(parameters) => w.key("parameters").raw(parameters),
            None => w.key("parameters").null(),
        }
        match function.strict {
            Some(strict) => w.key("strict").bool(strict),
            None if setting.client == OWN => w.key("strict").null(),
            None => w.key("strict").bool(false),
        }
    });
}

fn write_text(request: &Request<'_>, w: &mut Writer<'_>) {
    if request.format.is_none() && !has_nested_extras(request, "text") {
        return;
    }
    w.key("text").object(|w| {
        if let Some(format) = &request.format {
            w.key("format").object(|w| write_format(format, w));
        }
        write_nested_extras(request, "text", w);
    });
}

fn write_format(format: &Format<'_>, w: &mut Writer<'_>) {
    let schema = match format {
        Format::Text => return w.key("type").text("text"),
        Format::JsonObject => return w.key("type").text("json_object"),
        Format::JsonSchema(schema) => schema,
    };
    w.key("type").text("json_schema");
    match &schema.name {
        Some(name) => w.key("name").str(name),
        None => w.key("name").text("structured_output"),
    }
    write_string(w, "description", schema.description.as_ref());
    if let Some(strict) = schema.strict {
        w.key("strict").bool(strict);
    }
    w.key("schema").raw(&schema.schema);
}

fn write_reasoning(request: &Request<'_>, w: &mut Writer<'_>) {
    let settings = request.reasoning.clone().unwrap_or_default();
    let effort = effort(&settings);
    let summary = match &settings.show {
        None | Some(ShowThoughts::No) => None,
        Some(ShowThoughts::Yes) => Some(JsonStr::new("auto")),
        Some(ShowThoughts::Summary(kind)) => Some(kind.clone()),
    };
    let has_extras = has_nested_extras(request, "reasoning");
    if effort.is_none() && summary.is_none() && !has_extras {
        return;
    }
    w.key("reasoning").object(|w| {
        write_string(w, "effort", effort.as_ref());
        write_string(w, "summary", summary.as_ref());
        write_nested_extras(request, "reasoning", w);
    });
}

/// The word for how much to think. For a budget it is the one of APISIX 3.18.
fn effort<'a>(settings: &ReasoningSettings<'a>) -> Option<JsonStr<'a>> {
    if settings.mode == Some(ReasoningMode::Disabled) {
        return Some(JsonStr::new("none"));
    }
    let by_budget = settings.budget.map(|budget| match budget {
        4096.. => "high",
        2048.. => "medium",
        1024.. => "low",
        _ => "minimal",
    });
    let usual = settings.mode.map(|_| "medium");
    let word = by_budget.or(usual).map(JsonStr::new);
    settings.effort.clone().or(word)
}

fn write_sampling(request: &Request<'_>, setting: &Setting<'_>, w: &mut Writer<'_>) {
    let sampling = &request.sampling;
    let mut number = |name, number: &Option<Json<'_>>| {
        if let Some(number) = number {
            w.key(name).raw(number);
        }
    };
    number(
        "max_output_tokens",
        &at_least(&sampling.max_tokens, setting),
    );
    number("temperature", &sampling.temperature);
    number("top_p", &sampling.top_p);
    number("top_logprobs", &sampling.top_logprobs);
}

/// OpenAI refuses limits below 16, which clients of other protocols set to probe a model.
fn at_least<'a>(limit: &Option<Json<'a>>, setting: &Setting<'_>) -> Option<Json<'a>> {
    let limit = limit.clone()?;
    let is_openai = matches!(setting.provider, Provider::Openai | Provider::AzureOpenai);
    let is_small = limit
        .parse::<u64>()
        .is_ok_and(|tokens| tokens < OPENAI_TOKENS_MIN);
    let is_raised = is_openai && is_small && setting.client != OWN;
    Some(if is_raised {
        Json::Owned(OPENAI_TOKENS_MIN.to_string())
    } else {
        limit
    })
}

const OPENAI_TOKENS_MIN: u64 = 16;

/// Signatures of thoughts come only if they are asked for, and models that do not think refuse
/// that.
fn write_include(request: &Request<'_>, w: &mut Writer<'_>) {
    let stated = own_extras(request).find(|extra| extra.name.is("include"));
    let has_logprobs = request.sampling.logprobs == Some(true);
    let mode = request.reasoning.as_ref().map(|reasoning| reasoning.mode);
    let thinks = mode.is_some_and(|mode| mode != Some(ReasoningMode::Disabled));
    if stated.is_none() && !has_logprobs && !thinks {
        return;
    }
    w.key("include").array(|w| {
        if let Some(stated) = stated {
            json::items(stated.json.as_bytes(), |item| {
                w.raw(&String::from_utf8_lossy(item));
            });
        }
        if has_logprobs {
            w.text(LOGPROBS);
        }
        if thinks {
            w.text(ENCRYPTED_REASONING);
        }
    });
}

fn write_who(request: &Request<'_>, setting: &Setting<'_>, w: &mut Writer<'_>) {
    if let Some(user) = &request.user {
        // Compatible servers know the older name.
        let is_new = setting.provider == Provider::Openai || has_extra(request, &["user"]);
        let name = if is_new { "safety_identifier" } else { "user" };
        w.key(name).str(user);
    }
    if !request.metadata.is_empty() {
        w.key("metadata").object(|w| {
            for (name, value) in &request.metadata {
                w.key_str(name).str(value);
            }
        });
    }
    write_string(w, "service_tier", request.service_tier.as_ref());
    // Nobody asks for this answer by its id later, unless the client said so.
    if !has_extra(request, STORING) {
        w.key("store").bool(false);
    }
}

/// With these the provider has to keep the answer, or the client has decided.
const STORING: &[&str] = &[
    "store",
    "background",
    "conversation",
    "previous_response_id",
];

fn write_extras(request: &Request<'_>, w: &mut Writer<'_>) {
    for extra in own_extras(request) {
        let is_nested = ["text", "reasoning"]
            .iter()
            .any(|outer| nested_name(extra, outer).is_some());
        if !is_nested && !extra.name.is("include") {
            w.key_str(&extra.name).raw(&extra.json);
        }
    }
}
