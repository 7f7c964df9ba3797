//! Errors that the gateway makes itself, in the client's protocol.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{DirectApi, Protocol};

/// An error object in `protocol`, or APISIX's own shape when the client speaks none.
pub fn error_body(protocol: Option<Protocol>, status: u16, message: &str) -> Bytes {
    let value = match protocol {
        Some(
            Protocol::OpenaiChat
            | Protocol::OpenaiResponses
            | Protocol::OpenaiEmbeddings
            | Protocol::Vectors(_),
        ) => openai(status, message),
        Some(Protocol::Direct(api)) => match api {
            DirectApi::CountTokens => anthropic(status, message),
            DirectApi::Rerank | DirectApi::RerankV2 => json!({ "message": message }),
            _ => openai(status, message),
        },
        Some(Protocol::AnthropicMessages) => anthropic(status, message),
        Some(Protocol::GeminiGenerateContent) => json!({
            "error": {"code": status, "message": message, "status": google_status(status)}
        }),
        Some(Protocol::BedrockConverse | Protocol::CohereChat) => json!({ "message": message }),
        Some(Protocol::Passthrough) | None => json!({ "error_msg": message }),
    };
    Bytes::from(value.to_string())
}

fn openai(status: u16, message: &str) -> Value {
    json!({
        "error": {"message": message, "type": openai_type(status), "param": null, "code": null}
    })
}

fn anthropic(status: u16, message: &str) -> Value {
    json!({
        "type": "error", "error": {"type": anthropic_type(status), "message": message}
    })
}

pub(crate) fn openai_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    }
}

pub(crate) fn anthropic_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        504 => "timeout_error",
        503 | 529 => "overloaded_error",
        _ => "api_error",
    }
}

/// The name of a gRPC status code, as Google's APIs have it beside the number.
pub(crate) fn google_status(status: u16) -> &'static str {
    match status {
        400 | 413 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        409 => "ABORTED",
        429 => "RESOURCE_EXHAUSTED",
        501 => "UNIMPLEMENTED",
        503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        400..=499 => "FAILED_PRECONDITION",
        _ => "INTERNAL",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_speak_the_clients_protocol() {
        let check = |protocol, status, expected: &str| {
            assert_eq!(error_body(protocol, status, "no \"x\""), expected);
        };
        check(
            Some(Protocol::OpenaiChat),
            500,
            r#"{"error":{"message":"no \"x\"","type":"server_error","param":null,"code":null}}"#,
        );
        check(
            Some(Protocol::AnthropicMessages),
            504,
            r#"{"type":"error","error":{"type":"timeout_error","message":"no \"x\""}}"#,
        );
        check(
            Some(Protocol::Direct(DirectApi::CountTokens)),
            504,
            r#"{"type":"error","error":{"type":"timeout_error","message":"no \"x\""}}"#,
        );
        check(
            Some(Protocol::Direct(DirectApi::RerankV2)),
            503,
            r#"{"message":"no \"x\""}"#,
        );
        check(
            Some(Protocol::Direct(DirectApi::Speech)),
            429,
            r#"{"error":{"message":"no \"x\"","type":"rate_limit_error","param":null,"code":null}}"#,
        );
        check(None, 502, r#"{"error_msg":"no \"x\""}"#);
    }
}
