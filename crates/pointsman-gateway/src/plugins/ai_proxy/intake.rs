//! The access phase of an AI plugin: what kind of request this is, and whether it is one at all.

use std::sync::Arc;

use http::{
    Method, StatusCode,
    header::{CONNECTION, CONTENT_TYPE},
};
use pointsman_ai::{BodyError, DirectApi, Protocol, Replaced, RequestBody, multipart};
use serde_json::{Value, json};

use super::{AiCall, AiProxy, RelayLimits, models};
use crate::{
    body::CollectError,
    exchange::Exchange,
    forward::http::is_websocket,
    plugin::{Flow, Reply},
};

impl AiProxy {
    /// Reads the request and claims the exchange for this plugin's instances.
    pub(super) async fn claim(&self, exchange: &mut Exchange) -> Flow {
        if exchange.ai.is_some() {
            // `ai-proxy-multi` has run; two destinations for one request cannot both be right.
            return Flow::Continue;
        }
        if let Some(reply) = models::answer(&self.target, exchange) {
            return Flow::Respond(reply);
        }
        let api = self.api_of(exchange);
        if api == Some(DirectApi::Realtime) && asks_for_session(exchange) {
            let query = exchange.request.query.as_deref().unwrap_or_default();
            exchange.llm.request_model = model_in_query(query);
            let call = self.call(
                exchange,
                Protocol::Direct(DirectApi::Realtime),
                true,
                RequestBody::none(),
            );
            exchange.ai = Some(Box::new(call));
            return Flow::Continue;
        }
        let boundary = api.and_then(|api| form_boundary(exchange, api));
        if boundary.is_none()
            && let Some(reply) = refuse_content_type(exchange)
        {
            return Flow::Respond(reply);
        }
        let limit = self.target.limits.request_bytes;
        let bytes = match exchange.read_body(limit).await {
            Ok(bytes) => bytes,
            Err(CollectError::TooLarge(size)) => return Flow::Respond(too_large(api, size, limit)),
            Err(error) => return Flow::Fail(crate::gateway::body_failure(&error)),
        };
        let body = match &boundary {
            Some(boundary) => RequestBody::form(bytes, boundary),
            None => RequestBody::parse(bytes),
        };
        let call = body
            .map_err(|error| Box::new(refuse_body(api, &error)))
            .and_then(|body| self.read(exchange, body, api));
        match call {
            Ok(call) => {
                exchange.ai = Some(Box::new(call));
                Flow::Continue
            }
            Err(reply) => Flow::Respond(*reply),
        }
    }

    /// The API that the request's path alone says it is for, if that is listened to.
    fn api_of(&self, exchange: &Exchange) -> Option<DirectApi> {
        DirectApi::of_path(&exchange.inbound_path()).filter(|api| self.target.knows(*api))
    }

    fn read(
        &self,
        exchange: &mut Exchange,
        body: RequestBody,
        api: Option<DirectApi>,
    ) -> Result<AiCall, Box<Reply>> {
        let path = exchange.inbound_path();
        let by_path = self.target.by_path || api.is_some();
        let known = by_path.then(|| pointsman_ai::detect_by_path(&path, &body));
        let detected = known
            .flatten()
            .or_else(|| pointsman_ai::detect(&path, &body));
        let protocol = detected.ok_or_else(|| {
            let text = "no matching AI protocol for the request";
            Box::new(Reply::text(StatusCode::BAD_REQUEST, text))
        })?;
        let streaming = pointsman_ai::is_streaming(protocol, &path, &body);
        let in_path = pointsman_ai::model_in_path(protocol, &path).map(str::to_owned);
        let in_body = || body.model().map(std::borrow::Cow::into_owned);
        let request_model = in_path.or_else(in_body);
        exchange.llm.request_model = request_model;
        Ok(self.call(exchange, protocol, streaming, body))
    }

    fn call(
        &self,
        exchange: &mut Exchange,
        protocol: Protocol,
        streaming: bool,
        body: RequestBody,
    ) -> AiCall {
        exchange.llm.protocol = Some(protocol);
        exchange.llm.stream = streaming;
        AiCall {
            target: Arc::clone(&self.target),
            protocol,
            streaming,
            body,
            replaced: Replaced::default(),
            translated: None,
            meter: None,
            session: None,
            translator: None,
            relay_limits: RelayLimits::default(),
            first: None,
            ranked: None,
        }
    }
}

/// Whether a request wants to switch to WebSocket.
fn asks_for_session(exchange: &Exchange) -> bool {
    let headers = &exchange.request.headers;
    let connection = headers.get_all(CONNECTION).iter();
    let mut options = connection
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    exchange.request.method == Method::GET
        && is_websocket(headers)
        && options.any(|option| option.trim().eq_ignore_ascii_case("upgrade"))
}

/// The model that a query asks for; Azure's older clients name its deployment.
fn model_in_query(query: &str) -> Option<String> {
    let pairs = pointsman_ai::query_pairs(query);
    let mut named = ["model", "deployment"]
        .iter()
        .filter_map(|name| pairs.iter().find(|(key, _)| key == name));
    named.next().map(|(_, model)| model.clone())
}

/// The boundary of the request's body, if that is a form and `api` takes forms.
fn form_boundary(exchange: &Exchange, api: DirectApi) -> Option<String> {
    let kind = exchange.request.headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let boundary = multipart::boundary(kind).filter(|_| api.takes_forms())?;
    Some(boundary.into_owned())
}

/// Anything but JSON is refused; no content type counts as JSON.
fn refuse_content_type(exchange: &Exchange) -> Option<Reply> {
    let value = exchange.request.headers.get(CONTENT_TYPE)?;
    if value.as_bytes().starts_with(b"application/json") {
        return None;
    }
    let value = String::from_utf8_lossy(value.as_bytes());
    let text = format!("unsupported content-type: {value}, only application/json is supported");
    Some(Reply::text(StatusCode::BAD_REQUEST, text))
}

fn too_large(api: Option<DirectApi>, size: u64, limit: u64) -> Reply {
    let text = format!(
        "could not get body: request size {size} is greater than the maximum size {limit} allowed"
    );
    refusal(api, StatusCode::PAYLOAD_TOO_LARGE, &text, None)
}

fn refuse_body(api: Option<DirectApi>, error: &BodyError) -> Reply {
    let text = match error {
        BodyError::Empty => "could not get body: request body is empty".to_owned(),
        BodyError::Malformed { .. } => format!("could not parse JSON request body: {error}"),
        BodyError::Repeated(_) | BodyError::BrokenForm(_) => {
            format!("could not parse request body: {error}")
        }
        BodyError::TooManyMembers(_) => error.to_string(),
    };
    let field = match error {
        BodyError::Repeated(field) => Some(*field),
        _ => None,
    };
    refusal(api, StatusCode::BAD_REQUEST, &text, field)
}

/// Refuses a request in the words of its API, if its path says which that is; else in APISIX's.
/// `field` is what is wrong, where the API has a place to say so.
fn refusal(api: Option<DirectApi>, status: StatusCode, text: &str, field: Option<&str>) -> Reply {
    let Some(api) = api else {
        return Reply::json(status, json!({ "message": text }));
    };
    let protocol = Protocol::Direct(api);
    let body = pointsman_ai::error_body(Some(protocol), status.as_u16(), text);
    let mut body: Value = serde_json::from_slice(&body).unwrap_or_default();
    if let (Some(place), Some(field)) = (body.pointer_mut("/error/param"), field) {
        *place = field.into();
    }
    Reply::json(status, body)
}
