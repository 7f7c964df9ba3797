//! Probabilities of tokens: a `logprobsResult`, and what OpenAI Chat has for it.

use super::{field, fields, text_field};
use crate::{
    dialect::parse,
    json::{tree::Node, write::Writer},
};

/// A `logprobsResult` as OpenAI Chat has it; `None` if no token was chosen in it.
pub(super) fn read_logprobs(node: Node<'_, '_>) -> Option<String> {
    let names = ["chosenCandidates", "topCandidates"];
    let [chosen, top] = fields(node, names, |_, _| {});
    let chosen = chosen.filter(|chosen| !chosen.is_empty())?;
    let mut tops = top.into_iter().flat_map(Node::items);
    let mut out = Vec::with_capacity(node.raw().len());
    Writer::new(&mut out).object(|w| {
        w.key("content").array(|w| {
            for token in chosen.items() {
                let others = tops.next().and_then(|top| field(top, "candidates"));
                w.object(|w| {
                    read_token(token, w);
                    w.key("top_logprobs").array(|w| {
                        for other in others.into_iter().flat_map(Node::items) {
                            w.object(|w| read_token(other, w));
                        }
                    });
                });
            }
        });
    });
    String::from_utf8(out).ok()
}

fn read_token(node: Node<'_, '_>, w: &mut Writer<'_>) {
    let number = field(node, "logProbability").and_then(Node::number);
    w.key("token")
        .str(&text_field(node, "token").unwrap_or_default());
    // 0 is left out in proto3 JSON.
    w.key("logprob").raw(number.unwrap_or("0"));
    w.key("bytes").null();
}

/// The `logprobsResult` that says what `json` says in OpenAI Chat's way.
pub(super) fn write_logprobs(json: &str, w: &mut Writer<'_>) {
    let tree = parse(json.as_bytes()).ok();
    let content = tree.as_ref().and_then(|tree| tree.root().get("content"));
    let tokens = || content.into_iter().flat_map(Node::items);
    w.object(|w| {
        w.key("topCandidates").array(|w| {
            for token in tokens() {
                let others = token.get("top_logprobs");
                w.object(|w| {
                    w.key("candidates").array(|w| {
                        let others = others.into_iter().flat_map(Node::items);
                        others.for_each(|other| write_token(other, w));
                    });
                });
            }
        });
        w.key("chosenCandidates")
            .array(|w| tokens().for_each(|token| write_token(token, w)));
    });
}

fn write_token(node: Node<'_, '_>, w: &mut Writer<'_>) {
    let number = node.get("logprob").and_then(Node::number);
    w.object(|w| {
        w.key("token")
            .str(&node.get_str("token").unwrap_or_default());
        w.key("logProbability").raw(number.unwrap_or("0"));
    });
}
