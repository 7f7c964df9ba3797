//! Reading answers.

use super::{Counts, read_parts::read_block};
use crate::{
    conversation::{Choice, Malformed, Part, Response, Stop},
    dialect::Setting,
    json::{string::JsonStr, tree::Node},
};

/// Reads a provider's answer.
pub(in crate::dialect) fn read_response<'a>(
    root: Node<'_, 'a>,
    _setting: &Setting<'_>,
) -> Result<Response<'a>, Malformed> {
    let content = root
        .get("content")
        .filter(|content| content.is_array())
        .ok_or_else(|| Malformed::at(root, "content: a list of blocks is missing"))?;
    let mut parts = Vec::new();
    for block in content.items() {
        parts.extend(read_block(block)?);
    }
    let usage = root.get("usage");
    Ok(Response {
        id: root.get_str("id"),
        model: root.get_str("model"),
        created: None,
        choices: vec![Choice {
            stop: read_stop(
                root,
                parts.iter().any(|part| matches!(part, Part::ToolCall(_))),
            ),
            parts,
            logprobs: None,
        }],
        usage: usage.map(|usage| {
            let mut counts = Counts::default();
            counts.update(usage);
            counts.usage()
        }),
        service_tier: usage.and_then(read_tier),
    })
}

/// The tier that served an answer, from its `usage`, in OpenAI's words.
pub(super) fn read_tier<'a>(usage: Node<'_, 'a>) -> Option<JsonStr<'a>> {
    let tier = usage.get_str("service_tier")?;
    Some(match tier.is("standard") {
        true => JsonStr::new("default"),
        false => tier,
    })
}

/// Why an answer ended, from the object that has `stop_reason` and `stop_sequence`.
pub(super) fn read_stop<'a>(node: Node<'_, 'a>, has_calls: bool) -> Stop<'a> {
    let reason = node.get_str("stop_reason").unwrap_or_default();
    match &*reason.decode() {
        "tool_use" => Stop::ToolCalls,
        "end_turn" | "" if has_calls => Stop::ToolCalls,
        "end_turn" | "" => Stop::End,
        "max_tokens" | "model_context_window_exceeded" => Stop::Length,
        "stop_sequence" => Stop::Sequence(node.get_str("stop_sequence")),
        "pause_turn" => Stop::Pause,
        "refusal" => Stop::Refusal,
        _ => Stop::Other(reason.clone()),
    }
}
