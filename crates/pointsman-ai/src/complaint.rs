//! What an error of a provider is about, where that decides who should be asked instead.
//!
//! Providers agree on statuses only roughly: a prompt that is too long, a refusal by policy and a
//! malformed request are all a 400. What tells them apart is a code in the body, or, where a provider
//! has none, the beginning of its message. Anything that is not recognised is nobody's fault but the
//! request's.

use serde::Deserialize;
use serde_json::Value;

/// An error that says more than its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Complaint {
    /// The prompt is longer than this model takes; a model with a larger context may take it.
    ContextLength,
    /// Refused because of what it says. That is an answer: it would be one elsewhere, too.
    ContentPolicy,
    /// There is no such model or deployment here, or this credential may not use it.
    ModelMissing,
}

/// What the JSON error `body` of a response with `status` (400 to 499) complains about.
#[must_use]
pub fn complaint(status: u16, body: &[u8]) -> Option<Complaint> {
    if !(400..500).contains(&status) || body.len() > ERROR_BYTES_MAX {
        return None;
    }
    Error::read(body)?.complaint(status)
}

/// The same of an error that came within a stream, by its type, code and message.
pub(crate) fn of_words(status: u16, kind: &str, code: &str, message: &str) -> Option<Complaint> {
    if !(400..500).contains(&status) {
        return None;
    }
    let error = Error {
        code: code.to_owned(),
        kind: kind.to_owned(),
        inner: String::new(),
        message: message.to_owned(),
    };
    error.complaint(status)
}

/// The parts of an error that say what it is about, whatever they are called.
#[derive(Default)]
struct Error {
    code: String,
    kind: String,
    inner: String,
    message: String,
}

impl Error {
    fn complaint(&self, status: u16) -> Option<Complaint> {
        let has =
            |list: &[&str], value: &str| list.iter().any(|code| value.eq_ignore_ascii_case(code));
        let codes = [&self.code, &self.kind, &self.inner];
        let any = |list: &[&str]| codes.iter().any(|code| has(list, code));
        let message = self.message.to_ascii_lowercase();
        let says = |parts: &[&str]| parts.iter().any(|part| message.contains(part));
        if any(CONTENT_POLICY) {
            return Some(Complaint::ContentPolicy);
        }
        if any(CONTEXT_LENGTH) || (matches!(status, 400 | 413 | 422) && says(TOO_LONG)) {
            return Some(Complaint::ContextLength);
        }
        let not_found = status == 404 && (any(&["not_found_error", "not_found"]));
        if any(MODEL_MISSING) || (not_found && says(&["model"])) {
            return Some(Complaint::ModelMissing);
        }
        None
    }

    fn read(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Outer {
            // Gemini's OpenAI surface wraps an error in an array.
            List(Vec<Value>),
            One(Value),
        }
        let value = match serde_json::from_slice(body).ok()? {
            Outer::List(list) => list.into_iter().next()?,
            Outer::One(value) => value,
        };
        // Some servers leave the wrapper out.
        let error = value.get("error").filter(|error| !error.is_null());
        let error = error.unwrap_or(&value);
        if let Some(message) = error.as_str() {
            return Some(Self {
                message: message.to_owned(),
                ..Self::default()
            });
        }
        let text =
            |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let code = text(error.get("code"));
        Some(Self {
            // Google's `code` is the status, and its `status` is the code.
            code: if code.is_empty() {
                text(error.get("status"))
            } else {
                code
            },
            kind: text(error.get("type")),
            inner: text(error.pointer("/innererror/code")),
            message: text(error.get("message")),
        })
    }
}

/// An error larger than this is not one that a provider wrote for a program to read.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// OpenAI and those that follow it.
const CONTEXT_LENGTH: &[&str] = &["context_length_exceeded", "string_above_max_length"];

/// OpenAI, Azure.
const CONTENT_POLICY: &[&str] = &[
    "content_policy_violation",
    "content_filter",
    "ResponsibleAIPolicyViolation",
    "moderation_blocked",
    "cyber_policy",
    "PROHIBITED_CONTENT",
];

/// OpenAI, Azure.
const MODEL_MISSING: &[&str] = &[
    "model_not_found",
    "DeploymentNotFound",
    "model_not_available",
];

/// What messages say where there is no code: Anthropic, vLLM and SGLang, Google, Bedrock, Mistral.
const TOO_LONG: &[&str] = &[
    "prompt is too long",
    "exceed context limit",
    "maximum context length",
    "exceeds the maximum number of tokens",
    "input is too long",
    "longer than the model's context length",
    "too large for model with",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Status, body, and what it is about.
    const ERRORS: &[(u16, &str, Option<Complaint>)] = &[
        (
            400,
            r#"{"error":{"message":"This model's maximum context length is 8192 tokens","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#,
            LONG,
        ),
        (
            400,
            r#"{"object":"error","message":"This model's maximum context length is 4096 tokens. However, you requested 5000","type":"BadRequestError","param":null,"code":400}"#,
            LONG,
        ),
        (
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 210000 tokens > 200000 maximum"}}"#,
            LONG,
        ),
        (
            400,
            r#"[{"error":{"code":400,"message":"The input token count (1100000) exceeds the maximum number of tokens allowed (1048576).","status":"INVALID_ARGUMENT"}}]"#,
            LONG,
        ),
        (
            400,
            r#"{"message":"Input is too long for requested model."}"#,
            LONG,
        ),
        (
            400,
            r#"{"error":{"code":"content_policy_violation","message":"x","type":"invalid_request_error"}}"#,
            POLICY,
        ),
        (
            400,
            r#"{"error":{"code":"content_filter","status":400,"innererror":{"code":"ResponsibleAIPolicyViolation"},"message":"x"}}"#,
            POLICY,
        ),
        (
            404,
            r#"{"error":{"message":"The model `x` does not exist or you do not have access to it.","type":"invalid_request_error","code":"model_not_found"}}"#,
            MISSING,
        ),
        (
            404,
            r#"{"type":"error","error":{"type":"not_found_error","message":"model: claude-x"}}"#,
            MISSING,
        ),
        (
            404,
            r#"{"error":{"code":"DeploymentNotFound","message":"x"}}"#,
            MISSING,
        ),
        (
            404,
            r#"{"error":{"code":404,"message":"models/x is not found for API version","status":"NOT_FOUND"}}"#,
            MISSING,
        ),
        (
            400,
            r#"{"error":{"message":"messages: field required","type":"invalid_request_error","code":null}}"#,
            None,
        ),
        (
            401,
            r#"{"error":{"message":"Incorrect API key","code":"invalid_api_key"}}"#,
            None,
        ),
        (
            404,
            r#"{"type":"error","error":{"type":"not_found_error","message":"no such batch"}}"#,
            None,
        ),
        (404, "<html>model not found</html>", None),
        (400, "", None),
        (400, "[]", None),
        (400, "null", None),
        (400, r#"{"error":null}"#, None),
        (
            429,
            r#"{"error":{"message":"slow down","code":"rate_limit_exceeded"}}"#,
            None,
        ),
        (500, r#"{"error":{"code":"context_length_exceeded"}}"#, None),
    ];
    const LONG: Option<Complaint> = Some(Complaint::ContextLength);
    const POLICY: Option<Complaint> = Some(Complaint::ContentPolicy);
    const MISSING: Option<Complaint> = Some(Complaint::ModelMissing);

    #[test]
    fn errors_of_providers() {
        for (status, body, expected) in ERRORS {
            let found = complaint(*status, body.as_bytes());
            assert_eq!(found, *expected, "{status} {body}");
        }
        let long = "x".repeat(70_000);
        let long = format!(r#"{{"error":{{"code":"model_not_found","message":"{long}"}}}}"#);
        assert_eq!(complaint(404, long.as_bytes()), None);
    }
}
