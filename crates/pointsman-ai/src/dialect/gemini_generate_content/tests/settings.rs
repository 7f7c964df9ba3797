//! Tools and settings of requests.

use super::*;
use crate::conversation::{
    Format, Function, Message, Part, ReasoningMode, ReasoningSettings, Role, ShowThoughts, Tool,
    ToolChoice,
};

pub(super) fn settings(change: impl FnOnce(&mut Request<'static>)) -> Request<'static> {
    let mut request = Request {
        messages: vec![Message::plain(Role::User, JsonStr::new("u"))],
        tools: vec![Tool::Function(Function {
            name: JsonStr::new("f"),
            ..Function::default()
        })],
        ..Request::default()
    };
    change(&mut request);
    request
}

/// Settings, and what they are on the wire.
#[test]
fn settings_there_and_back() {
    let check = |setting: &Setting<'_>, expected: &str, change: fn(&mut Request<'static>)| {
        let request = settings(change);
        let text = written(&request, setting);
        let found = value(&text);
        for (key, expected) in value(expected).as_object().unwrap() {
            assert_eq!(&found[key], expected, "{text}");
        }
        with_request(&text, |again| assert_eq!(again, &request));
    };
    let mode =
        |mode| format!(r#"{{"toolConfig":{{"functionCallingConfig":{{"mode":"{mode}"}}}}}}"#);
    check(&NEW, &mode("AUTO"), |r| {
        r.tool_choice = Some(ToolChoice::Auto)
    });
    check(&NEW, &mode("NONE"), |r| {
        r.tool_choice = Some(ToolChoice::None)
    });
    check(&NEW, &mode("ANY"), |r| {
        r.tool_choice = Some(ToolChoice::Required)
    });
    let config = |inside: &str| format!(r#"{{"generationConfig":{{{inside}}}}}"#);
    check(&NEW, &config(r#""responseMimeType":"text/plain""#), |r| {
        r.format = Some(Format::Text);
    });
    check(
        &NEW,
        &config(r#""responseMimeType":"application/json""#),
        |r| {
            r.format = Some(Format::JsonObject);
        },
    );
    let thinking = |inside: &str| config(&format!(r#""thinkingConfig":{{{inside}}}"#));
    check(&NEW, &thinking(r#""thinkingBudget":0"#), |r| {
        r.reasoning = Some(ReasoningSettings {
            mode: Some(ReasoningMode::Disabled),
            ..ReasoningSettings::default()
        });
    });
    check(&NEW, &thinking(r#""thinkingBudget":-1"#), |r| {
        r.reasoning = Some(ReasoningSettings {
            mode: Some(ReasoningMode::Adaptive),
            ..ReasoningSettings::default()
        });
    });
    check(
        &OLD,
        &thinking(r#""thinkingBudget":2048,"includeThoughts":false"#),
        |r| {
            r.reasoning = Some(ReasoningSettings {
                mode: Some(ReasoningMode::Enabled),
                budget: Some(2048),
                show: Some(ShowThoughts::No),
                ..ReasoningSettings::default()
            });
        },
    );
    check(&NEW, &thinking(r#""thinkingLevel":"MINIMAL""#), |r| {
        r.reasoning = Some(ReasoningSettings {
            effort: Some(JsonStr::new("minimal")),
            ..ReasoningSettings::default()
        });
    });
}

/// Models before Gemini 3 have no levels, and no model has both.
#[test]
fn efforts_are_levels_or_budgets() {
    let check = |setting: &Setting<'_>, effort: &'static str, budget, expected: &str| {
        let request = settings(|request| {
            request.reasoning = Some(ReasoningSettings {
                effort: Some(JsonStr::new(effort)),
                budget,
                show: Some(ShowThoughts::Summary(JsonStr::new("auto"))),
                ..ReasoningSettings::default()
            });
        });
        let text = written(&request, setting);
        let expected = value(&format!(r#"{{{expected},"includeThoughts":true}}"#));
        assert_eq!(value(&text)["generationConfig"]["thinkingConfig"], expected);
    };
    check(&NEW, "low", None, r#""thinkingLevel":"LOW""#);
    check(&NEW, "medium", Some(5), r#""thinkingLevel":"MEDIUM""#);
    check(&NEW, "xhigh", None, r#""thinkingLevel":"XHIGH""#);
    check(&NEW, "max", None, r#""thinkingLevel":"HIGH""#);
    check(&NEW, "none", None, r#""thinkingBudget":0"#);
    check(&OLD, "low", None, r#""thinkingBudget":1024"#);
    check(&OLD, "high", None, r#""thinkingBudget":24576"#);
    check(&OLD, "high", Some(5), r#""thinkingBudget":5"#);
}

/// What only Gemini has goes back to Gemini, and is named where it goes nowhere.
#[test]
fn what_only_gemini_knows_is_kept() {
    let json = r#"{"contents":[{"role":"user","parts":[{"text":"u"},{"fileData":{"fileUri":"gs://a/b.mp4"},"videoMetadata":{"fps":5}},{"text":"v","partMetadata":{"k":1}}]}],
        "tools":[{"functionDeclarations":[{"name":"f","description":"d","behavior":"NON_BLOCKING"}]}],
        "toolConfig":{"functionCallingConfig":{"mode":"VALIDATED","allowedFunctionNames":["f","g"]}},
        "generationConfig":{"responseMimeType":"text/x.enum","responseSchema":{"type":"STRING","enum":["A"]},"responseModalities":["TEXT","IMAGE"],"thinkingConfig":{"new":1}}}"#;
    with_request(json, |request| {
        let expected = json
            .replace(r#","behavior":"NON_BLOCKING""#, "")
            .replace(r#","partMetadata":{"k":1}"#, "");
        assert_eq!(value(&written(request, &NEW)), value(&expected));
        assert_eq!(request.tool_choice, Some(ToolChoice::Auto));
        assert_eq!(request.format, None);
        let names: Vec<_> = request
            .extras
            .iter()
            .map(|extra| extra.name.decode())
            .collect();
        assert_eq!(
            names,
            [
                "contents.parts.partMetadata",
                "tools.functionDeclarations.behavior",
                "toolConfig.functionCallingConfig.mode",
                "toolConfig.functionCallingConfig.allowedFunctionNames",
                "generationConfig.responseModalities",
                "generationConfig.responseMimeType",
                "generationConfig.responseSchema",
                "generationConfig.thinkingConfig.new",
            ]
        );
        let Part::Opaque(film) = &request.messages[0].parts[1] else {
            panic!("{:?}", request.messages[0]);
        };
        assert!(film.kind.is("videoMetadata"));
    });
    with_request(
        r#"{"contents":[{"parts":[{"inlineData":{"mimeType":"image/png","data":""},"mediaResolution":{"level":"MEDIA_RESOLUTION_LOW"}}]}],"serviceTier":"STANDARD","model":"models/m","generationConfig":{"responseModalities":["TEXT"]}}"#,
        |request| {
            let Part::Media(media) = &request.messages[0].parts[0] else {
                panic!("{:?}", request.messages[0]);
            };
            assert!(media.detail.as_ref().unwrap().is("low"));
            assert!(request.service_tier.as_ref().unwrap().is("default"));
            assert!(request.model.as_ref().unwrap().is("models/m"));
            assert!(request.extras.is_empty());
        },
    );
}
