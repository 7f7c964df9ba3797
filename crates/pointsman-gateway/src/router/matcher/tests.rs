use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::vars::fixture::Vars;

fn entry(index: usize, uri: &str, host: Option<&str>, priority: i64) -> Entry {
    Entry {
        index,
        uris: vec![uri.to_owned()],
        hosts: host.map(str::to_owned).into_iter().collect(),
        methods: None,
        remote_addrs: Vec::new(),
        vars: None,
        priority,
    }
}

fn find(router: &Router, path: &str, host: &str, vars: &Vars) -> Option<usize> {
    let query = Query {
        path,
        host: &crate::router::host::normalise(host),
        raw_host: Some(host.as_bytes()),
        method: &Method::GET,
        remote_addr: "127.0.0.1".parse().expect("an address"),
        vars,
    };
    router.find(&query).map(|found| found.index)
}

fn check(entries: Vec<Entry>, cases: &[(&str, &str, Option<usize>)]) {
    let router = Router::compile(entries, RouterKind::HostUri);
    for (path, host, expected) in cases {
        assert_eq!(
            find(&router, path, host, &Vars::default()),
            *expected,
            "{path} {host}"
        );
    }
}

/// G-001, G-003, G-007, G-008, G-009, G-011
#[test]
fn paths_are_preferred_as_in_apisix() {
    check(
        vec![entry(0, "/hello", None, 0)],
        &[
            ("/hello", "", Some(0)),
            ("/hello/", "", None),
            ("/nope", "", None),
        ],
    );
    check(
        vec![entry(0, "/foo/*", None, 9), entry(1, "/foo/bar", None, 0)],
        &[("/foo/bar", "", Some(1))],
    );
    check(
        vec![entry(0, "/*", None, 100), entry(1, "/foo/*", None, 0)],
        &[("/foo/x", "", Some(1)), ("/x", "", Some(0))],
    );
    check(
        vec![entry(0, "/same", None, 1), entry(1, "/same", None, 2)],
        &[("/same", "", Some(1))],
    );
    check(
        vec![entry(0, "/same", None, 0), entry(1, "/same", None, 0)],
        &[("/same", "", Some(0))],
    );
    let both = Entry {
        uris: vec!["/a".into(), "/b".into()],
        ..entry(0, "", None, 0)
    };
    check(
        vec![both],
        &[("/a", "", Some(0)), ("/b", "", Some(0)), ("/c", "", None)],
    );
}

/// G-017 to G-024
#[test]
fn hosts_come_first() {
    check(
        vec![entry(0, "/hello", Some("foo.com"), 0)],
        &[
            ("/hello", "foo.com", Some(0)),
            ("/hello", "FOO.com", Some(0)),
            ("/hello", "foo.com:9080", Some(0)),
            ("/hello", "bar.com", None),
        ],
    );
    check(
        vec![entry(0, "/hello", Some("*.foo.com"), 0)],
        &[
            ("/hello", "a.foo.com", Some(0)),
            ("/hello", "a.b.foo.com", Some(0)),
            ("/hello", "foo.com", None),
        ],
    );
    check(
        vec![
            entry(0, "/*", Some("*.t.com"), 0),
            entry(1, "/hello", None, 9),
        ],
        &[("/hello", "a.t.com", Some(0)), ("/hello", "other", Some(1))],
    );
    check(
        vec![
            entry(0, "/only", Some("*.t.com"), 0),
            entry(1, "/*", None, 0),
        ],
        &[("/x", "a.t.com", Some(1))],
    );
    check(
        vec![
            entry(0, "/x", Some("*.t.com"), 0),
            entry(1, "/x", Some("a.t.com"), 0),
            entry(2, "/x", Some("*.a.t.com"), 0),
        ],
        &[
            ("/x", "a.t.com", Some(1)),
            ("/x", "x.a.t.com", Some(2)),
            ("/x", "b.t.com", Some(0)),
        ],
    );
    check(
        vec![entry(0, "/x", Some("foo.com:9080"), 0)],
        &[("/x", "foo.com:9080", None)],
    );
    check(
        vec![entry(0, "/x", Some("*"), 0)],
        &[("/x", "any", Some(0)), ("/x", "", Some(0))],
    );
}

/// G-010, G-016, G-027
#[test]
fn a_failing_candidate_is_passed_over() {
    let with_vars = Entry {
        vars: Some(Expr::parse(&json!([["arg_v", "==", "1"]])).expect("valid")),
        ..entry(1, "/same", None, 2)
    };
    let router = Router::compile(
        vec![entry(0, "/same", None, 1), with_vars],
        RouterKind::HostUri,
    );
    assert!(router.has_vars());
    assert_eq!(find(&router, "/same", "", &Vars::default()), Some(0));
    assert_eq!(
        find(&router, "/same", "", &Vars::of(json!({"arg_v": "1"}))),
        Some(1)
    );
    let post = Entry {
        methods: Some(vec![Method::POST]),
        ..entry(0, "/x", None, 0)
    };
    check(vec![post], &[("/x", "", None)]);
    let elsewhere = Entry {
        remote_addrs: vec!["127.0.0.2/32".parse().expect("a network")],
        ..entry(0, "/x", None, 0)
    };
    check(vec![elsewhere], &[("/x", "", None)]);
}

#[test]
fn the_other_routers_treat_hosts_as_conditions() {
    let entries = || {
        vec![
            entry(0, "/*", Some("*.t.com"), 0),
            entry(1, "/hello", None, 0),
            entry(2, "/p", Some("a.com:81"), 0),
        ]
    };
    let router = Router::compile(entries(), RouterKind::Uri);
    let vars = Vars::default();
    assert_eq!(find(&router, "/hello", "a.t.com", &vars), Some(1));
    assert_eq!(find(&router, "/x", "a.t.com", &vars), Some(0));
    assert_eq!(find(&router, "/p", "a.com:81", &vars), Some(2));
    assert_eq!(find(&router, "/p", "a.com", &vars), None);
    let router = Router::compile(
        vec![entry(0, "/blog/:id", None, 0)],
        RouterKind::UriWithParameter,
    );
    assert_eq!(find(&router, "/blog/1", "", &vars), Some(0));
    assert_eq!(find(&router, "/blog/1/2", "", &vars), None);
}

/// The order of preference, written down as plainly as possible.
fn reference(entries: &[Entry], path: &str, host: &str) -> Option<usize> {
    let mut best: Option<(Vec<i64>, usize)> = None;
    for (order, entry) in entries.iter().enumerate() {
        let host_rank = match entry.hosts.first().map(String::as_str) {
            None => Some(-1),
            Some(pattern) => match pattern.strip_prefix('*') {
                Some(suffix) if host.ends_with(suffix) && host.len() > suffix.len() => {
                    Some(i64::try_from(suffix.len()).expect("short"))
                }
                Some(_) => None,
                None => (pattern == host).then_some(1000),
            },
        };
        let uri = &entry.uris[0];
        let path_rank = match uri.strip_suffix('*') {
            Some(prefix) => path
                .starts_with(prefix)
                .then(|| i64::try_from(prefix.len()).expect("short")),
            None => (uri == path).then_some(1000),
        };
        let (Some(host_rank), Some(path_rank)) = (host_rank, path_rank) else {
            continue;
        };
        let order = -i64::try_from(order).expect("few");
        let rank = vec![host_rank, path_rank, entry.priority, order];
        if best.as_ref().is_none_or(|(other, _)| rank > *other) {
            best = Some((rank, entry.index));
        }
    }
    best.map(|(_, index)| index)
}

proptest! {
    #[test]
    fn agrees_with_the_reference(
        routes in proptest::collection::vec(("/[ab]{0,3}\\*?", proptest::option::of("(\\*\\.)?[ab](\\.[ab]){0,2}"), -2i64..3), 1..12),
        path in "/[ab]{0,4}",
        host in "[ab](\\.[ab]){0,3}",
    ) {
        let entries = || -> Vec<Entry> {
            routes.iter().enumerate()
                .map(|(index, (uri, host, priority))| entry(index, uri, host.as_deref(), *priority))
                .collect()
        };
        let router = Router::compile(entries(), RouterKind::HostUri);
        prop_assert_eq!(find(&router, &path, &host, &Vars::default()), reference(&entries(), &path, &host));
    }
}
