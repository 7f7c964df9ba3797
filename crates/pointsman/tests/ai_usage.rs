//! What streams and answers of each provider and protocol leave in log and metrics.

mod support;

use std::time::Duration;

use serde_json::Value;
use support::{
    Answer, CHAT, Gateway, Start, Upstream, client::Connection, instance, multi, post_json,
    request, single, wait_until,
};

const STREAM: &str = r#"{"model":"gpt-4","stream":true,"messages":[]}"#;

/// The line that one request to a provider leaves, when the upstream answers so.
fn line(provider: &str, target: &str, body: &str, answer: &Answer) -> Value {
    let answer = answer.clone();
    let upstream = Upstream::start(move |_| answer.clone());
    let gateway = Gateway::start(&single(provider, upstream.address, ""));
    let response = post_json(gateway.proxy, target, body);
    assert_eq!((response.status, response.complete), (200, true));
    gateway.access_log(1).remove(0)
}

/// prompt, completion, total, cache read, cache creation, reasoning, and whether a tool was called.
fn check(line: &Value, expected: [u64; 6], tool: bool) {
    let names = [
        "llm_prompt_tokens",
        "llm_completion_tokens",
        "llm_total_tokens",
        "llm_cache_read_input_tokens",
        "llm_cache_creation_input_tokens",
        "llm_reasoning_tokens",
    ];
    let found = names.map(|name| line[name].as_u64().unwrap_or(u64::MAX));
    assert_eq!(found, expected, "{line}");
    assert_eq!(line["llm_has_tool_calls"], tool, "{line}");
}

/// P-161
#[test]
fn chat_usage_has_its_details() {
    let usage = r#""usage":{"prompt_tokens":20,"completion_tokens":9,"total_tokens":29,"prompt_tokens_details":{"cached_tokens":10,"cache_creation_input_tokens":5},"completion_tokens_details":{"reasoning_tokens":7}}"#;
    let chunk = format!(r#"data: {{"choices":[],{usage}}}"#);
    let stream = Answer::events(&[
        r#"data: {"choices":[{"delta":{"content":"a"}}]}"#,
        &chunk,
        "data: [DONE]",
    ]);
    check(
        &line("openai", "/x", STREAM, &stream),
        [20, 9, 29, 10, 5, 7],
        false,
    );
    let whole = usage.replace(
        ",\"completion_tokens_details\":{\"reasoning_tokens\":7}",
        "",
    );
    let whole = Answer::json(&format!(r#"{{"choices":[],{whole}}}"#));
    check(
        &line("openai", "/x", CHAT, &whole),
        [20, 9, 29, 10, 5, 0],
        false,
    );
}

/// P-163
#[test]
fn responses_usage_has_its_details() {
    let usage = |cached: u32, reasoning: u32| {
        format!(
            r#""usage":{{"input_tokens":20,"output_tokens":10,"total_tokens":30,"input_tokens_details":{{"cached_tokens":{cached}}},"output_tokens_details":{{"reasoning_tokens":{reasoning}}}}}"#
        )
    };
    let completed = format!(
        "event: response.completed\ndata: {{\"type\":\"response.completed\",\"response\":{{\"output\":[{{\"type\":\"function_call\"}}],{}}}}}",
        usage(10, 3)
    );
    let stream = Answer::events(&[
        "event: response.output_text.delta\ndata: {\"delta\":\"Hi\"}",
        &completed,
    ]);
    let asked = r#"{"input":"x","stream":true}"#;
    check(
        &line("openai", "/v1/responses", asked, &stream),
        [20, 10, 30, 10, 0, 3],
        true,
    );
    let whole = Answer::json(&format!(
        r#"{{"output":[{{"type":"function_call","name":"f"}}],{}}}"#,
        usage(12, 8)
    ));
    check(
        &line("openai", "/v1/responses", r#"{"input":"x"}"#, &whole),
        [20, 10, 30, 12, 0, 8],
        true,
    );
}

/// P-164, P-165
#[test]
fn anthropic_usage_is_merged_over_the_stream() {
    let stream = |start: &str, block: &str, delta: &str| {
        Answer::events(&[
            &format!(
                "event: message_start\ndata: {{\"type\":\"message_start\",\"message\":{{\"usage\":{start}}}}}"
            ),
            &format!(
                "event: content_block_start\ndata: {{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{block}}}"
            ),
            "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}",
            &format!(
                "event: message_delta\ndata: {{\"type\":\"message_delta\",\"delta\":{{}},\"usage\":{delta}}}"
            ),
            "event: message_stop\ndata: {\"type\":\"message_stop\"}",
        ])
    };
    let text = r#"{"type":"text","text":""}"#;
    let tool = r#"{"type":"tool_use","id":"t","name":"f","input":{}}"#;
    let asked = r#"{"model":"claude","max_tokens":9,"stream":true,"messages":[]}"#;
    let of = |answer: &Answer, asked: &str| line("anthropic", "/v1/messages", asked, answer);
    let plain = stream(
        r#"{"input_tokens":10,"output_tokens":1}"#,
        text,
        r#"{"output_tokens":8}"#,
    );
    check(&of(&plain, asked), [10, 8, 18, 0, 0, 0], false);
    let tools = stream(
        r#"{"input_tokens":20,"output_tokens":1}"#,
        tool,
        r#"{"output_tokens":5}"#,
    );
    check(&of(&tools, asked), [20, 5, 25, 0, 0, 0], true);
    let cached = r#"{"input_tokens":50,"output_tokens":1,"cache_creation_input_tokens":100,"cache_read_input_tokens":200}"#;
    let stream = stream(cached, text, r#"{"output_tokens":30}"#);
    check(&of(&stream, asked), [50, 30, 80, 200, 100, 0], false);
    let whole = Answer::json(&format!(
        r#"{{"type":"message","content":[],"usage":{}}}"#,
        cached.replace(":1,", ":30,")
    ));
    let asked = asked.replace("\"stream\":true,", "");
    check(&of(&whole, &asked), [50, 30, 80, 200, 100, 0], false);
}

/// A response repeats what the client sent. That must not hide what it cost.
#[test]
fn a_client_cannot_hide_its_usage() {
    for sent in [r#""\ud83d""#, "1e999"] {
        let end = format!(
            "event: response.completed\ndata: {{\"response\":{{\"instructions\":{sent},\"output\":[{{\"type\":\"function_call\"}}],\
             \"usage\":{{\"input_tokens\":5,\"output_tokens\":3,\"total_tokens\":8}}}}}}"
        );
        let body = format!(r#"{{"input":"x","instructions":{sent},"stream":true}}"#);
        let line = line("openai", "/v1/responses", &body, &Answer::events(&[&end]));
        check(&line, [5, 3, 8, 0, 0, 0], true);
    }
}

/// What a stream that was cut had written so far counts, and is marked as what it is; a provider's own numbers
/// stay. Only where that is asked for.
#[test]
fn tokens_that_nobody_stated_are_estimated() {
    const CHAT: &str =
        r#"{"model":"gpt-4","stream":true,"messages":[{"role":"user","content":"one two three"}]}"#;
    const MESSAGES: &str = r#"{"model":"c","stream":true,"max_tokens":9,"messages":[{"role":"user","content":"one two three"}]}"#;
    let chat = [
        r#"data: {"choices":[{"delta":{"content":"one two three"}}]}"#,
        r#"data: {"choices":[{"delta":{"content":" four five"}}]}"#,
    ];
    let stated = r#"data: {"choices":[],"usage":{"prompt_tokens":30,"completion_tokens":9,"total_tokens":39}}"#;
    let anthropic = [
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":12,\"output_tokens\":1}}}",
        "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}",
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"one two three four five\"}}",
    ];
    let cut = |events: &[&str]| match Answer::events(events) {
        Answer::Stream { pieces, pause, .. } => Answer::Stream {
            pieces,
            pause,
            ends: false,
        },
        other => other,
    };
    let line = |provider: &str, target: &str, body: &str, answer: Answer, more: &str| {
        let upstream = Upstream::start(move |_| answer.clone());
        let gateway = Gateway::start(&single(provider, upstream.address, more));
        post_json(gateway.proxy, target, body);
        gateway.access_log(1).remove(0)
    };
    let on = "        estimate_usage: true\n";
    let path = "/v1/chat/completions";
    let estimated = line("openai", path, CHAT, cut(&chat), on);
    check(&estimated, [7, 5, 12, 0, 0, 0], false);
    assert_eq!(estimated["llm_usage_estimated"], true, "{estimated}");
    // It ends well, and says nothing of its tokens all the same.
    let silent = [chat[0], chat[1], "data: [DONE]"];
    let estimated = line("openai", path, CHAT, Answer::events(&silent), on);
    check(&estimated, [7, 5, 12, 0, 0, 0], false);
    let told = line("openai", path, CHAT, cut(&[chat[0], stated]), on);
    check(&told, [30, 9, 39, 0, 0, 0], false);
    assert_eq!(told.get("llm_usage_estimated"), None, "{told}");
    let both = line("anthropic", "/v1/messages", MESSAGES, cut(&anthropic), on);
    check(&both, [12, 5, 17, 0, 0, 0], false);
    assert_eq!(both["llm_usage_estimated"], true, "{both}");
    let off = line("openai", path, CHAT, cut(&chat), "");
    check(&off, [0; 6], false);
    assert_eq!(off.get("llm_usage_estimated"), None, "{off}");
}

/// P-158: the time to the first token is that of the first event, not of the last.
#[test]
fn the_first_token_of_a_stream_has_its_time() {
    let pause = Duration::from_millis(200);
    let pieces = [
        "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":15,\"completion_tokens\":20,\"total_tokens\":35}}\n\n",
        "data: [DONE]\n\n",
    ];
    let upstream = Upstream::start(move |_| Answer::Stream {
        pieces: pieces
            .iter()
            .map(|piece| piece.as_bytes().to_vec())
            .collect(),
        pause,
        ends: true,
    });
    let gateway = Gateway::start(&multi(&[instance("a", upstream.address, "")], ""));
    assert!(post_json(gateway.proxy, "/x", STREAM).complete);
    let line = gateway.access_log(1).remove(0);
    let ms = |name: &str| line[name].as_u64().unwrap_or_default();
    let (first, whole) = (
        ms("llm_time_to_first_token"),
        ms("apisix_upstream_response_time"),
    );
    // Two pauses lie between the first event and the end, however slow the machine is.
    assert!(first >= 200 && whole >= first + 390, "{line}");
    check(&line, [15, 20, 35, 0, 0, 0], false);
    // P-175
    let page = gateway.metrics();
    for kind in ["total", "ttft"] {
        let start = format!("apisix_llm_latency_count{{type=\"{kind}\"");
        let series = page.lines().find(|line| line.starts_with(&start));
        let series = series.unwrap_or_else(|| panic!("no {start}: {page}"));
        assert!(
            series.contains("request_type=\"ai_stream\"") && series.ends_with(" 1"),
            "{series}"
        );
    }
}

/// P-174
#[test]
fn requests_under_way_are_counted_while_they_are() {
    let upstream = Upstream::start(|_| Answer::Silence);
    let gateway = Gateway::start(&multi(&[instance("a", upstream.address, "")], ""));
    let clients: Vec<Connection> = (0..3)
        .map(|_| {
            let mut client = Connection::open(gateway.proxy);
            let head = format!(
                "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{CHAT}",
                CHAT.len()
            );
            client.send(head.as_bytes());
            client
        })
        .collect();
    wait_until("three under way", || {
        let line = gateway.metric(&["apisix_llm_active_connections{", "node=\"a\""]);
        ((line - 3.0).abs() < f64::EPSILON).then_some(())
    });
    drop(clients);
    wait_until("none under way", || {
        let line = gateway.metric(&["apisix_llm_active_connections{", "node=\"a\""]);
        (line.abs() < f64::EPSILON).then_some(())
    });
}

/// P-066, P-067: every provider, its endpoint with a path, whole and streamed.
#[test]
fn every_provider_relays_chats_and_streams() {
    let events: Vec<String> = (0..5)
        .map(|n| format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{n}\"}}}}]}}\n\n"))
        .chain(["data: [DONE]\n\n".to_owned()])
        .collect();
    let text = events.concat();
    let pieces: Vec<Vec<u8>> = events.into_iter().map(String::into_bytes).collect();
    let upstream = Upstream::start(move |received| {
        if received.text().contains("\"stream\":true") {
            Answer::Stream {
                pieces: pieces.clone(),
                pause: Duration::ZERO,
                ends: true,
            }
        } else {
            Answer::chat("model")
        }
    });
    for provider in [
        "openai-compatible",
        "azure-openai",
        "gemini",
        "openrouter",
        "deepseek",
        "aimlapi",
    ] {
        let one = format!(
            "{{name: one, provider: {provider}, weight: 1, auth: {{header: {{Authorization: Bearer token}}}}, \
             override: {{endpoint: \"http://{}/v1/chat/completions\"}}}}",
            upstream.address
        );
        let gateway = Gateway::start(&multi(&[one], ""));
        let whole = post_json(gateway.proxy, "/x", CHAT);
        assert_eq!(
            (whole.status, whole.text()),
            (200, support::upstream::chat_body("model"))
        );
        let sent = upstream.last();
        assert_eq!(sent.target, "/v1/chat/completions", "{provider}");
        let has_model = sent.json().get("model").is_some();
        assert_eq!(has_model, provider != "azure-openai", "{provider}");
        let stream = post_json(gateway.proxy, "/x", STREAM);
        assert_eq!(
            (stream.status, stream.complete, stream.text()),
            (200, true, text.clone()),
            "{provider}"
        );
    }
}

/// P-068, P-069, P-070, P-071
#[test]
fn other_protocols_are_relayed() {
    let list = r#"{"object":"list","data":[{"embedding":[0.5]}],"usage":{"prompt_tokens":4,"total_tokens":4}}"#;
    let upstream = Upstream::start(move |_| Answer::json(list));
    let document = format!(
        "routes:\n  - {{id: 1, uri: /*, plugins: {{ai-proxy: {{provider: openai, auth: {{}}, options: {{model: embedder}}, \
         override: {{endpoint: \"http://{}/v1/embeddings\"}}}}}}}}\n",
        upstream.address
    );
    let gateway = Gateway::start(&document);
    let response = post_json(gateway.proxy, "/v1/embeddings", r#"{"input":"x"}"#);
    assert_eq!((response.status, response.text().as_str()), (200, list));
    let sent = upstream.last();
    assert_eq!(sent.target, "/v1/embeddings");
    assert_eq!(
        sent.json(),
        serde_json::json!({"input": "x", "model": "embedder"})
    );
    let line = gateway.access_log(1).remove(0);
    assert_eq!(
        (&line["llm_prompt_tokens"], &line["llm_total_tokens"]),
        (&4.into(), &4.into())
    );

    for answer in [
        Answer::json(r#"{"choices":[{"message":{"tool_calls":[{"id":"1"}]}}]}"#),
        Answer::events(&["data: {\"choices\":[]}", "data: [DONE]"]),
    ] {
        let theirs = answer.clone();
        let upstream = Upstream::start(move |_| theirs.clone());
        let gateway = Gateway::start(&single("anthropic", upstream.address, ""));
        let response = post_json(gateway.proxy, "/anthropic", CHAT);
        assert_eq!(response.status, 200);
        assert_eq!(upstream.last().target, "/v1/chat/completions");
        let (kind, body) = match answer {
            Answer::Whole { kind, body, .. } => (kind, body),
            _ => (
                "text/event-stream",
                "data: {\"choices\":[]}\n\ndata: [DONE]\n\n".to_owned(),
            ),
        };
        assert_eq!(
            (response.header("content-type"), response.text()),
            (Some(kind), body)
        );
    }
}

/// P-142, P-143, P-145: with any interval, events arrive as they are made, and a client that
/// leaves is noticed.
#[test]
fn the_flush_interval_delays_nothing() {
    for interval in [0, 50] {
        let upstream = Upstream::start(|_| Answer::Endless {
            event: "data: {\"choices\":[{\"delta\":{\"content\":\"lo\"}}]}".to_owned(),
            pause: Duration::from_millis(30),
        });
        let more = format!("        streaming_flush_interval_ms: {interval}\n");
        let gateway = Gateway::start(&single("openai", upstream.address, &more));
        let mut client = Connection::open(gateway.proxy);
        client.send(
            format!(
                "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{STREAM}",
                STREAM.len()
            )
            .as_bytes(),
        );
        for _ in 0..3 {
            let so_far = upstream.written();
            client.read_until("lo");
            client.take();
            assert!(upstream.written() <= so_far + 15, "events were held back");
        }
        drop(client);
        upstream.wait_for_early_close();
        assert_eq!(gateway.access_log(1)[0]["ended"], "abandoned");
    }
}

/// P-177
#[test]
fn labels_can_be_disabled() {
    let upstream = Upstream::named("a");
    let metadata = "plugin_metadata:\n  - id: prometheus\n    disabled_labels: {llm_prompt_tokens: [request_llm_model, llm_model]}\n";
    let document = format!(
        "{}{metadata}",
        multi(&[instance("a", upstream.address, "")], "")
    );
    let gateway = Gateway::start(&document);
    for model in ["one", "two"] {
        let body = CHAT.replace("gpt-4", model);
        assert_eq!(post_json(gateway.proxy, "/x", &body).status, 200);
    }
    gateway.wait_until_idle();
    let page = gateway.metrics();
    let series: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("apisix_llm_prompt_tokens{"))
        .collect();
    assert_eq!(series.len(), 1, "{series:?}");
    assert!(
        series[0].contains("request_llm_model=\"\",llm_model=\"\"") && series[0].ends_with(" 16"),
        "{series:?}"
    );
}

/// The value of a further label may be a client's: what is kept of it is short.
#[test]
fn values_of_further_labels_are_cut() {
    let upstream = Upstream::named("a");
    let document = multi(&[instance("a", upstream.address, "")], "");
    let gateway = Gateway::start_with(Start {
        document: &document,
        prometheus: "metrics: {http_status: {extra_labels: [{team: $http_x_team}]}}",
        ..Start::default()
    });
    let team = "t".repeat(200);
    let headers = [("Content-Type", "application/json"), ("X-Team", &*team)];
    let response = request(gateway.proxy, "POST", "/x", &headers, CHAT);
    assert_eq!(response.status, 200);
    gateway.metric(&["apisix_http_status{", &format!("team=\"{}\"", &team[..128])]);
}

/// G-198: further labels, own bounds, and the end of what is idle.
#[test]
fn the_shape_of_metrics_can_be_set() {
    let upstream = Upstream::named("a");
    let document = multi(&[instance("a", upstream.address, "")], "");
    let attributes = "default_buckets: [0.5, 100000], llm_prompt_tokens_buckets: [7, 8, 9], \
        metrics: {http_status: {extra_labels: [{team: $http_x_team}]}, \
        llm_prompt_tokens: {extra_labels: [{team: $http_x_team}, {kind: \"m-$request_llm_model\"}]}, \
        bandwidth: {expire: 1}}";
    let gateway = Gateway::start_with(Start {
        document: &document,
        prometheus: attributes,
        ..Start::default()
    });
    for team in ["red", "blue", "red"] {
        let headers = [("Content-Type", "application/json"), ("X-Team", team)];
        assert_eq!(
            request(gateway.proxy, "POST", "/x", &headers, CHAT).status,
            200
        );
    }
    gateway.wait_until_idle();
    let page = gateway.metrics();
    let has = |line: &str| assert!(page.lines().any(|l| l.contains(line)), "no {line}: {page}");
    has("response_source=\"upstream\",team=\"red\"} 2");
    has("response_source=\"upstream\",team=\"blue\"} 1");
    has("llm_model=\"gpt-4\",team=\"red\",kind=\"m-gpt-4\"} 16");
    // Families without the label add both up.
    has(
        "apisix_llm_completion_tokens{route_id=\"1\",service_id=\"\",consumer=\"\",node=\"a\",request_type=\"ai_chat\",request_llm_model=\"gpt-4\",llm_model=\"gpt-4\"} 15",
    );
    let buckets = |family: &str, kind: &str| -> Vec<String> {
        page.lines()
            .filter(|line| line.starts_with(family) && line.contains(kind))
            .filter_map(|line| Some(line.split_once("le=\"")?.1.replace("\"}", "")))
            .collect()
    };
    assert_eq!(
        buckets("apisix_llm_prompt_tokens_dist_bucket", ""),
        ["7 0", "8 3", "9 3", "+Inf 3"]
    );
    let latency = buckets("apisix_http_latency_bucket", "type=\"request\"");
    assert_eq!(latency[1..], ["100000 3", "+Inf 3"]);
    assert!(latency[0].starts_with("0.5 "), "{latency:?}");
    wait_until("the idle series to go", || {
        let page = gateway.metrics();
        let is_gone = !page
            .lines()
            .any(|line| line.starts_with("apisix_bandwidth{"));
        assert!(page.contains("apisix_http_status{"));
        is_gone.then_some(())
    });
}
