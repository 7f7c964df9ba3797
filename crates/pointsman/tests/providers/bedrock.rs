//! Bedrock's Converse: signatures, paths, event streams. Each case with `ai-proxy` and
//! `ai-proxy-multi`.

use serde_json::{Value, json};

use crate::support::{Answer, Gateway, Received, Upstream, aws, client::Response, post_json};

const KEYS: &str = "access_key_id: AKIDEXAMPLE, secret_access_key: secret-key";
const MODEL: &str = "anthropic.claude-3-5-sonnet-20241022-v2:0";
const ANSWER: &str = r#"{"output":{"message":{"role":"assistant","content":[{"text":"Hi"}]}},"stopReason":"end_turn","usage":{"inputTokens":13,"outputTokens":5,"totalTokens":18},"metrics":{"latencyMs":1}}"#;

/// One gateway for each of the two plugins, before `upstream`; `path` belongs to the endpoint.
fn gateways(upstream: &Upstream, keys: &str, more: &str, path: &str) -> [Gateway; 2] {
    let address = upstream.address;
    let instance = format!(
        "provider: bedrock, provider_conf: {{region: us-east-1}}, auth: {{aws: {{{keys}}}}}, \
         override: {{endpoint: \"http://{address}{path}\"}}{more}"
    );
    let start = |plugin: String| {
        Gateway::start(&format!(
            "routes: [{{id: 1, uri: /*, plugins: {{{plugin}}}}}]"
        ))
    };
    [
        start(format!("ai-proxy: {{{instance}}}")),
        start(format!(
            "ai-proxy-multi: {{instances: [{{name: b, weight: 1, {instance}}}]}}"
        )),
    ]
}

fn body(more: &Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": [{"text": "Hi"}]}]});
    for (name, value) in more.as_object().cloned().unwrap_or_default() {
        body[name] = value;
    }
    body
}

fn converse(gateway: &Gateway, more: &Value) -> Response {
    post_json(gateway.proxy, "/any/converse", &body(more).to_string())
}

fn bedrock() -> Upstream {
    Upstream::start(|_| Answer::json(ANSWER))
}

const OPTIONS: &str = ", options: {model: \"anthropic.claude-3-haiku-v1:0\"}";

/// P-073, P-074, P-075
#[test]
fn requests_are_signed_over_what_goes_out() {
    let upstream = bedrock();
    let path = "/model/anthropic.claude-3-haiku-v1%3A0/converse";
    for gateway in gateways(&upstream, KEYS, OPTIONS, path) {
        let more = json!({
            "model": "theirs",
            "system": [{"text": "Be kind."}],
            "inferenceConfig": {"maxTokens": 9, "temperature": 0.5},
        });
        let response = converse(&gateway, &more);
        assert_eq!((response.status, &*response.text()), (200, ANSWER));
        assert_eq!(response.json()["usage"]["inputTokens"], 13);
        let sent = upstream.last();
        assert_eq!((&*sent.method, &*sent.target), ("POST", path));
        let date = sent.header("x-amz-date").expect("a date").to_owned();
        let is_date = |(index, byte): (usize, u8)| match index {
            8 => byte == b'T',
            15 => byte == b'Z',
            _ => byte.is_ascii_digit(),
        };
        assert!(
            date.len() == 16 && date.bytes().enumerate().all(is_date),
            "{date}"
        );
        let authorization = sent.header("authorization").expect("a signature");
        let expected = format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/{}/us-east-1/bedrock/aws4_request, \
             SignedHeaders=host;x-amz-date, Signature=",
            &date[..8]
        );
        let signature = authorization.strip_prefix(&*expected).expect(authorization);
        assert_eq!(signature.len(), 64);
        assert!(aws::is_signed(&sent, "secret-key", "us-east-1"), "{sent:?}");
        assert!(!aws::is_signed(&sent, "other-key", "us-east-1"));
        let tampered = Received {
            body: b"{}".to_vec(),
            ..sent.clone()
        };
        assert!(!aws::is_signed(&tampered, "secret-key", "us-east-1"));

        let mut expected = body(&more);
        expected.as_object_mut().expect("an object").remove("model");
        assert_eq!(sent.json(), expected);
    }
}

/// P-076: spelt as configured, or encoded; in either case once.
#[test]
fn paths_are_encoded_once() {
    let upstream = bedrock();
    let arn =
        "arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Aapplication-inference-profile%2Fabc";
    let encoded = format!("/model/{arn}/converse");
    let raw = "/model/a.b:0/converse".to_owned();
    for (path, expected) in [(&encoded, &*encoded), (&raw, "/model/a.b%3A0/converse")] {
        for gateway in gateways(&upstream, KEYS, OPTIONS, path) {
            assert_eq!(converse(&gateway, &json!({})).status, 200);
            let sent = upstream.last();
            assert_eq!(sent.target, expected);
            assert!(aws::is_signed(&sent, "secret-key", "us-east-1"));
        }
    }
}

/// A query of the endpoint's is signed, too.
#[test]
fn queries_are_signed() {
    let upstream = bedrock();
    for gateway in gateways(&upstream, KEYS, OPTIONS, "/model/m/converse?z=1&a=x%20y%2F") {
        assert_eq!(converse(&gateway, &json!({})).status, 200);
        let sent = upstream.last();
        assert_eq!(sent.target, "/model/m/converse?z=1&a=x%20y%2F");
        assert!(aws::is_signed(&sent, "secret-key", "us-east-1"));
    }
}

/// P-077
#[test]
fn session_tokens_are_sent_and_signed() {
    let upstream = bedrock();
    let keys = format!("{KEYS}, session_token: \"of/a+session=\"");
    for gateway in gateways(&upstream, &keys, OPTIONS, "/model/m/converse") {
        assert_eq!(converse(&gateway, &json!({})).status, 200);
        let sent = upstream.last();
        assert_eq!(sent.header("x-amz-security-token"), Some("of/a+session="));
        let authorization = sent.header("authorization").expect("a signature");
        assert!(authorization.contains("SignedHeaders=host;x-amz-date;x-amz-security-token, "));
        assert!(aws::is_signed(&sent, "secret-key", "us-east-1"));
        assert!(!gateway.stderr().contains("session="));
    }
}

/// P-078, P-079
#[test]
fn the_clients_model_is_in_the_path() {
    let upstream = bedrock();
    for gateway in gateways(&upstream, KEYS, "", "") {
        let hits = upstream.hits();
        assert_eq!(converse(&gateway, &json!({ "model": MODEL })).status, 200);
        let sent = upstream.last();
        assert_eq!(
            sent.target,
            "/model/anthropic.claude-3-5-sonnet-20241022-v2%3A0/converse"
        );
        assert_eq!(sent.json(), body(&json!({})));
        assert!(aws::is_signed(&sent, "secret-key", "us-east-1"));

        let response = converse(&gateway, &json!({}));
        assert_eq!(response.status, 400);
        let told = response.text();
        assert!(told.contains("could not resolve upstream path"), "{told}");
        assert_eq!(upstream.hits(), hits + 1);
    }
}

/// The frames of a stream that ends with usage.
fn frames() -> Vec<Vec<u8>> {
    vec![
        aws::frame("messageStart", r#"{"role":"assistant"}"#),
        aws::frame(
            "contentBlockDelta",
            r#"{"contentBlockIndex":0,"delta":{"text":"Hi"}}"#,
        ),
        aws::frame("contentBlockStop", r#"{"contentBlockIndex":0}"#),
        aws::frame("messageStop", r#"{"stopReason":"end_turn"}"#),
        aws::frame(
            "metadata",
            r#"{"usage":{"inputTokens":13,"outputTokens":5,"totalTokens":18},"metrics":{"latencyMs":1}}"#,
        ),
    ]
}

/// An event stream for those who ask for one.
fn streaming() -> Upstream {
    Upstream::start(|received| {
        if !received.target.ends_with("/converse-stream") {
            return Answer::json(ANSWER);
        }
        let body = frames().concat();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.amazon.eventstream\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        Answer::Raw([head.as_bytes(), &body].concat())
    })
}

/// P-080, P-081, P-082
#[test]
fn streams_are_passed_on_as_they_are_and_counted() {
    let upstream = streaming();
    for gateway in gateways(&upstream, KEYS, OPTIONS, "") {
        let response = converse(&gateway, &json!({"stream": true, "model": "theirs"}));
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(
            response.header("content-type"),
            Some("application/vnd.amazon.eventstream")
        );
        assert_eq!(response.body, frames().concat());
        let sent = upstream.last();
        assert_eq!(
            sent.target,
            "/model/anthropic.claude-3-haiku-v1%3A0/converse-stream"
        );
        assert_eq!(sent.json(), body(&json!({})));
        assert!(aws::is_signed(&sent, "secret-key", "us-east-1"));
        let line = gateway.access_log(1).remove(0);
        let tokens = [
            "llm_prompt_tokens",
            "llm_completion_tokens",
            "llm_total_tokens",
        ];
        assert_eq!(
            tokens.map(|name| line[name].as_u64()),
            [13, 5, 18].map(Some)
        );
        assert_eq!(line["llm_stream"], true, "{line}");

        assert_eq!(converse(&gateway, &json!({})).text(), ANSWER);
        let whole = "/model/anthropic.claude-3-haiku-v1%3A0/converse";
        assert_eq!(upstream.last().target, whole);
        assert_eq!(gateway.access_log(2)[1]["llm_stream"], false);
    }
}
