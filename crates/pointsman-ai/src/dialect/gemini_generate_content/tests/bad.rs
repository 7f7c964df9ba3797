//! Requests that the API refuses.

use super::*;

/// What stands in the place of `*`, where, and what is said about it.
type Row = (&'static str, &'static str, &'static str, &'static str);

const ALL: &str = "*";
const PART: &str = r#"{"contents":[{"role":"user","parts":[*]}]}"#;
const MEMBER: &str = r#"{"contents":[{"parts":[{"text":"u"}]}],*}"#;

const BAD: &[Row] = &[
    (ALL, "5", "", "expected an object, found a number"),
    (ALL, "{}", "", "`contents` is missing"),
    (ALL, r#"{"contents":null}"#, "", "`contents` is missing"),
    (
        ALL,
        r#"{"contents":"hi"}"#,
        "contents",
        "expected an array, found a string",
    ),
    (
        ALL,
        r#"{"contents":[]}"#,
        "contents",
        "at least one content",
    ),
    (
        ALL,
        r#"{"contents":[{"role":"user"}]}"#,
        "contents[0]",
        "`parts` is missing",
    ),
    (PART, "", "contents[0].parts", "at least one part"),
    (PART, "5", "contents[0].parts[0]", "expected an object"),
    (PART, "{}", "contents[0].parts[0]", "a part needs one of"),
    (
        PART,
        r#"{"text":5}"#,
        "contents[0].parts[0].text",
        "expected a string, found a number",
    ),
    (
        PART,
        r#"{"text":"a","inlineData":{}}"#,
        "contents[0].parts[0]",
        "not several",
    ),
    (
        PART,
        r#"{"inlineData":{"data":"x"}}"#,
        "contents[0].parts[0].inlineData",
        "needs `mimeType`",
    ),
    (
        PART,
        r#"{"fileData":{}}"#,
        "contents[0].parts[0].fileData",
        "needs a `fileUri`",
    ),
    (
        PART,
        r#"{"functionCall":{"name":"f"}}"#,
        "contents[0].parts[0]",
        "role `model`",
    ),
    (
        PART,
        r#"{"functionResponse":{"name":"f"}}"#,
        "contents[0].parts[0].functionResponse",
        "needs `name` and `response`",
    ),
    (
        PART,
        r#"{"functionResponse":{"name":"f","response":{}}}"#,
        "contents[0].parts[0].functionResponse",
        "no call of this name",
    ),
    (
        PART,
        r#"{"functionResponse":{"id":"1","name":"f","response":"x"}}"#,
        "contents[0].parts[0].functionResponse.response",
        "expected an object",
    ),
    (
        ALL,
        r#"{"contents":[{"role":"assistant","parts":[{"text":"x"}]}]}"#,
        "contents[0].role",
        "`user` or `model`",
    ),
    (
        ALL,
        r#"{"contents":[{"role":5,"parts":[{"text":"x"}]}]}"#,
        "contents[0].role",
        "`user` or `model`",
    ),
    (
        ALL,
        r#"{"contents":[{"role":"model","parts":[{"functionCall":{}}]}]}"#,
        "contents[0].parts[0].functionCall",
        "needs a `name`",
    ),
    (
        ALL,
        r#"{"contents":[{"role":"model","parts":[{"functionResponse":{}}]}]}"#,
        "contents[0].parts[0].functionResponse",
        "role `user`",
    ),
    (
        MEMBER,
        r#""systemInstruction":"x""#,
        "systemInstruction",
        "expected an object",
    ),
    (MEMBER, r#""tools":{}"#, "tools", "expected an array"),
    (
        MEMBER,
        r#""tools":[{"functionDeclarations":[{}]}]"#,
        "tools[0].functionDeclarations[0]",
        "needs a `name`",
    ),
    (
        MEMBER,
        r#""tools":[{"functionDeclarations":[{"name":"f","parameters":{},"parametersJsonSchema":{}}]}]"#,
        "tools[0].functionDeclarations[0].parametersJsonSchema",
        "not both",
    ),
    (
        MEMBER,
        r#""toolConfig":{"functionCallingConfig":{"mode":"auto"}}"#,
        "toolConfig.functionCallingConfig.mode",
        "expected `AUTO`",
    ),
    (
        MEMBER,
        r#""generationConfig":{"temperature":"hot"}"#,
        "generationConfig.temperature",
        "expected a number, found a string",
    ),
    (
        MEMBER,
        r#""generationConfig":{"topK":true}"#,
        "generationConfig.topK",
        "expected a number, found a boolean",
    ),
    (
        MEMBER,
        r#""generationConfig":{"candidateCount":1.5}"#,
        "generationConfig.candidateCount",
        "whole number",
    ),
    (
        MEMBER,
        r#""generationConfig":{"stopSequences":"x"}"#,
        "generationConfig.stopSequences",
        "expected an array",
    ),
    (
        MEMBER,
        r#""generationConfig":{"stopSequences":[1]}"#,
        "generationConfig.stopSequences[0]",
        "expected a string",
    ),
    (
        MEMBER,
        r#""generationConfig":{"responseSchema":{},"responseJsonSchema":{}}"#,
        "generationConfig.responseJsonSchema",
        "not both",
    ),
    (
        MEMBER,
        r#""generationConfig":{"thinkingConfig":{"thinkingBudget":-5}}"#,
        "generationConfig.thinkingConfig.thinkingBudget",
        "at least 0",
    ),
    (
        MEMBER,
        r#""generationConfig":{"thinkingConfig":{"includeThoughts":1}}"#,
        "generationConfig.thinkingConfig.includeThoughts",
        "expected a boolean",
    ),
    (
        MEMBER,
        r#""serviceTier":1"#,
        "serviceTier",
        "expected a string",
    ),
];

#[test]
fn bad_requests_are_told_what_is_wrong_and_where() {
    for (around, json, path, what) in BAD {
        let json = around.replace('*', json);
        let tree = parse(json.as_bytes()).unwrap();
        let error = read_request(tree.root()).expect_err(&json);
        assert_eq!(error.path, *path, "{json}: {error}");
        assert!(error.what.contains(what), "{json}: {error}");
    }
}
