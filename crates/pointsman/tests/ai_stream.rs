//! Streams: passed on as they arrive, counted in passing, and never made to look complete.

mod support;

use std::time::Duration;

use support::{
    Answer, CHAT, Gateway, Upstream, ask, client::Connection, instance, multi, post_json, single,
};

const STREAM: &str = r#"{"model":"gpt-4","stream":true,"messages":[]}"#;
const EVENTS: [&str; 4] = [
    r#"data: {"choices":[{"delta":{"role":"assistant","content":"Hel"}}]}"#,
    r#"data: {"choices":[{"delta":{"content":"lo"}}]}"#,
    r#"data: {"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":2,"total_tokens":12}}"#,
    "data: [DONE]",
];

fn whole() -> String {
    EVENTS.map(|event| format!("{event}\n\n")).concat()
}

/// B-041, P-058, P-067, P-139, P-140, P-160
#[test]
fn a_stream_is_passed_on_byte_for_byte_however_it_is_cut() {
    let text = whole();
    for cut in [1, 7, 40, text.len() / 2, text.len()] {
        let pieces: Vec<Vec<u8>> = text.as_bytes().chunks(cut).map(<[u8]>::to_vec).collect();
        let answer = Answer::Stream {
            pieces,
            pause: Duration::ZERO,
            ends: true,
        };
        let upstream = Upstream::start(move |_| answer.clone());
        let gateway = Gateway::start(&single("openai", upstream.address, ""));
        let response = post_json(gateway.proxy, "/x", STREAM);
        assert_eq!((response.status, response.complete), (200, true));
        assert_eq!(response.text(), text);
        assert_eq!(response.header("content-type"), Some("text/event-stream"));
        let line = gateway.access_log(1).remove(0);
        let tokens = |name: &str| line[name].as_u64();
        assert_eq!(
            (tokens("llm_prompt_tokens"), tokens("llm_completion_tokens")),
            (Some(10), Some(2))
        );
        assert_eq!(
            (&line["llm_stream"], &line["llm_stream_done"]),
            (&true.into(), &true.into())
        );
        assert_eq!(
            (line["request_type"].as_str(), line["ended"].as_str()),
            (Some("ai_stream"), Some("complete"))
        );
    }
}

/// P-142: an event reaches the client before the next one is made.
#[test]
fn events_arrive_as_they_are_made() {
    let answer = Answer::Stream {
        pieces: EVENTS
            .iter()
            .map(|event| format!("{event}\n\n").into_bytes())
            .collect(),
        pause: Duration::from_millis(150),
        ends: true,
    };
    let upstream = Upstream::start(move |_| answer.clone());
    let gateway = Gateway::start(&single("openai", upstream.address, ""));
    let mut client = Connection::open(gateway.proxy);
    ask(&mut client, STREAM);
    client.read_until("Hel");
    assert!(
        upstream.written() < EVENTS.len(),
        "the first event came with the last"
    );
    client.read_until("[DONE]");
}

/// P-057, P-141
#[test]
fn responses_streams_are_counted() {
    let upstream = Upstream::start(|_| {
        Answer::events(&[
            "event: response.output_text.delta\ndata: {\"delta\":\"Hi\"}",
            "event: response.completed\ndata: {\"response\":{\"usage\":{\"input_tokens\":5,\"output_tokens\":3,\"total_tokens\":8}}}",
        ])
    });
    let gateway = Gateway::start(&single("openai", upstream.address, ""));
    let body = r#"{"input":"x","stream":true}"#;
    assert!(post_json(gateway.proxy, "/v1/responses", body).complete);
    assert_eq!(upstream.last().text(), body);
    assert_eq!(gateway.access_log(1)[0]["llm_total_tokens"], 8);
}

/// P-144, P-145, B-049, G-28: the client goes away, in a stream and before any answer.
#[test]
fn a_client_that_leaves_is_noticed_at_once() {
    let endless = Upstream::start(|_| Answer::Endless {
        event: EVENTS[1].to_owned(),
        pause: Duration::from_millis(30),
    });
    let gateway = Gateway::start(&single("openai", endless.address, ""));
    let mut client = Connection::open(gateway.proxy);
    ask(&mut client, STREAM);
    client.read_until("lo");
    drop(client);
    endless.wait_for_early_close();
    let line = gateway.access_log(1).remove(0);
    assert_eq!(
        (line["ended"].as_str(), line["status"].as_u64()),
        (Some("abandoned"), Some(200))
    );

    let silent = Upstream::start(|_| Answer::Silence);
    gateway.reload(&single("openai", silent.address, ""));
    let mut client = Connection::open(gateway.proxy);
    ask(&mut client, CHAT);
    support::wait_until("the request to arrive", || {
        (silent.hits() == 1).then_some(())
    });
    drop(client);
    silent.wait_for_early_close();
    assert_eq!(gateway.access_log(2)[1]["ended"], "abandoned");
    gateway.wait_until_idle();
}

/// A stream that breaks off reaches the client as a broken one (I-24: and nothing is retried).
#[test]
fn a_broken_stream_does_not_look_complete() {
    let first = EVENTS[0].to_owned() + "\n\n";
    let broken = Upstream::start(move |_| Answer::Stream {
        pieces: vec![first.clone().into_bytes()],
        pause: Duration::ZERO,
        ends: false,
    });
    let other = Upstream::named("b");
    let pair = [
        instance("a", broken.address, ", priority: 1"),
        instance("b", other.address, ""),
    ];
    let gateway = Gateway::start(&multi(&pair, "        fallback_strategy: http_5xx\n"));
    let response = post_json(gateway.proxy, "/x", STREAM);
    assert_eq!((response.status, response.complete), (200, false));
    assert!(response.text().contains("Hel") && !response.text().contains("[DONE]"));
    assert_eq!(other.hits(), 0);
    assert_eq!(gateway.access_log(1)[0]["ended"], "upstream_broken");
    gateway.wait_until_idle();
}

/// P-146, P-147, B-046, B-047
#[test]
fn limits_cut_a_stream() {
    let endless = || {
        Upstream::start(|_| Answer::Endless {
            event: EVENTS[1].to_owned(),
            pause: Duration::from_millis(20),
        })
    };
    for limit in ["max_stream_duration_ms: 300", "max_response_bytes: 400"] {
        let upstream = endless();
        let gateway = Gateway::start(&single(
            "openai",
            upstream.address,
            &format!("        {limit}\n"),
        ));
        let response = post_json(gateway.proxy, "/x", STREAM);
        assert_eq!(
            (response.status, response.complete),
            (200, false),
            "{limit}"
        );
        assert!(!response.body.is_empty() && !response.text().contains("[DONE]"));
        upstream.wait_for_early_close();
        assert_eq!(gateway.access_log(1)[0]["ended"], "limited");
    }
}

/// P-148, P-149, B-048
#[test]
fn limits_refuse_a_whole_response() {
    let body = "x".repeat(100_000);
    let length = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    for bytes in [length, chunked] {
        let upstream = Upstream::start(move |_| Answer::Raw(bytes.clone().into_bytes()));
        let gateway = Gateway::start(&single(
            "openai",
            upstream.address,
            "        max_response_bytes: 1024\n",
        ));
        let response = post_json(gateway.proxy, "/x", CHAT);
        assert_eq!(
            (response.status, response.text().as_str()),
            (502, "max_response_bytes exceeded")
        );
    }
}

/// P-023, P-150, P-151, P-152, P-155, P-156, B-045, G-15: what an upstream says is passed on.
#[test]
fn errors_and_oddities_are_passed_on() {
    let cases: Vec<(u16, &'static str, &str)> = vec![
        (500, "application/json", r#"{"error":"boom"}"#),
        (429, "application/json", r#"{"error":"slow down"}"#),
        (401, "text/plain", "Unauthorized"),
        (200, "text/html", "<html>"),
        (200, "application/json", r#"{"content":null,"usage":null}"#),
        (200, "application/json", "5"),
    ];
    for (status, kind, body) in cases {
        let answer = Answer::Whole {
            status,
            kind,
            body: body.to_owned(),
            headers: vec![
                ("Retry-After", "7".to_owned()),
                ("X-Request-Id", "r".to_owned()),
                ("Set-Cookie", "a=b".to_owned()),
            ],
        };
        let upstream = Upstream::start(move |_| answer.clone());
        let gateway = Gateway::start(&single("openai", upstream.address, ""));
        let response = post_json(gateway.proxy, "/x", CHAT);
        assert_eq!((response.status, response.text().as_str()), (status, body));
        assert_eq!(response.header("content-type"), Some(kind));
        assert_eq!(
            (
                response.header("retry-after"),
                response.header("x-request-id")
            ),
            (Some("7"), Some("r"))
        );
        assert_eq!(response.header("set-cookie"), None);
    }
}

/// P-150, and protocols.md 4.2: what is wrong with a stream passes on and makes one line, which
/// says whose it is. A stream that is fine makes none, nor does one that its client has left.
#[test]
fn odd_streams_are_passed_on_and_told() {
    let unfinished = format!("{}\n\ndata: {{\"cho", EVENTS[0]);
    let oversized = format!("data: {}\n\n{}\n\n", "x".repeat(1 << 20), EVENTS[0]);
    let fine = format!("{}\n\n: the end\n\ndata: [DONE]\n\n", EVENTS[0]);
    let failed = "data: {\"error\":{\"type\":\"overloaded_error\",\"message\":\"busy\"}}\n\n";
    let cases = [
        (unfinished, "unfinished_bytes=11 oversized_events=0"),
        (oversized, "unfinished_bytes=0 oversized_events=1"),
        (
            failed.to_owned(),
            "kind=\"overloaded_error\" reason=\"busy\"",
        ),
        (fine, ""),
    ];
    for (stream, told) in cases {
        let piece = stream.clone().into_bytes();
        let upstream = Upstream::start(move |_| Answer::Stream {
            pieces: vec![piece.clone()],
            pause: Duration::ZERO,
            ends: true,
        });
        let instances = [instance("east", upstream.address, "")];
        let gateway = Gateway::start(&multi(&instances, ""));
        let response = post_json(gateway.proxy, "/x", STREAM);
        assert_eq!(response.text(), stream);
        // Its warnings come before the access log's line, and that before a change.
        gateway.access_log(1);
        gateway.reload("routes: []");
        let stderr = gateway.stderr();
        let lines: Vec<&str> = stderr
            .lines()
            .filter(|line| line.contains(" WARN "))
            .collect();
        assert_eq!(lines.len(), usize::from(!told.is_empty()), "{stderr}");
        if let Some(line) = lines.first() {
            assert!(line.contains(told), "{line} lacks {told}");
            assert!(line.contains("route=\"1\" instance=\"east\""), "{line}");
        }
    }
}

/// A response that is cut short before it is whole is an error, not half an answer.
#[test]
fn a_truncated_answer_is_an_error() {
    for bytes in [
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"half\":",
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{\"half\":\r\n",
        "not http at all\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-",
        "",
    ] {
        let upstream = Upstream::start(move |_| Answer::Raw(bytes.as_bytes().to_vec()));
        let gateway = Gateway::start(&single("openai", upstream.address, ""));
        let response = post_json(gateway.proxy, "/x", CHAT);
        assert_eq!(response.status, 500, "{bytes}");
        assert!(
            response.json()["error"]["message"]
                .as_str()
                .expect("a message")
                .starts_with("upstream"),
            "{bytes}"
        );
        gateway.wait_until_idle();
    }
}

/// A stream with a head and these bytes of body, and then silence or the end.
fn stalled(body: &str, goes_silent: bool) -> Upstream {
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let bytes = format!("{head}{body}").into_bytes();
    Upstream::start(move |_| match goes_silent {
        true => Answer::Open(bytes.clone()),
        false => Answer::Raw(bytes.clone()),
    })
}

/// Nothing has reached the client: the failure has a status and, with a fallback, no client sees
/// it (balancing.md 2.4, protocols.md 4.8 and 7.2).
#[test]
fn a_stream_that_fails_before_its_first_byte_is_a_failed_attempt() {
    let first = format!("{:x}\r\n{}\n\n\r\n", EVENTS[0].len() + 2, EVENTS[0]);
    let cases = [
        (
            stalled("", false),
            "",
            500,
            "upstream closed the connection before its response was complete",
        ),
        (
            stalled("", true),
            "        timeout: 300\n",
            504,
            "upstream timed out",
        ),
        (
            stalled("", true),
            "        max_stream_duration_ms: 300\n",
            504,
            "max_stream_duration_ms exceeded",
        ),
        (
            stalled(&first, true),
            "        max_response_bytes: 10\n",
            502,
            "max_response_bytes exceeded",
        ),
    ];
    for (broken, limit, status, message) in &cases {
        let gateway = Gateway::start(&single("openai", broken.address, limit));
        let response = post_json(gateway.proxy, "/x", STREAM);
        assert_eq!(
            (response.status, response.complete),
            (*status, true),
            "{message}"
        );
        assert!(response.text().contains(message), "{}", response.text());
        let line = gateway.access_log(1).remove(0);
        assert_eq!(line["llm_time_to_first_token"], 0, "{line}");
        let good = Upstream::start(|_| Answer::events(&EVENTS));
        let pair = [
            instance("a", broken.address, ", priority: 1"),
            instance("b", good.address, ""),
        ];
        gateway.reload(&multi(
            &pair,
            &format!("        fallback_strategy: http_5xx\n{limit}"),
        ));
        let response = post_json(gateway.proxy, "/x", STREAM);
        if limit.contains("max_response_bytes") {
            assert_eq!(response.status, 502);
            continue;
        }
        assert_eq!(
            (response.status, response.text()),
            (200, whole()),
            "{message}"
        );
        assert_eq!(good.hits(), 1);
        gateway.wait_until_idle();
    }
}

/// The cap is a cap on a silent stream, too, and silence has one of its own.
#[test]
fn a_stream_that_falls_silent_is_cut_in_time() {
    let first = format!("{:x}\r\n{}\n\n\r\n", EVENTS[0].len() + 2, EVENTS[0]);
    for limit in ["max_stream_duration_ms", "stream_idle_timeout_ms"] {
        let upstream = stalled(&first, true);
        // Far below the read timeout, which would end it as well.
        let limits = format!("        {limit}: 300\n        timeout: 600000\n");
        let gateway = Gateway::start(&single("openai", upstream.address, &limits));
        let response = post_json(gateway.proxy, "/x", STREAM);
        assert_eq!((response.status, response.complete), (200, false));
        assert_eq!(gateway.access_log(1)[0]["ended"], "limited");
        upstream.wait_for_early_close();
    }
}

/// Tokens are counted whatever the answer calls itself, and odd members lose nothing else.
#[test]
fn usage_is_found_whatever_the_content_type() {
    let body = r#"{"choices":[],"usage":{"prompt_tokens":8,"completion_tokens":5,"total_tokens":13,"prompt_tokens_details":0}}"#;
    for kind in [
        "application/json",
        "Application/JSON",
        "text/plain",
        "text/html",
    ] {
        let answer = Answer::Whole {
            status: 200,
            kind,
            body: body.to_owned(),
            headers: Vec::new(),
        };
        let upstream = Upstream::start(move |_| answer.clone());
        let gateway = Gateway::start(&single("openai", upstream.address, ""));
        assert_eq!(post_json(gateway.proxy, "/x", CHAT).text(), body);
        assert_eq!(gateway.access_log(1)[0]["llm_total_tokens"], 13, "{kind}");
    }
    // And one that breaks off is a failure, whatever it calls itself.
    let upstream = Upstream::start(|_| {
        Answer::Raw(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\nhalf"
                .to_vec(),
        )
    });
    let gateway = Gateway::start(&single("openai", upstream.address, ""));
    assert_eq!(post_json(gateway.proxy, "/x", CHAT).status, 500);
}

/// An instance that cannot be asked does not take the others' chance, and `_meta.error_response`
/// goes for what the plugin answers (balancing.md 2.5, 2.6).
#[test]
fn instances_that_cannot_be_asked_are_passed_over() {
    let good = Upstream::named("b");
    let document = format!(
        "routes:\n- id: 1\n  uri: /*\n  plugins:\n    ai-proxy-multi:\n      _meta: {{error_response: {{message: custom}}}}\n      fallback_strategy: http_5xx\n      instances:\n\
         \x20     - {{name: a, provider: azure-openai, weight: 1, priority: 1, auth: {{header: {{api-key: k}}}}}}\n\
         \x20     - {{name: b, provider: openai, weight: 1, auth: {{query: {{key: k}}}}, override: {{endpoint: \"http://{}\"}}}}\n",
        good.address
    );
    let gateway = Gateway::start(&document);
    let headers = [
        ("Content-Type", "application/json"),
        ("Authorization", "Bearer mine"),
        ("X-Goog-Api-Key", "mine"),
    ];
    let response = support::request(gateway.proxy, "POST", "/x", &headers, CHAT);
    assert_eq!(response.status, 200);
    let sent = good.last();
    assert_eq!(
        (sent.header("authorization"), sent.header("x-goog-api-key")),
        (None, None)
    );
    drop(good);
    let response = post_json(gateway.proxy, "/x", CHAT);
    assert_eq!(
        (response.status, &response.json()["message"]),
        (502, &"custom".into())
    );
}

/// An error that is a stream, under a plugin's own words: nothing of the target's is left. It goes
/// for a plugin in a global rule, too.
#[test]
fn own_words_replace_a_stream_whole() {
    let upstream = Upstream::start(|_| Answer::Whole {
        status: 503,
        kind: "text/event-stream",
        body: "event: error\ndata: {\"secret\":\"words\"}\n\n".to_owned(),
        headers: vec![("Retry-After", "7".to_owned())],
    });
    let plugin = format!(
        "ai-proxy: {{_meta: {{error_response: {{message: custom}}}}, provider: openai, auth: {{}}, override: {{endpoint: \"http://{}\"}}}}",
        upstream.address
    );
    for document in [
        format!("routes:\n- {{id: 1, uri: /*, plugins: {{{plugin}}}}}\n"),
        format!(
            "routes:\n- {{id: 1, uri: /*, upstream: {{nodes: {{\"127.0.0.1:1\": 1}}}}}}\nglobal_rules:\n- {{id: 1, plugins: {{{plugin}}}}}\n"
        ),
    ] {
        let gateway = Gateway::start(&document);
        let response = post_json(gateway.proxy, "/x", STREAM);
        assert_eq!((response.status, response.complete), (503, true));
        assert_eq!(
            response.json(),
            serde_json::json!({"message": "custom"}),
            "{document}"
        );
        assert_eq!(response.header("retry-after"), Some("7"));
    }
}

/// The words are lost, not the status and not how long to wait.
#[test]
fn an_error_that_breaks_off_keeps_its_head() {
    let upstream = Upstream::start(|_| {
        Answer::Raw(
            b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 100\r\n\r\nshort".to_vec(),
        )
    });
    let gateway = Gateway::start(&single("openai", upstream.address, ""));
    let response = post_json(gateway.proxy, "/x", CHAT);
    assert_eq!((response.status, response.text().as_str()), (429, ""));
    assert_eq!(response.header("retry-after"), Some("7"));
}

/// What the configuration made of a client's request is not the client's fault, and another
/// instance may do with it.
#[test]
fn a_target_that_the_configuration_spoilt_is_our_own_fault() {
    let good = Upstream::named("b");
    let lone = single("openai", good.address, "");
    let rewrite = "      proxy-rewrite: {uri: \"/x?a b\"}\n";
    let prompt = r#"{"prompt":"a"}"#;
    let gateway = Gateway::start(&format!("{lone}{rewrite}"));
    let response = post_json(gateway.proxy, "/x", prompt);
    assert_eq!(response.status, 500, "{}", response.text());
    let line = gateway.wait_for_line("the request target is not valid");
    assert!(
        line.contains("WARN") && line.contains("instance ai-proxy-openai"),
        "{line}"
    );
    // With a query of its own an instance writes the client's anew.
    let instances = [
        instance("a", good.address, ", priority: 1"),
        instance("b", good.address, "")
            .replace("header: {Authorization: Bearer token}", "query: {k: v}"),
    ];
    let document = multi(&instances, "        fallback_strategy: http_5xx\n");
    gateway.reload(&format!("{document}{rewrite}"));
    assert_eq!(post_json(gateway.proxy, "/x", prompt).status, 200);
    assert_eq!(good.last().target, "/x?k=v&a%20b=");
    // A query that is too long once it is written anew is the client's.
    let long = format!("/x?{}", ":".repeat(30_000));
    assert_eq!(post_json(gateway.proxy, &long, prompt).status, 414);
    assert_eq!(good.hits(), 1);
}

/// P-150: an upstream's error event is in the log, in one line, and no more of it than helps.
#[test]
fn an_error_event_is_logged_in_one_line() {
    let long = "y".repeat(10_000);
    let event = format!(
        "event: error\ndata: {{\"error\":{{\"type\":\"over\\nloaded\",\
         \"message\":\"busy\\nWARN forged\\r\\u001b[31m {long}\"}}}}"
    );
    let upstream = Upstream::start(move |_| Answer::events(&[&event]));
    let gateway = Gateway::start(&single("anthropic", upstream.address, ""));
    let body = r#"{"model":"claude","stream":true,"max_tokens":5,"messages":[]}"#;
    let response = post_json(gateway.proxy, "/v1/messages", body);
    assert!(response.complete && response.text().contains(&long));
    let line = gateway.wait_for_line("ended in an error event");
    for part in [
        "WARN",
        "route=\"1\"",
        "instance=\"ai-proxy-anthropic\"",
        r#"kind="over\nloaded""#,
        r#"reason="busy\nWARN forged\r\u{1b}[31m yyy"#,
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(line.len() < 1000, "{line}");
    assert!(!gateway.stderr().contains("\nWARN forged"));
}
