//! What is known of a request afterwards: metrics, access log, loggers.

mod support;

use std::time::Duration;

use serde_json::Value;
use support::{
    Answer, CHAT, Gateway, Start, Upstream, get, instance, multi, post_json, request, single,
};

/// P-157, P-159, P-162, P-168, B-130
#[test]
fn the_access_log_knows_the_llm_side() {
    let upstream = Upstream::start(|_| {
        Answer::json(
            r#"{"choices":[{"message":{"tool_calls":[{"id":"1"}]}}],"usage":{"prompt_tokens":23,"completion_tokens":8,"total_tokens":31,"prompt_tokens_details":{"cached_tokens":10},"completion_tokens_details":{"reasoning_tokens":7}}}"#,
        )
    });
    let gateway = Gateway::start(&single(
        "openai",
        upstream.address,
        "        options: {model: gpt-3.5-turbo}\n",
    ));
    let body = r#"{"model":"gpt-4","user":"alice","tools":[{}],"messages":[]}"#;
    assert_eq!(
        post_json(gateway.proxy, "/x?apikey=sesame&q=1", body).status,
        200
    );
    let line = gateway.access_log(1).remove(0);
    for (name, expected) in [
        ("upstream_addr", Value::from(upstream.address.to_string())),
        ("upstream_status", "200".into()),
        ("request_llm_model", "gpt-4".into()),
        ("llm_model", "gpt-3.5-turbo".into()),
        ("llm_prompt_tokens", 23.into()),
        ("llm_completion_tokens", 8.into()),
        ("llm_total_tokens", 31.into()),
        ("llm_cache_read_input_tokens", 10.into()),
        ("llm_reasoning_tokens", 7.into()),
        ("llm_end_user_id", "alice".into()),
        ("llm_tool_count", 1.into()),
        ("llm_has_tool_calls", true.into()),
        ("llm_stream", false.into()),
        ("request_type", "ai_chat".into()),
        ("balancer_ip", "ai-proxy-openai".into()),
        ("response_source", "upstream".into()),
        ("status", 200.into()),
        ("uri", "/x?apikey=***&q=1".into()),
    ] {
        assert_eq!(line[name], expected, "{name}: {line}");
    }
}

/// P-159, P-162: tools and user are those of the body that went out last, whoever put them there.
#[test]
fn the_access_log_tells_of_the_final_body() {
    let (broken, fine) = (Upstream::failing(500), Upstream::named("fine"));
    let options = ", options: {user: ops, tools: [{}, {}]}";
    let body = r#"{"user":"alice","tools":[{}],"messages":[]}"#;
    // The instance that answers; the one that is asked first and fails has options of its own.
    for (more, expected) in [("", (1, "alice")), (options, (2, "ops"))] {
        let instances = [
            instance(
                "first",
                broken.address,
                ", priority: 1, options: {user: x, tools: []}",
            ),
            instance("second", fine.address, more),
        ];
        let document = multi(&instances, "        fallback_strategy: [http_5xx]\n");
        let gateway = Gateway::start(&document);
        assert_eq!(post_json(gateway.proxy, "/x", body).status, 200);
        let sent = fine.last().json();
        assert_eq!(sent["user"], expected.1);
        let line = gateway.access_log(1).remove(0);
        assert_eq!(
            (&line["llm_tool_count"], &line["llm_end_user_id"]),
            (&expected.0.into(), &expected.1.into()),
            "{line}"
        );
    }
    assert_eq!(broken.hits(), 2);
}

/// P-158, P-166, P-167, B-131, B-132: times are whole milliseconds.
#[test]
fn times_are_measured_in_every_outcome() {
    for status in [200, 500, 429] {
        let upstream = Upstream::start(move |_| {
            Answer::After(
                Duration::from_millis(200),
                Box::new(Answer::status(status, "{}")),
            )
        });
        let gateway = Gateway::start(&single("openai", upstream.address, ""));
        assert_eq!(post_json(gateway.proxy, "/x", CHAT).status, status);
        let line = gateway.access_log(1).remove(0);
        for name in ["apisix_upstream_response_time", "llm_time_to_first_token"] {
            assert!(
                line[name].as_u64().is_some_and(|ms| ms >= 200),
                "{status} {name}: {line}"
            );
        }
    }
    let gateway = Gateway::start(&single("openai", Upstream::nobody(), ""));
    assert_eq!(post_json(gateway.proxy, "/x", CHAT).status, 500);
    let line = gateway.access_log(1).remove(0);
    assert_eq!(line["llm_time_to_first_token"], 0);
    assert_eq!(line["response_source"], "apisix");
}

/// balancing.md 2.7: each attempt has a time of its own, also one whose answer nobody waited for.
#[test]
fn every_attempt_has_its_time() {
    let good = Upstream::named("b");
    for status in [500, 429] {
        let slow = Upstream::start(move |_| {
            let answer = Answer::status(status, "{}");
            Answer::After(Duration::from_millis(200), Box::new(answer))
        });
        let instances = [
            instance("a", slow.address, ", priority: 1"),
            instance("b", good.address, ""),
        ];
        let more = "        fallback_strategy: [http_429, http_5xx]\n";
        let gateway = Gateway::start(&multi(&instances, more));
        assert_eq!(post_json(gateway.proxy, "/x", CHAT).status, 200);
        let line = gateway.access_log(1).remove(0);
        assert_eq!(line["upstream_status"], format!("{status}, 200"), "{line}");
        let times = line["upstream_response_time"].as_str().expect("a text");
        let times: Vec<f64> = times
            .split(", ")
            .map(|time| time.parse().expect("seconds"))
            .collect();
        assert_eq!(times.len(), 2, "{line}");
        let total = line["request_time"].as_f64().expect("seconds");
        assert!(
            times[0] >= 0.2 && times[0] + times[1] <= total + 0.002,
            "{line}"
        );
    }
}

/// P-173, P-176, P-178, P-179, G-192
#[test]
fn metrics_have_apisix_names_and_labels() {
    let upstream = Upstream::named("a");
    let limited = Upstream::failing(429);
    let instances = [instance(
        "openai-gpt4",
        upstream.address,
        ", options: {model: gpt-4}",
    )];
    let document = format!(
        "{}  - {{id: plain, uri: /plain, plugins: {{prometheus: {{}}}}, upstream: {{nodes: {{\"{}\": 1}}}}}}\n  \
         - {{id: limited, uri: /limited, plugins: {{prometheus: {{}}, ai-proxy: {{provider: openai, auth: {{}}, override: {{endpoint: \"http://{}\"}}}}}}}}\n",
        multi(&instances, ""),
        upstream.address,
        limited.address
    );
    let gateway = Gateway::start(&document);
    assert_eq!(get(gateway.proxy, "/plain", &[]).status, 200);
    gateway.wait_until_idle();
    assert!(
        !gateway.metrics().contains("apisix_llm_"),
        "a plain request made LLM series"
    );
    let body = CHAT.replace("gpt-4", "gpt-3");
    assert_eq!(post_json(gateway.proxy, "/x", &body).status, 200);
    let labels = r#"route_id="1",service_id="",consumer="",node="openai-gpt4",request_type="ai_chat",request_llm_model="gpt-3",llm_model="gpt-4""#;
    let one = |start: &str, value: f64| {
        let found = gateway.metric(&[start, labels]);
        assert!((found - value).abs() < f64::EPSILON, "{start}: {found}");
    };
    one("apisix_llm_prompt_tokens{", 8.0);
    one("apisix_llm_completion_tokens{", 5.0);
    one("apisix_llm_prompt_tokens_dist_count{", 1.0);
    let latency = format!("apisix_llm_latency_count{{type=\"total\",{labels}}}");
    assert!(
        gateway.metrics().contains(&latency),
        "{}",
        gateway.metrics()
    );
    assert!(!gateway.metrics().contains("type=\"ttft\""));
    assert!(
        (gateway.metric(&["apisix_llm_active_connections{", "node=\"openai-gpt4\""]) - 0.0).abs()
            < f64::EPSILON
    );
    let status = gateway.metric(&[
        r#"apisix_http_status{code="200",route="1",matched_uri="/*",matched_host="""#,
        r#"response_source="upstream""#,
    ]);
    assert!((status - 1.0).abs() < f64::EPSILON);
    assert_eq!(post_json(gateway.proxy, "/limited", CHAT).status, 429);
    gateway.metric(&["apisix_http_status{code=\"429\"", "route=\"limited\""]);
    assert!(
        !gateway
            .metrics()
            .lines()
            .any(|line| line.starts_with("apisix_llm_latency_count") && line.contains("limited"))
    );
    let long = CHAT.replace("gpt-4", &"m".repeat(200));
    post_json(gateway.proxy, "/x", &long);
    let cut = format!("request_llm_model=\"{}\"", "m".repeat(128));
    gateway.metric(&["apisix_http_status{", &cut]);
}

/// G-193 to G-196: who was refused, who was served, under the names of things, and each once.
#[test]
fn rejections_and_consumers_are_counted() {
    let upstream = Upstream::named("a");
    let gateway = Gateway::start(&format!(
        "routes:\n\
         - {{id: 1, uri: /keyed, plugins: {{key-auth: {{}}}}, upstream: &up {{nodes: {{\"{}\": 1}}}}}}\n\
         - {{id: 2, name: n, uri: /named, plugins: {{prometheus: {{prefer_name: true}}}}, upstream: *up}}\n\
         global_rules:\n- {{id: 1, plugins: {{prometheus: {{}}}}}}\n\
         consumers:\n- {{username: alice, plugins: {{key-auth: {{key: sesame}}}}}}\n",
        upstream.address
    ));
    assert_eq!(get(gateway.proxy, "/keyed", &[]).status, 401);
    let key = [("apikey", "sesame")];
    assert_eq!(get(gateway.proxy, "/keyed", &key).status, 200);
    assert_eq!(get(gateway.proxy, "/named", &[]).status, 200);
    gateway.wait_until_idle();
    let page = gateway.metrics();
    let statuses: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("apisix_http_status{"))
        .collect();
    let more = "request_type=\"traditional_http\",request_llm_model=\"\",llm_model=\"\"";
    let expected = [
        format!(
            "code=\"200\",route=\"1\",matched_uri=\"/keyed\",matched_host=\"\",service=\"\",consumer=\"alice\",node=\"127.0.0.1\",{more},response_source=\"upstream\"}} 1"
        ),
        format!(
            "code=\"200\",route=\"n\",matched_uri=\"/named\",matched_host=\"\",service=\"\",consumer=\"\",node=\"127.0.0.1\",{more},response_source=\"upstream\"}} 1"
        ),
        format!(
            "code=\"401\",route=\"1\",matched_uri=\"/keyed\",matched_host=\"\",service=\"\",consumer=\"\",node=\"\",{more},response_source=\"apisix\"}} 1"
        ),
    ];
    assert_eq!(statuses, expected);
}

/// P-169 to P-172, B-133, G-199, G-201, G-203, G-205: what loggers write.
#[test]
fn loggers_write_entries() {
    let upstream = Upstream::named("a");
    let collector = Upstream::start(|_| Answer::text(200, ""));
    let files = tempfile::tempdir().expect("a folder");
    let log = files.path().join("log.json");
    let document = |logging: &str| {
        format!(
            "{}      file-logger: {{path: \"{}\", log_format: {{who: $remote_addr, n: {{s: $status}}}}}}\n      \
             http-logger: {{uri: \"http://{}/logs\", auth_header: Basic x, batch_max_size: 1, include_req_body: true, max_req_body_bytes: 10}}\n",
            single(
                "openai",
                upstream.address,
                &format!("        logging: {{{logging}}}\n")
            ),
            log.display(),
            collector.address
        )
    };
    let gateway = Gateway::start(&document("summaries: true, payloads: true"));
    let secret = [
        ("Content-Type", "application/json"),
        ("X-Api-Key", "sesame"),
    ];
    assert_eq!(
        request(gateway.proxy, "POST", "/x", &secret, CHAT).status,
        200
    );
    let entry = support::wait_until("an entry", || {
        (collector.hits() == 1).then(|| collector.last())
    });
    assert_eq!(
        (entry.target.as_str(), entry.header("authorization")),
        ("/logs", Some("Basic x"))
    );
    let entry = entry.json();
    assert_eq!(entry["request"]["body"], &CHAT[..10]);
    assert_eq!(
        (
            &entry["request"]["headers"]["x-api-key"],
            &entry["response"]["status"]
        ),
        (&"***".into(), &200.into())
    );
    assert_eq!(
        entry["llm_summary"].as_object().map(serde_json::Map::len),
        Some(15)
    );
    assert_eq!(entry["llm_summary"]["total_tokens"], 13);
    assert_eq!(entry["llm_request"]["messages"][0]["content"], "Hi");
    assert_eq!(entry["llm_response_text"]["content"], "from a");
    let line = support::wait_until("a line", || {
        std::fs::read_to_string(&log)
            .ok()
            .filter(|text| text.ends_with('\n'))
    });
    let line: Value = serde_json::from_str(line.trim()).expect("JSON");
    assert_eq!(
        (&line["who"], &line["n"]["s"], &line["route_id"]),
        (&"127.0.0.1".into(), &"200".into(), &"1".into())
    );
    gateway.reload(&document("summaries: false"));
    post_json(gateway.proxy, "/x", CHAT);
    let entry = support::wait_until("an entry", || {
        (collector.hits() == 2).then(|| collector.last())
    })
    .json();
    assert!(entry.get("llm_summary").is_none() && entry.get("llm_request").is_none());
}

/// Loggers of global rules and of consumers get what those of the route get.
#[test]
fn loggers_elsewhere_get_everything_too() {
    let upstream = Upstream::named("a");
    let collector = Upstream::start(|_| Answer::text(200, ""));
    let logger = format!(
        "http-logger: {{uri: \"http://{}/logs\", batch_max_size: 1, include_resp_body: true}}",
        collector.address
    );
    let base = single(
        "openai",
        upstream.address,
        "        logging: {payloads: true}\n      key-auth: {}\n",
    );
    let key = "plugins: {key-auth: {key: sesame}";
    for document in [
        format!(
            "{base}global_rules:\n- id: 1\n  plugins:\n    {logger}\nconsumers:\n- {{username: jack, {key}}}}}\n"
        ),
        format!("{base}consumers:\n- {{username: jack, {key}, {logger}}}}}\n"),
    ] {
        let before = collector.hits();
        let gateway = Gateway::start(&document);
        let headers = [("Content-Type", "application/json"), ("apikey", "sesame")];
        assert_eq!(
            request(gateway.proxy, "POST", "/x", &headers, CHAT).status,
            200
        );
        let entry = support::wait_until("an entry", || {
            (collector.hits() > before).then(|| collector.last())
        })
        .json();
        let body = entry["response"]["body"].as_str().unwrap_or_default();
        assert!(body.contains("from a"), "{document}: {entry}");
        assert_eq!(
            entry["response"]["headers"]["content-type"],
            "application/json"
        );
        assert_eq!(entry["llm_response_text"]["content"], "from a");
    }
}

/// protocols.md 8.3: the credentials of clouds are nobody's to read either, in a header or a query.
#[test]
fn credentials_of_clouds_are_starred_out() {
    let upstream = Upstream::named("a");
    let collector = Upstream::start(|_| Answer::text(200, ""));
    let gateway = Gateway::start(&format!(
        "{}      http-logger: {{uri: \"http://{}/logs\", batch_max_size: 1}}\n",
        single("openai", upstream.address, ""),
        collector.address
    ));
    let headers = [
        ("X-Amz-Security-Token", "sesame"),
        ("Ocp-Apim-Subscription-Key", "sesame"),
        ("X-Amz-Date", "20260101T000000Z"),
    ];
    let target = "/x?X-Amz-Security-Token=sesame&x-amz-signature=sesame&X-AMZ-Credential=sesame&X-Amz-Date=1";
    let shown = "/x?X-Amz-Security-Token=***&x-amz-signature=***&X-AMZ-Credential=***&X-Amz-Date=1";
    let response = request(gateway.proxy, "POST", target, &headers, CHAT);
    assert_eq!(response.status, 200);
    let entry = support::wait_until("an entry", || {
        (collector.hits() == 1).then(|| collector.last())
    });
    assert!(!entry.text().contains("sesame"), "{}", entry.text());
    let entry = entry.json();
    assert_eq!(entry["request"]["uri"], shown);
    let header = |name: &str| {
        entry["request"]["headers"][name]
            .as_str()
            .map(str::to_owned)
    };
    assert_eq!(header("x-amz-security-token").as_deref(), Some("***"));
    assert_eq!(header("ocp-apim-subscription-key").as_deref(), Some("***"));
    assert_eq!(header("x-amz-date").as_deref(), Some("20260101T000000Z"));
    assert_eq!(gateway.access_log(1)[0]["uri"], shown);
    assert!(!gateway.stderr().contains("sesame"));
}

/// What no parser takes does not empty a payload log.
#[test]
fn odd_payloads_are_logged() {
    let upstream = Upstream::named("a");
    let collector = Upstream::start(|_| Answer::text(200, ""));
    let gateway = Gateway::start(&format!(
        "{}      http-logger: {{uri: \"http://{}/logs\", batch_max_size: 1}}\n",
        single(
            "openai",
            upstream.address,
            "        logging: {summaries: true, payloads: true}\n"
        ),
        collector.address
    ));
    let body = r#"{"model":"m\ud83d","x":1e999,"messages":[{"content":"Hi \ud83d!"},1e999]}"#;
    assert_eq!(post_json(gateway.proxy, "/x", body).status, 200);
    let entry = support::wait_until("an entry", || {
        (collector.hits() == 1).then(|| collector.last().json())
    });
    assert_eq!(
        entry["llm_request"]["messages"],
        serde_json::json!([{ "content": "Hi \u{fffd}!" }, "1e999"])
    );
    assert_eq!(entry["llm_summary"]["request_model"], "m\u{fffd}");
}

/// G-200, G-204: batches, retries, and what waits when the program ends.
#[test]
fn batches_are_sent_and_nothing_is_lost_at_the_end() {
    let failures = std::sync::atomic::AtomicUsize::new(1);
    let collector = Upstream::start(move |_| {
        let first = failures.swap(0, std::sync::atomic::Ordering::SeqCst);
        Answer::text(if first == 1 { 500 } else { 200 }, "")
    });
    let upstream = Upstream::named("a");
    let document = format!(
        "{}      http-logger: {{uri: \"http://{}/logs\", batch_max_size: 2, max_retry_count: 1, retry_delay: 0}}\n",
        single("openai", upstream.address, ""),
        collector.address
    );
    let mut gateway = Gateway::start_with(Start {
        document: &document,
        ..Start::default()
    });
    for _ in 0..3 {
        post_json(gateway.proxy, "/x", CHAT);
    }
    support::wait_until("a batch and its retry", || {
        (collector.hits() == 2).then_some(())
    });
    assert_eq!(collector.last().json().as_array().map(Vec::len), Some(2));
    gateway.signal("TERM");
    assert_eq!(gateway.wait_for_exit().code(), Some(0));
    assert_eq!(collector.hits(), 3);
    assert_eq!(collector.last().json().as_array().map(Vec::len), Some(1));
}

/// G-112: several plugins may read keys, from places of any name; no log shows one, and a key that
/// is hidden leaves no copy behind.
#[test]
fn keys_are_starred_wherever_they_stand() {
    let upstream = Upstream::named("a");
    let gateway = Gateway::start(&format!(
        "routes:\n\
         - {{id: 1, uri: /two, plugins: {{key-auth: {{query: rkey, hide_credentials: true}}}}, upstream: &up {{nodes: {{\"{}\": 1}}}}}}\n\
         - {{id: 2, uri: /copy, plugins: {{key-auth: {{header: X-Mine, query: mine, hide_credentials: true}}}}, upstream: *up}}\n\
         global_rules:\n- {{id: 1, plugins: {{key-auth: {{query: gkey}}}}}}\n\
         consumers:\n- {{username: alice, plugins: {{key-auth: {{key: sesame}}}}}}\n",
        upstream.address
    ));
    let sent = |target: &str, headers: &[(&str, &str)]| {
        assert_eq!(get(gateway.proxy, target, headers).status, 200, "{target}");
        upstream.last()
    };
    let both = sent("/two?gkey=sesame&rkey=sesame&a=1", &[]);
    assert_eq!(both.target, "/two?gkey=sesame&a=1");
    let keys = [("apikey", "sesame"), ("X-Mine", "sesame")];
    let copied = sent("/copy?mine=ses%61me&mine=kept&a=1", &keys);
    assert_eq!(
        (copied.target.as_str(), copied.header("x-mine")),
        ("/copy?mine=kept&a=1", None)
    );
    let uris: Vec<Value> = gateway
        .access_log(2)
        .iter()
        .map(|line| line["uri"].clone())
        .collect();
    assert_eq!(
        uris,
        ["/two?gkey=***&rkey=***&a=1", "/copy?mine=***&mine=***&a=1"]
    );
}
