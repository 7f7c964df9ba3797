//! Whole answers.

use super::*;
use crate::conversation::{Arguments, Choice, Citation, Feature, Part, Reasoning, Text, ToolCall};

/// An answer with everything in it, as the API writes it.
const RICH: &str = r#"{
 "candidates":[
  {"content":{"parts":[
    {"text":"Thinking \ud83e\udd14","thought":true},
    {"text":"Größe: 5"},
    {"text":"","thoughtSignature":"c2ln"},
    {"inlineData":{"mimeType":"image/png","data":"aW1n"}},
    {"functionCall":{"id":"a1","name":"f","args":{"x":1e2}},"thoughtSignature":"c2lnMg=="},
    {"functionCall":{"id":"a2","name":"f","args":{}}},
    {"inlineData":{"mimeType":"audio/wav","data":"aQ=="}},
    {"executableCode":{"language":"PYTHON","code":"1"}}],"role":"model"},
   "finishReason":"STOP","index":0,
   "groundingMetadata":{
    "groundingChunks":[{"web":{"uri":"https://a/","title":"a"}},{"retrievedContext":{"uri":"gs://b","title":"b","text":"q"}},{"web":{"title":"c"}}],
    "groundingSupports":[
     {"segment":{"partIndex":1,"startIndex":0,"endIndex":7,"text":"Größe"},"groundingChunkIndices":[0]},
     {"segment":{"partIndex":1,"startIndex":9,"endIndex":10,"text":"5"},"groundingChunkIndices":[1]},
     {"segment":{"partIndex":1},"groundingChunkIndices":[2]}]},
   "logprobsResult":{"topCandidates":[{"candidates":[{"token":"G","logProbability":-0.10},{"token":"H","logProbability":-2}]}],"chosenCandidates":[{"token":"G","logProbability":-0.10}]}},
  {"content":{"parts":[{"text":"B"}],"role":"model"},"finishReason":"MAX_TOKENS","index":1}],
 "usageMetadata":{"promptTokenCount":10,"candidatesTokenCount":20,"totalTokenCount":35,"cachedContentTokenCount":4,"thoughtsTokenCount":5,"serviceTier":"standard"},
 "modelVersion":"gemini-3-pro-001",
 "responseId":"r1"}"#;

#[test]
fn a_rich_answer_comes_back_as_it_was() {
    with_response(RICH, |response| {
        let text = answered(response);
        assert_eq!(value(&text), value(RICH));
        with_response(&text, |again| assert_eq!(again, response));
        let claimed = EXPRESSES.iter();
        let missing: Vec<Feature> = claimed
            .filter(|feature| feature.name().starts_with("answer."))
            .filter(|feature| !response.features(OWN).has(*feature))
            .collect();
        assert_eq!(missing, []);
        assert!(response.features(OWN).without(EXPRESSES).is_empty());
    });
}

#[test]
fn a_rich_answer_is_understood() {
    with_response(RICH, |response| {
        let choice = &response.choices[0];
        // G-34
        assert_eq!(choice.stop, Stop::ToolCalls);
        assert_eq!(response.choices[1].stop, Stop::Length);
        let Part::Text(Text { citations, .. }) = &choice.parts[1] else {
            panic!("{:?}", choice.parts);
        };
        let spans: Vec<_> = citations.iter().map(|citation| citation.span).collect();
        // Characters, where Google counts bytes.
        assert_eq!(spans, [Some((0, 5)), Some((7, 8)), None]);
        assert!(citations[1].quote.as_ref().unwrap().is("q"));
        let usage = response.usage.unwrap();
        assert_eq!(
            usage,
            Usage {
                prompt: 10,
                completion: 25,
                total: 35,
                cache_read: 4,
                cache_creation: 0,
                reasoning: 5,
            }
        );
        assert!(response.service_tier.as_ref().unwrap().is("default"));
        let logprobs = value(choice.logprobs.as_ref().unwrap());
        assert_eq!(
            logprobs,
            value(
                r#"{"content":[{"token":"G","logprob":-0.10,"bytes":null,"top_logprobs":[{"token":"G","logprob":-0.10,"bytes":null},{"token":"H","logprob":-2,"bytes":null}]}]}"#
            )
        );
    });
}

/// What another protocol's provider wants back is in the client's next request again.
#[test]
fn signatures_of_others_go_through_the_client() {
    let foreign = |data| Some(signature(Protocol::AnthropicMessages, data));
    let thought = Reasoning {
        text: JsonStr::new("hm"),
        signature: foreign("EqQB+/=="),
        ..Reasoning::default()
    };
    let hidden = Reasoning {
        signature: foreign("secret"),
        is_hidden: true,
        ..Reasoning::default()
    };
    let call = ToolCall {
        id: JsonStr::new("toolu_1"),
        name: JsonStr::new("f"),
        arguments: Arguments::Text(JsonStr::new("{}")),
        signature: foreign("x.y"),
        cache: None,
    };
    let parts = vec![
        Part::Reasoning(thought),
        Part::Reasoning(hidden),
        Part::text(JsonStr::new("t")),
        Part::ToolCall(call),
    ];
    let response = Response {
        choices: vec![Choice {
            parts: parts.clone(),
            ..Choice::default()
        }],
        ..Response::default()
    };
    let text = answered(&response);
    let content = value(&text)["candidates"][0]["content"].to_string();
    let turn = format!(r#"{{"contents":[{{"parts":[{{"text":"u"}}]}},{content}]}}"#);
    with_request(&turn, |request| {
        assert_eq!(request.messages[1].parts, parts)
    });
}

#[test]
fn usage_counts_everything_once() {
    let check = |json: &str, expected: [u64; 5]| {
        let tree = parse(json.as_bytes()).unwrap();
        let usage = read_usage(tree.root());
        let found = [
            usage.prompt,
            usage.completion,
            usage.total,
            usage.cache_read,
            usage.reasoning,
        ];
        assert_eq!(found, expected, "{json}");
    };
    check(
        r#"{"promptTokenCount":10,"toolUsePromptTokenCount":5,"candidatesTokenCount":2,"thoughtsTokenCount":3,"totalTokenCount":20}"#,
        [15, 5, 20, 0, 3],
    );
    check(
        r#"{"prompt_token_count":"10","cached_content_token_count":8}"#,
        [10, 0, 10, 8, 0],
    );
    check("{}", [0; 5]);
    check(
        r#"{"promptTokenCount":-1,"candidatesTokenCount":"x"}"#,
        [0; 5],
    );
    // What was put into a cache is a part of Gemini's prompt.
    let usage = Usage {
        prompt: 10,
        completion: 7,
        total: 22,
        cache_read: 2,
        cache_creation: 5,
        reasoning: 3,
    };
    let mut out = Vec::new();
    Writer::new(&mut out).object(|w| write_usage(&usage, w));
    assert_eq!(
        text(out),
        r#"{"promptTokenCount":15,"candidatesTokenCount":4,"totalTokenCount":22,"cachedContentTokenCount":2,"thoughtsTokenCount":3}"#
    );
}

#[test]
fn a_blocked_prompt_is_an_answer() {
    let json = r#"{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":3,"totalTokenCount":3},"modelVersion":"m"}"#;
    with_response(json, |response| {
        assert_eq!(response.choices.len(), 1);
        assert_eq!(response.choices[0].stop, Stop::ContentFilter);
        assert_eq!(response.choices[0].parts, []);
        assert_eq!(response.usage.unwrap().prompt, 3);
        assert_eq!(
            answered(response),
            r#"{"candidates":[{"content":{"parts":[{"text":""}],"role":"model"},"finishReason":"SAFETY","index":0}],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":0,"totalTokenCount":3},"modelVersion":"m","responseId":"seed"}"#
        );
    });
}

#[test]
fn odd_answers_are_read() {
    // Thoughts took all tokens; ids are left out; an empty part; candidates in any order.
    let json = r#"{"candidates":[
        {"index":1,"content":{"role":"model","parts":[{"functionCall":{"name":"f"}},{},{"text":"t","thoughtSignature":"c2ln"},{"functionCall":{"name":"g"}}]}},
        {"content":{"role":"model"},"finishReason":"MAX_TOKENS","finishMessage":"m","safetyRatings":[]}]}"#;
    with_response(json, |response| {
        assert_eq!(response.choices[0].stop, Stop::Length);
        assert_eq!(response.choices[1].stop, Stop::ToolCalls);
        let ids = response.choices[1]
            .parts
            .iter()
            .filter_map(|part| match part {
                Part::ToolCall(call) => Some(call.id.decode().into_owned()),
                _ => None,
            });
        assert_eq!(ids.collect::<Vec<_>>(), ["call_seed_0", "call_seed_1"]);
        assert_eq!(response.choices[1].parts.len(), 4);
        assert!(matches!(&response.choices[1].parts[2], Part::Reasoning(r) if r.is_hidden));
        assert!(response.usage.is_none());
    });
    // Sources that nothing refers to, quotes of both APIs, sources of no text.
    let json = r#"{"candidates":[{"content":{"parts":[{"text":"éx"}]},"finishReason":"RECITATION",
        "groundingMetadata":{"groundingChunks":[{"maps":{"uri":"https://m/"}}],"groundingSupports":[{"groundingChunkIndices":[7]}]},
        "citationMetadata":{"citationSources":[{"endIndex":2,"uri":"https://u/"}],"citations":[{"startIndex":1,"endIndex":9,"title":"t"}]}}]}"#;
    let citation = |url: Option<&'static str>, title: Option<&'static str>, span| Citation {
        url: url.map(JsonStr::new),
        title: title.map(JsonStr::new),
        span,
        ..Citation::default()
    };
    with_response(json, |response| {
        let Part::Text(text) = &response.choices[0].parts[0] else {
            panic!("{response:?}");
        };
        assert_eq!(
            text.citations,
            [
                citation(Some("https://m/"), None, None),
                citation(Some("https://u/"), None, Some((0, 1))),
                citation(None, Some("t"), None),
            ]
        );
        assert_eq!(response.choices[0].stop, Stop::ContentFilter);
    });
}

#[test]
fn what_is_no_answer_is_refused() {
    for (json, what) in [
        ("[]", "expected an object"),
        ("{}", "neither a candidate nor a reason"),
        (
            r#"{"candidates":[],"promptFeedback":{}}"#,
            "neither a candidate nor a reason",
        ),
        (
            r#"{"candidates":[{"content":{"parts":[{"text":1}]}}]}"#,
            "expected a string",
        ),
        (
            r#"{"candidates":[{"content":{"parts":[{"functionResponse":{}}]}}]}"#,
            "`functionResponse` stands in contents of role `user`",
        ),
    ] {
        let tree = parse(json.as_bytes()).unwrap();
        let error = read_response(tree.root(), &NEW).expect_err(json);
        assert!(error.what.contains(what), "{json}: {error}");
    }
}
