//! Tools and settings of a client's request.

use super::{
    array, boolean, count, expected, fields, is_named, number, object, read_request::extra, schema,
    string,
};
use crate::{
    conversation::{
        Extra, Format, Function, Json, Malformed, Opaque, ReasoningMode, ReasoningSettings,
        Request, Schema, ShowThoughts, Tool, ToolChoice,
    },
    json::{string::JsonStr, tree::Node, write::Writer},
};

/// `tools`: each holds functions, or switches on something that Google runs, or both.
pub(super) fn read_tools<'a>(
    node: Node<'_, 'a>,
    request: &mut Request<'a>,
) -> Result<(), Malformed> {
    for tool in array(node)?.items() {
        for (kind, value) in object(tool)?.members() {
            if value.is_null() {
                continue;
            }
            if is_named(&kind, "functionDeclarations") {
                for function in array(value)?.items() {
                    let function = read_function(function, &mut request.extras)?;
                    request.tools.push(Tool::Function(function));
                }
                continue;
            }
            let mut json = Vec::with_capacity(tool.raw().len());
            Writer::new(&mut json).object(|w| w.key_str(&kind).raw(value.raw()));
            request.tools.push(Tool::Hosted(Opaque {
                protocol: super::OWN,
                json: String::from_utf8(json).unwrap_or_default().into(),
                kind,
            }));
        }
    }
    Ok(())
}

fn read_function<'a>(
    node: Node<'_, 'a>,
    extras: &mut Vec<Extra<'a>>,
) -> Result<Function<'a>, Malformed> {
    let names = ["name", "description", "parameters", "parametersJsonSchema"];
    let found = fields(object(node)?, names, |name, value| {
        extras.push(extra(nested("tools.functionDeclarations", &name), value));
    });
    let [name, description, parameters, json_schema] = found;
    let Some(name) = name else {
        return Err(Malformed::at(node, "a function needs a `name`"));
    };
    if let (Some(_), Some(second)) = (parameters, json_schema) {
        let what = "a function has `parameters` or `parametersJsonSchema`, not both";
        return Err(Malformed::at(second, what));
    }
    let own = parameters.map(object).transpose()?.map(schema::json_schema);
    Ok(Function {
        name: string(name)?,
        description: description.map(string).transpose()?,
        parameters: own.or_else(|| json_schema.map(|node| Json::Borrowed(node.raw()))),
        ..Function::default()
    })
}

/// The name of an extra inside of another member.
pub(super) fn nested(around: &str, name: &JsonStr<'_>) -> JsonStr<'static> {
    JsonStr::from(format!("{around}.{}", name.decode()))
}

/// `toolConfig`.
pub(super) fn read_tool_config<'a>(
    node: Node<'_, 'a>,
    request: &mut Request<'a>,
) -> Result<(), Malformed> {
    let extras = &mut request.extras;
    let [calling] = fields(object(node)?, ["functionCallingConfig"], |name, value| {
        extras.push(extra(nested("toolConfig", &name), value));
    });
    let Some(calling) = calling else {
        return Ok(());
    };
    let names = ["mode", "allowedFunctionNames"];
    let [mode, allowed] = fields(object(calling)?, names, |name, value| {
        extras.push(extra(nested(CALLING, &name), value));
    });
    let allowed = allowed.map(array).transpose()?;
    let allowed = allowed.filter(|allowed| !allowed.is_empty());
    let word = mode.map(string).transpose()?.unwrap_or_default();
    let choice = match &*word.decode() {
        "" | "MODE_UNSPECIFIED" => None,
        "AUTO" => Some(ToolChoice::Auto),
        "NONE" => Some(ToolChoice::None),
        "ANY" => Some(ToolChoice::Required),
        // Calls fit their schemas, and the model may still answer in words.
        "VALIDATED" => {
            extras.extend(mode.map(|mode| extra(nested(CALLING, &JsonStr::new("mode")), mode)));
            Some(ToolChoice::Auto)
        }
        _ => {
            let node = mode.unwrap_or(calling);
            return Err(Malformed::at(
                node,
                "expected `AUTO`, `ANY`, `NONE` or `VALIDATED`",
            ));
        }
    };
    let mut names = allowed.into_iter().flat_map(Node::items);
    request.tool_choice = match (choice, names.next(), names.next()) {
        (Some(ToolChoice::Required), Some(name), None) => Some(ToolChoice::Tool(string(name)?)),
        (choice, Some(_), _) => {
            let name = nested(CALLING, &JsonStr::new("allowedFunctionNames"));
            extras.extend(allowed.map(|allowed| extra(name, allowed)));
            choice
        }
        (choice, None, _) => choice,
    };
    Ok(())
}

/// Where extras about calls stand.
pub(super) const CALLING: &str = "toolConfig.functionCallingConfig";

/// `generationConfig`.
pub(super) fn read_generation<'a>(
    node: Node<'_, 'a>,
    request: &mut Request<'a>,
) -> Result<(), Malformed> {
    let Request {
        extras, sampling, ..
    } = request;
    let names = [
        "temperature",
        "topP",
        "topK",
        "maxOutputTokens",
        "stopSequences",
        "seed",
        "candidateCount",
        "presencePenalty",
        "frequencyPenalty",
        "responseLogprobs",
        "logprobs",
        "thinkingConfig",
    ];
    let mut format = FormatNodes::default();
    let found = fields(object(node)?, names, |name, value| {
        if !format.take(&name, value) && !says_only_text(&name, value) {
            extras.push(extra(nested("generationConfig", &name), value));
        }
    });
    let [
        temperature,
        top_p,
        top_k,
        max,
        stop,
        seed,
        n,
        presence,
        frequency,
        probs,
        top,
        thinking,
    ] = found;
    sampling.temperature = temperature.map(number).transpose()?;
    sampling.top_p = top_p.map(number).transpose()?;
    sampling.top_k = top_k.map(number).transpose()?;
    sampling.max_tokens = max.map(number).transpose()?;
    sampling.seed = seed.map(number).transpose()?;
    sampling.n = n.map(count).transpose()?;
    sampling.presence_penalty = presence.map(number).transpose()?;
    sampling.frequency_penalty = frequency.map(number).transpose()?;
    sampling.logprobs = probs.map(boolean).transpose()?;
    sampling.top_logprobs = top.map(number).transpose()?;
    let stop = stop.map(array).transpose()?;
    for text in stop.into_iter().flat_map(Node::items) {
        sampling.stop.push(string(text)?);
    }
    request.format = format.read(extras)?;
    if let Some(thinking) = thinking {
        request.reasoning = Some(read_thinking(thinking, extras)?);
    }
    Ok(())
}

/// An answer in text is what there is anyhow.
fn says_only_text(name: &JsonStr<'_>, value: Node<'_, '_>) -> bool {
    is_named(name, "responseModalities") && value.items().all(|item| item.says("TEXT"))
}

/// What `generationConfig` says of the answer's format.
#[derive(Default)]
struct FormatNodes<'t, 'a> {
    media_type: Option<Node<'t, 'a>>,
    own: Option<Node<'t, 'a>>,
    json: Option<Node<'t, 'a>>,
}

impl<'t, 'a> FormatNodes<'t, 'a> {
    /// Whether the member is one of these.
    fn take(&mut self, name: &JsonStr<'_>, value: Node<'t, 'a>) -> bool {
        let place = if is_named(name, "responseMimeType") {
            &mut self.media_type
        } else if is_named(name, "responseSchema") {
            &mut self.own
        } else if is_named(name, "responseJsonSchema") {
            &mut self.json
        } else {
            return false;
        };
        *place = Some(value);
        true
    }

    fn read(self, extras: &mut Vec<Extra<'a>>) -> Result<Option<Format<'a>>, Malformed> {
        if let (Some(_), Some(second)) = (self.own, self.json) {
            let what = "there may be `responseSchema` or `responseJsonSchema`, not both";
            return Err(Malformed::at(second, what));
        }
        let media_type = self.media_type.map(string).transpose()?.unwrap_or_default();
        if !["", "application/json", "text/plain"]
            .iter()
            .any(|known| media_type.is(known))
        {
            // Such as `text/x.enum`: one of the words of the schema, bare.
            for (name, node) in [
                ("generationConfig.responseMimeType", self.media_type),
                ("generationConfig.responseSchema", self.own),
                ("generationConfig.responseJsonSchema", self.json),
            ] {
                extras.extend(node.map(|node| extra(JsonStr::new(name), node)));
            }
            return Ok(None);
        }
        let own = self.own.map(object).transpose()?.map(schema::json_schema);
        let schema = own.or_else(|| self.json.map(|node| Json::Borrowed(node.raw())));
        if let Some(schema) = schema {
            return Ok(Some(Format::JsonSchema(Schema {
                schema,
                ..Schema::default()
            })));
        }
        Ok(match media_type.is("application/json") {
            true => Some(Format::JsonObject),
            false => self.media_type.map(|_| Format::Text),
        })
    }
}

/// `thinkingConfig`. A budget of 0 is none, and one of -1 is what the model sees fit.
fn read_thinking<'a>(
    node: Node<'_, 'a>,
    extras: &mut Vec<Extra<'a>>,
) -> Result<ReasoningSettings<'a>, Malformed> {
    let names = ["thinkingBudget", "thinkingLevel", "includeThoughts"];
    let [budget, level, show] = fields(object(node)?, names, |name, value| {
        extras.push(extra(
            nested("generationConfig.thinkingConfig", &name),
            value,
        ));
    });
    let mut settings = ReasoningSettings::default();
    if let Some(node) = budget {
        (settings.mode, settings.budget) = match &*number(node)? {
            "0" => (Some(ReasoningMode::Disabled), None),
            "-1" => (Some(ReasoningMode::Adaptive), None),
            _ => (Some(ReasoningMode::Enabled), Some(count(node)?)),
        };
    }
    if let Some(node) = level {
        let word = string(node)?.decode().to_ascii_lowercase();
        if word.is_empty() {
            return Err(expected(node, "a level, such as `LOW` or `HIGH`"));
        }
        let stated = word != "thinking_level_unspecified";
        settings.effort = stated.then(|| JsonStr::from(word));
    }
    settings.show = show.map(boolean).transpose()?.map(|shown| match shown {
        true => ShowThoughts::Yes,
        false => ShowThoughts::No,
    });
    Ok(settings)
}
