//! OpenAI's clients of embeddings, and providers with an interface of their own.

use serde_json::{Value, json};

use crate::support::{Answer, Gateway, Received, Upstream, aws, client::Response, post_json};

/// A route to one instance, given by its members.
fn document(upstream: &Upstream, instance: &str, path: &str) -> String {
    let address = upstream.address;
    format!(
        "routes: [{{id: 1, uri: /*, plugins: {{ai-proxy: {{{instance}, override: {{endpoint: \
         \"http://{address}{path}\"}}, logging: {{summaries: true}}}}}}}}]"
    )
}

fn embed(gateway: &Gateway, body: &Value) -> Response {
    post_json(gateway.proxy, "/v1/embeddings", &body.to_string())
}

/// A prediction for every instance: its place, and one token for every letter.
fn predict(received: &Received) -> Answer {
    let body = received.json();
    let instances = body["instances"].as_array().expect("instances").iter();
    let predictions = instances.enumerate().map(|(index, instance)| {
        let tokens = instance["content"].as_str().expect("a text").len();
        json!({"embeddings": {"values": [index, 0.5], "statistics": {"token_count": tokens, "truncated": false}}})
    });
    Answer::json(&json!({ "predictions": predictions.collect::<Vec<_>>() }).to_string())
}

const VERTEX: &str = "provider: vertex-ai, auth: {header: {Authorization: Bearer t}}";
const PLACE: &str = "provider_conf: {project_id: p, region: r}";

/// P-084
#[test]
fn vertex_predicts_vectors() {
    let vertex = Upstream::start(predict);
    let options = "options: {model: configured}";
    let gateway = Gateway::start(&document(
        &vertex,
        &format!("{VERTEX}, {options}"),
        "/some:predict",
    ));
    let response = embed(&gateway, &json!({"input": "7 token"}));
    assert_eq!(response.status, 200, "{}", response.text());
    let sent = vertex.last();
    assert_eq!(sent.target, "/some:predict");
    assert_eq!(sent.header("authorization"), Some("Bearer t"));
    assert_eq!(sent.json(), json!({"instances": [{"content": "7 token"}]}));
    assert_eq!(
        response.json(),
        json!({
            "object": "list",
            "data": [{"object": "embedding", "index": 0, "embedding": [0, 0.5]}],
            "model": "configured",
            "usage": {"prompt_tokens": 7, "total_tokens": 7},
        })
    );
    let line = gateway.access_log(1).remove(0);
    assert_eq!(line["llm_prompt_tokens"], 7, "{line}");
    assert_eq!(line["llm_upstream_protocol"], "vertex-predict", "{line}");
}

/// P-089
#[test]
fn vertex_has_the_model_in_its_path() {
    let vertex = Upstream::start(predict);
    let gateway = Gateway::start(&document(&vertex, &format!("{VERTEX}, {PLACE}"), ""));
    for model in ["text-embedding-005", "other"] {
        let body = json!({"model": model, "input": ["a", "bc"], "dimensions": 2, "user": "u", "encoding_format": "base64"});
        let response = embed(&gateway, &body);
        assert_eq!(response.header("x-pointsman-lossy"), Some("user"));
        let answer = response.json();
        assert_eq!(answer["model"], model);
        assert_eq!(answer["usage"]["total_tokens"], 3);
        // 1 and 0.5 as 32-bit floats.
        assert_eq!(answer["data"][1]["embedding"], "AACAPwAAAD8=");
        let sent = vertex.last();
        assert_eq!(
            sent.target,
            format!("/v1/projects/p/locations/r/publishers/google/models/{model}:predict")
        );
        let instances = json!([{"content": "a"}, {"content": "bc"}]);
        let parameters = json!({"outputDimensionality": 2});
        assert_eq!(
            sent.json(),
            json!({"instances": instances, "parameters": parameters})
        );
    }
    let response = embed(&gateway, &json!({"input": "a"}));
    assert_eq!(response.status, 400);
    assert!(
        response.text().contains("could not resolve upstream path"),
        "{}",
        response.text()
    );
    assert_eq!(vertex.hits(), 2);
}

/// G-25: what is no text is refused in the client's words, and nothing is sent.
#[test]
fn ids_of_tokens_are_refused() {
    let vertex = Upstream::start(predict);
    let gateway = Gateway::start(&document(&vertex, &format!("{VERTEX}, {PLACE}"), ""));
    for input in [json!([1, 2]), json!([[1, 2]])] {
        let response = embed(&gateway, &json!({"model": "m", "input": input}));
        assert_eq!(response.status, 400);
        let error = &response.json()["error"];
        let message = error["message"].as_str().expect("a message");
        assert!(
            message.starts_with("input[0]: unsupported input type at index 1"),
            "{message}"
        );
        assert_eq!(error["type"], "invalid_request_error");
    }
    assert_eq!(vertex.hits(), 0);
}

/// G-13: a provider's error keeps its status and its words; an answer without vectors is an error.
#[test]
fn errors_of_vertex_are_told_in_openais_form() {
    let vertex = Upstream::start(|received| match received.target.contains("odd") {
        true => Answer::json("{}"),
        false => Answer::status(
            404,
            r#"{"error":{"code":404,"message":"no such model","status":"NOT_FOUND"}}"#,
        ),
    });
    let gateway = Gateway::start(&document(&vertex, &format!("{VERTEX}, {PLACE}"), ""));
    let told = |model: &str| {
        let response = embed(&gateway, &json!({"model": model, "input": "a"}));
        let message = response.json()["error"]["message"].clone();
        (
            response.status,
            message.as_str().expect("a message").to_owned(),
        )
    };
    assert_eq!(told("none"), (404, "no such model".to_owned()));
    let (status, message) = told("odd");
    assert_eq!(status, 502, "{message}");
    gateway.wait_for_line("the answer has no `predictions`");
}

/// Gemini, Cohere and Amazon Titan: the instance, an answer to two texts (Titan: one), and an error.
struct Interface {
    instance: &'static str,
    target: &'static str,
    sent: Value,
    answer: Value,
    error: &'static str,
}

fn interfaces() -> [Interface; 3] {
    let content = |text: &str| json!({"model": "models/m:1", "content": {"parts": [{"text": text}]}, "outputDimensionality": 2});
    [
        Interface {
            instance: "provider: gemini, auth: {header: {x-goog-api-key: k}}",
            target: "/v1beta/models/m%3A1:batchEmbedContents",
            sent: json!({"requests": [content("a"), content("b")]}),
            answer: json!({"embeddings": [{"values": [1, 2]}, {"values": [3, 4]}], "usageMetadata": {"promptTokenCount": 6}}),
            error: r#"{"error":{"code":429,"message":"slow down","status":"RESOURCE_EXHAUSTED"}}"#,
        },
        Interface {
            instance: "provider: cohere, auth: {header: {Authorization: Bearer k}}",
            target: "/v2/embed",
            sent: json!({"texts": ["a", "b"], "input_type": "search_document", "embedding_types": ["float"], "model": "m:1", "output_dimension": 2}),
            answer: json!({"id": "x", "embeddings": {"float": [[1, 2], [3, 4]]}, "meta": {"billed_units": {"input_tokens": 6}}}),
            error: r#"{"message":"slow down"}"#,
        },
        Interface {
            instance: "provider: bedrock, provider_conf: {region: us-east-1}, auth: {aws: \
                       {access_key_id: a, secret_access_key: secret-key}}",
            target: "/model/m%3A1/invoke",
            sent: json!({"inputText": "a", "dimensions": 2}),
            answer: json!({"embedding": [1, 2], "inputTextTokenCount": 6}),
            error: r#"{"message":"slow down"}"#,
        },
    ]
}

#[test]
fn gemini_cohere_and_titan_make_vectors() {
    for interface in interfaces() {
        let Interface {
            instance,
            target,
            sent,
            answer,
            ..
        } = interface;
        let text = answer.to_string();
        let upstream = Upstream::start(move |_| Answer::json(&text));
        let gateway = Gateway::start(&document(&upstream, instance, ""));
        let is_titan = instance.contains("bedrock");
        let input = if is_titan {
            json!("a")
        } else {
            json!(["a", "b"])
        };
        let response = embed(
            &gateway,
            &json!({"model": "m:1", "input": input, "dimensions": 2}),
        );
        assert_eq!(response.status, 200, "{instance}: {}", response.text());
        let got = upstream.last();
        assert_eq!((&*got.target, got.json()), (target, sent), "{instance}");
        if is_titan {
            assert!(aws::is_signed(&got, "secret-key", "us-east-1"));
        }
        let mut data = vec![
            json!({"object": "embedding", "index": 0, "embedding": [1, 2]}),
            json!({"object": "embedding", "index": 1, "embedding": [3, 4]}),
        ];
        data.truncate(if is_titan { 1 } else { 2 });
        let usage = json!({"prompt_tokens": 6, "total_tokens": 6});
        assert_eq!(
            response.json(),
            json!({"object": "list", "data": data, "model": "m:1", "usage": usage}),
            "{instance}"
        );
        assert_eq!(gateway.access_log(1)[0]["llm_prompt_tokens"], 6);
    }
}

#[test]
fn their_errors_keep_status_and_words() {
    for interface in interfaces() {
        let Interface {
            instance, error, ..
        } = interface;
        let upstream = Upstream::start(move |_| Answer::Whole {
            status: 429,
            kind: "application/json",
            body: error.to_owned(),
            headers: vec![("Retry-After", "7".to_owned())],
        });
        let gateway = Gateway::start(&document(&upstream, instance, ""));
        let response = embed(&gateway, &json!({"model": "m", "input": "a"}));
        assert_eq!(response.status, 429, "{instance}");
        assert_eq!(response.header("retry-after"), Some("7"), "{instance}");
        assert_eq!(
            response.json()["error"]["message"],
            "slow down",
            "{instance}"
        );
    }
}

#[test]
fn titan_refuses_more_than_one_text() {
    let upstream = Upstream::start(|_| Answer::json("{}"));
    let [.., titan] = interfaces();
    let gateway = Gateway::start(&document(&upstream, titan.instance, ""));
    let response = embed(&gateway, &json!({"model": "m", "input": ["a", "b"]}));
    assert_eq!(response.status, 400);
    let told = response.text();
    assert!(
        told.contains("input: Amazon Titan embeds one text a request"),
        "{told}"
    );
    assert_eq!(upstream.hits(), 0);
}

/// Each attempt begins with the client's own request, whatever the one before was sent in.
#[test]
fn another_provider_takes_over_in_its_own_interface() {
    let answer =
        r#"{"object":"list","data":[],"model":"m","usage":{"prompt_tokens":1,"total_tokens":1}}"#;
    let (vertex, openai) = (
        Upstream::failing(503),
        Upstream::start(move |_| Answer::json(answer)),
    );
    let at =
        |upstream: &Upstream| format!("override: {{endpoint: \"http://{}\"}}", upstream.address);
    let gateway = Gateway::start(&format!(
        "routes: [{{id: 1, uri: /*, plugins: {{ai-proxy-multi: {{fallback_strategy: [http_5xx], instances: \
         [{{name: v, weight: 1, priority: 2, {VERTEX}, {PLACE}, {}}}, \
         {{name: o, weight: 1, priority: 1, provider: openai, auth: {{}}, {}}}]}}}}}}]",
        at(&vertex),
        at(&openai)
    ));
    let body = json!({"model": "m", "input": ["a"], "user": "u"});
    let response = embed(&gateway, &body);
    assert_eq!((response.status, &*response.text()), (200, answer));
    assert_eq!(response.header("x-pointsman-lossy"), None);
    assert_eq!(vertex.hits(), 1);
    let sent = openai.last();
    assert_eq!(
        (&*sent.target, sent.text()),
        ("/v1/embeddings", body.to_string())
    );
}
