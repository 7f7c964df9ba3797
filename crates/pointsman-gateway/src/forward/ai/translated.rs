//! Requests and answers of instances that do not speak the client's protocol.

use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use pointsman_ai::{Binding, Outside, Protocol, RequestBody, Translation};

use crate::{
    body::Body,
    exchange::Exchange,
    failure::Failure,
    plugins::ai_proxy::{AiInstance, Translated},
};

/// The client's request in the protocol of `instance`; `None` if that is the client's own.
pub(super) fn translate(
    exchange: &Exchange,
    instance: &AiInstance,
    client: Protocol,
    binding: &Binding,
    strict: bool,
) -> Result<Option<Box<Translated>>, Failure> {
    let target = binding.target;
    if client == target {
        return Ok(None);
    }
    let Some(call) = exchange.ai.as_ref() else {
        return Err(Failure::Internal("the LLM request is gone".to_owned()));
    };
    let path = exchange.inbound_path();
    let in_path = pointsman_ai::model_in_path(client, &path);
    let outside = Outside {
        model: instance.model.as_deref().or(in_path),
        version: instance.api_version(),
        stream: call.streaming,
        now: exchange.started_unix_ms / 1000,
        seed: exchange.generated_id(),
    };
    let translated = Translation::request(
        call.body.bytes(),
        client,
        target,
        instance.provider,
        outside,
    )
    .map_err(|malformed| Failure::Untranslatable(malformed.to_string()))?;
    if strict && !translated.lost.is_empty() {
        return Err(Failure::Untranslatable(format!(
            "{} cannot say: {} (strict_translation is on)",
            target.as_str(),
            translated.lost.join(", ")
        )));
    }
    let body = RequestBody::parse(translated.body.into())
        .map_err(|error| Failure::Internal(format!("the translated request: {error}")))?;
    Ok(Some(Box::new(Translated {
        translation: translated.translation,
        body,
        lost: translated.lost,
        lost_of_answer: Vec::new(),
    })))
}

/// The whole answer `body` in the client's protocol, if it is not in that already. Notes what of it gets
/// lost.
pub(super) fn whole_answer(
    exchange: &mut Exchange,
    body: &[u8],
) -> Result<Option<Vec<u8>>, Failure> {
    let call = exchange.ai.as_mut();
    let Some(translated) = call.and_then(|call| call.translated.as_deref_mut()) else {
        return Ok(None);
    };
    match translated.translation.response(body) {
        Ok((body, lost)) => {
            translated.lost_of_answer = lost;
            Ok(Some(body))
        }
        Err(malformed) => Err(Failure::BadAnswer(malformed.to_string())),
    }
}

/// Puts an error of the instance into the client's protocol, if it is not in that already, and
/// says what of the request got lost, and of a whole answer.
pub(super) fn finish(exchange: &Exchange, response: &mut Response<Body>) {
    let Some(translated) = translated(exchange) else {
        return;
    };
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    if is_error {
        let told = response.body().first_piece().cloned().unwrap_or_default();
        let words = translated.translation.error(status.as_u16(), &told);
        *response.body_mut() = Body::whole(words);
        say_json(response);
    }
    if let Some(lost) = header_of(translated.all_lost()) {
        response.headers_mut().insert(LOSSY, lost);
    }
}

/// The body is JSON of the client's protocol now.
pub(super) fn say_json(response: &mut Response<Body>) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, JSON);
    headers.remove(header::CONTENT_ENCODING);
}

/// The body is a stream of the client's protocol now.
pub(super) fn say_stream(client: Protocol, as_array: bool, response: &mut Response<Body>) {
    let kind = match client {
        _ if as_array => "application/json",
        Protocol::BedrockConverse => "application/vnd.amazon.eventstream",
        _ => "text/event-stream",
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.remove(header::CONTENT_ENCODING);
    *response.status_mut() = StatusCode::OK;
}

fn translated(exchange: &Exchange) -> Option<&Translated> {
    exchange.ai.as_ref()?.translated.as_deref()
}

/// What got lost, as a header has it. Clients name their own members, so only what may stand in a
/// header does.
fn header_of<'l>(lost: impl Iterator<Item = &'l str>) -> Option<HeaderValue> {
    let mut names = String::new();
    for name in lost {
        if names.len() + name.len() > LOSSY_BYTES_MAX {
            names.push_str(",...");
            break;
        }
        if !names.is_empty() {
            names.push(',');
        }
        names.extend(name.chars().map(|c| match c {
            ',' => '_',
            c if c.is_ascii_graphic() => c,
            _ => '_',
        }));
    }
    if names.is_empty() {
        return None;
    }
    HeaderValue::from_str(&names).ok()
}

const LOSSY: HeaderName = HeaderName::from_static("x-pointsman-lossy");
const LOSSY_BYTES_MAX: usize = 2_048;
const JSON: HeaderValue = HeaderValue::from_static("application/json");
