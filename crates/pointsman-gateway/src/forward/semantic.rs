//! Where meaning comes into a request: before its first attempt, and in what is told about it.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{exchange::Exchange, plugins::ai_proxy::AiCall, semantic::Ranked};

/// Ranks the instances for what the user asks, if that is how one is picked.
pub(super) async fn rank(exchange: &mut Exchange) {
    let Some(call) = &exchange.ai else { return };
    let Some(semantic) = call.target.semantic.clone() else {
        return;
    };
    let text = pointsman_ai::last_user_text(call.protocol, &call.body, PROMPT_BYTES_MAX);
    let gateway = std::rc::Rc::clone(exchange.gateway());
    let ranked = semantic.rank(text, gateway.upstreams()).await;
    if let Some(call) = &mut exchange.ai {
        call.ranked = Some(Box::new(ranked));
    }
}

/// `X-AI-Semantic-*`, with `debugging`. Of the instance that was asked last, since a retry may have
/// left the first one behind.
pub(super) fn show(exchange: &Exchange, headers: &mut HeaderMap) {
    let Some(call) = &exchange.ai else { return };
    let shows = |call: &AiCall| (call.target.semantic.as_ref()).is_some_and(|s| s.debugging);
    let Some(ranked) = call.ranked.as_ref().filter(|_| shows(call)) else {
        return;
    };
    let Some(scores) = scores(call, ranked) else {
        return;
    };
    let mut set = |name: HeaderName, value: &str| {
        // A name may have characters that no header can hold.
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            headers.insert(name, value);
        }
    };
    set(SCORES, &scores);
    if let Some(picked) = picked(call, ranked, exchange.llm.instance.as_deref()) {
        set(PICKED, picked);
    }
}

/// `name:score` of every instance, the highest first; `None` if there are no scores.
pub(crate) fn scores(call: &AiCall, ranked: &Ranked) -> Option<String> {
    let scores = ranked.scores.as_ref().ok()?;
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let shown = order.into_iter().map(|member| {
        // Not `-0.0000`.
        let score = (scores[member] * 1e4).round() / 1e4 + 0.0;
        format!("{}:{score:.4}", call.target.pool.name(member))
    });
    Some(shown.collect::<Vec<_>>().join(","))
}

/// The name of `instance` if it reaches its threshold, else `fallback`.
pub(crate) fn picked<'a>(
    call: &AiCall,
    ranked: &Ranked,
    instance: Option<&'a str>,
) -> Option<&'a str> {
    let instance = instance?;
    let member = call.target.pool.member_by_name(instance)?;
    let cleared = &ranked.ranking.order[..ranked.ranking.cleared];
    Some(if cleared.contains(&member) {
        instance
    } else {
        "fallback"
    })
}

const SCORES: HeaderName = HeaderName::from_static("x-ai-semantic-scores");
const PICKED: HeaderName = HeaderName::from_static("x-ai-semantic-picked-instance");

/// The most bytes of a prompt that are compared (APISIX).
const PROMPT_BYTES_MAX: usize = 16_384;
