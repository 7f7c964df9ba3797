//! Limits that several gateways share, on the real binary and real Redis servers.

#![allow(clippy::disallowed_methods, reason = "tests measure in real time")]

mod support;

use std::{
    io::{Read, Write},
    net::TcpListener,
    time::Duration,
};

use support::{
    Answer, Gateway, Start, Upstream,
    client::Connection,
    get,
    redis::{self, Redis},
    wait_until,
};

/// Answers; `/slow` only begins to.
fn echo() -> Upstream {
    Upstream::start(|received| match received.target.as_str() {
        path if path.starts_with("/slow") => {
            Answer::Open(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbegun".to_vec())
        }
        path if path.starts_with("/stream") => Answer::Endless {
            event: "data: more\n\n".to_owned(),
            pause: Duration::from_millis(5),
        },
        _ => Answer::text(200, "echo"),
    })
}

/// Routes to `upstream`, each a path and its plugins, in flow style.
fn routes(upstream: &Upstream, each: &[(&str, &str)]) -> String {
    let lines = each.iter().enumerate().map(|(id, (path, plugins))| {
        let (address, number) = (upstream.address, id + 1);
        format!(
            "- {{id: {number}, uri: \"{path}\", plugins: {{{plugins}}}, \
             upstream: {{nodes: {{\"{address}\": 1}}}}}}\n"
        )
    });
    format!("routes:\n{}", lines.collect::<String>())
}

fn at(redis: &Redis) -> String {
    format!(
        "policy: redis, redis_host: 127.0.0.1, redis_port: {}",
        redis.port
    )
}

fn status(gateway: &Gateway, path: &str) -> u16 {
    get(gateway.proxy, path, &[]).status
}

/// How many of many requests at once, over all gateways, pass.
fn passed(gateways: &[&Gateway], path: &str) -> usize {
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|number| {
                let gateway = gateways[number % gateways.len()];
                scope.spawn(move || (0..15).filter(|_| status(gateway, path) == 200).count())
            })
            .collect();
        let counts = clients.into_iter().map(|client| client.join());
        counts.map(|count| count.expect("a client")).sum()
    })
}

/// G-152, with all of them asking at once.
#[test]
fn two_gateways_share_a_limit_exactly() {
    if redis::is_missing() {
        return;
    }
    let (upstream, redis) = (echo(), Redis::start());
    let at = at(&redis);
    let document = routes(
        &upstream,
        &[
            (
                "/fixed",
                &format!("limit-count: {{count: 50, time_window: 3600, {at}}}"),
            ),
            (
                "/sliding",
                &format!(
                    "limit-count: {{count: 50, time_window: 3600, window_type: sliding, {at}}}"
                ),
            ),
            (
                "/evenly",
                &format!(
                    "limit-req: {{rate: 0.001, burst: 9, key: remote_addr, nodelay: true, {at}}}"
                ),
            ),
        ],
    );
    let (one, other) = (Gateway::start(&document), Gateway::start(&document));
    for (path, expected) in [("/fixed", 50), ("/sliding", 50), ("/evenly", 10)] {
        assert_eq!(passed(&[&one, &other], path), expected, "{path}");
    }
    assert_eq!(upstream.hits(), 110);
    let over = get(other.proxy, "/fixed", &[]);
    assert_eq!(over.header("x-ratelimit-limit"), Some("50"));
    assert_eq!(over.header("x-ratelimit-remaining"), Some("0"));
    let reset: f64 = over
        .header("x-ratelimit-reset")
        .expect("told")
        .parse()
        .expect("a number");
    assert!(reset > 3000.0 && reset <= 3600.0, "{reset}");
    // Where scripts are forgotten, they are told anew.
    assert_eq!(redis.ask(&["SCRIPT", "FLUSH"]), "OK");
    redis.ask(&["FLUSHALL"]);
    assert_eq!(passed(&[&one, &other], "/fixed"), 50);
}

/// A window that ends lets requests pass again, and a sliding one remembers the one before.
#[test]
fn windows_end_by_the_clock_of_redis() {
    if redis::is_missing() {
        return;
    }
    let (upstream, redis) = (echo(), Redis::start());
    let at = at(&redis);
    let limit = |kind: &str| {
        format!("limit-count: {{count: 2, time_window: 1, window_type: {kind}, {at}}}")
    };
    let document = routes(
        &upstream,
        &[("/fixed", &limit("fixed")), ("/sliding", &limit("sliding"))],
    );
    let gateway = Gateway::start(&document);
    for path in ["/fixed", "/sliding"] {
        wait_until("the limit to be reached", || {
            (status(&gateway, path) == 503).then_some(())
        });
        wait_until("the next window", || {
            (status(&gateway, path) == 200).then_some(())
        });
    }
}

/// G-153: without Redis, requests are refused or pass, as is wanted; and it counts again once it is back.
#[test]
fn without_redis_requests_are_refused_or_pass() {
    if redis::is_missing() {
        return;
    }
    let upstream = echo();
    let password = ["--requirepass", "hush-hush"];
    let mut redis = Redis::start_at(redis::free_port(), &password, &["-a", "hush-hush"]);
    let at = format!(
        "{}, redis_password: hush-hush, redis_timeout: 200",
        at(&redis)
    );
    let mut plugins = Vec::new();
    for passes in [false, true] {
        plugins.extend([
            format!(
                "limit-count: {{count: 1, time_window: 3600, allow_degradation: {passes}, {at}}}"
            ),
            format!(
                "limit-req: {{rate: 0.001, burst: 0, key: remote_addr, nodelay: true, \
                 allow_degradation: {passes}, {at}}}"
            ),
            format!(
                "limit-conn: {{conn: 1, burst: 0, default_conn_delay: 0.1, key: remote_addr, \
                 allow_degradation: {passes}, {at}}}"
            ),
        ]);
    }
    let paths = ["/a", "/b", "/c", "/d", "/e", "/f"];
    let each: Vec<_> = paths
        .into_iter()
        .zip(plugins.iter().map(String::as_str))
        .collect();
    let gateway = Gateway::start(&routes(&upstream, &each));
    let statuses = || paths.map(|path| status(&gateway, path));
    assert_eq!(statuses(), [200; 6]);
    assert_eq!(statuses(), [503, 503, 200, 503, 503, 200]);
    for outage in ["kill", "stop"] {
        if outage == "kill" {
            redis.kill();
        } else {
            redis.signal("STOP");
        }
        for _ in 0..2 {
            assert_eq!(statuses(), [500, 500, 500, 200, 200, 200], "{outage}");
        }
        let refused = get(gateway.proxy, "/a", &[]);
        assert_eq!(
            refused.text(),
            "{\"error_msg\":\"failed to limit count\"}\n"
        );
        if outage == "kill" {
            redis.start_again();
        } else {
            redis.signal("CONT");
        }
        wait_until("Redis to count again", || {
            (status(&gateway, "/c") == 200).then_some(())
        });
        wait_until("Redis to count", || {
            (status(&gateway, "/a") == 503).then_some(())
        });
    }
    let log = gateway.wait_for_line("does not count");
    assert!(log.contains(&redis.address().to_string()), "{log}");
    assert!(!gateway.stderr().contains("hush"));
}

/// Whoever wants another password, or says what makes no sense, does not count.
#[test]
fn nonsense_is_no_answer() {
    if redis::is_missing() {
        return;
    }
    let upstream = echo();
    let strange = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = strange.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for connection in strange.incoming() {
            let Ok(mut connection) = connection else {
                return;
            };
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = connection.read(&mut bytes) {
                    let is_ping = bytes[..count].ends_with(b"PING\r\n");
                    let answer: &[u8] = if is_ping {
                        b"+PONG\r\n"
                    } else {
                        b"*2\r\n:1\r\n$2\r\nno\r\n"
                    };
                    if connection.write_all(answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    let redis = Redis::start_at(
        redis::free_port(),
        &["--requirepass", "hush-hush"],
        &["-a", "hush-hush"],
    );
    let limit = |more: &str| format!("limit-count: {{count: 1, time_window: 3600, {more}}}");
    let refused = limit(&format!("{}, redis_password: something-else", at(&redis)));
    let strange = limit(&format!(
        "policy: redis, redis_host: 127.0.0.1, redis_port: {port}"
    ));
    let known = limit(&format!(
        "{}, redis_username: default, redis_password: hush-hush, redis_database: 3",
        at(&redis)
    ));
    let document = routes(
        &upstream,
        &[
            ("/refused", &refused),
            ("/strange", &strange),
            ("/known", &known),
        ],
    );
    let gateway = Gateway::start(&document);
    for path in ["/refused", "/strange"] {
        for _ in 0..2 {
            assert_eq!(status(&gateway, path), 500, "{path}");
        }
    }
    assert_eq!([(); 2].map(|()| status(&gateway, "/known")), [200, 503]);
    let keys = redis.ask(&["-n", "3", "KEYS", "*"]);
    assert!(keys.starts_with("plugin-limit-count:"), "{keys}");
    let log = gateway.stderr();
    assert!(
        !log.contains("something-else") && !log.contains("hush"),
        "{log}"
    );
}

/// Certificates are looked at where that is wanted, and trusted as those of targets are.
#[test]
fn redis_may_speak_tls() {
    if redis::is_missing() {
        return;
    }
    let upstream = echo();
    let folder = tempfile::tempdir().expect("a folder");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
    std::fs::write(&cert, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let [cert, key] = [cert, key].map(|path| path.display().to_string());
    let port = redis::free_port();
    let redis = Redis::start_at(
        port,
        &[
            "--port",
            "0",
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &cert,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &cert,
            "--tls-auth-clients",
            "no",
        ],
        &["--tls", "--insecure"],
    );
    let limit = |verify: bool| {
        format!(
            "limit-count: {{count: 9, time_window: 3600, policy: redis, redis_host: localhost, \
             redis_port: {}, redis_ssl: true, redis_ssl_verify: {verify}}}",
            redis.port
        )
    };
    let document = routes(
        &upstream,
        &[("/any", &limit(false)), ("/good", &limit(true))],
    );
    let trust = format!("  ssl: {{enable: false, ssl_trusted_certificate: {cert}}}");
    for (apisix, expected) in [("", 500), (trust.as_str(), 200)] {
        let gateway = Gateway::start_with(Start {
            document: &document,
            apisix,
            ..Start::default()
        });
        assert_eq!(status(&gateway, "/any"), 200);
        assert_eq!(status(&gateway, "/good"), expected, "{apisix}");
    }
}

/// A request to `path` that is under way by now, and stays so.
fn begun(gateway: &Gateway, path: &str, sign: &str) -> Connection {
    wait_until("a free place", || {
        let mut connection = Connection::open(gateway.proxy);
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let head = connection.read_until("\r\n\r\n");
        head.starts_with("HTTP/1.1 200").then_some(())?;
        if !head.contains(sign) {
            connection.read_until(sign);
        }
        Some(connection)
    })
}

/// A place is free again when the response is over, whatever has ended it; also if its gateway is gone.
#[test]
fn gateways_share_places() {
    if redis::is_missing() {
        return;
    }
    let (upstream, redis) = (echo(), Redis::start());
    let limit = |ttl: u32| {
        format!(
            "limit-conn: {{conn: 1, burst: 0, default_conn_delay: 0.1, key: remote_addr, \
             key_ttl: {ttl}, {}}}",
            at(&redis)
        )
    };
    let document = routes(
        &upstream,
        &[
            ("/slow", &limit(3600)),
            ("/stream", &limit(3600)),
            ("/quick", &limit(3600)),
            ("/slow/short", &limit(1)),
        ],
    );
    let (one, other) = (Gateway::start(&document), Gateway::start(&document));
    for (path, sign) in [("/slow", "begun"), ("/stream", "data: more")] {
        for (here, there) in [(&one, &other), (&other, &one)] {
            let first = begun(here, path, sign);
            assert_eq!(status(there, path), 503, "{path}");
            assert_eq!(status(here, path), 503, "{path}");
            drop(first);
            drop(begun(there, path, sign));
        }
    }
    for gateway in [&one, &other].repeat(10) {
        wait_until("a free place", || {
            (status(gateway, "/quick") == 200).then_some(())
        });
    }
    wait_until("all places to be free", || {
        redis.ask(&["KEYS", "*"]).is_empty().then_some(())
    });
    let held = begun(&one, "/slow/short", "begun");
    assert_eq!(status(&other, "/slow/short"), 503);
    one.signal("KILL");
    drop(held);
    drop(begun(&other, "/slow/short", "begun"));
}

/// What is used between two times that others are told is told then.
#[test]
fn others_are_told_after_the_interval() {
    if redis::is_missing() {
        return;
    }
    let (upstream, redis) = (echo(), Redis::start());
    let limit = format!(
        "limit-count: {{count: 10, time_window: 3600, sync_interval: 0.2, {}}}",
        at(&redis)
    );
    let document = routes(&upstream, &[("/a", &limit)]);
    let (one, other) = (Gateway::start(&document), Gateway::start(&document));
    let left = |gateway: &Gateway| {
        let answer = get(gateway.proxy, "/a", &[]);
        let left = answer
            .header("x-ratelimit-remaining")
            .expect("told")
            .to_owned();
        (answer.status, left)
    };
    for expected in ["9", "8", "7", "6"] {
        assert_eq!(left(&one), (200, expected.to_owned()));
    }
    wait_until("the others to be told", || {
        let key = redis.ask(&["KEYS", "*"]);
        (redis.ask(&["GET", &key]) == "4").then_some(())
    });
    assert_eq!(left(&other), (200, "5".to_owned()));
    wait_until("the limit of both", || {
        (left(&other).0 == 503).then_some(())
    });
    wait_until("the limit of both", || (left(&one).0 == 503).then_some(()));
}

/// The sentinels say who is the master, also after another has become that.
#[test]
fn sentinels_name_the_master() {
    if redis::is_missing() {
        return;
    }
    let upstream = echo();
    let mut master = Redis::start();
    let port = master.port.to_string();
    let replica = Redis::start_with(&["--replicaof", "127.0.0.1", &port]);
    let is_replicated = || {
        replica
            .ask(&["INFO", "replication"])
            .contains("master_link_status:up")
    };
    wait_until("the replica", || is_replicated().then_some(()));
    let sentinel = Redis::sentinel("counts", master.port);
    wait_until("the sentinel to know the replica", || {
        let known = sentinel.ask(&["SENTINEL", "replicas", "counts"]);
        known.contains(&replica.port.to_string()).then_some(())
    });
    let limit = format!(
        "limit-count: {{count: 3, time_window: 3600, policy: redis-sentinel, \
         redis_sentinels: [{{host: 127.0.0.1, port: {}}}], redis_master_name: counts}}",
        sentinel.port
    );
    let gateway = Gateway::start(&routes(&upstream, &[("/a", &limit)]));
    assert_eq!(status(&gateway, "/a"), 200);
    let key = master.ask(&["KEYS", "*"]);
    wait_until("the count to be replicated", || {
        (replica.ask(&["GET", &key]) == "1").then_some(())
    });
    master.kill();
    assert_eq!(status(&gateway, "/a"), 500);
    wait_until("the replica to count", || {
        (status(&gateway, "/a") == 200).then_some(())
    });
    assert_eq!(replica.ask(&["GET", &key]), "2");
    assert_eq!([(); 2].map(|()| status(&gateway, "/a")), [200, 503]);
}

/// Every key has its place in a cluster.
#[test]
fn a_cluster_counts() {
    if redis::is_missing() {
        return;
    }
    let upstream = echo();
    let nodes: Vec<_> = (0..3).map(|_| cluster_node()).collect();
    let addresses: Vec<_> = nodes
        .iter()
        .map(|node| node.address().to_string())
        .collect();
    let mut create = vec!["--cluster", "create"];
    create.extend(addresses.iter().map(String::as_str));
    create.push("--cluster-yes");
    let created = nodes[0].ask(&create);
    for node in &nodes {
        wait_until(&format!("the cluster: {created}"), || {
            node.ask(&["CLUSTER", "INFO"])
                .contains("cluster_state:ok")
                .then_some(())
        });
    }
    let at = format!(
        "policy: redis-cluster, redis_cluster_name: counts, redis_cluster_nodes: [\"{}\"]",
        addresses.join("\", \"")
    );
    let document = routes(
        &upstream,
        &[
            (
                "/a",
                &format!("limit-count: {{count: 1, time_window: 3600, key: arg_k, {at}}}"),
            ),
            (
                "/b",
                &format!("limit-count: {{count: 50, time_window: 3600, {at}}}"),
            ),
            (
                "/slow",
                &format!(
                    "limit-conn: {{conn: 1, burst: 0, default_conn_delay: 0.1, \
                     key: remote_addr, {at}}}"
                ),
            ),
        ],
    );
    let (one, other) = (Gateway::start(&document), Gateway::start(&document));
    for key in 0..30 {
        let path = format!("/a?k={key}");
        assert_eq!(
            [status(&one, &path), status(&other, &path)],
            [200, 503],
            "{key}"
        );
    }
    for node in &nodes {
        assert_ne!(node.ask(&["DBSIZE"]), "0", "each has some");
    }
    assert_eq!(passed(&[&one, &other], "/b"), 50);
    let held = begun(&one, "/slow", "begun");
    assert_eq!(status(&other, "/slow"), 503);
    drop(held);
    drop(begun(&other, "/slow", "begun"));
}

/// One whose second port, 10,000 above the first, is free as well.
fn cluster_node() -> Redis {
    let port = wait_until("two free ports", || {
        let port = redis::free_port();
        let second = port.checked_add(10_000)?;
        TcpListener::bind(("127.0.0.1", second))
            .is_ok()
            .then_some(port)
    });
    Redis::start_at(
        port,
        &["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"],
        &[],
    )
}
