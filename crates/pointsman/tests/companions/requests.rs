//! `client-control` and `request-validation`.

use super::{named, routes};
use crate::support::{Gateway, client::Connection, get, request};

#[test]
fn bodies_have_a_limit_of_their_own() {
    let upstream = named("a");
    let limit = "client-control: {max_body_size: 5}";
    let gateway = Gateway::start(&routes(
        &upstream,
        &[
            ("/five", limit),
            ("/any", "client-control: {max_body_size: 0}"),
            ("/read/*", limit),
        ],
    ));
    let post = |path: &str, body: &str| request(gateway.proxy, "POST", path, &[], body).status;
    assert_eq!([post("/five", "12345"), post("/any", "123456")], [200, 200]);
    let before = upstream.hits();
    assert_eq!(post("/five", "123456"), 413);
    assert_eq!(upstream.hits(), before);
    // One that does not say how long it is.
    let mut connection = Connection::open(gateway.proxy);
    connection.send(
        b"POST /five HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n123456\r\n0\r\n\r\n",
    );
    assert_eq!(connection.response(false).status, 413);
}

#[test]
fn requests_are_what_a_schema_says() {
    let upstream = named("a");
    let body = "body_schema: {type: object, required: [name], properties: {name: {type: string, \
                maxLength: 3}, n: {type: array, uniqueItems: true}}}";
    let headers = "header_schema: {type: object, required: [x-kind], properties: {x-kind: {enum: [a, \
                   b]}}}";
    let document = routes(
        &upstream,
        &[
            ("/body", &format!("request-validation: {{{body}}}")),
            ("/headers", &format!("request-validation: {{{headers}}}")),
            (
                "/worded",
                &format!("request-validation: {{{body}, rejected_code: 422, rejected_msg: no}}"),
            ),
        ],
    );
    let gateway = Gateway::start(&document);
    let post = |path: &str, kind: &str, body: &str| {
        let answer = request(gateway.proxy, "POST", path, &[("Content-Type", kind)], body);
        (answer.status, answer.text())
    };
    let (json, form) = ("application/json", "application/x-www-form-urlencoded; a=b");
    for (kind, body) in [
        (json, "{\"name\":\"abc\",\"n\":[1,2]}"),
        (form, "name=a%62c&x=1"),
    ] {
        assert_eq!(post("/body", kind, body).0, 200, "{body}");
        assert_eq!(upstream.last().text(), body);
    }
    let before = upstream.hits();
    for (kind, body, why) in [
        (json, "{}", "property \"name\" is required"),
        (
            json,
            "{\"name\":1}",
            "property \"name\" validation failed: wrong type: expected string, got number",
        ),
        (
            json,
            "{\"name\":\"$env://HOME\"}",
            "property \"name\" validation failed: string too long, expected at most 3, got 11",
        ),
        (
            json,
            "{\"name\":\"a\",\"n\":[{\"a\":1,\"b\":2},0,{\"b\":2,\"a\":1}]}",
            "property \"n\" validation failed: expected unique items but items 1 and 3 are equal",
        ),
        (json, "", "failed to read the body: it is empty"),
        (form, "other=1", "property \"name\" is required"),
    ] {
        assert_eq!(post("/body", kind, body), (400, why.to_owned()), "{body}");
    }
    let broken = post("/body", json, "{\"name\":");
    assert!(
        broken.0 == 400 && broken.1.starts_with("failed to decode the body"),
        "{broken:?}"
    );
    assert_eq!(post("/worded", json, "{}"), (422, "no".to_owned()));
    let ask = |value: &str| get(gateway.proxy, "/headers", &[("X-Kind", value)]).status;
    assert_eq!(ask("c"), 400);
    assert_eq!(get(gateway.proxy, "/headers", &[]).status, 400);
    assert_eq!(upstream.hits(), before);
    assert_eq!([ask("a"), ask("b")], [200, 200]);
}
