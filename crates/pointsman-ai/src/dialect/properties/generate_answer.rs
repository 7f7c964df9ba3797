//! Answers that say anything that can be said, and the streams that they might come in.
//!
//! They are sound: an answer that calls tools says so, one that refuses in words says so, probabilities
//! are of a text. In a stream all thoughts are signed or none: a protocol without blocks of thoughts
//! cannot tell where those begin that nobody signed.

use super::{
    Rng,
    generate::{call_signature, foreign_opaque, media, signature, text},
};
use crate::{
    Protocol, Usage,
    conversation::{
        Arguments, Block, Choice, Citation, Event, MediaKind, Part, Reasoning, Response, Source,
        Stop, Text, ToolCall,
    },
    json::string::JsonStr,
};

/// An answer to a client of `client`, which comes in a stream or whole.
pub(super) fn response(client: Protocol, streamed: bool, rng: &mut Rng) -> Response<'static> {
    let choices = if rng.chance(20) { 1 + rng.below(3) } else { 1 };
    let often = rng.pick(&[10, 40, 70]);
    let signs = streamed.then(|| rng.chance(50));
    let choices = (0..choices).map(|_| choice(client, often, signs, rng));
    Response {
        choices: choices.collect(),
        id: rng.maybe(80, |_| JsonStr::new("id_1")),
        model: rng.maybe(80, |_| JsonStr::new("model-1")),
        created: rng.maybe(50, |_| 1_750_000_000),
        usage: rng.maybe(80, usage),
        service_tier: rng.maybe(often, |rng| JsonStr::new(rng.pick(&["default", "flex"]))),
    }
}

fn usage(rng: &mut Rng) -> Usage {
    let mut count = || rng.next() % 1000;
    let (prompt, completion, cache_creation) = (count(), count(), count());
    Usage {
        prompt,
        completion,
        total: prompt + completion + cache_creation,
        cache_read: count().min(prompt),
        cache_creation,
        reasoning: count().min(completion),
    }
}

fn choice(client: Protocol, often: u64, signs: Option<bool>, rng: &mut Rng) -> Choice<'static> {
    let mut parts = Vec::new();
    while parts.len() < 6 && (parts.is_empty() && rng.chance(90) || rng.chance(often)) {
        parts.push(match rng.below(10) {
            0 | 1 => reasoning(signs.unwrap_or_else(|| rng.chance(50)), rng),
            2 if signs.is_none() && !is_heard(&parts) => Part::Media(answer_media(rng)),
            3 => Part::Opaque(foreign_opaque(client, rng)),
            4 | 5 => call(parts.len(), rng),
            _ => said(rng),
        });
    }
    let has_calls = parts.iter().any(|part| matches!(part, Part::ToolCall(_)));
    let refuses = !has_calls && rng.chance(10);
    if refuses && rng.chance(70) {
        parts.push(Part::Refusal(text(rng)));
    }
    let has_text = parts.iter().any(|part| matches!(part, Part::Text(_)));
    let logprobs = r#"{"content":[{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[{"token":"a","logprob":-0.5,"bytes":[97]}]}]}"#;
    Choice {
        stop: match (refuses, has_calls) {
            (true, _) => Stop::Refusal,
            (_, true) if rng.chance(90) => Stop::ToolCalls,
            (_, true) => Stop::Length,
            _ => stop(rng),
        },
        logprobs: rng.maybe(often, |_| logprobs.into()).filter(|_| has_text),
        parts,
    }
}

/// No model makes two sounds at once.
fn is_heard(parts: &[Part<'_>]) -> bool {
    let is_sound =
        |part: &Part<'_>| matches!(part, Part::Media(media) if media.kind == MediaKind::Audio);
    parts.iter().any(is_sound)
}

fn stop(rng: &mut Rng) -> Stop<'static> {
    rng.pick(&[
        Stop::End,
        Stop::End,
        Stop::Length,
        Stop::Sequence(None),
        Stop::Sequence(Some(JsonStr::new("halt\n"))),
        Stop::ContentFilter,
        Stop::Pause,
        Stop::Other(JsonStr::new("unheard_of")),
    ])
}

fn said(rng: &mut Rng) -> Part<'static> {
    let citation = rng.maybe(20, |rng| Citation {
        url: Some(JsonStr::new(rng.pick(&["https://a/", "https://b/"]))),
        title: Some(JsonStr::new("A title")),
        quote: rng.maybe(50, text),
        span: rng.maybe(50, |_| (0, 1)),
        native: None,
    });
    Part::Text(Text {
        text: text(rng),
        citations: citation.into_iter().collect(),
        cache: None,
    })
}

fn reasoning(signs: bool, rng: &mut Rng) -> Part<'static> {
    let is_hidden = signs && rng.chance(30);
    Part::Reasoning(Reasoning {
        text: match is_hidden {
            true => JsonStr::default(),
            false => text(rng),
        },
        signature: signs.then(|| signature(rng)),
        is_hidden,
        id: None,
    })
}

fn call(number: usize, rng: &mut Rng) -> Part<'static> {
    Part::ToolCall(ToolCall {
        id: JsonStr::from(format!("call_{number}")),
        name: JsonStr::new("look"),
        arguments: Arguments::Json(rng.pick(&["{}", r#"{"a":"ü \"x\"","b":[1.50]}"#]).into()),
        signature: rng.maybe(30, call_signature),
        cache: None,
    })
}

/// What a model makes: it is here, or at an address.
fn answer_media(rng: &mut Rng) -> crate::conversation::Media<'static> {
    loop {
        let media = media(rng);
        let is_here = matches!(media.source, Source::Base64(_));
        if media.kind != MediaKind::Document && is_here {
            return crate::conversation::Media::new(media.kind, media.source, media.media_type);
        }
    }
}

/// The events of a stream that says what `response` says, texts in pieces, answers side by side.
pub(super) fn events(response: &Response<'static>, rng: &mut Rng) -> Vec<Event<'static>> {
    let mut events = vec![Event::Start {
        id: response.id.clone().unwrap_or_default(),
        model: response.model.clone().unwrap_or_default(),
        created: response.created,
        usage: response.usage.filter(|_| rng.chance(30)),
    }];
    // Some say it at the start, some at the end, some with every piece.
    let tier = || response.service_tier.clone().map(Event::Tier);
    let is_early = rng.chance(50);
    events.extend(tier().filter(|_| is_early));
    let choices = response.choices.iter().enumerate();
    let choices = choices.map(|(index, choice)| of_choice(index.try_into().unwrap(), choice, rng));
    let mut waiting: Vec<_> = choices
        .map(|events| events.into_iter().peekable())
        .collect();
    // Each begins before any is complete, as those that come side by side do.
    if waiting.len() > 1 {
        for choice in &mut waiting {
            events.extend(choice.next_if(|event| !matches!(event, Event::Stop { .. })));
        }
    }
    while !waiting.is_empty() {
        let at = rng.below(waiting.len());
        match waiting[at].next() {
            Some(event) => events.push(event),
            None => drop(waiting.swap_remove(at)),
        }
        if rng.chance(3) {
            events.push(Event::Ping);
        }
    }
    events.extend(response.usage.map(Event::Usage));
    events.extend(tier().filter(|_| !is_early || rng.chance(20)));
    events.push(Event::End);
    events
}

fn of_choice(choice: u32, said: &Choice<'static>, rng: &mut Rng) -> Vec<Event<'static>> {
    let mut events = Vec::new();
    let mut logprobs = said.logprobs.clone();
    for part in &said.parts {
        let (block, text) = match part {
            Part::Text(text) => (Block::Text, text.text.clone()),
            Part::Reasoning(reasoning) if reasoning.is_hidden => {
                (Block::Hidden, JsonStr::default())
            }
            Part::Reasoning(reasoning) => (Block::Reasoning, reasoning.text.clone()),
            Part::Refusal(text) => (Block::Refusal, text.clone()),
            Part::ToolCall(call) => {
                let (id, name) = (call.id.clone(), call.name.clone());
                (
                    Block::ToolCall { id, name },
                    call.arguments.as_text().into_owned(),
                )
            }
            Part::Opaque(opaque) => (Block::Opaque(opaque.clone()), JsonStr::default()),
            Part::Media(_) | Part::ToolResult(_) => continue,
        };
        events.push(Event::BlockStart { choice, block });
        for text in pieces(&text, rng) {
            events.push(Event::Delta { choice, text });
        }
        match part {
            Part::Text(text) => {
                let json = logprobs.take();
                events.extend(json.map(|json| Event::Logprobs { choice, json }));
                let citations = text.citations.iter().cloned();
                events.extend(citations.map(|citation| Event::Citation { choice, citation }));
            }
            Part::Reasoning(Reasoning { signature, .. })
            | Part::ToolCall(ToolCall { signature, .. }) => {
                let signature = signature.clone();
                events.extend(signature.map(|signature| Event::Signature { choice, signature }));
            }
            _ => {}
        }
        events.push(Event::BlockEnd { choice });
    }
    let stop = said.stop.clone();
    events.push(Event::Stop { choice, stop });
    events
}

/// `text`, cut between its characters.
fn pieces(text: &JsonStr<'static>, rng: &mut Rng) -> Vec<JsonStr<'static>> {
    let mut pieces = vec![String::new()];
    for character in text.decode().chars() {
        if rng.chance(20) {
            pieces.push(String::new());
        }
        pieces.last_mut().unwrap().push(character);
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces.into_iter().map(JsonStr::from).collect()
}
