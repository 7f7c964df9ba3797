//! Routes, services and nodes: which request goes where, and what it says of the client.

mod support;

use support::{Answer, Gateway, Start, Upstream, client::Connection, get};

fn named(name: &'static str) -> Upstream {
    Upstream::start(move |_| Answer::text(200, name))
}

/// G-004
#[test]
fn a_route_that_is_off_is_not_there() {
    let a = named("a");
    let document = |status: u8| {
        format!(
            "routes:\n- {{id: 1, uri: /hello, status: {status}, upstream: {{nodes: {{\"{}\": 1}}}}}}\n",
            a.address
        )
    };
    let gateway = Gateway::start(&document(0));
    assert_eq!(get(gateway.proxy, "/hello", &[]).status, 404);
    gateway.reload(&document(1));
    assert_eq!(get(gateway.proxy, "/hello", &[]).status, 200);
    gateway.reload(&document(0));
    assert_eq!(get(gateway.proxy, "/hello", &[]).status, 404);
    assert_eq!(a.hits(), 1);
}

/// G-025, G-026: a service's hosts are those of its routes that have none.
#[test]
fn hosts_come_from_the_service_unless_the_route_has_its_own() {
    let a = named("a");
    let gateway = Gateway::start(&format!(
        "routes:\n\
         - {{id: 1, uri: /x, service_id: s}}\n\
         - {{id: 2, uri: /own, service_id: s, host: r.com}}\n\
         services:\n- {{id: s, hosts: [s.com], upstream: {{nodes: {{\"{}\": 1}}}}}}\n",
        a.address
    ));
    for (path, host, expected) in [
        ("/x", "s.com", 200),
        ("/x", "other.com", 404),
        ("/own", "r.com", 200),
        ("/own", "s.com", 404),
    ] {
        let status = get(gateway.proxy, path, &[("Host", host)]).status;
        assert_eq!(status, expected, "{path} at {host}");
    }
}

/// G-048 to G-050
#[test]
fn weights_of_zero_and_lower_priorities_get_nothing_while_others_live() {
    let (first, second, dead) = (named("first"), named("second"), Upstream::nobody());
    let node = |upstream: &std::net::SocketAddr, weight: u8, priority: u8| {
        format!(
            "{{host: {}, port: {}, weight: {weight}, priority: {priority}}}",
            upstream.ip(),
            upstream.port()
        )
    };
    let route = |id: u8, nodes: [String; 2]| {
        format!(
            "- {{id: {id}, uri: /{id}, upstream: {{nodes: [{}]}}}}\n",
            nodes.join(", ")
        )
    };
    let (one, two) = (&first.address, &second.address);
    let gateway = Gateway::start(&format!(
        "routes:\n{}{}{}",
        route(48, [node(one, 1, 0), node(two, 0, 0)]),
        route(49, [node(one, 1, 1), node(two, 1, 0)]),
        route(50, [node(&dead, 1, 1), node(two, 1, 0)]),
    ));
    for path in ["/48", "/49"] {
        for _ in 0..10 {
            assert_eq!(get(gateway.proxy, path, &[]).text(), "first", "{path}");
        }
    }
    assert_eq!(second.hits(), 0);
    let answered = get(gateway.proxy, "/50", &[]);
    assert_eq!((answered.status, answered.text().as_str()), (200, "second"));
}

/// G-074, G-075: what a client says of its way here counts only when it is trusted.
#[test]
fn forwarded_lines_are_replaced_unless_the_client_is_trusted() {
    let a = named("a");
    let document = format!(
        "routes:\n- {{id: 1, uri: /echo, upstream: {{nodes: {{\"{}\": 1}}}}}}\n",
        a.address
    );
    let claimed = [
        ("Host", "me.com:81"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "e.com"),
        ("X-Forwarded-Port", "8443"),
    ];
    let names = ["x-forwarded-proto", "x-forwarded-host", "x-forwarded-port"];
    let received = |gateway: &Gateway, headers: &[(&str, &str)]| {
        assert_eq!(get(gateway.proxy, "/echo", headers).status, 200);
        let sent = a.last();
        names.map(|name| sent.header(name).unwrap_or_default().to_owned())
    };
    let gateway = Gateway::start(&document);
    assert_eq!(received(&gateway, &claimed), ["http", "me.com:81", "81"]);
    // Without a port in `Host`, the listener's.
    let port = gateway.proxy.port().to_string();
    let plain = [("Host", "me.com"), ("X-Forwarded-Port", "8443")];
    assert_eq!(received(&gateway, &plain), ["http", "me.com", &port]);
    let trusting = Gateway::start_with(Start {
        document: &document,
        apisix: "  trusted_addresses: [127.0.0.1]",
        ..Start::default()
    });
    assert_eq!(received(&trusting, &claimed), ["https", "e.com", "8443"]);
}

/// `regex_uri` replaces what its pattern covers and leaves the rest of the path (`ngx.re.sub`).
#[test]
fn a_pattern_replaces_the_part_that_it_covers() {
    let a = named("a");
    let gateway = Gateway::start(&format!(
        "routes:\n\
         - {{id: 1, uri: /old/*, plugins: {{proxy-rewrite: {{regex_uri: [\"^/old/\", \"/new/\"]}}}}, upstream: &up {{nodes: {{\"{}\": 1}}}}}}\n\
         - {{id: 2, uri: /a/*, plugins: {{proxy-rewrite: {{regex_uri: [\"/v(\\\\d+)\", \"/w$1?n=$1\"]}}}}, upstream: *up}}\n",
        a.address
    ));
    for (asked, sent) in [
        ("/old/x/old/y?q=1", "/new/x/old/y?q=1"),
        // Arguments are the configuration's and the client's own, never part of a path.
        ("/a/v1/b%26c?q=1", "/a/w1/b&c?n=1&q=1"),
        ("/a/none", "/a/none"),
    ] {
        assert_eq!(get(gateway.proxy, asked, &[]).status, 200);
        assert_eq!(a.last().target, sent, "{asked}");
    }
}

/// A request that names its host in the target is for that host, whatever `Host` says
/// (RFC 9112 §3.2.2).
#[test]
fn a_full_uri_beats_the_host_header() {
    let (a, b) = (named("a"), named("b"));
    let gateway = Gateway::start(&format!(
        "routes:\n\
         - {{id: 1, uri: /x, host: a.test, upstream: {{nodes: {{\"{}\": 1}}}}}}\n\
         - {{id: 2, uri: /x, host: b.test, upstream: {{nodes: {{\"{}\": 1}}}}}}\n",
        a.address, b.address
    ));
    let mut client = Connection::open(gateway.proxy);
    client.send(b"GET http://me@a.test:8080/x HTTP/1.1\r\nHost: b.test\r\n\r\n");
    assert_eq!(client.response(false).text(), "a");
    assert_eq!(a.last().header("host"), Some("a.test:8080"));
    assert_eq!(b.hits(), 0);
}
