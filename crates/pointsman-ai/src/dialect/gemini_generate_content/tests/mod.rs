//! What goes in comes out: requests, answers and streams, there and back.

mod answers;
mod bad;
mod foreign;
mod requests;
mod settings;
mod streams;

use super::*;
use crate::{
    Provider,
    conversation::{ErrorMessage, Event, Request, Response, Signature},
    dialect::{Setting, parse},
};

const NEW: Setting<'static> = Setting {
    client: OWN,
    target: OWN,
    provider: Provider::Gemini,
    model: "gemini-3-pro",
    version: None,
    now: 1,
    seed: "seed",
};

const OLD: Setting<'static> = Setting {
    model: "gemini-2.5-flash",
    ..NEW
};

/// Reads a request and shows it to `look`.
fn with_request<T>(json: &str, look: impl FnOnce(&Request<'_>) -> T) -> T {
    let tree = parse(json.as_bytes()).unwrap();
    let request = read_request(tree.root());
    look(&request.unwrap_or_else(|error| panic!("{error}: {json}")))
}

fn written(request: &Request<'_>, setting: &Setting<'_>) -> String {
    let mut out = Vec::new();
    write_request(request, setting, &mut Writer::new(&mut out));
    text(out)
}

fn with_response<T>(json: &str, look: impl FnOnce(&Response<'_>) -> T) -> T {
    let tree = parse(json.as_bytes()).unwrap();
    let response = read_response(tree.root(), &NEW);
    look(&response.unwrap_or_else(|error| panic!("{error}: {json}")))
}

fn answered(response: &Response<'_>) -> String {
    let mut out = Vec::new();
    write_response(response, &NEW, &mut Writer::new(&mut out));
    text(out)
}

fn text(out: Vec<u8>) -> String {
    String::from_utf8(out).unwrap()
}

fn value(json: &str) -> serde_json::Value {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"))
}

fn signature(origin: Protocol, data: &str) -> Signature<'_> {
    Signature {
        origin,
        data: JsonStr::new(data),
    }
}

#[test]
fn fields_have_two_names() {
    for (key, is_one) in [
        ("maxOutputTokens", true),
        ("max_output_tokens", true),
        ("max_outputTokens", true),
        ("maxoutputtokens", false),
        ("max_output_token", false),
        ("max_output_tokens_", false),
        ("max__output_tokens", false),
        ("", false),
    ] {
        assert_eq!(
            is_named(&JsonStr::new(key), "maxOutputTokens"),
            is_one,
            "{key}"
        );
    }
}

#[test]
fn errors_there_and_back() {
    let read = |json: &str| {
        let tree = parse(json.as_bytes()).unwrap();
        read_error(tree.root()).map(|error| {
            let mut out = Vec::new();
            write_error(400, &error, &mut Writer::new(&mut out));
            let owned = |text: Option<JsonStr<'_>>| text.map(|text| text.decode().into_owned());
            (
                owned(error.kind),
                owned(Some(error.message)),
                owned(error.code),
                owned(error.param),
                text(out),
            )
        })
    };
    let json = r#"{"error":{"code":400,"message":"API key not valid.","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID"},{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":"contents[0]","description":"API key not valid."}]}]}}"#;
    let own = |text: &str| Some(text.to_owned());
    let expected = (
        own("INVALID_ARGUMENT"),
        own("API key not valid."),
        own("API_KEY_INVALID"),
        own("contents[0]"),
        json.to_owned(),
    );
    assert_eq!(read(json), Some(expected.clone()));
    // As `streamGenerateContent` has it.
    assert_eq!(read(&format!("[{json}]")), Some(expected));
    let bare = read(r#"{"error":{"code":429,"message":"slow"}}"#).unwrap();
    assert_eq!(bare.0.as_deref(), Some("RESOURCE_EXHAUSTED"));
    for none in [
        r#"{"error":"x"}"#,
        r#"{"message":"x"}"#,
        "[]",
        "5",
        r#"{"candidates":[]}"#,
    ] {
        assert_eq!(read(none), None, "{none}");
    }
}

#[test]
fn errors_of_others_get_a_status_of_googles() {
    let check = |status, kind: Option<&'static str>, expected: &str| {
        let error = ErrorMessage {
            kind: kind.map(JsonStr::new),
            message: JsonStr::new("m"),
            ..ErrorMessage::default()
        };
        let mut out = Vec::new();
        write_error(status, &error, &mut Writer::new(&mut out));
        assert_eq!(text(out), expected);
    };
    let expected = r#"{"error":{"code":503,"message":"m","status":"UNAVAILABLE"}}"#;
    check(0, Some("overloaded_error"), expected);
    check(200, Some("UNAVAILABLE"), expected);
    check(503, None, expected);
    check(
        429,
        Some("rate_limit_error"),
        r#"{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED"}}"#,
    );
    check(
        0,
        None,
        r#"{"error":{"code":500,"message":"m","status":"INTERNAL"}}"#,
    );
}

#[test]
fn reasons_have_words_of_other_protocols() {
    for (reason, calls, stop, back) in [
        ("STOP", false, Stop::End, "STOP"),
        // G-34
        ("STOP", true, Stop::ToolCalls, "STOP"),
        ("MAX_TOKENS", false, Stop::Length, "MAX_TOKENS"),
        ("CONTINUATION", false, Stop::Length, "MAX_TOKENS"),
        ("SAFETY", false, Stop::ContentFilter, "SAFETY"),
        ("RECITATION", false, Stop::ContentFilter, "SAFETY"),
        ("SPII", false, Stop::ContentFilter, "SAFETY"),
        ("BLOCKLIST", false, Stop::ContentFilter, "SAFETY"),
        ("PROHIBITED_CONTENT", false, Stop::ContentFilter, "SAFETY"),
        ("IMAGE_SAFETY", false, Stop::ContentFilter, "SAFETY"),
        (
            "MALFORMED_FUNCTION_CALL",
            false,
            Stop::Other(JsonStr::new("MALFORMED_FUNCTION_CALL")),
            "MALFORMED_FUNCTION_CALL",
        ),
        (
            "LANGUAGE",
            true,
            Stop::Other(JsonStr::new("LANGUAGE")),
            "LANGUAGE",
        ),
        ("NEW", false, Stop::Other(JsonStr::new("NEW")), "OTHER"),
    ] {
        assert_eq!(read_stop(&JsonStr::new(reason), calls), stop);
        assert_eq!(finish_reason(&stop).0, back);
    }
    let new = Stop::Other(JsonStr::new("NEW"));
    assert!(finish_reason(&new).1.unwrap().is("NEW"));
    for (stop, reason) in [
        (Stop::Refusal, "SAFETY"),
        (Stop::Pause, "STOP"),
        (Stop::Sequence(None), "STOP"),
    ] {
        assert_eq!(finish_reason(&stop), (reason, None));
    }
}

/// Events, owning their texts.
fn keep(event: Event<'_>) -> String {
    format!("{event:?}")
}
