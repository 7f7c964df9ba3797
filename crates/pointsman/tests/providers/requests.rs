//! What a configuration may say of an instance, and what of a request reaches it.

use serde_json::{Value, json};

use crate::support::{
    CHAT, Gateway, Upstream, client::request, flow_route, instance, post_json, run, write_config,
};

/// What `check` says of `ai-proxy` with those members.
fn check(members: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a folder");
    write_config(folder.path(), "", "");
    let document =
        format!("routes: [{{id: 1, uri: /x, plugins: {{ai-proxy: {{{members}}}}}}}]\n#END\n");
    std::fs::write(folder.path().join("apisix.yaml"), document).expect("written");
    let config = folder.path().join("config.yaml");
    let (code, _, stderr) = run(&["check", "--config", config.to_str().expect("UTF-8")]);
    (code, stderr)
}

/// P-014, P-021, P-022
#[test]
fn sound_instances_are_accepted() {
    let aws = "auth: {aws: {access_key_id: a, secret_access_key: b}}, provider_conf: {region: r}";
    for members in [
        "provider: openai, auth: {header: {Authorization: Bearer t}}, options: {model: gpt-4}",
        &format!("provider: bedrock, {aws}"),
        "provider: vertex-ai, auth: {}, override: {endpoint: \"http://127.0.0.1:1\"}",
        "provider: vertex-ai, auth: {}, provider_conf: {project_id: p, region: r}",
    ] {
        let (code, told) = check(members);
        assert_eq!((code, &*told), (Some(0), ""), "{members}");
    }
}

/// P-020, P-022
#[test]
fn what_a_provider_needs_is_missed() {
    let region = "provider_conf: {region: r}";
    for (members, expected) in [
        (
            format!("provider: bedrock, {region}, auth: {{aws: {{access_key_id: a}}}}"),
            "secret_access_key",
        ),
        (
            format!("provider: bedrock, {region}, auth: {{}}"),
            "bedrock requires auth.aws",
        ),
        (
            "provider: vertex-ai, auth: {}".to_owned(),
            "vertex-ai requires either provider_conf",
        ),
        (
            "provider: openai, auth: {gcp: {service_account_json: \"{\"}}".to_owned(),
            "auth.gcp.service_account_json: failed to check",
        ),
        (
            "provider: openai, auth: {gcp: {max_ttl: 0}}".to_owned(),
            "auth.gcp.max_ttl",
        ),
        (
            "provider: openai, auth: {gcp: {expire_early_secs: -1}}".to_owned(),
            "auth.gcp.expire_early_secs",
        ),
    ] {
        let (code, told) = check(&members);
        assert_eq!(code, Some(1), "{members}: {told}");
        assert!(told.contains(expected), "{members}: {told}");
    }
}

/// P-029
#[test]
fn request_ids_reach_the_provider() {
    let upstream = Upstream::named("a");
    let address = upstream.address;
    let gateway = Gateway::start(&format!(
        "routes: [{{id: 1, uri: /*, plugins: {{request-id: {{}}, ai-proxy: {{provider: openai, auth: \
         {{}}, override: {{endpoint: \"http://{address}\"}}}}}}}}]"
    ));
    let response = post_json(gateway.proxy, "/x", CHAT);
    let sent = upstream.last();
    let id = sent.header("x-request-id").expect("an id");
    assert_eq!(response.header("x-request-id"), Some(id));
}

/// P-031
#[test]
fn cookies_reach_the_provider_and_secrets_no_log() {
    let upstream = Upstream::failing(500);
    let instances = [instance("a", upstream.address, "")];
    let gateway = Gateway::start(&flow_route(&instances, ""));
    let headers = [
        ("Content-Type", "application/json"),
        ("Cookie", "session=crumbs"),
        ("Authorization", "Bearer the-clients-own"),
    ];
    let body = CHAT.replace("Hi", "a private matter");
    let response = request(gateway.proxy, "POST", "/x", &headers, &body);
    assert_eq!(response.status, 500);
    assert_eq!(upstream.last().header("cookie"), Some("session=crumbs"));
    gateway.access_log(1);
    let log = gateway.stderr();
    for secret in ["the-clients-own", "a private matter", "crumbs"] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
}

/// P-034, P-035
#[test]
fn endpoints_have_names_ports_and_paths() {
    let upstream = Upstream::named("a");
    let port = upstream.port();
    let gateway = Gateway::start(&format!(
        "routes: [{{id: 1, uri: /*, plugins: {{ai-proxy: {{provider: openai, auth: {{}}, override: \
         {{endpoint: \"http://localhost:{port}/post\"}}}}}}}}]"
    ));
    assert_eq!(post_json(gateway.proxy, "/x", CHAT).status, 200);
    let sent = upstream.last();
    assert_eq!(sent.target, "/post");
    assert_eq!(sent.header("host"), Some(&*format!("localhost:{port}")));
}

/// P-054: the patch of the protocol that is sent applies.
#[test]
fn patches_are_of_the_targets_protocol() {
    let upstream = Upstream::named("a");
    let address = upstream.address;
    let gateway = Gateway::start(&format!(
        "routes: [{{id: 1, uri: /*, plugins: {{ai-proxy: {{provider: openai, auth: {{}}, override: \
         {{endpoint: \"http://{address}\", request_body_force_override: true, request_body: \
         {{openai-chat: {{max_completion_tokens: 77}}, anthropic-messages: {{max_tokens: 999}}}}}}}}}}}}]"
    ));
    let body = r#"{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"Hi"}]}"#;
    let response = post_json(gateway.proxy, "/v1/messages", body);
    let answer: Value = response.json();
    assert_eq!(answer["type"], "message");
    assert_eq!(answer["content"][0]["text"], "from a");
    let sent = upstream.last().json();
    assert_eq!(sent["max_completion_tokens"], 77);
    assert_eq!(sent.get("max_tokens"), None);
}

/// P-061
#[test]
fn the_configured_model_is_what_is_passed_through() {
    let upstream = Upstream::named("a");
    let address = upstream.address;
    let gateway = Gateway::start(&format!(
        "routes: [{{id: 1, uri: /*, plugins: {{ai-proxy: {{provider: openai, auth: {{}}, options: \
         {{model: ours}}, override: {{endpoint: \"http://{address}\"}}}}}}}}]"
    ));
    let body = json!({"model": "theirs", "prompt": "a cat", "n": 1});
    post_json(gateway.proxy, "/v1/images/generations", &body.to_string());
    let sent = upstream.last();
    assert_eq!(sent.target, "/v1/images/generations");
    assert_eq!(
        sent.json(),
        json!({"model": "ours", "prompt": "a cat", "n": 1})
    );
}
