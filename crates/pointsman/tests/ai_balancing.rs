//! Who gets a request, and who gets it next when that fails.

mod support;

use support::{Answer, CHAT, Gateway, Start, Upstream, instance, multi, post_json, request};

fn statuses(gateway: &Gateway, count: usize) -> Vec<u16> {
    (0..count)
        .map(|_| post_json(gateway.proxy, "/x", CHAT).status)
        .collect()
}

/// B-050
#[test]
fn weights_are_exact() {
    let (a, b) = (Upstream::named("a"), Upstream::named("b"));
    let heavy = instance("a", a.address, "").replace("weight: 1", "weight: 4");
    let gateway = Gateway::start(&multi(&[heavy, instance("b", b.address, "")], ""));
    assert_eq!(statuses(&gateway, 10), [200; 10]);
    assert_eq!((a.hits(), b.hits()), (8, 2));
}

/// B-052, B-053
#[test]
fn tiers_are_fallen_through_in_order() {
    let (limited, broken, fine) = (
        Upstream::failing(429),
        Upstream::failing(500),
        Upstream::named("c"),
    );
    let instances = [
        instance("a", limited.address, ", priority: 10"),
        instance("b", broken.address, "").replace("weight: 1", "weight: 10"),
        instance("c", fine.address, ""),
    ];
    let strategy = "        fallback_strategy: [http_429, http_5xx]\n";
    let gateway = Gateway::start(&multi(&instances, strategy));
    assert_eq!(statuses(&gateway, 10), [200; 10]);
    assert_eq!((limited.hits(), fine.hits()), (10, 10));
    gateway.reload(&multi(&instances[..2], strategy));
    assert_eq!(statuses(&gateway, 10), [502; 10]);
    let last = post_json(gateway.proxy, "/x", CHAT);
    assert_eq!(last.text(), "{\"error\":\"status 500\"}");
}

/// B-054, B-070, B-074, B-075, B-076; I-23, I-25
#[test]
fn retries_obey_their_gates() {
    let all = [
        Upstream::failing(500),
        Upstream::failing(500),
        Upstream::failing(500),
    ];
    let instances: Vec<String> = ["a", "b", "c"]
        .iter()
        .zip(&all)
        .map(|(name, upstream)| instance(name, upstream.address, ""))
        .collect();
    let hits = || all.iter().map(Upstream::hits).sum::<usize>();
    let lone = Gateway::start(&multi(
        &instances[..1],
        "        fallback_strategy: [http_5xx]\n",
    ));
    assert_eq!((statuses(&lone, 1), hits()), (vec![500], 1));
    let once = "        fallback_strategy: http_5xx\n        max_retries: 1\n";
    let gateway = Gateway::start(&multi(&instances, once));
    assert_eq!((statuses(&gateway, 1), hits()), (vec![500], 3));
    gateway.reload(&multi(&instances, "        fallback_strategy: http_5xx\n"));
    assert_eq!((statuses(&gateway, 1), hits()), (vec![502], 6));

    let (no, fine) = (Upstream::failing(401), Upstream::named("b"));
    let pair = [
        instance("a", no.address, ", priority: 1"),
        instance("b", fine.address, ""),
    ];
    gateway.reload(&multi(
        &pair,
        "        fallback_http_statuses: [401, 402]\n",
    ));
    assert_eq!(statuses(&gateway, 1), [200]);
    let none = "        fallback_http_statuses: [401]\n        max_retries: 0\n";
    gateway.reload(&multi(&pair, none));
    assert_eq!(statuses(&gateway, 1), [401]);
    gateway.reload(&multi(
        &pair,
        "        fallback_strategy: [http_429, http_5xx]\n",
    ));
    assert_eq!((statuses(&gateway, 1), fine.hits()), (vec![401], 1));
}

/// B-071, B-072
#[test]
fn a_slow_failure_is_not_retried() {
    let slow = Upstream::start(|_| {
        let failed = Answer::status(500, "{\"slow\":true}");
        Answer::After(std::time::Duration::from_millis(500), Box::new(failed))
    });
    let (fast, fine) = (Upstream::failing(500), Upstream::named("b"));
    let document = |first: &Upstream, limit: u32| {
        let pair = [
            instance("a", first.address, ", priority: 10"),
            instance("b", fine.address, ""),
        ];
        multi(
            &pair,
            &format!(
                "        fallback_strategy: http_5xx\n        retry_on_failure_within_ms: {limit}\n"
            ),
        )
    };
    let gateway = Gateway::start(&document(&fast, 5000));
    assert_eq!(statuses(&gateway, 1), [200]);
    gateway.reload(&document(&slow, 200));
    let response = post_json(gateway.proxy, "/x", CHAT);
    assert_eq!(
        (response.status, response.text().as_str()),
        (500, "{\"slow\":true}")
    );
    assert_eq!(fine.hits(), 1);
}

/// B-073: nothing of one instance reaches another.
#[test]
fn options_do_not_leak_between_attempts() {
    let (broken, fine) = (Upstream::failing(500), Upstream::named("b"));
    let pair = [
        instance(
            "a",
            broken.address,
            ", priority: 1, options: {model: model-a, temperature: 1}",
        ),
        instance("b", fine.address, ", options: {model: model-b}"),
    ];
    let gateway = Gateway::start(&multi(&pair, "        fallback_strategy: http_5xx\n"));
    assert_eq!(statuses(&gateway, 1), [200]);
    assert_eq!(fine.last().text(), CHAT.replace("gpt-4", "model-b"));
    let line = gateway.access_log(1).remove(0);
    assert_eq!(
        (
            line["request_llm_model"].as_str(),
            line["llm_model"].as_str()
        ),
        (Some("gpt-4"), Some("model-b"))
    );
    assert_eq!(line["upstream_status"], "500, 200");
    assert_eq!(line["balancer_ip"], "b");
}

/// B-077, P-153: nobody listens.
#[test]
fn an_unreachable_instance_falls_back_like_a_500() {
    let fine = Upstream::named("b");
    let pair = [
        instance("a", Upstream::nobody(), ", priority: 1"),
        instance("b", fine.address, ""),
    ];
    let gateway = Gateway::start(&multi(&pair, "        fallback_strategy: http_5xx\n"));
    assert_eq!(statuses(&gateway, 3), [200; 3]);
    gateway.reload(&multi(&pair, ""));
    let refused = post_json(gateway.proxy, "/x", CHAT);
    assert_eq!(refused.status, 500);
    assert_eq!(
        refused.json()["error"]["message"],
        "upstream connection refused"
    );
    assert_eq!(refused.json()["error"]["type"], "server_error");
    gateway.wait_until_idle();
}

/// B-060, B-061: the ring of APISIX, and its successors.
#[test]
fn a_hash_ring_maps_as_in_apisix() {
    let (openai, deepseek) = (Upstream::named("o"), Upstream::named("d"));
    let pair = |weight| {
        [
            instance("openai", openai.address, "").replace("weight: 1", weight),
            instance("deepseek", deepseek.address, ""),
        ]
    };
    let balancer = "        balancer: {algorithm: chash, hash_on: vars, key: query_string}\n";
    let gateway = Gateway::start(&multi(&pair("weight: 4"), balancer));
    for index in 1..=10 {
        let before = deepseek.hits();
        post_json(gateway.proxy, &format!("/x?index={index}"), CHAT);
        let expected = usize::from(index == 2 || index == 4);
        assert_eq!(deepseek.hits() - before, expected, "index={index}");
    }
    let failing = [500, 429, 503].map(|status| (status.to_string(), Upstream::failing(status)));
    let mut owners: Vec<_> = failing
        .iter()
        .map(|(name, one)| (name.as_str(), one.address))
        .collect();
    owners.push(("refused", Upstream::nobody()));
    for (name, address) in owners {
        let dead = [
            instance("openai", address, "").replace("weight: 1", "weight: 4"),
            instance("deepseek", deepseek.address, ""),
        ];
        let strategy = "        fallback_strategy: [http_429, http_5xx]\n";
        gateway.reload(&multi(&dead, &format!("{balancer}{strategy}# {name}\n")));
        let before = deepseek.hits();
        for index in 1..=10 {
            let status = post_json(gateway.proxy, &format!("/x?index={index}"), CHAT).status;
            assert_eq!(status, 200, "{name}");
        }
        assert_eq!(deepseek.hits() - before, 10, "{name}");
    }
}

/// B-192: what can be hashed on, and the client's address when that is missing (3.5).
#[test]
fn everything_that_can_be_hashed_on() {
    let (one, two) = (Upstream::named("1980"), Upstream::named("1981"));
    let pair = [
        instance("\"127.0.0.1:1980\"", one.address, ""),
        instance("\"127.0.0.1:1981\"", two.address, ""),
    ];
    let gateway = Gateway::start("routes: []");
    let balance = |on: &str, key: &str| {
        let key = if key.is_empty() {
            String::new()
        } else {
            format!(", key: \"{key}\"")
        };
        let balancer = format!("        balancer: {{algorithm: chash, hash_on: {on}{key}}}\n");
        let mut document = multi(&pair, &balancer);
        if on == "consumer" {
            document = document.replace("prometheus: {}\n", "prometheus: {}\n      key-auth: {}\n")
                + "consumers:\n  - {username: jack, plugins: {key-auth: {key: j}}}\n  \
                   - {username: tom, plugins: {key-auth: {key: t}}}\n";
        }
        gateway.reload(&document);
    };
    let who = |target: &str, headers: &[(&str, &str)]| {
        let all = [&[("Content-Type", "application/json")], headers].concat();
        let response = request(gateway.proxy, "POST", target, &all, CHAT);
        response.json()["model"]
            .as_str()
            .expect("a name")
            .to_owned()
    };
    // The client's address goes to 1980.
    for (on, key, headers, owner) in [
        (
            "header",
            "X-Custom-Key",
            &[("x-custom-key", "custom-one")][..],
            "1980",
        ),
        (
            "header",
            "X-Custom-Key",
            &[("x-custom-key", "jack")],
            "1981",
        ),
        ("header", "X-Custom-Key", &[], "1980"),
        (
            "header",
            "x_custom_key",
            &[("X-Custom-Key", "jack")],
            "1981",
        ),
        ("cookie", "k", &[("Cookie", "a=b; k=cuscookie")], "1981"),
        ("cookie", "k", &[("Cookie", "K=cuscookie")], "1980"),
        ("cookie", "k", &[], "1980"),
        (
            "vars_combinations",
            "$http_a-$http_b",
            &[("a", "custom-one"), ("b", "custom-two")],
            "1980",
        ),
        ("vars_combinations", "${http_a}", &[("a", "jack")], "1981"),
        ("vars_combinations", "$http_a", &[], "1980"),
        ("consumer", "", &[("apikey", "j")], "1981"),
        ("consumer", "", &[("apikey", "t")], "1980"),
    ] {
        gateway.reload("routes: []\n# between");
        balance(on, key);
        assert_eq!(who("/x", headers), owner, "{on} {key} {headers:?}");
    }
}

/// B-042, B-051, B-055: the plugin on a plugin_config and on a service, and a full URL.
#[test]
fn the_plugin_works_wherever_it_stands() {
    let (a, b) = (Upstream::named("a"), Upstream::named("b"));
    let pair = [
        instance("a", a.address, ""),
        // A path in the endpoint is the path for everything.
        instance("b", b.address, "").replace("\"}", "/v1/full\"}"),
    ];
    let on_route = multi(&pair, "");
    let moved = |to: &str, reference: &str| {
        on_route.replace(
            "routes:\n  - id: 1\n    uri: /*\n",
            &format!("{to}:\n  - id: 1\n"),
        ) + &format!("routes: [{{id: 1, uri: /*, {reference}: 1}}]\n")
    };
    let gateway = Gateway::start("routes: []");
    for document in [
        moved("plugin_configs", "plugin_config_id"),
        moved("services", "service_id"),
        on_route.clone(),
    ] {
        gateway.reload(&document);
        let before = (a.hits(), b.hits());
        assert_eq!(statuses(&gateway, 4), [200; 4]);
        assert_eq!((a.hits() - before.0, b.hits() - before.1), (2, 2));
        assert_eq!(b.last().target, "/v1/full");
    }
    let streaming =
        Upstream::start(|_| Answer::events(&["data: {\"choices\":[]}", "data: [DONE]"]));
    let lone = instance("s", streaming.address, "").replace("\"}", "/v1/full\"}");
    gateway.reload(&multi(&[lone], ""));
    let response = post_json(
        gateway.proxy,
        "/x",
        &CHAT
            .replace('{', "{\"stream\":true,")
            .replacen("{\"stream\":true,\"role", "{\"role", 1),
    );
    assert!(
        response.text().ends_with("data: [DONE]\n\n"),
        "{}",
        response.text()
    );
    assert_eq!(streaming.last().target, "/v1/full");
}

/// B-050, I-22, D-16: shares are those of the process, whatever worker serves; and they go on
/// across a reload and a verdict about somebody else.
#[test]
fn shares_are_exact_over_all_workers() {
    let (a, b, c) = (
        Upstream::named("a"),
        Upstream::named("b"),
        Upstream::named("c"),
    );
    let checks = ", checks: {active: {http_path: /health, healthy: {interval: 1, successes: 1}, \
                  unhealthy: {interval: 1, http_failures: 1}}}";
    let heavy = instance("a", a.address, "").replace("weight: 1", "weight: 4");
    let pair = [heavy, instance("b", b.address, "")];
    let mut three = pair.to_vec();
    three.push(instance("c", c.address, &format!(", priority: -1{checks}")));
    let gateway = Gateway::start_with(Start {
        document: &multi(&three, ""),
        workers: 4,
        ..Start::default()
    });
    let mut all_served = false;
    let mut rounds = 0;
    while !(all_served && rounds >= 4) {
        let before = (a.hits(), b.hits());
        let at_once: Vec<u16> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..5)
                .map(|_| scope.spawn(|| statuses(&gateway, 4)))
                .collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().expect("served"))
                .collect()
        });
        assert_eq!(at_once, [200; 20]);
        assert_eq!(
            (a.hits() - before.0, b.hits() - before.1),
            (16, 4),
            "round {rounds}"
        );
        rounds += 1;
        all_served = a.traffic_connections() >= 4;
        assert!(rounds < 1000, "some worker never serves");
        match rounds {
            1 => gateway.reload(&format!("{}# again\n", multi(&three, ""))),
            2 => {
                c.set_healthy(false);
                gateway.wait_for_status(c.port(), "unhealthy");
            }
            _ => {}
        }
    }
    assert_eq!(c.hits(), 0);
}

/// Position survives a reload that changes nothing for the picker (D-16, I-19).
#[test]
fn a_reload_keeps_the_turn() {
    let (a, b) = (Upstream::named("a"), Upstream::named("b"));
    let document = multi(
        &[instance("a", a.address, ""), instance("b", b.address, "")],
        "",
    );
    let gateway = Gateway::start(&document);
    for round in 0..5 {
        statuses(&gateway, 1);
        gateway.reload(&format!("{document}# {round}\n"));
    }
    statuses(&gateway, 1);
    assert_eq!((a.hits(), b.hits()), (3, 3));
}

/// P-154, G-37: a silent upstream is a 504, and falls back like one.
#[test]
fn a_silent_upstream_times_out() {
    let silent = Upstream::start(|_| Answer::Silence);
    let fine = Upstream::named("b");
    let lone = [instance("a", silent.address, "")];
    let gateway = Gateway::start(&multi(&lone, "        timeout: 200\n"));
    let response = post_json(gateway.proxy, "/x", CHAT);
    assert_eq!(response.status, 504);
    silent.wait_for_early_close();
    let pair = [
        instance("a", silent.address, ", priority: 1"),
        instance("b", fine.address, ""),
    ];
    gateway.reload(&multi(
        &pair,
        "        timeout: 200\n        fallback_strategy: http_5xx\n",
    ));
    assert_eq!(statuses(&gateway, 1), [200]);
    gateway.wait_until_idle();
}

/// A refusal because of what the request says is an answer: nobody else is asked.
#[test]
fn a_refusal_by_policy_is_an_answer() {
    let refusal = r#"{"error":{"message":"no","code":"content_policy_violation"}}"#;
    let (strict, other) = (
        Upstream::start(move |_| Answer::status(400, refusal)),
        Upstream::named("other"),
    );
    let pair = [
        instance("strict", strict.address, ", priority: 1"),
        instance("other", other.address, ""),
    ];
    let gateway = Gateway::start(&multi(&pair, "        fallback_http_statuses: [400]\n"));
    let answer = post_json(gateway.proxy, "/x", CHAT);
    assert_eq!((answer.status, other.hits()), (400, 0));
    assert_eq!(answer.text(), refusal);
}
