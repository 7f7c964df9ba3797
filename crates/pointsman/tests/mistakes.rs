//! What operators get wrong in their files: told with the place, and never worth an outage.

mod support;

use support::{CHAT, Gateway, Start, Upstream, get, instance, post_json, run, write_config};

/// A folder with a `config.yaml` and an `apisix.yaml` of exactly that text; the first one's path.
fn folder(apisix: &str, document: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    write_config(folder.path(), apisix, "");
    std::fs::write(folder.path().join("apisix.yaml"), document).expect("written");
    let config = folder.path().join("config.yaml");
    let config = config.to_str().expect("UTF-8").to_owned();
    (folder, config)
}

/// What `check` says of a document, with its exit code.
fn check(document: &str) -> (Option<i32>, String) {
    let (_kept, config) = folder("", &format!("{document}\n#END\n"));
    let (code, _, stderr) = run(&["check", "--config", &config]);
    (code, stderr)
}

fn route(upstream: &Upstream) -> String {
    format!(
        "routes:\n- {{id: 1, uri: /x, upstream: {{nodes: {{\"{}\": 1}}}}}}\n",
        upstream.address
    )
}

/// Some editors begin every file with a byte order mark. It means nothing.
#[test]
fn a_byte_order_mark_is_skipped() {
    let upstream = Upstream::named("a");
    let gateway = Gateway::start(&format!("\u{feff}{}", route(&upstream)));
    assert_eq!(get(gateway.proxy, "/x", &[]).status, 200);
    gateway.reload(&format!("\u{feff}# another\n{}", route(&upstream)));
    assert_eq!(get(gateway.proxy, "/x", &[]).status, 200);
    assert!(!gateway.stderr().contains("unknown collection"));

    let (kept, config) = folder("", "");
    let text = std::fs::read_to_string(&config).expect("readable");
    let text = text.replace("config_provider: yaml", "config_provider: json");
    std::fs::write(&config, format!("\u{feff}{text}")).expect("written");
    std::fs::write(
        kept.path().join("apisix.json"),
        "\u{feff}{\"routes\": [{\"id\": 1, \"uri\": \"/x\", \"upstream\": {\"nodes\": {\"a:1\": 1}}}]}",
    )
    .expect("written");
    let (code, stdout, stderr) = run(&["check", "--config", &config]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.contains("1 route(s)"), "{stdout}");
}

/// A document that names no collection at all is a mistake, not the wish to have no routes.
#[test]
fn a_misspelt_only_collection_wipes_nothing() {
    let upstream = Upstream::named("a");
    let document = route(&upstream);
    let gateway = Gateway::start(&document);
    let misspelt = document.replace("routes:", "routess:");
    let told = gateway.reload_refused(&format!("{misspelt}#END\n"));
    for part in [
        "line 1: ",
        "`routess`",
        "did you mean `routes`",
        "upstreams, ",
    ] {
        assert!(told.contains(part), "{told} lacks {part}");
    }
    assert_eq!(get(gateway.proxy, "/x", &[]).status, 200);
    let (code, stderr) = check(&misspelt);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("error: ") && stderr.contains("`routess`"),
        "{stderr}"
    );

    // Beside one that is known it is a warning, and what is out of scope is known.
    let (code, stderr) = check(&format!("routes: []\n{misspelt}"));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("routess: unknown collection"), "{stderr}");
    for empty in ["", "routes: []", "routes:", "stream_routes: []", "{}"] {
        assert_eq!(check(empty).0, Some(0), "{empty:?}");
    }
    // Who wants no routes says so.
    gateway.reload("");
    assert_eq!(get(gateway.proxy, "/x", &[]).status, 404);
}

/// G-282: a reference that nothing stands for is passed on as it is, which nobody wants.
#[test]
fn references_that_stay_as_they_are_are_told() {
    let multi = |token: &str| {
        format!(
            "routes:\n- id: r\n  uri: /a\n  plugins:\n    ai-proxy-multi:\n      instances:\n      \
             - {{name: a, provider: openai, weight: 1, auth: {{header: {{Authorization: \"{token}\"}}}}}}\n"
        )
    };
    let place = "routes[0] (id r) plugins.ai-proxy-multi.instances[0].auth.header.Authorization: ";
    for (token, message) in [
        (
            "$ENV://POINTSMAN_TEST_NOWHERE",
            "environment variable POINTSMAN_TEST_NOWHERE is not set, so the reference stays as it is",
        ),
        (
            "$env://PATH/key",
            "environment variable PATH has no `key`, so the reference stays as it is",
        ),
        (
            "$secret://vault/1/openai/key",
            "$secret://vault/1/openai/key: there is no secret manager vault/1, so the reference stays as it is",
        ),
    ] {
        let (code, stderr) = check(&multi(token));
        assert_eq!(code, Some(0), "{stderr}");
        let expected = format!("apisix.yaml: line 7: {place}{message}\n");
        assert!(
            stderr.contains("warning: ") && stderr.contains(&expected),
            "{stderr} lacks {expected}"
        );
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    assert_eq!(check(&multi("$env://PATH")), (Some(0), String::new()));
    assert_eq!(check(&multi("plain")), (Some(0), String::new()));

    // A key that is a reference does not work; that is said once.
    let (_, stderr) = check(
        "consumers:\n- {username: a, plugins: {key-auth: {key: $secret://vault/1/a}}}\n\
         - {username: b, plugins: {key-auth: {key: $env://POINTSMAN_TEST_NOWHERE}}}",
    );
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{stderr}");
    assert!(
        lines[0].ends_with(
            "consumers[0] (id a) plugins.key-auth.key: $secret://vault/1/a: there is no secret manager vault/1; this key does not work"
        ) && lines[1].ends_with(
            "consumers[1] (id b) plugins.key-auth.key: environment variable \
             POINTSMAN_TEST_NOWHERE is not set; this key does not work"
        ),
        "{stderr}"
    );

    let (_, stderr) = check(
        "ssls:\n- {id: s, snis: [a.test], cert: $env://POINTSMAN_TEST_NOWHERE, key: $secret://vault/1/k}\n\
         upstreams:\n- {id: u, nodes: {\"a:1\": 1}, scheme: https, upstream_host: $env://PATH}",
    );
    for part in [
        "ssls[0] (id s) cert: environment variable POINTSMAN_TEST_NOWHERE is not set, so",
        "ssls[0] (id s) key: $secret://vault/1/k: there is no secret manager vault/1\n",
        "upstreams[0] (id u) upstream_host: references have no effect in an upstream, so",
    ] {
        assert!(stderr.contains(part), "{stderr} lacks {part}");
    }
    assert!(!stderr.contains("/usr/bin"), "{stderr}");
}

/// A variable may hold what looks like a reference. It is not followed, and does not work as a key.
#[test]
fn a_reference_to_a_reference_is_no_key() {
    let upstream = Upstream::named("a");
    let document = route(&upstream).replace("uri: /x,", "uri: /x, plugins: {key-auth: {}},");
    let gateway = Gateway::start_with(Start {
        document: &format!(
            "{document}consumers:\n- {{username: a, plugins: {{key-auth: {{key: $env://POINTSMAN_TEST_KEY}}}}}}\n"
        ),
        environment: &[("POINTSMAN_TEST_KEY", "$env://PATH")],
        ..Start::default()
    });
    gateway.wait_for_line("plugins.key-auth.key: it refers to a reference; this key does not work");
    for key in ["$env://PATH", "$env://POINTSMAN_TEST_KEY"] {
        assert_eq!(get(gateway.proxy, "/x", &[("apikey", key)]).status, 401);
    }
}

/// At load, problems are told in the words of `check`.
#[test]
fn the_log_names_the_file_as_check_does() {
    let document = "routes:\n- {id: 1, uri: 5}\n- {id: r, uri: /a, nonsense: 1}\n\
                    typos: []\n";
    let gateway = Gateway::start(document);
    gateway.wait_for_line("configuration applied");
    let path = gateway.folder().join("apisix.yaml");
    let path = path.to_str().expect("UTF-8");
    let config = gateway.folder().join("config.yaml");
    let (_, _, checked) = run(&["check", "--config", config.to_str().expect("UTF-8")]);
    let problems: Vec<&str> = checked
        .lines()
        .filter_map(|line| {
            line.split_once(": ")
                .filter(|(_, rest)| rest.contains("line "))
        })
        .map(|(_, problem)| problem)
        .collect();
    assert_eq!(problems.len(), 3, "{checked}");
    for problem in problems {
        assert!(problem.starts_with(path), "{problem}");
        assert!(gateway.stderr().contains(problem), "{}", gateway.stderr());
    }
}

/// A trust file without a usable certificate would refuse every target.
#[test]
fn a_trust_file_must_hold_certificates() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    let good = made.cert.pem();
    let key = made.signing_key.serialize_pem();
    let hollow = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
    let garbled = "-----BEGIN CERTIFICATE-----\n!secret!\n-----END CERTIFICATE-----\n";
    for (text, problem) in [
        (String::new(), "holds no certificate"),
        ("hello\n".to_owned(), "holds no certificate"),
        (key, "holds no certificate"),
        (
            format!("{good}{hollow}"),
            "certificate number 2 in it cannot be used",
        ),
        (garbled.to_owned(), "a section is not base64"),
    ] {
        let (kept, config) = folder("", "routes: []\n#END\n");
        let trust = kept.path().join("trust.pem");
        std::fs::write(&trust, &text).expect("written");
        let trust = trust.display();
        write_config(
            kept.path(),
            &format!("  ssl: {{enable: false, ssl_trusted_certificate: {trust}}}"),
            "",
        );
        for command in ["check", "run"] {
            let (code, _, stderr) = run(&[command, "--config", &config]);
            assert_eq!(code, Some(1), "{stderr}");
            let told = stderr
                .lines()
                .filter(|line| line.contains(&format!("ssl_trusted_certificate: `{trust}`")));
            let told: Vec<&str> = told.collect();
            assert_eq!(told.len(), 1, "{command} {text:?}: {stderr}");
            assert!(told[0].contains(problem), "{command} {text:?}: {stderr}");
            assert!(!stderr.contains("!secret!"), "{stderr}");
        }
    }
    let (kept, _) = folder("", "routes: []\n#END\n");
    let trust = kept.path().join("trust.pem");
    std::fs::write(&trust, &good).expect("written");
    let ssl = format!(
        "  ssl: {{enable: false, ssl_trusted_certificate: {}}}",
        trust.display()
    );
    let gateway = Gateway::start_with(Start {
        document: "routes: []",
        apisix: &ssl,
        ..Start::default()
    });
    assert_eq!(get(gateway.proxy, "/x", &[]).status, 404);
}

/// Keys that nobody reads are accepted, as in APISIX, and told.
#[test]
fn misspelt_keys_of_ai_plugins_are_told() {
    let (code, stderr) = check(
        "routes:\n- id: r\n  uri: /a\n  plugins:\n    ai-proxy-multi:\n      instances:\n      \
         - name: a\n        provider: openai\n        weight: 1\n        wieght: 2\n        \
         auth: {header: {a: b}}\n        options: {anything: 1}\n        \
         override: {endpoint: \"http://h\", endpont: \"http://i\"}\n        \
         checks:\n          activ: {}\n          active:\n            http_pth: /a\n            \
         healthy: {interval: 1}\n            unhealthy: {interval: 1}\n\
         - {id: s, uri: /b, plugins: {ai-proxy: {provider: openai, auth: {header: {a: b}}, \
         override: {xyzzy: 1}}}}\n",
    );
    assert_eq!(code, Some(0), "{stderr}");
    let multi = "routes[0] (id r) plugins.ai-proxy-multi.instances[0]";
    for (line, place, hint) in [
        (10, format!("{multi}.wieght"), "; did you mean `weight`?"),
        (
            13,
            format!("{multi}.override.endpont"),
            "; did you mean `endpoint`?",
        ),
        (
            15,
            format!("{multi}.checks.activ"),
            "; did you mean `active`?",
        ),
        (
            17,
            format!("{multi}.checks.active.http_pth"),
            "; did you mean `http_path`?",
        ),
        (
            20,
            "routes[1] (id s) plugins.ai-proxy.override.xyzzy".to_owned(),
            "",
        ),
    ] {
        let expected = format!("line {line}: {place}: unknown key; it has no effect{hint}\n");
        assert!(stderr.contains(&expected), "{stderr} lacks {expected}");
    }
    assert_eq!(stderr.lines().count(), 5, "{stderr}");
}

/// Numbers of `checks` that cannot be meant are errors with their path, or are told what is done instead.
#[test]
fn nonsense_in_checks_is_told() {
    for (line, path, text) in NONSENSE {
        let checks = format!("checks: {{active: {{{line}}}}}");
        let instance = format!(
            "{{name: a, provider: openai, weight: 1, auth: {{header: {{a: b}}}}, {checks}}}"
        );
        let document = format!(
            "routes:\n\
             - {{id: 1, uri: /x, upstream: {{nodes: {{\"127.0.0.1:1\": 1}}, {checks}}}}}\n\
             - {{id: 2, uri: /y, plugins: {{ai-proxy-multi: {{instances: [{instance}]}}}}}}\n"
        );
        let (_, said) = check(&document);
        for place in [
            "line 2: routes[0] (id 1) upstream",
            "line 3: routes[1] (id 2) plugins.ai-proxy-multi.instances[0]",
        ] {
            let start = format!("{place}.checks.active.{path}: ");
            let is_told = |told: &str| told.contains(&start) && told.contains(text);
            assert!(said.lines().any(is_told), "{said} lacks {start}{text}");
        }
    }
}

/// Two of one name are an error that names both, or one that replaces the other; never a coin toss.
#[test]
fn duplicate_names_are_told() {
    let instance = |name: &str| {
        format!("{{name: {name}, provider: openai, weight: 1, auth: {{header: {{a: b}}}}}}")
    };
    let node = "{host: 127.0.0.1, port: 1, weight: 1}";
    let document = format!(
        "routes:\n\
         - {{id: 1, uri: /a, upstream: {{nodes: [{node}, {node}]}}}}\n\
         - {{id: 2, uri: /b, plugins: {{ai-proxy-multi: {{instances: [{one}, {other}, {one}]}}}}}}\n\
         - {{id: 3, uri: /c, upstream: {{nodes: {{\"127.0.0.1:1\": 1}}}}}}\n\
         - {{id: 3, uri: /d, upstream: {{nodes: {{\"127.0.0.1:1\": 1}}}}}}\n",
        one = instance("one"),
        other = instance("other"),
    );
    let (code, said) = check(&document);
    assert_eq!(code, Some(1), "{said}");
    for line in [
        "line 2: routes[0] (id 1) upstream.nodes: two members are named \"127.0.0.1:1\"",
        "duplicate instance name 'one' at instances[1] and instances[3]",
        "line 5: routes[3] (id 3) id: the id is used twice; this one replaces routes[2]",
    ] {
        assert!(said.contains(line), "{said} lacks {line}");
    }
    let (code, said) = check("routes:\n- {id: 1, uri: /a, uri: /b}\n");
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("line 2: the key `uri` appears twice"),
        "{said}"
    );
}

/// All weights 0: a ring has nobody, as in APISIX; the others share equally, as nothing says otherwise.
#[test]
fn all_weights_0_have_an_outcome() {
    let (a, b) = (Upstream::named("a"), Upstream::named("b"));
    let nodes = format!("nodes: {{\"{}\": 0, \"{}\": 0}}", a.address, b.address);
    let instances = [("a", &a), ("b", &b)].map(|(name, upstream)| {
        instance(name, upstream.address, "").replace("weight: 1", "weight: 0")
    });
    let instances = instances.join(", ");
    let kinds = ["roundrobin", "chash", "least_conn", "ewma"];
    let routes = kinds.map(|kind| {
        let balancer = match kind {
            "chash" => "{algorithm: chash, key: uri, hash_on: vars}".to_owned(),
            _ => format!("{{algorithm: {kind}}}"),
        };
        format!(
            "- {{id: {kind}, uri: /{kind}, upstream: {{type: {kind}, key: uri, {nodes}}}}}\n\
             - {{id: ai-{kind}, uri: /ai/{kind}, plugins: {{ai-proxy-multi: {{instances: [{instances}], \
             balancer: {balancer}}}}}}}\n"
        )
    });
    let document = format!("routes:\n{}", routes.concat());
    let gateway = Gateway::start(&document);
    for (path, status, hits) in [
        ("/roundrobin", 200, (5, 5)),
        ("/ai/roundrobin", 200, (5, 5)),
        ("/chash", 502, (0, 0)),
        ("/ai/chash", 503, (0, 0)),
        ("/least_conn", 200, (5, 5)),
        ("/ai/least_conn", 200, (5, 5)),
        ("/ewma", 200, (5, 5)),
        ("/ai/ewma", 200, (5, 5)),
    ] {
        let before = (a.hits(), b.hits());
        for _ in 0..10 {
            let response = post_json(gateway.proxy, path, CHAT);
            assert_eq!(response.status, status, "{path}: {}", response.text());
        }
        let more = (a.hits() - before.0, b.hits() - before.1);
        // Who was never asked is the quickest.
        if path.ends_with("ewma") {
            assert!(
                more.0 > 0 && more.1 > 0 && more.0 + more.1 == 10,
                "{path}: {more:?}"
            );
        } else {
            assert_eq!(more, hits, "{path}");
        }
    }
}

/// In `checks.active`: where, and what is said of it.
const NONSENSE: &[(&str, &str, &str)] = &[
    ("healthy: {interval: 0}", "healthy.interval", "at least 1"),
    ("healthy: {successes: 0}", "healthy.successes", "at least 1"),
    (
        "healthy: {successes: 255}",
        "healthy.successes",
        "at most 254",
    ),
    (
        "healthy: {http_statuses: [99]}",
        "healthy.http_statuses[0]",
        "at least 200",
    ),
    (
        "unhealthy: {http_failures: 0}",
        "unhealthy.http_failures",
        "at least 1",
    ),
    (
        "unhealthy: {tcp_failures: -1}",
        "unhealthy.tcp_failures",
        "at least 1",
    ),
    (
        "unhealthy: {timeouts: 1.5}",
        "unhealthy.timeouts",
        "expected integer, got number",
    ),
    (
        "unhealthy: {http_statuses: []}",
        "unhealthy.http_statuses",
        "at least 1 items",
    ),
    (
        "unhealthy: {http_statuses: [500, 500]}",
        "unhealthy.http_statuses",
        "unique",
    ),
    ("timeout: soon", "timeout", "expected number, got string"),
    ("concurrency: -1", "concurrency", "at least 0"),
    ("port: 70000", "port", "at most 65535"),
    ("type: ftp", "type", "none of the enum values"),
    (
        "http_path: \"/a b\"",
        "http_path",
        "failed to match pattern",
    ),
    // APISIX takes these.
    ("timeout: 0", "timeout", "10ms apply"),
    ("timeout: -1", "timeout", "10ms apply"),
    ("concurrency: 0", "concurrency", "1 applies"),
    (
        "healthy: {http_statuses: [500]}",
        "healthy.http_statuses",
        "500 stands in both lists",
    ),
];
