//! What the fuzz target `translate` does with its bytes; a test does the same with examples whose
//! bytes are disturbed. Forms and sessions have a target and a module each.
//!
//! Whatever comes, it is refused or becomes something that can be read in the protocol that it was
//! written in, and says there what it said before, but for what is declared lost.

mod form;
mod session;

pub use form::form;
pub use session::session;

use crate::{
    Outside, Protocol, Provider, StreamTranslator, Translation,
    conversation::{Choice, Event, Part, Request, Response, Role, Stop, Tool, ToolChoice},
    dialect::{
        self, Setting, StreamReader, expresses, read_error, read_request, read_response,
        same::{
            assert_text,
            gathered::{End, Gathered},
            normal, strip, without_call_signatures,
        },
    },
    json::string::JsonStr,
    stream::{Framing, Unframed},
};

const DIALECTS: [Protocol; 6] = [
    Protocol::OpenaiChat,
    Protocol::OpenaiResponses,
    Protocol::AnthropicMessages,
    Protocol::GeminiGenerateContent,
    Protocol::CohereChat,
    Protocol::BedrockConverse,
];
const PROVIDER: Provider = Provider::OpenaiCompatible;
const MODEL: &str = "model";

/// The first byte says from and to which protocol, the second what the rest is, the third where a
/// stream is cut.
///
/// # Panics
///
/// What was written is wrong.
pub fn any(data: &[u8]) {
    let [pair, kind, cut, rest @ ..] = data else {
        return;
    };
    let pair = usize::from(*pair) % 36;
    let (client, target) = (DIALECTS[pair / 6], DIALECTS[pair % 6]);
    match kind % 3 {
        0 => request(rest, client, target),
        1 => response(rest, client, target),
        _ => stream(rest, usize::from(*cut), client, target),
    }
}

fn outside(stream: bool) -> Outside<'static> {
    Outside {
        model: Some(MODEL),
        stream,
        version: None,
        now: 1,
        seed: "seed",
    }
}

/// Who reads what a provider of `target` says.
fn reading(client: Protocol, target: Protocol) -> Setting<'static> {
    Setting {
        client,
        target,
        provider: PROVIDER,
        model: MODEL,
        version: None,
        now: 1,
        seed: "seed",
    }
}

/// A request is refused, or becomes one of `target` that says nothing which that cannot.
///
/// # Panics
///
/// It becomes something else.
pub fn request(body: &[u8], client: Protocol, target: Protocol) {
    let streams = body.len().is_multiple_of(2);
    let Ok(translated) = Translation::request(body, client, target, PROVIDER, outside(streams))
    else {
        return;
    };
    is_json(&translated.body);
    let before = dialect::parse(body).expect("JSON");
    if !makes_sense(&read_request(client, before.root()).expect("a request")) {
        return;
    }
    let written = || String::from_utf8_lossy(&translated.body);
    let tree = dialect::parse(&translated.body).expect("JSON");
    let read = match read_request(target, tree.root()) {
        Ok(read) => read,
        Err(error) => panic!("{client:?} to {target:?}: {error}\n{}", written()),
    };
    if client == target {
        // Nothing is translated then, and nothing counts as lost.
        return;
    }
    let said = read.features(target);
    let undeclared = said.without(dialect::expresses_to(&read, &reading(client, target)));
    let undeclared: Vec<_> = undeclared.iter().collect();
    assert!(undeclared.is_empty(), "{undeclared:?}\n{}", written());
}

/// Whether it says anything, and what it refers to is there: some protocols refuse what others leave to
/// their providers.
fn makes_sense(request: &Request<'_>) -> bool {
    let is_declared = |name: &JsonStr<'_>| {
        let mut tools = request.tools.iter();
        tools.any(|tool| matches!(tool, Tool::Function(function) if function.name == *name))
    };
    if let Some(ToolChoice::Tool(name)) = &request.tool_choice
        && !is_declared(name)
    {
        return false;
    }
    let mut calls = Vec::new();
    let mut says_something = false;
    for message in &request.messages {
        for part in &message.parts {
            says_something |= match part {
                Part::Text(text) => message.role == Role::User && !text.text.is_empty(),
                part => matches!(part, Part::ToolResult(_)),
            };
            match part {
                Part::ToolCall(_) if message.role != Role::Assistant => return false,
                Part::ToolCall(call) => calls.push(&call.id),
                Part::ToolResult(result) if !calls.contains(&&result.call_id) => return false,
                _ => {}
            }
        }
    }
    says_something
}

/// An answer is refused, or becomes one that says the same. An error always becomes one.
///
/// # Panics
///
/// It becomes something else.
pub fn response(body: &[u8], client: Protocol, target: Protocol) {
    let translation = translation(client, target);
    if let Ok((text, _)) = translation.response(body) {
        is_json(&text);
        says_the_same(body, &text, client, target);
    }
    let error = translation.error(500, body);
    is_json(&error);
    let tree = dialect::parse(&error).expect("JSON");
    assert!(read_error(client, tree.root()).is_some(), "{client:?}");
}

fn says_the_same(body: &[u8], written: &[u8], client: Protocol, target: Protocol) {
    let [before, after] = [body, written].map(|text| dialect::parse(text).expect("JSON"));
    let error = read_error(target, before.root());
    let told = read_error(client, after.root());
    assert_eq!(
        error.as_ref().map(|error| &error.message),
        told.as_ref().map(|error| &error.message),
        "{client:?} of {target:?}: {}",
        String::from_utf8_lossy(written)
    );
    if error.is_some() {
        return;
    }
    let said = read_response(before.root(), &reading(client, target)).expect("an answer");
    let got = match read_response(after.root(), &reading(client, client)) {
        Ok(got) => got,
        Err(error) => panic!(
            "{client:?} of {target:?}: {error}\n{}",
            String::from_utf8_lossy(written)
        ),
    };
    same(said, got, client, &[body, written]);
}

/// But for what `client`'s protocol cannot say.
fn same<'a>(mut said: Response<'a>, mut got: Response<'a>, client: Protocol, texts: &[&[u8]]) {
    let lost = said.features(client).without(expresses(client));
    let usage = said.usage.unwrap_or_default();
    let counts = usage.completion >= usage.reasoning && usage.prompt >= usage.cache_read;
    let mut parts = said.choices.iter().flat_map(|choice| &choice.parts);
    let is_named = parts.all(|part| match part {
        Part::ToolCall(call) => !call.id.is_empty(),
        Part::Text(text) => text.citations.iter().all(|cited| cited.title.is_some()),
        _ => true,
    });
    for one in [&mut said, &mut got] {
        match &mut one.usage {
            Some(usage) if counts => usage.total = 0,
            usage => *usage = None,
        }
        for choice in &mut one.choices {
            plausible(choice, is_named);
        }
        strip::response(one, lost, client);
        normal::response(one, client);
    }
    assert_text("an answer", &said, &got, texts);
}

/// Makes sense of what no provider says and protocols put differently. Beside counts that are less
/// than their parts, these are sources without any text; calls without ids and sources without titles,
/// for which a protocol that needs some has others; thoughts without words that are not hidden; calls that are not the reason to stop, and
/// the other way around; and pieces that nobody but their own protocol knows.
fn plausible(choice: &mut Choice<'_>, is_named: bool) {
    choice.parts.retain(|part| !matches!(part, Part::Opaque(_)));
    let mut has_calls = false;
    for part in &mut choice.parts {
        match part {
            Part::Text(text) => {
                text.citations.retain(|_| !text.text.is_empty());
                for citation in &mut text.citations {
                    citation
                        .title
                        .take_if(|title| title.is_empty() || !is_named);
                    citation.url.take_if(|url| url.is_empty());
                }
            }
            Part::ToolCall(call) => {
                has_calls = true;
                if !is_named {
                    call.id = JsonStr::default();
                }
            }
            Part::Reasoning(reasoning) => reasoning.is_hidden |= reasoning.text.is_empty(),
            _ => {}
        }
    }
    match &choice.stop {
        Stop::ToolCalls if !has_calls => choice.stop = Stop::End,
        Stop::End | Stop::Other(_) if has_calls => choice.stop = Stop::ToolCalls,
        _ => {}
    }
}

/// A stream becomes the same wherever it is cut, says the same, and is complete iff it was.
///
/// # Panics
///
/// It becomes something else.
pub fn stream(bytes: &[u8], cut: usize, client: Protocol, target: Protocol) {
    let read = |pieces: &[&[u8]]| {
        let translator = translation(client, target).stream(cut.is_multiple_of(2));
        let mut translator: StreamTranslator = translator.expect("a conversation");
        let mut out = Vec::new();
        for piece in pieces {
            translator.push(piece, &mut out);
        }
        let complete = translator.finish(&mut out);
        (out, complete)
    };
    let (first, second) = bytes.split_at(bytes.len() * cut / 256);
    let (written, complete) = read(&[bytes]);
    assert_eq!(read(&[first, second]), (written.clone(), complete));
    let only_first = !expresses(client).has(crate::conversation::Feature::ChoicesAnswer);
    let said = gathered(bytes, &reading(client, target), only_first);
    let got = gathered(&written, &reading(client, client), only_first);
    let text = || String::from_utf8_lossy(&written).into_owned();
    let pair = format!("{client:?} of {target:?}");
    assert_eq!(got.broken(), None, "{pair}: {}", text());
    let is_whole = said.end == Some(End::Proper) && said.all_have_stopped();
    assert_eq!(complete, is_whole, "{pair}: {}", text());
    let ended = got.end == Some(End::Proper);
    assert_eq!(ended, complete, "{pair}: {}", text());
    if complete {
        let [mut said, mut got] = [said, got].map(Gathered::into_response);
        for one in [&mut said, &mut got] {
            without_call_signatures(one, client);
        }
        same(said, got, client, &[bytes, &written]);
    }
}

/// What a stream says; with `only_first`, of several choices the first.
fn gathered(bytes: &[u8], setting: &Setting<'_>, only_first: bool) -> Gathered {
    let mut gathered = Gathered::default();
    let mut take = |event: Event<'_>| {
        if gathered.end.is_none() && !(only_first && event.choice().is_some_and(|at| at != 0)) {
            gathered.take(&event);
        }
    };
    let mut reader = StreamReader::new(setting).expect("a conversation");
    Framing::of(setting.target).push(bytes, |unframed| match unframed {
        Unframed::Event { name, data } => reader.event(name, data, &mut take),
        Unframed::Broken(_) => take(Event::Error(Default::default())),
    });
    reader.finish(&mut take);
    gathered
}

fn translation(client: Protocol, target: Protocol) -> Translation {
    let body = match client {
        Protocol::GeminiGenerateContent => r#"{"contents":[{"parts":[{"text":"x"}]}]}"#,
        Protocol::BedrockConverse => r#"{"messages":[{"role":"user","content":[{"text":"x"}]}]}"#,
        Protocol::OpenaiResponses => r#"{"input":"x"}"#,
        _ => r#"{"messages":[{"role":"user","content":"x"}]}"#,
    };
    let read = Translation::request(body.as_bytes(), client, target, PROVIDER, outside(true));
    read.expect("a request").translation
}

fn is_json(text: &[u8]) {
    let read: Result<serde_json::Value, _> = serde_json::from_slice(text);
    if let Err(error) = read {
        panic!("{error}: {}", String::from_utf8_lossy(text));
    }
}

#[cfg(test)]
mod tests;
