//! Tools and settings of a request to a provider.

use super::{OWN, is_before_3, read_settings::CALLING, write_request::own_extras};
use crate::{
    Protocol,
    conversation::{
        Extra, Format, Function, ReasoningMode, ReasoningSettings, Request, ShowThoughts, Tool,
        ToolChoice,
    },
    dialect::Setting,
    json::{string::JsonStr, write::Writer},
};

/// `tools`: all functions in one of them, behind it what Google runs itself.
pub(super) fn write_tools(request: &Request<'_>, w: &mut Writer<'_>) {
    let functions = || {
        request.tools.iter().filter_map(|tool| match tool {
            Tool::Function(function) => Some(function),
            Tool::Hosted(_) => None,
        })
    };
    let hosted = request.tools.iter().filter_map(|tool| match tool {
        Tool::Hosted(hosted) if hosted.protocol == OWN => Some(hosted),
        _ => None,
    });
    let mut hosted = hosted.peekable();
    if functions().next().is_none() && hosted.peek().is_none() {
        return;
    }
    w.key("tools").array(|w| {
        if functions().next().is_some() {
            w.object(|w| {
                w.key("functionDeclarations").array(|w| {
                    functions().for_each(|function| write_function(function, w));
                });
            });
        }
        hosted.for_each(|hosted| w.raw(&hosted.json));
    });
}

fn write_function(function: &Function<'_>, w: &mut Writer<'_>) {
    w.object(|w| {
        w.key("name").str(&function.name);
        if let Some(description) = &function.description {
            w.key("description").str(description);
        }
        if let Some(parameters) = &function.parameters {
            w.key("parametersJsonSchema").raw(parameters);
        }
    });
}

/// `toolConfig`, unless there is no function that it could be about: that is refused.
pub(super) fn write_tool_config(request: &Request<'_>, w: &mut Writer<'_>) {
    let has_functions = request
        .tools
        .iter()
        .any(|tool| matches!(tool, Tool::Function(_)));
    let choice = request.tool_choice.as_ref().filter(|_| has_functions);
    let calling = || inside(request, CALLING);
    let mut others = inside(request, "toolConfig").peekable();
    let has_calling = choice.is_some() || calling().next().is_some();
    if !has_calling && others.peek().is_none() {
        return;
    }
    w.key("toolConfig").object(|w| {
        if has_calling {
            w.key("functionCallingConfig").object(|w| {
                let states_mode = calling().any(|(name, _)| name == "mode");
                if let Some(choice) = choice {
                    write_choice(choice, states_mode, w);
                }
                write_extras(calling(), w);
            });
        }
        write_extras(others, w);
    });
}

fn write_choice(choice: &ToolChoice<'_>, states_mode: bool, w: &mut Writer<'_>) {
    let mode = match choice {
        ToolChoice::Auto => "AUTO",
        ToolChoice::None => "NONE",
        ToolChoice::Required | ToolChoice::Tool(_) => "ANY",
    };
    if !states_mode {
        w.key("mode").text(mode);
    }
    if let ToolChoice::Tool(name) = choice {
        w.key("allowedFunctionNames").array(|w| w.str(name));
    }
}

/// Own extras directly inside of the member `around`, and their names there.
fn inside<'r, 'a>(
    request: &'r Request<'a>,
    around: &'r str,
) -> impl Iterator<Item = (&'r str, &'r Extra<'a>)> {
    own_extras(request).filter_map(move |extra| {
        let name = extra
            .name
            .as_spelt()
            .strip_prefix(around)?
            .strip_prefix('.')?;
        (!name.contains('.')).then_some((name, extra))
    })
}

fn write_extras<'r, 'a: 'r>(
    extras: impl Iterator<Item = (&'r str, &'r Extra<'a>)>,
    w: &mut Writer<'_>,
) {
    for (name, extra) in extras {
        w.key_str(&JsonStr::spelt(name)).raw(&extra.json);
    }
}

/// `generationConfig`.
pub(super) fn write_generation(request: &Request<'_>, setting: &Setting<'_>, w: &mut Writer<'_>) {
    let mut inside_out = Vec::new();
    Writer::new(&mut inside_out).object(|w| {
        write_sampling(request, w);
        write_format(request.format.as_ref(), w);
        if let Some(reasoning) = &request.reasoning {
            write_thinking(request, reasoning, setting, w);
        }
        write_extras(inside(request, "generationConfig"), w);
    });
    if inside_out.len() > "{}".len() {
        // Made of valid pieces.
        let json = String::from_utf8(inside_out).unwrap_or_default();
        w.key("generationConfig").raw(&json);
    }
}

fn write_sampling(request: &Request<'_>, w: &mut Writer<'_>) {
    let sampling = &request.sampling;
    for (name, number) in [
        ("temperature", &sampling.temperature),
        ("topP", &sampling.top_p),
        ("topK", &sampling.top_k),
        ("maxOutputTokens", &sampling.max_tokens),
        ("seed", &sampling.seed),
        ("presencePenalty", &sampling.presence_penalty),
        ("frequencyPenalty", &sampling.frequency_penalty),
        ("logprobs", &sampling.top_logprobs),
    ] {
        if let Some(number) = number {
            w.key(name).raw(number);
        }
    }
    if let Some(n) = sampling.n {
        w.key("candidateCount").u64(n);
    }
    if let Some(logprobs) = sampling.logprobs {
        w.key("responseLogprobs").bool(logprobs);
    }
    if !sampling.stop.is_empty() {
        w.key("stopSequences")
            .array(|w| sampling.stop.iter().for_each(|stop| w.str(stop)));
    }
}

fn write_format(format: Option<&Format<'_>>, w: &mut Writer<'_>) {
    match format {
        None => {}
        Some(Format::Text) => w.key("responseMimeType").text("text/plain"),
        Some(Format::JsonObject) => w.key("responseMimeType").text("application/json"),
        Some(Format::JsonSchema(schema)) => {
            w.key("responseMimeType").text("application/json");
            w.key("responseJsonSchema").raw(&schema.schema);
        }
    }
}

fn write_thinking(
    request: &Request<'_>,
    reasoning: &ReasoningSettings<'_>,
    setting: &Setting<'_>,
    w: &mut Writer<'_>,
) {
    let extras = || inside(request, "generationConfig.thinkingConfig");
    let amount = amount(reasoning, setting.model);
    if amount.is_none() && reasoning.show.is_none() && extras().next().is_none() {
        return;
    }
    w.key("thinkingConfig").object(|w| {
        match amount {
            Some(Amount::Budget(budget)) => w.key("thinkingBudget").u64(budget),
            Some(Amount::AsSeenFit) => w.key("thinkingBudget").raw("-1"),
            Some(Amount::Level(level)) => w.key("thinkingLevel").text(level),
            None => {}
        }
        // Anthropic shows the thoughts that it is asked for.
        let shows = setting.client == Protocol::AnthropicMessages
            && reasoning.mode != Some(ReasoningMode::Disabled);
        match &reasoning.show {
            Some(show) => w.key("includeThoughts").bool(*show != ShowThoughts::No),
            None if shows => w.key("includeThoughts").bool(true),
            None => {}
        }
        write_extras(extras(), w);
    });
}

/// How much to think. Levels came with Gemini 3, which takes budgets, too, but not both at once.
enum Amount {
    Budget(u64),
    AsSeenFit,
    Level(&'static str),
}

fn amount(reasoning: &ReasoningSettings<'_>, model: &str) -> Option<Amount> {
    let effort = reasoning.effort.as_ref().map(|effort| effort.decode());
    let effort = effort.as_deref();
    if reasoning.mode == Some(ReasoningMode::Disabled) || effort == Some("none") {
        return Some(Amount::Budget(0));
    }
    // The level of a word, and the budget that Google's own OpenAI endpoint makes of it
    // (<https://ai.google.dev/gemini-api/docs/openai#thinking>).
    let of_effort = effort.map(|effort| match effort {
        "minimal" => ("MINIMAL", 1024),
        "low" => ("LOW", 1024),
        "medium" => ("MEDIUM", 8192),
        "xhigh" => ("XHIGH", 24576),
        // `high`, and whatever others have beyond it.
        _ => ("HIGH", 24576),
    });
    match (of_effort, reasoning.budget) {
        (Some((level, _)), _) if !is_before_3(model) => Some(Amount::Level(level)),
        (_, Some(budget)) => Some(Amount::Budget(budget)),
        (Some((_, budget)), None) => Some(Amount::Budget(budget)),
        (None, None) => {
            // To think without a word of how much is as the model sees fit, too.
            reasoning.mode.map(|_| Amount::AsSeenFit)
        }
    }
}
