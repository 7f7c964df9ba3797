use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::DirectApi;

fn body(text: &str) -> RequestBody {
    RequestBody::parse(Bytes::copy_from_slice(text.as_bytes())).expect("JSON")
}

fn shaping(value: Value) -> Shaping {
    let object = |key: &str| {
        value
            .get(key)
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default()
    };
    Shaping {
        options: object("options"),
        llm_max_tokens: value.get("max_tokens").and_then(Value::as_u64),
        request_body: object("request_body")
            .into_iter()
            .filter_map(|(name, patch)| {
                Some((Protocol::from_name(&name)?, patch.as_object()?.clone()))
            })
            .collect(),
        force: value.get("force").and_then(Value::as_bool).unwrap_or(false),
    }
}

fn shape(provider: Provider, conf: Value, protocol: Protocol, text: &str) -> String {
    let body = body(text);
    let streaming = crate::is_streaming(protocol, "/", &body);
    let shaped = Shaper::compile(provider, &shaping(conf)).shape(&body, protocol, streaming);
    assert_eq!(shaped.len(), shaped.to_vec().len());
    String::from_utf8(shaped.to_vec()).expect("UTF-8")
}

fn chat(conf: Value, text: &str, expected: &str) {
    assert_eq!(
        shape(Provider::OpenaiCompatible, conf, Protocol::OpenaiChat, text),
        expected
    );
}

/// P-040, P-041, B-043
#[test]
fn without_a_change_the_bytes_are_the_clients() {
    let odd = "{ \"messages\" :[ ],\"x\":1.50e+3 ,\"x\":2}\n";
    chat(json!({}), odd, odd);
    let body = body(odd);
    let shaped = Shaper::compile(Provider::Openai, &Shaping::default()).shape(
        &body,
        Protocol::OpenaiChat,
        false,
    );
    assert!(shaped.is_verbatim());
}

#[test]
fn what_is_passed_on_gets_the_model_and_no_other_option() {
    let options = json!({"options": {"model": "m", "temperature": 1}, "max_tokens": 9});
    let direct = |api, text: &str| {
        let protocol = Protocol::Direct(api);
        shape(Provider::AzureOpenai, options.clone(), protocol, text)
    };
    let speech = direct(DirectApi::Speech, r#"{ "model":"x", "input":"a" }"#);
    assert_eq!(speech, r#"{ "model":"m", "input":"a" }"#);
    let completion = direct(DirectApi::Completion, r#"{"model":"x"}"#);
    let expected = r#"{"model":"m","temperature":1,"max_tokens":9}"#;
    assert_eq!(completion, expected);
    let patch = json!({"request_body": {"passthrough": {"user": "u"}}});
    let patched = Protocol::Direct(DirectApi::Moderation);
    let patched = shape(Provider::Openai, patch, patched, r#"{"input":"a"}"#);
    assert_eq!(patched, r#"{"input":"a","user":"u"}"#);
}

#[test]
fn a_form_gets_the_model_and_keeps_everything_else() {
    let part = |name: &str, value: &str| {
        format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let check = |conf: Value, form: &str, expected: &str| {
        let body = RequestBody::form(Bytes::from(form.to_owned()), "b").expect("a form");
        let shaper = Shaper::compile(Provider::Openai, &shaping(conf));
        let target = Protocol::Direct(DirectApi::Transcription);
        let shaped = shaper.shape(&body, target, false);
        assert_eq!(String::from_utf8(shaped.to_vec()).expect("UTF-8"), expected);
        assert_eq!(shaped.is_verbatim(), form == expected);
    };
    let (file, end) = (part("file", "abc"), "--b--\r\n");
    let named = format!("{file}{}{end}", part("model", "x"));
    let model = json!({"options": {"model": "whisper-1", "language": "de"}});
    let renamed = format!("{file}{}{end}", part("model", "whisper-1"));
    check(json!({"options": {"language": "de"}}), &named, &named);
    check(model.clone(), &named, &renamed);
    let added = format!("{}{file}{end}", part("model", "whisper-1"));
    check(model, &format!("{file}{end}"), &added);
}

/// P-039, B-037, P-042 (spliced, not sorted)
#[test]
fn options_are_spliced_in() {
    chat(
        json!({"options": {"model": "b", "foo": "bar", "temperature": 1.0}}),
        "{\"messages\":[],\"model\":\"a\",\"e\":{},\"l\":[],\"n\":null}",
        "{\"messages\":[],\"model\":\"b\",\"e\":{},\"l\":[],\"n\":null,\"foo\":\"bar\",\"temperature\":1.0}",
    );
    chat(json!({"options": {"a": 1}}), "{ }", "{ \"a\":1}");
    chat(
        json!({"options": {"a": 1}}),
        "{\"a\" : [1, 2] }",
        "{\"a\" : 1 }",
    );
    chat(
        json!({"options": {"a": 1}}),
        "{\"b\":12345678901234567890}",
        "{\"b\":12345678901234567890,\"a\":1}",
    );
    chat(json!({"options": {"a": 1}}), "[1]", "[1]");
}

/// P-043 to P-047
#[test]
fn the_token_limit_has_the_providers_name() {
    let limit = |provider, protocol, text: &str| {
        shape(provider, json!({"max_tokens": 555}), protocol, text)
    };
    use Protocol::*;
    assert_eq!(
        limit(
            Provider::Openai,
            OpenaiChat,
            r#"{"max_tokens":9,"messages":[]}"#
        ),
        r#"{"messages":[],"max_completion_tokens":555}"#
    );
    assert_eq!(
        limit(
            Provider::OpenaiCompatible,
            OpenaiChat,
            r#"{"messages":[],"max_tokens":999}"#
        ),
        r#"{"messages":[],"max_tokens":555}"#
    );
    assert_eq!(
        limit(
            Provider::OpenaiCompatible,
            OpenaiChat,
            r#"{"max_completion_tokens":9}"#
        ),
        r#"{"max_tokens":555}"#
    );
    assert_eq!(
        limit(Provider::Openai, OpenaiResponses, r#"{"input":"x"}"#),
        r#"{"input":"x","max_output_tokens":555}"#
    );
    assert_eq!(
        limit(
            Provider::Anthropic,
            AnthropicMessages,
            r#"{"max_tokens":1}"#
        ),
        r#"{"max_tokens":555}"#
    );
    assert_eq!(
        limit(Provider::Openai, OpenaiEmbeddings, r#"{"input":1}"#),
        r#"{"input":1}"#
    );
}

/// P-048 to P-053, P-055, P-056
#[test]
fn request_bodies_merge() {
    let patch =
        |patch: Value, force: bool| json!({"request_body": {"openai-chat": patch}, "force": force});
    chat(
        patch(json!({"max_tokens": 555, "temperature": 0.1}), true),
        "{}",
        r#"{"max_tokens":555,"temperature":0.1}"#,
    );
    chat(
        patch(json!({"stop": ["a", "b"]}), true),
        r#"{"stop":["x"]}"#,
        r#"{"stop":["a","b"]}"#,
    );
    chat(
        patch(json!({"stop": ["a", "b"]}), false),
        r#"{"stop":["x"]}"#,
        r#"{"stop":["x"]}"#,
    );
    chat(
        patch(json!({"max_tokens": 555}), false),
        r#"{"max_tokens":999}"#,
        r#"{"max_tokens":999}"#,
    );
    chat(
        patch(json!({"max_tokens": 555}), true),
        r#"{"max_tokens":999}"#,
        r#"{"max_tokens":555}"#,
    );
    chat(patch(json!({"a": null}), false), r#"{"a":1}"#, r#"{"a":1}"#);
    chat(
        patch(json!({"a": 1}), false),
        r#"{"a":null}"#,
        r#"{"a":null}"#,
    );
    chat(
        patch(json!({"a": null}), true),
        r#"{"a":1}"#,
        r#"{"a":null}"#,
    );
    chat(
        patch(json!({"o": {"y": 2, "x": 9}}), false),
        r#"{"o":{ "x":1 }}"#,
        r#"{"o":{ "x":1,"y":2 }}"#,
    );
    chat(
        patch(json!({"o": {"x": 9}}), true),
        r#"{"o":{ "x":1 }}"#,
        r#"{"o":{ "x":9 }}"#,
    );
    chat(
        patch(json!({"o": {"x": 9}}), false),
        r#"{"o":5}"#,
        r#"{"o":5}"#,
    );
    chat(
        patch(json!({"o": {"x": 9}}), true),
        r#"{"o":5}"#,
        r#"{"o":{"x":9}}"#,
    );
    chat(
        json!({"request_body": {"anthropic-messages": {"x": 1}}, "force": true}),
        "{}",
        "{}",
    );
    assert_eq!(
        shape(
            Provider::Openai,
            json!({"max_tokens": 100, "force": true,
                   "request_body": {"openai-chat": {"max_completion_tokens": 200, "temperature": 0.5}}}),
            Protocol::OpenaiChat,
            "{}",
        ),
        r#"{"max_completion_tokens":200,"temperature":0.5}"#
    );
}

/// P-049, P-057; G-40, G-41
#[test]
fn streams_ask_for_usage() {
    chat(
        json!({}),
        r#"{"stream":true}"#,
        r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
    );
    chat(
        json!({}),
        r#"{"stream":true,"stream_options":{"include_usage":false,"x":1}}"#,
        r#"{"stream":true,"stream_options":{"include_usage":true,"x":1}}"#,
    );
    chat(
        json!({}),
        r#"{"stream":true,"stream_options":null}"#,
        r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
    );
    chat(json!({}), r#"{"stream":null}"#, r#"{"stream":null}"#);
    chat(
        json!({"request_body": {"openai-chat": {"stream_options": {"extra": 1}}}}),
        r#"{"stream":true}"#,
        r#"{"stream":true,"stream_options":{"include_usage":true,"extra":1}}"#,
    );
    let responses = r#"{"input":"x","stream":true}"#;
    assert_eq!(
        shape(
            Provider::Openai,
            json!({}),
            Protocol::OpenaiResponses,
            responses
        ),
        responses
    );
}

/// P-066
#[test]
fn azure_names_the_model_by_its_endpoint() {
    let azure = |text: &str| {
        shape(
            Provider::AzureOpenai,
            json!({"options": {"model": "m"}}),
            Protocol::OpenaiChat,
            text,
        )
    };
    assert_eq!(
        azure(r#"{"model":"x","messages":[]}"#),
        r#"{"messages":[]}"#
    );
    assert_eq!(
        azure(r#"{"messages":[], "model":"x"}"#),
        r#"{"messages":[]}"#
    );
    assert_eq!(azure(r#"{"a":1, "model":"x", "b":2}"#), r#"{"a":1, "b":2}"#);
    assert_eq!(azure(r#"{ "model":"x" }"#), r#"{  }"#);
    assert_eq!(azure("{}"), "{}");
}

/// The rules of §5 over a tree, as plainly as possible.
fn reference(provider: Provider, conf: &Shaping, text: &str, streaming: bool) -> Value {
    fn merge(current: &mut Value, patch: &Value, force: bool) {
        match (current, patch) {
            (Value::Object(current), Value::Object(patch)) => {
                for (key, value) in patch {
                    match current.get_mut(key) {
                        Some(inner) => merge(inner, value, force),
                        None => {
                            current.insert(key.clone(), value.clone());
                        }
                    }
                }
            }
            (current, patch) if force => *current = patch.clone(),
            _ => {}
        }
    }
    let mut value: Value = serde_json::from_str(text).expect("JSON");
    let Some(map) = value.as_object_mut() else {
        return value;
    };
    if streaming {
        match map.get_mut("stream_options") {
            Some(Value::Object(options)) => {
                options.insert("include_usage".to_owned(), Value::Bool(true));
            }
            _ => {
                map.insert("stream_options".to_owned(), json!({"include_usage": true}));
            }
        }
    }
    for (key, option) in &conf.options {
        map.insert(key.clone(), option.clone());
    }
    if let Some(tokens) = conf.llm_max_tokens {
        let (name, rival) = match provider {
            Provider::Openai => ("max_completion_tokens", "max_tokens"),
            _ => ("max_tokens", "max_completion_tokens"),
        };
        map.insert(name.to_owned(), tokens.into());
        map.remove(rival);
    }
    if let Some(patch) = conf.request_body.get(&Protocol::OpenaiChat) {
        merge(&mut value, &Value::Object(patch.clone()), conf.force);
    }
    if provider == Provider::AzureOpenai
        && let Some(map) = value.as_object_mut()
    {
        map.remove("model");
    }
    value
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z\"\\\\\n]{0,5}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            any_object(inner).prop_map(Value::Object),
        ]
    })
}

fn any_object(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Map<String, Value>> {
    let key = prop_oneof![
        Just("model".to_owned()),
        Just("max_tokens".to_owned()),
        Just("max_completion_tokens".to_owned()),
        Just("stream_options".to_owned()),
        "[a-c]{1}",
    ];
    proptest::collection::btree_map(key, inner, 0..5).prop_map(|map| map.into_iter().collect())
}

proptest! {
    #[test]
    fn splicing_means_what_rebuilding_means(
        client in any_object(any_value()),
        options in any_object(any_value()),
        patch in any_object(any_value()),
        max_tokens in proptest::option::of(1u64..1000),
        force in any::<bool>(),
        streaming in any::<bool>(),
        which in 0usize..3,
        pretty in any::<bool>(),
    ) {
        let provider = [Provider::Openai, Provider::OpenaiCompatible, Provider::AzureOpenai][which];
        let client = Value::Object(client);
        let text = if pretty {
            serde_json::to_string_pretty(&client).expect("JSON")
        } else {
            client.to_string()
        };
        let conf = Shaping {
            options,
            llm_max_tokens: max_tokens,
            request_body: [(Protocol::OpenaiChat, patch)].into(),
            force,
        };
        let shaped = Shaper::compile(provider, &conf)
            .shape(&body(&text), Protocol::OpenaiChat, streaming)
            .to_vec();
        let found: Value = serde_json::from_slice(&shaped)
            .map_err(|e| TestCaseError::fail(format!("{e}: {}", String::from_utf8_lossy(&shaped))))?;
        prop_assert_eq!(found, reference(provider, &conf, &text, streaming));
    }
}
