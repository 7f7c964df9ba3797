//! What a client may send to an LLM route, and what it hears when it may not.

mod support;

use support::{Answer, CHAT, Gateway, Upstream, post_json, request, single};

fn gateway(upstream: &Upstream) -> Gateway {
    Gateway::start(&single(
        "openai",
        upstream.address,
        "        options: {model: gpt-3.5}\n",
    ))
}

/// P-001, P-006, P-023, P-027, P-028, P-030, B-030, B-031, B-044
#[test]
fn a_chat_reaches_the_provider_and_its_answer_comes_back_unchanged() {
    let upstream = Upstream::named("a");
    let gateway = gateway(&upstream);
    let headers = [
        ("Authorization", "Bearer wrong"),
        ("Cookie", "a=b"),
        ("Accept-Encoding", "gzip"),
        ("Test-Type", "x"),
        ("Connection", "x-hop"),
        ("X-Hop", "1"),
    ];
    let response = request(gateway.proxy, "POST", "/anything", &headers, CHAT);
    assert_eq!(response.status, 200);
    assert_eq!(response.text(), support::upstream::chat_body("a"));
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert!(
        response
            .header("server")
            .expect("a server")
            .starts_with("APISIX")
    );
    let sent = upstream.last();
    assert_eq!(
        (sent.method.as_str(), sent.target.as_str()),
        ("POST", "/v1/chat/completions")
    );
    assert_eq!(sent.header("authorization"), Some("Bearer token"));
    assert_eq!(sent.header("content-type"), Some("application/json"));
    assert_eq!(
        sent.header("host"),
        Some(upstream.address.to_string().as_str())
    );
    assert_eq!(
        (sent.header("test-type"), sent.header("cookie")),
        (Some("x"), Some("a=b"))
    );
    assert_eq!(
        (sent.header("accept-encoding"), sent.header("x-hop")),
        (None, None)
    );
    assert_eq!(sent.text(), CHAT.replace("gpt-4", "gpt-3.5"));
}

/// P-002, B-033
#[test]
fn the_method_does_not_matter() {
    let upstream = Upstream::named("a");
    let gateway = gateway(&upstream);
    assert_eq!(request(gateway.proxy, "GET", "/x", &[], CHAT).status, 200);
    assert_eq!(upstream.last().method, "POST");
}

/// P-003, P-004, P-005, P-007, B-032, B-034, B-035
#[test]
fn what_cannot_be_read_is_refused_in_apisix_words() {
    let upstream = Upstream::named("a");
    let gateway = gateway(&upstream);
    let json = |body: &str| post_json(gateway.proxy, "/x", body);
    let empty = json("");
    assert_eq!(empty.status, 400);
    assert_eq!(
        empty.text(),
        "{\"message\":\"could not get body: request body is empty\"}\n"
    );
    assert_eq!(empty.header("content-type"), Some("application/json"));
    for bad in [
        "{}\"messages\": [",
        "{\"messages\":[",
        "{\"messages\":[{\"role\":}]}",
        "\u{1}",
    ] {
        let malformed = json(bad);
        assert_eq!(malformed.status, 400, "{bad}");
        let message = malformed.json()["message"]
            .as_str()
            .expect("a message")
            .to_owned();
        assert!(
            message.starts_with("could not parse JSON request body: "),
            "{message}"
        );
    }
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let form = request(gateway.proxy, "POST", "/x", &form, "a=b");
    assert_eq!(form.status, 400);
    assert_eq!(
        form.text(),
        "unsupported content-type: application/x-www-form-urlencoded, only application/json is supported"
    );
    for nothing in ["{}", "[]", "null", "5"] {
        let response = json(nothing);
        assert_eq!(
            (response.status, response.text().as_str()),
            (400, "no matching AI protocol for the request")
        );
    }
    let twice = json(r#"{"model":"a","messages":[],"model":"b"}"#);
    assert_eq!(twice.status, 400);
    assert!(twice.text().contains("`model` appears twice"));
    assert_eq!(upstream.hits(), 0);
    gateway.wait_until_idle();
}

/// P-013, B-036, and the same for a body whose length is not declared
#[test]
fn a_body_above_the_limit_never_reaches_the_provider() {
    let upstream = Upstream::named("a");
    let gateway = Gateway::start(&single(
        "openai",
        upstream.address,
        "        max_req_body_size: 10\n",
    ));
    let declared = post_json(gateway.proxy, "/x", CHAT);
    assert_eq!(declared.status, 413);
    assert_eq!(
        declared.json()["message"],
        format!(
            "could not get body: request size {} is greater than the maximum size 10 allowed",
            CHAT.len()
        )
    );
    let chunked = support::client::raw(
        gateway.proxy,
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n{\"model\":\"a\r\n0\r\n\r\n",
    );
    assert_eq!(chunked.status, 413);
    assert_eq!(upstream.hits(), 0);
}

/// P-008, P-009, P-059, P-062, P-063
#[test]
fn the_protocol_decides_the_path() {
    let upstream = Upstream::named("a");
    let gateway = Gateway::start(&single("openai", upstream.address, ""));
    let target = |path: &str, body: &str| {
        assert_eq!(post_json(gateway.proxy, path, body).status, 200, "{path}");
        upstream.last().target
    };
    assert_eq!(target("/x", r#"{"messages":[]}"#), "/v1/chat/completions");
    assert_eq!(target("/x", r#"{"input":"a"}"#), "/v1/embeddings");
    assert_eq!(
        target("/v1/images/generations?name=foo", r#"{"prompt":"a"}"#),
        "/v1/images/generations?name=foo"
    );
    assert_eq!(
        target("/ai/v1/responses", r#"{"input":"a"}"#),
        "/v1/responses"
    );
    let put = [("Content-Type", "application/json")];
    assert_eq!(
        request(gateway.proxy, "PUT", "/x", &put, r#"{"prompt":1}"#).status,
        200
    );
    assert_eq!(upstream.last().method, "PUT");
}

/// protocols.md 1.3: the protocol is that of the path the client asked for, and so is the path of
/// a request that is passed through.
#[test]
fn a_rewritten_path_is_not_the_clients() {
    let upstream = Upstream::named("a");
    let document = single("openai", upstream.address, "");
    let rewrite = "      proxy-rewrite: {uri: /somewhere/else}\n";
    let gateway = Gateway::start(&format!("{document}{rewrite}"));
    let target = |path: &str, body: &str| {
        assert_eq!(post_json(gateway.proxy, path, body).status, 200, "{path}");
        upstream.last().target
    };
    let input = r#"{"input":"a"}"#;
    assert_eq!(target("/ai/v1/responses", input), "/v1/responses");
    assert_eq!(target("/ai//v1/./resp%6fnses", input), "/v1/responses");
    let prompt = r#"{"prompt":"a"}"#;
    assert_eq!(target("/v1/images?n=1", prompt), "/v1/images?n=1");
    assert_eq!(target("/a%20b//c/../d", prompt), "/a%20b/d");
    let rewrite = rewrite.replace("/somewhere/else", "/v1/responses");
    gateway.reload(&format!("{document}{rewrite}"));
    assert_eq!(target("/x", input), "/v1/embeddings");
}

/// P-072
#[test]
fn a_protocol_that_the_provider_lacks_is_named() {
    let upstream = Upstream::named("a");
    let gateway = Gateway::start(&single("deepseek", upstream.address, ""));
    let response = post_json(gateway.proxy, "/v1/embeddings", r#"{"input":"a"}"#);
    assert_eq!(response.status, 400);
    assert_eq!(
        response.text(),
        "provider deepseek does not support openai-embeddings protocol (supported: openai-chat)"
    );
}

/// P-024, P-025, P-026, P-033, P-060, P-064, P-065, B-038, B-039
#[test]
fn endpoint_and_credentials_make_the_target() {
    let upstream = Upstream::named("a");
    let conf = |endpoint: &str, query: &str| {
        format!(
            "routes:\n  - id: 1\n    uri: /*\n    plugins:\n      ai-proxy:\n        provider: openai\n        \
             auth: {{query: {{{query}}}}}\n        override: {{endpoint: \"http://{}{endpoint}\"}}\n",
            upstream.address
        )
    };
    let gateway = Gateway::start(&conf("/random?some_query=yes", "api_key: secret"));
    for _ in 0..2 {
        assert_eq!(post_json(gateway.proxy, "/x?client=1", CHAT).status, 200);
        assert_eq!(
            upstream.last().target,
            "/random?api_key=secret&some_query=yes"
        );
    }
    gateway.reload(&conf("/x?name=fromendpoint&ekey=eval", ""));
    post_json(
        gateway.proxy,
        "/y?name=fromclient&ckey=cval",
        r#"{"prompt":1}"#,
    );
    assert_eq!(
        upstream.last().target,
        "/x?name=fromclient&ekey=eval&ckey=cval"
    );
    // All values of a key, and the client's own spelling where nothing is added.
    post_json(gateway.proxy, "/y?a=1&name=b&a=2&name=c", r#"{"prompt":1}"#);
    assert_eq!(upstream.last().target, "/x?name=b&name=c&ekey=eval&a=1&a=2");
    gateway.reload(&conf("", ""));
    post_json(gateway.proxy, "/y?a=1&a=2&b=c+d", r#"{"prompt":1}"#);
    assert_eq!(upstream.last().target, "/y?a=1&a=2&b=c+d");
    gateway.reload(&conf("/x", "akey: secret"));
    post_json(
        gateway.proxy,
        "/y?akey=attacker&zname=foo",
        r#"{"prompt":1}"#,
    );
    assert_eq!(upstream.last().target, "/x?akey=secret&zname=foo");
    // G-38: a lone slash is no path.
    gateway.reload(&conf("/", ""));
    post_json(gateway.proxy, "/y", CHAT);
    assert_eq!(upstream.last().target, "/v1/chat/completions");
}

/// P-040, P-041, P-043, P-049, P-053, P-055, P-058, B-037, B-043: bytes on the wire
#[test]
fn bodies_are_spliced_and_otherwise_untouched() {
    let upstream = Upstream::named("a");
    let odd =
        "{ \"messages\":[ ],\"n\":1.50E+2 , \"big\":12345678901234567890,\"x\":\"\\u00e9\" }\n";
    let gateway = Gateway::start(&single("openai-compatible", upstream.address, ""));
    post_json(gateway.proxy, "/x", odd);
    assert_eq!(upstream.last().text(), odd);
    let chunked = format!(
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{:x}\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        10,
        &odd[..10],
        odd.len() - 10,
        &odd[10..]
    );
    assert_eq!(
        support::client::raw(gateway.proxy, chunked.as_bytes()).status,
        200
    );
    assert_eq!(upstream.last().text(), odd);
    assert_eq!(
        upstream.last().header("content-length"),
        Some(odd.len().to_string().as_str())
    );
    gateway.reload(&single(
        "openai",
        upstream.address,
        "        options: {model: b, temperature: 1.0}\n",
    ));
    post_json(gateway.proxy, "/x", odd);
    assert_eq!(
        upstream.last().text(),
        odd.replace(" }\n", ",\"model\":\"b\",\"temperature\":1.0 }\n")
    );
    post_json(gateway.proxy, "/x", r#"{"messages":[],"stream":true}"#);
    assert_eq!(
        upstream.last().text(),
        r#"{"messages":[],"stream":true,"stream_options":{"include_usage":true},"model":"b","temperature":1.0}"#
    );
}

/// Large bodies arrive whole, in whatever pieces they came.
#[test]
fn a_large_body_arrives_whole() {
    let upstream = Upstream::named("a");
    let gateway = gateway(&upstream);
    let text = "lorem ipsum é ".repeat(60_000);
    let body =
        format!("{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":\"{text}\"}}]}}");
    assert_eq!(post_json(gateway.proxy, "/x", &body).status, 200);
    assert_eq!(upstream.last().text(), body.replace("\"m\"", "\"gpt-3.5\""));
}

/// P-066: every provider's path, and what it does to the body
#[test]
fn providers_have_their_paths() {
    for (provider, path) in [
        ("openai", "/v1/chat/completions"),
        ("openai-compatible", "/v1/chat/completions"),
        ("azure-openai", "/completions"),
        ("deepseek", "/chat/completions"),
        ("aimlapi", "/chat/completions"),
        ("openrouter", "/api/v1/chat/completions"),
        ("gemini", "/v1beta/openai/chat/completions"),
        ("anthropic", "/v1/chat/completions"),
    ] {
        let upstream = Upstream::start(|_| Answer::chat("a"));
        let gateway = Gateway::start(&single(provider, upstream.address, ""));
        assert_eq!(
            post_json(gateway.proxy, "/x", CHAT).status,
            200,
            "{provider}"
        );
        assert_eq!(upstream.last().target, path, "{provider}");
        let has_model = upstream.last().text().contains("\"model\"");
        assert_eq!(has_model, provider != "azure-openai", "{provider}");
    }
}

/// G-16: Anthropic is told a version, and never the client's own key beside the configured one.
#[test]
fn anthropic_messages_carry_a_version() {
    let upstream = Upstream::start(|_| {
        Answer::json(r#"{"type":"message","usage":{"input_tokens":50,"output_tokens":30}}"#)
    });
    let document = single("anthropic", upstream.address, "")
        .replace("Authorization: Bearer token", "x-api-key: secret");
    let gateway = Gateway::start(&document);
    let headers = [("Authorization", "Bearer mine")];
    let body = r#"{"model":"claude","max_tokens":5,"messages":[]}"#;
    let response = request(gateway.proxy, "POST", "/v1/messages", &headers, body);
    assert_eq!(response.status, 200);
    let sent = upstream.last();
    assert_eq!(sent.target, "/v1/messages");
    assert_eq!(
        (sent.header("x-api-key"), sent.header("authorization")),
        (Some("secret"), None)
    );
    assert_eq!(sent.header("anthropic-version"), Some("2023-06-01"));
    let line = gateway.access_log(1).remove(0);
    assert_eq!(
        (
            line["llm_prompt_tokens"].as_u64(),
            line["llm_total_tokens"].as_u64()
        ),
        (Some(50), Some(80))
    );
}

/// P-038: connections are used again.
#[test]
fn three_requests_use_one_connection() {
    let upstream = Upstream::named("a");
    let gateway = gateway(&upstream);
    for _ in 0..3 {
        assert_eq!(post_json(gateway.proxy, "/x", CHAT).status, 200);
    }
    assert_eq!(upstream.connections(), 1);
}

/// A body is not turned into something many times its size, whatever it is made of.
#[cfg(target_os = "linux")]
#[test]
fn memory_is_in_proportion_to_the_body() {
    let upstream = Upstream::named("a");
    let gateway = Gateway::start(&single("openai", upstream.address, ""));
    let numbers = vec!["0"; 4 << 20].join(",");
    let members = vec![r#""":0"#; 2 << 20].join(",");
    let before = gateway.peak_memory_kib();
    let mut sent = 0;
    let mut send = |path: &str, body: String, status| {
        assert_eq!(post_json(gateway.proxy, path, &body).status, status);
        // The log reads the body once more.
        sent += 1;
        gateway.access_log(sent);
        let grown = gateway.peak_memory_kib() - before;
        let size = body.len() as u64 / 1024;
        assert!(grown < 5 * size, "{path}: {size} KiB, now {grown} KiB more");
    };
    let asked = r#""model":"m","messages":[]"#;
    send(
        "/v1/messages",
        format!("{{{asked},\"metadata\":{{\"a\":[{numbers}]}}}}"),
        400,
    );
    send("/x", format!("{{{asked},\"tools\":[{numbers}]}}"), 200);
    send("/x", format!("{{{asked},{members}}}"), 400);
    send(
        "/x",
        format!("{{{asked},\"stream\":true,\"stream_options\":{{{members}}}}}"),
        200,
    );
    // The upstream has what it was sent.
    assert!(
        upstream
            .last()
            .text()
            .ends_with(r#","include_usage":true}}"#)
    );
}

/// A body of more members than anyone needs is refused, and the answer says so.
#[test]
fn a_body_of_very_many_members_is_refused() {
    let upstream = Upstream::named("a");
    let gateway = Gateway::start(&single("openai", upstream.address, ""));
    let members = vec![r#""":0"#; 5000].join(",");
    let response = post_json(
        gateway.proxy,
        "/x",
        &format!("{{\"messages\":[],{members}}}"),
    );
    assert_eq!(response.status, 400);
    assert_eq!(
        response.json()["message"],
        "the request body has 5001 members, more than the 4096 that are allowed"
    );
    assert_eq!(upstream.hits(), 0);
}
