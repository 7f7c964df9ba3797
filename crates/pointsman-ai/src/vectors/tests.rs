use super::*;

const ALL: [VectorApi; 4] = [
    VectorApi::VertexPredict,
    VectorApi::GeminiBatch,
    VectorApi::CohereEmbed,
    VectorApi::BedrockTitan,
];

fn written(api: VectorApi, body: &Value) -> (Value, Expected, Vec<String>) {
    let (out, expected, lost) =
        request(api, body.to_string().as_bytes(), "m").expect("a sound request");
    (serde_json::from_slice(&out).expect("JSON"), expected, lost)
}

#[test]
fn requests_in_each_interface() {
    let check = |api, body: Value, out: Value| assert_eq!(written(api, &body).0, out, "{api:?}");
    use VectorApi::*;
    let two =
        json!({"model": "x", "input": ["a", "b"], "dimensions": 3, "encoding_format": "float"});
    check(
        VertexPredict,
        two.clone(),
        json!({"instances": [{"content": "a"}, {"content": "b"}], "parameters": {"outputDimensionality": 3}}),
    );
    check(
        GeminiBatch,
        two.clone(),
        json!({"requests": [
            {"model": "models/m", "content": {"parts": [{"text": "a"}]}, "outputDimensionality": 3},
            {"model": "models/m", "content": {"parts": [{"text": "b"}]}, "outputDimensionality": 3},
        ]}),
    );
    check(
        CohereEmbed,
        two,
        json!({"model": "m", "texts": ["a", "b"], "input_type": "search_document", "embedding_types": ["float"], "output_dimension": 3}),
    );
    check(
        BedrockTitan,
        json!({"input": ["a"], "dimensions": 3, "normalize": false}),
        json!({"inputText": "a", "dimensions": 3, "normalize": false}),
    );
    // P-084
    check(
        VertexPredict,
        json!({"input": "text"}),
        json!({"instances": [{"content": "text"}]}),
    );
    check(
        VertexPredict,
        json!({"input": [["a", "b"], "c"], "task_type": "CLUSTERING"}),
        json!({"instances": [{"content": "a b", "task_type": "CLUSTERING"}, {"content": "c", "task_type": "CLUSTERING"}]}),
    );
    check(
        CohereEmbed,
        json!({"input": "a", "input_type": "search_query", "truncate": "END"}),
        json!({"model": "m", "texts": ["a"], "input_type": "search_query", "embedding_types": ["float"], "truncate": "END"}),
    );
}

#[test]
fn what_gets_lost_is_named() {
    for api in ALL {
        let body = json!({"input": "a", "user": "u", "encoding_format": null, "dimensions": null});
        let (_, expected, lost) = written(api, &body);
        assert_eq!(lost, ["user"]);
        assert_eq!(
            expected,
            Expected {
                base64: false,
                count: 1
            }
        );
    }
}

/// G-25: the message names `input`, and where.
#[test]
fn inputs_that_are_no_texts_are_refused() {
    let check = |input: Value, expected: &str| {
        let body = json!({ "input": input }).to_string();
        for api in ALL {
            let told = request(api, body.as_bytes(), "m").expect_err("refused");
            assert!(told.to_string().starts_with(expected), "{told}");
        }
    };
    check(json!([1, 2]), "input[0]: unsupported input type at index 1");
    check(
        json!(["a", [1, 2]]),
        "input[1]: unsupported input type at index 2",
    );
    check(
        json!([["a", 2]]),
        "input[0]: unsupported input type at index 1",
    );
    check(json!([]), "input: must not be empty");
    for other in [json!(7), json!({}), json!(null)] {
        check(other, "input: must be a string or an array");
    }
    let told = request(VectorApi::BedrockTitan, br#"{"input":["a","b"]}"#, "m");
    let told = told.expect_err("refused").to_string();
    assert!(
        told.starts_with("input: ") && told.contains("one text a request"),
        "{told}"
    );
    let told = request(
        VectorApi::CohereEmbed,
        br#"{"input":"a","encoding_format":"int8"}"#,
        "m",
    );
    assert!(
        told.expect_err("refused")
            .to_string()
            .starts_with("encoding_format")
    );
}

/// Of each interface, an answer with the vectors `[0.25, -1e-3]` and, where it takes two, `[1, 2]`.
const ANSWERS: [(VectorApi, &str, usize); 4] = [
    (
        VectorApi::VertexPredict,
        r#"{"predictions":[{"embeddings":{"values":[0.25, -1e-3],"statistics":{"token_count":4,"truncated":false}}},{"embeddings":{"values":[1,2],"statistics":{"token_count":3.0}}}],"metadata":{}}"#,
        2,
    ),
    (
        VectorApi::GeminiBatch,
        r#"{"embeddings":[{"values":[0.25, -1e-3]},{"values":[1,2]}],"usageMetadata":{"promptTokenCount":7}}"#,
        2,
    ),
    (
        VectorApi::CohereEmbed,
        r#"{"id":"x","embeddings":{"float":[[0.25, -1e-3],[1,2]]},"texts":["a","b"],"meta":{"billed_units":{"input_tokens":7}},"response_type":"embeddings_by_type"}"#,
        2,
    ),
    (
        VectorApi::BedrockTitan,
        r#"{"embedding":[0.25, -1e-3],"embeddingsByType":{"float":[0.25]},"inputTextTokenCount":7}"#,
        1,
    ),
];

#[test]
fn answers_become_lists_with_usage() {
    for (api, body, count) in ANSWERS {
        let expected = Expected {
            base64: false,
            count,
        };
        let out = response(api, body.as_bytes(), "m\"", expected).expect("sound");
        let text = String::from_utf8(out).expect("text");
        assert!(text.contains("[0.25, -1e-3]"), "digit by digit: {text}");
        let read: Value = serde_json::from_str(&text).expect("JSON");
        let mut data = vec![
            json!({"object": "embedding", "index": 0, "embedding": [0.25, -1e-3]}),
            json!({"object": "embedding", "index": 1, "embedding": [1, 2]}),
        ];
        data.truncate(count);
        assert_eq!(
            read,
            json!({"object": "list", "data": data, "model": "m\"", "usage": {"prompt_tokens": 7, "total_tokens": 7}})
        );
        assert_eq!(usage(api, body.as_bytes()).expect("stated").prompt, 7);

        let packed = Expected {
            base64: true,
            count,
        };
        let out = response(api, body.as_bytes(), "m", packed).expect("sound");
        let read: Value = serde_json::from_slice(&out).expect("JSON");
        let text = read["data"][0]["embedding"].as_str().expect("text");
        let bytes = base64::decode(text).expect("base64");
        assert_eq!(
            bytes,
            [0.25f32.to_le_bytes(), (-1e-3f32).to_le_bytes()].concat()
        );
    }
}

#[test]
fn half_an_answer_is_none() {
    for (api, body, count) in ANSWERS {
        let expected = Expected {
            base64: false,
            count: count + 1,
        };
        assert!(response(api, body.as_bytes(), "m", expected).is_err());
        let expected = Expected {
            base64: true,
            count,
        };
        for bad in [
            "",
            "{}",
            "[]",
            "null",
            &body[..body.len() - 1],
            &body.replace("[0.25, -1e-3]", "null"),
        ] {
            assert!(
                response(api, bad.as_bytes(), "m", expected).is_err(),
                "{bad}"
            );
        }
        let strange = body.replace("[0.25, -1e-3]", "[\"x\"]");
        assert!(response(api, strange.as_bytes(), "m", expected).is_err());
    }
    let vertex = VectorApi::VertexPredict;
    let one = Expected {
        base64: false,
        count: 1,
    };
    let told = |body: &str| {
        response(vertex, body.as_bytes(), "m", one)
            .expect_err("bad")
            .to_string()
    };
    assert_eq!(told("{}"), "the answer has no `predictions`");
    assert_eq!(
        told(r#"{"predictions":[{}]}"#),
        "invalid embedding at index 1"
    );
}
