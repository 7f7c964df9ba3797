//! Balancing by meaning: who is asked, and what happens when meaning cannot be had.

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{
    Answer, Gateway, Response, Upstream,
    embeddings::{Embeddings, Three, texts, vectors},
    multi, post_json, request, wait_until,
};

fn chat(content: &Value) -> String {
    json!({"model": "m", "messages": [{"role": "system", "content": "translate"},
        {"role": "user", "content": content}, {"role": "assistant", "content": "chat"}]})
    .to_string()
}

fn ask(gateway: &Gateway, prompt: &str) -> Response {
    post_json(gateway.proxy, "/v1/chat/completions", &chat(&json!(prompt)))
}

/// Who answered.
fn served(response: &Response) -> String {
    assert_eq!(response.status, 200, "{}", response.text());
    let model = &response.json()["model"];
    model.as_str().expect("a model").to_owned()
}

fn picked(response: &Response) -> Option<&str> {
    response.header("x-ai-semantic-picked-instance")
}

fn started(document: &str) -> Gateway {
    let gateway = Gateway::start(document);
    gateway.wait_for_line("the examples have their vectors");
    gateway
}

/// B-013, B-110, B-111, B-114, B-122
#[test]
fn a_prompt_goes_to_the_instance_that_it_resembles() {
    let (embeddings, three) = (Embeddings::start(), Three::start());
    let options = embeddings.options(", threshold: 0.9, fallback: default", "");
    let gateway = started(&multi(&three.instances(""), &options));
    // All examples in one batch, before anybody asks.
    let batch = embeddings.upstream.last();
    assert_eq!(embeddings.upstream.hits(), 1);
    let examples = ["write code", "do both", "translate this", "let us chat"];
    assert_eq!(texts(&batch), examples);

    let code = ask(&gateway, "fix my code");
    assert_eq!(
        (served(&code).as_str(), picked(&code)),
        ("code", Some("code"))
    );
    assert_eq!(
        code.header("x-ai-semantic-scores"),
        Some("code:1.0000,cheap:0.0000,default:0.0000")
    );
    let cheap = ask(&gateway, "please translate");
    assert_eq!(
        (served(&cheap).as_str(), picked(&cheap)),
        ("cheap", Some("cheap"))
    );
    assert_eq!(
        cheap.header("x-ai-semantic-scores"),
        Some("cheap:1.0000,code:0.6380,default:0.0000")
    );
    let other = ask(&gateway, "what is the weather");
    assert_eq!(
        (served(&other).as_str(), picked(&other)),
        ("default", Some("fallback"))
    );

    let log = gateway.access_log(3);
    let of = |line: &Value| (line["balancer_ip"].clone(), line["semantic_picked"].clone());
    assert_eq!(of(&log[0]), (json!("code"), json!("code")));
    assert_eq!(of(&log[2]), (json!("default"), json!("fallback")));
    assert_eq!(
        log[1]["semantic_scores"],
        "cheap:1.0000,code:0.6380,default:0.0000"
    );
    // Without `debugging` nothing shows.
    let quiet = options.replace("debugging: true", "debugging: false");
    gateway.reload(&multi(&three.instances(""), &quiet));
    let response = ask(&gateway, "code");
    assert_eq!(
        (served(&response).as_str(), picked(&response)),
        ("code", None)
    );
    assert_eq!(response.header("x-ai-semantic-scores"), None);
    assert_eq!(embeddings.batches(), 1);
    gateway.wait_until_idle();
}

/// B-116
#[test]
fn the_endpoint_learns_nothing_of_the_client() {
    let (embeddings, three) = (Embeddings::start(), Three::start());
    let options = embeddings.options(", threshold: 0.9, fallback: default", "");
    let gateway = started(&multi(&three.instances(""), &options));
    let headers = [
        ("Content-Type", "application/json"),
        ("Cookie", "secret=1"),
        ("X-Own", "2"),
        ("Authorization", "Bearer client"),
    ];
    let body = chat(&json!("code"));
    let response = request(
        gateway.proxy,
        "POST",
        "/v1/chat/completions?a=b",
        &headers,
        &body,
    );
    assert_eq!(served(&response), "code");
    let asked = embeddings.upstream.last();
    assert_eq!(
        (asked.method.as_str(), asked.target.as_str(), asked.json()),
        (
            "POST",
            "/v1/embeddings",
            json!({"model": "e", "input": ["code"]})
        )
    );
    let mut names: Vec<String> = (asked.headers.iter())
        .map(|(name, _)| name.to_ascii_lowercase())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["authorization", "content-length", "content-type", "host"]
    );
    assert_eq!(asked.header("authorization"), Some("Bearer embed"));
}

/// What an endpoint may answer instead of a vector.
fn broken_answers() -> Vec<Answer> {
    let of = |vector: &str| {
        Answer::json(&format!(
            r#"{{"data":[{{"index":0,"embedding":{vector}}}]}}"#
        ))
    };
    let long = format!("[{}1]", "1,".repeat(400_000));
    let echo = r#"{"error":"cannot embed: fix my code ECHO"}"#;
    vec![
        Answer::status(500, echo),
        Answer::status(429, echo),
        Answer::status(204, ""),
        Answer::status(201, r#"{"data":[{"index":0,"embedding":[1,0,0,0]}]}"#),
        Answer::json("null"),
        Answer::json("ECHO"),
        Answer::json(r#"{"data":[1,2,3]}"#),
        Answer::json(r#"{"data":[{"index":1,"embedding":[1,0,0,0]}]}"#),
        Answer::json(r#"{"data":[{"index":0.5,"embedding":[1,0,0,0]}]}"#),
        of("null"),
        of("[]"),
        of("[1e999,0,0,0]"),
        of("[\"ECHO\",0,0,0]"),
        of("[1,0,0]"),
        of(&long),
        Answer::Close,
        Answer::Silence,
        Answer::Drip(b'x', Duration::from_millis(20)),
        Answer::Raw(b"ECHO nothing of HTTP\r\n\r\n".to_vec()),
        Answer::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{\"data\":".to_vec()),
    ]
}

/// B-112, B-113: whatever the endpoint does, the client gets an answer, and the log no prompt.
#[test]
fn without_a_vector_the_fallback_answers() {
    let broken = broken_answers();
    let count = broken.len();
    let whats: Vec<String> = (broken.iter())
        .map(|answer| format!("{answer:.60?}"))
        .collect();
    // One model for each, since one that fails is not asked again; and a sound one.
    let upstream = Upstream::start(move |received| {
        let body = received.json();
        let model = body["model"]
            .as_str()
            .and_then(|name| name[1..].parse().ok());
        let answer = model.and_then(|number: usize| broken.get(number));
        let is_prompt = texts(received).len() == 1;
        let told = answer.filter(|_| is_prompt).cloned();
        told.unwrap_or_else(|| vectors(received, &[]))
    });
    let three = Three::start();
    let instances = three.instances("").join(", ");
    let routes = (0..=count).map(|number| {
        format!(
            "{{id: r{number}, uri: /{number}/*, plugins: {{ai-proxy-multi: {{instances: [{instances}], \
             balancer: {{algorithm: semantic}}, semantic_opts: {{embeddings: {{provider: openai, model: \
             e{number}, timeout: 300, auth: {{header: {{Authorization: Bearer embed}}}}, endpoint: \
             \"http://{}\"}}, debugging: true, fallback: default}}}}}}}}",
            upstream.address
        )
    });
    let routes = routes.collect::<Vec<_>>().join(", ");
    let gateway = Gateway::start(&format!("routes: [{routes}]"));
    gateway.wait_for_lines("the examples have their vectors", count + 1);
    let ask = |number: usize, prompt: &str| {
        let path = format!("/{number}/v1/chat/completions");
        post_json(gateway.proxy, &path, &chat(&json!(prompt)))
    };
    for (number, what) in whats.iter().enumerate() {
        let response = ask(number, "fix my code ECHO");
        assert_eq!(
            (served(&response).as_str(), picked(&response)),
            ("default", None),
            "{what}"
        );
        assert_eq!(response.header("x-ai-semantic-scores"), None, "{what}");
    }
    assert_eq!(served(&ask(count, "fix my code")), "code");
    let lines = gateway.access_log(count + 1);
    for line in &lines[..count] {
        assert!(line["semantic_unscored"].is_string(), "{line}");
        assert_eq!(line["balancer_ip"], "default");
    }
    let said = format!("{}{lines:?}", gateway.stderr());
    assert!(said.contains("the embeddings endpoint answered 500"));
    assert!(!said.contains("ECHO"), "{said}");
    assert!(!said.contains("Bearer embed"), "{said}");
    gateway.wait_until_idle();
}

/// An endpoint that has failed is asked by no request until it has answered in the background: nobody
/// else waits for it, and the log says so once.
#[test]
fn an_endpoint_that_is_out_holds_nobody_up() {
    let (embeddings, three) = (Embeddings::start(), Three::start());
    let options = embeddings
        .options(", fallback: default", "")
        .replace("model: e", "model: e, timeout: 300");
    let gateway = started(&multi(&three.instances(""), &options));
    let prompts = || {
        let requests = embeddings.upstream.requests();
        let prompts = requests.iter().filter(|one| texts(one).len() == 1);
        prompts.count()
    };
    // A text that the model refuses says nothing about others.
    embeddings.answer_prompts(Some(Answer::status(400, "{}")));
    assert_eq!(served(&ask(&gateway, "fix my code")), "default");
    embeddings.answer_prompts(None);
    assert_eq!(served(&ask(&gateway, "fix my code")), "code");
    assert_eq!(prompts(), 2);

    embeddings.answer_prompts(Some(Answer::Silence));
    embeddings.answer_batches(Some(Answer::Silence));
    for _ in 0..20 {
        assert_eq!(served(&ask(&gateway, "fix my code")), "default");
    }
    // Its own retries have failed as well.
    wait_until("two retries", || (embeddings.batches() >= 3).then_some(()));
    assert_eq!(served(&ask(&gateway, "fix my code")), "default");
    assert_eq!(prompts(), 3);
    let log = gateway.stderr();
    let told = log
        .lines()
        .filter(|line| line.contains("WARN") && line.contains("semantic"));
    assert_eq!(told.count(), 1, "{log}");
    let lines = gateway.access_log(23);
    assert_eq!(
        lines[22]["semantic_unscored"],
        "the embeddings endpoint has failed and is not asked for now"
    );

    embeddings.answer_prompts(None);
    embeddings.answer_batches(None);
    gateway.wait_for_lines("the examples have their vectors", 2);
    assert_eq!(served(&ask(&gateway, "fix my code")), "code");
}

/// B-117, B-119: until the examples have their vectors, the first instance answers; a failure is
/// tried again.
#[test]
fn examples_are_tried_again_until_they_have_vectors() {
    let (embeddings, three) = (Embeddings::start(), Three::start());
    embeddings.answer_batches(Some(Answer::status(503, r#"{"error":"write code ECHO"}"#)));
    let gateway = Gateway::start(&multi(&three.instances(""), &embeddings.options("", "")));
    gateway.wait_for_line("no vectors of the examples");
    let response = ask(&gateway, "please translate");
    assert_eq!(
        (served(&response).as_str(), picked(&response)),
        ("code", None)
    );
    assert_eq!(embeddings.batches(), embeddings.upstream.hits());
    embeddings.answer_batches(None);
    gateway.wait_for_line("the examples have their vectors");
    assert_eq!(served(&ask(&gateway, "please translate")), "cheap");
    assert!(!gateway.stderr().contains("ECHO"));
    let line = gateway.access_log(1).remove(0);
    assert_eq!(
        line["semantic_unscored"],
        "the examples have no vectors yet"
    );
}

/// What did not change needs no new vectors: not one request goes astray after a reload.
#[test]
fn vectors_outlive_a_reload() {
    let (embeddings, three) = (Embeddings::start(), Three::start());
    let options = embeddings.options(", threshold: 0.9, fallback: default", "");
    let gateway = started(&multi(&three.instances(""), &options));
    embeddings.answer_batches(Some(Answer::status(500, "")));
    let changed = multi(&three.instances(", priority: 3"), &options);
    let renamed = changed.replace("id: 1", "id: other");
    for document in [&changed, &renamed] {
        gateway.reload(document);
        assert_eq!(served(&ask(&gateway, "fix my code")), "code");
    }
    assert_eq!(embeddings.batches(), 1);
    // Another example: what there was is of no use.
    gateway.reload(&renamed.replace("let us chat", "a chat"));
    gateway.wait_for_line("no vectors of the examples");
    assert_eq!(served(&ask(&gateway, "fix my code")), "default");
}

/// Another model behind the same endpoint: its vectors are noticed, and all are made anew.
#[test]
fn vectors_that_no_longer_fit_are_made_anew() {
    let (embeddings, three) = (Embeddings::start(), Three::start());
    let options = embeddings.options(", threshold: 0.9, fallback: default", "");
    let gateway = started(&multi(&three.instances(""), &options));
    *embeddings.pad.lock().expect("not poisoned") = vec![0.0, 0.0];
    assert_eq!(served(&ask(&gateway, "fix my code")), "default");
    gateway.wait_for_lines("the examples have their vectors", 2);
    assert_eq!(served(&ask(&gateway, "fix my code")), "code");
}

/// B-118
#[test]
fn azure_is_asked_at_its_full_address() {
    let (embeddings, three) = (Embeddings::start(), Three::start());
    let azure = format!(
        "{}/openai/deployments/d/embeddings?api-version=2024-02-01",
        embeddings.upstream.address
    );
    let options = embeddings
        .options(", threshold: 0.9, fallback: default", "")
        .replace("provider: openai", "provider: azure-openai")
        .replace(
            "{header: {Authorization: Bearer embed}}",
            "{header: {api-key: k}, query: {sig: a b}}",
        )
        .replace(&embeddings.upstream.address.to_string(), &azure);
    let gateway = started(&multi(&three.instances(""), &options));
    assert_eq!(served(&ask(&gateway, "fix my code")), "code");
    for asked in embeddings.upstream.requests() {
        assert_eq!(
            asked.target,
            "/openai/deployments/d/embeddings?sig=a%20b&api-version=2024-02-01"
        );
        assert_eq!(asked.header("api-key"), Some("k"));
    }
}

/// B-120
#[test]
fn an_instance_may_ask_for_more_likeness() {
    let (embeddings, three) = (Embeddings::start(), Three::start());
    let options = embeddings.options(", threshold: 0.1, fallback: default", "");
    let mut instances = three.instances("");
    instances[0] = instances[0].replace("do both", "more code");
    let gateway = started(&multi(&instances, &options));
    let response = ask(&gateway, "do both");
    assert_eq!(
        (served(&response).as_str(), picked(&response)),
        ("code", Some("code"))
    );
    instances[0] = instances[0].replace("weight: 1", "weight: 1, threshold: 0.9");
    gateway.reload(&multi(&instances, &options));
    let response = ask(&gateway, "do both");
    assert_eq!(
        (served(&response).as_str(), picked(&response)),
        ("cheap", Some("cheap"))
    );
    instances[1] = instances[1].replace("weight: 1", "weight: 1, threshold: 0.9");
    gateway.reload(&multi(&instances, &options));
    let response = ask(&gateway, "do both");
    assert_eq!(
        (served(&response).as_str(), picked(&response)),
        ("default", Some("fallback"))
    );
}

/// B-115, B-121
#[test]
fn every_protocol_has_a_prompt() {
    let (embeddings, three) = (Embeddings::start(), Three::start());
    let options = embeddings.options(", threshold: 0.9, fallback: default", "");
    let gateway = started(&multi(&three.instances(""), &options));
    let parts = json!([{"type": "image_url", "image_url": {"url": "data:x"}},
        {"type": "text", "text": "some"}, {"type": "text", "text": "code"}]);
    let chat = chat(&parts);
    let responses = json!({"model": "m", "input": "code"}).to_string();
    let items = json!({"model": "m", "input": [{"role": "user", "content": [{"type": "input_text",
        "text": "code"}]}]});
    for (path, body, text) in [
        ("/v1/chat/completions", chat.as_str(), "some code"),
        ("/v1/responses", &responses, "code"),
        ("/v1/responses", &items.to_string(), "code"),
    ] {
        let response = post_json(gateway.proxy, path, body);
        assert_eq!(
            (response.status, picked(&response)),
            (200, Some("code")),
            "{body}"
        );
        assert_eq!(texts(&embeddings.upstream.last()), [text]);
    }
    // No text of a user: nobody is asked for its meaning.
    let asked = embeddings.upstream.hits();
    let empty = json!({"model": "m", "messages": [{"role": "system", "content": "code"}]});
    let response = post_json(gateway.proxy, "/v1/chat/completions", &empty.to_string());
    assert_eq!(
        (served(&response).as_str(), picked(&response)),
        ("default", None)
    );
    assert_eq!(embeddings.upstream.hits(), asked);
    // As much as is compared, cut between characters.
    let long = format!("code{}", "é".repeat(9000));
    assert_eq!(served(&ask(&gateway, &long)), "code");
    assert_eq!(texts(&embeddings.upstream.last()), [&long[..16_384]]);

    let anthropic: Vec<String> = (three.instances("").iter())
        .map(|one| one.replace("openai-compatible", "anthropic"))
        .collect();
    gateway.reload(&multi(&anthropic, &options));
    let message = json!({"model": "m", "max_tokens": 1, "system": "translate", "messages": [{"role":
        "user", "content": [{"type": "text", "text": "code"}]}]});
    let response = post_json(gateway.proxy, "/v1/messages", &message.to_string());
    assert_eq!((response.status, picked(&response)), (200, Some("code")));
}

const CHECKS: &str = ", checks: {active: {type: http, http_path: /health, healthy: {interval: 1, \
                      successes: 1}, unhealthy: {interval: 1, http_failures: 1, tcp_failures: 1, timeouts: 1}}}";

/// I-2, I-3: likeness never leads to an instance that is known to be down while another is up.
#[test]
fn health_comes_before_likeness() {
    let (embeddings, three) = (Embeddings::start(), Three::start());
    let options = embeddings.options(", threshold: 0.5, fallback: default", "");
    let gateway = started(&multi(&three.instances(CHECKS), &options));
    let go = |prompt: &str, expected: (&str, &str)| {
        let response = ask(&gateway, prompt);
        let served = served(&response);
        assert_eq!(
            (served.as_str(), picked(&response).unwrap_or("")),
            expected,
            "{prompt}"
        );
    };
    let down = |upstream: &Upstream| {
        upstream.set_healthy(false);
        gateway.wait_for_status(upstream.port(), "unhealthy");
    };
    go("do both", ("code", "code"));
    down(&three.code);
    // The next that reaches its threshold; else the fallback.
    go("do both", ("cheap", "cheap"));
    go("fix my code", ("default", "fallback"));
    down(&three.default);
    // Somebody who suits badly is better than nobody, and than somebody who is down.
    go("fix my code", ("cheap", "fallback"));
    down(&three.cheap);
    // Nobody is up: as if nobody were checked.
    go("fix my code", ("code", "code"));
    assert_eq!(three.hits(), [2, 2, 1]);
    three.code.set_healthy(true);
    gateway.wait_for_status(three.code.port(), "healthy");
    go("please translate", ("code", "code"));
}

/// I-23, I-25: retries obey the same rules as everywhere, and follow the order of likeness.
#[test]
fn a_retry_goes_to_the_next_that_suits() {
    let embeddings = Embeddings::start();
    let (code, cheap) = (Upstream::failing(500), Upstream::failing(500));
    let three = Three {
        code,
        cheap,
        default: Upstream::named("default"),
    };
    let opts = ", threshold: 0.5, fallback: default";
    let plain = multi(&three.instances(""), &embeddings.options(opts, ""));
    let gateway = started(&plain);
    // Without a strategy the failure is the answer.
    let response = ask(&gateway, "do both");
    assert_eq!((response.status, picked(&response)), (500, Some("code")));
    assert_eq!(three.hits(), [1, 0, 0]);

    let strategy = "        fallback_strategy: http_5xx\n";
    gateway.reload(&multi(
        &three.instances(""),
        &embeddings.options(opts, strategy),
    ));
    let asked = embeddings.upstream.hits();
    let response = ask(&gateway, "do both");
    assert_eq!(
        (served(&response).as_str(), picked(&response)),
        ("default", Some("fallback"))
    );
    assert_eq!(three.hits(), [2, 1, 1]);
    assert_eq!(
        embeddings.upstream.hits(),
        asked + 1,
        "the meaning is asked for once"
    );

    let once = format!("{strategy}        max_retries: 1\n");
    gateway.reload(&multi(
        &three.instances(""),
        &embeddings.options(opts, &once),
    ));
    assert_eq!(ask(&gateway, "do both").status, 500);
    assert_eq!(three.hits(), [3, 2, 1]);
    assert_eq!(embeddings.batches(), 1);

    // Everybody fails: each was asked once, and the last failure is the answer.
    let bad = Three {
        code: Upstream::failing(500),
        cheap: Upstream::failing(502),
        default: Upstream::failing(503),
    };
    gateway.reload(&multi(
        &bad.instances(""),
        &embeddings.options(opts, strategy),
    ));
    let response = ask(&gateway, "fix my code");
    assert_eq!((response.status, bad.hits()), (502, [1, 1, 1]));
    assert_eq!(
        response.text(),
        "{\"error\":\"status 502\"}",
        "the fallback came before it"
    );
}

/// Who leaves while the meaning is asked for takes that question along.
#[test]
fn the_question_ends_with_the_client() {
    let (embeddings, three) = (Embeddings::start(), Three::start());
    let options = embeddings
        .options("", "")
        .replace("model: e", "model: e, timeout: 60000");
    let gateway = started(&multi(&three.instances(""), &options));
    embeddings.answer_prompts(Some(Answer::Silence));
    wait_until("the batch's connection to be gone or idle", || {
        Some(embeddings.upstream.open()).filter(|open| *open <= 1)
    });
    let before = embeddings.upstream.open();
    let body = chat(&json!("fix my code"));
    let mut client = support::client::Connection::open(gateway.proxy);
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    client.send(head.as_bytes());
    wait_until("the question", || {
        (embeddings.upstream.hits() > 1).then_some(())
    });
    assert_eq!(embeddings.upstream.open(), before + 1);
    #[expect(clippy::disallowed_methods, reason = "tests measure real time")]
    let left = Instant::now();
    drop(client);
    wait_until("its connection to close", || {
        (embeddings.upstream.open() <= before).then_some(())
    });
    assert!(left.elapsed() < Duration::from_secs(10));
    gateway.wait_until_idle();
    assert_eq!(three.hits(), [0; 3]);
}
