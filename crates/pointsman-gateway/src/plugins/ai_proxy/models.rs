//! `GET /v1/models`: the models that the configuration names.
//!
//! Nobody is asked: what is listed is what `options.model` of the instances says, each once. An
//! instance without one takes whatever model its client names, so it adds nothing.

use std::collections::HashSet;

use http::{Method, StatusCode};
use pointsman_ai::Protocol;
use serde_json::{Value, json};

use super::{AiInstance, AiTarget};
use crate::{exchange::Exchange, plugin::Reply};

/// The answer, if `exchange` asks for models and the plugin is to tell.
pub(super) fn answer(target: &AiTarget, exchange: &Exchange) -> Option<Reply> {
    if !target.by_path || exchange.request.method != Method::GET {
        return None;
    }
    let path = exchange.inbound_path();
    let (_, id) = path.split_once("/v1/models")?;
    let headers = &exchange.request.headers;
    let shape = match headers.contains_key("anthropic-version") {
        true => Shape::Anthropic,
        false => Shape::Openai,
    };
    match id.strip_prefix('/') {
        None if id.is_empty() => Some(shape.list(target)),
        Some("") => Some(shape.list(target)),
        Some(id) => Some(shape.one(target, id)),
        // `/v1/modelsx` is something else.
        None => None,
    }
}

/// Whose clients the answer is for.
#[derive(Clone, Copy)]
enum Shape {
    Openai,
    Anthropic,
}

impl Shape {
    fn list(self, target: &AiTarget) -> Reply {
        let models = models(target).map(|(id, instance)| self.model(id, instance));
        let models: Vec<Value> = models.collect();
        let id_of = |model: Option<&Value>| model.map(|model| model["id"].clone());
        let list = match self {
            Self::Openai => json!({"object": "list", "data": models}),
            Self::Anthropic => json!({
                "first_id": id_of(models.first()),
                "last_id": id_of(models.last()),
                "has_more": false,
                "data": models,
            }),
        };
        Reply::json(StatusCode::OK, list)
    }

    fn one(self, target: &AiTarget, id: &str) -> Reply {
        match models(target).find(|(model, _)| *model == id) {
            Some((id, instance)) => Reply::json(StatusCode::OK, self.model(id, instance)),
            None => {
                let protocol = match self {
                    Self::Openai => Protocol::OpenaiChat,
                    Self::Anthropic => Protocol::AnthropicMessages,
                };
                let text = format!("model '{id}' is not configured: GET /v1/models lists those");
                let body = pointsman_ai::error_body(Some(protocol), 404, &text);
                let body = serde_json::from_slice(&body).unwrap_or_default();
                Reply::json(StatusCode::NOT_FOUND, body)
            }
        }
    }

    /// When a model was made is not known here; both shapes must have a time.
    fn model(self, id: &str, instance: &AiInstance) -> Value {
        match self {
            Self::Openai => json!({
                "id": id, "object": "model", "created": 0, "owned_by": instance.provider.as_str()
            }),
            Self::Anthropic => json!({
                "id": id, "type": "model", "display_name": id, "created_at": "1970-01-01T00:00:00Z"
            }),
        }
    }
}

/// The models that instances name, in their order, each once.
fn models(target: &AiTarget) -> impl Iterator<Item = (&str, &AiInstance)> {
    let named = target.instances.iter();
    let named = named.filter_map(|instance| Some((instance.model.as_deref()?, instance)));
    let mut seen = HashSet::new();
    named.filter(move |(model, _)| seen.insert(*model))
}
