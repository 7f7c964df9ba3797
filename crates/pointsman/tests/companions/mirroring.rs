//! `proxy-mirror`.

use super::{named, routes};
use crate::support::{
    Answer, CHAT, Gateway, Upstream, flow_route, get, instance, post_json, request, wait_until,
};

/// The copy of a request is what the target got, and its answer nobody's.
#[test]
fn a_copy_goes_elsewhere() {
    let (upstream, mirror) = (named("a"), Upstream::failing(500));
    let host = format!("host: \"http://{}\"", mirror.address);
    let document = routes(
        &upstream,
        &[
            (
                "/same",
                &format!("proxy-rewrite: {{uri: /new}}, proxy-mirror: {{{host}}}"),
            ),
            (
                "/other",
                &format!("proxy-mirror: {{{host}, path: /m, path_concat_mode: prefix}}"),
            ),
            (
                "/shut",
                &format!("key-auth: {{}}, proxy-mirror: {{{host}}}"),
            ),
        ],
    );
    let gateway = Gateway::start(&document);
    let copies =
        |count: usize| wait_until("copies", || (mirror.hits() >= count).then(|| mirror.last()));
    let answer = request(gateway.proxy, "POST", "/same?a=b", &[("X-A", "b")], "hello");
    assert_eq!((answer.status, answer.text().as_str()), (200, "a"));
    let copy = copies(1);
    assert_eq!(
        (copy.method.as_str(), copy.target.as_str()),
        ("POST", "/new?a=b")
    );
    assert_eq!(
        (copy.text().as_str(), copy.header("x-a")),
        ("hello", Some("b"))
    );
    // One that never went out has no copy; nor has one that is too long.
    assert_eq!(get(gateway.proxy, "/shut", &[]).status, 401);
    let long = "x".repeat((1 << 20) + 1);
    assert_eq!(
        request(gateway.proxy, "POST", "/other", &[], &long).status,
        200
    );
    assert_eq!(
        request(gateway.proxy, "POST", "/other", &[], &long[1..]).status,
        200
    );
    let copy = copies(2);
    assert_eq!(
        (copy.target.as_str(), copy.body.len()),
        ("/m/other", 1 << 20)
    );
    assert_eq!(get(gateway.proxy, "/other?c=d", &[]).status, 200);
    assert_eq!(copies(3).target, "/m/other?c=d");
    assert_eq!(mirror.hits(), 3);
}

/// A mirror that never answers, or is not there, holds nobody up; one of a chat gets what the client sent.
#[test]
fn nobody_waits_for_a_mirror() {
    let (model, mute) = (
        Upstream::named("model"),
        Upstream::start(|_| Answer::Silence),
    );
    let mirrored = |host: std::net::SocketAddr| {
        let plugin = format!("proxy-mirror: {{host: \"http://{host}\"}}, prometheus");
        flow_route(&[instance("a", model.address, "")], "").replacen("prometheus", &plugin, 1)
    };
    let gateway = Gateway::start(&mirrored(mute.address));
    let chat = || post_json(gateway.proxy, "/v1/chat/completions", CHAT).status;
    // More than there is room for: those are dropped, and told.
    for _ in 0..600 {
        assert_eq!(chat(), 200);
    }
    gateway.wait_for_line("copies of requests are dropped");
    let copy = mute.last();
    assert_eq!(
        (copy.text().as_str(), copy.header("authorization")),
        (CHAT, None)
    );
    gateway.reload(&mirrored(Upstream::nobody()));
    assert_eq!(chat(), 200);
}
