//! One form for what says the same.
//!
//! Protocols may change these, and are equal all the same:
//! - Whether a text is a string or a list of one; one text or several behind each other, and the
//!   line breaks between them; texts that are empty.
//! - Messages of one side behind each other are one; a message that says nothing is none.
//! - `developer` is `system`.
//! - Of what a tool answered, texts come before media.
//! - Functions come before hosted tools, take any object if they do not say, and are not strict if
//!   they do not say. Where strictness is one switch (Cohere), it is on for all or for none.
//! - A setting that says what happens anyway: tools as the model likes, calls in parallel, one
//!   answer, text, no probabilities, tier `auto`, no thoughts shown.
//! - A budget says that thinking is on, and so does an effort. A summary of any kind is shown thoughts.
//! - Where a name must be, what is written without one.
//! - The type of media that are elsewhere, which their address says as well. What a file is that
//!   the provider keeps is not known by its id (Gemini).
//! - Schemas of Anthropic's are closed, and strict in OpenAI Chat.
//! - Arguments that are no object become an empty one.
//! - In a turn of the model's of OpenAI Chat and Cohere, thoughts come before texts and these before
//!   calls ([`sorted`]).

use crate::{
    Protocol,
    conversation::{
        Arguments, Choice, Citation, Format, Json, MediaKind, Message, Part, Reasoning,
        ReasoningMode, ReasoningSettings, Request, Response, Role, Source, Stop, Text, Tool,
        ToolChoice, closed,
    },
    json::string::JsonStr,
};

/// A request in that form, for a way through `protocols`.
pub(crate) fn request(request: &mut Request<'_>, protocols: &[Protocol]) {
    request.model = None;
    request.stream = false;
    for message in &mut request.messages {
        if message.role == Role::Developer {
            message.role = Role::System;
        }
        message.plain = false;
        parts(&mut message.parts);
        if protocols.contains(&Protocol::GeminiGenerateContent) {
            files_are_documents(&mut message.parts);
        }
    }
    merge(&mut request.messages);
    for message in &mut request.messages {
        if message.role == Role::Assistant && protocols.iter().copied().any(sorts) {
            sorted(&mut message.parts);
        }
        if message.role == Role::Assistant && protocols.contains(&Protocol::CohereChat) {
            join_thoughts(&mut message.parts);
        }
        join_texts(&mut message.parts);
    }
    tools(request, protocols);
    settings(request, protocols);
}

/// Protocols that keep the pieces of a turn in members, not in one list.
fn sorts(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::OpenaiChat | Protocol::CohereChat)
}

/// Thoughts, texts, refusals, media, calls, as these protocols have them.
fn sorted(parts: &mut [Part<'_>]) {
    parts.sort_by_key(|part| match part {
        Part::Reasoning(_) => 0,
        Part::Text(_) => 1,
        Part::Refusal(_) => 2,
        Part::Media(_) => 3,
        Part::ToolCall(_) => 4,
        Part::ToolResult(_) | Part::Opaque(_) => 5,
    });
}

fn merge(messages: &mut Vec<Message<'_>>) {
    messages.retain(|message| !message.parts.is_empty());
    let all = std::mem::take(messages);
    for message in all {
        match messages.last_mut() {
            Some(last) if last.role == message.role && last.name == message.name => {
                last.parts.extend(message.parts);
            }
            _ => messages.push(message),
        }
    }
}

fn parts(parts: &mut Vec<Part<'_>>) {
    for part in parts.iter_mut() {
        match part {
            Part::Text(text) => text.text = unbroken(&text.text),
            Part::Refusal(text) => *text = unbroken(text),
            Part::Media(media) => {
                if !matches!(media.source, Source::Base64(_)) {
                    media.media_type = None;
                }
                let is_usual = |name: &mut JsonStr<'_>| {
                    ["document", "document.pdf", "document-pdf"]
                        .iter()
                        .any(|usual| name.is(usual))
                };
                media.name.take_if(is_usual);
            }
            Part::ToolCall(call) => {
                let object = call.arguments.as_object().unwrap_or_else(|| "{}".into());
                call.arguments = Arguments::Json(object.trim().to_owned().into());
            }
            Part::ToolResult(result) => {
                result.plain = false;
                self::parts(&mut result.parts);
                result
                    .parts
                    .sort_by_key(|part| matches!(part, Part::Media(_)));
                join_texts(&mut result.parts);
            }
            Part::Reasoning(reasoning) => {
                reasoning.text = unbroken(&reasoning.text);
                reasoning.id = None;
            }
            Part::Opaque(_) => {}
        }
    }
    parts.retain(|part| match part {
        Part::Text(text) => !text.text.is_empty() || !text.citations.is_empty(),
        Part::Refusal(text) => !text.is_empty(),
        _ => true,
    });
}

fn files_are_documents(parts: &mut [Part<'_>]) {
    for part in parts {
        match part {
            Part::Media(media) if matches!(media.source, Source::File(_)) => {
                media.kind = MediaKind::Document;
            }
            Part::ToolResult(result) => files_are_documents(&mut result.parts),
            _ => {}
        }
    }
}

fn unbroken(text: &JsonStr<'_>) -> JsonStr<'static> {
    JsonStr::from(text.decode().replace('\n', ""))
}

fn join_texts(parts: &mut Vec<Part<'_>>) {
    let all = std::mem::take(parts);
    for part in all {
        match (parts.last_mut(), part) {
            (Some(Part::Text(last)), Part::Text(next)) if last.cache.is_none() => {
                last.text = JsonStr::concat([&last.text, &next.text], "");
                last.citations.extend(next.citations);
                last.cache = next.cache;
            }
            (Some(Part::Refusal(last)), Part::Refusal(next)) => {
                *last = JsonStr::concat([&*last, &next], "");
            }
            (_, part) => parts.push(part),
        }
    }
}

/// Thoughts that nobody signed are one.
fn join_thoughts(parts: &mut Vec<Part<'_>>) {
    let is_bare = |reasoning: &Reasoning<'_>| reasoning.signature.is_none() && !reasoning.is_hidden;
    let all = std::mem::take(parts);
    for part in all {
        match (parts.last_mut(), part) {
            (Some(Part::Reasoning(last)), Part::Reasoning(next))
                if is_bare(last) && is_bare(&next) =>
            {
                last.text = JsonStr::concat([&last.text, &next.text], "");
            }
            (_, part) => parts.push(part),
        }
    }
}

fn compact(json: &str) -> Json<'static> {
    let value: serde_json::Value = serde_json::from_str(json).expect("JSON");
    value.to_string().into()
}

fn close(schema: &mut Json<'_>) {
    if let Some(closed) = closed(schema).json {
        *schema = closed.into();
    }
}

fn tools(request: &mut Request<'_>, protocols: &[Protocol]) {
    request
        .tools
        .sort_by_key(|tool| matches!(tool, Tool::Hosted(_)));
    let mut any_strict = false;
    for tool in &mut request.tools {
        if let Tool::Function(function) = tool {
            let any = r#"{"type":"object","properties":{}}"#;
            let parameters = function.parameters.as_deref().unwrap_or(any);
            let mut parameters = compact(parameters);
            if protocols.contains(&Protocol::AnthropicMessages) {
                close(&mut parameters);
            }
            function.parameters = Some(parameters);
            function.strict.take_if(|strict| !*strict);
            any_strict |= function.strict == Some(true);
        }
    }
    if protocols.contains(&Protocol::CohereChat) && any_strict {
        for tool in &mut request.tools {
            if let Tool::Function(function) = tool {
                function.strict = Some(true);
            }
        }
    }
    request.parallel_tool_calls.take_if(|parallel| *parallel);
    if request.tool_choice == Some(ToolChoice::None) {
        request.parallel_tool_calls = None;
    }
    request
        .tool_choice
        .take_if(|choice| *choice == ToolChoice::Auto);
}

fn settings(request: &mut Request<'_>, protocols: &[Protocol]) {
    request.format.take_if(|format| *format == Format::Text);
    if let Some(Format::JsonSchema(schema)) = &mut request.format {
        schema.schema = compact(&schema.schema);
        if protocols.contains(&Protocol::AnthropicMessages) {
            close(&mut schema.schema);
        }
        schema.name.take_if(|name| name.is("structured_output"));
        let closing = [Protocol::AnthropicMessages, Protocol::OpenaiChat];
        let is_closed = closing.iter().all(|protocol| protocols.contains(protocol));
        schema.strict.take_if(|_| is_closed);
    }
    if let Some(reasoning) = &mut request.reasoning {
        // Anthropic's clients are shown thoughts without asking, so a round trip may add the wish.
        reasoning.show = None;
        if reasoning.budget.is_some() {
            reasoning.mode = Some(ReasoningMode::Enabled);
        }
        reasoning.mode.take_if(|_| reasoning.effort.is_some());
    }
    request
        .reasoning
        .take_if(|reasoning| *reasoning == ReasoningSettings::default());
    let sampling = &mut request.sampling;
    sampling.n.take_if(|n| *n == 1);
    sampling.logprobs.take_if(|logprobs| !*logprobs);
    request.service_tier.take_if(|tier| {
        // Gemini's usual tier is what OpenAI calls `default`.
        let is_usual = tier.is("default") && protocols.contains(&Protocol::GeminiGenerateContent);
        tier.is("auto") || is_usual
    });
}

/// An answer in that form, for `client`: without id, model and time, which
/// protocols make up or leave out; sources by address and title, at whatever text; probabilities as
/// they are counted; of tokens those that every protocol tells apart.
pub(crate) fn response(response: &mut Response<'_>, client: Protocol) {
    response.id = None;
    response.model = None;
    response.created = None;
    let usage = response.usage.get_or_insert_default();
    usage.prompt += std::mem::take(&mut usage.cache_creation);
    usage.reasoning = 0;
    for choice in &mut response.choices {
        self::choice(choice, client);
    }
}

fn choice(choice: &mut Choice<'_>, client: Protocol) {
    if let Some(logprobs) = &mut choice.logprobs {
        *logprobs = logprobs.matches("\"logprob\"").count().to_string().into();
    }
    choice.logprobs.take_if(|count| *count == "0");
    let has_refusal = choice
        .parts
        .iter()
        .any(|part| matches!(part, Part::Refusal(_)));
    if client == Protocol::AnthropicMessages {
        refusals_are_texts(choice);
    }
    gather_citations(choice);
    parts(&mut choice.parts);
    if sorts(client) {
        sorted(&mut choice.parts);
    }
    join_thoughts(&mut choice.parts);
    join_texts(&mut choice.parts);
    for part in &mut choice.parts {
        if let Part::Media(media) = part
            && media.kind == MediaKind::Audio
        {
            media.media_type = None;
        }
    }
    choice.stop = stop(&choice.stop, has_refusal, client);
}

/// Anthropic says in the reason why it stopped that the text is a refusal.
fn refusals_are_texts(choice: &mut Choice<'_>) {
    for part in &mut choice.parts {
        if let Part::Refusal(text) = part {
            *part = Part::text(std::mem::take(text));
        }
    }
}

/// All sources, once each and sorted, at the end.
fn gather_citations(choice: &mut Choice<'_>) {
    let mut all: Vec<Citation<'_>> = Vec::new();
    for part in &mut choice.parts {
        if let Part::Text(text) = part {
            all.append(&mut text.citations);
        }
    }
    choice
        .parts
        .retain(|part| !matches!(part, Part::Text(text) if text.text.is_empty()));
    if all.is_empty() {
        return;
    }
    let addresses = all.iter().map(|citation| Citation {
        url: citation.url.clone(),
        title: citation.title.clone(),
        ..Citation::default()
    });
    let mut unlike: Vec<Citation<'_>> = Vec::new();
    for address in addresses {
        if !unlike.contains(&address) {
            unlike.push(address);
        }
    }
    unlike.sort_by_key(|citation| format!("{citation:?}"));
    choice.parts.push(Part::Text(Text {
        citations: unlike,
        ..Text::default()
    }));
}

/// What is left of `stop` in `protocol`, which may know fewer reasons.
fn stop<'a>(stop: &Stop<'a>, has_refusal: bool, protocol: Protocol) -> Stop<'a> {
    use Protocol::{
        AnthropicMessages, BedrockConverse, CohereChat, GeminiGenerateContent, OpenaiChat,
        OpenaiResponses,
    };
    match (stop, protocol) {
        (Stop::Length | Stop::ToolCalls | Stop::End, _) => stop.clone(),
        (Stop::Sequence(_), CohereChat | BedrockConverse) => Stop::Sequence(None),
        (Stop::Sequence(_), AnthropicMessages) => stop.clone(),
        (Stop::Refusal, AnthropicMessages) | (Stop::Pause, AnthropicMessages) => stop.clone(),
        (Stop::ContentFilter, AnthropicMessages) => Stop::Refusal,
        (Stop::ContentFilter, CohereChat) => Stop::End,
        (Stop::ContentFilter, _) => Stop::ContentFilter,
        (Stop::Refusal, GeminiGenerateContent | BedrockConverse) => Stop::ContentFilter,
        // Without the words of a refusal, a filter is the nearest.
        (Stop::Refusal, OpenaiChat | OpenaiResponses) if has_refusal => Stop::Refusal,
        (Stop::Refusal, OpenaiChat | OpenaiResponses) => Stop::ContentFilter,
        (Stop::Other(_), OpenaiResponses) => stop.clone(),
        (Stop::Other(_), GeminiGenerateContent) => Stop::Other(JsonStr::new("OTHER")),
        _ => Stop::End,
    }
}
