//! Who gets a request, and who gets it next when that fails.

mod support;

use support::{Answer, CHAT, Gateway, Upstream, instance, multi, post_json};

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
    let dead = [
        instance("openai", Upstream::nobody(), "").replace("weight: 1", "weight: 4"),
        instance("deepseek", deepseek.address, ""),
    ];
    gateway.reload(&multi(
        &dead,
        &format!("{balancer}        fallback_strategy: http_5xx\n"),
    ));
    for index in 1..=10 {
        assert_eq!(
            post_json(gateway.proxy, &format!("/x?index={index}"), CHAT).status,
            200
        );
    }
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
