//! Writing answers.

use super::{
    OWN, error,
    items::{self, OF_CALL, write_citation, write_reasoning},
    read_response::{FILTERED, MAX_TOKENS},
};
use crate::{
    Usage,
    conversation::{Choice, ErrorMessage, Part, Reasoning, Response, Signature, Stop, Text},
    dialect::Setting,
    json::{self, string::JsonStr, write::Writer},
};

pub(in crate::dialect) fn write_response(
    response: &Response<'_>,
    setting: &Setting<'_>,
    w: &mut Writer<'_>,
) {
    let nothing = Choice::default();
    // There is one answer to a request.
    let choice = response.choices.first().unwrap_or(&nothing);
    let mut head = Head::new(setting);
    let id = response.id.clone().unwrap_or_default();
    let model = response.model.clone().unwrap_or_default();
    head.learn(&id, &model, response.created);
    let has_refusal = choice
        .parts
        .iter()
        .any(|part| matches!(part, Part::Refusal(_)));
    let state = State {
        reason: reason(&choice.stop, has_refusal),
        usage: response.usage,
        service_tier: response.service_tier.as_ref(),
        ..State::completed()
    };
    head.write(w, &state, |w| {
        write_output(choice, &head, state.reason.is_some(), w)
    });
}

/// What stays the same in every picture of a response.
#[derive(Debug)]
pub(super) struct Head {
    id: JsonStr<'static>,
    model: JsonStr<'static>,
    created: u64,
    seed: String,
}

/// How far a response is.
#[derive(Debug)]
pub(super) struct State<'s> {
    pub(super) status: &'static str,
    /// Why it is incomplete.
    pub(super) reason: Option<JsonStr<'s>>,
    pub(super) error: Option<&'s ErrorMessage<'s>>,
    pub(super) usage: Option<Usage>,
    pub(super) service_tier: Option<&'s JsonStr<'s>>,
}

impl State<'_> {
    pub(super) fn completed() -> Self {
        Self {
            status: "completed",
            reason: None,
            error: None,
            usage: None,
            service_tier: None,
        }
    }
}

impl Head {
    /// With what `setting` says for what is not known of the answer.
    pub(super) fn new(setting: &Setting<'_>) -> Self {
        Self {
            id: JsonStr::from(format!("resp_{}", setting.seed)),
            model: JsonStr::from(setting.model.to_owned()),
            created: setting.now,
            seed: setting.seed.to_owned(),
        }
    }

    /// Takes over what is known. Ids of other protocols stay recognisable.
    pub(super) fn learn(&mut self, id: &JsonStr<'_>, model: &JsonStr<'_>, created: Option<u64>) {
        if id.as_spelt().starts_with("resp_") {
            self.id = id.clone().into_owned();
        } else if !id.is_empty() {
            self.id = JsonStr::spelt_owned(format!("resp_{}", id.as_spelt()));
        }
        if !model.is_empty() {
            self.model = model.clone().into_owned();
        }
        self.created = created.unwrap_or(self.created);
    }

    /// The id of the item at `index`.
    pub(super) fn item_id(&self, kind: &str, index: usize) -> String {
        format!("{kind}_{}_{index}", self.seed)
    }

    /// Writes the response. What it would repeat of the request is as if that had said nothing.
    pub(super) fn write(
        &self,
        w: &mut Writer<'_>,
        state: &State<'_>,
        output: impl FnOnce(&mut Writer<'_>),
    ) {
        w.object(|w| {
            w.key("id").str(&self.id);
            w.key("object").text("response");
            w.key("created_at").u64(self.created);
            self.write_state(w, state);
            w.key("instructions").null();
            w.key("max_output_tokens").null();
            w.key("metadata").object(|_| {});
            w.key("model").str(&self.model);
            w.key("output").array(output);
            w.key("parallel_tool_calls").bool(true);
            w.key("previous_response_id").null();
            w.key("reasoning").object(|w| {
                w.key("effort").null();
                w.key("summary").null();
            });
            error::optional(w, "service_tier", state.service_tier);
            w.key("store").bool(false);
            w.key("temperature").null();
            w.key("text").object(|w| {
                w.key("format").object(|w| w.key("type").text("text"));
            });
            w.key("tool_choice").text("auto");
            w.key("tools").array(|_| {});
            w.key("top_p").null();
            w.key("truncation").text("disabled");
            match state.usage {
                Some(usage) => write_usage(usage, w.key("usage")),
                None => w.key("usage").null(),
            }
            w.key("user").null();
        });
    }

    fn write_state(&self, w: &mut Writer<'_>, state: &State<'_>) {
        w.key("status").text(match state.reason {
            Some(_) => "incomplete",
            None => state.status,
        });
        w.key("background").bool(false);
        match state.error {
            Some(error) => w.key("error").object(|w| {
                w.key("code").str(&error::code_of(error));
                w.key("message").str(&error.message);
            }),
            None => w.key("error").null(),
        }
        match &state.reason {
            Some(reason) => w
                .key("incomplete_details")
                .object(|w| w.key("reason").str(reason)),
            None => w.key("incomplete_details").null(),
        }
    }
}

/// Why an answer that stopped like that is incomplete, if it is.
pub(super) fn reason<'a>(stop: &Stop<'a>, has_refusal: bool) -> Option<JsonStr<'a>> {
    match stop {
        Stop::End | Stop::Sequence(_) | Stop::ToolCalls | Stop::Pause => None,
        Stop::Length => Some(JsonStr::new(MAX_TOKENS)),
        Stop::ContentFilter => Some(JsonStr::new(FILTERED)),
        // A refusal in words is complete.
        Stop::Refusal if has_refusal => None,
        Stop::Refusal => Some(JsonStr::new(FILTERED)),
        Stop::Other(word) => Some(word.clone()),
    }
}

fn write_usage(usage: Usage, w: &mut Writer<'_>) {
    // What was written to the provider's cache is part of the input here.
    let input = usage.prompt.saturating_add(usage.cache_creation);
    w.object(|w| {
        w.key("input_tokens").u64(input);
        w.key("input_tokens_details").object(|w| {
            w.key("cached_tokens").u64(usage.cache_read);
            w.key("cache_write_tokens").u64(usage.cache_creation);
        });
        w.key("output_tokens").u64(usage.completion);
        w.key("output_tokens_details")
            .object(|w| w.key("reasoning_tokens").u64(usage.reasoning));
        let total = match usage.total {
            0 => input.saturating_add(usage.completion),
            total => total,
        };
        w.key("total_tokens").u64(total);
    });
}

/// Writes the items. Texts that follow each other are one message.
fn write_output(choice: &Choice<'_>, head: &Head, is_incomplete: bool, w: &mut Writer<'_>) {
    let mut logprobs = choice.logprobs.as_deref();
    let mut index = 0;
    let mut rest = choice.parts.as_slice();
    while let Some((part, behind)) = rest.split_first() {
        let words = rest
            .iter()
            .take_while(|part| matches!(part, Part::Text(_) | Part::Refusal(_)))
            .count();
        if words > 0 {
            let (said, behind) = rest.split_at(words);
            let status = match is_incomplete && behind.is_empty() {
                true => "incomplete",
                false => "completed",
            };
            let id = head.item_id("msg", index);
            write_message(w, &id, status, |w| {
                for part in said {
                    write_said(part, &mut logprobs, w);
                }
            });
            index += 1;
            rest = behind;
            continue;
        }
        index += write_item(part, head, index, w);
        rest = behind;
    }
}

/// Writes what is no message, and says how many items it became.
fn write_item(part: &Part<'_>, head: &Head, index: usize, w: &mut Writer<'_>) -> usize {
    match part {
        Part::Reasoning(Reasoning {
            text,
            signature,
            id,
            ..
        }) => {
            let made = || JsonStr::from(head.item_id("rs", index));
            let id = id.clone().unwrap_or_else(made);
            let encrypted = signature.as_ref().map(|signature| signature.spelt(OWN));
            write_reasoning(w, Some(&id), text, encrypted.as_ref());
            1
        }
        Part::ToolCall(call) => {
            let id = head.item_id("fc", index);
            let named = (&call.id, &call.name);
            let arguments = call.arguments.as_text();
            items::write_call(w, Some(&id), Some("completed"), named, &arguments);
            let Some(signature) = &call.signature else {
                return 1;
            };
            let id = JsonStr::from(head.item_id("rs", index + 1));
            let encrypted = signature_of_call(signature);
            write_reasoning(w, Some(&id), &JsonStr::default(), Some(&encrypted));
            2
        }
        Part::Opaque(opaque) if opaque.protocol == OWN => {
            w.raw(&opaque.json);
            1
        }
        _ => 0,
    }
}

/// The encrypted content of the item behind a call that is signed.
pub(super) fn signature_of_call(signature: &Signature<'_>) -> JsonStr<'static> {
    JsonStr::spelt_owned(format!("{OF_CALL}{}", signature.spelt(OWN).as_spelt()))
}

/// Writes a message of the model.
pub(super) fn write_message(
    w: &mut Writer<'_>,
    id: &str,
    status: &'static str,
    content: impl FnOnce(&mut Writer<'_>),
) {
    w.object(|w| {
        w.key("id").text(id);
        w.key("type").text("message");
        w.key("status").text(status);
        w.key("content").array(content);
        w.key("role").text("assistant");
    });
}

/// Writes a part of a message. The first text gets the probabilities.
fn write_said(part: &Part<'_>, logprobs: &mut Option<&str>, w: &mut Writer<'_>) {
    match part {
        Part::Text(Text {
            text, citations, ..
        }) => {
            let annotations = |w: &mut Writer<'_>| {
                for citation in citations {
                    write_citation(citation, w);
                }
            };
            let tokens = logprobs.take().and_then(tokens_of_chat).unwrap_or("[]");
            write_output_text(w, text.as_spelt(), annotations, tokens);
        }
        Part::Refusal(text) => write_refusal(w, text.as_spelt()),
        _ => {}
    }
}

/// The list in OpenAI Chat's form of probabilities.
pub(super) fn tokens_of_chat(logprobs: &str) -> Option<&str> {
    let list = json::value_at(logprobs.as_bytes(), ["content"])?;
    let text = std::str::from_utf8(list).ok()?;
    text.starts_with('[').then_some(text)
}

/// Writes a text: as it is spelt, and with a list of `logprobs`.
pub(super) fn write_output_text(
    w: &mut Writer<'_>,
    spelt: &str,
    annotations: impl FnOnce(&mut Writer<'_>),
    logprobs: &str,
) {
    w.object(|w| {
        w.key("type").text("output_text");
        w.key("annotations").array(annotations);
        w.key("logprobs").raw(logprobs);
        w.key("text").str(&JsonStr::spelt(spelt));
    });
}

/// Writes a refusal, as it is spelt.
pub(super) fn write_refusal(w: &mut Writer<'_>, spelt: &str) {
    w.object(|w| {
        w.key("type").text("refusal");
        w.key("refusal").str(&JsonStr::spelt(spelt));
    });
}
