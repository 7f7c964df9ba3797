use super::*;
use crate::{Outside, Provider, Translation};

#[test]
fn names_tell_versions() {
    for (model, version) in [
        ("claude-opus-4-6", Some((4, 6))),
        ("anthropic/claude-sonnet-4.6@20260205", Some((4, 6))),
        ("eu.anthropic.claude-opus-4-7-v1:0", Some((4, 7))),
        ("anthropic/claude-4.7-opus", Some((4, 7))),
        ("claude-opus-4-20250514", Some((4, 0))),
        ("anthropic.claude-opus-4-v1:0", Some((4, 0))),
        ("claude-3-5-sonnet-20241022", Some((3, 5))),
        ("anthropic.claude-v2:1", Some((2, 1))),
        ("claude-haiku-4-5-20251001", Some((4, 5))),
        ("claude-fable-5", Some((5, 0))),
        ("claude-opus-5-5", Some((5, 5))),
        ("claude-mythos-preview", None),
    ] {
        let (_, behind) = model.split_once("claude").unwrap();
        assert_eq!(version_of(behind), version, "{model}");
    }
}

/// `[by effort, xhigh, off, sampling, forced]`, as Anthropic's pages have them.
#[test]
fn models_differ() {
    for (name, efforts, off, samples, obeys) in [
        ("claude-sonnet-4-5", None, Off::Disabled, true, true),
        ("claude-haiku-4-5", None, Off::Disabled, true, true),
        ("claude-sonnet-4-6", Some(false), Off::Disabled, true, true),
        ("claude-opus-4-7", Some(true), Off::Disabled, false, true),
        ("claude-opus-5", Some(true), Off::Disabled, false, true),
        ("claude-sonnet-5", Some(true), Off::Disabled, false, true),
        ("claude-haiku-5-5", Some(true), Off::Disabled, false, true),
        (
            "claude-sonnet-5-5",
            Some(true),
            Off::BetweenTools,
            false,
            false,
        ),
        ("claude-opus-5-5", Some(true), Off::Never, false, false),
        ("claude-fable-5", Some(true), Off::Never, false, true),
        ("claude-fable-5-1", Some(true), Off::Never, false, false),
        (
            "claude-mythos-preview",
            Some(true),
            Off::Never,
            false,
            false,
        ),
    ] {
        let model = Model::of(name);
        let found = match model.thinks {
            Thinks::ByEffort(words) => Some(words.contains(&"xhigh")),
            _ => None,
        };
        assert_eq!(found, efforts, "{name}");
        let rest = (model.off, model.samples, model.obeys);
        assert_eq!(rest, (off, samples, obeys), "{name}");
    }
    assert_eq!(Model::of("deepseek-chat").thinks, Thinks::AsTold);
}

/// What is sent of a Chat request with `settings`, and what counts as lost.
fn told(target: Protocol, model: &str, settings: &str) -> (String, String) {
    let body = format!(r#"{{"messages":[{{"role":"user","content":"x"}}],{settings}}}"#);
    translated(target, model, &body)
}

fn translated(target: Protocol, model: &str, body: &str) -> (String, String) {
    let provider = match target {
        Protocol::BedrockConverse => Provider::Bedrock,
        _ => Provider::Anthropic,
    };
    let outside = Outside {
        model: Some(model),
        stream: false,
        version: None,
        now: 1,
        seed: "s",
    };
    let client = Protocol::OpenaiChat;
    let sent = Translation::request(body.as_bytes(), client, target, provider, outside);
    let sent = sent.expect("a request");
    let text = String::from_utf8(sent.body).expect("text");
    (text, sent.lost.join(","))
}

const CALLED: &str = r#""tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{}}}}],"tool_choice":"required""#;

#[test]
fn efforts_are_told_in_each_models_way() {
    let check = |model: &str, settings: &str, expected: &str, lost: &str| {
        let (text, found) = told(Protocol::AnthropicMessages, model, settings);
        assert!(text.contains(expected), "{model}, {settings}: {text}");
        assert_eq!(found, lost, "{model}, {settings}: {text}");
    };
    let adaptive = |effort: &str| {
        format!(r#""thinking":{{"type":"adaptive"}},"output_config":{{"effort":"{effort}"}}"#)
    };
    let (medium, low, high) = (adaptive("medium"), adaptive("low"), adaptive("high"));
    let (asks, least) = (
        r#""reasoning_effort":"medium""#,
        r#""reasoning_effort":"minimal""#,
    );
    let lost = "reasoning.effort";
    check("claude-sonnet-4-5", asks, r#""budget_tokens":8192"#, lost);
    check("another", asks, r#""budget_tokens":8192"#, lost);
    check("claude-sonnet-4-6", asks, &medium, "");
    check("claude-opus-5-5", asks, &medium, "");
    check("claude-opus-5-5", least, &low, lost);
    let much = r#""reasoning_effort":"xhigh""#;
    check("claude-opus-4-6", much, &high, lost);
    check("claude-opus-4-7", much, &adaptive("xhigh"), "");
    // Thoughts count as tokens of the answer.
    check("claude-opus-4-7", asks, r#""max_tokens":12288,"#, "");
}

#[test]
fn not_to_think_is_told_in_each_models_way() {
    let off = r#""reasoning_effort":"none""#;
    for (model, expected, lost) in [
        ("claude-sonnet-4-5", r#""type":"disabled""#, ""),
        ("claude-opus-5", r#""type":"disabled""#, ""),
        ("claude-sonnet-5-5", r#""type":"between_tools""#, ""),
        (
            "claude-opus-5-5",
            r#""output_config":{"effort":"low"}"#,
            "reasoning.disabled",
        ),
    ] {
        let (text, found) = told(Protocol::AnthropicMessages, model, off);
        assert!(text.contains(expected), "{model}: {text}");
        assert_eq!(found, lost, "{model}");
    }
}

#[test]
fn nobody_thinks_where_a_tool_must_be_called() {
    let settings = format!(r#""reasoning_effort":"medium",{CALLED}"#);
    for (target, model) in [
        (Protocol::AnthropicMessages, "claude-sonnet-4-5"),
        (Protocol::AnthropicMessages, "claude-opus-5"),
        (Protocol::BedrockConverse, "anthropic.claude-opus-4-6-v1"),
    ] {
        let (text, lost) = told(target, model, &settings);
        assert!(text.contains(r#""any""#), "{model}: {text}");
        assert!(!text.contains("thinking"), "{model}: {text}");
        assert_eq!(lost, "reasoning.effort", "{model}");
    }
    // Somebody else's models may.
    let (text, _) = told(Protocol::AnthropicMessages, "another", &settings);
    assert!(text.contains(r#""thinking""#), "{text}");
}

#[test]
fn some_cannot_be_made_to_call_a_tool() {
    let (text, lost) = told(Protocol::AnthropicMessages, "claude-opus-5-5", CALLED);
    assert!(text.contains(r#""tool_choice":{"type":"auto"}"#), "{text}");
    assert_eq!(lost, "tool_choice.required");
    let (text, lost) = told(
        Protocol::BedrockConverse,
        "anthropic.claude-opus-5-5",
        CALLED,
    );
    assert!(!text.contains("toolChoice"), "{text}");
    assert_eq!(lost, "tool_choice.required");
}

/// Within a budget the answer to a tool's result begins with the thoughts that led to the call, and those
/// of other providers are none.
#[test]
fn results_of_a_turn_without_thoughts() {
    let body = r#"{"reasoning_effort":"medium","messages":[{"role":"user","content":"x"},{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c","content":"r"}]}"#;
    let (text, lost) = translated(Protocol::AnthropicMessages, "claude-sonnet-4-5", body);
    assert!(!text.contains(r#""thinking""#), "{text}");
    assert_eq!(lost, "reasoning.effort");
    let (text, _) = translated(Protocol::AnthropicMessages, "claude-sonnet-4-6", body);
    assert!(text.contains(r#""type":"adaptive""#), "{text}");
    let next = body.replace(
        r#""content":"r"}"#,
        r#""content":"r"},{"role":"assistant","content":"done"},{"role":"user","content":"y"}"#,
    );
    let (text, _) = translated(Protocol::AnthropicMessages, "claude-sonnet-4-5", &next);
    assert!(text.contains(r#""budget_tokens":8192"#), "{text}");
}

#[test]
fn sampling_goes_where_it_is_taken() {
    let both = r#""temperature":0.5,"top_p":0.9"#;
    let thinking = r#""temperature":1.0,"top_p":0.97,"reasoning_effort":"low""#;
    let target = Protocol::AnthropicMessages;
    for (model, settings, temperature, top_p, lost) in [
        ("claude-3-7-sonnet-latest", both, true, true, ""),
        ("claude-haiku-4-5", both, true, false, "top_p"),
        ("claude-opus-4-7", both, false, false, "temperature,top_p"),
        ("claude-sonnet-4-6", thinking, true, false, "top_p"),
        (
            "claude-sonnet-4-6",
            r#""top_p":0.97,"reasoning_effort":"low""#,
            false,
            true,
            "",
        ),
        (
            "claude-sonnet-4-6",
            r#""temperature":0.2,"top_p":0.5,"reasoning_effort":"low""#,
            false,
            false,
            "temperature,top_p",
        ),
    ] {
        let (text, found) = told(target, model, settings);
        let said = (text.contains("temperature"), text.contains("top_p"));
        assert_eq!(said, (temperature, top_p), "{model}: {text}");
        assert_eq!(found, lost, "{model}: {text}");
    }
    let (text, lost) = told(Protocol::BedrockConverse, "anthropic.claude-opus-5", both);
    assert!(!text.contains("temperature"), "{text}");
    assert_eq!(lost, "temperature,top_p");
}

#[test]
fn schemas_are_closed() {
    let settings = |schema: &str| {
        format!(
            r#""response_format":{{"type":"json_schema","json_schema":{{"name":"structured_output","schema":{schema}}}}},"tools":[{{"type":"function","function":{{"name":"f","strict":true,"parameters":{schema}}}}}]"#
        )
    };
    let target = Protocol::AnthropicMessages;
    let open = r#"{"type":"object","properties":{"a":{"type":"string"}}}"#;
    let shut =
        r#"{"type":"object","properties":{"a":{"type":"string"}},"additionalProperties":false}"#;
    let (text, lost) = told(target, "claude-opus-4-7", &settings(open));
    assert!(text.contains(&format!(r#""schema":{shut}"#)), "{text}");
    let tool = format!(r#""input_schema":{shut},"strict":true"#);
    assert!(text.contains(&tool), "{text}");
    assert_eq!(lost, "response_format.name");
    let bounded = open.replace(r#""string""#, r#""string","maxLength":5"#);
    let (text, lost) = told(target, "claude-opus-4-7", &settings(&bounded));
    assert!(text.contains(&format!(r#""schema":{shut}"#)), "{text}");
    let tool = format!(r#""input_schema":{bounded},"strict":false"#);
    assert!(text.contains(&tool), "{text}");
    assert_eq!(
        lost,
        "response_format.constraints,response_format.name,tools.strict"
    );
}

#[test]
fn later_versions_of_the_api_have_no_sampling() {
    let body = r#"{"messages":[{"role":"user","content":"x"}],"temperature":0.5}"#;
    let sent = |version| {
        let outside = Outside {
            model: Some("another"),
            version,
            stream: false,
            now: 1,
            seed: "s",
        };
        let (client, target) = (Protocol::OpenaiChat, Protocol::AnthropicMessages);
        let provider = Provider::Anthropic;
        let sent = Translation::request(body.as_bytes(), client, target, provider, outside);
        let sent = sent.expect("a request");
        let text = String::from_utf8_lossy(&sent.body).into_owned();
        (text.contains("temperature"), sent.lost)
    };
    let lost = vec!["temperature".to_owned()];
    assert_eq!(sent(Some("2026-10-21")), (false, lost));
    assert_eq!(sent(Some("2023-06-01")), (true, vec![]));
    assert_eq!(sent(None), (true, vec![]));
}

#[test]
fn bedrock_says_it_in_additional_fields() {
    let asks = r#""reasoning_effort":"high""#;
    let (text, lost) = told(
        Protocol::BedrockConverse,
        "eu.anthropic.claude-opus-4-7-v1:0",
        asks,
    );
    let expected = r#""additionalModelRequestFields":{"thinking":{"type":"adaptive"},"output_config":{"effort":"high"}}"#;
    assert!(text.contains(expected), "{text}");
    assert_eq!(lost, "");
    let (text, lost) = told(Protocol::BedrockConverse, "amazon.nova-pro-v1:0", asks);
    assert!(!text.contains("additional"), "{text}");
    assert_eq!(lost, "reasoning.effort");
}

/// What newer models do not show unasked is asked for.
#[test]
fn thoughts_are_shown_to_whoever_asks() {
    let body = r#"{"input":"x","reasoning":{"effort":"high","summary":"auto"}}"#;
    let sent = |model| {
        let outside = Outside {
            model: Some(model),
            stream: false,
            version: None,
            now: 1,
            seed: "s",
        };
        let (client, target) = (Protocol::OpenaiResponses, Protocol::AnthropicMessages);
        Translation::request(
            body.as_bytes(),
            client,
            target,
            Provider::Anthropic,
            outside,
        )
        .expect("a request")
    };
    let newer = sent("claude-opus-4-7");
    let text = String::from_utf8_lossy(&newer.body).into_owned();
    let expected = r#""thinking":{"type":"adaptive","display":"summarized"}"#;
    assert!(text.contains(expected), "{text}");
    assert!(newer.lost.is_empty(), "{:?}", newer.lost);
    let older = sent("claude-sonnet-4-5").lost;
    assert_eq!(older, ["reasoning.effort", "reasoning.summary"]);
}

/// Models from 4.6 on refuse a conversation that ends in their own words. It is sent as it is, for them to
/// say so, and named, for whoever would rather be refused before.
#[test]
fn what_ends_in_the_models_own_words_is_named() {
    let ended = |message: &str| {
        format!(
            r#"{{"messages":[{{"role":"user","content":"x"}}{message}],"reasoning_effort":"medium"}}"#
        )
    };
    let prefill = ended(r#",{"role":"assistant","content":"So {"}"#);
    let blank = ended(r#",{"role":"assistant","content":" "}"#);
    let asked = ended(r#",{"role":"assistant","content":"So {"},{"role":"user","content":"y"}"#);
    let called = ended(
        r#",{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c","content":"r"}"#,
    );
    let is_named = |target, model: &str, body: &str| {
        let (text, lost) = translated(target, model, body);
        assert!(
            body == blank || text.contains("So {") || body == called,
            "{text}"
        );
        lost.split(',').any(|name| name == "messages.prefill")
    };
    for (target, model) in [
        (Protocol::AnthropicMessages, "claude-opus-4-6"),
        (Protocol::AnthropicMessages, "claude-haiku-5-5"),
        (Protocol::AnthropicMessages, "claude-mythos-preview"),
        (
            Protocol::BedrockConverse,
            "eu.anthropic.claude-opus-4-7-v1:0",
        ),
    ] {
        assert!(is_named(target, model, &prefill), "{model}");
        for body in [&blank, &asked, &called] {
            assert!(!is_named(target, model, body), "{model}: {body}");
        }
    }
    for (target, model) in [
        (Protocol::AnthropicMessages, "claude-sonnet-4-5"),
        (Protocol::AnthropicMessages, "another"),
        (Protocol::BedrockConverse, "amazon.nova-pro-v1:0"),
    ] {
        assert!(!is_named(target, model, &prefill), "{model}");
    }
    // None that thinks within a budget goes on.
    let (text, lost) = translated(Protocol::AnthropicMessages, "claude-sonnet-4-5", &prefill);
    assert!(!text.contains("budget_tokens"), "{text}");
    assert_eq!(lost, "reasoning.effort");
}
