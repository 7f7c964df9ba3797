//! `traffic-split`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::named;
use crate::support::{
    Answer, CHAT, Gateway, Upstream, admin, flow_route, get, instance, post_json, wait_until,
};

/// A route `/x` to `own` with these rules, and the upstream 2 at `other`.
fn document(own: &Upstream, other: &Upstream, checks: &str, rules: &str) -> String {
    format!(
        "upstreams: [{{id: 2, nodes: {{\"{}\": 1}}{checks}}}]\n\
         routes: [{{id: 1, uri: /x, plugins: {{traffic-split: {{rules: {rules}}}}}, \
           upstream: {{nodes: {{\"{}\": 1}}}}}}]\n",
        other.address, own.address
    )
}

/// Who answers `count` requests, and how often.
fn answers(gateway: &Gateway, count: usize, headers: &[(&str, &str)]) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for _ in 0..count {
        let answer = get(gateway.proxy, "/x", headers);
        assert_eq!(answer.status, 200, "{}", answer.text());
        *found.entry(answer.text()).or_default() += 1;
    }
    found
}

fn counts(expected: &[(&str, usize)]) -> BTreeMap<String, usize> {
    let pairs = expected.iter();
    pairs
        .map(|(name, count)| ((*name).to_owned(), *count))
        .collect()
}

/// G-182, G-183
#[test]
fn requests_are_split_by_weight_and_rule() {
    let (own, other, third) = (named("own"), named("other"), named("third"));
    let inline = format!(
        "{{upstream: {{nodes: {{\"{}\": 1}}, pass_host: rewrite, upstream_host: third.test, checks: \
         {{active: {{http_path: /health}}}}}}, weight: 3}}",
        third.address
    );
    let rules = format!(
        "[{{match: [{{vars: [[http_x_split, ==, a]]}}, {{vars: [[arg_split, ==, a]]}}], \
            weighted_upstreams: [{inline}, {{upstream_id: 2, weight: 2}}, {{upstream_id: 2, weight: 0}}]}}, \
          {{match: [{{vars: [[http_x_split, ==, b]]}}], \
            weighted_upstreams: [{{upstream_id: 2, weight: 1}}, {{weight: 1}}]}}]"
    );
    let gateway = Gateway::start(&document(&own, &other, "", &rules));
    assert_eq!(answers(&gateway, 5, &[]), counts(&[("own", 5)]));
    let split = answers(&gateway, 10, &[("X-Split", "a")]);
    assert_eq!(split, counts(&[("other", 4), ("third", 6)]));
    assert_eq!(third.last().header("host"), Some("third.test"));
    let split = answers(&gateway, 10, &[("X-Split", "b")]);
    assert_eq!(split, counts(&[("other", 5), ("own", 5)]));
    assert_eq!(get(gateway.proxy, "/x?split=a", &[]).status, 200);
    assert_eq!(own.hits(), 10);
    // What is not honoured inline is told, and done by nobody.
    gateway.wait_for_line("weighted_upstreams[0].upstream.checks has no effect");
    assert_eq!(third.probes().len(), 0);
}

/// G-184: also in a rule that does not match, once it is looked at.
#[test]
fn an_upstream_that_is_not_there_fails_requests() {
    let (own, other) = (named("own"), named("other"));
    let rules = "[{match: [{vars: [[arg_first, ==, \"1\"]]}], weighted_upstreams: [{upstream_id: 2}]}, \
                  {match: [{vars: [[arg_second, ==, \"1\"]]}], weighted_upstreams: [{upstream_id: 7}]}]";
    let gateway = Gateway::start(&document(&own, &other, "", rules));
    gateway.wait_for_line("there is no upstream `7`");
    let answer = get(gateway.proxy, "/x", &[]);
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (500, "failed to find upstream by id: 7")
    );
    assert!(
        answer
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("text/plain"))
    );
    assert_eq!(get(gateway.proxy, "/x?first=1", &[]).text(), "other");
}

/// Who gets a share is picked by its health, and what cannot be reached is tried elsewhere.
#[test]
fn a_share_obeys_health_and_retries() {
    let (own, sick, well) = (named("own"), named("sick"), named("well"));
    sick.set_healthy(false);
    let checks = format!(
        ", retries: 1, checks: {{active: {{http_path: /health, healthy: {{interval: 1, successes: 1}}, \
         unhealthy: {{interval: 1, http_failures: 1}}}}}}, nodes: {{\"{}\": 1, \"{}\": 1}}",
        sick.address, well.address
    );
    let rules = "[{weighted_upstreams: [{upstream_id: 2}]}]";
    let document = document(&own, &sick, &checks, rules).replacen(
        &format!("id: 2, nodes: {{\"{}\": 1}}", sick.address),
        "id: 2",
        1,
    );
    let gateway = Gateway::start(&document);
    gateway.wait_for_status(sick.port(), "unhealthy");
    let before = sick.hits();
    assert_eq!(answers(&gateway, 8, &[]), counts(&[("well", 8)]));
    assert_eq!(sick.hits(), before);
    sick.set_healthy(true);
    wait_until("its turn", || {
        get(gateway.proxy, "/x", &[]);
        (sick.hits() > before).then_some(())
    });
    // Inline, a node that says nothing: every request is answered by the other one.
    let mute = Upstream::start(|_| Answer::Close);
    let inline = format!(
        "[{{weighted_upstreams: [{{upstream: {{nodes: {{\"{}\": 1, \"{}\": 1}}}}}}]}}]",
        mute.address, well.address
    );
    let at = document.find("[{weighted").expect("rules");
    gateway.reload(&format!(
        "{}{inline}{}",
        &document[..at],
        &document[at + rules.len()..]
    ));
    let well_before = well.hits();
    assert_eq!(answers(&gateway, 8, &[]), counts(&[("well", 8)]));
    assert_eq!(well.hits(), well_before + 8);
    assert!(mute.hits() > 0);
}

/// What is sent by an AI plugin is not split.
#[test]
fn instances_are_picked_by_their_own_plugin() {
    let (model, other) = (Upstream::named("model"), named("other"));
    let route = flow_route(&[instance("a", model.address, "")], "");
    let plugin = format!(
        "traffic-split: {{rules: [{{weighted_upstreams: [{{upstream: {{nodes: {{\"{}\": 1}}}}}}]}}]}}, prometheus",
        other.address
    );
    let gateway = Gateway::start(&route.replacen("prometheus", &plugin, 1));
    let answer = post_json(gateway.proxy, "/v1/chat/completions", CHAT);
    assert_eq!(answer.status, 200);
    assert_eq!((model.hits(), other.hits()), (1, 0));
}

/// G-227, and a change of an upstream that only a kept plugin names.
#[test]
fn an_upstream_that_gets_a_share_stays() {
    let (a, b) = (Upstream::start(|_| Answer::text(200, "a")), named("b"));
    let gateway = Gateway::with_store();
    let put = |path: &str, body: Value| gateway.asked(201, "PUT", path, body);
    put("/upstreams/9", admin::upstream(a.address));
    let plugins =
        json!({"traffic-split": {"rules": [{"weighted_upstreams": [{"upstream_id": 9}]}]}});
    let id = json!({"uri": "/x", "plugins": plugins, "upstream_id": 8});
    put("/upstreams/8", admin::upstream(a.address));
    put("/routes/1", id);
    put("/services/2", json!({"plugins": plugins}));
    put("/plugin_configs/3", json!({"plugins": plugins}));
    put("/consumer_groups/4", json!({"plugins": plugins}));
    put("/global_rules/5", json!({"plugins": plugins}));
    put(
        "/consumers/jack",
        json!({"username": "jack", "plugins": plugins}),
    );
    gateway.wait_for_route("/x", 200);
    gateway.asked(200, "PUT", "/upstreams/9", admin::upstream(b.address));
    wait_until("the other node", || {
        (get(gateway.proxy, "/x", &[]).text() == "b").then_some(())
    });
    for (user, path) in [
        ("route [1]", "/routes/1"),
        ("service [2]", "/services/2"),
        ("plugin_config [3]", "/plugin_configs/3"),
        ("consumer [jack]", "/consumers/jack"),
        ("consumer_group [4]", "/consumer_groups/4"),
        ("global_rules [5]", "/global_rules/5"),
    ] {
        let said = gateway.refused("DELETE", "/upstreams/9", Value::Null);
        let expected =
            format!("can not delete this upstream, plugin in {user} is still using it now");
        assert_eq!(said, expected);
        gateway.asked(200, "DELETE", path, Value::Null);
    }
    gateway.asked(200, "DELETE", "/upstreams/9", Value::Null);
}
