//! Access tokens of service accounts (`auth.gcp`).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};

use super::google::{EMAIL, Google, token};
use crate::support::{
    Answer, CHAT, Gateway, Received, Start, Upstream, chat,
    client::{Response, request},
    flow_route, instance, post_json, wait_until,
};

/// A route to one instance of Vertex AI.
fn route(id: &str, auth: &str, upstream: &Upstream) -> String {
    let address = upstream.address;
    format!(
        "  - {{id: {id}, uri: /{id}/*, plugins: {{ai-proxy: {{provider: vertex-ai, {auth}, \
         provider_conf: {{project_id: p, region: r}}, override: {{endpoint: \"http://{address}\"}}}}}}}}\n"
    )
}

fn document(routes: &[String]) -> String {
    format!("routes:\n{}", routes.concat())
}

fn ask(gateway: &Gateway, id: &str) -> Response {
    post_json(gateway.proxy, &format!("/{id}/v1/chat/completions"), CHAT)
}

fn bearer(received: &Received) -> String {
    let sent = received.header("authorization").expect("a credential");
    sent.strip_prefix("Bearer ").expect("a bearer").to_owned()
}

/// P-085: the token, over what the client and `auth.header` bring.
#[test]
fn requests_carry_the_token_of_a_signed_assertion() {
    let (google, vertex) = (Google::steady(), Upstream::named("g"));
    let auth = google.auth("").replace(
        "auth: {",
        "auth: {header: {Authorization: Bearer configured}, ",
    );
    let gateway = Gateway::start(&document(&[route("a", &auth, &vertex)]));
    let headers = [
        ("Content-Type", "application/json"),
        ("Authorization", "Bearer client"),
        ("x-goog-api-key", "client"),
    ];
    let target = "/a/v1/chat/completions";
    let response = request(gateway.proxy, "POST", target, &headers, CHAT);
    assert_eq!(response.status, 200, "{}", response.text());
    let sent = vertex.last();
    assert_eq!(bearer(&sent), "token-1");
    assert_eq!(sent.header("x-goog-api-key"), None);
    assert_eq!(
        sent.target,
        "/v1beta1/projects/p/locations/r/endpoints/openapi/chat/completions"
    );

    let asked = google.upstream.last();
    assert_eq!((&*asked.method, &*asked.target), ("POST", "/token"));
    let kind = asked.header("content-type");
    assert_eq!(kind, Some("application/x-www-form-urlencoded"));
    let claims = google.claims(&asked);
    let at = claims["iat"].as_u64().expect("a time");
    assert_eq!(
        claims,
        json!({
            "iss": EMAIL,
            "aud": format!("http://{}/token", google.upstream.address),
            "scope": "https://www.googleapis.com/auth/cloud-platform",
            "iat": at,
            "exp": at + 3600,
        })
    );
    ask(&gateway, "a");
    assert_eq!(google.upstream.hits(), 1);
}

#[test]
fn the_account_may_stand_in_the_environment_with_scopes_of_its_own() {
    let (google, vertex) = (Google::steady(), Upstream::named("g"));
    let account = google.account(json!({"scope": ["one", "two"]}));
    let gateway = Gateway::start_with(Start {
        document: &document(&[
            route("a", "auth: {gcp: {}}", &vertex),
            route(
                "b",
                "auth: {gcp: {service_account_json: \"$env://MINE\"}}",
                &vertex,
            ),
        ]),
        environment: &[("GCP_SERVICE_ACCOUNT", &account), ("MINE", &account)],
        ..Start::default()
    });
    for id in ["a", "b"] {
        assert_eq!(ask(&gateway, id).status, 200);
        assert_eq!(bearer(&vertex.last()), "token-1");
    }
    assert_eq!(google.claims(&google.upstream.last())["scope"], "one two");
}

/// P-086: both lifetimes count, `expire_early_secs` does not, as they are shorter; but nobody waits for
/// the second token, which is there before the first has run out.
#[test]
fn tokens_are_renewed_before_they_run_out() {
    let google = Google::start(|nth| token(nth, if nth == 1 { 5 } else { 3600 }));
    let vertex = Upstream::named("g");
    let auth = google.auth(", max_ttl: 8");
    let gateway = Gateway::start(&document(&[route("a", &auth, &vertex)]));
    for _ in 0..6 {
        assert_eq!(ask(&gateway, "a").status, 200);
        // A slow machine may be at the second by now.
        assert!(bearer(&vertex.last()) == "token-1" || google.upstream.hits() == 2);
    }
    let fetched = wait_until("a second token", || {
        let fetched = google.upstream.requests();
        (fetched.len() == 2).then_some(fetched)
    });
    assert!(fetched[1].at - fetched[0].at > Duration::from_secs(3));
    wait_until("the second token in a request", || {
        assert_eq!(ask(&gateway, "a").status, 200);
        (bearer(&vertex.last()) == "token-2").then_some(())
    });
    assert_eq!(google.upstream.hits(), 2);
}

/// P-087, P-088: APISIX has a token for each instance; here those who would get equal ones share it.
/// Other rules for how long a token is used have their own.
#[test]
fn equal_credentials_share_a_token_under_equal_rules() {
    let (google, vertex) = (Google::steady(), Upstream::named("g"));
    let (one, other) = (google.auth(", max_ttl: 100"), google.auth(", max_ttl: 200"));
    let routes = [
        route("a", &one, &vertex),
        route("b", &one, &vertex),
        route("c", &other, &vertex),
    ];
    let gateway = Gateway::start_with(Start {
        document: &document(&routes),
        workers: 2,
        ..Start::default()
    });
    let token_of = |id: &str| {
        assert_eq!(ask(&gateway, id).status, 200);
        bearer(&vertex.last())
    };
    let (a, b, c) = (token_of("a"), token_of("b"), token_of("c"));
    assert_eq!(a, b);
    assert_ne!(a, c);
    assert_eq!(token_of("a"), a);
    assert_eq!(google.upstream.hits(), 2);

    // Another configuration, in which the account is the same, costs no token.
    gateway.reload(&document(&[
        route("d", &one, &vertex),
        route("c", &other, &vertex),
    ]));
    assert_eq!((token_of("d"), token_of("c")), (a, c));
    assert_eq!(google.upstream.hits(), 2);
}

/// Requests that come before the first token wait for it, all for the same one.
#[test]
fn early_requests_wait_for_one_token() {
    let google = Google::start(|nth| {
        let pause = Duration::from_millis(300);
        Answer::After(pause, Box::new(token(nth, 3600)))
    });
    let vertex = Upstream::named("g");
    let gateway = Gateway::start(&document(&[route("a", &google.auth(""), &vertex)]));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(ask(&gateway, "a").status, 200));
        }
    });
    assert_eq!((google.upstream.hits(), vertex.hits()), (1, 4));
}

fn error_of(response: &Response, pointer: &str) -> String {
    assert_eq!(response.status, 500, "{}", response.text());
    let body: Value = serde_json::from_slice(&response.body).expect("JSON");
    let message = body.pointer(pointer).and_then(Value::as_str);
    message.unwrap_or_else(|| panic!("{body}")).to_owned()
}

#[test]
fn without_a_token_the_client_is_told_why_and_no_secret() {
    let secret = "eyJ-what-was-sent";
    let is_up = Arc::new(AtomicBool::new(false));
    let up = Arc::clone(&is_up);
    let google = Google::start(move |nth| match up.load(Ordering::SeqCst) {
        true => token(nth, 3600),
        false => Answer::status(
            400,
            &format!(r#"{{"error":"invalid_grant","error_description":"{secret}"}}"#),
        ),
    });
    let vertex = Upstream::named("g");
    let gateway = Gateway::start(&document(&[route("a", &google.auth(""), &vertex)]));
    let told = gateway.wait_for_line("gcp: no access token");
    assert!(told.contains("400 invalid_grant"), "{told}");
    assert_eq!(
        error_of(&ask(&gateway, "a"), "/error/message"),
        "failed to get gcp access token: the token endpoint answered 400 invalid_grant"
    );
    assert_eq!(vertex.hits(), 0);
    is_up.store(true, Ordering::SeqCst);
    wait_until("a token", || {
        (ask(&gateway, "a").status == 200).then_some(())
    });
    gateway.wait_for_line("gcp: there is an access token again");
    let log = gateway.stderr();
    for secret in [secret, EMAIL, "PRIVATE KEY", "token-", "assertion"] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
}

/// Nobody waits for a token longer than for a connection.
#[test]
fn waiting_for_a_token_has_an_end() {
    let google = Google::start(|_| Answer::Silence);
    let vertex = Upstream::named("g");
    let auth = format!("timeout: 200, {}", google.auth(""));
    let gateway = Gateway::start(&document(&[route("a", &auth, &vertex)]));
    assert_eq!(
        error_of(&ask(&gateway, "a"), "/error/message"),
        "failed to get gcp access token: the token endpoint has not answered yet"
    );
    assert_eq!(vertex.hits(), 0);
}

/// What cannot work fails at once, in the client's words; an instance that has what it needs takes over.
#[test]
fn an_account_that_cannot_work_fails_over() {
    let (google, good) = (Google::steady(), Upstream::named("good"));
    let address = good.address;
    let instance = |name: &str, auth: &str, priority: u8| {
        format!(
            "{{name: {name}, provider: vertex-ai, weight: 1, priority: {priority}, {auth}, \
             provider_conf: {{project_id: p, region: r}}, override: {{endpoint: \"http://{address}\"}}}}"
        )
    };
    let bad = instance("bad", "auth: {gcp: {service_account_json: \"{}\"}}", 2);
    let next = instance("good", &google.auth(""), 1);
    let gateway = Gateway::start(&format!(
        "routes:\n  - {{id: 1, uri: /one/*, plugins: {{ai-proxy-multi: {{instances: [{bad}]}}}}}}\n  \
         - {{id: 2, uri: /two/*, plugins: {{ai-proxy-multi: {{fallback_strategy: [http_5xx], instances: [{bad}, {next}]}}}}}}\n"
    ));
    gateway.wait_for_line("the service account has no `client_email`; requests to it will fail");
    let body = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}"#;
    let response = post_json(gateway.proxy, "/one/v1/messages", body);
    let told = error_of(&response, "/error/message");
    assert!(
        told.starts_with("failed to get gcp access token: "),
        "{told}"
    );
    let response = post_json(gateway.proxy, "/two/v1/messages", body);
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(bearer(&good.last()), "token-1");
}

/// An instance for which there is no token is not tried by every request: with `cooldown` it is out for a while.
#[test]
fn an_instance_without_a_token_is_out_for_a_while() {
    let google = Google::start(|_| Answer::status(503, "{}"));
    let (vertex, good) = (Upstream::named("g"), Upstream::named("good"));
    let first = format!(
        "{{name: first, provider: vertex-ai, weight: 1, priority: 1, {}, provider_conf: \
         {{project_id: p, region: r}}, override: {{endpoint: \"http://{}\"}}}}",
        google.auth(""),
        vertex.address
    );
    let instances = [first, instance("good", good.address, "")];
    let more = ", fallback_strategy: [http_5xx], cooldown: {}";
    let gateway = Gateway::start(&flow_route(&instances, more));
    gateway.wait_for_line("gcp: no access token");
    assert_eq!(chat(&gateway), 200);
    gateway.wait_for_line("it has no access token");
    assert_eq!(chat(&gateway), 200);
    assert_eq!((vertex.hits(), good.hits()), (0, 2));
    // The first request has tried it and found out, the second one was told.
    let lines = gateway.access_log(2);
    let has_tried = |line: &Value| line["picks"][0]["replay"]["tried"] == "01";
    assert!(has_tried(&lines[0]) && !has_tried(&lines[1]), "{lines:?}");
    assert_eq!(lines[1]["picks"][0]["excluded"], json!(["first"]));
}

/// What becomes known while a token is waited for counts, over an idle connection too: nothing is sent to a
/// target that fell meanwhile.
#[test]
fn a_verdict_that_comes_while_waiting_for_a_token_is_obeyed() {
    let released = Arc::new(AtomicBool::new(false));
    let is_released = Arc::clone(&released);
    let google = Google::start(move |nth| {
        wait_until("the token to be released", || {
            is_released.load(Ordering::SeqCst).then_some(())
        });
        token(nth, 3600)
    });
    let (slow, health) = (Upstream::named("slow"), Upstream::named("health"));
    let fast = Upstream::named("fast");
    let first = format!(
        "{{name: slow, provider: vertex-ai, weight: 1, priority: 1, {}, provider_conf: {{project_id: p, \
         region: r}}, override: {{endpoint: \"http://{}\"}}, checks: {{active: {{type: http, http_path: \
         /health, port: {}, healthy: {{interval: 1, successes: 1}}, unhealthy: {{interval: 1, http_failures: 1}}}}}}}}",
        google.auth(""),
        slow.address,
        health.port()
    );
    let others = instance("fast", fast.address, "");
    let idle = instance("idle", slow.address, "");
    let gateway = Gateway::start(&format!(
        "routes:\n  - {{id: 1, uri: /x, plugins: {{ai-proxy-multi: {{balancer: {{algorithm: least_conn}}, instances: [{first}, {others}]}}}}}}\n  \
         - {{id: 2, uri: /idle, plugins: {{ai-proxy-multi: {{instances: [{idle}]}}}}}}\n"
    ));
    health.wait_for_probes(1);
    assert_eq!(post_json(gateway.proxy, "/idle", CHAT).status, 200);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| chat(&gateway));
        wait_until("the pick", || {
            let targets = gateway.control("/v1/targets").json();
            let members = targets[0]["members"].as_array()?.clone();
            (members[0]["in_flight"] == 1).then_some(())
        });
        health.set_healthy(false);
        gateway.wait_for_status(health.port(), "unhealthy");
        released.store(true, Ordering::SeqCst);
        assert_eq!(waiting.join().expect("answered"), 200);
    });
    assert_eq!((slow.hits(), fast.hits()), (1, 1));
}

/// What another instance said before stays in that one's terms, though one that speaks another protocol was
/// to be asked after it.
#[test]
fn an_error_that_is_held_is_told_in_its_own_terms() {
    let anthropic = Upstream::start(|_| {
        let error = r#"{"type":"error","error":{"type":"overloaded_error","message":"too much"}}"#;
        Answer::status(529, error)
    });
    let gateway = Gateway::start(&format!(
        "routes:\n  - id: 1\n    uri: /*\n    plugins:\n      ai-proxy-multi:\n        fallback_strategy: [http_5xx]\n        \
         instances:\n        - {{name: a, provider: anthropic, protocol: anthropic-messages, weight: 1, priority: 2, auth: {{header: {{x-api-key: k}}}}, \
         override: {{endpoint: \"http://{}\"}}}}\n        - {{name: b, provider: vertex-ai, protocol: gemini-generate-content, \
         weight: 1, priority: 1, auth: {{gcp: {{service_account_json: \"{{}}\"}}}}, options: {{model: g}}, \
         provider_conf: {{project_id: p, region: r}}}}\n",
        anthropic.address
    ));
    let response = post_json(gateway.proxy, "/v1/chat/completions", CHAT);
    let body = response.json();
    assert_eq!(response.status, 502, "nobody is left: {body}");
    assert_eq!(
        (&body["error"]["message"], &body["type"]),
        (&json!("too much"), &Value::Null),
        "{body}"
    );
    assert_eq!(gateway.access_log(1)[0]["balancer_ip"], "a");
}
