//! The Admin API's own description, and what a client makes of it that tries whatever that allows and more.

mod support;

use std::{collections::BTreeSet, process::Command};

use serde_json::{Value, json};
use support::{
    Gateway,
    packages::{python, run, unavailable},
};

/// Every reference leads somewhere, and every operation that is told of is there.
#[test]
fn the_description_holds_together() {
    let gateway = Gateway::with_store();
    let description = gateway.asked(200, "GET", "/openapi.json", Value::Null);
    assert_eq!(description["openapi"], "3.1.0");
    let mut references = BTreeSet::new();
    collect(&description, &mut references);
    assert!(references.len() > 50, "{}", references.len());
    for reference in references {
        let pointer = reference.strip_prefix('#').expect("of this document");
        let found = description.pointer(pointer);
        assert!(found.is_some(), "{reference} leads nowhere");
    }
    let paths = description["paths"].as_object().expect("paths");
    for (path, item) in paths {
        let path = path
            .replace("{manager}", "vault")
            .replace("{plugin_name}", "cors")
            .replace("{kind}", "route")
            .replace("{collection}", "routes")
            .replace("{path}", "labels");
        let path = path.split('{').next().expect("a beginning").to_owned()
            + if path.contains('{') { "x" } else { "" };
        for method in item
            .as_object()
            .expect("operations")
            .keys()
            .filter(|key| *key != "parameters")
        {
            let method = method.to_uppercase();
            let response = gateway.admin(&method, &path, "{}");
            let text = response.text();
            let unknown = response.status == 405
                || text.contains("Unsupported")
                || text.contains("404 Route Not Found");
            assert!(
                !unknown && response.status < 500,
                "{method} {path}: {} {text}",
                response.status
            );
        }
    }
    // It is told to whoever has a key, and nobody else.
    assert_eq!(
        gateway.admin_with("GET", "/openapi.json", &[], "").status,
        401
    );
}

fn collect(value: &Value, references: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            if let Some(reference) = map.get("$ref").and_then(Value::as_str) {
                references.insert(reference.to_owned());
            }
            map.values().for_each(|member| collect(member, references));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
        _ => {}
    }
}

/// Schemathesis finds nothing that is answered with a 5xx or with what is no JSON, and the gateway goes on
/// afterwards with what it was given: `POINTSMAN_SCHEMATHESIS_SECONDS`, 25 by default; a long run takes 300.
#[test]
fn whatever_is_asked_is_answered() {
    let python = match python(&["schemathesis==4.32.5"], &["--only-binary=:all:"]) {
        Ok(python) => python,
        Err(error) => return unavailable("schemathesis", &error),
    };
    let gateway = Gateway::with_store();
    let target = json!({"uri": "/kept", "upstream": {"nodes": {"127.0.0.1:1": 1}}});
    gateway.asked(201, "PUT", "/routes/kept-to-the-end-of-the-test", target);
    let base = format!("http://{}/apisix/admin", gateway.address("admin"));
    let seconds =
        std::env::var("POINTSMAN_SCHEMATHESIS_SECONDS").unwrap_or_else(|_| "25".to_owned());
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(python.with_file_name("schemathesis"));
    command
        .current_dir(folder.path())
        .args(["run", &format!("{base}/openapi.json"), "--url", &base])
        .args([
            "-H",
            "X-API-KEY: test-admin",
            "--max-time",
            &seconds,
            "--workers",
            "1",
        ])
        .args(["--checks", "not_a_server_error,content_type_conformance"])
        .args([
            "--phases",
            "examples,coverage,fuzzing",
            "--no-color",
            "--suppress-health-check",
            "all",
        ])
        .env("NO_PROXY", "127.0.0.1");
    // It may stumble over itself, and says so as an error of its own; what it finds are failures.
    let said = run(&mut command).unwrap_or_else(|said| said);
    assert!(!said.contains("= FAILURES ="), "{said}");
    let generated = said
        .lines()
        .find_map(|line| line.trim().split_once(" generated, "));
    let generated: usize = generated.map_or(0, |(count, _)| count.parse().expect("a number"));
    assert!(generated > 100, "only {generated} were tried: {said}");
    // Nothing of it has broken the store or what serves.
    let shown = gateway.asked(200, "GET", "/routes", Value::Null);
    assert!(shown["total"].is_u64(), "{shown}");
    let body = json!({"uri": "/after", "upstream": {"nodes": {"127.0.0.1:1": 1}}});
    gateway.asked(201, "PUT", "/routes/after-it-all", body);
}
