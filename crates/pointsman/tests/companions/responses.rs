//! `response-rewrite`.

use super::routes;
use crate::support::{
    Answer, CHAT, Gateway, Upstream, client::Connection, flow_route, get, instance, post_json,
};

const REWRITE: &str = "response-rewrite: {status_code: 201, body: changed, headers: {add: [\"X-Add: 1\"], \
                       set: {X-Set: $remote_addr, X-From: $sent_http_x_from}, remove: [X-Gone]}}";

/// Says hello in plain text, and what else it is told to.
fn polite() -> Upstream {
    Upstream::start(|received| match received.target.as_str() {
        "/zipped" => Answer::Raw(zipped()),
        "/missing" => Answer::text(404, "hello"),
        "/long" => Answer::text(200, &"hello".repeat(1000)),
        _ => Answer::Whole {
            status: 200,
            kind: "text/plain",
            body: "hello, hello".to_owned(),
            headers: vec![
                ("x-from", "here".to_owned()),
                ("x-gone", "x".to_owned()),
                ("etag", "\"1\"".to_owned()),
            ],
        },
    })
}

/// `hello, hello` as gzip.
fn zipped() -> Vec<u8> {
    let body: &[u8] = &[
        0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0xcb, 0x48, 0xcd, 0xc9, 0xc9,
        0xd7, 0x51, 0xc8, 0x00, 0x51, 0x00, 0xff, 0xc5, 0xcc, 0xf3, 0x0c, 0x00, 0x00, 0x00,
    ];
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// G-170, G-171
#[test]
fn status_headers_and_body_are_changed_of_what_is_meant() {
    let upstream = polite();
    let found = "response-rewrite: {vars: [[status, ==, 200]], body: Zm91bmQ=, body_base64: true}";
    let document = routes(
        &upstream,
        &[
            ("/all", REWRITE),
            ("/found", found),
            ("/missing", found),
            (
                "/flat",
                "response-rewrite: {headers: {X-Flat: 1, X-Gone: two}}",
            ),
        ],
    );
    let gateway = Gateway::start(&document);
    let all = get(gateway.proxy, "/all", &[]);
    assert_eq!((all.status, all.text().as_str()), (201, "changed"));
    let header = |name: &str| all.header(name);
    assert_eq!(header("content-length"), Some("7"));
    assert_eq!(
        [header("x-add"), header("x-set")],
        [Some("1"), Some("127.0.0.1")]
    );
    assert_eq!(
        [header("x-from"), header("x-gone"), header("etag")],
        [Some("here"), None, None]
    );
    let found = get(gateway.proxy, "/found", &[]);
    assert_eq!((found.status, found.text().as_str()), (200, "found"));
    let missing = get(gateway.proxy, "/missing", &[]);
    assert_eq!((missing.status, missing.text().as_str()), (404, "hello"));
    let flat = get(gateway.proxy, "/flat", &[]);
    assert_eq!(
        [flat.header("x-flat"), flat.header("x-gone")],
        [Some("1"), Some("two")]
    );
    assert_eq!(
        (flat.header("etag"), flat.text().as_str()),
        (Some("\"1\""), "hello, hello")
    );
    // A head says how long the new body would be; the connection goes on.
    let mut connection = Connection::open(gateway.proxy);
    connection.send(b"HEAD /all HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = connection.response(true);
    assert_eq!(
        (head.status, head.header("content-length")),
        (201, Some("7"))
    );
    connection.send(b"GET /all HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(connection.response(false).text(), "changed");
}

/// G-172: also of a body in gzip, and never half of one.
#[test]
fn filters_replace_in_the_whole_body() {
    let upstream = polite();
    let filter = |scope: &str, more: &str| {
        format!(
            "response-rewrite: {{filters: [{{regex: \"h(ello)\", replace: \"B$1\", scope: {scope}}}]{more}}}"
        )
    };
    let document = routes(
        &upstream,
        &[
            ("/once", &filter("once", "")),
            ("/global", &filter("global", "")),
            ("/zipped", &filter("global", "")),
            ("/long", &filter("global", ", max_resp_body_size: 4999")),
        ],
    );
    let gateway = Gateway::start(&document);
    assert_eq!(get(gateway.proxy, "/once", &[]).text(), "Bello, hello");
    assert_eq!(get(gateway.proxy, "/global", &[]).text(), "Bello, Bello");
    let zipped = get(gateway.proxy, "/zipped", &[]);
    assert_eq!(zipped.text(), "Bello, Bello");
    assert_eq!(zipped.header("content-encoding"), None);
    let long = get(gateway.proxy, "/long", &[]);
    assert!(!long.complete, "{long:?}");
    gateway.wait_for_line("max_resp_body_size exceeded");
}

/// G-084, G-099, G-107
#[test]
fn whoever_answers_is_rewritten_by_the_most_specific_place() {
    let upstream = polite();
    let address = upstream.address;
    let gateway = Gateway::start(&format!(
        "plugin_configs: [{{id: 1, plugins: {{response-rewrite: {{headers: {{X-A: a}}}}}}}}]\n\
         global_rules: [{{id: 1, plugins: {{response-rewrite: {{headers: {{X-G: g}}}}}}}}]\n\
         upstreams: [{{id: 1, nodes: {{\"{address}\": 1}}}}]\n\
         routes:\n\
         - {{id: 1, uri: /both, upstream_id: 1, plugin_config_id: 1, plugins: \
              {{response-rewrite: {{headers: {{X-B: b}}}}}}}}\n\
         - {{id: 2, uri: /shut, upstream_id: 1, plugins: {{key-auth: {{}}, \
              response-rewrite: {{status_code: 200, body: x}}}}}}\n"
    ));
    let both = get(gateway.proxy, "/both", &[]);
    let seen = ["x-a", "x-b", "x-g"].map(|name| both.header(name));
    assert_eq!(seen, [None, Some("b"), Some("g")]);
    let unmatched = get(gateway.proxy, "/unmatched", &[]);
    assert_eq!(
        (unmatched.status, unmatched.header("x-g")),
        (404, Some("g"))
    );
    let shut = get(gateway.proxy, "/shut", &[]);
    assert_eq!((shut.status, shut.text().as_str()), (200, "x"));
    assert_eq!(upstream.hits(), 1);
}

/// What the model said is still counted; a stream comes as one piece, or is replaced as a whole.
#[test]
fn tokens_are_those_of_the_answer_that_came() {
    let upstream = Upstream::named("a");
    let route = flow_route(&[instance("a", upstream.address, "")], "");
    let plugin = ", response-rewrite: {body: \"{}\"}";
    let at = route.rfind("}}").expect("plugins end");
    let gateway = Gateway::start(&format!("{}{plugin}{}", &route[..at], &route[at..]));
    let answer = post_json(gateway.proxy, "/v1/chat/completions", CHAT);
    assert_eq!((answer.status, answer.text().as_str()), (200, "{}"));
    let entry = gateway.access_log(1).pop().expect("an entry");
    assert_eq!(entry["llm_completion_tokens"], 5, "{entry}");
}
