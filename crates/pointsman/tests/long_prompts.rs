//! Prompts that are too long for an instance: who is asked then, and how often.

mod support;

use std::time::Duration;

use serde_json::Value;
use support::{CHAT, Gateway, Upstream, flow_route, instance, post_json, upstream::Answer};

/// A prompt that is too long goes to an instance that is known to take more, if there is one.
#[test]
fn a_long_prompt_goes_where_it_fits() {
    let too_long = r#"{"error":{"message":"too long","code":"context_length_exceeded"}}"#;
    let short = || Upstream::start(move |_| Answer::status(400, too_long));
    let (small, unknown, large) = (short(), short(), Upstream::named("large"));
    let declared = |length: usize| format!(", context_length: {length}");
    let all = [
        instance(
            "small",
            small.address,
            &format!(", priority: 9{}", declared(8192)),
        ),
        instance("unknown", unknown.address, ", priority: 5"),
        instance("large", large.address, &declared(128_000)),
    ];
    let gateway = Gateway::start(&flow_route(&all, ""));
    let answer = post_json(gateway.proxy, "/x", CHAT);
    assert_eq!(
        (answer.status, small.hits(), unknown.hits(), large.hits()),
        (200, 1, 0, 1)
    );
    let line: Value = gateway.access_log(1).remove(0);
    assert_eq!(line["status"], 200, "{line}");

    // Nobody takes more: the answer is what it is.
    let gateway = Gateway::start(&flow_route(&all[..2], ""));
    let answer = post_json(gateway.proxy, "/x", CHAT);
    assert_eq!((answer.status, answer.text()), (400, too_long.to_owned()));
    assert_eq!((small.hits(), unknown.hits()), (2, 0));
}

/// A prompt that goes on to a larger instance is a retry: its number and its time are limited as those of
/// any other.
#[test]
fn a_long_prompt_goes_on_as_far_as_retries_may() {
    let too_long = r#"{"error":{"message":"too long","code":"context_length_exceeded"}}"#;
    let check = |more: &str, pause: u64, expected: (u16, [usize; 3])| {
        let short = || {
            Upstream::start(move |_| {
                let answer = Answer::status(400, too_long);
                Answer::After(Duration::from_millis(pause), Box::new(answer))
            })
        };
        let (small, medium, large) = (short(), short(), Upstream::named("large"));
        let of = |name: &str, upstream: &Upstream, priority: u32, length: u32| {
            let rest = format!(", priority: {priority}, context_length: {length}");
            instance(name, upstream.address, &rest)
        };
        let all = [
            of("small", &small, 9, 1000),
            of("medium", &medium, 5, 2000),
            of("large", &large, 1, 3000),
        ];
        let gateway = Gateway::start(&flow_route(&all, more));
        let answer = post_json(gateway.proxy, "/x", CHAT);
        let hits = [small.hits(), medium.hits(), large.hits()];
        assert_eq!((answer.status, hits), expected, "{more}");
        if answer.status == 400 {
            assert_eq!(answer.text(), too_long, "{more}");
        }
        gateway.wait_until_idle();
    };
    check("", 0, (200, [1, 1, 1]));
    check(", max_retries: 2", 0, (200, [1, 1, 1]));
    check(", max_retries: 1", 0, (400, [1, 1, 0]));
    check(", max_retries: 0", 0, (400, [1, 0, 0]));
    let listed = ", max_retries: 1, fallback_http_statuses: [400]";
    check(listed, 0, (400, [1, 1, 0]));
    let within = ", retry_on_failure_within_ms: 10000";
    check(within, 0, (200, [1, 1, 1]));
    check(", retry_on_failure_within_ms: 1", 60, (400, [1, 0, 0]));
}
