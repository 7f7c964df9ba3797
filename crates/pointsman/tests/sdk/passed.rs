//! APIs that are passed on: what official clients send arrives as they sent it, with the model and
//! the key of the instance, and what comes back is read by them.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{
    Answer, Gateway, Received, Upstream,
    packages::{node, python, run, unavailable},
};

/// The same as in `translated/clients.rs`, so that both share what is installed.
const PYTHON_PACKAGES: &[&str] = &[
    "openai==3.57.0",
    "anthropic==2.13.0",
    "google-genai==3.6.1",
    "cohere==7.3.1",
    "boto3==1.44.8",
];

const NODE_PACKAGES: &[&str] = &["openai@7.57.0", "@anthropic-ai/sdk@1.14.0"];

/// `answer`, to who comes with the instance's key and what the client has said; it has all of `words`.
fn said(received: &Received, words: &[&str], answer: Answer) -> Answer {
    let text = received.text();
    let is_said = words.iter().all(|word| text.contains(word));
    if is_said && received.header("authorization") == Some("Bearer secret") {
        return answer;
    }
    Answer::status(
        422,
        r#"{"error":{"message":"not what was said","type":"scripted"}}"#,
    )
}

/// What is heard and seen.
fn scripted(received: &Received) -> Answer {
    let said = |words: &[&str], answer: Answer| said(received, words, answer);
    let form = |name: &str, value: &str| format!("name=\"{name}\"\r\n\r\n{value}\r\n");
    let text = received.text();
    match &*received.target {
        "/v1/audio/transcriptions" if text.contains(&form("stream", "true")) => said(
            &[&form("model", "m-1"), "\0sound\r\n"],
            Answer::events(&[
                r#"data: {"type":"transcript.text.delta","delta":"Hello"}"#,
                r#"data: {"type":"transcript.text.done","text":"Hello","usage":{"type":"tokens","input_tokens":1,"output_tokens":2,"total_tokens":3}}"#,
            ]),
        ),
        "/v1/audio/transcriptions" => said(
            &[&form("model", "m-1"), "filename=\"a b.mp3\"", "\0sound\r\n"],
            Answer::json(
                r#"{"text":"Hello","usage":{"type":"tokens","input_tokens":1,"output_tokens":2,"total_tokens":3}}"#,
            ),
        ),
        "/v1/audio/speech" => said(
            &[r#""model":"m-1""#, r#""input":"Hello""#],
            Answer::Whole {
                status: 200,
                kind: "audio/mpeg",
                body: "\0spoken".to_owned(),
                headers: Vec::new(),
            },
        ),
        "/v1/images/generations" => said(
            &[r#""model":"m-1""#, r#""prompt":"a cat""#],
            Answer::json(
                r#"{"created":1,"data":[{"b64_json":"AAAA"}],"usage":{"input_tokens":1,"output_tokens":2,"total_tokens":3,"input_tokens_details":{"text_tokens":1,"image_tokens":0}}}"#,
            ),
        ),
        "/v1/images/edits" => said(
            &[
                &form("model", "m-1"),
                &form("prompt", "a dog"),
                "\0one",
                "\0two",
            ],
            Answer::json(r#"{"created":1,"data":[{"b64_json":"BBBB"}]}"#),
        ),
        _ => scripted_text(received),
    }
}

/// What is read.
fn scripted_text(received: &Received) -> Answer {
    let said = |words: &[&str], answer: Answer| said(received, words, answer);
    match &*received.target {
        "/v1/moderations" => said(
            &[r#""model":"m-1""#, r#""input":"bad""#],
            Answer::json(
                r#"{"id":"m","model":"m-1","results":[{"flagged":true,"categories":{"violence":true},"category_scores":{"violence":0.9},"category_applied_input_types":{}}]}"#,
            ),
        ),
        "/v1/completions" => said(
            &[r#""model":"m-1""#, r#""prompt":"Hi""#],
            Answer::events(&[
                r#"data: {"id":"1","object":"text_completion","created":1,"model":"m-1","choices":[{"index":0,"text":"Hello ","finish_reason":null,"logprobs":null}]}"#,
                r#"data: {"id":"1","object":"text_completion","created":1,"model":"m-1","choices":[{"index":0,"text":"there","finish_reason":"stop","logprobs":null}]}"#,
                r#"data: {"id":"1","object":"text_completion","created":1,"model":"m-1","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}"#,
                "data: [DONE]",
            ]),
        ),
        "/v1/embeddings" => said(
            &[r#""model":"m-1""#, r#""input":["a","b"]"#],
            Answer::json(
                r#"{"object":"list","model":"m-1","data":[{"object":"embedding","index":0,"embedding":[1.0,0.0]},{"object":"embedding","index":1,"embedding":[0.5,-0.25]}],"usage":{"prompt_tokens":2,"total_tokens":2}}"#,
            ),
        ),
        "/v2/rerank" => said(
            &[r#""model":"m-1""#, r#""query":"q""#],
            Answer::json(
                r#"{"id":"r","results":[{"index":1,"relevance_score":0.9},{"index":0,"relevance_score":0.1}],"meta":{"api_version":{"version":"2"},"billed_units":{"search_units":1.0}}}"#,
            ),
        ),
        "/v1/messages/count_tokens" => said(
            &[r#""model":"m-1""#, r#""messages":"#],
            Answer::json(r#"{"input_tokens":14}"#),
        ),
        other => Answer::status(
            404,
            &format!("{{\"error\":{{\"message\":\"no script for {other}\"}}}}"),
        ),
    }
}

/// A route for each provider, with its name in front of every path.
fn gateway(upstream: &Upstream) -> Gateway {
    let route = |provider: &str| {
        format!(
            "- id: {provider}\n  uri: /{provider}/*\n  plugins:\n    ai-proxy-multi:\n      typed_passthrough: true\n      \
             max_req_body_size: 4000\n      instances:\n      - {{name: a, provider: {provider}, weight: 1, \
             auth: {{header: {{Authorization: Bearer secret}}}}, options: {{model: m-1}}, \
             override: {{endpoint: \"http://{}\"}}}}\n",
            upstream.address
        )
    };
    let routes = ["openai", "cohere", "anthropic"].map(route);
    Gateway::start(&format!("routes:\n{}", routes.concat()))
}

/// Runs `command` with the address of a gateway.
fn drive(command: &mut Command) {
    let upstream = Upstream::start(scripted);
    let gateway = gateway(&upstream);
    let result = run(command.arg(format!("http://{}", gateway.proxy)));
    let passed = (result.as_ref()).is_ok_and(|out| out.contains("all checks passed"));
    assert!(passed, "{result:?}\n{}", gateway.stderr());
    gateway.wait_until_idle();
}

/// Where a script is.
fn script(name: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    tests.join("sdk").join(name)
}

/// G-24
#[test]
fn official_python_clients_are_passed_on() {
    match python(PYTHON_PACKAGES, &[]) {
        Ok(python) => drive(Command::new(python).arg(script("passed_test.py"))),
        Err(error) => unavailable("the Python clients", &error),
    }
}

/// G-24
#[test]
fn official_node_clients_are_passed_on() {
    let folder = match node(NODE_PACKAGES) {
        Ok(folder) => folder,
        Err(error) => return unavailable("the Node clients", &error),
    };
    let copy = folder.join("passed_test.mjs");
    std::fs::copy(script("passed_test.mjs"), &copy).expect("copied");
    drive(Command::new("node").arg(copy));
}
