//! `GET /v1/models`, from configuration.

mod support;

use serde_json::{Value, json};
use support::{Gateway, Upstream, flow_route, get, instance};

fn gateway(upstream: &Upstream, more: &str) -> Gateway {
    let named = |name: &str, model: &str| {
        instance(
            name,
            upstream.address,
            &format!(", options: {{model: {model}}}"),
        )
    };
    let instances = [
        named("a", "gpt-5"),
        named("b", "org/llama").replace("openai-compatible", "vllm"),
        named("c", "gpt-5"),
        instance("d", upstream.address, ""),
    ];
    Gateway::start(&flow_route(&instances, more))
}

const TYPED: &str = ", typed_passthrough: true";

#[test]
fn the_models_of_the_configuration_are_listed() {
    let upstream = Upstream::named("a");
    let gateway = gateway(&upstream, TYPED);
    let model = |id: &str, owner: &str| json!({"id": id, "object": "model", "created": 0, "owned_by": owner});
    let (gpt, llama) = (
        model("gpt-5", "openai-compatible"),
        model("org/llama", "vllm"),
    );
    let ask = |path: &str| {
        let response = get(gateway.proxy, path, &[]);
        assert_eq!(response.header("content-type"), Some("application/json"));
        (response.status, response.json())
    };
    let list = json!({"object": "list", "data": [gpt, llama]});
    assert_eq!(ask("/v1/models"), (200, list.clone()));
    assert_eq!(ask("/gw/v1/models/?limit=1"), (200, list));
    assert_eq!(ask("/v1/models/gpt-5"), (200, gpt));
    assert_eq!(ask("/v1/models/org/llama"), (200, llama.clone()));
    assert_eq!(ask("/v1/models/org%2Fllama"), (200, llama));
    let (status, error) = ask("/v1/models/gpt-4");
    assert_eq!(
        (status, &error["error"]["type"]),
        (404, &json!("not_found_error"))
    );
    assert_eq!(upstream.hits(), 0);
}

#[test]
fn clients_of_anthropic_get_its_shape() {
    let upstream = Upstream::named("a");
    let gateway = gateway(&upstream, TYPED);
    let ask = |path: &str| get(gateway.proxy, path, &[("anthropic-version", "2023-06-01")]).json();
    let list = ask("/v1/models");
    assert_eq!(list["data"][0], ask("/v1/models/gpt-5"));
    assert_eq!(list["data"][0]["type"], "model");
    let ends = [&list["first_id"], &list["last_id"], &list["has_more"]];
    assert_eq!(ends, [&json!("gpt-5"), &json!("org/llama"), &json!(false)]);
    let error = ask("/v1/models/x");
    assert_eq!(
        (&error["type"], &error["error"]["type"]),
        (&json!("error"), &json!("not_found_error"))
    );
}

#[test]
fn models_are_told_only_where_paths_count() {
    let upstream = Upstream::named("a");
    let without = gateway(&upstream, "");
    assert_eq!(get(without.proxy, "/v1/models", &[]).status, 400);
    let gateway = gateway(&upstream, TYPED);
    assert_eq!(get(gateway.proxy, "/v1/modelsx", &[]).status, 400);
    let line: Value = gateway.access_log(1).remove(0);
    assert_eq!(line["status"], 400, "{line}");
}
