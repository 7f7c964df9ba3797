//! Where a request to an instance goes, and under which headers.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use pointsman_ai::{Binding, DirectApi, PathChoice, Protocol, Provider, VectorApi};

use crate::{
    body::Body,
    clock,
    exchange::Exchange,
    failure::Failure,
    forward::{
        ai::{
            realtime::{self, REALTIME},
            signed::Signing,
            token,
        },
        http::end_to_end,
    },
    plugins::ai_proxy::{AiInstance, STREAM_ENDS, Translated, is_credential, with_query},
    upstream::destination::Destination,
};

/// The request that `instance` gets, and its path for logs.
pub(super) fn request(
    exchange: &mut Exchange,
    instance: &AiInstance,
    destination: &Destination,
    binding: &Binding,
    translated: Option<Box<Translated>>,
) -> Result<(Request<Body>, Arc<str>), Failure> {
    let Some(call) = exchange.ai.as_mut() else {
        return Err(Failure::Internal("the LLM request is gone".to_owned()));
    };
    call.translated = translated;
    let (client, streaming) = (call.protocol, call.streaming);
    let is_form = call.body.is_form();
    let shaped = instance
        .shaper
        .shape(call.outgoing(), binding.target, streaming);
    let (pieces, replaced) = shaped.into_parts();
    call.replaced = replaced;
    let (mut uri, path) = instance_target(exchange, instance, client, binding)?;
    let sent = &exchange.request;
    let mut headers = instance_headers(&sent.headers, instance, client, binding.target);
    // A form goes by its own boundary.
    let kind = sent.headers.get(header::CONTENT_TYPE);
    let kind = kind.filter(|_| is_form).cloned().unwrap_or(JSON);
    headers.insert(header::CONTENT_TYPE, kind);
    if client == REALTIME {
        realtime::ask_for_switch(&mut headers);
    }
    let method = match client {
        Protocol::Passthrough | REALTIME => sent.method.clone(),
        _ => Method::POST,
    };
    headers.insert(header::HOST, destination.authority.clone());
    if let Some(token) = token::of(instance)? {
        headers.insert(header::AUTHORIZATION, token);
    }
    if let (Some(keys), Some(region)) = (&instance.aws, &instance.region) {
        let signing = Signing {
            keys,
            region,
            host: &destination.host,
            now: clock::unix_millis() / 1000,
        };
        signing.sign(&method, &mut uri, &mut headers, &pieces)?;
    }
    let mut request = Request::new(match client {
        REALTIME => Body::Empty,
        _ => Body::pieces(pieces),
    });
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok((request, path))
}

/// The request target for `instance`, and its path for logs.
fn instance_target(
    exchange: &Exchange,
    instance: &AiInstance,
    client: Protocol,
    binding: &Binding,
) -> Result<(Uri, Arc<str>), Failure> {
    if let Some(fixed) = instance.fixed_target(binding.target) {
        return Ok((fixed.uri.clone(), Arc::clone(&fixed.path)));
    }
    let path = path_of(exchange, instance, client, binding)?;
    let query = match client {
        Protocol::Passthrough => instance.query(exchange.request.query.as_deref()),
        REALTIME => realtime::query(exchange, instance, &path),
        _ => instance.query(None),
    };
    let full = with_query(&path, &query);
    let length = full.len();
    let uri = Uri::try_from(full).map_err(|error| match length {
        // Encoded anew, a query may be three times as long as it was.
        TARGET_TOO_LONG.. => Failure::TargetTooLong,
        // What the client sent has been read before, so it is what was made of it here.
        _ => Failure::Internal(format!(
            "instance {}: the request target is not valid: {error}",
            instance.name
        )),
    })?;
    let path = uri.path().into();
    Ok((uri, path))
}

/// The path, and its query if it has one of its own.
fn path_of(
    exchange: &Exchange,
    instance: &AiInstance,
    client: Protocol,
    binding: &Binding,
) -> Result<String, Failure> {
    let streaming = exchange.llm.stream;
    // A client of Gemini's that wants its stream as a JSON array gets that from Gemini.
    let array = client == binding.target
        && client == Protocol::GeminiGenerateContent
        && !wants_sse(exchange.request.query.as_deref());
    match (&instance.path, binding.path) {
        (Some(path), PathChoice::Direct(api, ..)) => Ok(api.beside(path).into_owned()),
        (Some(path), _) => Ok(ended_for(path, streaming, array)),
        (None, PathChoice::Inbound) => {
            Ok(crate::router::path::encode(&exchange.inbound_path()).into_owned())
        }
        (None, PathChoice::Direct(_, stem, end)) => {
            filled(exchange, instance, &format!("{stem}{end}"), false)
        }
        (None, PathChoice::Provider(template)) => {
            let filled = filled(exchange, instance, template, streaming)?;
            Ok(if array {
                filled.replace(SSE_QUERY, "")
            } else {
                filled
            })
        }
    }
}

/// A provider's path with its places filled.
fn filled(
    exchange: &Exchange,
    instance: &AiInstance,
    template: &str,
    streaming: bool,
) -> Result<String, Failure> {
    let filled = pointsman_ai::fill(
        template,
        exchange.llm.model.as_deref(),
        instance.region.as_deref(),
        instance.project.as_deref(),
        streaming,
    );
    filled.ok_or_else(|| {
        let text = format!(
            "could not resolve upstream path: `{template}` needs {}",
            missing(exchange, instance)
        );
        Failure::Untranslatable(text)
    })
}

/// A configured path that ends as for whole answers or as for streams, with the end that it needs.
fn ended_for(path: &str, streaming: bool, array: bool) -> String {
    for (whole, stream) in STREAM_ENDS {
        let Some(stem) = path
            .strip_suffix(stream)
            .or_else(|| path.strip_suffix(whole))
        else {
            continue;
        };
        let end = if streaming { stream } else { whole };
        let query = if streaming && end.starts_with(':') && !array {
            SSE_QUERY
        } else {
            ""
        };
        return format!("{stem}{end}{query}");
    }
    path.to_owned()
}

/// What a provider's path may need and is not there.
fn missing(exchange: &Exchange, instance: &AiInstance) -> &'static str {
    match (&exchange.llm.model, &instance.region) {
        (None, _) => "a model: in the request, or as options.model",
        (_, None) => "provider_conf.region",
        _ => "provider_conf.project_id",
    }
}

/// Whether a client of Gemini's asked for server-sent events.
pub(super) fn wants_sse(query: Option<&str>) -> bool {
    query.is_some_and(|query| query.split('&').any(|pair| pair == "alt=sse"))
}

/// The client's end-to-end headers, the instance's own over them.
fn instance_headers(
    client_headers: &HeaderMap,
    instance: &AiInstance,
    client: Protocol,
    target: Protocol,
) -> HeaderMap {
    // The client's key is for us. Beside the instance's own it would only confuse, or leak.
    let has_own_key = client == REALTIME
        || !instance.auth_query.is_empty()
        || instance.gcp.is_some()
        || instance
            .auth_headers
            .iter()
            .any(|(name, _)| is_credential(name.as_str()));
    let translated = client != target;
    let mut headers = end_to_end(client_headers, |name| {
        let never = matches!(name, "host" | "content-length" | "accept-encoding")
            || (translated && belongs_to_protocol(name));
        !(never || (has_own_key && is_credential(name)))
    });
    for (name, value) in &instance.auth_headers {
        headers.insert(name.clone(), value.clone());
    }
    let is_anthropic = matches!(
        target,
        Protocol::AnthropicMessages | Protocol::Direct(DirectApi::CountTokens)
    );
    if is_anthropic && !headers.contains_key("anthropic-version") {
        headers.insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
    }
    if translated {
        carry_key(&mut headers, instance.provider, target);
    }
    headers
}

/// Headers that mean something in one protocol only, SDKs' reports of themselves included.
fn belongs_to_protocol(name: &str) -> bool {
    ["anthropic-", "x-stainless-", "openai-", "x-goog-api-client"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// Puts a key that stands in the header of another protocol into the one that `target` has it in.
fn carry_key(headers: &mut HeaderMap, provider: Provider, target: Protocol) {
    let own = match target {
        Protocol::AnthropicMessages => "x-api-key",
        // Of Vertex AI's there are none: it wants access tokens.
        _ if provider == Provider::VertexAi => "authorization",
        Protocol::GeminiGenerateContent | Protocol::Vectors(VectorApi::GeminiBatch) => {
            "x-goog-api-key"
        }
        _ => "authorization",
    };
    if headers.contains_key(own) {
        if own == "authorization" {
            headers.remove("x-api-key");
        }
        return;
    }
    let found = ["authorization", "x-api-key", "x-goog-api-key"]
        .iter()
        .find_map(|name| headers.remove(*name));
    let Some(value) = found else {
        return;
    };
    let text = value.to_str().unwrap_or_default();
    let key = text.strip_prefix("Bearer ").unwrap_or(text);
    let text = match own {
        "authorization" => format!("Bearer {key}"),
        _ => key.to_owned(),
    };
    if let Ok(mut value) = HeaderValue::from_str(&text) {
        value.set_sensitive(true);
        headers.insert(own, value);
    }
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Asks Gemini for server-sent events.
const SSE_QUERY: &str = "?alt=sse";

/// The length, in bytes, from which on no request target is valid (the library's limit).
const TARGET_TOO_LONG: usize = u16::MAX as usize;
