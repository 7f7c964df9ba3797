//! The program itself: start, check, drain, and what it says when it cannot start.

mod support;

use std::{net::TcpListener, time::Duration};

use support::{
    Answer, CHAT, Gateway, Start, Upstream, client::Connection, get, post_json, run, single,
    write_config,
};

fn folder(document: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    write_config(folder.path(), "", "");
    std::fs::write(
        folder.path().join("apisix.yaml"),
        format!("{document}\n#END\n"),
    )
    .expect("written");
    let config = folder
        .path()
        .join("config.yaml")
        .to_str()
        .expect("UTF-8")
        .to_owned();
    (folder, config)
}

/// One clear line, exit code 1.
#[test]
fn what_prevents_a_start_is_one_line() {
    let fails = |config: &str, part: &str| {
        let (code, _, stderr) = run(&["run", "--config", config, "--log-level", "error"]);
        assert_eq!(code, Some(1), "{stderr}");
        let lines: Vec<&str> = stderr
            .lines()
            .filter(|line| line.starts_with("pointsman: "))
            .collect();
        assert_eq!(lines.len(), 1, "{stderr}");
        assert!(lines[0].contains(part), "{stderr} lacks {part}");
    };
    fails(
        "/nonexistent/config.yaml",
        "cannot read /nonexistent/config.yaml",
    );
    let (missing, config) = folder("routes: []");
    std::fs::remove_file(missing.path().join("apisix.yaml")).expect("removed");
    fails(&config, "apisix.yaml");
    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = taken.local_addr().expect("bound").port();
    let (used, config) = folder("routes: []");
    let text = std::fs::read_to_string(&config).expect("readable");
    std::fs::write(
        &config,
        text.replace(
            "node_listen: [{ip: 127.0.0.1, port: 0}]",
            &format!("node_listen: [{{ip: 127.0.0.1, port: {port}}}]"),
        ),
    )
    .expect("written");
    fails(&config, &format!("cannot listen on 127.0.0.1:{port}"));
    drop(used);
    let (unreadable, config) = folder("routes: []");
    write_config(
        unreadable.path(),
        "  ssl: {enable: false, ssl_trusted_certificate: /nonexistent/ca.pem}",
        "",
    );
    fails(&config, "/nonexistent/ca.pem");
    let (broken, config) = folder("routes: [");
    fails(&config, "apisix.yaml: line");
    drop(broken);
}

/// `check` tells every error at once, with its line, and opens nothing.
#[test]
fn check_reports_every_error() {
    let (_kept, config) = folder(
        "routes:\n- {id: 1, uri: 5}\n- {id: 2, uri: /a, plugins: {nope: {}}}\n- {id: 3, uri: /b, upstream_id: 1}",
    );
    let (code, stdout, stderr) = run(&["check", "--config", &config]);
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains("line 2: routes[0] (id 1) uri")
            && stderr.contains("line 3: routes[1] (id 2) plugins.nope"),
        "{stderr}"
    );
    assert!(
        stderr.contains("3 error(s)") && stdout.contains("1 route(s)"),
        "{stderr}{stdout}"
    );
    // An error in one file does not hide those in the other.
    let text = std::fs::read_to_string(&config).expect("a file");
    std::fs::write(
        &config,
        text + "\nnginx_config: {http: {client_max_body_size: much}}\n",
    )
    .expect("written");
    let (_, _, stderr) = run(&["check", "--config", &config]);
    assert!(
        stderr.contains("`much` is not a size") && stderr.contains("4 error(s)"),
        "{stderr}"
    );
    let (_kept, config) = folder("routes: []");
    assert_eq!(run(&["check", "--config", &config]).0, Some(0));
}

/// An endpoint that can stand in no request is an error of the configuration, not of clients.
#[test]
fn check_names_the_instance_of_a_bad_endpoint() {
    for plugin in ["ai-proxy", "ai-proxy-multi"] {
        for (endpoint, is_right) in [
            ("http://h/a b", false),
            ("http://h/a?b c", false),
            ("http://h?<", false),
            ("http://h/a%20b?c=%20&d={e}", true),
            ("http://h/\u{e9}", true),
        ] {
            let instance = format!(
                "provider: openai, auth: {{header: {{a: b}}}}, override: {{endpoint: \"{endpoint}\"}}"
            );
            let (conf, name) = match plugin {
                "ai-proxy" => (instance, "ai-proxy-openai"),
                _ => (
                    format!("instances: [{{name: one, weight: 1, {instance}}}]"),
                    "one",
                ),
            };
            let (_kept, config) = folder(&format!(
                "routes:\n- {{id: 1, uri: /a, plugins: {{{plugin}: {{{conf}}}}}}}"
            ));
            let (code, _, stderr) = run(&["check", "--config", &config]);
            let told = format!("instance '{name}': override.endpoint: its path or query: ");
            assert_eq!(
                (code, stderr.contains(&told)),
                (Some(i32::from(!is_right)), !is_right),
                "{endpoint}: {stderr}"
            );
        }
    }
}

/// What is wrong is told wherever it is found out: while a document is read, when plugins are
/// built, when certificates are loaded, when references are followed. Each has its line, and they
/// come in the file's order.
#[test]
fn check_knows_the_line_of_everything() {
    let document = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/sample/broken.yaml"
    ))
    .expect("a sample");
    let (_kept, config) = folder(&document);
    let (code, stdout, stderr) = run(&["check", "--config", &config]);
    let told: Vec<&str> = stderr
        .lines()
        .filter_map(|line| Some(line.strip_prefix("error: ")?.split_once(": ")?.1))
        .collect();
    assert_eq!(told.len(), MISTAKES.len(), "{stderr}");
    for (told, expected) in told.iter().zip(MISTAKES) {
        assert!(told.starts_with(expected), "{told}\nis not\n{expected}");
    }
    let summary = format!("{} error(s)", MISTAKES.len());
    assert!(code == Some(1) && stderr.contains(&summary), "{stderr}");
    assert!(stdout.contains("2 route(s) can be served"), "{stdout}");
}

/// G-264, G-280: without its end marker a document is waited for, and nothing is ready before it is
/// there. One that loses its marker later changes nothing.
#[test]
fn an_unfinished_document_is_waited_for() {
    let upstream = Upstream::start(|_| Answer::text(200, "here"));
    let document = format!(
        "routes: [{{id: 1, uri: /a, upstream: {{nodes: {{\"{}\": 1}}}}}}]",
        upstream.address
    );
    let gateway = Gateway::start_with(Start {
        document: &document,
        is_finished: false,
        apisix: "  status: {ip: 127.0.0.1, port: 0}",
        ..Start::default()
    });
    gateway.wait_for_line("does not end in #END");
    let status = gateway.address("status");
    let ready = get(status, "/status/ready", &[]);
    assert_eq!(
        (ready.status, ready.json()["status"].as_str()),
        (503, Some("error"))
    );
    assert!(ready.json()["error"].is_string(), "{}", ready.text());
    assert_eq!(get(status, "/status", &[]).status, 200);
    assert_eq!(get(gateway.proxy, "/a", &[]).status, 404);
    gateway.reload(&document);
    let ready = get(status, "/status/ready", &[]);
    assert_eq!(
        (ready.status, ready.text().as_str()),
        (200, r#"{"status":"ok"}"#)
    );
    assert_eq!(get(gateway.proxy, "/a", &[]).status, 200);
    gateway.reload_refused("routes: []");
    assert_eq!(get(gateway.proxy, "/a", &[]).status, 200);
    assert_eq!(get(status, "/status/ready", &[]).status, 200);
}

/// `APISIX_WORKER_PROCESSES` counts before `nginx_config.worker_processes`.
#[cfg(target_os = "linux")]
#[test]
fn the_environment_names_the_number_of_workers() {
    let gateway = Gateway::start_with(Start {
        document: "routes: []",
        sections: "nginx_config: {worker_processes: 1}",
        workers: 0,
        environment: &[("APISIX_WORKER_PROCESSES", "3")],
        ..Start::default()
    });
    // A thread names itself, so that can take a moment.
    support::wait_until("three workers", || {
        let folder = format!("/proc/{}/task", gateway.pid());
        let threads = std::fs::read_dir(folder).expect("a process");
        let names = threads.filter_map(|thread| {
            let path = thread.ok()?.path().join("comm");
            std::fs::read_to_string(path).ok()
        });
        let workers = names.filter(|name| name.starts_with("worker-"));
        (workers.count() == 3).then_some(())
    });
}

/// The examples of the repository are valid, and so is a document with every field of the tables.
#[test]
fn the_examples_are_valid() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
    for example in ["ai-proxy-multi", "plain-upstream", "chash-sessions"] {
        let text = std::fs::read_to_string(format!("{root}/{example}.yaml")).expect("an example");
        let (_kept, config) = folder(&text);
        let (code, _, stderr) = run(&["check", "--config", &config]);
        assert_eq!(code, Some(0), "{example}: {stderr}");
    }
    let everything = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/sample/apisix.yaml"
    ))
    .expect("a sample");
    let (_kept, config) = folder(&everything);
    let (code, _, stderr) = run(&["check", "--config", &config]);
    assert_eq!(
        (code, stderr.contains("error:")),
        (Some(0), false),
        "{stderr}"
    );
}

/// SIGTERM: no new connections, what is under way is finished, exit code 0.
#[test]
fn a_drain_finishes_what_is_under_way() {
    let slow =
        Upstream::start(|_| Answer::After(Duration::from_millis(700), Box::new(Answer::chat("a"))));
    let mut gateway = Gateway::start_with(Start {
        document: &single("openai", slow.address, ""),
        workers: 2,
        ..Start::default()
    });
    let mut idle = Connection::open(gateway.proxy);
    let proxy = gateway.proxy;
    let under_way = std::thread::spawn(move || post_json(proxy, "/x", CHAT));
    support::wait_until("the request to arrive", || (slow.hits() == 1).then_some(()));
    gateway.signal("TERM");
    gateway.wait_for_line("draining");
    assert_eq!(under_way.join().expect("answered").status, 200);
    assert!(idle.is_closed());
    assert_eq!(gateway.wait_for_exit().code(), Some(0));
    assert!(
        std::net::TcpStream::connect(proxy).is_err(),
        "somebody still listens"
    );
}

/// A second signal ends at once, whatever is under way.
#[test]
fn a_second_signal_ends_at_once() {
    let silent = Upstream::start(|_| Answer::Silence);
    let mut gateway = Gateway::start(&single("openai", silent.address, ""));
    let proxy = gateway.proxy;
    std::thread::spawn(move || {
        let mut connection = Connection::open(proxy);
        connection.send(
            format!(
                "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{CHAT}",
                CHAT.len()
            )
            .as_bytes(),
        );
        connection.read_end()
    });
    support::wait_until("the request to arrive", || {
        (silent.hits() == 1).then_some(())
    });
    gateway.signal("TERM");
    gateway.wait_for_line("draining");
    gateway.signal("TERM");
    gateway.wait_for_exit();
    assert!(gateway.stderr().contains("second signal"));
}

/// SIGHUP reads the document again.
#[test]
fn a_hangup_reloads() {
    let gateway = Gateway::start("routes: []");
    // Nothing has changed, so nothing but the signal makes it look at the document again.
    for count in 1..3 {
        gateway.signal("HUP");
        gateway.wait_for_lines("SIGHUP: the configuration has not changed", count);
    }
    gateway.reload("routes: [] # again");
}

/// The demo needs nothing and ends by itself when told to.
#[test]
fn the_demo_runs() {
    let (code, stdout, stderr) = run(&["demo", "--port", "0", "--seconds", "7"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        stdout.contains("swift") && stdout.contains("failed 0"),
        "{stdout}"
    );
    assert!(!stdout.contains("answered 0 "), "{stdout}");
}

/// How the errors of `sample/broken.yaml` begin.
const MISTAKES: &[&str] = &[
    "line 5: routes[0] (id 1) vars: failed to validate the 'vars' expression: invalid operator",
    "line 8: routes[0] (id 1) plugins.proxy-rewrite.regex_uri[0]: failed to check the conf",
    "line 11: routes[1] (id 2) service_id: there is no service `gone`, or it has errors and \
         was left out; requests get a 404",
    "line 12: routes[1] (id 2) plugin_config_id: there is no plugin_config `gone`, or it has \
         errors and was left out; requests get a 503",
    "line 13: routes[2] (id 3): left out, because plugin file-logger of services[0] (id broken)",
    "line 19: routes[3] (id 4) upstream.tls.client_cert_id: ssl `1` is of another type than \
         `client`; requests get a 502",
    "line 24: services[0] (id broken) plugins.file-logger: property \"path\" is required",
    "line 26: services[1] (id lost) upstream_id: there is no upstream `9`, or it has errors and \
         was left out; requests that come to it get a 502",
    "line 33: consumers[1] (id bob) group_id: there is no consumer group `gone`, or it has \
         errors and was left out; this consumer's requests get a 503",
    "line 36: consumers[1] (id bob) plugins.key-auth.key: duplicate key of plugin key-auth \
         found with consumer: alice",
    "line 40: ssls[0] (id 1) cert: failed to parse cert: no PEM certificate in it",
    "line 41: ssls[0] (id 1) key: failed to parse key: no section of the expected kind",
    "line 42: ssls[0] (id 1) ssl_protocols: ssl_protocols: none of them is supported",
];
