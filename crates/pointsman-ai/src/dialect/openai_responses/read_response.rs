//! Reading answers.

use super::{OWN, error, items};
use crate::{
    Usage,
    conversation::{Choice, Json, Malformed, Opaque, Part, Response, Stop},
    dialect::Setting,
    json::tree::Node,
    usage::Total,
};

pub(in crate::dialect) fn read_response<'a>(
    root: Node<'_, 'a>,
    _setting: &Setting<'_>,
) -> Result<Response<'a>, Malformed> {
    let Some(output) = root.get("output").filter(|output| output.is_array()) else {
        return Err(Malformed::at(root, "`output`, a list of items, is missing"));
    };
    let mut said = Said::default();
    for item in output.items() {
        said.item(item);
    }
    let stop = read_stop(root, said.has_calls(), said.has_refusal())?;
    Ok(Response {
        id: root.get_str("id"),
        model: root.get_str("model"),
        created: root.get("created_at").and_then(seconds),
        choices: vec![Choice {
            stop,
            logprobs: said.logprobs(),
            parts: said.parts,
        }],
        usage: root.get("usage").and_then(read_usage),
        service_tier: root.get_str("service_tier"),
    })
}

/// What the items of an answer say.
#[derive(Debug, Default)]
pub(super) struct Said<'a> {
    /// In order.
    pub(super) parts: Vec<Part<'a>>,
    /// Lists of tokens and their probabilities, without the brackets.
    logprobs: Vec<&'a str>,
}

impl<'a> Said<'a> {
    /// Takes an item that is complete.
    pub(super) fn item(&mut self, item: Node<'_, 'a>) {
        let kind = item.get_str("type").unwrap_or_default();
        match &*kind.decode() {
            "message" => {
                for part in item.get("content").into_iter().flat_map(Node::items) {
                    self.content(part);
                }
            }
            "function_call" => self.parts.push(Part::ToolCall(items::call(item))),
            "reasoning" => self.reasoning(item),
            _ => self
                .parts
                .push(Part::Opaque(items::opaque(kind.clone(), item))),
        }
    }

    fn content(&mut self, part: Node<'_, 'a>) {
        let kind = part.get_str("type").unwrap_or_default();
        self.parts.push(if kind.is("output_text") {
            self.logprobs.extend(part.get("logprobs").and_then(tokens));
            Part::Text(items::output_text(part))
        } else if kind.is("refusal") {
            Part::Refusal(part.get_str("refusal").unwrap_or_default())
        } else {
            let opaque: Opaque<'a> = items::opaque(kind, part);
            Part::Opaque(opaque)
        });
    }

    /// Of thoughts that are neither shown nor signed there is nothing to pass on.
    fn reasoning(&mut self, item: Node<'_, 'a>) {
        if let Some(signature) = items::signature_of_call(item) {
            let calls = self.parts.iter_mut().rev();
            let mut calls = calls.filter_map(|part| match part {
                Part::ToolCall(call) => Some(call),
                _ => None,
            });
            if let Some(call) = calls.next() {
                call.signature = Some(signature);
            }
            return;
        }
        let reasoning = items::reasoning(item);
        if !reasoning.text.is_empty() || reasoning.signature.is_some() {
            self.parts.push(Part::Reasoning(reasoning));
        }
    }

    fn has_calls(&self) -> bool {
        self.parts
            .iter()
            .any(|part| matches!(part, Part::ToolCall(_)))
    }

    fn has_refusal(&self) -> bool {
        self.parts
            .iter()
            .any(|part| matches!(part, Part::Refusal(_)))
    }

    /// Of all texts.
    pub(super) fn logprobs(&self) -> Option<Json<'a>> {
        let all = self.logprobs.join(",");
        (!all.is_empty()).then(|| as_chat_has_them(&all))
    }
}

/// What stands between the brackets of a list that is not empty.
pub(super) fn tokens<'a>(list: Node<'_, 'a>) -> Option<&'a str> {
    let is_there = list.is_array() && !list.is_empty();
    let raw = list.raw();
    is_there.then(|| &raw[1..raw.len() - 1])
}

/// Probabilities of tokens as OpenAI's Chat has them.
pub(super) fn as_chat_has_them(tokens: &str) -> Json<'static> {
    Json::Owned(format!("{{\"content\":[{tokens}]}}"))
}

/// Why a response ended. One that failed, or has not ended, is no answer.
pub(super) fn read_stop<'a>(
    response: Node<'_, 'a>,
    has_calls: bool,
    has_refusal: bool,
) -> Result<Stop<'a>, Malformed> {
    let status = response.get_str("status").unwrap_or_default();
    Ok(match &*status.decode() {
        "completed" | "" if has_calls => Stop::ToolCalls,
        "completed" | "" if has_refusal => Stop::Refusal,
        "completed" | "" => Stop::End,
        "incomplete" => {
            let details = response.get("incomplete_details");
            let reason = details.and_then(|details| details.get_str("reason"));
            match reason {
                Some(reason) if reason.is(MAX_TOKENS) => Stop::Length,
                Some(reason) if reason.is(FILTERED) => Stop::ContentFilter,
                Some(reason) => Stop::Other(reason),
                None => Stop::Other(status.clone()),
            }
        }
        "cancelled" => Stop::Other(status.clone()),
        _ => {
            let error = response.get("error").and_then(error::of_object);
            let words = error.map(|error| error.message).unwrap_or_default();
            let what = format!(
                "a response that is `{}` is no answer: {}",
                status.decode(),
                words.decode()
            );
            return Err(Malformed::at(response, what));
        }
    })
}

pub(super) const MAX_TOKENS: &str = "max_output_tokens";
pub(super) const FILTERED: &str = "content_filter";

/// Tokens. Those that were written to the provider's cache are part of the input here.
pub(super) fn read_usage(usage: Node<'_, '_>) -> Option<Usage> {
    let read = Usage::read(OWN, usage.raw().as_bytes(), Total::Summed)?;
    let details = usage.get("input_tokens_details");
    let written = details.and_then(|details| details.get("cache_write_tokens"));
    let cache_creation = written.and_then(Node::u64).unwrap_or_default();
    Some(Usage {
        prompt: read.prompt.saturating_sub(cache_creation),
        cache_creation,
        ..read
    })
}

/// A time. Some servers have fractions.
pub(super) fn seconds(time: Node<'_, '_>) -> Option<u64> {
    let whole = time.number()?.split('.').next()?;
    whole.parse().ok()
}
