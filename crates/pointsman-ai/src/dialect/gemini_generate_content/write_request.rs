//! A request to a provider.

use super::{
    NO_SIGNATURE, OWN, is_before_3,
    write_part::{
        says_something, write_call, write_media, write_output, write_text, write_thought,
    },
    write_settings::{write_generation, write_tool_config, write_tools},
};
use crate::{
    conversation::{Extra, Message, Part, Request, Role, Signature, ToolResult},
    dialect::Setting,
    json::{string::JsonStr, write::Writer},
};

/// Writes a request. The model and whether to stream stand in its path.
pub(in crate::dialect) fn write_request(
    request: &Request<'_>,
    setting: &Setting<'_>,
    w: &mut Writer<'_>,
) {
    w.object(|w| {
        let instructs = |message: &&Message<'_>| is_instruction(message.role);
        let (instructions, messages): (Vec<_>, Vec<_>) =
            request.messages.iter().partition(instructs);
        // Contents must not be empty: instructions alone are what the user says.
        let (instructions, messages) = match messages.is_empty() {
            true => (Vec::new(), instructions),
            false => (instructions, messages),
        };
        write_instructions(&instructions, w);
        w.key("contents").array(|w| {
            for (role, group) in groups(&messages) {
                write_content(role, &group, setting, w);
            }
        });
        write_tools(request, w);
        write_tool_config(request, w);
        write_generation(request, setting, w);
        write_tier(request.service_tier.as_ref(), w);
        for extra in own_extras(request) {
            // Those inside of other members are written with these.
            if !extra.name.as_spelt().contains('.') {
                w.key_str(&extra.name).raw(&extra.json);
            }
        }
    });
}

/// The members that only Gemini knows.
pub(super) fn own_extras<'r, 'a>(request: &'r Request<'a>) -> impl Iterator<Item = &'r Extra<'a>> {
    request.extras.iter().filter(|extra| extra.protocol == OWN)
}

fn is_instruction(role: Role) -> bool {
    matches!(role, Role::System | Role::Developer)
}

fn write_instructions(messages: &[&Message<'_>], w: &mut Writer<'_>) {
    let texts = messages.iter().flat_map(|message| &message.parts);
    let mut texts = texts.filter_map(|part| match part {
        Part::Text(text) if !text.text.is_empty() => Some(&text.text),
        _ => None,
    });
    let Some(first) = texts.next() else {
        return;
    };
    w.key("systemInstruction").object(|w| {
        w.key("parts").array(|w| {
            write_text(first, w);
            texts.for_each(|text| write_text(text, w));
        });
    });
}

/// Messages that are one content: the API wants calls behind a turn of the user's, and what tools
/// answered behind the calls, so that the same side does not speak twice in turn.
fn groups<'m, 'a>(messages: &[&'m Message<'a>]) -> Vec<(&'static str, Vec<&'m Message<'a>>)> {
    let mut groups: Vec<(&'static str, Vec<&'m Message<'a>>)> = Vec::new();
    for message in messages {
        if !message.parts.iter().any(says_something) {
            continue;
        }
        let role = match message.role {
            Role::Assistant => "model",
            Role::User | Role::Tool | Role::System | Role::Developer => "user",
        };
        match groups.last_mut() {
            Some((last, group)) if *last == role => group.push(message),
            _ => groups.push((role, vec![message])),
        }
    }
    groups
}

fn write_content(role: &str, messages: &[&Message<'_>], setting: &Setting<'_>, w: &mut Writer<'_>) {
    w.object(|w| {
        w.key("role").text(role);
        w.key("parts").array(|w| {
            let mut is_first_call = true;
            let parts = messages.iter().flat_map(|message| &message.parts);
            for part in parts.clone().filter(|part| says_something(part)) {
                write_part(part, &mut is_first_call, setting, w);
            }
            // Models before Gemini 3 take no media inside of what a tool answered.
            if is_before_3(setting.model) {
                parts.for_each(|part| write_result_media(part, w));
            }
        });
    });
}

fn write_part(
    part: &Part<'_>,
    is_first_call: &mut bool,
    setting: &Setting<'_>,
    w: &mut Writer<'_>,
) {
    match part {
        Part::Text(text) => write_text(&text.text, w),
        Part::Refusal(text) => write_text(text, w),
        Part::Media(media) => write_media(media, w),
        Part::Reasoning(reasoning) => {
            let signature = own_signature(reasoning.signature.as_ref());
            write_thought(&reasoning.text, reasoning.is_hidden, signature, w);
        }
        Part::ToolCall(call) => {
            let none = JsonStr::new(NO_SIGNATURE);
            let needed = std::mem::take(is_first_call) && !is_before_3(setting.model);
            let own = own_signature(call.signature.as_ref());
            write_call(call, own.or_else(|| needed.then_some(&none)), w);
        }
        Part::ToolResult(result) => write_result(result, setting, w),
        Part::Opaque(opaque) => w.raw(&opaque.json),
    }
}

/// What this provider made itself: it refuses what others made.
fn own_signature<'s, 'a>(signature: Option<&'s Signature<'a>>) -> Option<&'s JsonStr<'a>> {
    let own = signature.filter(|signature| signature.origin == OWN)?;
    Some(&own.data)
}

fn write_result(result: &ToolResult<'_>, setting: &Setting<'_>, w: &mut Writer<'_>) {
    w.object(|w| {
        w.key("functionResponse").object(|w| {
            if !result.call_id.is_empty() {
                w.key("id").str(&result.call_id);
            }
            // A result must name its tool, even if no call of that id is known.
            w.key("name")
                .str(result.name.as_ref().unwrap_or(&result.call_id));
            let texts = result.parts.iter().filter_map(|part| match part {
                Part::Text(text) => Some(&text.text),
                Part::Refusal(text) => Some(text),
                _ => None,
            });
            let mut texts = texts.peekable();
            w.key("response");
            match texts.peek() {
                None if !result.is_error => w.object(|_| {}),
                _ => write_output(&JsonStr::concat(texts, "\\n"), result.is_error, w),
            }
            let is_outside = is_before_3(setting.model);
            if !is_outside && result.parts.iter().any(is_media) {
                w.key("parts").array(|w| {
                    for part in &result.parts {
                        if let Part::Media(media) = part {
                            write_media(media, w);
                        }
                    }
                });
            }
        });
    });
}

fn is_media(part: &Part<'_>) -> bool {
    matches!(part, Part::Media(_))
}

/// What a tool answered other than in words, beside its answer.
fn write_result_media(part: &Part<'_>, w: &mut Writer<'_>) {
    let Part::ToolResult(result) = part else {
        return;
    };
    for part in &result.parts {
        if let Part::Media(media) = part {
            write_media(media, w);
        }
    }
}

/// The tier, unless it is the one that there is anyhow: Vertex AI knows no other.
fn write_tier(tier: Option<&JsonStr<'_>>, w: &mut Writer<'_>) {
    let Some(tier) = tier.filter(|tier| !tier.is("auto") && !tier.is("default")) else {
        return;
    };
    w.key("serviceTier").str(tier);
}
